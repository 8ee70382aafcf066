//! `rtcore_sender`: sending, loans, answers.

use crate::arguments::{array, bytes, give, handle, name, shared, take_back};
use crate::error::{Failure, Misuse, failed, rtcore_error};
use crate::session::rtcore_session;
use client::client::{Loan, ReplyTo, SendError, Sender};
use client::sys::forked::Creator;
use libc::iovec;
use std::ffi::{c_char, c_int, c_void};
use std::ptr::null_mut;

/// Invariant: `loan` borrows `*sender`, so the sender is not used while there is one.
pub struct rtcore_sender {
    loan: Option<Loan<'static>>,
    /// Of a `Box`, which is freed when this is dropped.
    sender: *mut Sender,
    creator: Creator,
    msgsize: usize,
}

impl Drop for rtcore_sender {
    fn drop(&mut self) {
        self.loan = None;
        // SAFETY: `open` leaked it, and nothing borrows it any more.
        drop(unsafe { Box::from_raw(self.sender) });
    }
}

impl rtcore_sender {
    /// The sender, if no loan borrows it.
    #[inline]
    fn free(&mut self) -> Result<&mut Sender, Failure> {
        if self.loan.is_some() {
            return Err(Misuse::LoanOpen.into());
        }
        // SAFETY: not null, ours alone, and not borrowed (above).
        Ok(unsafe { &mut *self.sender })
    }

    fn lend(&mut self, len: usize) -> Result<&mut Loan<'static>, Failure> {
        self.free()?;
        // SAFETY: as in `free`. The loan ends before the sender: see the invariant.
        let sender: &'static mut Sender = unsafe { &mut *self.sender };
        let loan = sender.loan(len)?;
        Ok(self.loan.insert(loan))
    }

    /// The open loan, as a message of this length.
    fn closed(&mut self, len: usize) -> Result<Loan<'static>, Failure> {
        // In a child the loan is empty, whatever its length was.
        self.creator.check()?;
        match self.loan.take() {
            None => Err(Misuse::NoLoan.into()),
            Some(loan) if loan.len() < len => {
                self.loan = Some(loan);
                Err(Misuse::LoanLength.into())
            }
            Some(mut loan) => {
                loan.truncate(len);
                Ok(loan)
            }
        }
    }

    /// One message of several pieces.
    ///
    /// # Safety
    /// 1. The pieces are readable.
    unsafe fn gather(&mut self, pieces: &[iovec]) -> Result<u64, Failure> {
        let whole = pieces
            .iter()
            .try_fold(0_usize, |sum, piece| sum.checked_add(piece.iov_len))
            .ok_or(Misuse::Length)?;
        let place = self.lend(whole)?;
        let mut rest = &mut place[..];
        for piece in pieces {
            // SAFETY: the caller's contract.
            let from = match unsafe { bytes(piece.iov_base, piece.iov_len) } {
                Ok(from) if from.len() <= rest.len() => from,
                // The sum was checked, so it is the pointer; or a forked child, whose loan is empty.
                other => {
                    self.loan = None;
                    other?;
                    return Err(Misuse::LoanLength.into());
                }
            };
            let (to, behind) = rest.split_at_mut(from.len());
            to.copy_from_slice(from);
            rest = behind;
        }
        Ok(self.closed(whole)?.commit()?)
    }
}

/// # Safety
/// 1. As of `rtcore_sender_open`.
unsafe fn open(
    out: *mut *mut rtcore_sender,
    session: *const rtcore_session,
    endpoint: *const c_char,
) -> Result<(), Failure> {
    // SAFETY: the caller's contract.
    let (session, endpoint) = unsafe { (shared(session)?, name(endpoint)?) };
    let sender = session.session.sender(endpoint)?;
    let msgsize = sender.channel().payload_bytes as usize;
    let sender = Box::into_raw(Box::new(sender));
    let handle = rtcore_sender {
        loan: None,
        sender,
        creator: session.creator,
        msgsize,
    };
    // SAFETY: the caller's contract.
    unsafe { give(out, handle) }
}

