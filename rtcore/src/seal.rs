//! The guard on allocations after seal.
//!
//! [`GuardAlloc`] is the daemon's global allocator: the system's, plus one thread-local check. A thread
//! that called [`seal`] and allocates or frees all the same is counted; with [`abort_on_breach`] (set in
//! tests by `RTD_GUARD=abort`) the process aborts at the very call, so that the backtrace names it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};

thread_local! {
    // Const-initialised and without a destructor: reading them allocates nothing.
    static SEALED: Cell<bool> = const { Cell::new(false) };
    static BREACHES: Cell<u64> = const { Cell::new(0) };
}

static ABORT: AtomicBool = AtomicBool::new(false);

/// The system allocator with the check.
#[derive(Debug)]
pub struct GuardAlloc;

/// From here on the calling thread must not touch the heap.
pub fn seal() {
    SEALED.set(true);
}

/// The calling thread may use the heap again (it is on its way out).
pub fn unseal() {
    SEALED.set(false);
}

/// Heap calls of the calling thread while it was sealed.
pub fn breaches() -> u64 {
    BREACHES.get()
}

/// Makes every breach abort the process.
pub fn abort_on_breach() {
    ABORT.store(true, Ordering::Relaxed);
}

#[inline]
fn check() {
    // try_with: a thread that is being torn down has no thread-locals any more, and is not sealed.
    if SEALED.try_with(Cell::get).unwrap_or(false) {
        breach();
    }
}

#[cold]
fn breach() {
    BREACHES.set(BREACHES.get() + 1);
    if ABORT.load(Ordering::Relaxed) {
        SEALED.set(false);
        // stderr is unbuffered: nothing here allocates before abort.
        let _ = std::io::Write::write_all(&mut std::io::stderr(), b"rtd: heap used by a sealed thread\n");
        std::process::abort();
    }
}

// SAFETY: every call is passed on to `System` unchanged, which upholds GlobalAlloc's contract.
unsafe impl GlobalAlloc for GuardAlloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        check();
        // SAFETY: the caller's contract is System's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        check();
        // SAFETY: the caller's contract is System's.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        check();
        // SAFETY: the caller's contract is System's.
        unsafe { System.realloc(ptr, layout, new_size) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        check();
        // SAFETY: the caller's contract is System's.
        unsafe { System.dealloc(ptr, layout) }
    }
}
