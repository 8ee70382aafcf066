//! Lane events and final ledgers as log lines. On the control thread only.

use super::losses::hint;
use super::names::Names;
use crate::control::Violation;
use crate::log;
use crate::plan::{Plan, RouteId, TargetPlan};
use crate::words::counted;
use rtcore::lane::event::{Event, EventKind};
use rtcore::lane::worker::Report;
use rtcore::stats::Ledger;
use rtcore::sys::seccomp;

/// Logs one event of a thread as one line.
pub(super) fn log(names: &Names<'_>, thread: &str, event: &Event) {
    match event.kind {
        EventKind::SignalFailed { route, sink, errno } => log::error(format_args!(
            "route {}: {} does not take the signal for its payloads: {errno} ({errno:?}){}",
            names.route(route),
            names.end(route, sink),
            hint(errno)
        )),
        EventKind::Corrupt {
            route,
            sink,
            generation,
            corrupt,
        } => {
            let who = sink.map_or("its source", |sink| names.end(route, sink));
            log::error(format_args!(
                "route {}: the process at {who} (registration {generation}) broke its ring: {corrupt}",
                names.route(route)
            ));
        }
        EventKind::Torn { route } => log::warning(format_args!(
            "route {}: the sender ended while it wrote a message; the message was never sent",
            names.route(route)
        )),
        EventKind::Relaxed { times } => log::warning(format_args!(
            "{thread} lost its real-time mode ({} by now, rtctl stats counts them): a page fault, a Linux system call, a \
             Linux signal, SIGSTOP or a debugger (/proc/xenomai/sched/stat, MSW; /proc/xenomai/debug/relax where the kernel \
             has it)",
            counted(times, "time")
        )),
        EventKind::Refused { call, times } => log::error(format_args!(
            "{thread}: system call {}(2) refused, it is not on the list of what this thread may call after the \
             seal ({times} refused by now, rtctl stats counts them): a defect of rtd",
            seccomp::name(call)
        )),
        EventKind::Unconfined { errno } => log::error(format_args!(
            "{thread} runs without its filter of system calls, which the kernel granted before: {errno} \
             ({errno:?})"
        )),
        EventKind::ReceiveFailed { route, errno } => {
            log::error(format_args!(
                "route {}: its source cannot be read: {errno} ({errno:?})",
                names.route(route)
            ));
        }
    }
}

/// The session that an event ends.
pub(super) fn violation(plan: &Plan, event: &Event) -> Option<Violation> {
    let EventKind::Corrupt {
        route,
        sink,
        generation,
        corrupt,
    } = event.kind
    else {
        return None;
    };
    let route = plan.routes.get(route as usize)?;
    let endpoint = match sink {
        None => route.from,
        Some(end) => *route
            .to
            .iter()
            .flat_map(TargetPlan::endpoints)
            .nth(end as usize)?,
    };
    let endpoint = &plan.endpoints[endpoint];
    let reason = format!("it broke the ring of endpoint {}: {corrupt}", endpoint.name);
    Some(Violation {
        process: endpoint.owner?,
        generation,
        reason,
    })
}

/// Logs the sum for each lane, and an error if a ledger does not balance. For a thread that gave no
/// report, `on_page` has the figures that it published last.
pub(super) fn final_ledger(
    plan: &Plan,
    reports: &[Report],
    direct: &[(RouteId, Ledger)],
    on_page: impl Fn(RouteId) -> Ledger,
) {
    let mut lanes = vec![Ledger::default(); plan.lanes.len()];
    let mut routes: Vec<Option<Ledger>> = vec![None; plan.routes.len()];
    let routed = reports
        .iter()
        .flat_map(Report::ledgers)
        .map(|(route, ledger)| (route as usize, ledger));
    for (route, ledger) in routed.chain(direct.iter().copied()) {
        if let Some(known) = routes.get_mut(route) {
            *known = Some(ledger);
        }
    }
    for (id, (route, known)) in plan.routes.iter().zip(routes).enumerate() {
        if known.is_none() {
            log::warning(format_args!(
                "route {}: its thread did not report its final ledger; these are the figures \
                 that it published last",
                route.name
            ));
        }
        lanes[route.lane].merge(&known.unwrap_or_else(|| on_page(id)));
    }
    for (lane, l) in plan.lanes.iter().zip(&lanes) {
        log::info(format_args!(
            "lane {}: accepted {} = delivered {} + expired {} + displaced {} + rejected {} + peer-dead {} + queued {}",
            lane.name,
            l.accepted,
            l.delivered,
            l.expired,
            l.displaced,
            l.rejected_total(),
            l.peer_dead,
            l.queued
        ));
        if !l.balances() {
            log::error(format_args!(
                "lane {}: the ledger does not balance: a defect",
                lane.name
            ));
        }
    }
    for report in reports {
        if let Some(usage) = report.since_seal {
            log::info(format_args!(
                "thread {}: since seal {} allocations, {} minor and {} major faults, {} preemptions, {} refused system calls",
                report.name,
                report.counters.allocations,
                usage.minor_faults,
                usage.major_faults,
                usage.involuntary_switches,
                report.counters.refused_calls
            ));
        }
    }
}
