//! The settings of the watchdog in a plan.

use rtcore::lane::policy::Wait;
use rtcore::skin::Caps;

/// Default period.
pub const PERIOD_NS: u64 = 50_000_000;
/// Default time over which a duty budget is measured.
pub const WINDOW_NS: u64 = 1_000_000_000;
/// Default limit of the time without progress.
pub const STALL_NS: u64 = 200_000_000;
/// Default budget of a lane that blocks.
pub const DUTY_PERMILLE: u32 = 900;
/// Default of RLIMIT_RTTIME.
pub const RTTIME_NS: u64 = 2_000_000_000;

/// The watchdog's part of `[daemon]`.
#[derive(Clone, Debug)]
pub struct WatchPlan {
    /// Time from one sample to the next.
    pub period_ns: u64,
    /// Time over which a lane's duty is measured.
    pub window_ns: u64,
    /// The reaction to a lane that runs away.
    pub on_runaway: OnRunaway,
    /// The reaction to a change of a thread's scheduling from outside.
    pub on_tampering: OnTampering,
    /// How long a lane thread may run without waiting before the kernel reports it; or why this is
    /// not set.
    pub rttime: Result<u64, String>,
}

impl Default for WatchPlan {
    fn default() -> WatchPlan {
        WatchPlan {
            period_ns: PERIOD_NS,
            window_ns: WINDOW_NS,
            on_runaway: OnRunaway::Report,
            on_tampering: OnTampering::Report,
            rttime: Ok(RTTIME_NS),
        }
    }
}

/// The reaction to a lane that runs away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnRunaway {
    /// It is reported, and continues.
    Report,
    /// Its thread loses its priority.
    Demote,
    /// The daemon ends.
    Stop,
}

/// The reaction to a change of policy, priority or CPUs of a real-time thread of rtd from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnTampering {
    /// The change is reported.
    Report,
    /// It is reported and undone.
    Restore,
}

/// The watchdog's part of `[[lane]]`.
#[derive(Clone, Copy, Debug)]
pub struct LaneWatch {
    /// How long a thread of it may make no progress although it has work.
    pub stall_ns: u64,
    /// Share of time that a thread of it may use, in thousandths; none: no limit.
    pub duty_permille: Option<u32>,
}

impl Default for LaneWatch {
    fn default() -> LaneWatch {
        LaneWatch {
            stall_ns: STALL_NS,
            duty_permille: Some(DUTY_PERMILLE),
        }
    }
}

impl super::Plan {
    /// SCHED_FIFO priority of the watchdog: one above the highest lane.
    pub fn watchdog_priority(&self) -> u8 {
        self.lanes
            .iter()
            .map(|lane| lane.priority)
            .max()
            .unwrap_or(0)
            + 1
    }

    /// The CPU that it is pinned to: of `cpus`, which this process may use and nobody has isolated,
    /// the one whose highest lane is the lowest, at best one without a lane. It therefore disturbs
    /// the lanes as little as possible, and a lane that does not release its CPU cannot keep it
    /// from sampling unless lanes have all CPUs.
    pub fn watchdog_cpu(&self, cpus: impl Iterator<Item = usize>) -> Option<usize> {
        let highest = |cpu: usize| {
            self.lanes
                .iter()
                .filter(|lane| lane.cpu == cpu)
                .map(|lane| lane.priority)
                .max()
        };
        cpus.min_by_key(|cpu| (highest(*cpu), *cpu))
    }

    /// Whether a lane's duty is the time in which its thread has a message in hand, because its CPU
    /// time has no meaning: it never sleeps, or Linux does not measure it.
    pub fn duty_is_dispatch(&self, lane: &super::LanePlan, caps: Caps) -> bool {
        lane.wait == Wait::Poll || !caps.linux_threads
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{CheckOptions, Machine, check_with};

    #[test]
    fn the_watchdog_sits_above_the_lanes_and_where_they_are_not() {
        let lane = |name, priority, cpu| {
            format!("[[lane]]\nname = \"{name}\"\npriority = {priority}\ncpu = {cpu}\n")
        };
        let text = lane("a", 98, 0) + &lane("b", 20, 1) + &lane("c", 10, 2) + &lane("d", 60, 2);
        let mut machine = Machine::unknown();
        machine.cpus_existing = Some((0..4).collect());
        let plan = check_with("t", &text, &machine, CheckOptions::default())
            .plan
            .unwrap();
        assert_eq!(plan.watchdog_priority(), 99);
        assert_eq!(plan.watchdog_cpu(0..4), Some(3));
        assert_eq!(plan.watchdog_cpu(0..3), Some(1));
        assert_eq!(plan.watchdog_cpu([0, 2].into_iter()), Some(2));
        assert_eq!(plan.watchdog_cpu(std::iter::empty()), None);
    }
}
