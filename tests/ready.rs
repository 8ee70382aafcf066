//! A signal goes only to a process that is ready for it: one that handles it, or blocks it and
//! waits. Until then it is held.

use crate::util::book::End::{Delivered, Expired, PeerDead, Queued, Rejected};
use crate::util::needs::ROOT;
use crate::util::order;
use crate::util::stranger::Stranger;
use crate::util::tool::{Tool, run};
use crate::util::{Daemon, Instance, Peer, eventually, kernel, process, route, rt, signal};
use anyhow::{Context as _, ensure};
use rtcore::lane::peer::{PeerState, Reception};
use rtcore::message::Reject;
use std::os::unix::fs::chown;
use std::process::Command;

tests![
    a_program_with_a_handler_gets_what_was_held_for_it,
    a_loss_of_a_program_that_is_not_ready_has_the_advice_that_helps,
    a_program_in_sigwaitinfo_gets_its_signals,
    a_program_with_a_signalfd_gets_its_signals,
    a_program_that_ignores_the_signal_is_refused,
    a_program_that_expects_no_signal_is_not_killed,
    a_program_that_becomes_another_one_must_get_ready_again,
    a_thread_is_ready_when_it_blocks_the_signal_itself,
    a_registered_thread_that_has_ended_is_named_and_held_for_no_longer,
    a_session_gets_its_signals_when_its_dispatcher_is_there,
    where_sigwaitinfo_cannot_be_seen_the_log_says_so_once needs(ROOT),
];

const ROUTE: &str = "in->arm.go";

/// A queue whose messages go to the process `arm` as SIGRTMIN+5.
fn config(i: &Instance, more: &str) -> String {
    i.head()
        + &process("arm")
        + &i.mqueue("in", "")
        + &signal("arm.go", "arm", "SIGRTMIN+5", "")
        + &route("in", &["arm.go"], more)
}

fn sender(i: &Instance) -> anyhow::Result<Peer> {
    Peer::sender(&i.queue("in"))
}

/// A participant that `rtctl run` started, without a handler and with nothing blocked.
fn arm(i: &Instance) -> anyhow::Result<Peer> {
    let arm = Peer::run_as(i, "arm")?;
    let blocked = kernel::blocked(arm.pid(), arm.pid())?;
    ensure!(
        blocked >> (rt(5) - 1) & 1 == 0,
        "rtctl run must leave the mask as it is: {blocked:x}"
    );
    Ok(arm)
}

fn register(i: &Instance, more: &[&str]) -> anyhow::Result<()> {
    run(i.rtctl_command(&[&["register", "--as", "arm", "--pid"], more].concat()))?.well()?;
    Ok(())
}

fn handled(arm: &mut Peer, count: u64) -> anyhow::Result<()> {
    eventually(|| (arm.tell(order::Signal::Counted).ok()?.number().ok()? == count).then_some(()))
        .with_context(|| format!("handled {:?}", arm.tell(order::Signal::Counted)))
}

