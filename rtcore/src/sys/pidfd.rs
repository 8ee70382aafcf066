//! Process descriptors: death that cannot be confused by pid reuse (pidfd_open(2)).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Makes `slot`'s number refer to `fd`'s process, atomically (dup3(2)).
pub fn replace(fd: BorrowedFd<'_>, slot: &OwnedFd) -> io::Result<()> {
    // SAFETY: both descriptors are open for the call (borrowed); dup3 over an owned number keeps the
    // ownership of that number where it was.
    let rc = unsafe { libc::dup3(fd.as_raw_fd(), slot.as_fd().as_raw_fd(), libc::O_CLOEXEC) };
    if rc < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
