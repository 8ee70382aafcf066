//! The readiness set of the control thread and of a client's one wait (never on a lane's thread),
//! and a descriptor for termination signals.
//!
//! Invariant: level-triggered throughout, so an event that one turn leaves unserved comes again.

use super::Errno;
use super::clock::{monotonic_ns, nanos, timespec};
use super::optional::Optional;
use super::poll;
use super::procfs::named;
use super::rtsignal::{SignalSet, bit};
use rustix::event::epoll;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

static PWAIT2: Optional = Optional::new();

/// Events one call of [`Epoll::wait`] returns at most; the rest comes with the next.
pub const EVENTS_MAX: usize = 256;

/// A set of descriptors, each with a token.
#[derive(Debug)]
pub struct Epoll(OwnedFd);

impl Epoll {
    /// An empty set.
    pub fn new() -> io::Result<Epoll> {
        let fd = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|e| named("epoll", e))?;
        Ok(Epoll(fd))
    }

    /// Reports `token` while `fd` is readable or hung up.
    pub fn add(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        self.control(
            libc::EPOLL_CTL_ADD,
            fd.as_fd().as_raw_fd(),
            token,
            Interest::Readable,
        )
        .map_err(|e| named("epoll", e))
    }

    /// Takes `fd` out. Not left to close(2): that removes the entry only with the *last* duplicate.
    pub fn remove(&self, fd: impl AsFd) -> io::Result<()> {
        self.remove_number(fd.as_fd().as_raw_fd())
            .map_err(|e| named("epoll", e))
    }

    /// Fills `tokens` with the ready descriptors; empty after `timeout` or an interruption.
    pub fn wait(&self, tokens: &mut Vec<u64>, timeout: Option<Duration>) -> io::Result<()> {
        tokens.clear();
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS_MAX];
        match self.wait_once(&mut events, timeout.map(nanos)) {
            Ok(ready) => tokens.extend(events.iter().take(ready).map(|event| event.u64)),
            Err(Errno::INTR) => {}
            Err(e) => return Err(named("epoll", e)),
        }
        Ok(())
    }
}

/// The events that a descriptor is watched for. Hang-up and error are always reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Something to receive.
    Readable,
    /// Room to send.
    Writable,
    /// Readable or writable.
    Both,
}

impl Interest {
    fn bits(self) -> u32 {
        let (readable, writable) = (libc::EPOLLIN, libc::EPOLLOUT);
        let bits = match self {
            Interest::Readable => readable,
            Interest::Writable => writable,
            Interest::Both => readable | writable,
        };
        bits.unsigned_abs()
    }
}

/// One descriptor that is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// The token it was added with.
    pub token: u64,
    /// Something to receive.
    pub readable: bool,
    /// Room to send.
    pub writable: bool,
    /// Hung up or in error.
    pub hangup: bool,
}

/// Room for what one wait returns, allocated once.
pub struct Events(Vec<libc::epoll_event>);

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Events({})", self.0.len())
    }
}

impl Events {
    /// Room for this many, at least one.
    pub fn with_capacity(count: usize) -> Events {
        Events(vec![libc::epoll_event { events: 0, u64: 0 }; count.max(1)])
    }

    /// The first `count`, as [`Epoll::wait_until`] filled them.
    pub fn first(&self, count: usize) -> impl Iterator<Item = Event> + '_ {
        self.0.iter().take(count).map(|&event| {
            let has = |bits: i32| event.events & bits.unsigned_abs() != 0;
            Event {
                token: event.u64,
                readable: has(libc::EPOLLIN),
                writable: has(libc::EPOLLOUT),
                hangup: has(libc::EPOLLHUP | libc::EPOLLERR),
            }
        })
    }
}

/// Descriptors by number, for a set whose owner does not own them: they may have been closed
/// meanwhile, and the number may have become something else's.
impl Epoll {
    /// Adds the descriptor. EEXIST when it is in the set, EPERM when it is a file that is always
    /// ready.
    pub fn add_number(&self, fd: RawFd, token: u64, interest: Interest) -> Result<(), Errno> {
        self.control(libc::EPOLL_CTL_ADD, fd, token, interest)
    }

