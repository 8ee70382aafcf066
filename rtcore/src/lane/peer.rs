//! One registered process as the lanes see it: a fixed slot that the control thread writes and the
//! lane threads read without a lock.
//!
//! The pidfd's *number* never changes while the daemon runs: a new registration is `dup3`ed over it, so
//! a lane thread can use the number at any time and reaches the old incarnation, the new one, or ESRCH,
//! never a stranger that inherited the pid.

use super::credit::Credit;
use crate::sys::sigqueue;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

/// Whether anybody stands behind a process name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum PeerState {
    /// Nobody registered yet: its queues may be used all the same, its signals go nowhere.
    Unregistered = 0,
    /// Registered and alive.
    Alive = 1,
    /// Was registered and died; messages for it end as peer-dead until somebody takes the name over.
    Dead = 2,
}

/// The slot. Writer: the control thread. Readers: lane threads.
#[derive(Debug)]
pub struct Peer {
    state: AtomicU32,
    pid: AtomicI32,
    tid: AtomicI32,
    uid: AtomicU32,
    slot: OwnedFd,
    status: OwnedFd,
    credit: Credit,
    sharers: u32,
}

impl Peer {
    /// An empty slot that reserves its descriptor numbers. `sharers` receivers of signals may be of one user:
    /// each gets such a part of RLIMIT_SIGPENDING.
    pub fn new(sharers: u32) -> io::Result<Peer> {
        Ok(Peer {
            status: std::fs::File::open("/dev/null")?.into(),
            credit: Credit::default(),
            sharers: sharers.max(1),
            state: AtomicU32::new(PeerState::Unregistered as u32),
            pid: AtomicI32::new(0),
            tid: AtomicI32::new(0),
            uid: AtomicU32::new(u32::MAX),
            slot: std::fs::File::open("/dev/null")?.into(),
        })
    }

    /// A process took the name: publish it. Control thread only.
    ///
    /// `tid` is the thread that signals with target `thread` go to.
    pub fn take(&self, pidfd: BorrowedFd<'_>, pid: i32, tid: i32, uid: u32) -> io::Result<()> {
        crate::sys::pidfd::replace(pidfd, &self.slot)?;
        self.renew_credit(pid, tid)?;
        self.pid.store(pid, Ordering::Relaxed);
        self.tid.store(tid, Ordering::Relaxed);
        self.uid.store(uid, Ordering::Relaxed);
        // SYNC POINT with `state`: who sees Alive sees the identity above.
        self.state.store(PeerState::Alive as u32, Ordering::Release);
        Ok(())
    }

    fn renew_credit(&self, pid: i32, tid: i32) -> io::Result<()> {
        // Where /proc hides it (hidepid) the receiver is held back by the kernel's EAGAIN alone.
        let Ok(status) = std::fs::File::open(format!("/proc/{pid}/task/{tid}/status")) else {
            self.credit.reset(u32::MAX);
            return Ok(());
        };
        crate::sys::pidfd::replace(status.as_fd(), &self.status)?;
        let limit = sigqueue::read(self.status.as_fd()).map_or(u32::MAX, |queue| queue.limit);
        self.credit.reset(limit / self.sharers);
        Ok(())
    }

    /// Takes the credit for one real-time signal; false when its share of the queue is in flight.
    #[inline]
    pub fn take_credit(&self, now_ns: fn() -> u64) -> bool {
        self.credit.take() || {
            self.credit.refill(now_ns(), || sigqueue::read(self.status.as_fd()));
            self.credit.take()
        }
    }

    /// The kernel did not take the signal after all.
    pub fn return_credit(&self) {
        self.credit.give_back(1);
    }

    /// Looks whether signals were taken, before the credit runs out. Control thread.
    pub fn refresh_credit(&self, now_ns: u64) {
        if self.credit.is_low() {
            self.credit.refill(now_ns, || sigqueue::read(self.status.as_fd()));
        }
    }

    /// The process died. Control thread only.
    pub fn died(&self) {
        self.state.store(PeerState::Dead as u32, Ordering::Release);
    }

    /// The process gave the name up and lives on. Control thread only.
    pub fn left(&self) {
        self.state.store(PeerState::Unregistered as u32, Ordering::Release);
    }

    /// Current state.
    pub fn state(&self) -> PeerState {
        // SYNC POINT with `take`.
        match self.state.load(Ordering::Acquire) {
            1 => PeerState::Alive,
            2 => PeerState::Dead,
            _ => PeerState::Unregistered,
        }
    }

    /// Process id of the last registration, 0 before the first.
    pub fn pid(&self) -> i32 {
        self.pid.load(Ordering::Relaxed)
    }

    /// Thread id that thread-directed signals go to.
    pub fn tid(&self) -> i32 {
        self.tid.load(Ordering::Relaxed)
    }

    /// Real user id of the last registration.
    pub fn uid(&self) -> u32 {
        self.uid.load(Ordering::Relaxed)
    }

    /// The pidfd's number, constant for the life of the daemon.
    pub fn pidfd(&self) -> RawFd {
        self.slot.as_raw_fd()
    }
}
