//! A route's accounting: the ledger, and the page on which it is shown.

use crate::message::{Outcome, Reject};
use crate::stats::Ledger;
use crate::stats::loss::Loss;
use crate::stats::writer::RouteCell;
use crate::sys::Errno;

#[derive(Debug)]
pub(super) struct Account {
    pub ledger: Ledger,
    cell: RouteCell,
    deadline_ns: u64,
}

impl Account {
    /// Delivered later than `deadline_ns` after the dequeue is a deadline miss.
    pub fn new(cell: RouteCell, deadline_ns: u64) -> Account {
        Account { ledger: Ledger::default(), cell, deadline_ns }
    }

    /// Takes so many copies of a message in charge.
    pub fn accept(&mut self, copies: u64) {
        self.ledger.accepted += copies;
        self.ledger.queued += copies;
    }

    /// Takes back the acceptance of so many copies of a message: it stays in its source, and the next daemon accepts it.
    pub fn hand_back(&mut self, copies: u64) {
        self.ledger.accepted -= copies;
        self.ledger.queued -= copies;
    }

    /// One copy ended.
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

    /// The same for a copy on its way to this end, if it is one end alone that is at fault: the page shows whose loss it
    /// is.
    pub fn settle_at(&mut self, end: Option<usize>, outcome: Outcome) {
        self.settle(outcome);
        if let (Some(end), Some(loss)) = (end, Loss::of(outcome)) {
            self.cell.record_loss(end, loss);
        }
    }

    /// The kernel refused a copy at this end.
    pub fn refused_by_kernel(&mut self, end: usize, errno: Errno) {
        self.settle_at(Some(end), Outcome::Rejected(Reject::Error));
        self.cell.record_errno(end, errno.0);
    }

    /// One copy was delivered to this end.
    pub fn delivered(&mut self, end: usize, since_ns: u64, now_ns: u64) {
        let latency = now_ns.saturating_sub(since_ns);
        self.settle(Outcome::Delivered);
        self.cell.record_delivery(end, now_ns);
        self.cell.record_latency(latency);
        if latency > self.deadline_ns {
            self.ledger.deadline_misses += 1;
        }
    }

    /// Shows the ledger.
    pub fn publish(&mut self) {
        debug_assert!(self.ledger.balances());
        self.cell.publish(&self.ledger);
    }
}
