//! A mutex between processes that inherits priority and notices when its holder dies
//! (pthread_mutexattr_setprotocol(3), pthread_mutexattr_setrobust(3)), in memory that children
//! inherit.
//!
//! Invariant: memory of a mutex that is held is never unmapped here. The C library keeps a list of
//! the robust mutexes that a thread holds, through the mutexes themselves.

use super::inherited::{Inherited, Zeroed};
use rtcore::sys::context::named;
use rtcore::sys::{Call, Errno, clock};
use std::cell::UnsafeCell;
use std::io;
use std::mem::{ManuallyDrop, MaybeUninit};

unsafe extern "C" {
    /// glibc 2.30; not in the libc crate.
    fn pthread_mutex_clocklock(
        mutex: *mut libc::pthread_mutex_t,
        clock: libc::clockid_t,
        until: *const libc::timespec,
    ) -> libc::c_int;
}

#[repr(transparent)]
struct Cell(UnsafeCell<libc::pthread_mutex_t>);

// SAFETY: the calls of pthreads are made to be used by several threads at once.
unsafe impl Sync for Cell {}
// SAFETY: 1. pthread_mutex_t is a union of integers, bytes and pointers; 2. initialised as shared
// between processes before anybody uses it (`new`).
unsafe impl Zeroed for Cell {}

pub struct Mutex {
    cell: ManuallyDrop<Inherited<Cell>>,
}

impl std::fmt::Debug for Mutex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mutex")
    }
}

impl Mutex {
    /// Unlocked.
    ///
    /// Errors: ENOTSUP where the kernel has no priority-inheriting futexes.
    pub fn new() -> io::Result<Mutex> {
        let mutex = Mutex {
            cell: ManuallyDrop::new(Inherited::new(1)?),
        };
        let mut attributes = MaybeUninit::uninit();
        let at: *mut libc::pthread_mutexattr_t = attributes.as_mut_ptr();
        // SAFETY: the attributes are initialised by the first call before the others use them; the
        // memory is a pthread_mutex_t's, and nobody else knows it yet.
        let rc = unsafe {
            [
                libc::pthread_mutexattr_init(at),
                libc::pthread_mutexattr_setpshared(at, libc::PTHREAD_PROCESS_SHARED),
                libc::pthread_mutexattr_setprotocol(at, libc::PTHREAD_PRIO_INHERIT),
                libc::pthread_mutexattr_setrobust(at, libc::PTHREAD_MUTEX_ROBUST),
                libc::pthread_mutex_init(mutex.raw(), at),
                libc::pthread_mutexattr_destroy(at),
            ]
        };
        match rc.into_iter().find(|&rc| rc != 0) {
            None => Ok(mutex),
            Some(rc) => Err(named(
                "priority-inheriting mutex",
                io::Error::from_raw_os_error(rc),
            )),
        }
    }

    /// Has the calling process, a child, touch its memory, see [`Inherited::fault_in`].
    pub fn fault_in(&self) {
        self.cell.fault_in();
    }

    /// Locks it, waits at most `timeout_ns` for its holder.
    ///
    /// Errors: ETIMEDOUT, also if the calling thread has it already; EOWNERDEAD: the holder ended
    /// without unlocking, and from now on ENOTRECOVERABLE for everybody, because its message is
    /// lost.
    #[inline]
    pub fn lock_within(&self, timeout_ns: u64) -> Call<()> {
        let until = clock::timespec(clock::monotonic_ns().saturating_add(timeout_ns));
        // SAFETY: initialised in `new`; the time is valid.
        let rc =
            unsafe { pthread_mutex_clocklock(self.raw(), libc::CLOCK_MONOTONIC, &raw const until) };
        self.outcome(if rc == libc::EINVAL {
            self.lock_by_wall_clock(timeout_ns)
        } else {
            rc
        })
    }

