//! The sending end.

use super::Corrupt;
use super::bell::{self, Bells, Doorbell};
use super::layout::{Envelope, Geometry, STOPPED, complete, copy_in, in_progress};
use super::memory::View;
use crate::sync::{Ordering, fence, full_fence};
use crate::sys::eventfd::EventFd;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use thiserror::Error;

/// Why a message did not get into the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PushError {
    /// Every slot holds a message that the consumer has not taken.
    #[error("the ring is full")]
    Full,
    /// The message is longer than a slot.
    #[error("{len} bytes, a slot has {max}")]
    TooLarge {
        /// Bytes of the message.
        len: usize,
        /// Bytes of a slot.
        max: u32,
    },
    /// The consumer broke the protocol.
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
}

/// The sending end. One thread at a time.
#[derive(Debug)]
pub struct Producer {
    view: View,
    eventfd: Option<EventFd>,
    /// Messages announced; the word in shared memory is a copy of it.
    tail: u64,
    /// The consumer's head as last read: it only grows.
    head: u64,
    /// The flag for which the bell was rung last.
    rung: u64,
    /// The bell at which it sleeps, and the number of its sleeps.
    bell: u32,
    turn: u64,
    displaces: bool,
}

impl Producer {
    /// Starts at the beginning of a ring, or where another producer stopped. Sleeps at `bell`.
    pub(super) fn new(view: View, eventfd: Option<EventFd>, bell: u32) -> Producer {
        let tail = view.producer().tail.load(Ordering::Relaxed);
        let head = view.consumer().head.load(Ordering::Acquire);
        // An allegation; an impossible value is detected when the ring checks for room.
        let head = if tail.wrapping_sub(head) <= u64::from(view.geometry.slots()) {
            head
        } else {
            tail
        };
        // The consumer may have rung for the last turn of the earlier producer.
        let turn = bell::turn(view.producer().sleep.load(Ordering::Relaxed));
        view.producer()
            .sleep
            .store(bell::awake(turn), Ordering::Relaxed);
        let eventfd = eventfd.filter(|_| !view.bells.are_semaphores());
        Producer {
            view,
            eventfd,
            tail,
            head,
            rung: 0,
            bell,
            turn,
            displaces: false,
        }
    }

    /// Overwrites the oldest messages if the ring is full, for a consumer that takes them as
    /// [`Consumer::keeping`](super::Consumer::keeping) describes.
    #[must_use]
    pub fn displacing(mut self) -> Producer {
        self.displaces = true;
        self
    }

    /// Whether both pieces of the ring are locked in memory, so that using it never faults.
    pub fn is_locked(&self) -> bool {
        self.view.locked
    }

    pub(super) fn view(&self) -> &View {
        &self.view
    }

    /// Size of the ring.
    pub fn geometry(&self) -> Geometry {
        self.view.geometry
    }

    /// Messages put in so far.
    pub fn tail(&self) -> u64 {
        self.tail
    }

    /// Puts a message into the ring and wakes the consumer if it sleeps; true if it waits for a
    /// signal, which the caller must send. `len` of the envelope is set here.
    #[inline]
    pub fn push(&mut self, envelope: &Envelope, payload: &[u8]) -> Result<bool, PushError> {
        self.push_quietly(envelope, payload)?;
        Ok(self.ring())
    }

    /// Puts a message into the ring without waking the consumer: [`Producer::ring`] must follow
    /// after the last of a burst.
    #[inline]
    pub fn push_quietly(&mut self, envelope: &Envelope, payload: &[u8]) -> Result<(), PushError> {
        let len = self.check(payload.len())?;
        self.room()?;
        let slot = self.view.slot(self.tail);
        self.begin();
        copy_in(slot.payload(), payload);
        slot.write(&Envelope { len, ..*envelope });
        crate::fault_point!("after_reserve_before_publish");
        self.announce();
        Ok(())
    }

