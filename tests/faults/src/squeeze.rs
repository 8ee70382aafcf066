//! What a machine takes away from rtd: memory, descriptors, queue bytes, space, CPUs, system calls,
//! and its wall clock.

#[path = "../../util/refuse.rs"]
mod refuse;

use crate::world::World;
use anyhow::{Context as _, ensure};
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::Pid;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// System calls that a container's filter or an old kernel may refuse. Each is used by a start.
const CALLS: [(&str, i64); 12] = [
    ("mq_open", libc::SYS_mq_open),
    ("pidfd_open", libc::SYS_pidfd_open),
    ("memfd_create", libc::SYS_memfd_create),
    ("futex_waitv", libc::SYS_futex_waitv),
    ("epoll_create1", libc::SYS_epoll_create1),
    ("eventfd2", libc::SYS_eventfd2),
    ("signalfd4", libc::SYS_signalfd4),
    ("timerfd_create", libc::SYS_timerfd_create),
    ("mlockall", libc::SYS_mlockall),
    ("sched_setscheduler", libc::SYS_sched_setscheduler),
    ("sched_setaffinity", libc::SYS_sched_setaffinity),
    ("fchmod", libc::SYS_fchmod),
];

/// What a receiver of signals may have queued, and what all queues of rtd's user may hold.
const QUEUE_BYTES: u64 = 4096;
/// Memory of rtd's control group: a page for each of some rings.
const GROUP_BYTES: u64 = 512 * 1024;
/// How far the wall clock is set forth or back.
const CLOCK_STEPS_S: [i64; 4] = [-3600, -1, 1, 3600];

/// Has rtd's next start fail in one of its calls. Returns what was done, and what rtd wrote if it
/// did not start.
pub fn start_without_a_call(
    world: &mut World,
    rng: &mut fastrand::Rng,
) -> anyhow::Result<(String, Option<String>)> {
    let (name, call) = CALLS[rng.usize(..CALLS.len())];
    let errno = if rng.bool() {
        libc::EPERM
    } else {
        libc::ENOSYS
    };
    let what = format!("{name}(2) refused with errno {errno}");
    let refused = world
        .try_start(|command| refuse::refuse(command, &[call], errno))
        .with_context(|| format!("start with {what}"))?;
    Ok((what, refused))
}

/// Limits the bytes of the queues of the command's user.
pub fn few_queue_bytes(command: &mut Command) {
    // SAFETY: setrlimit(2) is async-signal-safe, and nothing is allocated.
    unsafe {
        command.pre_exec(|| {
            Ok(setrlimit(
                Resource::RLIMIT_MSGQUEUE,
                QUEUE_BYTES,
                QUEUE_BYTES,
            )?)
        });
    }
}

/// Sets the soft limit of a process, and returns what it was.
pub fn limit(pid: Pid, resource: libc::__rlimit_resource_t, soft: u64) -> anyhow::Result<u64> {
    let mut was = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: a valid structure to write to; no new limit.
    let read = unsafe { libc::prlimit(pid.as_raw(), resource, std::ptr::null(), &raw mut was) };
    ensure!(read == 0, "prlimit: {}", std::io::Error::last_os_error());
    let new = libc::rlimit {
        rlim_cur: soft,
        ..was
    };
    // SAFETY: a valid structure to read from.
    let set =
        unsafe { libc::prlimit(pid.as_raw(), resource, &raw const new, std::ptr::null_mut()) };
    ensure!(set == 0, "prlimit: {}", std::io::Error::last_os_error());
    Ok(was.rlim_cur)
}

/// Bytes of address space that a process uses.
pub fn address_space(pid: Pid) -> anyhow::Result<u64> {
    let pages = std::fs::read_to_string(format!("/proc/{pid}/statm"))?;
    let pages: u64 = pages.split(' ').next().context("statm is empty")?.parse()?;
    Ok(pages * 4096)
}

