//! Starting and ending the daemon of a world.

use super::{Restart, World, wait};
use crate::journal::now_ns;
use crate::patience::Patience;
use crate::plan::{self, POLLING_LANE, POLLING_NICE};
use crate::traced::Killer;
use anyhow::{Context as _, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

impl World {
    fn run_rtd(&self) -> anyhow::Result<Command> {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.root.join("log"))?;
        let mut command = self.command("rtd");
        command
            .arg("run")
            .arg(self.root.join("rtd.toml"))
            .env("RTD_GUARD", "abort");
        command.stdout(Stdio::piped()).stderr(log);
        Ok(command)
    }

    /// Starts the daemon and waits until it is ready.
    pub fn start_daemon(&mut self) -> anyhow::Result<()> {
        match self.try_start(|_| Ok(()))? {
            None => Ok(()),
            Some(text) => bail!("rtd did not start: {text}"),
        }
    }

    /// Starts the daemon as `prepare` wants it. Returns none if it is ready, else what it wrote to
    /// standard error: it has to end with an exit code that is not 0.
    pub fn try_start(
        &mut self,
        prepare: impl FnOnce(&mut Command) -> anyhow::Result<()>,
    ) -> anyhow::Result<Option<String>> {
        ensure!(self.daemon.is_none(), "it runs");
        let log = self.root.join("log");
        let before = std::fs::metadata(&log).map_or(0, |m| m.len());
        let mut command = self.run_rtd()?;
        prepare(&mut command)?;
        let start_ns = now_ns();
        let mut child = command.spawn().context("cannot start rtd")?;
        if is_ready(&mut child)? {
            self.runs(child, start_ns)?;
            return Ok(None);
        }
        let status = wait(&mut child)?;
        let text = std::fs::read(&log)?;
        let text =
            String::from_utf8_lossy(text.get(usize::try_from(before)?..).unwrap_or_default())
                .into_owned();
        // A fault at a named point.
        if status.signal() == Some(libc::SIGKILL) {
            return Ok(Some(text));
        }
        ensure!(
            status.code().is_some_and(|code| code != 0),
            "rtd ended with {status}: {text}"
        );
        ensure!(
            !text.trim().is_empty() && !text.contains("panicked"),
            "rtd ended with {status}: {text}"
        );
        Ok(Some(text))
    }

    /// This daemon, which was started then, is ready.
    fn runs(&mut self, child: Child, start_ns: u64) -> anyhow::Result<()> {
        if let Some(restart) = &mut self.restart {
            (restart.start_ns, restart.ready_ns) = (start_ns, now_ns());
        }
        self.control.rtd_pid.store(child.id(), Ordering::Release);
        self.daemon = Some(child);
        self.tame_polling_lane()?;
        self.books.open()
    }

    /// Starts two daemons of the same name at once: one has to run and the other to refuse.
    pub fn start_two_daemons(&mut self) -> anyhow::Result<()> {
        let start_ns = now_ns();
        let mut both = [self.run_rtd()?.spawn()?, self.run_rtd()?.spawn()?];
        let mut ready = Vec::new();
        for child in &mut both {
            ready.push(is_ready(child)?);
        }
        let [first, second] = both;
        let (winner, mut loser) = match ready[..] {
            [true, false] => (first, second),
            [false, true] => (second, first),
            _ => bail!(
                "of two daemons of the same name that start at once these are ready: {ready:?}"
            ),
        };
        let status = wait(&mut loser)?;
        ensure!(
            !status.success(),
            "the second of two daemons of the same name ended with {status}"
        );
        self.runs(winner, start_ns)
    }

    /// Makes the polling lane's thread an ordinary one, which yields to all others. See
    /// [`POLLING_LANE`].
    fn tame_polling_lane(&self) -> anyhow::Result<()> {
        let is_used = format!("lane = \"{POLLING_LANE}\"");
        if !self.config.contains(&is_used) {
            // Few streams leave it without a route, and so without a thread.
            return Ok(());
        }
        let tasks = format!("/proc/{}/task", self.daemon_pid()?);
        for task in std::fs::read_dir(tasks)?.flatten() {
            let name = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            if name.trim_end() == POLLING_LANE {
                let tid = task.file_name().to_string_lossy().parse()?;
                rtcore::sys::sched::make_ordinary(tid).map_err(std::io::Error::from)?;
                // SAFETY: setpriority(2) has no memory effects; PRIO_PROCESS takes the id of a
                // thread.
                let set = unsafe {
                    libc::setpriority(libc::PRIO_PROCESS, tid.unsigned_abs(), POLLING_NICE)
                };
                ensure!(set == 0, "setpriority: {}", std::io::Error::last_os_error());
                return Ok(());
            }
        }
        bail!("rtd has no thread {POLLING_LANE}")
    }

    /// Starts the daemon, and kills it before its `calls`-th system call or when it is ready.
    pub fn abort_start(&mut self, calls: u64) -> anyhow::Result<()> {
        let mut command = self.command("rtd");
        command
            .arg("run")
            .arg(self.root.join("rtd.toml"))
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command.spawn().context("cannot start rtd")?;
        let pid = Pid::from_raw(i32::try_from(child.id())?);
        let killer = Killer::at_call(pid, calls)?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no standard output")?).read_line(&mut line)?;
        killer.finish(pid)?;
        wait(&mut child).context("rtd does not end")?;
        Ok(())
    }

    /// Writes another configuration, for the next start: lanes of other priorities, routes of other
    /// capacities.
    pub fn change_configuration(&mut self) -> anyhow::Result<()> {
        self.changes += 1;
        self.config = plan::config(&self.streams, self.cpu, self.other_cpu, self.changes);
        Ok(std::fs::write(self.root.join("rtd.toml"), &self.config)?)
    }

    /// The daemon's process.
    pub fn daemon_pid(&self) -> anyhow::Result<Pid> {
        let id = self.daemon.as_ref().context("rtd does not run")?.id();
        Ok(Pid::from_raw(i32::try_from(id)?))
    }

    /// Ends the daemon by this signal, and takes its last figures.
    pub fn end_daemon(&mut self, signal: Signal) -> anyhow::Result<ExitStatus> {
        let end_ns = now_ns();
        // One that a tracer killed may be gone already.
        let _ = kill(self.daemon_pid()?, signal);
        self.control.rtd_pid.store(0, Ordering::Release);
        let mut child = self.daemon.take().context("rtd does not run")?;
        let status = wait(&mut child).context("rtd does not end")?;
        self.ended_with_copy = std::mem::take(&mut self.page_is_copy);
        let (gone_ns, begun) = (now_ns(), self.begun());
        self.restart = Some(Restart {
            end_ns,
            gone_ns,
            begun,
            start_ns: 0,
            ready_ns: 0,
        });
        self.books.close()?;
        ensure!(
            signal != Signal::SIGTERM || status.success(),
            "rtd ended with {status}"
        );
        Ok(status)
    }

    /// Whether the daemon has ended by itself.
    pub fn daemon_ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(match &mut self.daemon {
            Some(child) => child.try_wait()?,
            None => None,
        })
    }

    /// Runs the daemon once more beside the one that runs, which it has to refuse.
    pub fn second_daemon(&self) -> anyhow::Result<()> {
        let mut command = self.command("rtd");
        let mut child = command
            .arg("run")
            .arg("-")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        child
            .stdin
            .take()
            .context("no standard input")?
            .write_all(self.config.as_bytes())?;
        let status = wait(&mut child)?;
        ensure!(!status.success(), "a second rtd of the same name ran");
        Ok(())
    }
}

/// Waits until the daemon says READY; false if it ends before.
fn is_ready(child: &mut Child) -> anyhow::Result<bool> {
    let out = child.stdout.take().context("no standard output")?;
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let _ = BufReader::new(out).read_line(&mut line);
        let _ = sender.send(line);
    });
    let mut patience = Patience::new();
    loop {
        match receiver.recv_timeout(Duration::from_millis(10)) {
            Ok(line) => return Ok(line.trim_end() == "READY"),
            Err(RecvTimeoutError::Timeout) if !patience.is_over() => {}
            Err(_) => {
                let _ = child.kill();
                let _ = child.wait();
                bail!("rtd is neither ready nor does it end");
            }
        }
    }
}
