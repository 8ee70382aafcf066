//! Shared memory through the daemon: mixed with queues and signals in every direction, in groups,
//! in order of the lanes; who sent it, its number, its stamps; and questions with their answers.

use crate::util::book::End::{Delivered, PeerDead, Rejected};
use crate::util::book::targets;
use crate::util::lane_talk::{Got, clean, endpoint};
use crate::util::order;
use crate::util::{Daemon, Instance, Peer, eventually, lane, process, route, rt, signal};
use rtcore::lane::peer::PeerState;
use rtcore::message::Reject;
use rtcore::sys::accounts::own_uid;
use rtcore::sys::clock::monotonic_ns;

tests![
    a_queue_and_a_signal_reach_an_inbox,
    a_lane_reaches_a_process_and_a_thread_by_signal,
    a_lane_reaches_a_queue_with_the_routes_priority,
    origin_number_and_stamps_pass_unchanged,
    a_client_that_writes_another_origin_is_who_it_is,
    what_was_rejected_shows_as_a_gap,
    a_group_of_all_kinds_gets_a_copy_each,
    a_group_of_all_kinds_takes_turns,
    a_group_of_all_kinds_has_one_that_takes_it,
    the_highest_lane_comes_first_out_of_one_inbox,
    equal_lanes_take_turns_in_an_inbox,
    a_receiver_returns_often_before_a_silent_sender,
];

fn numbers(got: &[Got]) -> Vec<u64> {
    got.iter().filter_map(Got::number).collect()
}

/// `a.out` of process `a` goes by `more` to `b.in` of `b`.
fn pair(instance: &Instance, more: &str) -> String {
    instance.head()
        + &process("a")
        + &process("b")
        + &endpoint("a.out", "a", 64)
        + &endpoint("b.in", "b", 64)
        + &route("a.out", &["b.in"], more)
}

/// From queues and signals into an inbox: bytes, mq priority, signal number and value, and who sent
/// it.
fn a_queue_and_a_signal_reach_an_inbox() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let config = instance.head()
        + &process("a")
        + &process("b")
        + &instance.mqueue("q", "mode = \"0600\"\nowner = \"a\"")
        + &instance.mqueue("open", "mode = \"0660\"")
        + &signal("ring", "", "SIGRTMIN+1", "")
        + &endpoint("b.in", "b", 64)
        + &route("q", &["b.in"], "")
        + &route("open", &["b.in"], "")
        + &route("ring", &["b.in"], "accept_claimed = true");
    let daemon = Daemon::start(&config)?;
    let mut b = Peer::with_inbox(&instance, "b")?;
    let mut a = Peer::start()?;
    a.expect(&instance, "a", &[])?;
    a.open_to_send(&instance.queue("q"))?;
    let before = monotonic_ns();
    a.send(5, b"hello")?;
    let got = b.take(1)?;
    assert_eq!(got.len(), 1);
    let Got {
        from,
        lane,
        route,
        sequence,
        bytes,
        ..
    } = &got[0];
    assert_eq!(
        (from.as_str(), lane.as_str(), route.as_str(), *sequence),
        ("q", "lane", "q->b.in", 1)
    );
    assert_eq!((got[0].mq_priority, bytes.as_slice()), (5, &b"hello"[..]));
    assert_eq!(
        (got[0].pid, got[0].uid, got[0].verified),
        (a.pid(), own_uid(), true)
    );
    // A queue has no stamps: the daemon's, when it took the message.
    assert!(
        got[0].intended_ns >= before && got[0].sent_ns == got[0].intended_ns,
        "{got:?}"
    );
    // Any process that may write this queue may have sent the message.
    a.open_to_send(&instance.queue("open"))?;
    a.send(0, b"")?;
    let got = b.take(1)?;
    assert_eq!(
        (got[0].pid, got[0].verified, got[0].bytes.len()),
        (0, false, 0)
    );
    a.ring(daemon.pid(), rt(1), 0xfeed)?;
    let got = b.take(1)?;
    assert_eq!(
        (got[0].from.as_str(), got[0].signal),
        ("ring", (rt(1), 0xfeed))
    );
    assert_eq!(
        (got[0].number(), got[0].pid, got[0].verified),
        (Some(0xfeed), a.pid(), false)
    );
    for route in ["q->b.in", "open->b.in", "ring->b.in"] {
        instance.ledger_is(route, 1, &[(Delivered, 1)])?;
    }
    daemon.stop()?;
    Ok(())
}

