//! What a participant does that links the client library: sessions, senders, inboxes, calls, told
//! line by line (`lane ...`, see `peer`).

use super::peer::unhex;
use super::{patience, patience_ns};
use anyhow::{Context as _, bail};
use rtcore::client::waiter::{Interest, SignalSource, Timer, Waiter};
use rtcore::client::{
    CallError, Caller, Event, Inbox, Incoming, Message, ReplyTo, SendError, Sender, Session, Wait,
};
use rtcore::seal;
use rtcore::sys::clock::monotonic_ns;
use rtcore::sys::epoll::Epoll;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::os::fd::AsFd as _;
use std::time::Duration;

#[derive(Default)]
struct Client {
    senders: BTreeMap<String, Sender>,
    inboxes: BTreeMap<String, Inbox>,
    callers: BTreeMap<String, Caller>,
    asked: Option<ReplyTo>,
    session: Option<Session>,
}

thread_local! {
    /// Each thread of the process that obeys has its own.
    static CLIENT: RefCell<Client> = RefCell::default();
}

/// Data lines, or why not.
pub fn obey(words: &[&str]) -> anyhow::Result<String> {
    CLIENT.with_borrow_mut(|client| client.obey(words))
}

fn after(ms: u64) -> u64 {
    monotonic_ns() + ms * 1_000_000
}

fn give_up_ns() -> u64 {
    monotonic_ns() + patience_ns()
}

impl Client {
    fn session(&self) -> anyhow::Result<&Session> {
        self.session.as_ref().context("no session")
    }

    fn sender(&mut self, endpoint: &str) -> anyhow::Result<&mut Sender> {
        self.senders
            .get_mut(endpoint)
            .with_context(|| format!("no sender {endpoint}"))
    }

    fn inbox(&mut self, key: &str) -> anyhow::Result<&mut Inbox> {
        self.inboxes
            .get_mut(key)
            .with_context(|| format!("no inbox {key}"))
    }

