//! Binding the process.

use crate::shared::Shared;
use crate::switch::{self, Init};
use crate::{Core, complain, space, thread};
use libc::{c_char, c_int};
use std::sync::atomic::{AtomicBool, Ordering};

static BOUND: AtomicBool = AtomicBool::new(false);

/// The space's memory of a bound process; else ENOSYS without Cobalt, EPERM with it.
///
/// What every call but this module's own asks first.
pub(crate) fn bound() -> Core<&'static Shared> {
    crate::follow::enter();
    if switch::get().init == Init::NoCobalt {
        return Err(libc::ENOSYS);
    }
    // Pairs with the Release in `xenomai_init`.
    if !BOUND.load(Ordering::Acquire) {
        return Err(libc::EPERM);
    }
    space::shared().map_err(|_| libc::EPERM)
}

/// Tells the program that loads this library that it is not Cobalt's.
#[unsafe(no_mangle)]
extern "C" fn rtd_stand_in() -> *const c_char {
    c"stand-in for libcobalt.so.2 over plain POSIX, for tests".as_ptr()
}

#[unsafe(no_mangle)]
unsafe extern "C" fn xenomai_init(argc: *mut c_int, argv: *mut *const *mut c_char) {
    // SAFETY: the caller's statement (contract in the bindings); checked as far as can be.
    unsafe { check_vector(argc, argv) };
    if thread::tid() != thread::pid() {
        complain(format_args!(
            "xenomai_init was not called by the main thread"
        ));
    }
    let threads = std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    if threads != 1 {
        complain(format_args!(
            "xenomai_init was called when the process had {threads} threads"
        ));
    }
    if switch::get().noise {
        make_noise();
    }
    match switch::get().init {
        Init::Works => {}
        Init::Exits => fail("binding failed: Operation not permitted"),
        Init::NoCobalt => fail("Cobalt core not enabled in kernel"),
        Init::Unbound => return,
    }
    if let Err(e) = space::shared() {
        fail(&e.to_string());
    }
    crate::xddp::make_devices();
    if let Err(e) = crate::xddp::open_memory() {
        fail(&e);
    }
    crate::debug::install();
    if BOUND.swap(true, Ordering::AcqRel) {
        eprintln!("stand-in for libcobalt.so.2: duplicate call to xenomai_init() ignored");
        return;
    }
    if let Err(errno) = thread::promote() {
        fail(&format!(
            "the main thread was not promoted: {}",
            std::io::Error::from_raw_os_error(errno)
        ));
    }
}

/// 1. `argc` and `argv` are null or point to what they say.
unsafe fn check_vector(argc: *mut c_int, argv: *mut *const *mut c_char) {
    // SAFETY: not null, so valid (1).
    let (count, vector) = unsafe {
        if argc.is_null() || argv.is_null() {
            complain(format_args!("xenomai_init got a null pointer"));
        }
        (*argc, *argv)
    };
    let count = usize::try_from(count).unwrap_or(0);
    // SAFETY: a vector has count + 1 entries (1).
    if vector.is_null() || count == 0 || !unsafe { *vector.add(count) }.is_null() {
        complain(format_args!(
            "xenomai_init needs a program name and a null pointer behind it"
        ));
    }
}

/// As a library that is broken, or not the one it was taken for.
fn make_noise() {
    use std::io::Write;
    let bytes: Vec<u8> = (0..200_000u32)
        .map(|n| [b'x', 0x1b, 0xff, b'[', 7][n as usize % 5])
        .collect();
    let _ = std::io::stdout()
        .write_all(&bytes)
        .and_then(|()| std::io::stdout().flush());
    let _ = std::io::stderr().write_all(&bytes);
}

fn fail(why: &str) -> ! {
    eprintln!("Xenomai/cobalt: [stand-in] {why}");
    // SAFETY: the process has one thread.
    unsafe { libc::exit(libc::EXIT_FAILURE) }
}
