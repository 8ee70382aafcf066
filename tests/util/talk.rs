//! What tests say to a participant that is a plain program, and what it answers.

use super::order::{
    Answer, Called, OneWait, Order, Process, Queue, Refused, Sealed, Second, Sent, Signal,
    Unflushed, Woke,
};
pub use super::order::{Mail, Rang};
use super::{Instance, Peer, patience};
use anyhow::{Context as _, bail};
use rtcore::sys::clock::nanos;
use rtcore::sys::poll::{self, Interest};
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::time::Duration;

/// A method for each kind of answer that takes it.
macro_rules! answers {
    ($($method:ident: $kind:ident -> $type:ty),* $(,)?) => {
        impl $crate::util::order::Answer {$(
            pub fn $method(self) -> anyhow::Result<$type> {
                match self {
                    Self::$kind(it) => Ok(it),
                    other => anyhow::bail!("not {}: {other:?}", stringify!($kind)),
                }
            }
        )*}
    };
}
pub(super) use answers;

answers! {
    is: Is -> bool,
    number: Number -> u64,
    numbers: Numbers -> Vec<u64>,
    text: Text -> String,
    lines: Lines -> Vec<String>,
    mail: Mail -> Vec<Mail>,
    rang: Rang -> Vec<Rang>,
    epoll: Epoll -> Woke,
    called: Called -> Called,
    message: Message -> Option<Vec<u8>>,
    one_wait: Waiter -> OneWait,
    sent: Sent -> Sent,
    sealed: Sealed -> Sealed,
    flushed: Flushed -> Result<(), Unflushed>,
    outcomes: Outcomes -> Vec<Option<Refused>>,
    from: From -> Vec<(u64, bool)>,
}

pub fn patience_ms() -> u64 {
    nanos(patience()) / 1_000_000
}

/// Starting and obeying.
impl Peer {
    /// One that has this queue open for sending.
    pub fn sender(queue: &str) -> anyhow::Result<Peer> {
        let mut peer = Peer::start()?;
        peer.open_to_send(queue)?;
        Ok(peer)
    }

    /// One that has this queue open for receiving.
    pub fn receiver(queue: &str) -> anyhow::Result<Peer> {
        let mut peer = Peer::start()?;
        peer.open_to_receive(queue)?;
        Ok(peer)
    }

    /// Gives an order, and waits for its answer.
    pub fn tell<'a>(&mut self, order: impl Into<Order<'a>>) -> anyhow::Result<Answer> {
        let order = order.into();
        self.say(&order)?;
        self.answer()
            .with_context(|| format!("peer, told {order:?}"))
    }

    /// Gives an order whose answer is fetched later.
    pub fn ask<'a>(&mut self, order: impl Into<Order<'a>>) -> anyhow::Result<()> {
        self.say(&order.into())
    }

    fn say(&mut self, order: &Order<'_>) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(order)?;
        line.push(b'\n');
        Ok(self.stdin.write_all(&line)?)
    }

    /// The next answer.
    pub fn answer(&mut self) -> anyhow::Result<Answer> {
        let line = self.line()?;
        serde_json::from_str::<Result<Answer, String>>(&line)?.map_err(anyhow::Error::msg)
    }

    /// The error of an order that has to fail, which says all these things.
    pub fn refused<'a>(
        &mut self,
        order: impl Into<Order<'a>>,
        says: &[&str],
    ) -> anyhow::Result<String> {
        let order = order.into();
        self.say(&order)?;
        let text = match self.answer() {
            Ok(answer) => bail!("{order:?} was not refused: {answer:?}"),
            Err(e) => e.to_string(),
        };
        let silent: Vec<_> = says.iter().filter(|says| !text.contains(*says)).collect();
        anyhow::ensure!(
            silent.is_empty(),
            "{order:?} does not say {silent:?}: {text}"
        );
        Ok(text)
    }

    /// Whether the answer to an order comes within this time.
    pub fn answers_within(&self, limit: Duration) -> anyhow::Result<bool> {
        let limit_ns = nanos(limit);
        let mut stdout = [Interest::readable(self.stdout.get_ref().as_raw_fd())];
        let ready = poll::wait(&mut stdout, limit_ns).map_err(|e| anyhow::anyhow!("{e:?}"))?;
        Ok(ready > 0)
    }
}

/// A liar's words, see the participant.
impl Peer {
    pub fn liar(&mut self, words: &str) -> anyhow::Result<Vec<String>> {
        self.ask_liar(words)?;
        let answer = self.answer();
        answer
            .with_context(|| format!("liar, told {words:?}"))?
            .lines()
    }

    /// The same, answered later.
    pub fn ask_liar(&mut self, words: &str) -> anyhow::Result<()> {
        self.ask(Order::Liar(words.split(' ').collect()))
    }
}

/// The process.
impl Peer {
    /// Number of the thread that obeys.
    pub fn tid(&mut self) -> anyhow::Result<u32> {
        Ok(self.tell(Process::Tid)?.number()?.try_into()?)
    }

    /// Number of the second thread.
    pub fn second_tid(&mut self) -> anyhow::Result<u32> {
        Ok(self.tell(Second::Tid)?.number()?.try_into()?)
    }

    /// Takes this name, without a session.
    pub fn register(&mut self, instance: &Instance, name: &str) -> anyhow::Result<()> {
        let socket = &instance.socket();
        self.tell(Process::Register { socket, name }).map(drop)
    }
}

