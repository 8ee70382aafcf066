//! What a test expects of a route's ledger, to the message.

use super::{Instance, eventually};
use anyhow::Context as _;
use rtcore::message::Reject;
use rtcore::stats::Ledger;
use rtcore::stats::reader::Snapshot;

/// Where a message is or how it ended.
#[derive(Clone, Copy, Debug)]
pub enum End {
    Delivered,
    Expired,
    Displaced,
    PeerDead,
    Queued,
    Rejected(Reject),
}

/// The ledger in which `accepted` messages ended so.
pub fn ledger(accepted: u64, ends: &[(End, u64)]) -> Ledger {
    let mut ledger = Ledger {
        accepted,
        ..Ledger::default()
    };
    for &(end, count) in ends {
        match end {
            End::Delivered => ledger.delivered = count,
            End::Expired => ledger.expired = count,
            End::Displaced => ledger.displaced = count,
            End::PeerDead => ledger.peer_dead = count,
            End::Queued => ledger.queued = count,
            End::Rejected(reason) => ledger.rejected[reason as usize] = count,
        }
    }
    assert!(ledger.balances(), "the test cannot count: {ledger:?}");
    ledger
}

/// A route's ledger.
pub fn of(snapshot: &Snapshot, route: &str) -> anyhow::Result<Ledger> {
    let found = snapshot
        .routes
        .iter()
        .find(|r| r.name == route && r.consistent);
    Ok(found.with_context(|| format!("no route {route}"))?.ledger)
}

/// Messages that each end of a route got, in order.
pub fn targets(snapshot: &Snapshot, route: &str) -> anyhow::Result<Vec<u64>> {
    let found = snapshot
        .routes
        .iter()
        .find(|r| r.name == route)
        .with_context(|| format!("no route {route}"))?;
    let late = found
        .targets
        .iter()
        .find(|t| (t.delivered > 0) != t.last_ns.is_some());
    anyhow::ensure!(
        late.is_none(),
        "a count without a time, or the reverse: {late:?}"
    );
    Ok(found
        .targets
        .iter()
        .map(|target| target.delivered)
        .collect())
}

/// Fails unless the route's ledger is exactly this (deadlines apart), in this snapshot.
pub fn check(
    snapshot: &Snapshot,
    route: &str,
    accepted: u64,
    ends: &[(End, u64)],
) -> anyhow::Result<()> {
    check_ledger(&of(snapshot, route)?, accepted, ends).with_context(|| format!("route {route}"))
}

/// The same for a ledger from anywhere.
pub fn check_ledger(got: &Ledger, accepted: u64, ends: &[(End, u64)]) -> anyhow::Result<()> {
    let got = Ledger {
        deadline_misses: 0,
        held: 0,
        ..*got
    };
    let want = ledger(accepted, ends);
    anyhow::ensure!(got == want, "is {got:?}\n not {want:?}");
    Ok(())
}

impl Instance {
    /// Waits until the route's ledger is exactly this (deadlines apart). Counters only grow, so one
    /// that went past it never is again.
    pub fn ledger_is(
        &self,
        route: &str,
        accepted: u64,
        ends: &[(End, u64)],
    ) -> anyhow::Result<Snapshot> {
        let mut last = Err(anyhow::anyhow!("no page"));
        let found = eventually(|| {
            let snapshot = self.snapshot().ok()?;
            last = check(&snapshot, route, accepted, ends);
            last.is_ok().then_some(snapshot)
        });
        found.or_else(|e| last.and(Err(e)))
    }
}
