//! The memory of direct rings, and the ledger of each direct route, which is computed from outside.
//! [`crate::sessions::state`] decides when a ring is made, offered to its two sessions and joined.
//!
//! Constraint: both ends are untrusted. Their indices are allegations; an impossible one ends the
//! ring, and for any values the sums here neither overflow nor lose their balance. Invariant: a
//! route has at most one ring in use, and at most [`OLD_MAX`] earlier ones of this daemon are still
//! watched. A ring outlives its daemon: its ends send it to the next one, which continues from the
//! ring's [`Receipt`]. Over all lives of rtd each message is therefore accounted for once.

use super::claims::{grows, since, sum};
use super::{Outgoing, SessionIdentity};
use crate::plan::ProcessId;
use crate::sessions::state::{RECEIVER, SENDER};
use rtcore::message::Reject;
use rtcore::refusals::{Counts, Refused};
use rtcore::ring::{Bells, Claims, Geometry, Handles, Indices, Receipt, Shared, Side, Watch};
use rtcore::stats::Ledger;
use rtcore::stats::cells::{ClaimsCell, RouteCell, Seen};
use rtcore::sys::clock;
use rtcore::sys::limits::shortage_hint;
use rtcore::sys::memfd::{self, Memory};
use rtcore::sys::pidfd::PidFd;
use rtcore::wire::Notice;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// Limit of a route's earlier rings that hold messages or may get some.
pub const OLD_MAX: usize = 16;
/// Limit of the watched rings of earlier daemons: as many as the library at one of their ends
/// remembers.
const CARRIED_MAX: usize = 64;
/// Limit of a ring's progress between two reads: at ten million messages a second this is a day.
const STEP_MAX: u64 = 1 << 40;
const SIDES: [Side; 2] = [Side::Producer, Side::Consumer];

/// One end of the route.
#[derive(Clone, Copy, Debug)]
pub struct End {
    pub process: ProcessId,
    /// The channel's number in its session.
    pub channel: u32,
}

/// A direct route.
#[derive(Debug)]
pub struct DirectRoute {
    name: String,
    geometry: Geometry,
    /// The sender and the receiver, in this order.
    ends: [End; 2],
    current: Option<Ring>,
    old: Vec<Ring>,
    /// Outcomes of the messages of rings that are gone.
    settled: Ledger,
    cells: Option<(RouteCell, ClaimsCell)>,
    /// Reports of receivers of rings that are gone.
    reported: Claims,
    /// Nobody sleeps here: reading a ring needs no bell, but mapping one does.
    no_bells: Bells,
    is_failure_reported: bool,
    /// This daemon ends: messages that wait in the rings belong to the next one.
    left_to_next: bool,
    /// Memory from another thread, for the next ring.
    blank: Option<Blank>,
    /// For each end: a frame that is ready to be sent.
    frames: [Option<Outgoing>; 2],
}

/// Why the memory of a ring is not sealed.
#[derive(Debug)]
pub enum SealError {
    /// The process at this end has sealed it against the daemon.
    Sealed(ProcessId, String),
    /// A system call failed, with a line to log, once.
    Failed(Option<String>),
}

/// The memory of a ring, to be made.
#[derive(Debug)]
pub(super) struct Draft {
    name: String,
    geometry: Geometry,
    no_bells: Bells,
}

/// The memory of an unused ring.
#[derive(Debug)]
pub(super) struct Blank {
    shared: Shared,
    page: Memory,
    watch: Watch,
    receipt: Receipt,
    id: RingId,
}

impl Draft {
    /// Makes the memory; callable on any thread.
    pub fn make(self) -> io::Result<Blank> {
        let shared = Shared::create(&format!("rtd:{}", self.name), self.geometry)?;
        let page = Memory::new(&format!("rtd-bells:{}", self.name), Receipt::PAGE_BYTES)?;
        let watch = shared.watch(&self.no_bells)?;
        let receipt = Receipt::new(page.map_writable()?)?;
        let id = memfd::identity(shared.written_by(Side::Producer)?.as_fd())?;
        Ok(Blank {
            shared,
            page,
            watch,
            receipt,
            id,
        })
    }
}

