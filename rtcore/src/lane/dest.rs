//! A route's end: the sink, the process behind it, and the queue in front of it.

use super::credit::Credit;
use super::peer::{Peer, PeerState};
use super::spill::Spill;
use crate::message::{Message, SIGNAL_VALUE_BYTES, SignalRecord};
use crate::skin::Skin;
use crate::sys::Errno;
use crate::sys::mqueue::Queue;
use crate::sys::poll::Interest;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use zerocopy::FromZeros;

/// The daemon's sending half of an endpoint.
#[derive(Debug)]
pub enum Sink {
    /// A message queue, opened non-blocking.
    Mqueue {
        /// Open for sending.
        queue: Queue,
        /// Its msgsize.
        bytes_max: usize,
    },
    /// A signal to the owner.
    Signal {
        /// Kernel number.
        signo: i32,
        /// To the registered thread, not the process.
        to_thread: bool,
        /// Longer payloads lose what is past the value (asked for in the configuration).
        truncate: bool,
        /// Shared with every route to the endpoint; none for standard signals, which coalesce and never fill
        /// the queue.
        credit: Option<Arc<Credit>>,
    },
}

/// Why a sink did not take a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No room now; later there may be.
    Full,
    /// Nobody is there.
    PeerDead,
    /// Never fits.
    TooLarge,
    /// The kernel says no.
    Failed(Errno),
}

/// The sink with its owner and its queue.
#[derive(Debug)]
pub struct Dest {
    /// Where to.
    pub sink: Sink,
    /// Who owns it; none = anybody who opens the queue.
    pub peer: Option<Arc<Peer>>,
    /// What waits for room.
    pub spill: Spill,
    /// The errno told last, so that a failing sink tells it once.
    pub told: Option<Errno>,
    /// The overflow was told since the receiver was last drained.
    pub told_overflow: bool,
}

impl Dest {
    /// A new end with an empty queue.
    pub fn new(sink: Sink, peer: Option<Arc<Peer>>, spill: Spill) -> Dest {
        Dest { sink, peer, spill, told: None, told_overflow: false }
    }

    /// Whether nobody is there to receive: a dead owner, or a signal whose owner never registered.
    pub fn is_dead(&self) -> bool {
        match (&self.peer, &self.sink) {
            (Some(peer), Sink::Mqueue { .. }) => peer.state() == PeerState::Dead,
            (Some(peer), Sink::Signal { .. }) => peer.state() != PeerState::Alive,
            (None, Sink::Mqueue { .. }) => false,
            (None, Sink::Signal { .. }) => true,
        }
    }

    /// Hands the message to the receiver's kernel queue, now or not at all.
    #[inline]
    pub fn send(&self, skin: &Skin, message: &Message<'_>, mq_priority: Option<u32>) -> Result<(), Refusal> {
        if self.is_dead() {
            return Err(Refusal::PeerDead);
        }
        match &self.sink {
            Sink::Mqueue { queue, bytes_max } => {
                let mut record = SignalRecord::new_zeroed();
                let bytes = message.for_queue(&mut record);
                if bytes.len() > *bytes_max {
                    return Err(Refusal::TooLarge);
                }
                let priority = mq_priority.unwrap_or(message.priority);
                (skin.mq_send)(queue.as_raw_fd(), bytes, priority).map_err(Refusal::from)
            }
            Sink::Signal { signo, to_thread, truncate, credit } => {
                if message.len() > SIGNAL_VALUE_BYTES && !truncate {
                    return Err(Refusal::TooLarge);
                }
                let Some(peer) = &self.peer else { return Err(Refusal::PeerDead) };
                if credit.as_ref().is_some_and(|c| !peer.take_credit(c, skin.now_ns)) {
                    return Err(Refusal::Full);
                }
                let (origin, value) = (message.origin, message.for_signal());
                let sent =
                    (skin.signal_send)(peer.address(*to_thread), *signo, value, origin.pid, origin.uid);
                if let (Err(_), Some(credit)) = (sent, credit) {
                    credit.give_back(1);
                }
                sent.map_err(Refusal::from)
            }
        }
    }

    /// What announces room for the message. None for signals, which no descriptor announces; for a dead
    /// receiver, whose queue may have room for ever; and for a message that never fits: waiting for those
    /// would be a busy loop.
    pub fn room(&self, message: &Message<'_>) -> Option<Interest> {
        match &self.sink {
            Sink::Mqueue { queue, bytes_max } if message.queue_len() <= *bytes_max && !self.is_dead() => {
                Some(Interest::writable(queue.as_raw_fd()))
            }
            _ => None,
        }
    }
}

impl From<Errno> for Refusal {
    fn from(e: Errno) -> Refusal {
        match e {
            Errno::AGAIN => Refusal::Full,
            // EBADF: the pidfd slot is still its placeholder.
            Errno::SRCH | Errno::BADF => Refusal::PeerDead,
            Errno::MSGSIZE => Refusal::TooLarge,
            other => Refusal::Failed(other),
        }
    }
}
