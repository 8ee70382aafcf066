//! Signals that arrive while a program starts.
//!
//! The default action of a real-time signal ends the process. A program that blocks or handles its
//! signals in `main` dies of one that arrives earlier. [`hold_signals!`](crate::hold_signals)
//! blocks them from an ELF constructor, the first code of the program that runs: what arrives stays
//! pending until the program takes it.
//!
//! What remains is the time from execve(2) until the dynamic loader has mapped and relocated the
//! program, in the order of a millisecond. Nothing in the program can close it; the parent can,
//! because execve(2) keeps the signal mask. Only a sender that knows the pid in that time can hit
//! it: the parent, or a program that looks pids up by name. It must be of the same user or have
//! CAP_KILL. rtd shows its pid on the statistics page only after this.

use super::rtsignal::{self, DOORBELLS, SignalSet};

/// Blocks every signal that a route may carry, from before `main`. To be written once, outside any
/// function, in the file that has `main`. A library must not use it: the mask belongs to the
/// program.
///
/// All threads and child processes inherit the mask. A program with an asynchronous handler
/// unblocks its signal when the handler is installed.
///
/// ```
/// rtcore::hold_signals!();
///
/// let held = rtcore::sys::epoll::blocked_signals();
/// assert_eq!(held >> (rtcore::sys::signame::rt_min() - 1) & 1, 1);
/// ```
#[macro_export]
macro_rules! hold_signals {
    () => {
        const _: () = {
            // The C library calls it with argc, argv and envp, which it ignores.
            #[used]
            #[unsafe(link_section = ".init_array")]
            static HOLD: extern "C" fn() = $crate::sys::startup::hold;
        };
    };
}

/// Every signal that a route may carry: the real-time ones and [`DOORBELLS`].
pub fn routable() -> impl Iterator<Item = i32> {
    let (first, last) = rtsignal::rt_range();
    (first..=last).chain(DOORBELLS)
}

/// The body of [`hold_signals!`](crate::hold_signals): runs before `main`, on the only thread.
pub extern "C" fn hold() {
    // The mask and the numbers are valid, so there is no error; and nobody to report one to.
    let _ = SignalSet::of(routable()).block();
}
