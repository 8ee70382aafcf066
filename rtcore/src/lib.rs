//! What a control process links to talk by way of rtd: real-time signals, messages through shared memory,
//! priority lanes.
//!
//! A machine's configuration says which processes there are, which endpoints they own, and which routes lead
//! from one to the other in which lane. A process takes its name by a [`Session`](client::Session); from it
//! come a [`Sender`](client::Sender) for each endpoint it sends from and an [`Inbox`](client::Inbox) for all it
//! receives. Whether a message goes through a thread of the daemon or directly from process to process is the
//! configuration's business; the code is the same.
//!
//! Programs that run as they are: `rtcore/examples/` with `configs/examples.toml`: a 1 kHz controller and its
//! drive, an emergency stop, questions and answers, an event loop.
//!
//! # The configuration
//!
//! ```toml
//! [[lane]]                       # a priority class
//! name = "control"
//! priority = 60                  # SCHED_FIFO; the ceiling of who sends and receives in it
//! cpu = 0
//!
//! [[process]]                    # who may take the name: user, group, exe
//! name = "planner"
//!
//! [[process]]
//! name = "drive"
//!
//! [[endpoint]]
//! name = "planner.cmd"
//! kind = "lane"                  # shared memory
//! owner = "planner"
//! msgsize = 64                   # bytes of the largest message
//!
//! [[endpoint]]
//! name = "drive.cmd"
//! kind = "lane"
//! owner = "drive"
//! msgsize = 64
//! maxmsg = 16                    # messages that wait for the drive, a power of two
//!
//! [[route]]
//! from = "planner.cmd"
//! to = ["drive.cmd"]
//! lane = "control"
//! path = "direct"                # or "routed", the default: through a thread of the lane
//! ```
//!
//! `rtd check FILE` says what is wrong with one, and what fixes it; `rtd run FILE` runs it. Routes join a lane
//! endpoint as well with a message queue or a signal, so that a program which links nothing takes part.
//!
//! # Connect and send
//!
//! ```no_run
//! use rtcore::client::{SendError, Session};
//! use rtcore::sys::clock::monotonic_ns;
//!
//! // Which daemon: RTD_INSTANCE, else the only one that runs; or Session::builder("planner").instance("arm").
//! let session = Session::connect("planner")?;
//! let mut commands = session.sender("planner.cmd")?;
//! commands.wait_for_receiver(monotonic_ns() + 5_000_000_000)?;
//! match commands.send(b"go") {
//!     Ok(number) => println!("number {number}"),
//!     Err(SendError::Full { slots, .. }) => println!("the drive has not taken the last {slots}"),
//!     Err(SendError::PeerDead { ending, .. }) => println!("the drive is gone: {ending:?}"),
//!     Err(other) => return Err(other.into()),
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A send never waits without a bound: a full ring is `Full` at once, or after the time that the route's
//! `overflow = "block:TIME"` allows. Nothing of a message that was refused arrives.
//!
//! # Receive
//!
//! ```no_run
//! use rtcore::client::{Event, Incoming, Session};
//! use rtcore::sys::clock::monotonic_ns;
//!
//! let session = Session::connect("drive")?;
//! let mut inbox = session.inbox()?;
//! loop {
//!     match inbox.recv_deadline(monotonic_ns() + 10_000_000)? {
//!         Some(Incoming::Message(m)) => {
//!             let late_ns = m.received_ns().saturating_sub(m.intended_ns());
//!             println!("{:?} from pid {}, {late_ns} ns late", m.bytes(), m.origin().pid);
//!             if m.missed() > 0 {
//!                 println!("{} before it never came", m.missed());
//!             }
//!         }
//!         Some(Incoming::Event(Event::PeerLost { process, ending, .. })) => {
//!             println!("{process} is gone ({ending:?}): hold the position");
//!         }
//!         Some(Incoming::Event(_)) => {}
//!         None => println!("nothing for 10 ms: hold the position"),
//!     }
//! }
//! # #[allow(unreachable_code)]
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Events come before messages: the end of a sender may be told before the last of what it sent, which still
//! comes. The highest lane comes first, whatever waits in lower ones; what one sender sent by one route comes
//! in its order, each message once. [`recv`](client::Inbox::recv) waits for ever,
//! [`try_recv`](client::Inbox::try_recv) not at all; [`inbox_of`](client::Session::inbox_of) makes an inbox of
//! some endpoints, for a thread of their own. Time is CLOCK_MONOTONIC in nanoseconds everywhere
//! ([`monotonic_ns`](sys::clock::monotonic_ns)).
//!
//! # Values, and no copy
//!
//! A value of a plain type goes as its bytes; a large message is written where it will be read, and read where
//! it was written:
//!
//! ```no_run
//! use rtcore::client::{Incoming, Session};
//! use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};
//!
//! #[derive(FromBytes, Immutable, IntoBytes, KnownLayout)]
//! #[repr(C)]
//! struct SetPoint { position: f64, velocity: f64 }
//!
//! # let session = Session::connect("planner")?;
//! # let (mut commands, mut inbox) = (session.sender("planner.cmd")?, session.inbox()?);
//! commands.send_value(&SetPoint { position: 1.0, velocity: 0.0 })?;
//!
//! let mut slot = commands.loan(size_of::<SetPoint>())?;
//! if let Some(setpoint) = slot.value_mut::<SetPoint>() {
//!     *setpoint = SetPoint { position: 1.0, velocity: 0.0 };
//! }
//! slot.commit()?; // dropped instead, it was never sent
//!
//! if let Incoming::Message(m) = inbox.recv()? && let Some(SetPoint { position, .. }) = m.value() {
//!     println!("to {position}");
//! }
//! if let Incoming::Message(m) = inbox.recv_in_place()? {
//!     let mut first = [0; 8];
//!     m.copy_to(&mut first); // the slot is the sender's again when `m` is dropped
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # A deadline for every cycle
//!
//! Connect, claim, allocate first; then make the thread real-time, below the ceiling of its lane; then send and
//! receive. A cycle says when it *should* have sent, so that a late one shows in the receiver's figures:
//!
//! ```no_run
//! # use rtcore::client::Session;
//! use rtcore::sys::clock::{monotonic_ns, sleep_until};
//!
//! # let session = Session::connect("planner")?;
//! # let mut commands = session.sender("planner.cmd")?;
//! let granted = session.realtime().lane("control").below(1).cpu(1).prefault_stack(64 * 1024).enter()?;
//! println!("SCHED_FIFO {}", granted.priority());
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
//! What is not granted, [`enter`](client::realtime::RealTimeBuilder::enter) names together with the line that
//! grants it. A thread that has its CPU to itself spins instead of sleeping
//! ([`set_wait`](client::Inbox::set_wait)).
//!
//! # Questions and answers
//!
//! ```no_run
//! # use rtcore::client::{CallError, Session};
//! # use rtcore::sys::clock::monotonic_ns;
//! # let session = Session::connect("planner")?;
//! let mut drive = session.caller("planner.ask", "planner.answers")?;
//! match drive.call(b"position?", monotonic_ns() + 2_000_000) {
//!     Ok(reply) => println!("{:?}", reply.value::<[f64; 3]>()),
//!     Err(CallError::Timeout { .. }) => println!("{} came too late so far", drive.late()),
//!     Err(other) => return Err(other.into()),
//! }
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
//! # Signals
//!
//! A signal endpoint (`kind = "signal"`) delivers what is routed to it as a POSIX real-time signal. Handlers
//! are closures on an ordinary thread, so they may allocate and lock, and no system call of the program ever
//! fails with EINTR:
//!
//! ```
//! use rtcore::client::signals::{Flags, Signals};
//! use rtcore::sys::signame;
//!
//! let stop = signame::parse("SIGRTMIN+4")?;
//! Signals::block([stop])?; // first thing in main: threads inherit it
//! let signals = Signals::start()?;
//! signals.register(stop, Flags::new(), |notice| println!("stop {} from pid {}", notice.value, notice.origin.pid))?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Payloads longer than the 8 bytes of a signal (`msgsize` on its endpoint) ride in a ring of the session, and its
//! [`signals`](client::Session::signals) hand them to the handler. Asynchronous handlers, for those who insist:
//! [`handler`](client::signals::handler).
//!
//! # One wait for everything
//!
//! An inbox is a descriptor, readable while something is there: it goes into any event loop, or into a
//! [`Waiter`](client::waiter::Waiter) beside signals, timers and sockets, which gives what is ready in the
//! order of priorities:
//!
//! ```no_run
//! # use rtcore::client::Session;
//! # use rtcore::sys::clock::monotonic_ns;
//! use rtcore::client::waiter::{Interest, Timer, Waiter};
//!
//! # let session = Session::connect("drive")?;
//! let mut inbox = session.inbox()?;
//! let timer = Timer::new()?;
//! timer.every(monotonic_ns(), 1_000_000)?;
//! let mut waiter = Waiter::with_capacity(2)?;
//! waiter.add(&inbox, 0, 9, Interest::Readable)?;
//! waiter.add(&timer, 1, 1, Interest::Readable)?;
//! loop {
//!     for ready in waiter.wait(None)? {
//!         match ready.key {
//!             0 => while let Some(incoming) = inbox.try_recv()? {
//!                 println!("{incoming:?}");
//!             },
//!             _ => println!("{} cycles", timer.take()),
//!         }
//!     }
//! }
//! # #[allow(unreachable_code)]
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # When others go
//!
//! | what happens | senders | inboxes |
//! |---|---|---|
//! | the receiver ends | [`PeerDead`](client::SendError::PeerDead), with how it ended | [`PeerLost`](client::Event::PeerLost) |
//! | and what it had not taken of a direct ring | | [`Lost`](client::Event::Lost), with how many |
//! | it is back | go on | [`PeerBack`](client::Event::PeerBack) |
//! | the daemon ends | routed: [`Disconnected`](client::SendError::Disconnected); direct: go on | [`Down`](client::Event::Down) |
//! | the daemon is back | go on; what it had not taken goes first | [`Up`](client::Event::Up); what comes twice is dropped |
//! | it is back without that route | [`Disconnected`](client::SendError::Disconnected), which says so | [`Lost`](client::Event::Lost) if something was under way |
//! | a partner writes nonsense into shared memory | [`Corrupt`](client::SendError::Corrupt) | [`Corrupt`](client::Event::Corrupt) |
//! | the session is dropped | [`Disconnected`](client::SendError::Disconnected) | [`RecvError::Disconnected`](client::RecvError), when all is taken |
//!
//! A session connects again by itself as soon as the daemon's socket appears. A partner that ended before this
//! session began is told as lost, too.
//!
//! In the child of a fork(2) every call on its parent's session, senders, inboxes and dispatchers returns an error at once
//! ([`Gone::Forked`](client::Gone::Forked)), and dropping them leaves the parent's session as it is. The child may open a
//! session of its own, under another name. A raw clone(2) or vfork(2) that shares memory is no fork: such a child may only
//! exec.
//!
//! # What is verified, and what is not
//!
//! - **Who sent a message**: what the daemon verified when the sender registered (SO_PEERCRED, pidfd), never
//!   what the sender wrote. [`Origin::verified`](message::Origin::verified) is false for what came by a queue
//!   that others may write, or by a queued signal, whose `si_pid` is its sender's claim.
//! - **Shared memory**: each side maps what the other writes read-only, and checks every number it reads there
//!   before using it. A process that lies is cut off; it cannot make another one read outside, hang or crash.
//! - **Loss**: a message that was accepted is delivered or shows: in the sequence
//!   ([`missed`](client::Head::missed)), as an event, and in the daemon's ledger (`rtctl stats`).
//! - **Not verified**: what the bytes mean; and, read in place from a direct partner, that it leaves them
//!   alone.
//! - Sending and receiving neither allocate nor lock, and a send to a receiver that is awake makes no system
//!   call.
//!
//! # Limits
//!
//! A message has at most 1 MiB, a ring 65536 slots and 256 MiB; a process 128 channels; a name 31 bytes of
//! printable ASCII. An inbox holds 256 events for a reader that does not read. A `Sender`, an `Inbox`, a
//! `Caller` is one thread's at a time and may move; a ring has one sender and one receiver. Rings are locked in
//! memory as far as RLIMIT_MEMLOCK allows.
//!
//! # The rest of the crate
//!
//! It is what the daemon stands on, too. Modules from the bottom up: [`sys`] wraps one kernel object per file,
//! [`skin`] is the table of real-time calls, [`ring`] the shared memory, [`lane`] moves messages, [`stats`] is
//! the page outsiders map, [`wire`] the frames of the control socket, [`client`] all of the above. The
//! real-time modules know no serde, no clap, no async runtime.

// Under loom only the rings are built, and what they stand on: its atomics live in no mapping.
#[cfg(not(loom))]
pub mod client;
#[cfg(not(loom))]
pub mod epoch;
#[cfg(not(loom))]
pub mod lane;
pub mod message;
#[cfg(not(loom))]
pub mod refusals;
pub mod ring;
pub mod seal;
#[cfg(not(loom))]
pub mod skin;
#[cfg(not(loom))]
pub mod stats;
pub mod sync;
pub mod sys;
#[cfg(not(loom))]
pub mod wire;
