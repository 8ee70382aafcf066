//! The daemon's side of the page: create, and write with single-writer stores.
//!
//! Nothing here allocates, locks or calls the kernel after [`Page::create`]; a store is a plain store, no
//! read-modify-write. Records whose words belong together are written under a sequence number, see
//! `write_whole`.
//!
//! Invariant: each word of the page has one writing thread. The cells take `&mut self` for it; the methods
//! of [`Page`] that write are the control thread's.

use super::fill::{fill, invalid};
use super::guard::GuardCell;
use super::layout::{self, Header, HistogramRecord, LaneRecord, ProcessRecord, RouteRecord, Section};
use super::layout::{EndpointRecord, GuardRecord, LossRecord, TargetRecord, WorkerRecord};
use super::loss::Loss;
use super::mirror::Mirror;
use super::place;
use super::reader::Reader;
pub use super::refused::RefusedCell;
use super::{Guard, Ledger, PageSpec, ReceiverCounters, WorkerCounters};
use crate::lane::peer::{PeerState, Reception};
use crate::ring::Claims;
use crate::sys::memory::ThreadUsage;
use crate::sys::shm::{Draft, Mapping, PublishError, Published};
use std::any::Any;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use zerocopy::FromBytes;

/// The mapped page. Dropping it removes the name.
///
/// The memory itself stays for as long as a cell is alive.
#[derive(Debug)]
pub struct Page {
    /// What the cells write. Of the published file, until that is removed.
    memory: Arc<Mapping>,
    published: Published,
    /// Copies `memory` to the published file, which is another one then.
    mirror: Option<Mirror>,
    sections: [Section; layout::SECTIONS],
    /// By route: where its ends are among the targets.
    ends: Vec<Range<usize>>,
}

/// One route's counters and histogram. Writer: the thread that reads the route's source, or the control thread
/// for a route that no thread reads.
#[derive(Debug)]
pub struct RouteCell {
    record: NonNull<RouteRecord>,
    latency: Recorder,
    targets: Box<[TargetCell]>,
    seq: u64,
    // Keeps what the pointers point at.
    _map: Arc<Mapping>,
}

/// Records latencies into a histogram in shared memory, with one writer.
pub struct Recorder {
    histogram: NonNull<HistogramRecord>,
    // Copies of words that only this recorder writes: the hot path stores them without loading them.
    count: u64,
    sum_ns: u64,
    min_ns: u64,
    max_ns: u64,
    saturated: u64,
    // Keeps what the pointer points at.
    _keep: Arc<dyn Any + Send + Sync>,
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Recorder({} values)", self.count)
    }
}

/// What a receiver's library reports of the messages that rtd handed to it through one end of a route. Writer: the
/// control thread.
#[derive(Debug)]
pub struct ClaimsCell {
    record: NonNull<TargetRecord>,
    // Keeps what the pointer points at.
    _map: Arc<Mapping>,
}

// SAFETY: as for RouteCell.
unsafe impl Send for Recorder {}
// SAFETY: as for RouteCell.
unsafe impl Send for ClaimsCell {}

/// One end of the route.
#[derive(Debug)]
struct TargetCell {
    record: NonNull<TargetRecord>,
    /// Copy of the word that only this cell writes.
    delivered: u64,
}

/// One lane thread's counters. Writer: that thread.
#[derive(Debug)]
pub struct WorkerCell {
    record: NonNull<WorkerRecord>,
    seq: u64,
    // Keeps what the pointer points at.
    _map: Arc<Mapping>,
}

// SAFETY: the pointers are into `_map`, which is Send + Sync and lives as long as the cell; what they reach
// is atomics and bytes that never change.
unsafe impl Send for RouteCell {}
// SAFETY: as for RouteCell.
unsafe impl Send for WorkerCell {}

