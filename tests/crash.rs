//! kill -9 in the middle of a stream of numbered messages: of the sender, the receiver, the daemon.
//! The ledger and what is in the queues account for every number.

use crate::util::book::{
    self,
    End::{Delivered, PeerDead, Queued},
};
use crate::util::order;
use crate::util::talk::numbers;
use crate::util::{Daemon, Instance, Peer, process, route};
use rtcore::stats::Ledger;

tests![
    a_killed_sender_loses_nothing_it_sent,
    a_killed_receiver_is_accounted_to_the_message,
    a_killed_daemon_loses_what_it_had_in_hand,
    a_daemon_killed_at_any_moment_loses_no_more,
    queues_are_adopted_with_what_is_in_them,
];

/// One route that loses nothing to a slow receiver and keeps one message in front of it.
fn config(instance: &Instance) -> String {
    instance.head()
        + &process("sensor")
        + &process("arm")
        + &instance.mqueue("in", "owner = \"sensor\"")
        + &instance.mqueue("out", "owner = \"arm\"")
        + &route("in", &["out"], "capacity = 1\noverflow = \"block:10s\"")
}

/// Accepted messages that a killed daemon takes with it at most: one queued, one in hand.
const IN_HAND_MAX: u64 = 2;

/// All that a sender has put into its queue before it was killed arrives, in order and once.
fn a_killed_sender_loses_nothing_it_sent() -> anyhow::Result<()> {
    const LAST: u64 = 1 << 63;
    let instance = Instance::new()?;
    let _daemon = Daemon::start(&config(&instance))?;
    let mut receiver = Peer::receiver(&instance.queue("out"))?;
    let mut sender = Peer::sender(&instance.queue("in"))?;
    sender.expect(&instance, "sensor", &[])?;
    sender.ask(order::Queue::Stream {
        from: 0,
        count: 1_000_000,
    })?;
    let mut got = receiver.numbers(500)?;
    sender.kill()?;
    // The next sender's message comes behind all that the killed one has sent.
    let mut next = Peer::sender(&instance.queue("in"))?;
    next.ask(order::Queue::Stream {
        from: LAST,
        count: 1,
    })?;
    while got.last() != Some(&LAST) {
        got.extend(receiver.numbers(1)?);
    }
    next.answer()?;
    let count = got.len() as u64;
    assert_eq!(got[..got.len() - 1], (0..count - 1).collect::<Vec<_>>());
    instance.ledger_is("in->out", count, &[(Delivered, count)])?;
    Ok(())
}

/// What was delivered to a killed receiver is in its queue or was taken by it; the rest is
/// peer-dead. Its successor gets what is in the queue and all that comes from then on.
fn a_killed_receiver_is_accounted_to_the_message() -> anyhow::Result<()> {
    const SENT: u64 = 1000;
    const TAKEN: u64 = 100;
    let instance = Instance::new()?;
    let _daemon = Daemon::start(&config(&instance))?;
    let mut receiver = Peer::receiver(&instance.queue("out"))?;
    receiver.expect(&instance, "arm", &[])?;
    let mut sender = Peer::sender(&instance.queue("in"))?;
    sender.ask(order::Queue::Stream {
        from: 0,
        count: SENT,
    })?;
    assert_eq!(receiver.numbers(100)?, (0..TAKEN).collect::<Vec<_>>());
    receiver.kill()?;
    sender.answer()?;
    let settled = instance.until("all messages have ended", |s| {
        s.routes[0].ledger.accepted == SENT && s.routes[0].ledger.queued == 0
    })?;
    let delivered = book::of(&settled, "in->out")?.delivered;
    book::check(
        &settled,
        "in->out",
        SENT,
        &[(Delivered, delivered), (PeerDead, SENT - delivered)],
    )?;
    let mut next = Peer::receiver(&instance.queue("out"))?;
    let left = numbers(&next.rest()?)?;
    assert_eq!(left, (TAKEN..delivered).collect::<Vec<_>>());
    assert!(delivered < SENT);

    next.expect(&instance, "arm", &[])?;
    sender.stream(SENT, 5)?;
    assert_eq!(next.numbers(5)?, (SENT..SENT + 5).collect::<Vec<_>>());
    let ends = [(Delivered, delivered + 5), (PeerDead, SENT - delivered)];
    instance.ledger_is("in->out", SENT + 5, &ends)?;
    Ok(())
}

/// The ledger a daemon leaves when it is killed now. Killed in the middle of writing it, some
/// numbers may be a message older than others.
fn kill(instance: &Instance, daemon: Daemon) -> anyhow::Result<Ledger> {
    daemon.kill()?;
    let left = instance.snapshot()?;
    let left = &left.routes[0];
    assert!(left.ledger.balances() || !left.consistent, "{left:?}");
    Ok(left.ledger)
}

