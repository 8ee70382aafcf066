//! The watchdog's thread as the control thread manages it: it starts at a gate like a lane's
//! thread, its findings are read at each tick, and it ends last.

use super::notice::{self, Lines, label};
use super::{
    Bounds, NAME, Notice, Shared, StallDetector, Subject, Tally, Watchdog, channel, limit_rttime,
    rttime_hard_us,
};
use crate::daemon::Privilege;
use crate::log;
use crate::plan::{LaneId, Plan};
use crate::words::{LIST_THREADS, counted, show_time};
use anyhow::Context as _;
use rtcore::lane::progress::Progress;
use rtcore::skin::Skin;
use rtcore::stats::writer::Page;
use rtcore::sys::rtsignal::{self, SignalSet};
use rtcore::sys::thread::{CpuClock, TaskState};
use rtcore::sys::{cpus, limits, memory, sched};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

/// Periods until a sample counts as missed.
const SAMPLES_MISSED_MAX: u64 = 3;
/// Time that the end of the daemon may take beyond the time of the lanes: a tick, and a delay by
/// the log.
const STOP_SLACK_NS: u64 = 1_000_000_000;
/// A watchdog with a shorter period that has taken no sample for this long does not run.
const SILENT_NS: u64 = 1_000_000_000;
/// Ticks in a row that must find this: the first after a stop of the whole daemon may come before
/// the watchdog's sample.
const SILENT_TICKS: u32 = 3;
const JOIN_POLL: Duration = Duration::from_millis(1);

/// A lane thread that waits at its gate.
#[derive(Debug)]
pub struct Watched {
    pub lane: LaneId,
    pub name: String,
    /// Kernel thread id.
    pub tid: i32,
    /// Its CPU time.
    pub clock: Result<CpuClock, String>,
    /// Its progress counters.
    pub progress: Arc<Progress>,
}

/// The permissions that the kernel granted to the watchdog.
#[derive(Debug)]
pub struct Granted {
    /// SCHED_FIFO above all lanes, or why not.
    pub fifo: Result<(), String>,
    /// Pinned (or there is no CPU to pin it to), or why not.
    pub pinned: Result<(), String>,
    pub cpu: Option<usize>,
}

/// A lane ran away, and the configuration ends the daemon in this case. Its exit status is
/// [`super::EXIT_RUNAWAY`].
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct LaneRanAway(String);

/// The thread, owned by the control thread.
#[derive(Debug)]
pub struct Running {
    shared: Arc<Shared>,
    notices: rtrb::Consumer<Notice>,
    /// By lane thread.
    labels: Vec<(LaneId, String)>,
    tid: i32,
    /// Ticks in a row that found no new sample.
    silent_ticks: u32,
    gate: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<Tally>>,
}

impl Running {
    /// Starts the thread at its gate. `stop_ns` is the time that the lanes may take to end.
    pub fn start(
        plan: &Plan,
        skin: &Skin,
        page: &Page,
        watched: Vec<Watched>,
        stop_ns: u64,
        privilege: Privilege,
    ) -> anyhow::Result<(Running, Granted)> {
        let shared = Arc::new(Shared::default());
        let labels: Vec<_> = watched
            .iter()
            .map(|w| (w.lane, label(&plan.lanes[w.lane].name, &w.name, w.tid)))
            .collect();
        let subjects = subjects(plan, skin, page, watched, &labels);
        let (producer, notices) = channel();
        let dog = Watchdog {
            subjects,
            period_ns: plan.daemon.watch.period_ns,
            on_runaway: plan.daemon.watch.on_runaway,
            take_runaway: skin.take_runaway,
            rttime_ns: plan.daemon.watch.rttime.as_ref().ok().copied(),
            stop_ns: stop_ns.saturating_add(STOP_SLACK_NS),
            shared: Arc::clone(&shared),
            notices: producer,
        };
        let (priority, cpu) = (plan.watchdog_priority(), plan.watchdog_cpu(usable_cpus()));
        let (open, gate) = mpsc::channel::<()>();
        let (granted_tx, granted_rx) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name(NAME.to_owned())
            .stack_size(memory::LANE_STACK_BYTES)
            .spawn(move || {
                let granted = enter(priority, cpu);
                privilege.of_helper();
                if granted_tx.send((sched::gettid(), granted)).is_err() || gate.recv().is_err() {
                    return Tally::default();
                }
                // The channels are dropped before the seal.
                drop((granted_tx, gate));
                dog.run()
            })
            .context("cannot start the watchdog's thread")?;
        let (tid, granted) = granted_rx
            .recv()
            .context("the watchdog's thread did not start")?;
        Ok((
            Running {
                shared,
                notices,
                labels,
                tid,
                silent_ticks: 0,
                gate: Some(open),
                thread: Some(thread),
            },
            granted,
        ))
    }

