//! Filtered targets and their accounting: three queues behind one target, restricted to a process
//! group.

use super::*;
use crate::endpoint::sink::Sink;
use crate::endpoint::{self, SinkKind};
use crate::lane::event;
use crate::lane::policy::Overflow;
use crate::lane::progress::ProgressCell;
use crate::lane::route::{AtStop, Context, OriginRule, Route, Rules};
use crate::message::{Body, Message, Meta, Origin, Reject};
use crate::skin::{self, OpenQueue};
use crate::stats::reader::Reader;
use crate::stats::writer::Page;
use crate::stats::{Ledger, PageSpec, RouteSpec};
use crate::sys::mqueue::{self, Access, Queue};
use crate::sys::pidfd::PidFd;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// The group of `of` in these tests.
const GROUP: i32 = 40;

/// A registered process (this one) in this process group and session.
fn alive(pgid: i32, sid: i32) -> Arc<Peer> {
    let peer = Peer::new(1, skin::posix()).unwrap();
    peer.set_groups(pgid, sid);
    let pid = i32::try_from(std::process::id()).unwrap();
    peer.take(PidFd::open(pid).unwrap().as_fd(), pid, pid, 0)
        .unwrap();
    Arc::new(peer)
}

/// A route of one filtered target over three queues of two messages.
struct Bench {
    route: Route,
    of: Arc<Peer>,
    members: [Arc<Peer>; 3],
    queues: [(CString, Queue); 3],
    name: String,
    _page: Page,
}

impl Bench {
    fn new(mode: GroupMode, kin: Kin) -> Bench {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "target{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let queues: [_; 3] = std::array::from_fn(|i| {
            let queue = CString::new(format!("/rtd-{name}.{i}")).unwrap();
            drop(Queue::create(&queue, 2, 8, 0o600).unwrap());
            let receiver = Queue::open(&queue, Access::Receive, true).unwrap();
            (queue, receiver)
        });
        let of = alive(GROUP, GROUP);
        let members = std::array::from_fn(|_| alive(GROUP, GROUP));
        let sinks = queues
            .iter()
            .zip(&members)
            .map(|((queue, _), peer): (_, &Arc<Peer>)| {
                let queue = OpenQueue::open(skin::posix(), queue, Access::Send, true).unwrap();
                let sink = endpoint::mqueue::Sink {
                    queue,
                    bytes_max: 8,
                    announces_room: true,
                };
                Sink::new(SinkKind::Mqueue(sink), Some(Arc::clone(peer)))
            });
        let rules = Rules {
            index: 0,
            ttl_ns: u64::MAX,
            deadline_ns: u64::MAX,
            payload_bytes_max: 8,
            capacity: 2,
            overflow: Overflow::Reject,
            mq_priority: None,
            origin: OriginRule::Channel,
        };
        let filter = Some(Membership {
            kin,
            of: Arc::clone(&of),
        });
        let target = Target {
            mode,
            first: 0,
            len: 3,
            cursor: 0,
            filter,
        };
        let route = RouteSpec {
            name: "r".into(),
            lane: 0,
            from: 0,
            to: String::new(),
            ends: vec![0, 1, 2],
            direct: false,
        };
        let page = Page::create(&PageSpec {
            name: name.clone(),
            routes: vec![route],
            ..PageSpec::default()
        })
        .unwrap();
        let route = Route::new(
            rules,
            None,
            vec![target],
            sinks.collect(),
            page.route(0),
            None,
        );
        Bench {
            route,
            of,
            members,
            queues,
            name,
            _page: page,
        }
    }

    /// Puts each member into the process group with its number.
    fn groups(&self, pgids: [i32; 3]) {
        for (member, pgid) in self.members.iter().zip(pgids) {
            member.set_groups(pgid, GROUP);
        }
    }

    fn with_context<T>(&mut self, act: impl FnOnce(&mut Route, &mut Context<'_>) -> T) -> T {
        let (mut events, _consumer) = event::channel();
        let stop_at_ns = AtomicU64::new(0);
        let mut progress = ProgressCell::default();
        let mut ctx = Context {
            skin: skin::posix(),
            events: &mut events,
            stop_at_ns: &stop_at_ns,
            progress: &mut progress,
            last_ns: 0,
            at_stop: AtStop::Wait,
            stays: false,
        };
        act(&mut self.route, &mut ctx)
    }

    fn send(&mut self, payload: &[u8]) {
        let message = Message {
            body: Body::Bytes(payload),
            priority: 0,
            origin: Origin::UNKNOWN,
            dequeued_ns: (skin::posix().now_ns)(),
            since_ns: (skin::posix().now_ns)(),
            meta: Meta::default(),
        };
        self.with_context(|route, ctx| route.dispatch(&message, ctx));
        assert!(self.route.ledger().balances());
    }

    fn pump(&mut self) {
        self.with_context(|route, ctx| route.pump(ctx));
        assert!(self.route.ledger().balances());
    }

    /// Takes all messages of a queue: the first byte of each.
    fn take(&self, end: usize) -> Vec<u8> {
        let mut buffer = [0; 8];
        let mut receive = || {
            mqueue::receive(self.queues[end].1.as_raw_fd(), &mut buffer)
                .ok()
                .map(|_| buffer[0])
        };
        std::iter::from_fn(&mut receive).collect()
    }

    fn ledger_is(&self, ledger: Ledger) {
        assert_eq!(
            Ledger {
                deadline_misses: 0,
                ..*self.route.ledger()
            },
            ledger
        );
    }

    /// The number of deliveries to each end by the page.
    fn delivered(&self) -> [u64; 3] {
        let read = Reader::open(&self.name).unwrap().snapshot().unwrap();
        let targets = &read.routes[0].targets;
        assert!(
            targets
                .iter()
                .all(|t| (t.delivered > 0) == t.last_ns.is_some()),
            "{targets:?}"
        );
        std::array::from_fn(|end| targets[end].delivered)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        for (queue, _) in &self.queues {
            let _ = Queue::unlink(queue);
        }
    }
}

