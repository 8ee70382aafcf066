//! `rtlat load-worker KIND --parent PID`: one process of load. It prepares, says `ready`, and works
//! until it is killed.

use super::{Kind, WORKERS_MAX};
use crate::sys::null_syscall;
use anyhow::{Context, ensure};
use rtcore::sys::mqueue::{self, Access, Queue};
use rtcore::sys::{futex, process, room, sched};
use std::ffi::CString;
use std::fs::File;
use std::hint::black_box;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Least memory one `memory` worker goes through.
const BUFFER_MIN_BYTES: usize = 64 << 20;
/// Most of it.
const BUFFER_MAX_BYTES: usize = 256 << 20;
/// Caches of the first CPU, one directory per level.
const CACHES: &str = "/sys/devices/system/cpu/cpu0/cache";
const MESSAGE_BYTES: usize = 64;

/// Arguments of the hidden subcommand `load-worker`.
#[derive(clap::Args, Debug)]
pub struct WorkerArgs {
    /// What to do
    kind: Kind,
    /// Process to end with
    #[arg(long, value_name = "PID")]
    parent: u32,
}

/// The worker's command line after `program`.
pub(super) fn command(mut program: Command, kind: Kind) -> Command {
    program
        .args(["load-worker", kind.text(), "--parent"])
        .arg(std::process::id().to_string());
    program
}

/// The work of a worker of the kind, in a few words.
pub(super) fn what(kind: Kind) -> String {
    match kind {
        Kind::Cpu => "integer and float".to_owned(),
        Kind::Memory => format!("{} MiB each, streamed and at random", buffer_bytes() >> 20),
        Kind::Syscall => "getppid, clock_gettime, mmap, /proc/self/stat".to_owned(),
        Kind::Ipc => "pipe, unix socket, mq, futex".to_owned(),
    }
}

/// Refuses `memory` workers that would need more than half of what is available: memory that the
/// load takes from the measured process shows as page faults there, and with more the kernel kills
/// a process.
pub(super) fn ensure_memory(workers: usize) -> anyhow::Result<()> {
    let Some(available_bytes) = available_bytes().filter(|_| workers > 0) else {
        return Ok(());
    };
    let each_bytes = buffer_bytes();
    let possible = (available_bytes / 2 / each_bytes).min(WORKERS_MAX);
    ensure!(
        workers <= possible,
        "--load memory:{workers} needs {} MiB, half of the available memory is {} MiB: {}",
        (each_bytes * workers) >> 20,
        available_bytes >> 21,
        match possible {
            0 => "leave it out".to_owned(),
            n => format!("memory:{n} is the most"),
        }
    );
    Ok(())
}

/// MemAvailable of /proc/meminfo (proc_meminfo(5)).
fn available_bytes() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    usize::try_from(room::mem_available(&text)?).ok()
}

/// Twice the largest cache, within bounds.
pub(super) fn buffer_bytes() -> usize {
    let sizes = (0..8).filter_map(|index| {
        let text = std::fs::read_to_string(format!("{CACHES}/index{index}/size")).ok()?;
        text.trim()
            .strip_suffix('K')?
            .parse::<usize>()
            .ok()?
            .checked_mul(1024)
    });
    sizes
        .max()
        .unwrap_or(0)
        .saturating_mul(2)
        .clamp(BUFFER_MIN_BYTES, BUFFER_MAX_BYTES)
}

/// Does the work; returns only with an error.
///
/// Errors: the parent is gone; no memory, descriptor or queue for the work.
pub fn work(args: &WorkerArgs) -> anyhow::Result<()> {
    // Again, because exec forgets it for a program with file capabilities, which rtlat may be.
    process::die_with_parent(args.parent)
        .with_context(|| format!("rtlat (pid {}) is gone", args.parent))?;
    sched::set_name(&format!("load-{}", args.kind.text()));
    // When memory runs out the load goes first. Not allowed everywhere, and then everybody is
    // equal.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    match args.kind {
        Kind::Cpu => compute(),
        Kind::Memory => read_at_random(),
        Kind::Syscall => call(),
        Kind::Ipc => exchange(),
    }
}

fn announce() -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(b"ready\n")
        .and_then(|()| out.flush())
        .context("rtlat does not listen")
}

/// The next of a sequence that the compiler cannot foresee (xorshift64).
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[expect(clippy::cast_precision_loss, reason = "any number will do")]
fn compute() -> anyhow::Result<()> {
    let (mut state, mut sum) = (0x9e37_79b9_7f4a_7c15, 0.0_f64);
    announce()?;
    loop {
        for _ in 0..1000 {
            let number = next(&mut state);
            sum = (sum + (number % 1009) as f64).sqrt() * 1.000_1 + (number >> 40) as f64 / 3.0;
        }
        black_box((state, sum));
    }
}

