//! Endpoints, the half that is not real-time: the keys of each kind, its use of resources, its
//! construction and its descriptions.
//!
//! Each kind has one file, with a type that implements [`Policy`]. The real-time half of a kind,
//! its source and its sink, is its file in `rtcore/src/endpoint/`. A new kind is these two files
//! and a line in the table of each crate.
//!
//! Constraint: code outside this module may use one kind by name if it handles that kind only (the
//! registry handles signals, the daemon's queues are message queues), but it never lists all kinds.

#![forbid(unsafe_code)]

mod cost;
pub mod mqueue;
pub mod ring;
pub mod signal;
pub mod xddp;

pub use cost::Cost;

use crate::config::diagnostic::Place;
use crate::config::machine::Machine;
use crate::config::reader::Reader;
use crate::config::resolve::Context;
use crate::config::sections::Endpoint;
use crate::plan::{EndpointId, Plan, RoutePlan, SkinPlan};
use rtcore::channel::hand_off::HandOffSlot;
use rtcore::endpoint::source::Source;
use rtcore::endpoint::{Shown, SinkKind};
use rtcore::lane::credit::Credit;
use rtcore::lane::peer::Peer;
use rtcore::ring::{Consumer, Producer};
use rtcore::skin::{Semaphore, Skin};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::Value;
use std::io;
use std::sync::Arc;

/// Operations of all kinds. The defaults fit a kind that does not have the property.
pub trait Policy {
    /// Its name in a picture.
    fn picture_name(&self) -> &'static str;

    /// Its description in the summary of `rtd check`.
    fn summary(&self, skin: &SkinPlan) -> String;

    /// Its description for the statistics page.
    fn shown(&self, skin: &SkinPlan) -> Shown;

    /// The place that holds its messages, with the number of messages at which it is full.
    fn room_name(&self) -> String;

    /// How messages pass through it.
    fn medium(&self) -> Medium;

    /// Why no session reaches the endpoint `name`, and the calls that do; none if a session does.
    fn outside_sessions(&self, name: &str, is_read: bool) -> Option<String>;

    /// Bytes of the longest message that it holds; none for a signal, which carries a value.
    fn msgsize(&self) -> Option<usize>;

    /// The ring of its messages, if it has one.
    fn ring(&self) -> Option<ring::RingPlan> {
        None
    }

    /// Whether a reader of the endpoint gets the messages that are sent to it.
    fn feeds_itself(&self) -> bool {
        true
    }

    /// Whether a receiver sees who sent a message, as rtd passes it on.
    fn passes_origin(&self) -> bool {
        false
    }

    /// The resources that it needs.
    fn cost(&self) -> Cost;

