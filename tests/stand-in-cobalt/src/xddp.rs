//! XDDP sockets: AF_RTIPC datagrams between a Cobalt thread and the program that has the port's
//! device open.
//!
//! As the real ones: one socket to a port (of all processes), a pool of bytes that both directions
//! share, ENOMEM where a send finds it full, a Linux writer that waits for room, messages that wait
//! while nobody has the device open, and that are dropped when it is closed, with a 0 for a receive
//! that waits then; ENOBUFS and a lost message for a buffer that is too short; nothing at all for a
//! message of no bytes.
//!
//! The pool is a heap of the core's: whole pages of memory, from which a message takes a piece of a
//! power of two (above half a page of the heap, whole ones). Another program that opens the device
//! gets EBUSY, one that opens it while nobody is bound waits, and one that has it open when the
//! socket is closed gets EPIPE.
//!
//! Not kept: [`crate::Device`] says what open(2) is here. Pieces of different sizes share pages; a
//! message larger than the pool is dropped, where its writer would get ENOMEM; one or two messages
//! to a Linux program that does not read are in its socket and no longer in the pool. A thread per
//! bound port does what the kernel does there.

use crate::device::{Flag, PORTS, address_of, interest, poll, seqpacket, socket_of};
use crate::pump::pump;
use crate::thread::{left, primary, secondary};
use crate::{Core, checked, init, last_errno, or_errno, space, switch};
use libc::{c_char, c_int, c_void, size_t, sockaddr, socklen_t, ssize_t};
use std::collections::VecDeque;
use std::ffi::CStr;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const AF_RTIPC: c_int = 111;
const IPCPROTO_XDDP: c_int = 1;
const SOL_XDDP: c_int = 311;
const XDDP_LABEL: c_int = 1;
const XDDP_POOLSZ: c_int = 2;
const LABEL_BYTES: usize = 32;
/// What the core puts in front of a message in the pool.
const HEADER_BYTES: usize = 32;
/// A page of the pool's heap.
const HEAP_PAGE_BYTES: usize = 512;
/// A page of the machine.
const PAGE_BYTES: usize = 4096;
/// Of a port that asks for no pool of its own, which the core's heap would stand in for.
const POOL_BYTES: usize = 64 * 1024;

/// Sockets of this process, by descriptor.
static SOCKETS: Mutex<Vec<(c_int, Arc<Socket>)>> = Mutex::new(Vec::new());

/// `struct sockaddr_ipc`.
#[repr(C)]
struct Address {
    family: libc::sa_family_t,
    port: i16,
}

pub(crate) struct Socket {
    /// Its number is the descriptor that the caller has; set when a message comes or the device is
    /// closed.
    pub(crate) changed: Flag,
    /// Something for the port's thread to do.
    pub(crate) work: Flag,
    pub(crate) state: Mutex<State>,
}

#[derive(Default)]
pub(crate) struct State {
    label: Option<String>,
    pub(crate) pool_bytes: usize,
    pub(crate) used_bytes: usize,
    patience: Option<Duration>,
    pub(crate) to_linux: VecDeque<Vec<u8>>,
    pub(crate) from_linux: VecDeque<Vec<u8>>,
    /// A receive waits, and is to come back with 0.
    waiting: bool,
    hung_up: bool,
    bound: Option<Bound>,
    pub(crate) closing: bool,
}

struct Bound {
    pump: JoinHandle<()>,
    files: Vec<PathBuf>,
    /// Locked as long as the port is bound.
    _device: File,
}

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn find(fd: c_int) -> Option<Arc<Socket>> {
    locked(&SOCKETS)
        .iter()
        .find(|(known, _)| *known == fd)
        .map(|(_, socket)| Arc::clone(socket))
}

/// What a message of so many bytes takes of the pool.
pub(crate) fn cost(length: usize) -> usize {
    let needed = length + HEADER_BYTES;
    if needed <= HEAP_PAGE_BYTES / 2 {
        needed.next_power_of_two()
    } else {
        needed.next_multiple_of(HEAP_PAGE_BYTES)
    }
}