/// Everybody says so while it lasts: page, `ls`, `stats`, JSON, log, `rtctl send`.
fn a_program_with_a_handler_gets_what_was_held_for_it() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let daemon = Daemon::start(&config(&i, ""))?;
    let mut arm = arm(&i)?;
    let mut sender = sender(&i)?;
    sender.stream(1, 3)?;
    i.ledger_is(ROUTE, 3, &[(Queued, 3)])?;
    i.reception("arm.go", Reception::NotReady)?;
    let pid = arm.pid();
    daemon.logged(&format!(
        "arm: pid {pid} neither blocks nor handles SIGRTMIN+5 ({}), which would end it",
        rt(5)
    ))?;
    let waits = format!("waiting: not ready: arm.go, SIGRTMIN+5 to arm (pid {pid})");
    ensure!(run(i.rtctl_command(&["stats"]))?.well()?.contains(&waits));
    ensure!(
        run(i.rtctl_command(&["ls"]))?
            .well()?
            .contains("arm.go    waiting: not ready  signal")
    );
    for command in ["ls", "stats"] {
        let json: serde_json::Value =
            serde_json::from_str(&run(i.rtctl_command(&[command, "--json"]))?.well()?)?;
        let (target, endpoint) = (&json["routes"][0]["targets"][0], &json["endpoints"][1]);
        ensure!(
            target["waiting"] == "not ready" && endpoint["waiting"] == "not ready",
            "{json:#}"
        );
    }
    run(i.rtctl_command(&["send", "arm.go", "--value", "1"]))?.refused(&["nothing is sent"])?;

    arm.tell(order::Signal::Count(rt(5)))?;
    i.ledger_is(ROUTE, 3, &[(Delivered, 3)])?;
    handled(&mut arm, 3)?;
    i.reception("arm.go", Reception::Takes)?;
    daemon.logged(&format!("arm: pid {pid} takes SIGRTMIN+5 ({}) now", rt(5)))?;
    sender.stream(4, 2)?;
    handled(&mut arm, 5)?;
    let json: serde_json::Value =
        serde_json::from_str(&run(i.rtctl_command(&["stats", "--json"]))?.well()?)?;
    ensure!(json["endpoints"][1]["waiting"].is_null(), "{json:#}");
    let log = daemon.stop()?;
    ensure!(
        log.matches("neither blocks nor handles").count() == 1,
        "{log}"
    );
    Ok(())
}

/// What is lost because the program is not ready has the advice that helps: it would not help to
/// read faster.
fn a_loss_of_a_program_that_is_not_ready_has_the_advice_that_helps() -> anyhow::Result<()> {
    const ADVICE: &str =
        "let its program block or handle the signal before it registers, or raise ";
    for (more, says) in [
        (
            "capacity = 2",
            "lost (full): arm.go is not ready and capacity = 2",
        ),
        (
            "ttl = \"20ms\"",
            "lost (expired): arm.go did not take them within ttl = \"20ms\"",
        ),
    ] {
        let i = Instance::new()?;
        let daemon = Daemon::start(&config(&i, more))?;
        let _arm = arm(&i)?;
        i.reception("arm.go", Reception::NotReady)?;
        sender(&i)?.stream(1, 3)?;
        daemon.logged(says)?;
        let log = daemon.stop()?;
        let line = log
            .lines()
            .find(|line| line.contains(says))
            .context("not in the log")?;
        ensure!(
            line.contains(ADVICE) && !line.contains("read faster"),
            "{line}"
        );
    }
    Ok(())
}

/// Asleep in sigwaitinfo(2), its signals show as not blocked.
fn a_program_in_sigwaitinfo_gets_its_signals() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let daemon = Daemon::start(&config(&i, ""))?;
    let mut sender = sender(&i)?;
    for run_by_rtctl in [true, false] {
        let mut arm = if run_by_rtctl {
            arm(&i)?
        } else {
            Peer::start()?
        };
        arm.block(rt(5))?;
        arm.ask(order::Signal::Wait {
            signo: rt(5),
            count: 4,
        })?;
        let sleeps = || {
            kernel::blocked(arm.pid(), arm.pid())
                .ok()
                .filter(|bits| bits >> (rt(5) - 1) & 1 == 0)
        };
        eventually(sleeps).context("it does not show the signal as not blocked")?;
        if !run_by_rtctl {
            register(&i, &[&arm.pid().to_string()])?;
        }
        sender.stream(1, 2)?;
        // A look or more later still.
        i.until("delivered", |s| s.routes[0].ledger.queued == 0)?;
        std::thread::sleep(std::time::Duration::from_millis(1500));
        i.reception("arm.go", Reception::Takes)?;
        sender.stream(3, 2)?;
        let rang = arm.answer()?.rang()?;
        ensure!(rang.len() == 4 && rang[3].value == 4, "{rang:?}");
        arm.kill()?;
        i.until("dead", |s| s.processes[0].state == PeerState::Dead)?;
    }
    i.ledger_is(ROUTE, 8, &[(Delivered, 8)])?;
    let log = daemon.stop()?;
    ensure!(!log.contains("cannot see"), "{log}");
    Ok(())
}

