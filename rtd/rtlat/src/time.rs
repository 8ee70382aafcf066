//! Times as numbers of nanoseconds.

#![forbid(unsafe_code)]

use rtcore::sys::clock::monotonic_ns;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A length of time in ns; one that is longer than 584 years is cut.
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The wall clock, in ns since 1970.
pub fn wall_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, nanos)
}

/// The wall clock at a moment of CLOCK_MONOTONIC; 0 for never.
pub fn wall_at(at_ns: u64) -> u64 {
    if at_ns == 0 { 0 } else { wall_ns().saturating_sub(monotonic_ns().saturating_sub(at_ns)) }
}
