//! `rtcore_signals`: callbacks for signals on an ordinary thread.
//!
//! Invariant: a callback's `user` is not used after `rtcore_signals_remove` returned, or
//! `rtcore_signals_replace` for the one before: both wait until the callback that runs has returned,
//! unless the callback itself calls them.

use crate::arguments::{Plain, array, fill, give, shared, take_back};
use crate::error::{Failure, Misuse, failed, rtcore_error};
use crate::message::{FROM_RING, verified};
use crate::session::rtcore_session;
use client::client::signals::{Counters, Flags, HandlerId, Notice, Signals};
use client::sys::{forked::Creator, sched, startup};
use std::ffi::{c_char, c_int, c_void};
use std::ptr::null;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// `RTCORE_ONCE`, `RTCORE_FIRST`.
const ONCE: u32 = 1;
const FIRST: u32 = 2;

/// A signal, or a message to a signal endpoint.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct rtcore_notice {
    pub signo: i32,
    pub flags: u32,
    pub value: u64,
    pub data: *const c_void,
    pub len: usize,
    pub pid: i32,
    pub uid: u32,
    pub received_ns: u64,
    pub sequence: u64,
    pub missed: u64,
    pub intended_ns: u64,
    pub sent_ns: u64,
    pub endpoint: *const c_char,
    pub from: *const c_char,
    pub lane: *const c_char,
    pub route: *const c_char,
}

// SAFETY: `repr(C)`, of integers and pointers.
unsafe impl Plain for rtcore_notice {}

/// Of a signal without anything beside it.
pub const PLAIN: rtcore_notice = rtcore_notice {
    signo: 0,
    flags: 0,
    value: 0,
    data: null(),
    len: 0,
    pid: 0,
    uid: u32::MAX,
    received_ns: 0,
    sequence: 0,
    missed: 0,
    intended_ns: 0,
    sent_ns: 0,
    endpoint: null(),
    from: null(),
    lane: null(),
    route: null(),
};

impl rtcore_notice {
    fn of(notice: &Notice<'_>) -> rtcore_notice {
        let plain = rtcore_notice {
            signo: notice.signo,
            flags: verified(notice.origin.verified),
            value: notice.value,
            data: notice.payload.as_ptr().cast(),
            len: notice.payload.len(),
            pid: notice.origin.pid.cast_signed(),
            uid: notice.origin.uid,
            received_ns: notice.received_ns,
            ..PLAIN
        };
        let Some(head) = &notice.head else {
            return plain;
        };
        let channel = head.channel();
        rtcore_notice {
            flags: plain.flags | FROM_RING,
            sequence: head.sequence(),
            missed: head.missed(),
            intended_ns: head.intended_ns(),
            sent_ns: head.sent_ns(),
            endpoint: channel.endpoint.as_ptr(),
            from: channel.other.as_ptr(),
            lane: channel.lane.as_ptr(),
            route: channel.route.as_ptr(),
            ..plain
        }
    }
}

/// What is called.
pub type rtcore_signal_fn =
    Option<unsafe extern "C" fn(notice: *const rtcore_notice, user: *mut c_void)>;

/// Whether a callback can run no more.
#[derive(Default)]
struct Latch {
    over: Mutex<bool>,
    changed: Condvar,
}

