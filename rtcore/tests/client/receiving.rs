//! Inboxes: what a message says, order, waiting, descriptors.

use crate::daemon::{End, Place, envelope, inbox, session};
use crate::{bytes, in_ms, message};
use rtcore::client::{Channel, Incoming, Origin, RecvError, ReplyTo, Wait};
use rtcore::ring::{Envelope, Kind};
use rtcore::sys::clock::monotonic_ns;
use rtcore::sys::epoll::Epoll;
use std::os::fd::AsFd;
use std::time::Duration;

#[test]
fn a_message_says_who_sent_it_when_and_what_is_missing() {
    let place = Place::new();
    let (session, _daemon, mut link) = session(&place, &[inbox("arm.cmd", "planner.cmd")]);
    let mut inbox = session.inbox().unwrap();
    link.push(0, 5, b"a");
    link.push(0, 9, &7_u32.to_ne_bytes());
    link.push(0, 9, b"again");
    let signal = Envelope {
        kind: Kind::Signal { signo: 37 },
        ..envelope(10)
    };
    link.producer(0)
        .push(&signal, &99_u64.to_ne_bytes())
        .unwrap();
    message(&mut inbox, |m| {
        assert_eq!((m.bytes(), m.sequence(), m.missed()), (&b"a"[..], 5, 0));
        assert_eq!(
            m.origin(),
            Origin {
                pid: 42,
                uid: 7,
                verified: true
            }
        );
        assert_eq!(
            (m.endpoint(), m.from(), m.lane()),
            ("arm.cmd", "planner.cmd", "control")
        );
        assert_eq!((m.intended_ns(), m.sent_ns(), m.correlation()), (10, 20, 0));
        assert_eq!((m.signal(), m.reply_to()), (None, None));
        assert!(m.received_ns() <= monotonic_ns());
    });
    message(&mut inbox, |m| {
        assert_eq!(
            (m.value::<u32>(), m.value::<u64>(), m.missed()),
            (Some(7), None, 3)
        );
    });
    message(&mut inbox, |m| {
        assert_eq!((m.signal(), m.missed()), (Some((37, 99)), 0))
    });
    let counters = inbox.counters();
    assert_eq!(
        (counters.received, counters.duplicates, counters.missed),
        (3, 1, 3)
    );
    assert_eq!(link.taken(0), 4, "slots are given back at once");
}

#[test]
fn in_place_the_slot_is_kept_until_the_message_is_dropped() {
    let place = Place::new();
    let (session, _daemon, mut link) = session(&place, &[inbox("arm.cmd", "planner.cmd")]);
    let mut inbox = session.inbox().unwrap();
    for sequence in [1, 1, 2] {
        link.push(0, sequence, b"abc");
    }
    let Some(Incoming::Message(first)) = inbox.try_recv_in_place().unwrap() else {
        panic!()
    };
    let mut buffer = [0; 2];
    assert_eq!(
        (
            first.len(),
            first.is_empty(),
            first.copy_to(&mut buffer),
            &buffer
        ),
        (3, false, 2, b"ab")
    );
    // SAFETY: the producer is this thread, and idle.
    assert_eq!(unsafe { first.bytes() }, b"abc");
    assert_eq!((link.taken(0), first.sequence()), (0, 1));
    drop(first);
    assert_eq!(link.taken(0), 1);
    let Incoming::Message(second) = inbox.recv_in_place().unwrap() else {
        panic!()
    };
    assert_eq!((second.sequence(), second.from()), (2, "planner.cmd"));
    drop(second);
    assert!(inbox.try_recv_in_place().unwrap().is_none());
    assert!(inbox.recv_in_place_deadline(in_ms(1)).unwrap().is_none());
    assert_eq!(inbox.counters().duplicates, 1);
}

