//! The sender is a forked child. Each scenario runs in a process of its own, which has one thread.

use super::{MESSAGES, PAYLOAD_BYTES, SCENARIO, stamp, threads};
use rtcore::sys::Errno;
use rtcore::sys::mqueue::{Access, Queue};
use rtcore::sys::pidfd::{Ending, PidFd};
use rtlat::mech::{self, Kind};
use rtlat::sys::fork::{PANICKED, fork_child};
use rtlat::sys::inherited::Inherited;
use std::ffi::CString;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Scenarios of forking itself.
pub const FORKS: [&str; 5] = [
    "a_child_ends_as_its_work_says",
    "a_child_shares_what_is_made_to_be_inherited",
    "a_child_goes_with_its_handle",
    "a_child_prints_nothing_of_its_parents",
    "a_holder_that_is_killed_is_an_error_for_the_receiver",
];

/// Starts this program for one scenario, and checks that nothing is left of it.
pub fn start(scenario: &str) {
    let program = std::env::current_exe().expect("this program");
    let child = Command::new(program)
        .env(SCENARIO, scenario)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let child = child.expect("the process that forks");
    let pid = child.id();
    let ended = child.wait_with_output().expect("its end");
    let (out, err) = (
        String::from_utf8_lossy(&ended.stdout),
        String::from_utf8_lossy(&ended.stderr),
    );
    assert!(
        ended.status.success(),
        "{scenario}: {}\n{out}{err}",
        ended.status
    );
    assert_eq!(out.matches("printed by the parent").count(), 1, "{out}");
    nothing_is_left(pid);
}

fn nothing_is_left(pid: u32) {
    // /dev/mqueue need not be mounted: by name, that of its only pair.
    let queue = CString::new(format!("/rtlat-{pid}-0-0")).expect("no zero byte");
    let gone = Queue::open(&queue, Access::Receive, true).expect_err("a queue is left");
    assert_eq!(gone.kind(), std::io::ErrorKind::NotFound, "{gone}");
    let table = std::fs::read_to_string("/proc/sysvipc/msg").unwrap_or_default();
    // key msqid perms cbytes qnum lspid lrpid ...: who received last
    let receiver = |row: &str| {
        row.split_whitespace()
            .nth(6)
            .and_then(|pid| pid.parse().ok())
    };
    assert!(
        !table.lines().any(|row| receiver(row) == Some(pid)),
        "a System V queue is left:\n{table}"
    );
}

/// In the process of its own.
pub fn play(scenario: &str) -> ExitCode {
    // Without a line's end, so that it stays in the buffer.
    print!("printed by the parent");
    match scenario.strip_prefix("deliver ") {
        Some(name) => deliver(name),
        None => match scenario {
            "a_child_ends_as_its_work_says" => a_child_ends_as_its_work_says(),
            "a_child_shares_what_is_made_to_be_inherited" => {
                a_child_shares_what_is_made_to_be_inherited()
            }
            "a_child_goes_with_its_handle" => a_child_goes_with_its_handle(),
            "a_child_prints_nothing_of_its_parents" => a_child_prints_nothing_of_its_parents(),
            "a_holder_that_is_killed_is_an_error_for_the_receiver" => a_holder_that_is_killed(),
            other => panic!("no scenario {other}"),
        },
    }
    ExitCode::SUCCESS
}

fn deliver(name: &str) {
    let kind = Kind::all()
        .into_iter()
        .find(|kind| kind.name() == name)
        .expect("a kind");
    let mechanism = mech::of(kind, PAYLOAD_BYTES, 0).expect("the mechanism");
    let mut child =
        fork_child(|| u8::from(threads::send_all(&*mechanism) != 0)).expect("the child");
    assert_eq!(threads::receive_all(&*mechanism), 0, "calls of the heap");
    assert_eq!(child.wait().unwrap(), Ending::Exit(0));
    assert_eq!(
        child.try_wait().unwrap(),
        Some(Ending::Exit(0)),
        "told again"
    );
}

fn a_child_ends_as_its_work_says() {
    assert_eq!(fork_child(|| 7).unwrap().wait().unwrap(), Ending::Exit(7));
    let mut panicking = fork_child(|| panic!("as it should")).unwrap();
    assert_eq!(panicking.wait().unwrap(), Ending::Exit(PANICKED.into()));
}

fn a_child_shares_what_is_made_to_be_inherited() {
    let words = Inherited::<AtomicU32>::new(2000).unwrap();
    let mut child = fork_child(|| {
        words.fault_in();
        words[1999].store(5, Ordering::Release);
        0
    })
    .unwrap();
    assert_eq!(child.wait().unwrap(), Ending::Exit(0));
    assert_eq!(words[1999].load(Ordering::Acquire), 5);
}

fn a_child_goes_with_its_handle() {
    let work = || loop {
        std::thread::park();
    };
    let mut child = fork_child(work).unwrap();
    assert_eq!(child.try_wait().unwrap(), None);
    let process = PidFd::open(child.pid()).unwrap();
    assert!(process.is_alive());
    drop(child);
    assert!(!process.is_alive());
}

fn a_child_prints_nothing_of_its_parents() {
    let mut child = fork_child(|| {
        println!(" and by the child");
        0
    })
    .unwrap();
    assert_eq!(child.wait().unwrap(), Ending::Exit(0));
}

fn a_holder_that_is_killed() {
    let mechanism = mech::of(Kind::Mutex, 0, 0).unwrap();
    let ready = Inherited::<AtomicU32>::new(1).unwrap();
    let child = fork_child(|| {
        let mut tx = mechanism.sender().expect("the sending end");
        tx.send(&stamp(MESSAGES)).expect("room");
        ready[0].store(1, Ordering::Release);
        loop {
            std::thread::park();
        }
    })
    .unwrap();
    let mut rx = mechanism.receiver().unwrap();
    let mut receive = || loop {
        match rx.receive() {
            Err(Errno::AGAIN) if ready[0].load(Ordering::Acquire) == 0 => {}
            other => break other,
        }
    };
    assert_eq!(receive(), Ok(stamp(MESSAGES)));
    assert_eq!(receive(), Err(Errno::AGAIN), "it holds the next one");
    drop(child);
    let before = Instant::now();
    assert_eq!(receive(), Err(Errno::OWNERDEAD));
    assert!(before.elapsed() < Duration::from_secs(5));
}
