//! A peer that writes whatever it likes into what is its own to write.

use super::*;

/// The consumer end of a ring whose producer memory we write as raw words.
fn victim() -> (Map, Consumer) {
    let g = geometry(4, 64);
    let p = Memory::new("p", g.producer_bytes()).unwrap();
    let c = Memory::new("c", g.consumer_bytes()).unwrap();
    let e = EventFd::new().unwrap();
    let fds = [p.as_fd(), c.as_fd(), e.as_fd()].map(|fd| fd.try_clone_to_owned().unwrap());
    (
        p.map_writable().unwrap(),
        Handles::from_fds(fds)
            .into_consumer(g, &bells(), 0)
            .unwrap(),
    )
}

pub fn write(map: &Map, word: usize, value: u64) {
    // SAFETY: words of the first slots lie inside the mapping; the other side reads them as
    // atomics.
    unsafe { crate::sync::AtomicU64::from_ptr(map.start().as_ptr().cast::<u64>().add(word)) }
        .store(value, crate::sync::Ordering::SeqCst);
}

const SLOT: usize = 16;

#[test]
#[cfg_attr(miri, ignore = "needs memfd_create(2)")]
fn a_tail_beyond_the_slots_is_found_out() {
    for tail in [5, u64::MAX, 1 << 40] {
        let (map, mut consumer) = victim();
        write(&map, 0, tail);
        assert!(
            matches!(consumer.take(&mut [0; 64]), Err(Corrupt::Indices { .. })),
            "{tail}"
        );
    }
}

#[test]
#[cfg_attr(miri, ignore = "needs memfd_create(2)")]
fn a_slot_that_is_announced_and_not_complete_is_found_out() {
    for state in [0, 1, 4, u64::MAX] {
        let (map, mut consumer) = victim();
        write(&map, SLOT, state);
        write(&map, 0, 1);
        assert_eq!(
            consumer.take(&mut [0; 64]),
            Err(Corrupt::State { index: 0, state })
        );
    }
}

#[test]
#[cfg_attr(miri, ignore = "needs memfd_create(2)")]
fn a_giant_length_and_unknown_flags_are_found_out() {
    let (map, mut consumer) = victim();
    write(&map, SLOT, 2);
    write(&map, SLOT + 1, 65);
    write(&map, 0, 1);
    assert_eq!(
        consumer.take(&mut [0; 64]),
        Err(Corrupt::Length {
            index: 0,
            len: 65,
            max: 64
        })
    );
    write(&map, SLOT + 1, 1 << 40);
    assert!(matches!(
        consumer.take(&mut [0; 64]),
        Err(Corrupt::Flags { .. })
    ));
}

/// Messages that were taken and not given back are slots that it cannot have filled again.
#[test]
#[cfg_attr(miri, ignore = "needs memfd_create(2)")]
fn a_tail_that_jumps_over_what_is_taken_and_not_given_back_is_found_out() {
    let (map, mut consumer) = victim();
    for index in 0..4 {
        write(&map, SLOT + index * 16, 2 * index as u64 + 2);
    }
    write(&map, 0, 2);
    assert!(consumer.take(&mut [0; 64]).unwrap().is_some());
    assert!(consumer.take(&mut [0; 64]).unwrap().is_some());
    // Within the slots behind what was taken, not within those behind what was given back.
    write(&map, 0, 5);
    assert!(matches!(
        consumer.available(),
        Err(Corrupt::Indices {
            tail: 5,
            head: 0,
            ..
        })
    ));
    // Backwards.
    write(&map, 0, 1);
    assert!(matches!(
        consumer.available(),
        Err(Corrupt::Indices { tail: 1, .. })
    ));
    write(&map, 0, 4);
    assert_eq!(consumer.available(), Ok(2));
}

/// The sending end, and the consumer's memory.
fn victim_producer(slots: u32) -> (Map, Producer) {
    let ring = Shared::create("rtd-ring", geometry(slots, 8)).unwrap();
    let map = Map::of(
        ring.handles(Side::Consumer).unwrap().consumer.as_fd(),
        128,
        true,
    )
    .unwrap();
    (map, ring.producer(&bells(), 1).unwrap())
}

#[test]
#[cfg_attr(miri, ignore = "needs memfd_create(2)")]
fn a_head_that_cannot_be_is_found_out_and_never_believed() {
    for head in [3, u64::MAX, 1 << 40] {
        let (map, mut producer) = victim_producer(2);
        producer.push(&envelope(1), b"").unwrap();
        producer.push(&envelope(2), b"").unwrap();
        write(&map, 0, head);
        assert_eq!(producer.recovery_cursor().taken(2), 0);
        assert_eq!(
            producer.push(&envelope(3), b""),
            Err(Corrupt::Indices {
                tail: 2,
                head,
                slots: 2
            }
            .into())
        );
        assert!(matches!(producer.loan(1), Err(PushError::Corrupt(_))));
        assert!(producer.has_room().is_err() && producer.wait_for_room(0).is_err());
    }
    // Backwards.
    let (map, mut producer) = victim_producer(2);
    for (n, head) in [(1, 0), (2, 0), (3, 2), (4, 2)] {
        write(&map, 0, head);
        producer.push(&envelope(n), b"").unwrap();
    }
    write(&map, 0, 1);
    assert!(matches!(
        producer.push(&envelope(5), b""),
        Err(PushError::Corrupt(_))
    ));
}

proptest! {
    #[test]
    #[cfg_attr(miri, ignore = "needs memfd_create(2)")]
    fn whatever_it_writes_nothing_is_read_outside_and_nothing_panics(
        words in proptest::collection::vec((0usize..80, prop_oneof![any::<u64>(), 0u64..8]), 1..40),
    ) {
        let (map, mut consumer) = victim();
        let mut buffer = [0; 64];
        for (word, value) in words {
            write(&map, word, value);
            match consumer.take(&mut buffer) {
                Ok(Some(envelope)) => prop_assert!(envelope.len <= 64),
                Ok(None) => {}
                Err(_) => break,
            }
            consumer.release();
            prop_assert!(consumer.backlog() <= 4);
        }
    }
}
