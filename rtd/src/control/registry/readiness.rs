//! The readiness of registered processes for their signals: read from /proc at the registration,
//! after an exec(2), once a second, and at every tick while a process is not ready for some signal.
//! Lanes read the result in [`Peer`](rtcore::lane::peer::Peer).
//!
//! Invariant: a process whose exec(2) is awaited is ready for nothing.

use super::{Consequence, Entry, Registry};
use crate::endpoint::EndpointKind;
use crate::plan::{Plan, ProcessId, needs};
use rtcore::lane::peer::Receptions;
use rtcore::sys::readiness::{self, Readiness};
use rtcore::sys::seqpacket::is_shortage;
use rtcore::sys::{procfs, rtsignal, signame, startup};
use std::time::{Duration, Instant};

/// Ticks between two checks of a process that is ready.
const CHECK_TICKS: u32 = 10;
/// How long a process may take to become ready before rtd logs that it is not, and before a process
/// whose sigwaitinfo(2) cannot be seen counts as ready.
const START: Duration = Duration::from_secs(1);

/// A signal that some route sends to a process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    signo: i32,
    to_thread: bool,
    /// A session gets it by a ring, whose dispatcher shows by itself that it waits for a signal.
    by_ring: bool,
}

/// Signals that routes send to the process; none if they are a skin's own.
pub(super) fn sent_to(plan: &Plan, process: ProcessId) -> Vec<Sent> {
    let to = |(id, _): (usize, _)| match &plan.endpoints[id].kind {
        EndpointKind::Signal(signal) if plan.endpoints[id].owner == Some(process) => Some(Sent {
            signo: signal.signo,
            to_thread: signal.to_thread(),
            by_ring: signal.inbox.is_some(),
        }),
        _ => None,
    };
    needs::signalled(plan).filter_map(to).collect()
}

/// The readiness of a holder, and the part of it that was logged.
#[derive(Debug)]
pub(super) struct Observations {
    /// Registration, or the last exec(2).
    since: Instant,
    /// It is about to execute another program.
    pub exec_awaited: bool,
    /// Its name is held by a session.
    session: bool,
    ticks: u32,
    /// By target: the process, its registered thread.
    now: [Receptions; 2],
    logged: [Receptions; 2],
    /// Signals that it blocked at some check, or was ready for: the program waits for these.
    known: u64,
    /// Signals whose state cannot be seen: to be logged, and logged.
    unseen: u64,
    unseen_logged: u64,
    /// The registered thread has ended, and the process lives: to be logged, and logged.
    thread_ended: bool,
    thread_ended_logged: bool,
}

impl Observations {
    pub fn new(session: bool) -> Observations {
        Observations {
            since: Instant::now(),
            exec_awaited: false,
            session,
            ticks: 0,
            now: Default::default(),
            logged: Default::default(),
            known: 0,
            unseen: 0,
            unseen_logged: 0,
            thread_ended: false,
            thread_ended_logged: false,
        }
    }

    /// Its exec(2) was seen: the new program has as much time to become ready as one that has just
    /// registered.
    pub fn exec_seen(&mut self) {
        (self.since, self.exec_awaited, self.known) = (Instant::now(), false, 0);
    }

    /// It was registered before rtd started.
    pub fn has_run_long(&mut self) {
        self.since = self.since.checked_sub(START).unwrap_or(self.since);
    }

    fn is_due(&mut self) -> bool {
        self.ticks += 1;
        let waits = self.now.iter().any(|of| of.not_ready != 0);
        let due = waits || self.ticks >= CHECK_TICKS;
        if due {
            self.ticks = 0;
        }
        due
    }
}

impl Registry {
    /// Checks the holders that are due.
    pub(super) fn observe_due(&mut self) -> Vec<Consequence> {
        let mut all = Vec::new();
        for process in 0..self.entries.len() {
            let entry = &mut self.entries[process];
            let active = entry
                .holder
                .as_mut()
                .filter(|holder| holder.active && !entry.sent.is_empty());
            if active.is_some_and(|holder| holder.observations.is_due()) {
                all.extend(self.observe(process));
            }
        }
        all
    }

    /// Checks a holder, and publishes the result.
    pub(super) fn observe(&mut self, process: ProcessId) -> Vec<Consequence> {
        let mut all = Vec::new();
        let entry = &mut self.entries[process];
        let before = entry.holder.as_ref().map(|holder| holder.observations.now);
        if entry.sent.is_empty() || entry.find_out().is_none() {
            return all;
        }
        if entry.holder.as_ref().map(|holder| holder.observations.now) != before {
            all.push(Consequence::Receptions(process));
        }
        entry.report_changes(&mut all);
        all
    }
}

impl Entry {
    /// Forgets the state of the last holder.
    pub(super) fn forget(&self) {
        for to_thread in [false, true] {
            self.peer.set_receptions(to_thread, Receptions::default());
        }
    }

