//! Each message that `send` refuses is counted once: at its endpoint by reason, and on a direct
//! route in the ledger too.

use crate::util::book::End::{Delivered, PeerDead, Queued, Rejected};
use crate::util::lane_talk::{pair, peers};
use crate::util::order::Refused as Met;
use crate::util::tool::run;
use crate::util::{Daemon, Instance, Peer, eventually};
use anyhow::{Context as _, ensure};
use nix::sys::signal::Signal;
use rtcore::message::Reject;
use rtcore::refusals::{Counts, Refused};
use rtcore::stats::reader::Snapshot;

tests![
    before_the_receiver_of_a_direct_route_connects,
    what_does_not_fit_into_a_direct_ring,
    after_the_receiver_of_a_direct_route_has_gone,
    while_rtd_is_away_from_a_direct_route,
    of_a_routed_route_are_counted_at_its_endpoint,
];

const ROUTE: &str = "a.out->b.in";
const DIRECT: &str = "path = \"direct\"";

fn refused(page: &Snapshot) -> Counts {
    page.endpoints
        .iter()
        .find(|endpoint| endpoint.name == "a.out")
        .map(|e| e.refused)
        .unwrap_or_default()
}

/// Waits until so many were refused for each reason, and for no other.
fn refused_are(i: &Instance, expected: &[(Refused, u64)]) -> anyhow::Result<Snapshot> {
    let mut counts = Counts::default();
    expected
        .iter()
        .for_each(|(reason, n)| counts[*reason as usize] = *n);
    i.until(&format!("{expected:?}"), |page| refused(page) == counts)
}

/// Sends so often; each time the refusal is this.
fn refusals(a: &mut Peer, times: u64, bytes: &[u8], refusal: Met) -> anyhow::Result<()> {
    for _ in 0..times {
        let sent = a.lane_send("a.out", bytes)?;
        ensure!(sent == Err(refusal), "{sent:?}, not {refusal}");
    }
    Ok(())
}

/// Sends until the receiver is known to be dead: how many messages were accepted before, and how
/// many found the ring full.
fn sends_until_dead(a: &mut Peer) -> anyhow::Result<(u64, u64)> {
    let (mut accepted, mut full) = (0, 0);
    eventually(|| match a.lane_send("a.out", b"x") {
        Ok(Ok(_)) => {
            accepted += 1;
            None
        }
        Ok(Err(Met::Full)) => {
            full += 1;
            None
        }
        Ok(Err(refused)) => Some(if refused == Met::PeerDead {
            Ok(())
        } else {
            Err(anyhow::anyhow!("{refused}, not dead"))
        }),
        Err(e) => Some(Err(e)),
    })??;
    Ok((accepted, full))
}

/// Before the receiver is there, and while rtd is away as well.
fn before_the_receiver_of_a_direct_route_connects() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let text = pair(&i, [64, 4], DIRECT);
    let daemon = Daemon::start(&text)?;
    let mut a = Peer::from_endpoint(&i, "a", "a.out")?;
    refusals(&mut a, 3, b"x", Met::PeerDead)?;
    i.ledger_is(ROUTE, 3, &[(PeerDead, 3)])?;
    daemon.logged(&format!("route {ROUTE}: "))?;
    daemon.logged("nobody receives at b.in: process b has no session")?;
    daemon.stop()?;
    refusals(&mut a, 2, b"x", Met::Disconnected)?;
    let daemon = Daemon::start(&text)?;
    i.ledger_is(ROUTE, 2, &[(Rejected(Reject::Stopped), 2)])?;
    let b = Peer::with_inbox(&i, "b")?;
    a.reach("a.out")?;
    a.lane_send("a.out", b"x")?.map_err(anyhow::Error::msg)?;
    i.ledger_is(ROUTE, 3, &[(Rejected(Reject::Stopped), 2), (Queued, 1)])?;
    refused_are(&i, &[(Refused::Away, 2)])?;
    drop(b);
    daemon.stop()?;
    Ok(())
}

/// Too long, and no room.
fn what_does_not_fit_into_a_direct_ring() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let daemon = Daemon::start(&pair(&i, [64, 4], DIRECT))?;
    let [mut a, b] = peers(&i)?;
    refusals(&mut a, 2, &[0; 65], Met::TooLarge)?;
    ensure!(a.burst("a.out", 0, 10)? == (4, 6));
    let full = (Rejected(Reject::Full), 6);
    i.ledger_is(
        ROUTE,
        12,
        &[(Queued, 4), full, (Rejected(Reject::TooLarge), 2)],
    )?;
    refused_are(&i, &[(Refused::Full, 6), (Refused::TooLarge, 2)])?;
    let shown = run(i.rtctl_command(&["stats"]))?.well()?;
    let row = shown
        .lines()
        .find(|line| line.starts_with("a.out "))
        .context("no row")?;
    ensure!(
        row.split_whitespace().collect::<Vec<_>>() == ["a.out", "6", "2", "0", "0", "0", "0"],
        "{shown}"
    );
    let json: serde_json::Value =
        serde_json::from_str(&run(i.rtctl_command(&["stats", "--json"]))?.well()?)?;
    let endpoint = json["endpoints"]
        .as_array()
        .and_then(|all| all.iter().find(|e| e["name"] == "a.out"));
    ensure!(
        endpoint.context("no endpoint")?["refused"]
            == serde_json::json!({"full": 6, "too_large": 2})
    );
    drop(b);
    daemon.stop()?;
    Ok(())
}

