//! A route at run time: its rules, its ends, and the ledger that balances.
//!
//! Owned by the one thread that reads the route's source. `dispatch` takes a message in charge and
//! brings each copy to an outcome or into a queue; `pump` moves queued ones on when there is room.

use super::dest::{Dest, Refusal};
use super::event::{EventKind, EventSink};
use super::peer::Peer;
use super::policy::{GroupMode, Overflow, Rate};
use super::progress::ProgressCell;
use super::rate::Bucket;
use super::target::Target;
use super::waits::Waits;
use crate::message::{Body, Message, Outcome, Reject};
use crate::skin::{Semaphore, Skin};
use crate::stats::Ledger;
use crate::stats::loss::Loss;
use crate::stats::writer::RouteCell;
use crate::sys::Errno;
use std::ops::Range;
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
    /// Where it is told that a receiver holds the thread.
    pub progress: &'a mut ProgressCell,
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

    /// The same for a copy that was on its way to this end: the page shows whose loss it is.
    fn settle_at(&mut self, end: usize, outcome: Outcome) {
        self.settle(outcome);
        if let Some(loss) = Loss::of(outcome) {
            self.cell.record_loss(end, loss);
        }
    }

    fn delivered(&mut self, end: usize, dequeued_ns: u64, now_ns: u64) {
        let latency = now_ns.saturating_sub(dequeued_ns);
        self.settle(Outcome::Delivered);
        self.cell.record_delivery(end, now_ns);
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
    /// Index of each end's target.
    target_of: Vec<usize>,
    /// By end: whether it counts for the message in hand.
    members: Vec<bool>,
    /// Some target asks anew for each message who counts.
    filtered: bool,
    /// Of the message in hand.
    copies: u64,
    backlog: usize,
    book: Book,
    /// What a blocked dispatch waits for; room for every end.
    waits: Waits,
    /// Some end's receiver has to be told of what it was sent already.
    owes_signal: bool,
}

impl Route {
    /// A route over `dests`, which `targets` divides into consecutive runs; see [`Waits::with_room_for`] for `doorbell`.
    pub fn new(
        rules: Rules,
        rate: Option<Rate>,
        targets: Vec<Target>,
        dests: Vec<Dest>,
        cell: RouteCell,
        doorbell: Option<Arc<Semaphore>>,
    ) -> Route {
        let copies = targets.iter().map(|target| target.copies(target.len)).sum();
        let target_of = (0..targets.len()).flat_map(|t| std::iter::repeat_n(t, targets[t].len)).collect();
        let waits = Waits::with_room_for(dests.len(), doorbell);
        let book = Book { ledger: Ledger::default(), cell, deadline_ns: rules.deadline_ns };
        Route {
            bucket: rate.map(Bucket::new),
            rules,
            members: vec![true; dests.len()],
            filtered: targets.iter().any(|target| target.filter.is_some()),
            targets,
            dests,
            target_of,
            copies,
            backlog: 0,
            book,
            waits,
            owes_signal: false,
        }
    }

    /// Plan index.
    pub fn index(&self) -> u32 {
        self.rules.index
    }

    /// Its ends, in order.
    pub(super) fn dests(&self) -> &[Dest] {
        &self.dests
    }

    /// Number of ends.
    pub fn ends(&self) -> usize {
        self.dests.len()
    }

    /// Whether some message waits for room.
    pub fn has_backlog(&self) -> bool {
        self.backlog > 0 || self.owes_signal
    }

    /// Where every message is.
    pub fn ledger(&self) -> &Ledger {
        &self.book.ledger
    }

    /// Takes a message in charge. [`Route::publish`] follows, after the last of a burst.
    pub fn dispatch(&mut self, message: &Message<'_>, ctx: &mut Context<'_>) {
        if self.filtered {
            self.choose();
        }
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
    }

    /// Moves queued messages on as far as there is room.
    pub fn pump(&mut self, ctx: &mut Context<'_>) {
        for at in 0..self.dests.len() {
            self.pump_dest(at, ctx);
        }
        // Also those that came to owe one just now, or while a dispatch was blocked.
        self.dests.iter().filter(|dest| dest.owes_signal()).for_each(|dest| dest.pay_signal(ctx.skin));
        self.owes_signal = self.dests.iter().any(Dest::owes_signal);
        self.publish();
    }

