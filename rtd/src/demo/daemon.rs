//! The demo's daemon: `rtd run` on the embedded configuration, as a child that ends with its parent.

use super::PATIENCE;
use super::child::{own_binary, wait};
use super::config::Setup;
use anyhow::{Context as _, bail};
use rtcore::sys::process;
use std::io::{BufRead, BufReader, Write as _};
use std::process::{Child, Stdio};
use std::sync::mpsc;

/// Arguments of the hidden `rtd demo-daemon`: `rtd run`, and who its parent is.
#[derive(clap::Args, Clone, Debug)]
pub struct DaemonPart {
    #[arg(long)]
    parent: u32,
    #[command(flatten)]
    run: crate::daemon::RunArgs,
}

/// The body of `rtd demo-daemon`.
pub fn run_daemon(part: &DaemonPart) -> anyhow::Result<()> {
    // Again, although the parent asked for it before exec: a binary with file capabilities has lost it.
    process::die_with_parent(part.parent).context("the demo is gone")?;
    crate::daemon::run(&part.run)
}

/// The running daemon. Dropping it ends it and removes what it could not remove itself.
#[derive(Debug)]
pub struct DaemonChild {
    child: Child,
    stderr: mpsc::Receiver<String>,
    setup: Setup,
}

impl DaemonChild {
    /// Starts it and waits until it is ready.
    pub fn start(setup: &Setup) -> anyhow::Result<DaemonChild> {
        let mut command = own_binary()?;
        let parent = std::process::id().to_string();
        command.args(["demo-daemon", "--parent", &parent, "--allow-degraded", "-"]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start rtd run")?;
        let (tell, stderr) = mpsc::channel();
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let daemon = DaemonChild { child, stderr, setup: setup.clone() };
        let (Some(mut stdin), Some(stdout), Some(pipe)) = pipes else { bail!("rtd run has no pipes") };
        // Read all the time, so that the daemon's log never waits for us.
        std::thread::spawn(move || {
            BufReader::new(pipe).lines().map_while(Result::ok).try_for_each(|line| tell.send(line))
        });
        // A daemon that ended at once says why below.
        let _ = stdin.write_all(setup.toml().as_bytes());
        drop(stdin);
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        if line.trim_end() != "READY" {
            bail!("rtd run did not start:\n{}", daemon.said());
        }
        Ok(daemon)
    }

    /// Its pid: whom the button signals.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// An error when it ended.
    pub fn check(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("rtd run ended with {status}:\n{}", self.said());
        }
        Ok(())
    }

    /// Ends it cleanly.
    pub fn stop(mut self) -> anyhow::Result<()> {
        process::terminate(self.child.id());
        let status = wait(&mut self.child)?;
        if !status.success() {
            bail!("rtd run ended with {status}:\n{}", self.said());
        }
        Ok(())
    }

    /// Its log. Only after its end: reads until its standard error is closed.
    fn said(&self) -> String {
        let mut lines = Vec::new();
        while let Ok(line) = self.stderr.recv_timeout(PATIENCE) {
            lines.push(line);
        }
        lines.join("\n")
    }
}

impl Drop for DaemonChild {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            process::terminate(self.child.id());
            if wait(&mut self.child).is_err() {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
        }
        // It removed all that itself, unless it was killed. The names carry our pid: they are nobody else's.
        let _ = std::fs::remove_file(rtcore::stats::layout::page_path(&self.setup.instance));
        let _ = std::fs::remove_file(&self.setup.socket);
    }
}
