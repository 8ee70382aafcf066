//! Refused sends: taken from the memory that each session shares with rtd, and shown on the page.
//!
//! Constraint: the memory is the client's. After a number that cannot be true, rtd takes no further
//! number of that session.

use crate::plan::{EndpointId, Plan, ProcessId};
use rtcore::refusals::{Audit, Counts};
use rtcore::stats::writer::{Page, RefusedCell};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::BorrowedFd;

/// Counts by process and by endpoint.
#[derive(Debug)]
pub struct Refusals {
    audits: Vec<Option<Audit>>,
    /// Endpoints that sessions send from.
    totals: BTreeMap<EndpointId, Total>,
}

#[derive(Debug)]
struct Total {
    owner: ProcessId,
    counts: Counts,
    cell: Option<RefusedCell>,
}

impl Refusals {
    pub fn new(plan: &Plan) -> Refusals {
        let sent_from = |id: EndpointId| plan.routes.iter().any(|route| route.from == id);
        let endpoints = (0..).zip(&plan.endpoints).filter(|(id, _)| sent_from(*id));
        let totals = endpoints.filter_map(|(id, endpoint)| {
            Some((
                id,
                Total {
                    owner: endpoint.owner?,
                    counts: Counts::default(),
                    cell: None,
                },
            ))
        });
        Refusals {
            audits: plan.processes.iter().map(|_| None).collect(),
            totals: totals.collect(),
        }
    }

    /// Sets the cells that show the counts from now on.
    pub fn show(&mut self, page: &Page) {
        for (endpoint, total) in &mut self.totals {
            total.cell = Some(page.refused(*endpoint));
        }
    }

    /// The process has a session that counts in this memory.
    pub fn begin(&mut self, process: ProcessId, memory: BorrowedFd<'_>) -> io::Result<()> {
        self.audits[process] = Some(Audit::new(memory)?);
        Ok(())
    }

    /// The session is over, and its counts were read since.
    pub fn end(&mut self, process: ProcessId) {
        self.confirm();
        self.audits[process] = None;
    }

    /// New refusals, by endpoint.
    pub fn poll(&mut self, plan: &Plan, warnings: &mut Vec<String>) -> Vec<(EndpointId, Counts)> {
        let mut all = Vec::new();
        for (endpoint, total) in &mut self.totals {
            let Some(audit) = &mut self.audits[total.owner] else {
                continue;
            };
            let Some(more) = audit.take(&plan.endpoints[*endpoint].name) else {
                warnings.push(format!(
                    "{}: its session reports impossible counts of refused messages: they are not used any more",
                    plan.processes[total.owner].name
                ));
                self.audits[total.owner] = None;
                continue;
            };
            if more == Counts::default() {
                continue;
            }
            for (count, more) in total.counts.iter_mut().zip(more) {
                *count = count.saturating_add(more);
            }
            if let Some(cell) = &mut total.cell {
                cell.show(&total.counts);
            }
            all.push((*endpoint, more));
        }
        all
    }

    /// Records, for the next daemon, the counts that were taken and published.
    pub fn confirm(&self) {
        self.audits.iter().flatten().for_each(Audit::confirm);
    }
}
