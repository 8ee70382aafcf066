//! Text lines: those of cyclictest, pmqtest and sigwaittest, and below, after `# `, the lines that
//! only rtlat prints.
//!
//! Their lines are made from [`Progress`], while a run goes on and at its end, so that both look
//! the same.

use std::io::{self, Write};

use super::live::Progress;
use super::{Figure, PERCENTILES, Unit};
use crate::report::table::why_lost;
use crate::series::{Culprit, Series};

/// The lines of rt-tests at the end of a run.
pub fn summary(out: &mut dyn Write, series: &[Series], unit: Unit) -> io::Result<()> {
    let names: Vec<String> = series.iter().map(|s| s.name.clone()).collect();
    let all: Vec<Progress> = series
        .iter()
        .enumerate()
        .map(|(i, s)| Progress::of(s, i))
        .collect();
    lines(out, &all, &names, unit)
}

/// One line for a timer (cyclictest) and for a signal there and back (signaltest), two for a pair
/// (pmqtest, sigwaittest): first all lines that say who, then all that say how long. Roles are
/// numbered through: `#0` receives and `#1` sends in the first pair, `#2` and `#3` in the second.
/// `names`: what [`Progress::name`] counts in.
pub fn lines(
    out: &mut dyn Write,
    all: &[Progress],
    names: &[String],
    unit: Unit,
) -> io::Result<()> {
    let name = |p: &Progress| names.get(p.name).map_or("", String::as_str);
    let is_one_line = |p: &Progress| name(p) == "timer" || name(p) == "signal" && p.is_round_trip;
    for (i, p) in all.iter().enumerate() {
        match name(p) {
            "timer" => timer_line(out, i, p, &format!("I:{} ", p.interval_ns / 1_000), unit)?,
            // signaltest has no interval.
            "signal" if p.is_round_trip => timer_line(out, i, p, "", unit)?,
            "mq" => who_line(out, i, p, true)?,
            _ => who_line(out, i, p, false)?,
        }
    }
    for (i, p) in all.iter().enumerate().filter(|(_, p)| !is_one_line(p)) {
        latency_line(out, i, p, unit)?;
    }
    Ok(())
}

fn timer_line(
    out: &mut dyn Write,
    i: usize,
    p: &Progress,
    interval: &str,
    unit: Unit,
) -> io::Result<()> {
    // -N has wider columns for the two that are narrow in us.
    let width = if unit == Unit::Ns { 8 } else { 5 };
    let Progress { sender, count, .. } = p;
    let (tid, priority) = (sender.tid, sender.priority);
    let [min, act, avg, max] = [p.min_ns, p.act_ns, p.avg_ns, p.max_ns].map(|ns| unit.whole(ns));
    write!(
        out,
        "T:{i:2} ({tid:5}) P:{priority:2} {interval}C:{count:7} "
    )?;
    writeln!(
        out,
        "Min:{min:7} Act:{act:width$} Avg:{avg:width$} Max:{max:8}"
    )
}

/// pmqtest alone counts receives that timed out; a message that rtlat counts as lost would have
/// been one.
fn who_line(out: &mut dyn Write, i: usize, p: &Progress, has_timeouts: bool) -> io::Result<()> {
    let (receiver, sender) = (2 * i, 2 * i + 1);
    let (r, s) = (p.receiver, p.sender);
    let (r_cpu, s_cpu) = (r.cpu.unwrap_or(r.last_cpu), s.cpu.unwrap_or(s.last_cpu));
    write!(
        out,
        "#{receiver}: ID{}, P{}, CPU{r_cpu}, I{}; ",
        r.tid,
        r.priority,
        p.interval_ns / 1_000
    )?;
    write!(out, "#{sender}: ID{}, P{}, CPU{s_cpu}, ", s.tid, s.priority)?;
    if has_timeouts {
        write!(out, "TO {}, ", p.lost)?;
    }
    writeln!(out, "Cycles {}", p.count + p.lost)
}

fn latency_line(out: &mut dyn Write, i: usize, p: &Progress, unit: Unit) -> io::Result<()> {
    let (sender, receiver) = (2 * i + 1, 2 * i);
    let [min, cur, max] = [p.min_ns, p.act_ns, p.max_ns].map(|ns| unit.whole(ns));
    // pmqtest rounds its mean, cyclictest cuts it off.
    let avg = unit.whole(p.avg_ns + unit.ns() / 2);
    writeln!(
        out,
        "#{sender} -> #{receiver}, Min {min:4}, Cur {cur:4}, Avg {avg:4}, Max {max:4}"
    )
}

/// A line of cyclictest -v: thread, cycle, latency.
pub fn verbose_line(pair: usize, cycle: u64, latency_ns: u64, unit: Unit) -> String {
    format!("{pair:8}:{cycle:8}:{:8}\n", unit.whole(latency_ns))
}

