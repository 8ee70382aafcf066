//! RTIPC's cross-domain datagrams (XDDP): a Cobalt socket bound to port N is the other end of
//! `/dev/rtpN`, which plain Linux programs open, read and write.
//!
//! Numbers and layouts are those of Xenomai's `include/rtdm/uapi/ipc.h`; behaviour as
//! `kernel/drivers/ipc/xddp.c` and `kernel/cobalt/pipe.c` read:
//!
//! - All messages of a port, of both directions, are in its pool until they are read. A send that
//!   finds no room there is ENOMEM at once and never waits; nothing tells when there is room again.
//!   A Linux writer waits for room.
//! - With nobody at the device, what was sent waits. **When the Linux program closes the device,
//!   what waits in either direction is dropped**, and a receive that waits at that moment returns
//!   0.
//! - A receive into a buffer that is too short is ENOBUFS, and the message is gone. MSG_DONTWAIT
//!   makes an empty port EAGAIN; after SO_RCVTIMEO (a `timeval`, zero for no limit) it is
//!   ETIMEDOUT.
//! - A message of no bytes cannot be sent: the call returns 0 and nothing arrives.
//! - One Linux program has the device at a time; the next one's open(2) is EBUSY. There are no
//!   priorities, and nobody says who wrote.

use crate::api::Api;
use libc::{c_char, c_int, c_void, sa_family_t, size_t, sockaddr, socklen_t, ssize_t};

/// Address and protocol family.
pub const AF_RTIPC: c_int = 111;
/// The protocol, for `socket`.
pub const IPCPROTO_XDDP: c_int = 1;
/// Level of the options below.
pub const SOL_XDDP: c_int = 311;
/// Option: name of the port, a [`PortLabel`]; before `bind`. It appears in [`LABELS`] as a link to
/// the device.
pub const XDDP_LABEL: c_int = 1;
/// Option: bytes of the pool, a `size_t`; before `bind`. Without it messages come from the core's
/// own heap.
pub const XDDP_POOLSZ: c_int = 2;

/// Longest label in bytes, without the terminating zero.
pub const LABEL_MAX: usize = 31;
/// Highest port that an address can name; how many there are is the kernel's configuration
/// (CONFIG_XENO_OPT_PIPE_NRDEV).
pub const PORT_MAX: i16 = i16::MAX;
/// Name of a port's device, before the number.
pub const DEVICE: &str = "rtp";
/// Directory of the labels.
pub const LABELS: &str = "/proc/xenomai/registry/rtipc/xddp";

/// `struct sockaddr_ipc`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct SockaddrIpc {
    /// [`AF_RTIPC`].
    pub family: sa_family_t,
    /// The port; -1 lets the core choose.
    pub port: i16,
}

/// `struct rtipc_port_label`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct PortLabel {
    /// Terminated by a zero.
    pub label: [c_char; LABEL_MAX + 1],
}

/// The header of a message in the core (`struct xnpipe_mh`: two list pointers, two sizes).
const HEADER_BYTES: usize = 4 * size_of::<usize>();
/// The pool's own page; not the machine's. Half of it is the largest piece that is a power of two.
const HEAP_PAGE_BYTES: usize = 512;
/// Some releases round a pool up to pages of the machine; to ask for whole ones makes it the same
/// in all.
const PAGE_BYTES: usize = 4096;

/// Bytes of a pool for this many messages of that size; of shorter ones, more may fit.
pub const fn pool_bytes(maxmsg: usize, msgsize: usize) -> usize {
    let needed = msgsize.saturating_add(HEADER_BYTES);
    let piece = if needed <= HEAP_PAGE_BYTES / 2 {
        needed.next_power_of_two()
    } else {
        round_up(needed, HEAP_PAGE_BYTES)
    };
    round_up(piece.saturating_mul(maxmsg), PAGE_BYTES)
}

const fn round_up(bytes: usize, to: usize) -> usize {
    bytes.div_ceil(to).saturating_mul(to)
}

/// The socket calls, which a library exports all or none of.
#[derive(Clone, Copy, Debug)]
pub struct Sockets {
    /// [`Api::socket`].
    pub socket: unsafe extern "C" fn(c_int, c_int, c_int) -> c_int,
    /// [`Api::close`].
    pub close: unsafe extern "C" fn(c_int) -> c_int,
    /// [`Api::bind`].
    pub bind: unsafe extern "C" fn(c_int, *const sockaddr, socklen_t) -> c_int,
    /// [`Api::setsockopt`].
    pub setsockopt: unsafe extern "C" fn(c_int, c_int, c_int, *const c_void, socklen_t) -> c_int,
    /// [`Api::recvfrom`].
    pub recvfrom: unsafe extern "C" fn(
        c_int,
        *mut c_void,
        size_t,
        c_int,
        *mut sockaddr,
        *mut socklen_t,
    ) -> ssize_t,
    /// [`Api::sendto`].
    pub sendto: unsafe extern "C" fn(
        c_int,
        *const c_void,
        size_t,
        c_int,
        *const sockaddr,
        socklen_t,
    ) -> ssize_t,
}

impl Api {
    /// The socket calls; the error is the first one that the library does not export.
    pub fn sockets(&self) -> Result<Sockets, &'static str> {
        Ok(Sockets {
            socket: self.socket.ok_or("__cobalt_socket")?,
            close: self.close.ok_or("__cobalt_close")?,
            bind: self.bind.ok_or("__cobalt_bind")?,
            setsockopt: self.setsockopt.ok_or("__cobalt_setsockopt")?,
            recvfrom: self.recvfrom.ok_or("__cobalt_recvfrom")?,
            sendto: self.sendto.ok_or("__cobalt_sendto")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_records_are_as_long_as_the_header_says() {
        assert_eq!((size_of::<SockaddrIpc>(), size_of::<PortLabel>()), (4, 32));
    }

    #[test]
    fn a_pool_holds_its_messages_whatever_the_heap_makes_of_them() {
        assert_eq!(pool_bytes(1, 1), 4096);
        // 64 and a header are a piece of 128; 300 and a header one of 512; 600 and a header two
        // heap pages.
        assert_eq!(pool_bytes(64, 64), 8192);
        assert_eq!(pool_bytes(16, 300), 8192);
        assert_eq!(pool_bytes(8, 600), 8192);
        assert_eq!(pool_bytes(usize::MAX, usize::MAX), usize::MAX);
    }
}
