//! A plan on one screen: lanes by priority, their routes, the queues, and its use of the limits.

use super::machine::Machine;
use super::prepared;
use crate::plan::{Filter, Path, Plan, RoutePlan, TargetPlan};
use crate::words::show_time;
use rtcore::lane::policy::{GroupMode, Overflow, Wait};
use rtcore::skin::Doorbell;
use rtcore::sys::limits::Limit;
use std::fmt::Write as _;

/// Limit of the lines of one kind before "and N more", so that the summary fits on a screen.
const LINES_MAX: usize = 12;

/// The summary, ending in a newline.
pub fn summary(plan: &Plan, machine: &Machine) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(
        out,
        "{}: socket {}",
        plan.daemon.name,
        plan.daemon.socket.display()
    );
    let skin = &plan.daemon.skin;
    let _ = writeln!(out, "skin {}: {}", skin.kind.name(), skin.why);
    sessions(&mut out, plan);
    let mut lanes: Vec<usize> = (0..plan.lanes.len()).collect();
    lanes.sort_by_key(|id| std::cmp::Reverse(plan.lanes.get(*id).map(|lane| lane.priority)));
    for id in lanes.iter().take(LINES_MAX) {
        lane(&mut out, plan, *id);
    }
    more(&mut out, lanes.len());
    queues(&mut out, plan);
    let _ = writeln!(out, "takes");
    let limit = |limit: Option<Limit>| match limit {
        None => "limit not known".to_owned(),
        Some(Limit { soft: None, .. }) => "unlimited".to_owned(),
        Some(Limit {
            soft: Some(soft), ..
        }) => format!("of {soft}"),
    };
    let _ = if plan.daemon.skin.kind.caps().shared_namespace {
        writeln!(
            out,
            "  queue bytes    {} {}",
            plan.queue_bytes(),
            limit(machine.rlimit_msgqueue)
        )
    } else {
        let (bytes, name) = (plan.private_queue_bytes(), skin.kind.name());
        writeln!(
            out,
            "  queue bytes    {bytes} of the kernel's memory, by `{name}`; none of Linux's queues"
        )
    };
    let lifted = if machine.cap_ipc_lock == Some(true) {
        " (lifted by CAP_IPC_LOCK)"
    } else {
        ""
    };
    let _ = writeln!(
        out,
        "  locked memory  {} {}{lifted}",
        plan.locked_bytes(machine.program_bytes),
        limit(machine.rlimit_memlock)
    );
    let highest = plan.watchdog_priority();
    let lifted = if machine.cap_sys_nice == Some(true) {
        " (lifted by CAP_SYS_NICE)"
    } else {
        ""
    };
    let _ = writeln!(
        out,
        "  priority       {highest} (the watchdog's) {}{lifted}",
        limit(machine.rlimit_rtprio)
    );
    let _ = writeln!(out, "  threads        {}", plan.threads());
    let mut notes = plan.notes();
    notes.extend(prepared::notes(plan, machine));
    if !notes.is_empty() {
        let _ = writeln!(out, "note");
        for note in notes {
            let _ = writeln!(out, "  {note}");
        }
    }
    out
}

/// The processes whose sessions must run on the skin, because its doorbell is not available to
/// every program.
fn sessions(out: &mut String, plan: &Plan) {
    if plan.daemon.skin.kind.caps().doorbell == Doorbell::Futex {
        return;
    }
    let owners = plan
        .routed_rings()
        .filter_map(|(id, _)| plan.endpoints.get(id)?.owner);
    let mut names: Vec<&str> = owners
        .filter_map(|id| Some(plan.processes.get(id)?.name.as_str()))
        .collect();
    names.sort_unstable();
    names.dedup();
    if !names.is_empty() {
        let cut = if names.len() > LINES_MAX { ", ..." } else { "" };
        names.truncate(LINES_MAX);
        let _ = writeln!(
            out,
            "  sessions that bind it as well: {}{cut}",
            names.join(", ")
        );
    }
}

