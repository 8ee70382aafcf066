//! A life of the daemon: the state machine, and what its effects do to connections, rings and
//! lanes.

use super::*;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Daemon {
    state: State,
    /// The direct ring in use, and the numbers of its ends.
    pub ring: Option<(usize, [u32; 2])>,
    /// By process: the routed ring of the session that opens, or is open.
    pub routed: [Option<usize>; 2],
    /// Which of them the lane has.
    pub source: Vec<usize>,
    pub sink: Option<usize>,
    /// The lane has delivered the first message of its source, and not released it yet.
    in_hand: bool,
}

pub(super) fn steps(
    world: &World,
    topology: &Topology,
    defect: Defect,
    progress: &mut Steps,
    other: &mut Steps,
) {
    let Some(daemon) = &world.daemon else {
        if world.lives < LIVES_MAX {
            progress.push(("start the daemon", world.with(|w| w.start(topology))));
        }
        return;
    };
    for process in [SENDING, RECEIVING] {
        for (step, events, world) in world.events(daemon, process) {
            world.serve(topology, defect, events, step, progress, other);
        }
    }
    world
        .clone()
        .serve(topology, defect, vec![Event::Tick], "tick", progress, other);
    if world.lives < LIVES_MAX {
        other.push(("kill the daemon", world.with(World::kill_daemon)));
    }
    lane(world, daemon, progress);
}

/// A lane thread moves the first message of its source.
fn lane(world: &World, daemon: &Daemon, progress: &mut Steps) {
    let Some(&source) = daemon.source.first() else {
        return;
    };
    let Some(&message) = world.routed[source].unread().first() else {
        if daemon.source.len() > 1 {
            progress.push((
                "take the next source",
                world.with(|w| w.lane(|daemon| _ = daemon.source.remove(0))),
            ));
        }
        return;
    };
    let status = daemon.state.status(RECEIVING).map(|status| status.state);
    match (daemon.in_hand, daemon.sink, status) {
        (true, ..) => progress.push((
            "release",
            world.with(|w| {
                w.routed[source].head += 1;
                w.lane(|daemon| daemon.in_hand = false);
            }),
        )),
        (false, Some(sink), Some(PeerState::Alive)) => progress.push((
            "deliver",
            world.with(|w| {
                w.routed[sink].messages.push(message);
                w.lane(|daemon| daemon.in_hand = true);
            }),
        )),
        (false, _, Some(PeerState::Dead)) => progress.push((
            "count as peer-dead",
            world.with(|w| {
                w.count(&[message]);
                w.routed[source].head += 1;
            }),
        )),
        // It is expected back.
        _ => {}
    }
}

impl World {
    fn start(&mut self, topology: &Topology) {
        self.lives += 1;
        self.daemon = Some(Daemon {
            state: topology.start(),
            ring: None,
            routed: [None; 2],
            source: Vec::new(),
            sink: None,
            in_hand: false,
        });
    }

    fn kill_daemon(&mut self) {
        self.daemon = None;
        for client in &mut self.clients {
            client.closed = None;
            if let Some(connection) = &mut client.connection {
                connection.is_closed = true;
                connection.to_daemon.clear();
            }
        }
    }

    fn lane(&mut self, change: impl FnOnce(&mut Daemon)) {
        if let Some(daemon) = &mut self.daemon {
            change(daemon);
        }
    }

