//! `rtctl stats`: outcomes and latencies for each lane and route, once or repeatedly.
//!
//! Reads the page only, so it works on a daemon that is stopped, hung or killed, and costs a
//! running one nothing.

#![forbid(unsafe_code)]

use super::document::{Document, endpoint_name};
use super::figures::{cell, column};
use super::page::{self, Printed, duration};
use super::sheet::{Sheet, WidthArgs};
use super::table::{Column, Table, left, or_dash, right, us};
use crate::words::{alternatives, counted};
use anyhow::{Context, bail};
use rtcore::endpoint::{Shown as Kind, signal};
use rtcore::message::Reject;
use rtcore::refusals::Refused;
use rtcore::stats::latency::Latency;
use rtcore::stats::loss::Loss;
use rtcore::stats::reader::{Diff, Lane, LossTimes, Route, Snapshot};
use rtcore::stats::table::Unit;
use rtcore::stats::{Guard, Ledger, ReceiverCounters, WorkerCounters};
use rtcore::sys::poll::{self, Interest};
use rtcore::sys::rtsignal::{SignalSet, TERMINATION};
use rtcore::sys::signame;
use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::os::fd::{AsRawFd, OwnedFd};

/// Arguments of `rtctl stats`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct StatsArgs {
    /// Print JSON; with --watch, one document per line
    #[arg(long)]
    pub json: bool,
    /// Print again every SECONDS (default 1), with the rates and latencies of the interval
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1")]
    #[arg(value_parser = seconds)]
    pub watch: Option<f64>,
    /// Show only this lane and its routes
    #[arg(long, value_name = "NAME")]
    pub lane: Option<String>,
    /// Show only this route and its lane
    #[arg(long, value_name = "NAME")]
    pub route: Option<String>,
    /// Show why messages were rejected
    #[arg(long)]
    pub reasons: bool,
    /// How wide.
    #[command(flatten)]
    pub width: WidthArgs,
}

fn seconds(text: &str) -> Result<f64, String> {
    super::seconds_within(text, 0.05, 86_400.0)
}

/// Prints the statistics of an instance.
pub fn stats(instance: &str, opts: &StatsArgs) -> anyhow::Result<()> {
    if let Some(interval_s) = opts.watch {
        return watch(instance, opts, interval_s);
    }
    let read = page::open(instance)?.snapshot()?;
    page::print(&totals(&read, opts)?)?;
    Ok(())
}

/// The output of one print.
pub fn totals(read: &Snapshot, opts: &StatsArgs) -> anyhow::Result<String> {
    let shown = Shown::choose(read, opts)?;
    if opts.json {
        let mut document = Document::new(read);
        document.retain(&shown.lane_names(), &shown.route_names());
        return Ok(serde_json::to_string_pretty(&document).context("cannot write JSON")? + "\n");
    }
    Ok(shown.text(read, &Counting::Totals, opts.width.columns()))
}

fn watch(instance: &str, opts: &StatsArgs, interval_s: f64) -> anyhow::Result<()> {
    let end = Ending::new()?;
    let in_place = !opts.json && std::io::stdout().is_terminal();
    let mut reader = page::open(instance)?;
    let mut earlier = reader.snapshot()?;
    Shown::choose(&earlier, opts)?;
    let mut first = true;
    while !end.within(interval_s)? {
        // A restarted daemon has a new page under the same name.
        if !reader.is_current()
            && let Ok(next) = page::open(instance)
        {
            reader = next;
        }
        let read = reader.snapshot()?;
        let diff = read.diff(&earlier);
        let text = if opts.json {
            let shown = Shown::choose(&read, opts)?;
            let mut document = Document::with_rates(&read, &diff);
            document.retain(&shown.lane_names(), &shown.route_names());
            serde_json::to_string(&document).context("cannot write JSON")? + "\n"
        } else {
            let shown = Shown::choose(&read, opts)?.of(&diff);
            let text = shown.text(&read, &Counting::PerSecond(&diff), opts.width.columns());
            if in_place {
                redrawn(&text, first)
            } else {
                text + "\n"
            }
        };
        if page::print(&text)? == Printed::NobodyReads {
            break;
        }
        (earlier, first) = (read, false);
    }
    Ok(())
}

