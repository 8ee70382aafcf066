//! The real-time calls as one table. Everything on the real-time path goes through it.
//!
//! Required of a skin: each call below with the semantics of the man page named, errors as a
//! positive errno in [`crate::sys::Errno`], no allocation, no lock that is not priority-inheriting.
//! Each difference between skins is a capability in [`Caps`]; no code checks the skin's name. The
//! calls of [`Setup`] may allocate and block; they are made before the seal, or by threads other
//! than a lane's.
//!
//! Invariant: every time that a lane compares comes from its skin's clock, [`Skin::now_ns`], even
//! if the control thread wrote it.

pub mod cobalt;
mod posix;
pub mod semaphore;
pub mod xddp;

use crate::sys::Call;
use crate::sys::mqueue::{Access, Attributes};
use crate::sys::poll::Interest;
use crate::sys::rtsignal::{Received, SignalSet};
use crate::sys::sigqueue::SignalQueue;
use semaphore::{RawSemaphore, SemaphoreCalls};
use std::ffi::CStr;
use std::io;
use std::os::fd::{BorrowedFd, RawFd};

pub use semaphore::Semaphore;

/// Descriptor of an open message queue, as the skin's calls take it.
pub type Mqd = RawFd;

/// Length and priority of a message.
pub type Length = (usize, u32);

/// The capabilities of a skin beyond the calls themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// A thread can wait for a queue descriptor together with others.
    pub pollable_mq: bool,
    /// A signal that cannot be queued is an error for its sender, not a silent loss.
    pub reports_signal_overflow: bool,
    /// Queues and signals are shared with all other Linux programs.
    pub shared_namespace: bool,
    /// The object that wakes a thread which sleeps at a ring.
    pub doorbell: Doorbell,
    /// A signal can be sent to a process as a whole; otherwise it is sent to one thread.
    pub process_signals: bool,
    /// A signal that is passed on carries the given origin; otherwise the origin is the sending
    /// thread.
    pub passes_origin: bool,
    /// A thread without its priority can make the calls too.
    pub unpromoted_threads: bool,
    /// The calls are Linux system calls, so a filter of those restricts a thread to its list.
    pub linux_calls: bool,
    /// Linux schedules its threads: Linux's figures of their CPU time and state are correct, and
    /// its limits and scheduler calls apply to them.
    pub linux_threads: bool,
    /// Its clock is CLOCK_MONOTONIC as every Linux program reads it, so the age of stamps from
    /// other programs can be computed.
    pub linux_clock: bool,
}

/// The object at which a thread sleeps that waits for a ring in shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doorbell {
    /// A futex or an eventfd, which every Linux program can ring.
    Futex,
    /// A [`Semaphore`] of the skin's own: programs on that skin only.
    Semaphore,
}

/// The address of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignalAddress {
    /// Descriptor of the process, or of the thread if the kernel has such descriptors; immune to
    /// pid reuse.
    pub pidfd: RawFd,
    /// Pid of the process.
    pub pid: i32,
    /// The thread, if a thread is addressed instead of the process; otherwise 0.
    pub tid: i32,
    /// `pidfd` is the thread's own.
    pub pidfd_is_thread: bool,
}

