//! Sleeping and waking: an end that sleeps raises a flag in its own memory; an end that has changed
//! the ring and sees the flag rings the bell.
//!
//! The handshake, both ways (consumer waits for messages, producer for room):
//!
//! ```text
//! sleeper                                   waker
//!   seen = bell
//!   flag = how | bell | turn                  write the news (tail or head)
//!   fence(SeqCst)             <------>        fence(SeqCst)
//!   look for news; none?                      flag raised, and not rung in this turn?
//!   futex_wait(bell == seen)                    bell += 1; futex_wake(bell)
//!   flag = 0
//! ```
//!
//! Of two SeqCst fences one comes first: either the sleeper sees the change, or the waker sees the
//! flag. The bell changes before the wake call, so a sleeper that is not asleep yet does not fall
//! asleep. One ring is enough for a turn, because the sleeper raises its flag with the next number
//! before it sleeps again; a burst of messages to an end that has not run yet therefore costs one
//! system call. The number continues where the previous end stopped, and it never wraps around, so
//! a flag that was rung for never occurs again.
//!
//! A bell is a futex, or a semaphore of a skin whose threads must not make Linux's calls. With a
//! semaphore, the first step takes off the counts of earlier turns, so a later ring ends the sleep,
//! and at most one count for each turn is left over. Several bells may be one semaphore. Then one
//! thread sleeps there; it takes the counts off before it raises the first flag, and checks all of
//! its rings.
//!
//! The kind of the wake-up, the bell and the turn are in one word, so a thread that sees a sleeper
//! sees all three.

#[cfg(not(loom))]
use crate::skin::Semaphore;
use crate::sync::{AtomicU32, Ordering};
use std::sync::Arc;

/// Bells of a page.
pub const BELLS: usize = 256;

/// Limit of the channels of a session: half of its bells are the session's, the other the daemon's.
pub const CHANNELS_MAX: usize = BELLS / 2;

/// The bell of the daemon's end of a session's channel. The session's end uses the bell with the
/// channel's number, or that of another channel that ends at the same thread.
pub const fn daemon_bell(channel: u32) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "128")]
    let first = CHANNELS_MAX as u32;
    first + channel
}

/// The way in which a sleeping consumer is woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Doorbell {
    Bell = 1,
    /// By the ring's eventfd(2), which an epoll set watches. Not if bells are semaphores, because
    /// the waking thread must not make Linux's calls there.
    EventFd = 2,
    /// By the signal of the endpoint, which the daemon sends.
    Signal = 3,
}

const HOW_BITS: u32 = 2;
const HOW_MASK: u64 = (1 << HOW_BITS) - 1;
const BELL_MASK: u64 = BELLS as u64 - 1;
const TURN_SHIFT: u32 = HOW_BITS + BELLS.ilog2();

/// The flag of a sleeper in its `turn`.
pub(super) fn flag(how: Doorbell, bell: u32, turn: u64) -> u64 {
    awake(turn) | (u64::from(bell) & BELL_MASK) << HOW_BITS | u64::from(how as u32)
}

/// The flag of an end that is awake and has slept this many times.
pub(super) fn awake(turn: u64) -> u64 {
    turn << TURN_SHIFT
}

/// Number of sleeps of the end that left this flag.
pub(super) fn turn(flag: u64) -> u64 {
    flag >> TURN_SHIFT
}

/// Whether a flag is a sleeper's.
#[inline]
pub(super) fn is_raised(flag: u64) -> bool {
    flag & HOW_MASK != 0
}

/// The way in which a flag's owner is woken; `None`: it is awake.
pub(super) fn how(flag: u64) -> Option<Doorbell> {
    match flag & HOW_MASK {
        1 => Some(Doorbell::Bell),
        2 => Some(Doorbell::EventFd),
        3 => Some(Doorbell::Signal),
        _ => None,
    }
}

