//! Semaphores: Linux's, under names of the space.

use crate::shared::NAME_BYTES;
use crate::thread::{primary_call, secondary};
use crate::{Core, checked, init, last_errno, or_errno, set_errno, space};
use libc::{c_char, c_int, c_uint, sem_t, timespec};
use std::ffi::CStr;

#[unsafe(no_mangle)]
unsafe extern "C" fn __cobalt_sem_init(sem: *mut sem_t, pshared: c_int, value: c_uint) -> c_int {
    // SAFETY: the caller's statement (sem_init(3)).
    or_errno(secondary().and_then(|_| checked(unsafe { libc::sem_init(sem, pshared, value) })))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __cobalt_sem_destroy(sem: *mut sem_t) -> c_int {
    // SAFETY: the caller's statement (sem_destroy(3)).
    or_errno(secondary().and_then(|_| checked(unsafe { libc::sem_destroy(sem) })))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __cobalt_sem_post(sem: *mut sem_t) -> c_int {
    // SAFETY: the caller's statement (sem_post(3)).
    or_errno(init::bound().and_then(|_| checked(unsafe { libc::sem_post(sem) })))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __cobalt_sem_wait(sem: *mut sem_t) -> c_int {
    // SAFETY: the caller's statement (sem_wait(3)).
    or_errno(primary_call(|| unsafe { libc::sem_wait(sem) }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __cobalt_sem_timedwait(sem: *mut sem_t, time: *const timespec) -> c_int {
    // SAFETY: the caller's statement (sem_timedwait(3)).
    or_errno(primary_call(|| unsafe { libc::sem_timedwait(sem, time) }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __cobalt_sem_trywait(sem: *mut sem_t) -> c_int {
    // SAFETY: the caller's statement (sem_trywait(3)).
    or_errno(primary_call(|| unsafe { libc::sem_trywait(sem) }))
}

/// C's is variadic. On the machines that Linux runs Cobalt on, integer arguments of a variadic call
/// are where those of an ordinary one are; without O_CREAT the last two are whatever was there and
/// not looked at.
#[unsafe(no_mangle)]
unsafe extern "C" fn __cobalt_sem_open(
    name: *const c_char,
    oflag: c_int,
    _mode: c_uint,
    value: c_uint,
) -> *mut sem_t {
    let open = || -> Core<*mut sem_t> {
        secondary()?;
        // SAFETY: the caller's statement: a terminated string.
        let name = unsafe { CStr::from_ptr(name) };
        // The core's names begin with a slash, and have more.
        let is_name = name.to_bytes().len() > 1 && name.to_bytes().starts_with(b"/");
        if name.to_bytes().len() >= NAME_BYTES {
            return Err(libc::ENAMETOOLONG);
        }
        let name = space::linux_name(name)
            .filter(|_| is_name)
            .ok_or(libc::EINVAL)?;
        // SAFETY: a terminated string; mode and value as sem_open(3) has them.
        let sem = unsafe { libc::sem_open(name.as_ptr(), oflag, 0o600 as c_uint, value) };
        if sem.is_null() {
            Err(last_errno())
        } else {
            Ok(sem)
        }
    };
    open().unwrap_or_else(|errno| {
        set_errno(errno);
        std::ptr::null_mut()
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __cobalt_sem_close(sem: *mut sem_t) -> c_int {
    // SAFETY: the caller's statement (sem_close(3)).
    or_errno(secondary().and_then(|_| checked(unsafe { libc::sem_close(sem) })))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __cobalt_sem_unlink(name: *const c_char) -> c_int {
    or_errno(secondary().and_then(|_| {
        // SAFETY: the caller's statement: a terminated string.
        let name = space::linux_name(unsafe { CStr::from_ptr(name) }).ok_or(libc::EINVAL)?;
        // SAFETY: a terminated string.
        checked(unsafe { libc::sem_unlink(name.as_ptr()) })
    }))
}
