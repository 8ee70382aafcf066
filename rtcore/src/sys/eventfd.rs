//! A counter that makes a descriptor readable (eventfd(2)): the doorbell for programs that live in
//! an epoll loop.
//!
//! Between processes the two ends hold different objects: the ringing side has the counter, the
//! listening side an epoll set that watches it ([`Listener`]). O_NONBLOCK belongs to the open file,
//! not to the descriptor: a listener with the counter could clear the flag and fill the counter,
//! and the next ring would block without end. A listener that read the counter would block as soon
//! as the ringing side cleared the flag. Therefore nobody reads it: the set is edge-triggered, and
//! each ring is an edge.

use super::Errno;
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

#[derive(Debug)]
pub struct EventFd(OwnedFd);

impl EventFd {
    /// At zero: not readable.
    pub fn new() -> io::Result<EventFd> {
        Ok(EventFd(eventfd(
            0,
            EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK,
        )?))
    }

    /// At zero, for threads and children of this process that wait in [`EventFd::wait`].
    pub fn blocking() -> io::Result<EventFd> {
        Ok(EventFd(eventfd(0, EventfdFlags::CLOEXEC)?))
    }

    /// Waits until it is rung: how often it was, since the last wait. EINTR after a signal handler;
    /// EAGAIN at once for one that is not [`EventFd::blocking`].
    #[inline]
    pub fn wait(&self) -> Result<u64, Errno> {
        let mut count = [0; 8];
        rustix::io::read(&self.0, &mut count)?;
        Ok(u64::from_ne_bytes(count))
    }

    /// Takes a descriptor from another process. It may be any file; writing never blocks only if it
    /// is an eventfd that nobody else has, so take one only from the daemon.
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

    /// Makes it unreadable again; true if it was readable. For a counter that no other process has.
    #[inline]
    pub fn take(&self) -> bool {
        let mut count = [0; 8];
        rustix::io::read(&self.0, &mut count).is_ok()
    }

    /// The object that lets another process wait for it, and nothing else.
    pub fn listen(&self) -> io::Result<Listener> {
        let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(
            &set,
            &self.0,
            epoll::EventData::new_u64(0),
            epoll::EventFlags::IN | epoll::EventFlags::ET,
        )?;
        Ok(Listener(set))
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

/// A descriptor that becomes readable when the counter is rung.
#[derive(Debug)]
pub struct Listener(OwnedFd);

impl Listener {
    /// Takes one that came from the daemon. Whatever it is, nothing here blocks on it.
    pub fn from_fd(fd: OwnedFd) -> Listener {
        Listener(fd)
    }

    /// Makes it unreadable until the next ring; true if it was readable.
    #[inline]
    pub fn take(&self) -> bool {
        let mut event = [const { std::mem::MaybeUninit::uninit() }; 1];
        let at_once = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        matches!(epoll::wait(&self.0, &mut event, Some(&at_once)), Ok((ready, _)) if !ready.is_empty())
    }
}

impl From<Listener> for OwnedFd {
    fn from(listener: Listener) -> OwnedFd {
        listener.0
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

    fn is_readable(fd: impl AsFd) -> bool {
        let mut set = [PollFd::new(&fd, PollFlags::IN)];
        let at_once = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        poll(&mut set, Some(&at_once)).unwrap() == 1
    }

    #[test]
    fn each_ring_is_heard_once_and_nobody_reads_the_counter() {
        let event = EventFd::new().unwrap();
        let listener = event.listen().unwrap();
        assert!(!is_readable(&listener) && !listener.take());
        for _ in 0..3 {
            event.ring().unwrap();
            event.ring().unwrap();
            assert!(is_readable(&listener));
            assert!(listener.take());
            assert!(!is_readable(&listener) && !listener.take());
        }
    }

    #[test]
    fn a_wait_tells_how_often_it_was_rung() {
        let event = EventFd::blocking().unwrap();
        event.ring().unwrap();
        event.ring().unwrap();
        assert_eq!(event.wait(), Ok(2));
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| event.wait());
            event.ring().unwrap();
            assert_eq!(waiter.join().unwrap(), Ok(1));
        });
        assert_eq!(EventFd::new().unwrap().wait(), Err(Errno::AGAIN));
    }

    #[test]
    fn what_was_rung_before_anybody_listened_is_heard() {
        let event = EventFd::new().unwrap();
        event.ring().unwrap();
        assert!(event.listen().unwrap().take());
    }

    #[test]
    fn what_a_listener_does_to_its_descriptor_is_not_done_to_the_counter() {
        let event = EventFd::new().unwrap();
        let listener = event.listen().unwrap();
        fcntl_setfl(&listener, OFlags::empty()).unwrap();
        assert!(
            rustix::io::write(&listener, &(u64::MAX - 1).to_ne_bytes()).is_err(),
            "no way to fill it"
        );
        assert!(fcntl_getfl(&event).unwrap().contains(OFlags::NONBLOCK));
        event.ring().unwrap();
        assert!(listener.take());
    }

    #[test]
    fn a_listener_never_blocks_whatever_the_ringing_side_does() {
        let event = EventFd::new().unwrap();
        let listener = event.listen().unwrap();
        fcntl_setfl(&event, OFlags::empty()).unwrap();
        assert!(!listener.take());
        let file = std::fs::File::open("/proc/self/stat").unwrap();
        assert!(
            !Listener::from_fd(file.into()).take(),
            "not even one that is none"
        );
    }
}
