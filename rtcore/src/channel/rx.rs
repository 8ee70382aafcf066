//! The receiving end of a channel in an inbox: its successive rings, and the number of the last
//! message, which shows gaps and duplicates.

use super::hand_off::HandOffSlot;
use crate::message::{Meta, Origin};
use crate::ring::{Bells, Claims, Consumer, Corrupt, Doorbell, Envelope};
use crate::stats::cells::Recorder;
use crate::sync::{AtomicU32, Ordering};
use crate::sys::clock::monotonic_ns;
use crate::wire::Channel;
use std::sync::Arc;

/// The state of one ring that an inbox and the session thread share.
#[derive(Debug)]
pub(crate) struct RxShared {
    over: AtomicU32,
    /// Number of the bell at which the inbox sleeps.
    bell: AtomicU32,
    bells: Bells,
}

impl RxShared {
    /// Makes the state of a ring whose consumer sleeps at `bell`.
    pub fn new(bells: Bells, bell: u32) -> RxShared {
        RxShared {
            over: AtomicU32::new(0),
            bell: AtomicU32::new(bell),
            bells,
        }
    }

    /// Session thread: the producer is gone.
    pub fn end(&self) {
        // SYNC POINT with `is_over`: messages that the producer announced before its end are
        // visible.
        self.over.store(1, Ordering::Release);
    }

    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire) != 0
    }

    /// Session thread: wakes the inbox at its bell. The session thread queues the change, then
    /// (after a SeqCst fence) calls this; the inbox moves to another bell, then (after the fence of
    /// arming) checks the queues.
    pub fn ring(&self) {
        self.bells.ring(self.bell.load(Ordering::Relaxed));
    }
}

/// The state of a receiving end's ring. See [`RxEnd::state`].
///
/// | state | its producer | messages in it | the inbox |
/// |---|---|---|---|
/// | `Open` | may write more | any number | takes them |
/// | `Ending` | has ended, closed the ring, or was the daemon's that a newer ring replaces | some | takes them |
/// | `Done` | likewise | none | goes on to the next ring, if one is offered |
///
/// The state only moves down this table. A ring whose producer broke the protocol has left it: its
/// end is given up ([`HandOffSlot::give_up`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RxState {
    Open,
    Ending,
    Done,
}

/// A ring to receive from.
#[derive(Debug)]
pub(crate) struct RxEnd {
    pub consumer: Consumer,
    /// Has the length of a slot's payload.
    pub buffer: Box<[u8]>,
    pub shared: Arc<RxShared>,
    pub channel: Channel,
    /// The process at the other end of a direct ring; none for a ring of the daemon, which writes
    /// the origin of each message.
    pub partner: Option<Origin>,
    /// Its eventfd is in the inbox's set.
    pub watched: bool,
    /// A message that its producer left half written was counted.
    pub torn: bool,
    /// Records latencies, on direct routes.
    pub recorder: Option<Recorder>,
    /// The treatment of a message depends on the time at which it is taken.
    pub timed: bool,
    /// Number of messages to take before the next latency is recorded.
    pub pause: u32,
}

/// An inbox that does not sleep records the latency of one in this many messages: reading the clock
/// costs some 25 ns, which a polling receiver of a direct route would pay for each message (it has
/// one in 60 to 140 ns).
const RECORDED_EVERY: u32 = 16;

impl RxEnd {
    /// Whether to record the latency of this message, although nothing else depends on its time.
    #[inline]
    fn is_sampled(&mut self) -> bool {
        if self.recorder.is_none() {
            return false;
        }
        let now = self.pause == 0;
        self.pause = if now {
            RECORDED_EVERY - 1
        } else {
            self.pause - 1
        };
        now
    }

    /// The state of the ring, for an end with an offer of the next ring.
    ///
    /// A routed ring is replaced only after its daemon is gone. The producer of a direct one may
    /// live on: it closes the ring when it takes the next.
    fn state(&mut self) -> RxState {
        let over = self.partner.is_none() || self.consumer.is_closed() || self.shared.is_over();
        if !over {
            return RxState::Open;
        }
        // Read after the check above, so that earlier messages are seen. A ring whose producer
        // broke the protocol has none.
        match self.consumer.available() {
            Ok(0) | Err(_) => RxState::Done,
            Ok(_) => RxState::Ending,
        }
    }

