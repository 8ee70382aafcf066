//! The control thread: registration, peer death, housekeeping.
