//! `rtlat clean`: is the real-time path clean? Sends many messages through each kind of path of a
//! daemon of its own, with all threads of the path sealed, and reports what they should not have
//! done.
//!
//! All threads of the run are on one CPU, the lane above the receiver above the sender: so a
//! message has arrived when its sender runs on, and a thread that takes the CPU from one of them
//! otherwise is no part of the path. Rules: `verdict`.

#![forbid(unsafe_code)]

mod calls;
mod preemptions;
mod role_thread;
mod show;
mod verdict;

use super::args::{BadOption, Place, ReportArgs, below};
use super::args::{allowed_cpus, given_cpus};
use super::command::{ROUTE_PRIORITY, start};
use super::control_block::{Block, ControlBlock, Role};
use super::mech::{Mechanism, Rx, Tx};
use super::role_loops::ThreadPlacement;
use super::route::{LaneArgs, OwnRoute, RoutePath};
use super::run::{Conditions, lock_memory};
use anyhow::{Context as _, bail};
use preemptions::{Trace, Watched};
use role_thread::{Account, RoleThread};
use rtcore::seal;
use rtcore::stats::degraded;
use rtcore::stats::reader::{Reader, Snapshot, Worker};
use rtcore::sys::clock::{monotonic_ns, sleep_until_or_signal};
use rtcore::sys::memory::ThreadUsage;
use rtcore::sys::{procfs, rtsignal};
use rtd::ctl::sheet::WidthArgs;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use verdict::{Granted, Outcome, Preemptions, Row};

/// Exit code: something is not clean.
pub const UNCLEAN: u8 = 5;

const PAYLOAD_BYTES: usize = 64;
const LANE_PRIORITY: u8 = 80;
/// How often the main thread checks.
const POLL_NS: u64 = 50_000_000;
/// How often a thread that is to end is woken.
const WAKE_NS: u64 = 1_000_000;
/// How long a receiver may take to its end when its sender is through.
const END_NS: u64 = 3_000_000_000;
/// A thread above the lane, for [`Unclean::Preempt`], comes so often.
const INTRUSION_NS: u64 = 1_000_000;

/// Arguments of `rtlat clean`.
#[derive(clap::Args, Clone, Debug)]
pub struct CleanArgs {
    /// Send N messages through each path
    #[arg(short = 'l', long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=1 << 39))]
    loops: u64,
    /// Check these paths
    #[arg(long, value_name = "PATHS", value_enum, value_delimiter = ',', default_values_t = PathArg::ALL)]
    path: Vec<PathArg>,
    /// Run all threads on this CPU [default: the last one allowed]
    #[arg(short = 'a', long, value_name = "CPU")]
    affinity: Option<String>,
    /// SCHED_FIFO priority of receivers, below the lane's 80; senders are one below. 0:
    /// SCHED_OTHER; preemptions are then shown and not checked
    #[arg(short = 'p', long, value_name = "PRIO", default_value_t = ROUTE_PRIORITY, value_parser = clap::value_parser!(u8).range(..80))]
    priority: u8,
    /// Write the results to this file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    width: WidthArgs,
    /// Make the sender do once what the check has to find
    #[arg(long, value_name = "WHAT", value_enum, hide = true)]
    unclean: Option<Unclean>,
}

/// `--path`.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathArg {
    /// Message queue to message queue
    Mq,
    /// Signal to signal
    Signal,
    /// Shared memory, through a lane
    LaneRouted,
    /// Shared memory, from process to process
    LaneDirect,
}

impl PathArg {
    /// Each of them.
    pub const ALL: [PathArg; 4] = [
        PathArg::Mq,
        PathArg::Signal,
        PathArg::LaneRouted,
        PathArg::LaneDirect,
    ];

    fn route_path(self) -> RoutePath {
        match self {
            PathArg::Mq => RoutePath::MqMq,
            PathArg::Signal => RoutePath::SignalSignal,
            PathArg::LaneRouted => RoutePath::Lane,
            PathArg::LaneDirect => RoutePath::Direct,
        }
    }

