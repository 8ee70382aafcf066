//! Takes over the registrations of the last start.
//!
//! A process that was *registered* (`rtctl run`, `rtctl register`) does not know rtd and cannot
//! register again, so it keeps its name if it is the same process and may still have it. A process
//! that had a *session* reconnects by itself; until then the lanes count it as a full receiver, at
//! most for the `rejoin` of their routes.
//!
//! If rtd cannot examine a process (a refused system call, no descriptors), its entry has no effect
//! and is stored for the next start, unless another process takes the name before.

use super::{Change, Consequence, Holder, Registry};
use crate::control::Token;
use crate::control::kept::{Identity, Record};
use crate::control::policy::{self, Exe, Refusal};
use crate::plan::{Plan, ProcessId};
use rtcore::lane::peer::PeerState;
use rtcore::sys::epoll::Epoll;
use rtcore::sys::limits::shortage_hint;
use rtcore::sys::pidfd::{PidFd, is_refused};
use rtcore::sys::procfs::{self, Groups, Status as ProcStatus};
use rtcore::sys::seqpacket::is_shortage;
use rtcore::wire::{Name, Status};
use std::time::{Duration, Instant};

/// The outcome for a registration or a session, as a line for the log.
#[derive(Debug)]
pub(in crate::control) enum Adopted {
    /// It is restored or waited for; the line says which. None: its routes wait for nothing, so
    /// nothing changed.
    Again(Option<String>),
    /// It is not restored; the line has the reason and the fix.
    Not(String),
}

/// A process that had a session with the last rtd.
#[derive(Debug)]
pub(super) struct Expected {
    pub pidfd: PidFd,
    pub who: Identity,
    /// Real user id.
    ruid: u32,
}

/// How long routes wait for a process after a start: the longest time of its routes.
pub(super) fn rejoin(plan: &Plan, process: ProcessId) -> Duration {
    let longest_ns = plan.routes_of(process).map(|route| route.rejoin_ns).max();
    Duration::from_nanos(longest_ns.unwrap_or(0))
}

impl Registry {
    /// Restores one registration of the last life of the instance, or lets the lanes wait for one
    /// of its sessions. Adds the consequences to `all`.
    pub fn adopt(&mut self, epoll: &Epoll, record: Record, all: &mut Vec<Consequence>) -> Adopted {
        // The file must be written again with the remaining entries.
        self.unkept = true;
        let Record { name, who } = record.clone();
        let (pid, exe) = (who.pid, who.exe.clone());
        let (what, result) = if who.session {
            ("had a session", self.expect(epoll, &name, who))
        } else {
            (
                "was registered",
                self.restore(epoll, &name, who, all).map(Some),
            )
        };
        result.map_or_else(
            |refusal| {
                let why = refusal.text;
                let mut line = format!(
                    "{name}: pid {pid} ({exe}) {what} before rtd was restarted, and this is not restored: {why}"
                );
                if matches!(refusal.status, Status::Failed | Status::Busy) {
                    line += "; the entry is kept for the next start";
                    self.undecided.push(record);
                }
                Adopted::Not(line)
            },
            Adopted::Again,
        )
    }

    /// Lets the lanes wait for a process that will open its session again.
    fn expect(
        &mut self,
        epoll: &Epoll,
        name: &str,
        who: Identity,
    ) -> Result<Option<String>, Refusal> {
        let process = self.named(name)?;
        let (pidfd, status) = same_process(&who)?;
        let entry = &self.entries[process];
        policy::check(&entry.plan, &pidfd, who.pid, &status, Exe::Now)?;
        let rejoin = self.rejoin[process];
        // It has only direct routes, which need no rtd, or rejoin = "0s".
        if rejoin.is_zero() {
            return Ok(None);
        }
        epoll
            .add(&pidfd, Token::Expected { process }.encode())
            .map_err(shortage)?;
        let Groups { pgid, sid } = procfs::groups(who.pid).unwrap_or_default();
        let line = format!(
            "{name}: pid {} had a session: routes wait up to {rejoin:?} for the next one",
            who.pid
        );
        let entry = &mut self.entries[process];
        entry.peer.set_groups(pgid, sid);
        entry.peer.expect(who.pid, who.tid, status.ruid);
        entry.expected = Some(Expected {
            pidfd,
            who,
            ruid: status.ruid,
        });
        Ok(Some(line))
    }

    /// The pidfd of an expected process became readable: nothing waits for it any more.
    pub fn expected_ended(&mut self, epoll: &Epoll, process: ProcessId) -> Vec<Consequence> {
        let Some(entry) = self.entries.get_mut(process) else {
            return Vec::new();
        };
        let expected = entry
            .expected
            .take_if(|expected| !expected.pidfd.is_alive());
        let Some(Expected {
            pidfd,
            who,
            ruid: uid,
        }) = expected
        else {
            return Vec::new();
        };
        let _ = epoll.remove(&pidfd);
        self.unkept = true;
        let ending = pidfd.ending(who.pid);
        let cause = ending.map(|e| format!(" ({e})")).unwrap_or_default();
        entry.peer.died();
        let (state, pid) = (PeerState::Dead, who.pid);
        let line = format!(
            "{}: pid {pid} died{cause} before it came back: messages for it end as peer-dead",
            entry.plan.name
        );
        vec![
            Consequence::Shown {
                process,
                state,
                pid,
                uid,
            },
            Consequence::warning(line),
            Consequence::Changed(Change {
                process,
                state,
                pid,
                ending,
            }),
        ]
    }

