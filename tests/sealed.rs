//! After the seal: no heap call and no page fault on any path, in as many messages as it takes to
//! see one.
//!
//! `RTD_GUARD=abort` would end the daemon at the first heap call; the counters and the kernel's own
//! count of faults say it once more.

use crate::util::book::End::{Delivered, Displaced, Expired, Queued, Rejected};
use crate::util::order;
use crate::util::{Daemon, Instance, Peer, kernel, lane, process, route, rt, signal};
use rtcore::lane::peer::PeerState;
use rtcore::message::Reject;
use rtcore::stats::reader::Snapshot;

tests![
    the_straight_paths_touch_no_heap,
    the_crooked_paths_touch_no_heap,
];

const COUNT: u64 = 2000;

/// Page faults of each lane thread so far.
fn faults(daemon: &Daemon, snapshot: &Snapshot) -> anyhow::Result<Vec<(String, u64)>> {
    let faults = |w: &rtcore::stats::snapshot::Worker| {
        let thread = kernel::thread(daemon.pid(), w.tid)?;
        Ok((w.name.clone(), thread.minor_faults + thread.major_faults))
    };
    snapshot.workers.iter().map(faults).collect()
}

/// Nothing was allocated, and where memory is locked nothing was faulted in.
fn untouched(daemon: &Daemon, before: &Snapshot, at_start: &[(String, u64)]) -> anyhow::Result<()> {
    let now = daemon_snapshot(before)?;
    for worker in &now.workers {
        assert_eq!(worker.counters.allocations, 0, "{worker:?}");
    }
    if now
        .lanes
        .iter()
        .all(|lane| !lane.degraded().contains(&"memory"))
    {
        assert_eq!(faults(daemon, &now)?, at_start);
    }
    Ok(())
}

fn daemon_snapshot(of: &Snapshot) -> anyhow::Result<Snapshot> {
    Ok(rtcore::stats::reader::Reader::open(&of.instance)?.snapshot()?)
}

/// Every kind of source to every kind of sink, in each way of waiting that blocks.
fn the_straight_paths_touch_no_heap() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let block = "overflow = \"block:10s\"";
    let config = instance.head()
        + &lane("spin", 51, "wait = \"spin:50\"")
        + &process("drive")
        + &instance.mqueue("in", "msgsize = 8")
        + &instance.mqueue("in.spin", "")
        + &signal("ring", "", "SIGRTMIN+1", "")
        + &instance.mqueue("out", "")
        + &instance.mqueue("out.spin", "")
        + &instance.mqueue("log", "")
        + &signal("drive.mq", "drive", "SIGRTMIN+2", "target = \"thread\"")
        + &signal("drive.sig", "drive", "SIGRTMIN+3", "")
        + &route("in", &["out", "drive.mq"], block)
        + &route(
            "in.spin",
            &["out.spin"],
            &format!("lane = \"spin\"\n{block}"),
        )
        + &route(
            "ring",
            &["log", "drive.sig"],
            &format!("accept_claimed = true\n{block}"),
        );
    let daemon = Daemon::start(&config)?;
    let before = instance.snapshot()?;
    let at_start = faults(&daemon, &before)?;
    let mut drive = Peer::start()?;
    drive.expect(&instance, "drive", &[rt(2), rt(3)])?;
    let mut readers = Vec::new();
    for queue in ["out", "out.spin", "log"] {
        let mut reader = Peer::receiver(&instance.queue(queue))?;
        reader.ask(order::Queue::Receive {
            count: COUNT,
            quiet_ms: 10_000,
        })?;
        readers.push(reader);
    }
    Peer::sender(&instance.queue("in"))?.stream(0, COUNT)?;
    Peer::sender(&instance.queue("in.spin"))?.stream(0, COUNT)?;
    let mut button = Peer::start()?;
    for n in 0..COUNT {
        button.ring(daemon.pid(), rt(1), n)?;
    }
    for reader in &mut readers {
        assert_eq!(reader.answer()?.mail()?.len() as u64, COUNT);
    }
    let count = usize::try_from(COUNT)?;
    assert_eq!(drive.signals(rt(2), count)?.len(), count);
    assert_eq!(drive.signals(rt(3), count)?.len(), count);
    instance.ledger_is("in->out", 2 * COUNT, &[(Delivered, 2 * COUNT)])?;
    instance.ledger_is("in.spin->out.spin", COUNT, &[(Delivered, COUNT)])?;
    instance.ledger_is("ring->log", 2 * COUNT, &[(Delivered, 2 * COUNT)])?;
    untouched(&daemon, &before, &at_start)?;
    let log = daemon.stop()?;
    assert!(
        log.contains("thread in.spin") || log.contains("thread spin"),
        "{log}"
    );
    assert!(!log.contains("since seal 1 "), "{log}");
    Ok(())
}

