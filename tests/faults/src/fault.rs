//! The faults, and what the documents allow after each.

mod strain;

use crate::account::{Allowance, Numbers, Wrong};
use crate::allowed::Sentence;
use crate::hostile;
use crate::journal::EXEC;
use crate::patience::Patience;
use crate::plan::{CAPACITY, EndKind, MAXMSG, Share, Stream};
use crate::squeeze::{Group, fill, limit};
use crate::traced::{Killer, kill_after_steps};
use crate::world::{End, World};
use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A fault from outside.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    clap::ValueEnum,
    serde::Serialize,
    serde::Deserialize,
)]
pub enum Kind {
    /// kill -9 of rtd, and another start.
    KillRtd,
    /// SIGTERM of rtd, and another start.
    TermRtd,
    /// SIGSTOP of rtd, then SIGCONT.
    StopRtd,
    /// kill -9 of a sender.
    KillSender,
    /// SIGSTOP of a sender.
    StopSender,
    /// kill -9 of a receiver.
    KillReceiver,
    /// SIGSTOP of a receiver.
    StopReceiver,
    /// kill -9 of rtd and of a sender.
    KillRtdAndSender,
    /// SIGTERM of rtd, and kill -9 of a sender before the next start.
    TermRtdAndSender,
    /// kill -9 of rtd and of a receiver.
    KillRtdAndReceiver,
    /// kill -9 of both ends of a stream.
    KillPair,
    /// kill -9 of rtd while a receiver is stopped.
    KillRtdStopReceiver,
    /// SIGTERM of rtd while a receiver is stopped.
    TermRtdStopReceiver,
    /// Another rtd of the same name.
    SecondRtd,
    /// The statistics page is removed.
    RemovePage,
    /// The control socket is removed.
    RemoveSocket,
    /// The run directory is removed.
    RemoveRunDirectory,
    /// The lanes' threads get another priority (chrt).
    Priority,
    /// The lanes' threads get other CPUs (taskset).
    Affinity,
    /// /dev/shm is full while a receiver starts again.
    FullShm,
    /// A SCHED_FIFO 99 thread on the lanes' CPU.
    Hog,
    /// rtd is killed before one of its system calls while a receiver's session opens.
    KillRtdAtOpen,
    /// rtd is killed before one of its system calls while a session ends.
    KillRtdAtLeave,
    /// rtd is killed before one of its system calls after SIGTERM.
    KillRtdAtStop,
    /// rtd is killed before one of its system calls while it starts.
    KillRtdAtStart,
    /// A sender is killed between two of its instructions.
    KillSenderAtStep,
    /// A receiver is killed between two of its instructions.
    KillReceiverAtStep,
    /// A sender runs exec(2) and opens its endpoint again.
    ExecSender,
    /// SIGTERM of rtd, and a start with another configuration.
    OtherConfiguration,
    /// rtd has no descriptors left (RLIMIT_NOFILE) while a receiver starts again.
    NoDescriptors,
    /// A receiver starts again that may have few signals queued (RLIMIT_SIGPENDING).
    FewSignals,
    /// Strangers write random bytes to the control socket.
    Garbage,
    /// Strangers write frames of other versions and random content to the control socket.
    WrongVersion,
    /// rtd ends by SIGKILL at a named point ([`crate::points`]).
    KillRtdAtPoint,
    /// A sender or receiver ends by SIGKILL at a named point.
    KillClientAtPoint,
    /// rtd, a sender or a receiver sleeps at a named point.
    DelayAtPoint,
    /// A call fails at a named point.
    FailAtPoint,
    /// A sender or a receiver forks a child, which goes on using what it has inherited.
    Fork,
    /// The same, and the parent is killed while the child lives.
    ForkAndKill,
    /// rtd gets no more address space (RLIMIT_AS) while a receiver starts again.
    NoMemory,
    /// rtd is in a control group with little memory while a receiver starts again.
    MemoryGroup,
    /// rtd may run on another CPU only (cpuset).
    Cpuset,
    /// CLOCK_REALTIME is set forth or back, and back again.
    ClockStep,
    /// A stranger removes a queue, and rtd is restarted.
    RemoveQueue,
    /// The same, and the first start may not create the queue (RLIMIT_MSGQUEUE).
    FewQueueBytes,
    /// A stranger fills a queue.
    FillQueue,
    /// rtd starts while one of its system calls is refused (seccomp), and again without that.
    RefusedCall,
    /// kill -9 of rtd, and two starts at once.
    TwoStarts,
    /// /run is full while a receiver registers.
    FullRun,
    /// /run is full while rtd starts.
    FullRunAtStart,
    /// 2,000 registrations a second.
    Registrations,
    /// A client writes impossible indices into its rings.
    HostileIndices,
    /// A client writes anything into its rings.
    HostileGarbage,
    /// A client sends frames of every wrong shape.
    HostileFrames,
    /// A client asks and never reads an answer.
    HostileDeaf,
    /// A client sleeps at each futex that it shares with rtd.
    HostileSleepers,
}

