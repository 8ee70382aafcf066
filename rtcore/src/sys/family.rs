//! Memory that a process shares with the children it forks (mmap(2) MAP_SHARED | MAP_ANONYMOUS): no name, no
//! descriptor, gone with the last of them.

use rustix::mm::{MapFlags, MlockFlags, ProtFlags};
use std::io;
use std::ops::Deref;
use std::ptr::NonNull;
use zerocopy::FromZeros;

/// One value, made of zero bytes, that parent and forked children see.
///
/// `T` holds only what several processes may write at once: atomics.
#[derive(Debug)]
pub struct Family<T: FromZeros + Sync> {
    start: NonNull<T>,
}

// SAFETY: it is a `&T` that lives as long as this does, and `T: Sync`.
unsafe impl<T: FromZeros + Sync> Send for Family<T> {}
// SAFETY: as above.
unsafe impl<T: FromZeros + Sync> Sync for Family<T> {}

impl<T: FromZeros + Sync> Family<T> {
    /// Maps it, present and locked where that is granted.
    pub fn new() -> io::Result<Family<T>> {
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::SHARED | MapFlags::POPULATE;
        // SAFETY: the kernel chooses a free place; nothing of ours is there.
        let start = unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), size_of::<T>(), prot, flags)? };
        // SAFETY: the range is this mapping. Not granted: it works without.
        let _ = unsafe { rustix::mm::mlock_with(start, size_of::<T>(), MlockFlags::empty()) };
        let start = NonNull::new(start.cast::<T>()).ok_or_else(|| io::Error::other("mmap gave null"))?;
        Ok(Family { start })
    }
}

impl<T: FromZeros + Sync> Deref for Family<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: mapped in `new` with the size of `T`, at a page, which is more than any alignment here; zero bytes are
        // a `T` (FromZeros). Shared references only, and who writes does so through atomics (`T: Sync`).
        unsafe { self.start.as_ref() }
    }
}

impl<T: FromZeros + Sync> Drop for Family<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping was made in `new`; whoever borrowed from it is gone.
        let unmapped = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), size_of::<T>()) };
        debug_assert!(unmapped.is_ok(), "munmap of an own mapping");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn it_begins_as_zeros_and_keeps_what_is_written() {
        let family = Family::<[AtomicU64; 2048]>::new().unwrap();
        assert!(family.iter().all(|word| word.load(Ordering::Relaxed) == 0));
        family[2047].store(7, Ordering::Relaxed);
        assert_eq!(family[2047].load(Ordering::Relaxed), 7);
    }
}
