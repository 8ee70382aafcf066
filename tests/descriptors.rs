//! rtd has no descriptors left (RLIMIT_NOFILE) while programs take their names. Each of them is
//! refused with what to change, or waits, or gets its name. No name is held halfway, and nothing is
//! left open.

use crate::util::book::End::Delivered;
use crate::util::lane_talk::pair;
use crate::util::needs::PRLIMIT;
use crate::util::order;
use crate::util::tool::{Tool, run};
use crate::util::{Daemon, Instance, Peer, eventually, process, route, rt, signal};
use anyhow::{Context as _, ensure};
use nix::sys::signal::Signal;
use rtcore::lane::peer::PeerState;
use std::process::Command;
use std::time::{Duration, Instant};

tests![
    a_session_is_refused_with_the_limit_or_opens_when_there_are_descriptors needs(PRLIMIT),
    a_program_that_rtctl_runs_is_refused_with_the_limit_or_keeps_its_name needs(PRLIMIT),
];

/// More descriptors than any of these takes.
const SPARE_MAX: u64 = 14;
/// How long a shortage lasts at most.
const SHORTAGE: Duration = Duration::from_millis(500);
/// What a refusal for want of descriptors says.
const FIX: &str = "LimitNOFILE";

fn open(daemon: &Daemon) -> anyhow::Result<Vec<u64>> {
    let entries = std::fs::read_dir(format!("/proc/{}/fd", daemon.pid()))?;
    Ok(entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect())
}

fn soft_limit(daemon: &Daemon) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(format!("/proc/{}/limits", daemon.pid()))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .context("no such limit")?;
    Ok(line
        .split_whitespace()
        .next()
        .context("no soft limit")?
        .to_owned())
}

/// Sets the daemon's soft limit.
fn limit(daemon: &Daemon, soft: &str) -> anyhow::Result<()> {
    let mut prlimit = Command::new("prlimit");
    prlimit.args([
        "--pid",
        &daemon.pid().to_string(),
        &format!("--nofile={soft}:"),
    ]);
    run(prlimit)?.well().map(drop)
}

/// Begins something while there is room for so many more descriptors only, until it is over, or the
/// log says that they are short, or time has passed.
fn starve<T>(
    daemon: &Daemon,
    spare: u64,
    begin: impl FnOnce() -> anyhow::Result<T>,
    is_over: impl Fn() -> bool,
) -> anyhow::Result<T> {
    let short = || daemon.log().matches(FIX).count();
    let (before, open) = (short(), open(daemon)?);
    // Numbers below the limit are free here and there.
    let free = (0..)
        .filter(|number| !open.contains(number))
        .nth(usize::try_from(spare)?);
    let was = soft_limit(daemon)?;
    limit(daemon, &free.unwrap_or(0).to_string())?;
    let begun = begin();
    // Not each shortage has a line: the log's lines about one process are bounded.
    let until = Instant::now() + SHORTAGE;
    while !is_over() && short() == before && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(1));
    }
    limit(daemon, &was)?;
    begun
}

fn has(i: &Instance, name: &str, pid: u32) -> bool {
    let is_it = |page: rtcore::stats::snapshot::Snapshot| {
        page.processes
            .iter()
            .any(|p| p.name == name && p.state == PeerState::Alive && p.pid == pid)
    };
    i.snapshot().is_ok_and(is_it)
}

/// Nothing that belongs to a program that has ended stays open.
fn settles(daemon: &Daemon, count: usize) -> anyhow::Result<()> {
    let now = || open(daemon).map(|all| all.len()).ok();
    eventually(|| (now()? == count).then_some(()))
        .with_context(|| format!("{count} are open, then {:?}", now()))
}

fn a_session_is_refused_with_the_limit_or_opens_when_there_are_descriptors() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let daemon = Daemon::start(&pair(&i, [64, 64], ""))?;
    let mut b = Peer::with_inbox(&i, "b")?;
    let (mut refused, count) = (0, open(&daemon)?.len());
    for spare in 0..SPARE_MAX {
        let mut a = Peer::start()?;
        let pid = a.pid();
        let ask = || {
            a.ask(order::Session::Connect {
                socket: &i.socket(),
                name: "a",
            })
        };
        starve(&daemon, spare, ask, || has(&i, "a", pid))?;
        if let Err(e) = a.answer() {
            ensure!(format!("{e:#}").contains(FIX), "{spare}: {e:#}");
            refused += 1;
            a.connect(&i, "a")?;
        }
        ensure!(has(&i, "a", pid), "{spare}");
        a.claim("a.out")?;
        a.reach("a.out")?;
        a.lane_stream("a.out", spare, 1)?;
        ensure!(b.take_numbers(1)? == [spare]);
        a.kill()?;
        i.until("its death is seen", |page| {
            page.processes
                .iter()
                .any(|p| p.name == "a" && p.state == PeerState::Dead)
        })?;
    }
    ensure!(refused > 0, "none was refused");
    settles(&daemon, count)?;
    daemon.stop()?;
    Ok(())
}

fn a_program_that_rtctl_runs_is_refused_with_the_limit_or_keeps_its_name() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let config = i.head()
        + &process("arm")
        + &i.mqueue("in", "")
        + &signal("arm.go", "arm", "SIGRTMIN+5", "")
        + &route("in", &["arm.go"], "");
    let daemon = Daemon::start(&config)?;
    let (mut refused, count) = (0, open(&daemon)?.len());
    for spare in 0..SPARE_MAX {
        let command =
            || Tool::start(i.rtctl_command(&["run", "--as", "arm", "--", "/bin/sleep", "1000"]));
        let named = || {
            i.snapshot()
                .is_ok_and(|page| page.processes[0].state == PeerState::Alive)
        };
        let mut tool = starve(&daemon, spare, command, named)?;
        let pid = tool.pid();
        eventually(|| (has(&i, "arm", pid) || !tool.runs()).then_some(()))?;
        if tool.runs() {
            tool.signal(Signal::SIGKILL)?;
            tool.end()?;
        } else {
            tool.end()?.refused(&[FIX])?;
            refused += 1;
        }
        i.until("the name is free", |page| {
            page.processes[0].state != PeerState::Alive
        })?;
    }
    ensure!(refused > 0, "none was refused");
    settles(&daemon, count)?;
    let mut arm = Peer::ready_as(&i, "arm", &[rt(5)])?;
    Peer::sender(&i.queue("in"))?.stream(1, 1)?;
    i.ledger_is("in->arm.go", 1, &[(Delivered, 1)])?;
    ensure!(arm.signals(rt(5), 1)?.len() == 1);
    daemon.stop()?;
    Ok(())
}
