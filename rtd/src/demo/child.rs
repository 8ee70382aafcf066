//! The demo's children: the daemon and the five parts, started from this very binary.

use super::PATIENCE;
use super::config::Setup;
use super::report::{Packed, Report};
use super::roles::{self, Schedule};
use anyhow::{Context as _, bail};
use ipc_channel::ipc::{IpcOneShotServer, IpcSender};
use rtcore::sys::rtsignal::{self, SignalSet};
use rtcore::sys::{clock, poll, process};
use std::cell::RefCell;
use std::io::{BufRead, BufReader, Write as _};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Instant;

/// Arguments of the hidden `rtd demo-part`: one of the demo's programs.
#[derive(clap::Args, Clone, Debug)]
pub struct Part {
    name: String,
    #[arg(long)]
    socket: String,
    #[arg(long)]
    queue: String,
    #[arg(long)]
    report: String,
    #[arg(long)]
    daemon_pid: i32,
    #[arg(long)]
    start_ns: u64,
    #[arg(long)]
    flood_ns: u64,
    #[arg(long)]
    end_ns: u64,
}

/// SIGINT and SIGTERM as something to wait for.
#[derive(Debug)]
pub struct Stop {
    pending: OwnedFd,
}

/// Blocks SIGINT and SIGTERM; from now on they end the demo through [`Stop`], children and queues included.
pub fn stop_on_signals() -> anyhow::Result<Stop> {
    let set = SignalSet::of(rtsignal::TERMINATION);
    set.block()?;
    Ok(Stop { pending: set.descriptor()? })
}

impl Stop {
    /// Waits until `at_ns`; an error when the user wants to stop.
    pub fn wait_until(&self, at_ns: u64) -> anyhow::Result<()> {
        loop {
            let left_ns = at_ns.saturating_sub(clock::monotonic_ns());
            match poll::wait(&mut [poll::Interest::readable(self.pending.as_raw_fd())], left_ns) {
                Ok(0) if left_ns == 0 => return Ok(()),
                Ok(0) | Err(rtcore::sys::Errno::INTR) => {}
                Ok(_) => bail!("stopped by a signal"),
                Err(e) => bail!("cannot wait: {e}"),
            }
        }
    }
}

/// `rtd run` on the demo's configuration.
#[derive(Debug)]
pub struct DaemonChild {
    child: Child,
    stderr: mpsc::Receiver<String>,
    queues: Vec<String>,
}

impl DaemonChild {
    /// Starts it and waits until it is ready.
    pub fn start(setup: &Setup) -> anyhow::Result<DaemonChild> {
        let mut command = own_binary()?;
        command.args(["run", "--allow-degraded", "-"]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start rtd run")?;
        let (tell, stderr) = mpsc::channel();
        let pipe = child.stderr.take().context("no stderr")?;
        std::thread::spawn(move || {
            BufReader::new(pipe).lines().map_while(Result::ok).try_for_each(|line| tell.send(line))
        });
        let queues = ["cmd.in", "cmd.out", "data.in", "data.out"].map(|e| setup.queue(e)).to_vec();
        let mut stdin = child.stdin.take().context("no stdin")?;
        stdin.write_all(setup.toml().as_bytes())?;
        drop(stdin);
        let stdout = child.stdout.take().context("no stdout")?;
        let daemon = DaemonChild { child, stderr, queues };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        if line.trim_end() != "READY" {
            let said: Vec<String> = daemon.stderr.iter().collect();
            bail!("rtd run did not start:\n{}", said.join("\n"));
        }
        Ok(daemon)
    }

    /// Its pid: whom the button signals.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Warnings and errors it logged so far.
    pub fn complaints(&self) -> Vec<String> {
        self.stderr.try_iter().filter(|l| l.contains("warning:") || l.contains("error:")).collect()
    }

    /// Ends it cleanly.
    pub fn stop(mut self) -> anyhow::Result<()> {
        process::terminate(self.child.id());
        let status = wait(&mut self.child)?;
        if !status.success() {
            let said: Vec<String> = self.stderr.iter().collect();
            bail!("rtd run ended with {status}:\n{}", said.join("\n"));
        }
        Ok(())
    }
}

impl Drop for DaemonChild {
    fn drop(&mut self) {
        process::terminate(self.child.id());
        if wait(&mut self.child).is_err() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        for queue in self.queues.iter().filter_map(|q| std::ffi::CString::new(q.as_str()).ok()) {
            // The daemon removed them already, unless it was killed.
            let _ = rtcore::sys::mqueue::Queue::unlink(&queue);
        }
    }
}

/// The five parts.
#[derive(Debug)]
pub struct Children {
    running: RefCell<Vec<(String, Child)>>,
    reports: mpsc::Receiver<anyhow::Result<Vec<Packed>>>,
}

/// A part and the queue it opens (button and stop thread need none).
const PARTS: [(&str, &str); 5] = [
    ("drive", "cmd.out"),
    ("logger", "data.out"),
    ("controller", "cmd.in"),
    ("sensors", "data.in"),
    ("button", ""),
];

impl Children {
    /// Starts them all.
    pub fn start(setup: &Setup, schedule: Schedule, daemon_pid: u32) -> anyhow::Result<Children> {
        let (tell, reports) = mpsc::channel();
        let children = Children { running: RefCell::default(), reports };
        for (name, endpoint) in PARTS {
            let (server, server_name) = IpcOneShotServer::<Vec<Packed>>::new()?;
            let mut command = own_binary()?;
            command
                .args(["demo-part", name])
                .args(["--socket", &setup.socket])
                .args(["--queue", &setup.queue(endpoint)])
                .args(["--report", &server_name])
                .args(["--daemon-pid", &daemon_pid.to_string()])
                .args(["--start-ns", &schedule.start_ns.to_string()])
                .args(["--flood-ns", &schedule.flood_ns.to_string()])
                .args(["--end-ns", &schedule.end_ns.to_string()]);
            let child =
                command.stdin(Stdio::null()).spawn().with_context(|| format!("cannot start {name}"))?;
            children.running.borrow_mut().push((name.to_owned(), child));
            let tell = tell.clone();
            // Accepting blocks for good if the part dies before it reports; the parent does not wait for
            // this thread, only for the channel, with a bound.
            std::thread::spawn(move || {
                let report = server.accept().map(|(_, report)| report).map_err(|e| anyhow::anyhow!("{e}"));
                let _ = tell.send(report);
            });
        }
        Ok(children)
    }

