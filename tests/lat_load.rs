//! `rtlat --load`: workers run while something is measured, and not a moment longer.

use crate::util::eventually;
use crate::util::tool::{Tool, rtlat, run};
use anyhow::{Context as _, ensure};
use nix::sys::signal::Signal;
use rtcore::sys::pidfd::PidFd;
use std::process::Command;

tests![
    the_load_is_reported,
    workers_end_with_the_measurement_whatever_ends_it,
    a_worker_that_dies_makes_the_run_fail,
    a_load_that_cannot_be_is_refused,
];

/// A measurement without privileges that goes on until it is ended, and prints each sample.
const ENDLESS: [&str; 5] = ["timer", "-v", "-i", "10000", "--load"];

fn measure(more: &[&str]) -> Command {
    rtlat(&[&["timer", "-q", "-i", "1000", "-l", "100"], more].concat())
}

/// The workers of a measurement.
fn workers(parent: u32) -> Vec<i32> {
    let parent = format!("--parent\0{parent}\0");
    let is_worker = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&parent)
    };
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(is_worker)
        .collect()
}

/// A measurement that runs, with its workers.
fn endless(load: &str, count: usize) -> anyhow::Result<(Tool, Vec<PidFd>)> {
    let tool = Tool::start(rtlat(&[&ENDLESS[..], &[load]].concat()))?;
    tool.line().context("it does not measure")?;
    let pids = workers(tool.pid());
    ensure!(pids.len() == count, "{load} has the workers {pids:?}");
    let open = pids
        .into_iter()
        .map(PidFd::open)
        .collect::<std::io::Result<_>>()?;
    Ok((tool, open))
}

fn all_end(workers: &[PidFd]) -> anyhow::Result<()> {
    eventually(|| (!workers.iter().any(PidFd::is_alive)).then_some(())).context("a worker is left")
}

fn the_load_is_reported() -> anyhow::Result<()> {
    let said = run(measure(&["--load", "own:cpu:1,own:syscall:2"]))?;
    let text = format!("{}{}", said.out, said.err);
    said.well()?;
    for part in ["cpu:1 (own, ", "syscall:2 (own, ", "SCHED_OTHER"] {
        ensure!(text.contains(part), "does not say {part:?}: {text}");
    }
    Ok(())
}

fn workers_end_with_the_measurement_whatever_ends_it() -> anyhow::Result<()> {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGKILL] {
        let (tool, workers) = endless("own:cpu:1,own:memory:1,own:ipc:1", 3)?;
        tool.signal(signal)?;
        tool.end()?;
        all_end(&workers).with_context(|| format!("after {signal}"))?;
    }
    Ok(())
}

fn a_worker_that_dies_makes_the_run_fail() -> anyhow::Result<()> {
    let (tool, open) = endless("own:cpu:2", 2)?;
    let victim = workers(tool.pid()).first().copied().context("no worker")?;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(victim), Signal::SIGKILL)?;
    // It has to get the CPU once more for its end.
    eventually(|| open.iter().any(|worker| !worker.is_alive()).then_some(()))?;
    tool.signal(Signal::SIGINT)?;
    let said = tool.end()?;
    ensure!(!said.status.success(), "{said:?}");
    ensure!(
        said.err.contains("load worker `cpu`") && said.err.contains("lower than requested"),
        "{}",
        said.err
    );
    Ok(())
}

fn a_load_that_cannot_be_is_refused() -> anyhow::Result<()> {
    for (load, says) in [
        ("disk", "no kind `disk`"),
        ("cpu:0", "1 to 64"),
        ("cpu:40,ipc:40", "at most 64 are possible"),
    ] {
        let said = run(measure(&["--load", load]))?;
        ensure!(
            !said.status.success() && said.err.contains(says),
            "{load}: {said:?}"
        );
    }
    Ok(())
}
