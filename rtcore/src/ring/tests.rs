//! What a ring promises, between threads and between mappings; the model is in
//! `rtcore/tests/loom.rs`.

use super::*;
use crate::message::{Meta, Origin};
use crate::sys::eventfd::EventFd;
use crate::sys::memfd::{Map, Memory};
use proptest::prelude::*;
use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};

mod hostile;
mod waking;

fn geometry(slots: u32, payload: u32) -> Geometry {
    Geometry::new(slots, payload).unwrap()
}

fn envelope(sequence: u64) -> Envelope {
    let meta = Meta {
        sequence,
        intended_ns: 1,
        sent_ns: 2,
        correlation: 3,
        epoch: 4,
    };
    let origin = Origin {
        pid: 5,
        uid: 6,
        verified: true,
    };
    Envelope {
        meta,
        origin,
        kind: Kind::Bytes { priority: 7 },
        len: 0,
    }
}

fn bells() -> Bells {
    let memory = Memory::new("rtd-bells", Bells::BYTES).unwrap();
    Bells::shared(memory.map_writable().unwrap()).unwrap()
}

/// A ring over real shared memory, both ends mapped as two processes would; in ordinary memory
/// under Miri, which knows no memfd.
fn shared(slots: u32, payload: u32) -> (Producer, Consumer) {
    if cfg!(miri) {
        return local(geometry(slots, payload));
    }
    let (ring, bells) = (
        Shared::create("rtd-ring", geometry(slots, payload)).unwrap(),
        bells(),
    );
    let end = |side| {
        let [producer, consumer, eventfd] = ring
            .handles(side)
            .unwrap()
            .as_fds()
            .map(|fd| fd.try_clone_to_owned().unwrap());
        Handles::from_fds([producer, consumer, eventfd])
    };
    let producer = end(Side::Producer)
        .into_producer(geometry(slots, payload), &bells, 1)
        .unwrap();
    ring.seal(Side::Producer).unwrap();
    let consumer = end(Side::Consumer)
        .into_consumer(geometry(slots, payload), &bells, 0)
        .unwrap();
    ring.seal(Side::Consumer).unwrap();
    assert!(
        end(Side::Producer)
            .into_producer(geometry(slots, payload), &bells, 1)
            .is_err(),
        "sealed"
    );
    (producer, consumer)
}

#[test]
fn sizes_that_no_ring_has_are_refused() {
    for (slots, payload) in [
        (0, 8),
        (3, 8),
        (SLOTS_MAX * 2, 8),
        (8, PAYLOAD_BYTES_MAX + 1),
        (SLOTS_MAX, 1 << 20),
    ] {
        assert_eq!(Geometry::new(slots, payload), None, "{slots} x {payload}");
    }
    assert!(Geometry::new(1, 0).is_some());
}

#[test]
fn what_goes_in_comes_out_with_its_envelope() {
    let (mut producer, mut consumer) = shared(4, 100);
    for sequence in 1..=1000 {
        let payload: Vec<u8> = (0..sequence % 101)
            .map(|n| u8::try_from(n).unwrap())
            .collect();
        producer.push(&envelope(sequence), &payload).unwrap();
        let mut buffer = [0; 100];
        let got = consumer.take(&mut buffer).unwrap().unwrap();
        assert_eq!(
            got,
            Envelope {
                len: u32::try_from(payload.len()).unwrap(),
                ..envelope(sequence)
            }
        );
        assert_eq!(&buffer[..got.len as usize], &payload);
        consumer.release();
    }
    let signal = Envelope {
        kind: Kind::Signal { signo: 37 },
        len: 0,
        ..envelope(9)
    };
    producer.push(&signal, b"ticket").unwrap();
    let front = consumer.front().unwrap().unwrap();
    assert_eq!(*front.envelope(), Envelope { len: 6, ..signal });
    // SAFETY: the producer is this thread, and idle.
    assert_eq!(unsafe { front.bytes() }, b"ticket");
}

