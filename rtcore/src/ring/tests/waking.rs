//! Ends that sleep, and what wakes them.

use super::*;

#[test]
#[cfg_attr(miri, ignore = "needs memfd_create(2)")]
fn a_burst_to_a_sleeper_rings_once() {
    let (mut producer, mut consumer) = shared(8, 8);
    consumer.arm(Doorbell::Signal);
    assert!(producer.push(&envelope(1), b"").unwrap());
    assert!(
        !producer.push(&envelope(2), b"").unwrap(),
        "it has been rung for"
    );
    producer.unring();
    assert!(producer.ring(), "the signal could not be sent: once more");
    consumer.arm(Doorbell::Signal);
    assert!(producer.ring(), "it has slept again");
    consumer.disarm();
    assert!(!producer.push(&envelope(3), b"").unwrap(), "awake");
    consumer.arm(Doorbell::EventFd);
    producer.push(&envelope(4), b"").unwrap();
    assert!(consumer.eventfd().unwrap().take());
}

#[test]
fn messages_cross_threads_in_order_while_both_ends_sleep() {
    const COUNT: u64 = if cfg!(miri) { 50 } else { 20_000 };
    let (mut producer, mut consumer) = shared(4, 16);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for n in 1..=COUNT {
                while producer.push(&envelope(n), &n.to_ne_bytes()) == Err(PushError::Full) {
                    producer.wait_for_room(u64::MAX).unwrap();
                }
            }
        });
        let mut buffer = [0; 16];
        for n in 1..=COUNT {
            let got = loop {
                match consumer.take(&mut buffer).unwrap() {
                    Some(got) => break got,
                    None => drop(consumer.wait(u64::MAX)),
                }
            };
            consumer.release();
            assert_eq!((got.meta.sequence, &buffer[..8]), (n, &n.to_ne_bytes()[..]));
        }
    });
}

/// The producer remembers for which turn it rang; a new consumer must not begin its turns where the
/// old one did.
#[test]
#[cfg_attr(miri, ignore = "needs memfd_create(2)")]
fn the_next_consumer_of_a_ring_is_woken_as_the_first_was() {
    let (ring, bells) = (Shared::create("rtd-ring", geometry(8, 8)).unwrap(), bells());
    let mut producer = ring.producer(&bells, 1).unwrap();
    for n in 1..=3 {
        let mut consumer = ring.consumer(&bells, 0).unwrap();
        assert!(!producer.push(&envelope(n), b"").unwrap(), "awake");
        consumer.arm(Doorbell::Signal);
        assert!(producer.push(&envelope(n), b"").unwrap(), "consumer {n}");
        // The first leaves awake, the second with its flag up.
        if n == 1 {
            consumer.disarm();
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "needs memfd_create(2)")]
fn the_next_producer_of_a_ring_is_woken_as_the_first_was() {
    let (ring, bells) = (Shared::create("rtd-ring", geometry(1, 8)).unwrap(), bells());
    let mut consumer = ring.consumer(&bells, 0).unwrap();
    for n in 1..=3 {
        let mut producer = ring.producer(&bells, 1).unwrap();
        producer.push(&envelope(n), b"").unwrap();
        producer.want_room();
        let seen = bells.seen(1);
        consumer.take(&mut [0; 8]).unwrap().unwrap();
        consumer.release();
        assert_ne!(bells.seen(1), seen, "producer {n}");
    }
}

#[test]
fn a_sleeper_is_rung_for_at_the_bell_it_says() {
    let (mut producer, mut consumer) = shared(8, 8);
    let bells = consumer.bell().0.clone();
    for (n, bell) in [(1, 0), (2, 255), (3, 7)] {
        consumer.set_bell(bell);
        consumer.arm(Doorbell::Bell);
        let seen = bells.seen(bell);
        producer.push(&envelope(n), b"").unwrap();
        assert_eq!(bells.seen(bell), seen.wrapping_add(1));
    }
}

/// Bells 0 and 1 are semaphores; the names are gone already.
fn semaphores(part: &str) -> (Bells, Vec<std::sync::Arc<crate::skin::Semaphore>>) {
    use crate::skin::{Semaphore, posix, semaphore};
    let make = |number| {
        let name = semaphore::name(&format!("unit-ring-{}-{part}", std::process::id()), number);
        let made = Semaphore::create(posix(), &name).unwrap();
        assert!(semaphore::unlink(posix(), &name).unwrap());
        std::sync::Arc::new(made)
    };
    let made: Vec<_> = (0..2).map(make).collect();
    (
        Bells::semaphores(made.iter().cloned().map(Some).collect()),
        made,
    )
}

#[test]
#[cfg_attr(miri, ignore = "needs memfd_create(2)")]
fn ends_wake_each_other_by_semaphores() {
    const MESSAGES: u64 = 2000;
    let (bells, _) = semaphores("wake");
    let ring = Shared::create("rtd-ring", geometry(2, 8)).unwrap();
    let mut producer = ring.producer(&bells, 1).unwrap();
    let mut consumer = ring.consumer(&bells, 0).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for n in 1..=MESSAGES {
                while producer.push(&envelope(n), &n.to_ne_bytes()) == Err(PushError::Full) {
                    producer.wait_for_room(u64::MAX).unwrap();
                }
            }
        });
        let mut buffer = [0; 8];
        for n in 1..=MESSAGES {
            while consumer.available() == Ok(0) {
                consumer.wait(u64::MAX).unwrap();
            }
            assert_eq!(
                consumer.take(&mut buffer).unwrap().unwrap().meta.sequence,
                n
            );
            consumer.release();
        }
    });
}

