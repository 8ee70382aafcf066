//! Channels, and rings between a session and lane threads.

use super::*;
use rtcore::wire::Role;

/// The arm's only sender feeds a queue, the planner's lane and, through a group, a signal of each;
/// the planner has a sender without a receiver.
fn mixed() -> Plan {
    let endpoints = vec![
        lane("arm.out", ARM, 64),
        queue("q", None),
        lane("planner.in", PLANNER, 64),
        signal("arm.sig", ARM, true),
        signal("planner.sig", PLANNER, false),
        lane("planner.out", PLANNER, 64),
        lane("planner.unrouted", PLANNER, 64),
    ];
    let group = TargetPlan::Group {
        name: "g".into(),
        mode: GroupMode::All,
        members: vec![3, 4],
        filter: None,
    };
    let block = Overflow::Block { limit_ns: 5 };
    let routes = vec![
        route(
            "r",
            0,
            vec![TargetPlan::Endpoint(1), TargetPlan::Endpoint(2), group],
            Path::Routed,
        ),
        RoutePlan {
            overflow: block,
            ..route("s", 0, vec![TargetPlan::Endpoint(2)], Path::Routed)
        },
        route("t", 5, vec![TargetPlan::Endpoint(3)], Path::Routed),
    ];
    plan(endpoints, routes)
}

#[test]
fn every_end_of_a_way_is_one_channel() {
    let table = Table::new(&mixed()).unwrap();
    let paths: Vec<Vec<(Role, ChannelPath)>> = table
        .channels
        .iter()
        .map(|c| c.iter().map(|c| (c.announced.role, c.path)).collect())
        .collect();
    let signal = Role::Signal { signo: 40 };
    assert_eq!(
        paths,
        [
            vec![
                (Role::Sender, ChannelPath::Source(0)),
                (signal, ChannelPath::Sink(0, 2)),
                (signal, ChannelPath::Sink(2, 0))
            ],
            vec![
                (Role::Sender, ChannelPath::Source(5)),
                (Role::Inbox, ChannelPath::Sink(0, 1)),
                (Role::Inbox, ChannelPath::Sink(1, 0))
            ],
        ]
    );
    let announced = table.channels[ARM][0].announced;
    assert_eq!(
        (
            announced.other.as_str(),
            announced.process,
            announced.route.as_str()
        ),
        ("q", None, "r")
    );
    assert_eq!(
        (announced.block_ns, announced.priority, announced.direct),
        (5, 50, false)
    );
    let inbox = table.channels[PLANNER][2].announced;
    assert_eq!(
        (inbox.channel, inbox.endpoint.as_str(), inbox.other.as_str()),
        (2, "planner.in", "arm.out")
    );
    assert_eq!(
        inbox.process.map(|name| name.to_string()).as_deref(),
        Some("arm")
    );
    assert_eq!(table.partners, [[PLANNER], [ARM]]);
}

#[test]
fn a_direct_ring_has_the_slots_of_its_receiver_and_the_payload_of_its_sender() {
    let mut plan = direct_plan();
    plan.endpoints[1].kind = EndpointKind::Ring(RingPlan {
        slots: 2,
        payload_bytes: 64,
    });
    let table = Table::new(&plan).unwrap();
    for (process, side) in [(ARM, Side::Producer), (PLANNER, Side::Consumer)] {
        let channel = &table.channels[process][0];
        assert_eq!(
            (
                channel.announced.slots,
                channel.announced.payload_bytes,
                channel.announced.direct
            ),
            (2, 16, true)
        );
        assert_eq!(channel.path, ChannelPath::Direct(0, side));
    }
}

#[test]
fn a_process_with_too_many_channels_is_named_at_the_start() {
    let mut endpoints = vec![queue("q", None)];
    endpoints.extend((0..129).map(|n| lane(&format!("e{n}"), PLANNER, 8)));
    let to = (1..=129).map(TargetPlan::Endpoint).collect();
    let mut plan = plan(endpoints, vec![route("r", 0, to, Path::Routed)]);
    let text = Rings::new(&plan, rtcore::skin::posix(), true)
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("\"planner\" has 129 channels") && text.contains("128 at most"),
        "{text}"
    );
    plan.routes[0].to.pop();
    assert!(Rings::new(&plan, rtcore::skin::posix(), true).is_ok());
}