    /// An error when one ended with a failure.
    pub fn check(&self) -> anyhow::Result<()> {
        for (name, child) in self.running.borrow_mut().iter_mut() {
            if let Some(status) = child.try_wait()?
                && !status.success()
            {
                bail!("{name} ended with {status}");
            }
        }
        Ok(())
    }

    /// Everybody's result.
    pub fn reports(self) -> anyhow::Result<Vec<Report>> {
        let mut all = Vec::new();
        for _ in PARTS {
            let packed = self.reports.recv_timeout(PATIENCE);
            self.check()?;
            for report in packed.context("a part did not report in time")?? {
                all.push(report.unpack()?);
            }
        }
        Ok(all)
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        for (_, child) in self.running.borrow_mut().iter_mut() {
            if matches!(child.try_wait(), Ok(None)) {
                let _ = child.kill();
            }
            let _ = child.wait();
        }
    }
}

/// The body of `rtd demo-part`: registers, plays its role, reports.
pub fn run_part(part: &Part) -> anyhow::Result<()> {
    process::die_with_parent()?;
    let schedule = Schedule { start_ns: part.start_ns, flood_ns: part.flood_ns, end_ns: part.end_ns };
    let told = roles::Part { schedule, queue: part.queue.clone(), daemon_pid: part.daemon_pid };
    // Registered from the main thread before the role starts: the stop signal is blocked by then.
    crate::ctl::register::this_process(part.socket.as_ref(), &part.name)?;
    let reports = match part.name.as_str() {
        "button" => vec![roles::button(&told)?],
        "controller" => vec![roles::controller(&told)?],
        "sensors" => vec![roles::sensors(&told)?],
        "drive" => roles::drive(&told)?,
        "logger" => vec![roles::logger(&told)?],
        other => bail!("no part is called {other}"),
    };
    let parent = IpcSender::connect(part.report.clone())?;
    parent.send(reports.iter().map(Report::pack).collect::<Vec<_>>())?;
    Ok(())
}

fn own_binary() -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("cannot find this binary")?);
    process::die_with_parent_at_exec(&mut command);
    Ok(command)
}

fn wait(child: &mut Child) -> anyhow::Result<std::process::ExitStatus> {
    let give_up = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() > give_up {
            bail!("pid {} does not end", child.id());
        }
        let pidfd = process::pidfd(child.id())?;
        let _ = poll::wait(&mut [poll::Interest::readable(pidfd.as_raw_fd())], 100_000_000);
    }
}
