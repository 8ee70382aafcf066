//! Replies of the daemon.

use super::{FRAME_BYTES, Frame, FrameError, MAGIC, VERSION, check_header};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Longest text, in bytes; longer ones are cut and end in `...`.
pub const TEXT_BYTES_MAX: usize = FRAME_BYTES - 28;

/// The bytes of the frame. Offsets are part of the protocol.
#[repr(C)]
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
struct Layout {
    magic: [u8; 4],
    version: u16,
    status: u16,
    generation: u64,
    signals: u64,
    pid: u32,
    text: [u8; TEXT_BYTES_MAX],
}
const _: () = assert!(size_of::<Layout>() == FRAME_BYTES);

/// The result of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Status {
    /// The request was carried out.
    Ok = 0,
    /// Granted, and announced to the lanes once the executable was seen after exec(2).
    Pending = 1,
    /// The frame is not one of this version.
    BadFrame = 2,
    /// No `[[process]]` has that name.
    UnknownName = 3,
    /// A living process has the name.
    Held = 4,
    /// The credentials are not those that the configuration requires, or the client may not act for
    /// that process.
    Denied = 5,
    /// That process or thread does not exist, or not any more.
    NoProcess = 6,
    /// The connection was closed in favour of others, or came too late; trying again may help.
    Busy = 7,
    /// The daemon lacks a resource; the text names it.
    Failed = 8,
}

impl Status {
    const ALL: [Status; 9] = [
        Status::Ok,
        Status::Pending,
        Status::BadFrame,
        Status::UnknownName,
        Status::Held,
        Status::Denied,
        Status::NoProcess,
        Status::Busy,
        Status::Failed,
    ];
}

/// A checked reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The result.
    pub status: Status,
    /// Number of registrations of the name, from 1; 0 if none was made.
    pub generation: u64,
    /// Signals that routes will send to the process; bit n-1 is signal n.
    pub signals: u64,
    /// The registered process, in the daemon's pid namespace; 0 if there is none.
    pub pid: u32,
    /// Text for the user: the event, the object and the fix.
    pub text: String,
}

impl Reply {
    /// A reply that registers nothing.
    pub fn plain(status: Status, text: impl Into<String>) -> Reply {
        Reply {
            status,
            generation: 0,
            signals: 0,
            pid: 0,
            text: text.into(),
        }
    }

    /// Encodes the frame; a text that is too long is cut between characters.
    pub fn encode(&self) -> Frame {
        let mut text = [0; TEXT_BYTES_MAX];
        // A NUL would end the text early on the other side and break the round trip.
        let clean = self.text.replace('\0', " ");
        let cut = if clean.len() <= TEXT_BYTES_MAX {
            clean
        } else {
            let room = TEXT_BYTES_MAX - 3;
            let end = (0..=room)
                .rev()
                .find(|at| clean.is_char_boundary(*at))
                .unwrap_or(0);
            format!("{}...", &clean[..end])
        };
        text[..cut.len()].copy_from_slice(cut.as_bytes());
        let layout = Layout {
            magic: MAGIC,
            version: VERSION,
            status: self.status as u16,
            generation: self.generation,
            signals: self.signals,
            pid: self.pid,
            text,
        };
        zerocopy::transmute!(layout)
    }

    /// Decodes a frame. Errors: [`FrameError`], if a field is not valid.
    pub fn decode(bytes: &[u8]) -> Result<Reply, FrameError> {
        let layout: Layout = zerocopy::transmute!(*check_header(bytes)?);
        let kind = FrameError::Kind(layout.status);
        let status = *Status::ALL.get(usize::from(layout.status)).ok_or(kind)?;
        let length = layout
            .text
            .iter()
            .position(|b| *b == 0)
            .unwrap_or(TEXT_BYTES_MAX);
        let (text, rest) = layout.text.split_at(length);
        if rest.iter().any(|b| *b != 0) {
            return Err(FrameError::Reserved);
        }
        let text = str::from_utf8(text)
            .map_err(|_| FrameError::Text)?
            .to_owned();
        let Layout {
            generation,
            signals,
            pid,
            ..
        } = layout;
        Ok(Reply {
            status,
            generation,
            signals,
            pid,
            text,
        })
    }
}
