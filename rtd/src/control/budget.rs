//! How much of what clients cause is written to the log.
//!
//! Invariant: at most [`LINES_PER_SECOND`] lines and one summary in a second, whatever clients do; what
//! was held back is counted in the summary.

use super::ControlCounters;
use crate::log;
use std::fmt::Arguments;
use std::time::{Duration, Instant};

const LINES_PER_SECOND: u32 = 20;

#[derive(Debug)]
pub(super) struct LogBudget {
    left: u32,
    held_back: u64,
    since: Instant,
    reported: ControlCounters,
}

impl LogBudget {
    pub fn new(now: Instant) -> LogBudget {
        LogBudget { left: LINES_PER_SECOND, held_back: 0, since: now, reported: ControlCounters::default() }
    }

    pub fn info(&mut self, text: Arguments<'_>) {
        if self.spend() {
            log::info(text);
        }
    }

    pub fn warning(&mut self, text: Arguments<'_>) {
        if self.spend() {
            log::warning(text);
        }
    }

    fn spend(&mut self) -> bool {
        let granted = self.left > 0;
        self.left = self.left.saturating_sub(1);
        self.held_back += u64::from(!granted);
        granted
    }

    /// Once a second: what misbehaviour cost no line of its own is summed up.
    pub fn refill(&mut self, now: Instant, counters: &ControlCounters) {
        if now.saturating_duration_since(self.since) < Duration::from_secs(1) {
            return;
        }
        let abuse = |c: &ControlCounters| (c.evicted, c.unread, c.bad_frames, c.shortages);
        if self.held_back > 0 || abuse(counters) != abuse(&self.reported) {
            log::warning(format_args!("control socket: {} lines held back; {counters}", self.held_back));
        }
        *self = LogBudget { reported: *counters, ..LogBudget::new(now) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_so_many_lines_and_no_more() {
        let start = Instant::now();
        let mut budget = LogBudget::new(start);
        let granted = (0..100).filter(|_| budget.spend()).count();
        assert_eq!((granted, budget.held_back), (20, 80));
        budget.refill(start + Duration::from_millis(999), &ControlCounters::default());
        assert!(!budget.spend());
        budget.refill(start + Duration::from_secs(1), &ControlCounters::default());
        assert!(budget.spend());
    }
}
