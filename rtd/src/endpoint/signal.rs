//! Kind `signal`: as a source sent to the daemon, as a sink sent to the endpoint's owner.

use super::ring::{self, RingPlan};
use super::{
    Cost, Described, End, EndpointKind, Keeps, KindKeys, Medium, Policy, SinkParts, SourceParts,
    Use, missing_ring,
};
use crate::config::diagnostic::Place;
use crate::config::reader::{Field, Reader};
use crate::config::resolve::Context;
use crate::config::sections::{Config, Endpoint};
use crate::config::values::{SignalNumber, TargetText};
use crate::plan::{EndpointId, Plan, SkinPlan};
use rtcore::endpoint::signal_ring::SignalRing;
use rtcore::endpoint::source::Source;
use rtcore::endpoint::{Shown, SinkKind, SourceKind, signal};
use rtcore::lane::policy::SignalTarget;
use rtcore::message::SIGNAL_VALUE_BYTES;
use rtcore::sys::rtsignal::{DOORBELLS, SignalSet};
use rtcore::sys::signame;
use schemars::JsonSchema;
use serde_json::Value;
use std::collections::HashMap;
use std::io;

/// Standard signals that may be sent, in addition to [`DOORBELLS`].
const SINKS_TOO: [&str; 4] = ["SIGHUP", "SIGINT", "SIGTERM", "SIGCONT"];

/// A signal: as a source sent to rtd, as a sink sent to the owner, which is then required.
#[derive(Debug, JsonSchema)]
pub struct Keys {
    /// The signal: `SIGRTMIN+3`, `SIGRTMAX-1`, `SIGUSR1` or a number. A real-time signal, SIGUSR1,
    /// SIGUSR2, SIGALRM, SIGIO or SIGWINCH waits in the route's backlog until the program blocks or
    /// handles it, and is rejected if the program ignores it. SIGTERM, SIGINT, SIGHUP and SIGCONT
    /// are sent at once.
    pub signal: Field<SignalNumber>,
    /// As a sink: send to the whole `process` or to the registered `thread`.
    #[schemars(default, extend("default" = "process"))]
    pub target: Field<TargetText>,
    /// As a sink with msgsize: slots of the ring, rounded up to a power of two. Default: 64.
    #[schemars(default)]
    pub maxmsg: ring::Slots,
    /// As a sink, real-time signals only: payloads of up to this size are sent through a ring of
    /// the owner's session, and the value of the signal is a ticket for the payload. At most 1 MiB;
    /// one ring (maxmsg x msgsize) has at most 256 MiB. Default: none, the value is the payload.
    #[schemars(default)]
    pub msgsize: ring::Payload,
}

