//! Signals on an ordinary thread instead of in asynchronous handlers.
//!
//! [`Signals`] owns a dispatcher thread that sleeps in sigwaitinfo(2). Handlers are closures that
//! it calls one after the other, lowest signal number first among what is pending (signal(7)), so
//! they may allocate, lock and block; they must not take longer than the next signal can wait. No
//! system call of the program ever returns EINTR because of such a signal: it is blocked in every
//! thread, and only the dispatcher takes it.
//!
//! # Payloads
//!
//! A signal endpoint with a `msgsize` has a ring beside it, and
//! [`Session::signals`](crate::client::Session::signals) starts a dispatcher that reads it: the
//! handlers of its signal get each message once, with up to a slot of payload, in its sender's
//! order, independent of the number of signals. The daemon sends one signal when a message comes
//! into a ring that is not being read; further messages need no signal until the dispatcher has
//! read the ring. A burst therefore cannot fill the user's signal queue (RLIMIT_SIGPENDING). If
//! other programs have filled the queue, the message is in the ring, and the daemon tries the
//! signal again every millisecond.
//!
//! ```no_run
//! use rtcore::client::Session;
//! use rtcore::client::signals::{Flags, Signals};
//!
//! let stop = rtcore::sys::signame::rt_min() + 2;
//! Signals::block([stop])?;
//! let session = Session::connect("drive")?;
//! let signals = session.signals()?;
//! let from_controller = Flags::new().only_from(session.is("controller"));
//! signals.register(stop, from_controller, |notice| {
//!     println!("stop from pid {}: {:?}", notice.origin.pid, notice.payload);
//! })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! In a session on Cobalt no signal is sent: the dispatcher is a Cobalt thread that sleeps at a
//! semaphore that the daemon posts. It checks for Linux's own signals every 10 ms.
//!
//! Until a handler is registered for the signal, its ring is not read and no signal is sent:
//! messages fill the ring, then the route's backlog, and then the route's overflow policy applies.
//!
//! # A program that is starting
//!
//! The default action of a real-time signal ends the process, so one that arrives before `main` has
//! blocked it is deadly. Write [`rtcore::hold_signals!()`](crate::hold_signals) beside `main`,
//! outside any function: it blocks every signal that a route may carry before `main` runs, and
//! signals that arrive wait for their dispatcher.
//!
//! # A program that executes another
//!
//! exec(2) ends the dispatcher and removes handlers; signals that the calling thread blocks stay
//! blocked. A session ends with it, but a name of `rtctl run` or `rtctl register` stays, and rtd
//! checks only once a second whether the program still takes its signals. Therefore call
//! [`Signals::block`] on the thread that calls exec(2), and let the new program take or unblock the
//! signals when it is ready for them; a signal that is not blocked then ends it. A handler of
//! sigaction(2) alone does not protect.
//!
//! # Other ways
//!
//! [`handler`] installs asynchronous handlers. A program with an event loop can take signals
//! through a [`Waiter`](crate::client::waiter::Waiter).
//!
//! ```
//! use rtcore::client::signals::{Flags, Signals};
//! use rtcore::sys::{rtsignal, sched, signame};
//!
//! let stop = signame::rt_min() + 5;
//! // First thing in main: threads inherit what is blocked.
//! Signals::block([stop])?;
//! let signals = Signals::start()?;
//! let (tell, told) = std::sync::mpsc::channel();
//! let id = signals.register(stop, Flags::new(), move |notice| {
//!     let _ = tell.send((notice.value, notice.origin));
//! })?;
//!
//! rtsignal::queue_to_pid(sched::getpid(), stop, 42).map_err(std::io::Error::from)?;
//! let (value, origin) = told.recv()?;
//! assert_eq!((value, origin.pid), (42, std::process::id()));
//! assert!(!origin.verified, "a queued signal's origin is its sender's claim");
//! signals.remove(id)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub(in crate::client) mod claim;
mod dispatch;
mod error;
pub mod handler;
mod registry;
mod rings;

pub use error::SignalsError;
pub use registry::{Flags, HANDLERS_MAX};

use super::core::Core;
use super::inbox::{Filter, Inbox};
use super::message::Head;
use crate::message::Origin;
use crate::sys::forked::Creator;
use crate::sys::rtsignal::{self, Received};
use crate::sys::sched;
use claim::Claim;
use dispatch::Shared;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;

