//! The table of XDDP's calls on Cobalt.
//!
//! Constraint: SO_RCVTIMEO belongs to the socket and not to the call, so a bounded receive sets it
//! and takes it back; only the port's one source receives.

use super::super::xddp::{PortSpec, Xddp};
use crate::sys::{Call, Errno, procfs};
use libc::{c_char, c_int, c_void, socklen_t};
use std::io;
use std::os::fd::RawFd;
use std::path::Path;
use std::sync::OnceLock;
use xenomai::rtipc::{self, PortLabel, SockaddrIpc, Sockets};

/// A bounded wait is in microseconds, and 0 of them would mean no limit.
const US_NS: u64 = 1_000;
/// Longest wait of one call.
const WAIT_US_MAX: u64 = 3_600_000_000;

/// The bound library's, set before the table exists.
static SOCKETS: OnceLock<Sockets> = OnceLock::new();

pub(super) fn table(sockets: Sockets, devices: &'static Path) -> Xddp {
    SOCKETS.get_or_init(|| sockets);
    Xddp {
        devices,
        probe,
        open,
        close,
        receive,
        receive_within,
        send,
    }
}

#[inline]
fn sockets() -> Result<&'static Sockets, Errno> {
    SOCKETS.get().ok_or(Errno(libc::ENOSYS))
}

fn probe() -> io::Result<()> {
    let socket = socket(sockets()?)?;
    close(socket);
    Ok(())
}

fn socket(calls: &Sockets) -> io::Result<RawFd> {
    // SAFETY: plain integers.
    let socket = unsafe { (calls.socket)(rtipc::AF_RTIPC, libc::SOCK_DGRAM, rtipc::IPCPROTO_XDDP) };
    checked(socket).map_err(|errno| {
        named(
            "cannot make an XDDP socket",
            errno,
            match errno.0 {
                libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT | libc::ENOPROTOOPT => {
                    "; the kernel was built without CONFIG_XENO_DRIVERS_RTIPC_XDDP, or its module xeno_rtipc is not loaded"
                }
                _ => "",
            },
        )
    })
}

fn open(spec: &PortSpec) -> io::Result<RawFd> {
    let calls = sockets()?;
    let socket = socket(calls)?;
    bind(calls, socket, spec)
        .inspect_err(|_| close(socket))
        .map(|()| socket)
}

fn bind(calls: &Sockets, socket: RawFd, spec: &PortSpec) -> io::Result<()> {
    let what = format!("cannot bind XDDP port {}", spec.port);
    if let Some(label) = &spec.label {
        let mut record = PortLabel { label: [0; _] };
        let bytes = label.as_bytes();
        if bytes.len() > rtipc::LABEL_MAX {
            return Err(named(
                &what,
                Errno(libc::ENAMETOOLONG),
                "; a label has at most 31 bytes",
            ));
        }
        for (to, byte) in record.label.iter_mut().zip(bytes) {
            *to = c_char::from_ne_bytes([*byte]);
        }
        set(calls, socket, rtipc::SOL_XDDP, rtipc::XDDP_LABEL, &record)
            .map_err(|e| named(&what, e, ""))?;
    }
    set(
        calls,
        socket,
        rtipc::SOL_XDDP,
        rtipc::XDDP_POOLSZ,
        &spec.pool_bytes,
    )
    .map_err(|e| named(&what, e, ""))?;
    #[expect(clippy::cast_possible_truncation, reason = "111")]
    let address = SockaddrIpc {
        family: rtipc::AF_RTIPC as libc::sa_family_t,
        port: spec.port,
    };
    // SAFETY: an address of this length, on this stack.
    let bound = unsafe { (calls.bind)(socket, (&raw const address).cast(), length_of(&address)) };
    checked(bound).map(drop).map_err(|errno| {
        let fix = match errno.0 {
            libc::EADDRINUSE | libc::EBUSY => {
                "; another program is bound to it, or one has its device open still"
            }
            libc::EEXIST => "; another port has its label",
            libc::EINVAL => "; the kernel has fewer ports (CONFIG_XENO_OPT_PIPE_NRDEV)",
            libc::ENOMEM => "; the kernel has no memory for its pool: smaller maxmsg or msgsize",
            libc::EPERM => super::calls::NOT_BOUND,
            _ => "",
        };
        named(&what, errno, fix)
    })
}

