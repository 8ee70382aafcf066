//! Clients that are none: what a stranger does at the control socket.

use anyhow::Context as _;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, send, socket};
use rtcore::wire::{FRAME_BYTES, VERSION};
use std::os::fd::{AsRawFd as _, OwnedFd};

/// Connections of one attack.
const CONNECTIONS: usize = 200;
/// Of these, so many stay open until its end.
const KEPT: usize = 64;

/// Connects again and again and writes what `frame` makes: random bytes, too.
pub fn attack(
    path: &str,
    rng: &mut fastrand::Rng,
    frame: fn(&mut fastrand::Rng) -> Vec<u8>,
) -> anyhow::Result<()> {
    let address = UnixAddr::new(path)?;
    let mut kept: Vec<OwnedFd> = Vec::new();
    for _ in 0..CONNECTIONS {
        let fd = socket(
            AddressFamily::Unix,
            SockType::SeqPacket,
            SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC,
            None,
        );
        let fd = fd.context("socket")?;
        // A full backlog is an answer too.
        if connect(fd.as_raw_fd(), &address).is_ok() {
            for _ in 0..rng.usize(0..4) {
                let _ = send(fd.as_raw_fd(), &frame(rng), MsgFlags::MSG_NOSIGNAL);
            }
        }
        if kept.len() < KEPT && rng.bool() {
            kept.push(fd);
        }
    }
    Ok(())
}

/// Bytes of any length.
pub fn garbage(rng: &mut fastrand::Rng) -> Vec<u8> {
    let len = rng.usize(0..2 * FRAME_BYTES);
    (0..len).map(|_| rng.u8(..)).collect()
}

/// A frame with a good head, of this or another version, and any content.
pub fn wrong_version(rng: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..FRAME_BYTES).map(|_| rng.u8(..)).collect();
    let version = if rng.bool() { VERSION } else { rng.u16(..) };
    bytes[..4].copy_from_slice(b"rtd\0");
    bytes[4..6].copy_from_slice(&version.to_ne_bytes());
    bytes[6..8].copy_from_slice(&rng.u16(0..16).to_ne_bytes());
    bytes
}
