//! What a participant receives by its session.

use super::super::order::{
    Answer, Counters, Got, Item, OneWait, Receive as Order, Received, Run, Strategy, Woke,
};
use super::super::{eventually, kernel, patience, patience_ns};
use super::session::{Client, told};
use anyhow::{Context as _, anyhow, bail, ensure};
use rtcore::client::waiter::{Interest, SignalSource, Timer, Waiter};
use rtcore::client::{Event, Inbox, Incoming, Message, Wait};
use rtcore::sys::clock::monotonic_ns;
use rtcore::sys::epoll::Epoll;
use rtcore::sys::pidfd::Ending;
use rtcore::sys::{poll, sched};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::time::Duration;

/// The inbox of orders that name none.
pub const ONLY: &str = "i";

pub fn after(ms: u64) -> u64 {
    monotonic_ns() + ms * 1_000_000
}

pub fn give_up_ns() -> u64 {
    monotonic_ns() + patience_ns()
}

impl Client {
    pub fn receive_order(&mut self, order: Order<'_>) -> anyhow::Result<Answer> {
        match order {
            Order::Inbox { key, of } => {
                let session = self.session()?;
                let inbox = of.map_or_else(|| session.inbox(), |of| session.inbox_of(&of));
                self.inboxes.insert(key.to_owned(), inbox.map_err(told)?);
            }
            Order::Drop(key) => drop(self.inboxes.remove(key)),
            Order::Strategy { key, wait } => self.inbox(key)?.set_wait(match wait {
                Strategy::Block => Wait::Block,
                Strategy::Poll => Wait::Poll,
                Strategy::Spin { spin_ns } => Wait::Spin { spin_ns },
            }),
            Order::Counters(key) => return Ok(Answer::Counters(counters(self.inbox(key)?))),
            Order::Items { key, count, ms } => return items(self.inbox(key)?, count, ms),
            Order::Runs { count, quiet_ms } => {
                return runs(self.inbox(ONLY)?, quiet_ms, |_, seen| seen == count);
            }
            Order::RunsUntil { wanted, quiet_ms } => {
                let first_words = format!("{wanted} ");
                let came = |item: &str, _| item == wanted || item.starts_with(&first_words);
                return runs(self.inbox(ONLY)?, quiet_ms, came);
            }
            Order::Numbers { key, count, ms } => return numbers(self.inbox(key)?, count, ms),
            Order::InPlace { key, count } => return in_place(self.inbox(key)?, count),
            Order::Drain {
                key,
                pause_us,
                quiet_ms,
            } => return drain(self.inbox(key)?, pause_us, quiet_ms),
            Order::From { process, count } => return self.from(process, count),
            Order::Polled { quiet_ms } => return polled(self.inbox(ONLY)?, quiet_ms),
            Order::Epoll { key, count } => return by_epoll(self.inbox(key)?, count),
            Order::Waiter { key, signo } => return one_wait(self.inbox(key)?, signo),
            Order::WaitsForAnother => return self.waits_for_another(),
            Order::Ping {
                key,
                endpoint,
                count,
                pause_us,
            } => return self.ping(key, endpoint, count, pause_us),
            Order::Echo {
                key,
                endpoint,
                count,
            } => self.echo(key, endpoint, count)?,
            Order::Leak => return Ok(Answer::Number(super::sealed::leak())),
            Order::Sealed {
                key,
                endpoint,
                count,
            } => {
                let (inbox, sender) = self.ends(key, endpoint)?;
                return super::sealed::there_and_back(sender, inbox, count);
            }
        }
        Ok(Answer::Done)
    }

    fn from(&mut self, process: &str, count: u64) -> anyhow::Result<Answer> {
        let is_it = self.session()?.is(process);
        let inbox = self.inbox(ONLY)?;
        let mut all = Vec::new();
        while (all.len() as u64) < count {
            let incoming = inbox.recv_deadline(give_up_ns()).map_err(told)?;
            if let Incoming::Message(message) = incoming.context("no message")? {
                let number = message.value().context("not a number")?;
                all.push((number, is_it(&message.origin())));
            }
        }
        Ok(Answer::From(all))
    }

