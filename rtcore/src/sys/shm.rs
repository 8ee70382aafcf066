//! Named shared memory on tmpfs (shm_overview(7)): a file that appears complete or not at all, and
//! whose owner is alive exactly as long as it holds the file's write lock.
//!
//! The lock is an open-file-description lock (fcntl(2), F_OFD_SETLK), not flock(2), for two
//! reasons: it can be asked about without taking it (F_OFD_GETLK), so that a reader's question
//! never makes a daemon that starts in the same moment believe the name is taken; and a write lock
//! needs a descriptor that is open for writing, so that nobody but the file's owner can pretend to
//! be a live daemon.
//!
//! Invariant: a file at its name was written completely and locked before the name existed.

use rustix::fs::{AtFlags, CWD, FallocateFlags};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};
use std::fs::{File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::Arc;

/// A directory on a tmpfs that exists on every Linux and that every user may write.
pub const DIR: &str = "/dev/shm";

/// Attempts to put a file at its name while others take and leave the name.
const PUBLISH_ATTEMPTS_MAX: usize = 16;

/// A writable shared mapping, every page of it present.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping is memory that stays where it is until drop; access to it is governed by
// `bytes_mut` (exclusive) and the contract of `view`.
unsafe impl Send for Mapping {}
// SAFETY: as above; `view` hands out shared references only.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the first `len` bytes of a file that has as many.
    pub(crate) fn new(file: &File, len: usize) -> io::Result<Mapping> {
        let flags = MapFlags::SHARED | MapFlags::POPULATE;
        // SAFETY: a fresh mapping at an address of the kernel's choice touches no existing memory.
        let start = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                flags,
                file,
                0,
            )?
        };
        let start = NonNull::new(start.cast::<u8>())
            .ok_or_else(|| io::Error::other("mmap returned address 0 for shared memory"))?;
        Ok(Mapping { start, len })
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the mapping has no bytes; never true.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The whole mapping, before it is shared.
    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: start..start+len is mapped read-write until drop, `&mut self` excludes every
        // `view` in this process, and no other process has a name for the file yet (only `Draft`
        // calls this).
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }

    /// A record inside the mapping.
    ///
    /// # Panics
    /// When the record does not lie inside the mapping or is not aligned.
    ///
    /// # Safety
    /// 1. What is written after the file was published is, in every type ever viewed there, an
    ///    atomic.
    /// 2. The reference is not used after the mapping is gone (its lifetime says so; a pointer made
    ///    of it must be kept beside an `Arc<Mapping>`).
    pub unsafe fn view<T: zerocopy::FromBytes>(&self, offset: usize) -> &T {
        let end = offset.checked_add(size_of::<T>());
        assert!(
            end.is_some_and(|end| end <= self.len),
            "record at {offset} outside {} bytes",
            self.len
        );
        // SAFETY: offset <= len by the assertion above.
        let at = unsafe { self.start.as_ptr().add(offset) }.cast::<T>();
        assert!(at.is_aligned(), "record at {offset} is not aligned");
        // SAFETY: in bounds and aligned by the assertions above; any bytes are a valid T
        // (FromBytes); data races are excluded by point 1 of the contract.
        unsafe { &*at }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping was made in `new` and nothing refers to it any more (contract of
        // `view`).
        let unmapped = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.len) };
        debug_assert!(unmapped.is_ok(), "munmap of an own mapping");
    }
}

/// Shared memory that has no name yet: nobody else sees it.
#[derive(Debug)]
pub struct Draft {
    file: File,
    map: Mapping,
}

