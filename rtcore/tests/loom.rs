//! The ring, its hand-over to the next one, and the sender's barrier under loom: the interleavings
//! of small cases, and the values that a weak memory may show there.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p rtcore --release --test loom`; some seconds. Each model
//! says how many preemptions it explores (2 to 5); LOOM_MAX_PREEMPTIONS overrides all of them.
//!
//! What they can see: each line was taken out or weakened to Relaxed by hand, and so many of the
//! models failed.
//!
//! | weakened | caught by |
//! |---|---|
//! | fence of `Producer::ring` | no_wake_up_is_lost, one_ring_a_turn.. (both), a_sleeper_that_moves.., a_close_ends.., the_gate.. |
//! | fence of `Consumer::arm` | the same without the_gate.. |
//! | tail: Release of `announce`, Acquire of `available` | every model with a message |
//! | head: Release of `release`, Acquire of `room` | a_slot_belongs_to_one_side_at_a_time |
//! | closed: Release of `close`, Acquire of `is_closed` | a_close_ends_a_sleep_and_hides_no_message |
//! | `close` does not ring | a_close_ends_a_sleep_and_hides_no_message |
//! | the bell's wake before its count | every model that sleeps |
//! | the bell's count without Release | other_news_end_a_sleep |
//! | `seen` read after `arm` | no_wake_up_is_lost, one_ring_a_turn.., other_news_end_a_sleep |
//! | the turn stands still | one_ring_a_turn.., a_sleeper_that_moves.. |
//! | `room` admits one too many | a_slot_that_was_not_given_back.., messages_keep_order.. |
//! | fence of `SendBarrier::close`, order of `SendBarrier::decide` | the_gate.. |
//! | the Acquire fence of `Consumer::read`, or its second look at the state | a_message_that_is_written_over.. |
//! | a fence added to `Consumer::release` | a_producer_that_slept_for_room.. (the window is gone) |
//! | fence of `Producer::want_room` | nothing: the bound of `wait_for_room` heals that too; the fence makes it rare |
//!
//! Not modelled: the mark *in progress* (a matter of crashes, not of threads) and what lies in
//! mappings.
#![cfg(loom)]

/// The barrier of a channel, which loom builds from its source: the client itself stands on mappings.
#[path = "../src/channel/barrier.rs"]
mod barrier;
mod sync {
    pub use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
}

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;
use rtcore::message::{Meta, Origin};
use rtcore::ring::{
    Consumer, Doorbell, Envelope, Geometry, Kind, Moved, Producer, PushError, RecoveryCursor, local,
};
use std::sync::Arc;

/// Explores with at most so many preemptions, unless LOOM_MAX_PREEMPTIONS says otherwise.
fn model(preemptions: usize, check: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(preemptions));
    builder.check(check);
}

fn ring(slots: u32, payload_bytes: u32) -> (Producer, Consumer) {
    local(Geometry::new(slots, payload_bytes).unwrap())
}

fn envelope(sequence: u64) -> Envelope {
    let meta = Meta {
        sequence,
        ..Meta::default()
    };
    Envelope {
        meta,
        origin: Origin::UNKNOWN,
        kind: Kind::Bytes { priority: 0 },
        len: 0,
    }
}

fn payload(sequence: u64) -> [u8; 8] {
    (sequence * 0x0101_0101_0101_0101).to_ne_bytes()
}

/// Pushes 1..=count, giving way while the ring is full.
fn push_all(producer: &mut Producer, count: u64) {
    for n in 1..=count {
        while producer.push_quietly(&envelope(n), &payload(n)) == Err(PushError::Full) {
            thread::yield_now();
        }
    }
}

/// A producer that displaces goes on whatever its consumer does; what it writes over while it is
/// read is never handed out.
#[test]
fn a_message_that_is_written_over_is_passed_over() {
    for (slots, keep) in [(1, 1), (2, 2)] {
        model(2, move || {
            let (producer, consumer) = ring(slots, 8);
            let (mut producer, mut consumer) = (producer.displacing(), consumer.keeping(keep));
            let sender = thread::spawn(move || push_all(&mut producer, 2));
            let (mut last, mut accounted) = (0, 0);
            let mut take = || {
                let mut buffer = [0; 8];
                let Some(got) = consumer.take(&mut buffer).unwrap() else {
                    return;
                };
                consumer.release();
                assert!(got.meta.sequence > last);
                last = got.meta.sequence;
                accounted += 1 + consumer.passed();
                assert_eq!(buffer, payload(last));
            };
            // One look while the producer is at work, and what is left afterwards.
            take();
            sender.join().unwrap();
            take();
            take();
            assert_eq!((last, accounted), (2, 2));
        });
    }
}

