//! Kind `xddp`: datagrams between a lane on Cobalt and a plain Linux program that has the device
//! `rtpN` open; the two directions are independent.

#![allow(
    rustdoc::invalid_html_tags,
    reason = "the schema shows <label> as it is written"
)]

use super::{
    Cost, Described, End, EndpointKind, Keeps, KindKeys, Medium, Policy, SinkParts, SourceParts,
    Use, small,
};
use crate::config::diagnostic::Place;
use crate::config::reader::{Field, Reader};
use crate::config::resolve::Context;
use crate::config::sections::Endpoint;
use crate::config::values::Int;
use crate::plan::{Plan, SkinPlan};
use rtcore::endpoint::source::Source;
use rtcore::endpoint::{Shown, SinkKind, SourceKind, xddp};
use rtcore::skin::Skin;
use rtcore::skin::xddp::{self as calls, LABEL_MAX, LABELS, Port, PortSpec};
use rtcore::sys::limits::{MQ_MAXMSG_HARD, MQ_MSGSIZE_HARD};
use schemars::JsonSchema;
use serde_json::Value;
use std::ffi::CString;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Limit of the pool of a port in bytes: the largest contiguous piece of memory that every kernel
/// provides.
pub const POOL_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Default of a pool's messages: as a ring's slots.
const MAXMSG: usize = 64;
/// Default of the bytes of a message: as a queue's.
const MSGSIZE: usize = 256;

/// Datagrams between a lane on Cobalt and a plain Linux program.
#[derive(Debug, JsonSchema)]
pub struct Keys {
    /// Port number N of the device /dev/rtpN, which the Linux program opens.
    pub port: Field<Int<0, 32_767>>,
    /// Name of the port, 1 to 31 bytes: /proc/xenomai/registry/rtipc/xddp/<label> leads to the
    /// device. Default: none.
    #[schemars(default)]
    pub label: Field<String>,
    /// Messages of msgsize that both directions have room for together.
    #[schemars(default, extend("default" = 64))]
    pub maxmsg: Field<Int<1, MQ_MAXMSG_HARD>>,
    /// Bytes of the largest message; maxmsg of them take at most 4 MiB.
    #[schemars(default, extend("default" = 256))]
    pub msgsize: Field<Int<1, MQ_MSGSIZE_HARD>>,
}

