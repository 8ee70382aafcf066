//! Rings from process to process: the test plays the other one, whose life and death is that of a
//! `sleep`.

use crate::daemon::{Place, envelope, inbox, name, sender, session, take};
use crate::{bytes, event, in_ms, message};
use rtcore::client::{Channel, Event, Inbox, Origin, SendError, Sender};
use rtcore::lane::peer::PeerState;
use rtcore::ring::Consumer;
use rtcore::sys::clock::monotonic_ns;
use rtcore::sys::pidfd::Ending;
use std::process::{Child, Command};

fn partner() -> Child {
    Command::new("/bin/sleep").arg("60").spawn().unwrap()
}

fn direct(channel: Channel) -> Channel {
    Channel {
        direct: true,
        ..channel
    }
}

/// Sends until the ring is there.
fn send(sender: &mut Sender, bytes: &[u8]) -> u64 {
    let until = in_ms(10_000);
    loop {
        match sender.try_send(bytes) {
            Ok(sequence) => return sequence,
            Err(e) => assert!(monotonic_ns() < until, "{e}"),
        }
        std::thread::yield_now();
    }
}

/// Until the sender is refused.
fn refused(sender: &mut Sender, consumer: &mut Consumer) -> SendError {
    let until = in_ms(10_000);
    loop {
        if let Err(e) = sender.try_send(b"x") {
            return e;
        }
        take(consumer).unwrap();
        assert!(monotonic_ns() < until);
    }
}

fn wait_for(inbox: &mut Inbox, what: Event) {
    while event(inbox) != what {}
}

#[test]
fn it_goes_on_without_the_daemon_and_tells_the_partner_s_end() {
    let place = Place::new();
    let channels = [
        direct(sender("arm.pos")),
        direct(inbox("arm.cmd", "planner.cmd")),
    ];
    let (session, daemon, link) = session(&place, &channels);
    let (mut sender, mut inbox) = (session.sender("arm.pos").unwrap(), session.inbox().unwrap());
    let mut child = partner();
    let pid = child.id();
    link.peer("drive", PeerState::Alive, pid, None);
    let process = name("drive");
    wait_for(&mut inbox, Event::PeerBack { process, pid });
    let mut out = link.direct(&channels[0], 0, 1, pid);
    let mut back = link.direct(&channels[1], 1, 2, pid);
    assert_eq!(send(&mut sender, b"1"), 1);
    back.producer().push(&envelope(1), b"a").unwrap();
    message(&mut inbox, |m| {
        assert_eq!(
            m.origin(),
            Origin {
                pid,
                uid: 77,
                verified: true
            },
            "the channel's, not the envelope's"
        );
    });
    drop(link);
    drop(daemon);
    wait_for(&mut inbox, Event::Down);
    assert_eq!(sender.try_send(b"2").unwrap(), 2);
    assert_eq!(
        (
            take(out.consumer()).unwrap().1,
            take(out.consumer()).unwrap().1
        ),
        (b"1".to_vec(), b"2".to_vec())
    );
    // Asleep at this one ring, without a daemon.
    std::thread::scope(|scope| {
        let sleeper = scope.spawn(|| bytes(&mut inbox));
        back.producer().push(&envelope(2), b"b").unwrap();
        assert_eq!(sleeper.join().unwrap(), b"b");
    });
    sender.try_send(b"3").unwrap();
    // Half-way through a message.
    std::mem::forget(back.producer().loan(4).unwrap());
    child.kill().unwrap();
    child.wait().unwrap();
    let lost = event(&mut inbox);
    let ending = match lost {
        Event::PeerLost { ending, .. } => ending,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        lost,
        Event::PeerLost {
            process,
            pid,
            ending
        }
    );
    assert!(matches!(ending, None | Some(Ending::Signal(9))));
    assert_eq!(
        event(&mut inbox),
        Event::Lost {
            endpoint: name("arm.pos"),
            count: 1
        }
    );
    let error = sender.try_send(b"4").unwrap_err();
    assert_eq!(
        error,
        SendError::PeerDead {
            endpoint: name("arm.pos"),
            process: Some(process),
            ending
        }
    );
    assert!(inbox.try_recv().unwrap().is_none());
    assert_eq!(inbox.counters().torn, 1);
}

