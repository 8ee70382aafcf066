//! A ring between processes: its memory, made by the daemon, and the ends that are mapped from it.

use super::bell::Bells;
use super::consumer::Consumer;
use super::layout::{Claims, GIVEN_UP, Geometry, HISTOGRAM_OFFSET, LEFT, SLOTS_OFFSET};
use super::memory::View;
use super::producer::Producer;
use crate::stats::cells::Recorder;
use crate::stats::layout::HistogramRecord;
use crate::sys::eventfd::{EventFd, Listener};
use crate::sys::memfd::{Map, Memory};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// One of the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The sending end.
    Producer,
    /// The receiving end.
    Consumer,
}

/// The memory of a ring, held by the process that made it.
#[derive(Debug)]
pub struct Shared {
    geometry: Geometry,
    producer: Memory,
    consumer: Memory,
    eventfd: EventFd,
}

/// The descriptors that one end needs: the producer's memory, the consumer's (its own writable, the
/// other's not), and the eventfd, which the consumer can only read.
#[derive(Debug)]
pub struct Handles {
    /// The producer's memory.
    pub producer: OwnedFd,
    /// The consumer's memory.
    pub consumer: OwnedFd,
    /// Rung for a consumer that requests it: an [`EventFd`] for the producer, a [`Listener`] for
    /// the consumer.
    pub eventfd: OwnedFd,
}

impl Shared {
    /// Creates an empty ring. `name` shows in /proc/PID/maps.
    pub fn create(name: &str, geometry: Geometry) -> io::Result<Shared> {
        Ok(Shared {
            geometry,
            producer: Memory::new(name, geometry.producer_bytes())?,
            consumer: Memory::new(name, geometry.consumer_bytes())?,
            eventfd: EventFd::new()?,
        })
    }

    /// Descriptors for one end, to be sent to another process.
    pub fn handles(&self, side: Side) -> io::Result<Handles> {
        Ok(match side {
            Side::Producer => Handles {
                producer: self.producer.as_fd().try_clone_to_owned()?,
                consumer: self.consumer.read_only()?,
                eventfd: self.eventfd.as_fd().try_clone_to_owned()?,
            },
            Side::Consumer => Handles {
                producer: self.producer.read_only()?,
                consumer: self.consumer.as_fd().try_clone_to_owned()?,
                eventfd: self.eventfd.listen()?.into(),
            },
        })
    }

    /// Seals the memory that `side` writes, after that end has mapped it: nobody else can map it
    /// for writing.
    pub fn seal(&self, side: Side) -> io::Result<()> {
        match side {
            Side::Producer => self.producer.deny_writers(),
            Side::Consumer => self.consumer.deny_writers(),
        }
    }

    /// The memory that `side` writes.
    pub fn written_by(&self, side: Side) -> io::Result<Memory> {
        match side {
            Side::Producer => self.producer.try_clone(),
            Side::Consumer => self.consumer.try_clone(),
        }
    }

    /// The sending end in this process.
    pub fn producer(&self, bells: &Bells, bell: u32) -> io::Result<Producer> {
        let view = view(
            self.geometry,
            bells,
            self.producer.map_writable()?,
            self.consumer.map_read_only()?,
        );
        Ok(Producer::new(view, Some(self.eventfd.try_clone()?), bell))
    }

    /// The receiving end in this process.
    pub fn consumer(&self, bells: &Bells, bell: u32) -> io::Result<Consumer> {
        let view = view(
            self.geometry,
            bells,
            self.producer.map_read_only()?,
            self.consumer.map_writable()?,
        );
        Ok(Consumer::new(view, Some(self.eventfd.listen()?), bell))
    }

    /// A view of the indices from outside.
    pub fn watch(&self, bells: &Bells) -> io::Result<Watch> {
        let (producer, consumer) = (
            self.producer.map_read_only()?,
            self.consumer.map_read_only()?,
        );
        Ok(Watch(view(self.geometry, bells, producer, consumer)))
    }
}

