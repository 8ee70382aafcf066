//! Hostile clients: strangers at the control socket and at queues, and a registered process
//! ([`Client`]).

mod client;
mod participant;

pub use client::{Client, NAME};

use crate::journal::STRANGER;
use crate::plan::Stream;
use anyhow::Context as _;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, send, socket,
};
use rtcore::sys::mqueue::{self, Access, Queue};
use rtcore::sys::seqpacket::Conn;
use rtcore::wire::{FRAME_BYTES, Name, Request, VERSION};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

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

/// A name that any process may take.
pub const GUEST: &str = "guest";
/// Clients that register at once, and how often each does.
const GUESTS: u64 = 4;
/// Between two registrations of one of them: together 2,000 a second.
const GUEST_INTERVAL: Duration = Duration::from_millis(2);
/// How long a client waits for an answer.
const ANSWER: Duration = Duration::from_millis(100);

/// Registers and unregisters a name over and over. Returns how many requests were answered a
/// second.
pub fn registrations(path: &str, time: Duration) -> anyhow::Result<u64> {
    let name = Name::new(GUEST)?;
    let start = Instant::now();
    let guest = || {
        let mut answered = 0;
        for turn in 1_u32.. {
            let due = GUEST_INTERVAL * turn;
            if due > time {
                break;
            }
            std::thread::sleep(due.saturating_sub(start.elapsed()));
            let register = Request::Register {
                name,
                pid: 0,
                tid: 0,
                exec_follows: false,
            };
            let request = if turn.is_multiple_of(2) {
                Request::Unregister { name }
            } else {
                register
            };
            let Ok(conn) = Conn::connect(path.as_ref(), ANSWER) else {
                continue;
            };
            let sent = conn.send(&request.encode()).is_ok();
            let mut frame = [0; FRAME_BYTES];
            answered += u64::from(sent && conn.receive_within(&mut frame, ANSWER).is_ok());
        }
        answered
    };
    let answered: u64 = std::thread::scope(|scope| {
        let guests: Vec<_> = (0..GUESTS).map(|_| scope.spawn(guest)).collect();
        guests
            .into_iter()
            .map(|guest| guest.join().unwrap_or(0))
            .sum()
    });
    let elapsed_ms = u64::try_from(start.elapsed().as_millis())
        .unwrap_or(u64::MAX)
        .max(1);
    Ok(answered * 1000 / elapsed_ms)
}

/// Writes into a queue whenever it has room. Returns how many messages.
pub fn fill_queue(endpoint: &str, time: Duration) -> anyhow::Result<u64> {
    let queue = Queue::open(
        &std::ffi::CString::new(Stream::queue(endpoint))?,
        Access::Send,
        true,
    )?;
    let mut message = [0; 16];
    message[..8].copy_from_slice(&STRANGER.to_ne_bytes());
    let (start, mut written) = (Instant::now(), 0);
    while start.elapsed() < time {
        match mqueue::send(queue.as_raw_fd(), &message, 0) {
            Ok(()) => written += 1,
            Err(_) => std::thread::sleep(Duration::from_micros(200)),
        }
    }
    Ok(written)
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
