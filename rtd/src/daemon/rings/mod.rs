//! The rings of sessions: made when a session opens, passed to lane threads and to the other
//! sessions, taken back when it ends.
//!
//! This module belongs to the control thread, which uses it to carry out the effects of
//! [`crate::sessions::state`]. It does not send to clients: it returns frames.
//!
//! Invariant: a ring can always be taken away from a lane thread: a session opens only if each of
//! its lane threads has room for two offers, its rings and their end.

mod claims;
mod direct;
mod doorbells;
mod explain;
mod maker;
mod prepare;
mod refusals;
mod table;

use crate::plan::{EndpointId, Plan, ProcessId, RouteId};
use crate::sessions::state::{ChannelKind, DirectKind, Topology};
use crate::words::counted;
use claims::Reports;
use direct::{Blank, DirectRoute, End, Handover};
use doorbells::Doorbells;
use maker::{Done, LARGE_BYTES, Maker, Order};
use prepare::DaemonEnd;
use refusals::Refusals;
use rtcore::channel::hand_off::{HandOff, HandOffItem, HandOffSlot, hand_off};
use rtcore::message::Origin;
use rtcore::ring::bell::daemon_bell;
use rtcore::ring::{Bells, Consumer, Handles, Producer, Side};
use rtcore::skin::{Semaphore, Skin};
use rtcore::stats::Ledger;
use rtcore::stats::writer::Page;
use rtcore::sys::eventfd::EventFd;
use rtcore::sys::memfd::Memory;
use rtcore::sys::pidfd::PidFd;
use rtcore::sys::room::Room;
use rtcore::wire::{Channel, Notice};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use table::{ChannelPath, ChannelPlan, Table};

pub use direct::SealError;
pub use explain::Explanation;
pub use prepare::{Begun, Prepared, RingsError};

/// A process that has a session.
#[derive(Clone, Debug)]
pub struct SessionIdentity {
    /// Number of the registration of its name.
    pub generation: u64,
    pub pid: i32,
    /// Real user id.
    pub uid: u32,
    /// Number by which its client identifies the program of the process.
    pub program: u32,
    /// The process itself.
    pub pidfd: Arc<PidFd>,
}

/// The parameters of a request for a session.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// The process that asks.
    pub pid: i32,
    /// Whether its doorbells are semaphores.
    pub semaphores: bool,
    /// The session that it continues; see [`rtcore::wire::Request::Open`].
    pub resumes: u32,
}

/// A direct ring of an earlier daemon, as the client at one of its ends describes it.
#[derive(Debug)]
pub struct Carried<'a> {
    /// Number of the client's channel.
    pub channel: u32,
    /// The process at the other end, and its session.
    pub other: (u32, u32),
    /// The identity of the client, while its session opens.
    pub identity: Option<SessionIdentity>,
    /// The producer's memory, the consumer's, the bells.
    pub memory: [BorrowedFd<'a>; 3],
}

/// A frame for a session.
#[derive(Debug)]
pub struct Outgoing {
    pub process: ProcessId,
    pub notice: Notice,
    /// Descriptors that go with it.
    pub fds: Vec<OwnedFd>,
}

/// Memory that was made on another thread.
#[derive(Debug)]
pub enum Made {
    /// The rings of a session.
    Session(ProcessId, Result<Prepared, RingsError>),
    /// The memory of a direct ring, which is stored; an error is a line to log.
    Direct(RouteId, Result<(), Option<String>>),
}

/// The results of [`Rings::tick`].
#[derive(Debug, Default)]
pub struct Ticked {
    /// Routes whose lane thread has not taken its receivers' rings: only a message or a wake-up
    /// makes it do so.
    pub waits: Vec<RouteId>,
    /// Direct routes whose ring cannot be used any more.
    pub broken: Vec<RouteId>,
    /// For the log.
    pub warnings: Vec<String>,
}

/// The hand-off of successive rings to a lane thread.
#[derive(Debug)]
struct Lane<T> {
    hand_off: HandOff<T>,
    /// The thread's half until the builder takes it.
    ring_slot: Option<HandOffSlot<T>>,
}

impl<T> Default for Lane<T> {
    fn default() -> Lane<T> {
        let (hand_off, ring_slot) = hand_off();
        Lane {
            hand_off,
            ring_slot: Some(ring_slot),
        }
    }
}

