//! Messages: the body, the verified or claimed origin, and the outcome.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The sender of a message.
///
/// `verified` is true if the identity comes from the channel (the queue of a registered owner that
/// nobody else may write, or a pid that the kernel wrote). It is false if the sender claimed it
/// (`si_pid` of a queued signal, see sigqueue(3)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Process id, 0 if no process is registered for the endpoint.
    pub pid: u32,
    /// Real user id, `u32::MAX` if unknown.
    pub uid: u32,
    /// Whether the channel, not the envelope, gives the identity.
    pub verified: bool,
}

impl Origin {
    /// The origin of a message from a queue that any program with the right mode may write.
    pub const UNKNOWN: Origin = Origin {
        pid: 0,
        uid: u32::MAX,
        verified: false,
    };
}

/// The outcome of a message. Each accepted message ends in exactly one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Handed to the receiver's kernel queue (or ring).
    Delivered,
    /// Its time to live ran out while it was queued.
    Expired,
    /// The overflow policy dropped it in favour of a newer message.
    Displaced,
    /// Refused, for this reason.
    Rejected(Reject),
    /// The receiver is gone.
    PeerDead,
}

/// Why a message was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Reject {
    /// The receiver and the route's queue are full.
    Full = 0,
    /// Larger than the route's or the receiver's payload bound.
    TooLarge = 1,
    /// Over the route's rate limit.
    Rate = 2,
    /// The claimed or real sender is not one that the route accepts.
    Origin = 3,
    /// The kernel refused it (permission, invalid); the errno is in the event log.
    Error = 4,
    /// The daemon stopped before it could be delivered.
    Stopped = 5,
    /// The receiver ignores the signal (SIG_IGN).
    Ignored = 6,
}

impl Reject {
    /// Number of reasons; the length of a per-reason counter array.
    pub const COUNT: usize = 7;
    /// Every reason in counter order.
    pub const ALL: [Reject; Self::COUNT] = [
        Reject::Full,
        Reject::TooLarge,
        Reject::Rate,
        Reject::Origin,
        Reject::Error,
        Reject::Stopped,
        Reject::Ignored,
    ];
    /// Every reason in counter order with the name used in `rtctl stats --json`.
    pub const NAMES: [&'static str; Self::COUNT] = [
        "full",
        "too_large",
        "rate",
        "origin",
        "error",
        "stopped",
        "ignored",
    ];
}

/// The fields that are sent with the payload.
///
/// The sender writes them into a ring. Queues, signals and datagrams have no room for them, so the
/// daemon numbers and stamps these messages when it takes them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Number of the message among those of its sender, from 1; a gap shows a loss.
    pub sequence: u64,
    /// The time at which it should have been sent, CLOCK_MONOTONIC in nanoseconds; latency is
    /// measured from here.
    pub intended_ns: u64,
    /// The time at which it was sent.
    pub sent_ns: u64,
    /// Number that a request and its reply share; 0 for other messages.
    pub correlation: u64,
    /// Identifies the counter behind `sequence`, never 0: each session and each of the daemon's
    /// sources has its own, new at every start (`epoch::new_epoch`). Numbers of different epochs
    /// cannot be compared.
    pub epoch: u32,
}

impl Meta {
    /// Time since the send. The stamp is the sender's: a stamp that is missing or in the future
    /// counts as now.
    #[inline]
    pub fn age_ns(&self, now_ns: u64) -> u64 {
        if self.sent_ns == 0 {
            0
        } else {
            now_ns.saturating_sub(self.sent_ns)
        }
    }
}

/// A message on its way through a lane.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// The content.
    pub body: Body<'a>,
    /// mq priority it arrived with (0 for signals).
    pub priority: u32,
    /// The sender.
    pub origin: Origin,
    /// The time at which the daemon took it from its source, CLOCK_MONOTONIC.
    pub dequeued_ns: u64,
    /// The start of its latency, its time to live and its deadline: the send if a ring carries that
    /// time, otherwise the dequeue.
    pub since_ns: u64,
    /// Number and stamps.
    pub meta: Meta,
}

/// A message's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// Bytes of a queue.
    Bytes(&'a [u8]),
    Signal {
        /// The kernel's signal number.
        signo: i32,
        /// The value that the sender queued (`sigval`).
        value: u64,
    },
}

/// Bytes of a signal's value; the payload bound of a signal target.
pub const SIGNAL_VALUE_BYTES: usize = 8;

/// A signal as it arrives in a message queue: native byte order, 32 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SignalRecord {
    /// The value that the sender queued (`sigval`).
    pub value: u64,
    /// The time at which the daemon took it, CLOCK_MONOTONIC in nanoseconds.
    pub dequeued_ns: u64,
    /// Kernel signal number.
    pub signo: i32,
    /// Origin's process id, 0 if unknown.
    pub pid: u32,
    /// Origin's user id.
    pub uid: u32,
    /// 1 if pid and uid were verified, 0 if the sender claimed them.
    pub verified: u32,
}

/// Length of a [`SignalRecord`].
pub const SIGNAL_RECORD_BYTES: usize = size_of::<SignalRecord>();

impl<'a> Message<'a> {
    /// A message without a payload, for empty slots.
    pub const EMPTY: Message<'static> = Message {
        body: Body::Bytes(&[]),
        priority: 0,
        origin: Origin::UNKNOWN,
        dequeued_ns: 0,
        since_ns: 0,
        meta: Meta {
            sequence: 0,
            intended_ns: 0,
            sent_ns: 0,
            correlation: 0,
            epoch: 0,
        },
    };

    /// The form for a message queue: the bytes unchanged, or the signal's record written into
    /// `record`.
    pub fn for_queue<'b>(&self, record: &'b mut SignalRecord) -> &'b [u8]
    where
        'a: 'b,
    {
        match self.body {
            Body::Bytes(bytes) => bytes,
            Body::Signal { signo, value } => {
                *record = SignalRecord {
                    value,
                    dequeued_ns: self.dequeued_ns,
                    signo,
                    pid: self.origin.pid,
                    uid: self.origin.uid,
                    verified: u32::from(self.origin.verified),
                };
                record.as_bytes()
            }
        }
    }

    /// The value of a signal: unchanged, or the first eight bytes of the payload in native order,
    /// padded with zeros.
    pub fn for_signal(&self) -> u64 {
        match self.body {
            Body::Signal { value, .. } => value,
            Body::Bytes(bytes) => {
                let mut value = [0; SIGNAL_VALUE_BYTES];
                let n = bytes.len().min(SIGNAL_VALUE_BYTES);
                value[..n].copy_from_slice(&bytes[..n]);
                u64::from_ne_bytes(value)
            }
        }
    }

    /// Payload length in bytes.
    pub fn len(&self) -> usize {
        match self.body {
            Body::Bytes(bytes) => bytes.len(),
            Body::Signal { .. } => SIGNAL_VALUE_BYTES,
        }
    }

    /// Length of the form for a message queue, in bytes.
    pub fn queue_len(&self) -> usize {
        match self.body {
            Body::Bytes(bytes) => bytes.len(),
            Body::Signal { .. } => SIGNAL_RECORD_BYTES,
        }
    }

    /// Whether the payload is empty, as in a doorbell.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
