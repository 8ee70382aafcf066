//! SIGINT and SIGTERM as something to wait for (sigtimedwait(2)): a tool that repeats itself stops between
//! two outputs, never inside one.

use std::io;
use std::time::Duration;

/// The two signals, blocked. Made on the main thread before any other thread exists, so that all inherit
/// the mask.
#[derive(Debug)]
pub struct Interrupts {
    set: libc::sigset_t,
    before: libc::sigset_t,
}

impl Interrupts {
    /// Blocks SIGINT and SIGTERM for this thread until dropped.
    pub fn block() -> io::Result<Interrupts> {
        // SAFETY: sigset_t is plain integers; sigemptyset makes the first one formally empty.
        let (mut set, mut before): (libc::sigset_t, libc::sigset_t) = unsafe { std::mem::zeroed() };
        // SAFETY: all pointers are to the live locals above; both signal numbers are valid.
        let rc = unsafe {
            libc::sigemptyset(&raw mut set);
            libc::sigaddset(&raw mut set, libc::SIGINT);
            libc::sigaddset(&raw mut set, libc::SIGTERM);
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, &raw mut before)
        };
        if rc != 0 {
            return Err(io::Error::from_raw_os_error(rc));
        }
        Ok(Interrupts { set, before })
    }

    /// Waits until one of the two comes (true) or `limit` is over (false).
    pub fn wait(&self, limit: Duration) -> io::Result<bool> {
        let limit = libc::timespec {
            tv_sec: libc::time_t::try_from(limit.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: limit.subsec_nanos().into(),
        };
        // SAFETY: both pointers are live for the call; a null siginfo is allowed.
        if unsafe { libc::sigtimedwait(&raw const self.set, std::ptr::null_mut(), &raw const limit) } > 0 {
            return Ok(true);
        }
        let e = io::Error::last_os_error();
        match e.raw_os_error() {
            // EINTR: some other signal's handler or a SIGCONT; the caller's next round comes early.
            Some(libc::EAGAIN | libc::EINTR) => Ok(false),
            _ => Err(io::Error::new(e.kind(), format!("cannot wait for SIGINT and SIGTERM: {e}"))),
        }
    }
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        // SAFETY: `before` is the mask pthread_sigmask wrote in `block`.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, std::ptr::null_mut()) };
    }
}
