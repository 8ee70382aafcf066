//! Faults at a chosen place of a program: at one of its system calls, or between two of its
//! instructions (ptrace(2)).

#[path = "../../util/trace.rs"]
#[expect(dead_code, reason = "what is traced here is killed, not let go")]
mod trace;

use anyhow::Context as _;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use trace::Traced;

/// A thread that does not come to its next instruction for so long sleeps.
const SLEEP: Duration = Duration::from_millis(20);

/// A thread that follows the main thread of a process, and kills the process before a system call.
///
/// Only the thread that attached may give orders to what it traces, and the campaign has to act
/// meanwhile.
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
        // It may wait in a call: the kill ends that, and the thread that follows it. The first
        // thread that waits reaps it.
        let _ = kill(pid, Signal::SIGKILL);
        self.thread
            .join()
            .map_err(|_| anyhow::anyhow!("the tracer panicked"))?
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

/// Lets the main thread of a process run for so many instructions, then kills the process. One that
/// sleeps is killed in its sleep.
pub fn kill_after_steps(pid: Pid, steps: u64) -> anyhow::Result<()> {
    ptrace::seize(pid, Options::empty()).context("ptrace")?;
    ptrace::interrupt(pid)?;
    let mut status = stopped(pid)?;
    for _ in 0..steps {
        let Some(status_now) = status.filter(|status| libc::WIFSTOPPED(*status)) else {
            break;
        };
        let event = status_now >> 16;
        let signal = if event != 0 || libc::WSTOPSIG(status_now) == libc::SIGTRAP {
            0
        } else {
            libc::WSTOPSIG(status_now)
        };
        // Not nix's: it knows no real-time signal.
        // SAFETY: numbers only; the thread is traced and has stopped.
        let stepped = unsafe {
            libc::ptrace(
                libc::PTRACE_SINGLESTEP,
                pid.as_raw(),
                0_usize,
                signal as usize,
            )
        };
        anyhow::ensure!(
            stepped == 0,
            "PTRACE_SINGLESTEP: {}",
            std::io::Error::last_os_error()
        );
        status = stopped(pid)?;
    }
    Ok(kill(pid, Signal::SIGKILL)?)
}

/// How a traced thread stopped or ended (waitpid(2)); none if it sleeps.
fn stopped(pid: Pid) -> anyhow::Result<Option<i32>> {
    let start = Instant::now();
    let mut status = 0;
    loop {
        // SAFETY: `status` is ours to write for the call.
        let waited =
            unsafe { libc::waitpid(pid.as_raw(), &raw mut status, libc::__WALL | libc::WNOHANG) };
        anyhow::ensure!(waited >= 0, "waitpid: {}", std::io::Error::last_os_error());
        if waited > 0 {
            return Ok(Some(status));
        }
        if start.elapsed() > SLEEP {
            return Ok(None);
        }
        std::hint::spin_loop();
    }
}