impl KindKeys for Keys {
    const NAMES: &'static [&'static str] = &["signal", "target", "maxmsg", "msgsize"];

    fn read(r: &mut Reader<'_, '_, '_>) -> Keys {
        Keys {
            signal: r.needed("signal"),
            target: r.optional("target"),
            maxmsg: r.optional("maxmsg"),
            msgsize: r.optional("msgsize"),
        }
    }

    fn resolve(&self, cx: &mut Context<'_, '_, '_>, endpoint: &Endpoint) -> EndpointKind {
        if self.signal.is_absent() && !cx.report.has_broken_lines() {
            let place = Place {
                key: format!("{}.signal", endpoint.place.key),
                ..endpoint.place.clone()
            };
            let free = format!("signal = \"{}\"", free(cx.config));
            cx.report
                .error(&place, "`signal` is missing for kind = \"signal\"", free);
        }
        EndpointKind::Signal(SignalPlan {
            signo: self
                .signal
                .get()
                .map_or_else(signame::rt_min, |signal| signal.0),
            target: self
                .target
                .get()
                .map_or(SignalTarget::Process, |target| target.0),
            inbox: self.inbox(cx, &endpoint.place),
        })
    }

    fn is_certain(&self) -> bool {
        self.signal.get().is_some() && ring::is_certain(&self.msgsize)
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

impl Keys {
    /// The ring beside a signal, if the file requests one.
    fn inbox(&self, cx: &mut Context<'_, '_, '_>, place: &Place) -> Option<RingPlan> {
        let Some(msgsize) = self.msgsize.at() else {
            if let (Some(at), true) = (self.maxmsg.at(), self.msgsize.is_absent()) {
                let message =
                    "`maxmsg` of a signal has no effect without `msgsize`: the signal has no ring";
                let fix = format!("msgsize = {}\nremove `maxmsg`", ring::PAYLOAD_BYTES);
                cx.report.error(&at.place, message, fix);
            }
            return None;
        };
        if let Some(signo) = self
            .signal
            .get()
            .map(|signal| signal.0)
            .filter(|s| !signame::is_realtime(*s))
        {
            let message = format!(
                "{} carries no value, so it cannot announce a payload: only real-time signals have `msgsize`",
                signame::name(signo)
            );
            cx.report.error(
                &msgsize.place,
                message,
                format!("signal = \"{}\"\nremove `msgsize`", free(cx.config)),
            );
        }
        Some(ring::size(
            cx,
            (&self.maxmsg, &self.msgsize),
            place,
            "signal",
        ))
    }
}

#[derive(Clone, Debug)]
pub struct SignalPlan {
    /// Kernel signal number.
    pub signo: i32,
    /// Whole process or the thread that registered.
    pub target: SignalTarget,
    /// As a sink: payloads of up to a slot are sent in a ring of the owner's session, and the
    /// signal only announces them.
    pub inbox: Option<RingPlan>,
}

impl SignalPlan {
    /// Whether it goes to the thread that registered.
    pub fn to_thread(&self) -> bool {
        self.target == SignalTarget::Thread
    }

    /// Bytes that it carries to a process without a session.
    pub fn value_bytes(&self) -> usize {
        if signame::is_realtime(self.signo) {
            SIGNAL_VALUE_BYTES
        } else {
            0
        }
    }

    /// Whether it can take the messages of a route; `may_lose` if the rest of a longer message may
    /// be dropped.
    pub fn takes(&self, bytes: usize, may_lose: bool) -> bool {
        let is_known = signame::from_number(i64::from(self.signo)).is_ok();
        let room = self
            .inbox
            .map_or(self.value_bytes(), |ring| ring.payload_bytes);
        is_known && (bytes <= room || self.inbox.is_none() && may_lose)
    }
}

impl Policy for SignalPlan {
    fn picture_name(&self) -> &'static str {
        "signal"
    }

    fn summary(&self, _: &SkinPlan) -> String {
        let to = if self.to_thread() { "  to thread" } else { "" };
        let ring = self
            .inbox
            .map(|ring| format!("  {} x {}B", ring.slots, ring.payload_bytes));
        format!(
            "signal {}{to}{}",
            signame::name(self.signo),
            ring.unwrap_or_default()
        )
    }

    fn shown(&self, _: &SkinPlan) -> Shown {
        Shown::Signal(signal::Shown {
            signo: self.signo,
            to_thread: self.to_thread(),
        })
    }

    fn room_name(&self) -> String {
        match self.inbox {
            Some(ring) => ring.room_name(),
            None => "its share of its user's pending signals (ulimit -i)".to_owned(),
        }
    }

    fn medium(&self) -> Medium {
        Medium::Signal
    }

    fn outside_sessions(&self, name: &str, is_read: bool) -> Option<String> {
        let way = if is_read {
            "send it to rtd: sigqueue(3)"
        } else {
            "it comes as a signal: sigwaitinfo(2)"
        };
        Some(format!(
            "`{name}` is a signal ({}), not a lane: {way}",
            signame::name(self.signo)
        ))
    }

    fn msgsize(&self) -> Option<usize> {
        None
    }

    fn ring(&self) -> Option<RingPlan> {
        self.inbox
    }

    /// A doorbell's origin is one of many.
    fn passes_origin(&self) -> bool {
        signame::is_realtime(self.signo)
    }

    fn cost(&self) -> Cost {
        Cost {
            read: 1,
            ..Cost::default()
        }
    }

    /// A standard signal carries no data, and the receiver's library discards messages in a ring.
    fn keeps(&self, end: &End<'_>) -> Option<Keeps> {
        if self.inbox.is_some() || !signame::is_realtime(self.signo) {
            return None;
        }
        let library = format!(
            "msgsize = 8 (endpoint `{}`): a ring, whose receiver's library discards them",
            end.name
        );
        Some(Keeps {
            what: format!(
                "the kernel's list of pending signals ({})",
                signame::name(self.signo)
            ),
            messages: end
                .machine
                .rlimit_sigpending
                .and_then(|limit| limit.soft)
                .unwrap_or(u64::MAX),
            displaces: false,
            fewer: library.clone(),
            library,
        })
    }

    fn fault(&self, used: &Use<'_>) -> Option<String> {
        let broken = self.inbox.is_some() && (used.is_read || !signame::is_realtime(self.signo));
        broken.then(|| {
            format!(
                "signal `{}` has an inbox and is read or standard",
                used.name
            )
        })
    }

    fn source(&self, parts: SourceParts<'_>) -> io::Result<Source> {
        let set = SignalSet::of([self.signo]);
        // Only Linux's signals have a descriptor.
        let shared = parts.skin.caps.shared_namespace;
        let pending = shared.then(|| set.descriptor()).transpose()?;
        Ok(Source::new(
            SourceKind::Signal(signal::Source { set, pending }),
            0,
            true,
        ))
    }

    fn sink(&self, parts: SinkParts<'_>) -> io::Result<SinkKind> {
        let ring = |ring: RingPlan| {
            parts
                .ring_slot
                .map(|slot| SignalRing::new(slot, ring.payload_bytes))
                .ok_or_else(missing_ring)
        };
        Ok(SinkKind::Signal(signal::Sink {
            signo: self.signo,
            to_thread: self.to_thread(),
            truncate: parts.truncate,
            credit: parts.credit,
            inbox: self.inbox.map(ring).transpose()?,
        }))
    }

    fn notes(plan: &Plan) -> Vec<String> {
        let skin = plan.daemon.skin.kind;
        let signals = plan.sinks_named(|kind| matches!(kind, EndpointKind::Signal(_)));
        if skin.caps().passes_origin || signals.is_empty() {
            return Vec::new();
        }
        vec![format!(
            "a receiver of {signals} sees the lane's thread as the sender (si_pid: its thread id, si_uid: rtd's), not the \
             process that sent the message: on `{}` the core writes the origin",
            skin.name()
        )]
    }
}

