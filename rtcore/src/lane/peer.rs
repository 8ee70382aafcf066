//! One registered process as the lanes see it: a fixed slot that the control thread writes and the
//! lane threads read without a lock.
//!
//! The pidfd's *number* never changes while the daemon runs: a new registration is `dup3`ed over
//! it, so a lane thread can use the number at any time: it reaches the old process or the new one,
//! or gets ESRCH, but never reaches another process that inherited the pid.

use super::credit::Credit;
use crate::skin::{SignalAddress, Skin};
use crate::sys::pidfd;
use crate::sys::rtsignal::bit;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};

/// State of the registration of a process name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum PeerState {
    /// No process has registered yet: its queues can be used, its signals cannot be sent.
    Unregistered = 0,
    /// Registered and alive.
    Alive = 1,
    /// The registered process has ended; messages for it end as peer-dead until another process
    /// takes the name.
    Dead = 2,
}

/// The state of a process for lanes: [`PeerState`], and whether a process that is not registered is
/// expected to reconnect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// Not registered, and not expected.
    Unregistered,
    /// Registered and alive.
    Alive,
    /// The registered process has ended.
    Dead,
    /// Had a session with the previous rtd, lives, and has not opened the next session yet.
    Expected,
}

/// Value of `state`, beside those of [`PeerState`].
const EXPECTED: u32 = 3;

/// The effect of a signal that is sent to a registered process now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Reception {
    /// A handler, sigwaitinfo(2) or signalfd(2) takes it.
    Takes = 0,
    /// It neither blocks nor handles the signal, which would end it. The signal is sent later, when
    /// the process does.
    NotReady = 1,
    /// It ignores the signal (SIG_IGN).
    Ignores = 2,
}

impl Reception {
    /// The word that outputs use for a message that waits or is rejected for this reason; none
    /// otherwise.
    pub fn waiting(self) -> Option<&'static str> {
        match self {
            Reception::Takes => None,
            Reception::NotReady => Some("not ready"),
            Reception::Ignores => Some("ignored"),
        }
    }

    /// Decodes a word of the statistics page.
    pub(crate) fn of_word(word: u32) -> Reception {
        match word {
            1 => Reception::NotReady,
            2 => Reception::Ignores,
            _ => Reception::Takes,
        }
    }
}

/// Receptions of all signals; bit n-1 is signal n.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Receptions {
    /// Signals that the program does not expect yet ([`Reception::NotReady`]), as a mask.
    pub not_ready: u64,
    /// Signals that the program ignores ([`Reception::Ignores`]), as a mask.
    pub ignored: u64,
}

impl Receptions {
    /// The reception of one signal.
    pub fn of(self, signo: i32) -> Reception {
        match bit(signo) {
            bit if self.ignored & bit != 0 => Reception::Ignores,
            bit if self.not_ready & bit != 0 => Reception::NotReady,
            _ => Reception::Takes,
        }
    }
}

/// After the death of a process, how long a signal from its pid still counts as its own: it may
/// have been sent just before.
const LAST_WORDS_NS: u64 = 1_000_000_000;

/// The slot of a process. Writer: the control thread. Readers: lane threads.
#[derive(Debug)]
pub struct Peer {
    state: AtomicU32,
    pid: AtomicI32,
    tid: AtomicI32,
    uid: AtomicU32,
    /// Process group and session, 0 if unknown.
    pgid: AtomicI32,
    sid: AtomicI32,
    died_ns: AtomicU64,
    /// Signals that must not be sent now, for the process and for the registered thread: not ready,
    /// ignored.
    held: [[AtomicU64; 2]; 2],
    /// Descriptor slots: each keeps its number, and its open file is replaced.
    process: OwnedFd,
    thread: OwnedFd,
    process_status: OwnedFd,
    thread_status: OwnedFd,
    /// The kernel has descriptors of threads (Linux 6.9).
    thread_has_pidfd: AtomicBool,
    sharers: u32,
    credits: Vec<Arc<Credit>>,
    skin: &'static Skin,
}

