//! SIGINT, SIGTERM and SIGHUP as something to wait for, so that they end the demo in order.

use anyhow::bail;
use rtcore::sys::rtsignal::{self, SignalSet};
use rtcore::sys::{clock, poll};
use std::os::fd::{AsRawFd, OwnedFd};

/// Readable when the user wants to stop.
#[derive(Debug)]
pub struct Stop {
    pending: OwnedFd,
}

impl Stop {
    /// Blocks the signals; from now on they come through this only. Before the first thread.
    pub fn on_signals() -> anyhow::Result<Stop> {
        let set = SignalSet::of(rtsignal::TERMINATION);
        set.block()?;
        Ok(Stop {
            pending: set.descriptor()?,
        })
    }

    /// Waits until `at_ns`; an error when the user wants to stop, also when it is that late
    /// already.
    pub fn wait_until(&self, at_ns: u64) -> anyhow::Result<()> {
        loop {
            let left_ns = at_ns.saturating_sub(clock::monotonic_ns());
            match poll::wait(
                &mut [poll::Interest::readable(self.pending.as_raw_fd())],
                left_ns,
            ) {
                Ok(0) if left_ns == 0 => return Ok(()),
                Ok(0) | Err(rtcore::sys::Errno::INTR) => {}
                Ok(_) => bail!("stopped by a signal before the end; nothing is left behind"),
                Err(e) => bail!("cannot wait: {e}"),
            }
        }
    }
}
