//! `rtd demo`: what it prints, and that it leaves nothing behind however it ends.

use crate::util::needs::{ORDINARY_USER, SECOND_USER};
use crate::util::terminal::Terminal;
use crate::util::tool::{NOBODY, RTD, Said, Tool, as_nobody, copy_program, rtd};
use crate::util::{Instance, eventually, patience, privileged};
use anyhow::{Context as _, ensure};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use rtcore::stats::reader::{Reader, Snapshot};
use rtcore::sys::accounts::own_uid;
use rtcore::sys::pidfd::PidFd;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

tests![
    it_measures_three_lanes_twice_and_misses_no_message,
    an_ordinary_user_gets_it_degraded_with_a_notice needs(ORDINARY_USER),
    a_terminal_shows_its_progress,
    ended_by_sigint_it_says_so_and_leaves_nothing,
    ended_by_sigterm_it_says_so_and_leaves_nothing,
    ended_by_kill_9_it_leaves_nothing,
    ended_by_sigquit_to_its_process_group_it_leaves_nothing,
    when_its_daemon_is_killed_it_says_so_and_leaves_nothing,
    when_a_part_is_killed_it_names_it_and_leaves_nothing,
    with_a_privileged_binary_kill_9_leaves_nothing_either needs(SECOND_USER),
    a_reader_that_goes_away_ends_it_quietly,
];

/// What the demo puts into the world, while it runs and after.
struct Traces {
    instance: String,
    directory: PathBuf,
    processes: Vec<PidFd>,
}

impl Traces {
    /// Of a demo with this pid and $TMPDIR, once all its lanes carry messages.
    fn of_running(pid: u32, directory: &Path) -> anyhow::Result<Traces> {
        let mut traces = Traces::of_ended(pid, directory);
        let carry =
            |s: &Snapshot| s.lanes.len() == 3 && s.lanes.iter().all(|l| l.ledger.delivered > 0);
        let page = || {
            Reader::open(&traces.instance)
                .ok()?
                .snapshot()
                .ok()
                .filter(carry)
        };
        let running = eventually(page).context("the demo's lanes carry nothing")?;
        let pids = running.processes.iter().map(|p| p.pid).chain([running.pid]);
        for pid in pids {
            traces.processes.push(PidFd::open(i32::try_from(pid)?)?);
        }
        ensure!(traces.processes.len() == 6 && traces.processes.iter().all(PidFd::is_alive));
        Ok(traces)
    }

    fn of_ended(pid: u32, directory: &Path) -> Traces {
        let instance = format!("demo-{pid}");
        Traces {
            instance,
            directory: directory.to_owned(),
            processes: Vec::new(),
        }
    }

    /// What is left of it, by name.
    fn left(&self) -> Vec<String> {
        let page = rtcore::stats::place::file_of(&self.instance);
        let mut left: Vec<String> = page.iter().map(|page| page.display().to_string()).collect();
        left.extend(files_below(&self.directory));
        let alive = self.processes.iter().filter(|p| p.is_alive()).count();
        left.extend((alive > 0).then(|| format!("{alive} processes")));
        left
    }

    /// Nothing is left, at once or soon.
    fn ensure_gone(&self) -> anyhow::Result<()> {
        eventually(|| self.left().is_empty().then_some(()))
            .with_context(|| format!("left: {:?}", self.left()))
    }
}

/// Everything below but directories that stand for a user.
fn files_below(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .flat_map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            let mut found = files_below(&entry.path());
            found.extend((!name.starts_with("rtd-")).then_some(name));
            found
        })
        .collect()
}

/// `rtd demo` with a $TMPDIR of its own, for two seconds.
fn demo(i: &Instance, program: &str) -> anyhow::Result<(Command, PathBuf)> {
    demo_of(i, program, 2)
}

/// The same for longer than a test waits for anything: it is ended before.
fn endless(i: &Instance, program: &str) -> anyhow::Result<(Command, PathBuf)> {
    demo_of(i, program, 2 * patience().as_secs())
}

fn demo_of(i: &Instance, program: &str, seconds: u64) -> anyhow::Result<(Command, PathBuf)> {
    let directory = i.file("tmp");
    std::fs::create_dir_all(&directory)?;
    let mut command = rtd(&[]);
    if program != RTD {
        command = Command::new(program);
        rtcore::sys::process::die_with_parent_at_exec(&mut command);
    }
    command
        .args(["demo", "--seconds", &seconds.to_string()])
        .env("TMPDIR", &directory);
    Ok((command, directory))
}

/// The numbers of the row that starts with these words.
fn row(text: &str, start: &[&str]) -> anyhow::Result<Vec<f64>> {
    let mut rows = text
        .lines()
        .map(|l| l.split_whitespace().collect::<Vec<_>>());
    let row = rows
        .find(|words| words.starts_with(start))
        .with_context(|| format!("no row {start:?}\n{text}"))?;
    let number = |word: &&str| match word.strip_suffix("ns") {
        Some(ns) => ns.parse::<f64>().map(|ns| ns / 1_000.0),
        None => word.parse(),
    };
    row[start.len()..]
        .iter()
        .map(|word| number(word).with_context(|| format!("{row:?}")))
        .collect()
}

