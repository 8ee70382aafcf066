//! The dispatcher: one thread in sigwaitinfo(2) that calls the handlers.
//!
//! It always takes the lowest pending number, of signals and of messages in rings
//! ([`super::rings`]) alike; for one number, signals come first. A signal that only announces a
//! message is discarded: the following read of the ring finds all messages, independent of the
//! number of such signals.
//!
//! Constraint: the set it waits for changes while it sleeps. A thread that changes the set then
//! sends [`WAKE`] to the dispatcher's thread, where that signal is blocked and part of every set:
//! the signal ends the sleep, or the next one before it begins, so no change is missed and nothing
//! polls. Invariant: the thread blocks every signal, so none interrupts a handler and one that is
//! registered later cannot be delivered here before it is waited for.

use super::registry::{HANDLERS_MAX, Left, Registry};
use super::rings::{RingRead, Rings};
use super::{Counters, Notice, origin_of};
use crate::client::message::Message;
use crate::skin::Skin;
use crate::sys::rtsignal::{self, Received, WAKE};
use crate::sys::{Call, Errno, clock, epoll, sched};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// State that the handle and the thread share.
pub(super) struct Shared {
    registry: Mutex<Registry>,
    stop: AtomicBool,
    received: AtomicU64,
    doorbells: AtomicU64,
    duplicates: AtomicU64,
    unhandled: AtomicU64,
    calls: AtomicU64,
    panics: AtomicU64,
}

impl Shared {
    pub(super) fn new() -> Shared {
        Shared {
            registry: Mutex::new(Registry::new()),
            stop: AtomicBool::new(false),
            received: AtomicU64::new(0),
            doorbells: AtomicU64::new(0),
            duplicates: AtomicU64::new(0),
            unhandled: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            panics: AtomicU64::new(0),
        }
    }

    /// Never locked while foreign code runs, so a panic cannot leave it half changed.
    pub(super) fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the thread after the handler that runs now; [`WAKE`] must follow.
    pub(super) fn stop(&self) {
        // Release: pairs with the Acquire in `run`.
        self.stop.store(true, Ordering::Release);
    }

    pub(super) fn counters(&self) -> Counters {
        Counters {
            received: self.received.load(Ordering::Relaxed),
            doorbells: self.doorbells.load(Ordering::Relaxed),
            duplicates: self.duplicates.load(Ordering::Relaxed),
            unhandled: self.unhandled.load(Ordering::Relaxed),
            calls: self.calls.load(Ordering::Relaxed),
            panics: self.panics.load(Ordering::Relaxed),
        }
    }

    /// Main function of the thread. It sends its kernel id as soon as it blocks every signal.
    ///
    /// `promote`: to a skin's thread of this priority, 0 for none.
    pub(super) fn live(&self, promote: Option<(&Skin, u8)>, tell: &SyncSender<io::Result<i32>>) {
        let blocked = epoll::block_signals(rtsignal::all_but_faults());
        // The promotion unblocks the skin's own signals.
        let blocked = blocked.and_then(|()| match promote {
            Some((skin, priority)) => (skin.setup.promote)(priority),
            None => Ok(()),
        });
        let ready = blocked.is_ok();
        // If the thread that started this one is gone, nobody receives the id, and nobody will stop
        // this thread.
        if tell.send(blocked.map(|()| sched::gettid())).is_ok() && ready {
            self.run();
        }
    }

    fn run(&self) {
        let mut rings = Rings::new();
        // Acquire: pairs with the Release in `stop`.
        while !self.stop.load(Ordering::Acquire) {
            let Some((got, ring)) = Self::next(&mut rings) else {
                continue;
            };
            match (got, ring) {
                (Ok(got), _) if got.signo == WAKE => {
                    let mut registry = self.registry();
                    let (taken, more) = (registry.taken, std::mem::take(&mut registry.inboxes));
                    drop(registry);
                    rings.update(taken, more);
                }
                (Ok(got), _) if got.announces => {
                    _ = self.doorbells.fetch_add(1, Ordering::Relaxed);
                }
                (Ok(got), _) => self.signal(&got),
                (Err(_), Some(at)) => self.message(&mut rings, at),
                // EINTR (a stop and continue, a debugger) is the only error of a wait without a
                // time on a valid set.
                (Err(_), None) => {}
            }
        }
    }

    /// The next signal, or why there is none, and the ring with the next message if no signal comes
    /// first; none to search again.
    fn next(rings: &mut Rings) -> Option<(Call<Received>, Option<usize>)> {
        if let Some(due) = rings.by_semaphore() {
            // A Linux system call costs the thread its real-time mode here, so it is not made for
            // each message.
            let got = due.map_or(Err(Errno::AGAIN), rtsignal::try_wait);
            if got.is_ok() {
                return Some((got, None));
            }
            let at = rings.first().map(|(at, _)| at);
            if at.is_none() {
                rings.sleep();
            }
            return at.map(|at| (got, Some(at)));
        }
        match rings.first() {
            Some((at, up_to)) => Some((rtsignal::try_wait(up_to), Some(at))),
            None => rings.arm().map(|all| (rtsignal::wait(all), None)),
        }
    }

    fn signal(&self, got: &Received) {
        let (signo, value, received_ns) = (got.signo, got.value, clock::monotonic_ns());
        let origin = origin_of(got);
        self.dispatch(&Notice {
            signo,
            value,
            origin,
            payload: &[],
            head: None,
            received_ns,
        });
    }

    fn message(&self, rings: &mut Rings, at: usize) {
        match rings.read(at) {
            (signo, RingRead::Message(message)) => {
                let Message {
                    head,
                    bytes: payload,
                } = message;
                let (value, received_ns) = (message.signal_value(), clock::monotonic_ns());
                let origin = head.origin();
                self.dispatch(&Notice {
                    signo,
                    value,
                    origin,
                    payload,
                    head: Some(head),
                    received_ns,
                });
            }
            (_, RingRead::Nothing) => {}
            (_, RingRead::Over) => rings.remove(at),
        }
        self.duplicates.store(rings.duplicates(), Ordering::Relaxed);
    }

    fn dispatch(&self, notice: &Notice<'_>) {
        self.received.fetch_add(1, Ordering::Relaxed);
        let mut ids = [None; HANDLERS_MAX];
        // Calls the handlers that exist now; a handler that one of them registers is called from
        // the next signal on.
        let count = self.registry().list(notice.signo, &mut ids);
        let mut handled = false;
        for id in ids.iter().take(count).flatten() {
            let Some(mut callee) = self.registry().begin(*id) else {
                continue;
            };
            let mut called = false;
            self.guarded(|| callee.call(notice, &mut called));
            let left: Left = self.registry().end(*id, callee, called);
            self.guarded(|| drop(left));
            self.calls.fetch_add(u64::from(called), Ordering::Relaxed);
            handled |= called;
        }
        self.unhandled
            .fetch_add(u64::from(!handled), Ordering::Relaxed);
    }

    /// Runs foreign code; a panic in it is counted and ends here.
    fn guarded(&self, foreign: impl FnOnce()) {
        let Err(payload) = catch_unwind(AssertUnwindSafe(foreign)) else {
            return;
        };
        self.panics.fetch_add(1, Ordering::Relaxed);
        // The panic's payload is foreign too, and dropping it may panic again.
        if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            std::mem::forget(again);
        }
    }
}
