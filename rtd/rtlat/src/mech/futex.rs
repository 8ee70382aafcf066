//! A word in shared memory as a doorbell: the sender counts it up, and makes the system call only
//! when the receiver sleeps. Messages that came together are returned one by one.

use super::slots::{Incoming, Outgoing, Slots};
use super::{Mechanism, Rx, Stamp, Tx};
use crate::sys::inherited::Inherited;
use rtcore::sys::{Errno, futex};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering, fence};

/// Longest sleep without a look at the end of the run.
const PATIENCE_NS: u64 = 100_000_000;

/// Messages sent, modulo 2^32;
const TAIL: usize = 0;
/// a cache line further on: 1 while the receiver sleeps or is about to.
const WAITING: usize = 16;
const WORDS: usize = 32;

#[derive(Debug)]
pub struct Futex {
    slots: Slots,
    words: Arc<Inherited<AtomicU32>>,
}

impl Futex {
    /// A new one, at 0.
    pub fn new() -> anyhow::Result<Futex> {
        Ok(Futex {
            slots: Slots::new()?,
            words: Arc::new(Inherited::new(WORDS)?),
        })
    }
}

impl Mechanism for Futex {
    fn name(&self) -> &str {
        super::Kind::Futex.name()
    }

    fn payload_bytes(&self) -> usize {
        0
    }

    fn sender(&self) -> anyhow::Result<Box<dyn Tx>> {
        self.words.fault_in();
        Ok(Box::new(FutexTx {
            outgoing: Outgoing::new(&self.slots),
            words: self.words.clone(),
        }))
    }

    fn receiver(&self) -> anyhow::Result<Box<dyn Rx>> {
        self.words.fault_in();
        Ok(Box::new(FutexRx {
            incoming: Incoming::new(&self.slots),
            words: self.words.clone(),
        }))
    }
}

struct FutexTx {
    outgoing: Outgoing,
    words: Arc<Inherited<AtomicU32>>,
}

impl Tx for FutexTx {
    #[inline]
    fn send(&mut self, stamp: &Stamp) -> Result<(), Errno> {
        let (tail, waiting) = (&self.words[TAIL], &self.words[WAITING]);
        #[expect(clippy::cast_possible_truncation, reason = "counted modulo 2^32")]
        let sent = (self.outgoing.next() as u32).wrapping_add(1);
        self.outgoing.send(stamp, || {
            // Release: with the loads in `receive`.
            tail.store(sent, Ordering::Release);
            // Either this thread sees the waiting one, or the waiting one sees the new tail: pairs
            // with the fence in `receive`.
            fence(Ordering::SeqCst);
            if waiting.load(Ordering::Relaxed) != 0 {
                futex::wake(tail);
            }
            Ok(())
        })
    }
}

struct FutexRx {
    incoming: Incoming,
    words: Arc<Inherited<AtomicU32>>,
}

impl Rx for FutexRx {
    #[inline]
    fn receive(&mut self) -> Result<Stamp, Errno> {
        let (tail, waiting) = (&self.words[TAIL], &self.words[WAITING]);
        #[expect(clippy::cast_possible_truncation, reason = "counted modulo 2^32")]
        let had = self.incoming.next() as u32;
        // Acquire, here and below: with the store in `send`.
        while tail.load(Ordering::Acquire) == had {
            waiting.store(1, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            let woken = if tail.load(Ordering::Acquire) == had {
                futex::wait(tail, had, PATIENCE_NS)
            } else {
                Ok(())
            };
            waiting.store(0, Ordering::Relaxed);
            match woken {
                // EAGAIN: the word had changed before the sleep.
                Ok(()) | Err(Errno::AGAIN) => {}
                Err(Errno::TIMEDOUT) => return Err(Errno::AGAIN),
                Err(e) => return Err(e),
            }
        }
        self.incoming.receive()
    }
}
