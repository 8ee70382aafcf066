//! The sections of a file as they are written, each key with the place it stands at.
//!
//! The doc comments here are the descriptions in the JSON schema; the defaults named here are applied
//! when the plan is made.

#![allow(rustdoc::invalid_html_tags, reason = "the schema shows <name> as it is written")]

mod read;

use super::diagnostic::Place;
use super::reader::{At, Field};
use super::values::{
    AboveCeilingText, Account, DutyText, GroupModeText, Int, KindText, ModeBits, MqPriority, Name,
    OnRunawayText, OnTamperingText, OverflowText, PathText, RttimeText, SECOND_NS, SignalNumber, SkinText,
    TargetText, Time, WaitText,
};
use rtcore::sys::limits::{MQ_MAXMSG_HARD, MQ_MSGSIZE_HARD};
use schemars::JsonSchema;

/// Most `[[lane]]` entries.
pub const LANES_MAX: usize = 98;
/// Most `[[process]]` entries.
pub const PROCESSES_MAX: usize = 1024;
/// Most `[[endpoint]]` entries.
pub const ENDPOINTS_MAX: usize = 4096;
/// Most `[[group]]` entries.
pub const GROUPS_MAX: usize = 1024;
/// Most `[[route]]` entries.
pub const ROUTES_MAX: usize = 4096;

/// Shortest time from one look of the watchdog to the next.
pub const WATCHDOG_NS_MIN: u64 = 1_000_000;

/// Longest wake-up latency that can be requested; no idle state needs as long.
pub const CPU_DMA_LATENCY_US_MAX: u64 = 1_000_000;

/// Longest time to live and deadline.
const HOUR_NS: u64 = 3600 * SECOND_NS;

/// A time to live or a deadline: 1us to 1 hour.
pub type Bound = Time<1_000, HOUR_NS>;
/// Messages kept in front of a full target.
pub type Capacity = Int<1, 65_536>;

/// A deployment of rtd: lanes, the processes that take part, their endpoints, and the routes between them.
#[derive(Debug, Default, JsonSchema)]
#[schemars(title = "rtd configuration", deny_unknown_fields)]
pub struct Config {
    /// The daemon itself. Everything has a default.
    #[schemars(default)]
    pub daemon: Daemon,
    /// Priority classes.
    #[schemars(default)]
    pub lane: Vec<Lane>,
    /// Participants and the credentials they must have.
    #[schemars(default)]
    pub process: Vec<Process>,
    /// Named places that messages come from or go to.
    #[schemars(default)]
    pub endpoint: Vec<Endpoint>,
    /// Endpoints that are reached together.
    #[schemars(default)]
    pub group: Vec<Group>,
    /// What goes from where to where, in which lane.
    #[schemars(default)]
    pub route: Vec<Route>,
}

