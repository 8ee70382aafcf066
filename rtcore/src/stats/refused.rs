//! Refused sends of an endpoint, on the page.

use super::layout::EndpointRecord;
use crate::refusals::Counts;
use crate::sys::shm::Mapping;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The counts of one endpoint. Writer: the control thread.
#[derive(Debug)]
pub struct RefusedCell {
    record: NonNull<EndpointRecord>,
    // Keeps the memory mapped.
    _map: Arc<Mapping>,
}

// SAFETY: the pointer is into `_map`, which is Send + Sync and lives as long as the cell; what it
// reaches is atomics and bytes that never change.
unsafe impl Send for RefusedCell {}

impl RefusedCell {
    /// Makes a cell; `record` is in `map`.
    pub(super) fn new(record: &EndpointRecord, map: Arc<Mapping>) -> RefusedCell {
        RefusedCell {
            record: record.into(),
            _map: map,
        }
    }

    /// Publishes the counts in the page.
    pub fn show(&mut self, counts: &Counts) {
        // SAFETY: points into `_map` (`new`), and is read and written as atomics only.
        let record = unsafe { self.record.as_ref() };
        for (word, count) in record.refused.iter().zip(counts) {
            word.store(*count, Ordering::Relaxed);
        }
    }
}
