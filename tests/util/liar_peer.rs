//! A participant that speaks the session protocol by hand and means harm. Its orders are words
//! (`Order::Liar`), because the fault campaign includes this file alone.
//!
//! It keeps every descriptor it ever got, and writes whatever it is told into the memory it may
//! write.

use super::patience;
use super::peer::unhex;
use anyhow::{Context as _, bail};
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::mman::{ProtFlags, mprotect};
use rtcore::message::{Meta, Origin};
use rtcore::ring::{Bells, Envelope, Geometry, Handles, Kind, Producer, Receipt, Side};
use rtcore::sys::memfd::Map;
use rtcore::sys::seqpacket::{Conn, Received};
use rtcore::wire::{Answer, Channel, FRAME_BYTES, Name, Notice, Request, Role};
use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The memory of one ring, as far as it came.
#[derive(Debug, Default)]
struct Ring {
    /// Its own, mapped for writing.
    own: Option<(OwnedFd, Map)>,
    /// The other side's, mapped for reading.
    other: Option<(OwnedFd, Map)>,
    eventfd: Option<OwnedFd>,
    bells: Option<Bells>,
    /// An end that works, for a routed ring that it sends into.
    producer: Option<Producer>,
}

#[derive(Default)]
struct Liar {
    conn: Option<Conn>,
    page: Option<Bells>,
    channels: Vec<Channel>,
    rings: Vec<Ring>,
    /// Of the message sent last.
    sequence: u64,
    /// What it opened and does not let go of.
    hoard: Vec<Conn>,
}

thread_local! {
    static LIAR: RefCell<Liar> = RefCell::default();
}

/// Data lines, or why not.
pub fn obey(words: &[&str]) -> anyhow::Result<String> {
    LIAR.with_borrow_mut(|liar| liar.obey(words))
}

impl Liar {
    fn obey(&mut self, words: &[&str]) -> anyhow::Result<String> {
        let mut data = String::new();
        match words {
            ["connect", socket] => self.conn = Some(Conn::connect(socket.as_ref(), patience())?),
            ["open", name] => self.open(name)?,
            ["close"] => *self = Liar::default(),
            // Takes in what the daemon has told meanwhile, until the ring of this endpoint is
            // joined.
            ["join", endpoint] => {
                let at = self.at(endpoint)?;
                self.until(|liar| liar.rings[at].other.is_some())?;
            }
            ["put", endpoint, hex, rest @ ..] => self.put(endpoint, &unhex(hex)?, rest)?,
            ["poke", endpoint, offset, value] => {
                let value = number(value)?;
                self.word(endpoint, true, offset.parse()?)?
                    .store(value, Ordering::SeqCst);
            }
            ["peek", endpoint, side, offset] => {
                let word = self.word(endpoint, *side == "own", offset.parse()?)?;
                data = format!("{}\n", word.load(Ordering::SeqCst));
            }
            ["ring", endpoint] => self.ring_daemon(endpoint)?,
            ["scribble"] => self.scribble(),
            ["sleepers", ms] => self.sleepers(Duration::from_millis(ms.parse()?))?,
            ["attack", endpoint] => data = self.attack(endpoint)?,
            // Takes away the pages of its own memory: what reads there next finds zeros, after a
            // page fault.
            ["punch", endpoint] => {
                let (own, map) = self.rings[self.at(endpoint)?]
                    .own
                    .as_ref()
                    .context("no memory")?;
                let hole =
                    FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
                fallocate(own, hole, 0, i64::try_from(map.len())?)?;
            }
            // Tries to take pages of its own memory away; which ways work.
            ["holes", endpoint] => data = self.holes(endpoint)?,
            ["frame", hex] => data = self.frame(&unhex(hex)?)?,
            ["giant", bytes] => data = self.frame(&vec![0xff; bytes.parse()?])?,
            ["hoard", count] => data = self.hoard(count.parse()?)?,
            ["sessions", socket, name, count] => self.sessions(socket, name, count.parse()?)?,
            ["connections", socket, count] => {
                for _ in 0..count.parse()? {
                    self.hoard.push(Conn::connect(socket.as_ref(), patience())?);
                }
            }
            ["deaf", count] => data = self.deaf(count.parse()?)?,
            ["setuid", uid] => nix::unistd::setuid(uid.parse::<u32>()?.into())?,
            ["gone"] => self.gone()?,
            other => bail!("what is liar {other:?}?"),
        }
        Ok(data)
    }