    /// Whether the number still is the descriptor that was added; an error also when it was closed
    /// or has become another's. Changes nothing otherwise.
    #[inline]
    pub fn renew_number(&self, fd: RawFd, token: u64, interest: Interest) -> Result<(), Errno> {
        // The kernel finds entries by open file and number, so this is exact.
        self.control(libc::EPOLL_CTL_MOD, fd, token, interest)
    }

    /// Takes the descriptor out.
    pub fn remove_number(&self, fd: RawFd) -> Result<(), Errno> {
        self.control(libc::EPOLL_CTL_DEL, fd, 0, Interest::Both)
    }

    #[inline]
    fn control(&self, what: i32, fd: RawFd, token: u64, interest: Interest) -> Result<(), Errno> {
        let mut event = libc::epoll_event {
            events: interest.bits(),
            u64: token,
        };
        // SAFETY: the set is open (owned), the event is initialised; a number that is no descriptor
        // is an error.
        let rc = unsafe { libc::epoll_ctl(self.0.as_raw_fd(), what, fd, &raw mut event) };
        if rc < 0 { Err(Errno::last()) } else { Ok(()) }
    }

    /// Fills `events` and returns how many are ready; 0 when `deadline_ns` of CLOCK_MONOTONIC has
    /// come (none = no bound). Interruptions resume (epoll_pwait2(2), Linux 5.11; where that is
    /// refused, ppoll(2) on the set). Does not touch the heap.
    #[inline]
    pub fn wait_until(
        &self,
        events: &mut Events,
        deadline_ns: Option<u64>,
    ) -> Result<usize, Errno> {
        loop {
            let left_ns = deadline_ns.map(|at| at.saturating_sub(monotonic_ns()));
            match self.wait_once(&mut events.0, left_ns) {
                Err(Errno::INTR) => {}
                done => return done,
            }
        }
    }

    /// The call itself, with this time limit (none: no limit).
    #[inline]
    fn wait_once(
        &self,
        events: &mut [libc::epoll_event],
        left_ns: Option<u64>,
    ) -> Result<usize, Errno> {
        if PWAIT2.is_refused() {
            return self.wait_by_poll(events, left_ns);
        }
        let room = i32::try_from(events.len()).unwrap_or(i32::MAX);
        let time = left_ns.map(timespec);
        let until = time.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        let (set, no_mask) = (self.0.as_raw_fd(), std::ptr::null::<libc::sigset_t>());
        // SAFETY: `events` has `room` writable elements; the time is null or points to `time`,
        // which outlives the call; without a mask its size is not looked at.
        let rc = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                set,
                events.as_mut_ptr(),
                room,
                until,
                no_mask,
                0usize,
            )
        };
        match usize::try_from(rc).map_err(|_| Errno::last()) {
            Err(errno) if PWAIT2.refuses(errno) => self.wait_by_poll(events, left_ns),
            done => done,
        }
    }

    /// The same by two calls that every kernel has.
    fn wait_by_poll(
        &self,
        events: &mut [libc::epoll_event],
        left_ns: Option<u64>,
    ) -> Result<usize, Errno> {
        let ready = poll::wait(
            &mut [poll::Interest::readable(self.0.as_raw_fd())],
            left_ns.unwrap_or(u64::MAX),
        )?;
        if ready == 0 {
            return Ok(0);
        }
        let room = i32::try_from(events.len()).unwrap_or(i32::MAX);
        // SAFETY: `events` has `room` writable elements.
        let rc = unsafe { libc::epoll_wait(self.0.as_raw_fd(), events.as_mut_ptr(), room, 0) };
        usize::try_from(rc).map_err(|_| Errno::last())
    }
}

impl AsFd for Epoll {
    /// Readable while any of its descriptors is ready, in a set of sets too.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// SIGTERM, SIGINT and SIGHUP as a descriptor (signalfd(2)).
#[derive(Debug)]
pub struct StopSignals(OwnedFd);

/// An operator's request by signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopSignal {
    /// SIGTERM: the service manager stops us.
    Terminate,
    /// SIGINT: somebody pressed ^C.
    Interrupt,
    /// SIGHUP.
    HangUp,
}

