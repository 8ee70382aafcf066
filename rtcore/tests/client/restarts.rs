//! Daemons that come and go under traffic.

use crate::daemon::{Daemon, Link, Place, inbox, name, sender, session};
use crate::{bytes, event, in_ms};
use rtcore::client::{Channel, ClaimError, Event, Gone, Inbox, SendError, Sender, State};
use rtcore::sys::clock::monotonic_ns;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The daemon dies and another one comes.
fn restart(place: &Place, daemon: Daemon, link: Link, channels: &[Channel]) -> (Daemon, Link) {
    drop(link);
    drop(daemon);
    let daemon = place.daemon();
    let link = daemon.open(channels);
    (daemon, link)
}

fn wait_for(inbox: &mut Inbox, what: Event) {
    while event(inbox) != what {}
}

/// Sends until it goes out.
fn send_again(sender: &mut Sender, bytes: &[u8]) -> u64 {
    let until = in_ms(10_000);
    loop {
        match sender.try_send(bytes) {
            Ok(sequence) => return sequence,
            Err(e) => assert!(monotonic_ns() < until, "{e}"),
        }
        std::thread::yield_now();
    }
}

#[test]
fn what_the_old_daemon_had_not_taken_comes_first_in_the_new_ring() {
    let place = Place::new();
    let channels = [sender("arm.pos"), inbox("arm.cmd", "planner.cmd")];
    let (session, daemon, mut link) = session(&place, &channels);
    let (mut sender, mut inbox) = (session.sender("arm.pos").unwrap(), session.inbox().unwrap());
    for text in [b"1", b"2", b"3"] {
        sender.send(text).unwrap();
    }
    assert_eq!(link.take(0).unwrap().1, b"1");
    link.push(1, 1, b"old");
    drop(link);
    drop(daemon);
    // Not by its event, which would pass the message over.
    while session.state() == State::Up {
        std::thread::yield_now();
    }
    let down = SendError::Disconnected {
        endpoint: name("arm.pos"),
        why: Gone::Down,
    };
    assert_eq!(sender.send(b"no").unwrap_err(), down);
    assert_eq!(sender.loan(1).unwrap_err(), down);
    assert_eq!(sender.send_batch([&b"no"[..]]).error, Some(down));
    let away = session.sender("other").unwrap_err();
    assert!(matches!(away, ClaimError::Away { .. }), "{away}");
    let daemon = place.daemon();
    let mut link = daemon.open(&channels);
    link.push(1, 1, b"again");
    link.push(1, 2, b"new");
    assert_eq!(
        (bytes(&mut inbox), bytes(&mut inbox)),
        (b"old".to_vec(), b"new".to_vec())
    );
    assert_eq!(inbox.counters().duplicates, 1);
    assert_eq!(send_again(&mut sender, b"4"), 4);
    let got: Vec<_> = (0..3).map(|_| link.take(0).unwrap()).collect();
    let (numbers, texts): (Vec<_>, Vec<_>) =
        got.into_iter().map(|(e, b)| (e.meta.sequence, b)).unzip();
    assert_eq!(
        (numbers, texts),
        (
            vec![2, 3, 4],
            vec![b"2".to_vec(), b"3".to_vec(), b"4".to_vec()]
        )
    );
}

#[test]
fn an_idle_sender_s_messages_follow_through_many_daemons() {
    let place = Place::new();
    let channels = [sender("arm.pos"), inbox("arm.cmd", "planner.cmd")];
    let (session, mut daemon, mut link) = session(&place, &channels);
    let mut sender = session.sender("arm.pos").unwrap();
    let mut inbox = session.inbox().unwrap();
    sender.send(b"kept").unwrap();
    for sequence in 1..=20 {
        link.push(1, sequence, &[u8::try_from(sequence).unwrap()]);
        (daemon, link) = restart(&place, daemon, link, &channels);
    }
    let until = in_ms(10_000);
    let kept = loop {
        if let Some((_, kept)) = link.take(0) {
            break kept;
        }
        assert!(monotonic_ns() < until);
    };
    assert_eq!((kept, link.take(0).is_none()), (b"kept".to_vec(), true));
    // Nobody read them either: every ring was kept for its one message.
    for sequence in 1..=20 {
        assert_eq!(bytes(&mut inbox), [sequence]);
    }
    assert_eq!(send_again(&mut sender, b"next"), 2);
    drop(daemon);
}

