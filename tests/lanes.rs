//! Lanes: what the kernel says their threads are, who overtakes whom, and how they wait.

use crate::util::book::End::{Delivered, Queued};
use crate::util::kernel::{self, FIFO};
use crate::util::lane_talk::endpoint;
use crate::util::needs::{ROOT, SPARE_CPU, TWO_CPUS};
use crate::util::order;
use crate::util::{
    Daemon, Instance, Peer, eventually, first_cpu, held, lane, process, route, rt, signal,
};
use rtcore::stats::reader::Snapshot;
use rtcore::sys::cpus;

tests![
    threads_are_what_the_lane_says needs(ROOT),
    a_high_lane_overtakes_in_the_middle_of_a_fan_out needs(ROOT),
    a_held_source_holds_up_no_other,
    a_spinning_lane_spins_and_then_sleeps,
    a_polling_lane_scans_its_sources needs(SPARE_CPU),
    a_flooded_source_leaves_its_lane_s_others_their_turn needs(ROOT, TWO_CPUS),
];

/// The thread that reads this source (or serves this lane).
fn worker(daemon: &Daemon, snapshot: &Snapshot, name: &str) -> anyhow::Result<kernel::Thread> {
    kernel::thread(daemon.pid(), tid(snapshot, name)?)
}

fn tid(snapshot: &Snapshot, name: &str) -> anyhow::Result<u32> {
    let found = snapshot.workers.iter().find(|w| w.name == name);
    found
        .map(|w| w.tid)
        .ok_or_else(|| anyhow::anyhow!("no worker {name}: {:?}", snapshot.workers))
}

fn last_cpu() -> usize {
    cpus::allowed()
        .ok()
        .and_then(|c| c.into_iter().max())
        .unwrap_or(0)
}

/// Each source has a thread of its own, SCHED_FIFO at its lane's priority, pinned to its lane's
/// CPU; and what the process has mapped is locked. All of it as the kernel says.
fn threads_are_what_the_lane_says() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let other = format!(
        "[[lane]]\nname = \"other\"\npriority = 61\ncpu = {}\n",
        last_cpu()
    );
    let config = instance.head()
        + &other
        + &instance.mqueue("in.a", "")
        + &instance.mqueue("in.b", "")
        + &instance.mqueue("in.c", "")
        + &signal("ring", "", "SIGRTMIN+1", "")
        + &instance.mqueue("out", "")
        + &route("in.a", &["out"], "")
        + &route("in.b", &["out"], "")
        + &route("in.c", &["out"], "lane = \"other\"")
        + &route("ring", &["out"], "lane = \"other\"\naccept_claimed = true");
    let daemon = Daemon::start(&config)?;
    let snapshot = instance.snapshot()?;
    let rows = [
        ("in.a", 50, first_cpu()),
        ("in.b", 50, first_cpu()),
        ("in.c", 61, last_cpu()),
        ("ring", 61, last_cpu()),
    ];
    assert_eq!(snapshot.workers.len(), rows.len());
    for (name, priority, cpu) in rows {
        let thread = worker(&daemon, &snapshot, name)?;
        assert_eq!(
            (thread.policy, thread.priority),
            (FIFO, priority),
            "{thread:?}"
        );
        assert_eq!(
            (thread.cpus.as_str(), thread.name.as_str()),
            (cpu.to_string().as_str(), name)
        );
    }
    // The control thread is an ordinary one: it must never stand in a lane's way.
    let control = kernel::thread(daemon.pid(), daemon.pid())?;
    assert_eq!((control.policy, control.priority), (0, 0), "{control:?}");
    let kib = |key: &str| -> anyhow::Result<u64> {
        Ok(kernel::status(daemon.pid(), key)?
            .trim_end_matches(" kB")
            .parse()?)
    };
    // Everything that was mapped when it started; what the control thread maps later need not be.
    let (locked, resident) = (kib("VmLck")?, kib("VmRSS")?);
    assert!(
        locked > 0 && locked >= resident / 2,
        "VmLck {locked} kB of {resident} kB"
    );
    assert!(snapshot.lanes.iter().all(|l| l.degraded().is_empty()));
    Ok(())
}

