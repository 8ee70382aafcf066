//! What a container, a user's limits or a killed predecessor changes: /dev/mqueue that is not
//! mounted, refused system calls, a full /dev/shm, other user and time namespaces. Each hint names
//! the real cause.

use crate::util::needs::{
    MEMFD_NOEXEC, MOUNT, ROOT, SECOND_USER, TIME_NAMESPACES, USER_NAMESPACES,
};
use crate::util::order;
use crate::util::refuse::refuse;
use crate::util::session::planner_and_arm;
use crate::util::tool::{RTCTL, RTD, run, run_on};
use crate::util::{Daemon, Instance, Peer, exists, process, route};
use anyhow::{Context as _, ensure};
use rtcore::sys::process::die_with_parent_at_exec;
use std::process::Command;

tests![
    a_queue_is_seen_and_removed_where_mqueue_is_not_mounted needs(ROOT, MOUNT),
    cleanup_removes_what_a_killed_daemon_left,
    a_refused_call_is_named_as_what_it_is,
    rings_are_made_where_memory_must_not_be_executable needs(ROOT, MOUNT, MEMFD_NOEXEC),
    a_full_dev_shm_is_named needs(ROOT, MOUNT),
    a_limit_of_file_sizes_is_named,
    the_log_names_the_capabilities_that_root_has needs(ROOT),
    a_daemon_of_another_time_namespace_does_not_hang needs(ROOT, TIME_NAMESPACES),
    a_check_in_a_user_namespace_tries_what_it_says needs(SECOND_USER, USER_NAMESPACES),
    check_and_run_agree_about_soft_limits,
    the_estimate_of_locked_memory_holds needs(ROOT),
    a_start_waits_for_its_predecessor_that_dies,
    the_same_hint_is_printed_once needs(SECOND_USER),
    limits_of_process_machine_and_queue_bytes_are_distinguished,
];

/// mq_open(2).
const MQ_OPEN: i64 = if cfg!(target_arch = "x86_64") {
    240
} else {
    180
};
/// pidfd_open(2), on every architecture.
const PIDFD_OPEN: i64 = 434;
/// memfd_create(2).
const MEMFD_CREATE: i64 = if cfg!(target_arch = "x86_64") {
    319
} else {
    279
};
const EPERM: i32 = 1;
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;
const ENOSYS: i32 = 38;

fn config(i: &Instance) -> String {
    i.head()
        + &i.mqueue("in", "")
        + &i.mqueue("out", "")
        + &route("in", &["out"], "")
        + &process("arm")
}

/// A shell script in new namespaces.
fn apart(unshare: &[&str], script: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(unshare).args(["--", "sh", "-ec", script]);
    die_with_parent_at_exec(&mut command);
    command
}

/// Hides /dev/mqueue under a plain directory.
const NO_MQUEUE: &str = "mkdir -p /dev/mqueue; mount -t tmpfs none /dev/mqueue";

/// mq_open(3) finds a queue by name, mounted or not.
fn a_queue_is_seen_and_removed_where_mqueue_is_not_mounted() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let text = config(&i);
    let daemon = Daemon::start(&text)?;
    let other = text.replace("msgsize = 64", "msgsize = 65");
    let check = || apart(&["--mount"], &format!("{NO_MQUEUE}; exec {RTD} check -"));
    let said = run_on(check(), other.as_bytes())?;
    let queue = i.queue("in");
    said.refused(&["exists with msgsize 64", &format!("rtctl queue rm {queue}")])?;
    let remove = || {
        apart(
            &["--mount"],
            &format!("{NO_MQUEUE}; exec {RTCTL} queue rm {queue}"),
        )
    };
    let by = format!(
        "is used by rtd instance `{}` (pid {}): stop it first",
        i.name,
        daemon.pid()
    );
    run(remove())?.refused(&[&by])?;
    daemon.stop()?;
    Peer::sender(&queue)?.stream(0, 3)?;
    let said = run(remove())?.well()?;
    ensure!(
        said == format!("removed message queue {queue} with 3 messages\n"),
        "{said}"
    );
    ensure!(!exists(&queue)?, "{queue} is still there");
    run(remove())?.refused(&[&format!("there is no message queue {queue}")])?;
    Ok(())
}

