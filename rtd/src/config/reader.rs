//! Reads one table key by key, so that the problems of all keys are reported, not only the first.
//!
//! Invariant: a key of the table that no code asked for is reported. Suggestions come from the keys
//! that were asked for, so the list of known keys exists once, in the code that reads them.

use super::diagnostic::{Place, Report};
use super::known::Known;
use super::suggest;
use super::values::quoted;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use std::borrow::Cow;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Keys whose values are lists.
pub const LISTS: [&str; 2] = ["to", "members"];

/// A value and its place.
#[derive(Clone, Debug)]
pub struct At<T> {
    pub value: T,
    pub place: Place,
}

/// The state of one key in a file.
#[derive(Clone, Debug, Default)]
pub enum Field<T> {
    #[default]
    Absent,
    /// The value was refused (and reported).
    Invalid,
    Given(At<T>),
}

impl<T> Field<T> {
    /// The value with its place.
    pub fn at(&self) -> Option<&At<T>> {
        match self {
            Field::Given(at) => Some(at),
            _ => None,
        }
    }

    pub fn get(&self) -> Option<&T> {
        self.at().map(|at| &at.value)
    }

    /// Whether the key is absent.
    pub fn is_absent(&self) -> bool {
        matches!(self, Field::Absent)
    }

    /// The place of the value, otherwise the given place.
    pub fn place_or(&self, other: &Place) -> Place {
        self.at()
            .map_or_else(|| other.clone(), |at| at.place.clone())
    }
}

impl<T: JsonSchema> JsonSchema for Field<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<T>()
    }
}

impl<T: JsonSchema> JsonSchema for At<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<T>()
    }
}

/// Why a value was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The fault.
    pub message: String,
    /// Valid values for the line `key = `, which the author probably meant. At least one.
    examples: Vec<String>,
}

impl Refused {
    /// A refusal of a value.
    pub fn new(message: impl Into<String>, example: impl Into<String>) -> Refused {
        Refused {
            message: message.into(),
            examples: vec![example.into()],
        }
    }

    /// A refusal of a value with several probable meanings.
    pub fn any_of(message: String, examples: Vec<String>) -> Refused {
        Refused { message, examples }
    }

    /// The first valid value.
    pub fn example(&self) -> String {
        self.examples.first().cloned().unwrap_or_default()
    }

    /// The value is of another type.
    pub fn wrong_type(value: &DeValue<'_>, wanted: &str, example: &str) -> Refused {
        Refused::new(
            format!("{} where {wanted} belongs", with_article(value.type_str())),
            example,
        )
    }
}

fn with_article(noun: &str) -> String {
    let article = if noun.starts_with(['a', 'e', 'i', 'o', 'u']) {
        "an"
    } else {
        "a"
    };
    format!("{article} {noun}")
}

/// A value that a key can have.
pub trait FromToml: Sized {
    /// Reads the value. Errors: why it is not valid, with an example that is.
    fn from_toml(value: &DeValue<'_>) -> Result<Self, Refused>;
}

/// Reads one table into a section's structure.
pub struct Reader<'r, 't, 'i> {
    report: &'r mut Report<'t>,
    table: &'r DeTable<'i>,
    /// The names of the file, for suggestions.
    pub known: &'r Known,
    header: Range<usize>,
    path: String,
    asked: Vec<&'static str>,
    required: Vec<&'static str>,
    /// Keys of other kinds in the table: reported, or belonging to a kind that is not known.
    foreign: Vec<&'static str>,
}

