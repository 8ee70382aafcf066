//! Names that appear in a directory (inotify(7)): how a client learns at once that a daemon listens again.

use super::procfs::named;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// A watch on one directory. Readable when a name appeared there, or the directory itself went.
///
/// A process that ends with a watch, or soon after removing one, ends late: the kernel waits for all readers of its marks
/// (fsnotify_wait_marks_destroyed), tens of milliseconds as a rule, before the process' descriptor says that it is dead.
/// A descriptor without a watch costs nothing there.
#[derive(Debug)]
pub struct DirWatch {
    fd: OwnedFd,
    watched: Option<i32>,
}

impl DirWatch {
    /// Watches nothing yet.
    ///
    /// Errors: EMFILE when the user has more than fs.inotify.max_user_instances.
    pub fn new() -> io::Result<DirWatch> {
        let fd =
            inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(|e| named("inotify", e))?;
        Ok(DirWatch { fd, watched: None })
    }

    /// Watches this directory from now on, and no other. Watching it again changes nothing, so call it before each look.
    ///
    /// Errors: it does not exist, is no directory, or fs.inotify.max_user_watches is reached.
    pub fn watch(&mut self, dir: &Path) -> io::Result<()> {
        let news =
            WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF;
        let added = inotify::add_watch(&self.fd, dir, news | WatchFlags::ONLYDIR);
        let added = added.map_err(|e| named(dir.display(), e))?;
        if self.watched != Some(added) {
            self.unwatch();
        }
        self.watched = Some(added);
        Ok(())
    }

    /// Watches nothing any more. Does not wait for the kernel.
    pub fn unwatch(&mut self) {
        if let Some(watched) = self.watched.take() {
            // It fails for a directory that is gone, and its watch with it.
            let _ = inotify::remove_watch(&self.fd, watched);
        }
    }

    /// Takes what has happened, unread: that something has is all there is to know. True if it has.
    pub fn take(&self) -> bool {
        let mut buffer = [0_u8; 4096];
        let mut any = false;
        while rustix::io::read(&self.fd, &mut buffer).is_ok_and(|n| n > 0) {
            any = true;
        }
        any
    }
}

impl AsFd for DirWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_appears_is_told() {
        let dir = std::env::temp_dir().join(format!("rtd-inotify-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let mut watch = DirWatch::new().unwrap();
        watch.watch(&dir).unwrap();
        assert!(!watch.take());
        std::fs::write(dir.join("name"), b"").unwrap();
        assert!(watch.take());
        assert!(!watch.take());
        watch.unwatch();
        watch.take();
        std::fs::write(dir.join("another"), b"").unwrap();
        assert!(!watch.take(), "nothing is watched");
        watch.watch(&dir).unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
        assert!(watch.take());
        assert!(watch.watch(&dir).unwrap_err().to_string().contains("rtd-inotify"));
    }
}
