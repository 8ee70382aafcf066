//! Garbage, floods, idlers and shortages leave the daemon well.

use super::*;

fn connect(rig: &Rig) -> Conn {
    Conn::connect(&rig.socket, LIMIT).unwrap()
}

fn reply(conn: &Conn) -> Reply {
    let mut frame = [0; FRAME_BYTES];
    assert_eq!(
        conn.receive_within(&mut frame, LIMIT).unwrap(),
        Received::Packet(FRAME_BYTES)
    );
    Reply::decode(&frame).unwrap()
}

fn is_closed(conn: &Conn) -> bool {
    matches!(
        conn.receive_within(&mut [0; FRAME_BYTES], LIMIT),
        Ok(Received::Closed)
    )
}

/// Registration works, and within the time a person would wait.
fn still_serves(rig: &Rig) {
    let cat = Program::cat();
    let asked = Instant::now();
    rig.register("arm", cat.pid).unwrap();
    assert!(
        asked.elapsed() < Duration::from_secs(2),
        "{:?}",
        asked.elapsed()
    );
}

#[test]
fn frames_of_any_other_size_are_answered_and_closed() {
    let rig = Rig::new("sizes", vec![process("arm")]);
    for bytes in [0, 1, 128, 255, 257, 512, 65_536] {
        let conn = connect(&rig);
        assert!(conn.send(&vec![0; bytes]).unwrap());
        let reply = reply(&conn);
        assert_eq!(reply.status, Status::BadFrame);
        assert!(
            reply.text.contains(&format!("this one {bytes}")),
            "{}",
            reply.text
        );
        assert!(is_closed(&conn));
    }
    still_serves(&rig);
    assert_eq!(rig.stop().bad_frames, 7);
}

#[test]
fn garbage_of_the_right_size_is_answered_and_closed() {
    let rig = Rig::new("garbage", vec![process("arm")]);
    let mut state = 1_u64;
    for n in 0..300 {
        let mut frame = [0; FRAME_BYTES];
        for byte in &mut frame {
            // A linear congruential generator; its upper bits are random enough, and the same each
            // time.
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            *byte = state.to_be_bytes()[0];
        }
        if n % 2 == 0 {
            frame[..8].copy_from_slice(&Request::Ping.encode()[..8]);
        }
        let conn = connect(&rig);
        conn.send(&frame).unwrap();
        assert_eq!(reply(&conn).status, Status::BadFrame);
        assert!(is_closed(&conn));
    }
    still_serves(&rig);
    assert_eq!(rig.stop().bad_frames, 300);
}

#[test]
fn another_version_gets_both_numbers() {
    let rig = Rig::new("version", vec![process("arm")]);
    let conn = connect(&rig);
    let mut frame = Request::Ping.encode();
    frame[4..6].copy_from_slice(&7_u16.to_ne_bytes());
    conn.send(&frame).unwrap();
    let text = reply(&conn).text;
    let says = format!(
        "a frame of protocol version 7, expected {}",
        rtcore::wire::VERSION
    );
    assert!(text.contains(&says), "{text}");
}

#[test]
fn three_times_too_many_idle_connections_keep_nobody_out() {
    // A process has 1024 open files at most by default, and this one has both ends.
    const COUNT: usize = 3 * CONNECTIONS_MAX;
    let rig = Rig::new("idle", vec![process("arm")]);
    let idle: Vec<Conn> = (0..COUNT).map(|_| connect(&rig)).collect();
    still_serves(&rig);
    assert_eq!(
        reply(&idle[0]).status,
        Status::Busy,
        "the one that has been silent longest is told"
    );
    let counters = rig.stop();
    assert_eq!(counters.accepted, COUNT as u64 + 1);
    assert!(
        counters.evicted >= (COUNT - CONNECTIONS_MAX) as u64,
        "{counters}"
    );
}

