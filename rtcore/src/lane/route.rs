//! A route at run time: its rules, its ends, and the ledger that balances.
//!
//! Owned by the one thread that reads the route's source. `dispatch` accepts a message and brings
//! each copy to an outcome or into a queue; `pump` delivers queued copies when there is room.

mod overflow;

use super::account::{Account, Lost};
use super::backlog::Backlog;
use super::event::{EventKind, EventSink};
use super::peer::Peer;
use super::policy::{GroupMode, Overflow, Rate};
use super::progress::ProgressCell;
use super::rate::Bucket;
use super::target::Target;
use super::waits::Waits;
use crate::endpoint::sink::{Refusal, Sink};
use crate::message::{Body, Message, Outcome, Reject};
use crate::ring::Corrupt;
use crate::skin::{Semaphore, Skin};
use crate::stats::Ledger;
use crate::stats::cells::RouteCell;
use crate::sys::Errno;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// Longest time until a lane checks a full receiver again that no descriptor announces.
const SIGNAL_RETRY_NS: u64 = 1_000_000;
/// The same limit if a descriptor announces it: only for expiry and the death of a peer.
const QUEUE_RETRY_NS: u64 = 10_000_000;

/// The objects that a worker lends to its routes.
#[derive(Debug)]
pub struct Context<'a> {
    /// The real-time calls.
    pub skin: &'static Skin,
    /// For reports to the log.
    pub events: &'a mut EventSink,
    /// 0 while running, otherwise the time at which a stop gives up queued messages.
    pub stop_at_ns: &'a AtomicU64,
    /// For reports that a receiver holds the thread.
    pub progress: &'a mut ProgressCell,
    /// The last time that was read: the end of a dispatch without another read of the clock.
    pub last_ns: u64,
    /// The treatment of a message in hand that waits for room during a stop.
    pub at_stop: AtStop,
    /// The message in hand is in its sender's ring until the last route has finished with it: if
    /// rtd is killed before that, the next rtd takes it again.
    pub stays: bool,
}

/// What happens to a message in hand that waits for room (`block`) when the daemon stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtStop {
    /// It waits until the stop gives up, and is then rejected, because it cannot be returned to its
    /// source.
    Wait,
    /// It stays in its source for the next daemon: no copy was delivered or queued yet, so no copy
    /// comes twice.
    Leave,
    /// It was left in its source.
    Left,
}

impl Context<'_> {
    fn now(&mut self) -> u64 {
        self.last_ns = (self.skin.now_ns)();
        self.last_ns
    }

    fn emit(&mut self, kind: EventKind) {
        let now = self.now();
        self.events.emit(now, kind);
    }
}

/// The rules of a route.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Plan index, for events.
    pub index: u32,
    /// Time to live from [`Message::since_ns`], `u64::MAX` = none.
    pub ttl_ns: u64,
    /// A later delivery is a deadline miss, `u64::MAX` = none.
    pub deadline_ns: u64,
    /// Longest payload in bytes that the route accepts.
    pub payload_bytes_max: usize,
    /// Messages queued in front of a full receiver (of a group of which one member takes each
    /// message: in front of all of them). `conflate` always queues one, the latest value.
    pub capacity: usize,
    /// What happens when the capacity is used up.
    pub overflow: Overflow,
    /// Fixed mq priority of sent messages; none: the received priority.
    pub mq_priority: Option<u32>,
    /// The permitted senders of signals.
    pub origin: OriginRule,
}

/// The senders whose messages a route takes.
#[derive(Clone, Debug)]
pub enum OriginRule {
    /// Every process that can write the source's queue: the queue's mode decides.
    Channel,
    /// Signals: only from the owner, if there is one; queued ones, whose pid is a claim, only if
    /// configured.
    Signal {
        /// Accept origins that are only claimed.
        accept_claimed: bool,
        /// The endpoint's owner.
        owner: Option<Arc<Peer>>,
    },
}

