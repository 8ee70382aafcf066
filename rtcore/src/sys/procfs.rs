//! Data of /proc about a process: credentials, groups, executable, threads.
//!
//! Constraint: every answer is about the process that has the pid *now*. A caller with a pidfd
//! checks afterwards that the process still exists; only then was the answer about that process.
//! Allocates; control thread and tools only. Invariant: nothing here waits for the process. An
//! execve(2) of its own holds the kernel's `exec_update_lock` for as long as a file that it closes
//! takes to be flushed, which on a network file system or one in user space may be for ever;
//! `environ`, `maps`, `mem`, `io`, `stack` and `syscall` of /proc/PID wait for that lock, and are
//! not read here. `status`, `stat`, `exe` and `task` do not.

use super::clock::monotonic_ns;
use super::memory::ThreadUsage;
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// How long a thread that has ended may still be listed.
const LISTED_NS: u64 = 1_000_000_000;
const LISTED_LOOK: Duration = Duration::from_millis(1);

pub(crate) use super::context::named;

/// Reads a file of /proc in which a process or thread name may stand. A name is any bytes
/// (prctl(2), PR_SET_NAME); what is not UTF-8 is replaced, and everything else is ASCII.
pub(super) fn text(path: impl AsRef<Path>) -> io::Result<String> {
    let bytes = std::fs::read(path)?;
    Ok(String::from_utf8(bytes)
        .unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
}

/// The text after `key:` in a file that has a line for each key, such as status, meminfo and
/// fdinfo.
pub fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    Some(value.strip_prefix('\t').unwrap_or(value))
}

/// The first number behind `key:`, without the unit that may follow.
pub fn number<T: FromStr>(text: &str, key: &str) -> Option<T> {
    field(text, key)?
        .split_ascii_whitespace()
        .next()?
        .parse()
        .ok()
}

/// All numbers behind `key:`.
pub(super) fn numbers<T: FromStr>(text: &str, key: &str) -> Option<Vec<T>> {
    field(text, key)?
        .split_ascii_whitespace()
        .map(|word| word.parse().ok())
        .collect()
}

/// The mask behind `key:`, which is hexadecimal.
pub(super) fn mask(text: &str, key: &str) -> Option<u64> {
    u64::from_str_radix(field(text, key)?, 16).ok()
}

/// The lines of /proc/PID/status (proc_pid_status(5)) with the identity of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Thread group; differs from the number asked for when that is a thread.
    pub tgid: i32,
    /// `R`, `S`, `Z` ...
    pub state: char,
    /// Real user id.
    pub ruid: u32,
    /// Effective user id.
    pub euid: u32,
    /// Saved user id.
    pub suid: u32,
    /// Effective group id.
    pub egid: u32,
    pub groups: Vec<u32>,
}

/// Reads /proc/PID/status.
pub fn status(pid: i32) -> io::Result<Status> {
    let path = format!("/proc/{pid}/status");
    let text = text(&path).map_err(|e| named(&path, e))?;
    parse_status(&text).ok_or_else(|| {
        named(
            &path,
            io::Error::new(io::ErrorKind::InvalidData, "lines are missing"),
        )
    })
}

fn parse_status(text: &str) -> Option<Status> {
    let uids = numbers(text, "Uid")?;
    Some(Status {
        tgid: number(text, "Tgid")?,
        state: field(text, "State")?.chars().next()?,
        ruid: *uids.first()?,
        euid: *uids.get(1)?,
        suid: *uids.get(2)?,
        egid: *numbers(text, "Gid")?.get(1)?,
        groups: numbers(text, "Groups")?,
    })
}

/// Faults and context switches of any thread so far, as
/// [`memory::thread_usage`](super::memory::thread_usage) says them of the calling one.
///
/// Errors: ENOENT, and ESRCH when it ends meanwhile; ENODATA for a file without these figures.
pub fn thread_usage(pid: u32, tid: u32) -> io::Result<ThreadUsage> {
    let read = |file: &str| {
        let path = format!("/proc/{pid}/task/{tid}/{file}");
        text(&path).map_err(|e| named(&path, e))
    };
    let usage = parse_usage(&read("stat")?, &read("status")?);
    usage.ok_or_else(|| {
        named(
            format!("/proc/{pid}/task/{tid}"),
            io::Error::from_raw_os_error(libc::ENODATA),
        )
    })
}