/// Out of shared memory into signals, to the process and to the thread that registered: the first
/// eight bytes are the value, and the origin is who sent.
fn a_lane_reaches_a_process_and_a_thread_by_signal() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let config = instance.head()
        + &process("a")
        + &process("old")
        + &endpoint("a.out", "a", 64)
        + &signal("old.any", "old", "SIGRTMIN+2", "")
        + &signal("old.one", "old", "SIGRTMIN+3", "target = \"thread\"")
        + &route("a.out", &["old.any", "old.one"], "truncate = true");
    let daemon = Daemon::start(&config)?;
    let mut old = Peer::start()?;
    let tid = i32::try_from(old.tid()?)?;
    old.expect(&instance, "old", &[rt(2), rt(3)])?;
    let mut a = Peer::from_endpoint(&instance, "a", "a.out")?;
    a.reach("a.out")?;
    // Longer, exact and shorter than a value.
    for bytes in [&b"12345678 and more"[..], b"abcdefgh", b"xy"] {
        let mut value = [0; 8];
        let n = bytes.len().min(8);
        value[..n].copy_from_slice(&bytes[..n]);
        assert!(a.lane_send("a.out", bytes)?.is_ok());
        for signo in [rt(2), rt(3)] {
            let rang = old.signals(signo, 1)?;
            assert_eq!(
                (rang[0].value, rang[0].pid, rang[0].uid),
                (u64::from_ne_bytes(value), a.pid(), own_uid())
            );
            assert!(signo == rt(2) || rang[0].tid == tid, "{rang:?}");
        }
    }
    let seen = instance.ledger_is("a.out->old.any", 6, &[(Delivered, 6)])?;
    assert_eq!(targets(&seen, "a.out->old.any")?, [3, 3]);
    daemon.stop()?;
    Ok(())
}

/// Out of shared memory into a queue that an unmodified program reads: bytes as they are, the
/// route's mq priority.
fn a_lane_reaches_a_queue_with_the_routes_priority() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let config = instance.head()
        + &process("a")
        + &endpoint("a.out", "a", 64)
        + &instance.mqueue("plain", "")
        + &instance.mqueue("urgent", "")
        + &route("a.out", &["plain"], "")
        + &route("a.out", &["urgent"], "mq_priority = 7");
    let daemon = Daemon::start(&config)?;
    let mut a = Peer::from_endpoint(&instance, "a", "a.out")?;
    let all: Vec<Vec<u8>> = [0, 1, 7, 8, 9, 63, 64]
        .iter()
        .map(|n| vec![0xa5; *n])
        .collect();
    for bytes in &all {
        assert!(a.lane_send("a.out", bytes)?.is_ok());
    }
    assert_eq!(
        a.lane_send("a.out", &[0; 65])?,
        Err(order::Refused::TooLarge)
    );
    for (queue, priority) in [("plain", 0), ("urgent", 7)] {
        let want: Vec<_> = all.iter().map(|bytes| (priority, bytes.clone())).collect();
        assert_eq!(
            Peer::receiver(&instance.queue(queue))?.receive(all.len())?,
            want
        );
        let ends = [(Delivered, all.len() as u64)];
        instance.ledger_is(&format!("a.out->{queue}"), all.len() as u64, &ends)?;
    }
    daemon.stop()?;
    Ok(())
}

