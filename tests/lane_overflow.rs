//! What happens to a message whose receiver's ring is full, with exact counts and exact contents,
//! and what the sender notices of it; and the lanes that do not sleep. (Each policy for each kind of
//! receiver: `policies`.)

use crate::util::book::End::{Delivered, Expired, Queued, Rejected};
use crate::util::lane_talk::{clean, endpoint, pair, peers};
use crate::util::needs::SPARE_CPU;
use crate::util::order;
use crate::util::{Daemon, Instance, Peer, book, eventually, kernel, process, route};
use rtcore::message::Reject;
use rtcore::sys::cpus;
use std::time::Instant;

tests![
    block_fills_the_senders_ring_and_loses_nothing,
    a_send_waits_at_most_its_bound_for_room,
    a_direct_sender_gets_an_error_for_what_does_not_fit,
    what_waits_for_a_stopped_receiver_expires,
    a_ring_above_its_rate_is_left_unread,
    a_rate_of_one_route_holds_up_no_other,
    a_full_ring_holds_up_no_other,
    order_holds_while_a_slow_receiver_reads,
    a_lane_spins_on_several_rings_and_sleeps_in_all_of_them,
    a_lane_polls_several_rings needs(SPARE_CPU),
];

/// Within the bound the sender's own ring is what holds it back, and nothing is lost: four
/// delivered, two queued, one in the lane's hand, whose slot is the sender's no sooner than it is
/// settled.
fn block_fills_the_senders_ring_and_loses_nothing() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let daemon = Daemon::start(&pair(
        &instance,
        [4, 4],
        "capacity = 2\noverflow = \"block:10s\"",
    ))?;
    let [mut a, mut b] = peers(&instance)?;
    for n in 0..10_u64 {
        a.lane_send("a.out", &n.to_ne_bytes())?
            .map_err(anyhow::Error::msg)?;
    }
    instance.ledger_is("a.out->b.in", 7, &[(Delivered, 4), (Queued, 3)])?;
    assert_eq!(a.burst("a.out", 10, 3)?, (0, 3));
    // The eleventh waits, and goes in when the receiver reads.
    a.ask(order::Send::Timed {
        endpoint: "a.out",
        bytes: 10_u64.to_ne_bytes().to_vec(),
        intended_ns: None,
    })?;
    assert_eq!(b.take_numbers(11)?, (0..=10).collect::<Vec<_>>());
    a.answer()?;
    instance.ledger_is("a.out->b.in", 11, &[(Delivered, 11)])?;
    assert_eq!(b.counters()?, clean(11, 0));
    daemon.stop()?;
    Ok(())
}

/// A send waits for room as long as its route says and no longer; without `block` not at all.
fn a_send_waits_at_most_its_bound_for_room() -> anyhow::Result<()> {
    const BOUND_NS: u64 = 300_000_000;
    const SECONDS_NS: u64 = 8_000_000_000;
    for (overflow, at_least_ns) in [("block:300ms", BOUND_NS), ("reject", 0)] {
        let instance = Instance::new()?;
        let more = format!("overflow = \"{overflow}\"");
        let daemon = Daemon::start(&pair(&instance, [4, 4], &more))?;
        let [mut a, mut b] = peers(&instance)?;
        daemon.freeze()?;
        assert_eq!(a.burst("a.out", 0, 4)?, (4, 0));
        let (sent, took_ns) = a.timed_send("a.out", b"one too many")?;
        assert_eq!(sent, Err(order::Refused::Full), "{overflow}");
        assert!(
            (at_least_ns..at_least_ns + SECONDS_NS).contains(&took_ns),
            "{overflow}: {took_ns} ns"
        );
        daemon.signal(nix::sys::signal::Signal::SIGCONT)?;
        assert_eq!(b.take_numbers(4)?, [0, 1, 2, 3]);
        // The one that was refused has no number: the next follows without a gap.
        assert_eq!(a.lane_send("a.out", &4_u64.to_ne_bytes())?, Ok(5));
        assert_eq!(b.take(1)?[0].missed, 0);
        instance.ledger_is("a.out->b.in", 5, &[(Delivered, 5)])?;
    }
    Ok(())
}