#[test]
fn what_a_session_sends_the_thread_takes_and_a_dead_session_leaves_its_last_messages() {
    let mut rings = Rings::new(&mixed(), rtcore::skin::posix(), true).unwrap();
    let (mut source, mut sink) = (rings.take_source(0), rings.take_sink(1, 0));
    let (arm, planner) = (Someone::new(), Someone::new());
    let (mut of_arm, mut of_planner) = (hand_out(&mut rings, ARM), hand_out(&mut rings, PLANNER));
    assert_eq!(of_arm.rings.len(), 3);
    let bells = bells_of(&of_arm.page);
    let (_, handles) = of_arm.rings.remove(0);
    let writable = Map::of(
        handles.consumer.as_fd(),
        geometry(64).consumer_bytes(),
        true,
    );
    assert!(
        writable.is_err(),
        "the client got the daemon's memory for reading"
    );
    let mut up = handles.into_producer(geometry(64), &bells, 64).unwrap();
    let (_, handles) = of_planner.rings.remove(2);
    let mut down = handles
        .into_consumer(geometry(64), &bells_of(&of_planner.page), 0)
        .unwrap();
    assert!(
        !source.take() && !sink.take(),
        "lanes get nothing before the client has mapped it"
    );
    mapped(&mut rings, ARM, arm.identity(3));
    mapped(&mut rings, PLANNER, planner.identity(1));
    assert!(bells_are_sealed(&of_arm.page));
    assert!(source.take() && sink.take());
    assert_eq!(source.generation(), 3);
    assert_eq!(
        source.origin(),
        Origin {
            pid: arm.0.id(),
            uid: 7,
            verified: true
        }
    );
    up.push(&envelope(1), b"last").unwrap();
    let seen = bells.seen(128);
    rings.close(ARM);
    assert_ne!(
        bells.seen(128),
        seen,
        "a thread that sleeps at the old ring is woken"
    );
    let end = source.current().unwrap();
    let mut buffer = [0; 64];
    assert_eq!(end.take(&mut buffer).unwrap().unwrap().len, 4);
    assert_eq!(&buffer[..4], b"last");
    assert!(
        source.take() && source.current().is_none(),
        "then none any more"
    );
    sink.current().unwrap().push(&envelope(2), b"down").unwrap();
    assert_eq!(down.take(&mut buffer).unwrap().unwrap().meta.sequence, 2);
}

fn bells_are_sealed(page: &impl AsFd) -> bool {
    Map::of(page.as_fd(), Bells::BYTES, true).is_err()
}

#[test]
fn a_session_that_ends_before_its_rings_are_mapped_leaves_no_trace() {
    let mut rings = Rings::new(&mixed(), rtcore::skin::posix(), true).unwrap();
    let mut source = rings.take_source(0);
    let arm = Someone::new();
    for _ in 0..8 {
        hand_out(&mut rings, ARM);
        rings.close(ARM);
        assert!(!source.take());
    }
    open(&mut rings, ARM, arm.identity(1));
    assert!(source.take() && source.current().is_some());
}

#[test]
fn who_seals_the_memory_of_its_rings_against_rtd_gets_no_session() {
    let mut rings = Rings::new(&mixed(), rtcore::skin::posix(), true).unwrap();
    let mut source = rings.take_source(0);
    let arm = Someone::new();
    let attached = hand_out(&mut rings, ARM);
    let seals = nix::fcntl::SealFlag::F_SEAL_SEAL;
    nix::fcntl::fcntl(&attached.page, nix::fcntl::FcntlArg::F_ADD_SEALS(seals)).unwrap();
    let text = rings.attach(ARM, arm.identity(1)).unwrap_err().to_string();
    assert!(text.contains("cannot be sealed"), "{text}");
    rings.close(ARM);
    assert!(!source.take());
}

#[test]
fn a_session_goes_on_when_the_lanes_have_let_go_of_the_one_before() {
    let mut rings = Rings::new(&mixed(), rtcore::skin::posix(), true).unwrap();
    let mut lanes = [rings.take_sink(0, 2), rings.take_sink(2, 0)];
    let mut source = rings.take_source(0);
    let arm = Someone::new();
    let pid = arm.identity(1).pid;
    open(&mut rings, ARM, arm.identity(1));
    let take_all = |lanes: &mut [HandOffSlot<Producer>]| {
        lanes.iter_mut().for_each(|lane| while lane.take() {})
    };
    take_all(&mut lanes);
    while source.take() {}
    rings.close(ARM);
    let resumes = |pid, resumes| Wanted {
        pid,
        semaphores: false,
        resumes,
    };
    assert!(
        !source.is_left(),
        "a session that nobody continues is emptied"
    );
    assert!(
        rings.prepare(ARM, resumes(pid, 2)).is_ok() && rings.prepare(ARM, resumes(1, 1)).is_ok()
    );
    assert!(!source.is_left());
    let refused = rings.prepare(ARM, resumes(pid, 1)).unwrap_err();
    assert!(matches!(&refused, RingsError::Held(_)), "{refused}");
    assert!(source.is_left(), "its owner brings the rest");
    while source.take() {}
    assert!(!source.is_left());
    let refused = rings.prepare(ARM, resumes(pid, 1)).unwrap_err();
    assert!(
        matches!(&refused, RingsError::Held(_)),
        "a lane may still write: {refused}"
    );
    take_all(&mut lanes);
    assert!(rings.prepare(ARM, resumes(pid, 1)).is_ok());
}