impl Described for signal::Shown {
    fn what(&self) -> String {
        let target = if self.to_thread { "thread" } else { "process" };
        format!(
            "{} ({})  to {target}",
            signame::name(self.signo),
            self.signo
        )
    }

    fn members(&self) -> Vec<(&'static str, Value)> {
        vec![
            ("signo", self.signo.into()),
            ("to_thread", self.to_thread.into()),
        ]
    }

    fn noun(&self) -> String {
        format!("the signal {}", signame::name(self.signo))
    }
}

/// Checks every signal endpoint in the roles that the routes give it.
fn check(cx: &mut Context<'_, '_, '_>, plan: &Plan) {
    let mut sources: HashMap<i32, EndpointId> = HashMap::new();
    let mut sinks: HashMap<(Option<usize>, i32), (EndpointId, bool)> = HashMap::new();
    let sunk = plan.sinks();
    for (id, (endpoint, written)) in plan.endpoints.iter().zip(&cx.config.endpoint).enumerate() {
        let (EndpointKind::Signal(plan_of), super::Keys::Signal(keys)) =
            (&endpoint.kind, &written.keys)
        else {
            continue;
        };
        let SignalPlan { signo, inbox, .. } = *plan_of;
        if keys.signal.get().is_none() {
            continue;
        }
        let place = keys.signal.place_or(&written.place);
        let is_source = plan.sources.iter().any(|source| source.endpoint == id);
        let is_sink = sunk.get(id).copied().unwrap_or(false);
        if is_source && is_sink {
            both_ways(cx, &place, &endpoint.name, signo);
            continue;
        }
        if is_source {
            if let Some(at) = keys.target.at() {
                cx.report.warning(
                    &at.place,
                    "`target` has an effect only if a route sends to the endpoint",
                    "remove `target`",
                );
            }
            if let (Some(at), Some(_)) = (keys.msgsize.at(), inbox) {
                let message = format!(
                    "`msgsize` has an effect only in a sink: {} as a source carries its value only",
                    signame::name(signo)
                );
                cx.report.error(
                    &at.place,
                    message,
                    "remove `msgsize`\nkind = \"lane\" (payloads into rtd)",
                );
            }
            source(cx, &place, signo);
            if let Some(first) = sources.insert(signo, id) {
                let message = format!(
                    "{} is already read by endpoint `{}`: rtd could not distinguish the two",
                    signame::name(signo),
                    plan.endpoints.get(first).map_or("?", |e| e.name.as_str())
                );
                cx.report
                    .error(&place, message, format!("signal = \"{}\"", free(cx.config)));
            }
        }
        if is_sink {
            sink(cx, &place, signo);
            if endpoint.owner.is_none() && written.owner.is_absent() {
                let message = format!(
                    "endpoint `{}` is sent to, but no process owns it",
                    endpoint.name
                );
                let at = Place {
                    key: format!("{}.owner", written.place.key),
                    ..written.place.clone()
                };
                let line = cx.owner_line();
                cx.report.error(&at, message, line);
            } else if let Some((first, tickets)) =
                sinks.insert((endpoint.owner, signo), (id, inbox.is_some()))
            {
                let first = plan.endpoints.get(first).map_or("?", |e| e.name.as_str());
                same_signal(
                    cx,
                    &place,
                    signo,
                    first,
                    tickets == inbox.is_some(),
                    &free(cx.config),
                );
            }
        }
    }
}

