//! A registered process dies: its routes say so at once and exactly, and a restart takes over.

use crate::util::order;
use crate::util::{Daemon, Instance, Peer, eventually, kernel, process, route, rt, signal};
use anyhow::{Context as _, ensure};
use rtcore::lane::peer::PeerState;
use rtcore::stats::reader::Snapshot;

tests![
    kill_9_turns_messages_into_peer_dead_until_a_restart_takes_over,
    what_is_queued_for_a_process_that_dies_is_accounted_at_once,
    a_restart_reads_what_was_delivered_before,
    an_exit_is_seen_like_a_kill,
    a_restart_follows_its_death_at_once_again_and_again,
    kill_9_in_the_middle_of_a_stream_loses_no_count,
];

/// A process state on the page.
fn is(s: &Snapshot, process: usize, state: PeerState) -> bool {
    s.processes.get(process).is_some_and(|p| p.state == state)
}

/// A process that opened a queue of the instance for receiving.
fn opened(i: &Instance, mut peer: Peer, queue: &str) -> anyhow::Result<Peer> {
    peer.open_to_receive(&i.queue(queue))?;
    Ok(peer)
}

/// Two routes from one source into a queue and a signal of the process `drive`.
fn config(i: &Instance, more: &str) -> String {
    i.head()
        + &process("drive")
        + &i.mqueue("in", "")
        + &i.mqueue("cmd", "owner = \"drive\"")
        + &signal("stop", "drive", "SIGRTMIN+5", "")
        + &route("in", &["cmd"], &format!("name = \"cmd\"\n{more}"))
        + &route("in", &["stop"], "name = \"stop\"")
}

fn kill_9_turns_messages_into_peer_dead_until_a_restart_takes_over() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let daemon = Daemon::start(&config(&i, ""))?;
    let mut sender = Peer::sender(&i.queue("in"))?;
    let mut drive = opened(&i, Peer::ready_as(&i, "drive", &[rt(5)])?, "cmd")?;
    let counts = |s: &Snapshot| {
        let of = |route: usize| {
            (
                s.routes[route].ledger.delivered,
                s.routes[route].ledger.peer_dead,
            )
        };
        [of(0), of(1)]
    };

    sender.stream(100, 3)?;
    ensure!(drive.receive_for(3, 10_000)?.len() == 3);
    ensure!(drive.values_for(rt(5), 3, 10_000)? == [100, 101, 102]);
    i.until("3 delivered", |s| counts(s) == [(3, 0), (3, 0)])?;

    drive.kill()?;
    i.until("it is dead", |s| is(s, 0, PeerState::Dead))?;
    sender.stream(200, 4)?;
    i.until("4 have nobody", |s| counts(s) == [(3, 4), (3, 4)])?;

    let mut next = opened(&i, Peer::ready_as(&i, "drive", &[rt(5)])?, "cmd")?;
    i.until("it is back", |s| {
        is(s, 0, PeerState::Alive) && s.processes[0].pid == next.pid()
    })?;
    sender.stream(300, 2)?;
    let got = next.values_for(rt(5), 3, 500)?;
    ensure!(got == [300, 301], "{got:?}");
    let got = next.numbers_for(3, 500)?;
    ensure!(got == [300, 301], "{got:?}");
    let end = i.until("2 more delivered", |s| counts(s) == [(5, 4), (5, 4)])?;
    ensure!(
        end.routes
            .iter()
            .all(|r| r.ledger.accepted == 9 && r.ledger.balances()),
        "{:?}",
        end.routes
    );
    let log = daemon.stop()?;
    let died = if kernel::tells_endings()? {
        " died (killed by SIGKILL)"
    } else {
        " died"
    };
    ensure!(log.contains("drive: pid ") && log.contains(died), "{log}");
    Ok(())
}

/// Fifteen messages wait in front of its full queue when it dies; nothing is left waiting.
fn what_is_queued_for_a_process_that_dies_is_accounted_at_once() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let daemon = Daemon::start(&config(&i, "capacity = 20"))?;
    let mut sender = Peer::sender(&i.queue("in"))?;
    let drive = opened(&i, Peer::ready_as(&i, "drive", &[rt(5)])?, "cmd")?;
    sender.stream(0, 25)?;
    let full = i.until("15 wait", |s| s.routes[0].ledger.queued == 15)?;
    ensure!(full.routes[0].ledger.delivered == 10 && full.routes[0].ledger.peer_dead == 0);
    drive.kill()?;
    let after = i.until("none waits", |s| s.routes[0].ledger.queued == 0)?;
    ensure!(
        after.routes[0].ledger.peer_dead == 15,
        "{:?}",
        after.routes[0].ledger
    );
    ensure!(after.routes[0].ledger.delivered == 10 && after.routes[0].ledger.balances());
    daemon.stop()?;
    Ok(())
}

