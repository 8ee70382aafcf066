//! `rtctl send`: a message into an endpoint by hand, at a rate if asked for.

use super::payload::PayloadArgs;
use anyhow::{Context as _, bail};
use rtcore::lane::peer::PeerState;
use rtcore::stats::reader::{DaemonState, Endpoint, EndpointKind, Snapshot};
use rtcore::sys::mqueue::{self, Access, Queue};
use rtcore::sys::{Errno, clock, rtsignal};
use std::ffi::CString;
use std::os::fd::AsRawFd;

/// Arguments of `rtctl send`.
#[derive(clap::Args, Clone, Debug)]
pub struct SendArgs {
    /// Endpoint of the running instance (see rtctl ls)
    endpoint: String,
    #[command(flatten)]
    payload: PayloadArgs,
    /// mq priority, 0 to 32767
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=32767))]
    priority: u32,
    /// Messages per second, on an absolute schedule (default: as fast as they are taken)
    #[arg(long, value_parser = rate)]
    rate: Option<f64>,
    /// How many; 0 = until interrupted
    #[arg(long, default_value_t = 1)]
    count: u64,
    /// Do not wait while the queue is full: count the message as refused
    #[arg(long)]
    nonblock: bool,
}

/// Where it goes, opened.
enum Channel {
    Queue { queue: Queue, bytes: Vec<u8>, priority: u32 },
    Signal { pid: i32, signo: i32, value: u64 },
}

/// Sends, and prints how many were taken. An error when some were refused.
pub fn send(instance: &str, args: &SendArgs) -> anyhow::Result<()> {
    let snapshot = super::page::open(instance)?.snapshot()?;
    let endpoint = find(&snapshot, &args.endpoint)?;
    let channel = open(&snapshot, endpoint, args)?;
    let (mut sent, mut refused) = (0u64, 0u64);
    let start_ns = clock::monotonic_ns();
    while args.count == 0 || sent + refused < args.count {
        if let Some(rate) = args.rate {
            clock::sleep_until(start_ns + nth_ns(sent + refused, rate));
        }
        match channel.send() {
            Ok(()) => sent += 1,
            Err(Errno::AGAIN) => refused += 1,
            Err(Errno::INTR) => {}
            Err(e) => bail!("cannot send to {}: {e} ({e:?})", args.endpoint),
        }
    }
    println!("sent {sent} to {}", args.endpoint);
    if refused > 0 {
        bail!("{refused} refused: {} is full", args.endpoint);
    }
    Ok(())
}

/// The endpoint of that name, or an error that lists those there are.
pub(super) fn find<'a>(snapshot: &'a Snapshot, name: &str) -> anyhow::Result<&'a Endpoint> {
    snapshot.endpoints.iter().find(|e| e.name == name).with_context(|| {
        let names: Vec<&str> = snapshot.endpoints.iter().map(|e| e.name.as_str()).collect();
        format!("instance {} has no endpoint {name}; it has: {}", snapshot.instance, names.join(", "))
    })
}

fn open(snapshot: &Snapshot, endpoint: &Endpoint, args: &SendArgs) -> anyhow::Result<Channel> {
    match &endpoint.kind {
        EndpointKind::Mqueue { queue, msgsize, .. } => {
            let bytes = args.payload.bytes()?;
            if bytes.len() > *msgsize as usize {
                bail!("{} takes {msgsize} bytes, the payload has {}", endpoint.name, bytes.len());
            }
            let name = CString::new(queue.as_str()).context("queue name")?;
            let queue = Queue::open(&name, Access::Send, args.nonblock)?;
            Ok(Channel::Queue { queue, bytes, priority: args.priority })
        }
        EndpointKind::Signal { signo, .. } => {
            let value = args.payload.signal_value()?;
            Ok(Channel::Signal { pid: signal_pid(snapshot, endpoint)?, signo: *signo, value })
        }
        EndpointKind::Unknown(_) => bail!("{} is of a kind this rtctl does not know", endpoint.name),
    }
}

/// A signal that a route reads goes to the daemon; one that routes only write goes to its owner.
fn signal_pid(snapshot: &Snapshot, endpoint: &Endpoint) -> anyhow::Result<i32> {
    let pid = if endpoint.is_source {
        if snapshot.state == DaemonState::Stopped {
            bail!("instance {} is not running: nobody takes the signal", snapshot.instance);
        }
        snapshot.pid
    } else {
        let owner =
            endpoint.owner.and_then(|o| snapshot.processes.get(o)).context("the endpoint has no owner")?;
        if owner.state != PeerState::Alive {
            bail!("{} belongs to {}, which is not registered", endpoint.name, owner.name);
        }
        owner.pid
    };
    match i32::try_from(pid) {
        // 0 and negative numbers address process groups: never from a page.
        Ok(pid) if pid > 1 => Ok(pid),
        _ => bail!("the page names pid {pid}, which is no process"),
    }
}

impl Channel {
    fn send(&self) -> Result<(), Errno> {
        match self {
            Channel::Queue { queue, bytes, priority } => mqueue::send(queue.as_raw_fd(), bytes, *priority),
            Channel::Signal { pid, signo, value } => rtsignal::queue_to_pid(*pid, *signo, *value),
        }
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(hz) if hz > 0.0 && hz <= 1e6 => Ok(hz),
        _ => Err("a rate is more than 0 and at most 1000000 per second".into()),
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive; 2^53 ns are 104 days")]
#[expect(clippy::cast_precision_loss, reason = "counts past 2^53 do not happen")]
fn nth_ns(n: u64, rate_hz: f64) -> u64 {
    (n as f64 * 1e9 / rate_hz) as u64
}
