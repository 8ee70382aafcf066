//! Errors of system calls that name their object and still know their number (errno(3)).

use std::error::Error;
use std::fmt::{self, Display};
use std::io;

/// The failed operation, and its object.
#[derive(Debug)]
struct Named {
    text: String,
    source: io::Error,
}

impl Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for Named {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.source)
    }
}

/// Puts the object in front of an error's text; kind and number stay.
pub fn named(object: impl Display, e: impl Into<io::Error>) -> io::Error {
    let source = e.into();
    io::Error::new(
        source.kind(),
        Named {
            text: format!("{object}: {source}"),
            source,
        },
    )
}

/// The number of the system call's error, also where the object stands in front of its text.
pub fn errno_of(e: &io::Error) -> Option<i32> {
    e.raw_os_error()
        .or_else(|| errno_of(&e.get_ref()?.downcast_ref::<Named>()?.source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_error_keeps_its_number() {
        let plain = io::Error::from_raw_os_error(libc::EMFILE);
        let named = named("lane", named("/proc/1/status", plain));
        assert_eq!(errno_of(&named), Some(libc::EMFILE));
        assert!(
            named.to_string().starts_with("lane: /proc/1/status: "),
            "{named}"
        );
        assert_eq!(errno_of(&io::Error::other("no number")), None);
    }
}
