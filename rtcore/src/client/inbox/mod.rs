//! Receiving: one [`Inbox`] over many channels, in strict order of their lanes.
//!
//! Invariant: after it was made, an inbox touches no heap, and no lock but the kernel's; rings,
//! channels and events come from the session thread through queues, and finished rings go back the
//! same way.

mod mailbox;
mod settle;
mod sleep;

pub(super) use mailbox::{Filter, MailboxSender};

use super::core::{CHANNELS_MAX, Command, Core, ENTRIES_MAX, Unclaimed};
use super::error::RecvError;
use super::event::Event;
use super::message::{Head, InPlace, Incoming, Message, Place};
use crate::channel::{RxHandle, Taken};
use crate::message::Origin;
use crate::ring::{Corrupt, Envelope};
use crate::sync::Ordering;
use crate::sys::clock::monotonic_ns;
use crate::sys::epoll::Epoll;
use crate::sys::futex::Word;
use crate::sys::timerfd::Timer;
use crate::wait::Wait;
use mailbox::Mailbox;
use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

/// Longest uninterrupted sleep of an inbox if not every source can wake it.
const POLL_NS: u64 = 1_000_000;
/// Limit of the discarded messages that one call skips before it checks the time, or reports that
/// there is no message.
const DISCARDED_MAX: usize = 1024;

/// Counts of an inbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InboxCounters {
    /// Messages received.
    pub received: u64,
    /// Duplicates: messages that arrived again after a restart of the daemon, and were discarded.
    pub duplicates: u64,
    /// Messages whose numbers are missing, including expired and superseded ones; see
    /// [`Head::missed`].
    pub missed: u64,
    /// Messages that were discarded because they were older than their route's ttl.
    pub expired: u64,
    /// Messages that newer ones of their route replaced (`conflate`, `displace-oldest`).
    pub superseded: u64,
    /// Messages received later than their route's deadline after the time at which they should have
    /// been sent.
    pub late: u64,
    /// Messages that a direct sender left half written when it ended.
    pub torn: u64,
    /// Rings that were given up because the other end broke the protocol.
    pub corrupt: u64,
    /// Events that were discarded because nobody read them in time.
    pub events_lost: u64,
}

/// Channels whose lanes have one priority; they take turns.
#[derive(Clone, Copy, Debug)]
struct Class {
    first: usize,
    len: usize,
    next: usize,
}

/// The result of a search for the next message or event.
#[derive(Clone, Copy, Debug)]
pub(super) enum Found {
    Event(Event),
    Message {
        index: usize,
        envelope: Envelope,
        missed: u64,
        received_ns: u64,
    },
}

/// Ends a call of an inbox from another thread or from a signal handler; see [`Inbox::waker`].
#[derive(Clone, Debug)]
pub struct Waker {
    core: Arc<Core>,
    shared: Arc<MailboxSender>,
}

impl Waker {
    /// Ends the call that waits in the inbox, or else the next one that is made, with
    /// [`RecvError::Woken`], whatever messages are there. Calls of `wake` before that count as one.
    ///
    /// Never waits, takes no lock and is safe in a signal handler: it makes three system calls
    /// (futex(2), write(2)). The session thread, an ordinary one, wakes an inbox that sleeps.
    ///
    /// Errors: [`RecvError::Forked`]; [`RecvError::Disconnected`] if the session was dropped, which
    /// ends the inbox's calls by itself.
    pub fn wake(&self) -> Result<(), RecvError> {
        self.core.check()?;
        if self.core.is_closed() {
            return Err(RecvError::Disconnected);
        }
        self.shared.wake();
        self.core.wake_inboxes();
        Ok(())
    }
}

/// The result of one read of the rings.
enum Pulled {
    Nothing,
    /// A [`Waker`] ended it.
    Woken,
    /// Passed over: there may be more.
    Discarded,
    Found(Found),
}

