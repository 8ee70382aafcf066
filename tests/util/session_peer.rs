//! The part of a participant that links the library: its session, told what to do by lines that
//! begin with `session`.
//!
//! What it received it says in one line for each unbroken run of numbers, so that a stream of any
//! length is a few lines; `util::session` reads them.

use super::peer::unhex;
use super::{patience, patience_ns};
use anyhow::{Context as _, bail};
use rtcore::client::{Builder, Event, Inbox, Incoming, PeerStatus, SendError, Sender, Session};
use rtcore::lane::peer::PeerState;
use rtcore::skin::Skin;
use rtcore::sys::clock::{monotonic_ns, sleep_until};
use rtcore::sys::pidfd::Ending;
use rtcore::sys::{poll, sched};
use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::io::Write as _;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread::JoinHandle;

/// What one participant has of the library.
#[derive(Default)]
pub struct Links {
    /// Linux's calls where there is none.
    skin: Option<&'static Skin>,
    pub(super) senders: BTreeMap<String, Sender>,
    pub(super) inbox: Option<Inbox>,
    pub(super) session: Option<Session>,
    flood: Option<Flood>,
}

/// A thread that sends until it is told to stop.
struct Flood {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(Sender, String)>,
}

/// An error with its variant in front, so that a test can tell which it is.
fn told<E: std::error::Error + Send + Sync + 'static>(e: E) -> anyhow::Error {
    anyhow::anyhow!("{e:?}: {e}")
}

impl Links {
    /// With sessions on this skin.
    pub fn on(skin: &'static Skin) -> Links {
        Links {
            skin: Some(skin),
            ..Links::default()
        }
    }

    pub(super) fn builder(&self, name: &str) -> Builder {
        let builder = Session::builder(name).timeout(patience());
        self.skin.map_or(builder.clone(), |skin| builder.skin(skin))
    }

