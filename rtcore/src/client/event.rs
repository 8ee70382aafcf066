//! What an inbox tells beside messages.

use crate::ring::Corrupt;
use crate::sys::pidfd::Ending;
use crate::wire::Name;

/// Something happened to the session, or to somebody it talks to. Every inbox of the session gets
/// it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A process that this one talks to ended or gave its name back.
    PeerLost {
        /// Who.
        process: Name,
        /// Its pid.
        pid: u32,
        /// How it ended; none when it only left, or when nobody could tell.
        ending: Option<Ending>,
    },
    /// A process that this one talks to is there, for the first time or again.
    PeerBack {
        /// Who.
        process: Name,
        /// Its pid.
        pid: u32,
    },
    /// The daemon is away. Routed sends are refused until [`Event::Up`]; direct ones go on.
    Down,
    /// The daemon is there and refuses the session: once for each reason, until [`Event::Up`].
    /// Sends through the daemon fail with the same reason
    /// ([`Gone::Refused`](super::Gone::Refused)); the session goes on asking.
    Refused {
        /// What is refused, for which limit, and what to change.
        reason: &'static str,
    },
    /// The daemon is back, and with it what it had not taken.
    Up,
    /// Messages that had been accepted reach nobody: their receiver ended with them in its direct
    /// ring, or the daemon came back with no room, or no way, for them.
    Lost {
        /// Into which endpoint they were sent.
        endpoint: Name,
        /// How many.
        count: u64,
    },
    /// A sender broke its ring and is cut off until it connects again. Only the inbox that found it
    /// is told.
    Corrupt {
        /// To which endpoint it sent.
        endpoint: Name,
        /// From which.
        other: Name,
        /// How the other end broke the protocol of the ring.
        corrupt: Corrupt,
    },
}

/// Events that an inbox holds for a reader that does not read; more are counted and gone.
pub(super) const EVENTS_MAX: usize = 256;
