//! Real-time and standard signals: sets, masks, sending with an origin, waiting (signal(7)).
//!
//! nix does not know real-time signals (`Signal::try_from` fails on one), so sets are built with
//! libc. No handler runs anywhere in this code base but the empty one of [`WAKE`], whose only
//! effect is that a blocked system call of the addressed thread returns EINTR, and those that a
//! client insists on ([`super::sigaction`]).

use super::Errno;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// The signal that interrupts a lane thread's blocking receive. Ignored by default, so a stray one
/// never ends the process, and not usable as a source.
pub const WAKE: i32 = libc::SIGURG;

/// The signal that the kernel sends when CPU time is used up: RLIMIT_RTTIME (getrlimit(2)).
pub const CPU_TIME: i32 = libc::SIGXCPU;

/// The signals that end a daemon or ask it to reload: SIGTERM, SIGINT, SIGHUP.
pub const TERMINATION: [i32; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP];

/// The standard signals that a route may read and send. They coalesce, so they can only announce
/// something.
pub const DOORBELLS: [i32; 5] = [
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGIO,
    libc::SIGWINCH,
];

/// Signals that end a process by default and mean nothing to one that does not expect them.
pub fn ignorable() -> impl Iterator<Item = i32> {
    // Without SIGXFSZ a call that would exceed RLIMIT_FSIZE returns EFBIG, which can be reported.
    let standard = [
        libc::SIGVTALRM,
        libc::SIGPROF,
        libc::SIGPIPE,
        libc::SIGPWR,
        libc::SIGSTKFLT,
        libc::SIGXFSZ,
    ];
    // Ignored by default, and libcobalt handles it.
    let doorbells = DOORBELLS
        .into_iter()
        .filter(|&signo| signo != libc::SIGWINCH);
    standard
        .into_iter()
        .chain(doorbells)
        .chain(libc::SIGRTMIN()..=libc::SIGRTMAX())
}

/// Signals that report a fault of the thread that gets them; even if they are blocked, they end the
/// process.
pub const FAULTS: [i32; 7] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGSYS,
    libc::SIGABRT,
];

/// Why a program may not take this signal; none if it may.
pub fn refusal(signo: i32) -> Option<&'static str> {
    if !(1..=libc::SIGRTMAX()).contains(&signo) {
        return Some("there is no such signal; kill -l lists them");
    }
    if (32..libc::SIGRTMIN()).contains(&signo) {
        return Some("the C library keeps it for its own threads; take SIGRTMIN or above");
    }
    match signo {
        libc::SIGKILL | libc::SIGSTOP => Some("the kernel lets nobody catch it; take another one"),
        WAKE => Some("rtcore wakes its own threads with it; take another one"),
        _ if FAULTS.contains(&signo) => Some(
            "it reports a fault of the thread that it comes to and cannot wait; take another one",
        ),
        _ => None,
    }
}

/// The bit of a signal in a mask; bit n-1 is signal n. Zero for a number that is none.
pub fn bit(signo: i32) -> u64 {
    if (1..=64).contains(&signo) {
        1 << (signo - 1)
    } else {
        0
    }
}

/// Every signal except [`FAULTS`] as a mask, for a thread that must not be interrupted.
pub fn all_but_faults() -> u64 {
    FAULTS
        .iter()
        .fold(u64::MAX, |bits, &signo| bits & !bit(signo))
}

/// A set of signals.
#[derive(Clone, Copy)]
pub struct SignalSet(libc::sigset_t);

