//! The semaphores that wake lane threads and sessions, on a skin whose threads cannot use futexes.
//!
//! A lane thread has one for its whole life, which all its rings ring. Each routed channel of a
//! session has one for its session's end; the channels for payloads of signals share one, since one
//! thread reads them. They are numbered by the plan, and their names contain the instance. A
//! session gets new ones, so that no earlier holder of the name wakes at them.
//!
//! Invariant: the names of an instance are below [`SEMAPHORES_MAX`]. A start removes all of them,
//! so none outlives a killed daemon beyond the next start; the end of a session and the end of the
//! daemon remove theirs.

use super::super::build;
use super::table::{ChannelPath, ChannelPlan, Table};
use crate::plan::{EndpointId, Plan, ProcessId, RouteId, SEMAPHORES_MAX};
use rtcore::ring::Bells;
use rtcore::ring::bell::{BELLS, daemon_bell};
use rtcore::skin::{Doorbell, Semaphore, Skin, semaphore};
use rtcore::wire::{Name, Role, Semaphores};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

/// Identifies lane threads by what they read and what they write.
#[derive(Debug, Default)]
struct Threads {
    of_source: BTreeMap<EndpointId, usize>,
    of_route: BTreeMap<RouteId, usize>,
}

impl Threads {
    fn at(&self, path: ChannelPath) -> Option<usize> {
        match path {
            ChannelPath::Source(endpoint) => self.of_source.get(&endpoint).copied(),
            ChannelPath::Sink(route, _) => self.of_route.get(&route).copied(),
            ChannelPath::Direct(..) => None,
        }
    }
}

/// All semaphores of an instance.
#[derive(Debug)]
pub struct Doorbells {
    skin: &'static Skin,
    instance: Name,
    /// By lane thread.
    lanes: Vec<Arc<Semaphore>>,
    threads: Threads,
    /// By process and channel: the number of the session's semaphore and the lane thread; none for
    /// direct channels.
    channels: Vec<Vec<Option<(u32, usize)>>>,
}

impl Doorbells {
    /// Makes the semaphores of the lane threads, after removing those of an earlier life of the
    /// instance. None if the doorbell is a futex.
    pub fn new(plan: &Plan, table: &Table, skin: &'static Skin) -> io::Result<Option<Doorbells>> {
        if skin.caps.doorbell == Doorbell::Futex {
            return Ok(None);
        }
        let instance = Name::new(&plan.daemon.name).map_err(io::Error::other)?;
        let workers = build::workers(plan);
        let mut threads = Threads::default();
        for (thread, source) in workers
            .iter()
            .enumerate()
            .flat_map(|(n, w)| w.sources.iter().map(move |s| (n, s)))
        {
            threads.of_source.insert(source.endpoint, thread);
            threads
                .of_route
                .extend(source.routes.iter().map(|route| (*route, thread)));
        }
        let mut next = u32::try_from(workers.len()).map_err(io::Error::other)?..;
        let channels = table
            .channels
            .iter()
            .map(|channels| number(channels, &threads, &mut next))
            .collect();
        let mut doorbells = Doorbells {
            skin,
            instance,
            lanes: Vec::new(),
            threads,
            channels,
        };
        (0..SEMAPHORES_MAX).try_for_each(|number| doorbells.remove(number))?;
        for number in (0..).take(workers.len()) {
            let made = doorbells.make(number)?;
            doorbells.lanes.push(made);
        }
        Ok(Some(doorbells))
    }

    fn make(&self, number: u32) -> io::Result<Arc<Semaphore>> {
        Semaphore::create(self.skin, &semaphore::name(self.instance.as_str(), number)).map(Arc::new)
    }

    fn remove(&self, number: u32) -> io::Result<()> {
        semaphore::unlink(self.skin, &semaphore::name(self.instance.as_str(), number)).map(drop)
    }

    fn of_thread(&self, thread: usize) -> Option<Arc<Semaphore>> {
        self.lanes.get(thread).cloned()
    }

    /// The semaphore of the thread that reads an endpoint.
    pub fn of_source(&self, endpoint: EndpointId) -> Option<Arc<Semaphore>> {
        self.of_thread(*self.threads.of_source.get(&endpoint)?)
    }

    /// The semaphore of the thread that owns a route.
    pub fn of_route(&self, route: RouteId) -> Option<Arc<Semaphore>> {
        self.of_thread(*self.threads.of_route.get(&route)?)
    }

    /// The bells of a session that opens, with new semaphores of its own.
    pub fn bells(&self, process: ProcessId) -> io::Result<Bells> {
        self.forget(process);
        let mut by_number: Vec<Option<Arc<Semaphore>>> = (0..BELLS).map(|_| None).collect();
        let mut made: BTreeMap<u32, Arc<Semaphore>> = BTreeMap::new();
        for (channel, numbers) in (0..).zip(&self.channels[process]) {
            let Some((own, thread)) = *numbers else {
                continue;
            };
            let own = match made.get(&own) {
                Some(made) => Arc::clone(made),
                None => Arc::clone(made.entry(own).or_insert(self.make(own)?)),
            };
            for (bell, semaphore) in [
                (channel, Some(own)),
                (daemon_bell(channel), self.of_thread(thread)),
            ] {
                by_number[bell as usize] = semaphore;
            }
        }
        Ok(Bells::semaphores(by_number))
    }

    /// The names of a channel's semaphores, for the session.
    pub fn named(&self, process: ProcessId, channel: u32) -> Option<Semaphores> {
        let (own, thread) = (*self.channels.get(process)?.get(channel as usize)?)?;
        Some(Semaphores {
            instance: self.instance,
            own,
            lane: u32::try_from(thread).ok()?,
        })
    }

    /// Removes the names of a session's semaphores, because it is over or the next one begins.
    /// Threads that have them open keep using them.
    pub fn forget(&self, process: ProcessId) {
        for (own, _) in self.channels[process].iter().flatten() {
            // A name that cannot be removed now fails the next session, with an error.
            let _ = self.remove(*own);
        }
    }
}

impl Drop for Doorbells {
    fn drop(&mut self) {
        (0..self.channels.len()).for_each(|process| self.forget(process));
        for number in (0..).take(self.lanes.len()) {
            // The next start tries again.
            let _ = self.remove(number);
        }
    }
}

/// The semaphores of a process' channels, and the threads at their other ends.
fn number(
    channels: &[ChannelPlan],
    threads: &Threads,
    next: &mut std::ops::RangeFrom<u32>,
) -> Vec<Option<(u32, usize)>> {
    let mut of_signals = None;
    let mut numbers = Vec::with_capacity(channels.len());
    for channel in channels {
        let of_thread = threads.at(channel.path).and_then(|thread| {
            let own = match channel.announced.role {
                Role::Signal { .. } => of_signals.or_else(|| next.next()),
                Role::Sender | Role::Inbox => next.next(),
            };
            if let Role::Signal { .. } = channel.announced.role {
                of_signals = own;
            }
            Some((own?, thread))
        });
        numbers.push(of_thread);
    }
    numbers
}
