//! A child of an end, made by fork(2), that goes on using what it has inherited.

use crate::journal::{CHILD_REFUSED, CHILD_SENT};
use rtcore::sys::clock::{monotonic_ns, sleep_until};
use std::sync::atomic::{AtomicU32, Ordering};

/// How long the child lives.
const LIFE_NS: u64 = 300_000_000;

/// Forks. The child tries what it has inherited, records in `result` whether that worked, and lives
/// on for a while, also after its parent has ended.
pub fn fork(result: &AtomicU32, attempt: impl FnOnce() -> bool) -> anyhow::Result<()> {
    // SAFETY: a disposition without a handler. The kernel reaps the child.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    // SAFETY: the child uses the library, which promises errors there without a lock, and
    // async-signal-safe calls.
    if unsafe { nix::unistd::fork() }?.is_child() {
        let worked = attempt();
        result.store(
            if worked { CHILD_SENT } else { CHILD_REFUSED },
            Ordering::Release,
        );
        sleep_until(monotonic_ns() + LIFE_NS);
        // SAFETY: ends the process without any destructor.
        unsafe { libc::_exit(0) };
    }
    Ok(())
}
