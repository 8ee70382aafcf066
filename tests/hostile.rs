//! What strangers and stuck readers must not be able to do: hold up the control thread, or make
//! root's tools act on their word.

use crate::util::needs::{ROOT, SECOND_USER};
use crate::util::stranger::Stranger;
use crate::util::tool::{NOBODY, as_nobody, run};
use crate::util::{
    Daemon, Instance, Peer, eventually, patience, privileged, process, route, rt, signal,
};
use anyhow::{Context as _, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rtcore::lane::peer::{PeerState, Reception};
use rtcore::sys::poll::{self, Interest};
use rtcore::sys::seqpacket::Conn;
use rtcore::wire::{FRAME_BYTES, Name, Reply, Request, Status};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Instant;

tests![
    a_log_that_nobody_reads_holds_up_nothing,
    a_strangers_page_is_no_order_to_root needs(ROOT),
    a_number_that_passed_on_gets_no_signal needs(SECOND_USER),
    one_name_on_every_connection_keeps_nobody_out,
];

fn config(i: &Instance) -> String {
    i.head()
        + &process("arm")
        + &process("leg")
        + &i.mqueue("in", "")
        + &signal("arm.go", "arm", "SIGRTMIN+5", "")
        + &route("in", &["arm.go"], "")
}

/// Standard error is a full pipe: SIGHUP, registration, death and SIGTERM are served all the same.
fn a_log_that_nobody_reads_holds_up_nothing() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let (stderr, mut full) = std::io::pipe()?;
    let mut command = Command::new(crate::util::tool::RTD);
    command
        .args(["run", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(full.try_clone()?);
    if !privileged() {
        command.arg("--allow-degraded");
    }
    rtcore::sys::process::die_with_parent_at_exec(&mut command);
    let mut daemon = command.spawn()?;
    drop(command);
    daemon
        .stdin
        .take()
        .context("no stdin")?
        .write_all(config(&i).as_bytes())?;
    let mut line = String::new();
    BufReader::new(daemon.stdout.take().context("no stdout")?).read_line(&mut line)?;
    ensure!(line == "READY\n", "{line}");
    let room = full.try_clone()?;
    // Writes until there is no room, and waits for more: so there is never any.
    let filler = std::thread::spawn(move || full.write_all(&[b'.'; 1 << 20]));
    let no_room = || {
        Some(poll::wait(&mut [Interest::writable(room.as_raw_fd())], 0) == Ok(0))
            .filter(|full| *full)
    };
    eventually(no_room).context("the pipe takes everything")?;

    let pid = Pid::from_raw(i32::try_from(daemon.id())?);
    kill(pid, Signal::SIGHUP)?;
    run(i.rtctl_command(&["unregister", "--as", "leg"]))?
        .refused(&["nobody is registered as leg"])?;
    let arm = Peer::run_as(&i, "arm").context("registration does not work")?;
    arm.kill()?;
    i.until("dead", |s| s.processes[0].state == PeerState::Dead)?;
    kill(pid, Signal::SIGTERM)?;
    let stopping = Instant::now();
    let status =
        eventually(|| daemon.try_wait().ok().flatten()).context("SIGTERM does not end it")?;
    ensure!(
        status.success() && stopping.elapsed() < patience() / 2,
        "{status}"
    );
    drop(stderr);
    ensure!(filler.join().is_ok_and(|written| written.is_err()));
    Ok(())
}

/// An ordinary user's page, which that user writes as he likes.
fn a_strangers_page_is_no_order_to_root() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let stranger = Stranger::new(&i)?;
    let mut command = Command::new(stranger.rtd());
    command
        .args(["run", "-", "--allow-degraded"])
        .uid(stranger.uid)
        .gid(stranger.uid);
    let daemon = Daemon::spawn(command, &config(&i))?;
    let says = [
        &format!("{}.page belongs to uid {}", i.name, stranger.uid),
        "run this as that user",
    ];
    let says = says.map(|s| s as &str);
    run(i.rtctl_command(&["send", "in", "--value", "1"]))?.refused(&says)?;
    run(i.rtctl_command(&["send", "arm.go", "--value", "1"]))?.refused(&says)?;
    run(i.rtctl_command(&["listen", "in", "--steal"]))?.refused(&says)?;
    run(i.rtctl_command(&["listen", "arm.go"]))?.refused(&says)?;
    // Looking is not acting.
    run(i.rtctl_command(&["stats"]))?.well()?;
    daemon.stop()?;
    Ok(())
}

/// The page is root's and names a process; that number is another user's by now.
fn a_number_that_passed_on_gets_no_signal() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let daemon = Daemon::start(&config(&i))?;
    let arm = Peer::ready_as(&i, "arm", &[rt(5)])?;
    i.reception("arm.go", Reception::Takes)?;
    let mut command = Command::new("sleep");
    let mut other = as_nobody(command.arg("1000")).spawn()?;
    // As if the daemon had not seen yet that `arm` died and `other` got its number.
    daemon.freeze()?;
    let words = |pid: u32| {
        [PeerState::Alive as u64, u64::from(pid), 0]
            .map(u64::to_ne_bytes)
            .concat()
    };
    let mut page = std::fs::read(i.page()?)?;
    let at = page
        .windows(24)
        .position(|w| w == words(arm.pid()))
        .context("arm is not on the page")?;
    page[at..at + 24].copy_from_slice(&words(other.id()));
    let file = std::fs::OpenOptions::new().write(true).open(i.page()?)?;
    std::os::unix::fs::FileExt::write_all_at(&file, &page[at..at + 24], u64::try_from(at)?)?;
    let refused = run(i.rtctl_command(&["send", "arm.go", "--value", "1"]));
    let lives = other.try_wait()?.is_none();
    other.kill()?;
    other.wait()?;
    refused?.refused(&[&format!(
        "pid {} is uid {NOBODY}, the page says uid 0",
        other.id()
    )])?;
    ensure!(lives, "it got the signal");
    Ok(())
}

/// One process takes one name on as many connections as there are, each of which says that its
/// exec(2) follows: only the last of them is worth waiting for.
fn one_name_on_every_connection_keeps_nobody_out() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let _daemon = Daemon::start(&config(&i))?;
    let claim = Request::Register {
        name: Name::new("leg")?,
        pid: 0,
        tid: 0,
        exec_follows: true,
    }
    .encode();
    let mut held = Vec::new();
    for n in 0..rtd::control::CONNECTIONS_MAX {
        let conn = Conn::connect(i.socket().as_ref(), patience())?;
        conn.send(&claim)?;
        let mut frame = [0; FRAME_BYTES];
        conn.receive_within(&mut frame, patience())?;
        let reply = Reply::decode(&frame)?;
        // Past its budget the name is not given again, and the connection stays.
        ensure!(
            matches!(reply.status, Status::Ok | Status::Busy),
            "{n}: {reply:?}"
        );
        held.push(conn);
    }
    let asked = Instant::now();
    let arm = Peer::run_as(&i, "arm").context("registration does not work")?;
    ensure!(asked.elapsed() < patience() / 3, "{:?}", asked.elapsed());
    ensure!(i.snapshot()?.processes[0].pid == arm.pid());
    Ok(())
}
