//! Notifications: frames of the daemon while a session is up, and exits of partners as the kernel
//! reports them, also without a daemon.

use super::opening::geometry;
use super::{Failure, SessionThread, WITNESS_MAX};
use crate::channel::Partner;
use crate::client::core::PEERS_MAX;
use crate::client::event::Event;
use crate::lane::peer::PeerState;
use crate::message::Origin;
use crate::ring::{Bells, Consumer, Half, Receipt, Side};
use crate::sys::memfd::Map;
use crate::sys::pidfd::PidFd;
use crate::wire::{Notice, PeerStatus, Request};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

/// Indices of the bells in a direct ring's page.
const CONSUMER_BELL: u32 = 0;
const PRODUCER_BELL: u32 = 1;
/// Limit of the direct rings that wait for their other half.
const HALVES_MAX: usize = 256;

/// The process at the other end of a direct ring, as rtd reports it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Other {
    pid: u32,
    uid: u32,
    program: u32,
}

/// A direct ring whose own memory this end has mapped, and which waits for the other half.
#[derive(Debug)]
pub(super) struct HalfRing {
    channel: u32,
    serial: u32,
    other: Other,
    half: Half,
    own: OwnedFd,
    page: OwnedFd,
}

/// The list that contains a channel.
enum At {
    TxEnd(usize),
    RxEnd(usize),
}

impl SessionThread {
    pub(super) fn notice(&mut self, notice: Notice, fds: Vec<OwnedFd>) -> Result<(), Failure> {
        match notice {
            Notice::Ring {
                channel,
                serial,
                pid,
                uid,
                program,
                ..
            } => self.ring_half(channel, serial, Other { pid, uid, program }, fds),
            Notice::Join { channel, serial } => self.join(channel, serial, fds),
            Notice::Reach { channel, reachable } => {
                let connection = self.connection;
                if let Some(At::TxEnd(index)) = self.find(channel) {
                    let lost = self.outs[index].reach(reachable, connection);
                    self.report_lost(self.outs[index].channel.endpoint, lost);
                }
                Ok(())
            }
            Notice::Peer(status) => {
                self.peer(status);
                Ok(())
            }
            Notice::Channel(_) | Notice::Map { .. } | Notice::Ready => {
                Err(Failure::Protocol(format!("{notice:?} after Ready")))
            }
        }
    }

    fn find(&self, id: u32) -> Option<At> {
        let out = self
            .outs
            .iter()
            .position(|entry| entry.id == Some(id))
            .map(At::TxEnd);
        out.or_else(|| {
            self.ins
                .iter()
                .position(|entry| entry.id == Some(id))
                .map(At::RxEnd)
        })
    }

    /// The first step of a direct ring: maps the memory that this side writes.
    fn ring_half(
        &mut self,
        channel: u32,
        serial: u32,
        other: Other,
        fds: Vec<OwnedFd>,
    ) -> Result<(), Failure> {
        let [own, eventfd, page] = <[OwnedFd; 3]>::try_from(fds).map_err(|fds| {
            Failure::Protocol(format!(
                "{} descriptors with a direct ring, not 3",
                fds.len()
            ))
        })?;
        let (side, info) = match self.find(channel) {
            Some(At::TxEnd(index)) => (Side::Producer, self.outs[index].channel),
            Some(At::RxEnd(index)) => (Side::Consumer, self.ins[index].channel),
            None => {
                return Err(Failure::Protocol(format!(
                    "a ring for channel {channel}, which there is not"
                )));
            }
        };
        let failed = |e| Failure::system(&format!("mapping the ring of {}", info.endpoint))(e);
        let bells = Map::of(page.as_fd(), Receipt::PAGE_BYTES, true)
            .and_then(Bells::shared)
            .map_err(failed)?;
        let half = Half::new(side, geometry(&info)?, &own, eventfd, bells).map_err(failed)?;
        // If there is an earlier half for the same channel, it will not be joined any more.
        self.halves.retain(|half| half.channel != channel);
        if self.halves.len() == HALVES_MAX {
            return Err(Failure::Protocol(format!(
                "{HALVES_MAX} direct rings wait for their other halves"
            )));
        }
        self.halves.push(HalfRing {
            channel,
            serial,
            other,
            half,
            own,
            page,
        });
        let mapped = Request::Mapped { serial }.encode();
        match self.conn.as_ref().map(|conn| conn.send(&mapped)) {
            Some(Ok(false)) => Err(Failure::Protocol("rtd does not read".to_owned())),
            // The end of the connection is noticed after the frames that are still unread: the
            // other side may depend on them (a Join).
            _ => Ok(()),
        }
    }

