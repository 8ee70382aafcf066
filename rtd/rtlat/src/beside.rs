//! Conditions: what happens beside a measurement, one at a time. Real processes, which end with the
//! condition.

mod worker;

pub use worker::{InterfererArgs, interfere};

use crate::load::{Load, LoadSpec, RunningLoad};
use crate::sys::child;
use anyhow::{Context as _, bail, ensure};
use rtcore::sys::{clock, process};
use rtd::child::{own_binary, wait};
use rtd::daemon::own::OwnDaemon;
use std::ffi::CString;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use worker::{MESSAGE_BYTES, Role, telemetry_queues, words};

/// Outsiders that read the page.
const OUTSIDERS: usize = 10;
/// Interval at which `rtctl stats --watch` prints, in seconds: its shortest.
const WATCH_S: &str = "0.1";
/// SCHED_FIFO priority of the telemetry lane; the measured one is above it.
pub const TELEMETRY_PRIORITY: u8 = 20;

/// A condition beside the measured pairs.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    Alone,
    /// A telemetry lane on the same CPU, saturated: its queue is always full.
    Telemetry,
    /// Ordinary processes that stream memory and make system calls, one each per CPU.
    Load,
    /// A client of the measured lane that was stopped (SIGSTOP), and one that sends to it about
    /// every millisecond.
    Stopped,
    /// A client of the measured lane that registers, sends, is killed, and registers again, without
    /// a pause.
    Dying,
    /// `rtctl stats --watch`, and ten outsiders that map the statistics page and read it without a
    /// pause.
    Watched,
}

impl Condition {
    /// Each of them, the one they are compared with first.
    pub const ALL: [Condition; 6] = [
        Condition::Alone,
        Condition::Telemetry,
        Condition::Load,
        Condition::Stopped,
        Condition::Dying,
        Condition::Watched,
    ];

    /// As it stands in tables.
    pub fn title(self) -> &'static str {
        match self {
            Condition::Alone => "alone",
            Condition::Telemetry => "telemetry lane saturated",
            Condition::Load => "memory and system calls",
            Condition::Stopped => "a client stopped",
            Condition::Dying => "a client that ends again and again",
            Condition::Watched => "watched",
        }
    }

    /// The unit in which the work of this condition is counted.
    fn unit(self) -> &'static str {
        match self {
            Condition::Alone | Condition::Load => "",
            Condition::Telemetry => "messages",
            Condition::Stopped => "messages to it",
            Condition::Dying => "deaths",
            Condition::Watched => "reads",
        }
    }
}

/// The lines that the condition adds to the configuration of the measured lane. Writing to a string
/// does not fail.
pub fn config(instance: &str, cpu: usize, depth: u64) -> String {
    let mut text = format!(
        "[[lane]]\nname = \"telemetry\"\npriority = {TELEMETRY_PRIORITY}\ncpu = {cpu}\noverflow = \"displace-oldest\"\n"
    );
    let [into, out_of] = telemetry_queues(instance);
    for (name, queue) in [("telemetry.in", into), ("telemetry.out", out_of)] {
        let _ = writeln!(
            text,
            "[[endpoint]]\nname = \"{name}\"\nkind = \"mqueue\"\nqueue = \"{queue}\"\nmaxmsg = {depth}\nmsgsize = {MESSAGE_BYTES}"
        );
    }
    let lanes = [
        ("feeder", "feeder.msg"),
        ("stopped", "stopped.msg"),
        ("churn", "churn.in"),
        ("churn", "churn.out"),
    ];
    for name in ["feeder", "stopped", "churn"] {
        let _ = writeln!(
            text,
            "[[process]]\nname = \"{name}\"\nabove_ceiling = \"warn\""
        );
    }
    for (owner, name) in lanes {
        let _ = writeln!(
            text,
            "[[endpoint]]\nname = \"{name}\"\nkind = \"lane\"\nowner = \"{owner}\"\nmsgsize = {MESSAGE_BYTES}"
        );
    }
    for (from, to, lane) in [
        ("telemetry.in", "telemetry.out", "telemetry"),
        ("feeder.msg", "stopped.msg", "lane"),
        ("churn.out", "churn.in", "lane"),
    ] {
        let _ = writeln!(
            text,
            "[[route]]\nfrom = \"{from}\"\nto = [\"{to}\"]\nlane = \"{lane}\""
        );
    }
    text
}

/// The queues that the daemon makes for it.
pub fn queues(instance: &str) -> anyhow::Result<Vec<CString>> {
    telemetry_queues(instance)
        .into_iter()
        .map(|name| Ok(CString::new(name)?))
        .collect()
}

/// Refuses a condition that is not available, before the run.
pub fn ensure_possible(conditions: &[Condition]) -> anyhow::Result<()> {
    if conditions.contains(&Condition::Watched) {
        rtctl()?;
    }
    Ok(())
}

fn rtctl() -> anyhow::Result<std::path::PathBuf> {
    let path = std::env::current_exe()
        .context("cannot find this binary")?
        .with_file_name("rtctl");
    ensure!(
        path.exists(),
        "{} is missing; `watched` runs its `stats --watch`: install it beside rtlat, or omit \
         `watched` with --only",
        path.display()
    );
    Ok(path)
}

/// A condition that holds. Dropping it ends it.
#[derive(Debug)]
pub struct Beside {
    condition: Condition,
    interferers: Vec<Interferer>,
    load: Option<RunningLoad>,
    since_ns: u64,
}

