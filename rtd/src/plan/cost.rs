//! What a plan takes of the machine: threads, queue bytes, locked memory.
//!
//! The memory figures are estimates on the high side; the message-queue bytes are the kernel's formula.

use super::{EndpointKind, Plan, TargetPlan, Wait};
use rtcore::sys::limits::mq_bytes;

/// Stack of a lane thread, all of it prefaulted and locked.
pub const STACK_BYTES: u64 = rtcore::sys::memory::LANE_STACK_BYTES as u64;
/// What a queued message takes besides its payload.
pub const SPILL_SLOT_OVERHEAD_BYTES: u64 = 64;
/// Binary, libraries, heap and the threads that are not lanes.
pub const BASE_BYTES: u64 = 24 * 1024 * 1024;
/// A histogram and its counters in the statistics page; a lane and a route have one each.
pub const STATS_ENTRY_BYTES: u64 = 64 * 1024;

impl Plan {
    /// Lane threads: one for each source of a blocking lane, one for a lane that scans its sources.
    pub fn threads(&self) -> usize {
        let sources = |lane: usize| self.sources.iter().filter(|source| source.lane == lane).count();
        let lanes = self.lanes.iter().enumerate();
        lanes.map(|(id, lane)| if lane.wait == Wait::Block { sources(id) } else { sources(id).min(1) }).sum()
    }

    /// Descriptors the daemon opens: a queue is held once, a queue that is read is open twice more, every
    /// route end on a queue once, a signal source once; a process has a slot for its pidfd, one for its
    /// status and a connection.
    pub fn descriptors(&self) -> usize {
        let is_queue =
            |id: &super::EndpointId| matches!(self.endpoints[*id].kind, EndpointKind::Mqueue { .. });
        let held = (0..self.endpoints.len()).filter(|id| is_queue(id)).count();
        let sources: usize = self.sources.iter().map(|s| if is_queue(&s.endpoint) { 2 } else { 1 }).sum();
        let ends = self.routes.iter().flat_map(|r| &r.to).flat_map(TargetPlan::endpoints);
        held + sources + ends.filter(|id| is_queue(id)).count() + 3 * self.processes.len()
    }

    /// Bytes that the plan's queues are charged against RLIMIT_MSGQUEUE.
    pub fn queue_bytes(&self) -> u64 {
        let bytes = |kind: &EndpointKind| match kind {
            EndpointKind::Mqueue { maxmsg, msgsize, .. } => mq_bytes(*maxmsg as u64, *msgsize as u64),
            EndpointKind::Signal { .. } | EndpointKind::Lane(_) => 0,
        };
        self.endpoints.iter().map(|endpoint| bytes(&endpoint.kind)).fold(0, u64::saturating_add)
    }

    /// Memory of the queues in front of full targets.
    pub fn spill_bytes(&self) -> u64 {
        self.routes.iter().map(super::RoutePlan::spill_bytes).fold(0, u64::saturating_add)
    }

    /// Everything that will be locked.
    pub fn locked_bytes(&self) -> u64 {
        let page = ((self.routes.len() + self.lanes.len()) as u64).saturating_mul(STATS_ENTRY_BYTES);
        let stacks = (self.threads() as u64).saturating_mul(STACK_BYTES);
        BASE_BYTES.saturating_add(page).saturating_add(stacks).saturating_add(self.spill_bytes())
    }
}

impl super::RoutePlan {
    /// Memory of one message in the queues in front of its targets: there is one for each endpoint it reaches.
    pub fn spill_slot_bytes(&self) -> u64 {
        let targets: usize = self.to.iter().map(|target| target.endpoints().len()).sum();
        (self.payload_bytes_max as u64)
            .saturating_add(SPILL_SLOT_OVERHEAD_BYTES)
            .saturating_mul(targets as u64)
    }

    /// Memory of these queues.
    pub fn spill_bytes(&self) -> u64 {
        self.spill_slot_bytes().saturating_mul(self.capacity as u64)
    }
}

impl TargetPlan {
    /// The endpoints behind it.
    pub fn endpoints(&self) -> &[super::EndpointId] {
        match self {
            TargetPlan::Endpoint(id) => std::slice::from_ref(id),
            TargetPlan::Group { members, .. } => members,
        }
    }
}
