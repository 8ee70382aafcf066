//! The daemon goes, by kill -9 or by SIGTERM, and another comes, while messages flow: what is lost,
//! what comes twice, how long it takes.

use crate::util::order;
use crate::util::session::send_number;
use crate::util::session::{Got, Run, Tried, events, lane_end, planner_and_arm, runs, unbroken};
use crate::util::{Daemon, Instance, Peer, process, route, rt, signal};
use anyhow::{Context as _, ensure};
use rtcore::lane::peer::PeerState;
use rtcore::stats::reader::Snapshot;
use rtcore::sys::clock::monotonic_ns;
use std::collections::BTreeMap;

tests![
    a_killed_daemon_loses_no_routed_message,
    a_stopped_daemon_loses_no_routed_message,
    a_killed_daemon_interrupts_no_direct_traffic,
    a_stopped_daemon_interrupts_no_direct_traffic,
    without_a_daemon_a_routed_send_is_disconnected_at_once,
    a_changed_configuration_takes_ends_and_brings_others,
    what_comes_from_queues_and_signals_arrives_after_a_restart,
];

/// Between two messages: the receiver keeps up, and with what its ring holds it may stall for a
/// second and a half.
const PAUSE_US: u64 = 200;
/// A refusal is no wait: far above what a busy machine adds to a call, far below any bound of
/// rtd's.
const AT_ONCE_NS: u64 = 3_000_000_000;
const LAST: u64 = u64::MAX;

fn config(i: &Instance) -> String {
    let block = "overflow = \"block:10s\"";
    planner_and_arm(i, "maxmsg = 8192\nmsgsize = 64", block, block)
}

/// How a daemon ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Kill,
    Terminate,
}

fn end(daemon: Daemon, how: End) -> anyhow::Result<()> {
    match how {
        End::Kill => daemon.kill(),
        End::Terminate => daemon.stop().map(drop),
    }
}

/// Numbers with their sequences, in the order in which they came; once each.
fn came(got: &[Got]) -> anyhow::Result<BTreeMap<u64, u64>> {
    let mut came = BTreeMap::new();
    let mut last: Option<(u64, u64)> = None;
    for Run {
        number,
        sequence,
        count,
        missed,
        ..
    } in runs(got)
    {
        if *number == LAST {
            continue;
        }
        let before = last.map_or(0, |(_, sequence)| sequence);
        ensure!(
            last.is_none_or(|(n, s)| *number > n && *sequence > s),
            "out of order or twice: {got:?}"
        );
        // What is missing is said.
        ensure!(
            *missed == sequence - before - 1,
            "missed {missed}, {before} and then {sequence}: {got:?}"
        );
        came.extend((0..*count).map(|n| (number + n, sequence + n)));
        last = Some((number + count - 1, sequence + count - 1));
    }
    Ok(came)
}

/// Every number that was sent came, with its sequence. Of the others at most one per end of a
/// daemon came: the one that was refused in the very instant.
pub fn nothing_lost(tried: &[Tried], got: &[Got], ends: u64) -> anyhow::Result<()> {
    let mut came = came(got)?;
    for t in tried.iter().filter(|t| t.refused.is_none()) {
        for n in 0..t.count {
            let there = came.remove(&(t.number + n)) == Some(t.sequence + n);
            ensure!(
                there,
                "{} was sent and is lost: {tried:#?}\n{got:#?}",
                t.number + n
            );
        }
    }
    ensure!(
        came.len() as u64 <= ends,
        "came without having been sent: {came:?}"
    );
    let gaps: u64 = runs(got).iter().map(|run| run.missed).sum();
    ensure!(gaps + came.len() as u64 <= ends, "{gaps} gaps: {got:?}");
    Ok(())
}

