//! The facts of a machine that a configuration is checked against.
//!
//! Constraint: a fact that could not be read is `None`, which means "not known" and never a
//! failure. Tests construct machines; [`Machine::probe`] reads the real one.

use rtcore::sys::caps::{self, Capability};
use rtcore::sys::ids::Account;
use rtcore::sys::limits::{self, Kind, Limit, MqSysctl};
use rtcore::sys::throttle::{self, Throttle};
use rtcore::sys::{accounts, cpus, idle, memory, room, sched};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CStr;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

pub use rtcore::sys::limits::Queue;

/// The machine that the plan will run on.
#[derive(Clone, Debug)]
pub struct Machine {
    /// CPUs that are online.
    pub cpus_existing: Option<Vec<usize>>,
    /// CPUs that a thread of this process can be pinned to.
    pub cpus_allowed: Option<Vec<usize>>,
    /// CPUs that the scheduler does not use for ordinary threads.
    pub cpus_isolated: Option<Vec<usize>>,
    /// The mechanism that reserves time for ordinary threads on a list of CPUs.
    pub throttle: fn(&[usize]) -> Option<Throttle>,
    /// Whether this process can open /dev/cpu_dma_latency; if not, why.
    pub cpu_dma_latency: Result<(), String>,
    /// Bytes in message queues per user.
    pub rlimit_msgqueue: Option<Limit>,
    /// Limit of locked memory, in bytes (RLIMIT_MEMLOCK).
    pub rlimit_memlock: Option<Limit>,
    /// Queued signals per user.
    pub rlimit_sigpending: Option<Limit>,
    /// Highest real-time priority.
    pub rlimit_rtprio: Option<Limit>,
    /// Limit of open files (RLIMIT_NOFILE).
    pub rlimit_nofile: Option<Limit>,
    /// fs.mqueue.msg_max.
    pub msg_max: Option<u64>,
    /// fs.mqueue.msgsize_max.
    pub msgsize_max: Option<u64>,
    /// fs.mqueue.queues_max.
    pub queues_max: Option<u64>,
    /// Bytes of memory that are available: MemAvailable of proc_meminfo(5), or less where a control
    /// group has a limit.
    pub memory_available: Option<u64>,
    /// The source of that number: `MemAvailable`, or the file with the limit.
    pub memory_limit: String,
    /// Bytes that this program maps, which the kernel counts against RLIMIT_MEMLOCK: `rtd check`
    /// and `rtd run` are one program. Read once, so that two estimates of one run differ only by
    /// their plans.
    pub program_bytes: u64,
    /// Lifts the fs.mqueue limits.
    pub cap_sys_resource: Option<bool>,
    /// Lifts the locked-memory limit.
    pub cap_ipc_lock: Option<bool>,
    /// Lifts the limit of real-time priorities: tried, if the process has it.
    pub cap_sys_nice: Option<bool>,
    /// The process has CAP_SYS_NICE, and the kernel nevertheless refuses SCHED_FIFO.
    pub fifo_refused: bool,
    /// The process is in a user namespace other than the machine's first: no capability lifts a
    /// limit there.
    pub user_namespace: bool,
    /// Signals to processes of other users.
    pub cap_kill: Option<bool>,
    /// Shows the executables of other users' processes.
    pub cap_sys_ptrace: Option<bool>,
    /// Becomes another user.
    pub cap_setuid: Option<bool>,
    /// Changes its groups.
    pub cap_setgid: Option<bool>,
    /// The program to which setcap(8) would grant capabilities: this one.
    pub program: String,
    /// Real user id of the daemon.
    pub uid: u32,
    /// Real group id of the daemon.
    pub gid: u32,
    /// Owner of /run/rtd, if it exists.
    pub run_dir_owner: Option<u32>,
    pub runtime_dir: Option<PathBuf>,
    /// Message queues that exist already.
    pub queues: Queues,
    /// Known users, groups and executables.
    pub known: Known,
    /// Whether Cobalt is available.
    pub cobalt: Cobalt,
}

/// How rtd knows the existing message queues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Queues {
    /// They are not known.
    Unknown,
    /// All of them.
    Listed(Vec<Queue>),
    /// mqueue is not mounted: only a queue whose name is known can be looked up (mq_open(3)).
    ByName,
}

