//! What the watchdog says about each lane thread: the record's words, and the cell that writes them.
//!
//! Writer: the watchdog thread, which is sealed as a lane is. The records are a section of their own, apart from what the
//! lane threads write.

use super::layout::{GUARD_WORDS, GuardRecord};
use super::writer::{even, write_whole};
use crate::sys::shm::Mapping;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// How a lane thread is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum GuardState {
    /// It moves, within its budget.
    #[default]
    Ok = 0,
    /// It used more than its budget in the last window.
    OverBudget = 1,
    /// It has not moved for longer than its lane allows.
    Stalled = 2,
}

impl GuardState {
    /// As all outputs call it.
    pub fn name(self) -> &'static str {
        match self {
            GuardState::Ok => "ok",
            GuardState::OverBudget => "over-budget",
            GuardState::Stalled => "stalled",
        }
    }
}

/// What the watchdog found of one lane thread since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Guard {
    /// At the last look.
    pub state: GuardState,
    /// Times that it did not move for longer than its lane allows.
    pub stalls: u64,
    /// The longest of them so far, in steps of the watchdog's period.
    pub stall_max_ns: u64,
    /// Windows in which it used more than its budget.
    pub over_budget: u64,
    /// Its share of a CPU in the last window, in thousandths; of a lane that polls, of time with a message in hand.
    pub duty_permille: u64,
    /// The highest of them.
    pub duty_max_permille: u64,
    /// CPU time it has had since its start; 0 where Linux does not schedule it.
    pub cpu_ns: u64,
    /// The watchdog took it its priority.
    pub demoted: bool,
}

impl Guard {
    /// Both together: the worse state, the sum of the counts, the highest of the others.
    pub fn merge(&mut self, other: &Guard) {
        self.state = self.state.max(other.state);
        self.stalls = self.stalls.saturating_add(other.stalls);
        self.stall_max_ns = self.stall_max_ns.max(other.stall_max_ns);
        self.over_budget = self.over_budget.saturating_add(other.over_budget);
        self.duty_permille = self.duty_permille.max(other.duty_permille);
        self.duty_max_permille = self.duty_max_permille.max(other.duty_max_permille);
        self.cpu_ns = self.cpu_ns.saturating_add(other.cpu_ns);
        self.demoted |= other.demoted;
    }

    fn words(&self) -> [u64; GUARD_WORDS] {
        [
            self.state as u64,
            self.stalls,
            self.stall_max_ns,
            self.over_budget,
            self.duty_permille,
            self.duty_max_permille,
            self.cpu_ns,
            self.demoted.into(),
        ]
    }

    /// The inverse of `words`. A state that nobody writes is the worst.
    pub(super) fn of_words(words: [u64; GUARD_WORDS]) -> Guard {
        let [state, stalls, stall_max_ns, over_budget, duty_permille, duty_max_permille, cpu_ns, demoted] =
            words;
        Guard {
            state: match state {
                0 => GuardState::Ok,
                1 => GuardState::OverBudget,
                _ => GuardState::Stalled,
            },
            stalls,
            stall_max_ns,
            over_budget,
            duty_permille,
            duty_max_permille,
            cpu_ns,
            demoted: demoted != 0,
        }
    }
}

/// Where the watchdog shows one lane thread.
#[derive(Debug)]
pub struct GuardCell {
    record: NonNull<GuardRecord>,
    seq: u64,
    // Keeps what the pointer points at.
    _map: Arc<Mapping>,
}

// SAFETY: the pointer is into `_map`, which is Send + Sync and lives as long as the cell; what it reaches is atomics.
unsafe impl Send for GuardCell {}

impl GuardCell {
    pub(super) fn new(record: &GuardRecord, map: &Arc<Mapping>) -> GuardCell {
        let seq = even(record.seq.load(Ordering::Relaxed));
        GuardCell { record: record.into(), seq, _map: Arc::clone(map) }
    }

    /// Shows it.
    pub fn publish(&mut self, guard: &Guard) {
        // SAFETY: points into `_map`, made from a reference in `new`.
        let record = unsafe { self.record.as_ref() };
        self.seq = write_whole(&record.seq, self.seq, &record.words, guard.words());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::reader::Reader;
    use crate::stats::writer::Page;
    use crate::stats::{LaneSpec, PageSpec, WorkerSpec};

    #[test]
    fn what_the_watchdog_shows_is_read_by_thread_and_by_lane() {
        let name = format!("t{}.guard", std::process::id());
        let lane = |name: &str| LaneSpec {
            name: name.into(),
            priority: 9,
            cpu: 0,
            wait: "block".into(),
            confined: false,
        };
        let worker = |lane, name: &str| WorkerSpec { lane, name: name.into() };
        let page = Page::create(&PageSpec {
            name: name.clone(),
            lanes: vec![lane("estop"), lane("telemetry")],
            workers: vec![worker(0, "button"), worker(1, "log"), worker(1, "video")],
            ..PageSpec::default()
        })
        .unwrap();
        let log = Guard { stalls: 2, duty_permille: 400, demoted: true, cpu_ns: 5, ..Guard::default() };
        let video = Guard {
            state: GuardState::Stalled,
            stalls: 1,
            stall_max_ns: 9,
            over_budget: 3,
            duty_permille: 10,
            duty_max_permille: 990,
            cpu_ns: 7,
            demoted: false,
        };
        page.guard(1).publish(&Guard { stalls: 1, ..log });
        page.guard(1).publish(&log);
        page.guard(2).publish(&video);
        let read = Reader::open(&name).unwrap().snapshot().unwrap();
        assert_eq!(read.workers.iter().map(|w| w.guard).collect::<Vec<_>>(), [Guard::default(), log, video]);
        let both = Guard { stalls: 3, duty_permille: 400, demoted: true, cpu_ns: 12, ..video };
        assert_eq!((read.lanes[0].guard, read.lanes[1].guard), (Guard::default(), both));
        assert_eq!((read.lanes[0].degraded(), read.lanes[1].degraded()), (vec![], vec!["demoted"]));
        assert!(read.is_degraded());
    }
}
