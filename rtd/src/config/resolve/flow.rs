//! The flow of messages: which endpoints are read in which lane, circles, and unused entries.

use super::names::Target;
use super::{Context, list_without, whole_file};
use crate::config::diagnostic::Place;
use crate::config::reader::Field;
use crate::config::sections::Group;
use crate::config::values::Name;
use crate::endpoint::EndpointKind;
use crate::plan::{
    EndpointId, EndpointPlan, Path, Plan, RouteId, RoutePlan, SourcePlan, TargetPlan,
};
use std::collections::HashMap;

/// The endpoints that threads read, in the order of the file. One thread reads a source, so all its
/// routes are in one lane. The source of a direct route is read by the receiver.
pub fn sources(cx: &mut Context<'_, '_, '_>, routes: &[RoutePlan]) -> Vec<SourcePlan> {
    let mut sources: Vec<SourcePlan> = Vec::new();
    let mut by_endpoint: HashMap<EndpointId, usize> = HashMap::new();
    let config = cx.config;
    for (id, (route, written)) in routes.iter().zip(&config.route).enumerate() {
        let known = route.from < config.endpoint.len() && route.lane < config.lane.len();
        if !known || route.path == Path::Direct {
            continue;
        }
        let Some(source) = by_endpoint
            .get(&route.from)
            .and_then(|at| sources.get_mut(*at))
        else {
            by_endpoint.insert(route.from, sources.len());
            sources.push(SourcePlan {
                endpoint: route.from,
                lane: route.lane,
                routes: vec![id],
            });
            continue;
        };
        source.routes.push(id);
        if source.lane == route.lane {
            continue;
        }
        let lane_name = |at: usize| {
            config
                .lane
                .get(at)
                .and_then(|lane| lane.name.get())
                .map_or("?", |n| &n.0)
        };
        let (first, this) = (lane_name(source.lane), lane_name(route.lane));
        let from = written.from.get().map_or("?", String::as_str);
        let message = format!(
            "`{from}` is already read in lane `{first}`: one thread reads it, so it cannot be in \
             `{this}` too"
        );
        let place = written.lane.place_or(&written.place);
        cx.report.error(
            &place,
            message,
            format!("lane = \"{first}\"\ngive this lane a source of its own"),
        );
    }
    sources
}

/// Reports chains of routes that form a circle.
pub fn check(cx: &mut Context<'_, '_, '_>, plan: &Plan) {
    for (route, path) in circles(plan) {
        let names: Vec<&str> = path
            .iter()
            .filter_map(|id| plan.endpoints.get(*id))
            .map(|e| e.name.as_str())
            .collect();
        let Some(written) = cx.config.route.get(route) else {
            continue;
        };
        let closing = path
            .last()
            .and_then(|end| written.to.iter().find(|at| leads_to(cx, &at.value, *end)));
        let place = closing.map_or(&written.place, |at| &at.place);
        let message = format!(
            "messages would circulate without end: {}",
            names.join(" -> ")
        );
        let without = closing.and_then(|at| list_without("to", &written.to, &at.place));
        let without = without.unwrap_or_else(|| "remove this route".to_owned());
        let more = "name another endpoint in `to`: rtd reads one queue and writes into another, \
        which the receiver opens";
        cx.report
            .error(place, message, format!("{without}\n{more}"));
    }
}

/// Whether a name in `to` refers to an endpoint, by itself or as a group.
fn leads_to(cx: &Context<'_, '_, '_>, name: &str, endpoint: EndpointId) -> bool {
    let end = cx.config.endpoint.get(endpoint).and_then(|e| e.name.get());
    match cx.names.targets.get(name) {
        Some(Target::Endpoint(id)) => *id == endpoint,
        Some(Target::Group(id)) => {
            let members = cx
                .config
                .group
                .get(*id)
                .map(|group| group.members.as_slice())
                .unwrap_or_default();
            members
                .iter()
                .any(|member| end.is_some_and(|end| end.0 == member.value))
        }
        None => false,
    }
}

