//! Endpoints: keys that fit the kind, owners that exist, queues that are told apart.

use super::{Context, names::Names, rings, xddp};
use crate::config::diagnostic::Place;
use crate::config::sections::Endpoint;
use crate::config::values::Kind;
use crate::plan::{EndpointKind, EndpointPlan, Plan, ProcessId, SignalTarget, TargetPlan};
use std::collections::HashMap;
use std::ffi::CString;

/// mq_maxmsg unless the file says otherwise: the kernel's own default.
const MAXMSG: usize = 10;
/// mq_msgsize unless the file says otherwise: commands and samples, not files; ten of it are cheap.
const MSGSIZE: usize = 256;
/// Permission bits unless the file says otherwise.
const MODE: u32 = 0o660;
/// Longest name of a queue behind its `/` (NAME_MAX).
const QUEUE_NAME_BYTES_MAX: usize = 255;

/// Makes the endpoints.
pub fn resolve(cx: &mut Context<'_, '_, '_>) -> Vec<EndpointPlan> {
    let config = cx.config;
    let mut endpoints = Vec::with_capacity(config.endpoint.len());
    let mut queues: HashMap<CString, &Place> = HashMap::new();
    for endpoint in &config.endpoint {
        let name = endpoint.name.get().map(|name| name.0.clone()).unwrap_or_default();
        let owner = owner(cx, endpoint);
        let kind = match endpoint.kind.get().map(|kind| kind.0) {
            Some(Kind::Signal) => signal(cx, endpoint),
            Some(Kind::Lane) => rings::lane(cx, endpoint),
            Some(Kind::Xddp) => xddp::endpoint(cx, endpoint),
            Some(Kind::Mqueue) | None => {
                let kind = mqueue(cx, endpoint, &name);
                if let (EndpointKind::Mqueue { queue, .. }, Some(_)) = (&kind, endpoint.kind.get()) {
                    twice(cx, &mut queues, queue, endpoint);
                }
                kind
            }
        };
        endpoints.push(EndpointPlan { name, owner, kind });
    }
    endpoints
}

fn owner(cx: &mut Context<'_, '_, '_>, endpoint: &Endpoint) -> Option<ProcessId> {
    let at = endpoint.owner.at()?;
    let found = cx.names.processes.get(&at.value).copied();
    if found.is_none() {
        let known = Names::sorted(&cx.names.processes);
        cx.unknown_name(&at.place, "owner", "process", &at.value, &known);
    }
    found
}

/// The word for a kind in a file.
pub fn kind_name(kind: &EndpointKind) -> &'static str {
    match kind {
        EndpointKind::Mqueue { .. } => "mqueue",
        EndpointKind::Signal { .. } => "signal",
        EndpointKind::Lane(_) => "lane",
        EndpointKind::Xddp(_) => "xddp",
    }
}

/// Reports those of the keys that the file has: they belong to another kind.
pub fn foreign(cx: &mut Context<'_, '_, '_>, endpoint: &Endpoint, kind: &str, keys: &[&str]) {
    let written = [
        ("queue", endpoint.queue.at().map(|at| &at.place)),
        ("mode", endpoint.mode.at().map(|at| &at.place)),
        ("flush_at_start", endpoint.flush_at_start.at().map(|at| &at.place)),
        ("signal", endpoint.signal.at().map(|at| &at.place)),
        ("target", endpoint.target.at().map(|at| &at.place)),
        ("port", endpoint.port.at().map(|at| &at.place)),
        ("label", endpoint.label.at().map(|at| &at.place)),
    ];
    for (key, place) in written.into_iter().filter(|(key, _)| keys.contains(key)) {
        let Some(place) = place else { continue };
        let message = format!("`{key}` means nothing for kind = \"{kind}\"");
        cx.report.error(place, message, format!("remove `{key}`"));
    }
}

fn signal(cx: &mut Context<'_, '_, '_>, endpoint: &Endpoint) -> EndpointKind {
    foreign(cx, endpoint, "signal", &["queue", "mode", "flush_at_start", "port", "label"]);
    if endpoint.signal.is_absent() && !cx.report.has_broken_lines() {
        let place = Place { key: format!("{}.signal", endpoint.place.key), ..endpoint.place.clone() };
        cx.report.error(&place, "`signal` is missing for kind = \"signal\"", "signal = \"SIGRTMIN+3\"");
    }
    EndpointKind::Signal {
        signo: endpoint.signal.get().map_or_else(rtcore::sys::signame::rt_min, |signal| signal.0),
        target: endpoint.target.get().map_or(SignalTarget::Process, |target| target.0),
        inbox: rings::inbox(cx, endpoint),
    }
}

