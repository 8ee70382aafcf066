//! The session: the place of a process in the daemon's configuration, with all its channels.

use super::caller::Caller;
use super::connecting::{self, Connecting};
use super::core::{Command, Core, Holder, State, Unclaimed};
use super::error::{ClaimError, ConnectError};
use super::inbox::{Filter, Inbox};
use super::locate::{Place, default_instance};
use super::realtime::RealTimeBuilder;
use super::sender::Sender;
use super::session_thread::{Order, SessionThread};
use super::signals::{Signals, SignalsError};
use crate::epoch::new_epoch;
use crate::message::Origin;
use crate::refusals::Accounting;
use crate::skin::{self, Skin};
use crate::sys::eventfd::EventFd;
use crate::sys::forked::{Creator, Forked};
use crate::sys::{epoll, sched};
use crate::wire::{Channel, Name, PeerStatus, Status};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

/// Default of the time to wait for the daemon.
const LIMIT: Duration = Duration::from_secs(5);
/// Limit of that time.
const LIMIT_MAX: Duration = Duration::from_secs(3600);

/// The connection of a registered process to rtd.
///
/// Its thread, `rtd-session`, is an ordinary one. Connect before the real-time work begins:
/// connecting maps memory and starts that thread. Dropping the session ends the registration;
/// senders and inboxes that are left then return an error.
///
/// **fork(2).** A session belongs to the process that opened it. In a forked child every call of
/// the session, of its senders, inboxes and dispatchers returns an error
/// ([`Gone::Forked`](super::Gone::Forked), [`RecvError::Forked`](super::RecvError) and the like) at
/// once, and dropping them does nothing to the parent's session. A child that wants to take part
/// opens a session of its own, under the name of another `[[process]]`. Because the child inherits
/// no thread and no ring, the process may fork at any time, even while other threads use the
/// session.
#[derive(Debug)]
pub struct Session {
    core: Arc<Core>,
    thread: Option<JoinHandle<()>>,
    signals: Mutex<Weak<Signals>>,
}

/// Settings for a connection; see [`Session::builder`].
#[derive(Clone, Debug)]
pub struct Builder {
    process: String,
    place: Option<Place>,
    limit: Duration,
    tid: i32,
    skin: &'static Skin,
}

impl Builder {
    /// Connects to this instance (`[daemon] name`). Default: `RTD_INSTANCE`, otherwise the only one
    /// that runs.
    pub fn instance(mut self, name: &str) -> Builder {
        self.place = Some(Place::Instance(name.to_owned()));
        self
    }

    /// Connects to this socket, without a check of the listener's owner.
    pub fn socket(mut self, path: impl Into<PathBuf>) -> Builder {
        self.place = Some(Place::Socket(path.into()));
        self
    }

    /// How long to wait for the daemon; 5 s by default, an hour at most.
    pub fn timeout(mut self, limit: Duration) -> Builder {
        self.limit = limit.min(LIMIT_MAX);
        self
    }

    /// Selects the thread that gets the signals of endpoints with `target = "thread"`; by default
    /// the main thread.
    pub fn tid(mut self, tid: i32) -> Builder {
        self.tid = tid;
        self
    }

    /// The calls that its real-time threads run on; Linux's by default. For lanes on Cobalt, whose
    /// threads no Linux program can wake, it is what
    /// [`Loaded::bind`](crate::skin::cobalt::Loaded::bind) returned, which comes first in `main`,
    /// on the main thread, before any other thread exists:
    ///
    /// ```no_run
    /// use rtcore::client::Session;
    /// use rtcore::skin::cobalt;
    ///
    /// let skin = cobalt::load(None)?.bind()?;
    /// let session = Session::builder("arm").skin(skin).connect()?;
    /// let granted = session.realtime().lane("control").below(1).enter()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// There, sending and receiving through the daemon make none of Linux's calls while it is
    /// there, on threads that [`Session::realtime`] has promoted; any other thread that waits looks
    /// every millisecond. Rings of direct routes are rung by futex on every skin, which hands a
    /// Cobalt thread to Linux. A new ring, after a restart of the daemon, costs one call of
    /// Linux's.
    pub fn skin(mut self, skin: &'static Skin) -> Builder {
        self.skin = skin;
        self
    }