#[test]
#[cfg_attr(miri, ignore = "needs memfd_create(2)")]
fn what_was_not_given_back_is_still_there_for_the_next_consumer_of_the_ring() {
    let (ring, bells) = (Shared::create("rtd-ring", geometry(4, 8)).unwrap(), bells());
    let mut producer = ring.producer(&bells, 1).unwrap();
    let mut first = ring.consumer(&bells, 0).unwrap();
    for n in 1..=3 {
        producer.push(&envelope(n), b"x").unwrap();
    }
    let mut buffer = [0; 8];
    first.take(&mut buffer).unwrap();
    first.release();
    first.take(&mut buffer).unwrap();
    drop(first);
    let mut second = ring.consumer(&bells, 0).unwrap();
    assert_eq!(second.take(&mut buffer).unwrap().unwrap().meta.sequence, 2);
    assert_eq!(producer.recovery_cursor().taken(3), 1);
}

#[test]
fn a_full_ring_and_a_payload_too_long_are_refused_and_change_nothing() {
    let (mut producer, mut consumer) = shared(2, 8);
    let too_large = producer.push(&envelope(0), &[0; 9]);
    assert_eq!(too_large, Err(PushError::TooLarge { len: 9, max: 8 }));
    producer.push(&envelope(1), b"a").unwrap();
    producer.push(&envelope(2), b"b").unwrap();
    assert_eq!(producer.push(&envelope(3), b"c"), Err(PushError::Full));
    assert!(matches!(producer.loan(1), Err(PushError::Full)));
    let mut buffer = [0; 8];
    consumer.take(&mut buffer).unwrap();
    assert_eq!(
        producer.push(&envelope(3), b"c"),
        Err(PushError::Full),
        "taken is not given back"
    );
    consumer.release();
    producer.push(&envelope(3), b"c").unwrap();
}

#[test]
fn a_loan_is_sent_when_it_is_committed_and_marks_its_slot_until_then() {
    let (mut producer, mut consumer) = shared(2, 8);
    let mut loan = producer.loan(3).unwrap();
    loan.copy_from_slice(b"abc");
    assert_eq!(consumer.available(), Ok(0));
    assert!(consumer.torn(), "a producer that dies now is seen");
    loan.commit(&envelope(1));
    assert!(!consumer.torn());
    let mut buffer = [0; 8];
    assert_eq!(consumer.take(&mut buffer).unwrap().unwrap().len, 3);
    assert_eq!(&buffer[..3], b"abc");
    let _ = producer.loan(8).unwrap();
    assert_eq!(consumer.available(), Ok(0), "dropped, not sent");
}

#[test]
fn what_was_not_taken_moves_to_another_ring() {
    let ((mut old, mut reader), (mut new, mut next)) = (shared(8, 8), shared(8, 8));
    for n in 1..=5 {
        old.push(&envelope(n), &[u8::try_from(n).unwrap()]).unwrap();
    }
    let mut buffer = [0; 8];
    for _ in 0..2 {
        reader.take(&mut buffer).unwrap();
        reader.release();
    }
    let cursor = old.recovery_cursor();
    assert_eq!(
        cursor.move_to(cursor.taken(5), 5, &mut new),
        Moved { moved: 3, lost: 0 }
    );
    for n in 3..=5 {
        assert_eq!(next.take(&mut buffer).unwrap().unwrap().meta.sequence, n);
        assert_eq!(u64::from(buffer[0]), n);
    }
}

#[test]
fn a_loan_that_is_dropped_leaves_no_torn_slot() {
    let (mut producer, consumer) = shared(2, 8);
    drop(producer.loan(8).unwrap());
    assert!(
        !consumer.torn(),
        "an idle producer that ends was not at work"
    );
}

#[test]
fn a_close_is_a_mark_that_hides_nothing() {
    let (mut producer, mut consumer) = shared(2, 8);
    producer.push(&envelope(1), b"").unwrap();
    consumer.arm(Doorbell::Signal);
    producer.close();
    assert!(consumer.is_closed());
    assert_eq!(consumer.available(), Ok(1));
    // It does not keep a waiter that ignores it awake: the next wait lasts its time.
    consumer.take(&mut [0; 8]).unwrap().unwrap();
    consumer.release();
    assert!(consumer.wait(1_000_000).is_err());
}

