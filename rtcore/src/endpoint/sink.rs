//! The daemon's sending half of an endpoint, with the process behind it. One thread writes it.

use super::{SinkKind, each};
use crate::lane::peer::{Peer, Presence};
use crate::lane::waits::Waits;
use crate::message::Message;
use crate::ring::Corrupt;
use crate::skin::Skin;
use crate::sys::Errno;
use crate::sys::seccomp::Allowed;
use std::sync::Arc;

/// Operations of a kind of sink. The defaults fit a kind that does not have the property.
pub(super) trait SinkOps {
    /// Sends the message, now or not at all. The caller has checked that `owner` is there, or that
    /// nobody registers for the sink.
    fn send(
        &mut self,
        skin: &Skin,
        owner: Option<&Peer>,
        message: &Message<'_>,
        mq_priority: Option<u32>,
    ) -> Result<(), Refusal>;

    /// The system calls that the sink makes after the seal.
    fn calls(&self) -> Vec<&'static [Allowed]>;

    /// Whether it takes messages also while its owner is not registered; the owner finds them
    /// later.
    fn keeps_messages(&self) -> bool {
        false
    }

    /// Takes the newest object that the owner provides.
    fn renew(&mut self) {}

    /// Adds the event that announces room for the message; false if there is room by now.
    fn await_room(&mut self, _message: &Message<'_>, _waits: &mut Waits) -> bool {
        true
    }

    /// Whether no descriptor, no word and no wake-up announces room.
    fn is_silent(&self, owner: Option<&Peer>) -> bool;

    /// Whether its receivers have rings, which come and go.
    fn has_ring(&self) -> bool {
        false
    }

    /// The registration that its ring belongs to.
    fn generation(&self) -> u64 {
        0
    }

    /// Whether a signal is owed for payloads that were delivered.
    fn owes_signal(&self) -> bool {
        false
    }

    /// Why the kernel finally refused the last such signal.
    fn signal_error(&self) -> Option<Errno> {
        None
    }

    /// Tries again to send a signal that is owed.
    fn pay_signal(&mut self, _skin: &Skin, _owner: Option<&Peer>, _is_dead: bool) {}
}

/// Why a sink did not take a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no room now; there may be later.
    Full,
    /// There is no receiver.
    PeerDead,
    /// The receiver ignores the signal.
    Ignored,
    /// The message is longer than the receiver can ever take.
    TooLarge,
    /// The kernel refused it.
    Failed(Errno),
    /// The receiver broke the protocol of its ring, which is given up.
    Corrupt(Corrupt),
}

/// A sink with its owner.
#[derive(Debug)]
pub struct Sink {
    kind: SinkKind,
    /// The owner; none: any program that opens the queue.
    pub peer: Option<Arc<Peer>>,
    /// The errno reported last, so that a failing signal is reported once.
    pub last_reported: Option<Errno>,
    /// Whether an expected owner counts as a full receiver; afterwards it counts as a dead one.
    pub rejoins: bool,
    /// Messages wait because the owner was expected when they came. The lane clears this only after
    /// it has tried to deliver them, so that no newer message meets a queue that is still full of
    /// them.
    pub awaits: bool,
}

impl Sink {
    /// Makes a sink.
    pub fn new(kind: SinkKind, peer: Option<Arc<Peer>>) -> Sink {
        Sink {
            kind,
            peer,
            last_reported: None,
            rejoins: false,
            awaits: false,
        }
    }

    /// Whether there is no receiver: the owner is dead, or the owner of a signal or ring is not
    /// registered.
    pub fn is_dead(&self) -> bool {
        self.presence() == Presence::Dead
    }

    /// Whether the owner of its signal or ring has not reconnected since a restart of rtd, and is
    /// expected.
    pub fn is_expected(&self) -> bool {
        self.presence() == Presence::Expected
    }

