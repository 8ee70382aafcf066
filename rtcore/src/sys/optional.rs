//! System calls that are younger than this program's oldest kernel, or that a container's filter
//! refuses (seccomp profiles answer an unknown number with EPERM or ENOSYS): tried, and replaced
//! for good once refused.

use super::Errno;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether one system call is there. Touches no heap.
#[derive(Debug, Default)]
pub struct Optional(AtomicBool);

impl Optional {
    /// Taken for present until it is refused.
    pub const fn new() -> Optional {
        Optional(AtomicBool::new(false))
    }

    /// Whether it was refused before.
    #[inline]
    pub fn is_refused(&self) -> bool {
        // It orders no other data: a thread that sees it late is refused once more.
        self.0.load(Ordering::Relaxed)
    }

    /// Whether this failure means that the call is not there; remembers it. For calls that have no
    /// EPERM of their own.
    #[inline]
    pub fn refuses(&self, errno: Errno) -> bool {
        let refused = matches!(errno, Errno::PERM | Errno::NOSYS);
        if refused {
            self.0.store(true, Ordering::Relaxed);
        }
        refused
    }
}
