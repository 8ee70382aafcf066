//! One wait for many things: inboxes, signals, timers and foreign descriptors, in priority order.
//!
//! It is for the loop of a control process that waits for several sources; a lane of the daemon
//! never waits this way. It is level-triggered: a source that is not served is returned again by
//! the next wait. Ready sources are sorted: higher priority first, and in the order of
//! [`Waiter::add`] among equals.
//!
//! **Starvation.** The order determines which source to serve first, not how much of it: a loop
//! that serves only the first source of each wait never gets to the others while that one is busy.
//! This is right for an e-stop and wrong for most other sources. Serve all sources that a wait
//! returns, and a bounded number of messages of each.
//!
//! **Descriptors that are closed.** A waiter does not own its sources. Remove a source before you
//! close it. If it was closed without that, every later wait reports [`Ready::hangup`] for it until
//! it is removed; it is never confused with a descriptor that has got its number. This check costs
//! a system call per source and wait (about 0.3 us), before the sleep and not after it.
//!
//! **fork(2).** The child has the same set in the kernel as its parent, so a change by one would
//! change the other's. All calls on an inherited waiter fail; the child makes one of its own.
//!
//! ```
//! use rtcore::client::waiter::{Interest, Timer, Waiter};
//! use rtcore::sys::{clock, eventfd::EventFd};
//!
//! const TICK: u64 = 1;
//! const STOP: u64 = 2;
//! let (timer, stop) = (Timer::new()?, EventFd::new()?);
//! let mut waiter = Waiter::with_capacity(2)?;
//! waiter.add(&timer, TICK, 1, Interest::Readable)?;
//! waiter.add(&stop, STOP, 9, Interest::Readable)?;
//! timer.every(clock::monotonic_ns(), 1_000_000)?;
//!
//! let (mut ticks, mut running) = (0, true);
//! while running {
//!     for ready in waiter.wait(None)? {
//!         match ready.key {
//!             TICK => ticks += timer.take(),
//!             STOP => running = false,
//!             _ => {}
//!         }
//!     }
//!     if ticks >= 3 {
//!         stop.ring().map_err(std::io::Error::from)?;
//!     }
//! }
//! # Ok::<(), std::io::Error>(())
//! ```

mod source;

pub use crate::sys::epoll::Interest;
pub use crate::sys::timerfd::Timer;
pub use source::{Received, SignalSource};

use crate::sys::context::named;
use crate::sys::epoll::{Epoll, Event, Events};
use crate::sys::forked::{Creator, Forked};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

/// A source that is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// The key that was passed to [`Waiter::add`].
    pub key: u64,
    /// The priority that was passed to [`Waiter::add`].
    pub priority: u8,
    /// There is something to receive.
    pub readable: bool,
    /// There is room to send.
    pub writable: bool,
    /// The other end hung up, the descriptor is in error, or its owner closed it.
    pub hangup: bool,
    /// Order of addition, which decides among equal priorities.
    order: u64,
}

#[derive(Clone, Copy, Debug)]
struct Item {
    fd: RawFd,
    key: u64,
    priority: u8,
    interest: Interest,
    order: u64,
    /// Closed by its owner. The number may belong to another descriptor now, so it is not used any
    /// more.
    closed: bool,
}

impl Item {
    fn ready(&self, event: Event) -> Ready {
        let Event {
            readable,
            writable,
            hangup,
            ..
        } = event;
        Ready {
            key: self.key,
            priority: self.priority,
            readable,
            writable,
            hangup,
            order: self.order,
        }
    }
}

/// A set of sources to wait for.
///
/// Invariant: an item that is not marked closed is in the kernel's set under its index in `items`,
/// and no two of these have one number.
#[derive(Debug)]
pub struct Waiter {
    set: Epoll,
    items: Vec<Option<Item>>,
    events: Events,
    ready: Vec<Ready>,
    added: u64,
    creator: Creator,
}

impl Waiter {
    /// An empty set with room for `count` sources. All memory of later waits is allocated here.
    ///
    /// Errors: no descriptor left (EMFILE: RLIMIT_NOFILE; ENFILE: fs.file-max).
    pub fn with_capacity(count: usize) -> io::Result<Waiter> {
        Ok(Waiter {
            set: Epoll::new()?,
            items: vec![None; count],
            events: Events::with_capacity(count),
            ready: Vec::with_capacity(count),
            added: 0,
            creator: Creator::current()?,
        })
    }