#[test]
fn an_idle_connection_is_closed_in_the_end_and_a_talking_one_is_not() {
    let rig = Rig::new("silence", vec![process("arm")]);
    let (silent, talking) = (connect(&rig), connect(&rig));
    let start = Instant::now();
    let mut frame = [0; FRAME_BYTES];
    loop {
        assert!(start.elapsed() < IDLE_MAX * 2);
        talking.send(&Request::Ping.encode()).unwrap();
        assert_eq!(reply(&talking).status, Status::Ok);
        match silent.receive_within(&mut frame, Duration::from_millis(500)) {
            Ok(Received::Closed) => break,
            Err(e) if e.kind() == io::ErrorKind::TimedOut => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(start.elapsed() >= IDLE_MAX - TICK);
    assert_eq!(rig.stop().idle, 1);
}

#[test]
fn a_flood_of_frames_is_served_in_turn() {
    let rig = Rig::new("flood", vec![process("arm")]);
    let stop = Arc::new(AtomicBool::new(false));
    let floods: Vec<_> = (0..4)
        .map(|_| {
            let (mut conn, stop, socket) = (connect(&rig), Arc::clone(&stop), rig.socket.clone());
            std::thread::spawn(move || {
                let (mut frame, mut sent) = ([0; FRAME_BYTES], 0_u64);
                while !stop.load(Ordering::Relaxed) {
                    match conn.send(&Request::Ping.encode()) {
                        Ok(taken) => sent += u64::from(taken),
                        // It lost its CPU with too many answers unread, and was closed for that.
                        Err(_) => conn = Conn::connect(&socket, LIMIT).unwrap(),
                    }
                    while let Ok(Received::Packet(_)) = conn.receive(&mut frame) {}
                }
                sent
            })
        })
        .collect();
    still_serves(&rig);
    stop.store(true, Ordering::Relaxed);
    let sent: u64 = floods.into_iter().map(|flood| flood.join().unwrap()).sum();
    assert!(sent > 100, "{sent}");
    assert_eq!(rig.stop().bad_frames, 0);
}

#[test]
fn a_client_that_never_reads_is_closed() {
    let rig = Rig::new("deaf", vec![process("arm")]);
    let conn = connect(&rig);
    let deadline = Instant::now() + LIMIT;
    while conn.send(&Request::Ping.encode()).is_ok() {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    still_serves(&rig);
    assert_eq!(rig.stop().unread, 1);
}

#[test]
fn connections_that_are_gone_before_they_are_taken_do_no_harm() {
    let rig = Rig::new("gone", vec![process("arm")]);
    for _ in 0..500 {
        let conn = connect(&rig);
        conn.send(&Request::Ping.encode()[..100]).unwrap();
    }
    still_serves(&rig);
}

#[test]
fn without_descriptors_it_waits_rather_than_spins_and_recovers() {
    let rig = Rig::new("shortage", vec![]);
    let socket = rig.dir.join("own");
    let serve = other_side(&["serve", socket.to_str().unwrap()]);
    let mut limited = Command::new("/bin/sh");
    limited
        .args(["-c", "ulimit -n 40; exec \"$0\" \"$@\""])
        .arg(serve.get_program())
        .args(serve.get_args());
    limited.env(
        "RTD_TEST_CHILD",
        ["serve", socket.to_str().unwrap()].join("\n"),
    );
    // The mask is inherited; the main thread of a test binary would not block them by itself.
    let _blocked = StopSignals::block().unwrap();
    let mut daemon = Program::spawn(limited.stdout(Stdio::piped()).stderr(Stdio::piped()));
    daemon.line("ready: ");
    let idle: Vec<Conn> = (0..60)
        .map(|_| Conn::connect(&socket, LIMIT).unwrap())
        .collect();
    std::thread::sleep(Duration::from_secs(1));
    drop(idle);
    let (_, pong) = register::ask(&socket, &Request::Ping, LIMIT).unwrap();
    assert_eq!(pong.status, Status::Ok);
    let (turns, shortages) = stop(&mut daemon);
    assert!(shortages >= 1);
    assert!(turns < 400, "{turns} turns");
}

/// Ends a daemon of a process of its own, whose turns and shortages it returns.
fn stop(daemon: &mut Program) -> (u64, u64) {
    let pid = daemon.pid.to_string();
    let terminate = || {
        assert!(
            Command::new("/bin/kill")
                .arg(&pid)
                .status()
                .unwrap()
                .success()
        )
    };
    terminate();
    daemon.line("stop: ");
    let turns = daemon.line("turns: ").parse().unwrap();
    let shortages = daemon.line("shortages: ").parse().unwrap();
    terminate();
    (turns, shortages)
}

/// Rust ends a process whose heap cannot grow, so the daemon has to stop taking work before that.
#[test]
fn without_memory_a_connection_waits_and_is_served_afterwards() {
    let rig = Rig::new("memory", vec![]);
    let socket = rig.dir.join("own");
    let mut serve = other_side(&["serve-without-memory", socket.to_str().unwrap()]);
    let _blocked = StopSignals::block().unwrap();
    let mut daemon = Program::spawn(serve.stdout(Stdio::piped()).stderr(Stdio::piped()));
    daemon.line("ready: ");
    let waiting: Vec<Conn> = (0..20)
        .map(|_| Conn::connect(&socket, LIMIT).unwrap())
        .collect();
    let asked = register::ask(&socket, &Request::Ping, Duration::from_millis(300));
    assert!(asked.is_err(), "{asked:?}");
    let lifted = Command::new("prlimit")
        .args(["--as=unlimited", "--pid", &daemon.pid.to_string()])
        .status()
        .unwrap();
    assert!(lifted.success());
    let (_, pong) = register::ask(&socket, &Request::Ping, LIMIT).unwrap();
    assert_eq!(pong.status, Status::Ok);
    drop(waiting);
    let (_, shortages) = stop(&mut daemon);
    assert!(shortages >= 1);
}
