//! `rtcore_waiter`: one wait for many descriptors, in the order of priorities.

use crate::arguments::{give, handle, take_back};
use crate::error::{Failure, Misuse};
use client::client::waiter::{Interest, Ready, Waiter};
use client::sys::forked::Creator;
use std::ffi::c_int;
use std::os::fd::BorrowedFd;

/// `RTCORE_READABLE`, `RTCORE_WRITABLE`, `RTCORE_HANGUP`.
const READABLE: u32 = 1;
const WRITABLE: u32 = 2;
const HANGUP: u32 = 4;

pub struct rtcore_waiter {
    waiter: Waiter,
    creator: Creator,
}

/// One thing that is ready. It does not grow.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct rtcore_ready {
    pub key: u64,
    pub priority: u32,
    pub flags: u32,
}

fn of(ready: &Ready) -> rtcore_ready {
    let flag = |is: bool, bit: u32| if is { bit } else { 0 };
    rtcore_ready {
        key: ready.key,
        priority: ready.priority.into(),
        flags: flag(ready.readable, READABLE)
            | flag(ready.writable, WRITABLE)
            | flag(ready.hangup, HANGUP),
    }
}

/// # Safety
/// 1. As of `rtcore_waiter_add_fd`.
unsafe fn add(
    waiter: *mut rtcore_waiter,
    fd: c_int,
    key: u64,
    priority: u8,
    interest: u32,
) -> Result<(), Failure> {
    // SAFETY: the caller's contract.
    let own = unsafe { handle(waiter) }?;
    own.creator.check()?;
    let interest = match interest {
        READABLE => Interest::Readable,
        WRITABLE => Interest::Writable,
        _ => return Err(Misuse::Choice("interest is RTCORE_READABLE or RTCORE_WRITABLE").into()),
    };
    if fd < 0 {
        return Err(Misuse::Descriptor.into());
    }
    // SAFETY: not negative; a number that is no descriptor is the kernel's to refuse.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    Ok(own.waiter.add(&fd, key, priority, interest)?)
}

/// # Safety
/// 1. As of `rtcore_wait`.
unsafe fn wait(
    waiter: *mut rtcore_waiter,
    array: *mut rtcore_ready,
    n: usize,
    deadline_ns: u64,
) -> Result<isize, Failure> {
    // SAFETY: the caller's contract.
    let own = unsafe { handle(waiter) }?;
    own.creator.check()?;
    if n == 0 || array.is_null() || !array.is_aligned() {
        return Err(Misuse::NullBytes.into());
    }
    let deadline_ns = (deadline_ns != u64::MAX).then_some(deadline_ns);
    let ready = own.waiter.wait(deadline_ns)?;
    for (at, ready) in ready.iter().take(n).enumerate() {
        // SAFETY: the caller's contract: `at` is below `n`.
        unsafe { array.add(at).write(of(ready)) };
    }
    Ok(ready.len().min(n).cast_signed())
}

export! {
    /// An empty set with room for so many.
    fn rtcore_waiter_open(out: *mut *mut rtcore_waiter, capacity: usize) -> c_int {
        let waiter = Waiter::with_capacity(capacity)
            .and_then(|waiter| Ok(rtcore_waiter { waiter, creator: Creator::current()? }));
        // SAFETY: the header's contract.
        let given = waiter.map_err(Failure::from).and_then(|waiter| unsafe { give(out, waiter) });
        given.map_or_else(|failure| failure.code(), |()| 0)
    }

    /// Ends it; the descriptors are the caller's.
    fn rtcore_waiter_close(waiter: *mut rtcore_waiter) {
        // SAFETY: the header's contract.
        unsafe { take_back(waiter) }
    }

    /// Waits for this, too.
    fn rtcore_waiter_add_fd(
        waiter: *mut rtcore_waiter,
        fd: c_int,
        key: u64,
        priority: u8,
        interest: u32,
    ) -> c_int {
        // SAFETY: the header's contract.
        let added = unsafe { add(waiter, fd, key, priority, interest) };
        added.map_or_else(|failure| failure.code(), |()| 0)
    }

    /// Does not wait for this any more.
    fn rtcore_waiter_remove(waiter: *mut rtcore_waiter, key: u64) -> c_int {
        // SAFETY: the header's contract.
        let removed = unsafe { handle(waiter) }.and_then(|own| {
            own.creator.check()?;
            Ok(own.waiter.remove(key)?)
        });
        removed.map_or_else(|failure| failure.code(), |()| 0)
    }

    /// Waits until something is ready; how many.
    fn rtcore_wait(
        waiter: *mut rtcore_waiter,
        array: *mut rtcore_ready,
        n: usize,
        deadline_ns: u64,
    ) -> isize {
        // SAFETY: the header's contract.
        let ready = unsafe { wait(waiter, array, n, deadline_ns) };
        ready.unwrap_or_else(|failure| failure.code() as isize)
    }
}
