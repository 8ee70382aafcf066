//! The statistics page: counters and histograms in shared memory that lanes write with plain
//! single-writer stores and that anybody with read permission maps.
//!
//! Layout of the histograms is HdrHistogram's; the `hdrhistogram` crate does the quantiles on the
//! reading side only.

mod fill;
pub mod guard;
pub mod latency;
pub mod layout;
pub mod loss;
mod mirror;
pub mod place;
pub mod reader;
mod refused;
pub mod snapshot;
pub mod writer;

#[cfg(test)]
mod tests;

use crate::message::Reject;

/// Where every accepted message of one route is. Owned by the one thread that reads the route's source;
/// it publishes copies to the page.
///
/// Invariant: `accepted == delivered + expired + displaced + sum(rejected) + peer_dead + queued`.
/// A message with a fan-out of n is n accepted copies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Copies taken in charge.
    pub accepted: u64,
    /// Handed to the receiver.
    pub delivered: u64,
    /// Time to live ran out.
    pub expired: u64,
    /// Gave way by the overflow policy.
    pub displaced: u64,
    /// Refused, by [`Reject`] reason.
    pub rejected: [u64; Reject::COUNT],
    /// The receiver was gone.
    pub peer_dead: u64,
    /// Waiting in front of a full receiver.
    pub queued: u64,
    /// Of those, copies of a message that a full receiver holds (`block`) and that is still in its sender's ring: if rtd is
    /// killed now, they are not lost.
    pub held: u64,
    /// Delivered later than the deadline (a subset of delivered).
    pub deadline_misses: u64,
}

impl Ledger {
    /// Sum over all reject reasons.
    pub fn rejected_total(&self) -> u64 {
        self.rejected.iter().fold(0, |sum, &count| sum.saturating_add(count))
    }

    /// Whether every accepted copy is in exactly one place.
    pub fn balances(&self) -> bool {
        let Ledger { accepted, delivered, expired, displaced, rejected, peer_dead, queued, .. } = *self;
        let ends = [delivered, expired, displaced, peer_dead, queued];
        // Wider than the counters, because a reader asks this of pages that may hold anything.
        let sum: u128 = ends.iter().chain(&rejected).map(|&count| u128::from(count)).sum();
        u128::from(accepted) == sum
    }
}

impl std::ops::AddAssign for Ledger {
    fn add_assign(&mut self, other: Ledger) {
        self.accepted += other.accepted;
        self.delivered += other.delivered;
        self.expired += other.expired;
        self.displaced += other.displaced;
        for (sum, n) in self.rejected.iter_mut().zip(other.rejected) {
            *sum += n;
        }
        self.peer_dead += other.peer_dead;
        self.queued += other.queued;
        self.held += other.held;
        self.deadline_misses += other.deadline_misses;
    }
}

/// What one lane thread reports beside its routes' ledgers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkerCounters {
    /// Messages taken from its sources.
    pub received: u64,
    /// Longest time from a dequeue to the end of its dispatch.
    pub duty_max_ns: u64,
    /// Interrupted waits (wake-ups by the control thread).
    pub wakeups: u64,
    /// Receive errors other than an interrupted wait.
    pub errors: u64,
    /// Events that found the event ring full.
    pub events_lost: u64,
    /// Allocations after seal; anything but 0 is a defect.
    pub allocations: u64,
    /// Times that the thread was seen without its real-time mode after a dispatch or a wait (Cobalt); 0 where there is one mode.
    pub mode_switches: u64,
    /// System calls after seal that were not on the thread's list, and refused; anything but 0 is a defect.
    pub refused_calls: u64,
    /// Number of the last of them; without meaning where there was none.
    pub refused_call: u64,
}

/// Everything the page must have room for, fixed for the life of the daemon.
#[derive(Clone, Debug, Default)]
pub struct PageSpec {
    /// Instance name; the page is `/dev/shm/rtd.<name>`.
    pub name: String,
    /// Path of the control socket, for `rtctl`.
    pub socket: String,
    /// What the lanes' calls are ([`crate::skin::Skin::name`]).
    pub skin: String,
    /// Queues and signals are not those of other Linux programs.
    pub private_namespace: bool,
    /// In plan order.
    pub lanes: Vec<LaneSpec>,
    /// In plan order.
    pub routes: Vec<RouteSpec>,
    /// In plan order.
    pub endpoints: Vec<EndpointSpec>,
    /// In plan order.
    pub processes: Vec<String>,
    /// One per lane thread.
    pub workers: Vec<WorkerSpec>,
}

