//! The demo's programs: each a process of its own that knows nothing but `mq_open`, `sigqueue` and
//! `sigwaitinfo`. They measure one-way latency from the intended send time, which travels in the message.

use super::report::{Lane, Phase, Report};
use anyhow::Context as _;
use rtcore::sys::mqueue::{self, Access, Queue};
use rtcore::sys::poll::{self, Interest};
use rtcore::sys::rtsignal::{self, SignalSet};
use rtcore::sys::{Errno, clock, sched};
use serde::{Deserialize, Serialize};
use std::ffi::CString;
use std::os::fd::{AsRawFd, RawFd};

/// When what happens, CLOCK_MONOTONIC; the same in every process.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Schedule {
    /// First phase: without the flood.
    pub start_ns: u64,
    /// Second phase: with it.
    pub flood_ns: u64,
    /// Senders end.
    pub end_ns: u64,
}

impl Schedule {
    /// Two halves of `seconds`, after `lead_ns`.
    pub fn from_now(lead_ns: u64, seconds: u64) -> Schedule {
        let start_ns = clock::monotonic_ns() + lead_ns;
        let half_ns = seconds * 500_000_000;
        Schedule { start_ns, flood_ns: start_ns + half_ns, end_ns: start_ns + 2 * half_ns }
    }

    fn phase(&self, at_ns: u64) -> Phase {
        if at_ns < self.flood_ns { Phase::Quiet } else { Phase::Flood }
    }
}

/// Which program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Takes commands on one thread and the stop signal on another.
    Drive,
    /// Reads telemetry at ordinary priority.
    Logger,
    /// The 1 kHz control loop.
    Controller,
    /// Telemetry: now and then, then as fast as the queue takes it.
    Sensors,
    /// Presses e-stop.
    Button,
}

impl Role {
    /// All, receivers first.
    pub const ALL: [Role; 5] = [Role::Drive, Role::Logger, Role::Controller, Role::Sensors, Role::Button];

    /// Process name, as in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Role::Drive => "drive",
            Role::Logger => "logger",
            Role::Controller => "controller",
            Role::Sensors => "sensors",
            Role::Button => "button",
        }
    }

    /// The role of that name.
    pub fn of(name: &str) -> Option<Role> {
        Role::ALL.into_iter().find(|role| role.name() == name)
    }

    /// What its queue is called, where it has one.
    pub fn endpoint(self) -> Option<&'static str> {
        match self {
            Role::Drive => Some("cmd.out"),
            Role::Logger => Some("data.out"),
            Role::Controller => Some("cmd.in"),
            Role::Sensors => Some("data.in"),
            Role::Button => None,
        }
    }

    /// Ends by the schedule; the others are told to.
    pub fn is_sender(self) -> bool {
        !matches!(self, Role::Drive | Role::Logger)
    }

    /// Reports it makes.
    pub fn reports(self) -> usize {
        if self == Role::Drive { 2 } else { 1 }
    }
}

const COMMAND_PERIOD_NS: u64 = 1_000_000;
/// A prime number of microseconds: presses wander over the control cycle.
const PRESS_PERIOD_NS: u64 = 9_973_000;
const TELEMETRY_PERIOD_NS: u64 = 5_000_000;
const MESSAGE_BYTES: usize = 64;

/// FIFO priorities below the lanes' (decision: a lane is a ceiling). Not granted is no error here: the
/// demo's head says what is degraded.
const DRIVE_STOP_PRIORITY: u8 = 85;
const DRIVE_PRIORITY: u8 = 65;

/// A role that has all it needs but the schedule.
#[derive(Debug)]
pub struct Ready {
    role: Role,
    queue: Option<Queue>,
    stop_signal: SignalSet,
    daemon_pid: i32,
}

/// Opens and blocks what the role needs. Before its registration: from then on signals come.
pub fn prepare(role: Role, queue: &str, daemon_pid: i32) -> anyhow::Result<Ready> {
    let stop_signal = SignalSet::of([rtsignal::rt_range().0 + 2]);
    stop_signal.block().context("cannot block the stop signal")?;
    let queue = match role {
        Role::Button => None,
        Role::Drive | Role::Logger => Some(open(queue, Access::Receive, true)?),
        Role::Controller => Some(open(queue, Access::Send, true)?),
        // The flood goes as fast as the daemon takes it, so it waits for room.
        Role::Sensors => Some(open(queue, Access::Send, false)?),
    };
    Ok(Ready { role, queue, stop_signal, daemon_pid })
}

impl Ready {
    /// Plays the role to its end.
    pub fn play(self, schedule: Schedule) -> anyhow::Result<Vec<Report>> {
        Ok(match self.role {
            Role::Button => vec![self.button(schedule)?],
            Role::Controller => vec![self.controller(schedule)?],
            Role::Sensors => vec![self.sensors(schedule)?],
            Role::Drive => self.drive(schedule)?,
            Role::Logger => vec![receive(self.queue()?, schedule, Lane::Telemetry)?],
        })
    }

