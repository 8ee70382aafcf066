//! What is done to a running rtd from outside: its threads are rescheduled, or it is stopped for a
//! while.

use crate::util::kernel::{self, FIFO};
use crate::util::needs::Need;
use crate::util::needs::{CHRT, ROOT, TASKSET, TWO_CPUS};
use crate::util::{Daemon, Instance, Peer, eventually, first_cpu, lane, route};
use anyhow::{Context as _, ensure};
use nix::sys::signal::Signal;
use rtcore::stats::reader::Snapshot;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

tests![
    a_changed_policy_is_reported_with_what_it_was_and_is needs(ROOT, CHRT),
    what_was_changed_is_restored_where_the_configuration_says_so needs(ROOT, TWO_CPUS, TASKSET, CHRT),
    a_stopped_daemon_says_afterwards_for_how_long,
    a_frozen_control_group_says_afterwards_for_how_long needs(FREEZER),
];

fn config(i: &Instance, daemon: &str) -> String {
    let head = i
        .head()
        .replacen("[daemon]\n", &format!("[daemon]\n{daemon}\n"), 1);
    head + &lane("high", 70, "")
        + &i.mqueue("in", "")
        + &i.mqueue("out", "")
        + &i.mqueue("in.high", "")
        + &route("in", &["out"], "")
        + &route("in.high", &["out"], "lane = \"high\"")
}

fn thread(daemon: &Daemon, name: &str) -> anyhow::Result<u32> {
    let named =
        |tid: &u32| kernel::thread(daemon.pid(), *tid).is_ok_and(|thread| thread.name == name);
    kernel::threads(daemon.pid())?
        .into_iter()
        .find(named)
        .with_context(|| format!("no thread {name}"))
}

fn tool(args: &[&str]) -> anyhow::Result<()> {
    let done = Command::new(args[0])
        .args(&args[1..])
        .output()
        .with_context(|| format!("{args:?}"))?;
    ensure!(
        done.status.success(),
        "{args:?}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    Ok(())
}

fn tampered(snapshot: &Snapshot) -> Vec<bool> {
    snapshot
        .lanes
        .iter()
        .map(|lane| lane.degraded().contains(&"tampered"))
        .collect()
}

/// chrt(1) on a lane thread and on the watchdog: logged with what it was and is, shown, and over
/// when it is undone.
fn a_changed_policy_is_reported_with_what_it_was_and_is() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let daemon = Daemon::start(&config(&i, ""))?;
    let tid = thread(&daemon, "in")?.to_string();
    tool(&["chrt", "--other", "--pid", "0", &tid])?;
    let cpu = first_cpu();
    daemon.logged(&format!(
        "the scheduling of thread in of lane lane (tid {tid}) was changed from outside: it was SCHED_FIFO 50 on CPU {cpu} and is \
         SCHED_OTHER on CPU {cpu}"
    ))?;
    let shown = i.until("its lane alone is tampered with", |s| {
        tampered(s) == [true, false]
    })?;
    ensure!(shown.is_degraded());
    ensure!(
        crate::util::tool::run(i.rtctl_command(&["stats"]))?
            .well()?
            .contains("DEGRADED")
    );
    // Report means that it stays.
    ensure!(kernel::thread(daemon.pid(), tid.parse()?)?.policy != FIFO);
    tool(&["chrt", "--fifo", "--pid", "50", &tid])?;
    i.until("it is as it was", |s| tampered(s) == [false, false])?;
    daemon.logged(&format!(
        "thread in of lane lane (tid {tid}) has SCHED_FIFO 50 on CPU {cpu} again"
    ))?;
    let dog = thread(&daemon, "watchdog")?.to_string();
    tool(&["chrt", "--rr", "--pid", "1", &dog])?;
    daemon.logged(&format!(
        "the scheduling of thread watchdog (tid {dog}) was changed"
    ))?;
    daemon.logged("and is SCHED_RR 1 on CPU")?;
    i.until("no lane is watched as it should", |s| {
        tampered(s) == [true, true]
    })?;
    let log = daemon.stop()?;
    ensure!(
        log.matches("was changed from outside").count() == 2,
        "each change once: {log}"
    );
    Ok(())
}