impl SignalSet {
    /// The set of exactly these signals; numbers that are no signals are left out.
    pub fn of(signals: impl IntoIterator<Item = i32>) -> SignalSet {
        let mut set = MaybeUninit::uninit();
        // SAFETY: sigemptyset initialises the set it is given.
        let mut set = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            set.assume_init()
        };
        for signo in signals {
            // SAFETY: the set is initialised above; a bad number is reported, not undefined.
            unsafe { libc::sigaddset(&mut set, signo) };
        }
        SignalSet(set)
    }

    /// The set of a mask, see [`bit`].
    pub fn of_bits(bits: u64) -> SignalSet {
        SignalSet::of((1..=64).filter(|&signo| bits & bit(signo) != 0))
    }

    /// The set as the C library has it.
    pub(crate) fn raw(&self) -> libc::sigset_t {
        self.0
    }

    /// Blocks these signals in the calling thread, in addition to those that are blocked already.
    pub fn block(&self) -> io::Result<()> {
        self.mask(libc::SIG_BLOCK)
    }

    /// Blocks these signals in the calling thread, and no others.
    pub fn block_exactly(&self) -> io::Result<()> {
        self.mask(libc::SIG_SETMASK)
    }

    /// The signals that the calling thread blocks.
    pub fn blocked() -> SignalSet {
        let mut set = SignalSet::of([]);
        // SAFETY: a null new set only reads; the set is ours to write. There is nothing in it that
        // could fail.
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), &raw mut set.0) };
        set
    }

    /// Its signals as a mask, see [`bit`].
    pub fn bits(&self) -> u64 {
        self.signals().fold(0, |bits, signo| bits | bit(signo))
    }

    fn signals(&self) -> impl Iterator<Item = i32> + '_ {
        // SAFETY: the set is initialised (constructor).
        (1..=64).filter(|&signo| unsafe { libc::sigismember(&raw const self.0, signo) } == 1)
    }

    /// Unblocks these signals in the calling thread.
    pub fn unblock(&self) -> io::Result<()> {
        self.mask(libc::SIG_UNBLOCK)
    }

    /// A descriptor that is readable while one of these signals is pending (signalfd(2)). The
    /// signals must be blocked.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        // SAFETY: -1 asks for a new descriptor; the set is initialised (constructor).
        let fd = unsafe { libc::signalfd(-1, &self.0, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new descriptor that nobody else owns.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    fn mask(&self, how: i32) -> io::Result<()> {
        // SAFETY: the set is initialised (constructor); a null old set is allowed.
        let rc = unsafe { libc::pthread_sigmask(how, &self.0, std::ptr::null_mut()) };
        if rc == 0 {
            Ok(())
        } else {
            Err(io::Error::from_raw_os_error(rc))
        }
    }
}

impl std::fmt::Debug for SignalSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.signals()).finish()
    }
}

/// A received signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// The kernel's signal number.
    pub signo: i32,
    /// The value given to sigqueue(3), timer_create(2) or mq_notify(3); 0 for kill(2).
    pub value: u64,
    /// Sender's pid, as written by the kernel or claimed by the sender; 0 where nobody sent it.
    pub pid: u32,
    /// Sender's real uid, likewise; `u32::MAX` where nobody sent it.
    pub uid: u32,
    /// The kernel wrote pid and uid (SI_USER, SI_TKILL); under SI_QUEUE the sender did.
    pub kernel_wrote_origin: bool,
    /// Whether it only announces a message in a ring, see [`announce_to_pidfd`]; the value is the
    /// ticket.
    pub announces: bool,
}

/// The code of a signal that only announces. No other program's: the C library's own are above
/// -128.
const SI_ANNOUNCE: i32 = -0x5244;

/// Whether a signal queues (real-time) or coalesces (standard).
#[inline]
pub fn is_realtime(signo: i32) -> bool {
    // The kernel's own bound: glibc's SIGRTMIN is two higher and a function call.
    signo >= 32
}

/// First and last real-time signal that glibc leaves to programs.
pub fn rt_range() -> (i32, i32) {
    (libc::SIGRTMIN(), libc::SIGRTMAX())
}

/// Waits for one of the signals (sigwaitinfo(2)); EINTR when [`WAKE`] arrives.
#[inline]
pub fn wait(set: &SignalSet) -> Result<Received, Errno> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: the set is initialised; the kernel fills `info`.
    let signo = unsafe { sigtimedwait(&set.0, info.as_mut_ptr(), std::ptr::null()) };
    decode(signo, &info)
}

/// Takes one of the signals if it is pending, else EAGAIN (sigtimedwait(2) with no time).
#[inline]
pub fn try_wait(set: &SignalSet) -> Result<Received, Errno> {
    wait_within(set, 0)
}

/// Waits for one of the signals for at most this long, then EAGAIN (sigtimedwait(2)).
#[inline]
pub fn wait_within(set: &SignalSet, timeout_ns: u64) -> Result<Received, Errno> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let time = super::clock::timespec(timeout_ns);
    // SAFETY: as in `wait`; the time is a valid timespec.
    let signo = unsafe { sigtimedwait(&set.0, info.as_mut_ptr(), &time) };
    decode(signo, &info)
}

/// rt_sigtimedwait(2) without libc's cancellation point, see [`super::mqueue`].
///
/// # Safety
/// 1. `set` points to an initialised set. 2. `info` is writable. 3. `time` is null or a valid
///    timespec.
#[inline]
unsafe fn sigtimedwait(
    set: *const libc::sigset_t,
    info: *mut libc::siginfo_t,
    time: *const libc::timespec,
) -> libc::c_long {
    // SAFETY: the caller's contract; the kernel's sigset_t is 8 bytes, the first of libc's.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigtimedwait,
            set,
            info,
            time,
            KERNEL_SIGSET_BYTES,
        )
    }
}

