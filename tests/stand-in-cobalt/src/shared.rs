//! What all processes of a space share: Cobalt threads, pending signals, notifications, the names
//! of queues.
//!
//! Constraint: any process may be killed at any line. The lock is robust; what it guards is arrays
//! of plain records whose free mark is written last, so a half-made record is a free one.

use crate::Core;
use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

/// Pending signals for all processes together.
pub(crate) const POOL: usize = 128;
const THREADS: usize = 256;
const NOTIFICATIONS: usize = 16;
const NAMES: usize = 128;
pub(crate) const NAME_BYTES: usize = 64;

/// A Cobalt thread; free when its tid is 0.
#[repr(C)]
pub(crate) struct Thread {
    pub(crate) tid: i32,
    pub(crate) pid: i32,
    pub(crate) pthread: libc::pthread_t,
    /// The signals it waits for now, bit n-1 for signal n.
    pub(crate) waiting: u64,
    /// Goes up when it is given a signal while it waits (futex word).
    pub(crate) bell: AtomicU32,
    /// Times that it made a Linux call in primary mode, and the last one's number (`follow`).
    pub(crate) linux_calls: AtomicU32,
    pub(crate) last_call: AtomicI32,
}

/// A signal on its way; free when its order is 0.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Pending {
    pub(crate) order: u64,
    pub(crate) to: i32,
    pub(crate) signo: i32,
    pub(crate) code: i32,
    pub(crate) pid: i32,
    pub(crate) uid: u32,
    pub(crate) value: u64,
}

/// Who wants to know that a queue is no longer empty; free when its inode is 0.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Notification {
    pub(crate) inode: u64,
    pub(crate) tid: i32,
    pub(crate) signo: i32,
    pub(crate) value: u64,
}

/// What the lock guards.
#[repr(C)]
pub(crate) struct Tables {
    orders: u64,
    pub(crate) threads: [Thread; THREADS],
    pub(crate) pool: [Pending; POOL],
    pub(crate) notifications: [Notification; NOTIFICATIONS],
    /// Queues that were created and not unlinked, zero-terminated.
    pub(crate) names: [[u8; NAME_BYTES]; NAMES],
}

/// The mapping.
#[repr(C)]
pub(crate) struct Shared {
    lock: UnsafeCell<libc::pthread_mutex_t>,
    tables: UnsafeCell<Tables>,
}

// SAFETY: the tables are reached through the lock only, which is made for several processes.
unsafe impl Sync for Shared {}

impl Shared {
    /// Makes the lock of a mapping that is all zero otherwise.
    pub(crate) fn initialise(&self) {
        let mut attributes = std::mem::MaybeUninit::uninit();
        // SAFETY: each call gets what the one before it initialised; nobody else knows the mapping
        // yet (`space`).
        unsafe {
            libc::pthread_mutexattr_init(attributes.as_mut_ptr());
            libc::pthread_mutexattr_setpshared(
                attributes.as_mut_ptr(),
                libc::PTHREAD_PROCESS_SHARED,
            );
            libc::pthread_mutexattr_setrobust(attributes.as_mut_ptr(), libc::PTHREAD_MUTEX_ROBUST);
            libc::pthread_mutexattr_setprotocol(
                attributes.as_mut_ptr(),
                libc::PTHREAD_PRIO_INHERIT,
            );
            libc::pthread_mutex_init(self.lock.get(), attributes.as_ptr());
        }
    }

    /// The tables, for the caller alone.
    pub(crate) fn lock(&self) -> Guard<'_> {
        // SAFETY: initialised before the mapping is handed out.
        let rc = unsafe { libc::pthread_mutex_lock(self.lock.get()) };
        match rc {
            0 => {}
            // SAFETY: we hold it, and the tables bear a holder that stopped anywhere (module
            // comment).
            libc::EOWNERDEAD => unsafe {
                libc::pthread_mutex_consistent(self.lock.get());
            },
            other => crate::complain(format_args!(
                "the lock of the space failed with error {other}"
            )),
        }
        Guard { shared: self }
    }
}

