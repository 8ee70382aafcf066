//! Counters of the control socket.

use std::fmt;

/// Counters of the control socket since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ControlCounters {
    pub accepted: u64,
    /// Connections that were closed in favour of newer ones.
    pub evicted: u64,
    /// Connections closed because they sent nothing for [`super::IDLE_MAX`].
    pub idle: u64,
    /// Connections closed because they did not read their replies.
    pub unread: u64,
    /// Frames of the wrong size, version or content; each ended its connection.
    pub bad_frames: u64,
    /// Well-formed requests that were refused.
    pub refused: u64,
    /// Names taken, for a session or without.
    pub registrations: u64,
    pub sessions: u64,
    /// Sessions closed because their process broke the protocol in shared memory.
    pub violations: u64,
    /// Registered processes that ended.
    pub deaths: u64,
    /// Times that a new connection had to wait because descriptors or memory were short.
    pub shortages: u64,
    /// Turns of the loop.
    pub turns: u64,
}

impl fmt::Display for ControlCounters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "accepted {} evicted {} idle {} unread {} bad_frames {} refused {} registrations {} deaths {} \
             shortages {} sessions {} violations {}",
            self.accepted,
            self.evicted,
            self.idle,
            self.unread,
            self.bad_frames,
            self.refused,
            self.registrations,
            self.deaths,
            self.shortages,
            self.sessions,
            self.violations
        )
    }
}
