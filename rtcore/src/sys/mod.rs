//! Kernel objects, one per file.
//!
//! Contract: everything here is RAII over a kernel object or a thin call on one, returns
//! `io::Result` whose error text names the object, and keeps no global state. Nothing outside `sys`
//! and `skin` touches libc, nix or rustix.

pub mod accounts;
pub mod altstack;
pub mod caps;
pub mod clock;
pub mod context;
pub mod cpus;
pub mod emergency_stderr;
pub mod epoll;
pub mod eventfd;
pub mod forked;
pub mod futex;
pub mod idle;
pub mod ids;
pub mod keepfile;
pub mod limits;
pub mod memdir;
pub mod memfd;
pub mod memory;
pub mod mqueue;
pub mod openers;
pub mod optional;
pub mod permission_hints;
pub mod pidfd;
pub mod poll;
pub mod printable;
pub mod process;
pub mod procfs;
pub mod readiness;
pub mod room;
pub mod rtsignal;
pub mod sched;
pub mod seccomp;
pub mod sem;
pub mod seqpacket;
pub mod shm;
pub mod sigaction;
pub mod signame;
pub mod sigqueue;
pub mod startup;
pub mod terminal;
pub mod thread;
pub mod throttle;
pub mod timerfd;

/// The result of a real-time call.
pub type Call<T> = Result<T, Errno>;

/// An errno(3) value: the error of a real-time call, `Copy` and without a heap.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

impl Errno {
    /// Interrupted by a signal handler.
    pub const INTR: Errno = Errno(libc::EINTR);
    /// Nothing there, or no room.
    pub const AGAIN: Errno = Errno(libc::EAGAIN);
    /// No such process.
    pub const SRCH: Errno = Errno(libc::ESRCH);
    /// Not a descriptor of the right kind.
    pub const BADF: Errno = Errno(libc::EBADF);
    /// Longer than the receiver takes.
    pub const MSGSIZE: Errno = Errno(libc::EMSGSIZE);
    pub const PERM: Errno = Errno(libc::EPERM);
    /// Not a possible argument.
    pub const INVAL: Errno = Errno(libc::EINVAL);
    /// No such system call.
    pub const NOSYS: Errno = Errno(libc::ENOSYS);
    /// Its time was up.
    pub const TIMEDOUT: Errno = Errno(libc::ETIMEDOUT);
    /// The other end is gone.
    pub const PIPE: Errno = Errno(libc::EPIPE);
    /// Its object has been replaced by a newer one.
    pub const STALE: Errno = Errno(libc::ESTALE);
    /// Not a message of the kind that is expected.
    pub const BADMSG: Errno = Errno(libc::EBADMSG);
    /// The holder of the lock died.
    pub const OWNERDEAD: Errno = Errno(libc::EOWNERDEAD);

    /// The calling thread's errno.
    #[inline]
    pub fn last() -> Errno {
        Errno(nix::errno::Errno::last_raw())
    }
}

impl From<rustix::io::Errno> for Errno {
    fn from(e: rustix::io::Errno) -> Errno {
        Errno(e.raw_os_error())
    }
}

impl From<Errno> for std::io::Error {
    fn from(e: Errno) -> Self {
        std::io::Error::from_raw_os_error(e.0)
    }
}

impl std::fmt::Debug for Errno {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", nix::errno::Errno::from_raw(self.0))
    }
}

impl std::fmt::Display for Errno {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(nix::errno::Errno::from_raw(self.0).desc())
    }
}
