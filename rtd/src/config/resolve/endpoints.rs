//! Endpoints: keys that fit the kind, owners that exist, queues that are told apart.

use super::{Context, names::Names, rings, signals, xddp};
use crate::config::diagnostic::Place;
use crate::config::sections::Endpoint;
use crate::config::values::{Kind, QUOTED_CHARS_MAX, quoted};
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
    let mut queues: HashMap<CString, &Endpoint> = HashMap::new();
    for endpoint in &config.endpoint {
        let name = endpoint.name.get().map(|name| name.0.clone()).unwrap_or_default();
        let owner = owner(cx, endpoint);
        let kind = match endpoint.kind.get().map(|kind| kind.0) {
            Some(Kind::Signal) => signal(cx, endpoint),
            Some(Kind::Lane) => rings::lane(cx, endpoint),
            Some(Kind::Xddp) => xddp::endpoint(cx, endpoint),
            Some(Kind::Mqueue) | None => {
                let kind = mqueue(cx, endpoint, &name);
                if let (EndpointKind::Mqueue { queue, .. }, Some(_)) = (&kind, endpoint.kind.get())
                    // A second endpoint of one name has its queue's name from there.
                    && (endpoint.queue.at().is_some() || !cx.names.second.contains(&endpoint.place.key))
                {
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
        cx.unknown_value(&at.place, "owner", "process", &at.value, &known);
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
        let message = format!("`{key}` has no effect for kind = \"{kind}\"");
        cx.report.error(place, message, format!("remove `{key}`"));
    }
}

fn signal(cx: &mut Context<'_, '_, '_>, endpoint: &Endpoint) -> EndpointKind {
    foreign(cx, endpoint, "signal", &["queue", "mode", "flush_at_start", "port", "label"]);
    if endpoint.signal.is_absent() && !cx.report.has_broken_lines() {
        let place = Place { key: format!("{}.signal", endpoint.place.key), ..endpoint.place.clone() };
        let free = format!("signal = \"{}\"", signals::free(cx.config));
        cx.report.error(&place, "`signal` is missing for kind = \"signal\"", free);
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
        let message = format!("`{}` is not the name of a queue: {fault}", queue.escape_debug());
        let meant = queue_name_meant(queue).unwrap_or(default.clone());
        cx.report.error(&at.place, message, format!("queue = {}", free_queue(cx, endpoint, &meant)));
    }
    let mode = endpoint.mode.get().map_or(MODE, |mode| mode.0);
    if let (Some(at), true, true) = (endpoint.mode.at(), mode & 0o002 != 0, endpoint.owner.is_absent()) {
        let message = format!(
            "mode {mode:04o}: any program on the machine may write queue `{}`, and it has no owner",
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
            let fix = "mode = \"0600\" (and run the owner as rtd's user or root)\n\
                        remove `owner`, if no receiver looks at the origin";
            cx.report.warning(&place, message, fix);
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
    let Some(rest) = queue.strip_prefix('/') else { return Some("a queue's name begins with `/`") };
    if rest.is_empty() || rest == "." || rest == ".." {
        return Some("a name follows the `/`");
    }
    if rest.contains('/') {
        return Some("it has one `/`, in front");
    }
    if rest.len() > QUEUE_NAME_BYTES_MAX {
        return Some("it is longer than 255 bytes");
    }
    if rest.contains(|c: char| c.is_control()) {
        return Some("it has a control character");
    }
    None
}

/// The name that a wrong one was meant to be, if something of it is left.
fn queue_name_meant(queue: &str) -> Option<String> {
    let rest = queue.trim_start_matches('/').replace('/', ".");
    let rest: String = rest.chars().filter(|c| !c.is_control()).take(QUOTED_CHARS_MAX).collect();
    let queue = format!("/{rest}");
    queue_name_fault(&queue).is_none().then_some(queue)
}

/// A queue's name in quotes that no other endpoint has: the one wanted, or with a number behind it.
fn free_queue(cx: &Context<'_, '_, '_>, own: &Endpoint, wanted: &str) -> String {
    let others = cx.config.endpoint.iter().filter(|other| other.place != own.place);
    let others: Vec<String> = others.filter_map(queue_of).collect();
    // A name without its first letter is one of an endpoint that was refused.
    let wanted = if queue_name_fault(wanted).is_some() { "/commands" } else { wanted };
    let numbered = (2..).map(|number: u32| format!("{wanted}-{number}"));
    let free = std::iter::once(wanted.to_owned()).chain(numbered).find(|name| !others.contains(name));
    quoted(&free.unwrap_or_default())
}

/// The queue that an endpoint of kind `mqueue` names or is named after.
fn queue_of(endpoint: &Endpoint) -> Option<String> {
    let is_queue = endpoint.kind.get().is_some_and(|kind| kind.0 == Kind::Mqueue);
    let name = || endpoint.name.get().map(|name| format!("/{}", name.0));
    if is_queue { endpoint.queue.get().cloned().or_else(name) } else { None }
}

fn twice<'c>(
    cx: &mut Context<'c, '_, '_>,
    queues: &mut HashMap<CString, &'c Endpoint>,
    queue: &CString,
    endpoint: &'c Endpoint,
) {
    let place = endpoint.queue.place_or(&endpoint.place);
    let Some(first) = queues.get(queue).copied() else {
        queues.insert(queue.clone(), endpoint);
        return;
    };
    let queue = queue.to_string_lossy();
    let line = cx.report.line(&first.queue.place_or(&first.place));
    let (other, own) = (label(first), label(endpoint));
    let wanted = queue_name_meant(own).unwrap_or_else(|| queue.to_string());
    let free = free_queue(cx, endpoint, &wanted);
    let is_read = |name: &str| cx.config.route.iter().any(|r| r.from.get().is_some_and(|from| from == name));
    let passes_on = is_read(own) != is_read(other);
    let (message, more) = if passes_on {
        (
            "rtd stands between two queues and would read what it sent".to_owned(),
            format!("have the program at `{own}` open this queue; the one at `{other}` keeps the old name"),
        )
    } else {
        (
            "each message would reach only one of them".to_owned(),
            format!("use endpoint `{other}` in all the routes and remove this one"),
        )
    };
    let message =
        format!("queue `{}` is the endpoint's on line {line} already: {message}", queue.escape_debug());
    cx.report.error(&place, message, format!("queue = {free}\n{more}"));
}

fn label(endpoint: &Endpoint) -> &str {
    endpoint.name.get().map_or("commands", |name| name.0.as_str())
}
