//! The life of a session: how it opens, what it may say, how it ends.
//!
//! Invariant: whatever changed in the registry has been told to the sessions ([`Control::settle`]) before the next
//! event is served.

use super::policy::Refusal;
use super::registry::{Claim, Ended};
use super::sessions::{Eviction, Pending, Why};
use super::{Control, Handler};
use crate::daemon::rings::{Begun, Prepared, RingsError, SessionIdentity, Wanted};
use crate::plan::{ProcessId, RouteId};
use rtcore::stats::Ledger;
use rtcore::sys::limits::shortage_hint;
use rtcore::sys::seqpacket::{Conn, Received};
use rtcore::wire::{FRAME_BYTES, Frame, FrameError, Name, Reply, Request, Status, pong};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a client may take to map its rings.
const MAP_MAX: Duration = Duration::from_secs(5);

/// What a session is asked for as.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opening {
    /// The name.
    pub name: Name,
    /// Thread for thread-directed signals.
    pub tid: i32,
    /// It is rung by semaphores.
    pub semaphores: bool,
    /// The session that it continues.
    pub resumes: u32,
    pub program: u32,
    /// The lane below which that thread runs, as its library says.
    pub lane: Option<Name>,
}

/// A connection whose session opens when its rings are made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub slot: usize,
    pub token: u64,
    pub opening: Opening,
    pub process: ProcessId,
}

/// A session that must end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Whose.
    pub process: ProcessId,
    /// Of which registration; a later one is left alone.
    pub generation: u64,
    /// For the log.
    pub reason: String,
}

/// What came on a connection.
pub(super) enum ReceivedFrame {
    Nothing,
    Closed,
    Request(Request),
    Bad(FrameError),
}

/// One frame, checked. Descriptors that come with it are dropped.
pub(super) fn recv_frame(conn: &Conn) -> ReceivedFrame {
    let mut frame = [0; FRAME_BYTES];
    let received = conn.receive(&mut frame);
    judge(&frame, received)
}

/// One frame of a session, and the descriptors that came with it.
pub(super) fn recv_frame_with(conn: &Conn, fds: &mut Vec<OwnedFd>) -> ReceivedFrame {
    let mut frame = [0; FRAME_BYTES];
    let received = conn.receive_with(&mut frame, fds);
    judge(&frame, received)
}

