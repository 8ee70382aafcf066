//! The control block that the main thread, the sender and the receiver of one pair share. It is in
//! memory that a forked sender also sees.
//!
//! Invariant: every word has one writer (named with it), but for `changes` and `stop`, which all may
//! raise.

use super::recorder::Tally;
use super::series::Counts;
use crate::sys::inherited::Inherited;
use rtcore::sync::{AtomicU32, AtomicU64, Ordering};
use rtcore::sys::futex;
use zerocopy::FromZeros;

const TEXT_WORDS: usize = 64;

/// The next task of the pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// First point of the schedule.
    pub start_ns: u64,
    /// Between points; 0: each message follows the arrival of the one before.
    pub interval_ns: u64,
    /// Points; 0: until stopped.
    pub count: u64,
    /// Messages before the schedule that are not recorded.
    pub warm: u64,
    /// The interval at which the receiver hands over its data; 0: only at the end.
    pub slice_ns: u64,
    /// The sender polls instead of sleeping: for the points of the schedule, and back to back for
    /// each arrival. It has its CPU to itself.
    pub polls: bool,
}

/// See the module.
#[derive(FromZeros)]
#[repr(C)]
pub struct Words {
    /// Main: number of the block to run; a futex.
    order: AtomicU32,
    /// Main: the pair is to end; a futex with `order`.
    quit: AtomicU32,
    /// Anybody: the run is over.
    stop: AtomicU32,
    /// Anybody, counted up: something changed that the main thread must check; a futex.
    changes: AtomicU32,
    /// Number of roles that are ready.
    ready: AtomicU32,
    /// Sender: number of the block it has finished.
    sent_all: AtomicU32,
    /// Receiver: number of the block it has closed.
    closed: AtomicU32,
    /// Receiver, counted up for a sender that waits for an arrival; a futex.
    arrival: AtomicU32,
    /// Sender: it sleeps at `arrival`.
    waiting: AtomicU32,
    /// Main: number of the block whose end is not waited for any more.
    given_up: AtomicU32,
    /// Main: the block.
    start_ns: AtomicU64,
    interval_ns: AtomicU64,
    count: AtomicU64,
    warm: AtomicU64,
    slice_ns: AtomicU64,
    polls: AtomicU64,
    /// Sender: first point of the schedule that it follows.
    first_ns: AtomicU64,
    /// Sender: points of the schedule so far.
    scheduled: AtomicU64,
    sent: AtomicU64,
    missed: AtomicU64,
    /// Receiver: sequence of the last message, plus one.
    arrived: AtomicU64,
    /// Receiver: count for the live view.
    received: AtomicU64,
    min_ns: AtomicU64,
    last_ns: AtomicU64,
    max_ns: AtomicU64,
    sum_ns: AtomicU64,
    /// Recording role: samples that were not shown because the channel to the display was full.
    hidden: AtomicU64,
    /// Of sender and receiver.
    tid: [AtomicU32; 2],
    cpu: [AtomicU32; 2],
    /// First failure: the role that claimed it (1 + length when written), and its text.
    failed: AtomicU32,
    text: [AtomicU64; TEXT_WORDS],
}

/// One of the two roles of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Sends (a timer: waits).
    Sender,
    Receiver,
}

/// The control block of one pair.
pub struct ControlBlock(Inherited<Words>);

impl std::fmt::Debug for ControlBlock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ControlBlock")
            .field("order", &self.order())
            .finish_non_exhaustive()
    }
}

impl ControlBlock {
    /// Maps the memory. Errors: mmap(2).
    pub fn new() -> std::io::Result<ControlBlock> {
        Ok(ControlBlock(Inherited::new(1)?))
    }

    fn words(&self) -> &Words {
        // One was asked for.
        &self.0[0]
    }

    /// Has the calling process, a child, touch the memory, so that it does not fault later.
    pub fn fault_in(&self) {
        self.0.fault_in();
    }