    fn queue(&self) -> anyhow::Result<&Queue> {
        self.queue.as_ref().context("this part has no queue")
    }

    /// One press every ten milliseconds or so: `sigqueue(rtd, SIGRTMIN+1, time)`.
    fn button(&self, schedule: Schedule) -> anyhow::Result<Report> {
        let signo = rtsignal::rt_range().0 + 1;
        let _ = sched::set_fifo(DRIVE_PRIORITY);
        let mut report = Report::new(Lane::Estop)?;
        periodic(schedule.start_ns, schedule.end_ns, PRESS_PERIOD_NS, |intended_ns| {
            report.sent_or_refused(rtsignal::queue_to_pid(self.daemon_pid, signo, intended_ns));
        });
        Ok(report)
    }

    fn controller(&self, schedule: Schedule) -> anyhow::Result<Report> {
        let _ = sched::set_fifo(DRIVE_PRIORITY);
        let queue = self.queue()?.as_raw_fd();
        let mut report = Report::new(Lane::Control)?;
        periodic(schedule.start_ns, schedule.end_ns, COMMAND_PERIOD_NS, |intended_ns| {
            report.sent_or_refused(mqueue::send(queue, &message(intended_ns), 5));
        });
        Ok(report)
    }

    fn sensors(&self, schedule: Schedule) -> anyhow::Result<Report> {
        let queue = self.queue()?.as_raw_fd();
        let mut report = Report::new(Lane::Telemetry)?;
        periodic(schedule.start_ns, schedule.flood_ns, TELEMETRY_PERIOD_NS, |intended_ns| {
            report.sent_or_refused(mqueue::send(queue, &message(intended_ns), 0));
        });
        clock::sleep_until(schedule.flood_ns);
        loop {
            let now = clock::monotonic_ns();
            if now >= schedule.end_ns {
                return Ok(report);
            }
            report.sent_or_refused(mqueue::send(queue, &message(now), 0));
        }
    }

    /// Commands on one thread, the stop signal on another with a higher priority.
    fn drive(&self, schedule: Schedule) -> anyhow::Result<Vec<Report>> {
        let stop_signal = self.stop_signal;
        let stopper = std::thread::spawn(move || wait_for_stops(&stop_signal, schedule));
        let _ = sched::set_fifo(DRIVE_PRIORITY);
        let commands = receive(self.queue()?, schedule, Lane::Control)?;
        let stops = stopper.join().map_err(|_| anyhow::anyhow!("the drive's stop thread panicked"))??;
        Ok(vec![commands, stops])
    }
}

fn wait_for_stops(stop_signal: &SignalSet, schedule: Schedule) -> anyhow::Result<Report> {
    let _ = sched::set_fifo(DRIVE_STOP_PRIORITY);
    let pending = stop_signal.descriptor()?;
    let mut report = Report::new(Lane::Estop)?;
    until_told(pending.as_raw_fd(), || {
        let got = rtsignal::try_wait(stop_signal)?;
        report.record(schedule.phase(got.value), got.value, clock::monotonic_ns());
        Ok(())
    })
    .context("cannot wait for the stop signal")?;
    Ok(report)
}

fn receive(queue: &Queue, schedule: Schedule, lane: Lane) -> anyhow::Result<Report> {
    let mut report = Report::new(lane)?;
    let mut buffer = [0; MESSAGE_BYTES];
    until_told(queue.as_raw_fd(), || {
        let (len, _) = mqueue::receive(queue.as_raw_fd(), &mut buffer)?;
        let now = clock::monotonic_ns();
        if let Some(stamp) = buffer[..len].first_chunk() {
            let intended_ns = u64::from_ne_bytes(*stamp);
            report.record(schedule.phase(intended_ns), intended_ns, now);
        }
        Ok(())
    })
    .with_context(|| format!("cannot read {}", queue.name().to_string_lossy()))?;
    Ok(report)
}

/// Takes what comes until standard input is closed, and then what is there still.
fn until_told(fd: RawFd, mut take: impl FnMut() -> Result<(), Errno>) -> std::io::Result<()> {
    const LONG_NS: u64 = 3_600_000_000_000;
    let end = Interest::readable(std::io::stdin().as_raw_fd());
    loop {
        match take() {
            Ok(()) | Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => {}
            Err(e) => return Err(e.into()),
        }
        // An interrupted wait only means to look again.
        let _ = poll::wait(&mut [Interest::readable(fd), end], LONG_NS);
        // The parent closes it when everything has arrived: what a last look does not find never was.
        if poll::wait(&mut [end], 0) == Ok(1) {
            loop {
                match take() {
                    Ok(()) | Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => return Ok(()),
                    Err(e) => return Err(e.into()),
                }
            }
        }
    }
}

fn periodic(start_ns: u64, end_ns: u64, period_ns: u64, mut send: impl FnMut(u64)) {
    let mut next_ns = start_ns;
    while next_ns < end_ns {
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
