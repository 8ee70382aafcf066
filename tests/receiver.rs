//! What the receiver's library does for its route: discard what is expired or superseded, measure,
//! count what is late; and how rtd shows what the library reports.

use crate::util::book::End::{Delivered, Expired};
use crate::util::lane_talk::{endpoint, pair, peers};
use crate::util::needs::ROOT;
use crate::util::order;
use crate::util::{Daemon, Instance, Peer, eventually, process, route, rt, signal};
use anyhow::ensure;
use rtcore::ring::Claims;
use rtcore::stats::ReceiverCounters;
use rtcore::stats::loss::Loss;
use rtcore::stats::reader::{Route, Snapshot};
use std::time::Duration;

tests![
    a_conflating_ring_hands_out_the_latest_message_only,
    a_displacing_ring_hands_out_the_newest_it_holds,
    what_is_older_than_its_ttl_is_discarded_by_the_inbox,
    a_message_that_waited_in_its_senders_ring_expires_at_its_dispatch,
    a_descriptor_is_quiet_when_all_that_came_has_expired,
    a_signals_payloads_are_conflated_and_expire,
    a_member_of_a_group_takes_no_more_than_it_has_room_for,
    a_direct_receiver_reports_its_latency_what_expired_and_what_was_late,
    latency_and_deadline_of_a_ring_count_from_the_send,
    reports_survive_the_receivers_next_session,
    a_receiver_that_discards_allocates_nothing needs(ROOT),
];

const ROUTE: &str = "a.out->b.in";

fn of<'s>(snapshot: &'s Snapshot, name: &str) -> &'s Route {
    snapshot
        .routes
        .iter()
        .find(|route| route.name == name)
        .unwrap_or_else(|| panic!("no route {name}"))
}

/// Received, expired, superseded, late: what the inbox says of itself.
fn discarded(peer: &mut Peer) -> anyhow::Result<[u64; 4]> {
    let c = peer.counters()?;
    Ok([c.received, c.expired, c.superseded, c.late])
}

/// Waits until the page shows what the receivers of a route report, and that all that was delivered
/// was received, discarded, or is left in the ring.
fn reported(
    instance: &Instance,
    name: &str,
    received: u64,
    claims: Claims,
) -> anyhow::Result<Snapshot> {
    // The ledger of a direct route and the receiver's report are copied to the page one after the
    // other.
    let shown = |s: &Snapshot| {
        let route = of(s, name);
        let ReceiverCounters {
            expired,
            superseded,
            late,
            ..
        } = route.targets[0].receiver;
        let delivered = route.ledger.delivered;
        Claims {
            expired,
            superseded,
            late,
        } == claims
            && delivered == received + expired + superseded
    };
    let snapshot = instance.until("the page shows the receiver's report", shown)?;
    let ledger = of(&snapshot, name).ledger;
    ensure!(ledger.balances(), "{ledger:?}");
    Ok(snapshot)
}

fn a_conflating_ring_hands_out_the_latest_message_only() -> anyhow::Result<()> {
    for slots in [1, 4, 64] {
        let instance = Instance::new()?;
        let daemon = Daemon::start(&pair(&instance, [64, slots], "overflow = \"conflate\""))?;
        let [mut a, mut b] = peers(&instance)?;
        a.lane_stream("a.out", 1, 30)?;
        instance.ledger_is(ROUTE, 30, &[(Delivered, 30)])?;
        assert_eq!(b.take_numbers(1)?, [30], "{slots} slots");
        assert_eq!(b.left()?, []);
        assert_eq!(discarded(&mut b)?, [1, 0, 29, 0]);
        reported(
            &instance,
            ROUTE,
            1,
            Claims {
                superseded: 29,
                ..Claims::default()
            },
        )?;
        // In place, where it is a copy as the slot is not the reader's.
        a.lane_stream("a.out", 31, 30)?;
        instance.ledger_is(ROUTE, 60, &[(Delivered, 60)])?;
        assert_eq!(b.in_place(2)?, [60]);
        reported(
            &instance,
            ROUTE,
            2,
            Claims {
                superseded: 58,
                ..Claims::default()
            },
        )?;
        daemon.stop()?;
    }
    Ok(())
}

