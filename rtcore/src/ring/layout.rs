//! The bytes of a ring. Both ends run on one machine, so numbers have its byte order.

use crate::message::{Meta, Origin};
use crate::sync::{AtomicU64, Ordering};

/// Most slots of a ring.
pub const SLOTS_MAX: u32 = 1 << 16;
/// Most payload bytes of a slot.
pub const PAYLOAD_BYTES_MAX: u32 = 1 << 20;
/// Bytes of a slot's envelope.
pub const ENVELOPE_BYTES: usize = 64;
const ENVELOPE_WORDS: usize = ENVELOPE_BYTES / 8;
/// Offset of the slots in the producer's memory.
pub const SLOTS_OFFSET: usize = size_of::<ProducerWords>();
/// Offset of the latencies of a timed ring in the consumer's memory.
pub(super) const HISTOGRAM_OFFSET: usize = size_of::<ConsumerWords>();
/// Bytes of these latencies. (Loom builds no statistics and no mappings.)
#[cfg(not(loom))]
const HISTOGRAM_BYTES: usize = size_of::<crate::stats::layout::HistogramRecord>();
#[cfg(loom)]
const HISTOGRAM_BYTES: usize = 0;
/// Limit of a ring's size, so that sizes never overflow.
const RING_BYTES_MAX: usize = 1 << 29;

/// The size of a ring, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    slots: u32,
    payload_bytes: u32,
    timed: bool,
}

impl Geometry {
    /// Makes a geometry. `slots` is a power of two up to [`SLOTS_MAX`], `payload_bytes` at most
    /// [`PAYLOAD_BYTES_MAX`]; none otherwise, or if the whole would be larger than 512 MiB.
    pub fn new(slots: u32, payload_bytes: u32) -> Option<Geometry> {
        let fits =
            slots.is_power_of_two() && slots <= SLOTS_MAX && payload_bytes <= PAYLOAD_BYTES_MAX;
        let geometry = Geometry {
            slots,
            payload_bytes,
            timed: false,
        };
        (fits && geometry.producer_bytes() <= RING_BYTES_MAX).then_some(geometry)
    }

    /// Adds room in the consumer's memory for the latencies that the consumer measures.
    #[must_use]
    pub fn timed(self) -> Geometry {
        Geometry {
            timed: true,
            ..self
        }
    }

    /// Whether the consumer's memory has that room.
    pub fn is_timed(&self) -> bool {
        self.timed
    }

    /// Slots.
    pub fn slots(&self) -> u32 {
        self.slots
    }

    /// Payload bytes of a slot.
    pub fn payload_bytes(&self) -> u32 {
        self.payload_bytes
    }

    /// 64-bit words from one slot to the next: whole cache lines.
    pub(super) fn stride_words(&self) -> usize {
        (ENVELOPE_BYTES + self.payload_bytes as usize).next_multiple_of(64) / 8
    }

    /// Bytes of both ends' memory.
    pub fn bytes(&self) -> u64 {
        (self.producer_bytes() + self.consumer_bytes()) as u64
    }

    /// Bytes of the memory that the producer writes.
    pub fn producer_bytes(&self) -> usize {
        SLOTS_OFFSET + self.slots as usize * self.stride_words() * 8
    }

    /// Bytes of the memory that the consumer writes.
    pub fn consumer_bytes(&self) -> usize {
        HISTOGRAM_OFFSET + if self.timed { HISTOGRAM_BYTES } else { 0 }
    }

    /// The slot of message `index`.
    pub(super) fn slot_of(&self, index: u64) -> usize {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "below the number of slots, which is a u32"
        )]
        let slot = (index & u64::from(self.slots - 1)) as usize;
        slot
    }
}

/// The words that the producer writes. The consumer maps them read-only.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub(super) struct ProducerWords {
    /// Messages announced.
    pub tail: AtomicU64,
    pad: [u64; 7],
    /// How it sleeps: a flag of [`super::bell`].
    pub sleep: AtomicU64,
    /// 1 after the last message: the producer has moved on to another ring.
    pub closed: AtomicU64,
    /// Messages that the consumer had not taken when it left, and that the producer moved into its
    /// next ring.
    pub moved: AtomicU64,
    pad2: [u64; 5],
}

/// The words that the consumer writes. The producer maps them read-only.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub(super) struct ConsumerWords {
    /// Messages that are finished.
    pub head: AtomicU64,
    pad: [u64; 7],
    /// How it sleeps: a flag of [`super::bell`].
    pub sleep: AtomicU64,
    /// Not 0 when it takes nothing more: [`GIVEN_UP`], [`LEFT`] or [`STOPPED`].
    pub given_up: AtomicU64,
    /// After [`STOPPED`]: 1 + the index below which announced messages count; 0 until that is
    /// decided.
    pub stopped_at: AtomicU64,
    pad2: [u64; 5],
    /// [`Claims`]: what became of messages after they were taken.
    pub expired: AtomicU64,
    pub superseded: AtomicU64,
    pub late: AtomicU64,
    pad3: [u64; 5],
}

/// The producer wrote what cannot be.
pub(super) const GIVEN_UP: u64 = 1;
/// The consumer let go of its end; what it had not taken is still in the ring.
pub(super) const LEFT: u64 = 2;
/// rtd ends; what it had not taken is the next rtd's, to which the sender's session moves it.
pub(super) const STOPPED: u64 = 3;

