//! `rtctl send`: sends messages into an endpoint, at a rate if requested, and prints their outcome.
//!
//! Constraint: it never sleeps in a send. SIGINT ends every wait, and the number of messages sent
//! until then is printed.

use super::payload::PayloadArgs;
use super::verdict::{Verdict, Watch};
use crate::words::alternatives;
use anyhow::{Context as _, bail};
use rtcore::endpoint::{self, Shown};
use rtcore::lane::peer::{PeerState, Reception};
use rtcore::stats::reader::{DaemonState, Endpoint, Snapshot};
use rtcore::sys::mqueue::{self, Access, Queue};
use rtcore::sys::poll::{self, Interest};
use rtcore::sys::rtsignal::{self, SignalSet, TERMINATION};
use rtcore::sys::{Errno, accounts, clock, pidfd::PidFd, procfs};
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// Arguments of `rtctl send`.
#[derive(clap::Args, Clone, Debug)]
#[command(
    override_usage = "rtctl send [OPTIONS] --text TEXT|--hex HEX|--file FILE|--value N ENDPOINT",
    after_help = "The outcome depends on the endpoint:\n\n\
        If a route reads it, the ledger of rtd is compared before and after. The exit status is 1, with the reason, if a \
        message was rejected or expired, or its receiver was gone. If other programs send to the same endpoint, a \
        reported loss may be theirs.\n\n\
        If rtd writes the queue or sends the signal, the message goes to the receiver directly, not through rtd. Nothing \
        more is known.\n\n\
        Sending to a daemon that does not run is refused. With --queue-anyway the message is left in the queue of a \
        daemon that was killed. After a normal stop the statistics page is gone, so the queue cannot be found."
)]
pub struct SendArgs {
    /// Endpoint of the running instance (see rtctl ls)
    endpoint: String,
    #[command(flatten)]
    payload: PayloadArgs,
    /// mq priority of the messages, 0 to 32767
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=32767))]
    priority: u32,
    /// Send RATE messages per second, on an absolute schedule (default: as fast as they are taken)
    #[arg(long, value_parser = rate)]
    rate: Option<f64>,
    /// Send this many messages; 0 = until interrupted
    #[arg(long, default_value_t = 1)]
    count: u64,
    /// Do not wait while the queue is full: count the message as refused
    #[arg(long)]
    nonblock: bool,
    /// Wait up to SECONDS for the outcome; 0 = do not wait
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = wait)]
    wait: f64,
    /// Put the message into the queue even if the daemon does not run; the next daemon takes it
    #[arg(long)]
    queue_anyway: bool,
}

/// The opened target.
enum Channel {
    Queue {
        queue: Queue,
        bytes: Vec<u8>,
        priority: u32,
    },
    Signal {
        process: PidFd,
        signo: i32,
        value: u64,
    },
}

/// Sends, and prints how many messages were taken. An error if some were refused or lost, or if
/// fewer were sent than requested.
pub fn send(instance: &str, args: &SendArgs) -> anyhow::Result<()> {
    let snapshot = super::page::trusted(instance)?;
    let endpoint = find(&snapshot, &args.endpoint)?;
    super::page::reachable(&snapshot, endpoint)?;
    let runs = running(&snapshot, endpoint, args.queue_anyway)?;
    let channel = open(instance, &snapshot, endpoint, args)?;
    let stop = Stop::on_signals()?;
    let waits = runs && args.wait > 0.0;
    let watch = if waits {
        Watch::new(super::page::open(instance)?, &endpoint.name)?
    } else {
        None
    };
    let (mut sent, mut refused) = (0u64, 0u64);
    let start_ns = clock::monotonic_ns();
    let mut failed = None;
    while args.count == 0 || sent + refused < args.count {
        let due_ns = args
            .rate
            .map_or(0, |rate| start_ns + nth_ns(sent + refused, rate));
        if stop.within(due_ns)? {
            break;
        }
        match channel.send() {
            Ok(()) => sent += 1,
            Err(Errno::AGAIN) if channel.waits(args) => stop.or_room(&channel)?,
            Err(Errno::AGAIN) => refused += 1,
            Err(Errno::INTR) => {}
            Err(e) => {
                failed = Some(e);
                break;
            }
        }
    }
    super::page::print(&format!("sent {sent} to {}\n", args.endpoint))?;
    match failed {
        Some(e) => bail!("cannot send to {}: {e} ({e:?})", args.endpoint),
        None if refused > 0 => bail!("{refused} refused: {} is full", args.endpoint),
        None if sent < args.count => bail!("interrupted: {sent} of {} sent", args.count),
        None if sent == 0 => Ok(()),
        None => watch.map_or(Ok(()), |watch| {
            verdict(&watch, &stop, &channel, sent, args.wait)?.report(&args.endpoint)
        }),
    }
}

