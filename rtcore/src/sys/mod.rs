//! Kernel objects, one per file.
//!
//! Contract: everything here is RAII over a kernel object or a thin call on one, returns `io::Result`
//! whose error text names the object, and keeps no global state. Nothing outside `sys` and `skin`
//! touches libc, nix or rustix.

pub mod accounts;
pub mod clock;
pub mod cpus;
pub mod epoll;
pub mod limits;
pub mod memory;
pub mod mqueue;
pub mod pidfd;
pub mod procfs;
pub mod rtsignal;
pub mod sched;
pub mod seqpacket;
pub mod shm;
pub mod signame;
