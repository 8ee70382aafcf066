//! Channels: one direction of an endpoint in a session, sending or receiving.
//!
//! A channel has successive rings ([`crate::ring`]): each start of the daemon, and each process
//! that takes a name again, brings the next one. For every channel two threads have a value each,
//! and share a third one:
//!
//! | | the program's thread | shared | the session thread |
//! |---|---|---|---|
//! | to send into | `TxHandle`, with the ring's `TxEnd` | `TxShared` with its barrier | `TxChannel`, a table of four states |
//! | to receive from | `RxHandle`, with the ring's `RxEnd` | `RxShared` | `RxChannel` |
//!
//! The session thread makes and destroys rings and hands their ends over ([`hand_off`]); the
//! program's thread takes the next end when it is ready, and returns the old one. Lane threads take
//! theirs the same way.
//!
//! Constraint: no call of the program's half allocates, takes a lock or makes a system call, except
//! for the bell that it rings.

mod barrier;
pub(crate) mod error;
pub mod hand_off;
mod partner;
pub(crate) mod reason;
mod rx;
mod rx_channel;
mod tx;
mod tx_channel;

pub use error::{Gone, SendError};
pub(crate) use partner::Partner;
pub(crate) use rx::{RxEnd, RxHandle, Taken};
pub(crate) use rx_channel::RxChannel;
pub(crate) use tx::{CloseReason, OpenTx, TxEnd, TxHandle, TxShared, count_refused};
pub(crate) use tx_channel::TxChannel;

/// Limit of the rings of one channel that wait for a reader that does not read; the oldest is
/// dropped first. A sender remembers the same number of rings that their receivers have not
/// emptied.
const WAITING_MAX: usize = 64;