    /// Stops waiting for processes whose time is over, with a line for the log for each. Sessions
    /// were not notified that it was expected.
    pub fn end_rejoin(&mut self, epoll: &Epoll, now: Instant) -> Vec<(Consequence, String)> {
        let since_start = now.saturating_duration_since(self.started);
        let mut all = Vec::new();
        for (process, entry) in self.entries.iter_mut().enumerate() {
            let rejoin = self.rejoin[process];
            let Some(expected) = entry.expected.take_if(|_| since_start >= rejoin) else {
                continue;
            };
            let _ = epoll.remove(&expected.pidfd);
            self.unkept = true;
            entry.peer.left();
            let (state, pid, uid) = (PeerState::Unregistered, expected.who.pid, expected.ruid);
            let line = format!(
                "{}: pid {} had a session before rtd was restarted and opened none within {rejoin:?}: messages for it end as \
                 peer-dead until it does; see that the program runs, or raise rejoin = (in [daemon] or the [[route]])",
                entry.plan.name, pid
            );
            all.push((
                Consequence::Shown {
                    process,
                    state,
                    pid,
                    uid,
                },
                line,
            ));
        }
        all
    }

    fn named(&self, name: &str) -> Result<ProcessId, Refusal> {
        let bad_name =
            |e: rtcore::wire::FrameError| Refusal::new(Status::UnknownName, e.to_string());
        self.find(Name::new(name).map_err(bad_name)?)
    }

    fn restore(
        &mut self,
        epoll: &Epoll,
        name: &str,
        who: Identity,
        all: &mut Vec<Consequence>,
    ) -> Result<String, Refusal> {
        let process = self.named(name)?;
        let (pidfd, status) = same_process(&who)?;
        let warning =
            self.check_against_plan(process, &pidfd, (who.pid, who.tid), &status, Exe::Now, None)?;
        let line = format!(
            "{name}: pid {} ({}) is registered again, as before rtd was restarted",
            who.pid, who.exe
        );
        let line = warning.map_or(line.clone(), |text| format!("{line}; {text}"));
        let mut holder = Holder::new(pidfd, who, status.ruid);
        holder.observations.has_run_long();
        self.put_back(epoll, process, holder, all)?;
        Ok(line)
    }

    fn put_back(
        &mut self,
        epoll: &Epoll,
        process: ProcessId,
        holder: Holder,
        all: &mut Vec<Consequence>,
    ) -> Result<(), Refusal> {
        epoll
            .add(&holder.pidfd, Token::Peer { process }.encode())
            .map_err(shortage)?;
        let entry = &mut self.entries[process];
        if let Some(before) = entry.holder.replace(holder) {
            let _ = epoll.remove(&before.pidfd);
        }
        entry.generation += 1;
        let (announced, result) = self.announce(epoll, process);
        all.extend(announced);
        result
    }
}

fn shortage(e: std::io::Error) -> Refusal {
    Refusal::new(Status::Failed, format!("{e}{}", shortage_hint(&e)))
}

/// The process with this pid and start time, and its current ids; its groups are those at its
/// registration.
fn same_process(who: &Identity) -> Result<(PidFd, ProcStatus), Refusal> {
    let pid = who.pid;
    let ended = || {
        Refusal::new(
            Status::NoProcess,
            format!("pid {pid} has ended: start the program again"),
        )
    };
    let pidfd = PidFd::open(pid).map_err(|e| match is_refused(&e) {
        true => Refusal::new(Status::Failed, e.to_string()),
        false if is_shortage(&e) => shortage(e),
        false => ended(),
    })?;
    let start_ticks =
        policy::observe(&pidfd, pid, || procfs::start_ticks(pid)).map_err(|refusal| {
            if refusal.status == Status::NoProcess {
                ended()
            } else {
                refusal
            }
        })?;
    if start_ticks != who.start_ticks {
        return Err(ended());
    }
    let status = policy::observe(&pidfd, pid, || procfs::status(pid))?;
    policy::may_speak_for(who.requester, pid, &status, true)?;
    if !policy::observe(&pidfd, pid, || Ok(procfs::has_thread(pid, who.tid)))? {
        let text = format!("its thread {} has ended: see /proc/{pid}/task", who.tid);
        return Err(Refusal::new(Status::NoProcess, text));
    }
    Ok((
        pidfd,
        ProcStatus {
            egid: who.egid,
            groups: who.groups.clone(),
            ..status
        },
    ))
}