/// Routed traffic over several lives of the daemon.
fn routed(how: End, name: &str) -> anyhow::Result<()> {
    const ROUNDS: u64 = 6;
    let i = Instance::new()?;
    let text = config(&i);
    let mut daemon = Daemon::start(&text)?;
    let mut arm = Peer::with_inbox(&i, "arm")?;
    let mut planner = Peer::from_endpoint(&i, "planner", "cmd")?;
    arm.ask_until(&format!("number {LAST}"))?;
    planner.flood("cmd", PAUSE_US)?;
    let flows = || i.until("traffic", |page| page.routes[0].ledger.delivered > 100);
    let mut ready_ns = Vec::new();
    for round in 0..ROUNDS {
        flows().with_context(|| format!("round {round}"))?;
        end(daemon, how)?;
        daemon = Daemon::start(&text)?;
        ready_ns.push(monotonic_ns());
    }
    flows()?;
    let tried = planner.flooded()?;
    let refused: Vec<_> = tried.iter().filter(|t| t.refused.is_some()).collect();
    ensure!(
        refused
            .iter()
            .all(|t| t.refused == Some(order::Refused::Disconnected) && t.longest_ns < AT_ONCE_NS),
        "{refused:?}"
    );
    ensure!(
        refused.len() as u64 >= ROUNDS,
        "the sender noticed nothing: {tried:?}"
    );
    planner.number("cmd", LAST)?;
    let got = arm.answered_until(&format!("number {LAST}"))?;
    nothing_lost(&tried, &got, ROUNDS)?;
    let ups = events(&got).iter().filter(|event| **event == "up").count() as u64;
    ensure!(
        ups == ROUNDS
            && !events(&got)
                .iter()
                .any(|event| event.starts_with("messages")),
        "{got:?}"
    );
    let page = i.snapshot()?;
    ensure!(
        page.routes.iter().all(|route| route.ledger.balances()),
        "{page:?}"
    );
    println!(
        "{name}: READY to the first new routed message received, us: {:?}",
        recovery_us(&got, &ready_ns)
    );
    Ok(())
}

/// From each READY to the first message that was sent after it; numbers that were refused in
/// between begin a run.
fn recovery_us(got: &[Got], ready_ns: &[u64]) -> Vec<u64> {
    let first_after = |ready: &u64| {
        let first = runs(got)
            .into_iter()
            .map(|run| run.received_ns)
            .find(|received| received > ready);
        first.map_or(0, |received| (received - ready) / 1000)
    };
    ready_ns.iter().map(first_after).collect()
}

fn a_killed_daemon_loses_no_routed_message() -> anyhow::Result<()> {
    routed(End::Kill, "kill -9")
}

fn a_stopped_daemon_loses_no_routed_message() -> anyhow::Result<()> {
    routed(End::Terminate, "SIGTERM")
}

/// Direct traffic goes on without a daemon, and through the change of rings that the next one
/// brings.
fn direct(how: End) -> anyhow::Result<()> {
    let i = Instance::new()?;
    let text = config(&i);
    let mut daemon = Daemon::start(&text)?;
    let mut arm = Peer::with_inbox(&i, "arm")?;
    let mut planner = Peer::from_endpoint(&i, "planner", "fast")?;
    planner.reach("fast")?;
    planner.flood("fast", PAUSE_US)?;
    let mut got = arm.got(500)?;
    for round in 0..3 {
        end(daemon, how)?;
        got.extend(arm.got_until("event down")?);
        // No daemon is there now.
        let alone = arm.got(500)?;
        ensure!(events(&alone).is_empty(), "{alone:?}");
        got.extend(alone);
        daemon = Daemon::start(&text)?;
        got.extend(arm.got_until("event up")?);
        // What the new daemon counts goes through the ring that it made.
        let adopted = i.until("the new ring is in use", |page| {
            page.routes[1].ledger.accepted > 100
        });
        adopted.with_context(|| format!("round {round}"))?;
        got.extend(arm.got(500)?);
    }
    let tried = planner.flooded()?;
    planner.number("fast", LAST)?;
    got.extend(arm.got_until(&format!("number {LAST}"))?);
    // No send was refused, and every number came with the sequence that is its own.
    let [
        Tried {
            refused: None,
            number: 1,
            sequence: 1,
            count,
            ..
        },
    ] = tried.as_slice()
    else {
        anyhow::bail!("interrupted: {tried:?}")
    };
    let count = *count;
    ensure!(
        came(&got)?.into_iter().eq((1..=count).map(|n| (n, n))),
        "{count} were sent: {got:?}"
    );
    let others: Vec<_> = events(&got)
        .into_iter()
        .filter(|e| !matches!(*e, "up" | "down"))
        .collect();
    ensure!(
        others.iter().all(|event| event.starts_with("back planner")),
        "{others:?}"
    );
    let page = i.until("all is accounted", |page| page.routes[1].ledger.queued == 0)?;
    let ledger = page.routes[1].ledger;
    ensure!(
        ledger.balances() && ledger.delivered == ledger.accepted,
        "{ledger:?}"
    );
    Ok(())
}

