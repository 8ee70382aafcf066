//! The plan's invariants, as a check that tests and a debug build run.

use super::{EndpointPlan, NAME_BYTES_MAX, Path, Plan, RoutePlan, SPIN_SOURCES_MAX, TargetPlan};
use crate::endpoint::{EndpointKind, Medium, Use};
use rtcore::lane::policy::{Overflow, Wait};
use rtcore::message::{SIGNAL_RECORD_BYTES, SIGNAL_VALUE_BYTES};

impl Plan {
    /// The first invariant that does not hold, as text. A plan that [`crate::config::check`]
    /// returns has none.
    pub fn broken_invariant(&self) -> Option<String> {
        let steps = [
            Self::indices,
            Self::listed,
            Self::values,
            Self::lane_sources,
            Self::endpoint_kinds,
        ];
        let route = |route| self.direct(route).or_else(|| self.fits(route));
        let found = steps
            .iter()
            .find_map(|step| step(self))
            .or_else(|| self.circle());
        found.or_else(|| self.routes.iter().find_map(route))
    }

    /// Indices are in range.
    fn indices(&self) -> Option<String> {
        for route in &self.routes {
            let filter_holds = |target: &TargetPlan| match target {
                TargetPlan::Group {
                    filter: Some(filter),
                    members,
                    ..
                } => {
                    let owned =
                        |id: &usize| self.endpoints.get(*id).is_some_and(|e| e.owner.is_some());
                    filter.process() < self.processes.len() && members.iter().all(owned)
                }
                _ => true,
            };
            let reached = || route.to.iter().flat_map(|target| target.endpoints());
            if route.from >= self.endpoints.len()
                || route.lane >= self.lanes.len()
                || route.to.is_empty()
                || route
                    .to
                    .iter()
                    .any(|target| target.endpoints().is_empty() || !filter_holds(target))
                || reached().any(|id| *id >= self.endpoints.len())
            {
                return Some(format!(
                    "route `{}` has an index out of range or no target",
                    route.name
                ));
            }
        }
        let out = |e: &&EndpointPlan| e.owner.is_some_and(|owner| owner >= self.processes.len());
        let found = self.endpoints.iter().find(out)?;
        Some(format!(
            "endpoint `{}` has an owner out of range",
            found.name
        ))
    }

    /// Sources list exactly the routes that a thread serves.
    fn listed(&self) -> Option<String> {
        let mut listed: Vec<usize> = Vec::new();
        for source in &self.sources {
            for id in &source.routes {
                let fits = |r: &RoutePlan| r.from == source.endpoint && r.lane == source.lane;
                if !self.routes.get(*id).is_some_and(fits) {
                    let endpoint = source.endpoint;
                    return Some(format!(
                        "source {endpoint} lists route {id}, which is not its own"
                    ));
                }
            }
            listed.extend(&source.routes);
        }
        listed.sort_unstable();
        let routed = |id: &usize| {
            self.routes
                .get(*id)
                .is_some_and(|route| route.path == Path::Routed)
        };
        let all: Vec<usize> = (0..self.routes.len()).filter(routed).collect();
        (listed != all).then(|| format!("sources list routes {listed:?}, routed are {all:?}"))
    }

    /// Names and values are within their bounds.
    fn values(&self) -> Option<String> {
        let names = self
            .lanes
            .iter()
            .map(|e| &e.name)
            .chain(self.processes.iter().map(|e| &e.name));
        let names = names
            .chain(self.endpoints.iter().map(|e| &e.name))
            .chain(self.routes.iter().map(|e| &e.name));
        for name in names {
            if name.is_empty() || name.len() > NAME_BYTES_MAX {
                return Some(format!("name `{name}` is empty or too long"));
            }
        }
        for route in &self.routes {
            let capacity = match (route.path, route.overflow) {
                (Path::Direct, _) => 0..=0,
                (Path::Routed, Overflow::Conflate) => 1..=1,
                (Path::Routed, _) => 1..=usize::MAX,
            };
            if !capacity.contains(&route.capacity) {
                return Some(format!(
                    "route `{}` has capacity {}",
                    route.name, route.capacity
                ));
            }
        }
        None
    }

