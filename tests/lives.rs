//! The ledgers of two lives of rtd together: what a sender's ring held when the first one ended is
//! accounted for once.

use crate::util::book::End::{Delivered, PeerDead, Queued, Rejected};
use crate::util::lane_talk::{endpoint, pair, peers};
use crate::util::order::Refused;
use crate::util::{Daemon, Instance, Peer, book, patience, patience_ns, process, route};
use anyhow::{Context as _, ensure};
use nix::sys::signal::Signal;
use rtcore::message::Reject;
use rtcore::ring::{Geometry, Receipt};
use rtcore::stats::Ledger;
use rtcore::stats::reader::Reader;
use rtcore::sys::memfd::Memory;
use rtcore::sys::poll::{self, Interest};
use rtcore::sys::seqpacket::{Conn, Received};
use rtcore::wire::{Answer, FRAME_BYTES, Name, Notice, Request};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};

tests![
    a_killed_rtd_loses_nothing_that_a_full_receiver_holds_in_a_ring,
    a_stop_accounts_for_a_held_message_in_one_life,
    a_direct_ring_passes_from_one_life_to_the_next,
    a_direct_ring_whose_receiver_dies_without_rtd_is_accounted_by_the_next,
    a_direct_ring_whose_sender_dies_without_rtd_is_accounted_by_the_next,
    memory_that_is_no_ring_is_not_carried_on,
];

const SENT: u64 = 10;
/// Messages before the one that `slow` holds: its ring takes four, the route's queue two.
const BEFORE: u64 = 6;

/// One source of two routes. `small` is soon full and rejects; then `slow` holds the same message,
/// of which a copy for `gone` has no receiver either.
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
        + &route(
            "a.out",
            &["gone.in", "slow.in"],
            "name = \"holds\"\ncapacity = 2\noverflow = \"block:10s\"",
        )
}

fn ledgers(page: &Reader) -> anyhow::Result<[Ledger; 2]> {
    let page = page.snapshot()?;
    ensure!(
        page.routes
            .iter()
            .all(|route| route.consistent && route.ledger.balances()),
        "{page:?}"
    );
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
    i.until("the seventh is held", |page| {
        page.routes[1].ledger.accepted == 2 * (BEFORE + 1)
    })?;
    let page = Reader::open(&i.name)?;
    let [rejects, holds] = ledgers(&page)?;
    ensure!(
        rejects.accepted == BEFORE && rejects.rejected_total() == BEFORE - 3,
        "{rejects:?}"
    );
    ensure!(
        (holds.queued, holds.held, holds.peer_dead) == (4, 2, BEFORE),
        "{holds:?}"
    );
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
        ensure!(
            ended + lost + route.ledger.accepted == copies,
            "{end}: {first:?}, {lost}, {route:?}"
        );
        ensure!(
            (lost > 0) == killed && (first.queued > 0) == killed,
            "{end}: {first:?}, {lost}"
        );
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

fn a_killed_rtd_loses_nothing_that_a_full_receiver_holds_in_a_ring() -> anyhow::Result<()> {
    over_two_lives(Signal::SIGKILL)
}

fn a_stop_accounts_for_a_held_message_in_one_life() -> anyhow::Result<()> {
    over_two_lives(Signal::SIGTERM)
}

/// `a` sends to `b` past rtd.
fn direct(i: &Instance) -> String {
    pair(i, [64, SLOTS], "path = \"direct\"")
}

const ROUTE: &str = "a.out->b.in";
const SLOTS: usize = 64;

/// The route's ledger when rtd has ended by this signal.
fn end_of_life(i: &Instance, daemon: Daemon, end: Signal) -> anyhow::Result<Ledger> {
    let page = Reader::open(&i.name)?;
    if end == Signal::SIGKILL {
        daemon.kill()?;
    } else {
        daemon.stop()?;
    }
    book::of(&page.snapshot()?, ROUTE)
}

/// Twelve lives, each with more messages in the ring than the one before: all ledgers together have
/// each message once.
fn a_direct_ring_passes_from_one_life_to_the_next() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let (mut daemon, text) = (Daemon::start(&direct(&i))?, direct(&i));
    let [mut a, mut b] = peers(&i)?;
    let (mut sent, mut taken, mut ended, mut delivered) = (0_u64, 0_u64, 0, 0);
    for life in 0..12 {
        let end = if life % 3 == 2 {
            Signal::SIGKILL
        } else {
            Signal::SIGTERM
        };
        ensure!(a.burst("a.out", sent, 5)? == (5, 0));
        ensure!(b.take_numbers(3)? == (taken..taken + 3).collect::<Vec<_>>());
        (sent, taken) = (sent + 5, taken + 3);
        i.until("all is seen", |page| {
            let ledger = page.routes[0].ledger;
            ledger.queued == sent - taken && ledger.delivered + delivered == taken
        })?;
        let ledger = end_of_life(&i, daemon, end)?;
        ensure!(
            ledger.balances() && ledger.held == ledger.queued,
            "{end}: {ledger:?}"
        );
        ensure!(
            (ledger.queued > 0) == (end == Signal::SIGKILL),
            "{end}: {ledger:?}"
        );
        (ended, delivered) = (
            ended + ledger.accepted - ledger.queued,
            delivered + ledger.delivered,
        );
        // The ring goes on without rtd.
        ensure!(a.burst("a.out", sent, 2)? == (2, 0));
        ensure!(b.take_numbers(1)? == [taken]);
        (sent, taken) = (sent + 2, taken + 1);
        daemon = Daemon::start(&text)?;
        let page = i.until("what is in the ring is accepted again", |page| {
            let ledger = page.routes[0].ledger;
            ledger.queued == sent - taken && ledger.delivered + delivered == taken
        })?;
        let ledger = book::of(&page, ROUTE)?;
        ensure!(
            ended + ledger.accepted == sent && ledger.balances(),
            "life {life}: {ended}, {ledger:?}"
        );
        ensure!(page.routes[0].lost_in_last_life == 0, "{page:?}");
    }
    let rest = usize::try_from(sent - taken)?;
    ensure!(b.take_numbers(rest)? == (taken..sent).collect::<Vec<_>>());
    let page = i.until("all is delivered", |page| {
        page.routes[0].ledger.delivered + delivered == sent
    })?;
    let ledger = book::of(&page, ROUTE)?;
    ensure!(
        (ledger.queued, ended + ledger.accepted) == (0, sent),
        "{ended}, {ledger:?}"
    );
    daemon.stop()?;
    Ok(())
}

