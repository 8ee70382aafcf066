//! Direct routes: from one process into the memory of another, with no thread of rtd in between.
//!
//! Work that only such a thread could do (wait for a full target, limit the rate, copy to several
//! targets, translate) is refused if the route requests it. The defaults of a lane for its routes
//! do not apply to direct routes.

use super::Context;
use super::names::Target;
use super::routes::is_certain;
use crate::config::diagnostic::Place;
use crate::config::sections::{Lane, Route};
use crate::config::suggest::list_line;
use crate::endpoint::EndpointKind;
use crate::plan::{EndpointId, EndpointPlan, Path, RoutePlan};
use rtcore::lane::policy::Overflow;

/// Reports settings that need a thread, and ends that no ring can join.
pub fn check(
    cx: &mut Context<'_, '_, '_>,
    route: &Route,
    from: Option<EndpointId>,
    endpoints: &[EndpointPlan],
) {
    keys(cx, route);
    if let (Some(from), Some(at)) = (from, route.from.at()) {
        end(cx, from, endpoints, &at.place);
    }
    for (index, at) in route.to.iter().enumerate() {
        match cx.names.targets.get(&at.value).copied() {
            Some(_) if index > 0 => {
                let message = format!(
                    "`{}` is a second target: a direct route has one, because rtd does not copy its messages",
                    at.value
                );
                let first = route.to.first().map(|first| first.value.as_str());
                let fix = format!("{}\npath = \"routed\"", list_line("to", first));
                cx.report.error(&at.place, message, fix);
            }
            Some(Target::Group(_)) => {
                let message = format!(
                    "`{}` is a group: a direct route goes to one endpoint, because rtd does not choose a member for its messages",
                    at.value
                );
                cx.report.error(
                    &at.place,
                    message,
                    "path = \"routed\"\nname one lane endpoint in `to`",
                );
            }
            Some(Target::Endpoint(id)) => end(cx, id, endpoints, &at.place),
            None => {}
        }
    }
}

fn keys(cx: &mut Context<'_, '_, '_>, route: &Route) {
    fn place<T>(field: &crate::config::reader::Field<T>) -> Option<&Place> {
        field.at().map(|at| &at.place)
    }
    let keys = [
        ("rate_hz", place(&route.rate_hz)),
        ("burst", place(&route.burst)),
        ("payload", place(&route.payload)),
        ("truncate", place(&route.truncate)),
        ("capacity", place(&route.capacity)),
        ("rejoin", place(&route.rejoin)),
        ("mq_priority", place(&route.mq_priority)),
    ];
    for (key, place) in keys
        .into_iter()
        .filter_map(|(key, place)| Some((key, place?)))
    {
        let message = format!(
            "`{key}` has no effect on a direct route: its messages do not pass through rtd"
        );
        cx.report
            .error(place, message, format!("remove `{key}`\npath = \"routed\""));
    }
}

fn end(cx: &mut Context<'_, '_, '_>, id: EndpointId, all: &[EndpointPlan], place: &Place) {
    let Some(endpoint) = all.get(id).filter(|_| is_certain(cx, id)) else {
        return;
    };
    if !matches!(endpoint.kind, EndpointKind::Ring(_)) {
        let message = format!(
            "`{}` is of kind \"{}\": a direct route goes from a lane endpoint to a lane endpoint",
            endpoint.name,
            endpoint.kind.name()
        );
        let fix = format!(
            "path = \"routed\"\nkind = \"lane\" (endpoint `{}`)",
            endpoint.name
        );
        cx.report.error(place, message, fix);
    }
}

/// The sender's reaction to a full ring: an error, or a bounded wait.
pub fn overflow(cx: &mut Context<'_, '_, '_>, route: &Route, lane: Option<&Lane>) -> Overflow {
    let possible =
        |overflow: Overflow| matches!(overflow, Overflow::Reject | Overflow::Block { .. });
    if let Some(at) = route.overflow.at() {
        if !possible(at.value.0) {
            let message =
                "a direct route cannot displace: messages in the ring belong to the receiver";
            let fix = "overflow = \"reject\"\noverflow = \"block:500\"\npath = \"routed\"";
            cx.report.error(&at.place, message, fix);
        }
        return at.value.0;
    }
    let lanes = lane
        .and_then(|lane| lane.overflow.get())
        .map(|overflow| overflow.0);
    lanes
        .filter(|overflow| possible(*overflow))
        .unwrap_or(Overflow::Reject)
}

/// Reports direct routes whose source another route reads too: the ring has one consumer.
pub fn check_sources(cx: &mut Context<'_, '_, '_>, routes: &[RoutePlan]) {
    let config = cx.config;
    for (id, (route, written)) in routes.iter().zip(&config.route).enumerate() {
        if route.path != Path::Direct || route.from >= config.endpoint.len() {
            continue;
        }
        // Of two direct routes, the second is at fault.
        let reads = |(at, other): &(usize, &RoutePlan)| {
            *at != id && other.from == route.from && (other.path == Path::Routed || *at < id)
        };
        let Some((_, other)) = routes.iter().enumerate().find(reads) else {
            continue;
        };
        let from = written.from.get().map_or("?", String::as_str);
        let message = format!(
            "route `{}` reads `{from}` too: only the receiver of a direct route reads its messages",
            other.name
        );
        let fix = "path = \"routed\"\ngive the direct route a source of its own";
        let fix = if other.path == Path::Direct {
            "path = \"routed\" in both\ngive each direct route a source of its own"
        } else {
            fix
        };
        cx.report
            .error(&written.path.place_or(&written.place), message, fix);
    }
}
