//! Kind `lane`: shared memory, as a ring between the owner's session and a lane thread or another
//! session.

use super::{
    Cost, Described, End, EndpointKind, Keeps, KindKeys, Medium, Policy, SinkParts, SourceParts,
    Use, missing_ring, small,
};
use crate::config::diagnostic::Place;
use crate::config::reader::{Field, Reader};
use crate::config::resolve::Context;
use crate::config::sections::Endpoint;
use crate::config::values::Int;
use crate::plan::{Plan, SkinPlan};
use rtcore::endpoint::source::Source;
use rtcore::endpoint::{Shown, SinkKind, SourceKind, ring};
use rtcore::lane::policy::Overflow;
use rtcore::sys::limits::{MQ_MAXMSG_HARD, MQ_MSGSIZE_HARD};
use schemars::JsonSchema;
use serde_json::Value;
use std::io;

/// Limit of the slots of a ring.
pub const RING_SLOTS_MAX: usize = 65_536;
/// Largest payload of a ring's slot, in bytes.
pub const RING_PAYLOAD_BYTES_MAX: usize = 1024 * 1024;
/// Limit of the payload bytes of one ring, all slots together.
pub const RING_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Bytes of a message in a ring in addition to its payload.
const SLOT_OVERHEAD_BYTES: u64 = 64;
/// A ring's two memories each have a page of indices; one more page for rounding.
const OVERHEAD_BYTES: u64 = 3 * 4096;

/// Default of a ring's slots: as many as the backlog of a route.
const SLOTS: usize = 64;
/// Default of the payload bytes of a lane endpoint: as a queue's.
pub(super) const PAYLOAD_BYTES: usize = 256;

/// Slots of a ring, as written.
pub(super) type Slots = Field<Int<1, MQ_MAXMSG_HARD>>;
/// Payload bytes of a slot, as written.
pub(super) type Payload = Field<Int<1, MQ_MSGSIZE_HARD>>;

/// Shared memory between the owner's session and rtd or another session. `owner` is required.
#[derive(Debug, JsonSchema)]
pub struct Keys {
    /// Slots of the ring, rounded up to a power of two.
    #[schemars(default, extend("default" = 64))]
    pub maxmsg: Slots,
    /// Bytes of the largest message, at most 1 MiB; one ring (maxmsg x msgsize) has at most 256
    /// MiB.
    #[schemars(default, extend("default" = 256))]
    pub msgsize: Payload,
}

impl KindKeys for Keys {
    const NAMES: &'static [&'static str] = &["maxmsg", "msgsize"];

    fn read(r: &mut Reader<'_, '_, '_>) -> Keys {
        Keys {
            maxmsg: r.optional("maxmsg"),
            msgsize: r.optional("msgsize"),
        }
    }

    fn resolve(&self, cx: &mut Context<'_, '_, '_>, endpoint: &Endpoint) -> EndpointKind {
        if endpoint.owner.is_absent() && !cx.report.has_broken_lines() {
            let place = Place {
                key: format!("{}.owner", endpoint.place.key),
                ..endpoint.place.clone()
            };
            let name = endpoint.name.get().map_or("?", |name| name.0.as_str());
            let message =
                format!("lane endpoint `{name}` has no owner: no process would share its ring");
            let fix = cx.owner_line();
            cx.report.error(&place, message, fix);
        }
        EndpointKind::Ring(size(
            cx,
            (&self.maxmsg, &self.msgsize),
            &endpoint.place,
            "lane",
        ))
    }

    fn is_certain(&self) -> bool {
        is_certain(&self.msgsize)
    }

    fn size_place(&self) -> Option<&Place> {
        self.maxmsg
            .at()
            .map(|at| &at.place)
            .or(self.msgsize.at().map(|at| &at.place))
    }

    fn check(cx: &mut Context<'_, '_, '_>, plan: &Plan) {
        check(cx, plan);
    }
}

