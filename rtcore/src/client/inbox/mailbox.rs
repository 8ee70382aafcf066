//! The mailbox of an inbox: channels and events that the session thread passes to it.

use crate::channel::RxHandle;
use crate::client::core::Holder;
use crate::client::event::{EVENTS_MAX, Event};
use crate::sync::{AtomicU32, AtomicU64, Ordering};
use crate::sys::eventfd::EventFd;
use crate::sys::futex;
use crate::sys::rtsignal;
use crate::wire::{Channel, Name, Role};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

/// The channels that an inbox takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::client) enum Filter {
    /// All lane endpoints that no other inbox names.
    Rest,
    /// These endpoints.
    Endpoints(Vec<Name>),
    /// Payloads of this signal, for the dispatcher thread `tid`, which sleeps in sigwaitinfo(2).
    Signal { signo: i32, tid: i32 },
}

impl Filter {
    /// The endpoints that it names.
    pub fn endpoints(&self) -> &[Name] {
        if let Filter::Endpoints(names) = self {
            names
        } else {
            &[]
        }
    }

    /// The inbox as an error names it.
    fn holder(&self) -> Holder {
        Holder::here(match self {
            Filter::Rest => "an inbox for all endpoints that no other inbox names",
            Filter::Endpoints(_) => "an inbox",
            Filter::Signal { .. } => "a signal handler",
        })
    }

    /// Whether the inbox takes this channel: it names the endpoint, or the channel belongs to the
    /// rest.
    pub fn admits(&self, channel: &Channel) -> bool {
        match (self, channel.role) {
            (Filter::Rest, Role::Inbox) => true,
            (Filter::Endpoints(names), Role::Inbox) => names.contains(&channel.endpoint),
            (Filter::Signal { signo: own, .. }, Role::Signal { signo }) => *own == signo,
            _ => false,
        }
    }
}

/// The session thread's half.
#[derive(Debug)]
pub(in crate::client) struct MailboxSender {
    pub filter: Filter,
    pub holder: Holder,
    /// Incremented for each item that the inbox must handle; an inbox without any ring sleeps at
    /// this word.
    changes: AtomicU32,
    /// Readable when there is such an item, for a thread that waits by descriptor.
    pub event: EventFd,
    /// Number of events that were discarded for lack of room.
    pub lost: AtomicU64,
    /// Not 0: the next call returns [`RecvError::Woken`](crate::client::RecvError::Woken).
    woken: AtomicU32,
    /// Only the session thread, and the claim that begins an inbox, push. No inbox waits for this
    /// lock.
    queues: Mutex<Queues>,
}

#[derive(Debug)]
struct Queues {
    events: rtrb::Producer<Event>,
    channels: rtrb::Producer<RxHandle>,
}

/// The inbox' half.
#[derive(Debug)]
pub(in crate::client) struct Mailbox {
    pub events: rtrb::Consumer<Event>,
    pub channels: rtrb::Consumer<RxHandle>,
}

impl MailboxSender {
    pub fn new(filter: Filter, lanes_max: usize) -> io::Result<(Arc<MailboxSender>, Mailbox)> {
        let (events, events_out) = rtrb::RingBuffer::new(EVENTS_MAX);
        let (channels, lanes_out) = rtrb::RingBuffer::new(lanes_max);
        let mailbox = MailboxSender {
            holder: filter.holder(),
            filter,
            changes: AtomicU32::new(0),
            event: EventFd::new()?,
            lost: AtomicU64::new(0),
            woken: AtomicU32::new(0),
            queues: Mutex::new(Queues { events, channels }),
        };
        Ok((
            Arc::new(mailbox),
            Mailbox {
                events: events_out,
                channels: lanes_out,
            },
        ))
    }

    fn queues(&self) -> std::sync::MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues an event; [`MailboxSender::ring`] must follow.
    pub fn queue_event(&self, event: Event) {
        if self.queues().events.push(event).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Queues a channel; returns it if the queue is full.
    pub fn add(&self, rx: RxHandle) -> Option<RxHandle> {
        self.queues()
            .channels
            .push(rx)
            .err()
            .map(|rtrb::PushError::Full(rx)| rx)
    }

    /// Wakes the inbox. If the inbox sleeps at a ring's bell, that bell must be rung after this
    /// call.
    pub fn ring(&self) {
        // SYNC POINT with `seen`: what was queued before is seen.
        self.changes.fetch_add(1, Ordering::Release);
        futex::wake_all(&self.changes);
        // Our own eventfd: it does not fail.
        let _ = self.event.ring();
        if let Filter::Signal { tid, .. } = self.filter {
            // A standard signal: it needs no room in the user's queue, and waits for a thread that
            // is not asleep yet.
            rtsignal::wake(tid);
        }
    }

    /// Ends the call of the inbox that waits, or its next one. Takes no lock: safe in a signal handler.
    pub fn wake(&self) {
        // SYNC POINT with `take_woken`, by the change that `ring` counts.
        self.woken.store(1, Ordering::Relaxed);
        self.ring();
    }

    /// Whether [`MailboxSender::wake`] was called since the last time. Called when there is a
    /// change, before it is marked as seen.
    pub fn take_woken(&self) -> bool {
        self.woken.load(Ordering::Relaxed) != 0 && self.woken.swap(0, Ordering::Relaxed) != 0
    }

    #[inline]
    pub fn seen(&self) -> u32 {
        self.changes.load(Ordering::Acquire)
    }

    /// Sleeps until the counter differs from `seen`; may also return without a reason.
    pub fn sleep(&self, seen: u32, timeout_ns: u64) {
        // The caller checks again, whatever ended the sleep.
        let _ = futex::wait(&self.changes, seen, timeout_ns);
    }
}
