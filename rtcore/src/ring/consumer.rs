//! The receiving end.

use super::Corrupt;
use super::bell::{self, Bells, Doorbell};
use super::layout::{
    Claims, Envelope, GIVEN_UP, Geometry, LEFT, STOPPED, complete, copy_out, in_progress,
    message_of,
};
use super::memory::View;
use crate::sync::{Ordering, fence};
use crate::sys::eventfd::Listener;

/// The receiving end. One thread at a time.
///
/// Taking a message and releasing its slot are two steps ([`Consumer::take`],
/// [`Consumer::release`]): messages that were taken and not released are still in the ring if this
/// end dies.
#[derive(Debug)]
pub struct Consumer {
    view: View,
    eventfd: Option<Listener>,
    /// Messages released; the word in shared memory is a copy of it.
    head: u64,
    /// Messages taken, released or not.
    next: u64,
    /// The producer's tail as last read.
    tail: u64,
    /// The bell at which it sleeps, and the number of its sleeps.
    bell: u32,
    turn: u64,
    /// The flag for which the producer's bell was rung last.
    rung: u64,
    /// If the producer displaces, only this many of the newest messages are taken; 0: it waits for
    /// room.
    keep: u64,
    /// Messages that the last [`Consumer::take`] skipped.
    passed: u64,
    claims: Claims,
    /// The raised flag requests the eventfd.
    asks_eventfd: bool,
}

/// A producer that displaces is never further ahead: a larger distance means backwards.
const AHEAD_MAX: u64 = 1 << 63;
/// Limit of the attempts to read a message that its producer overwrites meanwhile.
const READS_MAX: u32 = 8;

impl Consumer {
    /// Starts where the last consumer of the ring stopped. Sleeps at `bell`.
    pub(super) fn new(view: View, eventfd: Option<Listener>, bell: u32) -> Consumer {
        let head = view.consumer().head.load(Ordering::Relaxed);
        // The producer may have rung for the last turn of the earlier consumer.
        let turn = bell::turn(view.consumer().sleep.load(Ordering::Relaxed));
        view.consumer()
            .sleep
            .store(bell::awake(turn), Ordering::Relaxed);
        let eventfd = eventfd.filter(|_| !view.bells.are_semaphores());
        let claims = Claims::default();
        Consumer {
            view,
            eventfd,
            head,
            next: head,
            tail: head,
            bell,
            turn,
            rung: 0,
            keep: 0,
            passed: 0,
            claims,
            asks_eventfd: false,
        }
    }

    /// Takes only the newest `keep` messages, from a producer that displaces; 0: all messages, from
    /// one that does not.
    #[must_use]
    pub fn keeping(mut self, keep: u32) -> Consumer {
        self.keep = u64::from(keep.min(self.view.geometry.slots()));
        self
    }

    /// Whether its producer displaces: messages are then copied, never read in place.
    pub fn is_displaced(&self) -> bool {
        self.keep > 0
    }

    #[cfg(not(loom))]
    pub(super) fn view(&self) -> &View {
        &self.view
    }

    /// Whether both pieces of the ring are locked in memory, so that using it never faults.
    pub fn is_locked(&self) -> bool {
        self.view.locked
    }

    /// Size of the ring.
    pub fn geometry(&self) -> Geometry {
        self.view.geometry
    }

    /// Number of messages that can be taken now: a lower bound, at most the number of slots.
    #[inline]
    pub fn available(&mut self) -> Result<u64, Corrupt> {
        if self.tail != self.next {
            return Ok(self.tail.wrapping_sub(self.next));
        }
        // SYNC POINT with `Producer::announce`.
        let tail = self.view.producer().tail.load(Ordering::Acquire);
        let slots = self.view.geometry.slots();
        // Untrusted: at most as many as there are slots beyond the released ones (a producer that
        // displaces has no such limit), and never fewer than before.
        let most = if self.keep > 0 {
            AHEAD_MAX
        } else {
            u64::from(slots)
        };
        if tail.wrapping_sub(self.head) > most || tail.wrapping_sub(self.next) > most {
            return Err(Corrupt::Indices {
                tail,
                head: self.head,
                slots,
            });
        }
        self.tail = tail;
        Ok(tail.wrapping_sub(self.next).min(u64::from(slots)))
    }

