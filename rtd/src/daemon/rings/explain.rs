//! Explains why a session has no such endpoint: the rule as text.

use super::Rings;
use crate::plan::{ProcessId, TargetPlan};
use rtcore::wire::Status;

/// The answer to a client that asks about an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Ok if the process may use the endpoint.
    pub status: Status,
    pub text: String,
}

impl Rings {
    /// The rule that excludes the process from the endpoint.
    pub fn explain(&self, process: ProcessId, endpoint: &str) -> Explanation {
        let plan = &self.plan;
        let explained = |status, text| Explanation { status, text };
        let Some(id) = plan.endpoints.iter().position(|e| e.name == endpoint) else {
            let text = format!(
                "no endpoint is named `{endpoint}`: add [[endpoint]] name = \"{endpoint}\""
            );
            return explained(Status::UnknownName, text);
        };
        let denied = |text| explained(Status::Denied, text);
        let found = &plan.endpoints[id];
        let me = &plan.processes[process].name;
        let read = plan.routes.iter().any(|route| route.from == id);
        if let Some(text) = found.kind.policy().outside_sessions(endpoint, read) {
            return denied(text);
        }
        if found.owner != Some(process) {
            let owner = found
                .owner
                .map_or("nobody", |owner| plan.processes[owner].name.as_str());
            return denied(format!(
                "endpoint `{endpoint}` belongs to process `{owner}` ([[endpoint]] owner = \"{owner}\"), this session \
                 is `{me}`"
            ));
        }
        let written = plan
            .routes
            .iter()
            .flat_map(|r| &r.to)
            .flat_map(TargetPlan::endpoints)
            .any(|to| *to == id);
        match (read, written) {
            (true, true) => explained(
                Status::Ok,
                format!("`{endpoint}` can be sent into and received from"),
            ),
            (false, true) => denied(format!(
                "no route reads `{endpoint}`: add [[route]] from = \"{endpoint}\" to send into it"
            )),
            (true, false) => denied(format!(
                "no route writes `{endpoint}`: add [[route]] to = [\"{endpoint}\"] to receive from it"
            )),
            (false, false) => denied(format!(
                "no route reads or writes `{endpoint}`: add [[route]] from = \"{endpoint}\", or to = [\"{endpoint}\"]"
            )),
        }
    }
}
