//! The page, from both sides: what is written is what is read, alone, under load, after a crash,
//! and if the content of the page is false.

mod hostile;
mod life;
mod numbers;

use super::loss::{LOSING_NS, Loss};
use super::reader::{LossTimes, Reader, TargetStats};
use super::writer::Page;
use super::{
    EndpointSpec, LaneSpec, Ledger, PageSpec, ReceiverCounters, RouteSpec, WorkerCounters,
    WorkerSpec,
};
use crate::endpoint::{Shown, mqueue, signal};
use crate::lane::peer::PeerState;
use crate::message::Reject;
use crate::sys::clock::monotonic_ns;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A name no other test has.
fn unique(what: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!(
        "t{}.{}.{what}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

/// Where its page goes.
fn page_path(name: &str) -> PathBuf {
    super::place::choose()
        .unwrap()
        .join(super::place::file_name(name))
}

/// Two lanes, three routes (two in the first lane), two processes, two endpoints.
fn spec(name: &str) -> PageSpec {
    let lane = |name: &str, priority, cpu| LaneSpec {
        name: name.into(),
        priority,
        cpu,
        wait: "spin:20".into(),
        confined: cpu == 1,
    };
    let route = |name: &str, lane, from, ends: &[u32]| RouteSpec {
        name: name.into(),
        lane,
        from,
        to: "drive, logger".into(),
        ends: ends.to_vec(),
        direct: ends.is_empty(),
    };
    PageSpec {
        name: name.into(),
        socket: "/run/rtd/test.sock".into(),
        skin: "posix".into(),
        private_namespace: false,
        lanes: vec![lane("estop", 90, 1), lane("telemetry", 10, 0)],
        routes: vec![
            route("button->drive", 0, 1, &[0, 1]),
            route("second", 0, 1, &[]),
            route("flood", 1, 0, &[1]),
        ],
        endpoints: vec![
            EndpointSpec {
                name: "commands".into(),
                owner: Some(0),
                is_source: true,
                is_sink: false,
                kind: Shown::Mqueue(mqueue::Shown {
                    queue: "/commands".into(),
                    maxmsg: 10,
                    msgsize: 64,
                }),
            },
            EndpointSpec {
                name: "button".into(),
                owner: None,
                is_source: true,
                is_sink: true,
                kind: Shown::Signal(signal::Shown {
                    signo: 37,
                    to_thread: true,
                }),
            },
        ],
        processes: vec!["controller".into(), "drive".into()],
        workers: vec![
            WorkerSpec {
                lane: 0,
                name: "button".into(),
            },
            WorkerSpec {
                lane: 1,
                name: "commands".into(),
            },
        ],
    }
}

/// A ledger that balances, different for each `n`.
fn ledger(n: u64) -> Ledger {
    let mut ledger = Ledger {
        accepted: 0,
        delivered: n,
        expired: n / 3,
        displaced: n / 5,
        rejected: [n / 7, n / 11, n, 0, n / 2, 1, n / 3],
        peer_dead: n / 13,
        queued: n % 17,
        held: n % 3,
        deadline_misses: n / 4,
    };
    let placed =
        ledger.delivered + ledger.expired + ledger.displaced + ledger.peer_dead + ledger.queued;
    ledger.accepted = placed + ledger.rejected_total();
    ledger
}

#[test]
fn what_is_written_is_what_is_read() {
    let name = unique("trip");
    let page = Page::create(&spec(&name)).unwrap();
    page.add_degraded(1, super::degraded::PINNING | super::degraded::MEMORY);
    page.set_process(1, PeerState::Dead, 4711, 1000);
    page.set_worker_tid(0, 4712);
    let mut first = page.route(0);
    first.publish(&ledger(1));
    first.publish(&ledger(100));
    page.route(1).publish(&ledger(1000));
    first.record_latency(1_234_567);
    page.route(1).record_latency(3);
    first.record_delivery(0, 50);
    first.record_delivery(1, 60);
    first.record_delivery(1, 70);
    // An end that it does not have is nobody's.
    first.record_delivery(2, 80);
    // Each word another number.
    let counters = WorkerCounters::of_words(std::array::from_fn(|word| 70 + word as u64));
    page.worker(0).publish(&counters);

    let reader = Reader::open(&name).unwrap();
    let before = reader.snapshot().unwrap();
    assert_eq!(before.ready_ns, None);
    let now = monotonic_ns();
    page.set_ready(now);
    let read = reader.snapshot().unwrap();
    assert_eq!((read.ready_ns, read.heartbeat_ns), (Some(now), now));
    assert_eq!(
        (read.instance.as_str(), read.socket.as_str()),
        (name.as_str(), "/run/rtd/test.sock")
    );
    assert_eq!(
        (read.pid, read.state.name()),
        (std::process::id(), "running")
    );
    assert_eq!(read.lanes[0].degraded(), [""; 0]);
    assert_eq!(read.lanes[1].degraded(), ["pinning", "memory"]);
    assert_eq!(
        (
            read.lanes[0].priority,
            read.lanes[0].cpu,
            read.lanes[0].wait.as_str()
        ),
        (90, 1, "spin:20")
    );
    assert_eq!(
        (read.routes[0].ledger, read.routes[1].ledger),
        (ledger(100), ledger(1000))
    );
    assert_eq!(
        (
            read.routes[2].lane,
            read.routes[2].from,
            read.routes[2].to.as_str()
        ),
        (Some(1), Some(0), "drive, logger")
    );
    let target = |endpoint, delivered, last_ns| TargetStats {
        endpoint: Some(endpoint),
        delivered,
        last_ns,
        lost: [0; Loss::COUNT],
        receiver: ReceiverCounters::default(),
    };
    assert_eq!(
        read.routes[0].targets,
        [target(0, 1, Some(50)), target(1, 2, Some(70))]
    );
    assert_eq!(
        (read.routes[1].targets.as_slice(), read.routes[1].direct),
        ([].as_slice(), true)
    );
    assert_eq!(
        (&read.routes[2].targets, read.routes[2].direct),
        (&vec![target(1, 0, None)], false)
    );
    assert_eq!(
        [Some(70), None].map(|last_ns| target(1, 2, last_ns).age_ns(75)),
        [Some(5), None]
    );
    assert_eq!(
        target(1, 2, Some(70)).age_ns(60),
        Some(0),
        "came while the snapshot was taken"
    );
    assert_eq!(read.lanes[0].ledger.delivered, 1100);
    assert!(
        read.lanes
            .iter()
            .all(|lane| lane.ledger.balances() && lane.consistent)
    );
    let latency = read.lanes[0].latency.summary();
    assert_eq!(
        (latency.count, latency.min_ns),
        (1, 1_234_567),
        "without the direct route, which no thread serves"
    );
    assert_eq!(
        (read.lanes[0].counters, read.lanes[1].counters),
        (counters, WorkerCounters::default())
    );
    assert_eq!(
        (read.workers[0].counters, read.workers[0].tid),
        (counters, 4712)
    );
    assert_eq!(
        (
            read.processes[1].state,
            read.processes[1].pid,
            read.processes[1].uid
        ),
        (PeerState::Dead, 4711, Some(1000))
    );
    assert_eq!(
        (read.processes[0].state, read.processes[0].uid),
        (PeerState::Unregistered, None)
    );
    assert_eq!(
        (read.endpoints[0].owner, read.endpoints[1].owner),
        (Some(0), None)
    );
    let button = Shown::Signal(signal::Shown {
        signo: 37,
        to_thread: true,
    });
    assert_eq!(
        (read.endpoints[1].kind.clone(), read.endpoints[1].is_sink),
        (button, true)
    );
}

/// A loss is shown with its receiver and its time, of the route and of its lane, until ten seconds
/// after the last one.
#[test]
fn a_loss_is_shown_with_its_receiver_and_its_time() {
    let name = unique("loss");
    let page = Page::create(&spec(&name)).unwrap();
    let full = Loss::Rejected(Reject::Full);
    let mut cell = page.route(0);
    cell.record_loss(1, full);
    cell.record_loss(1, Loss::Displaced);
    cell.record_errno(0, 1);
    assert_eq!(
        (
            page.ends(0),
            page.losses_at(0, 1).0[full.index()],
            page.losses_at(0, 0).1
        ),
        (2, 1, 1)
    );
    page.set_lost(0, full, 5);
    page.set_lost(0, Loss::Displaced, 7);
    let read = Reader::open(&name).unwrap().snapshot().unwrap();
    let lost = read.routes[0]
        .targets
        .iter()
        .map(|target| target.lost[full.index()]);
    assert_eq!(lost.collect::<Vec<_>>(), [0, 1]);
    let of_lane = read.lanes[0].losses;
    assert_eq!(
        (of_lane, read.lanes[1].losses),
        (read.routes[0].losses, LossTimes::default())
    );
    assert_eq!(
        of_lane.losing(5 + LOSING_NS),
        [full],
        "the configuration asked for what was displaced"
    );
    assert_eq!(of_lane.losing(6 + LOSING_NS), []);
    assert_eq!(
        (of_lane.age_ns(full, 9), of_lane.age_ns(Loss::Expired, 9)),
        (Some(4), None)
    );
}

#[test]
fn a_cell_taken_again_goes_on_where_the_first_one_stopped() {
    let name = unique("again");
    let page = Page::create(&spec(&name)).unwrap();
    page.route(0).record_latency(10);
    page.route(0).record_delivery(1, 10);
    let mut half = page.route(0);
    half.publish_half(&ledger(3));
    drop(half);
    let mut again = page.route(0);
    again.record_latency(2);
    again.record_delivery(1, 20);
    again.publish(&ledger(5));
    let read = Reader::open(&name).unwrap().snapshot().unwrap();
    let latency = read.routes[0].latency.summary();
    assert_eq!((latency.count, latency.min_ns, latency.max_ns), (2, 2, 10));
    assert!(read.routes[0].consistent);
    let last = read.routes[0].targets[1];
    assert_eq!((last.delivered, last.last_ns), (2, Some(20)));
    assert_eq!(read.routes[0].ledger, ledger(5));
}

#[test]
fn a_cell_outlives_its_page() {
    let page = Page::create(&spec(&unique("outlive"))).unwrap();
    let mut cell = page.route(2);
    drop(page);
    cell.publish(&ledger(7));
    cell.record_latency(7);
    cell.record_delivery(0, 7);
}

#[test]
fn every_whole_ledger_balances_while_a_writer_runs() {
    let name = unique("torture");
    let page = Page::create(&spec(&name)).unwrap();
    let mut cell = page.route(0);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut n = 0;
            while !stop.load(Ordering::Relaxed) {
                // As fast as it goes, then at the pace of a busy route.
                for i in 0..2000u32 {
                    n += 1;
                    cell.record_delivery(1, n);
                    cell.publish(&ledger(n));
                    cell.record_latency(n);
                    let paced = if i < 1000 {
                        Duration::ZERO
                    } else {
                        Duration::from_micros(5)
                    };
                    let from = Instant::now();
                    while from.elapsed() < paced {
                        std::hint::spin_loop();
                    }
                }
            }
        });
        let readers: Vec<_> = (0..2)
            .map(|_| scope.spawn(|| read_for(&name, Duration::from_millis(700))))
            .collect();
        let results: Vec<_> = readers.into_iter().map(|reader| reader.join()).collect();
        stop.store(true, Ordering::Relaxed);
        for result in results {
            let (whole, highest) = result.unwrap();
            assert!(
                whole > 10 && highest > 1000,
                "{whole} whole ledgers, up to {highest}"
            );
        }
    });
}