#[cfg(not(loom))]
const _: () = assert!(size_of::<ProducerWords>() == 128 && size_of::<ConsumerWords>() == 192);
#[cfg(not(loom))]
const _: () = assert!(std::mem::offset_of!(ProducerWords, sleep) == 64);

/// The report of the receiver's library on the messages that it took out of a ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// Discarded: older than the route's ttl.
    pub expired: u64,
    /// Discarded: the route keeps newer messages only.
    pub superseded: u64,
    /// Handed out later than the route's deadline after the time at which they should have been
    /// sent.
    pub late: u64,
}

/// The message that the state of a slot is about, complete or not.
pub(super) fn message_of(state: u64) -> u64 {
    state.wrapping_sub(1) >> 1
}

/// The kind of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Bytes, with the mq priority they came with (0 from a ring).
    Bytes {
        /// mq priority.
        priority: u32,
    },
    /// A signal: the payload is its value (8 bytes), or more where the route carries more.
    Signal {
        /// Kernel number.
        signo: i32,
    },
}

/// The contents of a slot beside the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Number and stamps.
    pub meta: Meta,
    /// Who sent it, as the writer of the slot says: only the daemon is to be believed.
    pub origin: Origin,
    /// Bytes or a signal.
    pub kind: Kind,
    /// Payload bytes.
    pub len: u32,
}

const FLAG_SIGNAL: u32 = 1;
const FLAG_VERIFIED: u32 = 2;

/// The state of the slot that message `index` is being written into.
pub(super) fn in_progress(index: u64) -> u64 {
    index.wrapping_mul(2).wrapping_add(1)
}

/// The state of the slot that holds message `index`.
pub(super) fn complete(index: u64) -> u64 {
    index.wrapping_mul(2).wrapping_add(2)
}

/// One slot's words: state, then the envelope, then the payload.
#[derive(Clone, Copy)]
pub(super) struct Slot<'a>(pub &'a [AtomicU64]);

impl<'a> Slot<'a> {
    pub fn state(self) -> &'a AtomicU64 {
        &self.0[0]
    }

    pub fn payload(self) -> &'a [AtomicU64] {
        &self.0[ENVELOPE_WORDS..]
    }

    pub fn write(self, envelope: &Envelope) {
        let Envelope {
            meta,
            origin,
            kind,
            len,
        } = envelope;
        let (kind_flag, number) = match kind {
            Kind::Bytes { priority } => (0, *priority),
            Kind::Signal { signo } => (FLAG_SIGNAL, signo.cast_unsigned()),
        };
        let flags = kind_flag | if origin.verified { FLAG_VERIFIED } else { 0 };
        let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        let words = [
            pair(*len, flags),
            meta.sequence,
            meta.intended_ns,
            meta.sent_ns,
            meta.correlation,
            pair(origin.pid, origin.uid),
            pair(meta.epoch, number),
        ];
        for (to, word) in self.0[1..].iter().zip(words) {
            to.store(word, Ordering::Relaxed);
        }
    }

    /// What stands there; the flags that are not known are handed back as an error. Lengths are the
    /// caller's to check.
    pub fn read(self) -> Result<Envelope, u32> {
        let word = |n: usize| self.0[n].load(Ordering::Relaxed);
        #[expect(clippy::cast_possible_truncation, reason = "the halves of a word")]
        let halves = |n: usize| (word(n) as u32, (word(n) >> 32) as u32);
        let (len, flags) = halves(1);
        if flags & !(FLAG_SIGNAL | FLAG_VERIFIED) != 0 {
            return Err(flags);
        }
        let (pid, uid) = halves(6);
        let (epoch, number) = halves(7);
        let meta = Meta {
            sequence: word(2),
            intended_ns: word(3),
            sent_ns: word(4),
            correlation: word(5),
            epoch,
        };
        let kind = if flags & FLAG_SIGNAL == 0 {
            Kind::Bytes { priority: number }
        } else {
            Kind::Signal {
                signo: number.cast_signed(),
            }
        };
        Ok(Envelope {
            meta,
            origin: Origin {
                pid,
                uid,
                verified: flags & FLAG_VERIFIED != 0,
            },
            kind,
            len,
        })
    }
}

/// Copies bytes into words of shared memory. Word by word and atomic, so that whatever the other
/// side does at the same time, nothing here is undefined.
#[inline]
pub(super) fn copy_in(to: &[AtomicU64], from: &[u8]) {
    let (chunks, rest) = from.as_chunks::<8>();
    for (word, chunk) in to.iter().zip(chunks) {
        word.store(u64::from_ne_bytes(*chunk), Ordering::Relaxed);
    }
    if !rest.is_empty()
        && let Some(word) = to.get(chunks.len())
    {
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        word.store(u64::from_ne_bytes(last), Ordering::Relaxed);
    }
}

/// Copies words of shared memory into bytes, likewise.
#[inline]
pub(super) fn copy_out(to: &mut [u8], from: &[AtomicU64]) {
    let (chunks, rest) = to.as_chunks_mut::<8>();
    let count = chunks.len();
    for (chunk, word) in chunks.iter_mut().zip(from) {
        *chunk = word.load(Ordering::Relaxed).to_ne_bytes();
    }
    if !rest.is_empty()
        && let Some(word) = from.get(count)
    {
        let last = word.load(Ordering::Relaxed).to_ne_bytes();
        let n = rest.len();
        rest.copy_from_slice(&last[..n]);
    }
}