    /// Moves its sleep to another bell of its page.
    pub fn set_bell(&mut self, bell: u32) {
        self.consumer.set_bell(bell);
        self.shared.bell.store(bell, Ordering::Relaxed);
    }

    /// Whether its producer ended and left half a message behind; true once.
    fn tear(&mut self) -> bool {
        let torn =
            self.partner.is_some() && !self.torn && self.shared.is_over() && self.consumer.torn();
        self.torn |= torn;
        torn
    }
}

impl Drop for RxEnd {
    /// Messages that are left are not taken: the sender of a direct ring moves them to the next
    /// one.
    fn drop(&mut self) {
        self.consumer.leave();
    }
}

/// The end of a channel that an inbox holds.
#[derive(Debug)]
pub(crate) struct RxHandle {
    /// Index in the session's table.
    pub index: usize,
    pub ring_slot: HandOffSlot<RxEnd>,
    pub channel: Channel,
    /// Sender of the last message (its pid, as the channel says), and the numbers of that message.
    last: Option<(u32, Meta)>,
    /// The next ring waits until the present one is done.
    pub is_ring_waiting: bool,
    /// Half-written messages that the inbox has not counted yet.
    pub torn: u64,
    /// Messages that expired, and those that were missing before them, since the last returned
    /// message.
    discarded: u64,
}

/// The result of reading a ring.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Taken {
    /// There is no message.
    Nothing,
    /// A message that was received before; it is discarded.
    Duplicate,
    /// A message that is older than its route allows; it is discarded.
    Expired,
    /// A message to return.
    Message {
        envelope: Envelope,
        /// Number of messages that are missing before it.
        missed: u64,
        /// The part of these that were in the ring and that it replaced.
        superseded: u64,
        /// It was taken later than the route's deadline after the time at which it should have been
        /// sent.
        late: bool,
        /// The time at which it was taken; 0 if no clock was read for it.
        received_ns: u64,
    },
}

impl RxHandle {
    pub fn new(index: usize, ring_slot: HandOffSlot<RxEnd>, channel: Channel) -> RxHandle {
        RxHandle {
            index,
            ring_slot,
            channel,
            last: None,
            is_ring_waiting: false,
            torn: 0,
            discarded: 0,
        }
    }

    /// Takes the next message: copies it into the ring's buffer and releases its slot.
    #[inline]
    pub fn take(&mut self) -> Result<Taken, Corrupt> {
        let Some(ring) = self.ring_slot.current() else {
            return Ok(Taken::Nothing);
        };
        let Some(envelope) = ring.consumer.take(&mut ring.buffer)? else {
            return Ok(Taken::Nothing);
        };
        ring.consumer.release();
        crate::fault_point!("after_take_before_count");
        let superseded = ring.consumer.passed();
        let taken = self.classify(envelope, superseded);
        self.count(&taken, superseded);
        Ok(taken)
    }

    /// Takes the next message without releasing its slot; copies it if its sender may overwrite the
    /// slot.
    pub fn peek(&mut self) -> Result<Taken, Corrupt> {
        let Some(ring) = self.ring_slot.current() else {
            return Ok(Taken::Nothing);
        };
        if ring.consumer.is_displaced() {
            return self.take();
        }
        let Some(envelope) = ring.consumer.peek()? else {
            return Ok(Taken::Nothing);
        };
        let taken = self.classify(envelope, 0);
        if let (Taken::Duplicate | Taken::Expired, Some(ring)) = (&taken, self.ring_slot.current())
        {
            ring.consumer.skip();
        }
        self.count(&taken, 0);
        Ok(taken)
    }

