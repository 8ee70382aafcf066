//! Named semaphores, by which the programs on a skin wake each other if they cannot use futexes.
//!
//! Opening, closing and unlinking are for setup: on Cobalt they hand the thread to Linux. A name
//! stays until it is unlinked, even after the process that made it has ended, so a process that
//! makes semaphores removes those of its earlier life.
//!
//! Invariant: a thread that takes off earlier posts ([`Semaphore::clear`]), then shows that it is
//! about to sleep, then checks for messages and only then waits, misses no message: a post that
//! comes after the first step is kept.

use super::Skin;
use crate::sys::Call;
use std::ffi::{CStr, CString};
use std::io;
use std::ptr::NonNull;

/// Longest name that every skin takes, with its slash: Cobalt's.
pub const NAME_BYTES_MAX: usize = 63;

/// Limit of the posts that [`Semaphore::clear`] takes off: an honest waker posts once in a turn,
/// and one that never stops must not hold up a real-time thread.
const CLEARED_MAX: u32 = 64;

/// A semaphore as the skin's calls take it.
#[derive(Clone, Copy, Debug)]
pub struct RawSemaphore(pub(super) NonNull<libc::sem_t>);

// SAFETY: several threads may make the calls on a semaphore at once.
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
    /// Takes one, and waits for it for at most this many nanoseconds (`u64::MAX`: no limit), then
    /// ETIMEDOUT (sem_timedwait(3)).
    ///
    /// Any error other than ETIMEDOUT and EINTR takes a millisecond, so a caller that tries again
    /// does not spin.
    pub wait_within: unsafe fn(RawSemaphore, u64) -> Call<()>,
    /// Closes it (sem_close(3)).
    pub close: unsafe fn(RawSemaphore),
}

/// An open semaphore; closed when dropped. The process that made it removes its name ([`unlink`]).
#[derive(Debug)]
pub struct Semaphore {
    raw: RawSemaphore,
    calls: SemaphoreCalls,
}

impl Semaphore {
    /// Creates one with that name and value zero. An existing name is an error.
    pub fn create(skin: &Skin, name: &CStr) -> io::Result<Semaphore> {
        Semaphore::open_as(skin, name, true)
    }

    /// Opens an existing one.
    pub fn open(skin: &Skin, name: &CStr) -> io::Result<Semaphore> {
        Semaphore::open_as(skin, name, false)
    }

    fn open_as(skin: &Skin, name: &CStr, create: bool) -> io::Result<Semaphore> {
        Ok(Semaphore {
            raw: (skin.setup.sem_open)(name, create)?,
            calls: skin.sem,
        })
    }

    /// Wakes the thread that waits, or the next one that waits. An error would be a count that no
    /// honest waker reaches, so there are enough posts for a wake-up.
    #[inline]
    pub fn post(&self) {
        // SAFETY: open as long as `self` is there.
        let _ = unsafe { (self.calls.post)(self.raw) };
    }

    /// Takes off earlier posts.
    #[inline]
    pub fn clear(&self) {
        // SAFETY: open as long as `self` is there.
        let taken = || unsafe { (self.calls.try_wait)(self.raw) }.is_ok();
        (0..CLEARED_MAX).all(|_| taken());
    }

    /// Waits for a post, for at most this long (`u64::MAX`: no limit). The caller checks again,
    /// whatever ended the wait.
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

/// Removes a name; true if it existed. Threads that have the semaphore open keep using it.
pub fn unlink(skin: &Skin, name: &CStr) -> io::Result<bool> {
    match (skin.setup.sem_unlink)(name) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

/// The name of an instance's semaphore by its number.
pub fn name(instance: &str, number: u32) -> CString {
    // No name of an instance contains a zero byte, and no object has the empty name.
    CString::new(format!("/rtd.{instance}.{number}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::skin::posix;
    use crate::sys::{Errno, sched};

    /// A semaphore whose name is already removed.
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
