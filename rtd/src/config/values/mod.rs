//! The values of keys: their forms, limits and JSON schemas.

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
mod time;
pub use policy::*;
pub use time::*;

fn string<'v>(value: &'v DeValue<'_>, example: &str) -> Result<&'v str, Refused> {
    value
        .as_str()
        .ok_or_else(|| Refused::wrong_type(value, "a string", example))
}

fn integer(value: &DeValue<'_>) -> Option<i128> {
    value
        .as_integer()
        .and_then(|i| i128::from_str_radix(i.as_str(), i.radix()).ok())
}

/// The text of a value that may have been intended for another type: `50` in quotes, a word without
/// them, a list of one.
fn scalar_text(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => Some(number.as_str().to_owned()),
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        DeValue::Boolean(truth) => Some(truth.to_string()),
        DeValue::Array(items) => items
            .first()
            .map(toml::Spanned::get_ref)
            .filter(|v| !v.is_array())
            .and_then(scalar_text),
        DeValue::Datetime(_) | DeValue::Table(_) => None,
    }
}

/// Text in quotes, escaped as TOML escapes it, so that it can be pasted back into a file.
pub fn quoted(text: &str) -> String {
    let mut shown = String::from("\"");
    for c in text.chars().take(QUOTED_CHARS_MAX) {
        match c {
            '"' | '\\' => shown.extend(['\\', c]),
            '\'' => shown.push(c),
            // Invisible characters are escaped too, because they would deceive on a terminal.
            _ if c.escape_debug().count() > 1 && u32::from(c) > 0xFFFF => {
                shown += &format!("\\U{:08X}", u32::from(c))
            }
            _ if c.escape_debug().count() > 1 => shown += &format!("\\u{:04X}", u32::from(c)),
            _ => shown.push(c),
        }
    }
    shown.push('"');
    shown
}

/// Placeholder for a text that cannot be guessed.
const UNKNOWN_TEXT: &str = "\"...\"";
/// Limit of a text in quotes in a message.
pub const QUOTED_CHARS_MAX: usize = 60;

impl FromToml for String {
    fn from_toml(value: &DeValue<'_>) -> Result<String, Refused> {
        let meant =
            scalar_text(value).map_or_else(|| UNKNOWN_TEXT.to_owned(), |text| quoted(&text));
        string(value, &meant).map(str::to_owned)
    }
}

impl FromToml for bool {
    fn from_toml(value: &DeValue<'_>) -> Result<bool, Refused> {
        let meant = scalar_text(value).unwrap_or_default().to_lowercase();
        let meant = if ["false", "no", "off", "0"].contains(&meant.as_str()) {
            "false"
        } else {
            "true"
        };
        value
            .as_bool()
            .ok_or_else(|| Refused::wrong_type(value, "true or false", meant))
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
    /// Whether a name may contain the character.
    fn allowed(c: char) -> bool {
        c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')
    }

    /// Checks a name.
    pub fn parse(text: &str) -> Result<Name, Refused> {
        let mut cleaned: String = text
            .chars()
            .filter(|c| Name::allowed(*c))
            .take(NAME_BYTES_MAX)
            .collect();
        cleaned = cleaned.trim_start_matches(['-', '.', '_']).to_owned();
        let example = if cleaned.is_empty() {
            "\"name\"".to_owned()
        } else {
            quoted(&cleaned)
        };
        if text.is_empty() {
            return Err(Refused::new("a name cannot be empty", example));
        }
        if text.len() > NAME_BYTES_MAX {
            let message = format!(
                "{} is {} bytes long, the limit is {NAME_BYTES_MAX}",
                quoted(text),
                text.len()
            );
            return Err(Refused::new(message, example));
        }
        let bad = text.chars().find(|c| !Name::allowed(*c));
        if let Some(bad) =
            bad.or_else(|| text.chars().next().filter(|c| !c.is_ascii_alphanumeric()))
        {
            let message = format!(
                "{bad:?} is not allowed in a name (letters, digits, `_`, `-`, `.`; a letter or \
                 digit first)"
            );
            return Err(Refused::new(message, example));
        }
        Ok(Name(text.to_owned()))
    }
}

impl FromToml for Name {
    fn from_toml(value: &DeValue<'_>) -> Result<Name, Refused> {
        let meant = scalar_text(value).unwrap_or_default();
        let meant =
            Name::parse(&meant).map_or_else(|refused| refused.example(), |name| quoted(&name.0));
        Name::parse(string(value, &meant)?)
    }
}

/// A whole number within bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Int<const MIN: u64, const MAX: u64>(pub u64);

inline_schema!(@bounds Int MIN MAX, json_schema!({ "type": "integer", "minimum": MIN, "maximum": MAX }));

impl<const MIN: u64, const MAX: u64> Int<MIN, MAX> {
    /// The value as an index or a count; the limits of every use in this module fit.
    pub fn count(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    /// The value as a 32-bit number; the limits of every use in this module fit.
    pub fn narrow(self) -> u32 {
        u32::try_from(self.0).unwrap_or(u32::MAX)
    }

    /// The number that a value of another type probably means, within the limits.
    fn meant(value: &DeValue<'_>) -> u64 {
        let text = scalar_text(value).unwrap_or_default().replace('_', "");
        let whole = text.trim().split('.').next().unwrap_or("").parse::<i128>();
        whole.map_or(MIN, |n| {
            u64::try_from(n.max(0)).unwrap_or(u64::MAX).clamp(MIN, MAX)
        })
    }
}

impl<const MIN: u64, const MAX: u64> FromToml for Int<MIN, MAX> {
    fn from_toml(value: &DeValue<'_>) -> Result<Self, Refused> {
        let Some(number) = integer(value) else {
            return Err(Refused::wrong_type(
                value,
                "a whole number",
                &Self::meant(value).to_string(),
            ));
        };
        match u64::try_from(number) {
            Ok(number) if (MIN..=MAX).contains(&number) => Ok(Int(number)),
            _ => {
                let nearest = if number > i128::from(MIN) { MAX } else { MIN };
                Err(Refused::new(
                    format!("{number} is not within {MIN} to {MAX}"),
                    nearest.to_string(),
                ))
            }
        }
    }
}
