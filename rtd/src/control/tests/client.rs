//! A client by hand, in a process of its own: it does what its standard input says and answers each
//! line with one.

use super::*;
use rtcore::message::{Meta, Origin};
use rtcore::ring::{Bells, Envelope, Handles, Kind};
use rtcore::sys::memfd::Map;
use rtcore::sys::sched;
use rtcore::wire::{Answer, Channel, Name, Notice, Request, Role};
use std::collections::VecDeque;
use std::io::{BufRead, Write};
use std::os::fd::{AsFd, OwnedFd};

/// The process, as a test sees it.
pub struct Other(pub Program);

impl Other {
    pub fn new(rig: &Rig) -> Other {
        Other(Program::spawn(&mut other_side(&[
            "session",
            rig.socket.to_str().unwrap(),
        ])))
    }

    pub fn opened(rig: &Rig, name: &str) -> Other {
        let mut other = Other::new(rig);
        assert_eq!(other.open(name), "Ok 1");
        other
    }

    pub fn ask(&mut self, words: &str) -> String {
        self.order(words);
        self.0.line("= ")
    }

    pub fn order(&mut self, words: &str) {
        writeln!(self.0.stdin.as_mut().unwrap(), "{words}").unwrap();
    }

    /// Opens a session as soon as the lane threads of the test, which may have no CPU for a while,
    /// have taken what the last ones left.
    pub fn open(&mut self, name: &str) -> String {
        let deadline = Instant::now() + LIMIT;
        loop {
            let answer = self.ask(&format!("open {name}"));
            if !answer.starts_with("Busy ") || Instant::now() > deadline {
                return answer;
            }
        }
    }

    /// Notices until one that begins like this, which is answered.
    pub fn until(&mut self, notice: &str) -> String {
        loop {
            let next = self.ask("next");
            assert!(next != "closed" && next != "nothing", "waited for {notice}");
            if next.starts_with(notice) {
                return next;
            }
        }
    }
}

#[derive(Default)]
struct Client {
    conn: Option<Conn>,
    page: Option<Bells>,
    channels: Vec<Channel>,
    up: BTreeMap<u32, Producer>,
    down: BTreeMap<u32, Consumer>,
    /// Own halves of direct rings.
    halves: Vec<(u32, Map)>,
    children: Vec<Child>,
    /// Notices that came up to Ready, for `next`.
    read: VecDeque<String>,
}

