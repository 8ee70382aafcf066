//! `rtlat interferer KIND`: one process of a condition. It prepares, says `ready`, works until
//! SIGTERM, and prints its count of work, so that a condition without effect is noticed.

use anyhow::{Context as _, bail};
use rtcore::client::Session;
use rtcore::stats::reader::Reader;
use rtcore::sys::epoll::StopSignals;
use rtcore::sys::mqueue::{self, Access, Queue};
use rtcore::sys::poll::{self, Interest};
use rtcore::sys::{Errno, clock, process, sched};
use rtd::child::own_binary;
use std::ffi::CString;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

/// Bytes of a telemetry message, and of one to a stopped client.
pub const MESSAGE_BYTES: usize = 64;
/// How often the feeder sends. No multiple of anybody's schedule: two that are in step meet at
/// every message or at none, which depends on when they began.
const FEED_NS: u64 = 1_013_000;
/// How often a worker that only waits checks whether it must end.
const POLL_NS: u64 = 20_000_000;
/// As long as it takes.
const FOREVER_NS: u64 = u64::MAX;
/// Messages between two checks whether it must end.
const BATCH: u64 = 64;
/// How long a session waits for a name that somebody is just losing.
const PATIENCE: Duration = Duration::from_secs(10);

/// The work of an interferer.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Fills the telemetry queue.
    Flood,
    /// Empties the queue that telemetry comes out of.
    Drain,
    /// Sends to the client that is stopped, about every millisecond.
    Feed,
    /// Registers, and is stopped.
    Hold,
    /// Starts an incarnation, kills it, and so on.
    Churn,
    /// Registers, opens both its endpoints, sends itself a message.
    Incarnation,
    /// Reads the statistics page, again and again.
    Outsider,
}

impl Role {
    fn text(self) -> String {
        clap::ValueEnum::to_possible_value(&self)
            .map_or_else(String::new, |v| v.get_name().to_owned())
    }
}

/// Arguments of the hidden subcommand `interferer`.
#[derive(clap::Args, Clone, Debug)]
pub struct InterfererArgs {
    /// What to do
    role: Role,
    /// Process to end with
    #[arg(long)]
    parent: u32,
    /// Instance of the daemon
    #[arg(long)]
    instance: String,
    /// Its control socket
    #[arg(long)]
    socket: PathBuf,
}

/// The arguments of one, as words.
pub fn words(role: Role, instance: &str, socket: &std::path::Path) -> Vec<String> {
    let parent = std::process::id().to_string();
    let socket = socket.display().to_string();
    [
        "interferer",
        &role.text(),
        "--parent",
        &parent,
        "--instance",
        instance,
        "--socket",
        &socket,
    ]
    .map(str::to_owned)
    .to_vec()
}

/// The queues of the telemetry lane.
pub fn telemetry_queues(instance: &str) -> [String; 2] {
    ["telemetry-in", "telemetry-out"].map(|end| format!("/{instance}-{end}"))
}

/// Does the work.
pub fn interfere(args: &InterfererArgs) -> anyhow::Result<()> {
    let stop = StopSignals::block().context("cannot take SIGTERM")?;
    // It blocks SIGTERM, may wait in a full queue or for a daemon that hangs, and one of them is
    // stopped.
    process::be_killed_with_parent(args.parent)
        .with_context(|| format!("pid {} is gone", args.parent))?;
    sched::set_name(&format!("i-{}", args.role.text()));
    let [into, out_of] = telemetry_queues(&args.instance);
    let count = match args.role {
        Role::Flood => flood(&into, &stop)?,
        Role::Drain => drain(&out_of, &stop)?,
        Role::Feed => feed(args, &stop)?,
        Role::Hold => hold(args, &stop)?,
        Role::Churn => churn(args, &stop)?,
        Role::Incarnation => incarnation(args, &stop)?,
        Role::Outsider => read(args, &stop)?,
    };
    print_line(&count.to_string())
}

fn print_line(line: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .context("nobody listens")
}

fn is_over(stop: &StopSignals) -> bool {
    stop.take().is_some()
}

fn session(args: &InterfererArgs, name: &str) -> anyhow::Result<Session> {
    let session = Session::builder(name)
        .socket(&args.socket)
        .timeout(PATIENCE)
        .connect();
    session.with_context(|| format!("cannot become `{name}`"))
}

/// Blocks in a full queue until the lane has made room: as fast as the lane goes.
fn flood(queue: &str, stop: &StopSignals) -> anyhow::Result<u64> {
    let queue = Queue::open(&CString::new(queue)?, Access::Send, false)?;
    let message = [0; MESSAGE_BYTES];
    let mut sent = 0;
    print_line("ready")?;
    while !is_over(stop) {
        for _ in 0..BATCH {
            match mqueue::send(queue.as_raw_fd(), &message, 0) {
                Ok(()) => sent += 1,
                Err(Errno::INTR) => {}
                Err(e) => bail!("cannot send telemetry: {}", std::io::Error::from(e)),
            }
        }
    }
    Ok(sent)
}

