//! Calls on counting semaphores with a name (sem_overview(7)).

use super::procfs::named;
use super::{Call, Errno, clock};
use std::ffi::CStr;
use std::io;
use std::ptr::NonNull;

/// Opens a semaphore by its name, or makes one at zero that was not there before (sem_open(3)).
pub(crate) fn open(name: &CStr, create: bool) -> io::Result<NonNull<libc::sem_t>> {
    let (mode, value): (libc::c_uint, libc::c_uint) = (0o600, 0);
    let flags = if create {
        libc::O_CREAT | libc::O_EXCL
    } else {
        0
    };
    // SAFETY: a C string, and what follows O_CREAT: a mode and a value.
    let sem = unsafe { libc::sem_open(name.as_ptr(), flags, mode, value) };
    NonNull::new(sem).ok_or_else(|| {
        named(
            format!("semaphore {}", name.to_string_lossy()),
            io::Error::last_os_error(),
        )
    })
}

/// Removes a name (sem_unlink(3)); threads that have the semaphore open keep using it.
pub(crate) fn unlink(name: &CStr) -> io::Result<()> {
    // SAFETY: a C string.
    if unsafe { libc::sem_unlink(name.as_ptr()) } < 0 {
        return Err(named(
            format!("semaphore {}", name.to_string_lossy()),
            io::Error::last_os_error(),
        ));
    }
    Ok(())
}

/// Closes what was opened (sem_close(3)).
///
/// # Safety
/// 1. `sem` came from [`open`], is not closed yet, and is not used again.
pub(crate) unsafe fn close(sem: NonNull<libc::sem_t>) {
    // SAFETY: the caller's contract. It fails for an invalid semaphore.
    unsafe { libc::sem_close(sem.as_ptr()) };
}

/// Adds one and wakes a waiter (sem_post(3)).
///
/// # Safety
/// 1. `sem` came from [`open`] and is not closed yet.
pub(crate) unsafe fn post(sem: NonNull<libc::sem_t>) -> Call<()> {
    // SAFETY: the caller's contract.
    checked(unsafe { libc::sem_post(sem.as_ptr()) })
}

/// Takes one, EAGAIN where there is none (sem_trywait(3)).
///
/// # Safety
/// 1. `sem` came from [`open`] and is not closed yet.
pub(crate) unsafe fn try_wait(sem: NonNull<libc::sem_t>) -> Call<()> {
    // SAFETY: the caller's contract.
    checked(unsafe { libc::sem_trywait(sem.as_ptr()) })
}

/// Takes one; waits for it, at most so long (`u64::MAX` = no bound), then ETIMEDOUT
/// (sem_timedwait(3)).
///
/// # Safety
/// 1. `sem` came from [`open`] and is not closed yet.
pub(crate) unsafe fn wait_within(sem: NonNull<libc::sem_t>, timeout_ns: u64) -> Call<()> {
    if timeout_ns == u64::MAX {
        // SAFETY: the caller's contract.
        return checked(unsafe { libc::sem_wait(sem.as_ptr()) });
    }
    let until = clock::realtime_after(timeout_ns);
    // SAFETY: the caller's contract; the time is on this stack.
    checked(unsafe { libc::sem_timedwait(sem.as_ptr(), &raw const until) })
}

fn checked(rc: libc::c_int) -> Call<()> {
    if rc < 0 { Err(Errno::last()) } else { Ok(()) }
}
