//! Which parts of the program an input reached: the counters that the compiler adds
//! (SanitizerCoverage, `scripts/fuzz`). A build without them has none; then no input is
//! interesting.

use std::sync::Mutex;

/// The counters of each part of the program: address and length.
static REGIONS: Mutex<Vec<(usize, usize)>> = Mutex::new(Vec::new());

/// Called by each part of the program before main.
#[unsafe(no_mangle)]
extern "C" fn __sanitizer_cov_8bit_counters_init(start: *mut u8, end: *mut u8) {
    let region = (start.addr(), end.addr() - start.addr());
    start.expose_provenance();
    let mut regions = REGIONS
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    if region.1 > 0 && !regions.contains(&region) {
        regions.push(region);
    }
}

/// What has been reached so far.
#[derive(Debug, Default)]
pub struct Reached {
    /// By counter: a bit for each order of magnitude that it has had.
    seen: Vec<u8>,
}

impl Reached {
    /// How many counters there are.
    pub fn counters() -> usize {
        regions().iter().map(|(_, len)| len).sum()
    }

    /// How many of them have been reached.
    pub fn count(&self) -> usize {
        self.seen.iter().filter(|bits| **bits != 0).count()
    }

    /// Takes what was counted since the last call, and says whether any of it is new.
    pub fn take(&mut self) -> bool {
        let (mut new, mut at) = (false, 0);
        for (start, len) in regions() {
            self.seen.resize(self.seen.len().max(at + len), 0);
            let start = std::ptr::with_exposed_provenance_mut::<u8>(start);
            // SAFETY: the counters of a part of the program, which stay where they are; one thread
            // counts, and it is here.
            let counters = unsafe { std::slice::from_raw_parts_mut(start, len) };
            for (counter, seen) in counters
                .iter_mut()
                .zip(&mut self.seen[at..])
                .filter(|(c, _)| **c != 0)
            {
                let bit = magnitude(*counter);
                new |= *seen & bit == 0;
                *seen |= bit;
                *counter = 0;
            }
            at += len;
        }
        new
    }
}

fn regions() -> Vec<(usize, usize)> {
    REGIONS
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
        .clone()
}

/// 1, 2, 3, 4 to 7, 8 to 15, 16 to 31, 32 to 127, more.
fn magnitude(count: u8) -> u8 {
    match count {
        0 | 1 => 1,
        2 => 2,
        3 => 4,
        4..=7 => 8,
        8..=15 => 16,
        16..=31 => 32,
        32..=127 => 64,
        _ => 128,
    }
}
