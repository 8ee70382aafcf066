//! Whatever comes over the control socket.
#![no_main]

#[path = "../play/frames.rs"]
mod frames;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| frames::play(bytes));
