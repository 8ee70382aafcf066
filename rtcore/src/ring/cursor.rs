//! A producer's ring as another thread of its process sees it: handles its messages after its
//! consumer is gone.

use super::layout::{LEFT, copy_out};
use super::memory::View;
use super::producer::Producer;
use crate::sync::Ordering;

/// A producer's ring as another thread of its process sees it.
///
/// Reads only: the tail is the own process' word, the head the consumer's allegation.
#[derive(Debug)]
pub struct RecoveryCursor(View);

/// The result of moving messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Number of messages that are in the other ring now.
    pub moved: u64,
    /// Number of messages that did not fit, because the other ring is smaller.
    pub lost: u64,
}

impl Producer {
    /// A cursor to read this ring from another thread.
    pub fn recovery_cursor(&self) -> RecoveryCursor {
        RecoveryCursor(self.view().clone())
    }
}

impl RecoveryCursor {
    /// Messages announced.
    pub fn tail(&self) -> u64 {
        // SYNC POINT with `Producer::announce`: the slots below are written.
        self.0.producer().tail.load(Ordering::Acquire)
    }

    /// Number of the first `tail` messages that the consumer took. A head that cannot be true
    /// counts as 0, so that no message is lost by it.
    pub fn taken(&self, tail: u64) -> u64 {
        let head = self.0.consumer().head.load(Ordering::Acquire);
        let announced = self.tail();
        let slots = u64::from(self.0.geometry.slots());
        if announced.wrapping_sub(head) > slots {
            return tail.saturating_sub(slots);
        }
        // A consumer that lives may have taken messages that were announced after `tail`.
        if tail.wrapping_sub(head) <= slots {
            head
        } else {
            tail
        }
    }

    /// Closes the ring: its producer was refused for good, and may never use it again.
    pub fn close(&self) {
        // SYNC POINT with `Consumer::is_closed`, as `Producer::close`.
        self.0.producer().closed.store(1, Ordering::Release);
    }

    /// Whether the consumer has released its end: it never takes the remaining messages.
    pub fn has_left(&self) -> bool {
        // SYNC POINT with `Consumer::leave`.
        self.0.consumer().given_up.load(Ordering::Acquire) == LEFT
    }

    /// Records that this many messages of the ring were moved into another ring, and are counted
    /// there.
    pub fn count_moved(&self, moved: u64) {
        self.0.producer().moved.store(moved, Ordering::Relaxed);
    }

    /// Puts the messages `from..until` into another ring, as they are, and wakes its consumer.
    /// Messages further back than the number of slots have been overwritten and are left out.
    ///
    /// They must be announced and not taken: then the producer, which may be writing a later slot,
    /// does not touch their slots.
    pub fn move_to(&self, from: u64, until: u64, other: &mut Producer) -> Moved {
        let mut buffer = vec![0; self.0.geometry.payload_bytes() as usize];
        let mut result = Moved::default();
        let count = until.wrapping_sub(from).min(self.0.geometry.slots().into());
        for back in (1..=count).rev() {
            let slot = self.0.slot(until.wrapping_sub(back));
            let moved = slot.read().is_ok_and(|envelope| {
                let payload =
                    &mut buffer[..envelope.len.min(self.0.geometry.payload_bytes()) as usize];
                copy_out(payload, slot.payload());
                other.push_quietly(&envelope, payload).is_ok()
            });
            if moved {
                result.moved += 1
            } else {
                result.lost += 1
            }
        }
        other.ring();
        result
    }
}