/// Queues, page and socket of an instance that was killed; one that runs is refused.
fn cleanup_removes_what_a_killed_daemon_left() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let daemon = Daemon::start(&config(&i))?;
    let arm = Peer::run_as(&i, "arm")?;
    i.until("arm is registered", |s| s.processes[0].pid == arm.pid())?;
    let cleanup = || i.rtctl_command(&["cleanup"]);
    run(cleanup())?.refused(&[&format!("runs (pid {}): stop it first", daemon.pid())])?;
    daemon.kill()?;
    let (page, socket) = (i.page()?, i.socket());
    let said = run(cleanup())?.well()?;
    for removed in [
        i.queue("in"),
        i.queue("out"),
        socket.clone(),
        format!("{socket}.registered"),
    ] {
        ensure!(
            said.contains(&format!("removed {removed}"))
                || said.contains(&format!("queue {removed}")),
            "{said}"
        );
    }
    ensure!(
        !exists(&i.queue("in"))? && !exists(&i.queue("out"))?,
        "a queue is left: {said}"
    );
    ensure!(
        !page.exists() && !std::path::Path::new(&socket).exists(),
        "a file is left: {said}"
    );
    run(cleanup())?.refused(&["nothing to clean up"])?;
    Daemon::start(&config(&i))?.stop()?;
    Ok(())
}

/// A filter answers EPERM or ENOSYS; the hint names the call and the filter, not limits or pids.
fn a_refused_call_is_named_as_what_it_is() -> anyhow::Result<()> {
    for errno in [EPERM, ENOSYS] {
        let i = Instance::new()?;
        let mut refused = Ok(());
        let start = Daemon::start_with(&config(&i), |command| {
            refused = refuse(command, &[MQ_OPEN], errno);
        });
        refused?;
        let text = format!("{:#}", start.err().context("it started without mq_open")?);
        ensure!(
            text.contains("the system call is refused: allow mq_open"),
            "{text}"
        );

        let i = Instance::new()?;
        let mut refused = Ok(());
        let daemon = Daemon::start_with(&config(&i), |command| {
            refused = refuse(command, &[PIDFD_OPEN], errno);
        })?;
        refused?;
        let peer = Peer::start()?;
        let pid = peer.pid().to_string();
        let said = run(i.rtctl_command(&["register", "--as", "arm", "--pid", &pid]))?;
        let said = said.refused(&["pidfd_open(2) is refused", "seccomp profile"])?;
        ensure!(!said.contains("give --pid the number"), "{said}");
        daemon.stop()?;
    }
    Ok(())
}

/// EMFILE of mq_open(3) has two causes, and ENFILE is the machine's: each hint names the limit that
/// is in the way. The machine cannot be brought to ENFILE beside other tests, so a filter answers
/// it.
fn limits_of_process_machine_and_queue_bytes_are_distinguished() -> anyhow::Result<()> {
    let answered = |call: i64, errno: i32| -> anyhow::Result<String> {
        let i = Instance::new()?;
        let mut filtered = Ok(());
        let start = Daemon::start_with(&config(&i), |command| {
            filtered = refuse(command, &[call], errno)
        });
        filtered?;
        Ok(format!("{:#}", start.err().context("it started")?))
    };
    let text = answered(MQ_OPEN, ENFILE)?;
    // An ordinary user is also warned of RLIMIT_MEMLOCK.
    ensure!(
        text.contains("fs.file-max") && !text.contains("RLIMIT_NOFILE"),
        "{text}"
    );
    let text = answered(MQ_OPEN, EMFILE)?;
    ensure!(
        text.contains("RLIMIT_MSGQUEUE") && !text.contains("RLIMIT_NOFILE"),
        "{text}"
    );
    // A process that has no descriptor left.
    let i = Instance::new()?;
    let daemon = Daemon::start(&config(&i))?;
    let mut peer = Peer::start()?;
    let mut limit = Command::new("prlimit");
    limit.args(["--nofile=3:3", "--pid", &peer.pid().to_string()]);
    run(limit)?.well()?;
    let said = peer.refused(
        order::Queue::OpenToSend(&i.queue("in")),
        &["RLIMIT_NOFILE", "LimitNOFILE="],
    )?;
    ensure!(!said.contains("RLIMIT_MSGQUEUE"), "{said}");
    daemon.stop()?;
    // The rings of a session: rtd's limit, or the machine's.
    for (errno, limit) in [
        (EMFILE, "raise LimitNOFILE= of rtd"),
        (ENFILE, "raise fs.file-max"),
    ] {
        let i = Instance::new()?;
        let mut filtered = Ok(());
        let daemon = Daemon::start_with(&planner_and_arm(&i, "", "", ""), |command| {
            filtered = refuse(command, &[MEMFD_CREATE], errno);
        })?;
        filtered?;
        Peer::start()?.refused(
            order::Session::Connect {
                socket: &i.socket(),
                name: "arm",
            },
            &[limit],
        )?;
        daemon.stop()?;
    }
    Ok(())
}