/// Each route that closes a circle, with the endpoints of the circle (the first one again at the
/// end).
///
/// Depth first without recursion: a chain may be as long as there are endpoints.
pub fn circles(plan: &Plan) -> Vec<(RouteId, Vec<EndpointId>)> {
    let mut out: Vec<Vec<(RouteId, EndpointId)>> = vec![Vec::new(); plan.endpoints.len()];
    for (id, route) in plan.routes.iter().enumerate() {
        if let Some(out) = out.get_mut(route.from) {
            let comes_out = |to: &&EndpointId| {
                plan.endpoints
                    .get(**to)
                    .is_some_and(|e| e.kind.policy().feeds_itself())
            };
            let to = route
                .to
                .iter()
                .flat_map(TargetPlan::endpoints)
                .filter(comes_out);
            out.extend(to.map(|to| (id, *to)));
        }
    }
    let mut found: Vec<(RouteId, Vec<EndpointId>)> = Vec::new();
    let mut done = vec![false; out.len()];
    for start in 0..out.len() {
        if done[start] {
            continue;
        }
        let mut path: Vec<(EndpointId, usize)> = vec![(start, 0)];
        let mut on_path = vec![false; out.len()];
        on_path[start] = true;
        while let Some((at, next)) = path.last_mut() {
            let Some((route, to)) = out[*at].get(*next).copied() else {
                done[*at] = true;
                on_path[*at] = false;
                path.pop();
                continue;
            };
            *next += 1;
            if on_path.get(to).copied().unwrap_or(false) {
                let from = path.iter().position(|(id, _)| *id == to).unwrap_or(0);
                let mut round: Vec<EndpointId> = path[from..].iter().map(|(id, _)| *id).collect();
                round.push(to);
                if !found.iter().any(|(seen, _)| *seen == route) {
                    found.push((route, round));
                }
            } else if done.get(to) == Some(&false) {
                on_path[to] = true;
                path.push((to, 0));
            }
        }
    }
    found
}

/// Warns of unused entries: usually a name is missing somewhere else.
///
/// If a name of that kind could not be resolved, that is the reason, and is already reported.
pub fn unused(cx: &mut Context<'_, '_, '_>, plan: &Plan) {
    if cx.report.has_broken_lines() {
        return;
    }
    let config = cx.config;
    if config.route.is_empty() {
        cx.report.warning(
            &whole_file(),
            "there is no [[route]]: rtd would have nothing to do",
            "[[route]]",
        );
        return;
    }
    let lanes_known = plan
        .routes
        .iter()
        .all(|route| route.lane < config.lane.len());
    for (id, lane) in config.lane.iter().enumerate().filter(|_| lanes_known) {
        if !plan.routes.iter().any(|route| route.lane == id) {
            warn(cx, &lane.name, &lane.place, "lane", "no route is in it");
        }
    }
    let written = config.endpoint.iter().zip(&plan.endpoints);
    let ownerless = |e: &EndpointPlan| !matches!(e.kind, EndpointKind::Ring(_));
    let owners_known = written
        .clone()
        .all(|(e, made)| made.owner.is_some() || (e.owner.is_absent() && ownerless(made)));
    for (id, process) in config.process.iter().enumerate().filter(|_| owners_known) {
        let name = process.name.get().map(|name| &name.0);
        let filters = |g: &Group| {
            [&g.process_group_of, &g.session_of]
                .iter()
                .any(|f| f.get() == name)
        };
        let named = name.is_some() && config.group.iter().any(filters);
        if !named
            && !plan
                .endpoints
                .iter()
                .any(|endpoint| endpoint.owner == Some(id))
        {
            warn(
                cx,
                &process.name,
                &process.place,
                "process",
                "it owns no endpoint, and no group filters by it",
            );
        }
    }
    if !targets_known(cx) {
        return;
    }
    let sunk = plan.sinks();
    for (id, endpoint) in config.endpoint.iter().enumerate() {
        let read = plan.routes.iter().any(|route| route.from == id);
        if !read && !sunk.get(id).copied().unwrap_or(false) {
            warn(
                cx,
                &endpoint.name,
                &endpoint.place,
                "endpoint",
                "no route reads it or sends to it",
            );
        }
    }
    for group in &config.group {
        let name = group.name.get().map(|name| name.0.as_str());
        if !config
            .route
            .iter()
            .flat_map(|route| &route.to)
            .any(|at| Some(at.value.as_str()) == name)
        {
            warn(
                cx,
                &group.name,
                &group.place,
                "group",
                "no route sends to it",
            );
        }
    }
}

/// Whether every name in `from`, `to` and `members` is known.
fn targets_known(cx: &Context<'_, '_, '_>) -> bool {
    let config = cx.config;
    let known = |name: &String| cx.names.targets.contains_key(name);
    let endpoint = |name: &String| matches!(cx.names.targets.get(name), Some(Target::Endpoint(_)));
    let routes = config.route.iter().all(|route| {
        route.from.get().is_some_and(endpoint)
            && !route.to.is_empty()
            && route.to.iter().all(|at| known(&at.value))
    });
    routes
        && config
            .group
            .iter()
            .all(|g| !g.members.is_empty() && g.members.iter().all(|at| known(&at.value)))
}

fn warn(cx: &mut Context<'_, '_, '_>, name: &Field<Name>, place: &Place, what: &str, why: &str) {
    let Some(at) = name.at() else { return };
    if cx.names.second.contains(&place.key) {
        return;
    }
    let place = Place {
        span: at.place.span.clone(),
        key: place.key.clone(),
    };
    cx.report.warning(
        &place,
        format!("{what} `{}` is not used: {why}", at.value.0),
        "remove it, or name it in a route",
    );
}
