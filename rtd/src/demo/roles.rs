//! The demo's programs, each a process of its own. The button knows nothing but `sigqueue`; the
//! others link rtcore. They measure one-way latency from the intended send time, which travels with
//! the message.

use super::report::{Lane, Phase, Report};
use rtcore::client::{Inbox, Incoming, RecvError, Sender, Session};
use rtcore::sys::{clock, poll, rtsignal, sched};
use serde::{Deserialize, Serialize};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::thread::JoinHandle;

/// When what happens, CLOCK_MONOTONIC; the same in every process.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Schedule {
    /// First phase: without the flood.
    pub start_ns: u64,
    /// Second phase: with it.
    pub flood_ns: u64,
    pub end_ns: u64,
}

impl Schedule {
    /// Two halves of `seconds`, after `lead_ns`.
    pub fn from_now(lead_ns: u64, seconds: u64) -> Schedule {
        let start_ns = clock::monotonic_ns() + lead_ns;
        let half_ns = seconds * 500_000_000;
        Schedule {
            start_ns,
            flood_ns: start_ns + half_ns,
            end_ns: start_ns + 2 * half_ns,
        }
    }

    fn phase(&self, at_ns: u64) -> Phase {
        if at_ns < self.flood_ns {
            Phase::Quiet
        } else {
            Phase::Flood
        }
    }
}

/// The program of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Takes commands on one thread and the stop on another.
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
    pub const ALL: [Role; 5] = [
        Role::Drive,
        Role::Logger,
        Role::Controller,
        Role::Sensors,
        Role::Button,
    ];

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
const LONG_NS: u64 = 3_600_000_000_000;

/// FIFO priorities below the lanes' (decision: a lane is a ceiling). Not granted is no error here:
/// the demo's head says what is degraded.
const DRIVE_STOP_PRIORITY: u8 = 85;
const DRIVE_PRIORITY: u8 = 65;

/// A role that has all it needs but the schedule.
#[derive(Debug)]
pub enum Ready {
    /// Without the library.
    Button {
        /// Whom it signals.
        daemon_pid: i32,
    },
    Controller(Session, Sender),
    Sensors(Session, Sender),
    /// Receives by one thread per inbox.
    Receives(Session, Vec<Receiver>),
}

/// What one thread receives.
#[derive(Debug)]
pub struct Receiver {
    inbox: Inbox,
    lane: Lane,
    /// SCHED_FIFO, below the lane's; none = ordinary.
    priority: Option<u8>,
}

/// Takes the role's name and its endpoints.
pub fn prepare(role: Role, socket: &Path, daemon_pid: i32) -> anyhow::Result<Ready> {
    let connect = || Session::builder(role.name()).socket(socket).connect();
    let sender = |endpoint| {
        let session = connect()?;
        let sender = session.sender(endpoint)?;
        anyhow::Ok((session, sender))
    };
    Ok(match role {
        Role::Button => {
            crate::ctl::register::this_process(socket, role.name())?;
            Ready::Button { daemon_pid }
        }
        Role::Controller => {
            let (session, commands) = sender("controller.cmd")?;
            Ready::Controller(session, commands)
        }
        Role::Sensors => {
            let (session, data) = sender("sensors.data")?;
            Ready::Sensors(session, data)
        }
        Role::Logger => {
            let session = connect()?;
            let data = Receiver::of(&session, "logger.data", Lane::Telemetry, None)?;
            Ready::Receives(session, vec![data])
        }
        Role::Drive => {
            let session = connect()?;
            let commands =
                Receiver::of(&session, "drive.cmd", Lane::Control, Some(DRIVE_PRIORITY))?;
            let stops = Receiver::of(
                &session,
                "drive.stop",
                Lane::Estop,
                Some(DRIVE_STOP_PRIORITY),
            )?;
            Ready::Receives(session, vec![commands, stops])
        }
    })
}

impl Receiver {
    fn of(
        session: &Session,
        endpoint: &str,
        lane: Lane,
        priority: Option<u8>,
    ) -> anyhow::Result<Receiver> {
        Ok(Receiver {
            inbox: session.inbox_of(&[endpoint])?,
            lane,
            priority,
        })
    }
}

