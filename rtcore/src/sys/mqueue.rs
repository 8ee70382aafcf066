//! POSIX message queues (mq_overview(7)).
//!
//! Opening, attributes and unlinking go through nix; send and receive are bare system calls,
//! because they are on the real-time path: libc's are cancellation points, which in a process with
//! threads costs four atomic operations a message. On Linux a descriptor is a file descriptor: it
//! polls, and closing it is close(2).

use super::ids::Account;
use super::{Errno, accounts};
use nix::mqueue::{self, MQ_OFlag, MqAttr};
use nix::sys::stat::Mode;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt as _;

/// Size and fill of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// Capacity in messages.
    pub maxmsg: usize,
    /// Largest message in bytes.
    pub msgsize: usize,
    /// Messages in it now.
    pub curmsgs: usize,
}

/// The opened direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Open for receiving only.
    Receive,
    /// Open for sending only.
    Send,
    /// Both: for who stands behind the queue (a write lock needs it).
    Both,
}

/// Owner and mode of a queue (fstat(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    pub uid: u32,
    pub gid: u32,
    pub mode: u32,
    /// Identifies the queue, whatever its name.
    pub inode: u64,
    /// Whether it still has its name: nothing but mq_unlink(3) takes it away, and nothing gives it
    /// back.
    pub named: bool,
}

impl Status {
    /// The only user other than root whose programs may open it for sending; none when group or
    /// others may.
    pub fn sole_writer_uid(&self) -> Option<u32> {
        (self.mode & 0o022 == 0).then_some(self.uid)
    }

    /// Whether the kernel would open it for receiving for a process of this user in these groups,
    /// whose only capabilities are those of root.
    pub fn may_be_read_by(&self, uid: u32, gid: u32, groups: &[u32]) -> bool {
        // The first class that a process is in decides.
        let class = match () {
            () if uid == 0 => return true,
            () if uid == self.uid => 0o400,
            () if gid == self.gid || groups.contains(&self.gid) => 0o040,
            () => 0o004,
        };
        self.mode & class != 0
    }
}

/// Locks by which daemons share the use of a queue: open-file-description locks (fcntl(2),
/// F_OFD_SETLK) on bytes of its inode, which end with their holder. Only programs that check them
/// are affected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// Takes messages out of it, alone.
    Reader,
    /// Uses it, among others.
    User,
    /// Nobody else uses it: a [`Lock::User`] becomes this, or stays as it is.
    LastUser,
}

/// An open queue.
#[derive(Debug)]
pub struct Queue {
    fd: OwnedFd,
    name: CString,
}

impl Queue {
    /// Opens an existing queue.
    ///
    /// Errors: ENOENT, EACCES, EMFILE; the text names the queue.
    pub fn open(name: &CStr, access: Access, nonblocking: bool) -> io::Result<Queue> {
        let flags = Self::flags(access, nonblocking);
        let fd = mqueue::mq_open(name, flags, Mode::empty(), None)
            .map_err(|e| Self::error("open", name, e))?;
        Ok(Self::own(fd, name))
    }

    /// Creates the queue, or adopts an existing one with its messages. Returns the state of an
    /// adopted one.
    ///
    /// An adopted queue must belong to this user or root and have the same `msgsize`. Its mode and
    /// `maxmsg` may differ (mq_open(3) ignores both for an existing queue): [`Queue::set_mode`],
    /// [`Queue::attributes`].
    pub fn create(
        name: &CStr,
        maxmsg: usize,
        msgsize: usize,
        mode: u32,
    ) -> io::Result<(Queue, Option<Status>)> {
        let signed = |n: usize| i64::try_from(n).map_err(io::Error::other);
        let attr = MqAttr::new(0, signed(maxmsg)?, signed(msgsize)?, 0);
        let flags = Self::flags(Access::Both, true) | MQ_OFlag::O_CREAT | MQ_OFlag::O_EXCL;
        match mqueue::mq_open(name, flags, Mode::from_bits_truncate(mode), Some(&attr)) {
            Ok(fd) => {
                let queue = Self::own(fd, name);
                // umask(2) removed bits from mq_open's mode; the configured mode is the intended
                // one.
                queue.set_mode(mode)?;
                Ok((queue, None))
            }
            Err(nix::errno::Errno::EEXIST) => {
                let queue = Self::open(name, Access::Both, true)?;
                let found = queue.adopt(msgsize)?;
                Ok((queue, Some(found)))
            }
            Err(e) => Err(Self::error("create", name, e)),
        }
    }