    /// The place that keeps messages which neither rtd nor the receiver's library discards when
    /// they are too old.
    fn keeps(&self, end: &End<'_>) -> Option<Keeps>;

    /// The first invariant of the plan that it breaks, as text.
    fn fault(&self, _used: &Use<'_>) -> Option<String> {
        None
    }

    /// Opens it for a lane thread that reads it.
    fn source(&self, parts: SourceParts<'_>) -> io::Result<Source>;

    /// Opens it for a route that sends to it.
    fn sink(&self, parts: SinkParts<'_>) -> io::Result<SinkKind>;

    /// Consequences of such endpoints on the plan's skin that its author may not expect: one
    /// sentence each.
    fn notes(plan: &Plan) -> Vec<String>
    where
        Self: Sized,
    {
        let _ = plan;
        Vec::new()
    }
}

/// Descriptions of an endpoint that tools find on a statistics page.
pub trait Described {
    /// The description in `rtctl ls`.
    fn what(&self) -> String;

    /// Its members in JSON.
    fn members(&self) -> Vec<(&'static str, Value)>;

    /// The description in a sentence.
    fn noun(&self) -> String;

    /// Why a tool cannot use it, and how a program can; `call` is a program's call, such as
    /// `read(2)`. None if tools can.
    fn closed_to_tools(&self, call: &str) -> Option<String> {
        let _ = call;
        None
    }
}

/// The keys of a kind, as they are in a file.
pub trait KindKeys: JsonSchema + Sized {
    /// Their names.
    const NAMES: &'static [&'static str];

    /// Reads the keys.
    fn read(r: &mut Reader<'_, '_, '_>) -> Self;

    /// Makes the endpoint; problems go to the report, and a placeholder into the plan.
    fn resolve(&self, cx: &mut Context<'_, '_, '_>, endpoint: &Endpoint) -> EndpointKind;

    /// Whether the endpoint is as its entry says. A default replaces a refused key, and the
    /// consequences of that default are not faults of the file.
    fn is_certain(&self) -> bool;

    /// The place of the first key that gives its size.
    fn size_place(&self) -> Option<&Place>;

    /// Reports problems of the kind's endpoints in their plan.
    fn check(cx: &mut Context<'_, '_, '_>, plan: &Plan) {
        let _ = (cx, plan);
    }
}

/// Makes the enums of the kinds, and the functions that handle each of them.
macro_rules! kinds {
    ($($(#[$doc:meta])* $Kind:ident($file:ident, $name:literal, $Plan:ty),)*) => {
        /// The kinds, as `kind` of an endpoint names them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Kind {
            $($(#[$doc])* $Kind,)*
        }

        /// The kinds with their names and the names of their keys.
        pub const KINDS: &[(Kind, &str, &[&str])] =
            &[$((Kind::$Kind, $name, <$file::Keys as KindKeys>::NAMES),)*];

        /// An endpoint in a plan, by kind.
        #[derive(Clone, Debug)]
        pub enum EndpointKind {
            $($(#[$doc])* $Kind($Plan),)*
        }

        impl EndpointKind {
            /// The operations of all kinds.
            pub fn policy(&self) -> &dyn Policy {
                match self {
                    $(EndpointKind::$Kind(kind) => kind,)*
                }
            }

            /// Its name in configurations, statistics and messages.
            pub fn name(&self) -> &'static str {
                match self {
                    $(EndpointKind::$Kind(_) => $name,)*
                }
            }
        }

        /// The kind's name, and its descriptions for tools; none for a kind that this version does
        /// not know.
        pub fn of_page(shown: &Shown) -> Option<(&'static str, &dyn Described)> {
            match shown {
                $(Shown::$Kind(shown) => Some(($name, shown)),)*
                Shown::Unknown(_) => None,
            }
        }

        /// The keys that an endpoint has by its kind.
        #[derive(Debug)]
        pub enum Keys {
            $($(#[$doc])* $Kind($file::Keys),)*
        }

        impl Keys {
            /// Reads the keys of this kind.
            fn read_of(r: &mut Reader<'_, '_, '_>, kind: Kind) -> Keys {
                match kind {
                    $(Kind::$Kind => Keys::$Kind(KindKeys::read(r)),)*
                }
            }

            /// Makes the endpoint; see [`KindKeys::resolve`].
            pub fn resolve(&self, cx: &mut Context<'_, '_, '_>, endpoint: &Endpoint) -> EndpointKind {
                match self {
                    $(Keys::$Kind(keys) => keys.resolve(cx, endpoint),)*
                }
            }

            /// Whether the endpoint is as its entry says; see [`KindKeys::is_certain`].
            pub fn is_certain(&self) -> bool {
                match self {
                    $(Keys::$Kind(keys) => keys.is_certain(),)*
                }
            }

            /// The place of the first key that gives its size.
            pub fn size_place(&self) -> Option<&Place> {
                match self {
                    $(Keys::$Kind(keys) => keys.size_place(),)*
                }
            }

            /// The schema of each kind's keys, with the kind's name.
            pub fn schemas(generator: &mut SchemaGenerator) -> Vec<(&'static str, Schema)> {
                vec![$(($name, <$file::Keys as JsonSchema>::json_schema(generator)),)*]
            }
        }

        /// Reports problems of endpoints in their plan.
        pub fn check(cx: &mut Context<'_, '_, '_>, plan: &Plan) {
            $(<$file::Keys as KindKeys>::check(cx, plan);)*
        }

        /// Consequences of the plan on its skin that its author may not expect: one sentence each.
        pub fn notes(plan: &Plan) -> Vec<String> {
            let mut notes = Vec::new();
            $(notes.extend(<$Plan>::notes(plan));)*
            notes
        }
    };
}

kinds! {
    /// A POSIX message queue; the daemon creates or adopts it.
    Mqueue(mqueue, "mqueue", mqueue::MqueuePlan),
    /// A signal: as a source sent to the daemon, as a sink sent to the owner.
    Signal(signal, "signal", signal::SignalPlan),
    /// A place in shared memory: a ring between the owner's session and whatever is at the other
    /// end.
    Ring(ring, "lane", ring::RingPlan),
    /// Datagrams between the lane and a plain Linux program that has the device `rtpN` open.
    Xddp(xddp, "xddp", xddp::XddpPlan),
}

impl Keys {
    /// The keys of an endpoint of this kind; those that belong to another kind are reported. If the
    /// kind was refused, its keys are not known: they are read as those of a queue, and no other
    /// key is reported.
    pub fn read(r: &mut Reader<'_, '_, '_>, kind: Option<Kind>) -> Keys {
        let keys = Keys::read_of(r, kind.unwrap_or(Kind::Mqueue));
        let name = kind
            .and_then(|kind| KINDS.iter().find(|(other, ..)| *other == kind))
            .map(|(_, name, _)| *name);
        for key in KINDS.iter().flat_map(|(.., keys)| *keys) {
            r.foreign(key, name);
        }
        keys
    }

    /// The name of the kind to which the keys of a table without `kind` belong: the kind with a key
    /// that no other kind has.
    pub fn meant(r: &Reader<'_, '_, '_>) -> &'static str {
        let is_own = |own: &str, key: &&str| {
            KINDS
                .iter()
                .all(|(_, name, keys)| *name == own || !keys.contains(key))
                && r.has(&[*key])
        };
        let meant = KINDS
            .iter()
            .rev()
            .find(|(_, name, keys)| keys.iter().any(|key| is_own(name, key)));
        meant.map_or("mqueue", |(_, name, _)| *name)
    }
}

impl EndpointKind {
    /// The ring of its messages, if it has one.
    pub fn ring(&self) -> Option<ring::RingPlan> {
        self.policy().ring()
    }

    /// Bytes of the longest message that it takes; none for a signal without a ring, which carries
    /// a value or no data.
    pub fn room(&self) -> Option<usize> {
        self.policy()
            .msgsize()
            .or_else(|| self.ring().map(|ring| ring.payload_bytes))
    }
}

/// How messages pass through an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    /// A queue of the kernel: it keeps messages whether or not its owner is registered, and both
    /// directions may be used.
    Queue,
    /// Signals, which go to a process or to rtd.
    Signal,
    /// A ring of the owner's session.
    Ring,
}

/// How a plan uses an endpoint.
#[derive(Clone, Copy, Debug)]
pub struct Use<'a> {
    pub name: &'a str,
    /// Some process owns it.
    pub is_owned: bool,
    /// Some route reads it.
    pub is_read: bool,
}

/// An endpoint as one of the ends of a route.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// The machine of the check.
    pub machine: &'a Machine,
    pub plan: &'a Plan,
    pub route: &'a RoutePlan,
    pub id: EndpointId,
    pub name: &'a str,
}

impl End<'_> {
    /// For a queue of the kernel, of which only a smaller size changes it: the kind sets the name
    /// and the number.
    fn kept_by_kernel(&self) -> Keeps {
        let name = self.name;
        Keeps {
            what: String::new(),
            messages: 0,
            displaces: false,
            fewer: format!("maxmsg = 1 (endpoint `{name}`)"),
            library: format!(
                "kind = \"lane\" (endpoint `{name}`), whose receiver's library discards them"
            ),
        }
    }
}

/// A place that keeps messages for a receiver, which neither rtd nor the receiver's library can
/// discard.
#[derive(Debug)]
pub struct Keeps {
    /// Its name in diagnostics.
    pub what: String,
    /// Number of messages.
    pub messages: u64,
    /// Whether it keeps the newest messages when it is full: a ring that rtd overwrites
    /// (`conflate`, `displace-oldest`).
    pub displaces: bool,
    /// The line that makes it keep fewer.
    pub fewer: String,
    /// The line that lets the receiver's library discard them.
    pub library: String,
}

/// Parts to build a source from.
#[derive(Debug)]
pub struct SourceParts<'a> {
    /// The real-time calls.
    pub skin: &'static Skin,
    /// The endpoint's owner.
    pub owner: Option<Arc<Peer>>,
    /// Message queues stay when the daemon stops.
    pub keep_queues: bool,
    /// The hand-off of the rings of the owner's sessions, if it is a ring.
    pub ring_slot: Option<HandOffSlot<Consumer>>,
    /// The semaphore that wakes the thread, if doorbells are not futexes.
    pub doorbell: Option<Arc<Semaphore>>,
    /// Objects that are opened once for a source and its sinks.
    pub shared: &'a mut Shared,
}

/// Parts to build a sink from.
#[derive(Debug)]
pub struct SinkParts<'a> {
    /// The real-time calls.
    pub skin: &'static Skin,
    /// The hand-off of the rings of the owner's sessions, if it has one.
    pub ring_slot: Option<HandOffSlot<Producer>>,
    /// The share of the owner's queued signals, if it is a signal that queues.
    pub credit: Option<Arc<Credit>>,
    /// A signal takes only the first 8 bytes of a longer payload.
    pub truncate: bool,
    /// Objects that are opened once for a source and its sinks.
    pub shared: &'a mut Shared,
}

/// Objects that are opened once for a source and its sinks, while workers are made. Lane threads
/// keep those that they use.
#[derive(Debug, Default)]
pub struct Shared {
    ports: xddp::Ports,
}

/// The error for a ring that was not made: a defect of the builder, which must not end a running
/// daemon.
fn missing_ring() -> io::Error {
    io::Error::other("the endpoint has a ring, and none was prepared for it")
}

fn small(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
