//! Resource limits and the sysctls that bound message queues and signals.
//!
//! Everything here is a reading. A file that is absent or unreadable is an error for the caller to
//! take as "not known"; it is never read as a limit of 0.

use super::context::{errno_of, named};
use super::mqueue::{self, Access};
use super::{Call, Errno};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A limit of getrlimit(2); `None` = unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The enforced value.
    pub soft: Option<u64>,
    /// The value up to which a process may raise it.
    pub hard: Option<u64>,
}

impl Limit {
    /// Whether `amount` is within the enforced value.
    pub fn admits(&self, amount: u64) -> bool {
        self.soft.is_none_or(|soft| amount <= soft)
    }
}

/// The limits a plan is checked against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// RLIMIT_MSGQUEUE: bytes in message queues per user.
    MsgQueue,
    /// RLIMIT_MEMLOCK: locked bytes per process.
    MemLock,
    /// RLIMIT_SIGPENDING: queued signals per user.
    SigPending,
    /// RLIMIT_RTPRIO: highest real-time priority.
    RtPrio,
    /// RLIMIT_NOFILE: highest descriptor number + 1.
    OpenFiles,
}

impl Kind {
    fn resource(self) -> Resource {
        match self {
            Kind::MsgQueue => Resource::RLIMIT_MSGQUEUE,
            Kind::MemLock => Resource::RLIMIT_MEMLOCK,
            Kind::SigPending => Resource::RLIMIT_SIGPENDING,
            Kind::RtPrio => Resource::RLIMIT_RTPRIO,
            Kind::OpenFiles => Resource::RLIMIT_NOFILE,
        }
    }
}

/// Raises every limit a daemon lives on as far as a process may by itself: soft to hard.
pub fn raise_soft() {
    for kind in [
        Kind::MsgQueue,
        Kind::MemLock,
        Kind::SigPending,
        Kind::RtPrio,
        Kind::OpenFiles,
    ] {
        if let Ok((_, hard)) = getrlimit(kind.resource()) {
            // Raising soft to hard needs no privilege; should it fail, the check reports the soft
            // limit.
            let _ = setrlimit(kind.resource(), hard, hard);
        }
    }
}

/// Has the kernel make room for this many descriptors, as far as RLIMIT_NOFILE admits them.
///
/// The kernel's table of descriptors grows by itself. In a process with several threads it then waits
/// until every CPU has passed a quiescent state (`expand_files` in fs/file.c), some milliseconds each
/// time, in whichever thread opens the next descriptor. To be called while there is one thread.
pub fn reserve_descriptors(count: usize) {
    let limit = |(soft, _): (u64, u64)| usize::try_from(soft).unwrap_or(usize::MAX);
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(count, limit);
    let Some(last) = count
        .min(limit)
        .checked_sub(1)
        .and_then(|n| i32::try_from(n).ok())
    else {
        return;
    };
    // What cannot be reserved is made room for when it is needed.
    if let Ok(any) = std::fs::File::open("/dev/null") {
        let _ = rustix::io::fcntl_dupfd_cloexec(&any, last);
    }
}

/// How much CPU time a real-time thread of this process may use without waiting once
/// (RLIMIT_RTTIME): past `soft_us` the process gets [`super::rtsignal::CPU_TIME`] once a second,
/// past `hard_us` the kernel kills it. None keeps the hard limit that there is; one that is lower
/// stays.
///
/// Touches no heap.
pub fn set_real_time(soft_us: u64, hard_us: Option<u64>) -> Call<()> {
    let resource = Resource::RLIMIT_RTTIME;
    let (_, now) = getrlimit(resource).map_err(errno)?;
    // RLIM_INFINITY is the largest number.
    let hard = hard_us.unwrap_or(RLIM_INFINITY).min(now);
    setrlimit(resource, soft_us.min(hard), hard).map_err(errno)
}

/// A warning if a real-time thread of this process may be ended for its CPU time (RLIMIT_RTTIME):
/// the kernel sends SIGXCPU at the soft limit, which ends a process without a handler, and SIGKILL
/// at the hard one. None: there is no limit.
pub fn real_time_warning(program: &str) -> Option<String> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_RTTIME).ok()?;
    let us = soft.min(hard);
    (us != RLIM_INFINITY).then(|| {
        format!(
            "RLIMIT_RTTIME is {us} us: the kernel ends {program} without a message as soon as one of its SCHED_FIFO threads \
             runs that long without sleeping; to lift it: ulimit -R unlimited, in a unit LimitRTTIME=infinity"
        )
    })
}

/// The hard RLIMIT_RTTIME in microseconds, at which the kernel kills; none = never.
pub fn real_time_hard_us() -> Call<Option<u64>> {
    let (_, hard) = getrlimit(Resource::RLIMIT_RTTIME).map_err(errno)?;
    Ok((hard != RLIM_INFINITY).then_some(hard))
}

fn errno(e: nix::errno::Errno) -> Errno {
    Errno(e as i32)
}

/// Reads a limit of this process.
pub fn get(kind: Kind) -> io::Result<Limit> {
    let (soft, hard) = getrlimit(kind.resource()).map_err(|e| {
        let e = io::Error::from(e);
        named(format_args!("getrlimit {kind:?}"), e)
    })?;
    let finite = |value: u64| (value != RLIM_INFINITY).then_some(value);
    Ok(Limit {
        soft: finite(soft),
        hard: finite(hard),
    })
}

