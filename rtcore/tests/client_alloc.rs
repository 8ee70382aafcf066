//! After connect, sending and receiving touch no heap, also while the daemon goes and another one
//! comes: the rings that are replaced then are made and unmade by the session's own thread.
#![cfg(not(loom))]

#[path = "client/daemon.rs"]
mod daemon;

use daemon::{Place, inbox, sender, session};
use rtcore::client::{Event, Inbox, Incoming, Sender, Wait};
use rtcore::seal::{self, GuardAlloc};
use rtcore::sys::clock::monotonic_ns;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

#[global_allocator]
static GUARD: GuardAlloc = GuardAlloc;

#[derive(Debug, Default)]
struct Seen {
    sent: u64,
    refused: u64,
    received: u64,
    ups: u64,
    breaches: u64,
}

/// Every call there is, over and over.
fn work(sender: &mut Sender, inbox: &mut Inbox, stop: &AtomicBool, progress: &AtomicU64) -> Seen {
    let mut seen = Seen::default();
    let mut turn = 0_u64;
    let before = seal::breaches();
    seal::seal();
    while !stop.load(Ordering::Acquire) {
        turn += 1;
        let sent = match turn % 4 {
            0 => sender.try_send(b"message").is_ok(),
            1 => sender.send_value(&turn).is_ok(),
            2 => sender.loan(8).is_ok_and(|loan| loan.commit().is_ok()),
            _ => sender.send_batch([&b"a"[..], b"b"]).error.is_none(),
        };
        if sent {
            seen.sent += 1
        } else {
            seen.refused += 1
        }
        if turn == 500 {
            // From here on behind a descriptor, too.
            let _ = inbox.as_fd();
        }
        inbox.set_wait([Wait::Block, Wait::Spin { spin_ns: 1_000 }][usize::from(turn % 8 < 4)]);
        let incoming = match turn % 3 {
            0 => inbox.recv_deadline(monotonic_ns() + 50_000),
            1 => inbox.try_recv(),
            _ => {
                let in_place = inbox.try_recv_in_place().ok().flatten();
                seen.received += u64::from(in_place.and_then(Incoming::message).is_some());
                continue;
            }
        };
        match incoming {
            Ok(Some(Incoming::Message(message))) => {
                seen.received += u64::from(!message.bytes().is_empty())
            }
            Ok(Some(Incoming::Event(event))) => seen.ups += u64::from(event == Event::Up),
            _ => {}
        }
        progress.store(seen.received, Ordering::Release);
    }
    seal::unseal();
    seen.breaches = seal::breaches() - before;
    seen
}

#[test]
fn sending_and_receiving_touch_no_heap_also_while_rings_are_replaced() {
    let place = Place::new();
    let channels = [
        sender("arm.pos"),
        inbox("arm.cmd", "planner.cmd"),
        inbox("arm.cmd", "other.cmd"),
    ];
    let (session, daemon, link) = session(&place, &channels);
    let (mut sender, mut inbox) = (session.sender("arm.pos").unwrap(), session.inbox().unwrap());
    let (stop, progress) = (AtomicBool::new(false), AtomicU64::new(0));
    let seen = std::thread::scope(|scope| {
        let worker = scope.spawn(|| work(&mut sender, &mut inbox, &stop, &progress));
        let (mut now, mut sequence) = (Some((daemon, link)), 0);
        for _ in 0..30 {
            let Some((daemon, mut link)) = now.take() else {
                panic!()
            };
            let (before, until) = (
                progress.load(Ordering::Acquire),
                monotonic_ns() + 10_000_000_000,
            );
            while progress.load(Ordering::Acquire) < before + 20 {
                while link.take(0).is_some() {}
                sequence += 1;
                for channel in [1, 2] {
                    if link.producer(channel).has_room().unwrap() {
                        link.push(channel, sequence, b"text");
                    }
                }
                assert!(monotonic_ns() < until, "no progress");
                std::thread::yield_now();
            }
            drop(link);
            drop(daemon);
            let daemon = place.daemon();
            let link = daemon.open(&channels);
            now = Some((daemon, link));
        }
        stop.store(true, Ordering::Release);
        worker.join().unwrap()
    });
    assert!(
        seen.sent > 0 && seen.refused > 0 && seen.received >= 600 && seen.ups > 0,
        "{seen:?}"
    );
    assert_eq!(seen.breaches, 0, "{seen:?}");
}
