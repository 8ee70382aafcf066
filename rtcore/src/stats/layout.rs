//! The bytes of the statistics page, for the writer, the reader, and tools in other languages.
//!
//! A header, then nine sections of equal-sized records, each found by (offset, stride, count) in
//! the header. Numbers have the machine's byte order; the magic shows it. Each field that changes
//! after the page has got its name is an aligned 64- or 32-bit word with one writer. Names are
//! padded with NUL and need not end in one.
//!
//! Records whose words belong together start with a sequence number: odd while the writer is
//! inside, so a copy is whole when the number was even and the same before and after.
//!
//! A route costs its histogram of 28,800 bytes, 512 for its other records and 256 for each of its
//! ends; that is locked memory, which the plan estimates on the high side
//! (`cost::STATS_ENTRY_BYTES` of rtd).
//!
//! Invariant: a change of anything here changes [`FORMAT`]. A change of the counters
//! ([`super::counters`]) needs no such step: it changes [`VERSION`] by itself. (2: targets, the
//! path of a route. 3: skin, its clock, mode switches. 4: refused system calls, what a thread had
//! used at the seal, what the watchdog says. 5: losses by receiver, and when. 6: what receivers
//! report of a target. 7: a reason for rejection, what an endpoint waits for, the daemon's
//! namespaces. 8: what the last life lost. 9: what a full receiver holds of the queued copies. 10:
//! what senders were refused, what dead receivers had not read. 11: the counters are part of the
//! version; the number of a refused system call is 1 more.)

use super::counters::{self, Guard, Ledger, ReceiverCounters, WorkerCounters};
use super::loss::Loss;
use crate::refusals::Refused;
use std::sync::atomic::{AtomicU32, AtomicU64};
use zerocopy::{FromBytes, IntoBytes};

/// `rtdstats`, as bytes on a little-endian machine.
pub const MAGIC: u64 = u64::from_le_bytes(*b"rtdstats");
/// Version of everything except the counters.
pub const FORMAT: u32 = 11;
/// Layout version: [`FORMAT`] in the upper half, and in the lower half a number that changes with
/// the counters.
pub const VERSION: u32 = FORMAT << 16 | counters::FINGERPRINT;

/// A version as it appears in error texts: `11.5c3e`. Before 11 it was one number.
pub fn version_name(version: u32) -> String {
    match version >> 16 {
        0 => version.to_string(),
        format => format!("{format}.{:04x}", version & 0xffff),
    }
}

/// Bytes of a name.
pub const NAME_BYTES: usize = 32;
/// Bytes of a route's name: two names and `->`.
pub const ROUTE_NAME_BYTES: usize = 64;
/// Bytes of a route's list of targets.
pub const TO_BYTES: usize = 176;
/// Bytes of the control socket's path (sun_path has 108).
pub const SOCKET_BYTES: usize = 128;
/// Bytes of a queue name: `/` and NAME_MAX.
pub const QUEUE_BYTES: usize = 256;

/// Index of the lanes in [`Header::sections`].
pub const LANES: usize = 0;
/// Index of the routes.
pub const ROUTES: usize = 1;
/// Index of the lane threads.
pub const WORKERS: usize = 2;
/// Index of the processes.
pub const PROCESSES: usize = 3;
/// Index of the endpoints.
pub const ENDPOINTS: usize = 4;
/// Index of the histograms, one per route in the routes' order.
pub const HISTOGRAMS: usize = 5;
/// Index of the targets: for each route in the routes' order, its ends in order.
pub const TARGETS: usize = 6;
/// Index of the watchdog's records, one per lane thread in the threads' order.
pub const GUARDS: usize = 7;
/// Index of the times of the last losses, one per route in the routes' order.
pub const LOSSES: usize = 8;
/// Number of sections.
pub const SECTIONS: usize = 9;

