//! The loaded library.

use crate::api::Api;
use crate::error::LoadError;
use libloading::os::unix::Library as Handle;
use std::ffi::{CStr, c_char};
use std::mem::ManuallyDrop;
use std::path::Path;

/// The soname, the same for Xenomai 3.0 to 3.3 although the kernel ABI is not: whether library and
/// kernel fit together turns out in `xenomai_init`.
pub const DEFAULT_LIBRARY: &str = "libcobalt.so.2";

/// The symbol that a stand-in exports and no libcobalt does: a function that returns its
/// description.
const STAND_IN: &[u8] = b"rtd_stand_in\0";

/// The same for where it keeps what stands in for the files of /dev.
const STAND_IN_DEVICES: &[u8] = b"rtd_stand_in_devices\0";

/// A library that is there, may be loaded and exports everything that is required.
#[derive(Debug)]
pub struct Library {
    api: Api,
    name: String,
    stand_in: Option<&'static str>,
    devices: &'static Path,
}

impl Library {
    /// Loads the library of that path, or [`DEFAULT_LIBRARY`] from where the dynamic linker looks
    /// (ld.so(8)), with RTLD_NOW, and looks up the calls. It is never unloaded, not even after an
    /// error: its constructors ran.
    ///
    /// The code of the file gets the rights of this process. A path that comes from a configuration
    /// has to be one that only root can write, with its directories; this crate does not check it.
    ///
    /// Call it while the process has one thread, since the constructors are somebody else's.
    #[cfg(not(feature = "link-cobalt"))]
    pub fn open(path: Option<&Path>) -> Result<Library, LoadError> {
        use libloading::os::unix::{RTLD_LOCAL, RTLD_NOW};
        let path = path.unwrap_or(Path::new(DEFAULT_LIBRARY));
        let name = path.display().to_string();
        // SAFETY: constructors of libcobalt register tables and touch nothing of ours; that the
        // file is libcobalt is the caller's statement (see above).
        let handle = unsafe { Handle::open(Some(path), RTLD_NOW | RTLD_LOCAL) }
            .map_err(|e| LoadError::of_dlopen(name.clone(), description(&e)))?;
        Library::resolve(handle, name)
    }

    /// Looks up the calls in the library that this program is linked to. A path is refused, see
    /// [`LoadError::Linked`].
    #[cfg(feature = "link-cobalt")]
    pub fn open(path: Option<&Path>) -> Result<Library, LoadError> {
        #[link(name = "cobalt")]
        unsafe extern "C" {
            fn xenomai_init(argc: *mut std::ffi::c_int, argv: *mut *const *mut c_char);
        }
        if let Some(path) = path {
            return Err(LoadError::Linked {
                library: path.display().to_string(),
            });
        }
        // A linker that keeps only what is used (--as-needed) sees that the library is.
        std::hint::black_box(xenomai_init as *const ());
        Library::resolve(Handle::this(), DEFAULT_LIBRARY.to_owned())
    }

    fn resolve(handle: Handle, name: String) -> Result<Library, LoadError> {
        // Before anything can fail: what it registered at load time stays registered.
        let handle = ManuallyDrop::new(handle);
        let api = Api::resolve(&handle).map_err(|symbol| LoadError::MissingSymbol {
            library: name.clone(),
            symbol,
        })?;
        let stand_in = said(&handle, STAND_IN);
        let devices = said(&handle, STAND_IN_DEVICES).filter(|_| stand_in.is_some());
        Ok(Library {
            api,
            stand_in,
            devices: Path::new(devices.unwrap_or("/dev")),
            name,
        })
    }

    /// The calls.
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// Path or soname, as it was asked for.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The stand-in's description; none for any other library. A message that shows the library's
    /// name shows this text too.
    pub fn stand_in(&self) -> Option<&'static str> {
        self.stand_in
    }

    /// Where the device files of [`rtipc`](crate::rtipc) are: `/dev`; a stand-in, which cannot make
    /// device files, names a directory of its own.
    pub fn devices(&self) -> &'static Path {
        self.devices
    }
}

/// The text that a stand-in returns from one of its functions.
fn said(handle: &Handle, symbol: &[u8]) -> Option<&'static str> {
    type Say = unsafe extern "C" fn() -> *const c_char;
    // SAFETY: only our stand-in exports these names, with this type.
    let say = unsafe { handle.get::<Say>(symbol) }.ok()?;
    // SAFETY: as above; it takes nothing and touches nothing.
    let text = unsafe { say() };
    if text.is_null() {
        return Some("");
    }
    // SAFETY: not null, so a string that a library which stays loaded keeps.
    Some(unsafe { CStr::from_ptr(text) }.to_str().unwrap_or(""))
}

#[cfg(not(feature = "link-cobalt"))]
fn description(error: &libloading::Error) -> String {
    match std::error::Error::source(error) {
        Some(said) => said.to_string(),
        None => error.to_string(),
    }
}
