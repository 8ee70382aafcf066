//! `rtlat interference`: a lane beside what goes on in a machine, and nothing left of it.

use crate::util::lat::{Traces, lat};
use crate::util::tool::{Tool, run};
use crate::util::{Instance, eventually};
use anyhow::{Context as _, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rtcore::sys::pidfd::PidFd;
use rtcore::sys::poll::{self, Interest};
use serde_json::Value;
use std::os::fd::{AsFd as _, AsRawFd as _};

tests![
    every_condition_holds_and_has_its_ratio_to_alone,
    ended_half_way_it_stops_everything_it_started,
    an_incarnation_that_waits_for_a_hung_daemon_is_not_left_behind,
    what_cannot_be_is_refused,
];

const SMALL: [&str; 6] = ["interference", "--turns", "2", "-l", "40", "-q"];
/// As they stand in the table, and what is counted of them.
const CONDITIONS: [(&str, Option<&str>); 6] = [
    ("alone", None),
    ("telemetry lane saturated", Some("/s messages")),
    ("memory and system calls", None),
    ("a client stopped", Some("/s messages to it")),
    ("a client that ends again and again", Some("/s deaths")),
    ("watched", Some("/s reads")),
];

fn every_condition_holds_and_has_its_ratio_to_alone() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let json = instance.file("i.json").display().to_string();
    let tool = Tool::start(lat(&instance, &[&SMALL[..], &["--json", &json]].concat())?)?;
    let pid = tool.pid();
    let out = tool.end_of_work()?.well()?;
    std::fs::copy(&json, instance.file("kept"))?;
    std::fs::remove_file(&json)?;
    for path in ["mq -> mq", "lane routed"] {
        for (condition, unit) in CONDITIONS {
            let start = |line: &&str| line.starts_with(path) && line.contains(condition);
            let line = out
                .lines()
                .find(start)
                .with_context(|| format!("{path}, {condition}: {out}"))?;
            let figures = line.split(condition).nth(1).unwrap_or_default();
            let words: Vec<f64> = figures
                .split_whitespace()
                .map_while(|word| word.parse().ok())
                .collect();
            let [
                p50,
                of_p50,
                p99,
                of_p99,
                p999,
                of_p999,
                max,
                of_max,
                _lost,
                _missed,
            ] = words[..]
            else {
                anyhow::bail!("{line}")
            };
            ensure!(
                0.0 < p50 && p50 <= p99 && p99 <= p999 && p999 <= max,
                "{line}"
            );
            let ratios = [of_p50, of_p99, of_p999, of_max];
            ensure!(ratios.iter().all(|ratio| *ratio > 0.0), "{line}");
            ensure!(condition != "alone" || ratios == [1.0; 4], "{line}");
            match unit {
                Some(unit) => ensure!(line.ends_with(unit) && !line.contains(" 0/s"), "{line}"),
                None => ensure!(!line.contains("/s "), "{line}"),
            }
        }
    }
    let json: Value = serde_json::from_slice(&std::fs::read(instance.file("kept"))?)?;
    std::fs::remove_file(instance.file("kept"))?;
    let rows = json["rows"].as_array().context("no rows")?;
    ensure!(rows.len() == 2 * CONDITIONS.len(), "{json}");
    for row in rows {
        let count = |key: &str| {
            row[key]
                .as_u64()
                .with_context(|| format!("no {key} in {row}"))
        };
        ensure!(
            count("sent")? == count("received")? + count("lost")? && count("p50_ns")? > 0,
            "{row}"
        );
        ensure!(count("sent")? + count("missed")? == 80, "{row}");
        ensure!(
            row["times_alone"]["p99"]
                .as_f64()
                .is_some_and(|ratio| ratio > 0.0),
            "{row}"
        );
    }
    Traces::of(pid, &instance).ensure_gone()
}