fn parse_usage(stat: &str, status: &str) -> Option<ThreadUsage> {
    let fields: Vec<&str> = behind_name(stat)?.split_whitespace().collect();
    // Field 3 of the man page is the first here.
    let field = |number: usize| fields.get(number - 3)?.parse().ok();
    Some(ThreadUsage {
        minor_faults: field(10)?,
        major_faults: field(12)?,
        voluntary_switches: number(status, "voluntary_ctxt_switches")?,
        involuntary_switches: number(status, "nonvoluntary_ctxt_switches")?,
    })
}

/// Whether the thread of this number is the kernel's own (PF_KTHREAD); none when there is no such
/// thread.
pub fn is_kernel_thread(tid: u32) -> Option<bool> {
    const PF_KTHREAD: u64 = 0x0020_0000;
    let stat = text(format!("/proc/{tid}/stat")).ok()?;
    let flags: u64 = behind_name(&stat)?
        .split_whitespace()
        .nth(9 - 3)?
        .parse()
        .ok()?;
    Some(flags & PF_KTHREAD != 0)
}

/// The part of /proc/PID/stat after the name, which may contain blanks, parentheses and newlines.
fn behind_name(stat: &str) -> Option<&str> {
    stat.rsplit_once(')').map(|(_, rest)| rest)
}

/// POSIX process group and session (credentials(7)) of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Groups {
    /// Process group; 0 when its leader is in a pid namespace that we cannot see.
    pub pgid: i32,
    /// Session; 0 as above.
    pub sid: i32,
}

/// Reads process group and session from /proc/PID/stat (proc_pid_stat(5)).
pub fn groups(pid: i32) -> io::Result<Groups> {
    let path = format!("/proc/{pid}/stat");
    let text = text(&path).map_err(|e| named(&path, e))?;
    parse_groups(&text).ok_or_else(|| {
        named(
            &path,
            io::Error::new(io::ErrorKind::InvalidData, "fields are missing"),
        )
    })
}

fn parse_groups(stat: &str) -> Option<Groups> {
    let mut fields = behind_name(stat)?.split_ascii_whitespace().skip(2);
    let mut number = || fields.next()?.parse::<i32>().ok();
    Some(Groups {
        pgid: number()?,
        sid: number()?,
    })
}

/// When the process was started, in clock ticks since the machine was: with the pid it names one
/// process of this boot.
pub fn start_ticks(pid: i32) -> io::Result<u64> {
    let path = format!("/proc/{pid}/stat");
    let stat = text(&path)?;
    parse_start_ticks(&stat).ok_or_else(|| {
        named(
            &path,
            io::Error::new(io::ErrorKind::InvalidData, "fields are missing"),
        )
    })
}

/// Field 22 (proc_pid_stat(5)); the first behind the name is field 3.
fn parse_start_ticks(stat: &str) -> Option<u64> {
    behind_name(stat)?
        .split_ascii_whitespace()
        .nth(22 - 3)?
        .parse()
        .ok()
}

/// Identifies the scope in which pids have their meaning for this process: the boot of the machine
/// and this pid namespace.
pub fn pid_scope() -> io::Result<String> {
    const BOOT: &str = "/proc/sys/kernel/random/boot_id";
    const NAMESPACE: &str = "/proc/self/ns/pid";
    let boot = std::fs::read_to_string(BOOT).map_err(|e| named(BOOT, e))?;
    let namespace = std::fs::read_link(NAMESPACE).map_err(|e| named(NAMESPACE, e))?;
    Ok(format!("boot {} {}", boot.trim(), namespace.display()))
}

/// Path of the program the process runs, as seen from here; ends in ` (deleted)` when the file was
/// replaced since. For messages: a mount namespace can make it read as anything, see [`runs`].
pub fn exe(pid: i32) -> io::Result<PathBuf> {
    let link = format!("/proc/{pid}/exe");
    std::fs::read_link(&link).map_err(|e| named(&link, e))
}

/// Whether the process runs the very file at `program`.
///
/// Compares the files, not the paths: a mount namespace of one's own is enough to make the path
/// read as anything (tried), the device and inode behind the link are the kernel's.
pub fn runs(pid: i32, program: &Path) -> io::Result<bool> {
    let link = format!("/proc/{pid}/exe");
    Ok(file_id(Path::new(&link))? == file_id(program)?)
}

