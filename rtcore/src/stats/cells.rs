//! The cells of the page. A cell has the words of one record that one thread writes.
//!
//! Nothing here allocates, locks or calls the kernel; a store is a plain store, no
//! read-modify-write. Records whose words belong together are written under a sequence number, see
//! `write_whole`.
//!
//! **Invariant:** a cell is the only writer of its words, and takes `&mut self` to write.
//! [`super::writer::Page`] makes each cell once.

use super::layout::{self, HistogramRecord, RouteRecord, TargetRecord, WorkerRecord};
use super::loss::Loss;
use super::{Ledger, ReceiverCounters, WorkerCounters};
use crate::ring::Claims;
use crate::sys::memory::ThreadUsage;
use crate::sys::shm::Mapping;
use std::any::Any;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

/// One route's counters and histogram. Writer: the thread that reads the route's source, or the
/// control thread for a route that no thread reads.
#[derive(Debug)]
pub struct RouteCell {
    pub(super) record: NonNull<RouteRecord>,
    pub(super) latency: Recorder,
    pub(super) targets: Box<[TargetCell]>,
    pub(super) seq: u64,
    // Keeps the memory mapped.
    pub(super) _map: Arc<Mapping>,
}

/// Records latencies into a histogram in shared memory, with one writer.
pub struct Recorder {
    pub(super) histogram: NonNull<HistogramRecord>,
    // Copies of words that only this recorder writes: the frequent path stores them without loading
    // them.
    pub(super) count: u64,
    pub(super) sum_ns: u64,
    pub(super) min_ns: u64,
    pub(super) max_ns: u64,
    pub(super) saturated: u64,
    // Keeps the memory mapped.
    pub(super) _keep: Arc<dyn Any + Send + Sync>,
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Recorder({} values)", self.count)
    }
}

/// The reports of a receiver's library about the messages that rtd put into its ring through one
/// end of a route. Writer: the control thread.
#[derive(Debug)]
pub struct ClaimsCell {
    pub(super) record: NonNull<TargetRecord>,
    // Keeps the memory mapped.
    pub(super) _map: Arc<Mapping>,
}

// SAFETY: as for RouteCell.
unsafe impl Send for Recorder {}
// SAFETY: as for RouteCell.
unsafe impl Send for ClaimsCell {}

/// One end of the route.
#[derive(Debug)]
pub(super) struct TargetCell {
    pub(super) record: NonNull<TargetRecord>,
    /// Copy of the word that only this cell writes.
    pub(super) delivered: u64,
}

/// One lane thread's counters. Writer: that thread.
#[derive(Debug)]
pub struct WorkerCell {
    pub(super) record: NonNull<WorkerRecord>,
    pub(super) seq: u64,
    // Keeps the memory mapped.
    pub(super) _map: Arc<Mapping>,
}

// SAFETY: the pointers are into `_map`, which is Send + Sync and lives as long as the cell; what
// they reach is atomics and bytes that never change.
unsafe impl Send for RouteCell {}
// SAFETY: as for RouteCell.
unsafe impl Send for WorkerCell {}

impl RouteCell {
    /// Publishes the ledger so that a reader gets all its words or none.
    #[inline]
    pub fn publish(&mut self, ledger: &Ledger) {
        let record = self.record();
        let whole = write_whole(&record.seq, self.seq, &record.ledger, ledger.words());
        self.seq = whole;
    }

    /// Records one latency of a delivery.
    #[inline]
    pub fn record_latency(&mut self, ns: u64) {
        self.latency.record(ns);
    }

    /// Adds the latencies that a receiver's library has measured since the last call; `seen`
    /// records the state of that call.
    pub fn add_latencies(&mut self, measured: &HistogramRecord, seen: &mut Seen) {
        self.latency.add(measured, seen);
    }

    /// Counts a message that was delivered to the route's n-th end at `now_ns`. Call it before the
    /// ledger that includes the message is published, see [`TargetRecord`].
    #[inline]
    pub fn record_delivery(&mut self, end: usize, now_ns: u64) {
        // Every end of the plan has a record; another index would be a defect, for which a panic
        // here is not worthwhile.
        let Some(target) = self.targets.get(end) else {
            return;
        };
        self.show_deliveries(end, target.delivered + 1, now_ns);
    }

    /// The same if another process delivers and the number is read: the total so far, the last one
    /// seen at `now_ns`.
    #[inline]
    pub fn show_deliveries(&mut self, end: usize, delivered: u64, now_ns: u64) {
        let Some(target) = self.targets.get_mut(end) else {
            return;
        };
        if target.delivered == delivered {
            return;
        }
        target.delivered = delivered;
        // SAFETY: points into `_map`, made from a reference in `Page::route`.
        let record = unsafe { target.record.as_ref() };
        record.last_delivery_ns.store(now_ns, Ordering::Relaxed);
        record.delivered.store(target.delivered, Ordering::Relaxed);
    }