#[derive(Debug)]
pub struct Route {
    rules: Rules,
    bucket: Option<Bucket>,
    targets: Vec<Target>,
    sinks: Vec<Sink>,
    backlogs: Vec<Backlog>,
    /// Range of the backlogs of each target.
    backlogs_of: Vec<Range<usize>>,
    /// By end: whether it receives the message in hand.
    members: Vec<bool>,
    /// Some target selects the members for each message.
    filtered: bool,
    /// Copies of the message in hand.
    copies: u64,
    /// Copies of the message in hand that are lost as soon as it leaves its sender's ring, see
    /// `Route::lose`.
    losing: Vec<Lost>,
    account: Account,
    /// The wait of a blocked dispatch; it has room for every end.
    waits: Waits,
    /// The receiver of some end must still be signalled for messages that it got.
    owes_signal: bool,
    /// Time limit for receivers to reconnect after a start.
    rejoin_ns: u64,
    /// End of that time; 0 before the start and afterwards.
    rejoin_until_ns: u64,
}

impl Route {
    /// Makes a route over `sinks`, which `targets` divides into consecutive runs; see
    /// [`Waits::with_room_for`] for `doorbell`.
    pub fn new(
        rules: Rules,
        rate: Option<Rate>,
        targets: Vec<Target>,
        sinks: Vec<Sink>,
        cell: RouteCell,
        doorbell: Option<Arc<Semaphore>>,
    ) -> Route {
        let copies = targets.iter().map(|target| target.copies(target.len)).sum();
        let capacity = if rules.overflow == Overflow::Conflate {
            1
        } else {
            rules.capacity
        };
        let (backlogs, backlogs_of) = Backlog::of(&targets, capacity, rules.payload_bytes_max);
        Route {
            bucket: rate.map(Bucket::new),
            members: vec![true; sinks.len()],
            filtered: targets.iter().any(|target| target.filter.is_some()),
            // A target without members still has one copy.
            losing: Vec::with_capacity(sinks.len() + targets.len()),
            targets,
            backlogs,
            backlogs_of,
            copies,
            account: Account::new(cell, rules.deadline_ns),
            rules,
            waits: Waits::with_room_for(sinks.len(), doorbell),
            sinks,
            owes_signal: false,
            rejoin_ns: 0,
            rejoin_until_ns: 0,
        }
    }

    /// Lets the route wait for receivers that had a session before a restart of rtd, for this long
    /// from `Route::start` on.
    pub fn rejoin(mut self, rejoin_ns: u64) -> Route {
        self.rejoin_ns = rejoin_ns;
        self
    }

    /// The lane begins to read.
    pub(super) fn start(&mut self, now_ns: u64) {
        self.rejoin_until_ns = if self.rejoin_ns > 0 {
            now_ns.saturating_add(self.rejoin_ns)
        } else {
            0
        };
        self.sinks
            .iter_mut()
            .for_each(|sink| sink.rejoins = self.rejoin_ns > 0);
    }

    /// From now on a receiver that has not reconnected counts as dead.
    fn end_rejoin(&mut self, now_ns: u64) {
        if self.rejoin_until_ns != 0 && now_ns >= self.rejoin_until_ns {
            self.rejoin_until_ns = 0;
            self.sinks.iter_mut().for_each(|sink| sink.rejoins = false);
        }
    }

    /// Whether the next message could be lost only because a receiver has not reconnected yet: the
    /// receiver is expected, and the queue in front of it is full. The source is then not read.
    /// `conflate` loses nothing additional: it keeps the latest message.
    #[inline]
    pub(super) fn holds_source(&self) -> bool {
        self.rejoin_until_ns != 0
            && self.rules.overflow != Overflow::Conflate
            && self
                .backlogs
                .iter()
                .any(|backlog| backlog.queue.is_full() && self.awaits_receiver(backlog))
    }

    #[cold]
    fn awaits_receiver(&self, backlog: &Backlog) -> bool {
        let target = &self.targets[backlog.target];
        // If one member of a group takes each message, any of them may be that one.
        let ends = if target.mode == GroupMode::All {
            backlog.ends.clone()
        } else {
            target.ends()
        };
        self.sinks[ends].iter().any(|sink| sink.awaits)
    }

    /// Index of the route in the plan.
    pub fn index(&self) -> u32 {
        self.rules.index
    }

