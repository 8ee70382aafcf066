//! The session thread's access to shared objects: the table, the inboxes' mailboxes, the queues of
//! rings.

use super::SessionThread;
use crate::channel::{RxChannel, TxChannel};
use crate::client::core::{ENTRIES_MAX, Slot};
use crate::client::event::Event;
use crate::client::inbox::MailboxSender;
use crate::sync::{Ordering, fence};
use crate::wire::{Channel, Name, Role};
use std::sync::Arc;

impl SessionThread {
    /// Collects retired rings and hands out waiting ones; true if an inbox must check for changes.
    pub(super) fn flush(&mut self) -> bool {
        self.outs.iter_mut().for_each(TxChannel::flush);
        let mut news = self
            .ins
            .iter_mut()
            .fold(false, |any, entry| entry.flush() | any);
        for index in 0..self.outs.len() {
            let (endpoint, lost) = (
                self.outs[index].channel.endpoint,
                self.outs[index].take_lost(),
            );
            self.report_lost(endpoint, lost);
            news |= lost > 0;
        }
        let gone = self.outs.iter_mut().flat_map(|entry| entry.gone.drain(..));
        for partner in gone.chain(self.ins.iter_mut().flat_map(|entry| entry.gone.drain(..))) {
            // The daemon has a duplicate of the descriptor, so closing alone would leave it in the
            // set. A partner that has ended is already removed.
            let _ = self.set.remove(&partner.pidfd);
        }
        for index in 0..self.ins.len() {
            let (endpoint, lost) = (
                self.ins[index].channel.endpoint,
                self.ins[index].take_lost(),
            );
            self.report_lost(endpoint, lost);
            news |= lost > 0;
        }
        news
    }

    /// Queues an event for every inbox.
    pub(super) fn queue_event(&self, event: Event) {
        for post in &self.core.table().inboxes {
            post.queue_event(event);
        }
    }

    pub(super) fn report_lost(&self, endpoint: Name, count: u64) {
        if count > 0 {
            self.queue_event(Event::Lost { endpoint, count });
        }
    }

    /// Wakes every inbox: at its own word, and at the bells at which it may sleep.
    pub(super) fn wake(&mut self) {
        self.flush();
        let inboxes: Vec<Arc<MailboxSender>> = self.core.table().inboxes.clone();
        for post in inboxes {
            post.ring();
        }
        // SYNC POINT with the fence of an inbox that arms: either it sees the change, or this
        // thread sees where it sleeps.
        fence(Ordering::SeqCst);
        self.ins.iter().for_each(RxChannel::ring);
    }

    /// Writes the current channels into the table, and wakes every waiting thread.
    pub(super) fn publish(&mut self) {
        let mut table = self.core.table();
        for (slot, entry) in table.senders.iter_mut().zip(&self.outs) {
            (slot.channel, slot.present) = (entry.channel, entry.id.is_some());
        }
        for (slot, entry) in table.receivers.iter_mut().zip(&self.ins) {
            (slot.channel, slot.present) = (entry.channel, entry.id.is_some());
        }
        drop(table);
        self.wake();
    }

    /// The entry of a sender's channel; an existing one is reused. None past [`ENTRIES_MAX`].
    pub(super) fn sender_entry(&mut self, channel: Channel) -> Option<usize> {
        let known = self
            .outs
            .iter()
            .position(|entry| entry.channel.endpoint == channel.endpoint);
        if known.is_some() || self.outs.len() == ENTRIES_MAX {
            return known;
        }
        let index = self.outs.len();
        let (entry, handle) = TxChannel::new(
            index,
            channel,
            self.core.refusals.counter(index, channel.endpoint),
        );
        self.outs.push(entry);
        self.core.table().senders.push(Slot {
            channel,
            present: true,
            handle: Some(handle),
            holder: None,
        });
        Some(index)
    }

    /// The entry of an existing receiver's channel.
    pub(super) fn known_receiver(&self, channel: &Channel) -> Option<usize> {
        let key = |c: &Channel| (role_key(c.role), c.endpoint, c.other, c.route);
        self.ins
            .iter()
            .position(|entry| key(&entry.channel) == key(channel))
    }

    /// The entry of a receiver's channel, likewise; a new one goes to the inbox that takes it.
    pub(super) fn receiver_entry(&mut self, channel: Channel) -> Option<usize> {
        let known = self.known_receiver(&channel);
        if known.is_some() || self.ins.len() == ENTRIES_MAX {
            return known;
        }
        let index = self.ins.len();
        let (entry, rx) = RxChannel::new(index, channel);
        self.ins.push(entry);
        let mut table = self.core.table();
        table.receivers.push(Slot {
            channel,
            present: true,
            handle: None,
            holder: None,
        });
        table.adopt(rx);
        Some(index)
    }
}

/// The kind of receiver: 0 for an inbox, otherwise the signal number.
fn role_key(role: Role) -> i32 {
    if let Role::Signal { signo } = role {
        signo
    } else {
        0
    }
}
