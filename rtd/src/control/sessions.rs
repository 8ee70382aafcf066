//! The sessions: connections that last, each with the rings of its process.
//!
//! A session connection is no request connection: it may be silent for ever and gives way to nobody. There are as
//! many as processes in the plan at most. The daemon speaks first on it, and never waits: who does not read has as
//! many frames as [`SEND_BUFFER_BYTES`] hold, and is closed when they are full.
//!
//! Invariant: a process has a session exactly while its rings are attached; [`Sessions::changed`] takes both away, and
//! the registry's holder outlives both.

use super::Token;
use super::conns::Client;
use super::open::{ReceivedFrame, recv_frame};
use super::registry::{Candidate, Change};
use crate::daemon::rings::{
    Begun, Carried, Explanation, Outbox, Prepared, Rings, RingsError, SessionIdentity, Wanted,
};
use crate::plan::{Plan, ProcessId, RouteId};
use rtcore::lane::peer::PeerState;
use rtcore::ring::Handles;
use rtcore::stats::Ledger;
use rtcore::sys::epoll::Epoll;
use rtcore::sys::eventfd::EventFd;
use rtcore::sys::seqpacket::Conn;
use rtcore::wire::{Name, Notice, PeerStatus, Reply, Request};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

/// Room for what a session has not read: some hundred frames, all that is told at the opening of the largest.
const SEND_BUFFER_BYTES: usize = 1 << 20;
/// More than the buffer of a connection holds.
const LAST_FRAMES_MAX: usize = 4096;

/// One session.
#[derive(Debug)]
struct Session {
    /// None when it ended and its process is about to: then the death is waited for, which has a cause.
    conn: Option<Conn>,
    token: u64,
    generation: u64,
    /// By channel, what it was told last.
    reach: Vec<bool>,
    /// Until the client has mapped its rings.
    opening: Option<Pending>,
}

/// A session whose client has not mapped its rings yet. Neither the registry nor a lane knows of it.
#[derive(Debug)]
pub(super) struct Pending {
    pub candidate: Candidate,
    pub identity: SessionIdentity,
    /// It continues an earlier session of its process.
    pub continues: bool,
    /// When it is given up.
    pub until: Instant,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Sessions {
    rings: Rings,
    /// By process.
    table: Vec<Option<Session>>,
    /// By process: what there is to tell of it.
    known: Vec<PeerStatus>,
    uses: u32,
    evictions: Vec<Eviction>,
    /// Who can be reached may have changed.
    stale: bool,
}

/// A session that has to end though its process has not left it.
#[derive(Debug)]
pub(super) struct Eviction {
    pub process: ProcessId,
    pub why: Why,
}

/// Why.
#[derive(Debug)]
pub(super) enum Why {
    /// It does not read.
    Unread,
    /// It writes what no honest process writes.
    Lies(String),
}

impl Sessions {
    pub fn new(plan: &Plan, rings: Rings) -> io::Result<Sessions> {
        let known = plan.processes.iter().map(|process| {
            let name = Name::new(&process.name).map_err(io::Error::other)?;
            Ok(PeerStatus { process: name, state: PeerState::Unregistered, pid: 0, ending: None })
        });
        Ok(Sessions {
            rings,
            table: plan.processes.iter().map(|_| None).collect(),
            known: known.collect::<io::Result<_>>()?,
            uses: 0,
            evictions: Vec::new(),
            stale: false,
        })
    }

    pub fn len(&self) -> usize {
        self.table.iter().flatten().count()
    }

    /// The connection that `token` means, unless that session is over.
    pub fn conn(&self, process: ProcessId, token: u64) -> Option<&Conn> {
        let session = self.table.get(process)?.as_ref().filter(|session| session.token == token)?;
        session.conn.as_ref()
    }

    /// Whether a process that has ended had closed its session before. Reads what it sent, to no more than a bound: a
    /// child that has the connection too could send for ever.
    pub fn has_left(&self, process: ProcessId) -> bool {
        // One that is opening is of another process, which may live.
        let session =
            self.table.get(process).and_then(Option::as_ref).filter(|session| session.opening.is_none());
        let Some(conn) = session.and_then(|session| session.conn.as_ref()) else { return false };
        let mut frames = (0..LAST_FRAMES_MAX).map_while(|_| match recv_frame(conn) {
            ReceivedFrame::Request(request) => Some(request),
            ReceivedFrame::Nothing | ReceivedFrame::Closed | ReceivedFrame::Bad(_) => None,
        });
        frames.any(|request| request == Request::Leave)
    }

    pub fn has(&self, process: ProcessId) -> bool {
        self.table.get(process).is_some_and(Option::is_some)
    }

    /// Whether the process has one of this registration.
    pub fn is_of(&self, process: ProcessId, generation: u64) -> bool {
        let session = self.table.get(process).and_then(Option::as_ref);
        session.is_some_and(|session| session.opening.is_none() && session.generation == generation)
    }

    /// Whether the process has left it, and the news wait behind frames that were not read yet.
    pub fn was_left(&self, process: ProcessId) -> bool {
        let session = self.table.get(process).and_then(Option::as_ref);
        session.is_some_and(|session| session.conn.as_ref().is_none_or(Conn::is_hung_up))
    }

