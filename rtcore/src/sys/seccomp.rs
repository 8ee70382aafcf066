//! The system calls that a thread may make (seccomp(2)), and the answer to a call that is not on
//! its list.
//!
//! The kernel traps such a call (SECCOMP_RET_TRAP): it is not made, the thread gets SIGSYS, and the
//! handler here turns the result into EPERM. SECCOMP_RET_ERRNO would do that without a signal, so
//! nobody could count the calls.
//!
//! Constraints: a [`Program`] is compiled before the seal, installing it neither allocates nor
//! opens. A call that is allowed whatever its arguments costs next to nothing, since the kernel
//! keeps those in a bitmap (Linux 5.11) and does not run the program for them; so the calls of
//! every message have no condition on an argument. Invariant: what was installed stays until the
//! thread ends, and so does what it can do only with it.

use super::{Call as Outcome, Errno, rtsignal};
use seccompiler::{BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition};
use seccompiler::{SeccompFilter, SeccompRule, TargetArch};
use std::collections::BTreeMap;
use std::io;

/// A system call, or the thread's permission to make it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    number: libc::c_long,
    /// This argument (from 0), of 32 bits, has to be this.
    only: Option<(u8, u32)>,
}

/// A call on a list, and why it is there.
#[derive(Clone, Copy, Debug)]
pub struct Allowed {
    pub call: Call,
    /// The thread's reason to need it.
    pub why: &'static str,
}

/// An entry of a list.
pub const fn allow(call: Call, why: &'static str) -> Allowed {
    Allowed { call, why }
}

impl Call {
    const fn of(number: libc::c_long) -> Call {
        Call { number, only: None }
    }

    const fn only(number: libc::c_long, argument: u8, value: u32) -> Call {
        Call {
            number,
            only: Some((argument, value)),
        }
    }

    /// brk(2).
    pub const BRK: Call = Call::of(libc::SYS_brk);
    /// clock_gettime(2).
    pub const CLOCK_GETTIME: Call = Call::of(libc::SYS_clock_gettime);
    /// clock_nanosleep(2).
    pub const CLOCK_NANOSLEEP: Call = Call::of(libc::SYS_clock_nanosleep);
    /// close(2).
    pub const CLOSE: Call = Call::of(libc::SYS_close);
    /// epoll_wait(2), by the call that every architecture has.
    pub const EPOLL_PWAIT: Call = Call::of(libc::SYS_epoll_pwait);
    /// exit(2): of the thread, not of the process.
    pub const EXIT: Call = Call::of(libc::SYS_exit);
    /// futex(2), with any operation.
    pub const FUTEX: Call = Call::of(libc::SYS_futex);
    /// futex_waitv(2).
    pub const FUTEX_WAITV: Call = Call::of(super::futex::SYS_FUTEX_WAITV);
    /// getpid(2).
    pub const GETPID: Call = Call::of(libc::SYS_getpid);
    /// getrusage(2).
    pub const GETRUSAGE: Call = Call::of(libc::SYS_getrusage);
    /// gettid(2).
    pub const GETTID: Call = Call::of(libc::SYS_gettid);
    /// getuid(2).
    pub const GETUID: Call = Call::of(libc::SYS_getuid);
    /// kill(2) by SIGKILL.
    #[cfg(feature = "fault-points")]
    pub const KILL: Call = Call::only(libc::SYS_kill, 1, libc::SIGKILL.cast_unsigned());
    /// madvise(2).
    pub const MADVISE: Call = Call::of(libc::SYS_madvise);
    /// mq_timedreceive(2).
    pub const MQ_RECEIVE: Call = Call::of(libc::SYS_mq_timedreceive);
    /// mq_timedsend(2).
    pub const MQ_SEND: Call = Call::of(libc::SYS_mq_timedsend);
    /// munmap(2).
    pub const MUNMAP: Call = Call::of(libc::SYS_munmap);
    /// pidfd_send_signal(2).
    pub const PIDFD_SEND_SIGNAL: Call = Call::of(libc::SYS_pidfd_send_signal);
    /// ppoll(2).
    pub const PPOLL: Call = Call::of(libc::SYS_ppoll);
    /// pread(2).
    pub const PREAD: Call = Call::of(libc::SYS_pread64);
    /// restart_syscall(2).
    pub const RESTART: Call = Call::of(libc::SYS_restart_syscall);
    /// rt_sigprocmask(2).
    pub const SIGPROCMASK: Call = Call::of(libc::SYS_rt_sigprocmask);
    /// rt_sigqueueinfo(2).
    pub const SIGQUEUE: Call = Call::of(libc::SYS_rt_sigqueueinfo);
    /// rt_sigreturn(2).
    pub const SIGRETURN: Call = Call::of(libc::SYS_rt_sigreturn);
    /// rt_sigtimedwait(2).
    pub const SIGTIMEDWAIT: Call = Call::of(libc::SYS_rt_sigtimedwait);
    /// rt_tgsigqueueinfo(2).
    pub const SIGQUEUE_TO_THREAD: Call = Call::of(libc::SYS_rt_tgsigqueueinfo);
    /// sched_yield(2).
    pub const SCHED_YIELD: Call = Call::of(libc::SYS_sched_yield);
    /// sigaltstack(2).
    pub const SIGALTSTACK: Call = Call::of(libc::SYS_sigaltstack);
    /// tgkill(2) of SIGABRT: what abort(3) comes to.
    pub const ABORT: Call = Call::only(libc::SYS_tgkill, 2, libc::SIGABRT.cast_unsigned());
    /// rt_sigaction(2) of SIGSEGV.
    pub const ACTION_OF_SEGV: Call =
        Call::only(libc::SYS_rt_sigaction, 0, libc::SIGSEGV.cast_unsigned());
    /// rt_sigaction(2) of SIGBUS.
    pub const ACTION_OF_BUS: Call =
        Call::only(libc::SYS_rt_sigaction, 0, libc::SIGBUS.cast_unsigned());
    /// write(2), to whatever descriptor.
    pub const WRITE: Call = Call::of(libc::SYS_write);
    /// write(2) to standard error.
    pub const WRITE_STDERR: Call =
        Call::only(libc::SYS_write, 0, libc::STDERR_FILENO.cast_unsigned());

