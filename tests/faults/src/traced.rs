//! Faults at a chosen place of a program: at one of its system calls, or between two of its instructions (ptrace(2)).

#[path = "../../util/trace.rs"]
#[expect(dead_code, reason = "what is traced here is killed, not let go")]
mod trace;

use anyhow::Context as _;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use trace::Traced;

/// A thread that does not come to its next instruction for so long sleeps.
const SLEEP: Duration = Duration::from_millis(20);

/// A thread that follows the main thread of a process, and kills the process before a system call.
///
/// Only the thread that attached may give orders to what it traces, and the campaign has to act meanwhile.
#[derive(Debug)]
pub struct Killer {
    thread: JoinHandle<anyhow::Result<()>>,
    stop: Sender<()>,
}

impl Killer {
    /// From now on, the process ends before its `calls`-th system call.
    pub fn at_call(pid: Pid, calls: u64) -> anyhow::Result<Killer> {
        let (stop, stopped) = channel();
        let (tell, attached) = channel();
        let id = u32::try_from(pid.as_raw())?;
        let thread = std::thread::spawn(move || {
            let mut traced = Traced::attach(id)?;
            let _ = tell.send(());
            follow(&mut traced, pid, calls, &stopped)
        });
        attached.recv().context("the process cannot be traced")?;
        Ok(Killer { thread, stop })
    }

    /// Kills it now if it has not reached that call; returns when it is dying.
    pub fn finish(self, pid: Pid) -> anyhow::Result<()> {
        let _ = self.stop.send(());
        // It may wait in a call: the kill ends that, and the thread that follows it. Whoever waits first reaps it.
        let _ = kill(pid, Signal::SIGKILL);
        self.thread.join().map_err(|_| anyhow::anyhow!("the tracer panicked"))?
    }
}

fn follow(traced: &mut Traced, pid: Pid, calls: u64, stopped: &Receiver<()>) -> anyhow::Result<()> {
    for _ in 0..calls {
        // An error is the end of the process.
        if stopped.try_recv().is_ok() || traced.next_call().is_err() {
            return Ok(());
        }
    }
    Ok(kill(pid, Signal::SIGKILL)?)
}

/// Lets the main thread of a process run for so many instructions, then kills the process. One that sleeps is killed in its
/// sleep.
pub fn kill_after_steps(pid: Pid, steps: u64) -> anyhow::Result<()> {
    ptrace::seize(pid, Options::empty()).context("ptrace")?;
    ptrace::interrupt(pid)?;
    let mut status = stopped(pid)?;
    for _ in 0..steps {
        let signal = match status {
            WaitStatus::Stopped(_, Signal::SIGTRAP) | WaitStatus::PtraceEvent(..) => None,
            WaitStatus::Stopped(_, caught) => Some(caught),
            _ => break,
        };
        ptrace::step(pid, signal)?;
        status = stopped(pid)?;
    }
    Ok(kill(pid, Signal::SIGKILL)?)
}

/// The next stop of a traced thread; [`WaitStatus::StillAlive`] if it sleeps.
fn stopped(pid: Pid) -> anyhow::Result<WaitStatus> {
    let start = Instant::now();
    loop {
        let status = waitpid(pid, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG))?;
        if status != WaitStatus::StillAlive || start.elapsed() > SLEEP {
            return Ok(status);
        }
        std::hint::spin_loop();
    }
}
