//! The lines that are drawn over themselves.

use std::time::Duration;

use super::builder::series;
use crate::out::Unit;
use crate::out::live::{Goal, Live, Progress, is_wanted};

fn draw(goal: Goal, all: &[Progress], elapsed_s: u64, times: usize) -> String {
    let mut out = Vec::new();
    let mut live = Live::new(
        &mut out,
        vec!["timer".to_owned(), "mq".to_owned()],
        goal,
        Unit::Us,
    );
    for _ in 0..times {
        live.draw(all, Duration::from_secs(elapsed_s)).unwrap();
    }
    live.finish().unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn lines_are_drawn_over_the_ones_before() {
    let all = [
        Progress::of(&series("timer", &[1_000]), 0),
        Progress::of(&series("mq", &[1_000]), 1),
    ];
    let drawn = draw(Goal::default(), &all, 3, 2);
    // A timer's line, the two of a pair, and the progress: up by four before the second time and
    // before the end.
    assert_eq!(drawn.matches("\x1b[4A\r").count(), 2, "{drawn:?}");
    assert!(drawn.starts_with("\x1b[?7lT: 0 (  101) P:80 "), "{drawn:?}");
    assert!(drawn.contains("\n#3 -> #2, Min    1,"), "{drawn:?}");
    assert!(drawn.ends_with("\x1b[4A\r\x1b[J"), "{drawn:?}");
}

#[test]
fn the_remaining_time_is_that_of_the_bound_that_comes_first() {
    let mut progress = Progress::of(&series("timer", &[1_000]), 0);
    (progress.scheduled, progress.count) = (250, 240);
    let of = |goal: Goal, elapsed_s: u64| draw(goal, &[progress], elapsed_s, 1);
    let minute = Some(Duration::from_secs(60));
    let cases = [
        (
            Goal {
                loops: 0,
                duration: minute,
            },
            12,
            "# 00:00:12, 20 %, 00:00:48 to go, 10 behind the schedule",
        ),
        (
            Goal {
                loops: 1_000,
                duration: minute,
            },
            12,
            "# 00:00:12, 25 %, 00:00:36 to go, 10 behind",
        ),
        (
            Goal {
                loops: 100,
                duration: None,
            },
            12,
            "# 00:00:12, 100 %, 00:00:00 to go,",
        ),
        (
            Goal {
                loops: 0,
                duration: minute,
            },
            0,
            "# 00:00:00, 0 %, 10 behind",
        ),
        (
            Goal::default(),
            4_000,
            "# 01:06:40, ends with Ctrl-C, 10 behind",
        ),
    ];
    for (goal, elapsed_s, wanted) in cases {
        let drawn = of(goal, elapsed_s);
        assert!(drawn.contains(wanted), "{wanted:?} in {drawn:?}");
    }
}

#[test]
fn a_pipe_and_a_quiet_run_see_no_lines_before_the_end() {
    assert!(is_wanted(false, true));
    assert!(!is_wanted(true, true) && !is_wanted(false, false));
}
