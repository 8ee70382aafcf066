//! What the daemon tells a session without being asked, most of it once, right after Open:
//!
//! ```text
//! client                          daemon
//!   Open{name}            ->
//!                         <-      Reply Ok                     + the page of bells
//!                         <-      Channel, for each end it has
//!                         <-      Ring, for each routed one    + producer's memory, consumer's, eventfd
//!                         <-      Map{serial}
//!   Mapped{serial}        ->
//!                         <-      Reach, for each routed sender whose messages nobody would receive now
//!                         <-      Ready
//! ```
//!
//! The client maps all of this memory at Map. rtd then seals it against further writers, and only
//! after that the lanes use it and see the process alive: nothing is delivered into memory that the
//! client has not mapped.
//!
//! Where a lane's doorbell is a semaphore, each routed Ring names two by the daemon's instance and
//! their numbers: the one that the session sleeps at for this channel, and the lane thread's.
//!
//! A direct ring needs both processes and two steps, so that no end ever holds a descriptor through
//! which it could write what is the other's: each gets the memory it writes, maps it and says so;
//! when both have, the memory is sealed against further writers, and each gets the other's for
//! reading.
//!
//! ```text
//!                         <-      Ring{serial}                 + own memory, eventfd, the ring's bells
//!   Mapped{serial}        ->
//!                         <-      Join{serial}                 + the other's memory, pidfd of the other
//! ```
//!
//! Later: Ring and Join again when the other end was replaced, Reach when a sender's receivers come
//! or go, Peer when a process that this one talks to comes or goes.

use super::{
    FRAME_BYTES, Frame, FrameError, MAGIC, NAME_BYTES_MAX, Name, Reply, VERSION, check_header,
};
use crate::lane::peer::PeerState;
use crate::ring::Geometry;
use crate::sys::pidfd::Ending;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// Limit of the descriptors with one frame.
pub const FDS_MAX: usize = 3;

const CHANNEL: u16 = 100;
const RING: u16 = 101;
const JOIN: u16 = 102;
const REACH: u16 = 103;
const PEER: u16 = 104;
const READY: u16 = 105;
const MAP: u16 = 106;

/// A name, or nothing.
type Field = [u8; NAME_BYTES_MAX + 1];

/// The bytes of the frame. Offsets are part of the protocol.
#[repr(C)]
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
struct Layout {
    magic: [u8; 4],
    version: u16,
    kind: u16,
    channel: u32,
    /// Serial; Peer: pid.
    serial: u32,
    /// Channel: flags. Ring: 1 = with semaphores. Reach: 1 = a receiver is there. Peer: state.
    flags: u32,
    /// Channel. Ring: number of the session's semaphore.
    slots: u32,
    /// Channel. Ring: number of the lane thread's semaphore.
    payload_bytes: u32,
    /// Ring: the other end's pid. Peer: how it ended, and by what.
    pid: u32,
    uid: u32,
    signo: i32,
    priority: u32,
    keep: u32,
    block_ns: u64,
    names: [Field; 5],
    ttl_ns: u64,
    deadline_ns: u64,
    /// Ring: the program of the other end's process.
    program: u32,
    reserved: [u8; 20],
}
const _: () = assert!(size_of::<Layout>() == FRAME_BYTES);

const FLAG_CONSUMER: u32 = 1;
const FLAG_DIRECT: u32 = 2;
const FLAG_SIGNAL: u32 = 4;
const FLAGS: u32 = FLAG_CONSUMER | FLAG_DIRECT | FLAG_SIGNAL;

/// The role of a channel in the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It sends into a lane endpoint of its own.
    Sender,
    /// It receives from a lane endpoint of its own.
    Inbox,
    /// It receives payloads of this signal.
    Signal {
        /// The kernel's signal number.
        signo: i32,
    },
}

/// One channel of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channel {
    /// The daemon's number of the channel.
    pub channel: u32,
    /// The role of the channel.
    pub role: Role,
    /// Whether it goes directly from process to process.
    pub direct: bool,
    /// The session's own endpoint.
    pub endpoint: Name,
    /// The endpoint at the other side: the source, or (the first of) the sinks.
    pub other: Name,
    /// The process at the other side, if one owns the endpoint there.
    pub process: Option<Name>,
    pub lane: Name,
    /// SCHED_FIFO priority of the lane: its ceiling, and the order in an inbox.
    pub priority: u8,
    /// Name of the route (of a sender: its first route).
    pub route: Name,
    /// Slots of its ring.
    pub slots: u32,
    /// Payload bytes of a slot.
    pub payload_bytes: u32,
    /// How long a send may wait for room; 0: not at all.
    pub block_ns: u64,
    /// Receivers: the number of newest messages that the ring keeps, because its producer
    /// overwrites older ones; 0: all, and the producer waits for room.
    pub keep: u32,
    /// Receivers: messages older than this since the send are discarded; 0: none.
    pub ttl_ns: u64,
    /// Receivers: messages that are taken later than this after the time at which they should have
    /// been sent are counted; 0: none.
    pub deadline_ns: u64,
}