fn a_killed_daemon_interrupts_no_direct_traffic() -> anyhow::Result<()> {
    direct(End::Kill)
}

fn a_stopped_daemon_interrupts_no_direct_traffic() -> anyhow::Result<()> {
    direct(End::Terminate)
}

/// While the daemon is away nothing can be sent through it, which is told at once, and told away
/// again.
fn without_a_daemon_a_routed_send_is_disconnected_at_once() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let text = config(&i);
    for how in [End::Kill, End::Terminate] {
        let daemon = Daemon::start(&text)?;
        let mut arm = Peer::with_inbox(&i, "arm")?;
        let mut planner = Peer::from_endpoint(&i, "planner", "cmd")?;
        planner.open_inbox()?;
        ensure!(planner.number("cmd", 1)? == 1);
        arm.got_until("number 1")?;
        end(daemon, how)?;
        planner.got_until("event down")?;
        let says = [
            "Disconnected",
            "Down",
            "rtd is away; the session connects again by itself",
        ];
        planner.refused(send_number("cmd", 2), &says)?;
        planner.refused(
            order::Send::Loan {
                endpoint: "cmd",
                len: 8,
            },
            &says,
        )?;
        planner.refused(
            order::Send::Claim("arm.cmd"),
            &["Away", "no connection to rtd"],
        )?;
        // Known from the first attempt to connect again on.
        crate::util::eventually(|| {
            let state = planner.state().ok()?;
            (state.starts_with("Down(") && state.contains("rtd is not running there")).then_some(())
        })?;
        let _daemon = Daemon::start(&text)?;
        planner.got_until("event up")?;
        ensure!(planner.state()? == "Up");
        planner.reach("cmd")?;
        // Nothing was sent meanwhile, so there is no gap.
        ensure!(planner.number("cmd", 3)? == 2);
        let got = arm.got_until("number 3")?;
        ensure!(
            matches!(runs(&got).as_slice(), [run] if (run.sequence, run.missed) == (2, 0)),
            "{got:?}"
        );
    }
    Ok(())
}

/// The next daemon has another configuration: what is gone says so, what is new can be had, and
/// what stayed goes on.
fn a_changed_configuration_takes_ends_and_brings_others() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let before = config(&i);
    let after = i.head()
        + &process("planner")
        + &process("arm")
        + &lane_end("cmd", "planner", "")
        + &lane_end("new", "planner", "")
        + &lane_end("arm.cmd", "arm", "")
        + &lane_end("arm.new", "arm", "")
        + &route("cmd", &["arm.cmd"], "")
        + &route("new", &["arm.new"], "");
    let daemon = Daemon::start(&before)?;
    let mut arm = Peer::with_inbox(&i, "arm")?;
    let mut planner = Peer::from_endpoint(&i, "planner", "cmd")?;
    planner.claim("fast")?;
    planner.open_inbox()?;
    planner.reach("fast")?;
    planner.number("fast", 1)?;
    arm.got_until("number 1")?;
    planner.refused(
        order::Send::Claim("new"),
        &["Unknown", "no endpoint is named `new`"],
    )?;
    end(daemon, End::Terminate)?;
    planner.got_until("event down")?;
    let daemon = Daemon::start(&after)?;
    planner.got_until("event up")?;
    arm.got_until("event up")?;
    let says = [
        "Disconnected",
        "Removed",
        "the new configuration has no [[route]] from it",
    ];
    planner.refused(send_number("fast", 2), &says)?;
    planner.refused(
        order::Send::Claim("fast"),
        &["Unknown", "no endpoint is named `fast`"],
    )?;
    planner.claim("new")?;
    for (endpoint, number) in [("cmd", 3), ("new", 4)] {
        planner.reach(endpoint)?;
        planner.number(endpoint, number)?;
        let got = arm.got_until(&format!("number {number}"))?;
        ensure!(
            matches!(runs(&got).as_slice(), [run] if run.from == endpoint),
            "{got:?}"
        );
    }
    // And back: the old end goes on counting where it was.
    end(daemon, End::Kill)?;
    planner.got_until("event down")?;
    let daemon = Daemon::start(&before)?;
    planner.got_until("event up")?;
    planner.reach("fast")?;
    ensure!(planner.number("fast", 5)? == 2);
    arm.got_until("number 5")?;
    // A configuration without the process keeps its session out, which tries on.
    end(daemon, End::Terminate)?;
    planner.got_until("event down")?;
    let other = i.head()
        + &process("arm")
        + &i.mqueue("a", "")
        + &i.mqueue("b", "")
        + &route("a", &["b"], "");
    let daemon = Daemon::start(&other)?;
    let refused = || {
        planner
            .state()
            .ok()
            .filter(|s| s.contains("no process is named"))
    };
    crate::util::eventually(refused).context("never told that there is no such process")?;
    end(daemon, End::Kill)?;
    let _daemon = Daemon::start(&before)?;
    planner.got_until("event up")?;
    planner.reach("cmd")?;
    planner.number("cmd", 6)?;
    arm.got_until("number 6")?;
    Ok(())
}

