//! Which capability a plan needs, when, and what for: the one place that says so (capabilities(7)).
//!
//! | capability | while it starts | while it runs |
//! |---|---|---|
//! | CAP_SYS_NICE | SCHED_FIFO past RLIMIT_RTPRIO | the control thread, if `on_tampering` is `restore` and RLIMIT_RTPRIO does not grant the priorities: else no, a thread keeps its policy. On Cobalt all: the core refuses every call of a thread without it |
//! | CAP_IPC_LOCK | locked memory past RLIMIT_MEMLOCK | the control thread, unless that limit is infinite: its rings are locked, and its own stack is, which could not grow past the limit |
//! | CAP_SYS_RESOURCE | queues past the fs.mqueue sysctls | no |
//! | CAP_KILL | no | the control thread and the lanes, if signals go to a process that may be another user's |
//! | CAP_SYS_PTRACE | no | the control thread, if `exe` is demanded of a process that may be another user's |
//!
//! Nothing else: CAP_CHOWN, CAP_SETUID, CAP_SETGID and CAP_SETPCAP serve to become another user and
//! go with that.
//!
//! Invariant: what is not in a list here is given up (`daemon/privilege.rs`). Root is not asked: a
//! user id 0 that gave up its capabilities still owns every file of the system.

use super::watch::OnTampering;
use super::{Plan, ProcessPlan, SkinKind, TargetPlan};
use crate::endpoint::EndpointKind;
use rtcore::sys::caps::Capability;

/// The capabilities that a start uses, as far as it has them.
pub const TO_START: [Capability; 3] = [
    Capability::SysNice,
    Capability::IpcLock,
    Capability::SysResource,
];

/// The threads that need it while the daemon runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The control thread.
    Control,
    /// The control thread and the lanes.
    All,
}

/// One capability that is needed while the daemon runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    pub capability: Capability,
    /// The threads that keep it.
    pub who: Who,
    /// The purpose, for display.
    pub what_for: String,
}

/// The limits of the process, which grant permissions without a capability.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// RLIMIT_MEMLOCK is infinite.
    pub memlock_infinite: bool,
    /// RLIMIT_RTPRIO; none = infinite.
    pub rtprio: Option<u64>,
}

/// Everything that a daemon of this user needs to run the plan.
pub fn to_run(plan: &Plan, uid: u32, limits: Limits) -> Vec<Need> {
    let mut needs = Vec::new();
    if uid == 0 {
        return needs;
    }
    let mut add = |capability, who, what_for: String| {
        needs.push(Need {
            capability,
            who,
            what_for,
        })
    };
    if plan.daemon.skin.kind == SkinKind::Cobalt {
        add(
            Capability::SysNice,
            Who::All,
            "every call on Cobalt".to_owned(),
        );
    }
    // On Cobalt every thread has it already, and Linux does not schedule them.
    let linux = plan.daemon.skin.kind != SkinKind::Cobalt;
    let short = limits
        .rtprio
        .is_some_and(|most| most < plan.watchdog_priority().into());
    if plan.daemon.watch.on_tampering == OnTampering::Restore && short && linux {
        add(
            Capability::SysNice,
            Who::Control,
            "on_tampering = \"restore\", RLIMIT_RTPRIO is lower".to_owned(),
        );
    }
    if !limits.memlock_infinite {
        add(
            Capability::IpcLock,
            Who::Control,
            "locked memory, RLIMIT_MEMLOCK is not infinite".to_owned(),
        );
    }
    if let Some(process) = signalled(plan)
        .map(|(_, process)| process)
        .find(|p| p.may_be_of_another(uid))
    {
        add(
            Capability::Kill,
            Who::All,
            format!("signals to `{}`", process.name),
        );
    }
    if let Some(process) = plan
        .processes
        .iter()
        .find(|p| p.exe.is_some() && p.may_be_of_another(uid))
    {
        add(
            Capability::SysPtrace,
            Who::Control,
            format!("exe of `{}`", process.name),
        );
    }
    needs
}

/// Signal endpoints that some route sends to, with the process that gets the signals; none if a
/// skin's signals are not Linux signals.
pub fn signalled(plan: &Plan) -> impl Iterator<Item = (usize, &ProcessPlan)> {
    let linux = plan.daemon.skin.kind.caps().shared_namespace;
    let targets = plan
        .routes
        .iter()
        .filter(move |_| linux)
        .flat_map(|route| &route.to);
    targets.flat_map(TargetPlan::endpoints).filter_map(|&id| {
        let endpoint = plan.endpoints.get(id)?;
        let signal = matches!(endpoint.kind, EndpointKind::Signal(_));
        Some((id, plan.processes.get(endpoint.owner.filter(|_| signal)?)?))
    })
}

impl ProcessPlan {
    /// Whether the configuration lets a process of another user have the name.
    pub fn may_be_of_another(&self, uid: u32) -> bool {
        self.uid != Some(uid)
    }
}