#[test]
fn the_highest_lane_comes_first_and_equals_take_turns() {
    let place = Place::new();
    let channels = [
        Channel {
            priority: 10,
            ..inbox("arm.log", "a")
        },
        Channel {
            priority: 50,
            ..inbox("arm.cmd", "b")
        },
        Channel {
            priority: 90,
            ..inbox("arm.stop", "c")
        },
        Channel {
            priority: 50,
            ..inbox("arm.cmd", "d")
        },
    ];
    let (session, _daemon, mut link) = session(&place, &channels);
    let mut inbox = session.inbox().unwrap();
    for sequence in 1..=3 {
        for (channel, text) in [b"log", b"cm1", b"est", b"cm2"].into_iter().enumerate() {
            link.push(channel, sequence, text);
        }
    }
    let order: Vec<_> = (0..12)
        .map(|_| String::from_utf8(bytes(&mut inbox)).unwrap())
        .collect();
    let expected = [
        "est", "est", "est", "cm1", "cm2", "cm1", "cm2", "cm1", "cm2", "log", "log", "log",
    ];
    assert_eq!(order, expected);
    link.push(0, 4, b"log");
    link.push(2, 4, b"est");
    assert_eq!(
        (bytes(&mut inbox), bytes(&mut inbox)),
        (b"est".to_vec(), b"log".to_vec())
    );
}

#[test]
fn two_inboxes_share_the_endpoints_as_they_name_them() {
    let place = Place::new();
    let channels = [
        inbox("arm.cmd", "a"),
        inbox("arm.stop", "b"),
        inbox("arm.log", "c"),
    ];
    let (session, _daemon, mut link) = session(&place, &channels);
    let mut stop = session.inbox_of(&["arm.stop"]).unwrap();
    let mut rest = session.inbox().unwrap();
    for channel in 0..3 {
        link.push(channel, 1, &[u8::try_from(channel).unwrap()]);
    }
    assert_eq!(bytes(&mut stop), [1]);
    assert_eq!((bytes(&mut rest), bytes(&mut rest)), (vec![0], vec![2]));
    assert!(stop.try_recv().unwrap().is_none() && rest.try_recv().unwrap().is_none());
}

#[test]
fn a_deadline_is_kept_and_one_that_is_past_only_looks() {
    let place = Place::new();
    let (session, _daemon, mut link) = session(&place, &[inbox("arm.cmd", "planner.cmd")]);
    let mut inbox = session.inbox().unwrap();
    for wait in [Wait::Block, Wait::Spin { spin_ns: 1_000_000 }, Wait::Poll] {
        inbox.set_wait(wait);
        let until = in_ms(20);
        assert!(inbox.recv_deadline(until).unwrap().is_none());
        assert!(monotonic_ns() >= until);
        assert!(inbox.recv_deadline(0).unwrap().is_none());
    }
    link.push(0, 1, b"x");
    assert!(inbox.recv_deadline(0).unwrap().is_some());
}

/// Ping-pong, so that every wake-up is needed.
#[test]
fn no_wake_up_is_lost_whatever_the_strategy() {
    let place = Place::new();
    let channels = [inbox("arm.cmd", "a"), inbox("arm.cmd", "b")];
    let (session, _daemon, mut link) = session(&place, &channels);
    let mut inbox = session.inbox().unwrap();
    for (round, wait) in [Wait::Block, Wait::Spin { spin_ns: 5_000 }]
        .into_iter()
        .enumerate()
    {
        inbox.set_wait(wait);
        std::thread::scope(|scope| {
            let from = round as u64 * 2_000 + 1;
            let (inbox, link) = (&mut inbox, &mut link);
            let receiver = scope.spawn(move || {
                for number in from..from + 2_000 {
                    assert_eq!(bytes(inbox), number.to_ne_bytes());
                }
            });
            for number in from..from + 2_000 {
                let channel = usize::from(number % 3 == 0);
                link.push(channel, number, &number.to_ne_bytes());
                let End::Producer(producer) = &link.ends[channel] else {
                    panic!()
                };
                while producer.recovery_cursor().taken(producer.tail()) < producer.tail() {
                    std::thread::yield_now();
                }
            }
            receiver.join().unwrap();
        });
    }
}

