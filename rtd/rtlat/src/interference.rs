//! `rtlat interference`: how late the most urgent lane is while something happens beside it.
//!
//! One pair per path goes through the measured lane of a daemon of its own. The conditions take turns, and what is compared
//! is a turn's figure to that turn's `alone`, so that a machine whose speed drifts slows all of them alike. The processes of
//! a condition are real ones, at SCHED_OTHER on every CPU; the pair and both lanes are on one.

#![forbid(unsafe_code)]

mod beside;
mod table;
mod worker;

pub use beside::Condition;
pub use worker::{InterfererArgs, interfere};

use super::args::{ReportArgs, below};
use super::board::Block;
use super::out::{Figure, Run, Unit};
use super::pair::{Pair, PairSpec, Work};
use super::party::Seat;
use super::recorder::Recording;
use super::report::{self, machine::Machine};
use super::route::{self, LaneArgs, OwnRoute, Way};
use super::run::{Conditions, command_line, lock_memory, to_file, wall_ns};
use super::series::Series;
use anyhow::{Context as _, bail};
use beside::{Beside, Extent};
use indicatif::{ProgressBar, ProgressStyle};
use rtcore::sys::{clock::monotonic_ns, cpus};
use rtd::daemon::own::{self, OwnDaemon};
use std::time::Duration;

/// Messages before each block that are not recorded.
const WARM: u64 = 20;
/// A block that takes longer is stopped.
const BLOCK_MAX: Duration = Duration::from_secs(120);
/// From the order to the first point of the schedule.
const LEAD_NS: u64 = 2_000_000;

/// Arguments of `rtlat interference`.
#[derive(clap::Args, Clone, Debug)]
pub struct InterferenceArgs {
    /// CPU of the pair and of both lanes. Default: the last one allowed
    #[arg(short = 'a', long, value_name = "CPU")]
    affinity: Option<usize>,
    /// Paths through the measured lane
    #[arg(long, value_name = "PATHS", value_delimiter = ',', default_value = "mq-mq,lane")]
    path: Vec<Way>,
    /// Only these conditions; `alone` is always among them
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    only: Vec<Condition>,
    /// Schedule in microseconds
    #[arg(short = 'i', long, value_name = "US", default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    interval: u64,
    /// Points of the schedule in a turn
    #[arg(short = 'l', long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    loops: u64,
    /// Turns
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    turns: u64,
    /// SCHED_FIFO priority of the receiver, the sender is one below; 0: SCHED_OTHER
    #[arg(short = 'p', long, value_name = "PRIO", default_value_t = super::command::ROUTE_PRIORITY, value_parser = clap::value_parser!(u8).range(..=98))]
    priority: u8,
    /// Payload in bytes, where there is one
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = clap::value_parser!(u32).range(24..=1 << 20))]
    size: u32,
    /// No progress
    #[arg(short = 'q', long)]
    quiet: bool,
    #[command(flatten)]
    lane: LaneArgs,
    #[command(flatten)]
    report: ReportArgs,
}

/// A path under a condition, over all turns.
#[derive(Clone, Debug)]
pub struct Row {
    /// `mq -> mq` ...
    pub path: &'static str,
    /// What was beside.
    pub condition: Condition,
    /// What was measured.
    pub series: Series,
    /// Median and 99th percentile of each turn, ns.
    pub turns: Vec<[u64; 2]>,
    /// How much of the condition there was.
    pub extent: Extent,
}

/// Runs it, prints the table, writes what was asked for; the exit code.
pub fn interference(args: &InterferenceArgs) -> anyhow::Result<u8> {
    let wanted = |c: &Condition| *c == Condition::Alone || args.only.is_empty() || args.only.contains(c);
    let chosen: Vec<Condition> = Condition::ALL.into_iter().filter(wanted).collect();
    beside::ensure_possible(&chosen)?;
    let mut conditions = Conditions::set(&args.report)?;
    let cpu = cpu_of(args)?;
    let started = wall_ns();
    let (daemon, mut pairs) = prepare(args, cpu)?;
    pairs.iter_mut().try_for_each(|(_, pair)| pair.launch())?;
    let locked = lock_memory();
    let (rows, turns) = measure(args, &mut conditions, &daemon, &mut pairs, &chosen)?;
    if turns == 0 {
        bail!("interrupted before the first turn was through");
    }
    drop(pairs);
    daemon.stop()?;
    let mut refusals = conditions.refusals(Some(args.priority));
    refusals.extend(locked.err().map(|e| e.to_string().lines().next().unwrap_or_default().to_owned()));
    let machine = Machine::read(&[cpu], refusals);
    let head = format!(
        "{}# {turns} turns of {} messages every {} us; CPU {cpu}: receiver FIFO {}, lane {}, telemetry lane {}; us; X ALONE: \
         median over the turns\n",
        conditions.lines(None),
        args.loops,
        args.interval,
        args.priority,
        args.lane.lane_priority,
        beside::TELEMETRY_PRIORITY,
    );
    let run = Run {
        command: command_line(),
        start_time_ns: started,
        end_time_ns: wall_ns(),
        return_code: 0,
        unit: Unit::Us,
    };
    show(args, &run, &machine, &head, &rows, &conditions)?;
    Ok(0)
}

