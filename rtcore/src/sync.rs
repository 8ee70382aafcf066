//! The atomics of all memory that threads or processes share without a lock. They come from this
//! one module, so that loom can replace them (`RUSTFLAGS="--cfg loom"`).
//!
//! Sleep/wake handshakes use `fence(SeqCst)`, never SeqCst loads and stores, which loom does not
//! honour.

#[cfg(not(loom))]
pub use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

#[cfg(loom)]
pub use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// `fence(SeqCst)`, once for each message: between the publication of a message and the check
/// whether the other end sleeps.
///
/// On x86-64 a locked instruction is the same fence at half the cost of the mfence that the
/// compiler generates (Intel SDM vol. 3A, 9.2.3.9: locked instructions have a total order, and
/// nothing passes them).
#[inline]
pub fn full_fence() {
    #[cfg(all(target_arch = "x86_64", not(loom), not(miri)))]
    // SAFETY: adds nothing to a word of our own stack; without `nomem` the compiler moves no access
    // across it.
    unsafe {
        std::arch::asm!("lock or dword ptr [rsp], 0", options(nostack));
    }
    #[cfg(not(all(target_arch = "x86_64", not(loom), not(miri))))]
    fence(Ordering::SeqCst);
}
