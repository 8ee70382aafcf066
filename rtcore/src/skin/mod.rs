//! The real-time calls as one table. Everything on the real-time path goes through it.
//!
//! Required of a skin: each call below with the semantics of the man page named, errors as a positive
//! errno in [`crate::sys::Errno`], no allocation, no lock that is not priority-inheriting. What differs between skins
//! is a capability in [`Caps`], never an `if` on the skin's name.

mod posix;

use crate::sys::Call;
use crate::sys::poll::Interest;
use crate::sys::rtsignal::{Received, SignalSet};
use std::os::fd::RawFd;

/// Descriptor of an open message queue, as the skin's calls take it.
pub type Mqd = RawFd;

/// Length and priority of a message.
pub type Length = (usize, u32);

/// What a skin can do beyond the calls themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// A queue descriptor can be waited for together with others.
    pub pollable_mq: bool,
    /// A signal that cannot be queued is an error for its sender, not a silent loss.
    pub reports_signal_overflow: bool,
    /// Queues and signals are those of all other Linux programs.
    pub shared_namespace: bool,
}

/// Whom a signal goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignalAddress {
    /// Descriptor of the process, or of the thread where the kernel has such; immune to pid reuse.
    pub pidfd: RawFd,
    /// Pid of the process.
    pub pid: i32,
    /// A thread that has no descriptor, else 0.
    pub tid: i32,
}

/// The table.
#[derive(Debug)]
pub struct Skin {
    /// Name, as shown by the tools.
    pub name: &'static str,
    /// Capabilities.
    pub caps: Caps,
    /// Monotonic time in nanoseconds.
    pub now_ns: fn() -> u64,
    /// Takes a message: length and priority. Blocks or not as the descriptor was opened.
    pub mq_receive: fn(Mqd, &mut [u8]) -> Call<Length>,
    /// Adds a message with a priority.
    pub mq_send: fn(Mqd, &[u8], u32) -> Call<()>,
    /// Waits for a signal of the set.
    pub signal_wait: fn(&SignalSet) -> Call<Received>,
    /// Takes a pending signal of the set, else EAGAIN.
    pub signal_try_wait: fn(&SignalSet) -> Call<Received>,
    /// Queues a signal: address, number, value, origin's pid and uid.
    pub signal_send: fn(SignalAddress, i32, u64, u32, u32) -> Call<()>,
    /// Queues a signal to the process which says that a message lies in its ring: address, number, ticket.
    pub signal_announce: fn(SignalAddress, i32, u64) -> Call<()>,
    /// Waits for readiness with a bound in nanoseconds. Only where `pollable_mq`.
    pub wait_ready: fn(&mut [Interest], u64) -> Call<usize>,
}

/// Plain POSIX: always there.
pub fn posix() -> &'static Skin {
    &posix::SKIN
}
