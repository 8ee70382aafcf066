//! The daemon's receiving half of an endpoint. One thread reads it.

use super::peer::{Peer, PeerState};
use crate::message::{Body, Message, Meta, Origin};
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
    /// The only user besides root who can write the queue; none when there are more (or it is a signal).
    sole_writer_uid: Option<u32>,
    buffer: Vec<u8>,
    /// Numbers what comes without a number.
    sequence: u64,
    /// At a stop, what is still in it is taken and routed. Off for queues that stay: there it is safe.
    pub drain_at_stop: bool,
}

impl Source {
    /// A source; `bytes_max` is the queue's msgsize (0 for signals).
    pub fn new(kind: SourceKind, owner: Option<Arc<Peer>>, bytes_max: usize, drain_at_stop: bool) -> Source {
        let mut buffer = vec![0; bytes_max];
        memory::touch(&mut buffer);
        Source { kind, owner, sole_writer_uid: None, buffer, sequence: 0, drain_at_stop }
    }

    /// Says that programs of this user and root's alone can write the queue: what comes out of it is then the
    /// owner's, if the owner is one of them. Without it every message is of unknown origin.
    pub fn written_by(mut self, uid: Option<u32>) -> Source {
        self.sole_writer_uid = uid;
        self
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
                let origin = match (&self.owner, self.sole_writer_uid) {
                    (Some(owner), Some(writer)) => channel_origin(owner, writer),
                    _ => Origin::UNKNOWN,
                };
                self.sequence += 1;
                let meta = arrived(self.sequence, dequeued_ns);
                Ok(Message { body: Body::Bytes(&self.buffer[..len]), priority, origin, dequeued_ns, meta })
            }
            SourceKind::Signal { set, .. } => {
                let wait = if block { skin.signal_wait } else { skin.signal_try_wait };
                let got = wait(set)?;
                let dequeued_ns = (skin.now_ns)();
                let origin = Origin { pid: got.pid, uid: got.uid, verified: got.kernel_wrote_origin };
                let body = Body::Signal { signo: got.signo, value: got.value };
                self.sequence += 1;
                let meta = arrived(self.sequence, dequeued_ns);
                Ok(Message { body, priority: 0, origin, dequeued_ns, meta })
            }
        }
    }
}

/// Number and stamps of what came without any.
fn arrived(sequence: u64, now_ns: u64) -> Meta {
    Meta { sequence, intended_ns: now_ns, sent_ns: now_ns, ..Meta::default() }
}

/// Who writes a queue is who registered for it, if nobody else can: the channel says so, not the envelope.
///
/// A registered owner of another user than the one who may write did not send this.
fn channel_origin(owner: &Peer, writer_uid: u32) -> Origin {
    if owner.state() != PeerState::Alive {
        return Origin::UNKNOWN;
    }
    let uid = owner.uid();
    if uid != writer_uid && uid != 0 {
        return Origin::UNKNOWN;
    }
    Origin { pid: owner.pid().unsigned_abs(), uid, verified: true }
}
