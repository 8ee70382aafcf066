//! What senders and receivers write down about each message, in files that every process of the
//! campaign maps.
//!
//! A process that is killed leaves its journal complete up to the instruction before its end,
//! because the pages belong to the file. Each field has one writer.

use anyhow::Context as _;
use std::fs::{File, OpenOptions};
use std::ops::Deref;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

/// Messages of a stream that a journal can hold between two checks: at a message each millisecond,
/// those of four minutes.
pub const SLOTS: usize = 1 << 18;

/// What is mapped: atomics only, for which zero is a valid value.
///
/// # Safety
/// 1. Every field is an atomic or an array of atomics.
pub unsafe trait Plain {}

// SAFETY: 1. atomics only.
unsafe impl Plain for Control {}
// SAFETY: 1. atomics only.
unsafe impl Plain for Sent {}
// SAFETY: 1. atomics only.
unsafe impl Plain for Received {}

/// What the campaign asks of all senders.
#[repr(C)]
#[derive(Debug)]
pub struct Control {
    /// Counts the pauses; see [`Sent::idle`].
    pub pauses: AtomicU64,
    /// 1: send.
    pub run: AtomicU32,
    /// The daemon that runs, 0 while there is none.
    pub rtd_pid: AtomicU32,
}

/// The journal of a sender.
#[repr(C)]
#[derive(Debug)]
pub struct Sent {
    /// Number of the last message that was begun.
    pub begun: AtomicU64,
    /// The last pause that it has seen after its last send.
    pub idle: AtomicU64,
    /// [`EXEC`], [`FORK`] or 0.
    pub order: AtomicU32,
    /// What the child of the last fork could do: [`CHILD_REFUSED`], [`CHILD_SENT`], or 0 while it
    /// has not tried.
    pub child: AtomicU32,
    /// When message n was begun, at n modulo [`SLOTS`]; CLOCK_MONOTONIC in nanoseconds.
    pub times_ns: [AtomicU64; SLOTS],
    /// Fate of message n, at n modulo [`SLOTS`].
    pub fates: [AtomicU8; SLOTS],
}

/// Order to a sender: replace the program by itself, in the same process.
pub const EXEC: u32 = 1;
/// Order to a sender or a receiver: fork a child.
pub const FORK: u32 = 2;

/// The library refused the calls of the child.
pub const CHILD_REFUSED: u32 = 1;
/// The child could send or receive.
pub const CHILD_SENT: u32 = 2;

/// In place of the number of a message that a stranger wrote into a queue. It is not recorded.
pub const STRANGER: u64 = u64::MAX - 1;

/// The journal of a receiver.
#[repr(C)]
#[derive(Debug)]
pub struct Received {
    /// Messages so far.
    pub count: AtomicU64,
    /// [`FORK`] or 0.
    pub order: AtomicU32,
    /// See [`Sent::child`].
    pub child: AtomicU32,
    /// Answers to earlier requests, which the library passed over and counted.
    pub discarded: AtomicU64,
    /// Number of the n-th, at n modulo [`SLOTS`]; [`CORRUPT`] if its content is not what any sender
    /// wrote.
    pub numbers: [AtomicU64; SLOTS],
    /// When it came, CLOCK_MONOTONIC in nanoseconds.
    pub times_ns: [AtomicU64; SLOTS],
}

/// In place of the number of a message whose content is wrong.
pub const CORRUPT: u64 = u64::MAX;

/// What a sender knows about a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Fate {
    /// The sender was killed in the call.
    Begun = 1,
    /// The call succeeded.
    Accepted = 2,
    /// The call failed.
    Refused = 3,
    /// The call failed because the receiver or the daemon went away.
    Disconnected = 4,
}

impl Fate {
    fn of(byte: u8) -> Fate {
        match byte {
            2 => Fate::Accepted,
            3 => Fate::Refused,
            4 => Fate::Disconnected,
            _ => Fate::Begun,
        }
    }
}

/// Now, CLOCK_MONOTONIC in nanoseconds.
pub fn now_ns() -> u64 {
    rtcore::sys::clock::monotonic_ns()
}

fn slot(n: u64) -> usize {
    // The remainder is below SLOTS.
    usize::try_from(n % SLOTS as u64).unwrap_or(0)
}

impl Sent {
    /// Begins the next message and returns its number.
    pub fn begin(&self) -> u64 {
        let n = self.begun.load(Ordering::Relaxed) + 1;
        self.times_ns[slot(n)].store(now_ns(), Ordering::Relaxed);
        self.fates[slot(n)].store(Fate::Begun as u8, Ordering::Release);
        self.begun.store(n, Ordering::Release);
        n
    }

    /// Records how the call ended.
    pub fn ended(&self, n: u64, fate: Fate) {
        self.fates[slot(n)].store(fate as u8, Ordering::Release);
    }

    /// When message `n` was begun.
    pub fn begun_ns(&self, n: u64) -> u64 {
        self.times_ns[slot(n)].load(Ordering::Relaxed)
    }

    /// What the sender knows about message `n`.
    pub fn fate(&self, n: u64) -> Fate {
        Fate::of(self.fates[slot(n)].load(Ordering::Acquire))
    }
}

impl Received {
    /// Records a message. Async-signal-safe.
    pub fn add(&self, number: u64) {
        if number == STRANGER {
            return;
        }
        let n = self.count.load(Ordering::Relaxed);
        self.numbers[slot(n)].store(number, Ordering::Relaxed);
        self.times_ns[slot(n)].store(now_ns(), Ordering::Relaxed);
        self.count.store(n + 1, Ordering::Release);
    }

    /// Number and time of the `n`-th message.
    pub fn entry(&self, n: u64) -> (u64, u64) {
        (
            self.numbers[slot(n)].load(Ordering::Relaxed),
            self.times_ns[slot(n)].load(Ordering::Relaxed),
        )
    }
}

/// A mapped file.
#[derive(Debug)]
pub struct Mapped<T: Plain> {
    at: *const T,
    _file: File,
}

// SAFETY: shared memory of atomics.
unsafe impl<T: Plain> Send for Mapped<T> {}
// SAFETY: shared memory of atomics.
unsafe impl<T: Plain> Sync for Mapped<T> {}

impl<T: Plain> Mapped<T> {
    /// Maps the file, which is created where it is missing.
    pub fn open(path: &Path) -> anyhow::Result<Mapped<T>> {
        let name = || format!("cannot map {}", path.display());
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path);
        let file = file.with_context(name)?;
        if file.metadata()?.len() == 0 {
            file.set_len(size_of::<T>() as u64).with_context(name)?;
        }
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping of the whole file, whose length was set above and is never reduced.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size_of::<T>(),
                access,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        anyhow::ensure!(
            at != libc::MAP_FAILED,
            "{}: {}",
            name(),
            std::io::Error::last_os_error()
        );
        Ok(Mapped {
            at: at.cast(),
            _file: file,
        })
    }
}

impl<T: Plain> Deref for Mapped<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: mapped for as long as `self` lives; aligned to a page; every byte pattern is
        // valid (Plain).
        unsafe { &*self.at }
    }
}

impl<T: Plain> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping of `open`, to which no reference is left.
        unsafe { libc::munmap(self.at.cast_mut().cast(), size_of::<T>()) };
    }
}