/// One signal for two endpoints of a process: harmless if both use its value in the same way.
fn same_signal(
    cx: &mut Context<'_, '_, '_>,
    place: &Place,
    signo: i32,
    first: &str,
    alike: bool,
    free: &str,
) {
    let name = signame::name(signo);
    let message = format!(
        "{name} already goes to the same process from endpoint `{first}`: it cannot distinguish \
         the two"
    );
    let fix = format!("signal = \"{free}\"");
    if alike {
        cx.report.warning(place, message, fix);
    } else {
        let message =
            format!("{message}, and only one of them has `msgsize`, where the value is a ticket");
        cx.report.error(
            place,
            message,
            format!("{fix}\nthe same `msgsize` for both"),
        );
    }
}

fn both_ways(cx: &mut Context<'_, '_, '_>, place: &Place, name: &str, signo: i32) {
    let message = format!(
        "signal endpoint `{name}` is the source of one route and a sink of another: as a source, \
         {} is sent \
         to rtd; as a sink, to the owner",
        signame::name(signo)
    );
    let fix = format!(
        "declare two endpoints, `{name}.in` for `from` and `{name}.out` with an owner for `to`"
    );
    cx.report.error(place, message, fix);
}

/// Whether a configuration may let rtd read this signal.
pub fn may_be_source(signo: i32) -> bool {
    signame::is_realtime(signo) || DOORBELLS.contains(&signo)
}

/// Whether a configuration may let rtd send this signal.
pub fn may_be_sink(signo: i32) -> bool {
    may_be_source(signo) || SINKS_TOO.contains(&signame::name(signo).as_str())
}

fn source(cx: &mut Context<'_, '_, '_>, place: &Place, signo: i32) {
    let name = signame::name(signo);
    if may_be_source(signo) {
        return;
    }
    let message =
        format!("{name} cannot be a source: rtd or the kernel uses it for its own purpose");
    cx.report.error(
        place,
        message,
        format!(
            "signal = \"{}\"\none of {}",
            free(cx.config),
            DOORBELLS.map(signame::name).join(", ")
        ),
    );
}

fn sink(cx: &mut Context<'_, '_, '_>, place: &Place, signo: i32) {
    let name = signame::name(signo);
    if may_be_sink(signo) {
        return;
    }
    let message = format!(
        "{name} cannot be sent as a message: it would stop or kill the receiver, or be lost"
    );
    let list: Vec<String> = DOORBELLS
        .map(signame::name)
        .into_iter()
        .chain(SINKS_TOO.map(str::to_owned))
        .collect();
    let free = free(cx.config);
    cx.report.error(
        place,
        message,
        format!("signal = \"{free}\"\none of {}", list.join(", ")),
    );
}

/// A real-time signal that no endpoint names.
pub fn free(config: &Config) -> String {
    let signals = || {
        config
            .endpoint
            .iter()
            .filter_map(|endpoint| match &endpoint.keys {
                super::Keys::Signal(keys) => keys.signal.get(),
                _ => None,
            })
    };
    let taken = |signo: i32| signals().any(|SignalNumber(other)| *other == signo);
    // The lowest ones have the highest precedence: they are left to signals for which they were
    // chosen.
    let first = signame::rt_min() + 3;
    let free = (first..=signame::rt_max())
        .chain(signame::rt_min()..first)
        .find(|signo| !taken(*signo));
    signame::name(free.unwrap_or(first))
}
