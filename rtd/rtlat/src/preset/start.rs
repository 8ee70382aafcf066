//! The start of a daemon with a small deployment's configuration: time to READY, and resident
//! memory.

use super::setup::Effort;
use super::table::{Aim, Findings, Line};
use crate::run::Conditions;
use anyhow::Context as _;
use rtcore::sys::procfs;
use rtd::daemon::own::{self, OwnDaemon};
use std::time::Instant;

/// Starts, at most.
const STARTS: u64 = 20;
const DEMO_ARM: &str = include_str!("../../../../configs/demo-arm.toml");

/// Resident memory in KiB and threads of a process, from /proc/PID/status.
pub fn resident(pid: u32) -> anyhow::Result<(u32, u32)> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let number =
        |key: &str| procfs::number(&status, key).with_context(|| format!("no number {key} in it"));
    Ok((number("VmRSS")?, number("Threads")?))
}

/// Starts it again and again.
pub fn start(effort: &Effort, conditions: &mut Conditions) -> anyhow::Result<Findings> {
    let (instance, socket) = own::names("rtlat");
    let head = format!(
        "[daemon]\nname = \"{instance}\"\nsocket = \"{}\"\nkeep_queues = false\n",
        socket.display()
    );
    let text = DEMO_ARM
        .replace("[daemon]\nname = \"demo-arm\"\n", &head)
        .replace("cpu = 0", &format!("cpu = {}", effort.cpu));
    let mut times_ms = Vec::new();
    let (mut kib, mut threads) = (0, 0);
    for _ in 0..effort.turns.min(STARTS) {
        if conditions.is_stopped() {
            break;
        }
        let begun = Instant::now();
        let daemon = OwnDaemon::start(&text, &instance, socket.clone(), Vec::new())?;
        times_ms.push(begun.elapsed().as_secs_f64() * 1e3);
        (kib, threads) = resident(daemon.pid())?;
        daemon.stop()?;
    }
    times_ms.sort_by(f64::total_cmp);
    let at = |n: usize| times_ms.get(n).copied().unwrap_or(f64::NAN);
    let (median, worst) = (at(times_ms.len() / 2), at(times_ms.len().saturating_sub(1)));
    let lines = vec![
        Line {
            text: format!("start to READY: median {median:.1} ms, worst {worst:.1} ms"),
            value: median,
            aim: Some(Aim::Value(50.0)),
        },
        Line {
            text: format!("resident: {kib} KiB in {threads} threads, all of it locked"),
            value: f64::from(kib),
            aim: None,
        },
    ];
    let caption = "start with configs/demo-arm.toml".to_owned();
    Ok(Findings {
        caption,
        lines,
        ..Findings::default()
    })
}
