//! The wait of a lane thread that has messages queued for a full receiver, or several sources:
//! descriptors and futex words, in two vectors that were allocated before the seal.
//!
//! The kernel has no call that waits for both kinds at once. If there are descriptors, rings of
//! sources ring their eventfd, and the thread checks for room in a ring every [`ROOM_POLL_NS`].
//!
//! On a skin whose threads must not make Linux's calls there are neither: every ring of the thread,
//! at either end, rings one semaphore of the thread. The thread checks for everything else when the
//! time limit of the wait has passed.

use crate::ring::Bells;
use crate::ring::producer::ROOM_POLL_NS;
use crate::skin::{Semaphore, Skin};
use crate::sys::Errno;
use crate::sys::futex::{self, Word};
use crate::sys::poll::{self, Interest};
use std::sync::Arc;

/// Descriptors and words, or the thread's doorbell.
#[derive(Debug, Default)]
pub struct Waits {
    interests: Vec<Interest>,
    words: Vec<Word>,
    /// Some bell announces room in a ring whose consumer checks for sleepers without a fence.
    room: bool,
    doorbell: Option<Arc<Semaphore>>,
}

impl Waits {
    /// Makes a wait with room for this many of each, their memory touched; or with the semaphore
    /// that all rings of the thread ring.
    pub fn with_room_for(count: usize, doorbell: Option<Arc<Semaphore>>) -> Waits {
        let mut words = vec![Word::NONE; count];
        words.clear();
        Waits {
            interests: poll::room_for(count),
            words,
            room: false,
            doorbell,
        }
    }

    /// Removes everything. Call it first: a doorbell that is rung afterwards ends the wait, one
    /// that was rung before does not.
    pub fn clear(&mut self) {
        self.interests.clear();
        self.words.clear();
        self.room = false;
        if let Some(doorbell) = &self.doorbell {
            doorbell.clear();
        }
    }

    /// Adds a descriptor.
    pub fn push(&mut self, interest: Interest) {
        self.interests.push(interest);
    }

    /// Adds a word.
    pub fn push_word(&mut self, word: Word) {
        self.words.push(word);
    }

    /// Adds a bell; call it before the flag that makes the producer ring is raised.
    pub fn push_bell(&mut self, bells: &Bells, bell: u32) {
        // A bell that is not a word is the thread's doorbell.
        self.words.extend(bells.word(bell));
    }

    /// Adds the bell that announces room in a ring.
    pub fn push_room(&mut self, bells: &Bells, bell: u32) {
        self.push_bell(bells, bell);
        self.room = true;
    }

    /// Whether rings of sources ring their bells, because there are no descriptors to wait for
    /// beside them.
    pub fn is_by_bells(&self) -> bool {
        self.doorbell.is_some() || self.interests.is_empty() && self.words.len() < futex::WORDS_MAX
    }

    /// Whether a thread that waits only for an offer parks at the word of its hand-off slot;
    /// otherwise its doorbell is rung.
    pub fn parks(&self) -> bool {
        self.doorbell.is_none() && self.is_by_bells()
    }

    /// Limits the time of a wait that is made elsewhere: it is shorter if a ring's consumer may
    /// miss that room is wanted.
    pub fn bound(&self, bound_ns: u64) -> u64 {
        if self.room {
            bound_ns.min(ROOM_POLL_NS)
        } else {
            bound_ns
        }
    }

    /// Waits for any of them, for at most this long.
    ///
    /// # Safety
    /// 1. The memory of the words is still mapped.
    pub unsafe fn wait(&mut self, skin: &Skin, bound_ns: u64) -> Result<(), Errno> {
        if let Some(doorbell) = &self.doorbell {
            return doorbell.wait(self.bound(bound_ns));
        }
        let by_words = self.interests.is_empty() && !self.words.is_empty();
        // Words beside descriptors are not waited for, nor are those beyond the kernel's limit.
        let unheard = !by_words && !self.words.is_empty() || self.words.len() > futex::WORDS_MAX;
        let bound_ns = if unheard {
            bound_ns.min(ROOM_POLL_NS)
        } else {
            self.bound(bound_ns)
        };
        if by_words {
            let words = &self.words[..self.words.len().min(futex::WORDS_MAX)];
            // SAFETY: the caller's contract.
            return unsafe { futex::wait_any(words, bound_ns) };
        }
        (skin.wait_ready)(&mut self.interests, bound_ns).map(drop)
    }
}
