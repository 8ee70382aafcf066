//! Fills the page before it gets its name: all constant fields, and the first values of the others.
//!
//! Invariant: names are stored whole or refused, because tools find things by them; only a list for
//! display is cut.

use super::layout::{self, EndpointRecord, Header, HistogramRecord, LaneRecord, ProcessRecord};
use super::layout::{RouteRecord, Section, TargetRecord, WorkerRecord};
use super::{EndpointSpec, PageSpec};
use crate::lane::peer::PeerState;
use crate::sys::clock::{self, monotonic_ns};
use crate::sys::procfs;
use std::io;
use std::mem::offset_of;
use std::sync::atomic::AtomicU64;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

/// Writes all constant fields, and the first values of the others.
pub(super) fn fill(
    page: &mut [u8],
    spec: &PageSpec,
    sections: [Section; layout::SECTIONS],
    bytes: usize,
) -> io::Result<()> {
    put(page, 0, header_record(spec, sections, bytes)?)?;
    let at = |section: usize, index: usize| {
        sections[section].offset + (layout::STRIDES[section] * index) as u64
    };
    for (i, lane) in spec.lanes.iter().enumerate() {
        let record = LaneRecord {
            name: text("lane name", &lane.name)?,
            wait: text("lane wait strategy", &lane.wait)?,
            priority: lane.priority.into(),
            cpu: lane.cpu,
            degraded: 0.into(),
            flags: flag(lane.confined, layout::LANE_CONFINED),
        };
        put(page, at(layout::LANES, i), record)?;
    }
    for (i, route) in spec.routes.iter().enumerate() {
        let record = RouteRecord {
            seq: 0.into(),
            ledger: zeros(),
            padding: [0; _],
            lane: route.lane,
            from: route.from,
            name: text("route name", &route.name)?,
            to: text("targets of a route", cut(&route.to, layout::TO_BYTES))?,
            flags: flag(route.direct, layout::ROUTE_DIRECT),
            lost_in_last_life: 0.into(),
        };
        put(page, at(layout::ROUTES, i), record)?;
        // The other words of an empty histogram are the zeros of a new file.
        put(
            page,
            at(layout::HISTOGRAMS, i) + offset_of!(HistogramRecord, min_ns) as u64,
            u64::MAX,
        )?;
    }
    let ends = (0u32..)
        .zip(&spec.routes)
        .flat_map(|(i, route)| route.ends.iter().map(move |&end| (i, end)));
    for (i, (route, endpoint)) in ends.enumerate() {
        put(
            page,
            at(layout::TARGETS, i),
            TargetRecord {
                route,
                endpoint,
                ..TargetRecord::new_zeroed()
            },
        )?;
    }
    for (i, worker) in spec.workers.iter().enumerate() {
        let record = WorkerRecord {
            seq: 0.into(),
            counters: zeros(),
            sealed: std::array::from_fn(|_| AtomicU64::new(u64::MAX)),
            tid: 0.into(),
            lane: worker.lane,
            name: text("worker name", &worker.name)?,
            padding: [0; _],
        };
        put(page, at(layout::WORKERS, i), record)?;
    }
    for (i, name) in spec.processes.iter().enumerate() {
        let words = [
            u64::from(PeerState::Unregistered as u32),
            0,
            u64::from(u32::MAX),
        ]
        .map(AtomicU64::new);
        let record = ProcessRecord {
            seq: 0.into(),
            words,
            name: text("process name", name)?,
        };
        put(page, at(layout::PROCESSES, i), record)?;
    }
    for (i, endpoint) in spec.endpoints.iter().enumerate() {
        put(page, at(layout::ENDPOINTS, i), endpoint_record(endpoint)?)?;
    }
    Ok(())
}

fn header_record(
    spec: &PageSpec,
    sections: [Section; layout::SECTIONS],
    bytes: usize,
) -> io::Result<Header> {
    let start_ns = monotonic_ns();
    let unix = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
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
        flags: flag(spec.private_namespace, layout::PRIVATE_NAMESPACE),
        start_ns,
        start_unix_ns: clock::nanos(unix),
        ready_ns: AtomicU64::new(0),
        heartbeat_ns: AtomicU64::new(start_ns),
        instance: text("instance name", &spec.name)?,
        socket: text("control socket", &spec.socket)?,
        rtd_version: text("version", env!("CARGO_PKG_VERSION"))?,
        skin: text("skin", &spec.skin)?,
        clock_ahead_ns: AtomicU64::new(0),
        ipc_namespace: procfs::own_namespace("ipc"),
        pid_namespace: procfs::own_namespace("pid"),
        monotonic_offset_ns: clock::monotonic_offset_ns().cast_unsigned(),
        padding: [0; _],
    })
}

fn endpoint_record(endpoint: &EndpointSpec) -> io::Result<EndpointRecord> {
    let mut record = EndpointRecord {
        name: text("endpoint name", &endpoint.name)?,
        queue: [0; _],
        owner: endpoint.owner.unwrap_or(layout::NONE),
        flags: flag(endpoint.is_source, layout::ENDPOINT_SOURCE)
            | flag(endpoint.is_sink, layout::ENDPOINT_SINK),
        kind: 0,
        signo: 0,
        maxmsg: 0,
        msgsize: 0,
        reception: 0.into(),
        padding: [0; _],
        refused: [const { AtomicU64::new(0) }; _],
        padding2: [0; _],
    };
    endpoint.kind.write(&mut record)?;
    Ok(record)
}

fn flag(on: bool, bit: u32) -> u32 {
    if on { bit } else { 0 }
}

fn put<T: IntoBytes + FromBytes>(page: &mut [u8], at: u64, mut record: T) -> io::Result<()> {
    let at = usize::try_from(at).map_err(io::Error::other)?;
    let room = page.get_mut(at..at + size_of::<T>());
    room.ok_or_else(|| io::Error::other("a record outside its page"))?
        .copy_from_slice(record.as_mut_bytes());
    Ok(())
}

fn zeros<const N: usize>() -> [AtomicU64; N] {
    std::array::from_fn(|_| AtomicU64::new(0))
}

/// A name as the page stores it; names are never cut, because tools find things by them.
pub(crate) fn text<const N: usize>(what: &str, name: &str) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    match bytes.get_mut(..name.len()) {
        Some(room) => room.copy_from_slice(name.as_bytes()),
        None => {
            return Err(invalid(format!(
                "{what} {name:?} has {} bytes, the limit is {N}",
                name.len()
            )));
        }
    }
    Ok(bytes)
}

/// The part of a list for display that fits.
fn cut(text: &str, bytes_max: usize) -> &str {
    let end = (0..=bytes_max.min(text.len()))
        .rev()
        .find(|&end| text.is_char_boundary(end))
        .unwrap_or(0);
    &text[..end]
}

pub(super) fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}