/// The bell of a flag's owner.
pub(super) fn bell(flag: u64) -> u32 {
    (flag >> HOW_BITS & BELL_MASK) as u32
}

/// One bell, a quarter of a cache line.
#[repr(C, align(16))]
#[derive(Debug, Default)]
pub(super) struct Bell {
    pub count: AtomicU32,
    #[cfg(loom)]
    model: model::Sleepers,
}

impl Bell {
    /// Its current value, for `wait`.
    pub fn seen(&self) -> u32 {
        self.count.load(Ordering::Acquire)
    }

    /// Wakes the thread that sleeps at it; a thread that read the earlier value does not fall
    /// asleep.
    pub fn ring(&self) {
        self.count.fetch_add(1, Ordering::Release);
        self.wake();
    }

    #[cfg(not(loom))]
    fn wake(&self) {
        // Wakes all: an end has one sleeper, but a bell that several inboxes use must not wake the
        // wrong one.
        crate::sys::futex::wake_all(&self.count);
    }

    /// Sleeps while it shows `seen`, for at most this long. The caller checks again, whatever ended
    /// the sleep.
    #[cfg(not(loom))]
    pub fn wait(&self, seen: u32, timeout_ns: u64) -> Result<(), crate::sys::Errno> {
        crate::sys::futex::wait(&self.count, seen, timeout_ns)
    }

    #[cfg(loom)]
    fn wake(&self) {
        self.model.wake();
    }

    /// A sleep without a time limit: a lost wake-up shows as a deadlock. A sleep with a limit can
    /// end at any time.
    #[cfg(loom)]
    pub fn wait(&self, seen: u32, timeout_ns: u64) -> Result<(), crate::sys::Errno> {
        if timeout_ns == u64::MAX {
            self.model.wait(&self.count, seen);
        } else {
            loom::thread::yield_now();
        }
        Ok(())
    }
}

/// The bells that both ends of some rings share.
#[derive(Clone, Debug)]
pub struct Bells {
    page: Arc<BellPage>,
}

#[derive(Debug)]
enum BellPage {
    #[cfg(not(loom))]
    Shared(crate::sys::memfd::Map),
    Local(Box<[Bell]>),
    #[cfg(not(loom))]
    Semaphores(Box<[Option<Arc<Semaphore>>]>),
}

