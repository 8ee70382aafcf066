//! What a plan means on its skin that its author may not expect, and that no line of the file would change.

use super::{EndpointId, EndpointKind, Plan, TargetPlan};

impl Plan {
    /// One sentence each, for `rtd check` and the start's log.
    pub fn notes(&self) -> Vec<String> {
        let (skin, caps) = (self.daemon.skin.kind.name(), self.daemon.skin.kind.caps());
        let mut notes = Vec::new();
        let is_queue = |kind: &EndpointKind| matches!(kind, EndpointKind::Mqueue { .. });
        if !caps.shared_namespace && self.endpoints.iter().any(|e| is_queue(&e.kind)) {
            notes.push(format!(
                "queues are in the namespace of `{skin}`: programs on it reach them; a plain Linux program (mq_open(3), \
                 /dev/mqueue, rtctl send) sees others, if any, of the same names"
            ));
        }
        let signals = self.sunk(|kind| matches!(kind, EndpointKind::Signal { .. }));
        if !caps.passes_origin && !signals.is_empty() {
            notes.push(format!(
                "a receiver of {signals} sees the lane's thread as the sender (si_pid: its thread id, si_uid: rtd's), not the process that sent the message: on `{skin}` the core writes the origin"
            ));
        }
        let ports = |id: &EndpointId| match &self.endpoints.get(*id)?.kind {
            EndpointKind::Xddp(port) => Some(self.daemon.skin.device(port.port)),
            _ => None,
        };
        let read: Vec<String> = self.sources.iter().filter_map(|source| ports(&source.endpoint)).collect();
        if !read.is_empty() {
            let read = read.join(", ");
            notes.push(format!(
                "messages from {read} have no origin: every program that may open the device can send them"
            ));
        }
        let written = self.sunk(|kind| matches!(kind, EndpointKind::Xddp(_)));
        if !written.is_empty() {
            notes.push(format!(
                "the core drops unread messages of {written} when the Linux program closes the device, and when rtd stops"
            ));
        }
        notes
    }

    /// Names of the endpoints of a kind that some route sends to.
    fn sunk(&self, is: impl Fn(&EndpointKind) -> bool) -> String {
        let sunk: Vec<&EndpointId> =
            self.routes.iter().flat_map(|route| &route.to).flat_map(TargetPlan::endpoints).collect();
        let named = self.endpoints.iter().enumerate().filter(|(id, e)| is(&e.kind) && sunk.contains(&id));
        named.map(|(_, endpoint)| format!("`{}`", endpoint.name)).collect::<Vec<_>>().join(", ")
    }
}
