//! Interference as a table and as JSON.

use super::{Condition, Row};
use crate::out::{Run, date, host::Host};
use crate::report::{ratio, raw_at, us_of};
use rtd::ctl::table::{Table, left, right};
use serde::Serialize;
use std::io::Write;

const QUANTILES: [f64; 3] = [0.5, 0.99, 0.999];

/// Times as long as alone: median over the turns for the median and the 99th percentile, of which
/// each turn has its own; over all messages for the 99.9th and the largest. None where nothing
/// came.
#[derive(Serialize)]
struct Ratios {
    p50: Option<f64>,
    p99: Option<f64>,
    p999: Option<f64>,
    max: Option<f64>,
}

#[expect(clippy::cast_precision_loss, reason = "ns below 2^53")]
fn divided(a_ns: u64, b_ns: u64) -> f64 {
    a_ns as f64 / b_ns.max(1) as f64
}

fn ratios(row: &Row, rows: &[Row]) -> Ratios {
    let alone = rows
        .iter()
        .find(|other| other.path == row.path && other.condition == Condition::Alone);
    let alone =
        alone.filter(|alone| alone.series.counts.received > 0 && row.series.counts.received > 0);
    let per_turn = |at: usize| {
        let pairs = row.turns.iter().zip(&alone?.turns);
        let mut all: Vec<f64> = pairs.map(|(a, b)| divided(a[at], b[at])).collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied()
    };
    Ratios {
        p50: per_turn(0),
        p99: per_turn(1),
        p999: alone.map(|alone| divided(raw_at(&row.series, 0.999), raw_at(&alone.series, 0.999))),
        max: alone.map(|alone| divided(row.series.max_ns, alone.series.max_ns)),
    }
}

/// Raw latencies in us, each with its ratio to `alone`.
pub(super) fn table(rows: &[Row]) -> Table {
    let mut columns = vec![left("PATH"), left("BESIDE")];
    for (title, times, rank) in [
        ("P50", "X ALONE", 0),
        ("P99", "X ALONE", 0),
        ("P99.9", "X ALONE", 2),
        ("MAX", "X ALONE", 4),
    ] {
        columns.extend([right(title).rank(rank), right(times).rank(rank)]);
    }
    columns.extend([
        right("LOST").rank(1),
        right("MISSED").rank(5),
        left("RATE BESIDE").rank(3),
    ]);
    let mut table = Table::new(columns);
    // As they were asked for.
    let alone = rows.iter().filter(|row| row.condition == Condition::Alone);
    let paths: Vec<&str> = alone.map(|row| row.path).collect();
    for row in paths
        .iter()
        .flat_map(|path| rows.iter().filter(move |row| row.path == *path))
    {
        let of = ratios(row, rows);
        let mut cells = vec![row.path.to_owned(), row.condition.title().to_owned()];
        for (quantile, times) in QUANTILES.iter().zip([of.p50, of.p99, of.p999]) {
            cells.extend([
                us_of(&row.series, raw_at(&row.series, *quantile)),
                ratio(times),
            ]);
        }
        cells.extend([us_of(&row.series, row.series.max_ns), ratio(of.max)]);
        cells.extend(
            [row.series.counts.lost, row.series.counts.missed].map(|count| count.to_string()),
        );
        cells.push(row.extent.text(row.condition));
        table.row(cells);
    }
    table
}

#[derive(Serialize)]
struct Document<'a> {
    file_version: u8,
    cmdline: &'a str,
    rtlat_version: &'static str,
    start_time: String,
    end_time: String,
    return_code: u8,
    sysinfo: Host,
    rows: Vec<RowJson<'a>>,
}

#[derive(Serialize)]
struct RowJson<'a> {
    path: &'a str,
    beside: &'a str,
    p50_ns: u64,
    p99_ns: u64,
    p999_ns: u64,
    max_ns: u64,
    times_alone: Ratios,
    sent: u64,
    received: u64,
    lost: u64,
    missed: u64,
    beside_count: u64,
    beside_ns: u64,
}

/// Writes the same, with a line feed at its end.
pub(super) fn json(out: &mut dyn Write, run: &Run, rows: &[Row]) -> anyhow::Result<()> {
    let of = |row: &'_ Row| {
        let counts = row.series.counts;
        let [p50_ns, p99_ns, p999_ns] = QUANTILES.map(|quantile| raw_at(&row.series, quantile));
        RowJson {
            path: row.path,
            beside: row.condition.title(),
            p50_ns,
            p99_ns,
            p999_ns,
            max_ns: row.series.max_ns,
            times_alone: ratios(row, rows),
            sent: counts.sent,
            received: counts.received,
            lost: counts.lost,
            missed: counts.missed,
            beside_count: row.extent.count,
            beside_ns: row.extent.ns,
        }
    };
    let document = Document {
        file_version: 1,
        cmdline: &run.command,
        rtlat_version: env!("CARGO_PKG_VERSION"),
        start_time: date::rfc2822(run.start_time_ns),
        end_time: date::rfc2822(run.end_time_ns),
        return_code: run.return_code,
        sysinfo: Host::read(),
        rows: rows.iter().map(of).collect(),
    };
    serde_json::to_writer_pretty(&mut *out, &document)?;
    Ok(writeln!(out)?)
}
