//! Sessions, refusals, claims.

use crate::daemon::{Place, inbox, name, sender, session};
use crate::event;
use rtcore::client::{
    ClaimError, ConnectError, Event, Gone, Origin, RecvError, SendError, Session, State,
};
use rtcore::lane::peer::PeerState;
use rtcore::sys::pidfd::Ending;
use rtcore::wire::{Notice, Reply, Request, Status};
use std::time::Duration;

#[test]
fn a_session_has_what_the_daemon_tells() {
    let place = Place::new();
    let (session, _daemon, _link) = session(
        &place,
        &[sender("arm.pos"), inbox("arm.cmd", "planner.cmd")],
    );
    assert_eq!((session.process(), session.state()), ("arm", State::Up));
    let endpoints: Vec<_> = session
        .channels()
        .iter()
        .map(|c| c.endpoint.to_string())
        .collect();
    assert_eq!(endpoints, ["arm.pos", "arm.cmd"]);
}

#[test]
fn a_refusal_carries_the_daemon_s_reason() {
    let place = Place::new();
    let daemon = place.daemon();
    let connecting = place.connect("arm");
    let link = daemon.accept();
    let asked = link.request();
    let Request::Open { program, .. } = asked else {
        panic!("{asked:?}")
    };
    let arm = name("arm");
    assert_eq!(
        asked,
        Request::Open {
            name: arm,
            tid: 0,
            semaphores: false,
            resumes: 0,
            program,
            lane: None
        }
    );
    link.reply(&Reply::plain(
        Status::Held,
        "pid 7 has `arm`: stop it first",
    ));
    match connecting.join().unwrap() {
        Err(
            e @ ConnectError::Refused {
                status: Status::Held,
                ..
            },
        ) => {
            assert!(e.to_string().contains("stop it first"), "{e}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_crowded_daemon_is_asked_again() {
    let place = Place::new();
    let daemon = place.daemon();
    let connecting = place.connect("arm");
    let link = daemon.accept();
    link.request();
    link.reply(&Reply::plain(Status::Busy, "too many"));
    drop(link);
    let _link = daemon.open(&[]);
    connecting.join().unwrap().unwrap();
}

#[test]
fn without_a_daemon_or_with_a_hung_one_the_error_says_so() {
    let place = Place::new();
    let builder = Session::builder("arm").socket(place.socket());
    let absent = builder.clone().connect().unwrap_err().to_string();
    assert!(
        absent.contains("d.sock") && absent.contains("start it"),
        "{absent}"
    );
    let _daemon = place.daemon();
    let hung = builder
        .timeout(Duration::from_millis(50))
        .connect()
        .unwrap_err();
    assert!(matches!(hung, ConnectError::Timeout { .. }), "{hung}");
    let name = Session::builder("two words")
        .socket(place.socket())
        .connect()
        .unwrap_err();
    assert!(matches!(name, ConnectError::Name(_)), "{name}");
}

#[test]
fn a_daemon_that_does_not_keep_to_the_protocol_is_left() {
    let place = Place::new();
    for wrong in ["no page", "no ring", "odd ring", "ready first"] {
        let daemon = place.daemon();
        let connecting = place.connect("arm");
        let mut link = daemon.accept();
        link.request();
        match wrong {
            "no page" => link.reply(&Reply::plain(Status::Ok, "")),
            "ready first" => link.send(&Notice::Ready),
            "no ring" => {
                link.welcome();
                link.send(&Notice::Channel(sender("arm.pos")));
                link.send(&Notice::Map { serial: 1 });
            }
            _ => {
                link.welcome();
                link.channel(sender("arm.pos"));
                link.send(&Notice::Ring {
                    channel: 9,
                    serial: 0,
                    pid: 0,
                    uid: 0,
                    program: 0,
                    semaphores: None,
                });
            }
        }
        let error = connecting.join().unwrap().unwrap_err();
        assert!(
            matches!(error, ConnectError::Protocol { .. }),
            "{wrong}: {error}"
        );
    }
}

#[test]
fn a_daemon_of_another_version_is_reported_with_one_piece_of_advice() {
    let place = Place::new();
    let daemon = place.daemon();
    let connecting = place.connect("arm");
    let link = daemon.accept();
    link.request();
    let mut frame = Reply::plain(Status::Ok, "").encode();
    frame[4..6].copy_from_slice(&900_u16.to_ne_bytes());
    link.send_frame(&frame);
    let error = connecting.join().unwrap().unwrap_err().to_string();
    assert!(
        error.contains("rtd speaks protocol version 900, this program "),
        "{error}"
    );
    assert_eq!(error.matches("one release").count(), 1, "{error}");
}

#[test]
fn an_endpoint_is_handed_out_once_and_others_are_explained() {
    let place = Place::new();
    let (session, _daemon, link) = session(
        &place,
        &[sender("arm.pos"), inbox("arm.cmd", "planner.cmd")],
    );
    let first = session.sender("arm.pos").unwrap();
    assert!(matches!(
        session.sender("arm.pos"),
        Err(ClaimError::Taken { .. })
    ));
    drop(first);
    session.sender("arm.pos").unwrap();
    let inbox = session.inbox_of(&["arm.cmd"]).unwrap();
    assert!(matches!(
        session.inbox_of(&["arm.cmd"]),
        Err(ClaimError::Taken { .. })
    ));
    drop(inbox);
    session.inbox_of(&["arm.cmd"]).unwrap();
    std::thread::scope(|scope| {
        for (status, text) in [
            (Status::Denied, "owner = \"planner\""),
            (Status::UnknownName, "no such"),
        ] {
            let asked = scope.spawn(|| session.sender("planner.cmd").unwrap_err());
            assert_eq!(
                link.request(),
                Request::Explain {
                    endpoint: name("planner.cmd")
                }
            );
            link.reply(&Reply::plain(status, text));
            let error = asked.join().unwrap();
            assert_eq!(
                matches!(error, ClaimError::Denied { .. }),
                status == Status::Denied
            );
            assert!(error.to_string().contains(text), "{error}");
        }
    });
    let odd = session.inbox_of(&["a b"]).unwrap_err();
    assert!(matches!(odd, ClaimError::Unknown { .. }), "{odd}");
}

#[test]
fn what_outlives_its_session_says_so() {
    let place = Place::new();
    let (session, _daemon, mut link) = session(
        &place,
        &[sender("arm.pos"), inbox("arm.cmd", "planner.cmd")],
    );
    let (mut sender, mut inbox) = (session.sender("arm.pos").unwrap(), session.inbox().unwrap());
    sender.send(b"last").unwrap();
    link.push(1, 1, b"last");
    std::thread::scope(|scope| {
        let sleeper = scope.spawn(|| {
            assert_eq!(crate::bytes(&mut inbox), b"last");
            inbox.recv().map(|_| ()).unwrap_err()
        });
        drop(session);
        assert_eq!(sleeper.join().unwrap(), RecvError::Disconnected);
    });
    assert_eq!(
        inbox.try_recv().map(|_| ()).unwrap_err(),
        RecvError::Disconnected
    );
    let refused = sender.send(b"more").unwrap_err();
    assert_eq!(
        refused,
        SendError::Disconnected {
            endpoint: name("arm.pos"),
            why: Gone::Closed
        }
    );
    link.closed();
    assert_eq!(link.take(0).unwrap().1, b"last");
    assert!(
        link.consumer(0).is_closed(),
        "though the sender was not dropped"
    );
}

#[test]
fn peers_are_followed_through_their_registrations() {
    let place = Place::new();
    let (session, _daemon, link) = session(&place, &[inbox("arm.cmd", "planner.cmd")]);
    let mut inbox = session.inbox().unwrap();
    let is_drive = session.is("drive");
    let origin = |pid| Origin {
        pid,
        uid: 0,
        verified: true,
    };
    assert!(!is_drive(&origin(0)));
    let process = name("drive");
    link.peer("drive", PeerState::Alive, 100, None);
    assert_eq!(event(&mut inbox), Event::PeerBack { process, pid: 100 });
    assert!(is_drive(&origin(100)) && !is_drive(&origin(101)));
    let ending = Some(Ending::Signal(9));
    link.peer("drive", PeerState::Dead, 100, ending);
    assert_eq!(
        event(&mut inbox),
        Event::PeerLost {
            process,
            pid: 100,
            ending
        }
    );
    assert!(
        is_drive(&origin(100)) && session.is("drive")(&origin(100)),
        "it may have sent before it ended"
    );
    link.peer("drive", PeerState::Alive, 101, None);
    assert_eq!(event(&mut inbox), Event::PeerBack { process, pid: 101 });
    assert!(is_drive(&origin(101)) && is_drive(&origin(100)) && session.is("drive")(&origin(101)));
    assert_eq!(session.peers().len(), 1);
    // The kernel gives the number to another process.
    link.peer("leg", PeerState::Alive, 100, None);
    assert_eq!(
        event(&mut inbox),
        Event::PeerBack {
            process: name("leg"),
            pid: 100
        }
    );
    assert!(session.is("leg")(&origin(100)) && !is_drive(&origin(100)) && is_drive(&origin(101)));
    link.peer("drive", PeerState::Dead, 101, None);
    link.peer("drive", PeerState::Dead, 100, None);
    event(&mut inbox);
    event(&mut inbox);
    assert!(!is_drive(&origin(100)), "a late report of an earlier life");
    // Many lives later, a message of the first one is not recognised any more.
    for pid in 201..=208 {
        link.peer("drive", PeerState::Alive, pid, None);
        event(&mut inbox);
    }
    assert!(is_drive(&origin(201)) && is_drive(&origin(208)) && !is_drive(&origin(101)));
}

#[test]
fn the_session_s_thread_is_ordinary_and_blocks_every_signal() {
    let place = Place::new();
    let (_session, _daemon, _link) = session(&place, &[]);
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let mut found = 0;
    for task in tasks {
        let status =
            std::fs::read_to_string(task.unwrap().path().join("status")).unwrap_or_default();
        if !status.starts_with("Name:\trtd-session\n") {
            continue;
        }
        found += 1;
        let blocked = status
            .lines()
            .find_map(|line| line.strip_prefix("SigBlk:\t"))
            .unwrap();
        let blocked = u64::from_str_radix(blocked, 16).unwrap();
        // All but SIGKILL, SIGSTOP and the two of the C library.
        assert_eq!(
            blocked | 1 << 8 | 1 << 18 | 1 << 31 | 1 << 32,
            u64::MAX,
            "{blocked:x}"
        );
    }
    assert!(found > 0);
}

#[test]
fn ends_move_between_threads_and_the_session_is_shared() {
    fn moves<T: Send>() {}
    fn is_shared<T: Sync>() {}
    moves::<rtcore::client::Sender>();
    moves::<rtcore::client::Inbox>();
    moves::<rtcore::client::Caller>();
    moves::<Session>();
    is_shared::<Session>();
}

#[test]
fn a_thread_becomes_real_time_below_its_lane_or_gets_the_line_that_grants_it() {
    let place = Place::new();
    let (session, _daemon, _link) = session(&place, &[sender("arm.pos")]);
    let text = |builder: rtcore::client::realtime::RealTimeBuilder| {
        builder.enter().unwrap_err().to_string()
    };
    let unknown = text(session.realtime().lane("nope"));
    assert!(
        unknown.contains("no lane `nope`") && unknown.contains("session: control"),
        "{unknown}"
    );
    assert!(text(session.realtime()).contains("no lane was named"));
    let level = text(session.realtime().lane("control").below(0));
    assert!(
        level.contains("SCHED_FIFO 50") && level.contains("below()"),
        "{level}"
    );
    assert!(text(session.realtime().lane("control").below(50)).contains("50 below"));
    let stack = text(session.realtime().lane("control").prefault_stack(1 << 30));
    assert!(
        stack.contains("1073741824") && stack.contains("524288"),
        "{stack}"
    );
    // On a thread of its own, which ends at once.
    let entered = std::thread::spawn(move || {
        let builder = session
            .realtime()
            .lane("control")
            .below(2)
            .lock_memory(false);
        let entered = builder.prefault_stack(256 * 1024).heap(1 << 20).enter();
        entered
            .map(|granted| granted.priority())
            .map_err(|e| e.to_string())
    });
    match entered.join().unwrap() {
        Ok(priority) => assert_eq!(priority, 48),
        Err(text) => assert!(
            text.contains("limits.d") && text.contains("LimitRTPRIO"),
            "{text}"
        ),
    }
}
