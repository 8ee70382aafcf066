//! The client library as C sees it: the functions of `include/rtcore.h` over [`client::client`].
//!
//! Constraint: nothing here adds a heap call, a lock or a system call to what a real-time call of the
//! Rust library does; an error is stored raw in the caller's memory and becomes text only when
//! somebody asks (`error`). Structures and functions are named as in the header, and tests compare
//! both sides: names, arguments, sizes and offsets (`tests`), the list of exported symbols
//! (`rtcore.map`).
//!
//! Invariant: a handle is a `Box` that its `open` leaked and its `close` takes back. What C promises
//! about it stands in the header: one thread at a time, except where it says any thread.

#![expect(
    non_camel_case_types,
    reason = "the names of the header, so that both can be compared"
)]

#[macro_use]
mod entry;
mod arguments;
mod caller;
mod error;
mod inbox;
mod library;
mod listing;
mod message;
mod realtime;
mod sender;
mod session;
mod signal_source;
mod signals;
mod waiter;

#[cfg(test)]
mod tests;

#[cfg(test)]
use {
    inbox::rtcore_inbox_counters,
    listing::{rtcore_channel, rtcore_peer},
    message::rtcore_message,
    realtime::{rtcore_breaches, rtcore_realtime},
    session::rtcore_options,
    signals::{rtcore_notice, rtcore_signals_counters},
    waiter::rtcore_ready,
};

use client::seal::GuardAlloc;

/// Counts the library's heap calls on threads that entered real time (`rtcore_realtime_check`).
#[global_allocator]
static GUARD: GuardAlloc = GuardAlloc;
