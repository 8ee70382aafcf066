//! Endpoints, policy's half: what a configuration may say of each kind, what the kind takes of the
//! machine, how it is built and how it is described.
//!
//! One file a kind, with a type that implements [`Policy`]. The other half of a kind, what its lane
//! thread reads and writes, is its file in `rtcore/src/endpoint/`. A new kind is these two files
//! and a line in the table of each crate.
//!
//! Constraint: code outside this room may ask for one kind by name if it deals with that kind alone
//! (the registry with signals, the queues of the daemon with message queues), but it never lists
//! all kinds.

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

/// What all kinds answer. What a kind does not have is left to the defaults.
pub trait Policy {
    /// Its name in a picture.
    fn picture_name(&self) -> &'static str;

    /// What it is, for the summary of `rtd check`.
    fn summary(&self, skin: &SkinPlan) -> String;

    /// What it is, for the statistics page.
    fn shown(&self, skin: &SkinPlan) -> Shown;

    /// What holds its messages, with the number at which it is full.
    fn room_name(&self) -> String;

    /// How messages pass through it.
    fn medium(&self) -> Medium;

    /// Why no session reaches the endpoint `name`, and what reaches it; none if a session does.
    fn outside_sessions(&self, name: &str, is_read: bool) -> Option<String>;

    /// Bytes of the longest message that it holds; none for a signal, which carries a value.
    fn msgsize(&self) -> Option<usize>;

    /// The ring that its messages lie in, if they do.
    fn ring(&self) -> Option<ring::RingPlan> {
        None
    }

    /// Whether what is sent to it comes out of it where it is read.
    fn feeds_itself(&self) -> bool {
        true
    }

    /// Whether a receiver sees who sent a message, as rtd passes it on.
    fn passes_origin(&self) -> bool {
        false
    }

    /// What it takes of the machine.
    fn cost(&self) -> Cost;

