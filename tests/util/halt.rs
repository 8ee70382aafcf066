//! Threads that do not move: one thread of another process stopped for as long as it takes, or
//! starved by a thread of ours.

use anyhow::Context as _;
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rtcore::skin::{self, OpenQueue};
use rtcore::sys::clock::monotonic_ns;
use rtcore::sys::mqueue::{self, Access};
use rtcore::sys::sched;
use std::ffi::CString;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Held by a test that keeps a CPU from others, and by one whose lanes must not be kept from theirs
/// by anybody but itself.
pub fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One thread, stopped by ptrace(2) while its process goes on. To be dropped on the thread that
/// made it.
#[derive(Debug)]
pub struct Halted(Pid);

impl Halted {
    /// Stops it.
    pub fn thread(tid: u32) -> anyhow::Result<Halted> {
        let tid = Pid::from_raw(i32::try_from(tid)?);
        ptrace::seize(tid, ptrace::Options::empty()).context("ptrace")?;
        let halted = Halted(tid);
        ptrace::interrupt(tid)?;
        let status = waitpid(tid, Some(WaitPidFlag::__WALL))?;
        anyhow::ensure!(matches!(status, WaitStatus::PtraceEvent(..)), "{status:?}");
        Ok(halted)
    }

    /// Waits until it has ended, still halted, with its process; that process can be waited for
    /// only then.
    pub fn ended(self) -> anyhow::Result<()> {
        let status = waitpid(self.0, Some(WaitPidFlag::__WALL))?;
        anyhow::ensure!(
            matches!(status, WaitStatus::Exited(..) | WaitStatus::Signaled(..)),
            "{status:?}"
        );
        Ok(())
    }
}

impl Drop for Halted {
    fn drop(&mut self) {
        // One that was killed meanwhile has nothing to be let go of; until it is waited for, its
        // process cannot be.
        if ptrace::detach(self.0, None).is_err() {
            let _ = waitpid(self.0, Some(WaitPidFlag::__WALL));
        }
    }
}

/// Longest time that a thread of ours keeps a CPU from everybody below it.
const STARVE_NS: u64 = 180_000_000;

/// A SCHED_FIFO thread of this priority on this CPU that sends one message and then does not let go
/// of the CPU for a while.
pub fn starve(
    cpu: usize,
    priority: u8,
    queue: &str,
) -> anyhow::Result<JoinHandle<anyhow::Result<()>>> {
    let queue = OpenQueue::open(skin::posix(), &CString::new(queue)?, Access::Send, true)?;
    Ok(std::thread::Builder::new()
        .name("hog".to_owned())
        .spawn(move || {
            sched::pin(cpu)?;
            sched::set_fifo(priority)?;
            mqueue::send(queue.mqd(), b"wake up", 0).map_err(std::io::Error::from)?;
            let until_ns = monotonic_ns() + STARVE_NS;
            while monotonic_ns() < until_ns {
                std::hint::spin_loop();
            }
            Ok(())
        })?)
}
