//! The choices of a configuration for lanes and routes, as plain `Copy` values.

pub use crate::wait::Wait;

/// The addressee of a signal sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalTarget {
    /// Any thread of the process (sigqueue(3)).
    Process,
    /// The thread that registered (rt_tgsigqueueinfo(2)).
    Thread,
}

/// Parameters of a token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Average of messages per second.
    pub per_second: u32,
    /// Messages that are admitted at once.
    pub burst: u32,
}

/// How a group's members are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupMode {
    /// A copy to every member.
    All,
    /// One member, in turn.
    RoundRobin,
    /// The first member that takes it.
    Any,
}

/// What happens to a message if its target and the queue in front of the target are full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// It is rejected.
    Reject,
    /// The oldest queued message is displaced.
    DisplaceOldest,
    /// The newest queued message is displaced.
    DisplaceNewest,
    /// Only the latest message is kept.
    Conflate,
    /// The source waits this long for room, then the message is rejected.
    Block {
        /// Longest time to wait.
        limit_ns: u64,
    },
}
