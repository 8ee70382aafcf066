//! The command-line tools as their user meets them: started, watched line by line, ended, judged.

use super::{eventually, patience, patience_ns};
use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rtcore::sys::{poll, process};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{LazyLock, mpsc};
use std::thread::JoinHandle;

/// The daemon's binary.
pub const RTD: &str = env!("CARGO_BIN_EXE_rtd");
/// The hand tool.
pub const RTCTL: &str = env!("CARGO_BIN_EXE_rtctl");
/// An ordinary user that every machine has.
pub const NOBODY: u32 = 65534;

/// `rtd` with these arguments.
pub fn rtd(args: &[&str]) -> Command {
    let mut command = Command::new(RTD);
    command.args(args);
    process::die_with_parent_at_exec(&mut command);
    command
}

/// The latency laboratory, a program of another package: `cargo test --workspace` builds it beside
/// [`RTD`], and `cargo test -p rtd` does not.
pub static RTLAT: LazyLock<&'static str> = LazyLock::new(|| {
    let program = Path::new(RTD).with_file_name("rtlat");
    if let Err(e) = ensure_current(
        &program,
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("rtlat/src"),
    ) {
        panic!("{e:#}: cargo test --workspace builds it, and so does cargo build -p rtlat");
    }
    program
        .to_str()
        .expect("a path that env! can show")
        .to_owned()
        .leak()
});

/// Has cargo build these packages and targets, with the profile and into the directory of this build;
/// that directory.
pub fn cargo_build(targets: &[&str]) -> anyhow::Result<PathBuf> {
    let directory = Path::new(RTD).parent().context("rtd lies nowhere")?;
    let target = directory.parent().context("no target directory")?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args(["build", "--offline", "--quiet"])
        .args(targets)
        .args(["--profile", profile()?, "--target-dir"]);
    cargo.arg(target).current_dir(env!("CARGO_MANIFEST_DIR"));
    let said = cargo.output().context("cannot run cargo")?;
    if !said.status.success() {
        bail!("{cargo:?}: {}", String::from_utf8_lossy(&said.stderr));
    }
    Ok(directory.to_owned())
}

/// The profile that the tests were built with, as cargo's options name it.
pub fn profile() -> anyhow::Result<&'static str> {
    let directory = Path::new(RTD).parent().and_then(Path::file_name);
    match directory.and_then(|name| name.to_str()) {
        Some("debug") => Ok("dev"),
        Some(other) => Ok(other),
        None => bail!("no profile in {RTD}"),
    }
}

/// An error if the program is missing or older than one of its own sources. (Cargo keeps no list of
/// all its sources where it is built for a test.)
fn ensure_current(program: &Path, sources: &Path) -> anyhow::Result<()> {
    let changed = |path: &Path| path.metadata().and_then(|file| file.modified());
    let built = changed(program).with_context(|| format!("{} is not there", program.display()))?;
    let mut directories = vec![sources.to_owned()];
    while let Some(directory) = directories.pop() {
        // The machine that runs the tests need not have the sources.
        for entry in std::fs::read_dir(&directory).into_iter().flatten() {
            let path = entry?.path();
            let of_tests = path
                .file_stem()
                .is_some_and(|stem| stem == "tests" || stem == "samples");
            if path.is_dir() && !of_tests {
                directories.push(path);
            } else if !of_tests && changed(&path)? > built {
                bail!("{} is older than {}", program.display(), path.display());
            }
        }
    }
    Ok(())
}

/// `rtlat` with these arguments, which ends when a measuring thread of it touches the heap.
pub fn rtlat(args: &[&str]) -> Command {
    let mut command = Command::new(*RTLAT);
    command.args(args).env("RTD_GUARD", "abort");
    process::die_with_parent_at_exec(&mut command);
    command
}

/// Lets the command run as [`NOBODY`]. Only root may, and only where that user may pass the way to
/// the binary.
pub fn as_nobody(command: &mut Command) -> &mut Command {
    command.uid(NOBODY).gid(NOBODY)
}

