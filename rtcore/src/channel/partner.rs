//! The process at the other end of a direct ring.

use crate::sys::pidfd::PidFd;
use crate::wire::Request;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

/// The process at the other end of a direct ring, and the ring's descriptors, which are sent to the
/// next daemon: see [`Request::Carry`].
#[derive(Debug)]
pub(crate) struct Partner {
    pub pidfd: PidFd,
    pub pid: u32,
    /// Identifies the program that it runs.
    pub program: u32,
    /// Its token in the session thread's set.
    pub token: u64,
    /// Memory that the sender writes.
    pub producer: OwnedFd,
    /// Memory that the receiver writes.
    pub consumer: OwnedFd,
    /// Page of the bells.
    pub page: OwnedFd,
}

impl Partner {
    /// The request that announces the ring to the next daemon, for the channel with this number
    /// there.
    pub fn carry(&self, channel: u32) -> (Request, [BorrowedFd<'_>; 3]) {
        let request = Request::Carry {
            channel,
            pid: self.pid,
            program: self.program,
        };
        let descriptors = [&self.producer, &self.consumer, &self.page];
        (request, descriptors.map(|fd| fd.as_fd()))
    }

    /// Whether it still has its end of an earlier ring, where `next` is the partner of the next
    /// ring: it lives and runs the same program. (A process that calls exec(2) loses its session
    /// and keeps its pid.)
    pub fn remains(&self, next: Option<&Partner>) -> bool {
        let replaced =
            next.is_some_and(|next| next.pid == self.pid && next.program != self.program);
        self.pidfd.is_alive() && !replaced
    }
}
