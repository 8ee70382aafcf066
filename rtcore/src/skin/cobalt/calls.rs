//! The table's calls on Cobalt.
//!
//! Constraint: no Linux system call, which would take the thread out of its real-time mode; so no
//! code here asks for a thread's id, and a process is not probed before it is signalled.
//!
//! Invariant: a signal that [`signal_send`] accepts is queued. If its pool of
//! [`xenomai::SIGNAL_POOL`] is used up, the core drops a signal and returns 0. The sender therefore
//! first queues a signal to itself and takes it back, so that its place is free. (Between the two
//! calls a thread on another CPU may take the last place; the credits keep a few places in reserve,
//! see [`POOL_SHARED`].)

use super::super::xddp::Xddp;
use super::super::{Caps, Doorbell, Length, Mqd, Setup, SignalAddress, Skin};
use super::{api, runaway, sem};
use crate::sys::clock::timespec;
use crate::sys::mqueue::{Access, Attributes};
use crate::sys::poll::Interest;
use crate::sys::rtsignal::{self, Received, SignalSet};
use crate::sys::sigqueue::SignalQueue;
use crate::sys::{Call, Errno, clock, procfs, sched};
use std::cell::Cell;
use std::ffi::{CStr, c_char};
use std::io;
use std::mem::MaybeUninit;
use xenomai::{Api, SIGNAL_POOL, SIGNALS, mode};

/// The capabilities that differ from Linux.
pub const CAPS: Caps = Caps {
    pollable_mq: false,
    reports_signal_overflow: false,
    shared_namespace: false,
    doorbell: Doorbell::Semaphore,
    process_signals: false,
    passes_origin: false,
    unpromoted_threads: false,
    linux_calls: false,
    linux_threads: false,
    linux_clock: false,
};

/// Places of the pool that credits divide among the receivers; the others are for senders without a
/// credit.
#[expect(clippy::cast_possible_truncation, reason = "128")]
const POOL_SHARED: u32 = SIGNAL_POOL as u32 - 16;

/// The number of the signal that a thread queues to itself to check for room: never a source, and
/// never left pending.
const PROBE: i32 = rtsignal::WAKE;

/// Longest wait of one call: times are absolute in the core, and must not wrap there.
const WAIT_NS_MAX: u64 = 3_600_000_000_000;

/// Linux signals that the library handles itself (mode switches, debugging): blocked, they never
/// come.
pub(super) const LIBRARY_SIGNALS: [i32; 2] = [libc::SIGWINCH, libc::SIGXCPU];

thread_local! {
    /// Kernel id of a thread that was promoted here; 0 for others. Const-initialised: reading it
    /// allocates nothing.
    static TID: Cell<i32> = const { Cell::new(0) };
}

pub(super) fn table(name: &'static str, xddp: Option<Xddp>) -> Skin {
    Skin {
        name,
        caps: CAPS,
        setup: Setup {
            promote,
            mq_open,
            mq_create,
            mq_close,
            mq_unlink,
            mq_attributes,
            mq_sole_writer: |_| Ok(None),
            sem_open: sem::open,
            sem_unlink: sem::unlink,
            watch_runaways: runaway::watch,
        },
        now_ns,
        sleep_until,
        yield_now,
        mq_receive,
        mq_receive_within,
        mq_send,
        signal_wait,
        signal_wait_within,
        signal_send,
        // Only the core can write the code that distinguishes such a signal from one with a
        // message.
        signal_announce: |_, _, _| Err(Errno(libc::EOPNOTSUPP)),
        signal_backlog: |_| Some(backlog()),
        wait_ready,
        sem: sem::CALLS,
        is_relaxed: Some(is_relaxed),
        take_runaway: Some(runaway::take),
        xddp,
    }
}

/// Whether the core answers this process.
pub(super) fn answers(api: &Api) -> Call<()> {
    time(api, libc::CLOCK_MONOTONIC).map(drop)
}

pub(super) fn remember_thread(tid: i32) {
    TID.set(tid);
}

/// Kernel id of the calling thread if it was promoted here; else 0.
pub(super) fn this_thread() -> i32 {
    TID.get()
}

