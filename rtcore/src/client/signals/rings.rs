//! The rings beside signals, as the dispatcher reads them: the choice of the next one, and the
//! sleep.
//!
//! Invariant: before the dispatcher sleeps, every ring is armed with
//! [`Doorbell::Signal`](crate::ring::Doorbell) and then checked once more. A message that came
//! before the check is found, and for a message that comes after it the daemon sends a signal, or
//! owes one. The session thread announces a change (another ring, the end of the session) by
//! [`WAKE`], which stays pending until the dispatcher takes it. No ring is armed for a signal
//! without a handler.
//!
//! If bells are semaphores, the rings of a session's signals share one, at which the dispatcher
//! sleeps; no signal is sent for a message. The dispatcher then checks for Linux's signals every
//! [`POLL_NS`], by the clock while messages keep coming.

use crate::client::inbox::Inbox;
use crate::client::message::Message;
use crate::ring::Doorbell;
use crate::sys::clock::monotonic_ns;
use crate::sys::rtsignal::{SignalSet, WAKE, bit};

/// Period at which a dispatcher that sleeps at a semaphore checks for Linux's signals.
const POLL_NS: u64 = 10_000_000;

/// The result of reading a ring.
pub(super) enum RingRead<'a> {
    Message(Message<'a>),
    Nothing,
    /// The session was dropped, and every message that had arrived was taken.
    Over,
}

/// The rings of one signal number.
struct Ring {
    signo: i32,
    inbox: Inbox,
    /// Signals that come before it or have its number.
    up_to: SignalSet,
}

/// All rings, and the set of signals that the dispatcher waits for.
pub(super) struct Rings {
    /// By number.
    rings: Vec<Ring>,
    all: SignalSet,
    taken: u64,
    /// The time of the last check for signals, if they are not always checked.
    polled_ns: u64,
    /// Duplicates of the rings that are over.
    over_duplicates: u64,
}

impl Rings {
    pub(super) fn new() -> Rings {
        Rings {
            rings: Vec::new(),
            all: SignalSet::of([WAKE]),
            taken: 0,
            polled_ns: 0,
            over_duplicates: 0,
        }
    }

    /// Takes over the currently registered signals, with the new rings.
    pub(super) fn update(&mut self, taken: u64, more: Vec<(i32, Inbox)>) {
        let new = more.into_iter().map(|(signo, inbox)| Ring {
            signo,
            inbox,
            up_to: SignalSet::of([]),
        });
        self.rings.extend(new);
        self.rings.sort_unstable_by_key(|ring| ring.signo);
        self.taken = taken | bit(WAKE);
        self.all = SignalSet::of_bits(self.taken);
        for ring in &mut self.rings {
            let own = bit(ring.signo);
            ring.up_to = SignalSet::of_bits(self.taken & (own | (own - 1)) | bit(WAKE));
        }
    }

    /// What comes before any message: the ring with the lowest number that has a message, and the
    /// signals with the same or a lower number.
    pub(super) fn first(&mut self) -> Option<(usize, &SignalSet)> {
        let at = self
            .rings
            .iter_mut()
            .position(|ring| ring.inbox.has_input())?;
        Some((at, &self.rings[at].up_to))
    }

    /// Arms the rings, so that each message sends a signal; returns the set to wait for, or none if
    /// a message came meanwhile.
    pub(super) fn arm(&mut self) -> Option<&SignalSet> {
        for ring in &mut self.rings {
            if ring.inbox.rearm() {
                return None;
            }
        }
        Some(&self.all)
    }

    /// Whether the dispatcher sleeps at a semaphore, and if so all signals if it is time to check
    /// for them.
    pub(super) fn by_semaphore(&mut self) -> Option<Option<&SignalSet>> {
        self.rings.iter().find_map(|ring| ring.inbox.semaphore())?;
        let now_ns = monotonic_ns();
        let is_time = now_ns.saturating_sub(self.polled_ns) >= POLL_NS;
        if is_time {
            self.polled_ns = now_ns;
        }
        Some(is_time.then_some(&self.all))
    }

    /// Sleeps at the semaphore until there may be a message, or until it is time to check for
    /// signals.
    pub(super) fn sleep(&mut self) {
        let Some((bells, bell)) = self.rings.iter().find_map(|ring| ring.inbox.semaphore()) else {
            return;
        };
        bells.seen(bell);
        self.rings
            .iter_mut()
            .for_each(|ring| ring.inbox.arm(Doorbell::Bell));
        if !self.rings.iter_mut().any(|ring| ring.inbox.has_input()) {
            // The dispatcher checks again, whatever ended the sleep.
            let _ = bells.sleep(bell, 0, POLL_NS);
        }
        self.rings.iter_mut().for_each(|ring| ring.inbox.disarm());
    }

    /// The next message of a ring; events are skipped, because handlers get none.
    pub(super) fn read(&mut self, at: usize) -> (i32, RingRead<'_>) {
        let Ring { signo, inbox, .. } = &mut self.rings[at];
        let read = match inbox.try_message() {
            Ok(Some(message)) => RingRead::Message(message),
            Ok(None) => RingRead::Nothing,
            Err(_) => RingRead::Over,
        };
        (*signo, read)
    }

    /// Drops a ring that is over.
    pub(super) fn remove(&mut self, at: usize) {
        self.over_duplicates += self.rings.remove(at).inbox.counters().duplicates;
    }

    /// Number of duplicates, over all rings.
    pub(super) fn duplicates(&self) -> u64 {
        self.rings.iter().fold(self.over_duplicates, |sum, ring| {
            sum + ring.inbox.counters().duplicates
        })
    }
}
