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

/// Why a message did not get in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PushError {
    /// Every slot holds a message that the consumer has not taken.
    #[error("the ring is full")]
    Full,
    /// Longer than a slot.
    #[error("{len} bytes, a slot has {max}")]
    TooLarge {
        /// Bytes.
        len: usize,
        /// Of a slot.
        max: u32,
    },
    /// The consumer lies.
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
}

/// The sending end. One thread at a time.
#[derive(Debug)]
pub struct Producer {
    view: View,
    eventfd: Option<EventFd>,
    /// Messages announced; what stands in shared memory is a copy of it.
    tail: u64,
    /// The consumer's head as it was when last looked at: it only grows.
    head: u64,
    /// The flag for which the bell was rung last.
    rung: u64,
    /// Where it sleeps, and how many times it has.
    bell: u32,
    turn: u64,
    displaces: bool,
}

impl Producer {
    /// At the beginning of a ring, or (a ring that another producer left) where that one stopped.
    /// Sleeps at `bell`.
    pub(super) fn new(view: View, eventfd: Option<EventFd>, bell: u32) -> Producer {
        let tail = view.producer().tail.load(Ordering::Relaxed);
        let head = view.consumer().head.load(Ordering::Acquire);
        // An allegation; what cannot be is found out when room is looked for.
        let head = if tail.wrapping_sub(head) <= u64::from(view.geometry.slots()) {
            head
        } else {
            tail
        };
        // The consumer may have rung for the last turn of the producer before.
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

    /// Puts messages over the oldest ones where the ring is full, for a consumer that takes them as
    /// [`Consumer::keeping`](super::Consumer::keeping) says.
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

    /// Puts a message in and wakes the consumer if it sleeps; true if it waits for a signal, which
    /// is the caller's to send. `len` of the envelope is set here.
    #[inline]
    pub fn push(&mut self, envelope: &Envelope, payload: &[u8]) -> Result<bool, PushError> {
        self.push_quietly(envelope, payload)?;
        Ok(self.ring())
    }

    /// Puts a message in and leaves the consumer asleep: [`Producer::ring`] follows after the last
    /// of a burst.
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

    /// A slot to be written in place, `len` bytes as they were left by an earlier message.
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

    /// Looks at the consumer's head only when the ring seems full by what was seen of it before.
    #[inline]
    fn room(&mut self) -> Result<(), PushError> {
        let slots = u64::from(self.view.geometry.slots());
        if self.displaces || self.tail.wrapping_sub(self.head) < slots {
            return Ok(());
        }
        // SYNC POINT with `Consumer::release`: what it read before is read.
        let head = self.view.consumer().head.load(Ordering::Acquire);
        let (tail, used) = (self.tail, self.tail.wrapping_sub(head));
        // It only grows, and never past the tail.
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
        // The mark before the first byte: a producer that is killed half-way leaves it behind.
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

    /// Wakes the consumer if it sleeps and was not woken since it fell asleep; true if it is the
    /// caller who has to send it a signal.
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
    /// which announced messages count; it refuses none that was announced before `before`. After
    /// [`Producer::ring`], whose fence this needs.
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
        // message is refused then, and may arrive.
        match self.view.consumer().stopped_at.load(Ordering::Acquire) {
            0 => before,
            at => at.wrapping_sub(1).clamp(before, self.tail.max(before)),
        }
    }

    fn ring_eventfd(&self) {
        if let Some(eventfd) = &self.eventfd {
            // It fails only for a descriptor that is none, and that harms its consumer alone.
            let _ = eventfd.ring();
        }
    }

    /// The signal could not be sent: the next [`Producer::ring`] asks for it again.
    pub fn unring(&mut self) {
        self.rung = 0;
    }

    /// Nothing more comes in this ring. In a forked child it does nothing: the ring is its
    /// parent's.
    pub fn close(&mut self) {
        if !self.view.is_mapped() {
            return;
        }
        // SYNC POINT with `Consumer::is_closed`: all that ever came is announced.
        self.view.producer().closed.store(1, Ordering::Release);
        self.ring();
    }

    /// Sleeps until there may be room, at most so long; true when there is.
    ///
    /// The consumer looks for sleepers without a fence, which every message would pay for; should
    /// it miss this one, its next message does not, and at the latest the sleep ends after
    /// [`ROOM_LOOK_NS`].
    pub fn wait_for_room(&mut self, timeout_ns: u64) -> Result<bool, Corrupt> {
        self.wait_until(timeout_ns, Producer::has_room)
    }

    /// Sleeps until fewer than `pending` messages wait in the ring, likewise.
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
                .sleep(self.bell, seen, timeout_ns.min(ROOM_LOOK_NS));
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
        // SYNC POINT with `Consumer::release`: what it did with them, it has done.
        let head = self.view.consumer().head.load(Ordering::Acquire);
        self.tail
            .wrapping_sub(head)
            .min(self.view.geometry.slots().into())
    }

    /// Where this end sleeps.
    pub fn bell(&self) -> (&Bells, u32) {
        (&self.view.bells, self.bell)
    }

    /// Raises the producer's flag: the consumer rings the producer's bell when it has taken a
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

/// A sleeping producer looks again after this long at the latest.
pub const ROOM_LOOK_NS: u64 = 1_000_000;

/// A slot that is being written in place. Dropped without [`Loan::commit`], nothing was sent. Empty
/// in a forked child, which does not have the memory.
#[derive(Debug)]
pub struct Loan<'a> {
    producer: &'a mut Producer,
    len: u32,
}

impl Loan<'_> {
    /// Sends it, and answers what [`Producer::stopped`] says then. For a consumer that asks for no
    /// signal.
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

    /// The end it belongs to.
    pub fn tail(&self) -> u64 {
        self.producer.tail
    }
}

impl Drop for Loan<'_> {
    fn drop(&mut self) {
        if self.producer.view.is_mapped() {
            // Nobody is at work on the slot any more.
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
