//! The configuration of a daemon that is started for a measurement: one route for each path.

use super::{DaemonPid, In, Out, Route};
use crate::mech::signal;
use anyhow::Context as _;
use rtcore::sys::signame;
use rtd::daemon::own::OwnDaemon;
use std::ffi::CString;
use std::fmt::Write as _;

/// Slots of a ring.
const SLOTS: usize = 64;

/// The kinds of endpoint at the two ends of a route.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoutePath {
    /// Queue to queue
    MqMq,
    /// Queue to signal
    MqSignal,
    /// Signal to signal
    SignalSignal,
    /// Shared memory, through a thread of the daemon
    Lane,
    /// Shared memory, from process to process
    Direct,
}

impl RoutePath {
    /// All of them.
    pub const ALL: [RoutePath; 5] = [
        RoutePath::MqMq,
        RoutePath::MqSignal,
        RoutePath::SignalSignal,
        RoutePath::Lane,
        RoutePath::Direct,
    ];

    /// As it stands in tables.
    pub fn title(self) -> &'static str {
        match self {
            RoutePath::MqMq => "mq -> mq",
            RoutePath::MqSignal => "mq -> signal",
            RoutePath::SignalSignal => "signal -> signal",
            RoutePath::Lane => "lane routed",
            RoutePath::Direct => "lane direct",
        }
    }

    fn enters_by_signal(self) -> bool {
        self == RoutePath::SignalSignal
    }

    /// Whether its receiver gets a signal.
    pub fn leaves_by_signal(self) -> bool {
        matches!(self, RoutePath::MqSignal | RoutePath::SignalSignal)
    }
}

/// One route of that daemon, with processes of its own at both ends.
#[derive(Clone, Debug)]
pub struct OwnRoute {
    path: RoutePath,
    number: usize,
    pub(super) payload_bytes: usize,
    /// Signals into the daemon, and out of it.
    signals: [i32; 2],
    /// Slots of a ring of shared memory.
    slots: usize,
    /// Rings of shared memory into its receiver.
    rings: usize,
}

impl OwnRoute {
    /// `number` distinguishes it from the others of the daemon. Signals are assigned from the
    /// highest down.
    pub fn new(path: RoutePath, number: usize, payload_bytes: usize) -> anyhow::Result<OwnRoute> {
        let all: Vec<i32> = signal::every().collect();
        let nth = |n: usize| {
            let pairs_max = all.len() / 2;
            all.iter().rev().nth(n).copied().with_context(|| {
                format!(
                    "route {number} has no signals: each takes two of the {}, so there are at most {pairs_max} (a pair that \
                     is answered takes two)",
                    all.len()
                )
            })
        };
        let signals = if path.leaves_by_signal() {
            [nth(2 * number)?, nth(2 * number + 1)?]
        } else {
            [0, 0]
        };
        Ok(OwnRoute {
            path,
            number,
            payload_bytes,
            signals,
            slots: SLOTS,
            rings: 1,
        })
    }

    /// The same with this number of rings of shared memory into its receiver, each from an endpoint
    /// of the sender's.
    pub fn with_rings(self, rings: usize) -> OwnRoute {
        OwnRoute { rings, ..self }
    }

    /// The same with this number of slots in a ring of shared memory.
    pub fn with_slots(self, slots: usize) -> OwnRoute {
        OwnRoute { slots, ..self }
    }

    /// Name of the sender's n-th endpoint.
    pub(super) fn source(&self, n: usize) -> String {
        match n {
            0 => self.name("tx") + ".msg",
            n => format!("{}.{n}", self.name("tx")),
        }
    }

    fn queue(&self, instance: &str, end: &str) -> String {
        format!("/{instance}-{}-{end}", self.number)
    }

    /// The queues that the daemon makes for it.
    pub fn queues(&self, instance: &str) -> anyhow::Result<Vec<CString>> {
        let ends: &[&str] = match self.path {
            RoutePath::MqMq => &["tx", "rx"],
            RoutePath::MqSignal => &["tx"],
            RoutePath::SignalSignal | RoutePath::Lane | RoutePath::Direct => &[],
        };
        ends.iter()
            .map(|end| Ok(CString::new(self.queue(instance, end))?))
            .collect()
    }

    pub(super) fn name(&self, what: &str) -> String {
        format!("{what}{}", self.number)
    }

