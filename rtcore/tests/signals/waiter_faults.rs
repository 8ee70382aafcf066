//! The one wait when it is interrupted, misused, or loses what it waits for.

use crate::util::{queue_to_thread, rt, until_asleep};
use rtcore::client::signals::handler;
use rtcore::client::waiter::{Interest, Ready, Waiter};
use rtcore::sys::{clock::monotonic_ns, eventfd::EventFd, sched};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;

fn add(waiter: &mut Waiter, bell: &EventFd, key: u64) {
    waiter.add(bell, key, 0, Interest::Readable).unwrap();
}

fn told(ready: &[Ready]) -> Vec<(u64, bool, bool)> {
    ready
        .iter()
        .map(|ready| (ready.key, ready.readable, ready.hangup))
        .collect()
}

fn readable() -> EventFd {
    let bell = EventFd::new().unwrap();
    bell.ring().unwrap();
    bell
}

pub fn an_interrupted_wait_keeps_its_deadline() {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let (bell, over) = (EventFd::new().unwrap(), AtomicBool::new(false));
    let (begin, begun) = channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _installed = handler::install(rt(28), |_, scope| scope.add(&CALLS, 1)).unwrap();
            let mut waiter = Waiter::with_capacity(1).unwrap();
            add(&mut waiter, &bell, 1);
            begin.send(sched::gettid()).unwrap();
            let resumed = waiter.wait(None).map(told);
            bell.take();
            let deadline = monotonic_ns() + 5_000_000;
            let empty = waiter.wait(Some(deadline)).map(<[Ready]>::is_empty);
            let late_ns = monotonic_ns().checked_sub(deadline);
            over.store(true, Ordering::Release);
            assert_eq!(resumed.unwrap(), [(1, true, false)]);
            assert!(empty.unwrap() && late_ns.is_some());
        });
        let tid = begun.recv().unwrap();
        for calls in 1..=3 {
            until_asleep(tid);
            assert!(queue_to_thread(tid, rt(28), 0));
            while CALLS.load(Ordering::Acquire) < calls {
                std::thread::yield_now();
            }
        }
        bell.ring().unwrap();
        // Were each interruption to start the time anew, this would not end. One at a time.
        let mut sent = 3;
        while !over.load(Ordering::Acquire) {
            if CALLS.load(Ordering::Acquire) == sent && queue_to_thread(tid, rt(28), 0) {
                sent += 1;
            }
            std::thread::yield_now();
        }
    });
}

pub fn a_closed_source_is_reported_until_it_is_removed() {
    let (closed, other) = (EventFd::new().unwrap(), EventFd::new().unwrap());
    let mut waiter = Waiter::with_capacity(2).unwrap();
    add(&mut waiter, &closed, 1);
    add(&mut waiter, &other, 2);
    drop(closed);
    assert_eq!(told(waiter.wait(None).unwrap()), [(1, false, true)]);
    other.ring().unwrap();
    assert_eq!(
        told(waiter.wait(None).unwrap()),
        [(1, false, true), (2, true, false)]
    );
    waiter.remove(1).unwrap();
    assert_eq!(told(waiter.wait(None).unwrap()), [(2, true, false)]);
    assert!(other.take() && waiter.wait(Some(0)).unwrap().is_empty());
}

pub fn a_closed_thing_with_a_duplicate_does_not_spin_after_removal() {
    let (closed, other) = (readable(), EventFd::new().unwrap());
    let duplicate = closed.try_clone().unwrap();
    let mut waiter = Waiter::with_capacity(2).unwrap();
    add(&mut waiter, &closed, 1);
    add(&mut waiter, &other, 2);
    drop(closed);
    assert_eq!(
        told(waiter.wait(None).unwrap()),
        [(1, false, true)],
        "the duplicate does not count"
    );
    waiter.remove(1).unwrap();
    assert!(
        waiter
            .wait(Some(monotonic_ns() + 1_000_000))
            .unwrap()
            .is_empty()
    );
    add(&mut waiter, &duplicate, 1);
    other.ring().unwrap();
    assert_eq!(
        told(waiter.wait(None).unwrap()),
        [(2, true, false), (1, true, false)]
    );
}

pub fn a_number_that_is_used_again_is_not_confused() {
    let mut waiter = Waiter::with_capacity(2).unwrap();
    // Other tests open and close, too, so the number may go to one of them.
    let next = loop {
        let former = EventFd::new().unwrap();
        let number = former.as_fd().as_raw_fd();
        add(&mut waiter, &former, 1);
        drop(former);
        let mut some = (0..8).map(|_| readable()).collect::<Vec<_>>().into_iter();
        if let Some(next) = some.find(|next| next.as_fd().as_raw_fd() == number) {
            break next;
        }
        waiter.remove(1).unwrap();
    };
    assert_eq!(told(waiter.wait(None).unwrap()), [(1, false, true)]);
    add(&mut waiter, &next, 2);
    assert_eq!(
        told(waiter.wait(None).unwrap()),
        [(1, false, true), (2, true, false)]
    );
    waiter.remove(1).unwrap();
    assert_eq!(told(waiter.wait(None).unwrap()), [(2, true, false)]);
}

pub fn refusals_say_what_to_do() {
    let mut waiter = Waiter::with_capacity(1).unwrap();
    let empty = waiter.wait(None).unwrap_err().to_string();
    assert!(empty.contains("add a source"), "{empty}");
    let file = std::fs::File::open("/proc/self/exe").unwrap();
    let always = waiter
        .add(&file, 1, 0, Interest::Readable)
        .unwrap_err()
        .to_string();
    assert!(always.contains("regular file"), "{always}");
    let bell = EventFd::new().unwrap();
    add(&mut waiter, &bell, 1);
    let twice = waiter
        .add(&bell, 1, 0, Interest::Readable)
        .unwrap_err()
        .to_string();
    assert!(twice.contains("key 1 is in the set"), "{twice}");
    let full = waiter
        .add(&bell, 2, 0, Interest::Readable)
        .unwrap_err()
        .to_string();
    assert!(full.contains("capacity"), "{full}");
    assert!(waiter.remove(2).unwrap_err().to_string().contains("key 2"));
    let mut wider = Waiter::with_capacity(2).unwrap();
    add(&mut wider, &bell, 1);
    let again = wider
        .add(&bell, 2, 0, Interest::Readable)
        .unwrap_err()
        .to_string();
    assert!(again.contains("remove its other key"), "{again}");
}