    /// What the daemon may notice of a client next, and the world after it has read that.
    fn events(
        &self,
        daemon: &Daemon,
        process: ProcessId,
    ) -> Vec<(&'static str, Vec<Event>, World)> {
        let client = &self.clients[process];
        let dead = ProcessStatus {
            state: PeerState::Dead,
            pid: 1,
            ending: None,
        };
        let is_known = daemon
            .state
            .status(process)
            .is_some_and(|of| of.state == PeerState::Alive);
        let ended = |end| Event::Ended { process, end };
        let mut all = Vec::new();
        if let Some(requests) = &client.closed {
            let mut world = self.clone();
            let rest = world.clients[process].closed.as_mut().unwrap();
            if requests.is_empty() {
                world.clients[process].closed = None;
                // `Control::leave`: nobody asks about a process whose session is not open yet.
                let fates = match (client.alive, is_known) {
                    (false, true) => &[Fate::Dying, Fate::Died][..],
                    _ => &[Fate::Lives],
                };
                for fate in fates {
                    all.push((
                        "see the end of a session",
                        vec![ended(End::HungUp(*fate))],
                        world.clone(),
                    ));
                }
            } else {
                let event = event_of(process, rest.remove(0));
                all.push(("read a request", event, world));
            }
        }
        if !client.alive && is_known {
            let mut world = self.clone();
            let left = world.clients[process]
                .closed
                .take()
                .is_some_and(|of| of.contains(&Request::Leave));
            let events = if left {
                vec![ended(End::Left)]
            } else {
                Vec::new()
            };
            let events = events
                .into_iter()
                .chain([Event::Changed {
                    process,
                    status: dead,
                }])
                .collect();
            all.push(("see the death of a client", events, world));
        }
        if let Some(connection) = client
            .connection
            .as_ref()
            .filter(|of| !of.to_daemon.is_empty())
        {
            let mut world = self.clone();
            let own = world.clients[process].connection.as_mut().unwrap();
            let request = own.to_daemon.remove(0);
            let events = if connection.is_session {
                event_of(process, request)
            } else {
                // `Control::vacate`: the session before was left, and that was not read yet.
                let former = world.clients[process].closed.take();
                let former = former.map(|_| ended(End::HungUp(Fate::Lives)));
                former
                    .into_iter()
                    .chain([Event::Admitted { process }])
                    .collect()
            };
            all.push(("read a request", events, world));
        }
        all
    }

    /// Carries out all effects of the events; the daemon may be killed before each.
    fn serve(
        mut self: World,
        topology: &Topology,
        defect: Defect,
        mut events: Vec<Event>,
        step: &'static str,
        progress: &mut Steps,
        other: &mut Steps,
    ) {
        events.reverse();
        while let Some(event) = events.pop() {
            let Some(daemon) = &mut self.daemon else {
                return;
            };
            let mut effects = topology.step(&mut daemon.state, event);
            if defect == Defect::SenderJoinsFirst
                && let [Effect::SendJoin { .. }, Effect::SendJoin { .. }, ..] = effects[..]
            {
                effects.swap(0, 1);
            }
            let mut next = Vec::new();
            for effect in effects {
                if matches!(
                    effect,
                    Effect::Send {
                        message: Message::Peer { .. },
                        ..
                    } | Effect::Record { .. }
                ) {
                    continue;
                }
                let is_seen = is_seen_outside(&effect);
                if defect != Defect::Without(name(&effect)) {
                    next.extend(self.apply(effect));
                }
                if is_seen && self.lives < LIVES_MAX {
                    other.push((
                        "kill the daemon between two effects",
                        self.with(World::kill_daemon),
                    ));
                }
            }
            events.extend(next.into_iter().rev());
        }
        progress.push((step, self));
    }

