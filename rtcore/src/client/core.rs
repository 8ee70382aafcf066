//! The state that a session, its thread, its senders and its inboxes share.
//!
//! Constraint: the table's lock is an ordinary mutex, for claiming and giving back ends and for
//! questions to the daemon. No send or receive takes it: their data travels through queues
//! ([`crate::channel::hand_off`], rtrb) and atomics.
//!
//! Invariant: entry `n` of `senders` and of `receivers` belongs to entry `n` of the session
//! thread's own lists, and is never removed.

use super::inbox::{Filter, MailboxSender};
use crate::channel::{RxHandle, TxHandle};
use crate::lane::peer::PeerState;
use crate::refusals::Accounting;
use crate::skin::{Doorbell, Skin};
use crate::sync::{AtomicU32, Ordering};
use crate::sys::eventfd::EventFd;
use crate::sys::forked::{Creator, Forked};
use crate::sys::{clock, futex, sched};
use crate::wire::{Channel, Name, PeerStatus, Reply};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};

pub(super) use crate::ring::bell::CHANNELS_MAX;

/// Limit of either list. The entries beyond the channels of one configuration belong to earlier
/// configurations.
pub(super) const ENTRIES_MAX: usize = 4 * CHANNELS_MAX;

/// Limit of the processes that a session remembers.
pub(super) const PEERS_MAX: usize = 1024;

/// Limit of the pids that a session remembers for each name.
const PIDS_MAX: usize = 8;

/// The pid of a peer without a process.
const NO_PID: u32 = u32::MAX;

/// Longest wait of [`Core::catch_up`]: real-time threads can keep the session thread, an ordinary
/// one, off its CPU.
const CATCH_UP_MAX_NS: u64 = 1_000_000_000;

/// State of the connection to the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Connected, all channels are as the daemon's configuration says.
    Up,
    /// The daemon is down or refuses the session; the text has the reason. The session keeps trying
    /// to connect.
    Down(String),
    /// The session was dropped.
    Closed,
    /// This process is the child of a fork(2) of the one that opened the session.
    Forked {
        /// Pid of the process that opened the session.
        creator: u32,
    },
}

/// The part of this process that holds a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    what: &'static str,
    /// The thread that claimed it.
    tid: i32,
}

impl Holder {
    /// Claimed by the calling thread.
    pub fn here(what: &'static str) -> Holder {
        Holder {
            what,
            tid: sched::gettid(),
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of thread {}", self.what, self.tid)
    }
}

/// One channel in the session's table. `T` is the end that its holder gets, a [`TxHandle`] or an
/// [`RxHandle`].
#[derive(Debug)]
pub(super) struct Slot<T> {
    pub channel: Channel,
    /// Whether the current configuration has the channel.
    pub present: bool,
    /// None while a sender, inbox or dispatcher holds the end.
    pub handle: Option<T>,
    /// The holder, while `handle` is none.
    pub holder: Option<Holder>,
}

/// Why an inbox does not get the channels that it requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unclaimed {
    /// No channel of this endpoint.
    Absent(Name),
    /// Another holder has a channel of this endpoint.
    Taken(Name, Option<Holder>),
}

/// A request to the session thread.
#[derive(Debug)]
pub(super) enum Command {
    /// Channels moved from one inbox to another: wakes the new one.
    Wake,
    /// Asks the daemon why it has no such endpoint.
    Explain {
        endpoint: Name,
        answer: mpsc::SyncSender<Reply>,
    },
    /// Ends the thread.
    Stop,
}

#[derive(Debug)]
pub(super) struct Table {
    pub state: State,
    pub senders: Vec<Slot<TxHandle>>,
    pub receivers: Vec<Slot<RxHandle>>,
    pub inboxes: Vec<Arc<MailboxSender>>,
    pub peers: Vec<PeerStatus>,
    /// Pids of named processes, for code that compares origins.
    pub pids: Vec<(Name, Arc<Pids>)>,
    pub commands: Vec<Command>,
    /// Threads that the library made real-time, each below the lane of this name.
    pub threads: Vec<(i32, Name)>,
}

#[derive(Debug)]
pub(super) struct Core {
    /// The name of the process.
    pub process: Name,
    /// Identifies this life of the sender's sequence numbers.
    pub epoch: u32,
    /// The process that opened the session. A forked child has a copy of this value, and must not
    /// touch objects that it shares with its parent (rings, eventfds) or wait for threads and lock
    /// holders that only the parent has.
    pub creator: Creator,
    /// The skin of the session's threads.
    pub skin: &'static Skin,
    /// Wakes the session thread: there is a command, or an end came back.
    pub control: EventFd,
    /// Counts what the session's senders refuse.
    pub refusals: Accounting,
    closed: AtomicU32,
    /// Not 0: inboxes were woken, which may sleep at bells that only the session thread can ring.
    wake: AtomicU32,
    /// Pids of the table's peers, for threads that must not take its lock; 0 after the last one.
    peer_pids: Box<[AtomicU32]>,
    /// Counts the calls of [`Core::catch_up`].
    asked: AtomicU32,
    /// How many of them the session thread has answered; a waiting thread sleeps at this word.
    answered: AtomicU32,
    table: Mutex<Table>,
}