fn close(socket: RawFd) {
    if let Ok(calls) = sockets() {
        // SAFETY: a plain integer; the descriptor is its caller's, who does not use it again.
        unsafe { (calls.close)(socket) };
    }
}

fn receive(socket: RawFd, buffer: &mut [u8], blocks: bool) -> Call<usize> {
    take(
        sockets()?,
        socket,
        buffer,
        if blocks { 0 } else { libc::MSG_DONTWAIT },
    )
}

fn receive_within(socket: RawFd, buffer: &mut [u8], timeout_ns: u64) -> Call<usize> {
    let calls = sockets()?;
    bound_wait(
        calls,
        socket,
        timeout_ns.div_ceil(US_NS).clamp(1, WAIT_US_MAX),
    )?;
    let taken = take(calls, socket, buffer, 0);
    // If the socket stays bounded, the next unbounded receive ends early, which is only a wake-up;
    // the message is here.
    let _ = bound_wait(calls, socket, 0);
    taken
}

/// Zero means no limit.
fn bound_wait(calls: &Sockets, socket: RawFd, us: u64) -> Call<()> {
    let part = |n: u64| libc::c_long::try_from(n).unwrap_or(libc::c_long::MAX);
    let time = libc::timeval {
        tv_sec: part(us / 1_000_000),
        tv_usec: part(us % 1_000_000),
    };
    set(calls, socket, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &time)
}

fn take(calls: &Sockets, socket: RawFd, buffer: &mut [u8], flags: c_int) -> Call<usize> {
    let (at, len) = (buffer.as_mut_ptr().cast(), buffer.len());
    let nobody = std::ptr::null_mut();
    // SAFETY: the buffer is writable for the length given; no address is asked for.
    let n = unsafe { (calls.recvfrom)(socket, at, len, flags, nobody, std::ptr::null_mut()) };
    match usize::try_from(n).map_err(|_| Errno::last()) {
        // The Linux program closed the device: no message, and the next one may come from another
        // program.
        Ok(0) => Err(Errno::INTR),
        Err(Errno(libc::ENOBUFS)) => Err(Errno::MSGSIZE),
        other => other,
    }
}

fn send(socket: RawFd, message: &[u8]) -> Call<()> {
    // The call would return 0 and send no message.
    if message.is_empty() {
        return Err(Errno(libc::EINVAL));
    }
    let calls = sockets()?;
    let at = message.as_ptr().cast::<c_void>();
    let flags = libc::MSG_DONTWAIT;
    // SAFETY: the message is readable for the length given; a null address is the socket's own
    // port.
    let n = unsafe { (calls.sendto)(socket, at, message.len(), flags, std::ptr::null(), 0) };
    match usize::try_from(n).map_err(|_| Errno::last()) {
        Ok(_) => Ok(()),
        Err(Errno(libc::ENOMEM)) => Err(Errno::AGAIN),
        Err(errno) => Err(errno),
    }
}

fn set<T>(calls: &Sockets, socket: RawFd, level: c_int, option: c_int, value: &T) -> Call<()> {
    // SAFETY: a value of this length, readable for the call.
    let rc = unsafe {
        (calls.setsockopt)(
            socket,
            level,
            option,
            std::ptr::from_ref(value).cast(),
            length_of(value),
        )
    };
    checked(rc).map(drop)
}

fn length_of<T>(_: &T) -> socklen_t {
    socklen_t::try_from(size_of::<T>()).unwrap_or(0)
}

/// The convention -1 and errno.
fn checked(rc: c_int) -> Call<c_int> {
    if rc < 0 { Err(Errno::last()) } else { Ok(rc) }
}

fn named(what: &str, errno: Errno, fix: &str) -> io::Error {
    procfs::named(
        what.to_owned(),
        io::Error::new(io::Error::from(errno).kind(), format!("{errno}{fix}")),
    )
}
