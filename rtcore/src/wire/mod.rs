//! Frames of the control socket: fixed size, versioned, bounded.
//!
//! A frame is one SOCK_SEQPACKET packet of [`FRAME_BYTES`] bytes, in the byte order of the machine
//! that both sides run on. Version and kind come first and keep their place in every version, so
//! that two sides can always detect that their versions differ.
//!
//! Invariant: the bytes of a frame are an *allegation* of the client; [`Request::decode`] and
//! [`Reply::decode`] check every field once, and only their results are used. Neither panics on any
//! input (property-tested), and unused bytes are zero, so that a later version can give them a
//! meaning.

mod notice;
mod reply;
mod request;

pub use notice::{Answer, Channel, FDS_MAX, Notice, PeerStatus, Role, Semaphores};
pub use reply::{Reply, Status, TEXT_BYTES_MAX};
pub use request::{Name, Request};

use thiserror::Error;

/// Length of every frame in both directions.
pub const FRAME_BYTES: usize = 256;
/// The protocol version of this side.
pub const VERSION: u16 = 4;
/// Longest process name; one byte of the field stays zero.
pub const NAME_BYTES_MAX: usize = 31;
/// First four bytes of a frame.
const MAGIC: [u8; 4] = *b"rtd\0";

/// The answer to [`Request::Ping`].
pub fn pong(instance: &str) -> String {
    format!("rtd `{instance}` is there")
}

/// A frame as it travels.
pub type Frame = [u8; FRAME_BYTES];

/// Why bytes are not a frame.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum FrameError {
    /// The length is not [`FRAME_BYTES`].
    #[error("a frame has {FRAME_BYTES} bytes, this one {0}: is the client rtctl?")]
    Length(usize),
    /// The first bytes are not those of a frame.
    #[error("a frame starts with \"rtd\\0\", this one does not: is the client rtctl?")]
    Magic,
    /// Another version; this is checked before the rest of the frame.
    #[error(
        "a frame of protocol version {0}, expected {VERSION}: use rtd, rtctl and rtcore of one release"
    )]
    Version(u16),
    /// A request or status this version does not know.
    #[error("version {VERSION} has no frame kind {0}")]
    Kind(u16),
    /// A name that no process can have.
    #[error("the name is not 1..={NAME_BYTES_MAX} bytes of printable ASCII, padded with zeros")]
    Name,
    /// A number outside its range.
    #[error("{field} is {value}, which is out of range")]
    Range {
        field: &'static str,
        /// Its value.
        value: u32,
    },
    /// The text is not UTF-8.
    #[error("the text is not UTF-8")]
    Text,
    /// Bytes are set that this version leaves zero.
    #[error("bytes that version {VERSION} leaves zero are set")]
    Reserved,
}

/// The eight bytes that all versions share, checked.
fn check_header(bytes: &[u8]) -> Result<&Frame, FrameError> {
    let frame: &Frame = bytes
        .try_into()
        .map_err(|_| FrameError::Length(bytes.len()))?;
    if frame[..4] != MAGIC {
        return Err(FrameError::Magic);
    }
    let version = u16::from_ne_bytes([frame[4], frame[5]]);
    if version != VERSION {
        return Err(FrameError::Version(version));
    }
    Ok(frame)
}

#[cfg(test)]
mod tests;
