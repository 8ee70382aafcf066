//! SCHED_FIFO, pinning and thread identity, each read back after it was set (sched(7)).

use super::limits;
use super::memory::PROBE_STACK_BYTES;
use super::procfs::named;
use super::{Call, Errno};
use std::io;
use thread_priority::{
    RealtimeThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id, thread_schedule_policy_param,
};

/// CPU numbers from here on are refused: core_affinity's set is a cpu_set_t of 1024 bits and aborts
/// past it.
pub const CPUS_MAX: usize = 1024;

/// Gives the calling thread SCHED_FIFO at `priority` and checks that it has it.
///
/// Errors: EPERM without CAP_SYS_NICE or RLIMIT_RTPRIO, or in a control group without real-time
/// budget.
pub fn set_fifo(priority: u8) -> io::Result<()> {
    let fifo = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
    let value =
        thread_priority::ThreadPriorityValue::try_from(priority).map_err(io::Error::other)?;
    let thread = thread_native_id();
    set_thread_priority_and_policy(thread, ThreadPriority::Crossplatform(value), fifo).map_err(
        |e| match e {
            thread_priority::Error::OS(errno) => io::Error::from_raw_os_error(errno),
            other => io::Error::other(format!("{other:?}")),
        },
    )?;
    let (policy, got) =
        thread_schedule_policy_param(thread).map_err(|e| io::Error::other(format!("{e:?}")))?;
    if policy == fifo && got.sched_priority == i32::from(priority) {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "requested SCHED_FIFO {priority}, got {policy:?} {}",
        got.sched_priority
    )))
}

/// The real-time priority of any thread; `None` for one that is not SCHED_FIFO or SCHED_RR.
///
/// Errors: ESRCH when there is no such thread.
pub fn realtime_priority(tid: i32) -> io::Result<Option<u8>> {
    // SAFETY: a plain integer in and out.
    let policy = unsafe { libc::sched_getscheduler(tid) };
    if policy < 0 {
        return Err(named(format!("thread {tid}"), io::Error::last_os_error()));
    }
    if !matches!(
        policy & !libc::SCHED_RESET_ON_FORK,
        libc::SCHED_FIFO | libc::SCHED_RR
    ) {
        return Ok(None);
    }
    let mut param = libc::sched_param { sched_priority: 0 };
    // SAFETY: `param` is ours to write for the call.
    if unsafe { libc::sched_getparam(tid, &raw mut param) } < 0 {
        return Err(named(format!("thread {tid}"), io::Error::last_os_error()));
    }
    u8::try_from(param.sched_priority)
        .map(Some)
        .map_err(io::Error::other)
}

/// Policy and priority of an ordinary thread.
pub const ORDINARY: (i32, i32) = (libc::SCHED_OTHER, 0);

/// The scheduling of a thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Policy, such as SCHED_FIFO or SCHED_OTHER.
    pub policy: i32,
    /// Real-time priority; 0 for other policies.
    pub priority: i32,
    /// CPUs that it may run on.
    pub cpus: Vec<usize>,
}

impl std::fmt::Display for Placement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.policy {
            libc::SCHED_OTHER => f.write_str("SCHED_OTHER")?,
            libc::SCHED_FIFO => write!(f, "SCHED_FIFO {}", self.priority)?,
            libc::SCHED_RR => write!(f, "SCHED_RR {}", self.priority)?,
            libc::SCHED_BATCH => f.write_str("SCHED_BATCH")?,
            libc::SCHED_IDLE => f.write_str("SCHED_IDLE")?,
            libc::SCHED_DEADLINE => f.write_str("SCHED_DEADLINE")?,
            other => write!(f, "scheduling policy {other}")?,
        }
        write!(f, " on CPU {}", super::cpus::show_list(&self.cpus))
    }
}

/// The scheduling of any thread of this machine. ESRCH if there is no such thread.
pub fn placement(tid: i32) -> io::Result<Placement> {
    // SAFETY: a plain integer in and out.
    let policy = unsafe { libc::sched_getscheduler(tid) };
    let mut param = libc::sched_param { sched_priority: 0 };
    // SAFETY: `param` is ours to write for the call.
    if policy < 0 || unsafe { libc::sched_getparam(tid, &raw mut param) } < 0 {
        return Err(named(format!("thread {tid}"), io::Error::last_os_error()));
    }
    let set = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(tid))?;
    let cpus = (0..CPUS_MAX)
        .filter(|cpu| set.is_set(*cpu).unwrap_or(false))
        .collect();
    Ok(Placement {
        policy: policy & !libc::SCHED_RESET_ON_FORK,
        priority: param.sched_priority,
        cpus,
    })
}