/// The size of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingPlan {
    /// Slots, a power of two.
    pub slots: usize,
    /// Payload bytes of a slot.
    pub payload_bytes: usize,
}

impl RingPlan {
    /// Bytes of memory; a payload begins and ends on a cache line.
    pub fn bytes(self) -> u64 {
        let payload = (self.payload_bytes as u64).next_multiple_of(64);
        let slots = (self.slots as u64).saturating_mul(payload.saturating_add(SLOT_OVERHEAD_BYTES));
        slots.saturating_add(OVERHEAD_BYTES)
    }

    /// Whether it is within the bounds.
    pub fn is_possible(self) -> bool {
        self.slots.is_power_of_two()
            && self.slots <= RING_SLOTS_MAX
            && (1..=RING_PAYLOAD_BYTES_MAX).contains(&self.payload_bytes)
            && self.slots * self.payload_bytes <= RING_BYTES_MAX
    }
}

impl Policy for RingPlan {
    fn picture_name(&self) -> &'static str {
        "shared memory"
    }

    fn summary(&self, _: &SkinPlan) -> String {
        format!("lane  {} x {}B", self.slots, self.payload_bytes)
    }

    fn shown(&self, _: &SkinPlan) -> Shown {
        Shown::Ring(ring::Shown {
            maxmsg: small(self.slots),
            msgsize: small(self.payload_bytes),
        })
    }

    fn room_name(&self) -> String {
        format!("maxmsg = {} of its ring", self.slots)
    }

    fn medium(&self) -> Medium {
        Medium::Ring
    }

    fn outside_sessions(&self, _: &str, _: bool) -> Option<String> {
        None
    }

    fn msgsize(&self) -> Option<usize> {
        Some(self.payload_bytes)
    }

    fn ring(&self) -> Option<RingPlan> {
        Some(*self)
    }

    fn passes_origin(&self) -> bool {
        true
    }

    /// Rings are counted by the routes that need them ([`crate::plan::Plan::routed_rings`]).
    fn cost(&self) -> Cost {
        Cost::default()
    }

    fn keeps(&self, end: &End<'_>) -> Option<Keeps> {
        let is_shared = end.route.is_one_of_many(end.id);
        // Time stamps of lanes with a clock of their own have no meaning for the receiver's
        // library.
        let is_blind = !end.plan.daemon.skin.kind.caps().linux_clock;
        if !is_shared && !is_blind {
            return None;
        }
        let by_kernel = end.kept_by_kernel();
        let conflates = !is_shared && end.route.overflow == Overflow::Conflate;
        Some(Keeps {
            what: format!("the ring of `{}`", end.name),
            messages: if conflates { 1 } else { self.slots as u64 },
            displaces: !is_shared,
            library: if is_shared {
                "mode = \"all\" (its group)".to_owned()
            } else {
                by_kernel.fewer.clone()
            },
            fewer: by_kernel.fewer,
        })
    }

    fn fault(&self, used: &Use<'_>) -> Option<String> {
        (!used.is_owned).then(|| format!("lane endpoint `{}` has no owner", used.name))
    }

    /// At a stop, messages that the daemon has not taken stay with their sender, whose session
    /// brings them to the next daemon.
    fn source(&self, parts: SourceParts<'_>) -> io::Result<Source> {
        let ring_slot = parts.ring_slot.ok_or_else(missing_ring)?;
        let kind = SourceKind::Ring(ring::Source::new(ring_slot, parts.doorbell));
        Ok(Source::new(kind, self.payload_bytes, false))
    }

    fn sink(&self, parts: SinkParts<'_>) -> io::Result<SinkKind> {
        let ring_slot = parts.ring_slot.ok_or_else(missing_ring)?;
        Ok(SinkKind::Ring(ring::Sink::new(
            ring_slot,
            self.payload_bytes,
        )))
    }
}

impl Described for ring::Shown {
    fn what(&self) -> String {
        format!("{} x {} B", self.maxmsg, self.msgsize)
    }

