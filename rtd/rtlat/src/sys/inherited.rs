//! Memory that a process shares with the children it forks (mmap(2) MAP_SHARED | MAP_ANONYMOUS).
//!
//! The opposite of [`rtcore::sys::memfd::Map`], which a child must not have: this is for parent and
//! child who measure each other. Present and, where that is granted, locked in the process that
//! made it; a child calls [`Inherited::fault_in`] before it counts on that, since fork(2) passes on
//! neither page tables of shared memory nor locks.
//!
//! Invariant: the values were zero bytes at birth, are shared by reference only, and are never
//! dropped.

use rtcore::sys::context::named;
use rustix::mm::{MapFlags, MlockFlags, ProtFlags};
use std::io;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

/// A type whose values may be in such memory.
///
/// # Safety
/// 1. Zero bytes are a value of it. 2. It may be used by several processes at once through shared
///    references.
pub unsafe trait Zeroed: Sync {}

// SAFETY: 1. FromZeros says so; 2. Sync: the shared parts are atomics, which need no common address
// space.
unsafe impl<T: zerocopy::FromZeros + Sync> Zeroed for T {}

const PAGE_BYTES: usize = 4096;

/// A slice of values.
#[derive(Debug)]
pub struct Inherited<T: Zeroed> {
    start: NonNull<T>,
    count: usize,
}

// SAFETY: it hands out shared references only, and T is Sync.
unsafe impl<T: Zeroed> Send for Inherited<T> {}
// SAFETY: as above.
unsafe impl<T: Zeroed> Sync for Inherited<T> {}

impl<T: Zeroed> Inherited<T> {
    /// `count` values of zero bytes.
    ///
    /// Errors: ENOMEM; nothing asked for.
    pub fn new(count: usize) -> io::Result<Inherited<T>> {
        const {
            assert!(
                align_of::<T>() <= PAGE_BYTES && size_of::<T>() > 0 && !std::mem::needs_drop::<T>()
            )
        };
        let bytes = Self::bytes(count)
            .filter(|&bytes| bytes > 0)
            .ok_or(io::ErrorKind::InvalidInput)?;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses a free place; nothing of ours is there.
        let start = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                bytes,
                protection,
                MapFlags::SHARED | MapFlags::POPULATE,
            )
        };
        let start = start.map_err(|e| named(format!("{bytes} bytes of shared memory"), e))?;
        let start =
            NonNull::new(start.cast::<T>()).ok_or_else(|| io::Error::other("mmap gave null"))?;
        let memory = Inherited { start, count };
        // Not granted (RLIMIT_MEMLOCK), it still is present now; a caller that insists locks the
        // whole process and hears so. SAFETY: the range is this mapping.
        let _ =
            unsafe { rustix::mm::mlock_with(start.as_ptr().cast(), bytes, MlockFlags::empty()) };
        memory.fault_in();
        Ok(memory)
    }

    fn bytes(count: usize) -> Option<usize> {
        count
            .checked_mul(size_of::<T>())?
            .checked_next_multiple_of(PAGE_BYTES)
    }

    /// Touches every page for writing, so that the calling process does not fault on it later.
    pub fn fault_in(&self) {
        for offset in (0..Self::bytes(self.count).unwrap_or(0)).step_by(PAGE_BYTES) {
            // SAFETY: inside the mapping of `new`, aligned to a page, writable. Adding zero changes
            // nothing, whatever others do with the value meanwhile.
            let word =
                unsafe { AtomicU32::from_ptr(self.start.as_ptr().cast::<u8>().add(offset).cast()) };
            word.fetch_add(0, Ordering::Relaxed);
        }
    }
}

impl<T: Zeroed> Deref for Inherited<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: `count` values at a page boundary (`new`), zero bytes at first, which is a value
        // (Zeroed 1).
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.count) }
    }
}

impl<T: Zeroed> Drop for Inherited<T> {
    fn drop(&mut self) {
        let bytes = Self::bytes(self.count).unwrap_or(0);
        // SAFETY: the mapping was made in `new`; references into it borrow self.
        let unmapped = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), bytes) };
        debug_assert!(unmapped.is_ok(), "munmap of an own mapping");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn it_begins_with_zeroes_and_holds_what_is_written() {
        let words = Inherited::<AtomicU64>::new(1000).unwrap();
        assert_eq!(words.len(), 1000);
        assert!(words.iter().all(|word| word.load(Ordering::Relaxed) == 0));
        words[999].store(7, Ordering::Relaxed);
        words.fault_in();
        assert_eq!(words[999].load(Ordering::Relaxed), 7);
    }

    #[test]
    fn nothing_and_more_than_there_is_are_errors() {
        assert!(Inherited::<AtomicU32>::new(0).is_err());
        assert!(Inherited::<AtomicU64>::new(usize::MAX).is_err());
        assert!(
            Inherited::<AtomicU64>::new(usize::MAX / 16)
                .unwrap_err()
                .to_string()
                .contains("bytes")
        );
    }
}