    fn conn(&self) -> anyhow::Result<&Conn> {
        self.conn.as_ref().context("not connected")
    }

    fn at(&self, endpoint: &str) -> anyhow::Result<usize> {
        let at = self
            .channels
            .iter()
            .position(|channel| channel.endpoint.as_str() == endpoint);
        at.with_context(|| format!("no channel {endpoint}"))
    }

    fn open(&mut self, name: &str) -> anyhow::Result<()> {
        let deadline = Instant::now() + patience();
        loop {
            self.conn()?.send(
                &Request::Open {
                    name: Name::new(name)?,
                    tid: 0,
                    semaphores: false,
                    resumes: 0,
                    program: 1,
                    lane: None,
                }
                .encode(),
            )?;
            let (answer, mut fds) = self.next(deadline)?.context("no answer")?;
            match answer {
                Answer::Reply(reply) if reply.generation > 0 => {
                    let page = Map::of(fds.pop().context("no bells")?.as_fd(), Bells::BYTES, true)?;
                    self.page = Some(Bells::shared(page)?);
                    break;
                }
                // The lane threads have not taken yet what the last session left.
                Answer::Reply(reply) if reply.text.contains("has not run since") => {
                    anyhow::ensure!(Instant::now() < deadline, "{}", reply.text);
                }
                other => bail!("{other:?}"),
            }
        }
        let mut ready = false;
        while !ready {
            let (answer, fds) = self.next(deadline)?.context("no Ready")?;
            ready = answer == Answer::Notice(Notice::Ready);
            self.heard(answer, fds)?;
        }
        Ok(())
    }

    /// The next frame; none when the daemon has closed.
    fn next(&self, deadline: Instant) -> anyhow::Result<Option<(Answer, Vec<OwnedFd>)>> {
        let (mut frame, mut fds) = ([0; FRAME_BYTES], Vec::new());
        loop {
            match self.conn()?.receive_with(&mut frame, &mut fds) {
                Ok(Received::Packet(_)) => return Ok(Some((Answer::decode(&frame)?, fds))),
                Ok(Received::Closed) | Err(_) => return Ok(None),
                Ok(Received::Nothing) if Instant::now() > deadline => bail!("nothing comes"),
                Ok(Received::Nothing) => std::thread::sleep(Duration::from_micros(200)),
            }
        }
    }

    fn until(&mut self, done: impl Fn(&Liar) -> bool) -> anyhow::Result<()> {
        let deadline = Instant::now() + patience();
        while !done(self) {
            let (answer, fds) = self.next(deadline)?.context("closed")?;
            self.heard(answer, fds)?;
        }
        Ok(())
    }

