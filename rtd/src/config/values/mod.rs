//! The values that keys can have: how each is written, its bounds, and its JSON schema.

use super::reader::{FromToml, Refused};
use crate::plan::NAME_BYTES_MAX;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use std::borrow::Cow;
use toml::de::DeValue;

/// Gives a value type an inline schema; `$schema` is its JSON.
macro_rules! inline_schema {
    (@bounds $name:ident $min:ident $max:ident, $schema:expr) => {
        impl<const $min: u64, const $max: u64> JsonSchema for $name<$min, $max> {
            inline_schema!(@body $name, $schema);
        }
    };
    (@body $name:ident, $schema:expr) => {
        fn inline_schema() -> bool {
            true
        }

        fn schema_name() -> Cow<'static, str> {
            stringify!($name).into()
        }

        fn json_schema(_: &mut SchemaGenerator) -> Schema {
            $schema
        }
    };
    ($name:ident, $schema:expr) => {
        impl JsonSchema for $name {
            inline_schema!(@body $name, $schema);
        }
    };
}

mod policy;
pub use policy::*;

fn string<'v>(value: &'v DeValue<'_>, example: &str) -> Result<&'v str, Refused> {
    value.as_str().ok_or_else(|| Refused::wrong_type(value, "a string", example))
}

fn integer(value: &DeValue<'_>) -> Option<i128> {
    value.as_integer().and_then(|i| i128::from_str_radix(i.as_str(), i.radix()).ok())
}

/// Text in quotes, escaped so that it can be pasted back into a file.
fn quoted(text: &str) -> String {
    let shown: String = text.chars().take(60).collect();
    format!("{shown:?}")
}

impl FromToml for String {
    fn from_toml(value: &DeValue<'_>) -> Result<String, Refused> {
        string(value, "\"...\"").map(str::to_owned)
    }
}

impl FromToml for bool {
    fn from_toml(value: &DeValue<'_>) -> Result<bool, Refused> {
        value.as_bool().ok_or_else(|| Refused::wrong_type(value, "true or false", "true"))
    }
}

/// A name that others refer to: letters, digits, `_`, `-` and `.`, at most 31 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(pub String);

inline_schema!(
    Name,
    json_schema!({ "type": "string", "minLength": 1, "maxLength": NAME_BYTES_MAX, "pattern": "^[A-Za-z0-9][A-Za-z0-9_.-]*$" })
);

impl Name {
    /// Whether a character may stand in a name.
    fn allowed(c: char) -> bool {
        c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')
    }

    /// Checks a name.
    pub fn parse(text: &str) -> Result<Name, Refused> {
        let mut cleaned: String = text.chars().filter(|c| Name::allowed(*c)).take(NAME_BYTES_MAX).collect();
        cleaned = cleaned.trim_start_matches(['-', '.', '_']).to_owned();
        let example = if cleaned.is_empty() { "\"name\"".to_owned() } else { quoted(&cleaned) };
        if text.is_empty() {
            return Err(Refused::new("a name cannot be empty", example));
        }
        if text.len() > NAME_BYTES_MAX {
            let message =
                format!("{} is {} bytes long, the limit is {NAME_BYTES_MAX}", quoted(text), text.len());
            return Err(Refused::new(message, example));
        }
        let bad = text.chars().find(|c| !Name::allowed(*c));
        if let Some(bad) = bad.or_else(|| text.chars().next().filter(|c| !c.is_ascii_alphanumeric())) {
            let message = format!(
                "{bad:?} cannot stand in a name (letters, digits, `_`, `-`, `.`; a letter or digit first)"
            );
            return Err(Refused::new(message, example));
        }
        Ok(Name(text.to_owned()))
    }
}

impl FromToml for Name {
    fn from_toml(value: &DeValue<'_>) -> Result<Name, Refused> {
        Name::parse(string(value, "\"name\"")?)
    }
}

/// A whole number within bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Int<const MIN: u64, const MAX: u64>(pub u64);

inline_schema!(@bounds Int MIN MAX, json_schema!({ "type": "integer", "minimum": MIN, "maximum": MAX }));

impl<const MIN: u64, const MAX: u64> Int<MIN, MAX> {
    /// As an index or a count; the bounds of every use in this module fit.
    pub fn count(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    /// As a 32-bit number; the bounds of every use in this module fit.
    pub fn narrow(self) -> u32 {
        u32::try_from(self.0).unwrap_or(u32::MAX)
    }
}

impl<const MIN: u64, const MAX: u64> FromToml for Int<MIN, MAX> {
    fn from_toml(value: &DeValue<'_>) -> Result<Self, Refused> {
        let Some(number) = integer(value) else {
            return Err(Refused::wrong_type(value, "a whole number", &MIN.max(1).to_string()));
        };
        match u64::try_from(number) {
            Ok(number) if (MIN..=MAX).contains(&number) => Ok(Int(number)),
            _ => {
                let nearest = if number > i128::from(MIN) { MAX } else { MIN };
                Err(Refused::new(format!("{number} is not within {MIN} to {MAX}"), nearest.to_string()))
            }
        }
    }
}

/// A time with its unit, `250us`, `5ms`, `1s`, within bounds in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time<const MIN_NS: u64, const MAX_NS: u64>(pub u64);

inline_schema!(@bounds Time MIN_NS MAX_NS,
    json_schema!({ "type": "string", "pattern": "^[0-9]+(ns|us|ms|s|min)$" })
);

/// Nanoseconds in a second.
pub const SECOND_NS: u64 = 1_000_000_000;

const UNITS: [(&str, u64); 5] =
    [("min", 60 * SECOND_NS), ("ns", 1), ("us", 1_000), ("ms", 1_000_000), ("s", SECOND_NS)];

/// How a time is written.
const TIME_FORM: &str = "a whole number and ns, us, ms, s or min";

/// One that each key with a time takes, beside the default of every other key.
const TIME_EXAMPLE: &str = "\"200ms\"";

/// Nanoseconds of `250us`; `None` when it is not written like that or too large to count.
pub fn parse_time(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*scale)
}

/// The shortest exact way to write a time.
pub fn show_time(ns: u64) -> String {
    for (unit, scale) in [("s", SECOND_NS), ("ms", 1_000_000), ("us", 1_000)] {
        if ns >= scale && ns.is_multiple_of(scale) {
            return format!("{}{unit}", ns / scale);
        }
    }
    format!("{ns}ns")
}

impl<const MIN_NS: u64, const MAX_NS: u64> FromToml for Time<MIN_NS, MAX_NS> {
    fn from_toml(value: &DeValue<'_>) -> Result<Self, Refused> {
        if let Some(number) = integer(value) {
            let example = format!("\"{number}ms\"");
            return Err(Refused::new(format!("{number} has no unit (ns, us, ms, s, min)"), example));
        }
        let text = string(value, TIME_EXAMPLE)?;
        let Some(ns) = parse_time(text) else {
            return Err(Refused::new(format!("{} is no time ({TIME_FORM})", quoted(text)), TIME_EXAMPLE));
        };
        if !(MIN_NS..=MAX_NS).contains(&ns) {
            let (low, high) = (show_time(MIN_NS), show_time(MAX_NS));
            let nearest = if ns > MAX_NS { &high } else { &low };
            return Err(Refused::new(format!("{text} is not within {low} to {high}"), quoted(nearest)));
        }
        Ok(Time(ns))
    }
}
