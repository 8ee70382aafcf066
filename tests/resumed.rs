//! A session that rtd closes while both it and the process live: the next one goes on exactly where
//! the lanes let go.

use crate::util::book::End::Delivered;
use crate::util::needs::ROOT;
use crate::util::order;
use crate::util::session::{lane_end, runs};
use crate::util::{Daemon, Instance, Peer, eventually, held, kernel, process, route};
use anyhow::{Context as _, ensure};
use nix::libc;
use nix::sys::signal::Signal;
use nix::sys::socket::{MsgFlags, UnixAddr, getpeername, send};
use rtcore::sys::pidfd::PidFd;
use std::collections::BTreeSet;
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::Path;

tests![
    a_process_that_closes_its_session_and_ends_has_not_died,
    a_backlog_is_sent_once_and_in_order_into_a_queue,
    a_session_that_broke_a_rule_sends_its_backlog_once needs(ROOT),
    sessions_closed_under_a_flood_lose_and_repeat_nothing,
    what_was_delivered_before_a_session_was_closed_is_received,
];

const LAST: u64 = u64::MAX;

fn unregister(i: &Instance, name: &str) -> anyhow::Result<()> {
    let done = i.rtctl(&["unregister", "--as", name])?;
    ensure!(done.status.success(), "{done:?}");
    Ok(())
}

fn is_up(peer: &mut Peer) -> anyhow::Result<()> {
    eventually(|| (peer.state().ok()? == "Up").then_some(())).context("never up again")
}

/// Sends bytes that are no frame over the connection of its session, as if its library did: rtd
/// closes the session. The descriptor is copied with pidfd_getfd(2).
fn break_a_rule(i: &Instance, peer: &Peer) -> anyhow::Result<()> {
    let pidfd = PidFd::open(i32::try_from(peer.pid())?)?;
    for entry in std::fs::read_dir(format!("/proc/{}/fd", peer.pid()))? {
        let number: i32 = entry?.file_name().to_string_lossy().parse()?;
        // SAFETY: three integers; it returns a new descriptor or -1.
        let copy =
            unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_fd().as_raw_fd(), number, 0) };
        let Ok(copy @ 0..) = i32::try_from(copy) else {
            continue;
        };
        // SAFETY: the descriptor is new, and nobody else's.
        let copy = unsafe { OwnedFd::from_raw_fd(copy) };
        let path = getpeername::<UnixAddr>(copy.as_raw_fd())
            .ok()
            .and_then(|a| a.path().map(Path::to_owned));
        // The listener was bound under a name of its own in the same directory, and renamed.
        if path.is_some_and(|path| path.parent() == Path::new(&i.socket()).parent()) {
            send(copy.as_raw_fd(), b"no frame", MsgFlags::empty())?;
            return Ok(());
        }
    }
    anyhow::bail!("it has no connection to {}", i.socket())
}

fn a_backlog_is_sent_once_and_in_order_into_a_queue() -> anyhow::Result<()> {
    closed_with_a_backlog(|i, _, _| unregister(i, "planner"))
}

/// A session that is closed because its process broke a rule.
fn a_session_that_broke_a_rule_sends_its_backlog_once() -> anyhow::Result<()> {
    closed_with_a_backlog(|i, daemon, planner| {
        break_a_rule(i, planner)?;
        daemon.logged(&format!(
            "planner: session of pid {} closed: ",
            planner.pid()
        ))
    })
}

/// The lane has one message in hand for a full queue when the session is closed: what is behind
/// that stays with the sender, and the next session brings it.
fn closed_with_a_backlog(
    close: impl FnOnce(&Instance, &Daemon, &Peer) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let i = Instance::new()?;
    let large = "maxmsg = 64\nmsgsize = 64";
    let config = i.head()
        + &process("planner")
        + &lane_end("out", "planner", large)
        + &i.mqueue("q", "")
        + &route("out", &["q"], "overflow = \"block:10s\"\ncapacity = 1");
    let daemon = Daemon::start(&config)?;
    let mut planner = Peer::from_endpoint(&i, "planner", "out")?;
    for number in 1..=40 {
        planner.number("out", number)?;
    }
    eventually(|| (held(&i.queue("q")).ok()? == 10).then_some(()))
        .context("the queue is not full")?;
    close(&i, &daemon, &planner)?;
    // It asks for its next session, which has to wait for the message in hand.
    daemon.logged("has not released the earlier session's ring")?;
    let mut reader = Peer::receiver(&i.queue("q"))?;
    let came = reader.numbers(40)?;
    ensure!(came == (1..=40).collect::<Vec<_>>(), "{came:?}");
    is_up(&mut planner)?;
    planner.number("out", 41)?;
    ensure!(reader.numbers(1)? == [41]);
    // The reader has the last message before the lane shows it on the page.
    let page = i.until("all is accounted", |page| {
        page.routes[0].ledger.accepted == 41
    })?;
    let ledger = page.routes[0].ledger;
    ensure!((ledger.queued, ledger.delivered) == (0, 41), "{ledger:?}");
    ensure!(reader.rest()?.is_empty(), "more than was sent");
    Ok(())
}

