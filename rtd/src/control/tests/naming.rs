//! Names: who gets one, who keeps it, and what the lanes are told.

use super::*;

#[test]
fn a_registered_process_is_announced_and_its_death_at_once_too() {
    let rig = Rig::new("death", vec![process("arm"), process("leg")]);
    let mut cat = Program::cat();
    let reply = rig.register("arm", cat.pid).unwrap();
    assert_eq!((reply.status, reply.generation), (Status::Ok, 1));
    assert_eq!(
        reply.signals,
        1 << 34 | 1 << 39,
        "what routes send, through groups too, and no more"
    );
    assert_eq!(reply.pid, cat.pid.cast_unsigned());
    assert_eq!(
        rig.change(),
        (0, PeerState::Alive, cat.pid, effective_uid())
    );
    assert_eq!(rig.peers[0].state(), PeerState::Alive);
    assert_eq!((rig.peers[0].pid(), rig.peers[0].tid()), (cat.pid, cat.pid));
    assert_eq!(rig.peers[1].state(), PeerState::Unregistered);

    let killed = Instant::now();
    cat.child.kill().unwrap();
    assert_eq!(rig.change(), (0, PeerState::Dead, cat.pid, effective_uid()));
    assert!(
        killed.elapsed() < Duration::from_secs(2),
        "{:?}",
        killed.elapsed()
    );
    assert_eq!(rig.peers[0].state(), PeerState::Dead);
    drop(cat);
    let counters = rig.stop();
    assert_eq!(
        (counters.registrations, counters.deaths, counters.refused),
        (1, 1, 0)
    );
}

#[test]
fn the_dead_do_not_keep_the_control_thread_awake() {
    let rig = Rig::new("spin", vec![process("arm")]);
    let mut cat = Program::cat();
    rig.register("arm", cat.pid).unwrap();
    rig.change();
    cat.kill();
    rig.change();
    // The peer's slot still duplicates the pidfd, which stays readable for ever.
    rig.no_change(Duration::from_millis(500));
    let counters = rig.stop();
    assert!(
        counters.turns < 40,
        "{} turns in half a second",
        counters.turns
    );
}

#[test]
fn a_live_holder_keeps_its_name_and_a_dead_one_is_taken_over() {
    let rig = Rig::new("takeover", vec![process("arm")]);
    let (mut first, second) = (Program::cat(), Program::cat());
    rig.register("arm", first.pid).unwrap();
    rig.change();
    let text = rig.register("arm", second.pid).unwrap_err();
    assert!(
        text.contains(&format!("arm is held by pid {}:", first.pid)),
        "{text}"
    );
    rig.no_change(Duration::from_millis(20));
    first.kill();
    // At once: whether the death or the request is seen first must not matter.
    let reply = rig.register("arm", second.pid).unwrap();
    assert_eq!(reply.generation, 2);
    assert_eq!(rig.change().1, PeerState::Dead);
    assert_eq!(
        rig.change(),
        (0, PeerState::Alive, second.pid, effective_uid())
    );
    assert_eq!(rig.peers[0].pid(), second.pid);
    assert_eq!(rig.stop().deaths, 1);
}

#[test]
fn the_holder_may_register_again_and_give_the_name_up() {
    let rig = Rig::new("again", vec![process("arm")]);
    let cat = Program::cat();
    rig.register("arm", cat.pid).unwrap();
    assert_eq!(rig.register("arm", cat.pid).unwrap().generation, 2);
    let free = Request::Unregister {
        name: rtcore::wire::Name::new("arm").unwrap(),
    };
    let (_, reply) = register::ask(&rig.socket, &free, LIMIT).unwrap();
    assert_eq!(reply.status, Status::Ok, "{}", reply.text);
    assert_eq!(rig.peers[0].state(), PeerState::Unregistered);
    let (_, reply) = register::ask(&rig.socket, &free, LIMIT).unwrap();
    assert_eq!(reply.status, Status::NoProcess);
    drop(cat);
    rig.change();
    rig.change();
    assert_eq!(rig.change().1, PeerState::Unregistered);
    rig.no_change(Duration::from_millis(50));
}

#[test]
fn names_pids_and_threads_that_do_not_exist_are_named() {
    let rig = Rig::new("unknown", vec![process("arm"), process("leg")]);
    let text = rig.register("amr", 1).unwrap_err();
    assert!(text.contains("amr") && text.contains("arm, leg"), "{text}");
    let mut gone = Program::cat();
    gone.kill();
    let text = rig.register("arm", gone.pid).unwrap_err();
    assert!(text.contains(&format!("pid {}", gone.pid)), "{text}");
    let cat = Program::cat();
    let text = register::claim(&rig.socket, "arm", cat.pid, 1, false).unwrap_err();
    assert!(text.contains("tid 1 is no thread"), "{text}");
    let own = i32::try_from(std::process::id()).unwrap();
    let text = rig.register("arm", own).unwrap_err();
    assert!(text.contains("rtd itself"), "{text}");
    let mut zombie = Program::cat();
    zombie.child.kill().unwrap();
    let fd = rtcore::sys::pidfd::PidFd::open(zombie.pid).unwrap();
    while fd.is_alive() {
        std::thread::yield_now();
    }
    let text = rig.register("arm", zombie.pid).unwrap_err();
    assert!(text.contains("has ended"), "{text}");
    zombie.kill();
    assert_eq!(rig.stop().refused, 5);
}

