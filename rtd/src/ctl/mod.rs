//! The commands of `rtctl`.
