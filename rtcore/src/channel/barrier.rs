//! The barrier of a sender's ring. It decides which messages count if the other end goes away while
//! the sender sends.
//!
//! The session thread closes the barrier, then reads the ring's tail; the sender announces a
//! message (moves the tail), then reads the barrier. Each has a SeqCst fence between its two steps,
//! so at least one of them sees the other's step. A thread that sees both steps tries to *decide*
//! the final tail; the first one wins:
//!
//! ```text
//! sender                                    session thread
//!   tail += 1                                 barrier = CLOSED
//!   fence(SeqCst)  (Producer::ring)  <---->   fence(SeqCst)
//!   barrier closed? decide(own tail)          decide(tail)
//!   accepted = below the decided tail         moves what is below the decided tail
//! ```
//!
//! Invariant: once decided, the tail never changes. Messages below it were accepted, and the
//! session thread moves them; the others were refused. No thread takes a lock or spins.

use crate::sync::{AtomicU32, AtomicU64, Ordering, fence};

/// Final: the other end of this ring is gone.
const CLOSED: u32 = 1;
/// Temporary: nobody receives messages of this ring.
const UNREACHABLE: u32 = 2;
const UNDECIDED: u64 = u64::MAX;

/// Shared by a ring's sender and the session thread.
#[derive(Debug)]
pub(crate) struct SendBarrier {
    state: AtomicU32,
    decided: AtomicU64,
}

impl SendBarrier {
    /// An open barrier.
    pub fn new() -> SendBarrier {
        SendBarrier {
            state: AtomicU32::new(0),
            decided: AtomicU64::new(UNDECIDED),
        }
    }

    /// Whether the ring takes messages. [`SendBarrier::admitted`] decides about a message that was
    /// announced nevertheless.
    #[inline]
    pub fn is_open(&self) -> bool {
        // SYNC POINT with the stores below: a thread that sees the barrier closed sees the reason
        // that was written before.
        self.state.load(Ordering::Acquire) == 0
    }

    /// Sender: of all messages announced up to `tail`, those below the returned index count. It
    /// must be called after `Producer::ring`, whose fence it needs.
    #[inline]
    pub fn admitted(&self, tail: u64) -> u64 {
        if self.state.load(Ordering::Relaxed) & CLOSED == 0 {
            tail
        } else {
            self.decide(tail).min(tail)
        }
    }

    /// Whether it is closed for good.
    pub fn is_closed(&self) -> bool {
        self.state.load(Ordering::Acquire) & CLOSED != 0
    }

    /// Session thread, or the sender when rtd stops: closes it for good and returns the index below
    /// which messages count. `tail` reads the ring's tail.
    pub fn close(&self, tail: impl FnOnce() -> u64) -> u64 {
        self.state.fetch_or(CLOSED, Ordering::Release);
        // SYNC POINT with the fence of `Producer::ring`.
        fence(Ordering::SeqCst);
        self.decide(tail())
    }

    /// Session thread: records whether a receiver is there at the moment.
    pub fn set_reachable(&self, reachable: bool) {
        if reachable {
            self.state.fetch_and(!UNREACHABLE, Ordering::Release);
        } else {
            self.state.fetch_or(UNREACHABLE, Ordering::Release);
        }
    }

    #[cold]
    fn decide(&self, tail: u64) -> u64 {
        // AcqRel: a thread that learns the other's decision sees the slots that were written before
        // it.
        match self
            .decided
            .compare_exchange(UNDECIDED, tail, Ordering::AcqRel, Ordering::Acquire)
        {
            Ok(_) => tail,
            Err(decided) => decided,
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::message::{Meta, Origin};
    use crate::ring::{Envelope, Geometry, Kind, local};

    fn envelope(sequence: u64) -> Envelope {
        let meta = Meta {
            sequence,
            ..Meta::default()
        };
        Envelope {
            meta,
            origin: Origin::UNKNOWN,
            kind: Kind::Bytes { priority: 0 },
            len: 0,
        }
    }

    #[test]
    fn an_unreachable_gate_opens_again_and_a_closed_one_does_not() {
        let barrier = SendBarrier::new();
        barrier.set_reachable(false);
        assert!(!barrier.is_open());
        assert_eq!(
            barrier.admitted(3),
            3,
            "announced into a ring that somebody empties some day"
        );
        barrier.set_reachable(true);
        assert!(barrier.is_open());
        assert_eq!(barrier.close(|| 5), 5);
        barrier.set_reachable(true);
        assert!(!barrier.is_open());
        assert_eq!(barrier.close(|| 9), 5);
        assert_eq!((barrier.admitted(4), barrier.admitted(7)), (4, 5));
    }

    /// In every race, the messages that the sender reports as accepted are those that are moved.
    #[test]
    fn what_was_accepted_is_what_is_moved_in_every_race() {
        for round in 0..3_000_u64 {
            let geometry = Geometry::new(64, 8).unwrap();
            let (mut producer, consumer) = local(geometry);
            let (barrier, cursor) = (SendBarrier::new(), producer.recovery_cursor());
            let (mut next, mut moved) = local(geometry);
            let (accepted, decided) = std::thread::scope(|scope| {
                let sender = scope.spawn(|| {
                    let mut accepted = 0;
                    for sequence in 1..=40 {
                        if !barrier.is_open() {
                            break;
                        }
                        producer
                            .push(&envelope(sequence), &sequence.to_ne_bytes())
                            .unwrap();
                        if barrier.admitted(producer.tail()) < producer.tail() {
                            break;
                        }
                        accepted = sequence;
                    }
                    accepted
                });
                for _ in 0..round % 300 {
                    std::hint::spin_loop();
                }
                let decided = barrier.close(|| cursor.tail());
                let from = cursor.taken(decided);
                let count = cursor.move_to(from, decided, &mut next);
                assert_eq!((count.moved, count.lost), (decided, 0));
                (sender.join().unwrap(), decided)
            });
            assert_eq!(accepted, decided, "round {round}");
            let mut buffer = [0; 8];
            for sequence in 1..=decided {
                let got = moved.take(&mut buffer).unwrap().unwrap();
                assert_eq!(
                    (got.meta.sequence, u64::from_ne_bytes(buffer)),
                    (sequence, sequence)
                );
            }
            assert!(moved.take(&mut buffer).unwrap().is_none());
            drop(consumer);
        }
    }
}
