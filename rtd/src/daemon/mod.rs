//! From plan to running lanes, and to their end.
//!
//! Order of the start: user, signals, page, queues, threads (which pin and promote themselves, drop
//! the capabilities that they no longer need and wait at a gate), the watchdog, memory lock, gates.
//! Nothing is served before everything was granted; if a permission is missing, everything that was
//! made is removed.

mod build;
mod command;
mod last_life;
mod late_signals;
mod log_events;
mod losses;
mod names;
mod notify;
pub mod own;
mod pause;
mod permissions;
mod privilege;
pub mod rings;
mod tampering;
mod watchdog;

pub use build::reader_of;
pub use command::{CONFIG_FILE, RunArgs, run};
pub use last_life::LastLife;
pub use watchdog::{EXIT_RUNAWAY, LaneRanAway};

use crate::control::{TICK, Violation};
use crate::endpoint::{EndpointKind, Shared};
use crate::log;
use crate::plan::{EndpointId, Plan, ProcessId, RouteId};
use crate::words::counted;
use anyhow::Context as _;
use build::{Builder, Peers, Queues, Serves, WorkerPlan};
use losses::LossLog;
use pause::Pause;
pub use privilege::Privilege;
use rings::Rings;
use rtcore::lane::event::{Event, EventKind};
use rtcore::lane::peer::{Peer, PeerState};
use rtcore::lane::progress::Progress;
use rtcore::lane::worker::{Granted, Report, Worker};
use rtcore::seal;
use rtcore::skin::Skin;
use rtcore::stats::writer::Page;
use rtcore::stats::{Ledger, degraded};
use rtcore::sys::{clock, futex, memory, rtsignal, startup};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;
use tampering::Tampering;

/// How long the daemon waits for a lane thread to end after its drain time, waking it repeatedly.
const JOIN_GRACE_NS: u64 = 2_000_000_000;
const JOIN_POLL: Duration = Duration::from_millis(1);

/// Options of a start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Run even if FIFO, pinning or locked memory are not granted, and show this everywhere.
    pub allow_degraded: bool,
    /// The capabilities that its threads drop when they are ready.
    pub privilege: Privilege,
}

/// Running lanes. Owned by the control thread.
#[derive(Debug)]
pub struct Daemon {
    plan: Plan,
    /// Dropped before the page: when the page goes, the instance's name is free for the next one,
    /// whose queues have the same names.
    queues: Queues,
    page: Page,
    peers: Peers,
    threads: Vec<Thread>,
    /// Lane threads wait at these until `go`.
    gates: Vec<mpsc::Sender<()>>,
    stop_at_ns: Arc<AtomicU64>,
    skin: &'static Skin,
    watchdog: watchdog::Running,
    losses: LossLog,
    guarded: watchdog::Granted,
    pause: Pause,
    /// From `go` on, if Linux schedules the threads.
    tampering: Option<Tampering>,
    /// Why the page, which was removed, cannot be recreated.
    page_lost: Option<String>,
    /// Reports of the lane threads that have ended, and the number of those without a report.
    reports: Vec<Report>,
    left_behind: usize,
}

#[derive(Debug)]
struct Thread {
    name: String,
    /// For the log: `thread NAME of lane LANE`.
    shown: String,
    lane: usize,
    serves: Serves,
    tid: i32,
    handle: JoinHandle<Report>,
    events: rtrb::Consumer<Event>,
    is_death_reported: bool,
}

/// A lane thread that has not yet reported its permissions.
struct Started {
    name: String,
    shown: String,
    lane: usize,
    serves: Serves,
    handle: JoinHandle<Report>,
    events: rtrb::Consumer<Event>,
    progress: Arc<Progress>,
    open: mpsc::Sender<()>,
    granted: mpsc::Receiver<Granted>,
}

/// A lane thread that has reported its permissions and waits at the gate.
struct Waiting {
    lane: usize,
    granted: Granted,
    progress: Arc<Progress>,
    open: mpsc::Sender<()>,
    thread: Thread,
}

/// Signals that the control thread takes by signalfd.
pub const CONTROL_SIGNALS: [i32; 3] = rtsignal::TERMINATION;

