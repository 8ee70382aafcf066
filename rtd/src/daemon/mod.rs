//! From plan to running lanes, and the way down.
