//! `rtctl flush`: discards the messages that wait in an endpoint's queue, and prints their number.
//!
//! The kernel permits it to every process that may receive from the queue. No ledger counts the
//! messages: rtd had not accepted those of a source yet, and those of a sink were delivered to
//! their receiver's queue. A running rtd is notified, for its log.

use super::send::find;
use crate::words::counted;
use anyhow::{Context as _, bail};
use rtcore::endpoint::{Shown, mqueue};
use rtcore::stats::snapshot::{DaemonState, Snapshot};
use rtcore::sys::mqueue::{Access, Queue};
use rtcore::wire::{Name, Request, Status};
use std::ffi::CString;
use std::path::Path;
use std::time::Duration;

/// Time limit for the daemon's answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Arguments of `rtctl flush`.
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "Discards as many messages as are in the queue when the command starts; messages that arrive meanwhile \
        stay. No ledger changes: rtd has not accepted the messages of a source yet, and those of a sink were \
        delivered.\n\n\
        The instance may be running or killed; the log of a running rtd shows the number of messages and who discarded \
        them. The caller must be allowed to read the queue (`mode` of the endpoint).\n\n\
        To do this at every start of rtd, set flush_at_start = true in the [[endpoint]]."
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
    let Shown::Mqueue(mqueue::Shown { queue: name, .. }) = &endpoint.kind else {
        bail!(
            "{} has no message queue: messages in a ring and pending signals belong to the \
             receiver; end that \
             process to discard them",
            endpoint.name
        );
    };
    let queue = Queue::open(
        &CString::new(name.as_str()).context("queue name")?,
        Access::Receive,
        true,
    )?;
    let flushed = queue.flush()?;
    super::page::print(&format!(
        "flushed {} from {} ({name})\n",
        counted(flushed, "message"),
        endpoint.name
    ))?;
    if flushed > 0
        && snapshot.state != DaemonState::Stopped
        && let Err(why) = report(&snapshot, &endpoint.name, flushed)
    {
        crate::log::print(format_args!("rtctl: rtd's log may not show it: {why}"));
    }
    Ok(())
}

/// Lets rtd log it. The messages are gone, whatever rtd answers.
fn report(rtd: &Snapshot, endpoint: &str, flushed: usize) -> Result<(), String> {
    let endpoint = Name::new(endpoint).map_err(|e| e.to_string())?;
    let messages = u32::try_from(flushed).unwrap_or(u32::MAX);
    let request = Request::Flushed { endpoint, messages };
    match super::register::ask(Path::new(&rtd.socket), &request, PATIENCE)? {
        (_, reply) if reply.status == Status::Ok => Ok(()),
        (_, reply) => Err(reply.text),
    }
}
