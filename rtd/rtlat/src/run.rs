//! One measurement, from the arguments to the exit code: pairs, live view, results.

#![forbid(unsafe_code)]

use super::args::{BadOption, MeasureArgs, Place, ReportArgs, Roles};
use super::breaker::Breaker;
use super::control_block::Block;
use super::load::{Load, RunningLoad};
use super::mech::signal;
use super::out::live::{Goal, Live, Progress, is_wanted};
use super::out::{self, Figure, Interval, Run, Unit, host::Host, text};
use super::pair::{Pair, PairSpec, Work};
use super::recorder::Recording;
use super::report::{self, machine::Machine};
use super::series::{RoleInfo, Series};
use super::time::wall_ns;
use anyhow::{Context as _, bail};
use rtcore::sys::clock::{monotonic_ns, nanos};
use rtcore::sys::epoll::StopSignals;
use rtcore::sys::permission_hints::PermissionHint;
use rtcore::sys::{idle, limits, memory, rtsignal};
use rtd::ctl::page::{self, Printed};
use rtd::ctl::sheet::Sheet;
use rtd::daemon::own::OwnDaemon;
use std::fs::File;
use std::io::{BufWriter, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// A latency broke the `-b` bound.
pub const BROKEN: u8 = 3;
/// A comparison is worse than its baseline.
pub const WORSE: u8 = 4;

/// Messages were refused or lost, and --allow-loss was not given.
pub const LOST: u8 = 6;

/// From the start of the roles to the first point of the schedule.
const LEAD_NS: u64 = 20_000_000;
/// Messages that are not recorded, before the schedule.
const WARM: u64 = 10;
/// How often the main thread checks.
const POLL_NS: u64 = 50_000_000;
const SECOND_NS: u64 = 1_000_000_000;

/// The settings that a run holds while it measures.
pub struct Conditions {
    /// SIGINT, SIGTERM and SIGHUP, taken.
    stop: StopSignals,
    /// The CPUs kept awake.
    pub awake: idle::Awake,
    /// The load that runs during the measurement.
    pub load: RunningLoad,
    /// The daemons that were started for the run.
    pub daemons: Vec<OwnDaemon>,
    /// A signal asked for the end.
    pub is_interrupted: bool,
}

impl Conditions {
    /// Signals blocked, CPUs awake, load at work. Before any thread: they inherit the mask, and
    /// forks come after this.
    pub fn set(report: &ReportArgs) -> anyhow::Result<Conditions> {
        Conditions::with(report, Some(0))
    }

    fn with(report: &ReportArgs, dma_latency_us: Option<i32>) -> anyhow::Result<Conditions> {
        must_be_writable([&report.json, &report.html])?;
        if let Some(directory) = &report.svg {
            report::files::make(directory)?;
        }
        if std::env::var_os("RTD_GUARD").is_some_and(|v| v == "abort") {
            rtcore::seal::abort_on_breach();
        }
        if let Some(warning) = limits::real_time_warning("rtlat") {
            rtd::log::print(format_args!("rtlat: warning: {warning}"));
        }
        let stop = StopSignals::block().context("cannot take SIGINT and SIGTERM")?;
        signal::block(signal::every())?;
        rtsignal::install_wake().context("cannot install the handler of SIGURG")?;
        let specs = report
            .load
            .iter()
            .map(|text| Load::parse(text))
            .collect::<Result<Vec<_>, _>>();
        let specs = specs.map_err(|e| BadOption(format!("--{e}")))?.concat();
        let awake = dma_latency_us.map_or_else(idle::leave, idle::hold_at);
        Ok(Conditions {
            stop,
            awake,
            load: Load::start(&specs)?,
            daemons: Vec::new(),
            is_interrupted: false,
        })
    }

    /// As [`Conditions::set`], with the power management that the measurement asks for, and its
    /// notes on standard error.
    pub fn of(args: &MeasureArgs) -> anyhow::Result<Conditions> {
        for note in args.notes()? {
            rtd::log::print(format_args!("rtlat: note: {note}"));
        }
        Conditions::with(&args.report, args.rt_tests.dma_latency_us())
    }

    /// Whether a signal has asked for the end.
    pub fn is_stopped(&mut self) -> bool {
        self.is_interrupted |= self.stop.take().is_some();
        self.is_interrupted
    }

    /// An error if a process that the run needs is gone.
    pub fn check(&mut self) -> anyhow::Result<()> {
        self.load.check()?;
        self.daemons.iter_mut().try_for_each(OwnDaemon::check)
    }

    /// Ends the daemons, which nobody talks to any more.
    pub fn end_daemons(&mut self) -> anyhow::Result<()> {
        self.daemons.drain(..).try_for_each(OwnDaemon::stop)
    }

    /// Their description, in lines after `#`. With the latency that cyclictest's option asks for
    /// its line is cyclictest's.
    pub fn lines(&self, cyclictest_us: Option<i32>) -> String {
        let load = self.load.describe();
        let load = if load == "none" {
            String::new()
        } else {
            format!("# load: {load}\n")
        };
        match cyclictest_us.filter(|_| self.awake.is_held()) {
            Some(us) => format!("# {} set to {us}us\n{load}", idle::DEVICE),
            None => format!("# {}\n{load}", self.awake.text),
        }
    }
}

impl Conditions {
    /// The conditions that fall short of a good measurement, one sentence each; `unlocked` is one
    /// that the run has found itself.
    pub fn refusals(&self, priority: Option<u8>, unlocked: Option<String>) -> Vec<String> {
        let mut all = Vec::new();
        if priority == Some(0) {
            all.push("SCHED_OTHER was requested (-p 0): latency has no bound".to_owned());
        }
        if !self.awake.is_held() {
            all.push(self.awake.text.clone());
        }
        all.extend(unlocked);
        all
    }
}

/// A page that begins with the conditions of a run, a line behind `#` each.
pub fn head(conditions: &Conditions, machine: &Machine, columns: Option<usize>) -> Sheet {
    let mut sheet = Sheet::new(columns);
    conditions
        .lines(None)
        .lines()
        .for_each(|line| sheet.line(line));
    // The state of the CPUs' idling stands among them already.
    let others = machine
        .degraded
        .iter()
        .filter(|refusal| **refusal != conditions.awake.text);
    others.for_each(|refusal| sheet.line(&format!("# {refusal}")));
    sheet
}

/// Locks all memory. The error contains the line that grants it.
pub fn lock_memory() -> anyhow::Result<()> {
    memory::lock_all().map_err(|e| {
        let program = std::env::current_exe().unwrap_or_default();
        anyhow::anyhow!(
            "memory was not locked: {e}\n{}",
            PermissionHint::Memory.fix(&program.to_string_lossy())
        )
    })
}

/// Measures pairs that `work` makes, given their number and the daemon of the run; writes the files
/// asked for, and returns the exit code.
pub fn single(
    args: &MeasureArgs,
    roles: Roles,
    default_priority: u8,
    conditions: Conditions,
    work: &mut dyn FnMut(usize, Option<&OwnDaemon>) -> anyhow::Result<Work>,
) -> anyhow::Result<u8> {
    must_be_writable([&args.histfile])?;
    let places = args.places(roles, default_priority)?;
    let unit = if args.nsecs { Unit::Ns } else { Unit::Us };
    let mut pairs = Vec::new();
    for (number, place) in places.iter().enumerate() {
        let bound_ns = args.breaktrace.map(|us| us.saturating_mul(1000));
        let spec = PairSpec {
            work: work(number, conditions.daemons.first())?,
            sender: place.sender,
            receiver: place.receiver,
            fork: args.fork.is_some(),
            recording: Recording {
                bins: args.bins(),
                bound_ns,
            },
            breaker: bound_ns
                .filter(|_| !args.rt_tests.notrace)
                .map(Breaker::open),
            is_verbose: args.verbose,
        };
        pairs.push(Pair::prepare(number, spec)?);
    }
    pairs.iter_mut().try_for_each(Pair::launch)?;
    if args.mlockall {
        lock_memory()?;
    }
    let started = wall_ns();
    let mut measuring = Measuring {
        args,
        conditions,
        unit,
        pairs,
        places,
    };
    measuring.measure()?;
    let Measuring {
        mut conditions,
        mut pairs,
        ..
    } = measuring;
    let series: Vec<Series> = pairs.iter_mut().map(Pair::series).collect();
    let intervals = intervals(&pairs, &series);
    let mute = series
        .iter()
        .find(|s| s.counts.sent > 0 && s.counts.received == 0);
    let is_broken = series.iter().any(|s| s.culprit.is_some());
    let lost = text::loss(&series).filter(|_| !args.allow_loss);
    let code = match (is_broken, mute, &lost) {
        (true, ..) => BROKEN,
        (_, Some(_), _) => 1,
        (_, _, Some(_)) => LOST,
        _ => 0,
    };
    let run = Run {
        command: command_line(),
        start_time_ns: started,
        end_time_ns: wall_ns(),
        return_code: code,
        unit,
    };
    write(args, &run, &conditions, &series, &intervals)?;
    let hidden: u64 = pairs.iter().map(|pair| pair.control().hidden()).sum();
    if hidden > 0 {
        page::print(&format!(
            "# {hidden} samples are not shown: the reader of the lines of -v is too slow\n"
        ))?;
    }
    // Threads and processes end while the daemon that some talk to still runs.
    drop(pairs);
    conditions.end_daemons()?;
    if let Some(Series { name, counts, .. }) = mute {
        bail!(
            "{name}: all {} messages were lost, so there is nothing to show",
            counts.sent
        );
    }
    if let Some(lost) = lost {
        rtd::log::print(format_args!(
            "rtlat: error: {lost}; use --allow-loss to accept losses"
        ));
    }
    Ok(code)
}

struct Measuring<'a> {
    args: &'a MeasureArgs,
    unit: Unit,
    pairs: Vec<Pair>,
    places: Vec<Place>,
    // Behind the pairs, some of which talk to its daemon until they are dropped.
    conditions: Conditions,
}