    /// Before glibc 2.35 or Linux 5.14 (FUTEX_LOCK_PI2) such a mutex waits by CLOCK_REALTIME alone.
    #[cold]
    fn lock_by_wall_clock(&self, timeout_ns: u64) -> i32 {
        let until = clock::realtime_after(timeout_ns);
        // SAFETY: as in `lock_within`.
        unsafe { libc::pthread_mutex_timedlock(self.raw(), &raw const until) }
    }

    #[inline]
    fn outcome(&self, rc: i32) -> Call<()> {
        match rc {
            0 => Ok(()),
            libc::EOWNERDEAD => {
                // Unlocked without pthread_mutex_consistent(3): it can never be locked again.
                self.unlock()?;
                Err(Errno(rc))
            }
            rc => Err(Errno(rc)),
        }
    }

    /// Unlocks it; the waiter of the highest priority has it then. EPERM: the calling thread does
    /// not hold it.
    #[inline]
    pub fn unlock(&self) -> Call<()> {
        // SAFETY: initialised in `new`.
        match unsafe { libc::pthread_mutex_unlock(self.raw()) } {
            0 => Ok(()),
            rc => Err(Errno(rc)),
        }
    }

    #[inline]
    fn raw(&self) -> *mut libc::pthread_mutex_t {
        self.cell[0].0.get()
    }
}

impl Drop for Mutex {
    fn drop(&mut self) {
        // SAFETY: initialised in `new`, or zero bytes, which is an unlocked one of the plain kind.
        let rc = unsafe { libc::pthread_mutex_trylock(self.raw()) };
        // Held, by us or another: its page stays (module's invariant).
        if matches!(rc, libc::EBUSY | libc::EDEADLK) {
            return;
        }
        if matches!(rc, 0 | libc::EOWNERDEAD) {
            let _ = self.unlock();
        }
        // SAFETY: not used after this.
        unsafe { ManuallyDrop::drop(&mut self.cell) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT_NS: u64 = 10_000_000;
    const LONG_NS: u64 = 10_000_000_000;

    #[test]
    fn it_passes_from_holder_to_waiter() {
        let mutex = Mutex::new().unwrap();
        mutex.lock_within(MOMENT_NS).unwrap();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| mutex.lock_within(LONG_NS).and_then(|()| mutex.unlock()));
            mutex.unlock().unwrap();
            assert_eq!(waiter.join().unwrap(), Ok(()));
        });
    }

    #[test]
    fn a_wait_ends_with_its_time_and_only_the_holder_unlocks() {
        let mutex = Mutex::new().unwrap();
        mutex.lock_within(MOMENT_NS).unwrap();
        std::thread::scope(|scope| {
            let other = scope.spawn(|| (mutex.lock_within(MOMENT_NS), mutex.unlock()));
            let refused = (Err(Errno(libc::ETIMEDOUT)), Err(Errno(libc::EPERM)));
            assert_eq!(other.join().unwrap(), refused);
        });
        assert_eq!(mutex.lock_by_wall_clock(MOMENT_NS), libc::ETIMEDOUT);
        mutex.unlock().unwrap();
    }

    #[test]
    fn a_holder_that_dies_is_an_error_for_who_waits_and_for_everybody_after() {
        let mutex = Mutex::new().unwrap();
        std::thread::scope(|scope| {
            scope
                .spawn(|| mutex.lock_within(MOMENT_NS).unwrap())
                .join()
                .unwrap();
        });
        assert_eq!(mutex.lock_within(LONG_NS), Err(Errno(libc::EOWNERDEAD)));
        assert_eq!(
            mutex.lock_within(LONG_NS),
            Err(Errno(libc::ENOTRECOVERABLE))
        );
    }

    #[test]
    fn one_that_goes_while_it_is_held_harms_no_other() {
        let gone = Mutex::new().unwrap();
        gone.lock_within(MOMENT_NS).unwrap();
        drop(gone);
        let other = Mutex::new().unwrap();
        other.lock_within(MOMENT_NS).unwrap();
        other.unlock().unwrap();
    }
}