/// Sets the masks for the whole process; call it before the first thread starts.
///
/// Sources' signals and the control signals are blocked everywhere: lane threads and the signalfd
/// take them. Signals that arrived since the start of the program are still pending, and are
/// delivered. Every other signal that another program may send is ignored and unblocked: a blocked
/// signal that nobody takes would stay pending and use up the user's RLIMIT_SIGPENDING.
pub fn prepare_signals(plan: &Plan, skin: &Skin) -> anyhow::Result<()> {
    // A skin's own signals are not Linux signals of these numbers.
    let sources = if skin.caps.shared_namespace {
        build::source_signals(plan)
    } else {
        Vec::new()
    };
    let taken: Vec<i32> = sources.iter().chain(&CONTROL_SIGNALS).copied().collect();
    let of_strangers = |s: &i32| !taken.contains(s);
    rtsignal::ignore(rtsignal::ignorable().filter(of_strangers));
    let held = startup::routable().filter(of_strangers);
    rtsignal::SignalSet::of(held)
        .unblock()
        .context("cannot unblock signals")?;
    rtsignal::install_wake().context("cannot install the wake signal")?;
    (skin.setup.watch_runaways)().context("cannot install the handler of SIGXCPU")?;
    seal::watch_calls().context("cannot install the handler of SIGSYS")?;
    // The watchdog takes it; without a watchdog it keeps its meaning.
    let cpu_time = plan
        .daemon
        .watch
        .rttime
        .as_ref()
        .ok()
        .map(|_| rtsignal::CPU_TIME);
    let blocked = taken
        .iter()
        .copied()
        .chain([rtsignal::WAKE])
        .chain(cpu_time);
    rtsignal::SignalSet::of(blocked)
        .block()
        .context("cannot block signals")?;
    Ok(())
}

impl Daemon {
    /// Makes all objects of the plan. The lanes wait at their gates, so no message is touched
    /// before `go`. `prepare_signals` must have been called. The rings are for the control thread.
    pub fn start(
        plan: Plan,
        skin: &'static Skin,
        options: Options,
    ) -> anyhow::Result<(Daemon, Rings)> {
        let worker_plans = build::workers(&plan);
        // The page first: its name is the instance's, and there is one of each. The following steps
        // may clean up after an earlier life of the instance, which must not be a living one.
        let last_life = LastLife::read(&plan);
        let page = Page::create(&build::page_spec(&plan, &worker_plans, skin))?;
        last_life.report(&page);
        let mut rings = Rings::new(&plan, skin, options.allow_degraded)?;
        rings.show(&page);
        warn_of_refused_waits(&plan);
        let queues = Queues::open(&plan, skin)?;
        for (queue, found) in queues.adopted() {
            log::info(format_args!(
                "adopted message queue {queue} (maxmsg {}) with {}",
                found.maxmsg,
                counted(found.curmsgs, "message")
            ));
        }
        let peers = Peers::new(&plan, skin)?;
        let stop_at_ns = Arc::new(AtomicU64::new(0));
        let mut builder = Builder {
            plan: &plan,
            skin,
            peers: &peers,
            page: &page,
            stop_at_ns: &stop_at_ns,
            rings: &mut rings,
            shared: Shared::default(),
        };
        let waiting = spawn_all(&mut builder, &worker_plans, options.privilege)?;
        let watched = waiting.iter().map(Waiting::watched).collect();
        let stop_ns = plan.daemon.drain_ns.saturating_add(JOIN_GRACE_NS);
        let (watchdog, guarded) =
            watchdog::Running::start(&plan, skin, &page, watched, stop_ns, options.privilege)?;
        let locked = memory::lock_all().map_err(|e| e.to_string());
        let missing = permissions::missing(&plan, &waiting, &guarded, &locked);
        let fatal =
            !skin.caps.unpromoted_threads && waiting.iter().any(|w| w.granted.fifo.is_err());
        if !missing.is_empty() && (fatal || !options.allow_degraded) {
            anyhow::bail!(permissions::refusal(&missing, fatal.then_some(skin.name)));
        }
        options.privilege.settle()?;
        for (lane, bits) in permissions::degraded_bits(&plan, &waiting, &guarded, &locked)
            .into_iter()
            .enumerate()
        {
            page.add_degraded(lane, bits);
        }
        if !missing.is_empty() {
            permissions::degraded_notice(&missing)
                .iter()
                .for_each(|l| log::warning(format_args!("{l}")));
        }
        drop(worker_plans);
        let (gates, threads) = waiting.into_iter().map(|w| (w.open, w.thread)).unzip();
        let losses = LossLog::new(&plan, &page);
        let daemon = Daemon {
            plan,
            page,
            peers,
            queues,
            threads,
            gates,
            stop_at_ns,
            skin,
            watchdog,
            losses,
            guarded,
            pause: Pause::new(0),
            tampering: None,
            page_lost: None,
            reports: Vec::new(),
            left_behind: 0,
        };
        Ok((daemon, rings))
    }