    /// Opens its gate, and sets the limit that the kernel checks.
    pub fn go(&mut self, plan: &Plan, granted: &Granted, now_ns: u64) {
        self.shared.beat(now_ns);
        self.shared.starts(now_ns);
        let watch = &plan.daemon.watch;
        let rttime = match &watch.rttime {
            Ok(ns) => match limit_rttime(*ns, watch.on_runaway) {
                Ok(()) => format!("RLIMIT_RTTIME {}", show_time(*ns)),
                Err(e) => format!("RLIMIT_RTTIME cannot be set: {e}"),
            },
            // The program that started rtd may have set one.
            Err(why) => match limits::set_real_time(u64::MAX, None) {
                Ok(()) => format!("RLIMIT_RTTIME not set: {why}"),
                Err(e) => format!("RLIMIT_RTTIME cannot be lifted: {e}"),
            },
        };
        warn_of_hard_limit(plan);
        log::info(format_args!(
            "watchdog: {}{}, samples every {}, {rttime}",
            // A degraded start reports elsewhere which settings it did not get.
            if granted.fifo.is_ok() {
                format!("priority {}", plan.watchdog_priority())
            } else {
                "no real-time priority".to_owned()
            },
            granted
                .cpu
                .map_or_else(String::new, |cpu| format!(" on CPU {cpu}")),
            show_time(watch.period_ns)
        ));
        if let Some(gate) = self.gate.take() {
            // The thread waits at the gate.
            let _ = gate.send(());
        }
    }

    /// Called at each tick of the control thread: logs the findings. An error ends the daemon.
    pub fn tick(&mut self, plan: &Plan, now_ns: u64) -> anyhow::Result<()> {
        self.shared.beat(now_ns);
        self.log(plan);
        if self.thread.as_ref().is_some_and(JoinHandle::is_finished) {
            anyhow::bail!("the watchdog's thread ended by itself: a defect");
        }
        self.check_watchdog(plan, now_ns);
        let Some(runaway) = self.shared.verdict() else {
            return Ok(());
        };
        let (lane, label) = &self.labels[runaway.worker as usize];
        Err(LaneRanAway(notice::verdict(
            plan,
            &plan.lanes[*lane],
            label,
            runaway.cause,
        ))
        .into())
    }

    /// A watchdog without CPU time sees nothing, and does not know later what it missed.
    fn check_watchdog(&mut self, plan: &Plan, now_ns: u64) {
        let silent_ns = now_ns.saturating_sub(self.shared.sampled_ns());
        if silent_ns <= SILENT_NS.max(SAMPLES_MISSED_MAX * plan.daemon.watch.period_ns) {
            if self.silent_ticks >= SILENT_TICKS {
                log::info(format_args!("the watchdog samples again"));
            }
            self.silent_ticks = 0;
            return;
        }
        self.silent_ticks = self.silent_ticks.saturating_add(1);
        if self.silent_ticks == SILENT_TICKS {
            log::error(format_args!(
                "the watchdog (tid {}) has not run for {}: no lane is watched, and lanes on its CPU do not run either; a thread above its priority {} keeps that CPU ({LIST_THREADS})",
                self.tid,
                show_time(silent_ns / 1_000_000 * 1_000_000),
                plan.watchdog_priority()
            ));
        }
    }

    fn log(&mut self, plan: &Plan) {
        while let Ok(notice) = self.notices.pop() {
            if let Some((lane, label)) = self.labels.get(notice.worker as usize) {
                notice::log(plan, &plan.lanes[*lane], label, &notice);
            }
        }
    }

    /// Whether every lane made progress at the last sample, and that sample is recent.
    pub fn is_well(&self, plan: &Plan, now_ns: u64) -> bool {
        let age_ns = now_ns.saturating_sub(self.shared.well_ns());
        self.shared.stalled() == 0 && age_ns <= SAMPLES_MISSED_MAX * plan.daemon.watch.period_ns
    }

    /// Total lateness of its samples.
    pub fn late_ns(&self) -> u64 {
        self.shared.late_ns()
    }

    /// Kernel thread id.
    pub fn tid(&self) -> i32 {
        self.tid
    }