    /// Its ends, in order.
    pub(super) fn sinks(&self) -> &[Sink] {
        &self.sinks
    }

    /// Number of ends.
    pub fn ends(&self) -> usize {
        self.sinks.len()
    }

    /// Whether a message waits for room.
    pub fn has_backlog(&self) -> bool {
        self.owes_signal
            || self
                .backlogs
                .iter()
                .any(|backlog| !backlog.queue.is_empty())
    }

    /// The ledger.
    pub fn ledger(&self) -> &Ledger {
        &self.account.ledger
    }

    /// Whether a full receiver may hold the thread (`block`).
    pub(super) fn may_hold(&self) -> bool {
        matches!(self.rules.overflow, Overflow::Block { .. })
    }

    /// Accepts a message and dispatches it. [`Route::publish`] must follow, after the last message
    /// of a burst; or `hand_back` if the context says that the message was left.
    pub fn dispatch(&mut self, message: &Message<'_>, ctx: &mut Context<'_>) {
        self.end_losses();
        if self.rejoin_until_ns != 0 {
            self.end_rejoin(message.dequeued_ns);
        }
        if self.filtered {
            self.choose();
        }
        self.account.accept(self.copies);
        match self.refuse(message) {
            Some(reason) => {
                self.lose_all(Outcome::Rejected(reason), ctx);
            }
            // The message may have waited in its sender's ring while the thread was held or rtd was
            // down.
            None if message.dequeued_ns.saturating_sub(message.since_ns) > self.rules.ttl_ns => {
                self.lose_all(Outcome::Expired, ctx);
            }
            None => {
                for target in 0..self.targets.len() {
                    if ctx.at_stop != AtStop::Left {
                        self.dispatch_to(target, message, ctx);
                    }
                }
            }
        }
    }

    /// The message in hand was left in its source: no copy of it was accepted or lost.
    #[cold]
    pub(super) fn hand_back(&mut self) {
        self.losing.clear();
        self.account.hand_back(self.in_hand());
    }

    /// Number of copies of the message in hand that are in no queue.
    fn in_hand(&self) -> u64 {
        let queued: usize = self
            .backlogs
            .iter()
            .map(|backlog| backlog.queue.len())
            .sum();
        self.account.ledger.queued - queued as u64
    }

    /// A copy of the message in hand cannot be delivered. While the message stays in its sender's
    /// ring, the next daemon may still take it and account for it again: the copy counts as queued
    /// until the message is finished.
    fn lose(&mut self, lost: Lost, ctx: &Context<'_>) {
        if ctx.stays && self.losing.len() < self.losing.capacity() {
            self.losing.push(lost);
        } else {
            self.account.lost(lost);
        }
    }

    fn lose_all(&mut self, outcome: Outcome, ctx: &Context<'_>) {
        for _ in 0..self.copies {
            self.lose(Lost::at(None, outcome), ctx);
        }
    }

    /// The message in hand is finished.
    #[inline]
    fn end_losses(&mut self) {
        self.losing
            .drain(..)
            .for_each(|lost| self.account.lost(lost));
    }

    /// Delivers queued messages as far as there is room.
    pub fn pump(&mut self, ctx: &mut Context<'_>) {
        self.pump_all(ctx);
        self.publish();
    }

    /// Publishes the ledger while a message is held. Its copies count as queued. If rtd is killed
    /// now, copies that no receiver has are not lost, because the message is still in its sender's
    /// ring.
    fn publish_held(&mut self, message: &Message<'_>, ctx: &Context<'_>) {
        let in_queues = self
            .backlogs
            .iter()
            .filter(|backlog| backlog.queue.ends_with(message))
            .count();
        let held = if ctx.stays {
            self.in_hand() + in_queues as u64
        } else {
            0
        };
        self.account.publish(held);
    }

