//! Makes the memory of large rings on a thread of its own, so that the control thread can serve
//! other clients meanwhile: zeroing, mapping and locking a GiB takes a second.
//!
//! One thread of ordinary priority, started with the first order and kept; orders are served one
//! after the other. At most one is outstanding for each process that opens a session and for each
//! direct route.
//!
//! Invariant: an order changes nothing except memory. When it is done, the control thread decides
//! whether the result is still wanted.

use super::RingsError;
use super::direct::{Blank, Draft};
use super::prepare::{Making, Prepared};
use crate::plan::{ProcessId, RouteId};
use rtcore::sys::caps::{self, Capability, Set};
use rtcore::sys::eventfd::EventFd;
use rtcore::sys::memory::LANE_STACK_BYTES;
use std::io;
use std::sync::mpsc;

/// Rings of this many bytes together are made on that thread; smaller ones take at most a few
/// milliseconds.
pub(super) const LARGE_BYTES: u64 = 4 << 20;
/// The thread's name.
const NAME: &str = "rtd-memory";

pub(super) enum Order {
    /// Makes the routed rings of a session.
    Session(ProcessId, Making),
    /// Makes the memory of a direct ring.
    Direct(RouteId, Draft),
    /// Unmaps memory that nobody uses any more, which takes time too.
    Drop(Box<dyn Send>),
}

/// The result of an order for memory.
#[derive(Debug)]
pub(super) enum Done {
    Session(ProcessId, Result<Prepared, RingsError>),
    Direct(RouteId, io::Result<Blank>),
}

/// The control thread's side.
#[derive(Debug)]
pub(super) struct Maker {
    /// Readable while a result waits.
    ready: EventFd,
    orders: mpsc::Sender<Order>,
    /// The parts for the thread, until it is started.
    start: Option<(mpsc::Receiver<Order>, mpsc::Sender<Done>, EventFd)>,
    done: mpsc::Receiver<Done>,
    /// Results of orders that this thread carried out itself, because there is no other thread.
    here: Vec<Done>,
}

impl Maker {
    /// Makes a maker without a thread.
    pub fn new() -> io::Result<Maker> {
        let ready = EventFd::new()?;
        let (orders, to_do) = mpsc::channel();
        let (finished, done) = mpsc::channel();
        let start = Some((to_do, finished, ready.try_clone()?));
        Ok(Maker {
            ready,
            orders,
            start,
            done,
            here: Vec::new(),
        })
    }

    /// Readable when [`Maker::take`] has a result.
    pub fn ready(&self) -> &EventFd {
        &self.ready
    }

    pub fn order(&mut self, order: Order) {
        if let Some((to_do, finished, ready)) = self.start.take() {
            // If the thread cannot start, its end of the channel is gone, and the order is carried
            // out below.
            let _ = std::thread::Builder::new()
                .name(NAME.to_owned())
                .stack_size(LANE_STACK_BYTES)
                .spawn(move || serve(&to_do, &finished, &ready));
        }
        if let Err(mpsc::SendError(order)) = self.orders.send(order) {
            self.here.extend(carry_out(order));
            let _ = self.ready.ring();
        }
    }

    /// Drops memory that nobody uses any more; on the other thread, if large memory was ever made.
    pub fn discard(&mut self, memory: impl Send + 'static) {
        if self.start.is_none() {
            self.order(Order::Drop(Box::new(memory)));
        }
    }

    /// The results since the last call.
    pub fn take(&mut self) -> Vec<Done> {
        self.ready.take();
        let mut done = std::mem::take(&mut self.here);
        done.extend(self.done.try_iter());
        done
    }
}

fn serve(to_do: &mpsc::Receiver<Order>, finished: &mpsc::Sender<Done>, ready: &EventFd) {
    // The thread locks memory and needs no other capability.
    if let Ok(permitted) = caps::permitted() {
        let _ = caps::hold(permitted.and(Set::of([Capability::IpcLock])));
    }
    for order in to_do {
        if let Some(done) = carry_out(order) {
            if finished.send(done).is_err() {
                return;
            }
            let _ = ready.ring();
        }
    }
}

fn carry_out(order: Order) -> Option<Done> {
    match order {
        Order::Session(process, making) => Some(Done::Session(process, making.make())),
        Order::Direct(route, draft) => Some(Done::Direct(route, draft.make())),
        Order::Drop(memory) => {
            drop(memory);
            None
        }
    }
}
