//! Kind `mqueue`: a POSIX message queue (mq_overview(7)), or one in the namespace of a skin.

use super::{
    Cost, Described, End, EndpointKind, Keeps, KindKeys, Medium, Policy, SinkParts, SourceParts,
    small,
};
use crate::config::diagnostic::Place;
use crate::config::reader::{Field, Reader};
use crate::config::resolve::Context;
use crate::config::sections::Endpoint;
use crate::config::values::{Int, ModeBits, QUOTED_CHARS_MAX, quoted};
use crate::plan::{Plan, SkinPlan, TargetPlan};
use rtcore::endpoint::source::Source;
use rtcore::endpoint::{Shown, SinkKind, SourceKind, mqueue};
use rtcore::skin::OpenQueue;
use rtcore::skin::cobalt::mq;
use rtcore::sys::limits::{MQ_MAXMSG_HARD, MQ_MSGSIZE_HARD, mq_bytes};
use rtcore::sys::mqueue::Access;
use schemars::JsonSchema;
use serde_json::Value;
use std::collections::HashMap;
use std::ffi::CString;
use std::io;

/// Default of mq_maxmsg: the kernel's own.
const MAXMSG: usize = 10;
/// Default of mq_msgsize: for commands and samples, not files; ten of them need little memory.
const MSGSIZE: usize = 256;
/// Default of the permission bits.
const MODE: u32 = 0o660;
/// Limit of a queue's name without its `/` (NAME_MAX).
const QUEUE_NAME_BYTES_MAX: usize = 255;

/// A POSIX message queue.
#[derive(Debug, JsonSchema)]
pub struct Keys {
    /// Name of the queue, with a leading `/`. Default: `/` and the endpoint's name.
    #[schemars(default)]
    pub queue: Field<String>,
    /// Messages that the queue holds. On Cobalt all messages, with 32 bytes more for each, take at
    /// most 4 MiB. Default: 10, or 1 if every route to it has overflow = "conflate".
    #[schemars(default)]
    pub maxmsg: Field<Int<1, MQ_MAXMSG_HARD>>,
    /// Bytes of the largest message.
    #[schemars(default, extend("default" = 256))]
    pub msgsize: Field<Int<1, MQ_MSGSIZE_HARD>>,
    /// Permission bits, octal in quotes, applied at every start. The origin of messages is verified
    /// only if group and others may not write.
    #[schemars(default, extend("default" = "0660"))]
    pub mode: Field<ModeBits>,
    /// Discard the messages that wait in the queue when rtd starts, and log their number. No ledger
    /// counts them: rtd had not accepted those of a source, and an earlier rtd had delivered those
    /// of a sink. `rtctl flush ENDPOINT` does the same once.
    #[schemars(default, extend("default" = false))]
    pub flush_at_start: Field<bool>,
}

impl KindKeys for Keys {
    const NAMES: &'static [&'static str] =
        &["queue", "maxmsg", "msgsize", "mode", "flush_at_start"];

    fn read(r: &mut Reader<'_, '_, '_>) -> Keys {
        Keys {
            queue: r.optional("queue"),
            maxmsg: r.optional("maxmsg"),
            msgsize: r.optional("msgsize"),
            mode: r.optional("mode"),
            flush_at_start: r.optional("flush_at_start"),
        }
    }

    fn resolve(&self, cx: &mut Context<'_, '_, '_>, endpoint: &Endpoint) -> EndpointKind {
        let name = endpoint
            .name
            .get()
            .map(|name| name.0.as_str())
            .unwrap_or_default();
        let default = format!("/{name}");
        let written = self.queue.at();
        let queue = written.map_or(default.as_str(), |at| at.value.as_str());
        if let (Some(fault), Some(at)) = (queue_name_fault(queue), written) {
            let message = format!(
                "`{}` is not the name of a queue: {fault}",
                queue.escape_debug()
            );
            let meant = queue_name_meant(queue).unwrap_or(default.clone());
            cx.report.error(
                &at.place,
                message,
                format!("queue = {}", free_queue(cx, endpoint, &meant)),
            );
        }
        let mode = self.mode.get().map_or(MODE, |mode| mode.0);
        if let (Some(at), true, true) = (
            self.mode.at(),
            mode & 0o002 != 0,
            endpoint.owner.is_absent(),
        ) {
            let message = format!(
                "mode {mode:04o}: any program on the machine may write queue `{}`, and it has no owner",
                queue.escape_debug()
            );
            cx.report.warning(
                &at.place,
                message,
                "mode = \"0660\"\nowner = (the process that sends)",
            );
        }
        if let (Some(at), true) = (self.mode.at(), mode & 0o600 != 0o600) {
            let message = format!(
                "mode {mode:04o} keeps rtd itself from opening queue `{}` again after a restart",
                queue.escape_debug()
            );
            cx.report.error(
                &at.place,
                message,
                format!("mode = \"{:04o}\"", mode | 0o600),
            );
        }
        EndpointKind::Mqueue(MqueuePlan {
            // A name that contains a 0 was refused above; it never reaches a kernel call.
            queue: CString::new(queue).unwrap_or_default(),
            maxmsg: self.maxmsg.get().map_or(MAXMSG, |n| n.count()),
            msgsize: self.msgsize.get().map_or(MSGSIZE, |n| n.count()),
            mode,
            flush_at_start: self.flush_at_start.get().copied().unwrap_or(false),
        })
    }

    fn is_certain(&self) -> bool {
        !matches!(self.msgsize, Field::Invalid)
    }

    fn size_place(&self) -> Option<&Place> {
        self.maxmsg
            .at()
            .map(|at| &at.place)
            .or(self.msgsize.at().map(|at| &at.place))
    }

    fn check(cx: &mut Context<'_, '_, '_>, plan: &Plan) {
        check_names(cx, plan);
        check_writers(cx, plan);
    }
}