    fn waits_for_another(&mut self) -> anyhow::Result<Answer> {
        let (first, mut second) = (self.session()?.inbox()?, self.session()?.inbox()?);
        let (tell, told) = std::sync::mpsc::channel();
        let waiter = std::thread::spawn(move || {
            let _ = tell.send(sched::gettid().unsigned_abs());
            loop {
                match second.recv() {
                    Ok(Incoming::Message(message)) => return message.value(),
                    Ok(Incoming::Event(_)) => {}
                    Err(_) => return None,
                }
            }
        });
        let (pid, tid) = (std::process::id(), told.recv()?);
        eventually(|| (kernel::thread(pid, tid).ok()?.state == 'S').then_some(()))?;
        drop(first);
        let number = waiter.join().map_err(|_| anyhow!("it panicked"))?;
        Ok(Answer::Number(number.context("no number")?))
    }

    fn ping(
        &mut self,
        key: &str,
        endpoint: &str,
        count: u64,
        pause_us: u64,
    ) -> anyhow::Result<Answer> {
        let (inbox, sender) = self.ends(key, endpoint)?;
        sched::set_fifo(1)?;
        let mut worst_ns = 0;
        for n in 0..count {
            let began = monotonic_ns();
            sender.send(&n.to_ne_bytes())?;
            loop {
                match inbox.recv_deadline(give_up_ns())? {
                    Some(Incoming::Message(message)) if message.value() == Some(n) => break,
                    Some(_) => {}
                    None => bail!("{n} did not come back"),
                }
            }
            worst_ns = worst_ns.max(monotonic_ns() - began);
            std::thread::sleep(Duration::from_micros(pause_us));
        }
        Ok(Answer::Number(worst_ns / 1000))
    }

    fn echo(&mut self, key: &str, endpoint: &str, count: u64) -> anyhow::Result<()> {
        let (inbox, sender) = self.ends(key, endpoint)?;
        let mut n = 0;
        while n < count {
            let Some(incoming) = inbox.recv_deadline(give_up_ns())? else {
                bail!("only {n} came")
            };
            let Incoming::Message(message) = incoming else {
                continue;
            };
            sender.send(message.bytes())?;
            n += 1;
        }
        Ok(())
    }
}

fn counters(inbox: &Inbox) -> Counters {
    let c = inbox.counters();
    Counters {
        received: c.received,
        duplicates: c.duplicates,
        missed: c.missed,
        corrupt: c.corrupt,
        expired: c.expired,
        superseded: c.superseded,
        late: c.late,
        torn: c.torn,
        events_lost: c.events_lost,
    }
}