#[derive(Debug)]
struct Ring {
    id: RingId,
    /// Present until it is sealed.
    setup: Option<Shared>,
    watch: Watch,
    seen: Indices,
    receipt: Receipt,
    /// Messages taken, and messages left and lost, that an earlier daemon has accounted for.
    before: (u64, u64),
    /// An earlier daemon made it.
    carried: bool,
    claims: Claims,
    /// The part of the claims that the receiver had reported before this daemon's first read.
    claims_before: Claims,
    latencies: Seen,
    pidfds: [Arc<PidFd>; 2],
    /// The processes at its ends, and their programs.
    programs: [(i32, u32); 2],
    /// The process at that end has ended, or runs another program.
    dead: [bool; 2],
}

/// Device and inode of a ring's producer's memory.
type RingId = (u64, u64);

/// A ring of an earlier daemon, from one of its ends.
#[derive(Debug)]
pub(super) struct Handover<'a> {
    pub side: Side,
    pub from: SessionIdentity,
    /// The process at the other end, and the program that it runs.
    pub other: (u32, u32),
    /// The producer's memory, the consumer's, the bells.
    pub memory: [BorrowedFd<'a>; 3],
}

impl DirectRoute {
    /// Makes a route without a ring.
    pub fn new(name: &str, geometry: Geometry, ends: [End; 2]) -> DirectRoute {
        DirectRoute {
            name: name.to_owned(),
            geometry,
            ends,
            current: None,
            old: Vec::new(),
            settled: Ledger::default(),
            cells: None,
            reported: Claims::default(),
            no_bells: Bells::local(),
            is_failure_reported: false,
            left_to_next: false,
            blank: None,
            frames: [None, None],
        }
    }

    /// Bytes of one ring.
    pub fn bytes(&self) -> u64 {
        self.geometry.bytes()
    }

    /// The parameters of a new ring.
    pub(super) fn draft(&self) -> Draft {
        Draft {
            name: self.name.clone(),
            geometry: self.geometry,
            no_bells: self.no_bells.clone(),
        }
    }

    /// Sets the cells that show its ledger and its receiver's reports from now on.
    pub fn show(&mut self, cell: RouteCell, claims: ClaimsCell) {
        self.cells = Some((cell, claims));
    }

    /// Sender and receiver.
    pub fn processes(&self) -> [ProcessId; 2] {
        self.ends.map(|end| end.process)
    }

    /// Whether both ends may have the other's half of its ring.
    #[cfg(test)]
    pub fn is_joined(&self) -> bool {
        self.current
            .as_ref()
            .is_some_and(|ring| ring.setup.is_none())
    }

    /// Whether the process may not get one more ring to send into, because the receiver has not
    /// read the earlier ones.
    pub fn is_clogged(&self, process: ProcessId) -> bool {
        self.ends[SENDER].process == process && self.own_old() >= OLD_MAX
    }

    /// Number of earlier rings that this daemon made.
    fn own_old(&self) -> usize {
        self.old.iter().filter(|ring| !ring.carried).count()
    }

    /// Number of earlier rings that are still watched.
    #[cfg(test)]
    pub fn old_rings(&self) -> usize {
        self.old.len()
    }

    /// The route's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Stores memory from another thread. An error is a line to log.
    pub(super) fn keep(&mut self, blank: io::Result<Blank>) -> Result<(), Option<String>> {
        self.blank = Some(blank.map_err(|e| self.failed(&e))?);
        Ok(())
    }

    /// Takes the stored memory.
    pub(super) fn take_blank(&mut self) -> Option<Blank> {
        self.blank.take()
    }

