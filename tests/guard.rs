//! The runaway guard: lanes that are starved, that carry too much or never wait, for each of what
//! the configuration may say; and who speaks when the control thread cannot.

use crate::util::book::End::Delivered;
use crate::util::halt::{Halted, alone, starve};
use crate::util::kernel::{self, FIFO};
use crate::util::needs::{PTRACE, ROOT, SPARE_CPU, TWO_CPUS};
use crate::util::order;
use crate::util::{Daemon, Instance, Peer, eventually, first_cpu, lane, route};
use anyhow::{Context as _, ensure};
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
use nix::sys::signal::Signal;
use rtcore::stats::guard::GuardState;
use rtcore::stats::reader::Snapshot;
use rtcore::stats::snapshot::Lane;
use rtcore::sys::cpus;
use rtcore::sys::poll::{self, Interest};
use rtcore::sys::process;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

tests![
    a_starved_lane_is_named_and_never_demoted needs(ROOT, TWO_CPUS),
    a_lane_that_stands_still_stops_the_daemon needs(PTRACE),
    a_lane_above_its_budget_is_reported,
    a_lane_above_its_budget_is_demoted needs(ROOT),
    a_lane_above_its_budget_stops_the_daemon,
    a_polling_lane_is_judged_by_its_dispatches needs(SPARE_CPU),
    a_lane_that_never_waits_is_reported_by_the_kernel needs(ROOT, TWO_CPUS),
    a_limit_from_before_the_start_is_lifted_or_logged needs(ROOT, TWO_CPUS),
    the_control_thread_speaks_for_a_watchdog_that_does_not_run needs(PTRACE),
    the_final_ledger_of_a_lane_that_is_left_behind_is_what_it_published needs(PTRACE),
    a_stop_that_leaves_a_lane_behind_is_a_failure needs(PTRACE),
    a_standard_error_that_takes_nothing_changes_no_end,
    the_watchdog_speaks_for_a_control_thread_that_does_not_run needs(PTRACE),
    a_stop_that_nobody_carries_out_is_carried_out_by_force needs(PTRACE),
    the_watchdog_is_above_all_lanes_and_out_of_their_way needs(ROOT, TWO_CPUS),
];

/// Exit status of a daemon that ended because a lane ran away.
const EXIT_RUNAWAY: i32 = 3;

/// The lane that is watched, on the first CPU at priority 50, and one above it that makes room for
/// a thread in between; `daemon` and `keys` are what the guard is told.
fn config(instance: &Instance, daemon: &str, keys: &str) -> String {
    let head = instance.head();
    let head = head.replacen(
        "[daemon]\n",
        &format!("[daemon]\nwatchdog = \"10ms\"\n{daemon}\n"),
        1,
    );
    let head = head.replacen("[[lane]]\n", &format!("[[lane]]\n{keys}\n"), 1);
    head + &lane("high", 70, "")
        + &instance.mqueue("in", "")
        + &instance.mqueue("out", "")
        + &instance.mqueue("in.high", "")
        + &route("in", &["out"], "")
        + &route("in.high", &["out"], "lane = \"high\"")
}

/// The thread that reads `in`.
fn lane_tid(snapshot: &Snapshot) -> anyhow::Result<u32> {
    let worker = snapshot
        .workers
        .iter()
        .find(|w| w.name == "in")
        .context("no thread of in")?;
    Ok(worker.tid)
}

fn policy(daemon: &Daemon, tid: u32) -> anyhow::Result<u32> {
    Ok(kernel::thread(daemon.pid(), tid)?.policy)
}

/// Takes the CPU from the lane until the page shows that it stood still: some milliseconds more or
/// less are the scheduler's affair.
fn starved(instance: &Instance) -> anyhow::Result<Snapshot> {
    for _ in 0..5 {
        starve(first_cpu(), 60, &instance.queue("in"))?
            .join()
            .map_err(|_| anyhow::anyhow!("hog"))??;
        let snapshot = instance.snapshot()?;
        if snapshot.lanes[0].guard.stalls > 0 {
            return Ok(snapshot);
        }
    }
    anyhow::bail!("never seen: {:?}", instance.snapshot()?.lanes[0].guard)
}

