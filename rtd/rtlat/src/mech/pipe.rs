//! A pipe; a full one is EAGAIN for the sender.

use super::payload;
use super::{Mechanism, Rx, Stamp, Tx};
use crate::sys::pipe::{self, MESSAGE_BYTES_MAX};
use rtcore::sys::Errno;
use std::sync::Arc;

#[derive(Debug)]
pub struct Pipe {
    pipe: Arc<pipe::Pipe>,
    payload_bytes: usize,
}

impl Pipe {
    /// A new one, for messages of this size.
    pub fn new(payload_bytes: usize) -> anyhow::Result<Pipe> {
        let fix = "PIPE_BUF, up to which the kernel writes a message whole, is fixed; take less, or measure unix";
        payload::check("pipe", payload_bytes, MESSAGE_BYTES_MAX, fix)?;
        Ok(Pipe {
            pipe: Arc::new(pipe::Pipe::new()?),
            payload_bytes,
        })
    }
}

impl Mechanism for Pipe {
    fn name(&self) -> &str {
        super::Kind::Pipe.name()
    }

    fn payload_bytes(&self) -> usize {
        self.payload_bytes
    }

    fn sender(&self) -> anyhow::Result<Box<dyn Tx>> {
        Ok(Box::new(PipeTx {
            pipe: self.pipe.clone(),
            message: payload::buffer(self.payload_bytes),
        }))
    }

    fn receiver(&self) -> anyhow::Result<Box<dyn Rx>> {
        Ok(Box::new(PipeRx {
            pipe: self.pipe.clone(),
            message: payload::buffer(self.payload_bytes),
        }))
    }
}

struct PipeTx {
    pipe: Arc<pipe::Pipe>,
    message: Vec<u8>,
}

impl Tx for PipeTx {
    #[inline]
    fn send(&mut self, stamp: &Stamp) -> Result<(), Errno> {
        stamp.put_into(&mut self.message)?;
        self.pipe.write(&self.message)
    }
}

struct PipeRx {
    pipe: Arc<pipe::Pipe>,
    message: Vec<u8>,
}

impl Rx for PipeRx {
    /// All messages are of one size and written whole, so a read of that size is a message.
    #[inline]
    fn receive(&mut self) -> Result<Stamp, Errno> {
        let length = self.pipe.read(&mut self.message)?;
        if length == self.message.len() {
            Stamp::decode(&self.message)
        } else {
            Err(Errno::BADMSG)
        }
    }
}
