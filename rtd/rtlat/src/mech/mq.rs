//! POSIX message queues, and their two ends for a caller that has the queue of another program.
//!
//! A full queue is EAGAIN for the sender; the receiver blocks.

use super::payload;
use super::{Mechanism, Rx, Stamp, Tx};
use anyhow::Context;
use rtcore::sys::limits::{self, Limit, MqSysctl, mq_sysctl};
use rtcore::sys::mqueue::{self, Access, Queue};
use rtcore::sys::{Errno, sched};
use std::ffi::{CStr, CString};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Messages a queue holds, if the machine allows that number.
const DEPTH_MAX: u64 = 10;
/// Names that are tried: each that is taken was left by a process of our number that was killed.
const NAMES_MAX: usize = 16;

/// A queue of its own. It has a name for a moment only: whatever ends its processes, the queue ends
/// with them.
#[derive(Debug)]
pub struct Mq {
    tx: Arc<Queue>,
    rx: Arc<Queue>,
    payload_bytes: usize,
}

impl Mq {
    /// Makes the queue, `/rtlat-PID-PAIR-N`, opens both ends of it and removes the name.
    pub fn new(payload_bytes: usize, pair: usize) -> anyhow::Result<Mq> {
        let depth = mq_sysctl(MqSysctl::MsgMax).map_or(DEPTH_MAX, |most| most.clamp(1, DEPTH_MAX));
        let bytes_max = usize::try_from(limits::MQ_MSGSIZE_HARD).unwrap_or(usize::MAX);
        payload::check(
            "message queue",
            payload_bytes,
            bytes_max,
            "no setting raises that limit: take less",
        )?;
        let maker = sched::getpid();
        let queue = create(maker, pair, usize::try_from(depth)?, payload_bytes)?;
        let ends = Queue::open(queue.name(), Access::Send, true)
            .and_then(|tx| Ok((tx, Queue::open(queue.name(), Access::Receive, false)?)));
        Queue::unlink(queue.name())?;
        let (tx, rx) = ends?;
        Ok(Mq {
            tx: Arc::new(tx),
            rx: Arc::new(rx),
            payload_bytes,
        })
    }

    /// `/name`, as it was.
    pub fn queue_name(&self) -> &CStr {
        self.tx.name()
    }
}

fn create(maker: i32, pair: usize, depth: usize, payload_bytes: usize) -> anyhow::Result<Queue> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..NAMES_MAX {
        let name = CString::new(format!(
            "/rtlat-{maker}-{pair}-{}",
            NEXT.fetch_add(1, Ordering::Relaxed)
        ))?;
        let made = Queue::create(&name, depth, payload_bytes, 0o600);
        match made.with_context(|| refused(depth, payload_bytes)) {
            Ok((queue, None)) => return Ok(queue),
            // It exists already, so it is not ours.
            Ok((_, Some(_))) => {}
            Err(_) if exists(&name) => {}
            Err(e) => return Err(e),
        }
    }
    anyhow::bail!(
        "the {NAMES_MAX} message queues /rtlat-{maker}-{pair}-* that were tried exist already: remove them \
         (rtctl queue rm NAME...)"
    )
}

fn exists(name: &CStr) -> bool {
    Queue::open(name, Access::Receive, true).is_ok()
}

/// The limits that a queue of this size may have met, with what lifts them.
fn refused(depth: usize, payload_bytes: usize) -> String {
    let mut text = format!("a message queue of {depth} messages of {payload_bytes} bytes");
    if let Ok(most) = mq_sysctl(MqSysctl::MsgsizeMax)
        && payload_bytes as u64 > most
    {
        text += &format!(
            "; fs.mqueue.msgsize_max is {most}: sysctl -w fs.mqueue.msgsize_max={payload_bytes}, or take less"
        );
    }
    let takes = limits::mq_bytes(depth as u64, payload_bytes as u64);
    if let Ok(Limit {
        soft: Some(most), ..
    }) = limits::get(limits::Kind::MsgQueue)
        && takes > most
    {
        text += &format!(
            "; RLIMIT_MSGQUEUE is {most} bytes and this takes {takes}: ulimit -q {takes}, or take less"
        );
    }
    text
}

impl Mechanism for Mq {
    fn name(&self) -> &str {
        super::Kind::Mq.name()
    }

    fn payload_bytes(&self) -> usize {
        self.payload_bytes
    }

    fn sender(&self) -> anyhow::Result<Box<dyn Tx>> {
        Ok(Box::new(QueueTx::of(self.tx.clone(), self.payload_bytes)?))
    }

    fn receiver(&self) -> anyhow::Result<Box<dyn Rx>> {
        Ok(Box::new(QueueRx::of(self.rx.clone())?))
    }
}

