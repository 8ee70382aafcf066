//! The memory that clients write and lane threads read, until it is sealed.
//!
//! A process that may write memory may also take its pages away (fallocate(2), madvise(2) MADV_REMOVE), and a lane thread
//! that reads there then faults. The seal that denies it also denies new mappings for writing, so it comes after the
//! client has mapped its ends: [`SEAL_AFTER_NS`] after it got them. An honest client needs milliseconds; one that is held
//! up for longer cannot map them, and connects again.
//!
//! The end of the process brings the seal forward, that of the session does not: its client may have frames to read still, and in the rings that
//! come with them messages that count as delivered. Invariant: a process has one session here at most, so reopening
//! sessions in a loop keeps no descriptors.

use super::Seat;
use crate::plan::ProcessId;
use rtcore::sys::memfd::Memory;
use rtcore::sys::pidfd::PidFd;
use std::io;
use std::sync::Arc;

/// How long a client has to map its ends.
const SEAL_AFTER_NS: u64 = 5_000_000_000;

#[derive(Debug)]
struct Session {
    process: ProcessId,
    seal_at_ns: u64,
    pidfd: Arc<PidFd>,
    is_over: bool,
    written: Vec<Memory>,
}

/// Of all sessions.
#[derive(Debug, Default)]
pub(super) struct Unsealed(Vec<Session>);

impl Unsealed {
    /// A session got its ends. The one before it has been read or dropped by its client.
    pub fn add(&mut self, process: ProcessId, seat: &Seat, written: Vec<Memory>, now_ns: u64) {
        for earlier in self.0.extract_if(.., |session| session.process == process) {
            // A client that has sealed it against rtd has left it.
            let _ = earlier.seal();
        }
        let (seal_at_ns, pidfd) = (now_ns.saturating_add(SEAL_AFTER_NS), Arc::clone(&seat.pidfd));
        self.0.push(Session { process, seal_at_ns, pidfd, is_over: false, written });
    }

    /// The session is over.
    pub fn close(&mut self, process: ProcessId) {
        for session in self.0.iter_mut().filter(|session| session.process == process) {
            session.is_over = true;
        }
    }

    /// Seals what is due; returns the sessions whose client prevents it, and how.
    pub fn tick(&mut self, now_ns: u64) -> Vec<(ProcessId, io::Error)> {
        let due = self.0.extract_if(.., |session| now_ns >= session.seal_at_ns || !session.pidfd.is_alive());
        let failed = |session: Session| {
            session.seal().err().map(|e| (session.process, e)).filter(|_| !session.is_over)
        };
        due.filter_map(failed).collect()
    }
}

impl Session {
    fn seal(&self) -> io::Result<()> {
        // All of them, whatever became of the others.
        self.written.iter().map(Memory::deny_writers).fold(Ok(()), io::Result::and)
    }
}
