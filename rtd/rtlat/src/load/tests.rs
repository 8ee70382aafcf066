//! Real workers: their work, their end, and the report if one is missing.

use super::*;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

const CHILD: &str = "RTLAT_TEST_LOAD_CHILD";

/// This test binary as the binary `rtlat` would be: the arguments that follow go to
/// [`child_of_a_test`].
fn own() -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env(CHILD, "yes").args([
        "--exact",
        "load::tests::child_of_a_test",
        "--nocapture",
        "--test-threads=1",
    ]);
    command.arg("--");
    command
}

/// Does what the parent asks of a child. Without a parent it has nothing to do.
#[test]
fn child_of_a_test() {
    if std::env::var(CHILD).is_err() {
        return;
    }
    #[derive(clap::Parser)]
    enum Tool {
        LoadWorker(WorkerArgs),
        Measure { load: String },
    }
    // The harness takes what follows `--` for names of tests; for us they are the words after the
    // second one.
    let words = std::env::args().skip_while(|word| word != "--");
    match <Tool as clap::Parser>::parse_from(words) {
        Tool::LoadWorker(args) => {
            if let Err(e) = work(&args) {
                eprintln!("{e:#}");
            }
        }
        Tool::Measure { load } => {
            let load = Load::start_by(&Load::parse(&load).unwrap(), own).unwrap();
            println!();
            load.pids().for_each(|pid| println!("worker {pid}"));
            println!("measuring");
            // Until the test kills us.
            let _ = std::io::stdin().read(&mut [0]);
        }
    }
    std::process::exit(1);
}

fn start(load: &str) -> RunningLoad {
    Load::start_by(&Load::parse(load).unwrap(), own).unwrap_or_else(|e| panic!("{load}: {e:#}"))
}

fn pidfd(pid: u32) -> PidFd {
    PidFd::open(i32::try_from(pid).unwrap()).unwrap()
}

fn ends(pidfd: &PidFd) -> bool {
    is_readable(pidfd.as_fd().as_raw_fd(), 10_000_000_000)
}

/// Clock ticks a process has used, utime + stime (proc_pid_stat(5)).
fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat[stat.rfind(')').unwrap()..].split(' ').collect();
    fields[12].parse::<u64>().unwrap() + fields[13].parse::<u64>().unwrap()
}

#[test]
fn what_was_asked_for_is_read_and_written_the_same() {
    for text in [
        "cpu",
        "memory:2",
        "own:syscall:64",
        "stress-ng:ipc:1",
        "own:ipc",
    ] {
        assert_eq!(text.parse::<LoadSpec>().unwrap().to_string(), text);
    }
    let list = Load::parse("cpu:2,own:memory").unwrap();
    assert_eq!(
        list.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["cpu:2", "own:memory"]
    );
}

#[test]
fn what_is_wrong_is_named_with_what_would_be_right() {
    for (text, said) in [
        ("disk", "no kind `disk`"),
        ("", "no kind ``"),
        ("cpu:0", "`0` workers; 1 to 64"),
        ("cpu:65", "`65` workers; 1 to 64"),
        ("cpu:many", "`many` workers"),
        ("cpu:1:own", "`1:own` workers"),
        ("other:cpu", "no kind `other`"),
        ("stress-ng:syscall", "use own:syscall"),
    ] {
        let error = Load::parse(text).unwrap_err();
        assert!(error.contains(said), "{text}: {error}");
    }
    let error = Load::start(&Load::parse("cpu:40,ipc:40").unwrap())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("80 workers, at most 64 are possible") && error.contains("cpu:32"),
        "{error}"
    );
}

#[test]
fn each_kind_works_at_ordinary_priority_and_is_gone_when_dropped() {
    for kind in ["cpu", "memory", "syscall", "ipc"] {
        let mut load = start(&format!("own:{kind}:2"));
        let pids: Vec<u32> = load.pids().collect();
        assert_eq!(pids.len(), 2);
        assert!(
            load.describe().starts_with(&format!("{kind}:2 (own, ")),
            "{}",
            load.describe()
        );
        for &pid in &pids {
            let used = ticks(pid);
            let give_up_ns = clock::monotonic_ns() + 20_000_000_000;
            while ticks(pid) < used + 3 {
                assert!(
                    clock::monotonic_ns() < give_up_ns,
                    "{kind}: pid {pid} does not work"
                );
                load.check().unwrap();
                std::thread::yield_now();
            }
            assert_eq!(
                rtcore::sys::sched::realtime_priority(i32::try_from(pid).unwrap()).unwrap(),
                None
            );
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            assert!(status.contains("VmLck:\t       0 kB"), "{status}");
        }
        drop(load);
        assert!(
            pids.iter()
                .all(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists()),
            "{kind} is left"
        );
    }
    let queues = std::fs::read_dir("/dev/mqueue")
        .into_iter()
        .flatten()
        .flatten();
    assert!(
        !queues
            .into_iter()
            .any(|q| q.file_name().to_string_lossy().starts_with("rtlat-load."))
    );
}

