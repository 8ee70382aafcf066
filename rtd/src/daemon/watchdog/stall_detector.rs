//! Decides from samples whether one lane thread is stalled or over its budget.
//!
//! A sample has three values, which cost the thread two plain stores for each message: its number
//! of turns (odd with a message in hand), its CPU time, and, only if that has not advanced, whether
//! it waits.
//!
//! The thread makes no progress if two samples show the same message in hand, or if both show that
//! it was runnable and it has not run in between: a thread that has not run cannot have gone to
//! sleep meanwhile, so it was runnable all the time. A thread that sleeps has nothing to do: the
//! object that it waits for, a queue, a signal or a futex, wakes it.
//!
//! Invariant: if a sample is more than a period late, the interval counts as one period, which is
//! less than any limit (at least two periods), and the CPU time used in it is reduced in the same
//! proportion. A machine (or a daemon) that stopped as a whole is therefore not mistaken for a
//! stalled lane, nor for a lane that used all of that time, as the clock of a halted virtual CPU
//! would show.

use rtcore::lane::progress::Turns;
use rtcore::stats::Guard;
use rtcore::stats::guard::GuardState;

/// The limits of a thread.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Time from one sample to the next.
    pub period_ns: u64,
    /// Longest time without progress.
    pub stall_ns: u64,
    /// Time over which its duty is measured.
    pub window_ns: u64,
    /// Share of the CPU that it may use, in thousandths; none: all of it.
    pub duty_permille: Option<u32>,
    /// Its duty is the time with a message in hand, not its CPU time.
    pub duty_is_dispatch: bool,
}

/// State of a thread at one sample.
#[derive(Clone, Copy, Debug)]
pub struct Observation {
    pub at_ns: u64,
    /// Whether it has a message in hand, and which one.
    pub turns: Turns,
    /// Time in dispatches so far.
    pub worked_ns: u64,
    /// CPU time so far; none if it is not known.
    pub cpu_ns: Option<u64>,
}

/// Why a thread makes no progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Still {
    /// It is runnable and does not get the CPU.
    Starved,
    /// It has one message in hand.
    Dispatch,
}

/// The change that a sample has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It has made no progress for this long, which is longer than it may.
    Stalled(Still, u64),
    /// It makes progress again, after this time.
    Moves(u64),
    /// It used this many thousandths of the last window, more than it may.
    Over(u64),
    /// It is within its budget again.
    Within(u64),
}

/// The state for one thread.
#[derive(Debug)]
pub struct StallDetector {
    bounds: Bounds,
    last: Option<Observation>,
    /// At the last sample it was runnable and had not run since the sample before.
    wanting: bool,
    still_ns: u64,
    stalled: bool,
    over: bool,
    /// Number of times that it exceeded its budget, each of one window or more.
    floods: u64,
    /// The current window so far: its time, and the time used in it.
    window_ns: u64,
    used_ns: u64,
    /// Recent CPU time, halved at each sample: the thread with the most has run without a break.
    recent_ns: u64,
    /// The record for the page.
    pub guard: Guard,
}

impl StallDetector {
    /// Makes a detector for a thread without samples.
    pub fn new(bounds: Bounds) -> StallDetector {
        StallDetector {
            bounds,
            last: None,
            wanting: false,
            still_ns: 0,
            stalled: false,
            over: false,
            floods: 0,
            window_ns: 0,
            used_ns: 0,
            recent_ns: 0,
            guard: Guard::default(),
        }
    }

    /// Whether it has made no progress for longer than it may.
    pub fn is_stalled(&self) -> bool {
        self.stalled
    }

    /// Number of times that it exceeded its budget.
    pub fn floods(&self) -> u64 {
        self.floods
    }

    /// Its recent CPU time at the last sample.
    pub fn recent_ns(&self) -> u64 {
        self.recent_ns
    }

    /// The same, including the time since then; `cpu_ns` is its CPU time now.
    pub fn recent_until_ns(&self, cpu_ns: u64) -> u64 {
        let seen_ns = self.last.and_then(|last| last.cpu_ns).unwrap_or(cpu_ns);
        self.recent_ns
            .saturating_add(cpu_ns.saturating_sub(seen_ns))
    }