/// Section names for error texts, in section order.
pub const SECTION_NAMES: [&str; SECTIONS] = [
    "lanes",
    "routes",
    "workers",
    "processes",
    "endpoints",
    "histograms",
    "targets",
    "guards",
    "losses",
];
/// Whether the first word of a record is a sequence number over all of it that changes, in section
/// order.
pub const SEQUENCED: [bool; SECTIONS] = [false, true, true, true, false, false, false, true, false];
/// Bytes of one record, in section order.
pub const STRIDES: [usize; SECTIONS] = [
    size_of::<LaneRecord>(),
    size_of::<RouteRecord>(),
    size_of::<WorkerRecord>(),
    size_of::<ProcessRecord>(),
    size_of::<EndpointRecord>(),
    size_of::<HistogramRecord>(),
    size_of::<TargetRecord>(),
    size_of::<GuardRecord>(),
    size_of::<LossRecord>(),
];
/// Limit of the records, in section order; it bounds the reads from a page that is not trusted.
pub const COUNTS_MAX: [usize; SECTIONS] = [98, 4096, 4096, 4096, 8192, 4096, 4096 * 64, 4096, 4096];

/// Significant decimal digits of the histograms.
pub const HISTOGRAM_DIGITS: u8 = 2;
/// Lowest value that a histogram distinguishes from 0, in ns.
pub const HISTOGRAM_LOW_NS: u64 = 1;
/// Highest value of a histogram, in ns (17 s); a higher one is recorded as this value and counted
/// as saturated.
pub const HISTOGRAM_HIGH_NS: u64 = (1 << 34) - 1;
/// log2 of the linear steps of the first bucket: the power of two above 2 x 10^digits.
const SUB_BUCKET_BITS: u32 = 8;
/// Number of counts: 256 linear steps below 2^8, then 128 for each further power of two below 2^34.
pub const HISTOGRAM_COUNTS: usize = 256 + 128 * 26;
/// Offset of the counts in a histogram record.
pub const COUNTS_OFFSET: usize = 128;

/// [`Header::flags`]: queues and signals are the skin's own, and plain Linux programs cannot reach
/// them.
pub const PRIVATE_NAMESPACE: u32 = 1;
/// [`LaneRecord::flags`]: system calls off its threads' lists are refused and counted.
pub const LANE_CONFINED: u32 = 1;
/// [`RouteRecord::flags`]: directly from process to process, not through the lane's threads.
pub const ROUTE_DIRECT: u32 = 1;
/// [`EndpointRecord::flags`]: some route reads it.
pub const ENDPOINT_SOURCE: u32 = 1;
/// [`EndpointRecord::flags`]: some route writes it.
pub const ENDPOINT_SINK: u32 = 2;
/// [`EndpointRecord::flags`]: the signal goes to the registered thread.
pub const ENDPOINT_TO_THREAD: u32 = 4;
/// An index that points nowhere.
pub const NONE: u32 = u32::MAX;

/// Words of a thread's usage at the seal: minor faults, major faults, voluntary switches,
/// involuntary ones.
pub const SEALED_WORDS: usize = 4;
/// Words of a process: state, pid, uid.
pub const PROCESS_WORDS: usize = 3;

/// Position of a section's records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes)]
#[repr(C)]
pub struct Section {
    /// From the start of the page.
    pub offset: u64,
    /// Bytes from one record to the next.
    pub stride: u32,
    pub count: u32,
}

