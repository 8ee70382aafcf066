//! The lines that grant refused permissions: one text for the daemon and for programs that link the
//! library.

use super::caps;

/// A refused permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PermissionHint {
    /// SCHED_FIFO (sched(7)).
    Fifo,
    /// A CPU (sched_setaffinity(2)).
    Pinning,
    /// Locked memory (mlockall(2)).
    Memory,
    /// A filter of system calls (seccomp(2)).
    Filter,
}

/// The command that gives `program` the capabilities of a real-time program, and the `other` ones
/// (`cap_kill,`, or none).
pub fn setcap(other: &str, program: &str) -> String {
    format!("setcap {other}cap_sys_nice,cap_ipc_lock+ep {program}")
}

/// The line that grants it by a capability. In a user namespace none does: the limits of the
/// program that made the namespace count.
fn by_capability(program: &str) -> String {
    if caps::in_first_user_namespace() {
        format!("  {}\n", setcap("", program))
    } else {
        "  a container: --ulimit rtprio=99 --ulimit memlock=-1 (no capability counts in a user namespace)\n"
            .to_owned()
    }
}

impl PermissionHint {
    /// The lines that grant it to `program`, each with a line end.
    pub fn fix(self, program: &str) -> String {
        match self {
            PermissionHint::Fifo => format!(
                "grant SCHED_FIFO with one of\n\
                 {}\
                 \x20 /etc/security/limits.d/rtd.conf:  @rtd - rtprio 99\n\
                 \x20 the systemd unit:                 LimitRTPRIO=99\n\
                 \x20 (EPERM as root: the control group has no real-time budget, see cpu.rt_runtime_us)\n",
                by_capability(program)
            ),
            PermissionHint::Pinning => "grant the CPU with the systemd unit's CPUAffinity= or AllowedCPUs=, or name another in [[lane]] cpu\n"
                .to_owned(),
            PermissionHint::Memory => format!(
                "grant locked memory with one of\n\
                 {}\
                 \x20 /etc/security/limits.d/rtd.conf:  @rtd - memlock unlimited\n\
                 \x20 the systemd unit:                 LimitMEMLOCK=infinity\n",
                by_capability(program)
            ),
            PermissionHint::Filter => "grant the filter of system calls: a kernel with CONFIG_SECCOMP_FILTER (grep Seccomp: /proc/self/status),\n\
                 \x20 and nothing around the program that forbids seccomp(2) and prctl(2) PR_SET_NO_NEW_PRIVS\n\
                 \x20 (a container's profile; the systemd unit: SystemCallFilter=@system-service seccomp prctl)\n"
                .to_owned(),
        }
    }
}