impl Page {
    /// Creates the page in this user's [`place`], complete, faulted in and locked as alive.
    ///
    /// # Errors
    /// `AddrInUse` when an instance of that name runs, `PermissionDenied` when there is no place for it, `InvalidInput` when something in `spec` does not fit the layout, else the kernel's.
    pub fn create(spec: &PageSpec) -> io::Result<Page> {
        if !layout::instance_name_ok(&spec.name) {
            return Err(invalid(format!(
                "instance name {:?}: wanted 1 to 31 of A-Z a-z 0-9 . _ -; set `name` in [daemon]",
                spec.name
            )));
        }
        let counts = [
            spec.lanes.len(),
            spec.routes.len(),
            spec.workers.len(),
            spec.processes.len(),
            spec.endpoints.len(),
            spec.routes.len(),
            spec.routes.iter().map(|route| route.ends.len()).sum(),
            spec.workers.len(),
            spec.routes.len(),
        ];
        let (sections, bytes) = layout::sections(counts).map_err(|section| {
            invalid(format!(
                "{counts:?} records: too many {section}; the limits are {:?}",
                layout::COUNTS_MAX
            ))
        })?;
        let dir = place::choose()?;
        let mut draft = Draft::new(&dir, bytes)?;
        fill(draft.bytes_mut(), spec, sections, bytes)?;
        let path = dir.join(place::file_name(&spec.name));
        let published = draft.publish(&path).map_err(|e| refused(e, spec, &path))?;
        // After it is published: of two that start at once in two places, at least one sees the other.
        place::clear_others(&spec.name, &path).map_err(|(e, other)| refused(e, spec, &other))?;
        let mut first = 0;
        let ends = spec.routes.iter().map(|route| {
            let ends = first..first + route.ends.len();
            first = ends.end;
            ends
        });
        let memory = Arc::clone(published.mapping());
        Ok(Page { memory, published, mirror: None, sections, ends: ends.collect() })
    }

    /// The page's file.
    pub fn path(&self) -> &Path {
        self.published.path()
    }

    /// The route's cell; to be handed to exactly one thread.
    ///
    /// # Panics
    /// When the page has no such route.
    pub fn route(&self, index: usize) -> RouteCell {
        let record: &RouteRecord = self.record(layout::ROUTES, index);
        let histogram: &HistogramRecord = self.record(layout::HISTOGRAMS, index);
        let target = |index: usize| {
            let record: &TargetRecord = self.record(layout::TARGETS, index);
            TargetCell { record: record.into(), delivered: record.delivered.load(Ordering::Relaxed) }
        };
        RouteCell {
            record: record.into(),
            // SAFETY: the page's record of this route, kept by its mapping; the cell is its one writer.
            latency: unsafe {
                Recorder::new(histogram.into(), Arc::clone(&self.memory) as Arc<dyn Any + Send + Sync>)
            },
            targets: self.ends[index].clone().map(target).collect(),
            seq: even(record.seq.load(Ordering::Relaxed)),
            _map: Arc::clone(&self.memory),
        }
    }

    /// Where the reports of the receiver at the route's n-th end are shown.
    ///
    /// # Panics
    /// When the page has no such route or the route no such end.
    pub fn claims(&self, route: usize, end: usize) -> ClaimsCell {
        let record: &TargetRecord = self.record(layout::TARGETS, self.ends[route].start + end);
        ClaimsCell { record: record.into(), _map: Arc::clone(&self.memory) }
    }

    /// The worker's cell; to be handed to exactly one thread.
    ///
    /// # Panics
    /// When the page has no such worker.
    pub fn worker(&self, index: usize) -> WorkerCell {
        let record: &WorkerRecord = self.record(layout::WORKERS, index);
        WorkerCell {
            record: record.into(),
            seq: even(record.seq.load(Ordering::Relaxed)),
            _map: Arc::clone(&self.memory),
        }
    }

    /// What the lane did not get ([`super::degraded`]), beside what was said before. Control thread only.
    pub fn add_degraded(&self, lane: usize, bits: u32) {
        self.record::<LaneRecord>(layout::LANES, lane).degraded.fetch_or(bits, Ordering::Relaxed);
    }

    /// Takes back what was said with [`Page::add_degraded`]. Control thread only.
    pub fn remove_degraded(&self, lane: usize, bits: u32) {
        self.record::<LaneRecord>(layout::LANES, lane).degraded.fetch_and(!bits, Ordering::Relaxed);
    }

    /// Whether the watchdog has taken the thread its priority.
    pub fn is_demoted(&self, worker: usize) -> bool {
        Guard::of_words(loaded(&self.record::<GuardRecord>(layout::GUARDS, worker).words)).demoted
    }

