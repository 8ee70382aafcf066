//! An event counter (eventfd(2)), read by the receiver; the messages that one read counts are
//! returned one by one.

use super::slots::{Incoming, Outgoing, Slots};
use super::{Mechanism, Rx, Stamp, Tx};
use rtcore::sys::Errno;
use rtcore::sys::eventfd::EventFd;
use std::sync::Arc;

#[derive(Debug)]
pub struct Eventfd {
    slots: Slots,
    counter: Arc<EventFd>,
}

impl Eventfd {
    /// A new one, at 0.
    pub fn new() -> anyhow::Result<Eventfd> {
        Ok(Eventfd {
            slots: Slots::new()?,
            counter: Arc::new(EventFd::blocking()?),
        })
    }
}

impl Mechanism for Eventfd {
    fn name(&self) -> &str {
        super::Kind::Eventfd.name()
    }

    fn payload_bytes(&self) -> usize {
        0
    }

    fn sender(&self) -> anyhow::Result<Box<dyn Tx>> {
        Ok(Box::new(EventTx {
            outgoing: Outgoing::new(&self.slots),
            counter: self.counter.clone(),
        }))
    }

    fn receiver(&self) -> anyhow::Result<Box<dyn Rx>> {
        let incoming = Incoming::new(&self.slots);
        Ok(Box::new(EventRx {
            incoming,
            counter: self.counter.clone(),
            unreturned: 0,
        }))
    }
}

struct EventTx {
    outgoing: Outgoing,
    counter: Arc<EventFd>,
}

impl Tx for EventTx {
    #[inline]
    fn send(&mut self, stamp: &Stamp) -> Result<(), Errno> {
        self.outgoing.send(stamp, || self.counter.ring())
    }
}

struct EventRx {
    incoming: Incoming,
    counter: Arc<EventFd>,
    /// Messages that a read counted and that were not returned yet.
    unreturned: u64,
}

impl Rx for EventRx {
    #[inline]
    fn receive(&mut self) -> Result<Stamp, Errno> {
        if self.unreturned == 0 {
            self.unreturned = self.counter.wait()?;
        }
        self.unreturned -= 1;
        self.incoming.receive()
    }
}