/// Its tables: six rows of latencies, and a ledger in which no message is missing.
fn ensure_complete(said: &Said) -> anyhow::Result<()> {
    let out = &said.out;
    ensure!(said.status.success(), "{said:?}");
    ensure!(
        !out.contains('\x1b') && said.err.is_empty(),
        "no terminal, and still: {said:?}"
    );
    for lane in ["estop", "control", "telemetry"] {
        let rate = match lane {
            "estop" => ["100", "Hz"],
            "control" => ["1", "kHz"],
            _ => ["200", "Hz"],
        };
        for load in [&rate[..], &["flood"]] {
            let numbers = row(out, &[&[lane], load].concat())?;
            let [count, p50, p99, p999, max, hop_p50, hop_p99, hop_max] = numbers[..] else {
                anyhow::bail!("{lane} {load:?}: {numbers:?}");
            };
            ensure!(
                count > 0.0 && 0.0 < p50 && p50 <= p99 && p99 <= p999 && p999 <= max,
                "{numbers:?}"
            );
            ensure!(
                0.0 < hop_p50 && hop_p50 <= hop_p99 && hop_p99 <= hop_max,
                "{numbers:?}"
            );
        }
    }
    let tables = out.split_once("latency in us").context("no latencies")?.1;
    ensure!(
        tables.lines().all(|line| line.chars().count() <= 80),
        "more than 80 columns: {out}"
    );
    ensure_balanced(out.split_once("ledger:").context("no ledger")?.1)
}

/// The ledger: a row per count, a column per lane.
fn ensure_balanced(ledger: &str) -> anyhow::Result<()> {
    let counts = |title: &str| row(ledger, &title.split(' ').collect::<Vec<_>>());
    let (sent, accepted) = (counts("sent")?, counts("accepted, the sum of")?);
    let delivered = counts("delivered, the sum of")?;
    let (received, discarded) = (
        counts("received")?,
        counts("discarded (expired on arrival)")?,
    );
    let (expired, displaced) = (counts("expired")?, counts("displaced")?);
    let (rejected, dead, queued) = (counts("rejected")?, counts("peer-dead")?, counts("queued")?);
    ensure!(
        sent.len() == 3 && queued.len() == 3,
        "a column per lane: {ledger}"
    );
    for lane in 0..3 {
        ensure!(sent[lane] == accepted[lane], "{ledger}");
        ensure!(
            received[lane] + discarded[lane] == delivered[lane],
            "{ledger}"
        );
        let lost = expired[lane] + displaced[lane] + rejected[lane] + dead[lane];
        ensure!(
            accepted[lane] == delivered[lane] + lost + queued[lane],
            "{ledger}"
        );
    }
    let estop = 0;
    ensure!(
        sent[estop] == delivered[estop] && dead[estop] + rejected[estop] == 0.0,
        "a press is lost: {ledger}"
    );
    ensure!(
        sent[estop] == 201.0,
        "one press per 9.973 ms for 2 s: {ledger}"
    );
    Ok(())
}

fn it_measures_three_lanes_twice_and_misses_no_message() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let (command, directory) = demo(&i, RTD)?;
    let tool = Tool::start(command)?;
    let pid = tool.pid();
    let said = tool.end()?;
    ensure_complete(&said)?;
    ensure!(
        said.out.contains("/dev/cpu_dma_latency is "),
        "{}",
        said.out
    );
    ensure!(
        said.out.contains("DEGRADED") != privileged(),
        "{}",
        said.out
    );
    Traces::of_ended(pid, &directory).ensure_gone()
}

fn an_ordinary_user_gets_it_degraded_with_a_notice() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let (mut command, directory) = demo(&i, RTD)?;
    if own_uid() == 0 {
        std::os::unix::fs::chown(&directory, Some(NOBODY), Some(NOBODY))?;
        as_nobody(&mut command);
    }
    let tool = Tool::start(command)?;
    let pid = tool.pid();
    let said = tool.end()?;
    ensure_complete(&said)?;
    ensure!(
        said.out.contains("DEGRADED: not granted: SCHED_FIFO"),
        "{}",
        said.out
    );
    ensure!(
        said.out.contains("setcap cap_sys_nice,cap_ipc_lock+ep /"),
        "{}",
        said.out
    );
    Traces::of_ended(pid, &directory).ensure_gone()
}