/// The tables, locked.
pub(crate) struct Guard<'a> {
    shared: &'a Shared,
}

impl Deref for Guard<'_> {
    type Target = Tables;

    fn deref(&self) -> &Tables {
        // SAFETY: we hold the lock.
        unsafe { &*self.shared.tables.get() }
    }
}

impl DerefMut for Guard<'_> {
    fn deref_mut(&mut self) -> &mut Tables {
        // SAFETY: we hold the lock, and the guard is borrowed alone.
        unsafe { &mut *self.shared.tables.get() }
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        // SAFETY: the guard's existence says that we hold it.
        unsafe { libc::pthread_mutex_unlock(self.shared.lock.get()) };
    }
}

impl Tables {
    /// Where the living Cobalt thread of this id is.
    pub(crate) fn find(&mut self, tid: i32) -> Core<usize> {
        let at = self
            .threads
            .iter()
            .position(|t| t.tid == tid && tid > 0)
            .ok_or(libc::ESRCH)?;
        if alive(&self.threads[at]) {
            return Ok(at);
        }
        self.remove(tid);
        Err(libc::ESRCH)
    }

    /// Where the caller's own thread of this pthread_t is.
    pub(crate) fn find_pthread(&mut self, pthread: libc::pthread_t) -> Core<i32> {
        let pid = crate::thread::pid();
        let own = |t: &&Thread| t.tid != 0 && t.pid == pid && t.pthread == pthread;
        self.threads
            .iter()
            .find(own)
            .map(|t| t.tid)
            .ok_or(libc::ESRCH)
    }

    /// Adds the calling thread; EAGAIN when there are too many.
    pub(crate) fn add(&mut self, tid: i32, pthread: libc::pthread_t) -> Core<&Thread> {
        // The thread that had this number before is gone.
        self.remove(tid);
        if self.threads.iter().all(|t| t.tid != 0) {
            self.bury();
        }
        let slot = self
            .threads
            .iter_mut()
            .find(|t| t.tid == 0)
            .ok_or(libc::EAGAIN)?;
        slot.pid = crate::thread::pid();
        slot.pthread = pthread;
        slot.waiting = 0;
        slot.linux_calls.store(0, Ordering::Relaxed);
        slot.tid = tid;
        Ok(slot)
    }

    /// Removes a thread with what is pending for it.
    pub(crate) fn remove(&mut self, tid: i32) {
        self.pool
            .iter_mut()
            .filter(|p| p.to == tid)
            .for_each(|p| p.order = 0);
        self.notifications
            .iter_mut()
            .filter(|n| n.tid == tid)
            .for_each(|n| n.inode = 0);
        self.threads
            .iter_mut()
            .filter(|t| t.tid == tid)
            .for_each(|t| t.tid = 0);
    }

    /// Removes the threads that ended without saying so.
    fn bury(&mut self) {
        for at in 0..THREADS {
            let tid = self.threads[at].tid;
            if tid != 0 && !alive(&self.threads[at]) {
                self.remove(tid);
            }
        }
    }

    /// Queues a signal and wakes who waits for it. With no record left it is dropped, and nobody is
    /// told.
    pub(crate) fn queue(&mut self, signal: Pending, pool: usize) {
        if self.used() >= pool {
            self.bury();
        }
        if self.used() >= pool {
            return;
        }
        self.orders += 1;
        let order = self.orders;
        let Some(slot) = self.pool.iter_mut().find(|p| p.order == 0) else {
            return;
        };
        *slot = Pending { order: 0, ..signal };
        slot.order = order;
        let Some(thread) = self.threads.iter_mut().find(|t| t.tid == signal.to) else {
            return;
        };
        if thread.waiting & bit(signal.signo) != 0 {
            thread.waiting = 0;
            thread.bell.fetch_add(1, Ordering::Relaxed);
            crate::signal::wake(&thread.bell);
        }
    }

