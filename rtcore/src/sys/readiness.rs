//! Whether a process would take a signal, or die of it, or never see it: the signal masks and
//! dispositions of its threads (proc_pid_status(5)).
//!
//! A thread that sleeps in sigwaitinfo(2) shows the signals that it waits for as not blocked: the
//! kernel unblocks them for as long as the call lasts, and keeps the real mask to itself. Such a
//! thread is recognised by the kernel function in which it sleeps (/proc/PID/task/TID/wchan). That
//! file needs PTRACE_MODE_READ, which has the same user and CAP_SYS_PTRACE, also under Yama, and
//! reads as `0` without it. /proc/PID/task/TID/syscall would say the same, but needs the right to
//! attach, and it waits for an execve(2) of the process, which may take for ever (see
//! [`super::procfs`]). Which signals a thread waits for is not visible.
//!
//! Allocates; control thread and tools only. Invariant: nothing here waits for the process.

use super::procfs::{field, mask, named, text};
use std::io;

/// Limit of the checked threads of one process; the others count as unseen.
const THREADS_MAX: usize = 1024;
/// Looks at a thread that does something else at each.
const TRIES_MAX: usize = 3;

/// The reception of the requested signals; bit n-1 is signal n. A signal in none of them would end
/// the process, or do whatever else is its default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// A handler, sigwaitinfo(2) or signalfd(2) takes it, now or later.
    pub ready: u64,
    /// It is thrown away (SIG_IGN).
    pub ignored: u64,
    /// It is taken if some thread waits in sigwaitinfo(2), which could not be seen.
    pub unseen: u64,
    /// Nor can it be seen later, because this process may not read it. Otherwise a thread was about
    /// to sleep or to wake.
    pub hidden: bool,
    /// Some thread blocks it.
    pub blocked: u64,
    /// The one thread that was asked about has ended.
    pub thread_ended: bool,
}

/// The signals of one thread, by their treatment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Thread {
    /// It blocks them, or waits for them in sigwaitinfo(2).
    keeps: u64,
    /// It lets them through, unless it waits for them, which cannot be seen.
    unseen: u64,
    /// It blocks them.
    blocked: u64,
}

/// The lines of a status file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Masks {
    sleeps: bool,
    blocked: u64,
    ignored: u64,
    caught: u64,
}

/// The reception of the signals `wanted`, sent to the process, or only to its thread `tid`.
///
/// Nothing is ready where there is no such process or thread.
///
/// # Errors
/// EACCES where /proc hides the process; ENOENT for a process that has ended.
pub fn read(pid: i32, tid: Option<i32>, wanted: u64) -> io::Result<Readiness> {
    let tids = match tid {
        Some(tid) => vec![tid],
        None => thread_ids(pid)?,
    };
    let mut found = Readiness::default();
    // Dispositions are the whole process': those of a thread that lives.
    let mut open = None;
    let (mut keep, mut kept) = (u64::MAX, u64::MAX);
    for tid in tids.iter().copied().take(THREADS_MAX) {
        let Some(masks) = masks(pid, tid)? else {
            continue;
        };
        let open = *open.get_or_insert_with(|| {
            found.ready = wanted & masks.caught;
            found.ignored = wanted & masks.ignored;
            wanted & !masks.caught
        });
        if open == 0 {
            return Ok(found);
        }
        let thread = thread(pid, tid, open)?.unwrap_or(Thread {
            keeps: open,
            ..Thread::default()
        });
        keep &= thread.keeps;
        kept &= thread.keeps | thread.unseen;
        found.blocked |= thread.blocked;
    }
    let Some(open) = open else {
        found.thread_ended = tid.is_some();
        return Ok(found);
    };
    if tids.len() > THREADS_MAX {
        keep = 0;
    }
    // A program that blocks a signal in one thread does so for the sake of another one that takes
    // it.
    let ready = open & (keep | kept & found.blocked);
    found.ready |= ready;
    found.ignored &= open & !ready;
    found.unseen = open & kept & !ready & !found.ignored;
    found.hidden = found.unseen != 0 && is_hidden(pid);
    Ok(found)
}

