//! A counter that makes a descriptor readable (eventfd(2)): the doorbell for programs that live in an epoll loop.

use super::Errno;
use rustix::event::{EventfdFlags, eventfd};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The counter.
#[derive(Debug)]
pub struct EventFd(OwnedFd);

impl EventFd {
    /// At zero: not readable.
    pub fn new() -> io::Result<EventFd> {
        Ok(EventFd(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// Takes one that came from somebody else. It may be anything; reading and writing it never blocks only if it
    /// is what it says, so take them from the daemon alone.
    pub fn from_fd(fd: OwnedFd) -> EventFd {
        EventFd(fd)
    }

    /// Makes it readable.
    #[inline]
    pub fn ring(&self) -> Result<(), Errno> {
        match rustix::io::write(&self.0, &1u64.to_ne_bytes()) {
            // EAGAIN: the counter is at its end, so it is readable.
            Ok(_) | Err(rustix::io::Errno::AGAIN) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Makes it unreadable again; true if it was readable.
    #[inline]
    pub fn take(&self) -> bool {
        let mut count = [0; 8];
        rustix::io::read(&self.0, &mut count).is_ok()
    }

    /// Another descriptor of the same counter.
    pub fn try_clone(&self) -> io::Result<EventFd> {
        Ok(EventFd(self.0.try_clone()?))
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