    fn used(&self) -> usize {
        self.pool.iter().filter(|p| p.order != 0).count()
    }

    /// Takes the thread's next signal of the set: the lowest number, of that the oldest.
    pub(crate) fn take(&mut self, tid: i32, set: u64) -> Option<Pending> {
        let mine = |p: &&mut Pending| p.order != 0 && p.to == tid && bit(p.signo) & set != 0;
        let next = self
            .pool
            .iter_mut()
            .filter(mine)
            .min_by_key(|p| (p.signo, p.order))?;
        let taken = *next;
        next.order = 0;
        Some(taken)
    }

    /// What is pending for the thread.
    pub(crate) fn pending(&self, tid: i32) -> u64 {
        self.pool
            .iter()
            .filter(|p| p.order != 0 && p.to == tid)
            .fold(0, |set, p| set | bit(p.signo))
    }
}

/// The bit of a signal in a set.
pub(crate) fn bit(signo: i32) -> u64 {
    if (1..=64).contains(&signo) {
        1 << (signo - 1)
    } else {
        0
    }
}

fn alive(thread: &Thread) -> bool {
    // SAFETY: plain integers; signal 0 only asks.
    let rc = unsafe { libc::syscall(libc::SYS_tgkill, thread.pid, thread.tid, 0) };
    rc == 0 || crate::last_errno() != libc::ESRCH
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh() -> Box<Shared> {
        // SAFETY: zero is a value of every field, as in a new mapping.
        let shared: Box<Shared> = unsafe { Box::new_zeroed().assume_init() };
        shared.initialise();
        shared
    }

    fn signal(to: i32, signo: i32, value: u64) -> Pending {
        Pending {
            order: 0,
            to,
            signo,
            code: libc::SI_QUEUE,
            pid: 0,
            uid: 0,
            value,
        }
    }

    #[test]
    fn signals_come_lowest_first_and_in_order() {
        let shared = fresh();
        let mut tables = shared.lock();
        for (signo, value) in [(41, 1), (40, 2), (40, 3)] {
            tables.queue(signal(7, signo, value), POOL);
        }
        let all = bit(40) | bit(41);
        assert_eq!(tables.take(8, all).map(|p| p.value), None);
        let taken = std::iter::from_fn(|| tables.take(7, all)).map(|p| p.value);
        assert_eq!(taken.collect::<Vec<_>>(), [2, 3, 1]);
    }

    #[test]
    fn what_finds_no_room_is_gone() {
        let shared = fresh();
        let mut tables = shared.lock();
        (0..5).for_each(|value| tables.queue(signal(7, 40, value), 3));
        assert_eq!(tables.used(), 3);
        tables.remove(7);
        assert_eq!(tables.used(), 0);
    }

    #[test]
    fn a_thread_that_ended_is_found_no_more_and_gives_its_signals_back() {
        let shared = fresh();
        let me = crate::thread::tid();
        // SAFETY: takes nothing.
        let pthread = unsafe { libc::pthread_self() };
        shared.lock().add(me, pthread).unwrap();
        assert!(shared.lock().find(me).is_ok());
        assert_eq!(shared.lock().find_pthread(pthread), Ok(me));
        // No process has a number that high.
        let gone = i32::MAX;
        shared.lock().add(gone, pthread).unwrap();
        shared.lock().queue(signal(gone, 40, 0), POOL);
        assert_eq!(shared.lock().find(gone), Err(libc::ESRCH));
        assert_eq!(shared.lock().used(), 0);
    }

    #[test]
    fn a_holder_that_dies_leaves_the_lock_to_the_next_one() {
        let shared = fresh();
        let holder = std::thread::scope(|scope| {
            // The kernel gives a robust lock back at the end of its holder, be it a process or a
            // thread.
            scope.spawn(|| std::mem::forget(shared.lock())).join()
        });
        assert!(holder.is_ok());
        assert_eq!(shared.lock().used(), 0);
        assert_eq!(shared.lock().used(), 0);
    }
}
