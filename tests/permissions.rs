//! The permissions that a start needs from the kernel: without them it is refused, with the lines
//! that grant them and no object left behind; exactly those lines are enough; it runs degraded only
//! on request, and every tool then shows it.

use crate::util::book::End::Delivered;
use crate::util::kernel::{self, FIFO};
use crate::util::needs::{HARD_LIMITS, ROOT, SETCAP, USER_NAMESPACES};
use crate::util::refuse::refuse;
use crate::util::stranger::Stranger;
use crate::util::{Daemon, Instance, Peer, exists, held, route};
use anyhow::Context as _;
use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_dumpable;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, setgid, setgroups, setuid, write};
use rtcore::sys::accounts::own_uid;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

tests![
    a_start_without_limits_is_refused,
    a_start_that_the_kernel_refuses_takes_everything_back needs(USER_NAMESPACES),
    the_limits_that_a_refusal_names_are_enough needs(ROOT, HARD_LIMITS),
    the_capabilities_that_a_refusal_names_are_enough needs(ROOT, SETCAP),
    a_failed_start_touches_no_message,
    a_degraded_start_says_so_everywhere,
    a_start_that_is_refused_late_takes_everything_back needs(ROOT),
];

/// mlockall(2).
const MLOCKALL: i64 = if cfg!(target_arch = "x86_64") {
    151
} else {
    230
};
const EPERM: i32 = 1;

/// What an ordinary user has.
#[derive(Clone, Copy, Debug, Default)]
pub struct Granted {
    /// RLIMIT_RTPRIO.
    pub rtprio: u64,
    /// RLIMIT_MEMLOCK.
    pub memlock: u64,
    /// It is root in a user namespace of its own: all capabilities, and none that counts here.
    pub namespace: bool,
}

/// `rtd run` as an ordinary user that was granted this: ourselves, or a stranger when we are root.
pub fn ordinary(instance: &Instance, granted: Granted, more: &[&str]) -> anyhow::Result<Command> {
    let stranger = if own_uid() == 0 {
        Some(Stranger::new(instance)?)
    } else {
        None
    };
    let rtd = stranger
        .as_ref()
        .map_or(Path::new(env!("CARGO_BIN_EXE_rtd")), Stranger::rtd);
    let mut command = Command::new(rtd);
    command.args(["run", "-"]).args(more);
    run_ordinary(&mut command, stranger.map(|s| s.uid), granted);
    Ok(command)
}

/// Makes the command an ordinary user's.
fn run_ordinary(command: &mut Command, uid: Option<u32>, granted: Granted) {
    let map = format!("0 {} 1", uid.unwrap_or_else(own_uid));
    let become_ordinary = move || {
        setrlimit(Resource::RLIMIT_RTPRIO, granted.rtprio, granted.rtprio)?;
        setrlimit(Resource::RLIMIT_MEMLOCK, granted.memlock, granted.memlock)?;
        if let Some(uid) = uid {
            setgroups(&[])?;
            setgid(Gid::from_raw(uid))?;
            setuid(Uid::from_raw(uid))?;
        }
        if granted.namespace {
            // Or its own /proc files would be root's since setuid(2).
            set_dumpable(true)?;
            unshare(CloneFlags::CLONE_NEWUSER)?;
            let file = open(c"/proc/self/uid_map", OFlag::O_WRONLY, Mode::empty())?;
            write(&file, map.as_bytes())?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes system calls only, no heap and no locks.
    unsafe { command.pre_exec(become_ordinary) };
}

fn config(instance: &Instance) -> String {
    instance.head()
        + &instance.mqueue("in", "")
        + &instance.mqueue("out", "")
        + &route("in", &["out"], "")
}

/// The text of the refusal; and nothing of the instance is there.
fn refused(instance: &Instance, command: Command) -> anyhow::Result<String> {
    let started = Daemon::spawn(command, &config(instance));
    let text = format!(
        "{:#}",
        started.err().ok_or_else(|| anyhow::anyhow!("it started"))?
    );
    for name in ["in", "out"] {
        assert!(
            !exists(&instance.queue(name))?,
            "queue {name} was left behind"
        );
    }
    assert!(instance.page().is_err(), "the page was left behind");
    assert!(
        !Path::new(&instance.socket()).exists(),
        "the socket was left behind"
    );
    Ok(text)
}

fn names_the_lines(text: &str) {
    for line in [
        "rtprio",
        "memlock",
        "limits.d",
        "LimitRTPRIO=",
        "LimitMEMLOCK=",
        "setcap cap_sys_nice",
    ] {
        assert!(text.contains(line), "{line:?} is missing in:\n{text}");
    }
}

/// The check knows beforehand what the limits do not admit.
fn a_start_without_limits_is_refused() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let text = refused(&instance, ordinary(&instance, Granted::default(), &[])?)?;
    names_the_lines(&text);
    assert!(text.contains("`lane` (50) and the watchdog (51)"), "{text}");
    Ok(())
}

/// CAP_SYS_NICE of a user namespace gives no SCHED_FIFO: the check tries it, and nothing has been
/// made when the start is refused.
fn a_start_that_the_kernel_refuses_takes_everything_back() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let granted = Granted {
        namespace: true,
        ..Granted::default()
    };
    let command = ordinary(&instance, granted, &[])?;
    let text = refused(&instance, command)?;
    assert!(text.contains("the kernel refuses SCHED_FIFO"), "{text}");
    assert!(
        text.contains("above RLIMIT_MEMLOCK") && text.contains("LimitMEMLOCK="),
        "{text}"
    );
    Ok(())
}

