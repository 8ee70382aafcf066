//! `--load`: ordinary work beside the measurement, so that a comparison under stress is one
//! command.
//!
//! Workers are processes, not threads: they share no heap, no address space (whose lock and TLB
//! shootdowns would reach the measured threads) and no locked memory, which mlockall(2) would make
//! of every page a thread of ours maps, and which ends at fork and exec. They run at SCHED_OTHER on
//! every allowed CPU. The same program does the work (`worker`), or stress-ng where it is installed
//! and has what is asked for; `own:` and `stress-ng:` say which, for figures that are to be
//! comparable.
//!
//! Invariant: a [`RunningLoad`] ends its workers and reaps them; they end by themselves when the
//! thread that started them does, however that happens.

mod stress_ng;
#[cfg(test)]
mod tests;
mod worker;

pub use worker::{WorkerArgs, work};

use crate::sys::child;
use anyhow::{Context, bail, ensure};
use rtcore::sys::pidfd::PidFd;
use rtcore::sys::{clock, cpus, poll, process};
use std::fmt;
use std::io::{PipeReader, Read};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::process::{Child, Command, ExitStatus};
use std::str::FromStr;

/// Most workers of a run, all kinds together.
pub const WORKERS_MAX: usize = 64;
/// Time for all of them to be ready, the touching of their memory included.
const READY_NS: u64 = 30_000_000_000;
/// Time a stress-ng has to end its stressors before it is killed.
const END_NS: u64 = 3_000_000_000;
/// Most that is kept of what one worker says.
const OUTPUT_BYTES: usize = 16 * 1024;

/// The kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Integer and floating-point arithmetic.
    Cpu,
    /// A buffer larger than the last-level cache, streamed and at random.
    Memory,
    /// Cheap system calls: clocks, a file of /proc, mappings.
    Syscall,
    /// Messages there and back by pipe, socket, message queue and futex.
    Ipc,
}

impl Kind {
    const ALL: [Kind; 4] = [Kind::Cpu, Kind::Memory, Kind::Syscall, Kind::Ipc];

    fn text(self) -> &'static str {
        match self {
            Kind::Cpu => "cpu",
            Kind::Memory => "memory",
            Kind::Syscall => "syscall",
            Kind::Ipc => "ipc",
        }
    }
}

/// The program that does the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// stress-ng where it can, else this program.
    Either,
    Own,
    StressNg,
}

/// One load: `[own:|stress-ng:]KIND[:N]`, N workers (1..=64, by default as many as there are CPUs).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadSpec {
    kind: Kind,
    count: Option<usize>,
    by: By,
}

impl FromStr for LoadSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<LoadSpec, String> {
        const FORM: &str = "[own:|stress-ng:]cpu|memory|syscall|ipc[:N]";
        let (by, rest) = match text.split_once(':') {
            Some(("own", rest)) => (By::Own, rest),
            Some(("stress-ng", rest)) => (By::StressNg, rest),
            _ => (By::Either, text),
        };
        let (name, count) = rest
            .split_once(':')
            .map_or((rest, None), |(name, count)| (name, Some(count)));
        let kind = Kind::ALL.into_iter().find(|kind| kind.text() == name);
        let kind = kind.ok_or_else(|| {
            format!("load `{text}`: there is no kind `{name}`; the form is {FORM}")
        })?;
        if kind == Kind::Syscall && by == By::StressNg {
            return Err(format!(
                "load `{text}`: {}; use own:syscall",
                stress_ng::NO_SYSCALL
            ));
        }
        let count = count.map(|count| match count.parse() {
            Ok(n @ 1..=WORKERS_MAX) => Ok(n),
            _ => Err(format!(
                "load `{text}`: `{count}` workers; 1 to {WORKERS_MAX} are possible, as in {name}:2"
            )),
        });
        Ok(LoadSpec {
            kind,
            count: count.transpose()?,
            by,
        })
    }
}

impl fmt::Display for LoadSpec {
    /// As it was asked for.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = match self.by {
            By::Either => "",
            By::Own => "own:",
            By::StressNg => "stress-ng:",
        };
        write!(f, "{by}{}", self.kind.text())?;
        self.count.map_or(Ok(()), |count| write!(f, ":{count}"))
    }
}

/// The two ways in: text to specs, specs to processes.
#[derive(Debug)]
pub enum Load {}

impl Load {
    /// Reads a comma-separated list. The error names the item and its form.
    pub fn parse(text: &str) -> Result<Vec<LoadSpec>, String> {
        text.split(',').map(LoadSpec::from_str).collect()
    }

    /// Starts the workers and waits until each is at work. They end when the calling thread does,
    /// so that thread has to last as long as the measurement.
    ///
    /// Errors: more than 64 workers, no memory for them, a worker that does not start, the program
    /// it needs is absent.
    pub fn start(specs: &[LoadSpec]) -> anyhow::Result<RunningLoad> {
        let program = std::env::current_exe().context("cannot find this binary")?;
        Load::start_by(specs, || Command::new(&program))
    }

