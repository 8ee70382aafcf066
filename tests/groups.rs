//! Groups: a copy to all, one in turn, or the first that takes it; with members dead or full.

use crate::util::book::End::{Delivered, PeerDead, Queued, Rejected};
use crate::util::{Daemon, Instance, Peer, held, privileged, process, route, rt, signal, skip};
use rtcore::lane::peer::PeerState;
use rtcore::message::Reject;
use std::os::unix::process::CommandExt;

/// Three members `a`, `b`, `c` of two messages each, owned by processes of the same names.
fn three(instance: &Instance, mode: &str, more: &str) -> String {
    let mut config = instance.head() + &instance.mqueue("in", "");
    for name in ["a", "b", "c"] {
        config += &process(name);
        config += &instance.mqueue(name, &format!("owner = \"{name}\"\nmaxmsg = 2"));
    }
    config += &format!("[[group]]\nname = \"abc\"\nmembers = [\"a\", \"b\", \"c\"]\nmode = \"{mode}\"\n");
    config + &route("in", &["abc"], more)
}

fn take(instance: &Instance, member: &str) -> anyhow::Result<Vec<u64>> {
    crate::util::talk::numbers(&Peer::receiver(&instance.queue(member))?.rest()?)
}

/// Registers as this member and dies.
fn die(instance: &Instance, member: &str) -> anyhow::Result<()> {
    let mut peer = Peer::start()?;
    peer.expect(instance, member, &[])?;
    peer.kill()?;
    instance.until("the death of a member is seen", |s| {
        s.processes.iter().any(|p| p.name == member && p.state == PeerState::Dead)
    })?;
    Ok(())
}

/// Every member gets every message, and the ledger counts copies.
pub fn all_get_a_copy() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let _daemon = Daemon::start(&three(&instance, "all", ""))?;
    Peer::sender(&instance.queue("in"))?.stream(0, 2)?;
    instance.ledger_is("in->abc", 6, &[(Delivered, 6)])?;
    for member in ["a", "b", "c"] {
        assert_eq!(take(&instance, member)?, [0, 1], "{member}");
    }
    Ok(())
}

/// A full member and a dead one change nothing for the third; each copy is in the books once.
pub fn all_with_one_full_and_one_dead() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let _daemon = Daemon::start(&three(&instance, "all", "capacity = 1"))?;
    die(&instance, "b")?;
    let mut c = Peer::receiver(&instance.queue("c"))?;
    let mut sender = Peer::sender(&instance.queue("in"))?;
    for n in 0..5 {
        sender.stream(n, 1)?;
        assert_eq!(c.numbers(1)?, [n]);
    }
    let ends = [(Delivered, 2 + 5), (PeerDead, 5), (Queued, 1), (Rejected(Reject::Full), 2)];
    instance.ledger_is("in->abc", 15, &ends)?;
    assert_eq!(held(&instance.queue("b"))?, 0);
    let mut a = Peer::receiver(&instance.queue("a"))?;
    assert_eq!(a.numbers(3)?, [0, 1, 2]);
    Ok(())
}

/// One in turn, beginning with the first.
pub fn round_robin_takes_turns() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let _daemon = Daemon::start(&three(&instance, "round-robin", ""))?;
    Peer::sender(&instance.queue("in"))?.stream(0, 6)?;
    instance.ledger_is("in->abc", 6, &[(Delivered, 6)])?;
    assert_eq!(take(&instance, "a")?, [0, 3]);
    assert_eq!(take(&instance, "b")?, [1, 4]);
    assert_eq!(take(&instance, "c")?, [2, 5]);
    Ok(())
}

/// A dead member's turn, or a full one's, goes to the next: no message is lost to it.
pub fn round_robin_skips_the_dead_and_the_full() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let _daemon = Daemon::start(&three(&instance, "round-robin", "capacity = 1"))?;
    die(&instance, "b")?;
    let mut sender = Peer::sender(&instance.queue("in"))?;
    // Turns: a, b (dead: c), c, a.
    sender.stream(0, 4)?;
    instance.ledger_is("in->abc", 4, &[(Delivered, 4)])?;
    // Both living ones are full. Turns: b (dead; c queues 4), c (its queue is full too).
    sender.stream(4, 2)?;
    instance.ledger_is("in->abc", 6, &[(Delivered, 4), (Queued, 1), (Rejected(Reject::Full), 1)])?;
    // What is queued in front of c goes to a as soon as that has room: one is as good as another.
    assert_eq!(Peer::receiver(&instance.queue("a"))?.numbers(3)?, [0, 3, 4]);
    instance.ledger_is("in->abc", 6, &[(Delivered, 5), (Rejected(Reject::Full), 1)])?;
    // Turn: a.
    sender.stream(6, 1)?;
    instance.ledger_is("in->abc", 7, &[(Delivered, 6), (Rejected(Reject::Full), 1)])?;
    assert_eq!((take(&instance, "a")?, take(&instance, "c")?), (vec![6], vec![1, 2]));
    assert_eq!(held(&instance.queue("b"))?, 0);
    Ok(())
}

