//! A timer as a descriptor, at absolute times of CLOCK_MONOTONIC (timerfd_create(2)).

use super::clock::{monotonic_ns, nanos, rustix_timespec};
use super::procfs::named;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// A timer: readable from the moment it expires until [`Timer::take`].
///
/// One-shot or periodic. Periods count from the first expiry, not from the last read, so the timer
/// does not drift.
#[derive(Debug)]
pub struct Timer(OwnedFd);

impl Timer {
    /// A timer that is not set.
    pub fn new() -> io::Result<Timer> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let fd = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags);
        Ok(Timer(fd.map_err(|e| named("timer", e))?))
    }

    /// A timer that expires every `period`, first after one.
    pub fn ticking(period: Duration) -> io::Result<Timer> {
        let (timer, period_ns) = (Timer::new()?, nanos(period));
        timer.every(monotonic_ns().saturating_add(period_ns), period_ns)?;
        Ok(timer)
    }

    /// Expires once at `at_ns` of CLOCK_MONOTONIC; at once when that is past. Replaces an earlier
    /// setting.
    pub fn at(&self, at_ns: u64) -> io::Result<()> {
        self.set(at_ns.max(1), 0)
    }

    /// Expires at `first_ns` of CLOCK_MONOTONIC and every `period_ns` from then on. Replaces an
    /// earlier setting.
    ///
    /// Errors: a period of 0.
    pub fn every(&self, first_ns: u64, period_ns: u64) -> io::Result<()> {
        if period_ns == 0 {
            let text = "timer: a period of 0 ns; the shortest is 1, and Timer::at expires once";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        self.set(first_ns.max(1), period_ns)
    }

    /// Unsets it; an expiry that nobody took is gone.
    pub fn disarm(&self) -> io::Result<()> {
        self.set(0, 0)
    }

    /// Number of expiries since the last call: n > 1 means that n - 1 periods were missed. Never
    /// waits.
    #[inline]
    pub fn take(&self) -> u64 {
        let mut count = [0; 8];
        match rustix::io::read(&self.0, &mut count) {
            Ok(8) => u64::from_ne_bytes(count),
            _ => 0,
        }
    }

    /// A first time of 0 unsets (timerfd_settime(2)).
    fn set(&self, first_ns: u64, period_ns: u64) -> io::Result<()> {
        let spec = Itimerspec {
            it_interval: rustix_timespec(period_ns),
            it_value: rustix_timespec(first_ns),
        };
        rustix::time::timerfd_settime(&self.0, TimerfdTimerFlags::ABSTIME, &spec)
            .map_err(|e| named("timer", e))?;
        Ok(())
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock::sleep_until;

    const MS: u64 = 1_000_000;

    #[test]
    fn one_shot_expires_once_and_not_before() {
        let (timer, at) = (Timer::new().unwrap(), monotonic_ns() + 2 * MS);
        timer.at(at).unwrap();
        while timer.take() == 0 {}
        assert!(monotonic_ns() >= at);
        sleep_until(at + 3 * MS);
        assert_eq!(timer.take(), 0);
        timer.at(0).unwrap();
        assert_eq!(timer.take(), 1, "a time that is past expires at once");
    }

    #[test]
    fn missed_periods_are_counted_from_the_first() {
        let (timer, first) = (Timer::new().unwrap(), monotonic_ns() + MS);
        timer.every(first, MS).unwrap();
        sleep_until(first + 4 * MS);
        assert!(timer.take() >= 5);
        timer.disarm().unwrap();
        assert_eq!(timer.take(), 0);
        assert!(
            timer
                .every(first, 0)
                .unwrap_err()
                .to_string()
                .contains("period of 0")
        );
    }
}