/// Messages nobody takes, as fast as one process sends them: each costs the lane a dispatch.
fn flood(instance: &Instance, count: u64) -> anyhow::Result<()> {
    Peer::sender(&instance.queue("in"))?.stream(0, count)
}

fn out(output: Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Somebody else's thread takes the CPU: the lane is named, is well again afterwards, and keeps its
/// priority even where runaways are demoted, because it is not the one that ran away.
fn a_starved_lane_is_named_and_never_demoted() -> anyhow::Result<()> {
    let _alone = alone();
    for what in ["report", "demote"] {
        let instance = Instance::new()?;
        let daemon = Daemon::start(&config(
            &instance,
            &format!("on_runaway = \"{what}\""),
            "stall = \"40ms\"",
        ))?;
        let before = instance.snapshot()?;
        assert_eq!(before.lanes[0].guard.state, GuardState::Ok);
        let seen = starved(&instance)?;
        let guard = seen.lanes[0].guard;
        ensure!(
            guard.stall_max_ns >= 40_000_000 && !guard.demoted,
            "{guard:?}"
        );
        assert_eq!(
            seen.lanes[1].guard.stalls, 0,
            "the one above it has its CPU"
        );
        assert_eq!(policy(&daemon, lane_tid(&before)?)?, FIFO);
        daemon.logged("lane lane: thread in (tid ")?;
        daemon.logged(&format!("waits for CPU {} at priority 50", first_cpu()))?;
        daemon.logged("moves again after ")?;
        instance.until("it is well again", |s| {
            s.lanes[0].guard.state == GuardState::Ok
        })?;
        let sent = instance.snapshot()?.routes[0].ledger.accepted;
        ensure!(sent >= 1, "what it was woken for");
        instance.ledger_is("in->out", sent, &[(Delivered, sent)])?;
        let table = out(instance.rtctl(&["stats"])?);
        ensure!(
            table.contains("ok (") && table.contains(" stall"),
            "{table}"
        );
        let log = daemon.stop()?;
        ensure!(log.contains(", 0 notices lost, 0 heap calls"), "{log}");
    }
    Ok(())
}

/// A lane that does not move ends the daemon, which says why and exits with a status of its own,
/// although that lane's thread does not come along.
fn a_lane_that_stands_still_stops_the_daemon() -> anyhow::Result<()> {
    let _alone = alone();
    let instance = Instance::new()?;
    let daemon = Daemon::start(&config(
        &instance,
        "on_runaway = \"stop\"\ndrain = \"10ms\"",
        "stall = \"40ms\"",
    ))?;
    let halted = Halted::thread(lane_tid(&instance.snapshot()?)?)?;
    daemon.logged("thread in of lane lane does not end; rtd ends without waiting for it")?;
    halted.ended()?;
    let (status, log) = daemon.end()?;
    assert_eq!(status.code(), Some(EXIT_RUNAWAY), "{status}\n{log}");
    // First the watchdog's own line, then the control thread's, then the last one.
    let lines: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("lane lane: thread in (tid "))
        .collect();
    ensure!(
        lines.len() >= 3 && lines.iter().all(|line| line.contains("waits for CPU")),
        "{log}"
    );
    ensure!(
        lines
            .iter()
            .any(|line| line.starts_with("rtd: error: watchdog: ")),
        "{log}"
    );
    ensure!(log.contains("on_runaway = \"stop\" in [daemon]"), "{log}");
    ensure!(
        log.contains("lane high: accepted 0"),
        "the ledgers are told: {log}"
    );
    Ok(())
}

/// More comes than the lane may carry: counted, named, and nothing else where it is only reported.
fn a_lane_above_its_budget_is_reported() -> anyhow::Result<()> {
    let _alone = alone();
    let instance = Instance::new()?;
    let daemon = Daemon::start(&config(
        &instance,
        "duty_window = \"20ms\"",
        "duty = \"1%\"",
    ))?;
    let tid = lane_tid(&instance.snapshot()?)?;
    let before = policy(&daemon, tid)?;
    flood(&instance, 5_000)?;
    daemon.logged("used more than its duty = \"1%\" in a window of 20ms")?;
    daemon.logged("is within its duty again")?;
    let seen = instance.until("it is within it again", |s| {
        s.lanes[0].guard.state == GuardState::Ok
    })?;
    let guard = seen.lanes[0].guard;
    ensure!(
        guard.over_budget >= 1 && guard.duty_max_permille > 10 && guard.cpu_ns > 0,
        "{guard:?}"
    );
    assert_eq!((policy(&daemon, tid)?, guard.demoted), (before, false));
    assert_eq!(seen.lanes[1].guard.over_budget, 0);
    let json: serde_json::Value =
        serde_json::from_str(&out(instance.rtctl(&["stats", "--json"])?))?;
    ensure!(
        json["lanes"][0]["guard"]["over_budget"].as_u64() >= Some(1),
        "{json}"
    );
    daemon.stop()?;
    Ok(())
}

