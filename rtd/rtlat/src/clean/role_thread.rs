//! The two ends of a path as sealed threads: one sends message after message, each when the one
//! before has arrived, the other receives; both account for themselves.
//!
//! Constraint: between the seal and its end a thread does what a control process does and what
//! [`super::calls`] lists.

#![forbid(unsafe_code)]

use super::super::control_block::{ControlBlock, Role};
use super::super::mech::{Rx, Stamp, Tx};
use super::super::role_loops::ThreadPlacement;
use super::Unclean;
use rtcore::seal;
use rtcore::sys::Errno;
use rtcore::sys::clock::{monotonic_ns, sleep_until};
use rtcore::sys::memory::{ThreadUsage, thread_usage};
use rtcore::sys::seccomp::{self, Program};
use std::sync::Arc;

/// Behind the last message.
pub const END: u64 = 1 << 63;
/// A sender that had the CPU for this time pauses: all threads of the run are SCHED_FIFO on one
/// CPU, and the kernel takes it from them when they have used it up (95 % of a second by default),
/// which would look like a defect.
const BURST_NS: u64 = 10_000_000;
const REST_NS: u64 = 1_500_000;
/// Until a full receiver is tried again.
const RETRY_NS: u64 = 500_000;
/// Memory for [`Unclean::Fault`]: more than the heap keeps at hand.
const FRESH_BYTES: usize = 4 << 20;

/// The account of a thread from its seal to its end.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// `lane`, `sender`, `receiver`.
    pub role: &'static str,
    /// As in `ps -L`.
    pub name: String,
    /// Kernel thread id.
    pub tid: u32,
    /// SCHED_FIFO priority, 0: SCHED_OTHER.
    pub priority: u8,
    /// Sent, received, or both.
    pub messages: u64,
    pub allocations: u64,
    /// Faults and switches.
    pub used: ThreadUsage,
    /// System calls that are not on its list.
    pub refused_calls: u64,
    /// The last of them.
    pub refused_call: Option<&'static str>,
    /// Whether a filter holds it to its list.
    pub is_confined: bool,
    /// CLOCK_MONOTONIC of the seal and of its end; 0: before the run.
    pub sealed_ns: [u64; 2],
}

pub struct RoleThread {
    /// Shared with the other end and the main thread.
    pub control: Arc<ControlBlock>,
    pub role: Role,
    /// Its CPU and priority.
    pub placement: ThreadPlacement,
    pub count: u64,
    /// The system calls that it may make.
    pub program: Program,
    /// The deliberate fault of the sender, which the check has to find.
    pub unclean: Option<Unclean>,
}

impl RoleThread {
    /// Sends all, on the thread that sends; an error is written to the control block.
    pub fn send(&self, tx: &mut dyn Tx) -> Account {
        let bytes = if self.unclean == Some(Unclean::Fault) {
            FRESH_BYTES
        } else {
            0
        };
        self.sealed("sender", bytes, |fresh| self.sending(tx, fresh))
    }

    /// Receives until the END.
    pub fn receive(&self, rx: &mut dyn Rx) -> Account {
        self.sealed("receiver", 0, |_| self.receiving(rx))
    }

    /// Runs `work`, which returns its number of messages, under the seal; it gets memory that
    /// nobody has touched.
    fn sealed(
        &self,
        role: &'static str,
        fresh_bytes: usize,
        work: impl FnOnce(&mut Vec<u8>) -> u64,
    ) -> Account {
        self.control.mark_ready(self.role);
        if self.control.wait_order(0).is_none() {
            return Account::default();
        }
        // Now: memory that is mapped when the process locks its own is present from then on.
        let mut fresh = Vec::with_capacity(fresh_bytes);
        let before = thread_usage();
        let is_confined = seal::confine(&self.program).is_ok();
        let sealed_ns = monotonic_ns();
        seal::seal();
        let messages = work(&mut fresh);
        let after = thread_usage();
        seal::unseal();
        let ended_ns = monotonic_ns();
        let refused = seal::refused();
        let used = after
            .ok()
            .zip(before.ok())
            .map(|(after, before)| after.since(&before));
        let (tid, _) = self.control.whereabouts(self.role);
        if self.role == Role::Sender {
            self.control.sent_all(1)
        } else {
            self.control.close(1)
        }
        Account {
            role,
            name: format!("rtlat-{role}"),
            tid: tid.unsigned_abs(),
            priority: self.placement.priority,
            messages,
            allocations: seal::breaches(),
            used: used.unwrap_or_default(),
            refused_calls: refused.calls,
            refused_call: (refused.calls > 0).then(|| seccomp::name(refused.last)),
            is_confined,
            sealed_ns: [sealed_ns, ended_ns],
        }
    }

    /// How many were sent: all, unless one did not arrive.
    fn sending(&self, tx: &mut dyn Tx, fresh: &mut Vec<u8>) -> u64 {
        let mut burst_ns = monotonic_ns();
        let mut sent = 0;
        while sent < self.count && !self.control.is_stopped() {
            let now_ns = monotonic_ns();
            if now_ns - burst_ns > BURST_NS {
                sleep_until(now_ns + REST_NS);
                burst_ns = monotonic_ns();
            }
            let is_swallowed = sent == self.count / 2 && self.misbehave(fresh);
            let number = sent;
            sent += 1;
            if is_swallowed {
                continue;
            }
            if !self.put(tx, number) || !self.control.await_arrival(number) {
                break;
            }
        }
        self.put(tx, END);
        sent
    }

    /// Sends one, when there is room; false: it could not, or the run is over.
    fn put(&self, tx: &mut dyn Tx, sequence: u64) -> bool {
        let now_ns = monotonic_ns();
        let stamp = Stamp {
            sequence,
            intended_ns: now_ns,
            sent_ns: now_ns,
        };
        loop {
            match tx.send(&stamp) {
                Ok(()) => return true,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if !self.control.is_quit() => {
                    sleep_until(monotonic_ns() + RETRY_NS)
                }
                Err(Errno::AGAIN) => return false,
                Err(e) => {
                    self.fail("cannot send", e);
                    return false;
                }
            }
        }
    }

    fn receiving(&self, rx: &mut dyn Rx) -> u64 {
        let mut received = 0;
        while !self.control.is_quit() {
            match rx.receive() {
                Ok(stamp) if stamp.sequence == END => break,
                Ok(stamp) => {
                    received += 1;
                    self.control.arrive(stamp.sequence);
                }
                // A message without its stamp counts as lost.
                Err(Errno::INTR | Errno::AGAIN | Errno::STALE | Errno::BADMSG) => {}
                Err(_) if self.control.is_quit() => break,
                Err(e) => {
                    self.fail("cannot receive", e);
                    break;
                }
            }
        }
        received
    }

    /// The run is over: the heap may be used.
    fn fail(&self, what: &str, e: Errno) {
        seal::unseal();
        self.control
            .fail(&format!("{what}: {}", std::io::Error::from(e)));
        seal::seal();
    }

    /// Makes the fault that the command line asked for, once. True: the message is not to be sent.
    #[cold]
    fn misbehave(&self, fresh: &mut Vec<u8>) -> bool {
        match self.unclean {
            Some(Unclean::Heap) => drop(std::hint::black_box(Box::new(0u64))),
            Some(Unclean::Fault) => fresh.resize(fresh.capacity(), 1),
            Some(Unclean::Call) => _ = std::hint::black_box(std::os::unix::process::parent_id()),
            Some(Unclean::Loss) => return true,
            Some(Unclean::Preempt) | None => {}
        }
        false
    }
}