/// Rings whose memory the client got and has not mapped yet. No lane uses them.
#[derive(Debug)]
struct HandedOut {
    bells: Bells,
    ends: Vec<DaemonEnd>,
    /// The memory that the client writes.
    written: Vec<Memory>,
}

/// The client's part of a session's rings.
#[derive(Debug)]
pub struct Attached {
    /// The session's bells.
    pub page: Memory,
    /// Each routed channel's ring.
    pub rings: Vec<(Notice, Handles)>,
}

#[derive(Debug)]
pub struct Rings {
    plan: Plan,
    table: Table,
    sources: BTreeMap<EndpointId, Lane<Consumer>>,
    sinks: BTreeMap<(RouteId, usize), Lane<Producer>>,
    /// Reports for the same ends.
    reports: BTreeMap<(RouteId, usize), Reports>,
    /// For each process, rings that no lane thread reads yet.
    unread: Vec<Vec<DaemonEnd>>,
    direct: BTreeMap<RouteId, DirectRoute>,
    refusals: Refusals,
    skin: &'static Skin,
    /// The semaphores of lane threads and sessions, if doorbells are not futexes.
    doorbells: Option<Doorbells>,
    /// Indexed by process.
    identities: Vec<Option<(SessionIdentity, Bells)>>,
    /// Generation and pid of the earlier session, by process.
    left: Vec<Option<(u64, i32)>>,
    allow_unlocked: bool,
    maker: Maker,
    /// Processes whose rings are being made.
    ordered: BTreeSet<ProcessId>,
    /// For each process, rings that the client has not mapped yet.
    handed_out: Vec<Option<HandedOut>>,
}

impl Rings {
    /// Makes an empty set. `allow_unlocked`: rings that cannot be locked in memory are used
    /// nevertheless.
    ///
    /// Errors: a process has more channels than a session can have; a doorbell cannot be made.
    pub fn new(plan: &Plan, skin: &'static Skin, allow_unlocked: bool) -> io::Result<Rings> {
        let table = Table::new(plan)?;
        let mut rings = Rings {
            skin,
            doorbells: Doorbells::new(plan, &table, skin)?,
            sources: BTreeMap::new(),
            sinks: BTreeMap::new(),
            reports: BTreeMap::new(),
            unread: plan.processes.iter().map(|_| Vec::new()).collect(),
            direct: BTreeMap::new(),
            refusals: Refusals::new(plan),
            identities: plan.processes.iter().map(|_| None).collect(),
            left: vec![None; plan.processes.len()],
            plan: plan.clone(),
            allow_unlocked,
            maker: Maker::new()?,
            ordered: BTreeSet::new(),
            handed_out: plan.processes.iter().map(|_| None).collect(),
            table,
        };
        let mut senders = BTreeMap::new();
        for (process, channels) in rings.table.channels.iter().enumerate() {
            for channel in channels {
                let end = End {
                    process,
                    channel: channel.announced.channel,
                };
                match channel.path {
                    ChannelPath::Source(endpoint) => {
                        drop(rings.sources.insert(endpoint, Lane::default()))
                    }
                    ChannelPath::Sink(route, end) => {
                        rings.sinks.insert((route, end), Lane::default());
                        rings.reports.insert((route, end), Reports::default());
                    }
                    ChannelPath::Direct(route, Side::Producer) => drop(senders.insert(route, end)),
                    // The senders of all processes first.
                    ChannelPath::Direct(_, Side::Consumer) => {}
                }
            }
        }
        for (process, channels) in rings.table.channels.iter().enumerate() {
            for channel in channels {
                if let ChannelPath::Direct(route, Side::Consumer) = channel.path
                    && let Some(sender) = senders.get(&route)
                {
                    let ends = [
                        *sender,
                        End {
                            process,
                            channel: channel.announced.channel,
                        },
                    ];
                    let name = &rings.plan.routes[route].name;
                    rings
                        .direct
                        .insert(route, DirectRoute::new(name, channel.geometry, ends));
                }
            }
        }
        Ok(rings)
    }

    /// Shows the receivers' reports on the page, and the ledgers of direct routes, which have no
    /// thread of their own.
    pub fn show(&mut self, page: &Page) {
        for (route, direct) in &mut self.direct {
            direct.show(page.route(*route), page.claims(*route, 0));
        }
        for ((route, end), reports) in &mut self.reports {
            reports.show(page.claims(*route, *end));
        }
        self.refusals.show(page);
    }

