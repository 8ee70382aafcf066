//! Rings of sessions: kind `lane`. Sessions come and go; a running lane thread gets the ring of
//! each.

use super::sink::{Refusal, SinkOps};
use super::source::{Content, Failure, Leftover, SourceOps, Taken};
use crate::channel::hand_off::HandOffSlot;
use crate::lane::peer::Peer;
use crate::lane::syscalls;
use crate::lane::waits::Waits;
use crate::message::{Body, Message, Meta, Origin};
use crate::ring::{Consumer, Doorbell, Envelope, Kind, Producer, PushError};
use crate::skin::{Semaphore, Skin};
use crate::stats::layout::EndpointRecord;
use crate::sys::Errno;
use crate::sys::poll::Interest;
use crate::sys::seccomp::Allowed;
use crate::wait::Timeout;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;

/// The successive receiving ends of one owner's rings; none while the owner has no session.
#[derive(Debug)]
pub struct Source {
    ring_slot: HandOffSlot<Consumer>,
    /// The doorbell of everything that this thread waits for, if that is a semaphore.
    doorbell: Option<Arc<Semaphore>>,
    /// If the next end is waiting: the number of further messages to take from this one. Its owner
    /// has left it, so these are the last ones; the number is bounded because a hostile owner may
    /// never stop.
    last: Option<u64>,
    /// The owner of a released end had left a half-written message.
    torn: bool,
}

impl Source {
    /// Makes a source. The control thread offers its ends, and rings the thread's doorbell with
    /// each offer, if it has one.
    pub fn new(ring_slot: HandOffSlot<Consumer>, doorbell: Option<Arc<Semaphore>>) -> Source {
        Source {
            ring_slot,
            doorbell,
            last: None,
            torn: false,
        }
    }

    /// Takes the next message, from this end or the next one.
    #[inline]
    fn take_next(
        &mut self,
        buffer: &mut [u8],
        timeout: Timeout,
    ) -> Result<(Meta, usize, Origin), Failure> {
        loop {
            let origin = self.ring_slot.origin();
            if self.ring_slot.has_offer() {
                self.count_last();
            }
            if let Some(end) = self.ring_slot.current()
                && self.last != Some(0)
            {
                match end.take(buffer) {
                    Ok(Some(envelope)) => {
                        self.last = self.last.map(|left| left - 1);
                        return Ok((envelope.meta, envelope.len as usize, origin));
                    }
                    Ok(None) => {}
                    Err(corrupt) => {
                        self.ring_slot.give_up();
                        return Err(Failure::Corrupt(corrupt));
                    }
                }
            }
            if self.ring_slot.has_offer() && self.switch() {
                continue;
            }
            if timeout == Timeout::NOW {
                return Err(Errno::AGAIN.into());
            }
            self.wait(timeout)?;
        }
    }

    /// The messages that the old end holds now are the last to take from it; none if its owner
    /// moves them.
    #[cold]
    fn count_last(&mut self) {
        if self.ring_slot.is_left() {
            self.last = Some(0);
        } else if self.last.is_none() {
            self.last = Some(self.ring_slot.current().map_or(0, |end| end.backlog()));
        }
    }

    #[cold]
    fn switch(&mut self) -> bool {
        let torn = self.ring_slot.current().is_some_and(|end| end.torn());
        let switched = self.ring_slot.take();
        if switched {
            self.torn |= torn;
            self.last = None;
        }
        switched
    }

    /// Sleeps until there is a message or an offer.
    #[inline]
    fn wait(&mut self, Timeout(timeout_ns): Timeout) -> Result<(), Errno> {
        let (end, offers) = self.ring_slot.current_and_offers();
        match (end, &self.doorbell) {
            (Some(end), _) => end.wait_unless(timeout_ns, || offers.waiting()),
            (None, None) => {
                let seen = offers.parked_at();
                if offers.waiting() {
                    Ok(())
                } else {
                    offers.park(seen, timeout_ns)
                }
            }
            (None, Some(doorbell)) => {
                doorbell.clear();
                if offers.waiting() {
                    Ok(())
                } else {
                    doorbell.wait(timeout_ns)
                }
            }
        }
    }
}