fn a_displacing_ring_hands_out_the_newest_it_holds() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let daemon = Daemon::start(&pair(&instance, [64, 8], "overflow = \"displace-oldest\""))?;
    let [mut a, mut b] = peers(&instance)?;
    a.lane_stream("a.out", 1, 5)?;
    instance.ledger_is(ROUTE, 5, &[(Delivered, 5)])?;
    assert_eq!(b.take_numbers(2)?, [1, 2]);
    a.lane_stream("a.out", 6, 25)?;
    instance.ledger_is(ROUTE, 30, &[(Delivered, 30)])?;
    assert_eq!(b.take_numbers(8)?, (23..=30).collect::<Vec<_>>());
    assert_eq!(b.left()?, []);
    assert_eq!(discarded(&mut b)?, [10, 0, 20, 0]);
    let c = b.counters()?;
    assert_eq!(
        (c.received, c.duplicates, c.missed, c.corrupt),
        (10, 0, 20, 0),
        "the gap is what was superseded"
    );
    reported(
        &instance,
        ROUTE,
        10,
        Claims {
            superseded: 20,
            ..Claims::default()
        },
    )?;
    let text = String::from_utf8(instance.rtctl(&["stats"])?.stdout)?;
    ensure!(
        text.contains("RECEIVER") && text.contains("SUPERSEDED"),
        "{text}"
    );
    let json: serde_json::Value =
        serde_json::from_slice(&instance.rtctl(&["stats", "--json"])?.stdout)?;
    assert_eq!(
        json["routes"][0]["targets"][0]["receiver"]["superseded"], 20,
        "{json}"
    );
    daemon.stop()?;
    Ok(())
}

fn what_is_older_than_its_ttl_is_discarded_by_the_inbox() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let daemon = Daemon::start(&pair(&instance, [64, 64], "ttl = \"100ms\""))?;
    let [mut a, mut b] = peers(&instance)?;
    a.lane_stream("a.out", 1, 20)?;
    instance.ledger_is(ROUTE, 20, &[(Delivered, 20)])?;
    std::thread::sleep(Duration::from_millis(150));
    assert_eq!(b.left()?, []);
    assert!(b.in_place(9)?.is_empty());
    a.lane_stream("a.out", 21, 1)?;
    let fresh = b.take(1)?.remove(0);
    assert_eq!((fresh.number(), fresh.missed), (Some(21), 20));
    assert_eq!(discarded(&mut b)?, [1, 20, 0, 0]);
    reported(
        &instance,
        ROUTE,
        1,
        Claims {
            expired: 20,
            ..Claims::default()
        },
    )?;
    // Delivered to the ring and lost all the same: that is a loss of the route.
    daemon.logged("lost (expired): b.in did not take them within ttl = \"100ms\"")?;
    instance.until("it is losing", |s| {
        s.routes[0].losses.losing(s.taken_ns) == [Loss::Expired]
    })?;
    // And what was left in place.
    a.lane_stream("a.out", 22, 10)?;
    instance.ledger_is(ROUTE, 31, &[(Delivered, 31)])?;
    std::thread::sleep(Duration::from_millis(150));
    assert!(b.in_place(9)?.is_empty());
    reported(
        &instance,
        ROUTE,
        1,
        Claims {
            expired: 30,
            ..Claims::default()
        },
    )?;
    daemon.stop()?;
    Ok(())
}

/// The age counts from the send, so the ring in front of the lane is no place to outlive it either.
fn a_message_that_waited_in_its_senders_ring_expires_at_its_dispatch() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let daemon = Daemon::start(&pair(&instance, [64, 64], "ttl = \"100ms\""))?;
    let [mut a, mut b] = peers(&instance)?;
    daemon.freeze()?;
    assert_eq!(a.burst("a.out", 1, 10)?, (10, 0));
    std::thread::sleep(Duration::from_millis(150));
    daemon.signal(nix::sys::signal::Signal::SIGCONT)?;
    instance.ledger_is(ROUTE, 10, &[(Expired, 10)])?;
    a.lane_stream("a.out", 11, 1)?;
    assert_eq!(b.take_numbers(1)?, [11]);
    daemon.stop()?;
    Ok(())
}

/// A thread that waits in poll(2) or epoll is not kept awake by what it cannot have.
fn a_descriptor_is_quiet_when_all_that_came_has_expired() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let daemon = Daemon::start(&pair(&instance, [64, 64], "ttl = \"20ms\""))?;
    let [mut a, mut b] = peers(&instance)?;
    a.lane_stream("a.out", 1, 20)?;
    instance.ledger_is(ROUTE, 20, &[(Delivered, 20)])?;
    std::thread::sleep(Duration::from_millis(50));
    // The twenty expire at the first look; those that follow come one by one, waited for by
    // descriptor.
    b.in_place(1)?;
    b.ask(order::Receive::Epoll { key: "i", count: 5 })?;
    for n in 0..5 {
        a.lane_stream("a.out", n, 1)?;
    }
    b.answer()?;
    reported(
        &instance,
        ROUTE,
        5,
        Claims {
            expired: 20,
            ..Claims::default()
        },
    )?;
    daemon.stop()?;
    Ok(())
}

