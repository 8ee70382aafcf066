//! Two connected sockets that keep messages apart (socketpair(2), SOCK_SEQPACKET of unix(7)), used
//! in one direction.

use rtcore::sys::Call;
use rtcore::sys::context::named;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};
use std::io;
use std::os::fd::OwnedFd;

/// The part of the send buffer that the kernel keeps for itself (unix_dgram_sendmsg in
/// net/unix/af_unix.c).
const RESERVED_BYTES: usize = 32;

#[derive(Debug)]
pub struct SocketPair {
    sender: OwnedFd,
    receiver: OwnedFd,
}

impl SocketPair {
    /// Two new ones.
    ///
    /// Errors: EMFILE, ENFILE.
    pub fn new() -> io::Result<SocketPair> {
        let kind = (AddressFamily::UNIX, SocketType::SEQPACKET);
        let (sender, receiver) =
            rustix::net::socketpair(kind.0, kind.1, SocketFlags::CLOEXEC, None)
                .map_err(|e| named("socketpair", e))?;
        Ok(SocketPair { sender, receiver })
    }

    /// Longest message in bytes: the send buffer (net.core.wmem_default) without the kernel's part
    /// of it.
    pub fn message_bytes_max(&self) -> io::Result<usize> {
        let buffer =
            sockopt::socket_send_buffer_size(&self.sender).map_err(|e| named("SO_SNDBUF", e))?;
        Ok(buffer.saturating_sub(RESERVED_BYTES))
    }

    /// Sends a message. EAGAIN: no room; EMSGSIZE: longer than [`SocketPair::message_bytes_max`].
    #[inline]
    pub fn send(&self, message: &[u8]) -> Call<()> {
        rustix::net::send(
            &self.sender,
            message,
            SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
        )?;
        Ok(())
    }

    /// Waits for a message: its length, of which `message` holds as much as it can. EINTR after a
    /// signal handler.
    #[inline]
    pub fn receive(&self, message: &mut [u8]) -> Call<usize> {
        let (_, length) = rustix::net::recv(&self.receiver, message, RecvFlags::TRUNC)?;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtcore::sys::Errno;

    #[test]
    fn messages_stay_apart_and_a_full_buffer_is_an_error() {
        let pair = SocketPair::new().unwrap();
        pair.send(b"one").unwrap();
        pair.send(b"and two").unwrap();
        let mut message = [0; 5];
        assert_eq!(
            (pair.receive(&mut message), &message[..3]),
            (Ok(3), &b"one"[..])
        );
        assert_eq!((pair.receive(&mut message), &message), (Ok(7), b"and t"));
        let full = loop {
            if let Err(e) = pair.send(&message) {
                break e;
            }
        };
        assert_eq!(full, Errno::AGAIN);
    }

    #[test]
    fn the_longest_message_is_as_long_as_it_says() {
        let pair = SocketPair::new().unwrap();
        let longest = pair.message_bytes_max().unwrap();
        let mut message = vec![1; longest + 1];
        assert_eq!(pair.send(&message), Err(Errno::MSGSIZE));
        assert_eq!(pair.send(&message[..longest]), Ok(()));
        assert_eq!(pair.receive(&mut message), Ok(longest));
    }
}