    fn pump_all(&mut self, ctx: &mut Context<'_>) {
        if self.rejoin_until_ns != 0 {
            let now_ns = ctx.now();
            self.end_rejoin(now_ns);
        }
        for at in 0..self.backlogs.len() {
            let ends = self.backlogs[at].ends.clone();
            let is_expected = self.sinks[ends.clone()].iter().any(Sink::is_expected);
            self.pump_backlog(at, ctx);
            if !is_expected {
                self.sinks[ends]
                    .iter_mut()
                    .for_each(|sink| sink.awaits = false);
            }
        }
        // Includes receivers that came to owe a signal just now, or while a dispatch was blocked.
        let owing = self.sinks.iter_mut().filter(|sink| sink.owes_signal());
        owing.for_each(|sink| sink.pay_signal(ctx.skin));
        self.owes_signal = self.sinks.iter().any(Sink::owes_signal);
    }

    /// Takes the rings of receivers that have connected, see [`Sink::renew`].
    #[inline]
    pub fn renew(&mut self) {
        self.sinks.iter_mut().for_each(Sink::renew);
    }

    /// The time from which the next message is within the rate; 0 if there is no limit.
    pub fn due_ns(&self) -> u64 {
        self.bucket.as_ref().map_or(0, Bucket::next_ns)
    }

    /// Whether some of its receivers have rings, which come and go.
    pub fn has_rings(&self) -> bool {
        self.sinks.iter().any(Sink::has_ring)
    }

    /// Gives up the queued messages: the daemon stops.
    pub fn abandon(&mut self) {
        for backlog in &mut self.backlogs {
            for _ in 0..backlog.queue.clear() {
                self.account.lost(Lost::at(
                    backlog.only_end(),
                    Outcome::Rejected(Reject::Stopped),
                ));
            }
        }
        self.publish();
    }

    /// Counts messages that were lost with the ring of a sender that ended after the lane had
    /// stopped.
    pub fn lose_orphaned(&mut self, messages: u64) {
        for _ in 0..messages.saturating_mul(self.copies) {
            self.account.accept(1);
            self.account
                .lost(Lost::at(None, Outcome::Rejected(Reject::Stopped)));
        }
        self.publish();
    }

    /// Adds the descriptors and words that announce room for queued messages. Returns the longest
    /// time to wait: 0 if there is room by now.
    pub fn await_room(&mut self, waits: &mut Waits) -> u64 {
        let mut bound_ns = if self.owes_signal {
            SIGNAL_RETRY_NS
        } else {
            QUEUE_RETRY_NS
        };
        for backlog in &self.backlogs {
            let Some(first) = backlog.queue.front() else {
                continue;
            };
            for sink in &mut self.sinks[backlog.ends.clone()] {
                // The vectors have room for every end of every route: no allocation here.
                if !sink.await_room(&first, waits) {
                    return 0;
                }
                if sink.is_silent() {
                    bound_ns = bound_ns.min(SIGNAL_RETRY_NS);
                }
            }
        }
        bound_ns
    }

    /// Publishes the ledger; call it when no message is in hand.
    pub fn publish(&mut self) {
        self.end_losses();
        self.account.publish(0);
    }

    fn refuse(&mut self, message: &Message<'_>) -> Option<Reject> {
        if !self.rules.origin.accepts(message) {
            return Some(Reject::Origin);
        }
        if let Body::Bytes(bytes) = message.body
            && bytes.len() > self.rules.payload_bytes_max
        {
            return Some(Reject::TooLarge);
        }
        let admitted = self
            .bucket
            .as_mut()
            .is_none_or(|b| b.admit(message.dequeued_ns));
        (!admitted).then_some(Reject::Rate)
    }

    /// Selects the members for the message in hand, once: the number of accepted copies then equals
    /// the number of dispatched ones, even if members come and go meanwhile.
    fn choose(&mut self) {
        self.copies = 0;
        for target in &self.targets {
            let Some(filter) = &target.filter else {
                self.copies += target.copies(target.len);
                continue;
            };
            let wanted = filter.wanted();
            let mut members = 0;
            for at in target.ends() {
                let is_member = filter.includes(self.sinks[at].peer.as_deref(), wanted);
                self.members[at] = is_member;
                members += usize::from(is_member);
            }
            self.copies += target.copies(members);
        }
    }

