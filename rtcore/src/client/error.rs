//! Errors of the client library. Each names its object, the value, the limit and the fix.
//!
//! Invariant: the errors of real-time calls ([`SendError`], [`RecvError`], [`CallError`]) are
//! `Copy` and never touch the heap.

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
    /// No daemon runs.
    #[error(
        "no rtd of root or of this user runs here: start it (rtd run FILE), or name it by \
         RTD_INSTANCE or \
         Session::builder(..).instance(..)"
    )]
    NoInstance,
    /// Several daemons run, and none was selected.
    #[error(
        "several instances of rtd run here ({instances}): choose one by RTD_INSTANCE or Session::builder(..).instance(..)"
    )]
    SeveralInstances {
        /// Their instance names.
        instances: String,
    },
    /// No process listens at the socket, and no page of a running daemon names it.
    #[error(
        "{source}: rtd is not running there: start it, or give the path that [daemon] socket names"
    )]
    NoDaemon {
        /// Path of the control socket.
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
        /// Path of the control socket.
        path: PathBuf,
        /// The daemon's instance name.
        instance: String,
        /// Pid of the daemon.
        pid: u32,
        /// The error of connect(2), with the path.
        source: io::Error,
    },
    /// The process that listens at the socket belongs to a user who is not trusted.
    #[error(
        "{}: uid {uid} listens there, which is neither root nor this user nor the owner of \
         /run/rtd: have root's rtd listen \
         there, or name the socket by Session::builder(..).socket(..)", path.display()
    )]
    Stranger {
        /// Path of the control socket.
        path: PathBuf,
        /// The user of the listener.
        uid: u32,
    },
    /// The daemon refuses the session.
    #[error("rtd refuses `{process}` ({status:?}): {text}")]
    Refused {
        /// Name of the process that asked for the session.
        process: Name,
        /// The kind of refusal.
        status: Status,
        /// The daemon's reason, with the fix.
        text: String,
    },
    /// The daemon did not send Ready in time.
    #[error("{}: no answer within {} ms: does rtd hang (see rtctl ls)? or allow more by Session::builder(..).timeout(..)",
        path.display(), limit.as_millis())]
    Timeout {
        /// Path of the control socket.
        path: PathBuf,
        /// The time limit.
        limit: Duration,
    },
    /// The daemon broke the protocol, or it speaks another version of it.
    #[error("{}: {what}: use rtd and rtcore of one release", path.display())]
    Protocol {
        /// Path of the control socket.
        path: PathBuf,
        /// Description of the unexpected frame.
        what: String,
    },
    /// A system call failed.
    #[error("{what}: {source}")]
    System {
        /// Name of the failed step.
        what: String,
        /// Its error.
        source: io::Error,
    },
}

/// Messages that the daemon had not taken when [`Sender::flush`](super::Sender::flush) returned.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error(
    "messages that were sent and are not taken yet: {messages}{}",
    Cause(why)
)]
pub struct FlushError {
    /// Number of these messages.
    pub messages: u64,
    /// The error that a send would return now; none if the daemon takes messages, but not fast
    /// enough.
    pub why: Option<SendError>,
}

/// Displays `: WHY`, or nothing.
struct Cause<'a>(&'a Option<SendError>);

impl fmt::Display for Cause<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |why| write!(f, ": {why}"))
    }
}

/// Why a session cannot claim an endpoint.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ClaimError {
    /// The configuration does not give it to this process; the text names the rule.
    #[error("`{endpoint}` is not for `{process}`: {rule}")]
    Denied {
        /// Name of the endpoint.
        endpoint: String,
        /// Name of the session's process.
        process: Name,
        /// The daemon's explanation.
        rule: String,
    },
    /// There is no such endpoint.
    #[error("there is no endpoint `{endpoint}`: {text}")]
    Unknown {
        /// The requested name.
        endpoint: String,
        /// The daemon's explanation.
        text: String,
    },
    /// A value of this session already holds the endpoint.
    #[error("`{endpoint}` is held by {holder} in this session: drop that first, or share it")]
    Taken {
        /// Name of the endpoint.
        endpoint: String,
        /// The holder, and the thread that claimed the endpoint.
        holder: String,
    },
    /// The session has no connection to ask the daemon about the endpoint.
    #[error(
        "`{endpoint}` is not known to this session, which has no connection to rtd ({why}): try again after Event::Up"
    )]
    Away {
        /// Name of the endpoint.
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

/// Why a receiving call has nothing to return.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum RecvError {
    /// The session was dropped, and every message that had arrived was taken.
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
    /// A [`Waker`](super::Waker) ended the call. The next call receives as usual.
    #[error("the call was ended by the inbox's waker; call again to receive")]
    Woken,
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
    /// No reply came in time. A reply that comes later is counted and dropped.
    #[error(
        "no reply to `{endpoint}` in {waited_ns} ns: allow more time, or make the receiver faster"
    )]
    Timeout {
        /// Endpoint that the request was sent from.
        endpoint: Name,
        /// Time from the call to its deadline.
        waited_ns: u64,
    },
    /// The process that should have replied ended or left.
    #[error("no reply to `{endpoint}`: {}", PeerText(&Some(*process), ending))]
    PeerDead {
        /// Endpoint that the request was sent from.
        endpoint: Name,
        /// Name of that process.
        process: Name,
        /// How it ended, if this is known.
        ending: Option<Ending>,
    },
    /// The route was lost during the call. The request may have arrived, or may still arrive.
    #[error("no reply to `{endpoint}`: {why}")]
    Disconnected {
        /// Endpoint that the request was sent from.
        endpoint: Name,
        /// The state of the connection or the route.
        why: Gone,
    },
}
