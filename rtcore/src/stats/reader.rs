//! The reader's side of the page: validate, copy, snapshot.
//!
//! Nothing in the page is trusted: the owner of the file can write anything. Its header is checked
//! before each snapshot against constants of this version and the file's real size; everything is
//! copied with pread(2), so a file that shrinks meanwhile causes an error, where a mapping would
//! cause SIGBUS. The reader takes no lock and writes nothing: reading works the same when the
//! daemon is running, stopped, hung or killed, and costs it nothing.
//!
//! Invariant: no page content makes anything here panic or read beyond the file.

use super::latency::{Extremes, Latency};
use super::layout::{
    self, EndpointRecord, Header, LaneRecord, ProcessRecord, RouteRecord, Section,
};
use super::layout::{GuardRecord, LossRecord, TargetRecord, WorkerRecord};
use super::place;
use super::{Guard, Ledger, ReceiverCounters, WorkerCounters, degraded};
use crate::endpoint::Shown;
use crate::lane::peer::{PeerState, Reception};
use crate::sys::clock::{monotonic_ns, monotonic_offset_ns};
use crate::sys::memory::ThreadUsage;
use crate::sys::printable::printable;
use crate::sys::shm::{FileId, Shared};
use std::io;
use std::mem::offset_of;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::time::Duration;
use zerocopy::FromBytes;

pub use super::latency::LatencySummary;
pub use super::place::instances;
pub use super::snapshot::{
    DaemonState, Diff, Endpoint, Lane, LossTimes, Process, Route, Snapshot, TargetStats, Worker,
};

/// A daemon that holds its page but whose heartbeat is older than this is hung.
pub const HEARTBEAT_AGE_MAX_NS: u64 = 1_000_000_000;
/// The largest record that is copied to the stack; histograms are not.
const RECORD_BYTES_MAX: usize = 512;
/// Attempts to copy a record between two updates, one right after the other. An attempt is three
/// system calls, about a microsecond.
const ATTEMPTS_MAX: usize = 10;
/// Limit of the waits of a read for a writer that was preempted in the middle of an update. All
/// records of the read share it: a page whose records are never whole, because its daemon was
/// killed or because no daemon wrote it, must not delay its reader once for each record.
const WAITS_MAX: usize = 100;
/// The last of these waits are pauses: a writer that was preempted by a higher lane, or with its
/// whole virtual CPU, needs longer than all the others together.
const PAUSES: usize = 25;
const PAUSE: Duration = Duration::from_millis(1);

/// Number of waits that are left for one read.
struct Patience(usize);

impl Patience {
    fn new() -> Patience {
        Patience(WAITS_MAX)
    }

    /// Gives a writer time; false if no waits are left.
    fn wait(&mut self) -> bool {
        match self.0 {
            0 => return false,
            // On one CPU a real-time writer has already continued by itself; an ordinary one needs
            // the CPU.
            left if left > PAUSES => std::thread::yield_now(),
            _ => std::thread::sleep(PAUSE),
        }
        self.0 -= 1;
        true
    }
}

/// Why a page cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The name is not a valid instance name.
    #[error("instance name {0:?}: expected 1 to 31 of A-Z a-z 0-9 . _ -")]
    Name(String),
    /// No daemon of this name has run since the machine started, or it ended properly.
    #[error("no statistics page of instance \"{instance}\" in {places}")]
    NoInstance {
        instance: String,
        /// Directories that were searched.
        places: String,
    },
    /// The file does not exist.
    #[error("no statistics page {}", .0.display())]
    Absent(PathBuf),
    /// The file exists and cannot be opened or read.
    #[error("cannot read statistics page {}: {source}", path.display())]
    Io {
        path: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// The page belongs to a daemon of another version.
    #[error(
        "statistics page {} has layout version {}, this program reads {}: use the daemon's own rtctl",
        path.display(), layout::version_name(*found), layout::version_name(layout::VERSION)
    )]
    Version {
        path: PathBuf,
        /// The page's version, as [`layout::VERSION`].
        found: u32,
    },
    /// The file is not a page, or is damaged.
    #[error("{} is not a statistics page: {what}", path.display())]
    Invalid {
        path: PathBuf,
        /// The fault, with the value.
        what: String,
    },
}

