//! A daemon that a tool starts for itself: `rtd run` with a generated configuration, as a child
//! that ends with its parent.
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

/// Arguments of the hidden `own-daemon`: those of `rtd run`, and its parent.
#[derive(clap::Args, Clone, Debug)]
pub struct OwnArgs {
    #[arg(long)]
    parent: u32,
    #[command(flatten)]
    run: RunArgs,
}

/// Main function of `own-daemon`.
pub fn run_own(args: &OwnArgs) -> anyhow::Result<()> {
    // Again, although the parent requested it before exec: a binary with file capabilities has lost
    // it.
    process::die_with_parent(args.parent).context("its parent is gone")?;
    super::command::run_once(&args.run)
}

/// The running daemon. Dropping it ends it and removes the objects that it could not remove itself.
#[derive(Debug)]
pub struct OwnDaemon {
    child: Child,
    log: File,
    instance: String,
    socket: PathBuf,
    queues: Vec<CString>,
}

/// Names for a daemon of this process: its instance, which contains `tool` and this pid so that two
/// users do not collide, and its control socket.
pub fn names(tool: &str) -> (String, PathBuf) {
    let instance = format!("{tool}-{}", std::process::id());
    let directory = std::env::temp_dir().join(format!("rtd-{}", rtcore::sys::accounts::own_uid()));
    let socket = directory.join(format!("{instance}.sock"));
    (instance, socket)
}

impl OwnDaemon {
    /// Starts it with this configuration, which contains this instance and socket, and waits until
    /// it is ready. It runs even if real-time scheduling is not granted; its page shows this.
    ///
    /// `queues`: the queues that it creates, which are removed with this value; their names contain
    /// this pid.
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
        // If the daemon ended at once, the error below has the reason.
        let _ = stdin.write_all(config.as_bytes());
        drop(stdin);
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        if line.trim_end() != "READY" {
            // It is about to end; its output is complete when it has ended.
            let _ = wait(&mut daemon.child);
            bail!("rtd run did not start:\n{}", daemon.log_text());
        }
        Ok(daemon)
    }

    /// Its pid, to which signals of a source are sent.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Name of its instance.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// Path of the control socket.
    pub fn socket(&self) -> &PathBuf {
        &self.socket
    }

    /// An error if it has ended.
    pub fn check(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("rtd run ended with {status}:\n{}", self.log_text());
        }
        Ok(())
    }

    /// Ends it in order.
    pub fn stop(mut self) -> anyhow::Result<()> {
        process::terminate(self.child.id());
        let status = wait(&mut self.child)?;
        if !status.success() {
            bail!("rtd run ended with {status}:\n{}", self.log_text());
        }
        Ok(())
    }

    /// Its log. Read it only after the daemon's end, because both use the same file offset.
    fn log_text(&mut self) -> String {
        let mut text = Vec::new();
        // A log that cannot be read is missing in an error message.
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
        // It has removed these itself, unless it was killed. The names contain this pid, so they
        // belong to nobody else.
        let _ = place::file_of(&self.instance).map(std::fs::remove_file);
        let _ = std::fs::remove_file(&self.socket);
        let _ = keepfile::remove(&crate::control::kept_beside(&self.socket));
        self.queues.iter().for_each(|name| _ = Queue::unlink(name));
    }
}
