//! Many rings of one sender into one receiver: a message goes into each of the first N.

use super::OwnRoute;
use super::ends::{LaneRx, errno, session};
use crate::mech::{Mechanism, Rx, Stamp, Tx, payload};
use rtcore::client::{Sender, Session};
use rtcore::lane::policy::Wait;
use rtcore::sys::Errno;
use rtd::daemon::own::OwnDaemon;
use std::path::PathBuf;

/// See the module. Its receiver polls.
#[derive(Debug)]
pub struct Rings {
    socket: PathBuf,
    sender: String,
    endpoints: Vec<String>,
    receiver: String,
    payload_bytes: usize,
}

impl Rings {
    /// The first `count` rings of this route.
    pub fn of(route: &OwnRoute, daemon: &OwnDaemon, count: usize) -> Rings {
        Rings {
            socket: daemon.socket().clone(),
            sender: route.name("tx"),
            endpoints: (0..count).map(|n| route.source(n)).collect(),
            receiver: route.name("rx"),
            payload_bytes: route.payload_bytes,
        }
    }
}

impl Mechanism for Rings {
    fn name(&self) -> &str {
        "rings"
    }

    fn payload_bytes(&self) -> usize {
        self.payload_bytes
    }

    fn sender(&self) -> anyhow::Result<Box<dyn Tx>> {
        let session = session(&self.socket, &self.sender)?;
        let senders = self
            .endpoints
            .iter()
            .map(|endpoint| session.sender(endpoint));
        let senders = senders.collect::<Result<Vec<_>, _>>()?;
        Ok(Box::new(RingsTx {
            senders,
            message: payload::buffer(self.payload_bytes),
            _session: session,
        }))
    }

    fn receiver(&self) -> anyhow::Result<Box<dyn Rx>> {
        let endpoint = format!("{}.msg", self.receiver);
        let rx = LaneRx::open(&self.socket, &self.receiver, &endpoint, Wait::Poll)?;
        Ok(Box::new(RingsRx {
            rx,
            count: self.endpoints.len(),
        }))
    }
}

struct RingsTx {
    senders: Vec<Sender>,
    message: Vec<u8>,
    _session: Session,
}

impl Tx for RingsTx {
    fn send(&mut self, stamp: &Stamp) -> Result<(), Errno> {
        stamp.put_into(&mut self.message)?;
        self.senders.iter_mut().try_for_each(|sender| {
            sender
                .try_send(&self.message)
                .map(drop)
                .map_err(|e| errno(&e))
        })
    }
}

struct RingsRx {
    rx: LaneRx,
    count: usize,
}

impl Rx for RingsRx {
    /// The stamp of the last one. All carry the same.
    fn receive(&mut self) -> Result<Stamp, Errno> {
        let mut last = self.rx.receive()?;
        for _ in 1..self.count {
            last = loop {
                match self.rx.receive() {
                    Err(Errno::AGAIN | Errno::INTR) => {}
                    other => break other?,
                }
            };
        }
        Ok(last)
    }
}
