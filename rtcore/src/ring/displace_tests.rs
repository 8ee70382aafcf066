//! Rings whose producer overwrites old messages, and the reports of consumers; the model is in
//! `rtcore/tests/loom.rs`.

use super::*;
use crate::message::{Meta, Origin};
use crate::sys::memfd::Memory;
use std::sync::atomic::{AtomicBool, Ordering};

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

fn displacing(slots: u32, keep: u32) -> (Producer, Consumer) {
    let (producer, consumer) = local(Geometry::new(slots, 64).unwrap());
    (producer.displacing(), consumer.keeping(keep))
}

/// Numbers of the messages, and the number of skipped ones before each.
fn take_all(consumer: &mut Consumer) -> Vec<(u64, u64)> {
    let mut taken = Vec::new();
    while let Some(envelope) = consumer.take(&mut [0; 64]).unwrap() {
        consumer.release();
        taken.push((envelope.meta.sequence, consumer.passed()));
    }
    taken
}

#[test]
fn a_consumer_takes_only_the_newest_of_what_is_there() {
    for (keep, expected) in [
        (1, vec![(10, 9)]),
        (2, vec![(9, 8), (10, 0)]),
        (9, vec![(7, 6), (8, 0), (9, 0), (10, 0)]),
    ] {
        let (mut producer, mut consumer) = displacing(4, keep);
        for sequence in 1..=10 {
            producer.push(&envelope(sequence), &[]).unwrap();
        }
        assert_eq!(consumer.available(), Ok(4));
        assert_eq!(
            take_all(&mut consumer),
            expected,
            "the newest {keep} of 4 slots"
        );
        assert_eq!((consumer.available(), consumer.head()), (Ok(0), 10));
        producer.push(&envelope(11), &[]).unwrap();
        assert_eq!(take_all(&mut consumer), [(11, 0)]);
    }
}

#[test]
fn a_ring_of_one_slot_holds_the_latest_message() {
    let (mut producer, mut consumer) = displacing(1, 1);
    for sequence in 1..=1000 {
        producer.push(&envelope(sequence), &[]).unwrap();
        if sequence % 10 == 0 {
            assert_eq!(take_all(&mut consumer), [(sequence, 9)]);
        }
    }
}

/// Each message is full of its own number: a copy with two numbers in it would be two messages'
/// bytes.
#[test]
fn a_message_that_is_written_over_while_it_is_read_is_never_handed_out() {
    for (slots, keep) in [(1, 1), (2, 1), (2, 2), (8, 8)] {
        let (mut producer, mut consumer) = displacing(slots, keep);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let sent = scope.spawn(|| {
                let mut sequence = 0_u64;
                while !stop.load(Ordering::Relaxed) {
                    sequence += 1;
                    let payload = [sequence.to_ne_bytes(); 8];
                    producer
                        .push_quietly(&envelope(sequence), payload.as_flattened())
                        .unwrap();
                }
                sequence
            });
            let (mut last, mut taken, mut passed, mut buffer) = (0, 0, 0, [0; 64]);
            let end = std::time::Instant::now() + std::time::Duration::from_millis(300);
            let mut stopped = false;
            while !stopped || consumer.available().unwrap() > 0 {
                if !stopped && std::time::Instant::now() > end {
                    stop.store(true, Ordering::Relaxed);
                    stopped = true;
                }
                let Some(got) = consumer.take(&mut buffer).unwrap() else {
                    continue;
                };
                consumer.release();
                let sequence = got.meta.sequence;
                assert_eq!(
                    buffer,
                    [sequence.to_ne_bytes(); 8].as_flattened(),
                    "{slots} slots, {sequence}"
                );
                assert!(sequence > last, "{sequence} after {last}");
                (last, taken, passed) = (sequence, taken + 1, passed + consumer.passed());
            }
            // The producer may have had one more in hand when it was asked to stop.
            let sent = sent.join().unwrap();
            let left = take_all(&mut consumer);
            taken += left.len() as u64;
            passed += left.iter().map(|(_, passed)| passed).sum::<u64>();
            assert_eq!(
                taken + passed,
                sent,
                "every message is taken or counted as passed over"
            );
        });
    }
}

