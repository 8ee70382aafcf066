//! HdrHistogram's percentile distribution, the text that its plotters take.
//!
//! In us with three decimals (ns with -N): the format has no field for a unit, so the last footer
//! line says it.

use std::io::{self, Write};

use hdrhistogram::Histogram;

use super::{Figure, Unit};
use crate::series::Series;

/// Steps to each halving of the distance to 100 %, as HdrHistogram's own writers take by default.
const TICKS_PER_HALF: u32 = 5;

/// Writes a table per name, with all pairs of the name added up.
pub fn write(out: &mut dyn Write, series: &[Series], figure: Figure, unit: Unit) -> io::Result<()> {
    let mut names: Vec<&str> = Vec::new();
    for s in series {
        if !names.contains(&s.name.as_str()) {
            names.push(&s.name);
        }
    }
    for name in names {
        let mut sum = crate::series::histogram();
        let of_name = || series.iter().filter(|s| s.name == name);
        for s in of_name() {
            sum.add(figure.histogram(s))
                .map_err(|e| io::Error::other(format!("{name}: histograms: {e}")))?;
        }
        table(out, &sum, unit)?;
        writeln!(
            out,
            "#[rtlat {name}: {}, {}, pairs {}]",
            figure.text(),
            unit.text(),
            of_name().count()
        )?;
    }
    Ok(())
}

fn table(out: &mut dyn Write, histogram: &Histogram<u64>, unit: Unit) -> io::Result<()> {
    let scale = unit.ns() as f64;
    writeln!(
        out,
        "{:>12} {:>14} {:>10} {:>14}\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    )?;
    let mut count = 0;
    for step in histogram.iter_quantiles(TICKS_PER_HALF) {
        count += step.count_since_last_iteration();
        let (value, quantile) = (
            step.value_iterated_to() as f64 / scale,
            step.quantile_iterated_to(),
        );
        write!(out, "{value:12.3} {quantile:.12} {count:10}")?;
        // The last row has no odds: 1/0.
        if quantile < 1.0 {
            write!(out, " {:14.2}", 1.0 / (1.0 - quantile))?;
        }
        writeln!(out)?;
    }
    let (mean, deviation) = (histogram.mean() / scale, histogram.stdev() / scale);
    writeln!(
        out,
        "#[Mean    = {mean:12.3}, StdDeviation   = {deviation:12.3}]"
    )?;
    let max = histogram.max() as f64 / scale;
    writeln!(
        out,
        "#[Max     = {max:12.3}, Total count    = {:12}]",
        histogram.len()
    )?;
    // Two halves of the digits' range share a bucket, in a power of two.
    let sub_buckets = (2 * 10_u64.pow(u32::from(histogram.sigfig()))).next_power_of_two();
    writeln!(
        out,
        "#[Buckets = {:12}, SubBuckets     = {sub_buckets:12}]",
        histogram.buckets()
    )
}
