//! What the demo's processes measured, how it travels to the parent, and how it is printed.

use super::config::Setup;
use crate::ctl::table;
use anyhow::bail;
use hdrhistogram::Histogram;
use rtcore::stats::Ledger;
use rtcore::stats::latency::Latency;
use rtcore::stats::reader::Snapshot;
use rtcore::sys::permission_hints::setcap;
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;

/// A lane of the demo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lane {
    /// Button to drive.
    Estop,
    /// Controller to drive.
    Control,
    /// Sensors to logger.
    Telemetry,
}

/// Without or with the telemetry flood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Without the telemetry flood.
    Quiet,
    /// With the telemetry flood.
    Flood,
}

impl Lane {
    const ALL: [Lane; 3] = [Lane::Estop, Lane::Control, Lane::Telemetry];

    /// How often a message is sent in it without the flood.
    fn rate(self) -> &'static str {
        match self {
            Lane::Estop => "100 Hz",
            Lane::Control => "1 kHz",
            Lane::Telemetry => "200 Hz",
        }
    }

    /// As in the configuration.
    fn name(self) -> &'static str {
        match self {
            Lane::Estop => "estop",
            Lane::Control => "control",
            Lane::Telemetry => "telemetry",
        }
    }
}

/// One thread's result.
#[derive(Debug)]
pub struct Report {
    /// Lane it sent into or received from.
    pub lane: Lane,
    /// Messages it sent.
    pub sent: u64,
    /// Sends that were refused (no room).
    pub refused: u64,
    /// Messages that its inbox discarded: older than the route's ttl.
    pub discarded: u64,
    quiet: Histogram<u64>,
    flood: Histogram<u64>,
}

const LATENCY_MAX_NS: u64 = 100_000_000_000;

impl Report {
    /// An empty one.
    pub fn new(lane: Lane) -> anyhow::Result<Report> {
        let empty = || Histogram::new_with_bounds(1, LATENCY_MAX_NS, 3);
        Ok(Report {
            lane,
            sent: 0,
            refused: 0,
            discarded: 0,
            quiet: empty()?,
            flood: empty()?,
        })
    }

    /// Counts an attempt to send.
    pub fn sent_or_refused<T, E>(&mut self, result: Result<T, E>) {
        match result {
            Ok(_) => self.sent += 1,
            Err(_) => self.refused += 1,
        }
    }

    /// A message that was to be sent at `intended_ns` arrived at `now_ns`.
    pub fn record(&mut self, phase: Phase, intended_ns: u64, now_ns: u64) {
        let latency = now_ns.saturating_sub(intended_ns).max(1);
        match phase {
            Phase::Quiet => self.quiet.saturating_record(latency),
            Phase::Flood => self.flood.saturating_record(latency),
        }
    }

    /// Latencies of a phase.
    pub fn phase(&self, phase: Phase) -> &Histogram<u64> {
        match phase {
            Phase::Quiet => &self.quiet,
            Phase::Flood => &self.flood,
        }
    }

    /// Messages that arrived.
    fn received(&self) -> u64 {
        self.quiet.len() + self.flood.len()
    }

    /// For the channel to the parent.
    pub fn pack(&self) -> Packed {
        let counts = |h: &Histogram<u64>| {
            h.iter_recorded()
                .map(|v| (v.value_iterated_to(), v.count_since_last_iteration()))
                .collect()
        };
        let Report {
            lane,
            sent,
            refused,
            discarded,
            ..
        } = *self;
        Packed {
            lane,
            sent,
            refused,
            discarded,
            quiet: counts(&self.quiet),
            flood: counts(&self.flood),
        }
    }
}

/// A report on its way between processes: value, count pairs.
#[derive(Debug, Serialize, Deserialize)]
pub struct Packed {
    lane: Lane,
    sent: u64,
    refused: u64,
    discarded: u64,
    quiet: Vec<(u64, u64)>,
    flood: Vec<(u64, u64)>,
}