/// mlockall(2) is called last, when queues, page and lane threads are there: what the start made is
/// gone, and what was there before is as it was.
fn a_start_that_is_refused_late_takes_everything_back() -> anyhow::Result<()> {
    let start = |instance: &Instance| {
        let mut filtered = Ok(());
        let command = |command: &mut Command| filtered = refuse(command, &[MLOCKALL], EPERM);
        let started = Daemon::start_with(&config(instance), command);
        filtered.map(|()| started)
    };
    let instance = Instance::new()?;
    let text = format!("{:#}", start(&instance)?.err().context("it started")?);
    anyhow::ensure!(
        text.contains("locked memory (mlockall)") && text.contains("memlock"),
        "{text}"
    );
    for name in ["in", "out"] {
        anyhow::ensure!(
            !exists(&instance.queue(name))?,
            "queue {name} was left behind"
        );
    }
    anyhow::ensure!(instance.page().is_err(), "the page was left behind");
    anyhow::ensure!(
        !Path::new(&instance.socket()).exists(),
        "the socket was left behind"
    );
    // The queues of an earlier life, with messages.
    Daemon::start(&config(&instance))?.stop()?;
    Peer::sender(&instance.queue("in"))?.stream(0, 5)?;
    start(&instance)?.err().context("it started")?;
    anyhow::ensure!((held(&instance.queue("in"))?, held(&instance.queue("out"))?) == (5, 0));
    let daemon = Daemon::start(&config(&instance))?;
    anyhow::ensure!(Peer::receiver(&instance.queue("out"))?.numbers(5)? == [0, 1, 2, 3, 4]);
    daemon.stop()?;
    Ok(())
}

/// An ordinary user with exactly the limits that the refusal named gets all of it.
fn the_limits_that_a_refusal_names_are_enough() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let text = refused(&instance, ordinary(&instance, Granted::default(), &[])?)?;
    let number = |key: &str| -> anyhow::Result<u64> {
        let rest = text
            .split_once(key)
            .with_context(|| format!("no {key} in\n{text}"))?
            .1;
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        Ok(digits.parse()?)
    };
    let granted = Granted {
        rtprio: number("LimitRTPRIO=")?,
        memlock: number("LimitMEMLOCK=")?,
        namespace: false,
    };
    let daemon = Daemon::spawn(ordinary(&instance, granted, &[])?, &config(&instance))?;
    has_all(&instance, daemon)
}

