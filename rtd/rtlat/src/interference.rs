//! `rtlat interference`: how late the most urgent lane is while something happens beside it.
//!
//! One pair per path goes through the measured lane of a daemon of its own, under each condition in
//! turn (`experiment`). A figure of a turn is compared with that turn's `alone`. The processes of a
//! condition run at SCHED_OTHER on every CPU; the pair and both lanes are on one.

#![forbid(unsafe_code)]

mod table;

use super::args::{ReportArgs, below};
use super::args::{allowed_cpus, given_cpus};
use super::beside::{self, Condition, Extent};
use super::control_block::Block;
use super::experiment::{Experiment, Outcome, Results, Subject};
use super::out::{Figure, Run, Unit};
use super::pair::{Pair, PairSpec, Work};
use super::recorder::Recording;
use super::report::{self, machine::Machine};
use super::role_loops::ThreadPlacement;
use super::route::{self, LaneArgs, OwnRoute, RoutePath};
use super::run::{Conditions, command_line, head, to_file};
use super::series::Series;
use super::time::wall_ns;
use anyhow::Context as _;
use rtd::ctl::sheet::WidthArgs;
use rtd::daemon::own::{self, OwnDaemon};

/// Messages before each block that are not recorded.
const WARM: u64 = 20;
/// Arguments of `rtlat interference`.
#[derive(clap::Args, Clone, Debug)]
pub struct InterferenceArgs {
    /// Run sender, receiver and both lanes on this CPU [default: the last one allowed]
    #[arg(short = 'a', long, value_name = "CPU")]
    affinity: Option<usize>,
    /// Measure these paths through the daemon
    #[arg(
        long,
        value_name = "PATHS",
        value_delimiter = ',',
        default_value = "mq-mq,lane"
    )]
    path: Vec<RoutePath>,
    /// Measure only under these conditions, and alone
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    only: Vec<Condition>,
    /// Send a message every US microseconds
    #[arg(short = 'i', long, value_name = "US", default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    interval: u64,
    /// Send N messages on the schedule in each turn
    #[arg(short = 'l', long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    loops: u64,
    /// Number of turns
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    turns: u64,
    /// SCHED_FIFO priority of the receiver; the sender is one below. 0: SCHED_OTHER
    #[arg(short = 'p', long, value_name = "PRIO", default_value_t = super::command::ROUTE_PRIORITY, value_parser = clap::value_parser!(u8).range(..=98))]
    priority: u8,
    /// Bytes of a message, if the path carries a payload
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = clap::value_parser!(u32).range(24..=1 << 20))]
    size: u32,
    /// Show no progress bar
    #[arg(short = 'q', long)]
    quiet: bool,
    #[command(flatten)]
    width: WidthArgs,
    #[command(flatten)]
    lane: LaneArgs,
    #[command(flatten)]
    report: ReportArgs,
}

/// A path under a condition, over all turns.
#[derive(Clone, Debug)]
pub struct Row {
    /// Title of the path, such as `mq -> mq`.
    pub path: &'static str,
    /// Load that ran beside it.
    pub condition: Condition,
    pub series: Series,
    /// Median and 99th percentile of each turn, ns.
    pub turns: Vec<[u64; 2]>,
    /// How much of the condition there was.
    pub extent: Extent,
}

/// Runs it, prints the table, writes the files asked for, and returns the exit code.
pub fn interference(args: &InterferenceArgs) -> anyhow::Result<u8> {
    let wanted =
        |c: &Condition| *c == Condition::Alone || args.only.is_empty() || args.only.contains(c);
    let chosen: Vec<Condition> = Condition::ALL.into_iter().filter(wanted).collect();
    beside::ensure_possible(&chosen)?;
    let mut conditions = Conditions::set(&args.report)?;
    let cpu = cpu_of(args)?;
    let started = wall_ns();
    // Each once, however often it was named.
    let paths: Vec<RoutePath> = RoutePath::ALL
        .into_iter()
        .filter(|path| args.path.contains(path))
        .collect();
    let subjects = prepare(args, &paths, &mut conditions, cpu)?;
    let block = Block {
        interval_ns: args.interval * 1000,
        count: args.loops,
        warm: WARM,
        ..Block::default()
    };
    let experiment = Experiment {
        beside: &chosen,
        blocks: &[block],
        turns: args.turns,
        quiet: args.quiet,
    };
    let Results {
        outcomes,
        turns,
        unlocked,
    } = experiment.run(subjects, &mut conditions)?;
    let rows: Vec<Row> = outcomes
        .into_iter()
        .filter_map(|outcome| row(paths[outcome.subject], outcome))
        .collect();
    let machine = Machine::read(&[cpu], conditions.refusals(Some(args.priority), unlocked));
    let run = Run {
        command: command_line(),
        start_time_ns: started,
        end_time_ns: wall_ns(),
        return_code: 0,
        unit: Unit::Us,
    };
    let said = format!(
        "# {turns} turns of {} messages every {} us; CPU {cpu}: receiver FIFO {}, lane {}, telemetry lane {}; us; X ALONE: \
         median of the turns' ratios to alone",
        args.loops,
        args.interval,
        args.priority,
        args.lane.lane_priority,
        beside::TELEMETRY_PRIORITY,
    );
    show(args, &run, &machine, &said, &rows, &conditions)?;
    Ok(0)
}

