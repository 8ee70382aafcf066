//! Control files of the kernel's trace (Documentation/trace/ftrace.rst), held open so that a
//! real-time thread writes to them by one write(2) each.

use rtcore::sys::context::named;
use rtcore::sys::{Call, Errno};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The mount points of tracefs: since Linux 4.1, and before.
pub const DIRECTORIES: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// The first of [`DIRECTORIES`] with a trace in it, or one that we may not look into; none: it is
/// not mounted.
pub fn directory() -> Option<PathBuf> {
    let holds_trace = |directory: &&Path| match directory.join("tracing_on").symlink_metadata() {
        Ok(_) => true,
        Err(e) => e.kind() == io::ErrorKind::PermissionDenied,
    };
    DIRECTORIES
        .iter()
        .map(Path::new)
        .find(holds_trace)
        .map(Path::to_path_buf)
}

/// Whether the kernel could mount one.
pub fn is_supported() -> bool {
    std::fs::read_to_string("/proc/filesystems")
        .is_ok_and(|text| text.split_whitespace().any(|w| w == "tracefs"))
}

/// A tracefs that is mounted nowhere: its holder reaches it by [`Detached::path`], and it goes with
/// it (fsmount(2)).
#[derive(Debug)]
pub struct Detached(OwnedFd);

impl Detached {
    /// Mounts one. Errors: EPERM without CAP_SYS_ADMIN, ENODEV on a kernel without it, ENOSYS
    /// before Linux 5.2.
    pub fn mount() -> io::Result<Detached> {
        const CREATE: libc::c_uint = 6;
        let named = |e: io::Error| named("a tracefs of our own", e);
        // SAFETY: the name is a C string, the other argument a flag.
        let context = unsafe { libc::syscall(libc::SYS_fsopen, c"tracefs".as_ptr(), FD_CLOEXEC) };
        let context = owned(context).map_err(named)?;
        let null = std::ptr::null::<libc::c_char>();
        // SAFETY: this command takes no key and no value.
        let rc = unsafe {
            libc::syscall(
                libc::SYS_fsconfig,
                context.as_raw_fd(),
                CREATE,
                null,
                null,
                0,
            )
        };
        if rc < 0 {
            return Err(named(io::Error::last_os_error()));
        }
        // SAFETY: integers in, a descriptor or an errno out.
        let mount = unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FD_CLOEXEC, 0) };
        owned(mount).map(Detached).map_err(named)
    }

    /// Its path for this process.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }
}

/// FSOPEN_CLOEXEC and FSMOUNT_CLOEXEC (linux/mount.h).
const FD_CLOEXEC: libc::c_uint = 1;

fn owned(fd: libc::c_long) -> io::Result<OwnedFd> {
    match i32::try_from(fd) {
        // SAFETY: a new descriptor that nobody else owns.
        Ok(fd @ 0..) => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// One control file, open for writing.
#[derive(Debug)]
pub struct Control(File);

impl Control {
    /// Opens one that exists. Errors: ENOENT, EACCES; the text names the file.
    pub fn open(path: &Path) -> io::Result<Control> {
        // Nothing here may block, whatever stands at that place.
        let file = OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path);
        file.map(Control).map_err(|e| named(path.display(), e))
    }

    /// One write(2), of all bytes or an error. Neither allocates nor blocks.
    pub fn write(&self, bytes: &[u8]) -> Call<()> {
        // SAFETY: the bytes are readable for the length given, the descriptor is open while `self`
        // is.
        let n = unsafe { libc::write(self.0.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) };
        match usize::try_from(n) {
            Ok(n) if n == bytes.len() => Ok(()),
            Ok(_) => Err(Errno(libc::EIO)),
            Err(_) => Err(Errno::last()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_absent_is_named() {
        let error = Control::open(Path::new("/nowhere/trace_marker")).unwrap_err();
        assert!(
            error.to_string().contains("/nowhere/trace_marker"),
            "{error}"
        );
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_fifo_without_reader_and_a_full_device_are_errors_and_do_not_block() {
        let path = std::env::temp_dir().join(format!("rt-tracefs-{}", std::process::id()));
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let refused = Control::open(&path);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(
            refused.unwrap_err().raw_os_error(),
            None,
            "the text names the file"
        );
        assert_eq!(
            Control::open(Path::new("/dev/full")).unwrap().write(b"0"),
            Err(Errno(libc::ENOSPC))
        );
        assert_eq!(
            Control::open(Path::new("/dev/null")).unwrap().write(b"0"),
            Ok(())
        );
    }
}