/// Sleeps without a bound until there is a message or other news; what an inbox of several rings
/// does.
fn sleep_until(consumer: &mut Consumer, news: impl Fn(&Consumer) -> bool) {
    let (bells, bell) = consumer.bell();
    let (bells, seen) = (bells.clone(), bells.seen(bell));
    consumer.arm(Doorbell::Bell);
    if consumer.available() == Ok(0) && !news(consumer) {
        bells.sleep(bell, seen, u64::MAX).unwrap();
    }
    consumer.disarm();
}

fn expect(consumer: &mut Consumer, sequence: u64) -> bool {
    let mut buffer = [0; 8];
    let Some(got) = consumer.take(&mut buffer).unwrap() else {
        return false;
    };
    assert_eq!(
        (got.meta.sequence, got.len, buffer),
        (sequence, 8, payload(sequence))
    );
    true
}

/// Taken and given back one by one.
fn index_protocol(slots: u32, count: u64, preemptions: usize) {
    model(preemptions, move || {
        let (mut producer, mut consumer) = ring(slots, 8);
        let sender = thread::spawn(move || push_all(&mut producer, count));
        for n in 1..=count {
            while !expect(&mut consumer, n) {
                thread::yield_now();
            }
            consumer.release();
        }
        assert!(!expect(&mut consumer, 0));
        sender.join().unwrap();
    });
}

#[test]
fn messages_keep_order_and_content_in_one_slot() {
    index_protocol(1, 3, 3);
}

#[test]
fn messages_keep_order_and_content_in_two_slots() {
    index_protocol(2, 4, 2);
}

#[test]
fn a_slot_that_was_not_given_back_is_not_overwritten() {
    model(3, || {
        let (mut producer, mut consumer) = ring(1, 8);
        let sender = thread::spawn(move || push_all(&mut producer, 2));
        for n in 1..=2 {
            loop {
                if let Some(front) = consumer.front().unwrap() {
                    let mut twice = [[0; 8]; 2];
                    front.copy_to(&mut twice[0]);
                    thread::yield_now();
                    front.copy_to(&mut twice[1]);
                    assert_eq!(
                        (front.envelope().meta.sequence, twice),
                        (n, [payload(n); 2])
                    );
                    break;
                }
                thread::yield_now();
            }
        }
        sender.join().unwrap();
    });
}

/// A piece of memory that belongs to the side that the slot belongs to: loom reports an access that
/// nothing orders behind the other side's last one.
#[derive(Default)]
struct Owned(UnsafeCell<u64>);

// SAFETY: that only one side at a time touches it is what loom checks.
unsafe impl Sync for Owned {}

/// A load that sees a later store is nothing that loom explores, so the order of reading a slot
/// before it is given back shows only in memory that is no atomic.
#[test]
fn a_slot_belongs_to_one_side_at_a_time() {
    model(3, || {
        let (mut producer, mut consumer) = ring(1, 8);
        let slot = Arc::new(Owned::default());
        let sender = {
            let slot = Arc::clone(&slot);
            thread::spawn(move || {
                for n in 1..=2 {
                    while producer.has_room() != Ok(true) {
                        thread::yield_now();
                    }
                    // SAFETY: the slot is the producer's, as there is room.
                    slot.0.with_mut(|at| unsafe { *at = n });
                    producer.push_quietly(&envelope(n), &payload(n)).unwrap();
                }
            })
        };
        for n in 1..=2 {
            while !expect(&mut consumer, n) {
                thread::yield_now();
            }
            // SAFETY: the slot is the consumer's until it is given back.
            slot.0.with(|at| assert_eq!(unsafe { *at }, n));
            consumer.release();
        }
        sender.join().unwrap();
    });
}

#[test]
fn several_that_were_taken_are_given_back_together() {
    model(2, || {
        let (mut producer, mut consumer) = ring(2, 8);
        let sender = thread::spawn(move || push_all(&mut producer, 4));
        let mut next = 1;
        while next <= 4 {
            let before = next;
            while next <= 4 && expect(&mut consumer, next) {
                next += 1;
            }
            if next == before {
                thread::yield_now();
            }
            consumer.release();
        }
        sender.join().unwrap();
    });
}

/// The sleep has no bound, so that a wake-up that is lost is a deadlock.
fn sleeper_gets_all(count: u64, preemptions: usize) {
    model(preemptions, move || {
        let (mut producer, mut consumer) = ring(4, 8);
        let sender = thread::spawn(move || {
            for n in 1..=count {
                assert_eq!(producer.push(&envelope(n), &payload(n)), Ok(false));
            }
        });
        for n in 1..=count {
            while !expect(&mut consumer, n) {
                consumer.wait(u64::MAX).unwrap();
            }
            consumer.release();
        }
        sender.join().unwrap();
    });
}

#[test]
fn no_wake_up_is_lost() {
    sleeper_gets_all(1, 5);
}