/// Source of the answer about Cobalt.
#[derive(Clone, Debug)]
pub enum Cobalt {
    /// A child process tries it.
    Try,
    /// A fixed answer: the Cobalt, or why there is none.
    Fixed(Result<Found, String>),
}

/// A Cobalt that is available.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Description for display.
    pub what: String,
    /// Directory of the devices of XDDP's ports, or why there are none.
    pub xddp: Result<PathBuf, String>,
}

/// Users, groups and executables.
#[derive(Clone, Debug)]
pub enum Known {
    /// Those of the running system.
    System,
    /// Exactly these.
    Fixed {
        /// Name to uid.
        users: BTreeMap<String, u32>,
        /// Name to gid.
        groups: BTreeMap<String, u32>,
        /// Paths of executables.
        exes: BTreeSet<PathBuf>,
    },
}

pub use rtcore::client::locate::{RUN_DIR, run_dir_owner};

const MEM_AVAILABLE: &str = "MemAvailable";

/// Path of this program; the path of its installation, if the kernel does not tell.
pub fn own_program() -> String {
    std::env::current_exe().map_or_else(
        |_| "/usr/bin/rtd".to_owned(),
        |path| path.display().to_string(),
    )
}

/// Bytes that this program maps.
fn program_bytes() -> u64 {
    /// Size of a stripped release build, for a machine where /proc cannot be read.
    const TYPICAL: u64 = 8 * 1024 * 1024;
    static BYTES: OnceLock<u64> = OnceLock::new();
    *BYTES.get_or_init(|| memory::mapped_bytes().unwrap_or(TYPICAL))
}

impl Machine {
    /// Reads the machine that this process runs on.
    pub fn probe() -> Machine {
        let capabilities = caps::effective().ok();
        let has = |capability| capabilities.map(|set| set.has(capability));
        // For these three the kernel requires a capability in the machine's user namespace, not in
        // a container's own.
        let user_namespace = !caps::in_first_user_namespace();
        let everywhere = |capability| has(capability).map(|has| has && !user_namespace);
        let holds_nice = has(Capability::SysNice);
        let fifo_refused = holds_nice == Some(true) && !sched::fifo_is_granted();
        let room = room::available();
        Machine {
            cpus_existing: cpus::online().ok(),
            cpus_allowed: cpus::allowed().ok(),
            cpus_isolated: cpus::isolated().ok(),
            throttle: throttle::of_cpus,
            cpu_dma_latency: idle::probe(),
            rlimit_msgqueue: limits::get(Kind::MsgQueue).ok(),
            rlimit_memlock: limits::get(Kind::MemLock).ok(),
            rlimit_sigpending: limits::get(Kind::SigPending).ok(),
            rlimit_rtprio: limits::get(Kind::RtPrio).ok(),
            rlimit_nofile: limits::get(Kind::OpenFiles).ok(),
            msg_max: limits::mq_sysctl(MqSysctl::MsgMax).ok(),
            msgsize_max: limits::mq_sysctl(MqSysctl::MsgsizeMax).ok(),
            queues_max: limits::mq_sysctl(MqSysctl::QueuesMax).ok(),
            memory_available: room.as_ref().map(|room| room.bytes),
            memory_limit: room.map_or_else(|| MEM_AVAILABLE.to_owned(), |room| room.limit),
            program_bytes: program_bytes(),
            cap_sys_resource: everywhere(Capability::SysResource),
            cap_ipc_lock: everywhere(Capability::IpcLock),
            cap_sys_nice: holds_nice.map(|holds| holds && !fifo_refused),
            fifo_refused,
            user_namespace,
            cap_kill: has(Capability::Kill),
            cap_sys_ptrace: has(Capability::SysPtrace),
            cap_setuid: has(Capability::SetUid),
            cap_setgid: has(Capability::SetGid),
            program: own_program(),
            uid: accounts::own_uid(),
            gid: accounts::own_gid(),
            run_dir_owner: run_dir_owner(),
            runtime_dir: std::env::var_os("XDG_RUNTIME_DIR")
                .map(PathBuf::from)
                .filter(|dir| dir.is_absolute()),
            queues: limits::queues().map_or(Queues::ByName, Queues::Listed),
            known: Known::System,
            cobalt: Cobalt::Try,
        }
    }

