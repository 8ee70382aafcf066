//! A signal endpoint whose payloads are longer than a signal's value: they go into a ring of the
//! owner's session, and one signal announces them.
//!
//! Invariant: a sleeping receiver is signalled for messages in its ring, or the signal is owed and
//! tried again.

use super::ring::Sink as RingSink;
use super::sink::{Refusal, SinkOps};
use crate::channel::hand_off::HandOffSlot;
use crate::lane::waits::Waits;
use crate::message::Message;
use crate::ring::Producer;
use crate::sys::Errno;

/// The rings, and the state of the signal that announces their messages.
#[derive(Debug)]
pub struct SignalRing {
    ring: RingSink,
    /// Result of the last signal: one that found no room is owed.
    last: Result<(), Refusal>,
}

impl SignalRing {
    /// Makes the rings, with slots of `bytes_max`. The control thread offers their ends.
    pub fn new(ring_slot: HandOffSlot<Producer>, bytes_max: usize) -> SignalRing {
        SignalRing {
            ring: RingSink::new(ring_slot, bytes_max),
            last: Ok(()),
        }
    }

    /// Puts the message into the ring; true if the receiver waits for a signal. `None` if there is
    /// no ring.
    #[inline]
    pub(super) fn push(
        &mut self,
        message: &Message<'_>,
        signo: i32,
    ) -> Option<Result<bool, Refusal>> {
        self.renew();
        self.ring.push(message, Some(signo))
    }

    /// Takes the newest ring. The receiver of the old one is gone and is owed no signal any more.
    #[inline]
    pub(super) fn renew(&mut self) {
        if self.ring.take_newest() {
            self.forgive();
        }
    }

    /// The number of the last message in the ring, which is the value of the signal that announces
    /// it.
    pub(super) fn ticket(&mut self) -> u64 {
        self.ring.tail()
    }

    /// Records the result of the signal that the receiver waits for.
    pub(super) fn announced(&mut self, result: Result<(), Refusal>) {
        if result.is_err() {
            self.ring.unring();
        }
        self.last = result;
    }

    /// No signal is owed any more.
    pub(super) fn forgive(&mut self) {
        self.last = Ok(());
    }

    /// Whether the receiver still waits for the signal that is owed to it.
    pub(super) fn rings_again(&mut self) -> bool {
        self.renew();
        self.owes_signal() && self.ring.ring_again()
    }

    #[inline]
    pub(super) fn owes_signal(&self) -> bool {
        self.last == Err(Refusal::Full)
    }

    /// Why the kernel finally refused the last signal.
    #[inline]
    pub(super) fn error(&self) -> Option<Errno> {
        match self.last {
            Err(Refusal::Failed(errno)) => Some(errno),
            _ => None,
        }
    }

    pub(super) fn await_room(&mut self, message: &Message<'_>, waits: &mut Waits) -> bool {
        self.ring.await_room(message, waits)
    }

    pub(super) fn generation(&self) -> u64 {
        self.ring.generation()
    }
}
