//! Times with a unit: writing, reading and showing them, and guesses for wrong ones.

use super::{integer, quoted, scalar_text, string};
use crate::config::reader::{FromToml, Refused};
use crate::words::{self, scaled, show_time, split_unit};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use std::borrow::Cow;
use std::ops::RangeInclusive;
use toml::de::DeValue;

/// A time with its unit, `250us`, `1.5ms`, `1s`, within bounds in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time<const MIN_NS: u64, const MAX_NS: u64>(pub u64);

inline_schema!(@bounds Time MIN_NS MAX_NS,
    json_schema!({ "type": "string", "pattern": "^[0-9]+(\\.[0-9]+)?(ns|us|ms|s|min)$" })
);

/// Nanoseconds in a second.
pub const SECOND_NS: u64 = 1_000_000_000;

/// The units of a time in a configuration, with their nanoseconds.
const UNITS: [(&str, u64); 5] = [
    ("min", 60 * SECOND_NS),
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", SECOND_NS),
];

/// How a time is written.
const FORM: &str = "a number and ns, us, ms, s or min";

/// The suggestion for a text without a recognisable time, if the key's limits allow it.
const EXAMPLE_NS: u64 = 200_000_000;

/// Nanoseconds of `250us` or `1.5ms`; `None` if the text has another form, is not a whole number of
/// nanoseconds or is too large to count.
pub fn parse_time(text: &str) -> Option<u64> {
    words::parse_time(text, &UNITS)
}

/// The unit that a misspelt one probably means.
fn unit_meant(unit: &str) -> Option<&'static str> {
    let unit = unit.trim().to_lowercase();
    let starts = |beginnings: &[&str]| beginnings.iter().any(|b| unit.starts_with(b));
    match () {
        () if starts(&["n"]) => Some("ns"),
        () if starts(&["u", "µ", "μ", "micro"]) => Some("us"),
        () if starts(&["min"]) => Some("min"),
        () if starts(&["m"]) => Some("ms"),
        () if starts(&["s"]) => Some("s"),
        () => None,
    }
}

/// Times that a wrong text may mean, each of them within the limits.
fn meant(text: &str, bounds: &RangeInclusive<u64>) -> Vec<String> {
    let (number, unit) = split_unit(text.trim());
    // The decimals of nanoseconds are dropped.
    let whole = number.split('.').next().unwrap_or("");
    let written = |unit: &str| {
        let candidates = [number, whole].map(|number| format!("{number}{unit}"));
        candidates
            .into_iter()
            .find(|text| parse_time(text).is_some_and(|ns| bounds.contains(&ns)))
    };
    let guesses: Vec<String> = if unit.trim().is_empty() {
        // Both forms are usual: `spin:50` and `block:500` count microseconds.
        ["us", "ms", "s"]
            .into_iter()
            .filter_map(written)
            .take(2)
            .collect()
    } else {
        unit_meant(unit).and_then(written).into_iter().collect()
    };
    if guesses.is_empty() {
        let hours = unit
            .trim_start()
            .starts_with('h')
            .then(|| scaled(whole, 3_600 * SECOND_NS))
            .flatten();
        let example = hours
            .unwrap_or(EXAMPLE_NS)
            .clamp(*bounds.start(), *bounds.end());
        return vec![show_time(example)];
    }
    guesses
}

/// Nanoseconds of a value within the limits.
pub(super) fn time(value: &DeValue<'_>, bounds: &RangeInclusive<u64>) -> Result<u64, Refused> {
    let refused = |message: String, text: &str| {
        Refused::any_of(
            message,
            meant(text, bounds)
                .iter()
                .map(|time| quoted(time))
                .collect(),
        )
    };
    if integer(value).is_some() || matches!(value, DeValue::Float(_)) {
        let number = scalar_text(value).unwrap_or_default();
        return Err(refused(
            format!("{number} has no unit (ns, us, ms, s, min)"),
            &number,
        ));
    }
    let example = meant("", bounds)
        .first()
        .map(|time| quoted(time))
        .unwrap_or_default();
    let text = string(value, &example)?;
    let Some(ns) = parse_time(text) else {
        let (number, unit) = split_unit(text);
        let message = if !number.is_empty() && unit.is_empty() {
            format!("{} has no unit (ns, us, ms, s, min)", quoted(text))
        } else {
            format!("{} is not a time ({FORM})", quoted(text))
        };
        return Err(refused(message, text));
    };
    if !bounds.contains(&ns) {
        let (low, high) = (show_time(*bounds.start()), show_time(*bounds.end()));
        let nearest = if ns > *bounds.end() { &high } else { &low };
        return Err(Refused::new(
            format!("{text} is not within {low} to {high}"),
            quoted(nearest),
        ));
    }
    Ok(ns)
}

impl<const MIN_NS: u64, const MAX_NS: u64> FromToml for Time<MIN_NS, MAX_NS> {
    fn from_toml(value: &DeValue<'_>) -> Result<Self, Refused> {
        time(value, &(MIN_NS..=MAX_NS)).map(Time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_exact_or_refused() {
        for (text, ns) in [
            ("1.5ms", Some(1_500_000)),
            ("0.25us", Some(250)),
            ("1.50s", Some(1_500_000_000)),
            ("2.0ns", Some(2)),
            ("0.000000001s", Some(1)),
            ("1.5ns", None),
            ("1.ms", None),
            (".5ms", None),
            ("1.5.5ms", None),
            ("1.000000000000000000001min", None),
            ("99999999999.9min", None),
        ] {
            assert_eq!(parse_time(text), ns, "{text}");
        }
    }

    #[test]
    fn a_wrong_unit_is_replaced_by_the_one_meant() {
        let bounds = 1_000..=3_600 * SECOND_NS;
        for (text, times) in [
            ("1500", vec!["1500us", "1500ms"]),
            ("1.5", vec!["1.5us", "1.5ms"]),
            ("5 minutes", vec!["5min"]),
            ("1.5 msec", vec!["1.5ms"]),
            ("20µs", vec!["20us"]),
            ("1h", vec!["3600s"]),
            ("fast", vec!["200ms"]),
            ("", vec!["200ms"]),
        ] {
            assert_eq!(meant(text, &bounds), times, "{text}");
        }
        assert_eq!(
            meant("5 us", &(10_000..=20_000)),
            ["20us"],
            "out of bounds: the nearest to the example"
        );
    }
}
