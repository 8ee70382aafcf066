//! Semaphores with names, by which the programs on a skin wake each other where no futex can.
//!
//! Opening, closing and unlinking are for setup: on Cobalt they hand the thread to Linux. A name
//! stays until it is unlinked, also after the process that made it has ended, so a process that
//! makes semaphores removes those that its earlier life has left.
//!
//! Invariant: who takes back what was posted ([`Semaphore::clear`]), then says that it is about to
//! sleep, then checks for messages and only then waits, misses nothing: a post that comes after the
//! first step is kept.

use super::Skin;
use crate::sys::Call;
use std::ffi::{CStr, CString};
use std::io;
use std::ptr::NonNull;

/// Longest name that every skin takes, with its slash: Cobalt's.
pub const NAME_BYTES_MAX: usize = 63;

/// Posts that [`Semaphore::clear`] takes back at most: an honest waker posts once in a turn, and
/// one that posts for ever must not hold up a real-time thread.
const CLEARED_MAX: u32 = 64;

/// A semaphore as the skin's calls take it.
#[derive(Clone, Copy, Debug)]
pub struct RawSemaphore(pub(super) NonNull<libc::sem_t>);

// SAFETY: the calls on a semaphore are made for several threads at once.
unsafe impl Send for RawSemaphore {}
// SAFETY: as above.
unsafe impl Sync for RawSemaphore {}

/// The calls on an open semaphore. Each has one condition: that it is open.
#[derive(Clone, Copy, Debug)]
pub struct SemaphoreCalls {
    /// Adds one and wakes a waiter (sem_post(3)). From any thread.
    pub post: unsafe fn(RawSemaphore) -> Call<()>,
    /// Takes one, or EAGAIN (sem_trywait(3)).
    pub try_wait: unsafe fn(RawSemaphore) -> Call<()>,
    /// Takes one, waits for it at most so many nanoseconds (`u64::MAX` = no bound), then ETIMEDOUT
    /// (sem_timedwait(3)).
    ///
    /// An error other than ETIMEDOUT and EINTR has cost a millisecond: a caller that looks again
    /// and again does not spin.
    pub wait_within: unsafe fn(RawSemaphore, u64) -> Call<()>,
    /// Closes it (sem_close(3)).
    pub close: unsafe fn(RawSemaphore),
}

/// An open semaphore; closed when dropped. Its name is its maker's to remove ([`unlink`]).
#[derive(Debug)]
pub struct Semaphore {
    raw: RawSemaphore,
    calls: SemaphoreCalls,
}

impl Semaphore {
    /// Makes one of that name, at zero. One that is there already is an error.
    pub fn create(skin: &Skin, name: &CStr) -> io::Result<Semaphore> {
        Semaphore::open_as(skin, name, true)
    }

    /// Opens one that is there.
    pub fn open(skin: &Skin, name: &CStr) -> io::Result<Semaphore> {
        Semaphore::open_as(skin, name, false)
    }

    fn open_as(skin: &Skin, name: &CStr, create: bool) -> io::Result<Semaphore> {
        Ok(Semaphore {
            raw: (skin.setup.sem_open)(name, create)?,
            calls: skin.sem,
        })
    }

    /// Wakes who waits, or who waits next. An error would be a count that no honest waker reaches:
    /// there is more than enough to wake up for.
    #[inline]
    pub fn post(&self) {
        // SAFETY: open as long as `self` is there.
        let _ = unsafe { (self.calls.post)(self.raw) };
    }

    /// Takes back what was posted and not waited for.
    #[inline]
    pub fn clear(&self) {
        // SAFETY: open as long as `self` is there.
        let taken = || unsafe { (self.calls.try_wait)(self.raw) }.is_ok();
        (0..CLEARED_MAX).all(|_| taken());
    }

    /// Waits for a post, at most so long (`u64::MAX` = no bound). Whatever ends it, the caller
    /// looks again.
    ///
    /// Errors: ETIMEDOUT, EINTR; others after a pause.
    #[inline]
    pub fn wait(&self, timeout_ns: u64) -> Call<()> {
        // SAFETY: open as long as `self` is there.
        unsafe { (self.calls.wait_within)(self.raw, timeout_ns) }
    }
}

impl Drop for Semaphore {
    fn drop(&mut self) {
        // SAFETY: opened in `open_as`, and used no more.
        unsafe { (self.calls.close)(self.raw) }
    }
}

/// Removes a name; true if it was there. Who has the semaphore open goes on with it.
pub fn unlink(skin: &Skin, name: &CStr) -> io::Result<bool> {
    match (skin.setup.sem_unlink)(name) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

/// The name of an instance's semaphore by its number.
pub fn name(instance: &str, number: u32) -> CString {
    // A zero byte is in no name of an instance; nothing is called like the empty name.
    CString::new(format!("/rtd.{instance}.{number}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::skin::posix;
    use crate::sys::{Errno, sched};

    /// One whose name is gone already.
    fn fresh(part: &str) -> (Semaphore, Semaphore) {
        let name = name(&format!("unit-{}-{part}", sched::getpid()), 0);
        assert!(!unlink(posix(), &name).unwrap());
        let made = Semaphore::create(posix(), &name).unwrap();
        let again = Semaphore::create(posix(), &name).unwrap_err();
        assert!(
            again.kind() == io::ErrorKind::AlreadyExists && again.to_string().contains(part),
            "{again}"
        );
        let opened = Semaphore::open(posix(), &name).unwrap();
        assert!(unlink(posix(), &name).unwrap() && !unlink(posix(), &name).unwrap());
        assert_eq!(
            Semaphore::open(posix(), &name).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
        (made, opened)
    }

    #[test]
    fn what_was_posted_is_waited_for_or_taken_back() {
        let (made, opened) = fresh("posted");
        opened.post();
        made.wait(u64::MAX).unwrap();
        (0..3).for_each(|_| opened.post());
        made.clear();
        assert_eq!(made.wait(1_000_000), Err(Errno(libc::ETIMEDOUT)));
    }

    #[test]
    fn who_posts_for_ever_holds_up_nobody_who_clears() {
        let (made, opened) = fresh("flood");
        (0..2 * CLEARED_MAX).for_each(|_| opened.post());
        made.clear();
        (0..CLEARED_MAX).for_each(|_| made.wait(0).unwrap());
        assert_eq!(made.wait(0), Err(Errno(libc::ETIMEDOUT)));
    }
}
