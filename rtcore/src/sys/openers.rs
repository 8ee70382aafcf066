//! The processes that have a file open (proc_pid_fd(5)), for tools that must not take other
//! programs' messages.
//!
//! Constraint: /proc shows the descriptors of the caller's own processes; those of other users only
//! to root (CAP_SYS_PTRACE), and those of other pid namespaces to nobody. Processes that could not
//! be examined are counted.

use super::printable::printable;
use super::procfs::field;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt as _;

/// A process that has the file open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opener {
    pub pid: i32,
    /// Its name, as comm(5) shows it.
    pub comm: String,
    /// It can read: it opened the file for reading, or for both.
    pub reads: bool,
}

/// The result of the search in /proc.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Openers {
    /// Processes that have the file open, without the caller's.
    pub found: Vec<Opener>,
    /// Processes whose descriptors this user may not see.
    pub hidden: usize,
}

/// The other processes that have the file of this descriptor open.
pub fn of(file: &impl AsFd) -> io::Result<Openers> {
    let own = fs::metadata(format!("/proc/self/fd/{}", file.as_fd().as_raw_fd()))?;
    let (dev, ino) = (own.dev(), own.ino());
    let mut openers = Openers::default();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<i32>().ok())
        else {
            continue;
        };
        if pid.unsigned_abs() == std::process::id() {
            continue;
        }
        let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else {
            // One that has ended meanwhile has nothing open.
            openers.hidden += usize::from(entry.path().exists());
            continue;
        };
        let mut holds = descriptors.flatten().filter(|descriptor| {
            fs::metadata(descriptor.path()).is_ok_and(|file| (file.dev(), file.ino()) == (dev, ino))
        });
        let Some(first) = holds.next() else { continue };
        let reads = std::iter::once(first).chain(holds).any(|descriptor| {
            let number = descriptor.file_name().to_string_lossy().into_owned();
            fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}"))
                .is_ok_and(|info| is_read(&info))
        });
        let comm = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
        let comm = printable(&String::from_utf8_lossy(comm.trim_ascii_end()));
        openers.found.push(Opener { pid, comm, reads });
    }
    Ok(openers)
}

/// Whether fdinfo shows a descriptor that reads: `flags` is open(2)'s, in octal.
fn is_read(info: &str) -> bool {
    const ACCESS: u32 = 0o3;
    const WRITE_ONLY: u32 = 0o1;
    let flags = field(info, "flags").and_then(|flags| u32::from_str_radix(flags, 8).ok());
    flags.is_some_and(|flags| flags & ACCESS != WRITE_ONLY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::mqueue::{Access, Queue};
    use std::ffi::CString;
    use std::process::{Command, Stdio};

    #[test]
    fn only_a_descriptor_that_reads_counts_as_one() {
        for (info, reads) in [
            ("pos:\t0\nflags:\t02000002\nmnt_id:\t21\n", true),
            ("flags:\t0104000\n", true),
            ("flags:\t0100001\n", false),
            ("flags:\tx\n", false),
            ("", false),
        ] {
            assert_eq!(is_read(info), reads, "{info:?}");
        }
    }

    /// A queue that another process has inherited, for both or for sending only.
    #[test]
    fn a_process_that_has_a_queue_open_is_found() {
        let name = CString::new(format!("/openers-{}", std::process::id())).unwrap();
        let (queue, _) = Queue::create(&name, 1, 8, 0o600).unwrap();
        assert_eq!(of(&queue).unwrap().found, []);
        for (access, reads) in [(Access::Receive, true), (Access::Send, false)] {
            // The child's standard input is the queue.
            let end = Queue::open(&name, access, true).unwrap();
            let stdin = Stdio::from(end.as_fd().try_clone_to_owned().unwrap());
            drop(end);
            let mut child = Command::new("/bin/sleep")
                .arg("100")
                .stdin(stdin)
                .spawn()
                .unwrap();
            let found = of(&queue).unwrap().found;
            child.kill().unwrap();
            child.wait().unwrap();
            assert_eq!(found.len(), 1, "{found:?}");
            assert_eq!(
                (found[0].pid.unsigned_abs(), found[0].reads),
                (child.id(), reads),
                "{found:?}"
            );
        }
        assert_eq!(of(&queue).unwrap().found, []);
        Queue::unlink(&name).unwrap();
    }
}
