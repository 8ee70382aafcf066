//! The life of a session: its opening, its frames, its end.
//!
//! [`crate::sessions::state`] decides the consequences.

use super::policy::Refusal;
use super::registry::Claim;
use super::sessions::Pending;
use super::{Control, Lanes};
use crate::daemon::rings::{Begun, Carried, Made, Prepared, RingsError, SessionIdentity, Wanted};
use crate::plan::{ProcessId, RouteId};
use crate::sessions::event::{End, Event, Fate};
use rtcore::stats::Ledger;
use rtcore::sys::limits::shortage_hint;
use rtcore::sys::seqpacket::{Conn, Received};
use rtcore::wire::{FRAME_BYTES, Frame, FrameError, Name, Reply, Request, Status, pong};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Time limit for a client to map its rings.
const MAP_MAX: Duration = Duration::from_secs(5);

/// The parameters of a session's opening.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opening {
    pub name: Name,
    /// Thread for thread-directed signals.
    pub tid: i32,
    /// Whether its doorbells are semaphores.
    pub semaphores: bool,
    /// The session that it continues.
    pub resumes: u32,
    pub program: u32,
    /// The lane below which that thread runs, as its library declared.
    pub lane: Option<Name>,
}

/// A connection whose session opens when its rings are ready.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub slot: usize,
    pub token: u64,
    pub opening: Opening,
    pub process: ProcessId,
}

/// A session that must end because its process broke the protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub process: ProcessId,
    /// The registration; a later one is not affected.
    pub generation: u64,
    /// The reason, for the log.
    pub reason: String,
}

/// The result of reading a connection.
pub(super) enum ReceivedFrame {
    Nothing,
    Closed,
    Request(Request),
    Bad(FrameError),
}

/// Reads and checks one frame. Descriptors that come with it are dropped.
pub(super) fn recv_frame(conn: &Conn) -> ReceivedFrame {
    let mut frame = [0; FRAME_BYTES];
    let received = conn.receive(&mut frame);
    decode(&frame, received)
}

/// One frame of a session, and the descriptors that came with it.
pub(super) fn recv_frame_with(conn: &Conn, fds: &mut Vec<OwnedFd>) -> ReceivedFrame {
    let mut frame = [0; FRAME_BYTES];
    let received = conn.receive_with(&mut frame, fds);
    decode(&frame, received)
}

fn decode(frame: &Frame, received: io::Result<Received>) -> ReceivedFrame {
    let bytes = match received {
        Ok(Received::Nothing) => return ReceivedFrame::Nothing,
        Ok(Received::Closed) | Err(_) => return ReceivedFrame::Closed,
        Ok(Received::Packet(bytes)) => bytes,
    };
    match frame.get(..bytes).map(Request::decode) {
        Some(Ok(request)) => ReceivedFrame::Request(request),
        Some(Err(e)) => ReceivedFrame::Bad(e),
        None => ReceivedFrame::Bad(FrameError::Length(bytes)),
    }
}

impl<L: Lanes> Control<L> {
    /// Current number of sessions.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// The last ledgers of direct routes, which no lane thread reports: messages that wait in their
    /// rings are left to the next rtd.
    pub fn last_direct_ledgers(&mut self) -> Vec<(RouteId, Ledger)> {
        self.perform(Event::Stopped);
        self.sessions.rings.ledgers().collect()
    }

    /// Ordered memory is ready: opens the sessions that wait for it, and offers direct rings.
    pub(super) fn open_made(&mut self) {
        for made in self.sessions.rings.take_made() {
            match made {
                Made::Session(process, made) => self.open_session_made(process, made),
                Made::Direct(route, kept) => {
                    let ok = kept.is_ok();
                    self.warn(kept.err().flatten());
                    self.perform(Event::Made { route, ok });
                }
            }
        }
    }

    fn open_session_made(&mut self, process: ProcessId, made: Result<Prepared, RingsError>) {
        let at = self
            .waiting
            .iter()
            .position(|waiting| waiting.process == process);
        let waiting = at.map(|at| self.waiting.swap_remove(at));
        let waiting =
            waiting.filter(|waiting| self.clients.get(waiting.slot, waiting.token).is_some());
        let Some(Waiting {
            slot,
            token,
            opening,
            ..
        }) = waiting
        else {
            return self.sessions.rings.discard(made);
        };
        let opened = match made {
            Ok(made) => self.open(slot, token, opening, Some(made)),
            Err(e) => Err(e.into()),
        };
        if let Err(refusal) = opened {
            let reply = self.refused(refusal);
            self.reply(slot, token, &reply);
        }
    }

