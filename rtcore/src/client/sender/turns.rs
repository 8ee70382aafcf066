//! A send, and the waits of a sender, in single turns.
//!
//! [`Sender::send`] and the like go on sleeping when a signal handler has run. A program whose
//! handlers are to end a wait, such as an interpreter that handles signals between two steps of its
//! own, takes the turns of the wait itself: it looks, sleeps once, does what it has to do, and looks
//! again. A sleep also ends at a signal (EINTR), if its handler was installed without SA_RESTART.

use super::{NotSent, Sender, Stamp};
use crate::channel::{Gone, SendError};
use crate::client::error::FlushError;
use crate::client::message::ReplyTo;
use crate::sys::clock::monotonic_ns;

/// One message on its way through [`Sender::attempt`]: its stamp, and how long it may still wait
/// for room.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    pub(in crate::client) stamp: Stamp,
    pub(in crate::client) deadline_ns: u64,
    /// End of the wait; known after the first refusal.
    until_ns: Option<u64>,
}

impl Attempt {
    /// As [`Sender::send`] does it.
    pub fn new() -> Attempt {
        Attempt::stamped(Stamp::default(), u64::MAX)
    }

    /// As [`Sender::send_at`] does it.
    pub fn at(intended_ns: u64) -> Attempt {
        let stamp = Stamp {
            intended_ns: Some(intended_ns),
            correlation: 0,
        };
        Attempt::stamped(stamp, u64::MAX)
    }

    /// As [`Sender::reply`] does it.
    pub fn reply(to: ReplyTo) -> Attempt {
        let stamp = Stamp {
            intended_ns: None,
            correlation: to.correlation,
        };
        Attempt::stamped(stamp, u64::MAX)
    }

    #[inline]
    pub(in crate::client) fn stamped(stamp: Stamp, deadline_ns: u64) -> Attempt {
        Attempt {
            stamp,
            deadline_ns,
            until_ns: None,
        }
    }
}

impl Default for Attempt {
    fn default() -> Attempt {
        Attempt::new()
    }
}

impl Sender {
    /// Sends if there is room; the message's number. None if the ring is full and the route's
    /// `overflow = "block:TIME"` lets this message wait: [`Sender::sleep_for_room`] follows, and
    /// then the next turn of the same attempt.
    ///
    /// Errors: as [`Sender::send`]. An attempt that is given up after none was neither sent nor
    /// refused, and is not counted.
    #[inline]
    pub fn attempt(
        &mut self,
        attempt: &mut Attempt,
        bytes: &[u8],
    ) -> Result<Option<u64>, SendError> {
        let full = match self.put(bytes, attempt.stamp) {
            Ok(sequence) => return Ok(Some(sequence)),
            Err(NotSent::Refused(full @ SendError::Full { .. })) => full,
            Err(other) => return Err(self.count(other)),
        };
        let now_ns = monotonic_ns();
        let until_ns = *attempt.until_ns.get_or_insert_with(|| {
            now_ns
                .saturating_add(self.handle.channel.block_ns)
                .min(attempt.deadline_ns)
        });
        if now_ns >= until_ns {
            return Err(self.handle.count(full));
        }
        Ok(None)
    }

    /// Sleeps once until there may be room for this attempt. Returns for a signal and for no
    /// reason, too.
    ///
    /// Errors: [`SendError::Corrupt`].
    pub fn sleep_for_room(&mut self, attempt: &Attempt) -> Result<(), SendError> {
        let left_ns = attempt
            .until_ns
            .map_or(0, |until_ns| until_ns.saturating_sub(monotonic_ns()));
        let handle = &mut *self.handle;
        if let Some(out) = handle.ring_slot.current()
            && let Err(corrupt) = out.producer.wait_for_room(left_ns)
        {
            return Err(handle.refuse(corrupt.into()));
        }
        Ok(())
    }

    /// One turn of [`Sender::wait_for_receiver`]: whether somebody can receive. If nobody can, it
    /// has slept once, at most until `deadline_ns`; it returns for a signal and for no reason, too.
    ///
    /// Errors: as there.
    pub fn look_for_receiver(&mut self, deadline_ns: u64) -> Result<bool, SendError> {
        let seen = self.handle.ring_slot.current_and_offers().1.parked_at();
        let error = match self.ready() {
            Ok(_) => return Ok(true),
            Err(error) => error,
        };
        let waiting_helps = match error {
            SendError::PeerDead { .. } => true,
            SendError::Disconnected { why, .. } => matches!(why, Gone::Down | Gone::Refused(_)),
            _ => false,
        };
        let left_ns = deadline_ns.saturating_sub(monotonic_ns());
        if !waiting_helps || left_ns == 0 {
            return Err(error);
        }
        // Whatever ends the sleep, the next turn looks.
        let _ = self
            .handle
            .ring_slot
            .current_and_offers()
            .1
            .park(seen, left_ns);
        Ok(false)
    }

    /// One turn of [`Sender::flush`]: whether no message is pending. If one is, it has slept once,
    /// at most until `deadline_ns`; it returns for a signal and for no reason, too.
    ///
    /// Errors: as there.
    pub fn look_for_flushed(&mut self, deadline_ns: u64) -> Result<bool, FlushError> {
        let seen = self.handle.ring_slot.current_and_offers().1.parked_at();
        let why = self.ready().err();
        let messages = self.pending();
        let failed = FlushError { messages, why };
        if let Some(SendError::Disconnected {
            why: Gone::Forked(_),
            ..
        }) = why
        {
            return Err(failed);
        }
        if messages == 0 {
            return Ok(true);
        }
        let left_ns = deadline_ns.saturating_sub(monotonic_ns());
        // A closed session reports no loss, and offers no other ring.
        if left_ns == 0 || self.core.is_closed() {
            return Err(failed);
        }
        let (out, offers) = self.handle.ring_slot.current_and_offers();
        match out {
            // The next ring comes with an offer.
            Some(out) if out.shared.barrier.is_closed() => {
                let _ = offers.park(seen, left_ns);
            }
            Some(out) => _ = out.producer.wait_for_fewer(messages, left_ns),
            None => return Err(failed),
        }
        Ok(false)
    }
}
