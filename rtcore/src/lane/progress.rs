//! Progress counters that a lane thread publishes and the watchdog samples.
//!
//! Two words on a cache line of the thread's own, written with plain single-writer stores: two
//! stores for a message. It needs no additional read of the clock, except one for a message that no
//! receiver got. The watchdog samples the words about twenty times a second.
//!
//! Invariant: the number of turns is odd exactly while the thread has a message in hand and does
//! not wait. While a full receiver holds a dispatch (`block`), the number is even, because that
//! wait has a time limit of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The words, for the watchdog. They have their own pair of cache lines.
#[repr(align(128))]
#[derive(Debug, Default)]
pub struct Progress {
    turns: AtomicU64,
    worked_ns: AtomicU64,
}

impl Progress {
    /// Number that changes whenever the thread takes or finishes a message.
    pub fn turns(&self) -> Turns {
        Turns(self.turns.load(Ordering::Relaxed))
    }

    /// Sum of the times from a dequeue to the end of its dispatch.
    pub fn worked_ns(&self) -> u64 {
        self.worked_ns.load(Ordering::Relaxed)
    }
}

/// A value of [`Progress::turns`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turns(pub u64);

impl Turns {
    /// Whether a message is in hand.
    pub fn is_busy(self) -> bool {
        self.0 & 1 == 1
    }
}

/// The thread's own side.
#[derive(Debug, Default)]
pub struct ProgressCell {
    shared: Arc<Progress>,
    // Copies of words that only this side writes: stored without being loaded.
    turns: u64,
    worked_ns: u64,
}

impl ProgressCell {
    /// The words for the watchdog.
    pub fn shared(&self) -> Arc<Progress> {
        Arc::clone(&self.shared)
    }

    /// A message is in hand; also after [`ProgressCell::rest`].
    #[inline]
    pub fn work(&mut self) {
        self.turns = (self.turns + 1) | 1;
        self.shared.turns.store(self.turns, Ordering::Relaxed);
    }

    /// The thread waits, within a time limit that is set elsewhere.
    #[inline]
    pub fn rest(&mut self) {
        self.turns = (self.turns + 1) & !1;
        self.shared.turns.store(self.turns, Ordering::Relaxed);
    }

    /// The dispatch of the message is finished and took this long.
    #[inline]
    pub fn done(&mut self, duty_ns: u64) {
        self.worked_ns = self.worked_ns.wrapping_add(duty_ns);
        self.shared
            .worked_ns
            .store(self.worked_ns, Ordering::Relaxed);
        self.rest();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_busy_exactly_from_work_to_done_and_every_change_shows() {
        let mut cell = ProgressCell::default();
        let seen = cell.shared();
        let mut numbers = vec![seen.turns()];
        for step in 0..3 {
            cell.work();
            assert!(seen.turns().is_busy());
            numbers.push(seen.turns());
            cell.rest();
            assert!(!seen.turns().is_busy(), "held by a receiver in step {step}");
            numbers.push(seen.turns());
            cell.work();
            numbers.push(seen.turns());
            cell.done(7);
            assert!(!seen.turns().is_busy());
            numbers.push(seen.turns());
        }
        assert!(
            numbers.windows(2).all(|pair| pair[0] != pair[1]),
            "{numbers:?}"
        );
        assert_eq!(seen.worked_ns(), 21);
    }

    #[test]
    fn its_lines_are_nobody_elses() {
        assert_eq!((align_of::<Progress>(), size_of::<Progress>()), (128, 128));
    }
}