    fn key(self) -> String {
        clap::ValueEnum::to_possible_value(&self)
            .map_or_else(String::new, |v| v.get_name().to_owned())
    }
}

/// `--unclean`: by the sender, in the middle of the run.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unclean {
    /// Allocates
    Heap,
    /// Touches memory that is not there
    Fault,
    /// Makes a system call that is not on its list
    Call,
    /// Counts a message that it did not send
    Loss,
    /// Another thread takes the CPU
    Preempt,
}

/// Runs it; the exit code.
pub fn clean(args: &CleanArgs) -> anyhow::Result<u8> {
    let no_more = |json| ReportArgs {
        json,
        format: None,
        svg: None,
        html: None,
        load: Vec::new(),
    };
    let mut conditions = Conditions::set(&no_more(args.json.clone()))?;
    seal::watch_calls().context("cannot install the handler of SIGSYS")?;
    let cpu = cpu_of(args)?;
    let placement = |priority| ThreadPlacement {
        cpu: Some(cpu),
        priority,
    };
    let (sender, receiver) = (placement(below(args.priority)), placement(args.priority));
    let routes = args.path.iter().enumerate();
    let routes = routes.map(|(n, path)| OwnRoute::new(path.route_path(), n, PAYLOAD_BYTES));
    let routes = routes.collect::<anyhow::Result<Vec<_>>>()?;
    let lane = LaneArgs {
        lane_priority: LANE_PRIORITY,
        lane_cpu: Some(cpu),
        lane_wait: "block".to_owned(),
    };
    let daemon = start(
        &lane,
        &[Place {
            sender,
            receiver,
            interval_ns: 0,
        }],
        &routes,
    )?;
    let page = Reader::open(daemon.instance())?;
    let mechanisms = routes
        .iter()
        .map(|route| route.mechanism(&daemon))
        .collect::<anyhow::Result<Vec<_>>>()?;
    conditions.daemons.push(daemon);
    let trace = Trace::open();
    let mut run = Run {
        args,
        placements: [sender, receiver],
        granted: granted(args, &page.snapshot()?, trace.as_ref().err()),
        trace: trace.ok(),
        page,
        conditions,
    };
    let mut outcomes = Vec::new();
    for (number, mechanism) in mechanisms.into_iter().enumerate() {
        outcomes.push(run.path(number, Arc::new(mechanism))?);
    }
    let outcomes: Vec<Outcome> = outcomes
        .into_iter()
        .map(|outcome| outcome.assess(&run.granted))
        .collect();
    run.conditions.end_daemons()?;
    let code = if outcomes.iter().all(|outcome| outcome.reasons.is_empty()) {
        0
    } else {
        UNCLEAN
    };
    show::print(&outcomes, &run.granted, args.width.columns())?;
    if let Some(path) = &args.json {
        show::json(path, &outcomes, &run.granted, code)?;
    }
    Ok(code)
}

fn cpu_of(args: &CleanArgs) -> anyhow::Result<usize> {
    let Some(text) = &args.affinity else {
        let given = given_cpus()?;
        return given.last().copied().context("no CPU is allowed");
    };
    let allowed = allowed_cpus()?;
    match super::args::cpu_list(text, &allowed)?.as_slice() {
        [cpu] => Ok(*cpu),
        _ => bail!(BadOption(format!(
            "-a {text}: one CPU, on which all threads run"
        ))),
    }
}

fn granted(args: &CleanArgs, snapshot: &Snapshot, no_trace: Option<&anyhow::Error>) -> Granted {
    let lacks = |bits| {
        snapshot
            .lanes
            .iter()
            .any(|lane| lane.degraded_bits & bits != 0)
    };
    Granted {
        memory: !lacks(degraded::MEMORY),
        fifo: args.priority > 0 && !lacks(degraded::FIFO | degraded::PINNING),
        no_trace: no_trace.map(|e| format!("{e:#}")),
    }
}