    fn apply(&mut self, effect: Effect) -> Option<Event> {
        let changed = |process, state| {
            Some(Event::Changed {
                process,
                status: ProcessStatus {
                    state,
                    pid: 1,
                    ending: None,
                },
            })
        };
        match effect {
            Effect::Introduce { process, .. } => {
                self.routed.push(Ring::default());
                let routed = self.routed.len() - 1;
                self.lane(|daemon| daemon.routed[process] = Some(routed));
                // The client does nothing about it before Map.
                let client = &mut self.clients[process];
                if let Some(connection) = &mut client.connection {
                    connection.is_session = true;
                    (client.opening, client.is_reached) = (Some((routed, false)), true);
                }
            }
            Effect::Send { to, message } => match message {
                Message::Map { serial } => self.send(to, Frame::Map { serial }),
                Message::Ready => self.send(to, Frame::Ready),
                Message::Reach { channel, reachable } => {
                    self.send(to, Frame::Reach { channel, reachable })
                }
                Message::Peer { .. } => {}
            },
            Effect::Attach { process } if process == RECEIVING => {
                let mapped = self.clients[process]
                    .opening
                    .is_none_or(|(_, mapped)| mapped);
                if self.clients[process].alive && !mapped {
                    self.broken = Some("a lane has a ring that its receiver has not mapped");
                }
                self.lane(|daemon| daemon.sink = daemon.routed[process]);
            }
            Effect::Announce { process } => return changed(process, PeerState::Alive),
            Effect::Release { process } => return changed(process, PeerState::Unregistered),
            Effect::CountDeath { process } => return changed(process, PeerState::Dead),
            Effect::ReadFrom { process } if process == SENDING => {
                self.lane(|daemon| daemon.source.extend(daemon.routed[SENDING]));
            }
            Effect::Disconnect { process } => self.disconnect(process),
            Effect::Close { process } => self.close(process),
            Effect::Create { serials, .. } => {
                self.rings.push(Ring::default());
                let ring = self.rings.len() - 1;
                self.lane(|daemon| daemon.ring = Some((ring, serials)));
            }
            Effect::SendRing { end, .. } | Effect::SendJoin { end, .. } => {
                let (ring, serials) = self.daemon.as_ref().and_then(|daemon| daemon.ring)?;
                let (process, serial) = ([SENDING, RECEIVING][end], serials[end]);
                let is_join = matches!(effect, Effect::SendJoin { .. });
                self.send(
                    process,
                    if is_join {
                        Frame::Join { serial, ring }
                    } else {
                        Frame::Ring { serial, ring }
                    },
                );
            }
            Effect::Seal { route, .. } => return Some(Event::Sealed { route }),
            _ => {}
        }
        None
    }

    fn send(&mut self, process: ProcessId, frame: Frame) {
        let connection = self.clients[process].connection.as_mut();
        if let Some(connection) = connection.filter(|of| of.is_session && !of.is_closed) {
            connection.to_client.push(frame);
        }
    }

    fn disconnect(&mut self, process: ProcessId) {
        let client = &mut self.clients[process];
        if client.closed.take().is_none()
            && let Some(connection) = client.connection.as_mut().filter(|of| of.is_session)
        {
            connection.is_closed = true;
            connection.to_daemon.clear();
        }
    }

    fn close(&mut self, process: ProcessId) {
        self.disconnect(process);
        self.lane(|daemon| {
            daemon.ring = None;
            daemon.routed[process] = None;
        });
        if process == RECEIVING {
            let sink = self.daemon.as_mut().and_then(|daemon| daemon.sink.take());
            // A receiver that has left reads nothing more (`Reports::count_unread`).
            if let Some(sink) = sink.filter(|sink| !self.clients[RECEIVING].routed.contains(sink)) {
                let unread = self.routed[sink].unread().to_vec();
                self.count(&unread);
            }
        }
    }
}

fn event_of(process: ProcessId, request: Request) -> Vec<Event> {
    match request {
        Request::Open => Vec::new(),
        Request::Mapped { serial } => vec![Event::Mapped { process, serial }],
        Request::Leave => vec![Event::Ended {
            process,
            end: End::Left,
        }],
    }
}

/// Whether it makes a difference to anybody else if the daemon is killed before this effect or
/// after it.
fn is_seen_outside(effect: &Effect) -> bool {
    use Effect::{Close, Disconnect, Introduce, Send, SendJoin, SendRing};
    matches!(
        effect,
        Close { .. }
            | Disconnect { .. }
            | Introduce { .. }
            | Send { .. }
            | SendJoin { .. }
            | SendRing { .. }
    )
}

fn name(effect: &Effect) -> &'static str {
    match effect {
        Effect::Send {
            message: Message::Map { .. },
            ..
        } => "Map",
        Effect::Send {
            message: Message::Ready,
            ..
        } => "Ready",
        Effect::Send {
            message: Message::Reach { .. },
            ..
        } => "Reach",
        Effect::Attach { .. } => "Attach",
        Effect::Announce { .. } => "Announce",
        Effect::ReadFrom { .. } => "ReadFrom",
        Effect::SendRing { .. } => "SendRing",
        Effect::SendJoin { .. } => "SendJoin",
        Effect::Close { .. } => "Close",
        _ => "",
    }
}
