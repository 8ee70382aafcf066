//! Sending: one [`Sender`] for each own endpoint.

mod turns;

pub use turns::Attempt;

use super::core::Core;
use super::error::FlushError;
use super::message::ReplyTo;
use crate::channel::SendError;
use crate::channel::{OpenTx, TxEnd, TxHandle, TxShared, count_refused};
use crate::message::{Meta, Origin};
use crate::refusals::{Counter, Refused};
use crate::ring::{self, Envelope, Kind, PushError};
use crate::sys::clock::monotonic_ns;
use crate::sys::forked::Creator;
use crate::wire::Channel;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Sends messages from one endpoint, along the routes of the configuration.
///
/// The configuration decides whether a route goes through the daemon or directly to the receiver;
/// the code is the same. Each endpoint has one sender
/// ([`Session::sender`](super::Session::sender)), which may move between threads. No call allocates
/// or locks. If the receiver is awake, a call makes no system call; if it sleeps, the call makes
/// one to wake it.
///
/// A message that was not sent (an error) is still the caller's. It is counted: `rtctl stats` shows
/// the refusals of each endpoint by reason ([`Refused`]), and the ledger of a direct route has them
/// too.
///
/// A message that was sent (`Ok`) survives the end or a restart of the daemon: messages that the
/// old daemon had not taken are moved into the ring of the next one, in order and before newer
/// ones. They are lost if this process ends before that, so a program that is about to end calls
/// [`Sender::flush`] first.
#[derive(Debug)]
pub struct Sender {
    core: Arc<Core>,
    /// Goes back into the session's table when the sender is dropped.
    handle: ManuallyDrop<TxHandle>,
}

/// The result of [`Sender::send_batch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Number of messages that were sent, from the first one on.
    pub sent: usize,
    /// Sequence number of the last one; 0 if none was sent.
    pub sequence: u64,
    /// Why the next one was not sent.
    pub error: Option<SendError>,
}

/// The fields that are written beside the bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stamp {
    pub intended_ns: Option<u64>,
    pub correlation: u64,
}

fn envelope(epoch: u32, sequence: u64, now_ns: u64, stamp: Stamp) -> Envelope {
    let Stamp {
        intended_ns,
        correlation,
    } = stamp;
    let intended_ns = intended_ns.unwrap_or(now_ns);
    let meta = Meta {
        sequence,
        intended_ns,
        sent_ns: now_ns,
        correlation,
        epoch,
    };
    // The origin in a slot is never used, because the sender could write any value: the channel
    // determines it.
    Envelope {
        meta,
        origin: Origin::UNKNOWN,
        kind: Kind::Bytes { priority: 0 },
        len: 0,
    }
}

impl Sender {
    pub(super) fn new(core: Arc<Core>, handle: TxHandle) -> Sender {
        Sender {
            core,
            handle: ManuallyDrop::new(handle),
        }
    }

    /// Sends if there is room, never waits. Returns the message's number, which counts up from 1.
    ///
    /// Errors: [`SendError`]; the message was not sent. If the receiver's side goes away in the
    /// same instant, a message that is refused as disconnected may still arrive; the next one has
    /// another number in any case.
    #[inline]
    pub fn try_send(&mut self, bytes: &[u8]) -> Result<u64, SendError> {
        self.put_counted(bytes, Stamp::default())
    }

    /// Sends, and waits for room for as long as the route's `overflow = "block:TIME"` allows;
    /// without that policy it is the same as [`Sender::try_send`].
    pub fn send(&mut self, bytes: &[u8]) -> Result<u64, SendError> {
        self.put_waiting(bytes, Stamp::default(), u64::MAX)
    }

    /// As [`Sender::send`], for a message that should have been sent at `intended_ns`
    /// (CLOCK_MONOTONIC): latency is measured from that time, so that a late cycle shows.
    pub fn send_at(&mut self, intended_ns: u64, bytes: &[u8]) -> Result<u64, SendError> {
        self.put_waiting(
            bytes,
            Stamp {
                intended_ns: Some(intended_ns),
                correlation: 0,
            },
            u64::MAX,
        )
    }

