//! Time: Linux's clocks, as on a Dovetail kernel.

use crate::{checked, init, or_errno, or_number, thread};
use libc::{c_int, clockid_t, timespec};

#[unsafe(no_mangle)]
unsafe extern "C" fn __cobalt_clock_gettime(clock: clockid_t, time: *mut timespec) -> c_int {
    // SAFETY: the caller's statement (clock_gettime(2)).
    or_errno(init::bound().and_then(|_| checked(unsafe { libc::clock_gettime(clock, time) })))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __cobalt_clock_nanosleep(
    clock: clockid_t,
    flags: c_int,
    time: *const timespec,
    rest: *mut timespec,
) -> c_int {
    or_number(thread::primary().and_then(|_| {
        // SAFETY: the caller's statement (clock_nanosleep(2)).
        match unsafe { libc::clock_nanosleep(clock, flags, time, rest) } {
            0 => Ok(()),
            errno => thread::left(Err(errno)),
        }
    }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __cobalt_sched_yield() -> c_int {
    // SAFETY: takes nothing.
    or_errno(thread::primary().and_then(|_| checked(unsafe { libc::sched_yield() })))
}