fn show(
    args: &InterferenceArgs,
    run: &Run,
    machine: &Machine,
    head: &str,
    rows: &[Row],
    conditions: &Conditions,
) -> anyhow::Result<()> {
    let series: Vec<Series> = rows
        .iter()
        .map(|row| Series { name: format!("{}, {}", row.path, row.condition.title()), ..row.series.clone() })
        .collect();
    let mut text = Vec::new();
    if let Some(format) = args.report.format {
        format.write(&mut text, run, &series, &[], Figure::Raw)?;
    } else {
        text.extend(head.bytes());
        let others = machine.degraded.iter().filter(|refusal| **refusal != conditions.awake.said);
        others.for_each(|refusal| text.extend(format!("# {refusal}\n").bytes()));
        text.extend(table::text(rows).bytes());
    }
    rtd::ctl::page::print(&String::from_utf8_lossy(&text))?;
    if let Some(path) = &args.report.json {
        to_file(path, |out| table::json(out, run, rows))?;
    }
    report::files::of_series(&args.report, run, || machine.clone(), &series)
}

fn cpu_of(args: &InterferenceArgs) -> anyhow::Result<usize> {
    let given = cpus::given().context("cannot read which CPUs this process was given")?;
    match args.affinity {
        Some(cpu) => {
            let allowed = cpus::allowed().context("cannot read which CPUs this process may use")?;
            super::args::cpu_list(&cpu.to_string(), &allowed).map(|list| list[0])
        }
        None => given.last().copied().context("no CPU is allowed"),
    }
}

/// The daemon, and a pair for every path; no thread is started yet.
fn prepare(args: &InterferenceArgs, cpu: usize) -> anyhow::Result<(OwnDaemon, Vec<(Way, Pair)>)> {
    let bytes = usize::try_from(args.size)?;
    let numbered = args.path.iter().enumerate();
    let routes =
        numbered.map(|(n, way)| OwnRoute::new(*way, n, bytes)).collect::<anyhow::Result<Vec<_>>>()?;
    let (instance, socket) = own::names("rtlat");
    let text = route::config(&instance, &socket, &args.lane, cpu, &routes)
        + &beside::config(&instance, cpu, route::depth());
    let mut queues = beside::queues(&instance)?;
    for route in &routes {
        queues.extend(route.queues(&instance)?);
    }
    let daemon = OwnDaemon::start(&text, &instance, socket, queues)?;
    let mut pairs = Vec::new();
    for (number, (way, route)) in args.path.iter().zip(&routes).enumerate() {
        let spec = PairSpec {
            work: Work::OneWay(Box::new(route.mechanism(&daemon)?)),
            sender: Seat { cpu: Some(cpu), priority: below(args.priority) },
            receiver: Seat { cpu: Some(cpu), priority: args.priority },
            fork: false,
            recording: Recording::default(),
            breaker: None,
            is_verbose: false,
        };
        pairs.push((*way, Pair::prepare(number, spec)?));
    }
    Ok((daemon, pairs))
}

/// Turn after turn; the rows, and how many turns were whole.
fn measure(
    args: &InterferenceArgs,
    conditions: &mut Conditions,
    daemon: &OwnDaemon,
    pairs: &mut [(Way, Pair)],
    chosen: &[Condition],
) -> anyhow::Result<(Vec<Row>, u64)> {
    let bar = match args.quiet {
        true => ProgressBar::hidden(),
        false => ProgressBar::new(args.turns * (chosen.len() * pairs.len()) as u64),
    };
    bar.set_style(ProgressStyle::with_template("{msg:<46} [{bar:30}] {percent:>3} %, {eta} to go")?);
    let mut rows: Vec<Row> = Vec::new();
    for turn in 0..args.turns {
        let mut results = Vec::new();
        for &condition in chosen {
            let beside = Beside::start(condition, daemon)?;
            let mut measured = Vec::new();
            for (way, pair) in pairs.iter_mut() {
                bar.set_message(format!("{}, {}", way.title(), condition.title()));
                bar.inc(1);
                if conditions.stop.take().is_some() {
                    bar.finish_and_clear();
                    return Ok((rows, turn));
                }
                conditions.check()?;
                let start_ns = monotonic_ns() + LEAD_NS;
                let interval_ns = args.interval * 1000;
                let block = Block { start_ns, interval_ns, count: args.loops, warm: WARM, slice_ns: 0 };
                measured.push((way.title(), pair.run(&block, BLOCK_MAX)?));
            }
            let extent = beside.end()?;
            results.extend(measured.into_iter().map(|(path, series)| (path, condition, series, extent)));
        }
        // A turn counts as a whole: ratios are to its own `alone`.
        results.into_iter().for_each(|result| add(&mut rows, result));
    }
    bar.finish_and_clear();
    Ok((rows, args.turns))
}

fn add(rows: &mut Vec<Row>, (path, condition, series, extent): (&'static str, Condition, Series, Extent)) {
    let turn = [0.5, 0.99].map(|quantile| report::raw_at(&series, quantile));
    match rows.iter_mut().find(|row| (row.path, row.condition) == (path, condition)) {
        Some(row) => {
            row.series.append(&series);
            row.turns.push(turn);
            row.extent.add(extent);
        }
        None => rows.push(Row { path, condition, series, turns: vec![turn], extent }),
    }
}