    /// Copies the next message into `buffer`, which must be as long as a slot's payload (a shorter
    /// buffer cuts the message). The slot stays taken until [`Consumer::release`].
    #[inline]
    pub fn take(&mut self, buffer: &mut [u8]) -> Result<Option<Envelope>, Corrupt> {
        if self.keep > 0 {
            return self.take_kept(buffer);
        }
        let Some(envelope) = self.peek()? else {
            return Ok(None);
        };
        let len = (envelope.len as usize).min(buffer.len());
        copy_out(&mut buffer[..len], self.view.slot(self.next).payload());
        self.next = self.next.wrapping_add(1);
        Ok(Some(envelope))
    }

    /// [`Consumer::take`] if the producer displaces. None also if the producer overwrote each
    /// message that was tried: [`Consumer::available`] then shows that there are more.
    fn take_kept(&mut self, buffer: &mut [u8]) -> Result<Option<Envelope>, Corrupt> {
        for attempt in 0..READS_MAX {
            // Continues from the current tail, not from that of the last read.
            self.tail = self.next;
            if self.available()? == 0 {
                return Ok(None);
            }
            // The oldest message is the next one to be overwritten: with each attempt, a newer one
            // is tried.
            let keep = (self.keep >> attempt).max(1);
            let index = match self.tail.wrapping_sub(self.next) {
                ahead if ahead > keep => self.tail.wrapping_sub(keep),
                _ => self.next,
            };
            if let Some(envelope) = self.read(index, buffer)? {
                self.passed = index.wrapping_sub(self.next);
                self.next = index.wrapping_add(1);
                return Ok(Some(envelope));
            }
        }
        Ok(None)
    }

    /// Copies message `index`; none if a later one is in its slot, or came into it meanwhile.
    fn read(&self, index: u64, buffer: &mut [u8]) -> Result<Option<Envelope>, Corrupt> {
        let slot = self.view.slot(index);
        if slot.state().load(Ordering::Relaxed) != complete(index) {
            return self.displaced(index);
        }
        let read = slot.read();
        if let Ok(envelope) = &read {
            let len = (envelope.len as usize).min(buffer.len());
            copy_out(&mut buffer[..len], slot.payload());
        }
        // SYNC POINT with the fence in `Producer::begin`: a word of a later message was read only
        // where its mark is seen.
        fence(Ordering::Acquire);
        if slot.state().load(Ordering::Relaxed) != complete(index) {
            return self.displaced(index);
        }
        let envelope = read.map_err(|flags| Corrupt::Flags { index, flags })?;
        let max = self.view.geometry.payload_bytes();
        if envelope.len > max {
            return Err(Corrupt::Length {
                index,
                len: envelope.len,
                max,
            });
        }
        Ok(Some(envelope))
    }

    /// Checks that the slot of message `index` has a later one; any other state breaks the
    /// protocol.
    fn displaced(&self, index: u64) -> Result<Option<Envelope>, Corrupt> {
        let state = self.view.slot(index).state().load(Ordering::Relaxed);
        let later = message_of(state).wrapping_sub(index);
        let slots = u64::from(self.view.geometry.slots());
        if state == 0 || later == 0 || later > AHEAD_MAX || !later.is_multiple_of(slots) {
            return Err(Corrupt::State { index, state });
        }
        Ok(None)
    }

    /// Number of messages that the last [`Consumer::take`] skipped because newer ones were there.
    pub fn passed(&self) -> u64 {
        self.passed
    }

    /// Counts the outcomes of released messages, for a [`Watch`](super::Watch).
    pub fn count(&mut self, more: Claims) {
        let Claims {
            expired,
            superseded,
            late,
        } = &mut self.claims;
        *expired += more.expired;
        *superseded += more.superseded;
        *late += more.late;
        let words = self.view.consumer();
        // SYNC POINT with `Watch::claims`.
        words.expired.store(*expired, Ordering::Release);
        words.superseded.store(*superseded, Ordering::Release);
        words.late.store(*late, Ordering::Release);
    }

    /// The envelope of the next message, checked; the message stays the next one.
    #[inline]
    pub fn peek(&mut self) -> Result<Option<Envelope>, Corrupt> {
        if self.available()? == 0 {
            return Ok(None);
        }
        let (index, slot) = (self.next, self.view.slot(self.next));
        let state = slot.state().load(Ordering::Relaxed);
        if state != complete(index) {
            return Err(Corrupt::State { index, state });
        }
        let envelope = slot
            .read()
            .map_err(|flags| Corrupt::Flags { index, flags })?;
        let max = self.view.geometry.payload_bytes();
        if envelope.len > max {
            return Err(Corrupt::Length {
                index,
                len: envelope.len,
                max,
            });
        }
        Ok(Some(envelope))
    }

