//! The consequences of an event: the next state, and an ordered list of effects.
//!
//! A session:
//!
//! | phase | `Admitted` | `Mapped` | `Changed(Alive)` | `Ended` | `Changed(Dead)`, `Changed(Unregistered)` |
//! |---|---|---|---|---|---|
//! | `Closed` | `Opening` | | | | |
//! | `Opening` | | `Mapped`, if it answers Map | | `Closed` | `Closed` |
//! | `Mapped` | | | `Open` | `Closed` | `Closed` |
//! | `Open` | | | | `Dying` if the process is about to end; else its name is released or its death is counted, and `Changed` follows | `Closed` |
//! | `Dying` | | | | stays if it is still about to end; else as in `Open` | `Closed` |
//!
//! The ring of a direct route:
//!
//! | link | `Changed(Alive)`, `Tick`, if both sessions are open | `Made` | `Mapped` by both | `Sealed` | `Broken` | an end closes |
//! |---|---|---|---|---|---|---|
//! | `None` | `Offered`, or `Making` if it is large | | | | | |
//! | `Making` | | `Offered` if both are open, else `None` | | | | |
//! | `Offered` | | | `Sealing` | | `None` | `None` |
//! | `Sealing` | | | | `Joined` | `None` | `None` |
//! | `Joined` | | | | | `None` | `None` |
//!
//! Invariant: the effects of one list are carried out in order. An effect that fails returns an
//! event, which is served next; `Attach`, `Grant` and `Announce` also end their list then. After
//! each step every open session has been sent which of its channels somebody receives from.

use super::event::{Effect, End, Event, Fate, Message, ProcessStatus};
use crate::plan::{ProcessId, RouteId};
use rtcore::lane::peer::PeerState;
use std::collections::BTreeMap;

/// Index of a direct route's sender in pairs.
pub const SENDER: usize = 0;
/// Index of its receiver.
pub const RECEIVER: usize = 1;

/// The processes and the connections between them, computed from the plan once.
#[derive(Clone, Debug)]
pub struct Topology {
    /// For each process: its channels, in the order of their numbers.
    pub channels: Vec<Vec<ChannelKind>>,
    /// For each process: its partners, which it sends to or receives from.
    pub partners: Vec<Vec<ProcessId>>,
    /// The direct routes.
    pub direct: BTreeMap<RouteId, DirectKind>,
}

/// A direct route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectKind {
    /// Sender and receiver.
    pub ends: [ProcessId; 2],
    /// The memory of its ring is made on another thread.
    pub large: bool,
}

/// A channel, with the data that determine its reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChannelKind {
    /// The session sends through the daemon to these receivers.
    Routed(Vec<Receiver>),
    /// The session sends into the ring of this route.
    Direct(RouteId),
    /// The session receives from the daemon.
    Inbound,
    /// The session receives from another process.
    DirectInbound,
}

/// A receiver of a sender's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receiver {
    /// A queue, owned by this process if it has an owner; it takes messages unless that process has
    /// died.
    Queue(Option<ProcessId>),
    /// A process that must be registered.
    Signal(Option<ProcessId>),
    /// A process that must have a session.
    Session(Option<ProcessId>),
}

/// The state of all sessions and direct rings.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    processes: Vec<Process>,
    links: BTreeMap<RouteId, Link>,
    /// The last number of a ring or of a Map.
    serial: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Process {
    phase: Phase,
    status: ProcessStatus,
    /// For each channel: whether it has a receiver, as the session was last notified.
    reach: Vec<bool>,
}

/// The phase of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// There is none.
    Closed,
    /// Its rings were sent, and rtd awaits the answer to the Map with this serial. Neither the
    /// registry nor a lane knows the session.
    Opening {
        /// Serial of the Map.
        map: u32,
    },
    /// The client has mapped its rings. Lanes get their ends, and the process gets its name.
    Mapped,
    /// The lanes have their ends, and the process has its name.
    Open,
    /// The connection has ended and the process is about to end. rtd awaits its death, which has a
    /// cause.
    Dying,
}