/// vm.memfd_noexec = 2 refuses memory that could be executed.
fn rings_are_made_where_memory_must_not_be_executable() -> anyhow::Result<()> {
    // A demo has sessions with rings, and ends with an error when one is not made.
    let script = format!("echo 2 > /proc/sys/vm/memfd_noexec; exec {RTD} demo --seconds 2");
    run(apart(
        &["--pid", "--fork", "--kill-child", "--mount-proc"],
        &script,
    ))?
    .well()?;
    Ok(())
}

/// The page does not fit: the hint says what is full.
fn a_full_dev_shm_is_named() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let script = format!(
        "mount --bind /etc /run; mount -t tmpfs -o mode=1777,size=4k none /dev/shm; exec {RTD} run -"
    );
    let start = Daemon::spawn(apart(&["--mount"], &script), &config(&i));
    let text = format!("{:#}", start.err().context("it started")?);
    ensure!(
        text.contains("this tmpfs is full") && text.contains("--shm-size"),
        "{text}"
    );
    Ok(())
}

/// The kernel ends a program by default that makes a file larger than RLIMIT_FSIZE.
fn a_limit_of_file_sizes_is_named() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let mut command = Command::new("sh");
    command.args([
        "-c",
        &format!("ulimit -f 0; exec {RTD} run --allow-degraded -"),
    ]);
    let start = Daemon::spawn(command, &config(&i));
    let text = format!("{:#}", start.err().context("it started")?);
    ensure!(text.contains("LimitFSIZE=infinity"), "{text}");
    Ok(())
}

/// Root of a container has a part of the capabilities.
fn the_log_names_the_capabilities_that_root_has() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", "-sys_ptrace", RTD, "run", "-"]);
    let daemon = Daemon::spawn(command, &config(&i))?;
    daemon.logged("runs as root with CAP_KILL")?;
    ensure!(
        !daemon.log().contains("every capability"),
        "{}",
        daemon.log()
    );
    daemon.stop()?;
    Ok(())
}

/// The daemon's CLOCK_MONOTONIC is 5000 s ahead or behind: its sign of life is as fresh as it is.
fn a_daemon_of_another_time_namespace_does_not_hang() -> anyhow::Result<()> {
    for offset in ["5000", "-100"] {
        let i = Instance::new()?;
        let mut command = Command::new("unshare");
        command.args([
            "--time",
            "--monotonic",
            offset,
            "--fork",
            "--kill-child",
            "--",
            RTD,
            "run",
            "-",
        ]);
        let daemon = Daemon::spawn(command, &config(&i))?;
        let said = run(i.rtctl_command(&["stats"]))?.well()?;
        ensure!(
            said.contains("running") && !said.contains("HUNG"),
            "offset {offset}: {said}"
        );
        let silent_ns = i.snapshot()?.taken_ns.abs_diff(i.snapshot()?.heartbeat_ns);
        ensure!(
            silent_ns < crate::util::patience_ns(),
            "offset {offset}: silent for {silent_ns} ns"
        );
        daemon.kill()?;
    }
    Ok(())
}

/// A capability of a user namespace lifts no limit: the check tries, agrees with the start, and its
/// hints name none.
fn a_check_in_a_user_namespace_tries_what_it_says() -> anyhow::Result<()> {
    let i = Instance::new()?;
    std::fs::write(i.file("rtd.toml"), config(&i))?;
    let file = i.file("rtd.toml").display().to_string();
    let in_namespaces = |options: &[&str], script: &str| {
        let mut command = Command::new("prlimit");
        command.args([
            "--rtprio=0",
            "--memlock=65536",
            "setpriv",
            "--reuid",
            "65534",
            "--regid",
            "65534",
        ]);
        command
            .args(["--clear-groups", "unshare"])
            .args(options)
            .args(["--", "sh", "-ec", script]);
        die_with_parent_at_exec(&mut command);
        run(command)
    };
    // The directory of the socket is root's, whom the namespace does not know: no uid that the hint
    // could name can be taken.
    let script = format!("mount -t tmpfs none /dev/shm; exec {RTD} run --allow-degraded {file}");
    in_namespaces(&["--user", "--map-root-user", "--mount"], &script)?.refused(&[
        "not mapped in this user namespace",
        "set [daemon] socket to another place",
    ])?;
    for (map, rtprio) in [
        ("--map-root-user", "refuses SCHED_FIFO"),
        (
            "--map-current-user",
            "no capability lifts this limit in a user namespace",
        ),
    ] {
        let said =
            in_namespaces(&["--user", map], &format!("exec {RTD} check {file}"))?.refused(&[
                "RLIMIT_RTPRIO = 0",
                rtprio,
                "--ulimit rtprio=99",
                "above RLIMIT_MEMLOCK = 65536",
                "--ulimit memlock=-1",
            ])?;
        ensure!(
            !said.contains("AmbientCapabilities") && !said.contains("setcap"),
            "{map}: {said}"
        );
    }
    Ok(())
}