    /// The half for the thread that reads this endpoint. A second call, or an endpoint without
    /// owner, gets a half that is never filled.
    pub fn take_source(&mut self, endpoint: EndpointId) -> HandOffSlot<Consumer> {
        let ring_slot = self
            .sources
            .get_mut(&endpoint)
            .and_then(|lane| lane.ring_slot.take());
        ring_slot.unwrap_or_else(|| rtcore::channel::hand_off::hand_off().1)
    }

    /// The half for the thread that owns the route: its end number `end`, counted over all its
    /// targets. As above.
    pub fn take_sink(&mut self, route: RouteId, end: usize) -> HandOffSlot<Producer> {
        let ring_slot = self
            .sinks
            .get_mut(&(route, end))
            .and_then(|lane| lane.ring_slot.take());
        ring_slot.unwrap_or_else(|| rtcore::channel::hand_off::hand_off().1)
    }

    /// The semaphore of the thread that reads this endpoint, if doorbells are not futexes.
    pub fn doorbell_of_source(&self, endpoint: EndpointId) -> Option<Arc<Semaphore>> {
        self.doorbells.as_ref()?.of_source(endpoint)
    }

    /// The semaphore of the thread that owns this route, likewise.
    pub fn doorbell_of_route(&self, route: RouteId) -> Option<Arc<Semaphore>> {
        self.doorbells.as_ref()?.of_route(route)
    }

    /// The channels of a process, as announced to its session.
    pub fn channels(&self, process: ProcessId) -> impl Iterator<Item = &Channel> {
        self.table.channels[process]
            .iter()
            .map(|channel| &channel.announced)
    }

    /// The part of the plan that the state machine of the sessions needs.
    pub fn topology(&self) -> Topology {
        let kind = |channel: &ChannelPlan| match channel.path {
            ChannelPath::Source(_) => ChannelKind::Routed(channel.receivers.clone()),
            ChannelPath::Sink(..) => ChannelKind::Inbound,
            ChannelPath::Direct(route, Side::Producer) => ChannelKind::Direct(route),
            ChannelPath::Direct(_, Side::Consumer) => ChannelKind::DirectInbound,
        };
        let direct = self.direct.iter().map(|(route, direct)| {
            let large = direct.bytes() >= LARGE_BYTES;
            (
                *route,
                DirectKind {
                    ends: direct.processes(),
                    large,
                },
            )
        });
        Topology {
            channels: self
                .table
                .channels
                .iter()
                .map(|of| of.iter().map(kind).collect())
                .collect(),
            partners: self.table.partners.clone(),
            direct: direct.collect(),
        }
    }

    /// The client's part of the rings, numbered up to `map`. Lanes use the rings only after
    /// [`Rings::attach`].
    pub fn hand_out(&mut self, process: ProcessId, prepared: Prepared, map: u32) -> Attached {
        let Prepared {
            bells,
            page,
            ends,
            handles,
            written,
        } = prepared;
        let serials = (1..=u32::try_from(handles.len()).unwrap_or(0))
            .rev()
            .map(|before| map.wrapping_sub(before));
        let mut rings = Vec::with_capacity(handles.len());
        for ((channel, handles), serial) in handles.into_iter().zip(serials) {
            let semaphores = self
                .doorbells
                .as_ref()
                .and_then(|bells| bells.named(process, channel));
            rings.push((
                Notice::Ring {
                    channel,
                    serial,
                    pid: 0,
                    uid: 0,
                    program: 0,
                    semaphores,
                },
                handles,
            ));
        }
        self.handed_out[process] = Some(HandedOut {
            bells,
            ends,
            written,
        });
        Attached { page, rings }
    }

