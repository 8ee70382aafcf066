//! The receivers: take a message, note its age, acknowledge it, and at the end print what was noted.

use crate::path::{BLOCK, LANE_PRIORITY, MESSAGE_BYTES, QUIT, WARM_UP};
use anyhow::{Context as _, bail};
use hdrhistogram::Histogram;
use rtcore::client::{Inbox, Incoming, Session};
use rtcore::lane::policy::Wait;
use rtcore::sys::mqueue::{self, Access, Queue};
use rtcore::sys::rtsignal::{self, SignalSet};
use rtcore::sys::{Errno, clock, sched};
use std::ffi::CString;
use std::os::fd::AsRawFd;

/// What a receiver noted.
#[derive(Debug)]
pub struct Ages {
    /// All of it.
    pub all: Histogram<u64>,
    /// The median of every block, in order.
    pub blocks: Vec<u64>,
}

/// An empty histogram: 1 ns to 10 s, three digits.
fn histogram() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 10_000_000_000, 3)?)
}

impl Ages {
    /// Nothing noted yet.
    pub fn new() -> anyhow::Result<Ages> {
        Ok(Ages { all: histogram()?, blocks: Vec::new() })
    }

    /// Ends a block.
    fn close(&mut self, block: &mut Histogram<u64>) -> anyhow::Result<()> {
        self.blocks.push(block.value_at_quantile(0.5));
        self.all.add(&*block)?;
        block.reset();
        Ok(())
    }

    /// As lines on standard output.
    fn write(&self) {
        for v in self.all.iter_recorded() {
            println!("age {} {}", v.value_iterated_to(), v.count_since_last_iteration());
        }
        self.blocks.iter().for_each(|p50| println!("block {p50} 1"));
    }

    /// From such lines.
    pub fn read(lines: impl Iterator<Item = std::io::Result<String>>) -> anyhow::Result<Ages> {
        let mut ages = Ages::new()?;
        for line in lines {
            let line = line?;
            match line.split(' ').collect::<Vec<_>>().as_slice() {
                ["age", value, count] => ages.all.record_n(value.parse()?, count.parse()?)?,
                ["block", p50, _] => ages.blocks.push(p50.parse()?),
                _ => bail!("a receiver said {line:?}"),
            }
        }
        Ok(ages)
    }
}

/// `--echo router FROM TO CPU PRIORITY`, `--echo mq QUEUE ACK CPU PRIORITY` or
/// `--echo signal NAME ACK CPU PRIORITY [SOCKET]`; ACK "-" acknowledges nothing.
pub fn run(args: &[String]) -> anyhow::Result<()> {
    let [kind, from, ack, cpu, priority, rest @ ..] = args else {
        bail!("--echo KIND FROM ACK CPU PRIORITY [SOCKET]")
    };
    let priority: u8 = priority.parse()?;
    if kind == "router" {
        return router(&open(from, Access::Receive)?, ack, cpu);
    }
    let ack = (ack != "-").then(|| open(ack, Access::Send)).transpose()?;
    sched::pin(cpu.parse()?)?;
    let ages = match (kind.as_str(), rest) {
        ("mq", _) => {
            let queue = open(from, Access::Receive)?;
            say_ready(priority)?;
            let mut buffer = [0; MESSAGE_BYTES];
            echo(ack.as_ref(), || {
                let (len, _) = mqueue::receive(queue.as_raw_fd(), &mut buffer)?;
                let mut stamp = [0; 8];
                let n = len.min(8);
                stamp[..n].copy_from_slice(&buffer[..n]);
                Ok(u64::from_ne_bytes(stamp))
            })?
        }
        ("signal", socket) => {
            let set = SignalSet::of([rtsignal::rt_range().0 + 5]);
            set.block()?;
            if let [socket] = socket {
                rtd::ctl::register::this_process(socket.as_ref(), from)?;
            }
            say_ready(priority)?;
            echo(ack.as_ref(), || rtsignal::wait(&set).map(|got| got.value))?
        }
        ("lane", [socket]) => {
            let session = Session::builder(from).socket(socket).connect()?;
            let mut inbox = session.inbox()?;
            say_ready(priority)?;
            echo(ack.as_ref(), || stamp_of(&mut inbox))?
        }
        ("relay", [socket]) => relay(from, socket, priority)?,
        ("far", [socket]) => far(from, socket, priority)?,
        ("sink", [socket, count]) => sink(from, socket, priority, count.parse()?)?,
        (other, _) => bail!("no receiver is called {other}"),
    };
    ages.write();
    Ok(())
}

/// The stamp in the next message.
fn stamp_of(inbox: &mut Inbox) -> Result<u64, Errno> {
    loop {
        match inbox.recv() {
            Ok(Incoming::Message(message)) => {
                let stamp = message.bytes().first_chunk().copied().unwrap_or_default();
                return Ok(u64::from_ne_bytes(stamp));
            }
            Ok(Incoming::Event(_)) => {}
            Err(_) => return Err(Errno::SRCH),
        }
    }
}

