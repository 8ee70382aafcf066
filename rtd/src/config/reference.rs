//! The reference of all keys as Markdown, made from the JSON schema, for the manual
//! (`rtd/book/src/keys.md`).

use super::schema;
use serde_json::Value;
use std::fmt::Write as _;

/// Sections in the order in which a configuration has them, with their definition in the schema.
const SECTIONS: [(&str, &str); 6] = [
    ("[daemon]", "Daemon"),
    ("[[lane]]", "Lane"),
    ("[[process]]", "Process"),
    ("[[endpoint]]", "Endpoint"),
    ("[[group]]", "Group"),
    ("[[route]]", "Route"),
];

const HEAD: &str = "\
# All keys

`rtd check --reference` prints this page, and `rtd check --schema` prints the JSON schema that it is made from
(`configs/rtd.schema.json`, for editors). Do not edit this page by hand.

A *time* is a number and a unit in quotes: `\"500us\"`, `\"1.5ms\"`, `\"2s\"` (ns, us, ms, s, min). A *name* has 1 to 31 of the
characters A-Z a-z 0-9 `_` `.` `-` and starts with a letter or a digit.
";

/// The page, with a newline at the end.
pub fn markdown() -> String {
    let schema: Value = serde_json::from_str(&schema::json()).unwrap_or_default();
    let mut page = HEAD.to_owned();
    for (section, definition) in SECTIONS {
        let definition = &schema["$defs"][definition];
        // Writing to a String cannot fail.
        let _ = write!(
            page,
            "\n## `{section}`\n\n{}\n\n",
            one_line(&definition["description"])
        );
        match definition["oneOf"].as_array().map(Vec::as_slice) {
            None => keys(&mut page, definition, &[], |_| true),
            Some([]) => {}
            Some(kinds @ [first, ..]) => {
                keys(&mut page, first, kinds, |key| is_common(kinds, key));
                for kind in kinds {
                    let name = &kind["properties"]["kind"]["const"];
                    let _ = write!(
                        page,
                        "\n### `kind = {name}`\n\n{}\n\n",
                        one_line(&kind["description"])
                    );
                    keys(&mut page, kind, kinds, |key| !is_common(kinds, key));
                }
            }
        }
    }
    page
}

/// Whether every kind has the key with the same definition.
fn is_common(kinds: &[Value], key: &str) -> bool {
    let description = |kind: &Value| kind["properties"][key]["description"].clone();
    let same = |pair: &[Value]| description(&pair[0]) == description(&pair[1]);
    kinds.windows(2).all(same)
}

/// The lines of the keys that are `shown`, required ones first. Each of the `kinds` has its own
/// constant as `kind`.
fn keys(page: &mut String, definition: &Value, kinds: &[Value], shown: impl Fn(&str) -> bool) {
    let is_required = |key: &String| {
        definition["required"]
            .as_array()
            .is_some_and(|all| all.iter().any(|r| r == key))
    };
    let all = definition["properties"].as_object().into_iter().flatten();
    let mut keys: Vec<_> = all.filter(|(key, _)| shown(key)).collect();
    keys.sort_by_key(|(key, _)| !is_required(key));
    for (key, value) in keys {
        let required = if is_required(key) {
            ", required".to_owned()
        } else {
            default(value)
        };
        let kind = if key == "kind" {
            of_kinds(kinds)
        } else {
            kind(value)
        };
        let text = one_line(&value["description"]);
        let _ = writeln!(page, "- **`{key}`** ({kind}{required}): {text}");
    }
}

fn of_kinds(kinds: &[Value]) -> String {
    let names = kinds
        .iter()
        .map(|kind| format!("`{}`", kind["properties"]["kind"]["const"]));
    names.collect::<Vec<_>>().join(", ")
}

fn one_line(text: &Value) -> String {
    let words = text.as_str().unwrap_or_default().split_whitespace();
    // Markdown would treat a bare <name> as a tag.
    words
        .collect::<Vec<_>>()
        .join(" ")
        .replace('<', "&lt;")
        .replace("`&lt;", "`<")
        .replace(":&lt;", ":<")
}

fn default(value: &Value) -> String {
    match &value["default"] {
        Value::Null => String::new(),
        default => format!(", default `{default}`"),
    }
}

/// The type of a value, in words.
fn kind(value: &Value) -> String {
    if let Some(choices) = value["enum"].as_array() {
        return choices
            .iter()
            .map(|choice| format!("`{choice}`"))
            .collect::<Vec<_>>()
            .join(", ");
    }
    if let Some(choices) = value["oneOf"].as_array() {
        return choices.iter().map(kind).collect::<Vec<_>>().join(" or ");
    }
    if let Some(constant) = value.get("const") {
        return format!("`{constant}`");
    }
    match value["type"].as_str().unwrap_or_default() {
        "integer" => format!("{} to {}", value["minimum"], value["maximum"]),
        "boolean" => "`true` or `false`".to_owned(),
        "array" => "array of strings".to_owned(),
        other => match value["pattern"].as_str() {
            Some(pattern) if pattern.starts_with("^[A-Za-z0-9]") => "name".to_owned(),
            Some(pattern) if pattern.starts_with("^[0-9]+(") => "time".to_owned(),
            Some(pattern) if pattern.starts_with("^(off|[0-9]+(") => "time or `\"off\"`".to_owned(),
            Some(pattern) if pattern.ends_with("%$") => "percentage in quotes".to_owned(),
            _ => other.to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_of_the_schema_has_its_line() {
        let schema: Value = serde_json::from_str(&schema::json()).unwrap();
        let page = markdown();
        for (section, definition) in SECTIONS {
            let part = page.split(&format!("## `{section}`\n")).nth(1).unwrap();
            let part = part.split("\n## ").next().unwrap();
            let definition = &schema["$defs"][definition];
            let Some(kinds) = definition["oneOf"].as_array() else {
                let keys = definition["properties"].as_object().unwrap();
                assert_eq!(part.matches("\n- **`").count(), keys.len(), "{section}");
                assert!(
                    keys.keys()
                        .all(|key| part.contains(&format!("- **`{key}`** ("))),
                    "{section}"
                );
                continue;
            };
            let (common, parts) = part.split_once("\n### ").unwrap();
            let parts: Vec<&str> = parts.split("\n### ").collect();
            assert_eq!(parts.len(), kinds.len());
            for (kind, part) in kinds.iter().zip(parts) {
                let keys = kind["properties"].as_object().unwrap();
                assert!(
                    part.starts_with(&format!("`kind = {}`\n", keys["kind"]["const"])),
                    "{part}"
                );
                let lines = [common, part].concat();
                assert_eq!(lines.matches("\n- **`").count(), keys.len(), "{part}");
                assert!(
                    keys.keys()
                        .all(|key| lines.contains(&format!("- **`{key}`** ("))),
                    "{part}"
                );
            }
        }
    }

    #[test]
    fn the_manual_has_the_page_that_the_code_makes() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("book/src/keys.md");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, markdown()).unwrap();
        }
        let golden = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            golden == markdown(),
            "{} is old: run with UPDATE_GOLDEN=1",
            path.display()
        );
    }
}