    fn dispatch_to(&mut self, number: usize, message: &Message<'_>, ctx: &mut Context<'_>) {
        let target = &self.targets[number];
        let backlogs = self.backlogs_of[number].clone();
        if target.is_one_queue() {
            return self.deliver(backlogs.start, message, ctx);
        }
        match target.mode {
            GroupMode::All => {
                let (first_end, mut nobody) = (target.first, true);
                for (n, at) in backlogs.enumerate() {
                    if self.members[first_end + n] && ctx.at_stop != AtStop::Left {
                        nobody = false;
                        self.deliver(at, message, ctx);
                        crate::fault_point!("between_two_receivers");
                    }
                }
                if nobody {
                    self.lose(Lost::at(None, Outcome::PeerDead), ctx);
                }
            }
            GroupMode::RoundRobin | GroupMode::Any => {
                self.deliver_to_a_member(number, message, ctx)
            }
        }
    }

    /// Delivers to one member of a group whose membership is decided for each message: the first
    /// living member that has room takes it, beginning with the one whose turn it is. If none has
    /// room, the first living one queues it. A member that can never take the message is skipped.
    fn deliver_to_a_member(&mut self, number: usize, message: &Message<'_>, ctx: &mut Context<'_>) {
        let target = &mut self.targets[number];
        let (first, len) = (target.first, target.len);
        // The turn of a process that is not a member would give the next member two turns.
        let start = (0..len)
            .map(|n| (target.start() + n) % len)
            .find(|n| self.members[first + n]);
        let start = start.unwrap_or(target.start());
        target.end_turn(start);
        let (mut full, mut never) = (None, (None, Refusal::PeerDead));
        for n in (0..len).map(|n| (start + n) % len) {
            if !self.members[first + n] {
                continue;
            }
            let at = self.backlogs_of[number].start + n;
            match self.try_send(at, message, ctx) {
                Ok(end) => return self.delivered(end, message, ctx),
                Err((_, Refusal::Full)) => full = full.or(Some(at)),
                Err((_, Refusal::PeerDead)) => {}
                Err(refused) if never.1 == Refusal::PeerDead => never = refused,
                Err(_) => {}
            }
        }
        match (full, never) {
            (Some(at), _) => self.enqueue(at, message, ctx),
            (None, (end, refusal)) => self.lose(refused(end, refusal), ctx),
        }
    }

    fn deliver(&mut self, at: usize, message: &Message<'_>, ctx: &mut Context<'_>) {
        match self.try_send(at, message, ctx) {
            Ok(end) => self.delivered(end, message, ctx),
            Err((_, Refusal::Full)) => self.enqueue(at, message, ctx),
            Err((end, refusal)) => self.lose(refused(end, refusal), ctx),
        }
    }

    /// Counts the delivery of a copy of the message in hand.
    #[inline]
    fn delivered(&mut self, end: usize, message: &Message<'_>, ctx: &mut Context<'_>) {
        crate::fault_point!("after_delivery_before_ledger");
        ctx.at_stop = AtStop::Wait;
        self.account.delivered(end, message.since_ns, ctx.now());
    }

    /// Queues a copy of the message in hand; false if there is no room.
    fn queue(&mut self, at: usize, message: &Message<'_>, ctx: &mut Context<'_>) -> bool {
        let queued = self.backlogs[at].queue.push(message);
        if queued {
            ctx.at_stop = AtStop::Wait;
        }
        queued
    }

    /// Sends a new message to an end of a backlog, and returns that end; full while older messages
    /// wait there, to keep their order.
    #[inline]
    fn try_send(
        &mut self,
        at: usize,
        message: &Message<'_>,
        ctx: &mut Context<'_>,
    ) -> Result<usize, Refused> {
        let backlog = &self.backlogs[at];
        if !backlog.queue.is_empty() {
            if let Some(end) = backlog.only_end() {
                let is_dead = self.sinks[end].is_dead();
                return Err((
                    Some(end),
                    if is_dead {
                        Refusal::PeerDead
                    } else {
                        Refusal::Full
                    },
                ));
            }
            // Another member than the one that was full may have room by now.
            self.pump_backlog(at, ctx);
            if !self.backlogs[at].queue.is_empty() {
                return Err((None, Refusal::Full));
            }
        }
        let end = self.offer(at, message, ctx)?;
        self.sent(at, end, ctx);
        Ok(end)
    }