/// The ring of a direct route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Link {
    None,
    /// Its memory is being made.
    Making,
    /// Each end was sent the memory that it writes, with a serial of its own; the flags show which
    /// ends have mapped it.
    Offered {
        serials: [u32; 2],
        mapped: [bool; 2],
    },
    /// Both ends have mapped it. The memory is being sealed.
    Sealing {
        serials: [u32; 2],
    },
    /// Each end was sent the other's memory.
    Joined,
}

impl State {
    /// The phase of a process's session.
    pub fn phase(&self, process: ProcessId) -> Phase {
        self.processes
            .get(process)
            .map_or(Phase::Closed, |process| process.phase)
    }

    /// The known state of a process.
    pub fn status(&self, process: ProcessId) -> Option<ProcessStatus> {
        self.processes.get(process).map(|process| process.status)
    }

    /// Whether the client has not mapped its rings yet.
    pub fn is_opening(&self, process: ProcessId) -> bool {
        matches!(self.phase(process), Phase::Opening { .. } | Phase::Mapped)
    }

    /// Whether the lanes have its rings.
    pub fn is_in_force(&self, process: ProcessId) -> bool {
        matches!(self.phase(process), Phase::Open | Phase::Dying)
    }

    /// Whether the session was last notified that this channel has a receiver.
    #[cfg(test)]
    pub fn is_reached(&self, process: ProcessId, channel: usize) -> bool {
        let reach = self
            .processes
            .get(process)
            .and_then(|process| process.reach.get(channel));
        reach.copied().unwrap_or(false)
    }

    fn is_open(&self, process: ProcessId) -> bool {
        self.phase(process) == Phase::Open
    }

    fn next_serial(&mut self) -> u32 {
        self.serial = self.serial.wrapping_add(1);
        self.serial
    }
}

impl Topology {
    /// The start: there are no sessions.
    pub fn start(&self) -> State {
        let status = ProcessStatus {
            state: PeerState::Unregistered,
            pid: 0,
            ending: None,
        };
        let process = |_| Process {
            phase: Phase::Closed,
            status,
            reach: Vec::new(),
        };
        State {
            processes: self.channels.iter().map(process).collect(),
            links: self
                .direct
                .keys()
                .map(|route| (*route, Link::None))
                .collect(),
            serial: 0,
        }
    }

