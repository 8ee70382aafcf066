//! The routed rings of a session. All are made before any of them is handed out, so a refusal
//! changes nothing.

use super::maker::{LARGE_BYTES, Order};
use super::table::ChannelPath;
use super::{Rings, Wanted};
use crate::plan::{EndpointId, ProcessId, RouteId};
use rtcore::ring::bell::daemon_bell;
use rtcore::ring::{Bells, Consumer, Geometry, Handles, Producer, Shared, Side};
use rtcore::sys::limits::shortage_hint;
use rtcore::sys::memfd::Memory;
use rtcore::sys::room::{self, Room};
use rtcore::wire::Channel;
use std::io;
use thiserror::Error;

/// Why a session gets no rings.
#[derive(Debug, Error)]
pub enum RingsError {
    /// A lane thread has not taken the earlier offers.
    #[error(
        "the lane thread of route {0} has not run since the last sessions of this name: try again"
    )]
    Busy(String),
    /// A lane thread still uses the rings of the session that is continued.
    #[error("the lane thread of route {0} has not released the earlier session's ring: try again")]
    Held(String),
    /// There would be no room for its messages.
    #[error(
        "the receiver of route {0} has not read the messages of earlier sessions of its sender: let it read, or end it"
    )]
    Unread(String),
    #[error(
        "the ring of endpoint {0} cannot be locked in memory: LimitMEMLOCK=infinity in the unit of rtd, \
         cap_ipc_lock, or rtd run --allow-degraded"
    )]
    Unlocked(String),
    /// The session and the lane cannot wake each other.
    #[error(
        "endpoint {endpoint}: lane {lane} runs on {skin}, where the doorbells of rings are \
         {lanes}, and this session uses {own}: {fix}"
    )]
    Skin {
        /// The endpoint of a routed channel.
        endpoint: String,
        lane: String,
        skin: &'static str,
        /// The doorbells of its lanes.
        lanes: &'static str,
        /// The doorbells of the session.
        own: &'static str,
        /// The line that fixes it.
        fix: &'static str,
    },
    #[error("a doorbell: {0}")]
    Doorbell(io::Error),
    /// Its memory is being made.
    #[error("the rings of {0} are being made for another connection: try again")]
    Making(String),
    /// The machine, or the control group of rtd, has no room for them.
    #[error(
        "the rings of {process} take {bytes} bytes, {} are available ({}): a smaller maxmsg or msgsize (endpoint {endpoint}), \
         or {}",
        room.bytes, room.limit, more_room(room)
    )]
    NoRoom {
        process: String,
        /// Bytes of all its rings.
        bytes: u64,
        /// One of its endpoints.
        endpoint: String,
        /// The available memory.
        room: Room,
    },
    /// Memory or descriptors are short.
    #[error("the ring of endpoint {endpoint}: {source}{}", shortage_hint(source))]
    Io {
        endpoint: String,
        /// The error of the system call.
        source: io::Error,
    },
}

/// The daemon's end of a ring.
#[derive(Debug)]
pub(super) enum DaemonEnd {
    Source(EndpointId, Consumer),
    Sink((RouteId, usize), Producer),
}

impl DaemonEnd {
    pub fn lock_again(&self) {
        match self {
            DaemonEnd::Source(_, end) => end.lock_again(),
            DaemonEnd::Sink(_, end) => end.lock_again(),
        }
    }
}

/// The rings of a session, ready and not handed out.
#[derive(Debug)]
pub struct Prepared {
    pub(super) bells: Bells,
    pub(super) page: Memory,
    pub(super) ends: Vec<DaemonEnd>,
    /// For the client, with the numbers of the channels.
    pub(super) handles: Vec<(u32, Handles)>,
    /// The memory that the client writes and lane threads read.
    pub(super) written: Vec<Memory>,
}

/// The rings of a session, to be made.
#[derive(Debug)]
pub(super) struct Making {
    process: String,
    /// The session's bells, if they are not futexes.
    bells: Option<Bells>,
    channels: Vec<(Channel, Geometry, ChannelPath)>,
    allow_unlocked: bool,
}

/// The result of a request for rings.
#[derive(Debug)]
pub enum Begun {
    /// They are ready.
    Ready(Prepared),
    /// They are being made ([`Rings::take_made`]).
    Ordered,
}

/// Bytes of the available memory that a session must leave.
const ROOM_LEFT_BYTES: u64 = 4 << 20;
/// Below this size the available memory is not checked, because that reads some files.
const ROOM_ASKED_BYTES: u64 = 256 << 10;

fn more_room(room: &Room) -> &'static str {
    if room.limit == "MemAvailable" {
        "more memory"
    } else {
        // As short as possible, for the reply.
        "a higher MemoryMax= of rtd's unit or container"
    }
}