#[test]
fn kin_are_those_who_are_there_with_the_same_known_number() {
    let of = alive(7, 8);
    let by = |kin| Membership {
        kin,
        of: Arc::clone(&of),
    };
    let is = |filter: &Membership, peer: &Arc<Peer>| filter.includes(Some(peer), filter.wanted());
    let (group, session) = (by(Kin::ProcessGroup), by(Kin::Session));
    let same = alive(7, 80);
    assert!(is(&group, &same) && !is(&session, &same));
    let housemate = alive(70, 8);
    assert!(!is(&group, &housemate) && is(&session, &housemate));
    assert!(is(&group, &of), "it is in its own group");
    assert!(
        !group.includes(None, group.wanted()),
        "an end that nobody owns"
    );
    assert!(
        !is(&group, &Arc::new(Peer::new(1, skin::posix()).unwrap())),
        "nobody registered"
    );
    same.died();
    assert!(!is(&group, &same));
    of.set_groups(0, -1);
    let unknown = alive(0, -1);
    assert!(
        !is(&group, &unknown) && !is(&session, &unknown),
        "two unknowns are not the same"
    );
    of.set_groups(7, 8);
    of.left();
    assert_eq!((group.wanted(), is(&session, &housemate)), (None, false));
}

#[test]
fn all_is_as_many_copies_as_there_are_members() {
    let mut bench = Bench::new(GroupMode::All, Kin::ProcessGroup);
    bench.send(&[0]);
    bench.groups([GROUP, 41, GROUP]);
    bench.send(&[1]);
    // No member is left: one copy, without a receiver.
    bench.groups([41, 41, 0]);
    bench.send(&[2]);
    bench.groups([GROUP; 3]);
    bench.of.left();
    bench.send(&[3]);
    bench.ledger_is(Ledger {
        accepted: 7,
        delivered: 5,
        peer_dead: 2,
        ..Ledger::default()
    });
    assert_eq!(
        [0, 1, 2].map(|end| bench.take(end)),
        [vec![0, 1], vec![0], vec![0, 1]]
    );
    assert_eq!(bench.delivered(), [2, 1, 2]);
}

#[test]
fn a_refused_message_is_refused_for_each_member() {
    let mut bench = Bench::new(GroupMode::All, Kin::ProcessGroup);
    bench.groups([GROUP, 41, GROUP]);
    bench.send(&[0; 9]);
    let mut rejected = [0; Reject::COUNT];
    rejected[Reject::TooLarge as usize] = 2;
    bench.ledger_is(Ledger {
        accepted: 2,
        rejected,
        ..Ledger::default()
    });
}