    /// Opens the gates: everything is ready, and the control socket answers.
    pub fn go(&mut self) {
        self.queues.started(self.plan.daemon.keep_queues);
        let now_ns = clock::monotonic_ns();
        // Before a lane runs: an RLIMIT_RTTIME from before rtd's start applies until then, and a
        // lane that polls may have used it up before this thread runs again.
        self.watchdog.go(&self.plan, &self.guarded, now_ns);
        for (index, (gate, thread)) in self.gates.drain(..).zip(&self.threads).enumerate() {
            self.page.set_worker_tid(index, thread.tid);
            // The thread waits at the gate; if it died there, the next tick reports it.
            let _ = gate.send(());
        }
        if self.skin.caps.linux_threads {
            let lanes = self.threads.iter().enumerate();
            let lanes = lanes.map(|(index, thread)| {
                (
                    tampering::Thread::Lane(index),
                    thread.shown.clone(),
                    thread.tid,
                )
            });
            let watchdog = (
                tampering::Thread::Watchdog,
                format!("thread {}", watchdog::NAME),
                self.watchdog.tid(),
            );
            self.tampering = Some(Tampering::new(
                self.plan.daemon.watch.on_tampering,
                lanes.chain([watchdog]),
            ));
        }
        self.pause = Pause::new(self.watchdog.late_ns());
        self.page.set_ready(now_ns);
    }

    /// The plan it runs.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The slots of the registered processes, in plan order.
    pub fn peers(&self) -> &[Arc<Peer>] {
        &self.peers.slots
    }

    /// A process took its name or died: shows it, and wakes the lane threads of its routes, so that
    /// they check their queued messages and offers. The others sleep on: a process that comes and
    /// goes costs only its own lanes.
    pub fn peer_changed(&self, process: ProcessId, state: PeerState) {
        let peer = &self.peers.slots[process];
        self.page
            .set_process(process, state, peer.pid(), peer.uid());
        self.wake_for_process(process);
    }

    /// The receptions of a process changed: shows it, and wakes the lane threads, so that they
    /// check the messages that they hold for it.
    pub fn receptions_changed(&self, process: ProcessId) {
        let peer = &self.peers.slots[process];
        for (id, endpoint) in self
            .plan
            .endpoints
            .iter()
            .enumerate()
            .filter(|(_, e)| e.owner == Some(process))
        {
            if let EndpointKind::Signal(signal) = &endpoint.kind {
                self.page
                    .set_reception(id, peer.reception(signal.signo, signal.to_thread()));
            }
        }
        self.wake_for_process(process);
    }

    /// Wakes the lane threads that have a route to this process.
    pub fn wake_for_process(&self, process: ProcessId) {
        self.wake_lanes(|thread| thread.serves.processes.contains(&process));
    }

    /// Wakes the lane threads of these routes.
    pub fn wake_for_routes(&self, routes: &[RouteId]) {
        self.wake_lanes(|thread| {
            thread
                .serves
                .routes
                .iter()
                .any(|route| routes.contains(route))
        });
    }

    /// If a wake-up, which is a Linux signal, costs a thread its mode, doorbells and the time
    /// limits of its waits must suffice.
    fn wake_lanes(&self, concerned: impl Fn(&Thread) -> bool) {
        if self.skin.is_relaxed.is_none() {
            self.wake(concerned);
        }
    }