/// An open page.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    shared: Shared,
    pid: u32,
}

/// The data that a program needs to connect to an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Path of the control socket.
    pub socket: String,
    /// Owner of the page.
    pub uid: u32,
    /// State of the daemon.
    pub state: DaemonState,
}

impl Reader {
    /// Opens and checks the page of an instance.
    pub fn open(name: &str) -> Result<Reader, ReadError> {
        place::find(name)
    }

    /// Opens and checks a page at any path, for instance a copy.
    pub fn open_path(path: &Path) -> Result<Reader, ReadError> {
        let shared = Shared::open(path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => ReadError::Absent(path.to_owned()),
            _ => ReadError::Io {
                path: path.to_owned(),
                source,
            },
        })?;
        let mut reader = Reader {
            path: path.to_owned(),
            shared,
            pid: 0,
        };
        reader.pid = reader.header()?.pid;
        Ok(reader)
    }

    /// The page's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The daemon's process id, by the page.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether the instance's name still leads to this page; false after the daemon was replaced or
    /// ended.
    pub fn is_current(&self) -> bool {
        FileId::at(&self.path).is_ok_and(|id| id == Some(self.shared.id()))
    }

    /// The current state of the daemon: running, hung or gone.
    pub fn daemon_state(&self) -> Result<DaemonState, ReadError> {
        let header = self.header()?;
        self.state(header.heartbeat_ns.load(Ordering::Relaxed), now_ns(&header))
    }

    /// The daemon's socket and the owner of the page: one read, for any content of the page.
    pub fn address(&self) -> Result<Address, ReadError> {
        let header = self.header()?;
        let heartbeat_ns = header.heartbeat_ns.load(Ordering::Relaxed);
        let state = self.state(heartbeat_ns, now_ns(&header))?;
        Ok(Address {
            socket: text_of(&header.socket),
            uid: self.shared.uid(),
            state,
        })
    }

    fn state(&self, heartbeat_ns: u64, now_ns: u64) -> Result<DaemonState, ReadError> {
        if !self.shared.owner_alive().map_err(|e| self.io(e))? {
            return Ok(DaemonState::Stopped);
        }
        let fresh = now_ns.saturating_sub(heartbeat_ns) <= HEARTBEAT_AGE_MAX_NS;
        Ok(if fresh {
            DaemonState::Running
        } else {
            DaemonState::Hung
        })
    }

    /// Only a route's ledger, for a caller that polls.
    ///
    /// Errors include a route that the page does not have.
    pub fn ledger(&self, route: usize) -> Result<Ledger, ReadError> {
        let header = self.header()?;
        let at = self.place_of(&header, layout::ROUTES, route)?;
        let (words, _) =
            self.read_whole(at, offset_of!(RouteRecord, ledger), &mut Patience::new())?;
        Ok(Ledger::of_words(words))
    }

    /// Only the number of messages that a lane thread has taken from its sources.
    pub fn received(&self, worker: usize) -> Result<u64, ReadError> {
        let header = self.header()?;
        let at = self.place_of(&header, layout::WORKERS, worker)?;
        let (words, _) =
            self.read_whole(at, offset_of!(WorkerRecord, counters), &mut Patience::new())?;
        Ok(WorkerCounters::of_words(words).received)
    }

    /// Copies everything. Each record is consistent in itself; records follow each other by
    /// microseconds.
    pub fn snapshot(&self) -> Result<Snapshot, ReadError> {
        let header = self.header()?;
        let taken_ns = now_ns(&header);
        let heartbeat_ns = header.heartbeat_ns.load(Ordering::Relaxed);
        let count = |section: usize| header.sections[section].count as usize;
        let mut patience = Patience::new();
        let mut routes = self.routes(&header, &mut patience)?;
        // Read after the ledgers: a target has counted every message that its route's ledger counts
        // as delivered.
        self.targets(&header, &mut routes)?;
        let workers = self.workers(&header, &mut patience)?;
        let mut lanes = Vec::with_capacity(count(layout::LANES));
        for i in 0..count(layout::LANES) {
            let record: LaneRecord = self.record(&header, layout::LANES, i)?;
            lanes.push(lane(record, i, &routes, &workers));
        }
        let ready_ns = header.ready_ns.load(Ordering::Relaxed);
        Ok(Snapshot {
            instance: text_of(&header.instance),
            socket: text_of(&header.socket),
            rtd_version: text_of(&header.rtd_version),
            skin: text_of(&header.skin),
            private_namespace: header.flags & layout::PRIVATE_NAMESPACE != 0,
            pid: header.pid,
            uid: self.shared.uid(),
            state: self.state(heartbeat_ns, taken_ns)?,
            taken_ns,
            start_ns: header.start_ns,
            start_unix_ns: header.start_unix_ns,
            ready_ns: (ready_ns != 0).then_some(ready_ns),
            heartbeat_ns,
            ipc_namespace: header.ipc_namespace,
            pid_namespace: header.pid_namespace,
            lanes,
            routes,
            workers,
            processes: (0..count(layout::PROCESSES))
                .map(|i| self.process(&header, i, &mut patience))
                .collect::<Result<_, _>>()?,
            endpoints: (0..count(layout::ENDPOINTS))
                .map(|i| self.endpoint(&header, i))
                .collect::<Result<_, _>>()?,
        })
    }

    fn routes(&self, header: &Header, patience: &mut Patience) -> Result<Vec<Route>, ReadError> {
        let sections = &header.sections;
        let index = |i: u32, section: usize| (i < sections[section].count).then_some(i as usize);
        let mut routes = Vec::with_capacity(sections[layout::ROUTES].count as usize);
        let mut histogram = vec![0; layout::STRIDES[layout::HISTOGRAMS]];
        for i in 0..sections[layout::ROUTES].count as usize {
            let at = place(&sections[layout::ROUTES], i);
            let record: RouteRecord = self.record(header, layout::ROUTES, i)?;
            let (words, consistent) =
                self.read_whole(at, offset_of!(RouteRecord, ledger), patience)?;
            routes.push(Route {
                name: text_of(&record.name),
                lane: index(record.lane, layout::LANES),
                from: index(record.from, layout::ENDPOINTS),
                to: text_of(&record.to),
                direct: record.flags & layout::ROUTE_DIRECT != 0,
                targets: Vec::new(),
                ledger: Ledger::of_words(words),
                lost_in_last_life: record.lost_in_last_life.load(Ordering::Relaxed).into(),
                losses: self.losses(header, i)?,
                latency: self.latency(place(&sections[layout::HISTOGRAMS], i), &mut histogram)?,
                consistent,
            });
        }
        Ok(routes)
    }

    fn losses(&self, header: &Header, route: usize) -> Result<LossTimes, ReadError> {
        let record: LossRecord = self.record(header, layout::LOSSES, route)?;
        let time = |ns: AtomicU64| Some(ns.into_inner()).filter(|&ns| ns != 0);
        Ok(LossTimes {
            last_ns: record.last_ns.map(time),
        })
    }

    /// Gives each route its targets; a target with an invalid route is ignored.
    fn targets(&self, header: &Header, routes: &mut [Route]) -> Result<(), ReadError> {
        let endpoints = header.sections[layout::ENDPOINTS].count;
        let ahead_ns = header.clock_ahead_ns.load(Ordering::Relaxed);
        for i in 0..header.sections[layout::TARGETS].count as usize {
            let record: TargetRecord = self.record(header, layout::TARGETS, i)?;
            let Some(route) = routes.get_mut(record.route as usize) else {
                continue;
            };
            let last_ns = record.last_delivery_ns.into_inner();
            route.targets.push(TargetStats {
                endpoint: (record.endpoint < endpoints).then_some(record.endpoint as usize),
                delivered: record.delivered.into_inner(),
                last_ns: (last_ns != 0)
                    .then(|| last_ns.wrapping_sub(if route.direct { 0 } else { ahead_ns })),
                lost: record.lost.map(AtomicU64::into_inner),
                receiver: ReceiverCounters::of_words(record.receiver.map(AtomicU64::into_inner)),
            });
        }
        Ok(())
    }

    fn latency(&self, at: u64, bytes: &mut [u8]) -> Result<Latency, ReadError> {
        self.read(at, bytes)?;
        let (head, counts) = bytes.split_at(layout::COUNTS_OFFSET);
        let word = |offset: usize| head.get(offset..offset + 8).map_or(0, word);
        let min_ns = word(offset_of!(layout::HistogramRecord, min_ns));
        let max_ns = word(offset_of!(layout::HistogramRecord, max_ns));
        let said = Extremes {
            sum_ns: word(offset_of!(layout::HistogramRecord, sum_ns)),
            min_ns: (min_ns <= max_ns).then_some(min_ns),
            max_ns: Some(max_ns),
            saturated: word(offset_of!(layout::HistogramRecord, saturated)),
        };
        Ok(Latency::new(words(counts), said))
    }

    fn workers(&self, header: &Header, patience: &mut Patience) -> Result<Vec<Worker>, ReadError> {
        let section = &header.sections[layout::WORKERS];
        let mut workers = Vec::with_capacity(section.count as usize);
        for i in 0..section.count as usize {
            let record: WorkerRecord = self.record(header, layout::WORKERS, i)?;
            let (words, consistent) = self.read_whole(
                place(section, i),
                offset_of!(WorkerRecord, counters),
                patience,
            )?;
            let guard = place(&header.sections[layout::GUARDS], i);
            let (guard, _) = self.read_whole(guard, offset_of!(GuardRecord, words), patience)?;
            let in_bounds = record.lane < header.sections[layout::LANES].count;
            workers.push(Worker {
                name: text_of(&record.name),
                lane: in_bounds.then_some(record.lane as usize),
                tid: record.tid.into_inner(),
                counters: WorkerCounters::of_words(words),
                sealed_at: sealed(
                    self.read_words(place(section, i) + offset_of!(WorkerRecord, sealed) as u64)?,
                ),
                guard: Guard::of_words(guard),
                consistent,
            });
        }
        Ok(workers)
    }

    fn process(
        &self,
        header: &Header,
        i: usize,
        patience: &mut Patience,
    ) -> Result<Process, ReadError> {
        let record: ProcessRecord = self.record(header, layout::PROCESSES, i)?;
        let at = place(&header.sections[layout::PROCESSES], i);
        let ([state, pid, uid], _) =
            self.read_whole(at, offset_of!(ProcessRecord, words), patience)?;
        let state = match state {
            1 => PeerState::Alive,
            2 => PeerState::Dead,
            _ => PeerState::Unregistered,
        };
        let uid = u32::try_from(uid).ok().filter(|&uid| uid != u32::MAX);
        Ok(Process {
            name: text_of(&record.name),
            state,
            pid: u32::try_from(pid).unwrap_or(0),
            uid,
        })
    }

    fn endpoint(&self, header: &Header, i: usize) -> Result<Endpoint, ReadError> {
        let record: EndpointRecord = self.record(header, layout::ENDPOINTS, i)?;
        let flag = |bit: u32| record.flags & bit != 0;
        let kind = Shown::read(&record);
        let owned = record.owner < header.sections[layout::PROCESSES].count;
        Ok(Endpoint {
            name: text_of(&record.name),
            owner: owned.then_some(record.owner as usize),
            is_source: flag(layout::ENDPOINT_SOURCE),
            is_sink: flag(layout::ENDPOINT_SINK),
            reception: Reception::of_word(record.reception.into_inner()),
            refused: record.refused.map(AtomicU64::into_inner),
            kind,
        })
    }

    /// Reads and checks the header: afterwards every record of every section is inside the file,
    /// and every stride is that of this version's record.
    fn header(&self) -> Result<Header, ReadError> {
        let file_bytes = self.shared.current_len().map_err(|e| self.io(e))?;
        if file_bytes < size_of::<Header>() as u64 {
            return Err(self.invalid(format!(
                "it has {file_bytes} bytes, a header has {}",
                size_of::<Header>()
            )));
        }
        let mut bytes = [0; size_of::<Header>()];
        self.read(0, &mut bytes)?;
        let header: Header = zerocopy::transmute!(bytes);
        if header.magic != layout::MAGIC {
            return Err(self.invalid(format!(
                "it starts with {:#018x}, not {:#018x}",
                header.magic,
                layout::MAGIC
            )));
        }
        if header.version != layout::VERSION {
            return Err(ReadError::Version {
                path: self.path.clone(),
                found: header.version,
            });
        }
        if header.total_bytes != file_bytes {
            return Err(self.invalid(format!(
                "it has {file_bytes} bytes and says {}",
                header.total_bytes
            )));
        }
        let shape = (
            header.header_bytes as usize,
            header.histogram_counts as usize,
            header.histogram_high_ns,
        );
        let ours = (
            size_of::<Header>(),
            layout::HISTOGRAM_COUNTS,
            layout::HISTOGRAM_HIGH_NS,
        );
        if shape != ours || header.histogram_digits != layout::HISTOGRAM_DIGITS.into() {
            return Err(self.invalid(format!(
                "its header or histograms have the shape {shape:?}, not {ours:?}"
            )));
        }
        for (i, section) in header.sections.iter().enumerate() {
            self.check_section(i, section, file_bytes)?;
        }
        if header.sections[layout::HISTOGRAMS].count != header.sections[layout::ROUTES].count {
            return Err(self.invalid("it has not one histogram per route".to_owned()));
        }
        if header.sections[layout::LOSSES].count != header.sections[layout::ROUTES].count {
            return Err(self.invalid("it has not one record of losses per route".to_owned()));
        }
        if header.sections[layout::GUARDS].count != header.sections[layout::WORKERS].count {
            return Err(self.invalid("it has not one guard per lane thread".to_owned()));
        }
        Ok(header)
    }

    fn check_section(&self, i: usize, section: &Section, file_bytes: u64) -> Result<(), ReadError> {
        let name = layout::SECTION_NAMES[i];
        if section.stride as usize != layout::STRIDES[i]
            || section.count as usize > layout::COUNTS_MAX[i]
        {
            return Err(self.invalid(format!(
                "section {name} has {} records of {} bytes; wanted at most {} of {}",
                section.count,
                section.stride,
                layout::COUNTS_MAX[i],
                layout::STRIDES[i]
            )));
        }
        // At most 4096 x 28,800 after the check above: no overflow.
        let bytes = u64::from(section.stride) * u64::from(section.count);
        let end = section.offset.checked_add(bytes);
        if section.offset < size_of::<Header>() as u64 || end.is_none_or(|end| end > file_bytes) {
            return Err(self.invalid(format!(
                "section {name} starts at {} with {bytes} bytes, outside the file's {file_bytes}",
                section.offset
            )));
        }
        Ok(())
    }

    fn record<T: FromBytes>(
        &self,
        header: &Header,
        section: usize,
        i: usize,
    ) -> Result<T, ReadError> {
        let mut bytes = [0; RECORD_BYTES_MAX];
        let bytes = &mut bytes[..size_of::<T>()];
        self.read(place(&header.sections[section], i), bytes)?;
        T::read_from_bytes(bytes).map_err(|_| self.invalid("a record has another size".to_owned()))
    }

    /// Copies words that belong together; false if they could not be copied consistently: each word
    /// is then right, but their sum need not be.
    ///
    /// `record` starts with the sequence number, the words are at `offset` in it. The kernel may
    /// copy in any order inside one call, and the number itself byte by byte. An odd low byte is
    /// seen in any case, and because numbers only grow, a torn number read before the words is
    /// lower than any read after them.
    fn read_whole<const N: usize>(
        &self,
        record: u64,
        offset: usize,
        patience: &mut Patience,
    ) -> Result<([u64; N], bool), ReadError> {
        let mut attempts = 0;
        loop {
            let [before] = self.read_words(record)?;
            // SYNC POINT with the release store of the sequence in `writer::write_whole`.
            fence(Ordering::Acquire);
            let values = self.read_words(record + offset as u64)?;
            // SYNC POINT with the release fence in `writer::write_whole`.
            fence(Ordering::Acquire);
            let [after] = self.read_words(record)?;
            if before == after && before % 2 == 0 {
                return Ok((values, true));
            }
            attempts += 1;
            if attempts >= ATTEMPTS_MAX && !patience.wait() {
                return Ok((values, false));
            }
        }
    }

    fn place_of(&self, header: &Header, section: usize, i: usize) -> Result<u64, ReadError> {
        let records = &header.sections[section];
        if i >= records.count as usize {
            let name = layout::SECTION_NAMES[section];
            return Err(self.invalid(format!("it has {} {name}, no number {i}", records.count)));
        }
        Ok(place(records, i))
    }

    fn read_words<const N: usize>(&self, at: u64) -> Result<[u64; N], ReadError> {
        let mut bytes = [[0u8; 8]; N];
        self.read(at, bytes.as_flattened_mut())?;
        Ok(bytes.map(u64::from_ne_bytes))
    }

    fn read(&self, at: u64, bytes: &mut [u8]) -> Result<(), ReadError> {
        self.shared.read_at(bytes, at).map_err(|e| self.io(e))
    }

    fn io(&self, source: io::Error) -> ReadError {
        ReadError::Io {
            path: self.path.clone(),
            source,
        }
    }

    fn invalid(&self, what: String) -> ReadError {
        ReadError::Invalid {
            path: self.path.clone(),
            what,
        }
    }
}

