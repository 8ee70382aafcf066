//! The content of the page at one moment, owned, checked and resolved; and the difference of two
//! snapshots.
//!
//! Invariant: every index in a snapshot is in bounds or `None`, every string is free of control
//! characters.

use super::latency::Latency;
use super::loss::{LOSING_NS, Loss};
use super::{Guard, Ledger, ReceiverCounters, WorkerCounters, degraded};
use crate::endpoint::Shown;
use crate::lane::peer::{PeerState, Reception};
use crate::refusals::Counts;
use crate::sys::memory::ThreadUsage;

/// State of the daemon of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DaemonState {
    /// It holds the lock, and its heartbeat is recent.
    Running,
    /// It holds the lock, and its heartbeat is older than [`super::reader::HEARTBEAT_AGE_MAX_NS`]:
    /// it hangs, or was stopped by SIGSTOP or a debugger.
    Hung,
    /// It has ended and left the page.
    Stopped,
}

impl DaemonState {
    /// The name in `rtctl stats --json`.
    pub fn name(self) -> &'static str {
        match self {
            DaemonState::Running => "running",
            DaemonState::Hung => "hung",
            DaemonState::Stopped => "stopped",
        }
    }
}

/// The content of the page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub instance: String,
    /// Path of the control socket.
    pub socket: String,
    /// Version of the daemon.
    pub rtd_version: String,
    /// The lanes' real-time calls: `posix`, `cobalt`.
    pub skin: String,
    /// Whether its queues and signals are separate from those of plain Linux programs.
    pub private_namespace: bool,
    /// The daemon's process id.
    pub pid: u32,
    /// The page's owner: the daemon's user, from the file system.
    pub uid: u32,
    /// State of the daemon.
    pub state: DaemonState,
    /// Time of the snapshot, CLOCK_MONOTONIC.
    pub taken_ns: u64,
    /// Time at which the page was created, CLOCK_MONOTONIC.
    pub start_ns: u64,
    /// The same time, since 1970.
    pub start_unix_ns: u64,
    /// Time at which all lanes ran, CLOCK_MONOTONIC; none before that.
    pub ready_ns: Option<u64>,
    /// Last heartbeat, CLOCK_MONOTONIC.
    pub heartbeat_ns: u64,
    /// Inode of the daemon's IPC namespace, 0 if unknown.
    pub ipc_namespace: u64,
    /// Inode of the daemon's pid namespace, 0 if unknown.
    pub pid_namespace: u64,
    /// In plan order.
    pub lanes: Vec<Lane>,
    /// In plan order.
    pub routes: Vec<Route>,
    /// One per lane thread.
    pub workers: Vec<Worker>,
    /// In plan order.
    pub processes: Vec<Process>,
    /// In plan order.
    pub endpoints: Vec<Endpoint>,
}

/// A lane, with the sums of its routes and workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lane {
    pub name: String,
    pub priority: u32,
    pub cpu: u32,
    /// `block`, `spin:<us>`, `poll`.
    pub wait: String,
    pub degraded_bits: u32,
    /// Sum over its routes.
    pub ledger: Ledger,
    /// The latest losses of its routes.
    pub losses: LossTimes,
    /// Latencies of all its routes.
    pub latency: Latency,
    /// Its workers' counters, merged.
    pub counters: WorkerCounters,
    /// Whether a filter sees the system calls of its workers.
    pub is_confined: bool,
    /// The watchdog's findings about its workers, merged.
    pub guard: Guard,
    /// Whether all its routes were read consistently.
    pub consistent: bool,
}

impl Lane {
    /// The settings that the lane did not get, in display order; empty: all were granted.
    pub fn degraded(&self) -> Vec<&'static str> {
        degraded::NAMES
            .iter()
            .filter(|(bit, _)| self.degraded_bits & bit != 0)
            .map(|&(_, name)| name)
            .collect()
    }

    /// System calls of its workers that were refused; none if no filter sees them.
    pub fn refused_calls(&self) -> Option<u64> {
        self.is_confined.then_some(self.counters.refused_calls)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub name: String,
    /// Index of its lane.
    pub lane: Option<usize>,
    /// Index of its source.
    pub from: Option<usize>,
    /// Targets, for display.
    pub to: String,
    /// Whether it goes directly from process to process, not through the lane's threads.
    pub direct: bool,
    /// One per end, in order. Read after the ledger: while messages flow, their sum may be ahead of
    /// `delivered`.
    pub targets: Vec<TargetStats>,
    /// The outcomes of its messages.
    pub ledger: Ledger,
    /// Messages that the instance's last daemon had queued here when it was killed; not part of the
    /// ledger.
    pub lost_in_last_life: u64,
    /// Times of its last losses.
    pub losses: LossTimes,
    /// Time from the send if the message carries it (rings), otherwise from the dequeue, to the
    /// delivery; for a direct route from the send until its receiver's library took the message, as
    /// that library reports.
    pub latency: Latency,
    /// False if the ledger was being updated at each attempt: its writer was stopped there, or
    /// publishes faster than a reader copies (above some 10^6 a second).
    pub consistent: bool,
}

/// One end of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetStats {
    /// Index of the endpoint.
    pub endpoint: Option<usize>,
    /// Messages delivered to it.
    pub delivered: u64,
    /// Time of the last delivery, CLOCK_MONOTONIC; none before the first.
    pub last_ns: Option<u64>,
    /// Messages lost here, by [`Loss`].
    pub lost: [u64; Loss::COUNT],
    /// Outcomes of the messages that were put into its ring.
    pub receiver: ReceiverCounters,
}

/// Time of the last loss of each kind, CLOCK_MONOTONIC, at most a tenth of a second late.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LossTimes {
    /// By [`Loss`]; none before the first.
    pub last_ns: [Option<u64>; Loss::COUNT],
}