/// Daemon after daemon is killed while it is known what each has in hand. The queues are adopted
/// with what is in them, and of the stream just those in hand are missing.
fn a_killed_daemon_loses_what_it_had_in_hand() -> anyhow::Result<()> {
    const SENT: u64 = 600;
    let instance = Instance::new()?;
    let config = config(&instance);
    let mut daemon = Daemon::start(&config)?;
    let mut receiver = Peer::receiver(&instance.queue("out"))?;
    let mut sender = Peer::sender(&instance.queue("in"))?;
    sender.ask(order::Queue::Stream {
        from: 0,
        count: SENT,
    })?;
    let mut got = receiver.numbers(50)?;
    let mut lost = Vec::new();
    let mut books = Vec::new();
    for _ in 0..5 {
        // The receiver waits, so its queue fills, then the route's, and one message is held in
        // hand. What the daemon before had delivered is ten of the fifty.
        let delivered = if books.is_empty() { 60 } else { 50 };
        instance.until("one is in hand", |s| {
            s.routes[0].ledger.delivered == delivered && s.routes[0].ledger.queued == IN_HAND_MAX
        })?;
        books.push(kill(&instance, daemon)?);
        // Ten are delivered; the next two were in hand.
        let first = got.last().map_or(0, |n| n + 1);
        lost.extend([first + 10, first + 11]);
        daemon = Daemon::start(&config)?;
        daemon.logged(&format!(
            "adopted message queue {} (maxmsg 10) with 10 messages",
            instance.queue("out")
        ))?;
        got.extend(receiver.numbers(50)?);
    }
    let rest = usize::try_from(SENT)? - got.len() - lost.len();
    got.extend(receiver.numbers(rest)?);
    sender.answer()?;
    let expected: Vec<u64> = (0..SENT).filter(|n| !lost.contains(n)).collect();
    assert_eq!(got, expected);
    // Each number was accepted once, by one of the daemons.
    let before = books.iter().fold(Ledger::default(), |mut sum, ledger| {
        sum.merge(ledger);
        sum
    });
    book::check_ledger(
        &before,
        before.accepted,
        &[(Delivered, before.delivered), (Queued, 10)],
    )?;
    let last = SENT - before.accepted;
    instance.ledger_is("in->out", last, &[(Delivered, last)])?;
    assert_eq!(before.delivered + last, got.len() as u64);
    Ok(())
}

/// The same at any moment: the receiver reads on while daemons are killed. A page may lag behind by
/// the message in hand; nothing comes twice or out of order, and no more is missing than a daemon
/// can hold.
fn a_daemon_killed_at_any_moment_loses_no_more() -> anyhow::Result<()> {
    const SENT: u64 = 2000;
    const KILLS: u64 = 8;
    let instance = Instance::new()?;
    let config = config(&instance);
    let mut daemon = Daemon::start(&config)?;
    let mut receiver = Peer::receiver(&instance.queue("out"))?;
    let mut sender = Peer::sender(&instance.queue("in"))?;
    sender.ask(order::Queue::Stream {
        from: 0,
        count: SENT,
    })?;
    let (mut accepted, mut delivered) = (0, 0);
    let mut got = Vec::new();
    for _ in 0..KILLS {
        receiver.ask(order::Queue::Receive {
            count: 150,
            quiet_ms: 10_000,
        })?;
        // It is at it.
        instance.until("a stream", |s| s.routes[0].ledger.delivered > 100)?;
        let left = kill(&instance, daemon)?;
        (accepted, delivered) = (accepted + left.accepted, delivered + left.delivered);
        daemon = Daemon::start(&config)?;
        got.extend(receiver.answered_numbers()?);
    }
    while got.last() != Some(&(SENT - 1)) {
        got.extend(receiver.numbers(1)?);
    }
    sender.answer()?;
    assert!(
        got.is_sorted_by(|a, b| a < b),
        "twice or out of order: {got:?}"
    );
    let missing = SENT - got.len() as u64;
    assert!(missing <= KILLS * IN_HAND_MAX, "{missing} are missing");
    // The receiver has the last message before the lane shows it on the page.
    let last = instance.until("the last daemon is done", |s| {
        let ledger = s.routes[0].ledger;
        ledger.queued == 0 && accepted + ledger.accepted + KILLS >= SENT
    })?;
    let last = book::of(&last, "in->out")?;
    assert_eq!(last.accepted, last.delivered);
    // Killed between the receive and the page, or between the send and the page: once for each
    // daemon at most.
    let unseen = SENT.checked_sub(accepted + last.accepted);
    assert!(
        unseen.is_some_and(|n| n <= KILLS),
        "accepted {accepted} + {}",
        last.accepted
    );
    let unseen = (got.len() as u64).checked_sub(delivered + last.delivered);
    assert!(
        unseen.is_some_and(|n| n <= KILLS),
        "delivered {delivered} + {}",
        last.delivered
    );
    Ok(())
}

/// What was in the queues when the daemon was killed is there for the next one, on both sides.
fn queues_are_adopted_with_what_is_in_them() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let config = config(&instance);
    Daemon::start(&config)?.kill()?;
    Peer::sender(&instance.queue("in"))?.stream(10, 5)?;
    Peer::sender(&instance.queue("out"))?.stream(0, 2)?;
    let daemon = Daemon::start(&config)?;
    daemon.logged(&format!(
        "adopted message queue {} (maxmsg 10) with 5 messages",
        instance.queue("in")
    ))?;
    instance.ledger_is("in->out", 5, &[(Delivered, 5)])?;
    assert_eq!(
        numbers(&Peer::receiver(&instance.queue("out"))?.rest()?)?,
        [0, 1, 10, 11, 12, 13, 14]
    );
    Ok(())
}