/// The other end may be complete when a half is dropped: it must not wait for one that never comes.
#[test]
#[cfg_attr(miri, ignore = "memfd")]
fn a_half_that_is_dropped_closes_or_leaves_the_ring() {
    let (size, bells) = (geometry(1024, 64), bells());
    let ring = Shared::create("rtd-ring", size).unwrap();
    let half = |side| {
        let Handles {
            producer,
            consumer,
            eventfd,
        } = ring.handles(side).unwrap();
        let (own, other) = if side == Side::Producer {
            (producer, consumer)
        } else {
            (consumer, producer)
        };
        (
            Half::new(side, size, &own, eventfd, bells.clone()).unwrap(),
            other,
        )
    };
    let consumer = ring.consumer(&bells, 0).unwrap();
    let (lost, _) = half(Side::Producer);
    assert!(!consumer.is_closed());
    drop(lost);
    assert!(consumer.is_closed());
    let producer = ring.producer(&bells, 1).unwrap();
    let (whole, other) = half(Side::Consumer);
    let mut whole = whole.into_consumer(&other, 0).unwrap();
    assert!(
        !producer.recovery_cursor().has_left(),
        "an end that was completed is not dropped"
    );
    whole.give_up();
    whole.leave();
    assert!(
        !producer.recovery_cursor().has_left(),
        "what cannot be read is not moved"
    );
    let ring = Shared::create("rtd-ring", size).unwrap();
    let own = ring.handles(Side::Consumer).unwrap();
    let producer = ring.producer(&bells, 1).unwrap();
    let lost = Half::new(
        Side::Consumer,
        size,
        &own.consumer,
        own.eventfd,
        bells.clone(),
    )
    .unwrap();
    // The other's memory cannot be mapped: too small.
    assert!(lost.into_consumer(&own.consumer, 0).is_err());
    assert!(producer.recovery_cursor().has_left());
}

#[test]
fn what_has_been_overwritten_is_not_moved() {
    let ((mut old, mut reader), (mut new, mut next)) = (shared(2, 8), shared(8, 8));
    for n in 1..=5 {
        old.push(&envelope(n), b"").unwrap();
        if n < 4 {
            reader.take(&mut [0; 8]).unwrap();
            reader.release();
        }
    }
    assert_eq!(
        old.recovery_cursor().move_to(0, 5, &mut new),
        Moved { moved: 2, lost: 0 }
    );
    for n in 4..=5 {
        assert_eq!(next.take(&mut [0; 8]).unwrap().unwrap().meta.sequence, n);
    }
}

#[test]
#[cfg_attr(miri, ignore = "needs memfd_create(2)")]
fn descriptors_that_are_no_ring_are_refused() {
    let (g, bells) = (geometry(64, 64), bells());
    let ring = Shared::create("rtd-ring", g).unwrap();
    let file = || -> OwnedFd { std::fs::File::open("/proc/self/exe").unwrap().into() };
    let page = || {
        Memory::new("small", 1)
            .unwrap()
            .as_fd()
            .try_clone_to_owned()
            .unwrap()
    };
    let large = || {
        Memory::new("large", 1 << 20)
            .unwrap()
            .as_fd()
            .try_clone_to_owned()
            .unwrap()
    };
    let event = || OwnedFd::from(EventFd::new().unwrap().listen().unwrap());
    // The consumer's words are one page long, so a page is memory for them.
    let wrong: [(usize, &dyn Fn() -> OwnedFd); 7] = [
        (0, &file),
        (0, &page),
        (0, &large),
        (0, &event),
        (1, &file),
        (1, &large),
        (1, &event),
    ];
    for (at, wrong) in wrong {
        for side in [Side::Producer, Side::Consumer] {
            let Handles {
                producer,
                consumer,
                eventfd,
            } = ring.handles(side).unwrap();
            let mut fds = [producer, consumer, eventfd];
            fds[at] = wrong();
            let handles = Handles::from_fds(fds);
            let refused = match side {
                Side::Producer => handles.into_producer(g, &bells, 1).is_err(),
                Side::Consumer => handles.into_consumer(g, &bells, 0).is_err(),
            };
            assert!(refused, "{side:?}, descriptor {at}");
        }
    }
    // What should be its own memory, and is open for reading only.
    assert!(
        ring.handles(Side::Producer)
            .unwrap()
            .into_consumer(g, &bells, 0)
            .is_err()
    );
    assert!(
        ring.handles(Side::Consumer)
            .unwrap()
            .into_producer(g, &bells, 1)
            .is_err()
    );
}

