//! The commands of `rtctl`.

pub mod document;
pub mod ls;
pub mod page;
pub mod stats;
pub mod table;

#[cfg(test)]
mod tests;
