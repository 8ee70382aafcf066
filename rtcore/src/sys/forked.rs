//! Detects the child of a fork(2).
//!
//! A forked child has copies of its parent's values, but not the threads, the ring memory
//! (MADV_DONTFORK) or the sole use of the descriptors that they need. A [`Creator`] is stored
//! beside such values and says whether they are used in the process that created them.
//!
//! The mark is a page with MADV_WIPEONFORK: the kernel gives a child the page filled with zeros. So
//! the check is one load from memory. It needs no getpid(2), which would be a system call for each
//! message, and no pthread_atfork(3) handler, which a raw clone(2) does not run. A child of
//! vfork(2) shares the page and is not detected: it may only exec.

use rustix::mm::{Advice, MapFlags, MlockFlags, ProtFlags};
use std::io;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

const PAGE_BYTES: usize = 4096;

/// The page with the number of this process; null before the first [`Creator`].
static PAGE: AtomicPtr<AtomicU32> = AtomicPtr::new(null_mut());

/// Highest number that a process of this line of ancestors has taken. A child inherits it, so
/// numbers never repeat.
static LAST: AtomicU32 = AtomicU32::new(0);

/// The process that created a value.
#[derive(Clone, Copy, Debug)]
pub struct Creator {
    page: &'static AtomicU32,
    number: u32,
    pid: u32,
}

/// The value was created by another process: this one was forked from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forked {
    /// Pid of the process that created the value.
    pub creator: u32,
}

impl Creator {
    /// The calling process. Takes no lock: a lock that another thread held during a fork would
    /// block the child without end.
    ///
    /// Errors: ENOMEM; EINVAL where the kernel has no MADV_WIPEONFORK (Linux before 4.14).
    pub fn current() -> io::Result<Creator> {
        let page = page()?;
        // Relaxed, here and below: the number stands for itself.
        let number = match page.load(Ordering::Relaxed) {
            0 => {
                let new = LAST.fetch_add(1, Ordering::Relaxed) + 1;
                match page.compare_exchange(0, new, Ordering::Relaxed, Ordering::Relaxed) {
                    Ok(_) => new,
                    Err(of_another_thread) => of_another_thread,
                }
            }
            number => number,
        };
        Ok(Creator {
            page,
            number,
            pid: std::process::id(),
        })
    }

    /// Whether the calling process is this one.
    #[inline]
    pub fn is_current(&self) -> bool {
        self.page.load(Ordering::Relaxed) == self.number
    }

    /// An error in any other process.
    #[inline]
    pub fn check(&self) -> Result<(), Forked> {
        if self.is_current() {
            Ok(())
        } else {
            Err(Forked { creator: self.pid })
        }
    }
}