    /// Alive, expected or dead. A queue takes messages also while its owner is not registered; the
    /// owner finds them later.
    #[inline]
    fn presence(&self) -> Presence {
        let keeps_messages = each!(SinkKind, &self.kind, sink => sink.keeps_messages());
        match self
            .peer
            .as_ref()
            .map_or(Presence::Unregistered, |peer| peer.presence())
        {
            Presence::Expected if self.rejoins && !keeps_messages => Presence::Expected,
            Presence::Unregistered | Presence::Expected if keeps_messages => Presence::Alive,
            Presence::Alive => Presence::Alive,
            Presence::Unregistered | Presence::Expected | Presence::Dead => Presence::Dead,
        }
    }

    /// Releases the ring of a receiver that is gone, and takes its successor's. It is also called
    /// when no message comes, so that receivers can come and go at any time.
    #[inline]
    pub fn renew(&mut self) {
        each!(SinkKind, &mut self.kind, sink => sink.renew());
    }

    /// Puts the message into the receiver's kernel queue or ring, now or not at all.
    #[inline]
    pub fn send(
        &mut self,
        skin: &Skin,
        message: &Message<'_>,
        mq_priority: Option<u32>,
    ) -> Result<(), Refusal> {
        match self.presence() {
            Presence::Dead => return Err(Refusal::PeerDead),
            Presence::Expected => {
                self.awaits = true;
                return Err(Refusal::Full);
            }
            Presence::Alive | Presence::Unregistered => {}
        }
        let owner = self.peer.as_deref();
        each!(SinkKind, &mut self.kind, sink => sink.send(skin, owner, message, mq_priority))
    }

    /// Whether a signal is owed for payloads that were delivered.
    #[inline]
    pub fn owes_signal(&self) -> bool {
        each!(SinkKind, &self.kind, sink => sink.owes_signal())
    }

    /// Why the kernel finally refused the last such signal. The next message tries again.
    #[inline]
    pub fn signal_error(&self) -> Option<Errno> {
        each!(SinkKind, &self.kind, sink => sink.signal_error())
    }

    /// Tries again to send a signal that is owed.
    pub fn pay_signal(&mut self, skin: &Skin) {
        let (owner, is_dead) = (self.peer.as_deref(), self.is_dead());
        each!(SinkKind, &mut self.kind, sink => sink.pay_signal(skin, owner, is_dead));
    }

    /// Adds the event that announces room for the message; false if there is room by now.
    ///
    /// Nothing is added if no descriptor announces room ([`Sink::is_silent`]), for a dead receiver,
    /// whose queue may always have room, and for a message that never fits: waiting for these would
    /// be a busy loop.
    pub fn await_room(&mut self, message: &Message<'_>, waits: &mut Waits) -> bool {
        // For an expected owner the control thread wakes the lanes.
        self.presence() != Presence::Alive
            || each!(SinkKind, &mut self.kind, sink => sink.await_room(message, waits))
    }

    /// Whether its receivers have rings, which come and go.
    pub fn has_ring(&self) -> bool {
        each!(SinkKind, &self.kind, sink => sink.has_ring())
    }

    /// The registration that its ring belongs to.
    pub fn generation(&self) -> u64 {
        each!(SinkKind, &self.kind, sink => sink.generation())
    }

    /// Whether no descriptor, no word and no wake-up announces room. The control thread wakes the
    /// lanes when a process becomes ready for its signals.
    pub fn is_silent(&self) -> bool {
        each!(SinkKind, &self.kind, sink => sink.is_silent(self.peer.as_deref()))
            && !self.is_expected()
    }

    /// The system calls that it makes after the seal.
    pub(crate) fn calls(&self) -> Vec<&'static [Allowed]> {
        each!(SinkKind, &self.kind, sink => sink.calls())
    }
}

impl From<Errno> for Refusal {
    fn from(e: Errno) -> Refusal {
        match e {
            Errno::AGAIN => Refusal::Full,
            // EBADF: the pidfd slot is still its placeholder.
            Errno::SRCH | Errno::BADF => Refusal::PeerDead,
            Errno::MSGSIZE => Refusal::TooLarge,
            other => Refusal::Failed(other),
        }
    }
}
