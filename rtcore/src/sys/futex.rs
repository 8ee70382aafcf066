//! Waiting for a word of shared memory to change (futex(2)).

use super::Errno;
use super::clock::timespec;
use super::optional::Optional;
use std::sync::atomic::AtomicU32;

/// Period at which a wait for several words checks them if the kernel cannot wait for all.
pub const POLL_NS: u64 = 1_000_000;
/// Most words of one [`wait_any`] (FUTEX_WAITV_MAX).
pub const WORDS_MAX: usize = 128;

/// Sleeps while the word is `expected`, for at most `timeout_ns` (`u64::MAX`: no limit).
///
/// It may also return without a reason: check again. EAGAIN if the word has another value already,
/// EINTR after a signal, ETIMEDOUT at the time limit. The word may be in memory that is mapped
/// read-only.
#[inline]
pub fn wait(word: &AtomicU32, expected: u32, timeout_ns: u64) -> Result<(), Errno> {
    let time = timespec(timeout_ns);
    let time = if timeout_ns == u64::MAX {
        std::ptr::null()
    } else {
        &raw const time
    };
    // SAFETY: the word outlives the call (borrowed); the kernel only reads it. The time is null or
    // valid.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT,
            expected,
            time,
            0usize,
            0usize,
        )
    };
    if rc < 0 { Err(Errno::last()) } else { Ok(()) }
}

/// Wakes one waiter of the word, in whichever process.
#[inline]
pub fn wake(word: &AtomicU32) {
    wake_at(word.as_ptr(), 1);
}

/// Wakes every waiter of the word.
pub fn wake_all(word: &AtomicU32) {
    wake_at(word.as_ptr(), i32::MAX);
}

fn wake_at(word: *const u32, count: i32) {
    // SAFETY: the kernel takes the address as a key and touches nothing; on one that is not mapped
    // it fails, which wakes nobody, as there is nobody.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word,
            libc::FUTEX_WAKE,
            count,
            0usize,
            0usize,
            0usize,
        )
    };
}

/// One word to wait for and the value it has now (struct futex_waitv).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Word {
    value: u64,
    address: u64,
    flags: u32,
    reserved: u32,
}

/// FUTEX_32, not private.
const FUTEX_32: u32 = 2;
/// Not in the libc crate for every target; the same number on all architectures since Linux 5.16.
pub(super) const SYS_FUTEX_WAITV: libc::c_long = 449;

impl Word {
    /// Not a word: for filling memory. EINVAL when waited for.
    pub const NONE: Word = Word {
        value: 0,
        address: 0,
        flags: 0,
        reserved: 0,
    };

    /// Sleep while `word` is `expected`. The thread that waits keeps the word alive.
    pub fn new(word: &AtomicU32, expected: u32) -> Word {
        Word {
            value: expected.into(),
            address: word.as_ptr().expose_provenance() as u64,
            flags: FUTEX_32,
            reserved: 0,
        }
    }

    /// # Safety
    /// 1. The word given to [`Word::new`] is still mapped.
    unsafe fn as_atomic<'a>(&self) -> &'a AtomicU32 {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "made of an address (`new`)"
        )]
        let address = std::ptr::with_exposed_provenance::<AtomicU32>(self.address as usize);
        // SAFETY: the caller's contract; it was made of a reference (`new`), so it is aligned.
        unsafe { &*address }
    }

    /// # Safety
    /// 1. The word given to [`Word::new`] is still mapped.
    unsafe fn load(&self) -> u32 {
        // SAFETY: the caller's contract.
        unsafe { self.as_atomic() }.load(std::sync::atomic::Ordering::Acquire)
    }

    /// The value it has to have.
    pub fn expected(&self) -> u32 {
        #[expect(clippy::cast_possible_truncation, reason = "made of a u32 (`new`)")]
        let value = self.value as u32;
        value
    }
}

static WAITV: Optional = Optional::new();

/// Tries futex_waitv(2): EPERM or ENOSYS where the kernel or a filter of system calls refuses it.
/// Then a wait for several words ends after [`POLL_NS`] at the latest.
pub fn probe_wait_any() -> Result<(), Errno> {
    let word = AtomicU32::new(1);
    // Another value than the word has: EAGAIN at once.
    // SAFETY: the word is on this stack.
    match unsafe { waitv(&[Word::new(&word, 0)], 0) } {
        Err(errno) if WAITV.refuses(errno) => Err(errno),
        _ => Ok(()),
    }
}

