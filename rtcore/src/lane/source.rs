//! The daemon's receiving half of an endpoint. One thread reads it.

use super::hand_off::HandOffSlot;
use super::peer::Peer;
use super::waits::Waits;
use crate::epoch::new_epoch;
use crate::message::{Body, Message, Meta, Origin};
use crate::ring::{Consumer, Corrupt, Doorbell};
use crate::skin::xddp::Port;
use crate::skin::{OpenQueue, Semaphore, Skin};
use crate::sys::Errno;
use crate::sys::memory;
use crate::sys::poll::Interest;
use crate::sys::rtsignal::SignalSet;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

/// As long as it takes.
const FOREVER_NS: u64 = u64::MAX;

/// What is read.
#[derive(Debug)]
pub enum SourceKind {
    /// A message queue, open twice: blocking on the clean path, non-blocking while something is queued.
    Mqueue {
        /// Blocks.
        blocking: OpenQueue,
        /// Does not.
        nonblocking: OpenQueue,
    },
    /// A signal sent to the daemon.
    Signal {
        /// Just this signal; blocked in every thread.
        set: SignalSet,
        /// Readable while it is pending (never read: only to wait together with other descriptors). None where the
        /// skin's signals have no descriptor.
        pending: Option<OwnedFd>,
    },
    /// The ring of the owner's session; none while it has no session.
    Ring(RingSource),
    /// Datagrams of Linux programs; nobody says whose.
    Xddp(Arc<Port>),
}

/// The receiving ends of one owner's rings, one after the other.
#[derive(Debug)]
pub struct RingSource {
    ring_slot: HandOffSlot<Consumer>,
    /// Rung for all that this thread waits for, where that is a semaphore.
    doorbell: Option<Arc<Semaphore>>,
    /// The next end is waiting: how many more messages of this one are taken. Its owner has left it, so they are its
    /// last; a bound, because one that lies goes on for ever.
    last: Option<u64>,
    /// The owner of an end that was given back had a message half written.
    torn: bool,
}

/// Messages that a stop leaves in the rings of one source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leftover {
    /// The sender's session is open: it brings them to the next daemon.
    pub kept: u64,
    /// The sender's session is over, and nobody brings them.
    pub orphaned: u64,
}

/// Why there is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// A call failed: EAGAIN for nothing there, EINTR for a wake-up.
    Os(Errno),
    /// The owner of the ring lies; the ring is given up.
    Corrupt(Corrupt),
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Failure {
        Failure::Os(errno)
    }
}

impl RingSource {
    /// Fed by the control thread, which rings the doorbell of a thread that has one with each offer.
    pub fn new(ring_slot: HandOffSlot<Consumer>, doorbell: Option<Arc<Semaphore>>) -> RingSource {
        RingSource { ring_slot, doorbell, last: None, torn: false }
    }

    /// Takes the next message, of this end or the next one.
    #[inline]
    fn take(&mut self, buffer: &mut [u8], patience_ns: u64) -> Result<(Meta, usize, Origin), Failure> {
        loop {
            let origin = self.ring_slot.origin();
            if self.ring_slot.has_offer() {
                self.count_last();
            }
            if let Some(end) = self.ring_slot.current()
                && self.last != Some(0)
            {
                match end.take(buffer) {
                    Ok(Some(envelope)) => {
                        self.last = self.last.map(|left| left - 1);
                        return Ok((envelope.meta, envelope.len as usize, origin));
                    }
                    Ok(None) => {}
                    Err(corrupt) => {
                        self.ring_slot.give_up();
                        return Err(Failure::Corrupt(corrupt));
                    }
                }
            }
            if self.ring_slot.has_offer() && self.switch() {
                continue;
            }
            if patience_ns == 0 {
                return Err(Errno::AGAIN.into());
            }
            self.wait(patience_ns)?;
        }
    }

    #[inline]
    fn is_orphaned(&self) -> bool {
        self.ring_slot.has_offer()
            && !self.ring_slot.is_left()
            && self.last != Some(0)
            && self.ring_slot.peek().is_some_and(|end| end.backlog() > 0)
    }