    /// Connects: takes the name, maps the rings, and returns when the session is up.
    ///
    /// rtd may deliver messages before the session is up. If the time limit passes or rtd ends
    /// after that, the session is returned although it is [`State::Down`], because only its inboxes
    /// can return these messages. The session keeps trying to connect;
    /// [`Event::Up`](super::Event::Up) follows.
    ///
    /// Errors: [`ConnectError`].
    pub fn connect(self) -> Result<Session, ConnectError> {
        self.start()?.finish()
    }

    /// Begins to connect, for a program that has something to do meanwhile. Dropping the
    /// [`Connecting`] gives the attempt up.
    ///
    /// Errors: as [`Builder::connect`].
    pub fn start(self) -> Result<Connecting, ConnectError> {
        let process =
            Name::new(&self.process).map_err(|_| ConnectError::Name(self.process.clone()))?;
        let place = match self.place {
            Some(place) => place,
            None => Place::Instance(default_instance()?),
        };
        let system = |what: &str| {
            let what = what.to_owned();
            |source| ConnectError::System { what, source }
        };
        let control = EventFd::new().map_err(system("making an eventfd"))?;
        let creator = Creator::current().map_err(system("preparing to detect a fork"))?;
        let refusals =
            Accounting::new().map_err(system("making the memory that counts refused messages"))?;
        let core = Arc::new(Core::new(
            process,
            new_epoch(),
            creator,
            self.skin,
            control,
            refusals,
        ));
        let (report, outcome) = connecting::channel();
        let order = Order {
            place,
            tid: self.tid,
            limit: self.limit,
        };
        let session_thread = SessionThread::new(Arc::clone(&core), order, report)
            .map_err(system("preparing the session's thread"))?;
        let thread = spawn(session_thread).map_err(system("starting the session's thread"))?;
        // From here on a failure ends the thread, and dropping the session waits for that.
        let session = Session {
            core,
            thread: Some(thread),
            signals: Mutex::default(),
        };
        Ok(Connecting::new(session, outcome))
    }
}

/// Starts the thread with ordinary scheduling, and with all signals blocked from its first
/// instruction on.
fn spawn(session_thread: SessionThread) -> io::Result<JoinHandle<()>> {
    let mask = epoll::blocked_signals();
    epoll::block_signals(u64::MAX)?;
    let thread = std::thread::Builder::new()
        .name("rtd-session".to_owned())
        .spawn(move || {
            // It inherits the scheduling of the calling thread. If this fails, a real-time session
            // thread still works correctly.
            let _ = sched::set_ordinary();
            session_thread.live();
        });
    epoll::set_blocked_signals(mask)?;
    thread
}

fn taken(endpoint: &str, holder: Option<Holder>) -> ClaimError {
    // There is no holder for a moment while the channel moves to another inbox.
    let holder = holder.map_or_else(|| "another inbox".to_owned(), |holder| holder.to_string());
    ClaimError::Taken {
        endpoint: endpoint.to_owned(),
        holder,
    }
}

impl Session {
    /// Takes the name `process` at the default instance; see [`Builder`] for more.
    pub fn connect(process: &str) -> Result<Session, ConnectError> {
        Session::builder(process).connect()
    }

    /// Settings for a session under the name of this `[[process]]`.
    pub fn builder(process: &str) -> Builder {
        Builder {
            process: process.to_owned(),
            place: None,
            limit: LIMIT,
            tid: 0,
            skin: skin::posix(),
        }
    }

    /// Name of the process.
    pub fn process(&self) -> &str {
        self.core.process.as_str()
    }