    /// Makes a new ring for both sessions, which answer with these serials, and prepares its
    /// frames. An error is a line to log.
    pub(super) fn connect(
        &mut self,
        blank: io::Result<Blank>,
        identities: [&SessionIdentity; 2],
        serials: [u32; 2],
    ) -> Result<(), Option<String>> {
        self.frames = [None, None];
        let made = blank.and_then(|blank| self.set_up(blank, identities, serials));
        let (ring, frames) = made.map_err(|e| self.failed(&e))?;
        self.is_failure_reported = false;
        for old in &mut self.old {
            for (dead, (of, now)) in old
                .dead
                .iter_mut()
                .zip(old.programs.iter().zip(&ring.programs))
            {
                *dead |= of != now;
            }
        }
        (self.current, self.frames) = (Some(ring), frames.map(Some));
        Ok(())
    }

    fn set_up(
        &self,
        blank: Blank,
        identities: [&SessionIdentity; 2],
        serials: [u32; 2],
    ) -> io::Result<(Ring, [Outgoing; 2])> {
        let Blank {
            shared,
            page,
            watch,
            receipt,
            id,
        } = blank;
        let frame = |at: usize| {
            let side = SIDES[at];
            let (own, eventfd) = own_memory(shared.handles(side)?, side);
            let End { process, channel } = self.ends[at];
            let SessionIdentity {
                pid, uid, program, ..
            } = *identities[1 - at];
            let (serial, pid) = (serials[at], pid.unsigned_abs());
            let notice = Notice::Ring {
                channel,
                serial,
                pid,
                uid,
                program,
                semaphores: None,
            };
            let fds = vec![own, eventfd, page.as_fd().try_clone_to_owned()?];
            Ok::<_, io::Error>(Outgoing {
                process,
                notice,
                fds,
            })
        };
        let frames = [frame(SENDER)?, frame(RECEIVER)?];
        let pidfds = identities.map(|identity| Arc::clone(&identity.pidfd));
        let ring = Ring {
            id,
            setup: Some(shared),
            watch,
            seen: Indices::default(),
            receipt,
            before: (0, 0),
            carried: false,
            claims: Claims::default(),
            claims_before: Claims::default(),
            latencies: Seen::default(),
            pidfds,
            programs: identities.map(|identity| (identity.pid, identity.program)),
            dead: [false; 2],
        };
        Ok((ring, frames))
    }

    /// Both ends have mapped the memory that they write, and nobody else will. Prepares the frames
    /// that bring each end the other's memory.
    pub fn seal(&mut self, serials: [u32; 2]) -> Result<(), SealError> {
        let mut ring = self.current.take().ok_or(SealError::Failed(None))?;
        let shared = ring.setup.take().ok_or(SealError::Failed(None))?;
        for (end, side) in self.ends.iter().zip(SIDES) {
            if let Err(e) = shared.seal(side) {
                // The only possible reason is an end that has sealed it against the daemon.
                let text = format!("route {}: its memory cannot be sealed: {e}", self.name);
                return Err(SealError::Sealed(end.process, text));
            }
        }
        let frames = self
            .join_frames(&ring, &shared, serials)
            .map_err(|e| SealError::Failed(self.failed(&e)))?;
        (self.current, self.frames) = (Some(ring), frames.map(Some));
        Ok(())
    }

    fn join_frames(
        &self,
        ring: &Ring,
        shared: &Shared,
        serials: [u32; 2],
    ) -> io::Result<[Outgoing; 2]> {
        let frame = |at: usize| {
            let other = others_memory(shared.handles(SIDES[at])?, SIDES[at]);
            let End { process, channel } = self.ends[at];
            let pidfd = ring.pidfds[1 - at].as_fd().try_clone_to_owned()?;
            let notice = Notice::Join {
                channel,
                serial: serials[at],
            };
            Ok::<_, io::Error>(Outgoing {
                process,
                notice,
                fds: vec![other, pidfd],
            })
        };
        Ok([frame(SENDER)?, frame(RECEIVER)?])
    }

    /// The frame that is ready for an end.
    pub fn take_frame(&mut self, end: usize) -> Option<Outgoing> {
        self.frames[end].take()
    }

