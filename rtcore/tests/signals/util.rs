//! Sending to ourselves, and a look at what the kernel knows of us.

use rtcore::sys::{rtsignal, sched, signame};

/// A real-time signal; each test has its own.
pub fn rt(offset: i32) -> i32 {
    let signo = signame::rt_min() + offset;
    assert!(signo <= signame::rt_max());
    signo
}

/// SIGUSR1: a standard signal.
pub fn usr1() -> i32 {
    signame::parse("SIGUSR1").unwrap()
}

/// Queues a signal to this process.
pub fn queue(signo: i32, value: u64) {
    rtsignal::queue_to_pid(sched::getpid(), signo, value).unwrap();
}

/// Queues a signal to one thread of this process.
pub fn queue_to_thread(tid: i32, signo: i32, value: u64) -> bool {
    rtsignal::queue_to_thread(sched::getpid(), tid, signo, value, std::process::id(), 0).is_ok()
}

/// A mask of /proc/thread-self/status.
pub fn mask(key: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(":\t"))
        .unwrap();
    u64::from_str_radix(line, 16).unwrap()
}

/// Waits until the thread sleeps in the kernel. There is no event for that, so it looks again and
/// again.
pub fn until_asleep(tid: i32) {
    let state = || std::fs::read_to_string(format!("/proc/self/task/{tid}/stat")).unwrap();
    while !state().rsplit_once(") ").unwrap().1.starts_with('S') {
        std::thread::yield_now();
    }
}