    /// Closes the connection and keeps the rest, until the process' death is told.
    pub fn await_death(&mut self, process: ProcessId) {
        if let Some(session) = self.table.get_mut(process).and_then(Option::as_mut) {
            session.conn = None;
        }
    }

    /// Rings for a process that may have a session; they are in use after [`Sessions::attach`] only.
    pub fn begin(&mut self, process: ProcessId, wanted: Wanted) -> Result<Begun, RingsError> {
        self.rings.begin(process, wanted)
    }

    /// Whether the process may have those that were made meanwhile.
    pub fn check(&mut self, process: ProcessId, wanted: Wanted) -> Result<(), RingsError> {
        self.rings.check(process, wanted)
    }

    /// Readable when rings that were ordered are made.
    pub fn made(&self) -> &EventFd {
        self.rings.made()
    }

    /// Those, by process.
    pub fn take_made(&mut self) -> Vec<(ProcessId, Result<Prepared, RingsError>)> {
        self.stale = true;
        self.rings.take_made()
    }

    /// Takes what nobody waits for any more.
    pub fn discard(&mut self, made: Result<Prepared, RingsError>) {
        self.rings.discard(made);
    }

    /// Gives the lanes the rings that they write, before they see the process alive; they read its rings when its partners
    /// know it ([`Sessions::changed`]).
    ///
    /// Errors: the client prevents it.
    pub fn attach(&mut self, process: ProcessId, identity: SessionIdentity) -> io::Result<()> {
        self.rings.attach(process, identity)
    }

    /// The client has mapped the rings of its session: what was kept for this moment. None if it means another ring.
    pub fn take_mapped(&mut self, process: ProcessId, serial: u32) -> Option<Pending> {
        let session = self.table[process].as_mut()?;
        if self.rings.awaits(process, serial) { session.opening.take() } else { None }
    }

    /// Whether the client of a session has not mapped its rings yet.
    pub fn is_opening(&self, process: ProcessId) -> bool {
        self.table[process].as_ref().is_some_and(|session| session.opening.is_some())
    }

    /// A session whose client has not mapped its rings in time, with its pid.
    pub fn overdue(&self, now: Instant) -> Option<(ProcessId, i32)> {
        let overdue = |session: &Session| {
            session
                .opening
                .as_ref()
                .filter(|pending| pending.until <= now)
                .map(|pending| pending.candidate.pid())
        };
        (0..).zip(&self.table).find_map(|(process, session)| Some((process, overdue(session.as_ref()?)?)))
    }

    /// Ends a session that the registry does not know of.
    pub fn drop_opening(&mut self, process: ProcessId) {
        self.table[process] = None;
        self.rings.close(process);
    }

    /// Makes a session of the connection and sends it its rings and all there is to know. When the client has mapped the
    /// rings, [`Sessions::take_mapped`], [`Sessions::attach`] and [`Sessions::ready`] follow.
    pub fn admit(
        &mut self,
        epoll: &Epoll,
        process: ProcessId,
        client: Client,
        reply: &Reply,
        prepared: Prepared,
        pending: Pending,
    ) -> io::Result<()> {
        self.uses = self.uses.wrapping_add(1);
        let token = Token::Session { process, uses: self.uses }.encode();
        let conn = client.conn;
        // Its kernel may grant less, which only the largest of sessions would notice.
        let _ = conn.set_send_buffer(SEND_BUFFER_BYTES);
        epoll.add(&conn, token)?;
        let attached = self.rings.hand_out(process, prepared);
        let reach = self.rings.channels(process).map(|channel| !channel.direct).collect();
        let (generation, opening) = (reply.generation, Some(pending));
        self.table[process] = Some(Session { conn: Some(conn), token, generation, reach, opening });
        self.send(process, &reply.encode(), &[attached.page.as_fd()]);
        let channels: Vec<_> = self.rings.channels(process).copied().collect();
        channels.into_iter().for_each(|channel| self.tell(process, &Notice::Channel(channel), &[]));
        for (notice, handles) in &attached.rings {
            self.tell(process, notice, &Handles::as_fds(handles));
        }
        let partners = self.rings.partners(process).iter().map(|partner| self.known[*partner]);
        let partners: Vec<_> = partners.filter(|news| news.state != PeerState::Unregistered).collect();
        partners.into_iter().for_each(|news| self.tell(process, &Notice::Peer(news), &[]));
        rtcore::fault_point!("after_rings_sent_before_map");
        self.tell(process, &Notice::Map { serial: attached.serial }, &[]);
        Ok(())
    }

    /// Lets the process of a new session send, when lanes see it alive: what it sends to itself would end as peer-dead
    /// before.
    pub fn ready(&mut self, process: ProcessId) {
        // Before Ready: nothing is sent in between that nobody would receive.
        self.update_reach(process);
        self.tell(process, &Notice::Ready, &[]);
        self.rings.connect();
        self.stale = true;
    }

