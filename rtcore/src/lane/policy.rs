//! The choices a configuration makes for lanes and routes, as plain `Copy` values.

pub use crate::wait::Wait;

/// Whom a signal sink addresses.
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
    /// Messages per second in the long run.
    pub per_second: u32,
    /// Messages at once.
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

/// What happens to a message that finds its target and the queue in front of it full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// It is rejected.
    Reject,
    /// The oldest queued one makes room.
    DisplaceOldest,
    /// The newest queued one makes room.
    DisplaceNewest,
    /// Only the latest is kept.
    Conflate,
    /// The source waits this long for room, then it is rejected.
    Block {
        /// Longest time to wait.
        limit_ns: u64,
    },
}
