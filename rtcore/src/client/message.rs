//! Messages as an inbox returns them.

use crate::message::{Origin, SIGNAL_VALUE_BYTES};
use crate::ring::{Envelope, Front, Kind};
use crate::sys::clock::monotonic_ns;
use crate::wire::Channel;
use std::ops::Deref;
use zerocopy::{FromBytes, Immutable, KnownLayout};

/// A message or an event.
#[derive(Debug)]
pub enum Incoming<M> {
    /// A message.
    Message(M),
    /// A change of the session or of a process that it exchanges messages with. Events come before
    /// messages.
    Event(super::Event),
}

impl<M> Incoming<M> {
    /// The message, if it is one.
    pub fn message(self) -> Option<M> {
        match self {
            Incoming::Message(message) => Some(message),
            Incoming::Event(_) => None,
        }
    }

    /// The event, if it is one.
    pub fn event(&self) -> Option<super::Event> {
        match self {
            Incoming::Message(_) => None,
            Incoming::Event(event) => Some(*event),
        }
    }
}

/// Identifies the request that a reply belongs to. `Copy`, so that it outlives the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyTo {
    pub(super) correlation: u64,
}

impl ReplyTo {
    /// From the number of [`ReplyTo::correlation`], for a program that keeps it in a form of its
    /// own; none for 0, which no request has.
    pub fn new(correlation: u64) -> Option<ReplyTo> {
        (correlation != 0).then_some(ReplyTo { correlation })
    }

    /// The number that the answer carries; never 0.
    pub fn correlation(self) -> u64 {
        self.correlation
    }
}

/// The facts about a message besides its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    pub(super) channel: &'a Channel,
    pub(super) envelope: Envelope,
    pub(super) origin: Origin,
    pub(super) missed: u64,
    pub(super) received_ns: u64,
}

impl<'a> Head<'a> {
    /// The sender. [`Origin::verified`] says whether the channel verifies it; nothing that the
    /// sender writes counts.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// The channel it came by.
    pub fn channel(&self) -> &'a Channel {
        self.channel
    }

    /// The own endpoint that received the message.
    pub fn endpoint(&self) -> &'a str {
        self.channel.endpoint.as_str()
    }

    /// The endpoint that the message was sent from.
    pub fn from(&self) -> &'a str {
        self.channel.other.as_str()
    }

    /// Name of its lane.
    pub fn lane(&self) -> &'a str {
        self.channel.lane.as_str()
    }

    /// Name of its route.
    pub fn route(&self) -> &'a str {
        self.channel.route.as_str()
    }

    /// Its number among the messages of its sender, from 1.
    pub fn sequence(&self) -> u64 {
        self.envelope.meta.sequence
    }

    /// How many of its sender's messages in front of it were not handed out by this route: refused,
    /// displaced, expired, superseded, lost with a ring, or given to another member of a group.
    ///
    /// A sender that starts again counts from 1, and a new daemon does the same for messages of its
    /// queues and signals. Losses at the end of the old count are then unknown: only messages of
    /// the new count are reported.
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// The time at which it should have been sent, CLOCK_MONOTONIC in nanoseconds.
    pub fn intended_ns(&self) -> u64 {
        self.envelope.meta.intended_ns
    }

    /// The time at which it was sent, CLOCK_MONOTONIC in nanoseconds.
    pub fn sent_ns(&self) -> u64 {
        self.envelope.meta.sent_ns
    }

    /// Number that a request and its reply share; 0 if the message is neither.
    pub fn correlation(&self) -> u64 {
        self.envelope.meta.correlation
    }

    /// The value that a reply must carry ([`Sender::reply`](super::Sender::reply)); none if the
    /// message is not a request.
    pub fn reply_to(&self) -> Option<ReplyTo> {
        ReplyTo::new(self.correlation())
    }

    /// When it was received, CLOCK_MONOTONIC. The inbox reads the clock if the route has a `ttl` or
    /// a `deadline`, and for the messages of a direct route whose latency it records. Otherwise
    /// this call reads the clock and returns the time of the call.
    pub fn received_ns(&self) -> u64 {
        if self.received_ns == 0 {
            monotonic_ns()
        } else {
            self.received_ns
        }
    }

    /// The time of [`Head::received_ns`] if the inbox read the clock; this call never does.
    pub fn received_stamp_ns(&self) -> Option<u64> {
        (self.received_ns != 0).then_some(self.received_ns)
    }

    /// Its mq priority, if it came from a message queue.
    pub fn mq_priority(&self) -> u32 {
        match self.envelope.kind {
            Kind::Bytes { priority } => priority,
            Kind::Signal { .. } => 0,
        }
    }
}

