//! A small file that a program keeps for its next start: replaced as a whole (rename(2)), and
//! believed only if nobody but root and the program's own user can have written it.
//!
//! Invariant: the file holds the complete content of one call of [`write()`], or does not exist.

use super::procfs::{effective_uid, named};
use rustix::fs::{Mode, OFlags};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Reads the file; `None` if there is none.
///
/// Errors: it is not a regular file, belongs to neither root nor our effective user, may be written
/// by others, is in a directory of another user, or has more than `bytes_max` bytes.
pub fn read(path: &Path, bytes_max: u64) -> io::Result<Option<String>> {
    // NONBLOCK: a FIFO in its place must not block the open.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(fd) => File::from(fd),
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(e) => return Err(named(path.display(), e)),
    };
    trusted(path, &file)?;
    let mut text = String::new();
    let read = file
        .take(bytes_max + 1)
        .read_to_string(&mut text)
        .map_err(|e| named(path.display(), e))?;
    if u64::try_from(read).unwrap_or(u64::MAX) > bytes_max {
        return Err(not_ours(path, format!("has more than {bytes_max} bytes")));
    }
    Ok(Some(text))
}

/// Puts the text there, in a file of mode 0600 that replaces the one before.
pub fn write(path: &Path, text: &str) -> io::Result<()> {
    let draft = draft(path);
    // Left by a process that was killed while it wrote; if something else is in the way, open(2)
    // reports it.
    let _ = std::fs::remove_file(&draft);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::open(&draft, flags, Mode::RUSR | Mode::WUSR)
        .map_err(|e| named(draft.display(), e))?;
    let replaced = File::from(fd).write_all(text.as_bytes()).and_then(|()| {
        crate::fault_point!(
            "after_draft_before_rename",
            return Err(io::ErrorKind::StorageFull.into())
        );
        std::fs::rename(&draft, path)
    });
    replaced.map_err(|e| {
        let _ = std::fs::remove_file(&draft);
        named(path.display(), e)
    })
}

/// Removes the file and what an interrupted [`write()`] left; none is as good.
pub fn remove(path: &Path) -> io::Result<()> {
    let _ = std::fs::remove_file(draft(path));
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(named(path.display(), e)),
        _ => Ok(()),
    }
}

/// The name under which [`write()`] prepares the file.
pub fn draft(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".new");
    name.into()
}

fn trusted(path: &Path, file: &File) -> io::Result<()> {
    let ours = |uid: u32| uid == 0 || uid == effective_uid();
    let meta = file.metadata().map_err(|e| named(path.display(), e))?;
    if !meta.is_file() {
        return Err(not_ours(path, "is not a regular file".to_owned()));
    }
    if !ours(meta.uid()) {
        let text = format!(
            "belongs to uid {}, not to root or uid {}",
            meta.uid(),
            effective_uid()
        );
        return Err(not_ours(path, text));
    }
    if meta.mode() & 0o022 != 0 {
        return Err(not_ours(
            path,
            format!("may be written by others (mode {:o})", meta.mode() & 0o7777),
        ));
    }
    let dir = path.parent().unwrap_or(Path::new("/"));
    let dir_meta = dir
        .symlink_metadata()
        .map_err(|e| named(dir.display(), e))?;
    // In a directory with the sticky bit others cannot replace a file of ours.
    let open_to_all = dir_meta.mode() & 0o1002 == 0o002;
    if !dir_meta.is_dir() || !ours(dir_meta.uid()) || open_to_all {
        return Err(not_ours(
            path,
            format!("is in {}, which other users may change", dir.display()),
        ));
    }
    Ok(())
}

fn not_ours(path: &Path, text: String) -> io::Error {
    io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!("{} {text}", path.display()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    fn directory(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("rtd-keepfile-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn what_was_written_is_read_and_replaced_as_a_whole() {
        let dir = directory("whole");
        let path = dir.join("kept");
        assert_eq!(read(&path, 10).unwrap(), None);
        for text in ["one", "another"] {
            // As a killed process leaves it.
            std::fs::write(draft(&path), "half").unwrap();
            write(&path, text).unwrap();
            assert_eq!(read(&path, 10).unwrap().as_deref(), Some(text));
            assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o600);
        }
        assert_eq!(
            std::fs::read_dir(&dir).unwrap().count(),
            1,
            "no draft is left"
        );
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert_eq!(read(&path, 10).unwrap(), None);
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn nothing_that_a_stranger_may_have_written_is_believed() {
        let dir = directory("strange");
        let path = dir.join("kept");
        let refused = |says: &str| {
            let text = read(&path, 10).unwrap_err().to_string();
            assert!(text.contains(says), "{text}");
        };
        write(&path, "more than ten").unwrap();
        refused("more than 10 bytes");
        std::fs::write(&path, b"\xff\xfe").unwrap();
        refused("kept");
        write(&path, "text").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o620)).unwrap();
        refused("written by others");
        std::fs::rename(&path, dir.join("elsewhere")).unwrap();
        symlink(dir.join("elsewhere"), &path).unwrap();
        refused("kept");
        std::fs::remove_file(&path).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, Mode::from_raw_mode(0o600)).unwrap();
        refused("not a regular file");
        std::fs::remove_file(&path).unwrap();
        write(&path, "text").unwrap();
        std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o777)).unwrap();
        refused("other users may change");
        if effective_uid() == 0 {
            std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o755)).unwrap();
            chown(&path, Some(12_345), None).unwrap();
            refused("belongs to uid 12345");
        }
        std::fs::remove_dir_all(dir).unwrap();
    }
}
