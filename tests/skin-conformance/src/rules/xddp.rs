//! Datagrams between a lane and a plain Linux program, by the table: the rule's thread has the
//! port, and opens its device as such a program does.

use super::Rule;
use super::table::{Table, failed, not_early, refused};
use super::util::{A_WHILE, broken, interrupted_by, same, skipped};
use crate::run::PRIORITY;
use crate::skin::{Ending, Stop};
use rtcore::skin::Skin;
use rtcore::skin::xddp::{Port, PortSpec, device, pool_bytes};
use rtcore::sys::clock::nanos;
use rtcore::wait::Timeout;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(super) const RULES: &[Rule<Skin>] = &[
    Rule {
        name: "xddp: what is sent is read at the device, also what was sent before it was opened",
        check: out,
    },
    Rule {
        name: "xddp: what is written to the device is received, and a receive keeps its bound",
        check: in_time,
    },
    Rule {
        name: "xddp: a full pool is EAGAIN at once, and holds what it was made for",
        check: full,
    },
    Rule {
        name: "xddp: a message of no bytes is refused",
        check: empty,
    },
    Rule {
        name: "xddp: a port is bound once",
        check: once,
    },
    Rule {
        name: "xddp: a receive that waits comes back when the program closes the device",
        check: closed,
    },
    Rule {
        name: "xddp: a Linux signal ends a receive that waits",
        check: ended,
    },
];

const MSGSIZE: usize = 100;
/// Ports that are looked at for a free one; the kernel's default is 32.
const PORTS: i16 = 32;

/// A free port, bound, with the path of its device.
fn bound(skin: Table) -> Result<(Port, PathBuf, i16), Stop> {
    let Some(calls) = skin.xddp else {
        return Err(skipped("this skin has none"));
    };
    if let Err(why) = (calls.probe)() {
        return Err(skipped(why));
    }
    // From above: what runs on the machine has low ones.
    for port in (0..PORTS)
        .rev()
        .filter(|port| device(calls.devices, *port).exists())
    {
        let spec = PortSpec {
            port,
            label: None,
            pool_bytes: pool_bytes(4, MSGSIZE),
        };
        if let Ok(open) = Port::open(calls, &spec) {
            return Ok((open, device(calls.devices, port), port));
        }
    }
    Err(skipped(format!(
        "no port of {} is free",
        calls.devices.display()
    )))
}

/// What a plain Linux program has open: the device; the stand-in's is a socket beside a file, which
/// first answers `open`.
fn linux_side(device: &Path) -> Result<File, Stop> {
    let kind = device.metadata().map_err(broken)?.file_type();
    if kind.is_char_device() {
        return File::options()
            .read(true)
            .write(true)
            .open(device)
            .map_err(broken);
    }
    // SAFETY: plain data for which zero is a value.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX.unsigned_abs().try_into().map_err(broken)?;
    let path = device.with_extension("sock");
    // The last byte stays zero.
    let room = address.sun_path.len() - 1;
    for (to, byte) in address.sun_path[..room]
        .iter_mut()
        .zip(path.as_os_str().as_bytes())
    {
        *to = libc::c_char::from_ne_bytes([*byte]);
    }
    let length = size_of_val(&address).try_into().map_err(broken)?;
    // SAFETY: plain integers.
    let fd = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(broken(std::io::Error::last_os_error()));
    }
    // SAFETY: new, and nobody knows it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: an address of that length, on this stack.
    if unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), length) } < 0 {
        return Err(broken(std::io::Error::last_os_error()));
    }
    let mut program = File::from(socket);
    same("open(2)", read(&mut program)?.as_slice(), b"open")?;
    Ok(program)
}

fn read(program: &mut File) -> Result<Vec<u8>, Stop> {
    let mut buffer = [0; 256];
    let length = program.read(&mut buffer).map_err(broken)?;
    Ok(buffer[..length].to_vec())
}

