//! Rings between two sessions: the two steps, the ledger, and ends that break the protocol or die.

use super::*;
use crate::daemon::rings::direct::OLD_MAX;
use rtcore::message::Reject;
use rtcore::ring::Receipt;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The first frames of one end.
struct Half {
    serial: u32,
    own: OwnedFd,
}

/// The frames for one process.
fn frames(bench: &mut Bench, process: ProcessId) -> Vec<(Notice, Vec<OwnedFd>)> {
    let out = std::mem::take(&mut bench.frames);
    let (mine, others): (Vec<_>, _) = out.into_iter().partition(|frame| frame.process == process);
    bench.frames = others;
    mine.into_iter()
        .map(|frame| (frame.notice, frame.fds))
        .collect()
}

fn half(bench: &mut Bench, process: ProcessId) -> Half {
    match frames(bench, process).pop() {
        Some((
            Notice::Ring {
                channel: 0,
                serial,
                uid: 7,
                ..
            },
            fds,
        )) => {
            let [own, _eventfd, page] = fds.try_into().unwrap();
            let page_map = Map::of(page.as_fd(), Receipt::PAGE_BYTES, true).unwrap();
            Bells::shared(page_map).unwrap();
            Half { serial, own }
        }
        other => panic!("{other:?}"),
    }
}

fn other_half(bench: &mut Bench, process: ProcessId, serial: u32) -> OwnedFd {
    match frames(bench, process).pop() {
        Some((
            Notice::Join {
                channel: 0,
                serial: s,
            },
            mut fds,
        )) if s == serial => fds.remove(0),
        other => panic!("{other:?}"),
    }
}

/// Two sessions with a ring that both ends have confirmed.
struct Pair {
    bench: Bench,
    arm: Someone,
    planner: Someone,
    generation: u64,
}

impl Pair {
    fn new() -> Pair {
        let mut bench = Bench::new(&direct_plan());
        let (arm, planner) = (Someone::new(), Someone::new());
        bench.open(ARM, arm.identity(1));
        assert!(bench.frames.is_empty(), "the receiver is not there yet");
        bench.open(PLANNER, planner.identity(1));
        Pair {
            bench,
            arm,
            planner,
            generation: 1,
        }
    }

    fn join(&mut self) -> (Words, Words) {
        let bench = &mut self.bench;
        let (sender, receiver) = (half(bench, ARM), half(bench, PLANNER));
        assert_ne!(
            sender.serial, receiver.serial,
            "an answer says which end it is about"
        );
        let words = (
            Words(
                Map::of(
                    sender.own.as_fd(),
                    geometry(16).timed().producer_bytes(),
                    true,
                )
                .unwrap(),
            ),
            Words(
                Map::of(
                    receiver.own.as_fd(),
                    geometry(16).timed().consumer_bytes(),
                    true,
                )
                .unwrap(),
            ),
        );
        bench.mapped(ARM, sender.serial);
        assert!(!bench.is_reached(ARM, 0));
        bench.mapped(PLANNER, receiver.serial);
        assert!(bench.is_reached(ARM, 0));
        let (head, tail) = (
            other_half(bench, ARM, sender.serial),
            other_half(bench, PLANNER, receiver.serial),
        );
        let (producer, consumer) = (
            geometry(16).timed().producer_bytes(),
            geometry(16).timed().consumer_bytes(),
        );
        for (fd, bytes) in [
            (&head, consumer),
            (&tail, producer),
            (&sender.own, producer),
            (&receiver.own, consumer),
        ] {
            assert!(
                Map::of(fd.as_fd(), bytes, true).is_err(),
                "nobody maps it for writing any more"
            );
            assert!(Map::of(fd.as_fd(), bytes, false).is_ok());
        }
        words
    }

    /// The process starts again, or opens its session again.
    fn again(&mut self, process: ProcessId) {
        self.generation += 1;
        let someone = if process == ARM {
            &self.arm
        } else {
            &self.planner
        };
        let identity = someone.identity(self.generation);
        self.bench.close(process);
        self.bench.open(process, identity);
    }

    fn ledger(&mut self) -> Ledger {
        self.bench.tick();
        let (route, ledger) = self.bench.rings.ledgers().next().unwrap();
        assert_eq!(route, 0);
        assert!(ledger.balances(), "{ledger:?}");
        ledger
    }
}

/// The memory that one end writes, as raw words: an end can thus break the protocol.
struct Words(Map);

impl Words {
    fn at(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: the mapping has a page at least, lives as long as `self`, and is written as
        // atomics by all.
        unsafe { &*self.0.start().as_ptr().add(offset).cast::<AtomicU64>() }
    }

    /// The producer's tail or the consumer's head.
    fn index(&self) -> &AtomicU64 {
        self.at(0)
    }

    fn closed(&self) -> &AtomicU64 {
        self.at(72)
    }
}

