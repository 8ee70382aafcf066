//! How soon a session is back after its daemon, what it costs a process to wait for that, and what
//! a daemon that was killed while it started leaves behind.

use crate::util::session::lane_end;
use crate::util::trace::Traced;
use crate::util::{Daemon, Instance, Peer, eventually, patience, privileged, process, route};
use anyhow::ensure;
use rtcore::sys::clock::{monotonic_ns, sleep_until};
use std::process::{Command, Stdio};

tests![
    a_daemon_that_is_back_before_the_end_is_seen_is_found_within_100_ms,
    a_restarted_daemon_has_its_session_back_soon,
    a_client_watches_no_directory,
    the_end_of_a_partner_is_noticed_at_once,
    a_start_removes_the_sockets_that_killed_starts_left,
];

fn config(i: &Instance) -> String {
    i.head()
        + &process("planner")
        + &process("arm")
        + &lane_end("fast", "planner", "")
        + &lane_end("arm.fast", "arm", "")
        + &route("fast", &["arm.fast"], "path = \"direct\"")
}

/// Rounds of a measurement: few in a test, as many as `RTD_TEST_ROUNDS` says otherwise.
fn rounds(few: usize) -> usize {
    std::env::var("RTD_TEST_ROUNDS")
        .ok()
        .and_then(|rounds| rounds.parse().ok())
        .unwrap_or(few)
}

fn print(what: &str, mut all_us: Vec<u64>) {
    all_us.sort_unstable();
    let at = |percent: usize| all_us[(all_us.len() - 1) * percent / 100];
    let late = all_us.iter().filter(|us| **us > 100_000).count();
    println!(
        "{what}, {} rounds, us: p50 {}, p90 {}, p99 {}, max {}; {late} above 100 ms",
        all_us.len(),
        at(50),
        at(90),
        at(99),
        at(100)
    );
}

/// The client sees that its connection ended, and whatever happened in the run directory before
/// that, in one look: the new daemon is there already, and no event will say so any more. And it
/// was up for too short a time to try again at once.
fn a_daemon_that_is_back_before_the_end_is_seen_is_found_within_100_ms() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let text = config(&i);
    let mut daemon = Daemon::start(&text)?;
    let mut arm = Peer::with_inbox(&i, "arm")?;
    let mut took_us = Vec::new();
    for _ in 0..5 {
        arm.freeze()?;
        std::fs::write(i.file("a-name-that-appears"), b"")?;
        daemon.kill()?;
        daemon = Daemon::start(&text)?;
        std::fs::remove_file(i.file("a-name-that-appears"))?;
        arm.ask_until("event up")?;
        let from_ns = monotonic_ns();
        arm.thaw()?;
        arm.answered_until("event up")?;
        took_us.push((monotonic_ns() - from_ns) / 1000);
    }
    let best = took_us.iter().min().copied().unwrap_or(u64::MAX);
    print("thaw to Event::Up", took_us.clone());
    // A busy machine adds to single rounds, never to all of them what a retry timer of a second
    // does.
    ensure!(best <= 100_000, "{took_us:?} us");
    Ok(())
}

/// READY to Event::Up.
fn a_restarted_daemon_has_its_session_back_soon() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let text = config(&i);
    let mut daemon = Daemon::start(&text)?;
    let mut arm = Peer::with_inbox(&i, "arm")?;
    let (mut took_us, mut starts_us) = (Vec::new(), Vec::new());
    let mut delay_us = 0;
    for round in 0..rounds(20) {
        if round % 2 == 0 {
            daemon.kill()?
        } else {
            drop(daemon.stop()?)
        }
        // One that is killed while the session opens.
        daemon = Daemon::start(&text)?;
        delay_us = (delay_us + 377) % 8000;
        sleep_until(monotonic_ns() + delay_us * 1000);
        daemon.kill()?;
        let start_ns = monotonic_ns();
        daemon = Daemon::start(&text)?;
        let from_ns = monotonic_ns();
        starts_us.push((from_ns - start_ns) / 1000);
        eventually(|| (arm.state().ok()? == "Up").then_some(()))?;
        took_us.push((monotonic_ns() - from_ns) / 1000);
    }
    // Where others load the machine, the start took longer too: then a session may.
    let late = took_us
        .iter()
        .zip(&starts_us)
        .filter(|(took, start)| **took > 500_000 + 4 * **start)
        .count();
    ensure!(
        late == 0,
        "{took_us:?} us; the starts took {starts_us:?} us"
    );
    print("READY to Event::Up", took_us);
    Ok(())
}

