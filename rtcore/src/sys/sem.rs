//! Counting semaphores between processes (sem_overview(7)): unnamed ones in memory that children inherit, and the calls
//! on named ones.
//!
//! No sem_destroy(3): it does nothing on Linux, and the memory goes with its last mapping.

use super::inherited::{Inherited, Zeroed};
use super::procfs::named;
use super::{Call, Errno, clock};
use std::cell::UnsafeCell;
use std::ffi::CStr;
use std::io;
use std::ptr::NonNull;

#[repr(transparent)]
struct Cell(UnsafeCell<libc::sem_t>);

// SAFETY: the calls of sem_overview(7) are made to be used by several threads at once.
unsafe impl Sync for Cell {}
// SAFETY: 1. sem_t is a union of integers and bytes; 2. initialised with pshared before anybody uses it (`new`).
unsafe impl Zeroed for Cell {}

/// The semaphore.
pub struct Semaphore {
    cell: Inherited<Cell>,
}

impl std::fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Semaphore")
    }
}

impl Semaphore {
    /// At zero.
    pub fn new() -> io::Result<Semaphore> {
        let semaphore = Semaphore { cell: Inherited::new(1)? };
        // SAFETY: the memory is a sem_t's, and nobody else knows it yet.
        if unsafe { libc::sem_init(semaphore.raw(), 1, 0) } < 0 {
            return Err(named("semaphore", io::Error::last_os_error()));
        }
        Ok(semaphore)
    }

    /// Has the calling process, a child, touch its memory, see [`Inherited::fault_in`].
    pub fn fault_in(&self) {
        self.cell.fault_in();
    }

    /// Adds one and wakes a waiter (sem_post(3)). EOVERFLOW past SEM_VALUE_MAX.
    #[inline]
    pub fn post(&self) -> Call<()> {
        // SAFETY: initialised in `new`.
        if unsafe { libc::sem_post(self.raw()) } < 0 { Err(Errno::last()) } else { Ok(()) }
    }

    /// Takes one, waits for it if there is none (sem_wait(3)). EINTR after a signal handler.
    #[inline]
    pub fn wait(&self) -> Call<()> {
        // SAFETY: initialised in `new`.
        if unsafe { libc::sem_wait(self.raw()) } < 0 { Err(Errno::last()) } else { Ok(()) }
    }

    #[inline]
    fn raw(&self) -> *mut libc::sem_t {
        self.cell[0].0.get()
    }
}

/// Opens a semaphore by its name, or makes one at zero that was not there before (sem_open(3)).
pub(crate) fn open(name: &CStr, create: bool) -> io::Result<NonNull<libc::sem_t>> {
    let (mode, value): (libc::c_uint, libc::c_uint) = (0o600, 0);
    let flags = if create { libc::O_CREAT | libc::O_EXCL } else { 0 };
    // SAFETY: a C string, and what follows O_CREAT: a mode and a value.
    let sem = unsafe { libc::sem_open(name.as_ptr(), flags, mode, value) };
    NonNull::new(sem)
        .ok_or_else(|| named(format!("semaphore {}", name.to_string_lossy()), io::Error::last_os_error()))
}

/// Removes a name (sem_unlink(3)); who has it open goes on with it.
pub(crate) fn unlink(name: &CStr) -> io::Result<()> {
    // SAFETY: a C string.
    if unsafe { libc::sem_unlink(name.as_ptr()) } < 0 {
        return Err(named(format!("semaphore {}", name.to_string_lossy()), io::Error::last_os_error()));
    }
    Ok(())
}

/// Closes what was opened (sem_close(3)).
///
/// # Safety
/// 1. `sem` came from [`open`], is not closed yet, and is not used again.
pub(crate) unsafe fn close(sem: NonNull<libc::sem_t>) {
    // SAFETY: the caller's contract. It fails for what is none.
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

/// Takes one; waits for it, at most so long (`u64::MAX` = no bound), then ETIMEDOUT (sem_timedwait(3)).
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_waits_return_as_were_posted() {
        let semaphore = Semaphore::new().unwrap();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| (0..3).map(|_| semaphore.wait()).collect::<Vec<_>>());
            (0..3).for_each(|_| semaphore.post().unwrap());
            assert_eq!(waiter.join().unwrap(), vec![Ok(()); 3]);
        });
    }
}
