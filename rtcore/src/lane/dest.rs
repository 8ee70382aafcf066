//! A route's end: the sink and the process behind it.

use super::credit::Credit;
use super::hand_off::HandOffSlot;
use super::peer::{Peer, Presence, Reception};
use super::waits::Waits;
use crate::message::{Body, Message, SIGNAL_VALUE_BYTES, SignalRecord};
use crate::ring::{Corrupt, Envelope, Kind, Producer, PushError};
use crate::skin::xddp::Port;
use crate::skin::{OpenQueue, Skin};
use crate::sys::poll::Interest;
use crate::sys::{Call, Errno};
use std::cell::{Cell, RefCell};
use std::sync::Arc;
use zerocopy::FromZeros;

/// The daemon's sending half of an endpoint.
#[derive(Debug)]
pub enum Sink {
    /// A message queue, opened non-blocking.
    Mqueue {
        /// Open for sending.
        queue: OpenQueue,
        /// Its msgsize.
        bytes_max: usize,
        /// Room in it can be waited for ([`crate::skin::Caps::pollable_mq`]).
        announces_room: bool,
    },
    /// A signal to the owner.
    Signal {
        /// Kernel number.
        signo: i32,
        /// To the registered thread, not the process.
        to_thread: bool,
        /// Longer payloads lose what is past the value (asked for in the configuration).
        truncate: bool,
        /// Shared with every route to the endpoint; none for standard signals, which coalesce and never fill
        /// the queue.
        credit: Option<Arc<Credit>>,
        /// The owner's session takes payloads of up to a slot, and then the signal only says that they are there.
        inbox: Option<RingSink>,
    },
    /// The ring of the owner's session.
    Ring(RingSink),
    /// Datagrams to the Linux program that has the port's device open, or opens it.
    Xddp {
        /// Shared with the source and the other sinks of the port.
        port: Arc<Port>,
        /// Largest message.
        bytes_max: usize,
    },
}

/// The sending ends of one owner's rings, one after the other.
///
/// Borrowed for the length of one call by the thread that owns the route, never twice at once.
#[derive(Debug)]
pub struct RingSink {
    ring_slot: RefCell<HandOffSlot<Producer>>,
    bytes_max: usize,
    /// How the last signal that says so ended: one that found no room is owed.
    told: Cell<Result<(), Refusal>>,
}

impl RingSink {
    /// Fed by the control thread; slots of `bytes_max`.
    pub fn new(ring_slot: HandOffSlot<Producer>, bytes_max: usize) -> RingSink {
        RingSink { ring_slot: RefCell::new(ring_slot), bytes_max, told: Cell::new(Ok(())) }
    }

    /// Puts the message in; true if the receiver waits for a signal. `None` when there is no ring.
    #[inline]
    fn push(&self, message: &Message<'_>, as_signal: Option<i32>) -> Option<Result<bool, Refusal>> {
        self.renew();
        let mut ring_slot = self.ring_slot.borrow_mut();
        let end = ring_slot.current()?;
        let value;
        let (payload, kind) = match message.body {
            Body::Bytes(bytes) => (bytes, Kind::Bytes { priority: message.priority }),
            Body::Signal { signo, value: v } => {
                value = v.to_ne_bytes();
                (value.as_slice(), Kind::Signal { signo })
            }
        };
        let kind = as_signal.map_or(kind, |signo| Kind::Signal { signo });
        let envelope = Envelope { meta: message.meta, origin: message.origin, kind, len: 0 };
        let pushed = end.push(&envelope, payload);
        Some(pushed.map_err(|refused| match refused {
            PushError::Full => Refusal::Full,
            PushError::TooLarge { .. } => Refusal::TooLarge,
            PushError::Corrupt(corrupt) => {
                ring_slot.give_up();
                Refusal::Corrupt(corrupt)
            }
        }))
    }

    /// Moves on to the newest ring. The receiver of the old one is gone: what it did not take was delivered to it all
    /// the same, and it is owed nothing any more.
    #[inline]
    fn renew(&self) {
        let mut ring_slot = self.ring_slot.borrow_mut();
        while ring_slot.has_offer() && ring_slot.take() {
            self.told.set(Ok(()));
        }
    }

    /// The number of the message put in last: the value of the signal that tells of it.
    fn ticket(&self) -> u64 {
        self.ring_slot.borrow_mut().current().map_or(0, |end| end.tail())
    }

    /// How the signal ended that the receiver waits for.
    fn set_told(&self, told: Result<(), Refusal>) {
        if let (Err(_), Some(end)) = (told, self.ring_slot.borrow_mut().current()) {
            end.unring();
        }
        self.told.set(told);
    }

    /// Whether the receiver still waits for the signal that is owed to it.
    fn rings_again(&self) -> bool {
        self.renew();
        self.owes_signal() && self.ring_slot.borrow_mut().current().is_some_and(Producer::ring)
    }

    fn owes_signal(&self) -> bool {
        self.told.get() == Err(Refusal::Full)
    }