    /// Called about ten times a second: heartbeat, log, and a check whether every lane thread still
    /// runs.
    ///
    /// Adds the sessions that must end because of protocol violations in their rings. Errors: a
    /// lane thread has ended by itself, which must never go unnoticed.
    pub fn tick(&mut self, violations: &mut Vec<Violation>) -> anyhow::Result<()> {
        let now_ns = clock::monotonic_ns();
        self.restore_page();
        self.page.heartbeat(now_ns, (self.skin.now_ns)());
        self.pause
            .tick(self.watchdog.late_ns(), self.plan.daemon.watch.period_ns);
        self.check_scheduling();
        self.queues.check(now_ns);
        self.log_events(violations);
        self.losses.tick(&self.plan, &self.page, now_ns);
        // After a stop was requested, each thread ends when it has drained, some before others.
        let stopping = self.stop_at_ns.load(Ordering::Relaxed) != 0;
        for thread in self.threads.iter_mut().filter(|_| !stopping) {
            if thread.handle.is_finished() && !thread.is_death_reported {
                thread.is_death_reported = true;
                anyhow::bail!(
                    "{} (tid {}) ended by itself: a defect",
                    thread.shown,
                    thread.tid
                );
            }
        }
        // Once, however long the stop takes.
        let found = self.watchdog.tick(&self.plan, now_ns);
        if stopping { Ok(()) } else { found }
    }

    /// Recreates a page that was removed while rtd runs.
    fn restore_page(&mut self) {
        match self.page.restore() {
            Ok(None) => {}
            Ok(Some(path)) => {
                log::error(format_args!(
                    "the statistics page was removed while rtd uses it; it is {} now, with figures up to {} ms old",
                    path.display(),
                    TICK.as_millis()
                ));
                self.page_lost = None;
            }
            Err(e) => {
                let why = e.to_string();
                if self.page_lost.as_ref() != Some(&why) {
                    log::error(format_args!(
                        "the statistics page {} was removed while rtd uses it and cannot be \
                         recreated: {why}",
                        self.page.path().display()
                    ));
                    self.page_lost = Some(why);
                }
            }
        }
    }

    fn check_scheduling(&mut self) {
        let Some(tampering) = &mut self.tampering else {
            return;
        };
        let (page, threads, lanes) = (&self.page, &self.threads, self.plan.lanes.len());
        // For each lane: none: not checked; otherwise whether the scheduling of one of its threads,
        // or of the watchdog, has changed since its start.
        let mut tampered = vec![None; lanes];
        let show = |thread, intact: bool| {
            let of_thread = match thread {
                tampering::Thread::Lane(index) => threads[index].lane..threads[index].lane + 1,
                tampering::Thread::Watchdog => 0..lanes,
            };
            for lane in &mut tampered[of_thread] {
                *lane = Some(lane.unwrap_or(false) || !intact);
            }
        };
        tampering.tick(|index| page.is_demoted(index), show);
        for (lane, tampered) in tampered.into_iter().enumerate() {
            match tampered {
                Some(true) => page.add_degraded(lane, degraded::TAMPERED),
                Some(false) => page.remove_degraded(lane, degraded::TAMPERED),
                None => {}
            }
        }
    }

    /// Whether every lane made progress a moment ago.
    pub fn is_well(&self) -> bool {
        self.watchdog.is_well(&self.plan, clock::monotonic_ns())
    }

    /// The state of the daemon in one line.
    pub fn status(&self) -> String {
        let stalled = self.watchdog.stalled();
        let stalled = if stalled == 0 {
            String::new()
        } else {
            format!(", {} STALLED", counted(stalled, "thread"))
        };
        let (accepted, delivered, queued) = self.page.accounted();
        let degraded = if self.page.is_degraded() {
            ", DEGRADED"
        } else {
            ""
        };
        format!(
            "{}{stalled}; messages: {accepted} accepted, {delivered} delivered, {queued} queued{degraded}",
            counted(self.plan.lanes.len(), "lane")
        )
    }

    fn log_events(&mut self, violations: &mut Vec<Violation>) {
        let names = names::Names::new(&self.plan);
        for thread in &mut self.threads {
            while let Ok(event) = thread.events.pop() {
                if matches!(event.kind, EventKind::Unconfined { .. }) {
                    self.page.add_degraded(thread.lane, degraded::UNCONFINED);
                }
                log_events::log(&names, &thread.shown, &event);
                violations.extend(log_events::violation(&self.plan, &event));
            }
        }
    }

    /// Asks every lane to stop: queued messages get the drain time. The second call ends that time.
    pub fn request_stop(&self) {
        self.watchdog.stopping();
        let now = (self.skin.now_ns)();
        let bound = now.saturating_add(self.plan.daemon.drain_ns);
        if self
            .stop_at_ns
            .compare_exchange(0, bound, Ordering::Relaxed, Ordering::Relaxed)
            .is_err()
        {
            self.stop_at_ns.store(now, Ordering::Relaxed);
        }
        self.wake(|_| true);
    }