/// Its queue.
impl Peer {
    pub fn open_to_send(&mut self, queue: &str) -> anyhow::Result<()> {
        self.tell(Queue::OpenToSend(queue)).map(drop)
    }

    pub fn open_to_receive(&mut self, queue: &str) -> anyhow::Result<()> {
        self.tell(Queue::OpenToReceive(queue)).map(drop)
    }

    /// Sends these bytes.
    pub fn send(&mut self, priority: u32, bytes: &[u8]) -> anyhow::Result<()> {
        let bytes = bytes.to_vec();
        self.tell(Queue::Send { priority, bytes }).map(drop)
    }

    /// Sends numbers as payloads of 8 bytes.
    pub fn stream(&mut self, from: u64, count: u64) -> anyhow::Result<()> {
        self.tell(Queue::Stream { from, count }).map(drop)
    }

    /// Waits for `count` messages; fewer when no more come.
    pub fn receive(&mut self, count: usize) -> anyhow::Result<Vec<Mail>> {
        self.receive_for(count as u64, patience_ms())
    }

    /// The same; no more come if none does for so long.
    pub fn receive_for(&mut self, count: u64, quiet_ms: u64) -> anyhow::Result<Vec<Mail>> {
        self.tell(Queue::Receive { count, quiet_ms })?.mail()
    }

    /// What is there now.
    pub fn rest(&mut self) -> anyhow::Result<Vec<Mail>> {
        self.receive_for(1_000_000, 0)
    }

    /// As `receive`, the payloads as numbers.
    pub fn numbers(&mut self, count: usize) -> anyhow::Result<Vec<u64>> {
        numbers(&self.receive(count)?)
    }

    /// As `receive_for`, the payloads as numbers.
    pub fn numbers_for(&mut self, count: u64, quiet_ms: u64) -> anyhow::Result<Vec<u64>> {
        numbers(&self.receive_for(count, quiet_ms)?)
    }

    /// The answer to a [`Queue::Receive`] that was asked before, as numbers.
    pub fn answered_numbers(&mut self) -> anyhow::Result<Vec<u64>> {
        numbers(&self.answer()?.mail()?)
    }
}

/// Its signals.
impl Peer {
    pub fn block(&mut self, signo: i32) -> anyhow::Result<()> {
        self.tell(Signal::Block(signo)).map(drop)
    }

    /// Blocks these signals, as a program that expects them does, and takes the name `name`.
    pub fn expect(
        &mut self,
        instance: &Instance,
        name: &str,
        signals: &[i32],
    ) -> anyhow::Result<()> {
        for signo in signals {
            self.block(*signo)?;
        }
        self.register(instance, name)
    }

    /// Waits for `count` signals; fewer when no more come.
    pub fn signals(&mut self, signo: i32, count: usize) -> anyhow::Result<Vec<Rang>> {
        self.signals_for(signo, count as u64, patience_ms())
    }

    /// The same; no more come if none does for so long.
    pub fn signals_for(
        &mut self,
        signo: i32,
        count: u64,
        quiet_ms: u64,
    ) -> anyhow::Result<Vec<Rang>> {
        self.tell(Signal::Take {
            signo,
            count,
            quiet_ms,
        })?
        .rang()
    }

    /// The same, their values alone.
    pub fn values_for(
        &mut self,
        signo: i32,
        count: u64,
        quiet_ms: u64,
    ) -> anyhow::Result<Vec<u64>> {
        let rang = self.signals_for(signo, count, quiet_ms)?;
        Ok(rang.iter().map(|rang| rang.value).collect())
    }

    /// As `signals`, in its second thread.
    pub fn second_signals(&mut self, signo: i32, count: usize) -> anyhow::Result<Vec<Rang>> {
        let (count, quiet_ms) = (count as u64, patience_ms());
        self.tell(Second::Take {
            signo,
            count,
            quiet_ms,
        })?
        .rang()
    }

    /// Signals that are there now.
    pub fn pending(&mut self, signo: i32) -> anyhow::Result<Vec<Rang>> {
        self.signals_for(signo, 1_000_000, 0)
    }

    /// Queues a signal, as sigqueue(3) does.
    pub fn ring(&mut self, pid: u32, signo: i32, value: u64) -> anyhow::Result<()> {
        self.tell(Signal::Queue { pid, signo, value }).map(drop)
    }
}

/// Payloads of 8 bytes as numbers.
pub fn numbers(mail: &[Mail]) -> anyhow::Result<Vec<u64>> {
    let number = |bytes: &Vec<u8>| bytes.as_slice().try_into().map(u64::from_ne_bytes);
    mail.iter()
        .map(|(_, bytes)| number(bytes).context("not a number"))
        .collect()
}

/// Bytes from hexadecimal; `-` is none.
pub fn unhex(hex: &str) -> anyhow::Result<Vec<u8>> {
    if hex == "-" {
        return Ok(Vec::new());
    }
    (0..hex.len())
        .step_by(2)
        .map(|i| Ok(u8::from_str_radix(hex.get(i..i + 2).context("odd")?, 16)?))
        .collect()
}

/// kill(2) by a shell, which knows nothing of ours; answers the sender's pid.
pub fn shell_kill(pid: u32, signo: i32) -> anyhow::Result<u32> {
    let script = format!("kill -{signo} {pid}");
    let mut shell = std::process::Command::new("sh")
        .args(["-c", &script])
        .spawn()?;
    let sender = shell.id();
    anyhow::ensure!(shell.wait()?.success(), "{script} failed");
    Ok(sender)
}
