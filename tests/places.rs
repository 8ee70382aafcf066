//! Where the statistics page is, and what strangers can do about it. Daemons here have a /run and a
//! /dev/shm of their own (a mount namespace), so that no other test sees what is put there.

use crate::util::needs::{MOUNT, SECOND_USER};
use crate::util::tool::{NOBODY, RTCTL, RTD, run};
use crate::util::{Daemon, Instance, process, route};
use anyhow::{Context as _, ensure};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::Command;

tests![
    nothing_that_a_stranger_makes_keeps_rtd_from_starting needs(SECOND_USER, MOUNT),
    a_second_start_in_another_place_is_refused needs(SECOND_USER, MOUNT),
];

/// A daemon that is started by a shell in a mount namespace of its own, after `before`.
pub struct Apart(pub Daemon);

impl Apart {
    /// Starts it.
    pub fn start(before: &str, config: &str) -> anyhow::Result<Apart> {
        let script =
            format!("mount -t tmpfs -o mode=1777 none /dev/shm && {before} && exec {RTD} run -");
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-ec", &script]);
        Ok(Apart(Daemon::spawn(command, config)?))
    }

    /// A path as the daemon sees it.
    pub fn path(&self, path: &str) -> PathBuf {
        format!("/proc/{}/root{path}", self.0.pid()).into()
    }

    /// Runs a program beside the daemon.
    pub fn beside(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--mount", "--target", &self.0.pid().to_string(), program])
            .args(args);
        rtcore::sys::process::die_with_parent_at_exec(&mut command);
        command
    }

    /// `rtctl stats`, which finds the page by the instance's name.
    pub fn stats(&self, i: &Instance) -> anyhow::Result<String> {
        run(self.beside(RTCTL, &["--instance", &i.name, "stats"]))?.well()
    }
}

fn config(i: &Instance, account: &str) -> String {
    let head = i
        .head()
        .replacen("[daemon]\n", &format!("[daemon]\n{account}"), 1);
    head + &i.mqueue("in", "") + &i.mqueue("out", "") + &route("in", &["out"], "") + &process("arm")
}

fn as_stranger(what: &str) -> String {
    format!("setpriv --reuid 77777 --regid 77777 --clear-groups {what}")
}

/// `touch /dev/shm/rtd.NAME` kept a daemon of that name from starting; nothing that a stranger
/// makes there does.
fn nothing_that_a_stranger_makes_keeps_rtd_from_starting() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let touched = as_stranger(&format!("touch /dev/shm/rtd.{}", i.name));
    let nobody = format!("user = {NOBODY}\ngroup = {NOBODY}\n");
    let run_dir = format!("/run/rtd/{}.page", i.name);
    let in_memory = "mount -t tmpfs none /run";
    let on_disk = "mount --bind /etc /run";
    let shm_dir = format!("/dev/shm/rtd-0/{}.page", i.name);
    let taken = as_stranger(&format!("mkdir /dev/shm/rtd-{NOBODY}"));
    // (what stands in for /run, what the stranger makes, the user, what the page's path begins
    // with)
    let cases = [
        (in_memory, touched.clone(), "", &*run_dir, 0),
        (on_disk, touched.clone(), "", &shm_dir, 0),
        (
            on_disk,
            as_stranger("mkdir /dev/shm/rtd-0"),
            "",
            "/dev/shm/rtd-0.",
            0,
        ),
        (
            on_disk,
            as_stranger("ln -s /etc /dev/shm/rtd-0"),
            "",
            "/dev/shm/rtd-0.",
            0,
        ),
        (
            on_disk,
            format!("{touched} && {taken}"),
            &nobody,
            "/dev/shm/rtd-65534.",
            NOBODY,
        ),
    ];
    for (place, stranger, account, path, owner) in cases {
        let before = format!("{place} && {stranger}");
        std::os::unix::fs::chown(i.file("."), Some(owner), Some(owner))?;
        let daemon = Apart::start(&before, &config(&i, account)).with_context(|| before.clone())?;
        let stats =
            run(daemon.beside("sh", &["-c", &format!("echo {path}*/*.page {path}")]))?.well()?;
        let page = stats
            .split_whitespace()
            .find(|page| daemon.path(page).exists());
        let page = page
            .with_context(|| format!("{before}: no page at {path}: {stats}"))?
            .to_owned();
        let meta = daemon.path(&page).metadata()?;
        ensure!(
            meta.uid() == owner && meta.mode() & 0o777 == 0o644,
            "{before}: {meta:?}"
        );
        let stats = daemon.stats(&i).with_context(|| before.clone())?;
        ensure!(stats.contains("running"), "{before}: {stats}");
        let gone = daemon.path(&page);
        daemon.0.stop()?;
        ensure!(!gone.exists(), "{before}: {page} was left behind");
    }
    Ok(())
}

/// The place follows from the surroundings; the instance's name is one all the same.
fn a_second_start_in_another_place_is_refused() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let daemon = Apart::start("mount --bind /etc /run", &config(&i, ""))?;
    let shm_page = daemon.path(&format!("/dev/shm/rtd-0/{}.page", i.name));
    ensure!(shm_page.exists());
    // Now /run is in memory.
    let script = format!("mount -t tmpfs none /run && exec {RTD} run -");
    let second = Daemon::spawn(daemon.beside("sh", &["-ec", &script]), &config(&i, ""));
    let text = format!("{:#}", second.err().context("it started")?);
    let says = format!(
        "is running: pid {} holds /dev/shm/rtd-0/{}.page",
        daemon.0.pid(),
        i.name
    );
    ensure!(text.contains(&says), "{text}");
    ensure!(
        !daemon.path(&format!("/run/rtd/{}.page", i.name)).exists(),
        "the refused start left its page"
    );
    ensure!(
        shm_page.exists() && daemon.stats(&i)?.contains("running"),
        "the first has its page"
    );
    // A killed one leaves its page; the next start removes it, wherever its own is.
    let namespace = std::fs::File::open(format!("/proc/{}/ns/mnt", daemon.0.pid()))?;
    daemon.0.kill()?;
    let mut command = Command::new("nsenter");
    let at = format!(
        "--mount=/proc/{}/fd/{}",
        std::process::id(),
        std::os::fd::AsRawFd::as_raw_fd(&namespace)
    );
    command.args([&at, RTD, "run", "-"]);
    let next = Apart(Daemon::spawn(command, &config(&i, ""))?);
    ensure!(next.path(&format!("/run/rtd/{}.page", i.name)).exists());
    ensure!(
        !next
            .path(&format!("/dev/shm/rtd-0/{}.page", i.name))
            .exists(),
        "the dead page is still there"
    );
    next.0.stop()?;
    Ok(())
}
