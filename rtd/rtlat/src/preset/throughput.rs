//! Messages a second through shared memory, with sender and receiver on different CPUs; the lane of
//! the routed row polls on the other CPU, and its sender and receiver are one thread.

use super::helper::Helper;
use super::lanes::no_second_cpu;
use super::setup::{BYTES, Effort, Setup};
use super::table::{Aim, Findings, Rates};
use crate::control_block::Role;
use crate::role_loops::ThreadPlacement;
use crate::route::{OwnRoute, RoutePath};
use crate::run::Conditions;
use crate::sys::inherited::Inherited;
use anyhow::{Context as _, bail};
use rtcore::client::{Inbox, Incoming, SendError, Sender, Session};
use rtcore::lane::policy::Wait;
use rtcore::sync::{AtomicU64, Ordering};
use rtcore::sys::clock::monotonic_ns;
use rtd::daemon::own::OwnDaemon;
use std::path::Path;

/// Messages of a run for each turn that was asked for; a tenth of it where they are large.
const MESSAGES_PER_TURN: u64 = 25_000;
/// More messages, in turns, say nothing more.
const TURNS_MAX: u64 = 400;
/// Runs of each row, at most.
const RUNS: u64 = 7;
/// Bytes of a large message.
const LARGE: usize = 4096;
/// Slots of a ring.
const SLOTS: usize = 1024;
/// Never more under way than the rings hold: a full receiver is another measurement.
const UNDER_WAY: u64 = 960;
const CLIENT_PRIORITY: u8 = 70;
/// How long a sender waits for its receiver.
const PATIENCE_NS: u64 = 5_000_000_000;

/// Measures the rates, run by run.
pub fn throughput(effort: &Effort, conditions: &mut Conditions) -> anyhow::Result<Findings> {
    let caption = "throughput on two CPUs, millions of messages a second".to_owned();
    let Some(other) = effort.other else {
        return Ok(no_second_cpu(caption));
    };
    let runs = effort.turns.min(RUNS);
    let mut rates = Vec::new();
    for (path, aim, bytes, batch) in [
        ("lane direct, 64 B, one by one", Some(15.0), BYTES, 1),
        ("lane direct, 64 B, batches of 16", Some(15.0), BYTES, 16),
        ("lane direct, 4 KiB, one by one", None, LARGE, 1),
    ] {
        rates.push(of_runs(path, aim, runs, conditions, || {
            direct(effort, other, bytes, batch)
        })?);
    }
    let routed = "lane routed, polling lane, 64 B";
    rates.push(of_runs(routed, Some(4.0), runs, conditions, || {
        routed_rate(effort, other)
    })?);
    Ok(Findings {
        caption,
        rates,
        ..Findings::default()
    })
}

fn of_runs(
    path: &'static str,
    aim: Option<f64>,
    runs: u64,
    conditions: &mut Conditions,
    run: impl Fn() -> anyhow::Result<f64>,
) -> anyhow::Result<Rates> {
    let mut rates = Vec::new();
    for _ in 0..runs {
        if conditions.is_stopped() {
            break;
        }
        rates.push(run()?);
    }
    rates.sort_by(f64::total_cmp);
    Ok(Rates {
        path,
        aim: aim.map(Aim::MillionsPerSecond),
        millions_per_second: rates,
    })
}

fn messages(effort: &Effort, bytes: usize) -> u64 {
    let all = MESSAGES_PER_TURN * effort.turns.min(TURNS_MAX);
    if bytes > BYTES { all / 10 } else { all }
}

#[expect(clippy::cast_precision_loss, reason = "both below 2^53")]
fn rate(count: u64, ns: u64) -> f64 {
    count as f64 * 1e3 / ns.max(1) as f64
}

