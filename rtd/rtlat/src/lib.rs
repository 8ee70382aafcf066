//! `rtlat`: how long a message takes, over every mechanism, raw, through rtd and beside it,
//! measured the same way.
//!
//! A *pair* is a sender and a receiver, each a thread (or the sender a process) with its CPU and
//! priority. The sender follows an absolute schedule; the receiver alone records, into histograms
//! of its own. Everything else (live view, files, pictures) reads what the receiver handed over or
//! publishes in words.
//!
//! Data flow of a run: `args -> pair(mechanism) -> Series -> text, files, report`. `run` measures its
//! pairs at the same time; in `compare`, its presets and `interference` pairs take turns, by one
//! engine (`experiment`). `clean` does not measure: its threads account for what they did since
//! their seal.

#![deny(unsafe_code)]

pub mod args;
pub mod baseline;
pub mod beside;
pub mod breaker;
pub mod clean;
pub mod command;
pub mod compare;
pub mod control_block;
pub mod experiment;
pub mod interference;
pub mod load;
pub mod mech;
pub mod out;
pub mod pair;
pub mod preempt;
pub mod preset;
pub mod recorder;
pub mod report;
pub mod role_loops;
pub mod route;
pub mod rt_tests;
pub mod run;
pub mod series;
#[allow(unsafe_code, reason = "the calls that rtcore does not have")]
pub mod sys;
pub mod time;