    pub fn obey(&mut self, words: &[&str]) -> anyhow::Result<String> {
        let mut data = String::new();
        match words {
            ["open", socket, name] => {
                self.session = Some(self.builder(name).socket(*socket).connect().map_err(told)?);
            }
            ["open-within", limit_ms, socket, name] => {
                let limit = std::time::Duration::from_millis(limit_ms.parse()?);
                let builder = self.builder(name).timeout(limit).socket(*socket);
                self.session = Some(builder.connect().map_err(told)?);
            }
            ["open-instance", instance, name] => {
                self.session = Some(
                    self.builder(name)
                        .instance(instance)
                        .connect()
                        .map_err(told)?,
                );
            }
            // A second one in the same process.
            ["again", socket, name] => {
                drop(
                    Session::builder(name)
                        .socket(*socket)
                        .connect()
                        .map_err(told)?,
                );
            }
            ["close"] => self.session = None,
            ["state"] => data = format!("{:?}\n", self.session()?.state()),
            ["sender", endpoint] => {
                let sender = self.session()?.sender(endpoint).map_err(told)?;
                self.senders.insert((*endpoint).to_owned(), sender);
            }
            ["inbox"] => self.inbox = Some(self.session()?.inbox().map_err(told)?),
            ["inbox", endpoints @ ..] => {
                self.inbox = Some(self.session()?.inbox_of(endpoints).map_err(told)?);
            }
            ["no-inbox"] => self.inbox = None,
            // What an inbox receives that was opened, and slept, while another one had everything.
            ["waits-for-another"] => {
                let (first, mut second) = (self.session()?.inbox()?, self.session()?.inbox()?);
                let (tell, told) = std::sync::mpsc::channel();
                let waiter = std::thread::spawn(move || {
                    let _ = tell.send(sched::gettid().unsigned_abs());
                    loop {
                        match second.recv() {
                            Ok(Incoming::Message(m)) => return m.bytes().to_vec(),
                            Ok(Incoming::Event(_)) => {}
                            Err(_) => return Vec::new(),
                        }
                    }
                });
                let (pid, tid) = (std::process::id(), told.recv()?);
                super::eventually(|| {
                    (super::kernel::thread(pid, tid).ok()?.state == 'S').then_some(())
                })?;
                drop(first);
                let bytes = waiter.join().map_err(|_| anyhow::anyhow!("it panicked"))?;
                data = format!("{}\n", u64::from_ne_bytes(bytes.as_slice().try_into()?));
            }
            // Two threads claim the endpoint at once, so many times: in how many rounds not exactly
            // one had it.
            ["race", endpoint, rounds] => {
                let (session, start) = (self.session()?, Barrier::new(2));
                let claim = || {
                    start.wait();
                    session.inbox_of(&[endpoint])
                };
                let mut wrong = 0;
                for _ in 0..rounds.parse::<u64>()? {
                    let [a, b] = std::thread::scope(|scope| {
                        [scope.spawn(claim), scope.spawn(claim)].map(|thread| thread.join())
                    });
                    let had = [&a, &b]
                        .into_iter()
                        .filter(|claimed| matches!(claimed, Ok(Ok(_))))
                        .count();
                    wrong += u64::from(had != 1);
                }
                data = format!("{wrong}\n");
            }
            // Until somebody receives.
            ["wait", endpoint] => {
                let until_ns = monotonic_ns() + patience_ns();
                self.sender(endpoint)?
                    .wait_for_receiver(until_ns)
                    .map_err(told)?;
            }
            ["send", endpoint, hex] => {
                let sent = self.sender(endpoint)?.send(&unhex(hex)?);
                writeln!(data, "{}", sent.map_err(told)?)?;
            }
            ["number", endpoint, number] => {
                let bytes = number.parse::<u64>()?.to_ne_bytes();
                writeln!(
                    data,
                    "{}",
                    self.sender(endpoint)?.send(&bytes).map_err(told)?
                )?;
            }
            // Numbers from `from` on until one is refused: how many went, and why no more.
            ["fill", endpoint, from] => {
                let sender = self.sender(endpoint)?;
                for number in from.parse::<u64>()?.. {
                    if let Err(e) = sender.try_send(&number.to_ne_bytes()) {
                        write!(data, "{}\n{e:?}: {e}\n", number - from.parse::<u64>()?)?;
                        break;
                    }
                }
            }
            // Numbers from `from` on with a pause after each, by the skin's own clock.
            ["pace", endpoint, from, count, pause_us] => {
                let skin = self.skin.unwrap_or_else(rtcore::skin::posix);
                let (from, count): (u64, u64) = (from.parse()?, count.parse()?);
                let pause_ns = pause_us.parse::<u64>()? * 1000;
                let sender = self.sender(endpoint)?;
                for number in from..from + count {
                    // Quicker than the lane takes them: again after the pause.
                    while let Err(e) = sender.send(&number.to_ne_bytes()) {
                        if !matches!(e, SendError::Full { .. }) {
                            return Err(told(e));
                        }
                        (skin.sleep_until)((skin.now_ns)() + pause_ns);
                    }
                    (skin.sleep_until)((skin.now_ns)() + pause_ns);
                }
            }
            // Makes this thread real-time below the lane.
            ["promote", lane] => {
                let granted = self
                    .session()?
                    .realtime()
                    .lane(lane)
                    .below(1)
                    .lock_memory(false)
                    .enter();
                data = format!("{}\n", granted.map_err(told)?.priority());
            }
            // As `recv`, for one message that is waited for by the inbox' descriptor.
            ["polled", quiet_ms] => {
                let inbox = self.inbox.as_mut().context("no inbox")?;
                let until_ns = monotonic_ns() + quiet_ms.parse::<u64>()? * 1_000_000;
                while monotonic_ns() < until_ns {
                    let fd = inbox.as_fd().as_raw_fd();
                    let ready = poll::wait(
                        &mut [poll::Interest::readable(fd)],
                        until_ns - monotonic_ns(),
                    );
                    ready.map_err(|e| anyhow::anyhow!("{e:?}"))?;
                    if let Some(Incoming::Message(message)) = inbox.try_recv().map_err(told)? {
                        data = format!("{}\n", rtd::ctl::payload::hex(message.bytes()));
                        break;
                    }
                }
            }
            // Half a message, and never the other half: who is killed now dies in the middle of a
            // send.
            ["loan", endpoint, len] => {
                let mut loan = self.sender(endpoint)?.loan(len.parse()?).map_err(told)?;
                let half = loan.len() / 2;
                loan[..half].fill(0xAA);
                std::mem::forget(loan);
            }
            // Sends numbers from 1 on and says each that was sent; never ends by itself.
            ["report", endpoint] => {
                let sender = self.sender(endpoint)?;
                for number in 1_u64.. {
                    sender.send(&number.to_ne_bytes()).map_err(told)?;
                    let mut out = std::io::stdout().lock();
                    writeln!(out, "{number}")?;
                    out.flush()?;
                }
            }
            ["fork", rest @ ..] => data = self.fork(rest)?,
            ["flood", endpoint, pause_us] => self.flood(endpoint, pause_us.parse()?)?,
            ["flooded"] => data = self.flooded()?,
            // So many messages and events; fewer when none comes for so long.
            ["recv", count, quiet_ms] => {
                let count: usize = count.parse()?;
                data = self.receive(quiet_ms.parse()?, |_, seen| seen == count)?;
            }
            // Everything up to the item whose line begins so.
            ["until", quiet_ms, rest @ ..] => {
                let (exactly, first_words) = (rest.join(" "), rest.join(" ") + " ");
                let came = |item: &str, _| item == exactly || item.starts_with(&first_words);
                data = self.receive(quiet_ms.parse()?, came)?;
            }
            // Whether the session knows the process to be alive.
            ["lives", process] => {
                let peers = self.session()?.peers();
                let lives = |peer: &&PeerStatus| {
                    peer.state == PeerState::Alive && peer.process.as_str() == *process
                };
                data = format!("{}\n", peers.iter().any(|peer| lives(&peer)));
            }
            // So many messages: the number of each, and whether the process of this name sent it.
            ["is", process, count] => {
                let is_it = self.session()?.is(process);
                let inbox = self.inbox.as_mut().context("no inbox")?;
                for _ in 0..count.parse::<usize>()? {
                    let message = loop {
                        let until_ns = monotonic_ns() + patience_ns();
                        match inbox
                            .recv_deadline(until_ns)
                            .map_err(told)?
                            .context("no message")?
                        {
                            Incoming::Message(message) => {
                                break (message.bytes().to_vec(), message.origin());
                            }
                            Incoming::Event(_) => {}
                        }
                    };
                    let number = u64::from_ne_bytes(message.0.as_slice().try_into()?);
                    writeln!(data, "{number} {}", is_it(&message.1))?;
                }
            }
            ["counters"] => {
                data = format!(
                    "{:?}\n",
                    self.inbox.as_ref().context("no inbox")?.counters()
                );
            }
            other => bail!("what is {other:?}?"),
        }
        Ok(data)
    }