/// Queues and signals have no numbers of their own: the daemon counts them, and each life of it
/// from 1. Inboxes and dispatchers that outlive it take these numbers for new ones, and nothing is
/// reported as missed.
fn what_comes_from_queues_and_signals_arrives_after_a_restart() -> anyhow::Result<()> {
    const BEFORE: u64 = 40;
    const AFTER: u64 = 5;
    let i = Instance::new()?;
    let ring = "maxmsg = 64\nmsgsize = 64";
    let text = i.head()
        + &process("arm")
        + &process("drive")
        + &lane_end("arm.in", "arm", ring)
        + &lane_end("arm.rang", "arm", ring)
        + &signal("drive.go", "drive", "SIGRTMIN+3", ring)
        + &signal("rang", "", "SIGRTMIN+5", "")
        + &i.mqueue("to-lane", "")
        + &i.mqueue("to-signal", "")
        + &route("to-lane", &["arm.in"], "")
        + &route("rang", &["arm.rang"], "accept_claimed = true")
        + &route("to-signal", &["drive.go"], "");
    let mut daemon = Daemon::start(&text)?;
    let mut arm = Peer::with_inbox(&i, "arm")?;
    let mut drive = Peer::start()?;
    drive.block_for_handlers(rt(3))?;
    drive.connect(&i, "drive")?;
    drive.handle(rt(3))?;
    let mut senders = [
        Peer::sender(&i.queue("to-lane"))?,
        Peer::sender(&i.queue("to-signal"))?,
    ];
    let (mut first, mut handled) = (0, 0);
    for (round, how) in [None, Some(End::Kill), Some(End::Terminate), Some(End::Kill)]
        .into_iter()
        .enumerate()
    {
        if let Some(how) = how {
            end(daemon, how)?;
            daemon = Daemon::start(&text)?;
            arm.got_until("event up")?;
            let alive =
                |page: &Snapshot| page.processes.iter().all(|p| p.state == PeerState::Alive);
            i.until("both are back", alive)?;
        }
        let count = if round == 0 { BEFORE } else { AFTER };
        for sender in &mut senders {
            sender.stream(first, count)?;
        }
        for number in first..first + count {
            senders[0].ring(daemon.pid(), rt(5), number)?;
        }
        let got = arm.got(2 * usize::try_from(count)?)?;
        for from in ["to-lane", "rang"] {
            let own: Vec<_> = got
                .iter()
                .filter(|g| matches!(g, Got::Run(run) if run.from == from))
                .collect();
            unbroken(&own.into_iter().cloned().collect::<Vec<_>>(), first, count)
                .with_context(|| format!("{from}, round {round}, {how:?}"))?;
        }
        handled += count;
        drive
            .counts_up(0, handled)
            .with_context(|| format!("round {round}, {how:?}"))?;
        first += count;
        // A lane publishes its ledger after the delivery.
        i.until("all are in the ledgers", |page| {
            page.routes.iter().all(|r| r.ledger.delivered == count)
        })?;
        ensure!(i.snapshot()?.routes.iter().all(|r| r.ledger.balances()));
    }
    let counters = arm.counters()?;
    ensure!(
        (counters.duplicates, counters.missed) == (0, 0),
        "{counters:?}"
    );
    ensure!(drive.dispatched()?.duplicates == 0, "duplicates");
    Ok(())
}
