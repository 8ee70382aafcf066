//! Senders.

use crate::daemon::{Place, name, sender, session};
use crate::in_ms;
use rtcore::client::{Channel, SendError};
use rtcore::sys::clock::monotonic_ns;
use rtcore::wire::Notice;

#[test]
fn messages_arrive_numbered_and_stamped() {
    let place = Place::new();
    let (session, _daemon, mut link) = session(&place, &[sender("arm.pos")]);
    let mut sender = session.sender("arm.pos").unwrap();
    let before = monotonic_ns();
    assert_eq!(sender.try_send(b"one").unwrap(), 1);
    assert_eq!(sender.send_at(5, b"two").unwrap(), 2);
    assert_eq!(sender.send_value(&7_u32).unwrap(), 3);
    let mut loan = sender.loan(4).unwrap();
    *loan.value_mut::<u32>().unwrap() = 8;
    assert!(loan.value_mut::<u64>().is_none(), "other length");
    assert_eq!(loan.commit().unwrap(), 4);
    sender.loan(3).unwrap().copy_from_slice(b"not");
    assert_eq!(sender.loan(0).unwrap().commit_at(6).unwrap(), 5);
    let mut loan = sender.loan(8).unwrap();
    loan.copy_from_slice(b"six and.");
    loan.truncate(9);
    assert_eq!(loan.len(), 8, "it does not grow");
    loan.truncate(3);
    assert_eq!(&loan[..], b"six");
    assert_eq!(loan.commit().unwrap(), 6);
    let got: Vec<_> = (0..6).map(|_| link.take(0).unwrap()).collect();
    let bytes: Vec<_> = got.iter().map(|(_, bytes)| bytes.as_slice()).collect();
    assert_eq!(
        bytes,
        [
            b"one",
            b"two",
            &7_u32.to_ne_bytes()[..],
            &8_u32.to_ne_bytes(),
            b"",
            b"six"
        ]
    );
    for ((envelope, _), sequence) in got.iter().zip(1..) {
        assert_eq!(envelope.meta.sequence, sequence);
        assert!((before..=monotonic_ns()).contains(&envelope.meta.sent_ns));
        assert_eq!(envelope.meta.epoch, got[0].0.meta.epoch);
    }
    let intended: Vec<_> = got
        .iter()
        .map(|(envelope, _)| envelope.meta.intended_ns)
        .collect();
    assert_eq!((intended[1], intended[4]), (5, 6));
    assert_eq!(intended[0], got[0].0.meta.sent_ns);
    assert!(link.take(0).is_none());
}

#[test]
fn a_batch_has_one_clock_and_ends_where_the_room_does() {
    let place = Place::new();
    let (session, _daemon, mut link) = session(&place, &[sender("arm.pos")]);
    let mut sender = session.sender("arm.pos").unwrap();
    let endpoint = name("arm.pos");
    let batch = sender.send_batch([&b"a"[..], b"b"]);
    assert_eq!((batch.sent, batch.sequence, batch.error), (2, 2, None));
    let first = link.take(0).unwrap().0;
    assert_eq!(first.meta.sent_ns, link.take(0).unwrap().0.meta.sent_ns);
    let batch = sender.send_batch([&b"x"[..]; 10]);
    assert_eq!((batch.sent, batch.sequence), (8, 10));
    assert_eq!(batch.error, Some(SendError::Full { endpoint, slots: 8 }));
    let batch = sender.send_batch([&[0; 65][..]]);
    assert_eq!((batch.sent, batch.sequence), (0, 0));
    assert_eq!(
        batch.error,
        Some(SendError::TooLarge {
            endpoint,
            len: 65,
            max: 64
        })
    );
}

