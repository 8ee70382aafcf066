//! What travels: a message's body, its verified or claimed origin, and how it ended.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Who a message came from.
///
/// `verified` is true when the identity came from the channel (the queue of a registered owner that
/// nobody else may write, or a pid the kernel wrote); false when a sender claimed it (`si_pid` of a
/// queued signal, see sigqueue(3)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Process id, 0 when nobody registered for the endpoint.
    pub pid: u32,
    /// Real user id, `u32::MAX` when unknown.
    pub uid: u32,
    /// Whether the channel, not the envelope, says so.
    pub verified: bool,
}

impl Origin {
    /// A sender nobody registered: a queue that any program with the right mode may write.
    pub const UNKNOWN: Origin = Origin {
        pid: 0,
        uid: u32::MAX,
        verified: false,
    };
}

/// How a message ended. Each accepted message ends in exactly one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Handed to the receiver's kernel queue (or ring).
    Delivered,
    /// Its time to live ran out while it was queued.
    Expired,
    /// A newer (or the newest) message took its place by the overflow policy.
    Displaced,
    /// Refused, for the reason given.
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
    /// The claimed or real origin is not who the route accepts.
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

/// What travels beside the payload.
///
/// From a ring it is what the sender wrote. Queues, signals and datagrams have no room for it:
/// there the daemon numbers and stamps the messages as it takes them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Number of the message among those of its sender, from 1; a gap shows a loss.
    pub sequence: u64,
    /// When it should have been sent, CLOCK_MONOTONIC in nanoseconds; latency counts from here.
    pub intended_ns: u64,
    /// When it was sent.
    pub sent_ns: u64,
    /// Ties a reply to its request; 0 = neither.
    pub correlation: u64,
    /// Identifies the counter behind `sequence`, never 0: each session and each of the daemon's
    /// sources has its own, new at every start (`epoch::new_epoch`). Numbers of different epochs
    /// cannot be compared.
    pub epoch: u32,
}

impl Meta {
    /// Time since the send. The stamp is the sender's: one that is missing or in the future counts
    /// as now.
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
    /// What it says.
    pub body: Body<'a>,
    /// mq priority it arrived with (0 for signals).
    pub priority: u32,
    /// Who sent it.
    pub origin: Origin,
    /// When the daemon took it from its source, CLOCK_MONOTONIC.
    pub dequeued_ns: u64,
    /// When its latency, its time to live and its deadline begin: the send where a ring carries its
    /// time, else the dequeue.
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
    /// When the daemon took it, CLOCK_MONOTONIC in nanoseconds.
    pub dequeued_ns: u64,
    /// Kernel signal number.
    pub signo: i32,
    /// Origin's process id, 0 when unknown.
    pub pid: u32,
    /// Origin's user id.
    pub uid: u32,
    /// 1 when pid and uid were verified, 0 when the sender claimed them.
    pub verified: u32,
}

/// Length of a [`SignalRecord`].
pub const SIGNAL_RECORD_BYTES: usize = size_of::<SignalRecord>();

impl<'a> Message<'a> {
    /// A message without a payload, for slots that hold none.
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

    /// What a message queue gets: the bytes unchanged, or the signal's record written into
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

    /// What a signal carries: its value unchanged, or the first eight bytes of the payload in
    /// native order, zero-filled.
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

    /// Bytes it takes in a queue.
    pub fn queue_len(&self) -> usize {
        match self.body {
            Body::Bytes(bytes) => bytes.len(),
            Body::Signal { .. } => SIGNAL_RECORD_BYTES,
        }
    }

    /// An empty message: a doorbell.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