    /// Adds what announces room; false when there is some.
    fn room(&self, waits: &mut Waits) -> bool {
        let mut ring_slot = self.ring_slot.borrow_mut();
        if ring_slot.has_offer() {
            return false;
        }
        let Some(end) = ring_slot.current() else { return true };
        let (bells, bell) = end.bell();
        waits.push_room(bells, bell);
        end.want_room();
        end.has_room() == Ok(false)
    }

    /// Which registration the ring belongs to.
    pub fn generation(&self) -> u64 {
        self.ring_slot.borrow().generation()
    }
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
    /// Never fits.
    TooLarge,
    /// The kernel says no.
    Failed(Errno),
    /// The receiver lies; its ring is given up.
    Corrupt(Corrupt),
}

/// The sink with its owner.
#[derive(Debug)]
pub struct Dest {
    /// Where to.
    pub sink: Sink,
    /// Who owns it; none = anybody who opens the queue.
    pub peer: Option<Arc<Peer>>,
    /// The errno reported last, so that a failing signal is reported once.
    pub told: Cell<Option<Errno>>,
    /// An expected owner counts as a full receiver; afterwards as a dead one.
    pub rejoins: bool,
    /// Messages wait because the owner was expected when they came. The lane clears it only after it has tried to move
    /// them on, so that no newer message meets a queue that is still full of them.
    pub awaits: Cell<bool>,
}

impl Dest {
    /// A new end.
    pub fn new(sink: Sink, peer: Option<Arc<Peer>>) -> Dest {
        Dest { sink, peer, told: Cell::new(None), rejoins: false, awaits: Cell::new(false) }
    }

    /// Whether nobody is there to receive: a dead owner, or a signal or ring whose owner is not registered.
    pub fn is_dead(&self) -> bool {
        self.presence() == Presence::Dead
    }

    /// Whether the owner of its signal or ring has not come back since rtd was restarted, and is waited for.
    pub fn is_expected(&self) -> bool {
        self.presence() == Presence::Expected
    }

    /// Alive, expected or dead. A queue takes messages also while its owner is not registered: the owner finds them there.
    #[inline]
    fn presence(&self) -> Presence {
        let is_queue = matches!(self.sink, Sink::Mqueue { .. } | Sink::Xddp { .. });
        match self.peer.as_ref().map_or(Presence::Unregistered, |peer| peer.presence()) {
            Presence::Expected if self.rejoins && !is_queue => Presence::Expected,
            Presence::Unregistered | Presence::Expected if is_queue => Presence::Alive,
            Presence::Alive => Presence::Alive,
            Presence::Unregistered | Presence::Expected | Presence::Dead => Presence::Dead,
        }
    }

    /// Lets go of the ring of a receiver that is gone, and takes its successor's: also where no message comes, so that
    /// receivers may come and go as they like.
    #[inline]
    pub fn renew(&self) {
        if let Sink::Ring(ring) | Sink::Signal { inbox: Some(ring), .. } = &self.sink {
            ring.renew();
        }
    }

    /// Hands the message to the receiver's kernel queue, now or not at all.
    #[inline]
    pub fn send(&self, skin: &Skin, message: &Message<'_>, mq_priority: Option<u32>) -> Result<(), Refusal> {
        match self.presence() {
            Presence::Dead => return Err(Refusal::PeerDead),
            Presence::Expected => {
                self.awaits.set(true);
                return Err(Refusal::Full);
            }
            Presence::Alive | Presence::Unregistered => {}
        }
        match &self.sink {
            Sink::Mqueue { queue, bytes_max, .. } => {
                let mut record = SignalRecord::new_zeroed();
                let bytes = message.for_queue(&mut record);
                if bytes.len() > *bytes_max {
                    return Err(Refusal::TooLarge);
                }
                let priority = mq_priority.unwrap_or(message.priority);
                (skin.mq_send)(queue.mqd(), bytes, priority).map_err(Refusal::from)
            }
            Sink::Xddp { port, bytes_max } => {
                let mut record = SignalRecord::new_zeroed();
                let bytes = message.for_queue(&mut record);
                if bytes.len() > *bytes_max {
                    return Err(Refusal::TooLarge);
                }
                port.send(bytes).map_err(Refusal::from)
            }
            // Alive without a session: registered by somebody else, who cannot have its ring.
            Sink::Ring(ring) => ring.push(message, None).unwrap_or(Err(Refusal::PeerDead)).map(drop),
            Sink::Signal { signo, truncate, inbox, .. } => {
                if let Some(inbox) = inbox
                    && let Some(pushed) = inbox.push(message, Some(*signo))
                {
                    if pushed? {
                        self.tell(skin, inbox);
                    }
                    return Ok(());
                }
                if message.len() > SIGNAL_VALUE_BYTES && !truncate {
                    return Err(Refusal::TooLarge);
                }
                self.received(*signo)?;
                let (signo, value, origin) = (*signo, message.for_signal(), message.origin);
                self.signal(|peer, to_thread| {
                    (skin.signal_send)(peer.address(to_thread), signo, value, origin.pid, origin.uid)
                })
            }
        }
    }

