//! A terminal, of 24 x 100 if nothing else is said, for one command: what a human would see, escape
//! codes included.

use super::{eventually, patience};
use anyhow::{Context as _, bail};
use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::io::Read as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;

/// A command on its terminal.
#[derive(Debug)]
pub struct Terminal {
    child: Child,
    pieces: mpsc::Receiver<Vec<u8>>,
    seen: String,
}

impl Terminal {
    /// Starts it there.
    pub fn start(command: Command) -> anyhow::Result<Terminal> {
        Terminal::of_columns(100, command)
    }

    /// Starts it on a terminal of this many columns.
    pub fn of_columns(columns: u16, mut command: Command) -> anyhow::Result<Terminal> {
        let size = Winsize {
            ws_row: 24,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pty = openpty(&size, None).context("no pseudo terminal")?;
        let side = File::from(pty.slave);
        command
            .env("TERM", "xterm")
            .env_remove("COLUMNS")
            .stdin(Stdio::null());
        command.stdout(side.try_clone()?).stderr(side);
        let child = command.spawn().context("cannot start it")?;
        // The command holds two ends of the terminal; they close with it, not with ours.
        drop(command);
        let mut master = File::from(pty.master);
        let (tell, pieces) = mpsc::channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // EIO at the end: nobody has the other side open any more.
            while let Ok(n @ 1..) = master.read(&mut buffer) {
                if tell.send(buffer[..n].to_vec()).is_err() {
                    return;
                }
            }
        });
        Ok(Terminal {
            child,
            pieces,
            seen: String::new(),
        })
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        Ok(kill(
            Pid::from_raw(i32::try_from(self.child.id())?),
            signal,
        )?)
    }

    /// Reads on until everything shown so far satisfies this.
    pub fn until(&mut self, what: &str, shown: impl Fn(&str) -> bool) -> anyhow::Result<&str> {
        while !shown(&self.seen) {
            let Ok(piece) = self.pieces.recv_timeout(patience()) else {
                bail!("never shown: {what}; shown: {:?}", self.seen);
            };
            self.seen += &String::from_utf8_lossy(&piece);
        }
        Ok(&self.seen)
    }

    /// Waits for its end; everything it showed.
    pub fn end(mut self) -> anyhow::Result<(ExitStatus, String)> {
        let status =
            eventually(|| self.child.try_wait().ok().flatten()).context("it does not end")?;
        while let Ok(piece) = self.pieces.recv_timeout(patience()) {
            self.seen += &String::from_utf8_lossy(&piece);
        }
        Ok((status, std::mem::take(&mut self.seen)))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