/// Writes a file until its file system is full.
pub fn fill(path: &str) -> std::io::Result<()> {
    let mut file = std::fs::File::create(path)?;
    let mut block = &vec![1; 1 << 20][..];
    while !block.is_empty() {
        match std::io::Write::write(&mut file, block) {
            Ok(_) => {}
            // What a large block does not fit into may take a page.
            Err(e) if e.kind() == std::io::ErrorKind::StorageFull => {
                block = &block[..block.len() / 2]
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// A control group (version 1) of a process, until this is dropped.
#[derive(Debug)]
pub struct Group {
    path: PathBuf,
    /// Where the process was before.
    home: PathBuf,
    root: PathBuf,
    pid: Pid,
}

impl Group {
    /// Where the groups of a controller are, if new ones can be made there.
    fn root(controller: &str) -> Option<PathBuf> {
        let root = Path::new("/sys/fs/cgroup").join(controller);
        let trial = root.join(format!("rtd-faults-trial-{}", std::process::id()));
        std::fs::create_dir(&trial).ok()?;
        let usable = trial.join("cgroup.procs").exists();
        let _ = std::fs::remove_dir(&trial);
        usable.then_some(root)
    }

    /// Whether there can be groups of that controller.
    pub fn is_possible(controller: &str) -> bool {
        Group::root(controller).is_some()
    }

    /// Moves a process to a new group with these settings.
    fn of(pid: Pid, controller: &str, settings: &[(&str, String)]) -> anyhow::Result<Group> {
        let root = Group::root(controller).context("no control group can be made")?;
        let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        let home = groups.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            fields
                .next()?
                .split(',')
                .any(|c| c == controller)
                .then(|| fields.next())?
        });
        let home = root.join(
            home.context("no group of that controller")?
                .trim_start_matches('/'),
        );
        let path = root.join(format!("rtd-faults-{}", std::process::id()));
        std::fs::create_dir(&path).with_context(|| path.display().to_string())?;
        let group = Group {
            path,
            home,
            root,
            pid,
        };
        for (file, value) in settings {
            std::fs::write(group.path.join(file), value).with_context(|| (*file).to_owned())?;
        }
        std::fs::write(group.path.join("cgroup.procs"), pid.to_string()).context("cgroup.procs")?;
        Ok(group)
    }

    /// A group with little memory.
    pub fn of_little_memory(pid: Pid) -> anyhow::Result<Group> {
        Group::of(
            pid,
            "memory",
            &[("memory.limit_in_bytes", GROUP_BYTES.to_string())],
        )
    }

    /// A group that may run on one CPU only.
    pub fn of_cpu(pid: Pid, cpu: usize) -> anyhow::Result<Group> {
        Group::of(
            pid,
            "cpuset",
            &[
                ("cpuset.mems", "0".to_owned()),
                ("cpuset.cpus", cpu.to_string()),
            ],
        )
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The process may have ended; the group that it came from may be one that is not shown here.
        for group in [&self.home, &self.root] {
            if std::fs::write(group.join("cgroup.procs"), self.pid.to_string()).is_ok() {
                break;
            }
        }
        let start = Instant::now();
        // A process that has just ended keeps its group busy for a moment.
        while std::fs::remove_dir(&self.path).is_err() && start.elapsed() < Duration::from_secs(1) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// A step of the wall clock, which is taken back when this is dropped.
#[derive(Debug)]
pub struct ClockStep {
    seconds: i64,
}

impl ClockStep {
    /// Sets CLOCK_REALTIME forth or back.
    pub fn any(rng: &mut fastrand::Rng) -> anyhow::Result<ClockStep> {
        let seconds = CLOCK_STEPS_S[rng.usize(..CLOCK_STEPS_S.len())];
        step_clock(seconds)?;
        Ok(ClockStep { seconds })
    }
}

impl Drop for ClockStep {
    fn drop(&mut self) {
        if let Err(error) = step_clock(-self.seconds) {
            eprintln!("faults: the wall clock is {} s off: {error}", self.seconds);
        }
    }
}

fn step_clock(seconds: i64) -> anyhow::Result<()> {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: a valid structure to write to.
    let read = unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut now) };
    now.tv_sec += seconds;
    // SAFETY: a valid structure to read from.
    let set = unsafe { libc::clock_settime(libc::CLOCK_REALTIME, &raw const now) };
    ensure!(
        read == 0 && set == 0,
        "clock_settime: {}",
        std::io::Error::last_os_error()
    );
    Ok(())
}
