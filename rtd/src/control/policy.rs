//! The policy of names: the credentials of a process against its `[[process]]`.
//!
//! Constraint: data from /proc counts only if the pidfd shows afterwards that the process still
//! exists ([`observe`]); a pid alone may have passed to another process.
//!
//! `exe` detects mistakes only: a user that may trace a process can put any code into it.
//! Protection between users comes from `user` and `group`.

use crate::plan::{Plan, ProcessId, ProcessPlan};
use rtcore::sys::limits::shortage_hint;
use rtcore::sys::pidfd::PidFd;
use rtcore::sys::procfs::{self, Status as ProcStatus};
use rtcore::sys::sched;
use rtcore::sys::seqpacket::is_shortage;
use rtcore::wire::Status;

/// A refusal, for the reply and the log.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub status: Status,
    pub text: String,
}

impl Refusal {
    pub fn new(status: Status, text: impl Into<String>) -> Refusal {
        Refusal {
            status,
            text: text.into(),
        }
    }
}

/// When the executable can be checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exe {
    /// The process already runs its final program.
    Now,
    /// The process is about to call exec(2).
    AfterExec,
}

/// Reads the credentials of `pid`, and checks that it was the process behind `pidfd` all the time.
/// Busy: rtd has no descriptor or memory for this now.
pub(super) fn observe<T>(
    pidfd: &PidFd,
    pid: i32,
    read: impl FnOnce() -> std::io::Result<T>,
) -> Result<T, Refusal> {
    let answer = read();
    if !pidfd.is_alive() {
        let text = format!("pid {pid} has ended: register a process that runs");
        return Err(Refusal::new(Status::NoProcess, text));
    }
    answer.map_err(|e| {
        if is_shortage(&e) {
            let text = format!(
                "pid {pid} cannot be examined now ({e}){}",
                shortage_hint(&e)
            );
            return Refusal::new(Status::Busy, text);
        }
        let text =
            format!("pid {pid} cannot be examined ({e}): run rtd as root, or with CAP_SYS_PTRACE");
        Refusal::new(Status::Failed, text)
    })
}

/// Whether `requester` may act for the process: all of the process's user ids are the requester's,
/// or the requester is root.
///
/// `own` is a process that asks for itself: its effective user must still be the one that the
/// kernel recorded at connect(2). A process that has changed it since (by a set-user-id program
/// that inherited the connection) may not act for the old user.
pub(super) fn may_speak_for(
    requester: u32,
    pid: i32,
    target: &ProcStatus,
    own: bool,
) -> Result<(), Refusal> {
    let same = if own {
        target.euid == requester
    } else {
        [target.ruid, target.euid, target.suid]
            .iter()
            .all(|uid| *uid == requester)
    };
    if requester == 0 || same {
        return Ok(());
    }
    let text = format!(
        "uid {requester} may not register pid {pid}, which is uid {}: only that user and root may",
        target.euid
    );
    Err(Refusal::new(Status::Denied, text))
}

/// Checks the process against the configuration.
pub(super) fn check(
    plan: &ProcessPlan,
    pidfd: &PidFd,
    pid: i32,
    status: &ProcStatus,
    exe: Exe,
) -> Result<(), Refusal> {
    let name = &plan.name;
    if let Some(uid) = plan.uid.filter(|uid| *uid != status.euid) {
        let text = format!(
            "pid {pid} is uid {}, [[process]] \"{name}\" requires uid {uid}: start it as that \
             user, or \
             correct user =",
            status.euid
        );
        return Err(Refusal::new(Status::Denied, text));
    }
    if let Some(gid) = plan
        .gid
        .filter(|gid| *gid != status.egid && !status.groups.contains(gid))
    {
        let text = format!(
            "pid {pid} is gid {} and not in gid {gid}, which [[process]] \"{name}\" requires: \
             add its user \
             to the group, or correct group =",
            status.egid
        );
        return Err(Refusal::new(Status::Denied, text));
    }
    let Some(wanted) = plan.exe.as_ref().filter(|_| exe == Exe::Now) else {
        return Ok(());
    };
    let (same, runs) = observe(pidfd, pid, || {
        Ok((procfs::runs(pid, wanted)?, procfs::exe(pid)?))
    })?;
    if same {
        return Ok(());
    }
    // The required path comes first: the reply has 228 bytes, and the log shows all of it.
    let text = format!(
        "\"{name}\" requires exe {}, pid {pid} runs {}: start that program, or correct exe =",
        wanted.display(),
        runs.display()
    );
    Err(Refusal::new(Status::Denied, text))
}

