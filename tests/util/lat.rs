//! `rtlat` as its user meets it: a measurement, its figures, and what it put into the world.

use super::tool::{Said, Tool, rtlat};
use super::{Instance, eventually, exists, privileged};
use anyhow::{Context as _, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rtcore::sys::pidfd::PidFd;
use serde_json::Value;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What became of the schedule of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    pub scheduled: u64,
    pub sent: u64,
    pub received: u64,
    pub missed: u64,
    pub lost: u64,
}

impl Counts {
    /// Of a pair of the JSON.
    pub fn of(pair: &Value) -> anyhow::Result<Counts> {
        let counts = &pair["counts"];
        let count = |name: &str| {
            counts[name]
                .as_u64()
                .with_context(|| format!("no {name} in {pair}"))
        };
        Ok(Counts {
            scheduled: count("scheduled")?,
            sent: count("sent")?,
            received: count("received")?,
            missed: count("missed")?,
            lost: count("lost")?,
        })
    }

    /// Of the lines behind `#`, a pair each.
    pub fn read(text: &str) -> anyhow::Result<Vec<Counts>> {
        let pairs = text.lines().filter(|line| line.contains(": scheduled "));
        pairs
            .map(|line| Counts::of_line(line).with_context(|| line.to_owned()))
            .collect()
    }

    fn of_line(line: &str) -> anyhow::Result<Counts> {
        let count = |name: &str| {
            let number = line
                .split(name)
                .nth(1)?
                .trim_start()
                .split(|c: char| !c.is_ascii_digit())
                .next()?;
            number.parse().ok()
        };
        let count = |name: &str| count(name).with_context(|| format!("no {name}"));
        Ok(Counts {
            scheduled: count("scheduled ")?,
            sent: count("achieved ")?,
            received: count("received ")?,
            missed: count("missed ")?,
            lost: count("lost ")?,
        })
    }

    /// Every point of the schedule has one end, and so has every message.
    pub fn balances(&self) -> bool {
        self.scheduled == self.sent + self.missed && self.sent == self.received + self.lost
    }

    /// Nothing is lost, as far as that can be had: see [`lossless`].
    pub fn is_whole(&self) -> bool {
        self.lost == 0 || !privileged()
    }
}

/// A measurement that has ended.
#[derive(Debug)]
pub struct Measured {
    /// Everything it said.
    pub said: Said,
    pub json: Value,
}

impl Measured {
    /// Its pairs, in order.
    pub fn pairs(&self) -> Vec<&Value> {
        let count = self.json["thread"].as_object().map_or(0, |all| all.len());
        (0..count)
            .map(|n| &self.json["thread"][n.to_string()])
            .collect()
    }

    /// So many pairs, of which every message came; the first was done with its whole schedule, and
    /// the others until then.
    pub fn ensure_whole(&self, pairs: usize, loops: u64) -> anyhow::Result<()> {
        let counts = self
            .pairs()
            .into_iter()
            .map(Counts::of)
            .collect::<anyhow::Result<Vec<_>>>()?;
        ensure!(
            counts.len() == pairs,
            "{pairs} pairs were asked for: {counts:?}"
        );
        ensure!(counts.iter().all(Counts::balances), "{counts:?}");
        ensure!(
            counts.iter().all(Counts::is_whole),
            "something is lost: {counts:?}"
        );
        // A timer's loops are samples.
        let is_timer = self.pairs().iter().all(|pair| pair["receiver"].is_null());
        let done = |c: &Counts| if is_timer { c.sent } else { c.scheduled };
        ensure!(
            counts.iter().any(|c| done(c) == loops && c.received > 0),
            "{counts:?}"
        );
        ensure!(
            Counts::read(&self.said.out)? == counts,
            "the text says otherwise: {}",
            self.said.out
        );
        Ok(())
    }
}

/// `rtlat` with these arguments, and a $TMPDIR in which nothing else is. Without SCHED_FIFO where
/// it is not granted.
pub fn lat(instance: &Instance, args: &[&str]) -> anyhow::Result<Command> {
    let directory = directory(instance);
    std::fs::create_dir_all(&directory)?;
    // What is lost on a busy machine is each test's to judge, by the counts.
    let has_loss = !matches!(
        args.first(),
        None | Some(&("timer" | "compare" | "clean" | "interference" | "nonsense"))
    );
    let (name, rest) = args.split_at(args.len().min(1));
    let allowed: &[&str] = if has_loss { &["--allow-loss"] } else { &[] };
    let mut command = rtlat(&[name, allowed, rest].concat());
    if !privileged()
        && !args.contains(&"-p")
        && matches!(args.first(), Some(&("route" | "compare" | "interference")))
    {
        command.args(["-p", "0"]);
    }
    // As a shell starts it, so that a terminal's signals can be sent.
    command.env("TMPDIR", directory).process_group(0);
    Ok(command)
}

/// Where no message can be lost, however busy the machine is: all on one CPU, and a receiver before
/// its sender. (A queue holds ten messages, a mutex one.) Without SCHED_FIFO there is no such
/// place.
pub fn lossless<'a>(priority: &'a str, cpu: &'a str) -> Vec<&'a str> {
    let priority = if privileged() { priority } else { "0" };
    vec!["-p", priority, "-a", cpu]
}