/// A message's number, or the negative errno.
///
/// # Safety
/// 1. `err` is null or writable.
#[inline]
unsafe fn numbered(sent: Result<u64, Failure>, err: *mut rtcore_error) -> i64 {
    match sent {
        Ok(number) => number.cast_signed(),
        // SAFETY: the caller's contract.
        Err(failure) => unsafe { failed(err, failure) }.into(),
    }
}

/// A send of bytes.
///
/// # Safety
/// 1. As of `rtcore_send`.
#[inline]
unsafe fn put(
    sender: *mut rtcore_sender,
    data: *const c_void,
    len: usize,
    err: *mut rtcore_error,
    put: impl FnOnce(&mut Sender, &[u8]) -> Result<u64, SendError>,
) -> i64 {
    // SAFETY: the caller's contract.
    unsafe {
        let sent = handle(sender).and_then(|own| {
            let data = bytes(data, len)?;
            Ok(put(own.free()?, data)?)
        });
        numbered(sent, err)
    }
}

fn reply_to(correlation: u64) -> Result<ReplyTo, Failure> {
    ReplyTo::new(correlation).ok_or(Failure::Misuse(Misuse::Correlation))
}

/// # Safety
/// 1. As of `rtcore_send_batch`.
unsafe fn batch(
    sender: *mut rtcore_sender,
    messages: *const iovec,
    count: usize,
    err: *mut rtcore_error,
) -> Result<isize, Failure> {
    // SAFETY: the caller's contract.
    let (own, messages) = unsafe { (handle(sender)?, array(messages, count)?) };
    // All are checked before the first goes.
    for message in messages {
        // SAFETY: the caller's contract.
        unsafe { bytes(message.iov_base, message.iov_len) }?;
    }
    let slices = messages.iter().map(|message| {
        // SAFETY: the caller's contract; checked above, so there is no error.
        unsafe { bytes(message.iov_base, message.iov_len) }.unwrap_or_default()
    });
    let done = own.free()?.send_batch(slices);
    match done.error {
        Some(error) if done.sent == 0 => Err(error.into()),
        error => {
            if let Some(error) = error {
                // SAFETY: the caller's contract.
                unsafe { failed(err, error) };
            }
            Ok(done.sent.cast_signed())
        }
    }
}

