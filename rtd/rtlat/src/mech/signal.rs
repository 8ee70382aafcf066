//! Real-time signals, and their two ends for a caller that signals another program or is signalled
//! by it.
//!
//! The value of a signal is the sequence; the stamp is in [`Slots`].
//!
//! Constraint: the number is blocked in every thread of the receiving process, or it ends the
//! process. A mask is inherited, so it is blocked before threads start; [`SignalRx`] checks that it
//! is.

use super::slots::Slots;
use super::{Mechanism, Rx, Stamp, Tx};
use crate::sys::inherited::Inherited;
use anyhow::Context;
use rtcore::sys::rtsignal::{self, SignalSet};
use rtcore::sys::{Errno, procfs, sched};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

/// Signals to whichever process asked for the receiver.
#[derive(Debug)]
pub struct Signal {
    slots: Slots,
    /// The receiver, possibly a forked child. One word.
    receiver_pid: Arc<Inherited<AtomicI32>>,
    signo: i32,
}

impl Signal {
    /// Takes the real-time signal of the pair, blocks it in the calling thread, and discards its
    /// pending signals.
    ///
    /// Errors: more pairs than there are such signals.
    pub fn new(pair: usize) -> anyhow::Result<Signal> {
        let signo = signo(pair)?;
        block([signo])?;
        drain(signo);
        let receiver_pid = Arc::new(Inherited::<AtomicI32>::new(1)?);
        // Until somebody asks for the receiver; 0 would be the whole process group.
        receiver_pid[0].store(sched::getpid(), Ordering::Relaxed);
        Ok(Signal {
            slots: Slots::new()?,
            receiver_pid,
            signo,
        })
    }

    pub fn signo(&self) -> i32 {
        self.signo
    }
}

/// The signal of a pair: SIGRTMIN for the first, and so on.
pub fn signo(pair: usize) -> anyhow::Result<i32> {
    let (first, last) = rtsignal::rt_range();
    let signo = i32::try_from(pair)
        .ok()
        .and_then(|pair| first.checked_add(pair))
        .filter(|&n| n <= last);
    signo.with_context(|| {
        let count = last - first + 1;
        format!("pair {pair} has no signal: there are {count} real-time signals, take at most {count} pairs")
    })
}

/// Blocks signals in the calling thread and in those it starts from now on. A program that measures
/// signals while it has other threads calls this first with [`every`].
pub fn block(signals: impl IntoIterator<Item = i32>) -> anyhow::Result<()> {
    SignalSet::of(signals)
        .block()
        .context("cannot block signals")
}

/// Discards the pending instances of a blocked signal, for example of the run before.
pub fn drain(signo: i32) {
    let set = SignalSet::of([signo]);
    // A bound for the case that somebody sends without end.
    for _ in 0..DRAINED_MAX {
        if rtsignal::try_wait(&set).is_err() {
            return;
        }
    }
}

/// More than a user has pending by default (RLIMIT_SIGPENDING).
const DRAINED_MAX: u32 = 1 << 20;

/// The real-time signals.
pub fn every() -> impl Iterator<Item = i32> {
    let (first, last) = rtsignal::rt_range();
    first..=last
}

impl Mechanism for Signal {
    fn name(&self) -> &str {
        super::Kind::Signal.name()
    }

    fn payload_bytes(&self) -> usize {
        0
    }

    fn sender(&self) -> anyhow::Result<Box<dyn Tx>> {
        self.receiver_pid.fault_in();
        let tx = SignalTx::new(sched::getpid(), self.signo, &self.slots);
        Ok(Box::new(Bounded {
            tx,
            slots: self.slots.clone(),
            receiver_pid: self.receiver_pid.clone(),
        }))
    }

    fn receiver(&self) -> anyhow::Result<Box<dyn Rx>> {
        let rx = SignalRx::new(self.signo, &self.slots)?;
        // Release: with the load in `Bounded`; the signal is blocked.
        self.receiver_pid[0].store(sched::getpid(), Ordering::Release);
        Ok(Box::new(rx))
    }
}

