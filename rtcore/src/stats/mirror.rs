//! A second copy of the page for readers, for a daemon whose page was removed.
//!
//! A removed file cannot get a name again (linkat(2) refuses an inode without links), and lanes
//! must not be made to write into other memory: replacing their mapping would let them fault. Lanes
//! therefore keep writing into their memory, and the control thread copies it to a new file at each
//! heartbeat. Readers see figures that are up to a tick old.
//!
//! The rules of the page hold for the copy: a record with a sequence number is copied whole or not
//! at all, and a target has counted at least the messages that its route's ledger counts as
//! delivered.

use super::layout::{self, Header, Section};
use crate::sys::shm::Mapping;
use std::sync::atomic::{AtomicU64, Ordering, fence};

const WORD: usize = size_of::<u64>();

/// The state of the copying.
#[derive(Debug)]
pub(super) struct Mirror {
    /// The last copied words.
    words: Box<[u64]>,
    /// Records with a sequence number: first word and number of words. Routes first.
    records: Box<[(usize, usize)]>,
    /// All other ranges of words.
    plain: Box<[(usize, usize)]>,
}

impl Mirror {
    pub fn new(sections: &[Section; layout::SECTIONS], bytes: usize) -> Mirror {
        let mut plain = vec![(0, size_of::<Header>() / WORD)];
        let mut records = Vec::new();
        for (index, section) in sections.iter().enumerate() {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "offset inside a mapping, 64-bit machine"
            )]
            let (first, stride) = (
                section.offset as usize / WORD,
                section.stride as usize / WORD,
            );
            let count = section.count as usize;
            if layout::SEQUENCED[index] {
                records.extend((0..count).map(|i| (first + i * stride, stride)));
            } else {
                plain.push((first, count * stride));
            }
        }
        Mirror {
            words: vec![0; bytes / WORD].into(),
            records: records.into(),
            plain: plain.into(),
        }
    }

    /// The first copy, into memory that no reader has seen.
    pub fn fill(&mut self, from: &Mapping, into: &mut [u8]) {
        self.gather(from);
        for (bytes, word) in into.chunks_exact_mut(WORD).zip(&self.words) {
            bytes.copy_from_slice(&word.to_ne_bytes());
        }
    }

    /// Updates the copy.
    pub fn copy(&mut self, from: &Mapping, to: &Mapping) {
        let before = self.words.clone();
        self.gather(from);
        let publish = |at: usize| {
            if self.words[at] != before[at] {
                word(to, at).store(self.words[at], Ordering::Relaxed);
            }
        };
        for &(first, count) in &self.plain {
            (first..first + count).for_each(publish);
        }
        for &(first, count) in &self.records {
            let range = first..first + count;
            if self.words[range.clone()] == before[range] {
                continue;
            }
            word(to, first).store(before[first].wrapping_add(1), Ordering::Relaxed);
            // SYNC POINT with the acquire fence behind the words in `reader::read_whole`.
            fence(Ordering::Release);
            (first + 1..first + count).for_each(publish);
            // SYNC POINT with the acquire fence in front of the words in `reader::read_whole`.
            word(to, first).store(self.words[first], Ordering::Release);
        }
    }

    /// Reads everything from the page: records first, so that values that their writers stored
    /// before are seen too.
    fn gather(&mut self, from: &Mapping) {
        for &(first, count) in &self.records {
            let seq = word(from, first).load(Ordering::Acquire);
            let taken: Vec<u64> = (first..first + count)
                .map(|at| word(from, at).load(Ordering::Relaxed))
                .collect();
            fence(Ordering::Acquire);
            // A record that is being written is copied at the next heartbeat.
            if seq.is_multiple_of(2) && word(from, first).load(Ordering::Relaxed) == seq {
                self.words[first..first + count].copy_from_slice(&taken);
                self.words[first] = seq;
            }
        }
        for &(first, count) in &self.plain {
            for at in first..first + count {
                self.words[at] = word(from, at).load(Ordering::Relaxed);
            }
        }
    }
}

fn word(map: &Mapping, at: usize) -> &AtomicU64 {
    // SAFETY: all words of the page that change after it was published are viewed as atomics, here
    // and in `writer`; the reference does not outlive the mapping (its lifetime says so).
    unsafe { map.view(at * WORD) }
}
