//! What an inbox and the session thread share: news of every kind that is no message.

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

/// Which channels an inbox takes.
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

    /// Its inbox, as an error names it.
    fn holder(&self) -> Holder {
        Holder::here(match self {
            Filter::Rest => "an inbox for all endpoints that no other inbox names",
            Filter::Endpoints(_) => "an inbox",
            Filter::Signal { .. } => "a signal handler",
        })
    }

    /// Whether it names this channel, or (`Rest`) has nothing against it.
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
    /// Grows with all that the inbox has to look at; a sleeper without any ring sleeps at it.
    news: AtomicU32,
    /// Readable when there is such news, for who waits by descriptor.
    pub event: EventFd,
    /// Events that found no room.
    pub lost: AtomicU64,
    /// Only the session thread, and the claim that begins an inbox, push: no inbox waits for this
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
            news: AtomicU32::new(0),
            event: EventFd::new()?,
            lost: AtomicU64::new(0),
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

    /// Queues an event; [`MailboxSender::ring`] follows.
    pub fn tell(&self, event: Event) {
        if self.queues().events.push(event).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Queues a lane; handed back when there are too many.
    pub fn add(&self, rx: RxHandle) -> Option<RxHandle> {
        self.queues()
            .channels
            .push(rx)
            .err()
            .map(|rtrb::PushError::Full(rx)| rx)
    }

    /// Makes the inbox look. Who sleeps at a ring's bell has to be rung there as well, after this.
    pub fn ring(&self) {
        // SYNC POINT with `seen`: what was queued before is seen.
        self.news.fetch_add(1, Ordering::Release);
        futex::wake_all(&self.news);
        // Our own eventfd: it does not fail.
        let _ = self.event.ring();
        if let Filter::Signal { tid, .. } = self.filter {
            // A standard signal: it needs no room in the user's queue, and waits for a thread that
            // is not asleep yet.
            rtsignal::wake(tid);
        }
    }

    #[inline]
    pub fn seen(&self) -> u32 {
        self.news.load(Ordering::Acquire)
    }

    /// Sleeps until there is other news than was seen; returns for no reason, too.
    pub fn sleep(&self, seen: u32, timeout_ns: u64) {
        // Whatever ended it, the caller looks again.
        let _ = futex::wait(&self.news, seen, timeout_ns);
    }
}