/// The current time on the clock of the daemon's time namespace: a container can have its own,
/// whose CLOCK_MONOTONIC differs.
fn now_ns(header: &Header) -> u64 {
    let offset_ns = header
        .monotonic_offset_ns
        .cast_signed()
        .wrapping_sub(monotonic_offset_ns());
    monotonic_ns().saturating_add_signed(offset_ns)
}

fn lane(record: LaneRecord, index: usize, routes: &[Route], workers: &[Worker]) -> Lane {
    let mut lane = Lane {
        name: text_of(&record.name),
        priority: record.priority,
        cpu: record.cpu,
        wait: text_of(&record.wait),
        degraded_bits: record.degraded.into_inner(),
        ledger: Ledger::default(),
        losses: LossTimes::default(),
        latency: Latency::default(),
        counters: WorkerCounters::default(),
        is_confined: record.flags & layout::LANE_CONFINED != 0,
        guard: Guard::default(),
        consistent: true,
    };
    for route in routes.iter().filter(|route| route.lane == Some(index)) {
        lane.ledger.merge(&route.ledger);
        // The reports of receivers of direct routes are not latencies of the lane's threads.
        if !route.direct {
            lane.latency.merge(&route.latency);
        }
        lane.losses.merge(&route.losses);
        lane.consistent &= route.consistent;
    }
    for worker in workers.iter().filter(|worker| worker.lane == Some(index)) {
        lane.counters.merge(&worker.counters);
        lane.guard.merge(&worker.guard);
    }
    lane.degraded_bits |= if lane.guard.demoted {
        degraded::DEMOTED
    } else {
        0
    };
    lane
}

