//! The channels and partners of each process: computed from the plan once, at the start.
//!
//! Invariant: a channel's number is its index in its process's list, and determines the daemon's
//! bell.

use crate::endpoint::ring::RingPlan;
use crate::endpoint::{EndpointKind, Medium};
use crate::plan::{EndpointId, Path, Plan, ProcessId, RouteId, RoutePlan};
use crate::sessions::state::Receiver;
use rtcore::lane::policy::Overflow;
use rtcore::ring::{Geometry, Side};
use rtcore::wire::{Channel, Name, Role};
use std::io;

pub use rtcore::ring::bell::CHANNELS_MAX;

#[derive(Debug)]
pub struct ChannelPlan {
    /// The channel as it is announced to the session.
    pub announced: Channel,
    /// Size of its ring.
    pub geometry: Geometry,
    /// The other end of its messages.
    pub path: ChannelPath,
    /// A sender's receivers.
    pub receivers: Vec<Receiver>,
}

/// The other end of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelPath {
    /// The thread that reads this endpoint.
    Source(EndpointId),
    /// The thread that owns the route, at this one of its ends.
    Sink(RouteId, usize),
    /// Another session, in the ring of this route; the session has this side of it.
    Direct(RouteId, Side),
}

/// A channel before its names and sizes were checked.
struct Draft {
    route: RouteId,
    own: EndpointId,
    other: EndpointId,
    ring: Option<RingPlan>,
    role: Role,
    block_ns: u64,
    path: ChannelPath,
    receivers: Vec<Receiver>,
}

/// The tables, indexed by process.
#[derive(Debug)]
pub struct Table {
    /// Its channels; the index of a channel is its number.
    pub channels: Vec<Vec<ChannelPlan>>,
    /// The others that it sends to or receives from, over routes of any kind.
    pub partners: Vec<Vec<ProcessId>>,
}

impl Table {
    /// Errors: a process has too many channels; a size or a name does not fit into a ring or frame.
    pub fn new(plan: &Plan) -> io::Result<Table> {
        let mut table = Table {
            channels: plan.processes.iter().map(|_| Vec::new()).collect(),
            partners: plan.processes.iter().map(|_| Vec::new()).collect(),
        };
        for endpoint in 0..plan.endpoints.len() {
            table.sender(plan, endpoint)?;
        }
        for route in 0..plan.routes.len() {
            table.receivers(plan, route)?;
        }
        for (process, channels) in plan.processes.iter().zip(&table.channels) {
            if channels.len() > CHANNELS_MAX {
                return Err(invalid(format!(
                    "process \"{}\" has {} channels (lane endpoints that it sends from, and one for each route end \
                     that it receives at), a session has {CHANNELS_MAX} at most: divide it into two [[process]]",
                    process.name,
                    channels.len()
                )));
            }
        }
        Ok(table)
    }

    /// The channel into an endpoint that some route reads.
    fn sender(&mut self, plan: &Plan, id: EndpointId) -> io::Result<()> {
        let endpoint = &plan.endpoints[id];
        let (EndpointKind::Ring(ring), Some(owner)) = (&endpoint.kind, endpoint.owner) else {
            return Ok(());
        };
        let mut routes = plan
            .routes
            .iter()
            .enumerate()
            .filter(|(_, route)| route.from == id);
        let Some((first, route)) = routes.next() else {
            return Ok(());
        };
        let Some(other) = route.ends().next() else {
            return Ok(());
        };
        let direct = route.path == Path::Direct;
        let ring = if direct {
            plan.direct_ring(route)
        } else {
            Some(*ring)
        };
        let wait = |route: &RoutePlan| match route.overflow {
            Overflow::Block { limit_ns } => limit_ns,
            _ => 0,
        };
        let block_ns = routes.fold(wait(route), |most, (_, route)| most.max(wait(route)));
        let path = if direct {
            ChannelPath::Direct(first, Side::Producer)
        } else {
            ChannelPath::Source(id)
        };
        let reading = plan.routes.iter().filter(|route| route.from == id);
        let receivers = reading
            .flat_map(RoutePlan::ends)
            .map(|end| receiver(plan, end))
            .collect();
        let draft = Draft {
            route: first,
            own: id,
            other,
            ring,
            role: Role::Sender,
            block_ns,
            path,
            receivers,
        };
        self.channel(plan, owner, draft)
    }

