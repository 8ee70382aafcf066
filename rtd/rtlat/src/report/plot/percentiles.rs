//! The latency at each percentile p: the horizontal axis is 1 / (1 - p), logarithmic, so that the
//! high percentiles have most of the room.
//!
//! Corrected latencies are drawn, raw ones dashed beside them. A line ends at the last percentile
//! that its samples support, at the largest of them.

use super::{
    BEYOND_BODY, CHART_PX, Chart, Figure, Legend, NAME_CHARS_MAX, Scale, arrow, chart, head,
    linear_us, log_us, nothing, number, svg, to_f64, to_us, us_text,
};
use crate::report::{corrected_at, corrected_max_ns, label, raw_at};
use crate::series::Series;
use hdrhistogram::Histogram;
use plotters::prelude::*;

/// Span of latencies, largest / smallest, from which on the axis is logarithmic.
const LOG_SPAN: f64 = 20.0;
/// Number of steps over the whole width, about one per pixel; two points of a line are at least one
/// step apart.
const COLUMNS: f64 = 1000.0;

/// Draws the percentiles of the series: corrected solid, raw dashed.
pub fn percentiles(figure: &Figure<'_>) -> anyhow::Result<String> {
    let Figure {
        title,
        series,
        sisters,
        ..
    } = *figure;
    let names: Vec<String> = series
        .iter()
        .map(|one| label(one, series, NAME_CHARS_MAX))
        .collect();
    let rows: Vec<_> = series.iter().map(|series| numbers(series)).collect();
    let below = "Solid: corrected, from the intended send. Dashed: raw, from the actual send. Dot: the largest.";
    let all = || {
        sisters
            .iter()
            .flat_map(|series| [&series.corrected, &series.raw])
    };
    svg(CHART_PX + Legend::height_px(series.len()), |area| {
        head(area, title, below)?;
        let x = quantiles(all().map(|histogram| histogram.len()).max().unwrap_or(0));
        let width = (x.high - x.low) / COLUMNS;
        let mut chart = chart(area, (64, CHART_PX), x, latencies(all()))?;
        let is_log = is_log(all());
        let top_us = ends(all()).1;
        if series
            .iter()
            .all(|series| series.raw.is_empty() && series.corrected.is_empty())
        {
            nothing(area, i32::try_from(CHART_PX)?)?;
        }
        for (at, series) in series.iter().enumerate() {
            let raw = points(&series.raw, width, is_log);
            let style = figure.colour(at).stroke_width(2);
            chart.draw_series(DashedLineSeries::new(raw, 4, 4, style))?;
            let end = solid(
                &mut chart,
                points(&series.corrected, width, is_log),
                figure.colour(at),
            )?;
            let max_us = to_us(corrected_max_ns(series));
            if let Some(end) = end.filter(|_| max_us > top_us * 1.01) {
                let at_px = chart.backend_coord(&end);
                arrow(
                    area,
                    (at_px.0, at_px.1 - 13),
                    true,
                    figure.colour(at),
                    format!("{} us", us_text(max_us)),
                )?;
            }
        }
        let columns = [
            ("samples", 390),
            ("raw p50", 470),
            ("p99", 540),
            ("max us", 630),
            ("corrected p50", 745),
            ("p99", 815),
            ("max us", 920),
        ];
        let rows = names.into_iter().zip(rows).enumerate();
        let rows = rows
            .map(|(at, (name, numbers))| (figure.colour(at), name, numbers))
            .collect();
        Legend {
            columns: &columns,
            rows,
        }
        .draw(area, i32::try_from(CHART_PX)?)
    })
}

/// Draws a solid line with a dot at its last point, which it returns.
fn solid(
    chart: &mut Chart<'_, '_>,
    points: Vec<(f64, f64)>,
    colour: RGBColor,
) -> anyhow::Result<Option<(f64, f64)>> {
    let end = points.last().copied();
    chart.draw_series(std::iter::once(PathElement::new(
        points,
        colour.stroke_width(2),
    )))?;
    chart.draw_series(end.map(|end| Circle::new(end, 4, colour.filled())))?;
    Ok(end)
}

/// From the smallest up to what `count` samples support.
fn quantiles(count: u64) -> Scale {
    let high = to_f64(count.max(10)).log10();
    let mut ticks = vec![(2f64.log10(), "50%".to_owned())];
    for nines in 1..=19u32 {
        let at = f64::from(nines);
        if at <= high + 1e-9 {
            let text = match nines {
                1 => "90%".to_owned(),
                2 => "99%".to_owned(),
                _ => format!(
                    "99.{}%",
                    "9".repeat(usize::try_from(nines - 2).unwrap_or(0))
                ),
            };
            ticks.push((at, text));
        }
    }
    Scale {
        low: 0.0,
        high,
        ticks,
        title: "percentile (logarithmic in 1 / (1 - p))",
    }
}

fn is_log<'a>(all: impl Iterator<Item = &'a Histogram<u64>>) -> bool {
    let (low, high) = ends(all);
    high / low > LOG_SPAN
}

/// Smallest and largest, in us; of outliers no more than ten times what all but a thousandth of the
/// samples took.
fn ends<'a>(all: impl Iterator<Item = &'a Histogram<u64>>) -> (f64, f64) {
    let filled = all.filter(|histogram| !histogram.is_empty());
    let ends = filled.map(|histogram| {
        let body_us = to_us(
            histogram
                .value_at_quantile(0.999)
                .min(histogram.max())
                .max(1),
        );
        (
            to_us(histogram.min().max(1)),
            to_us(histogram.max().max(1)),
            body_us,
        )
    });
    let ends = ends.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1), a.2.max(b.2)));
    ends.map_or((1.0, 10.0), |(low, high, body)| {
        (low, high.min(body * BEYOND_BODY))
    })
}

fn latencies<'a>(all: impl Iterator<Item = &'a Histogram<u64>> + Clone) -> Scale {
    let (low, high) = ends(all.clone());
    if is_log(all) {
        log_us(low, high, "latency (us)")
    } else {
        linear_us(high * 1.05, "latency (us)")
    }
}

/// Steps: each latency from the percentile where the one before ends to its own; those narrower
/// than `width` are joined.
fn points(histogram: &Histogram<u64>, width: f64, is_log: bool) -> Vec<(f64, f64)> {
    let total = histogram.len();
    let last = to_f64(total).log10();
    let mut points: Vec<(f64, f64)> = Vec::new();
    let (mut seen, mut left) = (0u64, 0.0);
    for found in histogram.iter_recorded() {
        seen += found.count_since_last_iteration();
        let us = to_us(found.value_iterated_to().min(histogram.max()).max(1));
        let y = if is_log { us.log10() } else { us };
        let rest = total.saturating_sub(seen);
        let right = if rest == 0 {
            last
        } else {
            (to_f64(total) / to_f64(rest)).log10().min(last)
        };
        if right - left < width && rest > 0 {
            continue;
        }
        points.extend([(left, y), (right, y)]);
        left = right;
    }
    points
}

fn numbers(series: &Series) -> Vec<String> {
    let samples = number(to_f64(series.counts.received));
    let three = |ns: [u64; 3]| ns.map(|ns| us_text(to_us(ns)));
    let mut numbers = vec![samples];
    if series.raw.is_empty() {
        return numbers;
    }
    numbers.extend(three([
        raw_at(series, 0.5),
        raw_at(series, 0.99),
        series.max_ns,
    ]));
    let corrected = [
        corrected_at(series, 0.5),
        corrected_at(series, 0.99),
        corrected_max_ns(series),
    ];
    numbers.extend(three(corrected));
    numbers
}
