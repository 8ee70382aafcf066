//! The library itself: its version, its clock, its sleep.

use client::skin::Skin;
use client::sys::clock::{monotonic_ns, sleep_until};
use std::cell::Cell;
use std::ffi::{c_char, c_int};

thread_local! {
    /// The skin that the calling thread was promoted by, if that is not Linux. Const-initialised:
    /// reading it allocates nothing once `rtcore_realtime_enter` has touched it.
    static SKIN: Cell<Option<&'static Skin>> = const { Cell::new(None) };
}

const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");

/// From now on the calling thread sleeps by this skin.
pub fn runs_on(skin: &'static Skin) {
    SKIN.set((!skin.caps.linux_threads).then_some(skin));
}

export! {
    /// Version of the library that runs.
    fn rtcore_version() -> *const c_char {
        VERSION.as_ptr().cast()
    }

    /// CLOCK_MONOTONIC.
    fn rtcore_now_ns() -> u64 {
        monotonic_ns()
    }

    /// Sleeps until this time of CLOCK_MONOTONIC.
    fn rtcore_sleep_until(time_ns: u64) -> c_int {
        match SKIN.get() {
            None => sleep_until(time_ns),
            // Its clock need not be Linux's.
            Some(skin) => (skin.sleep_until)(
                (skin.now_ns)().saturating_add(time_ns.saturating_sub(monotonic_ns())),
            ),
        }
        0
    }
}