    /// Refuses a queue that differs from the configuration and cannot be changed accordingly.
    fn adopt(&self, msgsize: usize) -> io::Result<Status> {
        let name = self.name.to_string_lossy();
        let found = self.status()?;
        let euid = super::procfs::effective_uid();
        if found.uid != euid && found.uid != 0 {
            return Err(io::Error::other(format!(
                "message queue {name} exists and belongs to uid {}, who may change its mode and \
                 read and write it at will; rtd (uid {euid}) adopts only queues of its own user and of root: stop its users and remove it \
                 (rtctl queue rm {name})",
                found.uid
            )));
        }
        let has = self.attributes()?.msgsize;
        if has != msgsize {
            return Err(io::Error::other(format!(
                "message queue {name} exists with msgsize {has}, the configuration says {msgsize}; stop its users and \
                 remove it (rtctl queue rm {name}), or configure msgsize = {has}"
            )));
        }
        Ok(found)
    }

    /// Sets these permission bits, independent of umask(2) (fchmod(2)); its owner and root may do
    /// so.
    pub fn set_mode(&self, mode: u32) -> io::Result<()> {
        nix::sys::stat::fchmod(&self.fd, Mode::from_bits_truncate(mode)).map_err(|e| {
            let name = self.name.to_string_lossy();
            let (has, uid) = self.status().map_or((0, 0), |s| (s.mode, s.uid));
            io::Error::other(format!(
                "cannot change the mode of message queue {name} from {has:04o} to the configured {mode:04o}: {}; let \
                 its owner (uid {uid}) remove it (rtctl queue rm {name}), or configure mode = \"{has:04o}\"",
                e.desc()
            ))
        })
    }

    /// Makes it another account's (fchown(2)).
    ///
    /// Errors: EPERM without CAP_CHOWN.
    pub fn give_to(&self, account: Account) -> io::Result<()> {
        let Account { uid, gid } = account;
        std::os::unix::fs::fchown(&self.fd, Some(uid), Some(gid)).map_err(|e| {
            let name = self.name.to_string_lossy();
            io::Error::new(
                e.kind(),
                format!("cannot give message queue {name} to uid {uid} gid {gid}: {e}"),
            )
        })
    }

    /// Takes a lock for as long as this open queue lives; false when another open queue holds one
    /// that excludes it.
    ///
    /// The queue must be open for [`Access::Both`]: a write lock needs a descriptor that can write.
    pub fn lock(&self, lock: Lock) -> io::Result<bool> {
        let (kind, byte) = match lock {
            Lock::Reader => (libc::F_WRLCK, 0),
            Lock::User => (libc::F_RDLCK, 1),
            Lock::LastUser => (libc::F_WRLCK, 1),
        };
        // SAFETY: flock is plain integers; zero is valid for each (and l_pid must be 0 for OFD
        // locks).
        let mut request: libc::flock = unsafe { std::mem::zeroed() };
        request.l_type = i16::try_from(kind).map_err(io::Error::other)?;
        request.l_whence = i16::try_from(libc::SEEK_SET).map_err(io::Error::other)?;
        (request.l_start, request.l_len) = (byte, 1);
        // SAFETY: the descriptor is open (owned by self) and `request` outlives the call.
        if unsafe { libc::fcntl(self.fd.as_raw_fd(), libc::F_OFD_SETLK, &raw const request) } == 0 {
            return Ok(true);
        }
        match nix::errno::Errno::last() {
            nix::errno::Errno::EAGAIN | nix::errno::Errno::EACCES => Ok(false),
            e => Err(Self::error("lock", &self.name, e)),
        }
    }

