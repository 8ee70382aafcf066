//! What `rtlat` once got wrong.

use crate::util::needs::{HELD_TO_SIGPENDING, TASKSET, TWO_CPUS};
use crate::util::session::lane_end;
use crate::util::tool::{Tool, rtlat, run};
use crate::util::{Daemon, Instance, eventually, process, route};
use anyhow::{Context as _, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rtcore::lane::peer::PeerState;
use rtcore::sys::mqueue::{Access, Queue};
use rtcore::sys::process as child;
use std::ffi::CString;
use std::process::Command;
use std::time::{Duration, Instant};

tests![
    results_that_cannot_be_kept_are_refused_before_the_run,
    a_file_that_turns_out_full_takes_no_text_with_it,
    samples_that_nobody_reads_end_the_run,
    a_daemon_that_dies_ends_the_run_and_leaves_no_queue,
    a_mask_is_heeded needs(TWO_CPUS, TASKSET),
    a_cpu_outside_the_mask_may_be_asked_for needs(TWO_CPUS, TASKSET),
    a_sender_that_is_stopped_for_good_ends_the_run,
    a_reader_that_has_left_is_in_nobodys_way,
    a_message_that_cannot_be_sent_is_reported_soon needs(HELD_TO_SIGPENDING),
    a_limit_of_cpu_time_is_warned_of,
    too_many_signal_routes_are_refused_with_numbers,
];

/// A run that would take so long that nobody waits for its end.
const LONG: [&str; 4] = ["-D", "1h", "-q", "-p0"];

fn results_that_cannot_be_kept_are_refused_before_the_run() -> anyhow::Result<()> {
    let nowhere = "/proc/no/such/place";
    let timer: &[&str] = &["timer", "-i", "10000"];
    for place in [
        ["--json", nowhere],
        ["--html", nowhere],
        ["--histfile", nowhere],
        ["--svg", nowhere],
    ] {
        run(rtlat(&[timer, &LONG, &place].concat()))?.refused(&[nowhere])?;
    }
    run(rtlat(&["compare", "--turns", "10000", "--save", nowhere]))?.refused(&[nowhere])?;
    Ok(())
}

fn a_file_that_turns_out_full_takes_no_text_with_it() -> anyhow::Result<()> {
    for file in [["--json", "/dev/full"], ["--histfile", "/dev/full"]] {
        let said = run(rtlat(
            &[&["timer", "-q", "-l", "10", "--histogram", "10"][..], &file].concat(),
        ))?;
        ensure!(said.out.contains("received 10, "), "{said:?}");
        said.refused(&["/dev/full"])?;
    }
    Ok(())
}

fn samples_that_nobody_reads_end_the_run() -> anyhow::Result<()> {
    let mut shell = Command::new("sh");
    let line = format!(
        "'{}' timer -v -i 10000 | head -n 1",
        *crate::util::tool::RTLAT
    );
    child::die_with_parent_at_exec(shell.args(["-c", &line]));
    let out = run(shell)?.well()?;
    ensure!(out.lines().count() == 1, "{out}");
    Ok(())
}

/// The daemon that this process started.
fn daemon_of(parent: u32) -> Option<Pid> {
    let parent = format!("own-daemon\0--parent\0{parent}\0");
    let is_daemon = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&parent)
    };
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pid = entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .find(is_daemon)?;
    Some(Pid::from_raw(pid))
}

fn a_daemon_that_dies_ends_the_run_and_leaves_no_queue() -> anyhow::Result<()> {
    for way in ["mq-mq", "direct"] {
        let tool = Tool::start(rtlat(&[&["route", way][..], &LONG].concat()))?;
        let parent = tool.pid();
        let queue = CString::new(format!("/rtlat-{parent}-0-rx"))?;
        let exists = || Queue::open(&queue, Access::Receive, true).is_ok();
        let daemon = eventually(|| daemon_of(parent)).context("no daemon")?;
        if way == "mq-mq" {
            eventually(|| exists().then_some(())).context("no queue")?;
        }
        kill(daemon, Signal::SIGKILL)?;
        let said = tool.end()?;
        ensure!(said.code() == Some(1) && !said.err.is_empty(), "{said:?}");
        ensure!(!exists(), "the queue is left");
    }
    Ok(())
}

fn a_sender_that_is_stopped_for_good_ends_the_run() -> anyhow::Result<()> {
    let tool = Tool::start(rtlat(&["mq", "-f", "-v", "-D", "1"]))?;
    tool.line().context("it does not measure")?;
    let children = format!("/proc/{0}/task/{0}/children", tool.pid());
    let child = eventually(|| {
        std::fs::read_to_string(&children)
            .ok()?
            .split_whitespace()
            .next()?
            .parse()
            .ok()
    });
    kill(Pid::from_raw(child.context("no child")?), Signal::SIGSTOP)?;
    tool.end()?.refused(&["does not end", "SIGSTOP"])?;
    Ok(())
}