#[test]
fn one_ring_a_turn_loses_no_wake_up_over_two_sleeps() {
    sleeper_gets_all(2, 3);
}

#[test]
fn one_ring_a_turn_loses_no_wake_up_over_three_sleeps() {
    sleeper_gets_all(3, 2);
}

#[test]
fn a_sleeper_that_moves_to_another_bell_is_rung_for_there() {
    model(3, || {
        let (mut producer, mut consumer) = ring(4, 8);
        let sender = thread::spawn(move || {
            for n in 1..=2 {
                producer.push(&envelope(n), &payload(n)).unwrap();
            }
        });
        for (n, bell) in [(1, 1), (2, 0)] {
            consumer.set_bell(bell);
            while !expect(&mut consumer, n) {
                sleep_until(&mut consumer, |_| false);
            }
            consumer.release();
        }
        sender.join().unwrap();
    });
}

#[test]
fn other_news_end_a_sleep() {
    model(3, || {
        let (mut producer, mut consumer) = ring(2, 8);
        let news = Arc::new(AtomicU32::new(0));
        let bells = consumer.bell().0.clone();
        let teller = {
            let news = Arc::clone(&news);
            thread::spawn(move || {
                news.store(1, Ordering::Release);
                bells.ring(0);
            })
        };
        let sender = thread::spawn(move || producer.push(&envelope(1), &payload(1)).unwrap());
        while news.load(Ordering::Acquire) == 0 {
            consumer
                .wait_unless(u64::MAX, || news.load(Ordering::Acquire) != 0)
                .unwrap();
            // What came meanwhile would end every further wait at once.
            if expect(&mut consumer, 1) {
                consumer.release();
            }
        }
        teller.join().unwrap();
        sender.join().unwrap();
    });
}

/// Who sees the ring closed sees all that ever came, and is woken by the close.
#[test]
fn a_close_ends_a_sleep_and_hides_no_message() {
    model(3, || {
        let (mut producer, mut consumer) = ring(2, 8);
        let sender = thread::spawn(move || {
            // Quietly: the fence of a ring would order the close behind the message.
            producer.push_quietly(&envelope(1), &payload(1)).unwrap();
            producer.close();
        });
        let mut taken = 0;
        loop {
            let closed = consumer.is_closed();
            if expect(&mut consumer, taken + 1) {
                taken += 1;
                consumer.release();
            } else if closed {
                break;
            } else {
                sleep_until(&mut consumer, Consumer::is_closed);
            }
        }
        assert_eq!(taken, 1);
        sender.join().unwrap();
    });
}

/// The consumer looks for a producer that waits for room without a fence, so it may miss it: this
/// is the window that `Producer::wait_for_room` closes by its bound.
#[test]
#[should_panic(expected = "deadlock")]
fn a_producer_that_slept_for_room_without_a_bound_could_sleep_for_ever() {
    model(3, || {
        let (mut producer, mut consumer) = ring(1, 8);
        producer.push(&envelope(1), &payload(1)).unwrap();
        let receiver = thread::spawn(move || {
            assert!(expect(&mut consumer, 1));
            consumer.release();
        });
        let (bells, bell) = producer.bell();
        let (bells, seen) = (bells.clone(), bells.seen(bell));
        producer.want_room();
        if producer.has_room() == Ok(false) {
            bells.sleep(bell, seen, u64::MAX).unwrap();
        }
        receiver.join().unwrap();
    });
}

#[test]
fn a_producer_that_waits_for_room_gets_it() {
    model(2, || {
        let (mut producer, mut consumer) = ring(1, 8);
        let receiver = thread::spawn(move || {
            for n in 1..=2 {
                while !expect(&mut consumer, n) {
                    consumer.wait(u64::MAX).unwrap();
                }
                consumer.release();
            }
        });
        for n in 1..=2 {
            while producer.push(&envelope(n), &payload(n)) == Err(PushError::Full) {
                producer.wait_for_room(u64::MAX).unwrap();
            }
        }
        receiver.join().unwrap();
    });
}

/// The other end is gone while the sender sends: what the sender was told and what is below the
/// decided tail are the same messages, and who moves them sees them whole.
#[test]
fn the_gate_gives_both_sides_the_same_answer() {
    model(4, || {
        let (mut producer, mut consumer) = ring(4, 8);
        let barrier = Arc::new(barrier::SendBarrier::new());
        let sender = {
            let barrier = Arc::clone(&barrier);
            thread::spawn(move || {
                for n in 1..=2 {
                    if !barrier.is_open() {
                        return n - 1;
                    }
                    producer.push(&envelope(n), &payload(n)).unwrap();
                    if barrier.admitted(producer.tail()) < producer.tail() {
                        return n - 1;
                    }
                }
                2
            })
        };
        // The consumer stands for the cursor of a ring whose reader is gone: its backlog is the
        // tail.
        let decided = barrier.close(|| consumer.backlog());
        for n in 1..=decided {
            assert!(expect(&mut consumer, n));
        }
        assert_eq!(sender.join().unwrap(), decided);
        assert_eq!(barrier.close(|| 9), decided, "for good");
    });
}

