//! The rings beside signals, as the dispatcher reads them: which one is next, and how it sleeps.
//!
//! Invariant: before the dispatcher sleeps every ring is armed with [`Doorbell::Signal`](crate::ring::Doorbell) and was
//! looked into once more; so a message that came before the look is found, and one that comes after it has the
//! daemon send a signal, or owe one. News of the session thread (another ring, the end of the session) come with
//! [`WAKE`], which stays pending until the dispatcher looks. Nothing is armed for a signal that nobody registered.

use crate::client::inbox::Inbox;
use crate::client::message::Message;
use crate::sys::rtsignal::{SignalSet, WAKE, bit};

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
    /// Of those that are over.
    over_duplicates: u64,
}

impl Rings {
    pub(super) fn new() -> Rings {
        Rings { rings: Vec::new(), all: SignalSet::of([WAKE]), taken: 0, over_duplicates: 0 }
    }

    /// What is registered now, with the rings that came with it.
    pub(super) fn update(&mut self, taken: u64, more: Vec<(i32, Inbox)>) {
        let new = more.into_iter().map(|(signo, inbox)| Ring { signo, inbox, up_to: SignalSet::of([]) });
        self.rings.extend(new);
        self.rings.sort_unstable_by_key(|ring| ring.signo);
        self.taken = taken | bit(WAKE);
        self.all = SignalSet::of_bits(self.taken);
        for ring in &mut self.rings {
            let own = bit(ring.signo);
            ring.up_to = SignalSet::of_bits(self.taken & (own | (own - 1)) | bit(WAKE));
        }
    }

    /// What comes before any message: the ring with the lowest number that has something, and the signals that are
    /// its equals or come before it.
    pub(super) fn first(&mut self) -> Option<(usize, &SignalSet)> {
        let at = self.rings.iter_mut().position(|ring| ring.inbox.has_news())?;
        Some((at, &self.rings[at].up_to))
    }

    /// From now on each message has a signal sent; the set to wait for, or none if something came meanwhile.
    pub(super) fn arm(&mut self) -> Option<&SignalSet> {
        for ring in &mut self.rings {
            if ring.inbox.rearm() {
                return None;
            }
        }
        Some(&self.all)
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
        self.rings.iter().fold(self.over_duplicates, |sum, ring| sum + ring.inbox.counters().duplicates)
    }
}
