//! `rtcore_signal_source`: signals behind a descriptor, for a program with a loop of its own.

use crate::arguments::{array, check_place, fill, give, shared, take_back};
use crate::error::{Failure, failed, rtcore_error};
use crate::message::verified;
use crate::signals::{PLAIN, rtcore_notice};
use client::client::waiter::SignalSource;
use client::sys::clock::monotonic_ns;
use client::sys::forked::Creator;
use std::ffi::c_int;
use std::os::fd::{AsFd, AsRawFd};

pub struct rtcore_signal_source {
    source: SignalSource,
    creator: Creator,
}

/// # Safety
/// 1. As of `rtcore_signal_source_open`.
unsafe fn open(
    out: *mut *mut rtcore_signal_source,
    signals: *const c_int,
    n: usize,
) -> Result<(), Failure> {
    // SAFETY: the caller's contract.
    let signals = unsafe { array(signals, n) }?;
    let handle = rtcore_signal_source {
        source: SignalSource::new(signals.iter().copied())?,
        creator: Creator::current()?,
    };
    // SAFETY: the caller's contract.
    unsafe { give(out, handle) }
}

/// # Safety
/// 1. As of `rtcore_signal_source_take`.
unsafe fn take(
    source: *const rtcore_signal_source,
    notice: *mut rtcore_notice,
    size: usize,
) -> Result<c_int, Failure> {
    check_place(notice, size)?;
    // SAFETY: the caller's contract.
    let own = unsafe { shared(source) }?;
    own.creator.check()?;
    let Some(got) = own.source.take() else {
        return Ok(0);
    };
    let taken = rtcore_notice {
        signo: got.signo,
        flags: verified(got.kernel_wrote_origin),
        value: got.value,
        pid: got.pid.cast_signed(),
        uid: got.uid,
        received_ns: monotonic_ns(),
        ..PLAIN
    };
    // SAFETY: the caller's contract.
    unsafe { fill(notice, size, &taken) }.map(|()| 1)
}

export! {
    /// Takes these signals from now on.
    fn rtcore_signal_source_open(
        out: *mut *mut rtcore_signal_source,
        signals: *const c_int,
        n: usize,
        err: *mut rtcore_error,
    ) -> c_int {
        // SAFETY: the header's contract.
        unsafe { open(out, signals, n).map_or_else(|failure| failed(err, failure), |()| 0) }
    }

    /// Others may take them.
    fn rtcore_signal_source_close(source: *mut rtcore_signal_source) {
        // SAFETY: the header's contract.
        unsafe { take_back(source) }
    }

    /// A descriptor that is readable while one is pending.
    fn rtcore_signal_source_fd(source: *const rtcore_signal_source) -> c_int {
        // SAFETY: the header's contract.
        let fd = unsafe { shared(source) }.and_then(|own| {
            own.creator.check()?;
            Ok(own.source.as_fd().as_raw_fd())
        });
        fd.unwrap_or_else(|failure| failure.code())
    }

    /// The next that is pending; 1, or 0 when there is none.
    fn rtcore_signal_source_take(
        source: *const rtcore_signal_source,
        notice: *mut rtcore_notice,
        size: usize,
    ) -> c_int {
        // SAFETY: the header's contract.
        unsafe { take(source, notice, size) }.unwrap_or_else(|failure| failure.code())
    }
}