fn expect(ledger: Ledger, [accepted, delivered, full, error, dead, queued]: [u64; 6]) {
    let held = queued;
    let mut expected = Ledger {
        accepted,
        delivered,
        peer_dead: dead,
        queued,
        held,
        ..Ledger::default()
    };
    expected.rejected[Reject::Full as usize] = full;
    expected.rejected[Reject::Error as usize] = error;
    assert_eq!(ledger, expected);
}

#[test]
fn each_end_gets_what_it_may_and_the_ledger_says_where_all_is() {
    let mut pair = Pair::new();
    let (sender, receiver) = pair.join();
    sender.index().store(5, Ordering::Release);
    receiver.index().store(3, Ordering::Release);
    expect(pair.ledger(), [5, 3, 0, 0, 0, 2]);
}

#[test]
fn a_client_that_never_maps_is_not_joined_and_numbers_of_other_rings_mean_nothing() {
    let mut pair = Pair::new();
    let (sender, receiver) = (half(&mut pair.bench, ARM), half(&mut pair.bench, PLANNER));
    for _ in 0..3 {
        pair.bench.mapped(ARM, sender.serial);
        pair.bench.mapped(ARM, receiver.serial);
        pair.bench.mapped(PLANNER, sender.serial);
        pair.bench.mapped(PLANNER, 0);
    }
    assert!(pair.bench.frames.is_empty() && !pair.bench.rings.direct[&0].is_joined());
    // The answer of its next session counts, not that of the earlier one.
    pair.again(PLANNER);
    let (sender, again) = (half(&mut pair.bench, ARM), half(&mut pair.bench, PLANNER));
    pair.bench.mapped(ARM, sender.serial);
    pair.bench.mapped(PLANNER, receiver.serial);
    assert!(!pair.bench.rings.direct[&0].is_joined());
    pair.bench.mapped(PLANNER, again.serial);
    assert!(pair.bench.rings.direct[&0].is_joined());
}

#[test]
fn sums_balance_while_both_ends_run_at_full_speed() {
    let mut pair = Pair::new();
    let (sender, receiver) = pair.join();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut tail = 0;
            while !stop.load(Ordering::Relaxed) {
                if tail - receiver.index().load(Ordering::Acquire) < u64::from(SLOTS) {
                    tail += 1;
                    sender.index().store(tail, Ordering::Release);
                }
            }
        });
        scope.spawn(|| {
            let mut head = 0;
            while !stop.load(Ordering::Relaxed) {
                if head < sender.index().load(Ordering::Acquire) {
                    head += 1;
                    receiver.index().store(head, Ordering::Release);
                }
            }
        });
        let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
        let mut most = 0;
        while receiver.index().load(Ordering::Relaxed) < 100_000 && std::time::Instant::now() < end
        {
            pair.bench.tick();
            let (_, ledger) = pair.bench.rings.ledgers().next().unwrap();
            most = most.max(if ledger.balances() {
                ledger.queued
            } else {
                u64::MAX
            });
        }
        stop.store(true, Ordering::Relaxed);
        assert!(
            most <= u64::from(SLOTS),
            "{most} queued, or a sum that does not balance"
        );
    });
    assert!(pair.bench.warnings.is_empty(), "{:?}", pair.bench.warnings);
    let tail = sender.index().load(Ordering::Relaxed);
    let head = receiver.index().load(Ordering::Relaxed);
    assert!(head > 1000, "{head}");
    expect(pair.ledger(), [tail, head, 0, 0, 0, tail - head]);
}

#[test]
fn what_a_dead_receiver_has_not_taken_ends_there() {
    let mut pair = Pair::new();
    let (sender, receiver) = pair.join();
    sender.index().store(5, Ordering::Release);
    receiver.index().store(3, Ordering::Release);
    pair.planner.die();
    pair.bench.close(PLANNER);
    expect(pair.ledger(), [5, 3, 0, 0, 2, 0]);
    // Sent before the sender learns of the death; then it moves on.
    sender.index().store(6, Ordering::Release);
    expect(pair.ledger(), [6, 3, 0, 0, 3, 0]);
    sender.closed().store(1, Ordering::Release);
    expect(pair.ledger(), [6, 3, 0, 0, 3, 0]);
    assert_eq!(pair.bench.rings.direct[&0].old_rings(), 0);
    pair.planner = Someone::new();
    pair.again(PLANNER);
    let (sender, receiver) = pair.join();
    sender.index().store(1, Ordering::Release);
    receiver.index().store(1, Ordering::Release);
    expect(pair.ledger(), [7, 4, 0, 0, 3, 0]);
}

#[test]
fn what_a_dead_sender_has_sent_is_still_read() {
    let mut pair = Pair::new();
    let (sender, receiver) = pair.join();
    sender.index().store(4, Ordering::Release);
    pair.arm.die();
    pair.bench.close(ARM);
    expect(pair.ledger(), [4, 0, 0, 0, 0, 4]);
    pair.arm = Someone::new();
    pair.again(ARM);
    let (next, _) = pair.join();
    next.index().store(2, Ordering::Release);
    receiver.index().store(3, Ordering::Release);
    expect(pair.ledger(), [6, 3, 0, 0, 0, 3]);
    receiver.index().store(4, Ordering::Release);
    expect(pair.ledger(), [6, 4, 0, 0, 0, 2]);
    assert_eq!(pair.bench.rings.direct[&0].old_rings(), 0);
}