/// The same where it costs the thread its priority: shown as degraded everywhere, and messages go
/// on.
fn a_lane_above_its_budget_is_demoted() -> anyhow::Result<()> {
    let _alone = alone();
    let instance = Instance::new()?;
    // Long enough that a slow machine's lane is within it until the flood comes.
    let more = "on_runaway = \"demote\"\nduty_window = \"200ms\"";
    let daemon = Daemon::start(&config(&instance, more, "duty = \"1%\""))?;
    let tid = lane_tid(&instance.snapshot()?)?;
    assert_eq!(policy(&daemon, tid)?, FIFO);
    flood(&instance, 5_000)?;
    let seen = instance.until("it is demoted", |s| s.lanes[0].guard.demoted)?;
    assert_eq!(policy(&daemon, tid)?, 0);
    assert_eq!(
        (seen.lanes[0].degraded(), seen.lanes[1].degraded()),
        (vec!["demoted"], vec![])
    );
    daemon.logged("it has no real-time priority until rtd is restarted")?;
    for command in ["ls", "stats"] {
        let table = out(instance.rtctl(&[command])?);
        ensure!(
            table.contains("demoted") && table.contains(", DEGRADED"),
            "{table}"
        );
    }
    let delivered = instance.snapshot()?.routes[0].ledger;
    Peer::receiver(&instance.queue("out"))?.numbers(10)?;
    flood(&instance, 3)?;
    instance.until("it goes on", |s| {
        s.routes[0].ledger.accepted >= delivered.accepted + 3
    })?;
    daemon.stop()?;
    Ok(())
}

/// And where it ends the daemon: as cleanly as SIGTERM does, with the status that says what it was.
fn a_lane_above_its_budget_stops_the_daemon() -> anyhow::Result<()> {
    let _alone = alone();
    let instance = Instance::new()?;
    let more = "on_runaway = \"stop\"\nduty_window = \"20ms\"";
    let daemon = Daemon::start(&config(&instance, more, "duty = \"1%\""))?;
    let page = rtcore::stats::reader::Reader::open(&instance.name)?;
    // The daemon may be gone before all is sent: then the rest stays in its queue.
    let mut sender = Peer::sender(&instance.queue("in"))?;
    sender.ask(order::Queue::Stream {
        from: 0,
        count: 3000,
    })?;
    let (status, log) = daemon.end()?;
    drop(sender);
    assert_eq!(status.code(), Some(EXIT_RUNAWAY), "{status}\n{log}");
    ensure!(
        log.contains("used more than its duty") && log.contains("on_runaway = \"stop\""),
        "{log}"
    );
    let left = page.snapshot()?;
    ensure!(
        left.lanes.iter().all(|lane| lane.ledger.balances()),
        "{:?}",
        left.lanes
    );
    ensure!(
        !std::path::Path::new(&instance.socket()).exists(),
        "the socket is left behind"
    );
    Ok(())
}

/// A thread that never sleeps has all of its CPU: only what it does with messages counts.
fn a_polling_lane_is_judged_by_its_dispatches() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let keys = "wait = \"poll\"\nunisolated = true\nduty = \"50%\"";
    let daemon = Daemon::start(
        &config(&instance, "duty_window = \"20ms\"", keys).replace("priority = 50", "priority = 1"),
    )?;
    let spent = |s: &Snapshot| s.lanes[0].guard.cpu_ns > 60_000_000;
    let seen = instance.until("it polls", spent)?;
    let guard = seen.lanes[0].guard;
    ensure!(
        guard.over_budget == 0 && guard.duty_max_permille < 100,
        "{guard:?}"
    );
    // Nobody reads: soon all that it does with messages is to reject them.
    flood(&instance, 200)?;
    instance.until("all is full", |s| {
        s.lanes[0].ledger.accepted == 200 && s.lanes[0].ledger.rejected_total() > 0
    })?;
    let worked = |s: &Snapshot| s.lanes[0].guard.duty_max_permille > 20;
    for _ in 0..20 {
        flood(&instance, 2_000)?;
        if worked(&instance.snapshot()?) {
            break;
        }
    }
    instance.until("rejecting is work too", worked)?;
    daemon.logged("RLIMIT_RTTIME not set: lane `lane` never sleeps")?;
    assert_eq!(
        rttime(&daemon)?,
        ("unlimited".to_owned(), "unlimited".to_owned())
    );
    daemon.stop()?;
    Ok(())
}