    /// A line to log: once until it works again. The attempt is repeated at every tick.
    pub(super) fn failed(&mut self, e: &io::Error) -> Option<String> {
        let is_known = std::mem::replace(&mut self.is_failure_reported, true);
        let text = || {
            format!(
                "route {}: no ring between its processes: {e}{}",
                self.name,
                shortage_hint(e)
            )
        };
        (!is_known).then(text)
    }

    /// One of the sessions is over, or its process has opened another: the current ring becomes an
    /// earlier one.
    pub fn part(&mut self) {
        self.frames = [None, None];
        // A ring that is not joined yet was never used.
        let Some(ring) = self.current.take().filter(|ring| ring.setup.is_none()) else {
            return;
        };
        if self.own_old() >= OLD_MAX {
            // This happens only if a receiver opens sessions again and again, while the sender
            // never closes (`is_clogged` refuses the sender): the oldest ring that nobody can read
            // any more is given up.
            let own = |ring: &Ring| !ring.carried;
            let dead = self
                .old
                .iter()
                .position(|ring| own(ring) && ring.dead[RECEIVER]);
            let at = dead.or_else(|| self.old.iter().position(own)).unwrap_or(0);
            let ring = self.old.remove(at);
            ring.settle(&mut self.settled, Rest::PeerDead);
            self.reported = sum(&self.reported, &ring.reported());
        }
        self.old.push(ring);
    }

    /// Reads the indices of the ends and shows the ledger. False if the current ring cannot be used
    /// any more.
    pub fn account(&mut self, warnings: &mut Vec<String>) -> bool {
        let (settled, reported) = (&mut self.settled, &mut self.reported);
        let mut cell = self.cells.as_mut().map(|(cell, _)| cell);
        let (mut violators, mut intact) = (0, true);
        self.old.retain_mut(|ring| match ring.poll() {
            true if ring.is_over() => {
                // Messages that the receiver refused because of the sender's data are counted as
                // rejected.
                let rest = if ring.seen.given_up {
                    Rest::Error
                } else {
                    Rest::PeerDead
                };
                ring.settle(settled, rest);
                // Once more, after the last message was taken.
                ring.report(cell.as_deref_mut());
                *reported = sum(reported, &ring.reported());
                false
            }
            true => true,
            false => {
                ring.settle(settled, Rest::Error);
                *reported = sum(reported, &ring.reported());
                violators += 1;
                false
            }
        });
        if let Some(ring) = self
            .current
            .take_if(|ring| ring.setup.is_none() && !ring.poll())
        {
            ring.settle(&mut self.settled, Rest::Error);
            self.reported = sum(&self.reported, &ring.reported());
            (violators, intact) = (violators + 1, false);
        }
        if violators > 0 {
            warnings.push(format!(
                "route {}: impossible indices in {violators} ring(s): one of its processes \
                 writes where it must not; the ring is replaced",
                self.name
            ));
        }
        self.show_reports();
        let ledger = self.ledger();
        if let Some((cell, _)) = &mut self.cells {
            cell.show_deliveries(0, ledger.delivered, clock::monotonic_ns());
            cell.publish(&ledger);
        }
        // Afterwards: if this daemon is killed in between, the next one counts a message twice
        // rather than not at all.
        for ring in self
            .current
            .iter()
            .filter(|ring| ring.setup.is_none())
            .chain(&self.old)
        {
            ring.confirm(ring.rest());
        }
        intact
    }

    /// Continues a ring that an earlier daemon made, unless the other end has sent it already. An
    /// error is a line to log.
    pub fn carry(&mut self, handover: Handover<'_>) -> Result<(), String> {
        // For example, the ring does not fit after a restart with another msgsize or maxmsg.
        let ring = self.carried_ring(handover).map_err(|e| {
            format!(
                "route {}: a ring from before this start is in use by its processes and not in the ledger: {e}",
                self.name
            )
        })?;
        if self.old.len() - self.own_old() < CARRIED_MAX {
            self.old.extend(ring);
        }
        Ok(())
    }

