//! What the watchdog looks at, and what it does about a lane that runs away.

use rtcore::lane::policy::Wait;
use rtcore::skin::Caps;

/// How often it looks, unless the file says otherwise.
pub const PERIOD_NS: u64 = 50_000_000;
/// Time over which a duty budget counts, unless the file says otherwise.
pub const WINDOW_NS: u64 = 1_000_000_000;
/// How long a lane may stand still, unless the file says otherwise.
pub const STALL_NS: u64 = 200_000_000;
/// The budget of a lane that blocks, unless the file says otherwise.
pub const DUTY_PERMILLE: u32 = 900;
/// RLIMIT_RTTIME, unless the file says otherwise.
pub const RTTIME_NS: u64 = 2_000_000_000;

/// The watchdog's part of `[daemon]`.
#[derive(Clone, Debug)]
pub struct WatchPlan {
    /// From one look to the next.
    pub period_ns: u64,
    /// Over which a lane's duty is taken.
    pub window_ns: u64,
    /// What happens to a lane that runs away.
    pub on_runaway: OnRunaway,
    /// What happens when somebody changes the scheduling of a thread.
    pub on_tampering: OnTampering,
    /// How long a lane thread may run without waiting once, before the kernel tells; or why that is
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

/// What happens to a lane that runs away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnRunaway {
    /// It is named, and goes on.
    Report,
    /// Its thread loses its priority.
    Demote,
    /// The daemon ends.
    Stop,
}

/// What happens when somebody changes policy, priority or CPUs of a real-time thread of rtd.
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
    /// How long a thread of it may stand still with something to do.
    pub stall_ns: u64,
    /// Share of time that a thread of it may use, in thousandths; none = as much as it likes.
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

    /// The CPU it is pinned to: of `cpus`, those that we may use and nobody has isolated, the one
    /// whose highest lane is the lowest, at best one without a lane. So it is in the way of those
    /// it watches as little as can be, and a lane that does not let go of its CPU cannot keep it
    /// from looking unless it has all of them.
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

    /// Whether a lane's duty is the time that its thread has a message in hand, because its CPU
    /// time says nothing: it never sleeps, or Linux does not know.
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
