//! A path through rtd: into one endpoint, out of another.
//!
//! Where both ends take bytes, the stamp travels in the payload. Where one is a signal, or takes
//! fewer bytes than a stamp has, a key travels, 8 bytes, to the stamp in memory beside ([`Slots`]).

mod daemon_pid;
mod ends;
mod find;
mod own;
mod rings;

pub use find::find;
pub use own::{LaneArgs, OwnRoute, RoutePath, config, depth};
pub use rings::Rings;

use super::mech::slots::Slots;
use super::mech::{Mechanism, Rx, STAMP_BYTES, Tx};
use daemon_pid::DaemonPid;
use ends::{
    KeyLaneRx, KeyLaneTx, KeyQueueRx, KeyQueueTx, LaneRx, LaneTx, RegisteredSignalRx,
    RegisteredSignalTx,
};
use rtcore::lane::policy::Wait;
use std::ffi::CString;
use std::path::PathBuf;

/// The entry of a route.
#[derive(Clone, Debug)]
pub enum In {
    Queue(String),
    /// A signal to the daemon.
    Signal {
        /// Name of the session that may send it.
        process: String,
        daemon: DaemonPid,
        /// The kernel's signal number.
        signo: i32,
    },
    /// Shared memory of a session.
    Lane {
        /// Name of the session.
        process: String,
        endpoint: String,
    },
}

/// The exit of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Out {
    Queue(String),
    /// A signal to a process that is registered as this.
    Signal {
        /// Name of the session.
        process: String,
        /// The kernel's signal number.
        signo: i32,
    },
    /// Shared memory of a session.
    Lane {
        /// Name of the session.
        process: String,
        endpoint: String,
    },
}

/// Bytes of a key.
pub const KEY_BYTES: usize = size_of::<u64>();

/// A route of a running daemon.
#[derive(Debug)]
pub struct Route {
    name: String,
    payload_bytes: usize,
    input: In,
    output: Out,
    socket: PathBuf,
    /// The shared memory in which the times of messages lie that carry only a key.
    slots: Option<Slots>,
    /// How a receiver of shared memory waits.
    wait: Wait,
}

impl Route {
    /// Opens nothing yet.
    pub fn new(
        name: String,
        payload_bytes: usize,
        input: In,
        output: Out,
        socket: PathBuf,
    ) -> anyhow::Result<Route> {
        let has_signal = matches!(input, In::Signal { .. }) || matches!(output, Out::Signal { .. });
        let is_keyed = has_signal || payload_bytes < STAMP_BYTES;
        let slots = is_keyed.then(Slots::new).transpose()?;
        let payload_bytes = if has_signal { 0 } else { payload_bytes };
        Ok(Route {
            name,
            payload_bytes,
            input,
            output,
            socket,
            slots,
            wait: Wait::Block,
        })
    }

    /// The same with a receiver of shared memory that polls. It has its CPU to itself.
    pub fn polling(self) -> Route {
        Route {
            wait: Wait::Poll,
            ..self
        }
    }
}

impl Mechanism for Route {
    fn name(&self) -> &str {
        &self.name
    }

    fn payload_bytes(&self) -> usize {
        self.payload_bytes
    }

    fn sender(&self) -> anyhow::Result<Box<dyn Tx>> {
        let bytes = self.payload_bytes;
        Ok(match (&self.input, &self.slots) {
            (In::Queue(name), None) => Box::new(super::mech::mq::QueueTx::open(
                &CString::new(name.as_str())?,
                bytes,
            )?),
            (In::Queue(name), Some(slots)) => Box::new(KeyQueueTx::open(name, slots)?),
            (
                In::Signal {
                    process,
                    daemon,
                    signo,
                },
                Some(slots),
            ) => Box::new(RegisteredSignalTx::open(
                &self.socket,
                process,
                (daemon, *signo),
                slots,
            )?),
            (In::Signal { .. }, None) => anyhow::bail!("a signal without a place for stamps"),
            (In::Lane { process, endpoint }, None) => {
                Box::new(LaneTx::open(&self.socket, process, endpoint, bytes)?)
            }
            (In::Lane { process, endpoint }, Some(slots)) => {
                Box::new(KeyLaneTx::open(&self.socket, process, endpoint, slots)?)
            }
        })
    }

    fn receiver(&self) -> anyhow::Result<Box<dyn Rx>> {
        Ok(match (&self.output, &self.slots) {
            (Out::Queue(name), None) => Box::new(super::mech::mq::QueueRx::open(&CString::new(
                name.as_str(),
            )?)?),
            (Out::Queue(name), Some(slots)) => Box::new(KeyQueueRx::open(name, slots)?),
            (Out::Signal { process, signo }, Some(slots)) => Box::new(RegisteredSignalRx::open(
                &self.socket,
                process,
                *signo,
                slots,
            )?),
            (Out::Signal { .. }, None) => anyhow::bail!("a signal without a place for stamps"),
            (Out::Lane { process, endpoint }, None) => {
                Box::new(LaneRx::open(&self.socket, process, endpoint, self.wait)?)
            }
            (Out::Lane { process, endpoint }, Some(slots)) => {
                Box::new(KeyLaneRx::open(&self.socket, process, endpoint, slots)?)
            }
        })
    }

    fn find_again(&self) {
        if let In::Signal { daemon, .. } = &self.input {
            daemon.find_again();
        }
    }
}
