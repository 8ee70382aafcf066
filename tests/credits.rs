//! In-flight credits: one receiver that does not take its signals must not blind another of the
//! same user.

use crate::util::needs::ROOT;
use crate::util::order;
use crate::util::{Daemon, Instance, Peer, process, route, rt, signal};
use anyhow::ensure;
use nix::unistd::{Gid, Uid, setgroups, setuid};
use std::os::unix::process::CommandExt;

tests![
    a_stuck_receiver_leaves_the_signal_queue_to_others_of_its_user needs(ROOT),
    a_signal_nobody_takes_holds_up_no_other_of_its_process needs(ROOT),
    a_stuck_receiver_in_a_thousand_groups_has_no_larger_share needs(ROOT),
    registering_again_buys_no_credit needs(ROOT),
    the_registered_thread_may_end needs(ROOT),
];

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
    expect_share(&mut peer, instance, name, signo)?;
    Ok(peer)
}

fn expect_share(
    peer: &mut Peer,
    instance: &Instance,
    name: &str,
    signo: i32,
) -> anyhow::Result<()> {
    peer.block(signo)?;
    peer.tell(order::Process::LimitSigpending(LIMIT))?;
    peer.register(instance, name)
}

/// The same in so many groups that the signal figures of /proc/PID/status are behind its first 4
/// KiB.
fn receiver_in_many_groups(instance: &Instance, name: &str, signo: i32) -> anyhow::Result<Peer> {
    let groups: Vec<Gid> = (0..1000).map(|n| Gid::from_raw(1_000_000 + n)).collect();
    let enter = move || {
        setgroups(&groups)?;
        Ok(setuid(Uid::from_raw(lonely_uid()))?)
    };
    let mut peer = Peer::start_with(|command| {
        // SAFETY: it runs between fork and exec and makes two system calls on memory that is there
        // already.
        unsafe { command.pre_exec(enter) };
    })?;
    expect_share(&mut peer, instance, name, signo)?;
    let status = std::fs::read_to_string(format!("/proc/{}/status", peer.pid()))?;
    ensure!(status.find("SigQ:").is_some_and(|at| at > 4096), "{status}");
    Ok(peer)
}

fn a_stuck_receiver_leaves_the_signal_queue_to_others_of_its_user() -> anyhow::Result<()> {
    stuck_beside_alive(receiver)
}

type Start = fn(&Instance, &str, i32) -> anyhow::Result<Peer>;

fn stuck_beside_alive(receiver: Start) -> anyhow::Result<()> {
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
    alive.ask(order::Signal::Take {
        signo: rt(4),
        count: MESSAGES,
        quiet_ms: 3000,
    })?;

    let mut sender = Peer::start()?;
    sender.open_to_send(&instance.queue("in"))?;
    sender.stream(0, MESSAGES)?;
    let got = alive
        .answer()?
        .rang()?
        .iter()
        .map(|rang| rang.value)
        .collect::<Vec<_>>();
    ensure!(
        got == (0..MESSAGES).collect::<Vec<_>>(),
        "the other one got {got:?}"
    );

    let snapshot = instance.until("all accepted", |s| {
        s.routes[0].ledger.accepted == 2 * MESSAGES
    })?;
    let ledger = snapshot.routes[0].ledger;
    // Its share is a third: two receivers and one to spare.
    let share = LIMIT / 3;
    ensure!(
        ledger.delivered == MESSAGES + share && ledger.queued == MESSAGES - share,
        "{ledger:?}"
    );
    ensure!(ledger.balances());

    let late = stuck.values_for(rt(3), MESSAGES, 3000)?;
    ensure!(
        late == (0..MESSAGES).collect::<Vec<_>>(),
        "the stuck one got {late:?}"
    );
    instance.until("all delivered", |s| {
        s.routes[0].ledger.delivered == 2 * MESSAGES
    })?;
    daemon.stop()?;
    Ok(())
}

