//! The log's lines about messages that `rtctl flush` discarded.
//!
//! `rtctl` takes the messages itself, so that the kernel checks the permission, and reports their
//! number. rtd accepts the report only from a process that may read the queue.

use super::policy::Refusal;
use crate::endpoint::EndpointKind;
use crate::plan::Plan;
use crate::words::counted;
use rtcore::sys::mqueue::{Access, Queue};
use rtcore::sys::seqpacket::PeerCred;
use rtcore::wire::{Name, Status};
use std::ffi::CString;

/// The message queues of the plan.
#[derive(Debug)]
pub(super) struct Queues(Vec<(String, CString)>);

impl Queues {
    pub fn of(plan: &Plan) -> Queues {
        let queues = plan
            .endpoints
            .iter()
            .filter_map(|endpoint| match &endpoint.kind {
                EndpointKind::Mqueue(plan) => Some((endpoint.name.clone(), plan.queue.clone())),
                _ => None,
            });
        Queues(queues.collect())
    }

    /// The line for the log.
    pub fn flushed(&self, by: &PeerCred, endpoint: Name, messages: u32) -> Result<String, Refusal> {
        let named = self.0.iter().find(|(name, _)| name == endpoint.as_str());
        let Some((_, queue)) = named else {
            let text = format!("flushed: no endpoint {endpoint} of kind mqueue");
            return Err(Refusal::new(Status::UnknownName, text));
        };
        let shown = queue.to_string_lossy();
        let status = Queue::open(queue, Access::Receive, true).and_then(|queue| queue.status());
        let status = status.map_err(|e| Refusal::new(Status::Failed, format!("flushed: {e}")))?;
        let PeerCred {
            pid,
            uid,
            gid,
            groups,
        } = by;
        if !status.may_be_read_by(*uid, *gid, groups) {
            let text = format!(
                "flushed: uid {uid} may not read message queue {shown}, whose mode is {:04o}",
                status.mode & 0o7777
            );
            return Err(Refusal::new(Status::Denied, text));
        }
        let who = match pid {
            0 => format!("a process of another pid namespace (uid {uid})"),
            pid => format!("pid {pid} (uid {uid})"),
        };
        Ok(format!(
            "message queue {shown}: {who} flushed {} that waited in it (rtctl flush {endpoint})",
            counted(messages, "message")
        ))
    }
}
