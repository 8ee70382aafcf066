//! `rtcore_session`: connecting, the session's state, and its events.

use crate::arguments::{Plain, check_place, fill, give, name, options, shared, take_back, text};
use crate::error::{Failure, Misuse, failed, print, rtcore_error};
use crate::message::{LastEvent, VERIFIED, rtcore_message};
use client::client::{Inbox, Incoming, Origin, Session, State};
use client::skin::{self, Skin, cobalt};
use client::sys::forked::Creator;
use std::ffi::{c_char, c_int};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// `RTCORE_SKIN_*`.
const POSIX: u32 = 0;
const COBALT: u32 = 1;

/// `RTCORE_STATE_*`.
const UP: c_int = 1;
const DOWN: c_int = 2;
const CLOSED: c_int = 3;

pub struct rtcore_session {
    pub session: Session,
    pub creator: Creator,
    pub skin: &'static Skin,
    /// Made by the first who asks for the descriptor or an event: an inbox without endpoints.
    events: Mutex<Option<Events>>,
}

struct Events {
    inbox: Inbox,
    last: LastEvent,
}

/// How to connect.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct rtcore_options {
    pub size: usize,
    pub instance: *const c_char,
    pub socket: *const c_char,
    pub timeout_ns: u64,
    pub tid: i32,
    pub skin: u32,
    pub cobalt_library: *const c_char,
}

// SAFETY: `repr(C)`, of integers and pointers.
unsafe impl Plain for rtcore_options {}

/// # Safety
/// 1. The strings of `options` are null or end with a zero byte.
unsafe fn connect(process: &str, options: &rtcore_options) -> Result<rtcore_session, Failure> {
    // SAFETY: the caller's contract, for each.
    let (instance, socket, library) = unsafe {
        (
            text(options.instance)?,
            text(options.socket)?,
            text(options.cobalt_library)?,
        )
    };
    let creator = Creator::current()?;
    let skin = match options.skin {
        POSIX => skin::posix(),
        COBALT => bound(library)?,
        _ => return Err(Misuse::Choice("options.skin is none of RTCORE_SKIN_*").into()),
    };
    let mut builder = Session::builder(process).tid(options.tid).skin(skin);
    if let Some(instance) = instance {
        builder = builder.instance(instance);
    }
    if let Some(socket) = socket {
        builder = builder.socket(socket);
    }
    if options.timeout_ns != 0 {
        builder = builder.timeout(Duration::from_nanos(options.timeout_ns));
    }
    Ok(rtcore_session {
        session: builder.connect()?,
        creator,
        skin,
        events: Mutex::new(None),
    })
}

/// The Cobalt skin, to which the process is bound once.
fn bound(library: Option<&str>) -> Result<&'static Skin, Failure> {
    static BOUND: Mutex<Option<&'static Skin>> = Mutex::new(None);
    let mut bound = BOUND.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(skin) = *bound {
        return Ok(skin);
    }
    let skin = cobalt::load(library.map(Path::new))?.bind()?;
    *bound = Some(skin);
    Ok(skin)
}

impl rtcore_session {
    fn with_events<T>(
        &self,
        work: impl FnOnce(&mut Events) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        self.creator.check()?;
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        if events.is_none() {
            *events = Some(Events {
                inbox: self.session.inbox_of(&[])?,
                last: LastEvent::new(),
            });
        }
        match events.as_mut() {
            Some(events) => work(events),
            // It was set above.
            None => Err(Misuse::NullHandle.into()),
        }
    }
}

/// # Safety
/// 1. As of `rtcore_session_take`.
unsafe fn take(
    session: *const rtcore_session,
    message: *mut rtcore_message,
    size: usize,
) -> Result<c_int, Failure> {
    check_place(message, size)?;
    // SAFETY: the caller's contract.
    let session = unsafe { shared(session) }?;
    session.with_events(|events| {
        let Some(Incoming::Event(event)) = events.inbox.try_recv()? else {
            return Ok(0);
        };
        let shown = events.last.show(&event);
        // SAFETY: the caller's contract.
        unsafe { fill(message, size, &shown) }.map(|()| 1)
    })
}

export! {
    /// Takes the name of a process.
    fn rtcore_connect(
        out: *mut *mut rtcore_session,
        process: *const c_char,
        with: *const rtcore_options,
        err: *mut rtcore_error,
    ) -> c_int {
        // SAFETY: the header's contract.
        let connected = unsafe {
            name(process).and_then(|process| connect(process, &options(with)?))
                .and_then(|session| give(out, session))
        };
        match connected {
            Ok(()) => 0,
            // SAFETY: the header's contract.
            Err(failure) => unsafe { failed(err, failure) },
        }
    }

    /// Ends the registration.
    fn rtcore_session_close(session: *mut rtcore_session) {
        // SAFETY: the header's contract.
        unsafe { take_back(session) }
    }

    /// `RTCORE_STATE_*`.
    fn rtcore_session_state(session: *const rtcore_session) -> c_int {
        // SAFETY: the header's contract.
        match unsafe { shared(session) }.map(|session| session.session.state()) {
            Ok(State::Up) => UP,
            Ok(State::Down(_)) => DOWN,
            Ok(State::Closed) => CLOSED,
            Ok(State::Forked { .. }) => -libc::ECHILD,
            Err(failure) => failure.code(),
        }
    }

    /// Why the session is down, as snprintf(3) writes it; the empty text when it is not.
    fn rtcore_session_reason(session: *const rtcore_session, buffer: *mut c_char, n: usize) -> usize {
        // SAFETY: the header's contract.
        let state = unsafe { shared(session) }.map(|session| session.session.state());
        let why = if let Ok(State::Down(why)) = state { why } else { String::new() };
        // SAFETY: the header's contract.
        unsafe { print(&why, buffer, n) }
    }

    /// A descriptor that is readable while an event waits.
    fn rtcore_session_fd(session: *const rtcore_session) -> c_int {
        // SAFETY: the header's contract.
        let fd = unsafe { shared(session) }
            .and_then(|session| session.with_events(|events| Ok(events.inbox.as_fd().as_raw_fd())));
        fd.unwrap_or_else(|failure| failure.code())
    }

    /// The next event; 1, or 0 when there is none.
    fn rtcore_session_take(
        session: *const rtcore_session,
        message: *mut rtcore_message,
        size: usize,
    ) -> c_int {
        // SAFETY: the header's contract.
        unsafe { take(session, message, size) }.unwrap_or_else(|failure| failure.code())
    }

    /// Whether a message or signal of this origin is from the process of this name.
    fn rtcore_session_is(
        session: *const rtcore_session,
        process: *const c_char,
        pid: i32,
        flags: u32,
    ) -> c_int {
        // SAFETY: the header's contract.
        let is = unsafe {
            shared(session).and_then(|session| {
                let process = name(process)?;
                session.creator.check()?;
                let verified = flags & VERIFIED != 0;
                let origin = Origin { pid: pid.cast_unsigned(), uid: u32::MAX, verified };
                Ok(session.session.is(process)(&origin))
            })
        };
        is.map_or_else(|failure| failure.code(), c_int::from)
    }
}