/// From session to session: who, which number, both stamps.
fn origin_number_and_stamps_pass_unchanged() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let _daemon = Daemon::start(&pair(&instance, ""))?;
    let mut b = Peer::with_inbox(&instance, "b")?;
    let mut a = Peer::from_endpoint(&instance, "a", "a.out")?;
    a.reach("a.out")?;
    let before = monotonic_ns();
    a.tell(order::Send::Timed {
        endpoint: "a.out",
        bytes: vec![0x01, 0x02],
        intended_ns: Some(12_345),
    })?;
    a.lane_send("a.out", b"now")?.map_err(anyhow::Error::msg)?;
    let got = b.take(2)?;
    let after = monotonic_ns();
    for (n, message) in got.iter().enumerate() {
        assert_eq!(
            (message.pid, message.uid, message.verified),
            (a.pid(), own_uid(), true)
        );
        assert_eq!(
            (message.sequence, message.missed, message.correlation),
            (n as u64 + 1, 0, 0)
        );
        assert!((before..after).contains(&message.sent_ns), "{message:?}");
        assert_eq!(
            (message.endpoint.as_str(), message.from.as_str()),
            ("b.in", "a.out")
        );
    }
    // What it should have been sent at is the sender's to say.
    assert_eq!(
        (got[0].intended_ns, got[1].intended_ns),
        (12345, got[1].sent_ns)
    );
    assert_eq!(
        (got[0].bytes.as_slice(), got[1].bytes.as_slice()),
        (&[1, 2][..], &b"now"[..])
    );
    instance.ledger_is("a.out->b.in", 2, &[(Delivered, 2)])?;
    Ok(())
}

/// A client that writes another's pid and uid, and "verified", into its slots is told by its
/// channel all the same.
fn a_client_that_writes_another_origin_is_who_it_is() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let _daemon = Daemon::start(&pair(&instance, ""))?;
    let mut b = Peer::with_inbox(&instance, "b")?;
    let mut liar = Peer::start()?;
    liar.liar(&format!("connect {}", instance.socket()))?;
    liar.liar("open a")?;
    for claim in [
        "1 0 1",
        &format!("{} {} 2", b.pid(), own_uid()),
        "4294967295 4294967295 3",
    ] {
        liar.liar(&format!("put a.out 00 {claim}"))?;
    }
    for (n, message) in b.take(3)?.iter().enumerate() {
        assert_eq!(
            (message.pid, message.uid, message.verified),
            (liar.pid(), own_uid(), true)
        );
        assert_eq!(message.sequence, n as u64 + 1);
    }
    instance.ledger_is("a.out->b.in", 3, &[(Delivered, 3)])?;
    Ok(())
}

/// What the route rejected in between is missing in the receiver's count, to the message.
fn what_was_rejected_shows_as_a_gap() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let _daemon = Daemon::start(&pair(&instance, "payload = 8"))?;
    let mut b = Peer::with_inbox(&instance, "b")?;
    let mut a = Peer::from_endpoint(&instance, "a", "a.out")?;
    a.reach("a.out")?;
    for len in [8, 9, 9, 8, 9, 8, 8] {
        a.lane_send("a.out", &vec![1; len])?
            .map_err(anyhow::Error::msg)?;
    }
    let got: Vec<_> = b.take(4)?.iter().map(|m| (m.sequence, m.missed)).collect();
    assert_eq!(got, [(1, 0), (4, 2), (6, 1), (7, 0)]);
    assert_eq!(b.counters()?, clean(4, 3));
    instance.ledger_is(
        "a.out->b.in",
        7,
        &[(Delivered, 4), (Rejected(Reject::TooLarge), 3)],
    )?;
    Ok(())
}

/// One group with a member of each kind, in each way of choosing; `more` besides.
fn mixed_group(instance: &Instance, mode: &str) -> String {
    instance.head()
        + &process("a")
        + &process("b")
        + &process("old")
        + &endpoint("a.out", "a", 64)
        + &endpoint("b.in", "b", 2)
        + &instance.mqueue("q", "maxmsg = 2")
        + &signal("old.sig", "old", "SIGRTMIN+2", "")
        + &format!(
            "[[group]]\nname = \"g\"\nmembers = [\"b.in\", \"q\", \"old.sig\"]\nmode = \"{mode}\"\n"
        )
        + &route("a.out", &["g"], "payload = 8\ncapacity = 1")
}

/// The three members' messages.
fn of_members(instance: &Instance, b: &mut Peer, old: &mut Peer) -> anyhow::Result<[Vec<u64>; 3]> {
    let queued = Peer::receiver(&instance.queue("q"))?.rest()?;
    let rang = old.pending(rt(2))?;
    let rang = rang.iter().map(|rang| rang.value).collect();
    Ok([
        numbers(&b.left()?),
        crate::util::talk::numbers(&queued)?,
        rang,
    ])
}

