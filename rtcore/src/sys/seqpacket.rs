//! SOCK_SEQPACKET listener and connections with peer credentials (unix(7)).
//!
//! A packet is a frame: it arrives whole or not at all, so there is no reassembly to attack.
//! Nothing on the daemon's side ever waits for a client. Who the client is comes from the kernel
//! (SO_PEERCRED: the credentials at connect(2)), never from the frame.
//!
//! Invariant: a name of ours leads to a socket that listens already. [`Listener::bind`] unlinks
//! nothing but a socket that nobody listens on, and a dropped listener nothing but its own.

use super::caps;
use super::clock::{nanos, rustix_timespec};
use super::context::errno_of;
use super::pidfd::{PidFd, pidfd_open};
use super::procfs::{effective_uid, named};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
    sockopt,
};
use rustix::process::Pid;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Connections the kernel holds for us between two accepts; more wait in their connect(2).
const BACKLOG: i32 = 128;
/// Attempts to put a socket at its name while others take and leave the name.
const NAME_ATTEMPTS_MAX: usize = 16;
/// Descriptors of one packet.
const FDS_MAX: usize = 4;
/// Supplementary groups the kernel knows at most (NGROUPS_MAX).
const GROUPS_MAX: usize = 65_536;

/// A listening socket with a name in the file system.
#[derive(Debug)]
pub struct Listener {
    fd: OwnedFd,
    path: PathBuf,
    /// Device and inode of the name we made.
    identity: (u64, u64),
}

impl Listener {
    /// Listens at `path`; makes the parent directory if only that is missing.
    ///
    /// Errors: the directory is a symlink, belongs to a stranger or lets strangers rename in it;
    /// another daemon listens there; something that is no socket is in the way.
    pub fn bind(path: &Path) -> io::Result<Listener> {
        let address = address(path)?;
        ensure_parent(path)?;
        Draft::remove_stale(path);
        let draft = Draft::new(path)?;
        let fd = socket(SocketFlags::NONBLOCK).map_err(|e| named(path.display(), e))?;
        rustix::net::bind(&fd, &draft.address).map_err(|e| cannot_bind(path, e))?;
        // Every user may connect: credentials decide, for each name, who may register; the mode of
        // this file does not. bind(2) applied the umask, so the mode is set explicitly.
        rustix::fs::chmod(&draft.path, Mode::from_raw_mode(0o666))
            .map_err(|e| named(path.display(), e))?;
        let meta = draft
            .path
            .symlink_metadata()
            .map_err(|e| named(path.display(), e))?;
        rustix::net::listen(&fd, BACKLOG).map_err(|e| named(path.display(), e))?;
        for _ in 0..NAME_ATTEMPTS_MAX {
            match std::fs::hard_link(&draft.path, path) {
                Ok(()) => {
                    return Ok(Listener {
                        fd,
                        path: path.to_owned(),
                        identity: (meta.dev(), meta.ino()),
                    });
                }
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => remove_stale(path, &address)?,
                Err(e) => return Err(named(path.display(), e)),
            }
        }
        Err(listened_to(path))
    }

