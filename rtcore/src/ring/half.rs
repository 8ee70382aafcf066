//! What one end of a ring does apart from sending and receiving: mapping its own half first, and looking at the trail
//! of a producer whose consumer is gone.

use super::bell::Bells;
use super::consumer::Consumer;
use super::layout::{ConsumerWords, Geometry, LEFT, ProducerWords, copy_out};
use super::memory::View;
use super::producer::Producer;
use super::shared::{Side, view};
use crate::sync::Ordering;
use crate::sys::eventfd::{EventFd, Listener};
use crate::sys::memfd::Map;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// One end whose own memory is mapped and whose other's is yet to come: see [`crate::wire::Notice::Join`].
///
/// The other end may be complete already, so a half that is dropped leaves a mark in its own memory:
///
/// - A producer's half closes the ring, and the consumer goes on to the next one.
/// - A consumer's half marks the ring as left, and the producer moves its unread messages into the next one.
#[derive(Debug)]
pub struct Half {
    geometry: Geometry,
    side: Side,
    /// Taken when the end is completed.
    own: Option<(Map, OwnedFd)>,
    bells: Bells,
}

impl Half {
    /// Maps what this side writes.
    pub fn new(
        side: Side,
        geometry: Geometry,
        own: &OwnedFd,
        eventfd: OwnedFd,
        bells: Bells,
    ) -> io::Result<Half> {
        let len = match side {
            Side::Producer => geometry.producer_bytes(),
            Side::Consumer => geometry.consumer_bytes(),
        };
        let own = Map::of(own.as_fd(), len, true)?;
        Ok(Half { geometry, side, own: Some((own, eventfd)), bells })
    }

    /// Its bells.
    pub fn bells(&self) -> &Bells {
        &self.bells
    }

    /// The sending end, with the consumer's memory. An error for the half of a consumer.
    pub fn into_producer(mut self, other: &OwnedFd, bell: u32) -> io::Result<Producer> {
        let consumer = Map::of(other.as_fd(), self.geometry.consumer_bytes(), false)?;
        let (own, eventfd) = self.complete(Side::Producer)?;
        let view = view(self.geometry, &self.bells, own, consumer);
        Ok(Producer::new(view, Some(EventFd::from_fd(eventfd)), bell))
    }

    /// The receiving end, with the producer's memory. An error for the half of a producer.
    pub fn into_consumer(mut self, other: &OwnedFd, bell: u32) -> io::Result<Consumer> {
        let producer = Map::of(other.as_fd(), self.geometry.producer_bytes(), false)?;
        let (own, eventfd) = self.complete(Side::Consumer)?;
        let view = view(self.geometry, &self.bells, producer, own);
        Ok(Consumer::new(view, Some(Listener::from_fd(eventfd)), bell))
    }

    fn complete(&mut self, side: Side) -> io::Result<(Map, OwnedFd)> {
        let own = if self.side == side { self.own.take() } else { None };
        own.ok_or_else(|| io::Error::other("the half of a ring is the other side's"))
    }
}

impl Drop for Half {
    fn drop(&mut self) {
        // In a forked child the end is its parent's, and so is the mark.
        let Some((own, _)) = self.own.as_ref().filter(|(own, _)| own.creator().is_current()) else { return };
        match self.side {
            Side::Producer => {
                // SAFETY: `new` checked that the mapping has the bytes of a producer's piece, which begins with its words;
                // a mapping starts on a page; the words are atomics, and all bytes are valid ones.
                let words = unsafe { own.start().cast::<ProducerWords>().as_ref() };
                // Nobody sleeps for this alone: the consumer looks again when it is given the next ring.
                words.closed.store(1, Ordering::Release);
            }
            Side::Consumer => {
                // SAFETY: likewise, of a consumer's piece.
                let words = unsafe { own.start().cast::<ConsumerWords>().as_ref() };
                words.given_up.store(LEFT, Ordering::Release);
            }
        }
    }
}

/// A producer's ring as another thread of its process sees it.
///
/// Reads only: the tail is the own process' word, the head the consumer's allegation.
#[derive(Debug)]
pub struct Trail(View);

/// What became of messages that were moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// In the other ring now.
    pub moved: u64,
    /// Did not fit: the other ring is smaller.
    pub lost: u64,
}

impl Producer {
    /// To look at this ring from another thread.
    pub fn trail(&self) -> Trail {
        Trail(self.view().clone())
    }
}

impl Trail {
    /// Messages announced.
    pub fn tail(&self) -> u64 {
        // SYNC POINT with `Producer::announce`: the slots below are written.
        self.0.producer().tail.load(Ordering::Acquire)
    }

    /// How many of the first `tail` messages the consumer took, as far as its head can be true: a head that cannot be
    /// counts as one that has taken nothing, so that no message is lost by it.
    pub fn taken(&self, tail: u64) -> u64 {
        let head = self.0.consumer().head.load(Ordering::Acquire);
        let announced = self.tail();
        let slots = u64::from(self.0.geometry.slots());
        if announced.wrapping_sub(head) > slots {
            return tail.saturating_sub(slots);
        }
        // A consumer that lives may have taken what was announced after `tail`.
        if tail.wrapping_sub(head) <= slots { head } else { tail }
    }

    /// Nothing more counts in this ring: its producer was refused for good, and may never look at it again.
    pub fn close(&self) {
        // SYNC POINT with `Consumer::is_closed`, as `Producer::close`.
        self.0.producer().closed.store(1, Ordering::Release);
    }

    /// Whether the consumer has let go of its end: what it has not taken, it never will.
    pub fn has_left(&self) -> bool {
        // SYNC POINT with `Consumer::leave`.
        self.0.consumer().given_up.load(Ordering::Acquire) == LEFT
    }

    /// So many messages that were announced here are in another ring now, and count there.
    pub fn count_moved(&self, moved: u64) {
        self.0.producer().moved.store(moved, Ordering::Relaxed);
    }

    /// Puts the messages `from..until` into another ring, as they are, and wakes its consumer. What is further back
    /// than there are slots has been overwritten since and is left out.
    ///
    /// They must be announced and not taken: then the producer, who may be at work on a later slot, does not touch
    /// theirs.
    pub fn move_to(&self, from: u64, until: u64, other: &mut Producer) -> Moved {
        let mut buffer = vec![0; self.0.geometry.payload_bytes() as usize];
        let mut result = Moved::default();
        let count = until.wrapping_sub(from).min(self.0.geometry.slots().into());
        for back in (1..=count).rev() {
            let slot = self.0.slot(until.wrapping_sub(back));
            let moved = slot.read().is_ok_and(|envelope| {
                let payload = &mut buffer[..envelope.len.min(self.0.geometry.payload_bytes()) as usize];
                copy_out(payload, slot.payload());
                other.push_quietly(&envelope, payload).is_ok()
            });
            if moved { result.moved += 1 } else { result.lost += 1 }
        }
        other.ring();
        result
    }
}