    /// Grants a name to the client for as long as its connection lasts. A refusal is its only
    /// reply; all other frames are sent during the opening. `made`: its rings, if they were made on
    /// another thread.
    pub(super) fn open(
        &mut self,
        slot: usize,
        token: u64,
        opening: Opening,
        made: Option<Prepared>,
    ) -> Result<(), Refusal> {
        let Opening {
            name,
            tid,
            semaphores,
            resumes,
            program,
            lane,
        } = opening;
        if self
            .waiting
            .iter()
            .any(|waiting| (waiting.slot, waiting.token) == (slot, token))
        {
            let text = format!(
                "{name}: the session of this connection is being made: wait for the answer"
            );
            return Err(Refusal::new(Status::BadFrame, text));
        }
        let Some(client) = self.clients.get(slot, token) else {
            return Ok(());
        };
        if client.exec_of.is_some() {
            let text = format!(
                "{name}: this connection announced an exec before: open a session on its own"
            );
            return Err(Refusal::new(Status::BadFrame, text));
        }
        let claim = Claim {
            name,
            pid: 0,
            tid,
            exec_follows: false,
            session: true,
            lane,
        };
        let mut all = Vec::new();
        let claimed = self.registry.claim(&self.epoll, client, claim, &mut all);
        let pidfd = client.pidfd.try_clone();
        self.carry_out(all);
        let candidate = claimed?;
        let process = candidate.process();
        // A client that waited for its rings was already counted.
        if made.is_none() {
            self.names.spend(process, name)?;
        }
        self.vacate(process)?;
        let failed = |e: std::io::Error| {
            Refusal::new(Status::Failed, format!("{name}: {e}{}", shortage_hint(&e)))
        };
        let pidfd = Arc::new(pidfd.map_err(failed)?);
        let wanted = Wanted {
            pid: candidate.pid(),
            semaphores,
            resumes,
        };
        if made.is_none() && self.takes_over(slot, token, opening, process) {
            return Ok(());
        }
        let Begun::Ready(prepared) = self.rings_for(process, wanted, made)? else {
            self.waiting.push(Waiting {
                slot,
                token,
                opening,
                process,
            });
            return Ok(());
        };
        let reply = self.registry.answer(&candidate);
        let (generation, pid, uid) = (reply.generation, candidate.pid(), candidate.ruid());
        let identity = SessionIdentity {
            generation,
            pid,
            uid,
            program,
            pidfd,
        };
        let Some(client) = self.clients.remove(&self.epoll, slot) else {
            return Ok(());
        };
        let until = Instant::now() + MAP_MAX;
        let (candidate, rings, continues) = (Some(candidate), Some(prepared), resumes != 0);
        let pending = Pending {
            candidate,
            identity,
            rings,
            reply,
            continues,
            until,
        };
        match self.sessions.admit(&self.epoll, process, client, pending) {
            Ok(()) => self.perform(Event::Admitted { process }),
            Err(e) => self.log.warning(format_args!(
                "{name}: session: {e}: raise fs.epoll.max_user_watches"
            )),
        }
        Ok(())
    }

    /// Ends the sessions whose clients have not mapped their rings in time.
    pub(super) fn end_unmapped(&mut self, now: Instant) {
        while let Some(process) = self.sessions.overdue(now) {
            let reason = format!(
                "it has not mapped its rings within {MAP_MAX:?}: a program that was stopped connects again by itself"
            );
            self.perform(Event::Ended {
                process,
                end: End::Unmapped(reason),
            });
        }
    }

    /// The rings of a session: those that were made for it, if it may still have them, otherwise
    /// new ones.
    fn rings_for(
        &mut self,
        process: ProcessId,
        wanted: Wanted,
        made: Option<Prepared>,
    ) -> Result<Begun, RingsError> {
        let begun = match made {
            Some(made) => match self.sessions.rings.check(process, wanted) {
                Ok(()) => Ok(Begun::Ready(made)),
                Err(e) => {
                    self.sessions.rings.discard(made);
                    Err(e)
                }
            },
            None => self.sessions.rings.begin(process, wanted),
        };
        begun.inspect_err(|e| {
            if let RingsError::Held(_) = e {
                self.lanes.session_waits(process);
            }
        })
    }

    /// Whether rings are being made for a connection that is closed now: they then go to this one.
    fn takes_over(
        &mut self,
        slot: usize,
        token: u64,
        opening: Opening,
        process: ProcessId,
    ) -> bool {
        let Some(at) = self
            .waiting
            .iter()
            .position(|waiting| waiting.process == process)
        else {
            return false;
        };
        let Waiting {
            slot: former,
            token: its,
            ..
        } = self.waiting[at];
        if self.clients.get(former, its).is_some() {
            return false;
        }
        self.waiting[at] = Waiting {
            slot,
            token,
            opening,
            process,
        };
        true
    }

