//! Results as text: rt-tests' lines and files, and the formats of other tools.
//!
//! Constraints: what rt-tests print too is printed byte for byte as they print it; everything else
//! goes into lines that begin with `# `, which their parsers skip (rt-tests' own lines have a digit
//! after the `#`). Nothing here runs on a real-time thread. All functions write to the given writer
//! and read nothing but their arguments, except [`host`], which reads /proc and /sys.

pub mod csv;
pub mod date;
pub mod hgrm;
pub mod hist;
pub mod hlog;
pub mod host;
pub mod json;
pub mod live;
pub mod text;
pub mod xenomai;

#[cfg(test)]
mod tests;

use std::io::{self, Write};

use hdrhistogram::Histogram;

use super::series::{Packed, Series};

/// The unit of the figures in text lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unit {
    /// Microseconds, as all rt-tests.
    #[default]
    Us,
    /// Nanoseconds, as cyclictest -N.
    Ns,
}

impl Unit {
    /// The unit as it is printed: `us` or `ns`.
    pub fn text(self) -> &'static str {
        match self {
            Unit::Us => "us",
            Unit::Ns => "ns",
        }
    }

    /// Nanoseconds in one.
    pub fn ns(self) -> u64 {
        match self {
            Unit::Us => 1_000,
            Unit::Ns => 1,
        }
    }

    /// Whole units, cut off as cyclictest does.
    pub fn whole(self, ns: u64) -> u64 {
        ns / self.ns()
    }

    /// With two decimals in us, since a hop through shared memory takes less than one; whole in ns.
    pub fn exact(self, ns: u64) -> String {
        match self {
            Unit::Us => format!("{:.2}", ns as f64 / 1e3),
            Unit::Ns => ns.to_string(),
        }
    }
}

/// One of the two latencies of a [`Series`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Figure {
    /// From the actual send.
    Raw,
    /// From the intended send, missed points of the schedule included.
    Corrected,
}

impl Figure {
    /// Both, in the order in which they are shown.
    pub const ALL: [Figure; 2] = [Figure::Raw, Figure::Corrected];

    /// The word for it: `raw` or `corrected`.
    pub fn text(self) -> &'static str {
        match self {
            Figure::Raw => "raw",
            Figure::Corrected => "corrected",
        }
    }

    /// Its histogram, in ns.
    pub fn histogram(self, series: &Series) -> &Histogram<u64> {
        match self {
            Figure::Raw => &series.raw,
            Figure::Corrected => &series.corrected,
        }
    }

    /// Smallest, in ns; 0 with no sample.
    pub fn min_ns(self, series: &Series) -> u64 {
        match self {
            Figure::Raw => series.min_ns,
            Figure::Corrected => series.corrected.min(),
        }
    }

    /// Mean, in ns; 0 with no sample.
    pub fn mean_ns(self, series: &Series) -> f64 {
        match self {
            Figure::Raw => series.mean_ns(),
            Figure::Corrected => series.corrected.mean(),
        }
    }

    /// Largest, in ns: exact, except of the corrected ones of messages, which is up to 0.1 % high.
    pub fn max_ns(self, series: &Series) -> u64 {
        // A missed wake-up came sooner after its time than the late one that it was missed for.
        if self == Figure::Raw || series.is_timer() {
            series.max_ns
        } else {
            series.corrected.max()
        }
    }

    /// The figures of [`PERCENTILES`], in ns; all 0 with no sample.
    pub fn percentiles_ns(self, series: &Series) -> [u64; PERCENTILES.len()] {
        let (histogram, max_ns) = (self.histogram(series), self.max_ns(series));
        // A bucket's upper end may lie above the largest of all.
        PERCENTILES.map(|(_, quantile)| match quantile {
            Some(q) => histogram.value_at_quantile(q).min(max_ns),
            None => max_ns,
        })
    }
}

/// The percentiles that are shown, and the maximum.
pub const PERCENTILES: [(&str, Option<f64>); 6] = [
    ("p50", Some(0.5)),
    ("p90", Some(0.9)),
    ("p99", Some(0.99)),
    ("p99.9", Some(0.999)),
    ("p99.99", Some(0.9999)),
    ("max", None),
];

/// The facts about a run as a whole.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// The command line, as it was given.
    pub command: String,
    /// Wall clock at start, ns since 1970.
    pub start_time_ns: u64,
    /// Wall clock at the end.
    pub end_time_ns: u64,
    /// The exit status of the process.
    pub return_code: u8,
    /// Of text and of rt-tests' keys in JSON.
    pub unit: Unit,
}

/// The results of one pair in a part of the run.
#[derive(Clone, Debug)]
pub struct Interval {
    /// Index into the written series.
    pub series: usize,
    /// Wall clock at its start, ns since 1970.
    pub start_time_ns: u64,
    /// How long it took.
    pub length_ns: u64,
    pub raw: Packed,
}

/// The formats of `--format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// HdrHistogram's percentile distribution.
    Hgrm,
    /// HdrHistogram's interval log.
    Hlog,
    /// One row per series.
    Csv,
    /// As Xenomai's `latency` prints.
    Xenomai,
}

impl Format {
    /// Writes the series in this format. `intervals` may be empty, and is used by `hlog` and
    /// `xenomai` alone; `figure` by `hgrm` alone, since its table holds one.
    pub fn write(
        self,
        out: &mut dyn Write,
        run: &Run,
        series: &[Series],
        intervals: &[Interval],
        figure: Figure,
    ) -> io::Result<()> {
        match self {
            Format::Hgrm => hgrm::write(out, series, figure, run.unit),
            Format::Hlog => hlog::write(out, run, series, intervals),
            Format::Csv => csv::write(out, series),
            Format::Xenomai => xenomai::write(out, series, intervals),
        }
    }
}
