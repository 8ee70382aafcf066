//! Epochs of counters: an epoch identifies the counter that a message's number belongs to
//! ([`Meta::epoch`](crate::message::Meta::epoch)).

use crate::sys::clock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Identifies the program that this process runs: the same for all its sessions, another one after
/// exec(2). (The pid identifies a forked process.)
pub fn program() -> u32 {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let new = new_epoch();
    NUMBER
        .compare_exchange(0, new, Ordering::Relaxed, Ordering::Relaxed)
        .map_or_else(|known| known, |_| new)
}

/// Makes an epoch for a counter that starts now. Never 0, and no two in one process are equal.
///
/// It is the time in microseconds, or one more than the last if two are made in the same
/// microsecond. A daemon or a session needs longer than that to start again. The same 32 bits
/// return after 71 minutes at the earliest, and then only by chance (1 in 4 billion); a receiver
/// therefore compares the sender as well.
pub fn new_epoch() -> u32 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    loop {
        let last = LAST.load(Ordering::Relaxed);
        let next = (clock::monotonic_ns() / 1000).max(last + 1);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the lower half is what changes"
        )]
        let epoch = next as u32;
        if LAST
            .compare_exchange(last, next, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
            && epoch != 0
        {
            return epoch;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_two_epochs_of_a_process_are_equal_and_none_is_zero() {
        let made = std::thread::scope(|scope| {
            let make = || (0..5_000).map(|_| new_epoch()).collect::<Vec<_>>();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(make)).collect();
            threads
                .into_iter()
                .flat_map(|thread| thread.join().unwrap())
                .collect::<Vec<_>>()
        });
        let distinct: HashSet<u32> = made.iter().copied().collect();
        assert_eq!(distinct.len(), made.len());
        assert!(!distinct.contains(&0));
    }
}
