//! The daemon's receiving half of an endpoint. One thread reads it.

use super::peer::{Peer, PeerState};
use crate::message::{Body, Message, Origin};
use crate::skin::Skin;
use crate::sys::Errno;
use crate::sys::memory;
use crate::sys::mqueue::Queue;
use crate::sys::poll::Interest;
use crate::sys::rtsignal::SignalSet;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

/// What is read.
#[derive(Debug)]
pub enum SourceKind {
    /// A message queue, open twice: blocking on the clean path, non-blocking while something is queued.
    Mqueue {
        /// Blocks.
        blocking: Queue,
        /// Does not.
        nonblocking: Queue,
    },
    /// A signal sent to the daemon.
    Signal {
        /// Just this signal; blocked in every thread.
        set: SignalSet,
        /// Readable while it is pending (never read: only to wait together with other descriptors).
        pending: OwnedFd,
    },
}

/// A source with its owner and its buffer.
#[derive(Debug)]
pub struct Source {
    kind: SourceKind,
    owner: Option<Arc<Peer>>,
    buffer: Vec<u8>,
    /// At a stop, what is still in it is taken and routed. Off for queues that stay: there it is safe.
    pub drain_at_stop: bool,
}

impl Source {
    /// A source; `bytes_max` is the queue's msgsize (0 for signals).
    pub fn new(kind: SourceKind, owner: Option<Arc<Peer>>, bytes_max: usize, drain_at_stop: bool) -> Source {
        let mut buffer = vec![0; bytes_max];
        memory::touch(&mut buffer);
        Source { kind, owner, buffer, drain_at_stop }
    }

    /// Waits for a message. EINTR when woken by the control thread.
    #[inline]
    pub fn receive(&mut self, skin: &Skin) -> Result<Message<'_>, Errno> {
        self.take(skin, true)
    }

    /// Takes a message if there is one, else EAGAIN.
    #[inline]
    pub fn try_receive(&mut self, skin: &Skin) -> Result<Message<'_>, Errno> {
        self.take(skin, false)
    }

    /// What to wait for until there is a message.
    pub fn interest(&self) -> Interest {
        match &self.kind {
            SourceKind::Mqueue { nonblocking, .. } => Interest::readable(nonblocking.as_raw_fd()),
            SourceKind::Signal { pending, .. } => Interest::readable(pending.as_raw_fd()),
        }
    }

    #[inline]
    fn take(&mut self, skin: &Skin, block: bool) -> Result<Message<'_>, Errno> {
        match &self.kind {
            SourceKind::Mqueue { blocking, nonblocking } => {
                let queue = if block { blocking } else { nonblocking };
                let (len, priority) = (skin.mq_receive)(queue.as_raw_fd(), &mut self.buffer)?;
                let dequeued_ns = (skin.now_ns)();
                let origin = self.owner.as_deref().map_or(Origin::UNKNOWN, channel_origin);
                Ok(Message { body: Body::Bytes(&self.buffer[..len]), priority, origin, dequeued_ns })
            }
            SourceKind::Signal { set, .. } => {
                let wait = if block { skin.signal_wait } else { skin.signal_try_wait };
                let got = wait(set)?;
                let dequeued_ns = (skin.now_ns)();
                let origin = Origin { pid: got.pid, uid: got.uid, verified: got.kernel_wrote_origin };
                let body = Body::Signal { signo: got.signo, value: got.value };
                Ok(Message { body, priority: 0, origin, dequeued_ns })
            }
        }
    }
}

/// Who writes a queue is who registered for it: the channel says so, not the envelope.
fn channel_origin(owner: &Peer) -> Origin {
    match owner.state() {
        PeerState::Alive => Origin { pid: owner.pid().unsigned_abs(), uid: owner.uid(), verified: true },
        PeerState::Unregistered | PeerState::Dead => Origin::UNKNOWN,
    }
}