/// Checks that the daemon runs, unless the user allows otherwise.
fn running(snapshot: &Snapshot, endpoint: &Endpoint, queue_anyway: bool) -> anyhow::Result<bool> {
    if snapshot.state != DaemonState::Stopped {
        return Ok(true);
    }
    match &endpoint.kind {
        Shown::Mqueue(_) if queue_anyway => Ok(false),
        Shown::Mqueue(endpoint::mqueue::Shown { queue, .. }) => bail!(
            "instance {} is not running, so nothing reads {}: start it, or leave the message in {queue} for the next daemon (--queue-anyway)",
            snapshot.instance,
            endpoint.name
        ),
        _ => bail!(
            "instance {} is not running, so nothing reads {}",
            snapshot.instance,
            endpoint.name
        ),
    }
}

/// The outcome of the messages, as far as it is known within the time limit.
fn verdict(
    watch: &Watch,
    stop: &Stop,
    channel: &Channel,
    sent: u64,
    wait_s: f64,
) -> anyhow::Result<Verdict> {
    let until_ns = clock::monotonic_ns() + nth_ns(1, 1.0 / wait_s);
    let is_taken = || match channel {
        Channel::Queue { queue, .. } => queue.attributes().is_ok_and(|now| now.curmsgs == 0),
        Channel::Signal { .. } => true,
    };
    watch.wait(sent, is_taken, |pause| {
        let now_ns = clock::monotonic_ns();
        let pause_ns = clock::nanos(pause);
        Ok(now_ns >= until_ns || stop.within(until_ns.min(now_ns + pause_ns))?)
    })
}

/// SIGINT, SIGTERM and SIGHUP as an event to wait for.
struct Stop {
    set: SignalSet,
    pending: OwnedFd,
}

impl Stop {
    fn on_signals() -> anyhow::Result<Stop> {
        let set = SignalSet::of(TERMINATION);
        set.block().context("cannot block SIGINT")?;
        let pending = set.descriptor().context("cannot wait for SIGINT")?;
        Ok(Stop { set, pending })
    }

    /// Waits until `due_ns`; true if the command must end, once for each signal.
    fn within(&self, due_ns: u64) -> anyhow::Result<bool> {
        loop {
            let left_ns = due_ns.saturating_sub(clock::monotonic_ns());
            match poll::wait(&mut [Interest::readable(self.pending.as_raw_fd())], left_ns) {
                Ok(0) if left_ns == 0 => return Ok(false),
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => {
                    let _ = rtsignal::try_wait(&self.set);
                    return Ok(true);
                }
                Err(e) => bail!("cannot wait: {e}"),
            }
        }
    }

    /// Waits until there is room in the queue, or the command must end.
    fn or_room(&self, channel: &Channel) -> anyhow::Result<()> {
        const LONG_NS: u64 = 3_600_000_000_000;
        let Channel::Queue { queue, .. } = channel else {
            return Ok(());
        };
        let room = Interest::writable(queue.as_raw_fd());
        match poll::wait(
            &mut [room, Interest::readable(self.pending.as_raw_fd())],
            LONG_NS,
        ) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(e) => bail!("cannot wait: {e}"),
        }
    }
}

/// The endpoint with that name, or an error that lists the existing ones.
pub(super) fn find<'a>(snapshot: &'a Snapshot, name: &str) -> anyhow::Result<&'a Endpoint> {
    snapshot
        .endpoints
        .iter()
        .find(|e| e.name == name)
        .with_context(|| {
            let others = alternatives(snapshot.endpoints.iter().map(|e| e.name.as_str()));
            format!(
                "instance {} has no endpoint {name}{others}",
                snapshot.instance
            )
        })
}