fn promote(priority: u8) -> io::Result<()> {
    let api = api()?;
    // Before: these are Linux system calls.
    SignalSet::of(LIBRARY_SIGNALS).unblock()?;
    remember_thread(sched::gettid());
    let policy = if priority == 0 {
        libc::SCHED_OTHER
    } else {
        libc::SCHED_FIFO
    };
    // SAFETY: plain integers, for which zero is a value.
    let mut param: libc::sched_param = unsafe { std::mem::zeroed() };
    param.sched_priority = priority.into();
    let mut name = [0; 16];
    // SAFETY: the calling thread, whose name has at most 16 bytes with its end; parameters and name
    // are on this stack.
    let rc = unsafe {
        let me = libc::pthread_self();
        let named = libc::pthread_getname_np(me, name.as_mut_ptr(), name.len()) == 0;
        let rc = (api.pthread_setschedparam)(me, policy, &raw const param);
        if rc == 0 && named {
            // For /proc/xenomai alone: a thread without a name there works too.
            (api.pthread_setname_np)(me, name.as_ptr());
        }
        rc
    };
    if rc == 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(rc))
    }
}

pub(super) fn now_ns() -> u64 {
    // Without a bound library nothing runs on this table.
    api()
        .and_then(|api| time(api, libc::CLOCK_MONOTONIC))
        .unwrap_or_else(|_| clock::monotonic_ns())
}

/// The core's CLOCK_REALTIME this many nanoseconds from now, for its timed calls.
pub(super) fn realtime_after(api: &Api, timeout_ns: u64) -> Call<libc::timespec> {
    Ok(timespec(
        time(api, libc::CLOCK_REALTIME)?.saturating_add(timeout_ns.min(WAIT_NS_MAX)),
    ))
}

fn time(api: &Api, clock: libc::clockid_t) -> Call<u64> {
    let mut now = timespec(0);
    // SAFETY: the time is on this stack.
    number(unsafe { (api.clock_gettime)(clock, &raw mut now) })?;
    Ok(clock::ns_of(now.tv_sec, now.tv_nsec))
}

fn sleep_until(deadline_ns: u64) {
    // Any other error would come back at once: the thread is not one of the core's.
    while nap(deadline_ns) == Err(Errno::INTR) {}
}

fn yield_now() {
    // For a thread that is not one of the core's the call fails, and there is no thread to yield
    // to.
    if let Ok(api) = api()
        && let Some(sched_yield) = api.sched_yield
    {
        // SAFETY: takes nothing.
        unsafe { sched_yield() };
    }
}

pub(super) fn nap(deadline_ns: u64) -> Call<()> {
    let until = timespec(deadline_ns);
    let (clock, flags) = (libc::CLOCK_MONOTONIC, libc::TIMER_ABSTIME);
    // SAFETY: the time is on this stack; an absolute sleep leaves no rest.
    match unsafe { (api()?.clock_nanosleep)(clock, flags, &raw const until, std::ptr::null_mut()) }
    {
        0 => Ok(()),
        errno => Err(Errno(errno)),
    }
}

fn wait_ready(_: &mut [Interest], timeout_ns: u64) -> Call<usize> {
    nap(now_ns().saturating_add(timeout_ns.min(WAIT_NS_MAX))).map(|()| 0)
}

fn is_relaxed() -> bool {
    // SAFETY: takes nothing.
    api().is_ok_and(|api| unsafe { (api.cobalt_thread_mode)() } & mode::RELAXED != 0)
}

fn mq_receive(mqd: Mqd, buffer: &mut [u8]) -> Call<Length> {
    let mut priority = 0;
    let at = buffer.as_mut_ptr().cast::<c_char>();
    // SAFETY: the buffer is writable for the length given; a stale descriptor gives EBADF.
    let n = unsafe { (api()?.mq_receive)(mqd, at, buffer.len(), &raw mut priority) };
    usize::try_from(n)
        .map(|n| (n, priority))
        .map_err(|_| Errno::last())
}

fn mq_receive_within(mqd: Mqd, buffer: &mut [u8], timeout_ns: u64) -> Call<Length> {
    let api = api()?;
    let until = realtime_after(api, timeout_ns)?;
    let mut priority = 0;
    let at = buffer.as_mut_ptr().cast::<c_char>();
    // SAFETY: as in `mq_receive`; the time is on this stack, so never null (which would be -14
    // without an errno).
    let n = unsafe {
        (api.mq_timedreceive)(mqd, at, buffer.len(), &raw mut priority, &raw const until)
    };
    usize::try_from(n)
        .map(|n| (n, priority))
        .map_err(|_| Errno::last())
}

