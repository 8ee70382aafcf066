//! Reports of the core's watchdog (CONFIG_XENO_OPT_WATCHDOG): threads that kept Linux from running
//! for seconds.
//!
//! The core hands such a thread to Linux and queues SIGDEBUG to it, which is SIGXCPU with a code of
//! the core's. The handler that `xenomai_init` installs for it restores the action from before and
//! raises the signal again, which by default ends the process without a message. [`watch`] replaces
//! that handler by one that stores the thread; [`take`] returns it. A SIGXCPU from another sender
//! has no effect.
//!
//! Constraint: the handler runs on the reported thread. It makes no call and takes no lock.
//! Invariant: a report stays until it is taken. A thread that is reported twice meanwhile counts
//! once.

use super::calls;
use std::io;
use std::sync::atomic::{AtomicI32, Ordering};

/// The core's SIGDEBUG (include/cobalt/uapi/signal.h).
const SIGDEBUG: libc::c_int = libc::SIGXCPU;
/// Upper half of the value of a signal that the core sent.
const MARKER: u32 = 0xfccf_0000;
/// Lower byte of the value: the thread ran away.
const WATCHDOG: u32 = 6;
/// Reports that nobody has taken yet. The core needs seconds for each, and rtd takes them many
/// times a second.
const REPORTS_MAX: usize = 64;

static REPORTS: [AtomicI32; REPORTS_MAX] = [const { AtomicI32::new(0) }; REPORTS_MAX];

/// Takes SIGXCPU over from the library. After `xenomai_init`, before there is a lane thread.
pub(super) fn watch() -> io::Result<()> {
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = on_debug;
    // SAFETY: zero is a value of every field.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as libc::sighandler_t;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
    // SAFETY: the action is initialised; the handler has the form that SA_SIGINFO asks for and is
    // async-signal-safe.
    if unsafe { libc::sigaction(SIGDEBUG, &raw const action, std::ptr::null_mut()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Kernel id of a thread that ran away, once for each report.
pub(super) fn take() -> Option<i32> {
    REPORTS
        .iter()
        .map(|report| report.swap(0, Ordering::Relaxed))
        .find(|tid| *tid != 0)
}

extern "C" fn on_debug(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel's record, which lives through the call; the union has pid and value at
    // these places for SI_QUEUE, and for other codes they are numbers that are not used.
    let (code, pid, value) = unsafe { ((*info).si_code, (*info).si_pid(), (*info).si_value()) };
    #[expect(
        clippy::cast_possible_truncation,
        reason = "sival_int is the first four bytes"
    )]
    let value = value.sival_ptr.addr() as u32;
    // The core is not a process. Signals of kill(1) and others have a pid, and other users'
    // programs could otherwise end rtd.
    let is_of_core = code == libc::SI_QUEUE && pid == 0 && value & 0xffff_0000 == MARKER;
    let tid = calls::this_thread();
    if is_of_core && value & 0xff == WATCHDOG && tid != 0 {
        report(tid);
    }
}

fn report(tid: i32) {
    if REPORTS
        .iter()
        .any(|report| report.load(Ordering::Relaxed) == tid)
    {
        return;
    }
    let free = |report: &AtomicI32| {
        report
            .compare_exchange(0, tid, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    };
    // If no place is left, as many other reports already wait.
    let _ = REPORTS.iter().any(free);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_taken_once_and_others_do_not_displace_it() {
        report(7);
        report(7);
        report(8);
        let mut taken = [take(), take()];
        taken.sort_unstable();
        assert_eq!((taken, take()), ([Some(7), Some(8)], None));
    }
}
