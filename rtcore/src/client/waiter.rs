//! One wait for many things.
