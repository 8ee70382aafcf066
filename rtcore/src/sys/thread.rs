//! The CPU time and the run state of a thread of this process, read by another thread
//! (pthread_getcpuclockid(3), proc_pid_stat(5)).
//!
//! Constraint: reading touches no heap and opens nothing; the watched thread does not notice.

use super::clock::ns_of;
use super::procfs::named;
use super::{Call, Errno};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;

/// The clock of the CPU time that one thread has had. Reading it fails (EINVAL) once the thread has
/// ended, also when its number is another process' by then.
#[derive(Clone, Copy, Debug)]
pub struct CpuClock(libc::clockid_t);

impl CpuClock {
    /// That of the calling thread, for others to read.
    pub fn of_this_thread() -> io::Result<CpuClock> {
        let mut clock = 0;
        // SAFETY: the calling thread is there; the id is ours to write.
        match unsafe { libc::pthread_getcpuclockid(libc::pthread_self(), &raw mut clock) } {
            0 => Ok(CpuClock(clock)),
            errno => Err(named("the thread's CPU clock", Errno(errno))),
        }
    }

    /// CPU time that the thread has used, in ns.
    pub fn read_ns(self) -> Call<u64> {
        let mut time = MaybeUninit::<libc::timespec>::uninit();
        // SAFETY: the time is ours to write.
        if unsafe { libc::clock_gettime(self.0, time.as_mut_ptr()) } < 0 {
            return Err(Errno::last());
        }
        // SAFETY: the call above succeeded and wrote it.
        let time = unsafe { time.assume_init() };
        Ok(ns_of(time.tv_sec, time.tv_nsec))
    }
}

/// Whether a thread waits, from its open /proc/self/task/TID/stat.
#[derive(Debug)]
pub struct TaskState(File);

impl TaskState {
    /// Opens the status file of a thread of this process.
    pub fn open(tid: i32) -> io::Result<TaskState> {
        let path = format!("/proc/self/task/{tid}/stat");
        File::open(&path).map(TaskState).map_err(|e| named(path, e))
    }

    /// Whether it sleeps and waits for something to happen (`S`, `I`); else it runs, would run if
    /// it got a CPU, is held by the kernel or stopped by a debugger. None when it has ended.
    pub fn waits(&self) -> Option<bool> {
        // The state comes behind the number and the name, which has at most 16 bytes in the kernel.
        let mut text = [0; 64];
        let n = rustix::io::pread(&self.0, &mut text, 0).ok()?;
        match state(text.get(..n)?)? {
            b'S' | b'I' => Some(true),
            b'Z' | b'X' => None,
            _ => Some(false),
        }
    }
}

/// The letter behind the name, which may itself have brackets in it.
fn state(stat: &[u8]) -> Option<u8> {
    let end = stat.iter().rposition(|&b| b == b')')?;
    stat.get(end + 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::sched;
    use std::sync::mpsc;

    #[test]
    fn a_name_with_brackets_misleads_nobody() {
        assert_eq!(state(b"12 (a) b (c) R 1 2"), Some(b'R'));
        assert_eq!(state(b"12 (a"), None);
        assert_eq!(state(b"12 (a)"), None);
    }

    #[test]
    fn waiting_and_running_threads_are_distinguished_until_they_end() {
        let (tx, rx) = mpsc::channel();
        let (go, gate) = mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            tx.send((sched::gettid(), CpuClock::of_this_thread().unwrap()))
                .unwrap();
            gate.recv()
        });
        let (tid, clock) = rx.recv().unwrap();
        let task = TaskState::open(tid).unwrap();
        while task.waits() != Some(true) {
            std::thread::yield_now();
        }
        let had_ns = clock.read_ns().unwrap();
        assert_eq!(
            had_ns,
            clock.read_ns().unwrap(),
            "it has not run in between"
        );
        let own = CpuClock::of_this_thread().unwrap();
        assert_eq!(
            TaskState::open(sched::gettid()).unwrap().waits(),
            Some(false)
        );
        let before_ns = own.read_ns().unwrap();
        while own.read_ns().unwrap() == before_ns {}
        drop(go);
        assert!(thread.join().unwrap().is_err());
        // A joined thread may still be on its last steps.
        while task.waits().is_some() {
            std::thread::yield_now();
        }
        assert_eq!(clock.read_ns(), Err(Errno(libc::EINVAL)));
    }
}
