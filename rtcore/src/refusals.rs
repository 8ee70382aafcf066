//! Messages that `send` refused: counted by the sender's library, in memory of the sender's process
//! that rtd reads.
//!
//! A refused message is in no ring, so no lane and no receiver can count it. The library makes one
//! such memory for the life of a session and sends its descriptor to each daemon that the session
//! connects to. Each endpoint that the session sends from has a slot: its name, the counts of the
//! library since the session began, and the part of them that rtd has taken over. Refusals are
//! therefore counted once over all lives of rtd, including those that happen while no rtd runs.
//!
//! Constraint: the process may write anything here. rtd maps only memory whose size cannot change,
//! reads each number once and checks it ([`Audit::take`]); a process that writes false counts
//! falsifies only its own figures.
//!
//! Invariant: counting is one atomic addition: no lock, no allocation, no system call.

use crate::sys::memfd::{Map, Memory};
use crate::wire::{NAME_BYTES_MAX, Name};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Why a message was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// No free slot in the ring, or none within the time of `block`.
    Full = 0,
    /// Longer than a slot.
    TooLarge = 1,
    /// There is no receiver: it has not connected yet, has left, or has died.
    PeerDead = 2,
    /// rtd is down or refuses the session.
    Away = 3,
    /// The receiver broke the ring.
    Error = 4,
    /// The receiving end of the ring went away while the message was being sent. The message is
    /// nevertheless in the ring, and is counted with the rest of that ring.
    Cut = 5,
}

impl Refused {
    /// Number of reasons.
    pub const COUNT: usize = 6;
    /// The names in `rtctl stats --json`, in the order of the counters.
    pub const NAMES: [&'static str; Self::COUNT] =
        ["full", "too_large", "peer_dead", "away", "error", "cut"];
}

/// Counts by [`Refused`].
pub type Counts = [u64; Refused::COUNT];

/// Slots for the endpoints of one session: as many as a session has channels. Only a session that
/// outlives changes of the configuration needs more; refusals of further endpoints are not counted.
const SLOTS: usize = crate::ring::bell::CHANNELS_MAX;
const NAME_WORDS: usize = (NAME_BYTES_MAX + 1) / 8;
/// Limit of the growth of a count between two reads: at ten million refusals a second this is a
/// day.
const STEP_MAX: u64 = 1 << 40;

/// One endpoint. Zero is an unused slot.
#[repr(C)]
struct Slot {
    name: [AtomicU64; NAME_WORDS],
    /// Written by the library.
    counted: [AtomicU64; Refused::COUNT],
    /// The part of `counted` that the daemons have taken over. Written by rtd.
    taken: [AtomicU64; Refused::COUNT],
}
const _: () = assert!(size_of::<Slot>() == 128 && (NAME_BYTES_MAX + 1).is_multiple_of(8));
const BYTES: usize = SLOTS * size_of::<Slot>();

/// The slots of a mapping of [`BYTES`].
fn slots(map: &Map) -> &[Slot] {
    assert!(map.len() >= BYTES);
    // SAFETY: the mapping has BYTES bytes, starts on a page and lives as long as the borrow; a Slot
    // consists of atomics, for which any bytes are valid and other writers are no data race.
    unsafe { std::slice::from_raw_parts(map.start().as_ptr().cast::<Slot>(), SLOTS) }
}

/// The library's side: the memory of a session.
#[derive(Debug)]
pub struct Accounting {
    memory: Memory,
    map: Arc<Map>,
}

impl Accounting {
    /// Creates the memory with all counts at zero. Errors: memfd_create(2), mmap(2).
    pub fn new() -> io::Result<Accounting> {
        let memory = Memory::new("rtd-refusals", BYTES)?;
        let map = Arc::new(memory.map_writable()?);
        Ok(Accounting { memory, map })
    }

    /// The counter of the session's sender number `index`.
    pub fn counter(&self, index: usize, endpoint: Name) -> Counter {
        let counter = Counter {
            map: Arc::clone(&self.map),
            index,
        };
        if let Some(slot) = slots(&self.map).get(index) {
            for (word, bytes) in slot.name.iter().zip(endpoint.bytes().as_chunks::<8>().0) {
                word.store(u64::from_ne_bytes(*bytes), Ordering::Release);
            }
        }
        counter
    }

