//! The commands of `rtctl`.

pub mod cleanup;
pub mod document;
mod figures;
pub mod flush;
pub mod listen;
pub mod ls;
pub mod page;
pub mod payload;
pub mod queue;
pub mod register;
pub mod run;
pub mod send;
pub mod sheet;
pub mod stats;
pub mod table;
pub mod verdict;

#[cfg(test)]
mod tests;
