//! Names for unmodified programs: `rtctl run`, `rtctl register`, `rtctl unregister`.

use crate::util::order;
use crate::util::tool::{Tool, run};
use crate::util::{Daemon, Instance, Peer, eventually, process, route, rt, signal};
use anyhow::{Context as _, ensure};
use rtcore::lane::peer::PeerState;
use rtcore::stats::reader::Snapshot;

tests![
    a_thread_name_that_is_not_utf_8_hides_no_process,
    run_gives_an_unmodified_program_a_name_and_the_pid_stays,
    the_program_keeps_its_streams_arguments_and_exit_code,
    what_cannot_be_run_says_126_or_127_and_gives_the_name_back,
    a_name_that_a_live_process_holds_is_refused,
    a_name_that_does_not_exist_is_refused_with_those_that_do,
    a_running_program_is_registered_by_its_pid_and_gets_its_signals,
    what_is_no_process_is_refused,
    without_a_daemon_the_error_has_the_command_to_start_it,
    no_signal_kills_between_registration_and_sigwait,
];

/// A queue whose messages go to the process `arm` as SIGRTMIN+5.
fn config(i: &Instance) -> String {
    i.head()
        + &process("arm")
        + &process("leg")
        + &i.mqueue("in", "")
        + &signal("arm.go", "arm", "SIGRTMIN+5", "")
        + &route("in", &["arm.go"], "")
}

fn state(s: &Snapshot, name: &str) -> Option<(PeerState, u32)> {
    s.processes
        .iter()
        .find(|p| p.name == name)
        .map(|p| (p.state, p.pid))
}

/// A process that opened the queue `in`.
fn sender(i: &Instance) -> anyhow::Result<Peer> {
    let mut peer = Peer::start()?;
    peer.open_to_send(&i.queue("in"))?;
    Ok(peer)
}

fn run_gives_an_unmodified_program_a_name_and_the_pid_stays() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let daemon = Daemon::start(&config(&i))?;
    let sleep = Tool::start(i.rtctl_command(&["run", "--as", "arm", "--", "sleep", "1000"]))?;
    let alive = (PeerState::Alive, sleep.pid());
    i.until("arm is alive", |s| state(s, "arm") == Some(alive))?;
    let comm = format!("/proc/{}/comm", sleep.pid());
    eventually(|| (std::fs::read_to_string(&comm).ok()? == "sleep\n").then_some(()))?;
    i.until("still", |s| {
        state(s, "arm") == Some(alive) && state(s, "leg") == Some((PeerState::Unregistered, 0))
    })?;
    let log = daemon.stop()?;
    ensure!(
        log.contains(&format!("pid {} is arm (generation 1", sleep.pid())),
        "{log}"
    );
    Ok(())
}

fn the_program_keeps_its_streams_arguments_and_exit_code() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let _daemon = Daemon::start(&config(&i))?;
    let script = "echo \"$0 $1\"; exit 42";
    let said = run(i.rtctl_command(&[
        "run", "--as", "arm", "--", "sh", "-c", script, "a b", "--as",
    ]))?;
    ensure!(
        said.code() == Some(42) && said.out == "a b --as\n",
        "{said:?}"
    );
    ensure!(
        said.err.starts_with("rtctl: registered as arm (pid "),
        "{said:?}"
    );
    Ok(())
}

fn what_cannot_be_run_says_126_or_127_and_gives_the_name_back() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let _daemon = Daemon::start(&config(&i))?;
    let absent = run(i.rtctl_command(&["run", "--as", "arm", "--", "/nonexistent/program"]))?;
    ensure!(
        absent.code() == Some(127) && absent.err.contains("/nonexistent/program"),
        "{absent:?}"
    );
    std::fs::write(i.file("data"), "no program")?;
    let file = i.file("data").display().to_string();
    let data = run(i.rtctl_command(&["run", "--as", "arm", "--", &file]))?;
    ensure!(
        data.code() == Some(126) && data.err.contains(&file),
        "{data:?}"
    );
    ensure!(run(i.rtctl_command(&["run", "--as", "arm", "--", "true"]))?.code() == Some(0));
    Ok(())
}