    /// Where the watchdog shows a worker; to be handed to that one thread.
    ///
    /// # Panics
    /// When the page has no such worker.
    pub fn guard(&self, worker: usize) -> GuardCell {
        GuardCell::new(self.record::<GuardRecord>(layout::GUARDS, worker), &self.memory)
    }

    /// Messages accepted, delivered and queued, all routes together, as they are at this moment.
    pub fn accounted(&self) -> (u64, u64, u64) {
        let ledgers = (0..self.ends.len()).map(|route| self.ledger(route));
        ledgers.fold((0, 0, 0), |(accepted, delivered, queued), ledger| {
            (accepted + ledger.accepted, delivered + ledger.delivered, queued + ledger.queued)
        })
    }

    /// A route's ledger. Each counter is right, their sum need not be: they may be copied in the middle of an update.
    pub fn ledger(&self, route: usize) -> Ledger {
        let record: &RouteRecord = self.record(layout::ROUTES, route);
        Ledger::of_words(loaded(&record.ledger))
    }

    /// What a route lost at its n-th end, by [`Loss`], and the errno of the last message that the kernel refused there.
    pub fn losses_at(&self, route: usize, end: usize) -> ([u64; Loss::COUNT], i32) {
        let record: &TargetRecord = self.record(layout::TARGETS, self.ends[route].start + end);
        let mut lost: [u64; Loss::COUNT] = std::array::from_fn(|at| record.lost[at].load(Ordering::Relaxed));
        let expired = &mut lost[Loss::Expired.index()];
        *expired = expired.saturating_add(received(record).expired);
        (lost, record.errno.load(Ordering::Relaxed).cast_signed())
    }

    /// What a route lost, by [`Loss`]: what its ledger counts, and what its receivers' libraries report as expired after it
    /// was delivered to their rings. The latter is what those processes say.
    pub fn losses(&self, route: usize) -> [u64; Loss::COUNT] {
        let mut lost = self.ledger(route).losses();
        let expired = &mut lost[Loss::Expired.index()];
        for end in self.ends[route].clone() {
            let record: &TargetRecord = self.record(layout::TARGETS, end);
            *expired = expired.saturating_add(received(record).expired);
        }
        lost
    }

    /// Number of ends of a route.
    pub fn ends(&self, route: usize) -> usize {
        self.ends[route].len()
    }

    /// A route has lost messages in this way, and when: CLOCK_MONOTONIC. Control thread only.
    pub fn set_lost(&self, route: usize, loss: Loss, now_ns: u64) {
        let record: &LossRecord = self.record(layout::LOSSES, route);
        record.last_ns[loss.index()].store(now_ns, Ordering::Relaxed);
    }

    /// Whether some lane does not have all it asked for, from the start or any more.
    pub fn is_degraded(&self) -> bool {
        let lane =
            |index| self.record::<LaneRecord>(layout::LANES, index).degraded.load(Ordering::Relaxed) != 0;
        let demoted = |index| self.is_demoted(index);
        let count = |section: usize| self.sections[section].count as usize;
        (0..count(layout::LANES)).any(lane) || (0..count(layout::GUARDS)).any(demoted)
    }

    /// So many more messages of a route are lost since the instance's last daemon ended. Control thread only.
    ///
    /// # Panics
    /// When the page has no such route.
    pub fn add_lost_in_last_life(&self, route: usize, messages: u64) {
        let lost = &self.record::<RouteRecord>(layout::ROUTES, route).lost_in_last_life;
        let messages = u32::try_from(messages).unwrap_or(u32::MAX);
        lost.store(lost.load(Ordering::Relaxed).saturating_add(messages), Ordering::Relaxed);
    }

    /// The process' state. Control thread only.
    pub fn set_process(&self, process: usize, state: PeerState, pid: i32, uid: u32) {
        let record: &ProcessRecord = self.record(layout::PROCESSES, process);
        let words = [u64::from(state as u32), u64::from(pid.cast_unsigned()), u64::from(uid)];
        write_whole(&record.seq, even(record.seq.load(Ordering::Relaxed)), &record.words, words);
    }

    /// What becomes of a signal to the endpoint's owner. Control thread only.
    pub fn set_reception(&self, endpoint: usize, reception: Reception) {
        let record: &EndpointRecord = self.record(layout::ENDPOINTS, endpoint);
        record.reception.store(reception as u32, Ordering::Relaxed);
    }

