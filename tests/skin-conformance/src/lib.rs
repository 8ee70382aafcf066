//! The rules that a skin has to keep, each one a small program: against the calls of a library
//! ([`Skin`]), and against the table that lanes use (`rtcore::skin::Skin`).
//!
//! The same rules run on POSIX, on the stand-in for libcobalt (`cargo test`) and, by hand, on a
//! Cobalt kernel (`skin-conformance --skin cobalt`). Where the skins differ a rule asks the skin's
//! [`Facts`]; what it finds is held against them, so a library that behaves otherwise than rtd
//! expects of Cobalt fails here and not in a machine.
//!
//! Constraint: a rule leaves nothing behind: queues, semaphores and pending signals are gone after
//! it, whatever its end. Invariant: rules run one at a time, each on a fresh promoted thread with
//! all signals blocked.

pub mod calls;
pub mod posix;
pub mod rules;
pub mod run;
pub mod skin;

pub use run::{Line, Verdict, run};
pub use skin::{Errno, Facts, Skin, Stop};