    /// Number of stalled lane threads.
    pub fn stalled(&self) -> u32 {
        self.shared.stalled()
    }

    /// A stop of the lanes was requested: from now on the watchdog only ensures that the daemon
    /// ends.
    pub fn stopping(&self) {
        self.shared.stopping();
    }

    /// Ends the thread, after the lanes have ended.
    pub fn end(&mut self, plan: &Plan) {
        let Some(tally) = self.join() else { return };
        self.log(plan);
        let Tally {
            samples,
            late_max_ns,
            lost,
            allocations,
        } = tally;
        log::info(format_args!(
            "watchdog: {}, the latest {} us late, {lost} notices lost, {allocations} heap calls",
            counted(samples, "look"),
            late_max_ns / 1000
        ));
    }

    fn join(&mut self) -> Option<Tally> {
        self.gate = None;
        self.shared.done();
        let thread = self.thread.take()?;
        while !thread.is_finished() {
            rtsignal::wake(self.tid);
            // As for the lanes: a wake-up between its check and its sleep is lost, so it is
            // repeated.
            std::thread::sleep(JOIN_POLL);
        }
        // A panic has written its message.
        thread.join().ok()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.join();
    }
}

/// A hard RLIMIT_RTTIME from before the start stays: the kernel kills at it, for any configuration.
fn warn_of_hard_limit(plan: &Plan) {
    let watch = &plan.daemon.watch;
    let ours = watch
        .rttime
        .as_ref()
        .ok()
        .and_then(|ns| rttime_hard_us(*ns, watch.on_runaway));
    match limits::real_time_hard_us() {
        Ok(Some(hard_us)) if ours.is_none_or(|ours_us| hard_us < ours_us) => {
            log::warning(format_args!(
                "rtd was started with a hard RLIMIT_RTTIME of {hard_us} us: the kernel kills it as soon as a lane thread runs for \
             that long without waiting; LimitRTTIME=infinity in the unit, or in a shell of root: prlimit \
             --rttime=unlimited rtd run FILE"
            ))
        }
        _ => {}
    }
}

/// Makes the calling thread the watchdog's.
fn enter(priority: u8, cpu: Option<usize>) -> Granted {
    sched::set_name(NAME);
    // Every other signal that it could get was blocked by the spawner.
    let wake = SignalSet::of([rtsignal::WAKE]).unblock();
    let pinned = cpu
        .map_or(Ok(()), sched::pin)
        .and(wake)
        .map_err(|e| e.to_string());
    Granted {
        fifo: sched::set_fifo(priority).map_err(|e| e.to_string()),
        pinned,
        cpu,
    }
}

fn subjects(
    plan: &Plan,
    skin: &Skin,
    page: &Page,
    watched: Vec<Watched>,
    labels: &[(LaneId, String)],
) -> Vec<Subject> {
    let watch = &plan.daemon.watch;
    let mut unseen = None;
    let subject = |(index, (w, (_, label))): (usize, (Watched, &(LaneId, String)))| {
        let lane = &plan.lanes[w.lane];
        let bounds = Bounds {
            period_ns: watch.period_ns,
            stall_ns: lane.watch.stall_ns,
            window_ns: watch.window_ns,
            duty_permille: lane.watch.duty_permille,
            duty_is_dispatch: plan.duty_is_dispatch(lane, skin.caps),
        };
        let linux = skin.caps.linux_threads;
        let clock = linux
            .then(|| w.clock.map_err(|e| unseen = Some(e)).ok())
            .flatten();
        let state = linux
            .then(|| {
                TaskState::open(w.tid)
                    .map_err(|e| unseen = Some(e.to_string()))
                    .ok()
            })
            .flatten();
        Subject {
            tid: w.tid,
            progress: w.progress,
            clock,
            state,
            cell: page.guard(index),
            detector: StallDetector::new(bounds),
            lines: Lines::new(plan, lane, label),
            demotable: linux,
        }
    };
    let subjects = watched
        .into_iter()
        .zip(labels)
        .enumerate()
        .map(subject)
        .collect();
    if let Some(why) = unseen {
        log::warning(format_args!(
            "the watchdog cannot see whether a lane gets its CPU: {why}"
        ));
    }
    subjects
}

/// The CPUs that this process may use and that are not isolated; none if the kernel does not report
/// them.
fn usable_cpus() -> impl Iterator<Item = usize> {
    let isolated = cpus::isolated().unwrap_or_default();
    cpus::given()
        .unwrap_or_default()
        .into_iter()
        .filter(move |cpu| !isolated.contains(cpu))
}