    /// The next message in place; dropping the [`Front`] releases its slot.
    pub fn front(&mut self) -> Result<Option<Front<'_>>, Corrupt> {
        let Some(envelope) = self.peek()? else {
            return Ok(None);
        };
        self.next = self.next.wrapping_add(1);
        Ok(Some(Front {
            consumer: self,
            envelope,
        }))
    }

    /// Skips the next message without reading it, and releases its slot; does nothing if there is
    /// none.
    pub fn skip(&mut self) {
        if self.tail != self.next {
            self.next = self.next.wrapping_add(1);
            self.release();
        }
    }

    /// Messages that were taken and not released become the next ones again.
    pub fn put_back(&mut self) {
        self.next = self.head;
    }

    /// Releases the slots of all taken messages, and wakes a producer that waits for room.
    #[inline]
    pub fn release(&mut self) {
        self.head = self.next;
        // SYNC POINT with `Producer::room`: the messages have been read.
        self.view
            .consumer()
            .head
            .store(self.head, Ordering::Release);
        // No fence here: every message would pay for it, see `Producer::wait_for_room`.
        let flag = self.view.producer().sleep.load(Ordering::Relaxed);
        if bell::is_raised(flag) && flag != self.rung {
            self.wake_producer(flag);
        }
    }

    #[cold]
    fn wake_producer(&mut self, flag: u64) {
        self.rung = flag;
        self.view.bells.ring(bell::bell(flag));
    }

    /// Raises the flag: the producer rings from now on. The caller checks for messages once more
    /// before it sleeps.
    #[inline]
    pub fn arm(&mut self, how: Doorbell) {
        self.raise(how);
        // SYNC POINT with `Producer::ring`, see the module `bell`.
        fence(Ordering::SeqCst);
    }

    /// Raises the flag only. For a thread with several rings: one `fence(SeqCst)` after the last of
    /// them makes this an [`Consumer::arm`] of each.
    #[inline]
    pub fn raise(&mut self, how: Doorbell) {
        self.turn = self.turn.wrapping_add(1);
        self.asks_eventfd = how == Doorbell::EventFd;
        self.view
            .consumer()
            .sleep
            .store(bell::flag(how, self.bell, self.turn), Ordering::Relaxed);
    }

    /// Lowers the flag after a sleep. Returns whether the eventfd may have been rung meanwhile and
    /// must be read.
    #[inline]
    pub fn disarm(&mut self) -> bool {
        self.view
            .consumer()
            .sleep
            .store(bell::awake(self.turn), Ordering::Relaxed);
        std::mem::take(&mut self.asks_eventfd)
    }

    /// Sleeps until there is a message, for at most this long. It also returns if the bell was rung
    /// for another reason, and after EINTR: the caller checks again.
    #[inline]
    pub fn wait(&mut self, timeout_ns: u64) -> Result<(), crate::sys::Errno> {
        self.wait_unless(timeout_ns, || false)
    }

    /// The same, unless there is other work now: the thread that brings work makes it visible and
    /// then rings this bell.
    #[inline]
    pub fn wait_unless(
        &mut self,
        timeout_ns: u64,
        news: impl FnOnce() -> bool,
    ) -> Result<(), crate::sys::Errno> {
        let (bells, bell) = self.bell();
        let seen = bells.seen(bell);
        self.arm(Doorbell::Bell);
        // `take` reports whether the ring is corrupt.
        let waited = match self.available() {
            Ok(0) if !news() => self.bell().0.sleep(bell, seen, timeout_ns),
            _ => Ok(()),
        };
        self.disarm();
        waited
    }

    /// The bell at which this end sleeps.
    pub fn bell(&self) -> (&Bells, u32) {
        (&self.view.bells, self.bell)
    }

    /// Moves the sleep to another bell of the same page. Call it while awake.
    pub fn set_bell(&mut self, bell: u32) {
        self.bell = bell;
    }

    /// The descriptor that becomes readable while armed with [`Doorbell::EventFd`]; none if bells
    /// are semaphores.
    pub fn eventfd(&self) -> Option<&Listener> {
        self.eventfd.as_ref()
    }

    /// Number of messages that were announced and not released, limited to possible values.
    pub fn backlog(&self) -> u64 {
        let tail = self.view.producer().tail.load(Ordering::Acquire);
        let backlog = tail.wrapping_sub(self.head);
        if backlog > u64::from(self.view.geometry.slots()) {
            0
        } else {
            backlog
        }
    }

    /// Whether the producer has closed the ring after its last message; earlier messages can still
    /// be taken.
    ///
    /// A thread that sleeps with [`Consumer::wait_unless`] or after [`Consumer::arm`] must check it
    /// after it has raised the flag, because an earlier close rings no bell. [`Consumer::wait`]
    /// does not check it; otherwise a producer that closes and lives on would keep its waiter from
    /// sleeping.
    pub fn is_closed(&self) -> bool {
        // SYNC POINT with `Producer::close`.
        self.view.producer().closed.load(Ordering::Acquire) != 0
    }

    /// Stops taking messages from this ring, so that the messages that are left can be counted.
    pub fn give_up(&mut self) {
        self.view
            .consumer()
            .given_up
            .store(GIVEN_UP, Ordering::Release);
    }

    /// Releases this end while the ring may hold messages: the producer's process then knows that
    /// nobody takes them, and moves them to the next ring. Does nothing in a forked child: the ring
    /// belongs to the parent.
    pub fn leave(&mut self) {
        if !self.view.is_mapped() {
            return;
        }
        let given_up = &self.view.consumer().given_up;
        if given_up.load(Ordering::Relaxed) == 0 {
            // SYNC POINT with `RecoveryCursor::has_left`: the head is final.
            given_up.store(LEFT, Ordering::Release);
        }
    }

    /// rtd ends and takes no more messages from this ring. Returns how many messages stay in it:
    /// exactly those whose send succeeded, because the producer refuses the others
    /// ([`Producer::stopped`](super::Producer::stopped)). A later call returns the number that is
    /// left.
    pub fn stop(&mut self) -> u64 {
        let words = self.view.consumer();
        if words.given_up.load(Ordering::Relaxed) == 0 {
            words.given_up.store(STOPPED, Ordering::Relaxed);
            // SYNC POINT with `Producer::ring`: each side writes, then reads what the other writes.
            // Either the producer sees that this end has stopped, or its message is below the tail
            // that is read here.
            fence(Ordering::SeqCst);
            let bound = self.head.wrapping_add(self.backlog());
            words
                .stopped_at
                .store(bound.wrapping_add(1), Ordering::Release);
        }
        match words.stopped_at.load(Ordering::Relaxed) {
            0 => 0,
            at => at.wrapping_sub(1).saturating_sub(self.head),
        }
    }

    /// Whether the producer was writing a slot when it stopped; call it when the producer is known
    /// to be dead.
    pub fn torn(&self) -> bool {
        let tail = self.view.producer().tail.load(Ordering::Acquire);
        self.view.slot(tail).state().load(Ordering::Relaxed) == in_progress(tail)
    }

    /// Number of messages released so far.
    pub fn head(&self) -> u64 {
        self.head
    }
}