    /// Whether it depends on an argument; then the kernel runs the program at every such call.
    pub fn has_condition(&self) -> bool {
        self.only.is_some()
    }

    /// As in the man pages, without a chapter: `openat`.
    pub fn name(&self) -> &'static str {
        u32::try_from(self.number).map_or("?", name)
    }
}

/// The name of a system call of this machine: `openat`; `?` for one that this build does not know.
pub fn name(number: u32) -> &'static str {
    syscalls::Sysno::new(number as usize).map_or("?", |call| call.name())
}

/// A list as the kernel takes it.
#[derive(Clone, Debug)]
pub struct Program(BpfProgram);

impl Program {
    /// Of all these calls and no others. A call that is allowed both with and without a condition
    /// has none.
    ///
    /// Errors: ENOTSUP on an architecture for which there is no compiler; a list past the kernel's
    /// 4096 instructions.
    pub fn compile<'a>(lists: impl IntoIterator<Item = &'a Allowed>) -> io::Result<Program> {
        let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
        let mut whole = Vec::new();
        for Allowed { call, .. } in lists {
            let conditions = rules.entry(call.number).or_default();
            match call.only {
                None => whole.push(call.number),
                Some((argument, value)) => conditions.push(when(argument, value)?),
            }
        }
        // To the compiler no rule at all is no condition.
        whole
            .iter()
            .filter_map(|number| rules.insert(*number, Vec::new()))
            .for_each(drop);
        let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(unsupported)?;
        let filter = SeccompFilter::new(rules, SeccompAction::Trap, SeccompAction::Allow, arch);
        let program = filter
            .and_then(BpfProgram::try_from)
            .map_err(io::Error::other)?;
        Ok(Program(program))
    }

    /// Lets the calling thread make these calls only, from now until it ends. [`catch`] comes
    /// before.
    ///
    /// Without CAP_SYS_ADMIN the kernel wants PR_SET_NO_NEW_PRIVS in return, which a thread that
    /// never calls execve(2) does not miss.
    ///
    /// Errors: EINVAL on a kernel without CONFIG_SECCOMP_FILTER, EPERM or ENOSYS where a container
    /// forbids it, ENOMEM.
    pub fn install(&self) -> Outcome<()> {
        let filter = self.0.as_ptr().cast_mut().cast::<libc::sock_filter>();
        let len = u16::try_from(self.0.len()).map_err(|_| Errno(libc::EINVAL))?;
        let program = libc::sock_fprog { len, filter };
        // A blocked SIGSYS would end the process at the first refused call.
        rtsignal::SignalSet::of([libc::SIGSYS])
            .unblock()
            .map_err(|e| Errno(e.raw_os_error().unwrap_or(libc::EINVAL)))?;
        // SAFETY: plain integers in, errno out.
        if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } < 0 {
            return Err(Errno::last());
        }
        // Without the flag, kernels before 5.16 slow the whole thread down
        // (spec_store_bypass_disable=seccomp), as if it ran a stranger's code; a kernel before 4.17
        // does not know it.
        match set_filter(libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW, &program) {
            Err(Errno(libc::EINVAL)) => set_filter(0, &program),
            other => other,
        }
    }
}

