//! Sending through a session: every refusal provoked, and senders that are killed at every step.

use crate::util::book::End::{Delivered, PeerDead, Queued, Rejected};
use crate::util::book::{self, ledger};
use crate::util::order;
use crate::util::session::send_number;
use crate::util::session::{Got, count, events, planner_and_arm, runs, unbroken};
use crate::util::talk::unhex;
use crate::util::{Daemon, Instance, Peer};
use anyhow::{Context as _, ensure};
use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use rtcore::message::Reject;

tests![
    a_direct_receiver_that_is_stopped_makes_its_sender_full,
    a_routed_receiver_that_is_stopped_makes_its_sender_full,
    what_a_lane_rejects_is_missing_at_the_receiver,
    a_message_longer_than_a_slot_is_refused_with_the_bound,
    a_receiver_that_ended_is_reported_with_its_cause,
    a_receiver_that_never_came_is_reported_as_not_connected,
    a_sender_killed_at_work_loses_no_message_that_it_sent,
    a_sender_killed_half_way_through_a_slot_sends_nothing_of_it,
];

const ROUTED: &str = "cmd->arm.cmd";
const DIRECT: &str = "fast->arm.fast";

/// Rings of eight messages of up to 64 bytes.
fn config(i: &Instance) -> String {
    planner_and_arm(i, "maxmsg = 8\nmsgsize = 64", "capacity = 4", "")
}

/// The same with a sender that waits for its receiver.
fn patient(i: &Instance) -> String {
    config(i)
        .replace("capacity = 4", "capacity = 4\noverflow = \"block:10s\"")
        .replace(
            "path = \"direct\"",
            "path = \"direct\"\noverflow = \"block:10s\"",
        )
}

fn planner(i: &Instance) -> anyhow::Result<Peer> {
    let mut planner = Peer::from_endpoint(i, "planner", "cmd")?;
    planner.claim("fast")?;
    Ok(planner)
}

/// A direct receiver that stands still fills its ring, and no more; what was sent is there when it
/// goes on.
fn a_direct_receiver_that_is_stopped_makes_its_sender_full() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let daemon = Daemon::start(&config(&i))?;
    let mut arm = Peer::with_inbox(&i, "arm")?;
    let mut planner = planner(&i)?;
    planner.reach("fast")?;
    arm.freeze()?;
    let (sent, why) = planner.fill("fast", 1)?;
    ensure!(sent == 8, "{sent} in a ring of 8: {why}");
    ensure!(
        why.contains("Full") && why.contains("`fast` is full: 8 messages wait"),
        "{why}"
    );
    i.ledger_is(DIRECT, 9, &[(Queued, 8), (Rejected(Reject::Full), 1)])?;
    // No lane thread is on this path, and the loss is reported all the same.
    daemon.logged(&format!(
        "route {DIRECT}: 1 lost (full): arm.fast is full (maxmsg = 8 of its ring)"
    ))?;
    i.until("it is losing", |s| {
        s.routes[1].losses.losing(s.taken_ns).len() == 1
    })?;
    arm.thaw()?;
    unbroken(&arm.got_until("number 8")?, 1, 8)?;
    // What was refused has no number: the next one follows the last that went.
    ensure!(planner.number("fast", 9)? == 9);
    unbroken(&arm.got_until("number 9")?, 9, 1)?;
    i.ledger_is(DIRECT, 10, &[(Delivered, 9), (Rejected(Reject::Full), 1)])?;
    Ok(())
}

/// A routed receiver that stands still: its ring, the route's capacity, then what the lane holds in
/// hand, then the sender's ring are full, and only then the sender is told.
fn a_routed_receiver_that_is_stopped_makes_its_sender_full() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let text = config(&i).replace("capacity = 4", "capacity = 4\noverflow = \"block:10s\"");
    let _daemon = Daemon::start(&text)?;
    let mut arm = Peer::with_inbox(&i, "arm")?;
    let mut planner = planner(&i)?;
    arm.freeze()?;
    // Whatever the lane has taken by then, the sender's own ring is full at last: 8 delivered, 4
    // queued, 8 not taken, of which the lane has one in hand.
    let mut sent = 0;
    i.until("the lane is held", |page| {
        let Ok((more, why)) = planner.fill("cmd", sent + 1) else {
            return false;
        };
        assert!(
            why.contains("Full") && why.contains("`cmd` is full: 8 messages wait"),
            "{why}"
        );
        sent += more;
        let now = page.routes[0].ledger;
        sent == 20 && (now.delivered, now.queued) == (8, 5)
    })?;
    arm.thaw()?;
    unbroken(&arm.got_until("number 20")?, 1, 20)?;
    i.ledger_is(ROUTED, 20, &[(Delivered, 20)])?;
    Ok(())
}

