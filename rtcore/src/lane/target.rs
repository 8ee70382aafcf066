//! Targets: ends of a route that are chosen together, with the filter by POSIX process group or
//! session.
//!
//! Constraint: the filter costs a lane a few loads from `Peer`, never a system call. The control
//! thread reads the kernel's values at registration and then every tick (100 ms). A setpgid(2) or
//! setsid(2) of a registered process is therefore seen within a tick; a registration, a death or a
//! departure at once.

use super::peer::Peer;
use super::policy::GroupMode;
use std::ops::Range;
use std::sync::Arc;

/// Ends of a route that are chosen together.
#[derive(Clone, Debug)]
pub struct Target {
    pub mode: GroupMode,
    /// Index of the first end of the target.
    pub first: usize,
    /// Number of ends, at least 1.
    pub len: usize,
    /// Round-robin position.
    pub cursor: usize,
    /// The filter that selects members for each message; none: all ends, always.
    pub filter: Option<Membership>,
}

impl Target {
    pub fn ends(&self) -> Range<usize> {
        self.first..self.first + self.len
    }

    /// Number of copies of a message for this many members. Without members there is one copy,
    /// which ends as peer-dead.
    pub fn copies(&self, members: usize) -> u64 {
        match self.mode {
            GroupMode::All => members.max(1) as u64,
            GroupMode::RoundRobin | GroupMode::Any => 1,
        }
    }

    /// Whether a queued message waits for any of its ends. It does not if each end gets a copy of
    /// its own, or if membership is decided when a message arrives.
    pub fn is_one_queue(&self) -> bool {
        self.mode != GroupMode::All && self.filter.is_none()
    }

    /// The end to try first, counted from the first.
    pub fn start(&self) -> usize {
        if self.mode == GroupMode::RoundRobin {
            self.cursor
        } else {
            0
        }
    }

    /// Records that this end, counted from the first, had its turn, even if another one took the
    /// message.
    pub fn end_turn(&mut self, end: usize) {
        self.cursor = (end + 1) % self.len;
    }
}

/// A filter: members are ends whose owner is registered, alive and in the same POSIX process group
/// or session as `of`, which must be registered too (credentials(7)).
#[derive(Clone, Debug)]
pub struct Membership {
    /// The relation that is compared.
    pub kin: Kin,
    /// The process whose group or session is used.
    pub of: Arc<Peer>,
}

/// Relations of processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kin {
    /// The process group (getpgid(2)).
    ProcessGroup,
    /// The session (getsid(2)).
    Session,
}

impl Membership {
    /// The number that members have now; none if there can be no member.
    #[inline]
    pub fn wanted(&self) -> Option<i32> {
        self.number(&self.of)
    }

    /// Whether the owner of an end is a member; `wanted` is the result of [`Membership::wanted`]
    /// for this message.
    #[inline]
    pub fn includes(&self, owner: Option<&Peer>, wanted: Option<i32>) -> bool {
        wanted.is_some() && owner.and_then(|peer| self.number(peer)) == wanted
    }

    /// None for a process that is not registered, and if the kernel gave no number: two unknown
    /// groups are not the same group.
    fn number(&self, peer: &Peer) -> Option<i32> {
        if !peer.lives() {
            return None;
        }
        let number = match self.kin {
            Kin::ProcessGroup => peer.pgid(),
            Kin::Session => peer.sid(),
        };
        (number > 0).then_some(number)
    }
}

#[cfg(test)]
#[path = "target_tests.rs"]
mod tests;
