//! The receipt of a direct ring, beside the ring's bells: it shows how far rtd has accounted for
//! the ring. The ring outlives rtd, and the next rtd continues from there.
//!
//! Constraint: both ends have mapped the page for writing, as it holds their bells. A process that
//! changes these words falsifies the ledger of its own route, which is computed from the words of
//! both ends in any case.

use super::Bells;
use crate::sync::{AtomicU64, Ordering};
use crate::sys::memfd::Map;
use std::io;
use std::os::fd::BorrowedFd;

/// The words behind the bells of a direct ring's page.
#[derive(Debug)]
pub struct Receipt(Map);

#[repr(C)]
struct Words {
    /// Messages taken from the ring that are in a ledger.
    delivered: AtomicU64,
    /// Messages left in the ring that are in a ledger as lost.
    lost: AtomicU64,
}

impl Receipt {
    /// Bytes of the page.
    pub const PAGE_BYTES: usize = Bells::BYTES + size_of::<Words>();

    /// Makes a receipt over the page, which is mapped for writing.
    pub fn new(map: Map) -> io::Result<Receipt> {
        if map.len() < Receipt::PAGE_BYTES {
            return Err(io::Error::other("the page of a direct ring is too small"));
        }
        Ok(Receipt(map))
    }

    /// The receipt of a ring that another daemon made, by the page's descriptor that one of its
    /// ends sent.
    pub fn of_stranger(page: BorrowedFd<'_>) -> io::Result<Receipt> {
        Receipt::new(Map::of_stranger(
            page,
            Receipt::PAGE_BYTES,
            Receipt::PAGE_BYTES,
            true,
        )?)
    }

    /// Numbers of taken and of lost messages that are in a ledger.
    pub fn read(&self) -> (u64, u64) {
        let words = self.words();
        (
            words.delivered.load(Ordering::Acquire),
            words.lost.load(Ordering::Acquire),
        )
    }

    /// Records the numbers that are in a ledger now, after that was published.
    pub fn write(&self, delivered: u64, lost: u64) {
        let words = self.words();
        words.delivered.store(delivered, Ordering::Release);
        words.lost.store(lost, Ordering::Release);
    }

    fn words(&self) -> &Words {
        // SAFETY: the mapping has PAGE_BYTES bytes (`new`) and lives as long as `self`; the bells
        // before the words are 16 bytes each, so the words are aligned; they are atomics, so other
        // writers are no data race.
        unsafe { &*self.0.start().as_ptr().add(Bells::BYTES).cast::<Words>() }
    }
}