    /// Adds the channels of a route's receivers, and the partners.
    fn receivers(&mut self, plan: &Plan, route: RouteId) -> io::Result<()> {
        let from = plan.routes[route].from;
        let direct = plan.routes[route].path == Path::Direct;
        for (end, id) in plan.routes[route].ends().enumerate() {
            let endpoint = &plan.endpoints[id];
            let Some(owner) = endpoint.owner else {
                continue;
            };
            if let Some(sender) = plan.endpoints[from].owner {
                self.add_peers(sender, owner);
            }
            let path = if direct {
                ChannelPath::Direct(route, Side::Consumer)
            } else {
                ChannelPath::Sink(route, end)
            };
            let role = match &endpoint.kind {
                EndpointKind::Ring(_) => Role::Inbox,
                EndpointKind::Signal(signal) if signal.inbox.is_some() => Role::Signal {
                    signo: signal.signo,
                },
                _ => continue,
            };
            let ring = if direct {
                plan.direct_ring(&plan.routes[route])
            } else {
                endpoint.kind.ring()
            };
            let receivers = Vec::new();
            let draft = Draft {
                route,
                own: id,
                other: from,
                ring,
                role,
                block_ns: 0,
                path,
                receivers,
            };
            self.channel(plan, owner, draft)?;
        }
        Ok(())
    }

    fn channel(&mut self, plan: &Plan, owner: ProcessId, draft: Draft) -> io::Result<()> {
        let Draft {
            route,
            own,
            other,
            ring,
            role,
            block_ns,
            path,
            receivers,
        } = draft;
        let endpoint = &plan.endpoints[own].name;
        let size = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let impossible = || {
            invalid(format!(
                "endpoint \"{endpoint}\": no ring is {ring:?}: correct its size"
            ))
        };
        let Some(RingPlan {
            slots,
            payload_bytes,
        }) = ring
        else {
            return Err(impossible());
        };
        let promise = promise(plan, route, own, role, path, slots);
        let lane = &plan.lanes[plan.routes[route].lane];
        let process = plan.endpoints[other]
            .owner
            .map(|owner| name(&plan.processes[owner].name))
            .transpose()?;
        let announced = Channel {
            channel: size(self.channels[owner].len()),
            role,
            direct: matches!(path, ChannelPath::Direct(..)),
            endpoint: name(endpoint)?,
            other: name(&plan.endpoints[other].name)?,
            process,
            lane: name(&lane.name)?,
            priority: lane.priority,
            route: name(&plan.routes[route].name)?,
            slots: size(slots),
            payload_bytes: size(payload_bytes),
            block_ns,
            keep: promise.keep,
            ttl_ns: promise.ttl_ns,
            deadline_ns: promise.deadline_ns,
        };
        let geometry = announced.geometry().ok_or_else(impossible)?;
        self.channels[owner].push(ChannelPlan {
            announced,
            geometry,
            path,
            receivers,
        });
        Ok(())
    }

    fn add_peers(&mut self, one: ProcessId, other: ProcessId) {
        for (of, partner) in [(one, other), (other, one)] {
            if of != partner && !self.partners[of].contains(&partner) {
                self.partners[of].push(partner);
            }
        }
    }
}

/// The rules that a receiver's library applies.
#[derive(Default)]
struct Promise {
    keep: u32,
    ttl_ns: u64,
    deadline_ns: u64,
}

fn promise(
    plan: &Plan,
    id: RouteId,
    own: EndpointId,
    role: Role,
    path: ChannelPath,
    slots: usize,
) -> Promise {
    let route = &plan.routes[id];
    let direct = matches!(path, ChannelPath::Direct(..));
    if role == Role::Sender {
        return Promise::default();
    }
    let newest = match route.overflow {
        Overflow::Conflate => 1,
        Overflow::DisplaceOldest => u32::try_from(slots).unwrap_or(u32::MAX),
        Overflow::Reject | Overflow::DisplaceNewest | Overflow::Block { .. } => 0,
    };
    // In a group of which one member takes each message, a full member must not take a message for
    // which another has room.
    let keep = if direct || route.is_one_of_many(own) {
        0
    } else {
        newest
    };
    // The stamps of lanes with another clock have no meaning for the session.
    if !direct && !plan.daemon.skin.kind.caps().linux_clock {
        return Promise {
            keep,
            ..Promise::default()
        };
    }
    Promise {
        keep,
        ttl_ns: route.ttl_ns.unwrap_or(0),
        deadline_ns: route.deadline_ns.unwrap_or(0),
    }
}

fn receiver(plan: &Plan, id: EndpointId) -> Receiver {
    let endpoint = &plan.endpoints[id];
    match endpoint.kind.policy().medium() {
        Medium::Queue => Receiver::Queue(endpoint.owner),
        Medium::Signal => Receiver::Signal(endpoint.owner),
        Medium::Ring => Receiver::Session(endpoint.owner),
    }
}

fn name(text: &str) -> io::Result<Name> {
    Name::new(text).map_err(|e| invalid(format!("name `{text}` fits no frame: {e}")))
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}