export! {
    /// The sending end of an endpoint of its own.
    fn rtcore_sender_open(
        out: *mut *mut rtcore_sender,
        session: *mut rtcore_session,
        endpoint: *const c_char,
        err: *mut rtcore_error,
    ) -> c_int {
        // SAFETY: the header's contract.
        match unsafe { open(out, session, endpoint) } {
            Ok(()) => 0,
            // SAFETY: the header's contract.
            Err(failure) => unsafe { failed(err, failure) },
        }
    }

    /// Gives the endpoint back to the session.
    fn rtcore_sender_close(sender: *mut rtcore_sender) {
        // SAFETY: the header's contract.
        unsafe { take_back(sender) }
    }

    /// Waits until somebody can receive.
    fn rtcore_sender_wait(sender: *mut rtcore_sender, deadline_ns: u64, err: *mut rtcore_error) -> c_int {
        // SAFETY: the header's contract.
        unsafe {
            let waited = handle(sender).and_then(|own| Ok(own.free()?.wait_for_receiver(deadline_ns)?));
            waited.map_or_else(|failure| failed(err, failure), |()| 0)
        }
    }

    /// Sends, and waits for room as long as the route allows.
    fn rtcore_send(sender: *mut rtcore_sender, data: *const c_void, len: usize, err: *mut rtcore_error) -> i64 {
        // SAFETY: the header's contract.
        unsafe { put(sender, data, len, err, Sender::send) }
    }

    /// Sends if there is room.
    fn rtcore_try_send(sender: *mut rtcore_sender, data: *const c_void, len: usize, err: *mut rtcore_error) -> i64 {
        // SAFETY: the header's contract.
        unsafe { put(sender, data, len, err, Sender::try_send) }
    }

    /// Sends what should have been sent at that time.
    fn rtcore_send_at(
        sender: *mut rtcore_sender,
        intended_ns: u64,
        data: *const c_void,
        len: usize,
        err: *mut rtcore_error,
    ) -> i64 {
        // SAFETY: the header's contract.
        unsafe { put(sender, data, len, err, |sender, data| sender.send_at(intended_ns, data)) }
    }

    /// Sends one message of several pieces, if there is room.
    fn rtcore_send_vec(
        sender: *mut rtcore_sender,
        pieces: *const iovec,
        count: usize,
        err: *mut rtcore_error,
    ) -> i64 {
        // SAFETY: the header's contract.
        unsafe {
            let sent = handle(sender).and_then(|own| own.gather(array(pieces, count)?));
            numbered(sent, err)
        }
    }

    /// Sends several messages; how many went.
    fn rtcore_send_batch(
        sender: *mut rtcore_sender,
        messages: *const iovec,
        count: usize,
        err: *mut rtcore_error,
    ) -> isize {
        // SAFETY: the header's contract.
        unsafe { batch(sender, messages, count, err).unwrap_or_else(|failure| failed(err, failure) as isize) }
    }

    /// A slot to write into.
    fn rtcore_loan(sender: *mut rtcore_sender, len: usize, err: *mut rtcore_error) -> *mut c_void {
        // SAFETY: the header's contract.
        unsafe {
            match handle(sender).and_then(|own| own.lend(len)) {
                Ok(loan) => loan.as_mut_ptr().cast(),
                Err(failure) => {
                    failed(err, failure);
                    null_mut()
                }
            }
        }
    }

    /// Sends the loan's first bytes.
    fn rtcore_commit(sender: *mut rtcore_sender, len: usize, err: *mut rtcore_error) -> i64 {
        // SAFETY: the header's contract.
        unsafe {
            let sent = handle(sender).and_then(|own| Ok(own.closed(len)?.commit()?));
            numbered(sent, err)
        }
    }

    /// The same of what should have been sent at that time.
    fn rtcore_commit_at(sender: *mut rtcore_sender, intended_ns: u64, len: usize, err: *mut rtcore_error) -> i64 {
        // SAFETY: the header's contract.
        unsafe {
            let sent = handle(sender).and_then(|own| Ok(own.closed(len)?.commit_at(intended_ns)?));
            numbered(sent, err)
        }
    }

    /// The same as the answer to a request.
    fn rtcore_commit_reply(sender: *mut rtcore_sender, to: u64, len: usize, err: *mut rtcore_error) -> i64 {
        // SAFETY: the header's contract.
        unsafe {
            let sent = handle(sender).and_then(|own| {
                let to = reply_to(to)?;
                Ok(own.closed(len)?.commit_reply(to)?)
            });
            numbered(sent, err)
        }
    }

    /// Sends nothing of the loan.
    fn rtcore_discard(sender: *mut rtcore_sender) {
        // SAFETY: the header's contract.
        if let Ok(own) = unsafe { handle(sender) } {
            own.loan = None;
        }
    }

    /// Answers a request.
    fn rtcore_reply(
        sender: *mut rtcore_sender,
        to: u64,
        data: *const c_void,
        len: usize,
        err: *mut rtcore_error,
    ) -> i64 {
        // SAFETY: the header's contract.
        match reply_to(to) {
            // SAFETY: the header's contract.
            Ok(to) => unsafe { put(sender, data, len, err, |sender, data| sender.reply(to, data)) },
            // SAFETY: the header's contract.
            Err(failure) => unsafe { numbered(Err(failure), err) },
        }
    }

    /// Messages that nobody has taken yet.
    fn rtcore_sender_pending(sender: *mut rtcore_sender) -> i64 {
        // SAFETY: the header's contract.
        let pending = unsafe { handle(sender) }.and_then(|own| {
            own.creator.check()?;
            Ok(own.free()?.pending())
        });
        pending.map_or_else(|failure| failure.code().into(), u64::cast_signed)
    }

    /// Waits until all are taken.
    fn rtcore_flush(sender: *mut rtcore_sender, deadline_ns: u64, err: *mut rtcore_error) -> c_int {
        // SAFETY: the header's contract.
        unsafe {
            let flushed = handle(sender).and_then(|own| Ok(own.free()?.flush(deadline_ns)?));
            flushed.map_or_else(|failure| failed(err, failure), |()| 0)
        }
    }

    /// Bytes of the largest message.
    fn rtcore_sender_msgsize(sender: *const rtcore_sender) -> usize {
        // SAFETY: the header's contract.
        unsafe { shared(sender) }.map_or(0, |own| own.msgsize)
    }
}