    fn notify(&self) {
        self.words().changes.fetch_add(1, Ordering::Release);
        futex::wake_all(&self.words().changes);
    }

    /// Main: waits at most `timeout_ns` for a change after `seen`. Returns the value to pass next time.
    pub fn wait_change(&self, seen: u32, timeout_ns: u64) -> u32 {
        let _ = futex::wait(&self.words().changes, seen, timeout_ns);
        self.words().changes.load(Ordering::Acquire)
    }

    /// Number of changes so far.
    pub fn changes(&self) -> u32 {
        self.words().changes.load(Ordering::Acquire)
    }

    /// The thread of this role is ready: the calling thread.
    pub fn mark_ready(&self, role: Role) {
        self.words().tid[role as usize].store(
            rtcore::sys::sched::gettid().unsigned_abs(),
            Ordering::Relaxed,
        );
        self.note_cpu(role);
        self.words().ready.fetch_add(1, Ordering::Release);
        self.notify();
    }

    /// Records the CPU that the calling thread runs on.
    pub fn note_cpu(&self, role: Role) {
        let cpu = u32::try_from(rtcore::sys::sched::current_cpu()).unwrap_or(0);
        self.words().cpu[role as usize].store(cpu, Ordering::Relaxed);
    }

    /// Number of roles that are ready.
    pub fn ready(&self) -> u32 {
        self.words().ready.load(Ordering::Acquire)
    }

    /// Thread id and CPU of a role.
    pub fn whereabouts(&self, role: Role) -> (i32, usize) {
        let tid = self.words().tid[role as usize].load(Ordering::Relaxed);
        (
            tid.cast_signed(),
            self.words().cpu[role as usize].load(Ordering::Relaxed) as usize,
        )
    }

    /// Main: starts a block and returns its number. All blocks before have ended.
    pub fn begin(&self, block: &Block) -> u32 {
        let w = self.words();
        w.start_ns.store(block.start_ns, Ordering::Relaxed);
        w.interval_ns.store(block.interval_ns, Ordering::Relaxed);
        w.count.store(block.count, Ordering::Relaxed);
        w.warm.store(block.warm, Ordering::Relaxed);
        w.slice_ns.store(block.slice_ns, Ordering::Relaxed);
        w.polls.store(block.polls.into(), Ordering::Relaxed);
        for word in [
            &w.first_ns,
            &w.scheduled,
            &w.sent,
            &w.missed,
            &w.arrived,
            &w.received,
        ] {
            word.store(0, Ordering::Relaxed);
        }
        w.stop.store(0, Ordering::Relaxed);
        let order = w.order.load(Ordering::Relaxed) + 1;
        // SYNC POINT with `wait_order` and `order`: the block is written.
        w.order.store(order, Ordering::Release);
        futex::wake_all(&w.order);
        order
    }

    /// Number of the block that runs or ran last; 0: none.
    pub fn order(&self) -> u32 {
        self.words().order.load(Ordering::Acquire)
    }

    /// The block that runs.
    pub fn block(&self) -> Block {
        let w = self.words();
        Block {
            start_ns: w.start_ns.load(Ordering::Relaxed),
            interval_ns: w.interval_ns.load(Ordering::Relaxed),
            count: w.count.load(Ordering::Relaxed),
            warm: w.warm.load(Ordering::Relaxed),
            slice_ns: w.slice_ns.load(Ordering::Relaxed),
            polls: w.polls.load(Ordering::Relaxed) != 0,
        }
    }

    /// Sender: waits for a block after `done`; none: it is to end.
    pub fn wait_order(&self, done: u32) -> Option<u32> {
        loop {
            if self.is_quit() {
                return None;
            }
            let order = self.order();
            if order != done {
                return Some(order);
            }
            // Bounded: `quit` is a word of its own.
            let _ = futex::wait(&self.words().order, done, 100_000_000);
        }
    }

    /// Main: both are to end.
    pub fn quit(&self) {
        self.words().quit.store(1, Ordering::Release);
        self.stop();
        futex::wake_all(&self.words().order);
        futex::wake_all(&self.words().arrival);
    }

