//! In-flight credits: one receiver that does not take its signals must not blind another of the same user.

use crate::util::{Daemon, Instance, Peer, privileged, process, route, rt, signal, skip};
use anyhow::ensure;
use std::os::unix::process::CommandExt;

const LIMIT: u64 = 60;
const MESSAGES: u64 = 200;

/// A user that nobody else is, so that nobody else's signals count against its RLIMIT_SIGPENDING.
fn lonely_uid() -> u32 {
    400_000 + std::process::id() % 100_000
}

fn receiver(instance: &Instance, name: &str, signo: i32) -> anyhow::Result<Peer> {
    let mut peer = Peer::start_with(|command| {
        command.uid(lonely_uid());
    })?;
    peer.tell(&format!("block {signo}"))?;
    peer.tell(&format!("sigpending {LIMIT}"))?;
    peer.tell(&format!("register {} {name}", instance.socket()))?;
    Ok(peer)
}

/// The values of `VALUE PID UID TID` lines.
fn values(lines: &[String]) -> Vec<u64> {
    lines.iter().filter_map(|l| l.split(' ').next()?.parse().ok()).collect()
}

pub fn a_stuck_receiver_leaves_the_signal_queue_to_others_of_its_user() -> anyhow::Result<()> {
    if !privileged() {
        return skip("root, to be another user");
    }
    let instance = Instance::new()?;
    let config = instance.head()
        + &process("stuck")
        + &process("alive")
        + &instance.mqueue("in", "")
        + &signal("stuck.sig", "stuck", "SIGRTMIN+3", "")
        + &signal("alive.sig", "alive", "SIGRTMIN+4", "")
        + &route("in", &["stuck.sig", "alive.sig"], "capacity = 256");
    let daemon = Daemon::start(&config)?;
    let mut stuck = receiver(&instance, "stuck", rt(3))?;
    let mut alive = receiver(&instance, "alive", rt(4))?;
    alive.ask(&format!("sigwait {} {MESSAGES} 3000", rt(4)))?;

    let mut sender = Peer::start()?;
    sender.tell(&format!("open send {}", instance.queue("in")))?;
    sender.tell(&format!("stream 0 {MESSAGES}"))?;
    let got = values(&alive.answer()?);
    ensure!(got == (0..MESSAGES).collect::<Vec<_>>(), "the other one got {got:?}");

    let snapshot = instance.until("all accepted", |s| s.routes[0].ledger.accepted == 2 * MESSAGES)?;
    let ledger = snapshot.routes[0].ledger;
    // Its share is a third: two receivers and one to spare.
    let share = LIMIT / 3;
    ensure!(ledger.delivered == MESSAGES + share && ledger.queued == MESSAGES - share, "{ledger:?}");
    ensure!(ledger.balances());

    let late = values(&stuck.tell(&format!("sigwait {} {MESSAGES} 3000", rt(3)))?);
    ensure!(late == (0..MESSAGES).collect::<Vec<_>>(), "the stuck one got {late:?}");
    instance.until("all delivered", |s| s.routes[0].ledger.delivered == 2 * MESSAGES)?;
    daemon.stop()?;
    Ok(())
}
