//! rt-tests' own output, read into series and written again: not a byte may differ.

use serde_json::Value;

use super::builder::{rt_tests, series, written};
use crate::out::host::Host;
use crate::out::{Run, Unit, hist, json, text};
use crate::series::{RoleInfo, Series};

/// A role from its ID, priority and CPU.
fn info(n: &[u64]) -> RoleInfo {
    RoleInfo {
        tid: i32::try_from(n[0]).unwrap(),
        priority: u8::try_from(n[1]).unwrap(),
        cpu: n.get(2).map(|cpu| usize::try_from(*cpu).unwrap()),
        last_cpu: 0,
    }
}

/// The numbers in a text, in order.
fn numbers(text: &str) -> Vec<u64> {
    text.split(|c: char| !c.is_ascii_digit())
        .filter_map(|n| n.parse().ok())
        .collect()
}

fn after<'a>(text: &'a str, head: &str) -> Vec<&'a str> {
    text.lines()
        .filter_map(|line| line.strip_prefix(head))
        .collect()
}

/// A histogram of cyclictest as series.
fn read_histogram(text: &str, threads: usize) -> Vec<Series> {
    let rows: Vec<Vec<u64>> = text
        .lines()
        .filter(|l| l.starts_with(|c: char| c.is_ascii_digit()))
        .map(numbers)
        .collect();
    let footer = |head: &str| numbers(after(text, head)[0]);
    let (min, avg, max) = (
        footer("# Min Latencies:"),
        footer("# Avg Latencies:"),
        footer("# Max Latencies:"),
    );
    let overflows = footer("# Histogram Overflows:");
    (0..threads)
        .map(|i| {
            let mut s = series("timer", &[]);
            s.bins = rows.iter().map(|row| row[i + 1]).collect();
            (s.min_ns, s.max_ns) = (min[i] * 1_000, max[i] * 1_000);
            s.counts.received = 1;
            s.sum_ns = u128::from(avg[i] * 1_000);
            s.overflows = overflows[i];
            let cycles = after(text, &format!("# Thread {i}:"))[0];
            s.overflow_cycles = numbers(cycles.split(" #").next().unwrap());
            s
        })
        .collect()
}

#[test]
#[ignore = "needs root, and rt-tests"]
fn a_histogram_is_cyclictests_to_the_byte() {
    for (args, threads, has_sum) in [
        (["-t1", "-h30"], 1, false),
        (["-t1", "-H30"], 1, true),
        (["-t2", "-h30"], 2, false),
        (["-t3", "-H40"], 3, true),
    ] {
        let file =
            std::env::temp_dir().join(format!("rtlat-{}-{}", std::process::id(), args.concat()));
        let histfile = format!("--histfile={}", file.display());
        rt_tests("cyclictest", &["-q", "-l60", args[0], args[1], &histfile]);
        let real = std::fs::read_to_string(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        let ours = written(|out| hist::write(out, &read_histogram(&real, threads), has_sum));
        assert_eq!(ours, real, "{args:?}");
    }
}

#[test]
#[ignore = "needs root, and rt-tests"]
fn thread_lines_are_cyclictests_to_the_byte() {
    for (args, unit) in [
        (&["-q", "-l20", "-t2"][..], Unit::Us),
        (&["-q", "-l20", "-t2", "-N"][..], Unit::Ns),
    ] {
        let real = rt_tests("cyclictest", args);
        let real: String = real
            .lines()
            .filter(|l| l.starts_with("T:"))
            .map(|l| format!("{l}\n"))
            .collect();
        let all: Vec<Series> = real
            .lines()
            .map(|line| {
                let n = numbers(line);
                let mut s = series("timer", &[]);
                s.sender = info(&n[1..3]);
                s.interval_ns = n[3] * 1_000;
                s.counts.received = n[4];
                [s.min_ns, s.last_ns, s.max_ns] = [n[5], n[6], n[8]].map(|n| n * unit.ns());
                s.sum_ns = u128::from(n[7] * unit.ns() * n[4]);
                s
            })
            .collect();
        assert_eq!(all.len(), 2);
        assert_eq!(written(|out| text::summary(out, &all, unit)), real);
    }
}

#[test]
#[ignore = "needs root, and rt-tests"]
fn pair_lines_are_those_of_pmqtest_and_sigwaittest_to_the_byte() {
    for (program, name) in [
        ("pmqtest", "mq"),
        ("sigwaittest", "signal"),
        ("ptsematest", "sem"),
    ] {
        let real = rt_tests(program, &["-q", "-l20", "-t2"]);
        let lines: Vec<&str> = real.lines().collect();
        let all: Vec<Series> = (0..2)
            .map(|i| {
                let (who, times) = (numbers(lines[i]), numbers(lines[i + 2]));
                let mut s = series(name, &[]);
                // Receiver: number, ID, P, CPU, I; sender: number, ID, P, CPU, of pmqtest TO,
                // Cycles.
                (s.receiver, s.sender) = (info(&who[1..4]), info(&who[6..9]));
                s.interval_ns = who[4] * 1_000;
                s.counts.received = who[who.len() - 1];
                [s.min_ns, s.last_ns, s.max_ns] = [times[2], times[3], times[5]].map(|n| n * 1_000);
                s.sum_ns = u128::from(times[4] * 1_000 * s.counts.received);
                s
            })
            .collect();
        assert_eq!(
            written(|out| text::summary(out, &all, Unit::Us)),
            real,
            "{program}"
        );
    }
}

/// All keys with their depth and kind, in order.
fn shape(value: &Value, path: &str, found: &mut Vec<String>) {
    if let Value::Object(map) = value {
        for (key, below) in map {
            let path = format!("{path}/{}", key.trim_end_matches(':'));
            // The bins depend on the measured values.
            if !path.ends_with("/histogram") {
                shape(below, &path, found);
            }
            found.push(path);
        }
    }
}

#[test]
#[ignore = "needs root, and rt-tests"]
fn json_has_every_key_of_rt_tests_where_they_have_it() {
    let timer = ("cyclictest", "timer");
    for (program, name) in [timer, ("pmqtest", "mq"), ("sigwaittest", "signal")] {
        let file =
            std::env::temp_dir().join(format!("rtlat-{}-{program}.json", std::process::id()));
        let json_arg = format!("--json={}", file.display());
        rt_tests(program, &["-q", "-l20", "-t2", &json_arg]);
        let real: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        std::fs::remove_file(&file).unwrap();
        let all = [series(name, &[1_000]), series(name, &[2_000])];
        let ours = written(|out| json::write(out, &Run::default(), &Host::read(), &all));
        let ours: Value = serde_json::from_str(&ours).unwrap();
        assert_eq!(ours["sysinfo"], real["sysinfo"]);
        let (mut wanted, mut found) = (Vec::new(), Vec::new());
        shape(&real, "", &mut wanted);
        shape(&ours, "", &mut found);
        let missing: Vec<&String> = wanted.iter().filter(|key| !found.contains(key)).collect();
        assert!(missing.is_empty(), "{program}: {missing:?}");
    }
}
