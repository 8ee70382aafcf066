//! Datagrams between a lane and plain Linux programs, on a skin that has them: a port, whose other
//! end is a device file (Xenomai's XDDP; `xenomai::rtipc` describes the core's part).
//!
//! Constraint: a port is bound once, so its source and its sinks share one socket; any thread may
//! use it.
//!
//! Invariant: a message that [`Port::send`] accepted is in the port's pool. There the Linux program
//! reads the message, or drops it by closing the device.

use crate::sys::{Call, Errno};
use crate::wait::Timeout;
use std::ffi::CString;
use std::io;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

pub use xenomai::rtipc::{LABEL_MAX, LABELS, PORT_MAX, pool_bytes};

#[derive(Clone, Copy, Debug)]
pub struct Xddp {
    /// Directory of the device files.
    pub devices: &'static Path,
    /// Whether the core has the protocol. A setup call.
    pub probe: fn() -> io::Result<()>,
    /// Makes a socket, bound to a port. A setup call.
    pub open: fn(&PortSpec) -> io::Result<RawFd>,
    /// Closes it; unread messages are dropped.
    pub close: fn(RawFd),
    /// Takes a message; EAGAIN if there is none and `blocks` is false, EINTR also if the Linux
    /// program closed the device.
    pub receive: fn(RawFd, &mut [u8], bool) -> Call<usize>,
    /// The same for at most this many nanoseconds, then ETIMEDOUT.
    pub receive_within: fn(RawFd, &mut [u8], u64) -> Call<usize>,
    /// Adds a message; EAGAIN if the pool is full, EINVAL for an empty message, which the device
    /// cannot carry.
    pub send: fn(RawFd, &[u8]) -> Call<()>,
}

/// The parameters of a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortSpec {
    /// Its number: the device is `rtpN`.
    pub port: i16,
    /// Its name in the core's registry.
    pub label: Option<CString>,
    /// Bytes of its pool, which both directions share.
    pub pool_bytes: usize,
}

/// Device file of a port.
pub fn device(devices: &Path, port: i16) -> PathBuf {
    devices.join(format!("{}{port}", xenomai::rtipc::DEVICE))
}

/// A bound port; closed when dropped.
#[derive(Debug)]
pub struct Port {
    socket: RawFd,
    calls: Xddp,
}

impl Port {
    /// Binds the port. Errors: socket(2), bind(2), with a hint.
    pub fn open(calls: Xddp, spec: &PortSpec) -> io::Result<Port> {
        Ok(Port {
            socket: (calls.open)(spec)?,
            calls,
        })
    }

    /// Takes a message. EAGAIN if none is there now, ETIMEDOUT if none came in time.
    #[inline]
    pub fn receive(&self, buffer: &mut [u8], timeout: Timeout) -> Result<usize, Errno> {
        match timeout {
            Timeout::NOW | Timeout::FOREVER => {
                (self.calls.receive)(self.socket, buffer, timeout == Timeout::FOREVER)
            }
            Timeout(timeout_ns) => (self.calls.receive_within)(self.socket, buffer, timeout_ns),
        }
    }

    /// Adds a message, now or not at all.
    #[inline]
    pub fn send(&self, message: &[u8]) -> Result<(), Errno> {
        (self.calls.send)(self.socket, message)
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        (self.calls.close)(self.socket);
    }
}
