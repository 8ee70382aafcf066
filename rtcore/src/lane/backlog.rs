//! The messages that wait for full receivers: one queue for each set of ends of which one takes
//! each message.
//!
//! An endpoint, and each member of a group that gets a copy of its own, has its own queue. Members
//! of a group `any` or `round-robin` share one queue, first in, first out, so no member ever gets a
//! message after a newer one went to the group. (An inbox would discard a lower number as a
//! duplicate.) Such a queue does not depend on any one member; it ends as peer-dead only when all
//! of them are dead. If membership follows a POSIX process group or session, it is decided when a
//! message arrives; a queued message then waits for that member alone.

use super::backlog_queue::BacklogQueue;
use super::target::Target;
use std::ops::Range;

/// A queue and the ends behind it.
#[derive(Debug)]
pub(super) struct Backlog {
    /// The ends, any of which may take a queued message.
    pub ends: Range<usize>,
    /// Index of their target.
    pub target: usize,
    pub queue: BacklogQueue,
}

impl Backlog {
    /// The only end behind it; none if there are several.
    pub fn only_end(&self) -> Option<usize> {
        (self.ends.len() == 1).then_some(self.ends.start)
    }

    /// Makes the queues of a route in the order of its ends, and for each target the range of its
    /// queues.
    pub fn of(
        targets: &[Target],
        capacity: usize,
        slot_bytes: usize,
    ) -> (Vec<Backlog>, Vec<Range<usize>>) {
        let mut all = Vec::new();
        let mut by_target = Vec::with_capacity(targets.len());
        for (number, target) in targets.iter().enumerate() {
            let first = all.len();
            let step = if target.is_one_queue() { target.len } else { 1 };
            for start in target.ends().step_by(step) {
                let queue = BacklogQueue::new(capacity, slot_bytes);
                let ends = start..start + step;
                all.push(Backlog {
                    ends,
                    target: number,
                    queue,
                });
            }
            by_target.push(first..all.len());
        }
        (all, by_target)
    }
}