/// taskset(1) and chrt(1) with `restore`: the thread has its CPU and priority again, and messages
/// flow.
fn what_was_changed_is_restored_where_the_configuration_says_so() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let daemon = Daemon::start(&config(&i, "on_tampering = \"restore\""))?;
    let cpu = first_cpu();
    let other = rtcore::sys::cpus::allowed()?
        .into_iter()
        .find(|c| *c != cpu)
        .context("no other CPU")?
        .to_string();
    for name in ["in", "watchdog"] {
        let tid = thread(&daemon, name)?;
        let before = kernel::thread(daemon.pid(), tid)?;
        let (text, elsewhere) = (
            tid.to_string(),
            if before.cpus == other {
                cpu.to_string()
            } else {
                other.clone()
            },
        );
        tool(&["taskset", "--pid", "--cpu-list", &elsewhere, &text])?;
        tool(&["chrt", "--other", "--pid", "0", &text])?;
        daemon.logged(&format!(
            "(tid {tid}) was changed from outside: it was SCHED_FIFO "
        ))?;
        daemon.logged(&format!("and is SCHED_OTHER on CPU {elsewhere}; restored"))?;
        eventually(|| {
            let now = kernel::thread(daemon.pid(), tid).ok()?;
            (now.policy == FIFO && now.priority == before.priority && now.cpus == before.cpus)
                .then_some(())
        })
        .with_context(|| format!("{name} is not as it was"))?;
    }
    i.until("it is as it was", |s| tampered(s) == [false, false])?;
    Peer::sender(&i.queue("in"))?.stream(0, 3)?;
    ensure!(Peer::receiver(&i.queue("out"))?.numbers(3)? == [0, 1, 2]);
    daemon.stop()?;
    Ok(())
}

/// The daemon is stopped and goes on: the log says for how long, and no lane has run away.
fn a_stopped_daemon_says_afterwards_for_how_long() -> anyhow::Result<()> {
    stands_still(Daemon::freeze, |daemon| daemon.signal(Signal::SIGCONT))
}

/// The same for a control group that is frozen.
fn a_frozen_control_group_says_afterwards_for_how_long() -> anyhow::Result<()> {
    let group = Freezer::new().context("no freezer")?;
    stands_still(|daemon| group.freeze(daemon.pid()), |_| group.thaw())
}

pub static FREEZER: Need = Need::new("a control group that can be frozen (root)", || {
    Freezer::new().is_some()
});

/// A control group of the test's own; version 2, or the freezer of version 1.
struct Freezer {
    directory: PathBuf,
    state: &'static str,
    words: [&'static str; 2],
}

impl Freezer {
    fn new() -> Option<Freezer> {
        let name = format!("rtd-test-{}", std::process::id());
        let v1 = (
            "/sys/fs/cgroup/freezer",
            "freezer.state",
            ["FROZEN", "THAWED"],
        );
        let v2 = ("/sys/fs/cgroup", "cgroup.freeze", ["1", "0"]);
        [v1, v2].into_iter().find_map(|(root, state, words)| {
            let directory = Path::new(root).join(&name);
            std::fs::create_dir(&directory).ok()?;
            let group = Freezer {
                directory,
                state,
                words,
            };
            group.directory.join(state).exists().then_some(group)
        })
    }

    fn write(&self, file: &str, word: &str) -> anyhow::Result<()> {
        let path = self.directory.join(file);
        std::fs::write(&path, word).with_context(|| format!("{}: {word}", path.display()))
    }

    fn freeze(&self, pid: u32) -> anyhow::Result<()> {
        self.write("cgroup.procs", &pid.to_string())?;
        self.write(self.state, self.words[0])
    }

    fn thaw(&self) -> anyhow::Result<()> {
        self.write(self.state, self.words[1])
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        let _ = self.thaw();
        // Its processes end a moment later when the test has failed.
        let _ = eventually(|| std::fs::remove_dir(&self.directory).ok());
    }
}

fn stands_still(
    freeze: impl Fn(&Daemon) -> anyhow::Result<()>,
    thaw: impl Fn(&Daemon) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let i = Instance::new()?;
    let daemon = Daemon::start(&config(&i, "watchdog = \"10ms\""))?;
    let mut sender = Peer::sender(&i.queue("in"))?;
    for _ in 0..2 {
        sender.stream(0, 4)?;
        freeze(&daemon)?;
        std::thread::sleep(Duration::from_millis(1600));
        thaw(&daemon)?;
        Peer::receiver(&i.queue("out"))?.numbers(4)?;
    }
    eventually(|| (daemon.log().matches("rtd did not run for ").count() == 2).then_some(()))
        .with_context(|| daemon.log())?;
    let stood = daemon
        .log()
        .lines()
        .filter_map(|line| {
            line.split_once("rtd did not run for ")?
                .1
                .split_once(" s (SIGSTOP")?
                .0
                .parse::<f64>()
                .ok()
        })
        .collect::<Vec<_>>();
    ensure!(
        stood.len() == 2 && stood.iter().all(|s| (1.5..60.0).contains(s)),
        "{stood:?}"
    );
    let log = daemon.stop()?;
    for runaway in [
        "stands still",
        "has not run for",
        "of its CPU",
        "waits for CPU",
        "did not tick",
    ] {
        ensure!(!log.contains(runaway), "{runaway}: {log}");
    }
    Ok(())
}
