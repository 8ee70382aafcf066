//! Measurements that were never made, for tests.

use crate::series::{Comparison, Counts, Placement, RoleInfo, Row, Series, Turn, histogram};

/// Numbers of a seeded generator (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In 0..1.
    pub fn uniform(&mut self) -> f64 {
        f64::from(u32::try_from(self.next() >> 32).unwrap()) / 4_294_967_296.0
    }

    /// Of mean 0 and deviation 1, near enough.
    pub fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
    }

    /// Latencies as machines have them: a body around `median_ns`, a tail, a few outliers.
    pub fn latencies(&mut self, median_ns: f64, count: usize) -> Vec<u64> {
        let one = |random: &mut Random| {
            let tail = if random.uniform() < 0.002 {
                1.0 + 20.0 * random.uniform()
            } else {
                1.0
            };
            (median_ns * tail * (0.12 * random.normal()).exp()).max(1.0)
        };
        (0..count).map(|_| ns(one(self))).collect()
    }
}

/// A time of the generator as an integer.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "positive and far below 2^53"
)]
pub fn ns(value: f64) -> u64 {
    value.max(0.0).round() as u64
}

/// A series of these raw latencies; corrected the same.
pub fn series(name: &str, latencies_ns: &[u64]) -> Series {
    let mut raw = histogram();
    for &latency in latencies_ns {
        raw.saturating_record(latency.max(1));
    }
    let received = u64::try_from(latencies_ns.len()).unwrap();
    Series {
        name: name.to_owned(),
        pair: 0,
        sender: RoleInfo {
            tid: 100,
            cpu: Some(0),
            last_cpu: 0,
            priority: 80,
        },
        receiver: RoleInfo {
            tid: 101,
            cpu: Some(1),
            last_cpu: 1,
            priority: 80,
        },
        interval_ns: 1_000_000,
        payload_bytes: 64,
        is_round_trip: false,
        corrected: raw.clone(),
        raw,
        bins: Vec::new(),
        overflows: 0,
        overflow_cycles: Vec::new(),
        min_ns: latencies_ns.iter().copied().min().unwrap_or(0),
        last_ns: latencies_ns.last().copied().unwrap_or(0),
        max_ns: latencies_ns.iter().copied().max().unwrap_or(0),
        sum_ns: latencies_ns
            .iter()
            .map(|&latency| u128::from(latency))
            .sum(),
        counts: Counts {
            scheduled: received,
            sent: received,
            received,
            missed: 0,
            lost: 0,
        },
        start_time_ns: 1_795_374_448_000_000_000,
        end_time_ns: 1_795_374_458_000_000_000,
        culprit: None,
    }
}

/// Turns whose medians are near these, with a noise of `noise` of the median.
pub fn turns(
    random: &mut Random,
    paced_ns: f64,
    busy_ns: f64,
    noise: f64,
    count: usize,
) -> Vec<Turn> {
    let draw = |random: &mut Random, median: f64| ns(median * (1.0 + noise * random.normal()));
    let one = |random: &mut Random| Turn {
        paced_p50_ns: draw(random, paced_ns),
        paced_p99_ns: draw(random, paced_ns * 2.0),
        busy_p50_ns: draw(random, busy_ns),
    };
    (0..count).map(|_| one(random)).collect()
}

/// A row of a comparison.
pub fn row(
    random: &mut Random,
    path: &str,
    placement: Placement,
    median_ns: f64,
    turn_count: usize,
) -> Row {
    let paced = random.latencies(median_ns, 4000);
    let busy = random.latencies(median_ns * 0.7, 4000);
    Row {
        path: path.to_owned(),
        placement,
        paced: series(path, &paced),
        busy: series(path, &busy),
        turns: turns(random, median_ns, median_ns * 0.7, 0.05, turn_count),
    }
}

/// A whole comparison of the usual paths.
pub fn comparison(seed: u64, turn_count: usize) -> Comparison {
    let mut random = Random(seed);
    let medians = [
        ("mq", 2700.0, 26_000.0),
        ("signal", 3500.0, 30_000.0),
        ("futex", 2600.0, 25_000.0),
        ("pipe", 2500.0, 25_000.0),
        ("mq -> mq", 5100.0, 47_000.0),
        ("mq -> signal", 5800.0, 49_000.0),
        ("lane routed", 4000.0, 40_000.0),
        ("lane direct", 2700.0, 25_500.0),
    ];
    let mut rows = Vec::new();
    for (path, same, other) in medians {
        rows.push(row(&mut random, path, Placement::Same, same, turn_count));
        rows.push(row(&mut random, path, Placement::Other, other, turn_count));
    }
    Comparison {
        rows,
        interval_ns: 1_000_000,
        payload_bytes: 64,
        priority: 80,
        lane_priority: 85,
        load: "none".to_owned(),
    }
}
