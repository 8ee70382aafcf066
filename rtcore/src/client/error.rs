//! What can go wrong, each with its object, its value, its limit and what fixes it.
//!
//! Invariant: what a real-time call returns ([`SendError`], [`RecvError`], [`CallError`]) is `Copy`
//! and never touches the heap.

use crate::channel::error::{ForkedText, PeerText};
use crate::channel::{Gone, SendError};
use crate::sys::forked::Forked;
use crate::sys::pidfd::Ending;
use crate::wire::{Name, Status};
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use thiserror::Error;

/// Why there is no session.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// Not a name that a process can have.
    #[error(
        "{0:?} is not a process name: it is 1..=31 bytes of printable ASCII without blanks, as in \
         [[process]] name"
    )]
    Name(String),
    /// Nothing runs.
    #[error(
        "no rtd of root or of this user runs here: start it (rtd run FILE), or name it by \
         RTD_INSTANCE or \
         Session::builder(..).instance(..)"
    )]
    NoInstance,
    /// Which one?
    #[error(
        "several instances of rtd run here ({instances}): choose one by RTD_INSTANCE or Session::builder(..).instance(..)"
    )]
    SeveralInstances {
        /// Their names.
        instances: String,
    },
    /// No process listens at the socket, and no page of a running daemon names it.
    #[error(
        "{source}: rtd is not running there: start it, or give the path that [daemon] socket names"
    )]
    NoDaemon {
        /// The socket.
        path: PathBuf,
        /// The error of connect(2), with the path.
        source: io::Error,
    },
    /// The page of a running daemon names this socket, but no process listens at it.
    #[error(
        "{source}: instance \"{instance}\" of rtd runs (pid {pid}), but its control socket was \
         removed: rtd recreates it \
         within a second; if not, its log has the reason"
    )]
    NoSocket {
        /// The socket.
        path: PathBuf,
        /// The daemon's instance name.
        instance: String,
        /// Its process.
        pid: u32,
        /// The error of connect(2), with the path.
        source: io::Error,
    },
    /// Somebody listens who is not to be believed.
    #[error(
        "{}: uid {uid} listens there, which is neither root nor this user nor the owner of \
         /run/rtd: have root's rtd listen \
         there, or name the socket by Session::builder(..).socket(..)", path.display()
    )]
    Stranger {
        /// The socket.
        path: PathBuf,
        /// Who.
        uid: u32,
    },
    /// The daemon says no.
    #[error("rtd refuses `{process}` ({status:?}): {text}")]
    Refused {
        /// Who asked.
        process: Name,
        /// The kind of refusal.
        status: Status,
        /// The daemon's reason, with what fixes it.
        text: String,
    },
    /// No Ready in time.
    #[error("{}: no answer within {} ms: does rtd hang (see rtctl ls)? or allow more by Session::builder(..).timeout(..)",
        path.display(), limit.as_millis())]
    Timeout {
        /// The socket.
        path: PathBuf,
        /// What was allowed.
        limit: Duration,
    },
    /// Not what rtd says.
    #[error("{}: {what}: use rtd and rtcore of one release", path.display())]
    Protocol {
        /// The socket.
        path: PathBuf,
        /// What came.
        what: String,
    },
    /// A system call failed.
    #[error("{what}: {source}")]
    System {
        /// Which.
        what: String,
        /// What it said.
        source: io::Error,
    },
}

/// Messages that [`Sender::flush`](super::Sender::flush) did not see taken.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error(
    "messages that were sent and are not taken yet: {messages}{}",
    Cause(why)
)]
pub struct FlushError {
    /// How many.
    pub messages: u64,
    /// What a send would say now; none if messages are taken, but not fast enough.
    pub why: Option<SendError>,
}

/// `: WHY`, or nothing.
struct Cause<'a>(&'a Option<SendError>);

impl fmt::Display for Cause<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |why| write!(f, ": {why}"))
    }
}

/// Why an endpoint cannot be had.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ClaimError {
    /// The configuration does not give it to this process; the text names the rule.
    #[error("`{endpoint}` is not for `{process}`: {rule}")]
    Denied {
        /// Which endpoint.
        endpoint: String,
        /// Whose session.
        process: Name,
        /// The daemon's words.
        rule: String,
    },
    /// There is no such endpoint.
    #[error("there is no endpoint `{endpoint}`: {text}")]
    Unknown {
        /// The name as it was given.
        endpoint: String,
        /// The daemon's words.
        text: String,
    },
    /// This session has handed it out already.
    #[error("`{endpoint}` is held by {holder} in this session: drop that first, or share it")]
    Taken {
        /// Which endpoint.
        endpoint: String,
        /// What has it, and which thread claimed it.
        holder: String,
    },
    /// The daemon cannot be asked.
    #[error(
        "`{endpoint}` is not known to this session, which has no connection to rtd ({why}): try again after Event::Up"
    )]
    Away {
        /// Which endpoint.
        endpoint: String,
        /// Why the session has no connection.
        why: String,
    },
    /// A system call failed.
    #[error("making an inbox: {0}")]
    System(String),
    /// This process is the child of a fork(2) of the one that opened the session.
    #[error("cannot claim an endpoint: {}", ForkedText(*creator))]
    Forked {
        /// Pid of the process that opened the session.
        creator: u32,
    },
}

impl From<Forked> for ClaimError {
    fn from(Forked { creator }: Forked) -> ClaimError {
        ClaimError::Forked { creator }
    }
}

/// Why nothing will be received any more.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum RecvError {
    /// The session was dropped, and what had arrived is taken.
    #[error(
        "the inbox is disconnected: the session was dropped; keep it for as long as its inboxes"
    )]
    Disconnected,
    /// This process is the child of a fork(2) of the one that opened the session, which still
    /// receives.
    #[error("the inbox cannot receive: {}", ForkedText(*creator))]
    Forked {
        /// Pid of the process that opened the session.
        creator: u32,
    },
}

impl From<Forked> for RecvError {
    fn from(Forked { creator }: Forked) -> RecvError {
        RecvError::Forked { creator }
    }
}

/// Why there is no reply.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum CallError {
    /// The request was not sent.
    #[error(transparent)]
    Send(#[from] SendError),
    /// Nothing came in time. A reply that comes later is counted and dropped.
    #[error(
        "no reply to `{endpoint}` in {waited_ns} ns: allow more time, or make the receiver faster"
    )]
    Timeout {
        /// Where the request went.
        endpoint: Name,
        /// How long it took from the call to its deadline.
        waited_ns: u64,
    },
    /// Who should have answered went away meanwhile.
    #[error("no reply to `{endpoint}`: {}", PeerText(&Some(*process), ending))]
    PeerDead {
        /// Where the request went.
        endpoint: Name,
        /// Who.
        process: Name,
        /// How it ended, if that is known.
        ending: Option<Ending>,
    },
    /// The way went away meanwhile. The request may have arrived, or may yet.
    #[error("no reply to `{endpoint}`: {why}")]
    Disconnected {
        /// Where the request went.
        endpoint: Name,
        /// What became of the connection or the route.
        why: Gone,
    },
}
