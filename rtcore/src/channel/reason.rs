//! Why the daemon refuses a session, as text that real-time calls can return:
//! [`SendError`](super::SendError) is `Copy` and never touches the heap.
//!
//! Each text is stored once, for the life of the process. A daemon has few different reasons to
//! refuse one process; after [`TEXTS_MAX`] texts, a general one replaces further ones.

use std::sync::OnceLock;

const TEXTS_MAX: usize = 32;
const OTHER: &str = "rtd refuses the session; Session::state() has the reason";

static TEXTS: [OnceLock<&'static str>; TEXTS_MAX] = [const { OnceLock::new() }; TEXTS_MAX];

/// Stores a text and returns its number. Session threads only.
pub(crate) fn keep(text: &str) -> u32 {
    for (number, place) in (0..).zip(&TEXTS) {
        // Only the thread that fills the place leaks the text.
        if *place.get_or_init(|| Box::leak(text.to_owned().into_boxed_str())) == text {
            return number;
        }
    }
    u32::MAX
}

/// The text with this number; callable from any thread, without a lock.
pub(crate) fn text(number: u32) -> &'static str {
    let place = usize::try_from(number)
        .ok()
        .and_then(|number| TEXTS.get(number));
    place.and_then(OnceLock::get).copied().unwrap_or(OTHER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_kept_once_and_too_many_are_one() {
        let first = keep("priority 69, lane \"talk\" 20");
        assert_eq!(text(first), "priority 69, lane \"talk\" 20");
        assert_eq!(keep("priority 69, lane \"talk\" 20"), first);
        let numbers: Vec<u32> = (0..TEXTS_MAX + 2)
            .map(|n| keep(&format!("reason {n}")))
            .collect();
        assert_eq!(numbers.last(), Some(&u32::MAX));
        assert_eq!(text(u32::MAX), OTHER);
        assert_eq!(text(first), "priority 69, lane \"talk\" 20");
    }
}