impl Ready {
    /// Plays the role to its end.
    pub fn play(self, schedule: Schedule) -> anyhow::Result<Vec<Report>> {
        match self {
            Ready::Button { daemon_pid } => Ok(vec![press(daemon_pid, schedule)?]),
            // A session lasts as long as its name is needed.
            Ready::Controller(_session, commands) => Ok(vec![command(commands, schedule)?]),
            Ready::Sensors(_session, data) => Ok(vec![run_sensors(data, schedule)?]),
            Ready::Receives(session, receivers) => receive_all(session, receivers, schedule),
        }
    }
}

/// One press every ten milliseconds or so: `sigqueue(rtd, SIGRTMIN+1, time)`.
fn press(daemon_pid: i32, schedule: Schedule) -> anyhow::Result<Report> {
    let signo = rtsignal::rt_range().0 + 1;
    let _ = sched::set_fifo(DRIVE_PRIORITY);
    let mut report = Report::new(Lane::Estop)?;
    periodic(
        schedule.start_ns,
        schedule.end_ns,
        PRESS_PERIOD_NS,
        |intended_ns| {
            report.sent_or_refused(rtsignal::queue_to_pid(daemon_pid, signo, intended_ns));
        },
    );
    Ok(report)
}

fn command(mut commands: Sender, schedule: Schedule) -> anyhow::Result<Report> {
    let _ = sched::set_fifo(DRIVE_PRIORITY);
    let mut report = Report::new(Lane::Control)?;
    periodic(
        schedule.start_ns,
        schedule.end_ns,
        COMMAND_PERIOD_NS,
        |intended_ns| {
            report.sent_or_refused(commands.send_at(intended_ns, &message(intended_ns)));
        },
    );
    Ok(report)
}

fn run_sensors(mut data: Sender, schedule: Schedule) -> anyhow::Result<Report> {
    let mut report = Report::new(Lane::Telemetry)?;
    periodic(
        schedule.start_ns,
        schedule.flood_ns,
        TELEMETRY_PERIOD_NS,
        |intended_ns| {
            report.sent_or_refused(data.send_at(intended_ns, &message(intended_ns)));
        },
    );
    clock::sleep_until(schedule.flood_ns);
    loop {
        let now = clock::monotonic_ns();
        if now >= schedule.end_ns {
            return Ok(report);
        }
        // As fast as the daemon takes it: the route blocks, so it waits for room.
        report.sent_or_refused(data.send_at(now, &message(now)));
    }
}

/// Receives until standard input is closed, and then what is there still.
fn receive_all(
    session: Session,
    receivers: Vec<Receiver>,
    schedule: Schedule,
) -> anyhow::Result<Vec<Report>> {
    let spawn = |receiver| std::thread::spawn(move || receive(receiver, schedule));
    let threads: Vec<JoinHandle<_>> = receivers.into_iter().map(spawn).collect();
    // The parent closes it when everything has arrived. An interrupted wait only means to wait
    // again.
    let mut end = [poll::Interest::readable(std::io::stdin().as_raw_fd())];
    while poll::wait(&mut end, LONG_NS) != Ok(1) {}
    // Without their session the inboxes end when they are empty.
    drop(session);
    let join = |thread: JoinHandle<_>| {
        thread
            .join()
            .map_err(|_| anyhow::anyhow!("a receiving thread panicked"))?
    };
    threads.into_iter().map(join).collect()
}

fn receive(receiver: Receiver, schedule: Schedule) -> anyhow::Result<Report> {
    let Receiver {
        mut inbox,
        lane,
        priority,
    } = receiver;
    if let Some(priority) = priority {
        let _ = sched::set_fifo(priority);
    }
    let mut report = Report::new(lane)?;
    loop {
        let message = match inbox.recv() {
            Ok(Incoming::Message(message)) => message,
            Ok(Incoming::Event(_)) => continue,
            Err(RecvError::Disconnected) => {
                report.discarded = inbox.counters().expired;
                return Ok(report);
            }
            Err(e @ (RecvError::Forked { .. } | RecvError::Woken)) => return Err(e.into()),
        };
        let now = message.received_ns();
        // The button's only word is its value; the others say it twice.
        if let Some(stamp) = message.bytes().first_chunk() {
            let intended_ns = u64::from_ne_bytes(*stamp);
            report.record(schedule.phase(intended_ns), intended_ns, now);
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
