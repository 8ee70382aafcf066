//! The Linux side of an XDDP port. A device file cannot be made here, so `/dev/rtpN` is a file in a directory of the
//! space's own and its open(2) is a connection to the socket beside it; read(2) and write(2) are the real ones, of
//! datagrams.

use crate::{checked, last_errno};
use libc::{c_int, sockaddr_un};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Ports of a space; the kernel's default is 32.
pub const PORTS: i16 = 4;

/// How often a writer looks whether its message has been taken.
const LOOK: Duration = Duration::from_micros(100);

/// An open device: what a plain Linux program holds.
#[derive(Debug)]
pub struct Device(OwnedFd);

impl Device {
    /// Opens it. ECONNREFUSED or ENOENT: nobody is bound to the port, where the real one would wait.
    pub fn open(device: &Path) -> io::Result<Device> {
        let socket = seqpacket(0)?;
        let (address, length) = address_of(&socket_of(device))?;
        // SAFETY: an address of that length, on this stack.
        let connected = unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), length) };
        checked(connected).map_err(io::Error::from_raw_os_error)?;
        Ok(Device(socket))
    }

    /// write(2); as with the real one the message is in the port's pool when it returns, for which it may wait.
    pub fn write(&self, message: &[u8]) -> io::Result<()> {
        let (fd, at, len) = (self.0.as_raw_fd(), message.as_ptr().cast(), message.len());
        // SAFETY: readable for the length given; one that nobody reads any more is an error and no signal.
        if unsafe { libc::send(fd, at, len, libc::MSG_NOSIGNAL) } < 0 {
            return Err(io::Error::last_os_error());
        }
        loop {
            let mut left: c_int = 0;
            // SAFETY: an integer, on this stack.
            let asked = unsafe { libc::ioctl(fd, libc::TIOCOUTQ, &raw mut left) };
            checked(asked).map_err(io::Error::from_raw_os_error)?;
            if left == 0 {
                return Ok(());
            }
            let mut interest = interest(fd, 0);
            // Nothing tells when the other end has read it; but when that is closed, it never will.
            let _ = poll(std::slice::from_mut(&mut interest), Some(LOOK));
            if interest.revents & libc::POLLHUP != 0 {
                return Err(io::Error::from_raw_os_error(libc::EPIPE));
            }
        }
    }

    /// read(2) of one message; none where there is none within that time, or where the other end is closed.
    pub fn read(&self, patience: Duration) -> io::Result<Option<Vec<u8>>> {
        let timeout = c_int::try_from(patience.as_millis()).unwrap_or(c_int::MAX);
        let mut interest = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one entry, on this stack.
        match unsafe { libc::poll(&raw mut interest, 1, timeout) } {
            0 => return Ok(None),
            n if n < 0 => return Err(io::Error::last_os_error()),
            _ => {}
        }
        let mut buffer = vec![0; 64 * 1024];
        // SAFETY: writable for the length given.
        let n = unsafe { libc::read(self.0.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
        let n = usize::try_from(n).map_err(|_| io::Error::last_os_error())?;
        buffer.truncate(n);
        Ok((n > 0).then_some(buffer))
    }
}

/// The socket that stands behind a device file.
pub(crate) fn socket_of(device: &Path) -> PathBuf {
    device.with_extension("sock")
}

pub(crate) fn seqpacket(flags: c_int) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC | flags;
    // SAFETY: plain integers.
    let fd =
        checked(unsafe { libc::socket(libc::AF_UNIX, kind, 0) }).map_err(io::Error::from_raw_os_error)?;
    // SAFETY: new, and nobody knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(crate) fn address_of(path: &Path) -> io::Result<(sockaddr_un, libc::socklen_t)> {
    // SAFETY: plain data for which zero is a value.
    let mut address: sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX.unsigned_abs().try_into().map_err(io::Error::other)?;
    let bytes = path.as_os_str().as_bytes();
    if bytes.len() >= address.sun_path.len() {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    for (to, byte) in address.sun_path.iter_mut().zip(bytes) {
        *to = libc::c_char::from_ne_bytes([*byte]);
    }
    Ok((address, size_of::<sockaddr_un>().try_into().map_err(io::Error::other)?))
}

/// Waits for any of them: false when the time is over. EINTR is an error.
pub(crate) fn poll(interests: &mut [libc::pollfd], patience: Option<Duration>) -> Result<bool, c_int> {
    let time = patience.map(|left| libc::timespec {
        tv_sec: left.as_secs().try_into().unwrap_or(libc::time_t::MAX),
        tv_nsec: left.subsec_nanos().into(),
    });
    let time = time.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    let count = interests.len().try_into().unwrap_or(libc::nfds_t::MAX);
    // SAFETY: as many entries as are said; a time or null; no signal mask.
    match unsafe { libc::ppoll(interests.as_mut_ptr(), count, time, std::ptr::null()) } {
        0 => Ok(false),
        n if n < 0 => Err(last_errno()),
        _ => Ok(true),
    }
}

pub(crate) fn interest(fd: RawFd, events: libc::c_short) -> libc::pollfd {
    libc::pollfd { fd, events, revents: 0 }
}

/// A flag that can be polled.
#[derive(Debug)]
pub(crate) struct Flag(OwnedFd);

impl Flag {
    pub(crate) fn new() -> Result<Flag, c_int> {
        // SAFETY: plain integers.
        let fd = checked(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        // SAFETY: new, and nobody knows it.
        Ok(Flag(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    pub(crate) fn set(&self) {
        let one = 1u64;
        // SAFETY: eight bytes; one that is set already stays so.
        unsafe { libc::write(self.fd(), (&raw const one).cast(), 8) };
    }

    pub(crate) fn clear(&self) {
        let mut count = 0u64;
        // SAFETY: eight bytes; one that is clear stays so.
        unsafe { libc::read(self.fd(), (&raw mut count).cast(), 8) };
    }
}
