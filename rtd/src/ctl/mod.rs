//! The commands of `rtctl`.

pub mod listen;
pub mod payload;
pub mod send;
