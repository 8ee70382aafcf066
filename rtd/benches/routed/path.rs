//! A path to measure: how the sender puts a message in, and the receiver process at its end.

use crate::Effort;
use crate::echo::{Ages, open};
use anyhow::{Context as _, bail};
use rtcore::client::Sender;
use rtcore::sys::mqueue::{self, Access, Queue};
use rtcore::sys::{clock, process, rtsignal};
use std::cell::RefCell;
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
/// Stamp of a message that is not measured.
pub const WARM_UP: u64 = 0;
/// Stamp that ends a block.
pub const BLOCK: u64 = u64::MAX - 1;
const WARM_UPS: usize = 10;

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
        let all = Ages::read(self.out.lines())?;
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
    /// A session's endpoint.
    Lane(Box<RefCell<Sender>>),
}

impl Entry {
    /// Into this queue.
    pub fn queue(name: &str) -> anyhow::Result<Entry> {
        Ok(Entry::Queue(open(name, Access::Send)?))
    }

    /// Out of a session's endpoint.
    pub fn lane(sender: Sender) -> Entry {
        Entry::Lane(Box::new(RefCell::new(sender)))
    }

    /// Sends a stamp.
    pub fn send(&self, stamp: u64) -> anyhow::Result<()> {
        let sent = match self {
            Entry::Queue(queue) => {
                let mut message = [0; MESSAGE_BYTES];
                message[..8].copy_from_slice(&stamp.to_ne_bytes());
                mqueue::send(queue.as_raw_fd(), &message, 0)
            }
            Entry::Lane(sender) => {
                let mut message = [0; MESSAGE_BYTES];
                message[..8].copy_from_slice(&stamp.to_ne_bytes());
                let sent = sender.borrow_mut().try_send(&message);
                return sent.map(drop).map_err(|e| anyhow::anyhow!("cannot send: {e:?}"));
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
        for _ in 0..WARM_UPS {
            self.once(WARM_UP)?;
        }
        for _ in 0..messages {
            self.once(clock::monotonic_ns())?;
        }
        self.once(BLOCK)
    }

    fn finish(self) -> anyhow::Result<(&'static str, Ages)> {
        // A fan-out path copies it to every receiver.
        self.entry.send(QUIT)?;
        let Path { name, receivers, queues, .. } = self;
        let all = receivers.into_iter().map(Receiver::finish).collect::<anyhow::Result<Vec<_>>>()?;
        drop(queues);
        Ok((name, all.into_iter().next_back().context("a path without a receiver")?))
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

/// A table. The last column is the ratio to the first row: the median over all turns of (this path's median /
/// the first path's median in the same turn), which a machine that changes its speed does not move.
pub fn print(title: &str, rows: &[(&'static str, Ages)]) {
    println!("\n{title}");
    println!(
        "{:<34} {:>9} {:>8} {:>8} {:>8} {:>9} {:>7} {:>16}",
        "path", "messages", "p50 us", "p99", "p99.9", "max", "x p50", "(5%..95%)"
    );
    for (name, ages) in rows {
        let us = |ns: u64| ns as f64 / 1000.0;
        let at = |q: f64| us(ages.all.value_at_quantile(q));
        let [low, median, high] = ratios(&ages.blocks, &rows[0].1.blocks);
        println!(
            "{name:<34} {:>9} {:>8.2} {:>8.2} {:>8.2} {:>9.2} {median:>7.2} {:>16}",
            ages.all.len(),
            at(0.5),
            at(0.99),
            at(0.999),
            us(ages.all.max()),
            format!("({low:.2}..{high:.2})")
        );
    }
}

/// 5 %, 50 % and 95 % of the ratios turn by turn.
fn ratios(these: &[u64], first: &[u64]) -> [f64; 3] {
    let mut all: Vec<f64> =
        these.iter().zip(first).filter(|(_, f)| **f > 0).map(|(t, f)| *t as f64 / *f as f64).collect();
    all.sort_by(f64::total_cmp);
    let at =
        |percent: usize| all.get((all.len().saturating_sub(1)) * percent / 100).copied().unwrap_or(f64::NAN);
    [at(5), at(50), at(95)]
}