/// Soft and hard RLIMIT_RTTIME of the daemon.
fn rttime(daemon: &Daemon) -> anyhow::Result<(String, String)> {
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", daemon.pid()))?;
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max realtime timeout"));
    let mut words = line
        .context("no such limit")?
        .split_whitespace()
        .map(str::to_owned);
    Ok((
        words.next().context("no soft limit")?,
        words.next().context("no hard limit")?,
    ))
}

/// Many routes make each message some work, so that one sender keeps the lane from ever waiting:
/// the kernel tells, and the line names the lane. Only where an end is wanted does the kernel have
/// leave to kill.
fn a_lane_that_never_waits_is_reported_by_the_kernel() -> anyhow::Result<()> {
    let _alone = alone();
    for (what, hard) in [("report", "unlimited"), ("demote", "1010000")] {
        let instance = Instance::new()?;
        let routes: String = (0..100)
            .map(|n| route("in", &["out"], &format!("name = \"r{n}\"\ncapacity = 1")))
            .collect();
        let more = format!("on_runaway = \"{what}\"\nrttime = \"10ms\"");
        let daemon = Daemon::start(
            &(config(&instance, &more, "duty = \"100%\"\nstall = \"1s\"") + &routes),
        )?;
        assert_eq!(rttime(&daemon)?, ("10000".to_owned(), hard.to_owned()));
        // Ahead of everything ordinary, so that there is always a next message; in portions, none
        // of which keeps the CPU for long.
        let mut sender = Peer::sender(&instance.queue("in"))?;
        sender.tell(order::Process::Fifo(10))?;
        let told = "ran for rttime = \"10ms\" without waiting (SIGXCPU)";
        for _ in 0..20 {
            sender.stream(0, 200)?;
            if daemon.log().contains(told) {
                break;
            }
        }
        daemon.logged("lane lane: thread in (tid ")?;
        daemon.logged(told)?;
        let tid = lane_tid(&instance.snapshot()?)?;
        let demoted = what == "demote";
        assert_eq!(policy(&daemon, tid)?, if demoted { 0 } else { FIFO });
        if demoted {
            // The watchdog did it: two looks at the scheduling later nobody from outside is blamed.
            std::thread::sleep(Duration::from_millis(1500));
            let is_blamed = |lane: &Lane| lane.degraded().contains(&"tampered");
            ensure!(
                !instance.snapshot()?.lanes.iter().any(is_blamed),
                "{:?}",
                instance.snapshot()?.lanes
            );
            ensure!(
                !daemon.log().contains("was changed from outside"),
                "{}",
                daemon.log()
            );
        }
        // The kernel raises the limit each time it tells: it is put back once the lane rests.
        eventually(|| (rttime(&daemon).ok()?.0 == "10000").then_some(()))?;
        daemon.stop()?;
    }
    Ok(())
}

/// A limit that was there before rtd does not end a lane that is to run without a break, and one
/// that would is told of.
fn a_limit_from_before_the_start_is_lifted_or_logged() -> anyhow::Result<()> {
    const LIMIT_US: u64 = 50_000;
    let started_with = |config: &str, hard_us: u64| {
        Daemon::start_with(config, |command| {
            let limit = move || Ok(setrlimit(Resource::RLIMIT_RTTIME, LIMIT_US, hard_us)?);
            // SAFETY: one system call between fork and exec.
            unsafe { command.pre_exec(limit) };
        })
    };
    let instance = Instance::new()?;
    let polling = config(&instance, "", "wait = \"poll\"\nunisolated = true");
    let daemon = started_with(
        &polling.replace("priority = 50", "priority = 1"),
        RLIM_INFINITY,
    )?;
    assert_eq!(rttime(&daemon)?.0, "unlimited");
    instance.until("it has polled for longer", |s| {
        s.lanes[0].guard.cpu_ns > 5 * LIMIT_US * 1000
    })?;
    ensure!(
        !daemon.log().contains("hard RLIMIT_RTTIME"),
        "{}",
        daemon.log()
    );
    daemon.stop()?;
    let instance = Instance::new()?;
    let daemon = started_with(&config(&instance, "", ""), 1_500_000)?;
    daemon.logged("started with a hard RLIMIT_RTTIME of 1500000 us: the kernel kills it")?;
    daemon.stop()?;
    Ok(())
}