#[test]
fn a_process_registers_itself() {
    let rig = Rig::new(
        "itself",
        vec![ProcessPlan {
            uid: Some(effective_uid()),
            ..process("arm")
        }],
    );
    let mut program = Program::spawn(&mut other_side(&[
        "claim",
        rig.socket.to_str().unwrap(),
        "arm",
        "0",
    ]));
    assert_eq!(program.line("result: "), format!("granted {}", program.pid));
    assert_eq!(
        rig.change(),
        (0, PeerState::Alive, program.pid, effective_uid())
    );
    // Its connection is closed by now and the registration stays.
    drop(program.stdin.take());
    assert_eq!(rig.change().1, PeerState::Dead);
}

#[test]
fn user_and_group_must_be_those_of_the_configuration() {
    let own = rtcore::sys::procfs::status(i32::try_from(std::process::id()).unwrap()).unwrap();
    let other = |id: u32| if id == 4242 { 4243 } else { 4242 };
    let rig = Rig::new(
        "credentials",
        vec![
            ProcessPlan {
                uid: Some(other(own.euid)),
                ..process("user")
            },
            ProcessPlan {
                gid: Some(999_999),
                ..process("group")
            },
            ProcessPlan {
                gid: Some(own.egid),
                uid: Some(own.euid),
                ..process("fine")
            },
        ],
    );
    let cat = Program::cat();
    let text = rig.register("user", cat.pid).unwrap_err();
    assert!(
        text.contains("requires uid 424") && text.contains("user ="),
        "{text}"
    );
    let text = rig.register("group", cat.pid).unwrap_err();
    assert!(
        text.contains("gid 999999") && text.contains("group ="),
        "{text}"
    );
    assert_eq!(rig.register("fine", cat.pid).unwrap().status, Status::Ok);
}

#[test]
#[ignore = "needs root"]
fn a_supplementary_group_counts() {
    let rig = Rig::new(
        "groups",
        vec![ProcessPlan {
            gid: Some(77_777),
            ..process("arm")
        }],
    );
    let mut command = Command::new("/usr/bin/setpriv");
    let program = Program::spawn(
        command
            .args(["--groups", "5,77777", "/bin/cat"])
            .stdout(Stdio::null()),
    );
    let deadline = Instant::now() + LIMIT;
    // setpriv sets the groups some time after it was started.
    while rig.register("arm", program.pid).is_err() {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    assert_eq!(rig.change().1, PeerState::Alive);
}

#[test]
#[ignore = "needs root"]
fn a_stranger_registers_its_own_processes_only() {
    let rig = Rig::new("stranger", vec![process("arm"), process("leg")]);
    let binary = rig.dir.join("child");
    std::fs::copy(std::env::current_exe().unwrap(), &binary).unwrap();
    let as_stranger = |words: &[&str]| {
        let mut command = Command::new(&binary);
        command.args([
            "control::tests::child",
            "--exact",
            "--nocapture",
            "--test-threads=1",
        ]);
        command
            .env("RTD_TEST_CHILD", words.join("\n"))
            .uid(STRANGER)
            .gid(STRANGER);
        Program::spawn(command.current_dir("/").stdout(Stdio::piped()))
    };
    let (of_root, socket) = (Program::cat(), rig.socket.to_str().unwrap());
    let mut denied = as_stranger(&["claim", socket, "arm", &of_root.pid.to_string()]);
    let text = denied.line("result: ");
    assert!(
        text.contains(&format!(
            "uid {STRANGER} may not register pid {}",
            of_root.pid
        )),
        "{text}"
    );
    let of_stranger = Program::spawn(Command::new("/bin/cat").uid(STRANGER).stdout(Stdio::null()));
    let mut granted = as_stranger(&["claim", socket, "arm", &of_stranger.pid.to_string()]);
    assert_eq!(
        granted.line("result: "),
        format!("granted {}", of_stranger.pid)
    );
    assert_eq!(
        rig.change(),
        (0, PeerState::Alive, of_stranger.pid, STRANGER)
    );
    let mut itself = as_stranger(&["claim", socket, "leg", "0"]);
    assert_eq!(itself.line("result: "), format!("granted {}", itself.pid));
    assert_eq!(rig.change(), (1, PeerState::Alive, itself.pid, STRANGER));
}