    /// The next connection; `None` when nobody waits. Errors keep their raw number, see
    /// [`is_shortage`].
    pub fn accept(&self) -> io::Result<Option<Conn>> {
        match rustix::net::accept_with(&self.fd, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            Ok(fd) => Ok(Some(Conn { fd })),
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Whether its name still leads to it. An error counts as yes, because it shows nothing about
    /// the name.
    pub fn is_current(&self) -> bool {
        match self.path.symlink_metadata() {
            Ok(found) => (found.dev(), found.ino()) == self.identity,
            Err(e) => e.kind() != io::ErrorKind::NotFound,
        }
    }

    /// The path at which it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let ours = self
            .path
            .symlink_metadata()
            .is_ok_and(|m| (m.dev(), m.ino()) == self.identity);
        if ours {
            // The error cannot be reported: the next start removes a stale name.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// A name beside the final one, gone when this is dropped.
struct Draft {
    path: PathBuf,
    address: SocketAddrUnix,
}

impl Draft {
    /// Nobody else has this name: the directory is ours or root's ([`ensure_parent`]), and it
    /// carries our pid.
    fn new(beside: &Path) -> io::Result<Draft> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!(
            "{}{:x}.{number:x}",
            Draft::prefix(beside),
            std::process::id()
        );
        let path = beside.with_file_name(name);
        let draft = Draft {
            address: address(&path)?,
            path,
        };
        draft.remove();
        Ok(draft)
    }

    /// The beginning of the drafts' names for one name. Short, because of the kernel's limit: not
    /// the name itself but 16 bits of it (FNV-1a).
    fn prefix(beside: &Path) -> String {
        let name = beside.file_name().unwrap_or_default().as_encoded_bytes();
        let hash = name.iter().fold(0x811c_9dc5_u32, |hash, byte| {
            (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
        });
        format!(".{:x}.", (hash ^ hash >> 16) & 0xffff)
    }

    /// Removes the drafts for this name that processes left which were killed while they started:
    /// sockets that carry the pid of a process that is no more, and that nobody listens on.
    fn remove_stale(beside: &Path) {
        let prefix = Draft::prefix(beside);
        let Some(dir) = beside.parent().and_then(|dir| dir.read_dir().ok()) else {
            return;
        };
        for entry in dir.flatten() {
            let name = entry.file_name();
            let Some((pid, number)) = name
                .to_str()
                .and_then(|name| name.strip_prefix(&prefix)?.split_once('.'))
            else {
                continue;
            };
            let hex = |digits: &str| u32::from_str_radix(digits, 16);
            let (Ok(pid), Ok(_)) = (hex(pid), hex(number)) else {
                continue;
            };
            let (path, ended) = (entry.path(), !Path::new(&format!("/proc/{pid}")).exists());
            let is_socket = entry.file_type().is_ok_and(|kind| kind.is_socket());
            let unused =
                || address(&path).is_ok_and(|at| is_listened_to(&path, &at).is_ok_and(|is| !is));
            if ended && is_socket && unused() {
                // A draft that cannot be removed does no harm.
                let _ = std::fs::remove_file(&path);
            }
        }
    }

    /// Left by a process of the same number that was killed, or used up.
    fn remove(&self) {
        // Usually absent; otherwise bind(2) reports the obstacle.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        self.remove();
    }
}

fn socket(flags: SocketFlags) -> rustix::io::Result<OwnedFd> {
    rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        flags | SocketFlags::CLOEXEC,
        None,
    )
}

fn address(path: &Path) -> io::Result<SocketAddrUnix> {
    SocketAddrUnix::new(path).map_err(|_| {
        let length = path.as_os_str().len();
        let text = format!(
            "socket path {} has {length} bytes, the kernel takes 107: shorten [daemon] socket",
            path.display()
        );
        io::Error::new(io::ErrorKind::InvalidInput, text)
    })
}

fn refuse(kind: io::ErrorKind, text: String) -> io::Result<()> {
    Err(io::Error::new(kind, text))
}

/// The directory a socket is to lie in.
fn parent_of(path: &Path) -> io::Result<&Path> {
    path.parent().filter(|p| p.is_absolute()).ok_or_else(|| {
        let text = format!(
            "socket path {} is not absolute: write it from /",
            path.display()
        );
        io::Error::new(io::ErrorKind::InvalidInput, text)
    })
}

/// Makes the directory for a socket at `path`, if only that is missing; whether it did.
pub fn make_parent(path: &Path) -> io::Result<bool> {
    let parent = parent_of(path)?;
    let dir = parent.display();
    match parent.symlink_metadata() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            // Under /tmp the directory stands for one user; elsewhere clients of every user pass
            // it.
            let mode = if parent.parent() == Some(Path::new("/tmp")) {
                0o700
            } else {
                0o755
            };
            std::fs::DirBuilder::new()
                .mode(mode)
                .create(parent)
                .map_err(|e| {
                    let fix = "make it, for this user, or set [daemon] socket to another place";
                    named(
                        format!("{dir}, the directory of the socket, cannot be created ({fix})"),
                        e,
                    )
                })?;
            // mkdir(2) applied the umask, which must not shut the clients out.
            std::fs::set_permissions(parent, PermissionsExt::from_mode(mode))
                .map_err(|e| named(&dir, e))?;
            Ok(true)
        }
        Err(e) => Err(named(&dir, e)),
        Ok(_) => Ok(false),
    }
}

/// kernel.overflowuid, as it is unless somebody changed it.
const UNMAPPED: u32 = 65_534;

/// The directory must be one in which nobody but root and we can put or replace names.
fn ensure_parent(path: &Path) -> io::Result<()> {
    make_parent(path)?;
    let parent = parent_of(path)?;
    let dir = parent.display();
    let meta = parent.symlink_metadata().map_err(|e| named(&dir, e))?;
    if !meta.is_dir() {
        let what = if meta.is_symlink() {
            "a symbolic link"
        } else {
            "not a directory"
        };
        let text = format!("{dir} is {what}: remove it, or set [daemon] socket to another place");
        return refuse(io::ErrorKind::PermissionDenied, text);
    }
    let (owner, ours) = (meta.uid(), effective_uid());
    if owner != 0 && owner != ours {
        // The kernel shows all users without a number in this namespace as one, which nobody can
        // become.
        if owner == UNMAPPED && !caps::in_first_user_namespace() {
            let text = format!(
                "{dir} belongs to a user who is not mapped in this user namespace and could replace the socket: set [daemon] \
                 socket to another place, or mount a tmpfs at {dir}"
            );
            return refuse(io::ErrorKind::PermissionDenied, text);
        }
        let text = format!(
            "{dir} belongs to uid {owner}, not to root or uid {ours}: its owner could replace the socket; run rtd as uid \
             {owner}, or chown {ours} {dir} if no rtd of uid {owner} runs there, or set [daemon] socket to another place"
        );
        return refuse(io::ErrorKind::PermissionDenied, text);
    }
    if meta.mode() & 0o1002 == 0o002 {
        let text = format!("{dir} may be written by everybody: chmod o-w {dir}");
        return refuse(io::ErrorKind::PermissionDenied, text);
    }
    Ok(())
}

/// Removes a socket that a daemon which was killed left behind; no-op when the name went away
/// meanwhile.
fn remove_stale(path: &Path, at: &SocketAddrUnix) -> io::Result<()> {
    let name = path.display();
    let meta = match path.symlink_metadata() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(named(name, e)),
        Ok(meta) => meta,
    };
    if !meta.file_type().is_socket() {
        let text = format!("{name} exists and is not a socket: remove it, or set [daemon] socket");
        return refuse(io::ErrorKind::AlreadyExists, text);
    }
    if is_listened_to(path, at)? {
        return Err(listened_to(path));
    }
    // Another daemon that starts now may have put its own socket there since the check: it is
    // renamed first and checked again, so it is not removed by mistake.
    let taken = Draft::new(path)?;
    match std::fs::rename(path, &taken.path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(named(name, e)),
        Ok(()) => {}
    }
    if !is_listened_to(&taken.path, &taken.address)? {
        return Ok(());
    }
    std::fs::hard_link(&taken.path, path).map_err(|e| named(name, e))?;
    Err(listened_to(path))
}