/// Direct: the receiver's ring is the only one; what does not fit is the sender's to know, at once
/// or after the bound.
fn a_direct_sender_gets_an_error_for_what_does_not_fit() -> anyhow::Result<()> {
    for overflow in ["reject", "block:100ms"] {
        let instance = Instance::new()?;
        let more = format!("path = \"direct\"\noverflow = \"{overflow}\"");
        let daemon = Daemon::start(&pair(&instance, [64, 4], &more))?;
        let [mut a, mut b] = peers(&instance)?;
        assert_eq!(a.burst("a.out", 0, 10)?, (4, 6), "try_send never waits");
        let (sent, took_ns) = a.timed_send("a.out", b"")?;
        assert_eq!(sent, Err(order::Refused::Full));
        assert!(overflow == "reject" || took_ns >= 100_000_000, "{took_ns}");
        instance.ledger_is(
            "a.out->b.in",
            11,
            &[(Queued, 4), (Rejected(Reject::Full), 7)],
        )?;
        assert_eq!(b.take_numbers(4)?, [0, 1, 2, 3]);
        instance.ledger_is(
            "a.out->b.in",
            11,
            &[(Delivered, 4), (Rejected(Reject::Full), 7)],
        )?;
        daemon.stop()?;
    }
    Ok(())
}

/// In front of a receiver that is stopped in the middle of its work, what waits longer than its
/// time to live expires; what its ring had taken expires in its hands when it goes on.
fn what_waits_for_a_stopped_receiver_expires() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let daemon = Daemon::start(&pair(&instance, [16, 4], "ttl = \"20ms\""))?;
    let [mut a, mut b] = peers(&instance)?;
    b.freeze()?;
    assert_eq!(a.burst("a.out", 0, 10)?, (10, 0));
    instance.ledger_is("a.out->b.in", 10, &[(Delivered, 4), (Expired, 6)])?;
    b.thaw()?;
    assert_eq!(b.left()?, []);
    a.lane_send("a.out", &10_u64.to_ne_bytes())?
        .map_err(anyhow::Error::msg)?;
    let got = b.take(1)?;
    assert_eq!((got[0].number(), got[0].missed), (Some(10), 10));
    instance.ledger_is("a.out->b.in", 11, &[(Delivered, 5), (Expired, 6)])?;
    daemon.stop()?;
    Ok(())
}

/// Above its rate a ring is left unread: its sender finds it full or waits for room, and nothing
/// that it sent is rejected.
fn a_ring_above_its_rate_is_left_unread() -> anyhow::Result<()> {
    const RATE_HZ: u64 = 50;
    for wait in ["block", "spin:50"] {
        let instance = Instance::new()?;
        let more = format!("rate_hz = {RATE_HZ}\nburst = 3\noverflow = \"block:10s\"");
        let config = pair(&instance, [4, 4], &more);
        let daemon = Daemon::start(&config.replace(
            "priority = 50",
            &format!("priority = 50\nwait = \"{wait}\""),
        ))?;
        let [mut a, mut b] = peers(&instance)?;
        let began = Instant::now();
        let (sent, full) = a.burst("a.out", 0, 40)?;
        // Four slots; at most three more at once, and what became due meanwhile.
        let most = 3 + 4 + 1 + u64::try_from(began.elapsed().as_millis())? * RATE_HZ / 1000;
        assert!(
            (4..=most).contains(&sent) && sent + full == 40,
            "{sent} sent, {full} found it full"
        );
        // A sender that waits for room is held to the rate.
        let began = Instant::now();
        a.lane_stream("a.out", 40, 20)?;
        let took = began.elapsed();
        assert!(
            u64::try_from(took.as_millis())? >= (20 - 4 - 3) * 1000 / RATE_HZ,
            "{took:?}"
        );
        let all = usize::try_from(sent + 20)?;
        assert_eq!(b.take_numbers(all)?.len(), all);
        instance.ledger_is("a.out->b.in", sent + 20, &[(Delivered, sent + 20)])?;
        assert_eq!(b.counters()?, clean(all as u64, 0));
        daemon.stop()?;
    }
    Ok(())
}

