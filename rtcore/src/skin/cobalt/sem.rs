//! Semaphores of the core, the doorbells of rings on Cobalt.
//!
//! Constraint: waiting is for Cobalt threads. If another thread of a bound process waits, Linux
//! puts it to sleep for a moment, and it checks again: it has no mode that it could lose.

use super::super::semaphore::{RawSemaphore, SemaphoreCalls};
use super::api;
use super::calls::{nap, now_ns, number, realtime_after, refused_object};
use crate::sys::{Call, Errno, clock};
use std::ffi::CStr;
use std::io;
use std::ptr::NonNull;

/// Pause after an error of a wait, and sleep of a thread that may not wait.
const PAUSE_NS: u64 = 1_000_000;

pub(super) const CALLS: SemaphoreCalls = SemaphoreCalls {
    post,
    try_wait,
    wait_within,
    close,
};

pub(super) fn open(name: &CStr, create: bool) -> io::Result<RawSemaphore> {
    let (mode, value): (libc::c_uint, libc::c_uint) = (0o600, 0);
    let (what, flags) = if create {
        ("create", libc::O_CREAT | libc::O_EXCL)
    } else {
        ("open", 0)
    };
    // SAFETY: a C string, and what follows O_CREAT: a mode and a value.
    let sem = unsafe { (api()?.sem_open)(name.as_ptr(), flags, mode, value) };
    NonNull::new(sem)
        .map(RawSemaphore)
        .ok_or_else(|| refused_object("semaphore", what, name, Errno::last()))
}

pub(super) fn unlink(name: &CStr) -> io::Result<()> {
    // SAFETY: a C string.
    let rc = number(unsafe { (api()?.sem_unlink)(name.as_ptr()) });
    rc.map(drop)
        .map_err(|errno| refused_object("semaphore", "remove", name, errno))
}

/// 1. The semaphore is open.
unsafe fn post(sem: RawSemaphore) -> Call<()> {
    // SAFETY: 1.
    number(unsafe { (api()?.sem_post)(sem.0.as_ptr()) }).map(drop)
}

/// 1. The semaphore is open.
unsafe fn try_wait(sem: RawSemaphore) -> Call<()> {
    // SAFETY: 1.
    number(unsafe { (api()?.sem_trywait)(sem.0.as_ptr()) }).map(drop)
}

/// 1. The semaphore is open.
unsafe fn wait_within(sem: RawSemaphore, timeout_ns: u64) -> Call<()> {
    let api = api()?;
    let waited = if timeout_ns == u64::MAX {
        // SAFETY: 1.
        number(unsafe { (api.sem_wait)(sem.0.as_ptr()) })
    } else {
        let until = realtime_after(api, timeout_ns)?;
        // SAFETY: 1; the time is on this stack.
        number(unsafe { (api.sem_timedwait)(sem.0.as_ptr(), &raw const until) })
    };
    waited
        .map(drop)
        .inspect_err(|errno| pause(*errno, timeout_ns))
}

/// Prevents that a thread spins on a wait that fails.
#[cold]
fn pause(errno: Errno, timeout_ns: u64) {
    let pause_ns = timeout_ns.min(PAUSE_NS);
    match errno {
        Errno::TIMEDOUT | Errno::INTR => {}
        // Not a Cobalt thread: Linux's clock.
        Errno::PERM => clock::sleep_until(clock::monotonic_ns().saturating_add(pause_ns)),
        _ => drop(nap(now_ns().saturating_add(pause_ns))),
    }
}

/// 1. The semaphore is open, and not used again.
unsafe fn close(sem: RawSemaphore) {
    if let Ok(api) = api() {
        // SAFETY: 1.
        unsafe { (api.sem_close)(sem.0.as_ptr()) };
    }
}