fn show(
    args: &InterferenceArgs,
    run: &Run,
    machine: &Machine,
    said: &str,
    rows: &[Row],
    conditions: &Conditions,
) -> anyhow::Result<()> {
    let named = |row: &Row| Series {
        name: format!("{}, {}", row.path, row.condition.title()),
        ..row.series.clone()
    };
    let series: Vec<Series> = rows.iter().map(named).collect();
    let text = if let Some(format) = args.report.format {
        let mut text = Vec::new();
        format.write(&mut text, run, &series, &[], Figure::Raw)?;
        String::from_utf8_lossy(&text).into_owned()
    } else {
        let mut sheet = head(conditions, machine, args.width.columns());
        sheet.line(said);
        sheet.table(&table::table(rows));
        sheet.finish()
    };
    rtd::ctl::page::print(&text)?;
    if let Some(path) = &args.report.json {
        to_file(path, |out| table::json(out, run, rows))?;
    }
    report::files::of_series(&args.report, run, || machine.clone(), &series)
}

fn cpu_of(args: &InterferenceArgs) -> anyhow::Result<usize> {
    let given = given_cpus()?;
    match args.affinity {
        Some(cpu) => {
            let allowed = allowed_cpus()?;
            super::args::cpu_list(&cpu.to_string(), &allowed).map(|list| list[0])
        }
        None => given.last().copied().context("no CPU is allowed"),
    }
}

/// The row of a path under a condition; none without its block.
fn row(path: RoutePath, outcome: Outcome) -> Option<Row> {
    let Outcome {
        condition,
        blocks,
        extent,
        ..
    } = outcome;
    let block = blocks.into_iter().next()?;
    Some(Row {
        path: path.title(),
        condition,
        series: block.series,
        turns: block.turns,
        extent,
    })
}

/// The daemon, and a pair for every path; no thread is started yet.
fn prepare(
    args: &InterferenceArgs,
    paths: &[RoutePath],
    conditions: &mut Conditions,
    cpu: usize,
) -> anyhow::Result<Vec<Subject>> {
    let bytes = usize::try_from(args.size)?;
    let numbered = paths.iter().enumerate();
    let routes = numbered
        .map(|(n, path)| OwnRoute::new(*path, n, bytes))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let (instance, socket) = own::names("rtlat");
    let text = route::config(&instance, &socket, &args.lane, cpu, &routes)
        + &beside::config(&instance, cpu, route::depth());
    let mut queues = beside::queues(&instance)?;
    for route in &routes {
        queues.extend(route.queues(&instance)?);
    }
    let daemon = OwnDaemon::start(&text, &instance, socket, queues)?;
    let mut subjects = Vec::new();
    for (number, (path, route)) in paths.iter().zip(&routes).enumerate() {
        let spec = PairSpec {
            work: Work::OneWay(Box::new(route.mechanism(&daemon)?)),
            sender: ThreadPlacement {
                cpu: Some(cpu),
                priority: below(args.priority),
            },
            receiver: ThreadPlacement {
                cpu: Some(cpu),
                priority: args.priority,
            },
            fork: false,
            recording: Recording::default(),
            breaker: None,
            is_verbose: false,
        };
        subjects.push(Subject {
            title: path.title().to_owned(),
            pair: Pair::prepare(number, spec)?,
        });
    }
    conditions.daemons.push(daemon);
    Ok(subjects)
}
