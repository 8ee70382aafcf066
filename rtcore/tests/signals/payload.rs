//! A session's dispatcher and the rings beside its signals; the tests play the daemon.

use crate::daemon::{Link, Place, envelope, inbox, session};
use crate::util::rt;
use rtcore::client::signals::Flags;
use rtcore::client::{Channel, Role, Session};
use rtcore::sys::{rtsignal, sched};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(10);

fn beside(signo: i32) -> Channel {
    Channel {
        role: Role::Signal { signo },
        ..inbox("arm.go", "a")
    }
}

/// A message as the daemon passes it on; whether its receiver waits for a signal.
fn push(link: &mut Link, sequence: u64) -> bool {
    link.producer(0)
        .push(&envelope(sequence), &sequence.to_ne_bytes())
        .unwrap()
}

fn announce(signo: i32, ticket: u64) {
    let own = rtcore::sys::pidfd::PidFd::open(sched::getpid()).unwrap();
    rtsignal::announce_to_pidfd(std::os::fd::AsFd::as_fd(&own).as_raw_fd(), signo, ticket).unwrap();
}

fn values(session: &Session, signo: i32) -> (Arc<rtcore::client::signals::Signals>, Receiver<u64>) {
    let (tell, told) = channel();
    let signals = session.signals().unwrap();
    signals
        .register(signo, Flags::new(), move |notice| {
            tell.send(notice.value).unwrap()
        })
        .unwrap();
    (signals, told)
}

pub fn a_message_is_looked_for_or_rung_for_and_neither_before_a_handler() {
    let (place, signo) = (Place::new(), rt(17));
    let (session, _daemon, mut link) = session(&place, &[beside(signo)]);
    assert!(!push(&mut link, 1), "nobody is registered for it");
    let (signals, told) = values(&session, signo);
    assert_eq!(told.recv_timeout(PATIENCE), Ok(1));
    let (mut sequence, mut sent) = (1, 0);
    for _ in 0..2000 {
        // Armed by now, or about to look once more: then it needs no signal.
        for _ in 0..2 {
            sequence += 1;
            if push(&mut link, sequence) {
                sent += 1;
                announce(signo, sequence);
            }
        }
        assert_eq!(told.recv_timeout(PATIENCE), Ok(sequence - 1));
        assert_eq!(told.recv_timeout(PATIENCE), Ok(sequence));
    }
    // A look may have been faster than the signal for what it found.
    while signals.counters().doorbells < sent {
        std::thread::yield_now();
    }
    assert_eq!(signals.counters().doorbells, sent);
    assert_eq!(signals.counters().received, sequence);
}

pub fn another_ring_wakes_the_dispatcher_without_a_signal() {
    let (place, signo) = (Place::new(), rt(18));
    let (session, daemon, link) = session(&place, &[beside(signo)]);
    let (signals, told) = values(&session, signo);
    let (mut daemon, mut link) = (Some(daemon), Some(link));
    for life in 1..=20 {
        drop((link.take(), daemon.take()));
        let next = place.daemon();
        let mut accepted = next.accept();
        assert!(matches!(
            accepted.request(),
            rtcore::wire::Request::Open { .. }
        ));
        accepted.welcome();
        accepted.channel(beside(signo));
        // There already when the session gets the ring, and again what came before.
        assert!(!push(&mut accepted, life) && !push(&mut accepted, life));
        accepted.ready();
        assert_eq!(told.recv_timeout(PATIENCE), Ok(life));
        (daemon, link) = (Some(next), Some(accepted));
    }
    assert_eq!(signals.counters().doorbells, 0);
    drop(session);
    assert_eq!(told.try_recv().ok(), None);
}

pub fn a_session_has_one_dispatcher_at_a_time() {
    let (place, signo) = (Place::new(), rt(19));
    let (session, _daemon, mut link) = session(&place, &[beside(signo)]);
    let (first, told) = values(&session, signo);
    assert!(Arc::ptr_eq(&first, &session.signals().unwrap()));
    push(&mut link, 1);
    announce(signo, 1);
    assert_eq!(told.recv_timeout(PATIENCE), Ok(1));
    drop(first);
    // The ring goes on where it was with the next one.
    assert!(!push(&mut link, 2), "the dispatcher that waited is gone");
    let (_second, told) = values(&session, signo);
    assert_eq!(told.recv_timeout(PATIENCE), Ok(2));
}
