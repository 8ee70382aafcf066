//! `rtlat` over the raw mechanisms: between threads and between processes, one way, there and back,
//! asked for, in several pairs. All messages arrive, all counts add up, nothing is left. The
//! measuring threads touch no heap: `util::tool` has the guard allocator end a process in which one
//! does.

use crate::util::lat::{Counts, lossless, measure, start};
use crate::util::needs::ROOT;
use crate::util::tool::{rtlat, run};
use crate::util::{Instance, first_cpu};
use anyhow::{Context as _, ensure};
use nix::sys::signal::Signal;
use rtcore::sys::cpus;
use std::sync::LazyLock;

tests![
    between_threads,
    between_processes,
    there_and_back_between_threads,
    there_and_back_between_processes,
    asked_for_between_threads,
    asked_for_between_processes,
    two_pairs_of_threads,
    two_pairs_of_processes_there_and_back,
    a_pair_on_every_cpu,
    a_pair_of_processes_on_every_cpu,
    on_any_cpu_the_counts_add_up,
    back_to_back,
    real_time_threads_run_on_the_requested_cpu_and_priority needs(ROOT),
    timers_of_every_number,
    ended_by_sigint_they_show_what_they_have,
    killed_they_leave_nothing,
    a_killed_sender_is_reported,
];

/// Names of the mechanisms: what `compare` takes and is a command of its own.
static MECHANISMS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let help = run(rtlat(&["--help"])).expect("rtlat --help").out;
    let refusal = run(rtlat(&["compare", "--only", "nothing"]))
        .expect("an unknown name")
        .err;
    let is_command = |name: &&str| {
        help.lines()
            .any(|line| line.starts_with(&format!("  {name} ")))
    };
    let names = refusal
        .split("there are ")
        .nth(1)
        .unwrap_or_default()
        .trim()
        .split(", ");
    let names: Vec<String> = names.filter(is_command).map(str::to_owned).collect();
    assert!(names.len() >= 9, "{names:?} of {refusal}");
    names
});

const LOOPS: u64 = 40;
/// Every half millisecond.
const SCHEDULE: [&str; 7] = ["-q", "-i", "500", "-d", "0", "-l", "40"];

/// Every mechanism with these further arguments.
fn every(pairs: usize, more: &[&str]) -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let cpu = first_cpu().to_string();
    let lossless = lossless("30", &cpu);
    for kind in &*MECHANISMS {
        let args = [&[kind.as_str()], &SCHEDULE[..], &lossless, more].concat();
        let measured = measure(&instance, &args)?;
        measured
            .ensure_whole(pairs, LOOPS)
            .with_context(|| format!("{args:?}"))?;
        for pair in measured.pairs() {
            ensure!(pair["name"] == kind.as_str(), "{pair}");
            ensure!(
                pair["round_trip"].as_bool() == Some(more.contains(&"--round-trip")),
                "{pair}"
            );
        }
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

fn asked_for_between_threads() -> anyhow::Result<()> {
    every(1, &["--sync"])
}

fn asked_for_between_processes() -> anyhow::Result<()> {
    every(1, &["-f", "--sync"])
}

fn two_pairs_of_threads() -> anyhow::Result<()> {
    every(2, &["-t", "2"])
}

fn two_pairs_of_processes_there_and_back() -> anyhow::Result<()> {
    every(2, &["-t", "2", "-f", "--round-trip"])
}

fn a_pair_on_every_cpu() -> anyhow::Result<()> {
    every(cpus::allowed()?.len(), &["-S"])
}

fn a_pair_of_processes_on_every_cpu() -> anyhow::Result<()> {
    every(cpus::allowed()?.len(), &["-S", "-f"])
}

/// A receiver that another program keeps from its CPU may lose some there.
fn on_any_cpu_the_counts_add_up() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    for kind in &*MECHANISMS {
        for more in [&[][..], &["-f"]] {
            let args = [&[kind.as_str(), "-q", "-i", "100", "-l", "200"], more].concat();
            let measured = measure(&instance, &args)?;
            let counts = Counts::of(measured.pairs()[0])?;
            ensure!(
                counts.balances() && counts.scheduled == 200 && counts.received > 0,
                "{args:?}: {counts:?}"
            );
        }
    }
    Ok(())
}

