//! cyclictest's -h and -H, on standard output or in --histfile, byte for byte.
//!
//! Always in us, also if the lines are in ns: the bins are 1 us wide. Only raw latencies, as in the
//! plots of OSADL.

use std::io::{self, Write};

use super::Unit;
use crate::series::Series;

/// Writes the histogram: a column per series, and with `has_sum` (-H) one more with their sum where
/// there are several. As many rows as the series with the most bins has.
pub fn write(out: &mut dyn Write, series: &[Series], has_sum: bool) -> io::Result<()> {
    let has_sum = has_sum && series.len() > 1;
    writeln!(out, "# Histogram")?;
    let rows = series.iter().map(|s| s.bins.len()).max().unwrap_or(0);
    for row in 0..rows {
        let counts = series.iter().map(|s| s.bins.get(row).copied().unwrap_or(0));
        let cells = with_sum(counts, has_sum, u64::saturating_add);
        let cells: Vec<String> = cells.iter().map(|n| format!("{n:06}")).collect();
        writeln!(out, "{row:06} {}", cells.join("\t"))?;
    }
    let add = u64::saturating_add;
    let us = |ns| Unit::Us.whole(ns);
    let totals = with_sum(series.iter().map(|s| s.bins.iter().sum()), has_sum, add);
    figures(out, "Total", &totals, 9)?;
    figures(
        out,
        "Min Latencies",
        &with_sum(series.iter().map(|s| us(s.min_ns)), false, add),
        5,
    )?;
    figures(
        out,
        "Avg Latencies",
        &with_sum(series.iter().map(mean_us), false, add),
        5,
    )?;
    figures(
        out,
        "Max Latencies",
        &with_sum(series.iter().map(|s| us(s.max_ns)), has_sum, u64::max),
        5,
    )?;
    figures(
        out,
        "Histogram Overflows",
        &with_sum(series.iter().map(|s| s.overflows), has_sum, add),
        5,
    )?;
    writeln!(out, "# Histogram Overflow at cycle number:")?;
    for (i, s) in series.iter().enumerate() {
        write!(out, "# Thread {i}:")?;
        for cycle in &s.overflow_cycles {
            write!(out, " {cycle:05}")?;
        }
        let others = s.overflows.saturating_sub(s.overflow_cycles.len() as u64);
        if others > 0 {
            write!(out, " # {others:05} others")?;
        }
        writeln!(out)?;
    }
    writeln!(out)
}

fn mean_us(series: &Series) -> u64 {
    let us = series.sum_ns / u128::from(series.counts.received.max(1)) / 1_000;
    u64::try_from(us).unwrap_or(u64::MAX)
}

fn with_sum(
    cells: impl Iterator<Item = u64>,
    has_sum: bool,
    join: impl Fn(u64, u64) -> u64,
) -> Vec<u64> {
    let mut cells: Vec<u64> = cells.collect();
    if has_sum {
        cells.extend(cells.iter().copied().reduce(join));
    }
    cells
}

fn figures(out: &mut dyn Write, name: &str, cells: &[u64], width: usize) -> io::Result<()> {
    let cells: String = cells.iter().map(|n| format!(" {n:0width$}")).collect();
    writeln!(out, "# {name}:{cells}")
}
