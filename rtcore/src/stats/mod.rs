//! The statistics page: counters and histograms in shared memory that lanes write with plain
//! single-writer stores and that anybody with read permission maps.
//!
//! Layout of the histograms is HdrHistogram's; the `hdrhistogram` crate does the quantiles on the
//! reading side only.

pub mod cells;
pub mod counters;
pub(crate) mod fill;
pub mod guard;
pub mod latency;
pub mod layout;
pub mod loss;
mod mirror;
pub mod place;
pub mod reader;
mod refused;
pub mod snapshot;
pub mod table;
pub mod writer;

#[cfg(test)]
mod tests;

use crate::endpoint::Shown;
pub use counters::{Guard, Ledger, ReceiverCounters, WorkerCounters};

/// The contents for which the page must have room, fixed for the life of the daemon.
#[derive(Clone, Debug, Default)]
pub struct PageSpec {
    /// Instance name, which names the page's file ([`place::file_name`]).
    pub name: String,
    /// Path of the control socket, for `rtctl`.
    pub socket: String,
    /// Name of the lanes' real-time calls ([`crate::skin::Skin::name`]).
    pub skin: String,
    /// Whether queues and signals are separate from those of other Linux programs.
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

/// A lane, as readers of the page see it.
#[derive(Clone, Debug)]
pub struct LaneSpec {
    pub name: String,
    pub priority: u8,
    pub cpu: u32,
    /// As in the configuration: `block`, `spin:<us>`, `poll`.
    pub wait: String,
    /// Whether its threads' calls are visible to a filter of system calls.
    pub confined: bool,
}

/// A route, as readers of the page see it.
#[derive(Clone, Debug)]
pub struct RouteSpec {
    pub name: String,
    /// Index of its lane.
    pub lane: u32,
    /// Index of its source endpoint.
    pub from: u32,
    /// As in the configuration: endpoint and group names, separated by `, ` (cut to fit).
    pub to: String,
    /// Endpoint index of each end, in the order of its targets.
    pub ends: Vec<u32>,
    /// Whether it goes directly from process to process, not through the lane's threads.
    pub direct: bool,
}

/// An endpoint, as readers of the page see it; enough for `rtctl send` and `rtctl listen` to use
/// it.
#[derive(Clone, Debug)]
pub struct EndpointSpec {
    pub name: String,
    /// Index of the owning process.
    pub owner: Option<u32>,
    /// Some route reads it.
    pub is_source: bool,
    /// Some route writes it.
    pub is_sink: bool,
    /// Queue or signal.
    pub kind: Shown,
}

/// A lane thread, as readers of the page see it.
#[derive(Clone, Debug)]
pub struct WorkerSpec {
    /// Index of its lane.
    pub lane: u32,
    /// Name of the source that it reads (or of the lane, if it scans several).
    pub name: String,
}

/// Bits for settings that a lane requires and did not get; 0: nothing is missing. Shown by name as
/// `degraded`.
pub mod degraded {
    /// SCHED_FIFO was not granted.
    pub const FIFO: u32 = 1;
    /// The thread is not pinned to its CPU.
    pub const PINNING: u32 = 2;
    /// Memory is not locked.
    pub const MEMORY: u32 = 4;
    /// `poll` on a CPU that is not isolated (as the configuration requests).
    pub const UNISOLATED: u32 = 8;
    /// No filter restricts the lane's threads to their lists of system calls.
    pub const UNCONFINED: u32 = 16;
    /// The watchdog has no priority above it.
    pub const WATCHDOG: u32 = 32;
    /// The watchdog has removed the priority of one of its threads. A reader sees it from
    /// [`super::Guard::demoted`].
    pub const DEMOTED: u32 = 64;
    /// The scheduling of one of its threads, or of the watchdog, was changed from outside.
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
