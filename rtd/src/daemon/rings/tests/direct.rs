//! Rings between two sessions: the two steps, the ledger, and ends that lie or die.

use super::*;
use crate::daemon::rings::direct::OLD_MAX;
use rtcore::message::Reject;
use rtcore::ring::Receipt;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What one end was sent first.
struct Half {
    serial: u32,
    own: OwnedFd,
}

/// The frames for one process.
fn frames(rings: &mut Rings, process: ProcessId) -> Vec<(Notice, Vec<OwnedFd>)> {
    let out = std::mem::take(&mut rings.out.frames);
    let (mine, others): (Vec<_>, _) = out.into_iter().partition(|frame| frame.process == process);
    rings.out.frames = others;
    mine.into_iter().map(|frame| (frame.notice, frame.fds)).collect()
}

fn half(rings: &mut Rings, process: ProcessId) -> Half {
    match frames(rings, process).pop() {
        Some((Notice::Ring { channel: 0, serial, uid: 7, .. }, fds)) => {
            let [own, _eventfd, page] = fds.try_into().unwrap();
            let page_map = Map::of(page.as_fd(), Receipt::PAGE_BYTES, true).unwrap();
            Bells::shared(page_map).unwrap();
            Half { serial, own }
        }
        other => panic!("{other:?}"),
    }
}

fn other_half(rings: &mut Rings, process: ProcessId, serial: u32) -> OwnedFd {
    match frames(rings, process).pop() {
        Some((Notice::Join { channel: 0, serial: s }, mut fds)) if s == serial => fds.remove(0),
        other => panic!("{other:?}"),
    }
}

/// Two sessions with a ring that both ends have answered for.
struct Pair {
    rings: Rings,
    arm: Someone,
    planner: Someone,
    generation: u64,
}

impl Pair {
    fn new() -> Pair {
        let mut rings = Rings::new(&direct_plan(), rtcore::skin::posix(), true).unwrap();
        let (arm, planner) = (Someone::new(), Someone::new());
        open(&mut rings, ARM, arm.identity(1));
        assert!(rings.out.frames.is_empty(), "the receiver is not there yet");
        open(&mut rings, PLANNER, planner.identity(1));
        Pair { rings, arm, planner, generation: 1 }
    }

    fn join(&mut self) -> (Words, Words) {
        let rings = &mut self.rings;
        let (sender, receiver) = (half(rings, ARM), half(rings, PLANNER));
        assert_ne!(sender.serial, receiver.serial, "an answer says which end it is about");
        let words = (
            Words(Map::of(sender.own.as_fd(), geometry(16).timed().producer_bytes(), true).unwrap()),
            Words(Map::of(receiver.own.as_fd(), geometry(16).timed().consumer_bytes(), true).unwrap()),
        );
        rings.mapped(ARM, sender.serial);
        assert_eq!(rings.reach(ARM, 0, |_| PeerState::Alive), Some(false));
        rings.mapped(PLANNER, receiver.serial);
        assert_eq!(rings.reach(ARM, 0, |_| PeerState::Alive), Some(true));
        let (head, tail) =
            (other_half(rings, ARM, sender.serial), other_half(rings, PLANNER, receiver.serial));
        let (producer, consumer) =
            (geometry(16).timed().producer_bytes(), geometry(16).timed().consumer_bytes());
        for (fd, bytes) in
            [(&head, consumer), (&tail, producer), (&sender.own, producer), (&receiver.own, consumer)]
        {
            assert!(Map::of(fd.as_fd(), bytes, true).is_err(), "nobody maps it for writing any more");
            assert!(Map::of(fd.as_fd(), bytes, false).is_ok());
        }
        words
    }

    /// The process has another life, or the same session again.
    fn again(&mut self, process: ProcessId) {
        self.generation += 1;
        let someone = if process == ARM { &self.arm } else { &self.planner };
        let identity = someone.identity(self.generation);
        self.rings.close(process);
        open(&mut self.rings, process, identity);
    }

    fn ledger(&mut self) -> Ledger {
        self.rings.tick();
        let (route, ledger) = self.rings.ledgers().next().unwrap();
        assert_eq!(route, 0);
        assert!(ledger.balances(), "{ledger:?}");
        ledger
    }
}

/// The memory that one end writes, by hand: so an end can lie too.
struct Words(Map);

