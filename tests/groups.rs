//! Groups: a copy to all, one in turn, or the first that takes it; with members dead or full, and
//! those that only a POSIX process group or session makes members.

use crate::util::book::End::{Delivered, PeerDead, Queued, Rejected};
use crate::util::book::targets;
use crate::util::lane_talk::endpoint;
use crate::util::needs::ROOT;
use crate::util::order;
use crate::util::{Daemon, Instance, Peer, held, patience, process, route, rt, signal};
use rtcore::lane::peer::PeerState;
use rtcore::message::Reject;
use rtcore::sys::procfs;
use std::os::unix::process::CommandExt;
use std::time::Instant;

tests![
    all_get_a_copy,
    all_with_one_full_and_one_dead,
    round_robin_takes_turns,
    round_robin_skips_the_dead_and_the_full,
    any_takes_the_first_with_room,
    what_waits_for_a_member_outlives_it,
    a_member_that_refuses_is_passed_over needs(ROOT),
    a_group_of_the_dead_is_dead,
    all_is_who_is_in_the_process_group_now,
    a_process_that_changes_its_group_is_seen_by_itself,
    members_of_the_process_group_take_turns,
    what_is_queued_for_a_member_stays_with_it,
    a_session_is_without_those_that_made_their_own,
    any_with_a_slow_member_loses_nothing,
    round_robin_with_a_slow_member_loses_nothing,
    what_a_group_counts_as_delivered_is_received_with_every_policy,
];

/// Three members `a`, `b`, `c` of two messages each, owned by processes of the same names.
fn three(instance: &Instance, mode: &str, more: &str) -> String {
    let mut config = instance.head() + &instance.mqueue("in", "");
    for name in ["a", "b", "c"] {
        config += &process(name);
        config += &instance.mqueue(name, &format!("owner = \"{name}\"\nmaxmsg = 2"));
    }
    config +=
        &format!("[[group]]\nname = \"abc\"\nmembers = [\"a\", \"b\", \"c\"]\nmode = \"{mode}\"\n");
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
        s.processes
            .iter()
            .any(|p| p.name == member && p.state == PeerState::Dead)
    })?;
    Ok(())
}

/// Every member gets every message, and the ledger counts copies.
fn all_get_a_copy() -> anyhow::Result<()> {
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
fn all_with_one_full_and_one_dead() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let _daemon = Daemon::start(&three(&instance, "all", "capacity = 1"))?;
    die(&instance, "b")?;
    let mut c = Peer::receiver(&instance.queue("c"))?;
    let mut sender = Peer::sender(&instance.queue("in"))?;
    for n in 0..5 {
        sender.stream(n, 1)?;
        assert_eq!(c.numbers(1)?, [n]);
    }
    let ends = [
        (Delivered, 2 + 5),
        (PeerDead, 5),
        (Queued, 1),
        (Rejected(Reject::Full), 2),
    ];
    let seen = instance.ledger_is("in->abc", 15, &ends)?;
    assert_eq!(targets(&seen, "in->abc")?, [2, 0, 5]);
    let shown = crate::util::tool::run(instance.rtctl_command(&["stats"]))?.well()?;
    let rows: Vec<Vec<&str>> = shown
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    let losses = [["2", "full"], ["5", "peer-dead"], ["0", "-"]];
    for ((target, delivered), lost) in [("a", "2"), ("b", "0"), ("c", "5")].into_iter().zip(losses)
    {
        let row = rows
            .iter()
            .find(|row| row.get(..3) == Some(&["in->abc", target, delivered]));
        let last = if target == "b" { "never" } else { "ago" };
        let end = [last, lost[0], lost[1]];
        assert!(
            row.is_some_and(|row| row.ends_with(&end)),
            "{target} {end:?} in\n{shown}"
        );
    }
    assert_eq!(held(&instance.queue("b"))?, 0);
    let mut a = Peer::receiver(&instance.queue("a"))?;
    assert_eq!(a.numbers(3)?, [0, 1, 2]);
    Ok(())
}

/// One in turn, beginning with the first.
fn round_robin_takes_turns() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let _daemon = Daemon::start(&three(&instance, "round-robin", ""))?;
    Peer::sender(&instance.queue("in"))?.stream(0, 6)?;
    let seen = instance.ledger_is("in->abc", 6, &[(Delivered, 6)])?;
    assert_eq!(targets(&seen, "in->abc")?, [2, 2, 2]);
    assert_eq!(take(&instance, "a")?, [0, 3]);
    assert_eq!(take(&instance, "b")?, [1, 4]);
    assert_eq!(take(&instance, "c")?, [2, 5]);
    Ok(())
}