fn mq_send(mqd: Mqd, message: &[u8], priority: u32) -> Call<()> {
    // SAFETY: the message is readable for the length given; a stale descriptor gives EBADF.
    number(unsafe { (api()?.mq_send)(mqd, message.as_ptr().cast(), message.len(), priority) })
        .map(drop)
}

fn signal_wait(set: &SignalSet) -> Call<Received> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let raw = set.raw();
    // SAFETY: the set is initialised, the record is ours to write.
    let signo = number(unsafe { (api()?.sigwaitinfo)(&raw const raw, info.as_mut_ptr()) })?;
    // SAFETY: zeroed, then filled by the core: every bit pattern is a siginfo_t.
    Ok(rtsignal::received(signo, unsafe { info.assume_init_ref() }))
}

fn signal_wait_within(set: &SignalSet, timeout_ns: u64) -> Call<Received> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let (raw, time) = (set.raw(), timespec(timeout_ns.min(WAIT_NS_MAX)));
    // SAFETY: as in `signal_wait`; the time is on this stack.
    let signo = number(unsafe {
        (api()?.sigtimedwait)(&raw const raw, info.as_mut_ptr(), &raw const time)
    })?;
    // SAFETY: as in `signal_wait`.
    Ok(rtsignal::received(signo, unsafe { info.assume_init_ref() }))
}

/// Sends to the thread, or to a process's main thread if the process is addressed. By number: the
/// lane knows from its peer's state that the process lives.
fn signal_send(to: SignalAddress, signo: i32, value: u64, _pid: u32, _uid: u32) -> Call<()> {
    // 65 to 69 are commands to the core's scheduler, which it would carry out.
    if !SIGNALS.contains(&signo) {
        return Err(Errno(libc::EINVAL));
    }
    let tid = if to.tid != 0 { to.tid } else { to.pid };
    if tid <= 0 {
        return Err(Errno::SRCH);
    }
    let api = api()?;
    probe(api)?;
    // SAFETY: plain integers.
    number(unsafe { (api.sigqueue)(tid, signo, sigval(value)) }).map(drop)
}

/// EAGAIN if the pool is used up; EPERM for a thread that was not promoted here and so cannot
/// check.
fn probe(api: &Api) -> Call<()> {
    let tid = TID.get();
    if tid == 0 {
        return Err(Errno::PERM);
    }
    match api.pthread_sigqueue_np {
        // It knows threads of its own process only, by a pointer: there is one such here, the
        // calling thread. SAFETY: the calling thread.
        Some(queue) => match unsafe { queue(libc::pthread_self(), PROBE, sigval(0)) } {
            0 => {}
            errno => return Err(Errno(errno)),
        },
        // SAFETY: plain integers.
        None => drop(number(unsafe { (api.sigqueue)(tid, PROBE, sigval(0)) })?),
    }
    signal_wait_within(&SignalSet::of([PROBE]), 0).map(drop)
}

/// The fill of the pool, as far as it can be known: full, or not.
fn backlog() -> SignalQueue {
    let is_full = api().and_then(probe) == Err(Errno::AGAIN);
    // The core does not tell whose signals wait: while there is room, all signals of a receiver
    // count as taken.
    SignalQueue {
        queued: if is_full { u32::MAX } else { 0 },
        limit: POOL_SHARED,
        pending: u64::MAX,
    }
}

fn sigval(value: u64) -> libc::sigval {
    libc::sigval {
        sival_ptr: value as *mut libc::c_void,
    }
}

/// The convention -1 and errno.
pub(super) fn number(rc: i32) -> Call<i32> {
    if rc < 0 { Err(Errno::last()) } else { Ok(rc) }
}

fn mq_open(name: &CStr, access: Access, nonblocking: bool) -> io::Result<Mqd> {
    // SAFETY: a C string; without O_CREAT there are no more arguments.
    number(unsafe { (api()?.mq_open)(name.as_ptr(), flags(access, nonblocking)) })
        .map_err(|errno| refused("open", name, errno))
}

fn flags(access: Access, nonblocking: bool) -> i32 {
    let access = match access {
        Access::Receive => libc::O_RDONLY,
        Access::Send => libc::O_WRONLY,
        Access::Both => libc::O_RDWR,
    };
    access | if nonblocking { libc::O_NONBLOCK } else { 0 }
}

