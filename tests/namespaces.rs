//! Programs in a pid or an IPC namespace of their own, as in a container: a number or a queue's
//! name means something else there.

use crate::util::needs::{MOUNT, ROOT};
use crate::util::tool::{RTCTL, RTD, Said, Tool, run};
use crate::util::{Daemon, Instance, Peer, eventually, process, route, rt, signal};
use anyhow::ensure;
use rtcore::lane::peer::PeerState;
use std::process::Command;

tests![
    a_number_of_another_pid_namespace_names_no_process needs(ROOT, MOUNT),
    a_client_that_rtd_cannot_number_is_refused needs(ROOT, MOUNT),
    a_queue_of_another_ipc_namespace_is_named needs(ROOT, MOUNT),
    a_member_whose_session_leader_is_outside_is_reported needs(ROOT, MOUNT),
];

fn config(i: &Instance) -> String {
    i.head()
        + &process("arm")
        + &i.mqueue("in", "")
        + &i.mqueue("out", "owner = \"arm\"")
        + &signal("press", "", "SIGRTMIN+4", "")
        + &signal("arm.go", "arm", "SIGRTMIN+5", "")
        + &route("in", &["out", "arm.go"], "truncate = true")
        + &route("press", &["out"], "accept_claimed = true")
}

/// `rtctl` of this instance in new namespaces.
fn apart(i: &Instance, unshare: &[&str], args: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    command
        .args(unshare)
        .arg("--")
        .arg(RTCTL)
        .args(["--instance", &i.name])
        .args(args);
    command.env("RTD_SOCKET", i.socket());
    rtcore::sys::process::die_with_parent_at_exec(&mut command);
    command
}

const PID: [&str; 4] = ["--pid", "--fork", "--kill-child", "--mount-proc"];

fn unregistered(i: &Instance) -> anyhow::Result<()> {
    ensure!(
        i.snapshot()?.processes[0].state == PeerState::Unregistered,
        "{:?}",
        i.snapshot()?.processes
    );
    Ok(())
}

/// 1 is the tool itself there, and init here.
fn a_number_of_another_pid_namespace_names_no_process() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let daemon = Daemon::start(&config(&i))?;
    let innocent = Peer::start()?;
    run(apart(&i, &PID, &["send", "press", "--value", "1"]))?.refused(&[
        "runs in another pid namespace",
        "nsenter --pid",
        "nothing is sent",
    ])?;
    let pid = innocent.pid().to_string();
    let says = format!("pid {pid} is a number of another pid namespace than rtd's");
    run(apart(&i, &PID, &["register", "--as", "arm", "--pid", &pid]))?.refused(&[
        &says,
        "NSpid",
        "rtctl run",
    ])?;
    run(apart(
        &i,
        &PID,
        &["register", "--as", "arm", "--pid", &pid, "--tid", &pid],
    ))?
    .refused(&[&says])?;
    unregistered(&i)?;
    // Its own process it may register: the kernel says which one that is.
    let arm = Tool::start(apart(
        &i,
        &PID,
        &["run", "--as", "arm", "--", "sleep", "1000"],
    ))?;
    i.until("arm is alive", |s| s.processes[0].state == PeerState::Alive)?;
    ensure!(
        ![1, innocent.pid(), arm.pid()].contains(&i.snapshot()?.processes[0].pid),
        "unshare is its parent"
    );
    drop(arm);
    daemon.stop()?;
    Ok(())
}

