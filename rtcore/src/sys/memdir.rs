//! Directories on file systems that live in memory, owned by this user and writable by nobody else.
//!
//! A real-time thread may write to a shared mapping of a file only if the file is in memory (tmpfs,
//! ramfs): on a disk file system the kernel write-protects each dirty page for writeback, and the
//! next store faults and may wait for the disk.

use super::procfs::{effective_uid, named};
use rustix::fs::Mode;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// From linux/magic.h.
const MEMORY_FILE_SYSTEMS: [i64; 2] = [0x0102_1994, 0x8584_58f6];

/// Whether files in `dir` are in memory only.
pub fn in_memory(dir: &Path) -> io::Result<bool> {
    let found = rustix::fs::statfs(dir).map_err(|e| named(dir.display(), e))?;
    #[expect(
        clippy::useless_conversion,
        reason = "the width of f_type depends on the architecture"
    )]
    Ok(MEMORY_FILE_SYSTEMS.contains(&i64::from(found.f_type)))
}

/// Checks that `dir` is in memory, belongs to this process' user and is closed to others; makes it
/// if only the last component is missing.
pub fn ensure(dir: &Path) -> io::Result<()> {
    match entry(dir)? {
        Some(found) => check(dir, &found),
        None => make(dir),
    }
}

fn entry(path: &Path) -> io::Result<Option<Metadata>> {
    match path.symlink_metadata() {
        Ok(found) => Ok(Some(found)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(named(path.display(), e)),
    }
}

fn parent(dir: &Path) -> io::Result<&Path> {
    dir.parent().ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{} has no parent", dir.display()),
        )
    })
}

/// For everybody to read and pass, for this user to write.
fn make(dir: &Path) -> io::Result<()> {
    let mode = Mode::from_raw_mode(0o755);
    memory_only(parent(dir)?)?;
    match rustix::fs::mkdir(dir, mode) {
        // mkdir(2) applied the umask.
        Ok(()) => rustix::fs::chmod(dir, mode).map_err(|e| named(dir.display(), e)),
        // Another daemon of this user starts as well, or a stranger was faster.
        Err(rustix::io::Errno::EXIST) => match entry(dir)? {
            Some(found) => check(dir, &found),
            None => Err(named(dir.display(), rustix::io::Errno::NOENT)),
        },
        Err(e) => Err(named(dir.display(), e)),
    }
}

fn check(dir: &Path, found: &Metadata) -> io::Result<()> {
    let refuse = |text: String| Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    if !found.is_dir() {
        return refuse(format!("{} is not a directory", dir.display()));
    }
    if found.uid() != effective_uid() {
        return refuse(format!("{} belongs to uid {}", dir.display(), found.uid()));
    }
    if found.mode() & 0o022 != 0 {
        return refuse(format!(
            "{0} can be written by others: chmod go-w {0}",
            dir.display()
        ));
    }
    memory_only(dir)
}

fn memory_only(dir: &Path) -> io::Result<()> {
    if in_memory(dir)? {
        return Ok(());
    }
    let text = format!("{} is not on a tmpfs", dir.display());
    Err(io::Error::new(io::ErrorKind::Unsupported, text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, chown};
    use std::path::PathBuf;

    fn scratch(name: &str) -> PathBuf {
        Path::new(crate::sys::shm::DIR).join(format!("rtd-memdir-{name}-{}", std::process::id()))
    }

    #[test]
    fn a_disk_is_refused_and_memory_is_not() {
        assert!(in_memory(Path::new(crate::sys::shm::DIR)).unwrap());
        assert!(!in_memory(Path::new("/proc")).unwrap());
        let refused = ensure(Path::new("/proc/rtd")).unwrap_err().to_string();
        assert!(refused.contains("/proc is not on a tmpfs"), "{refused}");
    }

    #[test]
    fn a_directory_that_others_own_or_can_write_is_refused() {
        let dir = scratch("mode");
        ensure(&dir).unwrap();
        assert_eq!(dir.metadata().unwrap().mode() & 0o777, 0o755);
        ensure(&dir).expect("it is there already");
        std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o775)).unwrap();
        let refused = ensure(&dir).unwrap_err().to_string();
        assert!(refused.contains("chmod go-w"), "{refused}");
        if chown(&dir, Some(12345), None).is_ok() {
            let refused = ensure(&dir).unwrap_err().to_string();
            assert!(refused.contains("belongs to uid 12345"), "{refused}");
        }
        std::fs::remove_dir(&dir).unwrap();
        std::os::unix::fs::symlink(std::env::temp_dir(), &dir).unwrap();
        let refused = ensure(&dir).unwrap_err().to_string();
        std::fs::remove_file(&dir).unwrap();
        assert!(refused.contains("is not a directory"), "{refused}");
    }
}
