//! Rings as the receiving and the sending half of an endpoint.

use super::signal_ring::SignalRing;
use super::sink::{Refusal, Sink};
use super::source::{Failure, Source};
use super::{SinkKind, SourceKind, ring, signal};
use crate::channel::hand_off::{HandOff, HandOffItem, hand_off};
use crate::lane::event;
use crate::lane::peer::Peer;
use crate::lane::policy::{GroupMode, Overflow};
use crate::lane::progress::ProgressCell;
use crate::lane::route::{AtStop, Context, OriginRule, Route, Rules};
use crate::lane::target::Target;
use crate::message::{Body, Message, Meta, Origin};
use crate::ring::Doorbell;
use crate::ring::{Consumer, Envelope, Geometry, Kind, Producer, local};
use crate::skin::{self, Skin};
use crate::stats::writer::Page;
use crate::stats::{PageSpec, RouteSpec};
use crate::sys::Errno;
use crate::wait::Timeout;
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

const OWNER: Origin = Origin {
    pid: 7,
    uid: 8,
    verified: true,
};

fn new_ring() -> (Producer, Consumer) {
    local(Geometry::new(4, 64).unwrap())
}

fn envelope(sequence: u64) -> Envelope {
    let meta = Meta {
        sequence,
        ..Meta::default()
    };
    // A sender that writes another origin, and says that its bytes are a signal.
    let origin = Origin {
        pid: 1,
        uid: 0,
        verified: true,
    };
    Envelope {
        meta,
        origin,
        kind: Kind::Signal { signo: 9 },
        len: 0,
    }
}

fn source() -> (HandOff<Consumer>, Source) {
    let (hand_off, ring_slot) = hand_off();
    (
        hand_off,
        Source::new(
            SourceKind::Ring(ring::Source::new(ring_slot, None)),
            64,
            false,
        ),
    )
}

fn offer<T>(hand_off: &mut HandOff<T>, end: Option<T>, generation: u64) {
    hand_off
        .offer(HandOffItem {
            end,
            generation,
            origin: OWNER,
        })
        .map_err(|_| "full")
        .unwrap();
}

fn next(source: &mut Source) -> Option<u64> {
    match source.receive(skin::posix(), Timeout::NOW) {
        Ok(message) => {
            assert_eq!(
                message.origin, OWNER,
                "the channel says who it is, not the envelope"
            );
            assert!(matches!(message.body, Body::Bytes(_)));
            let sequence = message.meta.sequence;
            source.release();
            Some(sequence)
        }
        Err(Failure::Os(Errno::AGAIN)) => None,
        Err(e) => panic!("{e:?}"),
    }
}

#[test]
fn the_next_ring_is_read_when_the_old_one_is_empty() {
    let (mut hand_off, mut source) = source();
    assert_eq!(next(&mut source), None);
    let ((mut first, end), (mut second, other)) = (new_ring(), new_ring());
    offer(&mut hand_off, Some(end), 1);
    first.push(&envelope(1), b"a").unwrap();
    first.push(&envelope(2), b"b").unwrap();
    offer(&mut hand_off, Some(other), 2);
    second.push(&envelope(3), b"c").unwrap();
    assert_eq!(
        [(); 4].map(|()| next(&mut source)),
        [Some(1), Some(2), Some(3), None]
    );
    assert_eq!(source.generation(), 2);
    offer(&mut hand_off, None, 3);
    assert_eq!(next(&mut source), None);
    second.push(&envelope(4), b"d").unwrap();
    assert_eq!(next(&mut source), None, "its session has ended");
}

#[test]
fn a_sender_that_goes_on_in_its_old_ring_does_not_keep_the_next_one_waiting() {
    let (mut hand_off, mut source) = source();
    let ((mut old, end), (mut new, other)) = (new_ring(), new_ring());
    offer(&mut hand_off, Some(end), 1);
    old.push(&envelope(1), b"").unwrap();
    assert_eq!(next(&mut source), Some(1));
    old.push(&envelope(2), b"").unwrap();
    offer(&mut hand_off, Some(other), 2);
    new.push(&envelope(9), b"").unwrap();
    assert_eq!(next(&mut source), Some(2));
    old.push(&envelope(3), b"").unwrap();
    assert_eq!(
        next(&mut source),
        Some(9),
        "what it sends after its end was announced is not taken"
    );
}

#[test]
fn a_message_that_was_half_written_at_the_end_is_reported_once() {
    let (mut hand_off, mut source) = source();
    let (mut producer, end) = new_ring();
    offer(&mut hand_off, Some(end), 1);
    assert_eq!(next(&mut source), None);
    let loan = producer.loan(8).unwrap();
    offer(&mut hand_off, None, 2);
    assert_eq!(next(&mut source), None);
    assert!(source.take_torn() && !source.take_torn());
    let _ = loan;
}