/// The first 512 bytes of the page.
#[derive(Debug, FromBytes, IntoBytes)]
#[repr(C)]
pub struct Header {
    pub magic: u64,
    pub version: u32,
    /// Bytes of this record.
    pub header_bytes: u32,
    /// Bytes of the page.
    pub total_bytes: u64,
    /// Position of every section.
    pub sections: [Section; SECTIONS],
    pub histogram_counts: u32,
    pub histogram_digits: u32,
    pub histogram_high_ns: u64,
    /// Process id of the daemon.
    pub pid: u32,
    /// Bits: [`PRIVATE_NAMESPACE`].
    pub flags: u32,
    /// Time at which the page was created, CLOCK_MONOTONIC.
    pub start_ns: u64,
    /// The same time, since 1970.
    pub start_unix_ns: u64,
    /// Time at which all lanes were sealed and running, CLOCK_MONOTONIC; 0 before that.
    pub ready_ns: AtomicU64,
    /// Last heartbeat, CLOCK_MONOTONIC.
    pub heartbeat_ns: AtomicU64,
    pub instance: [u8; NAME_BYTES],
    /// Path of the control socket.
    pub socket: [u8; SOCKET_BYTES],
    /// Version of the program.
    pub rtd_version: [u8; NAME_BYTES],
    /// The lanes' real-time calls: `posix`, `cobalt`.
    pub skin: [u8; NAME_BYTES],
    /// Offset of the lanes' clock from CLOCK_MONOTONIC, two's complement; applies to the stamps
    /// that lanes write.
    pub clock_ahead_ns: AtomicU64,
    /// Inode of the daemon's IPC namespace (namespaces(7)), which contains its message queues; 0 if
    /// unknown.
    pub ipc_namespace: u64,
    /// Inode of the daemon's pid namespace, to which the pids on this page belong; 0 if unknown.
    pub pid_namespace: u64,
    /// Offset of the daemon's CLOCK_MONOTONIC, in which all times on this page are, from the
    /// machine's, two's complement: not 0 in a time namespace (time_namespaces(7)).
    pub monotonic_offset_ns: u64,
    pub padding: [u8; 32],
}

#[derive(Debug, FromBytes, IntoBytes)]
#[repr(C)]
pub struct LaneRecord {
    pub name: [u8; NAME_BYTES],
    /// `block`, `spin:<us>`, `poll`.
    pub wait: [u8; NAME_BYTES],
    pub priority: u32,
    pub cpu: u32,
    /// Bits of [`super::degraded`].
    pub degraded: AtomicU32,
    /// Bits: [`LANE_CONFINED`].
    pub flags: u32,
}

/// Bytes that fill up a pair of cache lines of which this many bytes are used, because the
/// following field has another writer.
const fn padding(used: usize) -> usize {
    used.next_multiple_of(128) - used
}

/// A route. The fields before `lane` belong to its writer.
#[derive(Debug, FromBytes, IntoBytes)]
#[repr(C)]
pub struct RouteRecord {
    /// Odd while the ledger is written.
    pub seq: AtomicU64,
    /// Words of the [`Ledger`], in its order.
    pub ledger: [AtomicU64; Ledger::WORDS],
    pub padding: [u8; padding(8 + 8 * Ledger::WORDS)],
    /// Index of its lane.
    pub lane: u32,
    /// Index of its source endpoint.
    pub from: u32,
    pub name: [u8; ROUTE_NAME_BYTES],
    pub to: [u8; TO_BYTES],
    /// Bits: [`ROUTE_DIRECT`].
    pub flags: u32,
    /// Messages that the instance's last daemon had queued here when it was killed. Written once,
    /// before any message.
    pub lost_in_last_life: AtomicU32,
}

/// A lane thread.
#[derive(Debug, FromBytes, IntoBytes)]
#[repr(C)]
pub struct WorkerRecord {
    /// Odd while the counters are written.
    pub seq: AtomicU64,
    /// Words of the [`WorkerCounters`], in their order.
    pub counters: [AtomicU64; WorkerCounters::WORDS],
    /// See [`SEALED_WORDS`]; each written once. `u64::MAX` before the seal.
    pub sealed: [AtomicU64; SEALED_WORDS],
    /// Kernel thread id, 0 before the thread runs.
    pub tid: AtomicU32,
    /// Index of its lane.
    pub lane: u32,
    pub name: [u8; NAME_BYTES],
    /// Zero; keeps the next record's words off this one's cache lines.
    pub padding: [u8; padding(16 + 8 * (WorkerCounters::WORDS + SEALED_WORDS) + NAME_BYTES)],
}