    /// Lends a slot to write `len` bytes in place; it still contains bytes of an earlier message.
    pub fn loan(&mut self, len: usize) -> Result<Loan<'_>, PushError> {
        let checked = self.check(len)?;
        self.room()?;
        self.begin();
        Ok(Loan {
            producer: self,
            len: checked,
        })
    }

    /// Whether there is room for one more message.
    pub fn has_room(&mut self) -> Result<bool, Corrupt> {
        match self.room() {
            Ok(()) => Ok(true),
            Err(PushError::Corrupt(corrupt)) => Err(corrupt),
            Err(_) => Ok(false),
        }
    }

    fn check(&self, len: usize) -> Result<u32, PushError> {
        let max = self.view.geometry.payload_bytes();
        u32::try_from(len)
            .ok()
            .filter(|len| *len <= max)
            .ok_or(PushError::TooLarge { len, max })
    }

    /// Reads the consumer's head only if the ring seems full by the value that was read before.
    #[inline]
    fn room(&mut self) -> Result<(), PushError> {
        let slots = u64::from(self.view.geometry.slots());
        if self.displaces || self.tail.wrapping_sub(self.head) < slots {
            return Ok(());
        }
        // SYNC POINT with `Consumer::release`: messages below the head have been read.
        let head = self.view.consumer().head.load(Ordering::Acquire);
        let (tail, used) = (self.tail, self.tail.wrapping_sub(head));
        // The head only grows, and never passes the tail.
        if used > slots || head.wrapping_sub(self.head) > slots {
            return Err(Corrupt::Indices {
                tail,
                head,
                slots: self.view.geometry.slots(),
            }
            .into());
        }
        self.head = head;
        if used < slots {
            Ok(())
        } else {
            Err(PushError::Full)
        }
    }

    #[inline]
    fn begin(&self) {
        self.view
            .slot(self.tail)
            .state()
            .store(in_progress(self.tail), Ordering::Relaxed);
        // The mark comes before the first byte: a producer that is killed in between leaves it
        // behind.
        fence(Ordering::Release);
    }

    #[inline]
    fn announce(&mut self) {
        self.view
            .slot(self.tail)
            .state()
            .store(complete(self.tail), Ordering::Relaxed);
        self.tail = self.tail.wrapping_add(1);
        // SYNC POINT with `Consumer::available`: the slot is written.
        self.view
            .producer()
            .tail
            .store(self.tail, Ordering::Release);
    }

    /// Wakes the consumer if it sleeps and was not woken since it fell asleep; true if the caller
    /// must send it a signal.
    #[inline]
    pub fn ring(&mut self) -> bool {
        // SYNC POINT with `Consumer::arm`, see the module `bell`.
        full_fence();
        let flag = self.view.consumer().sleep.load(Ordering::Relaxed);
        bell::is_raised(flag) && flag != self.rung && self.wake(flag)
    }

    #[cold]
    fn wake(&mut self, flag: u64) -> bool {
        self.rung = flag;
        match bell::how(flag) {
            Some(Doorbell::Bell) => {
                self.view.bells.ring(bell::bell(flag));
                false
            }
            Some(Doorbell::EventFd) => {
                self.ring_eventfd();
                false
            }
            Some(Doorbell::Signal) => true,
            None => false,
        }
    }

    /// None while the consumer takes messages. If rtd has stopped reading the ring, the index below
    /// which announced messages count; messages that were announced before `before` are never
    /// refused. Call it after [`Producer::ring`], whose fence it needs.
    #[inline]
    pub fn stopped(&self, before: u64) -> Option<u64> {
        // On the cache line that `ring` has read.
        let stopped = self.view.consumer().given_up.load(Ordering::Relaxed) == STOPPED;
        if stopped {
            Some(self.stopped_at(before))
        } else {
            None
        }
    }

    #[cold]
    fn stopped_at(&self, before: u64) -> u64 {
        // SYNC POINT with `Consumer::stop`. Between its two stores the bound is not known: the
        // message is then refused, and may still arrive.
        match self.view.consumer().stopped_at.load(Ordering::Acquire) {
            0 => before,
            at => at.wrapping_sub(1).clamp(before, self.tail.max(before)),
        }
    }

    fn ring_eventfd(&self) {
        if let Some(eventfd) = &self.eventfd {
            // It fails only for an invalid descriptor, which harms only its consumer.
            let _ = eventfd.ring();
        }
    }

    /// The signal could not be sent: the next [`Producer::ring`] requests it again.
    pub fn unring(&mut self) {
        self.rung = 0;
    }

    /// Closes the ring after its last message. Does nothing in a forked child: the ring belongs to
    /// the parent.
    pub fn close(&mut self) {
        if !self.view.is_mapped() {
            return;
        }
        // SYNC POINT with `Consumer::is_closed`: all messages are announced.
        self.view.producer().closed.store(1, Ordering::Release);
        self.ring();
    }

    /// Sleeps until there may be room, for at most this long; true if there is.
    ///
    /// The consumer checks for sleepers without a fence, because every message would pay for one.
    /// If it misses this sleeper, its next message wakes it, and in any case the sleep ends after
    /// [`ROOM_POLL_NS`].
    pub fn wait_for_room(&mut self, timeout_ns: u64) -> Result<bool, Corrupt> {
        self.wait_until(timeout_ns, Producer::has_room)
    }

    /// Sleeps until fewer than `pending` messages wait in the ring, for at most this long.
    pub fn wait_for_fewer(&mut self, pending: u64, timeout_ns: u64) -> bool {
        self.wait_until(timeout_ns, |end| Ok(end.pending() < pending)) == Ok(true)
    }

    fn wait_until(
        &mut self,
        timeout_ns: u64,
        is_over: impl Fn(&mut Producer) -> Result<bool, Corrupt>,
    ) -> Result<bool, Corrupt> {
        let seen = self.view.bells.seen(self.bell);
        self.want_room();
        let mut over = is_over(self);
        if over == Ok(false) {
            let _ = self
                .view
                .bells
                .sleep(self.bell, seen, timeout_ns.min(ROOM_POLL_NS));
            over = is_over(self);
        }
        self.view
            .producer()
            .sleep
            .store(bell::awake(self.turn), Ordering::Relaxed);
        over
    }

    /// Messages announced that the consumer has not given back, as far as its head can be true.
    pub fn pending(&self) -> u64 {
        // SYNC POINT with `Consumer::release`: the consumer has finished with the messages below
        // the head.
        let head = self.view.consumer().head.load(Ordering::Acquire);
        self.tail
            .wrapping_sub(head)
            .min(self.view.geometry.slots().into())
    }

    /// Where this end sleeps.
    pub fn bell(&self) -> (&Bells, u32) {
        (&self.view.bells, self.bell)
    }

    /// Raises the producer's flag: the consumer rings the producer's bell after it has taken a
    /// message.
    pub fn want_room(&mut self) {
        self.turn = self.turn.wrapping_add(1);
        self.view.producer().sleep.store(
            bell::flag(Doorbell::Bell, self.bell, self.turn),
            Ordering::Relaxed,
        );
        // SYNC POINT with `Consumer::release`, see the module `bell`.
        fence(Ordering::SeqCst);
    }
}

