//! Capabilities of the calling thread, and what keeps a process from getting others
//! (capabilities(7), prctl(2)).
//!
//! Constraint: a capability belongs to a thread. A thread starts with those of the thread that
//! starts it, and gives up only its own. So a process has given one up when each of its threads has
//! ([`super::ids::threads`] reads that back).

use super::procfs::named;
use rustix::process::DumpableBehavior;
use rustix::thread::{CapabilitySet, CapabilitySets};
use std::fmt;
use std::io;

/// Those that something here asks for. The numbers are the kernel's
/// (include/uapi/linux/capability.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// Signals to processes of other users.
    Kill = 5,
    /// Other group ids, and supplementary groups.
    SetGid = 6,
    /// Other user ids.
    SetUid = 7,
    /// A smaller bounding set.
    SetPcap = 8,
    /// Locked memory past RLIMIT_MEMLOCK.
    IpcLock = 14,
    /// Shows the /proc data of other users' processes that require tracing rights, and allows
    /// tracing them.
    SysPtrace = 19,
    /// Real-time priorities past RLIMIT_RTPRIO.
    SysNice = 23,
    /// Message queues past the fs.mqueue sysctls.
    SysResource = 24,
}

impl Capability {
    const ALL: [(Capability, &'static str); 8] = [
        (Capability::Kill, "CAP_KILL"),
        (Capability::SetGid, "CAP_SETGID"),
        (Capability::SetUid, "CAP_SETUID"),
        (Capability::SetPcap, "CAP_SETPCAP"),
        (Capability::IpcLock, "CAP_IPC_LOCK"),
        (Capability::SysPtrace, "CAP_SYS_PTRACE"),
        (Capability::SysNice, "CAP_SYS_NICE"),
        (Capability::SysResource, "CAP_SYS_RESOURCE"),
    ];
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = Capability::ALL
            .iter()
            .find(|(capability, _)| capability == self);
        f.write_str(found.map_or("", |(_, name)| name))
    }
}

/// A set of capabilities, also of such as have no name here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Set(u64);

impl Set {
    pub const EMPTY: Set = Set(0);

    /// Exactly these.
    pub fn of(capabilities: impl IntoIterator<Item = Capability>) -> Set {
        capabilities
            .into_iter()
            .fold(Set::EMPTY, |set, capability| {
                Set(set.0 | 1 << capability as u32)
            })
    }

    /// As /proc/PID/status shows one: bit n is capability n.
    pub fn from_bits(bits: u64) -> Set {
        Set(bits)
    }

    /// Whether it has this one.
    pub fn has(self, capability: Capability) -> bool {
        self.0 & (1 << capability as u32) != 0
    }

    /// The capabilities in both sets.
    pub fn and(self, other: Set) -> Set {
        Set(self.0 & other.0)
    }

    /// The capabilities of this set that the other lacks.
    pub fn without(self, other: Set) -> Set {
        Set(self.0 & !other.0)
    }

    /// Whether it has all that this kernel knows (/proc/sys/kernel/cap_last_cap).
    pub fn is_full(self) -> bool {
        let last = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap").ok();
        let last: Option<u32> = last.and_then(|text| text.trim().parse().ok());
        last.is_some_and(|last| (0..=last.min(63)).all(|bit| self.0 >> bit & 1 == 1))
    }

    /// Whether there is none in it.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn bit(number: u32) -> CapabilitySet {
        CapabilitySet::from_bits_retain(1 << number)
    }
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = Capability::ALL
            .iter()
            .filter(|(capability, _)| self.has(*capability));
        let rest = self.without(Set::of(Capability::ALL.map(|(capability, _)| capability)));
        let mut words: Vec<String> = named.map(|(_, name)| (*name).to_owned()).collect();
        words.extend((!rest.is_empty()).then(|| format!("{} others", rest.0.count_ones())));
        f.write_str(if words.is_empty() { "none" } else { "" })?;
        f.write_str(&words.join(", "))
    }
}

/// The effective capabilities of the calling thread.
pub fn effective() -> io::Result<Set> {
    Ok(Set(rustix::thread::capabilities(None)?.effective.bits()))
}

