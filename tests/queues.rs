//! Message queues in and out, between programs that know mq_open and nothing of ours.

use crate::util::book::End::{Delivered, Queued, Rejected};
use crate::util::order;
use crate::util::{Daemon, Instance, Peer, held, lane, process, route, signal};
use rtcore::message::Reject;

tests![
    bytes_arrive_unchanged,
    a_priority_is_kept_or_mapped,
    higher_priorities_leave_a_source_first,
    two_routes_read_one_source,
    routes_chain_through_a_queue,
    an_unmodified_sender_meets_reject_and_block,
    a_registered_sender_is_the_verified_origin,
];

/// Empty, one byte, every byte there is, and the queue's full msgsize arrive as they were.
fn bytes_arrive_unchanged() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let config = instance.head()
        + &instance.mqueue("in", "msgsize = 300")
        + &instance.mqueue("out", "msgsize = 300")
        + &route("in", &["out"], "");
    let _daemon = Daemon::start(&config)?;
    let mut sender = Peer::sender(&instance.queue("in"))?;
    let mut receiver = Peer::receiver(&instance.queue("out"))?;
    let every_byte: Vec<u8> = (0..=255).collect();
    let full: Vec<u8> = (0..=255).cycle().step_by(7).take(300).collect();
    let sent = [
        vec![],
        vec![0],
        vec![0xff],
        b"text\n".to_vec(),
        every_byte,
        full,
    ];
    for bytes in &sent {
        sender.send(0, bytes)?;
    }
    let got: Vec<Vec<u8>> = receiver
        .receive(sent.len())?
        .into_iter()
        .map(|(_, bytes)| bytes)
        .collect();
    assert_eq!(got, sent);
    instance.ledger_is("in->out", 6, &[(Delivered, 6)])?;
    assert_eq!(receiver.rest()?, []);
    Ok(())
}

/// A priority is passed on, or replaced by the route's.
fn a_priority_is_kept_or_mapped() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let config = instance.head()
        + &instance.mqueue("in", "")
        + &instance.mqueue("kept", "")
        + &instance.mqueue("mapped", "")
        + &route("in", &["kept"], "")
        + &route("in", &["mapped"], "mq_priority = 7");
    let _daemon = Daemon::start(&config)?;
    let mut sender = Peer::sender(&instance.queue("in"))?;
    let mut kept = Peer::receiver(&instance.queue("kept"))?;
    let mut mapped = Peer::receiver(&instance.queue("mapped"))?;
    for priority in [0, 7, 31, 32_767] {
        sender.send(priority, b"x")?;
        assert_eq!(kept.receive(1)?, [(priority, b"x".to_vec())]);
        assert_eq!(mapped.receive(1)?, [(7, b"x".to_vec())]);
    }
    instance.ledger_is("in->kept", 4, &[(Delivered, 4)])?;
    instance.ledger_is("in->mapped", 4, &[(Delivered, 4)])?;
    Ok(())
}

/// What waits in a source comes out by priority, first in first out within one. The sink maps all
/// to one priority, so it shows the order in which the daemon took them.
fn higher_priorities_leave_a_source_first() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let config = instance.head()
        + &instance.mqueue("in", "")
        + &instance.mqueue("out", "")
        + &route("in", &["out"], "mq_priority = 0");
    // A first run makes the queue; while nobody reads it, it fills.
    Daemon::start(&config)?.stop()?;
    let mut sender = Peer::sender(&instance.queue("in"))?;
    for (priority, text) in [(1, "a"), (5, "b"), (3, "c"), (5, "d"), (0, "e"), (3, "f")] {
        sender.send(priority, text.as_bytes())?;
    }
    let _daemon = Daemon::start(&config)?;
    let got = Peer::receiver(&instance.queue("out"))?.receive(6)?;
    let texts: Vec<u8> = got.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
    assert_eq!(texts, b"bdcfae");
    Ok(())
}

/// Routes that read the same source each get every message and keep their own books.
fn two_routes_read_one_source() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let config = instance.head()
        + &instance.mqueue("in", "")
        + &instance.mqueue("all", "")
        + &instance.mqueue("short", "")
        + &route("in", &["all"], "")
        + &route("in", &["short"], "payload = 2");
    let _daemon = Daemon::start(&config)?;
    let mut sender = Peer::sender(&instance.queue("in"))?;
    for text in ["1", "22", "333"] {
        sender.send(0, text.as_bytes())?;
    }
    instance.ledger_is("in->all", 3, &[(Delivered, 3)])?;
    instance.ledger_is(
        "in->short",
        3,
        &[(Delivered, 2), (Rejected(Reject::TooLarge), 1)],
    )?;
    let bodies = |mail: Vec<(u32, Vec<u8>)>| mail.into_iter().map(|(_, b)| b).collect::<Vec<_>>();
    let all = bodies(Peer::receiver(&instance.queue("all"))?.rest()?);
    assert_eq!(all, [b"1".to_vec(), b"22".to_vec(), b"333".to_vec()]);
    assert_eq!(
        bodies(Peer::receiver(&instance.queue("short"))?.rest()?),
        [b"1".to_vec(), b"22".to_vec()]
    );
    Ok(())
}

