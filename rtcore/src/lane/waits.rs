//! What a lane thread waits for while something is queued in front of a full receiver, or when it has several
//! sources: descriptors and futex words, in two vectors that were allocated before the seal.
//!
//! The kernel has no call that waits for both kinds at once. Where there are descriptors, rings of sources ring their
//! eventfd, and room in a ring is looked for every [`ROOM_LOOK_NS`].

use crate::ring::producer::ROOM_LOOK_NS;
use crate::skin::Skin;
use crate::sys::Errno;
use crate::sys::futex::{self, Word};
use crate::sys::poll::{self, Interest};

/// Both kinds.
#[derive(Debug, Default)]
pub struct Waits {
    interests: Vec<Interest>,
    words: Vec<Word>,
}

impl Waits {
    /// Room for so many of each, their memory touched.
    pub fn with_room_for(count: usize) -> Waits {
        let mut words = vec![Word::NONE; count];
        words.clear();
        Waits { interests: poll::room_for(count), words }
    }

    /// Nothing to wait for.
    pub fn clear(&mut self) {
        self.interests.clear();
        self.words.clear();
    }

    /// Adds a descriptor.
    pub fn push(&mut self, interest: Interest) {
        self.interests.push(interest);
    }

    /// Adds a word.
    pub fn push_word(&mut self, word: Word) {
        self.words.push(word);
    }

    /// Whether there are words only: then a source that is a ring is waited for by its word too.
    pub fn is_words_only(&self) -> bool {
        self.interests.is_empty() && self.words.len() < futex::WORDS_MAX
    }

    /// Waits for any of it, at most so long.
    ///
    /// # Safety
    /// 1. What the words were made of is still there.
    pub unsafe fn wait(&mut self, skin: &Skin, bound_ns: u64) -> Result<(), Errno> {
        if self.interests.is_empty() && !self.words.is_empty() {
            let words = &self.words[..self.words.len().min(futex::WORDS_MAX)];
            // SAFETY: the caller's contract.
            return unsafe { futex::wait_any(words, bound_ns) };
        }
        let bound_ns = if self.words.is_empty() { bound_ns } else { bound_ns.min(ROOM_LOOK_NS) };
        (skin.wait_ready)(&mut self.interests, bound_ns).map(drop)
    }
}
