//! What a start makes of the registrations of the last one.
//!
//! A process that was *registered* (`rtctl run`, `rtctl register`) knows nothing of rtd and cannot register again, so it
//! keeps its name if it is the same process and may still have it. One that had a *session* connects again by itself.

use super::{Holder, Registry};
use crate::control::kept::{Identity, Record};
use crate::control::policy::{self, Exe, Refusal};
use crate::control::{Handler, Token};
use crate::plan::ProcessId;
use rtcore::sys::epoll::Epoll;
use rtcore::sys::pidfd::PidFd;
use rtcore::sys::procfs::{self, Status as ProcStatus};
use rtcore::wire::{Name, Status};

/// What became of a registration, as a line for the log.
#[derive(Debug)]
pub(in crate::control) enum Adopted {
    /// It holds again.
    Again(String),
    /// It does not; the line says why and what to do.
    Not(String),
}

impl Registry {
    /// Restores one registration of the last life of the instance; `None` for a session, which opens again by itself.
    pub fn adopt(&mut self, epoll: &Epoll, record: Record, handler: &mut dyn Handler) -> Option<Adopted> {
        // The file has to be written again, with what is left of it.
        self.unkept = true;
        let Record { name, who } = record;
        if who.session {
            return None;
        }
        let (pid, exe) = (who.pid, who.exe.clone());
        let text = match self.restore(epoll, &name, who, handler) {
            Ok(line) => return Some(Adopted::Again(line)),
            Err(refusal) => refusal.text,
        };
        Some(Adopted::Not(format!(
            "{name}: pid {pid} ({exe}) was registered before rtd was restarted and is not any more: {text}"
        )))
    }

    fn restore(
        &mut self,
        epoll: &Epoll,
        name: &str,
        who: Identity,
        handler: &mut dyn Handler,
    ) -> Result<String, Refusal> {
        let bad_name = |e: rtcore::wire::FrameError| Refusal::new(Status::UnknownName, e.to_string());
        let process = self.find(Name::new(name).map_err(bad_name)?)?;
        let (pidfd, status) = same_process(&who)?;
        let warning = self.vet(process, &pidfd, (who.pid, who.tid), &status, Exe::Now)?;
        let line =
            format!("{name}: pid {} ({}) is registered again, as before rtd was restarted", who.pid, who.exe);
        let line = warning.map_or(line.clone(), |text| format!("{line}; {text}"));
        self.put_back(epoll, process, Holder::new(pidfd, who, status.ruid), handler)?;
        Ok(line)
    }

    fn put_back(
        &mut self,
        epoll: &Epoll,
        process: ProcessId,
        holder: Holder,
        handler: &mut dyn Handler,
    ) -> Result<(), Refusal> {
        let failed =
            |e: std::io::Error| Refusal::new(Status::Failed, format!("{e}: raise LimitNOFILE= of rtd"));
        epoll.add(&holder.pidfd, Token::Peer { process }.encode()).map_err(failed)?;
        let entry = &mut self.entries[process];
        if let Some(before) = entry.holder.replace(holder) {
            let _ = epoll.remove(&before.pidfd);
        }
        entry.generation += 1;
        self.announce(epoll, process, handler)
    }
}

/// The very process that is meant, and who it is now; its groups are those that it had when it registered.
fn same_process(who: &Identity) -> Result<(PidFd, ProcStatus), Refusal> {
    let pid = who.pid;
    let ended = || Refusal::new(Status::NoProcess, format!("pid {pid} has ended: start the program again"));
    let pidfd = PidFd::open(pid).map_err(|_| ended())?;
    let start_ticks = policy::observe(&pidfd, pid, || procfs::start_ticks(pid)).map_err(|_| ended())?;
    if start_ticks != who.start_ticks {
        return Err(ended());
    }
    let status = policy::observe(&pidfd, pid, || procfs::status(pid))?;
    policy::may_speak_for(who.requester, pid, &status, true)?;
    if !policy::observe(&pidfd, pid, || Ok(procfs::has_thread(pid, who.tid)))? {
        let text = format!("its thread {} has ended: see /proc/{pid}/task", who.tid);
        return Err(Refusal::new(Status::NoProcess, text));
    }
    Ok((pidfd, ProcStatus { egid: who.egid, groups: who.groups.clone(), ..status }))
}