/// Sends on what it receives, until killed.
fn relay(to: &str, socket: &str, priority: u8) -> anyhow::Result<Ages> {
    let session = Session::builder("relay").socket(socket).connect()?;
    let (mut inbox, mut sender) = (session.inbox()?, session.sender(to)?);
    say_ready(priority)?;
    loop {
        if let Incoming::Message(message) = inbox.recv()? {
            sender.try_send(message.bytes()).map_err(|e| anyhow::anyhow!("cannot relay: {e:?}"))?;
        }
    }
}

/// Polls, and answers each message with an empty one.
fn far(name: &str, socket: &str, priority: u8) -> anyhow::Result<Ages> {
    let session = Session::builder(name).socket(socket).connect()?;
    let (mut inbox, mut answer) = (session.inbox()?, session.sender("answer")?);
    answer
        .wait_for_receiver(clock::monotonic_ns() + 5_000_000_000)
        .map_err(|e| anyhow::anyhow!("nobody takes answers: {e}"))?;
    inbox.set_wait(Wait::Poll);
    say_ready(priority)?;
    let mut tally = Tally::new()?;
    loop {
        let Incoming::Message(message) = inbox.recv()? else { continue };
        let received = message.received_ns();
        match u64::from_ne_bytes(message.bytes().first_chunk().copied().unwrap_or_default()) {
            QUIT => return tally.finish(),
            BLOCK => tally.close()?,
            WARM_UP => {}
            stamp => tally.note(received.saturating_sub(stamp)),
        }
        answer.try_send(&[]).map_err(|e| anyhow::anyhow!("cannot answer: {e:?}"))?;
    }
}

/// Polls until so many have come, and says how long that took after the first.
fn sink(name: &str, socket: &str, priority: u8, count: u64) -> anyhow::Result<Ages> {
    let session = Session::builder(name).socket(socket).connect()?;
    let mut inbox = session.inbox()?;
    inbox.set_wait(Wait::Poll);
    say_ready(priority)?;
    let (mut taken, mut first) = (0, 0);
    while taken < count {
        if let Incoming::Message(message) = inbox.recv()? {
            if taken == 0 {
                first = message.sent_ns();
            }
            taken += 1;
        }
    }
    let mut ages = Ages::new()?;
    ages.all.record(clock::monotonic_ns().saturating_sub(first))?;
    Ok(ages)
}

/// Notes latencies block by block.
#[derive(Debug)]
pub struct Tally {
    ages: Ages,
    block: Histogram<u64>,
}

impl Tally {
    /// Nothing yet.
    pub fn new() -> anyhow::Result<Tally> {
        Ok(Tally { ages: Ages::new()?, block: histogram()? })
    }

    /// One message.
    pub fn note(&mut self, ns: u64) {
        self.block.saturating_record(ns.max(1));
    }

    /// The end of a block.
    pub fn close(&mut self) -> anyhow::Result<()> {
        self.ages.close(&mut self.block)
    }

    /// All of it.
    pub fn finish(self) -> anyhow::Result<Ages> {
        Ok(self.ages)
    }
}

/// The parent goes on when it reads this line.
fn say_ready(priority: u8) -> anyhow::Result<()> {
    sched::set_fifo(priority)?;
    println!("ready");
    Ok(())
}

fn echo(ack: Option<&Queue>, mut next: impl FnMut() -> Result<u64, Errno>) -> anyhow::Result<Ages> {
    let (mut ages, mut block) = (Ages::new()?, histogram()?);
    loop {
        let stamp = match next() {
            Ok(stamp) => stamp,
            Err(Errno::INTR) => continue,
            Err(e) => bail!("cannot receive: {e}"),
        };
        let now = clock::monotonic_ns();
        if stamp == QUIT {
            ages.close(&mut block)?;
            return Ok(ages);
        }
        match stamp {
            BLOCK => ages.close(&mut block)?,
            WARM_UP => {}
            stamp => block.saturating_record(now.saturating_sub(stamp).max(1)),
        }
        if let Some(ack) = ack {
            mqueue::send(ack.as_raw_fd(), &[0], 0).map_err(|e| anyhow::anyhow!("cannot acknowledge: {e}"))?;
        }
    }
}

/// The floor: a router that does nothing but receive and send, until killed.
fn router(from: &Queue, to: &str, cpu: &str) -> anyhow::Result<()> {
    let to = open(to, Access::Send)?;
    sched::pin(cpu.parse()?)?;
    say_ready(LANE_PRIORITY)?;
    let mut buffer = [0; MESSAGE_BYTES];
    loop {
        let got = mqueue::receive(from.as_raw_fd(), &mut buffer);
        let (len, priority) = got.map_err(|e| anyhow::anyhow!("router: {e}"))?;
        mqueue::send(to.as_raw_fd(), &buffer[..len], priority).map_err(|e| anyhow::anyhow!("router: {e}"))?;
    }
}

/// Opens a queue, blocking.
pub fn open(name: &str, access: Access) -> anyhow::Result<Queue> {
    Ok(Queue::open(&CString::new(name).context("queue name")?, access, false)?)
}
