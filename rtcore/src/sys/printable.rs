//! Makes foreign text safe for a terminal, a log and a document.
//!
//! Names, paths, command lines and the output of other programs may contain any bytes. Control
//! characters move the cursor, start a line or send commands to a terminal; direction characters
//! change the order in which text appears.

/// The character, or U+FFFD for one that does something to a terminal or to the text around it.
pub fn printable_char(c: char) -> char {
    match c {
        '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            char::REPLACEMENT_CHARACTER
        }
        '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => {
            char::REPLACEMENT_CHARACTER
        }
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        c => c,
    }
}

/// The text with [`printable_char`] in place of each character: one line.
pub fn printable(text: &str) -> String {
    text.chars().map(printable_char).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_moves_a_cursor_or_turns_text_around_is_left() {
        assert_eq!(
            printable("a\x1b[31m\n\t\u{202e}b\u{2028}\u{9b}"),
            "a\u{fffd}[31m\u{fffd}\u{fffd}\u{fffd}b\u{fffd}\u{fffd}"
        );
        assert_eq!(printable("Größe: 5 µs, 漢字"), "Größe: 5 µs, 漢字");
    }
}
