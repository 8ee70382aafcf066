//! Signals that arrive while a program of ours starts: by default they would end it.

use crate::util::book::End::Delivered;
use crate::util::{Daemon, Instance, Peer, eventually, kernel, route, rt, signal};
use anyhow::{Context as _, ensure};
use nix::sys::signal::Signal;
use rtcore::sys::{rtsignal, startup};

/// Waits until the program blocks every signal that a route may carry, which it does before `main`.
pub fn holds_signals(pid: u32) -> anyhow::Result<()> {
    let wanted = startup::routable().fold(0, |bits, signo| bits | rtsignal::bit(signo));
    eventually(|| (kernel::blocked(pid, pid).ok()? & wanted == wanted).then_some(()))
        .with_context(|| format!("{:x} of {wanted:x} are blocked", kernel::blocked(pid, pid).unwrap_or(0)))
}

/// The configuration comes late, so rtd is starting for as long as the test likes.
pub fn a_signal_to_a_starting_daemon_is_routed() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let config = i.head()
        + &signal("pressed", "", "SIGRTMIN+1", "")
        + &signal("usr", "", "SIGUSR1", "")
        + &i.mqueue("log", "")
        + &route("pressed", &["log"], "accept_claimed = true")
        + &route("usr", &["log"], "");
    let mut button = Peer::start()?;
    let mut kernel_pid = 0;
    let daemon = Daemon::start_after(&config, |pid| {
        holds_signals(pid)?;
        for value in 1..=5 {
            button.ring(pid, rt(1), value)?;
        }
        // One that no route reads, and the doorbells: one is read, the others are not.
        button.ring(pid, rt(7), 1)?;
        for doorbell in [Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGALRM, Signal::SIGIO] {
            button.tell(&format!("kill {pid} {}", doorbell as i32))?;
        }
        kernel_pid = pid;
        Ok(())
    })?;
    ensure!(daemon.pid() == kernel_pid);
    let mut log = Peer::receiver(&i.queue("log"))?;
    ensure!(log.receive(6)?.len() == 6);
    i.ledger_is("pressed->log", 5, &[(Delivered, 5)])?;
    i.ledger_is("usr->log", 1, &[(Delivered, 1)])?;
    // Nobody takes the rest, so it must not stay: pending signals count against the user's limit.
    ensure!(kernel::pending(kernel_pid)? == 0, "{:x}", kernel::pending(kernel_pid)?);
    daemon.stop()?;
    Ok(())
}
