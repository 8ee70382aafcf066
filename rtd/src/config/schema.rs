//! The JSON schema of a configuration, for editors and readers.

use super::sections::Config;

/// The schema as pretty-printed JSON with a newline at the end.
pub fn json() -> String {
    let schema = schemars::schema_for!(Config);
    // A schema is a tree of plain JSON values: writing it out cannot fail.
    let mut text = serde_json::to_string_pretty(&schema).unwrap_or_default();
    text.push('\n');
    text
}
