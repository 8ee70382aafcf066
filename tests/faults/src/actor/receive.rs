//! The receiving ends.

use super::send::fate;
use super::{Actor, answer, child, number, queue, tag};
use crate::journal::{CORRUPT, FORK, Mapped, Received, Sent};
use crate::plan::EndKind;
use anyhow::Context as _;
use rtcore::client::Incoming;
use rtcore::client::signals::{Flags, Signals};
use rtcore::sys::clock::monotonic_ns;
use rtcore::sys::mqueue::{self, Access};
use rtcore::sys::rtsignal::{self, SignalSet};
use std::os::fd::AsRawFd as _;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Longest time in one wait.
const WAIT_NS: u64 = 100_000_000;
/// How often an end that its signals do not wake looks for an order.
const ORDERS_NS: u64 = 20_000_000;

/// Receives until it is killed.
pub fn play(actor: &Actor) -> anyhow::Result<()> {
    let journal = actor.journal::<Received>()?;
    let tag = actor.tag();
    match actor.kind {
        EndKind::Lane => {
            let session = actor.session()?;
            let mut inbox = session.inbox()?;
            loop {
                match inbox.recv_deadline(monotonic_ns() + WAIT_NS) {
                    Ok(Some(Incoming::Message(message))) => {
                        journal.add(number(tag, message.bytes()))
                    }
                    Ok(_) => {}
                    Err(error) => return Err(error.into()),
                }
                obey(&journal, || inbox.try_recv().is_ok())?;
            }
        }
        EndKind::Answer | EndKind::Ask => answer_all(actor, &journal),
        EndKind::Queue => {
            let queue = queue(&actor.endpoint, Access::Receive, false)?;
            let mut buffer = [0; 64];
            loop {
                if let Ok((len, _)) =
                    mqueue::receive_within(queue.as_raw_fd(), &mut buffer, WAIT_NS)
                {
                    journal.add(number(tag, &buffer[..len]));
                }
                obey(&journal, || false)?;
            }
        }
        EndKind::Signal => {
            let set = SignalSet::of([actor.signo()]);
            set.block()?;
            loop {
                if let Ok(received) = rtsignal::wait_within(&set, WAIT_NS) {
                    journal.add(number(tag, &received.value.to_ne_bytes()));
                }
                obey(&journal, || false)?;
            }
        }
        EndKind::Handler => handler(actor, journal),
        EndKind::Payload => {
            Signals::block([actor.signo()])?;
            let session = actor.session()?;
            let signals = session.signals()?;
            let orders = actor.journal::<Received>()?;
            signals.register(actor.signo(), Flags::new(), move |notice| {
                journal.add(number(tag, notice.payload));
            })?;
            sleep_for_ever(&orders, || session.inbox().is_ok())
        }
    }
}

/// Answers each request.
fn answer_all(actor: &Actor, requests: &Mapped<Received>) -> anyhow::Result<()> {
    let (source, _) = actor.answers();
    let answers: Mapped<Sent> = actor.journal_of(&source)?;
    let session = actor.session()?;
    let (mut inbox, mut sender) = (session.inbox()?, session.sender(&source)?);
    loop {
        obey(requests, || inbox.try_recv().is_ok())?;
        let Some(Incoming::Message(message)) = inbox.recv_deadline(monotonic_ns() + WAIT_NS)?
        else {
            continue;
        };
        let (to, request) = (message.reply_to(), number(actor.tag(), message.bytes()));
        requests.add(if to.is_some() { request } else { CORRUPT });
        let Some(to) = to else { continue };
        let n = answers.begin();
        let sent = sender.reply(to, &answer(tag(actor.index + 1), n, request));
        answers.ended(n, fate(&sent));
    }
}

static HANDLER: OnceLock<(Mapped<Received>, u64)> = OnceLock::new();

extern "C" fn on_signal(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let Some((journal, tag)) = HANDLER.get() else {
        return;
    };
    // SAFETY: the kernel passes a valid siginfo to a handler with SA_SIGINFO.
    let value = unsafe { (*info).si_value().sival_ptr } as u64;
    journal.add(number(*tag, &value.to_ne_bytes()));
}

fn handler(actor: &Actor, journal: Mapped<Received>) -> anyhow::Result<()> {
    HANDLER
        .set((journal, actor.tag()))
        .ok()
        .context("one handler")?;
    let action = libc::sigaction {
        sa_sigaction: on_signal as *const () as usize,
        sa_flags: libc::SA_SIGINFO | libc::SA_RESTART,
        // SAFETY: an empty mask is all zero.
        ..unsafe { std::mem::zeroed() }
    };
    // SAFETY: a valid action; the handler uses atomics and clock_gettime(2) only.
    let set = unsafe { libc::sigaction(actor.signo(), &raw const action, std::ptr::null_mut()) };
    anyhow::ensure!(set == 0, "sigaction: {}", std::io::Error::last_os_error());
    SignalSet::of([actor.signo()]).unblock()?;
    sleep_for_ever(&actor.journal::<Received>()?, || false)
}

/// Only waits for orders.
fn sleep_for_ever(journal: &Mapped<Received>, attempt: impl Fn() -> bool) -> anyhow::Result<()> {
    loop {
        std::thread::sleep(Duration::from_nanos(ORDERS_NS));
        obey(journal, &attempt)?;
    }
}

/// Forks if the journal has the order; `attempt` is what the child tries.
fn obey(journal: &Received, attempt: impl FnOnce() -> bool) -> anyhow::Result<()> {
    if journal.order.swap(0, Ordering::AcqRel) == FORK {
        child::fork(&journal.child, attempt)?;
    }
    Ok(())
}
