//! A space: the shared memory of the processes that see each other, and the names that belong to
//! it.

use crate::shared::Shared;
use crate::switch;
use std::ffi::{CStr, CString};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;

const PREFIX: &str = "rtd-stand-in-";

/// A space of a test's own. Its queues, semaphores and memory go when it is dropped.
#[derive(Debug)]
pub struct Space {
    name: String,
}

impl Space {
    /// The space of this name, which has to be a file name; give every test its own.
    pub fn new(name: &str) -> Space {
        let space = Space {
            name: format!("{name}.{}", std::process::id()),
        };
        space.remove();
        space
    }

    /// What a process has to have in its environment to be in it.
    pub fn environment(&self) -> (&'static str, &str) {
        (switch::SPACE, &self.name)
    }

    /// How often a promoted thread of a process with `RTD_STAND_IN_FOLLOW` made a Linux call in
    /// primary mode, and the number of the last one. None where there is no such thread.
    pub fn linux_calls(&self, tid: i32) -> Option<(u32, i32)> {
        let mut tables = map(&self.name, false).ok()?.lock();
        let at = tables.find(tid).ok()?;
        let thread = &tables.threads[at];
        // Acquire: the number is that of a call that is counted.
        Some((
            thread.linux_calls.load(Ordering::Acquire),
            thread.last_call.load(Ordering::Relaxed),
        ))
    }

    /// Names of the semaphores that nobody has unlinked, as the processes of the space know them.
    pub fn semaphores(&self) -> Vec<String> {
        let prefix = format!("sem.{PREFIX}{}.", self.name);
        let memory = memory_path(&self.name);
        let entries = memory
            .parent()
            .into_iter()
            .flat_map(std::fs::read_dir)
            .flatten()
            .flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names
            .filter_map(|name| Some(format!("/{}", name.strip_prefix(&prefix)?)))
            .collect()
    }

    /// The file that stands for the device of an XDDP port, for [`crate::Device::open`].
    pub fn device(&self, port: i16) -> PathBuf {
        devices(&self.name).join(format!("rtp{port}"))
    }

    /// The file that stands for a device of the core's memory: a process that cannot write it is
    /// not bound.
    pub fn memory_device(&self) -> PathBuf {
        memory_device(&self.name)
    }

    fn remove(&self) {
        let memory = memory_path(&self.name);
        if let Ok(shared) = map(&self.name, false) {
            let names = shared.lock().names;
            for name in names.iter().filter(|name| name[0] != 0) {
                if let Some(name) = CStr::from_bytes_until_nul(name)
                    .ok()
                    .and_then(|n| name_in(&self.name, n))
                {
                    // SAFETY: a terminated string; a name that is gone is no matter.
                    unsafe { libc::mq_unlink(name.as_ptr()) };
                }
            }
        }
        for name in self
            .semaphores()
            .iter()
            .filter_map(|name| CString::new(name.as_str()).ok())
        {
            if let Some(name) = name_in(&self.name, &name) {
                // SAFETY: a terminated string; a name that is gone is no matter.
                unsafe { libc::sem_unlink(name.as_ptr()) };
            }
        }
        let _ = std::fs::remove_dir_all(devices(&self.name));
        let _ = std::fs::remove_file(memory);
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        self.remove();
    }
}

/// The memory of this process's space; mapped at the first call, for good.
pub(crate) fn shared() -> io::Result<&'static Shared> {
    static SHARED: OnceLock<&'static Shared> = OnceLock::new();
    if let Some(shared) = SHARED.get() {
        return Ok(shared);
    }
    let mapped = map(&switch::get().space, true)?;
    Ok(SHARED.get_or_init(|| mapped))
}

/// The Linux name of a queue or semaphore of this process's space; none where the name cannot be
/// one.
pub(crate) fn linux_name(name: &CStr) -> Option<CString> {
    name_in(&switch::get().space, name)
}

fn name_in(space: &str, name: &CStr) -> Option<CString> {
    let own = name
        .to_bytes()
        .strip_prefix(b"/")
        .unwrap_or(name.to_bytes());
    // Slashes mean nothing to Cobalt, and Linux allows none but the first.
    let own: Vec<u8> = own
        .iter()
        .map(|&b| if b == b'/' { b'!' } else { b })
        .collect();
    CString::new([b"/", PREFIX.as_bytes(), space.as_bytes(), b".", &own].concat()).ok()
}

/// Directory of what stands for device files.
pub(crate) fn devices(space: &str) -> PathBuf {
    PathBuf::from(format!("/dev/shm/{PREFIX}{space}.dev"))
}

pub(crate) fn memory_device(space: &str) -> PathBuf {
    devices(space).join("rtdm/memdev-private")
}

fn memory_path(space: &str) -> PathBuf {
    PathBuf::from(format!("/dev/shm/{PREFIX}{space}"))
}

fn map(space: &str, create: bool) -> io::Result<&'static Shared> {
    let path = memory_path(space);
    let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
    let open = |create| {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(create)
            .truncate(false)
            .open(&path)
    };
    // One that is there may be another user's, and then O_CREAT may be refused
    // (fs.protected_regular).
    let file = open(false)
        .or_else(|e| if create { open(true) } else { Err(e) })
        .map_err(named)?;
    // One process makes it, the others wait.
    file.lock().map_err(named)?;
    let fresh = file.metadata()?.len() == 0;
    if fresh {
        file.set_len(size_of::<Shared>() as u64).map_err(named)?;
    }
    let shared = map_file(&file).map_err(named)?;
    if fresh {
        shared.initialise();
    }
    // The mapping keeps the open file, and its lock with it.
    file.unlock().map_err(named)?;
    Ok(shared)
}

fn map_file(file: &File) -> io::Result<&'static Shared> {
    let length = size_of::<Shared>();
    if file.metadata()?.len() != length as u64 {
        return Err(io::Error::other(
            "is of another version of the stand-in; remove it",
        ));
    }
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping of a file of that length; the address is the kernel's choice.
    let address = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            length,
            access,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        )
    };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: mapped above, aligned to a page, never unmapped; zero is a value of every field.
    Ok(unsafe { &*address.cast::<Shared>() })
}