/// Two lanes on one CPU: a message of the high one arrives while the low one is in the middle of a
/// fan-out, and is there first. Proven by the order in the queue both send to, and by what the
/// queue holds the moment the sender goes on:
///
/// The low lane's first target wakes `relay` (FIFO 40, between the lanes, on the same CPU), which
/// by that preempts the fan-out; it sends into the high lane, and that preempts `relay`. So one CPU
/// and three priorities decide, and no clock.
fn a_high_lane_overtakes_in_the_middle_of_a_fan_out() -> anyhow::Result<()> {
    const FANOUT: usize = 8;
    let instance = Instance::new()?;
    let mut config = instance.head().replace("priority = 50", "priority = 20")
        + &lane("high", 60, "")
        + &instance.mqueue("in", "")
        + &instance.mqueue("in.high", "")
        + &instance.mqueue("wakes", "")
        + &instance.mqueue("common", "");
    let mut to = vec!["wakes".to_owned()];
    for n in 0..FANOUT {
        config += &instance.mqueue(&format!("wide{n}"), "");
        to.push(format!("wide{n}"));
    }
    to.push("common".to_owned());
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    config += &route("in", &to, "");
    config += &route("in.high", &["common"], "lane = \"high\"");
    let _daemon = Daemon::start(&config)?;
    let mut relay = Peer::start()?;
    relay.tell(order::Process::Pin(first_cpu()))?;
    relay.tell(order::Process::Fifo(40))?;
    let queue = |name: &str| instance.queue(name);
    for round in 1..=20_u64 {
        relay.ask(order::Queue::Relay {
            from: &queue("wakes"),
            to: &queue("in.high"),
            watch: &queue("common"),
        })?;
        relay_waits(&relay)?;
        Peer::sender(&queue("in"))?.send(0, b"low")?;
        assert_eq!(
            relay.answer()?.number()?,
            1,
            "the high lane did not preempt the sender"
        );
        let got = Peer::receiver(&queue("common"))?.receive(2)?;
        assert_eq!(
            got,
            [(0, b"relayed".to_vec()), (0, b"low".to_vec())],
            "round {round}"
        );
        for n in 0..FANOUT {
            Peer::receiver(&queue(&format!("wide{n}")))?.receive(1)?;
        }
        instance.ledger_is("in.high->common", round, &[(Delivered, round)])?;
    }
    let copies = 20 * (FANOUT as u64 + 2);
    instance.ledger_is("in->wakes", copies, &[(Delivered, copies)])?;
    Ok(())
}

/// Until it sleeps in mq_receive: before that the low lane would wake nobody.
fn relay_waits(relay: &Peer) -> anyhow::Result<()> {
    let waits = || {
        let path = format!("/proc/{}/syscall", relay.pid());
        let line = std::fs::read_to_string(path).ok()?;
        let number: i64 = line.split_whitespace().next()?.parse().ok()?;
        (number == nix::libc::SYS_mq_timedreceive).then_some(())
    };
    eventually(waits)
}

