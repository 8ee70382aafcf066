//! The one wait: order, deadline, heap.

use crate::util::{queue, rt};
use rtcore::client::waiter::{Interest, Ready, SignalSource, Timer, Waiter};
use rtcore::sys::{clock::monotonic_ns, clock::sleep_until, eventfd::EventFd};
use std::os::unix::net::UnixStream;

const MS: u64 = 1_000_000;

fn keys(ready: &[Ready]) -> Vec<u64> {
    ready.iter().map(|ready| ready.key).collect()
}

fn rung() -> EventFd {
    let bell = EventFd::new().unwrap();
    bell.ring().unwrap();
    bell
}

pub fn ready_things_come_in_priority_order_until_they_are_served() {
    let bells: Vec<EventFd> = (0..5).map(|_| rung()).collect();
    let mut waiter = Waiter::with_capacity(5).unwrap();
    for ((bell, key), priority) in bells.iter().zip(10..).zip([1, 9, 1, 0, 9]) {
        waiter.add(bell, key, priority, Interest::Readable).unwrap();
    }
    assert_eq!(keys(waiter.wait(None).unwrap()), [11, 14, 10, 12, 13]);
    assert!(bells[1].take() && bells[0].take());
    assert_eq!(
        keys(waiter.wait(None).unwrap()),
        [14, 12, 13],
        "what was not served comes again"
    );
    waiter.remove(14).unwrap();
    waiter.add(&bells[4], 20, 0, Interest::Readable).unwrap();
    assert_eq!(
        keys(waiter.wait(None).unwrap()),
        [12, 13, 20],
        "added anew it is the last among equals"
    );
}

pub fn a_deadline_is_kept_and_a_past_one_only_looks() {
    let bell = EventFd::new().unwrap();
    let mut waiter = Waiter::with_capacity(1).unwrap();
    assert!(waiter.wait(Some(0)).unwrap().is_empty());
    waiter.add(&bell, 1, 0, Interest::Readable).unwrap();
    assert!(waiter.wait(Some(0)).unwrap().is_empty());
    let deadline = monotonic_ns() + 3 * MS;
    assert!(waiter.wait(Some(deadline)).unwrap().is_empty());
    assert!(monotonic_ns() >= deadline);
    bell.ring().unwrap();
    assert_eq!(keys(waiter.wait(Some(0)).unwrap()), [1]);
}

pub fn room_and_hang_up_are_reported() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut waiter = Waiter::with_capacity(1).unwrap();
    waiter.add(&ours, 1, 0, Interest::Both).unwrap();
    let ready = waiter.wait(None).unwrap()[0];
    assert_eq!(
        (ready.readable, ready.writable, ready.hangup),
        (false, true, false)
    );
    drop(theirs);
    let ready = waiter.wait(None).unwrap()[0];
    assert!(ready.readable && ready.hangup, "{ready:?}");
}

pub fn signals_are_one_of_the_things() {
    let source = SignalSource::new([rt(26), rt(27)]).unwrap();
    let mut waiter = Waiter::with_capacity(1).unwrap();
    waiter.add(&source, 1, 0, Interest::Readable).unwrap();
    assert!(waiter.wait(Some(0)).unwrap().is_empty() && source.take().is_none());
    std::thread::scope(|scope| {
        scope.spawn(|| queue(rt(27), 2));
        assert_eq!(keys(waiter.wait(None).unwrap()), [1]);
    });
    queue(rt(26), 1);
    let taken: Vec<_> = std::iter::from_fn(|| source.take())
        .map(|got| (got.signo, got.value))
        .collect();
    assert_eq!(taken, [(rt(26), 1), (rt(27), 2)], "lowest number first");
    assert!(waiter.wait(Some(0)).unwrap().is_empty());
    assert!(SignalSource::new([rt(26)]).is_err());
    drop(source);
    assert!(SignalSource::new([rt(26)]).is_ok());
}

pub fn a_wait_leaves_the_heap_alone() {
    let (bells, timer) = ([rung(), rung()], Timer::new().unwrap());
    let closed = EventFd::new().unwrap();
    let mut waiter = Waiter::with_capacity(4).unwrap();
    waiter.add(&bells[0], 1, 1, Interest::Readable).unwrap();
    waiter.add(&bells[1], 2, 2, Interest::Readable).unwrap();
    waiter.add(&timer, 3, 3, Interest::Readable).unwrap();
    waiter.add(&closed, 4, 4, Interest::Readable).unwrap();
    rtcore::seal::seal();
    let before = rtcore::seal::breaches();
    let ready = waiter.wait(None).map_or(0, <[Ready]>::len);
    let served = bells.iter().filter(|bell| bell.take()).count();
    let set = timer.at(monotonic_ns() + MS).is_ok();
    let expired = waiter.wait(None).map_or(0, <[Ready]>::len);
    let ticks = timer.take();
    let idle = waiter
        .wait(Some(monotonic_ns() + MS))
        .map_or(9, <[Ready]>::len);
    drop(closed);
    let told = waiter.wait(None).map_or(0, <[Ready]>::len);
    let breaches = rtcore::seal::breaches() - before;
    rtcore::seal::unseal();
    assert_eq!(
        (ready, served, set, expired, ticks, idle, told),
        (2, 2, true, 1, 1, 0, 1)
    );
    assert_eq!(breaches, 0);
}

pub fn timers_count_what_was_missed() {
    let timer = Timer::new().unwrap();
    let mut waiter = Waiter::with_capacity(1).unwrap();
    waiter.add(&timer, 1, 0, Interest::Readable).unwrap();
    let first = monotonic_ns() + MS;
    timer.every(first, MS).unwrap();
    waiter.wait(None).unwrap();
    assert!(monotonic_ns() >= first && timer.take() >= 1);
    sleep_until(monotonic_ns() + 3 * MS);
    assert_eq!(keys(waiter.wait(None).unwrap()), [1]);
    assert!(timer.take() >= 2, "the missed ones are in the count");
}
