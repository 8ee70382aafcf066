//! Signals: from thread to thread through the tables of the space, never through Linux.

use crate::shared::{Pending, bit};
use crate::thread::{self, primary};
use crate::{Core, complain, init, or_errno, or_number, switch};
use libc::{c_int, pid_t, pthread_t, siginfo_t, sigset_t, sigval, timespec};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Highest number that is a signal; from the next one on come orders to the scheduler.
const SIGNALS_LAST: c_int = 64;
const ORDERS_LAST: c_int = 69;
const REALTIME_FIRST: c_int = 32;

/// A signal as it was sent.
pub(crate) struct Sent {
    pub(crate) signo: c_int,
    pub(crate) code: c_int,
    pub(crate) value: u64,
}

/// Sends to a thread; with `group`, to another thread of its process if that one waits for the
/// number and the addressed one does not. ESRCH when there is no such thread, EINVAL for no signal;
/// a dropped signal is no error.
pub(crate) fn send(tid: pid_t, sent: &Sent, group: bool) -> Core<()> {
    let shared = init::bound()?;
    if switch::get().no_thread {
        return Err(libc::ESRCH);
    }
    let mut tables = shared.lock();
    let at = tables.find(tid)?;
    match sent.signo {
        0 => return Ok(()),
        1..=SIGNALS_LAST => {}
        order if order <= ORDERS_LAST && order > 0 => complain(format_args!(
            "signal {order} is an order to the scheduler, sent to thread {tid}"
        )),
        _ => return Err(libc::EINVAL),
    }
    let wanted = bit(sent.signo);
    let process = tables.threads[at].pid;
    let waits =
        |t: &&crate::shared::Thread| t.tid != 0 && t.pid == process && t.waiting & wanted != 0;
    let to = match tables.threads.iter().find(waits) {
        Some(other) if group && tables.threads[at].waiting & wanted == 0 => other.tid,
        _ => tid,
    };
    if sent.signo < REALTIME_FIRST && tables.pending(to) & wanted != 0 {
        return Ok(());
    }
    // SAFETY: takes nothing.
    let uid = unsafe { libc::getuid() };
    let (signo, code, value) = (sent.signo, sent.code, sent.value);
    // As the core has it: the sending thread's number, not the process's.
    let signal = Pending {
        order: 0,
        to,
        signo,
        code,
        pid: thread::tid(),
        uid,
        value,
    };
    tables.queue(signal, switch::get().pool);
    Ok(())
}

/// Wakes who sleeps at the bell.
pub(crate) fn wake(bell: &AtomicU32) {
    let all = c_int::MAX;
    // SAFETY: the word is mapped for good (`space`).
    unsafe { libc::syscall(libc::SYS_futex, bell.as_ptr(), libc::FUTEX_WAKE, all) };
}

/// Waits for a signal of the set: for ever, or so long; EAGAIN after it, EINTR after a Linux
/// signal.
fn wait(set: u64, limit: Option<Duration>) -> Core<Pending> {
    let (shared, tid) = primary()?;
    let end = limit.map(|limit| Instant::now() + limit);
    let mut slept = Ok(());
    loop {
        let mut tables = shared.lock();
        let at = tables.find(tid)?;
        tables.threads[at].waiting = 0;
        if let Some(taken) = tables.take(tid, set) {
            return Ok(taken);
        }
        thread::left(slept)?;
        let rest = match end.map(|end| end.saturating_duration_since(Instant::now())) {
            Some(Duration::ZERO) => return Err(libc::EAGAIN),
            rest => rest,
        };
        tables.threads[at].waiting = set;
        let bell = &raw const tables.threads[at].bell;
        // SAFETY: the tables are mapped for good, and the bell is atomic.
        let bell = unsafe { &*bell };
        let seen = bell.load(Ordering::Relaxed);
        drop(tables);
        slept = sleep(bell, seen, rest);
    }
}

