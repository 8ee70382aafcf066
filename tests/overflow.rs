//! What happens to a message that finds its receiver full, late, too fast or too long, with exact
//! counts and exact contents, in order. (Each policy for each kind of receiver: `policies`.)

use crate::util::book::End::{Delivered, Displaced, Expired, Queued, Rejected};
use crate::util::order;
use crate::util::{Daemon, Instance, Peer, eventually, held, route};
use anyhow::Context as _;
use nix::sys::signal::Signal;
use rtcore::message::Reject;
use std::time::{Duration, Instant};

tests![
    a_conflating_queue_holds_one_message_in_front_of_the_latest,
    block_loses_nothing_within_its_bound,
    what_waits_too_long_expires,
    what_is_held_too_long_expires,
    more_than_the_rate_is_rejected,
    more_than_the_payload_bound_is_rejected,
    a_late_delivery_is_a_deadline_miss,
    order_holds_while_a_slow_receiver_reads,
    a_full_queue_holds_up_no_other,
    room_that_comes_while_the_lane_waits_is_used_before_a_message_is_rejected,
];

/// Everything is full, and while the lane sleeps the receiver makes room and a message comes: the
/// queued messages move on first, so that the new one has room, too.
fn room_that_comes_while_the_lane_waits_is_used_before_a_message_is_rejected() -> anyhow::Result<()>
{
    for round in 0..3 {
        let instance = Instance::new()?;
        let config = instance.head()
            + &instance.mqueue("in", "")
            + &instance.mqueue("out", "maxmsg = 3")
            + &route("in", &["out"], "capacity = 2");
        let daemon = Daemon::start(&config)?;
        let mut sender = Peer::sender(&instance.queue("in"))?;
        sender.stream(0, 5)?;
        instance.ledger_is("in->out", 5, &[(Delivered, 3), (Queued, 2)])?;
        daemon.freeze()?;
        let mut receiver = Peer::receiver(&instance.queue("out"))?;
        assert_eq!(receiver.numbers(3)?, [0, 1, 2]);
        sender.stream(5, 1)?;
        daemon.signal(Signal::SIGCONT)?;
        instance
            .ledger_is("in->out", 6, &[(Delivered, 6)])
            .with_context(|| format!("round {round}"))?;
        assert_eq!(receiver.numbers(3)?, [3, 4, 5]);
        daemon.stop()?;
    }
    Ok(())
}

/// The kernel's queue keeps its oldest message, so a sink that conflates holds one: a slow reader
/// gets that one and the latest.
fn a_conflating_queue_holds_one_message_in_front_of_the_latest() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let config = instance.head()
        + &instance.mqueue("in", "")
        + &instance.mqueue("out", "").replace("maxmsg = 10\n", "")
        + &route("in", &["out"], "overflow = \"conflate\"");
    let daemon = Daemon::start(&config)?;
    Peer::sender(&instance.queue("in"))?.stream(1, 30)?;
    instance.ledger_is(
        "in->out",
        30,
        &[(Delivered, 1), (Queued, 1), (Displaced, 28)],
    )?;
    assert_eq!(held(&instance.queue("out"))?, 1);
    let mut receiver = Peer::receiver(&instance.queue("out"))?;
    assert_eq!(receiver.numbers(2)?, [1, 30]);
    instance.ledger_is("in->out", 30, &[(Delivered, 2), (Displaced, 28)])?;
    daemon.stop()?;
    Ok(())
}

/// Within the bound nothing is lost: one message is held in hand, the others stay with their
/// sender.
fn block_loses_nothing_within_its_bound() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let config = instance.head()
        + &instance.mqueue("in", "")
        + &instance.mqueue("out", "maxmsg = 3")
        + &route("in", &["out"], "capacity = 2\noverflow = \"block:10s\"");
    let _daemon = Daemon::start(&config)?;
    Peer::sender(&instance.queue("in"))?.stream(0, 10)?;
    instance.ledger_is("in->out", 6, &[(Delivered, 3), (Queued, 3)])?;
    assert_eq!(held(&instance.queue("in"))?, 4);
    let mut receiver = Peer::receiver(&instance.queue("out"))?;
    assert_eq!(receiver.numbers(10)?, (0..10).collect::<Vec<_>>());
    instance.ledger_is("in->out", 10, &[(Delivered, 10)])?;
    Ok(())
}

/// What waits longer than its time to live is gone when the receiver wakes up; what had arrived is
/// there.
fn what_waits_too_long_expires() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let config = instance.head()
        + &instance.mqueue("in", "")
        + &instance.mqueue("out", "maxmsg = 3")
        + &route("in", &["out"], "ttl = \"20ms\"");
    let _daemon = Daemon::start(&config)?;
    let mut sender = Peer::sender(&instance.queue("in"))?;
    sender.stream(0, 10)?;
    // Nobody reads, and they expire all the same: nothing must come to make the lane look.
    instance.ledger_is("in->out", 10, &[(Delivered, 3), (Expired, 7)])?;
    let mut receiver = Peer::receiver(&instance.queue("out"))?;
    assert_eq!(receiver.numbers(3)?, [0, 1, 2]);
    sender.stream(10, 1)?;
    assert_eq!(receiver.numbers(1)?, [10]);
    instance.ledger_is("in->out", 11, &[(Delivered, 4), (Expired, 7)])?;
    Ok(())
}

/// A message that is held by `block` expires as well.
fn what_is_held_too_long_expires() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let config = instance.head()
        + &instance.mqueue("in", "")
        + &instance.mqueue("out", "maxmsg = 1")
        + &route(
            "in",
            &["out"],
            "capacity = 1\nttl = \"20ms\"\noverflow = \"block:10s\"",
        );
    let _daemon = Daemon::start(&config)?;
    Peer::sender(&instance.queue("in"))?.stream(0, 6)?;
    instance.ledger_is("in->out", 6, &[(Delivered, 1), (Expired, 5)])?;
    Ok(())
}

