//! Plain lines on standard error, `rtd: warning: ...`; the service manager adds the time.
//!
//! Constraint: allocates and may block in write(2). Never on a real-time thread.

use std::fmt::Arguments;
use std::io::Write;

/// Something happened that an operator wants to see.
pub fn info(text: Arguments<'_>) {
    line("", text);
}

/// Something is wrong and the daemon goes on.
pub fn warning(text: Arguments<'_>) {
    line("warning: ", text);
}

/// Something failed.
pub fn error(text: Arguments<'_>) {
    line("error: ", text);
}

fn line(level: &str, text: Arguments<'_>) {
    // One write per line, so that lines of several threads do not mix. Control characters can come from
    // the paths and names of clients and must not move the cursor of whoever reads the log.
    let text: String = format!("rtd: {level}{text}")
        .chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .chain(['\n'])
        .collect();
    // Nobody to tell when standard error is gone.
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}
