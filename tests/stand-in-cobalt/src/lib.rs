//! A stand-in for Xenomai 3's `libcobalt.so.2` over plain POSIX, so that what is written for Cobalt
//! is tested where there is none. It keeps the promises and the oddities that programs meet, not
//! the latencies. **Never install it.**
//!
//! As the real one: nothing works before `xenomai_init`, which exits the process on failure;
//! blocking calls are for promoted threads; signals go to promoted threads by thread id, out of one
//! pool for all processes, and are dropped silently when that is empty; a Linux signal ends a call
//! that blocks with EINTR and takes the thread out of its mode; queues and semaphores have names of
//! their own; a queue's descriptor polls as POLLERR; XDDP sockets carry datagrams to plain Linux
//! programs, which open them by [`Device`] and not by open(2); a null time gives -14. Stricter than
//! the real one, because these are mistakes that go unnoticed there: it ends the process when
//! `xenomai_init` finds a second thread or a null vector, and when a signal number 65 to 69 gets
//! through.
//!
//! Not kept: priorities and preemption are Linux's, memory is not locked, modes do not follow
//! faults, and Linux system calls only with `RTD_STAND_IN_FOLLOW` ([`follow`]).
//!
//! Switches, read from the environment when the process is bound: see [`switch`]. `rtd_stand_in` is
//! exported, so that who loads it knows. The rlib half of the crate is for tests: [`copies`] finds
//! the library and makes spoilt copies, [`Space`] keeps tests apart.

mod clock;
pub mod copies;
mod debug;
mod device;
pub mod follow;
mod init;
mod mq;
mod pump;
mod sem;
mod shared;
mod signal;
mod space;
pub mod switch;
mod thread;
mod xddp;

pub use debug::report_runaway;
pub use device::{Device, PORTS};
pub use space::Space;

/// What a call of the core returns inside: a value or a positive error number.
type Core<T> = Result<T, libc::c_int>;

/// The convention of most calls: -1 and errno.
fn or_errno(result: Core<libc::c_int>) -> libc::c_int {
    let returned = result.unwrap_or_else(|errno| {
        set_errno(errno);
        -1
    });
    follow::leave();
    returned
}

/// The convention of the pthread calls, of sigwait and of clock_nanosleep: the error number itself.
fn or_number(result: Core<()>) -> libc::c_int {
    follow::leave();
    result.err().unwrap_or(0)
}

fn set_errno(errno: libc::c_int) {
    // SAFETY: the address of the calling thread's errno is always valid.
    unsafe { *libc::__errno_location() = errno };
}

fn last_errno() -> libc::c_int {
    // SAFETY: as above.
    unsafe { *libc::__errno_location() }
}

/// What a C library call returned, as a value or its errno.
fn checked(rc: libc::c_int) -> Core<libc::c_int> {
    if rc < 0 { Err(last_errno()) } else { Ok(rc) }
}

/// Ends the process because of a mistake of its programmer's.
fn complain(what: std::fmt::Arguments<'_>) -> ! {
    eprintln!("stand-in for libcobalt.so.2: {what}");
    std::process::abort()
}