fn is_listened_to(path: &Path, at: &SocketAddrUnix) -> io::Result<bool> {
    let probe = socket(SocketFlags::NONBLOCK).map_err(|e| named(path.display(), e))?;
    match rustix::net::connect(&probe, at) {
        Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(false),
        // Connected, its backlog is full, or another kind of socket listens: alive in any case.
        Ok(()) | Err(Errno::AGAIN | Errno::PROTOTYPE) => Ok(true),
        Err(e) => Err(named(path.display(), e)),
    }
}

/// The user that may not write, and the owner of the directory, if that is the fault.
fn cannot_bind(path: &Path, e: Errno) -> io::Error {
    let owner = path
        .parent()
        .and_then(|dir| Some((dir, dir.symlink_metadata().ok()?.uid())));
    if e == Errno::ROFS {
        return named(
            format!(
                "{} (set [daemon] socket to a place that can be written)",
                path.display()
            ),
            e,
        );
    }
    let Some((dir, owner)) = owner.filter(|_| e == Errno::ACCESS) else {
        return named(path.display(), e);
    };
    let (dir, uid) = (dir.display(), effective_uid());
    let text = format!(
        "{}: {e}: {dir} belongs to uid {owner}, and uid {uid} may not write in it: chown {uid} {dir}, or set [daemon] \
         socket to another place",
        path.display()
    );
    io::Error::new(io::ErrorKind::PermissionDenied, text)
}

fn listened_to(path: &Path) -> io::Error {
    let text = format!(
        "{}: another daemon listens there already: stop it, or give this one another [daemon] name",
        path.display()
    );
    io::Error::new(io::ErrorKind::AddrInUse, text)
}

/// Whether the error means that descriptors or kernel memory are used up, not that a client caused
/// it.
pub fn is_shortage(e: &io::Error) -> bool {
    matches!(
        errno_of(e),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
    )
}

/// The credentials of the peer, as the kernel recorded them at connect(2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCred {
    /// Process, in our pid namespace; 0 when it has no number here.
    pub pid: i32,
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    pub groups: Vec<u32>,
}

/// The result of a receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// A packet of this many bytes; more than the buffer holds means that the rest is gone.
    Packet(usize),
    Nothing,
    /// The other side has closed.
    Closed,
}

#[derive(Debug)]
pub struct Conn {
    fd: OwnedFd,
}

