//! Who gets a name when several want it, and what is left of those who die on the way.

use crate::util::order;
use crate::util::session::{planner_and_arm, runs};
use crate::util::{Daemon, Instance, Peer, eventually};
use anyhow::{Context as _, ensure};
use nix::sys::signal::Signal;
use rtcore::lane::peer::PeerState;
use std::time::Duration;

tests![
    of_two_that_claim_a_name_exactly_one_gets_it,
    killed_right_after_it_connected_a_process_leaves_nothing,
    killed_while_it_connects_a_process_leaves_nothing,
    a_receiver_may_come_and_go_while_nothing_is_sent,
];

fn config(i: &Instance) -> String {
    planner_and_arm(i, "", "", "")
}

/// Descriptors of a process, and mappings of shared memory that rtd made.
fn holdings(pid: u32) -> anyhow::Result<(usize, usize)> {
    let fds = std::fs::read_dir(format!("/proc/{pid}/fd"))?.count();
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
    Ok((
        fds,
        maps.lines()
            .filter(|line| line.contains("memfd:rtd"))
            .count(),
    ))
}

/// Waits until a process holds what it held before.
fn holds_again(pid: u32, before: (usize, usize)) -> anyhow::Result<()> {
    let mut now = before;
    let same = eventually(|| {
        now = holdings(pid).ok()?;
        (now == before).then_some(())
    });
    same.with_context(|| format!("descriptors and mappings: {before:?} before, {now:?} now"))
}

/// What a daemon holds that had a session of each name and has none any more.
fn baseline(i: &Instance, daemon: &Daemon) -> anyhow::Result<(usize, usize)> {
    let once = || -> anyhow::Result<(usize, usize)> {
        let arm = Peer::with_inbox(i, "arm")?;
        let mut planner = Peer::from_endpoint(i, "planner", "fast")?;
        planner.reach("fast")?;
        let open = holdings(daemon.pid())?;
        for peer in [arm, planner] {
            peer.kill()?;
        }
        i.until("both are dead", |page| {
            page.processes.iter().all(|p| p.state == PeerState::Dead)
        })?;
        Ok(open)
    };
    let fresh = holdings(daemon.pid())?;
    let open = once()?;
    ensure!(
        open.0 > fresh.0 && open.1 > fresh.1,
        "sessions hold nothing? {fresh:?} {open:?}"
    );
    holds_again(daemon.pid(), fresh)?;
    once()?;
    holds_again(daemon.pid(), fresh)?;
    Ok(fresh)
}

/// Both ask at the same moment: one has it, the other is told who.
fn of_two_that_claim_a_name_exactly_one_gets_it() -> anyhow::Result<()> {
    const ROUNDS: usize = 10;
    let i = Instance::new()?;
    let daemon = Daemon::start(&config(&i))?;
    let before = baseline(&i, &daemon)?;
    let socket = i.socket();
    let open = || order::Session::Connect {
        socket: &socket,
        name: "arm",
    };
    for round in 0..ROUNDS {
        let mut both = [Peer::start()?, Peer::start()?];
        for peer in &mut both {
            peer.ask(open())?;
        }
        let answers = [both[0].answer(), both[1].answer()];
        let winner = usize::from(answers[0].is_err());
        let [winners, losers] =
            if winner == 0 { [0, 1] } else { [1, 0] }.map(|at: usize| &answers[at]);
        ensure!(
            winners.is_ok() && losers.is_err(),
            "round {round}: {answers:?}"
        );
        let text = losers
            .as_ref()
            .err()
            .map(ToString::to_string)
            .unwrap_or_default();
        let held = format!("arm is held by pid {}", both[winner].pid());
        ensure!(text.contains("Held") && text.contains(&held), "{text}");
        ensure!(
            text.contains("stop that process, or free the name"),
            "{text}"
        );
        // It gets it when the other one is gone, however that goes.
        if round % 2 == 0 {
            both[winner].signal(Signal::SIGKILL)?;
            let ended = || both[1 - winner].tell(open()).ok();
            eventually(ended).context("the name does not become free")?;
        } else {
            both[winner].close()?;
            both[1 - winner].tell(open())?;
        }
        both[1 - winner].close()?;
    }
    holds_again(daemon.pid(), before)
}

