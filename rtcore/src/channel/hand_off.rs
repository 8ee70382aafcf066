//! Handing a ring's end to a running lane thread, and taking the old one back, without a lock and
//! without a heap call on the thread's side.
//!
//! The control thread makes and destroys; the lane thread takes what is offered when it is ready to
//! (a source only when it has emptied what it had) and gives back what it had. Memory of a peer
//! that is gone is so unmapped by the control thread.

use crate::message::Origin;
use crate::sys::futex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Ends that may wait to be taken.
const ENDS_MAX: usize = 8;
/// Ends that may wait to be collected: all that waited when the feeder last did so, and the one it
/// offered then. So a thread that is offered something can always take it, and never runs on with
/// an offer in front of it.
const RETIRED_MAX: usize = ENDS_MAX + 1;

/// What is offered: an end, or none any more.
#[derive(Debug)]
pub struct HandOffItem<T> {
    pub end: Option<T>,
    /// Which registration it belongs to, for events.
    pub generation: u64,
    /// Who is at the other end: what comes out of the ring is theirs, whatever a slot says.
    pub origin: Origin,
}

/// The control thread's half.
#[derive(Debug)]
pub struct HandOff<T> {
    offers: rtrb::Producer<Box<HandOffItem<T>>>,
    retired: rtrb::Consumer<Box<HandOffItem<T>>>,
    park: Arc<AtomicU32>,
    leave: Arc<AtomicU64>,
}

/// The lane thread's half, with the end it has now.
#[derive(Debug)]
pub struct HandOffSlot<T> {
    offers: rtrb::Consumer<Box<HandOffItem<T>>>,
    retired: rtrb::Producer<Box<HandOffItem<T>>>,
    park: Arc<AtomicU32>,
    /// Generation of the registration whose end must not be emptied; 0 = none.
    leave: Arc<AtomicU64>,
    current: Box<HandOffItem<T>>,
    given_up: bool,
}

/// Both halves, with no end yet. Bells at which the thread may sleep are rung with each offer.
pub fn hand_off<T>() -> (HandOff<T>, HandOffSlot<T>) {
    let (offers, taken) = rtrb::RingBuffer::new(ENDS_MAX);
    let (given_back, retired) = rtrb::RingBuffer::new(RETIRED_MAX);
    let park = Arc::new(AtomicU32::new(0));
    let current = Box::new(HandOffItem {
        end: None,
        generation: 0,
        origin: Origin::UNKNOWN,
    });
    let leave = Arc::new(AtomicU64::new(0));
    let hand_off = HandOff {
        offers,
        retired,
        park: Arc::clone(&park),
        leave: Arc::clone(&leave),
    };
    (
        hand_off,
        HandOffSlot {
            offers: taken,
            retired: given_back,
            park,
            leave,
            current,
            given_up: false,
        },
    )
}

impl<T> HandOff<T> {
    /// Offers an end (or none) that replaces what the thread has; the thread is woken if it parks.
    /// Handed back when too many wait: the thread has not run since.
    ///
    /// A thread that sleeps at a ring's bell has to be rung there by the caller
    /// ([`crate::ring::Bells::ring`]).
    pub fn offer(&mut self, offer: HandOffItem<T>) -> Result<(), HandOffItem<T>> {
        self.collect();
        self.offers
            .push(Box::new(offer))
            .map_err(|rtrb::PushError::Full(offer)| *offer)?;
        // SYNC POINT with `Offers::park`: rtrb's push is a release of its own; the word makes the
        // sleeper look.
        self.nudge();
        Ok(())
    }

    /// How many more offers may wait, after what the thread has given back was dropped.
    pub fn room(&mut self) -> usize {
        self.collect();
        self.offers.slots()
    }

    /// Makes a thread that parks look again: what it waits for is not an offer.
    pub fn nudge(&self) {
        self.park.fetch_add(1, Ordering::Release);
        futex::wake_all(&self.park);
    }

    /// The thread must not empty the end of this registration, for which a replacement was offered:
    /// its sender moves the rest into another ring once the thread has let go of it.
    pub fn leave(&self, generation: u64) {
        self.leave.store(generation, Ordering::Relaxed);
    }

    /// One of the ends that the thread has given back, to be dropped on another thread.
    pub fn reclaim(&mut self) -> Option<Box<HandOffItem<T>>> {
        self.retired.pop().ok()
    }

    /// Drops what the thread has given back; true while it still has to take something.
    pub fn collect(&mut self) -> bool {
        while self.retired.pop().is_ok() {}
        self.offers.slots() < ENDS_MAX
    }
}

impl<T> HandOffSlot<T> {
    /// The end it has.
    #[inline]
    pub fn current(&mut self) -> Option<&mut T> {
        if self.given_up {
            None
        } else {
            self.current.end.as_mut()
        }
    }

    /// The end it has, to look at.
    pub fn peek(&self) -> Option<&T> {
        if self.given_up {
            None
        } else {
            self.current.end.as_ref()
        }
    }