/// Sends 1 and 2 while the barrier is open; the last one that was accepted.
fn send_through(barrier: &barrier::SendBarrier, producer: &mut Producer) -> u64 {
    for n in 1..=2 {
        if !barrier.is_open() {
            return n - 1;
        }
        producer.push(&envelope(n), &payload(n)).unwrap();
        if barrier.admitted(producer.tail()) < producer.tail() {
            return n - 1;
        }
    }
    2
}

/// Session thread: moves what a consumer that is gone has not taken; the numbers of those messages.
fn hand_over(
    barrier: &barrier::SendBarrier,
    cursor: &RecoveryCursor,
    next: &mut Producer,
) -> std::ops::RangeInclusive<u64> {
    let until = barrier.close(|| cursor.tail());
    cursor.close();
    let from = cursor.taken(until);
    assert_eq!(
        cursor.move_to(from, until, next),
        Moved {
            moved: until - from,
            lost: 0
        }
    );
    from + 1..=until
}

/// A killed rtd's messages go into the ring of the next one while the sender sends: each accepted
/// message once, in order, and only the one that a lane had in hand (taken and not given back) a
/// second time.
#[test]
fn what_a_killed_rtd_had_not_taken_is_in_the_ring_of_the_next() {
    for given_back in [true, false] {
        model(3, move || {
            let (mut old, mut lane) = ring(2, 8);
            let (mut next, mut next_lane) = ring(2, 8);
            let (barrier, cursor) = (Arc::new(barrier::SendBarrier::new()), old.recovery_cursor());
            let sender = {
                let barrier = Arc::clone(&barrier);
                thread::spawn(move || send_through(&barrier, &mut old))
            };
            let killed = thread::spawn(move || {
                let taken = expect(&mut lane, 1);
                if taken && given_back {
                    lane.release();
                }
                u64::from(taken)
            });
            // The pidfd of a process becomes readable after its last store.
            let taken = killed.join().unwrap();
            let moved = hand_over(&barrier, &cursor, &mut next);
            assert_eq!(*moved.start(), if given_back { taken + 1 } else { 1 });
            for n in moved.clone() {
                assert!(expect(&mut next_lane, n));
            }
            assert!(!expect(&mut next_lane, 0));
            assert_eq!(sender.join().unwrap(), *moved.end());
        });
    }
}

/// A receiver lets go of its end of a direct ring and lives on: what it took is not moved, and what
/// it did not take is.
#[test]
fn what_a_receiver_left_is_moved_and_what_it_took_is_not() {
    model(3, || {
        let (mut old, mut receiver) = ring(2, 8);
        let (mut next, mut next_receiver) = ring(2, 8);
        let (barrier, cursor) = (Arc::new(barrier::SendBarrier::new()), old.recovery_cursor());
        let sender = {
            let barrier = Arc::clone(&barrier);
            thread::spawn(move || send_through(&barrier, &mut old))
        };
        let leaver = thread::spawn(move || {
            let taken = expect(&mut receiver, 1);
            if taken {
                receiver.release();
            }
            receiver.leave();
            u64::from(taken)
        });
        while !cursor.has_left() {
            thread::yield_now();
        }
        let moved = hand_over(&barrier, &cursor, &mut next);
        for n in moved.clone() {
            assert!(expect(&mut next_receiver, n));
        }
        assert!(!expect(&mut next_receiver, 0));
        assert_eq!(leaver.join().unwrap() + 1, *moved.start());
        assert_eq!(sender.join().unwrap(), *moved.end());
    });
}

/// The daemon says that nobody receives, or that somebody does again: a sender that sees the
/// barrier shut sees the reason of that time, or a later one.
#[test]
fn a_sender_that_sees_the_gate_shut_sees_why() {
    model(4, || {
        let barrier = Arc::new(barrier::SendBarrier::new());
        let why = Arc::new(AtomicU32::new(0));
        let session = {
            let (barrier, why) = (Arc::clone(&barrier), Arc::clone(&why));
            thread::spawn(move || {
                why.store(1, Ordering::Relaxed);
                barrier.set_reachable(false);
                barrier.set_reachable(true);
                why.store(2, Ordering::Relaxed);
                barrier.close(|| 0);
            })
        };
        if !barrier.is_open() {
            assert_ne!(why.load(Ordering::Relaxed), 0);
        }
        session.join().unwrap();
        assert!(!barrier.is_open());
        assert_eq!(why.load(Ordering::Relaxed), 2);
    });
}
