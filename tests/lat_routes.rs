//! `rtlat route WAY`: a daemon of its own, every way through it, and nothing of it left afterwards.

use crate::util::lat::{Counts, lossless, measure, start};
use crate::util::{Instance, first_cpu};
use anyhow::{Context as _, ensure};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

tests![
    between_threads,
    between_processes,
    there_and_back_between_threads,
    there_and_back_between_processes,
    asked_for_between_processes,
    two_pairs_through_one_daemon,
    a_lane_that_spins,
    ended_by_sigint_they_show_what_they_have,
    killed_they_leave_nothing,
];

const WAYS: [(&str, &str); 5] = [
    ("mq-mq", "route mq -> mq"),
    ("mq-signal", "route mq -> signal"),
    ("signal-signal", "route signal -> signal"),
    ("lane", "route lane routed"),
    ("direct", "route lane direct"),
];
const LOOPS: u64 = 40;

/// Every way with these further arguments.
fn every(pairs: usize, more: &[&str]) -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let cpu = first_cpu().to_string();
    let lossless = lossless("70", &cpu);
    for (way, name) in WAYS {
        let args = [
            &["route", way, "-q", "-d", "0", "-l", "40"][..],
            &lossless,
            more,
        ]
        .concat();
        let measured = measure(&instance, &args)?;
        measured
            .ensure_whole(pairs, LOOPS)
            .with_context(|| format!("{args:?}"))?;
        ensure!(
            measured.pairs().iter().all(|pair| pair["name"] == name),
            "{}",
            measured.json
        );
    }
    Ok(())
}

fn between_threads() -> anyhow::Result<()> {
    every(1, &[])
}

fn between_processes() -> anyhow::Result<()> {
    every(1, &["-f"])
}

fn there_and_back_between_threads() -> anyhow::Result<()> {
    every(1, &["--round-trip"])
}

fn there_and_back_between_processes() -> anyhow::Result<()> {
    every(1, &["-f", "--round-trip"])
}

fn asked_for_between_processes() -> anyhow::Result<()> {
    every(1, &["-f", "--sync"])
}

fn two_pairs_through_one_daemon() -> anyhow::Result<()> {
    every(2, &["-t", "2"])
}

fn a_lane_that_spins() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let measured = measure(
        &instance,
        &[
            "route",
            "lane",
            "-q",
            "-l",
            "40",
            "--lane-wait",
            "spin:50",
            "--lane-priority",
            "81",
        ],
    )?;
    measured.ensure_whole(1, LOOPS)
}

/// What a terminal does on ^C: the whole process group gets the signal.
fn ended_by_sigint_they_show_what_they_have() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let cpu = first_cpu().to_string();
    let lossless = lossless("70", &cpu);
    for (way, _) in WAYS {
        for more in [&[][..], &["-f", "--round-trip"]] {
            let args = [&["route", way, "-v"][..], &lossless, more].concat();
            let (tool, traces) = start(&instance, &args)?;
            killpg(Pid::from_raw(i32::try_from(tool.pid())?), Signal::SIGINT)?;
            let out = tool.end()?.well().with_context(|| format!("{args:?}"))?;
            traces.ensure_gone().with_context(|| format!("{args:?}"))?;
            let counts = Counts::read(&out)?;
            ensure!(
                counts.len() == 1 && counts[0].balances() && counts[0].received > 0,
                "{args:?}: {out}"
            );
            ensure!(counts[0].is_whole(), "{args:?}: {counts:?}");
        }
    }
    Ok(())
}

fn killed_they_leave_nothing() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    for (way, _) in WAYS {
        let (tool, traces) = start(&instance, &["route", way, "-v", "-f"])?;
        ensure!(
            traces.children.len() == 2,
            "a daemon and a sender: {traces:?}"
        );
        tool.signal(Signal::SIGKILL)?;
        ensure!(tool.end()?.signal() == Some(9));
        traces.ensure_gone().context(way)?;
    }
    Ok(())
}
