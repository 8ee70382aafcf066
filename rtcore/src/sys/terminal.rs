//! The terminal behind a descriptor.

use std::os::fd::AsFd;

/// Columns of the terminal; none if `fd` is not a terminal or the terminal does not know its size.
pub fn columns(fd: impl AsFd) -> Option<usize> {
    let columns = rustix::termios::tcgetwinsize(fd).ok()?.ws_col;
    (columns > 0).then_some(usize::from(columns))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_no_columns() {
        assert_eq!(columns(std::fs::File::open("/dev/null").unwrap()), None);
    }
}