/// A lane that is held by a full receiver (`block`) holds its own sender, and nobody else: neither
/// a higher lane nor another source of the same lane.
fn a_held_source_holds_up_no_other() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let config = instance.head()
        + &lane("high", 60, "")
        + &instance.mqueue("in.held", "")
        + &instance.mqueue("in.same", "")
        + &instance.mqueue("in.high", "")
        + &instance.mqueue("stuck", "maxmsg = 1")
        + &instance.mqueue("same", "")
        + &instance.mqueue("high", "")
        + &route(
            "in.held",
            &["stuck"],
            "capacity = 1\noverflow = \"block:10s\"",
        )
        + &route("in.same", &["same"], "")
        + &route("in.high", &["high"], "lane = \"high\"");
    let _daemon = Daemon::start(&config)?;
    Peer::sender(&instance.queue("in.held"))?.stream(0, 5)?;
    instance.ledger_is("in.held->stuck", 3, &[(Delivered, 1), (Queued, 2)])?;
    for (from, to) in [("in.same", "same"), ("in.high", "high")] {
        Peer::sender(&instance.queue(from))?.stream(0, 10)?;
        assert_eq!(
            Peer::receiver(&instance.queue(to))?.numbers(10)?,
            (0..10).collect::<Vec<_>>()
        );
    }
    // Still held.
    assert_eq!(held(&instance.queue("in.held"))?, 2);
    instance.ledger_is("in.held->stuck", 3, &[(Delivered, 1), (Queued, 2)])?;
    assert_eq!(
        Peer::receiver(&instance.queue("stuck"))?.numbers(5)?,
        [0, 1, 2, 3, 4]
    );
    Ok(())
}

/// `spin` looks for its time, then sleeps in the receive call, and a message wakes it from there.
fn a_spinning_lane_spins_and_then_sleeps() -> anyhow::Result<()> {
    const SPINS: u64 = 20;
    let instance = Instance::new()?;
    let head = instance
        .head()
        .replace("[[lane]]", "[[lane]]\nwait = \"spin:10ms\"");
    let config = head
        + &instance.mqueue("in", "")
        + &instance.mqueue("out", "")
        + &route("in", &["out"], "");
    let daemon = Daemon::start(&config)?;
    let snapshot = instance.snapshot()?;
    assert_eq!(snapshot.lanes[0].wait, "spin:10000");
    let mut sender = Peer::sender(&instance.queue("in"))?;
    let mut receiver = Peer::receiver(&instance.queue("out"))?;
    let sleeps = || {
        let thread = worker(&daemon, &snapshot, "lane").ok()?;
        (thread.state == 'S').then_some(thread)
    };
    let before = eventually(sleeps)?;
    for n in 0..SPINS {
        sender.stream(n, 1)?;
        assert_eq!(receiver.numbers(1)?, [n]);
        eventually(sleeps)?;
    }
    instance.ledger_is("in->out", SPINS, &[(Delivered, SPINS)])?;
    // 200 ms of spinning; a tenth of it, because others may have had the CPU.
    let spun_ns = eventually(sleeps)?.ran_ns - before.ran_ns;
    assert!(spun_ns > SPINS * 1_000_000, "ran for {spun_ns} ns");
    Ok(())
}

/// `poll` serves all its sources with one thread that never sleeps; statistics say that its CPU is
/// not isolated.
fn a_polling_lane_scans_its_sources() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    // Priority 1: whatever other FIFO thread wants that CPU gets it.
    let polling = format!(
        "[[lane]]\nname = \"scan\"\npriority = 1\ncpu = {}\nwait = \"poll\"\nunisolated = true\n",
        last_cpu()
    );
    let in_lane = "lane = \"scan\"";
    let head = instance.head();
    let head = &head[..head.find("[[lane]]").unwrap_or(0)];
    let config = head.to_owned()
        + &polling
        + &instance.mqueue("in.a", "")
        + &instance.mqueue("in.b", "")
        + &signal("ring", "", "SIGRTMIN+1", "")
        + &instance.mqueue("out", "maxmsg = 2")
        + &instance.mqueue("log", "")
        + &route("in.a", &["out"], in_lane)
        + &route("in.b", &["out"], in_lane)
        + &route(
            "ring",
            &["log"],
            &format!("{in_lane}\naccept_claimed = true"),
        );
    let daemon = Daemon::start(&config)?;
    let snapshot = instance.snapshot()?;
    assert_eq!(snapshot.workers.len(), 1);
    assert!(
        snapshot.lanes[0].degraded().contains(&"unisolated"),
        "{:?}",
        snapshot.lanes[0]
    );
    // One source's receiver is full, and the others are served all the same.
    Peer::sender(&instance.queue("in.a"))?.stream(0, 5)?;
    instance.ledger_is("in.a->out", 5, &[(Delivered, 2), (Queued, 3)])?;
    let mut button = Peer::start()?;
    button.ring(daemon.pid(), rt(1), 1)?;
    instance.ledger_is("ring->log", 1, &[(Delivered, 1)])?;
    let mut out = Peer::receiver(&instance.queue("out"))?;
    assert_eq!(out.numbers(5)?, [0, 1, 2, 3, 4]);
    Peer::sender(&instance.queue("in.b"))?.stream(5, 2)?;
    assert_eq!(out.numbers(2)?, [5, 6]);
    instance.ledger_is("in.a->out", 5, &[(Delivered, 5)])?;
    instance.ledger_is("in.b->out", 2, &[(Delivered, 2)])?;
    // Nothing comes, and it runs.
    let before = worker(&daemon, &snapshot, "scan")?;
    eventually(|| {
        let now = worker(&daemon, &snapshot, "scan").ok()?;
        (now.ran_ns > before.ran_ns + 50_000_000).then_some(())
    })?;
    daemon.stop()?;
    Ok(())
}

