//! A daemon of a tool's own: `rtd run` on a configuration made up for it, as a child that ends with
//! its parent.
//!
//! Constraint: starting one starts no thread, so that the caller may still fork.

use super::RunArgs;
use crate::child::{own_binary, wait};
use anyhow::{Context as _, bail};
use rtcore::stats::place;
use rtcore::sys::mqueue::Queue;
use rtcore::sys::{keepfile, memfd, process};
use std::ffi::CString;
use std::fs::File;
use std::io::{BufRead, BufReader, Read as _, Seek as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, Stdio};

/// Arguments of the hidden `own-daemon`: `rtd run`, and who its parent is.
#[derive(clap::Args, Clone, Debug)]
pub struct OwnArgs {
    #[arg(long)]
    parent: u32,
    #[command(flatten)]
    run: RunArgs,
}

/// The body of `own-daemon`.
pub fn run_own(args: &OwnArgs) -> anyhow::Result<()> {
    // Again, although the parent asked for it before exec: a binary with file capabilities has lost
    // it.
    process::die_with_parent(args.parent).context("its parent is gone")?;
    super::command::run_once(&args.run)
}

/// The running daemon. Dropping it ends it and removes what it could not remove itself.
#[derive(Debug)]
pub struct OwnDaemon {
    child: Child,
    log: File,
    instance: String,
    socket: PathBuf,
    queues: Vec<CString>,
}

/// Names for a daemon of this process' own: its instance, which carries `tool` and our pid so that
/// two users do not meet, and its control socket.
pub fn names(tool: &str) -> (String, PathBuf) {
    let instance = format!("{tool}-{}", std::process::id());
    let directory = std::env::temp_dir().join(format!("rtd-{}", rtcore::sys::accounts::own_uid()));
    let socket = directory.join(format!("{instance}.sock"));
    (instance, socket)
}

impl OwnDaemon {
    /// Starts it on this configuration, which says this instance and socket, and waits until it is
    /// ready. It runs also where real-time scheduling is not granted; its page says so.
    ///
    /// `queues`: those it makes, which are gone when this is; their names carry our pid.
    pub fn start(
        config: &str,
        instance: &str,
        socket: PathBuf,
        queues: Vec<CString>,
    ) -> anyhow::Result<OwnDaemon> {
        let log =
            memfd::scratch("rtd-log").context("cannot create the file of the daemon's log")?;
        let mut command = own_binary()?;
        let parent = std::process::id().to_string();
        command.args([
            "own-daemon",
            "--parent",
            &parent,
            "--allow-degraded",
            "--skin",
            "posix",
            "-",
        ]);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log.try_clone()?);
        let mut child = command.spawn().context("cannot start rtd run")?;
        let pipes = (child.stdin.take(), child.stdout.take());
        let mut daemon = OwnDaemon {
            child,
            log,
            instance: instance.to_owned(),
            socket,
            queues,
        };
        let (Some(mut stdin), Some(stdout)) = pipes else {
            bail!("rtd run has no pipes")
        };
        // A daemon that ended at once says why below.
        let _ = stdin.write_all(config.as_bytes());
        drop(stdin);
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        if line.trim_end() != "READY" {
            // It is on its way out; what it says is complete when it has ended.
            let _ = wait(&mut daemon.child);
            bail!("rtd run did not start:\n{}", daemon.log_text());
        }
        Ok(daemon)
    }

    /// Its pid: whom a signal goes to that a route reads.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Instance name: of its page.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// Path of the control socket.
    pub fn socket(&self) -> &PathBuf {
        &self.socket
    }

    /// An error when it ended.
    pub fn check(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("rtd run ended with {status}:\n{}", self.log_text());
        }
        Ok(())
    }

    /// Ends it cleanly.
    pub fn stop(mut self) -> anyhow::Result<()> {
        process::terminate(self.child.id());
        let status = wait(&mut self.child)?;
        if !status.success() {
            bail!("rtd run ended with {status}:\n{}", self.log_text());
        }
        Ok(())
    }

    /// Its log. Only after its end: it writes where this reads.
    fn log_text(&mut self) -> String {
        let mut text = Vec::new();
        // What cannot be read of a log is missing in an error message.
        let _ = self
            .log
            .rewind()
            .and_then(|()| self.log.read_to_end(&mut text));
        String::from_utf8_lossy(&text).into_owned()
    }
}

impl Drop for OwnDaemon {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            process::terminate(self.child.id());
            if wait(&mut self.child).is_err() {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
        }
        // It removed all that itself, unless it was killed. The names carry our pid: they are
        // nobody else's.
        let _ = place::file_of(&self.instance).map(std::fs::remove_file);
        let _ = std::fs::remove_file(&self.socket);
        let _ = keepfile::remove(&crate::control::kept_beside(&self.socket));
        self.queues.iter().for_each(|name| _ = Queue::unlink(name));
    }
}