impl Latch {
    fn over(&self) -> MutexGuard<'_, bool> {
        self.over.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self) -> bool {
        *self.over()
    }

    fn wait(&self) {
        let mut over = self.over();
        while !*over {
            over = self
                .changed
                .wait(over)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A callback as the dispatcher owns it: dropped when it runs no more.
struct Callback {
    function: unsafe extern "C" fn(*const rtcore_notice, *mut c_void),
    user: *mut c_void,
    latch: Arc<Latch>,
    /// Kernel id of the dispatcher's thread, once it has called anything.
    dispatcher: Arc<AtomicI32>,
}

// SAFETY: the header says that a callback runs on the dispatcher's thread, and so what `user` leads
// to must bear it.
unsafe impl Send for Callback {}

impl Callback {
    fn call(&self, notice: &Notice<'_>) {
        if self.dispatcher.load(Ordering::Relaxed) == 0 {
            self.dispatcher.store(sched::gettid(), Ordering::Relaxed);
        }
        let notice = rtcore_notice::of(notice);
        // SAFETY: the header's contract: a function of this type that does not unwind.
        unsafe { (self.function)(&raw const notice, self.user) };
    }
}

impl Drop for Callback {
    fn drop(&mut self) {
        *self.latch.over() = true;
        self.latch.changed.notify_all();
    }
}

pub struct rtcore_signals {
    signals: Arc<Signals>,
    creator: Creator,
    dispatcher: Arc<AtomicI32>,
    registered: Mutex<Registered>,
}

#[derive(Default)]
struct Registered {
    last: i64,
    entries: Vec<Entry>,
}

struct Entry {
    id: i64,
    handler: HandlerId,
    latch: Arc<Latch>,
}

impl rtcore_signals {
    fn registered(&self) -> MutexGuard<'_, Registered> {
        self.registered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn callback(
        &self,
        function: rtcore_signal_fn,
        user: *mut c_void,
    ) -> Result<(Callback, Arc<Latch>), Failure> {
        self.creator.check()?;
        let function = function.ok_or(Misuse::Choice("the callback is NULL"))?;
        let latch = Arc::new(Latch::default());
        let callback = Callback {
            function,
            user,
            latch: Arc::clone(&latch),
            dispatcher: Arc::clone(&self.dispatcher),
        };
        Ok((callback, latch))
    }

    fn register(
        &self,
        signo: i32,
        flags: u32,
        function: rtcore_signal_fn,
        user: *mut c_void,
    ) -> Result<i64, Failure> {
        if flags & !(ONCE | FIRST) != 0 {
            return Err(Misuse::Choice("flags are none of RTCORE_ONCE, RTCORE_FIRST").into());
        }
        let (callback, latch) = self.callback(function, user)?;
        let mut how = Flags::new();
        if flags & ONCE != 0 {
            how = how.once();
        }
        if flags & FIRST != 0 {
            how = how.first();
        }
        let handler = self
            .signals
            .register(signo, how, move |notice| callback.call(notice))?;
        let mut registered = self.registered();
        // Those that were called once.
        registered.entries.retain(|entry| !entry.latch.is_over());
        registered.last += 1;
        let id = registered.last;
        registered.entries.push(Entry { id, handler, latch });
        Ok(id)
    }

    /// Waits for a callback that runs, unless that is who waits.
    fn settle(&self, latch: &Latch) {
        if self.dispatcher.load(Ordering::Relaxed) != sched::gettid() {
            latch.wait();
        }
    }

    fn replace(
        &self,
        id: i64,
        function: rtcore_signal_fn,
        user: *mut c_void,
    ) -> Result<(), Failure> {
        let (callback, mut latch) = self.callback(function, user)?;
        let mut registered = self.registered();
        let entry = registered.entries.iter_mut().find(|entry| entry.id == id);
        let entry = entry.ok_or_else(absent)?;
        self.signals
            .replace(entry.handler, move |notice| callback.call(notice))?;
        std::mem::swap(&mut entry.latch, &mut latch);
        drop(registered);
        self.settle(&latch);
        Ok(())
    }

    fn remove(&self, id: i64) -> Result<(), Failure> {
        self.creator.check()?;
        let mut registered = self.registered();
        let at = registered.entries.iter().position(|entry| entry.id == id);
        let entry = registered.entries.swap_remove(at.ok_or_else(absent)?);
        drop(registered);
        // One that was called once is gone, and its call may still run.
        let removed = self.signals.remove(entry.handler);
        self.settle(&entry.latch);
        Ok(removed?)
    }
}

fn absent() -> Failure {
    Misuse::Absent.into()
}

/// What the dispatcher has done.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct rtcore_signals_counters {
    pub received: u64,
    pub doorbells: u64,
    pub duplicates: u64,
    pub unhandled: u64,
    pub calls: u64,
}

// SAFETY: `repr(C)`, of integers.
unsafe impl Plain for rtcore_signals_counters {}

/// # Safety
/// 1. As of `rtcore_signals_open`.
unsafe fn open(
    out: *mut *mut rtcore_signals,
    session: *const rtcore_session,
) -> Result<(), Failure> {
    let signals = if session.is_null() {
        Arc::new(Signals::start()?)
    } else {
        // SAFETY: the caller's contract.
        unsafe { shared(session) }?.session.signals()?
    };
    let handle = rtcore_signals {
        signals,
        creator: Creator::current()?,
        dispatcher: Arc::default(),
        registered: Mutex::default(),
    };
    // SAFETY: the caller's contract.
    unsafe { give(out, handle) }
}

export! {
    /// Blocks every signal that a route may carry: for a constructor, before `main`.
    fn rtcore_signals_hold() {
        startup::hold();
    }

    /// Blocks these signals in the calling thread and in those that it starts.
    fn rtcore_signals_block(signals: *const c_int, n: usize, err: *mut rtcore_error) -> c_int {
        // SAFETY: the header's contract.
        unsafe {
            let blocked = array(signals, n)
                .and_then(|signals| Ok(Signals::block(signals.iter().copied())?));
            blocked.map_or_else(|failure| failed(err, failure), |()| 0)
        }
    }

    /// The session's dispatcher, or one without a session.
    fn rtcore_signals_open(
        out: *mut *mut rtcore_signals,
        session: *mut rtcore_session,
        err: *mut rtcore_error,
    ) -> c_int {
        // SAFETY: the header's contract.
        unsafe { open(out, session).map_or_else(|failure| failed(err, failure), |()| 0) }
    }

    /// Ends the dispatcher, if it was the last that held it.
    fn rtcore_signals_close(signals: *mut rtcore_signals) {
        // SAFETY: the header's contract.
        unsafe { take_back(signals) }
    }

    /// Calls this for each such signal; the registration's number.
    fn rtcore_signals_register(
        signals: *const rtcore_signals,
        signo: c_int,
        flags: u32,
        function: rtcore_signal_fn,
        user: *mut c_void,
        err: *mut rtcore_error,
    ) -> i64 {
        // SAFETY: the header's contract.
        unsafe {
            let id = shared(signals).and_then(|own| own.register(signo, flags, function, user));
            id.unwrap_or_else(|failure| failed(err, failure).into())
        }
    }

    /// Puts another callback into its place.
    fn rtcore_signals_replace(
        signals: *const rtcore_signals,
        id: i64,
        function: rtcore_signal_fn,
        user: *mut c_void,
    ) -> c_int {
        // SAFETY: the header's contract.
        let done = unsafe { shared(signals) }.and_then(|own| own.replace(id, function, user));
        done.map_or_else(|failure| failure.code(), |()| 0)
    }

    /// Removes it.
    fn rtcore_signals_remove(signals: *const rtcore_signals, id: i64) -> c_int {
        // SAFETY: the header's contract.
        let done = unsafe { shared(signals) }.and_then(|own| own.remove(id));
        done.map_or_else(|failure| failure.code(), |()| 0)
    }

    /// What the dispatcher has done so far.
    fn rtcore_signals_count(
        signals: *const rtcore_signals,
        counters: *mut rtcore_signals_counters,
        size: usize,
    ) -> c_int {
        // SAFETY: the header's contract.
        let counted = unsafe {
            shared(signals).and_then(|own| {
                let Counters { received, doorbells, duplicates, unhandled, calls, panics: _ } =
                    own.signals.counters();
                let counted =
                    rtcore_signals_counters { received, doorbells, duplicates, unhandled, calls };
                fill(counters, size, &counted)
            })
        };
        counted.map_or_else(|failure| failure.code(), |()| 0)
    }
}
