//! Datagrams between a lane on Cobalt and a plain Linux program: a port ([`crate::skin::xddp`]).

use super::sink::{Refusal, SinkOps};
use super::source::{Content, Failure, SourceOps, Taken};
use crate::lane::peer::Peer;
use crate::lane::waits::Waits;
use crate::message::{Message, Origin, SignalRecord};
use crate::skin::Skin;
use crate::skin::xddp::Port;
use crate::stats::fill::text;
use crate::stats::layout::EndpointRecord;
use crate::stats::reader::text_of;
use crate::sys::seccomp::Allowed;
use crate::wait::Timeout;
use std::io;
use std::sync::Arc;
use zerocopy::FromZeros;

/// A port that a lane reads. The kernel does not tell who writes to the device.
#[derive(Debug)]
pub struct Source(pub Arc<Port>);

impl SourceOps for Source {
    #[inline]
    fn take(&mut self, _: &Skin, buffer: &mut [u8], timeout: Timeout) -> Result<Taken, Failure> {
        let content = Content::Bytes(self.0.receive(buffer, timeout)?);
        Ok(Taken {
            content,
            priority: 0,
            origin: Origin::UNKNOWN,
            meta: None,
        })
    }

    /// The calls are Cobalt's.
    fn calls(&self) -> &'static [Allowed] {
        &[]
    }

    /// No descriptor announces a datagram.
    fn arm(&mut self, _: &mut Waits) -> bool {
        true
    }

    /// The pool is lost with the port.
    fn is_lost_at_stop(&self) -> bool {
        true
    }
}

/// Datagrams to the Linux program that has the port's device open, or opens it.
#[derive(Debug)]
pub struct Sink {
    /// Shared with the source and the other sinks of the port.
    pub port: Arc<Port>,
    /// Size of the largest message in bytes.
    pub bytes_max: usize,
}

impl SinkOps for Sink {
    #[inline]
    fn send(
        &mut self,
        _: &Skin,
        _: Option<&Peer>,
        message: &Message<'_>,
        _: Option<u32>,
    ) -> Result<(), Refusal> {
        let mut record = SignalRecord::new_zeroed();
        let bytes = message.for_queue(&mut record);
        if bytes.len() > self.bytes_max {
            return Err(Refusal::TooLarge);
        }
        self.port.send(bytes).map_err(Refusal::from)
    }

    /// The calls are Cobalt's.
    fn calls(&self) -> Vec<&'static [Allowed]> {
        vec![]
    }

    #[inline]
    fn keeps_messages(&self) -> bool {
        true
    }

    fn is_silent(&self, _: Option<&Peer>) -> bool {
        true
    }
}

/// Description of a port on the statistics page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Path of the device file.
    pub device: String,
    /// Capacity in messages.
    pub maxmsg: u32,
    /// Size of the largest message in bytes.
    pub msgsize: u32,
}

impl Shown {
    pub(super) fn write(&self, record: &mut EndpointRecord) -> io::Result<()> {
        record.queue = text("device path", &self.device)?;
        (record.maxmsg, record.msgsize) = (self.maxmsg, self.msgsize);
        Ok(())
    }

    pub(super) fn read(record: &EndpointRecord) -> Shown {
        Shown {
            device: text_of(&record.queue),
            maxmsg: record.maxmsg,
            msgsize: record.msgsize,
        }
    }
}