    /// None if the ring is already known.
    fn carried_ring(&mut self, handover: Handover<'_>) -> io::Result<Option<Ring>> {
        let Handover {
            side,
            from,
            other: (other, program),
            memory: [producer, consumer, page],
        } = handover;
        let (own, from) = ((from.pid, from.program), from.pidfd);
        let watch = Watch::of_stranger(self.geometry, &self.no_bells, producer, consumer)?;
        let (receipt, id) = (Receipt::of_stranger(page)?, memfd::identity(producer)?);
        let at = if side == Side::Producer {
            SENDER
        } else {
            RECEIVER
        };
        if let Some(known) = self
            .current
            .iter_mut()
            .chain(&mut self.old)
            .find(|ring| ring.id == id)
        {
            if known.carried {
                (known.pidfds[at], known.dead[at]) = (from, false);
            }
            return Ok(None);
        }
        // A pid that another process has by now would only keep the ring from ending in the ledger.
        let pid = i32::try_from(other).unwrap_or(0);
        let other = PidFd::open(pid).ok();
        let mut programs = [(pid, program); 2];
        programs[at] = own;
        let mut dead = [false; 2];
        dead[1 - at] = other.is_none();
        let mut pidfds = [Arc::clone(&from), from];
        if let Some(other) = other {
            pidfds[1 - at] = Arc::new(other);
        }
        let (before, claims) = (receipt.read(), watch.claims().unwrap_or_default());
        let latencies = watch.latencies().map(Seen::of).unwrap_or_default();
        let (seen, setup, carried) = (Indices::default(), None, true);
        let mut ring = Ring {
            programs,
            id,
            setup,
            watch,
            seen,
            receipt,
            before,
            carried,
            claims,
            claims_before: claims,
            latencies,
            pidfds,
            dead,
        };
        if !ring.poll() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "its indices are impossible",
            ));
        }
        Ok(Some(ring))
    }

    /// This daemon ends. Messages that wait in the rings do not count as accepted in its ledger:
    /// both ends continue, and the next daemon accepts them.
    pub fn leave_to_next(&mut self, warnings: &mut Vec<String>) {
        self.left_to_next = true;
        self.account(warnings);
    }

    /// Adds messages that the sender's library has refused.
    pub fn refuse(&mut self, more: &Counts) {
        let more = |reason: Refused| more[reason as usize];
        let ledger = &mut self.settled;
        let mut add = |place: fn(&mut Ledger) -> &mut u64, more: u64| {
            let place = place(ledger);
            *place = place.saturating_add(more);
            ledger.accepted = ledger.accepted.saturating_add(more);
        };
        add(
            |ledger| &mut ledger.rejected[Reject::Full as usize],
            more(Refused::Full),
        );
        add(
            |ledger| &mut ledger.rejected[Reject::TooLarge as usize],
            more(Refused::TooLarge),
        );
        add(
            |ledger| &mut ledger.rejected[Reject::Error as usize],
            more(Refused::Error),
        );
        add(
            |ledger| &mut ledger.rejected[Reject::Stopped as usize],
            more(Refused::Away),
        );
        add(|ledger| &mut ledger.peer_dead, more(Refused::PeerDead));
        // A message that was cut off is in its ring, and is counted with the ring.
    }

    /// Shows the reports of the receiver's library.
    fn show_reports(&mut self) {
        let Some((cell, claims)) = &mut self.cells else {
            return;
        };
        let mut total = self.reported;
        for ring in self
            .current
            .iter_mut()
            .filter(|ring| ring.setup.is_none())
            .chain(&mut self.old)
        {
            ring.report(Some(&mut *cell));
            total = sum(&total, &ring.reported());
        }
        claims.show(&total);
    }

    /// The ledger, as of the last read.
    pub fn ledger(&self) -> Ledger {
        let mut ledger = self.settled;
        for ring in self.current.iter().chain(&self.old) {
            ring.add_to(&mut ledger, ring.rest());
        }
        if self.left_to_next {
            ledger.accepted -= ledger.queued;
            ledger.queued = 0;
        }
        // If this daemon is killed, the next one counts them.
        ledger.held = ledger.queued;
        ledger
    }
}