impl Packed {
    /// Back into histograms.
    pub fn unpack(self) -> anyhow::Result<Report> {
        let mut report = Report::new(self.lane)?;
        report.sent = self.sent;
        report.refused = self.refused;
        report.discarded = self.discarded;
        for (value, count) in self.quiet {
            report.quiet.saturating_record_n(value, count);
        }
        for (value, count) in self.flood {
            report.flood.saturating_record_n(value, count);
        }
        Ok(report)
    }
}

/// Microseconds, whole ones from 10 ms on; below 0.1 us nanoseconds, which the unit says.
fn us(ns: u64) -> String {
    match ns {
        1..100 => format!("{ns}ns"),
        10_000_000.. => format!("{}", ns / 1000),
        _ => table::us(ns),
    }
}

/// What is said before the run: where, for how long, and what this machine did not grant.
pub fn head(setup: &Setup, seconds: u64, idle: &str, started: &Snapshot) -> String {
    let lanes: Vec<String> = started
        .lanes
        .iter()
        .map(|l| format!("{} {}", l.name, l.priority))
        .collect();
    let mut text = format!(
        "rtd demo: lanes {} (SCHED_FIFO) on CPU {}; {} s, the second half with a telemetry flood\n{idle}\n",
        lanes.join(", "),
        setup.cpu,
        seconds
    );
    let missing = rtcore::stats::degraded::NAMES
        .iter()
        .filter(|(bit, _)| {
            started
                .lanes
                .iter()
                .any(|lane| lane.degraded_bits & bit != 0)
        })
        .map(|(_, name)| match *name {
            "fifo" => "SCHED_FIFO",
            "memory" => "locked memory",
            other => other,
        });
    let missing: Vec<&str> = missing.collect();
    if !missing.is_empty() {
        let program =
            std::env::current_exe().map_or_else(|_| "rtd".into(), |p| p.display().to_string());
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "DEGRADED: not granted: {}. Nothing below is bounded; run it as root, or grant it with\n\
             \x20 sudo {}\n",
            missing.join(", "),
            setcap("", &program)
        );
    }
    text
}

/// Everything there is to print.
#[derive(Debug)]
pub struct Measured {
    /// Of all parts.
    pub reports: Vec<Report>,
    /// The page when the flood began.
    pub before_flood: Snapshot,
    /// The page at the end.
    pub after: Snapshot,
}

/// What a lane's parts and its ledger say.
struct Books {
    lane: Lane,
    sent: u64,
    refused: u64,
    discarded: u64,
    received: u64,
}

impl Measured {
    /// Latencies and ledger.
    pub fn tables(&self) -> String {
        format!("\n{}\n{}", self.latencies(), self.ledger())
    }

    /// An error when a message is not where it should be.
    pub fn verdict(&self) -> anyhow::Result<()> {
        for lane in &self.after.lanes {
            if !lane.ledger.balances() {
                bail!("lane {}: the ledger does not balance: a defect", lane.name);
            }
            let Some(books) = self.books().find(|b| b.lane.name() == lane.name) else {
                continue;
            };
            let arrived = books.received + books.discarded;
            if books.sent != lane.ledger.accepted || arrived != lane.ledger.delivered {
                bail!(
                    "lane {}: {} sent and {} accepted, {} delivered, {} received and {} discarded: messages are missing",
                    lane.name,
                    books.sent,
                    lane.ledger.accepted,
                    lane.ledger.delivered,
                    books.received,
                    books.discarded
                );
            }
        }
        Ok(())
    }

    fn books(&self) -> impl Iterator<Item = Books> {
        Lane::ALL.into_iter().map(|lane| {
            let sum = |of: fn(&Report) -> u64| -> u64 {
                self.reports.iter().filter(|r| r.lane == lane).map(of).sum()
            };
            Books {
                lane,
                sent: sum(|r| r.sent),
                refused: sum(|r| r.refused),
                discarded: sum(|r| r.discarded),
                received: sum(Report::received),
            }
        })
    }

