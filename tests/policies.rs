//! What each overflow policy does for each kind of receiver: one table, exact counts and exact
//! contents, in order.

use crate::pending::{self, Bound};
use crate::util::book::End::{self, Delivered, Displaced, Queued, Rejected};
use crate::util::cobalt_bench::Bench;
use crate::util::lane_talk::{endpoint, pair, peers};
use crate::util::needs::ROOT;
use crate::util::order::Queue;
use crate::util::talk::patience_ms;
use crate::util::{Daemon, Instance, Peer, book, process, route, rt, signal};
use crate::xddp;
use anyhow::{Context as _, ensure};
use rtcore::message::Reject;
use stand_in_cobalt::Device;
use stand_in_cobalt::copies::Kind;

tests![
    a_full_queue,
    a_full_ring,
    a_full_ring_of_a_signal,
    full_signals needs(ROOT),
    a_full_queue_on_cobalt needs(ROOT),
    a_full_xddp_port needs(ROOT),
];

const POLICIES: [&str; 5] = [
    "reject",
    "displace-oldest",
    "displace-newest",
    "conflate",
    "block:2000",
];

/// Messages that wait in the route at most.
const CAPACITY: u64 = 2;

/// Who keeps what a receiver has not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keeper {
    /// The kernel, or Cobalt's core: the oldest messages.
    Kernel,
    /// A ring, which newer messages overwrite if the policy gives up older ones.
    Ring,
}

/// A row's expectation for a receiver that does not read.
struct Expected {
    /// Before it reads, and after it has read.
    ends: Vec<(End, u64)>,
    awake: Vec<(End, u64)>,
    /// Numbers of the messages that it then reads, in order.
    contents: Vec<u64>,
}

/// The table: so many numbered messages for a receiver that takes `room`.
fn expected(policy: &str, keeper: Keeper, room: u64, sent: u64) -> Expected {
    let last = sent - 1;
    let overwritten = match policy {
        "displace-oldest" => Some(room),
        "conflate" => Some(1),
        _ => None,
    };
    // All were handed over, and the receiver's library hands out what the ring still has.
    if let (Keeper::Ring, Some(kept)) = (keeper, overwritten) {
        return Expected {
            ends: vec![(Delivered, sent)],
            awake: vec![(Delivered, sent)],
            contents: (sent - kept..sent).collect(),
        };
    }
    let full = Rejected(Reject::Full);
    let (lost, queued) = match policy {
        "displace-oldest" => (Displaced, vec![last - 1, last]),
        "displace-newest" => (Displaced, vec![room, last]),
        "conflate" => (Displaced, vec![last]),
        // `block` gives up after its bound, for each message.
        _ => (full, vec![room, room + 1]),
    };
    let waiting = queued.len() as u64;
    let lost = (lost, sent - room - waiting);
    Expected {
        ends: vec![(Delivered, room), (Queued, waiting), lost],
        awake: vec![(Delivered, room + waiting), lost],
        // The queued ones come behind those it has, in order, and none but those.
        contents: (0..room).chain(queued).collect(),
    }
}

/// A daemon with one route, and both its ends. (The daemon ends first.)
struct Stage {
    daemon: Daemon,
    place: Place,
    route: &'static str,
    keeper: Keeper,
    /// Messages that the receiver takes without reading.
    room: u64,
    sender: Sender,
    receiver: Receiver,
}

enum Place {
    Linux(Instance),
    Cobalt(Bench),
}

impl Place {
    fn instance(&self) -> &Instance {
        match self {
            Place::Linux(instance) => instance,
            Place::Cobalt(bench) => &bench.instance,
        }
    }
}

enum Sender {
    Queue(Peer),
    /// The endpoint `a.out`.
    Ring(Peer),
}

impl Sender {
    /// Sends the numbers from 0 to `count` - 1.
    fn send(&mut self, count: u64) -> anyhow::Result<()> {
        match self {
            Sender::Queue(peer) => peer.stream(0, count),
            Sender::Ring(peer) => {
                let tried = peer.burst("a.out", 0, count)?;
                ensure!(tried == (count, 0), "(sent, full): {tried:?}");
                Ok(())
            }
        }
    }
}