fn out(skin: Table) -> Ending {
    let (port, device, number) = bound(skin)?;
    port.send(b"before").map_err(failed)?;
    port.send(b"it was opened").map_err(failed)?;
    let mut program = linux_side(&device)?;
    same("the first", read(&mut program)?.as_slice(), b"before")?;
    same(
        "the second",
        read(&mut program)?.as_slice(),
        b"it was opened",
    )?;
    port.send(&[7; MSGSIZE]).map_err(failed)?;
    same("the longest", read(&mut program)?, vec![7; MSGSIZE])?;
    Ok(format!("port {number}"))
}

fn in_time(skin: Table) -> Ending {
    let (port, device, _) = bound(skin)?;
    let mut program = linux_side(&device)?;
    let mut buffer = [0; 4096];
    refused(
        "without time",
        port.receive(&mut buffer, Timeout::NOW),
        libc::EAGAIN,
    )?;
    let got = not_early(skin, A_WHILE, || {
        port.receive(&mut buffer, Timeout(nanos(A_WHILE)))
    })?;
    let errno = refused("with time", got, libc::ETIMEDOUT)?;
    program.write_all(b"one").map_err(broken)?;
    let length = port
        .receive(&mut buffer, Timeout(nanos(Duration::from_secs(5))))
        .map_err(failed)?;
    same("with time", &buffer[..length], b"one")?;
    // The bound was the call's and not the port's.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(2 * A_WHILE);
            program.write_all(b"two")
        });
        let length = port
            .receive(&mut buffer, Timeout::FOREVER)
            .map_err(failed)?;
        same("without a bound", &buffer[..length], b"two")
    })?;
    Ok(errno)
}

fn full(skin: Table) -> Ending {
    let (port, device, _) = bound(skin)?;
    let mut accepted = 0;
    let refusal = loop {
        match port.send(&[1; MSGSIZE]) {
            Ok(()) if accepted < 1000 => accepted += 1,
            Ok(()) => return Err(broken("1000 messages were accepted in a pool for 4")),
            Err(errno) => break errno,
        }
    };
    if accepted < 4 {
        return Err(broken(format!(
            "{accepted} messages of {MSGSIZE} bytes filled a pool that was made for 4"
        )));
    }
    let errno = refused::<()>("the one that finds no room", Err(refusal), libc::EAGAIN)?;
    let mut program = linux_side(&device)?;
    for _ in 0..accepted {
        same("length", read(&mut program)?.len(), MSGSIZE)?;
    }
    port.send(&[1; MSGSIZE]).map_err(failed)?;
    Ok(format!("{errno} after {accepted}"))
}

fn empty(skin: Table) -> Ending {
    let (port, ..) = bound(skin)?;
    refused("send", port.send(b""), libc::EINVAL)
}

fn once(skin: Table) -> Ending {
    let (_port, _, number) = bound(skin)?;
    let Some(calls) = skin.xddp else {
        return Err(skipped("this skin has none"));
    };
    let spec = PortSpec {
        port: number,
        label: None,
        pool_bytes: pool_bytes(1, 1),
    };
    match Port::open(calls, &spec) {
        Ok(_) => Err(broken("a second socket was bound to it")),
        Err(said) => Ok(said.to_string()),
    }
}

fn closed(skin: Table) -> Ending {
    let (port, device, _) = bound(skin)?;
    let program = linux_side(&device)?;
    let received = std::thread::scope(|scope| {
        scope.spawn(move || {
            std::thread::sleep(A_WHILE);
            drop(program);
        });
        port.receive(&mut [0; 4096], Timeout(nanos(Duration::from_secs(5))))
    });
    let errno = refused("the receive", received, libc::EINTR)?;
    // The next program finds the port as the first one did.
    let mut program = linux_side(&device)?;
    port.send(b"again").map_err(failed)?;
    same(
        "to the next program",
        read(&mut program)?.as_slice(),
        b"again",
    )?;
    Ok(errno)
}

fn ended(skin: Table) -> Ending {
    let (port, ..) = bound(skin)?;
    let promote = || (skin.setup.promote)(u8::try_from(PRIORITY).unwrap_or(1)).map_err(broken);
    let pause = || (skin.sleep_until)((skin.now_ns)() + nanos(Duration::from_millis(2)));
    let call = || {
        port.receive(&mut [0; 4096], Timeout::FOREVER)
            .map_err(|errno| crate::Errno(errno.0))
    };
    interrupted_by(promote, pause, call)
}
