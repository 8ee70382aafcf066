//! A route at run time: its rules, its ends, and the ledger that balances.
//!
//! Owned by the one thread that reads the route's source. `dispatch` takes a message in charge and
//! brings each copy to an outcome or into a queue; `pump` moves queued ones on when there is room.

use super::dest::{Dest, Refusal};
use super::event::{EventKind, EventSink};
use super::peer::{Peer, PeerState};
use super::policy::{GroupMode, Overflow, Rate};
use super::rate::Bucket;
use crate::message::{Body, Message, Outcome, Reject};
use crate::skin::Skin;
use crate::stats::Ledger;
use crate::stats::writer::RouteCell;
use crate::sys::poll::Interest;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How long a lane waits at most before it looks again at a full receiver that no descriptor announces.
const SIGNAL_RETRY_NS: u64 = 1_000_000;
/// The same bound where a descriptor does announce it: only for expiry and peer death.
const QUEUE_RETRY_NS: u64 = 10_000_000;

/// What a worker lends to its routes.
#[derive(Debug)]
pub struct Context<'a> {
    /// The real-time calls.
    pub skin: &'static Skin,
    /// Where to tell.
    pub events: &'a mut EventSink,
    /// 0 while running, else the time at which a stop gives up on what is queued.
    pub stop_at_ns: &'a AtomicU64,
    /// The latest time that was read: the end of a dispatch without reading it once more.
    pub last_ns: u64,
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

/// What a route accepts and how it treats it.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Plan index, for events.
    pub index: u32,
    /// Time to live after dequeue, `u64::MAX` = none.
    pub ttl_ns: u64,
    /// Delivered later than this is a deadline miss, `u64::MAX` = none.
    pub deadline_ns: u64,
    /// Longest payload.
    pub payload_bytes_max: usize,
    /// What happens past the capacity.
    pub overflow: Overflow,
    /// Fixed mq priority of what is sent; none = as it came.
    pub mq_priority: Option<u32>,
    /// Who may send by signal.
    pub origin: OriginRule,
}

/// Whose messages a route takes.
#[derive(Clone, Debug)]
pub enum OriginRule {
    /// Whoever can write the source's queue: the queue's mode decides.
    Channel,
    /// Signals: from the owner when there is one; queued ones, whose pid is a claim, only if said so.
    Signal {
        /// Take claims.
        accept_claimed: bool,
        /// The endpoint's owner.
        owner: Option<Arc<Peer>>,
    },
}

/// Some ends of a route, chosen together.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// How.
    pub mode: GroupMode,
    /// First end.
    pub first: usize,
    /// Number of ends, at least 1.
    pub len: usize,
    /// Round-robin position.
    pub cursor: usize,
}

impl Target {
    fn copies(&self) -> u64 {
        match self.mode {
            GroupMode::All => self.len as u64,
            GroupMode::RoundRobin | GroupMode::Any => 1,
        }
    }
}

/// The ledger and where it is shown.
#[derive(Debug)]
struct Book {
    ledger: Ledger,
    cell: RouteCell,
    deadline_ns: u64,
}

impl Book {
    fn settle(&mut self, outcome: Outcome) {
        self.ledger.queued -= 1;
        match outcome {
            Outcome::Delivered => self.ledger.delivered += 1,
            Outcome::Expired => self.ledger.expired += 1,
            Outcome::Displaced => self.ledger.displaced += 1,
            Outcome::Rejected(reason) => self.ledger.rejected[reason as usize] += 1,
            Outcome::PeerDead => self.ledger.peer_dead += 1,
        }
    }

    fn delivered(&mut self, dequeued_ns: u64, now_ns: u64) {
        let latency = now_ns.saturating_sub(dequeued_ns);
        self.settle(Outcome::Delivered);
        self.cell.record_latency(latency);
        if latency > self.deadline_ns {
            self.ledger.deadline_misses += 1;
        }
    }
}

/// The route.
#[derive(Debug)]
pub struct Route {
    rules: Rules,
    bucket: Option<Bucket>,
    targets: Vec<Target>,
    dests: Vec<Dest>,
    copies: u64,
    backlog: usize,
    book: Book,
}

impl Route {
    /// A route over `dests`, which `targets` divides into consecutive runs.
    pub fn new(
        rules: Rules,
        rate: Option<Rate>,
        targets: Vec<Target>,
        dests: Vec<Dest>,
        cell: RouteCell,
    ) -> Route {
        let copies = targets.iter().map(Target::copies).sum();
        let book = Book { ledger: Ledger::default(), cell, deadline_ns: rules.deadline_ns };
        Route { bucket: rate.map(Bucket::new), rules, targets, dests, copies, backlog: 0, book }
    }

    /// Plan index.
    pub fn index(&self) -> u32 {
        self.rules.index
    }

    /// Number of ends.
    pub fn ends(&self) -> usize {
        self.dests.len()
    }

    /// Whether some message waits for room.
    pub fn has_backlog(&self) -> bool {
        self.backlog > 0
    }

    /// Where every message is.
    pub fn ledger(&self) -> &Ledger {
        &self.book.ledger
    }

