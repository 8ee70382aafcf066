//! `rtlat compare`: every mechanism and every route in one run, on one CPU and on two.
//!
//! All pairs are made first and wait; then they take turns, so that a machine whose speed drifts slows all of them
//! alike. In a turn each runs twice: on the schedule, with idle gaps between messages, and back to back.

#![forbid(unsafe_code)]

use super::args::{BadOption, ReportArgs};
use super::baseline;
use super::board::Block;
use super::mech::{self, Kind};
use super::out::{Figure, Run, Unit, host::Host, json};
use super::pair::{Pair, PairSpec, Work};
use super::party::Seat;
use super::recorder::Recording;
use super::report::{self, machine::Machine, table};
use super::route::{LaneArgs, OwnRoute, Way};
use super::run::{Conditions, WORSE, command_line, lock_memory, must_be_writable, to_file, wall_ns};
use super::series::{Comparison, Placement, Row, Series, Turn};
use anyhow::{Context as _, bail};
use indicatif::{ProgressBar, ProgressStyle};
use rtcore::sys::clock::monotonic_ns;
use rtcore::sys::cpus;
use std::path::PathBuf;
use std::time::Duration;

/// Messages before each block that are not recorded.
const WARM: u64 = 5;
/// A block that takes longer is stopped.
const BLOCK_MAX: Duration = Duration::from_secs(60);
/// From the order to the first point of the schedule.
const LEAD_NS: u64 = 2_000_000;

/// Arguments of `rtlat compare`.
#[derive(clap::Args, Clone, Debug)]
pub struct CompareArgs {
    /// CPUs: the first is the sender's and the lanes', and with one CPU the receiver's; the second the receiver's with
    /// two. Default: the last one allowed, and one that does not share its core if there is such
    #[arg(short = 'a', long, value_name = "CPUS")]
    affinity: Option<String>,
    /// Only these: mq, signal, sem, mutex, futex, eventfd, pipe, unix, sysv, mq-mq, mq-signal, signal-signal, lane, direct.
    /// mq is always among them
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    only: Vec<String>,
    /// Only sender and receiver on one CPU, or only on two
    #[arg(long, value_name = "WHERE", value_enum)]
    placement: Option<WhereArg>,
    /// Schedule in microseconds
    #[arg(short = 'i', long, value_name = "US", default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    interval: u64,
    /// Points of the schedule in a turn
    #[arg(short = 'l', long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    loops: u64,
    /// Messages back to back in a turn
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    busy: u64,
    /// Turns
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    turns: u64,
    /// SCHED_FIFO priority of receivers, senders are one below; 0: SCHED_OTHER
    #[arg(short = 'p', long, value_name = "PRIO", default_value_t = super::command::ROUTE_PRIORITY, value_parser = clap::value_parser!(u8).range(..=98))]
    priority: u8,
    /// Senders are processes instead of threads
    #[arg(short = 'f', long)]
    fork: bool,
    /// Payload in bytes, where there is one
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = clap::value_parser!(u32).range(24..=1 << 20))]
    size: u32,
    /// No progress
    #[arg(short = 'q', long)]
    quiet: bool,
    /// Keep the result as a baseline
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Compare with a baseline: better, same or worse per path, by ratios to mq; exit with 4 if one is worse
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    #[command(flatten)]
    lane: LaneArgs,
    #[command(flatten)]
    report: ReportArgs,
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
    Route(Way),
}

impl Path {
    fn all() -> impl Iterator<Item = Path> {
        Kind::all().into_iter().map(Path::Raw).chain(Way::ALL.into_iter().map(Path::Route))
    }

    /// As it stands in the table.
    fn title(self) -> &'static str {
        match self {
            Path::Raw(kind) => kind.name(),
            Path::Route(way) => way.title(),
        }
    }

    /// As `--only` says it.
    fn key(self) -> String {
        match self {
            Path::Raw(kind) => kind.name().to_owned(),
            Path::Route(way) => {
                clap::ValueEnum::to_possible_value(&way).map_or_else(String::new, |v| v.get_name().to_owned())
            }
        }
    }
}

