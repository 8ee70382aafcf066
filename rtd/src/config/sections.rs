//! The sections of a file as they are written, each key with the place it stands at.
//!
//! The doc comments here are the descriptions in the JSON schema; the defaults named here are
//! applied when the plan is made.

#![allow(
    rustdoc::invalid_html_tags,
    reason = "the schema shows <name> as it is written"
)]

mod read;

use super::diagnostic::Place;
use super::reader::{At, Field};
use super::values::{
    AboveCeilingText, Account, DutyText, GroupModeText, Int, KindText, MqPriority, Name,
    OnRunawayText, OnTamperingText, OverflowText, PathText, RttimeText, SECOND_NS, SkinText, Time,
    WaitText,
};
use crate::endpoint::Keys;
use rtcore::sys::limits::MQ_MSGSIZE_HARD;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::json;
use std::borrow::Cow;

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

/// A deployment of rtd: lanes, processes, their endpoints, and the routes between these.
#[derive(Debug, Default, JsonSchema)]
#[schemars(title = "rtd configuration", deny_unknown_fields)]
pub struct Config {
    /// The daemon itself. Every key has a default.
    #[schemars(default)]
    pub daemon: Daemon,
    /// Priority classes.
    #[schemars(default)]
    pub lane: Vec<Lane>,
    /// Processes that take part, and the credentials that they must have.
    #[schemars(default)]
    pub process: Vec<Process>,
    /// Named places that messages come from or go to.
    #[schemars(default)]
    pub endpoint: Vec<Endpoint>,
    /// Endpoints that a route reaches together.
    #[schemars(default)]
    pub group: Vec<Group>,
    /// Which endpoint sends to which others, in which lane.
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
    /// Name of the instance. Two daemons on one machine need two names. The statistics page is
    /// <name>.page in /run/rtd, $XDG_RUNTIME_DIR/rtd or /dev/shm/rtd-<uid>: the first of these that
    /// is on a tmpfs and belongs to rtd's user.
    #[schemars(default, extend("default" = "rtd"))]
    pub name: Field<Name>,
    /// User that rtd becomes at its start, by name or number, after it has made everything that
    /// needs a privilege. It then keeps only the capabilities that this configuration needs
    /// (SECURITY.md). Default: the user that starts rtd.
    #[schemars(default)]
    pub user: Field<Account>,
    /// The only group that rtd is in after it has become `user`, by name or number. On Cobalt it
    /// must be the group of /dev/rtdm/memdev-* and of `xenomai.allowed_group`. Default: the user's
    /// primary group.
    #[schemars(default)]
    pub group: Field<Account>,
    /// Absolute path of the control socket. Default: /run/rtd/<name>.sock if root starts rtd,
    /// otherwise $XDG_RUNTIME_DIR/rtd/<name>.sock, otherwise /tmp/rtd-<uid>/<name>.sock.
    #[schemars(default)]
    pub socket: Field<String>,
    /// Keep the message queues when the daemon stops, so that programs that have them open keep
    /// working across a restart. `rtctl queue rm NAME` removes a queue later.
    #[schemars(default, extend("default" = true))]
    pub keep_queues: Field<bool>,
    /// How long a stop goes on delivering queued messages. Messages that are still queued then are
    /// rejected (`stopped`) and counted. At most 60s.
    #[schemars(default, extend("default" = "500ms"))]
    pub drain: Field<Time<0, { 60 * SECOND_NS }>>,
    /// After a restart of rtd, how long routes wait for receivers that had a session before. Until
    /// such a process has opened its next session, it counts as full, not as dead. If the route's
    /// `capacity` is used up too, the source is not read. `0s` does not wait; at most 60s.
    #[schemars(default, extend("default" = "2s"))]
    pub rejoin: Field<Time<0, { 60 * SECOND_NS }>>,
    /// The real-time calls of the lanes: `posix` (Linux), `cobalt` (Xenomai 3; refused if it is not
    /// available), or `auto`: Cobalt if it is available and no queue has a `mode`, which only
    /// Linux's queues have. On Cobalt, queues and signals are those of Cobalt programs; plain Linux
    /// programs do not see them.
    #[schemars(default, extend("default" = "auto"))]
    pub skin: Field<SkinText>,
    /// Absolute path of Xenomai's libcobalt. Its code runs with rtd's rights, so the file and its
    /// directories must be writable only for root or rtd's user. Default: libcobalt.so.2, found by
    /// the dynamic linker.
    #[schemars(default)]
    pub cobalt_library: Field<String>,
    /// Period at which the watchdog, a thread one priority above the highest lane, samples the
    /// lanes. 1ms to 10s.
    #[schemars(default, extend("default" = "50ms"))]
    pub watchdog: Field<Time<WATCHDOG_NS_MIN, { 10 * SECOND_NS }>>,
    /// Time over which `duty` of a lane is measured; at least two periods of the watchdog. Default:
    /// 1s, or two periods.
    #[schemars(default)]
    pub duty_window: Field<Time<1_000_000, { 60 * SECOND_NS }>>,
    /// What the watchdog does about a lane that runs away (longer than its `stall` in one dispatch,
    /// above its `duty`, or past `rttime`): `report` it; `demote` its thread, which then has no
    /// real-time priority until rtd is restarted; or `stop` the daemon with exit status 3. A lane
    /// that makes no progress because other threads have its CPU is never demoted.
    #[schemars(default, extend("default" = "report"))]
    pub on_runaway: Field<OnRunawayText>,
    /// What rtd does if policy, priority or CPUs of one of its real-time threads are changed from
    /// outside (chrt, taskset, a cpuset): `report` the change, or report it and `restore` the
    /// former values. `rtctl stats` shows `tampered` while the change lasts. On Cobalt it has no
    /// effect, because the core schedules the threads.
    #[schemars(default, extend("default" = "report"))]
    pub on_tampering: Field<OnTamperingText>,
    /// How long a thread of a lane may run without waiting before the kernel reports it
    /// (RLIMIT_RTTIME, SIGXCPU): 10ms to 60s, or `off`. With on_runaway `demote` or `stop` the
    /// kernel kills the daemon one second later if nothing else has helped. Not set if a lane spins
    /// or polls, and not on Cobalt.
    #[schemars(default, extend("default" = "2s"))]
    pub rttime: Field<RttimeText>,
    /// Longest time in microseconds that a CPU may need to leave an idle state: rtd holds
    /// /dev/cpu_dma_latency open with this value while it runs. It opens the device, which is
    /// root's, before it becomes `user`; under systemd this needs configs/systemd/rtd-idle.conf.
    /// `0` keeps all CPUs out of deep idle states, which costs power. If the device cannot be
    /// opened, rtd starts with a warning. Default: rtd leaves the device alone.
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
    /// SCHED_FIFO priority of its threads. It is a ceiling: every thread that sends or receives in
    /// the lane must have a lower priority.
    pub priority: Field<Int<1, 98>>,
    /// CPU that its threads are pinned to.
    pub cpu: Field<Int<0, 1023>>,
    /// How its threads wait: `block`; `spin:<us>` (spin for this time, then block; with one source,
    /// or with up to 120 sources that are all of kind `lane`); or `poll` (never block; needs an
    /// isolated CPU). `poll` is refused on Cobalt: such a lane preempts Linux while Linux holds
    /// kernel locks, which freezes the machine.
    #[schemars(default, extend("default" = "block"))]
    pub wait: Field<WaitText>,
    /// Allow `poll` on a CPU that is not isolated. Statistics show it.
    #[schemars(default, extend("default" = false))]
    pub unisolated: Field<bool>,
    /// Default of `capacity` for its routes, the size of the backlog: messages that wait for each full
    /// receiver, first in first out regardless of their mq priority.
    #[schemars(default, extend("default" = 64))]
    pub capacity: Field<Capacity>,
    /// Default of `overflow` for its routes: what happens when `capacity` is used up. `reject`,
    /// `displace-oldest`, `displace-newest`, `conflate` (keep only the latest), or `block:<us>`
    /// (not in a lane that polls, or that spins on several sources). Oldest and newest are by
    /// arrival, not by mq priority. On direct routes all but `block` mean `reject`.
    #[schemars(default, extend("default" = "reject"))]
    pub overflow: Field<OverflowText>,
    /// Default of `deadline` for its routes: a message that is delivered later than this after the
    /// send (from a lane endpoint) or the dequeue counts as a deadline miss. Not used for direct
    /// routes. Default: none.
    #[schemars(default)]
    pub deadline: Field<Bound>,
    /// How long a thread may make no progress although it has work, in one dispatch or because it
    /// does not get its CPU, before the watchdog reports it as stalled; at least two periods of the
    /// watchdog. Default: 200ms, or two periods.
    #[schemars(default)]
    pub stall: Field<Time<1_000_000, { 60 * SECOND_NS }>>,
    /// Share of its CPU that a thread may use in one `duty_window`; for a lane that polls, the
    /// share of the time in which it has a message in hand. `100%` is no limit. Default: 90% for a
    /// lane that blocks, otherwise no limit.
    #[schemars(default)]
    pub duty: Field<DutyText>,
}

