//! Registrations outlive a restart of rtd: what is restored, what is not, and that the log says
//! which.

use crate::util::needs::ROOT;
use crate::util::refuse::refuse;
use crate::util::tool::{Tool, run};
use crate::util::{Daemon, Instance, Peer, eventually, process, route, rt, signal};
use anyhow::{Context as _, ensure};
use rtcore::lane::peer::PeerState;
use rtcore::sys::procfs;
use std::path::PathBuf;

tests![
    a_registered_program_gets_its_signals_after_every_restart,
    what_was_unregistered_stays_so_and_what_is_held_is_refused_to_others,
    a_start_keeps_every_registration_at_every_moment,
    what_was_removed_before_the_end_of_rtd_is_written_again,
    a_removed_file_of_registrations_is_written_again,
    a_process_that_cannot_be_examined_is_kept_for_the_next_start,
    registrations_that_could_not_be_kept_are_kept_later,
    who_cannot_be_restored_is_named_with_the_reason,
    another_users_process_is_not_restored needs(ROOT),
    another_process_of_the_same_number_is_not_restored,
    a_file_that_is_not_rtds_own_never_fails_a_start,
];

/// A queue whose messages go to the process `arm` as SIGRTMIN+5; `more` adds keys to the process.
fn config(i: &Instance, more: &str) -> String {
    i.head()
        + &process("arm")
        + more
        + &i.mqueue("in", "")
        + &signal("arm.go", "arm", "SIGRTMIN+5", "")
        + &route("in", &["arm.go"], "")
}

/// Where the instance keeps its registrations.
fn kept(i: &Instance) -> PathBuf {
    i.file("rtd.sock.registered")
}

fn state(i: &Instance) -> anyhow::Result<Option<(PeerState, u32)>> {
    Ok(i.snapshot()?
        .processes
        .iter()
        .find(|p| p.name == "arm")
        .map(|p| (p.state, p.pid)))
}

/// One message through the queue, and whether it comes as a signal.
fn reaches(i: &Instance, arm: &mut Peer, value: u8) -> anyhow::Result<()> {
    let mut sender = Peer::start()?;
    sender.open_to_send(&i.queue("in"))?;
    sender.send(0, &u64::from(value).to_ne_bytes())?;
    let got = arm.values_for(rt(5), 1, 10_000)?;
    ensure!(got == [u64::from(value)], "{got:?}");
    Ok(())
}

/// How a daemon ends.
fn end(daemon: Daemon, kill: bool) -> anyhow::Result<()> {
    if kill {
        daemon.kill()
    } else {
        daemon.stop().map(drop)
    }
}

/// Signals for a program that does not know rtd keep arriving after each restart, however it was
/// registered.
fn a_registered_program_gets_its_signals_after_every_restart() -> anyhow::Result<()> {
    for by_run in [true, false] {
        let i = Instance::new()?;
        let text = config(&i, "");
        let mut daemon = Daemon::start(&text)?;
        let mut arm = if by_run {
            Peer::ready_as(&i, "arm", &[rt(5)])?
        } else {
            let mut arm = Peer::start()?;
            arm.block(rt(5))?;
            let pid = arm.pid().to_string();
            run(i.rtctl_command(&["register", "--as", "arm", "--pid", &pid]))?.well()?;
            arm
        };
        for (round, kill) in (1..).zip([true, false, true, false]) {
            reaches(&i, &mut arm, round)?;
            end(daemon, kill)?;
            daemon = Daemon::start(&text)?;
            daemon.logged(&format!("arm: pid {}", arm.pid()))?;
            daemon.logged("is registered again, as before rtd was restarted")?;
            ensure!(state(&i)? == Some((PeerState::Alive, arm.pid())));
        }
        reaches(&i, &mut arm, 9)?;
        // A lane publishes its ledger after the delivery.
        let ledger = i
            .until("it is in the ledger", |s| s.routes[0].ledger.delivered == 1)?
            .routes[0]
            .ledger;
        ensure!(ledger.peer_dead == 0, "{ledger:?}");
        // Its death is noticed as that of any other.
        let pid = arm.pid();
        arm.kill()?;
        daemon.logged(&format!("arm: pid {pid} died"))?;
    }
    Ok(())
}

/// A name that was given back is not taken again, and a held one still is held.
fn what_was_unregistered_stays_so_and_what_is_held_is_refused_to_others() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let text = config(&i, "");
    let daemon = Daemon::start(&text)?;
    let arm = Peer::run_as(&i, "arm")?;
    end(daemon, true)?;
    let daemon = Daemon::start(&text)?;
    let held = format!("arm is held by pid {}", arm.pid());
    run(i.rtctl_command(&["run", "--as", "arm", "--", "true"]))?.refused(&[&held])?;
    run(i.rtctl_command(&["unregister", "--as", "arm"]))?.well()?;
    end(daemon, true)?;
    let _daemon = Daemon::start(&text)?;
    ensure!(state(&i)?.is_some_and(|(state, _)| state == PeerState::Unregistered));
    ensure!(!kept(&i).exists(), "nothing is left to keep");
    Ok(())
}