/// Makes the files that stand for the devices; where they are there, they stay.
pub(crate) fn make_devices() {
    let devices = space::devices(&switch::get().space);
    let _ = std::fs::create_dir_all(&devices);
    for port in 0..PORTS {
        let _ = File::options()
            .create(true)
            .append(true)
            .open(devices.join(format!("rtp{port}")));
    }
}

/// Opens the device of the core's memory, as the real library opens /dev/rtdm/memdev-private,
/// shared and sys. Where it is there it stays as it is.
pub(crate) fn open_memory() -> Result<(), String> {
    let path = space::memory_device(&switch::get().space);
    let _ = path.parent().map(std::fs::create_dir_all);
    let there = File::options().read(true).write(true).open(&path);
    let there = match there {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path),
        there => there,
    };
    there
        .map(drop)
        .map_err(|e| format!("cannot map RTDM device {}: {e}", path.display()))
}

/// Tells the program that loads this library where they are.
#[unsafe(no_mangle)]
extern "C" fn rtd_stand_in_devices() -> *const c_char {
    static DEVICES: std::sync::OnceLock<std::ffi::CString> = std::sync::OnceLock::new();
    let path = || {
        space::devices(&switch::get().space)
            .into_os_string()
            .into_encoded_bytes()
    };
    DEVICES
        .get_or_init(|| std::ffi::CString::new(path()).unwrap_or_default())
        .as_ptr()
}

#[unsafe(no_mangle)]
extern "C" fn __cobalt_socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int {
    or_errno((|| {
        secondary()?;
        if domain != AF_RTIPC || switch::get().no_xddp {
            // SAFETY: plain integers.
            return checked(unsafe { libc::socket(domain, kind, protocol) });
        }
        if kind & 0xf != libc::SOCK_DGRAM || protocol != IPCPROTO_XDDP {
            return Err(libc::EPROTONOSUPPORT);
        }
        let state = Mutex::new(State {
            pool_bytes: POOL_BYTES,
            ..State::default()
        });
        let socket = Socket {
            changed: Flag::new()?,
            work: Flag::new()?,
            state,
        };
        let fd = socket.changed.fd();
        locked(&SOCKETS).push((fd, Arc::new(socket)));
        Ok(fd)
    })())
}

#[unsafe(no_mangle)]
extern "C" fn __cobalt_close(fd: c_int) -> c_int {
    or_errno((|| {
        secondary()?;
        let mut sockets = locked(&SOCKETS);
        let Some(at) = sockets.iter().position(|(known, _)| *known == fd) else {
            // SAFETY: the caller's statement (close(2)).
            return checked(unsafe { libc::close(fd) });
        };
        let (_, socket) = sockets.swap_remove(at);
        drop(sockets);
        let bound = {
            let mut state = locked(&socket.state);
            state.closing = true;
            state.bound.take()
        };
        socket.work.set();
        if let Some(bound) = bound {
            let _ = bound.pump.join();
            bound
                .files
                .iter()
                .for_each(|file| drop(std::fs::remove_file(file)));
        }
        Ok(0)
    })())
}