/// The participant's `sigwait` polls a signalfd(2).
fn a_program_with_a_signalfd_gets_its_signals() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let _daemon = Daemon::start(&config(&i, ""))?;
    let mut arm = arm(&i)?;
    sender(&i)?.stream(1, 3)?;
    i.ledger_is(ROUTE, 3, &[(Queued, 3)])?;
    arm.block(rt(5))?;
    ensure!(
        arm.signals(rt(5), 3)?
            .iter()
            .map(|got| got.value)
            .eq([1, 2, 3])
    );
    i.ledger_is(ROUTE, 3, &[(Delivered, 3)])?;
    Ok(())
}

fn a_program_that_ignores_the_signal_is_refused() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let daemon = Daemon::start(&config(&i, ""))?;
    let mut arm = arm(&i)?;
    arm.tell(order::Signal::Ignore(rt(5)))?;
    i.reception("arm.go", Reception::Ignores)?;
    let mut sender = sender(&i)?;
    sender.stream(1, 5)?;
    i.ledger_is(ROUTE, 5, &[(Rejected(Reject::Ignored), 5)])?;
    daemon.logged(&format!(
        "arm: pid {} ignores SIGRTMIN+5 ({}) (SIG_IGN)",
        arm.pid(),
        rt(5)
    ))?;
    let json: serde_json::Value =
        serde_json::from_str(&run(i.rtctl_command(&["stats", "--json"]))?.well()?)?;
    ensure!(json["routes"][0]["rejected_by"]["ignored"] == 5, "{json:#}");
    ensure!(json["endpoints"][1]["waiting"] == "ignored", "{json:#}");
    // It may change its mind.
    arm.tell(order::Signal::Count(rt(5)))?;
    i.reception("arm.go", Reception::Takes)?;
    sender.stream(6, 1)?;
    handled(&mut arm, 1)?;
    Ok(())
}

/// `sleep` has no idea of signals, and lives.
fn a_program_that_expects_no_signal_is_not_killed() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let daemon = Daemon::start(&config(&i, "capacity = 2\nttl = \"700ms\""))?;
    let mut sender = sender(&i)?;
    for run_by_rtctl in [true, false] {
        let mut sleep = if run_by_rtctl {
            Tool::start(i.rtctl_command(&[
                "run",
                "--as",
                "arm",
                "--no-block",
                "--",
                "sleep",
                "1000",
            ]))?
        } else {
            let mut command = Command::new("sleep");
            command.arg("1000");
            rtcore::sys::process::die_with_parent_at_exec(&mut command);
            let sleep = Tool::start(command)?;
            register(&i, &[&sleep.pid().to_string()])?;
            sleep
        };
        i.until("alive", |s| s.processes[0].state == PeerState::Alive)?;
        let accepted = i.snapshot()?.routes[0].ledger.accepted;
        sender.stream(1, 5)?;
        i.until("past the capacity the policy decides", |s| {
            s.routes[0].ledger.accepted == accepted + 5 && s.routes[0].ledger.queued == 2
        })?;
        ensure!(sleep.runs(), "the signal killed it");
        // Nobody takes them: they end by their time to live, while nothing else happens.
        i.until("expired", |s| s.routes[0].ledger.queued == 0)?;
        ensure!(sleep.runs(), "the signal killed it");
        ensure!(kernel::pending(sleep.pid())? == 0);
        sleep.signal(nix::sys::signal::Signal::SIGKILL)?;
        let said = sleep.end()?;
        ensure!(
            !run_by_rtctl || said.err.contains("--no-block has no effect"),
            "{said:?}"
        );
        i.until("dead", |s| s.processes[0].state == PeerState::Dead)?;
    }
    i.ledger_is(ROUTE, 10, &[(Rejected(Reject::Full), 6), (Expired, 4)])?;
    daemon.stop()?;
    Ok(())
}

