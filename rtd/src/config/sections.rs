//! The sections of a file as they are written, each key with the place it stands at.
//!
//! The doc comments here are the descriptions in the JSON schema; the defaults named here are applied
//! when the plan is made.

#![allow(rustdoc::invalid_html_tags, reason = "the schema shows <name> as it is written")]

use super::diagnostic::Report;
use super::reader::{self, At, Field, Reader};
use super::values::{
    Account, GroupModeText, Int, KindText, ModeBits, MqPriority, Name, OverflowText, SECOND_NS, SignalNumber,
    TargetText, Time, WaitText,
};
use crate::config::diagnostic::Place;
use rtcore::sys::limits::{MQ_MAXMSG_HARD, MQ_MSGSIZE_HARD};
use schemars::JsonSchema;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

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
    /// Instance name; two daemons on one machine need two. The statistics page is /dev/shm/rtd.<name>.
    #[schemars(default, extend("default" = "rtd"))]
    pub name: Field<Name>,
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
    /// SCHED_FIFO priority. It is a ceiling: every thread that sends or receives in the lane should be below.
    pub priority: Field<Int<1, 98>>,
    /// CPU its threads are pinned to.
    pub cpu: Field<Int<0, 1023>>,
    /// How its threads wait: `block`, `spin:<us>` (spin this long, then block; one source only), or `poll`
    /// (never block; on an isolated CPU).
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
    /// that polls several sources). Oldest and newest go by arrival, not by mq priority.
    #[schemars(default, extend("default" = "reject"))]
    pub overflow: Field<OverflowText>,
    /// For its routes that do not say otherwise: delivered later than this after the dequeue counts as a
    /// deadline miss. Default: none.
    #[schemars(default)]
    pub deadline: Field<Bound>,
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
    /// What it is: `mqueue` or `signal`.
    pub kind: Field<KindText>,
    /// The process at the other end: who sends into a source, who receives from a sink. A signal sink
    /// must have one. Default: nobody in particular.
    #[schemars(default)]
    pub owner: Field<String>,
    /// mqueue: name of the queue, `/` first. Default: `/` and the endpoint's name.
    #[schemars(default)]
    pub queue: Field<String>,
    /// mqueue: messages the queue holds.
    #[schemars(default, extend("default" = 10))]
    pub maxmsg: Field<Int<1, MQ_MAXMSG_HARD>>,
    /// mqueue: bytes of the largest message.
    #[schemars(default, extend("default" = 256))]
    pub msgsize: Field<Int<1, MQ_MSGSIZE_HARD>>,
    /// mqueue: permission bits, octal in quotes; applied at every start. Only where group and others may not
    /// write do messages pass as the owner's.
    #[schemars(default, extend("default" = "0660"))]
    pub mode: Field<ModeBits>,
    /// signal: which one, `SIGRTMIN+3`, `SIGRTMAX-1`, `SIGUSR1` or a number. Required for kind `signal`.
    #[schemars(default)]
    pub signal: Field<SignalNumber>,
    /// signal, as a sink: to the whole `process` or to the `thread` that registered.
    #[schemars(default, extend("default" = "process"))]
    pub target: Field<TargetText>,
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
    /// Time to live after the dequeue: what is still waiting then has expired. Default: no limit.
    #[schemars(default)]
    pub ttl: Field<Bound>,
    /// Delivered later than this after the dequeue counts as a deadline miss. Default: the lane's.
    #[schemars(default)]
    pub deadline: Field<Bound>,
    /// Messages per second in the long run; more are rejected. Default: no limit.
    #[schemars(default)]
    pub rate_hz: Field<Int<1, 1_000_000>>,
    /// Messages at once above the rate. Default: a tenth of a second's worth, at least 1.
    #[schemars(default)]
    pub burst: Field<Int<1, 1_000_000>>,
    /// Largest payload in bytes; longer messages are rejected. Default: the source's msgsize; 8 for a queue
    /// that goes to signals only.
    #[schemars(default)]
    pub payload: Field<Int<0, MQ_MSGSIZE_HARD>>,
    /// A signal carries 8 bytes (a standard signal none): send it all the same and drop the rest.
    #[schemars(default, extend("default" = false))]
    pub truncate: Field<bool>,
    /// Messages kept in front of each full target, first in first out whatever their mq priority. Default:
    /// the lane's. `conflate` keeps 1.
    #[schemars(default)]
    pub capacity: Field<Capacity>,
    /// What happens past the capacity; oldest and newest go by arrival, not by mq priority. Default: the
    /// lane's.
    #[schemars(default)]
    pub overflow: Field<OverflowText>,
    /// Message-queue priority of what is sent: `keep` the one received (0 for a signal), or a number.
    #[schemars(default, extend("default" = "keep"))]
    pub mq_priority: Field<MqPriority>,
    /// A queued signal's sender pid is whatever the sender wrote: take it all the same. Required for routes
    /// from a real-time signal.
    #[schemars(default, extend("default" = false))]
    pub accept_claimed: Field<bool>,
}