/// The terminal commands that put `text` over the old text, without a blank moment in between.
fn redrawn(text: &str, first: bool) -> String {
    let clear = if first { "\x1b[2J" } else { "" };
    format!("{clear}\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n"))
}

/// SIGINT, SIGTERM or a closed terminal, between two outputs.
struct Ending {
    fd: OwnedFd,
}

impl Ending {
    fn new() -> anyhow::Result<Ending> {
        let signals = SignalSet::of(TERMINATION);
        signals.block().context("cannot block SIGINT")?;
        Ok(Ending {
            fd: signals.descriptor().context("cannot wait for SIGINT")?,
        })
    }

    /// Waits for this long; true if the command must end.
    fn within(&self, seconds: f64) -> anyhow::Result<bool> {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0.05 to 86400 seconds"
        )]
        let timeout_ns = (seconds * 1e9) as u64;
        match poll::wait(&mut [Interest::readable(self.fd.as_raw_fd())], timeout_ns) {
            Ok(ready) => Ok(ready > 0),
            // Stopped and continued: the next output comes early.
            Err(e) if std::io::Error::from(e).kind() == std::io::ErrorKind::Interrupted => {
                Ok(false)
            }
            Err(e) => bail!("cannot wait for SIGINT: {}", std::io::Error::from(e)),
        }
    }
}

/// Whether the numbers are totals or of an interval.
enum Counting<'a> {
    Totals,
    PerSecond(&'a Diff),
}

impl Counting<'_> {
    fn cell(&self, count: u64) -> String {
        match self {
            Counting::Totals => count.to_string(),
            Counting::PerSecond(diff) => rate(diff.per_second(count)),
        }
    }
}

