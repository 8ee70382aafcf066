//! Signals: which may come in, which may go out, and to whom.
//!
//! As a source a signal is sent to the daemon, which must not take for data what means "stop" to it. As a
//! sink it is sent to the owner. These are different ends, so an endpoint is one or the other.

use super::Context;
use crate::config::diagnostic::Place;
use crate::config::sections::Config;
use crate::config::values::SignalNumber;
use crate::plan::{EndpointId, EndpointKind, Plan, TargetPlan};
use rtcore::sys::rtsignal::DOORBELLS;
use rtcore::sys::signame;
use std::collections::HashMap;

/// Standard signals that may be sent, in addition to [`DOORBELLS`].
const SINKS_TOO: [&str; 4] = ["SIGHUP", "SIGINT", "SIGTERM", "SIGCONT"];

/// Checks every signal endpoint in the roles that the routes give it.
pub fn check(cx: &mut Context<'_, '_, '_>, plan: &Plan) {
    let mut sources: HashMap<i32, EndpointId> = HashMap::new();
    let mut sinks: HashMap<(Option<usize>, i32), (EndpointId, bool)> = HashMap::new();
    let sunk = sinks_of(plan);
    for (id, (endpoint, written)) in plan.endpoints.iter().zip(&cx.config.endpoint).enumerate() {
        let EndpointKind::Signal { signo, inbox, .. } = endpoint.kind else { continue };
        if written.kind.get().is_none() || written.signal.get().is_none() {
            continue;
        }
        let place = written.signal.place_or(&written.place);
        let is_source = plan.sources.iter().any(|source| source.endpoint == id);
        let is_sink = sunk.get(id).copied().unwrap_or(false);
        if is_source && is_sink {
            both_ways(cx, &place, &endpoint.name, signo);
            continue;
        }
        if is_source {
            if let Some(at) = written.target.at() {
                cx.report.warning(
                    &at.place,
                    "`target` has an effect only where a route sends to the endpoint",
                    "remove `target`",
                );
            }
            if let (Some(at), Some(_)) = (written.msgsize.at(), inbox) {
                let message = format!(
                    "`msgsize` has a meaning where a route sends to it only: what comes to rtd by {} is its value",
                    signame::name(signo)
                );
                cx.report.error(&at.place, message, "remove `msgsize`\nkind = \"lane\" (payloads into rtd)");
            }
            source(cx, &place, signo);
            if let Some(first) = sources.insert(signo, id) {
                let message = format!(
                    "{} is read by endpoint `{}` already: the daemon could not tell them apart",
                    signame::name(signo),
                    plan.endpoints.get(first).map_or("?", |e| e.name.as_str())
                );
                cx.report.error(&place, message, format!("signal = \"{}\"", free(cx.config)));
            }
        }
        if is_sink {
            sink(cx, &place, signo);
            if endpoint.owner.is_none() && written.owner.is_absent() {
                let message = format!("endpoint `{}` is sent to, but no process owns it", endpoint.name);
                let at = Place { key: format!("{}.owner", written.place.key), ..written.place.clone() };
                let line = cx.owner_line();
                cx.report.error(&at, message, line);
            } else if let Some((first, tickets)) =
                sinks.insert((endpoint.owner, signo), (id, inbox.is_some()))
            {
                let first = plan.endpoints.get(first).map_or("?", |e| e.name.as_str());
                same_signal(cx, &place, signo, first, tickets == inbox.is_some(), &free(cx.config));
            }
        }
    }
}

/// One signal for two endpoints of a process: harmless where both mean the same by its value.
fn same_signal(
    cx: &mut Context<'_, '_, '_>,
    place: &Place,
    signo: i32,
    first: &str,
    alike: bool,
    free: &str,
) {
    let name = signame::name(signo);
    let message =
        format!("{name} goes to the same process from endpoint `{first}`: it cannot tell them apart");
    let fix = format!("signal = \"{free}\"");
    if alike {
        cx.report.warning(place, message, fix);
    } else {
        let message = format!("{message}, and only one of them has `msgsize`, where the value is a ticket");
        cx.report.error(place, message, format!("{fix}\nthe same `msgsize` for both"));
    }
}

/// For each endpoint whether some route sends to it.
pub fn sinks_of(plan: &Plan) -> Vec<bool> {
    let mut sunk = vec![false; plan.endpoints.len()];
    for target in plan.routes.iter().flat_map(|route| &route.to) {
        let members = match target {
            TargetPlan::Endpoint(id) => std::slice::from_ref(id),
            TargetPlan::Group { members, .. } => members.as_slice(),
        };
        for id in members {
            if let Some(sunk) = sunk.get_mut(*id) {
                *sunk = true;
            }
        }
    }
    sunk
}

fn both_ways(cx: &mut Context<'_, '_, '_>, place: &Place, name: &str, signo: i32) {
    let message = format!(
        "signal endpoint `{name}` is read by one route and sent to by another: read, {} comes to rtd; \
         sent to, it goes to the owner",
        signame::name(signo)
    );
    let fix =
        format!("declare two endpoints, `{name}.in` for `from` and `{name}.out` with an owner for `to`");
    cx.report.error(place, message, fix);
}

/// Whether a configuration may let rtd read this signal.
pub fn may_be_source(signo: i32) -> bool {
    signame::is_realtime(signo) || DOORBELLS.contains(&signo)
}

/// Whether a configuration may let rtd send this signal.
pub fn may_be_sink(signo: i32) -> bool {
    may_be_source(signo) || SINKS_TOO.contains(&signame::name(signo).as_str())
}

fn source(cx: &mut Context<'_, '_, '_>, place: &Place, signo: i32) {
    let name = signame::name(signo);
    if may_be_source(signo) {
        return;
    }
    let message =
        format!("{name} cannot be a source: the daemon or the kernel needs it to mean what it means");
    cx.report.error(
        place,
        message,
        format!("signal = \"{}\"\none of {}", free(cx.config), DOORBELLS.map(signame::name).join(", ")),
    );
}

fn sink(cx: &mut Context<'_, '_, '_>, place: &Place, signo: i32) {
    let name = signame::name(signo);
    if may_be_sink(signo) {
        return;
    }
    let message =
        format!("{name} cannot be sent as a message: it would stop or kill the receiver, or be lost");
    let list: Vec<String> =
        DOORBELLS.map(signame::name).into_iter().chain(SINKS_TOO.map(str::to_owned)).collect();
    let free = free(cx.config);
    cx.report.error(place, message, format!("signal = \"{free}\"\none of {}", list.join(", ")));
}

/// A real-time signal that no endpoint names.
pub fn free(config: &Config) -> String {
    let taken = |signo: i32| {
        config.endpoint.iter().any(|e| e.signal.get().is_some_and(|SignalNumber(other)| *other == signo))
    };
    // The lowest ones have the highest precedence: they are left to a signal for which that was chosen.
    let first = signame::rt_min() + 3;
    let free = (first..=signame::rt_max()).chain(signame::rt_min()..first).find(|signo| !taken(*signo));
    signame::name(free.unwrap_or(first))
}
