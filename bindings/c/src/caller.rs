//! `rtcore_caller`: a question and its answer.

use crate::arguments::{bytes, check_place, fill, give, handle, name, shared, take_back};
use crate::error::{Failure, failed, rtcore_error};
use crate::inbox::strategy;
use crate::message::rtcore_message;
use crate::session::rtcore_session;
use client::client::Caller;
use std::ffi::{c_char, c_int, c_void};

pub struct rtcore_caller {
    caller: Caller,
}

/// # Safety
/// 1. As of `rtcore_caller_open`.
unsafe fn open(
    out: *mut *mut rtcore_caller,
    session: *const rtcore_session,
    requests: *const c_char,
    answers: *const c_char,
) -> Result<(), Failure> {
    // SAFETY: the caller's contract.
    unsafe {
        let (session, requests, answers) = (shared(session)?, name(requests)?, name(answers)?);
        let caller = session.session.caller(requests, answers)?;
        give(out, rtcore_caller { caller })
    }
}

/// # Safety
/// 1. As of `rtcore_call`.
unsafe fn call(
    caller: *mut rtcore_caller,
    request: *const c_void,
    len: usize,
    reply: *mut rtcore_message,
    size: usize,
    deadline_ns: u64,
) -> Result<(), Failure> {
    check_place(reply, size)?;
    // SAFETY: the caller's contract.
    unsafe {
        let (own, request) = (handle(caller)?, bytes(request, len)?);
        let got = own.caller.call(request, deadline_ns)?;
        fill(
            reply,
            size,
            &rtcore_message::of(&got, got.bytes(), got.signal()),
        )
    }
}

export! {
    /// Requests into one endpoint, answers at another.
    fn rtcore_caller_open(
        out: *mut *mut rtcore_caller,
        session: *mut rtcore_session,
        requests: *const c_char,
        answers: *const c_char,
        err: *mut rtcore_error,
    ) -> c_int {
        // SAFETY: the header's contract.
        match unsafe { open(out, session, requests, answers) } {
            Ok(()) => 0,
            // SAFETY: the header's contract.
            Err(failure) => unsafe { failed(err, failure) },
        }
    }

    /// Gives both endpoints back.
    fn rtcore_caller_close(caller: *mut rtcore_caller) {
        // SAFETY: the header's contract.
        unsafe { take_back(caller) }
    }

    /// Sends a request and waits for its answer.
    fn rtcore_call(
        caller: *mut rtcore_caller,
        request: *const c_void,
        len: usize,
        reply: *mut rtcore_message,
        size: usize,
        deadline_ns: u64,
        err: *mut rtcore_error,
    ) -> c_int {
        // SAFETY: the header's contract.
        match unsafe { call(caller, request, len, reply, size, deadline_ns) } {
            Ok(()) => 0,
            // SAFETY: the header's contract.
            Err(failure) => unsafe { failed(err, failure) },
        }
    }

    /// Answers that came too late.
    fn rtcore_caller_late(caller: *const rtcore_caller) -> u64 {
        // SAFETY: the header's contract.
        unsafe { shared(caller) }.map_or(0, |own| own.caller.late())
    }

    /// How it waits for answers.
    fn rtcore_caller_set_wait(caller: *mut rtcore_caller, how: u32, spin_ns: u64) -> c_int {
        // SAFETY: the header's contract.
        let set = unsafe { handle(caller) }.and_then(|own| {
            own.caller.set_wait(strategy(how, spin_ns)?);
            Ok(())
        });
        set.map_or_else(|failure| failure.code(), |()| 0)
    }
}
