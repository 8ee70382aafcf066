//! The sending end of a channel, as a [`Sender`](crate::client::Sender) holds it, and the state
//! that it shares with the session thread.

use super::barrier::SendBarrier;
use super::error::{Gone, SendError};
use super::hand_off::HandOffSlot;
use super::reason;
use crate::refusals::{Counter, Refused};
use crate::ring::{Corrupt, Producer, PushError};
use crate::sync::{AtomicU64, Ordering};
use crate::sys::forked::Forked;
use crate::sys::pidfd::Ending;
use crate::wire::{Channel, Name};
use std::sync::Arc;

/// A ring to send into, with its sender's state.
#[derive(Debug)]
pub(crate) struct TxEnd {
    pub producer: Producer,
    pub shared: Arc<TxShared>,
    pub channel: Channel,
}

impl TxEnd {
    /// Of all announced messages, those below the returned index count. `before` is the tail before
    /// the last messages were announced. Call it after `Producer::ring`, whose fence it needs.
    #[inline]
    pub fn admitted(&self, before: u64) -> u64 {
        self.shared
            .admitted(self.producer.stopped(before), self.producer.tail())
    }
}

impl Drop for TxEnd {
    /// On every path that drops the end, the consumer learns that no more messages come.
    fn drop(&mut self) {
        self.producer.close();
    }
}

/// The state of one ring that the sender and the session thread share: its barrier, and the reason
/// for its closing. Each ring has its own state, so that the reason of one does not apply to the
/// next. A state without a ring stands for a channel that has none.
///
/// Constraint: the session thread writes the reason before it closes the barrier, and a sender
/// reads it after it has seen the barrier closed.
#[derive(Debug)]
pub(crate) struct TxShared {
    pub barrier: SendBarrier,
    pub endpoint: Name,
    /// The reason, encoded by [`CloseReason::encode`].
    why: AtomicU64,
    /// How the receiver ended: 0 unknown, else 1 << 32 | exit status, 2 << 32 | signal.
    ending: AtomicU64,
    process: Option<Name>,
}

/// Why a channel takes no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CloseReason {
    NoReceiver,
    Down,
    Removed,
    Closed,
    /// The daemon refuses the session; the number is that of the text in [`reason`].
    Refused(u32),
}

impl CloseReason {
    /// Encodes the reason for an atomic.
    fn encode(self) -> u64 {
        match self {
            CloseReason::NoReceiver => 0,
            CloseReason::Down => 1,
            CloseReason::Removed => 2,
            CloseReason::Closed => 3,
            CloseReason::Refused(number) => 1 << 32 | u64::from(number),
        }
    }
}

impl TxShared {
    /// The state of a new ring, whose barrier is open.
    pub fn new(channel: &Channel) -> TxShared {
        TxShared {
            barrier: SendBarrier::new(),
            endpoint: channel.endpoint,
            why: AtomicU64::new(CloseReason::NoReceiver.encode()),
            ending: AtomicU64::new(0),
            process: channel.process,
        }
    }

    /// Of all messages announced up to `tail`, those below the returned index count; `stopped` is
    /// the value of [`Producer::stopped`].
    #[inline]
    pub fn admitted(&self, stopped: Option<u64>, tail: u64) -> u64 {
        match stopped {
            None => self.barrier.admitted(tail),
            Some(bound) => self.close_stopped(bound).min(tail),
        }
    }

    /// rtd stops: the sender closes its barrier itself. The first message that rtd no longer takes
    /// is then refused, even if the session thread has not yet noticed the end of the connection.
    #[cold]
    fn close_stopped(&self, bound: u64) -> u64 {
        self.set(CloseReason::Down);
        self.barrier.close(|| bound)
    }

    pub fn set(&self, why: CloseReason) {
        self.why.store(why.encode(), Ordering::Release);
    }

    /// Records how the receiver ended; none if it lives, or if this is not known.
    pub fn set_ending(&self, ending: Option<Ending>) {
        let code = match ending {
            None => 0,
            Some(Ending::Exit(status)) => 1 << 32 | u64::from(status.cast_unsigned()),
            Some(Ending::Signal(signo)) => 2 << 32 | u64::from(signo.cast_unsigned()),
        };
        self.ending.store(code, Ordering::Release);
    }