    /// None if the process cannot be checked: it has ended, which its pidfd shows.
    pub(super) fn find_out(&mut self) -> Option<()> {
        let holder = self.holder.as_mut()?;
        for to_thread in [false, true] {
            let wanted = wanted(&self.sent, to_thread, holder.observations.session);
            let observations = &mut holder.observations;
            let mut now = Receptions::default();
            if observations.exec_awaited {
                now.not_ready = wanted & deadly();
            } else if wanted != 0 {
                let tid = to_thread.then_some(holder.who.tid);
                let found = readiness::read(holder.who.pid, tid, wanted);
                if !holder.pidfd.is_alive() {
                    return None;
                }
                // /proc hides it, or rtd has no free descriptor.
                let found = found.unwrap_or_else(|e| {
                    let hidden = !is_shortage(&e);
                    Readiness {
                        unseen: wanted,
                        hidden,
                        ..Readiness::default()
                    }
                });
                observations.known |= found.blocked | found.ready;
                // A program that has just started has not had time to block them; later, a stop
                // signal that is held without end would be worse.
                let late = found.hidden && observations.since.elapsed() >= START;
                let unseen = if late {
                    found.unseen
                } else {
                    found.unseen & observations.known
                };
                now.ignored = found.ignored;
                // In a process that is ending, each thread has ended, and its pidfd shows this
                // soon.
                observations.thread_ended |= found.thread_ended
                    && procfs::is_exiting(holder.who.pid).is_ok_and(|exiting| !exiting);
                // The thread does not come back: messages for it end as peer-dead, and do not wait.
                let wanted = if found.thread_ended { 0 } else { wanted };
                now.not_ready = wanted & deadly() & !(found.ready | found.ignored | unseen);
                if late {
                    observations.unseen |=
                        found.unseen & !(observations.known | observations.unseen_logged);
                }
            }
            observations.now[usize::from(to_thread)] = now;
            self.peer.set_receptions(to_thread, now);
        }
        Some(())
    }

    /// Logs lasting changes.
    fn report_changes(&mut self, all: &mut Vec<Consequence>) {
        let name = &self.plan.name;
        let Some(holder) = self.holder.as_mut() else {
            return;
        };
        let (pid, tid) = (holder.who.pid, holder.who.tid);
        let mut note = |is_warning, text| all.push(Consequence::Logged { is_warning, text });
        let (observations, uid) = (&mut holder.observations, holder.who.euid);
        if observations.unseen != 0 {
            let unseen = std::mem::take(&mut observations.unseen);
            observations.unseen_logged |= unseen;
            note(
                true,
                format!(
                    "{name}: rtd (uid {}) cannot see whether pid {pid} (uid {uid}) waits for {} in sigwaitinfo(2): messages are \
                 sent, and a program that does not wait for them ends; to make it visible, run rtd as root or as uid {uid} \
                 ([daemon] user), or block the signal before the registration",
                    procfs::effective_uid(),
                    names(unseen)
                ),
            );
        }
        if observations.exec_awaited {
            return;
        }
        if observations.thread_ended
            && !std::mem::replace(&mut observations.thread_ended_logged, true)
        {
            note(
                true,
                format!(
                    "{name}: thread {tid} of pid {pid}, to which its signals go, has ended and the process lives: messages for \
                     them end as peer-dead; register a thread that lives as long as the program (rtctl register --as {name} \
                     --pid {pid} --tid TID, or Builder::tid of its session)"
                ),
            );
        }
        let lasts = observations.since.elapsed() >= START;
        for to_thread in [false, true] {
            let (now, logged) = (
                observations.now[usize::from(to_thread)],
                &mut observations.logged[usize::from(to_thread)],
            );
            let who = if to_thread {
                format!("thread {tid} of pid {pid}")
            } else {
                format!("pid {pid}")
            };
            let takes = (logged.not_ready | logged.ignored) & !(now.not_ready | now.ignored);
            if takes != 0 {
                note(false, format!("{name}: {who} takes {} now", names(takes)));
            }
            let new = if lasts {
                now.not_ready & !logged.not_ready
            } else {
                0
            };
            if new != 0 {
                note(
                    true,
                    format!(
                        "{name}: {who} neither blocks nor handles {}, which would end it: messages for it wait (rtctl stats); \
                     let the program block the signal and call sigwaitinfo(2), or install a handler",
                        names(new)
                    ),
                );
            }
            let ignored = now.ignored & !logged.ignored;
            if ignored != 0 {
                note(
                    true,
                    format!(
                        "{name}: {who} ignores {} (SIG_IGN): messages for it are rejected; let the program block or handle the \
                     signal",
                        names(ignored)
                    ),
                );
            }
            logged.not_ready = now.not_ready & logged.not_ready | new;
            logged.ignored = now.ignored;
        }
    }
}

/// The signals to this target whose reception depends on the process.
fn wanted(sent: &[Sent], to_thread: bool, session: bool) -> u64 {
    // SIGCONT continues a stopped process even if the process ignores it.
    let depends = |sent: &&Sent| {
        sent.to_thread == to_thread
            && !(session && sent.by_ring)
            && signame::name(sent.signo) != "SIGCONT"
    };
    sent.iter()
        .filter(depends)
        .fold(0, |bits, sent| bits | rtsignal::bit(sent.signo))
}

/// Signals whose default action would harm the receiver. A route that sends SIGTERM, SIGINT or
/// SIGHUP is meant to end the process.
fn deadly() -> u64 {
    startup::routable().fold(0, |bits, signo| bits | rtsignal::bit(signo))
}

/// `SIGRTMIN+5 (39), SIGUSR1 (10)`.
fn names(bits: u64) -> String {
    let signals = (1..=64).filter(|signo| bits & rtsignal::bit(*signo) != 0);
    signals
        .map(|signo| format!("{} ({signo})", signame::name(signo)))
        .collect::<Vec<_>>()
        .join(", ")
}