#[test]
fn a_worker_that_dies_is_reported() {
    let mut load = start("own:cpu:2");
    load.check().unwrap();
    let pid = load.pids().nth(1).unwrap();
    child::kill_group(pid);
    assert!(ends(&load.workers[1].pidfd));
    let error = load.check().unwrap_err().to_string();
    assert!(
        error.contains(&format!("`cpu` (pid {pid}) ended: signal: 9")),
        "{error}"
    );
}

#[test]
fn a_worker_that_cannot_start_says_why() {
    let failing = || {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "echo no queue left >&2; exit 3"]);
        command
    };
    let error = Load::start_by(&Load::parse("own:ipc:1").unwrap(), failing)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("exit status: 3") && error.contains("no queue left"),
        "{error}"
    );
    let absent = || Command::new("/nowhere/rtlat");
    let error = format!(
        "{:#}",
        Load::start_by(&Load::parse("own:ipc:1").unwrap(), absent).unwrap_err()
    );
    assert!(error.contains("/nowhere/rtlat for --load ipc"), "{error}");
}

/// Kills a measuring process with SIGKILL; its workers must end all the same.
fn kill_measuring(load: &str) {
    let mut command = own();
    let mut measuring = command
        .args(["measure", load])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(measuring.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap);
    let mut workers = Vec::new();
    for line in lines {
        match line.strip_prefix("worker ") {
            Some(pid) => workers.push(pidfd(pid.parse().unwrap())),
            None if line == "measuring" => break,
            None => {}
        }
    }
    assert!(!workers.is_empty() && workers.iter().all(PidFd::is_alive));
    measuring.kill().unwrap();
    measuring.wait().unwrap();
    assert!(
        workers.iter().all(ends),
        "a worker outlives its measurement"
    );
}

#[test]
fn nothing_outlives_a_measurement_that_is_killed() {
    kill_measuring("own:cpu:1,own:ipc:1,own:memory:1");
}

#[test]
fn a_fork_of_the_measurement_ends_nothing() {
    let mut load = start("own:cpu:1");
    load.owner = 1;
    let worker = pidfd(load.pids().next().unwrap());
    let pid = load.pids().next().unwrap();
    drop(load);
    assert!(worker.is_alive());
    child::kill_group(pid);
    assert!(ends(&worker));
}

#[test]
#[ignore = "needs stress-ng"]
fn stress_ng_works_and_is_gone_when_dropped_or_its_measurement_killed() {
    let version = stress_ng::version()
        .unwrap()
        .expect("stress-ng is installed");
    let mut load = start("stress-ng:cpu:2,stress-ng:ipc:3,memory:1");
    assert!(
        load.describe()
            .contains(&format!("cpu:2 ({version} --cpu 2)")),
        "{}",
        load.describe()
    );
    assert!(
        load.describe()
            .contains("--pipe 1 --sock 1 --sock-domain unix --futex 1"),
        "{}",
        load.describe()
    );
    load.check().unwrap();
    let pids: Vec<u32> = load.pids().collect();
    assert_eq!(pids.len(), 3);
    drop(load);
    assert!(
        pids.iter()
            .all(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists())
    );
    kill_measuring("stress-ng:cpu:2");
}

#[test]
fn lines_count_when_they_are_whole() {
    assert!(!Announce::Own.is_complete("test x ... rea"));
    assert!(!Announce::Own.is_complete("test x ... ready"));
    assert!(Announce::Own.is_complete("test x ... ready\n"));
    let one = "stress-ng: debug: [8752] cpu: started [8752] (instance 1)\n";
    let newer = "stress-ng: debug: [3512] cpu: [3513] started (instance 0 on CPU 1)\n";
    assert!(!Announce::StressNg(2).is_complete(one));
    assert!(Announce::StressNg(2).is_complete(&format!("{one}{newer}")));
}
