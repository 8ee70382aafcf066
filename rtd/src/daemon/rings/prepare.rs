//! The routed rings of a session, made before anybody gets any of them: a refusal changes nothing.

use super::table::{ChannelPlan, Way};
use super::{Rings, Wanted};
use crate::plan::{EndpointId, ProcessId, RouteId};
use rtcore::ring::bell::daemon_bell;
use rtcore::ring::{Bells, Consumer, Handles, Producer, Shared, Side};
use rtcore::sys::memfd::Memory;
use rtcore::wire::Channel;
use std::io;
use thiserror::Error;

/// Why a session gets no rings.
#[derive(Debug, Error)]
pub enum RingsError {
    /// A lane thread has not taken what was offered before.
    #[error("the lane thread of route {0} has not run since the last sessions of this name: try again")]
    Busy(String),
    /// A lane thread is at work on the rings of the session that is continued.
    #[error("the lane thread of route {0} has not let go of the earlier session's ring: try again")]
    Held(String),
    /// Its messages would have no room.
    #[error(
        "the receiver of route {0} has not read what earlier lives of its sender sent: let it read or end"
    )]
    Unread(String),
    /// RLIMIT_MEMLOCK.
    #[error(
        "the ring of endpoint {0} cannot be locked in memory: LimitMEMLOCK=infinity in the unit of rtd, \
         cap_ipc_lock, or rtd run --allow-degraded"
    )]
    Unlocked(String),
    /// The session cannot ring the lane, nor the lane the session.
    #[error(
        "endpoint {endpoint}: lane {lane} runs on {skin}, where rings ring {lanes}, and this session rings {own}: {mend}"
    )]
    Skin {
        /// Of a routed channel.
        endpoint: String,
        /// Its lane.
        lane: String,
        /// The daemon's.
        skin: &'static str,
        /// What its lanes are rung by.
        lanes: &'static str,
        /// What the session is rung by.
        own: &'static str,
        /// What mends it.
        mend: &'static str,
    },
    /// A semaphore.
    #[error("a doorbell: {0}")]
    Doorbell(io::Error),
    /// Memory or descriptors.
    #[error("the ring of endpoint {0}: {1}: raise LimitNOFILE= of rtd, or give the machine memory")]
    Io(String, io::Error),
}

/// The daemon's end of a ring.
#[derive(Debug)]
pub(super) enum DaemonEnd {
    Source(EndpointId, Consumer),
    Sink((RouteId, usize), Producer),
}

/// The rings of a session, made and handed to nobody.
#[derive(Debug)]
pub struct Prepared {
    pub(super) bells: Bells,
    pub(super) page: Memory,
    pub(super) ends: Vec<DaemonEnd>,
    /// For the client, with the number of the channel.
    pub(super) handles: Vec<(u32, Handles)>,
}

impl Rings {
    /// Makes the rings of a process that asks for a session, and changes nothing.
    pub fn prepare(&mut self, process: ProcessId, wanted: Wanted) -> Result<Prepared, RingsError> {
        self.on_one_skin(process, wanted.semaphores)?;
        self.let_go(process, wanted)?;
        let clogged = self.direct.values().find(|direct| direct.is_clogged(process));
        if let Some(direct) = clogged {
            return Err(RingsError::Unread(direct.name().to_owned()));
        }
        for channel in &self.table.channels[process] {
            let room = match channel.way {
                Way::Source(endpoint) => self.sources.get_mut(&endpoint).map(|lane| lane.feeder.room()),
                Way::Sink(route, end) => self.sinks.get_mut(&(route, end)).map(|lane| lane.feeder.room()),
                Way::Direct(..) => None,
            };
            if room.is_some_and(|room| room < 2) {
                return Err(RingsError::Busy(channel.told.route.to_string()));
            }
        }
        let name = &self.plan.processes[process].name;
        let failed = |e| RingsError::Io(format!("(bells of {name})"), e);
        let page = Memory::new(&format!("rtd-bells:{name}"), Bells::BYTES).map_err(failed)?;
        let bells = match &self.doorbells {
            None => page.map_writable().and_then(Bells::shared).map_err(failed)?,
            Some(doorbells) => doorbells.bells(process).map_err(RingsError::Doorbell)?,
        };
        let mut prepared = Prepared { bells, page, ends: Vec::new(), handles: Vec::new() };
        for channel in &self.table.channels[process] {
            let endpoint = || channel.told.endpoint.to_string();
            let locked = prepared.add(channel).map_err(|e| RingsError::Io(endpoint(), e))?;
            if !locked && !self.allow_unlocked {
                return Err(RingsError::Unlocked(endpoint()));
            }
        }
        Ok(prepared)
    }
}