/// The receiver ends while rtd is away: the next rtd has what it left, and what was refused since,
/// as peer-dead.
fn a_direct_ring_whose_receiver_dies_without_rtd_is_accounted_by_the_next() -> anyhow::Result<()> {
    for end in [Signal::SIGTERM, Signal::SIGKILL] {
        let i = Instance::new()?;
        let daemon = Daemon::start(&direct(&i))?;
        let [mut a, mut b] = peers(&i)?;
        ensure!(a.burst("a.out", 0, 5)? == (5, 0) && b.take_numbers(2)? == [0, 1]);
        i.ledger_is(ROUTE, 5, &[(Delivered, 2), (Queued, 3)])?;
        let first = end_of_life(&i, daemon, end)?;
        ensure!(
            (first.accepted - first.queued, first.delivered) == (2, 2),
            "{first:?}"
        );
        b.kill()?;
        // The ring may be full before the sender's session has seen the death.
        let (mut tried, mut full) = (0, 0);
        loop {
            tried += 1;
            match a.lane_send("a.out", b"x")? {
                Err(Refused::Full) => full += 1,
                Err(refused) => {
                    ensure!(refused == Refused::PeerDead, "{refused}");
                    break;
                }
                Ok(_) => {}
            }
        }
        let daemon = Daemon::start(&direct(&i))?;
        let dead = 3 + tried - full;
        let ends = [(PeerDead, dead), (Rejected(Reject::Full), full)];
        i.ledger_is(ROUTE, 3 + tried, &ends)?;
        let _b = Peer::with_inbox(&i, "b")?;
        a.reach("a.out")?;
        ensure!(a.burst("a.out", 0, 1)? == (1, 0));
        let ends = [
            (PeerDead, dead),
            (Rejected(Reject::Full), full),
            (Queued, 1),
        ];
        i.ledger_is(ROUTE, 4 + tried, &ends)?;
        daemon.stop()?;
    }
    Ok(())
}