/// Schedules a thread like this: CPUs first, so that it does not run at its priority where it does
/// not belong.
///
/// Errors: EINVAL when a cpuset has none of the CPUs, EPERM without CAP_SYS_NICE or RLIMIT_RTPRIO.
pub fn place(tid: i32, wanted: &Placement) -> io::Result<()> {
    let mut set = nix::sched::CpuSet::new();
    for cpu in &wanted.cpus {
        set.set(*cpu)?;
    }
    let pinned = nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(tid), &set);
    let param = libc::sched_param {
        sched_priority: wanted.priority,
    };
    // SAFETY: the parameter is initialised; a thread that is not there is an error.
    if unsafe { libc::sched_setscheduler(tid, wanted.policy, &raw const param) } < 0 {
        return Err(named(
            "sched_setscheduler (RLIMIT_RTPRIO or CAP_SYS_NICE grants it)",
            io::Error::last_os_error(),
        ));
    }
    pinned.map_err(|e| {
        named(
            "sched_setaffinity (the cpuset of its control group must have that CPU)",
            io::Error::from(e),
        )
    })
}

/// Makes the calling thread an ordinary one: threads inherit the scheduling of the one that starts
/// them.
pub fn set_ordinary() -> io::Result<()> {
    Ok(make_ordinary(0)?)
}

/// Makes any thread an ordinary one, the calling one where `tid` is 0. ESRCH when there is no such
/// thread.
///
/// Touches no heap: the watchdog takes a thread its priority.
pub fn make_ordinary(tid: i32) -> Call<()> {
    let param = libc::sched_param { sched_priority: 0 };
    // SAFETY: the parameter is initialised; a thread that is not there is an error.
    let rc = unsafe { libc::sched_setscheduler(tid, libc::SCHED_OTHER, &raw const param) };
    if rc < 0 { Err(Errno::last()) } else { Ok(()) }
}

/// Pins the calling thread to one CPU and checks that it is pinned.
pub fn pin(cpu: usize) -> io::Result<()> {
    if cpu >= CPUS_MAX {
        return Err(io::Error::other(format!(
            "CPU {cpu} is past the {CPUS_MAX} this build can address"
        )));
    }
    // The crate's own list shows only the current mask, so isolated CPUs would vanish from it.
    let asked = core_affinity::set_for_current(core_affinity::CoreId { id: cpu });
    let mask = rustix::thread::sched_getaffinity(None)?;
    if asked && mask.is_set(cpu) && mask.count() == 1 {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "CPU {cpu} was not granted (sched_setaffinity)"
    )))
}

/// Whether this is a thread of this process.
pub fn is_own_thread(tid: i32) -> bool {
    super::procfs::has_thread(i32::try_from(std::process::id()).unwrap_or(0), tid)
}

/// Lets other threads of this priority on this CPU run (sched_yield(2)).
pub fn yield_now() {
    rustix::thread::sched_yield();
}

/// Kernel id of the calling thread.
pub fn gettid() -> i32 {
    rustix::thread::gettid().as_raw_nonzero().get()
}

/// Id of this process.
pub fn getpid() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}

/// CPU the calling thread runs on now.
pub fn current_cpu() -> usize {
    rustix::thread::sched_getcpu()
}

/// Names the calling thread, at most 15 bytes (prctl(2) PR_SET_NAME); for `ps -L` and traces.
pub fn set_name(name: &str) {
    let cut: Vec<u8> = name.bytes().filter(|&b| b != 0).take(15).collect();
    if let Ok(name) = std::ffi::CString::new(cut) {
        // A thread without a name still works.
        let _ = rustix::thread::set_name(&name);
    }
}

/// Whether the kernel gives this process a SCHED_FIFO priority past RLIMIT_RTPRIO. Tried on a
/// thread that ends at once.
pub fn fifo_is_granted() -> bool {
    let soft = limits::get(limits::Kind::RtPrio).map_or(0, |limit| limit.soft.unwrap_or(99));
    // A limit of 99 admits every priority: then the highest one is tried.
    let priority = u8::try_from(soft.saturating_add(1).min(99)).unwrap_or(99);
    let probe = std::thread::Builder::new().stack_size(PROBE_STACK_BYTES);
    let tried = probe.spawn(move || set_fifo(priority).is_ok());
    tried.is_ok_and(|thread| thread.join().unwrap_or(false))
}