#[test]
fn a_new_configuration_takes_channels_away_and_brings_others() {
    let place = Place::new();
    let (session, daemon, link) = session(
        &place,
        &[sender("arm.pos"), inbox("arm.cmd", "planner.cmd")],
    );
    let (mut sender, mut inbox) = (session.sender("arm.pos").unwrap(), session.inbox().unwrap());
    sender.send(b"1").unwrap();
    let other = Channel {
        payload_bytes: 256,
        priority: 90,
        ..crate::daemon::inbox("arm.stop", "estop")
    };
    let (daemon, mut link) = restart(&place, daemon, link, &[other]);
    let endpoint = name("arm.pos");
    wait_for(&mut inbox, Event::Lost { endpoint, count: 1 });
    wait_for(&mut inbox, Event::Up);
    assert_eq!(
        sender.send(b"2").unwrap_err(),
        SendError::Disconnected {
            endpoint,
            why: Gone::Removed
        }
    );
    link.push(0, 1, &[7; 200]);
    assert_eq!(bytes(&mut inbox), [7; 200]);
    let (_daemon, mut link) = restart(&place, daemon, link, &[crate::daemon::sender("arm.pos")]);
    wait_for(&mut inbox, Event::Up);
    assert_eq!(sender.send(b"2").unwrap(), 2);
    assert_eq!(link.take(0).unwrap().1, b"2");
}

#[test]
fn a_smaller_ring_loses_what_it_has_no_room_for_and_says_so() {
    let place = Place::new();
    let (session, daemon, link) = session(&place, &[sender("arm.pos")]);
    let (mut sender, mut inbox) = (session.sender("arm.pos").unwrap(), session.inbox().unwrap());
    for _ in 0..5 {
        sender.send(b"x").unwrap();
    }
    let small = Channel {
        slots: 2,
        ..crate::daemon::sender("arm.pos")
    };
    let (_daemon, mut link) = restart(&place, daemon, link, &[small]);
    wait_for(
        &mut inbox,
        Event::Lost {
            endpoint: name("arm.pos"),
            count: 3,
        },
    );
    assert_eq!(link.take(0).unwrap().0.meta.sequence, 1);
}

/// A sender that never stops, a daemon that never lives long, and an inbox beside it: what was
/// accepted arrives once, in order.
#[test]
fn nothing_accepted_is_lost_or_doubled_by_restarts() {
    let place = Place::new();
    let channels = [
        Channel {
            slots: 64,
            ..sender("arm.pos")
        },
        inbox("arm.cmd", "planner.cmd"),
    ];
    let (session, daemon, link) = session(&place, &channels);
    let mut sender = session.sender("arm.pos").unwrap();
    let mut inbox = session.inbox().unwrap();
    let (stop, count) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut arrived = Vec::new();
    let (mut now, mut accepted) = (Some((daemon, link)), Vec::new());
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let mut accepted = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                match sender.try_send(b"message") {
                    Ok(sequence) => {
                        accepted.push(sequence);
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(SendError::Full { .. } | SendError::Disconnected { .. }) => {
                        std::thread::yield_now()
                    }
                    Err(e) => panic!("{e}"),
                }
            }
            accepted
        });
        let mut ups = 0;
        for round in 0..60_u64 {
            let Some((daemon, mut link)) = now.take() else {
                panic!()
            };
            // At least one per life.
            let (before, until) = (count.load(Ordering::Relaxed), in_ms(10_000));
            while count.load(Ordering::Relaxed) == before {
                arrived.extend(link.take(0).map(|(envelope, _)| envelope.meta.sequence));
                assert!(monotonic_ns() < until);
                std::thread::yield_now();
            }
            for _ in 0..round * 7 % 50 {
                arrived.extend(link.take(0).map(|(envelope, _)| envelope.meta.sequence));
            }
            now = Some(restart(&place, daemon, link, &channels));
            while let Some(incoming) = inbox.try_recv().unwrap() {
                ups += u64::from(incoming.event() == Some(Event::Up));
            }
        }
        stop.store(true, Ordering::Relaxed);
        accepted = sending.join().unwrap();
        assert!(ups > 0);
    });
    let Some((_daemon, mut link)) = now else {
        panic!()
    };
    // It moves what the last ring held into this one before it is up.
    let until = in_ms(10_000);
    while session.state() != State::Up {
        assert!(monotonic_ns() < until, "{:?}", session.state());
        std::thread::yield_now();
    }
    while let Some((envelope, _)) = link.take(0) {
        arrived.push(envelope.meta.sequence);
    }
    assert!(accepted.len() >= 60, "{} messages", accepted.len());
    assert_eq!(arrived, accepted);
}
