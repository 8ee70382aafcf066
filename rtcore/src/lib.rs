//! Client library of the rtd messaging daemon: real-time signals, messages in shared memory,
//! priority lanes.
//!
//! The configuration of a machine lists the processes, the endpoints that they own, and the routes
//! between these endpoints, each in a lane. A process takes its name by opening a
//! [`Session`](client::Session). The session creates a [`Sender`](client::Sender) for each endpoint
//! that the process sends from and an [`Inbox`](client::Inbox) for the endpoints that it receives
//! at. The configuration decides whether a message passes through a thread of the daemon or
//! directly from process to process; the code is the same.
//!
//! `rtcore/examples/` has programs that run with `configs/examples.toml`: a 1 kHz controller and
//! its drive, an emergency stop, questions and answers, an event loop.
//!
//! # The configuration
//!
//! ```toml
//! [[lane]]                       # a priority class
//! name = "control"
//! priority = 60                  # SCHED_FIFO; threads that send and receive in it must be below
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
//! `rtd check FILE` lists the problems of a configuration, each with its fix; `rtd run FILE` runs
//! it. A route can also join a lane endpoint with a message queue or a signal of a program that
//! does not link this library.
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
//! A send never waits without a bound: if the ring is full, it returns `Full` at once, or after the
//! time that the route's `overflow = "block:TIME"` allows. A message that was refused does not
//! arrive, not even in part.
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
//!                 println!("{} messages before it were lost", m.missed());
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
//! An inbox returns events before messages, so the end of a sender can be reported before its last
//! messages, which still arrive. Messages of the highest lane come first. Messages of one sender on
//! one route arrive in order, each once. [`recv`](client::Inbox::recv) waits without a limit,
//! [`try_recv`](client::Inbox::try_recv) does not wait. [`inbox_of`](client::Session::inbox_of)
//! makes an inbox of some endpoints, for a thread of their own. Times are CLOCK_MONOTONIC in
//! nanoseconds ([`monotonic_ns`](sys::clock::monotonic_ns)).
//!
//! # Values, and no copy
//!
//! A value of a plain type is sent as its bytes. A large message can be written directly into the
//! ring and read there:
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
//! slot.commit()?; // a slot that is dropped instead is not sent
//!
//! if let Incoming::Message(m) = inbox.recv()? && let Some(SetPoint { position, .. }) = m.value() {
//!     println!("to {position}");
//! }
//! if let Incoming::Message(m) = inbox.recv_in_place()? {
//!     let mut first = [0; 8];
//!     m.copy_to(&mut first); // the sender can use the slot again when `m` is dropped
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # A deadline for every cycle
//!
//! Connect, claim endpoints and allocate first. Then make the thread real-time, with a priority
//! below its lane. Then send and receive. `send_at` takes the time at which the message *should*
//! have been sent, so that a late cycle shows in the receiver's figures:
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
//! If a permission is missing, [`enter`](client::realtime::RealTimeBuilder::enter) returns an error
//! with the line that grants it. A thread that has a CPU of its own can spin instead of sleeping
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
//!     Err(CallError::Timeout { .. }) => println!("{} answers were late so far", drive.late()),
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
//! A signal endpoint (`kind = "signal"`) delivers messages as a POSIX real-time signal. Handlers
//! are closures that run on an ordinary thread, so they may allocate and lock, and system calls of
//! the program do not fail with EINTR:
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
//! Payloads longer than the 8 bytes of a signal (`msgsize` of its endpoint) are sent in a ring of
//! the session, and its [`signals`](client::Session::signals) pass them to the handler.
//! [`handler`](client::signals::handler) installs an asynchronous handler, for programs that need
//! one.
//!
//! # One wait for everything
//!
//! An inbox has a descriptor that is readable while messages or events wait. Add it to any event
//! loop, or to a [`Waiter`](client::waiter::Waiter) beside signals, timers and sockets. A waiter
//! returns what is ready in the order of priorities:
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
//! # When other processes end
//!
//! | what happens | senders | inboxes |
//! |---|---|---|
//! | the receiver ends | [`PeerDead`](client::SendError::PeerDead), with how it ended | [`PeerLost`](client::Event::PeerLost) |
//! | messages of a direct ring were not read | | [`Lost`](client::Event::Lost), with their number |
//! | the receiver is back | go on | [`PeerBack`](client::Event::PeerBack) |
//! | the daemon ends | routed: [`Disconnected`](client::SendError::Disconnected); direct: go on | [`Down`](client::Event::Down) |
//! | the daemon is back | go on; unread messages are sent first | [`Up`](client::Event::Up); duplicates are discarded |
//! | it is back without that route | [`Disconnected`](client::SendError::Disconnected), with this reason | [`Lost`](client::Event::Lost) if messages were on their way |
//! | a partner writes invalid data into shared memory | [`Corrupt`](client::SendError::Corrupt) | [`Corrupt`](client::Event::Corrupt) |
//! | the session is dropped | [`Disconnected`](client::SendError::Disconnected) | [`RecvError::Disconnected`](client::RecvError), after the last message |
//!
//! A session connects again by itself as soon as the daemon's socket appears. A partner that ended
//! before the session began is reported as lost, too.
//!
//! In the child of a fork(2) every call on its parent's session, senders, inboxes and dispatchers
//! returns an error at once ([`Gone::Forked`](client::Gone::Forked)), and dropping them leaves the
//! parent's session as it is. The child may open a session of its own, under another name. A raw
//! clone(2) or vfork(2) that shares memory is no fork: such a child may only exec.
//!
//! # What is verified, and what is not
//!
//! - **Who sent a message**: the daemon verifies the sender when it registers (SO_PEERCRED, pidfd);
//!   nothing that the sender writes counts. [`Origin::verified`](message::Origin::verified) is
//!   false for a message from a queue that other users may write, and from a queued signal, whose
//!   `si_pid` is its sender's claim.
//! - **Shared memory**: each side maps the other's memory read-only, and checks every number that
//!   it reads there before it uses it. A process that breaks a rule is disconnected; it cannot make
//!   another one read out of bounds, hang or crash.
//! - **Loss**: a message that was accepted is delivered, or its loss is visible: in the sequence
//!   ([`missed`](client::Head::missed)), as an event, and in the daemon's ledger (`rtctl stats`).
//! - **Not verified**: the meaning of the bytes; and, for messages that are read in place from a
//!   direct partner, that the partner does not change them meanwhile.
//! - Sending and receiving neither allocate nor lock. A send to a receiver that is awake makes no
//!   system call.
//!
//! # Limits
//!
//! A message has at most 1 MiB, a ring 65536 slots and 256 MiB; a process 128 channels; a name 31
//! bytes of printable ASCII. An inbox holds 256 events for a program that does not read them. A
//! `Sender`, an `Inbox` or a `Caller` is used by one thread at a time and may be moved to another;
//! a ring has one sender and one receiver. Rings are locked in memory as far as RLIMIT_MEMLOCK
//! allows.
//!
//! # The rest of the crate
//!
//! The daemon uses this crate too. Modules from the bottom up: [`sys`] wraps one kernel object per
//! file, [`skin`] is the table of real-time calls, [`ring`] the queue in shared memory,
//! [`endpoint`] is what lane threads read and write, [`lane`] moves messages, [`stats`] is the
//! statistics page, [`wire`] the frames of the control socket, and [`client`] the part for control
//! processes. The real-time modules depend on no serde, no clap and no async runtime.

// Under loom only the rings are built, and what they stand on: its atomics live in no mapping.
#[cfg(not(loom))]
pub mod channel;
#[cfg(not(loom))]
pub mod client;
#[cfg(not(loom))]
pub mod endpoint;
#[cfg(not(loom))]
pub mod epoch;
pub mod fault;
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
pub mod wait;
#[cfg(not(loom))]
pub mod wire;
