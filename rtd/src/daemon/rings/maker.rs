//! Makes the memory of large rings on a thread of its own, so that the control thread serves
//! everybody else meanwhile: zeroing, mapping and locking a GiB takes a second.
//!
//! One thread of ordinary priority, started with the first order and kept; orders are served one
//! after the other. At most one is outstanding for each process that opens a session and for each
//! direct route.
//!
//! Invariant: an order changes nothing but memory. Whether the result is still wanted is decided
//! when it is done.

use super::RingsError;
use super::direct::{Blank, Draft};
use super::prepare::{Making, Prepared};
use crate::plan::{ProcessId, RouteId};
use rtcore::sys::caps::{self, Capability, Set};
use rtcore::sys::eventfd::EventFd;
use rtcore::sys::memory::LANE_STACK_BYTES;
use std::io;
use std::sync::mpsc;

/// Rings of so many bytes together are made here; smaller ones take a few milliseconds at most.
pub(super) const LARGE_BYTES: u64 = 4 << 20;
/// The thread's name.
const NAME: &str = "rtd-memory";

pub(super) enum Order {
    /// Make the routed rings of a session.
    Session(ProcessId, Making),
    /// Make the memory of a direct ring.
    Direct(RouteId, Draft),
    /// Unmap what nobody uses any more, which takes its time, too.
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
    /// Readable while something is done.
    ready: EventFd,
    orders: mpsc::Sender<Order>,
    /// For the thread, until it is started.
    start: Option<(mpsc::Receiver<Order>, mpsc::Sender<Done>, EventFd)>,
    done: mpsc::Receiver<Done>,
    /// Done here, because there is no thread.
    here: Vec<Done>,
}

impl Maker {
    /// Without a thread yet.
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

    /// Readable when [`Maker::take`] has something.
    pub fn ready(&self) -> &EventFd {
        &self.ready
    }

    pub fn order(&mut self, order: Order) {
        if let Some((to_do, finished, ready)) = self.start.take() {
            // Without a thread its end of the channel is gone, and the order is served below.
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

    /// Drops memory that nobody uses any more, elsewhere if anything large was ever made.
    pub fn discard(&mut self, memory: impl Send + 'static) {
        if self.start.is_none() {
            self.order(Order::Drop(Box::new(memory)));
        }
    }

    /// What has been done since the last call.
    pub fn take(&mut self) -> Vec<Done> {
        self.ready.take();
        let mut done = std::mem::take(&mut self.here);
        done.extend(self.done.try_iter());
        done
    }
}

fn serve(to_do: &mpsc::Receiver<Order>, finished: &mpsc::Sender<Done>, ready: &EventFd) {
    // It locks memory and needs nothing else.
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