impl Peer {
    /// Makes an empty slot that reserves its descriptor numbers. `sharers` signal endpoints may
    /// receive as one user: each gets an equal share of RLIMIT_SIGPENDING, or of the skin's own
    /// limit.
    pub fn new(sharers: u32, skin: &'static Skin) -> io::Result<Peer> {
        let empty = || std::fs::File::open("/dev/null").map(OwnedFd::from);
        Ok(Peer {
            state: AtomicU32::new(PeerState::Unregistered as u32),
            pid: AtomicI32::new(0),
            tid: AtomicI32::new(0),
            uid: AtomicU32::new(u32::MAX),
            pgid: AtomicI32::new(0),
            sid: AtomicI32::new(0),
            died_ns: AtomicU64::new(0),
            held: Default::default(),
            process: empty()?,
            thread: empty()?,
            process_status: empty()?,
            thread_status: empty()?,
            thread_has_pidfd: AtomicBool::new(false),
            sharers: sharers.max(1),
            credits: Vec::new(),
            skin,
        })
    }

    /// The credit of a signal endpoint that this process owns. Call it before threads share the
    /// slot.
    pub fn add_credit(&mut self, signo: i32, to_thread: bool) -> Arc<Credit> {
        let credit = Arc::new(Credit::new(signo, to_thread));
        self.credits.push(Arc::clone(&credit));
        credit
    }

    /// Publishes a process that has taken the name. Control thread only.
    ///
    /// `tid` is the thread that signals with target `thread` go to.
    pub fn take(&self, pidfd: BorrowedFd<'_>, pid: i32, tid: i32, uid: u32) -> io::Result<()> {
        let again = self.state() == PeerState::Alive && self.pid() == pid;
        pidfd::replace(pidfd, &self.process)?;
        let thread = pidfd::open_thread(tid)?;
        if let Some(thread) = &thread {
            pidfd::replace(thread.as_fd(), &self.thread)?;
        }
        self.thread_has_pidfd
            .store(thread.is_some(), Ordering::Relaxed);
        let readable = replace_status(&format!("/proc/{pid}/status"), &self.process_status)?
            && replace_status(
                &format!("/proc/{pid}/task/{tid}/status"),
                &self.thread_status,
            )?;
        // If /proc hides the figures (hidepid), only the kernel's EAGAIN limits the receiver.
        let queue = if readable {
            (self.skin.signal_backlog)(self.process_status.as_fd())
        } else {
            None
        };
        let limit = queue.map_or(u32::MAX, |queue| queue.limit / self.sharers);
        for credit in &self.credits {
            // The same process has registered again and has not taken its pending signals.
            if again {
                credit.set_limit(limit)
            } else {
                credit.reset(limit)
            }
        }
        self.pid.store(pid, Ordering::Relaxed);
        self.tid.store(tid, Ordering::Relaxed);
        self.uid.store(uid, Ordering::Relaxed);
        // SYNC POINT with `state`: a thread that sees Alive sees the identity above.
        self.state.store(PeerState::Alive as u32, Ordering::Release);
        Ok(())
    }

    /// The process had a session with the last rtd and will open one with this rtd: until
    /// [`Peer::take`], [`Peer::died`] or [`Peer::left`] lanes wait for it. Control thread only.
    pub fn expect(&self, pid: i32, tid: i32, uid: u32) {
        self.pid.store(pid, Ordering::Relaxed);
        self.tid.store(tid, Ordering::Relaxed);
        self.uid.store(uid, Ordering::Relaxed);
        // SYNC POINT with `presence`: a lane that sees it expected sees the identity above.
        self.state.store(EXPECTED, Ordering::Release);
    }

    /// Sets its POSIX process group and session; unknown numbers are 0. Call it before
    /// [`Peer::take`], so that a thread that sees the process alive sees them, and again when they
    /// may have changed. Control thread only.
    pub fn set_groups(&self, pgid: i32, sid: i32) {
        self.pgid.store(pgid, Ordering::Relaxed);
        self.sid.store(sid, Ordering::Relaxed);
    }

    /// Sets the receptions of signals to the process, or to the registered thread. Call it before
    /// [`Peer::take`], so that a lane that sees the process alive sees them, and again after each
    /// check. Control thread only.
    pub fn set_receptions(&self, to_thread: bool, now: Receptions) {
        let [not_ready, ignored] = &self.held[usize::from(to_thread)];
        not_ready.store(now.not_ready, Ordering::Relaxed);
        ignored.store(now.ignored, Ordering::Relaxed);
    }

