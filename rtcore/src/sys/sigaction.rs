//! An asynchronous signal handler for those who insist (sigaction(2)); policy is the client
//! library's.
//!
//! Constraint: whatever a handler calls is async-signal-safe (signal-safety(7)). Invariant: an
//! [`Action`] that is dropped leaves what it found, unless somebody has put another action in its
//! place.

use super::Errno;
use super::procfs::named;
use super::rtsignal::{self, Received, SignalSet};
use super::signame;
use std::io;

/// What the kernel hands a handler about the signal.
#[repr(transparent)]
pub struct RawInfo(libc::siginfo_t);

impl RawInfo {
    /// In our own words.
    #[inline]
    pub fn received(&self) -> Received {
        rtsignal::received(self.0.si_signo, &self.0)
    }
}

impl std::fmt::Debug for RawInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RawInfo({})", self.0.si_signo)
    }
}

/// What the kernel calls: number, information, machine context. One that unwinds aborts the
/// process.
pub type Handler = extern "C" fn(i32, &RawInfo, *const ());

/// A handler that is installed.
pub struct Action {
    signo: i32,
    handler: libc::sighandler_t,
    previous: libc::sigaction,
}

impl std::fmt::Debug for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Action({})", self.signo)
    }
}

impl Action {
    /// Installs the handler: SA_SIGINFO (it sees the value), SA_RESTART (blocking calls resume, see
    /// signal(7) for those that cannot), SA_ONSTACK. While it runs every other signal but the
    /// faults waits, so handlers never nest and one stack is enough.
    pub fn install(signo: i32, handler: Handler) -> io::Result<Action> {
        // SAFETY: sigaction is plain data for which zero is a value.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = handler as libc::sighandler_t;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART | libc::SA_ONSTACK;
        action.sa_mask = SignalSet::of_bits(rtsignal::all_but_faults()).raw();
        // SAFETY: as above.
        let mut previous: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: both are initialised; a `Handler` has the signature that SA_SIGINFO asks for, and
        // the kernel passes it a siginfo_t that lives through the call.
        if unsafe { libc::sigaction(signo, &raw const action, &raw mut previous) } < 0 {
            return Err(named(signame::name(signo), io::Error::last_os_error()));
        }
        Ok(Action {
            signo,
            handler: action.sa_sigaction,
            previous,
        })
    }
}

impl Drop for Action {
    fn drop(&mut self) {
        let mut current = self.previous;
        // SAFETY: a null new action only reads.
        let read = unsafe { libc::sigaction(self.signo, std::ptr::null(), &raw mut current) };
        if read == 0 && current.sa_sigaction == self.handler {
            // SAFETY: the action as the kernel gave it.
            unsafe { libc::sigaction(self.signo, &raw const self.previous, std::ptr::null_mut()) };
        }
    }
}

/// Runs what a handler does and leaves errno as the interrupted code had it.
#[inline]
pub fn keeping_errno(work: impl FnOnce()) {
    let Errno(before) = Errno::last();
    work();
    nix::errno::Errno::set_raw(before);
}

/// Writes to standard error without locks or buffers (write(2)). What does not fit is lost.
pub fn write_stderr(bytes: &[u8]) {
    // SAFETY: the slice is readable; whether descriptor 2 is open is the kernel's to say.
    unsafe { libc::write(libc::STDERR_FILENO, bytes.as_ptr().cast(), bytes.len()) };
}