    /// Where the refused messages of an endpoint are shown. To be called once for each.
    pub fn refused(&self, endpoint: usize) -> RefusedCell {
        RefusedCell::new(self.record(layout::ENDPOINTS, endpoint), Arc::clone(&self.memory))
    }

    /// What becomes of a signal to the endpoint's owner, as it was set last.
    pub fn reception(&self, endpoint: usize) -> Reception {
        let record: &EndpointRecord = self.record(layout::ENDPOINTS, endpoint);
        Reception::of_word(record.reception.load(Ordering::Relaxed))
    }

    /// The daemon's thread behind a worker cell. Control thread only.
    pub fn set_worker_tid(&self, worker: usize, tid: i32) {
        let record: &WorkerRecord = self.record(layout::WORKERS, worker);
        record.tid.store(tid.cast_unsigned(), Ordering::Relaxed);
    }

    /// All lanes are sealed and running. Control thread only.
    pub fn set_ready(&self, now_ns: u64) {
        let header = self.header();
        header.heartbeat_ns.store(now_ns, Ordering::Relaxed);
        header.ready_ns.store(now_ns, Ordering::Release);
    }

    /// Gives the page a file again if its own was removed; the new file's path. Control thread only.
    pub fn restore(&mut self) -> io::Result<Option<&Path>> {
        if self.published.is_current() {
            return Ok(None);
        }
        let dir = place::choose()?;
        let name = self.published.path().file_name().unwrap_or_default();
        let path = dir.join(name);
        let mut draft = Draft::new(&dir, self.memory.len())?;
        let mut mirror = Mirror::new(&self.sections, self.memory.len());
        mirror.fill(&self.memory, draft.bytes_mut());
        self.published = draft.publish(&path).map_err(|e| match e {
            PublishError::Io(e) => e,
            taken => io::Error::other(format!("{}: {taken}", path.display())),
        })?;
        self.mirror = Some(mirror);
        Ok(Some(self.published.path()))
    }

    /// Sign of life, CLOCK_MONOTONIC, and what the lanes' clock shows at that moment. Control thread, about ten times a
    /// second.
    pub fn heartbeat(&mut self, now_ns: u64, lanes_ns: u64) {
        let header = self.header();
        header.clock_ahead_ns.store(lanes_ns.wrapping_sub(now_ns), Ordering::Relaxed);
        header.heartbeat_ns.store(now_ns, Ordering::Relaxed);
        self.update_mirror();
    }

    fn update_mirror(&mut self) {
        if let Some(mirror) = &mut self.mirror {
            mirror.copy(&self.memory, self.published.mapping());
        }
    }

    fn header(&self) -> &Header {
        // SAFETY: only Header is viewed at 0; its words that change are atomics.
        unsafe { self.memory.view(0) }
    }

    fn record<T: FromBytes>(&self, section: usize, index: usize) -> &T {
        let at = self.sections[section];
        assert_eq!(at.stride as usize, size_of::<T>(), "{}", layout::SECTION_NAMES[section]);
        assert!(index < at.count as usize, "{} of {}: no {index}", layout::SECTION_NAMES[section], at.count);
        #[expect(clippy::cast_possible_truncation, reason = "offset inside a mapping, 64-bit machine")]
        let offset = at.offset as usize + index * at.stride as usize;
        // SAFETY: a section is viewed as its one record type (stride asserted above; private, and each caller
        // names the pair of layout.rs); what is written in those records after publishing are atomics.
        unsafe { self.memory.view(offset) }
    }
}

impl Drop for Page {
    /// The last figures are for readers that keep the file open.
    fn drop(&mut self) {
        self.update_mirror();
    }
}

impl RouteCell {
    /// Publishes the ledger as one consistent whole.
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

    /// Adds what a receiver's library has measured since the last call, of which `seen` is the record.
    pub fn add_latencies(&mut self, measured: &HistogramRecord, seen: &mut Seen) {
        self.latency.add(measured, seen);
    }

    /// Counts a message handed to the route's n-th end at `now_ns`. Before the ledger that includes it is
    /// published, see [`TargetRecord`].
    #[inline]
    pub fn record_delivery(&mut self, end: usize, now_ns: u64) {
        // Every end of the plan has a record; an index of no end would be a defect and is not worth a panic here.
        let Some(target) = self.targets.get(end) else { return };
        self.show_deliveries(end, target.delivered + 1, now_ns);
    }

