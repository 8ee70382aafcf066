//! How an inbox sleeps: at its one bell, at several, or behind a descriptor.
//!
//! The order is that of [`crate::ring::bell`], for all rings together: remember the values of the
//! bells, raise all flags, check once more, sleep. The session thread announces its items before it
//! rings the same bells, so the one check finds them too.
//!
//! If bells are semaphores, the inbox has one of them; while the daemon is down it sleeps under
//! Linux.

use super::{Filter, Inbox, POLL_NS};
use crate::channel::{RxEnd, RxHandle};
use crate::ring::{Bells, Doorbell};
use crate::sync::{Ordering, fence};
use crate::sys::futex::{WORDS_MAX, wait_any};

impl Inbox {
    /// Sleeps until there may be a message or event, for at most this time.
    pub(super) fn sleep(&mut self, timeout_ns: u64) {
        self.note_bells();
        let semaphore = self.semaphore();
        if let Some((bells, bell)) = &semaphore {
            bells.seen(*bell);
        }
        self.arm(Doorbell::Bell);
        if !self.has_input() {
            match (semaphore, self.words.len()) {
                // The caller checks again, whatever ended the sleep; likewise below.
                (Some((bells, bell)), 0) => drop(bells.sleep(bell, 0, timeout_ns)),
                (Some((bells, bell)), _) => drop(bells.sleep(bell, 0, timeout_ns.min(POLL_NS))),
                (None, 0) => self.shared.sleep(self.seen, timeout_ns),
                (None, 1) => self.sleep_at_first(timeout_ns),
                (None, _) => {
                    // SAFETY: the words are in pages that the rings of `self.lanes` keep mapped,
                    // and no ring goes before the wait returns: only this thread lets go of them.
                    let _ = unsafe { wait_any(&self.words, timeout_ns) };
                }
            }
        }
        self.disarm();
        if self.descriptor.get() {
            // Its flags are down: readable until the next read that finds nothing.
            let _ = self.shared.event.ring();
        }
    }

    /// The semaphore that wakes it: all of the daemon's rings share one.
    pub(in crate::client) fn semaphore(&self) -> Option<(Bells, u32)> {
        if !self.core.has_semaphores() {
            return None;
        }
        let (bells, bell) = self.channels.iter().find_map(RxHandle::semaphore)?;
        Some((bells.clone(), bell))
    }

    /// Raises all flags.
    pub(in crate::client) fn arm(&mut self, how: Doorbell) {
        for rx in &mut self.channels {
            rx.raise(how);
        }
        // SYNC POINT with `Producer::ring`, for each of them.
        fence(Ordering::SeqCst);
    }

    /// Lowers all flags.
    pub(in crate::client) fn disarm(&mut self) {
        self.channels.iter_mut().for_each(RxHandle::disarm);
    }

    /// Remembers the value of each bell. Rings of the daemon share one bell; rings of partners have
    /// one each.
    fn note_bells(&mut self) {
        self.words.clear();
        let mut shared: Option<&Bells> = None;
        for ring in self.channels.iter().filter_map(|rx| rx.ring_slot.peek()) {
            let (bells, bell) = ring.consumer.bell();
            if ring.partner.is_none() && shared.replace(bells).is_some_and(|page| page.is(bells)) {
                continue;
            }
            if self.words.len() < WORDS_MAX {
                self.words.extend(bells.word(bell));
            }
        }
    }

    fn sleep_at_first(&self, timeout_ns: u64) {
        let is_word = |ring: &&RxEnd| !ring.consumer.bell().0.are_semaphores();
        let ring = self
            .channels
            .iter()
            .filter_map(|rx| rx.ring_slot.peek())
            .find(is_word);
        if let (Some(ring), Some(word)) = (ring, self.words.first()) {
            let (bells, bell) = ring.consumer.bell();
            let _ = bells.sleep(bell, word.expected(), timeout_ns);
        }
    }

    /// Whether a read would find a message, an event or a new ring.
    pub(in crate::client) fn has_input(&mut self) -> bool {
        self.shared.seen() != self.seen || self.channels.iter_mut().any(|rx| rx.has_input())
    }

    /// After a read that found nothing: arms the rings, so that the descriptor becomes readable
    /// with the next message. True if something arrived meanwhile.
    pub(in crate::client) fn rearm(&mut self) -> bool {
        let how = match self.shared.filter {
            // The dispatcher arms it where it sleeps.
            Filter::Signal { .. } if self.core.has_semaphores() => return false,
            Filter::Signal { .. } => Doorbell::Signal,
            _ if self.descriptor.get() => Doorbell::EventFd,
            _ => return false,
        };
        if how == Doorbell::EventFd {
            self.clear_descriptor();
        }
        self.arm(how);
        if !self.has_input() {
            return false;
        }
        // A message that arrived between the read and the flags rang no bell.
        let _ = self.shared.event.ring();
        true
    }

    /// Makes the descriptor unreadable, with all rings in the set.
    fn clear_descriptor(&mut self) {
        let mut blind = false;
        if let Some(timer) = &self.poll_timer {
            timer.take();
        }
        for rx in &mut self.channels {
            let Some(ring) = rx.ring_slot.current() else {
                continue;
            };
            let Some(eventfd) = ring.consumer.eventfd() else {
                continue;
            };
            if ring.watched {
                eventfd.take();
            } else {
                ring.watched = self.set.add(eventfd, 1).is_ok();
                blind |= !ring.watched;
                eventfd.take();
            }
        }
        if blind {
            // If the user's watches or the memory for them are used up, the descriptor stays
            // readable, so that no message is missed.
            let _ = self.shared.event.ring();
        } else {
            self.shared.event.take();
        }
    }
}