/// 1. `value` points to `length` bytes.
unsafe fn option_of<T: Copy>(value: *const c_void, length: socklen_t) -> Core<T> {
    if length as usize != size_of::<T>() {
        return Err(libc::EINVAL);
    }
    // SAFETY: (1); plain data, wherever it lies.
    Ok(unsafe { value.cast::<T>().read_unaligned() })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __cobalt_setsockopt(
    fd: c_int,
    level: c_int,
    option: c_int,
    value: *const c_void,
    length: socklen_t,
) -> c_int {
    or_errno((|| {
        init::bound()?;
        let Some(socket) = find(fd) else {
            // SAFETY: the caller's statement (setsockopt(2)).
            return checked(unsafe { libc::setsockopt(fd, level, option, value, length) });
        };
        let mut state = locked(&socket.state);
        let late = if state.bound.is_some() {
            Err(libc::EALREADY)
        } else {
            Ok(())
        };
        match (level, option) {
            (libc::SOL_SOCKET, libc::SO_RCVTIMEO) => {
                // SAFETY: the caller's statement (setsockopt(2)).
                let time = unsafe { option_of::<libc::timeval>(value, length) }?;
                let seconds = Duration::from_secs(time.tv_sec.unsigned_abs());
                let time = seconds + Duration::from_micros(time.tv_usec.unsigned_abs());
                state.patience = Some(time).filter(|time| !time.is_zero());
            }
            (SOL_XDDP, XDDP_POOLSZ) => {
                // SAFETY: as above.
                let bytes = unsafe { option_of::<size_t>(value, length) }?;
                late.and(if bytes == 0 {
                    Err(libc::EINVAL)
                } else {
                    Ok(())
                })?;
                state.pool_bytes = bytes.next_multiple_of(PAGE_BYTES);
            }
            (SOL_XDDP, XDDP_LABEL) => {
                late?;
                // SAFETY: as above.
                let label = unsafe { option_of::<[u8; LABEL_BYTES]>(value, length) }?;
                let text = CStr::from_bytes_until_nul(&label).map_err(|_| libc::EINVAL)?;
                state.label =
                    Some(text.to_string_lossy().into_owned()).filter(|text| !text.is_empty());
            }
            (libc::SOL_SOCKET | SOL_XDDP, _) => return Err(libc::EINVAL),
            _ => return Err(libc::ENOPROTOOPT),
        }
        Ok(0)
    })())
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __cobalt_bind(
    fd: c_int,
    address: *const sockaddr,
    length: socklen_t,
) -> c_int {
    or_errno((|| {
        secondary()?;
        let Some(socket) = find(fd) else {
            // SAFETY: the caller's statement (bind(2)).
            return checked(unsafe { libc::bind(fd, address, length) });
        };
        if length as usize != size_of::<Address>() {
            return Err(libc::EINVAL);
        }
        // SAFETY: an address of that length, by the caller's statement (bind(2)); wherever it lies.
        let Address { family, port } = unsafe { address.cast::<Address>().read_unaligned() };
        if c_int::from(family) != AF_RTIPC || !(0..PORTS).contains(&port) {
            return Err(libc::EINVAL);
        }
        let mut state = locked(&socket.state);
        if state.bound.is_some() {
            return Err(libc::EADDRINUSE);
        }
        let bound = bind(&socket, port, state.label.as_deref())?;
        state.bound = Some(bound);
        Ok(0)
    })())
}

fn bind(socket: &Arc<Socket>, port: i16, label: Option<&str>) -> Core<Bound> {
    let failed = |e: std::io::Error| e.raw_os_error().unwrap_or(libc::EIO);
    let devices = space::devices(&switch::get().space);
    let path = devices.join(format!("rtp{port}"));
    let device = File::options().write(true).open(&path).map_err(failed)?;
    // One socket to a port; the lock ends with its holder, whose files may still be there.
    device.try_lock().map_err(|_| libc::EADDRINUSE)?;
    let mut files = vec![socket_of(&path)];
    let _ = std::fs::remove_file(&files[0]);
    let listener = seqpacket(libc::SOCK_NONBLOCK).map_err(failed)?;
    let (address, length) = address_of(&files[0]).map_err(failed)?;
    // SAFETY: an address of that length, on this stack.
    checked(unsafe { libc::bind(listener.as_raw_fd(), (&raw const address).cast(), length) })?;
    // SAFETY: a bound socket.
    checked(unsafe { libc::listen(listener.as_raw_fd(), 4) })?;
    if let Some(label) = label {
        let link = devices.join("registry").join(label);
        let _ = std::fs::create_dir_all(devices.join("registry"));
        if std::fs::read_link(&link).is_ok_and(|of| of == path) {
            let _ = std::fs::remove_file(&link);
        }
        std::os::unix::fs::symlink(&path, &link).map_err(failed)?;
        files.push(link);
    }
    let pumped = Arc::clone(socket);
    let thread = std::thread::Builder::new().name(format!("rtp{port}"));
    let pump = thread
        .spawn(move || pump(&pumped, &listener))
        .map_err(failed)?;
    Ok(Bound {
        pump,
        files,
        _device: device,
    })
}

impl State {
    /// The Linux program closed the device.
    pub(crate) fn hang_up(&mut self) {
        self.to_linux.clear();
        self.from_linux.clear();
        self.used_bytes = 0;
        self.hung_up = self.waiting;
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __cobalt_recvfrom(
    fd: c_int,
    bytes: *mut c_void,
    length: size_t,
    flags: c_int,
    from: *mut sockaddr,
    from_length: *mut socklen_t,
) -> ssize_t {
    returned((|| {
        primary()?;
        let Some(socket) = find(fd) else {
            // SAFETY: the caller's statement (recvfrom(2)).
            let n = unsafe { libc::recvfrom(fd, bytes, length, flags, from, from_length) };
            return usize::try_from(n).map_err(|_| last_errno());
        };
        if flags & !libc::MSG_DONTWAIT != 0 || !from.is_null() {
            return Err(libc::EINVAL);
        }
        let Some(message) = receive(&socket, flags & libc::MSG_DONTWAIT != 0)? else {
            return Ok(0);
        };
        if message.len() > length {
            return Err(libc::ENOBUFS);
        }
        // SAFETY: the caller's statement (recvfrom(2)): writable for its length.
        unsafe { std::ptr::copy_nonoverlapping(message.as_ptr(), bytes.cast(), message.len()) };
        Ok(message.len())
    })())
}

/// The next message; none when the Linux program closed the device meanwhile.
fn receive(socket: &Socket, at_once: bool) -> Core<Option<Vec<u8>>> {
    let start = Instant::now();
    loop {
        let patience = {
            let mut state = locked(&socket.state);
            state.waiting = false;
            if state.bound.is_none() {
                return Err(libc::EAGAIN);
            }
            if let Some(message) = state.from_linux.pop_front() {
                state.used_bytes -= cost(message.len());
                socket.work.set();
                return Ok(Some(message));
            }
            if std::mem::take(&mut state.hung_up) {
                return Ok(None);
            }
            if at_once {
                return Err(libc::EAGAIN);
            }
            socket.changed.clear();
            state.waiting = true;
            state.patience
        };
        let rest = patience.map(|patience| patience.saturating_sub(start.elapsed()));
        match poll(&mut [interest(socket.changed.fd(), libc::POLLIN)], rest) {
            Ok(true) => {}
            ended => {
                locked(&socket.state).waiting = false;
                return left(ended.and(Err(libc::ETIMEDOUT)));
            }
        }
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __cobalt_sendto(
    fd: c_int,
    bytes: *const c_void,
    length: size_t,
    flags: c_int,
    to: *const sockaddr,
    to_length: socklen_t,
) -> ssize_t {
    returned((|| {
        primary()?;
        let Some(socket) = find(fd) else {
            // SAFETY: the caller's statement (sendto(2)).
            let n = unsafe { libc::sendto(fd, bytes, length, flags, to, to_length) };
            return usize::try_from(n).map_err(|_| last_errno());
        };
        // To the socket's own port, in whole messages: what is used of it.
        if flags & !libc::MSG_DONTWAIT != 0 || !to.is_null() {
            return Err(libc::EINVAL);
        }
        let mut state = locked(&socket.state);
        if state.bound.is_none() {
            return Err(libc::ENOTCONN);
        }
        if length == 0 {
            return Ok(0);
        }
        if state.used_bytes + cost(length) > state.pool_bytes {
            return Err(libc::ENOMEM);
        }
        // SAFETY: the caller's statement (sendto(2)): readable for its length.
        let message = unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), length) }.to_vec();
        state.used_bytes += cost(message.len());
        state.to_linux.push_back(message);
        socket.work.set();
        Ok(length)
    })())
}

fn returned(result: Core<usize>) -> ssize_t {
    match result {
        Ok(n) => n.cast_signed(),
        Err(errno) => {
            crate::set_errno(errno);
            -1
        }
    }
}