/// A message in place. Dropping it releases the slot. It has no bytes in a forked child, which does
/// not have the memory.
#[derive(Debug)]
pub struct Front<'a> {
    consumer: &'a mut Consumer,
    envelope: Envelope,
}

impl Front<'_> {
    /// Its envelope.
    pub fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// Copies as much of the payload as fits into `buffer`; returns the number of bytes.
    pub fn copy_to(&self, buffer: &mut [u8]) -> usize {
        if !self.consumer.view.is_mapped() {
            return 0;
        }
        let len = (self.envelope.len as usize).min(buffer.len());
        copy_out(&mut buffer[..len], self.slot().payload());
        len
    }

    /// The payload in its slot.
    ///
    /// # Safety
    /// 1. The producer does not write the slot while the slice is alive. An honest producer, such
    ///    as the daemon, does not, because the slot is not released. A hostile process can change
    ///    the bytes under the reader.
    pub unsafe fn bytes(&self) -> &[u8] {
        if !self.consumer.view.is_mapped() {
            return &[];
        }
        let start = self
            .consumer
            .view
            .payload_start(self.consumer.next.wrapping_sub(1));
        // SAFETY: `len` was checked against the slot (`peek`); the slot is not given back while
        // `self` lives; that nobody writes it is the caller's contract.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), self.envelope.len as usize) }
    }

    fn slot(&self) -> super::layout::Slot<'_> {
        self.consumer.view.slot(self.consumer.next.wrapping_sub(1))
    }
}

impl Drop for Front<'_> {
    fn drop(&mut self) {
        if self.consumer.view.is_mapped() {
            self.consumer.release();
        }
    }
}