/// Whether `bytes` are available, with a reserve.
pub(super) fn room_for(bytes: u64) -> Result<(), Room> {
    match room::available().filter(|_| bytes >= ROOM_ASKED_BYTES) {
        Some(room) if room.bytes < bytes.saturating_add(ROOM_LEFT_BYTES) => Err(room),
        _ => Ok(()),
    }
}

impl Rings {
    /// Makes the rings of a process that requests a session, and changes nothing else; large ones
    /// on another thread.
    pub fn begin(&mut self, process: ProcessId, wanted: Wanted) -> Result<Begun, RingsError> {
        self.reclaim();
        self.check(process, wanted)?;
        let name = &self.plan.processes[process].name;
        if self.ordered.contains(&process) {
            return Err(RingsError::Making(name.clone()));
        }
        let making = self.making(process)?;
        let bytes = making.bytes();
        if let Err(room) = room_for(bytes) {
            let endpoint = making
                .largest()
                .map_or_else(String::new, |channel| channel.endpoint.to_string());
            return Err(RingsError::NoRoom {
                process: name.clone(),
                bytes,
                endpoint,
                room,
            });
        }
        // A skin's semaphores belong to the thread that serves the session.
        if bytes < LARGE_BYTES || self.doorbells.is_some() {
            return making.make().map(Begun::Ready);
        }
        self.ordered.insert(process);
        self.maker.order(Order::Session(process, making));
        Ok(Begun::Ordered)
    }

    /// Makes the rings at once.
    #[cfg(test)]
    pub fn prepare(&mut self, process: ProcessId, wanted: Wanted) -> Result<Prepared, RingsError> {
        self.check(process, wanted)?;
        self.making(process)?.make()
    }

    /// Whether the process may have rings now.
    pub fn check(&mut self, process: ProcessId, wanted: Wanted) -> Result<(), RingsError> {
        self.on_one_skin(process, wanted.semaphores)?;
        self.let_go(process, wanted)?;
        let clogged = self
            .direct
            .values()
            .find(|direct| direct.is_clogged(process));
        if let Some(direct) = clogged {
            return Err(RingsError::Unread(direct.name().to_owned()));
        }
        for channel in &self.table.channels[process] {
            let room = match channel.path {
                ChannelPath::Source(endpoint) => self
                    .sources
                    .get_mut(&endpoint)
                    .map(|lane| lane.hand_off.room()),
                ChannelPath::Sink(route, end) => self
                    .sinks
                    .get_mut(&(route, end))
                    .map(|lane| lane.hand_off.room()),
                ChannelPath::Direct(..) => None,
            };
            if room.is_some_and(|room| room < 2) {
                return Err(RingsError::Busy(channel.announced.route.to_string()));
            }
        }
        Ok(())
    }

    fn making(&self, process: ProcessId) -> Result<Making, RingsError> {
        let bells = self
            .doorbells
            .as_ref()
            .map(|doorbells| doorbells.bells(process));
        let bells = bells.transpose().map_err(RingsError::Doorbell)?;
        let channels = self.table.channels[process].iter();
        let routed = channels.filter(|channel| !matches!(channel.path, ChannelPath::Direct(..)));
        Ok(Making {
            process: self.plan.processes[process].name.clone(),
            bells,
            channels: routed
                .map(|channel| (channel.announced, channel.geometry, channel.path))
                .collect(),
            allow_unlocked: self.allow_unlocked,
        })
    }
}

impl Making {
    /// Bytes of all rings.
    fn bytes(&self) -> u64 {
        self.channels
            .iter()
            .map(|(_, geometry, _)| geometry.bytes())
            .sum()
    }

    fn largest(&self) -> Option<&Channel> {
        self.channels
            .iter()
            .max_by_key(|(_, geometry, _)| geometry.bytes())
            .map(|(announced, ..)| announced)
    }

    /// Makes the rings; callable on any thread.
    pub fn make(self) -> Result<Prepared, RingsError> {
        let name = &self.process;
        let failed = |source| RingsError::Io {
            endpoint: format!("(bells of {name})"),
            source,
        };
        let page = Memory::new(&format!("rtd-bells:{name}"), Bells::BYTES).map_err(failed)?;
        let bells = match self.bells {
            None => page
                .map_writable()
                .and_then(Bells::shared)
                .map_err(failed)?,
            Some(bells) => bells,
        };
        let written = vec![page.try_clone().map_err(failed)?];
        let mut prepared = Prepared {
            bells,
            page,
            ends: Vec::new(),
            handles: Vec::new(),
            written,
        };
        for (announced, geometry, path) in self.channels {
            let endpoint = || announced.endpoint.to_string();
            let locked =
                prepared
                    .add(&announced, geometry, path)
                    .map_err(|source| RingsError::Io {
                        endpoint: endpoint(),
                        source,
                    })?;
            if !locked && !self.allow_unlocked {
                return Err(RingsError::Unlocked(endpoint()));
            }
        }
        Ok(prepared)
    }
}

