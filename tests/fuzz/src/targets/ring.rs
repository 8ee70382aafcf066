//! Bytes as the deeds of a hostile peer: it writes what it likes, when it likes, into the memory
//! that it may write, and our end of the ring goes on with its work in between.
//!
//! Checked after each step: our end says what can be or that the other one lies; what it says is
//! bounded by the ring; and a ring of two honest ends that shares the page of bells loses nothing.
//! A panic, an endless loop or (under AddressSanitizer) a byte outside the mappings is the failure.
//! When our end calls the ring corrupt, the next one is put over the same memory, as it lies there.

use rtcore::message::{Meta, Origin};
use rtcore::ring::{
    Bells, Consumer, Corrupt, Doorbell, Envelope, Geometry, Kind, Producer, PushError, Shared,
    Side, Watch,
};
use rtcore::sys::memfd::{Map, Memory};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};

/// Steps of one play.
const STEPS_MAX: usize = 2_000;
/// Word where the slots begin, and the words of a slot's envelope.
const SLOTS_WORD: usize = 16;
const ENVELOPE_WORDS: usize = 8;

/// Plays the peer at both ends, one after the other.
pub fn play(bytes: &[u8]) {
    let mut input = Input(bytes);
    let slots = 1 << (input.byte() % 4);
    let payload_bytes = [0, 8, 20, 64, 100, 4096][usize::from(input.byte() % 6)];
    let Some(geometry) = Geometry::new(slots, payload_bytes) else {
        return;
    };
    let page = Memory::new("bells", Bells::BYTES).unwrap();
    let bells = Bells::shared(page.map_writable().unwrap()).unwrap();
    let mut honest = Honest::new(geometry, &bells);
    if input.byte().is_multiple_of(2) {
        let mut victim = Receiving::new(geometry, &bells, page);
        for _ in 0..STEPS_MAX {
            let Some(step) = input.next() else { break };
            victim.step(step, &mut input);
            honest.step();
        }
    } else {
        let mut victim = Sending::new(geometry, &bells, page);
        for _ in 0..STEPS_MAX {
            let Some(step) = input.next() else { break };
            victim.step(step, &mut input);
            honest.step();
        }
    }
}

/// What the peer decides next; zeros when it has run out of ideas.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn byte(&mut self) -> u8 {
        self.next().unwrap_or(0)
    }

    /// A number of its own, or one close to what is honest.
    fn number(&mut self, honest: u64) -> u64 {
        match self.byte() {
            near @ 0..=199 => honest.wrapping_add(u64::from(near % 20)).wrapping_sub(10),
            200..=209 => u64::from(self.byte()),
            210..=219 => u64::MAX - u64::from(self.byte()),
            220..=229 => 1 << (self.byte() % 64),
            _ => u64::from_ne_bytes(std::array::from_fn(|_| self.byte())),
        }
    }

    fn below(&mut self, end: usize) -> usize {
        (usize::from(self.byte()) << 8 | usize::from(self.byte())) % end.max(1)
    }
}

fn word(map: &Map, at: usize) -> &AtomicU64 {
    let at = at % (map.len() / 8);
    // SAFETY: inside the mapping and aligned, as it starts on a page; everybody uses atomics.
    unsafe { AtomicU64::from_ptr(map.start().as_ptr().cast::<u64>().add(at)) }
}

fn envelope(sequence: u64) -> Envelope {
    let meta = Meta {
        sequence,
        ..Meta::default()
    };
    Envelope {
        meta,
        origin: Origin::UNKNOWN,
        kind: Kind::Bytes { priority: 0 },
        len: 0,
    }
}

/// Our end receives; the peer writes the producer's memory and the bells.
struct Receiving {
    ring: Shared,
    bells: Bells,
    theirs: Map,
    page: Map,
    watch: Watch,
    geometry: Geometry,
    consumer: Consumer,
    taken: u64,
    buffer: Vec<u8>,
}

impl Receiving {
    fn new(geometry: Geometry, bells: &Bells, page: Memory) -> Receiving {
        let ring = Shared::create("receiving", geometry).unwrap();
        let memory = ring.handles(Side::Producer).unwrap().producer;
        let theirs = Map::of(memory.as_fd(), geometry.producer_bytes(), true).unwrap();
        let handles = ring.handles(Side::Consumer).unwrap();
        Receiving {
            consumer: handles.into_consumer(geometry, bells, 0).unwrap(),
            watch: ring.watch(bells).unwrap(),
            bells: bells.clone(),
            page: page.map_writable().unwrap(),
            buffer: vec![0; geometry.payload_bytes() as usize],
            taken: 0,
            ring,
            theirs,
            geometry,
        }
    }

