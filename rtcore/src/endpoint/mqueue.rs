//! Message queues (mq_overview(7)).

use super::sink::{Refusal, SinkOps};
use super::source::{Content, Failure, SourceOps, Taken};
use crate::lane::peer::Peer;
use crate::lane::syscalls;
use crate::lane::waits::Waits;
use crate::message::{Message, Origin, SignalRecord};
use crate::skin::{OpenQueue, Skin};
use crate::stats::fill::text;
use crate::stats::layout::EndpointRecord;
use crate::stats::reader::text_of;
use crate::sys::poll::Interest;
use crate::sys::seccomp::Allowed;
use crate::wait::Timeout;
use std::io;
use std::sync::Arc;
use zerocopy::FromZeros;

/// A queue that a lane reads. It is open twice: blocking for the normal path, non-blocking for the
/// time in which messages are queued.
#[derive(Debug)]
pub struct Source {
    blocking: OpenQueue,
    nonblocking: OpenQueue,
    /// The queue's owner, and the only user other than root who can write the queue; none if there
    /// are more such users.
    writer: Option<(Arc<Peer>, u32)>,
}

impl Source {
    /// Makes a source; both descriptors are open for receiving. The origin of its messages is
    /// unknown.
    pub fn new(blocking: OpenQueue, nonblocking: OpenQueue) -> Source {
        Source {
            blocking,
            nonblocking,
            writer: None,
        }
    }

    /// Only programs of the user `uid` and of root can write the queue: its messages have the
    /// owner's origin, if the owner is one of these programs.
    pub fn written_by(mut self, owner: Arc<Peer>, uid: u32) -> Source {
        self.writer = Some((owner, uid));
        self
    }
}

impl SourceOps for Source {
    #[inline]
    fn take(&mut self, skin: &Skin, buffer: &mut [u8], timeout: Timeout) -> Result<Taken, Failure> {
        let (len, priority) = match timeout {
            Timeout::FOREVER => (skin.mq_receive)(self.blocking.mqd(), buffer)?,
            Timeout::NOW => (skin.mq_receive)(self.nonblocking.mqd(), buffer)?,
            Timeout(timeout_ns) => {
                (skin.mq_receive_within)(self.blocking.mqd(), buffer, timeout_ns)?
            }
        };
        let writer = self.writer.as_ref();
        let origin = writer.map_or(Origin::UNKNOWN, |(owner, uid)| channel_origin(owner, *uid));
        Ok(Taken {
            content: Content::Bytes(len),
            priority,
            origin,
            meta: None,
        })
    }

    fn calls(&self) -> &'static [Allowed] {
        syscalls::MQ_SOURCE
    }

    fn arm(&mut self, waits: &mut Waits) -> bool {
        waits.push(Interest::readable(self.nonblocking.mqd()));
        true
    }
}

/// The registered owner is the sender if nobody else can write the queue: the channel verifies it,
/// not the envelope. If the owner runs as another user than the one who may write, it did not send
/// the message.
fn channel_origin(owner: &Peer, writer_uid: u32) -> Origin {
    if !owner.lives() {
        return Origin::UNKNOWN;
    }
    let uid = owner.uid();
    if uid != writer_uid && uid != 0 {
        return Origin::UNKNOWN;
    }
    Origin {
        pid: owner.pid().unsigned_abs(),
        uid,
        verified: true,
    }
}

/// A queue that a lane writes, opened non-blocking.
#[derive(Debug)]
pub struct Sink {
    /// Open for sending.
    pub queue: OpenQueue,
    /// mq_msgsize of the queue, in bytes.
    pub bytes_max: usize,
    /// Whether a lane can wait for room in it ([`crate::skin::Caps::pollable_mq`]).
    pub announces_room: bool,
}

impl SinkOps for Sink {
    #[inline]
    fn send(
        &mut self,
        skin: &Skin,
        _: Option<&Peer>,
        message: &Message<'_>,
        mq_priority: Option<u32>,
    ) -> Result<(), Refusal> {
        let mut record = SignalRecord::new_zeroed();
        let bytes = message.for_queue(&mut record);
        if bytes.len() > self.bytes_max {
            return Err(Refusal::TooLarge);
        }
        let priority = mq_priority.unwrap_or(message.priority);
        (skin.mq_send)(self.queue.mqd(), bytes, priority).map_err(Refusal::from)
    }

    fn calls(&self) -> Vec<&'static [Allowed]> {
        vec![syscalls::MQ_SINK]
    }

    #[inline]
    fn keeps_messages(&self) -> bool {
        true
    }

    fn await_room(&mut self, message: &Message<'_>, waits: &mut Waits) -> bool {
        if self.announces_room && message.queue_len() <= self.bytes_max {
            waits.push(Interest::writable(self.queue.mqd()));
        }
        true
    }

    fn is_silent(&self, _: Option<&Peer>) -> bool {
        !self.announces_room
    }
}

/// Description of a queue on the statistics page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Name of the queue, with its leading `/`.
    pub queue: String,
    /// Capacity in messages.
    pub maxmsg: u32,
    /// Size of the largest message in bytes.
    pub msgsize: u32,
}

impl Shown {
    pub(super) fn write(&self, record: &mut EndpointRecord) -> io::Result<()> {
        record.queue = text("queue name", &self.queue)?;
        (record.maxmsg, record.msgsize) = (self.maxmsg, self.msgsize);
        Ok(())
    }

    pub(super) fn read(record: &EndpointRecord) -> Shown {
        Shown {
            queue: text_of(&record.queue),
            maxmsg: record.maxmsg,
            msgsize: record.msgsize,
        }
    }
}