/// Receives messages to one's own lane endpoints, and events.
///
/// Messages of the highest lane come first; channels of equal priority take turns. An inbox may
/// move between threads. No receiving call allocates, takes a lock or returns because of a signal
/// (EINTR).
#[derive(Debug)]
pub struct Inbox {
    core: Arc<Core>,
    shared: Arc<MailboxSender>,
    mailbox: Mailbox,
    /// By priority, highest first.
    channels: Vec<RxHandle>,
    classes: Vec<Class>,
    /// The mailbox counter that was last read.
    seen: u32,
    /// Events or rings are left to handle.
    unsettled: bool,
    wait: Wait,
    words: Vec<Word>,
    set: Epoll,
    /// For bells that are semaphores, which no descriptor announces: the timer that lets a thread
    /// that waits by descriptor check the rings.
    poll_timer: Option<Timer>,
    descriptor: Cell<bool>,
    counters: InboxCounters,
}

impl Inbox {
    /// Opens an inbox over the channels that [`Table::claim`](super::core::Table::claim) gives it
    /// now and later.
    pub(super) fn open(core: &Arc<Core>, filter: Filter) -> io::Result<Result<Inbox, Unclaimed>> {
        let (shared, mailbox) = MailboxSender::new(filter, CHANNELS_MAX)?;
        // Every step that can fail comes before the first channel is claimed.
        let set = Epoll::new()?;
        set.add(&shared.event, 0)?;
        let poll_timer = core.has_semaphores().then(Timer::new).transpose()?;
        if let Some(timer) = &poll_timer {
            set.add(timer, 2)?;
        }
        if let Err(unclaimed) = core.table().claim(&shared) {
            return Ok(Err(unclaimed));
        }
        let mut inbox = Inbox {
            core: Arc::clone(core),
            shared,
            mailbox,
            channels: Vec::with_capacity(ENTRIES_MAX),
            classes: Vec::with_capacity(ENTRIES_MAX),
            seen: 0,
            unsettled: true,
            wait: Wait::Block,
            words: Vec::with_capacity(CHANNELS_MAX),
            set,
            poll_timer,
            descriptor: Cell::new(false),
            counters: InboxCounters::default(),
        };
        inbox.catch_up();
        Ok(Ok(inbox))
    }

    /// How to wait: sleep (the default), spin for a while and then sleep, or spin without end. The
    /// latter two are for a thread that has its CPU to itself.
    pub fn set_wait(&mut self, wait: Wait) {
        self.wait = wait;
    }