#[test]
fn what_does_not_fit_is_refused_with_the_bound() {
    let place = Place::new();
    let (session, _daemon, mut link) = session(&place, &[sender("arm.pos")]);
    let mut sender = session.sender("arm.pos").unwrap();
    let endpoint = name("arm.pos");
    let too_large = SendError::TooLarge {
        endpoint,
        len: 65,
        max: 64,
    };
    assert_eq!(sender.send(&[0; 65]).unwrap_err(), too_large);
    assert_eq!(sender.loan(65).unwrap_err(), too_large);
    for n in 1..=8 {
        assert_eq!(sender.send(b"x").unwrap(), n);
    }
    let full = SendError::Full { endpoint, slots: 8 };
    assert_eq!(sender.send(b"x").unwrap_err(), full);
    assert_eq!(sender.loan(1).unwrap_err(), full);
    link.take(0).unwrap();
    assert_eq!(
        sender.send(b"x").unwrap(),
        9,
        "what was refused has no number"
    );
}

#[test]
fn a_blocking_route_waits_for_room_and_not_for_ever() {
    let place = Place::new();
    let blocking = Channel {
        block_ns: 30_000_000,
        ..sender("arm.pos")
    };
    let (session, _daemon, mut link) = session(&place, &[blocking]);
    let mut sender = session.sender("arm.pos").unwrap();
    for _ in 0..8 {
        sender.send(b"x").unwrap();
    }
    let from = monotonic_ns();
    assert!(matches!(sender.send(b"x"), Err(SendError::Full { .. })));
    assert!(monotonic_ns() - from >= 30_000_000);
    assert!(matches!(sender.try_send(b"x"), Err(SendError::Full { .. })));
    for _ in 0..50 {
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                loop {
                    // The machine may stall for longer than the route allows.
                    if let Ok(sequence) = sender.send(b"y") {
                        break sequence;
                    }
                }
            });
            link.take(0).unwrap();
            waiting.join().unwrap();
        });
    }
}

#[test]
fn a_sender_whose_receivers_are_gone_says_who() {
    let place = Place::new();
    let (session, _daemon, mut link) = session(&place, &[sender("arm.pos")]);
    let mut sender = session.sender("arm.pos").unwrap();
    link.send(&Notice::Reach {
        channel: 0,
        reachable: false,
    });
    let until = in_ms(10_000);
    let error = loop {
        match sender.try_send(b"x") {
            Err(error) => break error,
            Ok(_) => assert!(link.take(0).is_some() && monotonic_ns() < until),
        }
    };
    let (endpoint, process) = (name("arm.pos"), Some(name("drive")));
    assert_eq!(
        error,
        SendError::PeerDead {
            endpoint,
            process,
            ending: None
        }
    );
    assert!(
        error.to_string().contains("`drive` is not connected"),
        "{error}"
    );
    link.send(&Notice::Reach {
        channel: 0,
        reachable: true,
    });
    while sender.try_send(b"x").is_err() {
        assert!(monotonic_ns() < until);
        std::thread::yield_now();
    }
}

#[test]
fn a_loan_of_a_session_that_was_dropped_is_refused_and_does_not_arrive() {
    let place = Place::new();
    let (session, _daemon, mut link) = session(&place, &[sender("arm.pos")]);
    let mut sender = session.sender("arm.pos").unwrap();
    let mut loan = sender.loan(4).unwrap();
    loan.copy_from_slice(b"late");
    drop(session);
    let refused = loan.commit();
    assert!(
        matches!(refused, Err(SendError::Disconnected { .. })),
        "{refused:?}"
    );
    assert!(link.take(0).is_none());
}

#[test]
fn the_end_of_the_session_ends_a_flush() {
    let place = Place::new();
    let (session, _daemon, _link) = session(&place, &[sender("arm.pos")]);
    let mut sender = session.sender("arm.pos").unwrap();
    sender.try_send(b"one").unwrap();
    let flushing = std::thread::spawn(move || sender.flush(u64::MAX));
    drop(session);
    let failed = flushing.join().unwrap().unwrap_err();
    assert_eq!(failed.messages, 1);
}