    /// With another way to this program's `load-worker`.
    fn start_by(specs: &[LoadSpec], own: impl Fn() -> Command) -> anyhow::Result<RunningLoad> {
        let mut load = RunningLoad {
            workers: Vec::new(),
            lines: Vec::new(),
            owner: std::process::id(),
        };
        if specs.is_empty() {
            return Ok(load);
        }
        let cpus = cpus::allowed()
            .context("cannot count the CPUs for --load")?
            .len()
            .clamp(1, WORKERS_MAX);
        let counted = || specs.iter().map(|spec| (spec, spec.count.unwrap_or(cpus)));
        let total: usize = counted().map(|(_, count)| count).sum();
        ensure!(
            total <= WORKERS_MAX,
            "--load would start {total} workers, at most {WORKERS_MAX} are possible: give counts, \
             as in --load {}:{}",
            specs[0].kind.text(),
            (WORKERS_MAX / specs.len().max(1)).max(1)
        );
        let memory = counted().filter(|(spec, _)| spec.kind == Kind::Memory);
        worker::ensure_memory(memory.map(|(_, count)| count).sum())?;
        let stress_ng = match specs.iter().any(|spec| spec.by != By::Own) {
            true => stress_ng::version()?,
            false => None,
        };

        for (spec, count) in counted() {
            match (&stress_ng, spec.by, stress_ng::arguments(spec.kind, count)) {
                (Some(version), By::Either | By::StressNg, Some(arguments)) => {
                    load.lines.push(format!(
                        "{}:{count} ({version} {})",
                        spec.kind.text(),
                        arguments.join(" ")
                    ));
                    load.spawn(
                        stress_ng::command(&arguments),
                        spec.kind,
                        Announce::StressNg(count),
                    )?;
                }
                (None, By::StressNg, _) => {
                    bail!(
                        "--load {spec}: stress-ng is not installed: apt install stress-ng, or --load own:..."
                    )
                }
                _ => {
                    load.lines.push(format!(
                        "{}:{count} (own, {})",
                        spec.kind.text(),
                        worker::what(spec.kind)
                    ));
                    for _ in 0..count {
                        load.spawn(worker::command(own(), spec.kind), spec.kind, Announce::Own)?;
                    }
                }
            }
        }
        load.wait_ready()?;
        Ok(load)
    }
}

/// How a worker says that it is at work.
#[derive(Clone, Copy, Debug)]
enum Announce {
    /// A line that ends in `ready`.
    Own,
    /// Reports a line of --verbose for each of this number of stressors.
    StressNg(usize),
}

impl Announce {
    fn is_complete(self, output: &str) -> bool {
        // A line counts when it is whole.
        let mut lines = output
            .split_inclusive('\n')
            .filter_map(|line| line.strip_suffix('\n'));
        match self {
            Announce::Own => lines.any(|line| line.ends_with("ready")),
            Announce::StressNg(count) => {
                lines
                    .filter(|l| l.contains(" started ") && l.contains("(instance "))
                    .count()
                    >= count
            }
        }
    }
}

/// Workers at work; dropping it ends them.
#[derive(Debug)]
pub struct RunningLoad {
    workers: Vec<Worker>,
    /// A description of each spec.
    lines: Vec<String>,
    /// Process that started them: a fork of it (a sender process) must not end them.
    owner: u32,
}

#[derive(Debug)]
struct Worker {
    child: Child,
    pidfd: PidFd,
    kind: Kind,
    announce: Announce,
    /// Its standard output and error.
    output: PipeReader,
    output_text: Vec<u8>,
}

impl RunningLoad {
    /// The running load: `cpu:2 (stress-ng 0.15.06 --cpu 2), ipc:1 (own, ...); SCHED_OTHER`.
    pub fn describe(&self) -> String {
        if self.lines.is_empty() {
            "none".to_owned()
        } else {
            format!("{}; SCHED_OTHER", self.lines.join(", "))
        }
    }