/// A process that takes part: a name, and the credentials that a program must have to take it.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Process {
    /// Where the entry begins.
    #[schemars(skip)]
    pub place: Place,
    /// Name, which endpoints refer to as `owner`.
    pub name: Field<Name>,
    /// User that the process must run as, by name or number. Default: any.
    #[schemars(default)]
    pub user: Field<Account>,
    /// Group that the process must be in, by name or number. Default: any.
    #[schemars(default)]
    pub group: Field<Account>,
    /// Absolute path of the executable that the process must run. Default: any.
    #[schemars(default)]
    pub exe: Field<String>,
    /// What rtd does if the SCHED_FIFO priority of the registered thread is too high: `refuse` the
    /// registration, or admit it and `warn`. The registered thread is the main thread, unless the
    /// registration names another one. Its priority must be below that of the lane that the client
    /// library declared for it (`session.realtime().lane(..)`) or, without a declaration, below the
    /// highest lane of the process.
    #[schemars(default, extend("default" = "refuse"))]
    pub above_ceiling: Field<AboveCeilingText>,
}

/// An endpoint: what every kind has, and the keys of its own kind.
#[derive(Debug)]
pub struct Endpoint {
    /// Where the entry begins.
    pub place: Place,
    pub name: Field<Name>,
    pub kind: Field<KindText>,
    pub owner: Field<String>,
    /// The other keys: those of a queue if the kind was refused.
    pub keys: Keys,
}

