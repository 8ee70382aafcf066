//! One end of a ring before the other end exists: it maps its own half.

use super::bell::Bells;
use super::consumer::Consumer;
use super::layout::{ConsumerWords, Geometry, LEFT, ProducerWords};
use super::producer::Producer;
use super::shared::{Side, view};
use crate::sync::Ordering;
use crate::sys::eventfd::{EventFd, Listener};
use crate::sys::memfd::Map;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// One end whose own memory is mapped and whose other's is yet to come: see
/// [`crate::wire::Notice::Join`].
///
/// The other end may be complete already, so a half that is dropped leaves a mark in its own
/// memory:
///
/// - A producer's half closes the ring, and the consumer goes on to the next one.
/// - A consumer's half marks the ring as left, and the producer moves its unread messages into the
///   next one.
#[derive(Debug)]
pub struct Half {
    geometry: Geometry,
    side: Side,
    /// Taken when the end is completed.
    own: Option<(Map, OwnedFd)>,
    bells: Bells,
}

impl Half {
    /// Maps the memory that this side writes.
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
        Ok(Half {
            geometry,
            side,
            own: Some((own, eventfd)),
            bells,
        })
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
        let own = if self.side == side {
            self.own.take()
        } else {
            None
        };
        own.ok_or_else(|| io::Error::other("the half of a ring is the other side's"))
    }
}

impl Drop for Half {
    fn drop(&mut self) {
        // In a forked child the end, and its mark, belong to the parent.
        let Some((own, _)) = self
            .own
            .as_ref()
            .filter(|(own, _)| own.creator().is_current())
        else {
            return;
        };
        match self.side {
            Side::Producer => {
                // SAFETY: `new` checked that the mapping has the bytes of a producer's piece, which
                // begins with its words; a mapping starts on a page; the words are atomics, and all
                // bytes are valid ones.
                let words = unsafe { own.start().cast::<ProducerWords>().as_ref() };
                // Nobody sleeps for this alone: the consumer checks again when it gets the next
                // ring.
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