    /// The client has mapped its rings: seals the memory that the client writes, and gives the lane
    /// threads the rings that they write. They read its own rings after [`Rings::read_from`].
    ///
    /// A process that may write memory may also take its pages away (fallocate(2), madvise(2)
    /// MADV_REMOVE), and a lane thread that reads there then faults. The seal that prevents this
    /// also prevents new mappings for writing, so it comes after the client has mapped them and
    /// before the first lane thread uses them. Pages that are gone by then are restored.
    ///
    /// Errors: the client has sealed its memory against rtd.
    pub fn attach(&mut self, process: ProcessId, identity: SessionIdentity) -> io::Result<()> {
        let Some(HandedOut {
            bells,
            ends,
            written,
            ..
        }) = self.handed_out[process].take()
        else {
            return Ok(());
        };
        if let Err(e) = written.iter().try_for_each(Memory::deny_writers) {
            self.maker.discard(ends);
            return Err(io::Error::new(
                e.kind(),
                format!("the memory of its rings cannot be sealed: {e}"),
            ));
        }
        ends.iter().for_each(DaemonEnd::lock_again);
        let (sources, sinks): (Vec<_>, Vec<_>) = ends
            .into_iter()
            .partition(|end| matches!(end, DaemonEnd::Source(..)));
        for end in sinks {
            self.offer(end, &identity);
        }
        self.unread[process] = sources;
        self.identities[process] = Some((identity, bells));
        Ok(())
    }

    /// Lets the lane threads read the messages of the process: its partners now know the process.
    pub fn read_from(&mut self, process: ProcessId) {
        let Some((identity, _)) = &self.identities[process] else {
            return;
        };
        let identity = identity.clone();
        for end in std::mem::take(&mut self.unread[process]) {
            self.offer(end, &identity);
        }
    }

    fn offer(&mut self, end: DaemonEnd, identity: &SessionIdentity) {
        let generation = identity.generation;
        let origin = Origin {
            pid: identity.pid.unsigned_abs(),
            uid: identity.uid,
            verified: true,
        };
        // There is room (`prepare`).
        match end {
            DaemonEnd::Source(endpoint, end) => {
                if let Some(lane) = self.sources.get_mut(&endpoint) {
                    let _ = lane.hand_off.offer(HandOffItem {
                        end: Some(end),
                        generation,
                        origin,
                    });
                }
                // It may have no ring yet at which it sleeps.
                if let Some(doorbell) = self.doorbell_of_source(endpoint) {
                    doorbell.post();
                }
            }
            DaemonEnd::Sink(at, end) => {
                if let Some(reports) = self.reports.get_mut(&at) {
                    reports.begin(end.watch(), Arc::clone(&identity.pidfd));
                }
                if let Some(lane) = self.sinks.get_mut(&at) {
                    let _ = lane.hand_off.offer(HandOffItem {
                        end: Some(end),
                        generation,
                        origin,
                    });
                }
            }
        }
    }

    /// The session is over: takes its rings away from the lane threads, after they have emptied
    /// them. Returns lines to log.
    pub fn close(&mut self, process: ProcessId) -> Vec<String> {
        if let Some(handed_out) = self.handed_out[process].take() {
            // No lane has used them.
            self.maker.discard(handed_out.ends);
            if let Some(doorbells) = &self.doorbells {
                doorbells.forget(process);
            }
        }
        // Messages that it has sent already are not lost.
        self.read_from(process);
        let Some((identity, bells)) = self.identities[process].take() else {
            return Vec::new();
        };
        let (generation, origin) = (identity.generation, Origin::UNKNOWN);
        self.left[process] = Some((generation, identity.pid));
        for channel in &self.table.channels[process] {
            // There is room (`prepare`).
            match channel.path {
                ChannelPath::Source(endpoint) => {
                    if let Some(lane) = self.sources.get_mut(&endpoint) {
                        let _ = lane.hand_off.offer(HandOffItem {
                            end: None,
                            generation,
                            origin,
                        });
                    }
                }
                ChannelPath::Sink(route, end) => {
                    if let Some(reports) = self.reports.get_mut(&(route, end)) {
                        reports.end();
                    }
                    if let Some(lane) = self.sinks.get_mut(&(route, end)) {
                        let _ = lane.hand_off.offer(HandOffItem {
                            end: None,
                            generation,
                            origin,
                        });
                    }
                }
                ChannelPath::Direct(..) => continue,
            }
            // The thread may sleep at the ring that goes away.
            bells.ring(daemon_bell(channel.announced.channel));
        }
        if let Some(doorbells) = &self.doorbells {
            doorbells.forget(process);
        }
        let mut warnings = Vec::new();
        self.poll_refusals(&mut warnings);
        for direct in self
            .direct
            .values_mut()
            .filter(|direct| direct.processes().contains(&process))
        {
            direct.account(&mut warnings);
            direct.part();
            direct.account(&mut warnings);
        }
        self.refusals.end(process);
        warnings
    }