/// A receiver that ends with messages unread, and the next one: these messages are lost once.
#[test]
fn what_a_receiver_left_unread_is_reported_once() {
    let place = Place::new();
    let channels = [direct(sender("arm.pos"))];
    let (session, _daemon, link) = session(&place, &channels);
    let (mut sender, mut inbox) = (session.sender("arm.pos").unwrap(), session.inbox().unwrap());
    let mut child = partner();
    let pid = child.id();
    link.peer("drive", PeerState::Alive, pid, None);
    let old = link.direct(&channels[0], 0, 1, pid);
    send(&mut sender, b"unread");
    child.kill().unwrap();
    child.wait().unwrap();
    wait_for(
        &mut inbox,
        Event::Lost {
            endpoint: name("arm.pos"),
            count: 1,
        },
    );
    let mut next = partner();
    link.peer("drive", PeerState::Alive, next.id(), None);
    let mut out = link.direct(&channels[0], 0, 2, next.id());
    send(&mut sender, b"read");
    assert_eq!(take(out.consumer()).unwrap().1, b"read");
    // The session thread reads this after it has renewed the ring.
    link.peer("last", PeerState::Alive, next.id(), None);
    let last = Event::PeerBack {
        process: name("last"),
        pid: next.id(),
    };
    loop {
        let event = event(&mut inbox);
        assert!(
            !matches!(event, Event::Lost { .. }),
            "reported again: {event:?}"
        );
        if event == last {
            break;
        }
    }
    next.kill().unwrap();
    next.wait().unwrap();
    drop(old);
}

#[test]
fn the_daemon_s_word_on_how_a_partner_ended_is_waited_for() {
    let place = Place::new();
    let channels = [direct(sender("arm.pos"))];
    let (session, _daemon, link) = session(&place, &channels);
    let (mut sender, mut inbox) = (session.sender("arm.pos").unwrap(), session.inbox().unwrap());
    let mut child = partner();
    let pid = child.id();
    link.peer("drive", PeerState::Alive, pid, None);
    let mut out = link.direct(&channels[0], 0, 1, pid);
    send(&mut sender, b"1");
    child.kill().unwrap();
    let first = refused(&mut sender, out.consumer());
    assert!(matches!(first, SendError::PeerDead { .. }), "{first}");
    let ending = Some(Ending::Signal(9));
    link.peer("drive", PeerState::Dead, pid, ending);
    let process = name("drive");
    wait_for(
        &mut inbox,
        Event::PeerLost {
            process,
            pid,
            ending,
        },
    );
    assert!(
        sender
            .try_send(b"x")
            .unwrap_err()
            .to_string()
            .contains("killed by SIGKILL")
    );
    child.wait().unwrap();
}

#[test]
fn an_old_ring_is_drained_before_the_next_is_read() {
    let place = Place::new();
    let channels = [
        direct(inbox("arm.cmd", "planner.cmd")),
        direct(inbox("arm.cmd", "other")),
    ];
    let (session, daemon, link) = session(&place, &channels);
    let mut inbox = session.inbox().unwrap();
    let pid = std::process::id();
    let mut old = link.direct(&channels[0], 0, 1, pid);
    old.producer().push(&envelope(1), b"1").unwrap();
    assert_eq!(bytes(&mut inbox), b"1");
    drop(link);
    drop(daemon);
    wait_for(&mut inbox, Event::Down);
    let daemon = place.daemon();
    let link = daemon.open(&channels);
    let mut new = link.direct(&channels[0], 0, 1, pid);
    wait_for(&mut inbox, Event::Up);
    // The other side takes the next when it sends next; before that it may still be at work on the
    // old one.
    new.producer().push(&envelope(4), b"4").unwrap();
    assert!(
        inbox.recv_deadline(in_ms(20)).unwrap().is_none(),
        "the old one is not closed"
    );
    old.producer().push(&envelope(2), b"2").unwrap();
    assert_eq!(bytes(&mut inbox), b"2");
    std::thread::scope(|scope| {
        let sleeper = scope.spawn(|| (bytes(&mut inbox), bytes(&mut inbox)));
        old.producer().push_quietly(&envelope(3), b"3").unwrap();
        old.producer().close();
        assert_eq!(sleeper.join().unwrap(), (b"3".to_vec(), b"4".to_vec()));
    });
    assert_eq!(inbox.counters().missed, 0);
}

