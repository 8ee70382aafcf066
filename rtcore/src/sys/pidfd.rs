//! Process descriptors: death that cannot be confused by pid reuse (pidfd_open(2)).
//!
//! Becomes readable when the last thread has ended, for other people's children too, and before the
//! parent has reaped it. The pid cannot be given to anybody else until then, so "alive" after a
//! read of /proc/PID says that the read was about this process.

use super::procfs;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A descriptor of one thread (Linux 6.9); none where the kernel has no such thing.
///
/// Errors: ESRCH when there is no such thread.
pub fn open_thread(tid: i32) -> io::Result<Option<OwnedFd>> {
    // SAFETY: plain integers in, a new descriptor or an errno out.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, tid, PIDFD_THREAD) };
    match i32::try_from(fd) {
        // SAFETY: a new descriptor that nobody else owns.
        Ok(fd @ 0..) => Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) })),
        _ => match io::Error::last_os_error() {
            e if e.raw_os_error() == Some(libc::EINVAL) => Ok(None),
            e => Err(procfs::named(format!("thread {tid}"), e)),
        },
    }
}

/// pidfd_open(2). The number of the error stays; if the call itself is refused, the text has the
/// fix.
pub(super) fn pidfd_open(pid: Pid) -> io::Result<OwnedFd> {
    rustix::process::pidfd_open(pid, PidfdFlags::empty()).map_err(|e| match e {
        // The kernel needs no right for it (pidfd_open(2)): these two are a filter's, or a kernel's
        // before Linux 5.3.
        Errno::PERM | Errno::NOSYS => {
            let e = io::Error::from(e);
            io::Error::new(
                e.kind(),
                format!(
                    "pidfd_open(2) is refused ({e}): allow it in the container's seccomp profile or the unit's \
                     SystemCallFilter=; Linux has it since 5.3"
                ),
            )
        }
        e => e.into(),
    })
}

/// Whether [`PidFd::open`] failed because the call is refused, which shows nothing about the
/// process.
pub fn is_refused(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported
    )
}

/// include/uapi/linux/pidfd.h
const PIDFD_THREAD: libc::c_int = libc::O_EXCL;

/// Makes `slot`'s number refer to `fd`'s process, atomically (dup3(2)).
pub fn replace(fd: BorrowedFd<'_>, slot: &OwnedFd) -> io::Result<()> {
    // SAFETY: both descriptors are open for the call (borrowed); dup3 over an owned number keeps
    // the ownership of that number where it was.
    let rc = unsafe { libc::dup3(fd.as_raw_fd(), slot.as_fd().as_raw_fd(), libc::O_CLOEXEC) };
    if rc < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// A process, whatever becomes of its number.
#[derive(Debug)]
pub struct PidFd(OwnedFd);

impl PidFd {
    /// The process that has the pid now; also one that ended and was not reaped.
    pub fn open(pid: i32) -> io::Result<PidFd> {
        // Pid::from_raw panics on a negative number.
        let number = if pid > 0 { Pid::from_raw(pid) } else { None };
        let number = number.ok_or_else(|| {
            procfs::named(
                format!("pid {pid}"),
                io::Error::from(io::ErrorKind::InvalidInput),
            )
        })?;
        pidfd_open(number)
            .map(PidFd)
            .map_err(|e| procfs::named(format!("pid {pid}"), e))
    }

    /// Another descriptor of the same process.
    pub fn try_clone(&self) -> io::Result<PidFd> {
        self.0.try_clone().map(PidFd)
    }

    /// Takes a descriptor that the kernel handed out (SO_PEERPIDFD).
    pub(super) fn from_fd(fd: OwnedFd) -> PidFd {
        PidFd(fd)
    }

    /// False from the moment the last thread has ended.
    pub fn is_alive(&self) -> bool {
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // A zero timeout does not sleep, so there is nothing to interrupt; any other error is taken
        // for dead, the side on which no message goes to a stranger.
        matches!(poll(&mut fds, Some(&now)), Ok(0))
    }

    /// How the process ended, if the kernel reports it to a process other than its parent.
    ///
    /// After it was reaped, Linux 6.15 reports it on the descriptor; before that, /proc/PID/stat
    /// shows it to processes that may trace it.
    pub fn ending(&self, pid: i32) -> Option<Ending> {
        if let Some(wait_status) = self.reaped_wait_status() {
            return Some(Ending::from_wait_status(wait_status));
        }
        let wait_status = procfs::zombie_wait_status(pid);
        // Reaped meanwhile: the pid may have been somebody else's when we read, the descriptor
        // knows.
        if self.is_reaped() {
            return self.reaped_wait_status().map(Ending::from_wait_status);
        }
        wait_status.map(Ending::from_wait_status)
    }

    /// Whether this thread may send the process a signal (kill(2)): it is of our user, or CAP_KILL
    /// is ours.
    pub fn may_signal(&self) -> bool {
        self.probe() != Some(libc::EPERM)
    }

    /// Signal 0 reaches a process that nobody has waited for yet; EPERM shows that it exists.
    fn is_reaped(&self) -> bool {
        self.probe() == Some(libc::ESRCH)
    }

    /// The kernel's error for signal 0, which is checked and not sent.
    fn probe(&self) -> Option<i32> {
        // SAFETY: no pointers; siginfo may be null (pidfd_send_signal(2)).
        let rc = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.0.as_raw_fd(),
                0,
                std::ptr::null::<u8>(),
                0,
            )
        };
        if rc < 0 {
            io::Error::last_os_error().raw_os_error()
        } else {
            None
        }
    }

    fn reaped_wait_status(&self) -> Option<i32> {
        // struct pidfd_info, first published size (include/uapi/linux/pidfd.h); the libc crate has
        // it for no target yet.
        #[repr(C)]
        #[derive(Default)]
        struct PidfdInfo {
            mask: u64,
            cgroupid: u64,
            pid_to_creds: [u32; 11],
            exit_code: i32,
        }
        const PIDFD_INFO_EXIT: u64 = 1 << 3;
        const PIDFD_GET_INFO: libc::c_ulong =
            0xC000_FF0B | ((size_of::<PidfdInfo>() as libc::c_ulong) << 16);
        let mut info = PidfdInfo {
            mask: PIDFD_INFO_EXIT,
            ..PidfdInfo::default()
        };
        // SAFETY: the request number carries the size of `info`, which is what the kernel writes at
        // most; an older kernel answers ENOTTY or leaves the mask bit clear.
        let rc = unsafe { libc::ioctl(self.0.as_raw_fd(), PIDFD_GET_INFO as _, &raw mut info) };
        (rc == 0 && info.mask & PIDFD_INFO_EXIT != 0).then_some(info.exit_code)
    }
}