/// execve(2) resets the handlers.
fn a_program_that_becomes_another_one_must_get_ready_again() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let _daemon = Daemon::start(&config(&i, ""))?;
    let mut arm = arm(&i)?;
    arm.tell(order::Signal::Count(rt(5)))?;
    i.reception("arm.go", Reception::Takes)?;
    let mut sender = sender(&i)?;
    sender.stream(1, 1)?;
    handled(&mut arm, 1)?;
    arm.ask(order::Process::Exec)?;
    i.reception("arm.go", Reception::NotReady)?;
    sender.stream(2, 2)?;
    i.ledger_is(ROUTE, 3, &[(Delivered, 1), (Queued, 2)])?;
    arm.answer()?;
    handled(&mut arm, 0)?;
    arm.tell(order::Signal::Count(rt(5)))?;
    handled(&mut arm, 2)?;
    Ok(())
}

/// A signal to a thread depends on that thread; one to the process on all of them.
fn a_thread_is_ready_when_it_blocks_the_signal_itself() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let config = i.head()
        + &process("arm")
        + &i.mqueue("in", "")
        + &i.mqueue("other", "")
        + &signal("arm.go", "arm", "SIGRTMIN+5", "target = \"thread\"")
        + &signal("arm.all", "arm", "SIGRTMIN+6", "")
        + &route("in", &["arm.go"], "")
        + &route("other", &["arm.all"], "");
    let _daemon = Daemon::start(&config)?;
    let mut arm = Peer::start()?;
    let tid = arm.second_tid()?.to_string();
    for signo in [rt(5), rt(6)] {
        arm.tell(order::Second::Block(signo))?;
    }
    register(&i, &[&arm.pid().to_string(), "--tid", &tid])?;
    i.reception("arm.go", Reception::Takes)?;
    i.reception("arm.all", Reception::NotReady)?;
    sender(&i)?.stream(1, 2)?;
    Peer::sender(&i.queue("other"))?.stream(1, 2)?;
    let got = arm.second_signals(rt(5), 2)?;
    ensure!(
        got.iter()
            .map(|got| (got.value, got.tid.to_string()))
            .eq([(1, tid.clone()), (2, tid)]),
        "{got:?}"
    );
    i.ledger_is("other->arm.all", 2, &[(Queued, 2)])?;
    arm.block(rt(6))?;
    ensure!(arm.signals(rt(6), 2)?.len() == 2);
    Ok(())
}

/// The registered thread ends and its process lives: the log says so, and nothing is held for a
/// thread that cannot come back.
fn a_registered_thread_that_has_ended_is_named_and_held_for_no_longer() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let config = i.head()
        + &process("arm")
        + &i.mqueue("in", "")
        + &signal("arm.go", "arm", "SIGRTMIN+5", "target = \"thread\"")
        + &route("in", &["arm.go"], "");
    let daemon = Daemon::start(&config)?;
    let mut arm = Peer::start()?;
    let tid = arm.second_tid()?.to_string();
    arm.tell(order::Second::Block(rt(5)))?;
    let pid = arm.pid();
    register(&i, &[&pid.to_string(), "--tid", &tid])?;
    sender(&i)?.stream(1, 1)?;
    ensure!(arm.second_signals(rt(5), 1)?.len() == 1);
    arm.tell(order::Second::End)?;
    daemon.logged(&format!(
        "arm: thread {tid} of pid {pid}, to which its signals go, has ended and the process lives"
    ))?;
    i.reception("arm.go", Reception::Takes)?;
    sender(&i)?.stream(2, 3)?;
    i.ledger_is(ROUTE, 4, &[(Delivered, 1), (PeerDead, 3)])?;
    daemon.logged(
        "lost (peer-dead): nobody receives at arm.go: process arm is not registered, or it has ended, or its",
    )?;
    // Another thread takes over.
    arm.block(rt(5))?;
    register(&i, &[&pid.to_string()])?;
    sender(&i)?.stream(5, 1)?;
    ensure!(arm.signals(rt(5), 1)?.iter().map(|got| got.value).eq([5]));
    let log = daemon.stop()?;
    ensure!(
        log.matches("has ended and the process lives").count() == 1,
        "{log}"
    );
    ensure!(!log.contains("neither blocks nor handles"), "{log}");
    Ok(())
}

