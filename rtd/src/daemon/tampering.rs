//! Notices when somebody outside changes how rtd's real-time threads are scheduled: policy,
//! priority or CPUs, by chrt(1), taskset(1), a cpuset or a CPU that goes offline.
//!
//! The control thread compares, about twice a second, what the kernel says of each thread with what
//! it said when the thread was started. A change counts when two looks in a row agree on it, so
//! that the watchdog's own demotion, which shows on the page a moment after it is made, is not
//! taken for one.

use crate::log;
use crate::plan::watch::OnTampering;
use rtcore::sys::sched::{self, Placement};

/// Ticks between two looks; a change is reported at the second that sees it, within a second.
const TICKS: u32 = 4;

/// All threads that are looked at.
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
    /// How it was started.
    intended: Placement,
    last: Placement,
    last_reported: Placement,
}

/// Which thread of the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Thread {
    /// By index, as on the page.
    Lane(usize),
    /// Above all lanes.
    Watchdog,
}

impl Tampering {
    /// Takes down how the threads are scheduled now. One that cannot be read has ended, which
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

    /// At each tick of the control thread. `is_demoted` says which lane threads the watchdog has
    /// demoted; `show` is called, at each look, with whether a thread is scheduled as it was
    /// started.
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
    /// Whether it is scheduled as it should be; none when this look does not decide.
    fn check(&mut self, demoted: bool, on_tampering: OnTampering) -> Option<bool> {
        // One that has ended is reported elsewhere.
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
            // It failed before; what kept it from that may be over. Without a further line.
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