    /// See [`ControlBlock::quit`].
    pub fn is_quit(&self) -> bool {
        self.words().quit.load(Ordering::Acquire) != 0
    }

    /// The run is to end early. The caller wakes threads that sleep.
    pub fn stop(&self) {
        self.words().stop.store(1, Ordering::Release);
        self.notify();
    }

    /// See [`ControlBlock::stop`].
    pub fn is_stopped(&self) -> bool {
        self.words().stop.load(Ordering::Acquire) != 0
    }

    /// Sender: the schedule that it follows begins here.
    pub fn note_first(&self, first_ns: u64) {
        // SYNC POINT with `first_ns`: a message carries no more than its own point of the schedule.
        self.words().first_ns.store(first_ns, Ordering::Release);
    }

    /// First point of the schedule; 0: the sender has not come to it.
    pub fn first_ns(&self) -> u64 {
        self.words().first_ns.load(Ordering::Acquire)
    }

    /// Sender: what became of the schedule.
    pub fn note_sent(&self, scheduled: u64, sent: u64, missed: u64) {
        self.words().scheduled.store(scheduled, Ordering::Relaxed);
        self.words().sent.store(sent, Ordering::Relaxed);
        self.words().missed.store(missed, Ordering::Relaxed);
    }

    /// Sender: the block is sent.
    pub fn sent_all(&self, order: u32) {
        // SYNC POINT with `is_sent`: the counts are written.
        self.words().sent_all.store(order, Ordering::Release);
        self.notify();
    }

    /// Whether the sender has done with this block.
    pub fn is_sent(&self, order: u32) -> bool {
        self.words().sent_all.load(Ordering::Acquire) == order
    }

    /// Main: the receiver closes this block with the data that it has, at its next check.
    pub fn give_up(&self, order: u32) {
        self.words().given_up.store(order, Ordering::Release);
    }

    /// See [`ControlBlock::give_up`].
    pub fn is_given_up(&self, order: u32) -> bool {
        self.words().given_up.load(Ordering::Acquire) == order
    }

    /// Receiver: the block is closed and handed over.
    pub fn close(&self, order: u32) {
        self.words().closed.store(order, Ordering::Release);
        self.notify();
    }

    /// Whether the receiver has closed this block.
    pub fn is_closed(&self, order: u32) -> bool {
        self.words().closed.load(Ordering::Acquire) == order
    }

    /// The counts of the closed block, with this number of messages received.
    pub fn counts(&self, received: u64) -> Counts {
        let sent = self.words().sent.load(Ordering::Relaxed);
        Counts {
            scheduled: self.words().scheduled.load(Ordering::Relaxed),
            sent,
            received,
            missed: self.words().missed.load(Ordering::Relaxed),
            lost: sent.saturating_sub(received),
        }
    }

    /// Receiver: a message of this sequence came; wakes the thread that waits for it.
    pub fn arrive(&self, sequence: u64) {
        self.words().arrived.store(sequence + 1, Ordering::Release);
        self.words().arrival.fetch_add(1, Ordering::Release);
        // SYNC POINT with `await_arrival`: either it sees the arrival or we see that it waits.
        rtcore::sync::full_fence();
        if self.words().waiting.load(Ordering::Relaxed) != 0 {
            futex::wake(&self.words().arrival);
        }
    }

    /// Sender: sleeps, or polls, until the message of this sequence has arrived, so that its
    /// receiver is asleep again by the next. False: it has not within a second, or the run is over.
    pub fn await_arrival(&self, sequence: u64) -> bool {
        const PATIENCE_NS: u64 = 1_000_000_000;
        let until_ns = rtcore::sys::clock::monotonic_ns() + PATIENCE_NS;
        let has_come = || self.words().arrived.load(Ordering::Acquire) > sequence;
        while !has_come() {
            if self.is_stopped() || rtcore::sys::clock::monotonic_ns() >= until_ns {
                return has_come();
            }
            if self.words().polls.load(Ordering::Relaxed) != 0 {
                std::hint::spin_loop();
                continue;
            }
            self.words().waiting.store(1, Ordering::Relaxed);
            let seen = self.words().arrival.load(Ordering::Acquire);
            rtcore::sync::full_fence();
            if !has_come() {
                let _ = futex::wait(&self.words().arrival, seen, PATIENCE_NS / 10);
            }
            self.words().waiting.store(0, Ordering::Relaxed);
        }
        true
    }