    /// Owner, mode, identity.
    pub fn status(&self) -> io::Result<Status> {
        status(self.fd.as_raw_fd()).map_err(|e| Self::error("look at", &self.name, e))
    }

    /// Removes the name; open descriptors keep working (mq_unlink(3)).
    pub fn unlink(name: &CStr) -> io::Result<()> {
        mqueue::mq_unlink(name).map_err(|e| Self::error("remove", name, e))
    }

    /// Size and fill.
    pub fn attributes(&self) -> io::Result<Attributes> {
        let fd = self.fd.as_raw_fd();
        attributes(fd).map_err(|e| Self::error("read the attributes of", &self.name, e))
    }

    /// Gives the descriptor away: `close` is the new owner's business.
    pub fn into_raw(self) -> RawFd {
        self.fd.into_raw_fd()
    }

    /// Name of the queue, with its leading `/`.
    pub fn name(&self) -> &CStr {
        &self.name
    }

    fn flags(access: Access, nonblocking: bool) -> MQ_OFlag {
        let access = match access {
            Access::Receive => MQ_OFlag::O_RDONLY,
            Access::Send => MQ_OFlag::O_WRONLY,
            Access::Both => MQ_OFlag::O_RDWR,
        };
        let blocking = if nonblocking {
            MQ_OFlag::O_NONBLOCK
        } else {
            MQ_OFlag::empty()
        };
        access | blocking | MQ_OFlag::O_CLOEXEC
    }

    fn own(fd: mqueue::MqdT, name: &CStr) -> Queue {
        // SAFETY: mq_open just returned this descriptor, and MqdT has no Drop: nobody else closes
        // it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd.into_raw_fd()) };
        Queue {
            fd,
            name: name.to_owned(),
        }
    }

    fn error(what: &str, name: &CStr, e: nix::errno::Errno) -> io::Error {
        use nix::errno::Errno as E;
        let name = name.to_string_lossy();
        let hint = match e {
            E::EMFILE if super::limits::no_descriptor_left() => {
                "; this process has as many files open as RLIMIT_NOFILE admits (LimitNOFILE=, limits.d `nofile`)"
            }
            E::EMFILE => {
                "; this user's queues have as many bytes as RLIMIT_MSGQUEUE admits (LimitMSGQUEUE=, limits.d `msgqueue`)"
            }
            E::ENFILE => {
                "; the machine has as many files open as fs.file-max admits (sysctl -w fs.file-max=N)"
            }
            E::ENOSPC => "; the limit is fs.mqueue.queues_max (sysctl -w fs.mqueue.queues_max=N)",
            E::EINVAL => "; the limits are fs.mqueue.msg_max and fs.mqueue.msgsize_max",
            E::EACCES if what == "remove" => {
                &format!("; only its owner and root may: {}", whose(&name))
            }
            E::EACCES => &not_admitted(&name),
            E::ENOENT => NOT_CREATED,
            E::EPERM if what != "remove" => MQ_REFUSED,
            E::ENOSYS => MQ_REFUSED,
            _ => "",
        };
        io::Error::new(
            io::Error::from(e).kind(),
            Failed {
                text: format!("cannot {what} message queue {name}: {}{hint}", e.desc()),
                errno: e,
            },
        )
    }
}

/// Mode, owner and group of a queue, where /dev/mqueue shows them.
fn seen(name: &str) -> Option<(u32, String, String)> {
    let status = std::fs::metadata(format!("/dev/mqueue{name}")).ok()?;
    let (owner, group) = (
        accounts::user_name(status.uid()),
        accounts::group_name(status.gid()),
    );
    Some((status.mode() & 0o777, owner, group))
}

fn whose(name: &str) -> String {
    seen(name).map_or("it belongs to another user".to_owned(), |(_, owner, _)| {
        format!("it belongs to {owner}")
    })
}