    /// Evaluates a sample; `waits` tells whether the thread waits, and is called only if this
    /// matters.
    pub fn observe(
        &mut self,
        observed: Observation,
        waits: impl FnOnce() -> Option<bool>,
    ) -> [Option<Change>; 2] {
        let last = self.last.replace(observed).unwrap_or(observed);
        let since_ns = observed.at_ns.saturating_sub(last.at_ns);
        let elapsed_ns = if since_ns <= 2 * self.bounds.period_ns {
            since_ns
        } else {
            self.bounds.period_ns
        };
        let ran_ns = observed
            .cpu_ns
            .zip(last.cpu_ns)
            .map(|(now, before)| now.saturating_sub(before));
        self.recent_ns = self.recent_ns / 2 + ran_ns.unwrap_or(0);
        self.guard.cpu_ns = observed.cpu_ns.unwrap_or(self.guard.cpu_ns);
        let worked_ns = observed.worked_ns.saturating_sub(last.worked_ns);
        let used_ns = if self.bounds.duty_is_dispatch {
            Some(worked_ns)
        } else {
            ran_ns
        };
        let over =
            used_ns.and_then(|used_ns| self.duty(part(used_ns, elapsed_ns, since_ns), elapsed_ns));
        let changes = [
            self.progress(observed, last, elapsed_ns, ran_ns, waits),
            over,
        ];
        self.guard.state = match (self.stalled, self.over) {
            (true, _) => GuardState::Stalled,
            (false, true) => GuardState::OverBudget,
            (false, false) => GuardState::Ok,
        };
        changes
    }

    fn progress(
        &mut self,
        observed: Observation,
        last: Observation,
        elapsed_ns: u64,
        ran_ns: Option<u64>,
        waits: impl FnOnce() -> Option<bool>,
    ) -> Option<Change> {
        let wants = ran_ns == Some(0) && waits() == Some(false);
        let starved = wants && self.wanting;
        self.wanting = wants;
        let in_hand = observed.turns.is_busy() && observed.turns == last.turns;
        if starved || in_hand {
            self.still_ns += elapsed_ns;
        } else {
            let was_ns = std::mem::take(&mut self.still_ns);
            return std::mem::take(&mut self.stalled).then_some(Change::Moves(was_ns));
        }
        if self.still_ns < self.bounds.stall_ns {
            return None;
        }
        self.guard.stall_max_ns = self.guard.stall_max_ns.max(self.still_ns);
        if std::mem::replace(&mut self.stalled, true) {
            return None;
        }
        self.guard.stalls += 1;
        Some(Change::Stalled(
            if starved {
                Still::Starved
            } else {
                Still::Dispatch
            },
            self.still_ns,
        ))
    }

    fn duty(&mut self, used_ns: u64, elapsed_ns: u64) -> Option<Change> {
        self.used_ns = self.used_ns.saturating_add(used_ns);
        self.window_ns += elapsed_ns;
        if self.window_ns < self.bounds.window_ns {
            return None;
        }
        let window_ns = std::mem::take(&mut self.window_ns).max(1);
        let permille = std::mem::take(&mut self.used_ns).saturating_mul(1000) / window_ns;
        self.guard.duty_permille = permille;
        self.guard.duty_max_permille = self.guard.duty_max_permille.max(permille);
        let over = self
            .bounds
            .duty_permille
            .is_some_and(|most| permille > most.into());
        self.guard.over_budget += u64::from(over);
        match (std::mem::replace(&mut self.over, over), over) {
            (false, true) => {
                self.floods += 1;
                Some(Change::Over(permille))
            }
            (true, false) => Some(Change::Within(permille)),
            _ => None,
        }
    }
}

