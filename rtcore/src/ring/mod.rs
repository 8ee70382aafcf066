//! Rings in shared memory: one producer, one consumer, fixed slots.
//!
//! A ring is two pieces of memory. The *producer's* holds the tail, the slots and the producer's
//! sleep word; the consumer maps it read-only. The *consumer's* holds the head and the consumer's
//! sleep word; the producer maps it read-only. So neither end can change what the other has
//! written. A value that one end reads from the other is an *allegation*: it is read once, checked
//! in one place ([`Consumer::take`], `Producer::room`), and then used. A [`Corrupt`] ring is never
//! read again.
//!
//! An end that sleeps raises a flag in its own memory. The end that finds the flag rings a *bell*:
//! a futex word in a small page that both ends may write, or a semaphore if threads must not make
//! Linux's calls ([`bell`]). That page contains only bells: a hostile end can wake its partner for
//! nothing or not at all, which it could do in any case. The bell is one word for both sides,
//! because the sleeper's own side must be able to wake it too (a session thread with a change, a
//! control thread that stops a lane), without a race.
//!
//! A slot carries its state: *in progress* while it is written, *complete* afterwards. A producer
//! that was killed in between is therefore detected ([`Consumer::torn`]); a slot that is complete
//! but not announced is not a message.
//!
//! A ring may *displace*: its producer never waits for room, but overwrites the oldest message. The
//! consumer takes only the newest messages, up to a limit. It copies each one and then reads the
//! state of the slot again; if the message was overwritten meanwhile, it is skipped. Only the
//! daemon sends into such a ring.
//!
//! Invariant: nothing here allocates, takes a lock or calls the kernel, except to ring the bell of
//! a sleeper.

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

/// The other end broke the protocol. The ring must not be used any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Corrupt {
    /// More messages than slots, or a negative number of messages.
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
        /// Number of the message.
        index: u64,
        /// The state in its slot.
        state: u64,
    },
    /// A payload longer than a slot.
    #[error("slot {index} claims {len} bytes, at most {max} are possible")]
    Length {
        /// Number of the message.
        index: u64,
        /// Alleged length.
        len: u32,
        /// Bytes of a slot.
        max: u32,
    },
    /// Unknown flags.
    #[error("slot {index} has unknown flags {flags:#x}")]
    Flags {
        /// Number of the message.
        index: u64,
        flags: u32,
    },
}

#[cfg(all(test, not(loom)))]
mod displace_tests;
#[cfg(all(test, not(loom)))]
mod tests;
