//! The seal: rules that a thread keeps after its preparation, and their checks.
//!
//! The heap: [`GuardAlloc`] is the daemon's global allocator: the system's, plus one thread-local
//! check. It counts each allocation and release by a thread that has called [`seal`]. The system
//! calls: a thread that has called [`confine`] can make only the calls on its list; any other call
//! gets EPERM, and is counted and remembered by its number.
//!
//! With [`abort_on_breach`] (set in tests by `RTD_GUARD=abort`) the process aborts at the first
//! such call, so that a message and the backtrace name it.

use crate::sys::memory::PROBE_STACK_BYTES;
use crate::sys::seccomp::{self, Answer, OnTrap, Program};
use crate::sys::sigaction::write_stderr;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

thread_local! {
    // Const-initialised and without a destructor: reading them allocates nothing.
    static SEALED: Cell<bool> = const { Cell::new(false) };
    static BREACHES: Cell<u64> = const { Cell::new(0) };
    // Atomic because a signal handler of the same thread writes them.
    static CONFINED: AtomicBool = const { AtomicBool::new(false) };
    static REFUSED: AtomicU64 = const { AtomicU64::new(0) };
    static LAST_REFUSED: AtomicU32 = const { AtomicU32::new(0) };
}

static ABORT: AtomicBool = AtomicBool::new(false);

/// The system allocator with the check.
#[derive(Debug)]
pub struct GuardAlloc;

/// From here on the calling thread must not use the heap.
pub fn seal() {
    SEALED.set(true);
}

/// The calling thread may use the heap again, because it is about to end.
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

/// Refused system calls of a confined thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// Number of refused calls.
    pub calls: u64,
    /// Number of the last one ([`seccomp::name`]); without meaning if there was none.
    pub last: u32,
}

/// Installs the counter of refused calls. Call it once, before the first [`confine`].
pub fn watch_calls() -> io::Result<()> {
    seccomp::catch::<Watch>()
}

/// From here until its end the calling thread can make only the program's calls. This function
/// neither allocates nor opens.
///
/// Errors as [`Program::install`].
pub fn confine(program: &Program) -> crate::sys::Call<()> {
    // Set first: from the moment at which the filter is installed, a refused call is the filter's.
    CONFINED.with(|confined| confined.store(true, Ordering::Relaxed));
    program
        .install()
        .inspect_err(|_| CONFINED.with(|confined| confined.store(false, Ordering::Relaxed)))
}

/// Tries [`confine`] on a thread that ends at once. Call [`watch_calls`] before.
pub fn try_confine(program: &Program) -> io::Result<()> {
    std::thread::scope(|scope| {
        let probe = std::thread::Builder::new().stack_size(PROBE_STACK_BYTES);
        let tried = probe.spawn_scoped(scope, || confine(program))?;
        tried
            .join()
            .map_err(|_| io::Error::other("the thread that tried it ended"))?
            .map_err(io::Error::from)
    })
}

/// The refused calls of the calling thread so far.
#[inline]
pub fn refused() -> Refused {
    Refused {
        calls: REFUSED.with(|calls| calls.load(Ordering::Relaxed)),
        last: LAST_REFUSED.with(|last| last.load(Ordering::Relaxed)),
    }
}

struct Watch;

impl OnTrap for Watch {
    fn trapped(number: u32) -> Answer {
        // A thread that is being torn down has no readable thread-locals; these have no destructor.
        if !CONFINED.with(|confined| confined.load(Ordering::Relaxed)) {
            return Answer::NotOurs;
        }
        REFUSED.with(|calls| calls.store(calls.load(Ordering::Relaxed) + 1, Ordering::Relaxed));
        LAST_REFUSED.with(|last| last.store(number, Ordering::Relaxed));
        if ABORT.load(Ordering::Relaxed) {
            write_stderr(b"rtd: system call ");
            write_stderr(seccomp::name(number).as_bytes());
            write_stderr(b"(2) by a sealed thread, on whose list it is not\n");
            std::process::abort();
        }
        Answer::Refuse
    }
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
        write_stderr(b"rtd: heap used by a sealed thread\n");
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
