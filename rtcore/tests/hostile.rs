//! Some hundred cases of what two targets of `tests/fuzz` play; and a hostile peer on a CPU of its
//! own, which no single thread can play.

#[path = "../../tests/fuzz/src/targets/frames.rs"]
mod frames;
#[path = "../../tests/fuzz/src/targets/ring.rs"]
mod ring;

use proptest::prelude::*;
use rtcore::message::{Meta, Origin};
use rtcore::ring::{Bells, Doorbell, Envelope, Geometry, Kind, Shared, Side};
use rtcore::sys::memfd::{Map, Memory};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn a_peer_that_writes_what_it_likes_harms_its_own_ring_alone(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        ring::play(&bytes);
    }

    #[test]
    fn a_frame_that_is_accepted_is_the_one_that_was_sent(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        frames::play(&bytes);
    }
}

/// Rounds of our end while the peer writes.
const ROUNDS: u64 = 100_000;
/// A test that has met no lie by then looks further, as the thread that lies may have had no CPU.
const ROUNDS_MAX: u64 = 1000 * ROUNDS;

fn bells() -> Bells {
    Bells::shared(
        Memory::new("bells", Bells::BYTES)
            .unwrap()
            .map_writable()
            .unwrap(),
    )
    .unwrap()
}

/// Writes numbers near those that are honest into the first words of a mapping until told to stop.
fn scribble(map: &Map, stop: &AtomicBool, seed: u64) {
    let words = map.len().min(512) / 8;
    let mut random = seed;
    let mut honest = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        honest = honest.wrapping_add(random >> 62);
        // Mostly the index, so that our end gets further than its first check.
        let at = if random & 3 == 0 {
            (random >> 8) as usize % words
        } else {
            0
        };
        let value = if random & 0xf0 == 0 {
            random
        } else {
            honest.wrapping_add(random >> 16 & 3)
        };
        // SAFETY: inside the mapping and aligned; everybody uses atomics.
        unsafe { AtomicU64::from_ptr(map.start().as_ptr().cast::<u64>().add(at)) }
            .store(value, Ordering::Relaxed);
    }
}

/// Ends the scribblers, also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn envelope() -> Envelope {
    let kind = Kind::Bytes { priority: 0 };
    Envelope {
        meta: Meta::default(),
        origin: Origin::UNKNOWN,
        kind,
        len: 0,
    }
}

#[test]
fn a_consumer_bears_a_producer_that_writes_at_the_same_time() {
    let (geometry, bells, stop) = (
        Geometry::new(4, 32).unwrap(),
        bells(),
        AtomicBool::new(false),
    );
    let ring = Shared::create("race", geometry).unwrap();
    let theirs = ring.handles(Side::Producer).unwrap().producer;
    let map = Map::of(theirs.as_fd(), geometry.producer_bytes(), true).unwrap();
    std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        scope.spawn(|| scribble(&map, &stop, 1));
        let mut consumer = ring.consumer(&bells, 0).unwrap();
        let mut buffer = [0; 32];
        let (mut lies, mut taken) = (0, 0);
        for round in 0..ROUNDS_MAX {
            if round >= ROUNDS {
                if lies > 0 {
                    break;
                }
                std::thread::yield_now();
            }
            consumer.arm(Doorbell::Bell);
            let _ = (consumer.backlog(), consumer.torn(), consumer.is_closed());
            consumer.disarm();
            match consumer.take(&mut buffer) {
                Ok(Some(envelope)) => {
                    assert!(envelope.len <= 32);
                    taken += 1;
                }
                Ok(None) => {}
                Err(_) => {
                    lies += 1;
                    if lies % 64 == 0 {
                        consumer = ring.consumer(&bells, 0).unwrap();
                    }
                }
            }
            consumer.release();
            assert!(consumer.backlog() <= 4);
        }
        assert!(lies > 0, "{taken} taken");
    });
}

#[test]
fn a_producer_bears_a_consumer_that_writes_at_the_same_time() {
    let (geometry, bells, stop) = (
        Geometry::new(4, 32).unwrap(),
        bells(),
        AtomicBool::new(false),
    );
    let ring = Shared::create("race", geometry).unwrap();
    let theirs = ring.handles(Side::Consumer).unwrap().consumer;
    let map = Map::of(theirs.as_fd(), geometry.consumer_bytes(), true).unwrap();
    std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        scope.spawn(|| scribble(&map, &stop, 2));
        let mut producer = ring.producer(&bells, 1).unwrap();
        let mut lies = 0;
        for round in 0..ROUNDS_MAX {
            if round >= ROUNDS {
                if lies > 0 {
                    break;
                }
                std::thread::yield_now();
            }
            let before = producer.tail();
            if matches!(
                producer.push(&envelope(), b"payload"),
                Err(rtcore::ring::PushError::Corrupt(_))
            ) {
                lies += 1;
                if lies % 64 == 0 {
                    producer = ring.producer(&bells, 1).unwrap();
                }
            }
            assert!(producer.tail().wrapping_sub(before) <= 1);
            let tail = producer.tail();
            assert!(tail.wrapping_sub(producer.recovery_cursor().taken(tail)) <= 4);
        }
        assert!(lies > 0);
    });
}

/// Both ends lie: who looks from outside sees something possible or nothing.
#[test]
fn a_watcher_bears_two_liars() {
    let (geometry, bells, stop) = (
        Geometry::new(4, 32).unwrap(),
        bells(),
        AtomicBool::new(false),
    );
    let ring = Shared::create("race", geometry).unwrap();
    let producer = ring.handles(Side::Producer).unwrap().producer;
    let producer = Map::of(producer.as_fd(), geometry.producer_bytes(), true).unwrap();
    let consumer = ring.handles(Side::Consumer).unwrap().consumer;
    let consumer = Map::of(consumer.as_fd(), geometry.consumer_bytes(), true).unwrap();
    let watch = ring.watch(&bells).unwrap();
    std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        scope.spawn(|| scribble(&producer, &stop, 3));
        scope.spawn(|| scribble(&consumer, &stop, 4));
        for _ in 0..ROUNDS {
            if let Some(seen) = watch.read() {
                assert!(seen.head <= seen.tail && seen.tail - seen.head <= 4);
            }
        }
    });
}