#[test]
fn members_take_turns_and_the_others_have_none() {
    let mut bench = Bench::new(GroupMode::RoundRobin, Kin::Session);
    bench.members[1].set_groups(GROUP, 41);
    for n in 0..4 {
        bench.send(&[n]);
    }
    assert_eq!(
        [0, 1, 2].map(|end| bench.take(end)),
        [vec![0, 2], vec![], vec![1, 3]]
    );
    bench.members[1].set_groups(41, GROUP);
    for n in 4..7 {
        bench.send(&[n]);
    }
    assert_eq!(
        [0, 1, 2].map(|end| bench.take(end)),
        [vec![4], vec![5], vec![6]]
    );
    bench.of.died();
    bench.send(&[7]);
    bench.ledger_is(Ledger {
        accepted: 8,
        delivered: 7,
        peer_dead: 1,
        ..Ledger::default()
    });
    assert_eq!(bench.delivered(), [3, 1, 3]);
}

#[test]
fn any_is_the_first_member_with_room() {
    let mut bench = Bench::new(GroupMode::Any, Kin::ProcessGroup);
    bench.groups([41, GROUP, GROUP]);
    for n in 0..3 {
        bench.send(&[n]);
    }
    assert_eq!(
        [0, 1, 2].map(|end| bench.take(end)),
        [vec![], vec![0, 1], vec![2]]
    );
    bench.ledger_is(Ledger {
        accepted: 3,
        delivered: 3,
        ..Ledger::default()
    });
}

#[test]
fn what_is_queued_stays_with_the_end_it_is_queued_for() {
    let mut bench = Bench::new(GroupMode::Any, Kin::ProcessGroup);
    bench.groups([GROUP, 41, 41]);
    for n in 0..4 {
        bench.send(&[n]);
    }
    let waiting = Ledger {
        accepted: 4,
        delivered: 2,
        queued: 2,
        ..Ledger::default()
    };
    bench.ledger_is(waiting);
    // The others have room and are members now; the one that it waits for is no longer a member.
    bench.groups([41, GROUP, GROUP]);
    bench.pump();
    bench.ledger_is(waiting);
    assert_eq!(bench.take(0), [0, 1]);
    bench.pump();
    bench.ledger_is(Ledger {
        accepted: 4,
        delivered: 4,
        ..Ledger::default()
    });
    assert_eq!(
        [0, 1, 2].map(|end| bench.take(end)),
        [vec![2, 3], vec![], vec![]]
    );
    assert_eq!(bench.delivered(), [4, 0, 0]);
    // The message ends with it.
    bench.groups([41, GROUP, 41]);
    for n in 4..7 {
        bench.send(&[n]);
    }
    bench.members[1].died();
    bench.pump();
    bench.ledger_is(Ledger {
        accepted: 7,
        delivered: 6,
        peer_dead: 1,
        ..Ledger::default()
    });
    assert_eq!(bench.delivered(), [4, 2, 0]);
}

#[test]
fn the_books_balance_while_members_come_and_go() {
    for mode in [GroupMode::All, GroupMode::RoundRobin, GroupMode::Any] {
        let mut bench = Bench::new(mode, Kin::ProcessGroup);
        let stop = AtomicBool::new(false);
        let (of, members) = (Arc::clone(&bench.of), bench.members.clone());
        let taken: [u64; 3] = std::thread::scope(|scope| {
            let stop = &stop;
            scope.spawn(move || {
                for n in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    members[n % 3].set_groups(if n % 2 == 0 { 41 } else { GROUP }, GROUP);
                    of.set_groups(if n % 64 == 0 { 41 } else { GROUP }, GROUP);
                }
            });
            let mut taken = [0; 3];
            for n in 0..3000u32 {
                bench.send(&n.to_ne_bytes());
                for (end, taken) in taken.iter_mut().enumerate() {
                    *taken += bench.take(end).len() as u64;
                }
                bench.pump();
            }
            stop.store(true, Ordering::Relaxed);
            taken
        });
        let ledger = *bench.route.ledger();
        assert_eq!(
            (bench.delivered(), ledger.delivered),
            (taken, taken.iter().sum())
        );
        assert!(
            ledger.accepted >= 3000 && ledger.rejected_total() == 0 && ledger.queued == 0,
            "{ledger:?}"
        );
    }
}