    /// What the old end holds now is the last that is taken of it; nothing more if its owner brings the rest.
    #[cold]
    fn count_last(&mut self) {
        if self.ring_slot.is_left() {
            self.last = Some(0);
        } else if self.last.is_none() {
            self.last = Some(self.ring_slot.current().map_or(0, |end| end.backlog()));
        }
    }

    #[cold]
    fn switch(&mut self) -> bool {
        let torn = self.ring_slot.current().is_some_and(|end| end.torn());
        let switched = self.ring_slot.take();
        if switched {
            self.torn |= torn;
            self.last = None;
        }
        switched
    }

    /// Sleeps until there is a message or an offer.
    #[inline]
    fn wait(&mut self, timeout_ns: u64) -> Result<(), Errno> {
        let (end, offers) = self.ring_slot.current_and_offers();
        match (end, &self.doorbell) {
            (Some(end), _) => end.wait_unless(timeout_ns, || offers.waiting()),
            (None, None) => {
                let seen = offers.parked_at();
                if offers.waiting() { Ok(()) } else { offers.park(seen, timeout_ns) }
            }
            (None, Some(doorbell)) => {
                doorbell.clear();
                if offers.waiting() { Ok(()) } else { doorbell.wait(timeout_ns) }
            }
        }
    }
}

/// A source with its owner and its buffer.
#[derive(Debug)]
pub struct Source {
    pub(super) kind: SourceKind,
    owner: Option<Arc<Peer>>,
    /// The only user besides root who can write the queue; none when there are more (or it is a signal).
    sole_writer_uid: Option<u32>,
    buffer: Vec<u8>,
    /// Numbers what comes without a number: the last one given, and the counter's epoch.
    sequence: u64,
    epoch: u32,
    /// At a stop, what is still in it is taken and routed. Off for queues that stay: there it is safe.
    pub drain_at_stop: bool,
}

impl Source {
    /// A source; `bytes_max` is the queue's msgsize (0 for signals, the whole pool for datagrams: there a message that is
    /// longer than the buffer would be gone).
    pub fn new(kind: SourceKind, owner: Option<Arc<Peer>>, bytes_max: usize, drain_at_stop: bool) -> Source {
        let mut buffer = vec![0; bytes_max];
        memory::touch(&mut buffer);
        Source { kind, owner, sole_writer_uid: None, buffer, sequence: 0, epoch: new_epoch(), drain_at_stop }
    }

    /// Says that programs of this user and root's alone can write the queue: what comes out of it is then the
    /// owner's, if the owner is one of them. Without it every message is of unknown origin.
    pub fn written_by(mut self, uid: Option<u32>) -> Source {
        self.sole_writer_uid = uid;
        self
    }

