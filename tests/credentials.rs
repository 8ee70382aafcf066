//! Who may take a name: user, group, executable, and for whom one may ask.

use crate::util::needs::{ORDINARY_USER, SECOND_USER};
use crate::util::tool::{NOBODY, Tool, as_nobody, run};
use crate::util::{self, Daemon, Instance, Peer, process};
use anyhow::{Context as _, ensure};
use nix::unistd::{getegid, geteuid};
use rtcore::lane::peer::PeerState;
use rtcore::wire::{FRAME_BYTES, Name, Reply, Request, Status};
use std::path::Path;

tests![
    a_user_and_a_group_are_demanded,
    an_executable_is_demanded_of_a_running_program,
    an_executable_is_demanded_of_what_run_starts,
    a_wrong_program_loses_the_name_and_lives,
    nobody_registers_another_users_process needs(ORDINARY_USER),
    another_user_takes_what_is_meant_for_it_and_nothing_else needs(SECOND_USER),
    a_hand_made_request_is_judged_by_the_sockets_credentials,
];

/// Which `[[process]]` keys a configuration of one route has.
fn config(i: &Instance, keys: &[(&str, String)]) -> String {
    let mut text =
        i.head() + &i.mqueue("a", "") + &i.mqueue("b", "") + &util::route("a", &["b"], "");
    for (name, key) in keys {
        text += &format!("{}{key}\n", process(name));
    }
    text
}

/// The state of a name.
fn state(i: &Instance, name: &str) -> anyhow::Result<PeerState> {
    let page = i.snapshot()?;
    page.processes
        .iter()
        .find(|p| p.name == name)
        .map(|p| p.state)
        .context("no such process")
}

fn a_user_and_a_group_are_demanded() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    let keys = [
        ("own", format!("user = {uid}\ngroup = {gid}")),
        ("user", format!("user = {}", uid + 1)),
        ("group", format!("group = {}", gid + 54_321)),
    ];
    let _daemon = Daemon::start(&config(&i, &keys))?;
    let take = |name: &str| run(i.rtctl_command(&["run", "--as", name, "--", "true"]));
    take("own")?.well()?;
    let user = format!(
        "is uid {uid}, [[process]] \"user\" requires uid {}",
        uid + 1
    );
    take("user")?.refused(&[&user, "correct user ="])?;
    let group = format!(
        "not in gid {}, which [[process]] \"group\" requires",
        gid + 54_321
    );
    take("group")?.refused(&[&group, "correct group ="])?;
    let peer = Peer::start()?;
    let pid = peer.pid().to_string();
    let register = |name: &str| run(i.rtctl_command(&["register", "--as", name, "--pid", &pid]));
    register("user")?.refused(&[&user])?;
    register("group")?.refused(&[&group])?;
    register("own")?.well()?;
    ensure!(state(&i, "user")? == PeerState::Unregistered && state(&i, "own")? == PeerState::Alive);
    Ok(())
}

fn an_executable_is_demanded_of_a_running_program() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let own = std::env::current_exe()?;
    let keys = [
        ("peer", format!("exe = {own:?}")),
        ("shell", "exe = \"/bin/sh\"".to_owned()),
    ];
    let _daemon = Daemon::start(&config(&i, &keys))?;
    let peer = Peer::start()?;
    let pid = peer.pid().to_string();
    let register = |name: &str| run(i.rtctl_command(&["register", "--as", name, "--pid", &pid]));
    register("shell")?.refused(&["\"shell\" requires exe /", "correct exe ="])?;
    register("peer")?.well()?;
    ensure!(
        state(&i, "shell")? == PeerState::Unregistered && state(&i, "peer")? == PeerState::Alive
    );
    Ok(())
}

/// What `rtctl run` starts is seen after its exec: until then the name is nobody's.
fn an_executable_is_demanded_of_what_run_starts() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let sleep = Path::new("/bin/sleep").canonicalize()?;
    let keys = [("sleeper", format!("exe = {sleep:?}"))];
    let daemon = Daemon::start(&config(&i, &keys))?;
    let start = |program: &str| {
        Tool::start(i.rtctl_command(&["run", "--as", "sleeper", "--", program, "1000"]))
    };
    let wrong = std::env::current_exe()?.display().to_string();
    let refused = run(i.rtctl_command(&["run", "--as", "sleeper", "--", &wrong, "--list"]))?;
    ensure!(
        refused.code() == Some(0),
        "the program itself runs: {refused:?}"
    );
    ensure!(
        refused
            .err
            .contains("active once rtd has seen the executable"),
        "{refused:?}"
    );
    ensure!(state(&i, "sleeper")? != PeerState::Alive);

    let right = start("sleep")?;
    i.until("active", |s| {
        s.processes[0].state == PeerState::Alive && s.processes[0].pid == right.pid()
    })?;
    drop(right);
    let log = daemon.stop()?;
    ensure!(
        log.contains("runs the required executable: active"),
        "{log}"
    );
    ensure!(
        log.matches("runs the required executable: active").count() == 1,
        "{log}"
    );
    Ok(())
}

