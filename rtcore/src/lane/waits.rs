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
    /// Some word stands for room in a ring, whose consumer looks for sleepers without a fence.
    room: bool,
}

impl Waits {
    /// Room for so many of each, their memory touched.
    pub fn with_room_for(count: usize) -> Waits {
        let mut words = vec![Word::NONE; count];
        words.clear();
        Waits { interests: poll::room_for(count), words, room: false }
    }

    /// Nothing to wait for.
    pub fn clear(&mut self) {
        self.interests.clear();
        self.words.clear();
        self.room = false;
    }

    /// Adds a descriptor.
    pub fn push(&mut self, interest: Interest) {
        self.interests.push(interest);
    }

    /// Adds a word.
    pub fn push_word(&mut self, word: Word) {
        self.words.push(word);
    }

    /// Adds the word that announces room in a ring.
    pub fn push_room(&mut self, word: Word) {
        self.words.push(word);
        self.room = true;
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
        let by_words = self.interests.is_empty() && !self.words.is_empty();
        // Words beside descriptors are not waited for, and neither are those past the kernel's number.
        let unheard = !by_words && !self.words.is_empty() || self.words.len() > futex::WORDS_MAX;
        let bound_ns = if self.room || unheard { bound_ns.min(ROOM_LOOK_NS) } else { bound_ns };
        if by_words {
            let words = &self.words[..self.words.len().min(futex::WORDS_MAX)];
            // SAFETY: the caller's contract.
            return unsafe { futex::wait_any(words, bound_ns) };
        }
        (skin.wait_ready)(&mut self.interests, bound_ns).map(drop)
    }
}