fn drain(queue: &str, stop: &StopSignals) -> anyhow::Result<u64> {
    let queue = Queue::open(&CString::new(queue)?, Access::Receive, true)?;
    let mut message = vec![0; queue.attributes()?.msgsize.max(MESSAGE_BYTES)];
    let mut received = 0_u64;
    print_line("ready")?;
    loop {
        match mqueue::receive(queue.as_raw_fd(), &mut message) {
            Ok(_) => received += 1,
            Err(Errno::AGAIN) => {
                let _ = poll::wait(&mut [Interest::readable(queue.as_raw_fd())], POLL_NS);
            }
            Err(Errno::INTR) => {}
            Err(e) => bail!("cannot receive telemetry: {}", std::io::Error::from(e)),
        }
        if received.is_multiple_of(BATCH) && is_over(stop) {
            return Ok(received);
        }
    }
}

/// Sends messages to a stopped client; the lane of the daemon applies its overflow policy to them.
fn feed(args: &InterfererArgs, stop: &StopSignals) -> anyhow::Result<u64> {
    let session = session(args, "feeder")?;
    let mut sender = session.sender("feeder.msg")?;
    sender.wait_for_receiver(clock::monotonic_ns() + clock::nanos(PATIENCE))?;
    let message = [0; MESSAGE_BYTES];
    let (mut sent, mut next_ns) = (0, clock::monotonic_ns());
    print_line("ready")?;
    while !is_over(stop) {
        next_ns += FEED_NS;
        clock::sleep_until(next_ns);
        // A ring that is full has nothing to do with the stopped one: the lane reads it.
        sent += u64::from(sender.try_send(&message).is_ok());
    }
    Ok(sent)
}

/// Does nothing: the parent stops it by SIGSTOP, and it reads no message before or after that.
fn hold(args: &InterfererArgs, stop: &StopSignals) -> anyhow::Result<u64> {
    let session = session(args, "stopped")?;
    let _inbox = session.inbox_of(&["stopped.msg"])?;
    print_line("ready")?;
    while !is_over(stop) {
        clock::sleep_until(clock::monotonic_ns() + POLL_NS);
    }
    Ok(0)
}

/// Kills each as soon as it takes part. One that does not come so far, because the daemon hangs,
/// does not delay the end.
fn churn(args: &InterfererArgs, stop: &StopSignals) -> anyhow::Result<u64> {
    let mut deaths = 0;
    while !is_over(stop) {
        let mut command = own_binary()?;
        command
            .args(words(Role::Incarnation, &args.instance, &args.socket))
            .stdout(Stdio::piped());
        let mut child = command.spawn().context("cannot start an incarnation")?;
        let out = child
            .stdout
            .take()
            .context("an incarnation has no output")?;
        let mut either = [
            Interest::readable(out.as_raw_fd()),
            Interest::readable(stop.as_fd().as_raw_fd()),
        ];
        while poll::wait(&mut either, FOREVER_NS) == Err(Errno::INTR) {}
        let ends = is_over(stop);
        let mut line = String::new();
        if !ends {
            BufReader::new(out).read_line(&mut line)?;
        }
        let _ = child.kill();
        let status = child.wait()?;
        if ends {
            break;
        }
        if line.trim_end() != "ready" {
            bail!("an incarnation ended by itself: {status}");
        }
        deaths += 1;
        if deaths == 1 {
            print_line("ready")?;
        }
    }
    Ok(deaths)
}

fn incarnation(args: &InterfererArgs, stop: &StopSignals) -> anyhow::Result<u64> {
    let session = session(args, "churn")?;
    let mut inbox = session.inbox_of(&["churn.in"])?;
    let mut sender = session.sender("churn.out")?;
    sender.wait_for_receiver(clock::monotonic_ns() + clock::nanos(PATIENCE))?;
    sender.send(&[0; MESSAGE_BYTES])?;
    // It takes part when its message has gone through the lane.
    while inbox.recv()?.message().is_none() {}
    print_line("ready")?;
    while !is_over(stop) {
        sender.try_send(&[0; MESSAGE_BYTES])?;
        inbox.recv_deadline(clock::monotonic_ns() + POLL_NS)?;
    }
    Ok(1)
}

/// Maps the page again from time to time, as a tool that is started again does.
fn read(args: &InterfererArgs, stop: &StopSignals) -> anyhow::Result<u64> {
    let mut reads = 0;
    Reader::open(&args.instance)?.snapshot()?;
    print_line("ready")?;
    while !is_over(stop) {
        let page = Reader::open(&args.instance)?;
        for _ in 0..BATCH {
            page.snapshot()?;
            reads += 1;
        }
    }
    Ok(reads)
}
