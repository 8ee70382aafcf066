//! The demo's programs: each a process of its own that knows nothing but `mq_open`, `sigqueue` and
//! `sigwaitinfo`. They measure one-way latency from the intended send time, which travels in the message.

use super::report::{Lane, Phase, Report};
use anyhow::Context as _;
use rtcore::sys::mqueue::{self, Access, Queue};
use rtcore::sys::rtsignal::{self, SignalSet};
use rtcore::sys::{Errno, clock, sched};
use std::ffi::CString;
use std::os::fd::AsRawFd;

/// When what happens, CLOCK_MONOTONIC; the same in every process.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// First phase: without the flood.
    pub start_ns: u64,
    /// Second phase: with it.
    pub flood_ns: u64,
    /// Everybody ends.
    pub end_ns: u64,
}

/// What a role needs to know.
#[derive(Clone, Debug)]
pub struct Part {
    /// Times.
    pub schedule: Schedule,
    /// Queue to open, where the role has one.
    pub queue: String,
    /// Daemon's pid, for the button.
    pub daemon_pid: i32,
}

const COMMAND_PERIOD_NS: u64 = 1_000_000;
/// A prime number of microseconds: presses wander over the control cycle.
const PRESS_PERIOD_NS: u64 = 9_973_000;
const TELEMETRY_PERIOD_NS: u64 = 5_000_000;
const MESSAGE_BYTES: usize = 64;

/// FIFO priorities below the lanes' (decision: a lane is a ceiling). Not granted is no error here: the
/// demo's daemon says what is degraded.
const DRIVE_STOP_PRIORITY: u8 = 85;
const DRIVE_PRIORITY: u8 = 65;

impl Schedule {
    fn phase(&self, at_ns: u64) -> Phase {
        if at_ns < self.flood_ns { Phase::Quiet } else { Phase::Flood }
    }
}

/// One press every ten milliseconds or so: `sigqueue(rtd, SIGRTMIN+1, time)`.
pub fn button(part: &Part) -> anyhow::Result<Report> {
    let signo = rtsignal::rt_range().0 + 1;
    let _ = sched::set_fifo(DRIVE_PRIORITY);
    let mut report = Report::new(None)?;
    periodic(part.schedule, PRESS_PERIOD_NS, |intended_ns| {
        match rtsignal::queue_to_pid(part.daemon_pid, signo, intended_ns) {
            Ok(()) => report.sent += 1,
            Err(_) => report.refused += 1,
        }
    });
    Ok(report)
}

/// The 1 kHz control loop.
pub fn controller(part: &Part) -> anyhow::Result<Report> {
    let _ = sched::set_fifo(DRIVE_PRIORITY);
    send_periodic(part, COMMAND_PERIOD_NS, 5)
}

/// Telemetry: now and then in the first phase, as fast as the queue takes it in the second.
pub fn sensors(part: &Part) -> anyhow::Result<Report> {
    let quiet =
        Part { schedule: Schedule { end_ns: part.schedule.flood_ns, ..part.schedule }, ..part.clone() };
    let mut report = send_periodic(&quiet, TELEMETRY_PERIOD_NS, 0)?;
    let queue = open(&part.queue, Access::Send, false)?;
    while clock::monotonic_ns() < part.schedule.end_ns {
        match mqueue::send(queue.as_raw_fd(), &message(clock::monotonic_ns()), 0) {
            Ok(()) => report.sent += 1,
            Err(_) => report.refused += 1,
        }
    }
    Ok(report)
}

fn send_periodic(part: &Part, period_ns: u64, priority: u32) -> anyhow::Result<Report> {
    let queue = open(&part.queue, Access::Send, true)?;
    let mut report = Report::new(None)?;
    periodic(part.schedule, period_ns, |intended_ns| {
        match mqueue::send(queue.as_raw_fd(), &message(intended_ns), priority) {
            Ok(()) => report.sent += 1,
            Err(_) => report.refused += 1,
        }
    });
    Ok(report)
}