fn a_signals_payloads_are_conflated_and_expire() -> anyhow::Result<()> {
    let name = "a.out->b.go";
    for (more, handled, claims) in [
        (
            "overflow = \"conflate\"",
            vec!["9"],
            Claims {
                superseded: 8,
                ..Claims::default()
            },
        ),
        (
            "ttl = \"50ms\"",
            vec![],
            Claims {
                expired: 9,
                ..Claims::default()
            },
        ),
    ] {
        let instance = Instance::new()?;
        let config = instance.head()
            + &process("a")
            + &process("b")
            + &endpoint("a.out", "a", 64)
            + &signal("b.go", "b", "SIGRTMIN+3", "msgsize = 64\nmaxmsg = 64")
            + &route("a.out", &["b.go"], more);
        let daemon = Daemon::start(&config)?;
        let mut b = Peer::start()?;
        b.block_for_handlers(rt(3))?;
        b.connect(&instance, "b")?;
        b.handle(rt(3))?;
        let mut a = Peer::from_endpoint(&instance, "a", "a.out")?;
        a.reach("a.out")?;
        // The first one is in the handler when the others come.
        b.hold()?;
        a.lane_stream("a.out", 0, 1)?;
        eventually(|| (b.dispatched().ok()?.received == 1).then_some(()))?;
        a.lane_stream("a.out", 1, 9)?;
        instance.ledger_is(name, 10, &[(Delivered, 10)])?;
        std::thread::sleep(Duration::from_millis(100));
        b.release()?;
        let received = 1 + handled.len() as u64;
        reported(&instance, name, received, claims)?;
        let counters = b.dispatched()?;
        ensure!(counters.received == received, "{counters:?}");
        daemon.stop()?;
    }
    Ok(())
}

/// A ring that displaces is never full: a group of which one takes each message would have one
/// member only.
fn a_member_of_a_group_takes_no_more_than_it_has_room_for() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let config = instance.head()
        + &process("a")
        + &process("b")
        + &process("c")
        + &endpoint("a.out", "a", 64)
        + &endpoint("b.in", "b", 4)
        + &endpoint("c.in", "c", 4)
        + "[[group]]\nname = \"one\"\nmembers = [\"b.in\", \"c.in\"]\nmode = \"any\"\n"
        + &route("a.out", &["one"], "overflow = \"conflate\"");
    let daemon = Daemon::start(&config)?;
    let mut b = Peer::with_inbox(&instance, "b")?;
    let mut c = Peer::with_inbox(&instance, "c")?;
    let mut a = Peer::from_endpoint(&instance, "a", "a.out")?;
    a.reach("a.out")?;
    a.lane_stream("a.out", 1, 8)?;
    instance.ledger_is("a.out->one", 8, &[(Delivered, 8)])?;
    assert_eq!(
        (b.take_numbers(4)?, c.take_numbers(4)?),
        (vec![1, 2, 3, 4], vec![5, 6, 7, 8])
    );
    daemon.stop()?;
    Ok(())
}

fn a_direct_receiver_reports_its_latency_what_expired_and_what_was_late() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let more = "path = \"direct\"\nttl = \"2s\"\ndeadline = \"30ms\"";
    let daemon = Daemon::start(&pair(&instance, [64, 64], more))?;
    let [mut a, mut b] = peers(&instance)?;
    a.lane_stream("a.out", 1, 10)?;
    assert_eq!(b.take_numbers(10)?, (1..=10).collect::<Vec<_>>());
    a.lane_stream("a.out", 11, 3)?;
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(b.take_numbers(3)?, [11, 12, 13], "late, and not too late");
    a.lane_stream("a.out", 14, 5)?;
    std::thread::sleep(Duration::from_millis(2_050));
    assert_eq!(b.left()?, []);
    let [received, expired, superseded, late] = discarded(&mut b)?;
    // A machine that stands still makes more of the first ten late, or expires some of the three.
    ensure!(
        (received, expired, superseded) == (13, 5, 0) && late >= 3,
        "{received} {expired} {superseded} {late}"
    );
    let snapshot = reported(
        &instance,
        ROUTE,
        13,
        Claims {
            expired: 5,
            late,
            superseded: 0,
        },
    )?;
    let latency = of(&snapshot, ROUTE).latency.summary();
    assert_eq!(latency.count, 13, "what expired was not received");
    ensure!(
        (50_000_000..10_000_000_000).contains(&latency.max_ns),
        "{latency:?}"
    );
    assert_eq!(
        snapshot.lanes[0].latency.summary().count,
        0,
        "the lane's threads measured nothing"
    );
    let text = String::from_utf8(instance.rtctl(&["stats"])?.stdout)?;
    ensure!(
        text.contains("latency reported by the receiver: ") && text.contains("LATE"),
        "{text}"
    );
    let json: serde_json::Value =
        serde_json::from_slice(&instance.rtctl(&["stats", "--json"])?.stdout)?;
    assert_eq!(json["routes"][0]["latency_by"], "receiver");
    assert_eq!(json["routes"][0]["latency_ns"]["count"], 13);
    daemon.stop()?;
    Ok(())
}