/// What the last line of an ending daemon goes to does not hold up its end, nor change how it
/// ended: a standard error that is closed, and one that nobody reads.
fn a_standard_error_that_takes_nothing_changes_no_end() -> anyhow::Result<()> {
    for is_closed in [true, false] {
        let instance = Instance::new()?;
        let text = config(
            &instance,
            "on_runaway = \"stop\"\nduty_window = \"20ms\"",
            "duty = \"1%\"",
        );
        let (reader, writer) = std::io::pipe()?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_rtd"));
        command
            .args(["run", "--allow-degraded", "-"])
            .stderr(writer.try_clone()?);
        process::die_with_parent_at_exec(&mut command);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        child
            .stdin
            .take()
            .context("no stdin")?
            .write_all(text.as_bytes())?;
        let mut ready = String::new();
        BufReader::new(child.stdout.take().context("no stdout")?).read_line(&mut ready)?;
        assert_eq!(ready, "READY\n");
        let reader = if is_closed { None } else { Some(reader) };
        if reader.is_some() {
            fill(&writer)?;
        }
        drop(writer);
        let mut sender = Peer::sender(&instance.queue("in"))?;
        sender.ask(order::Queue::Stream {
            from: 0,
            count: 3000,
        })?;
        let ended = eventually(|| child.try_wait().ok().flatten());
        if ended.is_err() {
            child.kill()?;
            child.wait()?;
        }
        assert_eq!(ended?.code(), Some(EXIT_RUNAWAY), "closed: {is_closed}");
        drop((reader, sender));
    }
    Ok(())
}

/// Until it takes no more.
pub fn fill(pipe: &std::io::PipeWriter) -> anyhow::Result<()> {
    let writable =
        || poll::wait(&mut [Interest::writable(pipe.as_raw_fd())], 0).map_err(std::io::Error::from);
    let mut pipe = pipe;
    while writable()? > 0 {
        pipe.write_all(b"x")?;
    }
    Ok(())
}

/// The control thread does not run, so nobody logs what the watchdog finds: it says so itself.
fn the_watchdog_speaks_for_a_control_thread_that_does_not_run() -> anyhow::Result<()> {
    let _alone = alone();
    let instance = Instance::new()?;
    let daemon = Daemon::start(&config(&instance, "", "stall = \"40ms\""))?;
    let control = Halted::thread(daemon.pid())?;
    let lane = Halted::thread(lane_tid(&instance.snapshot()?)?)?;
    daemon.logged("rtd: error: watchdog: lane lane: thread in (tid ")?;
    ensure!(
        !daemon.log().contains("rtd: warning: lane lane"),
        "{}",
        daemon.log()
    );
    drop((lane, control));
    daemon.logged("rtd: warning: lane lane: thread in (tid ")?;
    daemon.logged("moves again after ")?;
    daemon.stop()?;
    Ok(())
}

/// The watchdog itself does not run, so nobody watches the lanes: the control thread says so.
/// Unless everything stood still.
fn the_control_thread_speaks_for_a_watchdog_that_does_not_run() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let daemon = Daemon::start(&config(&instance, "", ""))?;
    let named = |tid: &u32| {
        kernel::thread(daemon.pid(), *tid).is_ok_and(|thread| thread.name == "watchdog")
    };
    let dog = kernel::threads(daemon.pid())?
        .into_iter()
        .find(named)
        .context("no watchdog")?;
    daemon.freeze()?;
    std::thread::sleep(Duration::from_millis(1500));
    daemon.signal(Signal::SIGCONT)?;
    // More ticks than it takes.
    std::thread::sleep(Duration::from_millis(500));
    let halted = Halted::thread(dog)?;
    ensure!(
        !daemon.log().contains("has not run for"),
        "{}",
        daemon.log()
    );
    daemon.logged("the watchdog (tid ")?;
    daemon.logged("has not run for 1")?;
    drop(halted);
    daemon.logged("the watchdog samples again")?;
    daemon.stop()?;
    Ok(())
}

