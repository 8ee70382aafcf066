//! Sessions of real processes: what they are told, and how they end.

use super::client::Other;
use super::*;
use crate::daemon::rings::Wanted;
use crate::endpoint::ring::RingPlan;
use rtcore::message::{Meta, Origin};
use rtcore::ring::{Envelope, Kind};
use rtcore::sys::poll;
use std::os::fd::{AsFd as _, AsRawFd as _};

/// The arm sends to the planner, routed and direct; the planner sends to the arm.
pub fn two(socket: PathBuf) -> Plan {
    let lane = |name: &str, owner| EndpointPlan {
        name: name.into(),
        owner: Some(owner),
        kind: EndpointKind::Ring(RingPlan {
            slots: 8,
            payload_bytes: 32,
        }),
    };
    let route = |plan: &Plan, name: &str, from, to, path| RoutePlan {
        name: name.into(),
        from,
        to: vec![TargetPlan::Endpoint(to)],
        path,
        ..plan.routes[0].clone()
    };
    let mut plan = plan(socket, vec![process("arm"), process("planner")]);
    plan.endpoints = vec![
        lane("arm.out", 0),
        lane("planner.in", 1),
        lane("arm.fast", 0),
        lane("planner.fast", 1),
        lane("planner.out", 1),
        lane("arm.in", 0),
    ];
    let routes = vec![
        route(&plan, "r", 0, 1, crate::plan::Path::Routed),
        route(&plan, "d", 2, 3, crate::plan::Path::Direct),
        route(&plan, "b", 4, 5, crate::plan::Path::Routed),
    ];
    Plan { routes, ..plan }
}

/// Lane threads that run.
pub struct Lanes {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Feeds>>,
}