    /// Classifies a message before which `superseded` others were skipped.
    #[inline]
    fn classify(&mut self, envelope: Envelope, superseded: u64) -> Taken {
        let Some(missed) = self.accept(&envelope) else {
            return Taken::Duplicate;
        };
        // The gap includes them, except for the first message of a sender.
        let missed = missed.max(superseded);
        let (mut received_ns, mut late) = (0, false);
        if let Some(ring) = self.ring_slot.current()
            && (ring.timed || ring.is_sampled())
        {
            received_ns = monotonic_ns();
            let Channel {
                ttl_ns,
                deadline_ns,
                ..
            } = ring.channel;
            let age_ns = envelope.meta.age_ns(received_ns);
            if ttl_ns != 0 && age_ns > ttl_ns {
                self.discarded = self.discarded.saturating_add(missed).saturating_add(1);
                return Taken::Expired;
            }
            late = deadline_ns != 0
                && received_ns.saturating_sub(envelope.meta.intended_ns) > deadline_ns;
            if let Some(recorder) = &mut ring.recorder {
                recorder.record(age_ns);
            }
        }
        let missed = missed.saturating_add(std::mem::take(&mut self.discarded));
        Taken::Message {
            envelope,
            missed,
            superseded,
            late,
            received_ns,
        }
    }

    /// Reports the result to the ring's counters, after its slot was released.
    #[inline]
    fn count(&mut self, taken: &Taken, superseded: u64) {
        let expired = u64::from(matches!(taken, Taken::Expired));
        let late = u64::from(matches!(taken, Taken::Message { late: true, .. }));
        if expired + superseded + late > 0
            && let Some(ring) = self.ring_slot.current()
        {
            ring.consumer.count(Claims {
                expired,
                superseded,
                late,
            });
        }
    }

    /// The number of messages that are missing between the sender's last one and this one; none for
    /// a duplicate.
    ///
    /// A message is a duplicate only if this number or a higher one was seen of the same counter:
    /// same sender, same epoch. The numbers of a source that starts again, or of another sender,
    /// are therefore never mistaken for old ones.
    #[inline]
    fn accept(&mut self, envelope: &Envelope) -> Option<u64> {
        let meta = envelope.meta;
        let partner = self.ring_slot.peek().and_then(|ring| ring.partner);
        let pid = partner.unwrap_or(envelope.origin).pid;
        let missed = match self.last {
            // The pid may change: a queue has one counter, even after another process registers as
            // its owner.
            Some((_, last)) if last.epoch == meta.epoch && meta.sequence > last.sequence => {
                meta.sequence - last.sequence - 1
            }
            // An epoch of 0 (a daemon of an earlier version) identifies no counter.
            Some((of, last)) if last.epoch == meta.epoch && of == pid && meta.epoch != 0 => {
                return None;
            }
            // Another counter, which starts at 1: this inbox was there, and the messages before
            // this one did not come.
            Some(_) => meta.sequence.saturating_sub(1),
            None => 0,
        };
        self.last = Some((pid, meta));
        Some(missed)
    }

    /// Whether a read would find a message, or the next ring can be taken.
    pub fn has_input(&mut self) -> bool {
        let waits = self.ring_slot.has_offer();
        let Some(ring) = self.ring_slot.current() else {
            return waits;
        };
        ring.consumer.available() != Ok(0) || waits && ring.state() == RxState::Done
    }

    /// Takes the next ring if the present one is done; true if the ring has changed. Calls `leave`
    /// for a ring before it goes.
    #[cold]
    pub fn settle(&mut self, mut leave: impl FnMut(&mut RxEnd)) -> bool {
        let mut changed = false;
        loop {
            let offered = self.ring_slot.has_offer();
            self.is_ring_waiting = offered;
            if let Some(ring) = self.ring_slot.current() {
                self.torn += u64::from(ring.tear());
                if offered && ring.state() != RxState::Done {
                    return changed;
                }
                if offered {
                    leave(ring);
                }
            }
            // The offer is not taken while the session thread still has to collect the ends that
            // were returned before.
            if !offered || !self.ring_slot.take() {
                return changed;
            }
            changed = true;
            if let Some(ring) = self.ring_slot.peek() {
                self.channel = ring.channel;
            }
        }
    }

    /// Whether its sender may overwrite messages; they are then copied into the ring's buffer.
    pub fn is_displaced(&self) -> bool {
        self.ring_slot
            .peek()
            .is_some_and(|ring| ring.consumer.is_displaced())
    }

