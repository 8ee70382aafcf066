//! The watchdog: a thread above all lanes that samples each of them, reports its findings, and
//! reacts to a lane that runs away as configured.
//!
//! It is sealed as a lane thread is and makes these system calls: rt_sigtimedwait (it sleeps in it,
//! so that SIGXCPU wakes it), clock_gettime of the lanes' CPU clocks, pread of their open
//! /proc/self/task/TID/stat, sched_setscheduler to demote, prlimit64 to put RLIMIT_RTTIME back;
//! and, only if the control thread cannot report, ppoll and write on standard error and exit_group.
//!
//! Its findings go to the page and, as `Copy` notices through a ring, to the control thread, which
//! logs them. If that thread does not run, a prepared line goes directly to standard error.
//!
//! Invariant: it waits for nothing except its clock. The control thread waits for it only to end.

mod notice;
mod running;
mod stall_detector;

pub use notice::{Cause, Notice, Runaway, What};
pub use running::{Granted, LaneRanAway, Running, Watched};
pub use stall_detector::{Bounds, StallDetector, Still};

use crate::plan::watch::OnRunaway;
use notice::Lines;
use rtcore::lane::progress::Progress;
use rtcore::seal;
use rtcore::stats::guard::GuardCell;
use rtcore::sys::rtsignal::{self, SignalSet};
use rtcore::sys::thread::{CpuClock, TaskState};
use rtcore::sys::{clock, emergency_stderr, limits, memory, process, sched};
use stall_detector::{Change, Observation};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The thread's name.
pub const NAME: &str = "watchdog";
/// Exit status of a daemon that ended because a lane ran away.
pub const EXIT_RUNAWAY: u8 = 3;
/// A control thread that has not ticked for this long does not run: it ticks ten times a second.
const CONTROL_SILENT_NS: u64 = 1_000_000_000;
/// Time from the soft to the hard RLIMIT_RTTIME, in which removing a thread's priority may take
/// effect.
const RTTIME_GRACE_NS: u64 = 1_000_000_000;
/// A sample that is this late is counted as late.
const LATE_NS: u64 = 500_000_000;
/// Limit of the notices that wait for the control thread.
const NOTICES_MAX: usize = 256;

/// One lane thread, with the means to sample it.
#[derive(Debug)]
pub struct Subject {
    /// Kernel thread id.
    pub tid: i32,
    /// Its progress counters.
    pub progress: Arc<Progress>,
    /// Its CPU clock; none if that has no meaning.
    pub clock: Option<CpuClock>,
    /// Its kernel state; none if that is not known.
    pub state: Option<TaskState>,
    /// Its record on the page.
    pub cell: GuardCell,
    pub detector: StallDetector,
    /// Its prepared lines, for the time in which the control thread cannot log.
    pub lines: Lines,
    /// Whether demoting it has an effect.
    pub demotable: bool,
}

impl Subject {
    /// Samples it; none if it has ended.
    fn observation(&self, at_ns: u64) -> Option<Observation> {
        let cpu_ns = match self.clock {
            Some(clock) => Some(clock.read_ns().ok()?),
            None => None,
        };
        Some(Observation {
            at_ns,
            turns: self.progress.turns(),
            worked_ns: self.progress.worked_ns(),
            cpu_ns,
        })
    }

    /// Removes the priority of the thread. Its clock was readable a moment ago, so the thread id is
    /// still its own.
    fn demote(&mut self) -> bool {
        if self.demotable && !self.detector.guard.demoted && sched::make_ordinary(self.tid).is_ok()
        {
            self.detector.guard.demoted = true;
            return true;
        }
        false
    }
}

/// The words that the watchdog and the control thread share. Each one's words have their own cache
/// line.
#[derive(Debug, Default)]
pub struct Shared {
    watchdog: Published,
    control: ControlWords,
}

/// Written by the watchdog, from its start.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Published {
    /// Time of the last sample, CLOCK_MONOTONIC.
    sampled_ns: AtomicU64,
    /// Time of the last sample at which every lane made progress, CLOCK_MONOTONIC.
    well_ns: AtomicU64,
    /// Total lateness of the samples that were late by more than [`LATE_NS`].
    late_ns: AtomicU64,
    /// Number of currently stalled lane threads.
    stalled: AtomicU32,
    /// Why the daemon must end, see [`Runaway::encode`]; 0: it need not.
    verdict: AtomicU64,
}

