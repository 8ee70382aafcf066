//! Notices of the watchdog: notices for the log, and lines that are prepared before they are
//! needed.

use crate::log;
use crate::plan::watch::OnRunaway;
use crate::plan::{LanePlan, Plan};
use crate::words::{LIST_THREADS, counted, show_time};

/// Why a lane thread is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It is runnable and does not get its CPU.
    Starved,
    /// It does not finish one message.
    Dispatch,
    /// It used more than its budget.
    Duty,
    /// It ran without waiting for as long as RLIMIT_RTTIME allows.
    Time,
    /// The skin's own watchdog reported it.
    Core,
}

impl Cause {
    const ALL: [Cause; 5] = [
        Cause::Starved,
        Cause::Dispatch,
        Cause::Duty,
        Cause::Time,
        Cause::Core,
    ];
}

/// A lane thread and its fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Runaway {
    /// Index of the thread.
    pub worker: u32,
    pub cause: Cause,
}

impl Runaway {
    /// Encodes it as one word that is not 0.
    pub fn encode(self) -> u64 {
        u64::from(self.worker) << 8 | (self.cause as u64 + 1)
    }

    /// The inverse; none for 0.
    pub fn decode(word: u64) -> Option<Runaway> {
        let cause = usize::try_from((word & 0xff).checked_sub(1)?).ok()?;
        Some(Runaway {
            worker: u32::try_from(word >> 8).ok()?,
            cause: *Cause::ALL.get(cause)?,
        })
    }
}

/// A notice for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Index of the lane thread.
    pub worker: u32,
    /// Number of times so far.
    pub times: u64,
    pub what: What,
}

/// The kinds of notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The thread is at fault.
    Ran {
        cause: Cause,
        /// Nanoseconds; thousandths of a budget.
        amount: u64,
        /// Whether it lost its priority.
        demoted: bool,
    },
    /// It makes progress again.
    Moves {
        /// After this time.
        ns: u64,
    },
    /// It is within its budget again.
    Within {
        /// Thousandths of its CPU that it used in the last window.
        permille: u64,
    },
}

/// A lane thread's name for display.
pub fn label(lane: &str, thread: &str, tid: i32) -> String {
    format!("lane {lane}: thread {thread} (tid {tid})")
}

/// The meaning of a cause for a lane, with its limit and the key that sets it.
fn explain(plan: &Plan, lane: &LanePlan, cause: Cause) -> String {
    let stall = show_time(lane.watch.stall_ns);
    match cause {
        Cause::Starved => format!(
            "waits for CPU {} at priority {} for longer than its stall = \"{stall}\" allows: a thread of higher priority keeps that CPU, or a debugger holds the thread ({LIST_THREADS})",
            lane.cpu, lane.priority
        ),
        Cause::Dispatch => {
            format!("has one message in hand for longer than its stall = \"{stall}\" allows")
        }
        Cause::Duty => format!(
            "used more than its duty = \"{}%\" in a window of {}: it gets too many messages (rate_hz in [[route]] limits the messages that are read from a lane endpoint; messages of a queue or signal above the rate cost the lane a rejection each: let its senders send less)",
            lane.watch.duty_permille.unwrap_or(1000) / 10,
            show_time(plan.daemon.watch.window_ns)
        ),
        Cause::Time => format!(
            "ran for rttime = \"{}\" without waiting (SIGXCPU)",
            plan.daemon
                .watch
                .rttime
                .as_ref()
                .map_or_else(|_| "off".to_owned(), |ns| show_time(*ns))
        ),
        Cause::Core => format!(
            "ran without waiting once until the watchdog of the {} core reported it: Linux did not run on CPU {} meanwhile \
             (seconds: /sys/module/xenomai/parameters/watchdog_timeout)",
            plan.daemon.skin.kind.name(),
            lane.cpu
        ),
    }
}

/// A notice as one line of the log; `label` names the thread, in this lane.
pub fn log(plan: &Plan, lane: &LanePlan, label: &str, notice: &Notice) {
    let times = notice.times;
    match notice.what {
        What::Ran {
            cause,
            amount,
            demoted,
        } => {
            let seen = match cause {
                Cause::Starved | Cause::Dispatch => {
                    format!("; {} by now", show_time(amount / 1_000_000 * 1_000_000))
                }
                Cause::Duty => format!("; {}.{}%", amount / 10, amount % 10),
                Cause::Time | Cause::Core => String::new(),
            };
            let done = if demoted {
                "; it has no real-time priority until rtd is restarted (on_runaway)"
            } else {
                ""
            };
            log::warning(format_args!(
                "{label} {}{seen}, {}{done}",
                explain(plan, lane, cause),
                counted(times, "time")
            ));
        }
        What::Moves { ns } => {
            log::info(format_args!(
                "{label} moves again after {}",
                show_time(ns / 1_000_000 * 1_000_000)
            ));
        }
        What::Within { permille } => log::info(format_args!(
            "{label} is within its duty again: {}.{}%",
            permille / 10,
            permille % 10
        )),
    }
}

/// Why the daemon ends.
pub fn verdict(plan: &Plan, lane: &LanePlan, label: &str, cause: Cause) -> String {
    format!(
        "{label} {}; on_runaway = \"stop\" in [daemon]",
        explain(plan, lane, cause)
    )
}

/// Written if the daemon should end and did not.
pub const FORCED: &[u8] =
    b"rtd: error: watchdog: the daemon did not end in time: it is killed, and messages queued in it are lost\n";

/// The prepared lines about one lane thread.
#[derive(Debug)]
pub struct Lines([Box<[u8]>; Cause::ALL.len()]);

impl Lines {
    /// Makes the lines, before the seal.
    pub fn new(plan: &Plan, lane: &LanePlan, label: &str) -> Lines {
        let end = match plan.daemon.watch.on_runaway {
            OnRunaway::Report => "",
            OnRunaway::Demote => "; on_runaway = \"demote\"",
            OnRunaway::Stop => "; on_runaway = \"stop\"",
        };
        let line = |cause| {
            format!(
                "rtd: error: watchdog: {label} {}{end}\n",
                explain(plan, lane, cause)
            )
        };
        Lines(Cause::ALL.map(|cause| line(cause).into_bytes().into_boxed_slice()))
    }

    /// The line for a cause.
    pub fn of(&self, cause: Cause) -> &[u8] {
        &self.0[cause as usize]
    }
}
