//! An alternate stack for the signal handlers of one thread (sigaltstack(2)).
//!
//! Constraint: the kernel keeps one per thread, so an [`AltStack`] never leaves its thread (raw
//! pointers make it `!Send`). Invariant: memory that may still be somebody's signal stack is never
//! unmapped; it is leaked instead.

use super::memory::touch;
use super::procfs::named;
use std::io;
use std::ptr;

/// Bytes for the handler itself, in addition to the kernel's room for the interrupted registers.
pub const HANDLER_STACK_BYTES: usize = 64 * 1024;

/// Auxiliary vector entry with the kernel's own need, 11 KiB with AMX (getauxval(3)).
const AT_MINSIGSTKSZ: libc::c_ulong = 51;

/// The stack, in effect for the thread that made it.
#[derive(Debug)]
pub struct AltStack {
    /// The mapping: one guard page, then the stack.
    mapping: *mut libc::c_void,
    mapping_bytes: usize,
    stack: *mut libc::c_void,
    previous: libc::stack_t,
}

impl AltStack {
    /// Maps a stack with a guard page below, touches it all, and makes it the calling thread's.
    ///
    /// Errors: ENOMEM; EPERM when called on an alternate stack.
    pub fn enter() -> io::Result<AltStack> {
        let page = super::memory::page_bytes();
        // SAFETY: plain integers; 0 when the kernel has no such entry.
        let kernel_bytes = unsafe { libc::getauxval(AT_MINSIGSTKSZ) };
        let kernel_bytes = usize::try_from(kernel_bytes)
            .unwrap_or(0)
            .max(libc::MINSIGSTKSZ);
        let stack_bytes = (HANDLER_STACK_BYTES + kernel_bytes).next_multiple_of(page);
        let mapping_bytes = page + stack_bytes;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK;
        // SAFETY: a new private mapping at an address of the kernel's choice.
        let mapping = unsafe {
            libc::mmap(
                ptr::null_mut(),
                mapping_bytes,
                libc::PROT_NONE,
                flags,
                -1,
                0,
            )
        };
        if mapping == libc::MAP_FAILED {
            return Err(named("signal stack", io::Error::last_os_error()));
        }
        let stack = mapping.wrapping_byte_add(page);
        match use_stack(stack, stack_bytes) {
            Ok(previous) => Ok(AltStack {
                mapping,
                mapping_bytes,
                stack,
                previous,
            }),
            Err(e) => {
                // SAFETY: mapped above, and not in use as it was refused.
                unsafe { libc::munmap(mapping, mapping_bytes) };
                Err(named("signal stack", e))
            }
        }
    }
}

/// Opens the pages and makes them the calling thread's signal stack; returns the earlier one.
fn use_stack(stack: *mut libc::c_void, bytes: usize) -> io::Result<libc::stack_t> {
    // SAFETY: the range is inside the mapping that `enter` just made.
    if unsafe { libc::mprotect(stack, bytes, libc::PROT_READ | libc::PROT_WRITE) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: readable and writable since the line above, zeroed by the kernel, and nobody else's
    // yet.
    touch(unsafe { std::slice::from_raw_parts_mut(stack.cast(), bytes) });
    let new = libc::stack_t {
        ss_sp: stack,
        ss_flags: 0,
        ss_size: bytes,
    };
    let mut previous = new;
    // SAFETY: both are initialised; the memory stays mapped while the kernel may use it (Drop).
    if unsafe { libc::sigaltstack(&raw const new, &raw mut previous) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(previous)
}

impl Drop for AltStack {
    fn drop(&mut self) {
        let mut current = self.previous;
        // SAFETY: a null new stack only reads.
        unsafe { libc::sigaltstack(ptr::null(), &raw mut current) };
        // Somebody put theirs on top and may put ours back.
        if current.ss_sp != self.stack {
            return;
        }
        // SAFETY: the previous stack as the kernel gave it; refused (EPERM) while a handler runs on
        // ours.
        if unsafe { libc::sigaltstack(&raw const self.previous, ptr::null_mut()) } == 0 {
            // SAFETY: our mapping, and since the line above not the thread's signal stack any more.
            unsafe { libc::munmap(self.mapping, self.mapping_bytes) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn current() -> *mut libc::c_void {
        let mut stack = libc::stack_t {
            ss_sp: ptr::null_mut(),
            ss_flags: 0,
            ss_size: 0,
        };
        // SAFETY: a null new stack only reads.
        assert_eq!(unsafe { libc::sigaltstack(ptr::null(), &raw mut stack) }, 0);
        stack.ss_sp
    }

    fn is_mapped(address: *mut libc::c_void) -> bool {
        let mut present = [0u8; 1];
        // SAFETY: one page, one byte of answer; an unmapped page is ENOMEM.
        unsafe { libc::mincore(address, 1, present.as_mut_ptr().cast()) == 0 }
    }

    #[test]
    fn it_is_the_threads_until_it_is_dropped() {
        let before = current();
        let is_given_back = || {
            let stack = AltStack::enter().unwrap();
            let own = stack.stack;
            assert!(current() == own && is_mapped(own));
            drop(stack);
            assert_eq!(current(), before);
            !is_mapped(own)
        };
        // Another thread may get the address that has just become free.
        assert!((0..20).any(|_| is_given_back()));
    }

    #[test]
    fn one_that_is_not_on_top_is_left_mapped() {
        let before = current();
        let (lower, upper) = (AltStack::enter().unwrap(), AltStack::enter().unwrap());
        let own = lower.stack;
        drop(lower);
        assert!(is_mapped(own));
        drop(upper);
        assert_eq!(current(), own, "as the upper one found it");
        let back = libc::stack_t {
            ss_sp: before,
            ss_flags: libc::SS_DISABLE,
            ss_size: 0,
        };
        // SAFETY: this thread ends with the test and handles no signal.
        let result = unsafe { libc::sigaltstack(&raw const back, ptr::null_mut()) };
        assert_eq!(result, 0);
    }
}