fn open(
    instance: &str,
    snapshot: &Snapshot,
    endpoint: &Endpoint,
    args: &SendArgs,
) -> anyhow::Result<Channel> {
    match &endpoint.kind {
        Shown::Mqueue(endpoint::mqueue::Shown { queue, msgsize, .. }) => {
            let bytes = args.payload.bytes()?;
            if bytes.len() > *msgsize as usize {
                bail!(
                    "{} takes {msgsize} bytes, the payload has {}",
                    endpoint.name,
                    bytes.len()
                );
            }
            let name = CString::new(queue.as_str()).context("queue name")?;
            let queue = Queue::open(&name, Access::Send, true)?;
            Ok(Channel::Queue {
                queue,
                bytes,
                priority: args.priority,
            })
        }
        Shown::Signal(endpoint::signal::Shown { signo, .. }) => {
            let value = args.payload.signal_value()?;
            let signo = super::page::signal_of(endpoint, *signo)?;
            Ok(Channel::Signal {
                process: receiver(instance, snapshot, endpoint)?,
                signo,
                value,
            })
        }
        other => bail!(
            "{} {}",
            endpoint.name,
            super::page::closed(other, "write(2)")
        ),
    }
}

/// The process with the pid on the page, and not another one that has inherited it: it is the
/// page's user, and the page still names it after its descriptor was opened.
fn receiver(instance: &str, snapshot: &Snapshot, endpoint: &Endpoint) -> anyhow::Result<PidFd> {
    super::page::same_pid_namespace(snapshot)?;
    let (pid, uid) = addressee(snapshot, endpoint)?;
    let process = PidFd::open(pid)?;
    let status = procfs::status(pid)?;
    let again = super::page::trusted(instance)?;
    let still = addressee(&again, find(&again, &endpoint.name)?)? == (pid, uid);
    if !process.is_alive() || !still {
        bail!("{}: pid {pid} has ended just now: try again", endpoint.name);
    }
    if ![status.ruid, status.euid].contains(&uid) {
        bail!(
            "{}: pid {pid} is uid {}, the page says uid {uid}: another process has that number \
             now; nothing is sent",
            endpoint.name,
            status.ruid
        );
    }
    Ok(process)
}

/// The pid and user of the receiver: a signal that a route reads goes to the daemon; one that
/// routes only write goes to its owner.
fn addressee(snapshot: &Snapshot, endpoint: &Endpoint) -> anyhow::Result<(i32, u32)> {
    let (pid, uid) = if endpoint.is_source {
        (snapshot.pid, Some(snapshot.uid))
    } else {
        let owner = endpoint
            .owner
            .and_then(|o| snapshot.processes.get(o))
            .context("the endpoint has no owner")?;
        if owner.state != PeerState::Alive {
            bail!(
                "{} belongs to {}, which is not registered",
                endpoint.name,
                owner.name
            );
        }
        match endpoint.reception {
            Reception::Takes => {}
            Reception::NotReady => bail!(
                "{}: {} (pid {}) neither blocks nor handles the signal, which would end it: nothing is sent; try again when \
                 it is ready",
                endpoint.name,
                owner.name,
                owner.pid
            ),
            Reception::Ignores => bail!(
                "{}: {} (pid {}) ignores the signal (SIG_IGN): nothing is sent",
                endpoint.name,
                owner.name,
                owner.pid
            ),
        }
        (owner.pid, owner.uid)
    };
    match (i32::try_from(pid), uid) {
        (Ok(pid @ 2..), Some(uid)) => Ok((pid, uid)),
        _ => bail!("the page names pid {pid}, which is not a process, or not of its user"),
    }
}

impl Channel {
    /// Whether to wait for room in a full target: a full signal queue announces no room.
    fn waits(&self, args: &SendArgs) -> bool {
        matches!(self, Channel::Queue { .. }) && !args.nonblock
    }

    fn send(&self) -> Result<(), Errno> {
        match self {
            Channel::Queue {
                queue,
                bytes,
                priority,
            } => mqueue::send(queue.as_raw_fd(), bytes, *priority),
            Channel::Signal {
                process,
                signo,
                value,
            } => {
                let to = process.as_fd().as_raw_fd();
                rtsignal::queue_to_pidfd(
                    to,
                    *signo,
                    *value,
                    std::process::id(),
                    accounts::own_uid(),
                )
            }
        }
    }
}

fn wait(text: &str) -> Result<f64, String> {
    super::seconds_within(text, 0.0, 3600.0)
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(hz) if hz > 0.0 && hz <= 1e6 => Ok(hz),
        _ => Err("a rate is more than 0 and at most 1000000 per second".into()),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "positive; 2^53 ns are 104 days"
)]
#[expect(clippy::cast_precision_loss, reason = "counts past 2^53 do not happen")]
fn nth_ns(n: u64, rate_hz: f64) -> u64 {
    (n as f64 * 1e9 / rate_hz) as u64
}
