//! Why a channel takes no message, as the error of a real-time call: it is `Copy` and never touches
//! the heap.

#![warn(missing_docs)]

use crate::ring::Corrupt;
use crate::sys::forked::Forked;
use crate::sys::pidfd::Ending;
use crate::wire::Name;
use std::fmt;
use thiserror::Error;

/// Why a session cannot send through the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// The daemon is down; the session reconnects by itself.
    Down,
    /// The daemon runs and refuses the session for this reason; the session keeps trying.
    Refused(&'static str),
    /// The [`Session`](crate::client::Session) was dropped.
    Closed,
    /// The daemon came back with a configuration that has no route from the endpoint.
    Removed,
    /// This process is the child of a fork(2) of the one with this pid, which opened the session.
    Forked(u32),
}

impl From<Forked> for Gone {
    fn from(forked: Forked) -> Gone {
        Gone::Forked(forked.creator)
    }
}

/// The text for a forked child that uses its parent's session.
pub(crate) struct ForkedText(pub u32);

impl fmt::Display for ForkedText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "this process was forked from process {}, which opened the session: open a session in this process",
            self.0
        )
    }
}

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Gone::Refused(reason) => return write!(f, "rtd refuses the session: {reason}"),
            Gone::Forked(creator) => return ForkedText(*creator).fmt(f),
            Gone::Down => "rtd is away; the session connects again by itself, wait for Event::Up",
            Gone::Closed => "the session was dropped: keep it for as long as its senders",
            Gone::Removed => "the new configuration has no [[route]] from it",
        })
    }
}

/// Why a message was not sent. The receiver sees no part of it.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum SendError {
    /// Every slot holds a message that the receiver has not taken.
    #[error(
        "`{endpoint}` is full: {slots} messages wait; receive faster, or raise maxmsg of the [[endpoint]]"
    )]
    Full {
        /// Endpoint that the message was sent from.
        endpoint: Name,
        /// Number of slots of its ring.
        slots: u32,
    },
    /// The message is longer than a slot.
    #[error(
        "`{endpoint}` takes {max} bytes, this message has {len}: raise msgsize of the [[endpoint]]"
    )]
    TooLarge {
        /// Endpoint that the message was sent from.
        endpoint: Name,
        /// Bytes of the message.
        len: usize,
        /// Bytes of a slot.
        max: u32,
    },
    /// There is no receiver.
    #[error("nobody receives from `{endpoint}`: {}", PeerText(process, ending))]
    PeerDead {
        /// Endpoint that the message was sent from.
        endpoint: Name,
        /// The receiver, if the channel has exactly one.
        process: Option<Name>,
        /// How it ended, if it did and this is known.
        ending: Option<Ending>,
    },
    /// The route is not available, now or for good.
    #[error("`{endpoint}` is disconnected: {why}")]
    Disconnected {
        /// Endpoint that the message was sent from.
        endpoint: Name,
        /// The state of the connection or the route.
        why: Gone,
    },
    /// The receiver broke the protocol; the ring is not used any more.
    #[error(
        "the receiver of `{endpoint}` broke its ring: {corrupt}; it is cut off until it connects again"
    )]
    Corrupt {
        /// Endpoint that the message was sent from.
        endpoint: Name,
        /// How the receiver broke the protocol of the ring.
        corrupt: Corrupt,
    },
}

/// Describes the state of the receiver and the fix.
pub(crate) struct PeerText<'a>(pub &'a Option<Name>, pub &'a Option<Ending>);

impl fmt::Display for PeerText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0, self.1) {
            (Some(process), Some(ending)) => {
                write!(f, "process `{process}` ended ({ending}); start it again")
            }
            (Some(process), None) => write!(f, "process `{process}` is not connected; start it"),
            (None, _) => f.write_str("no receiver of its routes is connected; start one"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_names_object_value_limit_and_fix() {
        let endpoint = Name::new("arm.cmd").unwrap();
        let process = Some(Name::new("drive").unwrap());
        let ending = Some(Ending::Signal(9));
        for (error, parts) in [
            (
                SendError::Full { endpoint, slots: 8 },
                ["arm.cmd", "8", "maxmsg"],
            ),
            (
                SendError::TooLarge {
                    endpoint,
                    len: 90,
                    max: 64,
                },
                ["64", "90", "msgsize"],
            ),
            (
                SendError::PeerDead {
                    endpoint,
                    process,
                    ending,
                },
                ["drive", "SIGKILL", "start"],
            ),
            (
                SendError::Disconnected {
                    endpoint,
                    why: Gone::Down,
                },
                ["arm.cmd", "away", "Event::Up"],
            ),
        ] {
            let text = error.to_string();
            assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        }
        assert!(size_of::<SendError>() <= 128);
    }
}