fn directory(instance: &Instance) -> PathBuf {
    instance.file("tmp")
}

/// Measures to its end, which must be a good one, and looks that nothing is left.
pub fn measure(instance: &Instance, args: &[&str]) -> anyhow::Result<Measured> {
    let measured = measure_code(instance, args, 0)?;
    ensure!(
        measured.said.err.is_empty(),
        "{args:?}: {}",
        measured.said.err
    );
    Ok(measured)
}

/// The same, which ends with this exit code.
pub fn measure_code(instance: &Instance, args: &[&str], code: i32) -> anyhow::Result<Measured> {
    let file = instance.file("results.json");
    let mut command = lat(instance, args)?;
    command.arg("--json").arg(&file);
    let tool = Tool::start(command)?;
    let pid = tool.pid();
    let said = tool.end()?;
    ensure!(said.code() == Some(code), "{args:?}: {said:?}");
    Traces::of(pid, instance)
        .ensure_gone()
        .with_context(|| format!("{args:?}"))?;
    let json =
        serde_json::from_slice(&std::fs::read(file)?).with_context(|| format!("{args:?}"))?;
    Ok(Measured { said, json })
}

/// Starts a measurement, with `-v` among its arguments, and waits until it measures.
pub fn start(instance: &Instance, args: &[&str]) -> anyhow::Result<(Tool, Traces)> {
    let tool = Tool::start(lat(instance, args)?)?;
    let first = tool.line();
    let Ok(_) = first else {
        anyhow::bail!("{args:?}: {:?}", tool.end())
    };
    let mut traces = Traces::of(tool.pid(), instance);
    traces.children = children(tool.pid());
    traces.processes = traces
        .children
        .iter()
        .map(|pid| PidFd::open(*pid))
        .collect::<std::io::Result<_>>()?;
    Ok((tool, traces))
}

/// Processes whose parent this is.
pub fn children(parent: u32) -> Vec<i32> {
    let parent = parent.to_string();
    let is_child = |pid: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // Behind the name: state, parent.
        stat.rsplit_once(") ")
            .and_then(|(_, rest)| rest.split(' ').nth(1))
            == Some(&parent)
    };
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(is_child)
        .collect()
}

/// What a measurement puts into the world.
#[derive(Debug)]
pub struct Traces {
    pid: u32,
    directory: PathBuf,
    /// Its children, while it ran.
    pub children: Vec<i32>,
    processes: Vec<PidFd>,
}

impl Traces {
    /// Of a measurement with this pid.
    pub fn of(pid: u32, instance: &Instance) -> Traces {
        Traces {
            pid,
            directory: directory(instance),
            children: Vec::new(),
            processes: Vec::new(),
        }
    }

    /// Sends a signal to its child number `n`.
    pub fn signal(&self, n: usize, signal: Signal) -> anyhow::Result<()> {
        let child = self
            .children
            .get(n)
            .with_context(|| format!("no child {n}: {self:?}"))?;
        Ok(kill(Pid::from_raw(*child), signal)?)
    }

    /// What is left of it, by name.
    fn left(&self) -> anyhow::Result<Vec<String>> {
        let instance = format!("rtlat-{}", self.pid);
        let page = rtcore::stats::place::file_of(&instance);
        let mut left: Vec<String> = page.iter().map(|page| page.display().to_string()).collect();
        left.extend(files_below(&self.directory));
        // /dev/mqueue need not be mounted: by name. Those of routes, and the raw ones.
        for pair in 0..4 {
            for end in ["tx", "rx", "0", "1", "2", "3"] {
                let queue = format!("/{instance}-{pair}-{end}");
                left.extend(exists(&queue)?.then_some(queue));
            }
        }
        for end in ["in", "out"] {
            let queue = format!("/{instance}-telemetry-{end}");
            left.extend(exists(&queue)?.then_some(queue));
        }
        // key msqid perms cbytes qnum lspid lrpid ...: who sent last, who received last
        let table = std::fs::read_to_string("/proc/sysvipc/msg").unwrap_or_default();
        let users = |row: &str| -> Vec<u32> {
            row.split_whitespace()
                .skip(5)
                .take(2)
                .filter_map(|pid| pid.parse().ok())
                .collect()
        };
        left.extend(
            table
                .lines()
                .filter(|row| users(row).contains(&self.pid))
                .map(str::to_owned),
        );
        let alive = self
            .processes
            .iter()
            .filter(|process| process.is_alive())
            .count();
        left.extend((alive > 0).then(|| format!("{alive} processes")));
        Ok(left)
    }

    /// Nothing is left, at once or soon.
    pub fn ensure_gone(&self) -> anyhow::Result<()> {
        eventually(|| self.left().ok()?.is_empty().then_some(()))
            .with_context(|| format!("left: {:?}", self.left()))
    }
}

/// Everything below but directories.
fn files_below(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .flat_map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => files_below(&entry.path()),
            _ => vec![entry.path().display().to_string()],
        })
        .collect()
}