    /// Refuses a signal that would end its receiver, until the receiver is ready, and one that it ignores. A dispatcher that
    /// reads a ring is not asked: an armed ring says that it waits.
    #[inline]
    fn received(&self, signo: i32) -> Result<(), Refusal> {
        match self.reception(signo) {
            Reception::Takes => Ok(()),
            Reception::NotReady => Err(Refusal::Full),
            Reception::Ignores => Err(Refusal::Ignored),
        }
    }

    fn reception(&self, signo: i32) -> Reception {
        match (&self.sink, &self.peer) {
            (Sink::Signal { to_thread, .. }, Some(peer)) => peer.reception(signo, *to_thread),
            _ => Reception::Takes,
        }
    }

    /// Has `send` queue the endpoint's signal to the owner (its thread, if the endpoint says so), within the credit.
    #[inline]
    fn signal(&self, send: impl FnOnce(&Peer, bool) -> Call<()>) -> Result<(), Refusal> {
        let (Sink::Signal { to_thread, credit, .. }, Some(peer)) = (&self.sink, &self.peer) else {
            return Err(Refusal::PeerDead);
        };
        if credit.as_ref().is_some_and(|c| !peer.take_credit(c)) {
            return Err(Refusal::Full);
        }
        let sent = send(peer, *to_thread);
        if let (Err(_), Some(credit)) = (sent, credit) {
            credit.give_back(1);
        }
        sent.map_err(Refusal::from)
    }

    /// Says that a payload is there: to the process, whatever the endpoint's target, because the ring is its session's,
    /// whose dispatcher may be any thread. What is in the ring is delivered: a signal that finds no room is owed.
    fn tell(&self, skin: &Skin, inbox: &RingSink) {
        let Sink::Signal { signo, .. } = self.sink else { return };
        let ticket = inbox.ticket();
        inbox.set_told(self.signal(|peer, _| (skin.signal_announce)(peer.address(false), signo, ticket)));
    }

    /// Whether a signal is owed for payloads that were delivered.
    pub fn owes_signal(&self) -> bool {
        matches!(&self.sink, Sink::Signal { inbox: Some(inbox), .. } if inbox.owes_signal())
    }

    /// Why the kernel refused the last such signal for good. The next message tries again.
    pub fn signal_error(&self) -> Option<Errno> {
        match &self.sink {
            Sink::Signal { inbox: Some(RingSink { told, .. }), .. } => match told.get() {
                Err(Refusal::Failed(errno)) => Some(errno),
                _ => None,
            },
            _ => None,
        }
    }

    /// Tries again to send a signal that is owed.
    pub fn pay_signal(&self, skin: &Skin) {
        let Sink::Signal { inbox: Some(inbox), .. } = &self.sink else { return };
        if self.is_dead() || !inbox.rings_again() {
            return inbox.told.set(Ok(()));
        }
        self.tell(skin, inbox);
    }

    /// Adds what announces room for the message; false when there is some by now.
    ///
    /// Nothing is added for what no descriptor announces ([`Dest::is_silent`]); for a dead receiver, whose queue may have room
    /// for ever; and for a message that never fits: waiting for those would be a busy loop.
    pub fn await_room(&self, message: &Message<'_>, waits: &mut Waits) -> bool {
        match &self.sink {
            // For an expected one the control thread wakes the lanes.
            _ if self.presence() != Presence::Alive => true,
            Sink::Mqueue { queue, bytes_max, announces_room } => {
                if *announces_room && message.queue_len() <= *bytes_max {
                    waits.push(Interest::writable(queue.mqd()));
                }
                true
            }
            Sink::Ring(ring) | Sink::Signal { inbox: Some(ring), .. } => {
                message.len() > ring.bytes_max || ring.room(waits)
            }
            Sink::Signal { inbox: None, .. } | Sink::Xddp { .. } => true,
        }
    }

    /// Whether its receivers come and go with rings.
    pub fn has_ring(&self) -> bool {
        matches!(self.sink, Sink::Ring(_) | Sink::Signal { inbox: Some(_), .. })
    }

    /// Which registration its ring belongs to.
    pub fn generation(&self) -> u64 {
        match &self.sink {
            Sink::Ring(ring) | Sink::Signal { inbox: Some(ring), .. } => ring.generation(),
            _ => 0,
        }
    }

    /// Whether no descriptor, no word and no wake-up announces room. The control thread wakes the lanes when a process gets
    /// ready for its signals.
    pub fn is_silent(&self) -> bool {
        let is_silent = match self.sink {
            Sink::Signal { signo, .. } => self.reception(signo) == Reception::Takes,
            Sink::Xddp { .. } | Sink::Mqueue { announces_room: false, .. } => true,
            Sink::Mqueue { .. } | Sink::Ring(_) => false,
        };
        is_silent && !self.is_expected()
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
