//! The control thread: registration, peer death, operator signals, housekeeping.
//!
//! One ordinary (SCHED_OTHER) thread with one readiness set. It never waits for a client: each
//! frame is read as a whole and answered without blocking, and a client that does not read its
//! answers is disconnected. Every resource is bounded: connections, sessions, frames and accepts
//! per turn, log lines per second.
//!
//! Invariant: in one turn deaths come first, then frames (of sessions, then of others), then new
//! connections. A name is therefore free before a client asks for it, and a frame that has arrived
//! is read before its connection can be closed in favour of another.

mod budget;
mod conns;
mod counters;
mod effects;
mod flushed;
mod kept;
mod leftovers;
mod open;
mod policy;
mod registry;
mod sessions;
mod token;

pub use conns::{CONNECTIONS_MAX, IDLE_MAX};
pub use counters::ControlCounters;
pub use kept::{path_beside as kept_beside, rewritten as kept_rewritten};
pub use open::Violation;

use crate::daemon::rings::{Rings, Ticked};
use crate::log;
use crate::plan::{EndpointId, Plan, ProcessId, RouteId};
use crate::sessions::event::{End, Event};
use budget::{LogBudget, NameBudget};
use conns::Clients;
use flushed::Queues;
use kept::Kept;
use leftovers::Leftovers;
use open::{Opening, ReceivedFrame, Waiting, recv_frame};
use policy::Refusal;
use registry::{Adopted, Claim, Registry};
use rtcore::lane::peer::{Peer, PeerState};
use rtcore::sys::epoll::{Epoll, StopSignal, StopSignals};
use rtcore::sys::limits::shortage_hint;
use rtcore::sys::memory;
use rtcore::sys::seqpacket::{Listener, is_shortage};
use rtcore::sys::timerfd::Timer;
use rtcore::wire::{Reply, Request, Status, pong};
use sessions::Sessions;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use token::Token;

/// Period of [`Lanes::tick`].
pub const TICK: Duration = Duration::from_millis(100);
/// Heap that each tick reserves for the control thread and the log until the next one.
const HEAP_RESERVE_BYTES: usize = 512 * 1024;
/// A connection is accepted only while this much of it is left: a session takes a few KiB; a
/// refusal and its log line take less.
const HEAP_FOR_CONNECTION_BYTES: usize = 128 * 1024;
/// Limit of the connections that one turn accepts; the others wait for the next turn, after the
/// frames.
const ACCEPTS_PER_TURN: usize = 16;

/// The lanes and the statistics page, as the control thread uses them: the running daemon, or a
/// test that records the calls.
pub trait Lanes {
    /// The process's [`Peer`] has this state now: writes the statistics page, and wakes the lane
    /// threads that hold messages for the process.
    fn show(&mut self, process: ProcessId, state: PeerState, pid: i32, uid: u32);
    /// The receptions of signals to a process changed, and its [`Peer`] shows this already: writes
    /// the statistics page, and wakes the lane threads that hold messages for the process.
    fn receptions_changed(&mut self, _process: ProcessId) {}
    /// The idle lane threads of these routes have not checked their receivers' rings since these
    /// changed: wakes them.
    fn rings_wait(&mut self, _routes: &[RouteId]) {}
    /// A session of this process can open after its lane threads have released the rings of the
    /// earlier session: wakes them.
    fn session_waits(&mut self, _process: ProcessId) {}
    /// This many messages were in the ring of this endpoint's owner when the last rtd stopped, and
    /// the owner, with this pid, has ended since.
    fn lost_with_sender(&mut self, _endpoint: EndpointId, _pid: i32, _messages: u64) {}
    /// Called every [`TICK`]: heartbeat, event log. Adds to `violations` the sessions that must end
    /// because of the data in their rings. `Stop` makes [`Control::run`] return.
    fn tick(&mut self, violations: &mut Vec<Violation>) -> Flow;
}

/// Whether the loop continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// The loop continues.
    Continue,
    /// The loop ends.
    Stop,
}

