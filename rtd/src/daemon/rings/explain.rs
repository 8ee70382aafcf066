//! Why a session has no such endpoint: the rule, in words.

use super::Rings;
use crate::plan::{EndpointKind, ProcessId, TargetPlan};
use rtcore::sys::signame;
use rtcore::wire::Status;

/// An answer to somebody who asks for an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Ok when there is nothing in the way.
    pub status: Status,
    /// The rule.
    pub text: String,
}

impl Rings {
    /// What stands between the process and the endpoint.
    pub fn explain(&self, process: ProcessId, endpoint: &str) -> Explanation {
        let plan = &self.plan;
        let say = |status, text| Explanation { status, text };
        let Some(id) = plan.endpoints.iter().position(|e| e.name == endpoint) else {
            let text = format!("no endpoint is called `{endpoint}`: add [[endpoint]] name = \"{endpoint}\"");
            return say(Status::UnknownName, text);
        };
        let denied = |text| say(Status::Denied, text);
        let found = &plan.endpoints[id];
        let me = &plan.processes[process].name;
        match &found.kind {
            EndpointKind::Mqueue { queue, .. } => {
                let queue = queue.to_string_lossy();
                return denied(format!("`{endpoint}` is an mqueue: mq_open(\"{queue}\")"));
            }
            EndpointKind::Signal { signo, .. } => {
                let way = if plan.routes.iter().any(|route| route.from == id) {
                    "send it to rtd: sigqueue(3)"
                } else {
                    "it comes as a signal: sigwaitinfo(2)"
                };
                return denied(format!(
                    "`{endpoint}` is a signal ({}), not a lane: {way}",
                    signame::name(*signo)
                ));
            }
            EndpointKind::Xddp(port) => {
                return denied(format!(
                    "`{endpoint}` is xddp port {0}, no lane: open(2) /dev/rtp{0}",
                    port.port
                ));
            }
            EndpointKind::Lane(_) => {}
        }
        if found.owner != Some(process) {
            let owner = found.owner.map_or("nobody", |owner| plan.processes[owner].name.as_str());
            return denied(format!(
                "endpoint `{endpoint}` belongs to process `{owner}` ([[endpoint]] owner = \"{owner}\"), this session \
                 is `{me}`"
            ));
        }
        let read = plan.routes.iter().any(|route| route.from == id);
        let written =
            plan.routes.iter().flat_map(|r| &r.to).flat_map(TargetPlan::endpoints).any(|to| *to == id);
        match (read, written) {
            (true, true) => say(Status::Ok, format!("`{endpoint}` can be sent into and received from")),
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