/// The drive: commands on one thread, the stop signal on another with a higher priority.
pub fn drive(part: &Part) -> anyhow::Result<Vec<Report>> {
    let stop = SignalSet::of([rtsignal::rt_range().0 + 2]);
    stop.block().context("cannot block the stop signal")?;
    let schedule = part.schedule;
    let stopper = std::thread::spawn(move || wait_for_stops(schedule, &stop));
    let _ = sched::set_fifo(DRIVE_PRIORITY);
    let commands = receive(part, Lane::Control)?;
    let stops = stopper.join().map_err(|_| anyhow::anyhow!("the drive's stop thread panicked"))??;
    Ok(vec![commands, stops])
}

/// The logger reads telemetry at ordinary priority.
pub fn logger(part: &Part) -> anyhow::Result<Report> {
    receive(part, Lane::Telemetry)
}

fn wait_for_stops(schedule: Schedule, stop: &SignalSet) -> anyhow::Result<Report> {
    let _ = sched::set_fifo(DRIVE_STOP_PRIORITY);
    let pending = stop.descriptor()?;
    let mut report = Report::new(Some(Lane::Estop))?;
    while let Some(left_ns) = left(schedule) {
        match rtsignal::try_wait(stop) {
            Ok(got) => report.record(schedule.phase(got.value), got.value, clock::monotonic_ns()),
            Err(Errno::AGAIN) => await_readable(pending.as_raw_fd(), left_ns),
            Err(Errno::INTR) => {}
            Err(e) => anyhow::bail!("cannot wait for the stop signal: {e}"),
        }
    }
    Ok(report)
}

fn receive(part: &Part, lane: Lane) -> anyhow::Result<Report> {
    let queue = open(&part.queue, Access::Receive, true)?;
    let mut report = Report::new(Some(lane))?;
    let mut buffer = [0; MESSAGE_BYTES];
    while let Some(left_ns) = left(part.schedule) {
        match mqueue::receive(queue.as_raw_fd(), &mut buffer) {
            Ok((len, _)) if len >= 8 => {
                let mut stamp = [0; 8];
                stamp.copy_from_slice(&buffer[..8]);
                let intended_ns = u64::from_ne_bytes(stamp);
                report.record(part.schedule.phase(intended_ns), intended_ns, clock::monotonic_ns());
            }
            Ok(_) => {}
            Err(Errno::AGAIN) => await_readable(queue.as_raw_fd(), left_ns),
            Err(Errno::INTR) => {}
            Err(e) => anyhow::bail!("cannot read {}: {e}", part.queue),
        }
    }
    Ok(report)
}

fn await_readable(fd: std::os::fd::RawFd, limit_ns: u64) {
    // An interrupted wait only means to look again.
    let _ = rtcore::sys::poll::wait(&mut [rtcore::sys::poll::Interest::readable(fd)], limit_ns);
}

/// Time until a receiver ends: a little after the senders, so that it sees their last messages.
fn left(schedule: Schedule) -> Option<u64> {
    const AFTER_NS: u64 = 100_000_000;
    (schedule.end_ns + AFTER_NS).checked_sub(clock::monotonic_ns()).filter(|&n| n > 0)
}

fn periodic(schedule: Schedule, period_ns: u64, mut send: impl FnMut(u64)) {
    let mut next_ns = schedule.start_ns;
    while next_ns < schedule.end_ns {
        clock::sleep_until(next_ns);
        send(next_ns);
        next_ns += period_ns;
    }
}

fn message(intended_ns: u64) -> [u8; MESSAGE_BYTES] {
    let mut bytes = [0; MESSAGE_BYTES];
    bytes[..8].copy_from_slice(&intended_ns.to_ne_bytes());
    bytes
}

fn open(queue: &str, access: Access, nonblocking: bool) -> anyhow::Result<Queue> {
    let name = CString::new(queue).context("queue name")?;
    Ok(Queue::open(&name, access, nonblocking)?)
}
