//! The sending end of a channel: what a [`Sender`](super::Sender) has of it, and what the session thread shares.

use super::barrier::SendBarrier;
use super::error::{Gone, SendError};
use super::reason;
use crate::lane::hand_off::HandOffSlot;
use crate::refusals::{Counter, Refused};
use crate::ring::{Corrupt, Producer, PushError};
use crate::sync::{AtomicU64, Ordering};
use crate::sys::forked::Forked;
use crate::sys::pidfd::Ending;
use crate::wire::{Channel, Name};
use std::sync::Arc;

/// A ring to send into.
#[derive(Debug)]
pub(super) struct TxEnd {
    pub producer: Producer,
    pub barrier: Arc<SendBarrier>,
    /// Why the barrier is shut, when it is.
    pub refusal: Arc<Refusal>,
    pub channel: Channel,
}

impl TxEnd {
    /// Of all announced messages, those below the answer count. `before` is the tail before the last of them were announced.
    /// After `Producer::ring`, whose fence this needs.
    #[inline]
    pub fn admitted(&self, before: u64) -> u64 {
        admitted(&self.barrier, &self.refusal, self.producer.stopped(before), self.producer.tail())
    }
}

/// The same; `stopped` is what [`Producer::stopped`] says.
#[inline]
pub(super) fn admitted(barrier: &SendBarrier, refusal: &Refusal, stopped: Option<u64>, tail: u64) -> u64 {
    match stopped {
        None => barrier.admitted(tail),
        Some(bound) => shut_stopped(barrier, refusal, bound).min(tail),
    }
}

/// rtd ends: the sender shuts its barrier itself, so that the first send that rtd does not take any more is refused, although
/// the session thread has not read yet that the connection has ended.
#[cold]
fn shut_stopped(barrier: &SendBarrier, refusal: &Refusal, bound: u64) -> u64 {
    refusal.set(Why::Down);
    barrier.close(|| bound)
}

impl Drop for TxEnd {
    /// Whoever lets go of it, the consumer learns that nothing more comes.
    fn drop(&mut self) {
        self.producer.close();
    }
}

/// Why a barrier is shut, or there is no ring. Written by the session thread before it shuts the barrier; each ring has its own, so that
/// the next one's says nothing about it.
#[derive(Debug)]
pub(super) struct Refusal {
    pub endpoint: Name,
    /// [`Why::encode`].
    why: AtomicU64,
    /// How the receiver ended: 0 unknown, else 1 << 32 | exit status, 2 << 32 | signal.
    ending: AtomicU64,
    process: Option<Name>,
}

/// What stands in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// No receiver.
    Nobody,
    Down,
    Removed,
    Closed,
    /// The daemon refuses the session; the number of its [`reason`].
    Refused(u32),
}

impl Why {
    /// As an atomic holds it.
    fn encode(self) -> u64 {
        match self {
            Why::Nobody => 0,
            Why::Down => 1,
            Why::Removed => 2,
            Why::Closed => 3,
            Why::Refused(number) => 1 << 32 | u64::from(number),
        }
    }
}

impl Refusal {
    pub fn new(channel: &Channel) -> Refusal {
        Refusal {
            endpoint: channel.endpoint,
            why: AtomicU64::new(Why::Nobody.encode()),
            ending: AtomicU64::new(0),
            process: channel.process,
        }
    }

    pub fn set(&self, why: Why) {
        self.why.store(why.encode(), Ordering::Release);
    }

    /// How the receiver ended; none when it is there, or when that is not known.
    pub fn set_ending(&self, ending: Option<Ending>) {
        let code = match ending {
            None => 0,
            Some(Ending::Exit(status)) => 1 << 32 | u64::from(status.cast_unsigned()),
            Some(Ending::Signal(signo)) => 2 << 32 | u64::from(signo.cast_unsigned()),
        };
        self.ending.store(code, Ordering::Release);
    }

