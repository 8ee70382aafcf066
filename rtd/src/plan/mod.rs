//! The checked plan: names resolved to indices, limits verified, units in nanoseconds and bytes.
//!
//! Invariant: a `Plan` that exists is valid. Every index is in bounds, every source has exactly one
//! lane, no route closes a cycle. The later steps to running lanes report no configuration errors.
//!
//! Constraint: this module does not query the machine. It gets the values that a figure depends on
//! as parameters.
#![forbid(unsafe_code)]

pub mod cost;
pub mod needs;
pub mod verify;
pub mod watch;

use crate::endpoint::EndpointKind;
use rtcore::lane::policy::{GroupMode, Overflow, Rate, Wait};
use rtcore::skin::{self, Caps, xddp};
use rtcore::sys::ids::Account;
use std::path::PathBuf;
use watch::{LaneWatch, WatchPlan};

/// Index into [`Plan::lanes`].
pub type LaneId = usize;
/// Index into [`Plan::processes`].
pub type ProcessId = usize;
/// Index into [`Plan::endpoints`].
pub type EndpointId = usize;
/// Index into [`Plan::routes`].
pub type RouteId = usize;

/// Longest name of a lane, process, endpoint, group or route, in bytes.
pub const NAME_BYTES_MAX: usize = 31;
/// Limit of the sources of a lane that spins: it sleeps in one futex_waitv(2), which takes 128
/// words; some are the daemon's.
pub const SPIN_SOURCES_MAX: usize = 120;
/// Limit of the doorbells of an instance on a skin where they are semaphores.
pub const SEMAPHORES_MAX: u32 = 1024;

/// A configuration that was checked and can run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The daemon itself.
    pub daemon: DaemonPlan,
    pub lanes: Vec<LanePlan>,
    pub processes: Vec<ProcessPlan>,
    /// Places that messages come from or go to.
    pub endpoints: Vec<EndpointPlan>,
    /// Routes, in file order.
    pub routes: Vec<RoutePlan>,
    /// One per endpoint that a thread reads, with all the routes that read it. Direct routes have
    /// no thread, so none of them is here.
    pub sources: Vec<SourcePlan>,
}

impl Plan {
    /// The routes from or to an endpoint of this process.
    pub fn routes_of(&self, process: ProcessId) -> impl Iterator<Item = &RoutePlan> {
        let own = move |id: EndpointId| self.endpoints[id].owner == Some(process);
        self.routes
            .iter()
            .filter(move |route| own(route.from) || route.ends().any(own))
    }

    /// For each endpoint, whether some route sends to it.
    pub fn sinks(&self) -> Vec<bool> {
        let mut sinks = vec![false; self.endpoints.len()];
        for id in self.routes.iter().flat_map(RoutePlan::ends) {
            if let Some(is_sink) = sinks.get_mut(id) {
                *is_sink = true;
            }
        }
        sinks
    }

    /// Consequences of the plan on its skin that its author may not expect, and that no line of the
    /// file would change: one sentence each, for `rtd check` and the start's log.
    pub fn notes(&self) -> Vec<String> {
        crate::endpoint::notes(self)
    }

    /// Names of the endpoints of a kind that some route sends to, as a list.
    pub fn sinks_named(&self, is: impl Fn(&EndpointKind) -> bool) -> String {
        let sinks: Vec<EndpointId> = self.routes.iter().flat_map(RoutePlan::ends).collect();
        let named = self
            .endpoints
            .iter()
            .enumerate()
            .filter(|(id, e)| is(&e.kind) && sinks.contains(id));
        named
            .map(|(_, endpoint)| format!("`{}`", endpoint.name))
            .collect::<Vec<_>>()
            .join(", ")
    }
}

