//! `rtcore_inbox`: receiving, in place and by copy; waking it from another thread.

use crate::arguments::{Plain, array, check_place, fill, give, name, shared, take_back};
use crate::error::{Failure, Misuse, failed, rtcore_error};
use crate::message::{LastEvent, rtcore_message};
use crate::session::rtcore_session;
use client::client::message::InPlace;
use client::client::{Inbox, Incoming, Message, Wait, Waker};
use std::cell::UnsafeCell;
use std::ffi::{c_char, c_int};
use std::os::fd::{AsFd, AsRawFd};

/// `RTCORE_WAIT_*`.
const BLOCK: u32 = 0;
const SPIN: u32 = 1;
const POLL: u32 = 2;

/// One that has passed: look, do not wait.
const NOW: u64 = 0;

/// Any thread may use the waker; the rest is of the one thread that receives.
pub struct rtcore_inbox {
    waker: Waker,
    own: UnsafeCell<Own>,
}

/// Invariant: `shown` borrows `*inbox`, so the inbox is not used while there is one.
struct Own {
    shown: Option<InPlace<'static>>,
    /// Of a `Box`, which is freed when this is dropped.
    inbox: *mut Inbox,
    last: LastEvent,
}

impl Drop for Own {
    fn drop(&mut self) {
        self.shown = None;
        // SAFETY: `open` leaked it, and nothing borrows it any more.
        drop(unsafe { Box::from_raw(self.inbox) });
    }
}

impl Own {
    /// The inbox, after what was shown of it is given back.
    #[inline]
    fn free(&mut self) -> &mut Inbox {
        self.shown = None;
        // SAFETY: not null, ours alone, and not borrowed any more.
        unsafe { &mut *self.inbox }
    }

    #[inline]
    fn recv(&mut self, deadline_ns: u64) -> Result<Option<rtcore_message>, Failure> {
        let inbox = self.free();
        let incoming = match deadline_ns {
            NOW => inbox.try_recv()?,
            u64::MAX => Some(inbox.recv()?),
            _ => inbox.recv_deadline(deadline_ns)?,
        };
        Ok(match incoming {
            None => None,
            Some(Incoming::Message(message)) => Some(of(&message)),
            Some(Incoming::Event(event)) => Some(self.last.show(&event)),
        })
    }

    fn peek(&mut self, deadline_ns: u64) -> Result<Option<rtcore_message>, Failure> {
        self.shown = None;
        // SAFETY: as in `free`. What is shown ends before the inbox: see the invariant.
        let inbox: &'static mut Inbox = unsafe { &mut *self.inbox };
        let incoming = match deadline_ns {
            NOW => inbox.try_recv_in_place()?,
            _ => inbox.recv_in_place_deadline(deadline_ns)?,
        };
        Ok(match incoming {
            None => None,
            Some(Incoming::Event(event)) => Some(self.last.show(&event)),
            Some(Incoming::Message(message)) => {
                let shown = self.shown.insert(message);
                // SAFETY: the header says what the sender of a direct route may do meanwhile; the
                // bytes are passed on as a pointer and not read here.
                let bytes = unsafe { shown.bytes() };
                Some(rtcore_message::of(shown, bytes, None))
            }
        })
    }
}

#[inline]
fn of(message: &Message<'_>) -> rtcore_message {
    rtcore_message::of(message, message.bytes(), message.signal())
}

/// What an inbox has seen.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct rtcore_inbox_counters {
    pub received: u64,
    pub duplicates: u64,
    pub missed: u64,
    pub expired: u64,
    pub superseded: u64,
    pub late: u64,
    pub torn: u64,
    pub corrupt: u64,
    pub events_lost: u64,
}

// SAFETY: `repr(C)`, of integers.
unsafe impl Plain for rtcore_inbox_counters {}

/// `RTCORE_WAIT_*` and its time.
pub fn strategy(how: u32, spin_ns: u64) -> Result<Wait, Failure> {
    match how {
        BLOCK => Ok(Wait::Block),
        SPIN => Ok(Wait::Spin { spin_ns }),
        POLL => Ok(Wait::Poll),
        _ => Err(Misuse::Choice("the way to wait is none of RTCORE_WAIT_*").into()),
    }
}

/// # Safety
/// 1. As of `rtcore_inbox_open`.
unsafe fn open(
    out: *mut *mut rtcore_inbox,
    session: *const rtcore_session,
    endpoints: *const *const c_char,
    n: usize,
) -> Result<(), Failure> {
    // SAFETY: the caller's contract.
    let (session, endpoints) = unsafe { (shared(session)?, array(endpoints, n)?) };
    let inbox = if endpoints.is_empty() {
        session.session.inbox()?
    } else {
        let mut names = Vec::with_capacity(endpoints.len());
        for endpoint in endpoints {
            // SAFETY: the caller's contract.
            names.push(unsafe { name(*endpoint) }?);
        }
        session.session.inbox_of(&names)?
    };
    let waker = inbox.waker();
    let own = Own {
        shown: None,
        inbox: Box::into_raw(Box::new(inbox)),
        last: LastEvent::new(),
    };
    let handle = rtcore_inbox {
        waker,
        own: UnsafeCell::new(own),
    };
    // SAFETY: the caller's contract.
    unsafe { give(out, handle) }
}