/// Its session is there before its dispatcher.
fn a_session_gets_its_signals_when_its_dispatcher_is_there() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let _daemon = Daemon::start(&config(&i, ""))?;
    let mut arm = Peer::start()?;
    arm.connect(&i, "arm")?;
    sender(&i)?.stream(1, 2)?;
    i.ledger_is(ROUTE, 2, &[(Queued, 2)])?;
    i.reception("arm.go", Reception::NotReady)?;
    arm.block_for_handlers(rt(5))?;
    arm.handle(rt(5))?;
    ensure!(arm.noticed(2)?.len() == 2);
    i.ledger_is(ROUTE, 2, &[(Delivered, 2)])?;
    Ok(())
}

/// rtd is one user, the program another, and nothing lets rtd see in which call it sleeps.
fn where_sigwaitinfo_cannot_be_seen_the_log_says_so_once() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let (own, other) = (Stranger::new(&i)?, Stranger::new(&i)?);
    chown(i.file(""), Some(own.uid), Some(own.uid))?;
    let account = format!("[daemon]\nuser = {}\ngroup = {}\n", own.uid, own.uid);
    let text = config(&i, "").replace("[daemon]\n", &account);
    let daemon = Daemon::start(&text)?;
    // Default action: held. Handler: visible.
    let mut arm = other.peer()?;
    register(&i, &[&arm.pid().to_string()])?;
    i.reception("arm.go", Reception::NotReady)?;
    arm.tell(order::Signal::Count(rt(5)))?;
    let mut sender = sender(&i)?;
    sender.stream(1, 1)?;
    handled(&mut arm, 1)?;
    arm.kill()?;
    i.until("dead", |s| s.processes[0].state == PeerState::Dead)?;
    // Blocked when it registers: known for good.
    let mut arm = other.peer()?;
    arm.block(rt(5))?;
    register(&i, &[&arm.pid().to_string()])?;
    arm.ask(order::Signal::Wait {
        signo: rt(5),
        count: 1,
    })?;
    std::thread::sleep(std::time::Duration::from_millis(2500));
    sender.stream(2, 1)?;
    ensure!(arm.answer()?.rang()?[0].value == 2);
    ensure!(!daemon.log().contains("cannot see"), "{}", daemon.log());
    arm.kill()?;
    i.until("dead", |s| s.processes[0].state == PeerState::Dead)?;
    // Asleep in sigwaitinfo(2) before it registers: taken for ready, with a warning.
    let mut arm = other.peer()?;
    arm.block(rt(5))?;
    arm.ask(order::Signal::Wait {
        signo: rt(5),
        count: 1,
    })?;
    eventually(|| (kernel::thread(arm.pid(), arm.pid()).ok()?.state == 'S').then_some(()))?;
    register(&i, &[&arm.pid().to_string()])?;
    sender.stream(3, 1)?;
    ensure!(arm.answer()?.rang()?[0].value == 3);
    let warning = format!(
        "cannot see whether pid {} (uid {}) waits for SIGRTMIN+5",
        arm.pid(),
        other.uid
    );
    daemon.logged(&warning)?;
    let log = daemon.stop()?;
    ensure!(log.matches("cannot see").count() == 1, "{log}");
    Ok(())
}
