//! The Linux side of an XDDP port: what a plain Linux program has open. Tests use it for the real
//! `/dev/rtpN`, too.
//!
//! The stand-in cannot make a device file, so its `rtpN` is a file in a directory of the space's
//! own and its open(2) is a connection to the socket beside it, answered by [`OPENED`] or [`BUSY`];
//! messages are datagrams.

use crate::{checked, last_errno};
use libc::{c_int, sockaddr_un};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Ports of a space; the kernel's default is 32.
pub const PORTS: i16 = 4;

/// How often a writer looks whether its message has been taken.
const LOOK: Duration = Duration::from_micros(100);

/// How often an open(2) looks whether the port is bound by now.
const OPEN_LOOK: Duration = Duration::from_millis(1);

/// The first datagram to a program that has the device open now.
pub(crate) const OPENED: &[u8] = b"open";
/// The only datagram to a program that comes while another has it open.
pub(crate) const BUSY: &[u8] = b"busy";

/// An open device.
#[derive(Debug)]
pub struct Device {
    fd: OwnedFd,
    is_real: bool,
}

impl Device {
    /// Opens it (open(2)); waits until somebody is bound to the port. EBUSY: another program has it
    /// open.
    pub fn open(device: &Path) -> io::Result<Device> {
        loop {
            match Device::open_now(device) {
                // Nothing announces a bound port.
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(OPEN_LOOK),
                opened => return opened,
            }
        }
    }

    /// The same without the wait (O_NONBLOCK): EWOULDBLOCK while nobody is bound to the port.
    pub fn open_now(device: &Path) -> io::Result<Device> {
        if device.metadata()?.file_type().is_char_device() {
            return open_real(device);
        }
        let fd = seqpacket(0)?;
        let (address, length) = address_of(&socket_of(device))?;
        // SAFETY: an address of that length, on this stack.
        let connected =
            unsafe { libc::connect(fd.as_raw_fd(), (&raw const address).cast(), length) };
        match checked(connected) {
            Err(libc::ENOENT | libc::ECONNREFUSED) => return Err(io::ErrorKind::WouldBlock.into()),
            Err(errno) => return Err(io::Error::from_raw_os_error(errno)),
            Ok(_) => {}
        }
        let mut answer = [0; OPENED.len()];
        // SAFETY: writable for the length given.
        let n = unsafe { libc::read(fd.as_raw_fd(), answer.as_mut_ptr().cast(), answer.len()) };
        match usize::try_from(n) {
            Ok(1..) if answer == OPENED => Ok(Device { fd, is_real: false }),
            Ok(1..) => Err(io::Error::from_raw_os_error(libc::EBUSY)),
            // The port was closed before it answered.
            _ => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// write(2): the message is in the port's pool when it returns, for which it may wait. EPIPE:
    /// nobody is bound any more.
    pub fn write(&self, message: &[u8]) -> io::Result<()> {
        let (fd, at, len) = (self.fd.as_raw_fd(), message.as_ptr().cast(), message.len());
        if self.is_real {
            // SAFETY: readable for the length given.
            let written = unsafe { libc::write(fd, at, len) };
            return if written < 0 {
                Err(io::Error::last_os_error())
            } else {
                Ok(())
            };
        }
        // SAFETY: readable for the length given; one that nobody reads any more is an error and no
        // signal.
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
            // Nothing announces that the other end has read it. One that is closed never will; but
            // it may have read the message after the look above and before it was closed.
            let _ = poll(std::slice::from_mut(&mut interest), Some(LOOK));
            if interest.revents & libc::POLLHUP != 0 {
                return if closed_unread(fd)? {
                    Err(io::Error::from_raw_os_error(libc::EPIPE))
                } else {
                    Ok(())
                };
            }
        }
    }

    /// read(2) of one message; none where there is none within that time. EPIPE: nobody is bound
    /// any more.
    pub fn read(&self, patience: Duration) -> io::Result<Option<Vec<u8>>> {
        let timeout = c_int::try_from(patience.as_millis()).unwrap_or(c_int::MAX);
        let mut interest = libc::pollfd {
            fd: self.fd.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one entry, on this stack.
        match unsafe { libc::poll(&raw mut interest, 1, timeout) } {
            0 => return Ok(None),
            n if n < 0 => return Err(io::Error::last_os_error()),
            _ => {}
        }
        let mut buffer = vec![0; 64 * 1024];
        // SAFETY: writable for the length given.
        let n = unsafe {
            libc::read(
                self.fd.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
            )
        };
        let n = match usize::try_from(n).map_err(|_| last_errno()) {
            // Closed, with messages unread or not.
            Ok(0) | Err(libc::ECONNRESET) => Err(io::Error::from_raw_os_error(libc::EPIPE)),
            n => n.map_err(io::Error::from_raw_os_error),
        }?;
        buffer.truncate(n);
        Ok(Some(buffer))
    }
}

/// A device of the core's. It is opened so that it does not wait, and waits afterwards.
fn open_real(device: &Path) -> io::Result<Device> {
    use std::os::unix::fs::OpenOptionsExt;
    let options = std::fs::File::options()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .clone();
    let fd = OwnedFd::from(options.open(device)?);
    // SAFETY: plain integers.
    checked(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, 0) })
        .map_err(io::Error::from_raw_os_error)?;
    Ok(Device { fd, is_real: true })
}

/// Whether the other end, which is closed, had not read all (unix(7): ECONNRESET).
fn closed_unread(fd: RawFd) -> io::Result<bool> {
    let (mut errno, mut length): (c_int, libc::socklen_t) = (0, 4);
    let at = (&raw mut errno).cast();
    // SAFETY: an integer of that length, on this stack.
    let got =
        unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_ERROR, at, &raw mut length) };
    checked(got).map_err(io::Error::from_raw_os_error)?;
    Ok(errno == libc::ECONNRESET)
}

/// The socket that stands behind a device file.
pub(crate) fn socket_of(device: &Path) -> PathBuf {
    device.with_extension("sock")
}

pub(crate) fn seqpacket(flags: c_int) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC | flags;
    // SAFETY: plain integers.
    let fd = checked(unsafe { libc::socket(libc::AF_UNIX, kind, 0) })
        .map_err(io::Error::from_raw_os_error)?;
    // SAFETY: new, and nobody knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(crate) fn address_of(path: &Path) -> io::Result<(sockaddr_un, libc::socklen_t)> {
    // SAFETY: plain data for which zero is a value.
    let mut address: sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX
        .unsigned_abs()
        .try_into()
        .map_err(io::Error::other)?;
    let bytes = path.as_os_str().as_bytes();
    if bytes.len() >= address.sun_path.len() {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    for (to, byte) in address.sun_path.iter_mut().zip(bytes) {
        *to = libc::c_char::from_ne_bytes([*byte]);
    }
    Ok((
        address,
        size_of::<sockaddr_un>()
            .try_into()
            .map_err(io::Error::other)?,
    ))
}

/// Waits for any of them: false when the time is over. EINTR is an error.
pub(crate) fn poll(
    interests: &mut [libc::pollfd],
    patience: Option<Duration>,
) -> Result<bool, c_int> {
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
    libc::pollfd {
        fd,
        events,
        revents: 0,
    }
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