    /// Takes the rings of receivers that have come, see [`Dest::renew`].
    #[inline]
    pub fn renew(&self) {
        self.dests.iter().for_each(Dest::renew);
    }

    /// Whether receivers of it come and go with rings.
    pub fn has_rings(&self) -> bool {
        self.dests.iter().any(Dest::has_ring)
    }

    /// Gives up on what is queued: the daemon stops.
    pub fn abandon(&mut self) {
        for (at, dest) in self.dests.iter_mut().enumerate() {
            for _ in 0..dest.spill.clear() {
                self.book.settle_at(at, Outcome::Rejected(Reject::Stopped));
            }
        }
        self.backlog = 0;
        self.publish();
    }

    /// Adds what announces room, and returns how long to wait at most: 0 when there is room by now.
    pub fn await_room(&self, waits: &mut Waits) -> u64 {
        let mut bound_ns = if self.owes_signal { SIGNAL_RETRY_NS } else { QUEUE_RETRY_NS };
        for target in &self.targets {
            let waiting = self.dests[target.ends()].iter().find_map(|dest| dest.spill.front());
            if let Some(waiting) = waiting {
                bound_ns = bound_ns.min(self.room_at(target, &waiting, waits));
            }
        }
        bound_ns
    }

    /// The same for one target. Where one end is as good as another, what waits at one may go to any of them:
    /// `waiting` stands for what an end with nothing queued would get.
    fn room_at(&self, target: &Target, waiting: &Message<'_>, waits: &mut Waits) -> u64 {
        let mut bound_ns = QUEUE_RETRY_NS;
        for dest in &self.dests[target.ends()] {
            let own = dest.spill.front();
            if target.keeps_queued() && own.is_none() {
                continue;
            }
            // The vectors were made for every end of every route: no allocation here.
            if !dest.await_room(own.as_ref().unwrap_or(waiting), waits) {
                return 0;
            }
            if dest.is_silent() {
                bound_ns = bound_ns.min(SIGNAL_RETRY_NS);
            }
        }
        bound_ns
    }

