//! A peer that writes whatever it can into a ring.
#![no_main]

#[path = "../play/ring.rs"]
mod ring;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ring::play(bytes));
