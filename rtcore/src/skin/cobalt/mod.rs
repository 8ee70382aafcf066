//! The Cobalt skin: Xenomai 3's POSIX calls, found when the program runs.
//!
//! [`load`] finds the library, and [`Loaded::bind`] binds the process and returns the table. The
//! first step does everything that can fail without harm. The second one *exits the process* if the
//! core refuses, so a program tries both in a child process before.
//!
//! Constraint: the table holds plain function pointers, so the library's calls are in a static that
//! is set once.

mod calls;
mod runaway;
mod sem;
mod xddp;

use super::Skin;
use super::xddp::Xddp;
use crate::sys::rtsignal::SignalSet;
use crate::sys::{Errno, procfs, sched};
use std::ffi::{CString, c_char};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use xenomai::{Api, Library};

pub use calls::CAPS;
pub use xenomai::{LoadError, PROC_VERSION, SIGNAL_POOL, mq};

static BOUND: OnceLock<(Api, Skin)> = OnceLock::new();

/// Why the process does not run on Cobalt.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    /// There is no core.
    #[error("no Cobalt core runs in this kernel ({PROC_VERSION}: {0})")]
    NoCore(io::Error),
    /// The library cannot be used.
    #[error(transparent)]
    Library(#[from] LoadError),
    /// Binding requires a process with one thread, the main one.
    #[error(
        "the process has {0} threads: Cobalt binds it on its main thread, before there are others"
    )]
    Threads(usize),
    /// The library succeeded, but the core does not answer.
    #[error("{library}: xenomai_init returned without binding the process: {errno} ({errno:?})")]
    Unbound {
        /// The library as it was requested.
        library: String,
        /// The error of the first call.
        errno: Errno,
    },
    /// The process is already bound, to the first library.
    #[error("the process is bound to Cobalt already")]
    Again,
}

/// A loaded library, with a core behind it (or the tests' stand-in).
#[derive(Debug)]
pub struct Loaded {
    lib: Library,
    core: Option<String>,
}

/// Checks for the core, then loads the library: from that path, or from the dynamic linker's search
/// path.
///
/// Without a core, a library is loaded only if it is named: it may be the tests' stand-in, which
/// needs no core. Its constructors run with the rights of this process, so the caller must trust
/// the path.
pub fn load(library: Option<&Path>) -> Result<Loaded, Unavailable> {
    let core = std::fs::read_to_string(PROC_VERSION);
    if let (Err(e), None) = (&core, library) {
        return Err(Unavailable::NoCore(io::Error::new(e.kind(), e.to_string())));
    }
    let library = Library::open(library)?;
    match core {
        Ok(version) => Ok(Loaded {
            lib: library,
            core: Some(version.trim().to_owned()),
        }),
        Err(_) if library.stand_in().is_some() => Ok(Loaded {
            lib: library,
            core: None,
        }),
        Err(e) => Err(Unavailable::NoCore(e)),
    }
}

impl Loaded {
    /// Description for display.
    pub fn description(&self) -> String {
        match (self.lib.stand_in(), &self.core) {
            (Some(words), _) => format!("{} ({words}: NOT real time)", self.lib.name()),
            (None, core) => format!(
                "{}, core {}",
                self.lib.name(),
                core.as_deref().unwrap_or("?")
            ),
        }
    }

    /// The calls for datagrams to Linux programs; otherwise the first one that the library does not
    /// export.
    fn xddp(&self) -> Result<Xddp, &'static str> {
        self.lib
            .api()
            .sockets()
            .map(|sockets| xddp::table(sockets, self.lib.devices()))
    }

    /// Directory of the device files of such datagrams, if the library has the calls; otherwise the
    /// call that it lacks.
    pub fn xddp_devices(&self) -> Result<&'static Path, String> {
        let lacks = |symbol| format!("{} does not export {symbol}", self.lib.name());
        self.lib
            .api()
            .sockets()
            .map(|_| self.lib.devices())
            .map_err(lacks)
    }

    /// Directory of the devices by which the library maps the core's memory (`memdev-*`): a user
    /// that may not open them cannot be bound.
    pub fn memory_devices(&self) -> PathBuf {
        self.lib.devices().join("rtdm")
    }

    /// Name of the skin: `cobalt`, marked if it is the stand-in.
    fn skin_name(&self) -> &'static str {
        if self.lib.stand_in().is_some() {
            "cobalt (stand-in)"
        } else {
            "cobalt"
        }
    }

    /// Binds the process and makes its main thread, which calls this, a Cobalt thread of no
    /// priority.
    ///
    /// *Exits the process* if the core refuses, with the library's own message on standard error.
    pub fn bind(self) -> Result<&'static Skin, Unavailable> {
        let threads = procfs::lasting_threads().unwrap_or(1);
        if threads != 1 || sched::gettid() != sched::getpid() {
            return Err(Unavailable::Threads(threads));
        }
        if BOUND.get().is_some() {
            return Err(Unavailable::Again);
        }
        let api = *self.lib.api();
        // Threads that the library starts inherit the mask. The numbers are valid, so there is no
        // error.
        let _ = SignalSet::of(calls::LIBRARY_SIGNALS).unblock();
        // The library reads options from a command line, and removes those that it knows: it gets a
        // command line of its own.
        let program = CString::from(c"rtd").into_raw();
        let argv: &'static mut [*mut c_char; 2] =
            Box::leak(Box::new([program, std::ptr::null_mut()]));
        let mut argc = 1;
        let mut vector: *const *mut c_char = argv.as_ptr();
        // SAFETY: 1. the main thread, alone (above). 2. known to the caller (contract). 3. a vector
        // of our own, of a writable string, leaked. 4. once (above; a second thread cannot be).
        unsafe { (api.xenomai_init)(&raw mut argc, &raw mut vector) };
        calls::answers(&api).map_err(|errno| {
            let library = self.lib.name().to_owned();
            Unavailable::Unbound { library, errno }
        })?;
        calls::remember_thread(sched::gettid());
        let (_, skin) =
            BOUND.get_or_init(|| (api, calls::table(self.skin_name(), self.xddp().ok())));
        Ok(skin)
    }
}

/// The calls of the bound library; ENOSYS before binding.
#[inline]
fn api() -> Result<&'static Api, Errno> {
    BOUND.get().map(|(api, _)| api).ok_or(Errno(libc::ENOSYS))
}