    /// Takes the memory in which a session counts the messages that its senders refuse. If it
    /// cannot be mapped, they are not counted; the error is a line to log.
    pub fn take_refusals(
        &mut self,
        process: ProcessId,
        memory: BorrowedFd<'_>,
    ) -> Result<(), String> {
        self.refusals.begin(process, memory).map_err(|e| {
            let name = &self.plan.processes[process].name;
            format!("{name}: messages that its senders refuse are not counted: {e}")
        })
    }

    /// A direct ring that an earlier daemon made and that its ends keep using: accounts for it from
    /// the point where that daemon stopped. An error is a line to log.
    pub fn carry(&mut self, process: ProcessId, carried: Carried<'_>) -> Result<(), String> {
        let Carried {
            channel,
            other,
            identity,
            memory,
        } = carried;
        let path = self.table.channels[process]
            .get(channel as usize)
            .map(|channel| channel.path);
        let identity = identity.or_else(|| {
            self.identities[process]
                .as_ref()
                .map(|(identity, _)| identity.clone())
        });
        let (Some(ChannelPath::Direct(route, side)), Some(identity)) = (path, identity) else {
            return Ok(());
        };
        let direct = self.direct.get_mut(&route);
        direct.map_or(Ok(()), |direct| {
            direct.carry(Handover {
                side,
                from: identity,
                other,
                memory,
            })
        })
    }

    /// The daemon ends: messages that wait in direct rings stay there, and the next daemon accounts
    /// for them. Returns lines to log.
    pub fn leave_to_next(&mut self) -> Vec<String> {
        let mut warnings = Vec::new();
        self.poll_refusals(&mut warnings);
        for direct in self.direct.values_mut() {
            direct.leave_to_next(&mut warnings);
        }
        self.poll_reports(&mut warnings);
        self.refusals.confirm();
        warnings
    }

    /// Takes the counts of the senders' libraries: shows them, and adds them to the ledgers of
    /// direct routes, which are published next.
    fn poll_refusals(&mut self, warnings: &mut Vec<String>) {
        for (from, more) in self.refusals.poll(&self.plan, warnings) {
            for (route, direct) in &mut self.direct {
                if self.plan.routes[*route].from == from {
                    direct.refuse(&more);
                }
            }
        }
    }

    /// Makes a direct ring for the sessions of its processes, and prepares its frames. An error is
    /// a line to log.
    pub fn create(&mut self, route: RouteId, serials: [u32; 2]) -> Result<(), Option<String>> {
        let Some(direct) = self.direct.get(&route) else {
            return Err(None);
        };
        let blank = match prepare::room_for(direct.bytes()) {
            Ok(()) => direct.draft().make(),
            Err(room) => Err(no_room(direct.bytes(), &room)),
        };
        self.connect(route, blank, serials)
    }

    /// Lets another thread make the memory of a direct ring. An error is a line to log.
    pub fn order(&mut self, route: RouteId) -> Result<(), Option<String>> {
        let Some(direct) = self.direct.get_mut(&route) else {
            return Err(None);
        };
        if let Err(room) = prepare::room_for(direct.bytes()) {
            return Err(direct.failed(&no_room(direct.bytes(), &room)));
        }
        self.maker.order(Order::Direct(route, direct.draft()));
        Ok(())
    }

    /// Makes a ring from the ordered memory, as [`Rings::create`] does.
    pub fn offer_made(&mut self, route: RouteId, serials: [u32; 2]) -> Result<(), Option<String>> {
        let blank = self
            .direct
            .get_mut(&route)
            .and_then(DirectRoute::take_blank)
            .ok_or(None)?;
        self.connect(route, Ok(blank), serials)
    }

    fn connect(
        &mut self,
        route: RouteId,
        blank: io::Result<Blank>,
        serials: [u32; 2],
    ) -> Result<(), Option<String>> {
        let Some(direct) = self.direct.get_mut(&route) else {
            return Err(None);
        };
        let [sender, receiver] = direct
            .processes()
            .map(|process| self.identities[process].as_ref());
        let (Some((sender, _)), Some((receiver, _))) = (sender, receiver) else {
            return Err(None);
        };
        direct.connect(blank, [sender, receiver], serials)
    }