/// A signal that arrived, or a message to a signal endpoint.
#[derive(Clone, Copy, Debug)]
pub struct Notice<'a> {
    /// Kernel number.
    pub signo: i32,
    /// The value that the sender passed to sigqueue(3), also if the signal came through rtd; 0 for
    /// kill(2). For a payload: its first 8 bytes in native order, padded with zeros, as a plain
    /// signal would carry them.
    pub value: u64,
    /// The sender; see [`Flags::only_from`] for the reliability of this value.
    pub origin: Origin,
    /// The payload, up to the endpoint's `msgsize`; empty for a plain signal, the value's 8 bytes
    /// for a signal that rtd passed on through a ring.
    pub payload: &'a [u8],
    /// Endpoint, route, number and times of a message from a ring; none for a plain signal.
    pub head: Option<Head<'a>>,
    /// The time at which it was taken, CLOCK_MONOTONIC in nanoseconds.
    pub received_ns: u64,
}

/// Identifies a registered handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HandlerId {
    signo: i32,
    number: u64,
}

/// Counts of a dispatcher.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Signals and messages of rings taken.
    pub received: u64,
    /// Signals that only announced a message in a ring; not counted in `received`.
    pub doorbells: u64,
    /// Messages that came again after a restart of the daemon and were discarded; not counted in
    /// `received`.
    pub duplicates: u64,
    /// Of those received, the number for which no handler was called: it was removed, or
    /// [`Flags::only_from`] excluded the signal.
    pub unhandled: u64,
    /// Calls of handlers.
    pub calls: u64,
    /// Panics of handlers, of predicates and of the values that they own. The handler stays
    /// registered.
    pub panics: u64,
}

/// The dispatcher and its handlers.
///
/// Share it by reference or in an `Arc`. A handler that holds an `Arc` of it keeps it alive without
/// end: give it a `Weak`. Dropping it stops the thread and waits for the handler that runs at that
/// moment; dropped *by* a handler, it stops the thread after that handler. The signals stay blocked
/// afterwards, and what is pending stays pending.
///
/// The thread has the scheduling and the CPUs of the thread that called [`Signals::start`], and
/// blocks every signal; threads and processes that a handler starts inherit that. Registering takes
/// an ordinary lock, for a moment in which a thread of lower priority can be preempted: if the
/// dispatcher is real-time, register during setup.
///
/// In the child of a fork(2) there is no dispatcher thread: registering fails with
/// [`SignalsError::Forked`]. Drop the inherited value there before another taker registers the same
/// signals.
pub struct Signals {
    shared: Arc<Shared>,
    /// Locked while a signal is added, never while a handler runs.
    claim: Mutex<Claimed>,
    /// The session whose rings it reads.
    session: Option<Arc<Core>>,
    thread: Option<JoinHandle<()>>,
    tid: i32,
    /// The process that has the thread.
    creator: Creator,
}

/// The signals that a dispatcher takes.
#[derive(Debug, Default)]
struct Claimed {
    signals: Claim,
    /// The part of these signals for which it has an inbox, as a mask.
    inboxes: u64,
}

impl std::fmt::Debug for Signals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signals")
            .field("tid", &self.tid)
            .field("counters", &self.counters())
            .finish()
    }
}

impl Signals {
    /// Starts the dispatcher thread, `rtd-signals`, without any handler.
    ///
    /// Errors: [`SignalsError::System`] when the thread cannot be started.
    pub fn start() -> Result<Signals, SignalsError> {
        Signals::start_for(None)
    }

    /// The same, for a session's rings as well.
    pub(super) fn start_for(session: Option<Arc<Core>>) -> Result<Signals, SignalsError> {
        let creator =
            Creator::current().map_err(SignalsError::system("preparing to detect a fork"))?;
        let shared = Arc::new(Shared::new());
        let of_thread = Arc::clone(&shared);
        // On a skin with threads of its own the dispatcher is one of them, with the priority of the
        // calling thread.
        let core = session.as_ref().filter(|core| core.has_semaphores());
        let system = SignalsError::system("reading the scheduling of the calling thread");
        let priority = core
            .map(|_| sched::realtime_priority(0))
            .transpose()
            .map_err(system)?;
        let promote = core.map(|core| (core.skin, priority.flatten().unwrap_or(0)));
        let (tell, told) = mpsc::sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("rtd-signals".to_owned())
            .spawn(move || of_thread.live(promote, &tell))
            .map_err(SignalsError::system("starting the dispatcher thread"))?;
        let tid = told
            .recv()
            .unwrap_or_else(|e| Err(std::io::Error::other(e)));
        let tid = tid.map_err(SignalsError::system("preparing the dispatcher thread"))?;
        Ok(Signals {
            shared,
            claim: Mutex::default(),
            session,
            thread: Some(thread),
            tid,
            creator,
        })
    }

    /// Blocks these signals in the calling thread, and so in each thread that it starts afterwards
    /// (pthread_sigmask(3)). Call it first in `main`.
    ///
    /// Errors: [`SignalsError::Refused`] for a number that [`Signals::register`] would refuse.
    pub fn block(signals: impl IntoIterator<Item = i32>) -> Result<(), SignalsError> {
        claim::block(claim::mask_of(signals)?)
    }

