//! The client library for control processes: sessions, senders, inboxes, request and reply, signals
//! without asynchronous handlers, one wait for all of them.
//!
//! The tutorial is the [front page of this crate](crate). Constraint: calls that send or receive
//! neither allocate, take a lock nor return because of a signal. Opening, mapping and questions to
//! the daemon are the work of the session thread (`rtd-session`), an ordinary thread.
//!
//! Invariant: an end of a ring has one owner at any moment, the session's table or the value that
//! claimed it (a sender, an inbox, a dispatcher), and goes back to the table when that value is
//! dropped.

#![warn(missing_docs)]

mod caller;
mod connecting;
mod core;
mod error;
mod event;
mod inbox;
pub mod locate;
pub mod message;
pub mod realtime;
mod sender;
mod session;
mod session_thread;
pub mod signals;
pub mod waiter;

pub use crate::channel::{Gone, SendError};
pub use crate::lane::policy::Wait;
pub use crate::message::Origin;
pub use crate::wire::{Channel, Name, PeerStatus, Role};
pub use caller::{Caller, Question, Reply};
pub use connecting::Connecting;
pub use core::State;
pub use error::{CallError, ClaimError, ConnectError, FlushError, RecvError};
pub use event::Event;
pub use inbox::{Inbox, InboxCounters, Waker};
pub use message::{Head, InPlace, Incoming, Message, ReplyTo};
pub use realtime::{RealTime, RealTimeError};
pub use sender::{Attempt, Batch, Loan, Sender};
pub use session::{Builder, Session};
