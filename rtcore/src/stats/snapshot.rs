//! The page's content at one moment, owned, checked and resolved; and the difference of two.
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

/// Whether somebody works behind the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DaemonState {
    /// Holds the lock, shows signs of life.
    Running,
    /// Holds the lock, no sign of life for [`super::reader::HEARTBEAT_AGE_MAX_NS`]: hung, or
    /// stopped by SIGSTOP or a debugger.
    Hung,
    /// Gone; the page is what it left.
    Stopped,
}

impl DaemonState {
    /// As in `rtctl stats --json`.
    pub fn name(self) -> &'static str {
        match self {
            DaemonState::Running => "running",
            DaemonState::Hung => "hung",
            DaemonState::Stopped => "stopped",
        }
    }
}

/// Everything the page says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub instance: String,
    /// Path of the control socket.
    pub socket: String,
    /// Version of the daemon.
    pub rtd_version: String,
    /// The lanes' real-time calls: `posix`, `cobalt`.
    pub skin: String,
    /// Its queues and signals are not those of plain Linux programs.
    pub private_namespace: bool,
    /// The daemon's process id.
    pub pid: u32,
    /// The page's owner: the daemon's user, from the file system.
    pub uid: u32,
    /// Whether it lives.
    pub state: DaemonState,
    /// When the snapshot was taken, CLOCK_MONOTONIC.
    pub taken_ns: u64,
    /// When the page was made, CLOCK_MONOTONIC.
    pub start_ns: u64,
    /// The same since 1970.
    pub start_unix_ns: u64,
    /// When all lanes ran, CLOCK_MONOTONIC; none before that.
    pub ready_ns: Option<u64>,
    /// Last sign of life, CLOCK_MONOTONIC.
    pub heartbeat_ns: u64,
    /// Inode of the daemon's IPC namespace, 0 where it is unknown.
    pub ipc_namespace: u64,
    /// Inode of the daemon's pid namespace, 0 where it is unknown.
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

/// A lane, with what its routes and workers add up to.
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
    /// The latest of its routes.
    pub losses: LossTimes,
    /// All its routes' latencies.
    pub latency: Latency,
    /// Its workers' counters, merged.
    pub counters: WorkerCounters,
    /// A filter sees the system calls of its workers.
    pub is_confined: bool,
    /// What the watchdog says of its workers, merged.
    pub guard: Guard,
    /// Whether all its routes were read whole.
    pub consistent: bool,
}

impl Lane {
    /// What the lane did not get, in display order; empty = all granted.
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
    /// Targets, for human eyes.
    pub to: String,
    /// From process to process, past the lane's threads.
    pub direct: bool,
    /// One per end, in order. Read after the ledger: while messages flow, their sum may be ahead of
    /// `delivered`.
    pub targets: Vec<TargetStats>,
    /// Where its messages are.
    pub ledger: Ledger,
    /// Messages that the instance's last daemon had queued here when it was killed; no part of the
    /// ledger.
    pub lost_in_last_life: u64,
    /// When it lost its last messages.
    pub losses: LossTimes,
    /// From the send where the message carries its time (rings), else from the dequeue, until it
    /// was handed to the receiver; of a direct route from the send until its receiver's library
    /// took it, as that library reports.
    pub latency: Latency,
    /// False when the ledger was caught in the middle of an update at each attempt: its writer was
    /// stopped there, or publishes faster than a reader copies (above some 10^6 a second).
    pub consistent: bool,
}

/// One end of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetStats {
    /// Index of the endpoint.
    pub endpoint: Option<usize>,
    /// Messages handed to it.
    pub delivered: u64,
    /// When the last one was, CLOCK_MONOTONIC; none before the first.
    pub last_ns: Option<u64>,
    /// Messages lost here, by [`Loss`].
    pub lost: [u64; Loss::COUNT],
    /// What became of those that were handed to it through a ring.
    pub receiver: ReceiverCounters,
}

/// When the last message was lost in each way, CLOCK_MONOTONIC, a tenth of a second late at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LossTimes {
    /// By [`Loss`]; none before the first.
    pub last_ns: [Option<u64>; Loss::COUNT],
}

impl LossTimes {
    /// The losses of the last ten seconds before `taken_ns` ([`Snapshot::taken_ns`]) that the
    /// configuration did not ask for; empty = all is well.
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
    /// Time from the last delivery to `taken_ns`, [`Snapshot::taken_ns`]; none before the first.
    /// One that came while the snapshot was taken is new-born.
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
    /// What the thread had used when it was sealed; none before that, or where the kernel did not
    /// say.
    pub sealed_at: Option<ThreadUsage>,
    /// What the watchdog says of it.
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
    /// What becomes of a signal that is sent to its owner now.
    pub reception: Reception,
    /// Messages that the library of its owner refused to send, as it reports, by
    /// [`Refused`](crate::refusals::Refused).
    pub refused: Counts,
    /// What it is.
    pub kind: Shown,
}

/// What happened between two snapshots of one instance.
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
