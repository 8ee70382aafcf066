//! One thread of another process, followed from system call to system call (ptrace(2)).

use anyhow::{Context as _, bail};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// The main thread of a child, stopped between two system calls. Only the thread that attached may
/// use it.
pub struct Traced {
    thread: Pid,
    /// It stands before a call, not behind one.
    entered: bool,
}

impl Traced {
    /// Stops the main thread of this child.
    pub fn attach(pid: u32) -> anyhow::Result<Traced> {
        let thread = Pid::from_raw(i32::try_from(pid)?);
        ptrace::seize(thread, Options::PTRACE_O_TRACESYSGOOD).context("ptrace")?;
        ptrace::interrupt(thread)?;
        let mut traced = Traced {
            thread,
            entered: false,
        };
        traced.wait()?;
        Ok(traced)
    }

    fn wait(&mut self) -> anyhow::Result<WaitStatus> {
        Ok(waitpid(self.thread, Some(WaitPidFlag::__WALL))?)
    }

    /// Lets it run until it is about to make its next system call.
    pub fn next_call(&mut self) -> anyhow::Result<()> {
        let mut signal: Option<Signal> = None;
        loop {
            ptrace::syscall(self.thread, signal.take())?;
            match self.wait()? {
                WaitStatus::PtraceSyscall(_) => {
                    self.entered = !self.entered;
                    if self.entered {
                        return Ok(());
                    }
                }
                WaitStatus::Stopped(_, caught) => signal = Some(caught),
                WaitStatus::PtraceEvent(..) => {}
                other => bail!("the traced thread: {other:?}"),
            }
        }
    }

    /// Lets it go.
    pub fn detach(self) -> anyhow::Result<()> {
        Ok(ptrace::detach(self.thread, None)?)
    }
}
