//! What tests say to a participant, and what it answers, as values.

use super::{Instance, Peer, patience};
use anyhow::Context as _;
use rtcore::sys::clock::nanos;
use rtcore::sys::poll::{self, Interest};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

/// A message as it was received: priority and bytes.
pub type Mail = (u32, Vec<u8>);

/// A signal as it was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rang {
    /// sigval.
    pub value: u64,
    /// si_pid.
    pub pid: u32,
    /// si_uid.
    pub uid: u32,
    /// The thread that took it.
    pub tid: i32,
}

impl Peer {
    /// One that has this queue open for sending.
    pub fn sender(queue: &str) -> anyhow::Result<Peer> {
        let mut peer = Peer::start()?;
        peer.tell(&format!("open send {queue}"))?;
        Ok(peer)
    }

    /// One that has this queue open for receiving.
    pub fn receiver(queue: &str) -> anyhow::Result<Peer> {
        let mut peer = Peer::start()?;
        peer.tell(&format!("open receive {queue}"))?;
        Ok(peer)
    }

    /// Blocks these signals, as who expects them does, and takes the name `name`.
    pub fn expect(
        &mut self,
        instance: &Instance,
        name: &str,
        signals: &[i32],
    ) -> anyhow::Result<()> {
        for signo in signals {
            self.tell(&format!("block {signo}"))?;
        }
        self.tell(&format!("register {} {name}", instance.socket()))?;
        Ok(())
    }

    /// Sends these bytes.
    pub fn send(&mut self, priority: u32, bytes: &[u8]) -> anyhow::Result<()> {
        let hex = if bytes.is_empty() {
            "-".to_owned()
        } else {
            rtd::ctl::payload::hex(bytes)
        };
        self.tell(&format!("send {priority} {hex}"))?;
        Ok(())
    }

    /// Sends numbers as payloads of 8 bytes.
    pub fn stream(&mut self, from: u64, count: u64) -> anyhow::Result<()> {
        self.tell(&format!("stream {from} {count}"))?;
        Ok(())
    }

    /// Waits for `count` messages; fewer when no more come.
    pub fn receive(&mut self, count: usize) -> anyhow::Result<Vec<Mail>> {
        self.mail(&format!("recv {count} {}", patience().as_millis()))
    }

    /// What is there now.
    pub fn rest(&mut self) -> anyhow::Result<Vec<Mail>> {
        self.mail("recv 1000000 0")
    }

    /// As `receive`, the payloads as numbers.
    pub fn numbers(&mut self, count: usize) -> anyhow::Result<Vec<u64>> {
        numbers(&self.receive(count)?)
    }

    /// Whether the answer to a command comes within this time.
    pub fn answers_within(&self, limit: Duration) -> anyhow::Result<bool> {
        let limit_ns = nanos(limit);
        let mut stdout = [Interest::readable(self.stdout.get_ref().as_raw_fd())];
        let ready = poll::wait(&mut stdout, limit_ns).map_err(|e| anyhow::anyhow!("{e:?}"))?;
        Ok(ready > 0)
    }

    /// The answer to a `recv` asked before, as numbers.
    pub fn answered_numbers(&mut self) -> anyhow::Result<Vec<u64>> {
        numbers(&parse_mail(&self.answer()?)?)
    }

    /// Waits for `count` signals; fewer when no more come.
    pub fn signals(&mut self, signo: i32, count: usize) -> anyhow::Result<Vec<Rang>> {
        let lines = self.tell(&format!(
            "sigwait {signo} {count} {}",
            patience().as_millis()
        ))?;
        rang(&lines)
    }

    /// The same in its second thread.
    pub fn second_signals(&mut self, signo: i32, count: usize) -> anyhow::Result<Vec<Rang>> {
        let lines = self.tell(&format!(
            "second sigwait {signo} {count} {}",
            patience().as_millis()
        ))?;
        rang(&lines)
    }

    /// Signals that are there now.
    pub fn pending(&mut self, signo: i32) -> anyhow::Result<Vec<Rang>> {
        rang(&self.tell(&format!("sigwait {signo} 1000000 0"))?)
    }

    /// Queues a signal, as sigqueue(3) does.
    pub fn ring(&mut self, pid: u32, signo: i32, value: u64) -> anyhow::Result<()> {
        self.tell(&format!("sigqueue {pid} {signo} {value}"))?;
        Ok(())
    }

    fn mail(&mut self, command: &str) -> anyhow::Result<Vec<Mail>> {
        parse_mail(&self.tell(command)?)
    }
}

fn parse_mail(lines: &[String]) -> anyhow::Result<Vec<Mail>> {
    let parse = |line: &String| {
        let (priority, hex) = line.split_once(' ').unwrap_or((line, ""));
        Ok((priority.parse()?, super::peer::unhex(hex)?))
    };
    lines.iter().map(parse).collect()
}

/// Payloads of 8 bytes as numbers.
pub fn numbers(mail: &[Mail]) -> anyhow::Result<Vec<u64>> {
    let number = |bytes: &Vec<u8>| bytes.as_slice().try_into().map(u64::from_ne_bytes);
    mail.iter()
        .map(|(_, bytes)| number(bytes).context("not a number"))
        .collect()
}

fn rang(lines: &[String]) -> anyhow::Result<Vec<Rang>> {
    let parse = |line: &String| {
        let mut words = line.split(' ');
        let mut next = || words.next().context("a word is missing");
        Ok(Rang {
            value: next()?.parse()?,
            pid: next()?.parse()?,
            uid: next()?.parse()?,
            tid: next()?.parse()?,
        })
    };
    lines.iter().map(parse).collect()
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
