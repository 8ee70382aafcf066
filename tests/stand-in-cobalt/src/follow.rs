//! The rule that is the hardest to see kept: a Linux system call takes a Cobalt thread out of its
//! mode.
//!
//! With `RTD_STAND_IN_FOLLOW` the kernel is asked to hand every system call that a promoted thread
//! makes between the library's own calls to a handler here (Syscall User Dispatch, prctl(2)). The
//! handler counts it where tests can see it ([`crate::Space::linux_calls`]), marks the thread
//! relaxed, and has the call made after all. The library itself stands on Linux's calls: they are
//! let through by a flag that every entry raises and every exit lowers.
//!
//! A call that follows another without a blocking Cobalt call between them costs nothing more, as
//! on Cobalt.
//!
//! Constraint: x86_64 with Linux 5.11; [`is_supported`] tells.

use crate::shared::Thread;
use std::cell::Cell;
use std::sync::atomic::Ordering;

const PR_SET_SYSCALL_USER_DISPATCH: libc::c_int = 59;
const ON: libc::c_long = 1;
const OFF: libc::c_long = 0;
/// What the kernel reads before each system call of the thread.
const ALLOW: u8 = 0;
const BLOCK: u8 = 1;
/// si_code of such a SIGSYS.
const SYS_USER_DISPATCH: libc::c_int = 2;

/// What the handler needs of the thread. No destructor: the handler may run at any time.
struct State {
    selector: Cell<u8>,
    /// The thread's entry in the shared memory while it is followed.
    entry: Cell<*const Thread>,
    /// No Linux call since its last primary one.
    primary: Cell<bool>,
}

thread_local! {
    static STATE: State = const {
        State { selector: Cell::new(ALLOW), entry: Cell::new(std::ptr::null()), primary: Cell::new(false) }
    };
}

/// Whether this kernel and machine can.
pub fn is_supported() -> bool {
    cfg!(target_arch = "x86_64") && set(ON).is_ok() && set(OFF).is_ok()
}

fn set(mode: libc::c_long) -> Result<(), ()> {
    let selector = STATE.with(|state| state.selector.as_ptr());
    let selector = if mode == ON {
        selector
    } else {
        std::ptr::null_mut()
    };
    // SAFETY: the flag is the calling thread's, which turns this off before its memory goes
    // (`Me::drop` in `thread`).
    let rc = unsafe {
        libc::prctl(
            PR_SET_SYSCALL_USER_DISPATCH,
            mode,
            0_usize,
            0_usize,
            selector,
        )
    };
    if rc < 0 { Err(()) } else { Ok(()) }
}

/// Begins with the calling thread.
pub(crate) fn begin(entry: &Thread) {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = linux_call;
    // Another signal's handler must not run inside this one: it would return by a system call, and
    // the kernel kills a thread whose system call it cannot hand over because SIGSYS is blocked.
    // SAFETY: zero is a value of the action, the handler has the form that SA_SIGINFO asks for;
    // sets are ours.
    unsafe {
        let action = action.assume_init_mut();
        action.sa_sigaction = handler as libc::sighandler_t;
        libc::sigfillset(&raw mut action.sa_mask);
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
        libc::sigaction(libc::SIGSYS, action, std::ptr::null_mut());
        let mut unblocked = std::mem::zeroed();
        libc::sigemptyset(&raw mut unblocked);
        libc::sigaddset(&raw mut unblocked, libc::SIGSYS);
        libc::pthread_sigmask(
            libc::SIG_UNBLOCK,
            &raw const unblocked,
            std::ptr::null_mut(),
        );
    }
    STATE.with(|state| state.entry.set(entry));
    if set(ON).is_err() {
        crate::complain(format_args!(
            "RTD_STAND_IN_FOLLOW needs x86_64 and Linux 5.11"
        ));
    }
}

/// Ends with the calling thread, which ends.
pub(crate) fn end() {
    enter();
    STATE.with(|state| {
        if !state.entry.replace(std::ptr::null()).is_null() {
            // On since `begin`; off works wherever on did.
            let _ = set(OFF);
        }
    });
}

/// Each call of the library begins so.
pub(crate) fn enter() {
    STATE.with(|state| state.selector.set(ALLOW));
}

/// And ends so.
pub(crate) fn leave() {
    STATE.with(|state| {
        if state.primary.get() && !state.entry.get().is_null() {
            state.selector.set(BLOCK);
        }
    });
}

/// The thread makes a primary call, or one that hands it to Linux.
pub(crate) fn set_primary(primary: bool) {
    STATE.with(|state| state.primary.set(primary));
}

/// Whether a followed thread has made a Linux call since its last primary one.
pub(crate) fn was_relaxed() -> bool {
    STATE.with(|state| !state.entry.get().is_null() && !state.primary.get())
}

/// What the kernel tells of a system call (sigaction(2)).
#[repr(C)]
struct Told {
    signo: libc::c_int,
    errno: libc::c_int,
    code: libc::c_int,
    address: *const libc::c_void,
    number: libc::c_int,
}

/// SIGSYS: counts, and has the call made.
extern "C" fn linux_call(_: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel's record, which begins like this.
    let (code, number) = unsafe { ((*info.cast::<Told>()).code, (*info.cast::<Told>()).number) };
    enter();
    if code != SYS_USER_DISPATCH {
        crate::complain(format_args!(
            "a SIGSYS that is no system call of a followed thread"
        ));
    }
    STATE.with(|state| {
        state.primary.set(false);
        // SAFETY: the entry is in memory that is mapped for good (`space`), null when the thread is
        // not followed.
        if let Some(entry) = unsafe { state.entry.get().as_ref() } {
            entry.last_call.store(number, Ordering::Relaxed);
            entry.linux_calls.fetch_add(1, Ordering::Release);
        }
    });
    again(context, number);
}

/// Steps back to the instruction that made the call.
#[cfg(target_arch = "x86_64")]
fn again(context: *mut libc::c_void, number: libc::c_int) {
    /// Length of `syscall`.
    const INSTRUCTION: libc::greg_t = 2;
    // SAFETY: the context that the kernel hands to a handler with SA_SIGINFO.
    let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    for (register, value) in [
        (libc::REG_RIP, None),
        (libc::REG_RAX, Some(libc::greg_t::from(number))),
    ] {
        if let Some(at) = usize::try_from(register)
            .ok()
            .and_then(|n| registers.get_mut(n))
        {
            *at = value.unwrap_or(*at - INSTRUCTION);
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn again(_: *mut libc::c_void, _: libc::c_int) {
    crate::complain(format_args!("no system call is followed on this machine"));
}