fn mqueue(cx: &mut Context<'_, '_, '_>, endpoint: &Endpoint, name: &str) -> EndpointKind {
    if endpoint.kind.get().is_some() {
        foreign(cx, endpoint, "mqueue", &["signal", "target", "port", "label"]);
    }
    let default = format!("/{name}");
    let written = endpoint.queue.at();
    let queue = written.map_or(default.as_str(), |at| at.value.as_str());
    if let (Some(fault), Some(at)) = (queue_name_fault(queue), written) {
        let message = format!("`{}` is no name of a queue: {fault}", queue.escape_debug());
        cx.report.error(&at.place, message, format!("queue = \"{default}\""));
    }
    let mode = endpoint.mode.get().map_or(MODE, |mode| mode.0);
    if let (Some(at), true, true) = (endpoint.mode.at(), mode & 0o002 != 0, endpoint.owner.is_absent()) {
        let message = format!(
            "mode {mode:04o}: any program on the machine may write queue `{}`, and nobody owns it",
            queue.escape_debug()
        );
        cx.report.warning(&at.place, message, "mode = \"0660\"\nowner = (the process that sends)");
    }
    if let (Some(at), true) = (endpoint.mode.at(), mode & 0o600 != 0o600) {
        let message = format!(
            "mode {mode:04o} keeps rtd itself from opening queue `{}` again after a restart",
            queue.escape_debug()
        );
        cx.report.error(&at.place, message, format!("mode = \"{:04o}\"", mode | 0o600));
    }
    EndpointKind::Mqueue {
        // A name with a 0 in it was refused above; it never reaches a kernel call.
        queue: CString::new(queue).unwrap_or_default(),
        maxmsg: endpoint.maxmsg.get().map_or(MAXMSG, |n| n.count()),
        msgsize: endpoint.msgsize.get().map_or(MSGSIZE, |n| n.count()),
        mode,
        flush_at_start: endpoint.flush_at_start.get().copied().unwrap_or(false),
    }
}

/// Warns where an owner is named and others may write the queue all the same: the group matters where the
/// origin is passed on, which is in shared memory and in queued signals (a doorbell's is one of many); the whole
/// machine anywhere.
pub fn check_writers(cx: &mut Context<'_, '_, '_>, plan: &Plan) {
    let config = cx.config;
    let carries_origin = |id: &usize| match plan.endpoints.get(*id).map(|to| &to.kind) {
        Some(EndpointKind::Signal { signo, .. }) => rtcore::sys::signame::is_realtime(*signo),
        Some(EndpointKind::Lane(_)) => true,
        _ => false,
    };
    for (id, (endpoint, written)) in plan.endpoints.iter().zip(&config.endpoint).enumerate() {
        // Behind a refused kind stands a queue.
        let (EndpointKind::Mqueue { mode, .. }, Some(_)) = (&endpoint.kind, written.kind.get()) else {
            continue;
        };
        let Some(owner) = endpoint.owner.and_then(|owner| plan.processes.get(owner)) else { continue };
        let routes = || plan.routes.iter().filter(|route| route.from == id);
        let tells_origin = routes().flat_map(|r| &r.to).flat_map(TargetPlan::endpoints).any(carries_origin);
        let others = if mode & 0o002 != 0 { "any program on the machine" } else { "the queue's group" };
        let place = written.mode.place_or(&written.place);
        let (name, owner) = (&endpoint.name, &owner.name);
        if tells_origin && mode & 0o022 != 0 {
            let message = format!(
                "mode {mode:04o} lets {others} write what `{owner}` owns: what comes from `{name}` carries no \
                 origin (pid 0), not `{owner}`'s"
            );
            let mend = "mode = \"0600\" (and run the owner as rtd's user or root)\n\
                        remove `owner`, if no receiver looks at the origin";
            cx.report.warning(&place, message, mend);
        } else if mode & 0o002 != 0 {
            let wrong = if routes().next().is_some() {
                format!("write in the name of `{owner}`")
            } else {
                "write past rtd and all its routes".to_owned()
            };
            let message = format!("mode {mode:04o} of `{name}` lets {others} {wrong}");
            cx.report.warning(&place, message, "mode = \"0660\"");
        }
    }
}

/// Why mq_open(3) would not take a name.
fn queue_name_fault(queue: &str) -> Option<&'static str> {
    let Some(rest) = queue.strip_prefix('/') else { return Some("it begins with `/`") };
    if rest.is_empty() || rest == "." || rest == ".." {
        return Some("behind the `/` stands a name");
    }
    if rest.contains('/') {
        return Some("there is one `/`, in front");
    }
    if rest.len() > QUEUE_NAME_BYTES_MAX {
        return Some("it is longer than 255 bytes");
    }
    if rest.contains(|c: char| c.is_control()) {
        return Some("it has a control character in it");
    }
    None
}

fn twice<'c>(
    cx: &mut Context<'c, '_, '_>,
    queues: &mut HashMap<CString, &'c Place>,
    queue: &CString,
    endpoint: &'c Endpoint,
) {
    let place = endpoint.queue.at().map_or(&endpoint.place, |at| &at.place);
    if let Some(first) = queues.get(queue) {
        let message = format!(
            "queue `{}` is the endpoint's on line {} already: each message would reach only one of them",
            queue.to_string_lossy().escape_debug(),
            cx.report.line(first)
        );
        let own = endpoint.name.get().map_or("another", |name| name.0.as_str());
        cx.report.error(place, message, format!("queue = \"/{own}\"\nuse one endpoint in all the routes"));
        return;
    }
    queues.insert(queue.clone(), place);
}
