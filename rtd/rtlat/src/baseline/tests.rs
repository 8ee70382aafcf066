use super::*;
use crate::report::machine::Fact;
use crate::report::samples::{Random, ns, series, turns};
use crate::series::Row;
use std::path::PathBuf;

const PATHS: [(&str, f64); 6] = [
    ("mq", 2700.0),
    ("signal", 3500.0),
    ("futex", 2600.0),
    ("pipe", 2500.0),
    ("mq -> mq", 5100.0),
    ("lane routed", 4000.0),
];

/// Noise of a path's and of the reference's times that makes one of 5 % of their ratio.
const NOISE: f64 = 0.05 / std::f64::consts::SQRT_2;

/// A file of the test's own that goes when it goes.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        Scratch(std::env::temp_dir().join(format!("rtlat-baseline-{}-{name}", std::process::id())))
    }

    fn holding(name: &str, text: &str) -> Scratch {
        let scratch = Scratch::new(name);
        std::fs::write(&scratch.0, text).unwrap();
        scratch
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A run of all paths in both placements; `factor` says how much slower each is than usual.
fn run(
    random: &mut Random,
    turn_count: usize,
    noise: f64,
    factor: impl Fn(&str, Placement) -> f64,
) -> Comparison {
    let mut rows = Vec::new();
    for placement in PLACEMENTS {
        for (path, usual) in PATHS {
            let median = usual
                * factor(path, placement)
                * if placement == Placement::Same {
                    1.0
                } else {
                    9.0
                };
            rows.push(Row {
                path: path.to_owned(),
                placement,
                paced: series(path, &[]),
                busy: series(path, &[]),
                turns: turns(random, median, median * 0.7, noise, turn_count),
            });
        }
    }
    let (interval_ns, payload_bytes, priority, lane_priority) = (1_000_000, 64, 80, 85);
    Comparison {
        rows,
        interval_ns,
        payload_bytes,
        priority,
        lane_priority,
        load: "none".to_owned(),
    }
}

/// Judges without a file in between.
fn verdict(then: &Comparison, now: &Comparison) -> Verdict {
    let scratch = Scratch::new(&format!("{:p}-{:p}", then, now));
    save(then, &Machine::default(), &scratch.0).unwrap();
    against(now, &Machine::default(), &scratch.0).unwrap()
}

fn unchanged(_: &str, _: Placement) -> f64 {
    1.0
}

fn error(now: &Comparison, scratch: &Scratch) -> String {
    let e = against(now, &Machine::default(), &scratch.0).unwrap_err();
    let text = format!("{e:#}");
    assert!(
        text.contains(scratch.0.to_str().unwrap()),
        "names the file: {text}"
    );
    text
}

#[test]
fn nothing_changed_is_the_same_in_all_but_one_of_a_hundred_runs() {
    let mut random = Random(11);
    let mut alarms = 0;
    for _ in 0..200 {
        let (then, now) = (
            run(&mut random, 20, NOISE, unchanged),
            run(&mut random, 20, NOISE, unchanged),
        );
        let verdict = verdict(&then, &now);
        assert_eq!(verdict.rows.len(), 10);
        alarms += u32::from(
            verdict
                .figures()
                .any(|figure| figure.judgement != Judgement::Same),
        );
    }
    assert!(f64::from(alarms) <= 200.0 * ALPHA, "{alarms} false alarms");
}

#[test]
fn p_values_of_equal_distributions_are_spread_evenly() {
    let mut random = Random(12);
    let mut below = [0.0; 2];
    for _ in 0..1000 {
        let mut lot = || -> Vec<f64> { (0..15).map(|_| random.uniform()).collect() };
        let p = rank::mann_whitney(&lot(), &lot()).p;
        below[0] += f64::from(u8::from(p <= 0.05)) / 1000.0;
        below[1] += f64::from(u8::from(p <= 0.5)) / 1000.0;
    }
    assert!(
        (0.035..0.06).contains(&below[0]) && (0.46..0.53).contains(&below[1]),
        "{below:?}"
    );
}

#[test]
fn ten_percent_are_found_among_five_percent_of_noise_and_nothing_else_is() {
    let mut random = Random(13);
    let mut found = 0;
    for _ in 0..25 {
        let then = run(&mut random, 20, NOISE, unchanged);
        let now = run(&mut random, 20, NOISE, |path, placement| {
            match (path, placement) {
                ("mq -> mq", Placement::Same) => 1.10,
                ("lane routed", Placement::Other) => 0.90,
                _ => 1.0,
            }
        });
        let verdict = verdict(&then, &now);
        let of = |path: &str, placement| {
            let row = verdict
                .rows
                .iter()
                .find(|row| row.path == path && row.placement == placement)
                .unwrap();
            [row.paced.judgement, row.busy.judgement]
        };
        let hits = of("mq -> mq", Placement::Same)
            .iter()
            .filter(|found| **found == Judgement::Worse)
            .count()
            + of("lane routed", Placement::Other)
                .iter()
                .filter(|found| **found == Judgement::Better)
                .count();
        found += hits;
        assert_eq!(verdict.is_worse(), verdict.text(None).contains("worse"));
        let others = verdict
            .figures()
            .filter(|figure| figure.judgement != Judgement::Same)
            .count();
        assert!(others <= hits + 1, "{}", verdict.text(None));
    }
    assert!(found >= 95, "{found} of 100");
}

#[test]
fn a_machine_that_is_half_as_fast_changes_no_ratio() {
    let mut random = Random(14);
    let then = run(&mut random, 20, 0.05, unchanged);
    let now = run(&mut random, 20, 0.05, |_, _| 2.0);
    assert!(!verdict(&then, &now).is_worse());
}

#[test]
fn a_certain_change_too_small_to_matter_is_the_same() {
    let mut random = Random(15);
    let then = run(&mut random, 30, 0.001, unchanged);
    let now = run(&mut random, 30, 0.001, |path, _| {
        if path == "futex" { 1.02 } else { 1.0 }
    });
    let verdict = verdict(&then, &now);
    let futex = verdict.rows.iter().find(|row| row.path == "futex").unwrap();
    assert!(futex.paced.p < 1e-9);
    assert_eq!(futex.paced.judgement, Judgement::Same);
}

#[test]
fn with_few_turns_there_is_no_verdict() {
    let mut random = Random(16);
    let twice = |path: &str, _| if path == "signal" { 2.0 } else { 1.0 };
    let few = verdict(
        &run(&mut random, 3, 0.01, unchanged),
        &run(&mut random, 20, 0.01, twice),
    );
    assert!(few.is_empty() && !few.is_worse());
    assert_eq!(few.rows[0].paced.judgement, Judgement::TooFew(8));
    assert!(
        few.text(None).contains("too few turns (needs 8)"),
        "{}",
        few.text(None)
    );
    let enough = verdict(
        &run(&mut random, 8, 0.01, unchanged),
        &run(&mut random, 8, 0.01, twice),
    );
    assert!(enough.is_worse(), "{}", enough.text(None));
    let none = verdict(
        &run(&mut random, 0, 0.01, unchanged),
        &run(&mut random, 0, 0.01, unchanged),
    );
    assert!(none.is_empty() && none.rows[0].paced.then.is_none());
}

#[test]
fn a_path_that_delivers_nothing_is_worse_and_one_that_does_again_is_better() {
    let mut random = Random(17);
    let then = run(&mut random, 20, 0.05, unchanged);
    let mut now = run(&mut random, 20, 0.05, unchanged);
    now.rows[4]
        .turns
        .iter_mut()
        .for_each(|turn| turn.paced_p50_ns = 0);
    let dead = verdict(&then, &now);
    let row = dead
        .rows
        .iter()
        .find(|row| row.path == now.rows[4].path)
        .unwrap();
    assert_eq!(
        (row.paced.judgement, row.busy.judgement),
        (Judgement::Worse, Judgement::Same)
    );
    assert!(dead.text(None).contains("nothing"), "{}", dead.text(None));
    let back = verdict(&now, &then);
    assert!(
        !back.is_worse()
            && back
                .figures()
                .any(|figure| figure.judgement == Judgement::Better)
    );
    assert!(!verdict(&now, &now).is_worse());
}

#[test]
fn rows_of_one_run_only_are_named() {
    let mut random = Random(18);
    let (mut then, mut now) = (
        run(&mut random, 20, 0.05, unchanged),
        run(&mut random, 20, 0.05, unchanged),
    );
    then.rows.retain(|row| row.path != "pipe");
    now.rows
        .retain(|row| row.path != "futex" || row.placement == Placement::Same);
    let verdict = verdict(&then, &now);
    assert_eq!(verdict.rows.len(), 7);
    let text = verdict.text(None);
    assert!(
        text.contains("Only in the baseline: futex, other CPU."),
        "{text}"
    );
    assert!(
        text.contains("Not in the baseline: pipe, same CPU."),
        "{text}"
    );
    assert!(!text.contains("futex, same CPU."), "{text}");
}

#[test]
fn a_run_under_other_conditions_is_refused_with_the_reason() {
    let mut random = Random(19);
    let mut now = run(&mut random, 20, 0.05, unchanged);
    let scratch = Scratch::new("conditions");
    save(&now, &Machine::default(), &scratch.0).unwrap();
    (now.interval_ns, now.payload_bytes, now.load) = (250_000, 8, "cpu:2".to_owned());
    let text = error(&now, &scratch);
    for reason in [
        "the interval was 1000.00 us and is 250.00 us",
        "the payload was 64 B and is 8 B",
        "\"cpu:2\"",
    ] {
        assert!(text.contains(reason), "{text}");
    }
    assert!(!text.contains("priority"), "{text}");
}

#[test]
fn without_the_reference_there_is_nothing_to_divide_by() {
    let mut random = Random(20);
    let all = run(&mut random, 20, 0.05, unchanged);
    let scratch = Scratch::new("reference");
    save(&all, &Machine::default(), &scratch.0).unwrap();
    let mut now = all;
    now.rows.retain(|row| row.path != "mq");
    assert!(error(&now, &scratch).contains("this run has no path mq, same CPU"));
}

#[test]
fn hostile_files_are_errors_that_name_the_file() {
    let now = run(&mut Random(21), 2, 0.05, unchanged);
    let scratch = Scratch::new("good");
    save(&now, &Machine::default(), &scratch.0).unwrap();
    let good = std::fs::read_to_string(&scratch.0).unwrap();
    let gone = error(&now, &Scratch::new("absent"));
    assert!(gone.contains("No such file"), "{gone}");
    let other = good.replacen("\"format\": 1", "\"format\": 7", 1);
    assert!(
        error(&now, &Scratch::holding("format", &other))
            .contains("its format is 7, this rtlat reads 1")
    );
    let twice = good.replacen("\"signal\"", "\"mq\"", 1);
    assert!(error(&now, &Scratch::holding("twice", &twice)).contains("is there twice"));
    let long = good.replacen("\"pipe\"", &format!("\"{}\"", "x".repeat(300)), 1);
    assert!(error(&now, &Scratch::holding("long", &long)).contains("300 bytes"));
    for (at, broken) in [
        "",
        "{",
        "[]",
        "null",
        "{\"format\":1}",
        "\u{0}\u{1}",
        &"[".repeat(100_000),
    ]
    .into_iter()
    .chain([&good[..good.len() / 2]])
    .enumerate()
    {
        error(&now, &Scratch::holding(&format!("broken-{at}"), broken));
    }
    let huge = good.replacen("\"paced_p50_ns\": ", "\"paced_p50_ns\": -", 1);
    error(&now, &Scratch::holding("negative", &huge));
    let large = format!("{good}{}", " ".repeat(17 << 20));
    assert!(error(&now, &Scratch::holding("large", &large)).contains("more than"));
}

#[test]
fn figures_at_the_ends_of_their_range_do_not_break_the_arithmetic() {
    let mut then = run(&mut Random(22), 10, 0.05, unchanged);
    for (at, row) in then.rows.iter_mut().enumerate() {
        let value = if at % 2 == 0 { u64::MAX } else { 1 };
        row.turns
            .iter_mut()
            .for_each(|turn| (turn.paced_p50_ns, turn.busy_p50_ns) = (value, 0));
    }
    let now = run(&mut Random(23), 10, 0.05, unchanged);
    let text = verdict(&then, &now).text(None);
    assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
}

#[test]
fn another_machine_is_a_note_not_a_refusal() {
    let now = run(&mut Random(24), 10, 0.05, unchanged);
    let machine = |kernel: &str| Machine {
        facts: vec![Fact {
            name: "kernel".to_owned(),
            value: kernel.to_owned(),
        }],
        degraded: Vec::new(),
    };
    let scratch = Scratch::new("machine");
    save(&now, &machine("6.1.0\x1b[2J"), &scratch.0).unwrap();
    let mut other = machine("6.18.0");
    other.degraded.push("no SCHED_FIFO".to_owned());
    let verdict = against(&now, &other, &scratch.0).unwrap();
    assert_eq!(verdict.notes.len(), 2, "{:?}", verdict.notes);
    let text = verdict.text(None);
    assert!(
        text.contains("was 6.1.0\u{fffd}[2J, and is 6.18.0."),
        "{text}"
    );
    assert!(
        text.contains("This run was degraded, the baseline was not."),
        "{text}"
    );
}

#[test]
fn medians_are_of_the_middle() {
    assert_eq!(median(&[]), None);
    assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
    assert_eq!(median(&[1.0, 2.0]), Some(1.5));
    assert_eq!(median(&[f64::INFINITY; 2]), Some(f64::INFINITY));
    assert_eq!(median(&[1.0, f64::INFINITY]), Some(f64::INFINITY));
    assert_eq!(ns(-1.0), 0);
}