#[test]
#[cfg_attr(miri, ignore = "needs memfd_create(2)")]
fn at_a_semaphore_a_turn_is_rung_for_once_and_what_is_over_wakes_nobody() {
    let (bells, made) = semaphores("turn");
    let ring = Shared::create("rtd-ring", geometry(64, 8)).unwrap();
    let mut producer = ring.producer(&bells, 1).unwrap();
    let mut consumer = ring.consumer(&bells, 0).unwrap();
    for turn in 0..20 {
        consumer.arm(Doorbell::Bell);
        for n in 0..3 {
            assert!(!producer.push(&envelope(3 * turn + n), b"").unwrap());
        }
        consumer.disarm();
    }
    // One for each turn that nobody slept in; the next sleep takes them back.
    let mut posted = 0;
    while made[0].wait(0).is_ok() {
        posted += 1;
    }
    assert_eq!(posted, 20);
    (0..3).for_each(|_| made[0].post());
    while consumer.take(&mut [0; 8]).unwrap().is_some() {}
    consumer.release();
    assert!(consumer.wait(1_000_000).is_err());
    // What is no bell of this page is nobody's, whatever a peer alleges; and a descriptor is not
    // rung.
    consumer.set_bell(200);
    consumer.arm(Doorbell::Bell);
    producer.push(&envelope(0), b"").unwrap();
    consumer.arm(Doorbell::EventFd);
    producer.push(&envelope(0), b"").unwrap();
    assert!(consumer.eventfd().is_none() && made.iter().all(|bell| bell.wait(0).is_err()));
}

/// The doorbell of a consumer that sends whatever its eventfd lets it.
#[test]
#[cfg_attr(miri, ignore = "needs memfd_create(2)")]
fn a_doorbell_that_is_no_eventfd_harms_nobody() {
    let g = geometry(4, 8);
    let (bells, ring) = (bells(), Shared::create("rtd-ring", g).unwrap());
    let file = || -> OwnedFd { std::fs::File::open("/proc/self/exe").unwrap().into() };
    let Handles {
        producer, consumer, ..
    } = ring.handles(Side::Producer).unwrap();
    let mut sender = Handles::from_fds([producer, consumer, file()])
        .into_producer(g, &bells, 1)
        .unwrap();
    let Handles {
        producer, consumer, ..
    } = ring.handles(Side::Consumer).unwrap();
    let mut receiver = Handles::from_fds([producer, consumer, file()])
        .into_consumer(g, &bells, 0)
        .unwrap();
    receiver.arm(Doorbell::EventFd);
    assert_eq!(sender.push(&envelope(1), b"x"), Ok(false));
    assert!(!receiver.eventfd().unwrap().take());
    assert!(receiver.take(&mut [0; 8]).unwrap().is_some());
}