impl From<OwnedFd> for PidFd {
    /// Takes one that came by SCM_RIGHTS. Another kind of descriptor is readable by other rules:
    /// take them from the daemon alone.
    fn from(fd: OwnedFd) -> PidFd {
        PidFd(fd)
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ending {
    /// By exit(3) with this status.
    Exit(i32),
    Signal(i32),
}

impl Ending {
    /// From what waitpid(2) stores of a process that has ended.
    pub fn from_wait_status(wait_status: i32) -> Ending {
        if libc::WIFSIGNALED(wait_status) {
            return Ending::Signal(libc::WTERMSIG(wait_status));
        }
        Ending::Exit(libc::WEXITSTATUS(wait_status))
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ending::Exit(code) => write!(f, "exit status {code}"),
            Ending::Signal(signo) => write!(f, "killed by {}", super::signame::name(*signo)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;
    use std::time::Duration;

    fn wait_dead(fd: &PidFd) {
        let limit = Timespec {
            tv_sec: 5,
            tv_nsec: 0,
        };
        let n = poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&limit)).unwrap();
        assert_eq!(
            n,
            1,
            "the pidfd did not become readable within {:?}",
            Duration::from_secs(5)
        );
    }

    #[test]
    fn a_zombie_is_dead_before_anybody_reaps_it() {
        let mut child = Command::new("/bin/sh")
            .args(["-c", "exit 7"])
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let fd = PidFd::open(pid).unwrap();
        wait_dead(&fd);
        assert!(!fd.is_alive());
        assert!(!PidFd::open(pid).unwrap().is_alive(), "opened as a zombie");
        assert!(!fd.is_reaped());
        assert_eq!(fd.ending(pid), Some(Ending::Exit(7)));
        child.wait().unwrap();
        assert!(fd.is_reaped());
        assert_eq!(
            PidFd::open(pid)
                .map_err(|e| e.to_string().contains(&pid.to_string()))
                .err(),
            Some(true)
        );
    }

    #[test]
    fn a_killed_process_says_by_which_signal_also_after_it_was_reaped() {
        let mut child = Command::new("/bin/sleep").arg("10").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let fd = PidFd::open(pid).unwrap();
        assert!(fd.is_alive());
        assert_eq!(fd.ending(pid), None);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!fd.is_alive());
        // None before Linux 6.15.
        assert!(matches!(fd.ending(pid), Some(Ending::Signal(9)) | None));
    }

    #[test]
    fn no_process_has_a_pid_below_one() {
        for pid in [0, -1, i32::MIN] {
            assert!(PidFd::open(pid).is_err());
        }
    }
}