impl Kind {
    /// Whether something goes on beside the lanes for as long as the fault lasts, and rtd runs.
    pub fn is_load(self) -> bool {
        let strangers = [
            Kind::Garbage,
            Kind::WrongVersion,
            Kind::Registrations,
            Kind::FillQueue,
            Kind::SecondRtd,
        ];
        let others = [Kind::Hog, Kind::FullShm, Kind::FullRun, Kind::Fork];
        strangers.contains(&self) || others.contains(&self) || self.hostile_client().is_some()
    }

    /// Whether it happens at a named point.
    pub fn is_at_point(self) -> bool {
        matches!(
            self,
            Kind::KillRtdAtPoint | Kind::KillClientAtPoint | Kind::DelayAtPoint | Kind::FailAtPoint
        )
    }

    /// What the hostile client does.
    fn hostile_client(self) -> Option<&'static str> {
        match self {
            Kind::HostileIndices => Some("indices"),
            Kind::HostileGarbage => Some("garbage"),
            Kind::HostileFrames => Some("frames"),
            Kind::HostileDeaf => Some("deaf"),
            Kind::HostileSleepers => Some("sleepers"),
            _ => None,
        }
    }

    /// What this machine lacks for it.
    pub fn lacks(self, clock_steps: bool) -> Option<&'static str> {
        match self {
            Kind::MemoryGroup if !Group::is_possible("memory") => {
                Some("a memory control group of version 1 that can be written")
            }
            Kind::Cpuset if !Group::is_possible("cpuset") => {
                Some("a cpuset control group of version 1 that can be written")
            }
            Kind::ClockStep if !clock_steps => {
                Some("--clock-steps: it sets the clock of the whole machine")
            }
            _ => None,
        }
    }
}

const PAGE: &str = "/run/rtd/faults.page";
/// The control socket.
pub const SOCKET: &str = "/run/rtd/faults.sock";

/// What a fault did.
#[derive(Debug, Default)]
pub struct Done {
    /// rtd was killed.
    pub rtd_killed: bool,
    /// rtd was killed or stopped.
    pub rtd_ended: bool,
    /// Places in [`World::ends`].
    pub killed: Vec<usize>,
    /// The named point at which something was to happen was not reached: nothing has happened.
    pub not_reached: bool,
    /// What was drawn, in words.
    pub what: String,
    /// By stream: the messages that may have been on their way during the fault. From the first
    /// that its receivers had not got when the fault began, to the first that they got of those
    /// begun after it.
    pub in_flight: Vec<Numbers>,
    /// The stream one of whose queues was removed.
    queue_removed: Option<usize>,
    /// Messages that a stranger wrote into the source of a stream.
    pub strangers: Option<(usize, u64)>,
    /// Requests that were answered a second.
    pub rate: Option<u64>,
}