/// Maps zeroed memory wherever these bytes have none, for a program whose forked child may still
/// look at memory that it did not inherit (MADV_DONTFORK): a view that a language's runtime cannot
/// take back. What is mapped stays as it is.
///
/// Errors: ENOMEM.
pub fn fill_hole(address: usize, len: usize) -> io::Result<()> {
    let first = address - address % PAGE_BYTES;
    for page in (first..address.saturating_add(len)).step_by(PAGE_BYTES) {
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::FIXED_NOREPLACE;
        let page = std::ptr::without_provenance_mut(page);
        // SAFETY: with MAP_FIXED_NOREPLACE the kernel maps nothing over memory that is in use.
        match unsafe { rustix::mm::mmap_anonymous(page, PAGE_BYTES, prot, flags) } {
            Ok(_) | Err(rustix::io::Errno::EXIST) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// The page of this process, made by the first call. Never unmapped.
fn page() -> io::Result<&'static AtomicU32> {
    let known = PAGE.load(Ordering::Acquire);
    let page = if known.is_null() {
        publish(map()?)
    } else {
        known
    };
    // SAFETY: `map` made the page, which is aligned, zero or an atomic's value, and stays mapped in
    // this process and its children.
    Ok(unsafe { &*page })
}

/// Makes it the page of this process, unless another thread was first.
fn publish(new: *mut AtomicU32) -> *mut AtomicU32 {
    match PAGE.compare_exchange(null_mut(), new, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => new,
        Err(first) => {
            // SAFETY: `map` made it, and only this thread has seen it.
            let _ = unsafe { rustix::mm::munmap(new.cast(), PAGE_BYTES) };
            first
        }
    }
}

fn map() -> io::Result<*mut AtomicU32> {
    let prot = ProtFlags::READ | ProtFlags::WRITE;
    let flags = MapFlags::PRIVATE | MapFlags::POPULATE;
    // SAFETY: a new mapping where the kernel chooses; the two calls below are about this range
    // alone.
    unsafe {
        let page = rustix::mm::mmap_anonymous(null_mut(), PAGE_BYTES, prot, flags)?;
        if let Err(e) = rustix::mm::madvise(page, PAGE_BYTES, Advice::LinuxWipeOnFork) {
            let _ = rustix::mm::munmap(page, PAGE_BYTES);
            return Err(super::procfs::named("madvise(MADV_WIPEONFORK)", e));
        }
        // Real-time threads read it. Where RLIMIT_MEMLOCK forbids, it is unlocked as the rings are.
        let _ = rustix::mm::mlock_with(page, PAGE_BYTES, MlockFlags::empty());
        Ok(page.cast())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The findings of a child and a grandchild, as the bits of an exit status.
    fn in_child(work: impl FnOnce() -> u8) -> i32 {
        let mut status = 0;
        // SAFETY: the child only runs `work`, which takes no lock that another thread may hold, and
        // exits.
        unsafe {
            match libc::fork() {
                0 => libc::_exit(work().into()),
                child => assert_eq!(libc::waitpid(child, &raw mut status, 0), child),
            }
        }
        assert!(libc::WIFEXITED(status), "{status:#x}");
        libc::WEXITSTATUS(status)
    }

    #[test]
    fn a_child_gets_memory_where_it_inherited_none_and_keeps_what_it_has() {
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: new mappings of our own; the second page is the only one that is not inherited.
        let pages = unsafe {
            let bytes = 3 * PAGE_BYTES;
            let pages = rustix::mm::mmap_anonymous(null_mut(), bytes, prot, MapFlags::PRIVATE);
            let pages = pages.unwrap().cast::<u8>();
            pages.write_bytes(7, bytes);
            let second = pages.add(PAGE_BYTES);
            rustix::mm::madvise(second.cast(), PAGE_BYTES, Advice::LinuxDontFork).unwrap();
            pages
        };
        let found = in_child(|| {
            let filled = fill_hole(pages.addr() + 100, 2 * PAGE_BYTES).is_ok();
            // SAFETY: as above; the second page is there again.
            let at = |offset: usize| unsafe { pages.add(offset).read_volatile() };
            let kept = at(0) == 7 && at(2 * PAGE_BYTES) == 7;
            u8::from(filled && kept && at(PAGE_BYTES) == 0)
        });
        assert_eq!(found, 1);
        // SAFETY: nobody uses them any more.
        unsafe { rustix::mm::munmap(pages.cast(), 3 * PAGE_BYTES) }.unwrap();
    }

    #[test]
    fn a_value_is_foreign_in_children_and_their_children_and_nowhere_else() {
        let parents = Creator::current().unwrap();
        let found = in_child(|| {
            let foreign = parents.check()
                == Err(Forked {
                    creator: parents.pid,
                });
            let Ok(own) = Creator::current() else {
                return 0;
            };
            let grandchild = in_child(|| {
                let Ok(own_of_grandchild) = Creator::current() else {
                    return 0;
                };
                let current = own_of_grandchild.is_current();
                u8::from(current && !own.is_current() && !parents.is_current())
            });
            u8::from(foreign && own.is_current() && !parents.is_current() && grandchild == 1)
        });
        assert_eq!(found, 1);
        assert!(parents.is_current());
    }
}