/// Written by the control thread.
#[derive(Debug, Default)]
#[repr(align(128))]
struct ControlWords {
    /// Time of its last tick, CLOCK_MONOTONIC.
    beat_ns: AtomicU64,
    /// A stop was requested: the lanes are not checked any more.
    stopping: AtomicU32,
    /// The watchdog must end.
    done: AtomicU32,
}

impl Shared {
    /// The control thread runs.
    pub fn beat(&self, now_ns: u64) {
        self.control.beat_ns.store(now_ns, Ordering::Relaxed);
    }

    /// The watchdog starts, and its first sample is to come.
    pub fn starts(&self, now_ns: u64) {
        self.watchdog.sampled_ns.store(now_ns, Ordering::Relaxed);
    }

    /// A stop of the lanes was requested.
    pub fn stopping(&self) {
        self.control.stopping.store(1, Ordering::Relaxed);
    }

    /// Tells the watchdog to end as soon as it wakes.
    pub fn done(&self) {
        self.control.done.store(1, Ordering::Relaxed);
    }

    /// Time at which every lane last made progress.
    pub fn well_ns(&self) -> u64 {
        self.watchdog.well_ns.load(Ordering::Relaxed)
    }

    /// Total lateness of its samples.
    pub fn late_ns(&self) -> u64 {
        self.watchdog.late_ns.load(Ordering::Relaxed)
    }

    /// Time of its last sample.
    pub fn sampled_ns(&self) -> u64 {
        self.watchdog.sampled_ns.load(Ordering::Relaxed)
    }

    /// Number of stalled lane threads.
    pub fn stalled(&self) -> u32 {
        self.watchdog.stalled.load(Ordering::Relaxed)
    }

    /// Why the daemon must end.
    pub fn verdict(&self) -> Option<Runaway> {
        Runaway::decode(self.watchdog.verdict.load(Ordering::Relaxed))
    }
}

/// The watchdog, complete before its thread starts to sample.
#[derive(Debug)]
pub struct Watchdog {
    /// The lane threads, in the order of the page's workers.
    pub subjects: Vec<Subject>,
    /// Time from one sample to the next.
    pub period_ns: u64,
    /// Its reaction to a runaway.
    pub on_runaway: OnRunaway,
    /// Reads the reports of the skin's own watchdog.
    pub take_runaway: Option<fn() -> Option<i32>>,
    /// RLIMIT_RTTIME; none if it is not set.
    pub rttime_ns: Option<u64>,
    /// Time limit for an end of the daemon by the control thread.
    pub stop_ns: u64,
    /// Shared with the control thread.
    pub shared: Arc<Shared>,
    /// Notices to the control thread.
    pub notices: rtrb::Producer<Notice>,
}

/// Counts of a watchdog.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub samples: u64,
    /// The largest lateness.
    pub late_max_ns: u64,
    /// Notices that found the ring full.
    pub lost: u64,
    /// Heap calls while it was sealed.
    pub allocations: u64,
}

/// The state of a running watchdog.
struct Sampler {
    dog: Watchdog,
    tally: Tally,
    /// A line that the control thread should log, and since when.
    unreported: Option<(Runaway, u64)>,
    /// Time at which the process ends by force.
    give_up_ns: u64,
    /// The kernel raises the soft limit after each report.
    rttime_raised: bool,
}

/// Makes a ring for notices.
pub fn channel() -> (rtrb::Producer<Notice>, rtrb::Consumer<Notice>) {
    rtrb::RingBuffer::new(NOTICES_MAX)
}