    fn obey(&mut self, words: &[&str]) -> anyhow::Result<String> {
        let mut data = String::new();
        match words {
            ["connect", socket, name] => {
                self.session = Some(
                    Session::builder(name)
                        .socket(socket)
                        .timeout(patience())
                        .connect()?,
                );
            }
            ["close"] => *self = Client::default(),
            ["claim", endpoint] => {
                let sender = self.session()?.sender(endpoint)?;
                self.senders.insert((*endpoint).to_owned(), sender);
            }
            ["reach", endpoint] => self.sender(endpoint)?.wait_for_receiver(give_up_ns())?,
            ["inbox", key] => {
                let inbox = self.session()?.inbox()?;
                self.inboxes.insert((*key).to_owned(), inbox);
            }
            ["inbox", key, endpoints @ ..] => {
                let inbox = self.session()?.inbox_of(endpoints)?;
                self.inboxes.insert((*key).to_owned(), inbox);
            }
            ["strategy", key, how] => self.inbox(key)?.set_wait(strategy(how)?),
            ["counters", key] => {
                let c = self.inbox(key)?.counters();
                data = format!(
                    "{} {} {} {}\n",
                    c.received, c.duplicates, c.missed, c.corrupt
                );
            }
            // What became of messages at the inbox itself.
            ["discarded", key] => {
                let c = self.inbox(key)?.counters();
                data = format!("{} {} {} {}\n", c.received, c.expired, c.superseded, c.late);
            }
            // As `numbers`, in place, with what comes by then.
            ["in-place", key, count] => {
                let inbox = self.inbox(key)?;
                let mut left: usize = count.parse()?;
                while left > 0
                    && let Some(incoming) = inbox.try_recv_in_place()?
                {
                    let Incoming::Message(message) = incoming else {
                        continue;
                    };
                    let mut bytes = [0; 8];
                    anyhow::ensure!(
                        message.copy_to(&mut bytes) == 8 && message.len() == 8,
                        "{message:?}"
                    );
                    data += &format!("{}\n", u64::from_ne_bytes(bytes));
                    left -= 1;
                }
            }
            ["send", endpoint, rest @ ..] => data = send(self.sender(endpoint)?, rest)?,
            // What became of each number.
            ["outcomes", endpoint, from, count] => {
                let (sender, from) = (self.sender(endpoint)?, from.parse::<u64>()?);
                let outcome = |n: u64| {
                    sender
                        .try_send(&n.to_ne_bytes())
                        .map_or_else(|e| word(&e), |_| "sent")
                };
                let all: Vec<_> = (from..from + count.parse::<u64>()?).map(outcome).collect();
                data = all.join(" ") + "\n";
            }
            ["pending", endpoint] => data = format!("{}\n", self.sender(endpoint)?.pending()),
            ["flush", endpoint, ms] => data = flush(self.sender(endpoint)?, ms.parse()?),
            ["burst", endpoint, from, count] => {
                data = burst(self.sender(endpoint)?, from.parse()?, count.parse()?);
            }
            ["stream", endpoint, from, count] => {
                stream(self.sender(endpoint)?, from.parse()?, count.parse()?)?;
            }
            ["recv", key, count, ms] => {
                data = receive(self.inbox(key)?, count.parse()?, ms.parse()?)?;
            }
            ["numbers", key, count, ms] => {
                data = numbers(self.inbox(key)?, count.parse()?, ms.parse()?)?;
            }
            ["drain", key, pause_us, quiet_ms] => {
                data = drain(self.inbox(key)?, pause_us.parse()?, quiet_ms.parse()?)?;
            }
            ["pin", cpu] => rtcore::sys::sched::pin(cpu.parse()?)?,
            // As many as go in, for so long.
            ["hammer", endpoint, ms] => {
                let (sender, until_ns) = (self.sender(endpoint)?, after(ms.parse()?));
                while monotonic_ns() < until_ns {
                    let _ = burst(sender, 0, 64);
                }
            }
            ["ping", key, endpoint, count, pause_us] => {
                data = self.ping(key, endpoint, count.parse()?, pause_us.parse()?)?;
            }
            ["epoll", key, count] => data = by_epoll(self.inbox(key)?, count.parse()?)?,
            ["waiter", key, signo] => data = one_wait(self.inbox(key)?, signo.parse()?)?,
            ["echo", key, endpoint, count] => self.echo(key, endpoint, count.parse()?)?,
            ["caller", key, requests, answers] => {
                let caller = self.session()?.caller(requests, answers)?;
                self.callers.insert((*key).to_owned(), caller);
            }
            ["call", key, hex, ms] => data = self.call(key, &unhex(hex)?, ms.parse()?)?,
            ["late", key] => {
                data = format!("{}\n", self.callers.get(*key).context("no caller")?.late())
            }
            ["serve", key, endpoint, count] => self.serve(key, endpoint, count.parse()?)?,
            // Takes a request and leaves it unanswered until `answer`.
            ["hold", key] => {
                let text = receive_with(self.inbox(key)?, 1, give_up_ns(), |m| m.reply_to())?;
                self.asked = text.into_iter().next().flatten();
                self.asked.context("that was no request")?;
            }
            ["answer", endpoint, hex] => {
                let to = self.asked.take().context("nothing was asked")?;
                self.sender(endpoint)?.reply(to, &unhex(hex)?)?;
            }
            // That the count below counts.
            ["leak"] => {
                let before = seal::breaches();
                seal::seal();
                drop(std::hint::black_box(Box::new(1)));
                seal::unseal();
                data = format!("{}\n", seal::breaches() - before);
            }
            ["sealed", key, endpoint, count] => {
                data = self.sealed(key, endpoint, count.parse()?)?
            }
            other => bail!("what is lane {other:?}?"),
        }
        Ok(data)
    }

    /// Sends one message every `pause_us` to itself, real-time; answers the longest time there and
    /// back in microseconds.
    fn ping(
        &mut self,
        key: &str,
        endpoint: &str,
        count: u64,
        pause_us: u64,
    ) -> anyhow::Result<String> {
        let inbox = self.inboxes.get_mut(key).context("no inbox")?;
        let sender = self.senders.get_mut(endpoint).context("no sender")?;
        rtcore::sys::sched::set_fifo(1)?;
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
        Ok(format!("{}\n", worst_ns / 1000))
    }

