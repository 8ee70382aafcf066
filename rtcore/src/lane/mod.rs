//! Lanes: sources, routes, sinks and the threads that move messages between them.

pub mod peer;
pub mod policy;
