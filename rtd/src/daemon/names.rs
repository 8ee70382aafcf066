//! Names of objects that events and tables refer to by index.

use crate::plan::{EndpointId, Plan, RoutePlan, TargetPlan};

/// Looks names up in a plan.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a> {
    plan: &'a Plan,
}

impl<'a> Names<'a> {
    /// Makes the look-up for this plan.
    pub fn new(plan: &'a Plan) -> Names<'a> {
        Names { plan }
    }

    /// A route's name.
    pub fn route(&self, route: u32) -> &'a str {
        self.plan
            .routes
            .get(route as usize)
            .map_or("?", |r| &r.name)
    }

    /// Name of the endpoint behind a route's n-th end.
    pub fn end(&self, route: u32, end: u32) -> &'a str {
        self.endpoint(route as usize, end as usize)
            .map_or("?", |e| &self.plan.endpoints[e].name)
    }

    /// The endpoint behind a route's n-th end.
    pub fn endpoint(&self, route: usize, end: usize) -> Option<EndpointId> {
        let ends = self
            .plan
            .routes
            .get(route)
            .into_iter()
            .flat_map(|r| &r.to)
            .flat_map(members);
        ends.copied().nth(end)
    }

    /// A route's targets as in the configuration, separated by `, `.
    pub fn targets(&self, route: &RoutePlan) -> String {
        let names: Vec<&str> = route
            .to
            .iter()
            .map(|to| match to {
                TargetPlan::Endpoint(e) => self.plan.endpoints[*e].name.as_str(),
                TargetPlan::Group { name, .. } => name.as_str(),
            })
            .collect();
        names.join(", ")
    }
}

fn members(to: &TargetPlan) -> &[EndpointId] {
    match to {
        TargetPlan::Endpoint(e) => std::slice::from_ref(e),
        TargetPlan::Group { members, .. } => members,
    }
}