    fn step(&mut self, step: u8, input: &mut Input<'_>) {
        let slots = u64::from(self.geometry.slots());
        let next = self.consumer.head().wrapping_add(self.taken);
        match step % 12 {
            0 => word(&self.theirs, input.below(usize::MAX))
                .store(input.number(next), Ordering::SeqCst),
            1 => word(&self.theirs, 0).store(input.number(next), Ordering::SeqCst),
            2 => self.forge(input),
            3 => word(&self.page, input.below(512)).store(input.number(0), Ordering::SeqCst),
            4 | 5 => self.take(input),
            6 => {
                self.consumer.release();
                self.taken = 0;
            }
            7 => self.front(),
            8 => match self.consumer.available() {
                Ok(available) => assert!(available + self.taken <= slots),
                Err(_) => self.replace(),
            },
            9 => {
                self.consumer.set_bell(input.byte().into());
                self.consumer
                    .arm([Doorbell::Bell, Doorbell::EventFd, Doorbell::Signal][input.below(3)]);
                self.consumer.disarm();
            }
            10 => {
                let _ = self.consumer.wait(0);
                let _ = self.consumer.wait_unless(0, || false);
                let _ = self.consumer.eventfd().map(|eventfd| eventfd.take());
            }
            _ => {
                assert!(self.consumer.backlog() <= slots);
                let _ = (self.consumer.is_closed(), self.consumer.torn());
                let seen = self.watch.read();
                assert!(seen.is_none_or(|seen| seen.head <= seen.tail && seen.tail - seen.head <= slots));
            }
        }
    }

    /// A slot that is almost right, and announced.
    fn forge(&self, input: &mut Input<'_>) {
        let tail = word(&self.theirs, 0).load(Ordering::SeqCst);
        let stride = (64 + self.geometry.payload_bytes() as usize).next_multiple_of(64) / 8;
        let slot =
            usize::try_from(tail % u64::from(self.geometry.slots())).unwrap() * stride + SLOTS_WORD;
        word(&self.theirs, slot).store(tail.wrapping_mul(2).wrapping_add(2), Ordering::SeqCst);
        let len = u64::from(self.geometry.payload_bytes());
        let len = if input.byte() < 200 {
            len
        } else {
            input.number(len)
        };
        word(&self.theirs, slot + 1).store(len, Ordering::SeqCst);
        for at in 2..ENVELOPE_WORDS {
            word(&self.theirs, slot + at).store(input.byte().into(), Ordering::SeqCst);
        }
        word(&self.theirs, 0).store(tail.wrapping_add(1), Ordering::SeqCst);
    }

    fn take(&mut self, input: &mut Input<'_>) {
        let room = if input.byte() < 200 {
            self.buffer.len()
        } else {
            input.below(self.buffer.len() + 1)
        };
        match self.consumer.take(&mut self.buffer[..room]) {
            Ok(Some(envelope)) => {
                assert!(envelope.len <= self.geometry.payload_bytes());
                self.taken += 1;
                assert!(self.taken <= u64::from(self.geometry.slots()));
            }
            Ok(None) => {}
            Err(corrupt) => self.expect_lie(corrupt),
        }
    }

    fn front(&mut self) {
        let max = self.geometry.payload_bytes() as usize;
        let lie = match self.consumer.front() {
            Ok(Some(front)) => {
                assert!(front.copy_to(&mut self.buffer) <= max);
                // SAFETY: the peer is this thread, and idle.
                let bytes = unsafe { front.bytes() };
                assert!(bytes.len() <= max);
                std::hint::black_box(bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)));
                drop(front);
                self.taken = 0;
                None
            }
            Ok(None) => None,
            Err(corrupt) => Some(corrupt),
        };
        if let Some(corrupt) = lie {
            self.expect_lie(corrupt);
        }
    }

    fn expect_lie(&mut self, corrupt: Corrupt) {
        assert!(!corrupt.to_string().is_empty());
        self.replace();
    }

    /// Another end over the same memory.
    fn replace(&mut self) {
        self.consumer = self.ring.consumer(&self.bells, 0).unwrap();
        self.taken = 0;
    }
}

/// Our end sends; the peer writes the consumer's memory and the bells.
struct Sending {
    ring: Shared,
    bells: Bells,
    theirs: Map,
    page: Map,
    watch: Watch,
    geometry: Geometry,
    producer: Producer,
    payload: Vec<u8>,
}

impl Sending {
    fn new(geometry: Geometry, bells: &Bells, page: Memory) -> Sending {
        let ring = Shared::create("sending", geometry).unwrap();
        let memory = ring.handles(Side::Consumer).unwrap().consumer;
        let theirs = Map::of(memory.as_fd(), geometry.consumer_bytes(), true).unwrap();
        let handles = ring.handles(Side::Producer).unwrap();
        Sending {
            producer: handles.into_producer(geometry, bells, 1).unwrap(),
            watch: ring.watch(bells).unwrap(),
            bells: bells.clone(),
            page: page.map_writable().unwrap(),
            payload: vec![0x5a; geometry.payload_bytes() as usize + 2],
            ring,
            theirs,
            geometry,
        }
    }

