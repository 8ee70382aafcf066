//! The daemon's receiving half of an endpoint. One thread reads it.

use super::{SourceKind, each};
use crate::epoch::new_epoch;
use crate::lane::waits::Waits;
use crate::message::{Body, Message, Meta, Origin};
use crate::ring::Corrupt;
use crate::skin::Skin;
use crate::sys::seccomp::Allowed;
use crate::sys::{Errno, memory};
use crate::wait::Timeout;

/// What a kind of source does. What a kind does not have is left to the defaults.
pub(super) trait SourceOps {
    /// Takes the next message. EAGAIN or ETIMEDOUT if none came in time, EINTR when the control
    /// thread woke the lane.
    fn take(&mut self, skin: &Skin, buffer: &mut [u8], timeout: Timeout) -> Result<Taken, Failure>;

    /// The system calls that this makes after the seal.
    fn calls(&self) -> &'static [Allowed];

    /// The message that was taken last is settled or queued.
    fn release(&mut self) {}

    /// The message that was taken last stays where it was, and is the next one again.
    fn put_back(&mut self) {}

    /// No message is taken now: gives back what the owner has replaced.
    fn let_go(&mut self) {}

    /// The daemon ends: what stays for the next one is stopped.
    fn stop(&mut self) {}

    /// What the lane has left in it.
    fn leftover(&mut self) -> Leftover {
        Leftover::default()
    }

    /// Whether what is still in it is lost when the daemon ends.
    fn is_lost_at_stop(&self) -> bool {
        false
    }

    /// Whether the next message comes from a sender that is gone and brings nothing of it to the
    /// next daemon.
    fn is_orphaned(&self) -> bool {
        false
    }

    /// Whether messages come without a call, many at a time, and stay with their sender until they
    /// are released.
    fn is_ring(&self) -> bool {
        false
    }

    /// Adds what to wait for until there is a message; false if there is one already.
    fn arm(&mut self, waits: &mut Waits) -> bool;

    /// Awake again, after [`SourceOps::arm`].
    fn disarm(&mut self) {}

    /// The registration that it belongs to.
    fn generation(&self) -> u64 {
        0
    }

    /// Whether an owner went while it was writing a message; reported once.
    fn take_torn(&mut self) -> bool {
        false
    }
}

/// A message as a kind took it out of the kernel or out of memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    pub content: Content,
    pub priority: u32,
    pub origin: Origin,
    /// What the sender stamped it with; none for a message that comes without a number.
    pub meta: Option<Meta>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Content {
    /// So many bytes of the buffer.
    Bytes(usize),
    Signal {
        signo: i32,
        value: u64,
    },
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
    /// The owner broke the rules of its ring; the ring is given up.
    Corrupt(Corrupt),
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Failure {
        Failure::Os(errno)
    }
}

/// A source with its buffer.
#[derive(Debug)]
pub struct Source {
    kind: SourceKind,
    buffer: Vec<u8>,
    /// Numbers what comes without a number: the last one given, and the counter's epoch.
    sequence: u64,
    epoch: u32,
    /// At a stop, what is still in it is taken and routed. Off for queues that stay: there it is
    /// safe.
    pub drain_at_stop: bool,
}

impl Source {
    /// A source; `bytes_max` is the queue's msgsize (0 for signals, the whole pool for datagrams:
    /// there a message that is longer than the buffer would be gone).
    pub fn new(kind: SourceKind, bytes_max: usize, drain_at_stop: bool) -> Source {
        let mut buffer = vec![0; bytes_max];
        memory::touch(&mut buffer);
        Source {
            kind,
            buffer,
            sequence: 0,
            epoch: new_epoch(),
            drain_at_stop,
        }
    }

