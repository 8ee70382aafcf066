//! Detects changes from outside of the scheduling of rtd's real-time threads: policy, priority or
//! CPUs, by chrt(1), taskset(1), a cpuset or a CPU that goes offline.
//!
//! About twice a second the control thread compares the kernel's values for each thread with those
//! at its start. A change counts if two checks in a row agree on it, so that the watchdog's own
//! demotion, which shows on the page a moment later, is not mistaken for one.

use crate::log;
use crate::plan::watch::OnTampering;
use rtcore::sys::sched::{self, Placement};

/// Ticks between two checks; a change is reported at the second check that sees it, within a
/// second.
const TICKS: u32 = 4;

/// All checked threads.
#[derive(Debug)]
pub(super) struct Tampering {
    on_tampering: OnTampering,
    subjects: Vec<Subject>,
    ticks: u32,
}

#[derive(Debug)]
struct Subject {
    thread: Thread,
    name: String,
    tid: i32,
    /// Its settings at the start.
    intended: Placement,
    last: Placement,
    last_reported: Placement,
}

/// A thread of the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Thread {
    /// A lane thread, by its index on the page.
    Lane(usize),
    /// The watchdog.
    Watchdog,
}

impl Tampering {
    /// Records the current settings of the threads. A thread that cannot be read has ended, which
    /// others report.
    pub fn new(
        on_tampering: OnTampering,
        threads: impl IntoIterator<Item = (Thread, String, i32)>,
    ) -> Tampering {
        let subject = |(thread, name, tid)| {
            let now = sched::placement(tid).ok()?;
            Some(Subject {
                thread,
                name,
                tid,
                intended: now.clone(),
                last: now.clone(),
                last_reported: now,
            })
        };
        Tampering {
            on_tampering,
            subjects: threads.into_iter().filter_map(subject).collect(),
            ticks: 0,
        }
    }

    /// Called at each tick of the control thread. `is_demoted` tells which lane threads the
    /// watchdog has demoted; `show` is called, at each check, with whether a thread still has its
    /// settings.
    pub fn tick(&mut self, is_demoted: impl Fn(usize) -> bool, mut show: impl FnMut(Thread, bool)) {
        self.ticks += 1;
        if self.ticks < TICKS {
            return;
        }
        self.ticks = 0;
        for subject in &mut self.subjects {
            let demoted = matches!(subject.thread, Thread::Lane(index) if is_demoted(index));
            if let Some(intact) = subject.check(demoted, self.on_tampering) {
                show(subject.thread, intact);
            }
        }
    }
}

impl Subject {
    /// Whether it has its settings; none if this check does not decide.
    fn check(&mut self, demoted: bool, on_tampering: OnTampering) -> Option<bool> {
        // A thread that has ended is reported elsewhere.
        let now = sched::placement(self.tid).ok()?;
        let agreed = now == self.last;
        self.last = now;
        if !agreed {
            return None;
        }
        let mut intended = self.intended.clone();
        if demoted {
            (intended.policy, intended.priority) = sched::ORDINARY;
        }
        let intact = self.last == intended;
        if self.last != self.last_reported {
            // The demotion has a line of its own.
            if !intact {
                self.report(&intended, on_tampering);
            } else if !demoted {
                log::info(format_args!(
                    "{} (tid {}) has {} again",
                    self.name, self.tid, self.last
                ));
            }
            self.last_reported = self.last.clone();
        } else if !intact && on_tampering == OnTampering::Restore {
            // The restoration failed before; its cause may be gone. No further line.
            let _ = sched::place(self.tid, &intended);
        }
        Some(intact)
    }

    fn report(&self, intended: &Placement, on_tampering: OnTampering) {
        let Subject {
            name, tid, last, ..
        } = self;
        let what = format!(
            "the scheduling of {name} (tid {tid}) was changed from outside: it was {intended} and is {last}"
        );
        match on_tampering {
            OnTampering::Report => log::error(format_args!(
                "{what}; find what changes it (chrt, taskset, a cpuset, a CPU that went offline) and restart rtd, or set \
                 on_tampering = \"restore\" in [daemon]"
            )),
            OnTampering::Restore => match sched::place(*tid, intended) {
                Ok(()) => log::error(format_args!("{what}; restored")),
                Err(e) => log::error(format_args!("{what}; it cannot be restored: {e}")),
            },
        }
    }
}