/// The state that all paths share.
struct Run<'a> {
    args: &'a CleanArgs,
    /// Of the sender and the receiver, in this order.
    placements: [ThreadPlacement; 2],
    granted: Granted,
    trace: Option<Trace>,
    page: Reader,
    conditions: Conditions,
}

impl Run<'_> {
    /// Sends and receives all messages of one path, by its number on the command line: one that is
    /// named twice runs twice, over routes of its own.
    fn path(&mut self, number: usize, mechanism: Arc<dyn Mechanism>) -> anyhow::Result<Outcome> {
        let path = self.args.path[number];
        let control = Arc::new(ControlBlock::new()?);
        // The receiver first: a sender waits for one.
        let receiver = self.spawn(path, Role::Receiver, &control, &mechanism)?;
        let sender = self.spawn(path, Role::Sender, &control, &mechanism)?;
        let ends = Ends {
            control,
            threads: [sender, receiver],
        };
        self.wait_until(&ends, |ends| ends.control.ready() == 2)?;
        // All stacks and buffers are there now.
        self.granted.memory &= lock_memory().is_ok();
        let lane = self.lane_of(number)?;
        self.watch(&ends, lane.as_ref())?;
        // From here on the trace says by whom.
        let daemon = self.conditions.daemons.first().context("no daemon")?.pid();
        let watched = lane
            .map(|lane| anyhow::Ok((procfs::thread_usage(daemon, lane.tid)?, lane)))
            .transpose()?;
        let intruder = self.intruder(&ends.control)?;
        ends.control.begin(&Block {
            count: self.args.loops,
            ..Block::default()
        });
        self.wait_until(&ends, |ends| ends.threads[0].is_finished())?;
        let until_ns = monotonic_ns() + END_NS;
        self.wait_until(&ends, |ends| {
            ends.threads[1].is_finished() || monotonic_ns() > until_ns
        })?;
        ends.quit()?;
        intruder.map(JoinHandle::join);
        if let Some(failure) = ends.control.failure() {
            bail!("{}: {failure}", path.route_path().title());
        }
        let joined = ends
            .threads
            .map(|thread| thread.join().ok().flatten().context("a thread panicked"));
        let [sender, receiver] = joined.map(|joined| joined.map(|(account, _)| account));
        let (sender, receiver) = (sender?, receiver?);
        let messages = [sender.messages, receiver.messages];
        let mut accounts = Vec::from_iter(
            watched
                .map(|(since, lane)| self.account_of(&lane, &since))
                .transpose()?,
        );
        accounts.extend([sender, receiver]);
        Ok(Outcome {
            path: path.route_path().title(),
            key: path.key(),
            messages,
            count: self.args.loops,
            rows: self.rows(accounts)?,
            reasons: Vec::new(),
            machine: Vec::new(),
        })
    }

    fn spawn(
        &self,
        path: PathArg,
        role: Role,
        control: &Arc<ControlBlock>,
        mechanism: &Arc<dyn Mechanism>,
    ) -> anyhow::Result<Thread> {
        let thread = RoleThread {
            control: Arc::clone(control),
            role,
            placement: self.placements[role as usize],
            count: self.args.loops,
            program: calls::program(path.route_path(), role)?,
            unclean: self.args.unclean,
        };
        let mechanism = Arc::clone(mechanism);
        let run = move || {
            let done = match role {
                Role::Sender => mechanism.sender().and_then(|mut tx| {
                    thread.placement.take("rtlat-sender")?;
                    Ok((thread.send(&mut *tx), End::Sending(tx)))
                }),
                Role::Receiver => mechanism.receiver().and_then(|mut rx| {
                    thread.placement.take("rtlat-receiver")?;
                    Ok((thread.receive(&mut *rx), End::Receiving(rx)))
                }),
            };
            done.inspect_err(|e| thread.control.fail(&format!("{e:#}")))
                .ok()
        };
        std::thread::Builder::new()
            .spawn(run)
            .context("cannot start a thread")
    }

    /// Polls until it is so; an error when a role, the daemon or the user ends the
    /// run.
    fn wait_until(
        &mut self,
        ends: &Ends,
        mut is_so: impl FnMut(&Ends) -> bool,
    ) -> anyhow::Result<()> {
        let mut seen = ends.control.changes();
        while !is_so(ends) {
            seen = ends.control.wait_change(seen, POLL_NS);
            if let Some(failure) = ends.control.failure() {
                bail!(failure);
            }
            self.conditions.check()?;
            if self.conditions.is_stopped() {
                bail!("interrupted");
            }
        }
        Ok(())
    }

    /// The daemon's thread of a path; none where there is none.
    fn lane_of(&self, number: usize) -> anyhow::Result<Option<Worker>> {
        let snapshot = self.page.snapshot()?;
        let source = format!("tx{number}.msg");
        Ok(snapshot
            .workers
            .into_iter()
            .find(|worker| worker.name == source))
    }

    /// Has the trace record who takes the CPU from the path's threads.
    fn watch(&mut self, ends: &Ends, lane: Option<&Worker>) -> anyhow::Result<()> {
        let Some(trace) = &self.trace else {
            return Ok(());
        };
        let [sender, receiver] = ends.tids();
        let lane = lane.map(|lane| lane.tid);
        let above = |tids: &[u32]| Vec::from_iter(lane.into_iter().chain(tids.iter().copied()));
        let mut threads = vec![
            Watched {
                tid: sender,
                above: above(&[receiver]),
            },
            Watched {
                tid: receiver,
                above: above(&[]),
            },
        ];
        threads.extend(lane.map(|tid| Watched {
            tid,
            above: Vec::new(),
        }));
        if let Err(e) = trace.watch(&threads) {
            (self.trace, self.granted.no_trace) = (None, Some(format!("{e:#}")));
        }
        Ok(())
    }

    /// The account of the daemon's thread since its seal; its preemptions are counted from
    /// `watched_at`.
    fn account_of(&self, lane: &Worker, watched_at: &ThreadUsage) -> anyhow::Result<Account> {
        let snapshot = self.page.snapshot()?;
        let now = snapshot
            .workers
            .iter()
            .find(|w| w.tid == lane.tid)
            .context("the lane's thread is gone")?;
        let sealed_at = now.sealed_at.context("the lane's thread is not sealed")?;
        let shown = now
            .lane
            .and_then(|lane| snapshot.lanes.get(lane))
            .context("a thread of no lane")?;
        let fifo = shown.degraded_bits & degraded::FIFO == 0;
        let usage = procfs::thread_usage(snapshot.pid, now.tid)?;
        let involuntary_switches = usage.since(watched_at).involuntary_switches;
        Ok(Account {
            role: "lane",
            name: now.name.clone(),
            tid: now.tid,
            priority: if fifo { LANE_PRIORITY } else { 0 },
            // Without the END.
            messages: now.counters.received.saturating_sub(1),
            allocations: now.counters.allocations,
            used: ThreadUsage {
                involuntary_switches,
                ..usage.since(&sealed_at)
            },
            refused_calls: now.counters.refused_calls,
            refused_call: now.counters.refused_call(),
            is_confined: shown.is_confined && shown.degraded_bits & degraded::UNCONFINED == 0,
            sealed_ns: [0, u64::MAX],
        })
    }

    /// Adds to each account who preempted the thread.
    fn rows(&mut self, accounts: Vec<Account>) -> anyhow::Result<Vec<Row>> {
        let daemon = self.conditions.daemons.first().context("no daemon")?.pid();
        let tids: Vec<_> = accounts.iter().map(|account| account.tid).collect();
        let switches = match self.trace.as_ref().map(|trace| trace.read(daemon, &tids)) {
            Some(Ok(switches)) => Some(switches),
            Some(Err(e)) => {
                self.granted.no_trace = Some(format!("{e:#}"));
                None
            }
            None => None,
        };
        let row = |account: Account| {
            let total = u64::try_from(account.used.involuntary_switches).unwrap_or(0);
            let mut preempted = Preemptions {
                unknown: total,
                ..Preemptions::default()
            };
            if let Some(switches) = &switches {
                let [from_ns, to_ns] = account.sealed_ns;
                // The trace's clock has microseconds.
                let within = |at_ns| (from_ns.saturating_sub(1000)..=to_ns).contains(&at_ns);
                for switch in switches
                    .iter()
                    .filter(|s| s.from == account.tid && within(s.at_ns))
                {
                    let known = preempted
                        .by
                        .iter_mut()
                        .find(|(by, name, _)| *by == switch.by && *name == switch.name);
                    match known {
                        Some((.., times)) => *times += 1,
                        None => preempted.by.push((switch.by, switch.name.clone(), 1)),
                    }
                }
                let explained = preempted.by.iter().map(|(.., times)| times).sum();
                let rest = total.saturating_sub(explained);
                // Nothing in the run is above a lane.
                let is_lane = account.role == "lane";
                (preempted.by_lanes, preempted.unknown) =
                    if is_lane { (0, rest) } else { (rest, 0) };
            }
            Row { account, preempted }
        };
        Ok(accounts.into_iter().map(row).collect())
    }

    /// The thread of [`Unclean::Preempt`]; it is there when this returns, and until the run is
    /// over.
    fn intruder(&self, control: &Arc<ControlBlock>) -> anyhow::Result<Option<JoinHandle<()>>> {
        if self.args.unclean != Some(Unclean::Preempt) {
            return Ok(None);
        }
        let placement = ThreadPlacement {
            cpu: self.placements[0].cpu,
            priority: LANE_PRIORITY + 1,
        };
        let (control, (ready_tx, ready_rx)) = (Arc::clone(control), std::sync::mpsc::channel());
        let intrude = move || {
            let taken = placement.take("rtlat-intruder");
            let has_taken = taken.is_ok();
            let _ = ready_tx.send(taken);
            while has_taken && !control.is_quit() {
                sleep_until_or_signal(monotonic_ns() + INTRUSION_NS);
            }
        };
        let thread = std::thread::Builder::new()
            .spawn(intrude)
            .context("cannot start a thread")?;
        ready_rx.recv().context("the intruder ended")??;
        Ok(Some(thread))
    }
}