/// A named place that messages come from or go to.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "the schema of the keys that every kind has")]
struct EveryEndpoint {
    /// Name, which routes and groups refer to. Endpoints and groups share one set of names.
    name: Field<Name>,
    /// What the endpoint is. Each kind has keys of its own. A route joins any kind with any other.
    kind: Field<KindText>,
    /// The process at the other end: it sends into a source and receives from a sink. Required for
    /// a lane endpoint and for a signal that is a sink. A signal that a route reads is rejected
    /// (`origin`) unless it carries the pid of the registered owner. Default: no owner; any process
    /// that the permissions allow may send or receive.
    #[schemars(default)]
    owner: Field<String>,
}

impl JsonSchema for Endpoint {
    fn schema_name() -> Cow<'static, str> {
        "Endpoint".into()
    }

    /// One schema for each kind: the keys that every kind has, and its own.
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let every = EveryEndpoint::json_schema(generator);
        let kinds = Keys::schemas(generator)
            .into_iter()
            .map(|(name, mut schema)| {
                let of = |schema: &Schema, key: &str| schema.get(key).cloned().unwrap_or_default();
                let mut properties = of(&every, "properties");
                let mut required = of(&every, "required");
                if let (Some(all), Some(own)) = (
                    properties.as_object_mut(),
                    of(&schema, "properties").as_object().cloned(),
                ) {
                    all.extend(own);
                }
                if let (Some(all), Some(own)) =
                    (required.as_array_mut(), of(&schema, "required").as_array())
                {
                    all.extend(own.iter().cloned());
                }
                properties["kind"] =
                    json!({ "const": name, "description": properties["kind"]["description"] });
                schema.insert("properties".to_owned(), properties);
                schema.insert("required".to_owned(), required);
                schema.insert("additionalProperties".to_owned(), false.into());
                schema.to_value()
            });
        json_schema!({
            "description": every.get("description"),
            "type": "object",
            "oneOf": kinds.collect::<Vec<_>>(),
        })
    }
}