impl SourceOps for Source {
    /// The origin of a message, and the fact that it is bytes, come from the channel, not from its
    /// slot.
    #[inline]
    fn take(&mut self, _: &Skin, buffer: &mut [u8], timeout: Timeout) -> Result<Taken, Failure> {
        let (meta, len, origin) = self.take_next(buffer, timeout)?;
        Ok(Taken {
            content: Content::Bytes(len),
            priority: 0,
            origin,
            meta: Some(meta),
        })
    }

    fn calls(&self) -> &'static [Allowed] {
        syscalls::RING_SOURCE
    }

    #[inline]
    fn release(&mut self) {
        if let Some(end) = self.ring_slot.current() {
            end.release();
        }
    }

    fn put_back(&mut self) {
        self.last = self.last.map(|left| left + 1);
        if let Some(end) = self.ring_slot.current() {
            end.put_back();
        }
    }

    #[inline]
    fn let_go(&mut self) {
        if self.ring_slot.has_offer() && self.ring_slot.is_left() {
            self.switch();
        }
    }

    fn stop(&mut self) {
        if let Some(end) = self.ring_slot.current() {
            end.stop();
        }
    }

    fn leftover(&mut self) -> Leftover {
        let mut all = Leftover::default();
        loop {
            let is_last = !self.ring_slot.has_offer();
            // A sender that continues in another session moves its messages itself.
            let is_left = !is_last && self.ring_slot.is_left();
            let messages = self.ring_slot.current().map_or(0, Consumer::stop);
            match (is_last, is_left) {
                (true, _) => all.kept += messages,
                (false, true) => {}
                (false, false) => all.orphaned += messages,
            }
            if is_last || !self.ring_slot.take() {
                return all;
            }
        }
    }

    fn is_lost_at_stop(&self) -> bool {
        self.is_orphaned()
    }

    #[inline]
    fn is_orphaned(&self) -> bool {
        self.ring_slot.has_offer()
            && !self.ring_slot.is_left()
            && self.last != Some(0)
            && self.ring_slot.peek().is_some_and(|end| end.backlog() > 0)
    }

    #[inline]
    fn is_ring(&self) -> bool {
        true
    }

    fn arm(&mut self, waits: &mut Waits) -> bool {
        let (end, offers) = self.ring_slot.current_and_offers();
        let seen = offers.parked_at();
        match end {
            // The thread is parked. If it waits for descriptors as well, it sees an offer at the
            // time limit of that wait.
            None if waits.parks() => waits.push_word(offers.park_word(seen)),
            None => {}
            Some(end) => {
                if waits.is_by_bells() {
                    let (bells, bell) = end.bell();
                    waits.push_bell(bells, bell);
                    end.arm(Doorbell::Bell);
                } else {
                    if let Some(eventfd) = end.eventfd() {
                        waits.push(Interest::readable(eventfd.as_fd().as_raw_fd()));
                    }
                    end.arm(Doorbell::EventFd);
                }
                if end.available() != Ok(0) {
                    return false;
                }
            }
        }
        !offers.waiting()
    }

    fn disarm(&mut self) {
        if let Some(end) = self.ring_slot.current()
            && end.disarm()
            && let Some(eventfd) = end.eventfd()
        {
            eventfd.take();
        }
    }

    fn generation(&self) -> u64 {
        self.ring_slot.generation()
    }

    #[inline]
    fn take_torn(&mut self) -> bool {
        std::mem::take(&mut self.torn)
    }
}

/// The successive sending ends of one owner's rings.
#[derive(Debug)]
pub struct Sink {
    ring_slot: HandOffSlot<Producer>,
    bytes_max: usize,
}

impl Sink {
    /// Makes a sink with slots of `bytes_max`. The control thread offers its ends.
    pub fn new(ring_slot: HandOffSlot<Producer>, bytes_max: usize) -> Sink {
        Sink {
            ring_slot,
            bytes_max,
        }
    }

