//! Guesses the intended line from one that is not TOML: a text without quotes, a number with a
//! leading zero, an incomplete header.
//!
//! Invariant: a suggested line is valid TOML.

use super::reader::LISTS;
use super::suggest;
use super::values::quoted;
use toml::de::DeTable;

/// The hint if nothing better is known.
const REFERENCE: &str = "correct this line (the syntax: https://toml.io)";

/// The line to write instead of `line`; `message` is the parser's error.
pub fn hint(line: &str, message: &str) -> String {
    if message.contains("duplicate key") {
        return "remove one of the two lines".to_owned();
    }
    let line = without_comment(line).trim();
    let meant = if line.starts_with('[') {
        header(line)
    } else {
        assignment(line)
    };
    let valid = meant
        .into_iter()
        .filter(|line| DeTable::parse(line).is_ok());
    let lines: Vec<String> = valid.collect();
    if lines.is_empty() {
        REFERENCE.to_owned()
    } else {
        lines.join("\n")
    }
}

fn without_comment(line: &str) -> &str {
    let mut quote = None;
    for (at, c) in line.char_indices() {
        match (c, quote) {
            ('#', None) => return &line[..at],
            ('"' | '\'', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            _ => {}
        }
    }
    // A quote that is never closed.
    if quote.is_some() {
        line.split('#').next().unwrap_or(line)
    } else {
        line
    }
}

fn header(line: &str) -> Option<String> {
    let name = line.trim_matches(['[', ']', ' ', '"']);
    match name {
        "daemon" => Some("[daemon]".to_owned()),
        "lane" | "process" | "endpoint" | "group" | "route" => Some(format!("[[{name}]]")),
        _ => None,
    }
}

fn assignment(line: &str) -> Option<String> {
    let two_words = || {
        line.split_once(' ')
            .filter(|(_, value)| !value.trim().contains(' '))
    };
    let (key, value) = line
        .split_once('=')
        .or_else(|| line.split_once(':'))
        .or_else(two_words)?;
    let key = key.trim().trim_matches(['"', '\'']);
    let value = value.trim_matches(|c: char| c.is_whitespace() || "=:,;".contains(c));
    if value.is_empty() || !key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') {
        return None;
    }
    let text = value.trim_matches(['"', '\'', '\u{201c}', '\u{201d}']);
    if LISTS.contains(&key) {
        let items = value
            .trim_matches(['[', ']'])
            .split(',')
            .map(|item| item.trim_matches(['"', '\'', ' ']));
        return Some(suggest::list_line(
            key,
            items.filter(|item| !item.is_empty()),
        ));
    }
    let digits = text.replace('_', "");
    if !digits.is_empty()
        && digits.bytes().all(|b| b.is_ascii_digit())
        && text == value
        && key != "mode"
    {
        let number = digits.trim_start_matches('0');
        return Some(format!(
            "{key} = {}",
            if number.is_empty() { "0" } else { number }
        ));
    }
    match text.to_ascii_lowercase().as_str() {
        truth @ ("true" | "false") => Some(format!("{key} = {truth}")),
        _ => Some(format!("{key} = {}", quoted(text))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_completed() {
        for (line, meant) in [
            ("name = commands", "name = \"commands\""),
            ("name = commands # the queue", "name = \"commands\""),
            ("mode = 0660", "mode = \"0660\""),
            ("priority = 050", "priority = 50"),
            ("priority = = 50", "priority = 50"),
            ("cpu: 1", "cpu = 1"),
            ("cpu 00", "cpu = 0"),
            ("deadline = 5ms", "deadline = \"5ms\""),
            ("duty = 80%", "duty = \"80%\""),
            ("name = \"drive", "name = \"drive\""),
            ("name = 'drive\" # x", "name = \"drive\""),
            ("truncate = True", "truncate = true"),
            ("to = drive", "to = [\"drive\"]"),
            ("to = [drive, \"logger\"]", "to = [\"drive\", \"logger\"]"),
            ("[[lane]", "[[lane]]"),
            ("[daemon", "[daemon]"),
            ("what is this", REFERENCE),
            ("]", REFERENCE),
            ("= 5", REFERENCE),
            ("", REFERENCE),
        ] {
            assert_eq!(hint(line, "invalid"), meant, "{line}");
        }
    }
}