    /// As [`Sender::send`], for the bytes of a value ([`Message::value`](super::Message::value) on
    /// the other side).
    pub fn send_value<T: IntoBytes + Immutable + ?Sized>(
        &mut self,
        value: &T,
    ) -> Result<u64, SendError> {
        self.send(value.as_bytes())
    }

    /// Replies to a request; see [`Head::reply_to`](super::Head::reply_to).
    pub fn reply(&mut self, to: ReplyTo, bytes: &[u8]) -> Result<u64, SendError> {
        self.put_waiting(
            bytes,
            Stamp {
                intended_ns: None,
                correlation: to.correlation,
            },
            u64::MAX,
        )
    }

    /// Sends several messages with one read of the clock and one ring of the doorbell: a sleeping
    /// receiver is woken after the last one. Never waits; the first message that is refused ends
    /// the batch.
    pub fn send_batch<'m>(&mut self, messages: impl IntoIterator<Item = &'m [u8]>) -> Batch {
        let epoch = self.core.epoch;
        let OpenTx {
            end,
            sequence,
            counter,
        } = match self.ready() {
            Ok(open) => open,
            Err(error) => {
                if messages.into_iter().next().is_some() {
                    self.handle.count(error);
                }
                return Batch {
                    sent: 0,
                    sequence: 0,
                    error: Some(error),
                };
            }
        };
        let (first, before, now_ns) = (end.producer.tail(), *sequence, monotonic_ns());
        let mut failed = None;
        for bytes in messages {
            let envelope = envelope(epoch, *sequence + 1, now_ns, Stamp::default());
            if let Err(error) = end.producer.push_quietly(&envelope, bytes) {
                failed = Some(error);
                break;
            }
            *sequence += 1;
        }
        end.producer.ring();
        let tail = end.producer.tail();
        let sent = end.admitted(first).saturating_sub(first);
        let cut = tail - (first + sent);
        (0..cut).for_each(|_| counter.count(Refused::Cut));
        let cut = (cut > 0).then(|| end.shared.error());
        let failed = failed.map(|error| self.handle.refuse(error));
        let sequence = if sent == 0 { 0 } else { before + sent };
        Batch {
            sent: usize::try_from(sent).unwrap_or(usize::MAX),
            sequence,
            error: cut.or(failed),
        }
    }

    /// Lends a slot of the ring to write `len` bytes into, without a copy. The slot still contains
    /// bytes of an earlier message. Nothing is sent until [`Loan::commit`].
    pub fn loan(&mut self, len: usize) -> Result<Loan<'_>, SendError> {
        let (epoch, creator) = (self.core.epoch, self.core.creator);
        if let Some(error) = match self.ready() {
            Ok(open) => check(open.end, len).err(),
            Err(error) => return Err(self.handle.count(error)),
        } {
            return Err(self.handle.refuse(error));
        }
        let TxHandle {
            ring_slot,
            none,
            sequence,
            counter,
            ..
        } = &mut *self.handle;
        // The check above has found the ring open. [`Loan::commit`] checks again, and counts.
        let Some(TxEnd {
            producer,
            shared,
            channel,
        }) = ring_slot.current()
        else {
            return Err(none.error());
        };
        let full = SendError::Full {
            endpoint: shared.endpoint,
            slots: channel.slots,
        };
        let slot = producer.loan(len).map_err(|_| full)?;
        Ok(Loan {
            slot,
            shared,
            sequence,
            counter,
            epoch,
            creator,
        })
    }

    /// Number of sent messages that wait in the ring because rtd, or the receiver of a direct
    /// route, has not taken them. 0 in a forked child.
    ///
    /// While rtd is down, they exist in this process only, and are lost if it ends. Not counted:
    /// messages in an earlier ring of a direct route, whose receiver goes on reading it.
    pub fn pending(&mut self) -> u64 {
        let _ = self.ready();
        let is_own = self.core.check().is_ok();
        self.handle
            .ring_slot
            .current()
            .filter(|_| is_own)
            .map_or(0, |out| {
                let tail = out.producer.tail();
                let refused = tail.saturating_sub(out.shared.barrier.admitted(tail));
                out.producer.pending().saturating_sub(refused)
            })
    }

    /// Waits until no message is [`pending`](Sender::pending), at most until `deadline_ns` of
    /// CLOCK_MONOTONIC. Afterwards every sent message is delivered or counted as lost, even if this
    /// process ends. For a program that sends and then ends.
    ///
    /// While rtd is down, it waits for the next one. Errors: the number of messages that are
    /// pending at the deadline; it returns at once if waiting does not help.
    pub fn flush(&mut self, deadline_ns: u64) -> Result<(), FlushError> {
        while !self.look_for_flushed(deadline_ns)? {}
        Ok(())
    }

    /// Name of its endpoint.
    pub fn endpoint(&self) -> &str {
        self.handle.none.endpoint.as_str()
    }

    /// The daemon's description of the channel: lane, slots, bytes of a slot, how long a send may
    /// wait.
    pub fn channel(&self) -> &Channel {
        &self.handle.channel
    }

    /// Waits until a receiver can get messages, at most until `deadline_ns` of CLOCK_MONOTONIC. On
    /// a direct route the receiver has then opened its session and the two ends are joined; on a
    /// routed one the daemon runs and a receiver is registered.
    ///
    /// For the start of a program. Errors: the error of a send at the deadline; it returns at once
    /// if waiting does not help.
    pub fn wait_for_receiver(&mut self, deadline_ns: u64) -> Result<(), SendError> {
        while !self.look_for_receiver(deadline_ns)? {}
        Ok(())
    }

    /// Takes the ring that the session thread offers; returns the ring to send into, or why there
    /// is none.
    #[inline]
    fn ready(&mut self) -> Result<OpenTx<'_>, SendError> {
        let handle = &mut *self.handle;
        if let Err(forked) = self.core.check() {
            return Err(handle.none.forked(forked));
        }
        if handle.ring_slot.has_offer() && handle.switch() {
            self.core.nudge();
        }
        handle.open()
    }

    /// Sends if there is room. A refusal is not counted yet, because the caller may try again; a
    /// refusal after the announcement of the message is counted.
    #[inline]
    fn put(&mut self, bytes: &[u8], stamp: Stamp) -> Result<u64, NotSent> {
        let epoch = self.core.epoch;
        let OpenTx {
            end,
            sequence: last,
            counter,
        } = self.ready()?;
        let sequence = *last + 1;
        if let Err(error) = end
            .producer
            .push(&envelope(epoch, sequence, monotonic_ns(), stamp), bytes)
        {
            return Err(self.handle.refused(error).into());
        }
        // The number advances even if the message turns out to be refused: the old daemon may still
        // have taken it, and the next message must not look like its duplicate.
        *last = sequence;
        let tail = end.producer.tail();
        if end.admitted(tail.wrapping_sub(1)) < tail {
            counter.count(Refused::Cut);
            return Err(NotSent::Counted(end.shared.error()));
        }
        Ok(sequence)
    }

    #[inline]
    fn put_counted(&mut self, bytes: &[u8], stamp: Stamp) -> Result<u64, SendError> {
        self.put(bytes, stamp)
            .map_err(|not_sent| self.count(not_sent))
    }

    #[cold]
    fn count(&self, not_sent: NotSent) -> SendError {
        match not_sent {
            NotSent::Counted(error) => error,
            NotSent::Refused(error) => self.handle.count(error),
        }
    }

    fn put_waiting(
        &mut self,
        bytes: &[u8],
        stamp: Stamp,
        deadline_ns: u64,
    ) -> Result<u64, SendError> {
        let mut attempt = Attempt::stamped(stamp, deadline_ns);
        loop {
            if let Some(sequence) = self.attempt(&mut attempt, bytes)? {
                return Ok(sequence);
            }
            self.sleep_for_room(&attempt)?;
        }
    }
}