/// Why the queue does not admit this process, and the keys that change this.
fn not_admitted(name: &str) -> String {
    let user = accounts::user_name(super::procfs::effective_uid());
    let Some((mode, owner, group)) = seen(name) else {
        return format!(
            "; its owner, group and mode do not admit {user}: `mode` of the [[endpoint]] says whom they admit (0660 admits the \
             group of rtd's user)"
        );
    };
    let key = if mode & 0o060 == 0o060 {
        ""
    } else {
        "set mode = \"0660\" in its [[endpoint]], and "
    };
    format!(
        "; it has mode {mode:04o}, owner {owner} and group {group}, which do not admit {user}: {key}add {user} to the group \
         (usermod -aG {group} {user})"
    )
}

/// Whether a call of [`Queue`] failed with EACCES. EPERM, with which a seccomp filter refuses a
/// call, has the same [`io::ErrorKind`].
pub fn is_access(e: &io::Error) -> bool {
    let call = e.get_ref().and_then(|inner| inner.downcast_ref::<Failed>());
    call.is_some_and(|failed| failed.errno == nix::errno::Errno::EACCES)
}

/// A call that failed.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
struct Failed {
    text: String,
    errno: nix::errno::Errno,
}

/// The hint for an object that does not exist: rtd creates the queues and semaphores that programs
/// open.
pub(crate) const NOT_CREATED: &str =
    "; nobody has created it: is rtd running with this endpoint configured?";

/// mq_open(3) itself returns neither EPERM nor ENOSYS on a kernel that has it.
const MQ_REFUSED: &str = "; the system call is refused: allow mq_open, mq_unlink, mq_timedsend, mq_timedreceive, mq_notify and \
     mq_getsetattr in the container's seccomp profile or the unit's SystemCallFilter=; a kernel without \
     CONFIG_POSIX_MQUEUE has no queues";

/// Size and fill of the queue behind a descriptor (mq_getattr(3)).
pub(crate) fn attributes(fd: RawFd) -> Result<Attributes, nix::errno::Errno> {
    // SAFETY: mq_attr is plain integers, for which all zeroes is a value.
    let mut attr: libc::mq_attr = unsafe { std::mem::zeroed() };
    // SAFETY: `attr` is writable for the call; a stale descriptor gives EBADF.
    if unsafe { libc::mq_getattr(fd, &mut attr) } < 0 {
        return Err(nix::errno::Errno::last());
    }
    Ok(attr.into())
}

/// Owner, mode, identity of the queue behind a descriptor (fstat(2)).
pub(crate) fn status(fd: RawFd) -> Result<Status, nix::errno::Errno> {
    // SAFETY: stat is plain integers, for which all zeroes is a value.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: `stat` is writable for the call; a stale descriptor gives EBADF.
    if unsafe { libc::fstat(fd, &mut stat) } < 0 {
        return Err(nix::errno::Errno::last());
    }
    let mode = stat.st_mode & 0o777;
    Ok(Status {
        uid: stat.st_uid,
        gid: stat.st_gid,
        mode,
        inode: stat.st_ino,
        named: stat.st_nlink > 0,
    })
}

/// Closes a descriptor that [`Queue::into_raw`] gave away (close(2)).
pub(crate) fn close(fd: RawFd) {
    // SAFETY: a plain integer; the descriptor is its caller's, who does not use it again.
    unsafe { libc::close(fd) };
}

impl From<libc::mq_attr> for Attributes {
    fn from(attr: libc::mq_attr) -> Attributes {
        let size = |n: i64| usize::try_from(n).unwrap_or(0);
        Attributes {
            maxmsg: size(attr.mq_maxmsg),
            msgsize: size(attr.mq_msgsize),
            curmsgs: size(attr.mq_curmsgs),
        }
    }
}