fn read_at_random() -> anyhow::Result<()> {
    const RANDOM_ACCESSES: usize = 1 << 20;
    let words = buffer_bytes() / size_of::<u64>();
    // Written, so that each page is there before the measurement begins.
    let mut buffer: Vec<u64> = (0..words as u64).collect();
    let mut state = 0x9e37_79b9_7f4a_7c15;
    announce()?;
    loop {
        let (target, rest) = buffer.split_at_mut(words / 3);
        let (first, second) = rest.split_at(words / 3);
        for ((target, first), second) in target.iter_mut().zip(first).zip(second) {
            *target = first.wrapping_add(second.wrapping_mul(3));
        }
        for _ in 0..RANDOM_ACCESSES {
            let at = usize::try_from(next(&mut state) % words as u64)?;
            buffer[at] = buffer[at].wrapping_add(1);
        }
        black_box(&mut buffer);
    }
}

fn call() -> anyhow::Result<()> {
    let mut text = [0; 512];
    announce()?;
    loop {
        null_syscall::round()?;
        let mut stat = File::open("/proc/self/stat").context("/proc/self/stat")?;
        black_box(stat.read(&mut text).context("/proc/self/stat")?);
    }
}

/// The objects between the two threads of an `ipc` worker. A message goes round: there by pipe,
/// back by socket, there by message queue, back by futex.
struct Shared {
    queue: Queue,
    /// Rounds that the partner has finished.
    rounds: AtomicU32,
}

fn exchange() -> anyhow::Result<()> {
    let shared = Arc::new(Shared {
        queue: private_queue()?,
        rounds: AtomicU32::new(0),
    });
    let (pipe_reader, pipe) = std::io::pipe().context("cannot make a pipe")?;
    let (socket, partner_socket) = UnixStream::pair().context("cannot make a socket pair")?;
    let theirs = Arc::clone(&shared);
    let partner = std::thread::Builder::new().name("load-ipc".to_owned());
    partner
        .spawn(move || {
            let error = answer(&theirs, pipe_reader, partner_socket).err();
            // Without its partner the other one would wait for ever.
            eprintln!(
                "ipc: {}",
                error.map_or_else(String::new, |e| format!("{e:#}"))
            );
            std::process::exit(1);
        })
        .context("cannot start a second thread")?;
    announce()?;
    ask(&shared, pipe, socket)
}

fn ask(shared: &Shared, mut pipe: PipeWriter, mut socket: UnixStream) -> anyhow::Result<()> {
    let mut message = [0; MESSAGE_BYTES];
    loop {
        // Read before the partner can change it: it counts a round only after its message has come
        // by the queue.
        let before = shared.rounds.load(Ordering::Acquire);
        pipe.write_all(&message).context("pipe")?;
        socket.read_exact(&mut message).context("socket")?;
        mqueue::send(shared.queue.as_raw_fd(), &message, 0)
            .map_err(std::io::Error::from)
            .context("queue")?;
        while shared.rounds.load(Ordering::Acquire) == before {
            // Woken, changed before, or interrupted: the loop checks.
            let _ = futex::wait(&shared.rounds, before, u64::MAX);
        }
    }
}

fn answer(shared: &Shared, mut pipe: PipeReader, mut socket: UnixStream) -> anyhow::Result<()> {
    let mut message = [0; MESSAGE_BYTES];
    loop {
        pipe.read_exact(&mut message).context("pipe")?;
        socket.write_all(&message).context("socket")?;
        mqueue::receive(shared.queue.as_raw_fd(), &mut message)
            .map_err(std::io::Error::from)
            .context("queue")?;
        // Release: pairs with the Acquire loads in `ask`.
        shared.rounds.fetch_add(1, Ordering::Release);
        futex::wake(&shared.rounds);
    }
}

/// A queue of one message that is unlinked at once, so that a killed worker leaves no queue behind.
fn private_queue() -> anyhow::Result<Queue> {
    let name = CString::new(format!("/rtlat-load.{}", std::process::id()))?;
    let (created, _) = Queue::create(&name, 1, MESSAGE_BYTES, 0o600)?;
    // The one that was created does not block.
    let queue = Queue::open(&name, Access::Both, false);
    Queue::unlink(&name)?;
    drop(created);
    Ok(queue?)
}
