//! A route's accounting: the ledger, and its record on the page.

use crate::message::Outcome;
use crate::stats::Ledger;
use crate::stats::cells::RouteCell;
use crate::stats::loss::Loss;
use crate::sys::Errno;

/// A copy that no receiver got, with its outcome.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lost {
    pub outcome: Outcome,
    /// The end at fault, if there is exactly one.
    pub end: Option<usize>,
    /// The kernel's refusal.
    pub errno: Option<Errno>,
}

impl Lost {
    pub fn at(end: Option<usize>, outcome: Outcome) -> Lost {
        Lost {
            outcome,
            end,
            errno: None,
        }
    }
}

#[derive(Debug)]
pub(super) struct Account {
    pub ledger: Ledger,
    cell: RouteCell,
    deadline_ns: u64,
}

impl Account {
    /// Makes the accounting; a copy that is delivered later than `deadline_ns` after the send or
    /// the dequeue is a deadline miss.
    pub fn new(cell: RouteCell, deadline_ns: u64) -> Account {
        Account {
            ledger: Ledger::default(),
            cell,
            deadline_ns,
        }
    }

    /// Accepts this many copies of a message.
    pub fn accept(&mut self, copies: u64) {
        self.ledger.accepted += copies;
        self.ledger.queued += copies;
    }

    /// Reverts the acceptance of this many copies of a message: it stays in its source, and the
    /// next daemon accepts it.
    pub fn hand_back(&mut self, copies: u64) {
        self.ledger.accepted -= copies;
        self.ledger.queued -= copies;
    }

    /// Counts the outcome of one copy.
    pub fn settle(&mut self, outcome: Outcome) {
        self.ledger.queued -= 1;
        match outcome {
            Outcome::Delivered => self.ledger.delivered += 1,
            Outcome::Expired => self.ledger.expired += 1,
            Outcome::Displaced => self.ledger.displaced += 1,
            Outcome::Rejected(reason) => self.ledger.rejected[reason as usize] += 1,
            Outcome::PeerDead => self.ledger.peer_dead += 1,
        }
    }

    /// Counts the loss of one copy, and shows on the page which end is at fault.
    pub fn lost(&mut self, lost: Lost) {
        self.settle(lost.outcome);
        let Some(end) = lost.end else { return };
        if let Some(loss) = Loss::of(lost.outcome) {
            self.cell.record_loss(end, loss);
        }
        if let Some(errno) = lost.errno {
            self.cell.record_errno(end, errno.0);
        }
    }

    /// Counts the delivery of one copy to this end, and a deadline miss if it is late.
    pub fn delivered(&mut self, end: usize, since_ns: u64, now_ns: u64) {
        let latency = now_ns.saturating_sub(since_ns);
        self.settle(Outcome::Delivered);
        self.cell.record_delivery(end, now_ns);
        self.cell.record_latency(latency);
        if latency > self.deadline_ns {
            self.ledger.deadline_misses += 1;
        }
    }

    /// Publishes the ledger, and the number of queued copies that are also in their sender's ring.
    pub fn publish(&mut self, held: u64) {
        debug_assert!(self.ledger.balances());
        self.ledger.held = held;
        self.cell.publish(&self.ledger);
    }
}
