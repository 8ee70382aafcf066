//! This program started again as a child: the probe of Cobalt, a tool's own daemon, the parts of
//! the demo.

#![forbid(unsafe_code)]

use anyhow::{Context as _, bail};
use rtcore::sys::{clock, poll, process};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

/// Time limit for a child to end.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// This program again, as a child that ends with this process and has no terminal.
pub fn own_binary() -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("cannot find this binary")?);
    process::die_with_parent_at_exec(&mut command);
    command.process_group(0);
    Ok(command)
}

/// Waits for the end of a child, with a time limit.
pub fn wait(child: &mut Child) -> anyhow::Result<ExitStatus> {
    let give_up_ns = clock::monotonic_ns() + clock::nanos(PATIENCE);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        let left_ns = give_up_ns.saturating_sub(clock::monotonic_ns());
        if left_ns == 0 {
            bail!("pid {} does not end", child.id());
        }
        let pidfd = process::pidfd(child.id())?;
        let _ = poll::wait(&mut [poll::Interest::readable(pidfd.as_raw_fd())], left_ns);
    }
}
