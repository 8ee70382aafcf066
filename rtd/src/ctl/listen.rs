//! `rtctl listen`: prints the messages that arrive at an endpoint, one line each. It takes the
//! messages, as their receiver.

use super::payload::{hex, show};
use super::send::find;
use anyhow::{Context as _, bail};
use rtcore::endpoint::{self, Shown};
use rtcore::lane::peer::PeerState;
use rtcore::stats::reader::{Endpoint, Snapshot};
use rtcore::sys::mqueue::{self, Access, Queue};
use rtcore::sys::rtsignal::{self, SignalSet};
use rtcore::sys::signame;
use rtcore::sys::{Errno, clock, openers};
use serde_json::json;
use std::ffi::CString;
use std::io::Write as _;
use std::os::fd::AsRawFd;
use std::path::Path;

/// Arguments of `rtctl listen`.
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "A message that is printed is taken out of the queue, so no other program receives it. Unless --steal is \
        given, the command refuses a queue that rtd or a process of the configuration reads, registered or not, and a \
        queue that another program has open for reading (/proc/PID/fd; only root sees the programs of other users)."
)]
pub struct ListenArgs {
    /// Endpoint of the running instance (see rtctl ls)
    endpoint: String,
    /// Print one JSON object per message and line
    #[arg(long)]
    json: bool,
    /// Stop after this many messages; 0 = until interrupted
    #[arg(long, default_value_t = 0)]
    count: u64,
    /// Take messages even if rtd or another process reads the queue; that reader does not get them
    #[arg(long)]
    steal: bool,
}

/// Prints messages as they arrive.
pub fn listen(instance: &str, args: &ListenArgs, socket: &Path) -> anyhow::Result<()> {
    let snapshot = super::page::trusted(instance)?;
    let endpoint = find(&snapshot, &args.endpoint)?;
    super::page::reachable(&snapshot, endpoint)?;
    match &endpoint.kind {
        Shown::Mqueue(endpoint::mqueue::Shown { queue, msgsize, .. }) => {
            if endpoint.is_source && !args.steal {
                bail!(
                    "rtd reads {}: listening would take its messages; listen to an endpoint it writes, or use --steal",
                    endpoint.name
                );
            }
            let name = CString::new(queue.as_str()).context("queue name")?;
            let queue = Queue::open(&name, Access::Receive, false)?;
            if !args.steal {
                nobody_reads(&snapshot, endpoint, &queue)?;
            }
            queue_lines(args, &queue, *msgsize as usize)
        }
        Shown::Signal(endpoint::signal::Shown { signo, .. }) => {
            signal_lines(&snapshot, endpoint, *signo, args, socket)
        }
        other => bail!(
            "{} {}",
            endpoint.name,
            super::page::closed(other, "read(2)")
        ),
    }
}

/// Refuses a queue that has another reader: a process in the configuration, registered or not, or a
/// program that has the queue open for reading, as far as /proc shows it.
fn nobody_reads(snapshot: &Snapshot, endpoint: &Endpoint, queue: &Queue) -> anyhow::Result<()> {
    let name = &endpoint.name;
    if let Some(owner) = endpoint
        .owner
        .and_then(|owner| snapshot.processes.get(owner))
    {
        let is = match owner.state {
            PeerState::Alive => format!("pid {}", owner.pid),
            PeerState::Dead | PeerState::Unregistered => "not registered now".to_owned(),
        };
        bail!(
            "{name} is read by {} ({is}): listening would take its messages; listen to an endpoint without owner, or use \
             --steal",
            owner.name
        );
    }
    let openers = openers::of(queue)
        .context("cannot search /proc for other readers (--steal skips the search)")?;
    // rtd has its queues open for both directions, to hold them.
    let others = openers
        .found
        .iter()
        .filter(|other| other.reads && other.pid.unsigned_abs() != snapshot.pid);
    let others: Vec<String> = others
        .map(|other| format!("{} (pid {})", other.comm, other.pid))
        .collect();
    if !others.is_empty() {
        bail!(
            "{name} is open for reading in {}: listening would take its messages; end it first, or use --steal",
            others.join(", ")
        );
    }
    Ok(())
}

fn queue_lines(args: &ListenArgs, queue: &Queue, msgsize: usize) -> anyhow::Result<()> {
    let mut buffer = vec![0; queue.attributes()?.msgsize.max(msgsize)];
    repeat(args, || {
        let (len, priority) = mqueue::receive(queue.as_raw_fd(), &mut buffer)?;
        let bytes = &buffer[..len];
        Ok(if args.json {
            json!({
                "endpoint": args.endpoint, "received_ns": clock::monotonic_ns(), "priority": priority,
                "len": len, "text": std::str::from_utf8(bytes).ok(), "hex": hex(bytes),
            })
            .to_string()
        } else {
            format!(
                "{}: {} ({len} B, priority {priority})",
                args.endpoint,
                show(bytes)
            )
        })
    })
}

fn signal_lines(
    snapshot: &Snapshot,
    endpoint: &Endpoint,
    signo: i32,
    args: &ListenArgs,
    socket: &Path,
) -> anyhow::Result<()> {
    if !endpoint.is_sink {
        bail!(
            "{} is sent to rtd, nothing arrives there; listen to an endpoint that rtd writes",
            endpoint.name
        );
    }
    let owner = endpoint
        .owner
        .and_then(|o| snapshot.processes.get(o))
        .context("the endpoint has no owner")?;
    let set = SignalSet::of([super::page::signal_of(endpoint, signo)?]);
    // Blocked before the registration, because the signal may come from then on.
    set.block()
        .with_context(|| format!("cannot block {}", signame::name(signo)))?;
    super::register::this_process(socket, &owner.name)?;
    repeat(args, || {
        let got = rtsignal::wait(&set)?;
        Ok(if args.json {
            json!({
                "endpoint": args.endpoint, "received_ns": clock::monotonic_ns(), "signo": got.signo,
                "value": got.value, "pid": got.pid, "uid": got.uid,
            })
            .to_string()
        } else {
            format!(
                "{}: {} value {:#x} from pid {} uid {}",
                args.endpoint,
                signame::name(got.signo),
                got.value,
                got.pid,
                got.uid
            )
        })
    })
}

fn repeat(
    args: &ListenArgs,
    mut next: impl FnMut() -> Result<String, Errno>,
) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let mut n = 0;
    while args.count == 0 || n < args.count {
        match next() {
            Ok(line) => {
                n += 1;
                // Flushed line by line, because the reader of a pipe waits for each line. The
                // message is out of its queue now, so if standard output fails, the message goes to
                // standard error.
                if let Err(e) = writeln!(out, "{line}").and_then(|()| out.flush()) {
                    bail!(
                        "took one message that could not be written to standard output ({e}): {line}"
                    );
                }
            }
            Err(Errno::INTR) => {}
            Err(e) => bail!("cannot receive from {}: {e}", args.endpoint),
        }
    }
    Ok(())
}