#[derive(Debug, FromBytes, IntoBytes)]
#[repr(C)]
pub struct ProcessRecord {
    /// Odd while the words are written.
    pub seq: AtomicU64,
    /// Words of a process, see [`PROCESS_WORDS`].
    pub words: [AtomicU64; PROCESS_WORDS],
    pub name: [u8; NAME_BYTES],
}

/// An endpoint. Only `reception` and `refused` change.
#[derive(Debug, FromBytes, IntoBytes)]
#[repr(C)]
pub struct EndpointRecord {
    pub name: [u8; NAME_BYTES],
    /// Queue, or path of a device; empty for a signal.
    pub queue: [u8; QUEUE_BYTES],
    /// Index of the owning process or [`NONE`].
    pub owner: u32,
    /// [`ENDPOINT_SOURCE`], [`ENDPOINT_SINK`], [`ENDPOINT_TO_THREAD`].
    pub flags: u32,
    /// Its kind, as a number of [`crate::endpoint::Shown`].
    pub kind: u32,
    /// Kernel number, 0 for a queue.
    pub signo: i32,
    /// Messages, 0 for a signal.
    pub maxmsg: u32,
    /// Bytes, 0 for a signal.
    pub msgsize: u32,
    /// [`crate::lane::peer::Reception`] of a signal that is sent to its owner now.
    pub reception: AtomicU32,
    pub padding: [u8; 4],
    /// Messages that the library of its owner refused to send, by [`Refused`].
    pub refused: [AtomicU64; Refused::COUNT],
    pub padding2: [u8; 16],
}

/// The latencies of one route.
#[derive(Debug, FromBytes, IntoBytes)]
#[repr(C)]
pub struct HistogramRecord {
    /// Values recorded, saturated ones included.
    pub count: AtomicU64,
    pub sum_ns: AtomicU64,
    /// The lowest value, `u64::MAX` before the first.
    pub min_ns: AtomicU64,
    /// The highest value, not saturated.
    pub max_ns: AtomicU64,
    /// Values above [`HISTOGRAM_HIGH_NS`].
    pub saturated: AtomicU64,
    pub padding: [u8; 88],
    /// HdrHistogram's counts, see [`count_index`].
    pub counts: [AtomicU64; HISTOGRAM_COUNTS],
}

/// One end of one route.
///
/// The words have no sequence number: each is right by itself, no sum of several is used, and a
/// copy in which one word is a message ahead of another does no harm. They are written before the
/// route's ledger is published: a reader that reads the ledger first finds here every message that
/// the ledger counts as delivered or, at this end, lost.
#[derive(Debug, FromBytes, IntoBytes)]
#[repr(C)]
pub struct TargetRecord {
    /// Messages delivered to it.
    pub delivered: AtomicU64,
    /// Time of the last delivery, on the lanes' clock ([`Header::clock_ahead_ns`]), for a direct
    /// route CLOCK_MONOTONIC; 0 before the first.
    pub last_delivery_ns: AtomicU64,
    /// Index of the route.
    pub route: u32,
    /// Index of the endpoint.
    pub endpoint: u32,
    /// Messages lost at this end, by [`Loss`]. Losses without a receiver at fault (origin, rate, a
    /// group without members) are in the ledger only.
    pub lost: [AtomicU64; Loss::COUNT],
    /// errno of the last message that the kernel refused here; 0 before the first.
    pub errno: AtomicU32,
    /// Zero; the following fields belong to another thread.
    pub padding: [u8; padding(28 + 8 * Loss::COUNT)],
    /// See [`ReceiverCounters`]. Written by the control thread.
    pub receiver: [AtomicU64; ReceiverCounters::WORDS],
    /// Zero; the next record may belong to another thread.
    pub padding2: [u8; padding(8 * ReceiverCounters::WORDS)],
}

/// Time of a route's last loss, for each kind of loss.
///
/// Written by the control thread, which compares the ledgers about ten times a second; so the
/// record costs lane threads nothing.
#[derive(Debug, FromBytes, IntoBytes)]
#[repr(C)]
pub struct LossRecord {
    /// By [`Loss`], CLOCK_MONOTONIC, at most a tick of the control thread late; 0 before the first.
    pub last_ns: [AtomicU64; Loss::COUNT],
    pub padding: [u8; padding(8 * Loss::COUNT)],
}

