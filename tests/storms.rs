//! A storm of short-lived senders while rtd is stopped and started: what each of them sent is
//! received, or is in the ledgers of the lives of rtd, message by message.

use crate::util::lane_talk::endpoint;
use crate::util::order;
use crate::util::talk::patience_ms;
use crate::util::{Daemon, Instance, Peer, eventually, process, route};
use anyhow::{Context as _, ensure};
use rtcore::stats::reader::Reader;
use rtcore::stats::snapshot::{Route, Snapshot};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

tests![what_short_lived_senders_send_over_many_stops_is_accounted_for,];

/// Messages of one sender.
const BURST: u64 = 30;
/// How long it lasts; RTD_STORM_S has another number.
const SECONDS: u64 = 6;
/// However slow the machine is.
const STOPS_MIN: u64 = 5;
const MEMBERS: [&str; 3] = ["x", "y", "z"];
/// By route: its name, and how many copies of a message there are.
const WAYS: [(&str, u64); 3] = [("all", 3), ("any", 1), ("round-robin", 1)];

/// Numbers that a seed gives again (Knuth's MMIX generator).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

fn config(i: &Instance) -> String {
    let mut text = i.head().replace("[daemon]", "[daemon]\ndrain = \"20ms\"");
    for name in MEMBERS {
        text += &process(name);
        text += &WAYS
            .map(|(way, _)| endpoint(&format!("{name}.{way}"), name, 16))
            .concat();
    }
    for (way, _) in WAYS {
        let members = MEMBERS.map(|name| format!("\"{name}.{way}\"")).join(", ");
        let from = format!("{way}.out");
        text += &process(way);
        text += &endpoint(&from, way, 64);
        text += &format!(
            "[[group]]\nname = \"{way}.group\"\nmembers = [{members}]\nmode = \"{way}\"\n"
        );
        text += &route(
            &from,
            &[&format!("{way}.group")],
            &format!("name = \"{way}\"\ncapacity = 4"),
        );
    }
    text
}

/// A process with a session.
fn connect(socket: &str, name: &str) -> anyhow::Result<Peer> {
    let mut peer = Peer::start()?;
    // No rtd may run now.
    eventually(|| peer.tell(order::Session::Connect { socket, name }).ok())?;
    Ok(peer)
}

/// Sends from one endpoint, process after process, each of which ends in one of several ways.
/// Returns the numbers that were accepted and those whose fate is not known to the sender.
fn send(
    socket: &str,
    way: &str,
    over: &AtomicBool,
    seed: u64,
) -> anyhow::Result<[BTreeSet<u64>; 2]> {
    let mut rng = Random(seed);
    let [mut accepted, mut doubtful] = [BTreeSet::new(), BTreeSet::new()];
    let out = format!("{way}.out");
    let mut from = 1;
    while !over.load(Ordering::Acquire) {
        let mut peer = connect(socket, way)?;
        peer.claim(&out)?;
        if rng.below(2) == 0 {
            peer.reach(&out)?;
        }
        for _ in 0..1 + rng.below(3) {
            let outcomes = peer.tell(order::Send::Outcomes {
                endpoint: &out,
                from,
                count: BURST,
            })?;
            for (n, outcome) in (from..).zip(outcomes.outcomes()?) {
                match outcome {
                    None => _ = accepted.insert(n),
                    // Refused, and may arrive.
                    Some(order::Refused::Disconnected) => _ = doubtful.insert(n),
                    _ => {}
                }
            }
            from += BURST;
        }
        match rng.below(3) {
            0 => peer.kill()?,
            1 => {
                peer.close_all()?;
                peer.kill()?;
            }
            _ => {
                peer.tell(order::Send::Flush {
                    endpoint: &out,
                    ms: patience_ms(),
                })?;
                peer.kill()?;
            }
        }
    }
    Ok([accepted, doubtful])
}

/// What the ledgers of one life say of a route.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    accepted: u64,
    delivered: u64,
    lost: u64,
}

impl Sum {
    fn add(&mut self, route: &Route) -> anyhow::Result<()> {
        let ledger = &route.ledger;
        ensure!(ledger.balances() && ledger.queued == 0, "{route:?}");
        self.accepted += ledger.accepted + route.lost_in_last_life;
        self.delivered += ledger.delivered;
        self.lost += ledger.accepted - ledger.delivered + route.lost_in_last_life;
        Ok(())
    }
}

fn add(sums: &mut [Sum; 3], page: &Snapshot) -> anyhow::Result<()> {
    for ((way, _), sum) in WAYS.iter().zip(sums) {
        let route = page.routes.iter().find(|route| route.name == *way);
        sum.add(route.context("no such route")?)?;
    }
    Ok(())
}

