//! The session thread's part of a sending channel: its rings, the processes at their other ends,
//! and the next ring that waits for the sender.

use super::WAITING_MAX;
use super::hand_off::{HandOff, HandOffItem, hand_off};
use super::partner::Partner;
use super::tx::{CloseReason, TxEnd, TxHandle, TxShared};
use crate::message::Origin;
use crate::refusals::Counter;
use crate::ring::{Producer, RecoveryCursor};
use crate::sys::pidfd::Ending;
use crate::wire::{Channel, Request};
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// A ring that was given to a sender.
#[derive(Debug)]
pub(crate) struct TxRing {
    shared: Arc<TxShared>,
    cursor: RecoveryCursor,
    /// The receiver of a direct ring; none for a ring of the daemon.
    partner: Option<Partner>,
    /// Number of the connection that it came by.
    connection: u64,
}

/// The states of a sending channel. A ring in `Ring` or `Held` takes messages until its barrier is
/// closed; messages in a closed ring wait there for the next ring.
///
/// | event | `Empty` | `Ring` routed | `Ring` direct | `Held` |
/// |---|---|---|---|---|
/// | next ring, [`TxChannel::renew`] | `Ring` | `Ring`; its messages move if the next is routed, else lost | `Ring`; left to a receiver that lives, else lost | `Ring` (next connection) |
/// | routed ring that nobody receives from, [`TxChannel::hold`] | `Held` | `Held`, barrier closed already | refused: [`TxChannel::renew`] follows | `Held` |
/// | receiver is there, [`TxChannel::reach`] | - | barrier opens | - | `Ring`; messages of the old ring move |
/// | connection ends, [`TxChannel::shut`] | - | barrier closes | - | `Ring` or `Empty`, as before `hold` |
/// | receiver ends, [`TxChannel::on_peer_exit`] | - | - | `Ended`, messages lost | - |
/// | channel removed, [`TxChannel::remove`] | - | `Empty`, messages lost | `Empty`, left to a receiver that lives | `Empty`, messages lost |
///
/// `Ended` takes no message and holds none: the next ring, and the end of the channel, follow it as
/// they follow `Empty`.
#[derive(Debug)]
enum TxState {
    /// No ring has come, or the channel was removed.
    Empty,
    /// The ring that the sender has or is offered.
    Ring(TxRing),
    /// A direct ring whose receiver has ended. Its messages were reported as lost.
    Ended(TxRing),
    /// A routed ring of this connection without receivers is held back together with the messages
    /// of the ring before it: the daemon would take these messages and deliver them to nobody.
    Held {
        before: Option<TxRing>,
        next: Producer,
        connection: u64,
    },
}

impl TxState {
    /// The ring that the sender has or is offered.
    fn ring(&self) -> Option<&TxRing> {
        match self {
            TxState::Empty => None,
            TxState::Ring(ring) | TxState::Ended(ring) => Some(ring),
            TxState::Held { before, .. } => before.as_ref(),
        }
    }

    /// Takes out the ring whose messages must still be moved or counted; drops a ring that was held
    /// back.
    fn take_ring(&mut self) -> Option<TxRing> {
        match std::mem::replace(self, TxState::Empty) {
            TxState::Empty | TxState::Ended(_) => None,
            TxState::Ring(ring) => Some(ring),
            TxState::Held { before, .. } => before,
        }
    }
}

#[derive(Debug)]
pub(crate) struct TxChannel {
    pub channel: Channel,
    /// The current daemon's number of the channel.
    pub id: Option<u32>,
    /// The shared state while the sender has no ring.
    none: Arc<TxShared>,
    hand_off: HandOff<TxEnd>,
    /// An offer that found no room in the hand-off: the sender has not run for a long time.
    waiting: Option<HandOffItem<TxEnd>>,
    state: TxState,
    /// Earlier direct rings whose receivers live: they may hold messages.
    old: Vec<TxRing>,
    /// Lost messages of these rings that are not reported yet.
    lost: u64,
    /// Partners of rings that are gone, still in the session thread's set.
    pub gone: Vec<Partner>,
}

impl TxChannel {
    pub fn new(index: usize, channel: Channel, counter: Counter) -> (TxChannel, TxHandle) {
        let (hand_off, ring_slot) = hand_off();
        let none = Arc::new(TxShared::new(&channel));
        let entry = TxChannel {
            channel,
            id: None,
            none: Arc::clone(&none),
            hand_off,
            waiting: None,
            state: TxState::Empty,
            old: Vec::new(),
            lost: 0,
            gone: Vec::new(),
        };
        (
            entry,
            TxHandle {
                index,
                ring_slot,
                none,
                sequence: 0,
                channel,
                corrupt: None,
                counter,
            },
        )
    }

    /// All rings that may hold messages.
    fn rings(&self) -> impl Iterator<Item = &TxRing> {
        self.state.ring().into_iter().chain(&self.old)
    }