    /// The same where somebody else delivers and the number is read off: so many by now, the last one seen at
    /// `now_ns`.
    #[inline]
    pub fn show_deliveries(&mut self, end: usize, delivered: u64, now_ns: u64) {
        let Some(target) = self.targets.get_mut(end) else { return };
        if target.delivered == delivered {
            return;
        }
        target.delivered = delivered;
        // SAFETY: points into `_map`, made from a reference in `Page::route`.
        let record = unsafe { target.record.as_ref() };
        record.last_delivery_ns.store(now_ns, Ordering::Relaxed);
        record.delivered.store(target.delivered, Ordering::Relaxed);
    }

    /// Counts a message lost at the route's n-th end. Before the ledger that includes it is published, see
    /// [`TargetRecord`].
    #[cold]
    pub fn record_loss(&mut self, end: usize, loss: Loss) {
        let Some(target) = self.targets.get(end) else { return };
        // SAFETY: points into `_map`, made from a reference in `Page::route`.
        let lost = unsafe { &target.record.as_ref().lost[loss.index()] };
        lost.store(lost.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// Why the kernel refused a message at the route's n-th end.
    #[cold]
    pub fn record_errno(&mut self, end: usize, errno: i32) {
        let Some(target) = self.targets.get(end) else { return };
        // SAFETY: points into `_map`, made from a reference in `Page::route`.
        unsafe { target.record.as_ref() }.errno.store(errno.cast_unsigned(), Ordering::Relaxed);
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
    /// 1. `histogram` points at a record that lives as long as `keep`, is only ever read and written as atomics, and has
    ///    no other writer as long as this one lives.
    pub unsafe fn new(histogram: NonNull<HistogramRecord>, keep: Arc<dyn Any + Send + Sync>) -> Recorder {
        // SAFETY: point 1.
        let record = unsafe { histogram.as_ref() };
        let count = record.count.load(Ordering::Relaxed);
        Recorder {
            histogram,
            count,
            sum_ns: record.sum_ns.load(Ordering::Relaxed),
            min_ns: if count == 0 { u64::MAX } else { record.min_ns.load(Ordering::Relaxed) },
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
        // No sequence here, it would cost as much as the recording: a reader takes the sum of the counts
        // for the count, and bucket bounds when minimum or maximum do not fit the counts yet.
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
        // The last, as others look whether it has changed.
        histogram.count.store(self.count, Ordering::Relaxed);
    }

    /// Adds what another writer, who may write anything, has recorded since the last call. A count that went back adds
    /// nothing; sums saturate.
    fn add(&mut self, measured: &HistogramRecord, seen: &mut Seen) {
        let count = measured.count.load(Ordering::Relaxed);
        if count == seen.count {
            return;
        }
        seen.count = count;
        // SAFETY: point 1 of `new`.
        let histogram = unsafe { self.histogram.as_ref() };
        let mut added: u64 = 0;
        for ((slot, from), seen) in histogram.counts.iter().zip(&measured.counts).zip(&mut seen.counts) {
            let now = from.load(Ordering::Relaxed);
            let more = now.saturating_sub(*seen);
            *seen = now;
            if more > 0 {
                slot.store(slot.load(Ordering::Relaxed).saturating_add(more), Ordering::Relaxed);
                added = added.saturating_add(more);
            }
        }
        let (sum_ns, saturated) =
            (measured.sum_ns.load(Ordering::Relaxed), measured.saturated.load(Ordering::Relaxed));
        self.count = self.count.saturating_add(added);
        self.sum_ns = self.sum_ns.wrapping_add(sum_ns.wrapping_sub(seen.sum_ns));
        self.saturated = self.saturated.saturating_add(saturated.saturating_sub(seen.saturated));
        (seen.sum_ns, seen.saturated) = (sum_ns, saturated);
        self.min_ns = self.min_ns.min(measured.min_ns.load(Ordering::Relaxed));
        self.max_ns = self.max_ns.max(measured.max_ns.load(Ordering::Relaxed));
        self.publish();
    }
}

/// What of another writer's histogram was added already.
#[derive(Debug)]
pub struct Seen {
    count: u64,
    sum_ns: u64,
    saturated: u64,
    counts: Box<[u64]>,
}

impl Seen {
    /// All that is there now.
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
    /// Of an empty one.
    fn default() -> Seen {
        let counts = vec![0; layout::HISTOGRAM_COUNTS].into_boxed_slice();
        Seen { count: 0, sum_ns: 0, saturated: 0, counts }
    }
}

impl ClaimsCell {
    /// Shows them; they only grow.
    pub fn show(&mut self, claims: &Claims) {
        let Claims { expired, superseded, late } = *claims;
        self.update(|shown| ReceiverCounters { expired, superseded, late, ..shown });
    }

    /// Shows how many messages receivers that died had not read; they only grow.
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

    /// Says what the thread had used when it was sealed, once; nothing where the kernel did not say. What /proc shows
    /// for the thread beyond that came after.
    pub fn sealed(&self, usage: Option<&ThreadUsage>) {
        let Some(usage) = usage else { return };
        // SAFETY: points into `_map`, made from a reference in `Page::worker`.
        let words = unsafe { &self.record.as_ref().sealed };
        let ThreadUsage { minor_faults, major_faults, voluntary_switches, involuntary_switches } = *usage;
        let counts = [minor_faults, major_faults, voluntary_switches, involuntary_switches];
        // In no order: a reader waits until none of them is what it was at first.
        for (word, count) in words.iter().zip(counts) {
            word.store(count.cast_unsigned(), Ordering::Relaxed);
        }
    }
}

/// Writes `values` so that a reader takes all of them or knows that it did not; returns the new sequence.
///
/// `seq` is even and only this thread writes it.
#[inline]
pub(super) fn write_whole<const N: usize>(
    seq: &AtomicU64,
    now: u64,
    words: &[AtomicU64; N],
    values: [u64; N],
) -> u64 {
    seq.store(now.wrapping_add(1), Ordering::Relaxed);
    // SYNC POINT with the acquire fence behind the words in `reader::read_whole`: who saw one of the stores
    // below sees the odd number (or a later one) when it reads the sequence again.
    fence(Ordering::Release);
    for (word, value) in words.iter().zip(values) {
        word.store(value, Ordering::Relaxed);
    }
    let whole = now.wrapping_add(2);
    // SYNC POINT with the acquire fence in front of the words in `reader::read_whole`: who saw this number
    // sees the stores above.
    seq.store(whole, Ordering::Release);
    whole
}

/// Words that may be written meanwhile: each is right, their sum need not be.
fn loaded<const N: usize>(words: &[AtomicU64; N]) -> [u64; N] {
    words.each_ref().map(|word| word.load(Ordering::Relaxed))
}

/// What became of the messages in the receiver's ring at one end.
fn received(target: &TargetRecord) -> ReceiverCounters {
    ReceiverCounters::of_words(loaded(&target.receiver))
}

/// A sequence that a cell before this one may have left odd.
pub(super) fn even(seq: u64) -> u64 {
    seq.wrapping_add(seq & 1)
}

fn refused(e: PublishError, spec: &PageSpec, path: &Path) -> io::Error {
    let shown = path.display();
    match e {
        PublishError::Locked => {
            // The page is the other daemon's claim; good enough for a text.
            let pid =
                Reader::open_path(path).map_or_else(|_| "unknown".to_owned(), |page| page.pid().to_string());
            let text = format!(
                "instance \"{}\" is running: pid {pid} holds {shown}; stop it (`kill -TERM {pid}`) or give \
                 this one another `name` in [daemon]",
                spec.name
            );
            io::Error::new(io::ErrorKind::AddrInUse, text)
        }
        PublishError::Foreign(uid) => {
            let text = format!(
                "{shown} belongs to uid {uid}, not to this user; remove it as that user or as root \
                 (`rm {shown}`), or choose another `name` in [daemon]"
            );
            io::Error::new(io::ErrorKind::PermissionDenied, text)
        }
        PublishError::NotAFile => io::Error::new(
            io::ErrorKind::AlreadyExists,
            format!("{shown} is not a regular file and not made by rtd; remove it (`rm -r {shown}`)"),
        ),
        PublishError::Io(e) => e,
    }
}