/// A dead member's turn, or a full one's, goes to the next: no message is lost to it.
fn round_robin_skips_the_dead_and_the_full() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let _daemon = Daemon::start(&three(&instance, "round-robin", "capacity = 1"))?;
    die(&instance, "b")?;
    let mut sender = Peer::sender(&instance.queue("in"))?;
    // Turns: a, b (dead: c), c, a.
    sender.stream(0, 4)?;
    instance.ledger_is("in->abc", 4, &[(Delivered, 4)])?;
    // Both living ones are full. Turns: b (dead; c queues 4), c (its queue is full too).
    sender.stream(4, 2)?;
    instance.ledger_is(
        "in->abc",
        6,
        &[(Delivered, 4), (Queued, 1), (Rejected(Reject::Full), 1)],
    )?;
    // What is queued in front of c goes to a as soon as that has room: one is as good as another.
    assert_eq!(Peer::receiver(&instance.queue("a"))?.numbers(3)?, [0, 3, 4]);
    instance.ledger_is("in->abc", 6, &[(Delivered, 5), (Rejected(Reject::Full), 1)])?;
    // Turn: a.
    sender.stream(6, 1)?;
    instance.ledger_is("in->abc", 7, &[(Delivered, 6), (Rejected(Reject::Full), 1)])?;
    assert_eq!(
        (take(&instance, "a")?, take(&instance, "c")?),
        (vec![6], vec![1, 2])
    );
    assert_eq!(held(&instance.queue("b"))?, 0);
    Ok(())
}

/// The first that has room; the dead do not count.
fn any_takes_the_first_with_room() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let _daemon = Daemon::start(&three(&instance, "any", "capacity = 1"))?;
    let mut sender = Peer::sender(&instance.queue("in"))?;
    sender.stream(0, 3)?;
    instance.ledger_is("in->abc", 3, &[(Delivered, 3)])?;
    assert_eq!(
        (take(&instance, "a")?, take(&instance, "b")?),
        (vec![0, 1], vec![2])
    );
    die(&instance, "a")?;
    sender.stream(3, 5)?;
    // b and c take two each; the first living one queues the fifth, which goes where there is room
    // first.
    instance.ledger_is("in->abc", 8, &[(Delivered, 7), (Queued, 1)])?;
    assert_eq!(held(&instance.queue("a"))?, 0);
    assert_eq!(Peer::receiver(&instance.queue("c"))?.numbers(3)?, [5, 6, 7]);
    assert_eq!(take(&instance, "b")?, [3, 4]);
    instance.ledger_is("in->abc", 8, &[(Delivered, 8)])?;
    Ok(())
}

/// What waits in front of a member that dies goes to one that lives, not down with it.
fn what_waits_for_a_member_outlives_it() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let _daemon = Daemon::start(&three(&instance, "any", "capacity = 4"))?;
    let mut first = Peer::start()?;
    first.expect(&instance, "a", &[])?;
    // Two for each member; two more wait in front of the first.
    Peer::sender(&instance.queue("in"))?.stream(0, 8)?;
    instance.ledger_is("in->abc", 8, &[(Delivered, 6), (Queued, 2)])?;
    first.kill()?;
    instance.until("the death is seen", |s| {
        s.processes.iter().any(|p| p.state == PeerState::Dead)
    })?;
    assert_eq!(
        Peer::receiver(&instance.queue("b"))?.numbers(4)?,
        [2, 3, 6, 7]
    );
    let seen = instance.ledger_is("in->abc", 8, &[(Delivered, 8)])?;
    // Who got it counts, not whom it waited for.
    assert_eq!(targets(&seen, "in->abc")?, [2, 4, 2]);
    Ok(())
}