fn a_name_that_a_live_process_holds_is_refused() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let _daemon = Daemon::start(&config(&i))?;
    let mut holder = Peer::run_as(&i, "arm")?;
    let held = format!("arm is held by pid {}", holder.pid());
    let other = Peer::start()?;
    let says: [&str; 2] = [&held, "rtctl unregister --as arm"];
    run(i.rtctl_command(&["run", "--as", "arm", "--", "true"]))?.refused(&says)?;
    let pid = other.pid().to_string();
    run(i.rtctl_command(&["register", "--as", "arm", "--pid", &pid]))?.refused(&says)?;
    ensure!(state(&i.snapshot()?, "arm") == Some((PeerState::Alive, holder.pid())));

    run(i.rtctl_command(&["unregister", "--as", "arm"]))?.well()?;
    ensure!(
        state(&i.snapshot()?, "arm").is_some_and(|(state, _)| state == PeerState::Unregistered)
    );
    holder.tid().context("it goes on")?;
    run(i.rtctl_command(&["register", "--as", "arm", "--pid", &pid]))?.well()?;
    ensure!(state(&i.snapshot()?, "arm") == Some((PeerState::Alive, other.pid())));
    Ok(())
}

fn a_name_that_does_not_exist_is_refused_with_those_that_do() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let _daemon = Daemon::start(&config(&i))?;
    let says = [
        "no process is named hand",
        "[[process]] name = \"hand\"",
        "arm, leg",
    ];
    run(i.rtctl_command(&["run", "--as", "hand", "--", "true"]))?.refused(&says)?;
    run(i.rtctl_command(&["unregister", "--as", "hand"]))?.refused(&says)?;
    run(i.rtctl_command(&["unregister", "--as", "leg"]))?
        .refused(&["nobody is registered as leg"])?;
    run(i.rtctl_command(&["run", "--as", "a b", "--", "true"]))?.refused(&["--as \"a b\""])?;
    Ok(())
}

fn a_running_program_is_registered_by_its_pid_and_gets_its_signals() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let daemon = Daemon::start(&config(&i))?;
    let mut arm = Peer::start()?;
    arm.block(rt(5))?;
    let pid = arm.pid().to_string();
    let out = run(i.rtctl_command(&["register", "--as", "arm", "--pid", &pid]))?.well()?;
    ensure!(
        out == format!("registered as arm (pid {pid}, generation 1, signals SIGRTMIN+5)\n"),
        "{out}"
    );
    sender(&i)?.send(0, &42_u64.to_ne_bytes())?;
    let got = arm.values_for(rt(5), 1, 10_000)?;
    ensure!(got == [42], "{got:?}");
    daemon.stop()?;
    Ok(())
}

fn what_is_no_process_is_refused() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let daemon = Daemon::start(&config(&i))?;
    let register =
        |more: &[&str]| run(i.rtctl_command(&[&["register", "--as", "arm"], more].concat()));
    let rtd = daemon.pid().to_string();
    register(&["--pid", &rtd])?.refused(&["is rtd itself"])?;
    let mut gone = std::process::Command::new("true").spawn()?;
    gone.wait()?;
    register(&["--pid", &gone.id().to_string()])?.refused(&["a running process"])?;
    let (peer, stranger) = (Peer::start()?, Peer::start()?);
    let (pid, tid) = (peer.pid().to_string(), stranger.pid().to_string());
    register(&["--pid", &pid, "--tid", &tid])?
        .refused(&[&format!("tid {tid} is no thread of pid {pid}")])?;
    ensure!(register(&["--pid", "0"])?.code() == Some(2), "0 is no pid");
    ensure!(state(&i.snapshot()?, "arm") == Some((PeerState::Unregistered, 0)));
    Ok(())
}