/// The crooked ones: full, displaced, expired, dead, refused for each reason there is, woken by
/// registrations.
fn the_crooked_paths_touch_no_heap() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let config = instance.head()
        + &process("arm")
        + &instance.mqueue("in", "")
        + &instance.mqueue("full", "maxmsg = 1")
        + &instance.mqueue("late", "maxmsg = 1")
        + &instance.mqueue("dead", "owner = \"arm\"")
        + &instance.mqueue("any", "maxmsg = 1")
        + &signal("ring", "arm", "SIGRTMIN+1", "")
        + &signal("arm.sig", "arm", "SIGRTMIN+2", "")
        + "[[group]]\nname = \"g\"\nmembers = [\"any\", \"dead\"]\nmode = \"round-robin\"\n"
        + &route(
            "in",
            &["full"],
            "name = \"displacing\"\noverflow = \"displace-oldest\"\ncapacity = 100",
        )
        + &route("in", &["late"], "ttl = \"1ms\"\ncapacity = 100")
        + &route("in", &["dead"], "overflow = \"conflate\"")
        + &route("in", &["g"], "name = \"group\"\ncapacity = 1")
        + &route("in", &["arm.sig"], "payload = 4")
        + &route(
            "ring",
            &["full"],
            "accept_claimed = true\nname = \"foreign\"",
        );
    let daemon = Daemon::start(&config)?;
    let before = instance.snapshot()?;
    let at_start = faults(&daemon, &before)?;
    let mut sender = Peer::sender(&instance.queue("in"))?;
    let mut button = Peer::start()?;
    for round in 0..10 {
        // A registration and a death wake every lane.
        let mut arm = Peer::start()?;
        arm.expect(&instance, "arm", &[rt(2)])?;
        sender.stream(0, COUNT / 20)?;
        arm.kill()?;
        instance.until("the death is seen", |s| {
            s.processes[0].state == PeerState::Dead
        })?;
        sender.stream(0, COUNT / 20)?;
        button.ring(daemon.pid(), rt(1), round)?;
    }
    let done = instance.until("all were taken", |s| s.routes[0].ledger.accepted == COUNT)?;
    assert!(done.routes.iter().all(|r| r.ledger.balances()));
    instance.ledger_is(
        "displacing",
        COUNT,
        &[(Delivered, 1), (Queued, 100), (Displaced, COUNT - 101)],
    )?;
    instance.ledger_is("in->late", COUNT, &[(Delivered, 1), (Expired, COUNT - 1)])?;
    instance.ledger_is("in->arm.sig", COUNT, &[(Rejected(Reject::TooLarge), COUNT)])?;
    instance.ledger_is("foreign", 10, &[(Rejected(Reject::Origin), 10)])?;
    let dead = instance.snapshot()?;
    let dead = crate::util::book::of(&dead, "in->dead")?;
    assert!(dead.peer_dead >= COUNT / 2, "{dead:?}");
    untouched(&daemon, &before, &at_start)?;
    daemon.stop()?;
    Ok(())
}