fn members(instance: &Instance) -> anyhow::Result<[Peer; 3]> {
    let mut old = Peer::start()?;
    old.expect(instance, "old", &[rt(2)])?;
    let b = Peer::with_inbox(instance, "b")?;
    let mut a = Peer::from_endpoint(instance, "a", "a.out")?;
    a.reach("a.out")?;
    Ok([a, b, old])
}

fn a_group_of_all_kinds_gets_a_copy_each() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let _daemon = Daemon::start(&mixed_group(&instance, "all"))?;
    let [mut a, mut b, mut old] = members(&instance)?;
    assert_eq!(a.burst("a.out", 0, 2)?, (2, 0));
    instance.ledger_is("a.out->g", 6, &[(Delivered, 6)])?;
    assert_eq!(
        of_members(&instance, &mut b, &mut old)?,
        [vec![0, 1], vec![0, 1], vec![0, 1]]
    );
    // One of them dies: the others get theirs.
    b.kill()?;
    instance.until("its death is seen", |s| {
        s.processes
            .iter()
            .any(|p| p.name == "b" && p.state == PeerState::Dead)
    })?;
    a.lane_send("a.out", &2_u64.to_ne_bytes())?
        .map_err(anyhow::Error::msg)?;
    let seen = instance.ledger_is("a.out->g", 9, &[(Delivered, 8), (PeerDead, 1)])?;
    assert_eq!(targets(&seen, "a.out->g")?, [2, 3, 3]);
    Ok(())
}

fn a_group_of_all_kinds_takes_turns() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let _daemon = Daemon::start(&mixed_group(&instance, "round-robin"))?;
    let [mut a, mut b, mut old] = members(&instance)?;
    assert_eq!(a.burst("a.out", 0, 6)?, (6, 0));
    let seen = instance.ledger_is("a.out->g", 6, &[(Delivered, 6)])?;
    assert_eq!(targets(&seen, "a.out->g")?, [2, 2, 2]);
    assert_eq!(
        of_members(&instance, &mut b, &mut old)?,
        [vec![0, 3], vec![1, 4], vec![2, 5]]
    );
    Ok(())
}

/// `any`: the lane until its ring is full, then the queue until it is, then the signal.
fn a_group_of_all_kinds_has_one_that_takes_it() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let _daemon = Daemon::start(&mixed_group(&instance, "any"))?;
    let [mut a, mut b, mut old] = members(&instance)?;
    assert_eq!(a.burst("a.out", 0, 7)?, (7, 0));
    let seen = instance.ledger_is("a.out->g", 7, &[(Delivered, 7)])?;
    assert_eq!(targets(&seen, "a.out->g")?, [2, 2, 3]);
    assert_eq!(
        of_members(&instance, &mut b, &mut old)?,
        [vec![0, 1], vec![2, 3], vec![4, 5, 6]]
    );
    Ok(())
}

