//! `rtcore_error`: why a call failed, in the caller's memory.
//!
//! Constraint: an error of a real-time call is `Copy` and is stored as it is; its text is made when
//! somebody asks. Errors of the other calls become text at once, cut where the memory ends. So an
//! error needs no free, and a refused send touches no heap.
//!
//! The numbers and the `RTCORE_ERR_*` are part of the ABI: a new one takes the next number.

use client::client::signals::SignalsError;
use client::client::{
    CallError, ClaimError, ConnectError, FlushError, Gone, RealTimeError, RecvError, SendError,
};
use client::skin::cobalt::Unavailable;
use client::sys::context::errno_of;
use std::ffi::c_int;
use std::fmt::{self, Display, Write};
use std::io;
use std::ptr::addr_of_mut;

/// Bytes of a text that is stored.
const TEXT_BYTES: usize = 976;
/// "This memory has an error of ours": whatever else it holds is none.
const MARK: u32 = 0x7274_6445;

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)*) => {
        /// `RTCORE_ERR_*` of the header, in its order.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Kind { $($(#[$doc])* $name = $number,)* }

        #[cfg(test)]
        pub const KINDS: &[(&str, u32)] = &[$((stringify!($name), $number)),*];
    };
}

kinds! {
    Full = 1,
    TooLarge = 2,
    PeerDead = 3,
    Down = 4,
    Refused = 5,
    Closed = 6,
    Removed = 7,
    Forked = 8,
    Corrupt = 9,
    Timeout = 10,
    Woken = 11,
    Denied = 12,
    Unknown = 13,
    Taken = 14,
    Away = 15,
    NoInstance = 16,
    SeveralInstances = 17,
    NoDaemon = 18,
    Stranger = 19,
    Protocol = 20,
    System = 21,
    Name = 22,
    Argument = 23,
    Future = 24,
    Lane = 25,
    Priority = 26,
    Permission = 27,
    Signal = 28,
    Unblocked = 29,
    Handlers = 30,
    Skin = 31,
    Pending = 32,
}

/// An argument that no call takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misuse {
    NullHandle,
    NullBytes,
    NullName,
    Length,
    Text,
    Size,
    Future,
    /// A choice that the header does not have.
    Choice(&'static str),
    LoanOpen,
    NoLoan,
    LoanLength,
    Correlation,
    Descriptor,
    /// No registration of this number.
    Absent,
}

impl Misuse {
    fn code(self) -> c_int {
        match self {
            Misuse::NullHandle | Misuse::NullBytes | Misuse::NullName => libc::EFAULT,
            Misuse::Future => libc::E2BIG,
            Misuse::LoanOpen => libc::EBUSY,
            Misuse::Descriptor => libc::EBADF,
            Misuse::Absent => libc::ENOENT,
            _ => libc::EINVAL,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Misuse::NullHandle => "the handle is NULL: pass one that its open function returned",
            Misuse::NullBytes => {
                "a pointer to data or to a place for the result is NULL or not aligned"
            }
            Misuse::NullName => "a name is NULL",
            Misuse::Length => "a length is longer than any object: is it negative?",
            Misuse::Text => "a text is not UTF-8",
            Misuse::Size => {
                "a structure's size is smaller than this library's, or the structure is not aligned: initialise \
                 it with its RTCORE_*_INIT, pass sizeof of it, and compile with the rtcore.h of this library"
            }
            Misuse::Future => {
                "a structure has fields that this library does not know: set them to 0, or use a newer librtcore"
            }
            Misuse::Choice(what) => what,
            Misuse::LoanOpen => {
                "the sender has an open loan: call rtcore_commit or rtcore_discard first"
            }
            Misuse::NoLoan => "the sender has no open loan: call rtcore_loan first",
            Misuse::LoanLength => "the length is more than was loaned: loan as many bytes",
            Misuse::Correlation => {
                "reply_to is 0, which no request has: pass reply_to of a message that is not 0"
            }
            Misuse::Descriptor => "the descriptor is negative",
            Misuse::Absent => {
                "no callback is registered under this number: it was removed, or called once"
            }
        }
    }
}

/// Why a function returns an error.
#[derive(Debug)]
pub enum Failure {
    Misuse(Misuse),
    Send(SendError),
    Recv(RecvError),
    Call(CallError),
    Flush(FlushError),
    Connect(ConnectError),
    Claim(ClaimError),
    RealTime(RealTimeError),
    Signals(SignalsError),
    Skin(Unavailable),
    Io(io::Error),
    /// The child of a fork(2), and which process has the handle.
    Forked(u32),
}