/// The part of `used_ns` that corresponds to `of_ns` of `whole_ns`.
fn part(used_ns: u64, of_ns: u64, whole_ns: u64) -> u64 {
    let part = u128::from(used_ns) * u128::from(of_ns) / u128::from(whole_ns.max(1));
    u64::try_from(part).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn bounds() -> Bounds {
        Bounds {
            period_ns: 10 * MS,
            stall_ns: 30 * MS,
            window_ns: 100 * MS,
            duty_permille: Some(500),
            duty_is_dispatch: false,
        }
    }

    /// A stall detector and the thread it watches.
    struct Case(StallDetector, Observation);

    impl Case {
        fn new(bounds: Bounds) -> Case {
            let observed = Observation {
                at_ns: 0,
                turns: Turns(0),
                worked_ns: 0,
                cpu_ns: Some(0),
            };
            let mut case = Case(StallDetector::new(bounds), observed);
            assert_eq!(case.after(0, 0, 0, true), [None, None]);
            case
        }

        /// A sample some milliseconds later, after this much CPU time and this many turns.
        fn after(&mut self, ms: u64, cpu_ms: u64, turns: u64, waits: bool) -> [Option<Change>; 2] {
            let Case(detector, observed) = self;
            observed.at_ns += ms * MS;
            observed.cpu_ns = observed.cpu_ns.map(|cpu_ns| cpu_ns + cpu_ms * MS);
            observed.turns.0 += turns;
            detector.observe(*observed, || Some(waits))
        }
    }

    #[test]
    fn a_thread_that_sleeps_or_works_is_well_for_ever() {
        let mut idle = Case::new(bounds());
        let mut working = Case::new(bounds());
        for _ in 0..100 {
            assert_eq!(idle.after(10, 0, 0, true), [None, None]);
            assert_eq!(working.after(10, 4, 2, false), [None, None]);
        }
        assert_eq!(
            (
                idle.0.guard.duty_max_permille,
                working.0.guard.duty_max_permille
            ),
            (0, 400)
        );
        assert_eq!(idle.0.guard.state, GuardState::Ok);
    }

    #[test]
    fn one_that_wants_the_cpu_and_gets_none_is_starved_and_then_moves_again() {
        let mut case = Case::new(bounds());
        // Woken during this period: only from here on it is known to have been runnable all the
        // time.
        assert_eq!(case.after(10, 0, 0, false)[0], None);
        assert_eq!(case.after(10, 0, 0, false)[0], None);
        assert_eq!(case.after(10, 0, 0, false)[0], None);
        assert_eq!(
            case.after(10, 0, 0, false)[0],
            Some(Change::Stalled(Still::Starved, 30 * MS))
        );
        assert!(case.0.is_stalled());
        assert_eq!(case.after(10, 0, 0, false)[0], None, "told once");
        assert_eq!(
            (case.0.guard.stalls, case.0.guard.stall_max_ns),
            (1, 40 * MS)
        );
        assert_eq!(case.after(10, 1, 2, false)[0], Some(Change::Moves(40 * MS)));
        assert_eq!(
            (case.0.is_stalled(), case.0.guard.state),
            (false, GuardState::Ok)
        );
    }

    #[test]
    fn one_that_is_woken_again_and_again_is_not_starved() {
        let mut case = Case::new(bounds());
        for _ in 0..50 {
            // Seen waking, then asleep after it ran: never twice in a row without having run.
            assert_eq!(case.after(10, 0, 0, false)[0], None);
            assert_eq!(case.after(10, 1, 2, true)[0], None);
        }
    }

    #[test]
    fn one_that_has_the_same_message_in_hand_is_stalled_whether_it_runs_or_sleeps() {
        for (cpu_ms, waits) in [(4, false), (0, true)] {
            let mut case = Case::new(bounds());
            assert_eq!(case.after(10, 1, 1, false)[0], None, "it took one up");
            assert_eq!(case.after(10, cpu_ms, 0, waits)[0], None);
            assert_eq!(case.after(10, cpu_ms, 0, waits)[0], None);
            assert_eq!(
                case.after(10, cpu_ms, 0, waits)[0],
                Some(Change::Stalled(Still::Dispatch, 30 * MS))
            );
            assert_eq!(
                case.after(10, 1, 2, false)[0],
                Some(Change::Moves(30 * MS)),
                "the next one"
            );
            assert_eq!(case.after(10, 1, 0, false)[0], None);
        }
    }

    #[test]
    fn one_that_is_held_by_a_full_receiver_is_not_stalled() {
        let mut case = Case::new(bounds());
        case.after(10, 1, 1, false);
        // It waits in its dispatch: an even number.
        case.after(10, 1, 1, false);
        for _ in 0..100 {
            assert_eq!(case.after(10, 0, 0, true)[0], None);
        }
    }

    #[test]
    fn a_machine_that_stood_still_is_no_lane_that_did() {
        let mut case = Case::new(bounds());
        case.after(10, 1, 1, false);
        // Ten seconds later the watchdog runs again, and finds the same message in hand.
        assert_eq!(case.after(10_000, 0, 0, false)[0], None);
        assert_eq!(case.after(10, 1, 1, true)[0], None);
        assert_eq!(case.0.guard.stalls, 0);
        // Nor with the shortest limit, and with the missed sample right after it.
        let mut case = Case::new(Bounds {
            stall_ns: 20 * MS,
            ..bounds()
        });
        case.after(10, 1, 1, false);
        assert_eq!(case.after(10_000, 0, 0, false)[0], None);
        assert_eq!(case.after(0, 0, 0, false)[0], None);
        assert_eq!(case.after(10, 1, 1, true)[0], None);
        assert_eq!(case.0.guard.stalls, 0);
    }

    #[test]
    fn a_budget_counts_by_window_and_reports_its_begin_and_end() {
        let mut case = Case::new(bounds());
        let mut window = |cpu_ms| {
            (0..10)
                .filter_map(|_| case.after(10, cpu_ms, 2, false)[1])
                .collect::<Vec<_>>()
        };
        assert_eq!(window(5), [], "exactly as much as it may");
        assert_eq!(window(6), [Change::Over(600)]);
        assert_eq!(window(10), []);
        assert_eq!(window(0), [Change::Within(0)]);
        let guard = case.0.guard;
        assert_eq!(
            (
                guard.over_budget,
                guard.duty_permille,
                guard.duty_max_permille
            ),
            (2, 0, 1000)
        );
        assert_eq!(case.0.floods(), 1, "two windows in a row are one flood");
    }

    #[test]
    fn a_machine_that_stood_still_while_a_lane_worked_is_no_lane_above_its_duty() {
        let mut case = Case::new(bounds());
        // Ten seconds, all of them on the lane's clock.
        assert_eq!(case.after(10_000, 10_000, 2, false), [None, None]);
        for _ in 0..9 {
            assert_eq!(case.after(10, 4, 2, false), [None, None]);
        }
        let guard = case.0.guard;
        assert_eq!(
            (guard.duty_permille, guard.over_budget),
            (460, 0),
            "a period at work, nine at 40%"
        );
        // A watchdog that is always late finds the same, only later.
        let mut late = (0..10).filter_map(|_| case.after(30, 24, 2, false)[1]);
        assert_eq!(late.next(), Some(Change::Over(800)));
    }

    #[test]
    fn a_lane_that_polls_is_judged_by_its_dispatches() {
        let mut case = Case::new(Bounds {
            duty_is_dispatch: true,
            ..bounds()
        });
        let mut window = |worked_ms: u64| {
            let step = |case: &mut Case| {
                case.1.worked_ns += worked_ms * MS;
                case.after(10, 10, 2, false)[1]
            };
            (0..10).filter_map(|_| step(&mut case)).collect::<Vec<_>>()
        };
        assert_eq!(window(1), [], "all of the CPU, a tenth of it at work");
        assert_eq!(window(9), [Change::Over(900)]);
        let mut unknown = Case::new(Bounds {
            duty_is_dispatch: true,
            ..bounds()
        });
        unknown.1.cpu_ns = None;
        for _ in 0..20 {
            assert_eq!(
                unknown.after(10, 0, 0, false),
                [None, None],
                "nobody knows whether it gets the CPU"
            );
        }
    }

    #[test]
    fn the_thread_that_ran_most_recently_is_found() {
        let (mut busy, mut burst) = (Case::new(bounds()), Case::new(bounds()));
        burst.after(10, 10, 2, false);
        for _ in 0..4 {
            busy.after(10, 9, 2, false);
            burst.after(10, 1, 2, true);
        }
        assert!(busy.0.recent_ns() > burst.0.recent_ns());
        // Time since the last sample counts too.
        let now_ns = |case: &Case, ms: u64| case.1.cpu_ns.unwrap() + ms * MS;
        assert!(
            burst.0.recent_until_ns(now_ns(&burst, 50)) > busy.0.recent_until_ns(now_ns(&busy, 0))
        );
    }
}
