//! Clocks in nanoseconds (clock_gettime(2)).

/// How much CLOCK_MONOTONIC of this process' time namespace is ahead of the machine's (time_namespaces(7)); 0 where there are
/// no time namespaces.
pub fn monotonic_offset_ns() -> i64 {
    let text = std::fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default();
    let offset = text.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        // The kernel writes the name, older ones the number.
        words.next().filter(|clock| ["monotonic", "1"].contains(clock))?;
        let seconds: i64 = words.next()?.parse().ok()?;
        let nanoseconds: i64 = words.next()?.parse().ok()?;
        Some(seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds))
    });
    offset.unwrap_or(0)
}

/// CLOCK_MONOTONIC now, in nanoseconds. A vDSO call: no system call on the real-time path.
#[inline]
pub fn monotonic_ns() -> u64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    // CLOCK_MONOTONIC starts at boot: never negative, and 2^64 ns are 584 years.
    t.tv_sec.unsigned_abs() * 1_000_000_000 + t.tv_nsec.unsigned_abs()
}

/// CLOCK_BOOTTIME now, in nanoseconds: CLOCK_MONOTONIC and the time that the machine was suspended.
pub fn boottime_ns() -> u64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    t.tv_sec.unsigned_abs() * 1_000_000_000 + t.tv_nsec.unsigned_abs()
}

/// CLOCK_REALTIME so many nanoseconds from now: what the calls take that know no other clock.
pub fn realtime_after(timeout_ns: u64) -> libc::timespec {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    let at_ns = now.tv_sec.unsigned_abs().saturating_mul(1_000_000_000);
    timespec(at_ns.saturating_add(now.tv_nsec.unsigned_abs()).saturating_add(timeout_ns))
}

/// A time in nanoseconds as C has it.
#[inline]
pub fn timespec(ns: u64) -> libc::timespec {
    #[expect(clippy::cast_possible_wrap, reason = "below 10^9")]
    let tv_nsec = (ns % 1_000_000_000) as i64;
    libc::timespec { tv_sec: i64::try_from(ns / 1_000_000_000).unwrap_or(i64::MAX), tv_nsec }
}

/// Sleeps until `deadline_ns` of CLOCK_MONOTONIC (clock_nanosleep(2), absolute; interruptions resume).
pub fn sleep_until(deadline_ns: u64) {
    while !sleep_until_or_signal(deadline_ns) {}
}

/// As [`sleep_until`], but false as soon as a signal handler ran: the caller looks why.
pub fn sleep_until_or_signal(deadline_ns: u64) -> bool {
    let nanos = i64::try_from(deadline_ns % 1_000_000_000).unwrap_or(0);
    let seconds = i64::try_from(deadline_ns / 1_000_000_000).unwrap_or(i64::MAX);
    let at = rustix::time::Timespec { tv_sec: seconds, tv_nsec: nanos };
    rustix::thread::clock_nanosleep_absolute(rustix::thread::ClockId::Monotonic, &at).is_ok()
}