    /// Sends back what comes, as it is.
    fn echo(&mut self, key: &str, endpoint: &str, count: usize) -> anyhow::Result<()> {
        let inbox = self.inboxes.get_mut(key).context("no inbox")?;
        let sender = self.senders.get_mut(endpoint).context("no sender")?;
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

    fn call(&mut self, key: &str, request: &[u8], ms: u64) -> anyhow::Result<String> {
        let caller = self.callers.get_mut(key).context("no caller")?;
        let began = monotonic_ns();
        let said = match caller.call(request, after(ms)) {
            Ok(reply) => format!("reply {}", hex(reply.bytes())),
            Err(CallError::Timeout { .. }) => "timeout -".to_owned(),
            Err(CallError::PeerDead {
                process, ending, ..
            }) => format!("dead {process}:{ending:?}"),
            Err(CallError::Disconnected { why, .. }) => format!("disconnected {why:?}"),
            Err(CallError::Send(e)) => format!("unsent {}", word(&e)),
        };
        Ok(format!(
            "{} {}\n",
            monotonic_ns() - began,
            said.replace("Some", "")
        ))
    }

    /// Answers requests with their bytes in reverse.
    fn serve(&mut self, key: &str, endpoint: &str, count: usize) -> anyhow::Result<()> {
        let inbox = self.inboxes.get_mut(key).context("no inbox")?;
        let sender = self.senders.get_mut(endpoint).context("no sender")?;
        let mut n = 0;
        while n < count {
            let Some(incoming) = inbox.recv_deadline(give_up_ns())? else {
                bail!("only {n} came")
            };
            let Incoming::Message(request) = incoming else {
                continue;
            };
            let mut bytes = request.bytes().to_vec();
            bytes.reverse();
            sender.reply(request.reply_to().context("no request")?, &bytes)?;
            n += 1;
        }
        Ok(())
    }

    /// Sends from one end and receives at the other in every way there is, sealed; answers the heap
    /// calls and what came.
    fn sealed(&mut self, key: &str, endpoint: &str, count: u64) -> anyhow::Result<String> {
        let inbox = self.inboxes.get_mut(key).context("no inbox")?;
        let sender = self.senders.get_mut(endpoint).context("no sender")?;
        let before = seal::breaches();
        let mut came = 0;
        seal::seal();
        let done = ping(sender, inbox, count, &mut came);
        seal::unseal();
        done.map_err(|e| anyhow::anyhow!("{e}"))?;
        Ok(format!("{} {came}\n", seal::breaches() - before))
    }
}

/// One message after the other, each in another way; the error is static, for nothing here may
/// allocate.
fn ping(
    sender: &mut Sender,
    inbox: &mut Inbox,
    count: u64,
    came: &mut u64,
) -> Result<(), &'static str> {
    for n in 0..count {
        let sent = match n % 5 {
            0 => sender.try_send(&n.to_ne_bytes()),
            1 => sender.send_at(monotonic_ns(), &n.to_ne_bytes()),
            2 => sender.send_value(&n),
            3 => sender.loan(8).and_then(|mut loan| {
                loan.copy_from_slice(&n.to_ne_bytes());
                loan.commit()
            }),
            _ => {
                let bytes = n.to_ne_bytes();
                let batch = sender.send_batch([&bytes[..]]);
                batch.error.map_or(Ok(batch.sequence), Err)
            }
        };
        sent.map_err(|_| "not sent")?;
        loop {
            let got = match n % 3 {
                0 => inbox.recv().map(Some),
                1 => inbox.recv_deadline(give_up_ns()),
                _ => inbox.try_recv(),
            };
            match got.map_err(|_| "not received")? {
                Some(Incoming::Message(message)) if message.value() == Some(n) => break,
                Some(Incoming::Message(_)) => return Err("another one came"),
                Some(Incoming::Event(_)) => {}
                None if n % 3 == 1 => return Err("nothing came"),
                None => std::thread::yield_now(),
            }
        }
        *came += 1;
    }
    Ok(())
}