    fn direct_ring(&self) -> Option<&TxRing> {
        self.state.ring().filter(|ring| ring.partner.is_some())
    }

    /// The direct rings that may hold messages, or that a sender uses.
    pub fn carried(&self, channel: u32) -> impl Iterator<Item = (Request, [BorrowedFd<'_>; 3])> {
        self.rings()
            .filter_map(move |ring| Some(ring.partner.as_ref()?.carry(channel)))
    }

    /// Takes a new ring. Messages that the old ring's daemon had not taken go in first; returns the
    /// number of those that found no room.
    pub fn renew(
        &mut self,
        mut producer: Producer,
        partner: Option<Partner>,
        connection: u64,
    ) -> u64 {
        let lost = self.abandon(Some((&mut producer, partner.as_ref())));
        let cursor = producer.recovery_cursor();
        let shared = Arc::new(TxShared::new(&self.channel));
        self.state = TxState::Ring(TxRing {
            shared: Arc::clone(&shared),
            cursor,
            partner,
            connection,
        });
        self.offer(Some(TxEnd {
            producer,
            shared,
            channel: self.channel,
        }));
        lost
    }

    /// Takes a new routed ring without receivers. Returns it if the channel was direct before: the
    /// sender must then learn about the change.
    #[expect(
        clippy::result_large_err,
        reason = "the end of a ring is handed back, on the session thread"
    )]
    pub fn hold(&mut self, next: Producer, connection: u64) -> Result<(), Producer> {
        if self.direct_ring().is_some() {
            return Err(next);
        }
        self.state = TxState::Held {
            before: self.state.take_ring(),
            next,
            connection,
        };
        Ok(())
    }

    /// The receiver of a held ring is not expected to reconnect: closes the ring.
    pub fn fail_held(&self) {
        if matches!(self.state, TxState::Held { .. }) {
            self.refuse(CloseReason::NoReceiver);
        }
    }

    /// The channel is direct and its ring is still to come. An earlier direct ring stays in use.
    /// Messages of a routed ring have no route any more; [`TxChannel::renew`] reports them.
    pub fn await_partner(&mut self) {
        if self.direct_ring().is_none() {
            self.refuse(CloseReason::NoReceiver);
        }
    }

    /// Records the reason; call it before the barrier is closed.
    fn refuse(&self, why: CloseReason) {
        self.none.set(why);
        if let Some(ring) = self.state.ring() {
            ring.shared.set(why);
        }
    }

    /// Records how the receiver ended.
    pub fn set_ending(&self, ending: Option<Ending>) {
        self.none.set_ending(ending);
        if let Some(ring) = self.state.ring() {
            ring.shared.set_ending(ending);
        }
    }

    /// Closes a direct ring whose receiver has ended although its descriptor has not reported this
    /// yet, so that a program that is notified of the exit and sends again is refused.
    pub fn refuse_dead(&self) {
        let Some(ring) = self.direct_ring() else {
            return;
        };
        if ring
            .partner
            .as_ref()
            .is_some_and(|partner| !partner.pidfd.is_alive())
        {
            self.refuse(CloseReason::NoReceiver);
            ring.close_barrier();
        }
    }

    /// Releases the old ring: messages that nobody takes any more are moved into the next ring if
    /// both are direct or neither is (`next`, and its partner), otherwise counted as lost.
    ///
    /// A direct ring whose receiver lives and still has its end is left to that receiver, which
    /// empties it.
    fn abandon(&mut self, next: Option<(&mut Producer, Option<&Partner>)>) -> u64 {
        let partner = next.as_ref().and_then(|(_, partner)| *partner);
        let remains = |ring: &TxRing| ring.partner.as_ref().is_none_or(|of| of.remains(partner));
        let mut lost = 0;
        for ring in self.old.extract_if(.., |ring| !remains(ring)) {
            let (from, until) = ring.close();
            lost += until - from;
            self.gone.extend(ring.partner);
        }
        let Some(mut old) = self.state.take_ring() else {
            return lost;
        };
        let (direct, dead) = (old.partner.is_some(), !remains(&old));
        if direct && !dead && !old.cursor.has_left() {
            self.old.push(old);
            return lost;
        }
        let (from, until) = old.close();
        self.gone.extend(old.partner.take());
        lost + match next.filter(|(_, partner)| partner.is_some() == direct && !dead) {
            Some((next, _)) => {
                let moved = old.cursor.move_to(from, until, next);
                old.cursor.count_moved(moved.moved);
                moved.lost
            }
            None => until - from,
        }
    }

    /// The configuration has no such channel any more; returns the number of messages that are lost
    /// with it.
    pub fn remove(&mut self) -> u64 {
        self.id = None;
        self.refuse(CloseReason::Removed);
        self.close_all();
        let lost = self.abandon(None);
        self.offer(None);
        lost
    }

    /// The daemon or the session is gone: closes the rings that go through the daemon, and with the
    /// session all rings.
    pub fn shut(&mut self, why: CloseReason) {
        self.id = None;
        if let TxState::Held { before, .. } = &mut self.state {
            self.state = before.take().map_or(TxState::Empty, TxState::Ring);
        }
        if self.direct_ring().is_some() && why != CloseReason::Closed {
            return;
        }
        self.refuse(why);
        self.close_all();
        // A sender that waits for a receiver finds the reason.
        self.hand_off.nudge();
    }

    /// Closes all rings, even if the sender never uses them again: a receiver with a newer ring
    /// then goes on to it.
    fn close_all(&self) {
        for ring in self.rings() {
            ring.close();
        }
    }

    /// The process at the other end, by token.
    pub fn partner(&self, token: u64) -> Option<&Partner> {
        self.rings()
            .filter_map(|ring| ring.partner.as_ref())
            .find(|p| p.token == token)
    }

    /// The receiver of the direct ring with this token has ended; returns the number of messages
    /// that it had not taken.
    pub fn on_peer_exit(&mut self, token: u64, ending: Option<Ending>) -> u64 {
        if let Some(at) = self.old.iter().position(|ring| ring.is(token)) {
            let (from, until) = self.old.swap_remove(at).close();
            return until - from;
        }
        if !matches!(&self.state, TxState::Ring(ring) if ring.is(token)) {
            return 0;
        }
        self.set_ending(ending);
        self.refuse(CloseReason::NoReceiver);
        let Some(ring) = self.state.take_ring() else {
            return 0;
        };
        // If the sender sends nothing more, an open ring would keep the daemon watching it.
        let (from, until) = ring.close();
        self.state = TxState::Ended(ring);
        until - from
    }

    /// Receivers have come or gone. The state of an earlier daemon's ring is not known to this
    /// daemon. Returns the number of messages of the old ring that found no room in a held one.
    pub fn reach(&mut self, reachable: bool, connection: u64) -> u64 {
        match std::mem::replace(&mut self.state, TxState::Empty) {
            TxState::Held {
                before,
                next,
                connection,
            } if reachable => {
                self.state = before.map_or(TxState::Empty, TxState::Ring);
                return self.renew(next, None, connection);
            }
            state => self.state = state,
        }
        if let Some(ring) = self
            .state
            .ring()
            .filter(|ring| ring.connection == connection)
        {
            if !reachable {
                ring.shared.set(CloseReason::NoReceiver);
            }
            ring.shared.barrier.set_reachable(reachable);
            self.hand_off.nudge();
        }
        0
    }

    fn offer(&mut self, end: Option<TxEnd>) {
        // Only the newest offer counts: messages in an older ring have been moved. A ring that its
        // sender never had is closed here, as the sender closes those that it had: otherwise the
        // daemon or the partner that made it would keep it without end.
        if let Some(mut out) = self.waiting.take().and_then(|offer| offer.end) {
            out.producer.close();
        }
        self.waiting = Some(HandOffItem {
            end,
            generation: 0,
            origin: Origin::UNKNOWN,
        });
        self.flush();
    }

    /// Collects returned rings and hands out waiting ones.
    pub fn flush(&mut self) {
        self.hand_off.collect();
        if let Some(offer) = self.waiting.take() {
            self.waiting = self.hand_off.offer(offer).err();
        }
        if let Some(ring) = self.direct_ring().filter(|ring| ring.cursor.has_left()) {
            // Messages in the ring wait for the next one.
            self.refuse(CloseReason::NoReceiver);
            ring.close_barrier();
        }
        self.settle_old();
    }

    /// Forgets rings that are empty and that the sender has released, and rings whose receivers
    /// have released them.
    fn settle_old(&mut self) {
        let over = self.old.len().saturating_sub(WAITING_MAX);
        for (number, ring) in std::mem::take(&mut self.old).into_iter().enumerate() {
            let left = ring.cursor.has_left() || number < over;
            if !left && !ring.is_done() {
                self.old.push(ring);
                continue;
            }
            let (from, until) = ring.close();
            self.lost += until - from;
            self.gone.extend(ring.partner);
        }
    }

    /// Number of messages that were lost with rings that their receivers left, since the last call.
    pub fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }
}

impl TxRing {
    fn is(&self, token: u64) -> bool {
        self.partner
            .as_ref()
            .is_some_and(|partner| partner.token == token)
    }

    /// Closes the barrier; returns the index below which messages count.
    fn close_barrier(&self) -> u64 {
        self.shared.barrier.close(|| self.cursor.tail())
    }

    /// Closes the ring; returns the range of its messages that count and were not taken.
    fn close(&self) -> (u64, u64) {
        let until = self.close_barrier();
        self.cursor.close();
        (self.cursor.taken(until), until)
    }

    /// Whether its sender has another ring, and its receiver has taken all messages.
    fn is_done(&self) -> bool {
        // The sender's end holds the other reference.
        let tail = self.cursor.tail();
        Arc::strong_count(&self.shared) == 1 && self.cursor.taken(tail) == tail
    }
}
