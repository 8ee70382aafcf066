//! The sessions: connections that last, each with the rings of its process.
//!
//! A session connection differs from a request connection: it may be silent without a limit, and is
//! not closed in favour of others. There are at most as many as processes in the plan. The daemon
//! sends on it first, and never waits: frames for a client that does not read fill
//! [`SEND_BUFFER_BYTES`], and when these are full, the connection is closed.
//!
//! [`crate::sessions::state`] decides the fate of a session; this module has the connections, and
//! the data of sessions that are not open yet.
//!
//! Invariant: a process has an entry here exactly while its phase is not `Closed`; the registry's
//! holder outlives both.

use super::Token;
use super::conns::Client;
use super::open::{ReceivedFrame, recv_frame};
use super::registry::Candidate;
use crate::daemon::rings::{Outgoing, Prepared, Rings, SessionIdentity};
use crate::plan::{Plan, ProcessId};
use crate::sessions::event::{Effect, Event, Message};
use crate::sessions::state::{Phase, State, Topology};
use rtcore::ring::Handles;
use rtcore::sys::epoll::Epoll;
use rtcore::sys::seqpacket::Conn;
use rtcore::wire::{Name, Notice, PeerStatus, Reply, Request};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

/// Room for frames that a session has not read: some hundred frames, as many as the largest session
/// gets at its opening.
const SEND_BUFFER_BYTES: usize = 1 << 20;
/// More than the buffer of a connection holds.
const LAST_FRAMES_MAX: usize = 4096;

#[derive(Debug)]
struct Session {
    /// None if it ended and its process is about to end.
    conn: Option<Conn>,
    token: u64,
    generation: u64,
    /// Present until the session is open.
    pending: Option<Pending>,
}

/// The data of a session that is not open yet.
#[derive(Debug)]
pub(super) struct Pending {
    /// Present until it gets the name.
    pub candidate: Option<Candidate>,
    pub identity: SessionIdentity,
    /// Present until they were sent.
    pub rings: Option<Prepared>,
    /// The reply to its request.
    pub reply: Reply,
    /// It continues an earlier session of its process.
    pub continues: bool,
    /// The time limit for its client to map its rings.
    pub until: Instant,
}

/// All sessions.
#[derive(Debug)]
pub(super) struct Sessions {
    pub rings: Rings,
    topology: Topology,
    state: State,
    /// Indexed by process.
    table: Vec<Option<Session>>,
    /// Indexed by process.
    names: Vec<Name>,
    uses: u32,
}

impl Sessions {
    pub fn new(plan: &Plan, rings: Rings) -> io::Result<Sessions> {
        let names = plan
            .processes
            .iter()
            .map(|process| Name::new(&process.name).map_err(io::Error::other));
        let topology = rings.topology();
        Ok(Sessions {
            rings,
            state: topology.start(),
            topology,
            table: plan.processes.iter().map(|_| None).collect(),
            names: names.collect::<io::Result<_>>()?,
            uses: 0,
        })
    }

    /// The effects of an event.
    pub fn step(&mut self, event: Event) -> Vec<Effect> {
        self.topology.step(&mut self.state, event)
    }

    pub fn len(&self) -> usize {
        self.table.iter().flatten().count()
    }

    fn get(&self, process: ProcessId) -> Option<&Session> {
        self.table.get(process)?.as_ref()
    }

    /// The connection of `token`, unless that session is over.
    pub fn conn(&self, process: ProcessId, token: u64) -> Option<&Conn> {
        self.get(process)
            .filter(|session| session.token == token)?
            .conn
            .as_ref()
    }

    /// Whether a process that has ended had closed its session before. Reads a bounded number of
    /// its frames: a child that has the connection too could send without end.
    pub fn has_left(&self, process: ProcessId) -> bool {
        // A session that is opening belongs to another process, which may live.
        let session = self.get(process).filter(|_| !self.is_opening(process));
        let Some(conn) = session.and_then(|session| session.conn.as_ref()) else {
            return false;
        };
        let mut frames = (0..LAST_FRAMES_MAX).map_while(|_| match recv_frame(conn) {
            ReceivedFrame::Request(request) => Some(request),
            ReceivedFrame::Nothing | ReceivedFrame::Closed | ReceivedFrame::Bad(_) => None,
        });
        frames.any(|request| request == Request::Leave)
    }

    pub fn has(&self, process: ProcessId) -> bool {
        self.state.phase(process) != Phase::Closed
    }

    /// Whether the process has a session of this registration.
    pub fn is_of(&self, process: ProcessId, generation: u64) -> bool {
        self.state.is_in_force(process)
            && self
                .get(process)
                .is_some_and(|session| session.generation == generation)
    }