/// The usage that [`writer::WorkerCell::sealed`] wrote; none while any of it is missing.
fn sealed(words: [u64; layout::SEALED_WORDS]) -> Option<ThreadUsage> {
    let count = |word: u64| i64::try_from(word).ok();
    let [minor, major, voluntary, involuntary] = words.map(count);
    Some(ThreadUsage {
        minor_faults: minor?,
        major_faults: major?,
        voluntary_switches: voluntary?,
        involuntary_switches: involuntary?,
    })
}

/// Offset of record `i`; `check_section` has bounded it.
fn place(section: &Section, i: usize) -> u64 {
    section.offset + u64::from(section.stride) * i as u64
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    bytes.chunks_exact(8).map(word)
}

/// Eight bytes as a number; anything else is 0.
fn word(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_ne_bytes)
}

/// A name up to its padding, safe to print; bytes that are not UTF-8 show as U+FFFD.
pub(crate) fn text_of(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    printable(&String::from_utf8_lossy(&bytes[..end]))
}

// The room in `record`.
const _: () = assert!(
    size_of::<RouteRecord>() <= RECORD_BYTES_MAX && size_of::<EndpointRecord>() <= RECORD_BYTES_MAX
);
const _: () = assert!(
    size_of::<WorkerRecord>() <= RECORD_BYTES_MAX && size_of::<TargetRecord>() <= RECORD_BYTES_MAX
);
