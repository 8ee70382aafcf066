//! SIGDEBUG, which is SIGXCPU with a code of the core's: how the core reports a thread that keeps
//! Linux from running, and what the library does about it.
//!
//! As the real library: `xenomai_init` installs a handler. It says on standard output what the core
//! reported, restores the action from before and raises the signal again; by default that ends the
//! process.

use crate::checked;
use std::sync::OnceLock;

const SIGDEBUG: libc::c_int = libc::SIGXCPU;
const MARKER: u32 = 0xfccf_0000;
const WATCHDOG: u32 = 6;

/// What was in force before `xenomai_init`.
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

/// The library's part of `xenomai_init`.
pub(crate) fn install() {
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = on_debug;
    // SAFETY: zero is a value of every field; both actions are on this stack.
    let before = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        let mut before = action;
        action.sa_sigaction = handler as libc::sighandler_t;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(SIGDEBUG, &raw const action, &raw mut before);
        before
    };
    // The first one: a second call of xenomai_init is ignored.
    let _ = BEFORE.set(before);
}

extern "C" fn on_debug(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel's record, read as that of a signal with a value.
    let value = unsafe { (*info).si_value() }.sival_ptr.addr();
    if value & 0xffff_ffff == (MARKER | WATCHDOG) as usize {
        let words = b"Xenomai/cobalt: watchdog triggered\n";
        // SAFETY: readable for its length.
        unsafe { libc::write(libc::STDOUT_FILENO, words.as_ptr().cast(), words.len()) };
    }
    if let Some(before) = BEFORE.get() {
        // SAFETY: an action as the kernel gave it; the calling thread.
        unsafe {
            libc::sigaction(SIGDEBUG, before, std::ptr::null_mut());
            libc::pthread_kill(libc::pthread_self(), SIGDEBUG);
        }
    }
}

/// siginfo_t of a queued signal (asm-generic/siginfo.h).
#[repr(C)]
struct Queued {
    head: [libc::c_int; 3],
    #[cfg(target_pointer_width = "64")]
    align: libc::c_int,
    pid: libc::pid_t,
    uid: libc::uid_t,
    value: usize,
    rest: [usize; 12],
}

/// Sends what the core's watchdog sends to a thread of another process that ran away. The sender
/// must be allowed to signal it.
pub fn report_runaway(pid: i32, tid: i32) -> std::io::Result<()> {
    let info = Queued {
        head: [SIGDEBUG, 0, libc::SI_QUEUE],
        #[cfg(target_pointer_width = "64")]
        align: 0,
        pid: 0,
        uid: 0,
        value: (MARKER | WATCHDOG) as usize,
        rest: [0; 12],
    };
    // SAFETY: the record is as long as a siginfo_t (below) and lives through the call.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_rt_tgsigqueueinfo,
            pid,
            tid,
            SIGDEBUG,
            &raw const info,
        )
    };
    let rc = libc::c_int::try_from(rc).unwrap_or(-1);
    checked(rc)
        .map(drop)
        .map_err(std::io::Error::from_raw_os_error)
}

const _: () = assert!(size_of::<Queued>() >= size_of::<libc::siginfo_t>());
