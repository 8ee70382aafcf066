//! A counting semaphore without a name in memory that forked children inherit (sem_overview(7)).
//!
//! sem_destroy(3) is not called: it does nothing on Linux, and the memory is freed with its last
//! mapping.

use super::inherited::{Inherited, Zeroed};
use rtcore::sys::context::named;
use rtcore::sys::{Call, Errno};
use std::cell::UnsafeCell;
use std::io;

#[repr(transparent)]
struct Cell(UnsafeCell<libc::sem_t>);

// SAFETY: the calls of sem_overview(7) are made to be used by several threads at once.
unsafe impl Sync for Cell {}
// SAFETY: 1. sem_t is a union of integers and bytes; 2. initialised with pshared before anybody
// uses it (`new`).
unsafe impl Zeroed for Cell {}

pub struct Semaphore {
    cell: Inherited<Cell>,
}

impl std::fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Semaphore")
    }
}

impl Semaphore {
    /// Creates the semaphore with the value 0.
    pub fn new() -> io::Result<Semaphore> {
        let semaphore = Semaphore {
            cell: Inherited::new(1)?,
        };
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
        if unsafe { libc::sem_post(self.raw()) } < 0 {
            Err(Errno::last())
        } else {
            Ok(())
        }
    }

    /// Takes one, waits for it if there is none (sem_wait(3)). EINTR after a signal handler.
    #[inline]
    pub fn wait(&self) -> Call<()> {
        // SAFETY: initialised in `new`.
        if unsafe { libc::sem_wait(self.raw()) } < 0 {
            Err(Errno::last())
        } else {
            Ok(())
        }
    }

    #[inline]
    fn raw(&self) -> *mut libc::sem_t {
        self.cell[0].0.get()
    }
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