    /// Calls `handler` for each signal `signo` from now on, including those that are already
    /// pending, in the order that `flags` select; with [`Flags::new`] after the handlers that are
    /// already registered.
    ///
    /// Blocks the signal in the calling thread. It stays blocked when its last handler is removed,
    /// and the dispatcher goes on taking it, counted as [`Counters::unhandled`]: unblocked, it
    /// would end the process. A handler that panics is counted in [`Counters::panics`] and stays
    /// registered.
    ///
    /// Errors: a number that cannot be taken, a thread that does not block it, another taker in
    /// this process, more than [`HANDLERS_MAX`] handlers, /proc not readable; of a session's, no
    /// descriptors left for the signal's inbox.
    pub fn register(
        &self,
        signo: i32,
        flags: Flags,
        handler: impl FnMut(&Notice<'_>) + Send + 'static,
    ) -> Result<HandlerId, SignalsError> {
        self.creator.check()?;
        let bits = claim::mask_of([signo])?;
        let mut claimed = self.claim.lock().unwrap_or_else(PoisonError::into_inner);
        self.claim(&mut claimed.signals, bits)?;
        let inbox = if claimed.inboxes & bits == 0 {
            self.inbox(signo)?
        } else {
            None
        };
        let mut registry = self.shared.registry();
        // What is left over is dropped at the end, when the registry is not locked any more;
        // likewise below.
        let (added, _left) = registry.add(signo, flags, Box::new(handler));
        if let Some(inbox) = inbox {
            claimed.inboxes |= bits;
            registry.inboxes.push((signo, inbox));
        }
        drop(registry);
        drop(claimed);
        rtsignal::wake(self.tid);
        added
    }

    /// Checks that the signal is delivered to the dispatcher only.
    fn claim(&self, claim: &mut Claim, bits: u64) -> Result<(), SignalsError> {
        let known = claim.has(bits);
        claim.extend(bits)?;
        let blocked = claim::block_everywhere(bits, Some(self.tid));
        if blocked.is_err() && !known {
            claim.release(bits);
        }
        blocked
    }

    /// Opens an inbox for the rings that the session has beside the signal, or will have by a later
    /// configuration.
    fn inbox(&self, signo: i32) -> Result<Option<Inbox>, SignalsError> {
        // A standard signal has no ring.
        let Some(core) = self
            .session
            .as_ref()
            .filter(|_| rtsignal::is_realtime(signo))
        else {
            return Ok(None);
        };
        let system = SignalsError::system("making the inbox of the signal");
        match Inbox::open(
            core,
            Filter::Signal {
                signo,
                tid: self.tid,
            },
        ) {
            // It names no endpoint. Channels that an earlier dispatcher still holds follow when
            // that dispatcher ends.
            Ok(inbox) => Ok(inbox.ok()),
            Err(e) => Err(system(e)),
        }
    }

    /// Replaces a handler; its place and flags stay, and a one-shot may fire again. It does not
    /// wait for a running call: the new handler is called from the next signal on.
    ///
    /// Errors: [`SignalsError::NoSuchHandler`].
    pub fn replace(
        &self,
        id: HandlerId,
        handler: impl FnMut(&Notice<'_>) + Send + 'static,
    ) -> Result<(), SignalsError> {
        self.creator.check()?;
        let (replaced, _left) = self.shared.registry().replace(id, Box::new(handler));
        replaced
    }

    /// Removes a handler. It does not wait for a running call, which is then the last one.
    ///
    /// Errors: [`SignalsError::NoSuchHandler`].
    pub fn remove(&self, id: HandlerId) -> Result<(), SignalsError> {
        self.creator.check()?;
        let left = self.shared.registry().remove(id);
        left.map(drop)
    }

    /// The counts since the start of the dispatcher.
    pub fn counters(&self) -> Counters {
        self.shared.counters()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        let thread = self.thread.take();
        if !self.creator.is_current() {
            // A forked child does not have this thread: it can neither join nor detach it.
            std::mem::forget(thread);
            return;
        }
        self.shared.stop();
        rtsignal::wake(self.tid);
        let Some(thread) = thread else { return };
        // A handler that drops the handle cannot wait for its own end; the thread ends after the
        // handler returns.
        if thread.thread().id() != std::thread::current().id() {
            // The thread panicked if this is an error, and the panic message is already written.
            let _ = thread.join();
        }
    }
}

/// The sender of a signal, as far as the kernel reports it.
pub(in crate::client) fn origin_of(got: &Received) -> Origin {
    Origin {
        pid: got.pid,
        uid: got.uid,
        verified: got.kernel_wrote_origin,
    }
}
