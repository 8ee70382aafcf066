//! Signals: into the daemon, and to an endpoint's owner.

use super::signal_ring::SignalRing;
use super::sink::{Refusal, SinkOps};
use super::source::{Content, Failure, SourceOps, Taken};
use crate::lane::credit::Credit;
use crate::lane::peer::{Peer, Reception};
use crate::lane::syscalls;
use crate::lane::waits::Waits;
use crate::message::{Message, Origin, SIGNAL_VALUE_BYTES};
use crate::skin::Skin;
use crate::stats::layout::{self, EndpointRecord};
use crate::sys::poll::Interest;
use crate::sys::rtsignal::SignalSet;
use crate::sys::seccomp::Allowed;
use crate::sys::{Call, Errno};
use crate::wait::Timeout;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

/// A signal that programs send to the daemon.
#[derive(Debug)]
pub struct Source {
    /// Contains only this signal, which is blocked in every thread.
    pub set: SignalSet,
    /// Readable while the signal is pending (never read: only to wait together with other
    /// descriptors). None if the skin's signals have no descriptor.
    pub pending: Option<OwnedFd>,
}

impl SourceOps for Source {
    #[inline]
    fn take(&mut self, skin: &Skin, _: &mut [u8], timeout: Timeout) -> Result<Taken, Failure> {
        let got = match timeout {
            Timeout::FOREVER => (skin.signal_wait)(&self.set)?,
            Timeout(timeout_ns) => (skin.signal_wait_within)(&self.set, timeout_ns)?,
        };
        let origin = Origin {
            pid: got.pid,
            uid: got.uid,
            verified: got.kernel_wrote_origin,
        };
        let content = Content::Signal {
            signo: got.signo,
            value: got.value,
        };
        Ok(Taken {
            content,
            priority: 0,
            origin,
            meta: None,
        })
    }

    fn calls(&self) -> &'static [Allowed] {
        syscalls::SIGNAL_SOURCE
    }

    fn arm(&mut self, waits: &mut Waits) -> bool {
        if let Some(pending) = &self.pending {
            waits.push(Interest::readable(pending.as_raw_fd()));
        }
        true
    }

    /// Pending signals are lost with the process.
    fn is_lost_at_stop(&self) -> bool {
        true
    }
}

/// A signal to the owner.
#[derive(Debug)]
pub struct Sink {
    /// The kernel's signal number.
    pub signo: i32,
    /// Sent to the registered thread, not to the process.
    pub to_thread: bool,
    /// A longer payload is cut to the size of the value (if configured).
    pub truncate: bool,
    /// Shared with every route to the endpoint; none for standard signals, which coalesce and never
    /// fill the queue.
    pub credit: Option<Arc<Credit>>,
    /// The ring of the owner's session for payloads of up to a slot; the signal then only announces
    /// them.
    pub inbox: Option<SignalRing>,
}

impl Sink {
    /// Refuses a signal that would end its receiver, until the receiver is ready, and a signal that
    /// the receiver ignores. This is not checked for a dispatcher that reads a ring: an armed ring
    /// shows that it waits.
    #[inline]
    fn received(&self, owner: Option<&Peer>) -> Result<(), Refusal> {
        match self.reception(owner) {
            Reception::Takes => Ok(()),
            Reception::NotReady => Err(Refusal::Full),
            Reception::Ignores => Err(Refusal::Ignored),
        }
    }

    fn reception(&self, owner: Option<&Peer>) -> Reception {
        owner.map_or(Reception::Takes, |peer| {
            peer.reception(self.signo, self.to_thread)
        })
    }

    /// Lets `send` queue the signal to the owner (to its thread, if the endpoint says so), within
    /// the credit.
    #[inline]
    fn signal(
        &self,
        owner: Option<&Peer>,
        send: impl FnOnce(&Peer, bool) -> Call<()>,
    ) -> Result<(), Refusal> {
        let Some(peer) = owner else {
            return Err(Refusal::PeerDead);
        };
        if self.credit.as_ref().is_some_and(|c| !peer.take_credit(c)) {
            return Err(Refusal::Full);
        }
        let sent = send(peer, self.to_thread);
        if let (Err(_), Some(credit)) = (sent, &self.credit) {
            credit.give_back(1);
        }
        sent.map_err(Refusal::from)
    }

