//! The page's histogram is HdrHistogram's.

use super::*;
use crate::stats::latency::{Extremes, Latency, LatencySummary};
use crate::stats::layout::{self, HISTOGRAM_COUNTS, HISTOGRAM_HIGH_NS, count_bounds, count_index};
use hdrhistogram::Histogram;
use proptest::prelude::*;

fn reference() -> Histogram<u64> {
    Histogram::new_with_bounds(
        layout::HISTOGRAM_LOW_NS,
        HISTOGRAM_HIGH_NS,
        layout::HISTOGRAM_DIGITS,
    )
    .unwrap()
}

#[test]
fn the_shape_is_that_of_the_crate() {
    let mut reference = reference();
    assert_eq!(reference.distinct_values(), HISTOGRAM_COUNTS);
    reference.auto(false);
    assert!(
        reference.record(HISTOGRAM_HIGH_NS).is_ok()
            && reference.record(HISTOGRAM_HIGH_NS + 1).is_err()
    );
    assert_eq!(count_index(HISTOGRAM_HIGH_NS), HISTOGRAM_COUNTS - 1);
}

#[test]
fn every_count_has_the_bounds_of_the_crate() {
    let reference = reference();
    let mut next = 0;
    for index in 0..HISTOGRAM_COUNTS {
        let (low, high) = count_bounds(index);
        assert_eq!(low, next, "no gap in front of {index}");
        assert_eq!((count_index(low), count_index(high)), (index, index));
        assert_eq!(
            (
                reference.lowest_equivalent(low),
                reference.highest_equivalent(low)
            ),
            (low, high)
        );
        next = high + 1;
    }
    assert_eq!(next, HISTOGRAM_HIGH_NS + 1);
}

/// Values around the edges of buckets, beyond the range, and anywhere.
fn value() -> impl Strategy<Value = u64> {
    prop_oneof![
        0..300u64,
        (0..HISTOGRAM_COUNTS, 0..3u64)
            .prop_map(|(index, off)| (count_bounds(index).1 + off).saturating_sub(1)),
        (0..64u32).prop_map(|bits| 1u64 << bits),
        0..HISTOGRAM_HIGH_NS,
        any::<u64>(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn quantiles_are_those_of_the_crate(values in prop::collection::vec(value(), 1..400)) {
        let name = unique("hdr");
        let page = Page::create(&spec(&name)).unwrap();
        let mut cell = page.route(2);
        let mut reference = reference();
        for &ns in &values {
            cell.record_latency(ns);
            reference.saturating_record(ns);
        }
        let route = Reader::open(&name).unwrap().snapshot().unwrap().routes.swap_remove(2);
        prop_assert_eq!(route.latency.histogram(), reference.clone());
        let (low, high) = (*values.iter().min().unwrap(), *values.iter().max().unwrap());
        let summary = route.latency.summary();
        prop_assert_eq!((summary.min_ns, summary.max_ns), (low, high));
        prop_assert_eq!(summary.count, values.len() as u64);
        let ours = [summary.p50_ns, summary.p90_ns, summary.p99_ns, summary.p999_ns];
        for (quantile, ours) in [0.5, 0.9, 0.99, 0.999].into_iter().zip(ours) {
            prop_assert_eq!(ours, reference.value_at_quantile(quantile).clamp(low, high));
        }
        let above = values.iter().filter(|&&ns| ns > HISTOGRAM_HIGH_NS).count();
        prop_assert_eq!(route.latency.saturated(), above as u64);
        let sum = values.iter().fold(0u64, |sum, &ns| sum.wrapping_add(ns));
        prop_assert_eq!(route.latency.sum_ns(), sum);
    }

    #[test]
    fn a_phase_and_what_was_before_add_up(
        a in prop::collection::vec(value(), 0..60),
        b in prop::collection::vec(value(), 0..60),
    ) {
        let name = unique("phase");
        let page = Page::create(&spec(&name)).unwrap();
        let mut cell = page.route(0);
        let reader = Reader::open(&name).unwrap();
        a.iter().for_each(|&ns| cell.record_latency(ns));
        let first = reader.snapshot().unwrap();
        b.iter().for_each(|&ns| cell.record_latency(ns));
        let second = reader.snapshot().unwrap();
        let phase = second.diff(&first).routes.swap_remove(0).latency;
        let mut only_b = reference();
        b.iter().for_each(|&ns| only_b.saturating_record(ns));
        prop_assert_eq!(phase.histogram(), only_b);
        if let (Some(&low), Some(&high)) = (b.iter().min(), b.iter().max()) {
            let summary = phase.summary();
            prop_assert!(summary.min_ns <= low && summary.max_ns >= high, "{summary:?}, {low}..{high}");
        }
        let mut sum = first.routes[0].latency.clone();
        sum.merge(&phase);
        prop_assert_eq!(sum.histogram(), second.routes[0].latency.histogram());
    }

    #[test]
    fn any_counts_at_all_can_be_summarised_and_merged(
        counts in prop::collection::vec(prop_oneof![Just(0), Just(u64::MAX), any::<u64>()], 0..40),
        min in any::<Option<u64>>(),
        max in any::<Option<u64>>(),
    ) {
        let said = Extremes { sum_ns: u64::MAX, min_ns: min, max_ns: max, saturated: u64::MAX };
        let mut latency = Latency::new(counts.iter().copied(), said);
        for _ in 0..3 {
            latency.merge(&latency.clone());
        }
        let summary = latency.summary();
        let LatencySummary { min_ns, p50_ns, p90_ns, p99_ns, p999_ns, max_ns, .. } = summary;
        prop_assert!([min_ns, p50_ns, p90_ns, p99_ns, p999_ns, max_ns].is_sorted());
        prop_assert_eq!(latency.since(&latency).count(), 0);
    }
}