/// A queue that one route writes and another reads: a chain through two lanes.
fn routes_chain_through_a_queue() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let config = instance.head()
        + &lane("second", 40, "")
        + &instance.mqueue("a", "")
        + &instance.mqueue("b", "")
        + &instance.mqueue("c", "")
        + &route("a", &["b"], "mq_priority = 3\noverflow = \"block:10s\"")
        + &route("b", &["c"], "lane = \"second\"\noverflow = \"block:10s\"");
    let _daemon = Daemon::start(&config)?;
    let mut sender = Peer::sender(&instance.queue("a"))?;
    let mut receiver = Peer::receiver(&instance.queue("c"))?;
    sender.ask(order::Queue::Stream {
        from: 0,
        count: 500,
    })?;
    let got = receiver.receive(500)?;
    sender.answer()?;
    assert!(got.iter().all(|(priority, _)| *priority == 3));
    assert_eq!(
        crate::util::talk::numbers(&got)?,
        (0..500).collect::<Vec<_>>()
    );
    instance.ledger_is("a->b", 500, &[(Delivered, 500)])?;
    let snapshot = instance.ledger_is("b->c", 500, &[(Delivered, 500)])?;
    for (lane, name) in snapshot.lanes.iter().zip(["lane", "second"]) {
        assert_eq!(
            (
                lane.name.as_str(),
                lane.ledger.accepted,
                lane.ledger.balances()
            ),
            (name, 500, true)
        );
    }
    Ok(())
}

/// For a sender that links nothing of ours: `reject` takes its messages and shows in the ledger
/// what became of them; `block` leaves them in its own queue.
fn an_unmodified_sender_meets_reject_and_block() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let policy = |overflow: &str| format!("capacity = 1\noverflow = \"{overflow}\"");
    let config = instance.head()
        + &instance.mqueue("in.reject", "")
        + &instance.mqueue("in.block", "")
        + &instance.mqueue("out.reject", "maxmsg = 2")
        + &instance.mqueue("out.block", "maxmsg = 2")
        + &route("in.reject", &["out.reject"], &policy("reject"))
        + &route("in.block", &["out.block"], &policy("block:10s"));
    let daemon = Daemon::start(&config)?;
    Peer::sender(&instance.queue("in.reject"))?.stream(0, 8)?;
    let mut sender = Peer::sender(&instance.queue("in.block"))?;
    sender.stream(0, 8)?;

    let rejected = [(Delivered, 2), (Queued, 1), (Rejected(Reject::Full), 5)];
    instance.ledger_is("in.reject->out.reject", 8, &rejected)?;
    assert_eq!(held(&instance.queue("in.reject"))?, 0);
    // Two delivered, one queued, one in hand; the other four are still the sender's.
    instance.ledger_is("in.block->out.block", 4, &[(Delivered, 2), (Queued, 2)])?;
    assert_eq!(held(&instance.queue("in.block"))?, 4);
    // Six more fill its queue, and then the sender itself is held: mq_send says EAGAIN.
    sender.stream(8, 6)?;
    assert_eq!(held(&instance.queue("in.block"))?, 10);

    let got = Peer::receiver(&instance.queue("out.block"))?.numbers(14)?;
    assert_eq!(got, (0..14).collect::<Vec<_>>());
    instance.ledger_is("in.block->out.block", 14, &[(Delivered, 14)])?;
    daemon.stop()?;
    Ok(())
}

/// The origin of what comes out of a queue is who registered for it, where nobody else can write
/// it.
fn a_registered_sender_is_the_verified_origin() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let config = instance.head()
        + &process("sensor")
        + &process("arm")
        + &instance.mqueue("in", "owner = \"sensor\"\nmsgsize = 8\nmode = \"0600\"")
        + &instance.mqueue("shared", "owner = \"sensor\"\nmsgsize = 8")
        + &signal("out", "arm", "SIGRTMIN+4", "")
        + &route("in", &["out"], "")
        + &route("shared", &["out"], "");
    let daemon = Daemon::start(&config)?;
    assert!(
        daemon
            .log()
            .contains("carry no origin (pid 0 instead of `sensor`)"),
        "{}",
        daemon.log()
    );
    let mut arm = Peer::start()?;
    arm.expect(&instance, "arm", &[crate::util::rt(4)])?;
    let mut sensor = Peer::sender(&instance.queue("in"))?;
    sensor.stream(1, 1)?;
    let unknown = arm.signals(crate::util::rt(4), 1)?;
    assert_eq!(
        (unknown[0].value, unknown[0].pid, unknown[0].uid),
        (1, 0, u32::MAX)
    );
    sensor.expect(&instance, "sensor", &[])?;
    sensor.stream(2, 1)?;
    let known = arm.signals(crate::util::rt(4), 1)?;
    let uid = rtcore::sys::accounts::own_uid();
    assert_eq!(
        (known[0].value, known[0].pid, known[0].uid),
        (2, sensor.pid(), uid)
    );
    // The group may write this one: it could be anybody in it.
    sensor.open_to_send(&instance.queue("shared"))?;
    sensor.stream(3, 1)?;
    let shared = arm.signals(crate::util::rt(4), 1)?;
    assert_eq!(
        (shared[0].value, shared[0].pid, shared[0].uid),
        (3, 0, u32::MAX)
    );
    Ok(())
}