impl Config {
    /// Reads every section; what is wrong goes to the report.
    pub fn read(report: &mut Report<'_>, root: &DeTable<'_>) -> Config {
        const SECTIONS: [&str; 6] = ["daemon", "lane", "process", "endpoint", "group", "route"];
        for (key, value) in root.iter().filter(|(key, _)| !SECTIONS.contains(&key.get_ref().as_ref())) {
            unknown_section(report, key, value, &SECTIONS);
        }
        Config {
            daemon: Daemon::read(report, root),
            lane: read_all(report, root, "lane", LANES_MAX, Lane::read),
            process: read_all(report, root, "process", PROCESSES_MAX, Process::read),
            endpoint: read_all(report, root, "endpoint", ENDPOINTS_MAX, Endpoint::read),
            group: read_all(report, root, "group", GROUPS_MAX, Group::read),
            route: read_all(report, root, "route", ROUTES_MAX, Route::read),
        }
    }
}

fn unknown_section(
    report: &mut Report<'_>,
    key: &Spanned<std::borrow::Cow<'_, str>>,
    value: &Spanned<DeValue<'_>>,
    known: &[&str],
) {
    let name: &str = key.get_ref();
    let place = Place { span: key.span(), key: name.to_owned() };
    if value.get_ref().is_table() || value.get_ref().is_array() {
        let near = super::suggest::nearest(name, known.iter().copied());
        let header = |near: &str| if near == "daemon" { "[daemon]".into() } else { format!("[[{near}]]") };
        let mend = near.map_or_else(
            || format!("remove it; known sections: {}", super::suggest::list(known.iter().copied())),
            |near| format!("write {}", header(near)),
        );
        report.error(&place, format!("unknown section `{name}`"), mend);
    } else {
        report.error(
            &place,
            format!("key `{name}` stands outside any section"),
            "put it below its section's header",
        );
    }
}

fn read_all<T>(
    report: &mut Report<'_>,
    root: &DeTable<'_>,
    section: &'static str,
    count_max: usize,
    read: fn(&mut Reader<'_, '_, '_>) -> T,
) -> Vec<T> {
    let entries = reader::entries(report, root, section, count_max);
    let mut all = Vec::with_capacity(entries.len());
    for (index, (table, header)) in entries.into_iter().enumerate() {
        let mut reader = Reader::new(report, table, header, format!("{section}[{index}]"));
        all.push(read(&mut reader));
        reader.finish();
    }
    all
}

impl Daemon {
    fn read(report: &mut Report<'_>, root: &DeTable<'_>) -> Daemon {
        let Some((key, value)) = root.get_key_value("daemon") else { return Daemon::default() };
        let Some(table) = value.get_ref().as_table() else {
            let place = Place { span: key.span(), key: "daemon".to_owned() };
            let message = format!("`daemon` is one table, not {}", value.get_ref().type_str());
            report.error(&place, message, "[daemon]");
            return Daemon::default();
        };
        let mut reader = Reader::new(report, table, value.span(), "daemon".to_owned());
        let daemon = Daemon::read_keys(&mut reader);
        reader.finish();
        daemon
    }

    /// Reads its keys.
    pub fn read_keys(r: &mut Reader<'_, '_, '_>) -> Daemon {
        Daemon {
            place: Some(r.header()),
            name: r.optional("name"),
            socket: r.optional("socket"),
            keep_queues: r.optional("keep_queues"),
            drain: r.optional("drain"),
        }
    }
}

impl Lane {
    /// Reads its keys.
    pub fn read(r: &mut Reader<'_, '_, '_>) -> Lane {
        Lane {
            place: r.header(),
            name: r.required("name", "\"control\""),
            priority: r.required("priority", "50"),
            cpu: r.required("cpu", "0"),
            wait: r.optional("wait"),
            unisolated: r.optional("unisolated"),
            capacity: r.optional("capacity"),
            overflow: r.optional("overflow"),
            deadline: r.optional("deadline"),
        }
    }
}

impl Process {
    /// Reads its keys.
    pub fn read(r: &mut Reader<'_, '_, '_>) -> Process {
        Process {
            place: r.header(),
            name: r.required("name", "\"drive\""),
            user: r.optional("user"),
            group: r.optional("group"),
            exe: r.optional("exe"),
        }
    }
}

impl Endpoint {
    /// Reads its keys.
    pub fn read(r: &mut Reader<'_, '_, '_>) -> Endpoint {
        Endpoint {
            place: r.header(),
            name: r.required("name", "\"drive.commands\""),
            kind: r.required("kind", "\"mqueue\""),
            owner: r.optional("owner"),
            queue: r.optional("queue"),
            maxmsg: r.optional("maxmsg"),
            msgsize: r.optional("msgsize"),
            mode: r.optional("mode"),
            signal: r.optional("signal"),
            target: r.optional("target"),
        }
    }
}

impl Group {
    /// Reads its keys.
    pub fn read(r: &mut Reader<'_, '_, '_>) -> Group {
        Group {
            place: r.header(),
            name: r.required("name", "\"drives\""),
            members: r.list("members", "\"drive.commands\""),
            mode: r.optional("mode"),
        }
    }
}

impl Route {
    /// Reads its keys.
    pub fn read(r: &mut Reader<'_, '_, '_>) -> Route {
        Route {
            place: r.header(),
            name: r.optional("name"),
            from: r.required("from", "\"controller.out\""),
            to: r.list("to", "\"drive.commands\""),
            lane: r.required("lane", "\"control\""),
            ttl: r.optional("ttl"),
            deadline: r.optional("deadline"),
            rate_hz: r.optional("rate_hz"),
            burst: r.optional("burst"),
            payload: r.optional("payload"),
            truncate: r.optional("truncate"),
            capacity: r.optional("capacity"),
            overflow: r.optional("overflow"),
            mq_priority: r.optional("mq_priority"),
            accept_claimed: r.optional("accept_claimed"),
        }
    }
}
