//! The lines of Xenomai's `latency`: per series a head, a row per interval, a line over all. Always
//! in us.
//!
//! `overrun` counts the missed points of the schedule, summed up as there; `msw` is 0, since a mode
//! switch is Xenomai's.

use std::io::{self, Write};

use super::{Interval, date::clock};
use crate::series::Series;

const HEAD: &str =
    "RTH|----lat min|----lat avg|----lat max|-overrun|---msw|---lat best|--lat worst";
const RULE: &str =
    "---|-----------|-----------|-----------|--------|------|-------------------------";

/// Writes the blocks of all series. A series without intervals has one row. Missed points are not
/// known per interval: they stand in the last row.
pub fn write(out: &mut dyn Write, series: &[Series], intervals: &[Interval]) -> io::Result<()> {
    for (i, s) in series.iter().enumerate() {
        let parts: Vec<&Interval> = intervals.iter().filter(|part| part.series == i).collect();
        block(out, s, &parts)?;
    }
    Ok(())
}

fn block(out: &mut dyn Write, s: &Series, parts: &[&Interval]) -> io::Result<()> {
    let task = if s.is_timer() {
        "periodic user-mode task".to_owned()
    } else {
        format!("{}, pair {}", s.name, s.pair)
    };
    let (period_us, priority) = (s.interval_ns / 1_000, s.receiver.priority);
    writeln!(
        out,
        "RTT|  00:00:01  ({task}, {period_us} us period, priority {priority})"
    )?;
    writeln!(out, "{HEAD}")?;
    let (mut best_ns, mut worst_ns) = (u64::MAX, 0);
    for (i, raw) in parts
        .iter()
        .map(|part| part.raw.unpack())
        .enumerate()
        .filter(|(_, raw)| !raw.is_empty())
    {
        let [min_ns, max_ns] = [raw.min(), raw.max()];
        (best_ns, worst_ns) = (best_ns.min(min_ns), worst_ns.max(max_ns));
        let overrun = if i + 1 == parts.len() {
            s.counts.missed
        } else {
            0
        };
        row(
            out,
            [min_ns as f64, raw.mean(), max_ns as f64],
            overrun,
            best_ns,
            worst_ns,
        )?;
    }
    let all = [s.min_ns as f64, s.mean_ns(), s.max_ns as f64];
    if parts.is_empty() {
        row(out, all, s.counts.missed, s.min_ns, s.max_ns)?;
    }
    let [min, avg, max] = all.map(|ns| ns / 1e3);
    let time = clock(s.end_time_ns.saturating_sub(s.start_time_ns) / 1_000_000_000);
    writeln!(out, "{RULE}")?;
    writeln!(
        out,
        "RTS|{min:11.3}|{avg:11.3}|{max:11.3}|{:8}|{:6}|    {time}/{time}",
        s.counts.missed, 0
    )
}

fn row(
    out: &mut dyn Write,
    ns: [f64; 3],
    overrun: u64,
    best_ns: u64,
    worst_ns: u64,
) -> io::Result<()> {
    let [min, avg, max] = ns.map(|ns| ns / 1e3);
    let [best, worst] = [best_ns, worst_ns].map(|ns| ns as f64 / 1e3);
    writeln!(
        out,
        "RTD|{min:11.3}|{avg:11.3}|{max:11.3}|{overrun:8}|{:6}|{best:11.3}|{worst:11.3}",
        0
    )
}
