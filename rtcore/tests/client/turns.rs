//! Waits in single turns: a signal ends a sleep, and the turns together do what the whole call does.

use crate::daemon::{Place, inbox, name, sender, session};
use crate::in_ms;
use rtcore::client::{
    Attempt, CallError, Channel, ConnectError, Event, Incoming, SendError, Session,
};
use rtcore::lane::peer::PeerState;
use rtcore::sys::clock::monotonic_ns;
use rtcore::sys::{rtsignal, sched};
use std::sync::mpsc;
use std::time::Duration;

/// Runs a sleep that nothing but a signal ends. A signal that comes before the thread sleeps is
/// lost, so they come until it has returned.
fn interrupted(sleep: impl FnOnce() + Send) {
    rtsignal::install_wake().unwrap();
    std::thread::scope(|scope| {
        let (tell, told) = mpsc::channel();
        let sleeping = scope.spawn(move || {
            tell.send(sched::gettid()).unwrap();
            sleep();
        });
        let tid = told.recv().unwrap();
        while !sleeping.is_finished() {
            rtsignal::wake(tid);
            std::thread::sleep(Duration::from_millis(1));
        }
        sleeping.join().unwrap();
    });
}

#[test]
fn a_signal_ends_the_sleep_of_an_inbox() {
    let place = Place::new();
    let channels = [inbox("arm.cmd", "a"), inbox("arm.log", "b")];
    for channels in [&channels[..0], &channels[..1], &channels[..]] {
        let (session, _daemon, mut link) = session(&place, channels);
        let mut inbox = session.inbox().unwrap();
        while inbox.try_recv().unwrap().is_some() {}
        interrupted(|| inbox.sleep_once(u64::MAX).unwrap());
        assert!(inbox.try_recv().unwrap().is_none());
        if !channels.is_empty() {
            link.push(0, 1, b"x");
            inbox.sleep_once(u64::MAX).unwrap();
            let incoming = inbox.try_recv().unwrap();
            assert!(matches!(incoming, Some(Incoming::Message(m)) if m.bytes() == b"x"));
        }
    }
}

#[test]
fn an_inbox_does_not_sleep_over_an_event_that_is_queued() {
    let place = Place::new();
    let (session, _daemon, link) = session(&place, &[inbox("arm.cmd", "a")]);
    let mut inbox = session.inbox().unwrap();
    link.peer("a", PeerState::Alive, 41, None);
    link.peer("b", PeerState::Alive, 42, None);
    let mut back = 0;
    while back < 2 {
        let until_ns = in_ms(10_000);
        inbox.sleep_once(until_ns).unwrap();
        assert!(monotonic_ns() < until_ns, "{back} of 2 events came");
        // One each turn.
        if let Some(Incoming::Event(Event::PeerBack { .. })) = inbox.try_recv().unwrap() {
            back += 1;
        }
    }
    drop(session);
    // At once, as nothing comes any more.
    inbox.sleep_once(u64::MAX).unwrap();
}

#[test]
fn a_signal_ends_the_waits_of_a_sender() {
    let place = Place::new();
    let blocking = Channel {
        block_ns: 3_600_000_000_000,
        ..sender("arm.pos")
    };
    let (session, _daemon, mut link) = session(&place, &[blocking]);
    let mut sender = session.sender("arm.pos").unwrap();
    for _ in 0..8 {
        sender.send(b"x").unwrap();
    }
    let mut attempt = Attempt::new();
    assert_eq!(sender.attempt(&mut attempt, b"y"), Ok(None));
    interrupted(|| sender.sleep_for_room(&attempt).unwrap());
    interrupted(|| assert_eq!(sender.look_for_flushed(u64::MAX), Ok(false)));
    assert_eq!(sender.attempt(&mut attempt, b"y"), Ok(None));
    link.take(0).unwrap();
    assert_eq!(sender.attempt(&mut attempt, b"y"), Ok(Some(9)));

    let mut refused = sender.attempt(&mut Attempt::at(1), &[0; 65]);
    assert!(matches!(refused, Err(SendError::TooLarge { .. })));
    drop(link);
    interrupted(|| {
        // Until it is seen that the daemon is gone, somebody can receive.
        while sender.look_for_receiver(u64::MAX) == Ok(true) {}
    });
    refused = sender.attempt(&mut Attempt::new(), b"z");
    assert!(matches!(refused, Err(SendError::Disconnected { .. })));
}

#[test]
fn a_call_in_turns_gets_its_answer_and_keeps_its_deadline() {
    let place = Place::new();
    let channels = [sender("arm.ask"), inbox("arm.answers", "planner.answers")];
    let (session, _daemon, mut link) = session(&place, &channels);
    let mut caller = session.caller("arm.ask", "arm.answers").unwrap();
    let mut question = caller.question(in_ms(60_000));
    assert!(caller.ask(&mut question, b"q").unwrap());
    assert!(caller.try_answer(&question).unwrap().is_none());
    interrupted(|| caller.sleep(&question));
    assert!(caller.try_answer(&question).unwrap().is_none());
    let (asked, bytes) = link.take(0).unwrap();
    assert_eq!(bytes, b"q");
    let mut reply = crate::daemon::envelope(1);
    reply.meta.correlation = asked.meta.correlation;
    link.producer(1).push(&reply, b"a").unwrap();
    caller.sleep(&question);
    let answer = caller.try_answer(&question).unwrap();
    assert_eq!(
        answer.map(|answer| answer.bytes().to_vec()),
        Some(b"a".to_vec())
    );

    let mut question = caller.question(in_ms(5));
    assert!(caller.ask(&mut question, b"q").unwrap());
    let error = loop {
        match caller.try_answer(&question) {
            Ok(answer) => assert!(answer.is_none()),
            Err(error) => break error,
        }
        caller.sleep(&question);
    };
    let endpoint = name("arm.ask");
    assert!(matches!(error, CallError::Timeout { endpoint: of, .. } if of == endpoint));
}

#[test]
fn a_session_that_is_being_opened_can_be_given_up() {
    let place = Place::new();
    let daemon = place.daemon();
    let builder = || Session::builder("arm").socket(place.socket());
    let mut connecting = builder()
        .timeout(Duration::from_secs(3600))
        .start()
        .unwrap();
    let link = daemon.accept();
    interrupted(|| connecting.sleep_once());
    let Ok(Err(connecting)) = connecting.try_finish() else {
        panic!("nobody answered it")
    };
    drop(connecting);
    link.closed();

    let mut connecting = builder().start().unwrap();
    let _link = daemon.open(&[]);
    let session = loop {
        connecting.sleep_once();
        connecting = match connecting.try_finish().unwrap() {
            Ok(session) => break session,
            Err(connecting) => connecting,
        };
    };
    drop(session);
    drop(daemon);
    let connecting = Session::builder("arm").socket(place.socket().with_extension("gone"));
    let mut connecting = connecting.start().unwrap();
    connecting.sleep_once();
    let outcome = connecting.try_finish();
    assert!(
        matches!(outcome, Err(ConnectError::NoDaemon { .. })),
        "{outcome:?}"
    );
}