    /// What keeps messages where neither rtd nor the receiver's library discards them when they are
    /// too old.
    fn keeps(&self, end: &End<'_>) -> Option<Keeps>;

    /// The first invariant of the plan that it breaks, in words.
    fn fault(&self, _used: &Use<'_>) -> Option<String> {
        None
    }

    /// Opens it for a lane thread that reads it.
    fn source(&self, parts: SourceParts<'_>) -> io::Result<Source>;

    /// Opens it for a route that sends to it.
    fn sink(&self, parts: SinkParts<'_>) -> io::Result<SinkKind>;

    /// What a plan with such endpoints means on its skin that its author may not expect: one
    /// sentence each.
    fn notes(plan: &Plan) -> Vec<String>
    where
        Self: Sized,
    {
        let _ = plan;
        Vec::new()
    }
}

/// What tools say of an endpoint that they find on a statistics page.
pub trait Described {
    /// What it is, for `rtctl ls`.
    fn what(&self) -> String;

    /// Its members in JSON.
    fn members(&self) -> Vec<(&'static str, Value)>;

    /// What it is, in a sentence.
    fn noun(&self) -> String;

    /// Why a tool cannot use it, and what can; `call` is what a program would use, such as
    /// `read(2)`. None if tools can.
    fn closed_to_tools(&self, call: &str) -> Option<String> {
        let _ = call;
        None
    }
}

/// The keys of a kind, as a file has them.
pub trait KindKeys: JsonSchema + Sized {
    /// Their names.
    const NAMES: &'static [&'static str];

    /// Reads them.
    fn read(r: &mut Reader<'_, '_, '_>) -> Self;

    /// Makes the endpoint; what is wrong goes to the report, and a stand-in into the plan.
    fn resolve(&self, cx: &mut Context<'_, '_, '_>, endpoint: &Endpoint) -> EndpointKind;

    /// Whether the endpoint is what its entry says. A default stands behind a refused key, and what
    /// follows from that default is no fault of the file.
    fn is_certain(&self) -> bool;

    /// The place of the first key that gives its size.
    fn size_place(&self) -> Option<&Place>;

    /// Reports what is wrong with the endpoints of the kind in their plan.
    fn check(cx: &mut Context<'_, '_, '_>, plan: &Plan) {
        let _ = (cx, plan);
    }
}

/// Makes the enums of the kinds, and what is done for each of them.
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

        /// What an endpoint is made of.
        #[derive(Clone, Debug)]
        pub enum EndpointKind {
            $($(#[$doc])* $Kind($Plan),)*
        }

        impl EndpointKind {
            /// What all kinds answer.
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

        /// The kind's name, and what tools say of it; none for a kind that this version does not
        /// know.
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

            /// Whether the endpoint is what its entry says; see [`KindKeys::is_certain`].
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

        /// Reports what is wrong with endpoints in their plan.
        pub fn check(cx: &mut Context<'_, '_, '_>, plan: &Plan) {
            $(<$file::Keys as KindKeys>::check(cx, plan);)*
        }

        /// What the plan means on its skin that its author may not expect: one sentence each.
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

    /// The name of the kind that the keys of a table without one belong to: of that with a key that
    /// no other kind has.
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
    /// The ring that its messages lie in, if they do.
    pub fn ring(&self) -> Option<ring::RingPlan> {
        self.policy().ring()
    }

    /// Bytes of the longest message that it takes; none for a signal without a ring, which carries
    /// a value or nothing.
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
    /// The machine that the plan is checked for.
    pub machine: &'a Machine,
    pub plan: &'a Plan,
    pub route: &'a RoutePlan,
    pub id: EndpointId,
    pub name: &'a str,
}

impl End<'_> {
    /// For a queue of the kernel, which only a smaller size changes: what and how many is left to
    /// the kind.
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

/// What keeps messages in front of a receiver, out of reach of rtd and the receiver's library.
#[derive(Debug)]
pub struct Keeps {
    /// Its name in the file.
    pub what: String,
    /// Number of messages.
    pub messages: u64,
    /// Past that it keeps the newest ones: a ring that rtd writes over (`conflate`,
    /// `displace-oldest`).
    pub displaces: bool,
    /// The line that makes it keep fewer.
    pub fewer: String,
    /// The line that has the receiver's library discard them.
    pub library: String,
}

/// What a source is built of.
#[derive(Debug)]
pub struct SourceParts<'a> {
    /// The real-time calls.
    pub skin: &'static Skin,
    /// The endpoint's owner.
    pub owner: Option<Arc<Peer>>,
    /// Message queues stay when the daemon stops.
    pub keep_queues: bool,
    /// Where the rings of the owner's sessions will come from, if it is a ring.
    pub ring_slot: Option<HandOffSlot<Consumer>>,
    /// What rings the thread, where that is no futex.
    pub doorbell: Option<Arc<Semaphore>>,
    /// What is opened once for a source and its sinks.
    pub shared: &'a mut Shared,
}

/// What a sink is built of.
#[derive(Debug)]
pub struct SinkParts<'a> {
    /// The real-time calls.
    pub skin: &'static Skin,
    /// Where the rings of the owner's sessions will come from, if it has one.
    pub ring_slot: Option<HandOffSlot<Producer>>,
    /// The share of the owner's queued signals, if it is a signal that queues.
    pub credit: Option<Arc<Credit>>,
    /// A signal takes only the first 8 bytes of a longer payload.
    pub truncate: bool,
    /// What is opened once for a source and its sinks.
    pub shared: &'a mut Shared,
}

/// What is opened once for a source and its sinks, while workers are made. Lane threads keep what
/// they use.
#[derive(Debug, Default)]
pub struct Shared {
    ports: xddp::Ports,
}

/// The slot of a ring that was not made: a defect of the builder, and no reason to end a running
/// daemon.
fn missing_ring() -> io::Error {
    io::Error::other("the endpoint has a ring, and none was prepared for it")
}

fn small(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
