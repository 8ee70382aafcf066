//! The service manager's side (sd_notify(3)), on a socket of the test's own: ready, alive as long
//! as every lane is, stopping.

use crate::guard::fill;
use crate::util::halt::{Halted, alone};
use crate::util::needs::PTRACE;
use crate::util::tool::RTD;
use crate::util::{Daemon, Instance, Peer, eventually, patience, route};
use anyhow::{Context as _, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rtcore::stats::guard::GuardState;
use rtcore::sys::process;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

tests![
    a_manager_hears_ready_status_and_stopping,
    signs_of_life_stop_with_a_lane_and_come_again needs(PTRACE),
    signs_of_life_stop_with_the_control_thread needs(PTRACE),
    a_manager_that_does_not_listen_is_logged_and_not_waited_for,
    a_standard_output_that_takes_nothing_holds_up_no_start,
];

/// What the daemon is told it has for a sign of life.
const BOUND: Duration = Duration::from_millis(900);

fn config(instance: &Instance) -> String {
    let head = instance
        .head()
        .replacen("[daemon]\n", "[daemon]\nwatchdog = \"10ms\"\n", 1);
    let head = head.replacen("[[lane]]\n", "[[lane]]\nstall = \"50ms\"\n", 1);
    head + &instance.mqueue("in", "") + &instance.mqueue("out", "") + &route("in", &["out"], "")
}

/// The manager.
struct Manager(UnixDatagram);

impl Manager {
    fn new(address: &SocketAddr) -> anyhow::Result<Manager> {
        let socket = UnixDatagram::bind_addr(address)?;
        socket.set_read_timeout(Some(patience()))?;
        Ok(Manager(socket))
    }

    /// A daemon that is told where the manager is.
    fn start(&self, config: &str, name: &str, usec: Option<Duration>) -> anyhow::Result<Daemon> {
        Daemon::start_with(config, |command| {
            command
                .env("NOTIFY_SOCKET", name)
                .env_remove("WATCHDOG_PID")
                .env_remove("WATCHDOG_USEC");
            if let Some(bound) = usec {
                command.env("WATCHDOG_USEC", bound.as_micros().to_string());
            }
        })
    }

    /// The next datagram.
    fn next(&self) -> anyhow::Result<String> {
        let mut text = [0; 1024];
        let n = self
            .0
            .recv(&mut text)
            .context("the manager hears nothing")?;
        Ok(String::from_utf8(text[..n].to_vec())?)
    }

    /// The next that has this line.
    fn until(&self, line: impl Fn(&str) -> bool) -> anyhow::Result<String> {
        loop {
            let text = self.next()?;
            if text.lines().any(&line) {
                return Ok(text);
            }
        }
    }

    /// Signs of life within this time.
    fn pings(&self, within: Duration) -> anyhow::Result<usize> {
        let end = Instant::now() + within;
        let mut pings = 0;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.0.set_read_timeout(Some(patience()))?;
                return Ok(pings);
            }
            self.0.set_read_timeout(Some(left))?;
            pings += usize::from(
                self.next()
                    .is_ok_and(|text| text.lines().any(|line| line == "WATCHDOG=1")),
            );
        }
    }

    /// Throws away what has come.
    fn forget(&self) -> anyhow::Result<()> {
        self.0.set_nonblocking(true)?;
        while self.next().is_ok() {}
        Ok(self.0.set_nonblocking(false)?)
    }
}

/// Ready when it serves, then how things are, then on its way; to a path, and to a name without a
/// file.
fn a_manager_hears_ready_status_and_stopping() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let path = instance.file("notify.sock");
    let hidden = format!("rtd-test-{}", instance.name);
    let addresses = [
        (
            path.display().to_string(),
            SocketAddr::from_pathname(&path)?,
        ),
        (
            format!("@{hidden}"),
            SocketAddr::from_abstract_name(&hidden)?,
        ),
    ];
    for (name, address) in addresses {
        let manager = Manager::new(&address)?;
        let daemon = manager.start(&config(&instance), &name, None)?;
        let first = manager.next()?;
        ensure!(first.lines().next() == Some("READY=1"), "{first}");
        ensure!(
            first.contains("STATUS=1 lane; messages: 0 accepted, 0 delivered, 0 queued"),
            "{first}"
        );
        Peer::sender(&instance.queue("in"))?.stream(0, 3)?;
        manager.until(|line| line.contains("3 accepted, 3 delivered, 0 queued"))?;
        Peer::receiver(&instance.queue("out"))?.numbers(3)?;
        daemon.signal(Signal::SIGTERM)?;
        let last = manager.until(|line| line == "STOPPING=1")?;
        ensure!(last.contains("STATUS=SIGTERM"), "{last}");
        let (status, log) = daemon.end()?;
        ensure!(status.success(), "{status}\n{log}");
        // Nobody asked for signs of life.
        assert_eq!(manager.pings(Duration::from_millis(1))?, 0);
    }
    Ok(())
}