fn ended_half_way_it_stops_everything_it_started() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let args = [
        "interference",
        "--turns",
        "1000",
        "-l",
        "400",
        "-q",
        "--only",
        "stopped,dying",
    ];
    let tool = Tool::start(lat(&instance, &args)?)?;
    let pid = tool.pid();
    // One of them is stopped, another starts children: those are the ones that could stay.
    let children = || -> Option<Vec<i32>> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        text.split_whitespace()
            .map(|word| word.parse().ok())
            .collect()
    };
    let is_stopped = |child: &i32| {
        std::fs::read_to_string(format!("/proc/{child}/status"))
            .is_ok_and(|s| s.contains("State:\tT"))
    };
    let seen = eventually(|| children().filter(|all| all.iter().any(is_stopped)))
        .context("nobody was stopped")?;
    tool.signal(Signal::SIGINT)?;
    let said = tool.end_of_work()?;
    ensure!(said.code().is_some(), "{said:?}");
    eventually(|| {
        seen.iter()
            .all(|child| !std::path::Path::new(&format!("/proc/{child}")).exists())
            .then_some(())
    })
    .context("a child is left")?;
    Traces::of(pid, &instance).ensure_gone()
}

fn children(pid: i32) -> Vec<i32> {
    let text =
        std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect()
}

fn is(pid: i32, role: &str) -> bool {
    let words = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    words
        .split('\0')
        .skip_while(|word| *word != "interferer")
        .nth(1)
        == Some(role)
}

/// The program that dies again and again, and the incarnation that waits for the daemon, which is
/// stopped: the same one at two looks. Those that are stopped.
fn blocked(rtlat: i32) -> anyhow::Result<(i32, i32, Vec<i32>)> {
    let churn = eventually(|| children(rtlat).into_iter().find(|pid| is(*pid, "churn")))
        .context("no churn")?;
    eventually(|| {
        children(churn)
            .into_iter()
            .find(|pid| is(*pid, "incarnation"))
    })
    .context("no incarnation")?;
    let others: Vec<i32> = children(rtlat)
        .into_iter()
        .filter(|pid| *pid != churn)
        .collect();
    for pid in &others {
        kill(Pid::from_raw(*pid), Signal::SIGSTOP)?;
    }
    let mut last = None;
    let waits = || {
        std::thread::sleep(std::time::Duration::from_millis(300));
        let now = children(churn)
            .into_iter()
            .find(|pid| is(*pid, "incarnation"));
        let before = std::mem::replace(&mut last, now);
        now.filter(|_| now == before)
    };
    let incarnation = eventually(waits).context("no incarnation waits")?;
    Ok((churn, incarnation, others))
}

/// Within a time in which an incarnation does not give up by itself.
fn ends_soon(what: &str, pid: &PidFd) -> anyhow::Result<()> {
    let mut end = [Interest::readable(pid.as_fd().as_raw_fd())];
    ensure!(
        poll::wait(&mut end, 5_000_000_000) == Ok(1),
        "{what} is left"
    );
    Ok(())
}

/// A program that blocks SIGTERM and waits for a daemon that hangs ends when it is to end, and with
/// those that started it.
fn an_incarnation_that_waits_for_a_hung_daemon_is_not_left_behind() -> anyhow::Result<()> {
    for killed in [true, false] {
        let instance = Instance::new()?;
        let args = [
            "interference",
            "--turns",
            "1000",
            "-l",
            "400",
            "-q",
            "--only",
            "dying",
            "--path",
            "lane",
        ];
        let tool = Tool::start(lat(&instance, &args)?)?;
        let rtlat = i32::try_from(tool.pid())?;
        let (churn, incarnation, stopped) = blocked(rtlat)?;
        let (churns, incarnations) = (PidFd::open(churn)?, PidFd::open(incarnation)?);
        let first = if killed { rtlat } else { churn };
        kill(
            Pid::from_raw(first),
            if killed {
                Signal::SIGKILL
            } else {
                Signal::SIGTERM
            },
        )?;
        let ended =
            ends_soon("churn", &churns).and_then(|()| ends_soon("the incarnation", &incarnations));
        // Some of them were killed with rtlat.
        for pid in stopped {
            let _ = kill(Pid::from_raw(pid), Signal::SIGCONT);
        }
        if !killed {
            tool.signal(Signal::SIGKILL)?;
        }
        ended.with_context(|| format!("rtlat killed: {killed}"))?;
        drop(tool);
    }
    Ok(())
}

fn what_cannot_be_is_refused() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    for args in [
        &["--only", "quake"][..],
        &["--path", "pigeon"],
        &["--turns", "0"],
    ] {
        let said = run(lat(&instance, &[&["interference"], args].concat())?)?;
        ensure!(said.code() == Some(2), "{said:?}");
    }
    run(lat(&instance, &["interference", "-a", "1023"])?)?.refused(&["CPU 1023"])?;
    Ok(())
}