fn sleep(bell: &AtomicU32, seen: u32, limit: Option<Duration>) -> Core<()> {
    let time = limit.map(|limit| timespec {
        tv_sec: libc::time_t::try_from(limit.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: limit.subsec_nanos().into(),
    });
    let time = time.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the word is mapped for good, the time null or initialised.
    let rc = unsafe { libc::syscall(libc::SYS_futex, bell.as_ptr(), libc::FUTEX_WAIT, seen, time) };
    match crate::last_errno() {
        libc::EINTR if rc < 0 => Err(libc::EINTR),
        // Woken, over, or no longer what it was: the loop looks.
        _ => Ok(()),
    }
}

/// 1. `set` points to an initialised set.
unsafe fn bits(set: *const sigset_t) -> u64 {
    // SAFETY: initialised (1); a bad number is an error, not undefined.
    (1..=SIGNALS_LAST)
        .filter(|&n| unsafe { libc::sigismember(set, n) } == 1)
        .fold(0, |all, n| all | bit(n))
}

/// The part of siginfo_t that all signals with a sender have (sigaction(2)).
#[repr(C)]
struct Origin {
    signo: c_int,
    errno: c_int,
    code: c_int,
    #[cfg(target_pointer_width = "64")]
    _align: c_int,
    pid: pid_t,
    uid: libc::uid_t,
    value: sigval,
}

/// 1. `info` is null or points to a siginfo_t.
unsafe fn tell(taken: &Pending, info: *mut siginfo_t) {
    if info.is_null() {
        return;
    }
    let value = sigval {
        sival_ptr: std::ptr::without_provenance_mut(usize::try_from(taken.value).unwrap_or(0)),
    };
    let origin = info.cast::<Origin>();
    // SAFETY: a siginfo_t begins like this and is larger (1); every field is plain data, zero is a
    // value of the rest.
    unsafe {
        info.write_bytes(0, 1);
        (*origin).signo = taken.signo;
        (*origin).code = taken.code;
        (*origin).pid = taken.pid;
        (*origin).uid = taken.uid;
        // The core leaves the value of a signal without one alone.
        if taken.code != libc::SI_USER {
            (*origin).value = value;
        }
    }
}

#[unsafe(no_mangle)]
extern "C" fn __cobalt_sigqueue(tid: pid_t, signo: c_int, value: sigval) -> c_int {
    let sent = Sent {
        signo,
        code: libc::SI_QUEUE,
        value: value.sival_ptr.addr() as u64,
    };
    or_errno(send(tid, &sent, true).map(|()| 0))
}

#[unsafe(no_mangle)]
extern "C" fn pthread_sigqueue_np(thread: pthread_t, signo: c_int, value: sigval) -> c_int {
    let sent = Sent {
        signo,
        code: libc::SI_QUEUE,
        value: value.sival_ptr.addr() as u64,
    };
    let tid = init::bound().and_then(|shared| shared.lock().find_pthread(thread));
    or_number(tid.and_then(|tid| send(tid, &sent, false)))
}

#[unsafe(no_mangle)]
extern "C" fn __cobalt_kill(pid: pid_t, signo: c_int) -> c_int {
    let sent = Sent {
        signo,
        code: libc::SI_USER,
        value: 0,
    };
    match if pid > 0 {
        send(pid, &sent, true)
    } else {
        Err(libc::ESRCH)
    } {
        // SAFETY: plain integers.
        Err(libc::ESRCH) => unsafe { libc::kill(pid, signo) },
        result => or_errno(result.map(|()| 0)),
    }
}

#[unsafe(no_mangle)]
extern "C" fn __cobalt_pthread_kill(thread: pthread_t, signo: c_int) -> c_int {
    let sent = Sent {
        signo,
        code: libc::SI_USER,
        value: 0,
    };
    let tid = init::bound().and_then(|shared| shared.lock().find_pthread(thread));
    match tid.and_then(|tid| send(tid, &sent, false)) {
        // SAFETY: the caller's statement: a thread of its own.
        Err(libc::ESRCH) => unsafe { libc::pthread_kill(thread, signo) },
        result => or_number(result),
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __cobalt_sigwait(set: *const sigset_t, signo: *mut c_int) -> c_int {
    // SAFETY: the caller's statement (sigwait(3)).
    or_number(wait(unsafe { bits(set) }, None).map(|taken| unsafe { *signo = taken.signo }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __cobalt_sigwaitinfo(set: *const sigset_t, info: *mut siginfo_t) -> c_int {
    or_errno((|| {
        // SAFETY: the caller's statement (sigwaitinfo(2)).
        let taken = wait(unsafe { bits(set) }, None)?;
        // SAFETY: as above.
        unsafe { tell(&taken, info) };
        Ok(taken.signo)
    })())
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __cobalt_sigtimedwait(
    set: *const sigset_t,
    info: *mut siginfo_t,
    time: *const timespec,
) -> c_int {
    or_errno((|| {
        // SAFETY: the caller's statement (sigtimedwait(2)), but for the null that is asked for
        // here.
        let time = unsafe { time.as_ref() }.ok_or(libc::EFAULT)?;
        let nanos = u32::try_from(time.tv_nsec)
            .ok()
            .filter(|&n| n < 1_000_000_000)
            .ok_or(libc::EINVAL)?;
        let limit = Duration::new(u64::try_from(time.tv_sec).map_err(|_| libc::EINVAL)?, nanos);
        // SAFETY: as above.
        let taken = wait(unsafe { bits(set) }, Some(limit))?;
        // SAFETY: as above.
        unsafe { tell(&taken, info) };
        Ok(taken.signo)
    })())
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __cobalt_sigpending(set: *mut sigset_t) -> c_int {
    or_errno(primary().map(|(shared, tid)| {
        let pending = shared.lock().pending(tid);
        // SAFETY: the caller's statement; the core's set is of 64 bits and a sigset_t larger and
        // aligned to a long.
        unsafe { set.cast::<u64>().write_unaligned(pending) };
        0
    }))
}