/// `rtd run` raises soft limits to the hard ones, and `rtd check` does the same.
fn check_and_run_agree_about_soft_limits() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let text = config(&i);
    let low = |args: &[&str]| {
        let mut command = Command::new("prlimit");
        command
            .args(["--nofile=20:", "--msgqueue=100:", "--", RTD])
            .args(args);
        command
    };
    let mut check = low(&["check", "--allow-degraded", "-"]);
    die_with_parent_at_exec(&mut check);
    run_on(check, text.as_bytes())?.well()?;
    Daemon::spawn(low(&["run", "--allow-degraded", "-"]), &text)?.stop()?;
    Ok(())
}

/// What `rtd check` says will be locked is within 20 % of what rtd locks.
fn the_estimate_of_locked_memory_holds() -> anyhow::Result<()> {
    for capacity in ["", "capacity = 65536\n"] {
        let i = Instance::new()?;
        let text = i.head()
            + &i.mqueue("in", "")
            + &i.mqueue("out", "")
            + &route("in", &["out"], capacity);
        let said = run_on(crate::util::tool::rtd(&["check", "-"]), text.as_bytes())?.well()?;
        let estimate = said
            .lines()
            .find_map(|line| line.trim().strip_prefix("locked memory"));
        let estimate: f64 = estimate
            .and_then(|rest| rest.split_whitespace().next())
            .context("none")?
            .parse()?;
        let daemon = Daemon::start(&text)?;
        let locked = crate::util::kernel::status(daemon.pid(), "VmLck")?;
        let locked: f64 = locked
            .split_whitespace()
            .next()
            .context("no VmLck")?
            .parse::<f64>()?
            * 1024.0;
        println!(
            "{capacity:?}: estimate {estimate}, locked {locked}, ratio {:.2}",
            estimate / locked
        );
        ensure!(
            (0.8..=1.2).contains(&(estimate / locked)),
            "{capacity:?}: estimate {estimate}, locked {locked}"
        );
        daemon.stop()?;
    }
    Ok(())
}

/// A supervisor that kills rtd starts the next one at once: the kernel has not ended the last one
/// by then.
fn a_start_waits_for_its_predecessor_that_dies() -> anyhow::Result<()> {
    let i = Instance::new()?;
    // Memory to unmap, so that the end takes its time.
    let text = i.head()
        + &i.mqueue("in", "")
        + &i.mqueue("out", "")
        + &route("in", &["out"], "capacity = 65536");
    let mut daemon = Daemon::start(&text)?;
    for round in 0..30 {
        let since = std::time::Instant::now();
        daemon.signal(nix::sys::signal::Signal::SIGKILL)?;
        let next = match Daemon::start(&text) {
            // Where others load the machine, the end can take longer than a start waits.
            Err(_) if since.elapsed() >= std::time::Duration::from_millis(500) => {
                daemon.kill()?;
                daemon = Daemon::start(&text)?;
                continue;
            }
            started => started.with_context(|| format!("round {round}"))?,
        };
        drop(std::mem::replace(&mut daemon, next));
    }
    // One that runs is refused, and soon.
    let since = std::time::Instant::now();
    let refused = format!(
        "{:#}",
        Daemon::start(&text).err().context("a second one started")?
    );
    ensure!(refused.contains("is running: pid"), "{refused}");
    println!("refused after {:?}", since.elapsed());
    daemon.stop()?;
    Ok(())
}

/// One hint for all lanes, which are named.
fn the_same_hint_is_printed_once() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let text = config(&i) + &crate::util::lane("fast", 80, "") + &crate::util::lane("slow", 20, "");
    let mut command = Command::new("setpriv");
    command.args([
        "--reuid",
        "65534",
        "--regid",
        "65534",
        "--clear-groups",
        "prlimit",
        "--rtprio=0",
        RTD,
    ]);
    command.args(["check", "-"]);
    die_with_parent_at_exec(&mut command);
    let said = run_on(command, text.as_bytes())?;
    let said =
        said.refused(&["lanes `lane` (50), `fast` (80), `slow` (20) and the watchdog (81)"])?;
    ensure!(said.matches("LimitRTPRIO=81").count() == 1, "{said}");
    Ok(())
}