/// The first that has room; the dead do not count.
pub fn any_takes_the_first_with_room() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let _daemon = Daemon::start(&three(&instance, "any", "capacity = 1"))?;
    let mut sender = Peer::sender(&instance.queue("in"))?;
    sender.stream(0, 3)?;
    instance.ledger_is("in->abc", 3, &[(Delivered, 3)])?;
    assert_eq!((take(&instance, "a")?, take(&instance, "b")?), (vec![0, 1], vec![2]));
    die(&instance, "a")?;
    sender.stream(3, 5)?;
    // b and c take two each; the first living one queues the fifth, which goes where there is room first.
    instance.ledger_is("in->abc", 8, &[(Delivered, 7), (Queued, 1)])?;
    assert_eq!(held(&instance.queue("a"))?, 0);
    assert_eq!(Peer::receiver(&instance.queue("c"))?.numbers(3)?, [5, 6, 7]);
    assert_eq!(take(&instance, "b")?, [3, 4]);
    instance.ledger_is("in->abc", 8, &[(Delivered, 8)])?;
    Ok(())
}

/// What waits in front of a member that dies goes to one that lives, not down with it.
pub fn what_waits_for_a_member_outlives_it() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let _daemon = Daemon::start(&three(&instance, "any", "capacity = 4"))?;
    let mut first = Peer::start()?;
    first.expect(&instance, "a", &[])?;
    // Two for each member; two more wait in front of the first.
    Peer::sender(&instance.queue("in"))?.stream(0, 8)?;
    instance.ledger_is("in->abc", 8, &[(Delivered, 6), (Queued, 2)])?;
    first.kill()?;
    instance.until("the death is seen", |s| s.processes.iter().any(|p| p.state == PeerState::Dead))?;
    assert_eq!(Peer::receiver(&instance.queue("b"))?.numbers(4)?, [2, 3, 6, 7]);
    instance.ledger_is("in->abc", 8, &[(Delivered, 8)])?;
    Ok(())
}

/// A member that the kernel lets nobody reach is passed over; the message is not lost to it.
pub fn a_member_that_refuses_is_passed_over() -> anyhow::Result<()> {
    if !privileged() {
        return skip("root, for two users");
    }
    let instance = Instance::new()?;
    let config = instance.head()
        + &process("strong")
        + &process("weak")
        + &instance.mqueue("in", "msgsize = 8\nmode = \"0666\"")
        + &signal("strong.sig", "strong", "SIGRTMIN+1", "")
        + &signal("weak.sig", "weak", "SIGRTMIN+1", "")
        + "[[group]]\nname = \"either\"\nmembers = [\"strong.sig\", \"weak.sig\"]\nmode = \"any\"\n"
        + &route("in", &["either"], "");
    let uid = 400_000 + std::process::id() % 100_000;
    std::os::unix::fs::chown(instance.file(""), Some(uid), None)?;
    let _daemon = Daemon::start_with(&config, |command| {
        command.arg("--allow-degraded").uid(uid);
    })?;
    let mut strong = Peer::start()?;
    strong.expect(&instance, "strong", &[rt(1)])?;
    let mut weak = Peer::start_with(|command| {
        command.uid(uid);
    })?;
    weak.expect(&instance, "weak", &[rt(1)])?;
    // An ordinary user may not signal root.
    Peer::sender(&instance.queue("in"))?.stream(0, 3)?;
    instance.ledger_is("in->either", 3, &[(Delivered, 3)])?;
    assert_eq!(weak.pending(rt(1))?.len(), 3);
    Ok(())
}

/// Nobody lives: the message ends as peer-dead, once.
pub fn a_group_of_the_dead_is_dead() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let _daemon = Daemon::start(&three(&instance, "any", ""))?;
    for member in ["a", "b", "c"] {
        die(&instance, member)?;
    }
    Peer::sender(&instance.queue("in"))?.stream(0, 3)?;
    instance.ledger_is("in->abc", 3, &[(PeerDead, 3)])?;
    Ok(())
}