fn without_a_daemon_the_error_has_the_command_to_start_it() -> anyhow::Result<()> {
    let (i, other) = (Instance::new()?, Instance::new()?);
    // The likeliest mistake is to have named no instance, or another one.
    let daemon = Daemon::start(&config(&other))?;
    let says = [
        &i.socket(),
        "rtd is not running there",
        &other.name,
        "on this machine",
        "--instance",
    ];
    let says = says.map(|s| s as &str);
    run(i.rtctl_command(&["run", "--as", "arm", "--", "true"]))?.refused(&says)?;
    run(i.rtctl_command(&["register", "--as", "arm", "--pid", "1"]))?.refused(&says)?;
    daemon.stop()?;
    Ok(())
}

/// Messages come all the time while programs take the name, one after the other; none dies of it,
/// and each gets what came from its registration on, when it is ready.
fn no_signal_kills_between_registration_and_sigwait() -> anyhow::Result<()> {
    const STARTS: u64 = 12;
    let i = Instance::new()?;
    let patient = config(&i).replace("lane = \"lane\"", "lane = \"lane\"\ncapacity = 600");
    let daemon = Daemon::start(&patient)?;
    let mut sender = sender(&i)?;
    let mut sent = 0;
    let mut received = 0;
    for n in 0..STARTS {
        // Asked before the start, answered after it: the daemon sends while the program comes up.
        sender.ask(order::Queue::Stream {
            from: sent,
            count: 500,
        })?;
        sent += 500;
        let mut arm = Peer::run_as(&i, "arm").with_context(|| format!("start {n}"))?;
        arm.block(rt(5))?;
        sender.answer()?;
        sender.stream(sent, 1)?;
        sent += 1;
        i.until("all accepted", |s| {
            s.routes[0].ledger.accepted == sent && s.routes[0].ledger.queued == 0
        })?;
        let got = arm.values_for(rt(5), 1000, 0)?;
        let last = got
            .last()
            .with_context(|| format!("start {n}: nothing came"))?;
        ensure!(*last == sent - 1, "start {n}: {last}, sent {sent}");
        received += got.len() as u64;
        arm.kill()?;
        i.until("dead", |s| {
            state(s, "arm").is_some_and(|(state, _)| state == PeerState::Dead)
        })?;
    }
    let ledger = i.snapshot()?.routes[0].ledger;
    ensure!(
        ledger.delivered == received && ledger.peer_dead == sent - received,
        "{received}: {ledger:?}"
    );
    ensure!(ledger.balances() && ledger.peer_dead > 0);
    daemon.stop()?;
    Ok(())
}

/// prctl(PR_SET_NAME) takes any bytes, and /proc shows them.
fn a_thread_name_that_is_not_utf_8_hides_no_process() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let _daemon = Daemon::start(&config(&i))?;
    let mut sender = sender(&i)?;
    // One that links nothing, is registered from outside and dies.
    let mut arm = Peer::start()?;
    arm.tell(order::Process::Name(vec![0x61, 0xff, 0x29, 0x20, 0x53]))?;
    arm.block(rt(5))?;
    let said = i.rtctl(&["register", "--as", "arm", "--pid", &arm.pid().to_string()])?;
    ensure!(said.status.success(), "{said:?}");
    sender.stream(7, 1)?;
    ensure!(arm.signals(rt(5), 1)?.first().map(|got| got.value) == Some(7));
    arm.kill()?;
    i.until("arm is dead", |s| {
        state(s, "arm").is_some_and(|(state, _)| state == PeerState::Dead)
    })?;
    // One with a session, whose library looks at the masks of all its threads.
    let mut arm = Peer::start()?;
    arm.tell(order::Process::Name(vec![0xc3, 0x28]))?;
    arm.block_for_handlers(rt(5))?;
    arm.connect(&i, "arm")?;
    arm.handle(rt(5))?;
    sender.stream(8, 1)?;
    let notices = arm.noticed(1)?;
    ensure!(
        (notices[0].signo, notices[0].value) == (rt(5), 8),
        "{notices:?}"
    );
    Ok(())
}
