//! The ends of a route that no raw mechanism has: sessions, and bytes that are a key.

use super::DaemonPid;
use crate::mech::mq::QueueRx;
use crate::mech::payload;
use crate::mech::signal::{SignalRx, SignalTx};
use crate::mech::slots::Slots;
use crate::mech::{Rx, Stamp, Tx};
use anyhow::Context as _;
use rtcore::client::{Gone, Inbox, Incoming, SendError, Sender, Session};
use rtcore::lane::policy::Wait;
use rtcore::message::SignalRecord;
use rtcore::sys::mqueue::{self, Access, Queue};
use rtcore::sys::{Errno, clock};
use std::ffi::CString;
use std::os::fd::AsRawFd;
use std::path::Path;
use zerocopy::FromBytes as _;

/// How often a receiver on an inbox checks for the end.
const POLL_NS: u64 = 100_000_000;
/// How long a sender waits for somebody to receive, before the run.
const RECEIVER_NS: u64 = 20_000_000_000;

pub(super) fn session(socket: &Path, process: &str) -> anyhow::Result<Session> {
    let session = Session::builder(process).socket(socket).connect();
    session.with_context(|| format!("cannot become `{process}`"))
}

/// Without formatting, which a sealed thread must not. EAGAIN: refused, and a later send may
/// succeed: there is no room, or the daemon is away and the session connects again by itself.
pub(super) fn errno(e: &SendError) -> Errno {
    match e {
        SendError::Full { .. }
        | SendError::PeerDead { .. }
        | SendError::Disconnected {
            why: Gone::Down | Gone::Refused(_),
            ..
        } => Errno::AGAIN,
        SendError::TooLarge { .. } => Errno::MSGSIZE,
        SendError::Disconnected { .. } | SendError::Corrupt { .. } => Errno::PIPE,
    }
}

/// A message that is a key. EBADMSG: it is none.
fn key_of(bytes: &[u8]) -> Result<u64, Errno> {
    bytes
        .try_into()
        .map(u64::from_ne_bytes)
        .map_err(|_| Errno::BADMSG)
}

/// Sends from a session's endpoint.
pub struct LaneTx {
    sender: Sender,
    message: Vec<u8>,
    _session: Session,
}

impl LaneTx {
    /// Connects, and waits for who receives.
    pub fn open(
        socket: &Path,
        process: &str,
        endpoint: &str,
        bytes: usize,
    ) -> anyhow::Result<LaneTx> {
        let session = session(socket, process)?;
        let mut sender = session.sender(endpoint)?;
        let bound = sender.channel().payload_bytes as usize;
        anyhow::ensure!(
            bytes <= bound,
            "a message has {bytes} bytes and `{endpoint}` takes {bound}: raise msgsize of the [[endpoint]] or take --size {bound}"
        );
        sender
            .wait_for_receiver(clock::monotonic_ns() + RECEIVER_NS)
            .with_context(|| format!("nobody receives the messages from `{endpoint}`"))?;
        Ok(LaneTx {
            sender,
            message: payload::buffer(bytes),
            _session: session,
        })
    }
}

impl Tx for LaneTx {
    #[inline]
    fn send(&mut self, stamp: &Stamp) -> Result<(), Errno> {
        stamp.put_into(&mut self.message)?;
        self.sender
            .try_send(&self.message)
            .map(drop)
            .map_err(|e| errno(&e))
    }
}

/// The same, of a key.
pub struct KeyLaneTx {
    lane: LaneTx,
    slots: Slots,
}

impl KeyLaneTx {
    /// As [`LaneTx::open`].
    pub fn open(
        socket: &Path,
        process: &str,
        endpoint: &str,
        slots: &Slots,
    ) -> anyhow::Result<KeyLaneTx> {
        slots.fault_in();
        Ok(KeyLaneTx {
            lane: LaneTx::open(socket, process, endpoint, super::KEY_BYTES)?,
            slots: slots.clone(),
        })
    }
}

impl Tx for KeyLaneTx {
    #[inline]
    fn send(&mut self, stamp: &Stamp) -> Result<(), Errno> {
        self.slots.put(stamp);
        let sent = self.lane.sender.try_send(&stamp.sequence.to_ne_bytes());
        sent.map(drop)
            .map_err(|e| errno(&e))
            .inspect_err(|_| self.slots.withdraw(stamp.sequence))
    }
}

/// Receives at a session's endpoint.
pub struct LaneRx {
    inbox: Inbox,
    _session: Session,
}

impl LaneRx {
    /// Connects to the daemon and opens the endpoint.
    pub fn open(
        socket: &Path,
        process: &str,
        endpoint: &str,
        wait: Wait,
    ) -> anyhow::Result<LaneRx> {
        let session = session(socket, process)?;
        let mut inbox = session.inbox_of(&[endpoint])?;
        inbox.set_wait(wait);
        Ok(LaneRx {
            inbox,
            _session: session,
        })
    }

    #[inline]
    fn next<T>(
        &mut self,
        of: impl Fn(&rtcore::client::Message<'_>) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        match self.inbox.recv_deadline(clock::monotonic_ns() + POLL_NS) {
            Ok(Some(Incoming::Message(message))) => of(&message),
            Ok(Some(Incoming::Event(_)) | None) => Err(Errno::AGAIN),
            Err(_) => Err(Errno::PIPE),
        }
    }
}