    /// Whether every lane thread has ended.
    pub fn stopped(&self) -> bool {
        self.wake(|_| true);
        self.threads.iter().all(|t| t.handle.is_finished())
    }

    /// Whether the lanes had their drain time and more, and still do not end.
    pub fn overdue(&self) -> bool {
        let give_up = self
            .stop_at_ns
            .load(Ordering::Relaxed)
            .saturating_add(JOIN_GRACE_NS);
        (self.skin.now_ns)() > give_up
    }

    /// Waits for the lanes after `request_stop`. Accounts for messages in the rings of senders that
    /// have ended, and returns, by endpoint, the number of messages that the other senders bring to
    /// the next daemon.
    pub fn end_lanes(&mut self) -> Vec<(EndpointId, u64)> {
        self.join();
        self.log_events(&mut Vec::new());
        for thread in std::mem::take(&mut self.threads) {
            if !thread.handle.is_finished() {
                log::error(format_args!(
                    "{} does not end; rtd ends without waiting for it",
                    thread.shown
                ));
                self.left_behind += 1;
                thread.leave_behind();
                continue;
            }
            match thread.handle.join() {
                Ok(report) => self.reports.push(report),
                Err(_) => {
                    log::error(format_args!("{} panicked", thread.shown));
                    self.left_behind += 1;
                }
            }
        }
        let routes = &self.plan.routes;
        let left = self.reports.iter_mut().flat_map(Report::leftovers);
        left.filter_map(|(route, messages)| Some((routes.get(route as usize)?.from, messages)))
            .collect()
    }

    /// Counts messages that were in the ring of this endpoint's owner, with this pid, when the last
    /// rtd stopped, and are lost with it.
    pub fn lost_with_sender(&self, endpoint: EndpointId, pid: i32, messages: u64) {
        let name = &self.plan.endpoints[endpoint].name;
        for (id, route) in self
            .plan
            .routes
            .iter()
            .enumerate()
            .filter(|(_, route)| route.from == endpoint)
        {
            let lost = messages.saturating_mul(route.copies());
            self.page.add_lost_in_last_life(id, lost);
            log::warning(format_args!(
                "route {}: {lost} lost in the last life of this instance: pid {pid} sent them from {name} and ended before the                  next rtd could take them; Sender::flush waits until rtd has taken what was sent",
                route.name
            ));
        }
    }

    /// Logs the final state, after [`Daemon::end_lanes`]; the ledgers of direct routes, which have
    /// no lane thread, come from the control thread. An error if the messages of some thread are
    /// not accounted for.
    pub fn finish(mut self, direct: &[(RouteId, Ledger)]) -> anyhow::Result<()> {
        self.watchdog.end(&self.plan);
        self.losses
            .finish(&self.plan, &self.page, clock::monotonic_ns());
        let page = &self.page;
        log_events::final_ledger(&self.plan, &self.reports, direct, |route| {
            page.ledger(route)
        });
        if self.plan.daemon.keep_queues {
            for (queue, messages) in self.queues.left() {
                log::info(format_args!(
                    "left in message queue {queue}: {}",
                    counted(messages, "message")
                ));
            }
        }
        let (lost, lanes) = (self.left_behind, self.left_behind + self.reports.len());
        if lost > 0 {
            anyhow::bail!(
                "{lost} of {lanes} lane threads did not report their messages, see above"
            );
        }
        Ok(())
    }

    /// Waits until the lanes have ended, within the time limit of the stop.
    fn join(&self) {
        while !self.stopped() && !self.overdue() {
            // Not a wait for an event: a wake-up between a thread's check and its blocking receive
            // is lost, so it is repeated until the thread has ended.
            std::thread::sleep(JOIN_POLL);
        }
    }

    /// Wakes these lane threads from their waits.
    fn wake(&self, concerned: impl Fn(&Thread) -> bool) {
        for thread in self
            .threads
            .iter()
            .filter(|t| !t.handle.is_finished() && concerned(t))
        {
            rtsignal::wake(thread.tid);
        }
    }
}

