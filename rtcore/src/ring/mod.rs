//! Rings in shared memory: one producer, one consumer, fixed slots.
//!
//! A ring is two pieces of memory. The *producer's* holds the tail, the slots and the producer's
//! sleep word; the consumer maps it read-only. The *consumer's* holds the head and the consumer's
//! sleep word; the producer maps it read-only. So neither can touch what the other has written, and
//! what it reads of the other is an *allegation*: read once, checked in one place
//! ([`Consumer::take`], `Producer::room`), then used. A [`Corrupt`] ring is never read again.
//!
//! Who sleeps says so in its own memory; who finds that flag rings a *bell*, a futex word in a
//! small page that both ends may write, or a semaphore where threads must not make Linux's calls
//! ([`bell`]). That page holds nothing but bells: a hostile end can wake its partner for nothing or
//! not at all, which it could do in any case. A second word would not do: the sleeper has to be
//! woken by its own side too (a session thread with news, a control thread that stops a lane),
//! without a race.
//!
//! A slot carries its state: *in progress* while it is written, *complete* after; so a producer
//! that was killed half-way is seen ([`Consumer::torn`]), and a slot that is complete without
//! having been announced is not.
//!
//! A ring may *displace*: its producer never waits for room, but writes over the oldest message.
//! The consumer takes only the newest so many, copies them, and looks at the state of the slot
//! again: a message that was written over meanwhile is passed over. Only the daemon sends into such
//! a ring.
//!
//! Invariant: nothing here allocates, locks or calls the kernel, but for the bell of somebody who
//! sleeps.

pub mod bell;
mod consumer;
mod cursor;
#[cfg(not(loom))]
mod half;
mod layout;
mod memory;
pub mod producer;
#[cfg(not(loom))]
mod receipt;
#[cfg(not(loom))]
mod shared;

pub use bell::{Bells, Doorbell};
pub use consumer::{Consumer, Front};
pub use cursor::{Moved, RecoveryCursor};
#[cfg(not(loom))]
pub use half::Half;
pub use layout::{Claims, Envelope, Geometry, Kind, PAYLOAD_BYTES_MAX, SLOTS_MAX};
pub use memory::local;
pub use producer::{Loan, Producer, PushError};
#[cfg(not(loom))]
pub use receipt::Receipt;
#[cfg(not(loom))]
pub use shared::{Handles, Indices, Shared, Side, Watch};

use thiserror::Error;

/// The other end wrote something that no honest one writes. The ring must not be used any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Corrupt {
    /// More messages than slots, or fewer than none.
    #[error("ring indices out of range: tail {tail}, head {head}, {slots} slots")]
    Indices {
        /// Alleged tail.
        tail: u64,
        /// Alleged head.
        head: u64,
        slots: u32,
    },
    /// The tail was moved past a slot that is not complete.
    #[error("slot {index} is announced, but its state is {state}")]
    State {
        /// Which message.
        index: u64,
        /// What stands there.
        state: u64,
    },
    /// A payload longer than a slot.
    #[error("slot {index} claims {len} bytes, at most {max} are possible")]
    Length {
        /// Which message.
        index: u64,
        /// Alleged length.
        len: u32,
        /// Bytes of a slot.
        max: u32,
    },
    /// Flags that nobody knows.
    #[error("slot {index} has unknown flags {flags:#x}")]
    Flags {
        /// Which message.
        index: u64,
        flags: u32,
    },
}

#[cfg(all(test, not(loom)))]
mod displace_tests;
#[cfg(all(test, not(loom)))]
mod tests;
