//! The presentation of a measurement in addition to lines of text: tables, pictures, the machine, a
//! page of HTML.
//!
//! Constraint: names of processes, paths and command lines come from elsewhere and may hold
//! anything; all shown text has passed [`clean`], and the SVG and HTML writers escape it.
//! Invariant: everything here is computed from a finished [`Series`] or [`Comparison`]; nothing
//! measures.

pub mod files;
pub mod html;
pub mod machine;
pub mod plot;
pub mod table;

use super::series::{Comparison, Placement, Row, Series};
use rtcore::sys::printable::printable_char;

/// Both placements, in the order of every table and picture.
pub const PLACEMENTS: [Placement; 2] = [Placement::Same, Placement::Other];

/// Nanoseconds as microseconds with two decimals, for columns.
pub fn us(ns: u64) -> String {
    let hundredths = ns.saturating_add(5) / 10;
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

/// `us`, or `-` where there was no sample.
pub fn us_of(series: &Series, ns: u64) -> String {
    if series.counts.received == 0 {
        "-".to_owned()
    } else {
        us(ns)
    }
}

/// Largest corrected latency. The histogram rounds its largest up to the end of a bucket; the raw
/// one is known exactly.
pub fn corrected_max_ns(series: &Series) -> u64 {
    if series.corrected.max() == series.raw.max() {
        series.max_ns
    } else {
        series.corrected.max()
    }
}

/// A quantile of the raw latencies; see [`corrected_max_ns`] for why it is held below the largest.
pub fn raw_at(series: &Series, quantile: f64) -> u64 {
    series.raw.value_at_quantile(quantile).min(series.max_ns)
}

/// A quantile of the corrected latencies.
pub fn corrected_at(series: &Series, quantile: f64) -> u64 {
    series
        .corrected
        .value_at_quantile(quantile)
        .min(corrected_max_ns(series))
}

/// A ratio as it stands in a column; `-` for none.
pub fn ratio(ratio: Option<f64>) -> String {
    ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"))
}

/// [`printable`](rtcore::sys::printable::printable) text, at most `chars_max` characters.
pub fn clean(text: &str, chars_max: usize) -> String {
    let mut out: String = text.chars().take(chars_max).map(printable_char).collect();
    if text.chars().nth(chars_max).is_some() {
        out.pop();
        out.push('…');
    }
    out
}

/// The label of a series among `all`: its name, with its number if another has the same name.
pub fn label(series: &Series, all: &[&Series], chars_max: usize) -> String {
    if all.iter().filter(|other| other.name == series.name).count() < 2 {
        return clean(&series.name, chars_max);
    }
    let number = format!(" {}", series.pair);
    clean(&series.name, chars_max.saturating_sub(number.len())) + &number
}

/// Whether a path of a comparison goes through rtd or was set up by it, as its name says.
pub fn is_routed(path: &str) -> bool {
    path.contains("->") || path.starts_with("lane") || path.starts_with("route")
}

/// The paths of a comparison, each once: raw mechanisms first, inside a group by the median of the
/// first placement that has it.
pub fn paths(comparison: &Comparison) -> Vec<&str> {
    let mut paths: Vec<(&str, u64)> = Vec::new();
    for row in PLACEMENTS
        .iter()
        .flat_map(|&placement| rows_of(comparison, placement))
    {
        if !paths.iter().any(|(path, _)| *path == row.path) {
            let median = if row.paced.raw.is_empty() {
                u64::MAX
            } else {
                row.paced.raw.value_at_quantile(0.5)
            };
            paths.push((&row.path, median));
        }
    }
    paths.sort_by_key(|(path, median)| (is_routed(path), *median));
    paths.into_iter().map(|(path, _)| path).collect()
}

/// The row of a path in a placement.
pub fn row<'a>(comparison: &'a Comparison, path: &str, placement: Placement) -> Option<&'a Row> {
    rows_of(comparison, placement).find(|row| row.path == path)
}

fn rows_of(comparison: &Comparison, placement: Placement) -> impl Iterator<Item = &Row> {
    comparison
        .rows
        .iter()
        .filter(move |row| row.placement == placement)
}

/// The conditions of the comparison, in one line.
pub fn conditions(comparison: &Comparison) -> String {
    format!(
        "interval {} us, payload {} B, receivers FIFO {} and senders below, lanes {}, load {}",
        comparison.interval_ns / 1000,
        comparison.payload_bytes,
        comparison.priority,
        comparison.lane_priority,
        clean(&comparison.load, 80)
    )
}

#[cfg(test)]
pub(super) mod samples;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_is_harmless_and_bounded() {
        assert_eq!(
            clean("a\x1b[31m\n\u{202e}b", 20),
            "a\u{fffd}[31m\u{fffd}\u{fffd}b"
        );
        assert_eq!(clean("abcdef", 6), "abcdef");
        assert_eq!(clean("abcdefg", 6), "abcde…");
        assert_eq!(clean("abc", 0), "…");
    }

    #[test]
    fn numbers_are_rounded_to_the_last_decimal() {
        assert_eq!(
            [us(0), us(4), us(5), us(2_654), us(u64::MAX)].map(|text| text.len()),
            [4, 4, 4, 4, 20]
        );
        assert_eq!([us(4), us(5), us(2_654)], ["0.00", "0.01", "2.65"]);
    }

    #[test]
    fn series_of_one_name_are_distinguished_by_their_number() {
        let (mut a, mut b) = (
            samples::series("timer", &[1000]),
            samples::series("timer", &[1000]),
        );
        (a.pair, b.pair) = (0, 1);
        assert_eq!(label(&b, &[&a, &b], 20), "timer 1");
        assert_eq!(label(&b, &[&b], 20), "timer");
    }
}