    #[cold]
    pub fn error(&self) -> SendError {
        let endpoint = self.endpoint;
        let gone = |why| SendError::Disconnected { endpoint, why };
        match self.why.load(Ordering::Acquire) {
            code if code >> 32 != 0 => {
                #[expect(clippy::cast_possible_truncation, reason = "the lower half")]
                let number = code as u32;
                gone(Gone::Refused(reason::text(number)))
            }
            1 => gone(Gone::Down),
            2 => gone(Gone::Removed),
            3 => gone(Gone::Closed),
            _ => SendError::PeerDead { endpoint, process: self.process, ending: self.ending() },
        }
    }

    /// Why a forked child cannot send.
    #[cold]
    pub fn forked(&self, forked: Forked) -> SendError {
        SendError::Disconnected { endpoint: self.endpoint, why: forked.into() }
    }

    fn ending(&self) -> Option<Ending> {
        let code = self.ending.load(Ordering::Acquire);
        #[expect(clippy::cast_possible_truncation, reason = "the lower half")]
        let number = (code as u32).cast_signed();
        match code >> 32 {
            1 => Some(Ending::Exit(number)),
            2 => Some(Ending::Signal(number)),
            _ => None,
        }
    }
}

/// What a sender has of a channel.
#[derive(Debug)]
pub(super) struct TxHandle {
    /// Place in the session's table.
    pub index: usize,
    pub ring_slot: HandOffSlot<TxEnd>,
    /// While there is no ring.
    pub refusal: Arc<Refusal>,
    /// Number of the last message.
    pub sequence: u64,
    pub channel: Channel,
    pub corrupt: Option<Corrupt>,
    pub counter: Counter,
}

impl TxHandle {
    /// Takes what the session thread has for it; the old ring is finished first, so that its consumer moves on as soon
    /// as it has drained it. True if there was something.
    #[cold]
    pub fn switch(&mut self) -> bool {
        let mut any = false;
        while self.ring_slot.has_offer() {
            if let Some(old) = self.ring_slot.current() {
                old.producer.close();
            }
            if !self.ring_slot.take() {
                break;
            }
            any = true;
            self.corrupt = None;
            if let Some(out) = self.ring_slot.peek() {
                self.channel = out.channel;
            }
        }
        any
    }

    /// Why there is no ring to send into.
    #[cold]
    pub fn error(&self) -> SendError {
        match (self.corrupt, self.ring_slot.peek()) {
            (Some(corrupt), _) => SendError::Corrupt { endpoint: self.refusal.endpoint, corrupt },
            (None, Some(out)) => out.refusal.error(),
            (None, None) => self.refusal.error(),
        }
    }

    /// Counts a message that was refused before it was in the ring.
    #[cold]
    pub fn count(&self, error: SendError) -> SendError {
        self.counter.count(match error {
            SendError::Full { .. } => Refused::Full,
            SendError::TooLarge { .. } => Refused::TooLarge,
            SendError::PeerDead { .. } => Refused::PeerDead,
            // The memory is the parent's, and so is the endpoint.
            SendError::Disconnected { why: Gone::Forked(_), .. } => return error,
            SendError::Disconnected { .. } => Refused::Away,
            SendError::Corrupt { .. } => Refused::Error,
        });
        error
    }

    /// [`TxHandle::refused`], counted.
    #[cold]
    pub fn refuse(&mut self, error: PushError) -> SendError {
        let error = self.refused(error);
        self.count(error)
    }

    /// What the ring said, in the sender's words. A ring that lies is used no more.
    #[cold]
    pub fn refused(&mut self, error: PushError) -> SendError {
        let endpoint = self.refusal.endpoint;
        match error {
            PushError::Full => SendError::Full { endpoint, slots: self.channel.slots },
            PushError::TooLarge { len, max } => SendError::TooLarge { endpoint, len, max },
            PushError::Corrupt(corrupt) => {
                self.corrupt = Some(corrupt);
                self.ring_slot.give_up();
                SendError::Corrupt { endpoint, corrupt }
            }
        }
    }
}
