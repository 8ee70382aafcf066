//! Latencies on the reading side: counts taken from the page, merged, subtracted, and turned into
//! quantiles by the `hdrhistogram` crate.
//!
//! Invariant: the counts' sum is at most 2^53, so that no quantile computation overflows or loses a
//! unit in an f64, for any content of the page.

use super::layout::{self, count_bounds, count_index};
use hdrhistogram::Histogram;

/// Limit of the values in one set, 2^53: a message every microsecond for 285 years.
const COUNT_MAX: u64 = 1 << 53;

/// A set of latencies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// By [`count_index`], without the zeros at the end.
    counts: Vec<u64>,
    count: u64,
    sum_ns: u64,
    min_ns: u64,
    max_ns: u64,
    saturated: u64,
}

/// Summary of a set. All zero if no value was recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LatencySummary {
    /// Number of values.
    pub count: u64,
    /// Smallest value, in ns.
    pub min_ns: u64,
    pub p50_ns: u64,
    pub p90_ns: u64,
    pub p99_ns: u64,
    pub p999_ns: u64,
    /// Largest value, in ns.
    pub max_ns: u64,
}

/// The words before the counts, as read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Extremes {
    pub sum_ns: u64,
    /// None if it is not known exactly.
    pub min_ns: Option<u64>,
    /// None if it is not known exactly.
    pub max_ns: Option<u64>,
    pub saturated: u64,
}

impl Latency {
    /// Makes a set from the words of a page. Minimum and maximum are used only if they agree with
    /// the counts; they may not agree while a writer is between two stores, or if the content of
    /// the page is false.
    pub(super) fn new(counts: impl IntoIterator<Item = u64>, said: Extremes) -> Latency {
        let mut this = Latency {
            sum_ns: said.sum_ns,
            saturated: said.saturated,
            ..Latency::default()
        };
        let mut sum = 0;
        this.counts.extend(
            counts
                .into_iter()
                .take(layout::HISTOGRAM_COUNTS)
                .map(|count| {
                    let count = count.min(COUNT_MAX - sum);
                    sum += count;
                    count
                }),
        );
        this.count = sum;
        let used = this
            .counts
            .iter()
            .rposition(|&count| count > 0)
            .map_or(0, |last| last + 1);
        this.counts.truncate(used);
        let Some(first) = this.counts.iter().position(|&count| count > 0) else {
            return Latency::default();
        };
        let exact = |ns: Option<u64>, index: usize| {
            ns.filter(|&ns| count_index(ns.min(layout::HISTOGRAM_HIGH_NS)) == index)
        };
        this.min_ns = exact(said.min_ns, first).unwrap_or(count_bounds(first).0);
        this.max_ns = exact(said.max_ns, used - 1).unwrap_or(count_bounds(used - 1).1);
        this.max_ns = this.max_ns.max(this.min_ns);
        this
    }

    /// Adds another set.
    pub fn merge(&mut self, other: &Latency) {
        if other.count == 0 {
            return;
        }
        if self.count == 0 {
            self.clone_from(other);
            return;
        }
        let said = Extremes {
            sum_ns: self.sum_ns.wrapping_add(other.sum_ns),
            min_ns: Some(self.min_ns.min(other.min_ns)),
            max_ns: Some(self.max_ns.max(other.max_ns)),
            saturated: self.saturated.saturating_add(other.saturated),
        };
        let longest = self.counts.len().max(other.counts.len());
        let at = |counts: &[u64], i: usize| counts.get(i).copied().unwrap_or(0);
        // Each count is at most 2^53: the sum of two fits.
        *self = Latency::new(
            (0..longest).map(|i| at(&self.counts, i) + at(&other.counts, i)),
            said,
        );
    }

    /// The values since `earlier`, an older state of the same set.
    ///
    /// The maximum is exact if it is new, otherwise the upper bound of its bucket (1 % above at
    /// most) or, for values beyond the range, the maximum of all times; the minimum likewise.
    pub fn since(&self, earlier: &Latency) -> Latency {
        let before = |i: usize| earlier.counts.get(i).copied().unwrap_or(0);
        let counts = self
            .counts
            .iter()
            .enumerate()
            .map(|(i, &count)| count.saturating_sub(before(i)));
        let old = earlier.count > 0;
        let said = Extremes {
            sum_ns: self.sum_ns.wrapping_sub(earlier.sum_ns),
            min_ns: (!old || self.min_ns != earlier.min_ns).then_some(self.min_ns),
            max_ns: (!old || self.max_ns != earlier.max_ns).then_some(self.max_ns),
            saturated: self.saturated.saturating_sub(earlier.saturated),
        };
        let mut phase = Latency::new(counts, said);
        if phase.count > 0 {
            // The last count has no upper bound if it contains a value beyond the range.
            phase.max_ns = if phase.saturated > 0 {
                self.max_ns
            } else {
                phase.max_ns.min(self.max_ns)
            };
            phase.min_ns = phase.min_ns.max(self.min_ns).min(phase.max_ns);
        }
        phase
    }

    /// Number of values recorded.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Values beyond the histogram's range; they count as its highest value.
    pub fn saturated(&self) -> u64 {
        self.saturated
    }

    /// Sum of all values, modulo 2^64.
    pub fn sum_ns(&self) -> u64 {
        self.sum_ns
    }

    /// A histogram for other quantiles, V2 logs and the like.
    pub fn histogram(&self) -> Histogram<u64> {
        let mut histogram = Histogram::new_with_bounds(
            layout::HISTOGRAM_LOW_NS,
            layout::HISTOGRAM_HIGH_NS,
            layout::HISTOGRAM_DIGITS,
        )
        .expect("constant bounds, covered by a test");
        for (i, &count) in self.counts.iter().enumerate() {
            if count > 0 {
                histogram.saturating_record_n(count_bounds(i).0, count);
            }
        }
        histogram
    }

    /// The usual quantiles.
    pub fn summary(&self) -> LatencySummary {
        if self.count == 0 {
            return LatencySummary::default();
        }
        let histogram = self.histogram();
        // A bucket's upper bound may be above its highest value.
        let at = |quantile: f64| {
            histogram
                .value_at_quantile(quantile)
                .clamp(self.min_ns, self.max_ns)
        };
        LatencySummary {
            count: self.count,
            min_ns: self.min_ns,
            p50_ns: at(0.5),
            p90_ns: at(0.9),
            p99_ns: at(0.99),
            p999_ns: at(0.999),
            max_ns: self.max_ns,
        }
    }
}
