//! How and how long a thread waits for messages: one pair of types for lane threads, inboxes and
//! the calls of a skin.

/// How a thread waits for messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// It sleeps: in a blocking receive, or at a doorbell.
    Block,
    /// It checks again and again for this long, and then sleeps.
    Spin {
        /// Time without a message before it sleeps.
        spin_ns: u64,
    },
    /// It never sleeps.
    Poll,
}

impl Wait {
    /// Whether to check again at once after a check that found nothing, instead of sleeping.
    ///
    /// `until_ns` is the end of the spinning: `None` after each message, and set here. `now_ns` is
    /// called only by a strategy that depends on the time.
    #[inline]
    pub fn spins(self, until_ns: &mut Option<u64>, now_ns: impl FnOnce() -> u64) -> bool {
        match self {
            Wait::Block => false,
            Wait::Poll => true,
            Wait::Spin { spin_ns } => {
                let now_ns = now_ns();
                now_ns < *until_ns.get_or_insert(now_ns.saturating_add(spin_ns))
            }
        }
    }
}

/// Time limit of a wait, in nanoseconds.
///
/// Code that makes different calls to check, to wait with a limit, and to wait without one matches
/// on the two constants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeout(pub u64);

impl Timeout {
    /// Only checks.
    pub const NOW: Timeout = Timeout(0);
    /// No limit. The calls of [`crate::sys`] that take a number of nanoseconds have no limit with
    /// this number.
    pub const FOREVER: Timeout = Timeout(u64::MAX);
}

impl std::fmt::Display for Wait {
    /// As in the configuration.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Wait::Block => f.write_str("block"),
            Wait::Spin { spin_ns } => write!(f, "spin:{}", spin_ns / 1000),
            Wait::Poll => f.write_str("poll"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_spins_for_its_time_after_each_message() {
        let (spin, mut until_ns) = (Wait::Spin { spin_ns: 10 }, None);
        let mut spins = |now_ns| spin.spins(&mut until_ns, || now_ns);
        assert_eq!(
            [100, 109, 110, 111].map(&mut spins),
            [true, true, false, false]
        );
        // A message came: `None` again.
        let mut until_ns = None;
        assert!(spin.spins(&mut until_ns, || 200) && !spin.spins(&mut until_ns, || 210));
    }

    #[test]
    fn a_strategy_without_a_time_reads_no_clock() {
        let clock = || unreachable!("it reads the clock");
        assert!(Wait::Poll.spins(&mut None, clock) && !Wait::Block.spins(&mut None, clock));
    }
}