    /// Process ids of the workers (of stress-ng: of the one that leads its stressors).
    pub fn pids(&self) -> impl Iterator<Item = u32> + '_ {
        self.workers.iter().map(|worker| worker.child.id())
    }

    /// Whether all of them are at work still: to be asked at the end of the measurement, and
    /// whenever there is time.
    ///
    /// Errors: one has ended, so that the figures are those of a lesser load.
    pub fn check(&mut self) -> anyhow::Result<()> {
        for worker in &mut self.workers {
            worker.read_output(0)?;
            if !worker.pidfd.is_alive() {
                bail!(
                    "{}: the load was lower than requested, so run it again",
                    worker.exit_report()
                );
            }
        }
        Ok(())
    }

    fn spawn(
        &mut self,
        mut command: Command,
        kind: Kind,
        announce: Announce,
    ) -> anyhow::Result<()> {
        let (output, writer) = std::io::pipe().context("cannot make a pipe for a load worker")?;
        let error = writer
            .try_clone()
            .context("cannot make a pipe for a load worker")?;
        command
            .stdin(std::process::Stdio::null())
            .stdout(writer)
            .stderr(error);
        child::make_ordinary(&mut command)?;
        let mut child = command.spawn().with_context(|| {
            format!(
                "cannot start {} for --load {}",
                command.get_program().display(),
                kind.text()
            )
        })?;
        let pid = child.id();
        match PidFd::open(i32::try_from(pid)?) {
            Ok(pidfd) => self.workers.push(Worker {
                child,
                pidfd,
                kind,
                announce,
                output,
                output_text: Vec::new(),
            }),
            Err(e) => {
                child::kill_group(pid);
                let _ = child.wait();
                return Err(e).context("cannot watch a load worker");
            }
        }
        Ok(())
    }

    fn wait_ready(&mut self) -> anyhow::Result<()> {
        let deadline_ns = clock::monotonic_ns() + READY_NS;
        for worker in &mut self.workers {
            while !worker
                .announce
                .is_complete(&String::from_utf8_lossy(&worker.output_text))
            {
                let left_ns = deadline_ns.saturating_sub(clock::monotonic_ns());
                let is_open = worker.read_output(left_ns)?;
                if !worker
                    .announce
                    .is_complete(&String::from_utf8_lossy(&worker.output_text))
                {
                    ensure!(is_open, "{}", worker.exit_report());
                    ensure!(left_ns > 0, "{}", worker.start_timeout());
                }
            }
        }
        Ok(())
    }
}

impl Worker {
    /// Reads its output, and waits at most `timeout_ns` for it. False: the output has ended.
    fn read_output(&mut self, timeout_ns: u64) -> anyhow::Result<bool> {
        if !is_readable(self.output.as_raw_fd(), timeout_ns) {
            return Ok(true);
        }
        let mut part = [0; 4096];
        let n = self
            .output
            .read(&mut part)
            .context("cannot read the output of a load worker")?;
        self.output_text.extend_from_slice(&part[..n]);
        // Its last lines say why it ended.
        let excess = self.output_text.len().saturating_sub(OUTPUT_BYTES);
        self.output_text.drain(..excess);
        Ok(n > 0)
    }

    /// The last line of its output, as the end of a message.
    fn last_line(&self) -> String {
        let text = String::from_utf8_lossy(&self.output_text);
        match text.lines().rev().find(|line| !line.trim().is_empty()) {
            Some(line) => format!("; its last line: {}", line.trim()),
            None => String::new(),
        }
    }

    fn exit_report(&mut self) -> String {
        let pid = self.child.id();
        let ending = self
            .end(END_NS)
            .map_or_else(|e| e.to_string(), |status| status.to_string());
        // No more output can follow: no other process holds the other end.
        while is_readable(self.output.as_raw_fd(), 0) && self.read_output(0).unwrap_or(false) {}
        format!(
            "load worker `{}` (pid {pid}) ended: {ending}{}",
            self.kind.text(),
            self.last_line()
        )
    }

    fn start_timeout(&self) -> String {
        let (kind, pid, seconds) = (self.kind.text(), self.child.id(), READY_NS / 1_000_000_000);
        let fix = match self.announce {
            Announce::StressNg(_) => {
                format!("; another version of stress-ng? --load own:{kind} does not need it")
            }
            Announce::Own => "; fewer workers (--load KIND:N) start sooner".to_owned(),
        };
        format!(
            "load worker `{kind}` (pid {pid}) is not at work after {seconds} s{}{fix}",
            self.last_line()
        )
    }

    /// Asks it to end, without waiting.
    fn begin_end(&self) {
        match self.announce {
            Announce::Own => child::kill_group(self.child.id()),
            // It has files, queues and stressors of its own to clear away.
            Announce::StressNg(_) => process::terminate(self.child.id()),
        }
    }

    /// Waits for it, kills what is left of its group, reaps it.
    fn end(&mut self, timeout_ns: u64) -> std::io::Result<ExitStatus> {
        is_readable(self.pidfd.as_fd().as_raw_fd(), timeout_ns);
        child::kill_group(self.child.id());
        self.child.wait()
    }
}

impl Drop for RunningLoad {
    fn drop(&mut self) {
        if self.owner != std::process::id() {
            return;
        }
        self.workers.iter().for_each(Worker::begin_end);
        for worker in &mut self.workers {
            let _ = worker.end(END_NS);
        }
    }
}

/// Waits at most `timeout_ns`; an interrupted wait goes on.
fn is_readable(fd: RawFd, timeout_ns: u64) -> bool {
    let deadline_ns = clock::monotonic_ns().saturating_add(timeout_ns);
    loop {
        let left_ns = deadline_ns.saturating_sub(clock::monotonic_ns());
        match poll::wait(&mut [poll::Interest::readable(fd)], left_ns) {
            Ok(n) => return n > 0,
            Err(rtcore::sys::Errno::INTR) if left_ns > 0 => {}
            Err(_) => return false,
        }
    }
}
