//! One registered process as the lanes see it: a fixed slot that the control thread writes and the
//! lane threads read without a lock.
//!
//! The pidfd's *number* never changes while the daemon runs: a new registration is `dup3`ed over it, so
//! a lane thread can use the number at any time and reaches the old incarnation, the new one, or ESRCH,
//! never a stranger that inherited the pid.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
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
}

impl Peer {
    /// An empty slot that reserves a descriptor number.
    pub fn new() -> io::Result<Peer> {
        Ok(Peer {
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
        self.pid.store(pid, Ordering::Relaxed);
        self.tid.store(tid, Ordering::Relaxed);
        self.uid.store(uid, Ordering::Relaxed);
        // SYNC POINT with `state`: who sees Alive sees the identity above.
        self.state.store(PeerState::Alive as u32, Ordering::Release);
        Ok(())
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
