//! The filters of groups (`process_group_of`, `session_of`) that compare a process with another.

use crate::plan::{Filter, Plan, ProcessId, TargetPlan};
use rtcore::lane::target::Kin;
use rtcore::sys::procfs::Groups;

/// One filter of a group that has a process among its members, or compares the members with it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct GroupFilter {
    kin: Kin,
    /// Name of the process that members are compared with.
    of: String,
}

impl GroupFilter {
    /// The compared number; 0 if the kernel shows rtd none.
    pub fn number(&self, groups: Groups) -> i32 {
        match self.kin {
            Kin::ProcessGroup => groups.pgid,
            Kin::Session => groups.sid,
        }
    }

    /// A warning: the number of this process is unknown.
    pub fn unknown(&self, name: &str, pid: i32) -> String {
        let (what, key) = match self.kin {
            Kin::ProcessGroup => ("process group", "process_group_of"),
            Kin::Session => ("session", "session_of"),
        };
        let of = &self.of;
        let effect = if name == of {
            "has no members".to_owned()
        } else {
            format!("leaves {name} out")
        };
        format!(
            "{name}: the {what} of pid {pid} has no number here (0: it began outside of rtd's pid namespace), so a group with \
             {key} = \"{of}\" {effect}: start {name} with setsid(1)"
        )
    }
}

/// The filters that compare a process, each once.
pub(super) fn filters_of(plan: &Plan, process: ProcessId) -> Vec<GroupFilter> {
    let mut all = Vec::new();
    for target in plan.routes.iter().flat_map(|route| &route.to) {
        let TargetPlan::Group {
            members,
            filter: Some(filter),
            ..
        } = target
        else {
            continue;
        };
        let (kin, of) = match filter {
            Filter::ProcessGroupOf(of) => (Kin::ProcessGroup, *of),
            Filter::SessionOf(of) => (Kin::Session, *of),
        };
        let is_owner = |&member: &usize| plan.endpoints[member].owner == Some(process);
        if of != process && !members.iter().any(is_owner) {
            continue;
        }
        let of = plan.processes[of].name.clone();
        let filter = GroupFilter { kin, of };
        if !all.contains(&filter) {
            all.push(filter);
        }
    }
    all
}
