//! Who took the CPU from the threads of a run, by the kernel's trace (sched_switch) in an instance
//! of its own.
//!
//! The kernel counts how often a thread was preempted and does not say by whom. So the instance
//! records each switch away from a watched thread that wanted to run on, but those to a thread of
//! the run that is above it: those are what lanes are for, and there is one per message. What is
//! recorded is what has to be explained; the rest of the kernel's count was by lanes. A thread that
//! nothing in the run is above has no such rest.
//!
//! Constraint: needs tracefs, which root has, mounted or not. Invariant: the instance is gone when
//! this is.

#![forbid(unsafe_code)]

use crate::sys::tracefs;
use anyhow::{Context as _, bail};
use rtcore::stats::reader::{Reader, instances};
use rtcore::sys::procfs;
use std::path::{Path, PathBuf};

/// Priorities as the kernel's trace has them: from here on ordinary threads, and idling.
const ORDINARY_PRIO: u32 = 100;

/// Names of instances, before the pid of their maker.
const PREFIX: &str = "rtlat-";

/// A thread whose switches are watched.
#[derive(Clone, Debug)]
pub struct Watched {
    pub tid: u32,
    /// Threads of the run that are above it.
    pub above: Vec<u32>,
}

/// The kind of the thread that ran instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// A thread of the run's daemon that is no lane: its watchdog, or one that has inherited a
    /// priority (see `Heir`).
    Daemon,
    /// One of the kernel's own, of higher priority: migration/N of the stop class, an interrupt's
    /// thread.
    Kernel,
    /// An ordinary thread, or none: the kernel keeps a share of the CPU from real-time threads.
    Ordinary,
    /// A thread of the run that is below, at a priority it has inherited: it holds a lock of the
    /// kernel's that the watched one waits for. On PREEMPT_RT most of the kernel's locks are such.
    Heir,
    /// A thread of the run that is below, at its own priority.
    Below,
    /// Another thread of higher or equal priority, no part of the run.
    Stranger,
}

/// A switch that was recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Switch {
    pub at_ns: u64,
    /// The thread that wanted to run on.
    pub from: u32,
    /// The thread that ran instead; for a thread outside the run also its daemon or process.
    pub name: String,
    /// See [`By`].
    pub by: By,
}

#[derive(Debug)]
pub struct Trace {
    directory: PathBuf,
    /// The mount of this process, if tracefs is not mounted on the machine.
    _mount: Option<tracefs::Detached>,
}

impl Trace {
    /// Makes one. An error says why nobody will know.
    pub fn open() -> anyhow::Result<Trace> {
        let (root, mount) = match tracefs::directory() {
            Some(root) => (root, None),
            None => {
                let mount = tracefs::Detached::mount()?;
                (mount.path(), Some(mount))
            }
        };
        let instances = root.join("instances");
        sweep(&instances);
        let directory = instances.join(format!("{PREFIX}{}", std::process::id()));
        std::fs::create_dir(&directory).with_context(|| directory.display().to_string())?;
        let trace = Trace {
            directory,
            _mount: mount,
        };
        trace.set("trace_clock", "mono")?;
        Ok(trace)
    }

    /// Records the switches away from these threads from now on, and forgets those before.
    pub fn watch(&self, threads: &[Watched]) -> anyhow::Result<()> {
        self.set("events/sched/sched_switch/enable", "0")?;
        self.set("events/sched/sched_switch/filter", &filter(threads))?;
        // Opened for writing it is emptied.
        self.set("trace", "")?;
        self.set("events/sched/sched_switch/enable", "1")
    }

    /// The recorded preemptions in a run of this daemon and these threads.
    pub fn read(&self, daemon_pid: u32, threads: &[u32]) -> anyhow::Result<Vec<Switch>> {
        self.set("events/sched/sched_switch/enable", "0")?;
        let lost = self.lost()?;
        if lost > 0 {
            bail!("the kernel's trace lost {lost} switches: its buffer is full");
        }
        let text = self.get("trace")?;
        text.lines()
            .filter(|line| !line.starts_with('#') && !line.trim().is_empty())
            .map(|line| {
                let whose = |tid| {
                    if threads.contains(&tid) {
                        By::Below
                    } else {
                        whose(daemon_pid, tid)
                    }
                };
                parse(line, whose).with_context(|| format!("trace: {line:?}"))
            })
            .collect()
    }

    fn lost(&self) -> anyhow::Result<u64> {
        let mut lost = 0;
        for cpu in std::fs::read_dir(self.directory.join("per_cpu"))? {
            let text = std::fs::read_to_string(cpu?.path().join("stats"))?;
            let counts = text.lines().filter_map(|line| line.split_once(": "));
            let counts = counts.filter(|(key, _)| matches!(*key, "overrun" | "dropped events"));
            lost += counts
                .filter_map(|(_, count)| count.parse::<u64>().ok())
                .sum::<u64>();
        }
        Ok(lost)
    }

    fn set(&self, file: &str, text: &str) -> anyhow::Result<()> {
        let path = self.directory.join(file);
        std::fs::write(&path, text).with_context(|| format!("{}: {text:?}", path.display()))
    }

    fn get(&self, file: &str) -> anyhow::Result<String> {
        let path: &Path = &self.directory.join(file);
        // Names of threads stand in it, which are any bytes.
        let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.directory);
    }
}