    /// Counts a message that was lost at the route's n-th end. Call it before the ledger that
    /// includes the message is published, see [`TargetRecord`].
    #[cold]
    pub fn record_loss(&mut self, end: usize, loss: Loss) {
        let Some(target) = self.targets.get(end) else {
            return;
        };
        // SAFETY: points into `_map`, made from a reference in `Page::route`.
        let lost = unsafe { &target.record.as_ref().lost[loss.index()] };
        lost.store(lost.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// Records why the kernel refused a message at the route's n-th end.
    #[cold]
    pub fn record_errno(&mut self, end: usize, errno: i32) {
        let Some(target) = self.targets.get(end) else {
            return;
        };
        // SAFETY: points into `_map`, made from a reference in `Page::route`.
        unsafe { target.record.as_ref() }
            .errno
            .store(errno.cast_unsigned(), Ordering::Relaxed);
    }

    #[inline]
    fn record(&self) -> &RouteRecord {
        // SAFETY: points into `_map`, made from a reference in `Page::route`.
        unsafe { self.record.as_ref() }
    }

    /// Stops in the middle of a publication, as a killed thread does.
    #[cfg(test)]
    pub(super) fn publish_half(&mut self, ledger: &Ledger) {
        self.record().seq.store(self.seq + 1, Ordering::Relaxed);
        fence(Ordering::Release);
        self.record().ledger[0].store(ledger.accepted, Ordering::Relaxed);
    }
}

impl Recorder {
    /// # Safety
    /// 1. `histogram` points at a record that lives as long as `keep`, is only ever read and
    ///    written as atomics, and has no other writer as long as this one lives.
    pub unsafe fn new(
        histogram: NonNull<HistogramRecord>,
        keep: Arc<dyn Any + Send + Sync>,
    ) -> Recorder {
        // SAFETY: point 1.
        let record = unsafe { histogram.as_ref() };
        let count = record.count.load(Ordering::Relaxed);
        Recorder {
            histogram,
            count,
            sum_ns: record.sum_ns.load(Ordering::Relaxed),
            min_ns: if count == 0 {
                u64::MAX
            } else {
                record.min_ns.load(Ordering::Relaxed)
            },
            max_ns: record.max_ns.load(Ordering::Relaxed),
            saturated: record.saturated.load(Ordering::Relaxed),
            _keep: keep,
        }
    }

    /// Records one value.
    #[inline]
    pub fn record(&mut self, ns: u64) {
        let index = layout::count_index(ns.min(layout::HISTOGRAM_HIGH_NS));
        self.count += 1;
        self.sum_ns = self.sum_ns.wrapping_add(ns);
        self.min_ns = self.min_ns.min(ns);
        self.max_ns = self.max_ns.max(ns);
        self.saturated += u64::from(ns > layout::HISTOGRAM_HIGH_NS);
        // SAFETY: point 1 of `new`.
        let histogram = unsafe { self.histogram.as_ref() };
        // There is no sequence number here, because it would cost as much as the recording. A
        // reader uses the sum of the counts as the number of values, and bucket bounds if minimum
        // or maximum do not fit the counts yet.
        if let Some(slot) = histogram.counts.get(index) {
            slot.store(slot.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
        self.publish();
    }

    fn publish(&self) {
        // SAFETY: point 1 of `new`.
        let histogram = unsafe { self.histogram.as_ref() };
        histogram.sum_ns.store(self.sum_ns, Ordering::Relaxed);
        histogram.min_ns.store(self.min_ns, Ordering::Relaxed);
        histogram.max_ns.store(self.max_ns, Ordering::Relaxed);
        histogram.saturated.store(self.saturated, Ordering::Relaxed);
        // Stored last, because others check whether it has changed.
        histogram.count.store(self.count, Ordering::Relaxed);
    }

    /// Adds the values that another writer, which may write anything, has recorded since the last
    /// call. A count that decreased adds nothing; sums saturate.
    fn add(&mut self, measured: &HistogramRecord, seen: &mut Seen) {
        let count = measured.count.load(Ordering::Relaxed);
        if count == seen.count {
            return;
        }
        seen.count = count;
        // SAFETY: point 1 of `new`.
        let histogram = unsafe { self.histogram.as_ref() };
        let mut added: u64 = 0;
        for ((slot, from), seen) in histogram
            .counts
            .iter()
            .zip(&measured.counts)
            .zip(&mut seen.counts)
        {
            let now = from.load(Ordering::Relaxed);
            let more = now.saturating_sub(*seen);
            *seen = now;
            if more > 0 {
                slot.store(
                    slot.load(Ordering::Relaxed).saturating_add(more),
                    Ordering::Relaxed,
                );
                added = added.saturating_add(more);
            }
        }
        let (sum_ns, saturated) = (
            measured.sum_ns.load(Ordering::Relaxed),
            measured.saturated.load(Ordering::Relaxed),
        );
        self.count = self.count.saturating_add(added);
        self.sum_ns = self.sum_ns.wrapping_add(sum_ns.wrapping_sub(seen.sum_ns));
        self.saturated = self
            .saturated
            .saturating_add(saturated.saturating_sub(seen.saturated));
        (seen.sum_ns, seen.saturated) = (sum_ns, saturated);
        self.min_ns = self.min_ns.min(measured.min_ns.load(Ordering::Relaxed));
        self.max_ns = self.max_ns.max(measured.max_ns.load(Ordering::Relaxed));
        self.publish();
    }
}

/// The part of another writer's histogram that was added already.
#[derive(Debug)]
pub struct Seen {
    count: u64,
    sum_ns: u64,
    saturated: u64,
    counts: Box<[u64]>,
}

impl Seen {
    /// All values that are there now.
    pub fn of(measured: &HistogramRecord) -> Seen {
        let load = |word: &AtomicU64| word.load(Ordering::Relaxed);
        Seen {
            count: load(&measured.count),
            sum_ns: load(&measured.sum_ns),
            saturated: load(&measured.saturated),
            counts: measured.counts.iter().map(load).collect(),
        }
    }
}

impl Default for Seen {
    /// The state for an empty histogram.
    fn default() -> Seen {
        let counts = vec![0; layout::HISTOGRAM_COUNTS].into_boxed_slice();
        Seen {
            count: 0,
            sum_ns: 0,
            saturated: 0,
            counts,
        }
    }
}

impl ClaimsCell {
    /// Publishes the numbers; they only grow.
    pub fn show(&mut self, claims: &Claims) {
        let Claims {
            expired,
            superseded,
            late,
        } = *claims;
        self.update(|shown| ReceiverCounters {
            expired,
            superseded,
            late,
            ..shown
        });
    }

    /// Publishes the number of messages that receivers had not read when they died; it only grows.
    pub fn show_unread(&mut self, unread: u64) {
        self.update(|shown| ReceiverCounters { unread, ..shown });
    }

    fn update(&mut self, change: impl FnOnce(ReceiverCounters) -> ReceiverCounters) {
        // SAFETY: points into `_map`, made from a reference in `Page::claims`.
        let words = unsafe { &self.record.as_ref().receiver };
        let changed = change(ReceiverCounters::of_words(loaded(words)));
        for (word, count) in words.iter().zip(changed.words()) {
            word.store(count, Ordering::Relaxed);
        }
    }
}

impl WorkerCell {
    /// Publishes the worker's counters.
    #[inline]
    pub fn publish(&mut self, counters: &WorkerCounters) {
        // SAFETY: points into `_map`, made from a reference in `Page::worker`.
        let record = unsafe { self.record.as_ref() };
        self.seq = write_whole(&record.seq, self.seq, &record.counters, counters.words());
    }

    /// Records the usage of the thread at the seal, once; does nothing if the kernel did not report
    /// it. The difference from /proc's later values belongs to the time after the seal.
    pub fn sealed(&self, usage: Option<&ThreadUsage>) {
        let Some(usage) = usage else { return };
        // SAFETY: points into `_map`, made from a reference in `Page::worker`.
        let words = unsafe { &self.record.as_ref().sealed };
        let ThreadUsage {
            minor_faults,
            major_faults,
            voluntary_switches,
            involuntary_switches,
        } = *usage;
        let counts = [
            minor_faults,
            major_faults,
            voluntary_switches,
            involuntary_switches,
        ];
        // In any order: a reader waits until all of them have changed from their first value.
        for (word, count) in words.iter().zip(counts) {
            word.store(count.cast_unsigned(), Ordering::Relaxed);
        }
    }
}

/// Writes `values` so that a reader gets all of them or detects that it did not; returns the new
/// sequence number.
#[inline]
pub(super) fn write_whole<const N: usize>(
    seq: &AtomicU64,
    now: u64,
    words: &[AtomicU64; N],
    values: [u64; N],
) -> u64 {
    seq.store(now.wrapping_add(1), Ordering::Relaxed);
    // SYNC POINT with the acquire fence behind the words in `reader::read_whole`: who saw one of
    // the stores below sees the odd number (or a later one) when it reads the sequence again.
    fence(Ordering::Release);
    for (word, value) in words.iter().zip(values) {
        word.store(value, Ordering::Relaxed);
    }
    let whole = now.wrapping_add(2);
    // SYNC POINT with the acquire fence in front of the words in `reader::read_whole`: who saw this
    // number sees the stores above.
    seq.store(whole, Ordering::Release);
    whole
}

/// Words that may be written meanwhile: each is right, but their sum need not be.
pub(super) fn loaded<const N: usize>(words: &[AtomicU64; N]) -> [u64; N] {
    words.each_ref().map(|word| word.load(Ordering::Relaxed))
}

/// The outcomes of messages in the receiver's ring at one end.
pub(super) fn received(target: &TargetRecord) -> ReceiverCounters {
    ReceiverCounters::of_words(loaded(&target.receiver))
}

/// Makes a sequence number even that an earlier cell may have left odd.
pub(super) fn even(seq: u64) -> u64 {
    seq.wrapping_add(seq & 1)
}
