//! Mechanism of rtd: what the daemon stands on and what a control process links.
//!
//! Modules from the bottom up: [`sys`] wraps one kernel object per file, [`skin`] is the table of
//! real-time calls, [`lane`] moves messages, [`stats`] is the page outsiders map, [`wire`] the frames of
//! the control socket. The real-time modules (`sys`, `skin`, `lane`, `stats` writers) know no serde, no
//! clap, no async runtime.

// Under loom only the rings are built, and what they stand on: its atomics live in no mapping.
#[cfg(not(loom))]
pub mod client;
#[cfg(not(loom))]
pub mod lane;
pub mod message;
pub mod ring;
pub mod seal;
#[cfg(not(loom))]
pub mod skin;
#[cfg(not(loom))]
pub mod stats;
mod sync;
pub mod sys;
#[cfg(not(loom))]
pub mod wire;
