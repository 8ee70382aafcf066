//! Pictures of ordinary and of extreme measurements. With `RTLAT_PICTURES=DIR` in the environment
//! they are kept there for inspection.

use super::comparison::comparison;
use super::histogram::{Extent, extent, histogram};
use super::percentiles::percentiles;
use super::*;
use crate::report::samples::{self, Random};
use crate::series::Series;

fn keep(name: &str, svg: &str) {
    if let Some(directory) = std::env::var_os("RTLAT_PICTURES") {
        std::fs::write(
            std::path::Path::new(&directory).join(format!("{name}.svg")),
            svg,
        )
        .unwrap();
    }
}

/// Well-formed as far as tags and forbidden characters go, bounded, and nothing outside the
/// picture.
fn check(name: &str, svg: &str) {
    keep(name, svg);
    assert!(
        svg.starts_with("<svg width=\"960\" ") && svg.trim_end().ends_with("</svg>"),
        "{name}"
    );
    assert!(svg.len() < 2_000_000, "{name}: {} bytes", svg.len());
    assert!(!svg.contains("NaN") && !svg.contains("inf\""), "{name}");
    assert!(!svg.chars().any(|c| c.is_control() && c != '\n'), "{name}");
    assert_eq!(
        svg.matches("<text").count(),
        svg.matches("</text>").count(),
        "{name}"
    );
    for size in svg.split("font-size=\"").skip(1) {
        let px: f64 = size.split('"').next().unwrap().parse().unwrap();
        assert!(px >= 12.0, "{name}: text of {px} px");
    }
    let height: i64 = svg
        .split("height=\"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    for (key, limit) in [(" x=\"", 960), (" y=\"", height)] {
        for text in svg.split("<text").skip(1) {
            let at: i64 = text
                .split(key)
                .nth(1)
                .unwrap()
                .split('"')
                .next()
                .unwrap()
                .parse()
                .unwrap();
            assert!((0..=limit).contains(&at), "{name}: text at {at} of {limit}");
        }
    }
}

fn both(name: &str, series: &[Series]) {
    let series: Vec<&Series> = series.iter().collect();
    let figure = |title| Figure {
        title,
        series: &series,
        places: &[],
        sisters: &series,
    };
    check(
        &format!("histogram-{name}"),
        &histogram(&figure("Latency histogram")).unwrap(),
    );
    check(
        &format!("percentiles-{name}"),
        &percentiles(&figure("Latency percentiles")).unwrap(),
    );
}

/// Corrected as if the sender had been held up at times.
fn held_up(mut series: Series, random: &mut Random) -> Series {
    for _ in 0..60 {
        series
            .corrected
            .saturating_record(40_000 + random.next() % 3_000_000);
    }
    series
}

#[test]
fn ordinary_series_make_pictures() {
    let mut random = Random(1);
    let one = samples::series("timer", &random.latencies(3200.0, 100_000));
    both("one", &[held_up(one, &mut random)]);
    let cpus = (0..4).map(|cpu| {
        let median = 2500.0 + 600.0 * f64::from(u32::try_from(cpu).unwrap());
        let mut one = samples::series("timer", &random.latencies(median, 50_000));
        (one.pair, one.receiver.cpu) = (cpu, Some(cpu));
        one
    });
    both("four", &cpus.collect::<Vec<_>>());
}

#[test]
fn extreme_series_make_pictures() {
    let mut random = Random(2);
    both("none", &[]);
    both("no-samples", &[samples::series("mq", &[])]);
    both("one-sample", &[samples::series("mq", &[2700])]);
    both("one-second", &[samples::series("mq", &[1_000_000_000])]);
    both("equal", &[samples::series("mq", &[2700; 1000])]);
    both("zero", &[samples::series("mq", &[0; 10])]);
    let mut outlier = random.latencies(2000.0, 100_000);
    outlier.push(1_000_000_000);
    both("outlier", &[samples::series("mq", &outlier)]);
    let eight = (0..8).map(|at| {
        let name = format!("a process <with> \"a & long\" \x1b[31m name of its own, number {at}");
        let mut one = samples::series(&name, &random.latencies(2000.0 * 1.4f64.powi(at), 20_000));
        one.pair = 7;
        one
    });
    both("eight", &eight.collect::<Vec<_>>());
    let many = (0..64).map(|at| {
        let mut one = samples::series("timer", &random.latencies(3000.0, 2000));
        one.pair = at;
        one
    });
    both("many", &many.collect::<Vec<_>>());
}

