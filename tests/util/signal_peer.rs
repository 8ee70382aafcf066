//! A participant that links the client library for its signals: told what to do line by line, as
//! `peer.rs`.

use super::peer::{Answer, serve, unhex};
use super::{patience, patience_ns};
use anyhow::{Context as _, bail, ensure};
use rtcore::client::signals::{Flags, Notice, Signals};
use rtcore::client::{Sender, Session};
use rtcore::skin::Skin;
use rtcore::sys::rtsignal::{self, SignalSet};
use rtcore::sys::{Errno, clock, sched};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

/// What handlers and orders share.
#[derive(Default)]
struct Log {
    lines: Mutex<Vec<Line>>,
    grown: Condvar,
    /// Handlers wait while it is set.
    held: Mutex<bool>,
    released: Condvar,
}

struct Line {
    text: String,
    value: u64,
}

/// What one participant has of the library.
#[derive(Default)]
pub struct Life {
    /// Linux's calls where there is none.
    skin: Option<&'static Skin>,
    log: Arc<Log>,
    session: Option<Arc<Session>>,
    sender: Option<Sender>,
    signals: Option<Arc<Signals>>,
    /// A dispatcher that one of its handlers replaces.
    replaced: Arc<Mutex<Option<Arc<Signals>>>>,
}