/// Longest time until a sleeping producer checks again.
pub const ROOM_POLL_NS: u64 = 1_000_000;

/// A slot that is being written in place. If it is dropped without [`Loan::commit`], nothing is
/// sent. Empty in a forked child, which does not have the memory.
#[derive(Debug)]
pub struct Loan<'a> {
    producer: &'a mut Producer,
    len: u32,
}

impl Loan<'_> {
    /// Sends the message, and returns the value of [`Producer::stopped`]. For a consumer that does
    /// not wait for a signal.
    pub fn commit(self, envelope: &Envelope) -> Option<u64> {
        let mut loan = ManuallyDrop::new(self);
        let len = loan.len;
        let producer = &mut *loan.producer;
        let before = producer.tail;
        producer
            .view
            .slot(before)
            .write(&Envelope { len, ..*envelope });
        producer.announce();
        producer.ring();
        producer.stopped(before)
    }

    /// Keeps the first `len` bytes; no effect on a loan that has no more.
    pub fn truncate(&mut self, len: usize) {
        self.len = u32::try_from(len).map_or(self.len, |len| self.len.min(len));
    }

    /// The tail of its ring.
    pub fn tail(&self) -> u64 {
        self.producer.tail
    }
}

impl Drop for Loan<'_> {
    fn drop(&mut self) {
        if self.producer.view.is_mapped() {
            // The slot is not in progress any more.
            self.producer
                .view
                .slot(self.producer.tail)
                .state()
                .store(0, Ordering::Relaxed);
        }
    }
}

impl Deref for Loan<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        if !self.producer.view.is_mapped() {
            return &[];
        }
        let start = self.producer.view.payload_start(self.producer.tail);
        // SAFETY: `len` is at most the payload of a slot (`check`); the slot is the producer's
        // until it is announced, the consumer's mapping cannot write it, and `self` borrows the
        // only producer.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), self.len as usize) }
    }
}

impl DerefMut for Loan<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        if !self.producer.view.is_mapped() {
            return &mut [];
        }
        let start = self.producer.view.payload_start(self.producer.tail);
        // SAFETY: as in `deref`, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), self.len as usize) }
    }
}
