//! Clocks in nanoseconds (clock_gettime(2)), and times as numbers of nanoseconds.

use rustix::time::Timespec;
use std::time::Duration;

/// Offset of CLOCK_MONOTONIC in this process's time namespace from the machine's
/// (time_namespaces(7)); 0 if there are no time namespaces.
pub fn monotonic_offset_ns() -> i64 {
    let text = std::fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default();
    let offset = text.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        // The kernel writes the name, older ones the number.
        words
            .next()
            .filter(|clock| ["monotonic", "1"].contains(clock))?;
        let seconds: i64 = words.next()?.parse().ok()?;
        let nanoseconds: i64 = words.next()?.parse().ok()?;
        Some(
            seconds
                .saturating_mul(1_000_000_000)
                .saturating_add(nanoseconds),
        )
    });
    offset.unwrap_or(0)
}

/// CLOCK_MONOTONIC now, in nanoseconds. A vDSO call: no system call on the real-time path.
#[inline]
pub fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    ns_of(now.tv_sec, now.tv_nsec)
}

/// CLOCK_BOOTTIME now, in nanoseconds: CLOCK_MONOTONIC and the time that the machine was suspended.
pub fn boottime_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    ns_of(now.tv_sec, now.tv_nsec)
}

/// CLOCK_REALTIME this many nanoseconds from now, for calls that accept no other clock.
pub fn realtime_after(timeout_ns: u64) -> libc::timespec {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    timespec(ns_of(now.tv_sec, now.tv_nsec).saturating_add(timeout_ns))
}

/// Nanoseconds of a time that is not negative (no clock here is) and before the year 2554.
#[inline]
pub(crate) fn ns_of(seconds: i64, nanoseconds: i64) -> u64 {
    seconds
        .unsigned_abs()
        .wrapping_mul(1_000_000_000)
        .wrapping_add(nanoseconds.unsigned_abs())
}

/// Nanoseconds; a duration of more than 584 years is cut.
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A time in nanoseconds as rustix has it.
#[inline]
pub(super) fn rustix_timespec(ns: u64) -> Timespec {
    let time = timespec(ns);
    Timespec {
        tv_sec: time.tv_sec,
        tv_nsec: time.tv_nsec,
    }
}

/// A time in nanoseconds as C has it.
#[inline]
pub fn timespec(ns: u64) -> libc::timespec {
    #[expect(clippy::cast_possible_wrap, reason = "below 10^9")]
    let tv_nsec = (ns % 1_000_000_000) as i64;
    libc::timespec {
        tv_sec: i64::try_from(ns / 1_000_000_000).unwrap_or(i64::MAX),
        tv_nsec,
    }
}

/// Sleeps until `deadline_ns` of CLOCK_MONOTONIC (clock_nanosleep(2), absolute; interruptions
/// resume).
pub fn sleep_until(deadline_ns: u64) {
    while !sleep_until_or_signal(deadline_ns) {}
}

/// As [`sleep_until`], but returns false after a signal handler ran: the caller checks why.
pub fn sleep_until_or_signal(deadline_ns: u64) -> bool {
    let at = rustix_timespec(deadline_ns);
    rustix::thread::clock_nanosleep_absolute(rustix::thread::ClockId::Monotonic, &at).is_ok()
}
