//! System calls that an old kernel does not have or a container's seccomp profile refuses (ENOSYS,
//! EPERM): rtd and its clients work without them and do not spin.

use crate::lane_waits::one_wait_of;
use crate::util::kernel;
use crate::util::refuse::refuse;
use crate::util::session::{count, lane_end};
use crate::util::{Daemon, Instance, Peer, lane, process, route};
use anyhow::{Context as _, ensure};
use std::time::Duration;

tests![
    a_lane_of_several_rings_sleeps_without_futex_waitv,
    an_inbox_of_several_partners_sleeps_without_futex_waitv,
    one_wait_works_without_epoll_pwait2,
];

/// epoll_pwait2(2), on every architecture.
const EPOLL_PWAIT2: i64 = 441;
/// futex_waitv(2), on every architecture.
const FUTEX_WAITV: i64 = 449;
const EPERM: i32 = 1;
const ENOSYS: i32 = 38;
/// Over which an idle process is watched.
const IDLE: Duration = Duration::from_millis(1500);
/// Share of a CPU that looking every millisecond may cost on a slow machine; a thread that spins
/// has all of it.
const SHARE_MAX: f64 = 0.25;

fn cpu_ns(pid: u32) -> anyhow::Result<u64> {
    kernel::threads(pid)?
        .into_iter()
        .map(|tid| Ok(kernel::thread(pid, tid)?.ran_ns))
        .sum()
}

/// What an idle process uses of a CPU.
fn idle_share(pid: u32) -> anyhow::Result<f64> {
    let before = cpu_ns(pid)?;
    let since = std::time::Instant::now();
    std::thread::sleep(IDLE);
    Ok((cpu_ns(pid)? - before) as f64 / since.elapsed().as_nanos() as f64)
}

/// A lane that spins for a while and then waits for two rings at once.
fn a_lane_of_several_rings_sleeps_without_futex_waitv() -> anyhow::Result<()> {
    for errno in [EPERM, ENOSYS] {
        let i = Instance::new()?;
        let text = i.head()
            + &lane("both", 60, "wait = \"spin:2000\"")
            + &process("arm")
            + &process("drive")
            + &lane_end("arm.one", "arm", "")
            + &lane_end("arm.two", "arm", "")
            + &lane_end("drive.in", "drive", "")
            + &route("arm.one", &["drive.in"], "lane = \"both\"")
            + &route("arm.two", &["drive.in"], "lane = \"both\"");
        let mut refused = Ok(());
        let daemon = Daemon::start_with(&text, |command| {
            refused = refuse(command, &[FUTEX_WAITV], errno)
        })?;
        refused?;
        daemon.logged("futex_waitv(2) is refused")?;
        let mut drive = Peer::with_inbox(&i, "drive")?;
        let mut arm = Peer::from_endpoint(&i, "arm", "arm.one")?;
        arm.claim("arm.two")?;
        for (number, end) in [
            (0, "arm.one"),
            (1, "arm.two"),
            (2, "arm.one"),
            (3, "arm.two"),
        ] {
            arm.number(end, number)?;
            std::thread::sleep(Duration::from_millis(20));
        }
        let got = drive.got_until("number 3")?;
        ensure!(count(&got) == 4, "{got:?}");
        let share = idle_share(daemon.pid())?;
        println!(
            "errno {errno}: rtd uses {:.1} % of a CPU while idle",
            share * 100.0
        );
        ensure!(
            share < SHARE_MAX,
            "errno {errno}: an idle rtd uses {:.0} % of a CPU",
            share * 100.0
        );
        daemon.stop()?;
    }
    Ok(())
}

/// An inbox that two partners send to directly, each with a bell of its own.
fn an_inbox_of_several_partners_sleeps_without_futex_waitv() -> anyhow::Result<()> {
    for errno in [EPERM, ENOSYS] {
        let i = Instance::new()?;
        let partner = |n: &str| {
            process(&format!("p{n}"))
                + &lane_end(&format!("p{n}.out"), &format!("p{n}"), "")
                + &route(&format!("p{n}.out"), &["drive.in"], "path = \"direct\"")
        };
        let text = i.head()
            + &process("drive")
            + &lane_end("drive.in", "drive", "")
            + &partner("1")
            + &partner("2");
        let daemon = Daemon::start(&text)?;
        let mut refused = Ok(());
        let mut drive =
            Peer::start_with(|command| refused = refuse(command, &[FUTEX_WAITV], errno))?;
        refused?;
        drive.connect(&i, "drive")?;
        drive.open_inbox()?;
        let mut one = Peer::from_endpoint(&i, "p1", "p1.out")?;
        let mut two = Peer::from_endpoint(&i, "p2", "p2.out")?;
        drive.ask_until("number 9")?;
        let share = idle_share(drive.pid())?;
        println!(
            "errno {errno}: a waiting client uses {:.1} % of a CPU",
            share * 100.0
        );
        ensure!(
            share < SHARE_MAX,
            "errno {errno}: a waiting client uses {:.0} % of a CPU",
            share * 100.0
        );
        one.number("p1.out", 8)?;
        std::thread::sleep(Duration::from_millis(20));
        two.number("p2.out", 9)?;
        let got = drive.answered_until("number 9")?;
        ensure!(count(&got) == 2, "{got:?}");
        daemon.stop()?;
    }
    Ok(())
}

/// A program's one wait for an inbox, a timer and a signal.
fn one_wait_works_without_epoll_pwait2() -> anyhow::Result<()> {
    for errno in [EPERM, ENOSYS] {
        let mut refused = Ok(());
        let peer = Peer::start_with(|command| refused = refuse(command, &[EPOLL_PWAIT2], errno))?;
        refused?;
        one_wait_of(peer).with_context(|| format!("errno {errno}"))?;
    }
    Ok(())
}
