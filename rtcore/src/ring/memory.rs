//! The memory of a ring as both ends access it.

use super::bell::Bells;
use super::consumer::Consumer;
use super::layout::{ConsumerWords, Geometry, ProducerWords, Slot};
use super::producer::Producer;
use crate::sync::AtomicU64;
#[cfg(not(loom))]
use crate::sys::forked::Creator;
use std::any::Any;
use std::ptr::NonNull;
use std::sync::Arc;

/// Pointers into the two pieces of a ring's memory.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub producer: NonNull<ProducerWords>,
    pub consumer: NonNull<ConsumerWords>,
    slots: NonNull<AtomicU64>,
    /// The latencies in the consumer's memory, if the geometry is timed.
    pub histogram: Option<NonNull<u8>>,
    pub geometry: Geometry,
    pub bells: Bells,
    /// Both pieces are locked in memory.
    pub locked: bool,
    /// The process that has mapped the memory, if a forked child does not inherit it.
    #[cfg(not(loom))]
    pub creator: Option<Creator>,
    /// Keeps the memory alive.
    pub keep: Arc<dyn Any + Send + Sync>,
}

// SAFETY: the memory behind the pointers lives as long as `keep` and consists of atomics.
unsafe impl Send for View {}

impl View {
    /// # Safety
    /// 1. `producer` and `slots` point at `geometry`'s words and slots, `consumer` at consumer
    ///    words, all of which live as long as `keep` and are only ever read and written as atomics.
    /// 2. `histogram` points at a `HistogramRecord` of the consumer's, likewise, or nowhere.
    /// 3. The pieces may be mapped read-only; then nobody calls what writes there: a producer
    ///    writes the producer's piece only, a consumer the consumer's.
    pub unsafe fn new(
        producer: NonNull<ProducerWords>,
        consumer: NonNull<ConsumerWords>,
        slots: NonNull<AtomicU64>,
        histogram: Option<NonNull<u8>>,
        geometry: Geometry,
        bells: Bells,
        keep: Arc<dyn Any + Send + Sync>,
    ) -> View {
        View {
            producer,
            consumer,
            slots,
            histogram,
            geometry,
            bells,
            locked: false,
            #[cfg(not(loom))]
            creator: None,
            keep,
        }
    }

    /// Whether the memory is mapped: a forked child has the pointers but not the memory. Functions
    /// that such a child may call with an inherited end (mostly drops) check this first; for sends
    /// and receives it was checked before.
    #[inline]
    pub fn is_mapped(&self) -> bool {
        #[cfg(not(loom))]
        return self.creator.is_none_or(|creator| creator.is_current());
        #[cfg(loom)]
        true
    }

    #[inline]
    pub fn producer(&self) -> &ProducerWords {
        // SAFETY: point 1 of `new`.
        unsafe { self.producer.as_ref() }
    }

    #[inline]
    pub fn consumer(&self) -> &ConsumerWords {
        // SAFETY: point 1 of `new`.
        unsafe { self.consumer.as_ref() }
    }

    /// The slot of message `index`.
    #[inline]
    pub fn slot(&self, index: u64) -> Slot<'_> {
        let stride = self.geometry.stride_words();
        let at = self.geometry.slot_of(index) * stride;
        // SAFETY: slot_of is below the number of slots, each of `stride` words (point 1 of `new`).
        Slot(unsafe { std::slice::from_raw_parts(self.slots.as_ptr().add(at), stride) })
    }

    /// The payload of a slot as memory, for a producer that writes in place.
    pub fn payload_start(&self, index: u64) -> NonNull<u8> {
        NonNull::from(self.slot(index).payload()).cast()
    }
}

/// A ring between two threads of one process, in ordinary memory.
pub fn local(geometry: Geometry) -> (Producer, Consumer) {
    struct Local {
        producer: ProducerWords,
        consumer: ConsumerWords,
        slots: Vec<AtomicU64>,
    }
    let words = geometry.stride_words() * geometry.slots() as usize;
    let memory = Arc::new(Local {
        producer: ProducerWords::default(),
        consumer: ConsumerWords::default(),
        slots: (0..words).map(|_| AtomicU64::new(0)).collect(),
    });
    let (producer, consumer) = (
        NonNull::from(&memory.producer),
        NonNull::from(&memory.consumer),
    );
    let slots = NonNull::from(memory.slots.as_slice()).cast();
    let bells = Bells::local();
    // SAFETY: all three point into `memory`, which is handed over to keep, and nobody has any of it
    // but as atomics.
    let view = unsafe { View::new(producer, consumer, slots, None, geometry, bells, memory) };
    (
        Producer::new(view.clone(), None, 1),
        Consumer::new(view, None, 0),
    )
}