/// The resolved `[daemon]` section.
#[derive(Clone, Debug)]
pub struct DaemonPlan {
    /// Instance name; the statistics page is `<name>.page` in a directory of
    /// [`rtcore::stats::place`]. Default `rtd`.
    pub name: String,
    /// The account that the daemon changes to; none: it keeps its own.
    pub account: Option<Account>,
    /// Control socket. Default `/run/rtd/<name>.sock` for root, otherwise
    /// `$XDG_RUNTIME_DIR/rtd/<name>.sock`, otherwise `/tmp/rtd-<uid>/<name>.sock`.
    pub socket: PathBuf,
    /// Whether the message queues stay when the daemon stops (default true, so that programs which
    /// hold them open keep working across a restart).
    pub keep_queues: bool,
    /// How long a stop may deliver queued messages before it counts the rest as rejected.
    pub drain_ns: u64,
    /// The lanes' real-time calls.
    pub skin: SkinPlan,
    /// The settings of the watchdog.
    pub watch: WatchPlan,
    /// The request to /dev/cpu_dma_latency.
    pub cpu_dma_latency: DmaLatency,
}

/// The wake-up latency of `[daemon] cpu_dma_latency`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DmaLatency {
    /// The file does not have the key.
    #[default]
    Unset,
    /// The device is held at this value while the daemon runs.
    HeldAtUs(i32),
    /// The file has the key, but the device cannot be opened; the check has warned.
    Refused,
}

/// The skin of the lanes.
#[derive(Clone, Debug)]
pub struct SkinPlan {
    pub kind: SkinKind,
    /// The library of a skin that is loaded; none: the usual one, found by the dynamic linker.
    pub library: Option<PathBuf>,
    /// The reason for this skin, or its description; for display.
    pub why: String,
    /// Directory of the devices of XDDP's ports, or why there are none.
    pub xddp: Result<PathBuf, String>,
}

impl SkinPlan {
    /// Path of the device of a port.
    pub fn device(&self, port: i16) -> String {
        let devices = self.xddp.as_deref().unwrap_or(std::path::Path::new("/dev"));
        xddp::device(devices, port).display().to_string()
    }

    /// Linux's own calls, for this reason.
    pub fn posix(why: impl Into<String>) -> SkinPlan {
        let why = why.into();
        let xddp = Err(format!(
            "only Cobalt has XDDP ports, and the skin is posix: {why}"
        ));
        SkinPlan {
            kind: SkinKind::Posix,
            library: None,
            why,
            xddp,
        }
    }
}

/// The skin that a configuration or `--skin` selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum SkinChoice {
    /// Cobalt if it is available, otherwise posix
    Auto,
    /// Linux's own calls
    Posix,
    /// Xenomai 3's; refused if it is not available
    Cobalt,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SkinKind {
    /// Linux's own calls.
    Posix,
    Cobalt,
}

impl SkinKind {
    /// The name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            SkinKind::Posix => skin::posix().name,
            SkinKind::Cobalt => "cobalt",
        }
    }

    /// Its capabilities.
    pub fn caps(self) -> Caps {
        match self {
            SkinKind::Posix => skin::posix().caps,
            SkinKind::Cobalt => skin::cobalt::CAPS,
        }
    }
}

/// A resolved `[[lane]]`.
#[derive(Clone, Debug)]
pub struct LanePlan {
    pub name: String,
    /// SCHED_FIFO priority, 1..=98.
    pub priority: u8,
    /// CPU its threads are pinned to.
    pub cpu: usize,
    /// How its threads wait.
    pub wait: Wait,
    /// The configuration allows `poll` on a CPU that is not isolated.
    pub unisolated: bool,
    /// The limits that the watchdog checks.
    pub watch: LaneWatch,
}

/// `[[process]]`: a name, and the credentials that a process needs to claim it.
#[derive(Clone, Debug)]
pub struct ProcessPlan {
    pub name: String,
    /// Required user id.
    pub uid: Option<u32>,
    /// Required group id (primary or supplementary).
    pub gid: Option<u32>,
    /// Required executable (canonical path).
    pub exe: Option<PathBuf>,
    /// Whether a thread above the ceiling of one of its lanes may register nevertheless, with a
    /// warning.
    pub above_ceiling: bool,
}

