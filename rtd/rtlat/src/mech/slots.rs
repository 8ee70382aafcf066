//! Stamps of messages that carry none, in memory that a forked child shares.
//!
//! A ring of slots, found by the number of the message and checked against it: a stamp that was
//! overwritten before it was read is not there, rather than another's. Constraint: one writer, one
//! reader.

use super::Stamp;
use crate::sys::inherited::Inherited;
use rtcore::sys::Errno;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

/// Slots of the ring, a power of two: the number of messages that may be under way.
pub const SLOTS: u64 = 4096;

/// Words of a slot: a cache line, so that writer and reader share none when they are at different
/// slots.
const WORDS: usize = 8;
/// Complement of the number, so that fresh memory has no message's; 0 while it is written.
const KEY: usize = 0;
const SEQUENCE: usize = 1;
const INTENDED: usize = 2;
const SENT: usize = 3;
/// Equal to `KEY` when it was taken.
const TAKEN: usize = 4;

/// The ring; a clone is the same one.
#[derive(Clone, Debug)]
pub struct Slots(Arc<Inherited<AtomicU64>>);

impl Slots {
    /// An empty ring, shared with children that are forked from now on.
    pub fn new() -> anyhow::Result<Slots> {
        // One more than SLOTS: for the end of a run, see `slot`.
        let words = (usize::try_from(SLOTS)? + 1) * WORDS;
        Ok(Slots(Arc::new(Inherited::new(words)?)))
    }

    /// Has the calling process, a child, touch the memory, so that it does not fault later.
    pub fn fault_in(&self) {
        self.0.fault_in();
    }

    /// Writes a stamp under its sequence, over the old contents.
    #[inline]
    pub fn put(&self, stamp: &Stamp) {
        self.put_at(stamp.sequence, stamp);
    }

    /// The stamp with this sequence, unless another has taken its place.
    #[inline]
    pub fn get(&self, sequence: u64) -> Option<Stamp> {
        self.read(sequence)
    }

    /// The same, once: a taken stamp makes room ([`Slots::has_room`]).
    #[inline]
    pub fn take(&self, key: u64) -> Option<Stamp> {
        let slot = self.slot(key);
        let stamp = self.read(key)?;
        if slot[TAKEN].load(Ordering::Relaxed) == !key {
            return None;
        }
        // Release: with the load in `has_room`; the writer overwrites slots that have been read.
        slot[TAKEN].store(!key, Ordering::Release);
        Some(stamp)
    }

    /// Whether the stamp in the slot of this sequence is its own, was taken, or was withdrawn.
    #[inline]
    pub fn has_room(&self, key: u64) -> bool {
        let slot = self.slot(key);
        let there = slot[KEY].load(Ordering::Relaxed);
        // Acquire: with the store in `take`.
        there == 0 || there == !key || slot[TAKEN].load(Ordering::Acquire) == there
    }

    /// Takes back the stamp of a message that could not be sent.
    #[inline]
    pub fn withdraw(&self, key: u64) {
        self.slot(key)[KEY].store(0, Ordering::Relaxed);
    }

    /// Writes a stamp under a number of the mechanism's own.
    #[inline]
    pub fn put_at(&self, key: u64, stamp: &Stamp) {
        let slot = self.slot(key);
        slot[KEY].store(0, Ordering::Relaxed);
        // A reader that sees one of the new words sees that the old key is gone: pairs with the
        // fence in `read`.
        fence(Ordering::Release);
        slot[TAKEN].store(0, Ordering::Relaxed);
        slot[SEQUENCE].store(stamp.sequence, Ordering::Relaxed);
        slot[INTENDED].store(stamp.intended_ns, Ordering::Relaxed);
        slot[SENT].store(stamp.sent_ns, Ordering::Relaxed);
        // Release: with the first load in `read`.
        slot[KEY].store(!key, Ordering::Release);
    }

    #[inline]
    fn read(&self, key: u64) -> Option<Stamp> {
        let slot = self.slot(key);
        // Acquire: with the last store in `put_at`.
        if slot[KEY].load(Ordering::Acquire) != !key {
            return None;
        }
        let stamp = Stamp {
            sequence: slot[SEQUENCE].load(Ordering::Relaxed),
            intended_ns: slot[INTENDED].load(Ordering::Relaxed),
            sent_ns: slot[SENT].load(Ordering::Relaxed),
        };
        fence(Ordering::Acquire);
        (slot[KEY].load(Ordering::Relaxed) == !key).then_some(stamp)
    }

    /// The message that ends a run has the topmost bit set and a slot of its own, so that it does
    /// not displace a message whose other bits are the same.
    #[inline]
    fn slot(&self, key: u64) -> &[AtomicU64; WORDS] {
        let (slots, _) = self.0.as_chunks::<WORDS>();
        let at = if key >> 63 == 1 { SLOTS } else { key % SLOTS };
        #[expect(clippy::cast_possible_truncation, reason = "at most SLOTS")]
        let at = at as usize;
        &slots[at]
    }
}

/// The sending end's view of mechanisms that say "one more" and nothing else: messages are numbered
/// as they are sent.
#[derive(Debug)]
pub(super) struct Outgoing {
    slots: Slots,
    next: u64,
}