impl Core {
    pub fn new(
        process: Name,
        epoch: u32,
        creator: Creator,
        skin: &'static Skin,
        control: EventFd,
        refusals: Accounting,
    ) -> Core {
        let table = Table {
            state: State::Down("not connected yet".to_owned()),
            senders: Vec::new(),
            receivers: Vec::new(),
            inboxes: Vec::new(),
            peers: Vec::new(),
            pids: Vec::new(),
            commands: Vec::new(),
            threads: Vec::new(),
        };
        Core {
            process,
            epoch,
            creator,
            skin,
            control,
            refusals,
            closed: AtomicU32::new(0),
            wake: AtomicU32::new(0),
            peer_pids: (0..PEERS_MAX).map(|_| AtomicU32::new(0)).collect(),
            asked: AtomicU32::new(0),
            answered: AtomicU32::new(0),
            table: Mutex::new(table),
        }
    }

    /// An error in the child of a fork(2).
    #[inline]
    pub fn check(&self) -> Result<(), Forked> {
        self.creator.check()
    }

    /// Publishes the pid of entry `at` of the table's peers.
    pub fn note_peer(&self, at: usize, pid: u32) {
        if let Some(known) = self.peer_pids.get(at) {
            known.store(if pid == 0 { NO_PID } else { pid }, Ordering::Release);
        }
    }

    /// Whether this is the pid of a process that the daemon has reported. Takes no lock.
    pub fn knows(&self, pid: u32) -> bool {
        let known = self
            .peer_pids
            .iter()
            .map(|known| known.load(Ordering::Acquire));
        known
            .take_while(|known| *known != 0)
            .any(|known| known == pid)
    }

    /// Waits until the session thread has read every frame that the daemon had written to this
    /// session before the call, for at most a second. Allocates nothing and takes no lock.
    #[cold]
    pub fn catch_up(&self) {
        let own = self.asked.fetch_add(1, Ordering::AcqRel).wrapping_add(1);
        let until_ns = clock::monotonic_ns() + CATCH_UP_MAX_NS;
        self.nudge();
        loop {
            let answered = self.answered.load(Ordering::Acquire);
            let left_ns = until_ns.saturating_sub(clock::monotonic_ns());
            if own.wrapping_sub(answered).cast_signed() <= 0 || self.is_closed() || left_ns == 0 {
                return;
            }
            // The loop checks again after a wake-up, an interruption or the time limit.
            let _ = futex::wait(&self.answered, answered, left_ns);
        }
    }

    /// The number of calls to answer, if any wait; for [`Core::answer`] after the reading.
    pub fn waiting(&self) -> Option<u32> {
        let asked = self.asked.load(Ordering::Acquire);
        (asked != self.answered.load(Ordering::Relaxed)).then_some(asked)
    }

    /// Releases the threads that have called so far.
    pub fn answer(&self, asked: u32) {
        self.answered.store(asked, Ordering::Release);
        futex::wake_all(&self.answered);
    }

    /// Whether routed rings are rung by semaphores.
    pub fn has_semaphores(&self) -> bool {
        self.skin.caps.doorbell == Doorbell::Semaphore
    }

    pub fn table(&self) -> MutexGuard<'_, Table> {
        // Each change of the table is complete in itself: a panic elsewhere leaves nothing half
        // done.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The calling thread runs below this lane from now on.
    pub fn entered(&self, lane: Name) {
        let tid = sched::gettid();
        let threads = &mut self.table().threads;
        threads.retain(|(of, _)| *of != tid && sched::is_own_thread(*of));
        threads.push((tid, lane));
    }

    /// The lane that a thread declared; thread 0 is the main thread.
    pub fn lane_of(&self, tid: i32) -> Option<Name> {
        let tid = if tid == 0 {
            i32::try_from(std::process::id()).unwrap_or(0)
        } else {
            tid
        };
        self.table()
            .threads
            .iter()
            .find(|(of, _)| *of == tid)
            .map(|(_, lane)| *lane)
    }

    /// Wakes the session thread (one write(2)).
    #[cold]
    pub fn nudge(&self) {
        // An eventfd of our own: it does not fail.
        let _ = self.control.ring();
    }

    /// Has the session thread ring all inboxes' bells. Takes no lock, unlike [`Core::command`].
    pub fn wake_inboxes(&self) {
        // SYNC POINT with `take_wake`: the session thread sees the inbox's change.
        self.wake.store(1, Ordering::Release);
        self.nudge();
    }

    /// Whether [`Core::wake_inboxes`] was called since the last time.
    pub fn take_wake(&self) -> bool {
        self.wake.swap(0, Ordering::AcqRel) != 0
    }

    pub fn command(&self, command: Command) {
        self.table().commands.push(command);
        self.nudge();
    }