/// Sleeps while every word has the value given with it, at most `timeout_ns` (futex_waitv(2), Linux
/// 5.16).
///
/// If that call is refused, it sleeps at the first word, and returns every [`POLL_NS`] without a
/// reason, so that the caller checks the others.
///
/// Errors as [`wait`]; EINVAL for none or more than [`WORDS_MAX`].
///
/// # Safety
/// 1. The words given to [`Word::new`] are still mapped.
pub unsafe fn wait_any(words: &[Word], timeout_ns: u64) -> Result<(), Errno> {
    if !WAITV.is_refused() {
        // SAFETY: the caller's contract.
        match unsafe { waitv(words, timeout_ns) } {
            Err(errno) if WAITV.refuses(errno) => {}
            done => return done,
        }
    }
    // SAFETY: the caller's contract.
    unsafe { poll_in_turns(words, timeout_ns) }
}

/// # Safety
/// 1. The words given to [`Word::new`] are still mapped.
unsafe fn poll_in_turns(words: &[Word], timeout_ns: u64) -> Result<(), Errno> {
    // SAFETY: the caller's contract.
    let changed = |word: &Word| unsafe { word.load() } != word.expected();
    match words {
        [] => Err(Errno::INVAL),
        words if words.iter().any(changed) => Err(Errno::AGAIN),
        [first, others @ ..] => {
            let bound_ns = if others.is_empty() {
                timeout_ns
            } else {
                timeout_ns.min(POLL_NS)
            };
            // SAFETY: the caller's contract.
            wait(unsafe { first.as_atomic() }, first.expected(), bound_ns)
        }
    }
}

/// # Safety
/// 1. The words given to [`Word::new`] are still mapped.
unsafe fn waitv(words: &[Word], timeout_ns: u64) -> Result<(), Errno> {
    // The call takes an absolute time.
    let until = timespec(super::clock::monotonic_ns().saturating_add(timeout_ns));
    let until = if timeout_ns == u64::MAX {
        std::ptr::null()
    } else {
        &raw const until
    };
    // SAFETY: `words` is a slice of futex_waitv; that the words are mapped is the caller's
    // contract, and where they are not the kernel says EFAULT.
    let rc = unsafe {
        libc::syscall(
            SYS_FUTEX_WAITV,
            words.as_ptr(),
            words.len(),
            0usize,
            until,
            libc::CLOCK_MONOTONIC,
        )
    };
    if rc < 0 { Err(Errno::last()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn a_word_that_changed_before_is_not_waited_for() {
        let word = AtomicU32::new(1);
        assert_eq!(wait(&word, 0, u64::MAX), Err(Errno::AGAIN));
        // SAFETY: the word is on this stack.
        let any = unsafe { wait_any(&[Word::new(&word, 0)], u64::MAX) };
        assert_eq!(any, Err(Errno::AGAIN));
    }

    #[test]
    fn a_wait_ends_with_its_time() {
        let word = AtomicU32::new(0);
        assert_eq!(wait(&word, 0, 1_000_000), Err(Errno(libc::ETIMEDOUT)));
        // SAFETY: the word is on this stack.
        let any = unsafe { wait_any(&[Word::new(&word, 0)], 1_000_000) };
        assert_eq!(any, Err(Errno(libc::ETIMEDOUT)));
    }

    #[test]
    fn a_wake_reaches_a_waiter_of_any_of_the_words() {
        let words = [AtomicU32::new(0), AtomicU32::new(0)];
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while words[1].load(Ordering::Acquire) == 0 {
                    let waiting = [Word::new(&words[0], 0), Word::new(&words[1], 0)];
                    // SAFETY: the words outlive the scope.
                    let _ = unsafe { wait_any(&waiting, u64::MAX) };
                }
            });
            words[1].store(1, Ordering::Release);
            wake(&words[1]);
        });
    }

    /// The fallback itself: all words are seen, and the thread sleeps.
    #[test]
    fn where_the_call_is_refused_a_wait_for_several_words_sleeps_and_sees_all_of_them() {
        let words = [AtomicU32::new(0), AtomicU32::new(0)];
        let waiting = || [Word::new(&words[0], 0), Word::new(&words[1], 0)];
        let bound = |timeout_ns| {
            let since = super::super::clock::monotonic_ns();
            // SAFETY: the words are on this stack.
            let done = unsafe { poll_in_turns(&waiting(), timeout_ns) };
            (done, super::super::clock::monotonic_ns() - since)
        };
        let (done, slept_ns) = bound(u64::MAX);
        assert!(
            done == Err(Errno(libc::ETIMEDOUT)) && slept_ns >= POLL_NS,
            "{done:?} after {slept_ns} ns"
        );
        assert!(bound(100_000).1 >= 100_000);
        words[1].store(1, Ordering::Release);
        assert_eq!(bound(u64::MAX).0, Err(Errno::AGAIN));
        // SAFETY: no word.
        assert_eq!(unsafe { poll_in_turns(&[], u64::MAX) }, Err(Errno::INVAL));
    }
}