/// A lane thread that does not come along when the daemon is stopped: the end is no good one.
fn a_stop_that_leaves_a_lane_behind_is_a_failure() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let daemon = Daemon::start(&config(&instance, "drain = \"0ms\"", ""))?;
    let halted = Halted::thread(lane_tid(&instance.snapshot()?)?)?;
    daemon.signal(Signal::SIGTERM)?;
    daemon.logged("1 of 2 lane threads did not report their messages")?;
    drop(halted);
    let (status, log) = daemon.end()?;
    assert_eq!(status.code(), Some(1), "{status}\n{log}");
    Ok(())
}

/// Its messages are accounted for with the figures that it published last, not with zeros.
fn the_final_ledger_of_a_lane_that_is_left_behind_is_what_it_published() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let daemon = Daemon::start(&config(&instance, "drain = \"0ms\"", ""))?;
    Peer::sender(&instance.queue("in"))?.stream(0, 5)?;
    instance.ledger_is("in->out", 5, &[(Delivered, 5)])?;
    let halted = Halted::thread(lane_tid(&instance.snapshot()?)?)?;
    daemon.signal(Signal::SIGTERM)?;
    daemon.logged("1 of 2 lane threads did not report their messages")?;
    drop(halted);
    let (status, log) = daemon.end()?;
    assert_eq!(status.code(), Some(1), "{status}\n{log}");
    ensure!(
        log.contains("route in->out: its thread did not report its final ledger"),
        "{log}"
    );
    ensure!(
        log.contains("lane lane: accepted 5 = delivered 5 "),
        "{log}"
    );
    ensure!(
        !log.contains("route in.high->out: its thread"),
        "the other lane gave one: {log}"
    );
    Ok(())
}

/// The daemon is to end and its control thread does not see to it: the watchdog ends it.
fn a_stop_that_nobody_carries_out_is_carried_out_by_force() -> anyhow::Result<()> {
    let _alone = alone();
    let instance = Instance::new()?;
    let more = "on_runaway = \"stop\"\ndrain = \"0ms\"";
    let daemon = Daemon::start(&config(&instance, more, "stall = \"40ms\""))?;
    let control = Halted::thread(daemon.pid())?;
    let lane = Halted::thread(lane_tid(&instance.snapshot()?)?)?;
    daemon.logged("did not end in time: it is killed")?;
    lane.ended()?;
    let (status, log) = daemon.end()?;
    drop(control);
    assert_eq!(status.code(), Some(EXIT_RUNAWAY), "{status}\n{log}");
    ensure!(
        log.contains("rtd: error: watchdog: lane lane: thread in (tid "),
        "{log}"
    );
    Ok(())
}

/// The thread itself, as the kernel says: above all lanes, on the CPU where they are not, one for
/// all of them.
fn the_watchdog_is_above_all_lanes_and_out_of_their_way() -> anyhow::Result<()> {
    let given = cpus::given()?;
    let instance = Instance::new()?;
    let daemon = Daemon::start(&config(&instance, "", ""))?;
    let threads = kernel::threads(daemon.pid())?;
    let all: Vec<_> = threads
        .iter()
        .map(|tid| kernel::thread(daemon.pid(), *tid))
        .collect::<Result<_, _>>()?;
    let dogs: Vec<_> = all
        .iter()
        .filter(|thread| thread.name == "watchdog")
        .collect();
    let [dog] = dogs.as_slice() else {
        anyhow::bail!("{all:?}")
    };
    assert_eq!((dog.policy, dog.priority), (FIFO, 71), "{dog:?}");
    assert_ne!(dog.cpus, first_cpu().to_string(), "where the lanes are");
    ensure!(
        dog.cpus
            .parse::<usize>()
            .is_ok_and(|cpu| given.contains(&cpu)),
        "{dog:?}"
    );
    daemon.stop()?;
    Ok(())
}