/// Why [`Control::run`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// SIGTERM or SIGINT.
    Signal(StopSignal),
    /// [`Lanes::tick`] returned `Stop`.
    Lanes,
    /// The deadline that was passed to [`Control::run`] has come.
    Deadline,
}

/// The control thread's state. Dropping it removes the socket.
#[derive(Debug)]
pub struct Control<L> {
    instance: String,
    epoll: Epoll,
    listener: Listener,
    /// False while descriptors are short: the listener is not in the set until the next tick.
    listening: bool,
    /// Why the socket, which was removed, cannot be recreated.
    socket_lost: Option<String>,
    signals: StopSignals,
    ticker: Timer,
    clients: Clients,
    registry: Registry,
    /// The part that outlives this process; none if no next start follows.
    kept: Option<Kept>,
    leftovers: Leftovers,
    sessions: Sessions,
    queues: Queues,
    /// Sessions whose rings are being made; at most one for each process.
    waiting: Vec<Waiting>,
    counters: ControlCounters,
    log: LogBudget,
    names: NameBudget,
    /// The lanes; dropped last.
    lanes: L,
}

impl<L: Lanes> Control<L> {
    /// Opens the socket. `peers` in plan order; `rings` after the lane threads took their halves;
    /// `signals` from [`StopSignals::block`], called before any thread was started.
    pub fn new(
        plan: &Plan,
        peers: Vec<Arc<Peer>>,
        rings: Rings,
        signals: StopSignals,
        lanes: L,
    ) -> io::Result<Control<L>> {
        memory::reserve_heap(HEAP_RESERVE_BYTES)?;
        let epoll = Epoll::new()?;
        let listener = Listener::bind(&plan.daemon.socket)?;
        let ticker = Timer::ticking(TICK)?;
        epoll.add(&listener, Token::Listener.encode())?;
        epoll.add(&signals, Token::Signals.encode())?;
        epoll.add(&ticker, Token::Ticker.encode())?;
        let sessions = Sessions::new(plan, rings)?;
        epoll.add(sessions.rings.made(), Token::Made.encode())?;
        Ok(Control {
            instance: plan.daemon.name.clone(),
            epoll,
            listener,
            listening: true,
            socket_lost: None,
            signals,
            ticker,
            clients: Clients::new(),
            registry: Registry::new(plan, peers)?,
            kept: Some(Kept::beside(&plan.daemon.socket)),
            leftovers: Leftovers::new(plan),
            sessions,
            queues: Queues::of(plan),
            waiting: Vec::new(),
            counters: ControlCounters::default(),
            log: LogBudget::new(Instant::now()),
            names: NameBudget::new(plan.processes.len()),
            lanes,
        })
    }

    /// The lanes that were passed to [`Control::new`].
    pub fn lanes(&mut self) -> &mut L {
        &mut self.lanes
    }

    /// Removes the socket, and returns the lanes.
    pub fn into_lanes(self) -> L {
        self.lanes
    }

    /// Takes over the registrations of the last life of the instance, after checking each of them,
    /// and logs the outcome. Call it before the lanes run, because messages that wait for these
    /// processes must find them.
    pub fn adopt(&mut self) {
        let (records, leftovers) = self.kept.as_ref().map(Kept::load).unwrap_or_default();
        let mut all = Vec::new();
        for record in records {
            match self.registry.adopt(&self.epoll, record, &mut all) {
                Adopted::Again(line) => line
                    .iter()
                    .for_each(|line| log::info(format_args!("{line}"))),
                Adopted::Not(line) => log::warning(format_args!("{line}")),
            }
        }
        self.adopt_leftovers(leftovers);
        // Only now: this writes the file again, and if rtd is killed meanwhile, the next start must
        // find all entries there.
        self.carry_out(all);
    }

    /// No next start follows: stores nothing for it, even if this process is killed. Call it before
    /// [`Control::adopt`].
    pub fn keep_none(&mut self) {
        if let Some(mut kept) = self.kept.take() {
            kept.store(&[], &[]);
        }
    }