/// Bytes of the kernel's signal set: _NSIG / 8.
const KERNEL_SIGSET_BYTES: usize = 8;

#[inline]
fn decode(rc: libc::c_long, info: &MaybeUninit<libc::siginfo_t>) -> Result<Received, Errno> {
    let Ok(signo @ 0..) = i32::try_from(rc) else {
        return Err(Errno::last());
    };
    // SAFETY: zeroed at creation and filled by the kernel: every bit pattern is a siginfo_t.
    Ok(received(signo, unsafe { info.assume_init_ref() }))
}

/// The kernel's information about a signal.
#[inline]
pub(crate) fn received(signo: i32, info: &libc::siginfo_t) -> Received {
    let code = info.si_code;
    let sent = matches!(
        code,
        libc::SI_USER | libc::SI_TKILL | libc::SI_QUEUE | libc::SI_MESGQ
    );
    let valued = matches!(
        code,
        libc::SI_QUEUE | libc::SI_MESGQ | libc::SI_TIMER | SI_ANNOUNCE
    );
    // SAFETY: the union has pid and uid at one place for the codes of `sent`, and the value at one
    // place for those of `valued`; for the others they are numbers without meaning, which are not
    // used.
    let (pid, uid, value) = unsafe {
        (
            info.si_pid(),
            info.si_uid(),
            info.si_value().sival_ptr as u64,
        )
    };
    Received {
        signo,
        value: if valued { value } else { 0 },
        pid: if sent { pid.unsigned_abs() } else { 0 },
        uid: if sent { uid } else { u32::MAX },
        kernel_wrote_origin: matches!(code, libc::SI_USER | libc::SI_TKILL),
        announces: code == SI_ANNOUNCE,
    }
}

/// siginfo_t as the kernel reads it for SI_QUEUE and every other code below 0
/// (asm-generic/siginfo.h).
#[repr(C)]
struct QueueInfo {
    signo: i32,
    errno: i32,
    code: i32,
    #[cfg(target_pointer_width = "64")]
    align: i32,
    pid: u32,
    uid: u32,
    value: usize,
    rest: [u8; REST_BYTES],
}

#[cfg(target_pointer_width = "64")]
const REST_BYTES: usize = 96;
#[cfg(not(target_pointer_width = "64"))]
const REST_BYTES: usize = 104;
const _: () = assert!(size_of::<QueueInfo>() == size_of::<libc::siginfo_t>());

impl QueueInfo {
    fn new(signo: i32, code: i32, value: u64, pid: u32, uid: u32) -> QueueInfo {
        QueueInfo {
            signo,
            errno: 0,
            code,
            #[cfg(target_pointer_width = "64")]
            align: 0,
            pid,
            uid,
            #[expect(
                clippy::cast_possible_truncation,
                reason = "a sigval is as wide as a pointer"
            )]
            value: value as usize,
            rest: [0; REST_BYTES],
        }
    }
}

/// Queues a signal to the process (or thread) behind `pidfd`, with the origin given
/// (pidfd_send_signal(2)).
///
/// EAGAIN: the receiver's uid is at RLIMIT_SIGPENDING. ESRCH: it died. EPERM: other uid without
/// CAP_KILL.
#[inline]
pub fn queue_to_pidfd(
    pidfd: RawFd,
    signo: i32,
    value: u64,
    pid: u32,
    uid: u32,
) -> Result<(), Errno> {
    send_to_pidfd(
        pidfd,
        &QueueInfo::new(signo, libc::SI_QUEUE, value, pid, uid),
    )
}

/// Queues a signal that only announces a message in a ring of the process, with the message's
/// ticket as the value. It has a code of its own ([`Received::announces`]), so that its receiver
/// never mistakes it for a signal that carries a message itself. Errors as [`queue_to_pidfd`].
#[inline]
pub fn announce_to_pidfd(pidfd: RawFd, signo: i32, ticket: u64) -> Result<(), Errno> {
    send_to_pidfd(
        pidfd,
        &QueueInfo::new(signo, SI_ANNOUNCE, ticket, 0, u32::MAX),
    )
}

#[inline]
fn send_to_pidfd(pidfd: RawFd, info: &QueueInfo) -> Result<(), Errno> {
    // SAFETY: `info` has siginfo_t's size and layout (asserted above) and lives through the call.
    let rc = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd, info.signo, info, 0) };
    if rc < 0 { Err(Errno::last()) } else { Ok(()) }
}