    /// Whether the process has closed its session, which rtd has not noticed because of unread
    /// frames.
    pub fn was_left(&self, process: ProcessId) -> bool {
        self.get(process)
            .is_some_and(|session| session.conn.as_ref().is_none_or(Conn::is_hung_up))
    }

    /// Whether the client of a session has not mapped its rings yet.
    pub fn is_opening(&self, process: ProcessId) -> bool {
        self.state.is_opening(process)
    }

    /// A session whose client has not mapped its rings in time.
    pub fn overdue(&self, now: Instant) -> Option<ProcessId> {
        let is_overdue = |process: &ProcessId| {
            let pending = self
                .get(*process)
                .and_then(|session| session.pending.as_ref());
            self.is_opening(*process) && pending.is_some_and(|pending| pending.until <= now)
        };
        (0..self.table.len()).find(is_overdue)
    }

    /// The data of a session that is not open yet.
    pub fn pending(&mut self, process: ProcessId) -> Option<&mut Pending> {
        self.table.get_mut(process)?.as_mut()?.pending.as_mut()
    }

    /// Takes these data, because the session is open.
    pub fn take_pending(&mut self, process: ProcessId) -> Option<Pending> {
        self.table.get_mut(process)?.as_mut()?.pending.take()
    }

    /// Makes a session of the connection; [`Event::Admitted`] must follow.
    pub fn admit(
        &mut self,
        epoll: &Epoll,
        process: ProcessId,
        client: Client,
        pending: Pending,
    ) -> io::Result<()> {
        self.uses = self.uses.wrapping_add(1);
        let token = Token::Session {
            process,
            uses: self.uses,
        }
        .encode();
        let conn = client.conn;
        // The kernel may grant less, which only the largest sessions would notice.
        let _ = conn.set_send_buffer(SEND_BUFFER_BYTES);
        epoll.add(&conn, token)?;
        let generation = pending.reply.generation;
        self.table[process] = Some(Session {
            conn: Some(conn),
            token,
            generation,
            pending: Some(pending),
        });
        Ok(())
    }

    /// Sends the reply, the channels and the routed rings of a session that opens. False if the
    /// client does not read.
    pub fn introduce(&mut self, process: ProcessId, map: u32) -> bool {
        let Some(pending) = self.pending(process) else {
            return true;
        };
        let (Some(prepared), reply) = (pending.rings.take(), pending.reply.clone()) else {
            return true;
        };
        let attached = self.rings.hand_out(process, prepared, map);
        let mut sent = self.send(process, &reply.encode(), &[attached.page.as_fd()]);
        for channel in self.rings.channels(process) {
            sent &= self.send(process, &Notice::Channel(*channel).encode(), &[]);
        }
        for (notice, handles) in &attached.rings {
            sent &= self.send(process, &notice.encode(), &Handles::as_fds(handles));
        }
        sent
    }

    /// Sends a frame without descriptors. False if the session does not read.
    pub fn send_message(&self, to: ProcessId, message: Message) -> bool {
        let notice = match message {
            Message::Peer { of, status } => Notice::Peer(PeerStatus {
                process: self.names[of],
                state: status.state,
                pid: status.pid.unsigned_abs(),
                ending: status.ending,
            }),
            Message::Map { serial } => Notice::Map { serial },
            Message::Ready => Notice::Ready,
            Message::Reach { channel, reachable } => Notice::Reach { channel, reachable },
        };
        self.send(to, &notice.encode(), &[])
    }

    /// Sends a frame with descriptors. False if the session does not read.
    pub fn send_frame(&self, frame: &Outgoing) -> bool {
        let fds: Vec<BorrowedFd<'_>> = frame.fds.iter().map(AsFd::as_fd).collect();
        self.send(frame.process, &frame.notice.encode(), &fds)
    }

    pub fn reply(&self, process: ProcessId, reply: &Reply) -> bool {
        self.send(process, &reply.encode(), &[])
    }

    fn send(&self, process: ProcessId, frame: &[u8], fds: &[BorrowedFd<'_>]) -> bool {
        let Some(conn) = self.get(process).and_then(|session| session.conn.as_ref()) else {
            return true;
        };
        conn.send_with(frame, fds).unwrap_or_else(|e| {
            // The end of the connection comes as an event of its own. After any other error the
            // session would miss a frame that its partner depends on.
            matches!(
                e.kind(),
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
            )
        })
    }

    /// Closes the connection and keeps the other data.
    pub fn disconnect(&mut self, process: ProcessId) {
        if let Some(session) = self.table.get_mut(process).and_then(Option::as_mut) {
            session.conn = None;
        }
    }

    /// Closes the connection, and takes the rings back. Returns lines for the log.
    pub fn close(&mut self, process: ProcessId) -> Vec<String> {
        self.table[process] = None;
        self.rings.close(process)
    }
}