/// A message queue.
#[derive(Clone, Debug)]
pub struct MqueuePlan {
    /// Name of the queue, with its leading `/`.
    pub queue: CString,
    pub maxmsg: usize,
    /// mq_msgsize in bytes.
    pub msgsize: usize,
    pub mode: u32,
    /// Messages that wait in it at a start are discarded.
    pub flush_at_start: bool,
}

impl Policy for MqueuePlan {
    fn picture_name(&self) -> &'static str {
        "message queue"
    }

    fn summary(&self, _: &SkinPlan) -> String {
        let MqueuePlan {
            queue,
            maxmsg,
            msgsize,
            mode,
            flush_at_start,
        } = self;
        let flush = if *flush_at_start {
            "  flushed at start"
        } else {
            ""
        };
        format!(
            "mqueue {}  {maxmsg} x {msgsize}B  {mode:04o}{flush}",
            queue.to_string_lossy()
        )
    }

    fn shown(&self, _: &SkinPlan) -> Shown {
        Shown::Mqueue(mqueue::Shown {
            queue: self.queue.to_string_lossy().into_owned(),
            maxmsg: small(self.maxmsg),
            msgsize: small(self.msgsize),
        })
    }

    fn room_name(&self) -> String {
        format!("maxmsg = {} of its queue", self.maxmsg)
    }

    fn medium(&self) -> Medium {
        Medium::Queue
    }

    fn outside_sessions(&self, name: &str, _: bool) -> Option<String> {
        Some(format!(
            "`{name}` is an mqueue: mq_open(\"{}\")",
            self.queue.to_string_lossy()
        ))
    }

    fn msgsize(&self) -> Option<usize> {
        Some(self.msgsize)
    }

    /// The daemon holds the queue open; a thread that reads it has it open twice.
    fn cost(&self) -> Cost {
        Cost {
            held: 1,
            read: 2,
            written: 1,
            queue_bytes: mq_bytes(self.maxmsg as u64, self.msgsize as u64),
            private_queue_bytes: mq::queue_bytes(self.maxmsg, self.msgsize) as u64,
            buffer_bytes: 0,
        }
    }

    /// An existing queue keeps its size.
    fn keeps(&self, end: &End<'_>) -> Option<Keeps> {
        let size = end.machine.queue(&self.queue).and_then(|queue| queue.size);
        Some(Keeps {
            what: format!("queue `{}`", self.queue.to_string_lossy()),
            messages: size.map_or(self.maxmsg as u64, |(maxmsg, _)| maxmsg),
            ..end.kept_by_kernel()
        })
    }

    fn source(&self, parts: SourceParts<'_>) -> io::Result<Source> {
        let blocking = OpenQueue::open(parts.skin, &self.queue, Access::Receive, false)?;
        let nonblocking = OpenQueue::open(parts.skin, &self.queue, Access::Receive, true)?;
        let writer = parts.owner.zip(blocking.sole_writer_uid()?);
        let mut queue = mqueue::Source::new(blocking, nonblocking);
        if let Some((owner, uid)) = writer {
            queue = queue.written_by(owner, uid);
        }
        Ok(Source::new(
            SourceKind::Mqueue(queue),
            self.msgsize,
            !parts.keep_queues,
        ))
    }

    fn sink(&self, parts: SinkParts<'_>) -> io::Result<SinkKind> {
        Ok(SinkKind::Mqueue(mqueue::Sink {
            queue: OpenQueue::open(parts.skin, &self.queue, Access::Send, true)?,
            bytes_max: self.msgsize,
            announces_room: parts.skin.caps.pollable_mq,
        }))
    }

    fn notes(plan: &Plan) -> Vec<String> {
        let skin = plan.daemon.skin.kind;
        let is_queue = |kind: &EndpointKind| matches!(kind, EndpointKind::Mqueue(_));
        if skin.caps().shared_namespace || !plan.endpoints.iter().any(|e| is_queue(&e.kind)) {
            return Vec::new();
        }
        vec![format!(
            "queues are in the namespace of `{}`: programs on it reach them; a plain Linux program (mq_open(3), \
             /dev/mqueue, rtctl send) sees others, if any, of the same names",
            skin.name()
        )]
    }
}

