//! A message queue by the raw calls: `mq_open` and its siblings, or Cobalt's.

use super::super::order::{Answer, Mail, Queue as Order};
use super::super::patience_ns;
use anyhow::{Context as _, anyhow, bail};
use rtcore::skin::{OpenQueue, Skin};
use rtcore::sys::mqueue::{self, Access, Queue};
use rtcore::sys::{Errno, poll};
use std::ffi::CString;
use std::os::fd::AsRawFd as _;

/// Nothing announces room on Cobalt: how often to look.
const LOOK_NS: u64 = 500_000;

/// The queue that is open.
pub struct Open {
    /// Linux's calls where there is none.
    skin: Option<&'static Skin>,
    queue: Option<Either>,
}

enum Either {
    Linux(Queue),
    Cobalt(&'static Skin, OpenQueue),
}

impl Open {
    pub fn on(skin: Option<&'static Skin>) -> Open {
        Open { skin, queue: None }
    }

    pub fn obey(&mut self, order: Order<'_>) -> anyhow::Result<Answer> {
        match order {
            Order::OpenToSend(name) => self.open(name, Access::Send)?,
            Order::OpenToReceive(name) => self.open(name, Access::Receive)?,
            Order::Create { name, mode } => {
                let (queue, _) = Queue::create(&CString::new(name)?, 10, 64, mode)?;
                self.queue = Some(Either::Linux(queue));
            }
            Order::Unlink(name) => Queue::unlink(&CString::new(name)?)?,
            Order::Held => return Ok(Answer::Number(self.queue()?.held()?)),
            Order::Send { priority, bytes } => self.queue()?.send(&bytes, priority)?,
            Order::Stream { from, count } => {
                let queue = self.queue()?;
                for n in 0..count {
                    queue.send(&from.wrapping_add(n).to_ne_bytes(), 0)?;
                }
            }
            Order::Receive { count, quiet_ms } => {
                return Ok(Answer::Mail(self.queue()?.receive(count, quiet_ms)?));
            }
            Order::Relay { from, to, watch } => return relay(from, to, watch),
        }
        Ok(Answer::Done)
    }

    fn queue(&self) -> anyhow::Result<&Either> {
        self.queue.as_ref().context("no queue is open")
    }

    fn open(&mut self, name: &str, access: Access) -> anyhow::Result<()> {
        let name = CString::new(name)?;
        self.queue = Some(match self.skin {
            None => Either::Linux(Queue::open(&name, access, true)?),
            Some(skin) => {
                let does_not_wait = matches!(access, Access::Send);
                Either::Cobalt(skin, OpenQueue::open(skin, &name, access, does_not_wait)?)
            }
        });
        Ok(())
    }
}

impl Either {
    fn held(&self) -> anyhow::Result<u64> {
        Ok(match self {
            Either::Linux(queue) => queue.attributes()?.curmsgs as u64,
            Either::Cobalt(_, queue) => queue.attributes()?.curmsgs as u64,
        })
    }

    /// Waits for room, so that a full queue is no failure.
    fn send(&self, bytes: &[u8], priority: u32) -> anyhow::Result<()> {
        match self {
            Either::Linux(queue) => send(queue, bytes, priority),
            Either::Cobalt(skin, queue) => send_on(skin, queue, bytes, priority),
        }
    }

    /// Up to `count` messages; fewer when none comes for so long.
    fn receive(&self, count: u64, quiet_ms: u64) -> anyhow::Result<Vec<Mail>> {
        let quiet_ns = quiet_ms * 1_000_000;
        match self {
            Either::Linux(queue) => receive(queue, count, quiet_ns),
            Either::Cobalt(skin, queue) => receive_on(skin, queue, count, quiet_ns),
        }
    }
}

fn send(queue: &Queue, bytes: &[u8], priority: u32) -> anyhow::Result<()> {
    let fd = queue.as_raw_fd();
    loop {
        match mqueue::send(fd, bytes, priority) {
            Ok(()) => return Ok(()),
            Err(Errno::AGAIN) => {}
            Err(e) => bail!("{e:?}"),
        }
        if poll::wait(&mut [poll::Interest::writable(fd)], patience_ns()) == Ok(0) {
            bail!("the queue stays full");
        }
    }
}

fn receive(queue: &Queue, count: u64, quiet_ns: u64) -> anyhow::Result<Vec<Mail>> {
    let fd = queue.as_raw_fd();
    let (mut mail, mut buffer) = (Vec::new(), vec![0; queue.attributes()?.msgsize]);
    while (mail.len() as u64) < count {
        match mqueue::receive(fd, &mut buffer) {
            Ok((len, priority)) => mail.push((priority, buffer[..len].to_vec())),
            Err(Errno::AGAIN) => {
                if poll::wait(&mut [poll::Interest::readable(fd)], quiet_ns) == Ok(0) {
                    break;
                }
            }
            Err(e) => bail!("{e:?}"),
        }
    }
    Ok(mail)
}

fn send_on(skin: &Skin, queue: &OpenQueue, bytes: &[u8], priority: u32) -> anyhow::Result<()> {
    let give_up = (skin.now_ns)() + patience_ns();
    loop {
        match (skin.mq_send)(queue.mqd(), bytes, priority) {
            Ok(()) => return Ok(()),
            Err(Errno::AGAIN) if (skin.now_ns)() < give_up => {
                (skin.sleep_until)((skin.now_ns)() + LOOK_NS)
            }
            Err(e) => bail!("{e:?}"),
        }
    }
}

fn receive_on(
    skin: &Skin,
    queue: &OpenQueue,
    count: u64,
    quiet_ns: u64,
) -> anyhow::Result<Vec<Mail>> {
    let (mut mail, mut buffer) = (Vec::new(), vec![0; queue.attributes()?.msgsize]);
    while (mail.len() as u64) < count {
        match (skin.mq_receive_within)(queue.mqd(), &mut buffer, quiet_ns) {
            Ok((len, priority)) => mail.push((priority, buffer[..len].to_vec())),
            Err(Errno::TIMEDOUT) => break,
            Err(e) => bail!("{e:?}"),
        }
    }
    Ok(mail)
}

fn relay(from: &str, to: &str, watch: &str) -> anyhow::Result<Answer> {
    let open = |name: &str, access| {
        Queue::open(&CString::new(name)?, access, false).map_err(anyhow::Error::from)
    };
    let from = open(from, Access::Receive)?;
    let to = open(to, Access::Send)?;
    let watch = open(watch, Access::Receive)?;
    let mut buffer = vec![0; from.attributes()?.msgsize];
    mqueue::receive(from.as_raw_fd(), &mut buffer).map_err(|e| anyhow!("{e:?}"))?;
    mqueue::send(to.as_raw_fd(), b"relayed", 0).map_err(|e| anyhow!("{e:?}"))?;
    Ok(Answer::Number(watch.attributes()?.curmsgs as u64))
}