    /// Waits for the next message or event.
    ///
    /// Errors: the session was dropped and everything that had arrived was taken; this process is a
    /// forked child; a [`Waker`] ended the call.
    pub fn recv(&mut self) -> Result<Incoming<Message<'_>>, RecvError> {
        match self.next::<false>(u64::MAX)? {
            Some(found) => Ok(self.present(found)),
            // Unreachable: without a deadline, the search does not return none.
            None => Err(RecvError::Disconnected),
        }
    }

    /// As [`Inbox::recv`], until `deadline_ns` of CLOCK_MONOTONIC; none at the deadline. With a
    /// deadline in the past it does not wait.
    pub fn recv_deadline(
        &mut self,
        deadline_ns: u64,
    ) -> Result<Option<Incoming<Message<'_>>>, RecvError> {
        let found = self.next::<false>(deadline_ns)?;
        Ok(found.map(|found| self.present(found)))
    }

    /// Returns a message or an event if one is there. After it has returned none, the descriptor of
    /// [`Inbox::as_fd`] is unreadable until one arrives.
    pub fn try_recv(&mut self) -> Result<Option<Incoming<Message<'_>>>, RecvError> {
        let found = self.look::<false>()?;
        Ok(found.map(|found| self.present(found)))
    }

    /// Sleeps once until there may be something to receive, at most until `deadline_ns` of
    /// CLOCK_MONOTONIC (`u64::MAX` = no bound). Returns for a signal whose handler was installed
    /// without SA_RESTART and for no reason, too: [`Inbox::try_recv`] follows.
    ///
    /// For a program that has something to do between two sleeps, such as an interpreter that
    /// handles signals between its own steps.
    ///
    /// Errors: this process is a forked child.
    pub fn sleep_once(&mut self, deadline_ns: u64) -> Result<(), RecvError> {
        self.core.check()?;
        let left_ns = match deadline_ns {
            u64::MAX => u64::MAX,
            _ => deadline_ns.saturating_sub(monotonic_ns()),
        };
        // An event that is queued already rings no more. The last one of a session that was dropped is
        // announced after it was closed.
        if left_ns > 0 && self.mailbox.events.is_empty() && !self.core.is_closed() {
            self.sleep(left_ns);
        }
        Ok(())
    }

    /// As [`Inbox::recv`], without copying: see [`InPlace`].
    pub fn recv_in_place(&mut self) -> Result<Incoming<InPlace<'_>>, RecvError> {
        match self.next::<true>(u64::MAX)? {
            Some(found) => Ok(self.present_in_place(found)),
            None => Err(RecvError::Disconnected),
        }
    }

    /// As [`Inbox::recv_deadline`], without copying: see [`InPlace`].
    pub fn recv_in_place_deadline(
        &mut self,
        deadline_ns: u64,
    ) -> Result<Option<Incoming<InPlace<'_>>>, RecvError> {
        let found = self.next::<true>(deadline_ns)?;
        Ok(found.map(|found| self.present_in_place(found)))
    }

    /// As [`Inbox::try_recv`], without the events.
    pub(super) fn try_message(&mut self) -> Result<Option<Message<'_>>, RecvError> {
        loop {
            match self.look::<false>()? {
                Some(Found::Event(_)) => {}
                Some(found) => return Ok(self.present(found).message()),
                None => return Ok(None),
            }
        }
    }

    /// As [`Inbox::try_recv`], without copying: see [`InPlace`].
    pub fn try_recv_in_place(&mut self) -> Result<Option<Incoming<InPlace<'_>>>, RecvError> {
        let found = self.look::<true>()?;
        Ok(found.map(|found| self.present_in_place(found)))
    }

    /// Returns a value that ends a call of this inbox from elsewhere, such as a thread that wants to end the program
    /// while another one waits in [`Inbox::recv`].
    pub fn waker(&self) -> Waker {
        Waker {
            core: Arc::clone(&self.core),
            shared: Arc::clone(&self.shared),
        }
    }

    /// The counts since the inbox was opened.
    pub fn counters(&self) -> InboxCounters {
        InboxCounters {
            events_lost: self.shared.lost.load(Ordering::Relaxed),
            ..self.counters
        }
    }

    /// Waits for the next message or event by the inbox's strategy.
    pub(super) fn next<const IN_PLACE: bool>(
        &mut self,
        deadline_ns: u64,
    ) -> Result<Option<Found>, RecvError> {
        self.core.check()?;
        let mut spin_until_ns = None;
        let mut discarded = 0;
        loop {
            match self.pull::<IN_PLACE>() {
                Pulled::Found(found) => return Ok(Some(found)),
                Pulled::Woken => return Err(RecvError::Woken),
                Pulled::Nothing if self.core.is_closed() && self.is_drained() => {
                    return Err(RecvError::Disconnected);
                }
                // A message behind a discarded one is already there, so the deadline is not checked
                // yet.
                Pulled::Discarded if discarded < DISCARDED_MAX => {
                    discarded += 1;
                    continue;
                }
                Pulled::Discarded => discarded = 0,
                Pulled::Nothing => {}
            }
            // Without a deadline no clock is needed.
            let now_ns = (deadline_ns != u64::MAX).then(monotonic_ns);
            if now_ns.is_some_and(|now_ns| now_ns >= deadline_ns) {
                return Ok(None);
            }
            if self
                .wait
                .spins(&mut spin_until_ns, || now_ns.unwrap_or_else(monotonic_ns))
            {
                std::hint::spin_loop();
            } else {
                self.sleep(now_ns.map_or(u64::MAX, |now_ns| deadline_ns - now_ns));
            }
        }
    }

    /// Takes a message or event. If there is none, makes sure that a thread that waits at the
    /// descriptor will be woken.
    fn look<const IN_PLACE: bool>(&mut self) -> Result<Option<Found>, RecvError> {
        self.core.check()?;
        for _ in 0..DISCARDED_MAX {
            match self.pull::<IN_PLACE>() {
                Pulled::Found(found) => return Ok(Some(found)),
                Pulled::Woken => return Err(RecvError::Woken),
                Pulled::Discarded => {}
                Pulled::Nothing if self.core.is_closed() && self.is_drained() => {
                    return Err(RecvError::Disconnected);
                }
                Pulled::Nothing if self.rearm() => {}
                Pulled::Nothing => return Ok(None),
            }
        }
        Ok(None)
    }

    /// The next event, or else the first message of the highest lane.
    #[inline]
    fn pull<const IN_PLACE: bool>(&mut self) -> Pulled {
        if self.unsettled || self.shared.seen() != self.seen {
            // First. The change that the waker counted stays unseen: the next call handles it.
            if self.shared.take_woken() {
                return Pulled::Woken;
            }
            if let Some(event) = self.catch_up() {
                return Pulled::Found(Found::Event(event));
            }
        }
        for number in 0..self.classes.len() {
            let Class { first, len, next } = self.classes[number];
            for step in 0..len {
                let at = if next + step < len {
                    next + step
                } else {
                    next + step - len
                };
                let index = first + at;
                let rx = &mut self.channels[index];
                match if IN_PLACE { rx.peek() } else { rx.take() } {
                    Ok(Taken::Nothing) => {}
                    Ok(Taken::Duplicate) => {
                        self.counters.duplicates += 1;
                        return Pulled::Discarded;
                    }
                    Ok(Taken::Expired) => {
                        self.counters.expired += 1;
                        return Pulled::Discarded;
                    }
                    Ok(Taken::Message {
                        envelope,
                        missed,
                        superseded,
                        late,
                        received_ns,
                    }) => {
                        self.classes[number].next = if at + 1 < len { at + 1 } else { 0 };
                        self.counters.received += 1;
                        self.counters.missed = self.counters.missed.saturating_add(missed);
                        self.counters.superseded += superseded;
                        self.counters.late += u64::from(late);
                        return Pulled::Found(Found::Message {
                            index,
                            envelope,
                            missed,
                            received_ns,
                        });
                    }
                    Err(corrupt) => {
                        return Pulled::Found(Found::Event(self.give_up(index, corrupt)));
                    }
                }
            }
        }
        Pulled::Nothing
    }

    pub(super) fn present(&mut self, found: Found) -> Incoming<Message<'_>> {
        let (index, envelope, missed, received_ns) = match found {
            Found::Message {
                index,
                envelope,
                missed,
                received_ns,
            } => (index, envelope, missed, received_ns),
            Found::Event(event) => return Incoming::Event(event),
        };
        let rx = &mut self.channels[index];
        let channel = &rx.channel;
        let (origin, bytes): (Origin, &[u8]) = match rx.ring_slot.current() {
            Some(ring) => (
                ring.partner.unwrap_or(envelope.origin),
                ring.buffer.get(..envelope.len as usize).unwrap_or_default(),
            ),
            None => (Origin::UNKNOWN, &[]),
        };
        Incoming::Message(Message {
            head: Head {
                channel,
                envelope,
                origin,
                missed,
                received_ns,
            },
            bytes,
        })
    }

    fn present_in_place(&mut self, found: Found) -> Incoming<InPlace<'_>> {
        let (index, missed, received_ns) = match found {
            Found::Message { index, .. } if self.channels[index].is_displaced() => {
                return match self.present(found) {
                    Incoming::Message(Message { head, bytes }) => Incoming::Message(InPlace {
                        head,
                        place: Place::Copy(bytes),
                    }),
                    Incoming::Event(event) => Incoming::Event(event),
                };
            }
            Found::Message {
                index,
                missed,
                received_ns,
                ..
            } => (index, missed, received_ns),
            Found::Event(event) => return Incoming::Event(event),
        };
        let RxHandle {
            ring_slot, channel, ..
        } = &mut self.channels[index];
        let (endpoint, other) = (channel.endpoint, channel.other);
        let partner = ring_slot.peek().and_then(|ring| ring.partner);
        let corrupt = match ring_slot.current().map(|ring| ring.consumer.front()) {
            Some(Ok(Some(front))) => {
                // The producer's current value, which was checked again.
                let envelope = *front.envelope();
                let origin = partner.unwrap_or(envelope.origin);
                return Incoming::Message(InPlace {
                    head: Head {
                        channel,
                        envelope,
                        origin,
                        missed,
                        received_ns,
                    },
                    place: Place::Ring(front),
                });
            }
            Some(Err(corrupt)) => corrupt,
            // An honest producer's tail never decreases, so this is a violation.
            Some(Ok(None)) | None => Corrupt::Indices {
                tail: 0,
                head: 0,
                slots: channel.slots,
            },
        };
        Incoming::Event(Event::Corrupt {
            endpoint,
            other,
            corrupt,
        })
    }

    /// Limit of the messages and events that can wait in it at one time.
    pub(super) fn holds_max(&self) -> usize {
        let slots = self.channels.iter().map(|rx| rx.channel.slots as usize);
        slots
            .sum::<usize>()
            .saturating_add(self.mailbox.events.buffer().capacity())
    }

    /// Whether any of its channels goes through the daemon.
    pub(super) fn is_routed(&self) -> bool {
        self.channels.iter().any(|rx| !rx.channel.direct)
    }

    /// Whether a dropped session has left nothing to read.
    fn is_drained(&mut self) -> bool {
        // The session thread queues its last event, closes, and then wakes the inbox.
        self.mailbox.events.is_empty() && !self.has_input()
    }
}

