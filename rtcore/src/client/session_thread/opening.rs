//! The opening of a session: the frames between Open and Ready are collected, mapped at Map, and
//! put into effect at Ready.
//!
//! The daemon may deliver as soon as it knows that the rings are mapped. If a connection ends
//! between Mapped and Ready, the session still reads the receiving rings that came with it.

use super::{Failure, Phase, SessionThread};
use crate::client::core::{CHANNELS_MAX, Core, State};
use crate::client::event::Event;
use crate::lane::peer::PeerState;
use crate::ring::bell::{BELLS, daemon_bell};
use crate::ring::{Bells, Consumer, Geometry, Handles, Producer};
use crate::skin::{Semaphore, Skin, semaphore};
use crate::sys::memfd::Map;
use crate::wire::{Channel, Notice, PeerStatus, Reply, Request, Role, Semaphores, Status};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

/// Limit of the notices that may come before Ready and are handled after it.
const LATER_MAX: usize = 4 * CHANNELS_MAX;

/// A connection that is not yet open.
#[derive(Debug)]
pub(super) struct Opening {
    pub deadline: Instant,
    generation: u32,
    bells: Option<Bells>,
    /// By channel.
    semaphores: Vec<(u32, Semaphores)>,
    channels: Vec<(Channel, Option<Handles>)>,
    /// By channel, after Map.
    ends: Option<Vec<End>>,
    peers: Vec<PeerStatus>,
    later: Vec<(Notice, Vec<OwnedFd>)>,
}

/// The reaction to a notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Nothing,
    /// [`Opening::map`], and the answer with this serial.
    Map(u32),
    Ready,
}

/// A mapped end.
#[derive(Debug)]
enum End {
    Producer(Producer),
    Consumer(Consumer),
    /// A direct ring: its end comes when the other process has connected.
    Later,
}

impl Opening {
    pub fn new(deadline: Instant) -> Opening {
        let (bells, semaphores, channels) = (None, Vec::new(), Vec::new());
        let (peers, later) = (Vec::new(), Vec::new());
        Opening {
            deadline,
            generation: 0,
            bells,
            semaphores,
            channels,
            ends: None,
            peers,
            later,
        }
    }

    /// Whether the daemon may deliver into the rings.
    pub fn is_mapped(&self) -> bool {
        self.ends.is_some()
    }

    /// Handles the reply to Open.
    pub fn reply(&mut self, reply: Reply, fds: Vec<OwnedFd>) -> Result<(), Failure> {
        match reply.status {
            Status::Ok | Status::Pending => {}
            Status::Busy => return Err(Failure::Busy(reply)),
            _ => return Err(Failure::Refused(reply)),
        }
        let [page] = <[OwnedFd; 1]>::try_from(fds).map_err(|fds| {
            Failure::Protocol(format!(
                "{} descriptors with the answer to Open, not 1",
                fds.len()
            ))
        })?;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the lower half travels back"
        )]
        let generation = reply.generation as u32;
        self.generation = generation;
        let map = Map::of(page.as_fd(), Bells::BYTES, true)
            .map_err(Failure::system("mapping the page of bells"))?;
        self.bells = Some(Bells::shared(map).map_err(Failure::system("the page of bells"))?);
        Ok(())
    }

    /// Handles one notice.
    pub fn notice(&mut self, notice: Notice, fds: Vec<OwnedFd>) -> Result<Step, Failure> {
        if self.bells.is_none() {
            return Err(Failure::Protocol(format!(
                "{notice:?} before the answer to Open"
            )));
        }
        let mapped = self.ends.is_some();
        match notice {
            Notice::Ready => return Ok(Step::Ready),
            Notice::Map { .. } | Notice::Channel(_) if mapped => {
                return Err(Failure::Protocol(format!("{notice:?} after Map")));
            }
            Notice::Map { serial } => return Ok(Step::Map(serial)),
            Notice::Channel(channel) if self.channels.len() < CHANNELS_MAX => {
                self.channels.push((channel, None))
            }
            Notice::Channel(_) => {
                return Err(Failure::Protocol(format!(
                    "more than {CHANNELS_MAX} channels for one process"
                )));
            }
            Notice::Peer(news) => self.peers.push(news),
            Notice::Ring {
                channel,
                semaphores,
                ..
            } => match self.channels.iter_mut().find(|(c, _)| c.channel == channel) {
                Some((channel, handles)) if !channel.direct && !mapped => {
                    *handles = Some(handles_of(fds)?);
                    self.semaphores
                        .extend(semaphores.map(|named| (channel.channel, named)));
                }
                Some((channel, _)) if channel.direct => self.defer(notice, fds)?,
                Some(_) => return Err(Failure::Protocol(format!("{notice:?} after Map"))),
                None => {
                    return Err(Failure::Protocol(format!(
                        "a ring for channel {channel}, which there is not"
                    )));
                }
            },
            Notice::Join { .. } | Notice::Reach { .. } => self.defer(notice, fds)?,
        }
        Ok(Step::Nothing)
    }

    fn defer(&mut self, notice: Notice, fds: Vec<OwnedFd>) -> Result<(), Failure> {
        if self.later.len() == LATER_MAX {
            return Err(Failure::Protocol(format!(
                "more than {LATER_MAX} notices before Ready"
            )));
        }
        self.later.push((notice, fds));
        Ok(())
    }

    /// Maps all routed rings.
    pub fn map(&mut self, core: &Core) -> Result<(), Failure> {
        let Some(page) = &self.bells else {
            return Err(Failure::Protocol("Map before the answer to Open".into()));
        };
        let routed = self
            .channels
            .iter()
            .filter(|(channel, _)| !channel.direct)
            .count();
        let bells = match (core.has_semaphores(), self.semaphores.len()) {
            (false, 0) => page.clone(),
            (true, named) if named == routed => open_semaphores(core.skin, &self.semaphores)?,
            (_, named) => {
                return Err(Failure::Protocol(format!(
                    "{named} of {routed} rings with semaphores, on the skin {}",
                    core.skin.name
                )));
            }
        };
        let map = |(channel, handles): &mut (Channel, Option<Handles>)| {
            let geometry = geometry(channel)?;
            let failed =
                |e| Failure::system(&format!("mapping the ring of {}", channel.endpoint))(e);
            // The session's end sleeps at the bell with the channel's number; an inbox moves its
            // rings to one bell.
            let bell = channel.channel;
            let end = match (handles.take(), channel.role) {
                (None, _) if channel.direct => End::Later,
                (None, _) => {
                    return Err(Failure::Protocol(format!(
                        "no ring for `{}` before Map",
                        channel.endpoint
                    )));
                }
                (Some(handles), Role::Sender) => End::Producer(
                    handles
                        .into_producer(geometry, &bells, bell)
                        .map_err(failed)?,
                ),
                (Some(handles), _) => {
                    let consumer = handles
                        .into_consumer(geometry, &bells, bell)
                        .map_err(failed)?;
                    End::Consumer(consumer.keeping(channel.keep))
                }
            };
            Ok(end)
        };
        self.ends = Some(
            self.channels
                .iter_mut()
                .map(map)
                .collect::<Result<_, _>>()?,
        );
        Ok(())
    }
}

