//! Endpoints in shared memory: the sizes of their rings, and the way they go.
//!
//! A lane endpoint is one end of rings; its owner's session holds the other. A signal that has a ring beside it
//! says where in the ring the payload is: the receiver takes its value for a ticket.

use super::Context;
use crate::config::diagnostic::Place;
use crate::config::reader::Field;
use crate::config::sections::Endpoint;
use crate::plan::{EndpointKind, Plan, RING_BYTES_MAX, RING_PAYLOAD_BYTES_MAX, RING_SLOTS_MAX, RingPlan};
use rtcore::sys::signame;

/// Slots of a ring unless the file says otherwise: as many as a route keeps in front of a full target.
const SLOTS: usize = 64;
/// Payload bytes of a lane endpoint unless the file says otherwise: as a queue's.
const PAYLOAD_BYTES: usize = 256;

/// The ring of an endpoint of kind `lane`.
pub fn lane(cx: &mut Context<'_, '_, '_>, endpoint: &Endpoint) -> EndpointKind {
    super::endpoints::foreign(cx, endpoint, "lane", &["queue", "mode", "flush_at_start", "signal", "target"]);
    if endpoint.owner.is_absent() && !cx.report.has_broken_lines() {
        let place = Place { key: format!("{}.owner", endpoint.place.key), ..endpoint.place.clone() };
        let name = endpoint.name.get().map_or("?", |name| name.0.as_str());
        let message = format!("lane endpoint `{name}` has no owner: no process would share its ring");
        let fix = cx.owner_line();
        cx.report.error(&place, message, fix);
    }
    EndpointKind::Lane(size(cx, endpoint, "lane"))
}

/// The ring beside a signal, where the file asks for one.
pub fn inbox(cx: &mut Context<'_, '_, '_>, endpoint: &Endpoint) -> Option<RingPlan> {
    let Some(msgsize) = endpoint.msgsize.at() else {
        if let (Some(at), true) = (endpoint.maxmsg.at(), endpoint.msgsize.is_absent()) {
            let message = "`maxmsg` of a signal has no effect without `msgsize`: the signal has no ring";
            let fix = format!("msgsize = {PAYLOAD_BYTES}\nremove `maxmsg`");
            cx.report.error(&at.place, message, fix);
        }
        return None;
    };
    if let Some(signo) = endpoint.signal.get().map(|signal| signal.0).filter(|s| !signame::is_realtime(*s)) {
        let message = format!(
            "{} carries no value, so it cannot announce a payload: only real-time signals have `msgsize`",
            signame::name(signo)
        );
        cx.report.error(
            &msgsize.place,
            message,
            format!("signal = \"{}\"\nremove `msgsize`", super::signals::free(cx.config)),
        );
    }
    Some(size(cx, endpoint, "signal"))
}

/// Whether the size that the file gives to a ring can be taken for what was meant.
pub fn is_certain(endpoint: &Endpoint) -> bool {
    match &endpoint.msgsize {
        Field::Absent => true,
        Field::Invalid => false,
        Field::Given(at) => at.value.count() <= RING_PAYLOAD_BYTES_MAX,
    }
}

fn size(cx: &mut Context<'_, '_, '_>, endpoint: &Endpoint, kind: &str) -> RingPlan {
    let payload_bytes = endpoint.msgsize.get().map_or(PAYLOAD_BYTES, |n| n.count());
    let written = endpoint.maxmsg.get().map_or(SLOTS, |n| n.count());
    // The key's own bound is the same.
    let slots = written.min(RING_SLOTS_MAX).next_power_of_two();
    if let (Some(at), true) = (endpoint.msgsize.at(), payload_bytes > RING_PAYLOAD_BYTES_MAX) {
        let message = format!(
            "`msgsize`: {payload_bytes} is not within 1 to {RING_PAYLOAD_BYTES_MAX}, a ring's for kind = \"{kind}\""
        );
        let fix = format!("msgsize = {RING_PAYLOAD_BYTES_MAX}\nkind = \"mqueue\"");
        cx.report.error(&at.place, message, fix);
        return RingPlan { slots: 1, payload_bytes: RING_PAYLOAD_BYTES_MAX };
    }
    if slots * payload_bytes > RING_BYTES_MAX {
        let place = endpoint.maxmsg.place_or(&endpoint.msgsize.place_or(&endpoint.place));
        let rounded = if slots == written { String::new() } else { format!(" (rounded up from {written})") };
        let message = format!(
            "a ring of {slots} slots{rounded} x {payload_bytes} bytes is {} bytes, at most {RING_BYTES_MAX} are \
             possible",
            slots * payload_bytes
        );
        // The largest power of two that fits: slots are rounded up to one.
        let most = 1_usize << (RING_BYTES_MAX / payload_bytes).ilog2();
        cx.report.error(&place, message, format!("maxmsg = {most}\nmsgsize = {}", RING_BYTES_MAX / slots));
        // What a refused ring would take of the machine is no fault of its own.
        return RingPlan { slots: 1, payload_bytes };
    }
    RingPlan { slots, payload_bytes }
}

/// Reports lane endpoints that are read and sent to: the owner is at one end of a ring, not at both.
pub fn check(cx: &mut Context<'_, '_, '_>, plan: &Plan) {
    let sunk = super::signals::sinks_of(plan);
    for (id, (endpoint, written)) in plan.endpoints.iter().zip(&cx.config.endpoint).enumerate() {
        let EndpointKind::Lane(_) = endpoint.kind else { continue };
        let read = plan.routes.iter().any(|route| route.from == id);
        if !read || !sunk.get(id).copied().unwrap_or(false) {
            continue;
        }
        let name = &endpoint.name;
        let owner = endpoint.owner.and_then(|owner| plan.processes.get(owner));
        let owner = owner.map_or("the owner", |owner| owner.name.as_str());
        let message = format!(
            "lane endpoint `{name}` is read by one route and sent to by another: read, `{owner}` sends into it; \
             sent to, `{owner}` receives from it"
        );
        let fix = format!("declare two endpoints, `{name}.out` for `from` and `{name}.in` for `to`");
        cx.report.error(&written.kind.place_or(&written.place), message, fix);
    }
}