/// How much was refused or lost, of all pairs; none: nothing.
pub fn loss(series: &[Series]) -> Option<String> {
    let sum = |count: fn(&Series) -> u64| series.iter().map(count).sum::<u64>();
    let (sent, lost) = (sum(|s| s.counts.sent), sum(|s| s.counts.lost));
    let percent = lost as f64 * 100.0 / sent.max(1) as f64;
    (lost > 0).then(|| format!("{lost} of {sent} messages were refused or lost ({percent:.3} %)"))
}

/// The lines that rt-tests do not print: the counts of the schedule, percentiles, the culprit.
/// Every line begins with `# `.
pub fn details(out: &mut dyn Write, series: &[Series], unit: Unit) -> io::Result<()> {
    for (i, s) in series.iter().enumerate() {
        let c = s.counts;
        write!(
            out,
            "# {i} {}: scheduled {}, achieved {}, missed {}, ",
            s.name, c.scheduled, c.sent, c.missed
        )?;
        write!(out, "received {}, lost {}", c.received, c.lost)?;
        if s.payload_bytes > 0 {
            write!(out, ", {} B", s.payload_bytes)?;
        }
        writeln!(
            out,
            "{}",
            if s.is_round_trip {
                ", there and back"
            } else {
                ""
            }
        )?;
        percentile_table(out, s, unit)?;
        if c.lost > 0 {
            let lost = c.lost;
            writeln!(out, "#   lost: {}", why_lost(&s.name))?;
            if s.interval_ns > 0 {
                writeln!(
                    out,
                    "#   raw: without the {lost} lost; corrected: each waits until the next message arrives"
                )?;
            } else {
                writeln!(
                    out,
                    "#   the {lost} lost have no latency and no schedule: no figure here includes \
                     them"
                )?;
            }
        }
    }
    for (i, s) in series.iter().enumerate() {
        if let Some(culprit) = &s.culprit {
            broken(out, i, s, culprit, unit)?;
        }
    }
    Ok(())
}

fn percentile_table(out: &mut dyn Write, series: &Series, unit: Unit) -> io::Result<()> {
    let heads = PERCENTILES.map(|(name, _)| format!("{name:>11}")).concat();
    writeln!(out, "#   {:9}{heads}", unit.text())?;
    for figure in Figure::ALL {
        let cells = figure
            .percentiles_ns(series)
            .map(|ns| format!("{:>11}", unit.exact(ns)))
            .concat();
        writeln!(out, "#   {:9}{cells}", figure.text())?;
    }
    Ok(())
}

/// The lines of cyclictest -b: all threads; and the one that broke the bound first, with its
/// latency.
pub fn break_lines(out: &mut dyn Write, series: &[Series], unit: Unit) -> io::Result<()> {
    let ids: String = series
        .iter()
        .map(|s| format!(" {:05}", s.receiver.tid))
        .collect();
    writeln!(out, "# Thread Ids:{ids}")?;
    let worst = |s: &Series| {
        let culprit = s.culprit.as_ref()?;
        culprit
            .samples
            .get(culprit.index)
            .map(|sample| (s.receiver.tid, *sample))
    };
    if let Some((tid, sample)) = series
        .iter()
        .filter_map(worst)
        .min_by_key(|(_, s)| s.received_ns)
    {
        writeln!(
            out,
            "# Break thread: {tid}\n# Break value: {}",
            unit.whole(sample.raw_ns())
        )?;
    }
    Ok(())
}

/// The sample that broke the bound of -b, with its neighbours.
fn broken(
    out: &mut dyn Write,
    i: usize,
    series: &Series,
    culprit: &Culprit,
    unit: Unit,
) -> io::Result<()> {
    let Some(worst) = culprit.samples.get(culprit.index) else {
        return Ok(());
    };
    let Some(first) = culprit.samples.first() else {
        return Ok(());
    };
    let latency_ns = worst.raw_ns();
    let (name, sequence, u) = (&series.name, worst.sequence, unit.text());
    let (took, bound) = (unit.exact(latency_ns), unit.exact(culprit.bound_ns));
    writeln!(
        out,
        "# {i} {name}: number {sequence} took {took} {u}, more than the {bound} {u} of -b"
    )?;
    let heads = ["number", "intended", "sent", "received", "raw", "corrected"]
        .map(|h| format!("{h:>13}"))
        .concat();
    writeln!(out, "#   {heads}  ({u})")?;
    for (at, s) in culprit.samples.iter().enumerate() {
        let mark = if at == culprit.index { '>' } else { ' ' };
        // From the first row's intended send: absolute times of CLOCK_MONOTONIC are too long to
        // compare by eye.
        let moments = [s.intended_ns, s.sent_ns, s.received_ns]
            .map(|ns| ns.saturating_sub(first.intended_ns));
        let cells = [
            moments[0],
            moments[1],
            moments[2],
            s.raw_ns(),
            s.corrected_ns(),
        ];
        let cells = cells.map(|ns| format!("{:>13}", unit.exact(ns))).concat();
        writeln!(out, "# {mark} {:>13}{cells}", s.sequence)?;
    }
    if !culprit.trace.is_empty() {
        writeln!(out, "# {}", culprit.trace.replace('\n', "\n# "))?;
    }
    Ok(())
}