/// What one member receives, by way, until the storm is over and nothing more comes.
fn receive(socket: &str, name: &str, quiet: &AtomicBool) -> anyhow::Result<[Vec<u64>; 3]> {
    let mut peer = connect(socket, name)?;
    for (way, _) in WAYS {
        peer.tell(order::Receive::Inbox {
            key: way,
            of: Some(vec![&format!("{name}.{way}")]),
        })?;
    }
    let mut got: [Vec<u64>; 3] = Default::default();
    loop {
        let last = quiet.load(Ordering::Acquire);
        for ((way, _), got) in WAYS.iter().zip(&mut got) {
            let numbers = order::Receive::Numbers {
                key: way,
                count: 1_000_000,
                ms: 1,
            };
            got.extend(peer.tell(numbers)?.numbers()?);
        }
        if last {
            return Ok(got);
        }
    }
}

/// Stops and starts rtd for so long, and adds the ledgers of its lives up.
fn restart(
    i: &Instance,
    text: &str,
    mut daemon: Daemon,
    seconds: u64,
    seed: u64,
    goes_on: impl Fn() -> bool,
) -> anyhow::Result<(Daemon, [Sum; 3], u64)> {
    let (mut rng, begun) = (Random(seed), Instant::now());
    let (mut sums, mut stops) = ([Sum::default(); 3], 0);
    while (begun.elapsed() < Duration::from_secs(seconds) || stops < STOPS_MIN) && goes_on() {
        std::thread::sleep(Duration::from_millis(20 + rng.below(230)));
        let page = Reader::open(&i.name)?;
        daemon.stop()?;
        add(&mut sums, &page.snapshot()?)?;
        stops += 1;
        std::thread::sleep(Duration::from_millis(rng.below(50)));
        daemon = Daemon::start(text)?;
    }
    Ok((daemon, sums, stops))
}

fn what_short_lived_senders_send_over_many_stops_is_accounted_for() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let text = config(&i);
    let number = |name, default| {
        std::env::var(name)
            .ok()
            .and_then(|s| s.parse().ok())
            .unwrap_or(default)
    };
    let (seconds, seed) = (number("RTD_STORM_S", SECONDS), number("RTD_STORM_SEED", 1));
    let (over, quiet) = (&AtomicBool::new(false), &AtomicBool::new(false));
    let socket = &i.socket();
    let daemon = Daemon::start(&text)?;
    let (sums, stops, sent, got) = std::thread::scope(|scope| {
        let senders = WAYS
            .map(|(way, _)| scope.spawn(move || send(socket, way, over, seed + way.len() as u64)));
        let receivers = MEMBERS.map(|name| scope.spawn(move || receive(socket, name, quiet)));
        let goes_on = || {
            !senders.iter().any(|s| s.is_finished()) && !receivers.iter().any(|r| r.is_finished())
        };
        let storm = restart(&i, &text, daemon, seconds, seed, goes_on);
        over.store(true, Ordering::Release);
        let sent = senders.map(|sender| sender.join().expect("a sender panicked"));
        let page = storm.and_then(|(daemon, mut sums, stops)| {
            let page = Reader::open(&i.name)?;
            daemon.stop()?;
            add(&mut sums, &page.snapshot()?)?;
            Ok((sums, stops + 1))
        });
        quiet.store(true, Ordering::Release);
        let got = receivers.map(|receiver| receiver.join().expect("a receiver panicked"));
        page.map(|(sums, stops)| (sums, stops, sent, got))
    })?;
    let got = got.into_iter().collect::<Result<Vec<_>, _>>()?;
    for (at, (((way, copies), sum), sent)) in WAYS.iter().zip(sums).zip(sent).enumerate() {
        let [accepted, doubtful] = sent?;
        let received: Vec<u64> = got.iter().flat_map(|of| &of[at]).copied().collect();
        let said = format!(
            "{way}: {} sent, {} refused, {sum:?}, {} received, {stops} stops",
            accepted.len(),
            doubtful.len(),
            received.len()
        );
        println!("{said}");
        ensure!(
            !accepted.is_empty() && !received.is_empty() && stops > STOPS_MIN,
            "{said}"
        );
        // Each message that a send accepted is in one ledger, in as many copies as the route makes.
        // One that was refused in the moment at which its lane stopped may be, too.
        let surplus = sum.accepted.checked_sub(copies * accepted.len() as u64);
        ensure!(
            surplus.is_some_and(|n| n <= copies * stops.min(doubtful.len() as u64)),
            "{said}"
        );
        // Each delivered copy is received, and nothing else.
        ensure!(
            received.len() as u64 == sum.delivered && sum.delivered + sum.lost == sum.accepted,
            "{said}"
        );
        ensure!(
            received
                .iter()
                .all(|n| accepted.contains(n) || doubtful.contains(n)),
            "{said}"
        );
        for of in &got {
            ensure!(
                of[at].is_sorted_by(|a, b| a < b),
                "{said}: out of order, or twice"
            );
        }
        let all: BTreeSet<u64> = received.iter().copied().collect();
        ensure!(
            *copies > 1 || all.len() == received.len(),
            "{said}: two members got one message"
        );
    }
    Ok(())
}
