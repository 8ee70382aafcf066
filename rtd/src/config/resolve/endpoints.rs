//! Endpoints: checks their owners; their kinds check the other keys ([`crate::endpoint`]).

use super::{Context, names::Names};
use crate::config::sections::Endpoint;
use crate::plan::{EndpointPlan, ProcessId};

/// Makes the endpoints.
pub fn resolve(cx: &mut Context<'_, '_, '_>) -> Vec<EndpointPlan> {
    let config = cx.config;
    let mut endpoints = Vec::with_capacity(config.endpoint.len());
    for written in &config.endpoint {
        let name = written
            .name
            .get()
            .map(|name| name.0.clone())
            .unwrap_or_default();
        let owner = owner(cx, written);
        endpoints.push(EndpointPlan {
            name,
            owner,
            kind: written.keys.resolve(cx, written),
        });
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
