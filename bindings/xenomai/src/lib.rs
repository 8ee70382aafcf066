//! Raw bindings to `libcobalt`, the POSIX skin of Xenomai 3 (Cobalt), found when the program runs.
//!
//! The crate contains no policy: `rtcore` decides which skin is used, and what is counted and
//! retried. The calls are C's, with C's conventions, which differ from call to call (`-1` and
//! `errno`, or a positive error number): each field of [`Api`] says which. The README beside this
//! crate has what is exported where, how libcobalt has to be built, the privileges and the limits.
//!
//! Constraint: opening runs the library's constructors; nothing else in it runs before
//! [`Api::xenomai_init`], which has a numbered contract of its own. Without Xenomai installed this
//! crate builds and reports [`LoadError::Absent`].
//!
//! Invariant: a library is never unloaded, so the functions of an [`Api`] stay callable until the
//! process ends.

mod api;
mod error;
mod library;
pub mod mq;
pub mod rtipc;

pub use api::{Api, mode};
pub use error::LoadError;
pub use library::{DEFAULT_LIBRARY, Library};

/// Present while a Cobalt core runs in this kernel; its text is the core's version.
pub const PROC_VERSION: &str = "/proc/xenomai/version";

/// Signal numbers that are real signals to Cobalt. 65 to 69 suspend, resume, unblock, relax or
/// demote the addressed thread, and nothing in the library or the core asks who sends them: refuse
/// them before the call.
pub const SIGNALS: std::ops::RangeInclusive<libc::c_int> = 1..=64;

/// Records for pending signals that the core has for the whole system: one for each of the 64
/// numbers, two more for each of the 32 real-time ones. When none is left a sender gets 0 and the
/// signal is gone.
pub const SIGNAL_POOL: usize = 128;

/// Longest name of a queue or semaphore in bytes, without the terminating zero.
pub const NAME_MAX: usize = 63;
