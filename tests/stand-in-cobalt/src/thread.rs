//! Cobalt threads: which are, how one becomes one, which mode it is in.

use crate::shared::{Shared, Thread};
use crate::{Core, checked, follow, init, or_number, switch};
use libc::{c_char, c_int, c_void, pthread_attr_t, pthread_t, sched_param};
use std::cell::{Cell, RefCell};
use std::sync::mpsc;

const RELAXED: c_int = 0x80;
/// Cobalt's own range is wider than Linux's 99.
const PRIORITY_MAX: c_int = 256;

/// What a thread knows of itself; gone from the tables when the thread ends.
struct Me {
    tid: i32,
    relaxed: Cell<bool>,
    calls: Cell<u32>,
}

impl Drop for Me {
    fn drop(&mut self) {
        // A forked child has its parent's, under the parent's number.
        follow::end();
        if let (true, Ok(shared)) = (self.tid == tid(), init::bound()) {
            shared.lock().remove(self.tid);
        }
    }
}

thread_local! {
    static ME: RefCell<Option<Me>> = const { RefCell::new(None) };
}

/// Kernel id of the calling thread.
pub(crate) fn tid() -> i32 {
    // SAFETY: takes nothing.
    unsafe { libc::gettid() }
}

/// Id of this process.
pub(crate) fn pid() -> i32 {
    // SAFETY: takes nothing.
    unsafe { libc::getpid() }
}

fn with_me<T>(what: impl FnOnce(&Me) -> T) -> Option<T> {
    let tid = tid();
    ME.with_borrow(|me| me.as_ref().filter(|me| me.tid == tid).map(what))
}

/// Enters a primary call: the memory and the thread's id. EPERM for a thread that is not Cobalt's.
pub(crate) fn primary() -> Core<(&'static Shared, i32)> {
    let shared = init::bound()?;
    follow::set_primary(true);
    let tid = with_me(|me| {
        let calls = me.calls.get().wrapping_add(1);
        me.calls.set(calls);
        let every = switch::get().relax_every;
        me.relaxed.set(every != 0 && calls.is_multiple_of(every));
        me.tid
    });
    Ok((shared, tid.ok_or(libc::EPERM)?))
}

/// Leaves a primary call: a Linux signal that ended it has taken the thread out of its mode.
pub(crate) fn left<T>(result: Core<T>) -> Core<T> {
    if result.as_ref().err() == Some(&libc::EINTR) {
        follow::set_primary(false);
        with_me(|me| me.relaxed.set(true));
    }
    result
}

/// Enters a secondary call.
pub(crate) fn secondary() -> Core<&'static Shared> {
    let shared = init::bound()?;
    follow::set_primary(false);
    with_me(|me| me.relaxed.set(true));
    Ok(shared)
}

/// Makes the calling thread a Cobalt thread.
pub(crate) fn promote() -> Core<()> {
    let shared = init::bound()?;
    let switches = switch::get();
    let is_main = tid() == pid();
    let failing = if is_main {
        switches.promote
    } else {
        switches.promote.max(switches.promote_others)
    };
    if failing != 0 {
        return Err(failing);
    }
    follow::set_primary(true);
    if with_me(|me| me.relaxed.set(false)).is_some() {
        return Ok(());
    }
    let tid = tid();
    // SAFETY: takes nothing.
    let entry: *const Thread = shared.lock().add(tid, unsafe { libc::pthread_self() })?;
    if switches.follow {
        // SAFETY: the entry is in memory that is mapped for good (`space`), this thread's until it
        // ends.
        follow::begin(unsafe { &*entry });
    }
    // What a forked child inherited is dropped here and leaves the parent's entry alone.
    ME.set(Some(Me {
        tid,
        relaxed: Cell::new(false),
        calls: Cell::new(0),
    }));
    Ok(())
}

#[unsafe(no_mangle)]
extern "C" fn cobalt_thread_mode() -> c_int {
    let relaxed = init::bound()
        .ok()
        .and_then(|_| with_me(|me| me.relaxed.get()));
    let relaxed = relaxed.unwrap_or(true) || follow::was_relaxed();
    follow::leave();
    if relaxed { RELAXED } else { 0 }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __cobalt_pthread_setschedparam(
    thread: pthread_t,
    policy: c_int,
    param: *const sched_param,
) -> c_int {
    or_number((|| {
        init::bound()?;
        // SAFETY: the caller's statement (pthread_setschedparam(3)).
        let mut param = unsafe { *param };
        let lowest = c_int::from(matches!(policy, libc::SCHED_FIFO | libc::SCHED_RR));
        if !(lowest..=PRIORITY_MAX).contains(&param.sched_priority) {
            return Err(libc::EINVAL);
        }
        param.sched_priority = param.sched_priority.min(99);
        // SAFETY: a thread of the caller's and an initialised parameter.
        match unsafe { libc::pthread_setschedparam(thread, policy, &param) } {
            0 => {}
            errno => return Err(errno),
        }
        // SAFETY: takes nothing.
        if thread == unsafe { libc::pthread_self() } {
            promote()
        } else {
            Ok(())
        }
    })())
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __cobalt_pthread_setname_np(thread: pthread_t, name: *const c_char) -> c_int {
    // SAFETY: the caller's statement. A name longer than Linux's 15 bytes is ERANGE there and cut
    // here.
    or_number(
        init::bound()
            .and_then(|shared| shared.lock().find_pthread(thread))
            .map(|_| unsafe {
                libc::pthread_setname_np(thread, name);
            }),
    )
}

/// What a new thread needs.
struct Start {
    routine: extern "C" fn(*mut c_void) -> *mut c_void,
    argument: *mut c_void,
    promoted: mpsc::Sender<Core<()>>,
}

extern "C" fn begin(start: *mut c_void) -> *mut c_void {
    // SAFETY: made by `__cobalt_pthread_create` for this thread alone.
    let start = *unsafe { Box::from_raw(start.cast::<Start>()) };
    let promoted = promote();
    // The creator waits for it.
    let _ = start.promoted.send(promoted);
    if promoted.is_err() {
        return std::ptr::null_mut();
    }
    (start.routine)(start.argument)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __cobalt_pthread_create(
    thread: *mut pthread_t,
    attributes: *const pthread_attr_t,
    routine: extern "C" fn(*mut c_void) -> *mut c_void,
    argument: *mut c_void,
) -> c_int {
    or_number((|| {
        secondary()?;
        let (promoted, done) = mpsc::channel();
        let start = Box::into_raw(Box::new(Start {
            routine,
            argument,
            promoted,
        }));
        // SAFETY: the caller's statement (pthread_create(3)); `begin` takes the box.
        match unsafe { libc::pthread_create(thread, attributes, begin, start.cast()) } {
            0 => done.recv().unwrap_or(Err(libc::EAGAIN)),
            errno => {
                // SAFETY: no thread started, so it is still ours.
                drop(unsafe { Box::from_raw(start) });
                Err(errno)
            }
        }
    })())
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __cobalt_pthread_join(thread: pthread_t, value: *mut *mut c_void) -> c_int {
    or_number(secondary().and_then(|_| {
        // SAFETY: the caller's statement (pthread_join(3)).
        match unsafe { libc::pthread_join(thread, value) } {
            0 => Ok(()),
            errno => Err(errno),
        }
    }))
}

/// Runs a C library call that sets errno under the rules of a primary call.
pub(crate) fn primary_call(call: impl FnOnce() -> c_int) -> Core<c_int> {
    primary()?;
    left(checked(call()))
}