/// A restart finds in its queue what its predecessor did not read: that was delivered.
fn a_restart_reads_what_was_delivered_before() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let daemon = Daemon::start(&config(&i, ""))?;
    let mut sender = Peer::sender(&i.queue("in"))?;
    let drive = Peer::ready_as(&i, "drive", &[rt(5)])?;
    sender.stream(0, 5)?;
    i.until("delivered", |s| s.routes[0].ledger.delivered == 5)?;
    drive.kill()?;
    let mut next = opened(&i, Peer::ready_as(&i, "drive", &[rt(5)])?, "cmd")?;
    ensure!(next.receive_for(6, 200)?.len() == 5);
    ensure!(
        next.signals_for(rt(5), 1, 0)?.is_empty(),
        "signals die with their process"
    );
    daemon.stop()?;
    Ok(())
}

/// An exit is a death too, and its status is told.
fn an_exit_is_seen_like_a_kill() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let daemon = Daemon::start(&config(&i, ""))?;
    let status = i
        .rtctl(&["run", "--as", "drive", "--", "sh", "-c", "exit 3"])?
        .status;
    ensure!(status.code() == Some(3));
    i.until("it is dead", |s| is(s, 0, PeerState::Dead))?;
    let log = daemon.stop()?;
    ensure!(log.contains("died"), "{log}");
    Ok(())
}

/// The name can be taken the moment its holder is gone: nobody waits for a timer.
fn a_restart_follows_its_death_at_once_again_and_again() -> anyhow::Result<()> {
    const RESTARTS: u64 = 30;
    let i = Instance::new()?;
    let daemon = Daemon::start(&config(&i, ""))?;
    for n in 1..=RESTARTS {
        let drive = Peer::run_as(&i, "drive").with_context(|| format!("start {n}"))?;
        ensure!(i.snapshot()?.processes[0].pid == drive.pid());
        drive.kill()?;
    }
    i.until("the last is dead", |s| is(s, 0, PeerState::Dead))?;
    let log = daemon.stop()?;
    ensure!(
        log.contains(&format!("registrations {RESTARTS} deaths {RESTARTS}")),
        "{log}"
    );
    Ok(())
}

/// The receiver of a stream is killed in the middle of it: every message ends in one outcome, and
/// what was delivered is what was read plus what lies in the queue.
fn kill_9_in_the_middle_of_a_stream_loses_no_count() -> anyhow::Result<()> {
    const MESSAGES: u64 = 5_000;
    let i = Instance::new()?;
    // A receiver that gets no CPU holds the stream up, so that its end comes in the middle.
    let daemon = Daemon::start(&config(&i, "overflow = \"block:5s\""))?;
    let mut sender = Peer::sender(&i.queue("in"))?;
    let mut drive = opened(&i, Peer::ready_as(&i, "drive", &[rt(5)])?, "cmd")?;
    sender.ask(order::Queue::Stream {
        from: 0,
        count: MESSAGES,
    })?;
    let read = drive.receive_for(500, 10_000)?.len() as u64;
    drive.kill()?;
    sender.answer()?;
    let end = i.until("all accepted", |s| {
        s.routes.iter().all(|r| r.ledger.accepted == MESSAGES)
    })?;
    ensure!(
        end.routes.iter().all(|r| r.ledger.balances()),
        "{:?}",
        end.routes
    );
    let settled = i.until("none waits", |s| {
        s.routes.iter().all(|r| r.ledger.queued == 0)
    })?;
    let ledger = settled.routes[0].ledger;
    ensure!(ledger.peer_dead > 0, "{ledger:?}");
    let mut left = opened(&i, Peer::start()?, "cmd")?;
    let left = eventually(|| Some(left.receive_for(20, 100).ok()?.len() as u64))?;
    ensure!(
        ledger.delivered == read + left,
        "read {read}, left {left}: {ledger:?}"
    );
    daemon.stop()?;
    Ok(())
}