    /// Shows the ledger.
    pub fn publish(&mut self) {
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

    /// Settles who counts for the message in hand: once, so that what is accepted is what is dealt with, although
    /// members come and go meanwhile.
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
                let is_member = filter.includes(self.dests[at].peer.as_deref(), wanted);
                self.members[at] = is_member;
                members += usize::from(is_member);
            }
            self.copies += target.copies(members);
        }
    }

    fn dispatch_to(&mut self, at: usize, message: &Message<'_>, ctx: &mut Context<'_>) {
        let target = &mut self.targets[at];
        let ends = target.ends();
        match target.mode {
            GroupMode::All => {
                let mut nobody = true;
                for dest in ends {
                    if self.members[dest] {
                        nobody = false;
                        self.deliver(dest, message, ctx);
                    }
                }
                if nobody {
                    self.book.settle(Outcome::PeerDead);
                }
            }
            GroupMode::RoundRobin => {
                // The turn of who is no member is nobody's: else the next one would have two.
                let turns = (0..target.len).map(|n| (target.cursor + n) % target.len);
                let start = turns.clone().find(|n| self.members[ends.start + n]).unwrap_or(target.cursor);
                target.cursor = (start + 1) % target.len;
                self.deliver_to_one(ends, start, message, ctx);
            }
            GroupMode::Any => self.deliver_to_one(ends, 0, message, ctx),
        }
    }

    /// Starting with the `start`th, the first living member that has room takes it; when none has, the first
    /// living one queues it. A member that can never take it is passed over as well.
    fn deliver_to_one(
        &mut self,
        ends: Range<usize>,
        start: usize,
        message: &Message<'_>,
        ctx: &mut Context<'_>,
    ) {
        let (mut full, mut never) = (None, None);
        for n in 0..ends.len() {
            let at = ends.start + (start + n) % ends.len();
            if !self.members[at] {
                continue;
            }
            match self.try_send(at, message, ctx) {
                Ok(()) => return self.book.delivered(at, message.dequeued_ns, ctx.now()),
                Err(Refusal::Full) => full = full.or(Some(at)),
                Err(Refusal::PeerDead) => {}
                Err(refusal) => never = never.or(Some((at, refusal))),
            }
        }
        match (full, never) {
            (Some(at), _) => self.enqueue(at, message, ctx),
            (None, Some((at, refusal))) => self.refused(at, refusal, ctx),
            (None, None) => self.book.settle(Outcome::PeerDead),
        }
    }

    fn deliver(&mut self, at: usize, message: &Message<'_>, ctx: &mut Context<'_>) {
        match self.try_send(at, message, ctx) {
            Ok(()) => self.book.delivered(at, message.dequeued_ns, ctx.now()),
            Err(Refusal::Full) => self.enqueue(at, message, ctx),
            Err(refusal) => self.refused(at, refusal, ctx),
        }
    }

    /// Hands a new message to one end; behind what is queued there already it is full, so that order is kept.
    #[inline]
    fn try_send(&mut self, at: usize, message: &Message<'_>, ctx: &mut Context<'_>) -> Result<(), Refusal> {
        let dest = &mut self.dests[at];
        if !dest.spill.is_empty() {
            return Err(if dest.is_dead() { Refusal::PeerDead } else { Refusal::Full });
        }
        dest.send(ctx.skin, message, self.rules.mq_priority)?;
        self.owes_signal |= dest.owes_signal();
        match dest.signal_error() {
            None => dest.told = None,
            Some(errno) => self.report_signal(at, errno, ctx),
        }
        Ok(())
    }

    /// Reports a failing signal once until something else happens at that end.
    #[cold]
    fn report_signal(&mut self, at: usize, errno: Errno, ctx: &mut Context<'_>) {
        if self.dests[at].told != Some(errno) {
            self.dests[at].told = Some(errno);
            let (route, dest) = self.name(at);
            ctx.emit(EventKind::SignalFailed { route, dest, errno });
        }
    }

    /// Ends the message in hand for a refusal that waiting does not mend.
    fn refused(&mut self, at: usize, refusal: Refusal, ctx: &mut Context<'_>) {
        match refusal {
            Refusal::PeerDead => self.book.settle_at(at, Outcome::PeerDead),
            Refusal::TooLarge => self.book.settle_at(at, Outcome::Rejected(Reject::TooLarge)),
            Refusal::Full => self.book.settle_at(at, Outcome::Rejected(Reject::Full)),
            Refusal::Corrupt(corrupt) => {
                self.book.settle_at(at, Outcome::PeerDead);
                let (route, dest) = self.name(at);
                let generation = self.dests[at].generation();
                ctx.emit(EventKind::Corrupt { route, dest: Some(dest), generation, corrupt });
            }
            Refusal::Failed(errno) => {
                self.book.settle_at(at, Outcome::Rejected(Reject::Error));
                self.book.cell.record_errno(at, errno.0);
            }
        }
    }

    /// Queues the message in front of a full receiver; past the capacity the policy decides.
    fn enqueue(&mut self, at: usize, message: &Message<'_>, ctx: &mut Context<'_>) {
        let dest = &mut self.dests[at];
        if dest.spill.is_empty() && dest.spill.capacity() > 0 {
            self.backlog += 1;
        } else if self.rules.overflow == Overflow::Conflate {
            for _ in 0..dest.spill.clear() {
                self.book.settle_at(at, Outcome::Displaced);
            }
        }
        if dest.spill.push(message) {
            return;
        }
        match self.rules.overflow {
            Overflow::DisplaceOldest if dest.spill.capacity() > 0 => dest.spill.pop_front(),
            Overflow::DisplaceNewest if dest.spill.capacity() > 0 => dest.spill.pop_back(),
            Overflow::Block { limit_ns } => return self.block(at, message, limit_ns, ctx),
            _ => return self.book.settle_at(at, Outcome::Rejected(Reject::Full)),
        }
        self.book.settle_at(at, Outcome::Displaced);
        dest.spill.push(message);
    }

    /// Holds the source's thread until there is room, at most `limit_ns`. The sender's messages stay in
    /// its own queue meanwhile.
    fn block(&mut self, at: usize, message: &Message<'_>, limit_ns: u64, ctx: &mut Context<'_>) {
        let until = ctx.now().saturating_add(limit_ns);
        let target = self.target_of[at];
        loop {
            // All ends, so that this one does not hold up what waits for the others.
            self.pump(ctx);
            if self.dests[at].spill.is_empty() {
                // Room, or nobody there any more: the straight way again.
                match self.offer(at, message, ctx.skin) {
                    Ok(end) => {
                        self.owes_signal |= self.dests[end].owes_signal();
                        return self.book.delivered(end, message.dequeued_ns, ctx.now());
                    }
                    Err(Refusal::Full) => {}
                    Err(refusal) => return self.refused(at, refusal, ctx),
                }
            }
            let dest = &mut self.dests[at];
            if !dest.spill.is_full() {
                if dest.spill.is_empty() {
                    self.backlog += 1;
                }
                dest.spill.push(message);
                return;
            }
            let now = ctx.now();
            if now.saturating_sub(message.dequeued_ns) > self.rules.ttl_ns {
                return self.book.settle_at(at, Outcome::Expired);
            }
            let (give_up, reason) = match ctx.stop_at_ns.load(Ordering::Relaxed) {
                stop_at if stop_at != 0 && stop_at < until => (stop_at, Reject::Stopped),
                _ => (until, Reject::Full),
            };
            if now >= give_up {
                return self.book.settle_at(at, Outcome::Rejected(reason));
            }
            let mut waits = std::mem::take(&mut self.waits);
            waits.clear();
            // What waits there first is what room is for.
            let first = self.dests[at].spill.front();
            let bound_ns = self.room_at(&self.targets[target], first.as_ref().unwrap_or(message), &mut waits);
            if bound_ns > 0 {
                ctx.progress.rest();
                // SAFETY: the words are those of rings that this route holds.
                // An interrupted wait only means to look again.
                let _ = unsafe { waits.wait(ctx.skin, bound_ns.min(give_up - now)) };
                ctx.progress.work();
            }
            self.waits = waits;
        }
    }

    /// Hands a message that waited at `at` to it, or to another member of its group where one is as good as
    /// another; answers which end took it. Dead only when all of them are.
    fn offer(&self, at: usize, message: &Message<'_>, skin: &Skin) -> Result<usize, Refusal> {
        let mut refusal = match self.dests[at].send(skin, message, self.rules.mq_priority) {
            Ok(()) => return Ok(at),
            Err(refusal) => refusal,
        };
        let target = &self.targets[self.target_of[at]];
        if target.keeps_queued() {
            return Err(refusal);
        }
        for other in target.ends().filter(|other| *other != at) {
            let dest = &self.dests[other];
            let sent = if dest.spill.is_empty() {
                dest.send(skin, message, self.rules.mq_priority)
            } else if dest.is_dead() {
                Err(Refusal::PeerDead)
            } else {
                Err(Refusal::Full)
            };
            match sent {
                Ok(()) => return Ok(other),
                Err(Refusal::Full) => refusal = Refusal::Full,
                Err(r) if refusal == Refusal::PeerDead => refusal = r,
                Err(_) => {}
            }
        }
        Err(refusal)
    }

    fn pump_dest(&mut self, at: usize, ctx: &mut Context<'_>) {
        if self.dests[at].spill.is_empty() {
            return;
        }
        while let Some(message) = self.dests[at].spill.front() {
            let dequeued_ns = message.dequeued_ns;
            if ctx.now().saturating_sub(dequeued_ns) > self.rules.ttl_ns {
                self.book.settle_at(at, Outcome::Expired);
            } else {
                match self.offer(at, &message, ctx.skin) {
                    Ok(end) => self.book.delivered(end, dequeued_ns, ctx.now()),
                    Err(Refusal::Full) => return,
                    Err(refusal) => self.refused(at, refusal, ctx),
                }
            }
            self.dests[at].spill.pop_front();
        }
        self.backlog -= 1;
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
            Some(peer) => peer.may_have_sent(message.origin.pid, message.dequeued_ns),
            None => true,
        }
    }
}
