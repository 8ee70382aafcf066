//! The mechanisms: each a way for a message to travel from one thread or process to another.
//!
//! Required of a mechanism: what both ends share exists before either is made, and survives fork(2) (descriptors,
//! names, shared mappings), so that the sender may be a child process. An end is made on the thread that uses it. After
//! that `send` and `receive` allocate nothing.
//!
//! A mechanism with a payload carries the [`Stamp`] in its first [`STAMP_BYTES`]; one without carries it in shared
//! memory beside ([`Slots`]).

use rtcore::sys::Errno;

/// Bytes a stamp takes in a payload: sequence, intended, sent, native byte order.
pub const STAMP_BYTES: usize = 24;

/// What a message says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// Number on the schedule; the engine marks the end of a run in the topmost bit.
    pub sequence: u64,
    /// When it was to be sent, CLOCK_MONOTONIC ns.
    pub intended_ns: u64,
    /// When it was sent.
    pub sent_ns: u64,
}

/// The sending end.
pub trait Tx {
    /// Sends one message. EAGAIN: there was no room, and the message is lost. May block where the mechanism does.
    fn send(&mut self, stamp: &Stamp) -> Result<(), Errno>;
}

/// The receiving end.
pub trait Rx {
    /// Waits for the next message. EINTR and EAGAIN: look whether the run is over, and call again; a wait that no signal
    /// interrupts returns EAGAIN at least ten times a second.
    fn receive(&mut self) -> Result<Stamp, Errno>;
}

/// One way for messages to travel.
pub trait Mechanism: Send + Sync {
    /// `mq`, `signal`, `route lane` ...
    fn name(&self) -> &str;

    /// Bytes of a message; 0: it has none.
    fn payload_bytes(&self) -> usize;

    /// Makes the sending end, on the thread (in the process) that sends.
    fn sender(&self) -> anyhow::Result<Box<dyn Tx>>;

    /// Makes the receiving end, on the thread that receives.
    fn receiver(&self) -> anyhow::Result<Box<dyn Rx>>;
}