fn judge(frame: &Frame, received: io::Result<Received>) -> ReceivedFrame {
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

impl Control {
    /// Sessions at this moment.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// The last ledgers of direct routes, which no lane thread reports: what waits in their rings is left to the next rtd.
    pub fn last_direct_ledgers(&mut self) -> Vec<(RouteId, Ledger)> {
        self.sessions.leave_to_next();
        self.sessions.ledgers().collect()
    }

    /// Rings that were ordered are made: opens the sessions that wait for them.
    pub(super) fn open_made(&mut self, handler: &mut dyn Handler) {
        for (process, made) in self.sessions.take_made() {
            let at = self.waiting.iter().position(|waiting| waiting.process == process);
            let Some(Waiting { slot, token, opening, .. }) = at.map(|at| self.waiting.swap_remove(at)) else {
                self.sessions.discard(made);
                continue;
            };
            if self.clients.get(slot, token).is_none() {
                self.sessions.discard(made);
                continue;
            }
            let opened = match made {
                Ok(made) => self.open(slot, token, opening, Some(made), handler),
                Err(e) => Err(e.into()),
            };
            if let Err(refusal) = opened {
                let reply = self.refused(refusal);
                self.reply(slot, token, &reply, handler);
            }
        }
        self.settle(handler);
    }

    /// Grants a name to the client for as long as its connection lasts. A refusal is the only reply; everything
    /// else is sent on the way. `made`: its rings, if they were made on another thread.
    pub(super) fn open(
        &mut self,
        slot: usize,
        token: u64,
        opening: Opening,
        made: Option<Prepared>,
        handler: &mut dyn Handler,
    ) -> Result<(), Refusal> {
        let Opening { name, tid, semaphores, resumes, program, lane } = opening;
        if self.waiting.iter().any(|waiting| (waiting.slot, waiting.token) == (slot, token)) {
            let text = format!("{name}: the session of this connection is being made: wait for the answer");
            return Err(Refusal::new(Status::BadFrame, text));
        }
        let Some(client) = self.clients.get(slot, token) else { return Ok(()) };
        if client.exec_of.is_some() {
            let text = format!("{name}: this connection announced an exec before: open a session on its own");
            return Err(Refusal::new(Status::BadFrame, text));
        }
        let claim = Claim { name, pid: 0, tid, exec_follows: false, session: true, lane };
        let candidate = self.registry.claim(&self.epoll, client, claim, handler)?;
        let pidfd = client.pidfd.try_clone();
        let process = candidate.process();
        // One that waited for its rings has paid.
        if made.is_none() {
            self.names.spend(process, name)?;
        }
        self.vacate(process, handler)?;
        let failed =
            |e: std::io::Error| Refusal::new(Status::Failed, format!("{name}: {e}{}", shortage_hint(&e)));
        let pidfd = Arc::new(pidfd.map_err(failed)?);
        let wanted = Wanted { pid: candidate.pid(), semaphores, resumes };
        if made.is_none() && self.takes_over(slot, token, opening, process) {
            return Ok(());
        }
        let Begun::Ready(prepared) = self.rings_for(process, wanted, made, handler)? else {
            self.waiting.push(Waiting { slot, token, opening, process });
            return Ok(());
        };
        let reply = self.registry.answer(&candidate);
        let (generation, pid, uid) = (reply.generation, candidate.pid(), candidate.ruid());
        let identity = SessionIdentity { generation, pid, uid, program, pidfd };
        let Some(client) = self.clients.remove(&self.epoll, slot) else { return Ok(()) };
        let until = Instant::now() + MAP_MAX;
        let pending = Pending { candidate, identity, continues: resumes != 0, until };
        if let Err(e) = self.sessions.admit(&self.epoll, process, client, &reply, prepared, pending) {
            self.log.warning(format_args!("{name}: session: {e}: raise fs.epoll.max_user_watches"));
        }
        self.settle(handler);
        Ok(())
    }

    /// The client has mapped its rings: lanes get their ends, the process gets its name, and the session is open.
    ///
    /// The order matters. The registration is kept before anybody sees it. The lanes have their ends and the client has
    /// mapped its own before the process is alive, so what is delivered from then on is read, whatever becomes of rtd.
    fn put_in_force(&mut self, process: ProcessId, pending: Pending, handler: &mut dyn Handler) {
        let Pending { candidate, identity, continues, .. } = pending;
        let pid = candidate.pid();
        rtcore::fault_point!("after_mapped_before_attach", return self.give_up(process, pid, "fault point"));
        if let Err(e) = self.sessions.attach(process, identity) {
            self.counters.expelled += 1;
            return self.give_up(process, pid, &e.to_string());
        }
        rtcore::fault_point!("after_attach_before_kept");
        let reply = match self.registry.grant(&self.epoll, candidate) {
            Ok((reply, _)) => reply,
            Err(refusal) => return self.give_up(process, pid, &refusal.text),
        };
        self.keep();
        if let Err(refusal) = self.registry.announce(&self.epoll, process, handler) {
            return self.give_up(process, pid, &refusal.text);
        }
        rtcore::fault_point!("after_announce_before_ready");
        self.sessions.ready(process);
        self.settle_leftovers(process, pid, continues, handler);
        self.counters.sessions += 1;
        self.granted(process, &reply);
    }

    /// Ends a session that nobody has seen.
    fn give_up(&mut self, process: ProcessId, pid: i32, reason: &str) {
        let (name, _) = self.registry.holder(process);
        self.log.warning(format_args!("{name}: session of pid {pid} closed: {reason}"));
        self.sessions.drop_opening(process);
    }

    /// Ends the sessions whose clients have not mapped their rings in time.
    pub(super) fn end_unmapped(&mut self, now: Instant) {
        while let Some((process, pid)) = self.sessions.overdue(now) {
            let reason = format!(
                "it has not mapped its rings within {MAP_MAX:?}: a program that was stopped connects again by itself"
            );
            self.give_up(process, pid, &reason);
        }
    }

    /// The rings of a session: those that were made for it, if it may still have them, or new ones.
    fn rings_for(
        &mut self,
        process: ProcessId,
        wanted: Wanted,
        made: Option<Prepared>,
        handler: &mut dyn Handler,
    ) -> Result<Begun, RingsError> {
        let begun = match made {
            Some(made) => match self.sessions.check(process, wanted) {
                Ok(()) => Ok(Begun::Ready(made)),
                Err(e) => {
                    self.sessions.discard(Ok(made));
                    Err(e)
                }
            },
            None => self.sessions.begin(process, wanted),
        };
        begun.inspect_err(|e| {
            if let RingsError::Held(_) = e {
                handler.session_waits(process);
            }
        })
    }

    /// Whether rings are being made that were ordered for a connection which is closed by now: they are this one's then.
    fn takes_over(&mut self, slot: usize, token: u64, opening: Opening, process: ProcessId) -> bool {
        let Some(at) = self.waiting.iter().position(|waiting| waiting.process == process) else {
            return false;
        };
        let Waiting { slot: former, token: its, .. } = self.waiting[at];
        if self.clients.get(former, its).is_some() {
            return false;
        }
        self.waiting[at] = Waiting { slot, token, opening, process };
        true
    }

    /// Whoever had a session of that name and is gone has none any more; who lives keeps it.
    pub(super) fn vacate(&mut self, process: ProcessId, handler: &mut dyn Handler) -> Result<(), Refusal> {
        self.settle(handler);
        // Its end waits behind frames that nobody will answer.
        if self.sessions.was_left(process) {
            self.leave(process, handler);
            self.settle(handler);
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
        let text = format!("{name} is held by a session of the same pid {pid}: close that session first");
        Err(Refusal::new(Status::Held, text))
    }

    /// One frame of one session.
    pub(super) fn serve_session(&mut self, process: ProcessId, token: u64, handler: &mut dyn Handler) {
        let Some(conn) = self.sessions.conn(process, token) else { return };
        let mut fds = Vec::new();
        match recv_frame_with(conn, &mut fds) {
            ReceivedFrame::Nothing => {}
            ReceivedFrame::Closed => self.leave(process, handler),
            ReceivedFrame::Request(Request::Leave) => self.leave_in_order(process, handler),
            ReceivedFrame::Request(Request::Mapped { serial }) => {
                match self.sessions.take_mapped(process, serial) {
                    Some(pending) => self.put_in_force(process, pending, handler),
                    None => self.sessions.mapped(process, serial),
                }
            }
            ReceivedFrame::Request(Request::Refusals) => self.sessions.take_refusals(process, &fds),
            ReceivedFrame::Request(Request::Carry { channel, pid, program }) => {
                self.sessions.carry(process, channel, (pid, program), &fds);
            }
            ReceivedFrame::Request(Request::Ping) => {
                self.sessions.reply(process, &Reply::plain(Status::Ok, pong(&self.instance)));
            }
            ReceivedFrame::Request(Request::Explain { endpoint }) => {
                let explanation = self.sessions.explain(process, endpoint);
                self.sessions.reply(process, &Reply::plain(explanation.status, explanation.text));
            }
            ReceivedFrame::Request(
                Request::Open { .. }
                | Request::Register { .. }
                | Request::Unregister { .. }
                | Request::Flushed { .. },
            ) => self.bad_session(process, "a session has one name: use another connection", handler),
            ReceivedFrame::Bad(e) => self.bad_session(process, &e.to_string(), handler),
        }
        self.settle(handler);
    }

    fn bad_session(&mut self, process: ProcessId, text: &str, handler: &mut dyn Handler) {
        self.counters.bad_frames += 1;
        self.sessions.reply(process, &Reply::plain(Status::BadFrame, text));
        let (name, pid) = self.registry.holder(process);
        self.log.warning(format_args!("{name}: session of pid {pid} closed: {text}"));
        self.release(process, handler);
    }

    /// The connection of a session ended: the process is gone, going, or has left.
    fn leave(&mut self, process: ProcessId, handler: &mut dyn Handler) {
        if self.sessions.is_opening(process) {
            return self.sessions.drop_opening(process);
        }
        match self.registry.left(&self.epoll, process, handler) {
            Ended::Died(line) | Ended::Left(line) => self.log.info(format_args!("{line}")),
            Ended::Dying => self.sessions.await_death(process),
        }
    }

    /// The client has closed its session, and may have ended since.
    pub(super) fn leave_in_order(&mut self, process: ProcessId, handler: &mut dyn Handler) {
        if !self.sessions.is_opening(process) {
            let (name, pid) = self.registry.holder(process);
            self.log.info(format_args!("{name}: pid {pid} closed its session"));
        }
        self.release(process, handler);
    }

    fn release(&mut self, process: ProcessId, handler: &mut dyn Handler) {
        if self.sessions.is_opening(process) {
            return self.sessions.drop_opening(process);
        }
        self.registry.release(&self.epoll, process, handler);
    }

    /// Ends a session whose process broke the rules, unless it is over already.
    pub fn expel(&mut self, violation: &Violation, handler: &mut dyn Handler) {
        let Violation { process, generation, reason } = violation;
        if self.sessions.is_of(*process, *generation) {
            self.cast_out(*process, reason, handler);
        }
        self.settle(handler);
    }

    fn cast_out(&mut self, process: ProcessId, reason: &str, handler: &mut dyn Handler) {
        self.counters.expelled += 1;
        let (name, pid) = self.registry.holder(process);
        self.log.warning(format_args!("{name}: session of pid {pid} closed: {reason}"));
        self.release(process, handler);
    }

    /// Tells the sessions what has changed, until nothing changes any more: to tell one may end another. Ends, as
    /// each round ends a session. Then keeps what changed for the next start.
    pub(super) fn settle(&mut self, handler: &mut dyn Handler) {
        loop {
            for change in self.registry.take_changes() {
                self.sessions.changed(&change);
            }
            for note in self.registry.take_notes() {
                match note.is_warning {
                    true => self.log.warning(format_args!("{}", note.text)),
                    false => self.log.info(format_args!("{}", note.text)),
                }
            }
            for warning in self.sessions.flush() {
                self.log.warning(format_args!("{warning}"));
            }
            let Some(Eviction { process, why }) = self.sessions.next_eviction() else { return self.keep() };
            match why {
                Why::Lies(reason) => self.cast_out(process, &reason, handler),
                Why::Unread => {
                    self.counters.unread += 1;
                    let (name, pid) = self.registry.holder(process);
                    self.log.warning(format_args!("{name}: session of pid {pid} closed: it does not read"));
                    self.release(process, handler);
                }
            }
        }
    }
}

impl From<RingsError> for Refusal {
    fn from(e: RingsError) -> Refusal {
        let status = match e {
            RingsError::Busy(_) | RingsError::Held(_) | RingsError::Unread(_) | RingsError::Making(_) => {
                Status::Busy
            }
            RingsError::Skin { .. } => Status::Denied,
            RingsError::Unlocked(_)
            | RingsError::NoRoom { .. }
            | RingsError::Doorbell(_)
            | RingsError::Io { .. } => Status::Failed,
        };
        Refusal::new(status, e.to_string())
    }
}