    /// Stores changes for the next start.
    fn keep(&mut self) {
        let unkept = self.registry.take_unkept() | self.leftovers.take_unkept();
        if let Some(kept) = self.kept.as_mut().filter(|_| unkept) {
            kept.store(&self.registry.records(), self.leftovers.waiting());
        }
    }

    /// Serves until a signal, the lanes or the deadline ends it. It may be called again, for
    /// instance to serve with a deadline while the lanes drain. A second SIGTERM or SIGINT then
    /// returns again.
    pub fn run(&mut self, deadline: Option<Instant>) -> io::Result<Stop> {
        let mut tokens = Vec::with_capacity(rtcore::sys::epoll::EVENTS_MAX);
        loop {
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Ok(Stop::Deadline);
            }
            if let Some(stop) = self.turn(&mut tokens, left)? {
                return Ok(stop);
            }
        }
    }

    /// Waits once, for up to `left`, and serves what is ready then.
    fn turn(&mut self, tokens: &mut Vec<u64>, left: Option<Duration>) -> io::Result<Option<Stop>> {
        self.epoll.wait(tokens, left)?;
        self.counters.turns += 1;
        tokens.sort_by_key(|token| Token::decode(*token).map(Token::rank));
        let mut stop = None;
        for raw in tokens {
            match Token::decode(*raw) {
                Some(Token::Peer { process }) => self.peer_ended(process),
                Some(Token::Expected { process }) => self.expected_ended(process),
                Some(Token::Session { process, .. }) => self.serve_session(process, *raw),
                Some(Token::Client { slot, .. }) => self.serve(slot, *raw),
                Some(Token::Made) => self.open_made(),
                Some(Token::Listener) => self.accept(),
                Some(Token::Ticker) => stop = self.tick().or(stop),
                Some(Token::Signals) => stop = self.signal().or(stop),
                None => {}
            }
        }
        Ok(stop)
    }

    /// A copy of the counters.
    pub fn counters(&self) -> ControlCounters {
        ControlCounters {
            deaths: self.registry.deaths(),
            ..self.counters
        }
    }

    /// Connections at this moment.
    pub fn connections(&self) -> usize {
        self.clients.len()
    }

    fn peer_ended(&mut self, process: ProcessId) {
        if self.registry.has_ended(process) && self.sessions.has_left(process) {
            self.end(process, End::Left);
        }
        let all = self.registry.ended(&self.epoll, process);
        self.carry_out(all);
    }

    fn expected_ended(&mut self, process: ProcessId) {
        let all = self.registry.expected_ended(&self.epoll, process);
        self.carry_out(all);
    }

    /// One frame of one client.
    fn serve(&mut self, slot: usize, token: u64) {
        let Some(client) = self.clients.get(slot, token) else {
            return;
        };
        match recv_frame(&client.conn) {
            ReceivedFrame::Nothing => {}
            ReceivedFrame::Closed => self.close(slot),
            ReceivedFrame::Request(request) => {
                if let Some(reply) = self.answer(slot, token, request) {
                    self.reply(slot, token, &reply);
                }
            }
            ReceivedFrame::Bad(e) => {
                self.counters.bad_frames += 1;
                self.reply(slot, token, &Reply::plain(Status::BadFrame, e.to_string()));
                self.close(slot);
            }
        }
    }

    fn reply(&mut self, slot: usize, token: u64, reply: &Reply) {
        let Some(client) = self.clients.get(slot, token) else {
            return;
        };
        if !client.conn.send(&reply.encode()).unwrap_or(false) {
            self.counters.unread += 1;
            self.close(slot);
        }
    }

    /// The reply; none if it was sent already.
    fn answer(&mut self, slot: usize, token: u64, request: Request) -> Option<Reply> {
        let client = self.clients.get(slot, token)?;
        client.note_activity(Instant::now());
        let result = match request {
            Request::Ping => Ok(Some(Reply::plain(Status::Ok, pong(&self.instance)))),
            Request::Mapped { .. }
            | Request::Explain { .. }
            | Request::Leave
            | Request::Refusals
            | Request::Carry { .. } => Err(Refusal::new(
                Status::BadFrame,
                "this connection has no session: send Open first",
            )),
            Request::Open {
                name,
                tid,
                semaphores,
                resumes,
                program,
                lane,
            } => self
                .open(
                    slot,
                    token,
                    Opening {
                        name,
                        tid,
                        semaphores,
                        resumes,
                        program,
                        lane,
                    },
                    None,
                )
                .map(|()| None),
            Request::Unregister { name } => self
                .registry
                .unregister(&self.epoll, client, name)
                .map(|(reply, all)| {
                    self.carry_out(all);
                    Some(reply)
                }),
            Request::Flushed { endpoint, messages } => self
                .queues
                .flushed(&client.cred, endpoint, messages)
                .map(|line| {
                    self.log.warning(format_args!("{line}"));
                    Some(Reply::plain(Status::Ok, ""))
                }),
            Request::Register {
                name,
                pid,
                tid,
                exec_follows,
            } => self
                .register(
                    slot,
                    token,
                    Claim {
                        name,
                        pid,
                        tid,
                        exec_follows,
                        session: false,
                        lane: None,
                    },
                )
                .map(Some),
        };
        result.unwrap_or_else(|refusal| Some(self.refused(refusal)))
    }

    fn refused(&mut self, refusal: Refusal) -> Reply {
        self.counters.refused += 1;
        self.log.warning(format_args!("refused: {}", refusal.text));
        Reply::plain(refusal.status, refusal.text)
    }

    /// Grants a name that stays after the connection ends.
    fn register(&mut self, slot: usize, token: u64, claim: Claim) -> Result<Reply, Refusal> {
        let gone = || Refusal::new(Status::Failed, "the connection is closed");
        let client = self.clients.get(slot, token).ok_or_else(gone)?;
        let name = claim.name;
        let mut all = Vec::new();
        let claimed = self.registry.claim(&self.epoll, client, claim, &mut all);
        self.carry_out(all);
        let candidate = claimed?;
        let process = candidate.process();
        self.names.spend(process, name)?;
        self.vacate(process)?;
        let (reply, exec_of) = self.registry.grant(&self.epoll, candidate)?;
        // Stored before anybody can see it: a client that has seen it may rely on its outliving
        // rtd.
        self.keep();
        if reply.status != Status::Pending {
            let (all, announced) = self.registry.announce(&self.epoll, process);
            self.carry_out(all);
            announced?;
        }
        if let Some(client) = self.clients.get(slot, token) {
            client.exec_of = exec_of.or(client.exec_of);
        }
        self.granted(process, &reply);
        Ok(reply)
    }

    fn granted(&mut self, process: ProcessId, reply: &Reply) {
        self.clients.forget_older(process, reply.generation);
        self.counters.registrations += 1;
        let pending = if reply.status == Status::Pending {
            ", until its exec pending"
        } else {
            ""
        };
        self.log.info(format_args!(
            "{} (generation {}{pending})",
            reply.text, reply.generation
        ));
    }

    /// Closes a connection; if it announced an exec(2), this shows that it happened.
    fn close(&mut self, slot: usize) {
        if let Some(exec_of) = self
            .clients
            .remove(&self.epoll, slot)
            .and_then(|client| client.exec_of)
        {
            let all = self.registry.exec_done(&self.epoll, exec_of);
            self.carry_out(all);
        }
    }

    fn accept(&mut self) {
        for _ in 0..ACCEPTS_PER_TURN {
            let accepted = memory::reserve_heap(HEAP_FOR_CONNECTION_BYTES)
                .and_then(|()| self.listener.accept());
            let result = match accepted {
                Ok(None) => return,
                Ok(Some(conn)) => {
                    self.counters.accepted += 1;
                    self.clients.insert(&self.epoll, conn, Instant::now())
                }
                Err(e) => Err(e),
            };
            match result {
                Ok(gave_way) => self.counters.evicted += u64::from(gave_way),
                Err(e) if is_shortage(&e) => return self.pause(&e),
                // The client is gone already.
                Err(_) => {}
            }
        }
    }

    /// Descriptors or memory are short: the listener would stay ready, and the loop would spin.
    /// Closes an idle client's connection, and the next tick tries again.
    fn pause(&mut self, e: &io::Error) {
        self.counters.shortages += 1;
        let path = self.listener.path().display();
        self.log.warning(format_args!(
            "{path}: a connection must wait: {e}{}",
            shortage_hint(e)
        ));
        if self.clients.evict(&self.epoll, None) {
            self.counters.evicted += 1;
        }
        if self.listening && self.epoll.remove(&self.listener).is_ok() {
            self.listening = false;
        }
    }

    fn tick(&mut self) -> Option<Stop> {
        self.ticker.take();
        let now = Instant::now();
        // If this fails, the remaining memory serves the connected clients: see `accept`.
        let _ = memory::reserve_heap(HEAP_RESERVE_BYTES);
        // Before the file is written, because this recreates a directory that somebody removed.
        self.restore_socket();
        if self
            .kept
            .as_mut()
            .is_some_and(|kept| kept.was_removed() || kept.is_due(now))
        {
            self.registry.keep_again();
        }
        let all = self.registry.tick(&self.epoll);
        self.carry_out(all);
        self.count_leftovers();
        for (shown, line) in self.registry.end_rejoin(&self.epoll, now) {
            self.carry_out(vec![shown]);
            log::warning(format_args!("{line}"));
        }
        if !self.listening {
            self.listening = self
                .epoll
                .add(&self.listener, Token::Listener.encode())
                .is_ok();
        }
        for Waiting { slot, token, .. } in &self.waiting {
            if let Some(client) = self.clients.get(*slot, *token) {
                // The client waits for rtd's answer.
                client.note_activity(now);
            }
        }
        for slot in self.clients.idle(now) {
            self.counters.idle += 1;
            self.close(slot);
        }
        self.end_unmapped(now);
        self.tick_rings();
        let mut violations = Vec::new();
        let flow = self.lanes.tick(&mut violations);
        for violation in &violations {
            self.end_violator(violation);
        }
        self.keep();
        let counters = self.counters();
        self.log.refill(now, &counters);
        (flow == Flow::Stop).then_some(Stop::Lanes)
    }

    fn tick_rings(&mut self) {
        let Ticked {
            waits,
            broken,
            warnings,
        } = self.sessions.rings.tick();
        self.warn(warnings);
        for route in broken {
            self.perform(Event::Broken { route });
        }
        if !waits.is_empty() {
            self.lanes.rings_wait(&waits);
        }
        self.perform(Event::Tick);
    }

    /// Recreates a socket whose name was removed while rtd runs.
    fn restore_socket(&mut self) {
        if self.listener.is_current() {
            self.socket_lost = None;
            return;
        }
        let path = self.listener.path().to_owned();
        let shown = path.display();
        match Listener::bind(&path) {
            Ok(listener) => {
                // Clients that connected before wait at the old one.
                self.accept();
                if self.listening {
                    let _ = self.epoll.remove(&self.listener);
                }
                self.listener = listener;
                // If this fails, the tick tries again.
                self.listening = self
                    .epoll
                    .add(&self.listener, Token::Listener.encode())
                    .is_ok();
                log::error(format_args!(
                    "control socket {shown} was removed while rtd uses it; rtd listens there again"
                ));
            }
            Err(e) => {
                let why = e.to_string();
                if self.socket_lost.as_ref() != Some(&why) {
                    log::error(format_args!(
                        "control socket {shown} was removed while rtd uses it and cannot be \
                         recreated: {why}"
                    ));
                    self.socket_lost = Some(why);
                }
            }
        }
    }

    fn signal(&mut self) -> Option<Stop> {
        while let Some(signal) = self.signals.take() {
            if signal != StopSignal::HangUp {
                return Some(Stop::Signal(signal));
            }
            log::warning(format_args!(
                "SIGHUP: rtd reads its configuration only when it starts: restart rtd to apply a change"
            ));
        }
        None
    }
}

#[cfg(test)]
mod tests;
