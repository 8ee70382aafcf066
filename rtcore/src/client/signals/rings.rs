//! The rings beside signals, as the dispatcher reads them: which one is next, and how it sleeps.
//!
//! Invariant: before the dispatcher sleeps every ring is armed with
//! [`Doorbell::Signal`](crate::ring::Doorbell) and was looked into once more; so a message that
//! came before the look is found, and one that comes after it has the daemon send a signal, or owe
//! one. News of the session thread (another ring, the end of the session) come with [`WAKE`], which
//! stays pending until the dispatcher looks. Nothing is armed for a signal that nobody registered.
//!
//! Where bells are semaphores the rings of a session's signals share one, at which the dispatcher
//! sleeps; no signal is sent for a message. Linux's signals are then looked at every [`LOOK_NS`],
//! and by the clock while messages keep coming.

use crate::client::inbox::Inbox;
use crate::client::message::Message;
use crate::ring::Doorbell;
use crate::sys::clock::monotonic_ns;
use crate::sys::rtsignal::{SignalSet, WAKE, bit};

/// How often Linux's signals are looked at by a dispatcher that sleeps at a semaphore.
const LOOK_NS: u64 = 10_000_000;

/// What a look into a ring came to.
pub(super) enum Look<'a> {
    Message(Message<'a>),
    Nothing,
    /// The session was dropped, and all that had come is taken.
    Over,
}

/// The rings of one signal number.
struct Ring {
    signo: i32,
    inbox: Inbox,
    /// Signals that come before or with it.
    up_to: SignalSet,
}

/// All of them, and what the dispatcher waits for.
pub(super) struct Rings {
    /// By number.
    rings: Vec<Ring>,
    all: SignalSet,
    taken: u64,
    /// When the signals were looked at last, where that is not always.
    looked_ns: u64,
    /// Of those that are over.
    over_duplicates: u64,
}

impl Rings {
    pub(super) fn new() -> Rings {
        Rings {
            rings: Vec::new(),
            all: SignalSet::of([WAKE]),
            taken: 0,
            looked_ns: 0,
            over_duplicates: 0,
        }
    }

    /// What is registered now, with the rings that came with it.
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

    /// What comes before any message: the ring with the lowest number that has something, and the
    /// signals that are its equals or come before it.
    pub(super) fn first(&mut self) -> Option<(usize, &SignalSet)> {
        let at = self
            .rings
            .iter_mut()
            .position(|ring| ring.inbox.has_news())?;
        Some((at, &self.rings[at].up_to))
    }

    /// From now on each message has a signal sent; the set to wait for, or none if something came
    /// meanwhile.
    pub(super) fn arm(&mut self) -> Option<&SignalSet> {
        for ring in &mut self.rings {
            if ring.inbox.rearm() {
                return None;
            }
        }
        Some(&self.all)
    }

    /// Whether a semaphore is slept at, and then all signals if it is time to look at them.
    pub(super) fn by_semaphore(&mut self) -> Option<Option<&SignalSet>> {
        self.rings.iter().find_map(|ring| ring.inbox.semaphore())?;
        let now_ns = monotonic_ns();
        let is_time = now_ns.saturating_sub(self.looked_ns) >= LOOK_NS;
        if is_time {
            self.looked_ns = now_ns;
        }
        Some(is_time.then_some(&self.all))
    }

    /// Sleeps at the semaphore until there may be a message, or it is time to look at the signals.
    pub(super) fn sleep(&mut self) {
        let Some((bells, bell)) = self.rings.iter().find_map(|ring| ring.inbox.semaphore()) else {
            return;
        };
        bells.seen(bell);
        self.rings
            .iter_mut()
            .for_each(|ring| ring.inbox.arm(Doorbell::Bell));
        if !self.rings.iter_mut().any(|ring| ring.inbox.has_news()) {
            // Whatever ended it, the dispatcher looks again.
            let _ = bells.sleep(bell, 0, LOOK_NS);
        }
        self.rings.iter_mut().for_each(|ring| ring.inbox.disarm());
    }

    /// The next message of a ring; events, which are no business of the handlers, are passed over.
    pub(super) fn look(&mut self, at: usize) -> (i32, Look<'_>) {
        let Ring { signo, inbox, .. } = &mut self.rings[at];
        let look = match inbox.try_message() {
            Ok(Some(message)) => Look::Message(message),
            Ok(None) => Look::Nothing,
            Err(_) => Look::Over,
        };
        (*signo, look)
    }

    /// Lets go of a ring that is over.
    pub(super) fn remove(&mut self, at: usize) {
        self.over_duplicates += self.rings.remove(at).inbox.counters().duplicates;
    }

    /// Messages that came twice, over all rings.
    pub(super) fn duplicates(&self) -> u64 {
        self.rings.iter().fold(self.over_duplicates, |sum, ring| {
            sum + ring.inbox.counters().duplicates
        })
    }
}