/// The object with a bell's number.
enum At<'a> {
    Word(&'a Bell),
    /// None if nobody sleeps there.
    #[cfg(not(loom))]
    Semaphore(Option<&'a Semaphore>),
}

impl Bells {
    /// Bytes of the page.
    pub const BYTES: usize = BELLS * size_of::<Bell>();

    /// Makes bells over memory that both ends have mapped for writing.
    #[cfg(not(loom))]
    pub fn shared(map: crate::sys::memfd::Map) -> std::io::Result<Bells> {
        if map.len() < Bells::BYTES {
            return Err(std::io::Error::other("the page of bells is too small"));
        }
        Ok(Bells {
            page: Arc::new(BellPage::Shared(map)),
        })
    }

    /// Makes bells of semaphores by number; nobody sleeps at a missing one. At most [`BELLS`].
    #[cfg(not(loom))]
    pub fn semaphores(by_number: Vec<Option<Arc<Semaphore>>>) -> Bells {
        Bells {
            page: Arc::new(BellPage::Semaphores(by_number.into())),
        }
    }

    /// Makes bells for ends in one process.
    pub fn local() -> Bells {
        // The model explores each of them; two are enough there.
        let count = if cfg!(loom) { 2 } else { BELLS };
        Bells {
            page: Arc::new(BellPage::Local(
                (0..count).map(|_| Bell::default()).collect(),
            )),
        }
    }

    /// The bell with the number that a peer claims to sleep at.
    fn at(&self, index: u32) -> At<'_> {
        match &*self.page {
            #[cfg(not(loom))]
            BellPage::Shared(map) => {
                let at = index as usize % BELLS;
                // SAFETY: the mapping has BYTES bytes (`shared`) and lives as long as `self`; `at`
                // is below BELLS; a Bell is an atomic, so other writers are no data race.
                At::Word(unsafe { &*map.start().as_ptr().cast::<Bell>().add(at) })
            }
            BellPage::Local(bells) => At::Word(&bells[index as usize % bells.len()]),
            #[cfg(not(loom))]
            BellPage::Semaphores(bells) => {
                At::Semaphore(bells.get(index as usize).and_then(Option::as_deref))
            }
        }
    }

    /// Wakes the thread that sleeps at this bell for a reason other than a message.
    pub fn ring(&self, index: u32) {
        match self.at(index) {
            At::Word(bell) => bell.ring(),
            #[cfg(not(loom))]
            At::Semaphore(semaphore) => {
                if let Some(semaphore) = semaphore {
                    semaphore.post();
                }
            }
        }
    }

    /// The first step of a sleeper: the bell's value, for [`Bells::sleep`]. Takes earlier counts
    /// off a semaphore.
    pub fn seen(&self, index: u32) -> u32 {
        match self.at(index) {
            At::Word(bell) => bell.seen(),
            #[cfg(not(loom))]
            At::Semaphore(semaphore) => {
                if let Some(semaphore) = semaphore {
                    semaphore.clear();
                }
                0
            }
        }
    }

    /// Sleeps while the bell has the value that was read before all flags were raised and all rings
    /// were checked. Returns after a ring, after a signal, at the time limit, or without a reason.
    pub fn sleep(&self, index: u32, seen: u32, timeout_ns: u64) -> Result<(), crate::sys::Errno> {
        match self.at(index) {
            At::Word(bell) => bell.wait(seen, timeout_ns),
            #[cfg(not(loom))]
            At::Semaphore(Some(semaphore)) => semaphore.wait(timeout_ns),
            // There is no such bell, so nobody can wake a thread that sleeps there.
            #[cfg(not(loom))]
            At::Semaphore(None) => Err(crate::sys::Errno::BADF),
        }
    }

    /// The same as one of several words; none if the bell is a semaphore, which keeps its count.
    /// The page must outlive the wait.
    #[cfg(not(loom))]
    pub fn word(&self, index: u32) -> Option<crate::sys::futex::Word> {
        match self.at(index) {
            At::Word(bell) => Some(crate::sys::futex::Word::new(&bell.count, bell.seen())),
            At::Semaphore(_) => None,
        }
    }

    /// Whether the bells are semaphores: a thread that sleeps or rings there then makes no Linux
    /// system call.
    pub fn are_semaphores(&self) -> bool {
        match *self.page {
            #[cfg(not(loom))]
            BellPage::Semaphores(_) => true,
            _ => false,
        }
    }

    /// Whether both are the same page.
    pub fn is(&self, other: &Bells) -> bool {
        Arc::ptr_eq(&self.page, &other.page)
    }
}

/// A futex for loom: a lock makes the comparison and the sleep one step.
#[cfg(loom)]
mod model {
    use crate::sync::{AtomicU32, Ordering};
    use loom::sync::{Condvar, Mutex};

    #[derive(Debug)]
    pub struct Sleepers {
        lock: Mutex<()>,
        condvar: Condvar,
    }

    impl Default for Sleepers {
        fn default() -> Sleepers {
            Sleepers {
                lock: Mutex::new(()),
                condvar: Condvar::new(),
            }
        }
    }

    impl Sleepers {
        pub fn wait(&self, word: &AtomicU32, seen: u32) {
            let guard = self.lock.lock().unwrap();
            if word.load(Ordering::Relaxed) == seen {
                drop(self.condvar.wait(guard).unwrap());
            }
        }

        pub fn wake(&self) {
            let _guard = self.lock.lock().unwrap();
            self.condvar.notify_all();
        }
    }
}