    /// Announces a payload. The signal goes to the process, whatever the endpoint's target, because
    /// the ring belongs to its session, whose dispatcher may be any thread. A message in the ring
    /// is delivered: a signal that finds no room is owed.
    fn announce(&mut self, skin: &Skin, owner: Option<&Peer>) {
        let Some(ticket) = self.inbox.as_mut().map(SignalRing::ticket) else {
            return;
        };
        let announced = self.signal(owner, |peer, _| {
            (skin.signal_announce)(peer.address(false), self.signo, ticket)
        });
        if let Some(inbox) = &mut self.inbox {
            inbox.announced(announced);
        }
    }
}

impl SinkOps for Sink {
    #[inline]
    fn send(
        &mut self,
        skin: &Skin,
        owner: Option<&Peer>,
        message: &Message<'_>,
        _: Option<u32>,
    ) -> Result<(), Refusal> {
        if let Some(inbox) = &mut self.inbox
            && let Some(pushed) = inbox.push(message, self.signo)
        {
            if pushed? {
                self.announce(skin, owner);
            }
            return Ok(());
        }
        if message.len() > SIGNAL_VALUE_BYTES && !self.truncate {
            return Err(Refusal::TooLarge);
        }
        self.received(owner)?;
        let (signo, value, origin) = (self.signo, message.for_signal(), message.origin);
        self.signal(owner, |peer, to_thread| {
            (skin.signal_send)(
                peer.address(to_thread),
                signo,
                value,
                origin.pid,
                origin.uid,
            )
        })
    }

    fn calls(&self) -> Vec<&'static [Allowed]> {
        match self.inbox {
            None => vec![syscalls::SIGNAL_SINK],
            Some(_) => vec![syscalls::SIGNAL_SINK, syscalls::RING_SINK],
        }
    }

    #[inline]
    fn renew(&mut self) {
        self.inbox.iter_mut().for_each(SignalRing::renew);
    }

    fn await_room(&mut self, message: &Message<'_>, waits: &mut Waits) -> bool {
        self.inbox
            .as_mut()
            .is_none_or(|inbox| inbox.await_room(message, waits))
    }

    /// The control thread wakes the lanes when a process becomes ready for its signals.
    fn is_silent(&self, owner: Option<&Peer>) -> bool {
        self.reception(owner) == Reception::Takes
    }

    fn has_ring(&self) -> bool {
        self.inbox.is_some()
    }

    fn generation(&self) -> u64 {
        self.inbox.as_ref().map_or(0, SignalRing::generation)
    }

    #[inline]
    fn owes_signal(&self) -> bool {
        self.inbox.as_ref().is_some_and(SignalRing::owes_signal)
    }

    #[inline]
    fn signal_error(&self) -> Option<Errno> {
        self.inbox.as_ref().and_then(SignalRing::error)
    }

    fn pay_signal(&mut self, skin: &Skin, owner: Option<&Peer>, is_dead: bool) {
        let Some(inbox) = &mut self.inbox else { return };
        if is_dead || !inbox.rings_again() {
            return inbox.forgive();
        }
        self.announce(skin, owner);
    }
}

/// Description of a signal on the statistics page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The kernel's signal number.
    pub signo: i32,
    /// Sent to the registered thread, not to the process.
    pub to_thread: bool,
}

impl Shown {
    pub(super) fn write(&self, record: &mut EndpointRecord) -> io::Result<()> {
        record.signo = self.signo;
        if self.to_thread {
            record.flags |= layout::ENDPOINT_TO_THREAD;
        }
        Ok(())
    }

    pub(super) fn read(record: &EndpointRecord) -> Shown {
        let to_thread = record.flags & layout::ENDPOINT_TO_THREAD != 0;
        Shown {
            signo: record.signo,
            to_thread,
        }
    }
}