fn set_filter(flags: libc::c_ulong, program: &libc::sock_fprog) -> Outcome<()> {
    // SAFETY: the kernel copies the instructions that `program` points to, which live through the
    // call.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            std::ptr::from_ref(program),
        )
    };
    if rc < 0 { Err(Errno::last()) } else { Ok(()) }
}

fn when(argument: u8, value: u32) -> io::Result<SeccompRule> {
    let is = SeccompCondition::new(
        argument,
        SeccompCmpArgLen::Dword,
        SeccompCmpOp::Eq,
        value.into(),
    );
    SeccompRule::new(vec![is.map_err(io::Error::other)?]).map_err(io::Error::other)
}

fn unsupported(e: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, e.to_string())
}

// The compiler's instructions are handed to the kernel as they are.
const _: () = assert!(size_of::<seccompiler::sock_filter>() == size_of::<libc::sock_filter>());

/// The reaction to a call that a filter trapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It fails with EPERM.
    Refuse,
    /// The filter is not ours: what SIGSYS does by default.
    NotOurs,
}

/// Decides about trapped calls. Called in a signal handler, so async-signal-safe
/// (signal-safety(7)).
pub trait OnTrap {
    /// The calling thread tried this call.
    fn trapped(number: u32) -> Answer;
}

/// Has trapped calls of this process answered by `T`. Before the first thread that is filtered.
pub fn catch<T: OnTrap>() -> io::Result<()> {
    // SAFETY: sigaction is plain data for which zero is a value.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler::<T> as *const () as libc::sighandler_t;
    // Not on the alternate stack: that one may not be resident, a lane's own stack is.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
    // SAFETY: the action is initialised; the handler has the signature that SA_SIGINFO asks for.
    if unsafe { libc::sigaction(libc::SIGSYS, &raw const action, std::ptr::null_mut()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// siginfo_t of a trapped call (sigaction(2), SYS_SECCOMP).
#[repr(C)]
struct Trapped {
    signo: i32,
    errno: i32,
    code: i32,
    #[cfg(target_pointer_width = "64")]
    align: i32,
    address: usize,
    number: i32,
    arch: u32,
}
const _: () = assert!(size_of::<Trapped>() <= size_of::<libc::siginfo_t>());

/// Said by the kernel alone: it refuses a code above 0 to a process that sends a signal to another
/// process.
const SYS_SECCOMP: i32 = 1;

extern "C" fn handler<T: OnTrap>(_signo: i32, info: *const Trapped, context: *mut libc::c_void) {
    // SAFETY: the kernel hands SA_SIGINFO handlers a siginfo_t, of which `Trapped` is a part; the
    // two numbers behind the code are read for the code that they belong to only.
    let (code, number) = unsafe { ((*info).code, (*info).number) };
    if code != SYS_SECCOMP {
        // A stranger's kill(2): nothing was trapped.
        return;
    }
    match T::trapped(number.cast_unsigned()) {
        // SAFETY: the third argument of an SA_SIGINFO handler is the thread's ucontext_t, which
        // nobody else uses.
        Answer::Refuse => unsafe { set_result(context.cast(), -i64::from(libc::EPERM)) },
        Answer::NotOurs => {
            // SAFETY: integers in, errno out. SIGSYS is blocked until the handler returns, and then
            // ends the process.
            unsafe {
                libc::signal(libc::SIGSYS, libc::SIG_DFL);
                libc::raise(libc::SIGSYS);
            }
        }
    }
}

/// The result of the interrupted system call.
///
/// # Safety
/// 1. `context` is the context of a thread that the kernel interrupted in a system call.
#[cfg(target_arch = "x86_64")]
unsafe fn set_result(context: *mut libc::ucontext_t, result: i64) {
    // SAFETY: the caller's contract.
    unsafe { (*context).uc_mcontext.gregs[libc::REG_RAX as usize] = result };
}

/// The result of the interrupted system call.
///
/// # Safety
/// 1. `context` is the context of a thread that the kernel interrupted in a system call.
#[cfg(target_arch = "aarch64")]
unsafe fn set_result(context: *mut libc::ucontext_t, result: i64) {
    // SAFETY: the caller's contract.
    unsafe { (*context).uc_mcontext.regs[0] = result.cast_unsigned() };
}

/// If [`Program::compile`] compiles no filter, no call is trapped.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
unsafe fn set_result(_context: *mut libc::ucontext_t, _result: i64) {}