pub fn receive_with<T>(
    inbox: &mut Inbox,
    count: u64,
    until: u64,
    mut note: impl FnMut(&Message<'_>) -> T,
) -> anyhow::Result<Vec<T>> {
    let mut got = Vec::new();
    while (got.len() as u64) < count {
        match inbox.recv_deadline(until)? {
            Some(Incoming::Message(message)) => got.push(note(&message)),
            Some(Incoming::Event(_)) => {}
            None => break,
        }
    }
    Ok(got)
}

fn items(inbox: &mut Inbox, count: u64, ms: u64) -> anyhow::Result<Answer> {
    let (mut all, mut n, until) = (Vec::new(), 0, after(ms));
    while n < count {
        match inbox.recv_deadline(until)? {
            Some(Incoming::Message(message)) => {
                n += 1;
                all.push(Item::Message(received(&message)));
            }
            Some(Incoming::Event(event)) => all.push(Item::Event(in_words(event))),
            None => break,
        }
    }
    Ok(Answer::Items(all))
}

fn received(m: &Message<'_>) -> Received {
    let origin = m.origin();
    Received {
        endpoint: m.endpoint().to_owned(),
        from: m.from().to_owned(),
        lane: m.lane().to_owned(),
        route: m.route().to_owned(),
        sequence: m.sequence(),
        missed: m.missed(),
        intended_ns: m.intended_ns(),
        sent_ns: m.sent_ns(),
        correlation: m.correlation(),
        pid: origin.pid,
        uid: origin.uid,
        verified: origin.verified,
        mq_priority: m.mq_priority(),
        signal: m.signal().unwrap_or((0, 0)),
        bytes: m.bytes().to_vec(),
    }
}

/// `lost PROCESS PID HOW`, `back PROCESS PID`, `down`, `up`, `refused WHY`, `messages ENDPOINT
/// COUNT`, `corrupt ENDPOINT OTHER WHY`.
fn in_words(event: Event) -> String {
    let how = |ending: Option<Ending>| ending.map_or("unknown".to_owned(), |e| format!("{e:?}"));
    match event {
        Event::PeerLost {
            process,
            pid,
            ending,
        } => format!("lost {process} {pid} {}", how(ending)),
        Event::PeerBack { process, pid } => format!("back {process} {pid}"),
        Event::Down => "down".to_owned(),
        Event::Up => "up".to_owned(),
        Event::Refused { reason } => format!("refused {reason}"),
        Event::Lost { endpoint, count } => format!("messages {endpoint} {count}"),
        Event::Corrupt {
            endpoint,
            other,
            corrupt,
        } => format!("corrupt {endpoint} {other} {corrupt:?}: {corrupt}"),
    }
}

/// What comes, until `done` says of an item in words, and of how many there are, that it was the
/// last.
fn runs(
    inbox: &mut Inbox,
    quiet_ms: u64,
    done: impl Fn(&str, u64) -> bool,
) -> anyhow::Result<Answer> {
    let (mut all, mut seen) = (Vec::new(), 0);
    while let Some(incoming) = inbox.recv_deadline(after(quiet_ms)).map_err(told)? {
        let item = match incoming {
            Incoming::Event(event) => other(&mut all, format!("event {}", in_words(event))),
            Incoming::Message(m) => match m.value() {
                Some(number) => add(
                    &mut all,
                    Run {
                        from: m.from().to_owned(),
                        sequence: m.sequence(),
                        number,
                        count: 1,
                        missed: m.missed(),
                        received_ns: m.received_ns(),
                        pid: m.origin().pid,
                        verified: m.origin().verified,
                    },
                ),
                None => {
                    let hex = rtd::ctl::payload::hex(m.bytes());
                    other(&mut all, format!("bytes {} {hex}", m.from()))
                }
            },
        };
        seen += 1;
        if done(&item, seen) {
            break;
        }
    }
    Ok(Answer::Runs(all))
}

fn other(all: &mut Vec<Got>, words: String) -> String {
    all.push(Got::Other(words.clone()));
    words
}

/// A number, which continues the last run or begins the next.
fn add(all: &mut Vec<Got>, next: Run) -> String {
    let words = format!("number {}", next.number);
    match all.last_mut() {
        Some(Got::Run(run))
            if (&run.from, run.pid, run.verified) == (&next.from, next.pid, next.verified)
                && run.number.wrapping_add(run.count) == next.number
                && run.sequence + run.count == next.sequence
                && next.missed == 0 =>
        {
            run.count += 1;
        }
        _ => all.push(Got::Run(next)),
    }
    words
}

fn numbers(inbox: &mut Inbox, count: u64, ms: u64) -> anyhow::Result<Answer> {
    let got = receive_with(inbox, count, after(ms), |m| m.value::<u64>())?;
    let got: Option<Vec<u64>> = got.into_iter().collect();
    Ok(Answer::Numbers(got.context("not a number")?))
}

fn in_place(inbox: &mut Inbox, count: u64) -> anyhow::Result<Answer> {
    let mut all = Vec::new();
    while (all.len() as u64) < count
        && let Some(incoming) = inbox.try_recv_in_place()?
    {
        let Incoming::Message(message) = incoming else {
            continue;
        };
        let mut bytes = [0; 8];
        let is_number = message.copy_to(&mut bytes) == 8 && message.len() == 8;
        ensure!(is_number, "{message:?}");
        all.push(u64::from_ne_bytes(bytes));
    }
    Ok(Answer::Numbers(all))
}

fn drain(inbox: &mut Inbox, pause_us: u64, quiet_ms: u64) -> anyhow::Result<Answer> {
    let (mut count, mut last) = (0_u64, None);
    loop {
        let number = match inbox.recv_deadline(after(quiet_ms))? {
            Some(Incoming::Message(message)) => message.value::<u64>().context("not a number")?,
            Some(Incoming::Event(_)) => continue,
            None => return Ok(Answer::Number(count)),
        };
        ensure!(last < Some(number), "{number} after {last:?}");
        (count, last) = (count + 1, Some(number));
        if pause_us > 0 {
            std::thread::sleep(Duration::from_micros(pause_us));
        }
    }
}

fn polled(inbox: &mut Inbox, quiet_ms: u64) -> anyhow::Result<Answer> {
    let until_ns = after(quiet_ms);
    while monotonic_ns() < until_ns {
        let mut readable = [poll::Interest::readable(inbox.as_fd().as_raw_fd())];
        let ready = poll::wait(&mut readable, until_ns - monotonic_ns());
        ready.map_err(|e| anyhow!("{e:?}"))?;
        if let Some(Incoming::Message(message)) = inbox.try_recv().map_err(told)? {
            return Ok(Answer::Message(Some(message.bytes().to_vec())));
        }
    }
    Ok(Answer::Message(None))
}

/// Waits in a set of its own, and takes one message at a time until there is none; fails if it
/// sleeps while something is there.
fn by_epoll(inbox: &mut Inbox, count: u64) -> anyhow::Result<Answer> {
    let set = Epoll::new()?;
    set.add(inbox.as_fd(), 7)?;
    let (mut tokens, mut n, mut woke, mut idle) = (Vec::new(), 0_u64, 0, 0);
    while n < count {
        set.wait(&mut tokens, Some(patience()))?;
        if tokens.is_empty() {
            let missed = matches!(inbox.try_recv(), Ok(Some(_)));
            bail!("asleep after {n} messages; something was there: {missed}");
        }
        woke += 1;
        let before = n;
        while let Some(incoming) = inbox.try_recv()? {
            let Incoming::Message(message) = incoming else {
                continue;
            };
            ensure!(
                message.value() == Some(n),
                "number {n}, but {:?}",
                message.bytes()
            );
            n += 1;
        }
        idle += u64::from(n == before);
    }
    Ok(Answer::Epoll(Woke { woke, idle }))
}

fn one_wait(inbox: &mut Inbox, signo: i32) -> anyhow::Result<Answer> {
    let (timer, signals) = (Timer::new()?, SignalSource::new([signo])?);
    let mut waiter = Waiter::with_capacity(3)?;
    waiter.add(inbox, 1, 1, Interest::Readable)?;
    waiter.add(&timer, 2, 2, Interest::Readable)?;
    waiter.add(&signals, 3, 3, Interest::Readable)?;
    timer.at(monotonic_ns())?;
    let until = give_up_ns();
    loop {
        // What is only readable because it was never asked.
        let ready = waiter.wait(Some(until))?;
        let keys: Vec<u64> = ready.iter().map(|ready| ready.key).collect();
        if keys.len() == 3 {
            let signal = signals.take().map(|got| got.value);
            let expirations = timer.take();
            let numbers = receive_with(inbox, 1, after(0), |m| m.value::<u64>())?;
            while inbox.try_recv()?.is_some() {}
            let rest = waiter.wait(Some(after(0)))?.len();
            return Ok(Answer::Waiter(OneWait {
                keys,
                signal,
                expirations,
                numbers,
                rest,
            }));
        }
        if monotonic_ns() > until {
            bail!("only {keys:?} are ready");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
