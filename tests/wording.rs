//! Errors and log lines: they name what the reader can change, count correctly, and come once.

use crate::util::needs::SECOND_USER;
use crate::util::session::lane_end;
use crate::util::tool::{NOBODY, RTCTL, RTD, run};
use crate::util::{Daemon, Instance, Peer, lane, process, route};
use anyhow::ensure;
use rtcore::sys::process::die_with_parent_at_exec;
use std::process::Command;

tests![
    who_may_not_open_a_queue_learns_its_mode_and_the_key needs(SECOND_USER),
    an_empty_list_is_not_offered,
    one_message_is_counted_as_one,
    an_ordinary_user_gets_one_hint_for_all_lanes needs(SECOND_USER),
    a_restart_says_nothing_of_direct_routes,
];

fn config(i: &Instance) -> String {
    i.head() + &i.mqueue("in", "") + &i.mqueue("out", "") + &route("in", &["out"], "")
}

/// A script in a mount namespace whose /dev/mqueue shows the queues.
fn with_mqueue_mounted(script: &str) -> Command {
    let mut command = Command::new("unshare");
    let mount = "mkdir -p /dev/mqueue; mount -t mqueue none /dev/mqueue";
    command.args(["--mount", "--", "sh", "-ec", &format!("{mount}; {script}")]);
    die_with_parent_at_exec(&mut command);
    command
}

/// The program of another user learns why the queue does not admit it, and by which key it would.
fn who_may_not_open_a_queue_learns_its_mode_and_the_key() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let groups = i.mqueue("groups", "mode = \"0660\"")
        + &i.mqueue("other", "")
        + &route("groups", &["other"], "");
    let daemon = Daemon::start(&(config(&i) + &groups))?;
    let as_nobody = format!("setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups");
    let flush = |endpoint: &str| {
        format!(
            "exec {as_nobody} {RTCTL} --instance {} flush {endpoint}",
            i.name
        )
    };
    run(with_mqueue_mounted(&flush("in")))?.refused(&[
        &i.queue("in"),
        "Permission denied; it has mode 0",
        "owner root and group root, which do not admit ",
        "(usermod -aG root ",
    ])?;
    let admitted =
        run(with_mqueue_mounted(&flush("groups")))?.refused(&["mode 0660", "usermod -aG root"])?;
    ensure!(
        !admitted.contains("set mode ="),
        "its mode admits the group already: {admitted}"
    );
    let hidden = format!("mount -t tmpfs none /dev/mqueue; {}", flush("in"));
    run(with_mqueue_mounted(&hidden))?
        .refused(&["`mode` of the [[endpoint]]", "0660 admits the group"])?;
    daemon.stop()?;
    Ok(())
}

/// A list with nothing in it offers nothing.
fn an_empty_list_is_not_offered() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let daemon = Daemon::start(&config(&i))?;
    let says = [
        "no process is named arm",
        "the configuration has no [[process]]",
    ];
    let error = run(i.rtctl_command(&["run", "--as", "arm", "--", "true"]))?.refused(&says)?;
    ensure!(!error.contains("or use one of"), "{error}");
    daemon.stop()?;
    let owned = config(&i).replacen(
        "kind = \"mqueue\"\n",
        "kind = \"mqueue\"\nowner = \"arm\"\n",
        1,
    );
    let said =
        crate::util::tool::run_on(crate::util::tool::rtd(&["check", "-"]), owned.as_bytes())?;
    let error = said.refused(&[
        "no process is named `arm`; the configuration has none",
        "add a process",
    ])?;
    ensure!(!error.contains("there are: "), "{error}");
    Ok(())
}

/// One message is no plural, wherever it is counted.
fn one_message_is_counted_as_one() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let text = config(&i);
    let daemon = Daemon::start(&text)?;
    daemon.logged(&format!(
        "{}: 1 lane, 1 route, 2 endpoints, control socket",
        i.name
    ))?;
    daemon.kill()?;
    Peer::sender(&i.queue("in"))?.stream(0, 1)?;
    let daemon = Daemon::start(&text)?;
    daemon.logged(&format!(
        "adopted message queue {} (maxmsg 10) with 1 message\n",
        i.queue("in")
    ))?;
    i.until("it is delivered", |s| s.routes[0].ledger.delivered == 1)?;
    let said = run(i.rtctl_command(&["flush", "out"]))?.well()?;
    ensure!(said.starts_with("flushed 1 message from out ("), "{said}");
    daemon.logged("flushed 1 message that waited in it")?;
    daemon.stop()?;
    Ok(())
}

/// A user without permissions: one diagnostic for all lanes, which names all of them and the way to
/// run without.
fn an_ordinary_user_gets_one_hint_for_all_lanes() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let text = config(&i)
        + &lane("second", 40, "")
        + &i.mqueue("a", "")
        + &i.mqueue("b", "")
        + &route("a", &["b"], "lane = \"second\"");
    let file = i.file("two-lanes.toml");
    std::fs::write(
        &file,
        text.replace(&format!("socket = \"{}\"\n", i.socket()), ""),
    )?;
    let as_nobody = format!(
        "exec setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups --bounding-set -all"
    );
    let run_as_nobody = |options: &str| {
        let mut command = Command::new("sh");
        let limits = "ulimit -r 0; ulimit -l 64";
        command.args([
            "-c",
            &format!("{limits}; {as_nobody} {RTD} {options} {}", file.display()),
        ]);
        command.env("XDG_RUNTIME_DIR", "/nonexistent");
        die_with_parent_at_exec(&mut command);
        command
    };
    let error = run(run_as_nobody("check"))?.refused(&[
        "lanes `lane` (50), `second` (40) and the watchdog (51): their priorities are above RLIMIT_RTPRIO = 0",
        "rtd run --allow-degraded, to run without it",
    ])?;
    ensure!(
        error.matches("RLIMIT_RTPRIO").count() == 1 && error.matches("LimitRTPRIO=").count() == 1,
        "{error}"
    );
    Ok(())
}

/// A session that only takes part in direct routes needs no rtd, so nothing is logged of it at a
/// restart.
fn a_restart_says_nothing_of_direct_routes() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let text = i.head()
        + &process("planner")
        + &process("arm")
        + &lane_end("cmd", "planner", "")
        + &lane_end("arm.cmd", "arm", "")
        + &route("cmd", &["arm.cmd"], "path = \"direct\"");
    let daemon = Daemon::start(&text)?;
    let _arm = Peer::with_inbox(&i, "arm")?;
    let mut planner = Peer::from_endpoint(&i, "planner", "cmd")?;
    daemon.stop()?;
    let daemon = Daemon::start(&text)?;
    planner.reach("cmd")?;
    let log = daemon.stop()?;
    ensure!(
        !log.contains("had a session") && !log.contains("rejoin"),
        "{log}"
    );
    Ok(())
}