/// A message in the inbox's own memory. Nobody changes it any more, and the sender can use its slot
/// again.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    pub(super) head: Head<'a>,
    pub(super) bytes: &'a [u8],
}

impl<'a> Message<'a> {
    /// The payload.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The same as a value that was sent by [`Sender::send_value`](super::Sender::send_value); none
    /// when it has another length.
    pub fn value<T: FromBytes + KnownLayout + Immutable>(&self) -> Option<T> {
        T::read_from_bytes(self.bytes).ok()
    }

    /// Kernel number and value, if the message was a signal.
    pub fn signal(&self) -> Option<(i32, u64)> {
        let Kind::Signal { signo } = self.head.envelope.kind else {
            return None;
        };
        Some((signo, self.signal_value()))
    }

    /// The value that a plain signal would carry: the first 8 bytes in native order, padded with
    /// zeros.
    pub(super) fn signal_value(&self) -> u64 {
        let mut value = [0; SIGNAL_VALUE_BYTES];
        let len = self.bytes.len().min(SIGNAL_VALUE_BYTES);
        value[..len].copy_from_slice(&self.bytes[..len]);
        u64::from_ne_bytes(value)
    }
}

impl<'a> Deref for Message<'a> {
    type Target = Head<'a>;

    fn deref(&self) -> &Head<'a> {
        &self.head
    }
}

/// A message in the slot in which its sender wrote it. Dropping this value releases the slot.
///
/// On a route that conflates or displaces the oldest message, rtd may overwrite a slot at any time.
/// On such a route this value holds a copy in the inbox's memory, as [`Message`] does.
///
/// The daemon does not change the bytes. On a direct route a hostile process at the other end may
/// change them at any time: copy them once and use the copy, unless you trust that process.
#[derive(Debug)]
pub struct InPlace<'a> {
    pub(super) head: Head<'a>,
    pub(super) place: Place<'a>,
}

/// The memory that holds its bytes.
#[derive(Debug)]
pub(super) enum Place<'a> {
    /// In the sender's slot.
    Ring(Front<'a>),
    /// In the inbox's memory: a route that conflates or displaces writes over slots.
    Copy(&'a [u8]),
}

impl<'a> InPlace<'a> {
    /// Length of the payload in bytes.
    pub fn len(&self) -> usize {
        match &self.place {
            Place::Ring(front) => front.envelope().len as usize,
            Place::Copy(bytes) => bytes.len(),
        }
    }

    /// Whether the payload is empty, as in a doorbell.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies as much of the payload as fits into `buffer`; returns the number of bytes.
    pub fn copy_to(&self, buffer: &mut [u8]) -> usize {
        match &self.place {
            Place::Ring(front) => front.copy_to(buffer),
            Place::Copy(bytes) => {
                let len = bytes.len().min(buffer.len());
                buffer[..len].copy_from_slice(&bytes[..len]);
                len
            }
        }
    }

    /// The payload in its slot.
    ///
    /// # Safety
    /// 1. The sender does not write the slot while the slice is alive. This holds for messages
    ///    through the daemon; for direct ones it holds if the process at the other end is honest.
    pub unsafe fn bytes(&self) -> &[u8] {
        match &self.place {
            // SAFETY: the caller's contract is that of `Front::bytes`.
            Place::Ring(front) => unsafe { front.bytes() },
            Place::Copy(bytes) => bytes,
        }
    }
}

impl<'a> Deref for InPlace<'a> {
    type Target = Head<'a>;

    fn deref(&self) -> &Head<'a> {
        &self.head
    }
}
