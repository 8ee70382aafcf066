//! `rtcore_realtime_enter`, and what a thread has done since that it should not.

use crate::arguments::{Plain, fill, options, shared, text};
use crate::error::{Failure, Misuse, failed, rtcore_error};
use crate::library;
use crate::session::rtcore_session;
use client::seal;
use client::sys::memory::{ThreadUsage, thread_usage};
use std::cell::Cell;
use std::ffi::{c_char, c_int};

/// `RTCORE_DO_NOT_LOCK`: leaves the process' memory unlocked.
const DO_NOT_LOCK: u32 = 1;

/// What the thread is to become.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct rtcore_realtime {
    pub size: usize,
    pub lane: *const c_char,
    pub below: u32,
    pub cpu: i32,
    pub flags: u32,
    pub reserved: u32,
    pub stack: usize,
    pub heap: usize,
}

// SAFETY: `repr(C)`, of integers and pointers.
unsafe impl Plain for rtcore_realtime {}

/// What the thread has done since it entered.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct rtcore_breaches {
    pub heap_calls: u64,
    pub minor_faults: u64,
    pub major_faults: u64,
    pub voluntary_switches: u64,
    pub involuntary_switches: u64,
}

// SAFETY: `repr(C)`, of integers.
unsafe impl Plain for rtcore_breaches {}

thread_local! {
    /// What the thread had done when it entered; none before. Const-initialised and without a
    /// destructor: reading it allocates nothing once it was touched.
    static ENTERED: Cell<Option<(u64, ThreadUsage)>> = const { Cell::new(None) };
}

/// # Safety
/// 1. As of `rtcore_realtime_enter`.
unsafe fn enter(
    session: *const rtcore_session,
    how: *const rtcore_realtime,
) -> Result<c_int, Failure> {
    // SAFETY: the caller's contract.
    let (session, how) = unsafe { (shared(session)?, options(how)?) };
    // SAFETY: the caller's contract.
    let lane = unsafe { text(how.lane) }?;
    if how.flags & !DO_NOT_LOCK != 0 || how.reserved != 0 {
        return Err(Misuse::Choice("flags are none of RTCORE_DO_NOT_LOCK").into());
    }
    let below = match how.below {
        0 => 1,
        // More than any lane has; it is refused with the lane's own.
        below => u8::try_from(below).unwrap_or(u8::MAX),
    };
    let mut builder = session
        .session
        .realtime()
        .below(below)
        .lock_memory(how.flags & DO_NOT_LOCK == 0)
        .prefault_stack(how.stack)
        .heap(how.heap);
    if let Some(lane) = lane {
        builder = builder.lane(lane);
    }
    if let Ok(cpu) = usize::try_from(how.cpu) {
        builder = builder.cpu(cpu);
    }
    let granted = builder.enter()?;
    library::runs_on(session.skin);
    // The last of it: what is counted begins here.
    seal::seal();
    ENTERED.set(Some((seal::breaches(), thread_usage().unwrap_or_default())));
    Ok(granted.priority().into())
}

/// # Safety
/// 1. As of `rtcore_realtime_check`.
unsafe fn check(breaches: *mut rtcore_breaches, size: usize) -> Result<(), Failure> {
    let now = thread_usage()?;
    let (heap_calls, usage) = match ENTERED.get() {
        Some((heap_calls, then)) => (seal::breaches() - heap_calls, now.since(&then)),
        None => return Err(Misuse::Choice("the thread has not entered real time").into()),
    };
    let done = rtcore_breaches {
        heap_calls,
        minor_faults: usage.minor_faults.unsigned_abs(),
        major_faults: usage.major_faults.unsigned_abs(),
        voluntary_switches: usage.voluntary_switches.unsigned_abs(),
        involuntary_switches: usage.involuntary_switches.unsigned_abs(),
    };
    // SAFETY: the caller's contract.
    unsafe { fill(breaches, size, &done) }
}

export! {
    /// Makes the calling thread a real-time one; its SCHED_FIFO priority.
    fn rtcore_realtime_enter(
        session: *mut rtcore_session,
        how: *const rtcore_realtime,
        err: *mut rtcore_error,
    ) -> c_int {
        // SAFETY: the header's contract.
        unsafe { enter(session, how).unwrap_or_else(|failure| failed(err, failure)) }
    }

    /// What the calling thread has done since it entered.
    fn rtcore_realtime_check(breaches: *mut rtcore_breaches, size: usize) -> c_int {
        // SAFETY: the header's contract.
        unsafe { check(breaches, size) }.map_or_else(|failure| failure.code(), |()| 0)
    }
}
