//! Events: changes of the session and of other processes, which an inbox returns beside messages.

use crate::ring::Corrupt;
use crate::sys::pidfd::Ending;
use crate::wire::Name;

/// A change of the session or of a process that it exchanges messages with. Every inbox of the
/// session gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A process that this one exchanges messages with has ended or released its name.
    PeerLost {
        /// Name of the process.
        process: Name,
        /// Its pid.
        pid: u32,
        /// How it ended; none if it only left, or if this is not known.
        ending: Option<Ending>,
    },
    /// A process that this one exchanges messages with has registered, for the first time or again.
    PeerBack {
        /// Name of the process.
        process: Name,
        /// Its pid.
        pid: u32,
    },
    /// The daemon is down. Routed sends are refused until [`Event::Up`]; direct ones go on.
    Down,
    /// The daemon runs and refuses the session. The event comes once for each reason, until
    /// [`Event::Up`]. Sends through the daemon fail with the same reason
    /// ([`Gone::Refused`](super::Gone::Refused)); the session keeps trying.
    Refused {
        /// The refusal, with the limit and the fix.
        reason: &'static str,
    },
    /// The daemon is back. Messages that the old one had not taken are sent to it again.
    Up,
    /// Accepted messages were lost: their receiver ended with them in its direct ring, or the new
    /// daemon has no room or no route for them.
    Lost {
        /// The endpoint that they were sent from.
        endpoint: Name,
        /// Number of the messages.
        count: u64,
    },
    /// A sender broke its ring and is cut off until it connects again. Only the inbox that found
    /// the violation gets the event.
    Corrupt {
        /// The endpoint that it sent to.
        endpoint: Name,
        /// The endpoint that it sent from.
        other: Name,
        /// How the other end broke the protocol of the ring.
        corrupt: Corrupt,
    },
}

/// Limit of the events that an inbox holds. Further events are counted and discarded.
pub(super) const EVENTS_MAX: usize = 256;