/// Whether the kernel lets rtd send the process the signals of its routes. rtd asks the kernel
/// instead of deriving it from the ids.
pub(super) fn may_be_signalled(
    plan: &ProcessPlan,
    pidfd: &PidFd,
    pid: i32,
    status: &ProcStatus,
) -> Result<(), Refusal> {
    if pidfd.may_signal() {
        return Ok(());
    }
    let (name, uid, own) = (&plan.name, status.euid, procfs::effective_uid());
    let text = format!(
        "routes send signals to \"{name}\", and rtd (uid {own}) may not signal pid {pid} of uid {uid}: run it as uid {own}, \
         or give rtd CAP_KILL (AmbientCapabilities=CAP_KILL in its unit)"
    );
    Err(Refusal::new(Status::Denied, text))
}

/// The lanes of a process's endpoints: names and priorities, the highest first, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ceiling(Vec<(String, u8)>);

impl Ceiling {
    pub fn of(plan: &Plan, process: ProcessId) -> Option<Ceiling> {
        let lanes = plan.routes_of(process).map(|route| &plan.lanes[route.lane]);
        let mut lanes: Vec<_> = lanes
            .map(|lane| (lane.name.clone(), lane.priority))
            .collect();
        lanes.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
        lanes.dedup();
        (!lanes.is_empty()).then_some(Ceiling(lanes))
    }
}

/// The rule of the library's `RealTimeBuilder`: a thread runs below each lane that *it* uses;
/// otherwise it could keep the thread that serves it from running.
///
/// Registration knows the lanes of the process, and the lane that the library declared for the
/// thread (`declared`; a lane without endpoints of the process is ignored). A declared thread must
/// be below its lane. Any other thread must be below the highest lane of the process, and the
/// answer names the lanes that it is not below. For any declaration, the thread is therefore below
/// the highest of its lanes. The returned text is a warning about a thread that is admitted.
pub(super) fn below(
    Ceiling(lanes): &Ceiling,
    plan: &ProcessPlan,
    pidfd: &PidFd,
    (pid, tid): (i32, i32),
    declared: Option<&str>,
) -> Result<Option<String>, Refusal> {
    let Some(priority) = observe(pidfd, pid, || sched::realtime_priority(tid))? else {
        return Ok(None);
    };
    let name = &plan.name;
    let is_declared = |(lane, _): &&(String, u8)| Some(lane.as_str()) == declared;
    let own = lanes.iter().find(is_declared);
    let Some((lane, most)) = own.or(lanes.first()) else {
        return Ok(None);
    };
    if priority >= *most {
        let text = format!(
            "thread {tid} of {name} has real-time priority {priority}, not below lane \"{lane}\" with {most}"
        );
        if plan.above_ceiling {
            return Ok(Some(text));
        }
        let lower = match most - 1 {
            0 => format!("chrt -o -p 0 {tid}"),
            lower => format!("chrt -f -p {lower} {tid}"),
        };
        let hint = format!("{lower}, or above_ceiling = \"warn\" in [[process]] \"{name}\"");
        return Err(Refusal::new(Status::Denied, format!("{text}: {hint}")));
    }
    let higher: Vec<String> = lanes
        .iter()
        .filter(|(_, most)| own.is_none() && priority >= *most)
        .map(|(lane, most)| format!("\"{lane}\" with {most}"))
        .collect();
    Ok((!higher.is_empty()).then(|| {
        format!(
            "thread {tid} of {name} has real-time priority {priority}: it must not send or receive in lane {}",
            higher.join(", ")
        )
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn what_is_read_about_a_number_that_passed_on_counts_for_nothing() {
        let mut old = Command::new("/bin/true").spawn().unwrap();
        let pidfd = PidFd::open(i32::try_from(old.id()).unwrap()).unwrap();
        old.wait().unwrap();
        // As if the number belonged to another living process now: this one.
        let reused = i32::try_from(std::process::id()).unwrap();
        let refusal = observe(&pidfd, reused, || procfs::status(reused)).unwrap_err();
        assert_eq!(refusal.status, Status::NoProcess);
    }

    #[test]
    fn only_the_same_user_in_every_respect_or_root_speaks_for_another() {
        let user = |ruid, euid, suid| ProcStatus {
            ruid,
            euid,
            suid,
            ..ProcStatus::default()
        };
        assert!(may_speak_for(7, 1, &user(7, 7, 7), false).is_ok());
        assert!(may_speak_for(0, 1, &user(7, 7, 7), false).is_ok());
        assert!(may_speak_for(8, 1, &user(7, 7, 7), false).is_err());
        for setuid in [user(7, 0, 7), user(7, 7, 0), user(0, 7, 7)] {
            assert!(may_speak_for(7, 1, &setuid, false).is_err(), "{setuid:?}");
        }
        assert!(may_speak_for(7, 1, &user(6, 7, 6), true).is_ok());
        assert!(may_speak_for(7, 1, &user(7, 0, 0), true).is_err());
    }
}
