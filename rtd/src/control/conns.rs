//! The connections of the control socket: a fixed number of slots, and who gives way when they are full.
//!
//! Invariant: at most [`CONNECTIONS_MAX`] descriptors, each in the readiness set exactly while its slot
//! is taken. A token names slot *and* use, so an event of a connection that was closed earlier in the
//! same turn finds nothing.

use super::Token;
use rtcore::sys::epoll::Epoll;
use rtcore::sys::pidfd::PidFd;
use rtcore::sys::seqpacket::{Conn, PeerCred};
use rtcore::wire::{Reply, Status};
use std::io;
use std::time::{Duration, Instant};

/// Connections at once.
pub const CONNECTIONS_MAX: usize = 128;
/// A connection that says nothing is closed after this long.
pub const IDLE_MAX: Duration = Duration::from_secs(10);

/// A registration whose exec(2) this connection will tell by its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ExecOf {
    pub process: usize,
    pub generation: u64,
}

/// One client.
#[derive(Debug)]
pub(super) struct Client {
    pub conn: Conn,
    pub cred: PeerCred,
    /// The connecting process itself.
    pub pidfd: PidFd,
    pub exec_of: Option<ExecOf>,
    token: u64,
    last_heard: Instant,
}

impl Client {
    /// Notes that it spoke. One that has announced its exec(2) has nothing more to say: the time it was
    /// given for that is not prolonged.
    pub fn heard(&mut self, now: Instant) {
        if self.exec_of.is_none() {
            self.last_heard = now;
        }
    }
}

/// All of them.
#[derive(Debug)]
pub(super) struct Clients {
    slots: Vec<Option<Client>>,
    uses: u32,
}

impl Clients {
    pub fn new() -> Clients {
        Clients { slots: (0..CONNECTIONS_MAX).map(|_| None).collect(), uses: 0 }
    }

    pub fn is_full(&self) -> bool {
        self.slots.iter().all(Option::is_some)
    }

    pub fn len(&self) -> usize {
        self.slots.iter().flatten().count()
    }

    /// Takes a connection in; there must be a free slot, else it is closed.
    pub fn insert(&mut self, epoll: &Epoll, conn: Conn, now: Instant) -> io::Result<()> {
        let Some(slot) = self.slots.iter().position(Option::is_none) else { return Ok(()) };
        let cred = conn.peer()?;
        let pidfd = conn.peer_pidfd()?;
        self.uses = self.uses.wrapping_add(1);
        let token = Token::Client { slot, uses: self.uses }.encode();
        epoll.add(&conn, token)?;
        self.slots[slot] = Some(Client { conn, cred, pidfd, exec_of: None, token, last_heard: now });
        Ok(())
    }

    /// Who `token` is, unless that connection is closed.
    pub fn get(&mut self, slot: usize, token: u64) -> Option<&mut Client> {
        self.slots.get_mut(slot)?.as_mut().filter(|client| client.token == token)
    }

    /// Closes a connection; whoever it was is handed back for its `exec_of`.
    pub fn remove(&mut self, epoll: &Epoll, slot: usize) -> Option<Client> {
        let client = self.slots.get_mut(slot)?.take()?;
        // It cannot fail for a descriptor that is in the set; nothing is lost if it does, the close
        // that follows takes the last reference.
        let _ = epoll.remove(&client.conn);
        Some(client)
    }

    /// Makes room: the one that has been silent longest goes, but none whose exec is awaited.
    pub fn evict(&mut self, epoll: &Epoll) -> bool {
        let idle = self.slots.iter().enumerate().filter_map(|(slot, client)| {
            let client = client.as_ref().filter(|client| client.exec_of.is_none())?;
            Some((client.last_heard, slot))
        });
        let Some((_, slot)) = idle.min() else { return false };
        if let Some(client) = self.remove(epoll, slot) {
            busy(&client.conn);
        }
        true
    }

    /// Slots that have been silent for longer than [`IDLE_MAX`].
    pub fn idle(&self, now: Instant) -> Vec<usize> {
        let late = |client: &Client| now.saturating_duration_since(client.last_heard) >= IDLE_MAX;
        let slots = self.slots.iter().enumerate();
        slots.filter(|(_, client)| client.as_ref().is_some_and(late)).map(|(slot, _)| slot).collect()
    }
}

/// Tells a client that it must go, if it listens.
pub(super) fn busy(conn: &Conn) {
    let text =
        format!("all {CONNECTIONS_MAX} connections of rtd are taken, the most idle gives way: try again");
    let _ = conn.send(&Reply::plain(Status::Busy, text).encode());
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtcore::sys::seqpacket::{Listener, Received};

    #[test]
    fn the_longest_silent_gives_way_and_is_told() {
        let dir = std::env::temp_dir().join(format!("rtd-conns-{}", std::process::id()));
        let listener = Listener::bind(&dir.join("s")).unwrap();
        let epoll = Epoll::new().unwrap();
        let mut clients = Clients::new();
        let start = Instant::now();
        let mut ends = Vec::new();
        for n in 0..3 {
            ends.push(Conn::connect(listener.path(), Duration::from_secs(1)).unwrap());
            let conn = listener.accept().unwrap().unwrap();
            clients.insert(&epoll, conn, start + Duration::from_secs(n)).unwrap();
        }
        clients.slots[0].as_mut().unwrap().exec_of = Some(ExecOf { process: 0, generation: 1 });
        clients.slots[1].as_mut().unwrap().heard(start + Duration::from_secs(9));
        assert!(clients.evict(&epoll), "slot 2: 0 waits for its exec, 1 was heard of later");
        let mut frame = [0; 256];
        assert_eq!(ends[2].receive(&mut frame).unwrap(), Received::Packet(256));
        assert_eq!(Reply::decode(&frame).unwrap().status, Status::Busy);
        assert_eq!(clients.len(), 2);
        let token = clients.slots[1].as_ref().unwrap().token;
        assert!(clients.get(1, token).is_some() && clients.get(1, token + 1).is_none());
        assert_eq!(clients.idle(start + IDLE_MAX), [0]);
        assert!(clients.evict(&epoll));
        assert!(!clients.evict(&epoll), "an awaited exec is never evicted");
        drop(listener);
        std::fs::remove_dir(dir).unwrap();
    }
}
