//! The plot as OSADL shows it: how often each latency occurred, on a logarithmic scale.
//!
//! Bins of 1 us, or of so many that about a thousand fill the picture. A few outliers far to the
//! right would squeeze all others into one line: then the picture ends before them, and says how
//! many are beyond and where the farthest is.

use super::{
    CHART_PX, Chart, Figure, Legend, NAME_CHARS_MAX, Scale, arrow, chart, head, linear_us, nothing,
    number, svg, to_f64, to_us, us_text,
};
use crate::report::{label, raw_at};
use crate::series::Series;
use plotters::prelude::*;
use std::collections::BTreeMap;

/// Widest picture that is not cut, in us.
const WHOLE_US: u64 = 1000;
/// Bins a picture has at most.
const BINS_MAX: u64 = 1000;
/// Bottom of the scale: half a sample, so that one is to be seen.
const FLOOR: f64 = 0.5;

/// The end of the picture and the width of its bins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) end_us: u64,
    pub(super) bin_us: u64,
}

/// Draws the raw latencies of the series, one step line each.
pub fn histogram(figure: &Figure<'_>) -> anyhow::Result<String> {
    let Figure {
        title,
        series,
        sisters,
        ..
    } = *figure;
    let extent = extent(sisters);
    let lines: Vec<(BTreeMap<u64, u64>, u64)> =
        series.iter().map(|series| bins(series, extent)).collect();
    let tallest = sisters
        .iter()
        .flat_map(|series| bins(series, extent).0.into_values())
        .max()
        .unwrap_or(1);
    let below = note(series, &lines, extent);
    let names: Vec<String> = series
        .iter()
        .map(|one| label(one, series, NAME_CHARS_MAX))
        .collect();
    let rows: Vec<_> = series
        .iter()
        .zip(&lines)
        .map(|(series, (_, beyond))| numbers(series, *beyond))
        .collect();
    svg(CHART_PX + Legend::height_px(series.len()), |area| {
        head(area, title, &below)?;
        let x = linear_us(to_f64(extent.end_us), "latency (us)");
        let mut chart = chart(area, (64, CHART_PX), x, counts(tallest))?;
        if lines.iter().all(|(bins, _)| bins.is_empty()) {
            nothing(area, i32::try_from(CHART_PX)?)?;
        }
        for (at, (bins, _)) in lines.iter().enumerate() {
            let width = if lines.len() > 3 { 1 } else { 2 };
            draw(
                &mut chart,
                bins,
                extent,
                figure.colour(at).stroke_width(width),
            )?;
        }
        let farthest = lines
            .iter()
            .enumerate()
            .filter(|(_, (_, beyond))| *beyond > 0);
        if let Some((at, _)) = farthest.max_by_key(|(at, _)| series[*at].max_ns) {
            let edge = chart.backend_coord(&(to_f64(extent.end_us), 0.0));
            let value = format!("max {} us", us_text(to_us(series[at].max_ns)));
            arrow(area, edge, false, figure.colour(at), value)?;
        }
        let columns = [
            ("CPU", 350),
            ("samples", 450),
            ("min us", 530),
            ("mean us", 610),
            ("p99 us", 690),
            ("max us", 800),
            ("beyond", 920),
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

/// All of it up to [`WHOLE_US`]; beyond that, the range that the bodies of the distributions need.
pub(super) fn extent(series: &[&Series]) -> Extent {
    let filled = series.iter().filter(|series| !series.raw.is_empty());
    let ends = filled.map(|series| {
        (
            series.raw.max() / 1000 + 1,
            (series.raw.value_at_quantile(0.99) / 1000 + 1).saturating_mul(4),
        )
    });
    let (max_us, body_us) = ends.fold((0, 0), |(a, b), (c, d)| (a.max(c), b.max(d)));
    let end_us = if max_us <= WHOLE_US {
        max_us.max(10)
    } else {
        max_us.min(body_us.max(100))
    };
    Extent {
        end_us,
        bin_us: bin_us(end_us),
    }
}

/// The smallest of 1, 2, 5, 10 ... that makes few enough bins.
fn bin_us(end_us: u64) -> u64 {
    let widths = (0..18).flat_map(|decade| [1, 2, 5].map(|step| step * 10u64.pow(decade)));
    widths
        .into_iter()
        .find(|width| end_us.div_ceil(*width) <= BINS_MAX)
        .unwrap_or(end_us)
}

/// Samples per bin, empty bins left out, and how many are beyond the end.
fn bins(series: &Series, extent: Extent) -> (BTreeMap<u64, u64>, u64) {
    let mut bins = BTreeMap::new();
    let mut beyond = 0;
    for found in series.raw.iter_recorded() {
        let us = found.value_iterated_to() / 1000;
        if us < extent.end_us {
            *bins.entry(us / extent.bin_us).or_insert(0) += found.count_since_last_iteration();
        } else {
            beyond += found.count_since_last_iteration();
        }
    }
    (bins, beyond)
}

fn note(series: &[&Series], lines: &[(BTreeMap<u64, u64>, u64)], extent: Extent) -> String {
    let beyond: u64 = lines.iter().map(|(_, beyond)| beyond).sum();
    let width = if extent.bin_us == 1 {
        "bins of 1 us".to_owned()
    } else {
        format!("bins of {} us", extent.bin_us)
    };
    if beyond == 0 {
        return format!("Raw latency, {width}");
    }
    let farthest = series.iter().map(|series| series.max_ns).max().unwrap_or(0);
    let many = if beyond == 1 {
        "sample is".to_owned()
    } else {
        "samples are".to_owned()
    };
    format!(
        "Raw latency, {width}; {} {many} beyond the right edge, the farthest at {} us",
        number(to_f64(beyond)),
        us_text(to_us(farthest))
    )
}

fn numbers(series: &Series, beyond: u64) -> Vec<String> {
    let cpu = series
        .receiver
        .cpu
        .map_or_else(|| "any".to_owned(), |cpu| cpu.to_string());
    let samples = number(to_f64(series.counts.received));
    if series.counts.received == 0 {
        return vec![cpu, samples];
    }
    vec![
        cpu,
        samples,
        us_text(to_us(series.min_ns)),
        us_text(series.mean_ns() / 1000.0),
        us_text(to_us(raw_at(series, 0.99))),
        us_text(to_us(series.max_ns)),
        number(to_f64(beyond)),
    ]
}

fn counts(tallest: u64) -> Scale {
    let high = to_f64(tallest.max(10)).log10().ceil();
    let mut ticks = Vec::new();
    // A count has at most twenty digits.
    for decade in (0..=20).map(f64::from).filter(|decade| *decade <= high) {
        ticks.push((decade, number(10f64.powf(decade))));
    }
    Scale {
        low: FLOOR.log10(),
        high,
        ticks,
        title: "samples per bin",
    }
}

fn draw(
    chart: &mut Chart<'_, '_>,
    bins: &BTreeMap<u64, u64>,
    extent: Extent,
    style: ShapeStyle,
) -> anyhow::Result<()> {
    let floor = FLOOR.log10();
    let mut points: Vec<(f64, f64)> = Vec::new();
    let mut before = None;
    for (&bin, &count) in bins {
        let left = to_f64(bin * extent.bin_us);
        if before != Some(bin) {
            points.extend(points.last().map(|(x, _)| (*x, floor)));
            points.push((left, floor));
        }
        let height = to_f64(count).log10();
        let right = to_f64(((bin + 1) * extent.bin_us).min(extent.end_us));
        points.extend([(left, height), (right, height)]);
        before = Some(bin + 1);
    }
    points.extend(points.last().map(|(x, _)| (*x, floor)));
    chart.draw_series(std::iter::once(PathElement::new(points, style)))?;
    Ok(())
}