/// The lanes and routes that the options select.
struct Shown<'a> {
    lanes: Vec<(usize, &'a Lane)>,
    routes: Vec<(usize, &'a Route)>,
    reasons: bool,
}

impl<'a> Shown<'a> {
    fn choose(read: &'a Snapshot, opts: &StatsArgs) -> anyhow::Result<Shown<'a>> {
        let lane = opts.lane.as_deref();
        let route = opts.route.as_deref();
        let lane_index = lane
            .map(|name| find("lane", name, read.lanes.iter().map(|l| &l.name)))
            .transpose()?;
        let route_index = route
            .map(|name| find("route", name, read.routes.iter().map(|r| &r.name)))
            .transpose()?;
        let of_route = route_index.map(|i| read.routes[i].lane);
        let keep_lane =
            |i: usize| lane_index.is_none_or(|l| l == i) && of_route.is_none_or(|l| l == Some(i));
        let keep_route = |i: usize, r: &Route| {
            route_index.is_none_or(|k| k == i) && (lane.is_none() || r.lane == lane_index)
        };
        Ok(Shown {
            lanes: read
                .lanes
                .iter()
                .enumerate()
                .filter(|&(i, _)| keep_lane(i))
                .collect(),
            routes: read
                .routes
                .iter()
                .enumerate()
                .filter(|&(i, r)| keep_route(i, r))
                .collect(),
            reasons: opts.reasons,
        })
    }

    /// The same selection with the numbers of an interval.
    fn of(&self, diff: &'a Diff) -> Shown<'a> {
        Shown {
            lanes: self
                .lanes
                .iter()
                .filter_map(|&(i, _)| Some((i, diff.lanes.get(i)?)))
                .collect(),
            routes: self
                .routes
                .iter()
                .filter_map(|&(i, _)| Some((i, diff.routes.get(i)?)))
                .collect(),
            reasons: self.reasons,
        }
    }

    fn lane_names(&self) -> Vec<&'a str> {
        self.lanes
            .iter()
            .map(|(_, lane)| lane.name.as_str())
            .collect()
    }

    fn route_names(&self) -> Vec<&'a str> {
        self.routes
            .iter()
            .map(|(_, route)| route.name.as_str())
            .collect()
    }

    fn text(&self, read: &Snapshot, counting: &Counting<'_>, columns: Option<usize>) -> String {
        let mut sheet = Sheet::new(columns);
        sheet.line(&page::summary(read));
        sheet.line(match counting {
            Counting::Totals => {
                "messages since start; latency in us, from the send (lane endpoints) or the dequeue to the hand-over"
            }
            Counting::PerSecond(_) => {
                "messages per second and latency in us, from the send (lane endpoints) or the dequeue to the hand-over, \
                 both of this interval"
            }
        });
        sheet.table(&self.lane_table(read, counting));
        sheet.table(&self.route_table(read, counting));
        for note in self.notes() {
            sheet.line(&note);
        }
        sheet.table(&self.target_table(read, counting));
        sheet.captioned(
            "delivered messages that the receiver's library discarded or handed out late, as it reports; UNREAD: its process \
             ended before it read them",
            &self.receiver_table(read, counting),
        );
        sheet.captioned(
            "messages that send() refused since start, as the sender's library reports: not sent, so no lane accepted them",
            &self.refused_table(read),
        );
        let waiting = waiting(self.routes.iter().map(|(_, route)| *route), read);
        if !waiting.is_empty() {
            sheet.line("");
        }
        for end in waiting {
            sheet.line(&end);
        }
        sheet.finish()
    }

    /// Refusals of senders' libraries, if there are any.
    fn refused_table(&self, read: &Snapshot) -> Table {
        let reasons = Refused::NAMES.map(|name| right(&name.to_uppercase().replace('_', "-")));
        let mut table = Table::new([left("FROM")].into_iter().chain(reasons).collect());
        let from: BTreeSet<usize> = self
            .routes
            .iter()
            .filter_map(|(_, route)| route.from)
            .collect();
        for endpoint in from.into_iter().filter_map(|from| read.endpoints.get(from)) {
            if endpoint.refused.iter().any(|count| *count > 0) {
                let counts = endpoint.refused.iter().map(u64::to_string);
                table.row([endpoint.name.clone()].into_iter().chain(counts).collect());
            }
        }
        table
    }

    /// DUTY is the share of the CPU in the last window. STATE is what the watchdog reports, with
    /// how often it reported something else, and what the lane's routes are losing.
    fn lane_table(&self, read: &Snapshot, counting: &Counting<'_>) -> Table {
        let mut columns = vec![left("LANE"), left("STATE")];
        columns.extend(self.number_columns());
        columns.extend([
            right("PRIO").rank(5),
            right("CPU").rank(6),
            left("WAIT").rank(9),
        ]);
        columns.extend(
            Guard::TABLE
                .iter()
                .chain(WorkerCounters::TABLE)
                .filter_map(column),
        );
        columns.push(left("DEGRADED").rank(1));
        let mut lanes = Table::new(columns);
        for (_, lane) in &self.lanes {
            let mut row = vec![lane.name.clone(), lane_state(lane, read.taken_ns)];
            row.extend(self.numbers(&lane.ledger, &lane.latency, counting));
            row.extend([
                lane.priority.to_string(),
                lane.cpu.to_string(),
                lane.wait.clone(),
            ]);
            let threads = lane.guard.values().chain(lane.counters.values());
            let shown = threads.filter(|(counter, _)| counter.column.is_some());
            row.extend(shown.map(|(counter, value)| match counter.unit {
                Unit::RefusedCalls => refused_calls(lane, counting),
                _ => cell(counter, value, |count| counting.cell(count)),
            }));
            row.push(or_dash(lane.degraded().join(",")));
            lanes.row(row);
        }
        lanes
    }

    fn route_table(&self, read: &Snapshot, counting: &Counting<'_>) -> Table {
        let mut columns = vec![left("ROUTE"), left("STATE")];
        columns.extend(self.number_columns());
        let mut routes = Table::new(columns);
        for (_, route) in &self.routes {
            let mut row = vec![
                route.name.clone(),
                route_state(&route.losses, read.taken_ns),
            ];
            row.extend(self.numbers(&route.ledger, &route.latency, counting));
            routes.row(row);
        }
        routes
    }

    /// Notes on the figures of some routes, a line each.
    fn notes(&self) -> Vec<String> {
        let names = |special: fn(&Route) -> bool| -> Vec<&str> {
            let routes = self.routes.iter().filter(|(_, route)| special(route));
            routes.map(|(_, route)| route.name.as_str()).collect()
        };
        let torn = names(|route| !route.consistent);
        let reported = names(|route| route.direct && route.latency.count() > 0);
        let mut notes = Vec::new();
        if !torn.is_empty() {
            notes.push(format!(
                "read during an update, may not add up: {}",
                torn.join(" ")
            ));
        }
        if !reported.is_empty() {
            notes.push(format!(
                "latency reported by the receiver: {}",
                reported.join(" ")
            ));
        }
        for (_, route) in self
            .routes
            .iter()
            .filter(|(_, route)| route.lost_in_last_life > 0)
        {
            notes.push(format!(
                "{}: lost in the last life: {}",
                route.name, route.lost_in_last_life
            ));
        }
        notes
    }

    /// Deliveries and losses of each receiver, for routes with several; the row of a route with one
    /// shows the same.
    fn target_table(&self, read: &Snapshot, counting: &Counting<'_>) -> Table {
        let columns = vec![
            left("ROUTE"),
            left("TARGET"),
            right("DELIVERED"),
            right("LAST"),
            right("LOST"),
            left("BY"),
        ];
        let mut table = Table::new(columns);
        for (_, route) in self
            .routes
            .iter()
            .filter(|(_, route)| route.targets.len() > 1)
        {
            for target in &route.targets {
                let age = target.age_ns(read.taken_ns);
                table.row(vec![
                    route.name.clone(),
                    or_dash(endpoint_name(read, target.endpoint).unwrap_or_default()),
                    counting.cell(target.delivered),
                    age.map_or("never".to_owned(), |ns| {
                        format!("{} ago", duration(ns as f64 / 1e9))
                    }),
                    counting.cell(target.lost.iter().sum()),
                    or_dash(names(
                        Loss::ALL
                            .into_iter()
                            .filter(|loss| target.lost[loss.index()] > 0),
                    )),
                ]);
            }
        }
        table
    }

    /// Reports of receivers' libraries, if there are any.
    fn receiver_table(&self, read: &Snapshot, counting: &Counting<'_>) -> Table {
        let columns = ReceiverCounters::TABLE.iter().filter_map(column);
        let mut table = Table::new(
            [left("ROUTE"), left("RECEIVER")]
                .into_iter()
                .chain(columns)
                .collect(),
        );
        for (_, route) in &self.routes {
            for target in route
                .targets
                .iter()
                .filter(|t| t.receiver != ReceiverCounters::default())
            {
                let mut row = vec![
                    route.name.clone(),
                    or_dash(endpoint_name(read, target.endpoint).unwrap_or_default()),
                ];
                let shown = target
                    .receiver
                    .values()
                    .filter(|(counter, _)| counter.column.is_some());
                row.extend(
                    shown
                        .map(|(counter, value)| cell(counter, value, |count| counting.cell(count))),
                );
                table.row(row);
            }
        }
        table
    }

    /// Losses that occurred come first if there is no room for all columns, see
    /// [`Table::render_within`].
    fn number_columns(&self) -> Vec<Column> {
        let mut columns = Vec::new();
        for counter in Ledger::TABLE {
            columns.extend(column(counter));
            if self.reasons && counter.unit == Unit::Rejects {
                let titles = Reject::NAMES
                    .iter()
                    .map(|name| name.to_uppercase().replace('_', "-"));
                columns.extend(titles.map(|title| right(&title).rank(1)));
            }
        }
        columns.extend([
            right("P50").rank(4),
            right("P90").rank(8),
            right("P99").rank(3),
        ]);
        columns.extend([right("P99.9").rank(7), right("MAX").rank(3)]);
        columns
    }

    fn numbers(&self, ledger: &Ledger, latency: &Latency, counting: &Counting<'_>) -> Vec<String> {
        let count = |count: u64| counting.cell(count);
        let mut cells = Vec::new();
        for (counter, value) in ledger
            .values()
            .filter(|(counter, _)| counter.column.is_some())
        {
            cells.push(cell(counter, value, count));
            if self.reasons && counter.unit == Unit::Rejects {
                cells.extend(ledger.rejected.map(count));
            }
        }
        let all = latency.summary();
        let times = [all.p50_ns, all.p90_ns, all.p99_ns, all.p999_ns, all.max_ns];
        cells.extend(times.map(|ns| {
            if all.count == 0 {
                "-".to_owned()
            } else {
                us(ns)
            }
        }));
        cells
    }
}

/// The ends of these routes that hold or reject all messages now, a line each.
fn waiting<'a>(routes: impl Iterator<Item = &'a Route>, read: &Snapshot) -> Vec<String> {
    let ends: BTreeSet<usize> = routes
        .flat_map(|route| &route.targets)
        .filter_map(|target| target.endpoint)
        .collect();
    let line = |end: usize| {
        let endpoint = read.endpoints.get(end)?;
        let Kind::Signal(signal::Shown { signo, .. }) = &endpoint.kind else {
            return None;
        };
        let why = endpoint.reception.waiting()?;
        let owner = endpoint.owner.and_then(|i| read.processes.get(i));
        let owner = owner
            .map(|owner| format!(" to {} (pid {})", owner.name, owner.pid))
            .unwrap_or_default();
        Some(format!(
            "waiting: {why}: {}, {}{owner}",
            endpoint.name,
            signame::name(*signo)
        ))
    };
    ends.into_iter().filter_map(line).collect()
}

