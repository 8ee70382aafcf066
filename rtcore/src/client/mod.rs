//! What a control process links: sessions, senders, inboxes, request and reply, signals without handlers, one wait.
//!
//! # A first process
//!
//! The daemon's configuration says which processes there are, which endpoints they own, and which routes lead from
//! one to the other:
//!
//! ```toml
//! [[lane]]
//! name = "control"
//! priority = 60
//!
//! [[process]]
//! name = "planner"
//!
//! [[process]]
//! name = "drive"
//!
//! [[endpoint]]
//! name = "planner.cmd"
//! kind = "lane"
//! owner = "planner"
//!
//! [[endpoint]]
//! name = "drive.cmd"
//! kind = "lane"
//! owner = "drive"
//!
//! [[route]]
//! from = "planner.cmd"
//! to = "drive.cmd"
//! lane = "control"
//! ```
//!
//! A process takes its name by a [`Session`], and from it a [`Sender`] for each endpoint that it sends from and an
//! [`Inbox`] for all that it receives:
//!
//! ```no_run
//! use rtcore::client::Session;
//!
//! // In the planner. Which instance of rtd: RTD_INSTANCE, else the only one that runs.
//! let session = Session::connect("planner")?;
//! let mut commands = session.sender("planner.cmd")?;
//! commands.send(b"go")?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! ```no_run
//! use rtcore::client::{Event, Incoming, Session};
//!
//! // In the drive.
//! let session = Session::connect("drive")?;
//! let mut inbox = session.inbox()?;
//! loop {
//!     match inbox.recv()? {
//!         Incoming::Message(m) => {
//!             println!("{} from pid {}, number {}", m.from(), m.origin().pid, m.sequence());
//!             if m.missed() > 0 {
//!                 println!("{} before it never came", m.missed());
//!             }
//!         }
//!         Incoming::Event(Event::PeerLost { process, ending, .. }) => {
//!             println!("{process} is gone: {ending:?}; standing still");
//!         }
//!         Incoming::Event(_) => {}
//!     }
//! }
//! # #[allow(unreachable_code)]
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Whether a route's `path` is `routed`, through a lane of the daemon, or `direct`, from process to process without it,
//! is the configuration's business. The code is the same, and so are the guarantees:
//!
//! - **Who** sent a message is what the daemon verified when the sender registered, never what the sender wrote.
//! - **Order**: the inbox gives the highest lane first, whatever waits in lower ones; what one sender sent by one route
//!   comes in its order, each message once. What is missing shows ([`Head::missed`]).
//! - **No wait without a bound** in sending: a full ring is [`SendError::Full`] at once, or after the time that the
//!   route's `overflow = "block:TIME"` allows.
//! - **No allocation, no lock** in sending and receiving; no system call in sending to a receiver that is awake.
//! - **No EINTR**: a signal ends no call of this library.
//!
//! # In real time
//!
//! Connect, claim, allocate first; then make the thread real-time, below the ceiling of its lane
//! ([`Session::realtime`]); then send and receive. Time is CLOCK_MONOTONIC in nanoseconds everywhere
//! ([`monotonic_ns`](crate::sys::clock::monotonic_ns)), and a cycle says when it *should* have sent:
//!
//! ```no_run
//! # use rtcore::client::Session;
//! use rtcore::sys::clock::{monotonic_ns, sleep_until};
//!
//! # let session = Session::connect("planner")?;
//! # let mut commands = session.sender("planner.cmd")?;
//! session.realtime().lane("control").below(1).cpu(1).prefault_stack(64 * 1024).enter()?;
//! let mut next_ns = monotonic_ns();
//! loop {
//!     next_ns += 1_000_000;
//!     sleep_until(next_ns);
//!     commands.send_at(next_ns, b"setpoint")?;
//! }
//! # #[allow(unreachable_code)]
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Large messages are written where they will be read ([`Sender::loan`]) and read where they were written
//! ([`Inbox::recv_in_place`]); many small ones go with one doorbell ([`Sender::send_batch`]); values of plain types go as they
//! are ([`Sender::send_value`], [`Message::value`]). A thread that has its CPU to itself spins instead of sleeping
//! ([`Inbox::set_wait`]).
//!
//! # Questions and answers
//!
//! ```no_run
//! # use rtcore::client::Session;
//! # use rtcore::sys::clock::monotonic_ns;
//! # let session = Session::connect("planner")?;
//! let mut drive = session.caller("planner.ask", "planner.answers")?;
//! let answer = drive.call(b"position?", monotonic_ns() + 2_000_000)?;
//! println!("{:?}", answer.value::<[f64; 3]>());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! ```no_run
//! # use rtcore::client::{Incoming, Session};
//! # let session = Session::connect("drive")?;
//! # let (mut inbox, mut answers) = (session.inbox()?, session.sender("drive.answers")?);
//! if let Incoming::Message(question) = inbox.recv()?
//!     && let Some(to) = question.reply_to()
//! {
//!     answers.reply(to, &[0; 24])?;
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # In an event loop
//!
//! An inbox is a descriptor as well ([`Inbox::as_fd`](std::os::fd::AsFd)), readable while something is there: it goes into any
//! epoll set, or into a [`waiter`] beside signals and timers. Call [`Inbox::try_recv`] until it says
//! none.
//!
//! # When others go
//!
//! | what happens | senders | inboxes |
//! |---|---|---|
//! | the receiver ends | [`SendError::PeerDead`], with how it ended | [`Event::PeerLost`] |
//! | a message ring of it is not empty then (direct) | | [`Event::Lost`], with how many |
//! | the daemon ends | routed: [`SendError::Disconnected`]; direct: go on | [`Event::Down`] |
//! | the daemon is back | go on; what it had not taken goes first | [`Event::Up`]; what comes twice is dropped |
//! | it is back without that route | [`SendError::Disconnected`] that says so | [`Event::Lost`] if something was under way |
//! | a partner writes nonsense into shared memory | [`SendError::Corrupt`] | [`Event::Corrupt`] |
//! | the session is dropped | [`SendError::Disconnected`] | [`RecvError::Disconnected`], when all is taken |
//!
//! A session connects again by itself, as soon as the daemon's socket appears. The child of a
//! fork(2) has no part in it, and must not touch it before it execs.

mod caller;
mod core;
mod error;
mod event;
mod gate;
mod inbox;
mod keeper;
pub mod locate;
pub mod message;
mod outlet;
pub mod realtime;
mod sender;
mod session;
pub mod signals;
pub mod waiter;

pub use crate::lane::policy::Wait;
pub use crate::message::Origin;
pub use crate::wire::{Channel, Name, PeerNews, Role};
pub use caller::{Caller, Reply};
pub use core::State;
pub use error::{CallError, ClaimError, ConnectError, Gone, RecvError, SendError};
pub use event::Event;
pub use inbox::{Inbox, InboxCounters};
pub use message::{Head, InPlace, Incoming, Message, ReplyTo};
pub use realtime::{RealTime, RealTimeError};
pub use sender::{Batch, Loan, Sender};
pub use session::{Builder, Session};