/// The wrong program goes on, without the name.
fn a_wrong_program_loses_the_name_and_lives() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let keys = [("shell", "exe = \"/bin/sh\"".to_owned())];
    let daemon = Daemon::start(&config(&i, &keys))?;
    let mut wrong = Peer::run_as(&i, "shell")?;
    let again =
        Tool::start(i.rtctl_command(&["run", "--as", "shell", "--", "sh", "-c", "read line"]))?;
    i.until("the right one has it", |s| {
        s.processes[0].pid == again.pid()
    })?;
    wrong.tid().context("the wrong program does not live")?;
    let log = daemon.stop()?;
    ensure!(
        log.contains("registration ended: \"shell\" requires exe /"),
        "{log}"
    );
    Ok(())
}

fn nobody_registers_another_users_process() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let _daemon = Daemon::start(&config(&i, &[("arm", String::new())]))?;
    // As root: a stranger asks for a process of root's. As anybody else: we ask for init.
    let peer = Peer::start()?;
    let stranger = geteuid().is_root();
    let pid = if stranger { peer.pid() } else { 1 };
    let mut command = i.rtctl_command(&["register", "--as", "arm", "--pid", &pid.to_string()]);
    if stranger {
        as_nobody(&mut command);
    }
    run(command)?.refused(&[
        &format!("may not register pid {pid}"),
        "only that user and root may",
    ])?;
    ensure!(state(&i, "arm")? == PeerState::Unregistered);
    Ok(())
}

/// Root's daemon, somebody else's processes.
fn another_user_takes_what_is_meant_for_it_and_nothing_else() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let keys = [
        ("roots", "user = 0".to_owned()),
        ("nobodys", format!("user = {NOBODY}\ngroup = {NOBODY}")),
        ("anybodys", String::new()),
    ];
    let _daemon = Daemon::start(&config(&i, &keys))?;
    let nobody = |arguments: &[&str]| {
        let mut command = i.rtctl_command(arguments);
        as_nobody(&mut command);
        command
    };
    run(nobody(&["run", "--as", "roots", "--", "true"]))?.refused(&["requires uid 0"])?;
    run(i.rtctl_command(&["run", "--as", "nobodys", "--", "true"]))?
        .refused(&["requires uid 65534"])?;
    run(nobody(&["run", "--as", "anybodys", "--", "true"]))?.well()?;
    let sleep = Tool::start(nobody(&["run", "--as", "nobodys", "--", "sleep", "1000"]))?;
    let page = i.until("it has it", |s| s.processes[1].pid == sleep.pid())?;
    ensure!(page.processes[1].uid == Some(NOBODY) && page.processes[1].state == PeerState::Alive);

    // Root frees anybody's name; a stranger frees none of root's.
    run(i.rtctl_command(&["unregister", "--as", "nobodys"]))?.well()?;
    let _roots = Peer::run_as(&i, "roots")?;
    run(nobody(&["unregister", "--as", "roots"]))?
        .refused(&["uid 65534 may not unregister roots"])?;
    ensure!(state(&i, "roots")? == PeerState::Alive);
    Ok(())
}

/// A client that does not use our tool meets the same policy.
fn a_hand_made_request_is_judged_by_the_sockets_credentials() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let uid = geteuid().as_raw();
    let _daemon = Daemon::start(&config(&i, &[("other", format!("user = {}", uid + 1))]))?;
    let socket = i.socket();
    let conn = rtcore::sys::seqpacket::Conn::connect(socket.as_ref(), util::patience())?;
    let name = Name::new("other")?;
    conn.send(
        &Request::Register {
            name,
            pid: 0,
            tid: 0,
            exec_follows: false,
        }
        .encode(),
    )?;
    let mut frame = [0; FRAME_BYTES];
    conn.receive_within(&mut frame, util::patience())?;
    let reply = Reply::decode(&frame)?;
    ensure!(
        reply.status == Status::Denied && reply.text.contains("requires uid"),
        "{reply:?}"
    );
    Ok(())
}