fn sink() -> (HandOff<Producer>, Sink, Arc<Peer>) {
    let (hand_off, ring_slot) = hand_off();
    let peer = Arc::new(Peer::new(1, skin::posix()).unwrap());
    let sink = Sink::new(
        SinkKind::Ring(ring::Sink::new(ring_slot, 64)),
        Some(Arc::clone(&peer)),
    );
    (hand_off, sink, peer)
}

fn send(sink: &mut Sink, bytes: &[u8]) -> Result<(), Refusal> {
    sink.send(
        skin::posix(),
        &Message {
            body: Body::Bytes(bytes),
            origin: OWNER,
            ..Message::EMPTY
        },
        None,
    )
}

#[test]
fn a_receiver_without_a_ring_is_nobody_and_one_with_a_full_ring_is_full() {
    let (mut hand_off, mut sink, peer) = sink();
    assert_eq!(
        send(&mut sink, b"x"),
        Err(Refusal::PeerDead),
        "nobody registered"
    );
    let own = crate::sys::sched::getpid();
    let pidfd = crate::sys::pidfd::PidFd::open(own).unwrap();
    peer.take(std::os::fd::AsFd::as_fd(&pidfd), own, own, 0)
        .unwrap();
    assert_eq!(
        send(&mut sink, b"x"),
        Err(Refusal::PeerDead),
        "registered without a session"
    );
    let (producer, mut consumer) = new_ring();
    offer(&mut hand_off, Some(producer), 1);
    for _ in 0..4 {
        assert_eq!(send(&mut sink, b"x"), Ok(()));
    }
    assert_eq!(send(&mut sink, b"x"), Err(Refusal::Full));
    assert_eq!(send(&mut sink, &[0; 65]), Err(Refusal::TooLarge));
    let mut buffer = [0; 64];
    let got = consumer.take(&mut buffer).unwrap().unwrap();
    assert_eq!((got.origin, got.len), (OWNER, 1));
    consumer.release();
    assert_eq!(send(&mut sink, b"x"), Ok(()));
    offer(&mut hand_off, None, 2);
    assert_eq!(send(&mut sink, b"x"), Err(Refusal::PeerDead));
}

#[test]
fn a_signal_s_value_goes_into_a_ring_with_its_number() {
    let (mut hand_off, mut sink, peer) = sink();
    let own = crate::sys::sched::getpid();
    let pidfd = crate::sys::pidfd::PidFd::open(own).unwrap();
    peer.take(std::os::fd::AsFd::as_fd(&pidfd), own, own, 0)
        .unwrap();
    let (producer, mut consumer) = new_ring();
    offer(&mut hand_off, Some(producer), 1);
    let signal = Message {
        body: Body::Signal {
            signo: 40,
            value: 77,
        },
        ..Message::EMPTY
    };
    sink.send(skin::posix(), &signal, None).unwrap();
    let mut buffer = [0; 64];
    let got = consumer.take(&mut buffer).unwrap().unwrap();
    assert_eq!((got.kind, got.len), (Kind::Signal { signo: 40 }, 8));
    assert_eq!(u64::from_ne_bytes(buffer[..8].try_into().unwrap()), 77);
}

thread_local! {
    /// The kernel's answer to the next announcement, and the number of announcements.
    static KERNEL: Cell<(Result<(), Errno>, u32)> = const { Cell::new((Ok(()), 0)) };
}

/// A skin with a signal queue of the test's own.
fn signals() -> Skin {
    let announce = |_, _, _| {
        let (says, count) = KERNEL.get();
        KERNEL.set((says, count + 1));
        says
    };
    Skin {
        name: "test",
        signal_send: |_, _, _, _, _| unreachable!("there is a ring"),
        signal_announce: announce,
        ..*skin::posix()
    }
}

fn signal_sink() -> (HandOff<Producer>, Sink) {
    let (hand_off, ring_slot) = hand_off();
    let peer = Arc::new(Peer::new(1, skin::posix()).unwrap());
    let own = crate::sys::sched::getpid();
    let pidfd = crate::sys::pidfd::PidFd::open(own).unwrap();
    peer.take(std::os::fd::AsFd::as_fd(&pidfd), own, own, 0)
        .unwrap();
    let inbox = Some(SignalRing::new(ring_slot, 64));
    let sink = signal::Sink {
        signo: 40,
        to_thread: false,
        truncate: false,
        credit: None,
        inbox,
    };
    (hand_off, Sink::new(SinkKind::Signal(sink), Some(peer)))
}