/// Whether this process has as many descriptors as RLIMIT_NOFILE admits: EMFILE has other causes
/// too (mq_open(3)).
pub fn no_descriptor_left() -> bool {
    let duplicate = nix::fcntl::fcntl(std::io::stderr(), nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(0));
    match duplicate {
        Ok(fd) => {
            // SAFETY: F_DUPFD_CLOEXEC just returned this descriptor; nobody else has it.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
            false
        }
        Err(e) => e == nix::errno::Errno::EMFILE,
    }
}

/// The fix for a call that failed because of a missing resource or permission; empty for other
/// errors. For the end of a message about the daemon.
pub fn shortage_hint(e: &io::Error) -> &'static str {
    match errno_of(e) {
        Some(libc::EMFILE) => ": raise LimitNOFILE= of rtd",
        Some(libc::ENFILE) => ": raise fs.file-max",
        Some(libc::ENOMEM | libc::ENOSPC) => {
            ": give the machine, or the control group of rtd, more memory"
        }
        Some(libc::EPERM | libc::ENOSYS) => {
            ": the kernel or a seccomp profile refuses the call to rtd (strace -f shows which): allow it"
        }
        _ => "",
    }
}

/// The sysctls of message queues (mq_overview(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MqSysctl {
    /// fs.mqueue.msg_max: messages per queue.
    MsgMax,
    /// fs.mqueue.msgsize_max: bytes per message.
    MsgsizeMax,
    /// fs.mqueue.queues_max: queues per ipc namespace.
    QueuesMax,
}

/// Reads a sysctl of message queues.
pub fn mq_sysctl(which: MqSysctl) -> io::Result<u64> {
    let path = match which {
        MqSysctl::MsgMax => "/proc/sys/fs/mqueue/msg_max",
        MqSysctl::MsgsizeMax => "/proc/sys/fs/mqueue/msgsize_max",
        MqSysctl::QueuesMax => "/proc/sys/fs/mqueue/queues_max",
    };
    let text = std::fs::read_to_string(path).map_err(|e| named(path, e))?;
    text.trim().parse().map_err(|_| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{path}: `{}` is not a number", text.trim()),
        )
    })
}

/// Limit of a queue's messages with any privilege (HARD_MSGMAX).
pub const MQ_MAXMSG_HARD: u64 = 65_536;
/// Limit of a message's size with any privilege (HARD_MSGSIZEMAX).
pub const MQ_MSGSIZE_HARD: u64 = 16 * 1024 * 1024;
/// Number of message priorities; the highest is one less (MQ_PRIO_MAX).
pub const MQ_PRIORITIES: u64 = 32_768;

/// `struct msg_msg` of the kernel: list head, type, size, next, security pointer.
const MSG_HEADER_BYTES: u64 = 6 * size_of::<usize>() as u64;
/// `struct posix_msg_tree_node`: tree node (3 words), list head (2), priority (padded to a word).
const TREE_NODE_BYTES: u64 = 6 * size_of::<usize>() as u64;

/// The bytes that the kernel charges against RLIMIT_MSGQUEUE for a new queue (mqueue_get_inode in
/// the kernel's ipc/mqueue.c, getrlimit(2)).
pub fn mq_bytes(maxmsg: u64, msgsize: u64) -> u64 {
    let tree = maxmsg
        .saturating_mul(MSG_HEADER_BYTES)
        .saturating_add(maxmsg.min(MQ_PRIORITIES).saturating_mul(TREE_NODE_BYTES));
    maxmsg.saturating_mul(msgsize).saturating_add(tree)
}

/// A message queue that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    pub name: String,
    /// Owner: the user it was charged to; `None` where this process may not open the queue.
    pub uid: Option<u32>,
    /// mq_maxmsg and mq_msgsize; `None` where it may not be opened.
    pub size: Option<(u64, u64)>,
}

/// The queues of this IPC namespace; an error if mqueue is not mounted.
pub fn queues() -> io::Result<Vec<Queue>> {
    let dir = Path::new("/dev/mqueue");
    // A plain directory of that name would read as "no queues".
    let mounted = nix::sys::statfs::statfs(dir)
        .map_err(io::Error::from)?
        .filesystem_type()
        .0;
    if u64::try_from(mounted) != Ok(MQUEUE_MAGIC) {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            "/dev/mqueue: mqueue is not mounted there",
        ));
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        // A queue may be removed between the listing and this call.
        let Ok(meta) = entry.metadata() else { continue };
        let mut name = b"/".to_vec();
        name.extend_from_slice(entry.file_name().as_bytes());
        let size = CString::new(name.clone())
            .ok()
            .and_then(|name| queue(&name).ok()??.size);
        found.push(Queue {
            name: String::from_utf8_lossy(&name).into_owned(),
            uid: Some(meta.uid()),
            size,
        });
    }
    Ok(found)
}

const MQUEUE_MAGIC: u64 = 0x1980_0202;

/// The queue of this name; `None` when there is none. Needs no mounted mqueue: mq_open(3) finds a
/// queue by name.
///
/// Errors: mq_open(3) fails for a reason that does not say whether the queue exists (ENOSYS, EPERM,
/// EMFILE).
pub fn queue(name: &CStr) -> io::Result<Option<Queue>> {
    let shown = name.to_string_lossy().into_owned();
    match mqueue::Queue::open(name, Access::Receive, true) {
        Ok(queue) => {
            let found = queue.attributes()?;
            let size = Some((found.maxmsg as u64, found.msgsize as u64));
            Ok(Some(Queue {
                name: shown,
                uid: Some(queue.status()?.uid),
                size,
            }))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        // EACCES comes after the name was found; EPERM has the same kind and is a filter's.
        Err(e) if mqueue::is_access(&e) => Ok(Some(Queue {
            name: shown,
            uid: None,
            size: None,
        })),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
#[path = "limits_tests.rs"]
mod tests;
