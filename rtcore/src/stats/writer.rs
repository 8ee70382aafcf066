//! The daemon's side of the page: create, and write with single-writer stores.
//!
//! Nothing here allocates, locks or calls the kernel after [`Page::create`]; a store is a plain store, no
//! read-modify-write. Records whose words belong together are written under a sequence number, see
//! [`write_whole`].
//!
//! Invariant: each word of the page has one writing thread. The cells take `&mut self` for it; the methods
//! of [`Page`] that write are the control thread's.

use super::layout::{self, EndpointRecord, Header, HistogramRecord, LaneRecord, ProcessRecord};
use super::layout::{RouteRecord, Section, WorkerRecord};
use super::reader::Reader;
use super::{EndpointSpec, EndpointSpecKind, Ledger, PageSpec, WorkerCounters};
use crate::lane::peer::PeerState;
use crate::message::Reject;
use crate::sys::shm::{self, Draft, Mapping, PublishError, Published};
use std::io;
use std::mem::offset_of;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use zerocopy::{FromBytes, IntoBytes};

/// The mapped page. Dropping it removes the name.
///
/// The memory itself stays for as long as a cell is alive.
#[derive(Debug)]
pub struct Page {
    published: Published,
    sections: [Section; layout::SECTIONS],
}

/// One route's counters and histogram. Writer: the thread that reads the route's source.
#[derive(Debug)]
pub struct RouteCell {
    record: NonNull<RouteRecord>,
    histogram: NonNull<HistogramRecord>,
    seq: u64,
    // Copies of words that only this cell writes: the hot path stores them without loading them.
    count: u64,
    sum_ns: u64,
    min_ns: u64,
    max_ns: u64,
    saturated: u64,
    // Keeps what the pointers point at.
    _map: Arc<Mapping>,
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
    /// Creates the page at `/dev/shm/rtd.<name>`, complete, faulted in and locked as alive.
    ///
    /// # Errors
    /// `AddrInUse` when an instance of that name runs, `PermissionDenied` when the name belongs to another
    /// user, `InvalidInput` when something in `spec` does not fit the layout, else the kernel's.
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
        ];
        let (sections, bytes) = layout::sections(counts).map_err(|section| {
            invalid(format!(
                "{counts:?} records: too many {section}; the limits are {:?}",
                layout::COUNTS_MAX
            ))
        })?;
        let mut draft = Draft::new(bytes)?;
        fill(draft.bytes_mut(), spec, sections, bytes)?;
        let path = layout::page_path(&spec.name);
        let published = draft.publish(&path).map_err(|e| refused(e, spec, &path.display().to_string()))?;
        Ok(Page { published, sections })
    }

    /// The route's cell; to be handed to exactly one thread.
    ///
    /// # Panics
    /// When the page has no such route.
    pub fn route(&self, index: usize) -> RouteCell {
        let record: &RouteRecord = self.record(layout::ROUTES, index);
        let histogram: &HistogramRecord = self.record(layout::HISTOGRAMS, index);
        RouteCell {
            record: record.into(),
            histogram: histogram.into(),
            seq: even(record.seq.load(Ordering::Relaxed)),
            count: histogram.count.load(Ordering::Relaxed),
            sum_ns: histogram.sum_ns.load(Ordering::Relaxed),
            min_ns: histogram.min_ns.load(Ordering::Relaxed),
            max_ns: histogram.max_ns.load(Ordering::Relaxed),
            saturated: histogram.saturated.load(Ordering::Relaxed),
            _map: Arc::clone(self.published.mapping()),
        }
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
            _map: Arc::clone(self.published.mapping()),
        }
    }

    /// What the lane did not get ([`super::degraded`]). Control thread only.
    pub fn set_degraded(&self, lane: usize, bits: u32) {
        self.record::<LaneRecord>(layout::LANES, lane).degraded.store(bits, Ordering::Relaxed);
    }

    /// The process' state. Control thread only.
    pub fn set_process(&self, process: usize, state: PeerState, pid: i32, uid: u32) {
        let record: &ProcessRecord = self.record(layout::PROCESSES, process);
        let words = [u64::from(state as u32), u64::from(pid.cast_unsigned()), u64::from(uid)];
        write_whole(&record.seq, even(record.seq.load(Ordering::Relaxed)), &record.words, words);
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

    /// Sign of life, CLOCK_MONOTONIC. Control thread, about ten times a second.
    pub fn heartbeat(&self, now_ns: u64) {
        self.header().heartbeat_ns.store(now_ns, Ordering::Relaxed);
    }

    fn header(&self) -> &Header {
        // SAFETY: only Header is viewed at 0; its words that change are atomics.
        unsafe { self.published.mapping().view(0) }
    }

    fn record<T: FromBytes>(&self, section: usize, index: usize) -> &T {
        let at = self.sections[section];
        assert_eq!(at.stride as usize, size_of::<T>(), "{}", layout::SECTION_NAMES[section]);
        assert!(index < at.count as usize, "{} of {}: no {index}", layout::SECTION_NAMES[section], at.count);
        #[expect(clippy::cast_possible_truncation, reason = "offset inside a mapping, 64-bit machine")]
        let offset = at.offset as usize + index * at.stride as usize;
        // SAFETY: a section is viewed as its one record type (stride asserted above; private, and each caller
        // names the pair of layout.rs); what is written in those records after publishing are atomics.
        unsafe { self.published.mapping().view(offset) }
    }
}

