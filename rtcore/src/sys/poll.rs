//! Waiting for several descriptors with a bound on the monotonic clock (ppoll(2)).
//!
//! Used by a lane only while something is queued in front of a full receiver; the clean path blocks
//! in the receive call itself.

use super::Errno;
use std::os::fd::RawFd;

/// One descriptor and the events to wait for.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct Interest(libc::pollfd);

impl std::fmt::Debug for Interest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Interest({}, {:#x})", self.0.fd, self.0.events)
    }
}

impl Interest {
    /// Nothing: skipped by the kernel.
    pub const NONE: Interest = Interest(libc::pollfd {
        fd: -1,
        events: 0,
        revents: 0,
    });

    /// Something to receive.
    pub fn readable(fd: RawFd) -> Interest {
        Interest(libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        })
    }

    /// Room to send.
    pub fn writable(fd: RawFd) -> Interest {
        Interest(libc::pollfd {
            fd,
            events: libc::POLLOUT,
            revents: 0,
        })
    }
}

/// An empty vector with room for this many, its memory touched: pushing to it later neither
/// allocates nor faults.
pub fn room_for(count: usize) -> Vec<Interest> {
    let mut interests = vec![Interest::NONE; count];
    interests.clear();
    interests
}

/// Waits until one is ready or the time is over; returns how many are ready. EINTR on a wake-up.
pub fn wait(interests: &mut [Interest], timeout_ns: u64) -> Result<usize, Errno> {
    let timeout = super::clock::timespec(timeout_ns);
    let n = interests.len() as libc::nfds_t;
    // SAFETY: Interest is a transparent pollfd, the slice is writable, a null mask leaves the mask
    // alone.
    let rc = unsafe { libc::ppoll(interests.as_mut_ptr().cast(), n, &timeout, std::ptr::null()) };
    usize::try_from(rc).map_err(|_| Errno::last())
}