impl Ring {
    /// Reads the indices; false if they are impossible.
    fn poll(&mut self) -> bool {
        // Deaths first: the next values are then the last ones that the dead processes have
        // written.
        for (dead, pidfd) in self.dead.iter_mut().zip(&self.pidfds) {
            *dead = *dead || !pidfd.is_alive();
        }
        let (before, now) = (self.seen, self.watch.read());
        let step =
            |now: u64, before: u64| now.checked_sub(before).is_some_and(|step| step <= STEP_MAX);
        let possible = |now: &Indices| step(now.tail, before.tail) && step(now.head, before.head);
        let Some(now) = now.filter(possible) else {
            return false;
        };
        self.seen = now;
        true
    }

    /// The receiver's claims since this daemon's first read.
    fn reported(&self) -> Claims {
        since(&self.claims_before, &self.claims)
    }

    /// Records the reports of the receiver's library; an impossible report changes nothing.
    fn report(&mut self, cell: Option<&mut RouteCell>) {
        if let Some(now) = self.watch.claims().filter(|now| grows(&self.claims, now)) {
            self.claims = now;
        }
        if let (Some(measured), Some(cell)) = (self.watch.latencies(), cell) {
            cell.add_latencies(measured, &mut self.latencies);
        }
    }

    /// The fate of the messages in it, as of the last read.
    fn rest(&self) -> Rest {
        if self.dead[RECEIVER] {
            Rest::PeerDead
        } else {
            Rest::Queued
        }
    }

    /// Messages in it that were not taken. Messages that its sender moved into the next ring are
    /// counted there.
    fn left(&self) -> u64 {
        let Indices {
            tail, head, moved, ..
        } = self.seen;
        tail - head - moved
    }

    /// Adds the ring to a ledger. The accepted messages are the sum of the other numbers, so the
    /// ledger balances.
    fn add_to(&self, ledger: &mut Ledger, rest: Rest) {
        let (delivered, lost) = self.before;
        let taken = self.seen.head.saturating_sub(delivered);
        let left = self.left().saturating_sub(lost);
        let place = match rest {
            Rest::Queued => &mut ledger.queued,
            Rest::PeerDead => &mut ledger.peer_dead,
            Rest::Error => &mut ledger.rejected[Reject::Error as usize],
        };
        *place = place.saturating_add(left);
        ledger.delivered = ledger.delivered.saturating_add(taken);
        ledger.accepted = ledger.accepted.saturating_add(taken).saturating_add(left);
    }

    /// Adds the ring to the ledger of rings that are gone.
    fn settle(&self, ledger: &mut Ledger, rest: Rest) {
        self.add_to(ledger, rest);
        self.confirm(rest);
    }

    /// Records, for the next daemon, which of its messages are in a ledger.
    fn confirm(&self, rest: Rest) {
        let lost = if rest == Rest::Queued {
            self.before.1
        } else {
            self.left()
        };
        self.receipt.write(self.seen.head, lost);
    }

    /// Whether no more messages can come in, and the remaining ones are taken or never will be.
    fn is_over(&self) -> bool {
        let Indices {
            tail,
            head,
            closed,
            given_up,
            left,
            ..
        } = self.seen;
        (closed || self.dead[SENDER]) && (head == tail || given_up || left || self.dead[RECEIVER])
    }
}

/// The fate of messages that were not taken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rest {
    Queued,
    PeerDead,
    Error,
}

fn own_memory(handles: Handles, side: Side) -> (OwnedFd, OwnedFd) {
    let Handles {
        producer,
        consumer,
        eventfd,
    } = handles;
    (
        if side == Side::Producer {
            producer
        } else {
            consumer
        },
        eventfd,
    )
}

fn others_memory(handles: Handles, side: Side) -> OwnedFd {
    let Handles {
        producer, consumer, ..
    } = handles;
    if side == Side::Producer {
        consumer
    } else {
        producer
    }
}