/// Programs that are started in the pid namespace of rtd from outside of it, as by `docker exec`, have
/// no session there: a group that filters by session leaves them out, and says so.
fn a_member_whose_session_leader_is_outside_is_reported() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let group =
        "[[group]]\nname = \"g\"\nmembers = [\"arm.go\"]\nmode = \"all\"\nsession_of = \"lead\"\n";
    let config = i.head()
        + &process("arm")
        + &process("lead")
        + &i.mqueue("in", "")
        + &signal("arm.go", "arm", "SIGRTMIN+5", "")
        + group
        + &route("in", &["g"], "");
    let mut command = Command::new("unshare");
    command.args(PID).arg("--").args([RTD, "run", "-"]);
    let daemon = Daemon::spawn(command, &config)?;
    let [rtd] = crate::util::lat::children(daemon.pid())[..] else {
        anyhow::bail!("rtd is not the only child of unshare");
    };
    let (target, socket) = (rtd.to_string(), i.socket());
    let inside = |words: &[&str]| {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &target, "--pid", "--mount"])
            .args(words)
            .env("RTD_SOCKET", &socket);
        rtcore::sys::process::die_with_parent_at_exec(&mut command);
        command
    };
    let named = |name, with: &[&str]| {
        let run = [
            RTCTL,
            "--instance",
            &i.name,
            "run",
            "--as",
            name,
            "--",
            "sleep",
            "1000",
        ];
        Tool::start(inside(&[with, &run].concat()))
    };
    let alive = |n: usize| i.until("it is alive", |s| s.processes[n].state == PeerState::Alive);
    let _arm = named("arm", &[])?;
    alive(0)?;
    daemon.logged("arm: the session of pid")?;
    daemon.logged("session_of = \"lead\" leaves arm out: start arm with setsid(1)")?;
    let _lead = named("lead", &[])?;
    alive(1)?;
    daemon.logged("session_of = \"lead\" has no members: start lead with setsid(1)")?;
    let lead = i.snapshot()?.processes[1].pid.to_string();
    run(inside(&["kill", &lead]))?.well()?;
    i.until("lead is gone", |s| s.processes[1].state == PeerState::Dead)?;
    let before = daemon.log().matches("setsid(1)").count();
    let _lead = named("lead", &["setsid"])?;
    alive(1)?;
    // Each is reported once, and one with a session of its own not at all.
    ensure!(
        before == 2 && daemon.log().matches("setsid(1)").count() == 2,
        "{}",
        daemon.log()
    );
    Ok(())
}

/// A client of a namespace that is not below rtd's has no number at all.
fn a_client_that_rtd_cannot_number_is_refused() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let mut command = Command::new("unshare");
    command.args(PID).arg("--").args([RTD, "run", "-"]);
    let _daemon = Daemon::spawn(command, &config(&i))?;
    for args in [
        &["register", "--as", "arm", "--pid", "1"][..],
        &["register", "--as", "arm", "--pid", "2"],
    ] {
        run(i.rtctl_command(args))?.refused(&["pid namespace that rtd cannot see"])?;
    }
    unregistered(&i)?;
    run(i.rtctl_command(&["send", "press", "--value", "1"]))?
        .refused(&["runs in another pid namespace"])?;
    Ok(())
}

fn a_queue_of_another_ipc_namespace_is_named() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let daemon = Daemon::start(&config(&i))?;
    let ipc = ["--ipc"];
    let says = [
        "queue in rtd's IPC namespace",
        "nsenter --ipc",
        "PrivateIPC=no",
    ];
    run(apart(&i, &ipc, &["send", "in", "--text", "x"]))?.refused(&says)?;
    run(apart(&i, &ipc, &["listen", "out"]))?.refused(&says)?;
    let said: Said = run(apart(&i, &ipc, &["run", "--as", "arm", "--", "true"]))?;
    ensure!(
        said.err
            .contains("another IPC namespace than rtd: it cannot open the queues of out"),
        "{said:?}"
    );
    ensure!(
        said.code() == Some(0),
        "signals it gets all the same: {said:?}"
    );
    daemon.logged("is in another IPC namespace than rtd and cannot open the queues of out")?;
    i.until("arm is dead", |s| s.processes[0].state == PeerState::Dead)?;
    // Here everything is as before.
    let mut arm = Peer::ready_as(&i, "arm", &[rt(5)])?;
    run(i.rtctl_command(&["send", "in", "--text", "x"]))?.well()?;
    ensure!(arm.signals(rt(5), 1)?.len() == 1);
    eventually(|| (daemon.log().matches("another IPC namespace").count() == 1).then_some(()))?;
    Ok(())
}
