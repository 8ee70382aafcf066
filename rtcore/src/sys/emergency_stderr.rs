//! Writes a line to standard error from a real-time thread, if no other thread can be expected to
//! write it.
//!
//! Constraint: only for a thread whose process is about to end, or whose ordinary threads do not
//! run. The reader of standard error may have stopped, and write(2) would then wait, so poll(2)
//! checks for room first. A pipe with room takes PIPE_BUF bytes at once; if another thread takes
//! that room in between, this one waits for the reader.

use super::poll::{self, Interest};

/// Longest line: PIPE_BUF.
pub const BYTES_MAX: usize = libc::PIPE_BUF;

/// Writes a line to standard error if there is room for it now; whether it went out. Touches no
/// heap.
pub fn write_line(line: &[u8]) -> bool {
    let line = line.get(..BYTES_MAX).unwrap_or(line);
    if !matches!(
        poll::wait(&mut [Interest::writable(libc::STDERR_FILENO)], 0),
        Ok(1..)
    ) {
        return false;
    }
    // SAFETY: the line is readable for its length.
    let written = unsafe { libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), line.len()) };
    usize::try_from(written) == Ok(line.len())
}
