//! The resources that a plan needs: threads, queue bytes, locked memory.
//!
//! The memory figures are estimates on the high side; the message-queue bytes are the kernel's
//! formula.

use super::{EndpointId, Path, Plan, RoutePlan, TargetPlan};
use crate::endpoint::Cost;
use crate::endpoint::ring::RingPlan;
use rtcore::lane::policy::{GroupMode, Wait};

/// Stack of a lane thread, all of it prefaulted and locked.
pub const STACK_BYTES: u64 = rtcore::sys::memory::LANE_STACK_BYTES as u64;
/// Bytes of a queued message in addition to its payload.
pub const BACKLOG_SLOT_OVERHEAD_BYTES: u64 = 64;
/// Memory that a running daemon maps in addition to the program itself: the stacks of the log
/// thread (Rust's default, 2 MiB) and the watchdog, and the growth of the heap.
pub const HELPERS_BYTES: u64 = 3 * 1024 * 1024;
/// A route's histogram and counters in the statistics page.
pub const STATS_ENTRY_BYTES: u64 = 32 * 1024;
/// The receiver of a direct route measures latencies in its half of the ring.
pub const LATENCIES_BYTES: u64 = 32 * 1024;
/// Descriptors of a ring until its session has it: the two memories, and the one that the client
/// writes once more until it is sealed.
const RING_DESCRIPTORS: usize = 3;
/// The same for a ring between two processes, until both have it.
const DIRECT_RING_DESCRIPTORS: usize = 5;
/// A process has a slot for its pidfd, one for its status and a connection; a session four more.
const PROCESS_DESCRIPTORS: usize = 7;

impl Plan {
    /// Lane threads: one for each source of a blocking lane, one for a lane that scans its sources,
    /// none for direct routes.
    pub fn threads(&self) -> usize {
        let sources = |lane: usize| {
            self.sources
                .iter()
                .filter(|source| source.lane == lane)
                .count()
        };
        let lanes = self.lanes.iter().enumerate();
        lanes
            .map(|(id, lane)| {
                if lane.wait == Wait::Block {
                    sources(id)
                } else {
                    sources(id).min(1)
                }
            })
            .sum()
    }

    /// Descriptors that the daemon opens: those of endpoints, of the threads and routes that use
    /// them, and of lane threads (one each); for rings and processes, the numbers of the constants
    /// above.
    pub fn descriptors(&self) -> usize {
        let held: usize = self.costs().map(|cost| cost.held).sum();
        let read: usize = self
            .sources
            .iter()
            .map(|source| self.cost_of(source.endpoint).read)
            .sum();
        let written: usize = self
            .routes
            .iter()
            .flat_map(RoutePlan::ends)
            .map(|id| self.cost_of(id).written)
            .sum();
        let direct = self
            .routes
            .iter()
            .filter(|route| route.path == Path::Direct)
            .count();
        let rings =
            RING_DESCRIPTORS * self.routed_rings().count() + DIRECT_RING_DESCRIPTORS * direct;
        held + read + written + rings + self.threads() + PROCESS_DESCRIPTORS * self.processes.len()
    }

    fn costs(&self) -> impl Iterator<Item = Cost> {
        self.endpoints
            .iter()
            .map(|endpoint| endpoint.kind.policy().cost())
    }

    fn cost_of(&self, id: EndpointId) -> Cost {
        self.endpoints
            .get(id)
            .map(|endpoint| endpoint.kind.policy().cost())
            .unwrap_or_default()
    }

    /// The ring of a direct route: as many slots as the receiver's endpoint, of the sender's
    /// payload.
    pub fn direct_ring(&self, route: &RoutePlan) -> Option<RingPlan> {
        let ring = |id: usize| {
            self.endpoints
                .get(id)
                .and_then(|endpoint| endpoint.kind.ring())
        };
        match route.to.as_slice() {
            [TargetPlan::Endpoint(to)] if route.path == Path::Direct => Some(RingPlan {
                slots: ring(*to)?.slots,
                payload_bytes: ring(route.from)?.payload_bytes,
            }),
            _ => None,
        }
    }