#[test]
fn behind_a_descriptor_it_is_readable_while_anything_is_there() {
    let place = Place::new();
    let channels = [inbox("arm.cmd", "a"), inbox("arm.cmd", "b")];
    let (session, _daemon, mut link) = session(&place, &channels);
    let mut inbox = session.inbox().unwrap();
    let set = Epoll::new().unwrap();
    set.add(&inbox, 7).unwrap();
    // A set in a set.
    let outer = Epoll::new().unwrap();
    outer.add(&set, 8).unwrap();
    let readable = |ms| {
        let mut tokens = Vec::new();
        outer
            .wait(&mut tokens, Some(Duration::from_millis(ms)))
            .unwrap();
        !tokens.is_empty()
    };
    while inbox.try_recv().unwrap().is_some() {}
    assert!(!readable(0));
    for sequence in 1..=3 {
        link.push(0, sequence, b"x");
        link.push(1, sequence, b"y");
    }
    for _ in 0..6 {
        assert!(readable(1_000));
        assert!(inbox.try_recv().unwrap().is_some());
    }
    assert!(inbox.try_recv().unwrap().is_none());
    assert!(!readable(0));
    // A blocking call in between lowers the flags and says so.
    link.push(0, 4, b"x");
    assert_eq!(bytes(&mut inbox), b"x");
    assert!(inbox.recv_deadline(in_ms(5)).unwrap().is_none());
    link.push(0, 5, b"x");
    assert!(readable(1_000));
    assert!(inbox.try_recv().unwrap().is_some());
    while inbox.try_recv().unwrap().is_some() {}
    assert!(!readable(0));
    // One at a time, each of which has to be told.
    std::thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            for number in 6..2_000_u64 {
                loop {
                    match inbox.try_recv().unwrap() {
                        Some(Incoming::Message(m)) => {
                            assert_eq!(m.sequence(), number);
                            break;
                        }
                        Some(_) => {}
                        None => assert!(readable(10_000), "{number} was not told"),
                    }
                }
            }
        });
        for number in 6..2_000 {
            link.push(0, number, b"x");
            let End::Producer(producer) = &link.ends[0] else {
                panic!()
            };
            while producer.recovery_cursor().taken(producer.tail()) < producer.tail()
                && !receiver.is_finished()
            {
                std::thread::yield_now();
            }
        }
        receiver.join().unwrap();
    });
    assert!(session.channels().len() == 2 && link.ends.len() == 2);
}

#[test]
fn an_event_makes_the_descriptor_readable_too() {
    let place = Place::new();
    let (session, _daemon, link) = session(&place, &[inbox("arm.cmd", "a")]);
    let mut inbox = session.inbox().unwrap();
    let set = Epoll::new().unwrap();
    set.add(inbox.as_fd(), 7).unwrap();
    while inbox.try_recv().unwrap().is_some() {}
    link.peer("drive", rtcore::lane::peer::PeerState::Alive, 9, None);
    let mut tokens = Vec::new();
    let until = in_ms(10_000);
    while inbox.try_recv().unwrap().is_none() {
        set.wait(&mut tokens, Some(Duration::from_secs(10)))
            .unwrap();
        assert!(tokens == [7] && monotonic_ns() < until);
    }
}

#[test]
fn an_event_wakes_every_inbox_that_sleeps() {
    let place = Place::new();
    let channels = [inbox("arm.cmd", "a"), inbox("arm.stop", "b")];
    let (session, _daemon, link) = session(&place, &channels);
    let mut inboxes = [
        session.inbox_of(&["arm.stop"]).unwrap(),
        session.inbox_of(&["arm.cmd"]).unwrap(),
        // Without any ring.
        session.inbox().unwrap(),
    ];
    for round in 1..200 {
        std::thread::scope(|scope| {
            let sleepers: Vec<_> = inboxes
                .iter_mut()
                .map(|inbox| scope.spawn(|| crate::event(inbox)))
                .collect();
            link.peer("drive", rtcore::lane::peer::PeerState::Alive, round, None);
            for sleeper in sleepers {
                sleeper.join().unwrap();
            }
        });
    }
}