impl LossTimes {
    /// The losses of the last ten seconds before `taken_ns` ([`Snapshot::taken_ns`]) that the
    /// configuration did not request; empty if there were none.
    pub fn losing(&self, taken_ns: u64) -> Vec<Loss> {
        let recent = |last_ns: Option<u64>| {
            last_ns.is_some_and(|ns| taken_ns.saturating_sub(ns) <= LOSING_NS)
        };
        let now = |loss: &Loss| !loss.is_requested() && recent(self.last_ns[loss.index()]);
        Loss::ALL.into_iter().filter(now).collect()
    }

    /// Time from the last such loss to `taken_ns`; none before the first.
    pub fn age_ns(&self, loss: Loss, taken_ns: u64) -> Option<u64> {
        self.last_ns[loss.index()].map(|ns| taken_ns.saturating_sub(ns))
    }

    pub(super) fn merge(&mut self, other: &LossTimes) {
        for (latest, ns) in self.last_ns.iter_mut().zip(other.last_ns) {
            *latest = (*latest).max(ns);
        }
    }
}

impl TargetStats {
    /// Time from the last delivery to `taken_ns`, [`Snapshot::taken_ns`]; none before the first. A
    /// delivery during the snapshot has age 0.
    pub fn age_ns(&self, taken_ns: u64) -> Option<u64> {
        self.last_ns.map(|last_ns| taken_ns.saturating_sub(last_ns))
    }
}

/// A lane thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worker {
    /// Source, or lane.
    pub name: String,
    /// Index of its lane.
    pub lane: Option<usize>,
    /// Kernel thread id, 0 before it runs.
    pub tid: u32,
    pub counters: WorkerCounters,
    /// The thread's usage at the seal; none before that, or if the kernel did not report it.
    pub sealed_at: Option<ThreadUsage>,
    /// The watchdog's verdict on it.
    pub guard: Guard,
    /// See [`Route::consistent`].
    pub consistent: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    pub name: String,
    /// Whether anybody stands behind the name.
    pub state: PeerState,
    /// Of the last registration; 0 before the first.
    pub pid: u32,
    /// Of the last registration; none before the first.
    pub uid: Option<u32>,
}

/// An endpoint, with what `rtctl send` and `rtctl listen` need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub name: String,
    /// Index of the owning process.
    pub owner: Option<usize>,
    /// Some route reads it.
    pub is_source: bool,
    /// Some route writes it.
    pub is_sink: bool,
    /// The fate of a signal that is sent to its owner now.
    pub reception: Reception,
    /// Messages that the library of its owner refused to send, as it reports, by
    /// [`Refused`](crate::refusals::Refused).
    pub refused: Counts,
    /// The kind of the endpoint.
    pub kind: Shown,
}

/// The difference between two snapshots of one instance.
///
/// Counters are differences or the later snapshot's values, as their tables say
/// ([`super::counters`]), so these ledgers need not balance; latencies are those of the interval;
/// `last_ns` and `losses` are the last delivery and losses of all times; `guard` is the later
/// snapshot's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diff {
    /// Between the snapshots (when the daemon was restarted: since its start).
    pub interval_ns: u64,
    /// In plan order.
    pub lanes: Vec<Lane>,
    /// In plan order.
    pub routes: Vec<Route>,
    /// One per lane thread.
    pub workers: Vec<Worker>,
}

impl Diff {
    /// A count of this interval as events per second.
    pub fn per_second(&self, count: u64) -> f64 {
        if self.interval_ns == 0 {
            0.0
        } else {
            count as f64 * 1e9 / self.interval_ns as f64
        }
    }
}

impl Snapshot {
    /// Time since the daemon's start, until now or (when it is gone or hung) its last sign of life.
    pub fn uptime_ns(&self) -> u64 {
        let until = if self.state == DaemonState::Running {
            self.taken_ns
        } else {
            self.heartbeat_ns
        };
        until.saturating_sub(self.start_ns)
    }

    /// Whether any lane runs without something it asked for.
    pub fn is_degraded(&self) -> bool {
        self.lanes.iter().any(|lane| lane.degraded_bits != 0)
    }

    /// What happened since `earlier`. When the daemon was restarted in between: since its start.
    pub fn diff(&self, earlier: &Snapshot) -> Diff {
        let same = self.pid == earlier.pid && self.start_ns == earlier.start_ns;
        let since = if same {
            earlier.taken_ns
        } else {
            self.start_ns
        };
        let mut diff = Diff {
            interval_ns: self.taken_ns.saturating_sub(since),
            lanes: self.lanes.clone(),
            routes: self.routes.clone(),
            workers: self.workers.clone(),
        };
        if !same {
            return diff;
        }
        for (now, before) in diff.lanes.iter_mut().zip(&earlier.lanes) {
            now.ledger = now.ledger.since(&before.ledger);
            now.latency = now.latency.since(&before.latency);
            now.counters = now.counters.since(&before.counters);
        }
        for (now, before) in diff.routes.iter_mut().zip(&earlier.routes) {
            now.ledger = now.ledger.since(&before.ledger);
            now.latency = now.latency.since(&before.latency);
            for (now, before) in now.targets.iter_mut().zip(&before.targets) {
                now.delivered = now.delivered.saturating_sub(before.delivered);
                for (now, before) in now.lost.iter_mut().zip(before.lost) {
                    *now = now.saturating_sub(before);
                }
                now.receiver = now.receiver.since(&before.receiver);
            }
        }
        for (now, before) in diff.workers.iter_mut().zip(&earlier.workers) {
            now.counters = now.counters.since(&before.counters);
        }
        diff
    }
}
