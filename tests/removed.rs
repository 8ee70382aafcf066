//! Page, socket or run directory removed while rtd runs: noticed within a second, logged, made
//! again.

use crate::places::Apart;
use crate::util::needs::{MOUNT, SECOND_USER};
use crate::util::tool::{RTCTL, run};
use crate::util::{Daemon, Instance, Peer, eventually, process, route};
use anyhow::{Context as _, ensure};
use rtcore::client::{ConnectError, Session};
use rtcore::stats::reader::{DaemonState, Reader};
use std::os::unix::fs::FileTypeExt as _;
use std::time::{Duration, Instant};

tests![
    a_removed_page_is_made_again_and_goes_on_counting,
    a_removed_socket_is_made_again_and_sessions_go_on,
    a_removed_run_directory_is_made_again needs(SECOND_USER, MOUNT),
    what_cannot_be_made_again_is_said_once_and_rtctl_knows_that_rtd_runs,
];

/// In which a removed file must be there again.
const WITHIN: Duration = Duration::from_secs(1);

fn config(i: &Instance) -> String {
    i.head()
        + &i.mqueue("in", "")
        + &i.mqueue("out", "")
        + &route("in", &["out"], "")
        + &process("arm")
}

/// How long until it is so, on a machine that is as slow as it is.
fn took(what: &str, so: impl Fn() -> bool) -> anyhow::Result<Duration> {
    let since = Instant::now();
    eventually(|| so().then_some(())).with_context(|| format!("never: {what}"))?;
    Ok(since.elapsed())
}

fn in_time(took: Duration) -> anyhow::Result<()> {
    let limit = if std::env::var_os("RTD_TEST_PATIENCE").is_some() {
        WITHIN * 4
    } else {
        WITHIN
    };
    ensure!(took < limit, "it took {took:?}");
    Ok(())
}

/// A page that was removed has a successor that goes on counting, also for a reader that has the
/// old one open; the last figures are on it after a kill.
fn a_removed_page_is_made_again_and_goes_on_counting() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let daemon = Daemon::start(&config(&i))?;
    let mut sender = Peer::sender(&i.queue("in"))?;
    let delivered = |n: u64| {
        i.snapshot()
            .is_ok_and(|s| s.routes[0].ledger.delivered == n)
    };
    sender.stream(0, 3)?;
    eventually(|| delivered(3).then_some(()))?;
    let old = Reader::open(&i.name)?;
    for round in 1..=3 {
        std::fs::remove_file(i.page()?)?;
        in_time(took("a page", || i.page().is_ok())?)?;
        daemon.logged("the statistics page was removed while rtd uses it; it is ")?;
        let snapshot = i.snapshot()?;
        ensure!(
            snapshot.routes[0].ledger.delivered == 3 * round,
            "what was counted before is on it: {snapshot:#?}"
        );
        ensure!(
            snapshot.routes[0].latency.count() == 3 * round
                && snapshot.state == DaemonState::Running
        );
        ensure!(snapshot.pid == daemon.pid() && snapshot.workers[0].tid != 0 && !old.is_current());
        sender.stream(0, 3)?;
        Peer::receiver(&i.queue("out"))?.numbers(3)?;
        i.until("it counts on", |s| {
            s.routes[0].ledger.delivered == 3 * round + 3
        })?;
    }
    ensure!(
        run(i.rtctl_command(&["stats"]))?
            .well()?
            .contains("running")
    );
    // A process whose state changes is shown on the new page as well.
    let arm = Peer::run_as(&i, "arm")?;
    i.until("arm is registered", |s| s.processes[0].pid == arm.pid())?;
    let refused = format!(
        "{:#}",
        Daemon::start(&config(&i))
            .err()
            .context("a second one started")?
    );
    ensure!(
        refused.contains(&format!("is running: pid {}", daemon.pid())),
        "{refused}"
    );
    daemon.kill()?;
    let left = i.snapshot()?;
    ensure!(
        left.state == DaemonState::Stopped && left.routes[0].ledger.delivered == 12,
        "{left:#?}"
    );
    let next = Daemon::start(&config(&i))?;
    next.stop()?;
    ensure!(i.page().is_err(), "a page was left behind");
    Ok(())
}

