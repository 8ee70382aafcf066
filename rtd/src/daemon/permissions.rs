//! The permissions that the kernel did not grant, and the lines that grant them.

use super::{Waiting, unisolated_bit, watchdog};
use crate::config::machine::own_program;
use crate::plan::Plan;
use rtcore::stats::degraded;
use rtcore::sys::ids::Account;
use rtcore::sys::permission_hints::PermissionHint;
use std::fmt::Write as _;
use std::io;

/// One permission that was requested and refused.
#[derive(Debug)]
pub struct Missing {
    what: String,
    why: String,
    fix: PermissionHint,
}

/// All refused permissions.
pub(super) fn missing(
    plan: &Plan,
    waiting: &[Waiting],
    watchdog: &watchdog::Granted,
    locked: &Result<(), String>,
) -> Vec<Missing> {
    let mut all = Vec::new();
    for (id, lane) in plan.lanes.iter().enumerate() {
        let of_lane = || waiting.iter().filter(|w| w.lane == id);
        let mut add = |what: String, refused: Vec<(&str, &String)>, hint| {
            // The threads of a lane request the same permissions, and are refused for the same
            // reason.
            if let Some((_, why)) = refused.first() {
                let names: Vec<&str> = refused.iter().map(|(name, _)| *name).collect();
                let threads = if names.len() == 1 {
                    "thread"
                } else {
                    "threads"
                };
                let what = format!(
                    "{what} for lane {} ({threads} {})",
                    lane.name,
                    names.join(", ")
                );
                all.push(Missing {
                    what,
                    why: (*why).clone(),
                    fix: hint,
                });
            }
        };
        let fifo = of_lane()
            .filter_map(|w| Some((w.thread.name.as_str(), w.granted.fifo.as_ref().err()?)));
        add(
            format!("SCHED_FIFO {}", lane.priority),
            fifo.collect(),
            PermissionHint::Fifo,
        );
        let pinned = of_lane()
            .filter_map(|w| Some((w.thread.name.as_str(), w.granted.pinned.as_ref().err()?)));
        add(
            format!("CPU {}", lane.cpu),
            pinned.collect(),
            PermissionHint::Pinning,
        );
        let confined = of_lane()
            .filter_map(|w| Some((w.thread.name.as_str(), w.granted.confined.as_ref().err()?)));
        add(
            "a filter of system calls".to_owned(),
            confined.collect(),
            PermissionHint::Filter,
        );
    }
    if let Err(why) = &watchdog.fifo {
        let what = format!(
            "SCHED_FIFO {} for the watchdog above all lanes",
            plan.watchdog_priority()
        );
        all.push(Missing {
            what,
            why: why.clone(),
            fix: PermissionHint::Fifo,
        });
    }
    if let Err(why) = &watchdog.pinned {
        all.push(Missing {
            what: "a CPU for the watchdog".into(),
            why: why.clone(),
            fix: PermissionHint::Pinning,
        });
    }
    if let Err(why) = locked {
        all.push(Missing {
            what: "locked memory (mlockall)".into(),
            why: why.clone(),
            fix: PermissionHint::Memory,
        });
    }
    all
}

/// Why rtd cannot become the configured user, and the fix.
pub(super) fn cannot_become(account: Account, why: &io::Error) -> anyhow::Error {
    let Account { uid, gid } = account;
    anyhow::anyhow!(
        "cannot become uid {uid} gid {gid}, which [daemon] user and group name: {why}\n\
         \x20 this requires CAP_SETUID and CAP_SETGID: start rtd as root, or as that user, with one of\n\
         \x20 the systemd unit:  User={uid} and Group={gid}\n\
         \x20 a shell of root:   setpriv --reuid {uid} --regid {gid} --clear-groups rtd run FILE"
    )
}

/// Degraded bits per lane of the plan.
pub(super) fn degraded_bits(
    plan: &Plan,
    waiting: &[Waiting],
    watchdog: &watchdog::Granted,
    locked: &Result<(), String>,
) -> Vec<u32> {
    let memory = if locked.is_err() { degraded::MEMORY } else { 0 };
    let mut bits: Vec<u32> = plan
        .lanes
        .iter()
        .map(|l| memory | unisolated_bit(l.unisolated))
        .collect();
    for w in waiting {
        bits[w.lane] |= if w.granted.fifo.is_err() {
            degraded::FIFO
        } else {
            0
        };
        bits[w.lane] |= if w.granted.pinned.is_err() {
            degraded::PINNING
        } else {
            0
        };
        bits[w.lane] |= if w.granted.confined.is_err() {
            degraded::UNCONFINED
        } else {
            0
        };
        // Above a lane without its priority this does not matter.
        let below = watchdog.fifo.is_err() && w.granted.fifo.is_ok();
        bits[w.lane] |= if below { degraded::WATCHDOG } else { 0 };
    }
    bits
}

/// The text of a refused start; `needed_by` is the skin whose calls need a thread's priority.
pub(super) fn refusal(missing: &[Missing], needed_by: Option<&str>) -> String {
    let mut text = String::from("real-time permissions are missing:\n");
    list(&mut text, missing);
    for fix in [
        PermissionHint::Fifo,
        PermissionHint::Pinning,
        PermissionHint::Memory,
        PermissionHint::Filter,
    ] {
        if missing.iter().any(|m| m.fix == fix) {
            text.push_str(&fix.fix(&own_program()));
        }
    }
    text.push_str(&match needed_by {
        None => "  or run without: rtd run --allow-degraded (every tool then shows it)".to_owned(),
        Some(skin) => format!(
            "  the skin `{skin}` cannot run threads without their priority; or run on the other: \
             rtd run --skin \
             posix --allow-degraded"
        ),
    });
    text
}

/// The warning of a degraded start, as lines.
pub(super) fn degraded_notice(missing: &[Missing]) -> Vec<String> {
    let mut text = String::from("DEGRADED: latency is not bounded or not watched; not granted:\n");
    list(&mut text, missing);
    text.lines().map(str::to_owned).collect()
}

/// Limit of the names in a line; in a plan of many lanes each of them fails in the same way.
const SHOWN_MAX: usize = 8;

/// Adds a line for all refusals with one reason.
fn list(text: &mut String, missing: &[Missing]) {
    for fix in [
        PermissionHint::Fifo,
        PermissionHint::Pinning,
        PermissionHint::Memory,
        PermissionHint::Filter,
    ] {
        let mut rest: Vec<&Missing> = missing.iter().filter(|m| m.fix == fix).collect();
        while let Some(first) = rest.first().copied() {
            let same: Vec<&str> = rest
                .iter()
                .filter(|m| m.why == first.why)
                .map(|m| m.what.as_str())
                .collect();
            let more = same.len().saturating_sub(SHOWN_MAX);
            let more = if more == 0 {
                String::new()
            } else {
                format!(", and {more} more like these")
            };
            let shown = same
                .iter()
                .take(SHOWN_MAX)
                .copied()
                .collect::<Vec<_>>()
                .join(", ");
            // Writing to a String cannot fail.
            let _ = writeln!(text, "  {shown}{more}: {}", first.why);
            rest.retain(|m| m.why != first.why);
        }
    }
}