    /// Takes a message in charge.
    pub fn dispatch(&mut self, message: &Message<'_>, ctx: &mut Context<'_>) {
        self.book.ledger.accepted += self.copies;
        self.book.ledger.queued += self.copies;
        match self.refuse(message) {
            Some(reason) => {
                for _ in 0..self.copies {
                    self.book.settle(Outcome::Rejected(reason));
                }
            }
            None => {
                for at in 0..self.targets.len() {
                    self.dispatch_to(at, message, ctx);
                }
            }
        }
        self.publish();
    }

    /// Moves queued messages on as far as there is room.
    pub fn pump(&mut self, ctx: &mut Context<'_>) {
        for at in 0..self.dests.len() {
            self.pump_dest(at, ctx);
        }
        self.publish();
    }

    /// Gives up on what is queued: the daemon stops.
    pub fn abandon(&mut self) {
        for dest in &mut self.dests {
            for _ in 0..dest.spill.clear() {
                self.book.settle(Outcome::Rejected(Reject::Stopped));
            }
        }
        self.backlog = 0;
        self.publish();
    }

    /// Adds to `interests` what announces room, and returns how long to wait at most.
    pub fn backlog_interests(&self, interests: &mut Vec<Interest>) -> u64 {
        let mut bound_ns = QUEUE_RETRY_NS;
        for dest in self.dests.iter().filter(|d| !d.spill.is_empty()) {
            match dest.room() {
                // The vector was made for every end of every route: no allocation here.
                Some(room) => interests.push(room),
                None => bound_ns = bound_ns.min(SIGNAL_RETRY_NS),
            }
        }
        bound_ns
    }

    fn publish(&mut self) {
        debug_assert!(self.book.ledger.balances());
        self.book.cell.publish(&self.book.ledger);
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
        let admitted = self.bucket.as_mut().is_none_or(|b| b.admit(message.dequeued_ns));
        (!admitted).then_some(Reject::Rate)
    }

    fn dispatch_to(&mut self, at: usize, message: &Message<'_>, ctx: &mut Context<'_>) {
        let target = self.targets[at];
        match target.mode {
            GroupMode::All => {
                for dest in target.first..target.first + target.len {
                    self.deliver(dest, message, ctx);
                }
            }
            GroupMode::RoundRobin => {
                self.targets[at].cursor = (target.cursor + 1) % target.len;
                self.deliver_to_one(&target, target.cursor, message, ctx);
            }
            GroupMode::Any => self.deliver_to_one(&target, 0, message, ctx),
        }
    }

    /// Starting at `start`, the first living member that has room takes it; when none has, the first
    /// living one queues it.
    fn deliver_to_one(
        &mut self,
        target: &Target,
        start: usize,
        message: &Message<'_>,
        ctx: &mut Context<'_>,
    ) {
        let member = |n: usize| target.first + (start + n) % target.len;
        let mut queue_at = None;
        for at in (0..target.len).map(member) {
            if self.dests[at].is_dead() {
                continue;
            }
            queue_at = queue_at.or(Some(at));
            if !self.dests[at].spill.is_empty() {
                continue;
            }
            match self.dests[at].send(ctx.skin, message, self.rules.mq_priority) {
                Ok(()) => return self.book.delivered(message.dequeued_ns, ctx.now()),
                Err(Refusal::Full | Refusal::PeerDead) => {}
                Err(refusal) => return self.refused(at, refusal, ctx),
            }
        }
        match queue_at {
            Some(at) => self.enqueue(at, message, ctx),
            None => self.book.settle(Outcome::PeerDead),
        }
    }

    fn deliver(&mut self, at: usize, message: &Message<'_>, ctx: &mut Context<'_>) {
        let dest = &mut self.dests[at];
        // Behind what is queued already: order is kept.
        if !dest.spill.is_empty() && !dest.is_dead() {
            return self.enqueue(at, message, ctx);
        }
        match dest.send(ctx.skin, message, self.rules.mq_priority) {
            Ok(()) => {
                dest.told = None;
                self.book.delivered(message.dequeued_ns, ctx.now());
            }
            Err(Refusal::Full) => self.enqueue(at, message, ctx),
            Err(refusal) => self.refused(at, refusal, ctx),
        }
    }

    /// Ends the message in hand for a refusal that waiting does not mend.
    fn refused(&mut self, at: usize, refusal: Refusal, ctx: &mut Context<'_>) {
        match refusal {
            Refusal::PeerDead => self.book.settle(Outcome::PeerDead),
            Refusal::TooLarge => self.book.settle(Outcome::Rejected(Reject::TooLarge)),
            Refusal::Full => self.book.settle(Outcome::Rejected(Reject::Full)),
            Refusal::Failed(errno) => {
                self.book.settle(Outcome::Rejected(Reject::Error));
                if self.dests[at].told != Some(errno) {
                    self.dests[at].told = Some(errno);
                    let (route, dest) = self.name(at);
                    ctx.emit(EventKind::SendFailed { route, dest, errno });
                }
            }
        }
    }