    /// Waits for a message. EAGAIN or ETIMEDOUT if none came in time, EINTR when woken by the
    /// control thread.
    #[inline]
    pub fn receive(&mut self, skin: &Skin, timeout: Timeout) -> Result<Message<'_>, Failure> {
        let taken = each!(SourceKind, &mut self.kind, source => source.take(skin, &mut self.buffer, timeout))?;
        let dequeued_ns = (skin.now_ns)();
        let body = match taken.content {
            Content::Bytes(len) => Body::Bytes(&self.buffer[..len]),
            Content::Signal { signo, value } => Body::Signal { signo, value },
        };
        let (meta, since_ns) = match taken.meta {
            // The stamp is the sender's: one that is missing or in the future counts as now. On a
            // clock of the skin's own it says nothing.
            Some(meta) if skin.caps.linux_clock => (meta, dequeued_ns - meta.age_ns(dequeued_ns)),
            Some(meta) => (meta, dequeued_ns),
            None => {
                self.sequence += 1;
                (arrived(self.epoch, self.sequence, dequeued_ns), dequeued_ns)
            }
        };
        let Taken {
            priority, origin, ..
        } = taken;
        Ok(Message {
            body,
            priority,
            origin,
            dequeued_ns,
            since_ns,
            meta,
        })
    }

    /// The message that was taken last is settled or queued: its slot in a ring is the sender's
    /// again.
    #[inline]
    pub fn release(&mut self) {
        each!(SourceKind, &mut self.kind, source => source.release());
    }

    /// The message that was taken last stays in its ring, and is the next one again.
    pub fn put_back(&mut self) {
        each!(SourceKind, &mut self.kind, source => source.put_back());
    }

    /// Gives back a ring whose owner continues in another one, without taking a message: for a
    /// source that is left unread.
    #[inline]
    pub fn let_go(&mut self) {
        each!(SourceKind, &mut self.kind, source => source.let_go());
    }

    /// The daemon ends: what is in a ring stays there for the next one, and its sender sends
    /// nothing more into it. Messages of a sender that has ended are taken all the same.
    pub fn stop(&mut self) {
        each!(SourceKind, &mut self.kind, source => source.stop());
    }

    /// What is in its rings when its lane has ended. Not on a lane thread: it gives ends back.
    pub fn leftover(&mut self) -> Leftover {
        each!(SourceKind, &mut self.kind, source => source.leftover())
    }

    /// Whether what is still in it is lost when the daemon ends: datagrams with their port, pending
    /// signals with the process, messages with the ring of a sender that has ended.
    pub fn is_lost_at_stop(&self) -> bool {
        each!(SourceKind, &self.kind, source => source.is_lost_at_stop())
    }

    /// Whether the next message comes out of a ring whose sender is gone and brings nothing of it
    /// to the next daemon.
    #[inline]
    pub fn is_orphaned(&self) -> bool {
        each!(SourceKind, &self.kind, source => source.is_orphaned())
    }

    /// Whether it is a ring: then its messages come without a call, many at a time.
    #[inline]
    pub fn is_ring(&self) -> bool {
        each!(SourceKind, &self.kind, source => source.is_ring())
    }

    /// Adds what to wait for until there is a message; false when there is one already, or an offer
    /// of a new end. [`Source::disarm`] after the wait.
    pub fn arm(&mut self, waits: &mut Waits) -> bool {
        each!(SourceKind, &mut self.kind, source => source.arm(waits))
    }

    /// Lowers the flag that says that the thread sleeps.
    pub fn disarm(&mut self) {
        each!(SourceKind, &mut self.kind, source => source.disarm());
    }

    /// The registration that the ring belongs to.
    pub fn generation(&self) -> u64 {
        each!(SourceKind, &self.kind, source => source.generation())
    }

    /// Whether an owner went while it was writing a message; reported once.
    #[inline]
    pub fn take_torn(&mut self) -> bool {
        each!(SourceKind, &mut self.kind, source => source.take_torn())
    }

    /// The system calls that it makes after the seal.
    pub(crate) fn calls(&self) -> &'static [Allowed] {
        each!(SourceKind, &self.kind, source => source.calls())
    }
}

/// Number and stamps of what came without any.
fn arrived(epoch: u32, sequence: u64, now_ns: u64) -> Meta {
    Meta {
        sequence,
        intended_ns: now_ns,
        sent_ns: now_ns,
        correlation: 0,
        epoch,
    }
}