/// Whether the process behind `pidfd` is there: ESRCH when not.
#[inline]
pub fn probe(pidfd: RawFd) -> Result<(), Errno> {
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: signal 0 sends nothing; a null info is allowed.
    let rc = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd, 0, no_info, 0) };
    if rc < 0 { Err(Errno::last()) } else { Ok(()) }
}

/// Queues a signal to one thread of another process, with the origin given (rt_tgsigqueueinfo(2)).
#[inline]
pub fn queue_to_thread(
    tgid: i32,
    tid: i32,
    signo: i32,
    value: u64,
    pid: u32,
    uid: u32,
) -> Result<(), Errno> {
    let info = QueueInfo::new(signo, libc::SI_QUEUE, value, pid, uid);
    // SAFETY: as in `send_to_pidfd`.
    let rc = unsafe { libc::syscall(libc::SYS_rt_tgsigqueueinfo, tgid, tid, signo, &info) };
    if rc < 0 { Err(Errno::last()) } else { Ok(()) }
}

/// Queues a signal to a process by pid, as sigqueue(3) does: the sender's own pid and uid.
pub fn queue_to_pid(pid: i32, signo: i32, value: u64) -> Result<(), Errno> {
    let value = libc::sigval {
        sival_ptr: value as *mut libc::c_void,
    };
    // SAFETY: plain integers in, errno out.
    if unsafe { libc::sigqueue(pid, signo, value) } < 0 {
        Err(Errno::last())
    } else {
        Ok(())
    }
}

/// Makes [`WAKE`] interrupt blocking calls of threads that have it unblocked: an empty handler
/// without SA_RESTART. Call before the first lane thread starts.
pub fn install_wake() -> io::Result<()> {
    extern "C" fn nothing(_: i32) {}
    // SAFETY: sigaction is plain data for which zero is a value.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = nothing as extern "C" fn(i32) as libc::sighandler_t;
    // SAFETY: the action is initialised; the handler does nothing, so it is async-signal-safe.
    if unsafe { libc::sigaction(WAKE, &action, std::ptr::null_mut()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Throws these signals away when they arrive (SIG_IGN). A blocked signal that nobody waits for
/// would stay pending and eat the user's RLIMIT_SIGPENDING; an ignored, unblocked one costs its
/// sender only.
pub fn ignore(signals: impl IntoIterator<Item = i32>) {
    for signo in signals {
        // SAFETY: SIG_IGN is no handler; numbers that may not be ignored are refused by the kernel.
        unsafe { libc::signal(signo, libc::SIG_IGN) };
    }
}

/// Sends [`WAKE`] to a thread of this process (tgkill(2)). A thread that is gone is no error.
pub fn wake(tid: i32) {
    // SAFETY: plain integers; a tid that is gone gives ESRCH.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), tid, WAKE) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_taken_is_refused_and_the_rest_is_not() {
        for signo in [
            -1,
            0,
            9,
            19,
            32,
            33,
            WAKE,
            libc::SIGSEGV,
            libc::SIGABRT,
            libc::SIGRTMAX() + 1,
        ] {
            assert!(refusal(signo).is_some(), "{signo}");
        }
        for signo in [
            libc::SIGTERM,
            libc::SIGUSR1,
            libc::SIGCHLD,
            libc::SIGRTMIN(),
            libc::SIGRTMAX(),
        ] {
            assert_eq!(refusal(signo), None, "{signo}");
        }
    }

    #[test]
    fn a_mask_and_its_set_are_the_same() {
        let bits = bit(10) | bit(40) | bit(64);
        let set = SignalSet::of_bits(bits).raw();
        // SAFETY: the set is initialised.
        let member = |signo| unsafe { libc::sigismember(&raw const set, signo) } == 1;
        assert_eq!((1..=64).filter(|&n| member(n)).map(bit).sum::<u64>(), bits);
        assert_eq!((bit(0), bit(65), bit(1), bit(64)), (0, 0, 1, 1 << 63));
        assert_eq!(all_but_faults() & bit(libc::SIGSEGV), 0);
        assert_ne!(all_but_faults() & bit(libc::SIGTERM), 0);
    }

    #[test]
    fn a_timers_value_arrives_without_an_origin() {
        // SAFETY: siginfo_t is plain data for which zero is a value.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        info.si_code = libc::SI_TIMER;
        let got = received(40, &info);
        assert_eq!(
            (got.pid, got.uid, got.kernel_wrote_origin),
            (0, u32::MAX, false)
        );
    }
}