/// A deployment names its ports, since the Linux program opens the device of that number: the
/// core's own choice (-1) is refused.
impl KindKeys for Keys {
    const NAMES: &'static [&'static str] = &["port", "label", "maxmsg", "msgsize"];

    fn read(r: &mut Reader<'_, '_, '_>) -> Keys {
        Keys {
            port: r.needed("port"),
            label: r.optional("label"),
            maxmsg: r.optional("maxmsg"),
            msgsize: r.optional("msgsize"),
        }
    }

    fn resolve(&self, cx: &mut Context<'_, '_, '_>, endpoint: &Endpoint) -> EndpointKind {
        if self.port.is_absent() && !cx.report.has_broken_lines() {
            let place = Place {
                key: format!("{}.port", endpoint.place.key),
                ..endpoint.place.clone()
            };
            let message =
                "`port` is missing for kind = \"xddp\": its number is that of the device /dev/rtpN";
            cx.report
                .error(&place, message, format!("port = {}", free_port(cx)));
        }
        let mut plan = XddpPlan {
            port: self
                .port
                .get()
                .and_then(|port| i16::try_from(port.count()).ok())
                .unwrap_or(0),
            label: label(cx, &self.label),
            maxmsg: self.maxmsg.get().map_or(MAXMSG, |n| n.count()),
            msgsize: self.msgsize.get().map_or(MSGSIZE, |n| n.count()),
        };
        if plan.pool_bytes() > POOL_BYTES_MAX {
            let message = format!(
                "{} messages of {} bytes take {} bytes of the core's memory, a port's pool has at most {POOL_BYTES_MAX}",
                plan.maxmsg,
                plan.msgsize,
                plan.pool_bytes()
            );
            let place = self.size_place().unwrap_or(&endpoint.place).clone();
            let fits = (POOL_BYTES_MAX
                / XddpPlan {
                    maxmsg: 1,
                    ..plan.clone()
                }
                .pool_bytes())
            .max(1);
            let fix = format!("maxmsg = {fits}\nmsgsize = {MSGSIZE} (or another smaller one)");
            cx.report.error(&place, message, fix);
            // The resources of a refused pool are not a further fault.
            (plan.maxmsg, plan.msgsize) = (1, plan.msgsize.min(POOL_BYTES_MAX / 2));
        }
        EndpointKind::Xddp(plan)
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
        check(cx, plan);
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XddpPlan {
    /// Number N of the device /dev/rtpN.
    pub port: i16,
    /// Its name in the core's registry.
    pub label: Option<CString>,
    /// Messages that its pool has room for, in both directions together.
    pub maxmsg: usize,
    /// Bytes of the largest message.
    pub msgsize: usize,
}

impl XddpPlan {
    /// Bytes of its pool.
    pub fn pool_bytes(&self) -> usize {
        calls::pool_bytes(self.maxmsg, self.msgsize)
    }
}

impl Policy for XddpPlan {
    fn picture_name(&self) -> &'static str {
        "xddp port"
    }

    fn summary(&self, skin: &SkinPlan) -> String {
        let label = self
            .label
            .as_ref()
            .map(|label| format!("  label {}", label.to_string_lossy()));
        let device = skin.device(self.port);
        format!(
            "xddp {device}{}  {} x {}B",
            label.unwrap_or_default(),
            self.maxmsg,
            self.msgsize
        )
    }

    fn shown(&self, skin: &SkinPlan) -> Shown {
        Shown::Xddp(xddp::Shown {
            device: skin.device(self.port),
            maxmsg: small(self.maxmsg),
            msgsize: small(self.msgsize),
        })
    }

    fn room_name(&self) -> String {
        format!("maxmsg = {} of its port", self.maxmsg)
    }

    fn medium(&self) -> Medium {
        Medium::Queue
    }

    fn outside_sessions(&self, name: &str, _: bool) -> Option<String> {
        Some(format!(
            "`{name}` is xddp port {0}, not a lane: open(2) /dev/rtp{0}",
            self.port
        ))
    }

    fn msgsize(&self) -> Option<usize> {
        Some(self.msgsize)
    }

    /// A port's two directions are independent.
    fn feeds_itself(&self) -> bool {
        false
    }

    /// One socket for the source and all sinks. The longest possible datagram is as long as the
    /// pool.
    fn cost(&self) -> Cost {
        Cost {
            held: 1,
            buffer_bytes: self.pool_bytes() as u64,
            ..Cost::default()
        }
    }

    fn keeps(&self, end: &End<'_>) -> Option<Keeps> {
        Some(Keeps {
            what: format!("the buffer of `{}`", end.plan.daemon.skin.device(self.port)),
            messages: self.maxmsg as u64,
            ..end.kept_by_kernel()
        })
    }

    fn fault(&self, used: &Use<'_>) -> Option<String> {
        let broken = self.port < 0 || self.pool_bytes() > POOL_BYTES_MAX;
        broken.then(|| {
            format!(
                "xddp `{}` has port {} and {} bytes",
                used.name,
                self.port,
                self.pool_bytes()
            )
        })
    }

    /// At a stop, messages in its pool are lost with it.
    fn source(&self, parts: SourceParts<'_>) -> io::Result<Source> {
        let port = parts.shared.ports.open(parts.skin, self)?;
        Ok(Source::new(
            SourceKind::Xddp(xddp::Source(port)),
            self.pool_bytes(),
            true,
        ))
    }

    fn sink(&self, parts: SinkParts<'_>) -> io::Result<SinkKind> {
        let port = parts.shared.ports.open(parts.skin, self)?;
        Ok(SinkKind::Xddp(xddp::Sink {
            port,
            bytes_max: self.msgsize,
        }))
    }

    fn notes(plan: &Plan) -> Vec<String> {
        let mut notes = Vec::new();
        let read = plan.sources.iter().filter_map(|source| {
            match &plan.endpoints.get(source.endpoint)?.kind {
                EndpointKind::Xddp(port) => Some(plan.daemon.skin.device(port.port)),
                _ => None,
            }
        });
        let read: Vec<String> = read.collect();
        if !read.is_empty() {
            notes.push(format!(
                "messages from {} have no origin: every program that may open the device can send them",
                read.join(", ")
            ));
        }
        let written = plan.sinks_named(|kind| matches!(kind, EndpointKind::Xddp(_)));
        if !written.is_empty() {
            notes.push(format!(
                "the core drops unread messages of {written} when the Linux program closes the device, and when rtd stops"
            ));
        }
        notes
    }
}

impl Described for xddp::Shown {
    fn what(&self) -> String {
        format!("{}  {} x {} B", self.device, self.maxmsg, self.msgsize)
    }

    fn members(&self) -> Vec<(&'static str, Value)> {
        vec![
            ("device", self.device.as_str().into()),
            ("maxmsg", self.maxmsg.into()),
            ("msgsize", self.msgsize.into()),
        ]
    }

    fn noun(&self) -> String {
        format!("the device {}", self.device)
    }

    fn closed_to_tools(&self, call: &str) -> Option<String> {
        Some(format!(
            "is {}, which one program can open at a time: use open(2) and {call}",
            self.noun()
        ))
    }
}

/// The ports of a plan, by number: each is bound once, and its source and sinks share it.
#[derive(Debug, Default)]
pub(super) struct Ports {
    open: Vec<(i16, Arc<Port>)>,
}