/// Body of a `--signal-peer` process.
pub fn main() -> std::process::ExitCode {
    let mut life = Life::default();
    serve(|words| life.obey(words))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

impl Log {
    fn note(&self, notice: &Notice<'_>) {
        let (pid, verified) = (notice.origin.pid, u32::from(notice.origin.verified));
        let (from, sequence) = notice
            .head
            .map_or(("-", 0), |head| (head.from(), head.sequence()));
        let hex = match notice.payload {
            [] => "-".to_owned(),
            bytes => rtd::ctl::payload::hex(bytes),
        };
        let text = format!(
            "{} {} {pid} {verified} {from} {sequence} {hex}",
            notice.signo, notice.value
        );
        locked(&self.lines).push(Line {
            text,
            value: notice.value,
        });
        self.grown.notify_all();
    }
}

impl Life {
    /// With a session on this skin.
    pub fn on(skin: &'static Skin) -> Life {
        Life {
            skin: Some(skin),
            ..Life::default()
        }
    }

    pub fn obey(&mut self, words: &[&str]) -> Answer {
        let mut data = String::new();
        match words {
            ["name", hex] => std::fs::write("/proc/thread-self/comm", unhex(hex)?)?,
            ["tid"] => data = format!("{}\n", sched::gettid()),
            ["block", signo] => Signals::block([signo.parse()?])?,
            ["sigpending", limit] => super::peer::limit_sigpending(limit.parse()?)?,
            ["register", socket, name] => rtd::ctl::register::this_process(socket.as_ref(), name)?,
            ["session", socket, name] => {
                let builder = Session::builder(name).socket(*socket).timeout(patience());
                let builder = self.skin.map_or(builder.clone(), |skin| builder.skin(skin));
                self.session = Some(Arc::new(builder.connect()?));
            }
            ["session-end"] => self.session = None,
            ["dispatcher-end"] => self.signals = None,
            ["sender", endpoint] => self.sender = Some(self.session()?.sender(endpoint)?),
            ["send", hex] => self.send(&unhex(hex)?)?,
            ["stream", from, count, len] => {
                self.stream(from.parse()?, count.parse()?, len.parse()?)?
            }
            ["handle", signo] => self.handle(signo.parse()?, Flags::new())?,
            ["handle", signo, from] => {
                let is = self.session()?.is(from);
                let flags = Flags::new().only_from(move |origin| origin.verified && is(origin));
                self.handle(signo.parse()?, flags)?;
            }
            // The first signal has its handler drop the dispatcher and open the next one.
            ["replace-in-handler", signo] => self.replace_in_handler(signo.parse()?)?,
            ["hold"] => *locked(&self.log.held) = true,
            ["release"] => {
                *locked(&self.log.held) = false;
                self.log.released.notify_all();
            }
            // As `SIGNO VALUE PID VERIFIED FROM SEQUENCE HEX` lines.
            ["notices", count] => {
                let lines = self.grown_to(count.parse()?)?;
                data = lines
                    .iter()
                    .map(|line| format!("{}\n", line.text))
                    .collect();
            }
            // That the values count up from there, without any more.
            ["counted", from, count] => {
                let (from, count): (u64, usize) = (from.parse()?, count.parse()?);
                let lines = self.grown_to(count)?;
                let wrong = (from..)
                    .zip(lines.iter())
                    .find(|(n, line)| *n != line.value);
                ensure!(
                    wrong.is_none(),
                    "{:?}",
                    wrong.map(|(n, line)| (n, &line.text))
                );
                ensure!(lines.len() == count, "{} came, not {count}", lines.len());
            }
            ["counters"] => {
                let c = self.signals.as_ref().context("no dispatcher")?.counters();
                data = format!(
                    "{} {} {} {}\n",
                    c.received, c.unhandled, c.doorbells, c.duplicates
                );
            }
            // Queues signals to itself until the kernel has no room; says how many.
            ["spend", signo] => data = format!("{}\n", spend(signo.parse()?)?),
            ["take-all", signo] => {
                while rtsignal::try_wait(&SignalSet::of([signo.parse()?])).is_ok() {}
            }
            ["queue", signo, value] => {
                let queued =
                    rtsignal::queue_to_pid(sched::getpid(), signo.parse()?, value.parse()?);
                queued.map_err(|e| anyhow::anyhow!("{e:?}"))?;
            }
            other => bail!("what is {other:?}?"),
        }
        Ok(data)
    }

    fn session(&self) -> anyhow::Result<&Session> {
        self.session.as_deref().context("no session")
    }

    fn send(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let sender = self.sender.as_mut().context("no sender")?;
        sender.send(bytes)?;
        Ok(())
    }

    /// Numbers, each in the first 8 bytes of a payload of `len`; a daemon that is away or has no
    /// room is waited for.
    fn stream(&mut self, from: u64, count: u64, len: usize) -> anyhow::Result<()> {
        let until_ns = clock::monotonic_ns() + 3 * patience_ns();
        let mut payload = vec![0xa5; len.max(8)];
        for n in from..from + count {
            payload[..8].copy_from_slice(&n.to_ne_bytes());
            let sender = self.sender.as_mut().context("no sender")?;
            while let Err(e) = sender.try_send(&payload) {
                ensure!(clock::monotonic_ns() < until_ns, "message {n}: {e}");
                std::thread::yield_now();
            }
        }
        Ok(())
    }

    fn handle(&mut self, signo: i32, flags: Flags) -> anyhow::Result<()> {
        let log = Arc::clone(&self.log);
        if self.signals.is_none() {
            self.signals = Some(self.session()?.signals()?);
        }
        let signals = self.signals.as_ref().context("no dispatcher")?;
        signals.register(signo, flags, move |notice| {
            let mut held = locked(&log.held);
            while *held {
                held = log.released.wait(held).unwrap_or_else(|e| e.into_inner());
            }
            drop(held);
            log.note(notice);
        })?;
        Ok(())
    }

    fn replace_in_handler(&mut self, signo: i32) -> anyhow::Result<()> {
        let (log, place) = (Arc::clone(&self.log), Arc::clone(&self.replaced));
        let mut session = Some(Arc::clone(self.session.as_ref().context("no session")?));
        let first = self.session()?.signals()?;
        first.register(signo, Flags::new(), move |notice| {
            log.note(notice);
            let Some(session) = session.take() else {
                return;
            };
            drop(locked(&place).take());
            let log = Arc::clone(&log);
            let next = session.signals().and_then(|next| {
                next.register(signo, Flags::new(), move |notice| log.note(notice))
                    .map(|_| next)
            });
            // What went wrong shows by what never comes.
            *locked(&place) = next.ok();
        })?;
        *locked(&self.replaced) = Some(first);
        Ok(())
    }

    /// Waits for so many lines.
    fn grown_to(&self, count: usize) -> anyhow::Result<MutexGuard<'_, Vec<Line>>> {
        let lines = locked(&self.log.lines);
        let waited = self
            .log
            .grown
            .wait_timeout_while(lines, 3 * patience(), |lines| lines.len() < count);
        let (lines, timeout) = waited.unwrap_or_else(|e| e.into_inner());
        ensure!(!timeout.timed_out(), "{} notices of {count}", lines.len());
        Ok(lines)
    }
}

fn spend(signo: i32) -> anyhow::Result<u64> {
    for n in 0.. {
        match rtsignal::queue_to_pid(sched::getpid(), signo, 0) {
            Ok(()) => {}
            Err(Errno::AGAIN) => return Ok(n),
            Err(e) => bail!("{e:?}"),
        }
    }
    Ok(0)
}