    /// Waits for a message. EINTR when woken by the control thread.
    #[inline]
    pub fn receive(&mut self, skin: &Skin) -> Result<Message<'_>, Failure> {
        self.take(skin, FOREVER_NS)
    }

    /// The same for at most so long, then ETIMEDOUT or EAGAIN.
    pub fn receive_within(&mut self, skin: &Skin, timeout_ns: u64) -> Result<Message<'_>, Failure> {
        self.take(skin, timeout_ns)
    }

    /// Takes a message if there is one, else EAGAIN.
    #[inline]
    pub fn try_receive(&mut self, skin: &Skin) -> Result<Message<'_>, Failure> {
        self.take(skin, 0)
    }

    /// The message that was taken last is settled or queued: its slot in a ring is the sender's again.
    #[inline]
    pub fn release(&mut self) {
        if let SourceKind::Ring(ring) = &mut self.kind
            && let Some(end) = ring.ring_slot.current()
        {
            end.release();
        }
    }

    /// The message that was taken last stays in its ring, and is the next one again.
    pub fn put_back(&mut self) {
        if let SourceKind::Ring(ring) = &mut self.kind {
            ring.last = ring.last.map(|left| left + 1);
            if let Some(end) = ring.ring_slot.current() {
                end.put_back();
            }
        }
    }

    /// Gives back a ring whose owner continues in another one, without taking a message: for a source that is left unread.
    pub fn let_go(&mut self) {
        if let SourceKind::Ring(ring) = &mut self.kind
            && ring.ring_slot.has_offer()
            && ring.ring_slot.is_left()
        {
            ring.switch();
        }
    }

    /// The daemon ends: what is in a ring stays there for the next one, and its sender sends nothing more into it. Messages of
    /// a sender that has ended are taken all the same.
    pub fn stop(&mut self) {
        if let SourceKind::Ring(ring) = &mut self.kind
            && let Some(end) = ring.ring_slot.current()
        {
            end.stop();
        }
    }

    /// What is in its rings when its lane has ended. Not on a lane thread: it gives ends back.
    pub fn leftover(&mut self) -> Leftover {
        let mut all = Leftover::default();
        let SourceKind::Ring(ring) = &mut self.kind else { return all };
        loop {
            let is_last = !ring.ring_slot.has_offer();
            // A sender that continues in another session moves its messages itself.
            let is_left = !is_last && ring.ring_slot.is_left();
            let messages = ring.ring_slot.current().map_or(0, Consumer::stop);
            match (is_last, is_left) {
                (true, _) => all.kept += messages,
                (false, true) => {}
                (false, false) => all.orphaned += messages,
            }
            if is_last || !ring.ring_slot.take() {
                return all;
            }
        }
    }

    /// Whether what is still in it is lost when the daemon ends: datagrams with their port, pending signals with the
    /// process, messages with the ring of a sender that has ended.
    pub fn is_lost_at_stop(&self) -> bool {
        matches!(self.kind, SourceKind::Xddp(_) | SourceKind::Signal { .. }) || self.is_orphaned()
    }

    /// Whether the next message comes out of a ring whose sender is gone and brings nothing of it to the next daemon.
    #[inline]
    pub fn is_orphaned(&self) -> bool {
        matches!(&self.kind, SourceKind::Ring(ring) if ring.is_orphaned())
    }

    /// Whether it is a ring: then its messages come without a call, many at a time.
    pub fn is_ring(&self) -> bool {
        matches!(self.kind, SourceKind::Ring(_))
    }

    /// Adds what to wait for until there is a message; false when there is one already, or an offer of a new end.
    /// [`Source::disarm`] after the wait.
    pub fn arm(&mut self, waits: &mut Waits) -> bool {
        match &mut self.kind {
            SourceKind::Mqueue { nonblocking, .. } => waits.push(Interest::readable(nonblocking.mqd())),
            SourceKind::Signal { pending: Some(pending), .. } => {
                waits.push(Interest::readable(pending.as_raw_fd()));
            }
            // No descriptor announces them.
            SourceKind::Signal { pending: None, .. } | SourceKind::Xddp(_) => {}
            SourceKind::Ring(ring) => return ring.arm(waits),
        }
        true
    }

    /// Awake again.
    pub fn disarm(&mut self) {
        if let SourceKind::Ring(ring) = &mut self.kind
            && let Some(end) = ring.ring_slot.current()
            && end.disarm()
            && let Some(eventfd) = end.eventfd()
        {
            eventfd.take();
        }
    }

    /// Which registration the ring belongs to.
    pub fn generation(&self) -> u64 {
        if let SourceKind::Ring(ring) = &self.kind { ring.ring_slot.generation() } else { 0 }
    }

    /// Whether an owner went while it was writing a message; told once.
    pub fn take_torn(&mut self) -> bool {
        if let SourceKind::Ring(ring) = &mut self.kind { std::mem::take(&mut ring.torn) } else { false }
    }

    #[inline]
    fn take(&mut self, skin: &Skin, patience_ns: u64) -> Result<Message<'_>, Failure> {
        match &mut self.kind {
            SourceKind::Mqueue { blocking, nonblocking } => {
                let buffer = &mut self.buffer;
                let (len, priority) = match patience_ns {
                    FOREVER_NS => (skin.mq_receive)(blocking.mqd(), buffer)?,
                    0 => (skin.mq_receive)(nonblocking.mqd(), buffer)?,
                    timeout_ns => (skin.mq_receive_within)(blocking.mqd(), buffer, timeout_ns)?,
                };
                let dequeued_ns = (skin.now_ns)();
                let origin = match (&self.owner, self.sole_writer_uid) {
                    (Some(owner), Some(writer)) => channel_origin(owner, writer),
                    _ => Origin::UNKNOWN,
                };
                self.sequence += 1;
                let meta = arrived(self.epoch, self.sequence, dequeued_ns);
                let (body, since_ns) = (Body::Bytes(&self.buffer[..len]), dequeued_ns);
                Ok(Message { body, priority, origin, dequeued_ns, since_ns, meta })
            }
            SourceKind::Xddp(port) => {
                let len = port.receive(&mut self.buffer, patience_ns)?;
                let dequeued_ns = (skin.now_ns)();
                self.sequence += 1;
                let meta = arrived(self.epoch, self.sequence, dequeued_ns);
                let (body, origin) = (Body::Bytes(&self.buffer[..len]), Origin::UNKNOWN);
                Ok(Message { body, priority: 0, origin, dequeued_ns, since_ns: dequeued_ns, meta })
            }
            SourceKind::Ring(ring) => {
                let (meta, len, origin) = ring.take(&mut self.buffer, patience_ns)?;
                let dequeued_ns = (skin.now_ns)();
                let body = Body::Bytes(&self.buffer[..len]);
                // The stamp is the sender's: one that is missing or lies in the future counts as now. On a clock of the
                // skin's own it says nothing.
                let age_ns = if skin.caps.linux_clock { meta.age_ns(dequeued_ns) } else { 0 };
                let since_ns = dequeued_ns - age_ns;
                Ok(Message { body, priority: 0, origin, dequeued_ns, since_ns, meta })
            }
            SourceKind::Signal { set, .. } => {
                let got = match patience_ns {
                    FOREVER_NS => (skin.signal_wait)(set)?,
                    timeout_ns => (skin.signal_wait_within)(set, timeout_ns)?,
                };
                let dequeued_ns = (skin.now_ns)();
                let origin = Origin { pid: got.pid, uid: got.uid, verified: got.kernel_wrote_origin };
                let body = Body::Signal { signo: got.signo, value: got.value };
                self.sequence += 1;
                let meta = arrived(self.epoch, self.sequence, dequeued_ns);
                Ok(Message { body, priority: 0, origin, dequeued_ns, since_ns: dequeued_ns, meta })
            }
        }
    }
}

