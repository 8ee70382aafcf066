//! The watchdog's record of each lane thread: its state, and the cell that writes the record.
//!
//! Writer: the watchdog thread, which is sealed as a lane is. The records are a section of their
//! own, apart from the records that the lane threads write.

use super::Guard;
use super::cells::{even, write_whole};
use super::layout::GuardRecord;
use super::table::Value;
use crate::sys::shm::Mapping;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// State of a lane thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum GuardState {
    /// It makes progress, within its budget.
    #[default]
    Ok = 0,
    /// It used more than its budget in the last window.
    OverBudget = 1,
    /// It made no progress for longer than its lane allows.
    Stalled = 2,
}

impl GuardState {
    /// The name in all outputs.
    pub fn name(self) -> &'static str {
        match self {
            GuardState::Ok => "ok",
            GuardState::OverBudget => "over-budget",
            GuardState::Stalled => "stalled",
        }
    }

    /// The inverse of `state as u64`. An unknown number counts as the worst state.
    pub fn of_word(word: u64) -> GuardState {
        match word {
            0 => GuardState::Ok,
            1 => GuardState::OverBudget,
            _ => GuardState::Stalled,
        }
    }
}

impl Value for GuardState {
    const WORDS: usize = 1;

    fn put(self, words: &mut [u64]) {
        words[0] = self as u64;
    }

    fn get(words: &[u64]) -> GuardState {
        GuardState::of_word(words[0])
    }
}

/// Publishes the record of one lane thread.
#[derive(Debug)]
pub struct GuardCell {
    record: NonNull<GuardRecord>,
    seq: u64,
    // Keeps the memory mapped.
    _map: Arc<Mapping>,
}

// SAFETY: the pointer is into `_map`, which is Send + Sync and lives as long as the cell; what it
// reaches is atomics.
unsafe impl Send for GuardCell {}

impl GuardCell {
    pub(super) fn new(record: &GuardRecord, map: &Arc<Mapping>) -> GuardCell {
        let seq = even(record.seq.load(Ordering::Relaxed));
        GuardCell {
            record: record.into(),
            seq,
            _map: Arc::clone(map),
        }
    }

    /// Publishes the values in the page.
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
        let worker = |lane, name: &str| WorkerSpec {
            lane,
            name: name.into(),
        };
        let page = Page::create(&PageSpec {
            name: name.clone(),
            lanes: vec![lane("estop"), lane("telemetry")],
            workers: vec![worker(0, "button"), worker(1, "log"), worker(1, "video")],
            ..PageSpec::default()
        })
        .unwrap();
        let log = Guard {
            stalls: 2,
            duty_permille: 400,
            demoted: true,
            cpu_ns: 5,
            ..Guard::default()
        };
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
        assert_eq!(
            read.workers.iter().map(|w| w.guard).collect::<Vec<_>>(),
            [Guard::default(), log, video]
        );
        let both = Guard {
            stalls: 3,
            duty_permille: 400,
            demoted: true,
            cpu_ns: 12,
            ..video
        };
        assert_eq!(
            (read.lanes[0].guard, read.lanes[1].guard),
            (Guard::default(), both)
        );
        assert_eq!(
            (read.lanes[0].degraded(), read.lanes[1].degraded()),
            (vec![], vec!["demoted"])
        );
        assert!(read.is_degraded());
    }
}
