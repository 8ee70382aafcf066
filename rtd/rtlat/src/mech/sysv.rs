//! A System V message queue, removed with the mechanism; a full one is EAGAIN for the sender.

use super::payload;
use super::{Mechanism, Rx, Stamp, Tx};
use crate::sys::sysv::{Message, Queue, Sysctl};
use rtcore::sys::Errno;
use std::sync::Arc;

#[derive(Debug)]
pub struct Sysv {
    queue: Arc<Queue>,
    payload_bytes: usize,
}

impl Sysv {
    /// A new one, for messages of this size.
    pub fn new(payload_bytes: usize) -> anyhow::Result<Sysv> {
        for sysctl in [Sysctl::Msgmax, Sysctl::Msgmnb] {
            let fix = format!(
                "the limit is {0}; sysctl -w {0}={payload_bytes}",
                sysctl.name()
            );
            payload::check(
                "System V message queue",
                payload_bytes,
                sysctl.read()?,
                &fix,
            )?;
        }
        Ok(Sysv {
            queue: Arc::new(Queue::new()?),
            payload_bytes,
        })
    }
}

impl Mechanism for Sysv {
    fn name(&self) -> &str {
        super::Kind::Sysv.name()
    }

    fn payload_bytes(&self) -> usize {
        self.payload_bytes
    }

    fn sender(&self) -> anyhow::Result<Box<dyn Tx>> {
        Ok(Box::new(SysvTx {
            queue: self.queue.clone(),
            message: Message::new(self.payload_bytes),
        }))
    }

    fn receiver(&self) -> anyhow::Result<Box<dyn Rx>> {
        Ok(Box::new(SysvRx {
            queue: self.queue.clone(),
            message: Message::new(self.payload_bytes),
        }))
    }
}

struct SysvTx {
    queue: Arc<Queue>,
    message: Message,
}

impl Tx for SysvTx {
    #[inline]
    fn send(&mut self, stamp: &Stamp) -> Result<(), Errno> {
        stamp.put_into(self.message.bytes_mut())?;
        self.queue.send(&self.message)
    }
}

struct SysvRx {
    queue: Arc<Queue>,
    message: Message,
}

impl Rx for SysvRx {
    #[inline]
    fn receive(&mut self) -> Result<Stamp, Errno> {
        let length = self.queue.receive(&mut self.message)?;
        Stamp::decode(self.message.bytes().get(..length).ok_or(Errno::BADMSG)?)
    }
}
