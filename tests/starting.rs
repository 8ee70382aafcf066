//! A start: signals that arrive meanwhile, which by default would end the program, and what stays
//! of the threads that it used.

use crate::util::book::End::Delivered;
use crate::util::needs::ROOT;
use crate::util::order;
use crate::util::{Daemon, Instance, Peer, eventually, kernel, route, rt, signal};
use anyhow::{Context as _, ensure};
use nix::sys::signal::Signal;
use rtcore::sys::{rtsignal, startup};

tests![
    a_signal_to_a_starting_daemon_is_routed,
    the_threads_of_a_start_leave_no_stacks_locked needs(ROOT),
];

/// Waits until the program blocks every signal that a route may carry, which it does before `main`.
pub fn holds_signals(pid: u32) -> anyhow::Result<()> {
    let wanted = startup::routable().fold(0, |bits, signo| bits | rtsignal::bit(signo));
    eventually(|| (kernel::blocked(pid, pid).ok()? & wanted == wanted).then_some(())).with_context(
        || {
            format!(
                "{:x} of {wanted:x} are blocked",
                kernel::blocked(pid, pid).unwrap_or(0)
            )
        },
    )
}

/// The configuration comes late, so rtd is starting for as long as the test likes.
fn a_signal_to_a_starting_daemon_is_routed() -> anyhow::Result<()> {
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
        for doorbell in [
            Signal::SIGUSR1,
            Signal::SIGUSR2,
            Signal::SIGALRM,
            Signal::SIGIO,
        ] {
            button.tell(order::Signal::Kill {
                pid,
                signo: doorbell as i32,
            })?;
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
    ensure!(
        kernel::pending(kernel_pid)? == 0,
        "{:x}",
        kernel::pending(kernel_pid)?
    );
    daemon.stop()?;
    Ok(())
}

/// Bytes of a stack that a Rust thread has by default.
const DEFAULT_STACK_KIB: &str = "2048 kB";

/// Each lane thread tries its filter on a thread that ends at once, many of them at the same time.
/// The C library keeps the stacks of these, and the start locks all memory.
fn the_threads_of_a_start_leave_no_stacks_locked() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let many =
        (0..16).map(|n| i.mqueue(&format!("in{n}"), "") + &route(&format!("in{n}"), &["log"], ""));
    let config = i.head() + &i.mqueue("log", "") + &many.collect::<String>();
    for _ in 0..4 {
        let daemon = Daemon::start(&config)?;
        let maps = std::fs::read_to_string(format!("/proc/{}/smaps", daemon.pid()))?;
        let has = |key: &str, line: &&str| {
            line.strip_prefix(key)
                .is_some_and(|value| value.trim() == DEFAULT_STACK_KIB)
        };
        let locked = maps.lines().filter(|line| has("Locked:", line)).count();
        ensure!(
            locked == 0,
            "{locked} stacks of {DEFAULT_STACK_KIB} are locked"
        );
        ensure!(
            maps.lines()
                .any(|line| line.starts_with("Locked:") && !line.ends_with(" 0 kB"))
        );
        daemon.stop()?;
    }
    Ok(())
}