/// Directories that a process watches by inotify(7).
fn watches(pid: u32) -> anyhow::Result<usize> {
    let infos = std::fs::read_dir(format!("/proc/{pid}/fdinfo"))?;
    let texts = infos.filter_map(|info| std::fs::read_to_string(info.ok()?.path()).ok());
    Ok(texts
        .map(|text| {
            text.lines()
                .filter(|line| line.starts_with("inotify wd:"))
                .count()
        })
        .sum())
}

/// A watch can keep a process that was killed from ending for as long as real-time threads keep a
/// worker of the kernel from running: there is none, also while rtd is away.
fn a_client_watches_no_directory() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let text = config(&i);
    let daemon = Daemon::start(&text)?;
    let mut arm = Peer::with_inbox(&i, "arm")?;
    daemon.kill()?;
    arm.got_until("event down")?;
    ensure!(watches(arm.pid())? == 0, "while it waits for rtd");
    let _daemon = Daemon::start(&text)?;
    arm.got_until("event up")?;
    ensure!(watches(arm.pid())? == 0, "connected again");
    Ok(())
}

/// From kill -9 of the receiver of a direct route to Event::PeerLost at its sender.
fn the_end_of_a_partner_is_noticed_at_once() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let daemon = Daemon::start(&config(&i))?;
    let mut planner = Peer::from_endpoint(&i, "planner", "fast")?;
    planner.open_inbox()?;
    let mut took_us = Vec::new();
    let count = rounds(20);
    for round in 1..=count {
        let arm = Peer::with_inbox(&i, "arm")?;
        planner.reach("fast")?;
        planner.ask_until("event lost arm")?;
        if round == count {
            // The kernel says it, not the daemon.
            daemon.freeze()?;
        }
        let from_ns = monotonic_ns();
        arm.signal(nix::sys::signal::Signal::SIGKILL)?;
        planner.answered_until("event lost arm")?;
        took_us.push((monotonic_ns() - from_ns) / 1000);
    }
    let best = took_us.iter().min().copied().unwrap_or(u64::MAX);
    ensure!(best < 20_000, "{took_us:?} us");
    print("kill -9 to Event::PeerLost", took_us);
    Ok(())
}

/// Names in the run directory that begin with a dot.
fn drafts(i: &Instance) -> anyhow::Result<Vec<String>> {
    let names = std::fs::read_dir(i.file(""))?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let names: Vec<String> = names.collect::<std::io::Result<_>>()?;
    Ok(names
        .into_iter()
        .filter(|name| name.starts_with('.'))
        .collect())
}

fn a_start_removes_the_sockets_that_killed_starts_left() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let text = config(&i);
    let file = i.file("rtd.toml");
    std::fs::write(&file, &text)?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_rtd"));
    command
        .arg("run")
        .arg(&file)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if !privileged() {
        command.arg("--allow-degraded");
    }
    let mut starting = command.spawn()?;
    let killed = (|| {
        let mut traced = Traced::attach(starting.id())?;
        let until_ns = monotonic_ns() + u64::try_from(patience().as_nanos())?;
        while drafts(&i)?.is_empty() {
            ensure!(monotonic_ns() < until_ns, "no draft of a socket");
            traced.next_call()?;
        }
        anyhow::Ok(())
    })();
    starting.kill()?;
    starting.wait()?;
    killed?;
    ensure!(drafts(&i)?.len() == 1, "{:?}", drafts(&i)?);
    let _daemon = Daemon::start(&text)?;
    ensure!(drafts(&i)?.is_empty(), "{:?}", drafts(&i)?);
    Ok(())
}
