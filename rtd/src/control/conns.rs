//! The connections of the control socket: a fixed number of slots, and the choice of the connection
//! to close when they are full.
//!
//! One user can neither fill the table nor push others out of it: each user has a share, and the
//! user with the most connections loses one first. Root has no share and loses one last, so an
//! operator can always connect.
//!
//! Invariant: at most [`CONNECTIONS_MAX`] descriptors, each in the readiness set exactly while its
//! slot is taken. A token names slot *and* use, so an event of a connection that was closed earlier
//! in the same turn finds nothing.

use super::Token;
use rtcore::sys::epoll::Epoll;
use rtcore::sys::limits::shortage_hint;
use rtcore::sys::pidfd::PidFd;
use rtcore::sys::seqpacket::{Conn, PeerCred};
use rtcore::wire::{Reply, Status};
use std::cmp::Reverse;
use std::io;
use std::time::{Duration, Instant};

/// Limit of the connections.
pub const CONNECTIONS_MAX: usize = 128;
/// Limit of the connections of one user other than root.
pub const CONNECTIONS_PER_UID_MAX: usize = 16;
/// A connection that sends nothing is closed after this time.
pub const IDLE_MAX: Duration = Duration::from_secs(10);

/// A registration whose exec(2) this connection will show by its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ExecOf {
    pub process: usize,
    pub generation: u64,
}

#[derive(Debug)]
pub(super) struct Client {
    pub conn: Conn,
    pub cred: PeerCred,
    /// The connecting process itself.
    pub pidfd: PidFd,
    pub exec_of: Option<ExecOf>,
    token: u64,
    last_active: Instant,
}

impl Client {
    /// Records activity. A client that has announced its exec(2) has nothing more to send, so its
    /// time is not extended.
    pub fn note_activity(&mut self, now: Instant) {
        if self.exec_of.is_none() {
            self.last_active = now;
        }
    }
}

/// All connections.
#[derive(Debug)]
pub(super) struct Clients {
    slots: Vec<Option<Client>>,
    uses: u32,
}