fn strategy(how: &str) -> anyhow::Result<Wait> {
    Ok(match how.split_once(':') {
        None if how == "block" => Wait::Block,
        None if how == "poll" => Wait::Poll,
        Some(("spin", ns)) => Wait::Spin {
            spin_ns: ns.parse()?,
        },
        _ => bail!("what is {how}?"),
    })
}

fn hex(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        "-".to_owned()
    } else {
        rtd::ctl::payload::hex(bytes)
    }
}

/// What a refusal is, in one word.
fn word(e: &SendError) -> &'static str {
    match e {
        SendError::Full { .. } => "full",
        SendError::TooLarge { .. } => "too-large",
        SendError::PeerDead { .. } => "dead",
        SendError::Disconnected { .. } => "disconnected",
        SendError::Corrupt { .. } => "corrupt",
    }
}

/// `HEX`, or `HEX INTENDED`; answers the sequence or the refusal, and how long it took.
fn send(sender: &mut Sender, rest: &[&str]) -> anyhow::Result<String> {
    let began = monotonic_ns();
    let sent = match rest {
        [bytes] => sender.send(&unhex(bytes)?),
        [bytes, intended] => sender.send_at(intended.parse()?, &unhex(bytes)?),
        _ => bail!("send what?"),
    };
    let took = monotonic_ns() - began;
    Ok(match sent {
        Ok(sequence) => format!("{sequence} {took}\n"),
        Err(e) => format!("{} {took}\n", word(&e)),
    })
}

/// `flushed`, or how many are left, and why.
fn flush(sender: &mut Sender, ms: u64) -> String {
    match sender.flush(after(ms)) {
        Ok(()) => "flushed\n".to_owned(),
        Err(e) => format!(
            "{} {}\n",
            e.messages,
            e.why.map_or("slow", |why| word(&why))
        ),
    }
}

/// Each number once, never waiting; answers how many went in and how many found it full.
fn burst(sender: &mut Sender, from: u64, count: u64) -> String {
    let (mut sent, mut full, mut other) = (0, 0, 0);
    for n in from..from + count {
        match sender.try_send(&n.to_ne_bytes()) {
            Ok(_) => sent += 1,
            Err(SendError::Full { .. }) => full += 1,
            Err(_) => other += 1,
        }
    }
    format!("{sent} {full} {other}\n")
}

/// All of them, however long it takes.
fn stream(sender: &mut Sender, from: u64, count: u64) -> anyhow::Result<()> {
    let until = give_up_ns();
    for n in from..from + count {
        loop {
            match sender.send(&n.to_ne_bytes()) {
                Ok(_) => break,
                Err(SendError::Full { .. }) if monotonic_ns() < until => std::thread::yield_now(),
                Err(e) => bail!("number {n}: {e}"),
            }
        }
    }
    Ok(())
}

