//! CPUs: those that exist, that are allowed and that are isolated.
//!
//! The allowed ones are found by trying: a thread requests every CPU and reads the kernel's answer.
//! The current mask is not enough, because isolated CPUs are missing from it although a thread may
//! still move there; the kernel's answer also has the cpuset of the control group in it.

use super::memory::PROBE_STACK_BYTES;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use std::io;

/// Largest CPU number + 1 that an affinity mask of the C library holds.
pub const CPUS_MAX: usize = 1024;

const ONLINE: &str = "/sys/devices/system/cpu/online";
/// `isolcpus=` on the kernel command line.
const ISOLATED_BOOT: &str = "/sys/devices/system/cpu/isolated";
/// Isolated partitions of control groups.
const ISOLATED_CGROUP: &str = "/sys/fs/cgroup/cpuset.cpus.isolated";

/// CPUs that are online.
pub fn online() -> io::Result<Vec<usize>> {
    read_list(ONLINE)
}

/// CPUs that the scheduler leaves alone, at boot or by an isolated control-group partition.
///
/// An error when neither file can be read: then it is not known.
pub fn isolated() -> io::Result<Vec<usize>> {
    let (boot, cgroup) = (read_list(ISOLATED_BOOT), read_list(ISOLATED_CGROUP));
    let mut cpus = match (boot, cgroup) {
        (Ok(mut boot), Ok(cgroup)) => {
            boot.extend(cgroup);
            boot
        }
        (Ok(one), Err(_)) | (Err(_), Ok(one)) => one,
        (Err(e), Err(_)) => return Err(e),
    };
    cpus.sort_unstable();
    cpus.dedup();
    Ok(cpus)
}

/// CPUs that a thread of this process can be pinned to.
///
/// Asks on a thread of its own, which ends at once: the caller's mask stays as it is.
pub fn allowed() -> io::Result<Vec<usize>> {
    let probe = std::thread::Builder::new()
        .name("cpu-probe".to_owned())
        .stack_size(PROBE_STACK_BYTES);
    let join = probe.spawn(|| -> io::Result<Vec<usize>> {
        let this = Pid::from_raw(0);
        let mut all = CpuSet::new();
        for cpu in 0..CPUS_MAX {
            all.set(cpu)?;
        }
        // A refusal (seccomp, for one) still leaves the current mask as the answer.
        let _ = sched_setaffinity(this, &all);
        let got = sched_getaffinity(this).map_err(|e| {
            io::Error::new(io::Error::from(e).kind(), format!("sched_getaffinity: {e}"))
        })?;
        Ok((0..CPUS_MAX)
            .filter(|cpu| got.is_set(*cpu).unwrap_or(false))
            .collect())
    })?;
    join.join().unwrap_or_else(|_| {
        Err(io::Error::other(
            "the thread that asks for the CPUs panicked",
        ))
    })
}

/// CPUs to choose from for who names none: the mask the caller was given (taskset(1), a service
/// manager). One that nobody narrowed lacks the isolated CPUs; then it is all that are [`allowed`].
pub fn given() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(0))?;
    let mask: Vec<usize> = (0..CPUS_MAX)
        .filter(|cpu| set.is_set(*cpu).unwrap_or(false))
        .collect();
    let (allowed, isolated) = (allowed()?, isolated().unwrap_or_default());
    let is_whole = allowed
        .iter()
        .all(|cpu| mask.contains(cpu) || isolated.contains(cpu));
    Ok(if is_whole { allowed } else { mask })
}

/// CPUs that share a core with this one, itself among them
/// (Documentation/admin-guide/cputopology.rst).
pub fn siblings(cpu: usize) -> io::Result<Vec<usize>> {
    read_list(&format!(
        "/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
    ))
}

fn read_list(path: &str) -> io::Result<Vec<usize>> {
    let text = std::fs::read_to_string(path).map_err(|e| super::context::named(path, e))?;
    parse_list(&text).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{path}: `{}` is not a list of CPUs", text.trim()),
        )
    })
}

/// Reads the kernel's list form: `0-3,8,10-11`, or nothing at all.
pub fn parse_list(text: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last >= CPUS_MAX * 64 {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

/// Writes the kernel's list form.
pub fn show_list(cpus: &[usize]) -> String {
    let mut sorted = cpus.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for cpu in sorted {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == cpu => *last = cpu,
            _ => runs.push((cpu, cpu)),
        }
    }
    let show = |(a, b): &(usize, usize)| {
        if a == b {
            a.to_string()
        } else {
            format!("{a}-{b}")
        }
    };
    if runs.is_empty() {
        "none".to_owned()
    } else {
        runs.iter().map(show).collect::<Vec<_>>().join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_written_in_the_kernels_form() {
        assert_eq!(
            parse_list("0-3,8,10-11\n"),
            Some(vec![0, 1, 2, 3, 8, 10, 11])
        );
        assert_eq!(parse_list("\n"), Some(vec![]));
        assert_eq!(parse_list("3-1"), None);
        assert_eq!(parse_list("0-99999999999"), None);
        assert_eq!(parse_list("zero"), None);
        assert_eq!(show_list(&[11, 0, 1, 2, 3, 8, 10, 3]), "0-3,8,10-11");
        assert_eq!(show_list(&[]), "none");
    }

    #[test]
    fn asking_leaves_the_callers_mask_alone_and_finds_an_online_cpu() {
        let before = sched_getaffinity(Pid::from_raw(0)).unwrap();
        let allowed = allowed().unwrap();
        assert_eq!(before, sched_getaffinity(Pid::from_raw(0)).unwrap());
        assert!(!allowed.is_empty());
        if let Ok(online) = online() {
            assert!(
                allowed.iter().all(|cpu| online.contains(cpu)),
                "{allowed:?} in {online:?}"
            );
        }
    }
}
