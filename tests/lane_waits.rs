//! How a receiver waits: asleep, spinning, polling, until a deadline, in an event loop of its own,
//! and for several things at once.

use crate::util::book::End::Delivered;
use crate::util::lane_talk::endpoint;
use crate::util::order::{self, Strategy};
use crate::util::{Daemon, Instance, Peer, eventually, kernel, lane, process, route, rt};
use std::time::{Duration, Instant};

tests![
    every_strategy_receives_what_comes_by_every_way,
    a_deadline_ends_a_wait_and_a_message_ends_it_sooner,
    a_foreign_event_loop_misses_no_message,
    one_wait_has_what_is_ready_in_order_of_priority,
];

/// Two lanes from `a` to `b`, and one way that is direct.
fn three_ways(instance: &Instance) -> String {
    let mut config = instance.head() + &lane("high", 55, "") + &process("a") + &process("b");
    config += &endpoint("b.in", "b", 64);
    config += &endpoint("b.direct", "b", 64);
    for (name, to, more) in [
        ("low", "b.in", "overflow = \"block:10s\""),
        ("high", "b.in", "overflow = \"block:10s\"\nlane = \"high\""),
        (
            "direct",
            "b.direct",
            "overflow = \"block:10s\"\npath = \"direct\"",
        ),
    ] {
        config += &endpoint(&format!("a.{name}"), "a", 64);
        config += &route(&format!("a.{name}"), &[to], more);
    }
    config
}

const NONE: [u64; 0] = [];
const WAYS: [&str; 3] = ["a.low", "a.high", "a.direct"];

fn peers(instance: &Instance) -> anyhow::Result<[Peer; 2]> {
    let b = Peer::with_inbox(instance, "b")?;
    let mut a = Peer::session(instance, "a")?;
    for way in WAYS {
        a.claim(way)?;
        a.reach(way)?;
    }
    Ok([a, b])
}

/// Whichever way an inbox waits, what comes while it is awake and what comes while it sleeps is
/// there at once.
fn every_strategy_receives_what_comes_by_every_way() -> anyhow::Result<()> {
    const EACH: u64 = 200;
    let instance = Instance::new()?;
    let daemon = Daemon::start(&three_ways(&instance))?;
    let [mut a, mut b] = peers(&instance)?;
    let mut from = 0;
    for strategy in [
        Strategy::Block,
        Strategy::Spin { spin_ns: 50_000 },
        Strategy::Spin { spin_ns: 5_000_000 },
        Strategy::Poll,
    ] {
        b.tell(order::Receive::Strategy {
            key: "i",
            wait: strategy,
        })?;
        for way in WAYS {
            b.ask_numbers(usize::try_from(EACH)? + 1)?;
            a.lane_stream(way, from, EACH)?;
            if matches!(strategy, Strategy::Block) {
                eventually(|| (kernel::thread(b.pid(), b.pid()).ok()?.state == 'S').then_some(()))?;
            }
            a.lane_stream(way, from + EACH, 1)?;
            assert_eq!(
                b.taken_numbers()?,
                (from..=from + EACH).collect::<Vec<_>>(),
                "{strategy:?} {way}"
            );
            from += EACH + 1;
        }
    }
    let count = 4 * (EACH + 1);
    for (way, to) in [
        ("a.low", "b.in"),
        ("a.high", "b.in"),
        ("a.direct", "b.direct"),
    ] {
        instance.ledger_is(&format!("{way}->{to}"), count, &[(Delivered, count)])?;
    }
    daemon.stop()?;
    Ok(())
}

/// A deadline ends a wait, not before its time; one that is past only looks; a message in time ends
/// it sooner.
fn a_deadline_ends_a_wait_and_a_message_ends_it_sooner() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let daemon = Daemon::start(&three_ways(&instance))?;
    let [mut a, mut b] = peers(&instance)?;
    for strategy in [
        Strategy::Block,
        Strategy::Spin { spin_ns: 50_000 },
        Strategy::Poll,
    ] {
        b.tell(order::Receive::Strategy {
            key: "i",
            wait: strategy,
        })?;
        let began = Instant::now();
        assert_eq!(b.numbers_within(1, 150)?, NONE);
        assert!(
            began.elapsed() >= Duration::from_millis(150),
            "{strategy:?}: {:?}",
            began.elapsed()
        );
        assert_eq!(b.numbers_within(1, 0)?, NONE);
        a.lane_stream("a.direct", 7, 1)?;
        assert_eq!(b.numbers_within(1, 0)?, [7], "a past deadline looks");
        let began = Instant::now();
        b.ask(order::Receive::Numbers {
            key: "i",
            count: 1,
            ms: 60_000,
        })?;
        a.lane_stream("a.low", 8, 1)?;
        assert_eq!(b.taken_numbers()?, [8]);
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "{strategy:?}: {:?}",
            began.elapsed()
        );
    }
    daemon.stop()?;
    Ok(())
}

