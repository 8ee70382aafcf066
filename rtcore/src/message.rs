//! What travels: a message's body, its verified or claimed origin, and how it ended.

/// Who a message came from.
///
/// `verified` is true when the identity came from the channel (a registered owner's queue, or a pid the
/// kernel wrote); false when a sender claimed it (`si_pid` of a queued signal, see sigqueue(3)).
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
    pub const UNKNOWN: Origin = Origin { pid: 0, uid: u32::MAX, verified: false };
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
}

impl Reject {
    /// Number of reasons; the length of a per-reason counter array.
    pub const COUNT: usize = 6;
    /// Every reason in counter order with the name used in `rtctl stats --json`.
    pub const NAMES: [&'static str; Self::COUNT] =
        ["full", "too_large", "rate", "origin", "error", "stopped"];
}