/// What belongs to the thread that receives.
///
/// # Safety
/// 1. Null, or an inbox that no other thread uses meanwhile, except to wake it.
#[inline]
unsafe fn own<'a>(inbox: *const rtcore_inbox) -> Result<&'a mut Own, Failure> {
    // SAFETY: the caller's contract.
    unsafe { shared(inbox).map(|inbox| &mut *inbox.own.get()) }
}

/// A receiving call: 1, 0 or the negative errno.
///
/// # Safety
/// 1. As of `rtcore_recv`.
#[inline]
unsafe fn received(
    inbox: *const rtcore_inbox,
    message: *mut rtcore_message,
    size: usize,
    err: *mut rtcore_error,
    call: impl FnOnce(&mut Own) -> Result<Option<rtcore_message>, Failure>,
) -> c_int {
    // SAFETY: the caller's contract.
    unsafe {
        // First: a message that found no place would be lost.
        let got = check_place(message, size)
            .and_then(|()| own(inbox))
            .and_then(call);
        match got {
            Ok(None) => 0,
            Ok(Some(got)) => match fill(message, size, &got) {
                Ok(()) => 1,
                Err(failure) => failed(err, failure),
            },
            Err(failure) => failed(err, failure),
        }
    }
}

export! {
    /// An inbox of these endpoints, or of all that no other inbox has.
    fn rtcore_inbox_open(
        out: *mut *mut rtcore_inbox,
        session: *mut rtcore_session,
        endpoints: *const *const c_char,
        n: usize,
        err: *mut rtcore_error,
    ) -> c_int {
        // SAFETY: the header's contract.
        match unsafe { open(out, session, endpoints, n) } {
            Ok(()) => 0,
            // SAFETY: the header's contract.
            Err(failure) => unsafe { failed(err, failure) },
        }
    }

    /// Gives its channels back to the session.
    fn rtcore_inbox_close(inbox: *mut rtcore_inbox) {
        // SAFETY: the header's contract.
        unsafe { take_back(inbox) }
    }

    /// Waits for what comes next.
    fn rtcore_recv(
        inbox: *mut rtcore_inbox,
        message: *mut rtcore_message,
        size: usize,
        deadline_ns: u64,
        err: *mut rtcore_error,
    ) -> c_int {
        // SAFETY: the header's contract.
        unsafe { received(inbox, message, size, err, |own| own.recv(deadline_ns)) }
    }

    /// What is there.
    fn rtcore_try_recv(
        inbox: *mut rtcore_inbox,
        message: *mut rtcore_message,
        size: usize,
        err: *mut rtcore_error,
    ) -> c_int {
        // SAFETY: the header's contract.
        unsafe { received(inbox, message, size, err, |own| own.recv(NOW)) }
    }

    /// What comes next, where its sender wrote it.
    fn rtcore_peek(
        inbox: *mut rtcore_inbox,
        message: *mut rtcore_message,
        size: usize,
        deadline_ns: u64,
        err: *mut rtcore_error,
    ) -> c_int {
        // SAFETY: the header's contract.
        unsafe { received(inbox, message, size, err, |own| own.peek(deadline_ns)) }
    }

    /// Gives back what `rtcore_peek` showed.
    fn rtcore_release(inbox: *mut rtcore_inbox) {
        // SAFETY: the header's contract.
        if let Ok(own) = unsafe { own(inbox) } {
            own.shown = None;
        }
    }

    /// A descriptor that is readable while something is there.
    fn rtcore_inbox_fd(inbox: *mut rtcore_inbox) -> c_int {
        // SAFETY: the header's contract.
        let fd = unsafe { own(inbox) }.map(|own| own.free().as_fd().as_raw_fd());
        fd.unwrap_or_else(|failure| failure.code())
    }

    /// How it waits.
    fn rtcore_inbox_set_wait(inbox: *mut rtcore_inbox, how: u32, spin_ns: u64) -> c_int {
        // SAFETY: the header's contract.
        let set = unsafe { own(inbox) }.and_then(|own| {
            own.free().set_wait(strategy(how, spin_ns)?);
            Ok(())
        });
        set.map_or_else(|failure| failure.code(), |()| 0)
    }

    /// Ends a receiving call, or the next one.
    fn rtcore_inbox_wake(inbox: *const rtcore_inbox) -> c_int {
        // SAFETY: the header's contract.
        let woken = unsafe { shared(inbox) }.and_then(|inbox| Ok(inbox.waker.wake()?));
        woken.map_or_else(|failure| failure.code(), |()| 0)
    }

    /// What it has seen so far.
    fn rtcore_inbox_count(inbox: *mut rtcore_inbox, counters: *mut rtcore_inbox_counters, size: usize) -> c_int {
        // SAFETY: the header's contract.
        let counted = unsafe {
            own(inbox).and_then(|own| {
                let seen = own.free().counters();
                let seen = rtcore_inbox_counters {
                    received: seen.received,
                    duplicates: seen.duplicates,
                    missed: seen.missed,
                    expired: seen.expired,
                    superseded: seen.superseded,
                    late: seen.late,
                    torn: seen.torn,
                    corrupt: seen.corrupt,
                    events_lost: seen.events_lost,
                };
                fill(counters, size, &seen)
            })
        };
        counted.map_or_else(|failure| failure.code(), |()| 0)
    }
}