/// Why a message was not sent, and whether the refusal is counted already.
enum NotSent {
    Refused(SendError),
    Counted(SendError),
}

impl From<SendError> for NotSent {
    fn from(error: SendError) -> NotSent {
        NotSent::Refused(error)
    }
}

impl Drop for Sender {
    /// Returns the end to the table: the endpoint can be claimed again, and its numbers continue.
    fn drop(&mut self) {
        // SAFETY: `self` is being dropped: nobody uses the handle after this.
        let handle = unsafe { ManuallyDrop::take(&mut self.handle) };
        if self.core.check().is_err() {
            // Its parent has the endpoint and the ring; the table's lock may be held by a thread
            // that only the parent has.
            return;
        }
        let mut table = self.core.table();
        // A closed session has no use for the end: its ring ends here, and the consumer is
        // notified.
        if !self.core.is_closed()
            && let Some(slot) = table.senders.get_mut(handle.index)
        {
            (slot.handle, slot.holder) = (Some(handle), None);
        }
    }
}

fn check(out: &mut TxEnd, len: usize) -> Result<(), PushError> {
    let max = out.producer.geometry().payload_bytes();
    if u32::try_from(len).map_or(true, |len| len > max) {
        return Err(PushError::TooLarge { len, max });
    }
    if out.producer.has_room()? {
        Ok(())
    } else {
        Err(PushError::Full)
    }
}

