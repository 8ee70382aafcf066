//! What a sender counted, what the ledger says and what receivers wrote down are the same messages,
//! also where a receiver is stopped and then killed with messages in its ring.

use crate::util::book::End::{Delivered, Displaced, Expired, PeerDead};
use crate::util::lane_talk::{endpoint, pair, peers};
use crate::util::tool::run;
use crate::util::{Daemon, Instance, Peer, process, route};
use anyhow::{Context as _, ensure};
use rtcore::stats::reader::Snapshot;

tests![
    a_copy_for_a_member_that_dies_is_counted,
    the_share_of_a_member_that_dies_is_counted,
    each_policy_counts_what_a_dead_receiver_never_read,
    an_inbox_that_is_dropped_leaves_its_messages_unread,
];

/// `a` and the receivers `b` and `c`, each with a ring of eight.
fn three(i: &Instance) -> String {
    i.head()
        + &process("a")
        + &process("b")
        + &process("c")
        + &endpoint("a.out", "a", 64)
        + &endpoint("b.in", "b", 8)
        + &endpoint("c.in", "c", 8)
}

fn all_three(i: &Instance) -> anyhow::Result<[Peer; 3]> {
    let (b, c) = (Peer::with_inbox(i, "b")?, Peer::with_inbox(i, "c")?);
    let mut a = Peer::from_endpoint(i, "a", "a.out")?;
    a.reach("a.out")?;
    Ok([a, b, c])
}

/// Of the messages delivered on the only route, those that a dead receiver had not read, by end.
fn unread(page: &Snapshot) -> Vec<u64> {
    page.routes[0]
        .targets
        .iter()
        .map(|target| target.receiver.unread)
        .collect()
}

/// A copy for each of two; one is stopped and killed with a full ring and a full queue.
fn a_copy_for_a_member_that_dies_is_counted() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let text = three(&i) + &route("a.out", &["b.in", "c.in"], "name = \"r\"\ncapacity = 4");
    let daemon = Daemon::start(&text)?;
    let [mut a, mut b, c] = all_three(&i)?;
    c.freeze()?;
    for n in 0..12 {
        ensure!(a.burst("a.out", n, 1)? == (1, 0) && b.take_numbers(1)? == [n]);
    }
    i.until("four wait", |page| page.routes[0].ledger.queued == 4)?;
    c.kill()?;
    i.ledger_is("r", 24, &[(Delivered, 12 + 8), (PeerDead, 4)])?;
    ensure!(a.burst("a.out", 12, 3)? == (3, 0) && b.take_numbers(3)? == [12, 13, 14]);
    i.ledger_is("r", 30, &[(Delivered, 15 + 8), (PeerDead, 7)])?;
    i.until("eight were not read", |page| unread(page) == [0, 8])?;
    daemon.logged("route r: lost 8 messages delivered to c.in: its process ended")?;
    let shown = run(i.rtctl_command(&["stats"]))?.well()?;
    let row = shown
        .lines()
        .find(|line| line.starts_with("r ") && line.ends_with(" 8"));
    ensure!(row.context("no row")?.contains("c.in"), "{shown}");
    daemon.stop()?;
    Ok(())
}

/// One message for one of two; a member is stopped and killed with its share in its ring.
fn the_share_of_a_member_that_dies_is_counted() -> anyhow::Result<()> {
    for (mode, died) in [("round-robin", 5), ("any", 8)] {
        let i = Instance::new()?;
        let group =
            format!("[[group]]\nname = \"g\"\nmembers = [\"b.in\", \"c.in\"]\nmode = \"{mode}\"\n");
        let daemon =
            Daemon::start(&(three(&i) + &group + &route("a.out", &["g"], "name = \"r\"")))?;
        let [mut a, b, mut c] = all_three(&i)?;
        b.freeze()?;
        ensure!(a.burst("a.out", 0, 10)? == (10, 0));
        i.ledger_is("r", 10, &[(Delivered, 10)])?;
        b.kill()?;
        i.until("the death is seen", |page| unread(page) == [died, 0])?;
        ensure!(a.burst("a.out", 10, 3)? == (3, 0));
        let journal = c.take_numbers(usize::try_from(13 - died)?)?;
        ensure!(journal.ends_with(&[10, 11, 12]), "{mode}: {journal:?}");
        i.ledger_is("r", 13, &[(Delivered, 13)])?;
        ensure!(c.left()? == []);
        daemon.stop()?;
    }
    Ok(())
}

/// What displaces, conflates or expires in front of a receiver that is stopped and killed.
fn each_policy_counts_what_a_dead_receiver_never_read() -> anyhow::Result<()> {
    let ends: [(&str, u64, &[_]); 4] = [
        // The ring displaces: all are delivered into it.
        ("overflow = \"displace-oldest\"", 20, &[(Delivered, 20)]),
        ("overflow = \"conflate\"", 20, &[(Delivered, 20)]),
        (
            "overflow = \"displace-newest\"",
            4,
            &[(Delivered, 4), (Displaced, 14), (PeerDead, 2)],
        ),
        ("ttl = \"20ms\"", 4, &[(Delivered, 4), (Expired, 16)]),
    ];
    for (more, left, ledger) in ends {
        let i = Instance::new()?;
        let capacity = if more.contains("ttl") { 32 } else { 2 };
        let capacity = if more.contains("conflate") {
            1
        } else {
            capacity
        };
        let daemon = Daemon::start(&pair(
            &i,
            [64, 4],
            &format!("{more}\ncapacity = {capacity}"),
        ))?;
        let [mut a, b] = peers(&i)?;
        b.freeze()?;
        ensure!(a.burst("a.out", 0, 20)? == (20, 0), "{more}");
        i.until(more, |page| page.routes[0].ledger.accepted == 20)?;
        if more.contains("ttl") {
            i.ledger_is("a.out->b.in", 20, ledger)?;
        }
        b.kill()?;
        i.ledger_is("a.out->b.in", 20, ledger)
            .with_context(|| more.to_owned())?;
        i.until("it was not read", |page| unread(page) == [left])
            .with_context(|| more.to_owned())?;
        daemon.stop()?;
    }
    Ok(())
}

/// A receiver that drops its inbox has not read what is left either; one that connects again has
/// lost nothing.
fn an_inbox_that_is_dropped_leaves_its_messages_unread() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let daemon = Daemon::start(&pair(&i, [64, 8], ""))?;
    let [mut a, mut b] = peers(&i)?;
    ensure!(a.burst("a.out", 0, 5)? == (5, 0) && b.take_numbers(2)? == [0, 1]);
    i.ledger_is("a.out->b.in", 5, &[(Delivered, 5)])?;
    run(i.rtctl_command(&["unregister", "--as", "b"]))?.well()?;
    // The session opens again by itself, and the inbox reads on.
    a.reach("a.out")?;
    ensure!(a.burst("a.out", 5, 1)? == (1, 0) && b.take_numbers(4)? == [2, 3, 4, 5]);
    ensure!(unread(&i.snapshot()?) == [0]);
    ensure!(a.burst("a.out", 6, 3)? == (3, 0));
    i.ledger_is("a.out->b.in", 9, &[(Delivered, 9)])?;
    b.close_all()?;
    i.until("three were not read", |page| unread(page) == [3])?;
    daemon.stop()?;
    Ok(())
}