    /// Ends the session of a holder that is gone; a holder that lives keeps its session.
    pub(super) fn vacate(&mut self, process: ProcessId) -> Result<(), Refusal> {
        // The end of its connection waits behind frames that nobody will answer.
        if self.sessions.was_left(process) {
            self.leave(process);
        }
        if !self.sessions.has(process) {
            return Ok(());
        }
        if self.sessions.is_opening(process) {
            let (name, _) = self.registry.holder(process);
            let text = format!("{name}: another session of this name is being opened: try again");
            return Err(Refusal::new(Status::Busy, text));
        }
        let (name, pid) = self.registry.holder(process);
        let text =
            format!("{name} is held by a session of the same pid {pid}: close that session first");
        Err(Refusal::new(Status::Held, text))
    }

    /// One frame of one session.
    pub(super) fn serve_session(&mut self, process: ProcessId, token: u64) {
        let Some(conn) = self.sessions.conn(process, token) else {
            return;
        };
        let mut fds = Vec::new();
        match recv_frame_with(conn, &mut fds) {
            ReceivedFrame::Nothing => {}
            ReceivedFrame::Closed => self.leave(process),
            ReceivedFrame::Request(request) => self.serve_request(process, request, &fds),
            ReceivedFrame::Bad(e) => self.end(process, End::BadFrame(e.to_string())),
        }
    }

    fn serve_request(&mut self, process: ProcessId, request: Request, fds: &[OwnedFd]) {
        match request {
            Request::Leave => self.end(process, End::Left),
            Request::Mapped { serial } => self.perform(Event::Mapped { process, serial }),
            Request::Refusals => {
                if let [memory] = fds {
                    let taken = self.sessions.rings.take_refusals(process, memory.as_fd());
                    self.warn(taken.err());
                }
            }
            Request::Carry {
                channel,
                pid,
                program,
            } => {
                let identity = self
                    .sessions
                    .pending(process)
                    .map(|pending| pending.identity.clone());
                if let [producer, consumer, page] = fds {
                    let memory = [producer, consumer, page].map(|fd| fd.as_fd());
                    let carried = Carried {
                        channel,
                        other: (pid, program),
                        identity,
                        memory,
                    };
                    let carried = self.sessions.rings.carry(process, carried);
                    self.warn(carried.err());
                }
            }
            Request::Ping => {
                self.reply_session(process, &Reply::plain(Status::Ok, pong(&self.instance)));
            }
            Request::Explain { endpoint } => {
                let explanation = self.sessions.rings.explain(process, endpoint.as_str());
                let reply = Reply::plain(explanation.status, explanation.text);
                self.reply_session(process, &reply);
            }
            Request::Open { .. }
            | Request::Register { .. }
            | Request::Unregister { .. }
            | Request::Flushed { .. } => {
                let text = "a session has one name: use another connection";
                self.end(process, End::BadFrame(text.to_owned()));
            }
        }
    }

    fn reply_session(&mut self, process: ProcessId, reply: &Reply) {
        if !self.sessions.reply(process, reply) {
            self.end(process, End::Unread);
        }
    }

    /// Ends a session.
    pub(super) fn end(&mut self, process: ProcessId, end: End) {
        self.perform(Event::Ended { process, end });
    }

    /// The connection of a session ended: the process has ended, is about to end, or has left.
    fn leave(&mut self, process: ProcessId) {
        // The registry does not know a session that is still opening.
        let is_known = !self.sessions.is_opening(process);
        let fate = if is_known {
            self.registry.fate(process)
        } else {
            Fate::Lives
        };
        self.end(process, End::HungUp(fate));
    }

    /// Ends a session whose process broke the protocol, unless it has ended already.
    pub fn end_violator(&mut self, violation: &Violation) {
        let Violation {
            process,
            generation,
            reason,
        } = violation;
        if self.sessions.is_of(*process, *generation) {
            self.end(*process, End::Violation(reason.clone()));
        }
    }
}

impl From<RingsError> for Refusal {
    fn from(e: RingsError) -> Refusal {
        let status = match e {
            RingsError::Busy(_)
            | RingsError::Held(_)
            | RingsError::Unread(_)
            | RingsError::Making(_) => Status::Busy,
            RingsError::Skin { .. } => Status::Denied,
            RingsError::Unlocked(_)
            | RingsError::NoRoom { .. }
            | RingsError::Doorbell(_)
            | RingsError::Io { .. } => Status::Failed,
        };
        Refusal::new(status, e.to_string())
    }
}
