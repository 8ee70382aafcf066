//! The outcome of messages that `rtctl send` sent into an endpoint that rtd reads: compares the
//! ledgers of its routes on the page before and after.
//!
//! Queues and signals do not identify their sender, so the ledger does not distinguish one sender's
//! messages from another's. It shows how many messages rtd took in the meantime. If these are no
//! more than were sent here, every outcome belongs to them; otherwise a loss may be another
//! sender's, and the output says so.

#![forbid(unsafe_code)]

use crate::words::counted;
use anyhow::bail;
use rtcore::lane::peer::PeerState;
use rtcore::stats::loss::Loss;
use rtcore::stats::reader::{DaemonState, Reader, Snapshot};
use std::time::Duration;

/// First and longest time between two looks.
const LOOKS_MS: (u64, u64) = (1, 50);

/// The routes of an endpoint before the first message.
#[derive(Debug)]
pub struct Watch {
    page: Reader,
    before: Snapshot,
    /// Those that read the endpoint.
    routes: Vec<usize>,
    /// The lane thread that does.
    worker: usize,
}

/// The outcome, as far as it is known.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All that rtd took in the meantime was delivered, or displaced as the configuration asks.
    Delivered,
    /// Why it is not known yet.
    Unknown(String),
    /// rtd ended, or another one serves the instance now: what it had counted since the send is out
    /// of sight.
    Restarted,
    /// What was lost, and whose it is as far as that is known.
    Lost(String),
}

impl Watch {
    /// Over the routes that read the endpoint; none where no route does, and a message goes
    /// straight to its reader.
    pub fn new(page: Reader, endpoint: &str) -> anyhow::Result<Option<Watch>> {
        let before = page.snapshot()?;
        let from = |route: usize| {
            before.routes[route]
                .from
                .and_then(|from| before.endpoints.get(from))
        };
        let reads = |&route: &usize| from(route).is_some_and(|from| from.name == endpoint);
        let routes: Vec<usize> = (0..before.routes.len()).filter(reads).collect();
        // In a lane that blocks each source has a thread of its name, else the lane has one for
        // all.
        let lane = routes.first().and_then(|&route| before.routes[route].lane);
        let threads = || {
            before
                .workers
                .iter()
                .enumerate()
                .filter(|(_, worker)| worker.lane == lane)
        };
        let thread = threads()
            .find(|(_, worker)| worker.name == endpoint)
            .or_else(|| threads().next());
        let Some(worker) = thread.map(|(at, _)| at).filter(|_| !routes.is_empty()) else {
            return Ok(None);
        };
        Ok(Some(Watch {
            page,
            before,
            routes,
            worker,
        }))
    }

    /// Looks until everything is settled, or `pause` says that it is time to end. `is_taken`:
    /// whether nothing waits in the endpoint itself any more, as far as that shows.
    pub fn wait(
        &self,
        sent: u64,
        is_taken: impl Fn() -> bool,
        mut pause: impl FnMut(Duration) -> anyhow::Result<bool>,
    ) -> anyhow::Result<Verdict> {
        let mut pause_ms = LOOKS_MS.0;
        let mut settled = 0;
        // Twice: of several senders' messages the last one that rtd took may be on its way to its
        // outcome.
        while settled < 2 {
            settled = if is_taken() && self.is_settled(sent)? {
                settled + 1
            } else {
                0
            };
            if settled < 2 && pause(Duration::from_millis(pause_ms))? {
                break;
            }
            pause_ms = (pause_ms * 2).min(if settled > 0 { LOOKS_MS.0 } else { LOOKS_MS.1 });
        }
        let after = self.page.snapshot()?;
        let is_over = self.page.daemon_state()? == DaemonState::Stopped;
        if settled < 2 && (is_over || !self.page.is_current() || after.pid != self.before.pid) {
            return Ok(Verdict::Restarted);
        }
        Ok(self.verdict(sent, &after, settled >= 2))
    }

    /// Whether rtd has taken so many messages and none waits for a receiver.
    fn is_settled(&self, sent: u64) -> anyhow::Result<bool> {
        let received = self.page.received(self.worker)?;
        let mut queued = 0;
        for &route in &self.routes {
            queued += self.page.ledger(route)?.queued;
        }
        Ok(received.saturating_sub(self.received_before()) >= sent && queued == 0)
    }

    fn received_before(&self) -> u64 {
        self.before.workers[self.worker].counters.received
    }

    fn verdict(&self, sent: u64, after: &Snapshot, is_settled: bool) -> Verdict {
        let diff = after.diff(&self.before);
        let taken = diff.workers[self.worker].counters.received;
        let lost: Vec<String> = self
            .routes
            .iter()
            .filter_map(|&route| lost(&diff.routes[route], after))
            .collect();
        if lost.is_empty() {
            if is_settled {
                return Verdict::Delivered;
            }
            let queued: u64 = self
                .routes
                .iter()
                .map(|&route| after.routes[route].ledger.queued)
                .sum();
            return Verdict::Unknown(format!(
                "rtd has taken {}; waiting for a receiver: {queued} (rtctl stats)",
                counted(taken.min(sent), "message")
            ));
        }
        let lost = lost.join("; ");
        if taken > sent {
            return Verdict::Lost(format!(
                "of {taken} messages that rtd took in the meantime, {sent} of them from here, \
                 were lost: {lost}. The sender of the lost messages is not known"
            ));
        }
        Verdict::Lost(lost)
    }
}

/// What a route lost that the configuration did not ask for: by reason, with the receivers at
/// fault.
fn lost(route: &rtcore::stats::reader::Route, after: &Snapshot) -> Option<String> {
    let losses = route.ledger.losses();
    let by_reason = Loss::ALL
        .into_iter()
        .filter(|loss| losses[loss.index()] > 0 && !loss.is_requested());
    let reasons: Vec<String> = by_reason
        .map(|loss| {
            let at = route
                .targets
                .iter()
                .filter(|target| target.lost[loss.index()] > 0);
            let at: Vec<String> = at
                .filter_map(|target| receiver(after, target.endpoint?))
                .collect();
            let at = if at.is_empty() {
                String::new()
            } else {
                format!(" at {}", at.join(", "))
            };
            format!(
                "{} {}{at}",
                losses[loss.index()],
                loss.name().replace('_', "-")
            )
        })
        .collect();
    (!reasons.is_empty()).then(|| format!("route {}: {}", route.name, reasons.join(", ")))
}

fn receiver(after: &Snapshot, endpoint: usize) -> Option<String> {
    let endpoint = after.endpoints.get(endpoint)?;
    let owner = endpoint.owner.and_then(|owner| after.processes.get(owner));
    Some(
        match owner.filter(|owner| owner.state != PeerState::Alive) {
            Some(owner) => format!(
                "{} (process {} is not registered)",
                endpoint.name, owner.name
            ),
            None => endpoint.name.clone(),
        },
    )
}

impl Verdict {
    /// An error for what was lost, a line on standard error for what is not known.
    pub fn report(self, endpoint: &str) -> anyhow::Result<()> {
        match self {
            Verdict::Delivered => Ok(()),
            Verdict::Unknown(why) => {
                crate::log::print(format_args!("rtctl: the outcome is not known yet: {why}"));
                Ok(())
            }
            Verdict::Restarted => bail!(
                "sent to {endpoint}, but rtd ended or was restarted before the outcome was known; \
                 its log names the lost messages \
                 (\"lost in the last life\")"
            ),
            Verdict::Lost(what) => {
                bail!("sent to {endpoint} and lost: {what}; rtd's log has the fix")
            }
        }
    }
}