/// Does it, and undoes what has to be undone.
pub fn perform(kind: Kind, world: &mut World, rng: &mut fastrand::Rng) -> anyhow::Result<Done> {
    let ends = |receiver: bool| {
        move |at: &usize, world: &World| world.ends[*at].member.is_some() == receiver
    };
    let mut pick = |world: &World, receiver: bool| {
        let all: Vec<usize> = (0..world.ends.len())
            .filter(|at| ends(receiver)(at, world))
            .collect();
        all[rng.usize(..all.len())]
    };
    let (sender, receiver) = (pick(world, false), pick(world, true));
    let pause = Duration::from_micros(rng.u64(0..20_000));
    let name = |at: usize| {
        let End { stream, member, .. } = &world.ends[at];
        member.map_or_else(
            || world.streams[*stream].source(),
            |member| world.streams[*stream].sink(member),
        )
    };
    let what = format!(
        "sender {}, receiver {}, pause {pause:?}",
        name(sender),
        name(receiver)
    );
    let mut done = Done {
        what,
        ..Done::default()
    };
    match kind {
        Kind::KillRtd => restart(world, Signal::SIGKILL, pause, &mut done)?,
        Kind::TermRtd => restart(world, Signal::SIGTERM, pause, &mut done)?,
        Kind::StopRtd => {
            let pid = world.daemon_pid()?;
            suspend(&[pid], pause)?;
        }
        Kind::KillSender => kill_ends(world, &[sender], &mut done)?,
        Kind::KillReceiver => kill_ends(world, &[receiver], &mut done)?,
        Kind::StopSender => suspend(&[world.ends[sender].pid().context("no sender")?], pause)?,
        Kind::StopReceiver => {
            suspend(&[world.ends[receiver].pid().context("no receiver")?], pause)?
        }
        Kind::KillRtdAndSender => {
            kill_ends(world, &[sender], &mut done)?;
            restart(world, Signal::SIGKILL, pause, &mut done)?;
        }
        Kind::TermRtdAndSender => {
            kill(world.daemon_pid()?, Signal::SIGTERM)?;
            std::thread::sleep(pause);
            kill_ends(world, &[sender], &mut done)?;
            restart(world, Signal::SIGTERM, pause, &mut done)?;
        }
        Kind::KillRtdAndReceiver => {
            kill_ends(world, &[receiver], &mut done)?;
            restart(world, Signal::SIGKILL, pause, &mut done)?;
        }
        Kind::KillPair => {
            let stream = world.ends[sender].stream;
            let all: Vec<usize> = (0..world.ends.len())
                .filter(|at| world.ends[*at].stream == stream)
                .collect();
            kill_ends(world, &all, &mut done)?;
        }
        Kind::KillRtdStopReceiver | Kind::TermRtdStopReceiver => {
            let pid = world.ends[receiver].pid().context("no receiver")?;
            let signal = if kind == Kind::KillRtdStopReceiver {
                Signal::SIGKILL
            } else {
                Signal::SIGTERM
            };
            kill(pid, Signal::SIGSTOP)?;
            std::thread::sleep(pause);
            restart(world, signal, pause, &mut done)?;
            kill(pid, Signal::SIGCONT)?;
        }
        Kind::SecondRtd => world.second_daemon()?,
        Kind::RemovePage => {
            world.page_is_copy = true;
            removed(&[PAGE], || std::fs::remove_file(PAGE))?;
        }
        Kind::RemoveSocket => removed(&[SOCKET], || std::fs::remove_file(SOCKET))?,
        Kind::RemoveRunDirectory => {
            world.page_is_copy = true;
            removed(&[PAGE, SOCKET], || std::fs::remove_dir_all("/run/rtd"))?;
        }
        Kind::Priority | Kind::Affinity => misplace(kind, world, pause)?,
        Kind::FullShm => {
            let full = fill("/dev/shm/full");
            kill_ends(world, &[receiver], &mut done)?;
            world.revive()?;
            std::thread::sleep(pause);
            std::fs::remove_file("/dev/shm/full").and(full)?;
        }
        Kind::Hog => hog(world.cpu, pause)?,
        Kind::KillRtdAtOpen | Kind::KillRtdAtLeave => {
            if kind == Kind::KillRtdAtOpen {
                kill_ends(world, &[receiver], &mut done)?;
            }
            let pid = world.daemon_pid()?;
            let killer = Killer::at_call(pid, rng.u64(1..200))?;
            if kind == Kind::KillRtdAtLeave {
                kill_ends(world, &[receiver], &mut done)?;
            }
            world.revive()?;
            std::thread::sleep(pause);
            killer.finish(pid)?;
            restart(world, Signal::SIGKILL, pause, &mut done)?;
        }
        Kind::KillRtdAtStop => {
            let pid = world.daemon_pid()?;
            let killer = Killer::at_call(pid, rng.u64(1..200))?;
            kill(pid, Signal::SIGTERM)?;
            std::thread::sleep(pause);
            killer.finish(pid)?;
            restart(world, Signal::SIGKILL, pause, &mut done)?;
        }
        Kind::KillRtdAtStart => {
            world.end_daemon(Signal::SIGKILL)?;
            (done.rtd_killed, done.rtd_ended) = (true, true);
            world.abort_start(rng.u64(1..1500))?;
            world.start_daemon()?;
        }
        Kind::KillSenderAtStep | Kind::KillReceiverAtStep => {
            let at = if kind == Kind::KillSenderAtStep {
                sender
            } else {
                receiver
            };
            kill_after_steps(
                world.ends[at].pid().context("no process")?,
                rng.u64(0..3000),
            )?;
            kill_ends(world, &[at], &mut done)?;
        }
        Kind::ExecSender => {
            let order = &world.sent[world.ends[sender].stream].order;
            order.store(EXEC, Ordering::Release);
        }
        Kind::OtherConfiguration => {
            world.change_configuration()?;
            restart(world, Signal::SIGTERM, pause, &mut done)?;
        }
        Kind::NoDescriptors => {
            let pid = world.daemon_pid()?;
            let was = limit(pid, libc::RLIMIT_NOFILE, 3)?;
            kill_ends(world, &[receiver], &mut done)?;
            world.revive()?;
            std::thread::sleep(pause);
            limit(pid, libc::RLIMIT_NOFILE, was)?;
        }
        Kind::FewSignals => {
            kill_ends(world, &[receiver], &mut done)?;
            world.start_with_few_signals(receiver)?;
        }
        Kind::Garbage => hostile::attack(SOCKET, rng, hostile::garbage)?,
        Kind::WrongVersion => hostile::attack(SOCKET, rng, hostile::wrong_version)?,
        Kind::KillRtdAtPoint | Kind::KillClientAtPoint | Kind::DelayAtPoint | Kind::FailAtPoint => {
            crate::points::perform(kind, world, rng, &mut done)?;
        }
        _ => strain::perform(
            kind,
            world,
            rng,
            &strain::Targets {
                sender,
                receiver,
                pause,
            },
            &mut done,
        )?,
    }
    if world.daemon_ended()?.is_some() {
        anyhow::bail!("rtd ended by itself");
    }
    world.revive()?;
    Ok(done)
}

