//! Times as numbers of nanoseconds.

#![forbid(unsafe_code)]

use rtcore::sys::clock::{monotonic_ns, nanos};
use std::time::{SystemTime, UNIX_EPOCH};

/// The wall clock, in ns since 1970.
pub fn wall_ns() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, nanos)
}

/// The wall clock at a moment of CLOCK_MONOTONIC; 0 for never.
pub fn wall_at(at_ns: u64) -> u64 {
    if at_ns == 0 {
        0
    } else {
        wall_ns().saturating_sub(monotonic_ns().saturating_sub(at_ns))
    }
}