/// The permitted capabilities of the calling thread.
pub fn permitted() -> io::Result<Set> {
    Ok(Set(rustix::thread::capabilities(None)?.permitted.bits()))
}

/// Whether the process is in the machine's first user namespace (user_namespaces(7)). In another
/// one a capability counts for what belongs to that namespace, and not for SCHED_FIFO, locked
/// memory or the fs.mqueue sysctls.
pub fn in_first_user_namespace() -> bool {
    // Without user namespaces there is no such file. That of a namespace whose users are not mapped
    // yet is empty.
    std::fs::read_to_string("/proc/self/uid_map").map_or(true, |map| {
        map.split_ascii_whitespace().eq(["0", "0", "4294967295"])
    })
}

/// Makes these the effective capabilities of the calling thread, and drops all others for good.
///
/// Errors: EPERM for one that it is not permitted.
pub fn hold(set: Set) -> io::Result<()> {
    let bits = CapabilitySet::from_bits_retain(set.0);
    let sets = CapabilitySets {
        effective: bits,
        permitted: bits,
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, sets)
        .map_err(|e| named(format!("capabilities {set}"), e))
}

/// No exec(2) gives this thread, or one that it starts, more than it has: no set-user-id, no file
/// capabilities, nothing ambient; and nothing in the bounding set, as far as the thread may change
/// that.
///
/// To be called while there is one thread. Whether the bounding set is empty is no error: without
/// new privileges it bounds nothing that could come.
pub fn close_exec() -> io::Result<()> {
    rustix::thread::set_no_new_privs(true).map_err(|e| named("PR_SET_NO_NEW_PRIVS", e))?;
    rustix::thread::clear_ambient_capability_set()
        .map_err(|e| named("PR_CAP_AMBIENT_CLEAR_ALL", e))?;
    if effective()?.has(Capability::SetPcap) {
        // EINVAL shows the last capability that the kernel knows.
        let there =
            |bit: &u32| rustix::thread::capability_is_in_bounding_set(Set::bit(*bit)).is_ok();
        for bit in (0..u64::BITS).take_while(there) {
            let dropped = rustix::thread::remove_capability_from_bounding_set(Set::bit(bit));
            dropped.map_err(|e| named(format!("PR_CAPBSET_DROP {bit}"), e))?;
        }
    }
    Ok(())
}

/// Only root can trace this process or open its descriptors through /proc, whatever its user is
/// (PR_SET_DUMPABLE). If the system writes core dumps that only root can read (fs.suid_dumpable =
/// 2), that stays so.
pub fn deny_tracing() -> io::Result<()> {
    if rustix::process::dumpable_behavior()? == DumpableBehavior::Dumpable {
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
            .map_err(|e| named("PR_SET_DUMPABLE", e))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_shows_its_names_and_counts_the_others() {
        assert_eq!(Set::EMPTY.to_string(), "none");
        assert_eq!(
            Set::of([Capability::SysNice, Capability::Kill]).to_string(),
            "CAP_KILL, CAP_SYS_NICE"
        );
        assert_eq!(
            Set::from_bits(1 << 5 | 1 << 1 | 1 << 40).to_string(),
            "CAP_KILL, 2 others"
        );
    }

    #[test]
    fn what_is_given_up_is_gone_in_this_thread_alone() {
        let before = permitted().unwrap();
        let kept = before.and(Set::of([Capability::Kill]));
        let after = std::thread::spawn(move || {
            hold(kept).unwrap();
            let beyond = hold(Set::from_bits(kept.0 | 1 << Capability::SetUid as u32));
            (
                permitted().unwrap(),
                effective().unwrap(),
                beyond.map_err(|e| e.to_string()),
            )
        });
        let (permitted_now, effective_now, beyond) = after.join().unwrap();
        assert_eq!((permitted_now, effective_now), (kept, kept));
        assert!(beyond.unwrap_err().contains("CAP_SETUID"));
        assert_eq!(permitted().unwrap(), before);
    }
}
