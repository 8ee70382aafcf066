//! Passes a ring's end to a running lane thread and takes the old end back, without a lock, and
//! without a heap call on the thread's side.
//!
//! The control thread makes and destroys ends. The lane thread takes an offered end when it is
//! ready (a source, only after it has emptied the old ring) and returns the old end. The control
//! thread therefore unmaps the memory of a peer that is gone.

use crate::message::Origin;
use crate::sys::futex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Limit of the ends that wait to be taken.
const ENDS_MAX: usize = 8;
/// Limit of the ends that wait to be collected: all that waited at the last collection, and the one
/// that was offered then. A thread can therefore always take an offer, and never keeps running with
/// an offer that it cannot take.
const RETIRED_MAX: usize = ENDS_MAX + 1;

/// An offer: an end, or none to take the old one away.
#[derive(Debug)]
pub struct HandOffItem<T> {
    pub end: Option<T>,
    /// The registration that the end belongs to, for events.
    pub generation: u64,
    /// The process at the other end. Messages of the ring have this origin, whatever a slot says.
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

/// The lane thread's half, with its current end.
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

/// Makes both halves, without an end. Each offer also rings the bells at which the thread may
/// sleep.
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
    /// Offers an end (or none) that replaces the current one; wakes the thread if it is parked.
    /// Returns the offer if too many wait, because the thread has not run for a long time.
    ///
    /// If the thread sleeps at a ring's bell, the caller must ring that bell
    /// ([`crate::ring::Bells::ring`]).
    pub fn offer(&mut self, offer: HandOffItem<T>) -> Result<(), HandOffItem<T>> {
        self.collect();
        self.offers
            .push(Box::new(offer))
            .map_err(|rtrb::PushError::Full(offer)| *offer)?;
        // SYNC POINT with `Offers::park`: rtrb's push is a release of its own; the word wakes the
        // sleeper.
        self.nudge();
        Ok(())
    }

    /// Number of further offers that may wait, after the returned ends were dropped.
    pub fn room(&mut self) -> usize {
        self.collect();
        self.offers.slots()
    }

    /// Wakes a parked thread for another reason than an offer.
    pub fn nudge(&self) {
        self.park.fetch_add(1, Ordering::Release);
        futex::wake_all(&self.park);
    }

    /// Tells the thread not to empty the end of this registration, for which a replacement was
    /// offered: its sender moves the rest into another ring after the thread has released the end.
    pub fn leave(&self, generation: u64) {
        self.leave.store(generation, Ordering::Relaxed);
    }

    /// Takes one of the returned ends, to drop it on another thread.
    pub fn reclaim(&mut self) -> Option<Box<HandOffItem<T>>> {
        self.retired.pop().ok()
    }

    /// Drops the returned ends; true while the thread still has an offer to take.
    pub fn collect(&mut self) -> bool {
        while self.retired.pop().is_ok() {}
        self.offers.slots() < ENDS_MAX
    }
}

impl<T> HandOffSlot<T> {
    /// The current end.
    #[inline]
    pub fn current(&mut self) -> Option<&mut T> {
        if self.given_up {
            None
        } else {
            self.current.end.as_mut()
        }
    }

    /// The current end, read-only.
    pub fn peek(&self) -> Option<&T> {
        if self.given_up {
            None
        } else {
            self.current.end.as_ref()
        }
    }

    /// The registration that the end belongs to.
    pub fn generation(&self) -> u64 {
        self.current.generation
    }

    /// The process at the other end.
    pub fn origin(&self) -> Origin {
        self.current.origin
    }

    /// Whether an offer waits.
    #[inline]
    pub fn has_offer(&self) -> bool {
        !self.offers.is_empty()
    }

    /// Whether the thread must take no more messages from its end; see [`HandOff::leave`].
    pub fn is_left(&self) -> bool {
        // From the moment at which this is seen, the head is final.
        self.leave.load(Ordering::Relaxed) == self.current.generation && self.current.end.is_some()
    }

    /// Takes the next offer and returns the old end; false if there is no offer.
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
        // There is room: it was checked above, and no other thread pushes. (Dropping the end here
        // would be a heap call.)
        self.retired.push(old).map_err(std::mem::forget).ok();
        true
    }

    /// Gives up the current end because its peer broke the protocol. It is unmapped when the next
    /// offer is taken.
    pub fn give_up(&mut self) {
        self.given_up = true;
    }

    /// The current end, and access to the offers.
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

/// Access to the offers while the end is in use.
#[derive(Debug)]
pub struct Offers<'a, T> {
    offers: &'a rtrb::Consumer<Box<HandOffItem<T>>>,
    park: &'a AtomicU32,
}

impl<T> Offers<'_, T> {
    /// Whether an offer waits.
    pub fn waiting(&self) -> bool {
        !self.offers.is_empty()
    }

    /// Value of the park word, for [`Offers::park`]; read it before you check for an offer.
    pub fn parked_at(&self) -> u32 {
        self.park.load(Ordering::Acquire)
    }

    /// Sleeps until there is an offer, unless one came since `seen`.
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

    /// The thread takes all waiting ends right after a collection and before one more offer. It
    /// must not be left with an offer that it cannot take, because it would check for it again and
    /// again.
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
