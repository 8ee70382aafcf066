//! A child that runs a part of this program (fork(2)).
//!
//! Constraint: the process has one thread. A child of several would inherit locks, the heap's among
//! them, whose holders it does not have. The child writes its private pages again one by one, and
//! so does the parent: both touch again the pages that they want present, and the child has no
//! locked memory (mlockall(2)).
//!
//! Invariant: the child never returns to the caller. Destructors of the caller's frames, exit
//! handlers and buffers of the parent are the parent's alone.

use rtcore::sys::context::named;
use rtcore::sys::pidfd::Ending;
use rtcore::sys::procfs;
use rustix::process::{Pid, Signal};
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Exit status of a child whose work panicked; that of Rust's own main.
pub const PANICKED: u8 = 101;

/// A child that was not waited for yet is killed when this is dropped.
#[derive(Debug)]
pub struct ForkedChild {
    pid: Pid,
    ending: Option<Ending>,
}

/// Runs `work` in a child, whose exit status is the returned value. The child is killed when its
/// parent dies.
///
/// Errors: the process has more than one thread; EAGAIN at RLIMIT_NPROC or pids.max; ENOMEM.
pub fn fork_child(work: impl FnOnce() -> u8) -> io::Result<ForkedChild> {
    let threads = procfs::lasting_threads()?;
    if threads != 1 {
        let text = format!(
            "cannot fork: this process has {threads} threads, and a child would have one of them; fork first"
        );
        return Err(io::Error::new(io::ErrorKind::Unsupported, text));
    }
    // Otherwise the child would have a copy of the output that is not printed yet, and print it
    // with its own first line.
    io::stdout()
        .flush()
        .map_err(|e| named("cannot flush standard output", e))?;
    let parent = rustix::process::getpid();
    // SAFETY: there is one thread (above), so the child has all that its copy of the process needs.
    match unsafe { libc::fork() } {
        0 => be_child(parent, work),
        pid => match Pid::from_raw(pid.max(0)) {
            Some(pid) => Ok(ForkedChild { pid, ending: None }),
            None => Err(named("cannot fork", io::Error::last_os_error())),
        },
    }
}

/// SIGKILL, not SIGTERM: the caller may have that blocked, and a child has nothing to put in order.
fn be_child(parent: Pid, work: impl FnOnce() -> u8) -> ! {
    let tied = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    // The kernel does not report a parent that died before that call.
    let status = if tied.is_ok() && rustix::process::getppid() == Some(parent) {
        catch_unwind(AssertUnwindSafe(work)).unwrap_or(PANICKED)
    } else {
        PANICKED
    };
    // SAFETY: ends the process, with nothing run on the way.
    unsafe { libc::_exit(status.into()) }
}

impl ForkedChild {
    /// Its number; nobody else's until it was waited for.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Waits for its end (waitpid(2)).
    pub fn wait(&mut self) -> io::Result<Ending> {
        loop {
            if let Some(ending) = self.reap(0)? {
                return Ok(ending);
            }
        }
    }

    /// How it ended, if it has.
    pub fn try_wait(&mut self) -> io::Result<Option<Ending>> {
        self.reap(libc::WNOHANG)
    }

    fn reap(&mut self, flags: i32) -> io::Result<Option<Ending>> {
        if self.ending.is_some() {
            return Ok(self.ending);
        }
        let mut wait_status = 0;
        // SAFETY: `wait_status` is writable for the call.
        match unsafe { libc::waitpid(self.pid(), &raw mut wait_status, flags) } {
            0 => Ok(None),
            1.. => {
                self.ending = Some(Ending::from_wait_status(wait_status));
                Ok(self.ending)
            }
            _ => match io::Error::last_os_error() {
                e if e.kind() == io::ErrorKind::Interrupted => Ok(None),
                e => Err(named(format!("child {}", self.pid()), e)),
            },
        }
    }
}

impl Drop for ForkedChild {
    fn drop(&mut self) {
        if self.ending.is_none() {
            let _ = rustix::process::kill_process(self.pid, Signal::KILL);
            let _ = self.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_of_several_threads_is_refused() {
        let other = std::thread::spawn(std::thread::park);
        let refused = fork_child(|| 0).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::Unsupported);
        assert!(refused.to_string().contains("threads"), "{refused}");
        other.thread().unpark();
        other.join().unwrap();
    }
}