impl Channel {
    /// The size of its ring, if such a ring is possible. The ring of a direct receiver has room for
    /// latencies, because only the receiver can measure them.
    pub fn geometry(&self) -> Option<Geometry> {
        let geometry = Geometry::new(self.slots, self.payload_bytes)?;
        Some(if self.direct {
            geometry.timed()
        } else {
            geometry
        })
    }
}

/// The semaphores at the two ends of a ring, see [`crate::skin::semaphore::name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Semaphores {
    /// The daemon's instance.
    pub instance: Name,
    /// Number of the session's own.
    pub own: u32,
    /// Number of the lane thread's.
    pub lane: u32,
}

/// The state of a process after a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    pub process: Name,
    /// Its state.
    pub state: PeerState,
    /// Its pid, or that of the one that ended.
    pub pid: u32,
    /// How it ended, if it did and the kernel reports it.
    pub ending: Option<Ending>,
}

/// A checked notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Describes a channel.
    Channel(Channel),
    /// Brings the memory of a ring for a channel.
    Ring {
        channel: u32,
        /// Number of this ring.
        serial: u32,
        /// Direct: the process at the other end.
        pid: u32,
        /// Direct: its real user.
        uid: u32,
        /// Direct: the program that it runs, as its [`super::Request::Open`] names it. If that
        /// process ran another program before, this is the only end that is left of the rings to
        /// it.
        program: u32,
        /// Routed, in a lane whose doorbell is a semaphore: the two semaphores.
        semaphores: Option<Semaphores>,
    },
    /// Brings the other half of a direct ring.
    Join { channel: u32, serial: u32 },
    /// Tells whether a receiver can get messages of a sender's channel.
    Reach {
        channel: u32,
        /// Whether a receiver is there.
        reachable: bool,
    },
    /// A process that this session exchanges messages with came or went.
    Peer(PeerStatus),
    /// All routed rings have been sent: the client maps them and answers
    /// [`super::Request::Mapped`].
    Map {
        /// Number to return in the answer.
        serial: u32,
    },
    /// The session is open.
    Ready,
}

/// A frame from the daemon.
#[expect(
    clippy::large_enum_variant,
    reason = "decoded and used at once, never stored"
)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The reply to a request.
    Reply(Reply),
    /// A frame that answers no request.
    Notice(Notice),
}

impl Answer {
    /// Decodes a frame. Errors: [`FrameError`], if a field is not valid.
    pub fn decode(bytes: &[u8]) -> Result<Answer, FrameError> {
        let frame = check_header(bytes)?;
        if u16::from_ne_bytes([frame[6], frame[7]]) < CHANNEL {
            return Reply::decode(bytes).map(Answer::Reply);
        }
        Notice::decode(bytes).map(Answer::Notice)
    }
}

impl Notice {
    /// Encodes the frame.
    pub fn encode(&self) -> Frame {
        let mut layout = Layout::of(READY);
        match self {
            Notice::Ready => {}
            Notice::Map { serial } => {
                layout = Layout {
                    serial: *serial,
                    ..Layout::of(MAP)
                }
            }
            Notice::Channel(channel) => layout.set_channel(channel),
            Notice::Ring {
                channel,
                serial,
                pid,
                uid,
                program,
                semaphores,
            } => {
                layout = Layout {
                    channel: *channel,
                    serial: *serial,
                    pid: *pid,
                    uid: *uid,
                    ..Layout::of(RING)
                };
                layout.program = *program;
                if let Some(Semaphores {
                    instance,
                    own,
                    lane,
                }) = semaphores
                {
                    layout = Layout {
                        flags: 1,
                        slots: *own,
                        payload_bytes: *lane,
                        ..layout
                    };
                    layout.names[0] = instance.bytes();
                }
            }
            Notice::Join { channel, serial } => {
                layout = Layout {
                    channel: *channel,
                    serial: *serial,
                    ..Layout::of(JOIN)
                };
            }
            Notice::Reach { channel, reachable } => {
                layout = Layout {
                    channel: *channel,
                    flags: u32::from(*reachable),
                    ..Layout::of(REACH)
                };
            }
            Notice::Peer(status) => {
                let (how, number) = match status.ending {
                    None => (0, 0),
                    Some(Ending::Exit(status)) => (1, status),
                    Some(Ending::Signal(signo)) => (2, signo),
                };
                let (flags, serial) = (status.state as u32, status.pid);
                layout = Layout {
                    flags,
                    serial,
                    pid: how,
                    signo: number,
                    ..Layout::of(PEER)
                };
                layout.names[0] = status.process.bytes();
            }
        }
        zerocopy::transmute!(layout)
    }

