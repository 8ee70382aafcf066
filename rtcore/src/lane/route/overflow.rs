//! The treatment of messages for full receivers: queue, displace, wait or reject, and deliver
//! queued messages later.

use super::{AtStop, Context, Refused, Route, offer_to, refused};
use crate::endpoint::sink::Refusal;
use crate::lane::account::Lost;
use crate::lane::policy::Overflow;
use crate::message::{Message, Outcome, Reject};
use std::sync::atomic::Ordering;

impl Route {
    /// Queues the message in front of full receivers; if the capacity is used up, the policy
    /// decides.
    pub(super) fn enqueue(&mut self, at: usize, message: &Message<'_>, ctx: &mut Context<'_>) {
        let end = self.backlogs[at].only_end();
        if self.rules.overflow == Overflow::Conflate {
            for _ in 0..self.backlogs[at].queue.clear() {
                self.account.lost(Lost::at(end, Outcome::Displaced));
            }
        }
        if self.queue(at, message, ctx) {
            return;
        }
        // A receiver may have made room since the queued messages were last tried.
        self.pump_backlog(at, ctx);
        if self.queue(at, message, ctx) {
            return;
        }
        let queue = &mut self.backlogs[at].queue;
        match self.rules.overflow {
            Overflow::DisplaceOldest if queue.capacity() > 0 => queue.pop_front(),
            Overflow::DisplaceNewest if queue.capacity() > 0 => queue.pop_back(),
            Overflow::Block { limit_ns } => return self.block(at, message, limit_ns, ctx),
            _ => return self.lose(Lost::at(end, Outcome::Rejected(Reject::Full)), ctx),
        }
        self.account.lost(Lost::at(end, Outcome::Displaced));
        self.queue(at, message, ctx);
    }

    /// Holds the source's thread until there is room, for at most `limit_ns`. Meanwhile the
    /// sender's messages stay in its own queue. At a stop the message in hand stays there too, if
    /// possible ([`AtStop`]).
    pub(super) fn block(
        &mut self,
        at: usize,
        message: &Message<'_>,
        limit_ns: u64,
        ctx: &mut Context<'_>,
    ) {
        let (until, end) = (
            ctx.now().saturating_add(limit_ns),
            self.backlogs[at].only_end(),
        );
        loop {
            // All backlogs, so that this message does not delay those for other receivers.
            self.pump_all(ctx);
            self.publish_held(message, ctx);
            if self.backlogs[at].queue.is_empty() {
                // There is room, or the receiver is gone: the message takes the normal path again.
                match self.offer(at, message, ctx) {
                    Ok(end) => {
                        self.sent(at, end, ctx);
                        return self.delivered(end, message, ctx);
                    }
                    Err((_, Refusal::Full)) => {}
                    Err((end, refusal)) => return self.lose(refused(end, refusal), ctx),
                }
            }
            if self.queue(at, message, ctx) {
                return;
            }
            let stop_at_ns = ctx.stop_at_ns.load(Ordering::Relaxed);
            if stop_at_ns != 0 && ctx.at_stop == AtStop::Leave {
                ctx.at_stop = AtStop::Left;
                return;
            }
            let now = ctx.now();
            if now.saturating_sub(message.since_ns) > self.rules.ttl_ns {
                return self.lose(Lost::at(end, Outcome::Expired), ctx);
            }
            let (give_up, reason) = match stop_at_ns {
                stop_at if stop_at != 0 && stop_at < until => (stop_at, Reject::Stopped),
                _ => (until, Reject::Full),
            };
            if now >= give_up {
                return self.lose(Lost::at(end, Outcome::Rejected(reason)), ctx);
            }
            self.wait_for_room(give_up - now, ctx);
        }
    }

    /// Sleeps until a queued message may have room, for at most this long.
    pub(super) fn wait_for_room(&mut self, limit_ns: u64, ctx: &mut Context<'_>) {
        let mut waits = std::mem::take(&mut self.waits);
        waits.clear();
        let bound_ns = self.await_room(&mut waits).min(limit_ns);
        if bound_ns > 0 {
            ctx.progress.rest();
            // SAFETY: the words are those of rings that this route holds. After an interrupted wait
            // the caller checks again.
            let _ = unsafe { waits.wait(ctx.skin, bound_ns) };
            ctx.progress.work();
        }
        self.waits = waits;
    }

    /// Sends a message to the first end of a backlog that takes it, beginning with the one whose
    /// turn it is; returns that end. The result is dead only if all ends are dead, otherwise full
    /// if one is full.
    pub(super) fn offer(
        &mut self,
        at: usize,
        message: &Message<'_>,
        ctx: &mut Context<'_>,
    ) -> Result<usize, Refused> {
        let Route {
            rules,
            targets,
            sinks,
            backlogs,
            ..
        } = self;
        offer_to(rules, targets, sinks, &backlogs[at], message, ctx)
    }

    pub(super) fn pump_backlog(&mut self, at: usize, ctx: &mut Context<'_>) {
        // The first message is in the backlog's memory while a sink takes it, so the fields are
        // borrowed separately.
        while let Some(message) = self.backlogs[at].queue.front() {
            let since_ns = message.since_ns;
            if ctx.now().saturating_sub(since_ns) > self.rules.ttl_ns {
                self.account
                    .lost(Lost::at(self.backlogs[at].only_end(), Outcome::Expired));
            } else {
                let backlog = &self.backlogs[at];
                match offer_to(
                    &self.rules,
                    &self.targets,
                    &mut self.sinks,
                    backlog,
                    &message,
                    ctx,
                ) {
                    Ok(end) => {
                        crate::fault_point!("after_queued_delivery_before_ledger");
                        self.sent(at, end, ctx);
                        self.account.delivered(end, since_ns, ctx.now());
                    }
                    Err((_, Refusal::Full)) => return,
                    Err((end, refusal)) => self.account.lost(refused(end, refusal)),
                }
            }
            self.backlogs[at].queue.pop_front();
        }
    }
}