/// The receiver of a direct route dies, or closes its session; then the sender dies too, and its
/// counts stay.
fn after_the_receiver_of_a_direct_route_has_gone() -> anyhow::Result<()> {
    for dies in [true, false] {
        let i = Instance::new()?;
        let daemon = Daemon::start(&pair(&i, [64, 64], DIRECT))?;
        let [mut a, mut b] = peers(&i)?;
        a.lane_send("a.out", b"x")?.map_err(anyhow::Error::msg)?;
        ensure!(b.take(1)?.len() == 1);
        let mut other = None;
        if dies {
            b.kill()?;
        } else {
            b.close_all()?;
            other = Some(b);
        }
        // What goes in before the sender learns of the end is lost with the ring.
        let (before, full) = sends_until_dead(&mut a)?;
        refusals(&mut a, 4, b"x", Met::PeerDead)?;
        let lost = before + 5;
        // What a receiver that lives has left waits for its next session.
        i.until("all is accounted for", |page| {
            let ledger = page.routes[0].ledger;
            let waits = if dies { 0 } else { ledger.queued };
            let ends = (
                ledger.delivered,
                ledger.peer_dead + waits,
                ledger.rejected[Reject::Full as usize],
            );
            (ledger.accepted, ends) == (1 + lost + full, (1, lost, full))
        })?;
        ensure!(refused(&i.snapshot()?)[Refused::PeerDead as usize] <= 5);
        refusals(&mut a, 7, b"x", Met::PeerDead)?;
        a.kill()?;
        let ends = [
            (Delivered, 1),
            (PeerDead, 7 + lost),
            (Rejected(Reject::Full), full),
        ];
        i.ledger_is(ROUTE, 8 + lost + full, &ends)?;
        drop(other);
        daemon.stop()?;
    }
    Ok(())
}

/// A direct route goes on without rtd, and the next one counts what was refused in between, once.
fn while_rtd_is_away_from_a_direct_route() -> anyhow::Result<()> {
    for end in [Signal::SIGTERM, Signal::SIGKILL] {
        let i = Instance::new()?;
        let text = pair(&i, [64, 4], DIRECT);
        let daemon = Daemon::start(&text)?;
        let [mut a, mut b] = peers(&i)?;
        ensure!(a.burst("a.out", 0, 5)? == (4, 1));
        i.ledger_is(ROUTE, 5, &[(Queued, 4), (Rejected(Reject::Full), 1)])?;
        if end == Signal::SIGTERM {
            daemon.stop()?;
        } else {
            daemon.kill()?;
        }
        ensure!(a.burst("a.out", 5, 2)? == (0, 2));
        let daemon = Daemon::start(&text)?;
        i.ledger_is(ROUTE, 6, &[(Queued, 4), (Rejected(Reject::Full), 2)])?;
        refused_are(&i, &[(Refused::Full, 2)])?;
        ensure!(b.take_numbers(4)? == [0, 1, 2, 3]);
        i.ledger_is(ROUTE, 6, &[(Delivered, 4), (Rejected(Reject::Full), 2)])?;
        daemon.stop()?;
    }
    Ok(())
}

/// On a routed route no lane sees such a message: it is counted at the endpoint, and in no ledger.
fn of_a_routed_route_are_counted_at_its_endpoint() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let text = pair(&i, [4, 4], "");
    let daemon = Daemon::start(&text)?;
    let mut a = Peer::from_endpoint(&i, "a", "a.out")?;
    refusals(&mut a, 3, b"x", Met::PeerDead)?;
    let b = Peer::with_inbox(&i, "b")?;
    a.reach("a.out")?;
    refusals(&mut a, 1, &[0; 65], Met::TooLarge)?;
    daemon.freeze()?;
    ensure!(a.burst("a.out", 0, 6)? == (4, 2));
    daemon.signal(Signal::SIGCONT)?;
    i.ledger_is(ROUTE, 4, &[(Delivered, 4)])?;
    refused_are(
        &i,
        &[
            (Refused::Full, 2),
            (Refused::TooLarge, 1),
            (Refused::PeerDead, 3),
        ],
    )?;
    daemon.stop()?;
    refusals(&mut a, 2, b"x", Met::Disconnected)?;
    let daemon = Daemon::start(&text)?;
    refused_are(&i, &[(Refused::Away, 2)])?;
    i.ledger_is(ROUTE, 0, &[])?;
    drop(b);
    daemon.stop()?;
    Ok(())
}