/// Endpoints that a route reaches together.
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
    /// `all`: a copy to each member. `round-robin`: to one living member after the other. `any`: to
    /// the first member that has room.
    #[schemars(default, extend("default" = "all"))]
    pub mode: Field<GroupModeText>,
    /// Only members whose owner is registered and, at the time of the message, in the POSIX process
    /// group of this process. Every member must have an owner. Default: all members.
    #[schemars(default)]
    pub process_group_of: Field<String>,
    /// Only members whose owner is registered and, at the time of the message, in the POSIX session
    /// of this process. Every member must have an owner. Not together with process_group_of.
    /// Default: all members.
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
    /// Name. Default: `<from>-><first to>`, shortened to fit.
    #[schemars(default)]
    pub name: Field<Name>,
    /// Endpoint that is read. All routes from one endpoint are in one lane.
    pub from: Field<String>,
    /// Endpoints and groups that the messages are sent to.
    #[schemars(length(min = 1))]
    pub to: Vec<At<String>>,
    /// Lane of the route.
    pub lane: Field<String>,
    /// `routed`: through a thread of the lane. `direct`: from one lane endpoint, which no other
    /// route reads, to one other lane endpoint; rtd makes the ring (the receiver's maxmsg, the
    /// sender's msgsize) and does not touch the messages. The receiver's inbox orders the messages
    /// of its routes by the priorities of their lanes. Of the keys below, a direct route has
    /// `overflow` (`reject` or `block:<us>`), `ttl` and `deadline`; the receiver's library applies
    /// the last two.
    #[schemars(default, extend("default" = "routed"))]
    pub path: Field<PathText>,
    /// Time to live, from the send for a message from a lane endpoint, otherwise from the dequeue.
    /// A message that waits in rtd for longer expires. If the receiver has a ring, its library
    /// discards older messages. Default: no limit.
    #[schemars(default)]
    pub ttl: Field<Bound>,
    /// A message that is delivered later than this after the send (from a lane endpoint) or the
    /// dequeue counts as a deadline miss. If the receiver has a ring, its library counts the
    /// messages that it takes later than this after their intended time. Default: the lane's; for a
    /// direct route none.
    #[schemars(default)]
    pub deadline: Field<Bound>,
    /// Messages per second that the route admits on average. Above the rate, a ring is left unread,
    /// so that its sender finds it full or waits; messages of a queue, signal or port are rejected
    /// and counted. If several routes read one ring, it is left unread only while all of them are
    /// above their rates. Default: no limit.
    #[schemars(default)]
    pub rate_hz: Field<Int<1, 1_000_000>>,
    /// Messages that the route admits at once above the rate. Default: a tenth of a second's worth,
    /// at least 1.
    #[schemars(default)]
    pub burst: Field<Int<1, 1_000_000>>,
    /// Bytes of the largest message; longer ones are rejected and counted. Default: the source's
    /// msgsize; if a queue or a lane goes only to signals, what these take: 8 bytes, or their
    /// msgsize.
    #[schemars(default)]
    pub payload: Field<Int<0, MQ_MSGSIZE_HARD>>,
    /// A signal without msgsize carries 8 bytes, a standard signal none. `true`: send the bytes
    /// that fit and drop the rest.
    #[schemars(default, extend("default" = false))]
    pub truncate: Field<bool>,
    /// Size of the backlog: messages that wait for each full receiver, first in first out
    /// regardless of their mq priority. The members of a group `any` or `round-robin` share one
    /// queue. `conflate` keeps 1. Default: the lane's.
    #[schemars(default)]
    pub capacity: Field<Capacity>,
    /// What happens when `capacity` is used up: `reject`, `displace-oldest`, `displace-newest`,
    /// `conflate` (keep only the latest), or `block:<us>` (the source is not read, so the sender's
    /// queue or ring fills). Oldest and newest are by arrival, not by mq priority. Default: the
    /// lane's.
    #[schemars(default)]
    pub overflow: Field<OverflowText>,
    /// How long this route waits after a restart of rtd for receivers that had a session before.
    /// Default: `rejoin` of `[daemon]`.
    #[schemars(default)]
    pub rejoin: Field<Time<0, { 60 * SECOND_NS }>>,
    /// mq priority of the messages that are sent: `keep` the one that was received (0 for a signal
    /// or a lane), or a number.
    #[schemars(default, extend("default" = "keep"))]
    pub mq_priority: Field<MqPriority>,
    /// Take queued signals, whose sender pid is whatever the sender wrote (sigqueue(3)). Required
    /// for routes from a real-time signal. It does not override `owner`: the claimed pid must still
    /// be the owner's.
    #[schemars(default, extend("default" = false))]
    pub accept_claimed: Field<bool>,
}
