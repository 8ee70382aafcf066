//! The mechanisms: each carries messages from one thread or process to another.
//!
//! Required of a mechanism: what both ends share exists before either is made, and survives fork(2)
//! (descriptors, names, shared mappings), so that the sender may be a child process. An end is made
//! on the thread that uses it. After that `send` and `receive` allocate nothing.
//!
//! A mechanism with a payload carries the [`Stamp`] in its first [`STAMP_BYTES`]; one without
//! carries it in shared memory beside ([`Slots`]).

pub mod eventfd;
pub mod futex;
pub mod mq;
pub mod mutex;
pub mod payload;
pub mod pipe;
pub mod sem;
pub mod signal;
pub mod slots;
pub mod sysv;
pub mod unix;

pub use slots::Slots;

use rtcore::sys::Errno;

/// Bytes a stamp takes in a payload: sequence, intended, sent, native byte order.
pub const STAMP_BYTES: usize = 24;

/// The contents of a message: its sequence and its times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// Number on the schedule; the engine marks the end of a run in the topmost bit.
    pub sequence: u64,
    /// When it was to be sent, CLOCK_MONOTONIC ns.
    pub intended_ns: u64,
    /// When it was sent.
    pub sent_ns: u64,
}

/// The sending end. Another thread than its user may drop it.
pub trait Tx: Send {
    /// Sends one message. EAGAIN: there was no room, and the message is lost. May block where the
    /// mechanism does.
    fn send(&mut self, stamp: &Stamp) -> Result<(), Errno>;
}

/// The receiving end; as [`Tx`].
pub trait Rx: Send {
    /// Waits for the next message. EINTR and EAGAIN: look whether the run is over, and call again;
    /// a wait that no signal interrupts returns EAGAIN at least ten times a second.
    fn receive(&mut self) -> Result<Stamp, Errno>;
}

/// One mechanism that carries messages.
pub trait Mechanism: Send + Sync {
    /// `mq`, `signal`, `route lane` ...
    fn name(&self) -> &str;

    /// Bytes of a message; 0: it has none.
    fn payload_bytes(&self) -> usize;

    /// Makes the sending end, on the thread (in the process) that sends.
    fn sender(&self) -> anyhow::Result<Box<dyn Tx>>;

    /// Makes the receiving end, on the thread that receives.
    fn receiver(&self) -> anyhow::Result<Box<dyn Rx>>;

    /// Finds again a peer that a sending end has lost and cannot search for. The main thread calls
    /// it at each check.
    fn find_again(&self) {}
}

/// The raw mechanisms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// POSIX message queue.
    Mq,
    /// Real-time signal.
    Signal,
    /// Semaphore in shared memory.
    Sem,
    /// Priority-inheriting mutex in shared memory.
    Mutex,
    /// Word in shared memory.
    Futex,
    Eventfd,
    Pipe,
    /// Unix socket that keeps messages apart.
    Unix,
    /// System V message queue.
    Sysv,
}

impl Kind {
    /// Each of them once.
    pub fn all() -> [Kind; 9] {
        use Kind::{Eventfd, Futex, Mq, Mutex, Pipe, Sem, Signal, Sysv, Unix};
        [Mq, Signal, Sem, Mutex, Futex, Eventfd, Pipe, Unix, Sysv]
    }

    /// As it stands in commands and tables.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Mq => "mq",
            Kind::Signal => "signal",
            Kind::Sem => "sem",
            Kind::Mutex => "mutex",
            Kind::Futex => "futex",
            Kind::Eventfd => "eventfd",
            Kind::Pipe => "pipe",
            Kind::Unix => "unix",
            Kind::Sysv => "sysv",
        }
    }

    /// Whether its messages have a payload; without one the size asked for means nothing.
    pub fn has_payload(self) -> bool {
        matches!(self, Kind::Mq | Kind::Pipe | Kind::Unix | Kind::Sysv)
    }
}

/// Makes a mechanism, with payloads of `payload_bytes` where it has such, for the pair of this
/// number.
///
/// It has one sender and one receiver in its life: messages left from one run would count in the
/// next. One of signals is made before there are threads that would let them through
/// ([`signal::block`]).
///
/// Errors: a payload shorter than [`STAMP_BYTES`] or longer than the mechanism takes, with the
/// limit and the setting that raises it; kernel objects that are not available.
pub fn of(kind: Kind, payload_bytes: usize, pair: usize) -> anyhow::Result<Box<dyn Mechanism>> {
    Ok(match kind {
        Kind::Mq => Box::new(mq::Mq::new(payload_bytes, pair)?),
        Kind::Signal => Box::new(signal::Signal::new(pair)?),
        Kind::Sem => Box::new(sem::Sem::new()?),
        Kind::Mutex => Box::new(mutex::HandOver::new()?),
        Kind::Futex => Box::new(futex::Futex::new()?),
        Kind::Eventfd => Box::new(eventfd::Eventfd::new()?),
        Kind::Pipe => Box::new(pipe::Pipe::new(payload_bytes)?),
        Kind::Unix => Box::new(unix::Unix::new(payload_bytes)?),
        Kind::Sysv => Box::new(sysv::Sysv::new(payload_bytes)?),
    })
}
