//! The sending ends.

use super::{Actor, message, queue};
use crate::journal::{Control, EXEC, Fate, Mapped, Sent};
use crate::plan::Way;
use anyhow::Context as _;
use rtcore::client::{SendError, Sender};
use rtcore::sys::Errno;
use rtcore::sys::clock::{monotonic_ns, sleep_until};
use rtcore::sys::mqueue::{self, Access};
use rtcore::sys::rtsignal;
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::sync::atomic::Ordering;

/// How long a paused sender sleeps before it looks again.
const LOOK_NS: u64 = 200_000;

/// Sends until it is killed.
pub fn play(actor: &Actor) -> anyhow::Result<()> {
    let (control, journal) = (actor.control()?, actor.journal::<Sent>()?);
    let tag = actor.tag();
    match actor.way {
        Way::Lane => {
            let session = actor.session()?;
            let mut sender = session.sender(&actor.endpoint)?;
            pace(actor, &control, &journal, |n| Some(fate(&mut sender, &message(tag, n))))
        }
        Way::Queue => {
            let queue = queue(&actor.endpoint, Access::Send, true)?;
            let fd = queue.as_raw_fd();
            pace(actor, &control, &journal, |n| {
                let sent = mqueue::send(fd, &message(tag, n), 0);
                Some(if sent.is_ok() { Fate::Accepted } else { Fate::Refused })
            })
        }
        Way::Signal | Way::Handler | Way::Payload => {
            let signo = actor.signo();
            pace(actor, &control, &journal, |n| {
                let pid = i32::try_from(control.rtd_pid.load(Ordering::Acquire)).unwrap_or(0);
                let sent: Result<(), Errno> =
                    if pid == 0 { return None } else { rtsignal::queue_to_pid(pid, signo, tag | n) };
                Some(if sent.is_ok() { Fate::Accepted } else { Fate::Refused })
            })
        }
    }
}

fn fate(sender: &mut Sender, bytes: &[u8]) -> Fate {
    match sender.send(bytes) {
        Ok(_) => Fate::Accepted,
        Err(SendError::Disconnected { .. } | SendError::PeerDead { .. }) => Fate::Disconnected,
        Err(_) => Fate::Refused,
    }
}

/// Calls `send` with one number after the other while the campaign runs, and writes down what comes of it. A message for
/// which there is no receiver yet (`None`) keeps its number.
fn pace(
    actor: &Actor,
    control: &Mapped<Control>,
    journal: &Mapped<Sent>,
    mut send: impl FnMut(u64) -> Option<Fate>,
) -> anyhow::Result<()> {
    let interval_ns = actor.interval_us * 1000;
    let mut next_ns = monotonic_ns();
    loop {
        let pause = control.pauses.load(Ordering::Acquire);
        if control.run.load(Ordering::Acquire) == 0 {
            journal.idle.store(pause, Ordering::Release);
            sleep_until(monotonic_ns() + LOOK_NS);
            next_ns = monotonic_ns();
            continue;
        }
        if journal.order.swap(0, Ordering::AcqRel) == EXEC {
            let error = std::process::Command::new("/proc/self/exe").args(std::env::args_os().skip(1)).exec();
            return Err(error).context("exec");
        }
        let n = journal.begin();
        match send(n) {
            Some(fate) => journal.ended(n, fate),
            None => journal.ended(n, Fate::Refused),
        }
        next_ns = (next_ns + interval_ns).max(monotonic_ns());
        sleep_until(next_ns);
    }
}