/// A lane, as outsiders see it.
#[derive(Clone, Debug)]
pub struct LaneSpec {
    /// Name.
    pub name: String,
    /// SCHED_FIFO priority.
    pub priority: u8,
    /// CPU.
    pub cpu: u32,
    /// As in the configuration: `block`, `spin:<us>`, `poll`.
    pub wait: String,
    /// Its threads' calls are those that a filter of system calls sees.
    pub confined: bool,
}

/// A route, as outsiders see it.
#[derive(Clone, Debug)]
pub struct RouteSpec {
    /// Name.
    pub name: String,
    /// Index of its lane.
    pub lane: u32,
    /// Index of its source endpoint.
    pub from: u32,
    /// As in the configuration: endpoint and group names, separated by `, ` (cut to fit).
    pub to: String,
    /// Endpoint index of each end, in the order of its targets.
    pub ends: Vec<u32>,
    /// From process to process, past the lane's threads.
    pub direct: bool,
}

/// An endpoint, as outsiders see it; enough for `rtctl send` and `rtctl listen` to work on it.
#[derive(Clone, Debug)]
pub struct EndpointSpec {
    /// Name.
    pub name: String,
    /// Index of the owning process.
    pub owner: Option<u32>,
    /// Some route reads it.
    pub is_source: bool,
    /// Some route writes it.
    pub is_sink: bool,
    /// Queue or signal.
    pub kind: EndpointSpecKind,
}

/// What the endpoint is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointSpecKind {
    /// A POSIX message queue.
    Mqueue {
        /// `/name`.
        queue: String,
        /// Messages.
        maxmsg: u32,
        /// Bytes.
        msgsize: u32,
    },
    /// A signal.
    Signal {
        /// Kernel number.
        signo: i32,
        /// Sent to the registered thread, not the process.
        to_thread: bool,
    },
    /// Shared memory.
    Lane {
        /// Messages.
        maxmsg: u32,
        /// Bytes.
        msgsize: u32,
    },
    /// Datagrams to or from plain Linux programs.
    Xddp {
        /// Path of the device file.
        device: String,
        /// Messages.
        maxmsg: u32,
        /// Bytes.
        msgsize: u32,
    },
}

/// A lane thread, as outsiders see it.
#[derive(Clone, Debug)]
pub struct WorkerSpec {
    /// Index of its lane.
    pub lane: u32,
    /// Name of the source it reads (or of the lane, when it scans several).
    pub name: String,
}

/// What a lane asked for and did not get; 0 = nothing missing. Shown by name as `degraded`.
pub mod degraded {
    /// SCHED_FIFO was not granted.
    pub const FIFO: u32 = 1;
    /// The thread is not pinned to its CPU.
    pub const PINNING: u32 = 2;
    /// Memory is not locked.
    pub const MEMORY: u32 = 4;
    /// `poll` on a CPU that is not isolated (asked for in the configuration).
    pub const UNISOLATED: u32 = 8;
    /// Nothing holds the lane's threads to their lists of system calls.
    pub const UNCONFINED: u32 = 16;
    /// The watchdog has no priority above it.
    pub const WATCHDOG: u32 = 32;
    /// The watchdog took a thread of it its priority. Seen by a reader, from [`super::guard::Guard::demoted`].
    pub const DEMOTED: u32 = 64;
    /// The scheduling of a thread of it, or of the watchdog, was changed from outside.
    pub const TAMPERED: u32 = 128;
    /// Bit, name pairs in display order.
    pub const NAMES: [(u32, &str); 8] = [
        (FIFO, "fifo"),
        (PINNING, "pinning"),
        (MEMORY, "memory"),
        (UNISOLATED, "unisolated"),
        (UNCONFINED, "unconfined"),
        (WATCHDOG, "watchdog"),
        (DEMOTED, "demoted"),
        (TAMPERED, "tampered"),
    ];
}