    /// Page and channel of a ring whose bell it may share: one of the daemon's.
    pub fn shared_bell(&self) -> Option<(&Bells, u32)> {
        let ring = self
            .ring_slot
            .peek()
            .filter(|ring| ring.partner.is_none())?;
        Some((ring.consumer.bell().0, ring.channel.channel))
    }

    /// The semaphore that wakes it, if its bell is one. Nobody rings the bells of a daemon that is
    /// gone.
    pub fn semaphore(&self) -> Option<(&Bells, u32)> {
        let ring = self
            .ring_slot
            .peek()
            .filter(|ring| !ring.shared.is_over())?;
        Some(ring.consumer.bell()).filter(|(bells, _)| bells.are_semaphores())
    }

    /// Raises the flag that makes the producer ring; [`Consumer::raise`] says what must follow.
    pub fn raise(&mut self, how: Doorbell) {
        if let Some(ring) = self.ring_slot.current() {
            // The message that ends a sleep is measured: compared with a wake-up, this costs
            // nothing.
            ring.pause = 0;
            ring.consumer.raise(how);
        }
    }

    /// Lowers the flag after a sleep.
    pub fn disarm(&mut self) {
        if let Some(ring) = self.ring_slot.current() {
            ring.consumer.disarm();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::hand_off::hand_off;
    use crate::ring::Kind;
    use crate::wire::{Name, Role};

    fn rx() -> RxHandle {
        let name = |text| Name::new(text).unwrap();
        let channel = Channel {
            channel: 0,
            role: Role::Inbox,
            direct: false,
            endpoint: name("arm.cmd"),
            other: name("planner.cmd"),
            process: None,
            lane: name("control"),
            priority: 50,
            route: name("cmd"),
            slots: 8,
            payload_bytes: 64,
            block_ns: 0,
            keep: 0,
            ttl_ns: 0,
            deadline_ns: 0,
        };
        RxHandle::new(0, hand_off().1, channel)
    }

    fn from(rx: &mut RxHandle, pid: u32, epoch: u32, sequence: u64) -> Option<u64> {
        let meta = Meta {
            sequence,
            epoch,
            ..Meta::default()
        };
        let kind = Kind::Bytes { priority: 0 };
        let origin = Origin {
            pid,
            ..Origin::UNKNOWN
        };
        rx.accept(&Envelope {
            meta,
            origin,
            kind,
            len: 0,
        })
    }

    fn missed(rx: &mut RxHandle, epoch: u32, sequence: u64) -> Option<u64> {
        from(rx, 1, epoch, sequence)
    }

    #[test]
    fn gaps_are_counted_and_what_was_seen_is_dropped() {
        let mut rx = rx();
        assert_eq!(
            missed(&mut rx, 7, 100),
            Some(0),
            "nobody knows what was before"
        );
        assert_eq!(missed(&mut rx, 7, 101), Some(0));
        assert_eq!(missed(&mut rx, 7, 105), Some(3));
        assert_eq!(missed(&mut rx, 7, 105), None);
        assert_eq!(missed(&mut rx, 7, 3), None);
        assert_eq!(missed(&mut rx, 8, 1), Some(0), "another life of the sender");
        assert_eq!(missed(&mut rx, 9, 3), Some(2));
        assert_eq!(missed(&mut rx, 9, u64::MAX), Some(u64::MAX - 4));
    }

    #[test]
    fn a_number_is_old_only_for_the_sender_and_the_counter_it_belongs_to() {
        let mut rx = rx();
        assert_eq!(from(&mut rx, 10, 7, 5000), Some(0));
        assert_eq!(
            from(&mut rx, 11, 7, 1),
            Some(0),
            "another sender whose epoch happens to be the same"
        );
        assert_eq!(from(&mut rx, 11, 7, 1), None);
        assert_eq!(
            from(&mut rx, 12, 7, 2),
            Some(0),
            "the owner of a queue changed, its counter did not"
        );
        assert_eq!(from(&mut rx, 12, 7, 4), Some(1));
        // A daemon that had no epochs, and its successor.
        for sequence in [1, 2, 3, 1, 2] {
            assert_eq!(from(&mut rx, 0, 0, sequence), Some(0), "{sequence}");
        }
    }
}