    fn step(&mut self, step: u8, input: &mut Input<'_>) {
        let (slots, tail) = (u64::from(self.geometry.slots()), self.producer.tail());
        match step % 12 {
            0 => word(&self.theirs, input.below(usize::MAX))
                .store(input.number(tail), Ordering::SeqCst),
            1 => word(&self.theirs, 0).store(input.number(tail), Ordering::SeqCst),
            2 => word(&self.theirs, 8).store(input.number(0), Ordering::SeqCst),
            3 => word(&self.page, input.below(512)).store(input.number(0), Ordering::SeqCst),
            4 | 5 => self.push(input),
            6 => self.loan(input),
            7 => {
                let taken = self.producer.recovery_cursor().taken(tail);
                assert!(tail.wrapping_sub(taken) <= slots, "{taken} of {tail}");
            }
            8 => self.move_on(input),
            9 => match self.producer.wait_for_room(0) {
                Ok(room) => assert!(!room || self.producer.has_room() == Ok(true)),
                Err(_) => self.replace(),
            },
            10 => {
                self.producer.unring();
                self.producer.close();
                self.producer.want_room();
            }
            _ => {
                let seen = self.watch.read();
                assert!(seen.is_none_or(|seen| seen.head <= seen.tail && seen.tail - seen.head <= slots));
            }
        }
    }

    fn push(&mut self, input: &mut Input<'_>) {
        let (tail, max) = (self.producer.tail(), self.geometry.payload_bytes());
        let len = input.below(self.payload.len() + 1);
        match self.producer.push(&envelope(tail), &self.payload[..len]) {
            Ok(_) => assert!(len <= max as usize && self.producer.tail() == tail.wrapping_add(1)),
            Err(PushError::TooLarge {
                len: said,
                max: bound,
            }) => {
                assert!(len > max as usize && (said, bound) == (len, max));
            }
            Err(PushError::Full) => assert_eq!(self.producer.tail(), tail),
            Err(PushError::Corrupt(_)) => self.replace(),
        }
    }

    fn loan(&mut self, input: &mut Input<'_>) {
        let len = input.below(self.payload.len() + 1);
        let lie = match self.producer.loan(len) {
            Ok(mut loan) => {
                assert_eq!(loan.len(), len);
                loan.fill(0xa5);
                if input.byte().is_multiple_of(2) {
                    loan.commit(&envelope(0));
                }
                false
            }
            Err(PushError::TooLarge { .. }) => {
                assert!(len > self.geometry.payload_bytes() as usize);
                false
            }
            Err(PushError::Full) => false,
            Err(PushError::Corrupt(_)) => true,
        };
        if lie {
            self.replace();
        }
    }

    /// What the peer left goes into another ring.
    fn move_on(&mut self, input: &mut Input<'_>) {
        let (cursor, tail) = (self.producer.recovery_cursor(), self.producer.tail());
        let from = if input.byte() < 200 {
            cursor.taken(tail)
        } else {
            input.number(tail)
        };
        let (mut next, mut reader) = rtcore::ring::local(self.geometry);
        let moved = cursor.move_to(from, tail, &mut next).moved;
        assert!(moved <= u64::from(self.geometry.slots()));
        let mut buffer = vec![0; self.geometry.payload_bytes() as usize];
        for _ in 0..moved {
            let got = reader.take(&mut buffer).unwrap().unwrap();
            assert!(
                buffer[..got.len as usize]
                    .iter()
                    .all(|byte| matches!(byte, 0x5a | 0xa5))
            );
        }
        assert_eq!(reader.take(&mut buffer), Ok(None));
    }

    /// Another end over the same memory.
    fn replace(&mut self) {
        self.producer = self.ring.producer(&self.bells, 1).unwrap();
    }
}

/// Two ends that keep to the rules, beside all that.
struct Honest {
    producer: Producer,
    consumer: Consumer,
    count: u64,
}

impl Honest {
    fn new(geometry: Geometry, bells: &Bells) -> Honest {
        let ring = Shared::create("honest", geometry).unwrap();
        let (producer, consumer) = (
            ring.producer(bells, 3).unwrap(),
            ring.consumer(bells, 2).unwrap(),
        );
        Honest {
            producer,
            consumer,
            count: 0,
        }
    }

    fn step(&mut self) {
        self.count += 1;
        let payload = [self.count.to_ne_bytes()[0]; 4096];
        let payload = &payload[..self.producer.geometry().payload_bytes() as usize];
        self.consumer.arm(Doorbell::Signal);
        assert_eq!(
            self.producer.push(&envelope(self.count), payload),
            Ok(true),
            "rung for"
        );
        let mut buffer = [0; 4096];
        let got = self.consumer.take(&mut buffer).unwrap().unwrap();
        assert_eq!(
            (got.meta.sequence, &buffer[..got.len as usize]),
            (self.count, payload)
        );
        assert_eq!(self.consumer.take(&mut buffer), Ok(None));
        self.consumer.disarm();
        self.consumer.release();
    }
}
