//! `rtlat compare`: every mechanism and every route in one run, on one CPU and on two.
//!
//! The pairs take turns (`experiment`). In a turn each runs twice: on the schedule, with idle gaps
//! between messages, and back to back.

#![forbid(unsafe_code)]

use super::args::{BadOption, ReportArgs};
use super::args::{allowed_cpus, given_cpus};
use super::baseline;
use super::beside::Condition;
use super::control_block::Block;
use super::experiment::{Experiment, Measured, Outcome, Results, Subject};
use super::mech::{self, Kind};
use super::out::{Figure, Run, Unit, host::Host, json};
use super::pair::{Pair, PairSpec, Work};
use super::preset::{self, Preset};
use super::recorder::Recording;
use super::report::{self, machine::Machine, table};
use super::role_loops::ThreadPlacement;
use super::route::{LaneArgs, OwnRoute, RoutePath};
use super::run::{Conditions, WORSE, command_line, head, must_be_writable, to_file};
use super::series::{Comparison, Placement, Row, Series, Turn};
use super::time::wall_ns;
use anyhow::{Context as _, bail};
use rtcore::sys::cpus;
use rtd::ctl::sheet::WidthArgs;
use std::path::PathBuf;

/// Messages before each block that are not recorded.
const WARM: u64 = 5;
/// Messages of a turn back to back.
const BUSY: u64 = 200;
const TURNS: u64 = 20;

/// Arguments of `rtlat compare`.
#[derive(clap::Args, Clone, Debug)]
pub struct CompareArgs {
    /// Two CPUs. Senders, lanes and, in the rows `same CPU`, receivers run on the first; in the
    /// rows `other CPU` receivers run on the second [default: the last one allowed, and one of
    /// another core if there is one]
    #[arg(short = 'a', long, value_name = "CPUS")]
    affinity: Option<String>,
    /// Measure only mq and these: signal, sem, mutex, futex, eventfd, pipe, unix, sysv, mq-mq,
    /// mq-signal, signal-signal, lane, direct
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    only: Vec<String>,
    /// Measure only with sender and receiver on the same CPU, or only on two
    #[arg(long, value_name = "WHERE", value_enum)]
    placement: Option<WhereArg>,
    /// Send a message every US microseconds in the paced part of a turn
    #[arg(short = 'i', long, value_name = "US", default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    interval: u64,
    /// Send N messages in the paced part of a turn
    #[arg(short = 'l', long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    loops: u64,
    /// Send N messages in the part of a turn in which each follows the arrival of the one before
    /// [default: 200; of a preset 100]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(super) busy: Option<u64>,
    /// Number of turns [default: 20; of a preset 400]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub(super) turns: Option<u64>,
    /// Measure fixed sets of paths through daemons of their own instead, and show each figure with
    /// its aim
    #[arg(long, value_name = "NAMES", value_enum, value_delimiter = ',', conflicts_with_all = [
        "only", "placement", "interval", "loops", "priority", "fork", "size", "save", "against", "lane_priority", "lane_cpu",
        "lane_wait", "format", "svg", "html"
    ])]
    pub(super) preset: Vec<Preset>,
    /// SCHED_FIFO priority of receivers; senders are one below. 0: SCHED_OTHER
    #[arg(short = 'p', long, value_name = "PRIO", default_value_t = super::command::ROUTE_PRIORITY, value_parser = clap::value_parser!(u8).range(..=98))]
    priority: u8,
    /// Make each sender a process instead of a thread
    #[arg(short = 'f', long)]
    fork: bool,
    /// Bytes of a message, if the path carries a payload
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = clap::value_parser!(u32).range(24..=1 << 20))]
    size: u32,
    /// Show no progress bar
    #[arg(short = 'q', long)]
    pub(super) quiet: bool,
    #[command(flatten)]
    pub(super) width: WidthArgs,
    /// Write the result to this file, for a later --against
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Compare each path's ratio to mq with a result that --save wrote: better, same or worse; exit
    /// with 4 if one is worse
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    #[command(flatten)]
    lane: LaneArgs,
    #[command(flatten)]
    pub(super) report: ReportArgs,
}

/// `--placement`.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum WhereArg {
    Same,
    Other,
}

/// A path of the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Path {
    Raw(Kind),
    Route(RoutePath),
}

impl Path {
    fn all() -> impl Iterator<Item = Path> {
        Kind::all()
            .into_iter()
            .map(Path::Raw)
            .chain(RoutePath::ALL.into_iter().map(Path::Route))
    }

    /// As it stands in the table.
    fn title(self) -> &'static str {
        match self {
            Path::Raw(kind) => kind.name(),
            Path::Route(path) => path.title(),
        }
    }

    /// As `--only` says it.
    fn key(self) -> String {
        match self {
            Path::Raw(kind) => kind.name().to_owned(),
            Path::Route(path) => clap::ValueEnum::to_possible_value(&path)
                .map_or_else(String::new, |v| v.get_name().to_owned()),
        }
    }
}