impl Watchdog {
    /// Samples until it is told to end. Runs on the calling thread, which must have its priority
    /// already; every other thread has [`rtsignal::CPU_TIME`] blocked.
    pub fn run(self) -> Tally {
        let signals = SignalSet::of(self.rttime_ns.map(|_| rtsignal::CPU_TIME));
        let mut sampler = Sampler {
            dog: self,
            tally: Tally::default(),
            unreported: None,
            give_up_ns: u64::MAX,
            rttime_raised: false,
        };
        memory::prefault_stack();
        seal::seal();
        let mut next_ns = clock::monotonic_ns();
        while sampler.dog.shared.control.done.load(Ordering::Relaxed) == 0 {
            let now_ns = clock::monotonic_ns();
            if now_ns >= next_ns {
                sampler.late(now_ns - next_ns);
                sampler.sample(now_ns);
                next_ns = (next_ns + sampler.dog.period_ns).max(now_ns);
            }
            let left_ns = next_ns.saturating_sub(clock::monotonic_ns());
            if let Ok(signal) = rtsignal::wait_within(&signals, left_ns)
                && signal.uid == u32::MAX
            {
                sampler.out_of_time(clock::monotonic_ns());
            }
        }
        sampler.tally.allocations = seal::breaches();
        seal::unseal();
        sampler.tally
    }
}

impl Sampler {
    fn late(&mut self, late_ns: u64) {
        self.tally.late_max_ns = self.tally.late_max_ns.max(late_ns);
        if late_ns > LATE_NS {
            let late = &self.dog.shared.watchdog.late_ns;
            late.store(
                late.load(Ordering::Relaxed).saturating_add(late_ns),
                Ordering::Relaxed,
            );
        }
    }

    fn sample(&mut self, now_ns: u64) {
        self.tally.samples += 1;
        let shared = Arc::clone(&self.dog.shared);
        if shared.control.stopping.load(Ordering::Relaxed) == 0 {
            let mut stalled = 0;
            for index in 0..self.dog.subjects.len() {
                self.sample_thread(index, now_ns);
                stalled += u32::from(self.dog.subjects[index].detector.is_stalled());
            }
            self.poll_reports(now_ns);
            shared.watchdog.stalled.store(stalled, Ordering::Relaxed);
            if stalled == 0 {
                shared.watchdog.well_ns.store(now_ns, Ordering::Relaxed);
            }
            self.restore_rttime();
        }
        shared.watchdog.sampled_ns.store(now_ns, Ordering::Relaxed);
        self.write_for_control(now_ns);
        if now_ns >= self.give_up_ns {
            self.end_by_force();
        }
    }

    fn sample_thread(&mut self, index: usize, now_ns: u64) {
        let subject = &mut self.dog.subjects[index];
        // The control thread handles a thread that has ended by itself.
        let Some(sight) = subject.observation(now_ns) else {
            return;
        };
        let Subject {
            detector, state, ..
        } = subject;
        let changes = detector.observe(sight, || state.as_ref()?.waits());
        // The beginning and the end of an episode have the same number, so either both are reported
        // or neither.
        let (stalls, floods) = (detector.guard.stalls, detector.floods());
        for change in changes.into_iter().flatten() {
            match change {
                Change::Stalled(still, ns) => {
                    let cause = if still == Still::Starved {
                        Cause::Starved
                    } else {
                        Cause::Dispatch
                    };
                    self.ran_away(index, cause, ns, stalls, now_ns);
                }
                Change::Over(permille) => {
                    self.ran_away(index, Cause::Duty, permille, floods, now_ns)
                }
                Change::Moves(ns) => self.notify(index, What::Moves { ns }, stalls),
                Change::Within(permille) => self.notify(index, What::Within { permille }, floods),
            }
        }
        let subject = &mut self.dog.subjects[index];
        subject.cell.publish(&subject.detector.guard);
    }

    /// Handles reports of the skin's own watchdog about lane threads.
    fn poll_reports(&mut self, now_ns: u64) {
        let Some(take) = self.dog.take_runaway else {
            return;
        };
        for _ in 0..self.dog.subjects.len() {
            let Some(tid) = take() else { return };
            // Other threads of the process wait in Linux.
            if let Some(index) = self
                .dog
                .subjects
                .iter()
                .position(|subject| subject.tid == tid)
            {
                self.ran_away(index, Cause::Core, 0, 1, now_ns);
            }
        }
    }

