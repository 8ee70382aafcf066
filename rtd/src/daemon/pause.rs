//! Reports, afterwards, that the daemon or the machine did not run: SIGSTOP, a frozen control
//! group, a debugger, a suspend.
//!
//! The control thread compares the time between two ticks with the configured period.
//! CLOCK_MONOTONIC stops in a suspended machine, CLOCK_BOOTTIME does not. The watchdog, which has
//! the highest priority of the process, shows whether the lanes stopped too: if it was late by the
//! same time, nothing ran.

use crate::log;
use crate::words::LIST_THREADS;
use rtcore::sys::clock;

/// A tick that is this late is logged.
const PAUSE_NS: u64 = 1_000_000_000;

/// The state of the ticks so far.
#[derive(Debug)]
pub(super) struct Pause {
    last: Clocks,
    /// A late tick. It is reported at the next tick, after the next sample of the watchdog.
    pending: Option<Late>,
}

#[derive(Clone, Copy, Debug)]
struct Clocks {
    monotonic_ns: u64,
    boot_ns: u64,
    /// Total lateness of the watchdog.
    watchdog_late_ns: u64,
}

#[derive(Clone, Copy, Debug)]
struct Late {
    gap_ns: u64,
    suspended_ns: u64,
    watchdog_late_ns: u64,
}

impl Clocks {
    fn now(watchdog_late_ns: u64) -> Clocks {
        Clocks {
            monotonic_ns: clock::monotonic_ns(),
            boot_ns: clock::boottime_ns(),
            watchdog_late_ns,
        }
    }
}

impl Pause {
    pub fn new(watchdog_late_ns: u64) -> Pause {
        Pause {
            last: Clocks::now(watchdog_late_ns),
            pending: None,
        }
    }

    /// Called at each tick of the control thread. `watchdog_late_ns` is the total lateness of the
    /// watchdog's samples; `period_ns` is the time between two of them.
    pub fn tick(&mut self, watchdog_late_ns: u64, period_ns: u64) {
        self.step(Clocks::now(watchdog_late_ns), period_ns)
            .into_iter()
            .for_each(|line| log::warning(format_args!("{line}")));
    }

    fn step(&mut self, now: Clocks, period_ns: u64) -> Vec<String> {
        let before = std::mem::replace(&mut self.last, now);
        let lines = self.pending.take().map_or_else(Vec::new, |late| {
            // A watchdog with a long period shows nothing about a short time.
            let all = now.watchdog_late_ns > late.watchdog_late_ns || late.gap_ns <= period_ns;
            lines(late, all)
        });
        let gap_ns = now.monotonic_ns.saturating_sub(before.monotonic_ns);
        let suspended_ns = now
            .boot_ns
            .saturating_sub(before.boot_ns)
            .saturating_sub(gap_ns);
        if gap_ns > PAUSE_NS || suspended_ns > PAUSE_NS {
            self.pending = Some(Late {
                gap_ns,
                suspended_ns,
                watchdog_late_ns: before.watchdog_late_ns,
            });
        }
        lines
    }
}

fn lines(late: Late, all: bool) -> Vec<String> {
    let seconds = |ns: u64| ns as f64 / 1e9;
    let mut lines = Vec::new();
    if late.suspended_ns > PAUSE_NS {
        lines.push(format!(
            "the machine was suspended for {:.1} s: no lane ran meanwhile",
            seconds(late.suspended_ns)
        ));
    }
    if late.gap_ns > PAUSE_NS {
        let gap_s = seconds(late.gap_ns);
        lines.push(if all {
            format!(
                "rtd did not run for {gap_s:.1} s (SIGSTOP, a frozen control group, a debugger, \
                 or no CPU): no lane ran \
                 meanwhile"
            )
        } else {
            format!(
                "the control thread did not tick for {gap_s:.1} s while the lanes ran: registrations and the log waited; \
                 ordinary threads got no CPU ({LIST_THREADS})"
            )
        });
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// The lines after ticks at these times (ms): monotonic, boot, total lateness of the watchdog.
    fn lines_after(ticks: &[(u64, u64, u64)]) -> Vec<String> {
        let clocks = |&(monotonic, boot, late): &(u64, u64, u64)| Clocks {
            monotonic_ns: monotonic * MS,
            boot_ns: boot * MS,
            watchdog_late_ns: late * MS,
        };
        let mut pause = Pause {
            last: clocks(&ticks[0]),
            pending: None,
        };
        ticks[1..]
            .iter()
            .flat_map(|tick| pause.step(clocks(tick), 50 * MS))
            .collect()
    }

    #[test]
    fn regular_ticks_say_nothing() {
        assert!(
            lines_after(&[(0, 0, 0), (100, 100, 0), (900, 900, 0), (1000, 1000, 0)]).is_empty()
        );
    }

    #[test]
    fn a_stop_a_suspend_and_a_starved_control_thread_are_distinguished() {
        let stopped = lines_after(&[
            (0, 0, 0),
            (3_200, 3_200, 0),
            (3_300, 3_300, 3_100),
            (3_400, 3_400, 3_100),
        ]);
        assert!(
            stopped.len() == 1 && stopped[0].starts_with("rtd did not run for 3.2 s"),
            "{stopped:?}"
        );
        let suspended = lines_after(&[(0, 0, 0), (100, 60_100, 0), (200, 60_200, 0)]);
        assert!(
            suspended.len() == 1 && suspended[0].contains("suspended for 60.0 s"),
            "{suspended:?}"
        );
        let starved = lines_after(&[(0, 0, 0), (2_000, 2_000, 0), (2_100, 2_100, 0)]);
        assert!(
            starved.len() == 1 && starved[0].contains("did not tick for 2.0 s while the lanes ran")
        );
    }
}