macro_rules! from {
    ($($type:ty => $name:ident),* $(,)?) => {$(
        impl From<$type> for Failure {
            fn from(error: $type) -> Failure {
                Failure::$name(error)
            }
        }
    )*};
}
from! {
    Misuse => Misuse, SendError => Send, RecvError => Recv, CallError => Call, FlushError => Flush,
    ConnectError => Connect, ClaimError => Claim, RealTimeError => RealTime, SignalsError => Signals,
    Unavailable => Skin, io::Error => Io,
}

impl From<client::sys::forked::Forked> for Failure {
    fn from(forked: client::sys::forked::Forked) -> Failure {
        Failure::Forked(forked.creator)
    }
}

/// A positive errno and what it is.
type What = (c_int, Kind);

fn of_gone(why: Gone) -> What {
    match why {
        Gone::Down => (libc::ENETDOWN, Kind::Down),
        Gone::Refused(_) => (libc::EACCES, Kind::Refused),
        Gone::Closed => (libc::ESHUTDOWN, Kind::Closed),
        Gone::Removed => (libc::EIDRM, Kind::Removed),
        Gone::Forked(_) => (libc::ECHILD, Kind::Forked),
    }
}

fn of_send(error: &SendError) -> What {
    match error {
        SendError::Full { .. } => (libc::EAGAIN, Kind::Full),
        SendError::TooLarge { .. } => (libc::EMSGSIZE, Kind::TooLarge),
        SendError::PeerDead { .. } => (libc::EPIPE, Kind::PeerDead),
        SendError::Disconnected { why, .. } => of_gone(*why),
        SendError::Corrupt { .. } => (libc::EBADMSG, Kind::Corrupt),
    }
}

fn of_call(error: &CallError) -> What {
    match error {
        CallError::Send(error) => of_send(error),
        CallError::Timeout { .. } => (libc::ETIMEDOUT, Kind::Timeout),
        CallError::PeerDead { .. } => (libc::EPIPE, Kind::PeerDead),
        CallError::Disconnected { why, .. } => of_gone(*why),
    }
}

fn of_connect(error: &ConnectError) -> What {
    match error {
        ConnectError::Name(_) => (libc::EINVAL, Kind::Name),
        ConnectError::NoInstance => (libc::ECONNREFUSED, Kind::NoInstance),
        ConnectError::SeveralInstances { .. } => (libc::ENOTUNIQ, Kind::SeveralInstances),
        ConnectError::NoDaemon { .. } | ConnectError::NoSocket { .. } => {
            (libc::ECONNREFUSED, Kind::NoDaemon)
        }
        ConnectError::Stranger { .. } => (libc::EPERM, Kind::Stranger),
        ConnectError::Refused { .. } => (libc::EACCES, Kind::Refused),
        ConnectError::Timeout { .. } => (libc::ETIMEDOUT, Kind::Timeout),
        ConnectError::Protocol { .. } => (libc::EPROTO, Kind::Protocol),
        ConnectError::System { source, .. } => (of_io(source), Kind::System),
    }
}

fn of_claim(error: &ClaimError) -> What {
    match error {
        ClaimError::Denied { .. } => (libc::EACCES, Kind::Denied),
        ClaimError::Unknown { .. } => (libc::ENOENT, Kind::Unknown),
        ClaimError::Taken { .. } => (libc::EBUSY, Kind::Taken),
        ClaimError::Away { .. } => (libc::ENETDOWN, Kind::Away),
        ClaimError::System(_) => (libc::EIO, Kind::System),
        ClaimError::Forked { .. } => (libc::ECHILD, Kind::Forked),
    }
}

fn of_real_time(error: &RealTimeError) -> What {
    match error {
        RealTimeError::Lane { .. } => (libc::ENOENT, Kind::Lane),
        RealTimeError::Below { .. } => (libc::ERANGE, Kind::Priority),
        RealTimeError::Stack { .. } => (libc::EINVAL, Kind::Argument),
        RealTimeError::Forked { .. } => (libc::ECHILD, Kind::Forked),
        RealTimeError::Refused { source, .. } => (of_io(source), Kind::Permission),
    }
}

fn of_signals(error: &SignalsError) -> What {
    match error {
        SignalsError::Refused { .. } => (libc::EINVAL, Kind::Signal),
        SignalsError::Unblocked { .. } => (libc::EINVAL, Kind::Unblocked),
        SignalsError::Taken { .. } => (libc::EBUSY, Kind::Taken),
        SignalsError::TooMany { .. } => (libc::ENOSPC, Kind::Handlers),
        SignalsError::NoSuchHandler { .. } => (libc::ENOENT, Kind::Unknown),
        SignalsError::Forked { .. } => (libc::ECHILD, Kind::Forked),
        SignalsError::System { source, .. } => (of_io(source), Kind::System),
    }
}