    /// Drops ordered memory that no session waits for any more.
    pub fn discard_made(&mut self, route: RouteId) {
        let blank = self
            .direct
            .get_mut(&route)
            .and_then(DirectRoute::take_blank);
        self.discard(blank);
    }

    /// Both sessions have mapped their halves of a direct ring: seals it, and prepares the frames
    /// that join them.
    pub fn seal(&mut self, route: RouteId, serials: [u32; 2]) -> Result<(), SealError> {
        let direct = self.direct.get_mut(&route);
        direct.map_or(Err(SealError::Failed(None)), |direct| direct.seal(serials))
    }

    /// The frame that is ready for this end of a direct ring.
    pub fn take_frame(&mut self, route: RouteId, end: usize) -> Option<Outgoing> {
        self.direct.get_mut(&route)?.take_frame(end)
    }

    /// Readable when [`Rings::take_made`] has a result.
    pub fn made(&self) -> &EventFd {
        self.maker.ready()
    }

    /// The results since the last call.
    pub fn take_made(&mut self) -> Vec<Made> {
        let mut all = Vec::new();
        for done in self.maker.take() {
            all.push(match done {
                Done::Session(process, made) => {
                    self.ordered.remove(&process);
                    Made::Session(process, made)
                }
                Done::Direct(route, blank) => {
                    let kept = self
                        .direct
                        .get_mut(&route)
                        .map_or(Err(None), |direct| direct.keep(blank));
                    Made::Direct(route, kept)
                }
            });
        }
        all
    }

    /// Drops the ends that lane threads have returned.
    fn reclaim(&mut self) {
        for lane in self.sources.values_mut() {
            while let Some(end) = lane.hand_off.reclaim() {
                self.maker.discard(end);
            }
        }
        for lane in self.sinks.values_mut() {
            while let Some(end) = lane.hand_off.reclaim() {
                self.maker.discard(end);
            }
        }
    }

    /// Memory that is not wanted any more.
    pub fn discard(&mut self, memory: impl Send + 'static) {
        self.maker.discard(memory);
    }

    /// Called about ten times a second: updates the ledgers of direct routes, and drops memory that
    /// lane threads have returned.
    pub fn tick(&mut self) -> Ticked {
        self.reclaim();
        let mut ticked = Ticked::default();
        for (&(route, _), lane) in &mut self.sinks {
            if lane.hand_off.collect() {
                ticked.waits.push(route);
                if let Some(doorbell) = self
                    .doorbells
                    .as_ref()
                    .and_then(|bells| bells.of_route(route))
                {
                    doorbell.post();
                }
            }
        }
        self.poll_refusals(&mut ticked.warnings);
        for (route, direct) in &mut self.direct {
            if !direct.account(&mut ticked.warnings) {
                ticked.broken.push(*route);
            }
        }
        self.refusals.confirm();
        self.poll_reports(&mut ticked.warnings);
        ticked
    }

    fn poll_reports(&mut self, warnings: &mut Vec<String>) {
        for (&(route, end), reports) in &mut self.reports {
            let held = self
                .sinks
                .get_mut(&(route, end))
                .is_some_and(|lane| lane.hand_off.collect());
            let unread = if held { 0 } else { reports.count_unread() };
            let route = &self.plan.routes[route];
            let name = route
                .ends()
                .nth(end)
                .map_or("?", |id| self.plan.endpoints[id].name.as_str());
            if unread > 0 {
                warnings.push(format!(
                    "route {}: lost {} delivered to {name}: its process ended, or dropped its inbox, before reading",
                    route.name,
                    counted(unread, "message")
                ));
            }
            if !reports.poll() {
                warnings.push(format!(
                    "route {}: the receiver at {name} reports more discarded messages than it has taken: its figures are \
                     not shown",
                    route.name
                ));
            }
        }
    }

    /// The ledgers of direct routes, as of the last read.
    pub fn ledgers(&self) -> impl Iterator<Item = (RouteId, Ledger)> + '_ {
        self.direct
            .iter()
            .map(|(route, direct)| (*route, direct.ledger()))
    }
}

fn no_room(bytes: u64, room: &Room) -> io::Error {
    let text = format!(
        "it takes {bytes} bytes, and {} are available ({})",
        room.bytes, room.limit
    );
    io::Error::new(io::ErrorKind::OutOfMemory, text)
}

#[cfg(test)]
mod tests;