/// With `reject` the lane takes what the sender sends and refuses what finds no room; the receiver
/// sees how many.
fn what_a_lane_rejects_is_missing_at_the_receiver() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let _daemon = Daemon::start(&config(&i))?;
    let mut arm = Peer::with_inbox(&i, "arm")?;
    let mut planner = planner(&i)?;
    arm.freeze()?;
    for number in 1..=20 {
        planner.number("cmd", number)?;
        i.until("taken", |page| page.routes[0].ledger.accepted == number)?;
    }
    i.ledger_is(
        ROUTED,
        20,
        &[(Delivered, 8), (Queued, 4), (Rejected(Reject::Full), 8)],
    )?;
    arm.thaw()?;
    let got = arm.got_until("number 12")?;
    unbroken(&got, 1, 12)?;
    planner.number("cmd", 21)?;
    let got = arm.got_until("number 21")?;
    ensure!(
        matches!(runs(&got).as_slice(), [run] if (run.missed, run.sequence) == (8, 21)),
        "{got:?}"
    );
    i.ledger_is(ROUTED, 21, &[(Delivered, 13), (Rejected(Reject::Full), 8)])?;
    Ok(())
}

fn a_message_longer_than_a_slot_is_refused_with_the_bound() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let _daemon = Daemon::start(&config(&i))?;
    let mut arm = Peer::with_inbox(&i, "arm")?;
    let mut planner = planner(&i)?;
    planner.reach("fast")?;
    for endpoint in ["cmd", "fast"] {
        let (fits, long) = ("ab".repeat(64), "ab".repeat(65));
        let says = [
            "TooLarge",
            &format!("`{endpoint}` takes 64 bytes, this message has 65"),
        ];
        planner.refused(
            order::Send::Bytes {
                endpoint,
                bytes: unhex(&long)?,
            },
            &says,
        )?;
        planner.refused(order::Send::Loan { endpoint, len: 65 }, &says)?;
        // It cost no number.
        let sequence = planner
            .tell(order::Send::Bytes {
                endpoint,
                bytes: unhex(&fits)?,
            })?
            .number()?;
        ensure!(sequence == 1);
        let got = arm.got_until(&format!("bytes {endpoint}"))?;
        ensure!(
            got.last() == Some(&Got::Other(format!("bytes {endpoint} {fits}"))),
            "{got:?}"
        );
    }
    i.ledger_is(ROUTED, 1, &[(Delivered, 1)])?;
    i.ledger_is(
        DIRECT,
        3,
        &[(Delivered, 1), (Rejected(Reject::TooLarge), 2)],
    )?;
    Ok(())
}

/// Killed or ended, the receiver's way out is in the error of either path.
fn a_receiver_that_ended_is_reported_with_its_cause() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let _daemon = Daemon::start(&config(&i))?;
    let mut planner = planner(&i)?;
    let ends = [
        (None, "Signal(9)", "process `arm` ended (killed by SIGKILL)"),
        (Some(7), "Exit(7)", "process `arm` ended (exit status 7)"),
        (Some(0), "Exit(0)", "process `arm` ended (exit status 0)"),
    ];
    // Of an exit with 0 that nobody has waited for yet, the kernel tells root alone.
    let told = if geteuid().is_root() { 3 } else { 2 };
    for (status, cause, words) in ends.into_iter().take(told) {
        let mut arm = Peer::with_inbox(&i, "arm")?;
        planner.reach("fast")?;
        planner.reach("cmd")?;
        match status {
            None => arm.signal(Signal::SIGKILL)?,
            Some(status) => arm.ask(order::Process::Exit(status))?,
        }
        for endpoint in ["cmd", "fast"] {
            let why = crate::util::eventually(|| match planner.fill(endpoint, 1) {
                Ok((_, why)) if why.contains(cause) => Some(why),
                _ => None,
            });
            let why = why.with_context(|| format!("{endpoint}: never told {cause}"))?;
            ensure!(why.contains("PeerDead") && why.contains(words), "{why}");
        }
    }
    let page = i.until("all is settled", |page| {
        page.routes.iter().all(|route| route.ledger.queued == 0)
    })?;
    for route in &page.routes {
        let l = route.ledger;
        let full = l.rejected[Reject::Full as usize];
        book::check_ledger(
            &l,
            l.accepted,
            &[
                (Delivered, l.delivered),
                (PeerDead, l.peer_dead),
                (Rejected(Reject::Full), full),
            ],
        )?;
    }
    Ok(())
}