impl<'r, 't, 'i> Reader<'r, 't, 'i> {
    /// Reads `table`, whose header stands at `header`, as `path`.
    pub fn new(
        report: &'r mut Report<'t>,
        table: &'r DeTable<'i>,
        known: &'r Known,
        header: Range<usize>,
        path: String,
    ) -> Reader<'r, 't, 'i> {
        Reader {
            report,
            table,
            known,
            header,
            path,
            asked: Vec::new(),
            required: Vec::new(),
            foreign: Vec::new(),
        }
    }

    /// The place of the table's header.
    pub fn header(&self) -> Place {
        Place {
            span: self.header.clone(),
            key: self.path.clone(),
        }
    }

    /// Whether the table has one of the keys.
    pub fn has(&self, keys: &[&str]) -> bool {
        keys.iter().any(|key| self.table.contains_key(*key))
    }

    fn place(&self, key: &str, span: Range<usize>) -> Place {
        Place {
            span,
            key: format!("{}.{key}", self.path),
        }
    }

    /// A key that may be absent.
    pub fn optional<T: FromToml>(&mut self, key: &'static str) -> Field<T> {
        self.asked.push(key);
        let Some(value) = self.table.get(key) else {
            return Field::Absent;
        };
        // The parser's placeholder for a value that it could not read; the syntax error reports it.
        if value.span().is_empty() && self.report.has_broken_lines() {
            return Field::Invalid;
        }
        let place = self.place(key, value.span());
        match T::from_toml(value.get_ref()) {
            Ok(value) => Field::Given(At { value, place }),
            Err(refused) => {
                self.refuse(key, &place, &refused);
                Field::Invalid
            }
        }
    }

    /// A key that must be there.
    pub fn required<T: FromToml>(&mut self, key: &'static str, example: &str) -> Field<T> {
        self.required.push(key);
        let field = self.optional(key);
        self.missing(key, field.is_absent(), example);
        field
    }

    /// A key that must be there; the caller reports that it is missing.
    pub fn needed<T: FromToml>(&mut self, key: &'static str) -> Field<T> {
        self.required.push(key);
        self.optional(key)
    }

    /// A key that belongs to other kinds than `kind`: reported if the table has it. If the kind is
    /// not known, it may be the key's.
    pub fn foreign(&mut self, key: &'static str, kind: Option<&str>) {
        let Some(value) = self.table.get(key).filter(|_| !self.asked.contains(&key)) else {
            return;
        };
        if self.foreign.contains(&key) {
            return;
        }
        self.foreign.push(key);
        if let Some(kind) = kind {
            let message = format!("`{key}` has no effect for kind = \"{kind}\"");
            self.report.error(
                &self.place(key, value.span()),
                message,
                format!("remove `{key}`"),
            );
        }
    }

    /// A key whose value is one of `names`, if any is known.
    pub fn reference(&mut self, key: &'static str, names: &[String]) -> Field<String> {
        let Some(value) = self
            .table
            .get(key)
            .filter(|value| !value.get_ref().is_str())
        else {
            return self.optional(key);
        };
        self.asked.push(key);
        if value.span().is_empty() && self.report.has_broken_lines() {
            return Field::Invalid;
        }
        let place = self.place(key, value.span());
        let Err(mut refused) = String::from_toml(value.get_ref()) else {
            return Field::Invalid;
        };
        let meant = refused.example();
        let known = || names.iter().map(String::as_str);
        if let Some(name) = suggest::nearest(meant.trim_matches('"'), known()).or(known().next()) {
            refused.examples = vec![quoted(name)];
        }
        self.refuse(key, &place, &refused);
        Field::Invalid
    }

    /// As [`Reader::reference`], and the key must be there.
    pub fn required_reference(
        &mut self,
        key: &'static str,
        names: &[String],
        example: &str,
    ) -> Field<String> {
        self.required.push(key);
        let field = self.reference(key, names);
        self.missing(key, field.is_absent(), example);
        field
    }

    fn missing(&mut self, key: &str, is_absent: bool, example: &str) {
        if is_absent && !self.report.has_broken_lines() {
            let place = Place {
                span: self.header.clone(),
                key: format!("{}.{key}", self.path),
            };
            self.report.error(
                &place,
                format!("`{key}` is missing"),
                format!("{key} = {example}"),
            );
        }
    }

    /// A list of strings.
    pub fn list(&mut self, key: &'static str, example: &str) -> Vec<At<String>> {
        self.asked.push(key);
        self.required.push(key);
        let Some(value) = self.table.get(key) else {
            self.missing(key, true, &format!("[{example}]"));
            return Vec::new();
        };
        if value.span().is_empty() && self.report.has_broken_lines() {
            return Vec::new();
        }
        let place = self.place(key, value.span());
        let Some(array) = value.get_ref().as_array() else {
            let one = value.get_ref().as_str();
            let example = one.map_or_else(|| example.to_owned(), quoted);
            let refused = Refused::wrong_type(value.get_ref(), "a list", &format!("[{example}]"));
            self.refuse(key, &place, &refused);
            // The name is still looked up.
            return one
                .map(|name| At {
                    value: name.to_owned(),
                    place,
                })
                .into_iter()
                .collect();
        };
        if array.is_empty() {
            self.report.error(
                &place,
                format!("`{key}` is empty"),
                format!("{key} = [{example}]"),
            );
        }
        let mut items = Vec::new();
        for (index, item) in array.iter().enumerate() {
            let place = self.place(&format!("{key}[{index}]"), item.span());
            match String::from_toml(item.get_ref()) {
                Ok(value) => items.push(At { value, place }),
                Err(mut refused) => {
                    // The whole list, as it is in the file.
                    let texts = array
                        .iter()
                        .map(|item| item.get_ref().as_str().map_or(example.to_owned(), quoted));
                    let line = texts.collect::<Vec<_>>().join(", ");
                    refused.examples = vec![format!("[{line}]")];
                    self.refuse(key, &place, &refused);
                }
            }
        }
        items
    }

    fn refuse(&mut self, key: &str, place: &Place, refused: &Refused) {
        let lines: Vec<String> = refused
            .examples
            .iter()
            .map(|example| format!("{key} = {example}"))
            .collect();
        self.report.error(
            place,
            format!("`{key}`: {}", refused.message),
            lines.join("\n"),
        );
    }

    /// Reports the keys that no code asked for, and returns the others: (all, required).
    pub fn finish(self) -> (Vec<&'static str>, Vec<&'static str>) {
        for (key, _) in self.table.iter() {
            let name: &str = key.get_ref();
            if self.asked.contains(&name) || self.foreign.contains(&name) {
                continue;
            }
            let place = Place {
                span: key.span(),
                key: format!("{}.{name}", self.path),
            };
            let absent: Vec<&str> = self
                .asked
                .iter()
                .copied()
                .filter(|key| !self.table.contains_key(*key))
                .collect();
            unknown_key(self.report, &place, name, &self.asked, &absent);
        }
        (self.asked, self.required)
    }
}

