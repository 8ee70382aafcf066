//! A pipe that carries messages (pipe(7)): each written whole, as it is not longer than PIPE_BUF.
//!
//! The reading end blocks, the writing end does not: a full pipe is EAGAIN.

use rtcore::sys::context::named;
use rtcore::sys::{Call, Errno};
use rustix::fs::OFlags;
use rustix::pipe::{PipeFlags, pipe_with};
use std::io;
use std::os::fd::OwnedFd;

/// Longest message that is written whole or not at all (PIPE_BUF). Nothing lifts it.
pub const MESSAGE_BYTES_MAX: usize = libc::PIPE_BUF;

#[derive(Debug)]
pub struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
}

impl Pipe {
    /// An empty pipe.
    ///
    /// Errors: EMFILE, ENFILE.
    pub fn new() -> io::Result<Pipe> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).map_err(|e| named("pipe", e))?;
        // A flag of the open file, and each end is one of its own.
        rustix::fs::fcntl_setfl(&writer, OFlags::NONBLOCK).map_err(|e| named("pipe", e))?;
        Ok(Pipe { reader, writer })
    }

    /// Adds a message. EAGAIN: no room; EMSGSIZE: longer than [`MESSAGE_BYTES_MAX`].
    #[inline]
    pub fn write(&self, message: &[u8]) -> Call<()> {
        if message.len() > MESSAGE_BYTES_MAX {
            return Err(Errno::MSGSIZE);
        }
        rustix::io::write(&self.writer, message)?;
        Ok(())
    }

    /// Takes `message.len()` bytes, or fewer if there are fewer; waits for the first. EINTR after a
    /// signal handler.
    #[inline]
    pub fn read(&self, message: &mut [u8]) -> Call<usize> {
        Ok(rustix::io::read(&self.reader, message)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_whole_and_in_order_and_a_full_pipe_is_an_error() {
        let pipe = Pipe::new().unwrap();
        let mut written = 0u8;
        let full = loop {
            match pipe.write(&[written; 4096]) {
                Ok(()) => written += 1,
                Err(e) => break e,
            }
        };
        assert_eq!(full, Errno::AGAIN);
        let mut message = [0; 4096];
        for n in 0..written {
            assert_eq!((pipe.read(&mut message), message), (Ok(4096), [n; 4096]));
        }
        assert_eq!(pipe.write(&[0; 4097]), Err(Errno::MSGSIZE));
    }
}