enum Receiver {
    Queue(Peer),
    Ring(Peer),
    Signals(Peer),
    /// Stopped until it reads.
    Handlers(Peer),
    /// Its device is opened when it is read.
    Port(Option<Device>),
}

impl Receiver {
    /// What it has not read, where it can say so.
    fn held(&mut self) -> anyhow::Result<Option<u64>> {
        match self {
            Receiver::Queue(peer) => Ok(Some(peer.tell(Queue::Held)?.number()?)),
            _ => Ok(None),
        }
    }

    /// Reads so many.
    fn read(&mut self, place: &Place, count: usize) -> anyhow::Result<Vec<u64>> {
        match self {
            Receiver::Queue(peer) => peer.numbers(count),
            Receiver::Ring(peer) => peer.take_numbers(count),
            Receiver::Signals(peer) => peer.values_for(rt(1), count as u64, patience_ms()),
            Receiver::Handlers(peer) => {
                peer.thaw()?;
                let noticed = peer.noticed(count as u64)?;
                Ok(noticed.iter().map(|notice| notice.value).collect())
            }
            Receiver::Port(device) => {
                let Place::Cobalt(bench) = place else {
                    anyhow::bail!("a port without Cobalt")
                };
                let device = device.insert(bench.open_device(0)?);
                (0..count).map(|_| xddp::number(device)).collect()
            }
        }
    }

    /// Fails if more than that has come.
    fn has_no_more(&mut self, count: u64) -> anyhow::Result<()> {
        let more = match self {
            Receiver::Queue(peer) => !peer.rest()?.is_empty(),
            Receiver::Ring(peer) => !peer.left()?.is_empty(),
            Receiver::Signals(peer) => !peer.pending(rt(1))?.is_empty(),
            Receiver::Handlers(peer) => peer.dispatched()?.received != count,
            Receiver::Port(device) => {
                let device = device.as_ref().context("it was never read")?;
                device.read(xddp::A_WHILE)?.is_some()
            }
        };
        ensure!(!more, "more than {count} came");
        Ok(())
    }
}

/// Every policy for receivers of one kind.
fn every_policy(stage: impl Fn(&str) -> anyhow::Result<Stage>) -> anyhow::Result<()> {
    for policy in POLICIES {
        let keys = format!("capacity = {CAPACITY}\noverflow = \"{policy}\"");
        let outcome = stage(&keys).and_then(|stage| row(policy, stage));
        outcome.with_context(|| policy.to_owned())?;
    }
    Ok(())
}

/// More messages than there is room for, for a receiver that does not read; then it reads.
fn row(policy: &str, stage: Stage) -> anyhow::Result<()> {
    let Stage {
        daemon,
        place,
        route,
        keeper,
        room,
        mut sender,
        mut receiver,
    } = stage;
    let instance = place.instance();
    let sent = (room + 6).max(10);
    let expected = expected(policy, keeper, room, sent);
    sender.send(sent)?;
    instance.ledger_is(route, sent, &expected.ends)?;
    let held = receiver.held()?;
    ensure!(held.is_none_or(|held| held == room), "{held:?} are held");
    let got = receiver.read(&place, expected.contents.len())?;
    ensure!(got == expected.contents, "{got:?}");
    let snapshot = instance.ledger_is(route, sent, &expected.awake)?;
    let received = got.len() as u64;
    receiver.has_no_more(received)?;
    // The lane's sum is the route's, for it has no other.
    let (lane, of_route) = (snapshot.lanes[0].ledger, book::of(&snapshot, route)?);
    ensure!(lane == of_route, "{lane:?}\n not {of_route:?}");
    if let Receiver::Ring(peer) = &mut receiver {
        // The gaps are the rest.
        let missed = got.last().map_or(0, |last| last + 1 - received);
        let c = peer.counters()?;
        let seen = (c.received, c.duplicates, c.missed, c.corrupt);
        ensure!(seen == (received, 0, missed, 0), "{c:?}");
    }
    // To conflate is no trouble, and neither is what a ring gives up.
    if policy != "conflate" && expected.ends.len() > 1 {
        let endpoint = route.rsplit_once("->").map_or(route, |(_, to)| to);
        daemon.logged(&format!("{endpoint} is full"))?;
    }
    daemon.stop()?;
    Ok(())
}

