//! JSON and the formats of other tools.

use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
use serde_json::Value;

use super::builder::{START_NS, neighbours, series, with_bins, written};
use crate::out::host::Host;
use crate::out::{Figure, Format, Interval, Run, Unit, json};
use crate::series::{Culprit, Packed, Series, histogram};

fn run() -> Run {
    let end_time_ns = START_NS + 1_000_000_000;
    Run {
        command: "rtlat mq -q".to_owned(),
        start_time_ns: START_NS,
        end_time_ns,
        return_code: 0,
        unit: Unit::Us,
    }
}

fn format(format: Format, series: &[Series], intervals: &[Interval]) -> String {
    written(|out| format.write(out, &run(), series, intervals, Figure::Raw))
}

fn interval(series: usize, second: u64, raw_ns: &[u64]) -> Interval {
    let mut raw = histogram();
    for ns in raw_ns {
        raw.record(*ns).unwrap();
    }
    let start_time_ns = START_NS + second * 1_000_000_000;
    Interval {
        series,
        start_time_ns,
        length_ns: 1_000_000_000,
        raw: Packed::of(&raw),
    }
}

#[test]
fn json_says_what_was_measured() {
    let ns = [500, 2_000, 153_200];
    let mut mq = with_bins(series("mq", &ns), &ns, 5);
    mq.culprit = Some(Culprit {
        bound_ns: 100_000,
        samples: neighbours(),
        index: 1,
        trace: "frozen".to_owned(),
    });
    let text = written(|out| json::write(out, &run(), &Host::read(), &[mq, series("timer", &[])]));
    let first: Vec<&str> = text
        .lines()
        .skip(1)
        .map(|l| l.trim().split('"').nth(1).unwrap_or(""))
        .take(7)
        .collect();
    let wanted = [
        "file_version",
        "cmdline",
        "rt_test_version",
        "start_time",
        "end_time",
        "return_code",
        "sysinfo",
    ];
    assert_eq!(first, wanted);
    let all: Value = serde_json::from_str(&text).unwrap();
    let mq = &all["thread"]["0"];
    assert_eq!(all["start_time"], "Sun, 22 Nov 2026 18:57:53 +0000");
    assert_eq!(
        mq["receiver"]["histogram"],
        serde_json::json!({"0": 1, "2": 1})
    );
    assert_eq!(mq["receiver"]["max"], 153);
    assert_eq!(mq["receiver"]["avg"], 51.9);
    assert_eq!(mq["sender"]["interval"], 1_000);
    assert_eq!(mq["percentiles_ns"]["raw"]["p99.99"], 153_200);
    assert_eq!(mq["counts"]["received"], 3);
    assert_eq!(mq["culprit"]["samples"][1]["corrected_ns"], 154_700);
    assert_eq!(all["thread"]["1"]["histogram"], serde_json::json!({}));
    assert!(all["thread"]["1"].get("culprit").is_none());
}

#[test]
fn hgrm_has_the_columns_and_the_footer_of_hdr_histogram() {
    let ns: Vec<u64> = (1..=1_000).map(|n| n * 1_000).collect();
    let text = format(Format::Hgrm, &[series("mq", &ns), series("mq", &ns)], &[]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[0],
        "       Value     Percentile TotalCount 1/(1-Percentile)"
    );
    assert_eq!(lines[1], "");
    assert_eq!(
        lines[2],
        "       1.000 0.000000000000          2           1.00"
    );
    let half = lines
        .iter()
        .find(|l| l.contains(" 0.500000000000 "))
        .unwrap();
    assert_eq!(
        half.split_whitespace().collect::<Vec<_>>(),
        ["500.223", "0.500000000000", "1000", "2.00"]
    );
    let footer = &lines[lines.len() - 5..];
    assert_eq!(footer[0], "    1000.447 1.000000000000       2000");
    assert_eq!(
        footer[1],
        "#[Mean    =      500.505, StdDeviation   =      288.676]"
    );
    assert_eq!(
        footer[2],
        "#[Max     =     1000.447, Total count    =         2000]"
    );
    assert_eq!(
        footer[3],
        "#[Buckets =           26, SubBuckets     =         2048]"
    );
    assert_eq!(footer[4], "#[rtlat mq: raw, us, pairs 2]");
    assert!(
        format(Format::Hgrm, &[series("mq", &[])], &[]).contains("Total count    =            0]")
    );
}

fn entries(log: &str) -> Vec<(String, f64, f64, Histogram<u64>)> {
    let mut deserializer = Deserializer::new();
    let all = IntervalLogIterator::new(log.as_bytes()).map(|entry| entry.unwrap());
    all.filter_map(|entry| match entry {
        LogEntry::Interval(row) => {
            let bytes = base64_of(row.encoded_histogram());
            let read = deserializer.deserialize(&mut bytes.as_slice()).unwrap();
            let tag = row.tag().unwrap().as_str().to_owned();
            Some((
                tag,
                row.start_timestamp().as_secs_f64(),
                row.duration().as_secs_f64(),
                read,
            ))
        }
        LogEntry::StartTime(time) => {
            assert_eq!(time.as_millis(), 1_795_373_873_500);
            None
        }
        LogEntry::BaseTime(_) => None,
    })
    .collect()
}