/// One endpoint that three routes lead to, from three senders in three lanes: highest lane first,
/// whatever came first; each sender's in its order; and what comes high while low ones wait is
/// next.
fn the_highest_lane_comes_first_out_of_one_inbox() -> anyhow::Result<()> {
    const EACH: u64 = 20;
    let instance = Instance::new()?;
    let lanes = [("low", 40), ("mid", 45), ("high", 55)];
    let mut config = instance
        .head()
        .split("[[lane]]")
        .next()
        .unwrap_or_default()
        .to_owned();
    config += &lanes
        .iter()
        .map(|(name, priority)| lane(name, *priority, ""))
        .collect::<String>();
    config += &process("b");
    config += &endpoint("b.in", "b", 64);
    for (name, _) in lanes {
        config += &process(name);
        config += &endpoint(&format!("{name}.out"), name, 64);
        config += &route(
            &format!("{name}.out"),
            &["b.in"],
            &format!("lane = \"{name}\""),
        );
    }
    let daemon = Daemon::start(&config)?;
    let mut b = Peer::with_inbox(&instance, "b")?;
    let mut senders = Vec::new();
    for (n, (name, _)) in lanes.iter().enumerate() {
        let mut sender = Peer::from_endpoint(&instance, name, &format!("{name}.out"))?;
        sender.reach(&format!("{name}.out"))?;
        // Low ones first.
        assert_eq!(
            sender.burst(&format!("{name}.out"), 100 * n as u64, EACH)?,
            (EACH, 0)
        );
        instance.ledger_is(&format!("{name}.out->b.in"), EACH, &[(Delivered, EACH)])?;
        senders.push(sender);
    }
    let order = |from: u64, count: u64| (from..from + count).collect::<Vec<u64>>();
    let got = b.take(usize::try_from(EACH)? + 5)?;
    assert_eq!(numbers(&got), [order(200, EACH), order(100, 5)].concat());
    assert!(got.iter().all(|m| m.lane
        == if m.number() < Some(200) {
            "mid"
        } else {
            "high"
        }));
    // 15 of mid and 20 of low wait.
    senders[2]
        .lane_send("high.out", &250_u64.to_ne_bytes())?
        .map_err(anyhow::Error::msg)?;
    instance.ledger_is("high.out->b.in", EACH + 1, &[(Delivered, EACH + 1)])?;
    assert_eq!(numbers(&b.take(2)?), [250, 105]);
    let rest = b.take(14 + usize::try_from(EACH)?)?;
    assert_eq!(numbers(&rest), [order(106, 14), order(0, EACH)].concat());
    assert!(rest.iter().all(|m| m.missed == 0) && b.left()?.is_empty());
    daemon.stop()?;
    Ok(())
}

/// Several routes of one lane lead to one endpoint: they take turns, each in its order.
fn equal_lanes_take_turns_in_an_inbox() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let mut config = instance.head() + &process("b") + &process("a") + &endpoint("b.in", "b", 64);
    for name in ["x", "y", "z"] {
        config += &endpoint(name, "a", 64);
        config += &route(name, &["b.in"], "");
    }
    let _daemon = Daemon::start(&config)?;
    let mut b = Peer::with_inbox(&instance, "b")?;
    let mut a = Peer::session(&instance, "a")?;
    for (n, name) in ["x", "y", "z"].into_iter().enumerate() {
        a.claim(name)?;
        a.reach(name)?;
        a.burst(name, 100 * n as u64, 3)?;
        instance.ledger_is(&format!("{name}->b.in"), 3, &[(Delivered, 3)])?;
    }
    let got = b.take(9)?;
    for (n, name) in ["x", "y", "z"].into_iter().enumerate() {
        let own: Vec<u64> = got
            .iter()
            .filter(|m| m.from == name)
            .filter_map(Got::number)
            .collect();
        assert_eq!(own, (0..3).map(|i| 100 * n as u64 + i).collect::<Vec<_>>());
    }
    // No two of three in a row.
    assert!(
        got.windows(2).all(|two| two[0].from != two[1].from),
        "{got:#?}"
    );
    Ok(())
}

/// A receiver that comes back again and again before a sender that has nothing to say, as an
/// e-stop's, is let in each time, and gets what comes at last; what its earlier lives had is given
/// back.
fn a_receiver_returns_often_before_a_silent_sender() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let daemon = Daemon::start(&pair(&instance, ""))?;
    let mut a = Peer::from_endpoint(&instance, "a", "a.out")?;
    let mut b = Peer::start()?;
    let rings = || {
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", daemon.pid())).ok()?;
        Some(
            maps.lines()
                .filter(|line| line.contains("memfd:rtd:a.out->b.in:b.in"))
                .count(),
        )
    };
    for _ in 0..30 {
        b.connect(&instance, "b")?;
        b.close_all()?;
    }
    eventually(|| (rings()? == 0).then_some(()))?;
    b.connect(&instance, "b")?;
    b.open_inbox()?;
    a.reach("a.out")?;
    a.lane_send("a.out", b"stop")?.map_err(anyhow::Error::msg)?;
    assert_eq!(b.take(1)?[0].bytes, b"stop");
    instance.ledger_is("a.out->b.in", 1, &[(Delivered, 1)])?;
    daemon.stop()?;
    Ok(())
}
