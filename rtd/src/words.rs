//! Counts and lists as a sentence has them.

#![forbid(unsafe_code)]

use std::fmt::Display;

/// `1 message`, `2 messages`, `0 messages`. `noun` is singular and takes an s.
pub fn counted<N: Display + PartialEq + From<u8>>(count: N, noun: &str) -> String {
    let plural = if count == N::from(1) { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

/// What else could have been named, to stand behind an error: `; there are: a, b` or `; there are none`.
pub fn alternatives<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    if names.is_empty() {
        "; there are none".to_owned()
    } else {
        format!("; there are: {}", names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_singular() {
        let texts = [0_u64, 1, 2].map(|count| counted(count, "message"));
        assert_eq!(texts, ["0 messages", "1 message", "2 messages"]);
        assert_eq!((counted(1_usize, "lane"), counted(-1_i64, "lane")), ("1 lane".into(), "-1 lanes".into()));
    }

    #[test]
    fn an_empty_list_is_a_sentence_too() {
        assert_eq!(alternatives(["a", "b"]), "; there are: a, b");
        assert_eq!(alternatives([]), "; there are none");
    }
}