/// No message is lost between the two ends: a slot that was not read yet is not overwritten.
struct Bounded {
    tx: SignalTx,
    slots: Slots,
    receiver_pid: Arc<Inherited<AtomicI32>>,
}

impl Tx for Bounded {
    #[inline]
    fn send(&mut self, stamp: &Stamp) -> Result<(), Errno> {
        if !self.slots.has_room(stamp.sequence) {
            return Err(Errno::AGAIN);
        }
        self.tx.aim_at(self.receiver_pid[0].load(Ordering::Acquire));
        self.tx.send(stamp)
    }
}

/// Signals a process (sigqueue(3)).
#[derive(Debug)]
pub struct SignalTx {
    slots: Slots,
    target_pid: i32,
    signo: i32,
}

impl SignalTx {
    /// For signals of this number to this process, whose stamps lie in `slots`.
    pub fn new(target_pid: i32, signo: i32, slots: &Slots) -> SignalTx {
        slots.fault_in();
        SignalTx {
            slots: slots.clone(),
            target_pid,
            signo,
        }
    }
}

impl SignalTx {
    /// Signals this process from now on.
    pub fn aim_at(&mut self, target_pid: i32) {
        self.target_pid = target_pid;
    }
}

impl Tx for SignalTx {
    /// EAGAIN: the receiver's user is at RLIMIT_SIGPENDING. Overwrites the stamp of a message
    /// [`super::slots::SLOTS`] before, received or not.
    #[inline]
    fn send(&mut self, stamp: &Stamp) -> Result<(), Errno> {
        self.slots.put(stamp);
        rtsignal::queue_to_pid(self.target_pid, self.signo, stamp.sequence)
            .inspect_err(|_| self.slots.withdraw(stamp.sequence))
    }
}

/// Waits for a signal to this process (sigwaitinfo(2)).
#[derive(Debug)]
pub struct SignalRx {
    slots: Slots,
    set: SignalSet,
}

impl SignalRx {
    /// For signals of this number, whose stamps lie in `slots`. Blocks the number in the calling
    /// thread.
    ///
    /// Errors: another thread lets it through.
    pub fn new(signo: i32, slots: &Slots) -> anyhow::Result<SignalRx> {
        block([signo])?;
        let masks = procfs::thread_masks()?;
        if let Some(open) = masks
            .iter()
            .find(|mask| mask.blocked & rtsignal::bit(signo) == 0)
        {
            anyhow::bail!(
                "thread {} ({}) does not block signal {signo}, which would end the process: block \
                 it before that thread \
                 starts",
                open.tid,
                open.comm
            );
        }
        slots.fault_in();
        Ok(SignalRx {
            slots: slots.clone(),
            set: SignalSet::of([signo]),
        })
    }
}

impl Rx for SignalRx {
    /// ESTALE: the stamp was overwritten, or the signal is none of ours.
    #[inline]
    fn receive(&mut self) -> Result<Stamp, Errno> {
        let got = rtsignal::wait(&self.set)?;
        self.slots.take(got.value).ok_or(Errno::STALE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pair_has_a_signal_of_its_own_as_long_as_there_are_some() {
        let (first, last) = rtsignal::rt_range();
        assert_eq!((signo(0).unwrap(), signo(1).unwrap()), (first, first + 1));
        let count = usize::try_from(last - first).unwrap() + 1;
        assert_eq!(signo(count - 1).unwrap(), last);
        for none in [count, usize::MAX] {
            let text = signo(none).unwrap_err().to_string();
            assert!(
                text.contains(&none.to_string()) && text.contains(&count.to_string()),
                "{text}"
            );
        }
    }

    #[test]
    fn a_thread_that_would_let_it_through_is_named() {
        let open = std::thread::spawn(std::thread::park);
        let refused = SignalRx::new(signo(20).unwrap(), &Slots::new().unwrap())
            .unwrap_err()
            .to_string();
        open.thread().unpark();
        open.join().unwrap();
        assert!(
            refused.contains("does not block signal") && refused.contains("thread "),
            "{refused}"
        );
    }
}