impl AsFd for Inbox {
    /// A descriptor for an epoll set (or poll, select, another set in a set): readable as long as a
    /// message or event is there, level-triggered. Use it only to wait, and then call `try_recv`
    /// until it returns none. After the first call, and after a change by the session's thread, it
    /// is readable once without a message. In a session on Cobalt no descriptor announces a
    /// message, so it becomes readable every millisecond; a thread with a deadline should call
    /// `recv` there.
    fn as_fd(&self) -> BorrowedFd<'_> {
        // A forked child has the same set, eventfd and timer as its parent: it changes none of
        // them.
        if self.core.check().is_ok() && !self.descriptor.replace(true) {
            // A thread that waits now wakes up and calls `try_recv`, which arms the rings.
            let _ = self.shared.event.ring();
            if let Some(timer) = &self.poll_timer {
                // A timer of our own, whose period is not 0: it does not fail.
                let _ = timer.every(monotonic_ns(), POLL_NS);
            }
        }
        self.set.as_fd()
    }
}

impl Drop for Inbox {
    /// Its channels go to another inbox that takes them, or to the next one that is opened.
    fn drop(&mut self) {
        if self.core.check().is_err() {
            // Its parent has the channels; the table's lock may be held by a thread that only the
            // parent has.
            return;
        }
        let mut table = self.core.table();
        table
            .inboxes
            .retain(|mailbox| !Arc::ptr_eq(mailbox, &self.shared));
        if self.core.is_closed() {
            return;
        }
        while let Ok(rx) = self.mailbox.channels.pop() {
            self.channels.push(rx);
        }
        for mut rx in self.channels.drain(..) {
            rx.disarm();
            if let Some(ring) = rx.ring_slot.current() {
                ring.watched = false;
            }
            table.adopt(rx);
        }
        drop(table);
        self.core.command(Command::Wake);
    }
}