/// A ring that feeds a route without a limit is read for that one; the other rejects what is above
/// its rate.
fn a_rate_of_one_route_holds_up_no_other() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let config = instance.head()
        + &process("a")
        + &process("b")
        + &endpoint("a.out", "a", 16)
        + &endpoint("b.in", "b", 64)
        + &endpoint("b.all", "b", 64)
        + &route("a.out", &["b.in"], "rate_hz = 1\nburst = 3")
        + &route("a.out", &["b.all"], "");
    let daemon = Daemon::start(&config)?;
    let began = Instant::now();
    let [mut a, _b] = peers(&instance)?;
    assert_eq!(a.burst("a.out", 0, 10)?, (10, 0));
    instance.ledger_is("a.out->b.all", 10, &[(Delivered, 10)])?;
    // The thread shows one route after the other.
    let snapshot = instance.until("the other route has them too", |page| {
        book::of(page, "a.out->b.in").is_ok_and(|ledger| ledger.accepted == 10)
    })?;
    let ledger = book::of(&snapshot, "a.out->b.in")?;
    let most = 3 + began.elapsed().as_secs() + 1;
    assert!(
        (3..=most).contains(&ledger.delivered) && ledger.accepted == 10,
        "{ledger:?}"
    );
    assert_eq!(
        ledger.rejected[Reject::Rate as usize],
        10 - ledger.delivered
    );
    daemon.stop()?;
    Ok(())
}

/// In one route a receiver that does not read has its own queue: the other gets everything at once.
fn a_full_ring_holds_up_no_other() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let config = instance.head()
        + &process("a")
        + &process("stuck")
        + &process("fine")
        + &endpoint("a.out", "a", 64)
        + &endpoint("stuck.in", "stuck", 4)
        + &endpoint("fine.in", "fine", 4)
        + &route("a.out", &["stuck.in", "fine.in"], "capacity = 2");
    let daemon = Daemon::start(&config)?;
    let mut stuck = Peer::with_inbox(&instance, "stuck")?;
    let mut fine = Peer::with_inbox(&instance, "fine")?;
    let mut a = Peer::from_endpoint(&instance, "a", "a.out")?;
    a.reach("a.out")?;
    for n in 0..20_u64 {
        a.lane_send("a.out", &n.to_ne_bytes())?
            .map_err(anyhow::Error::msg)?;
        assert_eq!(fine.take_numbers(1)?, [n]);
    }
    let ends = [(Delivered, 24), (Queued, 2), (Rejected(Reject::Full), 14)];
    instance.ledger_is("a.out->stuck.in", 40, &ends)?;
    assert_eq!(stuck.take_numbers(6)?, [0, 1, 2, 3, 4, 5]);
    daemon.stop()?;
    Ok(())
}

/// While messages come and a slow receiver reads, whatever goes through the route's queue and
/// whatever goes past it, the order is the sender's.
fn order_holds_while_a_slow_receiver_reads() -> anyhow::Result<()> {
    const COUNT: u64 = 20_000;
    let instance = Instance::new()?;
    let daemon = Daemon::start(&pair(&instance, [64, 4], "capacity = 30000"))?;
    let [mut a, mut b] = peers(&instance)?;
    a.ask(order::Send::Stream {
        endpoint: "a.out",
        from: 0,
        count: COUNT,
    })?;
    assert_eq!(
        b.take_numbers(usize::try_from(COUNT)?)?,
        (0..COUNT).collect::<Vec<_>>()
    );
    a.answer()?;
    instance.ledger_is("a.out->b.in", COUNT, &[(Delivered, COUNT)])?;
    daemon.stop()?;
    Ok(())
}

