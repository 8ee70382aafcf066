//! The library as a dependency of the program (feature `link-cobalt`): it is there before main,
//! under its soname, and no other one can be taken. In `.ci/run` it is the stand-in.

#![cfg(feature = "link-cobalt")]

use std::path::Path;
use xenomai::{Library, LoadError};

#[test]
fn the_linked_library_is_the_one_that_is_taken() {
    let library = Library::open(None).unwrap();
    assert_eq!(library.name(), xenomai::DEFAULT_LIBRARY);
    // Loaded by the dynamic linker for this program, and not by anybody's dlopen.
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    assert!(
        maps.contains("libcobalt.so") || maps.contains("libstand_in_cobalt.so"),
        "{maps}"
    );
    // Not bound yet, so the mode is Linux's; that it answers at all shows that the call is the
    // library's. SAFETY: takes nothing.
    let mode = unsafe { (library.api().cobalt_thread_mode)() };
    assert_eq!(mode & xenomai::mode::RELAXED, xenomai::mode::RELAXED);
    assert!(library.api().sockets().is_ok());
}

#[test]
fn another_one_is_refused_by_its_path() {
    let path = Path::new("/usr/xenomai/lib/libcobalt.so.2");
    let refused = Library::open(Some(path)).unwrap_err();
    assert!(matches!(refused, LoadError::Linked { .. }), "{refused}");
    assert!(refused.to_string().contains("link-cobalt"), "{refused}");
}