fn receive_with<T>(
    inbox: &mut Inbox,
    count: usize,
    until: u64,
    mut note: impl FnMut(&Message<'_>) -> T,
) -> anyhow::Result<Vec<T>> {
    let mut got = Vec::new();
    while got.len() < count {
        match inbox.recv_deadline(until)? {
            Some(Incoming::Message(message)) => got.push(note(&message)),
            Some(Incoming::Event(_)) => {}
            None => break,
        }
    }
    Ok(got)
}

/// Up to `count` messages and what happens meanwhile, a line each.
fn receive(inbox: &mut Inbox, count: usize, ms: u64) -> anyhow::Result<String> {
    let (mut data, mut n, until) = (String::new(), 0, after(ms));
    while n < count {
        match inbox.recv_deadline(until)? {
            Some(Incoming::Message(message)) => {
                n += 1;
                data += &message_line(&message);
            }
            Some(Incoming::Event(event)) => data += &event_line(&event),
            None => break,
        }
    }
    Ok(data)
}

/// Numbers with a pause after each, until none comes for so long; answers how many. They have to
/// increase.
fn drain(inbox: &mut Inbox, pause_us: u64, quiet_ms: u64) -> anyhow::Result<String> {
    let (mut count, mut last) = (0_u64, None);
    loop {
        let number = match inbox.recv_deadline(after(quiet_ms))? {
            Some(Incoming::Message(message)) => message.value::<u64>().context("not a number")?,
            Some(Incoming::Event(_)) => continue,
            None => return Ok(format!("{count}\n")),
        };
        anyhow::ensure!(last < Some(number), "{number} after {last:?}");
        (count, last) = (count + 1, Some(number));
        if pause_us > 0 {
            std::thread::sleep(Duration::from_micros(pause_us));
        }
    }
}

fn numbers(inbox: &mut Inbox, count: usize, ms: u64) -> anyhow::Result<String> {
    let got = receive_with(inbox, count, after(ms), |m| m.value::<u64>())?;
    got.into_iter()
        .map(|n| n.map(|n| format!("{n}\n")).context("not a number"))
        .collect()
}

fn message_line(m: &Message<'_>) -> String {
    let origin = m.origin();
    let (signo, value) = m.signal().unwrap_or((0, 0));
    format!(
        "m {} {} {} {} {} {} {} {} {} {} {} {} {} {signo} {value} {}\n",
        m.endpoint(),
        m.from(),
        m.lane(),
        m.route(),
        m.sequence(),
        m.missed(),
        m.intended_ns(),
        m.sent_ns(),
        m.correlation(),
        origin.pid,
        origin.uid,
        u8::from(origin.verified),
        m.mq_priority(),
        hex(m.bytes()),
    )
}

fn event_line(event: &Event) -> String {
    match event {
        Event::PeerLost { process, .. } => format!("e lost {process}\n"),
        Event::PeerBack { process, .. } => format!("e back {process}\n"),
        Event::Down => "e down -\n".to_owned(),
        Event::Up => "e up -\n".to_owned(),
        Event::Refused { reason } => format!("e refused {}\n", reason.replace(' ', "_")),
        Event::Lost { count, .. } => format!("e gone {count}\n"),
        Event::Corrupt { corrupt, .. } => {
            format!("e corrupt {}\n", corrupt.to_string().replace(' ', "_"))
        }
    }
}

/// As a foreign event loop would: waits in a set of its own, and takes one message at a time until
/// there is none. Answers how often it woke up, and how often for nothing; fails if it sleeps while
/// something is there.
fn by_epoll(inbox: &mut Inbox, count: usize) -> anyhow::Result<String> {
    let set = Epoll::new()?;
    set.add(inbox.as_fd(), 7)?;
    let (mut tokens, mut n, mut woke, mut idle) = (Vec::new(), 0_u64, 0, 0);
    while n < count as u64 {
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
            anyhow::ensure!(
                message.value() == Some(n),
                "number {n}, but {:?}",
                message.bytes()
            );
            n += 1;
        }
        idle += u64::from(n == before);
    }
    Ok(format!("{woke} {idle}\n"))
}

/// Inbox (priority 1), timer (2) and signal (3) in one wait, all ready; answers the keys in the
/// order they come.
fn one_wait(inbox: &mut Inbox, signo: i32) -> anyhow::Result<String> {
    let (timer, signals) = (Timer::new()?, SignalSource::new([signo])?);
    let mut waiter = Waiter::with_capacity(3)?;
    waiter.add(inbox, 1, 1, Interest::Readable)?;
    waiter.add(&timer, 2, 2, Interest::Readable)?;
    waiter.add(&signals, 3, 3, Interest::Readable)?;
    timer.at(monotonic_ns())?;
    let until = give_up_ns();
    loop {
        // What is only readable because it was never asked.
        let keys: Vec<u64> = waiter
            .wait(Some(until))?
            .iter()
            .map(|ready| ready.key)
            .collect();
        if keys.len() == 3 {
            let taken = signals.take().map(|got| got.value);
            let expired = timer.take();
            let message = receive_with(inbox, 1, after(0), |m| m.value::<u64>())?;
            while inbox.try_recv()?.is_some() {}
            let rest = waiter.wait(Some(after(0)))?.len();
            return Ok(format!("{keys:?}|{taken:?}|{expired}|{message:?}|{rest}\n"));
        }
        if monotonic_ns() > until {
            bail!("only {keys:?} are ready");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