/// Numbers near the end of 64 bits: an end that goes on where another stopped begins anywhere.
#[test]
#[cfg_attr(miri, ignore = "needs memfd_create(2)")]
fn indices_wrap_round() {
    let g = geometry(4, 8);
    for start in [u64::MAX - 5, u64::MAX / 2 - 3] {
        let (ring, bells) = (Shared::create("rtd-ring", g).unwrap(), bells());
        for side in [Side::Producer, Side::Consumer] {
            let handles = ring.handles(side).unwrap();
            let fd = if side == Side::Producer {
                handles.producer
            } else {
                handles.consumer
            };
            hostile::write(&Map::of(fd.as_fd(), 4096, true).unwrap(), 0, start);
        }
        let mut producer = ring.producer(&bells, 1).unwrap();
        let mut consumer = ring.consumer(&bells, 0).unwrap();
        for n in 0..12 {
            for m in 0..4 {
                producer.push(&envelope(n * 4 + m), b"").unwrap();
            }
            assert_eq!(producer.push(&envelope(0), b""), Err(PushError::Full));
            let (cursor, tail) = (producer.recovery_cursor(), producer.tail());
            assert_eq!(
                (consumer.backlog(), tail.wrapping_sub(cursor.taken(tail))),
                (4, 4)
            );
            let (mut new, mut moved) = local(g);
            assert_eq!(
                cursor.move_to(cursor.taken(tail), tail, &mut new),
                Moved { moved: 4, lost: 0 }
            );
            assert_eq!(
                moved.take(&mut [0; 8]).unwrap().unwrap().meta.sequence,
                n * 4
            );
            for m in 0..4 {
                assert_eq!(
                    consumer.take(&mut [0; 8]).unwrap().unwrap().meta.sequence,
                    n * 4 + m
                );
            }
            assert_eq!(consumer.take(&mut [0; 8]), Ok(None));
            consumer.release();
        }
    }
}

proptest! {
    // No file of failures: Miri lets nobody look for one.
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 256 })
    })]

    #[test]
    fn a_ring_is_a_bounded_queue(ops in proptest::collection::vec((0u8..3, 0usize..20), 1..300)) {
        let (mut producer, mut consumer) = local(geometry(4, 16));
        let mut model = VecDeque::new();
        let mut buffer = [0; 16];
        for (n, (op, len)) in (0..).zip(ops) {
            if op < 2 {
                let pushed = producer.push(&envelope(n), &vec![7; len]);
                match pushed {
                    Ok(_) => { prop_assert!(len <= 16 && model.len() < 4); model.push_back((n, len)); }
                    Err(PushError::TooLarge { .. }) => prop_assert!(len > 16),
                    Err(e) => prop_assert!(e == PushError::Full && model.len() == 4),
                }
            } else {
                let got = consumer.take(&mut buffer).unwrap();
                consumer.release();
                prop_assert_eq!(got.map(|e| (e.meta.sequence, e.len as usize)), model.pop_front());
            }
        }
    }
}

#[test]
fn who_watches_is_preempted_and_still_takes_an_honest_ring_for_one() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let (ring, bells) = (Shared::create("rtd-ring", geometry(2, 8)).unwrap(), bells());
    let mut producer = ring.producer(&bells, 1).unwrap();
    let mut consumer = ring.consumer(&bells, 0).unwrap();
    let watch = ring.watch(&bells).unwrap();
    let stop = AtomicBool::new(false);
    let end = std::time::Instant::now() + std::time::Duration::from_secs(2);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let _ = producer.push_quietly(&envelope(1), &[]);
            }
        });
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                consumer.take(&mut [0; 8]).unwrap();
                consumer.release();
            }
        });
        let (mut last, mut lies) = (Indices::default(), 0);
        // Three threads on what may be fewer CPUs: the watcher loses its own between two looks,
        // again and again.
        while std::time::Instant::now() < end {
            for _ in 0..10_000 {
                match watch.read() {
                    Some(seen) => {
                        let possible = seen.head <= seen.tail && seen.tail - seen.head <= 2;
                        let onwards = seen.tail >= last.tail && seen.head >= last.head;
                        lies += u32::from(!possible || !onwards);
                        last = seen;
                    }
                    None => lies += 1,
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
        assert_eq!(lies, 0, "of a ring that moved {} messages", last.tail);
    });
}
