//! A client, as far as its partner and the daemon see it: `rtcore::client::session_thread` with its
//! senders and inboxes.

use super::*;

/// Either client; what only the sender or only the receiver has is empty at the other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Client {
    pub alive: bool,
    pub connection: Option<Connection>,
    /// A connection that it has closed, and that the daemon has not read to its end.
    pub closed: Option<Vec<Request>>,
    /// The routed ring of a session that opens, and whether it is mapped.
    pub opening: Option<(usize, bool)>,
    pub is_up: bool,
    /// A direct ring of which it has mapped its half.
    pub half: Option<(u32, usize)>,
    /// Sender: the direct ring in use, and whether it came by this connection.
    pub ring: Option<usize>,
    pub is_of_connection: bool,
    /// Sender: earlier direct rings, which the receiver empties.
    pub old: Vec<usize>,
    /// Receiver: direct rings to read, one after the other.
    pub rings: Vec<usize>,
    /// Routed rings: the sender's one, or the receiver's, one after the other.
    pub routed: Vec<usize>,
    pub is_reached: bool,
    pub is_direct_reached: bool,
    /// Receiver: the last numbers, of the direct and of the routed pair.
    pub last: [Option<u8>; 2],
}

impl Default for Client {
    fn default() -> Client {
        Client {
            alive: true,
            connection: None,
            closed: None,
            opening: None,
            is_up: false,
            half: None,
            ring: None,
            is_of_connection: false,
            old: Vec::new(),
            rings: Vec::new(),
            routed: Vec::new(),
            is_reached: true,
            is_direct_reached: false,
            last: [None; 2],
        }
    }
}

pub(super) fn steps(world: &World, defect: Defect, progress: &mut Steps, other: &mut Steps) {
    for process in [SENDING, RECEIVING] {
        let client = &world.clients[process];
        if !client.alive {
            continue;
        }
        match &client.connection {
            Some(connection) if !connection.to_client.is_empty() => {
                progress.push(("read a frame", world.with(|w| w.read(process, defect))));
            }
            Some(connection) if connection.is_closed => {
                progress.push(("hang up", world.with(|w| w.hang_up(process, defect))));
            }
            _ => {}
        }
        if !world.mishap {
            other.push(("kill a client", world.with(|w| w.kill_client(process))));
        }
        if !world.mishap && client.is_up {
            other.push((
                "replace a session",
                world.with(|w| w.replace(process, defect)),
            ));
        }
    }
    if world.clients[SENDING].alive {
        progress.push(("see the receiver's death", world.with(World::on_peer_exit)));
        send(world, other);
    }
    if world.clients[RECEIVING].alive {
        receive(world, progress);
    }
}

fn send(world: &World, other: &mut Steps) {
    let sender = &world.clients[SENDING];
    let next = world.outcomes[..DIRECT_MAX]
        .iter()
        .position(|outcome| *outcome == Outcome::NotSent);
    if let (Some(ring), Some(next), true) = (sender.ring, next, sender.is_direct_reached) {
        other.push((
            "send directly",
            world.with(|w| w.rings[ring].push(&mut w.outcomes, next)),
        ));
    }
    let connected = sender
        .connection
        .as_ref()
        .is_some_and(|connection| !connection.is_closed);
    if let (Some(&ring), true) = (
        sender.routed.first(),
        sender.is_up && sender.is_reached && connected,
    ) && world.outcomes[ROUTED] == Outcome::NotSent
    {
        other.push((
            "send through the daemon",
            world.with(|w| w.routed[ring].push(&mut w.outcomes, ROUTED)),
        ));
    }
}

impl Ring {
    fn push(&mut self, outcomes: &mut [Outcome], message: usize) {
        outcomes[message] = Outcome::Accepted;
        self.messages.push(u8::try_from(message).unwrap());
    }
}