/// Before anybody has registered as the receiver there is no cause to tell.
fn a_receiver_that_never_came_is_reported_as_not_connected() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let _daemon = Daemon::start(&config(&i))?;
    let mut planner = planner(&i)?;
    for endpoint in ["cmd", "fast"] {
        let says = [
            "PeerDead",
            "ending: None",
            "process `arm` is not connected; start it",
        ];
        planner.refused(send_number(endpoint, 1), &says)?;
    }
    let page = i.snapshot()?;
    ensure!(
        page.routes
            .iter()
            .all(|route| route.ledger == ledger(0, &[])),
        "{:?}",
        page.routes
    );
    Ok(())
}

/// kill -9 of a sender at work: what it was told is sent arrives, all of it, once and in order.
fn a_sender_killed_at_work_loses_no_message_that_it_sent() -> anyhow::Result<()> {
    const ROUNDS: u64 = 5;
    let i = Instance::new()?;
    let _daemon = Daemon::start(&patient(&i))?;
    let mut arm = Peer::with_inbox(&i, "arm")?;
    for (endpoint, name) in [("cmd", ROUTED), ("fast", DIRECT)] {
        let mut total = 0;
        for round in 0..ROUNDS {
            let mut planner = planner_with(&i, endpoint)?;
            let pid = planner.pid();
            planner.ask(order::Send::Report(endpoint))?;
            arm.ask_until(&format!("number {}", u64::MAX))?;
            let mut said = 0;
            while said < 200 + 37 * round {
                said = planner.answer()?.number()?;
            }
            planner.signal(Signal::SIGKILL)?;
            if let Some(last) = planner.last_answers()?.pop() {
                said = last.number()?;
            }
            // What its successor sends comes behind all that it has sent.
            planner_with(&i, endpoint)?.number(endpoint, u64::MAX)?;
            let got = arm.answered_until(&format!("number {}", u64::MAX))?;
            let killed = format!("lost planner {pid} Signal(9)");
            ensure!(
                events(&got).contains(&killed.as_str()),
                "not told: {killed}: {got:?}"
            );
            let own: Vec<_> = runs(&got)
                .into_iter()
                .filter(|run| run.pid == pid)
                .collect();
            let came: u64 = own.iter().map(|run| run.count).sum();
            // An event may come between two of them.
            let mut next = 1;
            for run in &own {
                ensure!(
                    (run.number, run.sequence, run.missed) == (next, next, 0) && run.verified,
                    "{own:?}"
                );
                next += run.count;
            }
            // At most the one more that it had sent and not said yet.
            ensure!(
                (said..=said + 1).contains(&came),
                "{endpoint}: {came} came of {said}"
            );
            total += came + 1;
            ensure!(count(&got) == came + 1, "{got:?}");
            i.ledger_is(name, total, &[(Delivered, total)])?;
        }
    }
    Ok(())
}

fn planner_with(i: &Instance, endpoint: &str) -> anyhow::Result<Peer> {
    let mut planner = planner(i)?;
    planner.reach(endpoint)?;
    Ok(planner)
}

/// Killed half-way through a slot: nothing of it comes, and that it was torn is known.
fn a_sender_killed_half_way_through_a_slot_sends_nothing_of_it() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let daemon = Daemon::start(&config(&i))?;
    let mut arm = Peer::with_inbox(&i, "arm")?;
    for (round, endpoint) in (0..).zip(["cmd", "fast"]) {
        let mut first = planner_with(&i, endpoint)?;
        first.number(endpoint, 1)?;
        first.tell(order::Send::Loan { endpoint, len: 64 })?;
        first.signal(Signal::SIGKILL)?;
        let killed = format!("event lost planner {} Signal(9)", first.pid());
        let mut got = arm.got_until(&killed)?;
        // The next one's messages come as if nothing had been.
        let mut next = planner_with(&i, endpoint)?;
        next.number(endpoint, 2)?;
        got.extend(arm.got_until("number 2")?);
        let came: Vec<_> = runs(&got)
            .iter()
            .map(|run| (run.number, run.count, run.missed, run.pid))
            .collect();
        ensure!(
            came == [(1, 1, 0, first.pid()), (2, 1, 0, next.pid())],
            "{got:?}"
        );
        ensure!(
            events(&got)
                .iter()
                .all(|event| !event.starts_with("corrupt")),
            "{got:?}"
        );
        let counters = arm.counters()?;
        ensure!(
            (counters.torn, counters.corrupt) == (round, 0),
            "{counters:?}"
        );
        next.signal(Signal::SIGKILL)?;
        arm.got_until(&format!("event lost planner {}", next.pid()))?;
    }
    let torn =
        "route cmd->arm.cmd: the sender ended while it wrote a message; the message was never sent";
    daemon.logged(torn)?;
    ensure!(
        daemon.log().matches("the message was never sent").count() == 1,
        "{}",
        daemon.log()
    );
    for name in [ROUTED, DIRECT] {
        i.ledger_is(name, 2, &[(Delivered, 2)])?;
    }
    Ok(())
}