    fn heard(&mut self, answer: Answer, fds: Vec<OwnedFd>) -> anyhow::Result<()> {
        match answer {
            Answer::Notice(Notice::Channel(channel)) => {
                self.channels.push(channel);
                self.rings.push(Ring::default());
            }
            Answer::Notice(Notice::Ring {
                channel, serial, ..
            }) => {
                let at = usize::try_from(channel)?;
                let channel = self.channels[at];
                self.rings[at] = if channel.direct {
                    half(&channel, fds)?
                } else {
                    routed(&channel, fds, self.page.as_ref().context("no page")?)?
                };
                if channel.direct {
                    self.conn()?.send(&Request::Mapped { serial }.encode())?;
                }
            }
            Answer::Notice(Notice::Join { channel, .. }) => {
                let at = usize::try_from(channel)?;
                let (_, theirs) = sizes(&self.channels[at])?;
                let other = fds.into_iter().next().context("no memory")?;
                let map = Map::of(other.as_fd(), theirs, false)?;
                self.rings[at].other = Some((other, map));
            }
            Answer::Notice(Notice::Map { serial }) => {
                // It takes away what it writes, before rtd can deny it.
                let own = self.channels.iter().filter(|channel| !channel.direct);
                for endpoint in own.map(|channel| channel.endpoint.to_string()) {
                    self.holes(&endpoint)?;
                }
                self.conn()?.send(&Request::Mapped { serial }.encode())?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Puts a message in as an honest end would; `PID UID SEQUENCE` are what it says of itself.
    fn put(&mut self, endpoint: &str, bytes: &[u8], rest: &[&str]) -> anyhow::Result<()> {
        self.sequence += 1;
        let mut origin = Origin::UNKNOWN;
        let mut meta = Meta {
            sequence: self.sequence,
            epoch: std::process::id(),
            ..Meta::default()
        };
        if let [pid, uid, sequence] = rest {
            origin = Origin {
                pid: pid.parse()?,
                uid: uid.parse()?,
                verified: true,
            };
            meta.sequence = sequence.parse()?;
        }
        let envelope = Envelope {
            meta,
            origin,
            kind: Kind::Bytes { priority: 9 },
            len: 0,
        };
        let at = self.at(endpoint)?;
        self.rings[at]
            .producer
            .as_mut()
            .context("no end that sends")?
            .push(&envelope, bytes)?;
        Ok(())
    }

    fn word(&self, endpoint: &str, own: bool, offset: usize) -> anyhow::Result<&AtomicU64> {
        let ring = &self.rings[self.at(endpoint)?];
        let (_, map) = if own { &ring.own } else { &ring.other }
            .as_ref()
            .context("no memory")?;
        anyhow::ensure!(
            offset.is_multiple_of(8) && offset + 8 <= map.len(),
            "outside"
        );
        // SAFETY: aligned and inside the mapping, which lives as long as the borrow; only atomics
        // touch it. Of a mapping for reading nobody asks for more than to load.
        Ok(unsafe { AtomicU64::from_ptr(map.start().as_ptr().add(offset).cast()) })
    }

    /// Rings the bell at which the other side of this ring sleeps.
    fn ring_daemon(&self, endpoint: &str) -> anyhow::Result<()> {
        let at = self.at(endpoint)?;
        if self.channels[at].direct {
            let bells = self.rings[at].bells.as_ref().context("no bells")?;
            (0..2).for_each(|bell| bells.ring(bell));
            return Ok(());
        }
        let bells = self.page.as_ref().context("no page")?;
        bells.ring(128 + u32::try_from(at)?);
        Ok(())
    }

    /// Rings everything it can reach, over and over; takes away what was rung for others.
    fn scribble(&self) {
        let pages = self
            .page
            .iter()
            .chain(self.rings.iter().filter_map(|ring| ring.bells.as_ref()));
        for page in pages {
            for _ in 0..200 {
                (0..256).for_each(|bell| page.ring(bell));
            }
        }
        for eventfd in self.rings.iter().filter_map(|ring| ring.eventfd.as_ref()) {
            for _ in 0..200 {
                let _ = nix::unistd::write(eventfd, &1_u64.to_ne_bytes());
                let _ = nix::unistd::read(eventfd, &mut [0; 8]);
            }
            // So full that one more ring would block who rings.
            let _ = nix::unistd::write(eventfd, &(u64::MAX - 1).to_ne_bytes());
        }
    }

    /// Sleeps at every bell of its page, also at those at which the daemon sleeps, and rings them
    /// all.
    fn sleepers(&self, time: Duration) -> anyhow::Result<()> {
        const SLEEP_NS: u64 = 10_000_000;
        let page = self.page.as_ref().context("no page")?;
        let end = Instant::now() + time;
        std::thread::scope(|scope| {
            for bell in 0..256 {
                scope.spawn(move || {
                    while Instant::now() < end {
                        let _ = page.sleep(bell, page.seen(bell), SLEEP_NS);
                    }
                });
            }
            while Instant::now() < end {
                (0..256).for_each(|bell| page.ring(bell));
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        Ok(())
    }

    /// Everything that must fail with the memory of a ring; a line for each thing that did not.
    fn attack(&self, endpoint: &str) -> anyhow::Result<String> {
        let ring = &self.rings[self.at(endpoint)?];
        let (own, own_map) = ring.own.as_ref().context("no memory of its own")?;
        let (other, other_map) = ring.other.as_ref().context("not joined")?;
        let mut wrong = String::new();
        let mut must_fail = |what: &str, worked: bool| {
            if worked {
                wrong += &format!("{what}\n");
            }
        };
        let again = |fd: &OwnedFd| {
            OpenOptions::new()
                .read(true)
                .write(true)
                .open(format!("/proc/self/fd/{}", fd.as_raw_fd()))
        };
        for (fd, map, whose) in [(own, own_map, "own"), (other, other_map, "other")] {
            let len = map.len() as u64;
            let file = File::from(fd.try_clone()?);
            must_fail(&format!("shrink {whose}"), file.set_len(0).is_ok());
            must_fail(&format!("grow {whose}"), file.set_len(len * 2).is_ok());
            if let Ok(file) = again(fd) {
                must_fail(
                    &format!("shrink {whose} anew"),
                    file.set_len(len / 2).is_ok(),
                );
                must_fail(
                    &format!("grow {whose} anew"),
                    file.set_len(len + 4096).is_ok(),
                );
            }
        }
        let len = other_map.len();
        let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let whole = i64::try_from(len)?;
        must_fail("map other", Map::of(other.as_fd(), len, true).is_ok());
        must_fail("punch other", fallocate(other, hole, 0, whole).is_ok());
        must_fail("write other", nix::unistd::write(other, &[1]).is_ok());
        if let Ok(file) = again(other) {
            must_fail("map other anew", Map::of(file.as_fd(), len, true).is_ok());
            must_fail("punch other anew", fallocate(&file, hole, 0, whole).is_ok());
            must_fail("write other anew", nix::unistd::write(&file, &[1]).is_ok());
        }
        let start = NonNull::new(other_map.start().as_ptr().cast()).context("null")?;
        // SAFETY: the range is the mapping; that it becomes writable harms nobody but what is
        // tested.
        let made = unsafe { mprotect(start, len, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE) };
        must_fail("mprotect other", made.is_ok());
        Ok(wrong)
    }

    fn holes(&self, endpoint: &str) -> anyhow::Result<String> {
        let (own, map) = self.rings[self.at(endpoint)?]
            .own
            .as_ref()
            .context("no memory")?;
        let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        // Behind the words and the slots that are in use.
        let (from, len) = (4096, map.len() - 4096);
        let mut work = String::new();
        if fallocate(own, hole, 4096, i64::try_from(len)?).is_ok() {
            work += "fallocate\n";
        }
        let start = NonNull::new(map.start().as_ptr().wrapping_add(from).cast()).context("null")?;
        // SAFETY: the range is in the mapping, and what was there is nobody's.
        let removed = unsafe {
            let _ = nix::sys::mman::munlock(start, len);
            nix::sys::mman::madvise(start, len, nix::sys::mman::MmapAdvise::MADV_REMOVE)
        };
        if removed.is_ok() {
            work += "madvise\n";
        }
        Ok(work)
    }

    /// Sends any bytes as a frame; what is answered.
    fn frame(&mut self, bytes: &[u8]) -> anyhow::Result<String> {
        let _ = self.conn()?.send(bytes);
        let deadline = Instant::now() + patience();
        loop {
            match self.next(deadline)? {
                Some((Answer::Reply(reply), _)) => return Ok(format!("{:?}\n", reply.status)),
                Some((answer, fds)) => self.heard(answer, fds)?,
                None => return Ok("closed\n".to_owned()),
            }
        }
    }

    /// Frames with as many descriptors as travel.
    fn hoard(&mut self, count: u32) -> anyhow::Result<String> {
        let (reader, _writer) = std::io::pipe()?;
        let fds: [BorrowedFd<'_>; 4] = [reader.as_fd(); 4];
        let deadline = Instant::now() + patience();
        for serial in 0..count {
            let frame = Request::Mapped {
                serial: serial | 1 << 31,
            }
            .encode();
            loop {
                match self.conn()?.send_with(&frame, &fds) {
                    Ok(true) => break,
                    Ok(false) => std::thread::yield_now(),
                    Err(_) => return Ok("closed\n".to_owned()),
                }
                anyhow::ensure!(Instant::now() < deadline, "the daemon does not read");
            }
        }
        Ok("sent\n".to_owned())
    }

    fn sessions(&mut self, socket: &str, name: &str, count: u32) -> anyhow::Result<()> {
        for _ in 0..count {
            *self = Liar::default();
            self.conn = Some(Conn::connect(socket.as_ref(), patience())?);
            self.open(name)?;
        }
        *self = Liar::default();
        Ok(())
    }

    /// Asks and never reads an answer, until the daemon has had enough.
    fn deaf(&mut self, count: u32) -> anyhow::Result<String> {
        let ask = Request::Explain {
            endpoint: Name::new("x")?,
        }
        .encode();
        let deadline = Instant::now() + patience();
        for _ in 0..count {
            loop {
                match self.conn()?.send(&ask) {
                    Ok(true) => break,
                    Ok(false) => std::thread::yield_now(),
                    Err(_) => return Ok("closed\n".to_owned()),
                }
                anyhow::ensure!(Instant::now() < deadline, "the daemon does not read");
            }
        }
        Ok("sent\n".to_owned())
    }

    /// Waits until the daemon has closed the connection.
    fn gone(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + patience();
        while let Some((answer, fds)) = self.next(deadline)? {
            self.heard(answer, fds)?;
        }
        Ok(())
    }
}

/// Bytes of its own memory and of the other's.
fn sizes(channel: &Channel) -> anyhow::Result<(usize, usize)> {
    let geometry = geometry(channel)?;
    let (producer, consumer) = (geometry.producer_bytes(), geometry.consumer_bytes());
    Ok(if side(channel) == Side::Producer {
        (producer, consumer)
    } else {
        (consumer, producer)
    })
}

fn geometry(channel: &Channel) -> anyhow::Result<Geometry> {
    channel.geometry().context("no ring has that size")
}

fn side(channel: &Channel) -> Side {
    if channel.role == Role::Sender {
        Side::Producer
    } else {
        Side::Consumer
    }
}

fn routed(channel: &Channel, fds: Vec<OwnedFd>, page: &Bells) -> anyhow::Result<Ring> {
    let [producer, consumer, eventfd]: [OwnedFd; 3] =
        fds.try_into().map_err(|fds| anyhow::anyhow!("{fds:?}"))?;
    let (ours, theirs) = sizes(channel)?;
    let copy = |fd: &OwnedFd| fd.try_clone();
    let sends = side(channel) == Side::Producer;
    let (own, other) = if sends {
        (&producer, &consumer)
    } else {
        (&consumer, &producer)
    };
    let own = (copy(own)?, Map::of(own.as_fd(), ours, true)?);
    let other = (copy(other)?, Map::of(other.as_fd(), theirs, false)?);
    let kept = copy(&eventfd)?;
    let handles = Handles::from_fds([producer, consumer, eventfd]);
    let end = if sends {
        Some(handles.into_producer(geometry(channel)?, page, 64)?)
    } else {
        None
    };
    Ok(Ring {
        own: Some(own),
        other: Some(other),
        eventfd: Some(kept),
        bells: None,
        producer: end,
    })
}

fn half(channel: &Channel, fds: Vec<OwnedFd>) -> anyhow::Result<Ring> {
    let [own, eventfd, page]: [OwnedFd; 3] =
        fds.try_into().map_err(|fds| anyhow::anyhow!("{fds:?}"))?;
    let (ours, _) = sizes(channel)?;
    let map = Map::of(own.as_fd(), ours, true)?;
    let bells = Bells::shared(Map::of(page.as_fd(), Receipt::PAGE_BYTES, true)?)?;
    let own = Some((own, map));
    Ok(Ring {
        own,
        other: None,
        eventfd: Some(eventfd),
        bells: Some(bells),
        producer: None,
    })
}

/// Decimal, or hexadecimal after `0x`, or the whole word.
fn number(text: &str) -> anyhow::Result<u64> {
    Ok(match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16)?,
        None if text == "max" => u64::MAX,
        None => text.parse()?,
    })
}