fn a_terminal_shows_its_progress() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let mut terminal = Terminal::start(demo(&i, RTD)?.0)?;
    terminal.until("the first half", |shown| {
        shown.contains("telemetry 200 Hz [") && shown.contains("==>")
    })?;
    terminal.until("the second half", |shown| {
        shown.contains("telemetry flood  [")
    })?;
    let (status, shown) = terminal.end()?;
    ensure!(status.success(), "{status}: {shown}");
    let after = shown.rsplit_once("latency in us").context("no table")?.1;
    ensure!(!after.contains('\x1b'), "the bar is still there: {after:?}");
    Ok(())
}

/// Starts it, ends it in the middle, and looks what is left.
fn ended_by(end: impl FnOnce(&Tool, &Traces) -> anyhow::Result<()>) -> anyhow::Result<Said> {
    let i = Instance::new()?;
    let (mut command, directory) = endless(&i, RTD)?;
    command.process_group(0);
    let tool = Tool::start(command)?;
    let traces = Traces::of_running(tool.pid(), &directory)?;
    end(&tool, &traces)?;
    let said = tool.end()?;
    traces.ensure_gone()?;
    Ok(said)
}

fn ended_by_sigint_it_says_so_and_leaves_nothing() -> anyhow::Result<()> {
    ended_by(|tool, _| tool.signal(Signal::SIGINT))?.refused(&["stopped by a signal"])?;
    Ok(())
}

fn ended_by_sigterm_it_says_so_and_leaves_nothing() -> anyhow::Result<()> {
    ended_by(|tool, _| tool.signal(Signal::SIGTERM))?.refused(&["stopped by a signal"])?;
    Ok(())
}

fn ended_by_kill_9_it_leaves_nothing() -> anyhow::Result<()> {
    let said = ended_by(|tool, _| tool.signal(Signal::SIGKILL))?;
    ensure!(said.signal() == Some(9), "{said:?}");
    Ok(())
}

/// As Ctrl-\ on a terminal: the whole foreground process group gets a signal that nobody handles.
fn ended_by_sigquit_to_its_process_group_it_leaves_nothing() -> anyhow::Result<()> {
    ended_by(|tool, _| {
        Ok(killpg(
            Pid::from_raw(i32::try_from(tool.pid())?),
            Signal::SIGQUIT,
        )?)
    })?;
    Ok(())
}

fn when_its_daemon_is_killed_it_says_so_and_leaves_nothing() -> anyhow::Result<()> {
    let said = ended_by(|_, traces| {
        let daemon = Reader::open(&traces.instance)?.pid();
        Ok(nix::sys::signal::kill(
            Pid::from_raw(i32::try_from(daemon)?),
            Signal::SIGKILL,
        )?)
    })?;
    said.refused(&["rtd run ended with signal: 9"])?;
    Ok(())
}

fn when_a_part_is_killed_it_names_it_and_leaves_nothing() -> anyhow::Result<()> {
    let said = ended_by(|_, traces| {
        let page = Reader::open(&traces.instance)?.snapshot()?;
        let drive = page
            .processes
            .iter()
            .find(|p| p.name == "drive")
            .context("no drive")?;
        Ok(nix::sys::signal::kill(
            Pid::from_raw(i32::try_from(drive.pid)?),
            Signal::SIGKILL,
        )?)
    })?;
    said.refused(&["drive ended with signal: 9"])?;
    Ok(())
}

/// The kernel forgets who is to die with whom when a program with more rights than its user is
/// started (file capabilities, set-group-id); the demo's children remember.
fn with_a_privileged_binary_kill_9_leaves_nothing_either() -> anyhow::Result<()> {
    use std::os::unix::fs::{PermissionsExt, chown};
    let i = Instance::new()?;
    let program = i.file("rtd");
    copy_program(RTD.as_ref(), &program)?;
    chown(&program, Some(0), Some(1))?;
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o2755))?;
    let (mut command, directory) = endless(&i, &program.display().to_string())?;
    chown(&directory, Some(NOBODY), Some(NOBODY))?;
    as_nobody(&mut command);
    let tool = Tool::start(command)?;
    let traces = Traces::of_running(tool.pid(), &directory)?;
    tool.signal(Signal::SIGKILL)?;
    tool.end()?;
    traces.ensure_gone()
}

/// `rtd demo | head -1`.
fn a_reader_that_goes_away_ends_it_quietly() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let (_, directory) = demo(&i, RTD)?;
    let mut shell = Command::new("sh");
    shell
        .arg("-c")
        .arg("{ \"$0\" demo --seconds 2; echo $? >&2; } | head -1")
        .arg(RTD);
    shell.env("TMPDIR", &directory);
    let said = Tool::start(shell)?.end()?;
    ensure!(
        said.out.lines().count() == 1 && said.out.starts_with("rtd demo: lanes"),
        "{said:?}"
    );
    ensure!(said.err.trim() == "0", "{said:?}");
    ensure!(
        files_below(&directory).is_empty(),
        "{:?}",
        files_below(&directory)
    );
    Ok(())
}