/// Reports an unknown key. One of the `absent` keys among the `known` ones can replace it.
fn unknown_key(
    report: &mut Report<'_>,
    place: &Place,
    name: &str,
    known: &[&str],
    absent: &[&str],
) {
    let near = suggest::nearest(name, known.iter().copied());
    let (message, fix) = match near {
        Some(near) if absent.contains(&near) => (
            format!("unknown key `{name}`; did you mean `{near}`?"),
            format!("write `{near}` instead of `{name}`"),
        ),
        // After renaming, the key would be there twice.
        Some(near) => (
            format!("unknown key `{name}`; did you mean `{near}`?"),
            format!("remove `{name}` (`{near}` is there already)"),
        ),
        None => (
            format!("unknown key `{name}`"),
            format!(
                "remove `{name}`; known here: {}",
                suggest::list(known.iter().copied())
            ),
        ),
    };
    report.error(place, message, fix);
}

/// A table entry with its span.
pub type Entry<'r, 'i> = (&'r DeTable<'i>, Range<usize>);

/// The entries of `[[section]]`, or the one of `[section]`, with wrong shapes reported.
pub fn entries<'r, 'i>(
    report: &mut Report<'_>,
    root: &'r DeTable<'i>,
    section: &'static str,
    count_max: usize,
) -> Vec<Entry<'r, 'i>> {
    let Some((key, value)) = root.get_key_value(section) else {
        return Vec::new();
    };
    let place = Place {
        span: key.span(),
        key: section.to_owned(),
    };
    let fix = format!("[[{section}]]");
    match value.get_ref() {
        DeValue::Table(table) => {
            let place = Place {
                span: value.span(),
                ..place
            };
            let message = format!("`[{section}]` is one table where a list of tables belongs");
            report.error(&place, message, fix);
            vec![(table, value.span())]
        }
        DeValue::Array(array) => {
            if array.len() > count_max {
                let message = format!(
                    "{} entries in `{section}`, at most {count_max} are possible",
                    array.len()
                );
                report.error(&place, message, format!("keep {count_max} of them"));
            }
            let mut found = Vec::new();
            for (index, item) in array.iter().take(count_max).enumerate() {
                match item.get_ref().as_table() {
                    Some(table) => found.push((table, header_span(report.text(), item))),
                    None => {
                        let place = Place {
                            span: item.span(),
                            key: format!("{section}[{index}]"),
                        };
                        let refused = Refused::wrong_type(item.get_ref(), "a table", &fix);
                        report.error(&place, refused.message, fix.clone());
                    }
                }
            }
            found
        }
        other => {
            report.error(
                &place,
                Refused::wrong_type(other, "a list of tables", &fix).message,
                fix,
            );
            Vec::new()
        }
    }
}

/// Position of the header; only the first character of an inline table is shown.
fn header_span(text: &str, item: &Spanned<DeValue<'_>>) -> Range<usize> {
    let span = item.span();
    let is_header = text.get(span.clone()).is_some_and(|s| s.starts_with('['));
    if is_header {
        span
    } else {
        span.start..(span.start + 1).min(span.end)
    }
}