/// A member that the kernel lets nobody reach is passed over; the message is not lost to it.
fn a_member_that_refuses_is_passed_over() -> anyhow::Result<()> {
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
    // Who could not be signalled would not be registered: its saved user, which the kernel goes by
    // too, lets it.
    strong.tell(order::Process::Setresuid(0, 0, uid))?;
    strong.expect(&instance, "strong", &[rt(1)])?;
    strong.tell(order::Process::Setresuid(0, 0, 0))?;
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
fn a_group_of_the_dead_is_dead() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let _daemon = Daemon::start(&three(&instance, "any", ""))?;
    for member in ["a", "b", "c"] {
        die(&instance, member)?;
    }
    Peer::sender(&instance.queue("in"))?.stream(0, 3)?;
    instance.ledger_is("in->abc", 3, &[(PeerDead, 3)])?;
    Ok(())
}

/// As [`three`], of which those are members who have something in common with the process `lead`.
fn kin(instance: &Instance, mode: &str, filter: &str, more: &str) -> String {
    let mode = format!("mode = \"{mode}\"\n");
    let config =
        three(instance, "MODE", more).replace("mode = \"MODE\"\n", &(mode + filter + "\n"));
    config + &process("lead")
}

const GROUP_OF_LEAD: &str = "process_group_of = \"lead\"";

/// A process of this name in that process group; 0 is one of its own.
fn in_group(instance: &Instance, name: &str, pgid: u32) -> anyhow::Result<Peer> {
    let pgid = i32::try_from(pgid)?;
    let mut peer = Peer::start_with(|command| {
        command.process_group(pgid);
    })?;
    peer.expect(instance, name, &[])?;
    Ok(peer)
}

/// Kills the holder of this name and waits until that is seen.
fn end(instance: &Instance, name: &str, peer: Peer) -> anyhow::Result<()> {
    peer.kill()?;
    instance.until("the death is seen", |s| {
        s.processes
            .iter()
            .any(|p| p.name == name && p.state == PeerState::Dead)
    })?;
    Ok(())
}

/// Registered members of the leader's process group, at each message: not who is elsewhere, dead or
/// not there, and nobody while nobody leads.
fn all_is_who_is_in_the_process_group_now() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let _daemon = Daemon::start(&kin(&instance, "all", GROUP_OF_LEAD, ""))?;
    let mut sender = Peer::sender(&instance.queue("in"))?;
    sender.stream(0, 1)?;
    instance.ledger_is("in->abc", 1, &[(PeerDead, 1)])?;
    let lead = in_group(&instance, "lead", 0)?;
    let _a = in_group(&instance, "a", lead.pid())?;
    let b = in_group(&instance, "b", lead.pid())?;
    let c = in_group(&instance, "c", 0)?;
    sender.stream(1, 2)?;
    let seen = instance.ledger_is("in->abc", 5, &[(Delivered, 4), (PeerDead, 1)])?;
    assert_eq!(targets(&seen, "in->abc")?, [2, 2, 0]);
    assert_eq!(take(&instance, "a")?, [1, 2]);
    end(&instance, "b", b)?;
    sender.stream(3, 1)?;
    instance.ledger_is("in->abc", 6, &[(Delivered, 5), (PeerDead, 1)])?;
    assert_eq!(take(&instance, "a")?, [3]);
    end(&instance, "lead", lead)?;
    sender.stream(4, 1)?;
    instance.ledger_is("in->abc", 7, &[(Delivered, 5), (PeerDead, 2)])?;
    // The next of that name is in another process group, and so are its members.
    let _lead = in_group(&instance, "lead", c.pid())?;
    sender.stream(5, 1)?;
    let seen = instance.ledger_is("in->abc", 8, &[(Delivered, 6), (PeerDead, 2)])?;
    assert_eq!(targets(&seen, "in->abc")?, [3, 2, 1]);
    assert_eq!(
        [take(&instance, "b")?, take(&instance, "c")?],
        [vec![1, 2], vec![5]]
    );
    Ok(())
}

/// Sends one message after the other until one goes to the `wanted`th end; all before it went to
/// the `other`th.
fn send_until_it_goes_to(
    instance: &Instance,
    sender: &mut Peer,
    sent: &mut u64,
    [wanted, other]: [usize; 2],
) -> anyhow::Result<()> {
    let mut expected = targets(&instance.snapshot()?, "in->abc")?;
    let started = Instant::now();
    loop {
        sender.stream(*sent, 1)?;
        *sent += 1;
        let seen = instance.ledger_is("in->abc", *sent, &[(Delivered, *sent)])?;
        let got = targets(&seen, "in->abc")?;
        let end = if got[wanted] > expected[wanted] {
            wanted
        } else {
            other
        };
        expected[end] += 1;
        assert_eq!(got, expected);
        assert_eq!(take(instance, ["a", "b", "c"][end])?, [*sent - 1]);
        if end == wanted {
            return Ok(());
        }
        anyhow::ensure!(started.elapsed() < patience(), "the change is never seen");
    }
}