fn a_full_queue() -> anyhow::Result<()> {
    every_policy(|keys| {
        let instance = Instance::new()?;
        let config = instance.head()
            + &instance.mqueue("in", "")
            + &instance.mqueue("out", "maxmsg = 3")
            + &route("in", &["out"], keys);
        Ok(Stage {
            daemon: Daemon::start(&config)?,
            route: "in->out",
            keeper: Keeper::Kernel,
            room: 3,
            sender: Sender::Queue(Peer::sender(&instance.queue("in"))?),
            receiver: Receiver::Queue(Peer::receiver(&instance.queue("out"))?),
            place: Place::Linux(instance),
        })
    })
}

fn a_full_ring() -> anyhow::Result<()> {
    every_policy(|keys| {
        let instance = Instance::new()?;
        let daemon = Daemon::start(&pair(&instance, [16, 4], keys))?;
        let [a, b] = peers(&instance)?;
        Ok(Stage {
            daemon,
            route: "a.out->b.in",
            keeper: Keeper::Ring,
            room: 4,
            sender: Sender::Ring(a),
            receiver: Receiver::Ring(b),
            place: Place::Linux(instance),
        })
    })
}

/// Payloads with a signal come by a ring.
fn a_full_ring_of_a_signal() -> anyhow::Result<()> {
    every_policy(|keys| {
        let instance = Instance::new()?;
        let config = instance.head()
            + &process("a")
            + &process("b")
            + &endpoint("a.out", "a", 16)
            + &signal("b.go", "b", "SIGRTMIN+3", "msgsize = 64\nmaxmsg = 4")
            + &route("a.out", &["b.go"], keys);
        let daemon = Daemon::start(&config)?;
        let mut b = Peer::start()?;
        b.block_for_handlers(rt(3))?;
        b.connect(&instance, "b")?;
        b.handle(rt(3))?;
        let mut a = Peer::from_endpoint(&instance, "a", "a.out")?;
        a.reach("a.out")?;
        b.freeze()?;
        Ok(Stage {
            daemon,
            route: "a.out->b.go",
            keeper: Keeper::Ring,
            room: 4,
            sender: Sender::Ring(a),
            receiver: Receiver::Handlers(b),
            place: Place::Linux(instance),
        })
    })
}

fn full_signals() -> anyhow::Result<()> {
    every_policy(|keys| {
        let instance = Instance::new()?;
        let daemon = Daemon::start(&pending::config(&instance, &["drive"], "", keys))?;
        let drive = pending::drive(&instance, Bound::Kernel)?;
        Ok(Stage {
            daemon,
            route: "in->drive.sig",
            keeper: Keeper::Kernel,
            room: pending::ROOM,
            sender: Sender::Queue(Peer::sender(&instance.queue("in"))?),
            receiver: Receiver::Signals(drive),
            place: Place::Linux(instance),
        })
    })
}

fn a_full_queue_on_cobalt() -> anyhow::Result<()> {
    every_policy(|keys| {
        let bench = Bench::new(Kind::Stock)?;
        let at = &bench.instance;
        let config = bench.head()
            + &at.mqueue("in", "")
            + &at.mqueue("out", "maxmsg = 3")
            + &route("in", &["out"], keys);
        Ok(Stage {
            daemon: bench.daemon(&config)?,
            route: "in->out",
            keeper: Keeper::Kernel,
            room: 3,
            sender: Sender::Queue(bench.sends_to("in")?),
            receiver: Receiver::Queue(bench.receives_from("out")?),
            place: Place::Cobalt(bench),
        })
    })
}

fn a_full_xddp_port() -> anyhow::Result<()> {
    every_policy(|keys| {
        let bench = Bench::new(Kind::Stock)?;
        let config = bench.head()
            + &bench.instance.mqueue("in", "")
            + &xddp::port("hmi", 0, "maxmsg = 64\nmsgsize = 64")
            + &route("in", &["hmi"], keys);
        Ok(Stage {
            daemon: bench.daemon(&config)?,
            route: "in->hmi",
            keeper: Keeper::Kernel,
            room: xddp::POOL,
            sender: Sender::Queue(bench.sends_to("in")?),
            receiver: Receiver::Port(None),
            place: Place::Cobalt(bench),
        })
    })
}