/// kill -9 right after a session was opened, again and again: the name is free at once, nothing is
/// left in the daemon, and who waits for messages meanwhile waits on and gets them.
fn killed_right_after_it_connected_a_process_leaves_nothing() -> anyhow::Result<()> {
    const ROUNDS: usize = 20;
    let i = Instance::new()?;
    let daemon = Daemon::start(&config(&i))?;
    let before = baseline(&i, &daemon)?;
    let mut arm = Peer::with_inbox(&i, "arm")?;
    let last = format!("number {}", u64::MAX);
    arm.ask_until(&last)?;
    for round in 0..ROUNDS {
        // A process that was waited for is gone: its successor is not refused.
        Peer::session(&i, "planner")
            .with_context(|| format!("round {round}"))?
            .kill()?;
    }
    finish(&i, &daemon, arm, before)
}

/// The same in the middle of it: kill -9 at a random moment while the session is being opened.
fn killed_while_it_connects_a_process_leaves_nothing() -> anyhow::Result<()> {
    const ROUNDS: u64 = 60;
    /// Longer than opening takes on a machine with something else to do.
    const LONGEST_US: u64 = 6_000;
    let i = Instance::new()?;
    let daemon = Daemon::start(&config(&i))?;
    let before = baseline(&i, &daemon)?;
    let mut arm = Peer::with_inbox(&i, "arm")?;
    arm.ask_until(&format!("number {}", u64::MAX))?;
    let mut opened = 0;
    // A fixed sequence (a linear congruential one): what fails fails again.
    let mut random = 12_345_u64;
    for _ in 0..ROUNDS {
        let mut planner = Peer::start()?;
        planner.ask(order::Session::Connect {
            socket: &i.socket(),
            name: "planner",
        })?;
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        // The moment of the kill is what is tried; nothing is waited for.
        std::thread::sleep(Duration::from_micros((random >> 33) % LONGEST_US));
        planner.signal(Signal::SIGKILL)?;
        opened += usize::from(planner.last_answers().is_ok_and(|all| !all.is_empty()));
    }
    println!("killed while connecting: {opened} of {ROUNDS} had their sessions by then");
    finish(&i, &daemon, arm, before)
}

/// The names are free, the receiver that waited all the time gets what is sent now, and then
/// nothing is left.
fn finish(
    i: &Instance,
    daemon: &Daemon,
    mut arm: Peer,
    before: (usize, usize),
) -> anyhow::Result<()> {
    let mut planner = Peer::from_endpoint(i, "planner", "cmd").context("the name is not free")?;
    planner.claim("fast")?;
    planner.reach("fast")?;
    planner.number("fast", 1)?;
    planner.number("cmd", u64::MAX)?;
    let mut got = arm.answered_until(&format!("number {}", u64::MAX))?;
    if runs(&got).len() == 1 {
        got.extend(arm.got(1)?);
    }
    let pids: Vec<u32> = runs(&got).iter().map(|run| run.pid).collect();
    ensure!(pids == [planner.pid(); 2], "{got:?}");
    planner.kill()?;
    arm.kill()?;
    holds_again(daemon.pid(), before)?;
    let page = i.snapshot()?;
    ensure!(
        page.routes
            .iter()
            .all(|route| route.ledger.balances() && route.ledger.delivered == 1),
        "{page:?}"
    );
    let log = daemon.log();
    ensure!(!log.contains("defect") && !log.contains("broke"), "{log}");
    Ok(())
}

/// A receiver that comes and goes while nothing is sent to it is let in each time; a lane that has
/// nothing to do takes what is new all the same.
fn a_receiver_may_come_and_go_while_nothing_is_sent() -> anyhow::Result<()> {
    const LIVES: u64 = 12;
    let i = Instance::new()?;
    let daemon = Daemon::start(&config(&i))?;
    let before = baseline(&i, &daemon)?;
    let mut planner = Peer::from_endpoint(&i, "planner", "cmd")?;
    for life in 0..LIVES {
        Peer::with_inbox(&i, "arm")
            .with_context(|| format!("life {life}"))?
            .kill()?;
    }
    let mut arm = Peer::with_inbox(&i, "arm")?;
    planner.reach("cmd")?;
    planner.number("cmd", 1)?;
    let got = arm.got_until("number 1")?;
    ensure!(runs(&got).len() == 1, "{got:?}");
    arm.kill()?;
    planner.kill()?;
    holds_again(daemon.pid(), before)
}