impl RingSource {
    fn arm(&mut self, waits: &mut Waits) -> bool {
        let (end, offers) = self.ring_slot.current_and_offers();
        let seen = offers.parked_at();
        match end {
            // Parked: where descriptors are waited for as well, an offer is seen when that wait ends, by its bound.
            None if waits.parks() => waits.push_word(offers.park_word(seen)),
            None => {}
            Some(end) => {
                if waits.is_by_bells() {
                    let (bells, bell) = end.bell();
                    waits.push_bell(bells, bell);
                    end.arm(Doorbell::Bell);
                } else {
                    if let Some(eventfd) = end.eventfd() {
                        waits.push(Interest::readable(eventfd.as_fd().as_raw_fd()));
                    }
                    end.arm(Doorbell::EventFd);
                }
                if end.available() != Ok(0) {
                    return false;
                }
            }
        }
        !offers.waiting()
    }
}

/// Number and stamps of what came without any.
fn arrived(epoch: u32, sequence: u64, now_ns: u64) -> Meta {
    Meta { sequence, intended_ns: now_ns, sent_ns: now_ns, correlation: 0, epoch }
}

/// Who writes a queue is who registered for it, if nobody else can: the channel says so, not the envelope.
///
/// A registered owner of another user than the one who may write did not send this.
fn channel_origin(owner: &Peer, writer_uid: u32) -> Origin {
    if !owner.lives() {
        return Origin::UNKNOWN;
    }
    let uid = owner.uid();
    if uid != writer_uid && uid != 0 {
        return Origin::UNKNOWN;
    }
    Origin { pid: owner.pid().unsigned_abs(), uid, verified: true }
}