impl Draft {
    /// `len` zero bytes in `dir`, which must be in memory ([`super::memdir`]): backed by memory,
    /// write-locked, mapped and faulted in for writing.
    pub fn new(dir: &Path, len: usize) -> io::Result<Draft> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .mode(0o600)
            .custom_flags(libc::O_TMPFILE | libc::O_CLOEXEC)
            .open(dir)
            .map_err(|e| context(e, "cannot create shared memory in", dir))?;
        let bytes = u64::try_from(len).map_err(io::Error::other)?;
        // Without this a full tmpfs shows as SIGBUS at the first touch instead of ENOSPC here.
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes)
            .map_err(|e| no_room(e, len, dir))?;
        // Before the name exists and while the mode is 0600, so that no one else can hold a lock on
        // it.
        if !set_write_lock(&file)? {
            return Err(io::Error::other(
                "a nameless shared-memory file was locked by somebody else",
            ));
        }
        file.set_permissions(Permissions::from_mode(0o644))?;
        let mut map = Mapping::new(&file, len).map_err(|e| {
            context(
                e,
                &format!("cannot map {len} bytes of shared memory in"),
                dir,
            )
        })?;
        // MAP_POPULATE only reads shared pages in; the write prevents a fault of a lane.
        for page in map.bytes_mut().chunks_mut(4096) {
            // SAFETY: a plain byte of an exclusive slice; volatile so that writing a 0 over a 0
            // happens.
            unsafe { std::ptr::write_volatile(page.as_mut_ptr(), 0) };
        }
        Ok(Draft { file, map })
    }

    /// The memory, for filling it.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.map.bytes_mut()
    }

    /// Gives the memory its name, readable for all. A file that is already there is replaced when
    /// it is ours (same user) and its owner is gone.
    pub fn publish(self, path: &Path) -> Result<Published, PublishError> {
        crate::fault_point!(
            "after_page_filled_before_named",
            return Err(io::Error::from(io::ErrorKind::StorageFull).into())
        );
        let uid = self.file.metadata()?.uid();
        let this = PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()));
        for _ in 0..PUBLISH_ATTEMPTS_MAX {
            match rustix::fs::linkat(CWD, &this, CWD, path, AtFlags::SYMLINK_FOLLOW) {
                Ok(()) => {
                    let id = FileId::of(&self.file.metadata()?);
                    let map = Arc::new(self.map);
                    return Ok(Published {
                        path: path.to_owned(),
                        id,
                        map,
                        _locked: self.file,
                    });
                }
                Err(rustix::io::Errno::EXIST) => remove_stale(path, uid)?,
                Err(e) => return Err(context(e.into(), "cannot name shared memory", path).into()),
            }
        }
        Err(PublishError::Locked)
    }
}

/// Why the name could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// Somebody alive holds it.
    #[error("the file is locked by a running process")]
    Locked,
    /// It belongs to another user.
    #[error("the file belongs to uid {0}")]
    Foreign(u32),
    /// A directory, a link, a device: nothing that this module made.
    #[error("it is not a regular file")]
    NotAFile,
    /// A call failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Removes the file that a dead owner of this user left at `path`; does nothing if the name was
/// removed or replaced meanwhile.
pub fn remove_stale(path: &Path, uid: u32) -> Result<(), PublishError> {
    let Some(found) = at_name(path)? else {
        return Ok(());
    };
    if !found.is_file() {
        return Err(PublishError::NotAFile);
    }
    if found.uid() != uid {
        return Err(PublishError::Foreign(found.uid()));
    }
    let flags = libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK;
    let file = match OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(flags)
        .open(path)
    {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(context(e, "cannot open shared memory", path).into()),
    };
    if write_locked(&file)? {
        return Err(PublishError::Locked);
    }
    // Two daemons that start together both come here: the lock on the stale file decides which of
    // them removes it. Failing to lock with no writer about means that a stranger read-locked the
    // file; that must not keep a daemon from starting.
    if !set_write_lock(&file)? && write_locked(&file)? {
        return Err(PublishError::Locked);
    }
    let id = FileId::of(&file.metadata()?);
    if at_name(path)?.is_some_and(|now| FileId::of(&now) == id) {
        remove(path)?;
    }
    Ok(())
}

fn at_name(path: &Path) -> io::Result<Option<Metadata>> {
    match std::fs::symlink_metadata(path) {
        Ok(found) => Ok(Some(found)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(context(e, "cannot look at", path)),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(context(e, "cannot remove", path)),
        _ => Ok(()),
    }
}

/// Shared memory at its name. Dropping it removes the name if it still is this file's.
#[derive(Debug)]
pub struct Published {
    path: PathBuf,
    id: FileId,
    map: Arc<Mapping>,
    // Its write lock is the sign of life; closed last.
    _locked: File,
}

impl Published {
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the name still leads to this file. Errors count as yes, because they show nothing
    /// about the name.
    pub fn is_current(&self) -> bool {
        at_name(&self.path).map_or(true, |found| {
            found.is_some_and(|found| FileId::of(&found) == self.id)
        })
    }

    /// The shared memory.
    pub fn mapping(&self) -> &Arc<Mapping> {
        &self.map
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        // Nobody replaces the name while the lock is held, so nothing changes between check and
        // removal.
        if let Ok(Some(now)) = at_name(&self.path)
            && FileId::of(&now) == self.id
        {
            let _ = remove(&self.path);
        }
    }
}

/// Identifies a file, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    fn of(metadata: &Metadata) -> FileId {
        FileId {
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }

    /// The file that has the name now, if any.
    pub fn at(path: &Path) -> io::Result<Option<FileId>> {
        Ok(at_name(path)?.map(|found| FileId::of(&found)))
    }
}

