//! The dispatcher: one thread in sigwaitinfo(2) that calls the handlers.
//!
//! Constraint: the set it waits for changes while it sleeps. Whoever changes it then sends [`WAKE`] to this very
//! thread, where it is blocked and part of every set: it ends the sleep, or the next one before it begins, so no
//! change is missed and nothing polls. Invariant: the thread blocks every signal, so none interrupts a handler and
//! one that is registered later cannot be delivered here before it is waited for.

use super::registry::{HANDLERS_MAX, Left, Registry};
use super::{Counters, Notice, origin_of};
use crate::sys::rtsignal::{self, Received, SignalSet, WAKE};
use crate::sys::{clock, epoll, sched};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What the handle and the thread share.
pub(super) struct Shared {
    registry: Mutex<Registry>,
    stop: AtomicBool,
    received: AtomicU64,
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
            unhandled: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            panics: AtomicU64::new(0),
        }
    }

    /// Never held while foreign code runs, so a panic cannot leave it half-changed.
    pub(super) fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread ends after the handler that runs now; to be followed by [`WAKE`].
    pub(super) fn stop(&self) {
        // Release: pairs with the Acquire in `run`.
        self.stop.store(true, Ordering::Release);
    }

    pub(super) fn counters(&self) -> Counters {
        Counters {
            received: self.received.load(Ordering::Relaxed),
            unhandled: self.unhandled.load(Ordering::Relaxed),
            calls: self.calls.load(Ordering::Relaxed),
            panics: self.panics.load(Ordering::Relaxed),
        }
    }

    /// The thread's life; tells its kernel id as soon as it blocks every signal.
    pub(super) fn live(&self, tell: &SyncSender<io::Result<i32>>) {
        let blocked = epoll::block_signals(rtsignal::all_but_faults());
        let ready = blocked.is_ok();
        // Nobody listens when whoever started us is gone, and then nobody is going to stop us.
        if tell.send(blocked.map(|()| sched::gettid())).is_ok() && ready {
            self.run();
        }
    }

    fn run(&self) {
        let mut set = SignalSet::of([WAKE]);
        // Acquire: pairs with the Release in `stop`.
        while !self.stop.load(Ordering::Acquire) {
            // EINTR (a stop and continue, a debugger) is the only error of a wait without a time on a valid set.
            let Ok(got) = rtsignal::wait(&set) else { continue };
            if got.signo == WAKE {
                set = SignalSet::of_bits(self.registry().taken | rtsignal::bit(WAKE));
            } else {
                self.dispatch(&got);
            }
        }
    }

    fn dispatch(&self, got: &Received) {
        self.received.fetch_add(1, Ordering::Relaxed);
        let received_ns = clock::monotonic_ns();
        let (signo, value) = (got.signo, got.value);
        let notice = Notice { signo, value, origin: origin_of(got), payload: &[], received_ns };
        let mut ids = [None; HANDLERS_MAX];
        // Those that are there now: one that a handler registers is called from the next signal on.
        let count = self.registry().list(signo, &mut ids);
        let mut handled = false;
        for id in ids.iter().take(count).flatten() {
            let Some(mut callee) = self.registry().begin(*id) else { continue };
            let mut called = false;
            self.guarded(|| callee.call(&notice, &mut called));
            let left: Left = self.registry().end(*id, callee, called);
            self.guarded(|| drop(left));
            self.calls.fetch_add(u64::from(called), Ordering::Relaxed);
            handled |= called;
        }
        self.unhandled.fetch_add(u64::from(!handled), Ordering::Relaxed);
    }

    /// Runs foreign code; a panic of it is counted and ends here.
    fn guarded(&self, foreign: impl FnOnce()) {
        let Err(payload) = catch_unwind(AssertUnwindSafe(foreign)) else { return };
        self.panics.fetch_add(1, Ordering::Relaxed);
        // The payload is foreign, too, and its drop may panic again.
        if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            std::mem::forget(again);
        }
    }
}
