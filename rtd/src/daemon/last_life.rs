//! What the instance's last daemon had queued when it was killed: those messages are lost, and its ledger cannot say so.
//!
//! Its page is still there, and counts like any other page: it must be root's or ours, and everything in it is checked. A
//! daemon that was stopped has accounted for everything and removed its page.

use crate::log;
use crate::plan::{Plan, RouteId};
use rtcore::stats::place::may_order;
use rtcore::stats::reader::{DaemonState, ReadError, Reader};
use rtcore::stats::writer::Page;

/// By route of the last life: its name, its place in this plan if it has one, how many messages.
#[derive(Debug, Default)]
pub struct LastLife(Vec<(String, Option<RouteId>, u64)>);

impl LastLife {
    /// Reads the page that the last daemon left. Before the next one replaces it.
    pub fn read(plan: &Plan) -> LastLife {
        let page = match Reader::open(&plan.daemon.name) {
            Ok(page) => page,
            Err(e @ ReadError::Version { .. }) => {
                log::info(format_args!("{e}; what that life lost is not known"));
                return LastLife::default();
            }
            Err(_) => return LastLife::default(),
        };
        // What lives has lost nothing; the start is refused over its name.
        let counts = page.address().is_ok_and(|a| may_order(a.uid) && a.state == DaemonState::Stopped);
        let Some(left) = page.snapshot().ok().filter(|_| counts) else { return LastLife::default() };
        // A direct route's messages are in the memory of its two processes.
        let routed = left.routes.iter().filter(|route| !route.direct);
        // A message that is still in its sender's ring comes again.
        let lost = routed.map(|route| (&route.name, route.ledger.queued.saturating_sub(route.ledger.held)));
        let now = |name: &str| plan.routes.iter().position(|route| route.name == name);
        LastLife(
            lost.filter(|(_, lost)| *lost > 0).map(|(name, lost)| (name.clone(), now(name), lost)).collect(),
        )
    }

    /// Shows it on the page and in the log.
    pub fn report(self, page: &Page) {
        for (name, route, lost) in self.0 {
            if let Some(route) = route {
                page.set_lost_in_last_life(route, lost);
            }
            log::warning(format_args!(
                "route {name}: {lost} lost in the last life of this instance: rtd was killed while they waited in the route's \
                 capacity"
            ));
        }
    }
}
