//! Receivers that can read older messages than the file allows.
//!
//! `overflow`, `capacity` and `ttl` govern messages that wait in rtd. A message that rtd has handed
//! to a kernel queue stays there until its receiver reads it, and such a queue keeps its oldest
//! messages. A ring of a session is different: the receiver's library discards expired and
//! superseded messages (`rtcore::client::Inbox`).

use super::Context;
use crate::config::diagnostic::Place;
use crate::config::sections::Route;
use crate::endpoint::mqueue::MqueuePlan;
use crate::endpoint::{End, EndpointKind, Keeps, Keys};
use crate::plan::{EndpointPlan, Path, Plan, RoutePlan};
use crate::words::show_time;
use rtcore::lane::policy::Overflow;

/// Gives a queue one message if the file has no `maxmsg` and every route into it conflates: older
/// messages have no use.
pub fn default_maxmsg(
    cx: &Context<'_, '_, '_>,
    endpoints: &mut [EndpointPlan],
    routes: &[RoutePlan],
) {
    for (id, (endpoint, written)) in endpoints.iter_mut().zip(&cx.config.endpoint).enumerate() {
        let EndpointKind::Mqueue(MqueuePlan { maxmsg, .. }) = &mut endpoint.kind else {
            continue;
        };
        let mut into = routes
            .iter()
            .filter(|route| route.ends().any(|end| end == id))
            .peekable();
        let is_read = routes.iter().any(|route| route.from == id);
        let Keys::Mqueue(keys) = &written.keys else {
            continue;
        };
        if keys.maxmsg.is_absent()
            && !is_read
            && into.peek().is_some()
            && into.all(|route| route.overflow == Overflow::Conflate)
        {
            *maxmsg = 1;
        }
    }
}

/// Warns of each end at which a receiver can read older messages than `overflow` or `ttl` of a
/// route allow.
pub fn check(cx: &mut Context<'_, '_, '_>, plan: &Plan) {
    let config = cx.config;
    for (route, written) in plan.routes.iter().zip(&config.route) {
        if route.path == Path::Direct {
            continue;
        }
        for id in route.ends() {
            let Some(endpoint) = plan
                .endpoints
                .get(id)
                .filter(|_| super::routes::is_certain(cx, id))
            else {
                continue;
            };
            let end = End {
                machine: cx.machine,
                plan,
                route,
                id,
                name: &endpoint.name,
            };
            if let Some(keeps) = endpoint.kind.policy().keeps(&end) {
                overflow(cx, route, written, &keeps);
                ttl(cx, route, written, &keeps);
            }
        }
    }
}

fn overflow(cx: &mut Context<'_, '_, '_>, route: &RoutePlan, written: &Route, keeps: &Keeps) {
    let Keeps {
        what,
        messages,
        displaces,
        fewer,
        ..
    } = keeps;
    // One older message is the least that a kernel queue can keep.
    if *displaces || *messages <= 1 {
        return;
    }
    let name = &route.name;
    let message = match route.overflow {
        Overflow::Conflate => format!(
            "route `{name}` conflates, but {what} keeps the oldest {messages} messages: a receiver that falls behind \
             reads up to {messages} older messages before the latest one"
        ),
        Overflow::DisplaceOldest => format!(
            "route `{name}` keeps the newest {} messages in front of {what}, which itself keeps the oldest {messages}: \
             a receiver that falls behind reads up to {messages} older messages first",
            route.capacity
        ),
        Overflow::Reject | Overflow::DisplaceNewest | Overflow::Block { .. } => return,
    };
    let lane = cx
        .config
        .lane
        .get(route.lane)
        .and_then(|lane| lane.overflow.at())
        .map(|at| &at.place);
    let place = written.overflow.place_or(lane.unwrap_or(&written.place));
    cx.report.warning(&place, message, fewer.clone());
}

fn ttl(cx: &mut Context<'_, '_, '_>, route: &RoutePlan, written: &Route, keeps: &Keeps) {
    let (
        Some(ttl_ns),
        Keeps {
            what,
            messages,
            library,
            ..
        },
    ) = (route.ttl_ns, keeps)
    else {
        return;
    };
    let place: Place = written.ttl.place_or(&written.place);
    let count = if *messages == 1 {
        "a message".to_owned()
    } else {
        format!("up to {messages} messages")
    };
    let message = format!(
        "rtd applies the ttl of {} only until it hands a message over: {what} keeps {count} that \
         the receiver may read at any age",
        show_time(ttl_ns)
    );
    cx.report.warning(
        &place,
        message,
        format!("{library}\nremove `ttl`, and compare ages in the receiver"),
    );
}