/// Runs it, prints the table, writes the files asked for, and returns the exit code.
pub fn compare(args: &CompareArgs) -> anyhow::Result<u8> {
    if let Some(path) = &args.against {
        // Before the run, which takes a minute.
        baseline::load(path)?;
    }
    must_be_writable([&args.save])?;
    let cpus = cpus_of(args)?;
    if !args.preset.is_empty() {
        return preset::run(args, cpus);
    }
    let mut conditions = Conditions::set(&args.report)?;
    let paths = paths_of(&args.only)?;
    let started = wall_ns();
    let (places, subjects) = prepare(args, &mut conditions, &paths, cpus)?;
    let paced = Block {
        interval_ns: args.interval * 1000,
        count: args.loops,
        warm: WARM,
        ..Block::default()
    };
    let busy = args.busy.unwrap_or(BUSY);
    let busy = Block {
        interval_ns: 0,
        count: busy,
        ..paced
    };
    let experiment = Experiment {
        beside: &[Condition::Alone],
        blocks: &[paced, busy],
        turns: args.turns.unwrap_or(TURNS),
        quiet: args.quiet,
    };
    let Results {
        outcomes,
        turns,
        unlocked,
    } = experiment.run(subjects, &mut conditions)?;
    let used = [Some(cpus.0), cpus.1]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>();
    let machine = Machine::read(&used, conditions.refusals(Some(args.priority), unlocked));
    let comparison = Comparison {
        rows: outcomes
            .into_iter()
            .filter_map(|outcome| row(places[outcome.subject], outcome))
            .collect(),
        interval_ns: args.interval * 1000,
        payload_bytes: usize::try_from(args.size)?,
        priority: args.priority,
        lane_priority: args.lane.lane_priority,
        load: conditions.load.describe(),
    };
    finish(args, &conditions, &comparison, &machine, (started, turns))
}

fn finish(
    args: &CompareArgs,
    conditions: &Conditions,
    comparison: &Comparison,
    machine: &Machine,
    (started, turns): (u64, u64),
) -> anyhow::Result<u8> {
    let against = args.against.as_deref();
    let verdict = against
        .map(|path| baseline::against(comparison, machine, path))
        .transpose()?;
    let code = if verdict.as_ref().is_some_and(baseline::Verdict::is_worse) {
        WORSE
    } else {
        0
    };
    let run = Run {
        command: command_line(),
        start_time_ns: started,
        end_time_ns: wall_ns(),
        return_code: code,
        unit: Unit::Us,
    };
    let columns = args.width.columns();
    let text = if let Some(format) = args.report.format {
        let mut text = Vec::new();
        format.write(&mut text, &run, &flat(comparison), &[], Figure::Raw)?;
        String::from_utf8_lossy(&text).into_owned()
    } else {
        let mut sheet = head(conditions, machine, columns);
        sheet.line(&format!(
            "# {turns} turns of {} messages every {} us and {} back to back; us; X MQ: median of the turns' ratios to mq",
            args.loops,
            args.interval,
            args.busy.unwrap_or(BUSY)
        ));
        sheet.table(&table::table(comparison));
        table::losses(comparison)
            .lines()
            .for_each(|line| sheet.line(line));
        sheet.finish()
    };
    rtd::ctl::page::print(&text)?;
    if let Some(path) = &args.report.json {
        to_file(path, |out| {
            Ok(json::write_comparison(
                out,
                &run,
                &Host::read(),
                comparison,
            )?)
        })?;
    }
    report::files::of_comparison(&args.report, &run, machine, comparison)?;
    if let Some(path) = &args.save {
        baseline::save(comparison, machine, path)?;
    }
    if let Some(verdict) = &verdict {
        rtd::ctl::page::print(&verdict.text(columns))?;
        if verdict.is_empty() {
            bail!("no path could be compared: see above, and use more --turns");
        }
    }
    Ok(code)
}

/// The rows as series, for formats that know nothing else.
fn flat(comparison: &Comparison) -> Vec<Series> {
    let named = |row: &Row, series: &Series, how: &str| Series {
        name: format!("{} {} {how}", row.path, row.placement.text()),
        ..series.clone()
    };
    let both = |row: &Row| {
        [
            named(row, &row.paced, "paced"),
            named(row, &row.busy, "busy"),
        ]
    };
    comparison.rows.iter().flat_map(both).collect()
}

/// The row of a path in a placement; none without both of its blocks.
fn row((path, placement): Place, outcome: Outcome) -> Option<Row> {
    let [paced, busy] = <[Measured; 2]>::try_from(outcome.blocks).ok()?;
    let turns = paced
        .turns
        .iter()
        .zip(&busy.turns)
        .map(|(paced, busy)| Turn {
            paced_p50_ns: paced[0],
            paced_p99_ns: paced[1],
            busy_p50_ns: busy[0],
        });
    let turns = turns.collect();
    Some(Row {
        path: path.title().to_owned(),
        placement,
        paced: paced.series,
        busy: busy.series,
        turns,
    })
}