fn lane(out: &mut String, plan: &Plan, id: usize) {
    let Some(lane) = plan.lanes.get(id) else {
        return;
    };
    let routes: Vec<&RoutePlan> = plan
        .routes
        .iter()
        .filter(|route| route.lane == id)
        .collect();
    let _ = writeln!(
        out,
        "lane {}  priority {}  cpu {}  {}{}",
        lane.name,
        lane.priority,
        lane.cpu,
        show_wait(lane.wait),
        if lane.unisolated { "  unisolated" } else { "" }
    );
    for route in routes.iter().take(LINES_MAX) {
        let _ = writeln!(out, "  {}", show_route(plan, route));
    }
    more(out, routes.len());
}

fn show_route(plan: &Plan, route: &RoutePlan) -> String {
    let name = |id: usize| {
        plan.endpoints
            .get(id)
            .map_or("?", |endpoint| endpoint.name.as_str())
    };
    let targets: Vec<String> = route
        .to
        .iter()
        .map(|target| match target {
            TargetPlan::Endpoint(id) => name(*id).to_owned(),
            TargetPlan::Group {
                name,
                mode,
                members,
                filter,
            } => {
                let mode = match mode {
                    GroupMode::All => "all",
                    GroupMode::RoundRobin => "round-robin",
                    GroupMode::Any => "any",
                };
                format!(
                    "{name} ({mode} of {}{})",
                    members.len(),
                    show_filter(plan, *filter)
                )
            }
        })
        .collect();
    let mut text = format!("{} -> {}", name(route.from), targets.join(", "));
    let overflow = show_overflow(route.overflow);
    let _ = match route.path {
        Path::Direct => write!(text, "  direct  <={}B  {overflow}", route.payload_bytes_max),
        Path::Routed => {
            write!(
                text,
                "  <={}B  {overflow} x{}",
                route.payload_bytes_max, route.capacity
            )
        }
    };
    if let Some(ttl) = route.ttl_ns {
        let _ = write!(text, "  ttl {}", show_time(ttl));
    }
    if let Some(deadline) = route.deadline_ns {
        let _ = write!(text, "  deadline {}", show_time(deadline));
    }
    if let Some(rate) = route.rate {
        let _ = write!(text, "  {}/s burst {}", rate.per_second, rate.burst);
    }
    text
}

fn queues(out: &mut String, plan: &Plan) {
    let _ = writeln!(out, "endpoints");
    for endpoint in plan.endpoints.iter().take(LINES_MAX) {
        let owner = endpoint
            .owner
            .and_then(|id| plan.processes.get(id))
            .map(|process| process.name.as_str());
        let owner = owner.map_or_else(String::new, |owner| format!("  owner {owner}"));
        let what = endpoint.kind.policy().summary(&plan.daemon.skin);
        let _ = writeln!(out, "  {}  {what}{owner}", endpoint.name);
    }
    more(out, plan.endpoints.len());
}

fn more(out: &mut String, count: usize) {
    if count > LINES_MAX {
        let _ = writeln!(out, "  and {} more", count - LINES_MAX);
    }
}

fn show_filter(plan: &Plan, filter: Option<Filter>) -> String {
    let Some(filter) = filter else {
        return String::new();
    };
    let what = match filter {
        Filter::ProcessGroupOf(_) => "process group",
        Filter::SessionOf(_) => "session",
    };
    let process = plan
        .processes
        .get(filter.process())
        .map_or("?", |process| process.name.as_str());
    format!(" in the {what} of {process}")
}

fn show_wait(wait: Wait) -> String {
    match wait {
        Wait::Block => "block".to_owned(),
        Wait::Spin { spin_ns } => format!("spin:{}", spin_ns / 1_000),
        Wait::Poll => "poll".to_owned(),
    }
}

fn show_overflow(overflow: Overflow) -> String {
    match overflow {
        Overflow::Reject => "reject".to_owned(),
        Overflow::DisplaceOldest => "displace-oldest".to_owned(),
        Overflow::DisplaceNewest => "displace-newest".to_owned(),
        Overflow::Conflate => "conflate".to_owned(),
        Overflow::Block { limit_ns } => format!("block:{}", limit_ns / 1_000),
    }
}