/// Messages that each of three streams.
const EACH: u64 = 1000;

/// Three lane sources of one thread, all to one inbox.
fn three(instance: &Instance, lane: &str) -> String {
    let head = instance.head();
    let mut config =
        head.split("[[lane]]").next().unwrap_or_default().to_owned() + lane + &process("b");
    config += &endpoint("b.in", "b", 64);
    for name in ["x", "y", "z"] {
        config += &process(name);
        config += &endpoint(&format!("{name}.out"), name, 64);
        config += &route(
            &format!("{name}.out"),
            &["b.in"],
            "lane = \"scan\"\ncapacity = 4096",
        );
    }
    config
}

/// Streams from all three, then one message of each after `rest`.
fn from_three(instance: &Instance, rest: impl Fn() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mut b = Peer::with_inbox(instance, "b")?;
    let mut senders = Vec::new();
    for name in ["x", "y", "z"] {
        let mut sender = Peer::from_endpoint(instance, name, &format!("{name}.out"))?;
        sender.reach(&format!("{name}.out"))?;
        senders.push(sender);
    }
    for (n, (sender, name)) in (0_u64..).zip(senders.iter_mut().zip(["x", "y", "z"])) {
        sender.ask(order::Send::Stream {
            endpoint: &format!("{name}.out"),
            from: 1_000_000 * n,
            count: EACH,
        })?;
    }
    let got = b.take_numbers(3 * usize::try_from(EACH)?)?;
    for (n, (sender, name)) in (0_u64..).zip(senders.iter_mut().zip(["x", "y", "z"])) {
        sender.answer()?;
        let own: Vec<u64> = got
            .iter()
            .copied()
            .filter(|number| number / 1_000_000 == n)
            .collect();
        assert_eq!(
            own,
            (1_000_000 * n..1_000_000 * n + EACH).collect::<Vec<_>>()
        );
        instance.ledger_is(&format!("{name}.out->b.in"), EACH, &[(Delivered, EACH)])?;
    }
    for (n, (sender, name)) in (0_u64..).zip(senders.iter_mut().zip(["x", "y", "z"])) {
        rest()?;
        sender
            .lane_send(&format!("{name}.out"), &n.to_ne_bytes())?
            .map_err(anyhow::Error::msg)?;
        assert_eq!(b.take_numbers(1)?, [n]);
    }
    Ok(())
}

/// `spin` over several rings: one thread, which sleeps in all of them at once when nothing comes.
fn a_lane_spins_on_several_rings_and_sleeps_in_all_of_them() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let lane = crate::util::lane("scan", 50, "wait = \"spin:50\"");
    let daemon = Daemon::start(&three(&instance, &lane))?;
    let snapshot = instance.snapshot()?;
    assert_eq!(snapshot.workers.len(), 1);
    let tid = snapshot.workers[0].tid;
    let asleep = || kernel::thread(daemon.pid(), tid).is_ok_and(|thread| thread.state == 'S');
    from_three(&instance, || eventually(|| asleep().then_some(())))?;
    daemon.stop()?;
    Ok(())
}

/// `poll` over several rings: one thread that never sleeps.
fn a_lane_polls_several_rings() -> anyhow::Result<()> {
    let allowed = cpus::allowed()?;
    let cpu = allowed.iter().max().copied().unwrap_or(0);
    let instance = Instance::new()?;
    // Priority 1: whatever other FIFO thread wants that CPU gets it.
    let lane = format!(
        "[[lane]]\nname = \"scan\"\npriority = 1\ncpu = {cpu}\nwait = \"poll\"\nunisolated = true\n"
    );
    let daemon = Daemon::start(&three(&instance, &lane))?;
    assert_eq!(instance.snapshot()?.workers.len(), 1);
    from_three(&instance, || Ok(()))?;
    daemon.stop()?;
    Ok(())
}