fn latency_and_deadline_of_a_ring_count_from_the_send() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let daemon = Daemon::start(&pair(&instance, [64, 64], "deadline = \"40ms\""))?;
    let [mut a, mut b] = peers(&instance)?;
    daemon.freeze()?;
    assert_eq!(a.burst("a.out", 1, 4)?, (4, 0));
    std::thread::sleep(Duration::from_millis(60));
    daemon.signal(nix::sys::signal::Signal::SIGCONT)?;
    let snapshot = instance.until("all are delivered", |s| of(s, ROUTE).ledger.delivered == 4)?;
    let route = of(&snapshot, ROUTE);
    assert_eq!(
        route.ledger.deadline_misses, 4,
        "they waited in the sender's ring"
    );
    ensure!(
        route.latency.summary().min_ns >= 60_000_000,
        "{:?}",
        route.latency.summary()
    );
    assert_eq!(b.take_numbers(4)?, [1, 2, 3, 4]);
    reported(
        &instance,
        ROUTE,
        4,
        Claims {
            late: 4,
            ..Claims::default()
        },
    )?;
    // From the intended time: a message that is sent too late is late at once.
    let now_ns = rtcore::sys::clock::monotonic_ns();
    a.tell(order::Send::Timed {
        endpoint: "a.out",
        bytes: 5_u64.to_ne_bytes().to_vec(),
        intended_ns: Some(now_ns - 50_000_000),
    })?;
    assert_eq!(b.take_numbers(1)?, [5]);
    reported(
        &instance,
        ROUTE,
        5,
        Claims {
            late: 5,
            ..Claims::default()
        },
    )?;
    daemon.stop()?;
    Ok(())
}

/// The page adds up what the rings of one session after the other have reported.
fn reports_survive_the_receivers_next_session() -> anyhow::Result<()> {
    for path in ["", "path = \"direct\"\n"] {
        let instance = Instance::new()?;
        let daemon = Daemon::start(&pair(&instance, [64, 64], &format!("{path}ttl = \"20ms\"")))?;
        let [mut a, mut b] = peers(&instance)?;
        for round in 1..=2 {
            a.lane_stream("a.out", 1, 5)?;
            std::thread::sleep(Duration::from_millis(50));
            assert_eq!(b.left()?, []);
            reported(
                &instance,
                ROUTE,
                0,
                Claims {
                    expired: 5 * round,
                    ..Claims::default()
                },
            )?;
            drop(b);
            instance.until("b is gone", |s| {
                s.processes[1].state == rtcore::lane::peer::PeerState::Dead
            })?;
            b = Peer::with_inbox(&instance, "b")?;
            a.reach("a.out")?;
        }
        daemon.stop()?;
    }
    Ok(())
}

fn a_receiver_that_discards_allocates_nothing() -> anyhow::Result<()> {
    let promises = [
        "ttl = \"10s\"\ndeadline = \"1ns\"",
        "path = \"direct\"\nttl = \"10s\"",
        "overflow = \"conflate\"",
    ];
    for more in promises {
        let instance = Instance::new()?;
        let config = instance.head()
            + &process("a")
            + &endpoint("a.out", "a", 64)
            + &endpoint("a.in", "a", 64)
            + &route("a.out", &["a.in"], &more.replace("1ns", "1us"));
        let daemon = Daemon::start(&config)?;
        let mut a = Peer::with_inbox(&instance, "a")?;
        a.claim("a.out")?;
        a.reach("a.out")?;
        let sealed = a
            .tell(order::Receive::Sealed {
                key: "i",
                endpoint: "a.out",
                count: 1000,
            })?
            .sealed()?;
        assert_eq!((sealed.breaches, sealed.came), (0, 1000), "{more}");
        daemon.stop()?;
    }
    Ok(())
}