/// One row at work.
struct Lane {
    path: Path,
    placement: Placement,
    pair: Pair,
    row: Option<Row>,
}

/// Runs it, prints the table, writes what was asked for; the exit code.
pub fn compare(args: &CompareArgs) -> anyhow::Result<u8> {
    if let Some(path) = &args.against {
        // Before the run, which takes a minute.
        baseline::load(path)?;
    }
    must_be_writable([&args.save])?;
    let mut conditions = Conditions::set(&args.report)?;
    let cpus = cpus_of(args)?;
    let paths = paths_of(&args.only)?;
    let started = wall_ns();
    let mut lanes = prepare(args, &mut conditions, &paths, cpus)?;
    lanes.iter_mut().try_for_each(|lane| lane.pair.launch())?;
    let locked = lock_memory();
    let turns = measure(args, &mut conditions, &mut lanes)?;
    if turns == 0 {
        bail!("interrupted before the first turn was through");
    }
    let used = [Some(cpus.0), cpus.1].into_iter().flatten().collect::<Vec<_>>();
    let machine = Machine::read(&used, refusals(args, &conditions, locked.as_ref().err()));
    let comparison = Comparison {
        rows: lanes.iter_mut().filter_map(|lane| lane.row.take()).collect(),
        interval_ns: args.interval * 1000,
        payload_bytes: usize::try_from(args.size)?,
        priority: args.priority,
        lane_priority: args.lane.lane_priority,
        load: conditions.load.describe(),
    };
    drop(lanes);
    conditions.end_daemon()?;
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
    let verdict = against.map(|path| baseline::against(comparison, machine, path)).transpose()?;
    let code = if verdict.as_ref().is_some_and(baseline::Verdict::is_worse) { WORSE } else { 0 };
    let run = Run {
        command: command_line(),
        start_time_ns: started,
        end_time_ns: wall_ns(),
        return_code: code,
        unit: Unit::Us,
    };
    let mut text = Vec::new();
    if let Some(format) = args.report.format {
        format.write(&mut text, &run, &flat(comparison), &[], Figure::Raw)?;
    } else {
        let head = format!(
            "{}# {turns} turns of {} messages every {} us and {} back to back; us; X MQ: median of per-turn ratios\n",
            conditions.lines(None),
            args.loops,
            args.interval,
            args.busy
        );
        text.extend(head.bytes());
        // What is to be said of the CPUs' sleep stands among the conditions.
        let others = machine.degraded.iter().filter(|refusal| **refusal != conditions.awake.said);
        others.for_each(|refusal| text.extend(format!("# {refusal}\n").bytes()));
        text.extend(table::text(comparison).bytes());
        text.extend(table::losses(comparison).bytes());
    }
    rtd::ctl::page::print(&String::from_utf8_lossy(&text))?;
    if let Some(path) = &args.report.json {
        to_file(path, |out| Ok(json::write_comparison(out, &run, &Host::read(), comparison)?))?;
    }
    report::files::of_comparison(&args.report, &run, machine, comparison)?;
    if let Some(path) = &args.save {
        baseline::save(comparison, machine, path)?;
    }
    if let Some(verdict) = &verdict {
        rtd::ctl::page::print(&verdict.text())?;
        if verdict.is_empty() {
            bail!("nothing could be judged: see above, and take more --turns");
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
    let both = |row: &Row| [named(row, &row.paced, "paced"), named(row, &row.busy, "busy")];
    comparison.rows.iter().flat_map(both).collect()
}

fn refusals(args: &CompareArgs, conditions: &Conditions, locked: Option<&anyhow::Error>) -> Vec<String> {
    let mut all = conditions.refusals(Some(args.priority));
    // Its first line; the others say what grants it.
    all.extend(locked.map(|e| e.to_string().lines().next().unwrap_or_default().to_owned()));
    all
}

/// The sender's CPU, and the receiver's where there are two.
fn cpus_of(args: &CompareArgs) -> anyhow::Result<(usize, Option<usize>)> {
    if let Some(text) = &args.affinity {
        let allowed = cpus::allowed().context("cannot read which CPUs this process may use")?;
        let list = super::args::cpu_list(text, &allowed)?;
        let second = list.get(1).copied().filter(|second| *second != list[0]);
        return Ok((list[0], second));
    }
    let given = cpus::given().context("cannot read which CPUs this process was given")?;
    let first = given.last().copied().context("no CPU is allowed")?;
    let others = given.iter().copied().filter(|cpu| *cpu != first);
    let siblings = cpus::siblings(first).unwrap_or_default();
    let far = others.clone().find(|cpu| !siblings.contains(cpu));
    Ok((first, far.or_else(|| others.max())))
}

fn paths_of(only: &[String]) -> anyhow::Result<Vec<Path>> {
    if let Some(unknown) = only.iter().find(|name| !Path::all().any(|path| path.key() == **name)) {
        let known: Vec<String> = Path::all().map(Path::key).collect();
        bail!(BadOption(format!("--only {unknown}: there are {}", known.join(", "))));
    }
    let is_wanted = |path: &Path| {
        *path == Path::Raw(Kind::Mq) || only.is_empty() || only.iter().any(|name| *name == path.key())
    };
    Ok(Path::all().filter(is_wanted).collect())
}

/// The daemon, and a pair for every row; no thread is started yet.
fn prepare(
    args: &CompareArgs,
    conditions: &mut Conditions,
    paths: &[Path],
    (first, second): (usize, Option<usize>),
) -> anyhow::Result<Vec<Lane>> {
    let bytes = usize::try_from(args.size)?;
    let mut placements = vec![];
    if args.placement != Some(WhereArg::Other) {
        placements.push((Placement::Same, first));
    }
    match second {
        Some(second) if args.placement != Some(WhereArg::Same) => placements.push((Placement::Other, second)),
        None if args.placement == Some(WhereArg::Other) => bail!("--placement other: there is one CPU only"),
        _ => {}
    }
    // Those that need signals come first: they have the low numbers, of which there are enough.
    let mut ways: Vec<(Way, Placement)> = Vec::new();
    for way in Way::ALL.into_iter().filter(|way| paths.contains(&Path::Route(*way))) {
        ways.extend(placements.iter().map(|(placement, _)| (way, *placement)));
    }
    ways.sort_by_key(|(way, _)| !way.leaves_by_signal());
    let numbered = ways.iter().enumerate();
    let routes =
        numbered.map(|(n, (way, _))| OwnRoute::new(*way, n, bytes)).collect::<anyhow::Result<Vec<_>>>()?;
    let place = super::args::Place {
        sender: Seat { cpu: Some(first), priority: args.priority },
        receiver: Seat::default(),
        interval_ns: 0,
    };
    if !routes.is_empty() {
        conditions.daemon = Some(super::command::start(&args.lane, &[place], &routes)?);
    }
    let mut lanes = Vec::new();
    for &(placement, receiver) in &placements {
        for &path in paths {
            let number = lanes.len();
            let mechanism = match (path, &conditions.daemon) {
                (Path::Raw(kind), _) => mech::of(kind, bytes, usize::from(placement == Placement::Other))?,
                (Path::Route(way), Some(daemon)) => {
                    let at = ways.iter().position(|known| *known == (way, placement));
                    let route = at.and_then(|at| routes.get(at)).context("a route that was not planned")?;
                    Box::new(route.mechanism(daemon)?)
                }
                (Path::Route(_), None) => bail!("a route without a daemon"),
            };
            let spec = PairSpec {
                work: Work::OneWay(mechanism),
                sender: Seat { cpu: Some(first), priority: super::args::below(args.priority) },
                receiver: Seat { cpu: Some(receiver), priority: args.priority },
                fork: args.fork,
                recording: Recording::default(),
                breaker: None,
                is_verbose: false,
            };
            lanes.push(Lane { path, placement, pair: Pair::prepare(number, spec)?, row: None });
        }
    }
    Ok(lanes)
}

/// Turn after turn; how many were whole.
fn measure(args: &CompareArgs, conditions: &mut Conditions, lanes: &mut [Lane]) -> anyhow::Result<u64> {
    let bar =
        if args.quiet { ProgressBar::hidden() } else { ProgressBar::new(args.turns * lanes.len() as u64) };
    bar.set_style(ProgressStyle::with_template("{msg:<28} [{bar:30}] {percent:>3} %, {eta} to go")?);
    for turn in 0..args.turns {
        // The order changes, so that nobody is always behind the same.
        let count = lanes.len();
        let mut results = Vec::new();
        for step in 0..count {
            let at = (step * stride(count) + usize::try_from(turn)?) % count;
            let lane = &mut lanes[at];
            bar.set_message(format!("{}, {}", lane.path.title(), lane.placement.text()));
            bar.inc(1);
            if conditions.stop.take().is_some() {
                bar.finish_and_clear();
                return Ok(turn);
            }
            conditions.check()?;
            results.push((at, lane.turn(args)?));
        }
        results.into_iter().for_each(|(at, (paced, busy))| lanes[at].add(paced, busy));
    }
    bar.finish_and_clear();
    Ok(args.turns)
}

/// A step that meets every one of so many.
fn stride(count: usize) -> usize {
    let is_whole = |step: &usize| (2..=*step).all(|d| !step.is_multiple_of(d) || !count.is_multiple_of(d));
    (1..count.max(2)).rev().find(|step| *step <= count.div_ceil(2) && is_whole(step)).unwrap_or(1)
}

impl Lane {
    fn turn(&mut self, args: &CompareArgs) -> anyhow::Result<(Series, Series)> {
        let interval_ns = args.interval * 1000;
        let start_ns = monotonic_ns() + LEAD_NS;
        let paced = Block { start_ns, interval_ns, count: args.loops, warm: WARM, slice_ns: 0 };
        let busy = Block { interval_ns: 0, count: args.busy, ..paced };
        Ok((self.pair.run(&paced, BLOCK_MAX)?, self.pair.run(&busy, BLOCK_MAX)?))
    }

    fn add(&mut self, paced: Series, busy: Series) {
        let turn = Turn {
            paced_p50_ns: paced.raw.value_at_quantile(0.5),
            paced_p99_ns: paced.raw.value_at_quantile(0.99),
            busy_p50_ns: busy.raw.value_at_quantile(0.5),
        };
        match &mut self.row {
            Some(row) => {
                row.paced.append(&paced);
                row.busy.append(&busy);
                row.turns.push(turn);
            }
            None => {
                let (path, placement) = (self.path.title().to_owned(), self.placement);
                self.row = Some(Row { path, placement, paced, busy, turns: vec![turn] });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_its_turn() {
        for count in 1..40 {
            let mut seen: Vec<usize> = (0..count).map(|step| step * stride(count) % count).collect();
            seen.sort_unstable();
            assert_eq!(seen, (0..count).collect::<Vec<_>>(), "{count}");
        }
    }

    #[test]
    fn paths_are_chosen_by_name_and_mq_is_always_there() {
        let names = |only: &[&str]| {
            let only: Vec<String> = only.iter().map(|&name| name.to_owned()).collect();
            paths_of(&only).map(|paths| paths.into_iter().map(Path::title).collect::<Vec<_>>())
        };
        assert_eq!(names(&["direct", "futex"]).unwrap(), ["mq", "futex", "lane direct"]);
        assert_eq!(names(&[]).unwrap().len(), 14);
        let text = names(&["mqq"]).unwrap_err().to_string();
        assert!(text.contains("--only mqq") && text.contains("signal-signal"), "{text}");
    }
}