/// The page keeps the pid of a process that has left; its queue is free to be read all the same.
fn a_reader_that_has_left_is_in_nobodys_way() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let config = i.head()
        + &process("planner")
        + &process("arm")
        + &lane_end("cmd", "planner", "")
        + &lane_end("arm.cmd", "arm", "")
        + &i.mqueue("mail", "owner = \"planner\"")
        + &i.mqueue("log", "owner = \"arm\"")
        + &route("cmd", &["arm.cmd"], "")
        + &route("mail", &["log"], "");
    let _daemon = Daemon::start(&config)?;
    let measure = |from: &str, to: &str| {
        let mut command = rtlat(&[
            "route", "-p0", "-q", "-l", "20", "--size", "32", "--from", from, "--to", to,
        ]);
        command.env("RTD_INSTANCE", &i.name);
        run(command)?.well()
    };
    measure("cmd", "arm.cmd")?;
    i.until("arm has left", |page| {
        page.processes.iter().all(|p| p.state != PeerState::Alive)
    })?;
    measure("mail", "log")?;
    Ok(())
}

/// `rtlat` with a mask that has the first CPU only.
fn on_the_first_cpu(args: &[&str]) -> anyhow::Result<Command> {
    let all = rtcore::sys::cpus::allowed()?;
    let mut command = Command::new("taskset");
    command
        .args(["-c", &all[0].to_string(), *crate::util::tool::RTLAT])
        .args(args);
    child::die_with_parent_at_exec(&mut command);
    Ok(command)
}

fn a_mask_is_heeded() -> anyhow::Result<()> {
    let timers = on_the_first_cpu(&["timer", "-t", "-q", "-l", "5"])?;
    let out = run(timers)?.well()?;
    ensure!(
        out.lines().filter(|line| line.starts_with("T:")).count() == 1,
        "{out}"
    );
    let small = [
        "compare", "-q", "-p0", "--turns", "1", "-l", "3", "--busy", "3", "--only", "futex",
    ];
    let compare = on_the_first_cpu(&small)?;
    let out = run(compare)?.well()?;
    ensure!(
        out.contains("same CPU") && !out.contains("other CPU"),
        "{out}"
    );
    let other = on_the_first_cpu(&["compare", "--placement", "other"])?;
    run(other)?.refused(&["one CPU only"])?;
    Ok(())
}

fn a_cpu_outside_the_mask_may_be_asked_for() -> anyhow::Result<()> {
    let last = rtcore::sys::cpus::allowed()?
        .last()
        .context("no CPU")?
        .to_string();
    let timer = on_the_first_cpu(&["timer", "-a", &last, "-q", "-l", "5"])?;
    run(timer)?.well()?;
    Ok(())
}

fn a_message_that_cannot_be_sent_is_reported_soon() -> anyhow::Result<()> {
    let mut command = Command::new("prlimit");
    command.args([
        "--sigpending=0",
        *crate::util::tool::RTLAT,
        "signal",
        "-q",
        "-l",
        "20",
    ]);
    child::die_with_parent_at_exec(&mut command);
    let begun = Instant::now();
    let said = run(command)?;
    // A second for what may be under way, and none for each that was not sent.
    ensure!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    said.refused(&["all ", " messages were lost"])?;
    Ok(())
}

/// The kernel ends such a run without a message, so the warning comes before it.
fn a_limit_of_cpu_time_is_warned_of() -> anyhow::Result<()> {
    let timer = ["timer", "-q", "-l", "20", "-i", "1000"];
    let mut command = Command::new("prlimit");
    command
        .args(["--rttime=500000", *crate::util::tool::RTLAT])
        .args(timer);
    child::die_with_parent_at_exec(&mut command);
    let said = run(command)?;
    let says = [
        "warning: RLIMIT_RTTIME is 500000 us",
        "ulimit -R unlimited",
        "LimitRTTIME=infinity",
    ];
    ensure!(
        said.code() == Some(0) && says.iter().all(|says| said.err.contains(says)),
        "{said:?}"
    );
    let mut command = Command::new("prlimit");
    command
        .args(["--rttime=unlimited", *crate::util::tool::RTLAT])
        .args(timer);
    child::die_with_parent_at_exec(&mut command);
    let said = run(command)?;
    ensure!(said.code() == Some(0) && said.err.is_empty(), "{said:?}");
    Ok(())
}

fn too_many_signal_routes_are_refused_with_numbers() -> anyhow::Result<()> {
    run(rtlat(&["route", "signal-signal", "-t", "20", "-l", "5"]))?.refused(&["15 "])?;
    Ok(())
}
