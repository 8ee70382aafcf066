//! The asynchronous handler.

use crate::util::{mask, queue_to_thread, rt, until_asleep};
use rtcore::client::signals::{SignalsError, handler};
use rtcore::client::waiter::{Interest, Waiter};
use rtcore::sys::{eventfd::EventFd, rtsignal, sched};
use std::io::{Read, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;

/// The lines of /proc/self/maps around an address: the one below it and its own.
fn mappings_at(address: u64) -> (String, String) {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let range = |line: &str| {
        let (from, to) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
        u64::from_str_radix(from, 16).unwrap()..u64::from_str_radix(to, 16).unwrap()
    };
    let lines: Vec<&str> = maps.lines().collect();
    let at = lines
        .iter()
        .position(|line| range(line).contains(&address))
        .unwrap();
    (lines[at - 1].to_owned(), lines[at].to_owned())
}

pub fn it_runs_on_a_guarded_stack_of_its_own() {
    static FRAME: AtomicU64 = AtomicU64::new(0);
    static VALUE: AtomicU64 = AtomicU64::new(0);
    static OTHER: AtomicU64 = AtomicU64::new(0);
    let installed = handler::install(rt(20), |notice, scope| {
        scope.store(&FRAME, std::ptr::from_ref(notice).addr() as u64);
        scope.add(
            &VALUE,
            notice.value + u64::from(notice.origin.pid == std::process::id()),
        );
        scope.store(&OTHER, scope.now_ns());
        scope.write_stderr(b"");
    })
    .unwrap();
    let again = handler::install(rt(20), |_, _| {}).unwrap_err();
    assert!(matches!(again, SignalsError::Taken { .. }), "{again}");
    assert!(queue_to_thread(sched::gettid(), rt(20), 5));
    assert_eq!(VALUE.load(Ordering::Acquire), 6);
    assert!(OTHER.load(Ordering::Acquire) > 0);

    let local = 0u8;
    let (guard, stack) = mappings_at(FRAME.load(Ordering::Acquire));
    assert_ne!(
        stack,
        mappings_at(std::ptr::from_ref(&local).addr() as u64).1
    );
    assert!(guard.contains(" ---p "), "below {stack} is {guard}");
    drop(installed);
}

pub fn a_blocking_read_is_restarted() {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    let (begin, begun) = channel();
    let blocked = std::thread::spawn(move || {
        let _installed = handler::install(rt(21), |_, scope| scope.add(&CALLS, 1)).unwrap();
        begin.send(sched::gettid()).unwrap();
        let mut byte = [0];
        (reader.read(&mut byte).map_err(|e| e.kind()), byte)
    });
    let tid = begun.recv().unwrap();
    for calls in 1..=3 {
        until_asleep(tid);
        assert!(queue_to_thread(tid, rt(21), 0));
        while CALLS.load(Ordering::Acquire) < calls {
            std::thread::yield_now();
        }
    }
    writer.write_all(&[9]).unwrap();
    assert_eq!(blocked.join().unwrap(), (Ok(1), [9]));
}

pub fn it_restores_what_it_found() {
    let (first, second) = (rtsignal::bit(rt(22)), rtsignal::bit(rt(23)));
    let both = first | second;
    assert_eq!((mask("SigCgt") & both, mask("SigBlk") & both), (0, both));
    // Blocked by main, so it waits until the handler is there.
    assert!(queue_to_thread(sched::gettid(), rt(22), 4));
    static VALUE: AtomicU64 = AtomicU64::new(0);
    let lower =
        handler::install(rt(22), |notice, scope| scope.store(&VALUE, notice.value)).unwrap();
    assert_eq!(VALUE.load(Ordering::Acquire), 4);
    let upper =
        handler::install(rt(23), |notice, scope| scope.store(&VALUE, notice.value)).unwrap();
    assert_eq!((mask("SigCgt") & both, mask("SigBlk") & both), (both, 0));
    // In the order of installation, so the stack outlives the first.
    drop(lower);
    assert_eq!(
        (mask("SigCgt") & both, mask("SigBlk") & both),
        (second, first)
    );
    assert!(queue_to_thread(sched::gettid(), rt(23), 8));
    assert_eq!(VALUE.load(Ordering::Acquire), 8);
    drop(upper);
    assert_eq!((mask("SigCgt") & both, mask("SigBlk") & both), (0, both));
}

pub fn errno_survives_it() {
    static FAILED: AtomicU64 = AtomicU64::new(0);
    let _installed = handler::install(rt(24), |_, scope| {
        // No such process: sets errno.
        let failed = rtsignal::queue_to_pid(i32::MAX, 0, 0).is_err();
        scope.store(&FAILED, failed.into());
    })
    .unwrap();
    let own = sched::gettid();
    let missing = std::fs::File::open("/nonexistent").unwrap_err();
    assert!(queue_to_thread(own, rt(24), 0));
    assert_eq!(
        std::io::Error::last_os_error().raw_os_error(),
        missing.raw_os_error()
    );
    assert_eq!(FAILED.load(Ordering::Acquire), 1);
}

pub fn its_doorbell_wakes_a_waiter() {
    static BELL: OnceLock<EventFd> = OnceLock::new();
    static RUNG: AtomicU64 = AtomicU64::new(0);
    let own = sched::gettid();
    let _installed = handler::install(rt(25), |_, scope| {
        scope.add(&RUNG, scope.ring(&BELL).into())
    })
    .unwrap();
    assert!(queue_to_thread(own, rt(25), 0));
    assert_eq!(RUNG.load(Ordering::Acquire), 0, "the slot is empty");
    let bell = BELL.get_or_init(|| EventFd::new().unwrap());
    let mut waiter = Waiter::with_capacity(1).unwrap();
    waiter.add(bell, 1, 0, Interest::Readable).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || assert!(queue_to_thread(own, rt(25), 0)));
        assert_eq!(waiter.wait(None).unwrap().len(), 1);
    });
    assert!(bell.take());
}