impl Rx for LaneRx {
    #[inline]
    fn receive(&mut self) -> Result<Stamp, Errno> {
        self.next(|message| Stamp::decode(message.bytes()))
    }
}

/// The same, of keys.
pub struct KeyLaneRx {
    lane: LaneRx,
    slots: Slots,
}

impl KeyLaneRx {
    /// As [`LaneRx::open`].
    pub fn open(
        socket: &Path,
        process: &str,
        endpoint: &str,
        slots: &Slots,
    ) -> anyhow::Result<KeyLaneRx> {
        slots.fault_in();
        Ok(KeyLaneRx {
            lane: LaneRx::open(socket, process, endpoint, Wait::Block)?,
            slots: slots.clone(),
        })
    }
}

impl Rx for KeyLaneRx {
    #[inline]
    fn receive(&mut self) -> Result<Stamp, Errno> {
        let key = |message: &rtcore::client::Message<'_>| match message.signal() {
            Some((_, key)) => Ok(key),
            None => key_of(message.bytes()),
        };
        self.slots.take(self.lane.next(key)?).ok_or(Errno::STALE)
    }
}

/// Sends keys into a queue.
pub struct KeyQueueTx {
    queue: Queue,
    slots: Slots,
}

impl KeyQueueTx {
    /// Opens an existing queue. A full one is EAGAIN.
    pub fn open(name: &str, slots: &Slots) -> anyhow::Result<KeyQueueTx> {
        slots.fault_in();
        let queue = Queue::open(&CString::new(name)?, Access::Send, true)?;
        Ok(KeyQueueTx {
            queue,
            slots: slots.clone(),
        })
    }
}

impl Tx for KeyQueueTx {
    #[inline]
    fn send(&mut self, stamp: &Stamp) -> Result<(), Errno> {
        self.slots.put(stamp);
        let sent = mqueue::send(self.queue.as_raw_fd(), &stamp.sequence.to_ne_bytes(), 0);
        sent.inspect_err(|_| self.slots.withdraw(stamp.sequence))
    }
}

/// Receives keys from a queue: what rtd writes there of a signal, or the key as it was sent.
pub struct KeyQueueRx {
    queue: QueueRx,
    slots: Slots,
}

impl KeyQueueRx {
    /// Opens an existing queue.
    pub fn open(name: &str, slots: &Slots) -> anyhow::Result<KeyQueueRx> {
        slots.fault_in();
        Ok(KeyQueueRx {
            queue: QueueRx::open(&CString::new(name)?)?,
            slots: slots.clone(),
        })
    }
}

impl Rx for KeyQueueRx {
    #[inline]
    fn receive(&mut self) -> Result<Stamp, Errno> {
        let bytes = self.queue.receive_bytes()?;
        let key = SignalRecord::read_from_bytes(bytes)
            .map_or_else(|_| key_of(bytes), |record| Ok(record.value))?;
        self.slots.take(key).ok_or(Errno::STALE)
    }
}

/// Signals the daemon as the owner of that signal.
pub struct RegisteredSignalTx {
    signals: SignalTx,
    daemon: DaemonPid,
    _session: Session,
}

impl RegisteredSignalTx {
    /// Connects to the daemon and opens the endpoint.
    pub fn open(
        socket: &Path,
        process: &str,
        (daemon, signo): (&DaemonPid, i32),
        slots: &Slots,
    ) -> anyhow::Result<RegisteredSignalTx> {
        daemon.fault_in();
        Ok(RegisteredSignalTx {
            signals: SignalTx::new(0, signo, slots),
            daemon: daemon.clone(),
            _session: session(socket, process)?,
        })
    }
}

impl Tx for RegisteredSignalTx {
    #[inline]
    fn send(&mut self, stamp: &Stamp) -> Result<(), Errno> {
        let pid = self.daemon.get().ok_or(Errno::AGAIN)?;
        self.signals.aim_at(pid);
        // The daemon has ended, and its number may soon be another process' (EPERM: it is already).
        self.signals.send(stamp).map_err(|e| match e {
            Errno::SRCH | Errno::PERM => {
                self.daemon.ended();
                Errno::AGAIN
            }
            e => e,
        })
    }
}

/// Waits for the signals of a name it is registered as.
pub struct RegisteredSignalRx {
    signals: SignalRx,
    _session: Session,
}

impl RegisteredSignalRx {
    /// Blocks the signal, then connects: from then on it may come.
    pub fn open(
        socket: &Path,
        process: &str,
        signo: i32,
        slots: &Slots,
    ) -> anyhow::Result<RegisteredSignalRx> {
        let signals = SignalRx::new(signo, slots)?;
        crate::mech::signal::drain(signo);
        Ok(RegisteredSignalRx {
            signals,
            _session: session(socket, process)?,
        })
    }
}

impl Rx for RegisteredSignalRx {
    #[inline]
    fn receive(&mut self) -> Result<Stamp, Errno> {
        self.signals.receive()
    }
}
