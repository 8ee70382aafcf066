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

/// What a kind of sink does. What a kind does not have is left to the defaults.
pub(super) trait SinkOps {
    /// Hands the message on, now or not at all. `owner` is there to receive, or nobody registers
    /// for it.
    fn send(
        &mut self,
        skin: &Skin,
        owner: Option<&Peer>,
        message: &Message<'_>,
        mq_priority: Option<u32>,
    ) -> Result<(), Refusal>;

    /// The system calls that this makes after the seal.
    fn calls(&self) -> Vec<&'static [Allowed]>;

    /// Whether it takes messages also while its owner is not registered: the owner finds them
    /// there.
    fn keeps_messages(&self) -> bool {
        false
    }

    /// Moves on to what the owner has put in place of what it had.
    fn renew(&mut self) {}

    /// Adds what announces room for the message; false if there is room by now.
    fn await_room(&mut self, _message: &Message<'_>, _waits: &mut Waits) -> bool {
        true
    }

    /// Whether no descriptor, no word and no wake-up announces room.
    fn is_silent(&self, owner: Option<&Peer>) -> bool;

    /// Whether receivers come and go with rings.
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

    /// Why the kernel refused the last such signal for good.
    fn signal_error(&self) -> Option<Errno> {
        None
    }

    /// Tries again to send a signal that is owed.
    fn pay_signal(&mut self, _skin: &Skin, _owner: Option<&Peer>, _is_dead: bool) {}
}

/// Why a sink did not take a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No room now; later there may be.
    Full,
    /// Nobody is there.
    PeerDead,
    /// It throws the signal away.
    Ignored,
    /// The message is longer than the receiver can ever take.
    TooLarge,
    /// The kernel says no.
    Failed(Errno),
    /// The receiver broke the rules of its ring, which is given up.
    Corrupt(Corrupt),
}

/// A sink with its owner.
#[derive(Debug)]
pub struct Sink {
    kind: SinkKind,
    /// Who owns it; none = anybody who opens the queue.
    pub peer: Option<Arc<Peer>>,
    /// The errno reported last, so that a failing signal is reported once.
    pub last_reported: Option<Errno>,
    /// An expected owner counts as a full receiver; afterwards as a dead one.
    pub rejoins: bool,
    /// Messages wait because the owner was expected when they came. The lane clears it only after
    /// it has tried to move them on, so that no newer message meets a queue that is still full of
    /// them.
    pub awaits: bool,
}

impl Sink {
    /// A new end.
    pub fn new(kind: SinkKind, peer: Option<Arc<Peer>>) -> Sink {
        Sink {
            kind,
            peer,
            last_reported: None,
            rejoins: false,
            awaits: false,
        }
    }

    /// Whether nobody is there to receive: a dead owner, or a signal or ring whose owner is not
    /// registered.
    pub fn is_dead(&self) -> bool {
        self.presence() == Presence::Dead
    }

    /// Whether the owner of its signal or ring has not come back since rtd was restarted, and is
    /// waited for.
    pub fn is_expected(&self) -> bool {
        self.presence() == Presence::Expected
    }

    /// Alive, expected or dead. A queue takes messages also while its owner is not registered: the
    /// owner finds them there.
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

    /// Lets go of the ring of a receiver that is gone, and takes its successor's: also where no
    /// message comes, so that receivers may come and go as they like.
    #[inline]
    pub fn renew(&mut self) {
        each!(SinkKind, &mut self.kind, sink => sink.renew());
    }

    /// Hands the message to the receiver's kernel queue, now or not at all.
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

    /// Why the kernel refused the last such signal for good. The next message tries again.
    #[inline]
    pub fn signal_error(&self) -> Option<Errno> {
        each!(SinkKind, &self.kind, sink => sink.signal_error())
    }

    /// Tries again to send a signal that is owed.
    pub fn pay_signal(&mut self, skin: &Skin) {
        let (owner, is_dead) = (self.peer.as_deref(), self.is_dead());
        each!(SinkKind, &mut self.kind, sink => sink.pay_signal(skin, owner, is_dead));
    }

    /// Adds what announces room for the message; false when there is some by now.
    ///
    /// Nothing is added for what no descriptor announces ([`Sink::is_silent`]); for a dead
    /// receiver, whose queue may have room for ever; and for a message that never fits: waiting for
    /// those would be a busy loop.
    pub fn await_room(&mut self, message: &Message<'_>, waits: &mut Waits) -> bool {
        // For an expected one the control thread wakes the lanes.
        self.presence() != Presence::Alive
            || each!(SinkKind, &mut self.kind, sink => sink.await_room(message, waits))
    }

    /// Whether its receivers come and go with rings.
    pub fn has_ring(&self) -> bool {
        each!(SinkKind, &self.kind, sink => sink.has_ring())
    }

    /// The registration that its ring belongs to.
    pub fn generation(&self) -> u64 {
        each!(SinkKind, &self.kind, sink => sink.generation())
    }

    /// Whether no descriptor, no word and no wake-up announces room. The control thread wakes the
    /// lanes when a process gets ready for its signals.
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