/// System calls that were not on their thread's list, and which the last one was; `-` where nothing
/// would refuse one.
fn refused_calls(lane: &Lane, counting: &Counting<'_>) -> String {
    match (lane.refused_calls(), lane.counters.refused_call()) {
        (None, _) => "-".to_owned(),
        (Some(calls), None) => counting.cell(calls),
        (Some(calls), Some(name)) => format!("{} ({name})", counting.cell(calls)),
    }
}

/// `ok`, or `losing` with the reasons of the last ten seconds.
pub fn route_state(losses: &LossTimes, taken_ns: u64) -> String {
    let losing = losses.losing(taken_ns);
    if losing.is_empty() {
        "ok".to_owned()
    } else {
        format!("losing: {}", names(losing.into_iter()))
    }
}

/// The same for a lane, behind what its watchdog reports unless all is well there.
pub fn lane_state(lane: &Lane, taken_ns: u64) -> String {
    let (guarded, losing) = (guarded(&lane.guard), route_state(&lane.losses, taken_ns));
    match (guarded.as_str(), losing.as_str()) {
        ("ok", _) => losing,
        (_, "ok") => guarded,
        _ => format!("{guarded}, {losing}"),
    }
}

fn names(losses: impl Iterator<Item = Loss>) -> String {
    losses
        .map(|loss| loss.name().replace('_', "-"))
        .collect::<Vec<_>>()
        .join(",")
}

/// `ok`, or what there is and was.
fn guarded(guard: &Guard) -> String {
    let stalls = if guard.stalls == 0 {
        String::new()
    } else {
        format!(" {}", counted(guard.stalls, "stall"))
    };
    let over = if guard.over_budget == 0 {
        String::new()
    } else {
        format!(" {} over-budget", guard.over_budget)
    };
    let was = stalls + &over;
    let was = if was.is_empty() {
        was
    } else {
        format!(" ({})", was.trim_start())
    };
    format!("{}{was}", guard.state.name())
}

/// Rare events stay visible next to frequent ones.
fn rate(per_second: f64) -> String {
    if per_second > 0.0 && per_second < 9.95 {
        format!("{per_second:.1}")
    } else {
        format!("{per_second:.0}")
    }
}

fn find<'a>(
    what: &str,
    name: &str,
    names: impl Iterator<Item = &'a String> + Clone,
) -> anyhow::Result<usize> {
    match names.clone().position(|known| known == name) {
        Some(index) => Ok(index),
        None => {
            bail!(
                "no {what} \"{name}\" in this instance{}",
                alternatives(names.map(String::as_str))
            )
        }
    }
}