    /// Which registration the end belongs to.
    pub fn generation(&self) -> u64 {
        self.current.generation
    }

    /// Who is at the other end.
    pub fn origin(&self) -> Origin {
        self.current.origin
    }

    /// Whether something is offered.
    #[inline]
    pub fn has_offer(&self) -> bool {
        !self.offers.is_empty()
    }

    /// Whether the thread must take nothing more out of its end; see [`HandOff::leave`].
    pub fn is_left(&self) -> bool {
        // Whenever this is seen, the head says exactly what was taken.
        self.leave.load(Ordering::Relaxed) == self.current.generation && self.current.end.is_some()
    }

    /// Takes the next offer, gives back what it had; false when nothing is offered.
    #[cold]
    pub fn take(&mut self) -> bool {
        if self.retired.is_full() {
            return false;
        }
        let Ok(next) = self.offers.pop() else {
            return false;
        };
        let old = std::mem::replace(&mut self.current, next);
        self.given_up = false;
        // There is room: looked above, and nobody else pushes. (Dropping it here would be a heap
        // call.)
        self.retired.push(old).map_err(std::mem::forget).ok();
        true
    }

    /// The end it has must not be used any more: its peer has violated the protocol. It is unmapped
    /// when the next offer is taken.
    pub fn give_up(&mut self) {
        self.given_up = true;
    }

    /// The end it has, and beside it what is offered.
    pub fn current_and_offers(&mut self) -> (Option<&mut T>, Offers<'_, T>) {
        let current = if self.given_up {
            None
        } else {
            self.current.end.as_mut()
        };
        (
            current,
            Offers {
                offers: &self.offers,
                park: &self.park,
            },
        )
    }
}

/// A look at what is offered, while the end is in use.
#[derive(Debug)]
pub struct Offers<'a, T> {
    offers: &'a rtrb::Consumer<Box<HandOffItem<T>>>,
    park: &'a AtomicU32,
}

impl<T> Offers<'_, T> {
    /// Whether something is offered.
    pub fn waiting(&self) -> bool {
        !self.offers.is_empty()
    }

    /// What the park word shows, for [`Offers::park`]; to be read before looking for an offer.
    pub fn parked_at(&self) -> u32 {
        self.park.load(Ordering::Acquire)
    }

    /// Sleeps until something is offered, unless it was since `seen`.
    pub fn park(&self, seen: u32, timeout_ns: u64) -> crate::sys::Call<()> {
        futex::wait(self.park, seen, timeout_ns)
    }

    /// The park word as one of several to wait for.
    pub fn park_word(&self, seen: u32) -> futex::Word {
        futex::Word::new(self.park, seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(end: u32) -> HandOffItem<u32> {
        HandOffItem {
            end: Some(end),
            generation: end.into(),
            origin: Origin::UNKNOWN,
        }
    }

    #[test]
    fn ends_are_taken_in_order_and_given_up_ones_are_not_used() {
        let (mut hand_off, mut ring_slot) = hand_off();
        assert!(ring_slot.current().is_none() && !ring_slot.has_offer() && !ring_slot.take());
        hand_off.offer(offer(1)).unwrap();
        hand_off.offer(offer(2)).unwrap();
        assert!(ring_slot.take());
        assert_eq!(
            (ring_slot.current().copied(), ring_slot.generation()),
            (Some(1), 1)
        );
        ring_slot.give_up();
        assert!(
            ring_slot.current().is_none()
                && ring_slot.peek().is_none()
                && ring_slot.current_and_offers().0.is_none()
        );
        assert!(hand_off.collect(), "one is still to be taken");
        assert!(ring_slot.take() && !ring_slot.has_offer());
        assert_eq!(ring_slot.current().copied(), Some(2));
        assert!(!hand_off.collect());
    }

    #[test]
    fn one_offer_too_many_is_handed_back() {
        let (mut hand_off, mut ring_slot) = hand_off();
        for n in 0..8 {
            hand_off.offer(offer(n)).unwrap();
        }
        assert_eq!(hand_off.offer(offer(8)).unwrap_err().end, Some(8));
        assert!(ring_slot.take());
        hand_off.offer(offer(8)).unwrap();
    }

    /// The thread takes all that waits right after the feeder has collected and before it offers
    /// one more: the thread must not be left with an offer that it cannot take, or it would look
    /// for it again and again.
    #[test]
    fn whatever_is_offered_can_be_taken() {
        let (mut hand_off, mut ring_slot) = hand_off();
        for n in 0..8 {
            hand_off.offer(offer(n)).unwrap();
        }
        hand_off.collect();
        while ring_slot.take() {}
        hand_off.offers.push(Box::new(offer(8))).unwrap();
        assert!(ring_slot.has_offer() && ring_slot.take());
        assert_eq!(ring_slot.current().copied(), Some(8));
    }
}