impl Lanes {
    pub fn run(mut ring_slots: Feeds) -> Lanes {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                ring_slots.take_all();
                std::thread::yield_now();
            }
            ring_slots.take_all();
            ring_slots
        });
        Lanes {
            stop,
            thread: Some(thread),
        }
    }

    pub fn stop(mut self) -> Feeds {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Feeds {
    pub fn take_all(&mut self) {
        self.sources
            .values_mut()
            .for_each(|ring_slot| while ring_slot.take() {});
        self.sinks
            .values_mut()
            .for_each(|ring_slot| while ring_slot.take() {});
    }
}

#[test]
fn a_session_gets_its_channels_and_sends_and_receives() {
    let (rig, mut ring_slots) = Rig::with("opens", two);
    let mut arm = Other::opened(&rig, "arm");
    assert_eq!(
        rig.change(),
        (0, PeerState::Alive, arm.0.pid, effective_uid())
    );
    let events: Vec<String> = (0..7).map(|_| arm.ask("next")).collect();
    let expected = [
        "channel 0 Sender arm.out direct=false",
        "channel 1 Sender arm.fast direct=true",
        "channel 2 Inbox arm.in direct=false",
        "ring 0 fds=3",
        "ring 2 fds=3",
        "reach 0 false",
        "ready",
    ];
    assert_eq!(events, expected);
    assert_eq!(arm.ask("ping"), "Ok rtd `t` is there", "and nothing more");
    ring_slots.take_all();
    assert_eq!(arm.ask("push 0 hello"), "Ok(false)");
    let source = ring_slots.sources.get_mut(&0).unwrap();
    let mut buffer = [0; 32];
    assert_eq!(
        source
            .current()
            .unwrap()
            .take(&mut buffer)
            .unwrap()
            .unwrap()
            .len,
        5
    );
    assert_eq!(&buffer[..5], b"hello");
    assert_eq!(source.origin().pid, arm.0.pid.unsigned_abs());
    let (meta, kind) = (Meta::default(), Kind::Bytes { priority: 0 });
    let envelope = Envelope {
        meta,
        origin: Origin::UNKNOWN,
        kind,
        len: 0,
    };
    ring_slots
        .sinks
        .get_mut(&(2, 0))
        .unwrap()
        .current()
        .unwrap()
        .push(&envelope, b"back")
        .unwrap();
    assert_eq!(arm.ask("take 2"), "back");
}

#[test]
fn partners_hear_of_each_other_and_get_a_ring_between_them() {
    let (rig, _feeds) = Rig::with("partners", two);
    let (mut arm, mut planner) = (Other::opened(&rig, "arm"), Other::new(&rig));
    arm.until("ready");
    assert_eq!(planner.open("planner"), "Ok 1");
    assert_eq!(planner.until("peer"), "peer arm Alive None");
    planner.until("ready");
    let ring = planner.ask("next");
    assert!(
        ring.starts_with("ring 2 direct ") && ring.ends_with(&format!("of {} fds=3", arm.0.pid)),
        "{ring}"
    );
    assert_eq!(arm.ask("next"), "peer planner Alive None");
    let ring_of_arm = arm.ask("next");
    assert!(ring_of_arm.starts_with("ring 1 direct "), "{ring_of_arm}");
    assert_eq!(arm.ask("next"), "reach 0 true");
    let serial = |ring: &str| ring.split(' ').nth(3).unwrap().to_owned();
    planner.ask(&format!("mapped {}", serial(&ring)));
    planner.ask("mapped 4711");
    assert_eq!(
        planner.ask("ping"),
        "Ok rtd `t` is there",
        "one half is not enough"
    );
    arm.ask(&format!("mapped {}", serial(&ring_of_arm)));
    assert_eq!(arm.ask("next"), "join 1 own=true fds=2");
    assert_eq!(arm.ask("next"), "reach 1 true");
    assert_eq!(planner.ask("next"), "join 2 own=true fds=2");
    // A new life of one end: a new ring for both.
    assert_eq!(planner.ask("close"), "done");
    // Nobody is there to send to, and then who it was: not the other way round.
    assert_eq!(
        (arm.ask("next"), arm.ask("next")),
        ("reach 0 false".into(), "reach 1 false".into())
    );
    assert_eq!(arm.ask("next"), "peer planner Unregistered None");
    assert_eq!(planner.open("planner"), "Ok 2");
    assert_eq!(arm.ask("next"), "peer planner Alive None");
    assert!(arm.ask("next").starts_with("ring 1 direct "));
}

#[test]
fn a_death_is_reported_with_its_cause() {
    let (rig, ring_slots) = Rig::with("causes", two);
    let lanes = Lanes::run(ring_slots);
    let mut arm = Other::opened(&rig, "arm");
    arm.until("ready");
    rig.change();
    for round in 1..=20 {
        let mut planner = Other::new(&rig);
        assert_eq!(planner.open("planner"), format!("Ok {round}"));
        arm.until("peer planner Alive");
        let cause = if round % 2 == 0 {
            planner.0.kill();
            "Some(Signal(9))"
        } else {
            planner.order("exit 3");
            // Reaped by nobody yet: that is when the kernel tells strangers.
            "Some(Exit(3))"
        };
        let event = arm.until("peer planner");
        // Reaped before the daemon looked: the kernel says it on the descriptor since 6.15 only.
        assert!(
            event == format!("peer planner Dead {cause}") || event == "peer planner Dead None",
            "{event}"
        );
        assert_eq!(
            (rig.change().1, rig.change().1),
            (PeerState::Alive, PeerState::Dead),
            "round {round}"
        );
    }
    drop(arm);
    lanes.stop();
}

#[test]
fn the_last_messages_of_a_killed_process_are_there_before_its_ring_goes() {
    let (rig, mut ring_slots) = Rig::with("last", two);
    let mut arm = Other::opened(&rig, "arm");
    arm.until("ready");
    // Lanes get the ring of a sender after its Ready.
    let deadline = Instant::now() + LIMIT;
    while !ring_slots.sources.get_mut(&0).unwrap().has_offer() {
        assert!(Instant::now() < deadline);
    }
    ring_slots.take_all();
    assert_eq!(arm.ask("push 0 last"), "Ok(false)");
    arm.0.kill();
    assert_eq!(
        (rig.change().1, rig.change().1),
        (PeerState::Alive, PeerState::Dead)
    );
    let source = ring_slots.sources.get_mut(&0).unwrap();
    let deadline = Instant::now() + LIMIT;
    while !source.has_offer() {
        assert!(Instant::now() < deadline);
    }
    assert_eq!(
        source
            .current()
            .unwrap()
            .take(&mut [0; 32])
            .unwrap()
            .unwrap()
            .len,
        4
    );
    assert!(source.take() && source.current().is_none());
}

#[test]
fn a_name_ends_with_its_session_and_the_process_goes_on() {
    let (rig, ring_slots) = Rig::with("ends", two);
    let lanes = Lanes::run(ring_slots);
    let mut arm = Other::opened(&rig, "arm");
    rig.change();
    arm.ask("close");
    assert_eq!(
        rig.change(),
        (0, PeerState::Unregistered, arm.0.pid, effective_uid())
    );
    assert_eq!(arm.open("arm"), "Ok 2");
    rig.change();
    // At once, with requests before the end that nobody answered.
    for generation in 3..20 {
        arm.ask("flood mapped 50");
        arm.ask("close");
        assert_eq!(arm.open("arm"), format!("Ok {generation}"));
        assert_eq!(
            (rig.change().1, rig.change().1),
            (PeerState::Unregistered, PeerState::Alive)
        );
    }
    lanes.stop();
}

#[test]
fn one_name_has_one_session() {
    let (rig, _feeds) = Rig::with("one", two);
    let (mut arm, mut other) = (Other::new(&rig), Other::new(&rig));
    assert_eq!(arm.ask("register arm"), "Ok 1");
    assert_eq!(arm.open("arm"), "Ok 2", "who has the name already has it");
    let text = rig.register("arm", arm.0.pid).unwrap_err();
    assert!(text.contains("held by a session of the same pid"), "{text}");
    let text = other.open("arm");
    assert!(text.starts_with("Held arm is held by pid"), "{text}");
    let text = other.open("amr");
    assert!(text.starts_with("UnknownName"), "{text}");
    assert!(other.ask("explain arm.out").starts_with("BadFrame"));
    assert_eq!(
        other.open("planner"),
        "Ok 1",
        "a refusal leaves the connection to try another"
    );
    let free = Request::Unregister {
        name: rtcore::wire::Name::new("arm").unwrap(),
    };
    assert_eq!(
        register::ask(&rig.socket, &free, LIMIT).unwrap().1.status,
        Status::Ok
    );
    arm.until("ready");
    arm.until("reach 0 true");
    assert_eq!(arm.ask("next"), "closed");
    let changes: Vec<_> = (0..4)
        .map(|_| rig.change())
        .map(|(process, state, ..)| (process, state))
        .collect();
    use PeerState::{Alive, Unregistered};
    assert_eq!(
        changes,
        [(0, Alive), (0, Alive), (1, Alive), (0, Unregistered)]
    );
}

#[test]
fn a_child_that_keeps_the_connection_keeps_no_name() {
    let (rig, _feeds) = Rig::with("fork", two);
    let mut arm = Other::opened(&rig, "arm");
    let child = arm.ask("fork");
    arm.0.kill();
    assert_eq!(
        (rig.change().1, rig.change().1),
        (PeerState::Alive, PeerState::Dead)
    );
    let mut other = Other::new(&rig);
    assert_eq!(other.open("arm"), "Ok 2");
    let _ = Command::new("/bin/kill").args(["-9", &child]).status();
}

#[test]
fn sessions_give_way_to_nobody() {
    let (rig, _feeds) = Rig::with("way", two);
    let mut arm = Other::opened(&rig, "arm");
    arm.until("ready");
    let idle: Vec<Conn> = (0..500)
        .map(|_| Conn::connect(&rig.socket, LIMIT).unwrap())
        .collect();
    assert_eq!(
        register::ask(&rig.socket, &Request::Ping, LIMIT)
            .unwrap()
            .1
            .status,
        Status::Ok
    );
    assert_eq!(arm.ask("ping"), "Ok rtd `t` is there");
    drop(idle);
}

#[test]
fn a_stop_ends_sessions_and_leaves_them_what_nobody_took() {
    let (rig, mut ring_slots) = Rig::with("stop", two);
    let mut arm = Other::opened(&rig, "arm");
    arm.until("ready");
    ring_slots.take_all();
    let (meta, kind) = (Meta::default(), Kind::Bytes { priority: 0 });
    let envelope = Envelope {
        meta,
        origin: Origin::UNKNOWN,
        kind,
        len: 0,
    };
    ring_slots
        .sinks
        .get_mut(&(2, 0))
        .unwrap()
        .current()
        .unwrap()
        .push(&envelope, b"kept")
        .unwrap();
    rig.stop();
    drop(ring_slots);
    assert_eq!(arm.ask("next"), "closed");
    assert_eq!(arm.ask("take 2"), "kept");
}

#[test]
fn a_process_that_broke_a_ring_loses_the_session_of_that_registration() {
    let (rig, _feeds) = Rig::with("expel", two);
    let mut arm = Other::opened(&rig, "arm");
    arm.until("ready");
    rig.change();
    let violation = |generation| Violation {
        process: 0,
        generation,
        reason: "it violations".into(),
    };
    rig.violate.send(violation(7)).unwrap();
    rig.no_change(TICK * 3);
    rig.violate.send(violation(1)).unwrap();
    assert_eq!(rig.change().1, PeerState::Unregistered);
    assert_eq!(arm.ask("next"), "closed");
    arm.ask("close");
    assert_eq!(arm.open("arm"), "Ok 2");
    assert_eq!(rig.stop().violations, 1);
}

#[test]
fn rules_are_explained_to_sessions() {
    let (rig, _feeds) = Rig::with("explain", two);
    let mut arm = Other::opened(&rig, "arm");
    arm.until("ready");
    assert!(
        arm.ask("explain planner.out")
            .starts_with("Denied endpoint `planner.out` belongs to process")
    );
    assert!(
        arm.ask("explain x")
            .starts_with("UnknownName no endpoint is named `x`")
    );
}

#[test]
#[ignore = "needs root"]
fn a_thread_above_the_ceiling_of_its_lanes_is_refused_or_warned_of() {
    let warned = |socket| {
        let mut plan = two(socket);
        plan.processes[1].above_ceiling = true;
        plan
    };
    let (rig, _feeds) = Rig::with("ceiling", warned);
    let mut arm = Other::new(&rig);
    assert_eq!(arm.ask("fifo 51"), "done");
    let text = arm.ask("open arm thread");
    assert!(
        text.starts_with("Denied thread ")
            && text.contains("real-time priority 51, not below lane \"l\" with 50"),
        "{text}"
    );
    assert!(
        text.contains("chrt -f -p 49") && text.contains("above_ceiling = \"warn\""),
        "{text}"
    );
    arm.ask("close");
    let text = arm.ask("open planner thread");
    assert!(
        text.starts_with("Ok 1 thread ") && text.contains("not below lane"),
        "{text}"
    );
    let mut level = Other::new(&rig);
    level.ask("fifo 50");
    assert!(
        level.ask("open arm thread").starts_with("Denied thread "),
        "the lane must preempt it"
    );
    level.ask("close");
    level.ask("fifo 49");
    assert_eq!(level.ask("open arm thread"), "Ok 1");
}

/// As many channels as a session can have, all of them with nobody at the other end.
fn largest(socket: PathBuf) -> Plan {
    let mut plan = two(socket);
    let out = plan.endpoints[0].clone();
    let names = (0..128).map(|n| format!("e{n}"));
    plan.endpoints = names
        .map(|name| EndpointPlan {
            name,
            ..out.clone()
        })
        .collect();
    plan.endpoints.push(EndpointPlan {
        name: "sink".into(),
        owner: Some(1),
        ..out
    });
    let to = vec![TargetPlan::Endpoint(128)];
    let routes = (0..127).map(|from| RoutePlan {
        from,
        to: to.clone(),
        ..plan.routes[0].clone()
    });
    plan.routes = routes.collect();
    plan
}

#[test]
fn the_largest_session_opens_for_a_client_that_reads_late() {
    let (rig, _feeds) = Rig::with("largest", largest);
    let mut arm = Other::new(&rig);
    assert_eq!(arm.ask("ask arm"), "done");
    rig.no_change(TICK);
    assert_eq!(arm.ask("next"), "Ok 1");
    arm.until("reach 126 false");
    arm.until("ready");
    rig.change();
    assert_eq!(arm.ask("ping"), "Ok rtd `t` is there");
}

/// A client that is held up before it has mapped its rings is not seen alive, keeps the name from
/// nobody for long, and is cut off in the end.
#[test]
fn a_session_whose_client_does_not_map_its_rings_ends_unseen() {
    let (rig, _feeds) = Rig::with("unmapped", two);
    let (mut first, mut second) = (Other::new(&rig), Other::new(&rig));
    assert_eq!(first.ask("ask arm"), "done");
    assert_eq!(first.ask("next"), "Ok 1");
    let refused = second.ask("open arm");
    assert!(
        refused.starts_with("Busy ") && refused.contains("is being opened: try again"),
        "{refused}"
    );
    let deadline = Instant::now() + LIMIT;
    while second.ask("open arm").starts_with("Busy ") {
        assert!(Instant::now() < deadline, "the name is never free");
        std::thread::sleep(TICK);
    }
    let (process, state, pid, _) = rig.change();
    assert_eq!(
        (process, state, pid.unsigned_abs()),
        (0, PeerState::Alive, second.0.child.id())
    );
    // It reads the rest too late.
    while first.ask("next") != "closed" {}
}

#[test]
fn rings_that_cannot_be_locked_are_refused_with_the_line_that_grants_it() {
    let (rig, _feeds) = Rig::with("unlocked", two);
    let binary = rig.dir.join("child");
    std::fs::copy(std::env::current_exe().unwrap(), &binary).unwrap();
    let mut limited = Command::new("/bin/sh");
    limited
        .args(["-c", "ulimit -l 0; exec \"$0\" \"$@\""])
        .arg(&binary);
    limited.args([
        "control::tests::child",
        "--exact",
        "--nocapture",
        "--test-threads=1",
    ]);
    limited
        .env("RTD_TEST_CHILD", "unlocked")
        .current_dir("/")
        .stdout(Stdio::piped());
    if effective_uid() == 0 {
        limited.uid(STRANGER).gid(STRANGER);
    }
    let mut program = Program::spawn(&mut limited);
    let text = program.line("refused: ");
    assert!(
        text.contains("arm.out") && text.contains("LimitMEMLOCK=infinity"),
        "{text}"
    );
    assert_eq!(program.line("allowed: "), "true");
}

/// In a process that may lock nothing.
pub fn unlocked() {
    let plan = two("/nonexistent".into());
    let wanted = Wanted {
        pid: 1,
        semaphores: false,
        resumes: 0,
    };
    let refused = Rings::new(&plan, rtcore::skin::posix(), false)
        .unwrap()
        .prepare(0, wanted)
        .unwrap_err();
    println!("\nrefused: {refused}");
    println!(
        "allowed: {}",
        Rings::new(&plan, rtcore::skin::posix(), true)
            .unwrap()
            .prepare(0, wanted)
            .is_ok()
    );
}

/// The death of a name's last holder may be counted while the next process opens its session: rtd
/// reads no frames of that one, or its Mapped would be gone and the session would never be up.
#[test]
fn the_frames_of_a_session_that_opens_are_left_to_it() {
    let dir = std::env::temp_dir().join(format!("rtd-control-{}-unread", std::process::id()));
    std::fs::create_dir(&dir).unwrap();
    let plan = two(dir.join("s"));
    let (socket, signals) = (plan.daemon.socket.clone(), StopSignals::block().unwrap());
    let mut rings = Rings::new(&plan, rtcore::skin::posix(), true).unwrap();
    let lanes = Lanes::run(Feeds::take(&plan, &mut rings));
    let peers = plan
        .processes
        .iter()
        .map(|_| Arc::new(Peer::new(1, rtcore::skin::posix()).unwrap()));
    let ((changes, changed), (_violate, violations)) = (channel(), channel());
    let recorder = Recorder {
        changes,
        violations,
        stop: Arc::default(),
    };
    let mut control = Control::new(&plan, peers.collect(), rings, signals, recorder).unwrap();
    let mut tokens = Vec::new();
    // One wait only: in more of them the session could open and be up before anybody looks.
    let mut turn = |control: &mut Control<Recorder>| {
        control
            .turn(&mut tokens, Some(Duration::from_millis(1)))
            .unwrap();
    };

    let mut arm = Other(Program::spawn(&mut other_side(&[
        "session",
        socket.to_str().unwrap(),
    ])));
    arm.order("open arm");
    let deadline = Instant::now() + LIMIT;
    while !control.sessions.is_opening(0) {
        assert!(Instant::now() < deadline);
        turn(&mut control);
    }
    // Its Mapped has come, and was not read yet.
    let token = Token::Session {
        process: 0,
        uses: 1,
    }
    .encode();
    let conn = control.sessions.conn(0, token).unwrap().as_fd().as_raw_fd();
    let limit_ns = u64::try_from(LIMIT.as_nanos()).unwrap();
    assert_eq!(
        poll::wait(&mut [poll::Interest::readable(conn)], limit_ns),
        Ok(1)
    );
    assert!(!control.sessions.has_left(0));
    while changed.try_recv() != Ok((0, PeerState::Alive, arm.0.pid, effective_uid())) {
        assert!(Instant::now() < deadline, "the session is not up");
        turn(&mut control);
    }
    assert_eq!(arm.0.line("= "), "Ok 1");
    drop((arm, control));
    lanes.stop();
    std::fs::remove_dir_all(dir).unwrap();
}