impl Measuring<'_> {
    fn measure(&mut self) -> anyhow::Result<()> {
        let args = self.args;
        let earliest_ns = monotonic_ns() + LEAD_NS;
        let is_sliced = matches!(
            args.report.format,
            Some(out::Format::Hlog | out::Format::Xenomai)
        );
        let first_ns = |number| args.rt_tests.start_ns(earliest_ns, number);
        for (number, (pair, place)) in self.pairs.iter_mut().zip(&self.places).enumerate() {
            let block = Block {
                start_ns: first_ns(number),
                interval_ns: place.interval_ns,
                count: args.loops,
                warm: if pair.is_timer() { 0 } else { WARM },
                slice_ns: if is_sliced { SECOND_NS } else { 0 },
                polls: false,
            };
            pair.begin(&block);
        }
        // From when the schedule is followed, an interval before its first point where messages
        // before it took their time.
        let until_ns = |pair: &Pair, place: &Place| {
            let begun_ns = match pair.control().first_ns() {
                0 => first_ns(0) + WARM * SECOND_NS,
                first_point_ns => first_ns(0).max(first_point_ns.saturating_sub(place.interval_ns)),
            };
            args.duration
                .map_or(u64::MAX, |d| begun_ns.saturating_add(nanos(d)))
        };
        let names: Vec<String> = self.pairs.iter().map(|p| p.name().to_owned()).collect();
        let goal = Goal {
            loops: args.loops,
            duration: args.duration,
        };
        let out = std::io::stdout();
        let is_live = is_wanted(
            args.quiet || args.verbose || args.report.format.is_some(),
            out.is_terminal(),
        );
        let mut live = is_live.then(|| Live::new(out, names, goal, self.unit));
        let begun = Instant::now();
        let mut drawn_max_ns = None;
        let is_common_interval = self
            .places
            .windows(2)
            .all(|two| two[0].interval_ns == two[1].interval_ns);
        loop {
            let mut all_closed = true;
            for (pair, place) in self.pairs.iter_mut().zip(&self.places) {
                let until_ns = until_ns(pair, place);
                all_closed &= pair.poll(until_ns)?;
            }
            let is_read = !args.verbose || self.show_samples()?;
            if all_closed {
                break;
            }
            // As rt-tests, the first pair that has all its samples ends the run, unless the others
            // have the same interval and are about to finish. A culprit ends it, and a closed pipe
            // behind -v.
            let is_asked = self.conditions.is_stopped() || !is_read;
            let is_sent = !is_common_interval && self.pairs.iter().any(Pair::is_sent);
            if is_asked || is_sent || self.pairs.iter().any(|p| p.control().is_stopped()) {
                self.pairs
                    .iter()
                    .filter(|p| !p.is_sent())
                    .for_each(Pair::stop);
            }
            self.conditions.check()?;
            if let Some(live) = &mut live {
                let progress = self.progress();
                let max_ns = progress.iter().map(|p| p.max_ns).max();
                if !args.rt_tests.refresh_on_max || max_ns != drawn_max_ns {
                    live.draw(&progress, begun.elapsed())?;
                    drawn_max_ns = max_ns;
                }
            }
            self.pairs[0].wait_change(POLL_NS);
        }
        live.map_or(Ok(()), Live::finish)?;
        self.conditions.check()
    }

    /// False: nobody reads them.
    fn show_samples(&mut self) -> anyhow::Result<bool> {
        let mut lines = String::new();
        for (number, pair) in self.pairs.iter_mut().enumerate() {
            while let Some((sequence, ns)) = pair.next_sample() {
                lines += &text::verbose_line(number, sequence, ns, self.unit);
            }
        }
        Ok(page::print(&lines)? == Printed::Yes)
    }

    fn progress(&self) -> Vec<Progress> {
        let info = |placement: super::role_loops::ThreadPlacement,
                    (tid, last_cpu): (i32, usize)| RoleInfo {
            tid,
            cpu: placement.cpu,
            last_cpu,
            priority: placement.priority,
        };
        let of = |(number, (pair, place)): (usize, (&Pair, &Place))| {
            let (tally, [sender, receiver]) = (pair.tally(), pair.whereabouts());
            Progress {
                pair: number,
                name: number,
                sender: info(place.sender, sender),
                receiver: info(place.receiver, receiver),
                interval_ns: place.interval_ns,
                is_round_trip: pair.is_round_trip(),
                scheduled: pair.control().counts(0).scheduled,
                count: tally.received,
                lost: 0,
                min_ns: tally.min_ns,
                act_ns: tally.last_ns,
                avg_ns: u64::try_from(tally.sum_ns / u128::from(tally.received.max(1)))
                    .unwrap_or(u64::MAX),
                max_ns: tally.max_ns,
            }
        };
        self.pairs
            .iter()
            .zip(&self.places)
            .enumerate()
            .map(of)
            .collect()
    }
}

