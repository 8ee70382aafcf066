//! The sending ends.

use super::{Actor, answer_number, child, message, queue, tag};
use crate::journal::{Control, EXEC, FORK, Fate, Mapped, Received, Sent};
use crate::plan::EndKind;
use anyhow::Context as _;
use rtcore::client::{CallError, Caller, SendError};
use rtcore::sys::Errno;
use rtcore::sys::clock::{monotonic_ns, sleep_until};
use rtcore::sys::mqueue::{self, Access};
use rtcore::sys::rtsignal;
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::sync::atomic::Ordering;

/// How long a paused sender sleeps before it looks again.
const LOOK_NS: u64 = 200_000;
/// How long an answer may take.
const ANSWER_NS: u64 = 500_000_000;

/// Sends until it is killed.
pub fn play(actor: &Actor) -> anyhow::Result<()> {
    let (control, journal) = (actor.control()?, actor.journal::<Sent>()?);
    let tag = actor.tag();
    match actor.kind {
        EndKind::Lane => {
            let session = actor.session()?;
            let mut sender = session.sender(&actor.endpoint)?;
            pace(actor, &control, &journal, |n| {
                Call::Ended(fate(&sender.send(&message(tag, n))))
            })
        }
        EndKind::Ask | EndKind::Answer => {
            let (_, sink) = actor.answers();
            let answers: Mapped<Received> = actor.journal_of(&sink)?;
            let session = actor.session()?;
            let mut caller = session.caller(&actor.endpoint, &sink)?;
            pace(actor, &control, &journal, |n| {
                ask(&mut caller, actor, &answers, n)
            })
        }
        EndKind::Queue => {
            let queue = queue(&actor.endpoint, Access::Send, true)?;
            let fd = queue.as_raw_fd();
            pace(actor, &control, &journal, |n| {
                let sent = mqueue::send(fd, &message(tag, n), 0);
                Call::Ended(if sent.is_ok() {
                    Fate::Accepted
                } else {
                    Fate::Refused
                })
            })
        }
        EndKind::Signal | EndKind::Handler | EndKind::Payload => {
            let signo = actor.signo();
            pace(actor, &control, &journal, |n| {
                let pid = i32::try_from(control.rtd_pid.load(Ordering::Acquire)).unwrap_or(0);
                if pid == 0 {
                    return Call::Ended(Fate::Refused);
                }
                let sent: Result<(), Errno> = rtsignal::queue_to_pid(pid, signo, tag | n);
                Call::Ended(if sent.is_ok() {
                    Fate::Accepted
                } else {
                    Fate::Refused
                })
            })
        }
    }
}

/// How an attempt to send ended.
enum Call {
    /// In this way.
    Ended(Fate),
    /// A request was accepted and not answered. Its answer may still come, and the next call passes
    /// it over: the sender does not pause before one was answered.
    Unanswered,
}

pub fn fate(sent: &Result<u64, SendError>) -> Fate {
    match sent {
        Ok(_) => Fate::Accepted,
        Err(SendError::Disconnected { .. } | SendError::PeerDead { .. }) => Fate::Disconnected,
        Err(_) => Fate::Refused,
    }
}

/// Sends request `n` and records its answer.
fn ask(caller: &mut Caller, actor: &Actor, answers: &Mapped<Received>, n: u64) -> Call {
    let late = caller.late();
    let called = match caller.call(&message(actor.tag(), n), monotonic_ns() + ANSWER_NS) {
        Ok(reply) => {
            answers.add(answer_number(tag(actor.index + 1), n, reply.bytes()));
            Call::Ended(Fate::Accepted)
        }
        Err(CallError::Send(error)) => Call::Ended(fate(&Err(error))),
        Err(_) => Call::Unanswered,
    };
    answers
        .discarded
        .fetch_add(caller.late() - late, Ordering::Release);
    called
}

/// Calls `send` with one number after the other while the campaign runs, and writes down how each
/// call ended.
fn pace(
    actor: &Actor,
    control: &Mapped<Control>,
    journal: &Mapped<Sent>,
    mut send: impl FnMut(u64) -> Call,
) -> anyhow::Result<()> {
    let interval_ns = actor.interval_us * 1000;
    let mut next_ns = monotonic_ns();
    // Answers to the requests of the sender before, which was killed, may still come.
    let mut unanswered = actor.kind == EndKind::Ask;
    loop {
        let pause = control.pauses.load(Ordering::Acquire);
        if control.run.load(Ordering::Acquire) == 0 && !unanswered {
            journal.idle.store(pause, Ordering::Release);
            sleep_until(monotonic_ns() + LOOK_NS);
            next_ns = monotonic_ns();
            continue;
        }
        match journal.order.swap(0, Ordering::AcqRel) {
            EXEC => {
                let words = std::env::args_os().skip(1);
                return Err(std::process::Command::new("/proc/self/exe")
                    .args(words)
                    .exec())
                .context("exec");
            }
            // A queue or a signal is the child's as well.
            FORK => child::fork(&journal.child, || {
                actor.kind.is_lane()
                    && matches!(
                        send(u64::MAX >> 16),
                        Call::Ended(Fate::Accepted) | Call::Unanswered
                    )
            })?,
            _ => {}
        }
        let n = journal.begin();
        let call = send(n);
        unanswered = match call {
            Call::Unanswered => true,
            Call::Ended(Fate::Accepted) => false,
            Call::Ended(_) => unanswered,
        };
        journal.ended(
            n,
            if let Call::Ended(fate) = call {
                fate
            } else {
                Fate::Accepted
            },
        );
        next_ns = (next_ns + interval_ns).max(monotonic_ns());
        sleep_until(next_ns);
    }
}