/// The daemon itself.
#[derive(Debug, Default, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Daemon {
    /// Where the section begins.
    #[schemars(skip)]
    pub place: Option<Place>,
    /// Instance name; two daemons on one machine need two. The statistics page is <name>.page in /run/rtd,
    /// $XDG_RUNTIME_DIR/rtd or /dev/shm/rtd-<uid>, the first that is on a tmpfs and belongs to rtd's user.
    #[schemars(default, extend("default" = "rtd"))]
    pub name: Field<Name>,
    /// User to become at the start, by name or number, when all that takes a privilege is there; rtd keeps no capability
    /// then but those that this file needs (SECURITY.md). Default: whoever starts rtd.
    #[schemars(default)]
    pub user: Field<Account>,
    /// Group to be in then, by name or number, and in no other. Default: the user's primary group.
    #[schemars(default)]
    pub group: Field<Account>,
    /// Control socket, an absolute path. Default: /run/rtd/<name>.sock for root, else
    /// $XDG_RUNTIME_DIR/rtd/<name>.sock, else /tmp/rtd-<uid>/<name>.sock.
    #[schemars(default)]
    pub socket: Field<String>,
    /// Whether the message queues stay when the daemon stops, so that programs which hold them open keep
    /// working across a restart.
    #[schemars(default, extend("default" = true))]
    pub keep_queues: Field<bool>,
    /// How long a stop may go on delivering what is queued before the rest is counted as rejected; at
    /// most 60s.
    #[schemars(default, extend("default" = "500ms"))]
    pub drain: Field<Time<0, { 60 * SECOND_NS }>>,
    /// After a restart of rtd, how long routes wait for receivers that had a session with the rtd before: until such a
    /// process has opened its next session it counts as full, not as dead. `0s` does not wait; at most 60s.
    #[schemars(default, extend("default" = "2s"))]
    pub rejoin: Field<Time<0, { 60 * SECOND_NS }>>,
    /// The lanes' real-time calls: `posix` (Linux's), `cobalt` (Xenomai 3's; refused where it cannot be had), or `auto`:
    /// Cobalt where it can be had, unless a queue has a `mode`, which only Linux's have. On Cobalt queues and signals are
    /// those of Cobalt programs, and no plain Linux program sees them.
    #[schemars(default, extend("default" = "auto"))]
    pub skin: Field<SkinText>,
    /// Path of Xenomai's libcobalt, absolute. Its code runs with rtd's rights: file and directories are root's or rtd's
    /// own user's alone to write, or it is refused. Default: libcobalt.so.2, from where the dynamic linker looks.
    #[schemars(default)]
    pub cobalt_library: Field<String>,
    /// How often the watchdog looks at the lanes: a thread at one priority above the highest of them. 1ms to 10s.
    #[schemars(default, extend("default" = "50ms"))]
    pub watchdog: Field<Time<WATCHDOG_NS_MIN, { 10 * SECOND_NS }>>,
    /// Time over which a lane's `duty` counts; at least two looks of the watchdog. Default: 1s, or two looks.
    #[schemars(default)]
    pub duty_window: Field<Time<1_000_000, { 60 * SECOND_NS }>>,
    /// What the watchdog does about a lane that runs away (longer than its `stall` in one dispatch, above its `duty`, past
    /// `rttime`): `report` it; `demote` its thread, which then has no real-time priority until rtd is started again; or
    /// `stop` the daemon, with exit status 3. A lane that stands still because others have its CPU is a victim: it is never
    /// demoted.
    #[schemars(default, extend("default" = "report"))]
    pub on_runaway: Field<OnRunawayText>,
    /// What rtd does when policy, priority or CPUs of one of its real-time threads were changed from outside (chrt, taskset,
    /// a cpuset): `report` it, or report it and `restore` them. Either way `rtctl stats` shows `tampered` while it lasts.
    #[schemars(default, extend("default" = "report"))]
    pub on_tampering: Field<OnTamperingText>,
    /// How long a lane's thread may run without waiting once before the kernel tells (RLIMIT_RTTIME, SIGXCPU): 10ms to 60s,
    /// or `off`. With on_runaway `demote` or `stop` the kernel kills the daemon one second later, should nothing else have
    /// helped. Not set where a lane spins or polls, nor on Cobalt.
    #[schemars(default, extend("default" = "2s"))]
    pub rttime: Field<RttimeText>,
    /// Longest time in us that a CPU may need to leave an idle state while rtd runs: rtd holds /dev/cpu_dma_latency open with
    /// this value. It opens the device before it becomes `user`. 0 keeps every CPU out of all idle states but the shallowest,
    /// which costs power. Default: rtd leaves the device alone.
    #[schemars(default)]
    pub cpu_dma_latency: Field<Int<0, CPU_DMA_LATENCY_US_MAX>>,
}

/// A priority class: its threads run SCHED_FIFO at this priority, pinned to this CPU.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Lane {
    /// Where the entry begins.
    #[schemars(skip)]
    pub place: Place,
    /// Name, which routes refer to.
    pub name: Field<Name>,
    /// SCHED_FIFO priority. It is a ceiling: every thread that sends or receives in the lane must be below.
    pub priority: Field<Int<1, 98>>,
    /// CPU its threads are pinned to.
    pub cpu: Field<Int<0, 1023>>,
    /// How its threads wait: `block`, `spin:<us>` (spin this long, then block; one source only, or up to 120
    /// that are all of kind `lane`), or `poll` (never block; on an isolated CPU).
    #[schemars(default, extend("default" = "block"))]
    pub wait: Field<WaitText>,
    /// Allow `poll` on a CPU that is not isolated; statistics then show it.
    #[schemars(default, extend("default" = false))]
    pub unisolated: Field<bool>,
    /// For its routes that do not say otherwise: messages kept in front of each full target, first in first
    /// out whatever their mq priority.
    #[schemars(default, extend("default" = 64))]
    pub capacity: Field<Capacity>,
    /// For its routes that do not say otherwise: what happens past the capacity. `reject`,
    /// `displace-oldest`, `displace-newest`, `conflate` (keep the latest only), `block:<us>` (not in a lane
    /// that polls or spins on several sources). Oldest and newest go by arrival, not by mq priority. On direct
    /// routes all but `block` mean `reject`.
    #[schemars(default, extend("default" = "reject"))]
    pub overflow: Field<OverflowText>,
    /// For its routes that do not say otherwise: delivered later than this after the send (from a lane endpoint) or the
    /// dequeue counts as a deadline miss. Default: none. Direct routes have none.
    #[schemars(default)]
    pub deadline: Field<Bound>,
    /// How long a thread of it may stand still with something to do, in one dispatch or for want of its CPU, before the
    /// watchdog calls it stalled; at least two looks of the watchdog. Default: 200ms, or two looks.
    #[schemars(default)]
    pub stall: Field<Time<1_000_000, { 60 * SECOND_NS }>>,
    /// Share of its CPU that a thread of it may use in one `duty_window`; of a lane that polls, the share of time that it
    /// has a message in hand. `100%` is no limit. Default: 90% for a lane that blocks, else no limit.
    #[schemars(default)]
    pub duty: Field<DutyText>,
}