fn mq_create(name: &CStr, maxmsg: usize, msgsize: usize) -> io::Result<(Mqd, bool)> {
    let signed = |n: usize| libc::c_long::try_from(n).map_err(io::Error::other);
    // SAFETY: plain integers, for which zero is a value.
    let mut attr: libc::mq_attr = unsafe { std::mem::zeroed() };
    (attr.mq_maxmsg, attr.mq_msgsize) = (signed(maxmsg)?, signed(msgsize)?);
    let flags = flags(Access::Both, true) | libc::O_CREAT | libc::O_EXCL;
    let mode: libc::mode_t = 0o600;
    // SAFETY: a C string, and what follows O_CREAT: a mode and attributes, which outlive the call.
    match number(unsafe { (api()?.mq_open)(name.as_ptr(), flags, mode, &raw const attr) }) {
        Ok(mqd) => Ok((mqd, false)),
        Err(Errno(libc::EEXIST)) => {
            let mqd = mq_open(name, Access::Both, true)?;
            let has = mq_attributes(mqd).map(|found| found.msgsize);
            match has {
                Ok(has) if has == msgsize => return Ok((mqd, true)),
                _ => mq_close(mqd),
            }
            let (has, shown) = (has?, name.to_string_lossy());
            Err(io::Error::other(format!(
                "Cobalt message queue {shown} exists with msgsize {has}, the configuration says {msgsize}; stop its \
                 users and have one of them remove it (mq_unlink), or configure msgsize = {has}"
            )))
        }
        Err(errno) => Err(refused("create", name, errno)),
    }
}

fn mq_close(mqd: Mqd) {
    if let Ok(api) = api() {
        // SAFETY: a plain integer; the descriptor is its caller's, who does not use it again.
        unsafe { (api.mq_close)(mqd) };
    }
}

fn mq_unlink(name: &CStr) -> io::Result<()> {
    // SAFETY: a C string.
    let rc = number(unsafe { (api()?.mq_unlink)(name.as_ptr()) });
    rc.map(drop).map_err(|errno| refused("remove", name, errno))
}

fn mq_attributes(mqd: Mqd) -> io::Result<Attributes> {
    // SAFETY: plain integers, for which zero is a value.
    let mut attr: libc::mq_attr = unsafe { std::mem::zeroed() };
    // SAFETY: the record is on this stack; a stale descriptor gives EBADF.
    number(unsafe { (api()?.mq_getattr)(mqd, &raw mut attr) })?;
    Ok(attr.into())
}

fn refused(what: &str, name: &CStr, errno: Errno) -> io::Error {
    const KIND: &str = "message queue";
    match errno.0 {
        libc::ENOSPC | libc::ENOMEM => {
            let fix = "; the core has no memory for it: a queue has at most 4 MiB, including a \
            header of 32 bytes for each message, and the kernel must have that much (vmalloc): smaller maxmsg or msgsize";
            refused_with(KIND, what, name, errno, fix)
        }
        _ => refused_object(KIND, what, name, errno),
    }
}

/// The hint for EPERM of a call of the core.
pub(super) const NOT_BOUND: &str =
    "; the process is not bound, or its user is not in xenomai.allowed_group";

/// The error of a call that opens, makes or removes an object by its name.
pub(super) fn refused_object(kind: &str, what: &str, name: &CStr, errno: Errno) -> io::Error {
    let fix = match errno.0 {
        libc::ENOSPC | libc::ENOMEM => {
            "; the core's heap is used up: fewer semaphores, or xenomai.sysheap_size=KBYTES at boot"
        }
        libc::EAGAIN => {
            "; the core's registry has no place left: CONFIG_XENO_OPT_REGISTRY_NRSLOTS of the kernel"
        }
        libc::ENAMETOOLONG => "; Cobalt's names have at most 63 bytes",
        libc::EPERM => NOT_BOUND,
        libc::ENOENT => crate::sys::mqueue::NOT_CREATED,
        _ => "",
    };
    refused_with(kind, what, name, errno, fix)
}

fn refused_with(kind: &str, what: &str, name: &CStr, errno: Errno, fix: &str) -> io::Error {
    procfs::named(
        format!("cannot {what} Cobalt {kind} {}", name.to_string_lossy()),
        io::Error::new(io::Error::from(errno).kind(), format!("{errno}{fix}")),
    )
}