impl Clients {
    pub fn new() -> Clients {
        Clients {
            slots: (0..CONNECTIONS_MAX).map(|_| None).collect(),
            uses: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.slots.iter().flatten().count()
    }

    /// Adds a connection; if there is no room, closes another one. Returns whether it closed one,
    /// or this one because all others await an exec(2).
    pub fn insert(&mut self, epoll: &Epoll, conn: Conn, now: Instant) -> io::Result<bool> {
        let cred = conn.peer()?;
        let share_is_used = cred.uid != 0 && self.of_uid(cred.uid) >= CONNECTIONS_PER_UID_MAX;
        let crowded = share_is_used || self.slots.iter().all(Option::is_some);
        if crowded && !self.evict(epoll, share_is_used.then_some(cred.uid)) {
            busy(&conn);
            return Ok(true);
        }
        let Some(slot) = self.slots.iter().position(Option::is_none) else {
            return Ok(crowded);
        };
        self.uses = self.uses.wrapping_add(1);
        let token = Token::Client {
            slot,
            uses: self.uses,
        }
        .encode();
        let pidfd = conn
            .peer_pidfd()
            .and_then(|pidfd| epoll.add(&conn, token).map(|()| pidfd));
        let pidfd = pidfd.inspect_err(|e| short(&conn, e))?;
        self.slots[slot] = Some(Client {
            conn,
            cred,
            pidfd,
            exec_of: None,
            token,
            last_active: now,
        });
        Ok(crowded)
    }

    fn of_uid(&self, uid: u32) -> usize {
        self.slots
            .iter()
            .flatten()
            .filter(|client| client.cred.uid == uid)
            .count()
    }

    /// A name was granted again: nobody awaits the exec(2) of an older grant any more.
    pub fn forget_older(&mut self, process: usize, generation: u64) {
        let older = |of: &mut ExecOf| of.process == process && of.generation < generation;
        for client in self.slots.iter_mut().flatten() {
            client.exec_of.take_if(older);
        }
    }

    /// The client of `token`, unless that connection is closed.
    pub fn get(&mut self, slot: usize, token: u64) -> Option<&mut Client> {
        self.slots
            .get_mut(slot)?
            .as_mut()
            .filter(|client| client.token == token)
    }

    /// Closes a connection; returns the client for its `exec_of`.
    pub fn remove(&mut self, epoll: &Epoll, slot: usize) -> Option<Client> {
        let client = self.slots.get_mut(slot)?.take()?;
        // It cannot fail for a descriptor that is in the set. If it fails, nothing is lost, because
        // the following close drops the last reference.
        let _ = epoll.remove(&client.conn);
        Some(client)
    }

    /// Closes a connection, of any user or of one user. It chooses, of the user with the most
    /// connections, the one that has been silent longest; root's last, and none whose exec is
    /// awaited.
    pub fn evict(&mut self, epoll: &Epoll, uid: Option<u32>) -> bool {
        let idle = self.slots.iter().enumerate().filter_map(|(slot, client)| {
            let client = client.as_ref().filter(|client| client.exec_of.is_none())?;
            let of = client.cred.uid;
            let rank = (of == 0, Reverse(self.of_uid(of)), client.last_active, slot);
            uid.is_none_or(|uid| uid == of).then_some(rank)
        });
        let Some((.., slot)) = idle.min() else {
            return false;
        };
        if let Some(client) = self.remove(epoll, slot) {
            busy(&client.conn);
        }
        true
    }

    /// Slots that have been silent for longer than [`IDLE_MAX`].
    pub fn idle(&self, now: Instant) -> Vec<usize> {
        let late = |client: &Client| now.saturating_duration_since(client.last_active) >= IDLE_MAX;
        let slots = self.slots.iter().enumerate();
        slots
            .filter(|(_, client)| client.as_ref().is_some_and(late))
            .map(|(slot, _)| slot)
            .collect()
    }
}

/// Tells a client that its connection is closed, if the frame fits.
pub(super) fn busy(conn: &Conn) {
    let text = format!(
        "the {CONNECTIONS_MAX} connections of rtd, or the {CONNECTIONS_PER_UID_MAX} of your user, are \
                 in use; rtd closes the one that was silent longest: try again"
    );
    let _ = conn.send(&Reply::plain(Status::Busy, text).encode());
}

/// Tells a client why rtd cannot serve it now.
fn short(conn: &Conn, e: &io::Error) {
    let text = format!("rtd cannot take a connection: {e}{}", shortage_hint(e));
    let _ = conn.send(&Reply::plain(Status::Busy, text).encode());
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtcore::sys::seqpacket::{Listener, Received};

    fn listener(name: &str) -> (Listener, Epoll) {
        let dir = std::env::temp_dir().join(format!("rtd-conns-{}-{name}", std::process::id()));
        (
            Listener::bind(&dir.join("s")).unwrap(),
            Epoll::new().unwrap(),
        )
    }

    /// Makes a connection, and adds it as one of this user.
    fn take(
        clients: &mut Clients,
        listener: &Listener,
        epoll: &Epoll,
        uid: u32,
        now: Instant,
    ) -> Conn {
        let end = Conn::connect(listener.path(), Duration::from_secs(1)).unwrap();
        let slot = clients.slots.iter().position(Option::is_none).unwrap();
        clients
            .insert(epoll, listener.accept().unwrap().unwrap(), now)
            .unwrap();
        clients.slots[slot].as_mut().unwrap().cred.uid = uid;
        end
    }

    #[test]
    fn of_the_user_with_most_connections_the_longest_silent_gives_way_and_root_last() {
        let (listener, epoll) = listener("users");
        let (mut clients, start) = (Clients::new(), Instant::now());
        let after = |n| start + Duration::from_secs(n);
        // In this order of silence; user 0 is root.
        let ends: Vec<Conn> = [0, 0, 0, 7, 8, 8, 8, 9]
            .iter()
            .zip(0..)
            .map(|(uid, n)| take(&mut clients, &listener, &epoll, *uid, after(n)))
            .collect();
        let mut gone = |uid| {
            assert!(clients.evict(&epoll, uid));
            let there = |slot: &Option<Client>| slot.is_some();
            clients
                .slots
                .iter()
                .take(ends.len())
                .map(there)
                .collect::<Vec<_>>()
        };
        let mut expected = vec![true; ends.len()];
        for (uid, slot) in [
            (Some(9), 7),
            (None, 4),
            (None, 5),
            (None, 3),
            (None, 6),
            (None, 0),
            (None, 1),
        ] {
            expected[slot] = false;
            assert_eq!(gone(uid), expected, "{slot} should have gone");
        }
        assert!(!clients.evict(&epoll, Some(8)));
        std::fs::remove_dir_all(listener.path().parent().unwrap()).unwrap();
    }

    #[test]
    fn a_new_grant_of_a_name_frees_the_connections_of_older_ones() {
        let (listener, epoll) = listener("grants");
        let mut clients = Clients::new();
        let ends: Vec<Conn> = (0..3)
            .map(|_| take(&mut clients, &listener, &epoll, 7, Instant::now()))
            .collect();
        for (slot, (process, generation)) in [(0, 1), (0, 2), (1, 1)].into_iter().enumerate() {
            clients.slots[slot].as_mut().unwrap().exec_of = Some(ExecOf {
                process,
                generation,
            });
        }
        clients.forget_older(0, 2);
        let awaited = |slot: usize| clients.slots[slot].as_ref().unwrap().exec_of.is_some();
        assert_eq!([0, 1, 2].map(awaited), [false, true, true]);
        drop(ends);
        std::fs::remove_dir_all(listener.path().parent().unwrap()).unwrap();
    }

    #[test]
    fn the_longest_silent_connection_is_closed_with_a_reply() {
        let (listener, epoll) = listener("silent");
        let dir = listener.path().parent().unwrap().to_owned();
        let mut clients = Clients::new();
        let start = Instant::now();
        let mut ends = Vec::new();
        for n in 0..3 {
            ends.push(Conn::connect(listener.path(), Duration::from_secs(1)).unwrap());
            let conn = listener.accept().unwrap().unwrap();
            clients
                .insert(&epoll, conn, start + Duration::from_secs(n))
                .unwrap();
        }
        clients.slots[0].as_mut().unwrap().exec_of = Some(ExecOf {
            process: 0,
            generation: 1,
        });
        clients.slots[1]
            .as_mut()
            .unwrap()
            .note_activity(start + Duration::from_secs(9));
        assert!(
            clients.evict(&epoll, None),
            "slot 2: 0 waits for its exec, 1 was heard of later"
        );
        let mut frame = [0; 256];
        assert_eq!(ends[2].receive(&mut frame).unwrap(), Received::Packet(256));
        assert_eq!(Reply::decode(&frame).unwrap().status, Status::Busy);
        assert_eq!(clients.len(), 2);
        let token = clients.slots[1].as_ref().unwrap().token;
        assert!(clients.get(1, token).is_some() && clients.get(1, token + 1).is_none());
        assert_eq!(clients.idle(start + IDLE_MAX), [0]);
        assert!(clients.evict(&epoll, None));
        assert!(
            !clients.evict(&epoll, None),
            "an awaited exec is never evicted"
        );
        drop(listener);
        std::fs::remove_dir(dir).unwrap();
    }
}
