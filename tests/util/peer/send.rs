//! What a participant sends by its session.

use super::super::order::{Answer, Refused, Send as Order, Sent, Tried, Unflushed};
use super::super::patience_ns;
use super::receive::{after, give_up_ns};
use super::session::{Client, told};
use anyhow::{Context as _, bail, ensure};
use rtcore::client::{SendError, Sender};
use rtcore::sys::clock::{monotonic_ns, sleep_until};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// A thread that sends until it is told to stop.
pub struct Flood {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(Sender, Vec<Tried>)>,
}

impl Client {
    pub fn send_order(&mut self, order: Order<'_>) -> anyhow::Result<Answer> {
        match order {
            Order::Claim(endpoint) => {
                let sender = self.session()?.sender(endpoint).map_err(told)?;
                self.senders.insert(endpoint.to_owned(), sender);
            }
            Order::Reach(endpoint) => {
                let sender = self.sender(endpoint)?;
                sender.wait_for_receiver(give_up_ns()).map_err(told)?;
            }
            Order::Bytes { endpoint, bytes } => {
                let sent = self.sender(endpoint)?.send(&bytes);
                return Ok(Answer::Number(sent.map_err(told)?));
            }
            Order::Timed {
                endpoint,
                bytes,
                intended_ns,
            } => return Ok(timed(self.sender(endpoint)?, &bytes, intended_ns)),
            Order::Fill { endpoint, from } => return fill(self.sender(endpoint)?, from),
            Order::Burst {
                endpoint,
                from,
                count,
            } => return Ok(burst(self.sender(endpoint)?, from, count)),
            Order::Outcomes {
                endpoint,
                from,
                count,
            } => {
                let sender = self.sender(endpoint)?;
                let outcome = |n: u64| sender.try_send(&n.to_ne_bytes()).err();
                let all = (from..from + count).map(outcome);
                let all = all.map(|refusal| refusal.as_ref().map(Refused::from));
                return Ok(Answer::Outcomes(all.collect()));
            }
            Order::Stream {
                endpoint,
                from,
                count,
            } => stream(self.sender(endpoint)?, from, count)?,
            Order::Press {
                endpoint,
                from,
                count,
                len,
            } => press(self.sender(endpoint)?, from, count, len)?,
            Order::Pace {
                endpoint,
                from,
                count,
                pause_us,
            } => self.pace(endpoint, from, count, pause_us * 1000)?,
            Order::Hammer { endpoint, ms } => {
                let (sender, until_ns) = (self.sender(endpoint)?, after(ms));
                while monotonic_ns() < until_ns {
                    let _ = burst(sender, 0, 64);
                }
            }
            Order::Flood { endpoint, pause_us } => self.flood(endpoint, pause_us)?,
            Order::Flooded => return self.flooded(),
            Order::Report(endpoint) => {
                let sender = self.sender(endpoint)?;
                for number in 1_u64.. {
                    sender.send(&number.to_ne_bytes()).map_err(told)?;
                    super::say(Ok(Answer::Number(number)))?;
                }
            }
            Order::Loan { endpoint, len } => {
                let mut loan = self.sender(endpoint)?.loan(len).map_err(told)?;
                let half = loan.len() / 2;
                loan[..half].fill(0xAA);
                std::mem::forget(loan);
            }
            Order::Pending(endpoint) => {
                return Ok(Answer::Number(self.sender(endpoint)?.pending()));
            }
            Order::Flush { endpoint, ms } => {
                let flushed = self.sender(endpoint)?.flush(after(ms));
                return Ok(Answer::Flushed(flushed.map_err(|e| Unflushed {
                    messages: e.messages,
                    why: e.why.as_ref().map(Refused::from),
                })));
            }
        }
        Ok(Answer::Done)
    }

    fn pace(&mut self, endpoint: &str, from: u64, count: u64, pause_ns: u64) -> anyhow::Result<()> {
        let skin = self.skin.unwrap_or_else(rtcore::skin::posix);
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
        Ok(())
    }

    fn flood(&mut self, endpoint: &str, pause_us: u64) -> anyhow::Result<()> {
        let sender = self.senders.remove(endpoint);
        let mut sender = sender.with_context(|| format!("no sender {endpoint}"))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut all, mut number) = (Vec::new(), 0);
            while !stopped.load(Ordering::Relaxed) {
                number += 1;
                attempt(&mut sender, number, &mut all);
                sleep_until(monotonic_ns() + pause_us * 1000);
            }
            (sender, all)
        });
        self.flood = Some(Flood { stop, thread });
        Ok(())
    }

    fn flooded(&mut self) -> anyhow::Result<Answer> {
        let Flood { stop, thread } = self.flood.take().context("no flood")?;
        stop.store(true, Ordering::Relaxed);
        let ended = thread.join();
        let (sender, tried) = ended.map_err(|_| anyhow::anyhow!("the flood panicked"))?;
        self.senders.insert(sender.endpoint().to_owned(), sender);
        Ok(Answer::Tried(tried))
    }
}

/// Sends a number, and adds what became of it to the last run or begins the next.
fn attempt(sender: &mut Sender, number: u64, all: &mut Vec<Tried>) {
    let from_ns = monotonic_ns();
    let sent = sender.send(&number.to_ne_bytes());
    let took_ns = monotonic_ns() - from_ns;
    let (refused, sequence) = match sent {
        Ok(sequence) => (None, sequence),
        Err(e) => (Some(Refused::from(&e)), 0),
    };
    match all.last_mut() {
        // A gap in the sequence ends a run as well.
        Some(run)
            if run.refused == refused
                && (refused.is_some() || run.sequence + run.count == sequence) =>
        {
            run.count += 1;
            run.longest_ns = took_ns.max(run.longest_ns);
        }
        _ => all.push(Tried {
            refused,
            number,
            sequence,
            count: 1,
            longest_ns: took_ns,
        }),
    }
}

fn timed(sender: &mut Sender, bytes: &[u8], intended_ns: Option<u64>) -> Answer {
    let began = monotonic_ns();
    let sent = match intended_ns {
        None => sender.send(bytes),
        Some(intended_ns) => sender.send_at(intended_ns, bytes),
    };
    let took_ns = monotonic_ns() - began;
    let sent = sent.map_err(|e| Refused::from(&e));
    Answer::Sent(Sent { sent, took_ns })
}

fn fill(sender: &mut Sender, from: u64) -> anyhow::Result<Answer> {
    for number in from.. {
        if let Err(e) = sender.try_send(&number.to_ne_bytes()) {
            return Ok(Answer::Filled {
                sent: number - from,
                why: format!("{e:?}: {e}"),
            });
        }
    }
    bail!("never refused")
}

fn burst(sender: &mut Sender, from: u64, count: u64) -> Answer {
    let (mut sent, mut full, mut other) = (0, 0, 0);
    for n in from..from + count {
        match sender.try_send(&n.to_ne_bytes()) {
            Ok(_) => sent += 1,
            Err(SendError::Full { .. }) => full += 1,
            Err(_) => other += 1,
        }
    }
    Answer::Burst { sent, full, other }
}

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

fn press(sender: &mut Sender, from: u64, count: u64, len: usize) -> anyhow::Result<()> {
    let until_ns = monotonic_ns() + 3 * patience_ns();
    let mut payload = vec![0xa5; len.max(8)];
    for n in from..from + count {
        payload[..8].copy_from_slice(&n.to_ne_bytes());
        while let Err(e) = sender.try_send(&payload) {
            ensure!(monotonic_ns() < until_ns, "message {n}: {e}");
            std::thread::yield_now();
        }
    }
    Ok(())
}