/// A participant: a name, and the credentials whoever claims it must have.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Process {
    /// Where the entry begins.
    #[schemars(skip)]
    pub place: Place,
    /// Name, which endpoints refer to as `owner`.
    pub name: Field<Name>,
    /// User it must run as, by name or number. Default: any.
    #[schemars(default)]
    pub user: Field<Account>,
    /// Group it must be in, by name or number. Default: any.
    #[schemars(default)]
    pub group: Field<Account>,
    /// Executable it must run, an absolute path. Default: any.
    #[schemars(default)]
    pub exe: Field<String>,
    /// A registered thread whose SCHED_FIFO priority is not below the lane that its library declared for it, or without a
    /// declaration not below the highest lane of the process: `refuse` its registration, or admit it and `warn`.
    #[schemars(default, extend("default" = "refuse"))]
    pub above_ceiling: Field<AboveCeilingText>,
}

/// A named place that messages come from or go to.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Endpoint {
    /// Where the entry begins.
    #[schemars(skip)]
    pub place: Place,
    /// Name, which routes and groups refer to. Endpoints and groups share one set of names.
    pub name: Field<Name>,
    /// What it is: `lane` (shared memory), `mqueue`, `signal`, or `xddp` (datagrams between a lane on Cobalt and a plain
    /// Linux program).
    pub kind: Field<KindText>,
    /// The process at the other end: who sends into a source, who receives from a sink. A lane endpoint and a
    /// signal sink must have one. Default: nobody in particular.
    #[schemars(default)]
    pub owner: Field<String>,
    /// mqueue: name of the queue, `/` first. Default: `/` and the endpoint's name.
    #[schemars(default)]
    pub queue: Field<String>,
    /// mqueue: messages the queue holds; default 10, or 1 if every route to it has overflow = "conflate". lane: slots of the ring, rounded up to a power of two;
    /// default 64. signal, as a sink with msgsize: the same. xddp: messages of msgsize that both directions have room for
    /// together; default 64.
    #[schemars(default)]
    pub maxmsg: Field<Int<1, MQ_MAXMSG_HARD>>,
    /// Bytes of the largest message. mqueue: default 256. lane: at most 1 MiB, default 256; one ring (maxmsg x
    /// msgsize) has at most 256 MiB. signal, as a sink, real-time signals only: payloads of up to so many bytes
    /// ride in a ring of the owner's session, and the signal's value is the ticket; default: none, the value is
    /// the payload. xddp: default 256; maxmsg of them take at most 4 MiB.
    #[schemars(default)]
    pub msgsize: Field<Int<1, MQ_MSGSIZE_HARD>>,
    /// mqueue: permission bits, octal in quotes; applied at every start. Only where group and others may not
    /// write do messages pass as the owner's.
    #[schemars(default, extend("default" = "0660"))]
    pub mode: Field<ModeBits>,
    /// mqueue: whether messages that wait in the queue when rtd starts are thrown away, with a line in the log. They are in
    /// no ledger: those of a source were not accepted yet, those of a sink were delivered by an earlier rtd. Default: they
    /// stay.
    #[schemars(default, extend("default" = false))]
    pub flush_at_start: Field<bool>,
    /// signal: which one, `SIGRTMIN+3`, `SIGRTMAX-1`, `SIGUSR1` or a number. Required for kind `signal`.
    #[schemars(default)]
    pub signal: Field<SignalNumber>,
    /// signal, as a sink: to the whole `process` or to the `thread` that registered.
    #[schemars(default, extend("default" = "process"))]
    pub target: Field<TargetText>,
    /// xddp: the port; N stands for the device /dev/rtpN, which the Linux program opens. Required for kind `xddp`.
    #[schemars(default)]
    pub port: Field<Int<0, 32_767>>,
    /// xddp: a name for the port, 1 to 31 bytes: /proc/xenomai/registry/rtipc/xddp/<label> leads to the device. Default:
    /// none.
    #[schemars(default)]
    pub label: Field<String>,
}

