//! Lanes: routes, and the threads that move messages from sources to sinks ([`crate::endpoint`]).
//!
//! The path of a message is a straight line: [`Source`](crate::endpoint::source::Source) ->
//! [`worker`] (a lane's thread) -> [`route`] -> [`Sink`](crate::endpoint::sink::Sink). Everything
//! here is built before the seal and then runs without the heap: a worker owns its sources, their
//! routes and all messages that they queue, so no two threads write the same memory.
//!
//! Invariant: a route's ledger balances whenever it is published; a message in hand counts as
//! queued.

mod account;
mod backlog;
mod backlog_queue;
pub mod credit;
pub mod event;
pub mod peer;
pub mod policy;
pub mod progress;
pub mod rate;
pub mod route;
pub mod syscalls;
pub mod target;
pub mod waits;
pub mod worker;
