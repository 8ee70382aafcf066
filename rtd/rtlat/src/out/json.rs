//! --json: rt-tests' keys in rt-tests' nesting and order, and ours after them.
//!
//! Invariant: rt-tests' own keys are in the run's unit (us, as there); ours end in `_ns` and are in
//! ns. Version 2.4 of rt-tests writes the keys `cmdline:` and `rt_test_version:`, by mistake; later
//! ones and this have no colon.

use std::io::{self, Write};

use serde::{Serialize, Serializer};

use super::host::{Host, node};
use super::{Figure, PERCENTILES, Run, Unit, date};
use crate::series::{Comparison, Counts, Culprit, Placement, RoleInfo, Row, Sample, Series, Turn};

#[derive(Serialize)]
struct Document<'a> {
    file_version: u8,
    cmdline: &'a str,
    rt_test_version: &'static str,
    start_time: String,
    end_time: String,
    return_code: u8,
    sysinfo: &'a Host,
    num_threads: usize,
    resolution_in_ns: u8,
    #[serde(serialize_with = "numbered")]
    thread: Vec<Thread<'a>>,
}

#[derive(Serialize)]
struct Thread<'a> {
    #[serde(flatten)]
    timed: Timed,
    name: &'a str,
    pair: usize,
    round_trip: bool,
    payload_bytes: usize,
    interval_ns: u64,
    start_time_ns: u64,
    end_time_ns: u64,
    counts: CountsJson,
    /// Samples past the histogram's last bin.
    #[serde(skip_serializing_if = "Option::is_none")]
    histogram_overflows: Option<u64>,
    mean_ns: Both<f64>,
    percentiles_ns: Both<Percentiles>,
    #[serde(skip_serializing_if = "Option::is_none")]
    culprit: Option<CulpritJson<'a>>,
}

/// cyclictest's keys, or pmqtest's; signaltest's and below them those of a pair.
#[derive(Serialize)]
#[serde(untagged)]
enum Timed {
    Timer {
        histogram: Bins,
        cycles: u64,
        min: u64,
        max: u64,
        avg: f64,
        cpu: usize,
        node: i32,
    },
    Signaltest {
        cycles: u64,
        min: u64,
        max: u64,
        avg: f64,
        cpu: usize,
        sender: SenderJson,
        receiver: ReceiverJson,
    },
    Pair {
        sender: SenderJson,
        receiver: ReceiverJson,
    },
}

#[derive(Serialize)]
struct SenderJson {
    cpu: usize,
    priority: u8,
    samples: u64,
    interval: u64,
    tid: i32,
    is_pinned: bool,
}

#[derive(Serialize)]
struct ReceiverJson {
    #[serde(skip_serializing_if = "Bins::is_empty")]
    histogram: Bins,
    cpu: usize,
    priority: u8,
    timeoutcount: u64,
    min: u64,
    avg: f64,
    max: u64,
    tid: i32,
    is_pinned: bool,
}

#[derive(Serialize)]
struct CountsJson {
    scheduled: u64,
    sent: u64,
    received: u64,
    missed: u64,
    lost: u64,
}

#[derive(Serialize)]
struct Both<T> {
    raw: T,
    corrected: T,
}

#[derive(Serialize)]
struct CulpritJson<'a> {
    bound_ns: u64,
    index: usize,
    samples: Vec<SampleJson>,
    trace: &'a str,
}

#[derive(Serialize)]
struct SampleJson {
    sequence: u64,
    intended_ns: u64,
    sent_ns: u64,
    received_ns: u64,
    raw_ns: u64,
    corrected_ns: u64,
}

/// us to count, without the empty ones.
struct Bins(Vec<u64>);

impl Bins {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Bins {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().enumerate().filter(|(_, count)| **count > 0))
    }
}

struct Percentiles([u64; PERCENTILES.len()]);

impl Serialize for Percentiles {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(PERCENTILES.iter().map(|(name, _)| name).zip(self.0))
    }
}

/// `{"0": .., "1": ..}`, in order.
fn numbered<S: Serializer>(threads: &[Thread<'_>], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(threads.iter().enumerate())
}

/// Writes the document, with a line feed at its end.
pub fn write(out: &mut dyn Write, run: &Run, host: &Host, series: &[Series]) -> io::Result<()> {
    let document = Document {
        file_version: 1,
        cmdline: &run.command,
        rt_test_version: env!("CARGO_PKG_VERSION"),
        start_time: date::rfc2822(run.start_time_ns),
        end_time: date::rfc2822(run.end_time_ns),
        return_code: run.return_code,
        sysinfo: host,
        num_threads: series.len(),
        resolution_in_ns: u8::from(run.unit == Unit::Ns),
        thread: series.iter().map(|s| thread(s, run.unit)).collect(),
    };
    serde_json::to_writer_pretty(&mut *out, &document)?;
    writeln!(out)
}

#[derive(Serialize)]
struct ComparisonJson<'a> {
    file_version: u8,
    cmdline: &'a str,
    rtlat_version: &'static str,
    start_time: String,
    end_time: String,
    return_code: u8,
    sysinfo: &'a Host,
    interval_ns: u64,
    payload_bytes: usize,
    priority: u8,
    lane_priority: u8,
    load: &'a str,
    rows: Vec<RowJson<'a>>,
}