/// In a foreign epoll set, thousands of messages, one by one and in bursts: the loop never sleeps
/// while one is there (it would fail after ten seconds), and sleeps when none is.
fn a_foreign_event_loop_misses_no_message() -> anyhow::Result<()> {
    const COUNT: u64 = 5000;
    const SINGLE: u64 = 100;
    let instance = Instance::new()?;
    let daemon = Daemon::start(&three_ways(&instance))?;
    let [mut a, mut b] = peers(&instance)?;
    for way in WAYS {
        b.ask(order::Receive::Epoll {
            key: "i",
            count: COUNT,
        })?;
        a.lane_stream(way, 0, COUNT)?;
        let woke = b.answer()?.epoll()?.woke;
        assert!(woke <= COUNT + 8, "{way}: woke {woke} times");
        // Each finds it asleep.
        b.ask(order::Receive::Epoll {
            key: "i",
            count: SINGLE,
        })?;
        for n in 0..SINGLE {
            eventually(|| (kernel::thread(b.pid(), b.pid()).ok()?.state == 'S').then_some(()))?;
            a.lane_stream(way, n, 1)?;
        }
        let order::Woke { woke, idle } = b.answer()?.epoll()?;
        assert!(
            woke - idle <= SINGLE && idle <= SINGLE,
            "{way}: woke {woke} times, {idle} for nothing"
        );
    }
    // The ordinary way of waiting has it back.
    b.ask_numbers(1)?;
    a.lane_stream("a.high", 9, 1)?;
    assert_eq!(b.taken_numbers()?, [9]);
    let count = COUNT + SINGLE;
    instance.ledger_is("a.low->b.in", count, &[(Delivered, count)])?;
    instance.ledger_is("a.high->b.in", count + 1, &[(Delivered, count + 1)])?;
    instance.ledger_is("a.direct->b.direct", count, &[(Delivered, count)])?;
    daemon.stop()?;
    Ok(())
}

/// Inbox, timer and signal in one wait: all three are there, the signal (highest) first and the
/// inbox last; when they are served nothing is ready any more.
fn one_wait_has_what_is_ready_in_order_of_priority() -> anyhow::Result<()> {
    one_wait_of(Peer::start()?)
}

/// The same for a participant that was started in some way.
pub fn one_wait_of(mut b: Peer) -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let config = instance.head()
        + &process("a")
        + &process("b")
        + &endpoint("a.out", "a", 64)
        + &endpoint("b.in", "b", 64)
        + &crate::util::signal("b.sig", "b", "SIGRTMIN+4", "")
        + &route("a.out", &["b.in", "b.sig"], "truncate = true");
    let daemon = Daemon::start(&config)?;
    // Before the session, whose thread inherits it.
    b.block(rt(4))?;
    b.connect(&instance, "b")?;
    b.open_inbox()?;
    let mut a = Peer::from_endpoint(&instance, "a", "a.out")?;
    a.reach("a.out")?;
    for n in 1..=20_u64 {
        // Half of them when it waits already.
        let waiter = || order::Receive::Waiter {
            key: "i",
            signo: rt(4),
        };
        if n % 2 == 0 {
            b.ask(waiter())?;
        }
        a.lane_send("a.out", &n.to_ne_bytes())?
            .map_err(anyhow::Error::msg)?;
        if n % 2 == 1 {
            instance.ledger_is("a.out->b.in", 2 * n, &[(Delivered, 2 * n)])?;
            b.ask(waiter())?;
        }
        let all_three = order::OneWait {
            keys: vec![3, 2, 1],
            signal: Some(n),
            expirations: 1,
            numbers: vec![Some(n)],
            rest: 0,
        };
        assert_eq!(b.answer()?.one_wait()?, all_three);
    }
    daemon.stop()?;
    Ok(())
}
