//! A line on standard error from a real-time thread, when nobody else can be relied on to write it.
//!
//! Constraint: only for a thread whose process is about to end, or whose ordinary threads do not
//! run. Who reads standard error may have stopped, and write(2) would then wait: so the descriptor
//! is asked for room first (poll(2)). A pipe that says it has room takes PIPE_BUF bytes at once;
//! should another thread take that room in between, this one waits for the reader.

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