/// The file is written again when somebody removes it.
fn a_removed_file_of_registrations_is_written_again() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let text = config(&i, "");
    let daemon = Daemon::start(&text)?;
    let mut arm = Peer::ready_as(&i, "arm", &[rt(5)])?;
    std::fs::remove_file(kept(&i))?;
    daemon.logged("rtd.sock.registered was removed while rtd uses it; rtd writes it again")?;
    eventually(|| kept(&i).exists().then_some(()))?;
    end(daemon, true)?;
    let _daemon = Daemon::start(&text)?;
    reaches(&i, &mut arm, 1)
}

/// A stop, or a kill as soon as rtd listens again, after the directory or the file was removed.
fn what_was_removed_before_the_end_of_rtd_is_written_again() -> anyhow::Result<()> {
    for kill in [false, true] {
        let i = Instance::new()?;
        let text = config(&i, "");
        let daemon = Daemon::start(&text)?;
        let mut arm = Peer::ready_as(&i, "arm", &[rt(5)])?;
        if kill {
            let directory = kept(&i).parent().map(std::path::Path::to_owned);
            std::fs::remove_dir_all(directory.context("no directory")?)?;
            eventually(|| kept(&i).exists().then_some(()))?;
            ensure!(
                !daemon.log().contains("will not outlive"),
                "{}",
                daemon.log()
            );
        } else {
            std::fs::remove_file(kept(&i))?;
        }
        end(daemon, kill)?;
        let _daemon = Daemon::start(&text)?;
        reaches(&i, &mut arm, 1)?;
    }
    Ok(())
}

/// A start may be killed at any of its system calls: the file has every registration at each of
/// them.
fn a_start_keeps_every_registration_at_every_moment() -> anyhow::Result<()> {
    const NAMES: [&str; 4] = ["a", "b", "c", "d"];
    let i = Instance::new()?;
    let receivers =
        NAMES.map(|name| process(name) + &signal(&format!("{name}.go"), name, "SIGRTMIN+5", ""));
    let ends = NAMES.map(|name| format!("{name}.go"));
    let ends = ends.each_ref().map(String::as_str);
    let text = i.head() + &i.mqueue("in", "") + &receivers.concat() + &route("in", &ends, "");
    let daemon = Daemon::start(&text)?;
    let peers = NAMES.map(|name| Peer::ready_as(&i, name, &[rt(5)]));
    let peers = peers.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    daemon.kill()?;
    let mut calls = 0;
    crate::rejoin::traced_start(&i, &text, |page| {
        calls += 1;
        let text = std::fs::read_to_string(kept(&i)).unwrap_or_default();
        let missing = NAMES
            .iter()
            .find(|name| !text.contains(&format!("registration {name} ")));
        ensure!(
            missing.is_none(),
            "{missing:?} is missing at call {calls}: {text:?}"
        );
        Ok(page.is_some_and(|page| page.ready_ns.is_some()))
    })?;
    let daemon = Daemon::start(&text)?;
    let page = i.snapshot()?;
    ensure!(
        page.processes
            .iter()
            .all(|process| process.state == PeerState::Alive),
        "{:?}",
        page.processes
    );
    drop(peers);
    daemon.stop()?;
    Ok(())
}

/// A start that cannot examine the process, because a system call is refused, does not forget it:
/// the next start restores it.
fn a_process_that_cannot_be_examined_is_kept_for_the_next_start() -> anyhow::Result<()> {
    /// pidfd_open(2), on every architecture.
    const PIDFD_OPEN: i64 = 434;
    // EPERM, ENOSYS.
    for (errno, kill) in [(1, false), (38, true)] {
        let i = Instance::new()?;
        let text = config(&i, "");
        let daemon = Daemon::start(&text)?;
        let mut arm = Peer::ready_as(&i, "arm", &[rt(5)])?;
        reaches(&i, &mut arm, 1)?;
        daemon.stop()?;
        let mut refused = Ok(());
        let daemon = Daemon::start_with(&text, |command| {
            refused = refuse(command, &[PIDFD_OPEN], errno)
        })?;
        refused?;
        daemon.logged("pidfd_open(2) is refused")?;
        daemon.logged("the entry is kept for the next start")?;
        end(daemon, kill)?;
        let daemon = Daemon::start(&text)?;
        daemon.logged("is registered again, as before rtd was restarted")?;
        reaches(&i, &mut arm, 2)?;
        daemon.stop()?;
    }
    Ok(())
}

/// A file of registrations that could not be written is written as soon as that works, without
/// another registration.
fn registrations_that_could_not_be_kept_are_kept_later() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let text = config(&i, "");
    let daemon = Daemon::start(&text)?;
    std::fs::create_dir(kept(&i))?;
    let mut arm = Peer::ready_as(&i, "arm", &[rt(5)])?;
    daemon.logged("registrations will not outlive a restart of rtd")?;
    std::fs::remove_dir(kept(&i))?;
    daemon.logged("registrations outlive a restart of rtd again")?;
    daemon.kill()?;
    let daemon = Daemon::start(&text)?;
    daemon.logged("is registered again, as before rtd was restarted")?;
    reaches(&i, &mut arm, 1)?;
    daemon.stop()?;
    Ok(())
}

