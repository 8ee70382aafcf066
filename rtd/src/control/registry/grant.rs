//! Grants a name: examines the requester, then the holder of the name, and only then gives the name
//! to the requester.

use super::{Consequence, Entry, Holder, Registry};
use crate::control::Token;
use crate::control::conns::{Client, ExecOf};
use crate::control::kept::Identity;
use crate::control::policy::{self, Exe, Refusal};
use crate::plan::{ProcessId, ProcessPlan};
use crate::words::SHARE_IPC;
use rtcore::sys::epoll::Epoll;
use rtcore::sys::limits::shortage_hint;
use rtcore::sys::pidfd::{PidFd, is_refused};
use rtcore::sys::procfs::{self, Status as ProcStatus};
use rtcore::wire::{Name, Reply, Status};
use std::io;

/// A request to take a name.
#[derive(Clone, Copy, Debug)]
pub(in crate::control) struct Claim {
    pub name: Name,
    pub pid: i32,
    pub tid: i32,
    pub exec_follows: bool,
    /// Whether a session claims it; the end of the session frees the name.
    pub session: bool,
    /// The lane below which that thread runs, as its library declared.
    pub lane: Option<Name>,
}

/// A process that may have a name, and has not got it yet.
#[derive(Debug)]
pub(in crate::control) struct Candidate {
    process: ProcessId,
    holder: Holder,
    exec_follows: bool,
    /// A warning about a permitted exception.
    warning: Option<String>,
}

impl Candidate {
    pub fn process(&self) -> ProcessId {
        self.process
    }

    pub fn pid(&self) -> i32 {
        self.holder.who.pid
    }

    pub fn ruid(&self) -> u32 {
        self.holder.ruid
    }

    /// Whether the grant waits for an exec(2).
    fn is_pending(&self, plan: &ProcessPlan) -> bool {
        self.exec_follows && plan.exe.is_some()
    }
}

impl Registry {
    /// The number of the next grant of the name.
    pub fn next_generation(&self, process: ProcessId) -> u64 {
        self.entries[process].generation + 1
    }

    /// Checks that the process may have a name, and that no other living process has it. Grants
    /// nothing yet. Adds the consequences of the examination to `all`.
    pub fn claim(
        &mut self,
        epoll: &Epoll,
        client: &Client,
        claim: Claim,
        all: &mut Vec<Consequence>,
    ) -> Result<Candidate, Refusal> {
        let process = self.find(claim.name)?;
        if claim.exec_follows && client.exec_of.is_some() {
            let text = format!(
                "{}: this connection announced an exec before: use one per name",
                claim.name
            );
            return Err(Refusal::new(Status::BadFrame, text));
        }
        let (holder, warning) = self.candidate(client, claim, process)?;
        self.make_room(epoll, process, &holder, all)?;
        all.extend(self.warning_of_ipc_namespace(process, &holder));
        Ok(Candidate {
            process,
            holder,
            exec_follows: claim.exec_follows,
            warning,
        })
    }

    /// Grants the name. The caller stores the last value, if there is one, at the connection,
    /// stores the registration for the next start and then calls [`Registry::announce`], unless the
    /// reply is [`Status::Pending`].
    pub fn grant(
        &mut self,
        epoll: &Epoll,
        candidate: Candidate,
    ) -> Result<(Reply, Option<ExecOf>), Refusal> {
        let (reply, pending) = (
            self.answer(&candidate),
            candidate.is_pending(&self.entries[candidate.process].plan),
        );
        let Candidate {
            process,
            mut holder,
            exec_follows,
            ..
        } = candidate;
        let entry = &mut self.entries[process];
        let failed = |e: io::Error| {
            let text = format!("{}: {e}{}", entry.plan.name, shortage_hint(&e));
            Refusal::new(Status::Failed, text)
        };
        epoll
            .add(&holder.pidfd, Token::Peer { process }.encode())
            .map_err(failed)?;
        // It has reconnected, or another process replaced it.
        if let Some(expected) = entry.expected.take() {
            let _ = epoll.remove(&expected.pidfd);
        }
        entry.generation += 1;
        holder.active = !pending;
        self.unkept = true;
        self.undecided
            .retain(|record| record.name != entry.plan.name);
        if let Some(before) = entry.holder.replace(holder) {
            let _ = epoll.remove(&before.pidfd);
        }
        let entry = &self.entries[process];
        let exec_of = ExecOf {
            process,
            generation: entry.generation,
        };
        Ok((reply, exec_follows.then_some(exec_of)))
    }