    /// Queues the message in front of a full receiver; past the capacity the policy decides.
    fn enqueue(&mut self, at: usize, message: &Message<'_>, ctx: &mut Context<'_>) {
        let (route, dest_name) = self.name(at);
        let dest = &mut self.dests[at];
        if dest.spill.is_empty() && dest.spill.capacity() > 0 {
            self.backlog += 1;
        } else if self.rules.overflow == Overflow::Conflate {
            for _ in 0..dest.spill.clear() {
                self.book.settle(Outcome::Displaced);
            }
        }
        if dest.spill.push(message) {
            return;
        }
        if !dest.told_overflow {
            dest.told_overflow = true;
            ctx.emit(EventKind::Overflow { route, dest: dest_name });
        }
        match self.rules.overflow {
            Overflow::DisplaceOldest if dest.spill.capacity() > 0 => dest.spill.pop_front(),
            Overflow::DisplaceNewest if dest.spill.capacity() > 0 => dest.spill.pop_back(),
            Overflow::Block { limit_ns } => return self.block(at, message, limit_ns, ctx),
            _ => return self.book.settle(Outcome::Rejected(Reject::Full)),
        }
        self.book.settle(Outcome::Displaced);
        dest.spill.push(message);
    }

    /// Holds the source's thread until there is room, at most `limit_ns`. The sender's messages stay in
    /// its own queue meanwhile.
    fn block(&mut self, at: usize, message: &Message<'_>, limit_ns: u64, ctx: &mut Context<'_>) {
        let until = ctx.now().saturating_add(limit_ns);
        loop {
            // All ends, so that this one does not hold up what waits for the others.
            self.pump(ctx);
            let dest = &mut self.dests[at];
            if dest.spill.is_empty() {
                // Room, or nobody there any more: the straight way again.
                match dest.send(ctx.skin, message, self.rules.mq_priority) {
                    Ok(()) => return self.book.delivered(message.dequeued_ns, ctx.now()),
                    Err(Refusal::Full) => {}
                    Err(refusal) => return self.refused(at, refusal, ctx),
                }
            }
            if !dest.spill.is_full() {
                if dest.spill.is_empty() {
                    self.backlog += 1;
                }
                dest.spill.push(message);
                return;
            }
            let now = ctx.now();
            if now.saturating_sub(message.dequeued_ns) > self.rules.ttl_ns {
                return self.book.settle(Outcome::Expired);
            }
            let give_up = match ctx.stop_at_ns.load(Ordering::Relaxed) {
                0 => until,
                stop_at => stop_at.min(until),
            };
            if now >= give_up {
                return self.book.settle(Outcome::Rejected(Reject::Full));
            }
            let (mut room, bound_ns) = match dest.room() {
                Some(room) => (room, QUEUE_RETRY_NS),
                None => (Interest::NONE, SIGNAL_RETRY_NS),
            };
            // An interrupted wait only means to look again.
            let _ = (ctx.skin.wait_ready)(std::slice::from_mut(&mut room), bound_ns.min(give_up - now));
        }
    }

    fn pump_dest(&mut self, at: usize, ctx: &mut Context<'_>) {
        let (route, dest_name) = self.name(at);
        let dest = &mut self.dests[at];
        if dest.spill.is_empty() {
            return;
        }
        while let Some(message) = dest.spill.front() {
            let dequeued_ns = message.dequeued_ns;
            if ctx.now().saturating_sub(dequeued_ns) > self.rules.ttl_ns {
                self.book.settle(Outcome::Expired);
                dest.spill.pop_front();
                continue;
            }
            match dest.send(ctx.skin, &message, self.rules.mq_priority) {
                Ok(()) => self.book.delivered(dequeued_ns, ctx.now()),
                Err(Refusal::Full) => return,
                Err(Refusal::PeerDead) => self.book.settle(Outcome::PeerDead),
                Err(Refusal::TooLarge) => self.book.settle(Outcome::Rejected(Reject::TooLarge)),
                Err(Refusal::Failed(errno)) => {
                    self.book.settle(Outcome::Rejected(Reject::Error));
                    if dest.told != Some(errno) {
                        dest.told = Some(errno);
                        ctx.emit(EventKind::SendFailed { route, dest: dest_name, errno });
                    }
                }
            }
            dest.spill.pop_front();
        }
        self.backlog -= 1;
        if std::mem::take(&mut dest.told_overflow) {
            ctx.emit(EventKind::CaughtUp { route, dest: dest_name });
        }
    }

    fn name(&self, at: usize) -> (u32, u32) {
        (self.rules.index, u32::try_from(at).unwrap_or(u32::MAX))
    }
}

impl OriginRule {
    fn accepts(&self, message: &Message<'_>) -> bool {
        let OriginRule::Signal { accept_claimed, owner } = self else { return true };
        if !message.origin.verified && !accept_claimed {
            return false;
        }
        match owner {
            // Also when it has died meanwhile: what it sent before counts.
            Some(peer) => {
                peer.state() != PeerState::Unregistered && peer.pid().unsigned_abs() == message.origin.pid
            }
            None => true,
        }
    }
}