#[derive(Clone, Copy, Debug)]
pub struct Skin {
    /// Name, as shown by the tools.
    pub name: &'static str,
    pub caps: Caps,
    /// The calls that are made before the seal.
    pub setup: Setup,
    /// Monotonic time in nanoseconds.
    pub now_ns: fn() -> u64,
    /// Sleeps until this time (clock_nanosleep(2), absolute); interruptions resume.
    pub sleep_until: fn(u64),
    /// Lets other threads of the same priority run (sched_yield(2)).
    pub yield_now: fn(),
    /// Takes a message: length and priority. Blocks or not as the descriptor was opened.
    pub mq_receive: fn(Mqd, &mut [u8]) -> Call<Length>,
    /// The same for at most this many nanoseconds, then ETIMEDOUT.
    pub mq_receive_within: fn(Mqd, &mut [u8], u64) -> Call<Length>,
    /// Adds a message with a priority.
    pub mq_send: fn(Mqd, &[u8], u32) -> Call<()>,
    /// Waits for a signal of the set.
    pub signal_wait: fn(&SignalSet) -> Call<Received>,
    /// The same for at most this many nanoseconds, then EAGAIN; 0 takes a pending signal.
    pub signal_wait_within: fn(&SignalSet, u64) -> Call<Received>,
    /// Queues a signal: address, number, value, origin's pid and uid.
    pub signal_send: fn(SignalAddress, i32, u64, u32, u32) -> Call<()>,
    /// Queues a signal to the process that announces a message in its ring: address, number,
    /// ticket.
    pub signal_announce: fn(SignalAddress, i32, u64) -> Call<()>,
    /// How many signals are queued where the receiver's signals are, and the limit; read from its
    /// open /proc/PID/status if the kernel counts them there. None if nobody knows.
    pub signal_backlog: fn(BorrowedFd<'_>) -> Option<SignalQueue>,
    /// Waits for readiness with a time limit in nanoseconds; only sleeps if there is nothing to
    /// wait for. Queues only with `pollable_mq`.
    pub wait_ready: fn(&mut [Interest], u64) -> Call<usize>,
    /// The calls on an open semaphore, for [`Semaphore`].
    pub sem: SemaphoreCalls,
    /// Whether the calling thread has lost its real-time mode; none if there is only one mode.
    pub is_relaxed: Option<fn() -> bool>,
    /// Kernel id of a thread that the skin's own watchdog has reported, once for each report; none
    /// without such a watchdog. Call [`Setup::watch_runaways`] first.
    pub take_runaway: Option<fn() -> Option<i32>>,
    /// Datagrams to and from plain Linux programs; none if the skin or its library does not support
    /// them.
    pub xddp: Option<xddp::Xddp>,
}

/// Calls for threads that are not real-time yet. Errors name the object.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Makes the calling thread a real-time thread of this SCHED_FIFO priority, or one of the
    /// skin's without priority: 0.
    pub promote: fn(u8) -> io::Result<()>,
    /// Opens an existing queue (mq_open(3)): name, which half, non-blocking.
    pub mq_open: fn(&CStr, Access, bool) -> io::Result<Mqd>,
    /// Creates a queue (messages, bytes of the largest), or adopts an existing one: true.
    pub mq_create: fn(&CStr, usize, usize) -> io::Result<(Mqd, bool)>,
    /// Closes a descriptor (mq_close(3)).
    pub mq_close: fn(Mqd),
    /// Removes a name (mq_unlink(3)).
    pub mq_unlink: fn(&CStr) -> io::Result<()>,
    /// Size and fill of a queue.
    pub mq_attributes: fn(Mqd) -> io::Result<Attributes>,
    /// The only user other than root whose programs may send to the queue; none if there are more,
    /// or if this is not known.
    pub mq_sole_writer: fn(Mqd) -> io::Result<Option<u32>>,
    /// Opens a semaphore by its name (sem_open(3)), or creates one with value zero that must not
    /// exist yet: true.
    pub sem_open: fn(&CStr, bool) -> io::Result<RawSemaphore>,
    /// Removes the name of one (sem_unlink(3)).
    pub sem_unlink: fn(&CStr) -> io::Result<()>,
    /// Takes over the signal by which the skin's own watchdog would end the process. Does nothing
    /// without such a watchdog. For a program that uses [`Skin::take_runaway`]; others keep the
    /// skin's default.
    pub watch_runaways: fn() -> io::Result<()>,
}

/// An open queue of a skin; closed when dropped.
#[derive(Debug)]
pub struct OpenQueue {
    mqd: Mqd,
    skin: &'static Skin,
}

impl OpenQueue {
    /// Opens an existing queue.
    pub fn open(
        skin: &'static Skin,
        name: &CStr,
        access: Access,
        nonblocking: bool,
    ) -> io::Result<OpenQueue> {
        let mqd = (skin.setup.mq_open)(name, access, nonblocking)?;
        Ok(OpenQueue { mqd, skin })
    }

    /// Creates a queue, or adopts the one with that name if its messages have that size: true.
    pub fn create(
        skin: &'static Skin,
        name: &CStr,
        maxmsg: usize,
        msgsize: usize,
    ) -> io::Result<(OpenQueue, bool)> {
        let (mqd, adopted) = (skin.setup.mq_create)(name, maxmsg, msgsize)?;
        Ok((OpenQueue { mqd, skin }, adopted))
    }

    /// The descriptor for the skin's calls.
    #[inline]
    pub fn mqd(&self) -> Mqd {
        self.mqd
    }

    /// Size and fill.
    pub fn attributes(&self) -> io::Result<Attributes> {
        (self.skin.setup.mq_attributes)(self.mqd)
    }

    /// See [`Setup::mq_sole_writer`].
    pub fn sole_writer_uid(&self) -> io::Result<Option<u32>> {
        (self.skin.setup.mq_sole_writer)(self.mqd)
    }
}

impl Drop for OpenQueue {
    fn drop(&mut self) {
        (self.skin.setup.mq_close)(self.mqd);
    }
}

/// Plain POSIX: always available.
pub fn posix() -> &'static Skin {
    &posix::SKIN
}
