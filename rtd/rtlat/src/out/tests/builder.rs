//! Series made by hand, and the other programs that are asked.

use std::process::Command;

use crate::series::{Counts, RoleInfo, Sample, Series, histogram};

/// A series of these raw latencies, one per millisecond, sent 100 ns after their time.
pub fn series(name: &str, raw_ns: &[u64]) -> Series {
    let is_timer = name == "timer";
    let sender = RoleInfo {
        tid: 101,
        cpu: Some(1),
        last_cpu: 1,
        priority: 80,
    };
    let receiver = if is_timer {
        sender
    } else {
        RoleInfo {
            tid: 100,
            cpu: None,
            last_cpu: 0,
            priority: 79,
        }
    };
    let late_ns = if is_timer { 0 } else { 100 };
    let (mut raw, mut corrected) = (histogram(), histogram());
    for ns in raw_ns {
        raw.record(*ns).unwrap();
        corrected.record(ns + late_ns).unwrap();
    }
    let count = raw_ns.len() as u64;
    Series {
        name: name.to_owned(),
        pair: 0,
        sender,
        receiver,
        interval_ns: 1_000_000,
        payload_bytes: if is_timer { 0 } else { 64 },
        is_round_trip: false,
        raw,
        corrected,
        bins: Vec::new(),
        overflows: 0,
        overflow_cycles: Vec::new(),
        min_ns: raw_ns.iter().copied().min().unwrap_or(0),
        last_ns: raw_ns.last().copied().unwrap_or(0),
        max_ns: raw_ns.iter().copied().max().unwrap_or(0),
        sum_ns: raw_ns.iter().map(|ns| u128::from(*ns)).sum(),
        counts: Counts {
            scheduled: count,
            sent: count,
            received: count,
            missed: 0,
            lost: 0,
        },
        start_time_ns: START_NS,
        end_time_ns: START_NS + count * 1_000_000,
        culprit: None,
    }
}

/// 2026-11-22 18:57:53.5 UTC.
pub const START_NS: u64 = 1_795_373_873_500_000_000;

/// Sorts the latencies into `count` bins, as an engine does.
pub fn with_bins(mut series: Series, raw_ns: &[u64], count: usize) -> Series {
    series.bins = vec![0; count];
    for (cycle, ns) in raw_ns.iter().enumerate() {
        match usize::try_from(ns / 1_000)
            .ok()
            .and_then(|us| series.bins.get_mut(us))
        {
            Some(bin) => *bin += 1,
            None => {
                series.overflows += 1;
                if series.overflow_cycles.len() < 16 {
                    series.overflow_cycles.push(cycle as u64);
                }
            }
        }
    }
    series
}

/// A sample with its neighbours: 0 and 2 took 3 us, 1 took 153.2 us and was sent 1.5 us late.
pub fn neighbours() -> Vec<Sample> {
    let sample = |sequence: u64, late_ns: u64, took_ns: u64| {
        let intended_ns = 5_000_000_000_000 + sequence * 1_000_000;
        let sent_ns = intended_ns + late_ns;
        Sample {
            sequence,
            intended_ns,
            sent_ns,
            received_ns: sent_ns + took_ns,
        }
    };
    vec![
        sample(0, 0, 3_000),
        sample(1, 1_500, 153_200),
        sample(2, 0, 3_000),
    ]
}

/// The text that a function writes.
pub fn written(write: impl FnOnce(&mut dyn std::io::Write) -> std::io::Result<()>) -> String {
    let mut out = Vec::new();
    write(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// Standard output of a program of rt-tests.
pub fn rt_tests(program: &str, args: &[&str]) -> String {
    let output = Command::new(program)
        .args(args)
        .output()
        .expect("rt-tests is installed");
    assert!(
        output.status.success(),
        "{program}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}