fn thread_ids(pid: i32) -> io::Result<Vec<i32>> {
    let tasks = format!("/proc/{pid}/task");
    let mut tids = Vec::new();
    for entry in std::fs::read_dir(&tasks).map_err(|e| named(&tasks, e))? {
        let name = entry.map_err(|e| named(&tasks, e))?.file_name();
        tids.extend(name.to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    Ok(tids)
}

/// None for a thread that has ended.
fn thread(pid: i32, tid: i32, open: u64) -> io::Result<Option<Thread>> {
    let mut unseen = 0;
    for _ in 0..TRIES_MAX {
        let Some(now) = masks(pid, tid)? else {
            return Ok(None);
        };
        let blocked = open & now.blocked;
        let waits = if blocked == open {
            Some(true)
        } else {
            sleeps_in_sigwait(pid, tid, now.sleeps)
        };
        if waits == Some(true) {
            return Ok(Some(Thread {
                keeps: open,
                blocked,
                unseen: 0,
            }));
        }
        // It may have left the call since its mask was read, and then blocks the signals again.
        let Some(after) = masks(pid, tid)? else {
            return Ok(None);
        };
        match waits {
            Some(_) if open & after.blocked == blocked => {
                return Ok(Some(Thread {
                    keeps: blocked,
                    blocked,
                    unseen: 0,
                }));
            }
            Some(_) => {}
            None => unseen += 1,
        }
        if unseen == TRIES_MAX {
            return Ok(Some(Thread {
                keeps: blocked,
                blocked,
                unseen: open & !blocked,
            }));
        }
    }
    // It enters and leaves the call between the reads.
    Ok(Some(Thread {
        keeps: open,
        ..Thread::default()
    }))
}

/// Whether wchan shows nothing about this process's threads, or about any.
fn is_hidden(pid: i32) -> bool {
    // This link needs the same right, and its error shows a missing one.
    let refused = std::fs::read_link(format!("/proc/{pid}/exe"))
        .is_err_and(|e| e.kind() == io::ErrorKind::PermissionDenied);
    refused || !std::path::Path::new("/proc/self/wchan").exists()
}

/// Whether the thread is in sigwaitinfo(2) or sigtimedwait(2); none where that is not visible.
fn sleeps_in_sigwait(pid: i32, tid: i32, sleeps: bool) -> Option<bool> {
    // It may be about to fall asleep there, or on its way out.
    if !sleeps {
        return None;
    }
    let function = std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/wchan")).ok()?;
    match function.as_str() {
        // Not permitted; or it has not left its CPU yet, or has just been woken.
        "" | "0" => None,
        function => Some(function.contains("sigtimedwait")),
    }
}

/// None for a thread that has ended.
fn masks(pid: i32, tid: i32) -> io::Result<Option<Masks>> {
    let path = format!("/proc/{pid}/task/{tid}/status");
    match text(&path) {
        Ok(text) => Ok(parse(&text)),
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => Ok(None),
        Err(e) => Err(named(&path, e)),
    }
}

/// None for a thread that has ended but is still listed, or is about to end: one that has given up
/// its signal state shows empty masks, and zero threads.
fn parse(text: &str) -> Option<Masks> {
    let state = field(text, "State")?;
    if state.starts_with(['Z', 'X']) || field(text, "Threads")? == "0" {
        return None;
    }
    Some(Masks {
        sleeps: state.starts_with('S'),
        blocked: mask(text, "SigBlk")?,
        ignored: mask(text, "SigIgn")?,
        caught: mask(text, "SigCgt")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::rtsignal::{self, SignalSet, bit};
    use crate::sys::{epoll, sched};
    use std::sync::mpsc;

    fn signo(n: i32) -> i32 {
        rtsignal::rt_range().1 - n
    }

    /// A thread that does `first`, reports it, and then does `then`.
    fn thread_that(
        first: impl FnOnce() + Send + 'static,
        then: impl FnOnce() + Send + 'static,
    ) -> i32 {
        let (tx, rx) = mpsc::channel();
        std::thread::spawn(move || {
            first();
            tx.send(sched::gettid()).unwrap();
            then();
        });
        rx.recv().unwrap()
    }

    fn own_thread(tid: i32, wanted: u64) -> Readiness {
        read(sched::getpid(), Some(tid), wanted).unwrap()
    }

    #[test]
    fn a_thread_that_blocks_or_waits_is_ready_and_one_that_does_neither_is_not() {
        let (end, until) = mpsc::channel::<()>();
        let wanted = bit(signo(20)) | bit(signo(21));
        let block = move || epoll::block_signals(bit(signo(20))).unwrap();
        let tid = thread_that(block, move || {
            let _ = until.recv();
        });
        let found = own_thread(tid, wanted);
        assert_eq!(
            (found.ready, found.blocked),
            (bit(signo(20)), bit(signo(20)))
        );
        assert!(
            found.ignored == 0 && !found.hidden,
            "our own threads are visible: {found:?}"
        );
        drop(end);

        let set = SignalSet::of([signo(22)]);
        let tid = thread_that(
            move || set.block().unwrap(),
            move || {
                let _ = rtsignal::wait(&set);
            },
        );
        let asleep = || sleeps_in_sigwait(sched::getpid(), tid, true) == Some(true);
        while !asleep() {
            std::thread::yield_now();
        }
        assert_eq!(
            masks(sched::getpid(), tid).unwrap().unwrap().blocked & bit(signo(22)),
            0
        );
        assert_eq!(own_thread(tid, bit(signo(22))).ready, bit(signo(22)));
        rtsignal::queue_to_thread(sched::getpid(), tid, signo(22), 0, 0, 0).unwrap();
    }

    /// After the wake-up it waits for the CPU, which the checking thread occupies: its mask still
    /// shows the signal as not blocked.
    #[test]
    fn a_thread_that_was_woken_and_has_not_run_yet_is_never_taken_for_one_that_is_not_ready() {
        let cpu = *crate::sys::cpus::allowed().unwrap().first().unwrap();
        let signo = signo(19);
        let set = SignalSet::of([signo]);
        let waiter = thread_that(
            move || {
                set.block().unwrap();
                sched::pin(cpu).unwrap();
                let idle = libc::sched_param { sched_priority: 0 };
                // SAFETY: 0 is the calling thread; a valid parameter.
                let result =
                    unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const idle) };
                assert_eq!(result, 0);
            },
            move || while rtsignal::wait(&set).is_ok_and(|received| received.value != u64::MAX) {},
        );
        let observed = move || {
            sched::pin(cpu).unwrap();
            let look = |_| {
                while sleeps_in_sigwait(sched::getpid(), waiter, true) != Some(true) {
                    std::thread::sleep(std::time::Duration::from_micros(100));
                }
                rtsignal::queue_to_thread(sched::getpid(), waiter, signo, 0, 0, 0).unwrap();
                own_thread(waiter, bit(signo))
            };
            (0..50).map(look).collect::<Vec<_>>()
        };
        let observed = std::thread::spawn(observed).join().unwrap();
        let wrong = observed
            .iter()
            .find(|found| (found.ready | found.unseen) & bit(signo) == 0);
        assert_eq!(wrong, None);
        assert!(
            observed.iter().any(|found| found.unseen != 0),
            "the waiter ran each time before the look"
        );
        rtsignal::queue_to_thread(sched::getpid(), waiter, signo, u64::MAX, 0, 0).unwrap();
    }

    #[test]
    fn a_status_is_read_and_one_of_a_thread_that_ends_is_none() {
        let text = "Name:\tx\nState:\tS (sleeping)\nThreads:\t2\nSigBlk:\t0000000000000001\nSigIgn:\t0000000000000002\n\
                    SigCgt:\t8000000000000004\n";
        let expected = Masks {
            sleeps: true,
            blocked: 1,
            ignored: 2,
            caught: 1 << 63 | 4,
        };
        assert_eq!(parse(text), Some(expected));
        assert_eq!(parse(&text.replace("S (sleeping)", "Z (zombie)")), None);
        assert_eq!(parse(&text.replace("Threads:\t2", "Threads:\t0")), None);
        assert_eq!(parse(&text.replace("SigCgt", "Sig")), None);
    }

    #[test]
    fn of_a_process_that_has_ended_nothing_is_ready() {
        let mut child = std::process::Command::new("/bin/true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        child.wait().unwrap();
        assert!(read(pid, None, u64::MAX).is_err());
        let ended = Readiness {
            thread_ended: true,
            ..Readiness::default()
        };
        assert_eq!(read(pid, Some(pid), u64::MAX).unwrap(), ended);
    }
}