impl Conn {
    /// Connects as a client, within `limit`.
    pub fn connect(path: &Path, limit: Duration) -> io::Result<Conn> {
        let address = address(path)?;
        let fd = socket(SocketFlags::empty()).map_err(|e| named(path.display(), e))?;
        // SO_SNDTIMEO bounds a connect(2) that waits for room in the backlog (unix(7) has no poll
        // for it).
        sockopt::set_socket_timeout(&fd, sockopt::Timeout::Send, Some(limit))
            .map_err(|e| named(path.display(), e))?;
        rustix::net::connect(&fd, &address).map_err(|e| named(path.display(), e))?;
        Ok(Conn { fd })
    }

    /// The credentials of the other side.
    pub fn peer(&self) -> io::Result<PeerCred> {
        let cred = rawopt::peer_cred(self.fd.as_fd())?;
        let groups = rawopt::peer_groups(self.fd.as_fd())?;
        Ok(PeerCred {
            pid: cred.pid,
            uid: cred.uid,
            gid: cred.gid,
            groups,
        })
    }

    /// The connecting process itself, not another that has its number by now.
    ///
    /// Before Linux 6.5 there is only the number; between connect(2) and this call it could have
    /// passed to another process, which the caller's comparison of user ids narrows and does not
    /// close. Errors keep their raw number, see [`is_shortage`].
    pub fn peer_pidfd(&self) -> io::Result<PidFd> {
        if let Some(fd) = rawopt::peer_pidfd(self.fd.as_fd())? {
            return Ok(PidFd::from_fd(fd));
        }
        let pid = rawopt::peer_cred(self.fd.as_fd())?.pid;
        let number = if pid > 0 { Pid::from_raw(pid) } else { None };
        let number = number.ok_or(Errno::SRCH)?;
        Ok(PidFd::from_fd(pidfd_open(number)?))
    }

    /// Takes a packet, never waits. Descriptors that come with it are closed by the kernel: there
    /// is no room for them.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        let flags = RecvFlags::TRUNC | RecvFlags::DONTWAIT;
        match past_reset(|| rustix::net::recv(&self.fd, &mut *buffer, flags)) {
            // An empty packet and the end of file both read as 0; only after the latter is it hung
            // up.
            Ok((_, 0)) if self.is_hung_up() => Ok(Received::Closed),
            Ok((_, bytes)) => Ok(Received::Packet(bytes)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(Received::Nothing),
            Err(Errno::CONNRESET) => Ok(Received::Closed),
            Err(e) => Err(e.into()),
        }
    }