#[test]
fn a_sender_closes_the_old_ring_when_it_takes_the_next() {
    let place = Place::new();
    let channels = [direct(sender("arm.pos"))];
    let (session, _daemon, link) = session(&place, &channels);
    let mut sender = session.sender("arm.pos").unwrap();
    let mut old = link.direct(&channels[0], 0, 1, std::process::id());
    send(&mut sender, b"1");
    let mut new = link.direct(&channels[0], 0, 2, std::process::id());
    let until = in_ms(10_000);
    let mut sent = 1;
    while !old.consumer().is_closed() {
        sent = sender.send(b"x").unwrap();
        assert!(monotonic_ns() < until && sent < 8);
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let mut numbers = Vec::new();
    for consumer in [old.consumer(), new.consumer()] {
        while let Some((envelope, _)) = take(consumer) {
            numbers.push(envelope.meta.sequence);
        }
    }
    assert_eq!(numbers, (1..=sent).collect::<Vec<_>>());
}

#[test]
fn what_a_receiver_left_in_its_ring_goes_into_the_next() {
    let place = Place::new();
    let channels = [direct(sender("arm.pos"))];
    let (session, _daemon, link) = session(&place, &channels);
    let mut sender = session.sender("arm.pos").unwrap();
    let mut old = link.direct(&channels[0], 0, 1, std::process::id());
    for number in 1..=4 {
        assert_eq!(send(&mut sender, b"x"), number);
    }
    assert_eq!(take(old.consumer()).unwrap().0.meta.sequence, 1);
    old.consumer().leave();
    let mut new = link.direct(&channels[0], 0, 2, std::process::id());
    let until = in_ms(10_000);
    let mut sent = 4;
    // The first sends may still be refused: the receiver of the old ring has left.
    while sent == 4 {
        assert!(monotonic_ns() < until);
        sent = sender.send(b"x").unwrap_or(sent);
    }
    let numbers = || Some(take(new.consumer())?.0.meta.sequence);
    let came: Vec<u64> = std::iter::from_fn(numbers).collect();
    assert_eq!(came[..3], [2, 3, 4]);
    assert_eq!(came.last(), Some(&sent));
}

#[test]
fn a_partner_that_lies_is_cut_off_alone_until_it_comes_anew() {
    let place = Place::new();
    let channels = [
        direct(inbox("arm.cmd", "planner.cmd")),
        inbox("arm.log", "log"),
    ];
    let (session, _daemon, mut link) = session(&place, &channels);
    let mut inbox = session.inbox().unwrap();
    let mut liar = link.direct(&channels[0], 0, 1, std::process::id());
    liar.producer().push(&envelope(1), b"1").unwrap();
    assert_eq!(bytes(&mut inbox), b"1");
    liar.lie(1_000);
    let lie = event(&mut inbox);
    link.push(1, 1, b"log");
    assert!(
        matches!(lie, Event::Corrupt { endpoint, .. } if endpoint == name("arm.cmd")),
        "{lie:?}"
    );
    assert_eq!(bytes(&mut inbox), b"log");
    assert!(inbox.try_recv().unwrap().is_none());
    assert_eq!(inbox.counters().corrupt, 1);
    let mut anew = link.direct(&channels[0], 0, 2, std::process::id());
    anew.producer().push(&envelope(2), b"2").unwrap();
    assert_eq!(bytes(&mut inbox), b"2");
}

#[test]
fn a_receiver_that_breaks_the_protocol_is_distinguished_from_a_full_one() {
    let place = Place::new();
    let channels = [direct(sender("arm.pos"))];
    let (session, _daemon, link) = session(&place, &channels);
    let mut sender = session.sender("arm.pos").unwrap();
    let nobody = sender.try_send(b"x").unwrap_err();
    assert!(
        matches!(nobody, SendError::PeerDead { .. }),
        "nobody has joined: {nobody}"
    );
    let liar = link.direct(&channels[0], 0, 1, std::process::id());
    send(&mut sender, b"x");
    liar.lie(u64::MAX - 5);
    let lie = loop {
        if let Err(e) = sender.try_send(b"x") {
            break e;
        }
    };
    assert!(matches!(lie, SendError::Corrupt { .. }), "{lie}");
    assert_eq!(sender.try_send(b"x").unwrap_err(), lie);
    assert_eq!(sender.loan(1).unwrap_err(), lie);
    let mut honest = link.direct(&channels[0], 0, 2, std::process::id());
    send(&mut sender, b"y");
    assert_eq!(take(honest.consumer()).unwrap().1, b"y");
}

#[test]
fn many_partners_and_the_daemon_wake_one_sleeper() {
    let place = Place::new();
    let mut channels = vec![inbox("arm.cmd", "routed")];
    channels.extend((0..10).map(|n| direct(inbox("arm.cmd", &format!("p{n}")))));
    let (session, _daemon, mut link) = session(&place, &channels);
    let mut inbox = session.inbox().unwrap();
    let pid = std::process::id();
    let mut ends: Vec<_> = (1..11_u32)
        .map(|n| link.direct(&channels[n as usize], n, n, pid))
        .collect();
    std::thread::scope(|scope| {
        let inbox = &mut inbox;
        let (tell, told) = std::sync::mpsc::channel();
        scope.spawn(move || {
            for _ in 0..2_000 {
                tell.send(bytes(inbox)).unwrap();
            }
        });
        for number in 0..2_000_u64 {
            let payload = number.to_ne_bytes();
            match usize::try_from(number % 11).unwrap() {
                0 => link.push(0, number + 1, &payload),
                n => {
                    ends[n - 1]
                        .producer()
                        .push(&envelope(number + 1), &payload)
                        .unwrap();
                }
            }
            assert_eq!(told.recv().unwrap(), payload);
        }
    });
}
