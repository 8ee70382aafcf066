//! The payload bound of a route, and whether every target can take it.
//!
//! A queue's message has up to msgsize bytes. A real-time signal carries a value of 8 bytes, a standard
//! signal none. A signal that goes into a queue becomes a record of 32 bytes (number, value, origin).
//! Whatever would be lost on the way must be asked for.

use super::Context;
use super::routes::is_certain;
use crate::config::diagnostic::Place;
use crate::config::sections::Route;
use crate::plan::{EndpointKind, EndpointPlan, SIGNAL_RECORD_BYTES, SIGNAL_VALUE_BYTES, TargetPlan};
use rtcore::sys::signame;

/// The bound of a route, with everything reported that cannot take it.
pub fn bound(
    cx: &mut Context<'_, '_, '_>,
    route: &Route,
    source: Option<&EndpointPlan>,
    to: &[TargetPlan],
    endpoints: &[EndpointPlan],
) -> usize {
    let ids = to.iter().flat_map(TargetPlan::endpoints).filter(|id| is_certain(cx, **id));
    let targets: Vec<&EndpointPlan> = ids.filter_map(|id| endpoints.get(*id)).collect();
    match source.map(|source| (&source.kind, source)) {
        Some((EndpointKind::Signal { signo, .. }, _)) => from_signal(cx, route, *signo, &targets),
        Some((EndpointKind::Mqueue { msgsize, .. }, source)) => {
            from_queue(cx, route, source, *msgsize, &targets)
        }
        Some((EndpointKind::Lane(ring), source)) => {
            from_queue(cx, route, source, ring.payload_bytes, &targets)
        }
        None => SIGNAL_VALUE_BYTES,
    }
}

fn from_signal(cx: &mut Context<'_, '_, '_>, route: &Route, signo: i32, targets: &[&EndpointPlan]) -> usize {
    if let Some(at) = route.payload.at().filter(|at| at.value.count() != SIGNAL_RECORD_BYTES) {
        let message = format!("what comes from a signal is a record of {SIGNAL_RECORD_BYTES} bytes, always");
        cx.report.error(&at.place, message, "remove `payload`");
    }
    let truncate = route.truncate.get().copied().unwrap_or(false);
    for target in targets {
        match target.kind {
            EndpointKind::Mqueue { msgsize, .. } if msgsize < SIGNAL_RECORD_BYTES => {
                let message = format!(
                    "`{}` takes {msgsize} bytes, a signal's record has {SIGNAL_RECORD_BYTES}",
                    target.name
                );
                let mend = format!("msgsize = {SIGNAL_RECORD_BYTES} (endpoint `{}`)", target.name);
                cx.report.error(&place_of(route, &target.name), message, mend);
            }
            EndpointKind::Signal { signo: to, .. }
                if signame::is_realtime(signo) && !signame::is_realtime(to) && !truncate =>
            {
                let message = format!(
                    "{} carries no value: what {} brings is lost on the way to `{}`",
                    signame::name(to),
                    signame::name(signo),
                    target.name
                );
                cx.report.warning(&place_of(route, &target.name), message, "truncate = true");
            }
            _ => {}
        }
    }
    SIGNAL_RECORD_BYTES
}

fn from_queue(
    cx: &mut Context<'_, '_, '_>,
    route: &Route,
    source: &EndpointPlan,
    msgsize: usize,
    targets: &[&EndpointPlan],
) -> usize {
    let is_signal = |e: &&EndpointPlan| matches!(e.kind, EndpointKind::Signal { .. });
    let truncate = route.truncate.get().copied().unwrap_or(false);
    let only_signals = !targets.is_empty() && targets.iter().all(is_signal);
    let default = if only_signals && !truncate { msgsize.min(SIGNAL_VALUE_BYTES) } else { msgsize };
    let bound = route.payload.get().map_or(default, |payload| payload.count());
    if let Some(at) = route.payload.at().filter(|_| bound > msgsize) {
        let message = format!("no message from `{}` is longer than its msgsize of {msgsize}", source.name);
        cx.report.warning(&at.place, message, format!("payload = {msgsize}"));
    }
    // What can really come, and what the queues in front of targets are sized for.
    let longest = bound.min(msgsize);
    if let (Some(at), true) = (route.truncate.at(), truncate && !targets.iter().any(is_signal)) {
        cx.report.warning(&at.place, "`truncate` has an effect on signal targets only", "remove it");
    }
    for target in targets {
        let at = route.payload.place_or(&place_of(route, &target.name));
        match target.kind {
            EndpointKind::Mqueue { msgsize: room, .. } if longest > room => {
                let message =
                    format!("messages of up to {longest} bytes go to `{}`, which takes {room}", target.name);
                let mend = format!("payload = {room}\nmsgsize = {longest} (endpoint `{}`)", target.name);
                cx.report.error(&at, message, mend);
            }
            EndpointKind::Signal { signo, .. } if !truncate => {
                too_much_for_signal(cx, &at, target, signo, longest)
            }
            _ => {}
        }
    }
    longest
}

fn too_much_for_signal(
    cx: &mut Context<'_, '_, '_>,
    at: &Place,
    target: &EndpointPlan,
    signo: i32,
    longest: usize,
) {
    let room = if signame::is_realtime(signo) { SIGNAL_VALUE_BYTES } else { 0 };
    if longest <= room {
        return;
    }
    let carries = if room == 0 { "carries nothing".to_owned() } else { format!("carries {room} bytes") };
    let message = format!(
        "messages of up to {longest} bytes go to `{}`, and {} {carries}: the rest would be lost",
        target.name,
        signame::name(signo)
    );
    cx.report.error(at, message, format!("truncate = true\npayload = {room}"));
}

/// Where a route names a target, alone or through a group.
fn place_of(route: &Route, target: &str) -> Place {
    let direct = route.to.iter().find(|at| at.value == target).or(route.to.first());
    direct.map_or_else(|| route.place.clone(), |at| at.place.clone())
}