/// The sender ends while rtd is away: its receiver hands the ring to the next rtd.
fn a_direct_ring_whose_sender_dies_without_rtd_is_accounted_by_the_next() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let daemon = Daemon::start(&direct(&i))?;
    let [mut a, mut b] = peers(&i)?;
    ensure!(a.burst("a.out", 0, 5)? == (5, 0) && b.take_numbers(2)? == [0, 1]);
    i.ledger_is(ROUTE, 5, &[(Delivered, 2), (Queued, 3)])?;
    let first = end_of_life(&i, daemon, Signal::SIGTERM)?;
    ensure!(
        (first.accepted, first.delivered, first.queued) == (2, 2, 0),
        "{first:?}"
    );
    a.kill()?;
    ensure!(b.take_numbers(1)? == [2]);
    let daemon = Daemon::start(&direct(&i))?;
    i.ledger_is(ROUTE, 3, &[(Delivered, 1), (Queued, 2)])?;
    ensure!(b.take_numbers(2)? == [3, 4]);
    i.ledger_is(ROUTE, 3, &[(Delivered, 3)])?;
    daemon.stop()?;
    Ok(())
}

/// A session of `a` by hand, which hands this memory over as its direct ring.
fn carries(i: &Instance, memory: [BorrowedFd<'_>; 3]) -> anyhow::Result<Conn> {
    let conn = Conn::connect(i.socket().as_ref(), patience())?;
    let open = Request::Open {
        name: Name::new("a")?,
        tid: 0,
        semaphores: false,
        resumes: 0,
        program: 0,
        lane: None,
    };
    conn.send(&open.encode())?;
    loop {
        let (mut frame, mut fds) = ([0; FRAME_BYTES], Vec::new());
        let Received::Packet(len) = conn.receive_with(&mut frame, &mut fds)? else {
            poll::wait(
                &mut [Interest::readable(conn.as_fd().as_raw_fd())],
                patience_ns(),
            )
            .map_err(|e| anyhow::anyhow!("{e:?}"))?;
            continue;
        };
        match Answer::decode(&frame[..len])? {
            Answer::Notice(Notice::Map { serial }) => {
                conn.send_with(
                    &Request::Carry {
                        channel: 0,
                        pid: 1,
                        program: 0,
                    }
                    .encode(),
                    &memory,
                )?;
                conn.send_with(&Request::Refusals.encode(), &memory[..1])?;
                conn.send(&Request::Mapped { serial }.encode())?;
            }
            Answer::Notice(Notice::Ready) => return Ok(conn),
            Answer::Reply(reply) => ensure!(reply.generation > 0, "{}", reply.text),
            Answer::Notice(_) => {}
        }
    }
}

/// A client may send any descriptor: what could block rtd, end it or lie is refused, and the
/// session goes on.
fn memory_that_is_no_ring_is_not_carried_on() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let daemon = Daemon::start(&direct(&i))?;
    let geometry = Geometry::new(u32::try_from(SLOTS)?, 64)
        .context("no ring")?
        .timed();
    let memory = |len: usize| Memory::new("liar", len);
    let [producer, consumer] = [
        memory(geometry.producer_bytes())?,
        memory(geometry.consumer_bytes())?,
    ];
    let (page, other) = (memory(Receipt::PAGE_BYTES)?, memory(1 << 20)?);
    let file = std::fs::File::open("/dev/zero")?;
    let carried = |memory: [BorrowedFd<'_>; 3], says: &str| -> anyhow::Result<()> {
        let _conn = carries(&i, memory)?;
        daemon.logged(says)
    };
    let not = format!(
        "route {ROUTE}: a ring from before this start is in use by its processes and not in the ledger"
    );
    carried([file.as_fd(), consumer.as_fd(), page.as_fd()], &not)?;
    daemon.logged("a: messages that its senders refuse are not counted")?;
    carried(
        [producer.as_fd(), consumer.as_fd(), other.as_fd()],
        "its memory has another size",
    )?;
    let map = producer.map_writable()?;
    // SAFETY: the mapping has a page and lives on; the word is written as an atomic by all.
    unsafe { AtomicU64::from_ptr(map.start().as_ptr().cast()) }.store(1 << 50, Ordering::SeqCst);
    carried(
        [producer.as_fd(), consumer.as_fd(), page.as_fd()],
        "its indices are impossible",
    )?;
    let page = i.snapshot()?;
    ensure!(book::of(&page, ROUTE)? == Ledger::default(), "{page:?}");
    daemon.stop()?;
    Ok(())
}