    /// A process came or went: ends its session if it went, and tells whom it concerns.
    pub fn changed(&mut self, change: &Change) {
        let Change { process, state, pid, ending } = *change;
        if state != PeerState::Alive {
            self.table[process] = None;
            self.rings.close(process);
            rtcore::fault_point!("after_leave_before_partners_know");
        }
        let news = PeerStatus { state, pid: pid.unsigned_abs(), ending, ..self.known[process] };
        self.known[process] = news;
        self.stale = true;
        for partner in self.rings.partners(process).to_vec() {
            if state != PeerState::Alive {
                // First that nobody is there: whoever hears of the loss and sends again is refused.
                self.update_reach(partner);
            }
            self.tell(partner, &Notice::Peer(news), &[]);
        }
        if state == PeerState::Alive {
            // Only now: who receives its messages can tell from whom they are.
            self.rings.read_from(process);
        }
    }

    /// Sends what the rings have to tell, and what changed about who can be reached; answers what is for the log.
    pub fn flush(&mut self) -> Vec<String> {
        let Outbox { frames, warnings, violators } = self.rings.take_out();
        for frame in frames {
            let fds: Vec<BorrowedFd<'_>> = frame.fds.iter().map(AsFd::as_fd).collect();
            self.tell(frame.process, &frame.notice, &fds);
            rtcore::fault_point!("between_frames_of_direct_ring");
        }
        let violations =
            violators.into_iter().map(|(process, text)| Eviction { process, why: Why::Lies(text) });
        self.evictions.extend(violations);
        if std::mem::take(&mut self.stale) {
            (0..self.table.len()).for_each(|process| self.update_reach(process));
        }
        warnings
    }

    fn update_reach(&mut self, process: ProcessId) {
        let session = self.table[process].as_mut().filter(|session| session.opening.is_none());
        let Some(session) = session else { return };
        let mut news = Vec::new();
        for (channel, (number, told)) in (0..).zip(session.reach.iter_mut()).enumerate() {
            let reachable = self.rings.reach(process, channel, |process| self.known[process].state);
            if let Some(reachable) = reachable.filter(|reachable| reachable != told) {
                *told = reachable;
                news.push(Notice::Reach { channel: number, reachable });
            }
        }
        news.iter().for_each(|notice| self.tell(process, notice, &[]));
    }

    /// The next session that has to end.
    pub fn next_eviction(&mut self) -> Option<Eviction> {
        let has = |evictions: &Eviction| self.table.get(evictions.process).is_some_and(Option::is_some);
        let at = self.evictions.iter().position(has);
        let next = at.map(|at| self.evictions.swap_remove(at));
        // The others are over already.
        if next.is_none() {
            self.evictions.clear();
        }
        next
    }

    /// A client's half of a direct ring is mapped.
    pub fn mapped(&mut self, process: ProcessId, serial: u32) {
        self.rings.mapped(process, serial);
        self.stale = true;
    }

    /// The memory in which the client counts what its senders refuse.
    pub fn take_refusals(&mut self, process: ProcessId, fds: &[OwnedFd]) {
        if let [memory] = fds {
            self.rings.take_refusals(process, memory.as_fd());
        }
    }

    /// A direct ring of an earlier daemon.
    pub fn carry(&mut self, process: ProcessId, channel: u32, other: (u32, u32), fds: &[OwnedFd]) {
        let opening = self.table[process].as_ref().and_then(|session| session.opening.as_ref());
        let identity = opening.map(|pending| pending.identity.clone());
        if let [producer, consumer, page] = fds {
            let memory = [producer, consumer, page].map(AsFd::as_fd);
            self.rings.carry(process, Carried { channel, other, identity, memory });
        }
    }

    /// The daemon ends.
    pub fn leave_to_next(&mut self) {
        self.rings.leave_to_next();
    }

    pub fn explain(&self, process: ProcessId, endpoint: Name) -> Explanation {
        self.rings.explain(process, endpoint.as_str())
    }

    pub fn reply(&mut self, process: ProcessId, reply: &Reply) {
        self.send(process, &reply.encode(), &[]);
    }

    /// Routes whose lane thread has not taken its receivers' rings.
    pub fn tick(&mut self) -> Vec<RouteId> {
        self.stale = true;
        self.rings.tick()
    }

    /// The ledgers of direct routes.
    pub fn ledgers(&self) -> impl Iterator<Item = (RouteId, Ledger)> + '_ {
        self.rings.ledgers()
    }

    fn tell(&mut self, process: ProcessId, notice: &Notice, fds: &[BorrowedFd<'_>]) {
        self.send(process, &notice.encode(), fds);
    }

    fn send(&mut self, process: ProcessId, frame: &[u8], fds: &[BorrowedFd<'_>]) {
        let Some(session) = &self.table[process] else { return };
        let Some(conn) = &session.conn else { return };
        let sent = conn.send_with(frame, fds).unwrap_or_else(|e| {
            // Its end comes as an event of its own. After any other error it would miss a frame that its partner counts
            // on.
            matches!(e.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
        });
        if !sent && !self.evictions.iter().any(|evictions| evictions.process == process) {
            self.evictions.push(Eviction { process, why: Why::Unread });
        }
    }
}
