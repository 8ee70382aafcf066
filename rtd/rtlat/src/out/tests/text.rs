//! Lines of text and histogram files.

use super::builder::{neighbours, series, with_bins, written};
use crate::out::{Unit, date, hist, text};
use crate::series::{Counts, Culprit};

#[test]
fn a_timer_has_cyclictests_line() {
    let mut timer = series("timer", &[9_000, 20_999, 30_000]);
    timer.sender.tid = 7842;
    let all = [timer];
    let us = written(|out| text::summary(out, &all, Unit::Us));
    assert_eq!(
        us,
        "T: 0 ( 7842) P:80 I:1000 C:      3 Min:      9 Act:   30 Avg:   19 Max:      30\n"
    );
    let ns = written(|out| text::summary(out, &all, Unit::Ns));
    assert_eq!(
        ns,
        "T: 0 ( 7842) P:80 I:1000 C:      3 Min:   9000 Act:   30000 Avg:   19999 Max:   30000\n"
    );
}

#[test]
fn a_pair_has_two_lines_and_mq_its_timeouts() {
    let mut mq = series("mq", &[1_900, 2_000, 4_800]);
    mq.counts = Counts {
        scheduled: 5,
        sent: 4,
        received: 3,
        missed: 1,
        lost: 1,
    };
    let all = [mq, series("signal", &[1_000])];
    let lines = written(|out| text::summary(out, &all, Unit::Us));
    assert_eq!(
        lines,
        "#0: ID100, P79, CPU0, I1000; #1: ID101, P80, CPU1, TO 1, Cycles 4\n\
         #2: ID100, P79, CPU0, I1000; #3: ID101, P80, CPU1, Cycles 1\n\
         #1 -> #0, Min    1, Cur    4, Avg    3, Max    4\n\
         #3 -> #2, Min    1, Cur    1, Avg    1, Max    1\n"
    );
}

#[test]
fn what_rt_tests_do_not_know_is_behind_a_hash_and_a_blank() {
    let mut mq = series("mq", &[1_900, 2_000, 153_200]);
    let trace = "trace frozen\nsee /sys/kernel/tracing/trace".to_owned();
    mq.culprit = Some(Culprit {
        bound_ns: 100_000,
        samples: neighbours(),
        index: 1,
        trace,
    });
    let lines = written(|out| text::details(out, &[mq, series("timer", &[])], Unit::Us));
    assert!(lines.lines().all(|line| line.starts_with("# ")), "{lines}");
    let wanted = [
        "# 0 mq: scheduled 3, achieved 3, missed 0, received 3, lost 0, 64 B",
        "#   us               p50        p90        p99      p99.9     p99.99        max",
        "#   raw             2.00     153.20     153.20     153.20     153.20     153.20",
        "# 0 mq: number 1 took 153.20 us, more than the 100.00 us of -b",
        "#          number     intended         sent     received          raw    corrected  (us)",
        "#               0         0.00         0.00         3.00         3.00         3.00",
        "# >             1      1000.00      1001.50      1154.70       153.20       154.70",
        "# trace frozen",
        "# see /sys/kernel/tracing/trace",
    ];
    for line in wanted {
        assert!(lines.lines().any(|l| l == line), "no {line:?} in\n{lines}");
    }
}

#[test]
fn a_break_has_cyclictests_lines_once_with_the_thread_that_broke_first() {
    let broken = |tid, later_ns: u64| {
        let mut one = series("timer", &[3_000]);
        one.receiver.tid = tid;
        let mut samples = neighbours();
        samples[1].received_ns += later_ns;
        one.culprit = Some(Culprit {
            bound_ns: 100_000,
            samples,
            index: 1,
            trace: String::new(),
        });
        one
    };
    let of = |all: &[crate::series::Series]| written(|out| text::break_lines(out, all, Unit::Us));
    let lines = of(&[broken(29_760, 5_000), broken(97, 0), series("timer", &[])]);
    assert_eq!(
        lines,
        "# Thread Ids: 29760 00097 00101\n# Break thread: 97\n# Break value: 153\n"
    );
    assert_eq!(of(&[series("timer", &[])]), "# Thread Ids: 00101\n");
}

#[test]
fn a_signal_there_and_back_has_signaltests_line() {
    let mut ring = series("signal", &[1_000, 3_000]);
    ring.is_round_trip = true;
    let lines = written(|out| text::summary(out, &[ring, series("signal", &[1_000])], Unit::Us));
    let wanted = "T: 0 (  101) P:80 C:      2 Min:      1 Act:    3 Avg:    2 Max:       3\n\
                  #2: ID100, P79, CPU0, I1000; #3: ID101, P80, CPU1, Cycles 1\n\
                  #3 -> #2, Min    1, Cur    1, Avg    1, Max    1\n";
    assert_eq!(lines, wanted);
}

#[test]
fn percentiles_do_not_exceed_the_maximum() {
    let lines = written(|out| text::details(out, &[series("timer", &[1_234_567])], Unit::Ns));
    let row = format!(
        "#   {:9}{}",
        "corrected",
        format!("{:>11}", 1_234_567).repeat(6)
    );
    assert!(lines.lines().any(|l| l == row), "{lines}");
}

#[test]
fn a_line_of_every_sample_is_cyclictests() {
    assert_eq!(
        text::verbose_line(1, 42, 34_999, Unit::Us),
        "       1:      42:      34\n"
    );
}

#[test]
fn a_histogram_counts_what_is_past_its_end() {
    let ns = [500, 1_500, 2_999, 70_000];
    let all = [
        with_bins(series("mq", &ns), &ns, 3),
        with_bins(series("mq", &[2_000]), &[2_000], 3),
    ];
    let text = written(|out| hist::write(out, &all, true));
    assert_eq!(
        text,
        "# Histogram\n\
         000000 000001\t000000\t000001\n\
         000001 000001\t000000\t000001\n\
         000002 000001\t000001\t000002\n\
         # Total: 000000003 000000001 000000004\n\
         # Min Latencies: 00000 00002\n\
         # Avg Latencies: 00018 00002\n\
         # Max Latencies: 00070 00002 00070\n\
         # Histogram Overflows: 00001 00000 00001\n\
         # Histogram Overflow at cycle number:\n\
         # Thread 0: 00003\n\
         # Thread 1:\n\n"
    );
}

#[test]
fn dates_are_those_of_rfc_2822() {
    let at = |seconds: u64| date::rfc2822(seconds * 1_000_000_000);
    assert_eq!(at(0), "Thu, 01 Jan 1970 00:00:00 +0000");
    assert_eq!(at(951_782_400), "Tue, 29 Feb 2000 00:00:00 +0000");
    assert_eq!(at(1_795_373_873), "Sun, 22 Nov 2026 18:57:53 +0000");
    assert_eq!(at(4_107_542_399), "Sun, 28 Feb 2100 23:59:59 +0000");
    assert_eq!(at(4_107_542_400), "Mon, 01 Mar 2100 00:00:00 +0000");
    assert_eq!(date::rfc2822(u64::MAX).get(12..16), Some("2554"));
}