impl Ports {
    /// The port, bound at the first call.
    fn open(&mut self, skin: &Skin, plan: &XddpPlan) -> io::Result<Arc<Port>> {
        if let Some((_, port)) = self.open.iter().find(|(number, _)| *number == plan.port) {
            return Ok(Arc::clone(port));
        }
        // The check tried the calls in a child process.
        let calls = skin
            .xddp
            .ok_or_else(|| io::Error::other(format!("the skin {} has no xddp", skin.name)))?;
        let spec = PortSpec {
            port: plan.port,
            label: plan.label.clone(),
            pool_bytes: plan.pool_bytes(),
        };
        let port = Arc::new(Port::open(calls, &spec)?);
        self.open.push((plan.port, Arc::clone(&port)));
        Ok(port)
    }
}

/// A port that no endpoint has.
fn free_port(cx: &Context<'_, '_, '_>) -> u64 {
    let ports = || {
        cx.config
            .endpoint
            .iter()
            .filter_map(|endpoint| match &endpoint.keys {
                super::Keys::Xddp(keys) => keys.port.get(),
                _ => None,
            })
    };
    let taken = |n: &u64| ports().any(|port| port.0 == *n);
    (0..=u64::from(u16::MAX / 2))
        .find(|n| !taken(n))
        .unwrap_or(0)
}

fn label(cx: &mut Context<'_, '_, '_>, written: &Field<String>) -> Option<CString> {
    let at = written.at()?;
    let fits = |c: char| !c.is_control() && c != '/';
    if (1..=LABEL_MAX).contains(&at.value.len())
        && at.value.chars().all(fits)
        && !at.value.starts_with('.')
    {
        return CString::new(at.value.as_str()).ok();
    }
    let message = format!(
        "`{}` is not a label: 1 to {LABEL_MAX} bytes, no `/`, no control character, no `.` in \
         front, since it becomes the \
         name of a file in {LABELS}",
        at.value.escape_debug()
    );
    cx.report
        .error(&at.place, message, "label = \"scope\"\nremove `label`");
    None
}

/// Reports ports and labels that are given twice, and devices that the machine lacks.
fn check(cx: &mut Context<'_, '_, '_>, plan: &Plan) {
    let config = cx.config;
    let mut seen: Vec<(&XddpPlan, &Endpoint)> = Vec::new();
    for (endpoint, written) in plan.endpoints.iter().zip(&config.endpoint) {
        let (EndpointKind::Xddp(port), super::Keys::Xddp(keys)) = (&endpoint.kind, &written.keys)
        else {
            continue;
        };
        if let Field::Given(at) = &keys.port {
            if let Some((_, first)) = seen.iter().find(|(other, _)| other.port == port.port) {
                let message = format!(
                    "port {} already belongs to the endpoint on line {}: one socket is bound to it",
                    port.port,
                    cx.report.line(&first.place)
                );
                let free = (0..=i16::MAX).find(|n| !takes(plan, *n)).unwrap_or(0);
                let fix = format!(
                    "port = {free}\nuse one endpoint for this port in all the routes, in both directions if needed"
                );
                cx.report.error(&at.place, message, fix);
            }
            available(cx, plan, port, &at.place, written);
        }
        let same = |(other, _): &&(&XddpPlan, &Endpoint)| {
            port.label.is_some() && other.label == port.label
        };
        if let (Some((_, first)), Some(at)) = (seen.iter().find(same), keys.label.at()) {
            let line = cx.report.line(&first.place);
            let message = format!(
                "label `{}` already belongs to the endpoint on line {line}",
                at.value
            );
            cx.report
                .error(&at.place, message, "give it a label of its own");
        }
        seen.push((port, written));
    }
}

fn takes(plan: &Plan, number: i16) -> bool {
    plan.endpoints
        .iter()
        .any(|e| matches!(&e.kind, EndpointKind::Xddp(port) if port.port == number))
}

/// Whether this machine has the port.
fn available(
    cx: &mut Context<'_, '_, '_>,
    plan: &Plan,
    port: &XddpPlan,
    place: &Place,
    written: &Endpoint,
) {
    let device = plan.daemon.skin.device(port.port);
    match &plan.daemon.skin.xddp {
        Err(why) => {
            let message = format!("kind = \"xddp\" is not available: {why}");
            let fix = "skin = \"cobalt\" in [daemon] (on a Xenomai 3 kernel with CONFIG_XENO_DRIVERS_RTIPC_XDDP)\n\
                        kind = \"mqueue\" (between plain Linux programs)";
            cx.report
                .error(&written.kind.place_or(&written.place), message, fix);
        }
        Ok(_) if !Path::new(&device).exists() => {
            let message = format!(
                "port {} has no device: {device} is absent, the kernel has fewer ports (CONFIG_XENO_OPT_PIPE_NRDEV) or \
                 none (CONFIG_XENO_OPT_PIPE)",
                port.port
            );
            let devices = Path::new(&device).parent().unwrap_or(Path::new("/dev"));
            let fix = format!("port = (one of ls {}/rtp*)", devices.display());
            cx.report.error(place, message, fix);
        }
        Ok(_) => {}
    }
}