impl Queue {
    /// Throws away as many messages as are in it now, and returns how many that were; what arrives
    /// meanwhile stays. For a queue that was opened for receiving and non-blocking.
    pub fn flush(&self) -> io::Result<usize> {
        let Attributes {
            curmsgs, msgsize, ..
        } = self.attributes()?;
        let mut buffer = vec![0; msgsize];
        let mut flushed = 0;
        while flushed < curmsgs {
            match receive(self.as_raw_fd(), &mut buffer) {
                Ok(_) => flushed += 1,
                Err(Errno::INTR) => {}
                // Somebody else took the rest.
                Err(Errno::AGAIN) => break,
                Err(e) => {
                    let name = self.name.to_string_lossy();
                    return Err(io::Error::other(format!(
                        "message queue {name}: flush: {e}"
                    )));
                }
            }
        }
        Ok(flushed)
    }
}

impl AsRawFd for Queue {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Wait as long as it takes (or not at all, as the descriptor was opened).
const NO_TIMEOUT: *const libc::timespec = std::ptr::null();

/// Takes the first message of the highest priority: its length and priority (mq_receive(3)).
///
/// `buffer` must be at least the queue's msgsize, else EMSGSIZE.
#[inline]
pub fn receive(fd: RawFd, buffer: &mut [u8]) -> Result<(usize, u32), Errno> {
    // SAFETY: no time is no pointer.
    unsafe { timed_receive(fd, buffer, NO_TIMEOUT) }
}

/// The same for at most `timeout_ns`, then ETIMEDOUT (mq_timedreceive(3)). The kernel measures it
/// on CLOCK_REALTIME: a clock that is set meanwhile makes it longer or shorter.
pub fn receive_within(
    fd: RawFd,
    buffer: &mut [u8],
    timeout_ns: u64,
) -> Result<(usize, u32), Errno> {
    let until = super::clock::realtime_after(timeout_ns);
    // SAFETY: the time is on this stack.
    unsafe { timed_receive(fd, buffer, &until) }
}

/// # Safety
/// 1. `until` is null or a valid timespec.
#[inline]
unsafe fn timed_receive(
    fd: RawFd,
    buffer: &mut [u8],
    until: *const libc::timespec,
) -> Result<(usize, u32), Errno> {
    let mut priority = 0;
    let (at, len) = (buffer.as_mut_ptr(), buffer.len());
    // SAFETY: the buffer is writable for the length given, the time is the caller's contract; a
    // stale descriptor gives EBADF.
    let n = unsafe { libc::syscall(libc::SYS_mq_timedreceive, fd, at, len, &mut priority, until) };
    usize::try_from(n)
        .map(|n| (n, priority))
        .map_err(|_| Errno::last())
}

/// Adds a message (mq_send(3)); EAGAIN when the queue is full and the descriptor non-blocking.
#[inline]
pub fn send(fd: RawFd, message: &[u8], priority: u32) -> Result<(), Errno> {
    let (at, len) = (message.as_ptr(), message.len());
    // SAFETY: the message is readable for the length given; a stale descriptor gives EBADF.
    let rc = unsafe { libc::syscall(libc::SYS_mq_timedsend, fd, at, len, priority, NO_TIMEOUT) };
    if rc < 0 { Err(Errno::last()) } else { Ok(()) }
}

#[cfg(test)]
mod permission_tests {
    use super::Status;

    #[test]
    fn the_first_class_that_a_process_is_in_says_whether_it_may_read() {
        let may = |mode, uid, gid, groups: &[u32]| {
            Status {
                uid: 7,
                gid: 8,
                mode,
                inode: 1,
                named: true,
            }
            .may_be_read_by(uid, gid, groups)
        };
        assert!(may(0o600, 7, 0, &[]) && may(0, 0, 0, &[]));
        assert!(!may(0o600, 9, 8, &[]) && !may(0o044, 7, 8, &[8]));
        assert!(may(0o640, 9, 8, &[]) && may(0o640, 9, 1, &[2, 8]));
        assert!(!may(0o604, 9, 8, &[]) && may(0o604, 9, 1, &[]));
    }
}