/// Opens the doorbells of all routed rings.
fn open_semaphores(skin: &Skin, channels: &[(u32, Semaphores)]) -> Result<Bells, Failure> {
    let open = |named: &Semaphores, number| {
        let failed = Failure::system("opening the doorbell of a ring");
        let name = semaphore::name(named.instance.as_str(), number);
        Semaphore::open(skin, &name).map(Arc::new).map_err(failed)
    };
    let mut by_number: Vec<Option<Arc<Semaphore>>> = (0..BELLS).map(|_| None).collect();
    for (channel, named) in channels {
        for (bell, number) in [(*channel, named.own), (daemon_bell(*channel), named.lane)] {
            let place = usize::try_from(bell)
                .ok()
                .and_then(|bell| by_number.get_mut(bell));
            let unknown = || Failure::Protocol(format!("no channel has the number {channel}"));
            *place.ok_or_else(unknown)? = Some(open(named, number)?);
        }
    }
    Ok(Bells::semaphores(by_number))
}

pub(super) fn geometry(channel: &Channel) -> Result<Geometry, Failure> {
    channel.geometry().ok_or_else(|| {
        let Channel {
            endpoint,
            slots,
            payload_bytes,
            ..
        } = channel;
        Failure::Protocol(format!(
            "`{endpoint}` has {slots} slots of {payload_bytes} bytes, which no ring has"
        ))
    })
}

fn handles_of(fds: Vec<OwnedFd>) -> Result<Handles, Failure> {
    <[OwnedFd; 3]>::try_from(fds)
        .map(Handles::from_fds)
        .map_err(|fds| Failure::Protocol(format!("{} descriptors with a ring, not 3", fds.len())))
}

impl SessionThread {
    /// Passes on to this daemon the memory that counts refusals and the direct rings of earlier
    /// daemons. This happens before the answer that the rings are mapped, and so before the program
    /// can send.
    ///
    /// A new connection has room for these frames. If it has none, or if descriptors run out, the
    /// messages of those rings still arrive, but are in no ledger.
    pub(super) fn hand_over(&self) {
        let (Phase::Opening(opening), Some(conn)) = (&self.phase, &self.conn) else {
            return;
        };
        let _ = conn.send_with(&Request::Refusals.encode(), &[self.core.refusals.as_fd()]);
        for (channel, _) in opening
            .channels
            .iter()
            .filter(|(channel, _)| channel.direct)
        {
            let out = self
                .outs
                .iter()
                .find(|entry| entry.channel.endpoint == channel.endpoint);
            let out = out.filter(|_| channel.role == Role::Sender);
            let into = self
                .known_receiver(channel)
                .filter(|_| channel.role != Role::Sender);
            let from = out
                .into_iter()
                .flat_map(|entry| entry.carried(channel.channel));
            let to = into
                .into_iter()
                .flat_map(|index| self.ins[index].carried(channel.channel));
            for (request, memory) in from.chain(to) {
                let _ = conn.send_with(&request.encode(), &memory);
            }
        }
    }

