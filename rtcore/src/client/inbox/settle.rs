//! The rare work of an inbox: rings that are added and removed, new channels, events, and senders
//! that break the protocol.

use super::{Class, Inbox};
use crate::channel::RxHandle;
use crate::client::event::Event;
use crate::ring::Corrupt;

impl Inbox {
    #[cold]
    pub(super) fn give_up(&mut self, index: usize, corrupt: Corrupt) -> Event {
        self.counters.corrupt += 1;
        let rx = &mut self.channels[index];
        if let Some(ring) = rx.ring_slot.current() {
            ring.consumer.give_up();
            if ring.watched
                && let Some(eventfd) = ring.consumer.eventfd()
            {
                // Removing fails only if the descriptor is not in the set; then there is nothing to
                // remove.
                let _ = self.set.remove(eventfd);
            }
        }
        rx.ring_slot.give_up();
        Event::Corrupt {
            endpoint: rx.channel.endpoint,
            other: rx.channel.other,
            corrupt,
        }
    }

    /// Handles everything that came from the session thread; returns its next event.
    #[cold]
    pub(super) fn catch_up(&mut self) -> Option<Event> {
        // Read before the queues: an item that is queued after this read increments the counter
        // again.
        self.seen = self.shared.seen();
        let mut regroup = false;
        while self.channels.len() < self.channels.capacity()
            && let Ok(rx) = self.mailbox.channels.pop()
        {
            self.channels.push(rx);
            regroup = true;
        }
        self.unsettled = false;
        let (set, core) = (&self.set, &self.core);
        for rx in &mut self.channels {
            let changed = rx.settle(|ring| {
                if let (true, Some(eventfd)) = (ring.watched, ring.consumer.eventfd()) {
                    let _ = set.remove(eventfd);
                }
            });
            self.unsettled |= rx.is_ring_waiting;
            self.counters.torn += std::mem::take(&mut rx.torn);
            if changed {
                regroup = true;
                core.nudge();
            }
        }
        if regroup {
            self.group();
            self.share_bells();
        }
        let event = self.mailbox.events.pop().ok();
        self.unsettled |= !self.mailbox.events.is_empty();
        event
    }

    /// Sorts the channels by priority, in place: their number is bounded by the reserved capacity.
    fn group(&mut self) {
        self.channels
            .sort_unstable_by_key(|rx| (u8::MAX - rx.channel.priority, rx.index));
        self.classes.clear();
        let mut first = 0;
        while first < self.channels.len() {
            let priority = self.channels[first].channel.priority;
            let len = self.channels[first..]
                .iter()
                .take_while(|rx| rx.channel.priority == priority)
                .count();
            self.classes.push(Class {
                first,
                len,
                next: 0,
            });
            first += len;
        }
    }
    /// Lets the daemon's rings of one page sleep at one bell: that of the first of these channels,
    /// which no other inbox uses.
    fn share_bells(&mut self) {
        for at in 0..self.channels.len() {
            let Some((bells, own)) = self.channels[at].shared_bell() else {
                continue;
            };
            let others = self.channels.iter().filter_map(RxHandle::shared_bell);
            let first = others
                .filter(|(page, _)| page.is(bells))
                .map(|(_, channel)| channel)
                .min();
            let bell = first.unwrap_or(own);
            if let Some(ring) = self.channels[at].ring_slot.current() {
                ring.set_bell(bell);
            }
        }
    }
}
