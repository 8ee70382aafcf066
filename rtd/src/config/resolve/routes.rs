//! Routes: ends and lanes by name, bounds and policies with their defaults.

use super::groups::{self, Made};
use super::names::{Names, Target};
use super::{Context, REJOIN_NS, direct, list_with, payload};
use crate::config::diagnostic::Place;
use crate::config::reader::At;
use crate::config::sections::{Lane, Route};
use crate::config::suggest;
use crate::endpoint::EndpointKind;
use crate::endpoint::signal::SignalPlan;
use crate::plan::{
    EndpointId, EndpointPlan, LaneId, LanePlan, NAME_BYTES_MAX, Path, RoutePlan, TargetPlan,
};
use rtcore::lane::policy::{Overflow, Rate};
use rtcore::sys::signame;
use std::collections::HashSet;

/// Default of the messages that wait for a full target.
const CAPACITY: usize = 64;
/// Limit of the endpoints that one message of a route is sent to.
const FANOUT_MAX: usize = 64;

/// Makes the routes.
pub fn resolve(
    cx: &mut Context<'_, '_, '_>,
    lanes: &[LanePlan],
    endpoints: &[EndpointPlan],
) -> Vec<RoutePlan> {
    let config = cx.config;
    let groups = groups::resolve(cx);
    let mut taken: HashSet<String> = config
        .route
        .iter()
        .filter_map(|route| route.name.get())
        .map(|name| name.0.clone())
        .collect();
    let mut routes = Vec::with_capacity(config.route.len());
    for written in &config.route {
        let from = from(cx, written);
        let lane = lane(cx, written);
        let to = targets(cx, written, &groups);
        // The defaults of a lane apply to its threads, which a direct route does not use.
        let path = written.path.get().map_or(Path::Routed, |path| path.0);
        let lanes_entry = lane.and_then(|lane| config.lane.get(lane));
        let policy = lanes_entry.filter(|_| path == Path::Routed);
        let (overflow, capacity) = if path == Path::Direct {
            direct::check(cx, written, from, endpoints);
            (direct::overflow(cx, written, lanes_entry), 0)
        } else {
            overflow(cx, written, policy)
        };
        let source = from
            .filter(|id| is_certain(cx, *id))
            .and_then(|id| endpoints.get(id));
        if let Some(source) = source {
            claimed(cx, written, source);
        }
        let payload_bytes_max = payload::bound(cx, written, source, &to, endpoints);
        routes.push(RoutePlan {
            name: name(written, &mut taken),
            // Out of range on purpose if the name was refused, so that it is never taken for a
            // valid index.
            from: from.unwrap_or(usize::MAX),
            to,
            lane: lane.unwrap_or(lanes.len()),
            ttl_ns: written.ttl.get().map(|time| time.0),
            deadline_ns: written
                .deadline
                .get()
                .or(policy.and_then(|l| l.deadline.get()))
                .map(|time| time.0),
            rate: if path == Path::Routed {
                rate(cx, written)
            } else {
                None
            },
            payload_bytes_max,
            truncate: written.truncate.get().copied().unwrap_or(false),
            overflow,
            capacity,
            mq_priority: written.mq_priority.get().and_then(|priority| priority.0),
            accept_claimed: written.accept_claimed.get().copied().unwrap_or(false),
            rejoin_ns: match path {
                // Its sender and its receiver keep the ring; a restart of rtd does not affect it.
                Path::Direct => 0,
                Path::Routed => written
                    .rejoin
                    .get()
                    .or(config.daemon.rejoin.get())
                    .map_or(REJOIN_NS, |time| time.0),
            },
            path,
        });
    }
    routes
}

/// Whether an endpoint is as its entry says: a default replaces a refused key, and its consequences
/// are not faults of the file.
pub fn is_certain(cx: &Context<'_, '_, '_>, endpoint: EndpointId) -> bool {
    cx.config
        .endpoint
        .get(endpoint)
        .is_some_and(|written| written.kind.get().is_some() && written.keys.is_certain())
}

fn from(cx: &mut Context<'_, '_, '_>, route: &Route) -> Option<EndpointId> {
    let at = route.from.at()?;
    match cx.names.targets.get(&at.value).copied() {
        Some(Target::Endpoint(id)) => return Some(id),
        Some(Target::Group(group)) => {
            let members = cx
                .config
                .group
                .get(group)
                .map(|group| group.members.as_slice())
                .unwrap_or_default();
            let members = suggest::list(members.iter().map(|member| member.value.as_str()));
            let message = format!(
                "`{}` is a group; a route is read from one endpoint",
                at.value
            );
            cx.report.error(
                &at.place,
                message,
                format!("one route for each of {members}"),
            );
        }
        None => {
            let mut known = cx.names.endpoints();
            known.retain(|name| route.to.iter().all(|to| to.value != *name));
            cx.unknown_value(&at.place, "from", "endpoint", &at.value, &known);
        }
    }
    None
}

fn lane(cx: &mut Context<'_, '_, '_>, route: &Route) -> Option<LaneId> {
    let at = route.lane.at()?;
    let found = cx.names.lanes.get(&at.value).copied();
    if found.is_none() {
        let known = Names::sorted(&cx.names.lanes);
        cx.unknown_value(&at.place, "lane", "lane", &at.value, &known);
    }
    found
}