/// Signs of life stop when a lane stands still, although everything else in the daemon runs, and
/// come again with it.
fn signs_of_life_stop_with_a_lane_and_come_again() -> anyhow::Result<()> {
    let _alone = alone();
    let instance = Instance::new()?;
    let path = instance.file("notify.sock");
    let manager = Manager::new(&SocketAddr::from_pathname(&path)?)?;
    let daemon = manager.start(&config(&instance), &path.display().to_string(), Some(BOUND))?;
    let alive = |line: &str| line == "WATCHDOG=1";
    manager.until(alive)?;
    manager.until(alive)?;
    let snapshot = instance.snapshot()?;
    let halted = Halted::thread(snapshot.workers[0].tid)?;
    instance.until("it is seen", |s| {
        s.lanes[0].guard.state == GuardState::Stalled
    })?;
    // One may have been on its way.
    std::thread::sleep(BOUND / 6);
    manager.forget()?;
    assert_eq!(
        manager.pings(BOUND * 2)?,
        0,
        "a sign of life with a lane that stands still"
    );
    let log = daemon.log();
    ensure!(log.contains("waits for CPU"), "{log}");
    drop(halted);
    manager.until(alive)?;
    daemon.stop()?;
    Ok(())
}

/// They stop with the control thread too, whose affair they are.
fn signs_of_life_stop_with_the_control_thread() -> anyhow::Result<()> {
    let _alone = alone();
    let instance = Instance::new()?;
    let path = instance.file("notify.sock");
    let manager = Manager::new(&SocketAddr::from_pathname(&path)?)?;
    let daemon = manager.start(&config(&instance), &path.display().to_string(), Some(BOUND))?;
    manager.until(|line| line == "WATCHDOG=1")?;
    let halted = Halted::thread(daemon.pid())?;
    manager.forget()?;
    assert_eq!(manager.pings(BOUND)?, 0);
    drop(halted);
    manager.until(|line| line == "WATCHDOG=1")?;
    daemon.stop()?;
    Ok(())
}

/// A manager that is not there, or does not read, holds nobody up.
fn a_manager_that_does_not_listen_is_logged_and_not_waited_for() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let path = instance.file("nobody.sock");
    let daemon = Daemon::start_with(&config(&instance), |command| {
        command
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", "300000");
    })?;
    daemon.logged("cannot notify the service manager: No such file")?;
    Peer::sender(&instance.queue("in"))?.stream(0, 3)?;
    Peer::receiver(&instance.queue("out"))?.numbers(3)?;
    // It comes up late and hears what it has to hear.
    let manager = Manager::new(&SocketAddr::from_pathname(&path)?)?;
    let first = manager.next()?;
    ensure!(first.lines().next() == Some("READY=1"), "{first}");
    daemon.stop()?;
    Ok(())
}

/// Nor does a standard output that nobody reads: the manager is told, the lanes are served, and a
/// signal ends it.
fn a_standard_output_that_takes_nothing_holds_up_no_start() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let file = instance.file("rtd.toml");
    std::fs::write(&file, config(&instance))?;
    let path = instance.file("manager.sock");
    let manager = Manager::new(&SocketAddr::from_pathname(&path)?)?;
    let (_reader, writer) = std::io::pipe()?;
    fill(&writer)?;
    let mut command = Command::new(RTD);
    command
        .args(["run", "--allow-degraded"])
        .arg(&file)
        .stdout(writer)
        .stderr(Stdio::piped());
    process::die_with_parent_at_exec(&mut command);
    let mut child = command.env("NOTIFY_SOCKET", &path).spawn()?;
    let first = manager.next();
    let asked = kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGTERM);
    let ended = eventually(|| child.try_wait().ok().flatten());
    if ended.is_err() {
        child.kill()?;
    }
    let log = String::from_utf8(child.wait_with_output()?.stderr)?;
    ensure!(
        first.is_ok_and(|first| first.starts_with("READY=1\n")),
        "{log}"
    );
    asked?;
    ensure!(
        ended?.success() && log.contains("cannot write READY: standard output is blocked"),
        "{log}"
    );
    Ok(())
}
