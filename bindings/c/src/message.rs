//! `rtcore_message`: what an inbox returned, with pointers into the handle's memory.

use crate::arguments::Plain;
use crate::error::render;
use client::client::{Event, Head, Name};
use client::sys::clock::monotonic_ns;
use client::sys::pidfd::Ending;
use std::ffi::{c_char, c_void};
use std::fmt::Display;
use std::ptr::null;

/// `RTCORE_MESSAGE`, and `RTCORE_EVENT_*` of the header.
pub const MESSAGE: u32 = 1;
const PEER_LOST: u32 = 2;
const PEER_BACK: u32 = 3;
const DOWN: u32 = 4;
const REFUSED: u32 = 5;
const UP: u32 = 6;
const LOST: u32 = 7;
const CORRUPT: u32 = 8;

/// `RTCORE_VERIFIED`: the channel says who sent it, not the sender.
pub const VERIFIED: u32 = 1;
/// `RTCORE_SIGNAL`: `signo` and `signal_value` are of a signal.
const SIGNAL: u32 = 2;
/// `RTCORE_FROM_RING`: of a notice, a message of a ring, which has endpoint, route and times.
pub const FROM_RING: u32 = 4;

/// `RTCORE_EXITED`, `RTCORE_KILLED`.
const EXITED: i32 = 1;
const KILLED: i32 = 2;

/// What came.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct rtcore_message {
    pub kind: u32,
    pub flags: u32,
    pub data: *const c_void,
    pub len: usize,
    pub sequence: u64,
    pub missed: u64,
    pub intended_ns: u64,
    pub sent_ns: u64,
    pub received_ns: u64,
    pub reply_to: u64,
    pub pid: i32,
    pub uid: u32,
    pub signo: i32,
    pub mq_priority: u32,
    pub signal_value: u64,
    pub ending_kind: i32,
    pub ending_value: i32,
    pub count: u64,
    pub endpoint: *const c_char,
    pub from: *const c_char,
    pub lane: *const c_char,
    pub route: *const c_char,
    pub process: *const c_char,
    pub reason: *const c_char,
}

// SAFETY: `repr(C)`, of integers and pointers.
unsafe impl Plain for rtcore_message {}

const NOTHING: rtcore_message = rtcore_message {
    kind: 0,
    flags: 0,
    data: null(),
    len: 0,
    sequence: 0,
    missed: 0,
    intended_ns: 0,
    sent_ns: 0,
    received_ns: 0,
    reply_to: 0,
    pid: 0,
    uid: u32::MAX,
    signo: 0,
    mq_priority: 0,
    signal_value: 0,
    ending_kind: 0,
    ending_value: 0,
    count: 0,
    endpoint: null(),
    from: null(),
    lane: null(),
    route: null(),
    process: null(),
    reason: null(),
};

impl rtcore_message {
    /// A message: its head, its bytes, and the signal that it was.
    #[inline]
    pub fn of(head: &Head<'_>, bytes: &[u8], signal: Option<(i32, u64)>) -> rtcore_message {
        let (origin, channel) = (head.origin(), head.channel());
        let (signo, signal_value) = signal.unwrap_or((0, 0));
        let signal_flag = if signal.is_some() { SIGNAL } else { 0 };
        rtcore_message {
            kind: MESSAGE,
            flags: verified(origin.verified) | signal_flag,
            data: bytes.as_ptr().cast(),
            len: bytes.len(),
            sequence: head.sequence(),
            missed: head.missed(),
            intended_ns: head.intended_ns(),
            sent_ns: head.sent_ns(),
            received_ns: head.received_stamp_ns().unwrap_or(0),
            reply_to: head.correlation(),
            pid: origin.pid.cast_signed(),
            uid: origin.uid,
            signo,
            mq_priority: head.mq_priority(),
            signal_value,
            endpoint: channel.endpoint.as_ptr(),
            from: channel.other.as_ptr(),
            lane: channel.lane.as_ptr(),
            route: channel.route.as_ptr(),
            process: channel.process.as_ref().map_or(null(), Name::as_ptr),
            ..NOTHING
        }
    }
}

/// The flag.
#[inline]
pub fn verified(verified: bool) -> u32 {
    if verified { VERIFIED } else { 0 }
}

/// How a process ended, as two numbers.
pub fn ending(ending: Option<Ending>) -> (i32, i32) {
    match ending {
        None => (0, 0),
        Some(Ending::Exit(status)) => (EXITED, status),
        Some(Ending::Signal(signo)) => (KILLED, signo),
    }
}

/// Longest text of an event.
const REASON_BYTES: usize = 512;

/// The last event that a handle returned: what its message points to.
pub struct LastEvent {
    names: [Option<Name>; 2],
    reason: [u8; REASON_BYTES],
}

impl LastEvent {
    pub fn new() -> LastEvent {
        LastEvent {
            names: [None; 2],
            reason: [0; REASON_BYTES],
        }
    }

    /// The event as a message. Touches no heap.
    pub fn show(&mut self, event: &Event) -> rtcore_message {
        self.names = match event {
            Event::PeerLost { process, .. } | Event::PeerBack { process, .. } => {
                [Some(*process), None]
            }
            Event::Lost { endpoint, .. } => [Some(*endpoint), None],
            Event::Corrupt {
                endpoint, other, ..
            } => [Some(*endpoint), Some(*other)],
            Event::Down | Event::Refused { .. } | Event::Up => [None, None],
        };
        let reason = match event {
            Event::Refused { reason } => self.text(reason),
            Event::Corrupt { corrupt, .. } => self.text(corrupt),
            _ => null(),
        };
        let [first, second] = self
            .names
            .each_ref()
            .map(|name| name.as_ref().map_or(null(), Name::as_ptr));
        let of_kind = |kind| rtcore_message { kind, ..NOTHING };
        match event {
            Event::PeerLost {
                pid, ending: how, ..
            } => {
                let (ending_kind, ending_value) = ending(*how);
                rtcore_message {
                    process: first,
                    pid: pid.cast_signed(),
                    ending_kind,
                    ending_value,
                    ..of_kind(PEER_LOST)
                }
            }
            Event::PeerBack { pid, .. } => rtcore_message {
                process: first,
                pid: pid.cast_signed(),
                ..of_kind(PEER_BACK)
            },
            Event::Down => of_kind(DOWN),
            Event::Up => of_kind(UP),
            Event::Refused { .. } => rtcore_message {
                reason,
                ..of_kind(REFUSED)
            },
            Event::Lost { count, .. } => rtcore_message {
                endpoint: first,
                count: *count,
                ..of_kind(LOST)
            },
            Event::Corrupt { .. } => rtcore_message {
                endpoint: first,
                from: second,
                reason,
                ..of_kind(CORRUPT)
            },
        }
    }

    fn text(&mut self, words: &dyn Display) -> *const c_char {
        let room = REASON_BYTES - 1;
        let len = render(words, &mut self.reason[..room]).min(room);
        self.reason[len] = 0;
        self.reason.as_ptr().cast()
    }
}

export! {
    /// When the message was received: `received_ns`, or now where the inbox read no clock.
    fn rtcore_message_received_ns(message: *const rtcore_message) -> u64 {
        // SAFETY: the header's contract: null, or one that a receiving call filled.
        match unsafe { message.as_ref() }.map_or(0, |message| message.received_ns) {
            0 => monotonic_ns(),
            stamp_ns => stamp_ns,
        }
    }
}