impl Rings {
    /// A session that continues another gets no rings before the lane threads have let go of that one's. Then the client
    /// knows by the heads what they took: it moves the rest into its new rings, and nothing comes into its old ones any
    /// more. A source is left with what is in it; a session that nobody continues is emptied instead.
    fn let_go(&mut self, process: ProcessId, wanted: Wanted) -> Result<(), RingsError> {
        #[expect(clippy::cast_possible_truncation, reason = "the lower half travels")]
        let is_it = |(generation, pid): (u64, i32)| (generation as u32, pid) == (wanted.resumes, wanted.pid);
        let Some((generation, _)) = self.left[process].filter(|left| wanted.resumes != 0 && is_it(*left))
        else {
            return Ok(());
        };
        let mut held = None;
        for channel in &self.table.channels[process] {
            let holds = match channel.way {
                Way::Source(endpoint) => self.sources.get_mut(&endpoint).is_some_and(|lane| {
                    lane.feeder.leave(generation);
                    lane.feeder.collect()
                }),
                Way::Sink(route, end) => {
                    self.sinks.get_mut(&(route, end)).is_some_and(|lane| lane.feeder.collect())
                }
                Way::Direct(..) => false,
            };
            if holds {
                held = Some(channel.told.route.to_string());
            }
        }
        held.map_or(Ok(()), |route| Err(RingsError::Held(route)))
    }

    /// Both ends of a routed ring sleep at doorbells of one kind.
    fn on_one_skin(&self, process: ProcessId, semaphores: bool) -> Result<(), RingsError> {
        let routed = self.table.channels[process].iter().find(|channel| !channel.told.direct);
        let Some(Channel { endpoint, lane, .. }) = routed.map(|channel| &channel.told) else { return Ok(()) };
        let (lanes, own, mend) = match (self.doorbells.is_some(), semaphores) {
            (true, false) => (
                "semaphores",
                "futexes",
                "bind Cobalt (Builder::skin), or path = \"direct\", or an xddp endpoint",
            ),
            (false, true) => ("futexes", "semaphores", "rtd run --skin cobalt, or no Builder::skin"),
            _ => return Ok(()),
        };
        let (endpoint, lane) = (endpoint.to_string(), lane.to_string());
        Err(RingsError::Skin { endpoint, lane, skin: self.skin.name, lanes, own, mend })
    }
}

impl Prepared {
    /// One more ring, if the channel has one with the daemon; true unless its memory is not locked.
    fn add(&mut self, plan: &ChannelPlan) -> io::Result<bool> {
        let Channel { channel, endpoint, route, .. } = &plan.told;
        let (daemon, client) = match plan.way {
            Way::Source(_) => (Side::Consumer, Side::Producer),
            Way::Sink(..) => (Side::Producer, Side::Consumer),
            Way::Direct(..) => return Ok(true),
        };
        let shared = Shared::create(&format!("rtd:{route}:{endpoint}"), plan.geometry)?;
        let bell = daemon_bell(*channel);
        let (end, locked) = match plan.way {
            Way::Sink(route, end) => {
                let producer = shared.producer(&self.bells, bell)?;
                let producer = if plan.told.keep > 0 { producer.displacing() } else { producer };
                let locked = producer.is_locked();
                (DaemonEnd::Sink((route, end), producer), locked)
            }
            Way::Source(endpoint) => {
                let consumer = shared.consumer(&self.bells, bell)?;
                let locked = consumer.is_locked();
                (DaemonEnd::Source(endpoint, consumer), locked)
            }
            Way::Direct(..) => return Ok(true),
        };
        // Mapped here, so nobody else ever has to: whatever descriptors leave, none makes a writer of it.
        shared.seal(daemon)?;
        self.handles.push((*channel, shared.handles(client)?));
        self.ends.push(end);
        Ok(locked)
    }
}
