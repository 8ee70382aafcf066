//! The atomics of everything that threads or processes share without a lock, from one place, so that loom can
//! replace them (`RUSTFLAGS="--cfg loom"`).
//!
//! Sleep/wake handshakes use `fence(SeqCst)`, never SeqCst loads and stores, which loom does not honour.

#[cfg(not(loom))]
pub use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

#[cfg(loom)]
pub use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