/// RFC 4648.
fn base64_of(text: &str) -> Vec<u8> {
    let digits = text.bytes().filter(|b| *b != b'=').map(|b| match b {
        b'A'..=b'Z' => b - b'A',
        b'a'..=b'z' => b - b'a' + 26,
        b'0'..=b'9' => b - b'0' + 52,
        b'+' => 62,
        _ => 63,
    });
    let bits: Vec<u8> = digits
        .flat_map(|d| (0..6).rev().map(move |i| d >> i & 1))
        .collect();
    bits.chunks_exact(8)
        .map(|byte| byte.iter().fold(0, |sum, bit| sum << 1 | bit))
        .collect()
}

#[test]
fn hlog_is_read_back_as_it_was_recorded() {
    let all = [
        series("mq -> mq", &[1_000, 2_000]),
        series("timer", &[7_000]),
    ];
    let log = format(
        Format::Hlog,
        &all,
        &[interval(1, 1, &[9_000, 9_500]), interval(1, 0, &[7_000])],
    );
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines[1], "#[Histogram log format version 1.3]");
    assert_eq!(
        lines[2],
        "#[StartTime: 1795373873.500 (seconds since epoch), Sun, 22 Nov 2026 18:57:53 +0000]"
    );
    assert!(lines.contains(
        &r#""StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram""#
    ));
    assert!(
        lines
            .iter()
            .filter(|l| l.starts_with("Tag="))
            .all(|l| l.contains(",HISTFAAAA")),
        "{log}"
    );
    let read = entries(&log);
    let tags: Vec<(&str, f64)> = read
        .iter()
        .map(|(tag, start, ..)| (tag.as_str(), *start))
        .collect();
    let wanted = [
        ("mq_->_mq-0-raw", 0.0),
        ("mq_->_mq-0-corrected", 0.0),
        ("timer-0-raw", 0.0),
        ("timer-0-raw", 1.0),
    ];
    assert_eq!(tags, wanted);
    assert_eq!(read[0].3, all[0].raw);
    assert_eq!(read[1].3, all[0].corrected);
    assert_eq!(
        (read[3].3.len(), read[3].3.max(), read[3].2),
        (2, 9_503, 1.0)
    );
}

#[test]
fn csv_has_a_cell_for_every_head() {
    let text = format(
        Format::Csv,
        &[series("mq", &[2_000, 3_000]), series("odd, \"name\"", &[])],
        &[],
    );
    let mut lines = text.lines();
    let heads: Vec<&str> = lines.next().unwrap().split(',').collect();
    let cells: Vec<&str> = lines.next().unwrap().split(',').collect();
    assert_eq!(heads.len(), cells.len());
    let cell = |head: &str| cells[heads.iter().position(|h| *h == head).unwrap()];
    assert_eq!(
        (cell("name"), cell("sender_cpu"), cell("receiver_cpu")),
        ("mq", "1", "")
    );
    assert_eq!(
        (
            cell("raw_p99_99_ns"),
            cell("raw_mean_ns"),
            cell("corrected_min_ns")
        ),
        ("3000", "2500.0", "2100")
    );
    let empty = lines.next().unwrap();
    assert!(empty.starts_with("\"odd, \"\"name\"\"\",0,false,"));
    assert!(empty.ends_with(&",0,0.0,0,0,0,0,0,0".repeat(2)), "{empty}");
}

#[test]
fn xenomai_rows_are_those_of_its_latency() {
    let mut timer = series("timer", &[1_615, 9_846]);
    timer.end_time_ns = timer.start_time_ns + 2_000_000_000;
    timer.counts.missed = 4;
    let alone = format(Format::Xenomai, std::slice::from_ref(&timer), &[]);
    assert_eq!(
        alone,
        "RTT|  00:00:01  (periodic user-mode task, 1000 us period, priority 80)\n\
         RTH|----lat min|----lat avg|----lat max|-overrun|---msw|---lat best|--lat worst\n\
         RTD|      1.615|      5.731|      9.846|       4|     0|      1.615|      9.846\n\
         ---|-----------|-----------|-----------|--------|------|-------------------------\n\
         RTS|      1.615|      5.731|      9.846|       4|     0|    00:00:02/00:00:02\n"
    );
    let parts = [interval(0, 0, &[1_615]), interval(0, 1, &[9_846])];
    let rows = format(Format::Xenomai, &[timer], &parts);
    let rows: Vec<&str> = rows.lines().filter(|l| l.starts_with("RTD|")).collect();
    assert_eq!(rows.len(), 2);
    assert_eq!(
        rows[0],
        "RTD|      1.615|      1.615|      1.615|       0|     0|      1.615|      1.615"
    );
    assert!(
        rows[1].ends_with("|       4|     0|      1.615|      9.847"),
        "{}",
        rows[1]
    );
}