/// Ends that were several inboxes' before: all of them wake the one that has them now.
#[test]
fn an_inbox_sleeps_where_each_of_its_rings_is_rung() {
    let place = Place::new();
    let channels = ["arm.a", "arm.b", "arm.c"].map(|endpoint| inbox(endpoint, "planner.cmd"));
    let (session, _daemon, mut link) = session(&place, &channels);
    let apart: Vec<_> = ["arm.b", "arm.c", "arm.a"]
        .map(|endpoint| session.inbox_of(&[endpoint]).unwrap())
        .into();
    drop(apart);
    let mut together = session.inbox().unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    let receiver = std::thread::spawn(move || {
        tell.send(rtcore::sys::sched::gettid()).unwrap();
        (0..6).map(|_| bytes(&mut together)).collect::<Vec<_>>()
    });
    let stat = format!("/proc/self/task/{}/stat", told.recv().unwrap());
    for (sequence, channel) in (1..).zip([2, 1, 0, 1, 2, 0]) {
        let asleep = || {
            std::fs::read_to_string(&stat)
                .unwrap()
                .rsplit_once(") ")
                .unwrap()
                .1
                .starts_with('S')
        };
        while link.taken(0) + link.taken(1) + link.taken(2) < sequence - 1 || !asleep() {
            std::thread::yield_now();
        }
        link.push(channel, sequence, &[u8::try_from(sequence).unwrap()]);
    }
    assert_eq!(receiver.join().unwrap(), [[1], [2], [3], [4], [5], [6]]);
}

#[test]
fn a_waker_ends_the_call_that_waits_or_else_the_next_one() {
    let place = Place::new();
    let (session, _daemon, mut link) = session(&place, &[inbox("arm.cmd", "planner.cmd")]);
    let mut inbox = session.inbox().unwrap();
    let waker = inbox.waker();
    // At its ring's bell, which only the session thread can ring for somebody who has no message.
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| {
            for _ in 0..200 {
                let woken = inbox.recv_deadline(in_ms(10_000)).map(|_| ());
                assert_eq!(woken, Err(RecvError::Woken));
            }
        });
        // More often than it counts: until the last of its calls has ended.
        while !waits.is_finished() {
            waker.wake().unwrap();
            std::thread::yield_now();
        }
        waits.join().unwrap();
    });
    let _ = inbox.try_recv();
    assert!(inbox.recv_deadline(in_ms(20)).unwrap().is_none(), "once");
    // Also with a message, which the call after it gets; several calls count as one.
    link.push(0, 1, b"a");
    waker.wake().unwrap();
    waker.clone().wake().unwrap();
    assert_eq!(inbox.try_recv().unwrap_err(), RecvError::Woken);
    assert_eq!(bytes(&mut inbox), b"a");
    assert!(inbox.try_recv().unwrap().is_none());
    // Who waits by descriptor is woken, too.
    let set = Epoll::new().unwrap();
    set.add(&inbox, 0).unwrap();
    let mut tokens = Vec::new();
    while inbox.try_recv().unwrap().is_some() {}
    set.wait(&mut tokens, Some(Duration::ZERO)).unwrap();
    assert!(tokens.is_empty());
    waker.wake().unwrap();
    set.wait(&mut tokens, Some(Duration::from_secs(10)))
        .unwrap();
    assert_eq!(tokens, [0]);
    assert_eq!(inbox.try_recv().unwrap_err(), RecvError::Woken);
    drop(session);
    assert_eq!(waker.wake(), Err(RecvError::Disconnected));
}

#[test]
fn what_an_answer_carries_can_be_kept_as_a_number() {
    assert_eq!(ReplyTo::new(0), None);
    assert_eq!(ReplyTo::new(7).map(ReplyTo::correlation), Some(7));
}
