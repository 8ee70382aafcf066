//! Faults of the machine, of strangers and of hostile clients.

use super::{Done, Kind, SOCKET, kill_ends, restart};
use crate::hostile;
use crate::journal::{CHILD_REFUSED, FORK};
use crate::patience::Patience;
use crate::plan::EndKind;
use crate::squeeze::{self, ClockStep, Group, limit};
use crate::world::World;
use anyhow::{Context as _, bail, ensure};
use nix::sys::signal::Signal;
use rtcore::sys::mqueue::Queue;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long a load goes on.
const LOAD: Duration = Duration::from_millis(300);
/// How long the storm of registrations goes on.
const STORM: Duration = Duration::from_secs(2);

/// What a fault is aimed at.
#[derive(Debug)]
pub struct Targets {
    pub sender: usize,
    pub receiver: usize,
    pub pause: Duration,
}

/// Does it, and undoes what has to be undone.
pub fn perform(
    kind: Kind,
    world: &mut World,
    rng: &mut fastrand::Rng,
    targets: &Targets,
    done: &mut Done,
) -> anyhow::Result<()> {
    let &Targets {
        sender,
        receiver,
        pause,
    } = targets;
    match kind {
        Kind::Fork | Kind::ForkAndKill => {
            let at = if rng.bool() { sender } else { receiver };
            fork(world, at)?;
            if kind == Kind::ForkAndKill {
                kill_ends(world, &[at], done)?;
            }
        }
        Kind::NoMemory => {
            let pid = world.daemon_pid()?;
            let was = limit(pid, libc::RLIMIT_AS, squeeze::address_space(pid)?)?;
            kill_ends(world, &[receiver], done)?;
            world.revive()?;
            std::thread::sleep(pause);
            limit(pid, libc::RLIMIT_AS, was)?;
        }
        Kind::MemoryGroup => in_memory_group(world, receiver, pause, done)?,
        Kind::Cpuset => super::misplace(kind, world, pause)?,
        Kind::ClockStep => {
            let _step = ClockStep::any(rng)?;
            std::thread::sleep(pause);
        }
        Kind::RemoveQueue | Kind::FewQueueBytes => remove_queue(kind, world, rng, pause, done)?,
        Kind::FillQueue => {
            let (stream, member) = any_queue(world, rng);
            let written = hostile::fill_queue(&queue_end(world, stream, member), LOAD)?;
            done.strangers = member.is_none().then_some((stream, written));
        }
        Kind::RefusedCall => refused_call(world, rng, pause, done)?,
        Kind::TwoStarts => {
            world.end_daemon(Signal::SIGKILL)?;
            (done.rtd_killed, done.rtd_ended) = (true, true);
            std::thread::sleep(pause);
            world.start_two_daemons()?;
        }
        Kind::FullRun => {
            let full = squeeze::fill("/run/full");
            kill_ends(world, &[receiver], done)?;
            world.revive()?;
            std::thread::sleep(LOAD);
            std::fs::remove_file("/run/full").and(full)?;
            is_kept(world, receiver)?;
            restart(world, Signal::SIGKILL, pause, done)?;
        }
        Kind::FullRunAtStart => {
            world.end_daemon(Signal::SIGKILL)?;
            (done.rtd_killed, done.rtd_ended) = (true, true);
            let full = squeeze::fill("/run/full");
            let refused = world.try_start(|_| Ok(()));
            std::fs::remove_file("/run/full").and(full)?;
            if let Some(text) = refused? {
                ensure!(
                    text.contains("No space left"),
                    "rtd does not name the full file system: {text}"
                );
                world.start_daemon()?;
            }
        }
        Kind::Registrations => done.rate = Some(hostile::registrations(SOCKET, STORM)?),
        _ => match kind.hostile_client() {
            Some(what) => {
                let mut client = world.start_hostile(what, rng.u64(..))?;
                std::thread::sleep(LOAD);
                let ended = client.try_wait()?;
                client.kill()?;
                client.wait()?;
                ensure!(
                    ended.is_none(),
                    "the hostile client ended by itself: {ended:?}"
                );
            }
            None => bail!("{kind:?} is not implemented"),
        },
    }
    Ok(())
}

/// Waits until rtd has written a process into the file of registrations.
fn is_kept(world: &mut World, at: usize) -> anyhow::Result<()> {
    let mut patience = Patience::new();
    loop {
        let pid = world.ends[at].pid().context("no process")?;
        let kept = std::fs::read_to_string(format!("{SOCKET}.registered")).unwrap_or_default();
        if kept.contains(&format!(" {pid} ")) {
            return Ok(());
        }
        ensure!(
            !patience.is_over(),
            "rtd does not keep the registration of pid {pid}"
        );
        std::thread::sleep(Duration::from_millis(2));
        world.revive()?;
    }
}

