//! Requests of a client.

use super::{FRAME_BYTES, Frame, FrameError, MAGIC, NAME_BYTES_MAX, VERSION, check_header};
use std::ffi::c_char;
use std::fmt;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

const REGISTER: u16 = 1;
const UNREGISTER: u16 = 2;
const PING: u16 = 3;
const OPEN: u16 = 4;
const MAPPED: u16 = 5;
const EXPLAIN: u16 = 6;
const FLUSHED: u16 = 7;
const LEAVE: u16 = 8;
const REFUSALS: u16 = 9;
const CARRY: u16 = 10;
/// Flag of Register: the connection closes by exec(2).
const EXEC_FOLLOWS: u32 = 1;
/// Flag of Open: rings ring semaphores.
const SEMAPHORES: u32 = 1;

/// The bytes of the frame. Offsets are part of the protocol.
#[repr(C)]
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
struct Layout {
    magic: [u8; 4],
    version: u16,
    kind: u16,
    pid: u32,
    tid: u32,
    flags: u32,
    name: [u8; NAME_BYTES_MAX + 1],
    lane: [u8; NAME_BYTES_MAX + 1],
    program: u32,
    reserved: [u8; 168],
}
const _: () = assert!(size_of::<Layout>() == FRAME_BYTES);

/// A process name: 1..=31 bytes of printable ASCII without blanks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Name {
    bytes: [u8; NAME_BYTES_MAX + 1],
    length: usize,
}

impl Name {
    /// Checks a name.
    pub fn new(name: &str) -> Result<Name, FrameError> {
        let length = name.len();
        let plain = name.bytes().all(|b| b.is_ascii_graphic());
        if length == 0 || length > NAME_BYTES_MAX || !plain {
            return Err(FrameError::Name);
        }
        let mut bytes = [0; NAME_BYTES_MAX + 1];
        bytes[..length].copy_from_slice(name.as_bytes());
        Ok(Name { bytes, length })
    }

    pub(super) fn decode(bytes: &[u8; NAME_BYTES_MAX + 1]) -> Result<Name, FrameError> {
        let length = bytes.iter().position(|b| *b == 0).ok_or(FrameError::Name)?;
        let name = str::from_utf8(&bytes[..length]).map_err(|_| FrameError::Name)?;
        let name = Name::new(name)?;
        // Bytes after the terminator would be a second, hidden name.
        if name.bytes != *bytes {
            return Err(FrameError::Name);
        }
        Ok(name)
    }

    /// The bytes in a frame: followed by zeros, at least one.
    pub(crate) fn bytes(&self) -> [u8; NAME_BYTES_MAX + 1] {
        self.bytes
    }

    /// The name as C has it: followed by a zero byte.
    #[inline]
    pub fn as_ptr(&self) -> *const c_char {
        // At most `NAME_BYTES_MAX` bytes are a name's: the last one stays zero.
        self.bytes.as_ptr().cast()
    }

