//! Events: reports of lane threads for the log, as `Copy` values in a ring for each thread.
//!
//! Losses are not among them: the control thread finds those in the ledgers on the page, however
//! many there are.

use crate::ring::Corrupt;
use crate::sys::Errno;

/// An event for the log. A thread that cannot log emits it; the control thread formats it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    pub at_ns: u64,
    pub kind: EventKind,
}

/// The kinds of events. `route` is the plan's index, `sink` the position among the route's
/// endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// The kernel refused the signal for a payload that was delivered; emitted once for each errno
    /// until a signal is sent.
    SignalFailed {
        route: u32,
        /// Endpoint of the route.
        sink: u32,
        errno: Errno,
    },
    /// A source cannot be read; emitted once for each errno until a message arrives.
    ReceiveFailed {
        /// Route (the first that reads the source).
        route: u32,
        errno: Errno,
    },
    /// The process at the other end of a ring broke the protocol; its ring is not used any more.
    Corrupt {
        /// Route (the first that reads the source).
        route: u32,
        /// Endpoint of the route if a receiver broke the rules.
        sink: Option<u32>,
        /// Registration of that process.
        generation: u64,
        /// The violation.
        corrupt: Corrupt,
    },
    /// The thread lost its real-time mode, in a dispatch or while it slept.
    Relaxed {
        /// Number of times so far.
        times: u64,
    },
    /// The thread tried a system call that is not on its list; it got EPERM.
    Refused {
        /// Number of the last refused call.
        call: u32,
        /// Number of times so far.
        times: u64,
    },
    /// The thread runs without its filter of system calls.
    Unconfined {
        /// The kernel's error, although it granted the filter before.
        errno: Errno,
    },
    /// The owner of a source ended while it was writing a message; that message was never sent.
    Torn {
        /// Route (the first that reads the source).
        route: u32,
    },
}

/// The producer's half: never blocks, and counts events that find no room.
#[derive(Debug)]
pub struct EventSink {
    ring: rtrb::Producer<Event>,
    lost: u64,
}

/// Limit of the events that wait for the log.
pub const EVENTS_MAX: usize = 256;

/// Makes a ring for one lane thread.
pub fn channel() -> (EventSink, rtrb::Consumer<Event>) {
    let (ring, consumer) = rtrb::RingBuffer::new(EVENTS_MAX);
    (EventSink { ring, lost: 0 }, consumer)
}

impl EventSink {
    /// Queues an event. If the queue is full, the event is counted as lost.
    pub fn emit(&mut self, at_ns: u64, kind: EventKind) {
        if self.ring.push(Event { at_ns, kind }).is_err() {
            self.lost += 1;
        }
    }

    /// Number of events that found the ring full.
    pub fn lost(&self) -> u64 {
        self.lost
    }
}
