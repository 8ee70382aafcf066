//! What a session knows: `rtcore_peer` and `rtcore_channel`, copied into an array of the caller's.

use crate::arguments::{Plain, fill, shared};
use crate::error::{Failure, Misuse};
use crate::message::ending;
use crate::session::rtcore_session;
use client::client::{Channel, Name, PeerStatus, Role};
use std::ffi::c_char;

/// `RTCORE_NAME_BYTES`: a name and its end.
const NAME_BYTES: usize = 32;

/// `RTCORE_ROLE_*`.
const SENDER: u32 = 1;
const INBOX: u32 = 2;
const SIGNAL: u32 = 3;

/// `RTCORE_DIRECT`.
const DIRECT: u32 = 1;

/// A process that the session talks to.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct rtcore_peer {
    pub process: [c_char; NAME_BYTES],
    pub state: u32,
    pub pid: i32,
    pub ending_kind: i32,
    pub ending_value: i32,
}

/// One way into or out of the session.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct rtcore_channel {
    pub endpoint: [c_char; NAME_BYTES],
    pub other: [c_char; NAME_BYTES],
    pub process: [c_char; NAME_BYTES],
    pub lane: [c_char; NAME_BYTES],
    pub route: [c_char; NAME_BYTES],
    pub role: u32,
    pub flags: u32,
    pub priority: u32,
    pub signo: i32,
    pub slots: u32,
    pub msgsize: u32,
    pub keep: u32,
    pub reserved: u32,
    pub block_ns: u64,
    pub ttl_ns: u64,
    pub deadline_ns: u64,
}

// SAFETY: both are `repr(C)`, of integers.
unsafe impl Plain for rtcore_peer {}
// SAFETY: as above.
unsafe impl Plain for rtcore_channel {}

fn chars(name: Option<Name>) -> [c_char; NAME_BYTES] {
    let mut chars = [0; NAME_BYTES];
    if let Some(name) = &name {
        for (to, from) in chars.iter_mut().zip(name.as_str().bytes()) {
            *to = from.cast_signed();
        }
    }
    chars
}

fn peer_of(peer: &PeerStatus) -> rtcore_peer {
    let (ending_kind, ending_value) = ending(peer.ending);
    rtcore_peer {
        process: chars(Some(peer.process)),
        state: peer.state as u32,
        pid: peer.pid.cast_signed(),
        ending_kind,
        ending_value,
    }
}

fn channel_of(channel: &Channel) -> rtcore_channel {
    let (role, signo) = match channel.role {
        Role::Sender => (SENDER, 0),
        Role::Inbox => (INBOX, 0),
        Role::Signal { signo } => (SIGNAL, signo),
    };
    rtcore_channel {
        endpoint: chars(Some(channel.endpoint)),
        other: chars(Some(channel.other)),
        process: chars(channel.process),
        lane: chars(Some(channel.lane)),
        route: chars(Some(channel.route)),
        role,
        flags: if channel.direct { DIRECT } else { 0 },
        priority: channel.priority.into(),
        signo,
        slots: channel.slots,
        msgsize: channel.payload_bytes,
        keep: channel.keep,
        reserved: 0,
        block_ns: channel.block_ns,
        ttl_ns: channel.ttl_ns,
        deadline_ns: channel.deadline_ns,
    }
}

/// Fills the first of these; how many there are.
///
/// # Safety
/// 1. `array` is null with `n` 0, or writable for `n` elements of `size` bytes.
unsafe fn copy<T: Plain, V>(
    values: &[V],
    of: impl Fn(&V) -> T,
    array: *mut T,
    n: usize,
    size: usize,
) -> Result<isize, Failure> {
    if n > 0 && (array.is_null() || !size.is_multiple_of(align_of::<T>())) {
        return Err(Misuse::Size.into());
    }
    for (at, value) in values.iter().take(n).enumerate() {
        // SAFETY: the caller's contract: element `at` is one of the `n`.
        unsafe { fill(array.byte_add(at * size), size, &of(value)) }?;
    }
    // At most some thousand.
    Ok(values.len().cast_signed())
}

export! {
    /// The processes that the session talks to.
    fn rtcore_session_peers(
        session: *const rtcore_session,
        array: *mut rtcore_peer,
        n: usize,
        size: usize,
    ) -> isize {
        // SAFETY: the header's contract.
        let count = unsafe {
            shared(session).and_then(|session| {
                session.creator.check()?;
                copy(&session.session.peers(), peer_of, array, n, size)
            })
        };
        count.unwrap_or_else(|failure| failure.code() as isize)
    }

    /// The channels that the session has by the configuration in force.
    fn rtcore_session_channels(
        session: *const rtcore_session,
        array: *mut rtcore_channel,
        n: usize,
        size: usize,
    ) -> isize {
        // SAFETY: the header's contract.
        let count = unsafe {
            shared(session).and_then(|session| {
                session.creator.check()?;
                copy(&session.session.channels(), channel_of, array, n, size)
            })
        };
        count.unwrap_or_else(|failure| failure.code() as isize)
    }
}