impl Described for mqueue::Shown {
    fn what(&self) -> String {
        format!("{}  {} x {} B", self.queue, self.maxmsg, self.msgsize)
    }

    fn members(&self) -> Vec<(&'static str, Value)> {
        vec![
            ("queue", self.queue.as_str().into()),
            ("maxmsg", self.maxmsg.into()),
            ("msgsize", self.msgsize.into()),
        ]
    }

    fn noun(&self) -> String {
        format!("the queue {}", self.queue)
    }
}

/// Warns if an owner is named and others may nevertheless write the queue. The group matters if the
/// origin is passed on, which happens in shared memory and in queued signals (a doorbell's is one
/// of many); all other users matter always.
fn check_writers(cx: &mut Context<'_, '_, '_>, plan: &Plan) {
    let config = cx.config;
    let carries_origin = |id: &usize| {
        plan.endpoints
            .get(*id)
            .is_some_and(|to| to.kind.policy().passes_origin())
    };
    for (id, (endpoint, written)) in plan.endpoints.iter().zip(&config.endpoint).enumerate() {
        let Some((MqueuePlan { mode, .. }, keys)) = queue(&endpoint.kind, written) else {
            continue;
        };
        let Some(owner) = endpoint.owner.and_then(|owner| plan.processes.get(owner)) else {
            continue;
        };
        let routes = || plan.routes.iter().filter(|route| route.from == id);
        let is_origin_used = routes()
            .flat_map(|r| &r.to)
            .flat_map(TargetPlan::endpoints)
            .any(carries_origin);
        let others = if mode & 0o002 != 0 {
            "any program on the machine"
        } else {
            "the queue's group"
        };
        let place = keys.mode.place_or(&written.place);
        let (name, owner) = (&endpoint.name, &owner.name);
        if is_origin_used && mode & 0o022 != 0 {
            let message = format!(
                "mode {mode:04o} lets {others} write into a queue that `{owner}` owns: messages \
                 from `{name}` carry no \
                 origin (pid 0 instead of `{owner}`)"
            );
            let fix = "mode = \"0600\" (and run the owner as rtd's user or root)\n\
                        remove `owner`, if no receiver uses the origin";
            cx.report.warning(&place, message, fix);
        } else if mode & 0o002 != 0 {
            let wrong = if routes().next().is_some() {
                format!("write in the name of `{owner}`")
            } else {
                "bypass rtd and all its routes".to_owned()
            };
            let message = format!("mode {mode:04o} of `{name}` lets {others} {wrong}");
            cx.report.warning(&place, message, "mode = \"0660\"");
        }
    }
}

/// Why mq_open(3) would refuse a name.
fn queue_name_fault(queue: &str) -> Option<&'static str> {
    let Some(rest) = queue.strip_prefix('/') else {
        return Some("a queue's name begins with `/`");
    };
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

