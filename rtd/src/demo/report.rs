//! What the demo's processes measured, how it travels to the parent, and how it is printed.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Whose latency.
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
    /// Without.
    Quiet,
    /// With.
    Flood,
}

/// One process' (or thread's) result.
#[derive(Debug)]
pub struct Report {
    /// Lane it measured, when it receives.
    pub lane: Option<Lane>,
    /// Messages it sent.
    pub sent: u64,
    /// Sends that were refused (the queue was full).
    pub refused: u64,
    quiet: Histogram<u64>,
    flood: Histogram<u64>,
}

const LATENCY_MAX_NS: u64 = 100_000_000_000;

impl Report {
    /// An empty one.
    pub fn new(lane: Option<Lane>) -> anyhow::Result<Report> {
        let empty = || Histogram::new_with_bounds(1, LATENCY_MAX_NS, 3);
        Ok(Report { lane, sent: 0, refused: 0, quiet: empty()?, flood: empty()? })
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

    /// For the channel to the parent.
    pub fn pack(&self) -> Packed {
        let counts = |h: &Histogram<u64>| {
            h.iter_recorded().map(|v| (v.value_iterated_to(), v.count_since_last_iteration())).collect()
        };
        let Report { lane, sent, refused, .. } = *self;
        Packed { lane, sent, refused, quiet: counts(&self.quiet), flood: counts(&self.flood) }
    }
}

/// A report on its way between processes: value, count pairs.
#[derive(Debug, Serialize, Deserialize)]
pub struct Packed {
    lane: Option<Lane>,
    sent: u64,
    refused: u64,
    quiet: Vec<(u64, u64)>,
    flood: Vec<(u64, u64)>,
}

impl Packed {
    /// Back into histograms.
    pub fn unpack(self) -> anyhow::Result<Report> {
        let mut report = Report::new(self.lane)?;
        report.sent = self.sent;
        report.refused = self.refused;
        for (value, count) in self.quiet {
            report.quiet.saturating_record_n(value, count);
        }
        for (value, count) in self.flood {
            report.flood.saturating_record_n(value, count);
        }
        Ok(report)
    }
}

/// The latency table: per lane a row without and a row with the flood.
pub fn table(reports: &[Report]) -> String {
    use std::fmt::Write as _;
    let mut text = format!(
        "one-way latency in us, from the intended send\n\
         {:<10} {:<14} {:>9} {:>9} {:>9} {:>9} {:>9}\n",
        "lane", "telemetry", "messages", "p50", "p99", "p99.9", "max"
    );
    for (lane, name) in [(Lane::Estop, "estop"), (Lane::Control, "control"), (Lane::Telemetry, "telemetry")] {
        for (phase, when) in [(Phase::Quiet, "200 Hz"), (Phase::Flood, "flood")] {
            let Some(report) = reports.iter().find(|r| r.lane == Some(lane)) else { continue };
            let h = report.phase(phase);
            let us = |ns: u64| format!("{}.{}", ns / 1000, ns % 1000 / 100);
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "{name:<10} {when:<14} {:>9} {:>9} {:>9} {:>9} {:>9}",
                h.len(),
                us(h.value_at_quantile(0.5)),
                us(h.value_at_quantile(0.99)),
                us(h.value_at_quantile(0.999)),
                us(h.max())
            );
        }
    }
    text
}

/// The ledger per lane, as `rtctl stats` has it.
pub fn ledger(snapshot: &rtcore::stats::reader::Snapshot) -> String {
    use std::fmt::Write as _;
    let mut text = format!(
        "ledger (accepted = the sum of the others)\n{:<10} {:>9} {:>10} {:>8} {:>10} {:>9} {:>10} {:>7}\n",
        "lane", "accepted", "delivered", "expired", "displaced", "rejected", "peer-dead", "queued"
    );
    for lane in &snapshot.lanes {
        let l = &lane.ledger;
        let sum = if l.balances() { "" } else { "  DOES NOT BALANCE" };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{:<10} {:>9} {:>10} {:>8} {:>10} {:>9} {:>10} {:>7}{sum}",
            lane.name,
            l.accepted,
            l.delivered,
            l.expired,
            l.displaced,
            l.rejected_total(),
            l.peer_dead,
            l.queued
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_survives_the_channel() {
        let mut report = Report::new(Some(Lane::Control)).unwrap();
        report.sent = 7;
        report.record(Phase::Quiet, 100, 2_100);
        report.record(Phase::Flood, 100, 50_100);
        let back = report.pack().unpack().unwrap();
        assert_eq!((back.lane, back.sent), (Some(Lane::Control), 7));
        assert_eq!(back.phase(Phase::Quiet).max(), report.phase(Phase::Quiet).max());
        assert_eq!(back.phase(Phase::Flood).len(), 1);
    }
}