/// setpgid(2) and setsid(2) tell nobody; they are seen all the same, without registering again.
fn a_process_that_changes_its_group_is_seen_by_itself() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let _daemon = Daemon::start(&kin(&instance, "any", GROUP_OF_LEAD, ""))?;
    let lead = in_group(&instance, "lead", 0)?;
    let mut a = in_group(&instance, "a", 0)?;
    let _b = in_group(&instance, "b", lead.pid())?;
    let mut sender = Peer::sender(&instance.queue("in"))?;
    let mut sent = 0;
    send_until_it_goes_to(&instance, &mut sender, &mut sent, [1, 1])?;
    assert_eq!(sent, 1, "a is no member");
    a.tell(order::Process::Setpgid(lead.pid()))?;
    send_until_it_goes_to(&instance, &mut sender, &mut sent, [0, 1])?;
    a.tell(order::Process::Setsid)?;
    send_until_it_goes_to(&instance, &mut sender, &mut sent, [1, 0])?;
    Ok(())
}

/// The turn goes round among the members alone.
fn members_of_the_process_group_take_turns() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let _daemon = Daemon::start(&kin(&instance, "round-robin", GROUP_OF_LEAD, ""))?;
    let lead = in_group(&instance, "lead", 0)?;
    let _a = in_group(&instance, "a", lead.pid())?;
    let _b = in_group(&instance, "b", 0)?;
    let _c = in_group(&instance, "c", lead.pid())?;
    Peer::sender(&instance.queue("in"))?.stream(0, 4)?;
    let seen = instance.ledger_is("in->abc", 4, &[(Delivered, 4)])?;
    assert_eq!(targets(&seen, "in->abc")?, [2, 0, 2]);
    assert_eq!(
        [take(&instance, "a")?, take(&instance, "c")?],
        [vec![0, 2], vec![1, 3]]
    );
    Ok(())
}

/// Who is asked for whom a message is, is asked when it comes: what waits for a member goes to
/// nobody else, and goes down with it.
fn what_is_queued_for_a_member_stays_with_it() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let _daemon = Daemon::start(&kin(&instance, "any", GROUP_OF_LEAD, "capacity = 4"))?;
    let lead = in_group(&instance, "lead", 0)?;
    let a = in_group(&instance, "a", lead.pid())?;
    let mut sender = Peer::sender(&instance.queue("in"))?;
    sender.stream(0, 4)?;
    instance.ledger_is("in->abc", 4, &[(Delivered, 2), (Queued, 2)])?;
    let _b = in_group(&instance, "b", lead.pid())?;
    sender.stream(4, 1)?;
    let seen = instance.ledger_is("in->abc", 5, &[(Delivered, 3), (Queued, 2)])?;
    assert_eq!(targets(&seen, "in->abc")?, [2, 1, 0]);
    end(&instance, "a", a)?;
    let seen = instance.ledger_is("in->abc", 5, &[(Delivered, 3), (PeerDead, 2)])?;
    assert_eq!(targets(&seen, "in->abc")?, [2, 1, 0]);
    assert_eq!(take(&instance, "b")?, [4]);
    Ok(())
}