    /// A machine without known facts: the check finds only faults that are wrong on any machine.
    pub fn unknown() -> Machine {
        Machine {
            cpus_existing: None,
            cpus_allowed: None,
            cpus_isolated: None,
            throttle: |_| None,
            cpu_dma_latency: Ok(()),
            rlimit_msgqueue: None,
            rlimit_memlock: None,
            rlimit_sigpending: None,
            rlimit_rtprio: None,
            rlimit_nofile: None,
            msg_max: None,
            msgsize_max: None,
            queues_max: None,
            memory_available: None,
            memory_limit: MEM_AVAILABLE.to_owned(),
            program_bytes: program_bytes(),
            cap_sys_resource: None,
            cap_ipc_lock: None,
            cap_sys_nice: None,
            fifo_refused: false,
            user_namespace: false,
            cap_kill: None,
            cap_sys_ptrace: None,
            cap_setuid: None,
            cap_setgid: None,
            program: own_program(),
            uid: 0,
            gid: 0,
            runtime_dir: None,
            run_dir_owner: None,
            queues: Queues::Unknown,
            known: Known::System,
            cobalt: Cobalt::Fixed(Err("this machine is not known".to_owned())),
        }
    }

    /// The control socket of an instance whose configuration names none.
    pub fn default_socket(&self, name: &str) -> PathBuf {
        let dir = match (&self.runtime_dir, self.uid) {
            (_, 0) => PathBuf::from(RUN_DIR),
            // The directory that systemd's RuntimeDirectory=rtd makes for the unit's user: other
            // users' programs find it.
            (_, uid) if self.run_dir_owner == Some(uid) => PathBuf::from(RUN_DIR),
            (Some(dir), _) => dir.join("rtd"),
            (None, uid) => PathBuf::from(format!("/tmp/rtd-{uid}")),
        };
        dir.join(format!("{name}.sock"))
    }

    /// The uid of a name; an error text if the system cannot tell.
    pub fn user_id(&self, name: &str) -> Result<Option<u32>, String> {
        match &self.known {
            Known::System => accounts::user_id(name).map_err(|e| e.to_string()),
            Known::Fixed { users, .. } => Ok(users.get(name).copied()),
        }
    }

    /// The gid of a name; an error text if the system cannot tell.
    pub fn group_id(&self, name: &str) -> Result<Option<u32>, String> {
        match &self.known {
            Known::System => accounts::group_id(name).map_err(|e| e.to_string()),
            Known::Fixed { groups, .. } => Ok(groups.get(name).copied()),
        }
    }

    /// The primary group of a user; an error text if the system cannot tell.
    pub fn primary_group(&self, uid: u32) -> Result<Option<u32>, String> {
        match &self.known {
            Known::System => accounts::primary_group(uid).map_err(|e| e.to_string()),
            // A group with the user's own name, as useradd(8) makes it.
            Known::Fixed { users, groups, .. } => {
                let name = users
                    .iter()
                    .find_map(|(name, known)| (*known == uid).then_some(name));
                Ok(name.and_then(|name| groups.get(name).copied()))
            }
        }
    }

    /// The canonical path of an executable; an error text if there is none.
    pub fn executable(&self, path: &Path) -> Result<PathBuf, String> {
        use std::os::unix::fs::PermissionsExt;
        if let Known::Fixed { exes, .. } = &self.known {
            let found = exes.contains(path).then(|| path.to_owned());
            return found.ok_or_else(|| "no such file".to_owned());
        }
        let canonical = path.canonicalize().map_err(|e| e.to_string())?;
        let meta = canonical.metadata().map_err(|e| e.to_string())?;
        if !meta.is_file() || meta.permissions().mode() & 0o111 == 0 {
            return Err("not an executable file".to_owned());
        }
        Ok(canonical)
    }

    /// The Cobalt that is available with that library or the usual one, for this process or for the
    /// account that it will have; or why there is none.
    pub fn cobalt(
        &self,
        library: Option<&Path>,
        account: Option<Account>,
    ) -> Result<Found, String> {
        match &self.cobalt {
            Cobalt::Try => super::cobalt::probe(library, account),
            Cobalt::Fixed(answer) => answer.clone(),
        }
    }

    /// A queue that exists already.
    pub fn queue(&self, name: &CStr) -> Option<Queue> {
        match &self.queues {
            Queues::Unknown => None,
            Queues::Listed(all) => all
                .iter()
                .find(|queue| queue.name.as_bytes() == name.to_bytes())
                .cloned(),
            Queues::ByName => limits::queue(name).ok().flatten(),
        }
    }
}
