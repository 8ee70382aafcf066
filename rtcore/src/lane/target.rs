//! Some ends of a route, chosen together; and who of them counts, where a POSIX process group or
//! session says so.
//!
//! Constraint: asking costs a lane a few loads from `Peer`, never a system call; what the kernel
//! says is read by the control thread, at registration and then every tick (100 ms). So a
//! setpgid(2) or setsid(2) of a registered process is seen within a tick; a registration, a death
//! or a departure at once.

use super::peer::Peer;
use super::policy::GroupMode;
use std::ops::Range;
use std::sync::Arc;

/// Some ends of a route, chosen together.
#[derive(Clone, Debug)]
pub struct Target {
    pub mode: GroupMode,
    /// Index of the first end of the target.
    pub first: usize,
    /// Number of ends, at least 1.
    pub len: usize,
    /// Round-robin position.
    pub cursor: usize,
    /// Who counts at the moment of a message; none = all of them, always.
    pub filter: Option<Membership>,
}

impl Target {
    pub fn ends(&self) -> Range<usize> {
        self.first..self.first + self.len
    }

    /// Copies of a message for so many members. With none there is one, which ends as peer-dead.
    pub fn copies(&self, members: usize) -> u64 {
        match self.mode {
            GroupMode::All => members.max(1) as u64,
            GroupMode::RoundRobin | GroupMode::Any => 1,
        }
    }

    /// Whether what is queued waits for any of its ends. It does not where each gets a copy of its
    /// own, nor where membership is decided when a message arrives.
    pub fn is_one_queue(&self) -> bool {
        self.mode != GroupMode::All && self.filter.is_none()
    }

    /// The end, counted from the first, that is asked first.
    pub fn start(&self) -> usize {
        if self.mode == GroupMode::RoundRobin {
            self.cursor
        } else {
            0
        }
    }

    /// That end, counted from the first, had its turn, also where another one took the message.
    pub fn end_turn(&mut self, end: usize) {
        self.cursor = (end + 1) % self.len;
    }
}

/// Those whose owner is registered, alive and in the same POSIX process group or session as `of`,
/// which has to be registered too (credentials(7)).
#[derive(Clone, Debug)]
pub struct Membership {
    /// What they have in common.
    pub kin: Kin,
    /// The process whose group or session counts.
    pub of: Arc<Peer>,
}

/// What processes may have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kin {
    /// The process group (getpgid(2)).
    ProcessGroup,
    /// The session (getsid(2)).
    Session,
}

impl Membership {
    /// The number that members have now; none when there can be no member.
    #[inline]
    pub fn wanted(&self) -> Option<i32> {
        self.number(&self.of)
    }

    /// Whether the owner of an end is a member; `wanted` is what [`Membership::wanted`] said for
    /// this message.
    #[inline]
    pub fn includes(&self, owner: Option<&Peer>, wanted: Option<i32>) -> bool {
        wanted.is_some() && owner.and_then(|peer| self.number(peer)) == wanted
    }

    /// None for who is not there, and where the kernel did not say: two unknown groups are not the
    /// same group.
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
