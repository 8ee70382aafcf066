//! Asynchronous signal handlers (sigaction(2)); the client library has the policy.
//!
//! Constraint: every call of a handler is async-signal-safe (signal-safety(7)). Invariant: dropping
//! an [`Action`] restores the earlier action, unless another one has replaced it.

use super::Errno;
use super::procfs::named;
use super::rtsignal::{self, Received, SignalSet};
use super::signame;
use std::io;

/// The kernel's information for a handler.
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

/// The function that the kernel calls: number, information, machine context. One that unwinds
/// aborts the process.
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

/// Runs the body of a handler and restores errno for the interrupted code.
#[inline]
pub fn keeping_errno(work: impl FnOnce()) {
    let Errno(before) = Errno::last();
    work();
    nix::errno::Errno::set_raw(before);
}

/// Writes to standard error without locks or buffers (write(2)). What does not fit is lost.
pub fn write_stderr(bytes: &[u8]) {
    // SAFETY: the slice is readable; the kernel checks whether descriptor 2 is open.
    unsafe { libc::write(libc::STDERR_FILENO, bytes.as_ptr().cast(), bytes.len()) };
}
