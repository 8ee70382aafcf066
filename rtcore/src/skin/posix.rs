//! The posix skin: Linux system calls as they are.

use super::semaphore::{RawSemaphore, SemaphoreCalls};
use super::{Caps, Doorbell, Mqd, Setup, SignalAddress, Skin};
use crate::sys::mqueue::{self, Queue};
use crate::sys::{Errno, clock, poll, rtsignal, sched, sem, sigqueue};
use std::ffi::CStr;
use std::io;

pub(super) static SKIN: Skin = Skin {
    name: "posix",
    caps: Caps {
        pollable_mq: true,
        reports_signal_overflow: true,
        shared_namespace: true,
        doorbell: Doorbell::Futex,
        process_signals: true,
        passes_origin: true,
        unpromoted_threads: true,
        linux_calls: true,
        linux_threads: true,
        linux_clock: true,
    },
    setup: Setup {
        promote,
        mq_open: |name, access, nonblocking| {
            Queue::open(name, access, nonblocking).map(Queue::into_raw)
        },
        mq_create,
        mq_close: mqueue::close,
        mq_unlink: Queue::unlink,
        mq_attributes: |mqd| Ok(mqueue::attributes(mqd)?),
        mq_sole_writer: |mqd| Ok(mqueue::status(mqd)?.sole_writer_uid()),
        sem_open: |name, create| sem::open(name, create).map(RawSemaphore),
        sem_unlink: sem::unlink,
        watch_runaways: || Ok(()),
    },
    now_ns: clock::monotonic_ns,
    sleep_until: clock::sleep_until,
    yield_now: sched::yield_now,
    mq_receive: mqueue::receive,
    mq_receive_within: mqueue::receive_within,
    mq_send: mqueue::send,
    signal_wait: rtsignal::wait,
    signal_wait_within: rtsignal::wait_within,
    signal_send,
    signal_announce: |to, signo, ticket| rtsignal::announce_to_pidfd(to.pidfd, signo, ticket),
    signal_backlog: sigqueue::read,
    wait_ready: poll::wait,
    sem: SemaphoreCalls {
        // SAFETY: the callers of all four keep their contract: the semaphore is open.
        post: |semaphore| unsafe { sem::post(semaphore.0) },
        // SAFETY: as above.
        try_wait: |semaphore| unsafe { sem::try_wait(semaphore.0) },
        // SAFETY: as above.
        wait_within: |semaphore, timeout_ns| unsafe { sem::wait_within(semaphore.0, timeout_ns) },
        // SAFETY: as above.
        close: |semaphore| unsafe { sem::close(semaphore.0) },
    },
    is_relaxed: None,
    take_runaway: None,
    xddp: None,
};

fn promote(priority: u8) -> io::Result<()> {
    if priority == 0 {
        sched::set_ordinary()
    } else {
        sched::set_fifo(priority)
    }
}

/// Permission bits of a queue that is made through the table; the daemon's own queues have a
/// configured mode.
const MODE: u32 = 0o600;

fn mq_create(name: &CStr, maxmsg: usize, msgsize: usize) -> io::Result<(Mqd, bool)> {
    let (queue, found) = Queue::create(name, maxmsg, msgsize, MODE)?;
    Ok((queue.into_raw(), found.is_some()))
}

fn signal_send(to: SignalAddress, signo: i32, value: u64, pid: u32, uid: u32) -> Result<(), Errno> {
    if to.tid == 0 || to.pidfd_is_thread {
        return rtsignal::queue_to_pidfd(to.pidfd, signo, value, pid, uid);
    }
    // Before Linux 6.9 a thread is addressed by number. The check that its process is alive leaves
    // only a small window in which the numbers may pass to another process.
    rtsignal::probe(to.pidfd)?;
    rtsignal::queue_to_thread(to.pid, to.tid, signo, value, pid, uid)
}
