//! Counts and lists as a sentence has them, and prose at the terminal's width.

#![forbid(unsafe_code)]

use rtcore::sys::terminal;
use std::fmt::Display;

/// `1 message`, `2 messages`, `0 messages`. `noun` is singular and takes an s.
pub fn counted<N: Display + PartialEq + From<u8>>(count: N, noun: &str) -> String {
    let plural = if count == N::from(1) { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

/// The shortest exact way to write a time.
pub fn show_time(ns: u64) -> String {
    for (unit, scale) in [("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1_000)] {
        if ns >= scale && ns.is_multiple_of(scale) {
            return format!("{}{unit}", ns / scale);
        }
    }
    format!("{ns}ns")
}

/// Nanoseconds of a time such as `1.5ms`, with one of these units (name, nanoseconds); a unit
/// without a name is that of a number alone. `None` if the text has another form, is not a whole
/// number of nanoseconds, or is too large.
pub fn parse_time(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (number, unit) = split_unit(text);
    let (_, scale) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    scaled(number, *scale)
}

/// Digits and decimal point, and the text behind them.
pub fn split_unit(text: &str) -> (&str, &str) {
    text.split_at(
        text.bytes()
            .take_while(|b| b.is_ascii_digit() || *b == b'.')
            .count(),
    )
}

/// A decimal number of units of `scale` nanoseconds, in nanoseconds. `None` if it is not a number, not
/// a whole number of nanoseconds, or too large.
pub fn scaled(number: &str, scale: u64) -> Option<u64> {
    let Some((whole, fraction)) = number.split_once('.') else {
        return number.parse::<u64>().ok()?.checked_mul(scale);
    };
    let ns = whole.parse::<u64>().ok()?.checked_mul(scale)?;
    // `1.` and `1.5.` have another form; zeros at the end change nothing.
    if fraction.is_empty() || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let digits = fraction.trim_end_matches('0');
    if digits.is_empty() {
        return Some(ns);
    }
    // The largest scale has 11 digits: with more than 11 decimals the time is no whole number of
    // nanoseconds.
    let parts = 10_u128.checked_pow(u32::try_from(digits.len()).ok().filter(|len| *len <= 11)?)?;
    let product = digits.parse::<u128>().ok()? * u128::from(scale);
    if !product.is_multiple_of(parts) {
        return None;
    }
    ns.checked_add(u64::try_from(product / parts).ok()?)
}

/// A setting of a systemd unit, as a line that fixes something.
pub fn in_unit(setting: impl Display) -> String {
    format!("{setting} in the unit's [Service] section")
}

/// How a program gets into rtd's IPC namespace.
pub const SHARE_IPC: &str = "PrivateIPC=no in its unit, --ipc=host for a container";

/// Lists all threads with what decides which of them gets a CPU.
pub const LIST_THREADS: &str = "ps -eLo pid,tid,stat,cls,rtprio,psr,pcpu,comm";

/// The command that starts a program as a process of the configuration.
pub fn start_as(process: &str) -> String {
    format!("rtctl run --as {process} -- COMMAND")
}

/// What else could have been named, to stand behind an error: `; there are: a, b` or `; there are
/// none`.
pub fn alternatives<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    if names.is_empty() {
        "; there are none".to_owned()
    } else {
        format!("; there are: {}", names.join(", "))
    }
}

/// Columns of standard output: `$COLUMNS`, which watch(1) sets, else those of the terminal. None
/// for a file or a pipe.
pub fn output_columns() -> Option<usize> {
    let set = std::env::var("COLUMNS")
        .ok()
        .and_then(|text| text.parse().ok())
        .filter(|&columns| columns > 0);
    set.or_else(|| terminal::columns(std::io::stdout()))
}

/// Breaks a line between words; further lines are indented by two more than the first. A word that
/// is longer than a line stays whole.
pub fn filled(line: &str, columns: Option<usize>) -> String {
    let Some(columns) = columns.filter(|&columns| line.chars().count() > columns) else {
        return line.to_owned();
    };
    let text = line.trim_start_matches(' ');
    let indent = &line[..line.len() - text.len()];
    let (mut out, mut used, mut is_first) = (indent.to_owned(), indent.len(), true);
    for word in text.split(' ') {
        let width = word.chars().count();
        if !is_first && used + 1 + width > columns {
            out.truncate(out.trim_end_matches(' ').len());
            out.push_str(&format!("\n{indent}  "));
            used = indent.len() + 2;
        } else if !is_first {
            out.push(' ');
            used += 1;
        }
        out.push_str(word);
        used += width;
        is_first = false;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prose_is_broken_between_words() {
        assert_eq!(filled("one two three", Some(8)), "one two\n  three");
        assert_eq!(filled("one two three", None), "one two three");
        assert_eq!(
            filled("/a/path/longer/than/that x", Some(8)),
            "/a/path/longer/than/that\n  x"
        );
        assert_eq!(
            filled("  one  two  three", Some(11)),
            "  one  two\n    three"
        );
    }

    #[test]
    fn one_is_singular() {
        let texts = [0_u64, 1, 2].map(|count| counted(count, "message"));
        assert_eq!(texts, ["0 messages", "1 message", "2 messages"]);
        assert_eq!(
            (counted(1_usize, "lane"), counted(-1_i64, "lane")),
            ("1 lane".into(), "-1 lanes".into())
        );
    }

    #[test]
    fn an_empty_list_is_a_sentence_too() {
        assert_eq!(alternatives(["a", "b"]), "; there are: a, b");
        assert_eq!(alternatives([]), "; there are none");
    }
}