    /// Per lane a row without and a row with the flood: end to end, and the daemon's share of it.
    fn latencies(&self) -> String {
        let mut text = format!(
            "latency in us           end to end, from the intended send        in rtd\n\
             {:<10}{:<7}{:>7} {:>7} {:>7} {:>7} {:>7} {:>7} {:>7} {:>7}\n",
            "lane", "load", "count", "p50", "p99", "p99.9", "max", "p50", "p99", "max"
        );
        let flood = self.after.diff(&self.before_flood);
        for lane in Lane::ALL {
            let Some(report) = self
                .reports
                .iter()
                .find(|r| r.lane == lane && r.received() > 0)
            else {
                continue;
            };
            for (phase, load, hops) in [
                (Phase::Quiet, lane.rate(), &self.before_flood.lanes),
                (Phase::Flood, "flood", &flood.lanes),
            ] {
                let h = report.phase(phase);
                let q = |at: f64| us(h.value_at_quantile(at));
                let hop = hops
                    .iter()
                    .find(|l| l.name == lane.name())
                    .map(|l| &l.latency);
                let hop = hop.map(Latency::summary).unwrap_or_default();
                // Writing to a String cannot fail.
                let _ = writeln!(
                    text,
                    "{:<10}{load:<7}{:>7} {:>7} {:>7} {:>7} {:>7} {:>7} {:>7} {:>7}",
                    lane.name(),
                    h.len(),
                    q(0.5),
                    q(0.99),
                    q(0.999),
                    us(h.max()),
                    us(hop.p50_ns),
                    us(hop.p99_ns),
                    us(hop.max_ns)
                );
            }
        }
        text
    }

    /// The ledger per lane, as `rtctl stats` has it, between what was sent and what arrived.
    fn ledger(&self) -> String {
        let lanes: Vec<_> = self
            .after
            .lanes
            .iter()
            .map(|lane| &lane.ledger)
            .zip(self.books())
            .collect();
        let mut text = format!("{:<34}", "ledger: every message of a lane");
        // Writing to a String cannot fail.
        for (_, books) in &lanes {
            let _ = write!(text, " {:>10}", books.lane.name());
        }
        text.push('\n');
        let mut row = |title: &str, count: fn(&Ledger, &Books) -> u64| {
            let _ = write!(text, "{title:<34}");
            for (ledger, books) in &lanes {
                let _ = write!(text, " {:>10}", count(ledger, books));
            }
            text.push('\n');
        };
        row("sent", |_, b| b.sent);
        row("accepted, the sum of", |l, _| l.accepted);
        row("  delivered, the sum of", |l, _| l.delivered);
        row("    received", |_, b| b.received);
        row("    discarded (expired on arrival)", |_, b| b.discarded);
        row("  expired", |l, _| l.expired);
        row("  displaced", |l, _| l.displaced);
        row("  rejected", |l, _| l.rejected_total());
        row("  peer-dead", |l, _| l.peer_dead);
        row("  queued", |l, _| l.queued);
        if lanes.iter().any(|(_, books)| books.refused > 0) {
            row("not sent: no room", |_, b| b.refused);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_below_a_tenth_of_a_microsecond_is_not_zero() {
        assert_eq!(
            [us(0), us(61), us(99), us(100), us(50_001_000)],
            ["0.0", "61ns", "99ns", "0.1", "50001"]
        );
    }

    #[test]
    fn a_report_survives_the_channel() {
        let mut report = Report::new(Lane::Control).unwrap();
        report.sent = 7;
        report.record(Phase::Quiet, 100, 2_100);
        report.record(Phase::Flood, 100, 50_100);
        let back = report.pack().unpack().unwrap();
        assert_eq!(
            (back.lane, back.sent, back.received()),
            (Lane::Control, 7, 2)
        );
        assert_eq!(
            back.phase(Phase::Quiet).max(),
            report.phase(Phase::Quiet).max()
        );
        assert_eq!(back.phase(Phase::Flood).len(), 1);
    }
}
