//! `rtctl run`: programs that know nothing of us, and signals to the daemon.

use super::*;
use std::os::unix::fs::PermissionsExt;

fn path(name: &str) -> PathBuf {
    std::fs::canonicalize(name).unwrap()
}

#[test]
fn the_program_keeps_the_pid_and_its_signals_are_left_alone() {
    let rig = Rig::new("run", vec![process("arm")]);
    // Not through a shell: some clear the mask.
    let mut program = Program::spawn(&mut rtctl_run(
        &rig.socket,
        "arm",
        &["cat", "/proc/self/status", "-"],
    ));
    assert_eq!(
        rig.change(),
        (0, PeerState::Alive, program.pid, effective_uid())
    );
    assert_eq!(program.line("Pid:\t"), program.pid.to_string());
    let mask = u64::from_str_radix(program.line("SigBlk:\t").trim(), 16).unwrap();
    assert_eq!(mask, 0);
    let (text, code) = program.output();
    assert!(text.contains("rtctl: registered as arm (pid "), "{text}");
    assert_eq!(code, Some(0));
    assert_eq!(rig.change().1, PeerState::Dead);
}

#[test]
fn a_demanded_executable_is_announced_when_it_runs_and_not_before() {
    let rig = Rig::new(
        "exe",
        vec![ProcessPlan {
            exe: Some(path("/bin/cat")),
            ..process("arm")
        }],
    );
    let program = Program::spawn(&mut rtctl_run(&rig.socket, "arm", &["cat"]));
    let (_, state, pid, _) = rig.change();
    assert_eq!((state, pid), (PeerState::Alive, program.pid));
    assert_eq!(rtcore::sys::procfs::exe(pid).unwrap(), path("/bin/cat"));
    drop(program);
    assert_eq!(rig.change().1, PeerState::Dead);
}

#[test]
fn another_executable_loses_the_name() {
    let rig = Rig::new(
        "wrong",
        vec![ProcessPlan {
            exe: Some(path("/bin/cat")),
            ..process("arm")
        }],
    );
    let program = Program::spawn(&mut rtctl_run(&rig.socket, "arm", &["sleep", "30"]));
    let cat = Program::cat();
    let deadline = Instant::now() + LIMIT;
    // Held while the exec is awaited, free when it turned out to be the wrong program.
    while program_is_not(&program, "/bin/sleep") || rig.register("arm", cat.pid).is_err() {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    assert_eq!(
        rig.change(),
        (0, PeerState::Alive, cat.pid, effective_uid())
    );
    let text = rig.register("arm", program.pid).unwrap_err();
    assert!(text.contains("/cat") && text.contains("/sleep"), "{text}");
}

fn program_is_not(program: &Program, name: &str) -> bool {
    // The link is gone for a moment when a thread other than the main one calls exec(2), as here.
    !rtcore::sys::procfs::runs(program.pid, Path::new(name)).unwrap_or(false)
}

#[test]
fn an_awaited_exec_holds_the_name_and_is_not_announced() {
    let rig = Rig::new(
        "pending",
        vec![ProcessPlan {
            exe: Some(path("/bin/cat")),
            ..process("arm")
        }],
    );
    let script = "read line; exec cat";
    // The shell keeps no descriptor of ours, so the end of the connection comes with the first
    // exec; a shell is not the demanded program.
    let program = Program::spawn(&mut rtctl_run(&rig.socket, "arm", &["sh", "-c", script]));
    rig.no_change(Duration::from_millis(300));
    assert_eq!(rig.peers[0].state(), PeerState::Unregistered);
    drop(program);
    rig.no_change(Duration::from_millis(50));
}

#[test]
#[ignore = "needs root, and a temporary directory that is not mounted nosuid"]
fn a_program_that_changes_its_user_in_the_exec_loses_the_name() {
    let rig = Rig::new(
        "setuid",
        vec![ProcessPlan {
            uid: Some(0),
            ..process("arm")
        }],
    );
    let program = rig.dir.join("cat");
    std::fs::copy("/bin/cat", &program).unwrap();
    std::os::unix::fs::chown(&program, Some(STRANGER), None).unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o4755)).unwrap();
    for round in 0..20 {
        let running = Program::spawn(&mut rtctl_run(
            &rig.socket,
            "arm",
            &[program.to_str().unwrap()],
        ));
        assert_eq!(
            rig.change(),
            (0, PeerState::Alive, running.pid, 0),
            "round {round}"
        );
        if round == 0 {
            let mounted = Instant::now();
            while rtcore::sys::procfs::status(running.pid).unwrap().euid == 0 {
                assert!(
                    mounted.elapsed() < Duration::from_secs(2),
                    "mounted nosuid?"
                );
            }
        }
        assert_eq!(
            rig.change(),
            (0, PeerState::Unregistered, running.pid, 0),
            "round {round}"
        );
    }
}

#[test]
fn a_program_that_cannot_run_says_so_and_frees_the_name() {
    let rig = Rig::new("norun", vec![process("arm")]);
    // A directory in PATH that may not be searched would make it 126, as with env(1).
    let mut command = rtctl_run(&rig.socket, "arm", &["no-such-program"]);
    let (text, code) = Program::spawn(command.env("PATH", "/usr/bin:/bin")).output();
    assert!(text.contains("cannot run no-such-program"), "{text}");
    assert_eq!(code, Some(127));
    let (text, code) =
        Program::spawn(&mut rtctl_run(&rig.socket, "arm", &["/etc/passwd"])).output();
    assert!(text.contains("cannot run /etc/passwd"), "{text}");
    assert_eq!(code, Some(126));
    let (text, code) = Program::spawn(&mut rtctl_run(&rig.socket, "nobody", &["cat"])).output();
    assert!(text.contains("no process is named nobody"), "{text}");
    assert_eq!(code, Some(1));
    let states: Vec<PeerState> = (0..4).map(|_| rig.change().1).collect();
    use PeerState::{Alive, Dead};
    assert_eq!(states, [Alive, Dead, Alive, Dead]);
}

#[test]
fn hang_up_is_answered_in_the_log_and_termination_ends_the_run_again_and_again() {
    let rig = Rig::new("signals", vec![]);
    let socket = rig.dir.join("own");
    // The mask is inherited; the main thread of a test binary would not block them by itself.
    let _blocked = StopSignals::block().unwrap();
    let mut daemon = Program::spawn(&mut other_side(&["serve", socket.to_str().unwrap()]));
    daemon.line("ready: ");
    let signal = |name: &str| {
        let status = Command::new("/bin/kill")
            .args([name, &daemon.pid.to_string()])
            .status();
        assert!(status.unwrap().success());
    };
    signal("-HUP");
    let (_, reply) = register::ask(&socket, &Request::Ping, LIMIT).unwrap();
    assert_eq!(reply.status, Status::Ok);
    signal("-TERM");
    assert_eq!(daemon.line("stop: "), "Signal(Terminate)");
    Command::new("/bin/kill")
        .args(["-INT", &daemon.pid.to_string()])
        .status()
        .unwrap();
    assert_eq!(daemon.line("stop: "), "Signal(Interrupt)");
    let (text, _) = daemon.output();
    assert!(
        text.contains("rtd: warning: SIGHUP: rtd reads its configuration only when it starts"),
        "{text}"
    );
    assert!(!socket.exists());
}