    /// The reason as the sender's error.
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
            _ => SendError::PeerDead {
                endpoint,
                process: self.process,
                ending: self.ending(),
            },
        }
    }

    /// The error of a send in a forked child.
    #[cold]
    pub fn forked(&self, forked: Forked) -> SendError {
        SendError::Disconnected {
            endpoint: self.endpoint,
            why: forked.into(),
        }
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

/// Counts a message that was refused before it was in the ring.
#[cold]
pub(crate) fn count_refused(counter: &Counter, error: SendError) -> SendError {
    counter.count(match error {
        SendError::Full { .. } => Refused::Full,
        SendError::TooLarge { .. } => Refused::TooLarge,
        SendError::PeerDead { .. } => Refused::PeerDead,
        // The memory and the endpoint belong to the parent.
        SendError::Disconnected {
            why: Gone::Forked(_),
            ..
        } => return error,
        SendError::Disconnected { .. } => Refused::Away,
        SendError::Corrupt { .. } => Refused::Error,
    });
    error
}

/// The end of a channel that a sender holds.
#[derive(Debug)]
pub(crate) struct TxHandle {
    /// Index in the session's table.
    pub index: usize,
    pub ring_slot: HandOffSlot<TxEnd>,
    /// The shared state while there is no ring.
    pub none: Arc<TxShared>,
    /// Number of the last message.
    pub sequence: u64,
    pub channel: Channel,
    pub corrupt: Option<Corrupt>,
    pub counter: Counter,
}

/// The ring of a [`TxHandle`] that takes messages.
#[derive(Debug)]
pub(crate) struct OpenTx<'a> {
    pub end: &'a mut TxEnd,
    /// Number of the last message.
    pub sequence: &'a mut u64,
    pub counter: &'a Counter,
}

impl TxHandle {
    /// Takes the rings that the session thread offers. The old ring is finished first, so that its
    /// consumer goes on to the next one as soon as it has emptied it. True if there was an offer.
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

    /// The ring to send into, or why there is none: this is the only place that decides it before a
    /// send. [`TxEnd::admitted`] decides about a message that was announced while the barrier was
    /// closed; its error comes from the same [`TxShared`].
    #[inline]
    pub fn open(&mut self) -> Result<OpenTx<'_>, SendError> {
        let TxHandle {
            ring_slot,
            none,
            sequence,
            corrupt,
            counter,
            ..
        } = self;
        match (ring_slot.current(), corrupt) {
            (Some(end), _) if end.shared.barrier.is_open() => Ok(OpenTx {
                end,
                sequence,
                counter,
            }),
            (Some(end), _) => Err(end.shared.error()),
            (None, Some(corrupt)) => Err(SendError::Corrupt {
                endpoint: none.endpoint,
                corrupt: *corrupt,
            }),
            (None, None) => Err(none.error()),
        }
    }

    /// Counts a message that was refused before it was in the ring.
    #[cold]
    pub fn count(&self, error: SendError) -> SendError {
        count_refused(&self.counter, error)
    }

    /// [`TxHandle::refused`], counted.
    #[cold]
    pub fn refuse(&mut self, error: PushError) -> SendError {
        let error = self.refused(error);
        self.count(error)
    }

    /// Converts the ring's error into the sender's. A ring whose receiver broke the protocol is not
    /// used any more.
    #[cold]
    pub fn refused(&mut self, error: PushError) -> SendError {
        let endpoint = self.none.endpoint;
        match error {
            PushError::Full => SendError::Full {
                endpoint,
                slots: self.channel.slots,
            },
            PushError::TooLarge { len, max } => SendError::TooLarge { endpoint, len, max },
            PushError::Corrupt(corrupt) => {
                self.corrupt = Some(corrupt);
                self.ring_slot.give_up();
                SendError::Corrupt { endpoint, corrupt }
            }
        }
    }
}