fn receive(world: &World, progress: &mut Steps) {
    let receiver = &world.clients[RECEIVING];
    if let Some(&first) = receiver
        .rings
        .first()
        .filter(|ring| !world.rings[**ring].unread().is_empty())
    {
        progress.push(("receive directly", world.with(|w| w.receive(first, 0))));
    }
    if let Some(&first) = receiver
        .routed
        .first()
        .filter(|ring| !world.routed[**ring].unread().is_empty())
    {
        progress.push((
            "receive from the daemon",
            world.with(|w| w.receive(first, 1)),
        ));
    }
}

impl World {
    pub(super) fn with(&self, change: impl FnOnce(&mut World)) -> World {
        let mut world = self.clone();
        change(&mut world);
        world
    }

    fn connect(&mut self, process: ProcessId) {
        let to_daemon = vec![Request::Open];
        self.clients[process].connection = Some(Connection {
            to_daemon,
            ..Connection::default()
        });
    }

    fn request(&mut self, process: ProcessId, request: Request) {
        let connection = self.clients[process].connection.as_mut();
        if let Some(connection) = connection.filter(|connection| !connection.is_closed) {
            connection.to_daemon.push(request);
        }
    }

    fn read(&mut self, process: ProcessId, defect: Defect) {
        let Some(connection) = self.clients[process].connection.as_mut() else {
            return;
        };
        let frame = connection.to_client.remove(0);
        self.take(process, frame, defect);
        // What Reach says may as well be sent later.
        while let Some(connection) = &mut self.clients[process].connection
            && matches!(connection.to_client.first(), Some(Frame::Reach { .. }))
        {
            let frame = connection.to_client.remove(0);
            self.take(process, frame, defect);
        }
    }

    fn take(&mut self, process: ProcessId, frame: Frame, defect: Defect) {
        let client = &mut self.clients[process];
        match frame {
            Frame::Map { serial } => {
                client
                    .opening
                    .iter_mut()
                    .for_each(|(_, mapped)| *mapped = true);
                self.request(process, Request::Mapped { serial });
            }
            Frame::Ready => self.ready(process),
            Frame::Reach {
                channel: 0,
                reachable,
            } => client.is_reached = reachable,
            Frame::Reach { reachable, .. } => {
                if client.is_of_connection {
                    client.is_direct_reached = reachable;
                }
            }
            Frame::Ring { serial, ring } => {
                self.drop_half(process, defect);
                self.clients[process].half = Some((serial, ring));
                self.request(process, Request::Mapped { serial });
            }
            Frame::Join { serial, ring } => {
                if client.half == Some((serial, ring)) {
                    client.half = None;
                    if process == SENDING {
                        self.join_sender(ring)
                    } else {
                        client.rings.push(ring)
                    }
                }
            }
        }
    }

    /// Messages of the ring before that the daemon has not taken are moved into the new one.
    fn ready(&mut self, process: ProcessId) {
        let client = &mut self.clients[process];
        client.is_up = true;
        let Some((routed, _)) = client.opening.take() else {
            self.broken = Some("Ready before the rings");
            return;
        };
        if process == RECEIVING {
            client.routed.push(routed);
        } else if let Some(before) = client.routed.pop() {
            client.routed.push(routed);
            let moved = self.routed[before].unread().to_vec();
            self.routed[before].head += moved.len();
            self.routed[routed].messages.extend(moved);
        } else {
            client.routed.push(routed);
        }
    }

    /// `TxChannel::renew`.
    fn join_sender(&mut self, ring: usize) {
        let client = &mut self.clients[SENDING];
        let before = client.ring.replace(ring);
        (client.is_of_connection, client.is_direct_reached) = (true, true);
        let Some(before) = before else { return };
        self.rings[before].closed = true;
        let unread = self.rings[before].unread().to_vec();
        if !self.clients[RECEIVING].alive {
            self.count(&unread);
        } else if self.rings[before].left {
            self.rings[before].head += unread.len();
            self.rings[ring].messages.extend(unread);
        } else {
            self.clients[SENDING].old.push(before);
        }
    }

    /// `TxChannel::on_peer_exit`.
    fn on_peer_exit(&mut self) {
        if self.clients[RECEIVING].alive {
            return;
        }
        if let Some(ring) = self.clients[SENDING].ring.take() {
            self.rings[ring].closed = true;
            let unread = self.rings[ring].unread().to_vec();
            self.count(&unread);
        }
    }

