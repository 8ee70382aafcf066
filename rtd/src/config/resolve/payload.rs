//! The payload bound of a route, and whether every target can take it.
//!
//! A queue's message and a lane's have up to msgsize bytes. A real-time signal carries a value of 8
//! bytes, a standard signal none; a signal with a ring carries msgsize bytes there. A signal that
//! goes into a queue becomes a record of 32 bytes (number, value, origin); a signal that goes into
//! a ring becomes its value, because the slot has the other fields. A loss of bytes on the way must
//! be requested.

use super::Context;
use super::routes::is_certain;
use crate::config::diagnostic::Place;
use crate::config::sections::Route;
use crate::endpoint::ring::RING_PAYLOAD_BYTES_MAX;
use crate::endpoint::signal::SignalPlan;
use crate::endpoint::{EndpointKind, Medium};
use crate::plan::{EndpointPlan, Path, TargetPlan};
use rtcore::message::{SIGNAL_RECORD_BYTES, SIGNAL_VALUE_BYTES};
use rtcore::sys::signame;

/// The payload limit of a route; reports every target that cannot take it.
pub fn bound(
    cx: &mut Context<'_, '_, '_>,
    route: &Route,
    source: Option<&EndpointPlan>,
    to: &[TargetPlan],
    endpoints: &[EndpointPlan],
) -> usize {
    let ids = to
        .iter()
        .flat_map(TargetPlan::endpoints)
        .filter(|id| is_certain(cx, **id));
    let targets: Vec<&EndpointPlan> = ids.filter_map(|id| endpoints.get(*id)).collect();
    let direct = route.path.get().is_some_and(|path| path.0 == Path::Direct);
    match source.map(|source| (&source.kind, source)) {
        Some((EndpointKind::Ring(ring), source)) if direct => {
            let rings = targets
                .into_iter()
                .filter(|to| matches!(to.kind, EndpointKind::Ring(_)));
            for target in rings {
                let at = place_of(route, &target.name);
                let shorter = |room| format!("msgsize = {room} (endpoint `{}`)", source.name);
                too_large(cx, &at, ring.payload_bytes, target, shorter);
            }
            ring.payload_bytes
        }
        // Another source cannot be direct, which is reported.
        _ if direct => SIGNAL_VALUE_BYTES,
        Some((EndpointKind::Signal(signal), _)) => from_signal(cx, route, signal.signo, &targets),
        Some((kind, source)) => {
            let msgsize = kind.policy().msgsize().unwrap_or(SIGNAL_VALUE_BYTES);
            from_bytes(cx, route, source, msgsize, &targets)
        }
        None => SIGNAL_VALUE_BYTES,
    }
}

fn from_signal(
    cx: &mut Context<'_, '_, '_>,
    route: &Route,
    signo: i32,
    targets: &[&EndpointPlan],
) -> usize {
    if let Some(at) = route
        .payload
        .at()
        .filter(|at| at.value.count() != SIGNAL_RECORD_BYTES)
    {
        let message =
            format!("a message from a signal is always a record of {SIGNAL_RECORD_BYTES} bytes");
        cx.report.error(&at.place, message, "remove `payload`");
    }
    let truncate = route.truncate.get().copied().unwrap_or(false);
    for target in targets {
        // A ring's slot also has the fields that a record has in addition to the value.
        let (what, needed) = match target.kind.policy().medium() {
            Medium::Queue => ("record", SIGNAL_RECORD_BYTES),
            Medium::Signal | Medium::Ring => ("value", SIGNAL_VALUE_BYTES),
        };
        match (target.kind.room(), &target.kind) {
            (Some(room), _) if room < needed => {
                let message = format!(
                    "`{}` takes {room} bytes, but a signal's {what} has {needed}",
                    target.name
                );
                let fix = format!("msgsize = {needed} (endpoint `{}`)", target.name);
                cx.report
                    .error(&place_of(route, &target.name), message, fix);
            }
            (None, EndpointKind::Signal(SignalPlan { signo: to, .. }))
                if signame::is_realtime(signo) && !signame::is_realtime(*to) && !truncate =>
            {
                let message = format!(
                    "{} carries no value: the content of messages from {} is lost on the way to `{}`",
                    signame::name(*to),
                    signame::name(signo),
                    target.name
                );
                cx.report
                    .warning(&place_of(route, &target.name), message, "truncate = true");
            }
            _ => {}
        }
    }
    SIGNAL_RECORD_BYTES
}

