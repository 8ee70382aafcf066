//! `rtctl flush`: throws away what waits in an endpoint's queue, and prints how much that was.
//!
//! The kernel decides who may: whoever may receive from the queue. The messages are in no ledger afterwards: those of a
//! source were not accepted yet, those of a sink were delivered to their receiver's queue.

use super::send::find;
use anyhow::{Context as _, bail};
use rtcore::stats::reader::EndpointKind;
use rtcore::sys::mqueue::{Access, Queue};
use std::ffi::CString;

/// Arguments of `rtctl flush`.
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "Takes as many messages as wait in the queue at that moment; what arrives meanwhile stays. No ledger\n\
  changes: rtd has not accepted the messages of a source yet, and those of a sink were delivered.\n\
  Also for an instance that was killed. It takes the permission to read the queue (`mode` of the endpoint).\n\
  At every start of rtd: flush_at_start = true in [[endpoint]]."
)]
pub struct FlushArgs {
    /// Endpoint of kind mqueue (see rtctl ls)
    endpoint: String,
}

/// Empties the queue.
pub fn flush(instance: &str, args: &FlushArgs) -> anyhow::Result<()> {
    let snapshot = super::page::trusted(instance)?;
    let endpoint = find(&snapshot, &args.endpoint)?;
    super::page::reachable(&snapshot, endpoint)?;
    let EndpointKind::Mqueue { queue: name, .. } = &endpoint.kind else {
        bail!(
            "{} has no message queue: what waits in a ring or is pending as a signal is with its receiver; end that \
             process to drop it",
            endpoint.name
        );
    };
    let queue = Queue::open(&CString::new(name.as_str()).context("queue name")?, Access::Receive, true)?;
    let flushed = queue.flush()?;
    super::page::print(&format!("flushed {flushed} messages from {} ({name})\n", endpoint.name))?;
    Ok(())
}
