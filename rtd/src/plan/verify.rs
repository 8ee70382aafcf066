//! The plan's invariants, as a check that tests and a debug build run.

use super::{EndpointKind, NAME_BYTES_MAX, Plan, Wait};
use rtcore::sys::signame;

impl Plan {
    /// The first invariant that does not hold, in words. A plan that [`crate::config::check`] returns has
    /// none.
    pub fn broken_invariant(&self) -> Option<String> {
        self.indices().or_else(|| self.values()).or_else(|| self.ways())
    }

    /// Indices are in range, and sources list exactly the routes.
    fn indices(&self) -> Option<String> {
        for route in &self.routes {
            let reached = || route.to.iter().flat_map(|target| target.endpoints());
            if route.from >= self.endpoints.len()
                || route.lane >= self.lanes.len()
                || route.to.is_empty()
                || route.to.iter().any(|target| target.endpoints().is_empty())
                || reached().any(|id| *id >= self.endpoints.len())
            {
                return Some(format!("route `{}` has an index out of range or no target", route.name));
            }
        }
        for endpoint in &self.endpoints {
            if endpoint.owner.is_some_and(|owner| owner >= self.processes.len()) {
                return Some(format!("endpoint `{}` has an owner out of range", endpoint.name));
            }
        }
        let mut listed: Vec<usize> = Vec::new();
        for source in &self.sources {
            for id in &source.routes {
                let fits = |r: &super::RoutePlan| r.from == source.endpoint && r.lane == source.lane;
                if !self.routes.get(*id).is_some_and(fits) {
                    return Some(format!(
                        "source {} lists route {id}, which is not its own",
                        source.endpoint
                    ));
                }
            }
            listed.extend(&source.routes);
        }
        listed.sort_unstable();
        let all: Vec<usize> = (0..self.routes.len()).collect();
        (listed != all).then(|| format!("sources list routes {listed:?} of {}", all.len()))
    }

    /// Names and values are within their bounds.
    fn values(&self) -> Option<String> {
        let names = self.lanes.iter().map(|e| &e.name).chain(self.processes.iter().map(|e| &e.name));
        let names =
            names.chain(self.endpoints.iter().map(|e| &e.name)).chain(self.routes.iter().map(|e| &e.name));
        for name in names {
            if name.is_empty() || name.len() > NAME_BYTES_MAX {
                return Some(format!("name `{name}` is empty or too long"));
            }
        }
        for (index, lane) in self.lanes.iter().enumerate() {
            if !(1..=98).contains(&lane.priority) {
                return Some(format!("lane `{}` has priority {}", lane.name, lane.priority));
            }
            if self.lanes[..index]
                .iter()
                .any(|other| (other.cpu, other.priority) == (lane.cpu, lane.priority))
            {
                return Some(format!("lane `{}` shares CPU and priority", lane.name));
            }
            let sources = self.sources.iter().filter(|source| source.lane == index).count();
            if matches!(lane.wait, Wait::Spin { .. }) && sources > 1 {
                return Some(format!("lane `{}` spins on {sources} sources", lane.name));
            }
            let blocks =
                |r: &super::RoutePlan| r.lane == index && matches!(r.overflow, super::Overflow::Block { .. });
            if lane.wait == Wait::Poll && sources > 1 && self.routes.iter().any(blocks) {
                return Some(format!("lane `{}` polls {sources} sources and blocks", lane.name));
            }
        }
        for route in &self.routes {
            if route.capacity == 0 || (route.overflow == super::Overflow::Conflate && route.capacity != 1) {
                return Some(format!("route `{}` has capacity {}", route.name, route.capacity));
            }
        }
        None
    }

    /// No circle, no signal both ways, no message that a target cannot take.
    fn ways(&self) -> Option<String> {
        let sinks: Vec<usize> =
            self.routes.iter().flat_map(|r| &r.to).flat_map(|t| t.endpoints()).copied().collect();
        // An endpoint that can be taken off because nothing unread flows into it is on no circle.
        let mut left: Vec<&super::RoutePlan> = self.routes.iter().collect();
        loop {
            let before = left.len();
            let fed: Vec<usize> =
                left.iter().flat_map(|r| &r.to).flat_map(|t| t.endpoints()).copied().collect();
            left.retain(|route| fed.contains(&route.from));
            if left.len() == before {
                break;
            }
        }
        if let Some(route) = left.first() {
            return Some(format!("route `{}` is on a circle or behind one", route.name));
        }
        for route in &self.routes {
            let source = &self.endpoints[route.from];
            if matches!(source.kind, EndpointKind::Signal { .. }) && sinks.contains(&route.from) {
                return Some(format!("signal `{}` is used both ways", source.name));
            }
            for id in route.to.iter().flat_map(|target| target.endpoints()) {
                let target = &self.endpoints[*id];
                match (&source.kind, &target.kind) {
                    (EndpointKind::Mqueue { msgsize, .. }, EndpointKind::Mqueue { msgsize: room, .. })
                        if route.payload_bytes_max.min(*msgsize) > *room =>
                    {
                        return Some(format!(
                            "`{}` cannot take what route `{}` brings",
                            target.name, route.name
                        ));
                    }
                    (_, EndpointKind::Signal { signo, .. })
                        if target.owner.is_none() || signame::from_number(i64::from(*signo)).is_err() =>
                    {
                        return Some(format!("signal `{}` cannot be sent", target.name));
                    }
                    _ => {}
                }
            }
        }
        None
    }
}