impl StopSignals {
    /// Blocks the three in the calling thread and in every thread it starts from now on, and opens
    /// the descriptor. To be called on the main thread before any other thread exists: a thread
    /// that does not block them would die of them.
    pub fn block() -> io::Result<StopSignals> {
        let bits = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP]
            .map(bit)
            .iter()
            .fold(0, |all, bit| all | bit);
        block_signals(bits)?;
        let fd = SignalSet::of_bits(bits)
            .descriptor()
            .map_err(|e| named("signalfd", e))?;
        Ok(StopSignals(fd))
    }

    /// The next signal that arrived, never waits.
    pub fn take(&self) -> Option<StopSignal> {
        let mut info = [0_u8; size_of::<libc::signalfd_siginfo>()];
        let n = rustix::io::read(&self.0, &mut info).ok()?;
        // ssi_signo is the first field (signalfd(2)).
        let signo = u32::from_ne_bytes(info.get(..n)?.first_chunk().copied()?);
        match i32::try_from(signo).ok()? {
            libc::SIGTERM => Some(StopSignal::Terminate),
            libc::SIGINT => Some(StopSignal::Interrupt),
            _ => Some(StopSignal::HangUp),
        }
    }
}

impl AsFd for StopSignals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Adds signals to the calling thread's mask; bit n-1 is signal n. Signals that cannot be blocked
/// and those that the C library keeps for itself are left alone.
pub fn block_signals(bits: u64) -> io::Result<()> {
    SignalSet::of_bits(bits)
        .block()
        .map_err(|e| named("signal mask", e))
}

/// Replaces the calling thread's mask, as in [`block_signals`].
pub fn set_blocked_signals(bits: u64) -> io::Result<()> {
    SignalSet::of_bits(bits)
        .block_exactly()
        .map_err(|e| named("signal mask", e))
}

/// Signals in the calling thread's mask, as in [`block_signals`].
pub fn blocked_signals() -> u64 {
    SignalSet::blocked().bits()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::pidfd::PidFd;
    use crate::sys::timerfd::Timer;

    #[test]
    fn a_timer_in_the_set_wakes_at_its_period() {
        let ticker = Timer::ticking(Duration::from_millis(1)).unwrap();
        let set = Epoll::new().unwrap();
        set.add(&ticker, 7).unwrap();
        let mut tokens = Vec::new();
        set.wait(&mut tokens, Some(Duration::from_secs(5))).unwrap();
        assert_eq!(tokens, [7]);
        assert!(ticker.take() >= 1);
    }

    #[test]
    fn a_closed_descriptor_with_a_duplicate_stays_in_the_set_until_it_is_removed() {
        let mut child = std::process::Command::new("/bin/true").spawn().unwrap();
        let fd = PidFd::open(i32::try_from(child.id()).unwrap()).unwrap();
        child.wait().unwrap();
        let set = Epoll::new().unwrap();
        let mut tokens = Vec::new();
        set.add(&fd, 1).unwrap();
        let _duplicate = fd.as_fd().try_clone_to_owned().unwrap();
        set.wait(&mut tokens, Some(Duration::ZERO)).unwrap();
        assert_eq!(tokens, [1]);
        set.remove(&fd).unwrap();
        drop(fd);
        set.wait(&mut tokens, Some(Duration::ZERO)).unwrap();
        assert_eq!(tokens, [0_u64; 0]);
    }

    #[test]
    fn blocked_signals_arrive_at_the_descriptor() {
        // A thread of its own: masks are per thread, and tests share the process.
        std::thread::spawn(|| {
            let signals = StopSignals::block().unwrap();
            assert_eq!(signals.take(), None);
            // SAFETY: no pointers; the signal is blocked in this thread, which it is sent to.
            let result = unsafe { libc::pthread_kill(libc::pthread_self(), libc::SIGHUP) };
            assert_eq!(result, 0);
            assert_eq!(signals.take(), Some(StopSignal::HangUp));
            assert_eq!(signals.take(), None);
            block_signals(1 << 36).unwrap();
            assert_eq!(blocked_signals() & (1 << 36), 1 << 36);
            assert_eq!(blocked_signals() & 1, 1, "SIGHUP is number 1");
        })
        .join()
        .unwrap();
    }

    #[test]
    fn the_raw_descriptors_are_closed_on_exec() {
        let ticker = Timer::ticking(Duration::from_secs(1)).unwrap();
        // SAFETY: F_GETFD takes no argument.
        let flags = unsafe { libc::fcntl(ticker.as_fd().as_raw_fd(), libc::F_GETFD) };
        assert_eq!(flags & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
    }
}