impl Drop for Daemon {
    /// After any error, no lane runs without the thread that watches it.
    fn drop(&mut self) {
        self.gates.clear();
        self.stop_at_ns
            .store((self.skin.now_ns)(), Ordering::Relaxed);
        self.join();
        self.threads
            .drain(..)
            .filter(|thread| !thread.handle.is_finished())
            .for_each(Thread::leave_behind);
    }
}

impl Thread {
    /// The thread may never end. The handle is kept: without it the thread would drop its report,
    /// and close all descriptors in it, by calls that are on no sealed thread's list.
    fn leave_behind(self) {
        std::mem::forget(self.handle);
    }
}

impl Waiting {
    fn watched(&self) -> watchdog::Watched {
        watchdog::Watched {
            lane: self.lane,
            name: self.thread.name.clone(),
            tid: self.thread.tid,
            clock: self.granted.clock.clone(),
            progress: Arc::clone(&self.progress),
        }
    }
}

fn spawn_all(
    builder: &mut Builder<'_>,
    plans: &[WorkerPlan<'_>],
    privilege: Privilege,
) -> anyhow::Result<Vec<Waiting>> {
    // All of them first: if other programs want the CPUs, each wait for an answer would cost a turn
    // of the scheduler. A failure drops the gates of the threads that were already started, and
    // they end.
    let mut started = Vec::with_capacity(plans.len());
    for (index, plan) in plans.iter().enumerate() {
        let (worker, events) = builder.worker(index, plan)?;
        let serves = plan.serves(builder.plan);
        let lane = &builder.plan.lanes[plan.lane].name;
        started.push(spawn(plan, lane, serves, worker, events, privilege)?);
    }
    started.into_iter().map(Started::wait).collect()
}

fn spawn(
    plan: &WorkerPlan<'_>,
    lane_name: &str,
    serves: Serves,
    worker: Worker,
    events: rtrb::Consumer<Event>,
    privilege: Privilege,
) -> anyhow::Result<Started> {
    let (open, gate) = mpsc::channel::<()>();
    let (granted_tx, granted_rx) = mpsc::channel();
    let empty = Report::empty(&plan.name);
    let progress = worker.progress.shared();
    let handle = std::thread::Builder::new()
        .name(plan.name.clone())
        .stack_size(memory::LANE_STACK_BYTES)
        .spawn(move || {
            let granted = worker.enter();
            privilege.of_lane();
            if granted_tx.send(granted).is_err() || gate.recv().is_err() {
                return empty;
            }
            // The channels and the spare report are dropped before the seal, because that is a heap
            // call.
            drop((granted_tx, gate, empty));
            worker.run()
        })
        .with_context(|| format!("cannot start the thread of {}", plan.name))?;
    let (name, lane) = (plan.name.clone(), plan.lane);
    let shown = format!("thread {name} of lane {lane_name}");
    Ok(Started {
        name,
        shown,
        lane,
        serves,
        handle,
        events,
        progress,
        open,
        granted: granted_rx,
    })
}

impl Started {
    /// Waits until the thread is at its gate.
    fn wait(self) -> anyhow::Result<Waiting> {
        let Started {
            name,
            shown,
            lane,
            serves,
            handle,
            events,
            progress,
            open,
            granted,
        } = self;
        let granted = granted
            .recv()
            .with_context(|| format!("the thread of {name} did not start"))?;
        let thread = Thread {
            name,
            shown,
            lane,
            serves,
            tid: granted.tid,
            handle,
            events,
            is_death_reported: false,
        };
        Ok(Waiting {
            lane,
            granted,
            progress,
            open,
            thread,
        })
    }
}

/// Warns of the cost of a kernel or a container's filter without futex_waitv(2), if the plan has
/// rings.
fn warn_of_refused_waits(plan: &Plan) {
    let rings = plan
        .endpoints
        .iter()
        .any(|endpoint| matches!(endpoint.kind, EndpointKind::Ring(_)));
    if let Err(errno) = futex::probe_wait_any()
        && rings
    {
        log::warning(format_args!(
            "futex_waitv(2) is refused ({errno:?}): a thread that waits for several rings polls \
             them every {} ms instead of being woken; Linux 5.16 has the call, and a container's seccomp profile must allow it",
            futex::POLL_NS / 1_000_000
        ));
    }
}

/// Bits for a lane with `poll` on a CPU that other threads use too.
fn unisolated_bit(unisolated: bool) -> u32 {
    if unisolated { degraded::UNISOLATED } else { 0 }
}