    /// Current state of the connection.
    pub fn state(&self) -> State {
        if let Err(Forked { creator }) = self.core.check() {
            return State::Forked { creator };
        }
        self.core.table().state.clone()
    }

    /// Claims the sending end of an own endpoint.
    ///
    /// Errors: [`ClaimError`]; if the process may not send from the endpoint, the error has the
    /// rule.
    pub fn sender(&self, endpoint: &str) -> Result<Sender, ClaimError> {
        self.core.check()?;
        let mut table = self.core.table();
        let slot = table
            .senders
            .iter_mut()
            .find(|slot| slot.present && slot.channel.endpoint.as_str() == endpoint);
        let Some(slot) = slot else {
            drop(table);
            return Err(self.explain(endpoint));
        };
        match slot.handle.take() {
            Some(handle) => {
                slot.holder = Some(Holder::here("a sender"));
                Ok(Sender::new(Arc::clone(&self.core), handle))
            }
            None => Err(taken(endpoint, slot.holder)),
        }
    }

    /// Makes an inbox for all own lane endpoints that no other inbox has. It also takes endpoints
    /// that a later configuration adds, and the endpoints of another inbox when that one is
    /// dropped.
    pub fn inbox(&self) -> Result<Inbox, ClaimError> {
        self.core.check()?;
        self.make_inbox(Filter::Rest)
    }

    /// Makes an inbox for exactly these endpoints: all of them, or an error.
    ///
    /// Errors: [`ClaimError`], for the first endpoint that is unknown or held by another inbox,
    /// including one of [`Session::inbox`].
    pub fn inbox_of(&self, endpoints: &[&str]) -> Result<Inbox, ClaimError> {
        self.core.check()?;
        let mut names = Vec::with_capacity(endpoints.len());
        for endpoint in endpoints {
            names.push(Name::new(endpoint).map_err(|_| self.explain(endpoint))?);
        }
        self.make_inbox(Filter::Endpoints(names))
    }

    /// The session's dispatcher. It handles signals as [`Signals`] does, and messages to signal
    /// endpoints with a `msgsize`, whose payloads are in rings of this session. A session has one
    /// dispatcher. The first call starts it, with the scheduling of the calling thread, and it ends
    /// when the last reference is dropped. It can outlive the session: it then still passes on
    /// messages that have arrived, and plain signals.
    ///
    /// An endpoint with `target = "thread"` and no `msgsize` sends to the thread of
    /// [`Builder::tid`], never to the dispatcher.
    ///
    /// Errors: [`SignalsError::System`], [`SignalsError::Forked`].
    pub fn signals(&self) -> Result<Arc<Signals>, SignalsError> {
        self.core.check()?;
        let mut known = self.signals.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(signals) = known.upgrade() {
            return Ok(signals);
        }
        let signals = Arc::new(Signals::start_for(Some(Arc::clone(&self.core)))?);
        *known = Arc::downgrade(&signals);
        Ok(signals)
    }

    fn make_inbox(&self, filter: Filter) -> Result<Inbox, ClaimError> {
        match Inbox::open(&self.core, filter).map_err(|e| ClaimError::System(e.to_string()))? {
            Ok(inbox) => Ok(inbox),
            Err(Unclaimed::Absent(endpoint)) => Err(self.explain(endpoint.as_str())),
            Err(Unclaimed::Taken(endpoint, holder)) => Err(taken(endpoint.as_str(), holder)),
        }
    }

    /// Makes a caller that sends requests from one endpoint and receives the replies at another;
    /// see [`Caller`].
    ///
    /// Errors: as [`Session::sender`] and [`Session::inbox_of`].
    pub fn caller(&self, requests: &str, answers: &str) -> Result<Caller, ClaimError> {
        let sender = self.sender(requests)?;
        Ok(Caller::new(sender, self.inbox_of(&[answers])?))
    }