impl Outgoing {
    /// On the sending thread, before anything was sent.
    pub fn new(slots: &Slots) -> Outgoing {
        slots.fault_in();
        Outgoing {
            slots: slots.clone(),
            next: 0,
        }
    }

    /// Number of the next message.
    #[inline]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Writes the stamp, then has `announce` tell of it. EAGAIN: the receiver is [`SLOTS`] messages
    /// behind.
    #[inline]
    pub fn send(
        &mut self,
        stamp: &Stamp,
        announce: impl FnOnce() -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        if !self.slots.has_room(self.next) {
            return Err(Errno::AGAIN);
        }
        self.slots.put_at(self.next, stamp);
        announce()?;
        self.next += 1;
        Ok(())
    }
}

/// The receiving end's.
#[derive(Debug)]
pub(super) struct Incoming {
    slots: Slots,
    next: u64,
}

impl Incoming {
    /// On the receiving thread, before anything was received.
    pub fn new(slots: &Slots) -> Incoming {
        slots.fault_in();
        Incoming {
            slots: slots.clone(),
            next: 0,
        }
    }

    /// Number of the next message.
    #[inline]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The stamp of the next message, which was announced. ESTALE: it is not there.
    #[inline]
    pub fn receive(&mut self) -> Result<Stamp, Errno> {
        let stamp = self.slots.take(self.next).ok_or(Errno::STALE)?;
        self.next += 1;
        Ok(stamp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(sequence: u64) -> Stamp {
        Stamp {
            sequence,
            intended_ns: sequence * 10,
            sent_ns: sequence * 10 + 1,
        }
    }

    #[test]
    fn a_stamp_is_found_by_its_sequence_until_another_takes_its_place() {
        let slots = Slots::new().unwrap();
        assert!(
            (0..SLOTS).all(|sequence| slots.get(sequence).is_none()),
            "fresh memory has none"
        );
        slots.put(&stamp(5));
        slots.put(&stamp(6));
        assert_eq!(
            (slots.get(5), slots.clone().get(6)),
            (Some(stamp(5)), Some(stamp(6)))
        );
        slots.put(&stamp(5 + SLOTS));
        assert_eq!(
            (slots.get(5), slots.get(5 + SLOTS)),
            (None, Some(stamp(5 + SLOTS)))
        );
    }

    #[test]
    fn the_end_of_a_run_displaces_no_message() {
        const END: u64 = 1 << 63;
        let slots = Slots::new().unwrap();
        slots.put(&stamp(5));
        slots.put(&Stamp {
            sequence: END | 5,
            ..Stamp::default()
        });
        assert_eq!(slots.get(5), Some(stamp(5)));
        assert_eq!(
            slots.get(END | 5).map(|stamp| stamp.sequence),
            Some(END | 5)
        );
    }

    #[test]
    fn what_was_taken_is_not_had_again_and_makes_room() {
        let slots = Slots::new().unwrap();
        slots.put(&stamp(1));
        assert!(slots.has_room(1) && slots.has_room(2) && !slots.has_room(1 + SLOTS));
        assert_eq!((slots.take(1), slots.take(1)), (Some(stamp(1)), None));
        assert!(slots.has_room(1 + SLOTS));
        slots.put(&stamp(2));
        slots.withdraw(2);
        assert!(slots.get(2).is_none() && slots.has_room(2 + SLOTS));
        slots.put(&stamp(1));
        assert_eq!(slots.take(1), Some(stamp(1)), "put anew");
    }

    #[test]
    fn a_receiver_that_is_behind_stops_its_sender_and_loses_nothing() {
        let slots = Slots::new().unwrap();
        let (mut outgoing, mut incoming) = (Outgoing::new(&slots), Incoming::new(&slots));
        assert_eq!(incoming.receive(), Err(Errno::STALE));
        (0..SLOTS).for_each(|sequence| outgoing.send(&stamp(sequence), || Ok(())).unwrap());
        assert_eq!(outgoing.send(&stamp(SLOTS), || Ok(())), Err(Errno::AGAIN));
        assert_eq!(incoming.receive(), Ok(stamp(0)));
        assert_eq!(
            outgoing.send(&stamp(SLOTS), || Err(Errno::INTR)),
            Err(Errno::INTR)
        );
        assert_eq!(outgoing.send(&stamp(SLOTS), || Ok(())), Ok(()));
        assert!((1..=SLOTS).all(|sequence| incoming.receive() == Ok(stamp(sequence))));
    }

    #[test]
    fn a_reader_never_sees_half_of_a_stamp() {
        const ROUNDS: u64 = 20_000;
        let slots = Slots::new().unwrap();
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let seen = |round| {
                    slots
                        .get(round * SLOTS)
                        .inspect(|got| assert_eq!(*got, stamp(round * SLOTS)))
                };
                while seen(ROUNDS).is_none() {
                    (0..ROUNDS).step_by(997).for_each(|round| _ = seen(round));
                }
            });
            (0..=ROUNDS).for_each(|round| slots.put(&stamp(round * SLOTS)));
            reader.join().unwrap();
        });
    }
}
