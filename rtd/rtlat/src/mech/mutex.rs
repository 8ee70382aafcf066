//! A hand-over by priority-inheriting mutexes: the receiver blocks in lock while the sender holds,
//! and the message is the unlock.
//!
//! Two mutexes take turns, message n being the unlock of number n % 2. The sender always holds the
//! one of the next message: it locks that of n + 1 before it unlocks that of n, so the receiver,
//! which goes on to wait for n + 1, never finds it free. It may do so once the receiver has had n -
//! 1 and let go of it, which a word says; before, there is no room, and the message is EAGAIN: the
//! depth is one. So nobody takes a mutex that the other is about to have. A holder that dies is
//! EOWNERDEAD for the receiver, one that has left in order EPIPE.
//!
//! As the sender holds what the receiver waits for, it runs at the receiver's priority if that is
//! higher.

use super::slots::{Incoming, Outgoing, Slots};
use super::{Mechanism, Rx, Stamp, Tx};
use crate::sys::inherited::Inherited;
use crate::sys::mutex::Mutex;
use anyhow::Context;
use rtcore::sys::{Errno, futex};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// A thread that waits longer than this for a lock returns to the engine.
const PATIENCE_NS: u64 = 100_000_000;

/// Words beside the mutexes, a cache line apart: 1 when the sender holds the first one;
const ARMED: usize = 0;
/// messages that the receiver has had, modulo 2^32.
const TAKEN: usize = 16;
const WORDS: usize = 32;

struct Shared {
    slots: Slots,
    mutexes: [Mutex; 2],
    words: Inherited<AtomicU32>,
}

impl Shared {
    fn fault_in(&self) {
        self.mutexes.iter().for_each(Mutex::fault_in);
        self.words.fault_in();
    }

    #[inline]
    fn mutex(&self, message: u64) -> &Mutex {
        &self.mutexes[usize::from(message % 2 == 1)]
    }
}

/// The two mutexes.
pub struct HandOver(Arc<Shared>);

impl HandOver {
    /// Two new ones.
    pub fn new() -> anyhow::Result<HandOver> {
        let mutexes = [Mutex::new()?, Mutex::new()?];
        Ok(HandOver(Arc::new(Shared {
            slots: Slots::new()?,
            mutexes,
            words: Inherited::new(WORDS)?,
        })))
    }
}

impl Mechanism for HandOver {
    fn name(&self) -> &str {
        super::Kind::Mutex.name()
    }

    fn payload_bytes(&self) -> usize {
        0
    }

    fn sender(&self) -> anyhow::Result<Box<dyn Tx>> {
        let shared = self.0.clone();
        shared.fault_in();
        let outgoing = Outgoing::new(&shared.slots);
        let locked = shared.mutex(outgoing.next()).lock_within(PATIENCE_NS);
        locked
            .map_err(std::io::Error::from)
            .context("mutex: the first sender still holds it")?;
        // Release: with the load in `receive`.
        shared.words[ARMED].store(1, Ordering::Release);
        futex::wake_all(&shared.words[ARMED]);
        Ok(Box::new(HandOverTx { outgoing, shared }))
    }

    fn receiver(&self) -> anyhow::Result<Box<dyn Rx>> {
        let shared = self.0.clone();
        shared.fault_in();
        Ok(Box::new(HandOverRx {
            incoming: Incoming::new(&shared.slots),
            shared,
        }))
    }
}

/// Holds the mutex of `outgoing.next()`, on the thread that made it: neither this nor a `dyn Tx` is
/// Send.
struct HandOverTx {
    outgoing: Outgoing,
    shared: Arc<Shared>,
}

impl Tx for HandOverTx {
    fn send(&mut self, stamp: &Stamp) -> Result<(), Errno> {
        let n = self.outgoing.next();
        #[expect(clippy::cast_possible_truncation, reason = "counted modulo 2^32")]
        let taken_before = n as u32;
        // Acquire: with the store in `receive`, which follows its unlock.
        if self.shared.words[TAKEN].load(Ordering::Acquire) != taken_before {
            return Err(Errno::AGAIN);
        }
        self.shared.mutex(n + 1).lock_within(PATIENCE_NS)?;
        self.outgoing.send(stamp, || self.shared.mutex(n).unlock())
    }
}

impl Drop for HandOverTx {
    fn drop(&mut self) {
        // The receiver has it then, and finds no message. EPERM: a failed send left it to somebody
        // else.
        let _ = self.shared.mutex(self.outgoing.next()).unlock();
    }
}

struct HandOverRx {
    incoming: Incoming,
    shared: Arc<Shared>,
}

impl Rx for HandOverRx {
    fn receive(&mut self) -> Result<Stamp, Errno> {
        let (armed, taken) = (&self.shared.words[ARMED], &self.shared.words[TAKEN]);
        // Acquire: with the store in `sender`.
        if armed.load(Ordering::Acquire) == 0 {
            match futex::wait(armed, 0, PATIENCE_NS) {
                Ok(()) | Err(Errno::AGAIN) => {}
                Err(Errno::TIMEDOUT) => return Err(Errno::AGAIN),
                Err(e) => return Err(e),
            }
        }
        let mutex = self.shared.mutex(self.incoming.next());
        mutex.lock_within(PATIENCE_NS).map_err(|e| {
            if e == Errno::TIMEDOUT {
                Errno::AGAIN
            } else {
                e
            }
        })?;
        let stamp = self.incoming.receive();
        mutex.unlock()?;
        let stamp = stamp.map_err(|_| Errno::PIPE)?;
        #[expect(clippy::cast_possible_truncation, reason = "counted modulo 2^32")]
        let taken_now = self.incoming.next() as u32;
        // Release: with the load in `send`.
        taken.store(taken_now, Ordering::Release);
        Ok(stamp)
    }
}