    /// What the clients do by themselves: connect, forget earlier rings (`TxChannel::settle_old`),
    /// go on to the next ring (`RxHandle::settle`).
    pub(super) fn go_on(&mut self) {
        for process in [SENDING, RECEIVING] {
            let client = &self.clients[process];
            if client.alive && client.connection.is_none() && self.daemon.is_some() {
                self.connect(process);
            }
        }
        for ring in std::mem::take(&mut self.clients[SENDING].old) {
            let unread = self.rings[ring].unread().to_vec();
            if !self.clients[RECEIVING].alive || self.rings[ring].left {
                self.count(&unread);
            } else if !unread.is_empty() {
                self.clients[SENDING].old.push(ring);
            }
        }
        let sender_lives = self.clients[SENDING].alive;
        let (receiver, rings) = (&mut self.clients[RECEIVING], &mut self.rings);
        while let [first, _, ..] = receiver.rings[..]
            && rings[first].unread().is_empty()
            && (rings[first].closed || !sender_lives)
        {
            receiver.rings.remove(0);
            rings[first].left = true;
        }
        while let [first, _, ..] = receiver.routed[..]
            && self.routed[first].unread().is_empty()
        {
            receiver.routed.remove(0);
        }
    }

    fn drop_half(&mut self, process: ProcessId, defect: Defect) {
        let Some((_, ring)) = self.clients[process].half.take() else {
            return;
        };
        if defect != Defect::HalvesLeaveNoMark {
            let ring = &mut self.rings[ring];
            if process == SENDING {
                ring.closed = true
            } else {
                ring.left = true
            }
        }
    }

    fn hang_up(&mut self, process: ProcessId, defect: Defect) {
        self.drop_half(process, defect);
        let client = &mut self.clients[process];
        (client.connection, client.is_up, client.is_of_connection) = (None, false, false);
        if let Some((routed, true)) = client.opening.take()
            && process == RECEIVING
        {
            // The daemon may have delivered into it.
            client.routed.push(routed);
        }
    }

    fn receive(&mut self, ring: usize, pair: usize) {
        let rings = if pair == 0 {
            &mut self.rings
        } else {
            &mut self.routed
        };
        let message = rings[ring].messages[rings[ring].head];
        rings[ring].head += 1;
        let last = &mut self.clients[RECEIVING].last[pair];
        if last.is_none_or(|last| message > last) {
            *last = Some(message);
            self.deliver(message);
        }
    }

    /// Its descriptors are closed; the daemon reads what it has sent.
    fn close_connection(&mut self, process: ProcessId) {
        let connection = self.clients[process].connection.take();
        if let Some(connection) = connection.filter(|of| of.is_session && !of.is_closed) {
            self.clients[process].closed = Some(connection.to_daemon);
        }
    }

    fn kill_client(&mut self, process: ProcessId) {
        self.mishap = true;
        self.close_connection(process);
        let closed = self.clients[process].closed.take();
        self.clients[process] = Client {
            alive: false,
            closed,
            ..Client::default()
        };
    }

    /// The session is dropped, and the same process opens another.
    fn replace(&mut self, process: ProcessId, defect: Defect) {
        self.mishap = true;
        self.request(process, Request::Leave);
        self.close_connection(process);
        self.drop_half(process, defect);
        let Client {
            closed,
            ring,
            old,
            rings,
            routed,
            ..
        } = std::mem::take(&mut self.clients[process]);
        self.clients[process] = Client {
            closed,
            ..Client::default()
        };
        // `TxChannel::close_all`: the receiver reads what is in them, and a lane what is in a
        // routed ring.
        ring.into_iter()
            .chain(old)
            .for_each(|ring| self.rings[ring].closed = true);
        rings
            .into_iter()
            .for_each(|ring| self.rings[ring].left = true);
        if process == RECEIVING {
            // It drops its inbox with them.
            for ring in routed {
                let unread = self.routed[ring].unread().to_vec();
                self.count(&unread);
            }
        }
    }
}