/// Until standard input ends.
pub fn obey(socket: &Path) {
    let mut client = Client::default();
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        let answer = client.does(socket, &words);
        println!("\n= {answer}");
    }
    for child in &mut client.children {
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn open(who: &str, tid: i32) -> Request {
    let name = Name::new(who).unwrap();
    Request::Open {
        name,
        tid,
        semaphores: false,
        resumes: 0,
        program: 1,
        lane: None,
    }
}

impl Client {
    fn conn(&mut self, socket: &Path) -> &Conn {
        self.conn
            .get_or_insert_with(|| Conn::connect(socket, LIMIT).unwrap())
    }

    fn send(&mut self, socket: &Path, request: &Request) {
        let _ = self.conn(socket).send(&request.encode());
    }

    fn does(&mut self, socket: &Path, words: &[&str]) -> String {
        let number = |word: &str| word.parse::<u32>().unwrap();
        let name = |name: &str| Name::new(name).unwrap();
        match *words {
            ["connect"] => drop(self.conn(socket)),
            ["open", who] => {
                self.send(socket, &open(who, 0));
                return self.opened();
            }
            ["open", who, "thread"] => {
                self.send(socket, &open(who, sched::gettid()));
                return self.opened();
            }
            ["ask", who] => self.send(socket, &open(who, 0)),
            ["explain", endpoint] => {
                self.send(
                    socket,
                    &Request::Explain {
                        endpoint: name(endpoint),
                    },
                );
                return self.next(LIMIT);
            }
            ["ping"] => {
                self.send(socket, &Request::Ping);
                return self.next(LIMIT);
            }
            ["register", who] => {
                let (pid, tid) = (0, 0);
                let register = Request::Register {
                    name: name(who),
                    pid,
                    tid,
                    exec_follows: false,
                };
                self.send(socket, &register);
                return self.next(LIMIT);
            }
            ["next"] => {
                let read = self.read.pop_front();
                return read.unwrap_or_else(|| self.next(LIMIT));
            }
            ["mapped", serial] => self.send(
                socket,
                &Request::Mapped {
                    serial: number(serial),
                },
            ),
            ["push", channel, text] => {
                let origin = Origin::UNKNOWN;
                let (meta, kind) = (Meta::default(), Kind::Bytes { priority: 0 });
                let envelope = Envelope {
                    meta,
                    origin,
                    kind,
                    len: 0,
                };
                let up = self.up.get_mut(&number(channel)).unwrap();
                return format!("{:?}", up.push(&envelope, text.as_bytes()));
            }
            ["take", channel] => {
                let down = self.down.get_mut(&number(channel)).unwrap();
                let mut buffer = [0; 64];
                let Some(envelope) = down.take(&mut buffer).unwrap() else {
                    return "none".into();
                };
                down.release();
                return String::from_utf8_lossy(&buffer[..envelope.len as usize]).into_owned();
            }
            ["raw", bytes] => {
                let _ = self.conn(socket).send(&vec![0xff; bytes.parse().unwrap()]);
                return self.next(LIMIT);
            }
            ["kind", kind] => {
                let mut frame = Request::Ping.encode();
                frame[6..8].copy_from_slice(&kind.parse::<u16>().unwrap().to_ne_bytes());
                let _ = self.conn(socket).send(&frame);
                return self.next(LIMIT);
            }
            ["flood", what, count] => return self.flood(socket, what, number(count)),
            ["fork"] => {
                let held = Stdio::from(self.conn(socket).as_fd().try_clone_to_owned().unwrap());
                self.children.push(
                    Command::new("/bin/sleep")
                        .arg("60")
                        .stdin(held)
                        .spawn()
                        .unwrap(),
                );
                return self.children.last().unwrap().id().to_string();
            }
            ["close"] => {
                *self = Client {
                    children: std::mem::take(&mut self.children),
                    ..Client::default()
                }
            }
            ["fifo", priority] => {
                return sched::set_fifo(priority.parse().unwrap())
                    .map_or_else(|e| e.to_string(), |()| "done".into());
            }
            ["setuid", uid] => nix::unistd::setuid(number(uid).into()).unwrap(),
            ["exit", code] => std::process::exit(code.parse().unwrap()),
            _ => unreachable!("{words:?}"),
        }
        "done".into()
    }

    /// Sends without reading until the daemon has had enough, or so many.
    fn flood(&mut self, socket: &Path, what: &str, count: u32) -> String {
        let endpoint = Name::new("x").unwrap();
        let (reader, _writer) = std::io::pipe().unwrap();
        let hoard = [reader.as_fd(); 4];
        let deadline = Instant::now() + LIMIT;
        for n in 0..count {
            let conn = self.conn(socket);
            loop {
                let sent = match what {
                    "mapped" => conn.send(&Request::Mapped { serial: n }.encode()),
                    "explain" => conn.send(&Request::Explain { endpoint }.encode()),
                    _ => conn.send_with(&Request::Mapped { serial: n }.encode(), &hoard),
                };
                match sent {
                    Ok(true) => break,
                    Ok(false) => std::thread::yield_now(),
                    Err(_) => return "closed".into(),
                }
                assert!(Instant::now() < deadline);
            }
        }
        "done".into()
    }

    /// The answer to Open, when the session is open or refused.
    fn opened(&mut self) -> String {
        let answer = self.next(LIMIT);
        if answer.starts_with("Ok ") {
            while self
                .read
                .back()
                .is_none_or(|last| !["ready", "closed", "nothing"].contains(&last.as_str()))
            {
                let next = self.next(LIMIT);
                self.read.push_back(next);
            }
        }
        answer
    }

    /// The next frame in words. Map is answered.
    fn next(&mut self, limit: Duration) -> String {
        let Some(conn) = &self.conn else {
            return "closed".into();
        };
        let deadline = Instant::now() + limit;
        let (mut frame, mut fds) = ([0; FRAME_BYTES], Vec::new());
        loop {
            match conn.receive_with(&mut frame, &mut fds) {
                Ok(Received::Packet(_)) => break,
                Ok(Received::Nothing) if Instant::now() > deadline => return "nothing".into(),
                Ok(Received::Nothing) => std::thread::sleep(Duration::from_micros(100)),
                Ok(Received::Closed) | Err(_) => return "closed".into(),
            }
        }
        match Answer::decode(&frame).unwrap() {
            Answer::Reply(reply) if reply.generation > 0 => {
                if let Some(page) = fds.pop() {
                    let page = Map::of(page.as_fd(), Bells::BYTES, true).unwrap();
                    self.page = Some(Bells::shared(page).unwrap());
                }
                let warning = reply
                    .text
                    .split_once("; ")
                    .map(|(_, text)| format!(" {text}"))
                    .unwrap_or_default();
                format!("{:?} {}{warning}", reply.status, reply.generation)
            }
            Answer::Reply(reply) => format!("{:?} {}", reply.status, reply.text),
            Answer::Notice(Notice::Map { serial }) => {
                let _ = conn.send(&Request::Mapped { serial }.encode());
                self.next(limit)
            }
            Answer::Notice(notice) => self.heard(notice, fds),
        }
    }

    fn heard(&mut self, notice: Notice, fds: Vec<OwnedFd>) -> String {
        let count = fds.len();
        match notice {
            Notice::Channel(channel) => {
                self.channels.push(channel);
                let Channel {
                    channel,
                    role,
                    endpoint,
                    direct,
                    ..
                } = channel;
                format!("channel {channel} {role:?} {endpoint} direct={direct}")
            }
            Notice::Ring {
                channel,
                serial,
                pid,
                ..
            } => {
                let geometry = self.channels[channel as usize].geometry().unwrap();
                let Channel { role, direct, .. } = self.channels[channel as usize];
                let bytes = if role == Role::Sender {
                    geometry.producer_bytes()
                } else {
                    geometry.consumer_bytes()
                };
                if direct {
                    self.halves
                        .push((serial, Map::of(fds[0].as_fd(), bytes, true).unwrap()));
                    return format!("ring {channel} direct {serial} of {pid} fds={count}");
                }
                let handles = Handles::from_fds(fds.try_into().unwrap());
                let bells = self.page.as_ref().unwrap();
                if role == Role::Sender {
                    self.up
                        .insert(channel, handles.into_producer(geometry, bells, 64).unwrap());
                } else {
                    self.down.insert(
                        channel,
                        handles.into_consumer(geometry, bells, channel).unwrap(),
                    );
                }
                format!("ring {channel} fds={count}")
            }
            Notice::Join { channel, serial } => {
                let known = self.halves.iter().any(|(of, _)| *of == serial);
                format!("join {channel} own={known} fds={count}")
            }
            Notice::Reach { channel, reachable } => format!("reach {channel} {reachable}"),
            Notice::Peer(status) => {
                format!(
                    "peer {} {:?} {:?}",
                    status.process, status.state, status.ending
                )
            }
            Notice::Map { .. } => unreachable!("answered"),
            Notice::Ready => "ready".into(),
        }
    }
}
