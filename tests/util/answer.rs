//! What a participant answers to an order.

use rtcore::client::SendError;
use serde::{Deserialize, Serialize};

/// What a participant answers.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    Done,
    Is(bool),
    Number(u64),
    Numbers(Vec<u64>),
    Text(String),
    Lines(Vec<String>),
    Mail(Vec<Mail>),
    Rang(Vec<Rang>),
    Sent(Sent),
    Filled { sent: u64, why: String },
    Burst { sent: u64, full: u64, other: u64 },
    Outcomes(Vec<Option<Refused>>),
    Flushed(Result<(), Unflushed>),
    Tried(Vec<Tried>),
    Counters(Counters),
    Items(Vec<Item>),
    Runs(Vec<Got>),
    From(Vec<(u64, bool)>),
    Message(Option<Vec<u8>>),
    Epoll(Woke),
    Waiter(OneWait),
    Sealed(Sealed),
    Called(Called),
    Notices(Vec<Noticed>),
    Dispatcher(Dispatcher),
}

/// A message as it was received: priority and bytes.
pub type Mail = (u32, Vec<u8>);

/// A signal as it was received.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rang {
    /// sigval.
    pub value: u64,
    /// si_pid.
    pub pid: u32,
    /// si_uid.
    pub uid: u32,
    /// The thread that took it.
    pub tid: i32,
}

/// Which [`SendError`] a send met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refused {
    Full,
    TooLarge,
    PeerDead,
    Disconnected,
    Corrupt,
}

impl From<&SendError> for Refused {
    fn from(e: &SendError) -> Refused {
        match e {
            SendError::Full { .. } => Refused::Full,
            SendError::TooLarge { .. } => Refused::TooLarge,
            SendError::PeerDead { .. } => Refused::PeerDead,
            SendError::Disconnected { .. } => Refused::Disconnected,
            SendError::Corrupt { .. } => Refused::Corrupt,
        }
    }
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "refused: {self:?}")
    }
}

/// What became of a send, and how long the call took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// The sequence.
    pub sent: Result<u64, Refused>,
    pub took_ns: u64,
}

/// Heap calls of a sealed thread, and messages that it sent and received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    pub breaches: u64,
    pub came: u64,
}

/// What a flush left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unflushed {
    pub messages: u64,
    /// None: the time was over.
    pub why: Option<Refused>,
}

/// What became of consecutive numbers that a flood tried to send.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tried {
    pub refused: Option<Refused>,
    /// The first.
    pub number: u64,
    /// Its sequence, where it was sent.
    pub sequence: u64,
    /// How many.
    pub count: u64,
    /// The longest call.
    pub longest_ns: u64,
}

/// Those of an inbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    pub received: u64,
    pub duplicates: u64,
    pub missed: u64,
    pub corrupt: u64,
    pub expired: u64,
    pub superseded: u64,
    pub late: u64,
    pub torn: u64,
    pub events_lost: u64,
}

/// A message as it came out of an inbox, or an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Item {
    Message(Received),
    /// In words, see the participant.
    Event(String),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received {
    pub endpoint: String,
    pub from: String,
    pub lane: String,
    pub route: String,
    pub sequence: u64,
    pub missed: u64,
    pub intended_ns: u64,
    pub sent_ns: u64,
    pub correlation: u64,
    pub pid: u32,
    pub uid: u32,
    pub verified: bool,
    pub mq_priority: u32,
    /// Number and value, where it was a signal.
    pub signal: (i32, u64),
    pub bytes: Vec<u8>,
}

/// Consecutive numbers with consecutive sequences from one sender, as they were received.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The sender's endpoint.
    pub from: String,
    /// Of the first.
    pub sequence: u64,
    /// The first.
    pub number: u64,
    /// How many.
    pub count: u64,
    /// Sequences that are missing in front of it.
    pub missed: u64,
    /// When the first came.
    pub received_ns: u64,
    /// Pid of their sender.
    pub pid: u32,
    /// Whether that is sure.
    pub verified: bool,
}

/// What an inbox gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Got {
    /// Numbers.
    Run(Run),
    /// Anything else, in the words of the participant.
    Other(String),
}

/// How often a loop woke up, and how often for nothing.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Woke {
    pub woke: u64,
    pub idle: u64,
}

/// What one wait for three sources gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OneWait {
    /// In the order in which they came.
    pub keys: Vec<u64>,
    /// The signal's value.
    pub signal: Option<u64>,
    pub expirations: u64,
    pub numbers: Vec<Option<u64>>,
    /// Sources that are still ready when all has been taken.
    pub rest: usize,
}

/// How a call ended, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Called {
    pub took_ns: u64,
    pub ended: CallEnd,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CallEnd {
    Reply(Vec<u8>),
    Timeout,
    PeerDead { process: String, ending: String },
    Disconnected(String),
    Unsent(Refused),
}

/// What a handler was called with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Noticed {
    pub signo: i32,
    pub value: u64,
    pub pid: u32,
    pub verified: bool,
    /// The sending endpoint and the sequence of a message out of a ring.
    pub head: Option<(String, u64)>,
    pub payload: Vec<u8>,
}

/// The dispatcher's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dispatcher {
    pub received: u64,
    pub unhandled: u64,
    pub doorbells: u64,
    pub duplicates: u64,
}