impl RouteCell {
    /// Publishes the ledger as one consistent whole.
    #[inline]
    pub fn publish(&mut self, ledger: &Ledger) {
        let record = self.record();
        let whole = write_whole(&record.seq, self.seq, &record.ledger, ledger_words(ledger));
        self.seq = whole;
    }

    /// Records one dequeue -> delivered time.
    #[inline]
    pub fn record_latency(&mut self, ns: u64) {
        let index = layout::count_index(ns.min(layout::HISTOGRAM_HIGH_NS));
        self.count += 1;
        self.sum_ns = self.sum_ns.wrapping_add(ns);
        self.min_ns = self.min_ns.min(ns);
        self.max_ns = self.max_ns.max(ns);
        self.saturated += u64::from(ns > layout::HISTOGRAM_HIGH_NS);
        // SAFETY: points into `_map`, made from a reference in `Page::route`.
        let histogram = unsafe { self.histogram.as_ref() };
        // No sequence here, it would cost as much as the recording: a reader takes the sum of the counts
        // for the count, and bucket bounds when minimum or maximum do not fit the counts yet.
        if let Some(slot) = histogram.counts.get(index) {
            slot.store(slot.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
        histogram.count.store(self.count, Ordering::Relaxed);
        histogram.sum_ns.store(self.sum_ns, Ordering::Relaxed);
        histogram.min_ns.store(self.min_ns, Ordering::Relaxed);
        histogram.max_ns.store(self.max_ns, Ordering::Relaxed);
        histogram.saturated.store(self.saturated, Ordering::Relaxed);
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

impl WorkerCell {
    /// Publishes the worker's counters.
    #[inline]
    pub fn publish(&mut self, counters: &WorkerCounters) {
        // SAFETY: points into `_map`, made from a reference in `Page::worker`.
        let record = unsafe { self.record.as_ref() };
        let WorkerCounters { received, duty_max_ns, wakeups, errors, events_lost, allocations } = *counters;
        let words = [received, duty_max_ns, wakeups, errors, events_lost, allocations];
        self.seq = write_whole(&record.seq, self.seq, &record.counters, words);
    }
}

/// Writes `values` so that a reader takes all of them or knows that it did not; returns the new sequence.
///
/// `seq` is even and only this thread writes it.
#[inline]
fn write_whole<const N: usize>(seq: &AtomicU64, now: u64, words: &[AtomicU64; N], values: [u64; N]) -> u64 {
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

/// A sequence that a cell before this one may have left odd.
fn even(seq: u64) -> u64 {
    seq.wrapping_add(seq & 1)
}

fn ledger_words(ledger: &Ledger) -> [u64; layout::LEDGER_WORDS] {
    let Ledger { accepted, delivered, expired, displaced, rejected, peer_dead, queued, deadline_misses } =
        *ledger;
    let mut words = [0; layout::LEDGER_WORDS];
    words[..4].copy_from_slice(&[accepted, delivered, expired, displaced]);
    words[4..4 + Reject::COUNT].copy_from_slice(&rejected);
    words[4 + Reject::COUNT..].copy_from_slice(&[peer_dead, queued, deadline_misses]);
    words
}

/// The inverse of [`ledger_words`]; beside it so that they change together.
pub(super) fn ledger_of(words: [u64; layout::LEDGER_WORDS]) -> Ledger {
    let [accepted, delivered, expired, displaced, rest @ ..] = words;
    let [rejected @ .., peer_dead, queued, deadline_misses] = rest;
    Ledger { accepted, delivered, expired, displaced, rejected, peer_dead, queued, deadline_misses }
}

/// The inverse of the words of [`WorkerCell::publish`].
pub(super) fn worker_of(words: [u64; layout::WORKER_WORDS]) -> WorkerCounters {
    let [received, duty_max_ns, wakeups, errors, events_lost, allocations] = words;
    WorkerCounters { received, duty_max_ns, wakeups, errors, events_lost, allocations }
}

/// Writes everything that does not change, and the first values of what does.
fn fill(
    page: &mut [u8],
    spec: &PageSpec,
    sections: [Section; layout::SECTIONS],
    bytes: usize,
) -> io::Result<()> {
    put(page, 0, header_record(spec, sections, bytes)?)?;
    let at =
        |section: usize, index: usize| sections[section].offset + (layout::STRIDES[section] * index) as u64;
    for (i, lane) in spec.lanes.iter().enumerate() {
        let record = LaneRecord {
            name: text("lane name", &lane.name)?,
            wait: text("lane wait strategy", &lane.wait)?,
            priority: lane.priority.into(),
            cpu: lane.cpu,
            degraded: 0.into(),
            reserved: 0,
        };
        put(page, at(layout::LANES, i), record)?;
    }
    for (i, route) in spec.routes.iter().enumerate() {
        let record = RouteRecord {
            seq: 0.into(),
            ledger: zeros(),
            lane: route.lane,
            from: route.from,
            name: text("route name", &route.name)?,
            to: text("targets of a route", cut(&route.to, layout::TO_BYTES))?,
            padding: [0; _],
        };
        put(page, at(layout::ROUTES, i), record)?;
        // The other words of an empty histogram are the zeros of a new file.
        put(page, at(layout::HISTOGRAMS, i) + offset_of!(HistogramRecord, min_ns) as u64, u64::MAX)?;
    }
    for (i, worker) in spec.workers.iter().enumerate() {
        let record = WorkerRecord {
            seq: 0.into(),
            counters: zeros(),
            tid: 0.into(),
            lane: worker.lane,
            name: text("worker name", &worker.name)?,
            padding: [0; _],
        };
        put(page, at(layout::WORKERS, i), record)?;
    }
    for (i, name) in spec.processes.iter().enumerate() {
        let words = [u64::from(PeerState::Unregistered as u32), 0, u64::from(u32::MAX)].map(AtomicU64::new);
        let record = ProcessRecord { seq: 0.into(), words, name: text("process name", name)? };
        put(page, at(layout::PROCESSES, i), record)?;
    }
    for (i, endpoint) in spec.endpoints.iter().enumerate() {
        put(page, at(layout::ENDPOINTS, i), endpoint_record(endpoint)?)?;
    }
    Ok(())
}

fn header_record(spec: &PageSpec, sections: [Section; layout::SECTIONS], bytes: usize) -> io::Result<Header> {
    let start_ns = shm::heartbeat_clock_ns();
    let unix = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Ok(Header {
        magic: layout::MAGIC,
        version: layout::VERSION,
        header_bytes: u32::try_from(size_of::<Header>()).map_err(io::Error::other)?,
        total_bytes: bytes as u64,
        sections,
        histogram_counts: u32::try_from(layout::HISTOGRAM_COUNTS).map_err(io::Error::other)?,
        histogram_digits: layout::HISTOGRAM_DIGITS.into(),
        histogram_high_ns: layout::HISTOGRAM_HIGH_NS,
        pid: std::process::id(),
        reserved: 0,
        start_ns,
        start_unix_ns: u64::try_from(unix.as_nanos()).unwrap_or(0),
        ready_ns: AtomicU64::new(0),
        heartbeat_ns: AtomicU64::new(start_ns),
        instance: text("instance name", &spec.name)?,
        socket: text("control socket", &spec.socket)?,
        rtd_version: text("version", env!("CARGO_PKG_VERSION"))?,
        padding: [0; _],
    })
}

fn endpoint_record(endpoint: &EndpointSpec) -> io::Result<EndpointRecord> {
    let flag = |on: bool, bit: u32| if on { bit } else { 0 };
    let mut record = EndpointRecord {
        name: text("endpoint name", &endpoint.name)?,
        queue: [0; _],
        owner: endpoint.owner.unwrap_or(layout::NONE),
        flags: flag(endpoint.is_source, layout::ENDPOINT_SOURCE)
            | flag(endpoint.is_sink, layout::ENDPOINT_SINK),
        kind: layout::KIND_SIGNAL,
        signo: 0,
        maxmsg: 0,
        msgsize: 0,
        padding: [0; _],
    };
    match &endpoint.kind {
        EndpointSpecKind::Mqueue { queue, maxmsg, msgsize } => {
            record.kind = layout::KIND_MQUEUE;
            record.queue = text("queue name", queue)?;
            (record.maxmsg, record.msgsize) = (*maxmsg, *msgsize);
        }
        EndpointSpecKind::Signal { signo, to_thread } => {
            record.signo = *signo;
            record.flags |= flag(*to_thread, layout::ENDPOINT_TO_THREAD);
        }
    }
    Ok(record)
}

fn put<T: IntoBytes + FromBytes>(page: &mut [u8], at: u64, mut record: T) -> io::Result<()> {
    let at = usize::try_from(at).map_err(io::Error::other)?;
    let room = page.get_mut(at..at + size_of::<T>());
    room.ok_or_else(|| io::Error::other("a record outside its page"))?.copy_from_slice(record.as_mut_bytes());
    Ok(())
}

fn zeros<const N: usize>() -> [AtomicU64; N] {
    std::array::from_fn(|_| AtomicU64::new(0))
}

/// A name as the page holds it; names are never cut, because tools find things by them.
fn text<const N: usize>(what: &str, name: &str) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    match bytes.get_mut(..name.len()) {
        Some(room) => room.copy_from_slice(name.as_bytes()),
        None => return Err(invalid(format!("{what} {name:?} has {} bytes, the limit is {N}", name.len()))),
    }
    Ok(bytes)
}

/// As much of a list for human eyes as fits.
fn cut(text: &str, bytes_max: usize) -> &str {
    let end = (0..=bytes_max.min(text.len())).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    &text[..end]
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

fn refused(e: PublishError, spec: &PageSpec, path: &str) -> io::Error {
    match e {
        PublishError::Locked => {
            // The page is the other daemon's claim; good enough for a text.
            let pid =
                Reader::open(&spec.name).map_or_else(|_| "unknown".to_owned(), |page| page.pid().to_string());
            io::Error::new(
                io::ErrorKind::AddrInUse,
                format!(
                    "instance \"{}\" is running: pid {pid} holds {path}; stop it (`kill -TERM {pid}`) or give this \
                     one another `name` in [daemon]",
                    spec.name
                ),
            )
        }
        PublishError::Foreign(uid) => io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!(
                "{path} belongs to uid {uid}, not to this user; remove it as uid {uid} or as root (`rm {path}`), or \
                 choose another `name` in [daemon]"
            ),
        ),
        PublishError::NotAFile => io::Error::new(
            io::ErrorKind::AlreadyExists,
            format!("{path} is not a regular file and not made by rtd; remove it (`rm -r {path}`)"),
        ),
        PublishError::Io(e) => e,
    }
}