    /// Waits for a packet, at most `limit`; a client's call.
    pub fn receive_within(&self, buffer: &mut [u8], limit: Duration) -> io::Result<Received> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = rustix_timespec(nanos(left));
            match poll(&mut [PollFd::new(&self.fd, PollFlags::IN)], Some(&left)) {
                Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                Ok(_) => match self.receive(buffer)? {
                    Received::Nothing => {}
                    other => return Ok(other),
                },
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Sends a packet if there is room for all of it; `false` when the other side does not read.
    pub fn send(&self, packet: &[u8]) -> io::Result<bool> {
        match rustix::net::send(&self.fd, packet, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(_) => Ok(true),
            Err(Errno::AGAIN | Errno::INTR | Errno::NOBUFS) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// Room for packets that the other side has not read yet, in bytes; about five times a packet's
    /// length counts.
    ///
    /// Without CAP_NET_ADMIN the kernel grants at most net.core.wmem_max, and reports no error.
    pub fn set_send_buffer(&self, bytes: usize) -> io::Result<()> {
        let forced = sockopt::set_socket_send_buffer_size_force(&self.fd, bytes);
        forced.or_else(|_| sockopt::set_socket_send_buffer_size(&self.fd, bytes))?;
        Ok(())
    }

    /// Sends a packet with descriptors (SCM_RIGHTS) if there is room for all of it; `false` when
    /// the other side does not read.
    pub fn send_with(&self, packet: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<bool> {
        if fds.is_empty() {
            return self.send(packet);
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(io::Error::other(format!(
                "{} descriptors, at most {FDS_MAX} are allowed",
                fds.len()
            )));
        }
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        match rustix::net::sendmsg(&self.fd, &[IoSlice::new(packet)], &mut control, flags) {
            Ok(_) => Ok(true),
            // TOOMANYREFS: too many descriptors of ours are on their way to readers that do not
            // read.
            Err(Errno::AGAIN | Errno::INTR | Errno::NOBUFS | Errno::TOOMANYREFS) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// Takes a packet with the descriptors that came with it, never waits.
    pub fn receive_with(&self, buffer: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<Received> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC | RecvFlags::TRUNC;
        let mut slices = [IoSliceMut::new(buffer)];
        match past_reset(|| rustix::net::recvmsg(&self.fd, &mut slices, &mut control, flags)) {
            Ok(got) if got.bytes == 0 && self.is_hung_up() => Ok(Received::Closed),
            // The buffer has room for all that rtd sends: this process had no numbers left for
            // them.
            Ok(got) if got.flags.contains(ReturnFlags::CTRUNC) => Err(Errno::MFILE.into()),
            Ok(got) => {
                for message in control.drain() {
                    if let RecvAncillaryMessage::ScmRights(rights) = message {
                        fds.extend(rights);
                    }
                }
                Ok(Received::Packet(got.bytes))
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(Received::Nothing),
            Err(Errno::CONNRESET) => Ok(Received::Closed),
            Err(e) => Err(e.into()),
        }
    }

    /// Ends the connection, also where a forked child has a copy of the descriptor.
    pub fn hang_up(self) {
        // It fails where the other side has closed: then the connection has ended.
        let _ = rustix::net::shutdown(&self.fd, rustix::net::Shutdown::Both);
    }

    /// Whether the other side has closed, or will send nothing more; packets may still be there to
    /// be read.
    pub fn is_hung_up(&self) -> bool {
        let mut fds = [PollFd::new(&self.fd, PollFlags::RDHUP)];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        poll(&mut fds, Some(&now)).is_ok()
            && fds[0]
                .revents()
                .intersects(PollFlags::RDHUP | PollFlags::HUP)
    }
}

impl AsFd for Conn {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Receives once more after ECONNRESET. The kernel reports it once, and before the packets that are
/// still there to be read, when the other side ended with packets of ours unread.
fn past_reset<T>(mut receive: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    match receive() {
        Err(Errno::CONNRESET) => receive(),
        other => other,
    }
}

/// Socket options that the crates lack or type too narrowly (rustix has no pid 0 for a stranger's
/// namespace).
mod rawopt {
    use super::*;

    /// Not in the libc crate; the same number wherever SO_PEERCRED is the generic 17.
    const SO_PEERPIDFD: i32 = 77;
    const SO_PEERGROUPS: i32 = 59;

    fn get<T>(fd: BorrowedFd<'_>, option: i32, values: &mut [T]) -> io::Result<usize> {
        let mut bytes =
            libc::socklen_t::try_from(size_of_val(values)).unwrap_or(libc::socklen_t::MAX);
        // SAFETY: the kernel writes at most `bytes` bytes into `values`, which is that large; the
        // callers pass plain integers and structs of integers, for which every bit pattern is a
        // value.
        let rc = unsafe {
            libc::getsockopt(
                fd.as_raw_fd(),
                libc::SOL_SOCKET,
                option,
                values.as_mut_ptr().cast(),
                &raw mut bytes,
            )
        };
        if rc < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(usize::try_from(bytes).unwrap_or(0) / size_of::<T>())
    }

    pub fn peer_cred(fd: BorrowedFd<'_>) -> io::Result<libc::ucred> {
        let mut cred = [libc::ucred {
            pid: 0,
            uid: u32::MAX,
            gid: u32::MAX,
        }];
        get(fd, libc::SO_PEERCRED, &mut cred).map_err(|e| named("SO_PEERCRED", e))?;
        Ok(cred[0])
    }

    pub fn peer_groups(fd: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
        let mut groups = vec![0_u32; 64];
        loop {
            match get(fd, SO_PEERGROUPS, &mut groups) {
                Ok(count) => {
                    groups.truncate(count);
                    return Ok(groups);
                }
                Err(e) if e.raw_os_error() == Some(libc::ERANGE) && groups.len() < GROUPS_MAX => {
                    groups.resize(GROUPS_MAX, 0);
                }
                Err(e) => return Err(named("SO_PEERGROUPS", e)),
            }
        }
    }

    /// `None` where the kernel does not know the option.
    pub fn peer_pidfd(fd: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
        if libc::SO_PEERCRED != 17 {
            return Ok(None);
        }
        let mut raw = [-1_i32];
        match get(fd, SO_PEERPIDFD, &mut raw) {
            // SAFETY: the kernel opened this descriptor for us just now; nobody else owns it.
            Ok(1) if raw[0] >= 0 => Ok(Some(unsafe { OwnedFd::from_raw_fd(raw[0]) })),
            Err(e) if e.raw_os_error() != Some(libc::ENOPROTOOPT) => Err(e),
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
#[path = "seqpacket_tests.rs"]
mod tests;