impl Words {
    fn at(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: the mapping has a page at least, lives as long as `self`, and is written as atomics by all.
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
    let mut expected = Ledger { accepted, delivered, peer_dead: dead, queued, held, ..Ledger::default() };
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
    let (sender, receiver) = (half(&mut pair.rings, ARM), half(&mut pair.rings, PLANNER));
    for _ in 0..3 {
        pair.rings.mapped(ARM, sender.serial);
        pair.rings.mapped(ARM, receiver.serial);
        pair.rings.mapped(PLANNER, sender.serial);
        pair.rings.mapped(PLANNER, 0);
    }
    assert!(pair.rings.out.frames.is_empty() && !pair.rings.direct[&0].is_joined());
    // Its next session counts, the answer of the one before does not.
    pair.again(PLANNER);
    let (sender, again) = (half(&mut pair.rings, ARM), half(&mut pair.rings, PLANNER));
    pair.rings.mapped(ARM, sender.serial);
    pair.rings.mapped(PLANNER, receiver.serial);
    assert!(!pair.rings.direct[&0].is_joined());
    pair.rings.mapped(PLANNER, again.serial);
    assert!(pair.rings.direct[&0].is_joined());
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
        while receiver.index().load(Ordering::Relaxed) < 100_000 && std::time::Instant::now() < end {
            pair.rings.tick();
            let (_, ledger) = pair.rings.ledgers().next().unwrap();
            most = most.max(if ledger.balances() { ledger.queued } else { u64::MAX });
        }
        stop.store(true, Ordering::Relaxed);
        assert!(most <= u64::from(SLOTS), "{most} queued, or a sum that does not balance");
    });
    assert!(pair.rings.out.warnings.is_empty(), "{:?}", pair.rings.out.warnings);
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
    pair.rings.close(PLANNER);
    expect(pair.ledger(), [5, 3, 0, 0, 2, 0]);
    // Sent before it learns of the death; then it moves on.
    sender.index().store(6, Ordering::Release);
    expect(pair.ledger(), [6, 3, 0, 0, 3, 0]);
    sender.closed().store(1, Ordering::Release);
    expect(pair.ledger(), [6, 3, 0, 0, 3, 0]);
    assert_eq!(pair.rings.direct[&0].old_rings(), 0);
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
    pair.rings.close(ARM);
    expect(pair.ledger(), [4, 0, 0, 0, 0, 4]);
    pair.arm = Someone::new();
    pair.again(ARM);
    let (next, _) = pair.join();
    next.index().store(2, Ordering::Release);
    receiver.index().store(3, Ordering::Release);
    expect(pair.ledger(), [6, 3, 0, 0, 0, 3]);
    receiver.index().store(4, Ordering::Release);
    expect(pair.ledger(), [6, 4, 0, 0, 0, 2]);
    assert_eq!(pair.rings.direct[&0].old_rings(), 0);
}

#[test]
fn who_lies_about_a_ring_gets_another_and_the_sum_holds() {
    type Lie = fn(&Words, &Words);
    let violations: [Lie; 5] = [
        |sender, _| sender.index().store(u64::MAX, Ordering::Release),
        |sender, _| sender.index().store(1, Ordering::Release),
        |sender, _| sender.index().store(3 + u64::from(SLOTS) + 1, Ordering::Release),
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
        let warning = pair.rings.out.warnings.pop().unwrap();
        assert!(warning.contains("route d") && warning.contains("cannot be"), "{warning}");
        assert!(pair.rings.out.warnings.is_empty() && !pair.rings.direct[&0].is_joined());
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
    pair.rings.close(ARM);
    let refused = pair.rings.prepare(ARM, wanted(false)).unwrap_err().to_string();
    assert!(refused.contains("route d") && refused.contains("has not read"), "{refused}");
    assert!(pair.rings.prepare(PLANNER, wanted(false)).is_ok(), "who does not read may always come");
    pair.planner.die();
    pair.rings.close(PLANNER);
    expect(pair.ledger(), [16, 0, 0, 0, 16, 0]);
    assert!(pair.rings.prepare(ARM, wanted(false)).is_ok());
}

#[test]
fn a_receiver_that_comes_again_and_again_before_a_sender_that_never_closes_is_let_in() {
    let mut pair = Pair::new();
    for _ in 0..3 * OLD_MAX {
        let (sender, _receiver) = pair.join();
        sender.index().store(1, Ordering::Release);
        pair.again(PLANNER);
    }
    assert_eq!(pair.rings.direct[&0].old_rings(), OLD_MAX);
    let ledger = pair.ledger();
    assert_eq!((ledger.accepted, ledger.delivered), (48, 0));
}

#[test]
fn who_seals_its_memory_before_the_daemon_does_is_named() {
    let mut pair = Pair::new();
    let (sender, receiver) = (half(&mut pair.rings, ARM), half(&mut pair.rings, PLANNER));
    // As the sender could: everything but what the daemon needs.
    let seals = nix::fcntl::SealFlag::F_SEAL_SEAL;
    nix::fcntl::fcntl(&sender.own, nix::fcntl::FcntlArg::F_ADD_SEALS(seals)).unwrap();
    pair.rings.mapped(ARM, sender.serial);
    pair.rings.mapped(PLANNER, receiver.serial);
    let (who, why) = pair.rings.out.violators.pop().unwrap();
    assert_eq!(who, ARM);
    assert!(why.contains("route d"), "{why}");
    assert!(pair.rings.out.frames.is_empty(), "nobody is joined");
}

#[test]
fn rings_of_sessions_that_ended_are_given_back() {
    let mut plan = direct_plan();
    plan.routes[0].name = "returned".into();
    let mut rings = Rings::new(&plan, rtcore::skin::posix(), true).unwrap();
    let (arm, planner) = (Someone::new(), Someone::new());
    for generation in 1..100 {
        open(&mut rings, ARM, arm.identity(generation));
        open(&mut rings, PLANNER, planner.identity(generation));
        let (sender, receiver) = (half(&mut rings, ARM), half(&mut rings, PLANNER));
        assert!(maps("returned") > 0);
        if generation % 2 == 0 {
            let words =
                Words(Map::of(sender.own.as_fd(), geometry(16).timed().producer_bytes(), true).unwrap());
            rings.mapped(ARM, sender.serial);
            rings.mapped(PLANNER, receiver.serial);
            words.closed().store(1, Ordering::Release);
        }
        rings.take_out();
        rings.close(ARM);
        rings.close(PLANNER);
    }
    rings.tick();
    assert_eq!(maps("returned"), 0);
}