    /// The reception of this signal, as of the last check.
    #[inline]
    pub fn reception(&self, signo: i32, to_thread: bool) -> Reception {
        let [not_ready, ignored] = self.held[usize::from(to_thread)]
            .each_ref()
            .map(|m| m.load(Ordering::Relaxed));
        Receptions { not_ready, ignored }.of(signo)
    }

    /// Takes the credit for one real-time signal; false if the endpoint's share of the queue is
    /// used up.
    #[inline]
    pub fn take_credit(&self, credit: &Credit) -> bool {
        credit.take() || {
            let status = if credit.to_thread() {
                &self.thread_status
            } else {
                &self.process_status
            };
            credit.refill((self.skin.now_ns)(), || {
                (self.skin.signal_backlog)(status.as_fd())
            });
            credit.take()
        }
    }

    /// The address for a signal to the process.
    #[inline]
    pub fn address(&self, to_thread: bool) -> SignalAddress {
        let pidfd_is_thread = to_thread && self.thread_has_pidfd.load(Ordering::Relaxed);
        let slot = if pidfd_is_thread {
            &self.thread
        } else {
            &self.process
        };
        let tid = if to_thread { self.tid() } else { 0 };
        SignalAddress {
            pidfd: slot.as_raw_fd(),
            pid: self.pid(),
            tid,
            pidfd_is_thread,
        }
    }

    /// Whether a signal that names this pid as its sender may come from the owner: the process is
    /// alive, or it ended a moment ago. Later the pid may belong to another process.
    pub fn may_have_sent(&self, pid: u32, now_ns: u64) -> bool {
        let recent = || now_ns.saturating_sub(self.died_ns.load(Ordering::Relaxed)) < LAST_WORDS_NS;
        self.pid().unsigned_abs() == pid
            && match self.presence() {
                Presence::Alive | Presence::Expected => true,
                Presence::Dead => recent(),
                Presence::Unregistered => false,
            }
    }

    /// The process died. Control thread only.
    pub fn died(&self) {
        self.died_ns.store((self.skin.now_ns)(), Ordering::Relaxed);
        self.state.store(PeerState::Dead as u32, Ordering::Release);
    }

    /// The process released the name and lives. Control thread only.
    pub fn left(&self) {
        self.state
            .store(PeerState::Unregistered as u32, Ordering::Release);
    }

    /// Current state. An expected process is not registered yet.
    pub fn state(&self) -> PeerState {
        match self.presence() {
            Presence::Alive => PeerState::Alive,
            Presence::Dead => PeerState::Dead,
            Presence::Unregistered | Presence::Expected => PeerState::Unregistered,
        }
    }

    /// Current state, as lanes need it.
    #[inline]
    pub(crate) fn presence(&self) -> Presence {
        // SYNC POINT with `take` and `expect`.
        match self.state.load(Ordering::Acquire) {
            1 => Presence::Alive,
            2 => Presence::Dead,
            EXPECTED => Presence::Expected,
            _ => Presence::Unregistered,
        }
    }

    /// Whether the process of the last registration is known to live: it is registered or expected.
    #[inline]
    pub(crate) fn lives(&self) -> bool {
        matches!(self.presence(), Presence::Alive | Presence::Expected)
    }

    /// Process id of the last registration, 0 before the first.
    pub fn pid(&self) -> i32 {
        self.pid.load(Ordering::Relaxed)
    }

    /// Thread id for thread-directed signals.
    pub fn tid(&self) -> i32 {
        self.tid.load(Ordering::Relaxed)
    }

    /// POSIX process group (getpgid(2)) as last read, 0 if unknown; read only for members of a
    /// dynamic group.
    #[inline]
    pub fn pgid(&self) -> i32 {
        self.pgid.load(Ordering::Relaxed)
    }

    /// POSIX session (getsid(2)) as last read, 0 if unknown.
    #[inline]
    pub fn sid(&self) -> i32 {
        self.sid.load(Ordering::Relaxed)
    }

    /// Real user id of the last registration.
    pub fn uid(&self) -> u32 {
        self.uid.load(Ordering::Relaxed)
    }
}

/// Opens the status file of a process into a slot; false if /proc hides it.
fn replace_status(path: &str, slot: &OwnedFd) -> io::Result<bool> {
    match std::fs::File::open(path) {
        Ok(file) => pidfd::replace(file.as_fd(), slot).map(|()| true),
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied
            ) =>
        {
            Ok(false)
        }
        Err(e) => Err(crate::sys::context::named(path, e)),
    }
}
