//! The commands of `rtctl`.

pub mod register;
pub mod run;