/// One run from process to process.
fn direct(effort: &Effort, other: usize, bytes: usize, batch: usize) -> anyhow::Result<f64> {
    let routes = [OwnRoute::new(RoutePath::Direct, 0, bytes)?.with_slots(SLOTS)];
    let daemon = Setup {
        name: "rtlat",
        cpu: effort.cpu,
        wait: "block",
        routes: &routes,
        more: "",
        queues: Vec::new(),
    }
    .start()?;
    let count = messages(effort, bytes);
    let socket = daemon.socket().clone();
    let taken_ns = Inherited::<AtomicU64>::new(1)?;
    let placement = ThreadPlacement {
        cpu: Some(other),
        priority: CLIENT_PRIORITY,
    };
    let sink = Helper::start("the receiver", |control| {
        let session = Session::builder("rx0").socket(&socket).connect()?;
        let mut inbox = session.inbox_of(&["rx0.msg"])?;
        inbox.set_wait(Wait::Poll);
        placement.take("rtlat-sink")?;
        control.mark_ready(Role::Receiver);
        taken_ns[0].store(sink(&mut inbox, count)?, Ordering::Release);
        Ok(())
    })?;
    on_a_thread(effort, || {
        let session = Session::builder("tx0").socket(&socket).connect()?;
        let mut sender = session.sender("tx0.msg")?;
        sender
            .wait_for_receiver(monotonic_ns() + PATIENCE_NS)
            .context("nobody receives")?;
        send(&mut sender, count, &vec![1; bytes], batch)
    })?;
    sink.wait()?;
    let ns = taken_ns[0].load(Ordering::Acquire);
    daemon.stop()?;
    Ok(rate(count, ns))
}

/// Takes `count` messages; the time from the send of the first to the last, in ns.
fn sink(inbox: &mut Inbox, count: u64) -> anyhow::Result<u64> {
    let (mut taken, mut first_ns) = (0, 0);
    while taken < count {
        if let Incoming::Message(message) = inbox.recv()? {
            if taken == 0 {
                first_ns = message.sent_ns();
            }
            taken += 1;
        }
    }
    Ok(monotonic_ns().saturating_sub(first_ns).max(1))
}

fn send(sender: &mut Sender, count: u64, payload: &[u8], batch: usize) -> anyhow::Result<()> {
    let many: Vec<&[u8]> = vec![payload; batch];
    let mut sent = 0;
    while sent < count {
        if batch > 1 {
            let left = usize::try_from(count - sent)?.min(batch);
            sent += sender.send_batch(many[..left].iter().copied()).sent as u64;
            continue;
        }
        match sender.try_send(payload) {
            Ok(_) => sent += 1,
            Err(SendError::Full { .. }) => std::hint::spin_loop(),
            Err(e) => bail!("cannot send: {e}"),
        }
    }
    Ok(())
}

/// One run through a polling lane, and back to the thread that sends.
fn routed_rate(effort: &Effort, other: usize) -> anyhow::Result<f64> {
    let routes = [OwnRoute::new(RoutePath::Lane, 0, BYTES)?.with_slots(SLOTS)];
    let daemon: OwnDaemon = Setup {
        name: "rtlat",
        cpu: other,
        wait: "poll",
        routes: &routes,
        more: "",
        queues: Vec::new(),
    }
    .start()?;
    let (count, socket) = (messages(effort, BYTES), daemon.socket().clone());
    let ns = on_a_thread(effort, || through_a_lane(&socket, count))?;
    daemon.stop()?;
    Ok(rate(count, ns))
}

fn through_a_lane(socket: &Path, count: u64) -> anyhow::Result<u64> {
    let receiver = Session::builder("rx0").socket(socket).connect()?;
    let mut inbox = receiver.inbox_of(&["rx0.msg"])?;
    let session = Session::builder("tx0").socket(socket).connect()?;
    let mut sender = session.sender("tx0.msg")?;
    let (mut sent, mut taken) = (0, 0);
    let begun_ns = monotonic_ns();
    while taken < count {
        for _ in 0..BYTES {
            if sent < count && sent - taken < UNDER_WAY && sender.try_send(&[1; BYTES]).is_ok() {
                sent += 1;
            }
        }
        while let Some(incoming) = inbox.try_recv()? {
            taken += u64::from(matches!(incoming, Incoming::Message(_)));
        }
    }
    Ok(monotonic_ns() - begun_ns)
}

/// Does it on a real-time thread of the shared CPU, which has ended when this returns: forks come
/// after it.
fn on_a_thread<T: Send>(
    effort: &Effort,
    work: impl FnOnce() -> anyhow::Result<T> + Send,
) -> anyhow::Result<T> {
    let placement = effort.placement(CLIENT_PRIORITY);
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            placement.take("rtlat-rate")?;
            work()
        });
        thread
            .join()
            .unwrap_or_else(|_| bail!("the sending thread panicked"))
    })
}
