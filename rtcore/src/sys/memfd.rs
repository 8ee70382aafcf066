//! Memory that is handed to other processes by descriptor (memfd_create(2)).
//!
//! Its size is sealed at birth: a peer that could shrink it would make us die of SIGBUS. Who must
//! not write gets a descriptor that is open for reading; and before a *third* process gets one,
//! [`Memory::deny_writers`] makes sure that it cannot open the memory again for writing through
//! /proc (mappings that exist stay as they are).

use super::forked::Creator;
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, MlockFlags, ProtFlags};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

#[derive(Debug)]
pub struct Memory {
    fd: OwnedFd,
    len: usize,
}

impl Memory {
    /// `len` zero bytes, rounded up to pages and backed by memory. `name` shows in /proc/PID/maps.
    pub fn new(name: &str, len: usize) -> io::Result<Memory> {
        let len = len.next_multiple_of(PAGE_BYTES);
        let fd = create(name, MemfdFlags::ALLOW_SEALING)?;
        let bytes = u64::try_from(len).map_err(io::Error::other)?;
        // Reserved, so that a machine without memory fails here and not by SIGBUS at the first
        // access.
        rustix::fs::fallocate(&fd, rustix::fs::FallocateFlags::empty(), 0, bytes)?;
        rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW)?;
        // Its mode lets only its owner (and root) open it again.
        rustix::fs::fchmod(&fd, Mode::RUSR | Mode::WUSR)?;
        Ok(Memory { fd, len })
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never: a mapping of nothing is refused by the kernel.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A descriptor of the same memory that is open for reading only.
    pub fn read_only(&self) -> io::Result<OwnedFd> {
        let path = format!("/proc/self/fd/{}", self.fd.as_raw_fd());
        Ok(rustix::fs::open(
            path,
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )?)
    }

    /// The same memory once more.
    pub fn try_clone(&self) -> io::Result<Memory> {
        Ok(Memory {
            fd: self.fd.try_clone()?,
            len: self.len,
        })
    }

    /// From now on nobody maps it for writing any more, or takes pages away from it (fallocate(2),
    /// madvise(2) MADV_REMOVE), also where it is mapped for writing; and nobody adds or removes
    /// seals.
    pub fn deny_writers(&self) -> io::Result<()> {
        Ok(rustix::fs::fcntl_add_seals(
            &self.fd,
            SealFlags::FUTURE_WRITE | SealFlags::SEAL,
        )?)
    }

    /// Maps it for writing.
    pub fn map_writable(&self) -> io::Result<Map> {
        Map::new(self.fd.as_fd(), self.len, true)
    }

    /// Maps it for reading.
    pub fn map_read_only(&self) -> io::Result<Map> {
        Map::new(self.fd.as_fd(), self.len, false)
    }
}

/// Device and inode: no other memory that exists has the same.
pub fn identity(fd: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::fstat(fd)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// A nameless file that grows as it is written, for the output of a child.
pub fn scratch(name: &str) -> io::Result<File> {
    Ok(create(name, MemfdFlags::empty())?.into())
}

/// Memory that can never be executed: where vm.memfd_noexec is 2, the kernel refuses any other
/// (EACCES).
fn create(name: &str, flags: MemfdFlags) -> io::Result<OwnedFd> {
    let flags = flags | MemfdFlags::CLOEXEC;
    match rustix::fs::memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
        // Linux before 6.3 does not know the flag.
        Err(Errno::INVAL) => Ok(rustix::fs::memfd_create(name, flags)?),
        created => Ok(created?),
    }
}

impl AsFd for Memory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

const PAGE_BYTES: usize = 4096;
/// statfs(2): tmpfs, which memfd_create(2) without MFD_HUGETLB makes its files on.
const TMPFS_MAGIC: rustix::fs::FsWord = 0x0102_1994;

/// A mapping: present, locked where that is granted, and not inherited by children of fork(2). A
/// child's copy of this value maps nothing, and dropping it unmaps nothing: the child may have
/// other memory at that address.
#[derive(Debug)]
pub struct Map {
    start: NonNull<u8>,
    len: usize,
    locked: bool,
    creator: Creator,
}

// SAFETY: the mapping belongs to nobody's thread; what is read or written through it is the user's
// to order.
unsafe impl Send for Map {}
// SAFETY: as above; `start` hands out a raw pointer only.
unsafe impl Sync for Map {}

