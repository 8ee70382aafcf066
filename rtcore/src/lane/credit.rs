//! In-flight credits of a signal endpoint.
//!
//! RLIMIT_SIGPENDING counts the queued signals of a whole uid: one receiver that does not take its
//! signals could use it up and block the signals of all others. Each endpoint therefore gets a
//! share, and further signals wait in the route's queue as if the kernel had returned EAGAIN. The
//! kernel does not notify rtd when a signal is taken. When the share is used up, the lane reads
//! from the kernel's figures how much of it is free again.
//!
//! There is no lock: a lane that is preempted during such a read delays no other lane. If two lanes
//! read at once, one result counts.
//!
//! Invariant: no more than the share of one endpoint is pending because of rtd (plus one for each
//! lane thread that sends during such a read).

use crate::sys::sigqueue::SignalQueue;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Shortest time between two reads of the kernel's figures.
const REFILL_NS: u64 = 500_000;

/// The credit. Writers: every lane thread that sends to the endpoint; the control thread at a
/// registration.
#[derive(Debug)]
pub struct Credit {
    signo: i32,
    to_thread: bool,
    in_flight: AtomicU32,
    limit: AtomicU32,
    refilled_ns: AtomicU64,
    refills: AtomicU32,
}

impl Credit {
    /// Makes a credit without a limit, until a process registers.
    pub fn new(signo: i32, to_thread: bool) -> Credit {
        Credit {
            signo,
            to_thread,
            in_flight: AtomicU32::new(0),
            limit: AtomicU32::new(u32::MAX),
            refilled_ns: AtomicU64::new(0),
            refills: AtomicU32::new(0),
        }
    }

    /// The signals go to the registered thread, not to the process.
    pub fn to_thread(&self) -> bool {
        self.to_thread
    }

    /// Starts the credit of a new receiver, with at most this many signals pending.
    pub fn reset(&self, limit: u32) {
        self.in_flight.store(0, Ordering::Relaxed);
        self.refilled_ns.store(0, Ordering::Relaxed);
        self.set_limit(limit);
    }

    /// Changes the limit of the same receiver.
    pub fn set_limit(&self, limit: u32) {
        self.limit.store(limit.max(1), Ordering::Relaxed);
    }

    /// Takes one; false if the share is used up.
    #[inline]
    pub fn take(&self) -> bool {
        if self.in_flight.fetch_add(1, Ordering::Relaxed) < self.limit.load(Ordering::Relaxed) {
            return true;
        }
        self.give_back(1);
        false
    }

    /// Returns some: signals that were not sent after all, or that were taken.
    pub fn give_back(&self, n: u32) {
        // Saturating: a reset may have happened in between.
        let less = |old: u32| Some(old.saturating_sub(n));
        let _ = self
            .in_flight
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// Returns the signals that the receiver has taken by the kernel's figures. `read` reads these
    /// figures; it is called at most every `REFILL_NS`.
    pub fn refill(&self, now_ns: u64, read: impl FnOnce() -> Option<SignalQueue>) {
        if now_ns.saturating_sub(self.refilled_ns.load(Ordering::Relaxed)) < REFILL_NS {
            return;
        }
        self.refilled_ns.store(now_ns, Ordering::Relaxed);
        let refills = self.refills.load(Ordering::Relaxed);
        let sent = self.in_flight.load(Ordering::Relaxed);
        let Some(queue) = read() else { return };
        // Signals that were sent before the read are either taken or among those that are queued
        // for the uid.
        let pending = if queue.has(self.signo) {
            queue.queued
        } else {
            0
        };
        // If another read ended meanwhile, its result covers the same signals: they must not be
        // returned twice.
        let mine = self.refills.compare_exchange(
            refills,
            refills.wrapping_add(1),
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
        if mine.is_ok() {
            self.give_back(sent.saturating_sub(pending));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGNO: i32 = 40;

    fn queue(queued: u32, pending: bool) -> Option<SignalQueue> {
        // Another signal of the same process is always pending, which does not matter for this one.
        Some(SignalQueue {
            queued,
            limit: 100,
            pending: u64::from(pending) << (SIGNO - 1) | 1 << 50,
        })
    }

    fn takes(credit: &Credit) -> usize {
        (0..100).take_while(|_| credit.take()).count()
    }

    #[test]
    fn a_share_is_a_share() {
        let credit = Credit::new(SIGNO, false);
        credit.reset(3);
        assert_eq!(takes(&credit), 3);
        credit.give_back(1);
        assert_eq!(takes(&credit), 1);
    }

    #[test]
    fn a_look_gives_back_what_is_no_longer_queued() {
        let credit = Credit::new(SIGNO, false);
        credit.reset(10);
        takes(&credit);
        credit.refill(REFILL_NS, || queue(4, true));
        assert_eq!(takes(&credit), 6);
        credit.refill(REFILL_NS * 2, || queue(50, true));
        assert_eq!(
            takes(&credit),
            0,
            "more is queued for the uid than we sent: nothing is known to be free"
        );
        credit.refill(REFILL_NS * 3, || queue(50, false));
        assert_eq!(
            takes(&credit),
            10,
            "nothing is pending for this receiver: the others' signals are not ours"
        );
    }

    #[test]
    fn it_does_not_look_all_the_time() {
        let credit = Credit::new(SIGNO, false);
        credit.reset(1);
        takes(&credit);
        credit.refill(REFILL_NS, || queue(1, true));
        credit.refill(REFILL_NS + 1, || unreachable!("too soon"));
    }

    #[test]
    fn an_unreadable_receiver_keeps_its_credit_in_flight() {
        let credit = Credit::new(SIGNO, false);
        credit.reset(2);
        takes(&credit);
        credit.refill(REFILL_NS, || None);
        assert_eq!(takes(&credit), 0);
    }
}
