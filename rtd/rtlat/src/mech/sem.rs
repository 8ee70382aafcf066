//! A semaphore in shared memory.

use super::slots::{Incoming, Outgoing, Slots};
use super::{Mechanism, Rx, Stamp, Tx};
use crate::sys::sem::Semaphore;
use rtcore::sys::Errno;
use std::sync::Arc;

/// One semaphore, posted once a message.
#[derive(Debug)]
pub struct Sem {
    slots: Slots,
    semaphore: Arc<Semaphore>,
}

impl Sem {
    /// A new one.
    pub fn new() -> anyhow::Result<Sem> {
        Ok(Sem {
            slots: Slots::new()?,
            semaphore: Arc::new(Semaphore::new()?),
        })
    }
}

impl Mechanism for Sem {
    fn name(&self) -> &str {
        super::Kind::Sem.name()
    }

    fn payload_bytes(&self) -> usize {
        0
    }

    fn sender(&self) -> anyhow::Result<Box<dyn Tx>> {
        self.semaphore.fault_in();
        Ok(Box::new(SemTx {
            outgoing: Outgoing::new(&self.slots),
            semaphore: self.semaphore.clone(),
        }))
    }

    fn receiver(&self) -> anyhow::Result<Box<dyn Rx>> {
        self.semaphore.fault_in();
        Ok(Box::new(SemRx {
            incoming: Incoming::new(&self.slots),
            semaphore: self.semaphore.clone(),
        }))
    }
}

struct SemTx {
    outgoing: Outgoing,
    semaphore: Arc<Semaphore>,
}

impl Tx for SemTx {
    #[inline]
    fn send(&mut self, stamp: &Stamp) -> Result<(), Errno> {
        self.outgoing.send(stamp, || self.semaphore.post())
    }
}

struct SemRx {
    incoming: Incoming,
    semaphore: Arc<Semaphore>,
}

impl Rx for SemRx {
    #[inline]
    fn receive(&mut self) -> Result<Stamp, Errno> {
        self.semaphore.wait()?;
        self.incoming.receive()
    }
}
