//! Receivers that can read something older than the file promises.
//!
//! `overflow`, `capacity` and `ttl` govern messages that wait in rtd. A message that rtd has handed to a kernel queue
//! stays there until its receiver reads it, and such a queue keeps its oldest messages. A ring of a session is
//! different: the receiver's library discards what is expired or superseded (`rtcore::client::Inbox`).

use super::Context;
use crate::config::diagnostic::Place;
use crate::config::sections::Route;
use crate::config::values::show_time;
use crate::plan::{EndpointId, EndpointKind, EndpointPlan, Overflow, Path, Plan, RoutePlan};
use rtcore::sys::signame;

/// Gives a queue one message where the file does not say how many and every route into it conflates: there is no use
/// for an older message.
pub fn default_maxmsg(cx: &Context<'_, '_, '_>, endpoints: &mut [EndpointPlan], routes: &[RoutePlan]) {
    for (id, (endpoint, written)) in endpoints.iter_mut().zip(&cx.config.endpoint).enumerate() {
        let EndpointKind::Mqueue { maxmsg, .. } = &mut endpoint.kind else { continue };
        let mut into = routes.iter().filter(|route| route.ends().any(|end| end == id)).peekable();
        let is_read = routes.iter().any(|route| route.from == id);
        if written.maxmsg.is_absent()
            && !is_read
            && into.peek().is_some()
            && into.all(|route| route.overflow == Overflow::Conflate)
        {
            *maxmsg = 1;
        }
    }
}

/// What keeps messages in front of a receiver, out of reach of rtd and the receiver's library.
struct Keeps {
    /// How the file calls it.
    what: String,
    messages: u64,
    /// Past that it keeps the newest ones: a ring that rtd writes over (`conflate`, `displace-oldest`).
    displaces: bool,
    /// The line that makes it keep fewer.
    fewer: String,
    /// The line that has the receiver's library discard them.
    library: String,
}

/// Warns of each end at which a receiver can read something older than `overflow` or `ttl` of a route promise.
pub fn check(cx: &mut Context<'_, '_, '_>, plan: &Plan) {
    let config = cx.config;
    for (route, written) in plan.routes.iter().zip(&config.route) {
        if route.path == Path::Direct {
            continue;
        }
        for id in route.ends() {
            let Some(endpoint) = plan.endpoints.get(id).filter(|_| super::routes::is_certain(cx, id)) else {
                continue;
            };
            if let Some(keeps) = keeps(cx, plan, route, id, endpoint) {
                overflow(cx, route, written, &keeps);
                ttl(cx, route, written, &keeps);
            }
        }
    }
}

/// None where the receiver's library discards what is too old, and for a standard signal, which carries nothing.
fn keeps(
    cx: &Context<'_, '_, '_>,
    plan: &Plan,
    route: &RoutePlan,
    id: EndpointId,
    endpoint: &EndpointPlan,
) -> Option<Keeps> {
    let name = &endpoint.name;
    let library = format!("kind = \"lane\" (endpoint `{name}`), whose receiver's library discards them");
    let fewer = format!("maxmsg = 1 (endpoint `{name}`)");
    match &endpoint.kind {
        EndpointKind::Mqueue { queue, maxmsg, .. } => {
            let size = cx.machine.queue(queue).and_then(|queue| queue.size);
            let queue = queue.to_string_lossy();
            let messages = size.map_or(*maxmsg as u64, |(maxmsg, _)| maxmsg);
            Some(Keeps { what: format!("queue `{queue}`"), messages, displaces: false, fewer, library })
        }
        EndpointKind::Xddp(port) => {
            let what = format!("the buffer of `{}`", plan.daemon.skin.device(port.port));
            Some(Keeps { what, messages: port.maxmsg as u64, displaces: false, fewer, library })
        }
        EndpointKind::Signal { signo, inbox: None, .. } if signame::is_realtime(*signo) => {
            let messages = cx.machine.rlimit_sigpending.and_then(|limit| limit.soft).unwrap_or(u64::MAX);
            let what = format!("the kernel's list of pending signals ({})", signame::name(*signo));
            let library =
                format!("msgsize = 8 (endpoint `{name}`): a ring, whose receiver's library discards them");
            Some(Keeps { what, messages, displaces: false, fewer: library.clone(), library })
        }
        EndpointKind::Signal { .. } => None,
        EndpointKind::Lane(ring) => {
            let shared = route.is_one_of_many(id);
            // Time stamps of lanes with a clock of their own mean nothing to the receiver's library.
            let blind = !plan.daemon.skin.kind.caps().linux_clock;
            (shared || blind).then(|| Keeps {
                what: format!("the ring of `{name}`"),
                messages: if !shared && route.overflow == Overflow::Conflate { 1 } else { ring.slots as u64 },
                displaces: !shared,
                fewer: fewer.clone(),
                library: if shared { "mode = \"all\" (its group)".to_owned() } else { fewer },
            })
        }
    }
}

fn overflow(cx: &mut Context<'_, '_, '_>, route: &RoutePlan, written: &Route, keeps: &Keeps) {
    let Keeps { what, messages, displaces, fewer, .. } = keeps;
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
    let lane = cx.config.lane.get(route.lane).and_then(|lane| lane.overflow.at()).map(|at| &at.place);
    let place = written.overflow.place_or(lane.unwrap_or(&written.place));
    cx.report.warning(&place, message, fewer.clone());
}

fn ttl(cx: &mut Context<'_, '_, '_>, route: &RoutePlan, written: &Route, keeps: &Keeps) {
    let (Some(ttl_ns), Keeps { what, messages, library, .. }) = (route.ttl_ns, keeps) else { return };
    let place: Place = written.ttl.place_or(&written.place);
    let count = if *messages == 1 { "a message".to_owned() } else { format!("up to {messages} messages") };
    let message = format!(
        "the ttl of {} ends where rtd hands a message over: {what} keeps {count} that the receiver may read at any age",
        show_time(ttl_ns)
    );
    cx.report.warning(&place, message, format!("{library}\nremove `ttl`, and compare ages in the receiver"));
}
