//! Waits that Ctrl-C ends.
//!
//! A wait runs without the GIL and in single turns: look, sleep once, let Python handle the signals
//! that came, look again. Python installs its handlers without SA_RESTART, so the sleep itself ends
//! when a signal comes (EINTR) and nothing polls. As with the locks of CPython, a signal that arrives
//! in the instant between the check and the sleep is handled at the next turn.

use crate::errors::{self, Kind};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use rtcore::sys::clock::monotonic_ns;

/// When a wait ends.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    /// CLOCK_MONOTONIC; `u64::MAX` = never.
    pub at_ns: u64,
    timeout_s: f64,
}

impl Deadline {
    /// So many seconds from now; none = never.
    pub fn after(timeout_s: Option<f64>) -> PyResult<Deadline> {
        let Some(timeout_s) = timeout_s else {
            return Ok(Deadline {
                at_ns: u64::MAX,
                timeout_s: f64::INFINITY,
            });
        };
        let nanoseconds = nanoseconds(timeout_s)?;
        Ok(Deadline {
            at_ns: monotonic_ns().saturating_add(nanoseconds),
            timeout_s,
        })
    }

    pub fn is_over(self) -> bool {
        self.at_ns != u64::MAX && monotonic_ns() >= self.at_ns
    }

    /// Nothing came.
    pub fn error(self, what: &str) -> PyErr {
        let text = format!(
            "{what} within {} s: give it more time, or handle rtcore.Timeout",
            self.timeout_s
        );
        errors::new(Kind::Timeout, None, text)
    }
}

/// Seconds as an integer; infinity is `u64::MAX`.
pub fn nanoseconds(seconds: f64) -> PyResult<u64> {
    if seconds.is_nan() || seconds < 0.0 {
        let text = format!("a timeout is a number of seconds from 0 on, or None: {seconds}");
        return Err(PyValueError::new_err(text));
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "not negative (above); a cast from a float saturates"
    )]
    let nanoseconds = (seconds * 1e9) as u64;
    Ok(nanoseconds)
}

/// One sleep without the GIL; then the signals that came. Errors: what their handlers raised.
pub fn turn<T: Send>(py: Python<'_>, sleep: impl FnOnce() -> T + Send) -> PyResult<T> {
    let done = py.detach(sleep);
    py.check_signals()?;
    Ok(done)
}