    /// The rings between a lane's threads and the processes: one for each source that has one, one
    /// for each end of a route that has one. With the endpoint that decides their size.
    pub fn routed_rings(&self) -> impl Iterator<Item = (EndpointId, RingPlan)> + '_ {
        let routed = self
            .routes
            .iter()
            .filter(|route| route.path == Path::Routed);
        let ends = routed.flat_map(|r| &r.to).flat_map(TargetPlan::endpoints);
        let ends = self
            .sources
            .iter()
            .map(|source| &source.endpoint)
            .chain(ends);
        ends.filter_map(|id| Some((*id, self.endpoints.get(*id)?.kind.ring()?)))
    }

    /// Doorbells that are semaphores: one for each lane thread, one for each session's end of a
    /// routed ring.
    pub fn doorbells(&self) -> usize {
        self.threads() + self.routed_rings().count()
    }

    /// Memory of all rings.
    pub fn ring_bytes(&self) -> u64 {
        let direct = self
            .routes
            .iter()
            .filter_map(|route| self.direct_ring(route));
        let direct = direct.map(|ring| ring.bytes().saturating_add(LATENCIES_BYTES));
        let routed = self.routed_rings().map(|(_, ring)| ring.bytes());
        routed.chain(direct).fold(0, u64::saturating_add)
    }

    /// Bytes that the plan's queues are charged against RLIMIT_MSGQUEUE.
    pub fn queue_bytes(&self) -> u64 {
        self.costs()
            .map(|cost| cost.queue_bytes)
            .fold(0, u64::saturating_add)
    }

    /// Bytes of the plan's queues, headers included, if they are in a namespace of a skin's own.
    pub fn private_queue_bytes(&self) -> u64 {
        self.costs()
            .map(|cost| cost.private_queue_bytes)
            .fold(0, u64::saturating_add)
    }

    /// Memory of the buffers that datagrams are received into.
    pub fn buffer_bytes(&self) -> u64 {
        let bytes = self
            .sources
            .iter()
            .map(|source| self.cost_of(source.endpoint).buffer_bytes);
        bytes.fold(0, u64::saturating_add)
    }

    /// Memory of the queues in front of full targets.
    pub fn backlog_bytes(&self) -> u64 {
        self.routes
            .iter()
            .map(RoutePlan::backlog_bytes)
            .fold(0, u64::saturating_add)
    }

    /// All locked bytes; `program_bytes` is the memory that the program itself maps.
    pub fn locked_bytes(&self, program_bytes: u64) -> u64 {
        let page = (self.routes.len() as u64).saturating_mul(STATS_ENTRY_BYTES);
        let stacks = (self.threads() as u64).saturating_mul(STACK_BYTES);
        let messages = self
            .backlog_bytes()
            .saturating_add(self.ring_bytes())
            .saturating_add(self.buffer_bytes());
        program_bytes
            .saturating_add(HELPERS_BYTES)
            .saturating_add(page)
            .saturating_add(stacks)
            .saturating_add(messages)
    }
}

impl RoutePlan {
    /// Memory of one message in each of the queues in front of its targets.
    pub fn backlog_slot_bytes(&self) -> u64 {
        let queues: usize = self.to.iter().map(TargetPlan::queues).sum();
        (self.payload_bytes_max as u64)
            .saturating_add(BACKLOG_SLOT_OVERHEAD_BYTES)
            .saturating_mul(queues as u64)
    }

    /// Memory of these queues.
    pub fn backlog_bytes(&self) -> u64 {
        self.backlog_slot_bytes()
            .saturating_mul(self.capacity as u64)
    }
}

impl TargetPlan {
    /// Queues in front of it: one for each endpoint, but only one if any member may take a queued
    /// message.
    fn queues(&self) -> usize {
        match self {
            TargetPlan::Group {
                mode: GroupMode::RoundRobin | GroupMode::Any,
                filter: None,
                ..
            } => 1,
            _ => self.endpoints().len(),
        }
    }

    /// The endpoints of the target.
    pub fn endpoints(&self) -> &[EndpointId] {
        match self {
            TargetPlan::Endpoint(id) => std::slice::from_ref(id),
            TargetPlan::Group { members, .. } => members,
        }
    }
}