/// Has a process fork, and waits until its child has tried what it has inherited.
fn fork(world: &World, at: usize) -> anyhow::Result<()> {
    let end = &world.ends[at];
    let (order, child) = match end.member {
        None => (&world.sent[end.stream].order, &world.sent[end.stream].child),
        Some(m) => (
            &world.received[end.stream][m].order,
            &world.received[end.stream][m].child,
        ),
    };
    child.store(0, Ordering::Release);
    order.store(FORK, Ordering::Release);
    let mut patience = Patience::new();
    loop {
        match child.load(Ordering::Acquire) {
            0 => ensure!(!patience.is_over(), "an end does not fork"),
            CHILD_REFUSED => return Ok(()),
            _ => bail!(
                "the child of an end of {} used its session",
                world.streams[end.stream].name()
            ),
        }
        std::thread::sleep(Duration::from_micros(500));
    }
}

/// A receiver starts again while rtd's control group has little memory left. The kernel may kill
/// rtd for that.
fn in_memory_group(
    world: &mut World,
    receiver: usize,
    pause: Duration,
    done: &mut Done,
) -> anyhow::Result<()> {
    let group = Group::of_little_memory(world.daemon_pid()?)?;
    kill_ends(world, &[receiver], done)?;
    world.revive()?;
    std::thread::sleep(pause);
    drop(group);
    if let Some(status) = world.daemon_ended()? {
        use std::os::unix::process::ExitStatusExt as _;
        ensure!(
            status.signal() == Some(libc::SIGKILL),
            "rtd ended with {status} for want of memory"
        );
        restart(world, Signal::SIGKILL, pause, done)?;
    }
    Ok(())
}

/// A stream with a queue, and which receiver has it; none: the sender.
fn any_queue(world: &World, rng: &mut fastrand::Rng) -> (usize, Option<usize>) {
    let mut all = Vec::new();
    for stream in &world.streams {
        all.extend((stream.from == EndKind::Queue).then_some((stream.index, None)));
        let queues = stream
            .to
            .iter()
            .enumerate()
            .filter(|(_, kind)| **kind == EndKind::Queue);
        all.extend(queues.map(|(member, _)| (stream.index, Some(member))));
    }
    all[rng.usize(..all.len())]
}

/// The endpoint of that queue.
fn queue_end(world: &World, stream: usize, member: Option<usize>) -> String {
    let stream = &world.streams[stream];
    member.map_or_else(|| stream.source(), |m| stream.sink(m))
}

/// Removes a queue under rtd and restarts rtd, which creates it again; then the program at the
/// queue starts again, because it has the removed one open.
fn remove_queue(
    kind: Kind,
    world: &mut World,
    rng: &mut fastrand::Rng,
    pause: Duration,
    done: &mut Done,
) -> anyhow::Result<()> {
    let (stream, member) = any_queue(world, rng);
    let name = crate::plan::Stream::queue(&queue_end(world, stream, member));
    Queue::unlink(&std::ffi::CString::new(name)?)?;
    done.queue_removed = Some(stream);
    std::thread::sleep(pause);
    world.end_daemon(Signal::SIGTERM)?;
    done.rtd_ended = true;
    if kind == Kind::FewQueueBytes {
        let refused = world.try_start(|command| {
            squeeze::few_queue_bytes(command);
            Ok(())
        })?;
        let text = refused.context("rtd started although it may not create a queue")?;
        ensure!(
            text.contains("RLIMIT_MSGQUEUE"),
            "rtd does not name the limit: {text}"
        );
    }
    world.start_daemon()?;
    let at = world
        .ends
        .iter()
        .position(|end| end.stream == stream && end.member == member);
    kill_ends(world, &[at.context("no such end")?], done)
}

/// Starts rtd while a system call is refused. It says what it cannot do, or works without the call.
fn refused_call(
    world: &mut World,
    rng: &mut fastrand::Rng,
    pause: Duration,
    done: &mut Done,
) -> anyhow::Result<()> {
    world.end_daemon(Signal::SIGTERM)?;
    done.rtd_ended = true;
    let (what, refused) = squeeze::start_without_a_call(world, rng)?;
    if refused.is_none() {
        std::thread::sleep(LOAD);
        world.revive()?;
        world
            .end_daemon(Signal::SIGTERM)
            .with_context(|| format!("stop with {what}"))?;
        std::thread::sleep(pause);
    }
    world.start_daemon()
}