    fn members(&self) -> Vec<(&'static str, Value)> {
        vec![
            ("maxmsg", self.maxmsg.into()),
            ("msgsize", self.msgsize.into()),
        ]
    }

    fn noun(&self) -> String {
        "shared memory between its owner and rtd".to_owned()
    }

    fn closed_to_tools(&self, _: &str) -> Option<String> {
        Some(format!(
            "is {}: a program reaches it as a session",
            self.noun()
        ))
    }
}

/// Whether the written size of a ring is valid, and so intended.
pub(super) fn is_certain(msgsize: &Payload) -> bool {
    match msgsize {
        Field::Absent => true,
        Field::Invalid => false,
        Field::Given(at) => at.value.count() <= RING_PAYLOAD_BYTES_MAX,
    }
}

/// The ring of an endpoint at `place`; one that is too large is reported.
pub(super) fn size(
    cx: &mut Context<'_, '_, '_>,
    (maxmsg, msgsize): (&Slots, &Payload),
    place: &Place,
    kind: &str,
) -> RingPlan {
    let payload_bytes = msgsize.get().map_or(PAYLOAD_BYTES, |n| n.count());
    let written = maxmsg.get().map_or(SLOTS, |n| n.count());
    // The key's own limit is the same.
    let slots = written.min(RING_SLOTS_MAX).next_power_of_two();
    if let (Some(at), true) = (msgsize.at(), payload_bytes > RING_PAYLOAD_BYTES_MAX) {
        let message = format!(
            "`msgsize`: {payload_bytes} is not within 1 to {RING_PAYLOAD_BYTES_MAX}, a ring's for kind = \"{kind}\""
        );
        let fix = format!("msgsize = {RING_PAYLOAD_BYTES_MAX}\nkind = \"mqueue\"");
        cx.report.error(&at.place, message, fix);
        return RingPlan {
            slots: 1,
            payload_bytes: RING_PAYLOAD_BYTES_MAX,
        };
    }
    if slots * payload_bytes > RING_BYTES_MAX {
        let place = maxmsg.place_or(&msgsize.place_or(place));
        let rounded = if slots == written {
            String::new()
        } else {
            format!(" (rounded up from {written})")
        };
        let message = format!(
            "a ring of {slots} slots{rounded} x {payload_bytes} bytes is {} bytes, at most {RING_BYTES_MAX} are \
             possible",
            slots * payload_bytes
        );
        // The largest power of two that fits: slots are rounded up to one.
        let most = 1_usize << (RING_BYTES_MAX / payload_bytes).ilog2();
        cx.report.error(
            &place,
            message,
            format!("maxmsg = {most}\nmsgsize = {}", RING_BYTES_MAX / slots),
        );
        // The resources of a refused ring are not a further fault.
        return RingPlan {
            slots: 1,
            payload_bytes,
        };
    }
    RingPlan {
        slots,
        payload_bytes,
    }
}

/// Reports lane endpoints that are both read and written: the owner is at one end of a ring, not at
/// both.
fn check(cx: &mut Context<'_, '_, '_>, plan: &Plan) {
    let sunk = plan.sinks();
    for (id, (endpoint, written)) in plan.endpoints.iter().zip(&cx.config.endpoint).enumerate() {
        let EndpointKind::Ring(_) = endpoint.kind else {
            continue;
        };
        let read = plan.routes.iter().any(|route| route.from == id);
        if !read || !sunk.get(id).copied().unwrap_or(false) {
            continue;
        }
        let name = &endpoint.name;
        let owner = endpoint.owner.and_then(|owner| plan.processes.get(owner));
        let owner = owner.map_or("the owner", |owner| owner.name.as_str());
        let message = format!(
            "lane endpoint `{name}` is the source of one route and a sink of another: `{owner}` \
             sends into a \
             source, and receives from a sink"
        );
        let fix =
            format!("declare two endpoints, `{name}.out` for `from` and `{name}.in` for `to`");
        cx.report
            .error(&written.kind.place_or(&written.place), message, fix);
    }
}