    /// Recording role: `count` more samples are not shown.
    pub fn note_hidden(&self, count: u64) {
        let so_far = self.words().hidden.load(Ordering::Relaxed);
        self.words().hidden.store(so_far + count, Ordering::Relaxed);
    }

    /// Samples that are not shown.
    pub fn hidden(&self) -> u64 {
        self.words().hidden.load(Ordering::Relaxed)
    }

    /// Receiver: for the live view.
    pub fn publish(&self, tally: &Tally) {
        let w = self.words();
        w.min_ns.store(tally.min_ns, Ordering::Relaxed);
        w.last_ns.store(tally.last_ns, Ordering::Relaxed);
        w.max_ns.store(tally.max_ns, Ordering::Relaxed);
        w.sum_ns.store(
            u64::try_from(tally.sum_ns).unwrap_or(u64::MAX),
            Ordering::Relaxed,
        );
        w.received.store(tally.received, Ordering::Release);
    }

    /// The values published last; they may be of two consecutive messages.
    pub fn tally(&self) -> Tally {
        let w = self.words();
        Tally {
            received: w.received.load(Ordering::Acquire),
            min_ns: w.min_ns.load(Ordering::Relaxed),
            last_ns: w.last_ns.load(Ordering::Relaxed),
            max_ns: w.max_ns.load(Ordering::Relaxed),
            sum_ns: w.sum_ns.load(Ordering::Relaxed).into(),
        }
    }

    /// A role cannot go on. The first text stays.
    pub fn fail(&self, text: &str) {
        let w = self.words();
        if w.failed
            .compare_exchange(0, 1, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
        {
            let bytes = &text.as_bytes()[..text.len().min(TEXT_WORDS * 8)];
            for (word, chunk) in w.text.iter().zip(bytes.chunks(8)) {
                let mut eight = [0; 8];
                eight[..chunk.len()].copy_from_slice(chunk);
                word.store(u64::from_ne_bytes(eight), Ordering::Relaxed);
            }
            // SYNC POINT with `failure`: the text is written.
            w.failed.store(
                1 + u32::try_from(bytes.len()).unwrap_or(0).max(1),
                Ordering::Release,
            );
        }
        self.stop();
    }

    /// The reason why a role could not go on.
    pub fn failure(&self) -> Option<String> {
        let len = self
            .words()
            .failed
            .load(Ordering::Acquire)
            .checked_sub(1)
            .filter(|len| *len > 0)?;
        let words = self
            .words()
            .text
            .iter()
            .flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes());
        let bytes: Vec<u8> = words.take(len as usize).collect();
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_stays_and_stops_the_run() {
        let control = ControlBlock::new().unwrap();
        assert_eq!(control.failure(), None);
        control.fail("no such queue");
        control.fail(&"x".repeat(2000));
        assert_eq!(control.failure().as_deref(), Some("no such queue"));
        assert!(control.is_stopped());
        let long = ControlBlock::new().unwrap();
        long.fail(&"y".repeat(2000));
        assert_eq!(long.failure(), Some("y".repeat(TEXT_WORDS * 8)));
    }

    #[test]
    fn an_arrival_wakes_who_waits_for_it() {
        let control = ControlBlock::new().unwrap();
        control.begin(&Block::default());
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| control.await_arrival(1));
            control.arrive(0);
            control.arrive(1);
            assert!(waits.join().unwrap());
        });
        control.stop();
        assert!(!control.await_arrival(9));
    }
}
