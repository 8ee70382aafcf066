//! The daemon's half of a session, as the tests play it: the same wire, the same rings, no lanes.

#![allow(dead_code, reason = "two test binaries share this, each uses its part")]

use rtcore::client::{Channel, ConnectError, Name, PeerStatus, Role, Session};
use rtcore::lane::peer::PeerState;
use rtcore::message::{Meta, Origin};
use rtcore::ring::{
    Bells, Consumer, Envelope, Geometry, Handles, Kind, Producer, Receipt, Shared, Side,
};
use rtcore::sys::epoll::Epoll;
use rtcore::sys::memfd::{Map, Memory};
use rtcore::sys::pidfd::{Ending, PidFd};
use rtcore::sys::seqpacket::{Conn, Listener, Received};
use rtcore::wire::{FRAME_BYTES, Notice, Reply, Request, Status};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

pub const PATIENCE: Duration = Duration::from_secs(10);

/// A daemon's socket, in a directory of its own.
pub struct Daemon {
    listener: Listener,
    set: Epoll,
}

/// A place for daemons, one after the other.
pub struct Place(PathBuf);

impl Place {
    pub fn new() -> Place {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("rtd-client-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Place(dir)
    }

    pub fn socket(&self) -> PathBuf {
        self.0.join("d.sock")
    }

    pub fn daemon(&self) -> Daemon {
        let listener = Listener::bind(&self.socket()).unwrap();
        let set = Epoll::new().unwrap();
        set.add(&listener, 0).unwrap();
        Daemon { listener, set }
    }

    /// Connects in the background.
    pub fn connect(&self, process: &str) -> JoinHandle<Result<Session, ConnectError>> {
        let builder = Session::builder(process)
            .socket(self.socket())
            .timeout(PATIENCE);
        std::thread::spawn(move || builder.connect())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Daemon {
    pub fn accept(&self) -> Link {
        let mut tokens = Vec::new();
        loop {
            if let Some(conn) = self.listener.accept().unwrap() {
                return Link::new(conn);
            }
            self.set.wait(&mut tokens, Some(PATIENCE)).unwrap();
            assert!(!tokens.is_empty(), "nobody connected");
        }
    }

    /// Accepts and opens with these channels.
    pub fn open(&self, channels: &[Channel]) -> Link {
        let mut link = self.accept();
        assert!(matches!(link.request(), Request::Open { .. }));
        link.welcome();
        for channel in channels {
            link.channel(*channel);
        }
        link.ready();
        link
    }
}

/// A session with these channels, and the daemon's side of it.
pub fn session(place: &Place, channels: &[Channel]) -> (Session, Daemon, Link) {
    let daemon = place.daemon();
    let connecting = place.connect("arm");
    let link = daemon.open(channels);
    (connecting.join().unwrap().unwrap(), daemon, link)
}

/// One session's connection, with the daemon's ends of its rings in order of their channels.
pub struct Link {
    conn: Conn,
    set: Epoll,
    bells: Bells,
    page: Memory,
    pub ends: Vec<End>,
}

pub enum End {
    Consumer(Consumer),
    Producer(Producer),
    Direct,
}

impl Link {
    fn new(conn: Conn) -> Link {
        let page = Memory::new("rtd-test-bells", Bells::BYTES).unwrap();
        let bells = Bells::shared(page.map_writable().unwrap()).unwrap();
        let set = Epoll::new().unwrap();
        set.add(&conn, 0).unwrap();
        Link {
            conn,
            set,
            bells,
            page,
            ends: Vec::new(),
        }
    }

    pub fn request(&self) -> Request {
        let mut tokens = Vec::new();
        loop {
            let mut frame = [0; FRAME_BYTES];
            match self.conn.receive(&mut frame).unwrap() {
                Received::Packet(len) => match Request::decode(&frame[..len]).unwrap() {
                    // What the next daemon goes on with is no answer.
                    Request::Refusals | Request::Carry { .. } => continue,
                    request => return request,
                },
                Received::Closed => panic!("the session closed"),
                Received::Nothing => {}
            }
            self.set.wait(&mut tokens, Some(PATIENCE)).unwrap();
            assert!(!tokens.is_empty(), "the session says nothing");
        }
    }

    /// Waits for the session to close.
    pub fn closed(&self) {
        let mut tokens = Vec::new();
        let mut frame = [0; FRAME_BYTES];
        while self.conn.receive(&mut frame).unwrap() != Received::Closed {
            self.set.wait(&mut tokens, Some(PATIENCE)).unwrap();
            assert!(!tokens.is_empty(), "the session stays");
        }
    }

    pub fn reply(&self, reply: &Reply) {
        assert!(self.conn.send(&reply.encode()).unwrap());
    }

    /// Sends bytes as they are.
    pub fn send_frame(&self, frame: &[u8]) {
        assert!(self.conn.send(frame).unwrap());
    }

    pub fn welcome(&self) {
        let reply = Reply {
            generation: 1,
            ..Reply::plain(Status::Ok, "")
        };
        assert!(
            self.conn
                .send_with(&reply.encode(), &[self.page.as_fd()])
                .unwrap()
        );
    }

    /// All rings are sent: the session maps them, and is up.
    pub fn ready(&self) {
        self.send(&Notice::Map { serial: 1 });
        assert_eq!(self.request(), Request::Mapped { serial: 1 });
        self.send(&Notice::Ready);
    }

    pub fn send(&self, notice: &Notice) {
        assert!(self.conn.send(&notice.encode()).unwrap());
    }

    pub fn send_with(&self, notice: &Notice, fds: &[BorrowedFd<'_>]) {
        assert!(self.conn.send_with(&notice.encode(), fds).unwrap());
    }

    /// Tells a channel, and its ring if it is routed.
    pub fn channel(&mut self, channel: Channel) {
        let number = u32::try_from(self.ends.len()).unwrap();
        let channel = Channel {
            channel: number,
            ..channel
        };
        self.send(&Notice::Channel(channel));
        if channel.direct {
            self.ends.push(End::Direct);
            return;
        }
        let ring = Shared::create("rtd-test", geometry(&channel)).unwrap();
        let (end, side) = match channel.role {
            Role::Sender => (
                End::Consumer(ring.consumer(&self.bells, 128 + number).unwrap()),
                Side::Producer,
            ),
            _ => (
                End::Producer(ring.producer(&self.bells, 128 + number).unwrap()),
                Side::Consumer,
            ),
        };
        let handles = ring.handles(side).unwrap();
        self.send_with(
            &Notice::Ring {
                channel: number,
                serial: 0,
                pid: 0,
                uid: 0,
                program: 0,
                semaphores: None,
            },
            &handles.as_fds(),
        );
        self.ends.push(end);
    }

    pub fn consumer(&mut self, number: usize) -> &mut Consumer {
        match &mut self.ends[number] {
            End::Consumer(consumer) => consumer,
            _ => panic!("channel {number} is not the session's to send"),
        }
    }

    pub fn producer(&mut self, number: usize) -> &mut Producer {
        match &mut self.ends[number] {
            End::Producer(producer) => producer,
            _ => panic!("channel {number} is not the session's to receive"),
        }
    }

    /// How many of the messages in this ring the session has given back.
    pub fn taken(&mut self, number: usize) -> u64 {
        let producer = self.producer(number);
        producer.recovery_cursor().taken(producer.tail())
    }

    /// Takes the next message of a sender's channel.
    pub fn take(&mut self, number: usize) -> Option<(Envelope, Vec<u8>)> {
        take(self.consumer(number))
    }

    /// Sends to an inbox' channel, as the daemon would pass it on.
    pub fn push(&mut self, number: usize, sequence: u64, bytes: &[u8]) {
        self.producer(number)
            .push(&envelope(sequence), bytes)
            .unwrap();
    }

    pub fn peer(&self, process: &str, state: PeerState, pid: u32, ending: Option<Ending>) {
        self.send(&Notice::Peer(PeerStatus {
            process: name(process),
            state,
            pid,
            ending,
        }));
    }

    /// Gives the session its end of a direct ring and returns the other. `partner` is who it is
    /// told to be there.
    pub fn direct(&self, channel: &Channel, number: u32, serial: u32, partner: u32) -> Direct {
        let ring = Shared::create("rtd-test-direct", geometry(channel)).unwrap();
        let page = Memory::new("rtd-test-bells", Receipt::PAGE_BYTES).unwrap();
        let bells = Bells::shared(page.map_writable().unwrap()).unwrap();
        let (own, side) = match channel.role {
            Role::Sender => (Side::Producer, Side::Consumer),
            _ => (Side::Consumer, Side::Producer),
        };
        let Handles {
            producer,
            consumer,
            eventfd,
        } = ring.handles(own).unwrap();
        let (mine, other) = if own == Side::Producer {
            (producer, consumer)
        } else {
            (consumer, producer)
        };
        let notice = Notice::Ring {
            channel: number,
            serial,
            pid: partner,
            uid: 77,
            program: 1,
            semaphores: None,
        };
        self.send_with(&notice, &[mine.as_fd(), eventfd.as_fd(), page.as_fd()]);
        assert_eq!(self.request(), Request::Mapped { serial });
        ring.seal(own).unwrap();
        let theirs = ring.handles(side).unwrap();
        let geometry = geometry(channel);
        let memory = match side {
            Side::Producer => {
                Map::of(theirs.producer.as_fd(), geometry.producer_bytes(), true).unwrap()
            }
            Side::Consumer => {
                Map::of(theirs.consumer.as_fd(), geometry.consumer_bytes(), true).unwrap()
            }
        };
        let end = match side {
            Side::Consumer => End::Consumer(ring.consumer(&bells, 0).unwrap()),
            Side::Producer => End::Producer(ring.producer(&bells, 1).unwrap()),
        };
        ring.seal(side).unwrap();
        let pidfd = PidFd::open(i32::try_from(partner).unwrap()).unwrap();
        self.send_with(
            &Notice::Join {
                channel: number,
                serial,
            },
            &[other.as_fd(), pidfd.as_fd()],
        );
        Direct { end, memory }
    }
}

/// The other end of a direct ring.
pub struct Direct {
    pub end: End,
    /// What it writes.
    memory: Map,
}

impl Direct {
    /// Alleges, in the first word of what the other end writes (tail or head), what is not so.
    pub fn lie(&self, index: u64) {
        // SAFETY: the mapping is writable and begins with that word, an atomic for everybody.
        let word = unsafe { AtomicU64::from_ptr(self.memory.start().as_ptr().cast()) };
        word.store(index, Ordering::Release);
    }

    pub fn consumer(&mut self) -> &mut Consumer {
        match &mut self.end {
            End::Consumer(consumer) => consumer,
            _ => panic!("the other end receives"),
        }
    }

    pub fn producer(&mut self) -> &mut Producer {
        match &mut self.end {
            End::Producer(producer) => producer,
            _ => panic!("the other end sends"),
        }
    }
}

pub fn take(consumer: &mut Consumer) -> Option<(Envelope, Vec<u8>)> {
    let mut buffer = vec![0; consumer.geometry().payload_bytes() as usize];
    let envelope = consumer.take(&mut buffer).unwrap()?;
    consumer.release();
    buffer.truncate(envelope.len as usize);
    Some((envelope, buffer))
}

pub fn envelope(sequence: u64) -> Envelope {
    let meta = Meta {
        sequence,
        intended_ns: 10,
        sent_ns: 20,
        correlation: 0,
        epoch: 1,
    };
    let origin = Origin {
        pid: 42,
        uid: 7,
        verified: true,
    };
    Envelope {
        meta,
        origin,
        kind: Kind::Bytes { priority: 0 },
        len: 0,
    }
}

pub fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn geometry(channel: &Channel) -> Geometry {
    channel.geometry().unwrap()
}

/// A routed sender of the endpoint.
pub fn sender(endpoint: &str) -> Channel {
    channel(Role::Sender, endpoint, "drive.cmd")
}

/// A routed inbox channel of the endpoint.
pub fn inbox(endpoint: &str, from: &str) -> Channel {
    channel(Role::Inbox, endpoint, from)
}

fn channel(role: Role, endpoint: &str, other: &str) -> Channel {
    Channel {
        channel: 0,
        role,
        direct: false,
        endpoint: name(endpoint),
        other: name(other),
        process: Some(name("drive")),
        lane: name("control"),
        priority: 50,
        route: name(&format!("{other}.r")),
        slots: 8,
        payload_bytes: 64,
        block_ns: 0,
        keep: 0,
        ttl_ns: 0,
        deadline_ns: 0,
    }
}
