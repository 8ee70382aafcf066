//! A bound port's thread: what the kernel does between the pool and the Linux program that has the
//! device open.

use crate::device::{BUSY, OPENED, interest, poll};
use crate::xddp::{Socket, cost, locked};
use libc::c_int;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// The kernel's part: takes what the Linux program writes into the pool, as far as there is room,
/// and gives it what is there for it.
pub(crate) fn pump(socket: &Socket, listener: &OwnedFd) {
    let mut program: Option<OwnedFd> = None;
    loop {
        let mut interests = [
            interest(socket.work.fd(), libc::POLLIN),
            interest(listener.as_raw_fd(), libc::POLLIN),
            interest(-1, 0),
        ];
        if let Some(program) = &program {
            interests[2] = interest(program.as_raw_fd(), wanted(socket, program));
        }
        if locked(&socket.state).closing {
            return;
        }
        let _ = poll(&mut interests, None);
        socket.work.clear();
        let [_, newcomers, ready] = interests.map(|interest| interest.revents);
        // Before a new program: an earlier one has closed the device by the time that the next one
        // opens it.
        if let Some(open) = &program
            && ready != 0
            && !serve(socket, open, ready)
        {
            program = None;
        }
        if newcomers != 0 {
            admit(listener, &mut program);
        }
    }
}

/// Takes the program that opens the device, if no other has it open, and answers it.
fn admit(listener: &OwnedFd, program: &mut Option<OwnedFd>) {
    let nobody = std::ptr::null_mut();
    // SAFETY: a listening socket; no address is asked for.
    let fd = unsafe {
        libc::accept4(
            listener.as_raw_fd(),
            nobody,
            std::ptr::null_mut(),
            libc::SOCK_CLOEXEC,
        )
    };
    if fd < 0 {
        return;
    }
    // SAFETY: new, and nobody knows it.
    let next = unsafe { OwnedFd::from_raw_fd(fd) };
    let answer = if program.is_none() { OPENED } else { BUSY };
    // SAFETY: readable for its length. A program that is gone is noticed when it is served.
    unsafe { libc::send(fd, answer.as_ptr().cast(), answer.len(), libc::MSG_NOSIGNAL) };
    if program.is_none() {
        shrink(&next);
        *program = Some(next);
    }
}

/// As small a buffer as Linux makes, since what is in it is in no pool.
fn shrink(program: &OwnedFd) {
    let bytes: c_int = 1;
    let (at, length) = (
        (&raw const bytes).cast(),
        size_of::<c_int>().try_into().unwrap_or(4),
    );
    // SAFETY: an integer of that length.
    unsafe {
        libc::setsockopt(
            program.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_SNDBUF,
            at,
            length,
        )
    };
}

/// Length of what the program wrote next, which stays where it is; 0 at its end, none where there
/// is nothing.
fn next_length(program: &OwnedFd) -> Option<usize> {
    let flags = libc::MSG_PEEK | libc::MSG_TRUNC | libc::MSG_DONTWAIT;
    // SAFETY: nothing is written into a buffer of no bytes.
    let n = unsafe { libc::recv(program.as_raw_fd(), std::ptr::null_mut(), 0, flags) };
    usize::try_from(n).ok()
}

fn wanted(socket: &Socket, program: &OwnedFd) -> libc::c_short {
    let state = locked(&socket.state);
    let next = next_length(program);
    let fits = |n: usize| state.used_bytes + cost(n) <= state.pool_bytes;
    let never = |n: usize| cost(n) > state.pool_bytes;
    let reads = next.is_none_or(|n| n == 0 || fits(n) || never(n));
    (if reads { libc::POLLIN } else { 0 })
        | if state.to_linux.is_empty() {
            0
        } else {
            libc::POLLOUT
        }
}

/// False when the program is gone.
fn serve(socket: &Socket, program: &OwnedFd, ready: libc::c_short) -> bool {
    let fd = program.as_raw_fd();
    let mut state = locked(&socket.state);
    if ready & libc::POLLOUT != 0
        && let Some(message) = state.to_linux.pop_front()
    {
        state.used_bytes -= cost(message.len());
        // SAFETY: readable for its length. A program that is gone is noticed below.
        unsafe {
            libc::send(
                fd,
                message.as_ptr().cast(),
                message.len(),
                libc::MSG_NOSIGNAL,
            )
        };
    }
    // One message at a time, as far as there is room; all of them, and the end, of a program that
    // is gone.
    if ready & (libc::POLLIN | libc::POLLHUP) == 0 {
        return true;
    }
    loop {
        let Some(length) = next_length(program) else {
            return true;
        };
        let mut message = vec![0; length];
        // SAFETY: writable for its length.
        let n = unsafe { libc::recv(fd, message.as_mut_ptr().cast(), length, libc::MSG_DONTWAIT) };
        if length == 0 || n < 0 {
            state.hang_up();
            socket.changed.set();
            return false;
        }
        if state.used_bytes + cost(message.len()) <= state.pool_bytes {
            state.used_bytes += cost(message.len());
            state.from_linux.push_back(message);
            socket.changed.set();
        }
        if ready & libc::POLLHUP == 0 {
            return true;
        }
    }
}