/// So does one that runs a program with the capabilities that the refusal named.
fn the_capabilities_that_a_refusal_names_are_enough() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let text = refused(&instance, ordinary(&instance, Granted::default(), &[])?)?;
    let rest = text
        .split_once("setcap ")
        .with_context(|| format!("no setcap in\n{text}"))?
        .1;
    let mut words = rest.split_whitespace();
    let capabilities = words.next().context("no capabilities")?;
    let named = words.next().context("no program")?;
    // Pasted, it does something for the program that was refused, wherever that lies.
    anyhow::ensure!(
        named.starts_with('/') && named != "/usr/bin/rtd",
        "grants it to {named}"
    );
    let stranger = Stranger::new(&instance)?;
    let rtd = instance.file("rtd-capable");
    crate::util::tool::copy_program(stranger.rtd(), &rtd)?;
    let status = Command::new("setcap")
        .arg(capabilities)
        .arg(&rtd)
        .status()?;
    anyhow::ensure!(status.success(), "setcap {capabilities} failed");
    let mut command = Command::new(&rtd);
    command.args(["run", "-"]);
    run_ordinary(&mut command, Some(stranger.uid), Granted::default());
    has_all(&instance, Daemon::spawn(command, &config(&instance))?)
}

/// Not degraded, as the page and the kernel say.
fn has_all(instance: &Instance, daemon: Daemon) -> anyhow::Result<()> {
    let snapshot = instance.snapshot()?;
    assert_ne!(snapshot.uid, 0, "not an ordinary user's daemon");
    assert_eq!(snapshot.lanes[0].degraded(), Vec::<&str>::new());
    let thread = kernel::thread(daemon.pid(), snapshot.workers[0].tid)?;
    assert_eq!((thread.policy, thread.priority), (FIFO, 50));
    assert_ne!(kernel::status(daemon.pid(), "VmLck")?, "0 kB");
    daemon.stop()?;
    Ok(())
}

/// Asked for, it runs without, and the log, the page and rtctl say what it lacks.
fn a_degraded_start_says_so_everywhere() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let command = ordinary(&instance, Granted::default(), &["--allow-degraded"])?;
    let daemon = Daemon::spawn(command, &config(&instance))?;
    let snapshot = instance.snapshot()?;
    assert_eq!(snapshot.lanes[0].degraded(), ["fifo", "memory"]);
    let thread = kernel::thread(daemon.pid(), snapshot.workers[0].tid)?;
    assert_eq!((thread.policy, thread.priority), (0, 0));
    daemon.logged("DEGRADED")?;
    daemon.logged("SCHED_FIFO 50 for lane lane")?;
    daemon.logged("watchdog: no real-time priority")?;
    let json = String::from_utf8(instance.rtctl(&["stats", "--json"])?.stdout)?;
    let document: serde_json::Value = serde_json::from_str(&json)?;
    assert_eq!(
        document["lanes"][0]["degraded"],
        serde_json::json!(["fifo", "memory"]),
        "{json}"
    );
    let list = String::from_utf8(instance.rtctl(&["ls"])?.stdout)?;
    assert!(list.contains("fifo") && list.contains("memory"), "{list}");
    Peer::sender(&instance.queue("in"))?.stream(0, 5)?;
    assert_eq!(
        Peer::receiver(&instance.queue("out"))?.numbers(5)?,
        [0, 1, 2, 3, 4]
    );
    instance.ledger_is("in->out", 5, &[(Delivered, 5)])?;
    daemon.stop()?;
    Ok(())
}

/// When the control socket cannot be had, no message has been touched and no queue is gone.
fn a_failed_start_touches_no_message() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let config = instance.head()
        + &instance.mqueue("in", "")
        + &instance.mqueue("out", "")
        + &route("in", &["out"], "");
    Daemon::start(&config)?.stop()?;
    Peer::sender(&instance.queue("in"))?.stream(0, 5)?;
    // A file where the socket's directory should be.
    let file = instance.file("file");
    std::fs::write(&file, "")?;
    let nowhere = file.join("rtd.sock").display().to_string();
    for keep in ["true", "false"] {
        let broken = config
            .replace(&instance.socket(), &nowhere)
            .replace("[daemon]\n", &format!("[daemon]\nkeep_queues = {keep}\n"));
        assert!(Daemon::start(&broken).is_err(), "started without a socket");
        assert_eq!(
            (held(&instance.queue("in"))?, held(&instance.queue("out"))?),
            (5, 0),
            "keep_queues = {keep}"
        );
    }
    assert!(instance.snapshot().is_err(), "the page is left behind");
    Ok(())
}