    /// The processes that this one exchanges messages with, as far as they are known. Empty in a
    /// forked child.
    pub fn peers(&self) -> Vec<PeerStatus> {
        if self.core.check().is_err() {
            return Vec::new();
        }
        self.core.table().peers.clone()
    }

    /// The channels of this process in the current configuration. Empty in a forked child.
    pub fn channels(&self) -> Vec<Channel> {
        if self.core.check().is_err() {
            return Vec::new();
        }
        let table = self.core.table();
        let handles = table
            .senders
            .iter()
            .filter(|slot| slot.present)
            .map(|slot| slot.channel);
        let lanes = table
            .receivers
            .iter()
            .filter(|slot| slot.present)
            .map(|slot| slot.channel);
        handles.chain(lanes).collect()
    }

    /// Returns a predicate for `Flags::only_from` and the like: whether a message or signal comes
    /// from the process of this name, also after that process has another pid. The answer is as
    /// reliable as [`Origin::verified`] says. It is always no for a process that this one exchanges
    /// no messages with.
    ///
    /// A message may be read long after it was sent. The answer is therefore also yes for the pid
    /// of a process of this name that has ended, or has left the name to the next one, until rtd
    /// reports another process with that pid; the last 8 pids of a name are remembered.
    ///
    /// A message can arrive before the session thread has read the notice about its sender. For a
    /// verified origin with a pid that the daemon has not reported yet, the call waits until the
    /// session thread has read everything that the daemon wrote, for at most a second.
    ///
    /// In a forked child the answer is no, because nobody reports the state of processes to it.
    pub fn is(&self, process: &str) -> impl Fn(&Origin) -> bool + Send + 'static + use<> {
        let core = Arc::clone(&self.core);
        let name = Name::new(process).ok().filter(|_| core.check().is_ok());
        let pids = name.map(|name| core.table().pids_of(name));
        move |origin| {
            let asked = origin.pid != 0 && core.check().is_ok();
            let Some(pids) = pids.as_ref().filter(|_| asked) else {
                return false;
            };
            if pids.has(origin.pid) {
                return true;
            }
            if origin.verified && !core.knows(origin.pid) {
                core.catch_up();
            }
            pids.has(origin.pid)
        }
    }

    /// Makes the calling thread a real-time one, below the ceiling of a lane; see
    /// [`RealTimeBuilder`].
    pub fn realtime(&self) -> RealTimeBuilder {
        RealTimeBuilder::new(self.channels(), Arc::clone(&self.core))
    }

    /// Asks the daemon why this session has no such endpoint.
    fn explain(&self, endpoint: &str) -> ClaimError {
        let endpoint = endpoint.to_owned();
        let Ok(name) = Name::new(&endpoint) else {
            let text = "a name is 1..=31 bytes of printable ASCII without blanks".to_owned();
            return ClaimError::Unknown { endpoint, text };
        };
        let (answer, answered) = mpsc::sync_channel(1);
        self.core.command(Command::Explain {
            endpoint: name,
            answer,
        });
        match answered.recv_timeout(LIMIT) {
            Ok(reply) if reply.status == Status::UnknownName => ClaimError::Unknown {
                endpoint,
                text: reply.text,
            },
            Ok(reply) => ClaimError::Denied {
                endpoint,
                process: self.core.process,
                rule: reply.text,
            },
            Err(_) => {
                let why = match self.state() {
                    State::Down(why) => why,
                    State::Up | State::Closed | State::Forked { .. } => {
                        "it does not answer".to_owned()
                    }
                };
                ClaimError::Away { endpoint, why }
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let thread = self.thread.take();
        if self.core.check().is_err() {
            // A forked child does not have this thread: it can neither join nor detach it.
            std::mem::forget(thread);
            return;
        }
        self.core.command(Command::Stop);
        if let Some(thread) = thread {
            // The thread panicked if this is an error, and the panic message is already written.
            let _ = thread.join();
        }
    }
}