/// Endpoints that are reached together.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Group {
    /// Where the entry begins.
    #[schemars(skip)]
    pub place: Place,
    /// Name, which routes refer to in `to`.
    pub name: Field<Name>,
    /// Names of endpoints.
    #[schemars(length(min = 1))]
    pub members: Vec<At<String>>,
    /// A copy to `all` members, to one in turn (`round-robin`), or to the first that takes it (`any`).
    #[schemars(default, extend("default" = "all"))]
    pub mode: Field<GroupModeText>,
    /// Only the members whose owner is registered and in the POSIX process group of this process, at the moment
    /// of each message. Every member has an owner then. Default: all members.
    #[schemars(default)]
    pub process_group_of: Field<String>,
    /// Only the members whose owner is registered and in the POSIX session of this process, at the moment of
    /// each message. Every member has an owner then; not together with process_group_of. Default: all members.
    #[schemars(default)]
    pub session_of: Field<String>,
}

/// From one endpoint to one or more endpoints or groups, in one lane.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Route {
    /// Where the entry begins.
    #[schemars(skip)]
    pub place: Place,
    /// Name. Default: `<from>-><first to>`, cut to fit.
    #[schemars(default)]
    pub name: Field<Name>,
    /// Endpoint that is read. All routes from one endpoint are in one lane.
    pub from: Field<String>,
    /// Endpoints and groups that are sent to.
    #[schemars(length(min = 1))]
    pub to: Vec<At<String>>,
    /// Lane.
    pub lane: Field<String>,
    /// `routed`: through a thread of the lane. `direct`: from the sender's memory into the receiver's, from one
    /// lane endpoint, which no other route reads, to one lane endpoint; rtd makes the ring (the receiver's maxmsg,
    /// the sender's msgsize) and steps aside. The lane's priority is the messages' order in the receiver's inbox.
    /// Of the keys below a direct route has `overflow` (`reject` or `block:<us>`), `ttl` and `deadline`, which the
    /// receiver's library honours.
    #[schemars(default, extend("default" = "routed"))]
    pub path: Field<PathText>,
    /// Time to live, from the send for a message that comes from a lane endpoint, else from the dequeue: a message that
    /// still waits in rtd then has expired, and the library of a receiver with a ring discards it. Default: no limit.
    #[schemars(default)]
    pub ttl: Field<Bound>,
    /// Delivered later than this after the send (from a lane endpoint) or the dequeue counts as a deadline miss. The
    /// library of a receiver with a ring counts what it takes later than this after the intended time. Default: the
    /// lane's; of a direct route none.
    #[schemars(default)]
    pub deadline: Field<Bound>,
    /// Messages per second in the long run. Above it, a ring is left unread, so that its sender finds it full or waits;
    /// messages of a queue, signal or port are rejected. Default: no limit.
    #[schemars(default)]
    pub rate_hz: Field<Int<1, 1_000_000>>,
    /// Messages at once above the rate. Default: a tenth of a second's worth, at least 1.
    #[schemars(default)]
    pub burst: Field<Int<1, 1_000_000>>,
    /// Largest payload in bytes; longer messages are rejected. Default: the source's msgsize; where a queue or a
    /// lane goes to signals only, what these take: 8, or their msgsize.
    #[schemars(default)]
    pub payload: Field<Int<0, MQ_MSGSIZE_HARD>>,
    /// A signal without msgsize carries 8 bytes (a standard signal none): send it all the same and drop the rest.
    #[schemars(default, extend("default" = false))]
    pub truncate: Field<bool>,
    /// Messages kept in front of each full target, first in first out whatever their mq priority. The members of
    /// a group `any` or `round-robin` share one such queue. Default: the lane's. `conflate` keeps 1.
    #[schemars(default)]
    pub capacity: Field<Capacity>,
    /// What happens past the capacity; oldest and newest go by arrival, not by mq priority. Default: the
    /// lane's.
    #[schemars(default)]
    pub overflow: Field<OverflowText>,
    /// How long this route waits after a restart of rtd for receivers that had a session before. Default: `rejoin` of
    /// `[daemon]`.
    #[schemars(default)]
    pub rejoin: Field<Time<0, { 60 * SECOND_NS }>>,
    /// Message-queue priority of what is sent: `keep` the one received (0 for a signal or a lane), or a number.
    #[schemars(default, extend("default" = "keep"))]
    pub mq_priority: Field<MqPriority>,
    /// A queued signal's sender pid is whatever the sender wrote: take it all the same. Required for routes
    /// from a real-time signal.
    #[schemars(default, extend("default" = false))]
    pub accept_claimed: Field<bool>,
}