#[derive(Serialize)]
struct RowJson<'a> {
    path: &'a str,
    placement: Placement,
    /// To `mq` in the same placement, median over the turns.
    paced_p50_ratio: Option<f64>,
    busy_p50_ratio: Option<f64>,
    paced: Thread<'a>,
    busy: Thread<'a>,
    turns: &'a [Turn],
}

/// Writes a comparison, with a line feed at its end.
pub fn write_comparison(
    out: &mut dyn Write,
    run: &Run,
    host: &Host,
    all: &Comparison,
) -> io::Result<()> {
    let row = |row: &'_ Row| {
        let reference = all.reference(row.placement);
        let ratio =
            |figure: fn(&Turn) -> u64| reference.and_then(|reference| row.ratio(reference, figure));
        (
            ratio(|turn| turn.paced_p50_ns),
            ratio(|turn| turn.busy_p50_ns),
        )
    };
    let rows = all.rows.iter().map(|r| {
        let (paced_p50_ratio, busy_p50_ratio) = row(r);
        RowJson {
            path: &r.path,
            placement: r.placement,
            paced_p50_ratio,
            busy_p50_ratio,
            paced: thread(&r.paced, run.unit),
            busy: thread(&r.busy, run.unit),
            turns: &r.turns,
        }
    });
    let document = ComparisonJson {
        file_version: 1,
        cmdline: &run.command,
        rtlat_version: env!("CARGO_PKG_VERSION"),
        start_time: date::rfc2822(run.start_time_ns),
        end_time: date::rfc2822(run.end_time_ns),
        return_code: run.return_code,
        sysinfo: host,
        interval_ns: all.interval_ns,
        payload_bytes: all.payload_bytes,
        priority: all.priority,
        lane_priority: all.lane_priority,
        load: &all.load,
        rows: rows.collect(),
    };
    serde_json::to_writer_pretty(&mut *out, &document)?;
    writeln!(out)
}

fn thread(s: &Series, unit: Unit) -> Thread<'_> {
    let Counts {
        scheduled,
        sent,
        received,
        missed,
        lost,
    } = s.counts;
    let both = |of: fn(Figure, &Series) -> f64| Both {
        raw: of(Figure::Raw, s),
        corrected: of(Figure::Corrected, s),
    };
    Thread {
        timed: if s.is_timer() {
            timer(s, unit)
        } else {
            pair(s, unit)
        },
        name: &s.name,
        pair: s.pair,
        round_trip: s.is_round_trip,
        payload_bytes: s.payload_bytes,
        interval_ns: s.interval_ns,
        start_time_ns: s.start_time_ns,
        end_time_ns: s.end_time_ns,
        counts: CountsJson {
            scheduled,
            sent,
            received,
            missed,
            lost,
        },
        histogram_overflows: (!s.bins.is_empty()).then_some(s.overflows),
        mean_ns: both(Figure::mean_ns),
        percentiles_ns: Both {
            raw: Percentiles(Figure::Raw.percentiles_ns(s)),
            corrected: Percentiles(Figure::Corrected.percentiles_ns(s)),
        },
        culprit: s.culprit.as_ref().map(culprit),
    }
}

fn timer(s: &Series, unit: Unit) -> Timed {
    let cpu = cpu(&s.receiver);
    Timed::Timer {
        histogram: Bins(s.bins.clone()),
        cycles: s.counts.received,
        min: unit.whole(s.min_ns),
        max: unit.whole(s.max_ns),
        avg: hundredths(s.mean_ns() / unit.ns() as f64),
        cpu,
        node: node(cpu),
    }
}

fn pair(s: &Series, unit: Unit) -> Timed {
    let sender = SenderJson {
        cpu: cpu(&s.sender),
        priority: s.sender.priority,
        samples: s.counts.sent,
        // us in rt-tests with any unit of the other values.
        interval: s.interval_ns / 1_000,
        tid: s.sender.tid,
        is_pinned: s.sender.cpu.is_some(),
    };
    let (min, max) = (unit.whole(s.min_ns), unit.whole(s.max_ns));
    let avg = hundredths(s.mean_ns() / unit.ns() as f64);
    let receiver = ReceiverJson {
        histogram: Bins(s.bins.clone()),
        cpu: cpu(&s.receiver),
        priority: s.receiver.priority,
        timeoutcount: s.counts.lost,
        min,
        avg,
        max,
        tid: s.receiver.tid,
        is_pinned: s.receiver.cpu.is_some(),
    };
    if s.is_signaltest() {
        let (cycles, cpu) = (s.counts.received, sender.cpu);
        return Timed::Signaltest {
            cycles,
            min,
            max,
            avg,
            cpu,
            sender,
            receiver,
        };
    }
    Timed::Pair { sender, receiver }
}

fn culprit(culprit: &Culprit) -> CulpritJson<'_> {
    let sample = |s: &Sample| SampleJson {
        sequence: s.sequence,
        intended_ns: s.intended_ns,
        sent_ns: s.sent_ns,
        received_ns: s.received_ns,
        raw_ns: s.raw_ns(),
        corrected_ns: s.corrected_ns(),
    };
    CulpritJson {
        bound_ns: culprit.bound_ns,
        index: culprit.index,
        samples: culprit.samples.iter().map(sample).collect(),
        trace: &culprit.trace,
    }
}

fn cpu(info: &RoleInfo) -> usize {
    info.cpu.unwrap_or(info.last_cpu)
}

fn hundredths(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