#[test]
fn a_sender_is_notified_whether_it_has_a_receiver() {
    let mut plan = mixed();
    plan.endpoints[1].owner = Some(PLANNER);
    // Without the group, of which the arm itself is a member.
    plan.routes[0].to.truncate(2);
    let mut bench = Bench::new(&plan);
    let (arm, planner) = (Someone::new(), Someone::new());
    let becomes = |bench: &mut Bench, process, state| {
        let status = ProcessStatus {
            state,
            pid: 1,
            ending: None,
        };
        bench.perform(Event::Changed { process, status });
    };
    bench.open(ARM, arm.identity(1));
    assert!(bench.is_reached(ARM, 0), "the queue is there for anybody");
    becomes(&mut bench, PLANNER, PeerState::Dead);
    assert!(!bench.is_reached(ARM, 0));
    becomes(&mut bench, PLANNER, PeerState::Alive);
    assert!(bench.is_reached(ARM, 0));
    becomes(&mut bench, PLANNER, PeerState::Dead);
    bench.open(PLANNER, planner.identity(1));
    assert!(bench.is_reached(ARM, 0), "the lane has a session");
    assert!(bench.is_reached(PLANNER, 0), "the arm's signal");
    bench.close(ARM);
    assert!(!bench.is_reached(PLANNER, 0), "the arm's signal has nobody");
}

#[test]
fn a_thread_that_does_not_run_is_offered_so_much_and_no_more() {
    let mut rings = Rings::new(&mixed(), rtcore::skin::posix(), true).unwrap();
    let mut source = rings.take_source(0);
    let arm = Someone::new();
    for generation in 1..=4 {
        open(&mut rings, ARM, arm.identity(generation));
        rings.close(ARM);
    }
    let refused = rings.prepare(ARM, wanted(false)).unwrap_err();
    assert!(
        matches!(&refused, RingsError::Busy(route) if route == "r"),
        "{refused}"
    );
    while source.take() {}
    // Nobody here ever took the others.
    assert!(matches!(
        rings.prepare(ARM, wanted(false)),
        Err(RingsError::Busy(_))
    ));
    assert!(rings.prepare(PLANNER, wanted(false)).is_ok());
}

#[test]
fn memory_and_descriptors_of_sessions_that_ended_are_given_back() {
    let mut plan = mixed();
    plan.routes[0].name = "baseline".into();
    plan.routes.truncate(1);
    let mut rings = Rings::new(&plan, rtcore::skin::posix(), true).unwrap();
    let mut ring_slots: Vec<_> = [0, 1, 2, 3]
        .into_iter()
        .map(|end| rings.take_sink(0, end))
        .collect();
    let mut source = rings.take_source(0);
    let arm = Someone::new();
    let mut left = Vec::new();
    for generation in 1..100 {
        let attached = open(&mut rings, ARM, arm.identity(generation));
        assert!(maps("baseline") > 0);
        drop(attached);
        rings.close(ARM);
        while source.take() {}
        ring_slots
            .iter_mut()
            .for_each(|ring_slot| while ring_slot.take() {});
        rings.tick();
        left.push(maps("baseline"));
    }
    left.dedup();
    assert_eq!(
        left.len(),
        1,
        "what the last session may still map, of one session only: {left:?}"
    );
    drop(arm);
    rings.tick();
    assert_eq!(maps("baseline"), 0);
}

#[test]
fn the_rule_that_is_in_the_way_is_named() {
    let rings = Rings::new(&mixed(), rtcore::skin::posix(), true).unwrap();
    let explain = |process, endpoint| rings.explain(process, endpoint).text;
    assert!(explain(ARM, "x").starts_with("no endpoint is named `x`"));
    assert_eq!(explain(ARM, "q"), "`q` is an mqueue: mq_open(\"/q\")");
    assert_eq!(
        explain(ARM, "arm.sig"),
        "`arm.sig` is a signal (SIGRTMIN+6), not a lane: it comes as a signal: sigwaitinfo(2)"
    );
    let text = explain(ARM, "planner.out");
    assert!(
        text.contains("belongs to process `planner` ([[endpoint]] owner = \"planner\")"),
        "{text}"
    );
    assert!(text.contains("this session is `arm`"), "{text}");
    let text = explain(PLANNER, "planner.unrouted");
    assert!(
        text.contains("no route reads or writes") && text.contains("[[route]] from ="),
        "{text}"
    );
    assert!(explain(PLANNER, "planner.in").contains("no route reads `planner.in`"));
    assert!(explain(PLANNER, "planner.out").contains("no route writes `planner.out`"));
}
