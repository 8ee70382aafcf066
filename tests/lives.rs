//! The ledgers of two lives of rtd together: what a sender's ring held when the first one ended is accounted for once.

use crate::util::lane_talk::endpoint;
use crate::util::{Daemon, Instance, Peer, process, route};
use anyhow::ensure;
use nix::sys::signal::Signal;
use rtcore::stats::Ledger;
use rtcore::stats::reader::Reader;

const SENT: u64 = 10;
/// Messages before the one that `slow` holds: its ring takes four, the route's queue two.
const BEFORE: u64 = 6;

/// One source of two routes. `small` is soon full and rejects; then `slow` holds the same message, of which a copy for
/// `gone` has no receiver either.
fn config(i: &Instance) -> String {
    i.head().replace("[daemon]", "[daemon]\ndrain = \"50ms\"")
        + &process("a")
        + &process("small")
        + &process("slow")
        + &process("gone")
        + &endpoint("a.out", "a", 64)
        + &endpoint("small.in", "small", 2)
        + &endpoint("slow.in", "slow", 4)
        + &endpoint("gone.in", "gone", 4)
        + &route("a.out", &["small.in"], "name = \"rejects\"\ncapacity = 1")
        + &route("a.out", &["gone.in", "slow.in"], "name = \"holds\"\ncapacity = 2\noverflow = \"block:10s\"")
}

fn ledgers(page: &Reader) -> anyhow::Result<[Ledger; 2]> {
    let page = page.snapshot()?;
    ensure!(page.routes.iter().all(|route| route.consistent && route.ledger.balances()), "{page:?}");
    Ok([page.routes[0].ledger, page.routes[1].ledger])
}

/// Ten messages, the seventh held, and then rtd ends by this signal and another one starts.
fn over_two_lives(end: Signal) -> anyhow::Result<()> {
    let i = Instance::new()?;
    let text = config(&i);
    let daemon = Daemon::start(&text)?;
    let _small = Peer::with_inbox(&i, "small")?;
    let mut slow = Peer::with_inbox(&i, "slow")?;
    let mut a = Peer::from_endpoint(&i, "a", "a.out")?;
    a.reach("a.out")?;
    ensure!(a.burst("a.out", 0, SENT)? == (SENT, 0));
    i.until("the seventh is held", |page| page.routes[1].ledger.accepted == 2 * (BEFORE + 1))?;
    let page = Reader::open(&i.name)?;
    let [rejects, holds] = ledgers(&page)?;
    ensure!(rejects.accepted == BEFORE && rejects.rejected_total() == BEFORE - 3, "{rejects:?}");
    ensure!((holds.queued, holds.held, holds.peer_dead) == (4, 2, BEFORE), "{holds:?}");
    let killed = end == Signal::SIGKILL;
    if killed {
        daemon.kill()?;
    } else {
        daemon.stop()?;
    }
    let first = ledgers(&page)?;
    let daemon = Daemon::start(&text)?;
    let second = i.until("the rest is accepted", |page| {
        page.routes[0].ledger.accepted >= SENT - BEFORE
            && page.routes[1].ledger.accepted >= 2 * (SENT - BEFORE)
    })?;
    for ((route, first), copies) in second.routes.iter().zip(first).zip([SENT, 2 * SENT]) {
        let lost = route.lost_in_last_life;
        let ended = first.accepted - first.queued;
        ensure!(ended + lost + route.ledger.accepted == copies, "{end}: {first:?}, {lost}, {route:?}");
        ensure!((lost > 0) == killed && (first.queued > 0) == killed, "{end}: {first:?}, {lost}");
    }
    if killed {
        daemon.logged("route rejects: 1 lost in the last life")?;
        daemon.logged("route holds: 2 lost in the last life")?;
    }
    let want: Vec<u64> = (0..4).chain(BEFORE..SENT).collect();
    ensure!(slow.take_numbers(want.len())? == want);
    daemon.stop()?;
    Ok(())
}

pub fn a_killed_rtd_loses_nothing_that_a_full_receiver_holds_in_a_ring() -> anyhow::Result<()> {
    over_two_lives(Signal::SIGKILL)
}

pub fn a_stop_accounts_for_a_held_message_in_one_life() -> anyhow::Result<()> {
    over_two_lives(Signal::SIGTERM)
}