impl Map {
    /// Maps `len` bytes of memory that came by descriptor, after checking its size, and that it is
    /// sealed against shrinking.
    pub fn of(fd: BorrowedFd<'_>, len: usize, writable: bool) -> io::Result<Map> {
        let len = len.next_multiple_of(PAGE_BYTES);
        let size = File::from(fd.try_clone_to_owned()?).metadata()?.len();
        let sealed = rustix::fs::fcntl_get_seals(fd)?.contains(SealFlags::SHRINK);
        if size != len as u64 || !sealed {
            let text =
                format!("memory of {size} bytes (sealed: {sealed}), expected {len} sealed bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Map::new(fd, len, writable)
    }

    /// Maps the first `part` bytes of memory of `len` bytes whose descriptor an untrusted process
    /// sent. It may be a descriptor of any file, and the checks must neither block nor map memory
    /// whose access could end this process:
    ///
    /// 1. F_GET_SEALS asks no file system: it fails for everything but tmpfs and hugetlbfs. With
    ///    SHRINK, the size stays.
    /// 2. Only tmpfs: a page of hugetlbfs that is not available is a SIGBUS.
    /// 3. The size is the promised one, so that what is populated is bounded.
    pub fn of_stranger(
        fd: BorrowedFd<'_>,
        len: usize,
        part: usize,
        writable: bool,
    ) -> io::Result<Map> {
        let invalid = |text: &str| io::Error::new(io::ErrorKind::InvalidData, text.to_owned());
        if !rustix::fs::fcntl_get_seals(fd)?.contains(SealFlags::SHRINK) {
            return Err(invalid("the size of its memory is not sealed"));
        }
        if rustix::fs::fstatfs(fd)?.f_type != TMPFS_MAGIC {
            return Err(invalid("its memory is not on a tmpfs"));
        }
        let size = rustix::fs::fstat(fd)?.st_size;
        if u64::try_from(size) != Ok(len.next_multiple_of(PAGE_BYTES) as u64) || part > len {
            return Err(invalid("its memory has another size"));
        }
        Map::new(fd, part.next_multiple_of(PAGE_BYTES), writable)
    }

    fn new(fd: BorrowedFd<'_>, len: usize, writable: bool) -> io::Result<Map> {
        let creator = Creator::current()?;
        let prot = if writable {
            ProtFlags::READ | ProtFlags::WRITE
        } else {
            ProtFlags::READ
        };
        let flags = MapFlags::SHARED | MapFlags::POPULATE;
        // SAFETY: the kernel chooses a free place; nothing of ours is there.
        let start = unsafe { rustix::mm::mmap(std::ptr::null_mut(), len, prot, flags, fd, 0)? };
        let start =
            NonNull::new(start.cast::<u8>()).ok_or_else(|| io::Error::other("mmap gave null"))?;
        let mut map = Map {
            start,
            len,
            locked: false,
            creator,
        };
        // SAFETY: the range is this mapping.
        unsafe {
            // A child of fork(2) that shares a ring would be a second producer.
            rustix::mm::madvise(start.as_ptr().cast(), len, Advice::LinuxDontFork)?;
            map.locked =
                rustix::mm::mlock_with(start.as_ptr().cast(), len, MlockFlags::empty()).is_ok();
        }
        if writable {
            map.fault_in();
        }
        Ok(map)
    }

    /// MAP_POPULATE only reads shared pages in; the first write would fault once more. Adding zero
    /// changes no value, whatever the other side writes meanwhile.
    fn fault_in(&self) {
        for offset in (0..self.len).step_by(PAGE_BYTES) {
            // SAFETY: inside the mapping, aligned to a page, mapped for writing.
            let word = unsafe {
                std::sync::atomic::AtomicU32::from_ptr(self.start.as_ptr().add(offset).cast())
            };
            word.fetch_add(0, std::sync::atomic::Ordering::Relaxed);
        }
    }

    /// Address of the first byte.
    pub fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Always false: a mapping has at least one byte.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Locks it again, which brings back pages that its writer has taken away. After
    /// [`Memory::deny_writers`].
    pub fn lock_again(&self) {
        if self.locked {
            // SAFETY: the range is this mapping.
            let _ = unsafe {
                rustix::mm::mlock_with(self.start.as_ptr().cast(), self.len, MlockFlags::empty())
            };
        }
    }

    /// The process that has it mapped.
    pub fn creator(&self) -> Creator {
        self.creator
    }

    /// Whether its pages are locked (RLIMIT_MEMLOCK or CAP_IPC_LOCK allow it).
    pub fn is_locked(&self) -> bool {
        self.locked
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        if !self.creator.is_current() {
            return;
        }
        // SAFETY: the mapping was made in `new`, by this process; who kept pointers kept the Map as
        // well.
        let unmapped = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.len) };
        debug_assert!(unmapped.is_ok(), "munmap of an own mapping");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_shrinks_it_and_a_reader_cannot_become_a_writer() {
        let memory = Memory::new("rtd-test", 5000).unwrap();
        assert_eq!(memory.len(), 8192);
        assert!(rustix::fs::ftruncate(&memory, 0).is_err());
        let writer = memory.map_writable().unwrap();
        let reader = memory.read_only().unwrap();
        assert!(
            Map::of(reader.as_fd(), 8192, true).is_err(),
            "a descriptor for reading"
        );
        memory.deny_writers().unwrap();
        let path = format!("/proc/self/fd/{}", reader.as_raw_fd());
        let again = rustix::fs::open(path, OFlags::RDWR, Mode::empty()).unwrap();
        assert!(
            Map::of(again.as_fd(), 8192, true).is_err(),
            "opened again through /proc"
        );
        let view = Map::of(reader.as_fd(), 8192, false).unwrap();
        // SAFETY: both mappings have 8192 bytes; nobody else writes.
        unsafe {
            writer.start().as_ptr().add(5000).write_volatile(7);
            assert_eq!(view.start().as_ptr().add(5000).read_volatile(), 7);
        }
    }

    /// A page that is taken away is a fault of the next reader, whatever that has locked.
    #[test]
    fn a_writer_takes_pages_away_until_further_writers_are_denied() {
        use rustix::fs::{FallocateFlags, fallocate};
        let memory = Memory::new("rtd-test", 8192).unwrap();
        let writer = memory.map_writable().unwrap();
        let punch = || {
            let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            fallocate(&memory.fd, hole, 0, 8192).is_ok()
        };
        let remove = || {
            let (start, len) = (writer.start().as_ptr().cast(), writer.len());
            // SAFETY: the range is the mapping, and nothing else uses it.
            unsafe {
                // One that is locked is refused with EINVAL: its owner can unlock it.
                let _ = rustix::mm::munlock(start, len);
                rustix::mm::madvise(start, len, Advice::LinuxRemove).is_ok()
            }
        };
        assert!(punch() && remove(), "the kernel lets a writer");
        memory.deny_writers().unwrap();
        assert!(!punch() && !remove());
    }

    #[test]
    fn memory_that_is_not_what_was_promised_is_not_mapped() {
        let memory = Memory::new("rtd-test", 4096).unwrap();
        assert!(Map::of(memory.as_fd(), 8192, false).is_err());
        let loose = rustix::fs::memfd_create("loose", MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::fs::ftruncate(&loose, 4096).unwrap();
        assert!(Map::of(loose.as_fd(), 4096, false).is_err(), "not sealed");
        let stranger = |fd: BorrowedFd<'_>, len| Map::of_stranger(fd, len, len, false).is_ok();
        assert!(stranger(memory.as_fd(), 4096) && !stranger(memory.as_fd(), 8192));
        assert!(
            !stranger(loose.as_fd(), 4096)
                && !stranger(File::open("/dev/zero").unwrap().as_fd(), 4096)
        );
        // If the machine has no huge pages, the kernel still makes the file.
        let huge = MemfdFlags::ALLOW_SEALING | MemfdFlags::HUGETLB;
        if let Ok(huge) = rustix::fs::memfd_create("huge", huge) {
            rustix::fs::ftruncate(&huge, 2 << 20).unwrap();
            rustix::fs::fcntl_add_seals(&huge, SealFlags::SHRINK).unwrap();
            assert!(
                !stranger(huge.as_fd(), 2 << 20),
                "a page that cannot be had would be a SIGBUS"
            );
        }
    }
}