fn targets(cx: &mut Context<'_, '_, '_>, route: &Route, groups: &[Made]) -> Vec<TargetPlan> {
    let mut targets = Vec::new();
    let mut reached: Vec<EndpointId> = Vec::new();
    let mut named: Vec<&str> = Vec::new();
    for at in &route.to {
        if named.contains(&at.value.as_str()) {
            let message = format!("`{}` is named twice in this route", at.value);
            let once = route.to.iter().map(|at| at.value.as_str());
            cx.report
                .error(&at.place, message, suggest::list_line("to", once));
            continue;
        }
        named.push(&at.value);
        match cx.names.targets.get(&at.value).copied() {
            Some(Target::Endpoint(id)) => {
                overlap(cx, at, &reached, &[id]);
                reached.push(id);
                targets.push(TargetPlan::Endpoint(id));
            }
            Some(Target::Group(group)) => {
                let Some(Made {
                    mode,
                    members,
                    filter,
                }) = groups.get(group)
                else {
                    continue;
                };
                overlap(cx, at, &reached, members);
                reached.extend_from_slice(members);
                targets.push(TargetPlan::Group {
                    name: at.value.clone(),
                    mode: *mode,
                    members: members.clone(),
                    filter: *filter,
                });
            }
            None => {
                let mut known = Names::sorted(&cx.names.targets);
                // A message that comes back to its source would be the next error.
                known.retain(|name| route.from.get() != Some(name));
                let write = |near: &str| list_with("to", &route.to, &at.place, near);
                cx.unknown_name(&at.place, "endpoint or group", &at.value, &known, write);
            }
        }
    }
    if reached.len() > FANOUT_MAX {
        let place = route.to.first().map_or(&route.place, |at| &at.place);
        let message = format!(
            "the route reaches {} endpoints, at most {FANOUT_MAX} are possible",
            reached.len()
        );
        cx.report.error(
            place,
            message,
            "split it: one route cannot have so many targets",
        );
    }
    targets
}

/// An endpoint that is reached twice gets every message twice, which is probably not intended.
fn overlap(
    cx: &mut Context<'_, '_, '_>,
    at: &At<String>,
    reached: &[EndpointId],
    more: &[EndpointId],
) {
    if let Some(twice) = more.iter().find(|id| reached.contains(id)) {
        let name = cx
            .config
            .endpoint
            .get(*twice)
            .and_then(|e| e.name.get())
            .map_or("?", |name| &name.0);
        let message = format!(
            "through `{}` this route reaches endpoint `{name}` a second time",
            at.value
        );
        cx.report
            .warning(&at.place, message, "name it once, alone or in a group");
    }
}

fn overflow(cx: &mut Context<'_, '_, '_>, route: &Route, lane: Option<&Lane>) -> (Overflow, usize) {
    let written = route
        .overflow
        .get()
        .or(lane.and_then(|lane| lane.overflow.get()));
    let overflow = written.map_or(Overflow::Reject, |overflow| overflow.0);
    let capacity = route
        .capacity
        .get()
        .or(lane.and_then(|lane| lane.capacity.get()));
    if overflow != Overflow::Conflate {
        return (
            overflow,
            capacity.map_or(CAPACITY, |capacity| capacity.count()),
        );
    }
    if let Some(at) = route.capacity.at().filter(|at| at.value.0 != 1) {
        let message = format!(
            "`conflate` keeps the latest message only, not {}",
            at.value.0
        );
        cx.report.warning(
            &at.place,
            message,
            "remove `capacity`\noverflow = \"displace-oldest\"",
        );
    }
    (overflow, 1)
}

fn rate(cx: &mut Context<'_, '_, '_>, route: &Route) -> Option<Rate> {
    let Some(per_second) = route.rate_hz.get().map(|rate| rate.narrow()) else {
        if let (Some(at), true) = (route.burst.at(), route.rate_hz.is_absent()) {
            cx.report.error(
                &at.place,
                "`burst` has no effect without `rate_hz`",
                "rate_hz = 1000\nremove `burst`",
            );
        }
        return None;
    };
    let burst = route
        .burst
        .get()
        .map_or((per_second / 10).max(1), |burst| burst.narrow());
    Some(Rate { per_second, burst })
}

/// A queued signal's sender is a claim: the route must accept it explicitly.
fn claimed(cx: &mut Context<'_, '_, '_>, route: &Route, source: &EndpointPlan) {
    let accepts = route.accept_claimed.get().copied().unwrap_or(false);
    match source.kind {
        EndpointKind::Signal(SignalPlan { signo, .. })
            if signame::is_realtime(signo) && !accepts =>
        {
            let fallback = Place {
                key: format!("{}.accept_claimed", route.place.key),
                ..route.place.clone()
            };
            let message = format!(
                "`{}` is {}: any sender may write any pid into a queued signal (rt_sigqueueinfo(2)), so its \
                 origin is a claim, which this route does not accept",
                source.name,
                signame::name(signo)
            );
            let fix = "accept_claimed = true\na source of kind = \"mqueue\", whose owner rtd knows";
            cx.report
                .error(&route.accept_claimed.place_or(&fallback), message, fix);
        }
        EndpointKind::Signal(_) => {}
        _ if accepts => {
            let place = route.accept_claimed.place_or(&route.place);
            cx.report.warning(
                &place,
                "`accept_claimed` has an effect only on routes from a signal",
                "remove `accept_claimed`",
            );
        }
        _ => {}
    }
}

/// The given name, otherwise one made from the ends; these are cut to fit and distinguished by a
/// number.
fn name(route: &Route, taken: &mut HashSet<String>) -> String {
    if let Some(name) = route.name.get() {
        return name.0.clone();
    }
    let from = route.from.get().map_or("?", String::as_str);
    let to = route.to.first().map_or("?", |at| at.value.as_str());
    let full = format!("{from}->{to}");
    for number in 1_usize.. {
        let tail = if number == 1 {
            String::new()
        } else {
            format!("#{number}")
        };
        let candidate = format!("{}{tail}", cut(&full, NAME_BYTES_MAX - tail.len()));
        if taken.insert(candidate.clone()) {
            return candidate;
        }
    }
    full
}

fn cut(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