/// The watchdog's record of the lane thread with the same index.
#[derive(Debug, FromBytes, IntoBytes)]
#[repr(C)]
pub struct GuardRecord {
    /// Odd while the words are written.
    pub seq: AtomicU64,
    /// Words of the [`Guard`], in its order.
    pub words: [AtomicU64; Guard::WORDS],
    pub padding: [u8; padding(8 + 8 * Guard::WORDS)],
}

const _: () = assert!(size_of::<Header>() == 512);
const _: () = assert!(size_of::<LaneRecord>() == 80);
const _: () = assert!(size_of::<RouteRecord>().is_multiple_of(128));
const _: () = assert!(std::mem::offset_of!(RouteRecord, lane).is_multiple_of(128));
const _: () = assert!(size_of::<WorkerRecord>().is_multiple_of(128));
const _: () = assert!(size_of::<ProcessRecord>() == 64);
const _: () = assert!(size_of::<EndpointRecord>() == 384);
const _: () = assert!(
    size_of::<HistogramRecord>() == 28_800 && size_of::<HistogramRecord>().is_multiple_of(128)
);
const _: () = assert!(size_of::<TargetRecord>().is_multiple_of(128));
const _: () = assert!(std::mem::offset_of!(TargetRecord, receiver).is_multiple_of(128));
const _: () = assert!(size_of::<GuardRecord>().is_multiple_of(128));
const _: () = assert!(size_of::<LossRecord>().is_multiple_of(128));
const _: () = assert!(std::mem::offset_of!(HistogramRecord, counts) == COUNTS_OFFSET);

/// The count that a value belongs to: HdrHistogram's index for lowest value 1 and two digits.
///
/// Values below 2^8 have a count each. Above, the top 8 bits of the value select one of 128 steps
/// of its power of two: the shift that leaves 8 bits, times 128, plus those 8 bits.
#[inline]
pub fn count_index(ns: u64) -> usize {
    let low_mask = (1u64 << SUB_BUCKET_BITS) - 1;
    let shift = (u64::BITS - SUB_BUCKET_BITS) - (ns | low_mask).leading_zeros();
    let step = ns >> shift;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "below 2^8, and the machine has 64 bits"
    )]
    let index = ((shift as usize) << (SUB_BUCKET_BITS - 1)) + step as usize;
    index
}

/// The lowest and the highest value that share count `index`.
pub fn count_bounds(index: usize) -> (u64, u64) {
    let half = 1usize << (SUB_BUCKET_BITS - 1);
    let shift = (index / half).saturating_sub(1);
    let low = ((index - shift * half) as u64) << shift;
    (low, low + (1u64 << shift) - 1)
}

/// Positions of the sections for these record counts, and the bytes of the page; `Err` names the
/// section that has more than [`COUNTS_MAX`].
pub fn sections(counts: [usize; SECTIONS]) -> Result<([Section; SECTIONS], usize), &'static str> {
    let mut sections = [Section::default(); SECTIONS];
    let mut at = size_of::<Header>();
    for (i, section) in sections.iter_mut().enumerate() {
        if counts[i] > COUNTS_MAX[i] {
            return Err(SECTION_NAMES[i]);
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "both bounded by constants of this file"
        )]
        let (stride, count) = (STRIDES[i] as u32, counts[i] as u32);
        *section = Section {
            offset: at as u64,
            stride,
            count,
        };
        // Sections start on their own pair of cache lines.
        at = (at + STRIDES[i] * counts[i]).next_multiple_of(128);
    }
    Ok((sections, at.next_multiple_of(4096)))
}

/// Whether this is a valid instance name: 1 to 31 of `A-Z a-z 0-9 . _ -`. It becomes part of a file
/// name.
pub fn instance_name_ok(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    (1..NAME_BYTES).contains(&name.len()) && name.bytes().all(allowed)
}
