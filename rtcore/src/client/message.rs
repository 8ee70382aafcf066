//! What an inbox gives out.

use crate::message::{Origin, SIGNAL_VALUE_BYTES};
use crate::ring::{Envelope, Front, Kind};
use crate::sys::clock::monotonic_ns;
use crate::wire::Channel;
use std::ops::Deref;
use zerocopy::{FromBytes, Immutable, KnownLayout};

/// What came: a message, or something to know.
#[derive(Debug)]
pub enum Incoming<M> {
    /// A message.
    Message(M),
    /// Something happened to the session or to somebody it talks to. Events come before messages.
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

/// Ties an answer to the request it answers. `Copy`, so that it outlives the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyTo {
    pub(super) correlation: u64,
}

/// What a message says beside its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    pub(super) channel: &'a Channel,
    pub(super) envelope: Envelope,
    pub(super) origin: Origin,
    pub(super) missed: u64,
    pub(super) received_ns: u64,
}

impl<'a> Head<'a> {
    /// Who sent it. Verified by the channel where [`Origin::verified`] says so, whatever the sender
    /// wrote.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// The endpoint of one's own that it came to.
    pub fn endpoint(&self) -> &'a str {
        self.channel.endpoint.as_str()
    }

    /// The endpoint that it came from.
    pub fn from(&self) -> &'a str {
        self.channel.other.as_str()
    }

    /// The lane it came in.
    pub fn lane(&self) -> &'a str {
        self.channel.lane.as_str()
    }

    /// The route it came by.
    pub fn route(&self) -> &'a str {
        self.channel.route.as_str()
    }

    /// Its number among those of its sender, from 1.
    pub fn sequence(&self) -> u64 {
        self.envelope.meta.sequence
    }

    /// How many of its sender's messages in front of it were not handed out by this route: refused,
    /// displaced, expired, superseded, lost with a ring, or given to another member of a group.
    ///
    /// A sender that starts again counts from 1, and so does the daemon for what comes from its
    /// queues and signals. What was lost at the end of the old count is unknown then: only messages
    /// of the new count are reported.
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// When it should have been sent, CLOCK_MONOTONIC in nanoseconds.
    pub fn intended_ns(&self) -> u64 {
        self.envelope.meta.intended_ns
    }

    /// When it was sent, likewise.
    pub fn sent_ns(&self) -> u64 {
        self.envelope.meta.sent_ns
    }

    /// Ties a reply to its request; 0 = neither.
    pub fn correlation(&self) -> u64 {
        self.envelope.meta.correlation
    }

    /// What an answer to it has to carry ([`Sender::reply`](super::Sender::reply)); none when it is
    /// no request.
    pub fn reply_to(&self) -> Option<ReplyTo> {
        let correlation = self.correlation();
        (correlation != 0).then_some(ReplyTo { correlation })
    }

    /// When it was received, CLOCK_MONOTONIC. The inbox reads the clock where the route has a `ttl`
    /// or a `deadline`, and for the messages of a direct route whose latency it records; else this
    /// call does, and the answer is the time of the call.
    pub fn received_ns(&self) -> u64 {
        if self.received_ns == 0 {
            monotonic_ns()
        } else {
            self.received_ns
        }
    }

    /// mq priority that it came with, where it came from a message queue.
    pub fn mq_priority(&self) -> u32 {
        match self.envelope.kind {
            Kind::Bytes { priority } => priority,
            Kind::Signal { .. } => 0,
        }
    }
}

/// A message, in the inbox' own memory: nobody changes it any more, and its slot is the sender's
/// again.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    pub(super) head: Head<'a>,
    pub(super) bytes: &'a [u8],
}

impl<'a> Message<'a> {
    /// What it says.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The same as a value that was sent by [`Sender::send_value`](super::Sender::send_value); none
    /// when it has another length.
    pub fn value<T: FromBytes + KnownLayout + Immutable>(&self) -> Option<T> {
        T::read_from_bytes(self.bytes).ok()
    }

    /// Kernel number and value, where it was a signal.
    pub fn signal(&self) -> Option<(i32, u64)> {
        let Kind::Signal { signo } = self.head.envelope.kind else {
            return None;
        };
        Some((signo, self.signal_value()))
    }

    /// What a plain signal would carry of it: the first 8 bytes in native order, the rest zero.
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

/// A message where its sender wrote it. Its slot is given back when this is dropped.
///
/// On a route that conflates or displaces the oldest message, rtd may write over a slot at any
/// time: there this is a copy in the inbox's memory, as [`Message`] is.
///
/// The daemon leaves it alone; the process at the other end of a direct route that lies may change
/// the bytes at any time: copy them once and look at the copy, or trust it.
#[derive(Debug)]
pub struct InPlace<'a> {
    pub(super) head: Head<'a>,
    pub(super) place: Place<'a>,
}

/// Where its bytes are.
#[derive(Debug)]
pub(super) enum Place<'a> {
    /// In the sender's slot.
    Ring(Front<'a>),
    /// In the inbox's memory: a route that conflates or displaces writes over slots.
    Copy(&'a [u8]),
}

impl<'a> InPlace<'a> {
    /// Bytes of it.
    pub fn len(&self) -> usize {
        match &self.place {
            Place::Ring(front) => front.envelope().len as usize,
            Place::Copy(bytes) => bytes.len(),
        }
    }

    /// A message without bytes: a doorbell.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies it out, as much as `buffer` takes; returns how much.
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

    /// The bytes where they lie.
    ///
    /// # Safety
    /// 1. The sender does not write the slot while the slice is alive. What came through the daemon
    ///    keeps that; what came directly keeps it if the process at the other end is honest.
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