#[derive(Debug)]
struct Interferer {
    child: Child,
    /// Of those that count.
    out: Option<BufReader<ChildStdout>>,
    /// Its count is the condition's count.
    is_counted: bool,
}

impl Beside {
    /// Starts it and waits until it holds. All but `Alone` happen to a daemon.
    pub fn start(condition: Condition, daemon: Option<&OwnDaemon>) -> anyhow::Result<Beside> {
        let mut beside = Beside {
            condition,
            interferers: Vec::new(),
            load: None,
            since_ns: clock::monotonic_ns(),
        };
        let Some(daemon) = daemon else {
            ensure!(
                condition == Condition::Alone,
                "`{}` needs a daemon",
                condition.title()
            );
            return Ok(beside);
        };
        match condition {
            Condition::Alone => {}
            Condition::Telemetry => {
                beside.add(Role::Drain, daemon, false)?;
                beside.add(Role::Flood, daemon, true)?;
            }
            Condition::Load => {
                let specs: Vec<LoadSpec> =
                    Load::parse("memory,syscall").map_err(anyhow::Error::msg)?;
                beside.load = Some(Load::start(&specs)?);
            }
            Condition::Stopped => {
                let pid = beside.add(Role::Hold, daemon, false)?;
                process::suspend(pid)
                    .context("cannot stop the client of the condition `stopped`")?;
                beside.add(Role::Feed, daemon, true)?;
            }
            Condition::Dying => _ = beside.add(Role::Churn, daemon, true)?,
            Condition::Watched => {
                let mut watch = Command::new(rtctl()?);
                watch.args(["stats", "--watch", WATCH_S, "--instance", daemon.instance()]);
                watch.stdout(Stdio::null());
                beside.spawn(watch, false)?;
                for _ in 0..OUTSIDERS {
                    beside.add(Role::Outsider, daemon, true)?;
                }
            }
        }
        beside.since_ns = clock::monotonic_ns();
        Ok(beside)
    }

    fn add(&mut self, role: Role, daemon: &OwnDaemon, is_counted: bool) -> anyhow::Result<u32> {
        let mut command = own_binary()?;
        command
            .args(words(role, daemon.instance(), daemon.socket()))
            .stdout(Stdio::piped());
        let pid = self.spawn(command, is_counted)?;
        let line = self
            .interferers
            .last_mut()
            .map(Interferer::line)
            .transpose()?;
        if line.as_deref() != Some("ready") {
            bail!(
                "`{}` did not start: {role:?} ended before it was ready",
                self.condition.title()
            );
        }
        Ok(pid)
    }

    fn spawn(&mut self, mut command: Command, is_counted: bool) -> anyhow::Result<u32> {
        child::make_ordinary(&mut command)?;
        command.stdin(Stdio::null());
        let name = Path::new(command.get_program()).display().to_string();
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let out = child.stdout.take().map(BufReader::new);
        let pid = child.id();
        self.interferers.push(Interferer {
            child,
            out,
            is_counted,
        });
        Ok(pid)
    }

    /// An error when it does not hold any more.
    fn check(&mut self) -> anyhow::Result<()> {
        for interferer in &mut self.interferers {
            if let Some(status) = interferer.child.try_wait()? {
                bail!(
                    "`{}` did not last: one of its processes ended: {status}",
                    self.condition.title()
                );
            }
        }
        self.load.as_mut().map_or(Ok(()), RunningLoad::check)
    }

    /// Ends it; how much of it there was, and for how long.
    pub fn end(mut self) -> anyhow::Result<Extent> {
        self.check()?;
        let mut extent = Extent {
            count: 0,
            ns: clock::monotonic_ns() - self.since_ns,
        };
        for interferer in self.interferers.iter_mut().filter(|i| i.is_counted) {
            process::terminate(interferer.child.id());
        }
        for interferer in self.interferers.iter_mut().filter(|i| i.is_counted) {
            let line = interferer.line()?;
            let count: u64 = line
                .parse()
                .with_context(|| format!("an interferer wrote {line:?}"))?;
            extent.count += count;
            wait(&mut interferer.child)?;
        }
        let is_counted = self.interferers.iter().any(|i| i.is_counted);
        if is_counted && extent.count == 0 {
            bail!(
                "`{}` did nothing: no {}",
                self.condition.title(),
                self.condition.unit()
            );
        }
        Ok(extent)
    }
}

impl Interferer {
    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        if let Some(out) = &mut self.out {
            out.read_line(&mut line)
                .context("cannot read the output of an interferer")?;
        }
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        for interferer in &mut self.interferers {
            if !matches!(interferer.child.try_wait(), Ok(Some(_))) {
                // As a group, so that the children of the program end too. An incarnation has a
                // group of its own and is killed with its parent.
                child::kill_group(interferer.child.id());
                let _ = interferer.child.wait();
            }
        }
    }
}

/// How much of a condition there was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// The count, in the condition's unit.
    pub count: u64,
    /// For how long.
    pub ns: u64,
}

impl Extent {
    /// Adds the extent of another block.
    pub fn add(&mut self, more: Extent) {
        self.count += more.count;
        self.ns += more.ns;
    }

    /// `41200/s messages`; nothing where nothing is counted.
    #[expect(clippy::cast_precision_loss, reason = "counts below 2^53")]
    pub fn text(self, condition: Condition) -> String {
        if self.count == 0 {
            return String::new();
        }
        let per_second = self.count as f64 * 1e9 / self.ns.max(1) as f64;
        format!("{per_second:.0}/s {}", condition.unit())
    }
}