    /// The second step: maps the other half, and watches its process.
    fn join(&mut self, channel: u32, serial: u32, fds: Vec<OwnedFd>) -> Result<(), Failure> {
        let [other, pidfd] = <[OwnedFd; 2]>::try_from(fds).map_err(|fds| {
            Failure::Protocol(format!("{} descriptors with Join, not 2", fds.len()))
        })?;
        let Some(at) = self
            .halves
            .iter()
            .position(|half| (half.channel, half.serial) == (channel, serial))
        else {
            // The frame belongs to a ring that was replaced meanwhile.
            return Ok(());
        };
        let HalfRing {
            other: Other { pid, uid, program },
            half,
            own,
            page,
            ..
        } = self.halves.swap_remove(at);
        let failed = Failure::system("mapping the other half of a direct ring");
        match self.find(channel) {
            Some(At::TxEnd(index)) => {
                // Everything that can fail comes first: dropping a half notifies the other end.
                let memory = [own, other, page];
                let (partner, connection) =
                    (self.partner(pidfd, pid, program, memory)?, self.connection);
                let other = &partner.consumer;
                let producer = half.into_producer(other, PRODUCER_BELL).map_err(failed)?;
                let entry = &mut self.outs[index];
                let lost = entry.renew(producer, Some(partner), connection);
                let endpoint = entry.channel.endpoint;
                self.report_lost(endpoint, lost);
            }
            Some(At::RxEnd(index)) => {
                let memory = [other, own, page];
                let partner = self.partner(pidfd, pid, program, memory)?;
                let other = &partner.producer;
                let consumer = half.into_consumer(other, CONSUMER_BELL).map_err(failed)?;
                let origin = Origin {
                    pid,
                    uid,
                    verified: true,
                };
                self.receive(index, consumer, Some((partner, origin)));
            }
            // The channel was removed from the table after its first half came.
            None => {}
        }
        Ok(())
    }

    /// Watches the process at the other end. The descriptors are those of the producer's memory, of
    /// the consumer's memory and of the page of the bells. The partner must be kept until it is
    /// removed from the set.
    fn partner(
        &mut self,
        pidfd: OwnedFd,
        pid: u32,
        program: u32,
        [producer, consumer, page]: [OwnedFd; 3],
    ) -> Result<Partner, Failure> {
        let token = self.next_token;
        self.next_token += 1;
        let pidfd = PidFd::from(pidfd);
        self.set
            .add(&pidfd, token)
            .map_err(Failure::system("watching a partner"))?;
        Ok(Partner {
            pidfd,
            pid,
            program,
            token,
            producer,
            consumer,
            page,
        })
    }

    /// Hands a ring to the receiver of this channel.
    pub(super) fn receive(
        &mut self,
        index: usize,
        consumer: Consumer,
        partner: Option<(Partner, Origin)>,
    ) {
        self.ins[index].renew(consumer, partner);
    }

    /// Handles the exit of a partner, which its descriptor reports.
    pub(super) fn partner_ended(&mut self, token: u64) {
        let mut found = None;
        let mut lost = None;
        for entry in &mut self.outs {
            if let Some(partner) = entry.partner(token) {
                let ending = partner.pidfd.ending(pid_of(partner));
                found = Some((entry.channel.process, partner.pid, ending));
                let _ = self.set.remove(&partner.pidfd);
                lost = Some((entry.channel.endpoint, entry.on_peer_exit(token, ending)));
            }
        }
        for entry in &mut self.ins {
            if let Some(partner) = entry.partner(token) {
                found = Some((
                    entry.channel.process,
                    partner.pid,
                    partner.pidfd.ending(pid_of(partner)),
                ));
                let _ = self.set.remove(&partner.pidfd);
                entry.on_peer_exit(token);
            }
        }
        if let Some((Some(process), pid, ending)) = found {
            let status = PeerStatus {
                process,
                state: PeerState::Dead,
                pid,
                ending,
            };
            // The daemon also watches the process and may know the cause of its exit, so the thread
            // waits for its report for a short time.
            if ending.is_some() || self.conn.is_none() {
                self.peer(status);
            } else if !self
                .unreported_exits
                .iter()
                .any(|(other, _)| *other == status)
            {
                self.unreported_exits
                    .push((status, Instant::now() + WITNESS_MAX));
            }
        }
        if let Some((endpoint, count)) = lost {
            self.report_lost(endpoint, count);
        }
        self.wake();
    }

    /// Reports the exits for whose causes the wait is `over`.
    pub(super) fn report_exit(&mut self, over: impl Fn(Instant) -> bool) {
        let (due, waiting) = std::mem::take(&mut self.unreported_exits)
            .into_iter()
            .partition(|(_, at)| over(*at));
        self.unreported_exits = waiting;
        let due: Vec<(PeerStatus, Instant)> = due;
        if due.is_empty() {
            return;
        }
        for (status, _) in due {
            self.peer(status);
        }
        self.wake();
    }