    /// The reply to the client when the name is granted.
    pub fn answer(&self, candidate: &Candidate) -> Reply {
        let entry = &self.entries[candidate.process];
        let pid = candidate.pid();
        let warning = candidate
            .warning
            .as_ref()
            .map(|text| format!("; {text}"))
            .unwrap_or_default();
        Reply {
            status: if candidate.is_pending(&entry.plan) {
                Status::Pending
            } else {
                Status::Ok
            },
            generation: self.next_generation(candidate.process),
            signals: entry.signals,
            pid: pid.cast_unsigned(),
            text: format!("pid {pid} is {}{warning}", entry.plan.name),
        }
    }

    /// Examines the process that requests the name.
    fn candidate(
        &self,
        client: &Client,
        claim: Claim,
        process: ProcessId,
    ) -> Result<(Holder, Option<String>), Refusal> {
        let cred = &client.cred;
        if cred.pid <= 0 {
            let text = "the client is in a pid namespace that rtd cannot see: run rtctl, or the program, in rtd's own pid \
                        namespace or in one below it";
            return Err(Refusal::new(Status::NoProcess, text));
        }
        let claim = self.in_our_numbers(client, claim)?;
        let own = claim.pid == 0 || claim.pid == cred.pid;
        let pid = if own { cred.pid } else { claim.pid };
        if pid <= 0 {
            return Err(Refusal::new(
                Status::NoProcess,
                format!("there is no pid {pid}"),
            ));
        }
        if pid == self.own_pid {
            return Err(Refusal::new(
                Status::Denied,
                format!("pid {pid} is rtd itself"),
            ));
        }
        let pidfd = if own {
            client.pidfd.try_clone()
        } else {
            PidFd::open(pid)
        };
        let pidfd = pidfd.map_err(|e| {
            if is_refused(&e) {
                return Refusal::new(Status::Failed, e.to_string());
            }
            let text =
                format!("{e}: give --pid the number of a running process (a thread goes to --tid)");
            Refusal::new(Status::NoProcess, text)
        })?;
        let mut status = policy::observe(&pidfd, pid, || procfs::status(pid))?;
        policy::may_speak_for(cred.uid, pid, &status, own)?;
        if own {
            // The groups at the time of connect(2); a later set-group-id program does not count.
            status = ProcStatus {
                egid: cred.gid,
                groups: cred.groups.clone(),
                ..status
            };
        }
        let tid = if claim.tid == 0 { pid } else { claim.tid };
        if !policy::observe(&pidfd, pid, || Ok(procfs::has_thread(pid, tid)))? {
            let text = format!("tid {tid} is no thread of pid {pid}: see /proc/{pid}/task");
            return Err(Refusal::new(Status::NoProcess, text));
        }
        let exe = if claim.exec_follows {
            Exe::AfterExec
        } else {
            Exe::Now
        };
        let warning =
            self.check_against_plan(process, &pidfd, (pid, tid), &status, exe, claim.lane)?;
        let who = Identity {
            pid,
            tid,
            start_ticks: policy::observe(&pidfd, pid, || procfs::start_ticks(pid))?,
            euid: status.euid,
            egid: status.egid,
            groups: status.groups,
            requester: cred.uid,
            session: claim.session,
            exe: super::program(pid),
        };
        let mut holder = Holder::new(pidfd, who, status.ruid);
        holder.observations.exec_awaited = claim.exec_follows;
        Ok((holder, warning))
    }