/// The session in which the leader is; its members get signals.
fn a_session_is_without_those_that_made_their_own() -> anyhow::Result<()> {
    if procfs::groups(i32::try_from(std::process::id())?)?.sid == 0 {
        // Our session's leader is outside of this pid namespace (a container's exec): once more, in
        // one of our own.
        let name = "groups::a_session_is_without_those_that_made_their_own";
        let mut again = std::process::Command::new("setsid");
        let out = again
            .arg("--wait")
            .arg(std::env::current_exe()?)
            .args(["--exact", name])
            .output()?;
        let said = String::from_utf8_lossy(&out.stdout);
        anyhow::ensure!(
            out.status.success(),
            "in a session of its own: {}\n{said}",
            out.status
        );
        return Ok(());
    }
    let instance = Instance::new()?;
    let mut config = instance.head() + &process("lead") + &instance.mqueue("in", "msgsize = 8");
    for name in ["a", "b", "c"] {
        config += &(process(name) + &signal(&format!("{name}.sig"), name, "SIGRTMIN+1", ""));
    }
    config +=
        "[[group]]\nname = \"abc\"\nmembers = [\"a.sig\", \"b.sig\", \"c.sig\"]\nmode = \"all\"\n";
    config += "session_of = \"lead\"\n";
    let _daemon = Daemon::start(&(config + &route("in", &["abc"], "")))?;
    let mut peers = Vec::new();
    for name in ["lead", "a", "b", "c"] {
        let mut peer = Peer::start()?;
        if name == "b" {
            peer.tell(order::Process::Setsid)?;
        }
        peer.expect(&instance, name, &[rt(1)])?;
        peers.push(peer);
    }
    let mut sender = Peer::sender(&instance.queue("in"))?;
    sender.stream(0, 2)?;
    let seen = instance.ledger_is("in->abc", 4, &[(Delivered, 4)])?;
    assert_eq!(targets(&seen, "in->abc")?, [2, 0, 2]);
    for (peer, got) in peers.iter_mut().zip([0, 2, 0, 2]) {
        assert_eq!(peer.pending(rt(1))?.len(), got);
    }
    Ok(())
}

/// Two members with rings, one of them slow: whatever the policy does with the rest, what counts as
/// delivered is received, in increasing order at each member, and no member takes a message for a
/// duplicate.
fn what_is_delivered_is_received(mode: &str, overflow: &str, messages: u64) -> anyhow::Result<()> {
    const CHUNK: u64 = 10_000;
    const QUIET_MS: u64 = 2_000;
    let instance = Instance::new()?;
    let mut config = instance.head() + &process("a") + &endpoint("a.out", "a", 256);
    for name in ["fast", "slow"] {
        config += &(process(name) + &endpoint(&format!("{name}.in"), name, 16));
    }
    config += &format!(
        "[[group]]\nname = \"g\"\nmembers = [\"slow.in\", \"fast.in\"]\nmode = \"{mode}\"\n"
    );
    config += &route(
        "a.out",
        &["g"],
        &format!("capacity = 8\noverflow = \"{overflow}\""),
    );
    let _daemon = Daemon::start(&config)?;
    let mut members = [
        Peer::with_inbox(&instance, "fast")?,
        Peer::with_inbox(&instance, "slow")?,
    ];
    let mut a = Peer::from_endpoint(&instance, "a", "a.out")?;
    a.reach("a.out")?;
    for (member, pause_us) in members.iter_mut().zip([0, 100]) {
        member.ask(order::Receive::Drain {
            key: "i",
            pause_us,
            quiet_ms: QUIET_MS,
        })?;
    }
    for from in (0..messages).step_by(usize::try_from(CHUNK)?) {
        a.lane_stream("a.out", from, CHUNK)?;
    }
    let settled = instance.until("all is settled", |s| {
        s.routes[0].ledger.accepted == messages && s.routes[0].ledger.queued == 0
    })?;
    let ledger = settled.routes[0].ledger;
    let mut received = 0;
    for member in &mut members {
        received += member.answer()?.number()?;
        let counters = member.counters()?;
        anyhow::ensure!(counters.duplicates == 0, "{mode}, {overflow}: {counters:?}");
    }
    anyhow::ensure!(
        received == ledger.delivered,
        "{mode}, {overflow}: {received} received, {ledger:?}"
    );
    let lossless = overflow.starts_with("block");
    anyhow::ensure!(
        !lossless || ledger.delivered == messages,
        "{mode}, {overflow}: {ledger:?}"
    );
    Ok(())
}

fn any_with_a_slow_member_loses_nothing() -> anyhow::Result<()> {
    what_is_delivered_is_received("any", "block:5s", 200_000)
}

fn round_robin_with_a_slow_member_loses_nothing() -> anyhow::Result<()> {
    what_is_delivered_is_received("round-robin", "block:5s", 200_000)
}

fn what_a_group_counts_as_delivered_is_received_with_every_policy() -> anyhow::Result<()> {
    for mode in ["any", "round-robin"] {
        for overflow in ["reject", "displace-oldest", "displace-newest", "conflate"] {
            what_is_delivered_is_received(mode, overflow, 30_000)?;
        }
    }
    Ok(())
}