/// One of the two threads of a path. It must not drop its end itself: the system calls of a
/// session's end are not on its list.
type Thread = JoinHandle<Option<(Account, End)>>;

/// An end that was used.
enum End {
    Sending(#[expect(dead_code, reason = "held to be dropped")] Box<dyn Tx>),
    Receiving(#[expect(dead_code, reason = "held to be dropped")] Box<dyn Rx>),
}

/// The two threads of a path.
struct Ends {
    control: Arc<ControlBlock>,
    /// The sender and the receiver, in this order.
    threads: [Thread; 2],
}

impl Ends {
    fn tids(&self) -> [u32; 2] {
        [Role::Sender, Role::Receiver].map(|role| self.control.whereabouts(role).0.unsigned_abs())
    }

    /// Has both end, wherever they wait.
    fn quit(&self) -> anyhow::Result<()> {
        self.control.quit();
        let until_ns = monotonic_ns() + END_NS;
        while self.threads.iter().any(|thread| !thread.is_finished()) {
            if monotonic_ns() > until_ns {
                bail!("a thread of the run does not end");
            }
            // Repeated: one that comes between a look and a wait is lost.
            self.tids()
                .iter()
                .for_each(|tid| rtsignal::wake(tid.cast_signed()));
            self.control.wait_change(self.control.changes(), WAKE_NS);
        }
        Ok(())
    }
}