    /// The claim with the numbers of rtd's own pid namespace. A client in a namespace below it has
    /// other numbers: rtd finds its own process and threads by them, and refuses any other process.
    fn in_our_numbers(&self, client: &Client, claim: Claim) -> Result<Claim, Refusal> {
        if claim.pid == 0 && claim.tid == 0 {
            return Ok(claim);
        }
        let pid = client.cred.pid;
        let numbers = policy::observe(&client.pidfd, pid, || procfs::namespace_pids(pid))?;
        if numbers.len() == self.own_depth {
            return Ok(claim);
        }
        if claim.pid != 0 && numbers.last() != Some(&claim.pid) {
            let text = format!(
                "pid {} is a number of another pid namespace than rtd's: register the process from rtd's namespace, by the \
                 first number of NSpid in its /proc/PID/status there, or start it with rtctl run",
                claim.pid
            );
            return Err(Refusal::new(Status::NoProcess, text));
        }
        let tid = match claim.tid {
            0 => 0,
            inner => policy::observe(&client.pidfd, pid, || {
                procfs::thread_of_namespace(pid, inner)
            })?
            .ok_or_else(|| {
                let text = format!("tid {inner} is no thread of pid {pid} in its pid namespace");
                Refusal::new(Status::NoProcess, text)
            })?,
        };
        Ok(Claim {
            pid: 0,
            tid,
            ..claim
        })
    }

    /// A warning if the process cannot open the queues that it owns: a name of a queue means
    /// another queue in another IPC namespace.
    fn warning_of_ipc_namespace(&self, process: ProcessId, holder: &Holder) -> Option<Consequence> {
        let (plan, pid) = (&self.entries[process].plan, holder.who.pid);
        let theirs = procfs::namespace(pid, "ipc");
        if self.entries[process].queues.is_empty()
            || theirs.is_none_or(|ns| ns == procfs::own_namespace("ipc"))
        {
            return None;
        }
        let queues = self.entries[process].queues.join(", ");
        let text = format!(
            "{}: pid {pid} is in another IPC namespace than rtd and cannot open the queues of {queues}: run it in rtd's \
             ({SHARE_IPC})",
            plan.name
        );
        Some(Consequence::warning(text))
    }

    /// Checks the process and its thread against the configuration; the warning is about a
    /// permitted exception.
    pub(super) fn check_against_plan(
        &self,
        process: ProcessId,
        pidfd: &PidFd,
        (pid, tid): (i32, i32),
        status: &ProcStatus,
        exe: Exe,
        lane: Option<Name>,
    ) -> Result<Option<String>, Refusal> {
        let Entry {
            plan,
            ceiling,
            signalled,
            ..
        } = &self.entries[process];
        policy::check(plan, pidfd, pid, status, exe)?;
        if *signalled {
            policy::may_be_signalled(plan, pidfd, pid, status)?;
        }
        match ceiling {
            Some(ceiling) => {
                let declared = lane.as_ref().map(Name::as_str);
                policy::below(ceiling, plan, pidfd, (pid, tid), declared)
            }
            None => Ok(None),
        }
    }

    /// A dead holder is accounted for; the same process may register again; another living holder
    /// keeps the name.
    fn make_room(
        &mut self,
        epoll: &Epoll,
        process: ProcessId,
        next: &Holder,
        all: &mut Vec<Consequence>,
    ) -> Result<(), Refusal> {
        // The holder's event may wait in this turn; the new holder must not overtake it.
        all.extend(self.ended(epoll, process));
        let entry = &mut self.entries[process];
        let Some(holder) = entry.holder.as_ref() else {
            return Ok(());
        };
        if holder.who.pid != next.who.pid {
            let text = format!(
                "{} is held by pid {}: stop that process, or free the name: rtctl unregister --as {}",
                entry.plan.name, holder.who.pid, entry.plan.name
            );
            return Err(Refusal::new(Status::Held, text));
        }
        // Both are alive and have the same pid, so they are one process.
        Ok(())
    }
}