    /// Adds a source. `key` is returned in [`Ready`]; a higher `priority` comes first.
    ///
    /// Errors: the set is full; the key or the descriptor is in it; the file is always ready, like
    /// a regular file or /dev/null.
    pub fn add(
        &mut self,
        thing: &impl AsFd,
        key: u64,
        priority: u8,
        interest: Interest,
    ) -> io::Result<()> {
        self.check()?;
        let fd = thing.as_fd().as_raw_fd();
        if self.items.iter().flatten().any(|item| item.key == key) {
            return Err(refused(
                io::ErrorKind::AlreadyExists,
                format!("key {key} is in the set; remove it first"),
            ));
        }
        let Some(index) = self.items.iter().position(Option::is_none) else {
            let full = format!(
                "no room for key {key}, {} is the capacity; make it larger",
                self.items.len()
            );
            return Err(refused(io::ErrorKind::StorageFull, full));
        };
        self.set
            .add_number(fd, index as u64, interest)
            .map_err(|e| {
                let e = io::Error::from(e);
                let why = match e.kind() {
                    io::ErrorKind::AlreadyExists => "it is in the set; remove its other key first",
                    io::ErrorKind::PermissionDenied => {
                        "this file (a regular file, /dev/null) is always ready; do not wait for it"
                    }
                    _ => "the kernel refused (epoll_ctl)",
                };
                named(format!("waiter: descriptor {fd} for key {key}: {why}"), e)
            })?;
        // The descriptor that had the number before was closed, otherwise the kernel would have
        // refused this one.
        for former in self.items.iter_mut().flatten().filter(|item| item.fd == fd) {
            former.closed = true;
        }
        self.items[index] = Some(Item {
            fd,
            key,
            priority,
            interest,
            order: self.added,
            closed: false,
        });
        self.added += 1;
        Ok(())
    }

    /// Removes a source.
    ///
    /// Errors: the key is not in the set; no descriptor left to replace the set after a source in
    /// it was closed.
    pub fn remove(&mut self, key: u64) -> io::Result<()> {
        self.check()?;
        self.mark_closed();
        let index = self
            .items
            .iter()
            .position(|item| item.is_some_and(|item| item.key == key));
        let Some((index, item)) = index.and_then(|index| Some((index, self.items[index]?))) else {
            return Err(refused(
                io::ErrorKind::NotFound,
                format!("key {key} is not in the set"),
            ));
        };
        if item.closed {
            // A duplicate may keep the descriptor in the kernel's set, from which nothing can
            // remove it any more.
            let fresh = Epoll::new()?;
            for (token, other) in self.items.iter().enumerate() {
                let Some(other) = other.filter(|other| !other.closed) else {
                    continue;
                };
                fresh.add_number(other.fd, token as u64, other.interest)?;
            }
            self.set = fresh;
        } else {
            self.set.remove_number(item.fd)?;
        }
        self.items[index] = None;
        Ok(())
    }

    /// Waits until a source is ready or `deadline_ns` of CLOCK_MONOTONIC has come (none: no limit;
    /// a deadline in the past: does not wait). Returns the ready sources in priority order; none at
    /// the deadline. After an interruption it continues with the same deadline. It does not use the
    /// heap, except for the text of an error.
    ///
    /// Errors: an empty set without a deadline, which would never return.
    pub fn wait(&mut self, deadline_ns: Option<u64>) -> io::Result<&[Ready]> {
        self.check()?;
        self.ready.clear();
        let (mut any, mut closed) = (false, false);
        self.mark_closed();
        for item in self.items.iter().flatten() {
            any = true;
            if item.closed {
                closed = true;
                self.ready.push(item.ready(Event {
                    token: 0,
                    readable: false,
                    writable: false,
                    hangup: true,
                }));
            }
        }
        if !any && deadline_ns.is_none() {
            return Err(refused(
                io::ErrorKind::InvalidInput,
                "the set is empty and there is no deadline; add a source or pass a deadline".into(),
            ));
        }
        let deadline_ns = if closed { Some(0) } else { deadline_ns };
        let count = self.set.wait_until(&mut self.events, deadline_ns)?;
        for event in self.events.first(count) {
            let item = usize::try_from(event.token)
                .ok()
                .and_then(|index| *self.items.get(index)?);
            // A closed source that a duplicate keeps in the kernel's set is already in the list.
            if let Some(item) = item.filter(|item| !item.closed) {
                self.ready.push(item.ready(event));
            }
        }
        self.ready
            .sort_unstable_by_key(|ready| (u8::MAX - ready.priority, ready.order));
        Ok(&self.ready)
    }

    fn check(&self) -> io::Result<()> {
        self.creator.check().map_err(|Forked { creator }| {
            let text = format!(
                "this process was forked from process {creator}, which made the set; make one in this process"
            );
            refused(io::ErrorKind::Unsupported, text)
        })
    }

    /// Notes which descriptors were closed.
    fn mark_closed(&mut self) {
        for (index, item) in self.items.iter_mut().enumerate() {
            let Some(item) = item.as_mut().filter(|item| !item.closed) else {
                continue;
            };
            item.closed = self
                .set
                .renew_number(item.fd, index as u64, item.interest)
                .is_err();
        }
    }
}

impl AsFd for Waiter {
    /// Readable while something in the set is ready: a set in a set, or a poll(2) that ends at a
    /// signal, which [`Waiter::wait`] does not.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.set.as_fd()
    }
}

fn refused(kind: io::ErrorKind, text: String) -> io::Error {
    io::Error::new(kind, format!("waiter: {text}"))
}