    /// The descriptor that the session sends to rtd.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }
}

/// Counts the refusals of one sender.
#[derive(Debug)]
pub struct Counter {
    map: Arc<Map>,
    index: usize,
}

impl Counter {
    /// Counts one more message. Does nothing in a forked child, which does not have the memory.
    #[cold]
    pub fn count(&self, reason: Refused) {
        if let Some(slot) = slots(&self.map).get(self.index) {
            slot.counted[reason as usize].fetch_add(1, Ordering::Release);
        }
    }
}

/// The counts of one session, as rtd reads them.
#[derive(Debug)]
pub struct Audit {
    map: Map,
    taken: Vec<Counts>,
}

impl Audit {
    /// Makes an audit of a process's memory, which may contain any bytes.
    pub fn new(fd: BorrowedFd<'_>) -> io::Result<Audit> {
        let map = Map::of_stranger(fd, BYTES, BYTES, true)?;
        let taken = slots(&map).iter().map(|slot| {
            std::array::from_fn(|at| {
                let counted = slot.counted[at].load(Ordering::Acquire);
                slot.taken[at].load(Ordering::Relaxed).min(counted)
            })
        });
        Ok(Audit {
            taken: taken.collect(),
            map,
        })
    }

    /// The number of refusals for the endpoint since the last call; none if a number cannot be
    /// true.
    pub fn take(&mut self, endpoint: &str) -> Option<Counts> {
        let wanted = Name::new(endpoint).ok()?.bytes();
        let is_it = |slot: &Slot| {
            let words = wanted
                .as_chunks::<8>()
                .0
                .iter()
                .map(|bytes| u64::from_ne_bytes(*bytes));
            slot.name
                .iter()
                .map(|word| word.load(Ordering::Acquire))
                .eq(words)
        };
        let all = slots(&self.map);
        let Some((slot, taken)) = all
            .iter()
            .zip(&mut self.taken)
            .find(|(slot, _)| is_it(slot))
        else {
            return Some(Counts::default());
        };
        let now: Counts = std::array::from_fn(|at| slot.counted[at].load(Ordering::Acquire));
        let mut more = Counts::default();
        for ((more, now), taken) in more.iter_mut().zip(now).zip(taken.iter()) {
            *more = now.checked_sub(*taken).filter(|step| *step <= STEP_MAX)?;
        }
        *taken = now;
        Some(more)
    }

    /// Records, for the next daemon, the counts that this one has taken and published.
    pub fn confirm(&self) {
        for (slot, taken) in slots(&self.map).iter().zip(&self.taken) {
            for (word, taken) in slot.taken.iter().zip(taken) {
                if word.load(Ordering::Relaxed) != *taken {
                    word.store(*taken, Ordering::Release);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_daemon_has_taken_the_next_does_not_take_again() {
        let book = Accounting::new().unwrap();
        let [out, other] = [(0, "a.out"), (1, "a.other")]
            .map(|(n, name)| book.counter(n, Name::new(name).unwrap()));
        let mut first = Audit::new(book.as_fd()).unwrap();
        out.count(Refused::Full);
        out.count(Refused::PeerDead);
        other.count(Refused::Away);
        assert_eq!(first.take("a.out"), Some([1, 0, 1, 0, 0, 0]));
        assert_eq!(first.take("a.out"), Some([0; 6]));
        assert_eq!(first.take("nobody"), Some([0; 6]));
        first.confirm();
        out.count(Refused::Full);
        // Taken and not confirmed: that daemon was killed before it published it.
        assert_eq!(first.take("a.out"), Some([1, 0, 0, 0, 0, 0]));
        drop(first);
        let mut second = Audit::new(book.as_fd()).unwrap();
        assert_eq!(second.take("a.out"), Some([1, 0, 0, 0, 0, 0]));
        assert_eq!(second.take("a.other"), Some([0, 0, 0, 1, 0, 0]));
    }

    #[test]
    fn numbers_that_cannot_be_true_are_not_taken() {
        let book = Accounting::new().unwrap();
        let out = book.counter(0, Name::new("a.out").unwrap());
        let mut audit = Audit::new(book.as_fd()).unwrap();
        out.count(Refused::Full);
        assert_eq!(audit.take("a.out"), Some([1, 0, 0, 0, 0, 0]));
        for lie in [0, u64::MAX] {
            slots(&book.map)[0].counted[0].store(lie, Ordering::Relaxed);
            assert_eq!(audit.take("a.out"), None);
        }
        slots(&book.map)[0].taken[0].store(u64::MAX, Ordering::Relaxed);
        slots(&book.map)[0].counted[0].store(3, Ordering::Relaxed);
        assert_eq!(
            Audit::new(book.as_fd()).unwrap().take("a.out"),
            Some([0; 6]),
            "more than there were"
        );
    }

    #[test]
    fn memory_of_another_kind_or_size_is_not_mapped() {
        let file = tempfile();
        assert!(
            Audit::new(file.as_fd()).is_err(),
            "a file of the disk or of somebody's own file system"
        );
        assert!(Audit::new(Memory::new("small", 4096).unwrap().as_fd()).is_err());
    }

    fn tempfile() -> std::fs::File {
        std::fs::File::open("/proc/self/status").unwrap()
    }
}
