//! The memory that clients write and lane threads read, until it is sealed.
//!
//! A process that may write memory may also take its pages away (fallocate(2), madvise(2) MADV_REMOVE), and a lane thread
//! that reads there then faults. The seal that denies it also denies new mappings for writing, so it comes after the
//! client has mapped its ends: [`SEAL_AFTER_NS`] after it got them. An honest client needs milliseconds; one that is held
//! up for longer cannot map them, and connects again.

use crate::plan::ProcessId;
use rtcore::sys::memfd::Memory;
use std::io;

/// How long a client has to map its ends.
const SEAL_AFTER_NS: u64 = 5_000_000_000;

#[derive(Debug)]
struct Session {
    process: ProcessId,
    seal_at_ns: u64,
    written: Vec<Memory>,
}

/// Of all sessions.
#[derive(Debug, Default)]
pub(super) struct Unsealed(Vec<Session>);

impl Unsealed {
    /// A session got its ends.
    pub fn add(&mut self, process: ProcessId, written: Vec<Memory>, now_ns: u64) {
        self.0.push(Session { process, seal_at_ns: now_ns.saturating_add(SEAL_AFTER_NS), written });
    }

    /// The session is over: nobody has to map anything any more. Lane threads may still read what is left.
    pub fn close(&mut self, process: ProcessId) {
        for session in self.0.extract_if(.., |session| session.process == process) {
            // One that has sealed it against us is gone.
            let _ = session.seal();
        }
    }

    /// Seals what is due; the sessions that have kept us from it, and how.
    pub fn tick(&mut self, now_ns: u64) -> Vec<(ProcessId, io::Error)> {
        let due = self.0.extract_if(.., |session| now_ns >= session.seal_at_ns);
        due.filter_map(|session| session.seal().err().map(|e| (session.process, e))).collect()
    }
}

impl Session {
    fn seal(&self) -> io::Result<()> {
        // All of them, whatever became of the others.
        self.written.iter().map(Memory::deny_writers).fold(Ok(()), io::Result::and)
    }
}
