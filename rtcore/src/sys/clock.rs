//! Clocks in nanoseconds.