/// The credit is the endpoint's: what the same process never takes of another signal does not hold
/// it up.
fn a_signal_nobody_takes_holds_up_no_other_of_its_process() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let config = instance.head()
        + &process("stuck")
        + &process("alive")
        + &instance.mqueue("in", "")
        + &instance.mqueue("in.other", "")
        + &signal("stuck.sig", "stuck", "SIGRTMIN+3", "")
        + &signal("alive.sig", "alive", "SIGRTMIN+4", "")
        + &signal("alive.other", "alive", "SIGRTMIN+5", "")
        + &route("in", &["stuck.sig", "alive.sig"], "capacity = 256")
        + &route("in.other", &["alive.other"], "");
    let _daemon = Daemon::start(&config)?;
    let _stuck = receiver(&instance, "stuck", rt(3))?;
    let mut alive = receiver(&instance, "alive", rt(4))?;
    alive.block(rt(5))?;
    Peer::sender(&instance.queue("in.other"))?.stream(0, 1)?;
    instance.until("it is there", |s| s.routes[1].ledger.delivered == 1)?;
    Peer::sender(&instance.queue("in"))?.stream(0, MESSAGES)?;
    let got = alive.values_for(rt(4), MESSAGES, 3000)?;
    ensure!(got == (0..MESSAGES).collect::<Vec<_>>(), "it got {got:?}");
    Ok(())
}

/// The kernel's figures are behind the list of groups, however long that is.
fn a_stuck_receiver_in_a_thousand_groups_has_no_larger_share() -> anyhow::Result<()> {
    stuck_beside_alive(receiver_in_many_groups)
}

/// Registering again is not taking what is pending.
fn registering_again_buys_no_credit() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let config = instance.head()
        + &process("stuck")
        + &instance.mqueue("in", "")
        + &signal("stuck.sig", "stuck", "SIGRTMIN+3", "")
        + &route("in", &["stuck.sig"], "capacity = 256");
    let _daemon = Daemon::start(&config)?;
    let mut stuck = receiver(&instance, "stuck", rt(3))?;
    let share = LIMIT / 2;
    Peer::sender(&instance.queue("in"))?.stream(0, MESSAGES)?;
    let full = |s: &rtcore::stats::reader::Snapshot| s.routes[0].ledger.queued == MESSAGES - share;
    instance.until("its share is in flight", full)?;
    for _ in 0..3 {
        stuck.register(&instance, "stuck")?;
    }
    // One more message: by then the lane has looked again.
    Peer::sender(&instance.queue("in"))?.stream(MESSAGES, 1)?;
    let after = instance.until("it is accepted", |s| {
        s.routes[0].ledger.accepted == MESSAGES + 1
    })?;
    ensure!(
        after.routes[0].ledger.delivered == share,
        "{:?}",
        after.routes[0].ledger
    );
    Ok(())
}

/// The thread that registered may end: signals for the process go on.
fn the_registered_thread_may_end() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let config = instance.head()
        + &process("drive")
        + &instance.mqueue("in", "")
        + &instance.mqueue("in.thread", "")
        + &signal("to.process", "drive", "SIGRTMIN+3", "")
        + &signal("to.thread", "drive", "SIGRTMIN+4", "target = \"thread\"")
        + &route("in", &["to.process"], "capacity = 256")
        + &route("in.thread", &["to.thread"], "");
    let _daemon = Daemon::start(&config)?;
    let mut drive = receiver(&instance, "drive", rt(3))?;
    drive.block(rt(4))?;
    let tid = drive.second_tid()?.to_string();
    let pid = drive.pid().to_string();
    let registered =
        instance.rtctl(&["register", "--as", "drive", "--pid", &pid, "--tid", &tid])?;
    ensure!(registered.status.success(), "{registered:?}");
    drive.tell(order::Second::End)?;

    Peer::sender(&instance.queue("in"))?.stream(0, MESSAGES)?;
    let got = drive.values_for(rt(3), MESSAGES, 3000)?;
    ensure!(got == (0..MESSAGES).collect::<Vec<_>>(), "it got {got:?}");
    // A signal for the thread finds nobody, and says so.
    Peer::sender(&instance.queue("in.thread"))?.stream(0, 1)?;
    instance.until("nobody is there", |s| s.routes[1].ledger.peer_dead == 1)?;
    Ok(())
}