    fn session(&self) -> anyhow::Result<&Session> {
        self.session.as_ref().context("no session")
    }

    pub(super) fn sender(&mut self, endpoint: &str) -> anyhow::Result<&mut Sender> {
        self.senders
            .get_mut(endpoint)
            .with_context(|| format!("no sender {endpoint}"))
    }

    fn flood(&mut self, endpoint: &str, pause_us: u64) -> anyhow::Result<()> {
        let mut sender = self
            .senders
            .remove(endpoint)
            .with_context(|| format!("no sender {endpoint}"))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut attempts = Attempts::default();
            while !stopped.load(Ordering::Relaxed) {
                attempts.next(&mut sender);
                sleep_until(monotonic_ns() + pause_us * 1000);
            }
            attempts.flush();
            (sender, attempts.text)
        });
        self.flood = Some(Flood { stop, thread });
        Ok(())
    }

    fn flooded(&mut self) -> anyhow::Result<String> {
        let Flood { stop, thread } = self.flood.take().context("no flood")?;
        stop.store(true, Ordering::Relaxed);
        let (sender, text) = thread
            .join()
            .map_err(|_| anyhow::anyhow!("the flood panicked"))?;
        self.senders.insert(sender.endpoint().to_owned(), sender);
        Ok(text)
    }

    fn receive(
        &mut self,
        quiet_ms: u64,
        mut done: impl FnMut(&str, usize) -> bool,
    ) -> anyhow::Result<String> {
        let inbox = self.inbox.as_mut().context("no inbox")?;
        let mut runs = Runs::default();
        let mut seen = 0;
        loop {
            let deadline_ns = monotonic_ns() + quiet_ms * 1_000_000;
            let item = match inbox.recv_deadline(deadline_ns).map_err(told)? {
                None => break,
                Some(Incoming::Event(event)) => runs.event(event),
                Some(Incoming::Message(m)) => {
                    let received_ns = m.received_ns();
                    match m.bytes().try_into().map(u64::from_ne_bytes) {
                        Ok(number) => runs.number(Run {
                            from: m.from().to_owned(),
                            sequence: m.sequence(),
                            number,
                            count: 1,
                            missed: m.missed(),
                            received_ns,
                            pid: m.origin().pid,
                            verified: m.origin().verified,
                        }),
                        Err(_) => runs.bytes(m.from(), m.bytes()),
                    }
                }
            };
            seen += 1;
            if done(&item, seen) {
                break;
            }
        }
        runs.flush();
        Ok(runs.text)
    }
}