#[test]
fn a_state_that_no_later_message_leaves_is_corrupt() {
    let (ring, bells) = made(4);
    let mut producer = ring.producer(&bells, 1).unwrap().displacing();
    let mut consumer = ring.consumer(&bells, 0).unwrap().keeping(4);
    producer.push(&envelope(1), &[]).unwrap();
    // A loan that is dropped leaves no message behind, and the tail of an honest producer does not
    // pass such a slot.
    let state = producer.view().slot(0).state();
    for wrong in [0, 3, 2 + 2 * 4 - 1 - 2, u64::MAX] {
        state.store(wrong, crate::sync::Ordering::Relaxed);
        let taken = consumer.take(&mut [0; 64]);
        assert_eq!(
            taken,
            Err(Corrupt::State {
                index: 0,
                state: wrong
            }),
            "{wrong}"
        );
    }
    producer
        .view()
        .producer()
        .tail
        .store(u64::MAX / 2 + 9, crate::sync::Ordering::Relaxed);
    assert!(
        matches!(consumer.take(&mut [0; 64]), Err(Corrupt::Indices { .. })),
        "backwards"
    );
}

fn made(slots: u32) -> (Shared, Bells) {
    let memory = Memory::new("rtd-bells", Bells::BYTES).unwrap();
    let geometry = Geometry::new(slots, 64).unwrap().timed();
    (
        Shared::create("rtd-ring", geometry).unwrap(),
        Bells::shared(memory.map_writable().unwrap()).unwrap(),
    )
}

#[test]
#[cfg_attr(miri, ignore = "needs memfd_create(2)")]
fn what_a_consumer_reports_is_seen_as_far_as_it_can_be_true() {
    let (ring, bells) = made(4);
    let mut producer = ring.producer(&bells, 1).unwrap();
    let mut consumer = ring.consumer(&bells, 0).unwrap();
    let watch = producer.watch();
    let claims = Claims {
        expired: 1,
        superseded: 1,
        late: 1,
    };
    consumer.count(claims);
    assert_eq!(watch.claims(), None, "two discarded, none taken");
    for sequence in 1..=2 {
        producer.push(&envelope(sequence), &[]).unwrap();
        consumer.take(&mut [0; 64]).unwrap();
        consumer.release();
    }
    assert_eq!(watch.claims(), Some(claims));
    consumer.count(Claims {
        late: 2,
        ..Claims::default()
    });
    assert_eq!(watch.claims(), None, "three late of two");
    consumer.count(Claims {
        expired: u64::MAX - 1,
        ..Claims::default()
    });
    assert_eq!(watch.claims(), None, "no sum overflows");
}

#[test]
#[cfg_attr(miri, ignore = "needs memfd_create(2)")]
fn a_timed_ring_has_room_for_latencies() {
    let (ring, bells) = made(4);
    let mut recorder = ring.consumer(&bells, 0).unwrap().recorder().unwrap();
    let watch = ring.watch(&bells).unwrap();
    for ns in [5, 700, 40_000, 1 << 40] {
        recorder.record(ns);
    }
    let seen = watch.latencies().unwrap();
    let word = |word: &std::sync::atomic::AtomicU64| word.load(Ordering::Relaxed);
    assert_eq!(
        (word(&seen.count), word(&seen.min_ns), word(&seen.max_ns)),
        (4, 5, 1 << 40)
    );
    assert_eq!(seen.counts.iter().map(word).sum::<u64>(), 4);
    let plain = Shared::create("rtd-ring", Geometry::new(4, 64).unwrap()).unwrap();
    assert!(plain.consumer(&bells, 0).unwrap().recorder().is_none());
    assert!(plain.watch(&bells).unwrap().latencies().is_none());
}
