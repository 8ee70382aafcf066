//! The real daemon on a configuration made here.

use anyhow::{Context as _, bail};
use std::io::{BufRead, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Running `rtd run`; ended when dropped, its queues with it.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    /// Start of the process to READY.
    pub ready_after: Duration,
}

impl Daemon {
    /// Starts it on this configuration and waits for READY.
    pub fn start(config: &str) -> anyhow::Result<Daemon> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rtd"));
        command.args(["run", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        rtcore::sys::process::die_with_parent_at_exec(&mut command);
        let started = Instant::now();
        let mut child = command.spawn().context("cannot start rtd")?;
        child.stdin.take().context("no stdin")?.write_all(config.as_bytes())?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no stdout")?).read_line(&mut line)?;
        let ready_after = started.elapsed();
        let stderr = child.stderr.take().context("no stderr")?;
        let lines = BufReader::new(stderr).lines().map_while(Result::ok);
        if line.trim_end() != "READY" {
            bail!("rtd did not start:\n{}", lines.collect::<Vec<_>>().join("\n"));
        }
        // The pipe must not fill up: somebody reads it to its end.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(Daemon { child, ready_after })
    }

    /// Resident memory in KiB and threads, from /proc/PID/status.
    pub fn resident(&self) -> anyhow::Result<(u64, u64)> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let field = |key: &str| {
            let line = status.lines().find_map(|l| l.strip_prefix(key)).context("no such field")?;
            line.split_whitespace().next().context("empty field")?.parse::<u64>().context("not a number")
        };
        Ok((field("VmRSS:")?, field("Threads:")?))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        rtcore::sys::process::terminate(self.child.id());
        let _ = self.child.wait();
    }
}

/// The head of a configuration: daemon and one lane above the bench's own priorities.
pub fn head(instance: &str, cpu: usize, lane_priority: u8) -> String {
    format!(
        "[daemon]\nname = \"{instance}\"\nsocket = \"/tmp/rtd-bench/{instance}.sock\"\nkeep_queues = false\n\
         [[lane]]\nname = \"lane\"\npriority = {lane_priority}\ncpu = {cpu}\n"
    )
}

/// An mqueue endpoint.
pub fn mqueue(name: &str, queue: &str, maxmsg: usize) -> String {
    format!(
        "[[endpoint]]\nname = \"{name}\"\nkind = \"mqueue\"\nqueue = \"{queue}\"\nmaxmsg = {maxmsg}\nmsgsize = 64\n"
    )
}

/// A route in the lane.
pub fn route(from: &str, to: &str, more: &str) -> String {
    format!("[[route]]\nfrom = \"{from}\"\nto = [\"{to}\"]\nlane = \"lane\"\n{more}\n")
}