/// Sends into a queue by name; a full one is EAGAIN.
#[derive(Debug)]
pub struct QueueTx {
    queue: Arc<Queue>,
    message: Vec<u8>,
}

impl QueueTx {
    /// Opens an existing queue, for messages of `payload_bytes`.
    ///
    /// Errors: no such queue, no permission; a payload out of bounds for this queue.
    pub fn open(name: &CStr, payload_bytes: usize) -> anyhow::Result<QueueTx> {
        QueueTx::of(
            Arc::new(Queue::open(name, Access::Send, true)?),
            payload_bytes,
        )
    }

    fn of(queue: Arc<Queue>, payload_bytes: usize) -> anyhow::Result<QueueTx> {
        let msgsize = queue.attributes()?.msgsize;
        let what = format!("message of queue {}", queue.name().to_string_lossy());
        payload::check(
            &what,
            payload_bytes,
            msgsize,
            "take less, or make the queue with a larger msgsize",
        )?;
        Ok(QueueTx {
            queue,
            message: payload::buffer(payload_bytes),
        })
    }
}

impl Tx for QueueTx {
    #[inline]
    fn send(&mut self, stamp: &Stamp) -> Result<(), Errno> {
        stamp.put_into(&mut self.message)?;
        mqueue::send(self.queue.as_raw_fd(), &self.message, 0)
    }
}

/// Receives from a queue by name.
#[derive(Debug)]
pub struct QueueRx {
    queue: Arc<Queue>,
    message: Vec<u8>,
}

impl QueueRx {
    /// Opens an existing queue.
    ///
    /// Errors: no such queue, no permission.
    pub fn open(name: &CStr) -> anyhow::Result<QueueRx> {
        QueueRx::of(Arc::new(Queue::open(name, Access::Receive, false)?))
    }

    fn of(queue: Arc<Queue>) -> anyhow::Result<QueueRx> {
        let message = payload::buffer(queue.attributes()?.msgsize);
        Ok(QueueRx { queue, message })
    }

    /// The next message as raw bytes, for a message without a stamp such as the record of a signal.
    #[inline]
    pub fn receive_bytes(&mut self) -> Result<&[u8], Errno> {
        let (length, _) = mqueue::receive(self.queue.as_raw_fd(), &mut self.message)?;
        self.message.get(..length).ok_or(Errno::BADMSG)
    }
}

impl Rx for QueueRx {
    #[inline]
    fn receive(&mut self) -> Result<Stamp, Errno> {
        Stamp::decode(self.receive_bytes()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_has_no_name_while_it_is_used() {
        let mq = Mq::new(64, 3).unwrap();
        assert!(!exists(mq.queue_name()));
        let (mut tx, mut rx) = (mq.sender().unwrap(), mq.receiver().unwrap());
        let stamp = Stamp {
            sequence: 7,
            intended_ns: 1,
            sent_ns: 2,
        };
        tx.send(&stamp).unwrap();
        assert_eq!(rx.receive().unwrap(), stamp);
    }

    #[test]
    fn what_is_there_already_is_left_alone() {
        let first = Mq::new(64, 4).unwrap();
        let text = first.queue_name().to_str().unwrap();
        let (base, number) = text.rsplit_once('-').unwrap();
        let in_the_way =
            CString::new(format!("{base}-{}", number.parse::<u32>().unwrap() + 1)).unwrap();
        let (_queue, found) = Queue::create(&in_the_way, 1, 8, 0o600).unwrap();
        assert_eq!(found, None);
        let second = Mq::new(64, 4);
        let left = exists(&in_the_way);
        Queue::unlink(&in_the_way).unwrap();
        assert!(left && second.unwrap().queue_name() != in_the_way.as_c_str());
    }

    #[test]
    fn a_payload_past_the_limits_is_refused_with_the_limit() {
        let text = refused(10, 1 << 23);
        assert!(text.contains("fs.mqueue.msgsize_max=8388608"), "{text}");
        let text = Mq::new(1 << 25, 0).unwrap_err().to_string();
        assert!(text.contains("16777216"), "{text}");
        let mq = Mq::new(32, 5).unwrap();
        let text = QueueTx::of(mq.tx.clone(), 33).unwrap_err().to_string();
        assert!(text.contains("msgsize") && text.contains("33"), "{text}");
    }

    #[test]
    fn a_full_queue_is_an_error_for_the_sender() {
        let mq = Mq::new(32, 6).unwrap();
        let mut tx = mq.sender().unwrap();
        let full = (0..=DEPTH_MAX).find_map(|_| tx.send(&Stamp::default()).err());
        assert_eq!(full, Some(Errno::AGAIN));
    }
}