/// A slot that is being written in place: dereferences to its bytes, which begin on a cache line.
/// If it is dropped without [`Loan::commit`], nothing is sent. In a forked child it is empty and
/// cannot be sent.
#[derive(Debug)]
pub struct Loan<'a> {
    slot: ring::Loan<'a>,
    shared: &'a TxShared,
    sequence: &'a mut u64,
    counter: &'a Counter,
    epoch: u32,
    creator: Creator,
}

impl Loan<'_> {
    /// Sends the message; returns its number.
    pub fn commit(self) -> Result<u64, SendError> {
        self.finish(Stamp::default())
    }

    /// Sends it as one that should have been sent at `intended_ns`; see [`Sender::send_at`].
    pub fn commit_at(self, intended_ns: u64) -> Result<u64, SendError> {
        self.finish(Stamp {
            intended_ns: Some(intended_ns),
            correlation: 0,
        })
    }

    /// Sends it as the answer to a request; see [`Sender::reply`].
    pub fn commit_reply(self, to: ReplyTo) -> Result<u64, SendError> {
        self.finish(Stamp {
            intended_ns: None,
            correlation: to.correlation,
        })
    }

    /// Keeps the first `len` bytes, as [`Vec::truncate`] does: for a message whose length is known
    /// only after it was written.
    pub fn truncate(&mut self, len: usize) {
        self.slot.truncate(len);
    }

    /// The bytes as a value; none when they are not as many as a `T` has.
    pub fn value_mut<T: FromBytes + IntoBytes + KnownLayout>(&mut self) -> Option<&mut T> {
        T::mut_from_bytes(self).ok()
    }

    fn finish(self, stamp: Stamp) -> Result<u64, SendError> {
        let Loan {
            slot,
            shared,
            sequence,
            counter,
            epoch,
            creator,
        } = self;
        creator.check().map_err(|forked| shared.forked(forked))?;
        // As before a send: what is refused here does not arrive.
        if !shared.barrier.is_open() {
            return Err(count_refused(counter, shared.error()));
        }
        *sequence += 1;
        let tail = slot.tail() + 1;
        let stopped = slot.commit(&envelope(epoch, *sequence, monotonic_ns(), stamp));
        if shared.admitted(stopped, tail) < tail {
            counter.count(Refused::Cut);
            return Err(shared.error());
        }
        Ok(*sequence)
    }
}

impl Deref for Loan<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.slot
    }
}

impl DerefMut for Loan<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.slot
    }
}