    /// Ready: puts the collected channels into effect.
    pub(super) fn open(&mut self, opening: Opening) -> Result<(), Failure> {
        let Opening {
            generation,
            channels,
            ends,
            peers,
            later,
            ..
        } = opening;
        let Some(ends) = ends else {
            return Err(Failure::Protocol("Ready before Map".into()));
        };
        self.connection += 1;
        self.generation = generation;
        let is_lonely = |id: u32| {
            let is_it = |notice: &Notice| {
                *notice
                    == Notice::Reach {
                        channel: id,
                        reachable: false,
                    }
            };
            later.iter().any(|(notice, _)| is_it(notice))
        };
        for ((channel, _), end) in channels.into_iter().zip(ends) {
            match channel.role {
                Role::Sender => self.open_sender(channel, end, is_lonely(channel.channel)),
                Role::Inbox | Role::Signal { .. } => self.open_receiver(channel, end),
            }
        }
        self.drop_absent();
        self.mark_unreported(&peers);
        for news in peers {
            self.peer(news);
        }
        self.fail_absent();
        self.publish();
        self.core.table().state = State::Up;
        if self.first.is_none() {
            self.queue_event(Event::Up);
        }
        for (notice, fds) in later {
            self.notice(notice, fds)?;
        }
        Ok(())
    }

    /// The connection ended before Ready: keeps the receiving rings that the daemon may have
    /// delivered into. The caller marks them as over.
    ///
    /// Returns whether they hold messages.
    pub(super) fn keep_received(&mut self, opening: Opening) -> bool {
        let Opening {
            channels,
            ends: Some(ends),
            ..
        } = opening
        else {
            return false;
        };
        let mut holds = false;
        for ((channel, _), end) in channels.into_iter().zip(ends) {
            let End::Consumer(mut consumer) = end else {
                continue;
            };
            // The inbox reports a ring whose messages cannot be counted. An empty ring is kept too:
            // a daemon that lives may deliver into it until its lane has released it.
            holds |= consumer.available().map_or(true, |count| count > 0);
            if let Some(index) = self.receiver_entry(channel) {
                self.receive(index, consumer, None);
            }
        }
        holds
    }

    /// `lonely`: nobody receives from this channel.
    fn open_sender(&mut self, channel: Channel, end: End, lonely: bool) {
        let Some(index) = self.sender_entry(channel) else {
            return;
        };
        let entry = &mut self.outs[index];
        (entry.channel, entry.id) = (channel, Some(channel.channel));
        match end {
            End::Producer(producer) => {
                let connection = self.connection;
                let open = if lonely {
                    entry.hold(producer, connection).err()
                } else {
                    Some(producer)
                };
                let lost = open.map_or(0, |producer| entry.renew(producer, None, connection));
                self.report_lost(channel.endpoint, lost);
            }
            _ => entry.await_partner(),
        }
    }

    /// Fails the held messages of channels whose receiver does not live. A receiver that lives will
    /// reconnect; until then its channel is down.
    fn fail_absent(&self) {
        let table = self.core.table();
        let lives = |peer: &&PeerStatus| peer.state == PeerState::Alive;
        for entry in &self.outs {
            if !table
                .peers
                .iter()
                .filter(lives)
                .any(|peer| entry.channel.process == Some(peer.process))
            {
                entry.fail_held();
            }
        }
    }

    fn open_receiver(&mut self, channel: Channel, end: End) {
        let Some(index) = self.receiver_entry(channel) else {
            return;
        };
        let entry = &mut self.ins[index];
        (entry.channel, entry.id) = (channel, Some(channel.channel));
        if let End::Consumer(consumer) = end {
            self.receive(index, consumer, None);
        }
    }

    /// Removes the channels that the new configuration does not have.
    fn drop_absent(&mut self) {
        let mut lost = Vec::new();
        for entry in self.outs.iter_mut().filter(|entry| entry.id.is_none()) {
            lost.push((entry.channel.endpoint, entry.remove()));
        }
        for (endpoint, count) in lost {
            self.report_lost(endpoint, count);
        }
        for entry in self.ins.iter_mut().filter(|entry| entry.id.is_none()) {
            entry.shut();
        }
    }
}
