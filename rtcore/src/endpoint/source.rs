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

/// Operations of a kind of source. The defaults fit a kind that does not have the property.
pub(super) trait SourceOps {
    /// Takes the next message. EAGAIN or ETIMEDOUT if none came in time, EINTR if the control
    /// thread woke the lane.
    fn take(&mut self, skin: &Skin, buffer: &mut [u8], timeout: Timeout) -> Result<Taken, Failure>;

    /// The system calls that the source makes after the seal.
    fn calls(&self) -> &'static [Allowed];

    /// The message that was taken last has an outcome or is queued.
    fn release(&mut self) {}

    /// The message that was taken last stays in its source, and is the next one again.
    fn put_back(&mut self) {}

    /// No message is taken now: releases an object that the owner has replaced.
    fn let_go(&mut self) {}

    /// The daemon ends: stops the messages that stay for the next daemon.
    fn stop(&mut self) {}

    /// Counts the messages that the lane has left in it.
    fn leftover(&mut self) -> Leftover {
        Leftover::default()
    }

    /// Whether messages that are still in it are lost when the daemon ends.
    fn is_lost_at_stop(&self) -> bool {
        false
    }

    /// Whether the next message comes from a sender that is gone and does not replay it to the next
    /// daemon.
    fn is_orphaned(&self) -> bool {
        false
    }

    /// Whether messages come without a call, many at a time, and stay in their sender's memory
    /// until they are released.
    fn is_ring(&self) -> bool {
        false
    }

    /// Adds the events to wait for until there is a message; false if there is one already.
    fn arm(&mut self, waits: &mut Waits) -> bool;

    /// Reverts [`SourceOps::arm`] after the wait.
    fn disarm(&mut self) {}

    /// The registration that it belongs to.
    fn generation(&self) -> u64 {
        0
    }

    /// Whether an owner ended while it was writing a message; true once.
    fn take_torn(&mut self) -> bool {
        false
    }
}

/// A message as its kind took it from the kernel or from memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    pub content: Content,
    pub priority: u32,
    pub origin: Origin,
    /// The sender's number and stamps; none if the message comes without a number.
    pub meta: Option<Meta>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Content {
    /// This many bytes of the buffer.
    Bytes(usize),
    Signal {
        signo: i32,
        value: u64,
    },
}

/// Messages that a stop left in the rings of one source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leftover {
    /// The sender's session is open: it replays them to the next daemon.
    pub kept: u64,
    /// The sender's session is over, and nobody replays them.
    pub orphaned: u64,
}

/// Why there is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// A call failed: EAGAIN if there was no message, EINTR for a wake-up.
    Os(Errno),
    /// The owner broke the protocol of its ring; the ring is given up.
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
    /// Numbers messages that come without a number: the last number, and the counter's epoch.
    sequence: u64,
    epoch: u32,
    /// At a stop, messages that are still in it are taken and routed. Off for queues that stay, in
    /// which messages are safe.
    pub drain_at_stop: bool,
}

impl Source {
    /// Makes a source; `bytes_max` is the queue's msgsize (0 for signals; for datagrams the whole
    /// pool, because a message longer than the buffer would be lost).
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

    /// Waits for a message. EAGAIN or ETIMEDOUT if none came in time, EINTR if the control thread
    /// woke the thread.
    #[inline]
    pub fn receive(&mut self, skin: &Skin, timeout: Timeout) -> Result<Message<'_>, Failure> {
        let taken = each!(SourceKind, &mut self.kind, source => source.take(skin, &mut self.buffer, timeout))?;
        let dequeued_ns = (skin.now_ns)();
        let body = match taken.content {
            Content::Bytes(len) => Body::Bytes(&self.buffer[..len]),
            Content::Signal { signo, value } => Body::Signal { signo, value },
        };
        let (meta, since_ns) = match taken.meta {
            // The stamp is the sender's: a stamp that is missing or in the future counts as now. On
            // a skin with its own clock the stamp has no meaning.
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

    /// The message that was taken last has an outcome or is queued: releases its slot in a ring.
    #[inline]
    pub fn release(&mut self) {
        each!(SourceKind, &mut self.kind, source => source.release());
    }

    /// The message that was taken last stays in its ring, and is the next one again.
    pub fn put_back(&mut self) {
        each!(SourceKind, &mut self.kind, source => source.put_back());
    }

    /// Releases a ring whose owner continues in another one, without taking a message: for a source
    /// that is left unread.
    #[inline]
    pub fn let_go(&mut self) {
        each!(SourceKind, &mut self.kind, source => source.let_go());
    }

    /// The daemon ends: messages in a ring stay there for the next daemon, and its sender sends no
    /// more into it. Messages of a sender that has ended are still taken.
    pub fn stop(&mut self) {
        each!(SourceKind, &mut self.kind, source => source.stop());
    }

    /// Counts the messages that are left in its rings after its lane has ended. Not for a lane
    /// thread, because it returns ends.
    pub fn leftover(&mut self) -> Leftover {
        each!(SourceKind, &mut self.kind, source => source.leftover())
    }

    /// Whether messages that are still in it are lost when the daemon ends: datagrams with their
    /// port, pending signals with the process, messages with the ring of a sender that has ended.
    pub fn is_lost_at_stop(&self) -> bool {
        each!(SourceKind, &self.kind, source => source.is_lost_at_stop())
    }

    /// Whether the next message is in a ring whose sender is gone and does not replay it to the
    /// next daemon.
    #[inline]
    pub fn is_orphaned(&self) -> bool {
        each!(SourceKind, &self.kind, source => source.is_orphaned())
    }

    /// Whether it is a ring: its messages then come without a call, many at a time.
    #[inline]
    pub fn is_ring(&self) -> bool {
        each!(SourceKind, &self.kind, source => source.is_ring())
    }

    /// Adds the events to wait for until there is a message; false if there is a message or an
    /// offer of a new end already. Call [`Source::disarm`] after the wait.
    pub fn arm(&mut self, waits: &mut Waits) -> bool {
        each!(SourceKind, &mut self.kind, source => source.arm(waits))
    }

    /// Lowers the flag that shows that the thread sleeps.
    pub fn disarm(&mut self) {
        each!(SourceKind, &mut self.kind, source => source.disarm());
    }

    /// The registration that the ring belongs to.
    pub fn generation(&self) -> u64 {
        each!(SourceKind, &self.kind, source => source.generation())
    }

    /// Whether an owner ended while it was writing a message; true once.
    #[inline]
    pub fn take_torn(&mut self) -> bool {
        each!(SourceKind, &mut self.kind, source => source.take_torn())
    }

    /// The system calls that it makes after the seal.
    pub(crate) fn calls(&self) -> &'static [Allowed] {
        each!(SourceKind, &self.kind, source => source.calls())
    }
}

/// Number and stamps for a message that came without any.
fn arrived(epoch: u32, sequence: u64, now_ns: u64) -> Meta {
    Meta {
        sequence,
        intended_ns: now_ns,
        sent_ns: now_ns,
        correlation: 0,
        epoch,
    }
}