    /// Its part of the configuration. Writing to a string does not fail.
    fn toml(&self, instance: &str, depth: u64) -> String {
        let OwnRoute {
            path,
            payload_bytes,
            ..
        } = self;
        let mut text = String::new();
        let names @ [tx, rx] = &["tx", "rx"].map(|end| self.name(end));
        for (end, process) in ["tx", "rx"].iter().zip(names) {
            let is_in = *end == "tx";
            let by_signal = if is_in {
                path.enters_by_signal()
            } else {
                path.leaves_by_signal()
            };
            let _ = writeln!(
                text,
                "[[process]]\nname = \"{process}\"\nabove_ceiling = \"warn\""
            );
            let _ = writeln!(
                text,
                "[[endpoint]]\nname = \"{process}.msg\"\nowner = \"{process}\""
            );
            let msgsize = if path.leaves_by_signal() {
                8
            } else {
                *payload_bytes
            };
            let _ = if by_signal {
                let signo = signame::name(self.signals[usize::from(!is_in)]);
                writeln!(text, "kind = \"signal\"\nsignal = \"{signo}\"")
            } else if matches!(path, RoutePath::Lane | RoutePath::Direct) {
                writeln!(
                    text,
                    "kind = \"lane\"\nmaxmsg = {}\nmsgsize = {msgsize}",
                    self.slots
                )
            } else {
                let queue = self.queue(instance, end);
                writeln!(
                    text,
                    "kind = \"mqueue\"\nqueue = \"{queue}\"\nmaxmsg = {depth}\nmsgsize = {msgsize}"
                )
            };
        }
        let more = match path {
            RoutePath::SignalSignal => "accept_claimed = true",
            RoutePath::Direct => "path = \"direct\"",
            _ => "",
        };
        let _ = writeln!(
            text,
            "[[route]]\nfrom = \"{tx}.msg\"\nto = [\"{rx}.msg\"]\nlane = \"lane\"\n{more}"
        );
        for name in (1..self.rings).map(|n| self.source(n)) {
            let _ = writeln!(
                text,
                "[[endpoint]]\nname = \"{name}\"\nowner = \"{tx}\"\nkind = \"lane\"\nmaxmsg = {}\n\
                 msgsize = {payload_bytes}\n[[route]]\nfrom = \"{name}\"\nto = [\"{rx}.msg\"]\nlane = \"lane\"",
                self.slots
            );
        }
        text
    }

    /// The path through the running daemon.
    pub fn mechanism(&self, daemon: &OwnDaemon) -> anyhow::Result<Route> {
        let queue = |end| self.queue(daemon.instance(), end);
        let (tx, rx) = (self.name("tx"), self.name("rx"));
        let (sent, received) = (format!("{tx}.msg"), format!("{rx}.msg"));
        let pid = i32::try_from(daemon.pid())?;
        let input = match self.path {
            RoutePath::MqMq | RoutePath::MqSignal => In::Queue(queue("tx")),
            RoutePath::SignalSignal => In::Signal {
                process: tx,
                daemon: DaemonPid::fixed(pid)?,
                signo: self.signals[0],
            },
            RoutePath::Lane | RoutePath::Direct => In::Lane {
                process: tx,
                endpoint: sent,
            },
        };
        let output = match self.path {
            RoutePath::MqMq => Out::Queue(queue("rx")),
            RoutePath::MqSignal | RoutePath::SignalSignal => Out::Signal {
                process: rx,
                signo: self.signals[1],
            },
            RoutePath::Lane | RoutePath::Direct => Out::Lane {
                process: rx,
                endpoint: received,
            },
        };
        let name = format!("route {}", self.path.title());
        Route::new(
            name,
            self.payload_bytes,
            input,
            output,
            daemon.socket().clone(),
        )
    }
}

/// The lane of that daemon.
#[derive(clap::Args, Clone, Debug)]
pub struct LaneArgs {
    /// SCHED_FIFO priority of the daemon's lane
    #[arg(long, value_name = "PRIO", default_value_t = 80, value_parser = clap::value_parser!(u8).range(1..=98))]
    pub lane_priority: u8,
    /// CPU of the daemon's lane [default: that of the first sender, or the last one allowed]
    #[arg(long, value_name = "CPU")]
    pub lane_cpu: Option<usize>,
    /// How the daemon's lane waits for messages: block, spin:US or poll
    #[arg(long, value_name = "WAIT", default_value = "block")]
    pub lane_wait: String,
}

/// Messages that a queue of it holds: as many as an ordinary user may have.
pub fn depth() -> u64 {
    rtcore::sys::limits::mq_sysctl(rtcore::sys::limits::MqSysctl::MsgMax)
        .unwrap_or(10)
        .clamp(1, 10)
}

/// The whole configuration.
pub fn config(
    instance: &str,
    socket: &std::path::Path,
    lane: &LaneArgs,
    cpu: usize,
    routes: &[OwnRoute],
) -> String {
    let LaneArgs {
        lane_priority,
        lane_wait,
        ..
    } = lane;
    let unisolated = if lane_wait == "block" {
        ""
    } else {
        "unisolated = true\n"
    };
    let mut text = format!(
        "[daemon]\nname = \"{instance}\"\nsocket = \"{}\"\nkeep_queues = false\n\
         [[lane]]\nname = \"lane\"\npriority = {lane_priority}\ncpu = {cpu}\nwait = \"{lane_wait}\"\n{unisolated}",
        socket.display()
    );
    routes
        .iter()
        .for_each(|route| text += &route.toml(instance, depth()));
    text
}
