//! The daemon's side of the page: create, and write with single-writer stores.
//!
//! Nothing here allocates, locks or calls the kernel after [`Page::create`]; a store is a plain
//! store, no read-modify-write.
//!
//! **Invariant:** each word of the page has one writing thread: that of its cell
//! ([`super::cells`]), or the control thread, which calls the methods of [`Page`] that write.

use super::cells::{
    ClaimsCell, Recorder, RouteCell, TargetCell, WorkerCell, even, loaded, received, write_whole,
};
use super::fill::{fill, invalid};
use super::guard::GuardCell;
use super::layout::{
    self, Header, HistogramRecord, LaneRecord, ProcessRecord, RouteRecord, Section,
};
use super::layout::{EndpointRecord, GuardRecord, LossRecord, TargetRecord, WorkerRecord};
use super::loss::Loss;
use super::mirror::Mirror;
use super::place;
use super::reader::Reader;
pub use super::refused::RefusedCell;
use super::{Guard, Ledger, PageSpec};
use crate::lane::peer::{PeerState, Reception};
use crate::sys::shm::{Draft, Mapping, PublishError, Published};
use std::any::Any;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
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

impl Page {
    /// Creates the page in this user's [`place`], complete, faulted in and locked as alive.
    ///
    /// # Errors
    /// `AddrInUse` when an instance of that name runs, `PermissionDenied` when there is no place
    /// for it, `InvalidInput` when something in `spec` does not fit the layout, else the kernel's.
    pub fn create(spec: &PageSpec) -> io::Result<Page> {
        if !layout::instance_name_ok(&spec.name) {
            return Err(invalid(format!(
                "instance name {:?}: expected 1 to 31 of A-Z a-z 0-9 . _ -; set `name` in [daemon]",
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
        // After it is published: of two that start at once in two places, at least one sees the
        // other.
        place::clear_others(&spec.name, &path).map_err(|(e, other)| refused(e, spec, &other))?;
        let mut first = 0;
        let ends = spec.routes.iter().map(|route| {
            let ends = first..first + route.ends.len();
            first = ends.end;
            ends
        });
        let memory = Arc::clone(published.mapping());
        Ok(Page {
            memory,
            published,
            mirror: None,
            sections,
            ends: ends.collect(),
        })
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
            TargetCell {
                record: record.into(),
                delivered: record.delivered.load(Ordering::Relaxed),
            }
        };
        RouteCell {
            record: record.into(),
            // SAFETY: the page's record of this route, kept by its mapping; the cell is its one
            // writer.
            latency: unsafe {
                Recorder::new(
                    histogram.into(),
                    Arc::clone(&self.memory) as Arc<dyn Any + Send + Sync>,
                )
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
        ClaimsCell {
            record: record.into(),
            _map: Arc::clone(&self.memory),
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
            _map: Arc::clone(&self.memory),
        }
    }

    /// What the lane did not get ([`super::degraded`]), beside what was said before. Control thread
    /// only.
    pub fn add_degraded(&self, lane: usize, bits: u32) {
        self.record::<LaneRecord>(layout::LANES, lane)
            .degraded
            .fetch_or(bits, Ordering::Relaxed);
    }

    /// Takes back what was said with [`Page::add_degraded`]. Control thread only.
    pub fn remove_degraded(&self, lane: usize, bits: u32) {
        self.record::<LaneRecord>(layout::LANES, lane)
            .degraded
            .fetch_and(!bits, Ordering::Relaxed);
    }

    /// Whether the watchdog has taken the thread its priority.
    pub fn is_demoted(&self, worker: usize) -> bool {
        Guard::of_words(loaded(
            &self.record::<GuardRecord>(layout::GUARDS, worker).words,
        ))
        .demoted
    }

    /// The cells in which the watchdog shows a worker; to be handed to that one thread.
    ///
    /// # Panics
    /// When the page has no such worker.
    pub fn guard(&self, worker: usize) -> GuardCell {
        GuardCell::new(
            self.record::<GuardRecord>(layout::GUARDS, worker),
            &self.memory,
        )
    }

    /// Messages accepted, delivered and queued, all routes together, as they are at this moment.
    pub fn accounted(&self) -> (u64, u64, u64) {
        let ledgers = (0..self.ends.len()).map(|route| self.ledger(route));
        ledgers.fold((0, 0, 0), |(accepted, delivered, queued), ledger| {
            (
                accepted + ledger.accepted,
                delivered + ledger.delivered,
                queued + ledger.queued,
            )
        })
    }

    /// A route's ledger. Each counter is right, their sum need not be: they may be copied in the
    /// middle of an update.
    pub fn ledger(&self, route: usize) -> Ledger {
        let record: &RouteRecord = self.record(layout::ROUTES, route);
        Ledger::of_words(loaded(&record.ledger))
    }

    /// What a route lost at its n-th end, by [`Loss`], and the errno of the last message that the
    /// kernel refused there.
    pub fn losses_at(&self, route: usize, end: usize) -> ([u64; Loss::COUNT], i32) {
        let record: &TargetRecord = self.record(layout::TARGETS, self.ends[route].start + end);
        let mut lost: [u64; Loss::COUNT] =
            std::array::from_fn(|at| record.lost[at].load(Ordering::Relaxed));
        let expired = &mut lost[Loss::Expired.index()];
        *expired = expired.saturating_add(received(record).expired);
        (lost, record.errno.load(Ordering::Relaxed).cast_signed())
    }

    /// What a route lost, by [`Loss`]: what its ledger counts, and what its receivers' libraries
    /// report as expired after it was delivered to their rings. The latter is what those processes
    /// say.
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
        let lane = |index| {
            self.record::<LaneRecord>(layout::LANES, index)
                .degraded
                .load(Ordering::Relaxed)
                != 0
        };
        let demoted = |index| self.is_demoted(index);
        let count = |section: usize| self.sections[section].count as usize;
        (0..count(layout::LANES)).any(lane) || (0..count(layout::GUARDS)).any(demoted)
    }

    /// So many more messages of a route are lost since the instance's last daemon ended. Control
    /// thread only.
    ///
    /// # Panics
    /// When the page has no such route.
    pub fn add_lost_in_last_life(&self, route: usize, messages: u64) {
        let lost = &self
            .record::<RouteRecord>(layout::ROUTES, route)
            .lost_in_last_life;
        let messages = u32::try_from(messages).unwrap_or(u32::MAX);
        lost.store(
            lost.load(Ordering::Relaxed).saturating_add(messages),
            Ordering::Relaxed,
        );
    }

    /// The process' state. Control thread only.
    pub fn set_process(&self, process: usize, state: PeerState, pid: i32, uid: u32) {
        let record: &ProcessRecord = self.record(layout::PROCESSES, process);
        let words = [
            u64::from(state as u32),
            u64::from(pid.cast_unsigned()),
            u64::from(uid),
        ];
        write_whole(
            &record.seq,
            even(record.seq.load(Ordering::Relaxed)),
            &record.words,
            words,
        );
    }

    /// Sets the fate of a signal to the endpoint's owner. Control thread only.
    pub fn set_reception(&self, endpoint: usize, reception: Reception) {
        let record: &EndpointRecord = self.record(layout::ENDPOINTS, endpoint);
        record.reception.store(reception as u32, Ordering::Relaxed);
    }

    /// The cells that show the refused messages of an endpoint. To be called once for each.
    pub fn refused(&self, endpoint: usize) -> RefusedCell {
        RefusedCell::new(
            self.record(layout::ENDPOINTS, endpoint),
            Arc::clone(&self.memory),
        )
    }

    /// The fate of a signal to the endpoint's owner, as set last.
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

    /// Gives the page a file again if its own was removed; the new file's path. Control thread
    /// only.
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

    /// Sign of life, CLOCK_MONOTONIC, and what the lanes' clock shows at that moment. Control
    /// thread, about ten times a second.
    pub fn heartbeat(&mut self, now_ns: u64, lanes_ns: u64) {
        let header = self.header();
        header
            .clock_ahead_ns
            .store(lanes_ns.wrapping_sub(now_ns), Ordering::Relaxed);
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
        assert_eq!(
            at.stride as usize,
            size_of::<T>(),
            "{}",
            layout::SECTION_NAMES[section]
        );
        assert!(
            index < at.count as usize,
            "{} of {}: no {index}",
            layout::SECTION_NAMES[section],
            at.count
        );
        #[expect(
            clippy::cast_possible_truncation,
            reason = "offset inside a mapping, 64-bit machine"
        )]
        let offset = at.offset as usize + index * at.stride as usize;
        // SAFETY: a section is viewed as its one record type (stride asserted above; private, and
        // each caller names the pair of layout.rs); what is written in those records after
        // publishing are atomics.
        unsafe { self.memory.view(offset) }
    }
}

impl Drop for Page {
    /// The last figures are for readers that keep the file open.
    fn drop(&mut self) {
        self.update_mirror();
    }
}

fn refused(e: PublishError, spec: &PageSpec, path: &Path) -> io::Error {
    let shown = path.display();
    match e {
        PublishError::Locked => {
            // The page is the other daemon's claim; good enough for a text.
            let pid = Reader::open_path(path)
                .map_or_else(|_| "unknown".to_owned(), |page| page.pid().to_string());
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
            format!(
                "{shown} is not a regular file and not made by rtd; remove it (`rm -r {shown}`)"
            ),
        ),
        PublishError::Io(e) => e,
    }
}