#[test]
fn who_lies_about_a_ring_gets_another_and_the_sum_holds() {
    type Lie = fn(&Words, &Words);
    let violations: [Lie; 5] = [
        |sender, _| sender.index().store(u64::MAX, Ordering::Release),
        |sender, _| sender.index().store(1, Ordering::Release),
        |sender, _| {
            sender
                .index()
                .store(3 + u64::from(SLOTS) + 1, Ordering::Release)
        },
        |_, receiver| receiver.index().store(2, Ordering::Release),
        |sender, receiver| {
            sender.index().store(1 << 50, Ordering::Release);
            receiver.index().store(1 << 50, Ordering::Release);
        },
    ];
    let mut pair = Pair::new();
    for (n, lie) in (1..).zip(violations) {
        let (sender, receiver) = pair.join();
        sender.index().store(5, Ordering::Release);
        receiver.index().store(3, Ordering::Release);
        pair.ledger();
        lie(&sender, &receiver);
        expect(pair.ledger(), [5 * n, 3 * n, 0, 2 * n, 0, 0]);
        let warning = pair.bench.warnings.pop().unwrap();
        assert!(
            warning.contains("route d") && warning.contains("impossible indices"),
            "{warning}"
        );
        assert!(pair.bench.warnings.is_empty() && !pair.bench.rings.direct[&0].is_joined());
    }
    pair.join();
}

#[test]
fn a_sender_that_starts_again_and_again_before_a_reader_that_does_not_read_has_to_wait() {
    let mut pair = Pair::new();
    for life in 1..=OLD_MAX {
        let (sender, _receiver) = pair.join();
        sender.index().store(1, Ordering::Release);
        sender.closed().store(1, Ordering::Release);
        if life < OLD_MAX {
            pair.again(ARM);
        }
    }
    pair.bench.close(ARM);
    let refused = pair
        .bench
        .rings
        .prepare(ARM, wanted(false))
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("route d") && refused.contains("has not read"),
        "{refused}"
    );
    assert!(
        pair.bench.rings.prepare(PLANNER, wanted(false)).is_ok(),
        "who does not read may always come"
    );
    pair.planner.die();
    pair.bench.close(PLANNER);
    expect(pair.ledger(), [16, 0, 0, 0, 16, 0]);
    assert!(pair.bench.rings.prepare(ARM, wanted(false)).is_ok());
}

#[test]
fn a_receiver_that_comes_again_and_again_before_a_sender_that_never_closes_is_let_in() {
    let mut pair = Pair::new();
    for _ in 0..3 * OLD_MAX {
        let (sender, _receiver) = pair.join();
        sender.index().store(1, Ordering::Release);
        pair.again(PLANNER);
    }
    assert_eq!(pair.bench.rings.direct[&0].old_rings(), OLD_MAX);
    let ledger = pair.ledger();
    assert_eq!((ledger.accepted, ledger.delivered), (48, 0));
}

#[test]
fn who_seals_its_memory_before_the_daemon_does_is_named() {
    let mut pair = Pair::new();
    let (sender, receiver) = (half(&mut pair.bench, ARM), half(&mut pair.bench, PLANNER));
    // As the sender could do: every seal except the one that the daemon needs.
    let seals = nix::fcntl::SealFlag::F_SEAL_SEAL;
    nix::fcntl::fcntl(&sender.own, nix::fcntl::FcntlArg::F_ADD_SEALS(seals)).unwrap();
    pair.bench.mapped(ARM, sender.serial);
    pair.bench.mapped(PLANNER, receiver.serial);
    let Some((ARM, End::Violation(why))) = pair.bench.ended.pop() else {
        panic!("{:?}", pair.bench.state)
    };
    assert!(why.contains("route d"), "{why}");
    assert!(pair.bench.frames.is_empty(), "nobody is joined");
}

#[test]
fn rings_of_sessions_that_ended_are_given_back() {
    let mut plan = direct_plan();
    plan.routes[0].name = "returned".into();
    let mut bench = Bench::new(&plan);
    let (arm, planner) = (Someone::new(), Someone::new());
    for generation in 1..100 {
        bench.open(ARM, arm.identity(generation));
        bench.open(PLANNER, planner.identity(generation));
        let (sender, receiver) = (half(&mut bench, ARM), half(&mut bench, PLANNER));
        assert!(maps("returned") > 0);
        if generation % 2 == 0 {
            let words = Words(
                Map::of(
                    sender.own.as_fd(),
                    geometry(16).timed().producer_bytes(),
                    true,
                )
                .unwrap(),
            );
            bench.mapped(ARM, sender.serial);
            bench.mapped(PLANNER, receiver.serial);
            words.closed().store(1, Ordering::Release);
        }
        bench.frames.clear();
        bench.close(ARM);
        bench.close(PLANNER);
    }
    bench.tick();
    assert_eq!(maps("returned"), 0);
}
