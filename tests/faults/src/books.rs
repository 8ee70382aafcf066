//! The daemon's ledgers, summed over its lives.

use crate::patience::Patience;
use crate::plan::INSTANCE;
use anyhow::Context as _;
use rtcore::stats::reader::{Reader, Route};
use std::time::Duration;

/// What the ledgers say of one route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    /// Copies taken in charge.
    pub accepted: u64,
    /// Copies handed over.
    pub delivered: u64,
    /// Copies that ended in another way, also those that the receiver's library discarded.
    pub lost: u64,
    /// Copies that wait now.
    pub queued: u64,
}

/// Whether somebody writes the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Running,
    /// A lane that was killed in the middle of a store leaves its ledger half written: it is off by
    /// the copies of one message.
    Ended,
}

impl Total {
    fn of(route: &Route, life: Life) -> anyhow::Result<Total> {
        let ledger = &route.ledger;
        if life == Life::Running || route.consistent {
            anyhow::ensure!(
                route.consistent,
                "the ledger of {} cannot be read",
                route.name
            );
            anyhow::ensure!(
                ledger.balances(),
                "the ledger of {} does not balance: {ledger:?}",
                route.name
            );
        }
        let discarded: u64 = route
            .targets
            .iter()
            .map(|t| t.receiver.expired + t.receiver.superseded)
            .sum();
        let ended = ledger.expired + ledger.displaced + ledger.rejected_total() + ledger.peer_dead;
        Ok(Total {
            accepted: ledger.accepted,
            delivered: ledger.delivered,
            lost: ended + discarded + route.lost_in_last_life,
            queued: ledger.queued,
        })
    }

    /// With what an earlier life counted. What waited then was lost, or waits now.
    fn after(self, earlier: Total) -> Total {
        Total {
            accepted: self.accepted + earlier.accepted,
            delivered: self.delivered + earlier.delivered,
            lost: self.lost + earlier.lost,
            queued: self.queued,
        }
    }
}

/// All lives of the daemon so far.
#[derive(Debug, Default)]
pub struct Books {
    past: Vec<Total>,
    page: Option<Reader>,
}

impl Books {
    /// A life begins.
    pub fn open(&mut self) -> anyhow::Result<()> {
        self.page = Some(Reader::open(INSTANCE).context("the page of a daemon that said READY")?);
        Ok(())
    }

    /// A life has ended: its page stays readable through the descriptor even if the file is removed.
    pub fn close(&mut self) -> anyhow::Result<()> {
        self.past = self.sums(Life::Ended)?;
        self.page = None;
        Ok(())
    }

    /// The sums, in the order of the plan.
    pub fn now(&self) -> anyhow::Result<Vec<Total>> {
        self.sums(Life::Running)
    }

    fn sums(&self, life: Life) -> anyhow::Result<Vec<Total>> {
        let Some(page) = &self.page else {
            return Ok(self.past.clone());
        };
        // A lane thread that is kept from its CPU in the middle of a store leaves its ledger half
        // written for as long.
        let mut patience = Patience::new();
        let routes = loop {
            let routes = page.snapshot()?.routes;
            let whole = life == Life::Ended || routes.iter().all(|route| route.consistent);
            if whole || patience.is_over() {
                break routes;
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        let earlier = self
            .past
            .iter()
            .copied()
            .chain(std::iter::repeat(Total::default()));
        routes
            .iter()
            .zip(earlier)
            .map(|(route, past)| Ok(Total::of(route, life)?.after(past)))
            .collect()
    }
}