/// Copies a program so that it can be started at once.
///
/// By a process of its own: a descriptor for writing that is open here is inherited by what another
/// thread starts at this moment, and until that has called exec the copy is busy (ETXTBSY).
pub fn copy_program(from: &Path, to: &Path) -> anyhow::Result<()> {
    let status = Command::new("cp")
        .arg(from)
        .arg(to)
        .status()
        .context("cannot run cp")?;
    if !status.success() {
        bail!("cp {} {}: {status}", from.display(), to.display());
    }
    Ok(())
}

/// What a command said in the end.
#[derive(Debug)]
pub struct Said {
    pub status: ExitStatus,
    pub out: String,
    pub err: String,
}

impl Said {
    /// Exit code; none when a signal ended it.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// The signal that ended it.
    pub fn signal(&self) -> Option<i32> {
        self.status.signal()
    }

    /// Standard output, if it ended well.
    pub fn well(self) -> anyhow::Result<String> {
        if !self.status.success() {
            bail!("{}: {}{}", self.status, self.out, self.err);
        }
        Ok(self.out)
    }

    /// Standard error, if it refused with exit code 1 and said all these things.
    pub fn refused(self, says: &[&str]) -> anyhow::Result<String> {
        if self.code() != Some(1) {
            bail!("wanted a refusal: {self:?}");
        }
        for text in says {
            if !self.err.contains(text) {
                bail!("does not say {text:?}: {}", self.err);
            }
        }
        Ok(self.err)
    }
}

/// Runs a command to its end, which must come.
pub fn run(command: Command) -> anyhow::Result<Said> {
    Tool::start(command)?.end()
}

/// The same with this on its standard input.
pub fn run_on(command: Command, input: &[u8]) -> anyhow::Result<Said> {
    let mut tool = Tool::start(command)?;
    let mut stdin = tool.child.stdin.take().context("no stdin")?;
    // It may refuse before it has read everything.
    let _ = stdin.write_all(input);
    drop(stdin);
    tool.end()
}

/// A running command. Ended when dropped.
#[derive(Debug)]
pub struct Tool {
    child: Child,
    lines: mpsc::Receiver<String>,
    err: Option<JoinHandle<String>>,
}

impl Tool {
    /// Starts it with all three standard streams as pipes.
    pub fn start(mut command: Command) -> anyhow::Result<Tool> {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        let stderr = child.stderr.take().context("no stderr")?;
        let stdout = child.stdout.take().context("no stdout")?;
        let err = std::thread::spawn(move || std::io::read_to_string(stderr).unwrap_or_default());
        let (tell, lines) = mpsc::channel();
        std::thread::spawn(move || read_lines(stdout, &tell));
        Ok(Tool {
            child,
            lines,
            err: Some(err),
        })
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Writes to its standard input, which stays open.
    pub fn type_in(&mut self, input: &[u8]) -> anyhow::Result<()> {
        Ok(self
            .child
            .stdin
            .as_mut()
            .context("no stdin")?
            .write_all(input)?)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        Ok(kill(
            Pid::from_raw(i32::try_from(self.child.id())?),
            signal,
        )?)
    }

    /// The next line of standard output, with its end.
    pub fn line(&self) -> anyhow::Result<String> {
        self.lines.recv_timeout(patience()).context("no more lines")
    }

    /// Whether it runs still.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for its end; the rest of what it said.
    pub fn end(mut self) -> anyhow::Result<Said> {
        let status =
            eventually(|| self.child.try_wait().ok().flatten()).context("it does not end")?;
        let mut out = String::new();
        while let Ok(line) = self.lines.recv_timeout(patience()) {
            out += &line;
        }
        let err = self
            .err
            .take()
            .context("ended twice")?
            .join()
            .unwrap_or_default();
        Ok(Said { status, out, err })
    }

    /// The same of one that has a minute's work to do where the machine is busy.
    pub fn end_of_work(self) -> anyhow::Result<Said> {
        let pidfd = process::pidfd(self.child.id())?;
        let _ = poll::wait(
            &mut [poll::Interest::readable(pidfd.as_raw_fd())],
            6 * patience_ns(),
        );
        self.end()
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_lines(stdout: ChildStdout, tell: &mpsc::Sender<String>) {
    let mut reader = BufReader::new(stdout);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
        if tell
            .send(String::from_utf8_lossy(&line).into_owned())
            .is_err()
        {
            return;
        }
        line.clear();
    }
}