/// A sender that goes on all the while, into a queue, which drops no duplicates.
fn sessions_closed_under_a_flood_lose_and_repeat_nothing() -> anyhow::Result<()> {
    const ROUNDS: usize = 6;
    let i = Instance::new()?;
    let large = "maxmsg = 4096\nmsgsize = 64";
    let config = i.head()
        + &process("planner")
        + &lane_end("out", "planner", large)
        + &i.mqueue("q", "")
        + &route("out", &["q"], "overflow = \"block:10s\"");
    let _daemon = Daemon::start(&config)?;
    let mut planner = Peer::from_endpoint(&i, "planner", "out")?;
    let mut reader = Peer::receiver(&i.queue("q"))?;
    reader.ask(order::Queue::Receive {
        count: 1_000_000,
        quiet_ms: 3000,
    })?;
    planner.flood("out", 20)?;
    let mut accepted = 0;
    for _ in 0..ROUNDS {
        let page = i.until("traffic", |page| {
            page.routes[0].ledger.accepted >= accepted + 500
        })?;
        accepted = page.routes[0].ledger.accepted;
        unregister(&i, "planner")?;
        is_up(&mut planner)?;
    }
    let tried = planner.flooded()?;
    let came = reader.answered_numbers()?;
    ensure!(came.is_sorted_by(|a, b| a < b), "out of order or twice");
    let mut came: BTreeSet<u64> = came.into_iter().collect();
    for t in tried.iter().filter(|t| t.refused.is_none()) {
        let lost = (t.number..t.number + t.count).find(|number| !came.remove(number));
        let ledger = i.snapshot()?.routes[0].ledger;
        ensure!(
            lost.is_none(),
            "{lost:?} was sent and is lost: {ledger:?} {tried:?}"
        );
    }
    // Those that were refused in the very instant.
    ensure!(
        came.len() <= ROUNDS,
        "came without having been sent: {came:?}"
    );
    Ok(())
}

/// The receiver's session is closed again and again: what the ledger calls delivered, the inbox
/// received.
fn what_was_delivered_before_a_session_was_closed_is_received() -> anyhow::Result<()> {
    const ROUNDS: usize = 6;
    let i = Instance::new()?;
    let large = "maxmsg = 4096\nmsgsize = 64";
    let config = i.head()
        + &process("planner")
        + &process("arm")
        + &lane_end("cmd", "planner", large)
        + &lane_end("arm.cmd", "arm", large)
        + &route("cmd", &["arm.cmd"], "overflow = \"block:10s\"");
    let _daemon = Daemon::start(&config)?;
    let mut arm = Peer::with_inbox(&i, "arm")?;
    let mut planner = Peer::from_endpoint(&i, "planner", "cmd")?;
    planner.reach("cmd")?;
    planner.flood("cmd", 20)?;
    let mut got = Vec::new();
    for _ in 0..ROUNDS {
        got.extend(arm.got(2000)?);
        unregister(&i, "arm")?;
        got.extend(arm.got_until("event up")?);
    }
    planner.flooded()?;
    planner.reach("cmd")?;
    planner.number("cmd", LAST)?;
    got.extend(arm.got_until(&format!("number {LAST}"))?);
    let received: u64 = runs(&got).iter().map(|run| run.count).sum();
    let page = i.until("all is accounted", |page| {
        page.routes[0].ledger.delivered >= received
    })?;
    let ledger = page.routes[0].ledger;
    let is_settled = ledger.balances() && ledger.queued == 0;
    ensure!(
        is_settled && ledger.delivered == received,
        "{received} received, {ledger:?}"
    );
    Ok(())
}

/// What comes for the queue of a process that has died ends peer-dead; of one that has left, it
/// waits in the queue. rtd is stopped while the process closes its session and ends, so that it
/// learns of both together.
fn a_process_that_closes_its_session_and_ends_has_not_died() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let config = i.head()
        + &process("arm")
        + &i.mqueue("mail", "")
        + &i.mqueue("log", "owner = \"arm\"")
        + &route("mail", &["log"], "");
    let daemon = Daemon::start(&config)?;
    let mut arm = Peer::start()?;
    arm.connect(&i, "arm")?;
    let pid = arm.pid();
    daemon.signal(Signal::SIGSTOP)?;
    eventually(|| {
        kernel::stopped(daemon.pid())
            .ok()
            .filter(|stopped| *stopped)
    })?;
    arm.close()?;
    arm.kill()?;
    daemon.signal(Signal::SIGCONT)?;
    daemon.logged(&format!("arm: pid {pid} closed its session"))?;
    let mut mail = Peer::sender(&i.queue("mail"))?;
    mail.send(0, &[0x2a])?;
    i.ledger_is("mail->log", 1, &[(Delivered, 1)])?;
    Ok(())
}
