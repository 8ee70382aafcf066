//! Lanes: their CPUs, their wait strategies, and their effects on other lanes of the same CPU.

use super::{Context, watch};
use crate::config::diagnostic::Place;
use crate::config::sections::Lane;
use crate::config::values::WaitText;
use crate::endpoint::EndpointKind;
use crate::plan::{EndpointPlan, LanePlan, Path, Plan, SPIN_SOURCES_MAX};
use rtcore::lane::policy::{Overflow, Wait};
use rtcore::sys::cpus::show_list;

/// Makes the lanes and checks each against the machine and against the others.
pub fn resolve(cx: &mut Context<'_, '_, '_>) -> Vec<LanePlan> {
    let config = cx.config;
    let mut lanes = Vec::with_capacity(config.lane.len());
    for lane in &config.lane {
        check_cpu(cx, lane);
        check_wait(cx, lane);
        let watch = watch::lane(cx, lane, wait_of(lane));
        let priority = lane
            .priority
            .get()
            .and_then(|p| u8::try_from(p.0).ok())
            .unwrap_or(1);
        lanes.push(LanePlan {
            name: lane
                .name
                .get()
                .map(|name| name.0.clone())
                .unwrap_or_default(),
            priority,
            cpu: lane.cpu.get().map_or(0, |cpu| cpu.count()),
            wait: wait_of(lane),
            unisolated: lane.unisolated.get().copied().unwrap_or(false),
            watch,
        });
    }
    check_neighbours(cx);
    lanes
}

fn wait_of(lane: &Lane) -> Wait {
    lane.wait.get().map_or(Wait::Block, |WaitText(wait)| *wait)
}

fn check_cpu(cx: &mut Context<'_, '_, '_>, lane: &Lane) {
    let Some(at) = lane.cpu.at() else { return };
    let cpu = at.value.count();
    if let Some(existing) = &cx.machine.cpus_existing
        && !existing.contains(&cpu)
    {
        let message = format!(
            "CPU {cpu} does not exist or is offline; online: {}",
            show_list(existing)
        );
        let allowed = |cpu: &&usize| {
            cx.machine
                .cpus_allowed
                .as_ref()
                .is_none_or(|allowed| allowed.contains(*cpu))
        };
        let usable: Vec<usize> = existing.iter().filter(allowed).copied().collect();
        let fix = format!("cpu = {}", usable_cpu(cx, lane, &usable));
        cx.report.error(&at.place, message, fix);
    } else if let Some(allowed) = &cx.machine.cpus_allowed
        && !allowed.contains(&cpu)
    {
        let message = format!(
            "CPU {cpu} is not allowed to this process; allowed: {}",
            show_list(allowed)
        );
        let first = usable_cpu(cx, lane, allowed);
        let fix = format!(
            "cpu = {first}\nAllowedCPUs={} in the [Slice] or [Service] section that holds the unit\n\
             CPUAffinity={cpu} in the unit, if it sets one",
            show_list(&[allowed.as_slice(), &[cpu]].concat())
        );
        cx.report.error(&at.place, message, fix);
    }
}

/// A CPU on which no other lane has this one's priority, if there is one.
fn usable_cpu(cx: &Context<'_, '_, '_>, lane: &Lane, cpus: &[usize]) -> usize {
    let taken = |cpu: &&usize| {
        let mut others = cx
            .config
            .lane
            .iter()
            .filter(|other| other.place != lane.place);
        others.any(|o| {
            o.cpu.get().is_some_and(|c| c.count() == **cpu)
                && o.priority.get() == lane.priority.get()
        })
    };
    cpus.iter()
        .find(|cpu| !taken(cpu))
        .or(cpus.first())
        .copied()
        .unwrap_or(0)
}

fn check_wait(cx: &mut Context<'_, '_, '_>, lane: &Lane) {
    let unisolated = lane.unisolated.get().copied().unwrap_or(false);
    let polls = wait_of(lane) == Wait::Poll;
    if let (true, false, Some(at)) = (unisolated, polls, lane.unisolated.at()) {
        let message = "`unisolated` has an effect only with wait = \"poll\"";
        cx.report.warning(&at.place, message, "remove `unisolated`");
    }
    let (true, false, Some(at), Some(cpu)) = (polls, unisolated, lane.wait.at(), lane.cpu.get())
    else {
        return;
    };
    let cpu = cpu.count();
    match &cx.machine.cpus_isolated {
        None => {
            let message = format!(
                "`poll` needs an isolated CPU, and this machine does not show whether CPU {cpu} \
                 is isolated"
            );
            cx.report.warning(&at.place, message, "unisolated = true");
        }
        Some(isolated) if !isolated.contains(&cpu) => {
            let message = format!(
                "`poll` never releases CPU {cpu}, which is not isolated (isolated: {})",
                show_list(isolated)
            );
            let fix = format!(
                "wait = \"spin:50\"\nboot with isolcpus={cpu} nohz_full={cpu}\nunisolated = true"
            );
            cx.report.error(&at.place, message, fix);
        }
        Some(_) => {}
    }
}

