//! The results of a preset, as tables and as JSON: each figure with its aim, its ratio, and whether
//! it meets the aim.

#![forbid(unsafe_code)]

use crate::out::{Run, date, host::Host};
use crate::report::{raw_at, us};
use crate::series::Series;
use rtd::ctl::sheet::Sheet;
use rtd::ctl::table::{Table, left, or_dash, right};
use serde::Serialize;
use std::io::Write;

const QUANTILES: [f64; 3] = [0.5, 0.99, 0.999];

/// The aim of a figure: its upper bound (for a rate, its lower bound).
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Aim {
    /// Times as long as the first row.
    Times(f64),
    P50Ns(u64),
    /// Messages a second, in millions.
    MillionsPerSecond(f64),
    /// Any other figure, in the unit of its line.
    Value(f64),
}

impl Aim {
    fn text(self) -> String {
        match self {
            Aim::Times(times) => format!("<= {times:.2} x"),
            Aim::P50Ns(ns) => format!("<= {} us", us(ns)),
            Aim::MillionsPerSecond(rate) => format!(">= {rate:.0}"),
            Aim::Value(value) => format!("<= {value}"),
        }
    }
}

/// `ok`, `above` (of a rate `below`), or a dash without an aim.
fn verdict(aim: Option<Aim>, is_met: Option<bool>) -> &'static str {
    match (aim, is_met) {
        (_, Some(true)) => "ok",
        (Some(Aim::MillionsPerSecond(_)), Some(false)) => "below",
        (_, Some(false)) => "above",
        _ => "-",
    }
}

/// A path that was measured.
#[derive(Clone, Debug)]
pub struct Row {
    pub path: &'static str,
    /// Its aim.
    pub aim: Option<Aim>,
    pub series: Series,
    /// Median of each turn, ns.
    pub medians: Vec<u64>,
}

impl Row {
    /// 5 %, 50 % and 95 % of the turns' ratios to the same turn of `first`. A machine that changes
    /// its speed does not move them. None without a turn in which both received something.
    #[expect(clippy::cast_precision_loss, reason = "ns below 2^53")]
    fn ratios(&self, first: &Row) -> Option<[f64; 3]> {
        let pairs = self
            .medians
            .iter()
            .zip(&first.medians)
            .filter(|(a, b)| **a > 0 && **b > 0);
        let mut all: Vec<f64> = pairs.map(|(a, b)| *a as f64 / *b as f64).collect();
        all.sort_by(f64::total_cmp);
        let at = |percent: usize| {
            all.get(all.len().saturating_sub(1) * percent / 100)
                .copied()
        };
        Some([at(5)?, at(50)?, at(95)?])
    }

    fn is_met(&self, first: &Row) -> Option<bool> {
        if self.series.counts.received == 0 {
            return None;
        }
        match self.aim? {
            Aim::Times(times) => self.ratios(first).map(|[_, median, _]| median <= times),
            Aim::P50Ns(ns) => Some(raw_at(&self.series, 0.5) <= ns),
            Aim::MillionsPerSecond(_) | Aim::Value(_) => None,
        }
    }
}

/// A path's rates, one run each.
#[derive(Clone, Debug, Serialize)]
pub struct Rates {
    pub path: &'static str,
    /// The aim of the median, a lower bound.
    pub aim: Option<Aim>,
    /// Millions of messages a second, in ascending order.
    pub millions_per_second: Vec<f64>,
}

/// One more figure of a preset.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    pub text: String,
    /// The figure in it.
    pub value: f64,
    /// Its aim, an upper bound.
    pub aim: Option<Aim>,
}

impl Line {
    fn is_met(&self) -> Option<bool> {
        match self.aim? {
            Aim::Value(most) => Some(self.value <= most),
            _ => None,
        }
    }
}

/// All of a preset.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// Name of the preset, such as `lanes`.
    pub preset: String,
    /// What was measured, and how.
    pub caption: String,
    /// The table shows ratios to its first row.
    pub has_ratios: bool,
    pub rows: Vec<Row>,
    pub rates: Vec<Rates>,
    pub lines: Vec<Line>,
}

impl Findings {
    /// Adds them to a page of text.
    pub fn show(&self, sheet: &mut Sheet) {
        sheet.captioned(
            &format!("{}: {}", self.preset, self.caption),
            &self.latencies(),
        );
        sheet.captioned(
            &format!("{}: {}", self.preset, self.caption),
            &self.throughput(),
        );
        if self.rows.is_empty() && self.rates.is_empty() {
            sheet.line(&format!("\n{}: {}", self.preset, self.caption));
        }
        for line in &self.lines {
            let aim = line.aim.map(|aim| {
                format!(
                    " (aim: {}: {})",
                    aim.text(),
                    verdict(line.aim, line.is_met())
                )
            });
            sheet.line(&format!("{}{}", line.text, aim.unwrap_or_default()));
        }
    }