impl Handles {
    /// Maps the sending end.
    pub fn into_producer(
        self,
        geometry: Geometry,
        bells: &Bells,
        bell: u32,
    ) -> io::Result<Producer> {
        let producer = Map::of(self.producer.as_fd(), geometry.producer_bytes(), true)?;
        let consumer = Map::of(self.consumer.as_fd(), geometry.consumer_bytes(), false)?;
        let eventfd = EventFd::from_fd(self.eventfd);
        Ok(Producer::new(
            view(geometry, bells, producer, consumer),
            Some(eventfd),
            bell,
        ))
    }

    /// Maps the receiving end.
    pub fn into_consumer(
        self,
        geometry: Geometry,
        bells: &Bells,
        bell: u32,
    ) -> io::Result<Consumer> {
        let producer = Map::of(self.producer.as_fd(), geometry.producer_bytes(), false)?;
        let consumer = Map::of(self.consumer.as_fd(), geometry.consumer_bytes(), true)?;
        let eventfd = Listener::from_fd(self.eventfd);
        Ok(Consumer::new(
            view(geometry, bells, producer, consumer),
            Some(eventfd),
            bell,
        ))
    }

    /// The descriptors in the order in which they are sent.
    pub fn as_fds(&self) -> [BorrowedFd<'_>; 3] {
        [
            self.producer.as_fd(),
            self.consumer.as_fd(),
            self.eventfd.as_fd(),
        ]
    }

    /// The descriptors from that order.
    pub fn from_fds([producer, consumer, eventfd]: [OwnedFd; 3]) -> Handles {
        Handles {
            producer,
            consumer,
            eventfd,
        }
    }
}

pub(super) fn view(geometry: Geometry, bells: &Bells, producer: Map, consumer: Map) -> View {
    let locked = producer.is_locked() && consumer.is_locked();
    let creator = producer.creator();
    let words = producer.start().cast();
    // SAFETY: the mapping is at least SLOTS_OFFSET long (`Geometry::producer_bytes`, checked where
    // it was mapped).
    let slots = unsafe { producer.start().add(SLOTS_OFFSET) }.cast();
    let consumer_words = consumer.start().cast();
    let histogram = geometry.is_timed().then(|| {
        // SAFETY: the mapping of a timed ring has the record at this offset
        // (`Geometry::consumer_bytes`, likewise).
        unsafe { consumer.start().add(HISTOGRAM_OFFSET) }
    });
    // SAFETY: the lengths are those of the geometry: `Memory::new` made them so, `Map::of` checked
    // it; a mapping starts on a page, so everything is aligned; both live as long as the Arc. Zero
    // bytes are valid atomics, and so are all.
    let mut view = unsafe {
        View::new(
            words,
            consumer_words,
            slots,
            histogram,
            geometry,
            bells.clone(),
            Arc::new((producer, consumer)),
        )
    };
    (view.locked, view.creator) = (locked, Some(creator));
    view
}

/// The indices of a ring whose ends are in other processes. It never looks at a slot.
#[derive(Debug)]
pub struct Watch(View);

/// The result of [`Watch::read`]: unverified values of both ends, brought into a possible order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Indices {
    /// Messages announced.
    pub tail: u64,
    /// Messages taken.
    pub head: u64,
    /// The producer says that nothing more comes.
    pub closed: bool,
    /// The consumer has given up the ring because of the producer's data.
    pub given_up: bool,
    /// The consumer has released its end.
    pub left: bool,
    /// Of the messages not taken, the number that the producer says it moved into its next ring.
    pub moved: u64,
}

impl View {
    fn lock_again(&self) {
        if let Some((producer, consumer)) = self.keep.downcast_ref::<(Map, Map)>() {
            producer.lock_again();
            consumer.lock_again();
        }
    }
}

impl Producer {
    /// Brings back pages that the consumer took away before its memory was sealed; see
    /// [`Map::lock_again`].
    pub fn lock_again(&self) {
        self.view().lock_again();
    }

    /// A view of the consumer's words, for another thread of this process.
    pub fn watch(&self) -> Watch {
        Watch(self.view().clone())
    }
}

impl Consumer {
    /// Brings back pages that the producer took away before its memory was sealed; see
    /// [`Map::lock_again`].
    pub fn lock_again(&self) {
        self.view().lock_again();
    }