    /// Computes the effects of an event.
    pub fn step(&self, state: &mut State, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Admitted { process } => self.admit(state, process, &mut effects),
            Event::Mapped { process, serial } => self.mapped(state, process, serial, &mut effects),
            Event::Changed { process, status } if status.state == PeerState::Alive => {
                self.appeared(state, process, status, &mut effects);
            }
            Event::Changed { process, status } => {
                self.disappeared(state, process, status, &mut effects);
            }
            Event::Ended { process, end } => self.end(state, process, end, &mut effects),
            Event::Made { route, ok } => self.made(state, route, ok, &mut effects),
            Event::Sealed { route } => sealed(state, route, &mut effects),
            Event::Broken { route } => {
                state.links.insert(route, Link::None);
            }
            Event::Tick => self.link(state, &mut effects),
            Event::Stopped => effects.push(Effect::LeaveToNext),
        }
        for process in 0..state.processes.len() {
            self.report_reach(state, process, &mut effects);
        }
        effects
    }

    fn admit(&self, state: &mut State, process: ProcessId, effects: &mut Vec<Effect>) {
        if state.phase(process) != Phase::Closed {
            return;
        }
        let channels = &self.channels[process];
        let is_routed = |channel: &&ChannelKind| {
            matches!(channel, ChannelKind::Routed(_) | ChannelKind::Inbound)
        };
        channels
            .iter()
            .filter(is_routed)
            .for_each(|_| _ = state.next_serial());
        let map = state.next_serial();
        let entry = &mut state.processes[process];
        entry.phase = Phase::Opening { map };
        // The state that a client assumes until it is notified of another one.
        entry.reach = channels
            .iter()
            .map(|channel| matches!(channel, ChannelKind::Routed(_)))
            .collect();
        effects.push(Effect::Introduce { process, map });
        for of in &self.partners[process] {
            let status = state.processes[*of].status;
            if status.state != PeerState::Unregistered {
                effects.push(Effect::Send {
                    to: process,
                    message: Message::Peer { of: *of, status },
                });
            }
        }
        effects.push(Effect::Send {
            to: process,
            message: Message::Map { serial: map },
        });
    }

    fn mapped(
        &self,
        state: &mut State,
        process: ProcessId,
        serial: u32,
        effects: &mut Vec<Effect>,
    ) {
        if state.phase(process) == (Phase::Opening { map: serial }) {
            state.processes[process].phase = Phase::Mapped;
            effects.extend([
                Effect::Attach { process },
                Effect::Grant { process },
                Effect::Announce { process },
            ]);
            return;
        }
        for (route, link) in &mut state.links {
            let Link::Offered { serials, mapped } = link else {
                continue;
            };
            let mut ends = self.direct[route].ends.iter().zip(&*serials);
            let Some(end) = ends.position(|end| end == (&process, &serial)) else {
                continue;
            };
            mapped[end] = true;
            if *mapped == [true; 2] {
                let (route, serials) = (*route, *serials);
                *link = Link::Sealing { serials };
                effects.push(Effect::Seal { route, serials });
            }
            return;
        }
    }

    /// A process got its name: by a session that is put into effect, or without one.
    fn appeared(
        &self,
        state: &mut State,
        process: ProcessId,
        status: ProcessStatus,
        effects: &mut Vec<Effect>,
    ) {
        let entry = &mut state.processes[process];
        entry.status = status;
        if entry.phase == Phase::Mapped {
            entry.phase = Phase::Open;
            // Before Ready, so that the client sends no message in between that nobody would
            // receive.
            self.report_reach(state, process, effects);
            effects.push(Effect::Send {
                to: process,
                message: Message::Ready,
            });
            effects.push(Effect::Opened { process });
        }
        for to in &self.partners[process] {
            effects.push(Effect::Send {
                to: *to,
                message: Message::Peer {
                    of: process,
                    status,
                },
            });
        }
        if state.is_open(process) {
            // Only now: a process that receives its messages then knows their sender.
            effects.push(Effect::ReadFrom { process });
            self.link(state, effects);
        }
    }

    /// A process lost its name, and with it its session.
    fn disappeared(
        &self,
        state: &mut State,
        process: ProcessId,
        status: ProcessStatus,
        effects: &mut Vec<Effect>,
    ) {
        state.processes[process].status = status;
        self.close(state, process, effects);
        for to in &self.partners[process] {
            // First the notification that nobody receives: a sender that learns of the loss and
            // sends again is then refused.
            self.report_reach(state, *to, effects);
            effects.push(Effect::Send {
                to: *to,
                message: Message::Peer {
                    of: process,
                    status,
                },
            });
        }
    }

    /// Makes the rings of direct routes that have none and whose processes both have a session.
    fn link(&self, state: &mut State, effects: &mut Vec<Effect>) {
        for (&route, kind) in &self.direct {
            let both = kind.ends.iter().all(|end| state.is_open(*end));
            if !both || state.links.get(&route) != Some(&Link::None) {
                continue;
            }
            if kind.large {
                state.links.insert(route, Link::Making);
                effects.push(Effect::Order { route });
            } else {
                let serials = offer(state, route);
                effects.push(Effect::Create { route, serials });
                effects.extend([SENDER, RECEIVER].map(|end| Effect::SendRing { route, end }));
            }
        }
    }

    fn made(&self, state: &mut State, route: RouteId, ok: bool, effects: &mut Vec<Effect>) {
        if state.links.get(&route) != Some(&Link::Making) {
            return;
        }
        let wanted = self.direct[&route]
            .ends
            .iter()
            .all(|end| state.is_open(*end));
        if ok && wanted {
            let serials = offer(state, route);
            effects.push(Effect::Offer { route, serials });
            effects.extend([SENDER, RECEIVER].map(|end| Effect::SendRing { route, end }));
        } else {
            state.links.insert(route, Link::None);
            effects.extend(ok.then_some(Effect::Discard { route }));
        }
    }

    /// Ends a session.
    ///
    /// Before it is in effect nobody else knows it. Afterwards the registry takes the name away
    /// first, and the rest follows from `Changed`: a session therefore always ends in the same way,
    /// for any reason.
    fn end(&self, state: &mut State, process: ProcessId, end: End, effects: &mut Vec<Effect>) {
        match (state.phase(process), end) {
            (Phase::Closed, _) => {}
            (Phase::Opening { .. } | Phase::Mapped, end) => {
                let silent = matches!(end, End::Left | End::HungUp(_));
                effects.extend((!silent).then_some(Effect::Record { process, end }));
                self.close(state, process, effects);
            }
            (Phase::Open | Phase::Dying, End::HungUp(Fate::Dying)) => {
                state.processes[process].phase = Phase::Dying;
                effects.push(Effect::Disconnect { process });
            }
            (Phase::Open | Phase::Dying, End::HungUp(Fate::Died)) => {
                effects.push(Effect::CountDeath { process })
            }
            (Phase::Open | Phase::Dying, end) => {
                effects.extend([Effect::Record { process, end }, Effect::Release { process }]);
            }
        }
    }

    /// Closes a session. Its direct rings count as earlier ones from now on; memory that is being
    /// made may serve the next session.
    fn close(&self, state: &mut State, process: ProcessId, effects: &mut Vec<Effect>) {
        if std::mem::replace(&mut state.processes[process].phase, Phase::Closed) == Phase::Closed {
            return;
        }
        state.processes[process].reach.clear();
        for (route, link) in &mut state.links {
            if self.direct[route].ends.contains(&process) && *link != Link::Making {
                *link = Link::None;
            }
        }
        effects.push(Effect::Close { process });
    }

    /// Notifies an open session of its channels that have got or lost their receivers.
    fn report_reach(&self, state: &mut State, process: ProcessId, effects: &mut Vec<Effect>) {
        if !state.is_open(process) {
            return;
        }
        for (number, kind) in (0..).zip(&self.channels[process]) {
            let Some(reachable) = self.reach(state, kind) else {
                continue;
            };
            let known = &mut state.processes[process].reach[number as usize];
            if std::mem::replace(known, reachable) != reachable {
                let message = Message::Reach {
                    channel: number,
                    reachable,
                };
                effects.push(Effect::Send {
                    to: process,
                    message,
                });
            }
        }
    }

    /// Whether a channel has a receiver; `None` for a channel that the session receives from.
    fn reach(&self, state: &State, channel: &ChannelKind) -> Option<bool> {
        let is = |owner: ProcessId, wanted| {
            state
                .status(owner)
                .is_some_and(|status| status.state == wanted)
        };
        let receives = |receiver: &Receiver| match *receiver {
            Receiver::Queue(owner) => owner.is_none_or(|owner| !is(owner, PeerState::Dead)),
            Receiver::Signal(owner) => owner.is_some_and(|owner| is(owner, PeerState::Alive)),
            Receiver::Session(owner) => owner.is_some_and(|owner| state.is_in_force(owner)),
        };
        match channel {
            ChannelKind::Routed(receivers) => Some(receivers.iter().any(receives)),
            ChannelKind::Direct(route) => Some(state.links.get(route) == Some(&Link::Joined)),
            ChannelKind::Inbound | ChannelKind::DirectInbound => None,
        }
    }
}

/// Numbers for the ends of a ring of this route.
fn offer(state: &mut State, route: RouteId) -> [u32; 2] {
    let serials = [state.next_serial(), state.next_serial()];
    state.links.insert(
        route,
        Link::Offered {
            serials,
            mapped: [false; 2],
        },
    );
    serials
}

/// The memory of a ring is sealed: each end gets the other's half.
fn sealed(state: &mut State, route: RouteId, effects: &mut Vec<Effect>) {
    if !matches!(state.links.get(&route), Some(Link::Sealing { .. })) {
        return;
    }
    state.links.insert(route, Link::Joined);
    // The receiver's half comes first: messages of the sender then reach it even if the daemon is
    // killed in between.
    effects.extend([RECEIVER, SENDER].map(|end| Effect::SendJoin { route, end }));
}