fn intervals(pairs: &[Pair], series: &[Series]) -> Vec<Interval> {
    let mut all = Vec::new();
    for (number, (pair, series)) in pairs.iter().zip(series).enumerate() {
        let begun_ns = pair.slices().first().map_or(0, |slice| slice.from_ns);
        all.extend(pair.slices().iter().map(|slice| Interval {
            series: number,
            start_time_ns: series.start_time_ns + (slice.from_ns - begun_ns.min(slice.from_ns)),
            length_ns: slice.until_ns.saturating_sub(slice.from_ns),
            raw: slice.raw.clone(),
        }));
    }
    all.sort_by_key(|interval| (interval.start_time_ns, interval.series));
    all
}

fn write(
    args: &MeasureArgs,
    run: &Run,
    conditions: &Conditions,
    series: &[Series],
    intervals: &[Interval],
) -> anyhow::Result<()> {
    let mut text = Vec::new();
    let is_timer = series.iter().all(Series::is_timer);
    if let Some(format) = args.report.format {
        format.write(&mut text, run, series, intervals, Figure::Raw)?;
    } else {
        if let Some(lost) = text::loss(series) {
            writeln!(text, "# {lost}")?;
        }
        text.extend(
            conditions
                .lines(is_timer.then_some(args.rt_tests.latency))
                .bytes(),
        );
        // cyclictest -q -h: nothing but the histogram. Its lines would be rows of it to those who
        // cut off comments only; those of -v would be samples.
        let has_lines = !(is_timer && (args.verbose || args.quiet && args.bins() > 0));
        if has_lines {
            text::summary(&mut text, series, run.unit)?;
        }
        text::details(&mut text, series, run.unit)?;
    }
    let is_summed = args.histofall.is_some();
    if args.bins() > 0 && args.histfile.is_none() {
        out::hist::write(&mut text, series, is_summed)?;
    }
    if args.breaktrace.is_some() && args.report.format.is_none() {
        text::break_lines(&mut text, series, run.unit)?;
    }
    // First: a file that cannot be written takes nothing else with it.
    page::print(&String::from_utf8_lossy(&text))?;
    if args.bins() > 0
        && let Some(path) = &args.histfile
    {
        to_file(path, |out| Ok(out::hist::write(out, series, is_summed)?))?;
    }
    if let Some(path) = &args.report.json {
        to_file(path, |out| {
            Ok(out::json::write(out, run, &Host::read(), series)?)
        })?;
    }
    let machine = || {
        let used = series
            .iter()
            .flat_map(|s| [s.sender.last_cpu, s.receiver.last_cpu])
            .collect::<Vec<_>>();
        Machine::read(&used, conditions.refusals(args.priority, None))
    };
    report::files::of_series(&args.report, run, machine, series)
}

/// Refuses a file for results that cannot be written, before the run rather than after it. What is
/// in it stays.
pub fn must_be_writable<'a>(
    files: impl IntoIterator<Item = &'a Option<PathBuf>>,
) -> anyhow::Result<()> {
    files.into_iter().flatten().try_for_each(|path| {
        let opened = File::options().append(true).create(true).open(path);
        opened
            .map(drop)
            .with_context(|| format!("cannot write {}", path.display()))
    })
}

/// Writes a file with an error that names it.
pub fn to_file(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let name = || format!("cannot write {}", path.display());
    let mut out = BufWriter::new(File::create(path).with_context(name)?);
    write(&mut out).with_context(name)?;
    out.flush().with_context(name)
}

/// As it was given.
pub fn command_line() -> String {
    let words: Vec<String> = std::env::args_os()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    report::html::command_line(&words)
}