/// The sender's CPU, and the receiver's where there are two.
fn cpus_of(args: &CompareArgs) -> anyhow::Result<(usize, Option<usize>)> {
    if let Some(text) = &args.affinity {
        let allowed = allowed_cpus()?;
        let list = super::args::cpu_list(text, &allowed)?;
        let second = list.get(1).copied().filter(|second| *second != list[0]);
        return Ok((list[0], second));
    }
    let given = given_cpus()?;
    let first = given.last().copied().context("no CPU is allowed")?;
    let others = given.iter().copied().filter(|cpu| *cpu != first);
    let siblings = cpus::siblings(first).unwrap_or_default();
    let far = others.clone().find(|cpu| !siblings.contains(cpu));
    Ok((first, far.or_else(|| others.max())))
}

fn paths_of(only: &[String]) -> anyhow::Result<Vec<Path>> {
    if let Some(unknown) = only
        .iter()
        .find(|name| !Path::all().any(|path| path.key() == **name))
    {
        let known: Vec<String> = Path::all().map(Path::key).collect();
        bail!(BadOption(format!(
            "--only {unknown}: there are {}",
            known.join(", ")
        )));
    }
    let is_wanted = |path: &Path| {
        *path == Path::Raw(Kind::Mq)
            || only.is_empty()
            || only.iter().any(|name| *name == path.key())
    };
    Ok(Path::all().filter(is_wanted).collect())
}

/// A path in a placement.
type Place = (Path, Placement);

/// The daemon, and a pair for every row; no thread is started yet.
fn prepare(
    args: &CompareArgs,
    conditions: &mut Conditions,
    paths: &[Path],
    (first, second): (usize, Option<usize>),
) -> anyhow::Result<(Vec<Place>, Vec<Subject>)> {
    let bytes = usize::try_from(args.size)?;
    let mut placements = vec![];
    if args.placement != Some(WhereArg::Other) {
        placements.push((Placement::Same, first));
    }
    match second {
        Some(second) if args.placement != Some(WhereArg::Same) => {
            placements.push((Placement::Other, second))
        }
        None if args.placement == Some(WhereArg::Other) => {
            bail!("--placement other: there is one CPU only")
        }
        _ => {}
    }
    // Those that need signals come first: they have the low numbers, of which there are enough.
    let mut routes_of: Vec<(RoutePath, Placement)> = Vec::new();
    for path in RoutePath::ALL
        .into_iter()
        .filter(|path| paths.contains(&Path::Route(*path)))
    {
        routes_of.extend(placements.iter().map(|(placement, _)| (path, *placement)));
    }
    routes_of.sort_by_key(|(path, _)| !path.leaves_by_signal());
    let numbered = routes_of.iter().enumerate();
    let routes = numbered
        .map(|(n, (path, _))| OwnRoute::new(*path, n, bytes))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let place = super::args::Place {
        sender: ThreadPlacement {
            cpu: Some(first),
            priority: args.priority,
        },
        receiver: ThreadPlacement::default(),
        interval_ns: 0,
    };
    if !routes.is_empty() {
        conditions
            .daemons
            .push(super::command::start(&args.lane, &[place], &routes)?);
    }
    let (mut places, mut subjects) = (Vec::new(), Vec::new());
    for &(placement, receiver) in &placements {
        for &path in paths {
            let mechanism = match (path, conditions.daemons.first()) {
                (Path::Raw(kind), _) => {
                    mech::of(kind, bytes, usize::from(placement == Placement::Other))?
                }
                (Path::Route(path), Some(daemon)) => {
                    let at = routes_of
                        .iter()
                        .position(|known| *known == (path, placement));
                    let route = at
                        .and_then(|at| routes.get(at))
                        .context("a route that was not planned")?;
                    Box::new(route.mechanism(daemon)?)
                }
                (Path::Route(_), None) => bail!("a route without a daemon"),
            };
            let spec = PairSpec {
                work: Work::OneWay(mechanism),
                sender: ThreadPlacement {
                    cpu: Some(first),
                    priority: super::args::below(args.priority),
                },
                receiver: ThreadPlacement {
                    cpu: Some(receiver),
                    priority: args.priority,
                },
                fork: args.fork,
                recording: Recording::default(),
                breaker: None,
                is_verbose: false,
            };
            let title = format!("{}, {}", path.title(), placement.text());
            subjects.push(Subject {
                title,
                pair: Pair::prepare(subjects.len(), spec)?,
            });
            places.push((path, placement));
        }
    }
    Ok((places, subjects))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_chosen_by_name_and_mq_is_always_there() {
        let names = |only: &[&str]| {
            let only: Vec<String> = only.iter().map(|&name| name.to_owned()).collect();
            paths_of(&only).map(|paths| paths.into_iter().map(Path::title).collect::<Vec<_>>())
        };
        assert_eq!(
            names(&["direct", "futex"]).unwrap(),
            ["mq", "futex", "lane direct"]
        );
        assert_eq!(names(&[]).unwrap().len(), 14);
        let text = names(&["mqq"]).unwrap_err().to_string();
        assert!(
            text.contains("--only mqq") && text.contains("signal-signal"),
            "{text}"
        );
    }
}