impl Rings {
    /// A session that continues another one gets no rings before the lane threads have released the
    /// rings of that one. The heads then show the client which messages the lanes took: it moves
    /// the others into its new rings, and no further message comes into its old ones. A source is
    /// left with its messages; the rings of a session without a successor are emptied instead.
    fn let_go(&mut self, process: ProcessId, wanted: Wanted) -> Result<(), RingsError> {
        #[expect(clippy::cast_possible_truncation, reason = "the lower half travels")]
        let is_it = |(generation, pid): (u64, i32)| {
            (generation as u32, pid) == (wanted.resumes, wanted.pid)
        };
        let Some((generation, _)) =
            self.left[process].filter(|left| wanted.resumes != 0 && is_it(*left))
        else {
            return Ok(());
        };
        let mut held = None;
        for channel in &self.table.channels[process] {
            let holds = match channel.path {
                ChannelPath::Source(endpoint) => {
                    self.sources.get_mut(&endpoint).is_some_and(|lane| {
                        lane.hand_off.leave(generation);
                        lane.hand_off.collect()
                    })
                }
                ChannelPath::Sink(route, end) => self
                    .sinks
                    .get_mut(&(route, end))
                    .is_some_and(|lane| lane.hand_off.collect()),
                ChannelPath::Direct(..) => false,
            };
            if holds {
                held = Some(channel.announced.route.to_string());
            }
        }
        held.map_or(Ok(()), |route| Err(RingsError::Held(route)))
    }

    /// Both ends of a routed ring sleep at doorbells of one kind.
    fn on_one_skin(&self, process: ProcessId, semaphores: bool) -> Result<(), RingsError> {
        let routed = self.table.channels[process]
            .iter()
            .find(|channel| !channel.announced.direct);
        let Some(Channel { endpoint, lane, .. }) = routed.map(|channel| &channel.announced) else {
            return Ok(());
        };
        let (lanes, own, fix) = match (self.doorbells.is_some(), semaphores) {
            (true, false) => (
                "semaphores",
                "futexes",
                "bind Cobalt (Builder::skin), or path = \"direct\", or an xddp endpoint",
            ),
            (false, true) => (
                "futexes",
                "semaphores",
                "rtd run --skin cobalt, or no Builder::skin",
            ),
            _ => return Ok(()),
        };
        let (endpoint, lane) = (endpoint.to_string(), lane.to_string());
        Err(RingsError::Skin {
            endpoint,
            lane,
            skin: self.skin.name,
            lanes,
            own,
            fix,
        })
    }
}

impl Prepared {
    /// Adds one ring, if the channel has one with the daemon; true unless its memory is not locked.
    fn add(
        &mut self,
        announced: &Channel,
        geometry: Geometry,
        path: ChannelPath,
    ) -> io::Result<bool> {
        let Channel {
            channel,
            endpoint,
            route,
            ..
        } = announced;
        let (daemon, client) = match path {
            ChannelPath::Source(_) => (Side::Consumer, Side::Producer),
            ChannelPath::Sink(..) => (Side::Producer, Side::Consumer),
            ChannelPath::Direct(..) => return Ok(true),
        };
        let shared = Shared::create(&format!("rtd:{route}:{endpoint}"), geometry)?;
        let bell = daemon_bell(*channel);
        let (end, locked) = match path {
            ChannelPath::Sink(route, end) => {
                let producer = shared.producer(&self.bells, bell)?;
                let producer = if announced.keep > 0 {
                    producer.displacing()
                } else {
                    producer
                };
                let locked = producer.is_locked();
                (DaemonEnd::Sink((route, end), producer), locked)
            }
            ChannelPath::Source(endpoint) => {
                let consumer = shared.consumer(&self.bells, bell)?;
                let locked = consumer.is_locked();
                (DaemonEnd::Source(endpoint, consumer), locked)
            }
            ChannelPath::Direct(..) => return Ok(true),
        };
        // Mapped here, so nobody needs to map it again: no descriptor that leaves this process
        // makes its holder a writer.
        shared.seal(daemon)?;
        self.written.push(shared.written_by(client)?);
        self.handles.push((*channel, shared.handles(client)?));
        self.ends.push(end);
        Ok(locked)
    }
}