    fn latencies(&self) -> Table {
        let mut table = Table::new(vec![
            left("PATH"),
            right("MESSAGES").rank(5),
            right("P50"),
            right("P99").rank(1),
            right("P99.9").rank(4),
            right("MAX").rank(3),
            right("X FIRST"),
            right("5%..95%").rank(2),
            right("AIM"),
            left("VERDICT"),
        ]);
        for row in &self.rows {
            let [p50, p99, p999] = QUANTILES.map(|quantile| us(raw_at(&row.series, quantile)));
            let first = &self.rows[0];
            let ratios = row.ratios(first).filter(|_| self.has_ratios);
            table.row(vec![
                row.path.to_owned(),
                row.series.counts.received.to_string(),
                p50,
                p99,
                p999,
                us(row.series.max_ns),
                ratios.map_or_else(|| "-".to_owned(), |[_, median, _]| format!("{median:.2}")),
                ratios.map_or_else(
                    || "-".to_owned(),
                    |[low, _, high]| format!("{low:.2}..{high:.2}"),
                ),
                or_dash(row.aim.map(Aim::text).unwrap_or_default()),
                verdict(row.aim, row.is_met(first)).to_owned(),
            ]);
        }
        table
    }

    fn throughput(&self) -> Table {
        let titles = ["MEDIAN M/S", "LOWEST", "HIGHEST", "AIM"].map(right);
        let mut table =
            Table::new([vec![left("PATH")], titles.into(), vec![left("VERDICT")]].concat());
        for rates in &self.rates {
            let all = &rates.millions_per_second;
            let at = |n: usize| {
                all.get(n)
                    .map_or_else(|| "-".to_owned(), |rate| format!("{rate:.1}"))
            };
            table.row(vec![
                rates.path.to_owned(),
                at(all.len() / 2),
                at(0),
                at(all.len().saturating_sub(1)),
                or_dash(rates.aim.map(Aim::text).unwrap_or_default()),
                verdict(rates.aim, rates.is_met()).to_owned(),
            ]);
        }
        table
    }
}

impl Rates {
    fn is_met(&self) -> Option<bool> {
        let median = self
            .millions_per_second
            .get(self.millions_per_second.len() / 2)?;
        match self.aim? {
            Aim::MillionsPerSecond(least) => Some(*median >= least),
            _ => None,
        }
    }
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
    presets: Vec<PresetJson<'a>>,
}

#[derive(Serialize)]
struct PresetJson<'a> {
    name: &'a str,
    caption: &'a str,
    rows: Vec<RowJson<'a>>,
    rates: &'a [Rates],
    figures: &'a [Line],
}

#[derive(Serialize)]
struct RowJson<'a> {
    path: &'a str,
    sent: u64,
    received: u64,
    lost: u64,
    p50_ns: u64,
    p99_ns: u64,
    p999_ns: u64,
    max_ns: u64,
    /// 5 %, 50 % and 95 % of the turns' ratios to the first row.
    ratios: Option<[f64; 3]>,
    aim: Option<Aim>,
    is_met: Option<bool>,
}

/// Writes them as JSON, with a line feed at its end.
pub fn json(out: &mut dyn Write, run: &Run, all: &[Findings]) -> anyhow::Result<()> {
    let row = |row: &'_ Row, findings: &Findings| {
        let first = &findings.rows[0];
        let [p50_ns, p99_ns, p999_ns] = QUANTILES.map(|quantile| raw_at(&row.series, quantile));
        let counts = row.series.counts;
        RowJson {
            path: row.path,
            sent: counts.sent,
            received: counts.received,
            lost: counts.lost,
            p50_ns,
            p99_ns,
            p999_ns,
            max_ns: row.series.max_ns,
            ratios: row.ratios(first).filter(|_| findings.has_ratios),
            aim: row.aim,
            is_met: row.is_met(first),
        }
    };
    let presets = all.iter().map(|findings| PresetJson {
        name: &findings.preset,
        caption: &findings.caption,
        rows: findings.rows.iter().map(|one| row(one, findings)).collect(),
        rates: &findings.rates,
        figures: &findings.lines,
    });
    let document = Document {
        file_version: 1,
        cmdline: &run.command,
        rtlat_version: env!("CARGO_PKG_VERSION"),
        start_time: date::rfc2822(run.start_time_ns),
        end_time: date::rfc2822(run.end_time_ns),
        return_code: run.return_code,
        sysinfo: Host::read(),
        presets: presets.collect(),
    };
    serde_json::to_writer_pretty(&mut *out, &document)?;
    Ok(writeln!(out)?)
}