/// Somebody else's shared memory, read by copying (pread(2)): a file that shrinks under the reader
/// is a short read, where a mapping would be SIGBUS.
#[derive(Debug)]
pub struct Shared {
    file: File,
    id: FileId,
    uid: u32,
}

impl Shared {
    /// Opens a regular file; links are not followed and a FIFO does not hold the caller up.
    pub fn open(path: &Path) -> io::Result<Shared> {
        let flags = libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK;
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(flags)
            .open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a regular file",
            ));
        }
        Ok(Shared {
            file,
            id: FileId::of(&metadata),
            uid: metadata.uid(),
        })
    }

    /// Current length in bytes.
    pub fn current_len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Identifies the file.
    pub fn id(&self) -> FileId {
        self.id
    }

    /// Owner of the file.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// Copies `bytes.len()` bytes from `offset` on, or fails with `UnexpectedEof`.
    pub fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(bytes, offset)
    }

    /// Whether the owner that published it is alive. Takes no lock itself.
    pub fn owner_alive(&self) -> io::Result<bool> {
        write_locked(&self.file)
    }
}

/// A container's /dev/shm is a tmpfs of 64 MiB by default.
fn no_room(e: Errno, len: usize, dir: &Path) -> io::Error {
    let e = context(e.into(), &format!("cannot reserve {len} bytes in"), dir);
    match e.kind() {
        io::ErrorKind::StorageFull => {}
        io::ErrorKind::FileTooLarge => {
            let text = format!(
                "{e}; RLIMIT_FSIZE is smaller: LimitFSIZE=infinity in the unit's [Service] section"
            );
            return io::Error::new(e.kind(), text);
        }
        _ => return e,
    }
    let shown = dir.display();
    let text = format!(
        "{e}; this tmpfs is full: remove files from it or make it larger (df {shown}; mount -o remount,size=N; for a \
         container --shm-size)"
    );
    io::Error::new(e.kind(), text)
}

fn context(e: io::Error, what: &str, path: &Path) -> io::Error {
    super::context::named(format_args!("{what} {}", path.display()), e)
}

fn lock_request(kind: i32) -> io::Result<libc::flock> {
    // SAFETY: flock is plain integers; zero is valid for each (and l_pid must be 0 for OFD locks).
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = i16::try_from(kind).map_err(io::Error::other)?;
    lock.l_whence = i16::try_from(libc::SEEK_SET).map_err(io::Error::other)?;
    Ok(lock)
}

/// Takes the write lock for the life of the open file; false when somebody else holds any lock on
/// it.
fn set_write_lock(file: &File) -> io::Result<bool> {
    let lock = lock_request(libc::F_WRLCK)?;
    // SAFETY: the descriptor is open for the call and `lock` outlives it.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) } == 0 {
        return Ok(true);
    }
    let e = io::Error::last_os_error();
    match e.raw_os_error() {
        Some(libc::EAGAIN | libc::EACCES) => Ok(false),
        _ => Err(io::Error::new(
            e.kind(),
            format!("cannot write-lock shared memory: {e}"),
        )),
    }
}

/// Whether another open file holds the write lock: "would a read lock conflict?" is asked, not
/// taken.
fn write_locked(file: &File) -> io::Result<bool> {
    let mut lock = lock_request(libc::F_RDLCK)?;
    // SAFETY: the descriptor is open for the call and `lock` outlives it.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) } != 0 {
        let e = io::Error::last_os_error();
        return Err(io::Error::new(
            e.kind(),
            format!("cannot query the lock of shared memory: {e}"),
        ));
    }
    Ok(i32::from(lock.l_type) != libc::F_UNLCK)
}