/// The burst passes, the rest is rejected; how many more the rate admits depends on the time it
/// took.
fn more_than_the_rate_is_rejected() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let config = instance.head()
        + &instance.mqueue("in", "")
        + &instance.mqueue("out", "")
        + &route("in", &["out"], "rate_hz = 1\nburst = 3");
    let _daemon = Daemon::start(&config)?;
    let began = Instant::now();
    Peer::sender(&instance.queue("in"))?.stream(0, 10)?;
    let snapshot = instance.until("all were judged", |s| s.routes[0].ledger.accepted == 10)?;
    let ledger = snapshot.routes[0].ledger;
    let most = 3 + began.elapsed().as_secs() + 1;
    assert!((3..=most).contains(&ledger.delivered), "{ledger:?}");
    assert_eq!(
        ledger.rejected[Reject::Rate as usize],
        10 - ledger.delivered
    );
    let got = Peer::receiver(&instance.queue("out"))?.rest()?;
    assert_eq!(crate::util::talk::numbers(&got)?[..3], [0, 1, 2]);
    assert_eq!(got.len() as u64, ledger.delivered);
    Ok(())
}

/// The bound is the longest that passes.
fn more_than_the_payload_bound_is_rejected() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let config = instance.head()
        + &instance.mqueue("in", "")
        + &instance.mqueue("out", "")
        + &route("in", &["out"], "payload = 4");
    let _daemon = Daemon::start(&config)?;
    let mut sender = Peer::sender(&instance.queue("in"))?;
    for bytes in ["", "1234", "12345", &"6".repeat(64)] {
        sender.send(0, bytes.as_bytes())?;
    }
    instance.ledger_is(
        "in->out",
        4,
        &[(Delivered, 2), (Rejected(Reject::TooLarge), 2)],
    )?;
    let got = Peer::receiver(&instance.queue("out"))?.rest()?;
    assert_eq!(got, [(0, vec![]), (0, b"1234".to_vec())]);
    Ok(())
}

/// Delivered later than the deadline counts as a miss, and as delivered; the latency shows it too.
fn a_late_delivery_is_a_deadline_miss() -> anyhow::Result<()> {
    const DEADLINE: Duration = Duration::from_secs(1);
    let instance = Instance::new()?;
    let config = instance.head()
        + &instance.mqueue("in", "")
        + &instance.mqueue("out", "maxmsg = 3")
        + &route("in", &["out"], "deadline = \"1s\"");
    let _daemon = Daemon::start(&config)?;
    Peer::sender(&instance.queue("in"))?.stream(0, 5)?;
    instance.ledger_is("in->out", 5, &[(Delivered, 3), (Queued, 2)])?;
    let queued = Instant::now();
    // The time itself is what the test is about.
    eventually(|| (queued.elapsed() > DEADLINE).then_some(()))?;
    assert_eq!(
        Peer::receiver(&instance.queue("out"))?.numbers(5)?,
        [0, 1, 2, 3, 4]
    );
    let snapshot = instance.ledger_is("in->out", 5, &[(Delivered, 5)])?;
    let found = &snapshot.routes[0];
    assert_eq!(
        (found.ledger.deadline_misses, found.latency.count()),
        (2, 5)
    );
    let latency = found.latency.summary();
    assert!(
        latency.max_ns > 1_000_000_000 && latency.min_ns < 1_000_000_000,
        "{latency:?}"
    );
    assert_eq!(snapshot.lanes[0].ledger.deadline_misses, 2);
    Ok(())
}

/// A receiver that reads while messages come: whatever goes through the route's queue and whatever
/// goes past it, the order is the sender's.
fn order_holds_while_a_slow_receiver_reads() -> anyhow::Result<()> {
    const COUNT: u64 = 5000;
    let instance = Instance::new()?;
    let config = instance.head()
        + &instance.mqueue("in", "")
        + &instance.mqueue("out", "maxmsg = 1")
        + &route("in", &["out"], "capacity = 5000");
    let _daemon = Daemon::start(&config)?;
    let mut sender = Peer::sender(&instance.queue("in"))?;
    let mut receiver = Peer::receiver(&instance.queue("out"))?;
    sender.ask(order::Queue::Stream {
        from: 0,
        count: COUNT,
    })?;
    assert_eq!(
        receiver.numbers(usize::try_from(COUNT)?)?,
        (0..COUNT).collect::<Vec<_>>()
    );
    sender.answer()?;
    instance.ledger_is("in->out", COUNT, &[(Delivered, COUNT)])?;
    Ok(())
}

/// In one route a receiver that does not read has its own queue: the other gets everything at once.
fn a_full_queue_holds_up_no_other() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let config = instance.head()
        + &instance.mqueue("in", "")
        + &instance.mqueue("stuck", "maxmsg = 3")
        + &instance.mqueue("fine", "")
        + &route("in", &["stuck", "fine"], "capacity = 2");
    let _daemon = Daemon::start(&config)?;
    let mut sender = Peer::sender(&instance.queue("in"))?;
    let mut fine = Peer::receiver(&instance.queue("fine"))?;
    for n in 0..20 {
        sender.stream(n, 1)?;
        assert_eq!(fine.numbers(1)?, [n]);
    }
    let ends = [(Delivered, 23), (Queued, 2), (Rejected(Reject::Full), 15)];
    instance.ledger_is("in->stuck", 40, &ends)?;
    let mut stuck = Peer::receiver(&instance.queue("stuck"))?;
    assert_eq!(stuck.numbers(5)?, [0, 1, 2, 3, 4]);
    Ok(())
}