/// Where only the kind of an error is known, the number that stands for it.
fn of_io(error: &io::Error) -> c_int {
    errno_of(error).unwrap_or(match error.kind() {
        io::ErrorKind::NotFound => libc::ENOENT,
        io::ErrorKind::PermissionDenied => libc::EPERM,
        io::ErrorKind::AlreadyExists => libc::EEXIST,
        io::ErrorKind::StorageFull => libc::ENOSPC,
        io::ErrorKind::InvalidInput => libc::EINVAL,
        io::ErrorKind::ConnectionReset => libc::ECONNRESET,
        _ => libc::EIO,
    })
}

impl Failure {
    fn what(&self) -> What {
        match self {
            Failure::Misuse(Misuse::Future) => (libc::E2BIG, Kind::Future),
            Failure::Misuse(misuse) => (misuse.code(), Kind::Argument),
            Failure::Send(error) => of_send(error),
            Failure::Recv(RecvError::Disconnected) => (libc::ESHUTDOWN, Kind::Closed),
            Failure::Recv(RecvError::Woken) => (libc::ECANCELED, Kind::Woken),
            Failure::Recv(RecvError::Forked { .. }) | Failure::Forked(_) => {
                (libc::ECHILD, Kind::Forked)
            }
            Failure::Call(error) => of_call(error),
            Failure::Flush(error) => {
                let why = error.why.as_ref();
                why.map_or((libc::ETIMEDOUT, Kind::Pending), of_send)
            }
            Failure::Connect(error) => of_connect(error),
            Failure::Claim(error) => of_claim(error),
            Failure::RealTime(error) => of_real_time(error),
            Failure::Signals(error) => of_signals(error),
            Failure::Skin(Unavailable::Threads(_)) => (libc::EBUSY, Kind::Skin),
            Failure::Skin(_) => (libc::ENODEV, Kind::Skin),
            Failure::Io(error) => (of_io(error), Kind::System),
        }
    }

    /// The negative errno.
    pub fn code(&self) -> c_int {
        -self.what().0
    }
}

/// What [`rtcore_error`] holds, by its `form`.
#[derive(Clone, Copy)]
#[repr(C)]
union Detail {
    send: SendError,
    recv: RecvError,
    call: CallError,
    flush: FlushError,
    misuse: Misuse,
    forked: u32,
    text: [u8; TEXT_BYTES],
}

#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
enum Form {
    Send,
    Recv,
    Call,
    Flush,
    Misuse,
    Forked,
    /// Of `text_len` bytes.
    Text,
}

/// Why the last call that failed with it did. The caller's memory, and opaque to it.
#[repr(C, align(8))]
pub struct rtcore_error {
    /// [`MARK`], where the rest holds an error.
    mark: u32,
    form: Form,
    code: c_int,
    kind: u32,
    text_len: usize,
    detail: Detail,
}

/// Bytes that the header reserves.
pub const ERROR_BYTES: usize = 1024;
const _: () = assert!(size_of::<rtcore_error>() <= ERROR_BYTES && align_of::<rtcore_error>() == 8);

/// Stores why, if the caller wants to know, and returns the negative errno.
///
/// # Safety
/// 1. `place` is null or writable.
#[cold]
pub unsafe fn failed(place: *mut rtcore_error, failure: impl Into<Failure>) -> c_int {
    let failure = failure.into();
    let (code, kind) = failure.what();
    if !place.is_null() {
        // SAFETY: the caller's contract. Only what is used is written: the memory may be
        // uninitialised, and a real-time thread has no need to touch a page of it.
        unsafe {
            addr_of_mut!((*place).mark).write(MARK);
            addr_of_mut!((*place).code).write(-code);
            addr_of_mut!((*place).kind).write(kind as u32);
            store(place, &failure);
        }
    }
    -code
}