    /// An end of a backlog took a message.
    #[inline]
    fn sent(&mut self, at: usize, end: usize, ctx: &mut Context<'_>) {
        let target = &mut self.targets[self.backlogs[at].target];
        if target.is_one_queue() {
            target.end_turn(target.start());
        }
        let sink = &mut self.sinks[end];
        self.owes_signal |= sink.owes_signal();
        match sink.signal_error() {
            None => sink.last_reported = None,
            Some(errno) => self.report_signal(end, errno, ctx),
        }
    }

    /// Reports a failing signal once, until the result at that end changes.
    #[cold]
    fn report_signal(&mut self, end: usize, errno: Errno, ctx: &mut Context<'_>) {
        if self.sinks[end].last_reported.replace(errno) != Some(errno) {
            ctx.emit(EventKind::SignalFailed {
                route: self.rules.index,
                sink: number(end),
                errno,
            });
        }
    }
}

/// See `Route::offer`.
#[inline]
fn offer_to(
    rules: &Rules,
    targets: &[Target],
    sinks: &mut [Sink],
    backlog: &Backlog,
    message: &Message<'_>,
    ctx: &mut Context<'_>,
) -> Result<usize, Refused> {
    let (first, len) = (backlog.ends.start, backlog.ends.len());
    let start = if len == 1 {
        0
    } else {
        targets[backlog.target].start()
    };
    let mut refused = (backlog.only_end(), Refusal::PeerDead);
    for n in 0..len {
        let turn = start + n;
        let end = first + if turn < len { turn } else { turn - len };
        let refusal = match sinks[end].send(ctx.skin, message, rules.mq_priority) {
            Ok(()) => return Ok(end),
            Err(refusal) => refusal,
        };
        if let Refusal::Corrupt(corrupt) = refusal {
            report_corrupt(rules.index, end, sinks[end].generation(), corrupt, ctx);
        }
        if refusal == Refusal::Full {
            refused = (backlog.only_end(), refusal);
        } else if refused.1 == Refusal::PeerDead && refusal != Refusal::PeerDead {
            refused = (Some(end), refusal);
        }
    }
    Err(refused)
}

/// Reports that the process at an end broke the protocol of its ring, even if another member takes
/// the message.
#[cold]
fn report_corrupt(
    route: u32,
    end: usize,
    generation: u64,
    corrupt: Corrupt,
    ctx: &mut Context<'_>,
) {
    ctx.emit(EventKind::Corrupt {
        route,
        sink: Some(number(end)),
        generation,
        corrupt,
    });
}

/// Why no end took a message, and the end at fault if there is exactly one.
type Refused = (Option<usize>, Refusal);

/// The loss of a copy by a final refusal, of this end or (none) of all ends of a group.
fn refused(end: Option<usize>, refusal: Refusal) -> Lost {
    let outcome = match refusal {
        Refusal::Failed(_) => Outcome::Rejected(Reject::Error),
        Refusal::PeerDead | Refusal::Corrupt(_) => Outcome::PeerDead,
        Refusal::TooLarge => Outcome::Rejected(Reject::TooLarge),
        Refusal::Full => Outcome::Rejected(Reject::Full),
        Refusal::Ignored => Outcome::Rejected(Reject::Ignored),
    };
    let errno = if let Refusal::Failed(errno) = refusal {
        Some(errno)
    } else {
        None
    };
    Lost {
        outcome,
        end,
        errno,
    }
}

/// An end's number in events.
fn number(end: usize) -> u32 {
    u32::try_from(end).unwrap_or(u32::MAX)
}

impl OriginRule {
    fn accepts(&self, message: &Message<'_>) -> bool {
        let OriginRule::Signal {
            accept_claimed,
            owner,
        } = self
        else {
            return true;
        };
        if !message.origin.verified && !accept_claimed {
            return false;
        }
        match owner {
            Some(peer) => peer.may_have_sent(message.origin.pid, message.dequeued_ns),
            None => true,
        }
    }
}