/// Device and inode, as far as they are known without asking a file server, which may never answer:
/// the process chooses from which file system it runs.
fn file_id(path: &Path) -> io::Result<(u32, u32, u64)> {
    let found = statx(CWD, path, AtFlags::STATX_DONT_SYNC, StatxFlags::INO);
    let found = found.map_err(|e| named(path.display(), e))?;
    Ok((found.stx_dev_major, found.stx_dev_minor, found.stx_ino))
}

/// Whether `tid` is a thread of `pid`.
pub fn has_thread(pid: i32, tid: i32) -> bool {
    Path::new(&format!("/proc/{pid}/task/{tid}")).exists()
}

/// Signal masks of one thread of this process in /proc.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadMask {
    pub tid: i32,
    /// Name as `ps -L` shows it.
    pub comm: String,
    /// Blocked signals; bit n-1 is signal n. Those that a sleeping sigwaitinfo(2) or ppoll(2) lets
    /// through are not among them.
    pub blocked: u64,
}

/// The threads of this process that can still take a signal, each with its mask.
pub fn thread_masks() -> io::Result<Vec<ThreadMask>> {
    const TASKS: &str = "/proc/self/task";
    let mut masks = Vec::new();
    for entry in std::fs::read_dir(TASKS).map_err(|e| named(TASKS, e))? {
        let entry = entry.map_err(|e| named(TASKS, e))?;
        let Some(tid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        // One that has ended since the directory was read takes no signal any more.
        let Ok(text) = text(entry.path().join("status")) else {
            continue;
        };
        masks.extend(parse_mask(tid, &text));
    }
    Ok(masks)
}

/// None for a thread that has ended but is still listed, as the first one of a process may be, or
/// is about to: one that has given up its signal state already shows an empty mask, and zero
/// threads.
fn parse_mask(tid: i32, text: &str) -> Option<ThreadMask> {
    if field(text, "State")?.starts_with(['Z', 'X']) || field(text, "Threads")? == "0" {
        return None;
    }
    Some(ThreadMask {
        tid,
        comm: field(text, "Name")?.to_owned(),
        blocked: mask(text, "SigBlk")?,
    })
}

/// Wait status of a process that ended and was not reaped yet, when we may see it (proc_pid_stat(5)
/// shows 0 to a process that may not).
pub(super) fn zombie_wait_status(pid: i32) -> Option<i32> {
    let stat = text(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = behind_name(&stat)?.split_whitespace();
    let zombie = fields.next()? == "Z";
    let wait_status: i32 = fields.next_back()?.parse().ok()?;
    (zombie && (wait_status != 0 || effective_uid() == 0)).then_some(wait_status)
}

/// Whether the process, with all its threads, is about to end: it closes its descriptors, and its
/// pidfd does not show its end yet.
pub fn is_exiting(pid: i32) -> io::Result<bool> {
    let path = format!("/proc/{pid}/task");
    for thread in std::fs::read_dir(&path).map_err(|e| named(&path, e))? {
        let stat = thread.map_err(|e| named(&path, e))?.path().join("stat");
        // A thread that is gone by now was exiting.
        let Ok(text) = text(&stat) else { continue };
        if exiting(&text) == Some(false) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether somebody sent the process SIGKILL that it has not taken yet: it is about to exit
/// (proc_pid_status(5)).
pub fn is_killed(pid: i32) -> io::Result<bool> {
    let path = format!("/proc/{pid}/status");
    let status = text(&path)?;
    let pending = ["SigPnd", "ShdPnd"]
        .iter()
        .filter_map(|key| mask(&status, key));
    Ok(pending.fold(0, |all, mask| all | mask) >> (libc::SIGKILL - 1) & 1 == 1)
}

/// PF_EXITING among the flags, the seventh field behind the name (proc_pid_stat(5),
/// include/linux/sched.h).
fn exiting(stat: &str) -> Option<bool> {
    const PF_EXITING: u64 = 4;
    let flags: u64 = behind_name(stat)?.split_whitespace().nth(6)?.parse().ok()?;
    Some(flags & PF_EXITING != 0)
}

/// The numbers of a process in the pid namespaces that it is in (`NSpid` of proc_pid_status(5)),
/// beginning with the one that this /proc shows: several for a process in a namespace below ours,
/// whose own number is the last.
///
/// Errors: those of /proc.
pub fn namespace_pids(pid: i32) -> io::Result<Vec<i32>> {
    namespace_numbers(&format!("/proc/{pid}/status"), pid)
}

fn namespace_numbers(path: &str, number: i32) -> io::Result<Vec<i32>> {
    let text = text(path).map_err(|e| named(path, e))?;
    let line = field(&text, "NSpid");
    // A kernel without pid namespaces has no such line.
    Ok(line.map_or(vec![number], |line| {
        line.split_whitespace()
            .filter_map(|n| n.parse().ok())
            .collect()
    }))
}

/// Our number of the thread of `pid` that has this number in the innermost pid namespace of the
/// process.
pub fn thread_of_namespace(pid: i32, inner: i32) -> io::Result<Option<i32>> {
    let tasks = format!("/proc/{pid}/task");
    for entry in std::fs::read_dir(&tasks).map_err(|e| named(&tasks, e))? {
        let name = entry.map_err(|e| named(&tasks, e))?.file_name();
        let Some(tid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        // A thread that has ended meanwhile is not the one.
        let numbers = namespace_numbers(&format!("{tasks}/{tid}/status"), tid).unwrap_or_default();
        if numbers.last() == Some(&inner) {
            return Ok(Some(tid));
        }
    }
    Ok(None)
}

/// Inode of a process's namespace of a kind; none if this process may not read it (ptrace(2)).
pub fn namespace(pid: i32, kind: &str) -> Option<u64> {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(format!("/proc/{pid}/ns/{kind}"))
        .ok()
        .map(|ns| ns.ino())
}

/// Inode of this process' namespace of a kind (`ipc`, `pid`: namespaces(7)); 0 where the kernel has
/// none, or /proc is not there.
pub fn own_namespace(kind: &str) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(format!("/proc/self/ns/{kind}")).map_or(0, |ns| ns.ino())
}

/// How many threads this process has, for callers that must be the only one.
///
/// Not those that have ended: the kernel lists a thread for a while after the thread that joined it
/// went on, and there is no event for the end of that. So several are looked for again, for a
/// second.
pub fn lasting_threads() -> io::Result<usize> {
    const TASKS: &str = "/proc/self/task";
    let until_ns = monotonic_ns() + LISTED_NS;
    loop {
        let threads = std::fs::read_dir(TASKS)
            .map_err(|e| named(TASKS, e))?
            .count();
        if threads == 1 || monotonic_ns() > until_ns {
            return Ok(threads);
        }
        std::thread::sleep(LISTED_LOOK);
    }
}

/// Our own effective user id.
pub fn effective_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt as _;
    use std::process::{Command, Stdio};

    #[test]
    fn our_own_status_is_readable() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let status = status(pid).unwrap();
        assert_eq!(status.tgid, pid);
        assert_eq!(status.euid, effective_uid());
        assert!(has_thread(pid, pid));
        assert!(!has_thread(pid, 1));
    }

    #[test]
    fn groups_are_those_of_getpgid_and_getsid() {
        let mut child = Command::new("/bin/sleep")
            .arg("10")
            .process_group(0)
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let ours = groups(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert_eq!(
            groups(pid).unwrap(),
            Groups {
                pgid: pid,
                sid: ours.sid
            }
        );
        assert_ne!(ours.pgid, pid);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(groups(pid).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_hostile_name_does_not_shift_the_fields() {
        assert_eq!(
            parse_groups("7 (a) S 1 2 3 (\n) S 1 40 50 0 -1"),
            Some(Groups { pgid: 40, sid: 50 })
        );
        assert_eq!(
            parse_groups("7 (x) Z 1 -1 -1 0"),
            Some(Groups { pgid: -1, sid: -1 })
        );
        for broken in [
            "",
            "7 (x",
            "7 (x) S 1 2",
            "7 (x) S 1 y 3",
            "7 (x) S 1 99999999999 3",
        ] {
            assert_eq!(parse_groups(broken), None);
        }
    }

    #[test]
    fn a_name_that_is_not_utf_8_hides_nothing() {
        std::thread::spawn(|| {
            std::fs::write("/proc/thread-self/comm", b"arm \xff) \xc3").unwrap();
            let (pid, tid) = (std::process::id(), crate::sys::sched::gettid());
            let number = i32::try_from(pid).unwrap();
            assert_eq!(status(tid).unwrap().tgid, number);
            assert_eq!(is_kernel_thread(tid.unsigned_abs()), Some(false));
            assert_eq!(groups(tid).unwrap(), groups(number).unwrap());
            // The stack may be that of an earlier thread; this memory is new.
            std::hint::black_box(vec![1_u8; 1 << 20]);
            assert!(thread_usage(pid, tid.unsigned_abs()).unwrap().minor_faults > 0);
            let mask = thread_masks()
                .unwrap()
                .into_iter()
                .find(|mask| mask.tid == tid)
                .unwrap();
            assert_eq!(mask.comm, "arm \u{fffd}) \u{fffd}");
            assert!(!is_exiting(number).unwrap());
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_start_time_is_the_processs_own() {
        let own = start_ticks(i32::try_from(std::process::id()).unwrap()).unwrap();
        let mut child = Command::new("/bin/sleep").arg("10").spawn().unwrap();
        let of_child = start_ticks(i32::try_from(child.id()).unwrap()).unwrap();
        assert!(of_child >= own && own > 0);
        child.kill().unwrap();
        child.wait().unwrap();
        let hostile = "7 (a) 22) S 1 40 50 0 -1 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20";
        assert_eq!(parse_start_ticks(hostile), Some(4242));
        assert_eq!(parse_start_ticks("7 (x) S 1 2 3"), None);
        assert!(pid_scope().unwrap().contains("pid:["));
    }

    #[test]
    fn a_status_with_missing_lines_is_no_status() {
        assert_eq!(parse_status(""), None);
        assert_eq!(
            parse_status("Tgid:\t1\nState:\tS\nUid:\t1\nGid:\t1 1 1 1\nGroups:\t\n"),
            None
        );
        let full =
            "Tgid:\t7\nState:\tZ (zombie)\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t9 10 \n";
        let parsed = parse_status(full).unwrap();
        assert_eq!(
            (parsed.ruid, parsed.euid, parsed.suid, parsed.egid),
            (1, 2, 3, 6)
        );
        assert_eq!((parsed.state, parsed.groups), ('Z', vec![9, 10]));
    }

    #[test]
    fn every_living_thread_shows_its_name_and_mask() {
        std::thread::Builder::new()
            .name("masked".to_owned())
            .spawn(|| {
                crate::sys::epoll::block_signals(1 << 49).unwrap();
                let own = crate::sys::sched::gettid();
                let masks = thread_masks().unwrap();
                let found = masks.iter().find(|mask| mask.tid == own).unwrap();
                assert_eq!(
                    (found.comm.as_str(), found.blocked >> 49 & 1),
                    ("masked", 1)
                );
            })
            .unwrap()
            .join()
            .unwrap();
        let ended = "Name:\tx\nState:\tZ (zombie)\nThreads:\t2\nSigBlk:\t0000000000000000\n";
        assert_eq!(parse_mask(1, ended), None);
        let ending = "Name:\tx\nState:\tR (running)\nThreads:\t0\nSigBlk:\t0000000000000000\n";
        assert_eq!(parse_mask(1, ending), None);
        let running = "Name:\ta b\nState:\tR (running)\nThreads:\t2\nSigBlk:\t0000000200000001\n";
        let parsed = parse_mask(7, running).unwrap();
        assert_eq!(
            (parsed.tid, parsed.comm.as_str(), parsed.blocked),
            (7, "a b", 0x2_0000_0001)
        );
    }

    #[test]
    fn a_zombie_is_exiting_and_we_are_not() {
        let mut child = Command::new("/bin/true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let fd = crate::sys::pidfd::PidFd::open(pid).unwrap();
        while fd.is_alive() {
            std::thread::yield_now();
        }
        assert!(is_exiting(pid).unwrap());
        child.wait().unwrap();
        assert!(!is_exiting(i32::try_from(std::process::id()).unwrap()).unwrap());
        assert_eq!(exiting("1 (a b) c) S 1 2 3 4 5"), None);
    }

    #[test]
    fn the_same_file_under_another_name_is_the_same_program() {
        let mut child = Command::new("/bin/sleep")
            .arg("10")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let real = std::fs::canonicalize("/bin/sleep").unwrap();
        assert!(runs(pid, &real).unwrap());
        assert!(runs(pid, Path::new("/bin/sleep")).unwrap());
        assert!(!runs(pid, Path::new("/bin/sh")).unwrap());
        assert_eq!(exe(pid).unwrap(), real);
        child.kill().unwrap();
        child.wait().unwrap();
        let gone = runs(pid, &real).unwrap_err();
        assert!(
            gone.to_string().contains(&format!("/proc/{pid}/exe")),
            "{gone}"
        );
    }
}