/// # Safety
/// 1. `place` is writable.
unsafe fn store(place: *mut rtcore_error, failure: &Failure) {
    // SAFETY: the caller's contract.
    let (form, detail) = unsafe { (addr_of_mut!((*place).form), addr_of_mut!((*place).detail)) };
    let text = |words: &dyn Display| {
        let mut buffer = [0; TEXT_BYTES];
        let len = render(words, &mut buffer).min(TEXT_BYTES);
        // SAFETY: the caller's contract.
        unsafe {
            addr_of_mut!((*place).text_len).write(len);
            detail.cast::<[u8; TEXT_BYTES]>().write(buffer);
        }
        Form::Text
    };
    // SAFETY: the caller's contract; `detail` has room for each of its members.
    let as_what = unsafe {
        match failure {
            Failure::Send(error) => (detail.cast::<SendError>().write(*error), Form::Send).1,
            Failure::Recv(error) => (detail.cast::<RecvError>().write(*error), Form::Recv).1,
            Failure::Call(error) => (detail.cast::<CallError>().write(*error), Form::Call).1,
            Failure::Flush(error) => (detail.cast::<FlushError>().write(*error), Form::Flush).1,
            Failure::Misuse(misuse) => (detail.cast::<Misuse>().write(*misuse), Form::Misuse).1,
            Failure::Forked(pid) => (detail.cast::<u32>().write(*pid), Form::Forked).1,
            Failure::Connect(error) => text(error),
            Failure::Claim(error) => text(error),
            Failure::RealTime(error) => text(error),
            Failure::Signals(error) => text(error),
            Failure::Skin(error) => text(error),
            Failure::Io(error) => text(error),
        }
    };
    // SAFETY: the caller's contract.
    unsafe { form.write(as_what) };
}

/// Bytes that are filled as far as they go, and how long the whole would be.
struct Filled<'a> {
    place: &'a mut [u8],
    whole: usize,
}

impl Write for Filled<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let from = self.whole.min(self.place.len());
        let room = &mut self.place[from..];
        let len = text.len().min(room.len());
        room[..len].copy_from_slice(&text.as_bytes()[..len]);
        self.whole += text.len();
        Ok(())
    }
}

/// Writes as much as there is room for; how long the whole is. No heap.
pub fn render(words: &dyn Display, place: &mut [u8]) -> usize {
    let mut filled = Filled { place, whole: 0 };
    // It never refuses, so an error would be the value's own.
    let _ = write!(filled, "{words}");
    filled.whole
}

/// As snprintf(3): writes with a zero byte at the end, and returns how long the whole is.
///
/// # Safety
/// 1. `buffer` is null or writable for `n` bytes.
pub unsafe fn print(words: &dyn Display, buffer: *mut std::ffi::c_char, n: usize) -> usize {
    if buffer.is_null() || n == 0 || isize::try_from(n).is_err() {
        return render(words, &mut []);
    }
    // SAFETY: not null, and the caller's contract. Written before it is read.
    let place = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), n) };
    let whole = render(words, &mut place[..n - 1]);
    place[whole.min(n - 1)] = 0;
    whole
}

impl Display for rtcore_error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // SAFETY: `form` says which member was written, by `store`.
        unsafe {
            match self.form {
                Form::Send => self.detail.send.fmt(f),
                Form::Recv => self.detail.recv.fmt(f),
                Form::Call => self.detail.call.fmt(f),
                Form::Flush => self.detail.flush.fmt(f),
                Form::Misuse => f.write_str(self.detail.misuse.text()),
                Form::Forked => write!(
                    f,
                    "this process was forked from process {}, which opened the handle: open one in this process",
                    self.detail.forked
                ),
                Form::Text => {
                    let bytes = &self.detail.text[..self.text_len.min(TEXT_BYTES)];
                    match str::from_utf8(bytes) {
                        Ok(text) => f.write_str(text),
                        // Cut in the middle of a character.
                        Err(e) => f.write_str(
                            str::from_utf8(&bytes[..e.valid_up_to()]).unwrap_or_default(),
                        ),
                    }
                }
            }
        }
    }
}

/// The error in the caller's memory, if there is one.
///
/// # Safety
/// 1. `place` is null or readable.
unsafe fn stored<'a>(place: *const rtcore_error) -> Option<&'a rtcore_error> {
    if place.is_null() {
        return None;
    }
    // SAFETY: the caller's contract. Where the mark is ours, so is the rest.
    unsafe { (std::ptr::addr_of!((*place).mark).read() == MARK).then(|| &*place) }
}

export! {
    /// The negative errno of the error; 0 when there is none.
    fn rtcore_error_code(err: *const rtcore_error) -> c_int {
        // SAFETY: the header's contract.
        unsafe { stored(err) }.map_or(0, |error| error.code)
    }

    /// Its `RTCORE_ERR_*`; 0 when there is none.
    fn rtcore_error_kind(err: *const rtcore_error) -> u32 {
        // SAFETY: the header's contract.
        unsafe { stored(err) }.map_or(0, |error| error.kind)
    }

    /// Its text, as snprintf(3) writes it.
    fn rtcore_error_text(err: *const rtcore_error, buffer: *mut std::ffi::c_char, n: usize) -> usize {
        // SAFETY: the header's contract.
        unsafe {
            match stored(err) {
                Some(error) => print(error, buffer, n),
                None => print(&"no error", buffer, n),
            }
        }
    }
}