/// The name that a wrong one probably means, if enough of it is left.
fn queue_name_meant(queue: &str) -> Option<String> {
    let rest = queue.trim_start_matches('/').replace('/', ".");
    let rest: String = rest
        .chars()
        .filter(|c| !c.is_control())
        .take(QUOTED_CHARS_MAX)
        .collect();
    let queue = format!("/{rest}");
    queue_name_fault(&queue).is_none().then_some(queue)
}

/// An unused name of a queue, in quotes: the wanted one, or that with a number.
fn free_queue(cx: &Context<'_, '_, '_>, own: &Endpoint, wanted: &str) -> String {
    let others = cx
        .config
        .endpoint
        .iter()
        .filter(|other| other.place != own.place);
    let others: Vec<String> = others.filter_map(queue_of).collect();
    // A name without its first letter belongs to a refused endpoint.
    let wanted = if queue_name_fault(wanted).is_some() {
        "/commands"
    } else {
        wanted
    };
    let numbered = (2..).map(|number: u32| format!("{wanted}-{number}"));
    let free = std::iter::once(wanted.to_owned())
        .chain(numbered)
        .find(|name| !others.contains(name));
    quoted(&free.unwrap_or_default())
}

/// The queue of an endpoint of kind `mqueue`: its `queue` key, or its own name.
fn queue_of(endpoint: &Endpoint) -> Option<String> {
    let (Some(_), super::Keys::Mqueue(keys)) = (endpoint.kind.get(), &endpoint.keys) else {
        return None;
    };
    let name = || endpoint.name.get().map(|name| format!("/{}", name.0));
    keys.queue.get().cloned().or_else(name)
}

/// A queue with its keys, unless the kind was refused and a queue replaces it.
fn queue<'a>(kind: &'a EndpointKind, written: &'a Endpoint) -> Option<(&'a MqueuePlan, &'a Keys)> {
    match (kind, &written.keys) {
        (EndpointKind::Mqueue(plan), super::Keys::Mqueue(keys)) if written.kind.get().is_some() => {
            Some((plan, keys))
        }
        _ => None,
    }
}

/// Reports queues that two endpoints use.
fn check_names(cx: &mut Context<'_, '_, '_>, plan: &Plan) {
    let mut queues: HashMap<&CString, &Endpoint> = HashMap::new();
    let config = cx.config;
    for (endpoint, written) in plan.endpoints.iter().zip(&config.endpoint) {
        let Some((MqueuePlan { queue, .. }, keys)) = queue(&endpoint.kind, written) else {
            continue;
        };
        // A second endpoint with the same name has its queue's name from the first.
        if keys.queue.at().is_none() && cx.names.second.contains(&written.place.key) {
            continue;
        }
        match queues.get(queue).copied() {
            Some(first) => twice(cx, queue, first, written),
            None => drop(queues.insert(queue, written)),
        }
    }
}

/// The place of the queue's name.
fn place_of(endpoint: &Endpoint) -> Place {
    match &endpoint.keys {
        super::Keys::Mqueue(keys) => keys.queue.place_or(&endpoint.place),
        _ => endpoint.place.clone(),
    }
}

fn twice(cx: &mut Context<'_, '_, '_>, queue: &CString, first: &Endpoint, endpoint: &Endpoint) {
    let place = place_of(endpoint);
    let queue = queue.to_string_lossy();
    let line = cx.report.line(&place_of(first));
    let (other, own) = (label(first), label(endpoint));
    let wanted = queue_name_meant(own).unwrap_or_else(|| queue.to_string());
    let free = free_queue(cx, endpoint, &wanted);
    let is_read = |name: &str| {
        cx.config
            .route
            .iter()
            .any(|r| r.from.get().is_some_and(|from| from == name))
    };
    let passes_on = is_read(own) != is_read(other);
    let (message, more) = if passes_on {
        (
            "rtd would read its own messages, so each endpoint needs a queue of its own".to_owned(),
            format!(
                "have the program at `{own}` open this queue; the one at `{other}` keeps the old name"
            ),
        )
    } else {
        (
            "each message would reach only one of them".to_owned(),
            format!("use endpoint `{other}` in all the routes and remove this one"),
        )
    };
    let message = format!(
        "queue `{}` already belongs to the endpoint on line {line}: {message}",
        queue.escape_debug()
    );
    cx.report
        .error(&place, message, format!("queue = {free}\n{more}"));
}

fn label(endpoint: &Endpoint) -> &str {
    endpoint
        .name
        .get()
        .map_or("commands", |name| name.0.as_str())
}