    /// SIGXCPU: some lane thread has run too long without waiting. The signal does not identify it:
    /// the watchdog takes the one that ran most recently.
    fn out_of_time(&mut self, now_ns: u64) {
        self.rttime_raised = true;
        let Some(limit_ns) = self.dog.rttime_ns else {
            return;
        };
        let recent = |subject: &Subject| {
            let cpu_ns = subject.clock.and_then(|clock| clock.read_ns().ok());
            cpu_ns.map_or(0, |cpu_ns| subject.detector.recent_until_ns(cpu_ns))
        };
        let subjects = self.dog.subjects.iter().map(recent).enumerate();
        let Some((index, 1..)) = subjects.max_by_key(|(_, ran_ns)| *ran_ns) else {
            return;
        };
        // The kernel may kill the process a second from now: this is written at once.
        if self.dog.on_runaway != OnRunaway::Report {
            emergency_stderr::write_line(self.dog.subjects[index].lines.of(Cause::Time));
        }
        self.ran_away(index, Cause::Time, limit_ns, 1, now_ns);
    }

    /// Reacts as configured. A starved lane has not run away, so it is not demoted.
    fn ran_away(&mut self, index: usize, cause: Cause, amount: u64, times: u64, now_ns: u64) {
        let subject = &mut self.dog.subjects[index];
        let guilty = cause != Cause::Starved;
        let runaway = Runaway {
            worker: u32::try_from(index).unwrap_or(u32::MAX),
            cause,
        };
        let demoted = self.dog.on_runaway != OnRunaway::Report && guilty && subject.demote();
        subject.cell.publish(&subject.detector.guard);
        self.unreported.get_or_insert((runaway, now_ns));
        self.notify(
            index,
            What::Ran {
                cause,
                amount,
                demoted,
            },
            if demoted { 1 } else { times },
        );
        if self.dog.on_runaway == OnRunaway::Stop && self.give_up_ns == u64::MAX {
            self.give_up_ns = now_ns.saturating_add(self.dog.stop_ns);
            self.dog
                .shared
                .watchdog
                .verdict
                .store(runaway.encode(), Ordering::Relaxed);
            emergency_stderr::write_line(self.dog.subjects[index].lines.of(cause));
            self.unreported = None;
        }
    }

    /// Notifies the control thread: the first time, and then ever more rarely; the page has the
    /// exact numbers.
    fn notify(&mut self, index: usize, what: What, times: u64) {
        let worker = u32::try_from(index).unwrap_or(u32::MAX);
        if times.is_power_of_two()
            && self
                .dog
                .notices
                .push(Notice {
                    worker,
                    times,
                    what,
                })
                .is_err()
        {
            self.tally.lost += 1;
        }
    }

    /// If the control thread does not run, it cannot log its notices: the watchdog writes them.
    fn write_for_control(&mut self, now_ns: u64) {
        let Some((runaway, since_ns)) = self.unreported else {
            return;
        };
        let beat_ns = self.dog.shared.control.beat_ns.load(Ordering::Relaxed);
        if beat_ns > since_ns {
            self.unreported = None;
        } else if now_ns.saturating_sub(since_ns) > CONTROL_SILENT_NS {
            if let Some(subject) = self.dog.subjects.get(runaway.worker as usize) {
                emergency_stderr::write_line(subject.lines.of(runaway.cause));
            }
            self.unreported = None;
        }
    }

    /// The control thread was told to end the daemon and has not done so.
    fn end_by_force(&self) -> ! {
        emergency_stderr::write_line(notice::FORCED);
        process::exit_now(EXIT_RUNAWAY)
    }

    /// When no thread is stalled or over its budget any more, restores the limit.
    fn restore_rttime(&mut self) {
        let Some(limit_ns) = self.dog.rttime_ns.filter(|_| self.rttime_raised) else {
            return;
        };
        let restless = |subject: &Subject| subject.detector.recent_ns() >= self.dog.period_ns;
        if !self.dog.subjects.iter().any(restless) {
            self.rttime_raised = limit_rttime(limit_ns, self.dog.on_runaway).is_err();
        }
    }
}

/// Sets RLIMIT_RTTIME: the kernel reports at the soft limit, and kills at the hard one if the
/// configuration wants the daemon to end.
pub fn limit_rttime(limit_ns: u64, on_runaway: OnRunaway) -> rtcore::sys::Call<()> {
    limits::set_real_time(
        limit_ns.div_ceil(1000),
        rttime_hard_us(limit_ns, on_runaway),
    )
}

/// The time at which the kernel kills; none: never.
fn rttime_hard_us(limit_ns: u64, on_runaway: OnRunaway) -> Option<u64> {
    (on_runaway != OnRunaway::Report).then(|| (limit_ns + RTTIME_GRACE_NS).div_ceil(1000))
}