/// Who is not restored is named, with the reason and what to do.
fn who_cannot_be_restored_is_named_with_the_reason() -> anyhow::Result<()> {
    not_restored("", "arm", true, &["has ended", "start the program again"])?;
    not_restored(
        "exe = \"/bin/true\"\n",
        "arm",
        false,
        &["requires exe", "/sleep", "correct exe ="],
    )?;
    not_restored(
        "",
        "hand",
        false,
        &["no process is named arm", "[[process]] name = \"arm\""],
    )
}

/// An ordinary user's rtd could not send that process signals, so it would not start.
fn another_users_process_is_not_restored() -> anyhow::Result<()> {
    not_restored(
        "user = 4242\n",
        "arm",
        false,
        &["is uid", "requires uid 4242"],
    )
}

/// A daemon restarts with `more` keys for the process, which is called `name` now. Its log says
/// these things about the process that is not restored.
fn not_restored(more: &str, name: &str, end_it: bool, says: &[&str]) -> anyhow::Result<()> {
    let i = Instance::new()?;
    let daemon = Daemon::start(&config(&i, ""))?;
    let arm = Tool::start(i.rtctl_command(&["run", "--as", "arm", "--", "sleep", "1000"]))?;
    let pid = arm.pid();
    // rtctl has its answer, and became the program.
    let comm = format!("/proc/{pid}/comm");
    eventually(|| (std::fs::read_to_string(&comm).ok()? == "sleep\n").then_some(()))?;
    end(daemon, true)?;
    let arm = if end_it {
        drop(arm);
        None
    } else {
        Some(arm)
    };
    let daemon = Daemon::start(&config(&i, more).replace("\"arm\"", &format!("\"{name}\"")))?;
    daemon.logged(&format!("arm: pid {pid} ("))?;
    let log = daemon.log();
    let line = log
        .lines()
        .find(|line| line.contains("was registered before rtd was restarted"));
    let line = line.unwrap_or_default();
    ensure!(
        says.iter().all(|says| line.contains(says)),
        "{says:?} in {log}"
    );
    ensure!(i.snapshot()?.processes[0].state == PeerState::Unregistered);
    drop(arm);
    Ok(())
}

/// A number that passed on to another process brings that process no name.
fn another_process_of_the_same_number_is_not_restored() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let text = config(&i, "");
    let daemon = Daemon::start(&text)?;
    let arm = Peer::run_as(&i, "arm")?;
    end(daemon, true)?;
    let written = std::fs::read_to_string(kept(&i))?;
    let started = procfs::start_ticks(i32::try_from(arm.pid())?)?;
    ensure!(written.contains(&format!(" {started} ")), "{written}");
    std::fs::write(
        kept(&i),
        written.replace(&format!(" {started} "), &format!(" {} ", started - 1)),
    )?;
    let daemon = Daemon::start(&text)?;
    daemon.logged("has ended: start the program again")?;
    ensure!(state(&i)?.is_some_and(|(state, _)| state == PeerState::Unregistered));
    Ok(())
}

/// A file that cannot be used is reported, and rtd starts.
fn a_file_that_is_not_rtds_own_never_fails_a_start() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let text = config(&i, "");
    let arm = Peer::start()?;
    let of_another_boot = format!(
        "rtd registrations 1\nboot 0 pid:[1]\nregistration arm {0} {0} 1 0 0 0 . /bin/x\n",
        arm.pid()
    );
    for (bytes, says) in [
        ("\u{0}rubbish", "its first line is not"),
        ("rtd registrations 77\n", "its first line is not"),
        (of_another_boot.as_str(), "another boot"),
    ] {
        std::fs::write(kept(&i), bytes)?;
        let daemon = Daemon::start(&text)?;
        daemon.logged("registrations of the last run are not restored")?;
        daemon.logged(says)?;
        ensure!(state(&i)?.is_some_and(|(state, _)| state == PeerState::Unregistered));
        daemon.stop()?;
    }
    // What is no file of rtd's is neither read nor followed, and nothing waits for it.
    std::fs::write(i.file("elsewhere"), "rtd registrations 1\n")?;
    let _ = std::fs::remove_file(kept(&i));
    std::os::unix::fs::symlink(i.file("elsewhere"), kept(&i))?;
    let daemon = Daemon::start(&text)?;
    daemon.logged("registrations of the last run are not restored")?;
    let _arm = Peer::run_as(&i, "arm")?;
    ensure!(
        std::fs::read_to_string(i.file("elsewhere"))? == "rtd registrations 1\n",
        "written through a link"
    );
    daemon.stop()?;
    ensure!(
        kept(&i).symlink_metadata()?.is_file(),
        "replaced by rtd's own"
    );
    std::fs::remove_file(kept(&i))?;
    std::fs::create_dir(kept(&i))?;
    let daemon = Daemon::start(&text)?;
    run(i.rtctl_command(&["run", "--as", "arm", "--", "true"]))?;
    daemon.logged("registrations will not outlive a restart of rtd")?;
    daemon.stop()?;
    Ok(())
}