/// Takes snapshots, checks each whole ledger, returns how many were whole and the highest
/// `delivered`.
fn read_for(name: &str, time: Duration) -> (u32, u64) {
    let reader = Reader::open(name).unwrap();
    let (mut whole, mut highest) = (0, 0);
    let end = Instant::now() + time;
    while Instant::now() < end {
        let route = reader.snapshot().unwrap().routes.swap_remove(0);
        let delivered = route.ledger.delivered;
        if !route.consistent || delivered == 0 {
            continue;
        }
        assert!(route.ledger.balances(), "torn: {:?}", route.ledger);
        assert_eq!(route.ledger, ledger(delivered));
        assert!(
            route.targets[1].delivered >= delivered,
            "a target is behind its ledger: {:?}",
            route.targets
        );
        assert!(
            delivered >= highest,
            "went back from {highest} to {delivered}"
        );
        let latency = route.latency.summary();
        assert!(
            latency.min_ns <= latency.p50_ns
                && latency.p50_ns <= latency.p999_ns
                && latency.p999_ns <= latency.max_ns
        );
        (whole, highest) = (whole + 1, delivered);
    }
    (whole, highest)
}

#[test]
fn a_difference_holds_what_happened_in_between() {
    let name = unique("diff");
    let page = Page::create(&spec(&name)).unwrap();
    let (mut cell, mut worker) = (page.route(0), page.worker(0));
    let reader = Reader::open(&name).unwrap();
    for ns in [100, 1_000_000] {
        cell.record_latency(ns);
    }
    cell.record_delivery(0, 5);
    cell.publish(&ledger(50));
    worker.publish(&WorkerCounters {
        received: 5,
        duty_max_ns: 9,
        ..WorkerCounters::default()
    });
    let first = reader.snapshot().unwrap();
    for ns in [200, 5_000, 5_001] {
        cell.record_latency(ns);
    }
    for now_ns in [6, 7] {
        cell.record_delivery(0, now_ns);
    }
    cell.publish(&ledger(80));
    worker.publish(&WorkerCounters {
        received: 8,
        duty_max_ns: 9,
        ..WorkerCounters::default()
    });
    let second = reader.snapshot().unwrap();
    let diff = second.diff(&first);
    assert_eq!(diff.lanes[0].ledger.delivered, 30);
    assert_eq!(diff.lanes[0].ledger.queued, ledger(80).queued);
    let phase = diff.lanes[0].latency.summary();
    assert_eq!(phase.count, 3);
    assert!((4_990..5_060).contains(&phase.p50_ns), "{phase:?}");
    assert!(
        (5_001..5_060).contains(&phase.max_ns),
        "not the maximum of an earlier phase: {phase:?}"
    );
    assert!((199..=200).contains(&phase.min_ns), "{phase:?}");
    assert_eq!(
        (
            diff.workers[0].counters.received,
            diff.workers[0].counters.duty_max_ns
        ),
        (3, 9)
    );
    let [to_first, to_second] = [0, 1].map(|end| diff.routes[0].targets[end]);
    assert_eq!((to_first.delivered, to_first.last_ns), (2, Some(7)));
    assert_eq!((to_second.delivered, to_second.last_ns), (0, None));
    assert_eq!(diff.interval_ns, second.taken_ns - first.taken_ns);

    // A new maximum is exact, and another daemon under the same name starts from nothing.
    cell.record_latency(2_000_003);
    assert_eq!(
        reader.snapshot().unwrap().diff(&second).routes[0]
            .latency
            .summary()
            .max_ns,
        2_000_003
    );
    let mut other = first;
    other.start_ns += 1;
    let since_start = second.diff(&other);
    assert_eq!(since_start.lanes[0].ledger, second.lanes[0].ledger);
    assert_eq!(since_start.interval_ns, second.taken_ns - second.start_ns);
}

#[test]
fn stamps_of_a_clock_of_the_lanes_own_are_shown_on_the_common_one() {
    let name = unique("clock");
    let mut page = Page::create(&PageSpec {
        skin: "cobalt".into(),
        private_namespace: true,
        ..spec(&name)
    })
    .unwrap();
    let now = monotonic_ns();
    for ahead_ns in [7_000_000_000, -3_000_000i64] {
        let lanes_ns = now.wrapping_add_signed(ahead_ns);
        page.heartbeat(now, lanes_ns);
        page.route(0).record_delivery(0, lanes_ns - 1_000);
        let read = Reader::open(&name).unwrap().snapshot().unwrap();
        assert_eq!(
            (read.skin.as_str(), read.private_namespace),
            ("cobalt", true)
        );
        assert_eq!(read.routes[0].targets[0].last_ns, Some(now - 1_000));
    }
}