    /// The recorder of latencies of this end, in a timed ring; call it once.
    pub fn recorder(&self) -> Option<Recorder> {
        let view = self.view();
        let histogram = view.histogram?.cast();
        // SAFETY: the record lives as long as `keep`, it is this end's to write, and this end asks
        // once.
        Some(unsafe { Recorder::new(histogram, Arc::clone(&view.keep)) })
    }
}

impl Watch {
    /// A view of a ring that another daemon made, from the descriptors that one of its ends sent:
    /// the producer's memory and the consumer's. Of the producer's memory only the words are
    /// mapped, not the slots.
    ///
    /// Errors: the descriptors are those of other memory.
    pub fn of_stranger(
        geometry: Geometry,
        bells: &Bells,
        producer: BorrowedFd<'_>,
        consumer: BorrowedFd<'_>,
    ) -> io::Result<Watch> {
        let producer = Map::of_stranger(producer, geometry.producer_bytes(), SLOTS_OFFSET, false)?;
        let len = geometry.consumer_bytes();
        let consumer = Map::of_stranger(consumer, len, len, false)?;
        // The slots begin inside the mapping's page, and a `Watch` reads none of them.
        Ok(Watch(view(geometry, bells, producer, consumer)))
    }

    /// The reports of the receiver's library about the messages that it took; `None` if they cannot
    /// be true.
    pub fn claims(&self) -> Option<Claims> {
        use crate::sync::Ordering::Acquire;
        let words = self.0.consumer();
        // SYNC POINT with `Consumer::count`: a message is counted after its release.
        let (expired, superseded) = (words.expired.load(Acquire), words.superseded.load(Acquire));
        let late = words.late.load(Acquire);
        let head = words.head.load(Acquire);
        // A message that is read in place counts as late before its release.
        let tail = self.0.producer().tail.load(Acquire);
        let discarded = expired.checked_add(superseded)?;
        (discarded <= head && late <= tail).then_some(Claims {
            expired,
            superseded,
            late,
        })
    }

    /// Whether the consumer has released its end: it takes no more messages.
    pub fn has_left(&self) -> bool {
        self.0
            .consumer()
            .given_up
            .load(crate::sync::Ordering::Acquire)
            == LEFT
    }

    /// Messages announced and not taken; in a ring that displaces, including overwritten ones. An
    /// allegation of both ends.
    pub fn left(&self) -> u64 {
        use crate::sync::Ordering::Acquire;
        // The head first: it never overtakes a tail that is read later.
        let head = self.0.consumer().head.load(Acquire);
        let tail = self.0.producer().tail.load(Acquire);
        tail.saturating_sub(head)
    }

    /// The latencies that the receiver's library measured, as it wrote them: they may be any
    /// numbers. None if the ring has no room for them.
    pub fn latencies(&self) -> Option<&HistogramRecord> {
        // SAFETY: point 2 of `View::new`.
        self.0
            .histogram
            .map(|histogram| unsafe { histogram.cast::<HistogramRecord>().as_ref() })
    }

    /// The indices that both ends claim, or `None` if they are impossible.
    pub fn read(&self) -> Option<Indices> {
        use crate::sync::Ordering;
        // Read before the tail: a producer announces its last message before it closes.
        let closed = self.0.producer().closed.load(Ordering::Acquire) != 0;
        // The head first: it never overtakes a tail that is read later.
        let head = self.0.consumer().head.load(Ordering::Acquire);
        let tail = self.0.producer().tail.load(Ordering::Acquire);
        // Between the two reads the ring may advance by any number, because this thread may be
        // preempted: a second read of the head bounds the distance to the tail. Nothing bounds that
        // head from above.
        let later = self.0.consumer().head.load(Ordering::Acquire);
        let slots = u64::from(self.0.geometry.slots());
        let possible =
            head <= tail && head <= later && tail - head <= slots.saturating_add(later - head);
        let end = self.0.consumer().given_up.load(Ordering::Acquire);
        let (given_up, left) = (end == GIVEN_UP, end == LEFT);
        let head = later.min(tail);
        let moved = self
            .0
            .producer()
            .moved
            .load(Ordering::Relaxed)
            .min(tail - head);
        possible.then_some(Indices {
            tail,
            head,
            closed,
            given_up,
            left,
            moved,
        })
    }
}