    /// Lanes have their priorities, and no more sources than their way of waiting admits.
    fn lane_sources(&self) -> Option<String> {
        for (index, lane) in self.lanes.iter().enumerate() {
            if !(1..=98).contains(&lane.priority) {
                return Some(format!(
                    "lane `{}` has priority {}",
                    lane.name, lane.priority
                ));
            }
            let same =
                |other: &super::LanePlan| (other.cpu, other.priority) == (lane.cpu, lane.priority);
            if self.lanes[..index].iter().any(same) {
                return Some(format!("lane `{}` shares CPU and priority", lane.name));
            }
            let read: Vec<usize> = self
                .sources
                .iter()
                .filter(|source| source.lane == index)
                .map(|s| s.endpoint)
                .collect();
            if lane.wait == Wait::Block || read.len() < 2 {
                continue;
            }
            let rings = read
                .iter()
                .all(|id| matches!(self.endpoints[*id].kind, EndpointKind::Ring(_)));
            if lane.wait != Wait::Poll && !(rings && read.len() <= SPIN_SOURCES_MAX) {
                return Some(format!(
                    "lane `{}` spins on {} sources",
                    lane.name,
                    read.len()
                ));
            }
            let blocks = |r: &RoutePlan| {
                r.lane == index
                    && r.path == Path::Routed
                    && matches!(r.overflow, Overflow::Block { .. })
            };
            if self.routes.iter().any(blocks) {
                return Some(format!(
                    "lane `{}` scans {} sources and blocks",
                    lane.name,
                    read.len()
                ));
            }
        }
        None
    }

    /// Signal and lane endpoints have one direction, rings are within their limits, and no kind
    /// breaks an invariant of its own.
    fn endpoint_kinds(&self) -> Option<String> {
        let mut sunk = vec![false; self.endpoints.len()];
        self.routes
            .iter()
            .flat_map(RoutePlan::ends)
            .for_each(|id| sunk[id] = true);
        for (id, endpoint) in self.endpoints.iter().enumerate() {
            let (name, policy) = (&endpoint.name, endpoint.kind.policy());
            let is_read = self.routes.iter().any(|route| route.from == id);
            if is_read && sunk[id] && policy.medium() != Medium::Queue {
                return Some(format!("endpoint `{name}` is used both ways"));
            }
            let fault = policy.fault(&Use {
                name,
                is_owned: endpoint.owner.is_some(),
                is_read,
            });
            if fault.is_some() {
                return fault;
            }
            if let Some(ring) = policy.ring().filter(|ring| !ring.is_possible()) {
                return Some(format!(
                    "`{name}` has a ring of {} x {}",
                    ring.slots, ring.payload_bytes
                ));
            }
        }
        None
    }

    /// No route leads back to its start.
    fn circle(&self) -> Option<String> {
        // An endpoint without unread input is on no circle and can be removed.
        let mut left: Vec<&RoutePlan> = self.routes.iter().collect();
        loop {
            let before = left.len();
            let to = left
                .iter()
                .flat_map(|r| &r.to)
                .flat_map(|t| t.endpoints())
                .copied();
            let fed: Vec<usize> = to
                .filter(|id| self.endpoints[*id].kind.policy().feeds_itself())
                .collect();
            left.retain(|route| fed.contains(&route.from));
            if left.len() == before {
                break;
            }
        }
        left.first()
            .map(|route| format!("route `{}` is on a circle or behind one", route.name))
    }

    /// A direct route has only properties that two processes can implement without rtd.
    fn direct(&self, route: &RoutePlan) -> Option<String> {
        if route.path == Path::Routed {
            return None;
        }
        let is_lane = |id: usize| matches!(self.endpoints[id].kind, EndpointKind::Ring(_));
        let ends = matches!(route.to.as_slice(), [TargetPlan::Endpoint(to)] if is_lane(*to));
        let alone = self
            .routes
            .iter()
            .filter(|other| other.from == route.from)
            .count()
            == 1;
        let overflow = matches!(route.overflow, Overflow::Reject | Overflow::Block { .. });
        let policed = route.rate.is_some();
        let rewritten = route.mq_priority.is_some() || route.truncate;
        let fine = ends && is_lane(route.from) && alone && overflow && !policed && !rewritten;
        (!fine).then(|| format!("direct route `{}` needs a thread", route.name))
    }

    /// Every target can take the messages of the route.
    fn fits(&self, route: &RoutePlan) -> Option<String> {
        let source = &self.endpoints[route.from].kind;
        let (in_queue, in_ring) = match source.policy().msgsize() {
            None => (SIGNAL_RECORD_BYTES, SIGNAL_VALUE_BYTES),
            Some(bytes) => {
                let longest = route.payload_bytes_max.min(bytes);
                (longest, longest)
            }
        };
        for id in route.ends() {
            let target = &self.endpoints[id];
            let takes = match &target.kind {
                EndpointKind::Signal(signal) => {
                    let may_lose = route.truncate || matches!(source, EndpointKind::Signal(_));
                    target.owner.is_some() && signal.takes(in_ring, may_lose)
                }
                kind => {
                    let brought = if kind.policy().medium() == Medium::Queue {
                        in_queue
                    } else {
                        in_ring
                    };
                    kind.room().is_some_and(|room| brought <= room)
                }
            };
            if !takes {
                return Some(format!(
                    "`{}` cannot take what route `{}` brings",
                    target.name, route.name
                ));
            }
        }
        None
    }
}