fn restart(
    world: &mut World,
    signal: Signal,
    pause: Duration,
    done: &mut Done,
) -> anyhow::Result<()> {
    world.end_daemon(signal)?;
    done.rtd_killed |= signal == Signal::SIGKILL;
    done.rtd_ended = true;
    std::thread::sleep(pause);
    world.start_daemon()
}

fn kill_ends(world: &mut World, ends: &[usize], done: &mut Done) -> anyhow::Result<()> {
    for &at in ends {
        world.end(at, Signal::SIGKILL)?;
        done.killed.push(at);
    }
    Ok(())
}

fn suspend(pids: &[nix::unistd::Pid], time: Duration) -> anyhow::Result<()> {
    pids.iter()
        .try_for_each(|&pid| kill(pid, Signal::SIGSTOP))?;
    std::thread::sleep(time);
    pids.iter()
        .try_for_each(|&pid| kill(pid, Signal::SIGCONT))?;
    Ok(())
}

/// Removes what rtd then makes again.
fn removed(files: &[&str], remove: impl FnOnce() -> std::io::Result<()>) -> anyhow::Result<()> {
    remove()?;
    let mut patience = Patience::new();
    while !files.iter().all(|file| std::path::Path::new(file).exists()) {
        anyhow::ensure!(!patience.is_over(), "rtd does not make {files:?} again");
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Changes priority or CPUs of all lane threads for a while.
fn misplace(kind: Kind, world: &World, time: Duration) -> anyhow::Result<()> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", world.daemon_pid()?))?;
    let tids: Vec<i32> = tasks
        .flatten()
        .filter_map(|t| t.file_name().to_str()?.parse().ok())
        .collect();
    let lanes: Vec<_> = tids
        .into_iter()
        .filter_map(|tid| Some((tid, rtcore::sys::sched::placement(tid).ok()?)))
        .filter(|(tid, _)| matches!(rtcore::sys::sched::realtime_priority(*tid), Ok(Some(_))))
        .collect();
    let group = (kind == Kind::Cpuset)
        .then(|| Group::of_cpu(world.daemon_pid()?, world.other_cpu))
        .transpose()?;
    for (tid, _) in lanes.iter().filter(|_| kind != Kind::Cpuset) {
        let tid = tid.to_string();
        let words = match kind {
            Kind::Priority => ["chrt", "-f", "-p", "5", &tid],
            _ => ["taskset", "-p", "-c", "0", &tid],
        };
        std::process::Command::new(words[0])
            .args(&words[1..])
            .stdout(std::process::Stdio::null())
            .status()?;
    }
    std::thread::sleep(time);
    drop(group);
    for (tid, was) in &lanes {
        rtcore::sys::sched::place(*tid, was)?;
    }
    Ok(())
}

fn hog(cpu: usize, time: Duration) -> anyhow::Result<()> {
    let thread = std::thread::spawn(move || -> std::io::Result<()> {
        rtcore::sys::sched::pin(cpu)?;
        rtcore::sys::sched::set_fifo(99)?;
        let start = std::time::Instant::now();
        while start.elapsed() < time {
            std::hint::spin_loop();
        }
        Ok(())
    });
    Ok(thread
        .join()
        .map_err(|_| anyhow::anyhow!("the hog panicked"))??)
}

/// What the documents allow to happen to this stream.
pub fn allowed(done: &Done, world: &World, stream: &Stream) -> Vec<Allowance> {
    let mut all = Vec::new();
    let in_flight = done
        .in_flight
        .get(stream.index)
        .copied()
        .unwrap_or(Numbers::ALL);
    let mut allow = |wrong, count: usize, sentence| {
        let numbers = match (wrong, sentence) {
            // Its receiver may have got newer ones before the fault.
            (Wrong::Lost, Sentence::DiscardedAfterEnd) => Numbers {
                first: 0,
                ..in_flight
            },
            (Wrong::Lost, _) => in_flight,
            _ => Numbers::ALL,
        };
        all.push(Allowance {
            wrong,
            count: count as u64,
            numbers,
            sentence,
        });
    };
    let copies = if stream.share == Share::Each {
        stream.to.len()
    } else {
        1
    };
    if done.rtd_killed {
        // Handed over just before the kill, and not yet shown as such.
        allow(
            Wrong::Miscounted,
            CAPACITY * stream.to.len(),
            Sentence::LastPage,
        );
        if world.ended_with_copy {
            allow(Wrong::Lost, CAPACITY * copies, Sentence::OldFigures);
        }
        match stream.from {
            EndKind::Queue => allow(Wrong::Lost, copies, Sentence::QueueMessageInHand),
            from if from.is_lane() => {
                let no_numbers = stream.to.iter().filter(|kind| !kind.links()).count();
                allow(Wrong::Duplicated, no_numbers, Sentence::Twice);
                let again = usize::from(stream.share != Share::Each);
                allow(Wrong::Duplicated, again, Sentence::TwiceInGroup);
                allow(Wrong::Miscounted, copies, Sentence::Replayed);
            }
            _ => allow(Wrong::Lost, usize::MAX, Sentence::PendingInRtd),
        }
    }
    if done.rtd_ended && stream.from == EndKind::Signal {
        allow(Wrong::Lost, usize::MAX, Sentence::LateSignals);
    }
    // What a receiver discards in the ring of an rtd that has ended is in no ledger, nor what it
    // did in the last 100 ms before a kill.
    let may_discard = ["conflate", "displace-oldest", "ttl"]
        .iter()
        .any(|key| stream.keys.contains(key));
    if done.rtd_ended && may_discard {
        let most = if done.rtd_killed { 4 * MAXMSG } else { MAXMSG };
        allow(Wrong::Lost, most * copies, Sentence::DiscardedAfterEnd);
    }
    if done.queue_removed == Some(stream.index) {
        allow(Wrong::Lost, usize::MAX, Sentence::QueueRemoved);
    }
    for member in done.killed.iter().filter_map(|at| world.role(*at, stream)) {
        match member.map(|m| stream.to[m]) {
            // In the ring or in the kernel's queue of signals, and one between its receipt and the
            // journal.
            Some(kind) if kind.links() => {
                // A ring that is never full holds what its receiver has not read of any number of
                // messages.
                let most = if stream.keys.contains("conflate")
                    || stream.keys.contains("displace-oldest")
                {
                    usize::MAX
                } else {
                    MAXMSG + 1
                };
                allow(Wrong::Lost, most, Sentence::HandedOver);
            }
            Some(EndKind::Queue) => allow(Wrong::Lost, 1, Sentence::HandedOver),
            Some(_) => allow(Wrong::Lost, usize::MAX, Sentence::HandedOver),
            None if stream.from.is_lane() && done.rtd_killed => {
                allow(Wrong::Lost, MAXMSG * copies, Sentence::RingOfTheDead);
            }
            None => {}
        }
    }
    if stream.from.is_lane() && (done.rtd_killed || !done.killed.is_empty()) {
        allow(Wrong::Invented, 1, Sentence::RefusedAndArrived);
    }
    all
}