/// Lanes that share a CPU: priorities must differ, and a lane below one that polls would never run.
fn check_neighbours(cx: &mut Context<'_, '_, '_>) {
    let lanes = &cx.config.lane;
    for (index, lane) in lanes.iter().enumerate() {
        let (Some(cpu), Some(priority)) = (lane.cpu.get(), lane.priority.at()) else {
            continue;
        };
        let on_cpu = |other: &&Lane| other.cpu.get() == Some(cpu);
        let same = lanes[..index]
            .iter()
            .filter(on_cpu)
            .find(|o| o.priority.get() == Some(&priority.value));
        if let Some(other) = same {
            let message = format!(
                "lanes `{}` and `{}` both have priority {} on CPU {}: neither could preempt the other",
                label(other),
                label(lane),
                priority.value.0,
                cpu.0
            );
            let fix = free_priority(lanes, cpu.0, priority.value.0).map_or_else(
                || "cpu = (another one)".to_owned(),
                |free| format!("priority = {free}"),
            );
            cx.report.error(&priority.place, message, fix);
        }
        let below = |o: &&Lane| o.priority.get().is_some_and(|p| p.0 < priority.value.0);
        if wait_of(lane) == Wait::Poll
            && let Some(starved) = lanes.iter().filter(on_cpu).find(below)
        {
            let place: Place = lane.wait.place_or(&lane.place);
            let message = format!(
                "lane `{}` polls on CPU {} and never sleeps: lane `{}` below it would never run",
                label(lane),
                cpu.0,
                label(starved)
            );
            cx.report
                .error(&place, message, "wait = \"block\"\ncpu = (one of its own)");
        }
    }
}

/// The nearest priority on a CPU that no lane has.
fn free_priority(lanes: &[Lane], cpu: u64, near: u64) -> Option<u64> {
    let taken = |p: u64| {
        lanes.iter().any(|l| {
            l.cpu.get().is_some_and(|c| c.0 == cpu) && l.priority.get().is_some_and(|q| q.0 == p)
        })
    };
    (1..=98)
        .filter(|p| !taken(*p))
        .min_by_key(|p| p.abs_diff(near))
}

fn label(lane: &Lane) -> &str {
    lane.name.get().map_or("?", |name| name.0.as_str())
}

/// One thread reads all sources of a lane that spins or polls: it can sleep in one source only, or
/// at the words of several rings, and a route that blocks it would block all of them.
pub fn check_sources(cx: &mut Context<'_, '_, '_>, plan: &Plan) {
    let config = cx.config;
    for (id, (lane, written)) in plan.lanes.iter().zip(&config.lane).enumerate() {
        let read = plan.sources.iter().filter(|s| s.lane == id);
        let read: Vec<&EndpointPlan> = read
            .filter_map(|s| plan.endpoints.get(s.endpoint))
            .collect();
        let names: Vec<&str> = read.iter().map(|e| e.name.as_str()).collect();
        if lane.wait == Wait::Block || names.len() < 2 {
            continue;
        }
        let names = crate::config::suggest::list(names.iter().copied());
        if lane.wait != Wait::Poll && !spins_on(cx, lane, written, &read, &names) {
            continue;
        }
        let scans = if lane.wait == Wait::Poll {
            "polls"
        } else {
            "spins on"
        };
        for (route, at) in plan.routes.iter().zip(&config.route) {
            let blocks =
                matches!(route.overflow, Overflow::Block { .. }) && route.path == Path::Routed;
            if route.lane != id || !blocks {
                continue;
            }
            let place = at.overflow.place_or(&written.overflow.place_or(&at.place));
            let message = format!(
                "route `{}` blocks the one thread that {scans} all of lane `{}`: a full receiver \
                 would delay {names}",
                route.name, lane.name
            );
            let fix = "overflow = \"reject\" (or displace-oldest, displace-newest, conflate)\n\
                        give this source a lane of its own\nwait = \"block\" (a thread per source)";
            cx.report.error(&place, message, fix);
        }
    }
}

/// Whether a thread that spins on these sources can sleep in them after the spin; if not, reports
/// it.
fn spins_on(
    cx: &mut Context<'_, '_, '_>,
    lane: &LanePlan,
    written: &Lane,
    read: &[&EndpointPlan],
    names: &str,
) -> bool {
    let count = read.len();
    let other = read
        .iter()
        .find(|endpoint| !matches!(endpoint.kind, EndpointKind::Ring(_)));
    let message = if let Some(other) = other {
        format!(
            "lane `{}` spins and then sleeps, in one source or in several lane endpoints; its routes read {names}, \
             and `{}` is of kind \"{}\"",
            lane.name,
            other.name,
            other.kind.name()
        )
    } else if count > SPIN_SOURCES_MAX {
        format!(
            "lane `{}` spins and then sleeps in all its sources at once; they are {count}, at most \
             {SPIN_SOURCES_MAX} are possible (futex_waitv(2))",
            lane.name
        )
    } else {
        return true;
    };
    let fix = "wait = \"block\"\ngive each source a lane of its own";
    let fix = if other.is_some() {
        format!("{fix}\nkind = \"lane\" for all of them")
    } else {
        format!("{fix}\ndivide them between two lanes")
    };
    cx.report
        .error(&written.wait.place_or(&written.place), message, fix);
    false
}