    /// Decodes a frame. Errors: [`FrameError`], if a field is not valid.
    pub fn decode(bytes: &[u8]) -> Result<Notice, FrameError> {
        let layout: Layout = zerocopy::transmute!(*check_header(bytes)?);
        let Layout {
            channel,
            serial,
            flags,
            pid,
            uid,
            ..
        } = layout;
        let notice = match layout.kind {
            CHANNEL => Notice::Channel(layout.channel()?),
            RING => {
                let program = layout.program;
                Notice::Ring {
                    channel,
                    serial,
                    pid,
                    uid,
                    program,
                    semaphores: layout.semaphores()?,
                }
            }
            JOIN => Notice::Join { channel, serial },
            REACH => Notice::Reach {
                channel,
                reachable: flag("reachable", flags)?,
            },
            PEER => Notice::Peer(layout.peer()?),
            READY => Notice::Ready,
            MAP => Notice::Map {
                serial: layout.serial,
            },
            kind => return Err(FrameError::Kind(kind)),
        };
        // Encoding sets each used byte and zeroes the others: a difference is a byte that has no
        // meaning.
        if notice.encode() != *bytes {
            return Err(FrameError::Reserved);
        }
        Ok(notice)
    }
}

fn flag(field: &'static str, value: u32) -> Result<bool, FrameError> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        value => Err(FrameError::Range { field, value }),
    }
}

impl Layout {
    fn of(kind: u16) -> Layout {
        Layout {
            magic: MAGIC,
            version: VERSION,
            kind,
            ..Layout::new_zeroed()
        }
    }

    fn set_channel(&mut self, channel: &Channel) {
        let (role, signo) = match channel.role {
            Role::Sender => (0, 0),
            Role::Inbox => (FLAG_CONSUMER, 0),
            Role::Signal { signo } => (FLAG_CONSUMER | FLAG_SIGNAL, signo),
        };
        let process = channel
            .process
            .map_or([0; NAME_BYTES_MAX + 1], |name| name.bytes());
        *self = Layout {
            channel: channel.channel,
            flags: role | if channel.direct { FLAG_DIRECT } else { 0 },
            slots: channel.slots,
            payload_bytes: channel.payload_bytes,
            signo,
            priority: channel.priority.into(),
            block_ns: channel.block_ns,
            keep: channel.keep,
            ttl_ns: channel.ttl_ns,
            deadline_ns: channel.deadline_ns,
            names: [
                channel.endpoint.bytes(),
                channel.other.bytes(),
                process,
                channel.lane.bytes(),
                channel.route.bytes(),
            ],
            ..Layout::of(CHANNEL)
        };
    }

    fn channel(&self) -> Result<Channel, FrameError> {
        let range = |field, value| FrameError::Range { field, value };
        let role = match self.flags & !FLAG_DIRECT {
            0 => Role::Sender,
            FLAG_CONSUMER => Role::Inbox,
            signal if signal == FLAG_CONSUMER | FLAG_SIGNAL => Role::Signal { signo: self.signo },
            value => return Err(range("flags", value)),
        };
        debug_assert!(self.flags & !FLAGS == 0);
        let [endpoint, other, process, lane, route] = &self.names;
        let process = if process[0] == 0 {
            None
        } else {
            Some(Name::decode(process)?)
        };
        Ok(Channel {
            channel: self.channel,
            role,
            direct: self.flags & FLAG_DIRECT != 0,
            endpoint: Name::decode(endpoint)?,
            other: Name::decode(other)?,
            process,
            lane: Name::decode(lane)?,
            priority: u8::try_from(self.priority).map_err(|_| range("priority", self.priority))?,
            route: Name::decode(route)?,
            slots: self.slots,
            payload_bytes: self.payload_bytes,
            block_ns: self.block_ns,
            keep: self.keep,
            ttl_ns: self.ttl_ns,
            deadline_ns: self.deadline_ns,
        })
    }

    fn semaphores(&self) -> Result<Option<Semaphores>, FrameError> {
        if !flag("semaphores", self.flags)? {
            return Ok(None);
        }
        let instance = Name::decode(&self.names[0])?;
        Ok(Some(Semaphores {
            instance,
            own: self.slots,
            lane: self.payload_bytes,
        }))
    }

    fn peer(&self) -> Result<PeerStatus, FrameError> {
        let range = |field, value| FrameError::Range { field, value };
        let state = match self.flags {
            0 => PeerState::Unregistered,
            1 => PeerState::Alive,
            2 => PeerState::Dead,
            value => return Err(range("state", value)),
        };
        let ending = match self.pid {
            0 => None,
            1 => Some(Ending::Exit(self.signo)),
            2 => Some(Ending::Signal(self.signo)),
            value => return Err(range("ending", value)),
        };
        Ok(PeerStatus {
            process: Name::decode(&self.names[0])?,
            state,
            pid: self.serial,
            ending,
        })
    }
}