/// What became of each number that a flood tried to send: runs of the same answer.
#[derive(Default)]
struct Attempts {
    text: String,
    number: u64,
    /// Answer, first number, first sequence, how many, longest call.
    run: Option<(&'static str, u64, u64, u64, u64)>,
}

impl Attempts {
    fn next(&mut self, sender: &mut Sender) {
        self.number += 1;
        let from_ns = monotonic_ns();
        let sent = sender.send(&self.number.to_ne_bytes());
        let took_ns = monotonic_ns() - from_ns;
        let (answer, sequence) = match sent {
            Ok(sequence) => ("ok", sequence),
            Err(SendError::Full { .. }) => ("full", 0),
            Err(SendError::TooLarge { .. }) => ("large", 0),
            Err(SendError::PeerDead { .. }) => ("dead", 0),
            Err(SendError::Disconnected { .. }) => ("down", 0),
            Err(SendError::Corrupt { .. }) => ("corrupt", 0),
        };
        match &mut self.run {
            // A gap in the sequence ends a run as well.
            Some((of, _, first, count, longest_ns))
                if *of == answer && (answer != "ok" || *first + *count == sequence) =>
            {
                *count += 1;
                *longest_ns = took_ns.max(*longest_ns);
            }
            _ => {
                self.flush();
                self.run = Some((answer, self.number, sequence, 1, took_ns));
            }
        }
    }

    fn flush(&mut self) {
        if let Some((answer, number, sequence, count, longest_ns)) = self.run.take() {
            let _ = writeln!(
                self.text,
                "{answer} {number} {sequence} {count} {longest_ns}"
            );
        }
    }
}

/// Consecutive numbers with consecutive sequences from one sender.
struct Run {
    from: String,
    sequence: u64,
    number: u64,
    count: u64,
    missed: u64,
    /// Of the first.
    received_ns: u64,
    pid: u32,
    verified: bool,
}

#[derive(Default)]
struct Runs {
    text: String,
    run: Option<Run>,
}

impl Runs {
    fn number(&mut self, next: Run) -> String {
        let item = format!("number {}", next.number);
        match &mut self.run {
            Some(run)
                if (run.from == next.from
                    && run.pid == next.pid
                    && run.verified == next.verified)
                    && run.number.wrapping_add(run.count) == next.number
                    && run.sequence + run.count == next.sequence
                    && next.missed == 0 =>
            {
                run.count += 1;
            }
            _ => {
                self.flush();
                self.run = Some(next);
            }
        }
        item
    }

    fn bytes(&mut self, from: &str, bytes: &[u8]) -> String {
        self.line(format!("bytes {from} {}", rtd::ctl::payload::hex(bytes)))
    }

    fn event(&mut self, event: Event) -> String {
        let how =
            |ending: Option<Ending>| ending.map_or("unknown".to_owned(), |e| format!("{e:?}"));
        self.line(match event {
            Event::PeerLost {
                process,
                pid,
                ending,
            } => format!("event lost {process} {pid} {}", how(ending)),
            Event::PeerBack { process, pid } => format!("event back {process} {pid}"),
            Event::Down => "event down".to_owned(),
            Event::Up => "event up".to_owned(),
            Event::Refused { reason } => format!("event refused {reason}"),
            Event::Lost { endpoint, count } => format!("event messages {endpoint} {count}"),
            Event::Corrupt {
                endpoint,
                other,
                corrupt,
            } => {
                format!("event corrupt {endpoint} {other} {corrupt:?}")
            }
        })
    }

    fn line(&mut self, line: impl Display) -> String {
        self.flush();
        let line = line.to_string();
        self.text.push_str(&line);
        self.text.push('\n');
        line
    }

    fn flush(&mut self) {
        let Some(run) = self.run.take() else { return };
        let Run {
            from,
            sequence,
            number,
            count,
            missed,
            received_ns,
            pid,
            verified,
        } = run;
        let _ = writeln!(
            self.text,
            "run {from} {sequence} {number} {count} {missed} {received_ns} {pid} {verified}"
        );
    }
}
