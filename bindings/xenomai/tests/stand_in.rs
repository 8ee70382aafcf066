//! The library as a whole, loaded: what is found, what is missing, what a call does before the
//! process is bound. What the calls do afterwards is for the conformance suite, since binding needs
//! the main thread.

#![cfg(not(feature = "link-cobalt"))]

use stand_in_cobalt::copies::{Kind, library};
use std::path::Path;
use xenomai::{Api, Library, LoadError};

fn open(kind: Kind) -> Result<Library, LoadError> {
    Library::open(Some(&library(kind).expect("the stand-in is built")))
}

#[test]
fn a_library_is_opened_by_its_path_and_known_as_a_stand_in() {
    let library = open(Kind::Stock).unwrap();
    assert!(library.name().ends_with("libcobalt.so.2"));
    assert!(
        library
            .stand_in()
            .is_some_and(|said| said.contains("stand-in"))
    );
}

#[test]
fn what_is_optional_may_be_missing() {
    assert!(
        open(Kind::Stock)
            .unwrap()
            .api()
            .pthread_sigqueue_np
            .is_none()
    );
    assert!(
        open(Kind::WithSigqueueNp)
            .unwrap()
            .api()
            .pthread_sigqueue_np
            .is_some()
    );
}

#[test]
fn a_required_symbol_is_missed_by_its_name() {
    // The first, the last and one that callers care for; a copy each is large.
    for symbol in [
        Api::REQUIRED[0],
        Api::REQUIRED[Api::REQUIRED.len() - 1],
        "__cobalt_sigqueue",
    ] {
        match open(Kind::Without(symbol)) {
            Err(LoadError::MissingSymbol { symbol: missed, .. }) => assert_eq!(missed, symbol),
            other => panic!("{symbol}: {other:?}"),
        }
    }
}

#[test]
fn a_library_that_may_only_be_linked_is_distinguished_from_an_absent_one() {
    let refused = open(Kind::RefusesDlopen).unwrap_err();
    assert!(
        matches!(refused, LoadError::RefusesDlopen { .. }),
        "{refused}"
    );
    let absent = Library::open(Some(Path::new("/nowhere/libcobalt.so.2"))).unwrap_err();
    assert!(matches!(absent, LoadError::Absent { .. }), "{absent}");
}

#[test]
fn a_file_that_is_no_library_is_unusable() {
    let error = Library::open(Some(Path::new("/proc/self/status"))).unwrap_err();
    assert!(matches!(error, LoadError::Unusable { .. }), "{error}");
    assert!(error.to_string().contains("/proc/self/status"), "{error}");
}

#[test]
fn another_library_misses_the_first_symbol() {
    // The C library is loaded anyway, whatever its file.
    let error = Library::open(Some(Path::new("libc.so.6"))).unwrap_err();
    assert!(
        matches!(
            error,
            LoadError::MissingSymbol {
                symbol: "xenomai_init",
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn without_a_path_the_dynamic_linker_looks() {
    // Nobody has Xenomai on the machines that run this; one who does has a library that opens.
    if let Err(error) = Library::open(None) {
        assert!(
            error.to_string().contains(xenomai::DEFAULT_LIBRARY),
            "{error}"
        );
    }
}

#[test]
fn before_binding_the_conventions_of_failure_differ_from_call_to_call() {
    let library = open(Kind::Stock).unwrap();
    let api = library.api();
    let no_time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let value = libc::sigval {
        sival_ptr: std::ptr::null_mut(),
    };
    // SAFETY: valid pointers, or null where these calls take it; nothing is bound, so nothing
    // happens.
    unsafe {
        let errno = libc::__errno_location();
        let positive = (api.clock_nanosleep)(
            libc::CLOCK_MONOTONIC,
            0,
            &raw const no_time,
            std::ptr::null_mut(),
        );
        assert_eq!(positive, libc::EPERM);
        *errno = 0;
        assert_eq!(
            ((api.sigqueue)(libc::gettid(), 40, value), *errno),
            (-1, libc::EPERM)
        );
        *errno = 0;
        assert_eq!(
            (
                (api.mq_timedsend)(0, c"".as_ptr(), 0, 0, std::ptr::null()),
                *errno
            ),
            (-libc::EFAULT, 0)
        );
        assert_eq!(
            (api.cobalt_thread_mode)() & xenomai::mode::RELAXED,
            xenomai::mode::RELAXED
        );
    }
}