/// One source of a lane is flooded from another CPU, so that its thread never sleeps. The lane's
/// other source has its turn after a burst all the same: worst time there and back of a message
/// every 2 ms, in microseconds.
fn worst_beside_a_flood(flooded: &str, flood: order::Order<'_>) -> anyhow::Result<u64> {
    const MESSAGES: u64 = 500;
    let instance = Instance::new()?;
    let mut config = instance.head() + &process("ping") + &process("flood");
    config += &(endpoint("ping.out", "ping", 16) + &endpoint("ping.in", "ping", 16));
    config += &route("ping.out", &["ping.in"], "");
    config += &(endpoint("flood.out", "flood", 1024) + &instance.mqueue("flood.q", "maxmsg = 10"));
    config += &instance.mqueue("sink", "");
    config += &route("flood.out", &["sink"], "");
    config += &route("flood.q", &["sink"], "");
    let daemon = Daemon::start(&config)?;
    let mut ping = Peer::with_inbox(&instance, "ping")?;
    ping.claim("ping.out")?;
    ping.reach("ping.out")?;
    let mut flooder = Peer::session(&instance, "flood")?;
    flooder.claim("flood.out")?;
    flooder.open_to_send(&instance.queue("flood.q"))?;
    for peer in [&mut ping, &mut flooder] {
        peer.tell(order::Process::Pin(last_cpu()))?;
    }
    flooder.ask(flood)?;
    instance.until("the flood flows", |s| {
        s.routes
            .iter()
            .any(|r| r.name == flooded && r.ledger.accepted > 1000)
    })?;
    let worst_us = ping
        .tell(order::Receive::Ping {
            key: "i",
            endpoint: "ping.out",
            count: MESSAGES,
            pause_us: 2000,
        })?
        .number()?;
    flooder.kill()?;
    daemon.stop()?;
    Ok(worst_us)
}

fn a_flooded_source_leaves_its_lane_s_others_their_turn() -> anyhow::Result<()> {
    // Above what the kernel takes from real-time threads in each second (50 ms), far below what a
    // starved thread waits.
    const WORST_US: u64 = 200_000;
    let hammer = order::Send::Hammer {
        endpoint: "flood.out",
        ms: 60_000,
    };
    let stream = order::Queue::Stream {
        from: 0,
        count: 1_000_000_000,
    };
    for (flood, order) in [
        ("flood.out->sink", order::Order::from(hammer)),
        ("flood.q->sink", stream.into()),
    ] {
        let worst_us = worst_beside_a_flood(flood, order)?;
        println!("{flood}: worst there and back {worst_us} us");
        anyhow::ensure!(worst_us < WORST_US, "{flood}: {worst_us} us");
    }
    Ok(())
}