/// The limit for a queue or a lane endpoint, whose messages have up to `msgsize` bytes.
fn from_bytes(
    cx: &mut Context<'_, '_, '_>,
    route: &Route,
    source: &EndpointPlan,
    msgsize: usize,
    targets: &[&EndpointPlan],
) -> usize {
    let is_signal = |e: &&EndpointPlan| matches!(e.kind, EndpointKind::Signal(_));
    let truncate = route.truncate.get().copied().unwrap_or(false);
    let only_signals = !targets.is_empty() && targets.iter().all(is_signal);
    let value = if truncate {
        msgsize
    } else {
        SIGNAL_VALUE_BYTES
    };
    let rooms = targets
        .iter()
        .filter(|_| only_signals)
        .map(|to| to.kind.room().unwrap_or(value));
    let default = rooms.fold(msgsize, usize::min);
    let bound = route
        .payload
        .get()
        .map_or(default, |payload| payload.count());
    if let Some(at) = route.payload.at().filter(|_| bound > msgsize) {
        let message = format!(
            "no message from `{}` is longer than its msgsize of {msgsize}",
            source.name
        );
        cx.report
            .warning(&at.place, message, format!("payload = {msgsize}"));
    }
    // The size of the messages that can really come, for which the queues in front of targets are
    // made.
    let longest = bound.min(msgsize);
    let is_bare = |e: &&EndpointPlan| is_signal(e) && e.kind.room().is_none();
    if let (Some(at), true) = (
        route.truncate.at(),
        truncate && !targets.iter().any(is_bare),
    ) {
        let message = "`truncate` has an effect only on signal targets without `msgsize`";
        cx.report.warning(&at.place, message, "remove `truncate`");
    }
    for target in targets {
        let at = route.payload.place_or(&place_of(route, &target.name));
        if target.kind.room().is_some() {
            too_large(cx, &at, longest, target, |room| format!("payload = {room}"));
        } else if let EndpointKind::Signal(signal) = &target.kind
            && !truncate
        {
            too_much_for_signal(cx, &at, target, signal, longest);
        }
    }
    longest
}

/// Reports a target with less room than the messages need; `bound` is the line that makes them
/// shorter.
fn too_large(
    cx: &mut Context<'_, '_, '_>,
    at: &Place,
    longest: usize,
    target: &EndpointPlan,
    bound: impl Fn(usize) -> String,
) {
    let Some(room) = target.kind.room().filter(|room| longest > *room) else {
        return;
    };
    let message = format!(
        "messages of up to {longest} bytes go to `{}`, which takes {room}",
        target.name
    );
    let mut fix = bound(room);
    if target.kind.ring().is_none() || longest <= RING_PAYLOAD_BYTES_MAX {
        fix.push_str(&format!(
            "\nmsgsize = {longest} (endpoint `{}`)",
            target.name
        ));
    }
    cx.report.error(at, message, fix);
}

fn too_much_for_signal(
    cx: &mut Context<'_, '_, '_>,
    at: &Place,
    target: &EndpointPlan,
    signal: &SignalPlan,
    longest: usize,
) {
    let room = signal.value_bytes();
    if longest <= room {
        return;
    }
    let carries = if room == 0 {
        "carries nothing".to_owned()
    } else {
        format!("carries {room} bytes")
    };
    let message = format!(
        "messages of up to {longest} bytes go to `{}`, and {} {carries}: the rest would be lost",
        target.name,
        signame::name(signal.signo)
    );
    cx.report
        .error(at, message, format!("truncate = true\npayload = {room}"));
}

/// The place at which a route names a target, by itself or in a group.
fn place_of(route: &Route, target: &str) -> Place {
    let direct = route
        .to
        .iter()
        .find(|at| at.value == target)
        .or(route.to.first());
    direct.map_or_else(|| route.place.clone(), |at| at.place.clone())
}