#[test]
fn a_signal_without_room_is_owed_until_it_is_sent_or_needed_no_more() {
    let (skin, message) = (
        signals(),
        Message {
            body: Body::Bytes(b"x"),
            ..Message::EMPTY
        },
    );
    let (mut hand_off, mut sink) = signal_sink();
    let (producer, mut consumer) = new_ring();
    offer(&mut hand_off, Some(producer), 1);
    sink.send(&skin, &message, None).unwrap();
    assert_eq!(KERNEL.get().1, 0, "its receiver is awake");
    consumer.arm(Doorbell::Signal);
    KERNEL.set((Err(Errno::AGAIN), 0));
    sink.send(&skin, &message, None).unwrap();
    assert!(sink.owes_signal());
    sink.pay_signal(&skin);
    assert!(sink.owes_signal() && KERNEL.get().1 == 2);
    KERNEL.set((Ok(()), 0));
    sink.pay_signal(&skin);
    sink.send(&skin, &message, None).unwrap();
    assert!(
        !sink.owes_signal() && KERNEL.get().1 == 1,
        "one signal for all that came"
    );

    // The receiver has checked by itself.
    consumer.arm(Doorbell::Signal);
    consumer.skip();
    for _ in 0..3 {
        consumer.available().unwrap();
        consumer.skip();
    }
    KERNEL.set((Err(Errno::AGAIN), 0));
    sink.send(&skin, &message, None).unwrap();
    consumer.disarm();
    sink.pay_signal(&skin);
    assert!(!sink.owes_signal() && KERNEL.get().1 == 1);

    // The next life of the receiver is owed no signal.
    consumer.arm(Doorbell::Signal);
    sink.send(&skin, &message, None).unwrap();
    assert!(sink.owes_signal());
    offer(&mut hand_off, None, 2);
    sink.pay_signal(&skin);
    assert!(!sink.owes_signal() && KERNEL.get().1 == 2);
}

#[test]
fn a_signal_that_is_refused_for_good_is_no_debt_and_is_known() {
    let (skin, message) = (
        signals(),
        Message {
            body: Body::Bytes(b"x"),
            ..Message::EMPTY
        },
    );
    let (mut hand_off, mut sink) = signal_sink();
    let (producer, mut consumer) = new_ring();
    offer(&mut hand_off, Some(producer), 1);
    consumer.arm(Doorbell::Signal);
    KERNEL.set((Err(Errno(1)), 0));
    sink.send(&skin, &message, None).unwrap();
    assert_eq!(
        (sink.owes_signal(), sink.signal_error()),
        (false, Some(Errno(1)))
    );
    KERNEL.set((Ok(()), 0));
    sink.send(&skin, &message, None).unwrap();
    assert_eq!(
        (KERNEL.get().1, sink.signal_error()),
        (1, None),
        "the next message tries again"
    );
}

#[test]
fn a_signal_that_came_to_be_owed_for_a_queued_message_is_not_forgotten() {
    let skin: &'static Skin = Box::leak(Box::new(signals()));
    let (mut hand_off, sink) = signal_sink();
    let (producer, mut consumer) = new_ring();
    offer(&mut hand_off, Some(producer), 1);
    let rules = Rules {
        index: 0,
        ttl_ns: u64::MAX,
        deadline_ns: u64::MAX,
        payload_bytes_max: 64,
        capacity: 1,
        overflow: Overflow::Reject,
        mq_priority: None,
        origin: OriginRule::Channel,
    };
    let target = Target {
        mode: GroupMode::All,
        first: 0,
        len: 1,
        cursor: 0,
        filter: None,
    };
    let ends = RouteSpec {
        name: "r".into(),
        lane: 0,
        from: 0,
        to: String::new(),
        ends: vec![0],
        direct: false,
    };
    let name = format!("owed{}", std::process::id());
    let page = Page::create(&PageSpec {
        name,
        routes: vec![ends],
        ..PageSpec::default()
    })
    .unwrap();
    let mut route = Route::new(rules, None, vec![target], vec![sink], page.route(0), None);
    let ((mut events, _told), stop_at_ns) = (event::channel(), AtomicU64::new(0));
    let mut progress = ProgressCell::default();
    let mut ctx = Context {
        skin,
        events: &mut events,
        stop_at_ns: &stop_at_ns,
        progress: &mut progress,
        last_ns: 0,
        at_stop: AtStop::Wait,
        stays: false,
    };
    let dequeued_ns = (skin.now_ns)();
    let message = Message {
        body: Body::Bytes(b"x"),
        dequeued_ns,
        since_ns: dequeued_ns,
        ..Message::EMPTY
    };
    // One more than the ring has slots.
    (0..5).for_each(|_| route.dispatch(&message, &mut ctx));
    assert_eq!((route.ledger().queued, KERNEL.get().1), (1, 0));
    consumer.available().unwrap();
    consumer.skip();
    consumer.arm(Doorbell::Signal);
    KERNEL.set((Err(Errno::AGAIN), 0));
    route.pump(&mut ctx);
    assert_eq!(route.ledger().queued, 0);
    assert!(route.has_backlog(), "the receiver sleeps and was not told");
    KERNEL.set((Ok(()), 0));
    route.pump(&mut ctx);
    assert!(!route.has_backlog() && KERNEL.get().1 == 1);
}
