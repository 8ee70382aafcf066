//! The daemon's side of the page: create, and write with single-writer stores.

use super::{Ledger, PageSpec, WorkerCounters};
use crate::lane::peer::PeerState;
use std::io;

/// The mapped page. Dropping it removes the name.
#[derive(Debug)]
pub struct Page {}

/// One route's counters and histogram. Writer: the thread that reads the route's source.
#[derive(Debug)]
pub struct RouteCell {}

/// One lane thread's counters. Writer: that thread.
#[derive(Debug)]
pub struct WorkerCell {}

impl Page {
    /// Creates the page.
    pub fn create(spec: &PageSpec) -> io::Result<Page> {
        let _ = spec;
        todo!()
    }
    /// The route's cell; to be handed to exactly one thread.
    pub fn route(&self, index: usize) -> RouteCell {
        let _ = index;
        todo!()
    }
    /// The worker's cell; to be handed to exactly one thread.
    pub fn worker(&self, index: usize) -> WorkerCell {
        let _ = index;
        todo!()
    }
    /// What the lane did not get ([`super::degraded`]). Control thread only.
    pub fn set_degraded(&self, lane: usize, bits: u32) {
        let _ = (lane, bits);
    }
    /// The process' state. Control thread only.
    pub fn set_process(&self, process: usize, state: PeerState, pid: i32, uid: u32) {
        let _ = (process, state, pid, uid);
    }
    /// The daemon's thread behind a worker cell. Control thread only.
    pub fn set_worker_tid(&self, worker: usize, tid: i32) {
        let _ = (worker, tid);
    }
    /// All lanes are sealed and running. Control thread only.
    pub fn set_ready(&self, now_ns: u64) {
        let _ = now_ns;
    }
    /// Sign of life, CLOCK_MONOTONIC. Control thread, about ten times a second.
    pub fn heartbeat(&self, now_ns: u64) {
        let _ = now_ns;
    }
}

impl RouteCell {
    /// Publishes the ledger as one consistent whole.
    pub fn publish(&mut self, ledger: &Ledger) {
        let _ = ledger;
    }
    /// Records one dequeue -> delivered time.
    pub fn record_latency(&mut self, ns: u64) {
        let _ = ns;
    }
}

impl WorkerCell {
    /// Publishes the worker's counters.
    pub fn publish(&mut self, counters: &WorkerCounters) {
        let _ = counters;
    }
}
