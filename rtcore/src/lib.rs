//! Mechanism of rtd: what the daemon stands on and what a control process links.
//!
//! Modules from the bottom up: [`sys`] wraps one kernel object per file, [`skin`] is the table of
//! real-time calls, [`lane`] moves messages, [`stats`] is the page outsiders map, [`wire`] the frames of
//! the control socket. The real-time modules (`sys`, `skin`, `lane`, `stats` writers) know no serde, no
//! clap, no async runtime.

#[cfg(not(loom))]
pub mod client;
pub mod lane;
pub mod message;
pub mod ring;
pub mod seal;
pub mod skin;
pub mod stats;
mod sync;
pub mod sys;
pub mod wire;
