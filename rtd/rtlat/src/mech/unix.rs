//! A pair of unix sockets that keep messages apart; no room is EAGAIN for the sender.

use super::payload;
use super::{Mechanism, Rx, Stamp, Tx};
use crate::sys::socketpair::SocketPair;
use rtcore::sys::Errno;
use std::sync::Arc;

#[derive(Debug)]
pub struct Unix {
    pair: Arc<SocketPair>,
    payload_bytes: usize,
}

impl Unix {
    /// A new pair, for messages of this size.
    pub fn new(payload_bytes: usize) -> anyhow::Result<Unix> {
        let pair = SocketPair::new()?;
        let fix = format!(
            "its send buffer bounds a message; sysctl -w net.core.wmem_default={}",
            payload_bytes.saturating_add(32)
        );
        payload::check(
            "unix socket",
            payload_bytes,
            pair.message_bytes_max()?,
            &fix,
        )?;
        Ok(Unix {
            pair: Arc::new(pair),
            payload_bytes,
        })
    }
}

impl Mechanism for Unix {
    fn name(&self) -> &str {
        super::Kind::Unix.name()
    }

    fn payload_bytes(&self) -> usize {
        self.payload_bytes
    }

    fn sender(&self) -> anyhow::Result<Box<dyn Tx>> {
        Ok(Box::new(UnixTx {
            pair: self.pair.clone(),
            message: payload::buffer(self.payload_bytes),
        }))
    }

    fn receiver(&self) -> anyhow::Result<Box<dyn Rx>> {
        Ok(Box::new(UnixRx {
            pair: self.pair.clone(),
            message: payload::buffer(self.payload_bytes),
        }))
    }
}

struct UnixTx {
    pair: Arc<SocketPair>,
    message: Vec<u8>,
}

impl Tx for UnixTx {
    #[inline]
    fn send(&mut self, stamp: &Stamp) -> Result<(), Errno> {
        stamp.put_into(&mut self.message)?;
        self.pair.send(&self.message)
    }
}

struct UnixRx {
    pair: Arc<SocketPair>,
    message: Vec<u8>,
}

impl Rx for UnixRx {
    #[inline]
    fn receive(&mut self) -> Result<Stamp, Errno> {
        let length = self.pair.receive(&mut self.message)?;
        Stamp::decode(self.message.get(..length).ok_or(Errno::BADMSG)?)
    }
}
