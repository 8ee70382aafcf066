//! Sender and receiver are threads of one process.

use super::{MESSAGES, PAYLOAD_BYTES, stamp};
use rtcore::seal;
use rtcore::sys::{Errno, rtsignal, sched};
use rtlat::mech::{self, Kind, Mechanism, Stamp};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

fn make(kind: Kind, pair: usize) -> Box<dyn Mechanism> {
    mech::of(kind, PAYLOAD_BYTES, pair).expect("the mechanism")
}

/// Sends them all, each as often as it takes; returns how often the sealed thread used the heap.
pub fn send_all(mechanism: &dyn Mechanism) -> u64 {
    let mut tx = mechanism.sender().expect("the sending end");
    seal::seal();
    for sequence in 0..MESSAGES {
        while let Err(e) = tx.send(&stamp(sequence)) {
            assert_eq!(e, Errno::AGAIN);
            thread::yield_now();
        }
    }
    seal::unseal();
    seal::breaches()
}

/// Receives them all, in order; returns as above.
pub fn receive_all(mechanism: &dyn Mechanism) -> u64 {
    let mut rx = mechanism.receiver().expect("the receiving end");
    seal::seal();
    for sequence in 0..MESSAGES {
        let got = loop {
            match rx.receive() {
                Ok(got) => break got,
                Err(e) => assert!(e == Errno::AGAIN || e == Errno::INTR, "{e:?}"),
            }
        };
        assert_eq!(got, stamp(sequence));
    }
    seal::unseal();
    seal::breaches()
}

pub fn messages_come_in_order(kind: Kind, pair: usize) {
    let mechanism = make(kind, pair);
    thread::scope(|scope| {
        let receiver = scope.spawn(|| receive_all(&*mechanism));
        let sender = scope.spawn(|| send_all(&*mechanism));
        assert_eq!(
            (sender.join().unwrap(), receiver.join().unwrap()),
            (0, 0),
            "calls of the heap"
        );
    });
}

pub fn a_burst_comes_one_by_one(kind: Kind, pair: usize) {
    let mechanism = make(kind, pair);
    // A mutex has room for one, and a lock is its thread's.
    let burst = if kind == Kind::Mutex { 1 } else { 5 };
    let (say, hear) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut tx = mechanism.sender().expect("the sending end");
            (0..burst).for_each(|sequence| tx.send(&stamp(sequence)).expect("room"));
            if kind == Kind::Mutex {
                assert_eq!(tx.send(&stamp(burst)), Err(Errno::AGAIN));
            }
            say.send(()).unwrap();
        });
        hear.recv().unwrap();
        let mut rx = mechanism.receiver().expect("the receiving end");
        (0..burst).for_each(|sequence| assert_eq!(rx.receive(), Ok(stamp(sequence))));
    });
}

/// By the engine's signal or by itself.
pub fn an_idle_receiver_looks_up(kind: Kind, pair: usize) {
    let mechanism = make(kind, pair);
    // Of a mutex, what the receiver waits for.
    let _tx = mechanism.sender().expect("the sending end");
    let (say_tid, tid) = mpsc::channel();
    let (say_end, end) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut rx = mechanism.receiver().expect("the receiving end");
            say_tid.send(sched::gettid()).unwrap();
            say_end.send(rx.receive()).unwrap();
        });
        let tid = tid.recv().unwrap();
        let ended = loop {
            // Again and again: the first may come before the wait has begun.
            rtsignal::wake(tid);
            match end.recv_timeout(Duration::from_millis(1)) {
                Ok(ended) => break ended,
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(e) => panic!("{e}"),
            }
        };
        let looked_up: [Result<Stamp, Errno>; 2] = [Err(Errno::INTR), Err(Errno::AGAIN)];
        assert!(looked_up.contains(&ended), "{ended:?}");
    });
}

pub fn a_sender_of_a_mutex_that_leaves_is_reported() {
    let mechanism = make(Kind::Mutex, 0);
    let mut rx = mechanism.receiver().expect("the receiving end");
    thread::scope(|scope| {
        scope.spawn(|| {
            mechanism
                .sender()
                .expect("the sending end")
                .send(&stamp(7))
                .expect("room")
        });
    });
    assert_eq!(rx.receive(), Ok(stamp(7)));
    assert_eq!(rx.receive(), Err(Errno::PIPE));
    assert_eq!(rx.receive(), Err(Errno::PIPE));
}
