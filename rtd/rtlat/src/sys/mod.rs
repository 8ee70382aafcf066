//! Kernel objects that the latency laboratory alone uses, one per file. The others are in
//! `rtcore::sys`.
//!
//! Contract, as there: everything here is RAII over a kernel object or a thin call on one, returns
//! `io::Result` whose error text names the object, and keeps no global state. The rest of this
//! crate has no unsafe code and does not touch libc, nix or rustix.

pub mod child;
pub mod fork;
pub mod inherited;
pub mod mutex;
pub mod null_syscall;
pub mod pipe;
pub mod sem;
pub mod socketpair;
pub mod sysv;
pub mod tracefs;
