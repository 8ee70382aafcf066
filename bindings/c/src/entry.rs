//! How C enters: a panic names the function and ends the process.
//!
//! Unwinding must not reach C. The library has no panic that a caller's input can cause; one that
//! happens all the same is a defect, and a process that goes on with half-changed state is worse
//! than one that ends.

use client::sys::sigaction::write_stderr;
use std::mem::forget;

/// Names the function to whoever reads standard error, if it is dropped: by unwinding.
struct Entered(&'static str);

impl Drop for Entered {
    #[cold]
    fn drop(&mut self) {
        write_stderr(b"rtcore: panic in ");
        write_stderr(self.0.as_bytes());
        write_stderr(b"(): a defect of the library; the process ends\n");
        std::process::abort();
    }
}

/// Runs the body of an exported function.
#[inline]
pub fn entered<T>(function: &'static str, body: impl FnOnce() -> T) -> T {
    let entered = Entered(function);
    let result = body();
    forget(entered);
    result
}

/// Exports functions: `fn name(arguments) -> result { body }`, named in the header in the same way.
macro_rules! export {
    ($($(#[$doc:meta])* fn $name:ident($($argument:ident: $type:ty),* $(,)?) $(-> $result:ty)? $body:block)*) => {$(
        $(#[$doc])*
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($argument: $type),*) $(-> $result)? {
            $crate::entry::entered(stringify!($name), || $body)
        }
    )*};
}