    /// Puts the message into the ring, as the signal `as_signal` if there is one; true if the
    /// receiver waits for a signal. `None` if there is no ring.
    #[inline]
    pub(super) fn push(
        &mut self,
        message: &Message<'_>,
        as_signal: Option<i32>,
    ) -> Option<Result<bool, Refusal>> {
        let end = self.ring_slot.current()?;
        let value;
        let (payload, kind) = match message.body {
            Body::Bytes(bytes) => (
                bytes,
                Kind::Bytes {
                    priority: message.priority,
                },
            ),
            Body::Signal { signo, value: v } => {
                value = v.to_ne_bytes();
                (value.as_slice(), Kind::Signal { signo })
            }
        };
        let kind = as_signal.map_or(kind, |signo| Kind::Signal { signo });
        let envelope = Envelope {
            meta: message.meta,
            origin: message.origin,
            kind,
            len: 0,
        };
        let pushed = end.push(&envelope, payload);
        Some(pushed.map_err(|refused| match refused {
            PushError::Full => Refusal::Full,
            PushError::TooLarge { .. } => Refusal::TooLarge,
            PushError::Corrupt(corrupt) => {
                self.ring_slot.give_up();
                Refusal::Corrupt(corrupt)
            }
        }))
    }

    /// Takes the newest ring; returns whether there was one. The receiver of the old ring is gone:
    /// messages that it did not take still count as delivered.
    #[inline]
    pub(super) fn take_newest(&mut self) -> bool {
        let mut is_new = false;
        while self.ring_slot.has_offer() && self.ring_slot.take() {
            is_new = true;
        }
        is_new
    }

    /// The number of the last message in the ring.
    pub(super) fn tail(&mut self) -> u64 {
        self.ring_slot.current().map_or(0, |end| end.tail())
    }

    /// The receiver was not signalled after all, see [`Producer::unring`].
    pub(super) fn unring(&mut self) {
        if let Some(end) = self.ring_slot.current() {
            end.unring();
        }
    }

    /// Whether the receiver waits for a signal, see [`Producer::ring`].
    pub(super) fn ring_again(&mut self) -> bool {
        self.ring_slot.current().is_some_and(Producer::ring)
    }
}

impl SinkOps for Sink {
    /// An owner that is alive without a session was registered by another program, which cannot
    /// have its ring.
    #[inline]
    fn send(
        &mut self,
        _: &Skin,
        _: Option<&Peer>,
        message: &Message<'_>,
        _: Option<u32>,
    ) -> Result<(), Refusal> {
        self.renew();
        self.push(message, None)
            .unwrap_or(Err(Refusal::PeerDead))
            .map(drop)
    }

    fn calls(&self) -> Vec<&'static [Allowed]> {
        vec![syscalls::RING_SINK]
    }

    #[inline]
    fn renew(&mut self) {
        self.take_newest();
    }

    fn await_room(&mut self, message: &Message<'_>, waits: &mut Waits) -> bool {
        if message.len() > self.bytes_max {
            return true;
        }
        if self.ring_slot.has_offer() {
            return false;
        }
        let Some(end) = self.ring_slot.current() else {
            return true;
        };
        let (bells, bell) = end.bell();
        waits.push_room(bells, bell);
        end.want_room();
        end.has_room() == Ok(false)
    }

    fn is_silent(&self, _: Option<&Peer>) -> bool {
        false
    }

    fn has_ring(&self) -> bool {
        true
    }

    fn generation(&self) -> u64 {
        self.ring_slot.generation()
    }
}

/// Description of a ring on the statistics page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Capacity in messages.
    pub maxmsg: u32,
    /// Size of the largest message in bytes.
    pub msgsize: u32,
}

impl Shown {
    pub(super) fn write(&self, record: &mut EndpointRecord) -> io::Result<()> {
        (record.maxmsg, record.msgsize) = (self.maxmsg, self.msgsize);
        Ok(())
    }

    pub(super) fn read(record: &EndpointRecord) -> Shown {
        Shown {
            maxmsg: record.maxmsg,
            msgsize: record.msgsize,
        }
    }
}