    pub fn as_str(&self) -> &str {
        // Only ASCII passes `new`, so this is never the empty default.
        str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A checked request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// A process takes a name.
    Register {
        /// Name of a `[[process]]`.
        name: Name,
        /// The process; 0: the one that connected.
        pid: i32,
        /// The thread that gets thread-directed signals; 0: the main thread.
        tid: i32,
        /// The process is about to call exec(2); the end of the connection shows that it has.
        exec_follows: bool,
    },
    /// Releases a name.
    Unregister {
        /// Name of a `[[process]]`.
        name: Name,
    },
    /// Asks whether the daemon answers.
    Ping,
    /// The connecting process takes a name for as long as this connection lasts, and gets the rings
    /// of its lane endpoints: see [`super::Notice`].
    Open {
        /// Name of a `[[process]]`.
        name: Name,
        /// The thread that gets thread-directed signals; 0: the main thread.
        tid: i32,
        /// It runs on a skin whose doorbell is a semaphore.
        semaphores: bool,
        /// The session continues the one whose registration has this lower half of its generation,
        /// in the same process: it moves the messages that lanes have not taken from the rings of
        /// that session. 0: none.
        resumes: u32,
        /// Identifies the program that the process runs: it changes with exec(2), which ends a
        /// session without a frame.
        program: u32,
        /// The lane below which that thread runs, if the library made it real-time.
        lane: Option<Name>,
    },
    /// The client has mapped the memory that it writes, of all routed rings or of a direct one, so
    /// the memory need not be opened for writing again.
    Mapped {
        /// The serial of [`super::Notice::Map`], or of the direct ring's [`super::Notice::Ring`].
        serial: u32,
    },
    /// Asks why this session has no such endpoint.
    Explain {
        /// Name of an endpoint.
        endpoint: Name,
    },
    /// The connecting process discarded messages of this endpoint's queue; the daemon logs it.
    Flushed {
        /// Name of an endpoint of kind mqueue.
        endpoint: Name,
        /// Number of messages.
        messages: u32,
    },
    /// The client closes this session. The end of the connection alone does not show this: a
    /// process that closes its session and ends at once would look like one that has died.
    Leave,
    /// Before [`Request::Mapped`], with a descriptor: the memory in which the session counts the
    /// messages that its senders refuse ([`crate::refusals`]).
    Refusals,
    /// Before [`Request::Mapped`], with descriptors of the producer's memory, the consumer's, and
    /// the bells: a direct ring of an earlier daemon, which both ends keep using. This daemon
    /// accounts for the messages that the earlier one has not accounted for.
    Carry {
        /// This daemon's number of the channel.
        channel: u32,
        /// The process at the other end.
        pid: u32,
        /// Identifies the program of the session that asks.
        program: u32,
    },
}

impl Request {
    /// Encodes the frame.
    pub fn encode(&self) -> Frame {
        let mut layout = Layout {
            magic: MAGIC,
            version: VERSION,
            kind: PING,
            pid: 0,
            tid: 0,
            flags: 0,
            name: [0; NAME_BYTES_MAX + 1],
            lane: [0; NAME_BYTES_MAX + 1],
            program: 0,
            reserved: [0; 168],
        };
        match self {
            Request::Register {
                name,
                pid,
                tid,
                exec_follows,
            } => {
                layout.kind = REGISTER;
                layout.name = name.bytes;
                layout.pid = pid.cast_unsigned();
                layout.tid = tid.cast_unsigned();
                layout.flags = u32::from(*exec_follows) * EXEC_FOLLOWS;
            }
            Request::Unregister { name } => {
                layout.kind = UNREGISTER;
                layout.name = name.bytes;
            }
            Request::Ping => {}
            Request::Open {
                name,
                tid,
                semaphores,
                resumes,
                program,
                lane,
            } => {
                layout.kind = OPEN;
                layout.lane = lane.map_or([0; NAME_BYTES_MAX + 1], |lane| lane.bytes);
                layout.flags = u32::from(*semaphores) * SEMAPHORES;
                layout.pid = *resumes;
                layout.program = *program;
                layout.name = name.bytes;
                layout.tid = tid.cast_unsigned();
            }
            Request::Mapped { serial } => {
                layout.kind = MAPPED;
                layout.pid = *serial;
            }
            Request::Explain { endpoint } => {
                layout.kind = EXPLAIN;
                layout.name = endpoint.bytes;
            }
            Request::Flushed { endpoint, messages } => {
                layout.kind = FLUSHED;
                layout.name = endpoint.bytes;
                layout.pid = *messages;
            }
            Request::Leave => layout.kind = LEAVE,
            Request::Refusals => layout.kind = REFUSALS,
            Request::Carry {
                channel,
                pid,
                program,
            } => {
                layout.program = *program;
                layout.kind = CARRY;
                layout.tid = *channel;
                layout.pid = *pid;
            }
        }
        zerocopy::transmute!(layout)
    }

    /// Decodes a frame. Errors: [`FrameError`], if a field is not valid.
    pub fn decode(bytes: &[u8]) -> Result<Request, FrameError> {
        let layout: Layout = zerocopy::transmute!(*check_header(bytes)?);
        let request = match layout.kind {
            REGISTER => {
                let tid = number("tid", layout.tid)?;
                let exec_follows = flag("flags", layout.flags, EXEC_FOLLOWS)?;
                // Only the connecting process can end the connection by its exec, and exec leaves
                // it a single thread.
                if exec_follows && (layout.pid != 0 || tid != 0) {
                    return Err(FrameError::Range {
                        field: "flags",
                        value: layout.flags,
                    });
                }
                Request::Register {
                    name: Name::decode(&layout.name)?,
                    pid: number("pid", layout.pid)?,
                    tid,
                    exec_follows,
                }
            }
            UNREGISTER => Request::Unregister {
                name: Name::decode(&layout.name)?,
            },
            PING => Request::Ping,
            OPEN => Request::Open {
                name: Name::decode(&layout.name)?,
                tid: number("tid", layout.tid)?,
                semaphores: flag("flags", layout.flags, SEMAPHORES)?,
                resumes: layout.pid,
                program: layout.program,
                lane: match layout.lane[0] {
                    0 => None,
                    _ => Some(Name::decode(&layout.lane)?),
                },
            },
            MAPPED => Request::Mapped { serial: layout.pid },
            EXPLAIN => Request::Explain {
                endpoint: Name::decode(&layout.name)?,
            },
            FLUSHED => Request::Flushed {
                endpoint: Name::decode(&layout.name)?,
                messages: layout.pid,
            },
            LEAVE => Request::Leave,
            REFUSALS => Request::Refusals,
            CARRY => Request::Carry {
                channel: layout.tid,
                pid: layout.pid,
                program: layout.program,
            },
            kind => return Err(FrameError::Kind(kind)),
        };
        // Encoding sets each used byte and zeroes the others: a difference is a byte that has no
        // meaning.
        if request.encode() != *bytes {
            return Err(FrameError::Reserved);
        }
        Ok(request)
    }
}

/// Whether the field has the only flag that exists.
fn flag(field: &'static str, value: u32, flag: u32) -> Result<bool, FrameError> {
    match value {
        0 => Ok(false),
        value if value == flag => Ok(true),
        value => Err(FrameError::Range { field, value }),
    }
}

fn number(field: &'static str, value: u32) -> Result<i32, FrameError> {
    i32::try_from(value).map_err(|_| FrameError::Range { field, value })
}