    /// Whether the session was dropped.
    #[inline]
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire) != 0
    }

    pub fn close(&self) {
        // SYNC POINT with `is_closed`: a thread that sees the flag sees everything that was handed
        // over before.
        self.closed.store(1, Ordering::Release);
        self.answer(self.asked.load(Ordering::Acquire));
    }
}

impl Table {
    /// Gives a free channel to the inbox that names it, otherwise to the inbox that takes the rest;
    /// without such an inbox the channel stays in its slot. The inbox must then be woken.
    pub fn adopt(&mut self, rx: RxHandle) {
        let names = |inbox: &&Arc<MailboxSender>| {
            inbox.filter != Filter::Rest && inbox.filter.admits(&rx.channel)
        };
        let rest = |inbox: &&Arc<MailboxSender>| inbox.filter.admits(&rx.channel);
        let inbox = self
            .inboxes
            .iter()
            .find(names)
            .or_else(|| self.inboxes.iter().find(rest));
        let index = rx.index;
        let (handle, holder) = match inbox {
            Some(inbox) => match inbox.add(rx) {
                None => (None, Some(inbox.holder)),
                full => (full, None),
            },
            None => (Some(rx), None),
        };
        if let Some(slot) = self.receivers.get_mut(index) {
            (slot.handle, slot.holder) = (handle, holder);
        }
    }

    /// Gives a new inbox the channels that it names, all of them or none; for an inbox of the rest,
    /// the free ones. Channels of the rest that others hold, and those of a signal's payloads,
    /// follow when their holders release them.
    pub fn claim(&mut self, inbox: &Arc<MailboxSender>) -> Result<(), Unclaimed> {
        for endpoint in inbox.filter.endpoints() {
            let of = |slot: &&Slot<RxHandle>| {
                slot.present
                    && inbox.filter.admits(&slot.channel)
                    && slot.channel.endpoint == *endpoint
            };
            let mut slots = self.receivers.iter().filter(of).peekable();
            if slots.peek().is_none() {
                return Err(Unclaimed::Absent(*endpoint));
            }
            if let Some(taken) = slots.find(|slot| slot.handle.is_none()) {
                return Err(Unclaimed::Taken(*endpoint, taken.holder));
            }
        }
        for slot in self
            .receivers
            .iter_mut()
            .filter(|slot| inbox.filter.admits(&slot.channel))
        {
            if let Some(rx) = slot.handle.take() {
                slot.handle = inbox.add(rx);
                slot.holder = Some(inbox.holder);
            }
        }
        self.inboxes.push(Arc::clone(inbox));
        Ok(())
    }

    /// The pids behind a name, kept up to date through every registration.
    pub fn pids_of(&mut self, process: Name) -> Arc<Pids> {
        if let Some((_, pids)) = self.pids.iter().find(|(name, _)| *name == process) {
            return Arc::clone(pids);
        }
        let pids = Arc::new(Pids::default());
        self.pids.push((process, Arc::clone(&pids)));
        pids
    }

    /// Records that a process has, or had, this pid under its name.
    pub fn note_pid(&mut self, news: &PeerStatus) {
        let of_another = |peer: &PeerStatus| peer.process != news.process && peer.pid == news.pid;
        let is_alive = news.state == PeerState::Alive;
        if news.pid == 0
            || !is_alive
                && self
                    .peers
                    .iter()
                    .any(|p| p.state == PeerState::Alive && of_another(p))
        {
            return;
        }
        if is_alive {
            // The kernel has given the number to a new process.
            self.pids
                .iter()
                .filter(|(name, _)| *name != news.process)
                .for_each(|(_, pids)| pids.forget(news.pid));
        }
        self.pids_of(news.process).add(news.pid);
    }
}

/// Pids that one process name has had and that messages may still name as their sender's: the
/// receiver may read a message long after its sender has ended, or after the next process has taken
/// the name.
///
/// Constraint: a pid stays until another process is reported alive with it, or until [`PIDS_MAX`]
/// later ones have come. The session thread writes, under the table's lock; threads that compare
/// origins only read, and take no lock.
#[derive(Debug, Default)]
pub(super) struct Pids {
    /// 0 = none.
    pids: [AtomicU32; PIDS_MAX],
    /// How many were added.
    added: AtomicU32,
}

impl Pids {
    /// Whether the name has, or had, this pid.
    pub fn has(&self, pid: u32) -> bool {
        // SYNC POINT with the store in `add`, for `Core::knows`.
        pid != 0
            && self
                .pids
                .iter()
                .any(|known| known.load(Ordering::Acquire) == pid)
    }

    fn add(&self, pid: u32) {
        if self.has(pid) {
            return;
        }
        let at = self.added.fetch_add(1, Ordering::Relaxed) as usize % PIDS_MAX;
        self.pids[at].store(pid, Ordering::Release);
    }

    fn forget(&self, pid: u32) {
        for known in self
            .pids
            .iter()
            .filter(|known| known.load(Ordering::Relaxed) == pid)
        {
            known.store(0, Ordering::Release);
        }
    }
}