#[test]
fn comparisons_make_pictures() {
    let mut all = samples::comparison(3, 20);
    check(
        "comparison",
        &comparison("Comparison of paths", &all).unwrap(),
    );
    all.rows.truncate(1);
    check(
        "comparison-one",
        &comparison("One path in one placement", &all).unwrap(),
    );
    all.rows.clear();
    check("comparison-none", &comparison("Nothing", &all).unwrap());
    let mut extreme = samples::comparison(4, 3);
    extreme.rows[2].paced = samples::series("x", &[]);
    extreme.rows[2].busy = samples::series("x", &[]);
    extreme.rows[4].paced = samples::series("x", &[1_000_000_000, 2000, 2000]);
    extreme.rows[6].path = "a very long path -> to somewhere & \"far\" <away> beyond".to_owned();
    check(
        "comparison-extreme",
        &comparison("Extremes", &extreme).unwrap(),
    );
}

#[test]
fn outliers_do_not_squeeze_the_rest() {
    let mut latencies = vec![2000; 10_000];
    latencies.push(1_000_000_000);
    let far = samples::series("mq", &latencies);
    assert_eq!(
        extent(&[&far]),
        Extent {
            end_us: 100,
            bin_us: 1
        }
    );
    let near = samples::series("mq", &[2000, 3000, 180_000]);
    assert_eq!(extent(&[&near]).bin_us, 1);
    assert!((180..=182).contains(&extent(&[&near]).end_us));
    let slow = samples::series("mq", &[2_000_000, 3_000_000]);
    assert_eq!(extent(&[&slow]).bin_us, 5);
}

#[test]
fn an_outlier_is_an_arrow_with_its_value() {
    let mut latencies = vec![2000; 10_000];
    latencies.push(1_000_000_000);
    let far = [&samples::series("mq", &latencies)];
    let figure = Figure {
        title: "",
        series: &far,
        places: &[],
        sisters: &far,
    };
    for (name, picture) in [
        ("histogram", histogram(&figure)),
        ("percentiles", percentiles(&figure)),
    ] {
        let picture = picture.unwrap();
        assert!(
            picture.contains("<polygon") && picture.contains("1\u{2009}000\u{2009}000 us"),
            "{name}"
        );
        assert!(
            !picture.contains("10\u{2009}000\u{2009}000"),
            "{name}: the axis goes to the outlier"
        );
    }
    let mut all = samples::comparison(4, 3);
    assert!(!comparison("", &all).unwrap().contains("<polygon"));
    all.rows[4].paced = samples::series("x", &[1_000_000_000, 2000, 2000]);
    assert!(comparison("", &all).unwrap().contains("<polygon"));
}

#[test]
fn sisters_have_the_same_axes_and_a_series_one_colour() {
    let (fast, slow) = (
        samples::series("a", &[2000; 100]),
        samples::series("b", &[2_000_000; 100]),
    );
    let all = [&fast, &slow];
    let axis = |series: &[&Series], places: &[usize]| {
        let picture = percentiles(&Figure {
            title: "",
            series,
            places,
            sisters: &all,
        })
        .unwrap();
        let labels: Vec<String> = picture
            .split("text-anchor=\"end\"")
            .skip(1)
            .map(|text| text[..40].to_owned())
            .take(4)
            .collect();
        (labels, picture)
    };
    let ((a, _), (b, second)) = (axis(&all[..1], &[0]), axis(&all[1..], &[1]));
    assert_eq!(a, b);
    assert!(
        second.contains("#D55E00") && !second.contains("#0072B2"),
        "the second colour is b's"
    );
}

#[test]
fn numbers_have_the_decimals_they_deserve() {
    assert_eq!(
        [0.0, 0.06, 2.65, 2.0, 0.001, 25.3].map(number),
        ["0", "0.06", "2.65", "2", "0.001", "25"]
    );
    assert_eq!(number(1234.0), "1\u{2009}234");
    assert_eq!(number(1_000_000.0), "1\u{2009}000\u{2009}000");
    assert_eq!(
        [2.0, 9.997, 25.34, 99.97, 253.4, 12_345.6, 2.5e6].map(us_text),
        [
            "2.00",
            "10.0",
            "25.3",
            "100",
            "253",
            "12\u{2009}300",
            "2\u{2009}500\u{2009}000"
        ]
    );
}

#[test]
fn scales_contain_their_data_and_label_both_ends() {
    for (low, high) in [
        (0.05, 0.06),
        (1.0, 3.0),
        (2.0, 1_000_000.0),
        (7.0, 7.0),
        (0.0, 0.0),
    ] {
        let scale = log_us(low, high, "");
        assert!(scale.low < scale.high, "{low} {high}");
        assert!(
            scale.low <= f64::max(low, 0.001).log10() + 1e-3 && scale.high >= high.log10() - 1e-3
        );
        assert!(
            (2..=13).contains(&scale.ticks.len()),
            "{low} {high}: {:?}",
            scale.ticks
        );
    }
    for high in [0.5, 1.0, 10.0, 57.0, 1000.0, 60_000_000.0] {
        let scale = linear_us(high, "");
        assert!(
            (1..=11).contains(&scale.ticks.len()),
            "{high}: {:?}",
            scale.ticks
        );
    }
}
