//! Signals by the raw calls, and the ways in which a program takes them.

use super::super::order::{Answer, Rang, Signal};
use anyhow::{anyhow, bail};
use rtcore::skin::{SignalAddress, Skin};
use rtcore::sys::poll::{self, Interest};
use rtcore::sys::rtsignal::{self, Received, SignalSet};
use rtcore::sys::sigaction::{Action, RawInfo};
use rtcore::sys::{Errno, process, sched};
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicU64, Ordering};

static COUNTED: AtomicU64 = AtomicU64::new(0);

extern "C" fn count(_: i32, _: &RawInfo, _: *const ()) {
    COUNTED.fetch_add(1, Ordering::Relaxed);
}

pub fn obey(skin: Option<&'static Skin>, order: Signal) -> anyhow::Result<Answer> {
    match order {
        Signal::Block(signo) => return block(signo),
        Signal::Unblock(signo) => SignalSet::of([signo]).unblock()?,
        Signal::Ignore(signo) => rtsignal::ignore([signo]),
        Signal::Count(signo) => std::mem::forget(Action::install(signo, count)?),
        Signal::Counted => return Ok(Answer::Number(COUNTED.load(Ordering::Relaxed))),
        Signal::Queue { pid, signo, value } => match skin {
            Some(skin) => queue_to_thread(skin, pid, signo, value)?,
            None => queued(rtsignal::queue_to_pid(pid.try_into()?, signo, value))?,
        },
        Signal::QueueToProcess { pid, signo, value } => {
            queued(rtsignal::queue_to_pid(pid.try_into()?, signo, value))?;
        }
        Signal::Kill { pid, signo } => {
            let signal = nix::sys::signal::Signal::try_from(signo)?;
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.try_into()?), signal)?;
        }
        Signal::Forge {
            pid,
            signo,
            value,
            as_pid,
            as_uid,
        } => {
            let to = process::pidfd(pid)?;
            let to = to.as_raw_fd();
            queued(rtsignal::queue_to_pidfd(to, signo, value, as_pid, as_uid))?;
        }
        Signal::Take {
            signo,
            count,
            quiet_ms,
        } => {
            return match skin {
                Some(skin) => take_within(skin, signo, count, quiet_ms),
                None => take(signo, count, quiet_ms),
            };
        }
        // Unlike `Take`, whose signals stay blocked.
        Signal::Wait { signo, count } => {
            let set = SignalSet::of([signo]);
            let wait = |_| rtsignal::wait(&set).map(rang).map_err(|e| anyhow!("{e:?}"));
            return Ok(Answer::Rang(
                (0..count).map(wait).collect::<Result<_, _>>()?,
            ));
        }
        Signal::Spend(signo) => return Ok(Answer::Number(spend(signo)?)),
        Signal::TakeAll(signo) => while rtsignal::try_wait(&SignalSet::of([signo])).is_ok() {},
    }
    Ok(Answer::Done)
}

pub fn block(signo: i32) -> anyhow::Result<Answer> {
    SignalSet::of([signo]).block()?;
    Ok(Answer::Done)
}

fn queued(sent: Result<(), Errno>) -> anyhow::Result<()> {
    sent.map_err(|e| anyhow!("{e:?}"))
}

fn queue_to_thread(skin: &Skin, tid: u32, signo: i32, value: u64) -> anyhow::Result<()> {
    let to = SignalAddress {
        pidfd: -1,
        pid: 0,
        tid: tid.try_into()?,
        pidfd_is_thread: false,
    };
    let sent = (skin.signal_send)(to, signo, value, 0, 0);
    sent.map(drop).map_err(|e| anyhow!("{e:?}"))
}

fn rang(got: Received) -> Rang {
    Rang {
        value: got.value,
        pid: got.pid,
        uid: got.uid,
        tid: sched::gettid(),
    }
}

/// Up to `count` signals; fewer when none comes for so long.
pub fn take(signo: i32, count: u64, quiet_ms: u64) -> anyhow::Result<Answer> {
    let set = SignalSet::of([signo]);
    let pending = set.descriptor()?;
    let mut all = Vec::new();
    while (all.len() as u64) < count {
        match rtsignal::try_wait(&set) {
            Ok(got) => all.push(rang(got)),
            Err(Errno::AGAIN) => {
                let mut readable = [Interest::readable(pending.as_raw_fd())];
                if poll::wait(&mut readable, quiet_ms * 1_000_000) == Ok(0) {
                    break;
                }
            }
            Err(e) => bail!("{e:?}"),
        }
    }
    Ok(Answer::Rang(all))
}

/// The same by the skin's call.
fn take_within(skin: &Skin, signo: i32, count: u64, quiet_ms: u64) -> anyhow::Result<Answer> {
    let set = SignalSet::of([signo]);
    let mut all = Vec::new();
    while (all.len() as u64) < count {
        match (skin.signal_wait_within)(&set, quiet_ms * 1_000_000) {
            Ok(got) => all.push(rang(got)),
            Err(Errno::AGAIN) => break,
            Err(e) => bail!("{e:?}"),
        }
    }
    Ok(Answer::Rang(all))
}

fn spend(signo: i32) -> anyhow::Result<u64> {
    for n in 0.. {
        match rtsignal::queue_to_pid(sched::getpid(), signo, 0) {
            Ok(()) => {}
            Err(Errno::AGAIN) => return Ok(n),
            Err(e) => bail!("{e:?}"),
        }
    }
    Ok(0)
}