    /// Compares the known peers with those that a new daemon has reported: it knows only processes
    /// that have registered with it. Peers that have ended meanwhile are lost; the others are
    /// expected to reconnect.
    pub(super) fn mark_unreported(&mut self, reported: &[PeerStatus]) {
        let mut known = self.core.table().peers.clone();
        known.retain(|peer| {
            peer.state == PeerState::Alive
                && !reported.iter().any(|status| status.process == peer.process)
        });
        for peer in known {
            let pid = i32::try_from(peer.pid).unwrap_or(0);
            if !PidFd::open(pid).is_ok_and(|process| process.is_alive()) {
                self.peer(PeerStatus {
                    state: PeerState::Dead,
                    ending: None,
                    ..peer
                });
            }
        }
    }

    /// Records a change of a process. An exit is reported once, whether rtd or the kernel reports
    /// it first.
    pub(super) fn peer(&mut self, status: PeerStatus) {
        self.unreported_exits
            .retain(|(other, _)| (other.process, other.pid) != (status.process, status.pid));
        for entry in self
            .outs
            .iter()
            .filter(|entry| entry.channel.process == Some(status.process))
        {
            entry.set_ending(status.ending);
            entry.refuse_dead();
            if status.state != PeerState::Alive {
                entry.fail_held();
            }
        }
        let mut table = self.core.table();
        let before = table
            .peers
            .iter()
            .position(|peer| peer.process == status.process);
        // The report is about an earlier life: its descriptor reported it later than the daemon
        // reported the next life.
        let stale = |known: PeerStatus| known.state == PeerState::Alive && known.pid != status.pid;
        if status.state == PeerState::Dead && before.is_some_and(|at| stale(table.peers[at])) {
            return;
        }
        let event = event_of(before.map(|at| table.peers[at]), status);
        match before {
            Some(at) => {
                let known = table.peers[at];
                // A report without the cause of an exit does not overwrite a known cause.
                let same = known.state == status.state && known.pid == status.pid;
                let ending = if same {
                    status.ending.or(known.ending)
                } else {
                    status.ending
                };
                table.peers[at] = PeerStatus { ending, ..status };
            }
            None if table.peers.len() < PEERS_MAX => table.peers.push(status),
            None => {}
        }
        let at = table
            .peers
            .iter()
            .position(|peer| peer.process == status.process);
        if let Some(at) = at {
            // The pids of the name come first: a caller that finds the pid known must also find it
            // there.
            table.note_pid(&status);
            self.core.note_peer(at, status.pid);
        }
        drop(table);
        if let Some(event) = event {
            self.queue_event(event);
        }
    }
}

fn pid_of(partner: &Partner) -> i32 {
    i32::try_from(partner.pid).unwrap_or(0)
}

/// The event for this change; none if the state was already known.
fn event_of(before: Option<PeerStatus>, status: PeerStatus) -> Option<Event> {
    let PeerStatus {
        process,
        pid,
        ending,
        ..
    } = status;
    let was_alive = before.filter(|known| known.state == PeerState::Alive);
    match (was_alive, status.state) {
        (Some(known), PeerState::Alive) if known.pid == pid => None,
        (_, PeerState::Alive) => Some(Event::PeerBack { process, pid }),
        (Some(known), _) => Some(Event::PeerLost {
            process,
            pid: known.pid,
            ending,
        }),
        (None, PeerState::Dead) if before.is_none_or(|known| known.pid != pid) => {
            Some(Event::PeerLost {
                process,
                pid,
                ending,
            })
        }
        (None, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::pidfd::Ending;
    use crate::wire::Name;

    fn status(state: PeerState, pid: u32, ending: Option<Ending>) -> PeerStatus {
        PeerStatus {
            process: Name::new("drive").unwrap(),
            state,
            pid,
            ending,
        }
    }

    #[test]
    fn an_exit_and_a_return_are_reported_once() {
        use PeerState::{Alive, Dead, Unregistered};
        let process = Name::new("drive").unwrap();
        let killed = Some(Ending::Signal(9));
        let lost = |pid, ending| {
            Some(Event::PeerLost {
                process,
                pid,
                ending,
            })
        };
        let back = |pid| Some(Event::PeerBack { process, pid });
        assert_eq!(event_of(None, status(Alive, 7, None)), back(7));
        assert_eq!(
            event_of(Some(status(Alive, 7, None)), status(Alive, 7, None)),
            None
        );
        assert_eq!(
            event_of(Some(status(Alive, 7, None)), status(Alive, 8, None)),
            back(8)
        );
        assert_eq!(
            event_of(Some(status(Alive, 7, None)), status(Dead, 7, killed)),
            lost(7, killed)
        );
        assert_eq!(
            event_of(Some(status(Dead, 7, None)), status(Dead, 7, killed)),
            None
        );
        assert_eq!(
            event_of(Some(status(Alive, 7, None)), status(Unregistered, 7, None)),
            lost(7, None)
        );
        assert_eq!(event_of(None, status(Unregistered, 0, None)), None);
    }
}