fn back_to_back() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    for kind in &*MECHANISMS {
        for more in [&[][..], &["-f"], &["--round-trip"]] {
            let args = [&[kind.as_str(), "-q", "-i", "0", "-l", "40"], more].concat();
            let measured = measure(&instance, &args)?;
            measured
                .ensure_whole(1, LOOPS)
                .with_context(|| format!("{args:?}"))?;
            let counts = Counts::of(measured.pairs()[0])?;
            ensure!(
                counts.missed == 0,
                "there is no schedule to miss: {counts:?}"
            );
        }
    }
    Ok(())
}

fn real_time_threads_run_on_the_requested_cpu_and_priority() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let cpu = cpus::allowed()?.into_iter().max().context("no CPU")?;
    let at = cpu.to_string();
    for kind in &*MECHANISMS {
        for more in [&[][..], &["-f"], &["-f", "--round-trip"]] {
            let args = [
                &[kind.as_str()],
                &SCHEDULE[..],
                &["-p", "30", "-m", "-a", &at],
                more,
            ]
            .concat();
            let measured = measure(&instance, &args)?;
            measured
                .ensure_whole(1, LOOPS)
                .with_context(|| format!("{args:?}"))?;
            let pair = measured.pairs()[0];
            for party in ["sender", "receiver"] {
                ensure!(
                    pair[party]["cpu"] == cpu && pair[party]["is_pinned"] == true,
                    "{args:?}: {pair}"
                );
                ensure!(
                    pair[party]["priority"]
                        .as_u64()
                        .is_some_and(|p| p == 30 || p == 29),
                    "{pair}"
                );
            }
        }
    }
    Ok(())
}

fn timers_of_every_number() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    for (more, threads) in [
        (&[][..], 1),
        (&["-t", "3"], 3),
        (&["-S"], cpus::allowed()?.len()),
    ] {
        let args = [&["timer"], &SCHEDULE[..], more].concat();
        let measured = measure(&instance, &args)?;
        measured
            .ensure_whole(threads, LOOPS)
            .with_context(|| format!("{args:?}"))?;
        for timer in measured.pairs() {
            ensure!(
                timer["cycles"] == timer["counts"]["received"] && timer["name"] == "timer",
                "{timer}"
            );
        }
    }
    Ok(())
}

/// What was measured until then is shown, and nothing is left.
fn ended_by_sigint_they_show_what_they_have() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let cpu = first_cpu().to_string();
    let lossless = lossless("30", &cpu);
    for name in MECHANISMS.iter().map(String::as_str).chain(["timer"]) {
        for more in [&[][..], &["-f", "--round-trip"]] {
            if name == "timer" && !more.is_empty() {
                continue;
            }
            let args = [&[name, "-v", "-i", "1000"][..], &lossless, more].concat();
            let (tool, traces) = start(&instance, &args)?;
            tool.signal(Signal::SIGINT)?;
            let out = tool.end()?.well().with_context(|| format!("{args:?}"))?;
            traces.ensure_gone().with_context(|| format!("{args:?}"))?;
            let counts = Counts::read(&out)?;
            ensure!(
                counts.len() == 1 && counts[0].balances() && counts[0].received > 0,
                "{args:?}: {out}"
            );
            ensure!(
                counts[0].is_whole(),
                "{args:?}: what was under way is not lost: {counts:?}"
            );
        }
    }
    Ok(())
}

fn killed_they_leave_nothing() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    // A System V queue cannot be removed while it is used (msgctl(2)): that of a killed process
    // stays.
    for kind in MECHANISMS.iter().filter(|kind| *kind != "sysv") {
        let args = [kind.as_str(), "-v", "-f", "-i", "1000"];
        let (tool, traces) = start(&instance, &args)?;
        ensure!(traces.children.len() == 1, "{args:?}: {traces:?}");
        tool.signal(Signal::SIGKILL)?;
        ensure!(tool.end()?.signal() == Some(9));
        traces.ensure_gone().with_context(|| format!("{args:?}"))?;
    }
    Ok(())
}

fn a_killed_sender_is_reported() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let (tool, traces) = start(&instance, &["mq", "-v", "-f", "-i", "1000"])?;
    traces.signal(0, Signal::SIGKILL)?;
    tool.end()?.refused(&["mq: its second process ended"])?;
    traces.ensure_gone()
}
