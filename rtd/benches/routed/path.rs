//! A path to measure: how the sender puts a message in, and the receiver process at its end.

use crate::Effort;
use crate::echo::{Ages, ages, open};
use anyhow::{Context as _, bail};
use rtcore::sys::mqueue::{self, Access, Queue};
use rtcore::sys::{clock, process, rtsignal};
use std::ffi::CString;
use std::io::{BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::process::{Child, ChildStdout, Command, Stdio};

/// FIFO priority of the lanes and of the bare router.
pub const LANE_PRIORITY: u8 = 80;
/// Payload.
pub const MESSAGE_BYTES: usize = 64;
/// Stamp that ends a receiver.
pub const QUIT: u64 = u64::MAX;
const WARM_UP: usize = 50;

/// A queue of the bench's own, removed when dropped.
#[derive(Debug)]
pub struct OwnQueue {
    /// `/name`.
    pub name: String,
}

impl OwnQueue {
    /// Creates it.
    pub fn new(name: String) -> anyhow::Result<OwnQueue> {
        let c = CString::new(name.as_str()).context("queue name")?;
        let _ = Queue::unlink(&c);
        Queue::create(&c, 8, MESSAGE_BYTES, 0o600)?;
        Ok(OwnQueue { name })
    }
}

impl Drop for OwnQueue {
    fn drop(&mut self) {
        if let Ok(name) = CString::new(self.name.as_str()) {
            let _ = Queue::unlink(&name);
        }
    }
}

/// A receiver process.
#[derive(Debug)]
pub struct Receiver {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Receiver {
    /// Starts `--echo ARGS` and waits until it listens.
    pub fn start(args: &[&str]) -> anyhow::Result<Receiver> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--echo").args(args).stdout(Stdio::piped());
        process::die_with_parent_at_exec(&mut command);
        let mut child = command.spawn().context("cannot start a receiver")?;
        let mut out = BufReader::new(child.stdout.take().context("no stdout")?);
        let mut line = String::new();
        out.read_line(&mut line)?;
        if line.trim_end() != "ready" {
            bail!("a receiver did not start: {args:?}");
        }
        Ok(Receiver { child, out })
    }

    /// Its pid.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap_or(0)
    }

    /// Ends one that listens to nobody.
    pub fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// What it noted, after it got [`QUIT`].
    pub fn finish(mut self) -> anyhow::Result<Ages> {
        let mut all = ages()?;
        for line in self.out.lines() {
            let line = line?;
            let (value, count) = line.split_once(' ').context("not a value and a count")?;
            all.record_n(value.parse()?, count.parse()?)?;
        }
        self.child.wait()?;
        Ok(all)
    }
}

/// How a message goes in.
#[derive(Debug)]
pub enum Entry {
    /// mq_send.
    Queue(Queue),
    /// sigqueue to this pid.
    Signal(i32),
}

impl Entry {
    /// Into this queue.
    pub fn queue(name: &str) -> anyhow::Result<Entry> {
        Ok(Entry::Queue(open(name, Access::Send)?))
    }

    /// Sends a stamp.
    pub fn send(&self, stamp: u64) -> anyhow::Result<()> {
        let sent = match self {
            Entry::Queue(queue) => {
                let mut message = [0; MESSAGE_BYTES];
                message[..8].copy_from_slice(&stamp.to_ne_bytes());
                mqueue::send(queue.as_raw_fd(), &message, 0)
            }
            Entry::Signal(pid) => rtsignal::queue_to_pid(*pid, rtsignal::rt_range().0 + 5, stamp),
        };
        sent.map_err(|e| anyhow::anyhow!("cannot send: {e}"))
    }
}

/// One thing that is measured.
#[derive(Debug)]
pub struct Path {
    /// Row title.
    pub name: &'static str,
    /// How a message goes in.
    pub entry: Entry,
    /// Acknowledgements of the receiver.
    pub ack: Queue,
    /// The last of these acknowledges; the ages of the last one are reported.
    pub receivers: Vec<Receiver>,
    /// Kept until the end.
    pub queues: Vec<OwnQueue>,
}

impl Path {
    /// Sends one message and waits until it has arrived.
    fn once(&self, stamp: u64) -> anyhow::Result<()> {
        self.entry.send(stamp)?;
        let mut buffer = [0; MESSAGE_BYTES];
        mqueue::receive(self.ack.as_raw_fd(), &mut buffer).map_err(|e| anyhow::anyhow!("no answer: {e}"))?;
        Ok(())
    }

    fn block(&self, messages: usize) -> anyhow::Result<()> {
        for _ in 0..WARM_UP {
            self.once(0)?;
        }
        for _ in 0..messages {
            self.once(clock::monotonic_ns())?;
        }
        Ok(())
    }

    fn finish(self) -> anyhow::Result<(&'static str, Ages)> {
        // A fan-out path copies it to every receiver.
        self.entry.send(QUIT)?;
        let mut ages = ages()?;
        for receiver in self.receivers {
            ages = receiver.finish()?;
        }
        Ok((self.name, ages))
    }
}

/// Measures the paths in turns and prints a row each with its ratio to the first.
pub fn compare(title: &str, paths: Vec<Path>, effort: &Effort) -> anyhow::Result<Vec<(&'static str, Ages)>> {
    for _ in 0..effort.rounds {
        for path in &paths {
            path.block(effort.block)?;
        }
    }
    let results = paths.into_iter().map(Path::finish).collect::<anyhow::Result<Vec<_>>>()?;
    print(title, &results);
    Ok(results)
}

/// A table; the last column is the p50's ratio to the first row's.
pub fn print(title: &str, rows: &[(&'static str, Ages)]) {
    println!("\n{title}");
    println!(
        "{:<34} {:>9} {:>8} {:>8} {:>8} {:>9} {:>7} {:>7}",
        "path", "messages", "p50 us", "p99", "p99.9", "max", "x p50", "x p99"
    );
    let first = |q: f64| rows.first().map_or(1, |(_, a)| a.value_at_quantile(q)).max(1) as f64;
    for (name, ages) in rows {
        let us = |ns: u64| ns as f64 / 1000.0;
        let at = |q: f64| ages.value_at_quantile(q);
        println!(
            "{name:<34} {:>9} {:>8.2} {:>8.2} {:>8.2} {:>9.2} {:>7.2} {:>7.2}",
            ages.len(),
            us(at(0.5)),
            us(at(0.99)),
            us(at(0.999)),
            us(ages.max()),
            at(0.5) as f64 / first(0.5),
            at(0.99) as f64 / first(0.99)
        );
    }
}
