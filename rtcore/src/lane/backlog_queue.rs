//! The queue of one route in front of one full receiver: fixed slots, first in first out, one
//! thread.
//!
//! Allocated and touched at setup; nothing here allocates afterwards.

use crate::message::{Body, Message, Meta, Origin};
use crate::sys::memory;

#[derive(Clone, Copy)]
struct Slot {
    kind: SlotKind,
    priority: u32,
    origin: Origin,
    dequeued_ns: u64,
    since_ns: u64,
    meta: Meta,
}

#[derive(Clone, Copy)]
enum SlotKind {
    Bytes { len: usize },
    Signal { signo: i32, value: u64 },
}

pub struct BacklogQueue {
    slots: Vec<Slot>,
    bytes: Vec<u8>,
    slot_bytes: usize,
    head: usize,
    len: usize,
}

impl std::fmt::Debug for BacklogQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BacklogQueue({}/{})", self.len, self.slots.len())
    }
}

impl BacklogQueue {
    /// Makes a queue of `capacity` messages of at most `slot_bytes` each.
    pub fn new(capacity: usize, slot_bytes: usize) -> BacklogQueue {
        let empty = Slot {
            kind: SlotKind::Signal { signo: 0, value: 0 },
            priority: 0,
            origin: Origin::UNKNOWN,
            dequeued_ns: 0,
            since_ns: 0,
            meta: Meta::default(),
        };
        let mut bytes = vec![0; capacity * slot_bytes];
        memory::touch(&mut bytes);
        BacklogQueue {
            slots: vec![empty; capacity],
            bytes,
            slot_bytes,
            head: 0,
            len: 0,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no slot is free.
    pub fn is_full(&self) -> bool {
        self.len == self.slots.len()
    }

    /// Number of messages that it can hold.
    pub fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// Adds a message at the end; false if no slot is free, or the payload is longer than a slot.
    pub fn push(&mut self, message: &Message<'_>) -> bool {
        if self.is_full() {
            return false;
        }
        let at = (self.head + self.len) % self.slots.len();
        let kind = match message.body {
            Body::Signal { signo, value } => SlotKind::Signal { signo, value },
            Body::Bytes(bytes) if bytes.len() <= self.slot_bytes => {
                let start = at * self.slot_bytes;
                self.bytes[start..start + bytes.len()].copy_from_slice(bytes);
                SlotKind::Bytes { len: bytes.len() }
            }
            Body::Bytes(_) => return false,
        };
        let Message {
            priority,
            origin,
            dequeued_ns,
            since_ns,
            meta,
            ..
        } = *message;
        self.slots[at] = Slot {
            kind,
            priority,
            origin,
            dequeued_ns,
            since_ns,
            meta,
        };
        self.len += 1;
        true
    }

    pub fn front(&self) -> Option<Message<'_>> {
        if self.len == 0 {
            return None;
        }
        let slot = &self.slots[self.head];
        let body = match slot.kind {
            SlotKind::Signal { signo, value } => Body::Signal { signo, value },
            SlotKind::Bytes { len } => {
                let start = self.head * self.slot_bytes;
                Body::Bytes(&self.bytes[start..start + len])
            }
        };
        let Slot {
            priority,
            origin,
            dequeued_ns,
            since_ns,
            meta,
            ..
        } = *slot;
        Some(Message {
            body,
            priority,
            origin,
            dequeued_ns,
            since_ns,
            meta,
        })
    }

    /// Whether the newest message is a copy of this one.
    pub fn ends_with(&self, message: &Message<'_>) -> bool {
        let newest = self
            .len
            .checked_sub(1)
            .map(|last| &self.slots[(self.head + last) % self.slots.len()]);
        newest.is_some_and(|slot| {
            slot.dequeued_ns == message.dequeued_ns && slot.meta == message.meta
        })
    }

    /// Drops the oldest message.
    pub fn pop_front(&mut self) {
        if self.len > 0 {
            self.head = (self.head + 1) % self.slots.len();
            self.len -= 1;
        }
    }

    /// Drops the newest message.
    pub fn pop_back(&mut self) {
        self.len = self.len.saturating_sub(1);
    }

    /// Drops all messages; returns their number.
    pub fn clear(&mut self) -> usize {
        std::mem::take(&mut self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    fn bytes(b: &[u8], dequeued_ns: u64) -> Message<'_> {
        let meta = Meta {
            sequence: dequeued_ns,
            ..Meta::default()
        };
        Message {
            body: Body::Bytes(b),
            priority: 3,
            origin: Origin::UNKNOWN,
            dequeued_ns,
            since_ns: dequeued_ns,
            meta,
        }
    }

    #[test]
    fn a_payload_longer_than_a_slot_is_refused() {
        let mut queue = BacklogQueue::new(2, 4);
        assert!(!queue.push(&bytes(b"12345", 0)));
        assert!(queue.is_empty());
    }

    #[test]
    fn no_capacity_takes_nothing() {
        let mut queue = BacklogQueue::new(0, 4);
        assert!(queue.is_full() && !queue.push(&bytes(b"1", 0)));
        assert!(queue.front().is_none());
    }

    proptest! {
        #[test]
        fn behaves_like_a_bounded_deque(ops in proptest::collection::vec((0u8..4, proptest::collection::vec(any::<u8>(), 0..8)), 0..200)) {
            let mut queue = BacklogQueue::new(5, 8);
            let mut model: VecDeque<(u64, Vec<u8>)> = VecDeque::new();
            for (i, (op, payload)) in ops.into_iter().enumerate() {
                let i = i as u64;
                match op {
                    0 | 1 => {
                        let taken = queue.push(&bytes(&payload, i));
                        prop_assert_eq!(taken, model.len() < 5);
                        if taken { model.push_back((i, payload)); }
                    }
                    2 => { queue.pop_front(); model.pop_front(); }
                    _ => { queue.pop_back(); model.pop_back(); }
                }
                prop_assert_eq!(queue.len(), model.len());
                match (queue.front(), model.front()) {
                    (None, None) => {}
                    (Some(m), Some((at, b))) => {
                        prop_assert_eq!(m.dequeued_ns, *at);
                        prop_assert_eq!(m.body, Body::Bytes(b));
                    }
                    (got, want) => prop_assert!(false, "{:?} {:?}", got, want),
                }
            }
        }
    }
}