/// Sessions that are open go on, and new ones find the socket.
fn a_removed_socket_is_made_again_and_sessions_go_on() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let daemon = Daemon::start(&config(&i))?;
    let open = || Session::builder("arm").socket(i.socket()).connect();
    let session: Session = open()?;
    std::fs::remove_file(i.socket())?;
    // While it is gone, rtctl waits for it.
    run(i.rtctl_command(&["unregister", "--as", "nobody"]))?.refused(&["nobody"])?;
    in_time(took("a socket", || {
        std::fs::metadata(i.socket()).is_ok_and(|m| m.file_type().is_socket())
    })?)?;
    daemon.logged("was removed while rtd uses it; rtd listens there again")?;
    ensure!(
        i.snapshot()?.processes[0].pid == std::process::id(),
        "its session goes on"
    );
    drop(session);
    i.until("it has left", |s| {
        s.processes[0].pid == 0 || s.processes[0].state != rtcore::lane::peer::PeerState::Alive
    })?;
    drop(open()?);
    let log = daemon.stop()?;
    ensure!(
        !std::path::Path::new(&i.socket()).exists(),
        "the socket was left behind: {log}"
    );
    Ok(())
}

/// `rm -rf /run/rtd`, which is what systemd does to the directory of a unit that stops.
fn a_removed_run_directory_is_made_again() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let text = config(&i).replace(&format!("socket = \"{}\"\n", i.socket()), "");
    let daemon = Apart::start("mount -t tmpfs none /run", &text)?;
    let (page, socket) = (
        format!("/run/rtd/{}.page", i.name),
        format!("/run/rtd/{}.sock", i.name),
    );
    ensure!(daemon.path(&page).exists() && daemon.path(&socket).exists());
    run(daemon.beside("rm", &["-r", "/run/rtd"]))?.well()?;
    // A tool that looks in between does not say that rtd does not run, and waits.
    ensure!(daemon.stats(&i)?.contains("running"));
    in_time(took("both", || {
        daemon.path(&page).exists() && daemon.path(&socket).exists()
    })?)?;
    run(daemon.beside(
        RTCTL,
        &[
            "--instance",
            &i.name,
            "register",
            "--as",
            "arm",
            "--pid",
            "1",
        ],
    ))?
    .well()?;
    daemon.0.logged("the statistics page was removed")?;
    daemon.0.logged("rtd listens there again")?;
    daemon.0.stop()?;
    Ok(())
}

/// What cannot be recreated is logged once, with the reason; rtctl and the library say that rtd
/// runs.
fn what_cannot_be_made_again_is_said_once_and_rtctl_knows_that_rtd_runs() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let daemon = Daemon::start(&config(&i))?;
    std::fs::remove_file(i.socket())?;
    std::fs::create_dir(i.socket())?;
    daemon.logged("cannot be recreated")?;
    std::thread::sleep(Duration::from_millis(500));
    ensure!(
        daemon.log().matches("cannot be recreated").count() == 1,
        "{}",
        daemon.log()
    );
    let says = [
        &*format!("instance \"{}\" runs (pid {})", i.name, daemon.pid()),
        "its control socket was removed",
    ];
    std::fs::remove_dir(i.socket())?;
    // One that answers nobody, so that rtd cannot take it away.
    daemon.freeze()?;
    let _ = std::fs::remove_file(i.socket());
    let said = run(i.rtctl_command(&["unregister", "--as", "arm"]))?.refused(&says);
    let session = Session::builder("arm")
        .instance(&i.name)
        .connect()
        .map(drop);
    daemon.signal(nix::sys::signal::Signal::SIGCONT)?;
    said?;
    let is_known =
        matches!(&session, Err(ConnectError::NoSocket { pid, .. }) if *pid == daemon.pid());
    ensure!(
        is_known,
        "the library does not know that rtd runs: {session:?}"
    );
    daemon.logged("rtd listens there again")?;
    daemon.stop()?;
    Ok(())
}