/// Removes what killed runs have left: a trace costs the whole machine.
fn sweep(instances: &Path) {
    for entry in std::fs::read_dir(instances).into_iter().flatten().flatten() {
        let pid = entry
            .file_name()
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX)?.parse::<u32>().ok());
        if pid.is_some_and(|pid| procfs::is_kernel_thread(pid).is_none()) {
            let _ = std::fs::remove_dir(entry.path());
        }
    }
}

/// The kernel's filter. State: below the bits for "preempted", 0 is "wanted to run on".
fn filter(threads: &[Watched]) -> String {
    let one = |thread: &Watched| {
        let above: String = thread
            .above
            .iter()
            .map(|tid| format!(" && next_pid != {tid}"))
            .collect();
        format!("(prev_pid == {}{above} && !(prev_state & 255))", thread.tid)
    };
    threads.iter().map(one).collect::<Vec<_>>().join(" || ")
}

fn whose(daemon_pid: u32, tid: u32) -> By {
    if std::path::Path::new(&format!("/proc/{daemon_pid}/task/{tid}")).exists() {
        By::Daemon
    } else if procfs::is_kernel_thread(tid) == Some(true) {
        By::Kernel
    } else {
        By::Stranger
    }
}

/// `comm-tid [cpu] flags SECONDS.MICROS: sched_switch: prev_comm=.. prev_pid=.. prev_prio=..
/// prev_state=.. ==> next_comm=.. next_pid=.. next_prio=..`; a name may have anything in it.
fn parse(line: &str, whose: impl Fn(u32) -> By) -> Option<Switch> {
    let (head, event) = line.split_once(": sched_switch: ")?;
    let (seconds, micros) = head.rsplit_once(' ')?.1.split_once('.')?;
    let at_ns = seconds.parse::<u64>().ok()? * 1_000_000_000 + micros.parse::<u64>().ok()? * 1000;
    let (prev, next) = event.rsplit_once(" ==> next_comm=")?;
    let (prev, prev_prio) = prev.rsplit_once(" prev_prio=")?;
    let prev_prio: u32 = prev_prio.split_once(' ')?.0.parse().ok()?;
    let from = prev.rsplit_once(" prev_pid=")?.1.parse().ok()?;
    let (next, prio) = next.rsplit_once(" next_prio=")?;
    let prio: u32 = prio.trim().parse().ok()?;
    let (name, tid) = next.rsplit_once(" next_pid=")?;
    let by = match tid.parse().ok()? {
        _ if prio >= ORDINARY_PRIO => By::Ordinary,
        tid => match whose(tid) {
            // The trace has priorities as they are at the time; less is more urgent.
            By::Below if prio <= prev_prio => By::Heir,
            by => by,
        },
    };
    let name = if by == By::Stranger {
        stranger(name, tid.parse().ok()?)
    } else {
        name.to_owned()
    };
    Some(Switch {
        at_ns,
        from,
        name,
        by,
    })
}

/// A stranger's thread: of which daemon, or of which process.
fn stranger(name: &str, tid: u32) -> String {
    let is_of = |pid: u32| Path::new(&format!("/proc/{pid}/task/{tid}")).exists();
    let daemon = |instance: String| {
        let pid = Reader::open(&instance).ok()?.pid();
        is_of(pid).then(|| format!("{name} of rtd \"{instance}\" (pid {pid})"))
    };
    instances()
        .into_iter()
        .find_map(daemon)
        .unwrap_or_else(|| format!("{name} (thread {tid})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "  rtlat-sender-17    [001] d..2.  1234.000567: sched_switch: prev_comm=a prev_pid=1 ==> x prev_pid=17 \
                        prev_prio=30 prev_state=R+ ==> next_comm=";

    #[test]
    fn a_switch_is_read_whatever_the_names_are() {
        let of = |next: &str| {
            let whose = |tid| match tid {
                ..100 => By::Kernel,
                200 => By::Below,
                _ => By::Stranger,
            };
            parse(&format!("{LINE}{next}"), whose).unwrap()
        };
        let switch = of("migration/1 next_pid=18 next_prio=0");
        assert_eq!((switch.at_ns, switch.from), (1_234_000_567_000, 17));
        assert_eq!(
            (switch.name.as_str(), switch.by),
            ("migration/1", By::Kernel)
        );
        assert_eq!(of("swapper/1 next_pid=0 next_prio=120").by, By::Ordinary);
        assert_eq!(of("rtlat-sender next_pid=200 next_prio=31").by, By::Below);
        assert_eq!(of("rtlat-sender next_pid=200 next_prio=30").by, By::Heir);
        let stranger = of("a next_pid=5 b next_pid=4711 next_prio=9");
        assert_eq!(
            (stranger.name.as_str(), stranger.by),
            ("a next_pid=5 b (thread 4711)", By::Stranger)
        );
        assert_eq!(parse("CPU:1 [LOST 3 EVENTS]", |_| By::Stranger), None);
    }

    #[test]
    fn only_what_is_not_above_is_recorded() {
        let threads = [
            Watched {
                tid: 7,
                above: vec![8, 9],
            },
            Watched {
                tid: 9,
                above: vec![],
            },
        ];
        let expected = "(prev_pid == 7 && next_pid != 8 && next_pid != 9 && !(prev_state & 255)) || \
                        (prev_pid == 9 && !(prev_state & 255))";
        assert_eq!(filter(&threads), expected);
    }
}