/// A resolved `[[endpoint]]`.
#[derive(Clone, Debug)]
pub struct EndpointPlan {
    pub name: String,
    /// The process that owns the endpoint.
    pub owner: Option<ProcessId>,
    /// What it is.
    pub kind: EndpointKind,
}

/// A resolved `[[route]]`.
#[derive(Clone, Debug)]
pub struct RoutePlan {
    /// Name; `<from>-><first to>` unless given.
    pub name: String,
    /// The source.
    pub from: EndpointId,
    /// The targets.
    pub to: Vec<TargetPlan>,
    /// The lane.
    pub lane: LaneId,
    /// Time to live from the send (of a ring's message) or the dequeue; none = no limit.
    pub ttl_ns: Option<u64>,
    /// A delivery later than this after that time counts as a deadline miss (the route's value,
    /// otherwise the lane's).
    pub deadline_ns: Option<u64>,
    pub rate: Option<Rate>,
    /// Largest payload in bytes; longer ones are rejected as too large.
    pub payload_bytes_max: usize,
    /// A signal target takes only the first 8 bytes of a longer payload (as configured).
    pub truncate: bool,
    /// The policy for a full target with a full queue (the route's, otherwise the lane's).
    pub overflow: Overflow,
    /// Messages queued here for each full target (a group `any` or `round-robin` is one target); 0
    /// for a direct route, otherwise at least 1.
    pub capacity: usize,
    /// mq priority of sent messages: as received, or fixed.
    pub mq_priority: Option<u32>,
    /// Whether it takes queued signals, although their sender wrote their si_pid.
    pub accept_claimed: bool,
    /// How long it waits, after a start, for receivers that had a session before (the route's
    /// value, otherwise the daemon's).
    pub rejoin_ns: u64,
    /// Through a lane thread, or from process to process.
    pub path: Path,
}

impl RoutePlan {
    /// The endpoints that it reaches, in order over all its targets.
    pub fn ends(&self) -> impl Iterator<Item = EndpointId> + '_ {
        self.to.iter().flat_map(TargetPlan::endpoints).copied()
    }

    /// Limit of the copies of each message.
    pub fn copies(&self) -> u64 {
        let copies = self.to.iter().map(|target| match target {
            TargetPlan::Group {
                mode: GroupMode::All,
                members,
                ..
            } => members.len() as u64,
            TargetPlan::Group { .. } | TargetPlan::Endpoint(_) => 1,
        });
        copies.sum()
    }

    /// Whether this end is a member of a group of which one takes each message.
    pub fn is_one_of_many(&self, end: EndpointId) -> bool {
        self.to.iter().any(|target| match target {
            TargetPlan::Group { mode, members, .. } => {
                *mode != GroupMode::All && members.contains(&end)
            }
            TargetPlan::Endpoint(_) => false,
        })
    }
}

/// The path of a route's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// Through a thread of the lane.
    Routed,
    /// From the sender's session into the receiver's: the daemon makes the ring and is not involved
    /// in the traffic. One lane endpoint to one lane endpoint, and no other route reads the source.
    Direct,
}

/// The filter that selects a group's members for a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Members whose owner is registered and in the POSIX process group of this process.
    ProcessGroupOf(ProcessId),
    /// The same for the POSIX session.
    SessionOf(ProcessId),
}

impl Filter {
    /// The process that the filter compares with.
    pub fn process(self) -> ProcessId {
        match self {
            Filter::ProcessGroupOf(process) | Filter::SessionOf(process) => process,
        }
    }
}

/// A target of a route.
#[derive(Clone, Debug)]
pub enum TargetPlan {
    Endpoint(EndpointId),
    Group {
        name: String,
        /// How members are chosen.
        mode: GroupMode,
        /// At least one member.
        members: Vec<EndpointId>,
        /// The filter; none: all members, always.
        filter: Option<Filter>,
    },
}

/// An endpoint that is read, its lane, and every route from it.
#[derive(Clone, Debug)]
pub struct SourcePlan {
    pub endpoint: EndpointId,
    /// The lane of all its routes.
    pub lane: LaneId,
    /// Routes in file order.
    pub routes: Vec<RouteId>,
}
